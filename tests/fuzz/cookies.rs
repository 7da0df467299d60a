//! Cookies and tokens: what counts as one has the shape of one, and can stand in a header.

#![no_main]

use adda::auth::credential::{Credential, SessionCookie, is_old_cookie, token_of_bearer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let fields: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
    let cookie = SessionCookie::new("0123456789", 1_000);
    for clock_ms in [0, u64::MAX] {
        let Ok(Some(token)) = cookie.token(|| fields.iter().copied(), clock_ms) else { continue };
        assert!(token.bytes().all(|byte| byte.is_ascii_graphic() && !b";,\"\\".contains(&byte)), "{token:?}");
        let set = cookie.set(token, 1_000, true).expect("a cookie");
        let field = set.split(';').next().expect("a pair").as_bytes();
        assert_eq!(cookie.token(|| [field], u64::MAX), Ok(Some(token)), "it is read as it was set");
        let _ = is_old_cookie(token, fields.iter().copied());
    }
    for field in &fields {
        if let Ok(token) = token_of_bearer(field) {
            assert!(!token.is_empty() && token.is_ascii());
        }
        let _ = Credential::of(Some(field), None, || Ok(None));
    }
});
