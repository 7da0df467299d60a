//! Tests of sessions over HTTP: guests, logins, registration, passwords, and the end of each.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use adda::model::role::{Registration, Role};
use serde_json::{Value, json};

use crate::support::Asked::{ByBearer, ByCookie, Plainly};
use crate::support::{Asked, People, Response, Server, Ws, http, request};

/// How soon a change must apply to open connections.
const AT_ONCE: Duration = Duration::from_secs(1);

const PASSWORD: &str = "correct horse battery";

fn post(address: SocketAddr, asked: Asked<'_>, target: &str, json: Value) -> Response {
    request(address, asked, "POST", target, Some(&json))
}

/// The token in the cookie of a response, whose attributes must be right. A logout may delete one of the old name, too.
#[track_caller]
fn cookie(response: &Response) -> String {
    let mut set = response.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("Set-Cookie"));
    let cookie = set.next().map(|(_, cookie)| cookie.as_str()).expect("a cookie");
    let (value, attributes) = cookie.split_once("; ").expect("attributes");
    assert!(attributes.starts_with("HttpOnly; SameSite=Lax; Path=/; Max-Age="), "{cookie}");
    let (name, value) = value.split_once('=').expect("a cookie");
    assert!(name.starts_with("adda_session_"), "{name}");
    value.to_owned()
}

#[track_caller]
fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}

#[track_caller]
fn guest(server: &Server, name: &str) -> (String, String) {
    let response = post(server.addr(), Plainly, "/api/session", json!({"username": name}));
    assert_eq!(response.status, 201, "{}", response.text());
    let data = &response.json()["data"];
    (text(data, "id").to_owned(), text(data, "token").to_owned())
}

/// Opens a connection with a token.
#[track_caller]
fn enters(server: &Server, room: &str, token: &str) -> Ws {
    Ws::join(server, &format!("/ws?room={room}&token={token}"))
}

/// Waits for the end of a connection, which must come soon.
#[track_caller]
fn ends_at_once(mut ws: Ws) {
    let begun = Instant::now();
    assert_eq!(ws.close_code(), 1008);
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
}

#[test]
fn a_guest_gets_a_session_changes_its_name_and_logs_out() {
    let mut server = Server::start();
    let address = server.addr();
    let response = post(address, Plainly, "/api/session", json!({"username": " রহিম "}));
    assert_eq!((response.status, response.header("Cache-Control")), (201, Some("no-store")));
    assert_eq!(response.header("Access-Control-Allow-Origin"), None);
    let token = cookie(&response);
    let data = &response.json()["data"];
    assert_eq!((text(data, "username"), text(data, "role"), text(data, "kind")), ("রহিম", "guest", "guest"));
    assert_eq!(text(data, "token"), token);
    let days = chrono::DateTime::parse_from_rfc3339(text(data, "expires")).expect("a moment")
        - chrono::Utc::now().fixed_offset();
    assert_eq!(days.num_hours(), 90 * 24 - 1);
    let id = text(data, "id").to_owned();

    for asked in [ByCookie(&token), ByBearer(&token)] {
        let me = request(address, asked, "GET", "/api/session", None);
        assert_eq!((me.status, text(&me.json()["data"], "id")), (200, &*id));
        assert!(!me.text().contains(&token));
    }
    let ws = enters(&server, "tea", &token);
    assert_eq!((ws.user_id(), text(&ws.welcome, "username")), (id.clone(), "রহিম"));

    let renamed = post(address, ByCookie(&token), "/api/session", json!({"username": "করিম"}));
    assert_eq!((renamed.status, cookie(&renamed)), (200, token.clone()));
    assert_eq!(text(&renamed.json()["data"], "username"), "করিম");
    assert!(!renamed.text().contains(&token));

    let ended = request(address, ByCookie(&token), "DELETE", "/api/session", None);
    assert_eq!((ended.status, cookie(&ended)), (204, String::new()));
    ends_at_once(ws);
    let me = request(address, ByCookie(&token), "GET", "/api/session", None);
    assert_eq!((me.status, cookie(&me)), (401, String::new()), "a cookie that is over is taken away");
    assert_eq!(request(address, ByBearer(&token), "GET", "/api/session", None).status, 401);
    assert_eq!(request(address, Plainly, "GET", "/api/session", None).status, 401);
    assert!(!server.whole_log().contains(&token), "no token is in the log");
}

#[test]
fn cookies_of_other_programs_on_the_host_are_skipped() {
    let server = Server::start();
    let (id, token) = guest(&server, "rahim");
    let others: String = (0..3).map(|number| format!("other{number}={}; ", "x".repeat(3_000))).collect();
    let cookies = format!("{others}adda_session={token}; last=1");
    for (fields, status) in [
        (format!("Cookie: {others}\r\n"), 401),
        (format!("Cookie: {cookies}\r\n"), 200),
        (format!("Cookie: {others}\r\nCookie: adda_session={token}\r\n"), 200),
        (format!("Cookie: {others}\r\nAuthorization: Bearer {token}\r\n"), 200),
        (format!("Cookie: {cookies}; {others}\r\n"), 431),
    ] {
        let get = |target: &str| http(server.addr(), format!("GET {target} HTTP/1.1\r\nHost: h\r\n{fields}\r\n"));
        let me = get("/api/session");
        assert_eq!(me.status, status, "{}", me.text());
        assert_eq!(get("/api/rooms").status, if status == 431 { 431 } else { 200 });
        match status {
            200 => assert_eq!(text(&me.json()["data"], "id"), id),
            401 => assert_eq!(me.json()["reason"], "no_session"),
            _ => assert!(me.text().contains("16384 bytes") && me.text().contains("cookies"), "{}", me.text()),
        }
    }
    let mut ws = Ws::connect_with(&server, "/ws/tea/x", &[("Cookie", &cookies)]);
    assert_eq!(ws.expect("welcome")["user_id"], id.as_str());
}

#[test]
fn an_invalid_session_request_is_refused_with_the_reason() {
    let mut people = People::new();
    people.account("admin", Role::Admin, Some(PASSWORD));
    let bot = people.find_user("robot", Role::User).1;
    let server = people.serve(&[]);
    for (json, status, code) in [
        (json!({}), 400, "bad_json"),
        (json!({"username": 7}), 400, "bad_json"),
        (json!({"username": "a", "admin": true}), 400, "bad_json"),
        (json!({"username": ""}), 400, "bad_name"),
        (json!({"username": "a\u{202E}b"}), 400, "bad_name"),
        (json!({"username": "x".repeat(33)}), 400, "too_long"),
        (json!({"username": "аdmin"}), 403, "bad_name"),
        (json!({"username": "ADMIN"}), 403, "bad_name"),
        (json!({"username": "admin", "password": "x".repeat(1_025)}), 400, "bad_password"),
        (json!({"username": "admin", "password": "wrong"}), 401, "forbidden"),
        (json!({"username": "nobody", "password": "wrong"}), 401, "forbidden"),
    ] {
        let response = post(server.addr(), Plainly, "/api/session", json.clone());
        assert_eq!((response.status, text(&response.json(), "code")), (status, code), "{json}");
        assert_eq!(response.header("Set-Cookie"), None);
    }
    let conflict = post(server.addr(), ByBearer(&bot), "/api/session", json!({"username": "b"}));
    assert_eq!(conflict.status, 409, "a logged-in user is not a guest");
    let plain = "POST /api/session HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 16\r\n\r\n{\"username\":\"a\"}";
    assert_eq!(crate::support::http(server.addr(), plain).status, 415);
}

#[test]
fn a_login_replaces_the_guest_session_and_can_be_listed_and_ended_elsewhere() {
    let people = People::new();
    people.account("Rahim", Role::User, Some(PASSWORD));
    let server = people.serve(&[]);
    let address = server.addr();
    let (_, guests) = guest(&server, "somebody");
    let mut as_guest = enters(&server, "tea", &guests);
    as_guest.say("hi");
    as_guest.until(|frame| frame["type"] == "text");

    let credentials = json!({"username": "rahim", "password": PASSWORD});
    let first = post(address, ByCookie(&guests), "/api/session", credentials.clone());
    assert_eq!(first.status, 201, "{}", first.text());
    let data = &first.json()["data"];
    assert_eq!((text(data, "username"), text(data, "role"), text(data, "kind")), ("Rahim", "user", "login"));
    ends_at_once(as_guest);
    assert_eq!(request(address, ByBearer(&guests), "GET", "/api/session", None).status, 401);

    let (one, two) = (cookie(&first), cookie(&post(address, Plainly, "/api/session", credentials)));
    let (here, there) = (enters(&server, "tea", &one), enters(&server, "tea", &two));
    assert_eq!(here.user_id(), there.user_id());
    let listed = request(address, ByCookie(&one), "GET", "/api/sessions", None).json();
    let listed = listed["data"].as_array().expect("a list").clone();
    assert_eq!(listed.len(), 2, "{listed:?}");
    let other = listed.iter().find(|session| session["current"] == false).expect("the other one");
    assert_eq!((text(other, "kind"), text(other, "label")), ("login", "curl/8.5.0"));
    let target = format!("/api/sessions/{}", other["id"]);
    assert_eq!(request(address, ByCookie(&guest(&server, "x").1), "DELETE", &target, None).status, 404, "not theirs");
    assert_eq!(request(address, ByCookie(&one), "DELETE", &target, None).status, 204);
    assert_eq!(request(address, ByCookie(&one), "DELETE", &target, None).status, 404);
    ends_at_once(there);
    assert_eq!(request(address, ByCookie(&two), "GET", "/api/session", None).status, 401);
    assert_eq!(request(address, ByCookie(&one), "GET", "/api/session", None).status, 200);
    drop(here);
}

#[test]
fn a_new_password_ends_the_other_logins() {
    let people = People::new();
    people.account("rahim", Role::User, Some(PASSWORD));
    let mut server = people.serve(&[]);
    let address = server.addr();
    let log_in =
        |password: &str| post(address, Plainly, "/api/session", json!({"username": "rahim", "password": password}));
    let (one, two) = (cookie(&log_in(PASSWORD)), cookie(&log_in(PASSWORD)));
    let (mut here, there) = (enters(&server, "tea", &one), enters(&server, "tea", &two));
    let put = |old: &str, new: &str| {
        let response =
            request(address, ByCookie(&one), "PUT", "/api/account/password", Some(&json!({"old": old, "new": new})));
        (response.status, response.text().to_owned())
    };
    let new = "বৃষ্টি নামল আজ";
    assert_eq!(put("wrong", new).0, 403);
    assert!(put(PASSWORD, "rahim123").1.contains("bad_password"));
    assert_eq!(put(PASSWORD, new), (204, String::new()));
    ends_at_once(there);
    here.say("still here");
    here.until(|frame| frame["content"] == "still here");
    assert_eq!(log_in(PASSWORD).status, 401);
    assert_eq!(log_in(new).status, 201);
    let mut files = std::fs::read(people.data()).expect("the database");
    files.extend(std::fs::read(people.data().with_extension("db-wal")).unwrap_or_default());
    for secret in [PASSWORD, new, &one, &two] {
        assert!(!files.windows(secret.len()).any(|part| part == secret.as_bytes()), "a secret is in the database");
    }
    assert!(files.windows(10).any(|part| part == b"$argon2id$"));
    let log = server.whole_log();
    for secret in [PASSWORD, new, &one, &two] {
        assert!(!log.contains(secret), "a secret is in the log");
    }
}

#[test]
fn registration_follows_the_operators_setting() {
    for registration in [Registration::Open, Registration::Invite, Registration::Closed] {
        let mut people = People::new();
        let (_, admin) = people.find_user("admin", Role::Admin);
        let server = people.serve(&["--accounts", "required", "--registration", registration.as_str()]);
        let address = server.addr();
        let about = request(address, Plainly, "GET", "/api/about", None);
        let ways = json!({"data": {"accounts": "required", "registration": registration.as_str()}});
        assert_eq!((about.status, about.json()), (200, ways));
        let register = |name: &str, password: &str, code: Option<&str>| {
            let mut asked = json!({"username": name, "password": password});
            if let Some(code) = code {
                asked["invitation"] = code.into();
            }
            post(address, Plainly, "/api/accounts", asked)
        };
        let code = (registration == Registration::Invite).then(|| {
            let made = post(address, ByBearer(&admin), "/api/invitations", json!({}));
            assert_eq!(made.status, 201, "{}", made.text());
            text(&made.json()["data"], "code").to_owned()
        });
        if registration != Registration::Open {
            assert_eq!(register("rahim", PASSWORD, None).status, 403);
            assert_eq!(register("rahim", PASSWORD, Some(&"0".repeat(64))).status, 403);
        }
        if registration == Registration::Closed {
            continue;
        }
        assert_eq!(register("Аdmin", PASSWORD, code.as_deref()).status, 409);
        assert_eq!(text(&register("rahim", "password", code.as_deref()).json(), "code"), "bad_password");
        let made = register("rahim", PASSWORD, code.as_deref());
        assert_eq!((made.status, text(&made.json()["data"], "role")), (201, "user"), "{}", made.text());
        let me = request(address, ByCookie(&cookie(&made)), "GET", "/api/session", None);
        assert_eq!(text(&me.json()["data"], "username"), "rahim");
        if let Some(code) = &code {
            assert_eq!(register("karim", PASSWORD, Some(code)).status, 403, "it was for one");
            let left = request(address, ByBearer(&admin), "GET", "/api/invitations", None);
            assert_eq!(left.json(), json!({"data": []}));
        }
    }
}

#[test]
fn ten_thousand_wrong_logins_are_refused_cheaply() {
    let people = People::new();
    people.account("rahim", Role::User, Some(PASSWORD));
    let server = people.serve(&[]);
    let address = server.addr();
    let mut ws = Ws::join(&server, "/ws/tea/ana");
    let before = server.rss_kib();
    let is_over = AtomicBool::new(false);
    let (statuses, mut waits) = std::thread::scope(|scope| {
        let chat = scope.spawn(|| {
            let mut waits = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let said = Instant::now();
                ws.say("meanwhile");
                ws.until(|frame| frame["type"] == "text");
                waits.push(said.elapsed());
            }
            waits
        });
        let mut statuses = BTreeMap::new();
        for number in 0..10_000 {
            // Many names, because the limit of the address is tested here.
            let asked = json!({"username": format!("name{}", number % 500), "password": "a guess of mine"});
            *statuses.entry(post(address, Plainly, "/api/session", asked).status).or_insert(0) += 1;
        }
        is_over.store(true, Ordering::Relaxed);
        (statuses, chat.join().expect("the chat went on"))
    });
    assert_eq!(statuses, BTreeMap::from([(401, 20), (429, 9_980)]));
    waits.sort_unstable();
    let p99 = waits[waits.len() * 99 / 100];
    println!("{} messages meanwhile, p99 {p99:?}", waits.len());
    assert!(p99 < Duration::from_millis(50), "{p99:?} of {} messages", waits.len());
    let grown = server.rss_kib().saturating_sub(before);
    assert!(grown < 2 * 19 * 1_024 + 4 * 1_024, "{grown} KiB");
    // The owner of the account can't log in from this address either; from an address of an earlier login that is
    // possible.
    let right = post(address, Plainly, "/api/session", json!({"username": "rahim", "password": PASSWORD}));
    assert_eq!(right.status, 429);
    assert!(right.header("Retry-After").is_some());
}

#[test]
fn logins_that_wait_for_a_hash_do_not_delay_other_requests() {
    let people = People::new();
    people.account("rahim", Role::User, Some(PASSWORD));
    let server = people.serve(&[]);
    let address = server.addr();
    let looked_at = std::thread::scope(|scope| {
        let logins: Vec<_> = (0..20)
            .map(|number| {
                let asked = json!({"username": format!("name{number}"), "password": "a guess of mine"});
                scope.spawn(move || post(address, Plainly, "/api/session", asked))
            })
            .collect();
        for _ in 0..20 {
            assert_eq!(server.get("/healthz").status, 200);
        }
        let responses = logins.into_iter().map(|login| login.join().expect("an answer"));
        let refused = responses.filter(|response| {
            assert!([401, 503].contains(&response.status), "{}", response.text());
            assert!(response.status == 401 || response.header("Retry-After").is_some());
            response.status == 401
        });
        refused.count()
    });
    // A login that was refused with 503 does not count as an attempt.
    let right = post(address, Plainly, "/api/session", json!({"username": "rahim", "password": PASSWORD}));
    assert_eq!(right.status, if looked_at < 20 { 201 } else { 429 }, "{looked_at} of 20");
}

#[test]
fn servers_on_one_host_have_cookies_of_their_own_and_the_old_cookie_moves() {
    let people = People::new();
    let (one, two) = (people.serve(&[]), Server::start());
    let name = |server: &Server| {
        let begun = post(server.addr(), Plainly, "/api/session", json!({"username": "Ana"}));
        let cookie = begun.header("Set-Cookie").expect("a cookie");
        cookie.split_once(';').expect("attributes").0.to_owned()
    };
    let (of_one, of_two) = (name(&one), name(&two));
    let other_file = People::new();
    let three = other_file.serve(&[]);
    let named = |cookie: &str| cookie.split_once('=').expect("a value").0.to_owned();
    assert_ne!(named(&of_one), named(&name(&three)), "each database has an id of its own");
    assert_eq!(of_two.split_once('=').map(|(name, _)| name), Some(&*format!("adda_session_{}", two.addr().port())));
    let ask = |server: &Server, cookies: &str| {
        http(
            server.addr(),
            format!("GET /api/session HTTP/1.1\r\nHost: a\r\nCookie: {cookies}\r\nConnection: close\r\n\r\n"),
        )
    };
    // A browser sends both cookies to both servers.
    for server in [&one, &two] {
        assert_eq!(ask(server, &format!("{of_one}; {of_two}")).status, 200);
    }
    let token = of_one.split_once('=').expect("a value").1;
    let moved = ask(&one, &format!("adda_session={token}"));
    let set: Vec<_> = moved.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("Set-Cookie")).collect();
    assert_eq!((moved.status, set.len()), (200, 2), "{set:?}");
    assert!(set[0].1.starts_with(&of_one) && set[1].1.starts_with("adda_session=; "), "{set:?}");
    let ended = http(
        one.addr(),
        format!("DELETE /api/session HTTP/1.1\r\nHost: a\r\nCookie: adda_session={token}\r\nConnection: close\r\n\r\n"),
    );
    let cleared = ended
        .headers
        .iter()
        .filter(|(name, value)| name.eq_ignore_ascii_case("Set-Cookie") && value.contains("Max-Age=0"));
    assert_eq!((ended.status, cleared.count()), (204, 2), "{:?}", ended.headers);
    let of_one = name(&one);
    // The old cookie of another server is neither taken nor taken away.
    let foreign = ask(&one, &format!("adda_session={}", "0a".repeat(39)));
    assert_eq!(foreign.status, 401);
    assert!(!foreign.header("Set-Cookie").is_some_and(|cookie| cookie.starts_with("adda_session=")));
    let two_foreign = format!("adda_session={}; adda_session={}; {of_one}", "0a".repeat(39), "0b".repeat(39));
    assert_eq!(ask(&one, &two_foreign).status, 200);
    drop(one);
    assert_eq!(ask(&people.serve(&[]), &of_one).status, 200, "the id is kept");
}
