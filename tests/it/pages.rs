//! Tests of the pages of a room's history, and of the list of the people in it.

use serde_json::{Value, json};

use crate::support::{Server, Ws};

/// The messages that `:memory:` keeps of a room.
const KEPT: usize = 200;
const MESSAGES: &str = "/api/rooms/tea/messages";

/// Sends numbered messages, and returns their frames.
#[track_caller]
fn said(ws: &mut Ws, count: usize) -> Vec<Value> {
    let mut frames = Vec::new();
    for number in 1..=count {
        ws.say(&format!("message {number}"));
        frames.push(ws.expect("text"));
    }
    frames
}

fn id(frame: &Value) -> &str {
    frame["id"].as_str().expect("an id")
}

#[track_caller]
fn get(server: &Server, query: &str) -> Value {
    let response = server.get(&format!("{MESSAGES}?{query}"));
    assert_eq!(response.status, 200, "{query}: {}", response.text());
    response.json()
}

#[test]
fn a_cursor_of_a_forgotten_message_is_answered_with_a_reset() {
    let server = Server::unhurried();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    let frames = said(&mut ana, KEPT + 10);
    let (first, kept) = (id(&frames[0]), &frames[10..]);
    let after = get(&server, &format!("after={first}&limit=3"));
    assert_eq!(after, json!({"data": kept[..3], "next": id(&kept[2]), "reset": true}));
    assert_eq!(get(&server, &format!("after={}&limit=3", id(&kept[2])))["reset"], Value::Null);
    assert_eq!(get(&server, &format!("before={first}")), json!({"data": [], "reset": true}));
    let found = get(&server, &format!("after={first}&q=message%20{}", KEPT + 10));
    assert_eq!(found, json!({"data": [kept[KEPT - 1]], "reset": true}));
    assert_eq!(get(&server, &format!("around={first}&limit=3")), after);
    for never in ["x", "", "4f0a3ea5-5b3f-4e2a-9d52-3b0f4a4c1d11", "00000000-0000-0000-0000-000000000000"] {
        for cursor in ["before", "after", "around"] {
            let refused = server.get(&format!("{MESSAGES}?{cursor}={never}"));
            assert_eq!((refused.status, &refused.json()["reason"]), (400, &"bad_query".into()), "{cursor}={never}");
        }
    }
}

#[test]
fn messages_around_a_message_have_it_in_the_middle() {
    let server = Server::unhurried();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    let frames = said(&mut ana, 20);
    ana.command(&json!({"type": "delete", "message_id": frames[9]["id"]}));
    ana.expect("delete");
    let around = |at: usize, limit: usize| {
        let page = get(&server, &format!("around={}&limit={limit}", id(&frames[at])));
        let seqs: Vec<u64> =
            page["data"].as_array().expect("a page").iter().filter_map(|f| f["seq"].as_u64()).collect();
        let seq_of = |cursor: &str| frames.iter().find(|f| f["id"] == page[cursor]).and_then(|f| f["seq"].as_u64());
        (seqs, seq_of("prev"), seq_of("next"))
    };
    assert_eq!(around(10, 5), ((9..=13).collect(), Some(9), Some(13)));
    assert_eq!(around(10, 4), ((9..=12).collect(), Some(9), Some(12)));
    assert_eq!(around(10, 1), (vec![11], Some(11), Some(11)));
    assert_eq!(around(0, 5), ((1..=3).collect(), None, Some(3)));
    assert_eq!(around(19, 5), ((18..=20).collect(), Some(18), None));
    assert_eq!(around(10, 200), ((1..=20).collect(), None, None));
    // The pages on both sides follow without a gap.
    let before = get(&server, &format!("before={}&limit=2", id(&frames[8])));
    assert_eq!(before["data"][1]["seq"], 8);
    let whole = get(&server, &format!("around={}", id(&frames[10])));
    assert_eq!(whole["data"][9]["content"], "", "in its current state");
    for query in ["q=message", "before", "after"] {
        let query = if query.starts_with('q') { query.to_owned() } else { format!("{query}={}", id(&frames[0])) };
        let refused = server.get(&format!("{MESSAGES}?around={}&{query}", id(&frames[3])));
        assert_eq!(refused.status, 400, "{query}");
    }
}

#[test]
fn one_message_can_be_read() {
    let server = Server::unhurried();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    let frames = said(&mut ana, 2);
    let get = |room: &str, id: &str| server.get(&format!("/api/rooms/{room}/messages/{id}"));
    assert_eq!(get("tea", id(&frames[1])).json(), json!({"data": frames[1]}));
    ana.command(&json!({"type": "delete", "message_id": frames[1]["id"]}));
    let event = ana.expect("delete");
    let deleted = get("tea", id(&frames[1])).json();
    assert_eq!((&deleted["data"]["content"], &deleted["data"]["seq"]), (&"".into(), &2.into()));
    assert!(deleted["data"]["deleted_at"].is_string(), "{deleted}");
    let _jam = Ws::join(&server, "/ws/jam/Ana");
    for (room, id, reason) in [
        ("tea", id(&event), "no_such_message"),
        ("tea", "42", "no_such_message"),
        ("tea", "4f0a3ea5-5b3f-4e2a-9d52-3b0f4a4c1d11", "no_such_message"),
        ("jam", id(&frames[0]), "no_such_message"),
        ("none", id(&frames[0]), "no_such_room"),
    ] {
        let none = get(room, id);
        assert_eq!((none.status, &none.json()["reason"]), (404, &reason.into()), "{room} {id}");
    }
}

#[test]
fn the_people_in_a_room_are_listed_page_by_page() {
    let server = Server::unhurried();
    let mut members: Vec<Ws> =
        (0..7).map(|number| Ws::join(&server, &format!("/ws/tea/guest-{number}?history=0"))).collect();
    let mut expected: Vec<Value> = members
        .iter()
        .map(|ws| ws.user_id())
        .enumerate()
        .map(|(number, id)| json!({"id": id, "username": format!("guest-{number}"), "role": "guest", "bot": false}))
        .collect();
    expected.sort_by_key(|person| person["id"].to_string());
    let get = |query: &str| server.get(&format!("/api/rooms/tea/members{query}")).json();
    assert_eq!(get(""), json!({"data": expected}));
    let first = get("?limit=3");
    assert_eq!(first, json!({"data": expected[..3], "next": expected[2]["id"]}));
    let rest = get(&format!("?limit=200&after={}", first["next"].as_str().expect("an id")));
    assert_eq!(rest, json!({"data": expected[3..]}));
    let left = members.remove(0);
    let gone = left.user_id();
    drop(left);
    members[0].until(|frame| frame["type"] == "leave" && frame["user_id"] == gone.as_str());
    let people = get("")["data"].take();
    assert!(
        people.as_array().is_some_and(|people| people.len() == 6 && people.iter().all(|p| p["id"] != gone.as_str()))
    );
}
