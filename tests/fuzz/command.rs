//! A text frame of a client: whatever JSON comes, it is a command within the limits, or refused with a sentence.

#![no_main]

use adda::limits::Limits;
use adda::protocol::{Body, ClientCommand, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let limits = Limits::default();
    let frame = match decode(text, &limits) {
        Ok(frame) => frame,
        Err(rejected) => {
            assert!(!rejected.rejection.sentence.is_empty());
            return;
        }
    };
    if let Some(nonce) = &frame.nonce {
        assert!((1..=64).contains(&nonce.as_str().chars().count()));
    }
    if let ClientCommand::Message(Body::Text { content, .. }) = &frame.command {
        assert!(content.len() <= limits.content_bytes_max && !content.trim().is_empty());
    }
    assert_eq!(decode(text, &limits).as_ref(), Ok(&frame));
});
