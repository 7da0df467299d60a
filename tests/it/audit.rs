//! Tests of the audit log, over HTTP and by `adda audit`: who changed what, when.

use std::net::SocketAddr;
use std::path::Path;

use adda::config::{Config, Data as Place};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::accounts_cli::Data;
use crate::migration::{Fixture, SCHEMAS};
use crate::support::Asked::{self, ByBearer, Plainly};
use crate::support::{DEADLINE, Response, Server, Ws, adda, request, user_token};

const PASSWORD: &str = "correct horse battery";
const UNTIL: &str = "2099-01-01T00:00:00.000Z";

#[track_caller]
fn order(server: &Server, token: &str, method: &str, target: &str, json: Value) -> Response {
    let json = Some(json).filter(|json| !json.is_null());
    let response = request(server.addr(), ByBearer(token), method, target, json.as_ref());
    assert!(response.status < 300, "{method} {target}: {} {}", response.status, response.text());
    response
}

/// A page of the audit log, with its `next`.
#[track_caller]
fn page(address: SocketAddr, token: &str, query: &str) -> (Vec<Value>, Value) {
    let response = request(address, ByBearer(token), "GET", &format!("/api/audit{query}"), None);
    assert_eq!(response.status, 200, "{}", response.text());
    let mut body = response.json();
    let Value::Array(data) = body["data"].take() else { panic!("no list: {body}") };
    (data, body["next"].take())
}

/// The parts of an entry that a test expects: names, and null for what is absent.
fn parts(entry: &Value) -> Value {
    json!([entry["by"]["username"], entry["action"], entry["user"]["username"], entry["room_id"], entry["address"]])
}

/// A guest's id and token.
#[track_caller]
fn guest(server: &Server, name: &str) -> (String, String) {
    let begun = request(server.addr(), Plainly, "POST", "/api/session", Some(&json!({ "username": name }))).json();
    let field = |name: &str| begun["data"][name].as_str().expect("a text").to_owned();
    (field("id"), field("token"))
}

#[track_caller]
fn sent(ws: &mut Ws, content: &str) -> String {
    ws.command(&json!({"content": content, "nonce": content}));
    ws.expect_text(content)["id"].as_str().expect("an id").to_owned()
}

#[track_caller]
fn refused(server: &Server, asked: Asked<'_>) {
    let response = request(server.addr(), asked, "GET", "/api/audit", None);
    assert_eq!((response.status, &response.json()["reason"]), (403, &json!("not_admin")), "{asked:?}");
}

#[test]
fn every_change_is_recorded_with_its_author_whatever_way_it_came() {
    let data = Data::new();
    let (path, given) = (data.file(), format!("{PASSWORD}\n"));
    let path = Path::new(&path);
    let code = crate::setup::code_for(&data);
    data.run(&["user", "add", "karim"], &given).done();
    let flags = ["--registration", "invite", "--rate", "0"];
    let mut server = data.serve(&flags);
    let address = server.addr();

    // By the operator, while the server runs.
    let boss = user_token(path, "boss", "admin");
    let old = user_token(path, "karim", "user");
    data.run(&["user", "passwd", "karim"], &given).done();
    let token = data.run(&["token", "list", "karim", "--format", "json"], "").done();
    let id = serde_json::from_str::<Value>(&token).expect("a token")["id"].to_string();
    data.run(&["token", "revoke", &id], "").done();
    data.run(&["token", "rotate-guests"], "").done();

    // By requests.
    let boss_orders = |method: &str, target: &str, json: Value| order(&server, &boss, method, target, json);
    let invited = boss_orders("POST", "/api/invitations", json!({"uses": 1})).json();
    let invitation = invited["data"]["code"].as_str().expect("a code");
    let account = json!({"username": "rahim", "password": PASSWORD, "invitation": invitation});
    let registered = request(address, Plainly, "POST", "/api/accounts", Some(&account));
    assert_eq!(registered.status, 201, "{}", registered.text());
    let rahim = registered.json()["data"]["token"].as_str().expect("a token").to_owned();
    boss_orders("PATCH", "/api/rooms/plans", json!({"private": true, "topic": "a hidden topic"}));
    let door = boss_orders("POST", "/api/invitations", json!({"room": "plans", "uses": 3})).json();
    let door_code = door["data"]["code"].as_str().expect("a code").to_owned();
    order(&server, &rahim, "POST", "/api/rooms/plans/members", json!({"invitation": door_code}));
    boss_orders("DELETE", &format!("/api/invitations/{}", door["data"]["id"]), Value::Null);
    let (ana, ana_token) = guest(&server, "ana");
    let mut ws = Ws::join(&server, &format!("/ws?room=tea&token={ana_token}"));
    let (own, rude) = (sent(&mut ws, "a text of mine"), sent(&mut ws, "a rude text"));
    order(&server, &ana_token, "DELETE", &format!("/api/rooms/tea/messages/{own}"), Value::Null);
    boss_orders("DELETE", &format!("/api/rooms/tea/messages/{rude}"), Value::Null);
    boss_orders("PUT", &format!("/api/users/{ana}"), json!({"muted_until": UNTIL}));
    boss_orders("PUT", &format!("/api/users/{ana}"), json!({"muted_until": null}));
    boss_orders("DELETE", &format!("/api/rooms/tea/members/{ana}"), Value::Null);
    let ban = json!({"banned": {"reason": "spam", "address": true, "force": true}});
    boss_orders("PUT", &format!("/api/users/{ana}"), ban);
    boss_orders("PUT", &format!("/api/users/{ana}"), json!({"banned": false}));
    boss_orders("DELETE", "/api/bans/127.0.0.1", Value::Null);
    boss_orders("PUT", "/api/bans/2001:db8::1", json!({"until": UNTIL}));
    boss_orders("POST", "/api/announcements", json!({"content": "an announced text"}));

    // By a WebSocket.
    let (zoe, zoe_token) = guest(&server, "zoe");
    let mut zoe_ws = Ws::join(&server, &format!("/ws?room=jam&token={zoe_token}"));
    let said = sent(&mut zoe_ws, "one more text");
    let mut admin = Ws::join(&server, &format!("/ws?room=jam&token={boss}"));
    for (number, command) in [
        json!({"type": "room", "slow_mode_s": 5, "posting": "admins"}),
        json!({"type": "delete", "message_id": said}),
        json!({"type": "announcement", "content": "another announced text"}),
        json!({"type": "mute", "user_id": zoe, "muted_until": UNTIL}),
        json!({"type": "kick", "user_id": zoe}),
        json!({"type": "ban", "user_id": zoe, "banned": true}),
        json!({"type": "ban", "user_id": boss, "banned": true}),
    ]
    .into_iter()
    .enumerate()
    {
        let mut command = command;
        command["nonce"] = number.to_string().into();
        admin.command(&command);
        let answer = admin.until(|frame| frame["nonce"] == command["nonce"]);
        assert_eq!(answer["type"] == "error", number == 6, "{command}: {answer}");
    }
    boss_orders("DELETE", "/api/rooms/jam", Value::Null);
    data.run(&["user", "remove", "karim", "--yes"], "").done();

    let expected = json!([
        [null, "create_setup_link", null, null, null],
        [null, "create_account", "karim", null, null],
        [null, "set_policy", null, null, null],
        [null, "create_token", "boss", null, null],
        [null, "set_role", "boss", null, null],
        [null, "create_token", "karim", null, null],
        [null, "set_password", "karim", null, null],
        [null, "revoke_token", "karim", null, null],
        [null, "rotate_guest_key", null, null, null],
        ["boss", "create_invitation", null, null, null],
        ["rahim", "register", null, null, null],
        ["boss", "set_room", null, "plans", null],
        ["boss", "create_invitation", null, "plans", null],
        ["rahim", "use_invitation", null, "plans", null],
        ["boss", "revoke_invitation", null, "plans", null],
        ["boss", "delete_message", "ana", "tea", null],
        ["boss", "mute", "ana", null, null],
        ["boss", "unmute", "ana", null, null],
        ["boss", "kick", "ana", "tea", null],
        ["boss", "ban", "ana", null, "127.0.0.1"],
        ["boss", "unban", "ana", null, null],
        ["boss", "unban", null, null, "127.0.0.1"],
        ["boss", "ban", null, null, "2001:db8::"],
        ["boss", "announce", null, null, null],
        ["boss", "set_room", null, "jam", null],
        ["boss", "delete_message", "zoe", "jam", null],
        ["boss", "announce", null, null, null],
        ["boss", "mute", "zoe", null, null],
        ["boss", "kick", "zoe", "jam", null],
        ["boss", "ban", "zoe", null, null],
        ["boss", "delete_room", null, "jam", null],
        [null, "remove_account", "karim", null, null],
    ]);
    let (mut entries, next) = page(address, &boss, "");
    assert_eq!(next, Value::Null);
    entries.reverse();
    assert_eq!(Value::from_iter(entries.iter().map(parts)), expected);
    assert_eq!(entries[18]["user"]["id"], ana.as_str());
    assert_eq!(entries[16]["detail"], format!("until {UNTIL}"));
    assert_eq!(entries[24]["detail"], "posting admins, slow_mode_s 5");
    entries.reverse();

    // Page by page. A page goes on behind an entry, whether there are newer entries or not.
    let (mut paged, mut query) = (Vec::new(), "?limit=5".to_owned());
    loop {
        let (page, next) = page(address, &boss, &query);
        paged.extend(page);
        if next.is_null() {
            break;
        }
        query = format!("?limit=5&before={next}");
    }
    assert_eq!(paged, entries);
    for query in ["limit=0", "limit=x", "before=x", "before="] {
        let response = request(address, ByBearer(&boss), "GET", &format!("/api/audit?{query}"), None);
        assert_eq!((response.status, &response.json()["reason"]), (400, &json!("bad_query")), "{query}");
    }

    for asked in [Plainly, ByBearer(&rahim), ByBearer(&guest(&server, "eli").1)] {
        refused(&server, asked);
    }
    let text = Value::from_iter(entries.clone()).to_string();
    let secrets = [&*code, &*boss, &*old, invitation, &*door_code, &*rahim, &*ana_token, PASSWORD];
    for secret in secrets.into_iter().chain(["argon2", "a hidden topic", "rude text", "announced", "one more"]) {
        assert!(!text.contains(secret), "{secret} is in the audit log");
    }

    // The tool prints the same, and the server has logged it in the same words.
    let printed = adda(path, &["audit", "--format", "json", "--limit", "0"]);
    let printed: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(printed, entries);
    let lines = adda(path, &["audit"]);
    assert_eq!(lines.lines().count(), entries.len());
    let kick = format!("has kicked {ana} (ana) from tea");
    assert!(
        lines.lines().any(|line| line.starts_with("20") && line.contains("Z  ") && line.ends_with(&kick)),
        "{lines}"
    );
    assert_eq!(
        adda(path, &["audit", "--limit", "2"]).lines().collect::<Vec<_>>(),
        lines.lines().take(2).collect::<Vec<_>>()
    );
    let log = server.wait_for_log("the removal", |log| log.contains("has removed the account"));
    for line in lines.lines().filter(|line| !line.contains("setup link") && !line.contains("(karim): role")) {
        let (_, sentence) = line.split_once("Z  ").expect("a time");
        assert!(sentence.contains("changed the policy") || log.contains(sentence), "{sentence}");
    }

    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit(DEADLINE).code(), Some(0));
    let server = data.serve(&flags);
    assert_eq!(page(server.addr(), &boss, "").0, entries, "after a restart with the same flags");
}

#[test]
fn a_server_in_memory_has_an_audit_log() {
    let config = Config { listen: SocketAddr::from(([127, 0, 0, 1], 0)), data: Place::Memory, ..Config::default() };
    let running = adda::start(config).expect("a server");
    let address = running.address();
    let code = running.offer_setup().expect("an answer").expect("there is no admin");
    let account = json!({"username": "boss", "password": PASSWORD, "invitation": code.expose()});
    let boss = request(address, Plainly, "POST", "/api/accounts", Some(&account)).json()["data"]["token"].take();
    let boss = boss.as_str().expect("a token");
    let topic = json!({"topic": "leaves"});
    assert_eq!(request(address, ByBearer(boss), "PATCH", "/api/rooms/tea", Some(&topic)).status, 200);
    let (entries, _) = page(address, boss, "");
    assert_eq!(
        Value::from_iter(entries.iter().map(parts)),
        json!([
            ["boss", "set_room", null, "tea", null],
            ["boss", "register", null, null, null],
            [null, "create_setup_link", null, null, null],
        ])
    );
    running.stop();
}

#[test]
fn the_tool_needs_a_database_with_an_audit_log() {
    let data = Data::new();
    data.run(&["audit"], "").refused("name the database with --data");
    let path = data.file();
    let path = Path::new(&path);
    for schema in SCHEMAS {
        Fixture::restore(schema).unpack(path);
        data.run(&["audit"], "").refused("has no audit log yet");
        user_token(path, "deploy", "user");
        let entries = adda(path, &["audit"]);
        assert!(entries.contains("the operator has created a token of ") && entries.lines().count() == 1, "{entries}");
    }
}
