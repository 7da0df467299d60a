//! Tests of the search in a room's messages.

use std::io;
use std::net::Ipv4Addr;

use serde_json::Value;

use crate::support::{Response, Server, Ws, get_from};

/// More searches than any burst.
const SEARCHES_MANY: usize = 2_000;

/// Percent-encodes a text for a query.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn search(server: &Server, query: &str) -> Response {
    server.get(&format!("/api/rooms/tea/messages?limit=200&q={}", encoded(query)))
}

/// The texts that a query finds, oldest first.
#[track_caller]
fn found(server: &Server, query: &str) -> Vec<String> {
    let response = search(server, query);
    assert_eq!(response.status, 200, "{query}: {}", response.text());
    let page = response.json();
    assert_eq!(page["next"], Value::Null, "{query}: one page has all");
    let frames = page["data"].as_array().expect("a page");
    frames.iter().map(|frame| frame["content"].as_str().expect("a text").to_owned()).collect()
}

#[test]
fn sixteen_different_words_can_be_searched_for() {
    let server = Server::unhurried();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    let words: Vec<String> = (1..=17).map(|number| format!("w{number}")).collect();
    ana.say(&words.join(" "));
    ana.expect("text");
    assert_eq!(found(&server, &words[..16].join(" ")).len(), 1);
    assert_eq!(found(&server, &"w1 w2 ".repeat(400)).len(), 1, "repeated words count once");
    let many: Vec<String> = (0..1_000).map(|number| format!("{number}")).collect();
    for query in [words.join(" "), many.join(" ")] {
        let refused = search(&server, &query);
        let error = refused.json();
        assert_eq!(
            (refused.status, &error["code"], &error["reason"]),
            (400, &"bad_request".into(), &"bad_query".into())
        );
        assert!(error["error"].as_str().expect("a sentence").contains("at most 16"), "{error}");
    }
}

/// Sends requests until one is refused for the rate. Returns the refusal.
#[track_caller]
fn until_refused(mut ask: impl FnMut() -> Response) -> Response {
    for _ in 0..SEARCHES_MANY {
        let response = ask();
        if response.status != 200 {
            return response;
        }
    }
    panic!("no request is refused");
}

#[test]
fn searches_are_rated_by_address() -> io::Result<()> {
    let server = Server::start();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    ana.say("tea");
    ana.expect("text");
    let refused = until_refused(|| search(&server, "tea"));
    assert_eq!((refused.status, &refused.json()["reason"]), (429, &"rate_limited".into()), "{}", refused.text());
    assert!(refused.header("Retry-After").is_some_and(|seconds| seconds.parse().is_ok_and(|seconds: u32| seconds > 0)));
    // Reading goes on, and so do other addresses.
    assert_eq!(server.get("/api/rooms/tea/messages").status, 200);
    let other = get_from(server.addr(), Ipv4Addr::new(127, 0, 0, 2), "/api/rooms/tea/messages?q=tea")?;
    assert_eq!(other.status, 200);
    Ok(())
}

#[test]
fn without_a_rate_searches_have_none() {
    let server = Server::unhurried();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    ana.say("tea");
    ana.expect("text");
    for _ in 0..300 {
        assert_eq!(found(&server, "tea"), ["tea"]);
    }
}
