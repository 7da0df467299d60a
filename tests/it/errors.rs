//! Tests of error frames: the answer to a command that is refused, and that the connection stays open.

use serde_json::{Value, json};
use tungstenite::Message;

use crate::support::{Server, Ws};

/// Reads one `error`, checks its shape, and proves that the connection is open.
#[track_caller]
fn expect_error(ws: &mut Ws, code: &str, nonce: Option<&str>) -> Value {
    let error = ws.expect("error");
    assert_eq!(error["code"], code, "{error}");
    assert_eq!(error.get("nonce"), nonce.map(Value::from).as_ref(), "{error}");
    let sentence = error["content"].as_str().expect("a content");
    assert!(sentence.contains(' '), "no sentence: {error}");
    assert_eq!(error["user_id"], ws.user_id(), "{error}");
    error
}

#[test]
fn each_error_has_its_code_and_its_nonce() {
    let server = Server::unhurried();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    let long = "x".repeat(8193);
    for (command, code) in [
        (json!({"content": 5}), "bad_json"),
        (json!({"content": null}), "bad_json"),
        (json!({"type": "text"}), "bad_json"),
        (json!({"content": ""}), "bad_json"),
        (json!({"content": " \n\t "}), "bad_json"),
        (json!({"type": "dance"}), "bad_type"),
        (json!({"type": "welcome"}), "bad_type"),
        (json!({"type": ""}), "bad_type"),
        (json!({"type": "join"}), "conflict"),
        (json!({"type": "join", "room_id": ""}), "bad_room"),
        (json!({"type": "join", "room_id": "a\u{202e}b"}), "bad_room"),
        (json!({"type": "join", "room_id": "dm:a:b"}), "bad_room"),
        (json!({"content": "x", "room_id": "a\u{0}"}), "bad_room"),
        (json!({"content": "x", "room_id": "r".repeat(65)}), "too_long"),
        (json!({"content": long}), "too_long"),
        (json!({"content": "x", "reply_to": "42"}), "not_found"),
        (json!({"content": "x", "reply_to": "0192f7a0-0000-7000-8000-000000000001"}), "not_found"),
    ] {
        let mut command = command;
        command["nonce"] = "n1".into();
        ana.command(&command);
        let error = expect_error(&mut ana, code, Some("n1"));
        assert_eq!(error["room_id"], "tea", "{error}");
        assert_eq!(error.get("retry_ms"), None, "{error}");
    }
    ana.expect_nothing_else();
}

#[test]
fn invalid_json_is_answered_without_a_nonce() {
    let server = Server::unhurried();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    let deep = "{\"a\":".repeat(10_000);
    for text in ["{", "{}x", "{\"content\":\"\\ud800\"}", "{'content':'x'}", deep.as_str()] {
        ana.send(text);
        expect_error(&mut ana, "bad_json", None);
    }
    ana.expect_nothing_else();
}

#[test]
fn an_invalid_nonce_is_not_sent_back() {
    let server = Server::start();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    ana.command(&json!({"content": "x", "nonce": "n".repeat(65)}));
    expect_error(&mut ana, "too_long", None);
    ana.command(&json!({"content": "x", "nonce": ""}));
    expect_error(&mut ana, "bad_name", None);
    ana.expect_nothing_else();
}

#[test]
fn the_longest_message_is_accepted_and_one_byte_more_refused() {
    let server = Server::with(&["--max-content", "300"]);
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    assert_eq!(ana.welcome["limits"]["content_bytes"], 300);
    let longest = "ক".repeat(100);
    ana.say(&longest);
    ana.expect_text(&longest);
    ana.command(&json!({"content": longest + "x", "nonce": "n"}));
    expect_error(&mut ana, "too_long", Some("n"));
    ana.expect_nothing_else();
}

#[test]
fn a_command_to_a_room_without_membership_reaches_no_member() {
    let server = Server::start();
    let mut coffee = Ws::join(&server, "/ws/coffee/Ben");
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    for command in [
        json!({"content": "x", "room_id": "coffee", "nonce": "n"}),
        json!({"type": "typing", "room_id": "coffee", "nonce": "n"}),
        json!({"type": "leave", "room_id": "coffee", "nonce": "n"}),
        json!({"content": "x", "room_id": "nowhere", "nonce": "n"}),
        json!({"type": "leave", "room_id": "nowhere", "nonce": "n"}),
    ] {
        ana.command(&command);
        let error = ana.expect("error");
        let code = error["code"].as_str();
        assert!(matches!(code, Some("forbidden" | "not_found")), "{command}: {error}");
        assert_eq!(error["nonce"], "n");
    }
    ana.expect_nothing_else();
    coffee.expect_nothing_else();
    let rooms = server.get("/api/rooms").json();
    assert_eq!(rooms["data"].as_array().map(Vec::len), Some(2), "no room is made of a mistake: {rooms}");
}

#[test]
fn a_room_can_be_joined_only_once() {
    let server = Server::start();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    ana.command(&json!({"type": "join", "room_id": "tea", "nonce": "n"}));
    expect_error(&mut ana, "conflict", Some("n"));
    ana.expect_nothing_else();
    assert_eq!(server.get("/api/rooms/tea").json()["data"]["client_count"], 1);
}

#[test]
fn one_connection_can_be_in_fifty_rooms_and_no_more() {
    let server = Server::unhurried();
    let mut ana = Ws::join(&server, "/ws/room1/Ana");
    for number in 2..=50 {
        ana.command(&json!({"type": "join", "room_id": format!("room{number}")}));
        assert_eq!(ana.expect("welcome")["room_id"], format!("room{number}"));
    }
    ana.command(&json!({"type": "join", "room_id": "room51", "nonce": "n"}));
    let error = ana.expect("error");
    assert_eq!(error["nonce"], "n");
    assert_eq!(server.get("/api/rooms/room51").status, 404, "{error}");
    ana.command(&json!({"type": "leave", "room_id": "room2"}));
    ana.expect("leave");
    ana.command(&json!({"type": "join", "room_id": "room51"}));
    ana.expect("welcome");
}

#[test]
fn a_binary_frame_is_an_error_and_does_not_close_the_connection() {
    let server = Server::start();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    ana.send_message(Message::binary(vec![0, 159, 146, 150]));
    expect_error(&mut ana, "bad_type", None);
    ana.send_message(Message::binary(Vec::new()));
    expect_error(&mut ana, "bad_type", None);
    ana.expect_nothing_else();
}

#[test]
fn a_rate_limit_error_says_when_to_try_again() {
    let server = Server::with(&["--rate", "1/s", "--burst", "3"]);
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    let mut ben = Ws::join(&server, "/ws/tea/Ben");
    ana.expect("join");
    for number in 1..=3 {
        ana.say(&number.to_string());
    }
    ana.command(&json!({"content": "too fast", "nonce": "n"}));
    // Storing a message takes longer than refusing one, so the error may arrive first.
    let (mut taken, mut error) = (Vec::new(), None);
    while taken.len() < 3 || error.is_none() {
        let frame = ana.next_frame();
        match frame["type"].as_str() {
            Some("text") => taken.push(frame["content"].clone()),
            _ => error = Some(frame),
        }
    }
    assert_eq!(taken, ["1", "2", "3"]);
    let error = error.expect("an error");
    assert_eq!(
        (&error["type"], &error["code"], &error["nonce"]),
        (&json!("error"), &json!("rate_limited"), &json!("n"))
    );
    let retry_ms = error["retry_ms"].as_u64().expect("when to try again");
    assert!((1..=1000).contains(&retry_ms), "{error}");
    // Each user has a rate limit of its own.
    ben.say("mine is full");
    assert_eq!(ben.contents(4), ["1", "2", "3", "mine is full"]);
    ana.expect_text("mine is full");
    // After the given time the message is accepted; this wait is what the test is about.
    std::thread::sleep(std::time::Duration::from_millis(retry_ms));
    ana.say("in time");
    ana.expect_text("in time");
}

#[test]
fn by_default_ten_messages_a_second_and_thirty_at_once_are_accepted() {
    let server = Server::start();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    for number in 0..60 {
        ana.say(&number.to_string());
    }
    let mut taken = 0;
    for _ in 0..60 {
        taken += usize::from(ana.next_frame()["type"] == "text");
    }
    assert!((30..45).contains(&taken), "{taken} of 60 were taken");
}

#[test]
fn continued_abuse_closes_the_connection() {
    let server = Server::start();
    let mut ben = Ws::join(&server, "/ws/tea/Ben");
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    ben.expect("join");
    for _ in 0..1000 {
        if ana.try_send(Message::text("{\"type\":\"dance\"}")).is_err() {
            break;
        }
    }
    assert_eq!(ana.close_code(), 1008);
    ana.end();
    ben.expect("leave");
    server.wait_for_metric("drops_total{reason=\"abuse\"}", 1);
}
