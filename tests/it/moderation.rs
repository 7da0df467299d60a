//! Tests of moderation: an action of an admin applies at once to open connections, is logged, and is stored.

use std::time::{Duration, Instant};

use adda::model::UserId;
use adda::model::role::Role;
use serde_json::{Value, json};

use crate::support::Asked::{ByBearer, Plainly};
use crate::support::{People, Response, Server, Ws, adda, exchange, request};

/// How soon a change must apply to open connections.
const AT_ONCE: Duration = Duration::from_secs(1);

/// A server with an admin, a user and a guest.
struct Stage {
    people: People,
    admin: String,
    user: (UserId, String),
    guest: (UserId, String),
}

impl Stage {
    fn set() -> Self {
        let mut people = People::new();
        let (_, admin) = people.find_user("admin", Role::Admin);
        let user = people.find_user("rahim", Role::User);
        let guest = people.find_user("ana", Role::Guest);
        Self { people, admin, user, guest }
    }

    #[track_caller]
    fn order(&self, server: &Server, method: &str, target: &str, json: Value) -> Response {
        let json = Some(json).filter(|json| !json.is_null());
        let response = request(server.addr(), ByBearer(&self.admin), method, target, json.as_ref());
        assert!(response.status < 300, "{method} {target}: {} {}", response.status, response.text());
        response
    }
}

#[track_caller]
fn enters(server: &Server, room: &str, token: &str) -> Ws {
    Ws::join(server, &format!("/ws?room={room}&token={token}"))
}

/// The first matching frame, which must arrive soon.
#[track_caller]
fn at_once(ws: &mut Ws, wanted: impl FnMut(&Value) -> bool) -> Value {
    let begun = Instant::now();
    let frame = ws.until(wanted);
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    frame
}

#[test]
fn a_mute_a_kick_and_a_ban_apply_at_once_and_can_be_undone() {
    let stage = Stage::set();
    let server = stage.people.serve(&[]);
    for (id, token) in [&stage.user, &stage.guest] {
        let user = format!("/api/users/{id}");
        let mut ws = enters(&server, "tea", token);
        let until = "2099-01-01T00:00:00.000Z";
        let muted = stage.order(&server, "PUT", &user, json!({"muted_until": until}));
        assert_eq!(muted.json(), json!({"data": {"id": id.to_string(), "muted_until": until, "banned": false}}));
        ws.command(&json!({"content": "hi", "nonce": "1"}));
        let refused = at_once(&mut ws, |frame| frame["nonce"] == "1");
        assert_eq!((&refused["type"], &refused["content"]), (&"error".into(), &"you are muted".into()));
        stage.order(&server, "PUT", &user, json!({"muted_until": null}));
        ws.command(&json!({"content": "hi", "nonce": "2"}));
        assert_eq!(at_once(&mut ws, |frame| frame["nonce"] == "2")["type"], "text");

        stage.order(&server, "DELETE", &format!("/api/rooms/tea/members/{id}"), Value::Null);
        let told = at_once(&mut ws, |frame| frame["type"] == "error");
        assert_eq!(told["code"], "forbidden");
        ws.command(&json!({"content": "hi", "nonce": "3"}));
        assert_eq!(at_once(&mut ws, |frame| frame["nonce"] == "3")["type"], "error");

        let mut ws = enters(&server, "tea", token);
        let ban = json!({"banned": {"until": until, "reason": "spam"}});
        assert_eq!(stage.order(&server, "PUT", &user, ban).json()["data"]["banned"], true);
        let begun = Instant::now();
        assert_eq!(ws.close_code(), 1008);
        assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
        assert_eq!(Ws::refused(&server, &format!("/ws?token={token}"), &[]).status, 403);
        let bans = stage.order(&server, "GET", "/api/bans", Value::Null).json();
        assert_eq!((&bans["data"][0]["user"], &bans["data"][0]["reason"]), (&id.to_string().into(), &"spam".into()));
        stage.order(&server, "PUT", &user, json!({"banned": false}));
        enters(&server, "tea", token);
        for said in ["has muted", "has unmuted", "from tea", "has banned", "has unbanned"] {
            let is_said = |line: &str| line.contains(said) && line.contains(&id.to_string());
            server.wait_for_log(said, |log| log.lines().any(is_said));
        }
    }
}

#[test]
fn a_ban_by_address_applies_to_all_guests_of_the_address() {
    let stage = Stage::set();
    let server = stage.people.serve(&[]);
    let (guest, user) = (format!("/api/users/{}", stage.guest.0), format!("/api/users/{}", stage.user.0));
    let by_address = json!({"banned": {"until": null, "reason": "", "address": true}});
    let of_account = request(server.addr(), ByBearer(&stage.admin), "PUT", &user, Some(&by_address));
    assert_eq!(of_account.status, 400, "{}", of_account.text());
    let mut ana = enters(&server, "tea", &stage.guest.1);
    let mut another = Ws::join(&server, "/ws/tea/Another");
    let _rahim = enters(&server, "tea", &stage.user.1);
    stage.order(&server, "PUT", &guest, by_address);
    assert_eq!((ana.close_code(), another.close_code()), (1008, 1008), "all guests of the address go");
    assert_eq!(Ws::refused(&server, "/ws/tea/New", &[]).status, 403);
    enters(&server, "tea", &stage.user.1);
    let bans = stage.order(&server, "GET", "/api/bans", Value::Null).json();
    let addresses: Vec<_> =
        bans["data"].as_array().expect("bans").iter().filter_map(|ban| ban["address"].as_str()).collect();
    assert_eq!(addresses, ["127.0.0.1"]);
    stage.order(&server, "DELETE", "/api/bans/127.0.0.1", Value::Null);
    Ws::join(&server, "/ws/tea/New");
    let again = request(server.addr(), ByBearer(&stage.admin), "DELETE", "/api/bans/127.0.0.1", None);
    assert_eq!(again.status, 404, "{}", again.text());
}

#[test]
fn an_address_is_banned_before_its_guests_come() {
    let stage = Stage::set();
    let server = stage.people.serve(&["--trusted-proxy", "127.0.0.1"]);
    let from = |address: &str| Ws::connect_with(&server, "/ws/tea/Ana", &[("X-Forwarded-For", address)]);
    let put = |address: &str, body: Value| {
        let target = format!("/api/bans/{address}");
        request(server.addr(), ByBearer(&stage.admin), "PUT", &target, Some(&body)).status
    };
    assert_eq!(put("203.0.113.7", json!({"reason": "flood", "until": "2099-01-01T00:00:00Z"})), 204);
    assert_eq!(put("2001%3Adb8%3A7%3A%3A1", json!({})), 204);
    for address in ["203.0.113.7", "2001:db8:7::2"] {
        let refused = Ws::refused(&server, "/ws/tea/Ana", &[("X-Forwarded-For", address)]);
        assert_eq!(refused.status, 403, "{address}");
    }
    let bans = stage.order(&server, "GET", "/api/bans", Value::Null).json()["data"].take();
    let addresses: Vec<_> = bans.as_array().expect("bans").iter().map(|ban| &ban["address"]).collect();
    assert_eq!(addresses, ["203.0.113.7", "2001:db8:7::"]);
    // It applies to guests that are connected, too.
    let mut ana = from("198.51.100.1");
    assert_eq!(put("198.51.100.1", json!({})), 204);
    assert_eq!(ana.close_code(), 1008);
    for (body, status) in [(json!({"untill": null}), 400), (json!({"until": 5}), 400), (json!({"force": "yes"}), 400)] {
        assert_eq!(put("203.0.113.8", body), status);
    }
    assert_eq!(put("nowhere", json!({})), 404);
    let by_user = request(server.addr(), ByBearer(&stage.user.1), "PUT", "/api/bans/203.0.113.8", Some(&json!({})));
    assert_eq!((by_user.status, &by_user.json()["reason"]), (403, &"not_admin".into()));
}

/// Behind a proxy that is not named, all connections have one address.
#[test]
fn an_address_that_most_connections_share_is_banned_only_by_force() {
    let stage = Stage::set();
    let server = stage.people.serve(&[]);
    let (ana, token) = &stage.guest;
    let mut clients: Vec<Ws> = (0..3).map(|number| Ws::join(&server, &format!("/ws/tea/Guest{number}"))).collect();
    clients.push(enters(&server, "tea", token));
    let user = format!("/api/users/{ana}");
    let refused = |target: &str, body: Value| {
        let answer = request(server.addr(), ByBearer(&stage.admin), "PUT", target, Some(&body));
        let json = answer.json();
        assert_eq!(
            (answer.status, &json["code"], &json["reason"]),
            (409, &"conflict".into(), &"address_shared".into())
        );
        let sentence = json["error"].as_str().expect("a sentence").to_owned();
        assert!(sentence.contains("--trusted-proxy") && sentence.contains("force"), "{sentence}");
    };
    refused(&user, json!({"banned": {"address": true}}));
    refused(&user, json!({"banned": {"address": true, "force": false}}));
    refused("/api/bans/127.0.0.1", json!({}));
    let mut admin = enters(&server, "tea", &stage.admin);
    admin.command(&json!({"type": "ban", "user_id": ana, "banned": {"address": true}, "nonce": "b"}));
    assert_eq!(admin.until(|frame| frame["nonce"] == "b")["reason"], "address_shared");
    assert_eq!(stage.order(&server, "GET", "/api/bans", Value::Null).json()["data"], json!([]), "nothing has changed");
    stage.order(&server, "PUT", &user, json!({"banned": {"address": true, "force": true}}));
    assert!(clients.iter_mut().all(|client| client.close_code() == 1008));
}

#[test]
fn a_client_without_a_token_is_subject_to_every_measure() {
    let stage = Stage::set();
    let server = stage.people.serve(&["--trusted-proxy", "127.0.0.1"]);
    let post_from = |address: &str, name: &str, content: &str| {
        let headers = [("X-Forwarded-For", address)];
        let body = json!({"username": name, "content": content});
        exchange(server.addr(), "POST", "/api/rooms/tea/messages", &headers, Some(&body)).expect("an answer")
    };
    let post = |name: &str, content: &str| post_from("203.0.113.7", name, content);
    let author = |answer: &Response| answer.json()["data"]["user_id"].as_str().expect("a user").to_owned();
    let (ana, also_ana, ben) = (author(&post("ana", "1")), author(&post("ana", "2")), author(&post("ben", "3")));
    assert!(ana == also_ana && ana != ben, "{ana} {also_ana} {ben}");
    let elsewhere = author(&post_from("203.0.113.8", "ana", "4"));
    assert_ne!(ana, elsewhere, "nobody elsewhere can post as this guest");

    let user = format!("/api/users/{ana}");
    stage.order(&server, "PUT", &user, json!({"muted_until": "2099-01-01T00:00:00Z"}));
    let refused = post("ana", "5");
    assert_eq!((refused.status, &refused.json()["reason"]), (403, &"muted".into()));
    assert_eq!(post("ben", "6").status, 201);
    stage.order(&server, "PUT", &user, json!({"muted_until": null}));
    stage.order(&server, "PUT", &user, json!({"banned": true}));
    assert_eq!(post("ana", "7").json()["reason"], "banned");
    let bans = stage.order(&server, "GET", "/api/bans", Value::Null).json()["data"].take();
    assert_eq!((&bans[0]["user"], &bans[0]["username"]), (&ana.clone().into(), &"ana".into()));
    stage.order(&server, "PUT", &user, json!({"banned": {"address": true}}));
    assert_eq!(post("another", "8").json()["reason"], "banned", "the address is known from the posts");
    stage.order(&server, "DELETE", "/api/bans/203.0.113.7", Value::Null);

    stage.order(&server, "PATCH", "/api/rooms/tea", json!({"slow_mode_s": 60}));
    assert_eq!(post("first", "9").status, 201);
    assert_eq!(post("second", "10").json()["reason"], "slow_mode", "another name changes nothing");
    assert_eq!(post_from("203.0.113.8", "third", "11").status, 201, "another address is another guest");
}

#[test]
fn general_stays_public_and_an_abandoned_room_can_be_opened() {
    let mut stage = Stage::set();
    let (second, second_token) = stage.people.find_user("second", Role::Admin);
    let server = stage.people.serve(&[]);
    let ask = |token: &str, method: &str, target: &str, body: Value| {
        request(server.addr(), ByBearer(token), method, target, Some(&body).filter(|body| !body.is_null()))
    };
    let refused = ask(&stage.admin, "PATCH", "/api/rooms/general", json!({"private": true}));
    assert_eq!((refused.status, &refused.json()["reason"]), (409, &"default_room".into()));
    let mut admin = enters(&server, "general", &stage.admin);
    admin.command(&json!({"type": "room", "private": true, "nonce": "p"}));
    assert_eq!(admin.until(|frame| frame["nonce"] == "p")["reason"], "default_room");

    assert_eq!(ask(&second_token, "PATCH", "/api/rooms/vault", json!({"private": true, "topic": "hush"})).status, 200);
    assert_eq!(ask(&second_token, "POST", "/api/rooms/vault/messages", json!({"content": "secret"})).status, 201);
    // While it has a member, another admin can't open it.
    assert_eq!(
        ask(&stage.admin, "PATCH", "/api/rooms/vault", json!({"private": false})).json()["reason"],
        "not_member"
    );
    adda(&stage.people.data(), &["user", "remove", "second", "--yes"]);
    assert_eq!(ask(&second_token, "GET", "/api/session", Value::Null).status, 401, "{second}");
    let user = ask(&stage.user.1, "PATCH", "/api/rooms/vault", json!({"private": false}));
    assert_eq!((user.status, &user.json()["reason"]), (403, &"not_admin".into()));
    for (patch, status) in [
        (json!({"private": true}), 403),
        (json!({"topic": "mine"}), 403),
        (json!({"private": false, "topic": "mine"}), 403),
        (json!({"private": false}), 200),
    ] {
        assert_eq!(ask(&stage.admin, "PATCH", "/api/rooms/vault", patch.clone()).status, status, "{patch}");
    }
    let messages = ask(&stage.user.1, "GET", "/api/rooms/vault/messages", Value::Null).json();
    assert_eq!(messages["data"][0]["content"], "secret");
    let opened = &messages["data"][1];
    assert_eq!((&opened["type"], &opened["username"]), (&"announcement".into(), &"admin".into()), "{opened}");
    assert!(opened["content"].as_str().is_some_and(|content| content.starts_with("opened this room")), "{opened}");
}

#[test]
fn a_general_that_is_private_from_before_stays_so_until_an_admin_opens_it() {
    let stage = Stage::set();
    let server = stage.people.serve(&[]);
    let patch = |server: &Server, token: &str, body: &Value| {
        request(server.addr(), ByBearer(token), "PATCH", "/api/rooms/general", Some(body))
    };
    assert_eq!(patch(&server, &stage.admin, &json!({"topic": "old"})).status, 200);
    drop(server);
    // As an earlier adda allowed it.
    let database = rusqlite::Connection::open(stage.people.data()).expect("the database");
    let made = database.execute("UPDATE room_settings SET is_private = 1 WHERE room = 'general'", []);
    assert_eq!(made.expect("a change"), 1);
    drop(database);
    let server = stage.people.serve(&[]);
    let is_hidden = || Ws::refused(&server, "/ws", &[]).status == 404 && server.get("/api/rooms/general").status == 404;
    assert!(is_hidden());
    let user = patch(&server, &stage.user.1, &json!({"private": false}));
    assert_eq!((user.status, &user.json()["code"]), (403, &"forbidden".into()));
    assert!(is_hidden());
    assert_eq!(patch(&server, &stage.admin, &json!({"private": false})).status, 200);
    Ws::join(&server, "/ws");
    assert_eq!(patch(&server, &stage.admin, &json!({"private": true})).json()["reason"], "default_room");
}

#[test]
fn an_admin_that_joins_a_private_room_is_announced_and_reads_from_then_on() {
    let mut stage = Stage::set();
    let (_, boss) = stage.people.find_user("boss", Role::Admin);
    let server = stage.people.serve(&[]);
    let as_boss = |target: &str| request(server.addr(), ByBearer(&boss), "GET", target, None);
    let mut host = enters(&server, "vault", &stage.admin);
    stage.order(&server, "PATCH", "/api/rooms/vault", json!({"private": true}));
    for number in 1..=3 {
        host.say(&format!("secret {number}"));
        host.until(|frame| frame["content"] == format!("secret {number}"));
    }
    // The room is listed, and says nothing.
    let listed = as_boss("/api/rooms").json();
    let vault = json!({"id": "vault", "name": "vault", "client_count": 1, "seq": 3, "private": true, "member": false});
    assert_eq!(listed["data"], json!([vault]));
    let messages = "/api/rooms/vault/messages";
    let first = request(server.addr(), ByBearer(&stage.admin), "GET", messages, None).json()["data"][0].take();
    let one = format!("{messages}/{}", first["id"].as_str().expect("an id"));
    for target in ["/api/rooms/vault", "/api/rooms/vault/members", messages, &one, &format!("{messages}?q=secret")] {
        let refused = as_boss(target);
        assert_eq!((refused.status, &refused.json()["reason"]), (403, &"not_member".into()), "{target}");
    }
    let post = request(server.addr(), ByBearer(&boss), "POST", messages, Some(&json!({"content": "hi"})));
    assert_eq!(post.json()["reason"], "not_member");

    let mut admin = Ws::connect(&server, &format!("/ws?room=vault&token={boss}"));
    let told = host.until(|frame| frame["type"] == "announcement");
    assert_eq!((&told["username"], &told["seq"]), (&"boss".into(), &4.into()), "{told}");
    assert_eq!(admin.expect("welcome")["seq"], 4);
    assert_eq!(admin.next_frame(), told, "the replay begins with it");
    host.say("plain");
    admin.expect_text("plain");
    let ids = |page: &Value| page["data"].as_array().expect("a page").iter().map(|one| one["seq"].clone()).collect();
    for (query, seqs) in [
        ("", json!([4, 5])),
        (&*format!("?after={}", first["id"].as_str().expect("an id")), json!([4, 5])),
        ("?q=secret", json!([])),
        (&*format!("?before={}", told["id"].as_str().expect("an id")), json!([])),
        (&*format!("?around={}", told["id"].as_str().expect("an id")), json!([4, 5])),
    ] {
        let page = as_boss(&format!("{messages}{query}")).json();
        assert_eq!(Value::Array(ids(&page)), seqs, "{query}: {page}");
    }
    assert_eq!(as_boss(&one).status, 404);
    // Another connection, and one that resumes from before the announcement, get no more.
    drop(admin);
    for after in [String::new(), format!("&after={}", first["id"].as_str().expect("an id"))] {
        let mut again = Ws::connect(&server, &format!("/ws?room=vault&token={boss}{after}"));
        let welcome = again.expect("welcome");
        assert_eq!(welcome["reset"], !after.is_empty(), "{welcome}");
        assert_eq!(again.next_frame()["seq"], 4, "{after}");
    }
    let listed = as_boss("/api/rooms").json();
    assert_eq!(listed["data"][0]["member"], true);
    let audit = as_boss("/api/audit?limit=1").json();
    assert_eq!(
        (&audit["data"][0]["action"], &audit["data"][0]["room_id"]),
        (&"join_private_room".into(), &"vault".into())
    );
}

#[test]
fn a_deleted_room_is_gone_and_its_order_goes_on() {
    let stage = Stage::set();
    let post = |server: &Server, content: &str| {
        let body = Some(json!({"content": content}));
        request(server.addr(), Plainly, "POST", "/api/rooms/tea/messages", body.as_ref()).json()["data"].take()
    };
    {
        let server = stage.people.serve(&[]);
        let mut ana = enters(&server, "tea", &stage.guest.1);
        assert_eq!((post(&server, "one")["seq"].clone(), post(&server, "two")["seq"].clone()), (1.into(), 2.into()));
        stage.order(&server, "PATCH", "/api/rooms/tea", json!({"topic": "leaves"}));
        let by_user = request(server.addr(), ByBearer(&stage.user.1), "DELETE", "/api/rooms/tea", None);
        assert_eq!((by_user.status, &by_user.json()["reason"]), (403, &"not_admin".into()));
        stage.order(&server, "DELETE", "/api/rooms/tea", Value::Null);
        let told = at_once(&mut ana, |frame| frame["type"] == "error");
        assert_eq!((&told["code"], &told["reason"]), (&"forbidden".into(), &"room_deleted".into()));
        ana.command(&json!({"content": "still here?", "nonce": "n"}));
        assert_eq!(ana.until(|frame| frame["nonce"] == "n")["type"], "error");
        let rooms = stage.order(&server, "GET", "/api/rooms", Value::Null).json();
        assert_eq!(rooms["data"], json!([]));
        for target in ["/api/rooms/tea", "/api/rooms/tea/messages", "/api/rooms/tea/messages?q=one"] {
            assert_eq!(server.get(target).status, 404, "{target}");
        }
        let again = request(server.addr(), ByBearer(&stage.admin), "DELETE", "/api/rooms/tea", None);
        assert_eq!((again.status, &again.json()["reason"]), (404, &"no_such_room".into()));
    }
    let server = stage.people.serve(&[]);
    let ana = enters(&server, "tea", &stage.guest.1);
    assert_eq!((&ana.welcome["seq"], ana.welcome.get("room")), (&2.into(), None), "{}", ana.welcome);
    assert_eq!(post(&server, "three")["seq"], 3);
    let page = server.get("/api/rooms/tea/messages").json();
    assert_eq!(page["data"].as_array().map(Vec::len), Some(1), "{page}");
    adda(&stage.people.data(), &["doctor"]);
}

#[test]
fn room_settings_apply_at_once_and_after_a_restart() {
    let stage = Stage::set();
    let set = json!({"name": "Tea room", "topic": "চা", "posting": "admins", "slow_mode_s": 5});
    {
        let server = stage.people.serve(&[]);
        let mut ws = enters(&server, "tea", &stage.user.1);
        let answer = stage.order(&server, "PATCH", "/api/rooms/tea", set).json();
        let whole = json!({"id": "tea", "name": "Tea room", "topic": "চা", "posting": "admins", "slow_mode_s": 5, "private": false});
        assert_eq!(answer["data"], whole);
        ws.command(&json!({"content": "hi", "nonce": "1"}));
        assert_eq!(at_once(&mut ws, |frame| frame["nonce"] == "1")["code"], "forbidden");
    }
    let server = stage.people.serve(&[]);
    let mut ws = enters(&server, "tea", &stage.user.1);
    ws.command(&json!({"content": "hi", "nonce": "2"}));
    assert_eq!(at_once(&mut ws, |frame| frame["nonce"] == "2")["code"], "forbidden");
    let room = server.get("/api/rooms/tea").json()["data"].take();
    assert_eq!((&room["name"], &room["topic"]), (&"Tea room".into(), &"চা".into()));
    assert_eq!((&room["posting"], &room["slow_mode_s"], &room["private"]), (&"admins".into(), &5.into(), &Value::Null));
    assert_eq!(server.get("/api/rooms").json()["data"][0]["name"], "Tea room");
    stage.order(&server, "PATCH", "/api/rooms/tea", json!({"posting": "everyone"}));
    ws.command(&json!({"content": "hi", "nonce": "3"}));
    assert_eq!(at_once(&mut ws, |frame| frame["nonce"] == "3")["type"], "text");
    ws.command(&json!({"content": "again", "nonce": "4"}));
    assert_eq!(at_once(&mut ws, |frame| frame["nonce"] == "4")["code"], "rate_limited");
    for (bad, code) in [
        (json!({"name": "x".repeat(65)}), "too_long"),
        (json!({"topic": "x".repeat(257)}), "too_long"),
        (json!({"topic": "a\u{202E}b"}), "bad_name"),
        (json!({"slow_mode_s": 3_601}), "bad_request"),
        (json!({"slow_mode_s": -1}), "bad_json"),
        (json!({"posting": "nobody"}), "bad_json"),
        (json!({"color": "red"}), "bad_json"),
        (json!([]), "bad_json"),
    ] {
        let response = request(server.addr(), ByBearer(&stage.admin), "PATCH", "/api/rooms/tea", Some(&bad));
        assert_eq!((response.status, &response.json()["code"]), (400, &code.into()), "{bad}");
    }
}

#[test]
fn an_announcement_is_delivered_in_every_room() {
    let stage = Stage::set();
    let server = stage.people.serve(&[]);
    let (mut tea, mut coffee) = (Ws::join(&server, "/ws/tea/ana"), Ws::join(&server, "/ws/coffee/ben"));
    stage.order(&server, "POST", "/api/announcements", json!({"content": "We close at nine."}));
    for ws in [&mut tea, &mut coffee] {
        let heard = at_once(ws, |frame| frame["type"] == "announcement");
        assert_eq!((&heard["content"], &heard["username"]), (&"We close at nine.".into(), &"admin".into()));
    }
}

#[test]
fn commands_moderate_too_and_the_target_is_told() {
    let stage = Stage::set();
    let server = stage.people.serve(&[]);
    let mut admin = enters(&server, "tea", &stage.admin);
    let mut rahim = enters(&server, "tea", &stage.user.1);
    assert_eq!((&admin.welcome["role"], &rahim.welcome["role"]), (&"admin".into(), &"user".into()));
    assert_eq!((&rahim.welcome["room"], &rahim.welcome["muted_until"]), (&Value::Null, &Value::Null));
    let id = stage.user.0.to_string();
    let command = |ws: &mut Ws, mut command: Value, nonce: &str| {
        command["nonce"] = nonce.into();
        ws.command(&command);
        at_once(ws, |frame| frame["nonce"] == nonce)
    };
    let until = "2099-01-01T00:00:00.000Z";
    let done = command(&mut admin, json!({"type": "mute", "user_id": id, "muted_until": until}), "1");
    assert_eq!((&done["type"], &done["content"]), (&"mute".into(), &format!("rahim is muted until {until}").into()));
    let told = at_once(&mut rahim, |frame| frame["type"] == "mute");
    assert_eq!((&told["muted_until"], &told["username"]), (&until.into(), &"rahim".into()));
    assert_eq!(enters(&server, "tea", &stage.user.1).welcome["muted_until"], until);
    assert_eq!(command(&mut rahim, json!({"content": "hi"}), "r1")["content"], "you are muted");
    command(&mut admin, json!({"type": "mute", "user_id": id, "muted_until": null}), "2");
    assert_eq!(at_once(&mut rahim, |frame| frame["type"] == "mute")["muted_until"], Value::Null);

    let set = json!({"type": "room", "topic": "চা", "slow_mode_s": 60});
    assert_eq!(command(&mut admin, set, "3")["type"], "room");
    let whole =
        json!({"id": "tea", "name": "tea", "topic": "চা", "posting": "everyone", "slow_mode_s": 60, "private": false});
    let told = at_once(&mut rahim, |frame| frame["type"] == "room");
    assert_eq!((&told["room"], &told["username"]), (&whole, &"admin".into()));
    assert_eq!(enters(&server, "tea", &stage.user.1).welcome["room"], whole);

    // A guest that must leave when a room becomes private does not receive the new topic.
    let mut fay = enters(&server, "plans", &stage.guest.1);
    let private = json!({"type": "room", "room_id": "plans", "private": true, "topic": "hush"});
    assert_eq!(command(&mut admin, private, "4")["type"], "room");
    let mut before = Vec::new();
    fay.until(|frame| {
        before.push(frame.to_string());
        frame["type"] == "leave"
    });
    assert!(!before.iter().any(|frame| frame.contains("hush")), "{before:?}");

    assert_eq!(command(&mut admin, json!({"type": "kick", "user_id": id}), "5")["type"], "kick");
    at_once(&mut rahim, |frame| frame["type"] == "leave" && frame["user_id"] == id);
    let mut rahim = enters(&server, "tea", &stage.user.1);
    assert_eq!(
        command(&mut admin, json!({"type": "ban", "user_id": id, "banned": {"reason": "spam"}}), "6")["type"],
        "ban"
    );
    assert_eq!(rahim.close_code(), 1008);
    assert_eq!(Ws::refused(&server, &format!("/ws?token={}", stage.user.1), &[]).status, 403);
    assert_eq!(command(&mut admin, json!({"type": "ban", "user_id": id, "banned": false}), "7")["type"], "ban");
    let mut rahim = enters(&server, "tea", &stage.user.1);

    let unknown_user = "0192f7a0-0000-7000-8000-00000000000a";
    for (by_admin, asked, code) in [
        (true, json!({"type": "kick", "user_id": unknown_user}), "not_found"),
        (true, json!({"type": "kick"}), "bad_json"),
        (true, json!({"type": "mute", "user_id": id, "muted_until": "tomorrow"}), "bad_json"),
        (true, json!({"type": "mute", "user_id": id}), "bad_json"),
        (true, json!({"type": "ban", "user_id": id, "banned": {"address": true}}), "bad_json"),
        (true, json!({"type": "room", "name": "x".repeat(65)}), "too_long"),
        (true, json!({"type": "room", "slow_mode_s": 3_601}), "bad_json"),
        (true, json!({"type": "room", "colour": "red"}), "bad_json"),
        (false, json!({"type": "kick", "user_id": unknown_user}), "forbidden"),
        (false, json!({"type": "ban", "user_id": id, "banned": true}), "forbidden"),
        (false, json!({"type": "room", "topic": "mine"}), "forbidden"),
        (false, json!({"type": "room", "topic": "mine", "room_id": "plans"}), "forbidden"),
    ] {
        let by = if by_admin { &mut admin } else { &mut rahim };
        assert_eq!(command(by, asked.clone(), "bad")["code"], code, "{asked}");
    }
    for said in ["has muted", "has unmuted", "from tea", "has banned", "has unbanned"] {
        server.wait_for_log(said, |log| log.lines().any(|line| line.contains(said) && line.contains(&id)));
    }
}

/// Checks every way to learn of a room: none may reveal it to this client.
#[track_caller]
fn learns_nothing(server: &Server, room: &str, said: &str, token: Option<&str>) {
    let asked = token.map_or(Plainly, ByBearer);
    let none = request(server.addr(), asked, "GET", "/api/rooms/no-such-room", None);
    for (method, target, body) in [
        ("GET", format!("/api/rooms/{room}"), None),
        ("GET", format!("/api/rooms/{room}/messages"), None),
        ("GET", format!("/api/rooms/{room}/messages?q={said}"), None),
        ("POST", format!("/api/rooms/{room}/messages"), Some(json!({"content": "hi"}))),
        ("POST", format!("/api/rooms/{room}/members"), Some(json!({"invitation": "0".repeat(64)}))),
    ] {
        if token.is_none() && target.ends_with("/members") {
            continue;
        }
        let response = request(server.addr(), asked, method, &target, body.as_ref());
        assert_eq!((response.status, response.text()), (404, none.text()), "{method} {target}");
    }
    let nowhere = "no-such-room";
    for (method, tail, body) in [
        ("DELETE", "/messages/0192f7a0-0000-7000-8000-00000000000a", None),
        ("DELETE", "/members/0192f7a0-0000-7000-8000-00000000000a", None),
        ("PATCH", "", Some(json!({"topic": "x"}))),
    ] {
        let [found, none] = [room, nowhere].map(|room| {
            let answer = request(server.addr(), asked, method, &format!("/api/rooms/{room}{tail}"), body.as_ref());
            (answer.status, answer.text().to_owned())
        });
        assert_eq!(found, none, "{method} {tail}");
    }
    for limit in ["", "?limit=1"] {
        let listing = request(server.addr(), asked, "GET", &format!("/api/rooms{limit}"), None);
        assert!(listing.status == 200 && !listing.text().contains(room), "{}", listing.text());
    }
    let query = token.map(|token| format!("&token={token}")).unwrap_or_default();
    assert_eq!(Ws::refused(server, &format!("/ws?room={room}{query}"), &[]).status, 404);
    let mut ws = Ws::join(server, &format!("/ws?room=apples{query}"));
    ws.command(&json!({"type": "join", "room_id": room, "nonce": "n"}));
    assert_eq!(ws.until(|frame| frame["nonce"] == "n")["code"], "not_found");
    let unknown_id = "0192f7a0-0000-7000-8000-00000000000a";
    for command in [
        json!({"content": "hi"}),
        json!({"type": "typing"}),
        json!({"type": "leave"}),
        json!({"type": "delete", "message_id": unknown_id}),
        json!({"type": "kick", "user_id": unknown_id}),
        json!({"type": "room", "topic": "x"}),
        json!({"type": "announcement", "content": "x"}),
    ] {
        // The answer is the same as for a room that does not exist.
        let answers = [room, "no-such-room"].map(|id| {
            let mut command = command.clone();
            (command["room_id"], command["nonce"]) = (id.into(), id.into());
            ws.command(&command);
            let answer = ws.until(|frame| frame["nonce"] == id);
            (answer["code"].clone(), answer["content"].as_str().expect("a sentence").replace(id, "…"))
        });
        assert_eq!(answers[0], answers[1], "{command}");
    }
}

#[test]
fn only_members_can_learn_of_a_private_room() {
    let stage = Stage::set();
    let mut server = stage.people.serve(&[]);
    let address = server.addr();
    let mut admin = enters(&server, "hideout", &stage.admin);
    let mut outsider = Ws::join(&server, "/ws/hideout/eve");
    stage.order(&server, "PATCH", "/api/rooms/hideout", json!({"private": true, "topic": "plans"}));
    at_once(&mut outsider, |frame| frame["type"] == "error" && frame["code"] == "forbidden");
    admin.say("pssst");
    admin.until(|frame| frame["content"] == "pssst");
    let _fruit = Ws::join(&server, "/ws/apples/fay");
    learns_nothing(&server, "hideout", "pssst", None);
    learns_nothing(&server, "hideout", "pssst", Some(&stage.guest.1));
    learns_nothing(&server, "hideout", "pssst", Some(&stage.user.1));

    let made = stage.order(&server, "POST", "/api/invitations", json!({"room": "hideout", "uses": 2}));
    let code = made.json()["data"]["code"].as_str().expect("a code").to_owned();
    let become_member = |token: Option<&str>, room: &str| {
        let body = json!({"invitation": code});
        let asked = token.map_or(Plainly, ByBearer);
        request(address, asked, "POST", &format!("/api/rooms/{room}/members"), Some(&body)).status
    };
    assert_eq!(become_member(None, "hideout"), 401, "a member must have a session");
    assert_eq!(become_member(Some(&stage.guest.1), "apples"), 404, "it is for another room");
    for token in [&stage.guest.1, &stage.user.1] {
        assert_eq!(become_member(Some(token), "hideout"), 200);
        assert_eq!(become_member(Some(token), "hideout"), 200, "a member already, which uses nothing");
        let detail = request(address, ByBearer(token), "GET", "/api/rooms/hideout", None).json();
        assert_eq!((&detail["data"]["private"], &detail["data"]["topic"]), (&true.into(), &"plans".into()));
        let listing = request(address, ByBearer(token), "GET", "/api/rooms", None).json();
        let listed = listing["data"].as_array().expect("a list").iter().find(|room| room["id"] == "hideout");
        assert_eq!(listed.expect("it is listed to members")["client_count"], 1);
        let found = request(address, ByBearer(token), "GET", "/api/rooms/hideout/messages?q=pssst", None).json();
        assert_eq!(found["data"][0]["content"], "pssst");
    }
    let other = Ws::join(&server, "/ws/apples/gus");
    let other = other.welcome["token"].as_str().expect("a token").to_owned();
    assert_eq!(become_member(Some(&other), "hideout"), 404, "it is used up");

    // A kicked user is not a member any more.
    let mut member = enters(&server, "hideout", &stage.guest.1);
    stage.order(&server, "DELETE", &format!("/api/rooms/hideout/members/{}", stage.guest.0), Value::Null);
    at_once(&mut member, |frame| frame["type"] == "error" && frame["code"] == "forbidden");
    learns_nothing(&server, "hideout", "pssst", Some(&stage.guest.1));

    // A revoked invitation is invalid.
    let made = stage.order(&server, "POST", "/api/invitations", json!({"room": "hideout"})).json();
    let list = stage.order(&server, "GET", "/api/invitations?room=hideout", Value::Null);
    assert!(!list.text().contains("code"), "{}", list.text());
    stage.order(&server, "DELETE", &format!("/api/invitations/{}", made["data"]["id"]), Value::Null);
    let body = json!({"invitation": made["data"]["code"]});
    let late = request(address, ByBearer(&stage.guest.1), "POST", "/api/rooms/hideout/members", Some(&body));
    assert_eq!(late.status, 404);

    let mut files = std::fs::read(stage.people.data()).expect("the database");
    files.extend(std::fs::read(stage.people.data().with_extension("db-wal")).unwrap_or_default());
    let log = server.whole_log();
    for secret in [&code, &stage.admin, &stage.guest.1, &other] {
        assert!(!log.contains(secret.as_str()), "a secret is in the log");
        assert!(!files.windows(secret.len()).any(|part| part == secret.as_bytes()), "a secret is in the database");
    }
    assert!(!log.contains("pssst"));
}

#[test]
fn an_announcement_does_not_reveal_a_private_room() {
    let mut stage = Stage::set();
    let (_, boss) = stage.people.find_user("boss", Role::Admin);
    let server = stage.people.serve(&[]);
    let _first = enters(&server, "admins", &stage.admin);
    stage.order(&server, "PATCH", "/api/rooms/admins", json!({"private": true}));
    let mut eve = Ws::join(&server, "/ws/tea/eve");
    let mut boss = enters(&server, "tea", &boss);
    for ws in [&mut eve, &mut boss] {
        ws.command(&json!({"type": "leave", "room_id": "tea"}));
        ws.until(|frame| frame["type"] == "leave");
        ws.command(&json!({"type": "announcement", "content": "x", "nonce": "n"}));
        let answer = ws.until(|frame| frame["nonce"] == "n");
        assert_eq!(answer["room_id"], "tea", "{answer}");
    }
}

#[test]
fn a_page_of_the_room_listing_is_full_and_names_no_private_room() {
    let stage = Stage::set();
    let server = stage.people.serve(&[]);
    let rooms: Vec<_> = (0..9).map(|number| Ws::join(&server, &format!("/ws/room{number}/ana"))).collect();
    for mut ws in rooms {
        ws.say("hi");
        ws.until(|frame| frame["type"] == "text");
        ws.close(1000);
    }
    for number in [0, 2, 3, 5, 8] {
        stage.order(&server, "PATCH", &format!("/api/rooms/room{number}"), json!({"private": true}));
    }
    let list = |target: &str, token: Option<&str>| {
        let page = request(server.addr(), token.map_or(Plainly, ByBearer), "GET", target, None).json();
        let rooms = page["data"].as_array().expect("a list");
        let ids: Vec<_> = rooms.iter().map(|room| room["id"].as_str().expect("an id").to_owned()).collect();
        (ids.join(" "), page["next"].as_str().map(str::to_owned))
    };
    assert_eq!(list("/api/rooms?limit=2", None), ("room1 room4".into(), Some("room4".into())));
    assert_eq!(list("/api/rooms?limit=2&after=room4", None), ("room6 room7".into(), None));
    let (all, _) = list("/api/rooms", Some(&stage.admin));
    assert_eq!(all, "room0 room1 room2 room3 room4 room5 room6 room7 room8");
    let page = list("/api/rooms?limit=2&after=room1", Some(&stage.admin));
    assert_eq!(page, ("room2 room3".into(), Some("room3".into())));
}
