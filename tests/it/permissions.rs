//! Every role and every action get the answer of the table of permissions, over HTTP with each kind of credential and
//! over WebSocket.

use std::net::SocketAddr;

use adda::auth::permission::{Access, Action, PermissionContext, Restriction, Target, may};
use adda::model::reason::Reason;
use adda::model::role::{Accounts, Posting, Registration, Role};
use adda::model::{Timestamp, UserId};
use adda::store::accounts::SessionKind;
use rusqlite::params;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Asked, Event, People, Ws, request};

/// The HTTP request of a cell: method, target, body, and the status of success.
type Call = (&'static str, String, Option<Value>, u16);

/// One row: an action and its context, the action over HTTP, and over a WebSocket.
struct Row {
    action: Action,
    its: PermissionContext,
    http: Box<dyn Fn() -> Call>,
    ws: Option<WsAction>,
}

/// The action over a WebSocket: joining a room, and then perhaps a command.
struct WsAction {
    room: &'static str,
    command: Option<Value>,
}

/// The tokens of a role: of an unrestricted user, a muted one and a banned one.
struct Tokens {
    role: Role,
    good: String,
    muted: String,
    banned: String,
}

impl Tokens {
    fn token(&self, restriction: Restriction) -> &str {
        match restriction {
            Restriction::None => &self.good,
            Restriction::Muted => &self.muted,
            Restriction::Banned => &self.banned,
        }
    }
}

/// The HTTP status of a refusal.
fn status_of(refusal: Reason) -> u16 {
    match refusal {
        refusal if refusal.is_hidden() => 404,
        Reason::LoginRequired | Reason::AccountRequired => 401,
        _ => 403,
    }
}

fn rows(victim: UserId, other_admin: UserId) -> Vec<Row> {
    let plain = PermissionContext::default();
    let muted = PermissionContext { restriction: Restriction::Muted, ..plain };
    let banned = PermissionContext { restriction: Restriction::Banned, ..plain };
    let read_only = PermissionContext { posting: Posting::Admins, ..plain };
    let member = PermissionContext { access: Access::Member, ..plain };
    let stranger = PermissionContext { access: Access::NonMember, ..plain };
    let others = |role| PermissionContext { target: Target::Others(role), ..plain };
    let mut rows = Vec::new();
    let mut row = |action, its, ws, http: Box<dyn Fn() -> Call>| rows.push(Row { action, its, http, ws });
    // An admin that joins a private room becomes a member, so no one joins it here.
    let over_ws = |room, command| (room != "closed").then_some(WsAction { room, command });
    let enter = |room| over_ws(room, None);
    let say = |room| over_ws(room, Some(json!({"content": "hi"})));
    for (its, id) in [(plain, "tea"), (banned, "tea"), (member, "secret"), (stranger, "closed")] {
        for tail in ["/messages", "/messages?q=hi", ""] {
            row(Action::Enter, its, enter(id), Box::new(move || ("GET", format!("/api/rooms/{id}{tail}"), None, 200)));
        }
    }
    for (its, id) in [
        (plain, "tea"),
        (banned, "tea"),
        (muted, "tea"),
        (read_only, "board"),
        (member, "secret"),
        (stranger, "closed"),
    ] {
        let body = || Some(json!({"content": "hi"}));
        row(Action::Post, its, say(id), Box::new(move || ("POST", format!("/api/rooms/{id}/messages"), body(), 201)));
    }
    for its in [plain, muted, banned] {
        let says = Some(WsAction { room: "tea", command: Some(json!({"type": "announcement", "content": "a"})) });
        let body = || Some(json!({"content": "a"}));
        row(Action::Announce, its, says, Box::new(move || ("POST", "/api/announcements".into(), body(), 202)));
        row(Action::ReadAudit, its, None, Box::new(|| ("GET", "/api/audit".into(), None, 200)));
    }
    for (its, id) in [(plain, "tea"), (banned, "tea"), (member, "secret"), (stranger, "closed")] {
        let set = |body: Value, id: &str| ("PATCH", format!("/api/rooms/{id}"), Some(body), 200);
        let says = over_ws(id, Some(json!({"type": "room", "topic": "t"})));
        row(Action::SetRoom, its, says, Box::new(move || set(json!({"topic": "t"}), id)));
        row(Action::SetRoom, its, None, Box::new(move || set(json!({"posting": "everyone", "slow_mode_s": 0}), id)));
    }
    // Each row has its own room, because the room is private afterwards.
    let fresh = || ("PATCH", format!("/api/rooms/{}", Uuid::new_v4()), Some(json!({"private": true})), 200);
    row(Action::SetPrivate, plain, None, Box::new(fresh));
    for (its, id) in [(member, "secret"), (stranger, "closed")] {
        let invite = move || ("POST", "/api/invitations".into(), Some(json!({"room": id, "uses": 2, "days": 1})), 201);
        row(Action::InviteToRoom, its, None, Box::new(invite));
        row(
            Action::InviteToRoom,
            its,
            None,
            Box::new(move || ("GET", format!("/api/invitations?room={id}"), None, 200)),
        );
    }
    for (role, user) in [(Role::Guest, victim), (Role::Admin, other_admin)] {
        let its = others(role);
        let put = move |body: Value| ("PUT", format!("/api/users/{user}"), Some(body), 200);
        let says = move |mut says: Value| {
            says["user_id"] = user.to_string().into();
            Some(WsAction { room: "tea", command: Some(says) })
        };
        let kick = move || ("DELETE", format!("/api/rooms/tea/members/{user}"), None, 204);
        row(Action::Kick, its, says(json!({"type": "kick"})), Box::new(kick));
        for until in [json!("2099-01-01T00:00:00Z"), Value::Null] {
            let said = says(json!({"type": "mute", "muted_until": until}));
            row(Action::Mute, its, said, Box::new(move || put(json!({"muted_until": until}))));
        }
        let said = says(json!({"type": "ban", "banned": true}));
        row(Action::Ban, its, said, Box::new(move || put(json!({"banned": true}))));
        row(
            Action::Ban,
            its,
            None,
            Box::new(move || put(json!({"banned": {"until": "2099-01-01T00:00:00Z", "reason": "r"}}))),
        );
        let said = says(json!({"type": "ban", "banned": false}));
        row(Action::Ban, its, said, Box::new(move || put(json!({"banned": false}))));
    }
    for (access, id) in [(Access::Member, "secret"), (Access::NonMember, "closed")] {
        let says = json!({"type": "kick", "user_id": victim.to_string(), "room_id": id});
        // Sent from another room, because the user can't join a private room without membership.
        let says = Some(WsAction { room: "tea", command: Some(says) });
        let kick = move || ("DELETE", format!("/api/rooms/{id}/members/{victim}"), None, 204);
        row(Action::Kick, PermissionContext { access, ..others(Role::Guest) }, says, Box::new(kick));
    }
    row(Action::Ban, others(Role::Guest), None, Box::new(|| ("GET", "/api/bans".into(), None, 200)));
    for its in [plain, banned] {
        row(Action::ListSessions, its, None, Box::new(|| ("GET", "/api/sessions".into(), None, 200)));
        row(Action::Enter, its, None, Box::new(|| ("GET", "/api/session".into(), None, 200)));
    }
    rows
}

/// The result over a WebSocket: success, or the status or the code of the refusal.
#[track_caller]
fn over_websocket(address: SocketAddr, asked: Asked<'_>, action: &WsAction) -> Result<(), String> {
    let headers = asked.headers(address);
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let target = format!("/ws?room={}&history=0", action.room);
    let mut ws = match Ws::open(address, &target, &headers).expect("an answer") {
        Ok(ws) => ws,
        Err(refused) => return Err(refused.status.to_string()),
    };
    assert_eq!(ws.next_frame()["type"], "welcome");
    let Some(command) = &action.command else { return Ok(()) };
    // A nonce is one message in all rooms, so each call needs a new one.
    let nonce = Uuid::new_v4().to_string();
    let mut command = command.clone();
    command["nonce"] = nonce.as_str().into();
    ws.command(&command);
    loop {
        let Event::Frame(frame) = ws.event() else { panic!("the connection ended") };
        match frame["type"].as_str() {
            Some("error") if frame["nonce"] == nonce.as_str() => {
                return Err(frame["code"].as_str().expect("a code").to_owned());
            }
            // A command that succeeds is answered by a frame of its type.
            Some(kind) if frame["nonce"] == nonce.as_str() => {
                assert_eq!(kind, command["type"].as_str().unwrap_or("text"));
                return Ok(());
            }
            _ => {}
        }
    }
}

#[test]
fn every_protocol_answers_as_the_permission_table_says() {
    let mut people = People::new();
    let now = Timestamp::now();
    let (victim, _) = people.find_user("victim", Role::Guest);
    let (other_admin, _) = people.find_user("boss", Role::Admin);
    let mut users = Vec::new();
    for role in Role::ALL {
        let mut token = |restriction: &str| people.find_user(&format!("{role}-{restriction}"), *role);
        let ((good, good_token), (muted, muted_token), (banned, banned_token)) =
            (token("kind"), token("loud"), token("wild"));
        people.change(|connection| {
            let until_ms = now.unix_ms as i64 + 3_600_000;
            let by = other_admin.0.as_bytes();
            connection.execute("INSERT INTO mutes VALUES (?1, ?2, ?3)", params![muted.0.as_bytes(), until_ms, by])?;
            let sql = "INSERT INTO bans VALUES ('user', ?1, NULL, '', ?2, 0)";
            connection.execute(sql, params![banned.0.as_bytes(), by])?;
            connection.execute(
                "INSERT INTO room_members (room, user_id, since_ms) VALUES ('secret', ?1, 0)",
                [good.0.as_bytes()],
            )
        });
        users.push(Tokens { role: *role, good: good_token, muted: muted_token, banned: banned_token });
    }
    people.change(|connection| {
        connection.execute_batch(
            "INSERT INTO room_settings VALUES ('secret', '', '', 'everyone', 0, 1), ('closed', '', '', 'everyone', 0, 1),
                ('board', '', '', 'admins', 0, 0)",
        )
    });
    let server = people.serve(&[]);
    let address = server.addr();
    // The room exists because this client is in it.
    let _host = Ws::join(&server, "/ws/tea/host");
    let mut cells = 0;
    let mut wrong = Vec::new();
    for row in rows(victim, other_admin) {
        for user in &users {
            let token = user.token(row.its.restriction);
            for asked in [Asked::Plainly, Asked::ByCookie(token), Asked::ByBearer(token), Asked::FromElsewhere(token)] {
                let mut its = row.its;
                let role = if asked == Asked::Plainly { Role::Guest } else { user.role };
                if asked == Asked::Plainly {
                    its.restriction = Restriction::None;
                    its.access = if its.access == Access::Public { Access::Public } else { Access::NonMember };
                }
                let answer = may(role, row.action, &its);
                let (method, target, body, success) = (row.http)();
                let is_reading = method == "GET";
                let about_me = target.starts_with("/api/session");
                let expected = match (asked, answer) {
                    (Asked::FromElsewhere(_), _) if !is_reading => 403,
                    (Asked::Plainly, Ok(())) if about_me => 401,
                    (_, Ok(())) => success,
                    (_, Err(refusal)) => status_of(refusal),
                };
                let response = request(address, asked, method, &target, body.as_ref());
                cells += 1;
                if response.status != expected {
                    let said = String::from_utf8_lossy(&response.body).into_owned();
                    wrong.push(format!(
                        "{role} {:?} {its:?} {asked:?}: {method} {target}: {} and not {expected}: {said}",
                        row.action, response.status
                    ));
                }
                let is_public = target.starts_with("/api/rooms/");
                let shared = response.header("Access-Control-Allow-Origin");
                assert_eq!(shared, (is_reading && is_public).then_some("*"), "{method} {target}");
                assert_eq!(response.header("Cache-Control"), Some("no-store"), "{method} {target}");
                let Some(ws) = &row.ws else { continue };
                let access = if ws.room == "tea" { Access::Public } else { its.access };
                let enters = may(role, Action::Enter, &PermissionContext { access, ..its });
                let expected = match (asked, enters, answer) {
                    (Asked::FromElsewhere(_), ..) => Err("403".to_owned()),
                    (_, Err(refusal), _) => Err(status_of(refusal).to_string()),
                    (.., Err(refusal)) if refusal.is_hidden() => Err("not_found".to_owned()),
                    (.., Err(_)) => Err("forbidden".to_owned()),
                    (.., Ok(())) => Ok(()),
                };
                let found = over_websocket(address, asked, ws);
                cells += 1;
                if found != expected {
                    wrong.push(format!(
                        "{role} {:?} {its:?} {asked:?}: WebSocket: {found:?} and not {expected:?}",
                        row.action
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {cells} cells:\n{}", wrong.len(), wrong.join("\n"));
    assert!(cells > 500, "{cells}");
}

#[test]
fn a_message_is_deleted_over_every_protocol_as_the_table_says() {
    let mut people = People::new();
    let (_, stranger) = people.find_user("stranger", Role::Guest);
    let users: Vec<_> = Role::ALL.iter().map(|role| (*role, people.find_user(&format!("a-{role}"), *role).1)).collect();
    let server = people.serve(&[]);
    let address = server.addr();
    let _host = Ws::join(&server, "/ws/tea/host");
    for (role, token) in &users {
        for (author, target) in [(token, Target::Own), (&stranger, Target::Others(Role::Guest))] {
            for asked in [Asked::Plainly, Asked::ByCookie(token), Asked::ByBearer(token), Asked::FromElsewhere(token)] {
                let its = match asked {
                    Asked::Plainly => {
                        PermissionContext { target: Target::Others(Role::Guest), ..PermissionContext::default() }
                    }
                    _ => PermissionContext { target, ..PermissionContext::default() },
                };
                let answer = may(if asked == Asked::Plainly { Role::Guest } else { *role }, Action::Delete, &its);
                let posted = || {
                    let body = json!({"content": "x"});
                    let by = Asked::ByBearer(author);
                    let posted = request(address, by, "POST", "/api/rooms/tea/messages", Some(&body)).json();
                    posted["data"]["id"].as_str().expect("an id").to_owned()
                };
                let target = format!("/api/rooms/tea/messages/{}", posted());
                let status = request(address, asked, "DELETE", &target, None).status;
                let expected = match (asked, answer) {
                    (Asked::FromElsewhere(_), _) => 403,
                    // A client without a session can't own a message.
                    (Asked::Plainly, _) => 401,
                    (_, Ok(())) => 204,
                    (_, Err(_)) => 403,
                };
                assert_eq!(status, expected, "{role} {target:?} {asked:?}");
                let says = json!({"type": "delete", "message_id": posted()});
                let found = over_websocket(address, asked, &WsAction { room: "tea", command: Some(says) });
                let expected = match (asked, answer) {
                    (Asked::FromElsewhere(_), _) => Err("403".to_owned()),
                    (_, answer) => answer.map_err(|_| "forbidden".to_owned()),
                };
                assert_eq!(found, expected, "{role} {target:?} {asked:?}");
            }
        }
    }
}

#[test]
fn the_operators_account_settings_apply_to_every_protocol() {
    for (accounts, registration) in [
        (Accounts::Optional, Registration::Invite),
        (Accounts::Required, Registration::Closed),
        (Accounts::Required, Registration::Open),
    ] {
        let mut people = People::new();
        let tokens: Vec<_> = Role::ALL.iter().map(|role| (*role, people.find_user(role.as_str(), *role).1)).collect();
        people.session(UserId(Uuid::new_v4()), SessionKind::Guest);
        let server = people.serve(&["--accounts", accounts.as_str(), "--registration", registration.as_str()]);
        let address = server.addr();
        for (role, token) in &tokens {
            let its = PermissionContext { accounts, registration, ..PermissionContext::default() };
            let status = |action, success| may(*role, action, &its).map_or_else(status_of, |()| success);
            for asked in [Asked::ByCookie(token), Asked::ByBearer(token)] {
                let ask =
                    |method, target, body: Option<Value>| request(address, asked, method, target, body.as_ref()).status;
                assert_eq!(ask("GET", "/api/rooms", None), status(Action::Enter, 200), "{role}");
                assert_eq!(ask("GET", "/api/session", None), status(Action::Enter, 200), "{role}");
                let said = ask("POST", "/api/rooms/tea/messages", Some(json!({"content": "hi"})));
                assert_eq!(said, status(Action::Post, 201), "{role}");
                let entered = over_websocket(address, asked, &WsAction { room: "tea", command: None });
                let expected = may(*role, Action::Enter, &its).map_err(|refusal| status_of(refusal).to_string());
                assert_eq!(entered, expected, "{role}");
                let invited = ask("POST", "/api/invitations", Some(json!({})));
                // An invitation would be useless if registration is closed.
                let success = if registration == Registration::Closed { 409 } else { 201 };
                assert_eq!(invited, status(Action::InviteToRegister, success), "{role} {registration}");
                let name = Uuid::new_v4().simple().to_string()[..20].to_owned();
                let account = json!({"username": name, "password": "correct horse battery"});
                assert_eq!(ask("POST", "/api/accounts", Some(account)), status(Action::Register, 201), "{role}");
                if may(*role, Action::Register, &its).is_ok() {
                    // The guest's session ends with the registration if the cookie had its token; the other credential
                    // is the same session.
                    break;
                }
            }
        }
        let stranger = request(address, Asked::Plainly, "POST", "/api/session", Some(&json!({"username": "Ana"})));
        assert_eq!(stranger.status, if accounts == Accounts::Required { 401 } else { 201 });
        if accounts == Accounts::Required {
            assert_eq!(stranger.json()["error"], "login required");
        }
    }
}
