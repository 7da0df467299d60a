//! Tests of leases: a lost connection keeps its membership for a while, and a user with two connections is one person.

use std::time::Duration;

use serde_json::Value;

use crate::support::{Server, Ws};

fn coming_and_going(frames: &[Value]) -> Vec<(&str, &str)> {
    let seen = frames.iter().filter(|frame| frame["type"] == "join" || frame["type"] == "leave");
    seen.map(|frame| (frame["type"].as_str().expect("a type"), frame["username"].as_str().expect("a name"))).collect()
}

/// All frames up to the message with a text.
fn until_text(ws: &mut Ws, content: &str) -> Vec<Value> {
    let mut frames = Vec::new();
    loop {
        let frame = ws.next_frame();
        let is_last = frame["content"] == content;
        frames.push(frame);
        if is_last {
            return frames;
        }
    }
}

/// A new client: its connection, and the token to reconnect with.
fn arrive(server: &Server, target: &str) -> (Ws, String) {
    let mut ws = Ws::connect(server, target);
    let welcome = ws.expect("welcome");
    let token = welcome["token"].as_str().expect("a token").to_owned();
    (ws, token)
}

#[test]
fn a_client_that_reconnects_within_its_lease_is_not_seen_to_leave_and_misses_nothing() {
    let server = Server::with(&["--lease", "60s", "--rate", "0"]);
    let mut ben = Ws::join(&server, "/ws/tea/Ben");
    let (mut ana, token) = arrive(&server, "/ws/tea/Ana");
    ana.say("here");
    let mut last = ana.expect_text("here")["id"].as_str().expect("an id").to_owned();
    ben.expect("join");
    ben.expect_text("here");
    for round in 0..10 {
        // The connection is lost without a close frame.
        drop(ana);
        let missed = format!("while away {round}");
        ben.say(&missed);
        assert_eq!(coming_and_going(&until_text(&mut ben, &missed)), []);
        let listed = server.get("/api/rooms/tea").json();
        assert_eq!(listed["data"]["client_count"], 2, "{listed}");
        ana = Ws::connect(&server, &format!("/ws/tea/Ana?token={token}&after={last}"));
        let welcome = ana.expect("welcome");
        assert_eq!((&welcome["member_count"], &welcome["reset"]), (&Value::from(2), &Value::from(false)), "{welcome}");
        ana.expect_text(&missed);
        ana.say("back");
        last = ana.expect_text("back")["id"].as_str().expect("an id").to_owned();
        assert_eq!(coming_and_going(&until_text(&mut ben, "back")), []);
    }
    // A member that closes with 1000 leaves at once, however many of its connections were lost before.
    ana.close(1000);
    server.wait_for_metric("members", 1);
}

#[test]
fn a_client_that_does_not_reconnect_leaves_when_its_lease_ends() {
    let server = Server::with(&["--lease", "300ms"]);
    let mut ben = Ws::join(&server, "/ws/tea/Ben");
    let ana = Ws::join(&server, "/ws/tea/Ana");
    ben.expect("join");
    drop(ana);
    assert_eq!(ben.expect("leave")["username"], "Ana");
    assert_eq!(server.get("/api/rooms/tea").json()["data"]["client_count"], 1);
}

#[test]
fn a_close_with_1000_is_a_leave_at_once() {
    let server = Server::with(&["--lease", "60s"]);
    let mut ben = Ws::join(&server, "/ws/tea/Ben");
    Ws::join(&server, "/ws/tea/Ana").close(1000);
    ben.expect("join");
    ben.expect("leave");
    // A page that is closed or reloaded closes with 1001, and may reconnect.
    Ws::join(&server, "/ws/tea/Eva").close(1001);
    ben.expect("join");
    ben.say("still here?");
    assert_eq!(coming_and_going(&until_text(&mut ben, "still here?")), []);
    assert_eq!(server.get("/api/rooms/tea").json()["data"]["client_count"], 2);
}

#[test]
fn a_user_with_two_connections_is_one_person() {
    let server = Server::with(&["--lease", "0"]);
    let mut ben = Ws::join(&server, "/ws/tea/Ben");
    let (mut first, token) = arrive(&server, "/ws/tea/Ana");
    ben.expect("join");
    let mut second = Ws::connect(&server, &format!("/ws/tea/Ana?token={token}"));
    let welcome = second.expect("welcome");
    assert_eq!(welcome["member_count"], 2, "{welcome}");
    assert_eq!(welcome["members"].as_array().map(Vec::len), Some(2), "{welcome}");
    first.say("one");
    second.expect_text("one");
    assert_eq!(coming_and_going(&until_text(&mut ben, "one")), []);
    first.close(1000);
    second.say("two");
    assert_eq!(coming_and_going(&until_text(&mut ben, "two")), []);
    second.close(1000);
    assert_eq!(ben.expect("leave")["username"], "Ana");
    // Two guests with the same name are two people.
    let _one = Ws::join(&server, "/ws/tea/Eva");
    let _other = Ws::join(&server, "/ws/tea/Eva");
    ben.expect("join");
    ben.expect("join");
    assert_eq!(server.get("/api/rooms/tea").json()["data"]["client_count"], 3);
}

#[test]
fn a_user_with_two_names_is_one_person() {
    let server = Server::with(&["--lease", "0"]);
    let mut ben = Ws::join(&server, "/ws/tea/Ben");
    let (first, token) = arrive(&server, "/ws/tea/Ana");
    ben.expect("join");
    let mut second = Ws::connect(&server, &format!("/ws/tea/Anna?token={token}"));
    let welcome = second.expect("welcome");
    assert_eq!(welcome["member_count"], 2, "{welcome}");
    let names = |server: &Server| {
        let room = server.get("/api/rooms/tea").json();
        assert_eq!(room["data"]["client_count"], 2, "{room}");
        let clients = room["data"]["clients"].as_array().expect("a list").iter();
        clients.map(|one| one["username"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&server), ["Ben", "Anna"]);
    second.say("one");
    assert_eq!(coming_and_going(&until_text(&mut ben, "one")), []);
    first.close(1000);
    second.say("two");
    assert_eq!(coming_and_going(&until_text(&mut ben, "two")), []);
    assert_eq!(names(&server), ["Ben", "Anna"]);
    second.close(1000);
    assert_eq!(ben.expect("leave")["username"], "Anna");
}

#[test]
fn a_lease_does_not_delay_the_stop() {
    let mut server = Server::with(&["--lease", "300s"]);
    drop(Ws::join(&server, "/ws/tea/Ana"));
    server.wait_for_metric("members", 0);
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.wait_exit(Duration::from_secs(5)).code(), Some(0));
}
