//! The head of a request: whatever comes, it is refused, incomplete, or read in one way only.

#![no_main]

use std::net::SocketAddr;

use adda::http1::forwarded::Client;
use adda::http1::head::{parse, query_value, unescape};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(Some((head, length))) = parse(input) else { return };
    assert!(length <= input.len());
    let (again, again_length) = parse(&input[..length]).expect("a head").expect("a whole one");
    assert_eq!(
        (again_length, format!("{again:?}")),
        (length, format!("{head:?}")),
        "bytes after the head are not read"
    );
    assert!(!matches!(parse(&input[..length - 1]), Ok(Some(_))), "a head has one end");
    assert!(head.path().starts_with('/') || head.path() == "*", "{}", head.path());
    assert!(!head.path().contains(['\r', '\n', ' ', '#']));
    for (name, value) in head.headers() {
        assert!(!name.is_empty() && !value.contains(&b'\r') && !value.contains(&b'\n') && !value.contains(&0));
    }
    let _ = unescape(head.path());
    if let Some(query) = head.query() {
        let _ = query_value(query, "q");
    }
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    assert_eq!(Client::of(&head, peer, &[]).address, peer.ip(), "only a proxy names another client");
    let _ = Client::of(&head, peer, &["127.0.0.0/8".parse().expect("a range")]);
});
