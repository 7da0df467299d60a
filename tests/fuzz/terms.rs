//! The text of a search: its terms are few, and a text has its own terms.

#![no_main]

use adda::store::terms::{Terms, each_token};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    each_token(text, |token| assert!(!token.is_empty()));
    let Ok(terms) = Terms::parse(text) else { return };
    let (whole, begun) = terms.tokens();
    assert_eq!(terms.is_empty(), text.trim().is_empty() || !terms.are_in(text), "{text:?}");
    // What the index has for the text is found by its terms.
    let mut tokens = Vec::new();
    each_token(text, |token| tokens.push(token.to_owned()));
    for token in &whole {
        assert!(tokens.contains(token), "{token:?} of {text:?} is not in the index");
    }
    for token in &begun {
        assert!(tokens.iter().any(|other| other.starts_with(token.as_str())), "{token:?} of {text:?}");
    }
});
