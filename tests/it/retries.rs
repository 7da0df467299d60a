//! Tests of retries: a retry of a stored message is answered as a duplicate, even if a new message would be refused
//! now. So an error with a nonce means that the message is not stored.

use adda::model::role::Role;
use serde_json::{Value, json};

use crate::support::Asked::ByBearer;
use crate::support::{People, Server, Ws, http, request};

struct Stage {
    _people: People,
    server: Server,
    admin: String,
    guest: (String, String),
}

impl Stage {
    fn set(flags: &[&str]) -> Self {
        let mut people = People::new();
        let (_, admin) = people.find_user("admin", Role::Admin);
        let (id, token) = people.find_user("ana", Role::Guest);
        let server = people.serve(flags);
        Self { _people: people, server, admin, guest: (id.to_string(), token) }
    }

    #[track_caller]
    fn admin_request(&self, method: &str, target: &str, json: Value) {
        let json = Some(json).filter(|json| !json.is_null());
        let response = request(self.server.addr(), ByBearer(&self.admin), method, target, json.as_ref());
        assert!(response.status < 300, "{}", response.text());
    }
}

fn sent(ws: &mut Ws, nonce: &str) -> Value {
    ws.command(&json!({"content": "hi", "nonce": nonce}));
    ws.until(|frame| frame["nonce"] == nonce)
}

#[test]
fn a_retry_is_a_duplicate_even_if_posting_is_forbidden_since() {
    let stage = Stage::set(&[]);
    let user = format!("/api/users/{}", stage.guest.0);
    let mute = |until: Value| stage.admin_request("PUT", &user, json!({"muted_until": until}));
    let set = |what: Value| stage.admin_request("PATCH", "/api/rooms/tea", what);
    let mut ws = Ws::join(&stage.server, &format!("/ws/tea/ana?token={}", stage.guest.1));
    let stored = sent(&mut ws, "0");
    assert_eq!(stored["type"], "text");
    let check = |ws: &mut Ws, code: &str, nonce: &str| {
        let again = sent(ws, "0");
        assert_eq!((&again["duplicate"], &again["id"]), (&true.into(), &stored["id"]), "{again}");
        assert_eq!(sent(ws, nonce)["code"], code);
    };
    mute(json!("2099-01-01T00:00:00Z"));
    check(&mut ws, "forbidden", "1");
    mute(Value::Null);
    set(json!({"posting": "admins"}));
    check(&mut ws, "forbidden", "2");
    set(json!({"posting": "everyone", "slow_mode_s": 3_600}));
    assert_eq!(sent(&mut ws, "3")["type"], "text", "the first of this hour");
    check(&mut ws, "rate_limited", "4");
    set(json!({"slow_mode_s": 0}));
    ws.command(&json!({"type": "leave", "room_id": "tea"}));
    ws.until(|frame| frame["type"] == "leave");
    check(&mut ws, "forbidden", "5");
    // A refused message is not stored: it is accepted once it is allowed again.
    ws.command(&json!({"type": "join", "room_id": "tea", "history": 0}));
    ws.until(|frame| frame["type"] == "welcome");
    for nonce in ["1", "2", "4", "5"] {
        let stored = sent(&mut ws, nonce);
        assert_eq!((&stored["type"], &stored["duplicate"]), (&"text".into(), &Value::Null), "{stored}");
    }
}

#[test]
fn a_retry_over_the_rate_limit_is_a_duplicate() {
    let server = Server::with(&["--rate", "1", "--burst", "3"]);
    let mut ws = Ws::join(&server, "/ws/tea/ana");
    let stored = sent(&mut ws, "0");
    let mut refused = 0;
    for nonce in 1..=8 {
        refused += i32::from(sent(&mut ws, &nonce.to_string())["code"] == "rate_limited");
    }
    assert!(refused >= 4, "{refused} were too fast");
    let again = sent(&mut ws, "0");
    assert_eq!((&again["duplicate"], &again["id"]), (&true.into(), &stored["id"]), "{again}");
}

#[test]
fn an_announcement_that_is_sent_again_is_a_duplicate() {
    let stage = Stage::set(&[]);
    let mut tea = Ws::join(&stage.server, &format!("/ws/tea/x?token={}", stage.admin));
    let mut coffee = Ws::join(&stage.server, "/ws/coffee/ben");
    let announce = |ws: &mut Ws| {
        ws.command(&json!({"type": "announcement", "content": "We close.", "nonce": "n"}));
        ws.until(|frame| frame["nonce"] == "n")
    };
    let first = announce(&mut tea);
    assert_eq!((&first["type"], &first["duplicate"]), (&"announcement".into(), &Value::Null), "it is acked: {first}");
    let mut dates = Ws::join(&stage.server, "/ws/dates/dan");
    let again = announce(&mut tea);
    assert_eq!((&again["duplicate"], &again["id"]), (&true.into(), &first["id"]), "{again}");
    assert_eq!(coffee.until(|frame| frame["type"] == "announcement")["content"], "We close.");
    for _ in 0..2 {
        let body = json!({"content": "We open."}).to_string();
        let response = http(
            stage.server.addr(),
            format!(
                "POST /api/announcements HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nIdempotency-Key: k\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                stage.admin,
                body.len()
            ),
        );
        assert_eq!(response.status, 202, "{}", response.text());
    }
    // A client that is in no room still gets the answer to its announcement.
    tea.command(&json!({"type": "leave"}));
    tea.until(|frame| frame["type"] == "leave");
    tea.command(&json!({"type": "announcement", "content": "We rest.", "nonce": "o"}));
    assert_eq!(tea.until(|frame| frame["nonce"] == "o")["type"], "announcement");
    // The last announcement is the last frame: nothing else was announced.
    for ws in [&mut coffee, &mut dates] {
        assert_eq!(ws.until(|frame| frame["type"] == "announcement")["content"], "We open.");
        assert_eq!(ws.next_frame()["content"], "We rest.");
        ws.say("end");
        assert_eq!(ws.next_frame()["content"], "end");
    }
}
