//! Tests of the routes and the workers, with a hub and a store in memory, and without a network.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read as _};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use serde_json::Value;
use uuid::Uuid;

use super::operation::{Needs, Route};
use super::reply::Reply;
use super::request::Request;
use super::router::dispatch;
use super::routes::ROUTES;
use super::server::{Context, Endpoint, PANIC_PATH, SECURE_HEADER, Server, Settings, WORKERS};
use super::slow_lane::Lane;
use super::socket::{DIRECTORY_PREFIX, Listening, SOCKET_NAME};
use crate::auth::attempts::{Login, SUCCESSES_PER_ACCOUNT};
use crate::auth::credential::SessionCookie;
use crate::auth::name::Skeletons;
use crate::config::{Data, Durability, Keep};
use crate::hub::{self, Arrival, Chunk, Command, Connect, Ends, HubApi, Inbound, PublishedPresence, Sink};
use crate::limits::{CHANGE_WAIT, HISTORY_MAX, Limits};
use crate::metrics::Metrics;
use crate::model::reason::Reason;
use crate::model::role::Role;
use crate::model::{ConnectionId, Nonce, Person, RoomId, UserId, Username};
use crate::protocol::{Rejected, Replay, decode};
use crate::rate::RateLimiters;
use crate::store::accounts::{SessionId, SessionKind};
use crate::store::change::{self, Change, NewAccount, NewSession};
use crate::store::entry::{By, Principal, Proof};
use crate::store::{self, TokenHash};
use crate::wire::Encoding;

/// The longest time that a test waits for a frame.
const FRAME_WAIT: Duration = Duration::from_secs(20);
const MESSAGES: &str = "/api/rooms/tea/messages";
const JSON: (&str, &str) = ("Content-Type", "application/json");
const TEXT: (&str, &str) = ("Content-Type", "text/plain; charset=utf-8");
const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

/// A hub and a store in memory, and the context of handlers.
pub(crate) struct Backend {
    context: Context,
    commands: hub::Commands,
    presence: PublishedPresence,
    threads: Vec<JoinHandle<()>>,
}

/// The default settings.
fn settings() -> Settings {
    let cookie = Arc::new(SessionCookie::new("12", 0));
    let (rate_limiters, limits) = (Arc::default(), Limits::default());
    Settings { origins: Vec::new(), directory: None, rate_limiters, cookie, limits }
}

impl Backend {
    pub(crate) fn start() -> Self {
        let metrics = Arc::new(Metrics::default());
        let (commands, queue) = hub::channel();
        let policy = change::Policy::default();
        let store = store::start(
            &Data::Memory,
            Durability::Normal,
            Keep::default(),
            policy,
            &queue.sleeper,
            Arc::clone(&metrics),
        );
        let store::Started { writer, reader, mut threads } = store.unwrap();
        let presence = hub::new_presence();
        let limits = Limits { rate_per_s: 0, ..Limits::default() };
        let ends = Ends { queue, store: writer, reader: reader.clone(), presence: presence.clone() };
        threads.extend(hub::start(ends, limits, Arc::clone(&metrics)).unwrap());
        let origins = vec!["https://friend.example".parse().unwrap()];
        let rate_limiters = Arc::new(RateLimiters::new(&limits));
        let settings = Settings { origins, rate_limiters, limits, ..settings() };
        let hub = HubApi::new(commands.clone(), presence.clone());
        let context = Context { hub, reader, settings, attempts: Arc::default(), metrics, openapi: OnceLock::new() };
        Self { context, commands, presence, threads }
    }

    /// Starts a backend with one message in the room `tea`.
    fn with_tea() -> Self {
        let backend = Self::start();
        backend.post("tea", "first");
        backend
    }

    /// Starts an HTTP server for it.
    pub(crate) fn serve(&self, metrics: &Arc<Metrics>) -> Server {
        let Context { hub, reader, .. } = &self.context;
        Server::start(hub.clone(), reader.clone(), settings(), Arc::clone(metrics)).unwrap()
    }

    /// Replaces the hub: commands of requests go to the receiver.
    pub(crate) fn divert(&mut self) -> Receiver<Command> {
        let (commands, diverted) = hub::channel();
        self.context.hub = HubApi::new(commands, self.presence.clone());
        diverted.commands
    }

    pub(crate) fn request<'a>(&'a self, target: &'a str, headers: &'a [tiny_http::Header]) -> Request<'a> {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        Request { template: "", path, query, headers, body: &[], context: &self.context }
    }

    fn ask(&self, method: &str, target: &str, fields: &[(&str, &str)], body: &str) -> Reply {
        let headers = headers(fields);
        let mut reply = dispatch(method, &Request { body: body.as_bytes(), ..self.request(target, &headers) });
        // A search needs no thread of its own here.
        match reply.later.take() {
            Some((Lane::Search, _, rest)) => rest(&self.context).under(reply),
            later => Reply { later, ..reply },
        }
    }

    pub(crate) fn get(&self, target: &str) -> Reply {
        self.ask("GET", target, &[], "")
    }

    /// Stores a message, which creates its room.
    pub(crate) fn post(&self, room: &str, content: &str) {
        let room: String = room.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let reply = self.ask("POST", &format!("/api/rooms/{room}/messages"), &[TEXT], content);
        assert_eq!(reply.status, 201, "{}", reply.text());
    }

    /// A JSON request by a client with a token.
    fn ask_as(&self, token: &str, method: &str, target: &str, body: &str) -> Reply {
        self.ask(method, target, &[JSON, ("Authorization", &format!("Bearer {token}"))], body)
    }

    /// A guest with a session: its user id and its token.
    fn guest(&self, name: &str) -> (UserId, String) {
        let reply = self.ask("POST", "/api/session", &[JSON], &format!(r#"{{"username":"{name}"}}"#));
        assert_eq!(reply.status, 201, "{}", reply.text());
        let session = &reply.parsed()["data"];
        let id = Uuid::try_parse(session["id"].as_str().unwrap()).unwrap();
        (UserId(id), session["token"].as_str().unwrap().to_owned())
    }

    /// The token of a new admin.
    fn admin(&self, name: &str) -> String {
        let (token, name) = (format!("token-of-{name}"), Username::parse(name).unwrap());
        let (id, skeletons) = (UserId(Uuid::new_v4()), Skeletons::of(&name));
        let account = NewAccount { id, name, skeletons, role: Role::Admin, password: None };
        let session = NewSession {
            id: SessionId(1),
            kind: SessionKind::Bot,
            token_hash: Some(TokenHash::of(&token)),
            label: "".into(),
            span_ms: None,
        };
        self.context.hub.change(By::Operator, Change::CreateToken { account, session }).unwrap();
        token
    }

    /// Makes a guest join a room.
    pub(crate) fn join(&self, room: &str, user: UserId, name: &str) -> Member {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        let connection = ConnectionId(NEXT.fetch_add(1, Ordering::Relaxed));
        let person = Arc::new(Person::guest(user, Username::parse(name).unwrap()));
        let proof = Proof::SignedGuest { issued_ms: self.context.reader.moment().clock_ms };
        let network = Ipv4Addr::UNSPECIFIED.into();
        let (sink, chunks) = Sink::channel();
        let arrival = Arrival {
            connection,
            principal: Arc::new(Principal { person, proof, network }),
            skeletons: None,
            room: RoomId::parse(room).unwrap(),
            replay: Replay { history: 0, after: None },
            token: None,
        };
        let connect = Connect { sink, encoding: Encoding::Ndjson, arrival };
        self.commands.send(Command::Connect(Box::new(connect))).unwrap();
        let mut member = Member { connection, commands: self.commands.clone(), chunks, lines: VecDeque::new() };
        member.frame("welcome");
        member
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Stop);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

/// A connection in a room. It ends on drop.
pub(crate) struct Member {
    connection: ConnectionId,
    commands: hub::Commands,
    chunks: Receiver<Chunk>,
    lines: VecDeque<String>,
}

impl Member {
    /// The next frame of a type.
    fn frame(&mut self, kind: &str) -> Value {
        let deadline = Instant::now() + FRAME_WAIT;
        loop {
            while let Some(line) = self.lines.pop_front() {
                let frame: Value = serde_json::from_str(&line).unwrap();
                if frame["type"] == kind {
                    return frame;
                }
            }
            let chunk = self.chunks.recv_deadline(deadline).unwrap_or_else(|_| panic!("no {kind} frame came"));
            let lines = std::str::from_utf8(&chunk).unwrap().lines();
            self.lines.extend(lines.filter(|line| !line.is_empty()).map(str::to_owned));
        }
    }

    fn send(&self, inbound: Inbound) {
        let command = Command::Frames { from: self.connection, frames: vec![inbound] };
        self.commands.send(command).unwrap();
    }

    /// The `error` frame that answers a frame.
    fn refused(&mut self, text: &str) -> Value {
        self.send(Inbound::Frame(decode(text, &Limits::default()).unwrap()));
        self.frame("error")
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Gone { from: self.connection });
    }
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(field, _)| *field == name)?;
        Some(&header.1)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn parsed(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The `reason` of an error.
    fn reason(&self) -> String {
        self.parsed()["reason"].as_str().unwrap_or_default().to_owned()
    }
}

pub(crate) fn headers(fields: &[(&str, &str)]) -> Vec<tiny_http::Header> {
    let header = |(name, value): &(&str, &str)| tiny_http::Header::from_bytes(*name, *value).unwrap();
    fields.iter().map(header).collect()
}

#[test]
fn a_message_is_posted_as_json_or_as_text() {
    let backend = Backend::start();
    let (_, good) = backend.guest("eva");
    let good = format!("Bearer {good}");
    for (target, fields, body, status, part) in [
        (
            MESSAGES,
            &[JSON][..],
            r#"{"content":"hi","username":"ana"}"#,
            201,
            r#""username":"ana","content":"hi","type":"text""#,
        ),
        (MESSAGES, &[TEXT], "{as typed", 201, r#""username":"Anonymous","content":"{as typed""#),
        (MESSAGES, &[FORM], "{a=1&b=%41+c", 201, r#""content":"{a=1&b=%41+c""#),
        (MESSAGES, &[JSON], r#"{"content":"hi","username":5}"#, 400, "invalid field `username`"),
        (MESSAGES, &[JSON], r#"{"content":"hi","username":["ana"]}"#, 400, "invalid field `username`"),
        (MESSAGES, &[JSON], r#"{"username":"a","content":"hi","username":"b"}"#, 400, "duplicate field `username`"),
        (MESSAGES, &[JSON], r#"{"content":"hi","content":"ho"}"#, 400, "duplicate field `content`"),
        (MESSAGES, &[JSON], r#"{"content":"hi","reply_to":7}"#, 400, "invalid field `reply_to`"),
        (MESSAGES, &[JSON], r#"{"content":true}"#, 400, "invalid field `content`"),
        (MESSAGES, &[JSON], r#"{"content":null}"#, 400, "missing field: content"),
        (MESSAGES, &[TEXT, ("Idempotency-Key", "k1")], "hi", 201, r#""nonce":"k1""#),
        ("/api/rooms/tea/messages?username=bob+b", &[TEXT], "hi", 201, r#""username":"bob b""#),
        (MESSAGES, &[JSON], r#"{"content":"hi","nonce":"again"}"#, 201, r#""nonce":"again""#),
        (MESSAGES, &[JSON], r#"{"content":"hi","nonce":"again"}"#, 200, r#""nonce":"again""#),
        (
            MESSAGES,
            &[JSON],
            r#"{"content":"other","nonce":"again"}"#,
            409,
            r#""code":"conflict","reason":"nonce_used""#,
        ),
        (MESSAGES, &[TEXT, ("Authorization", &good)], "hi", 201, r#""username":"eva","content":"hi""#),
        (MESSAGES, &[TEXT, ("Authorization", "Bearer bad")], "hi", 401, "invalid token"),
        (MESSAGES, &[TEXT, ("Authorization", "Basic x")], "hi", 401, "invalid token"),
        (MESSAGES, &[], "hi", 415, "application/json"),
        (MESSAGES, &[JSON], "hi", 400, r#""code":"bad_json","reason":"bad_json""#),
        (MESSAGES, &[JSON], r#"{"content":""}"#, 400, r#""code":"bad_json","reason":"empty_message""#),
        (MESSAGES, &[JSON], r#"{"type":"join","room_id":"x"}"#, 400, r#""code":"bad_type","reason":"unknown_type""#),
        (
            MESSAGES,
            &[TEXT, ("Host", "a"), ("Origin", "http://b")],
            "hi",
            403,
            r#""code":"forbidden","reason":"foreign_origin""#,
        ),
        (MESSAGES, &[TEXT, ("Host", "a"), ("Origin", "http://a")], "hi", 201, r#""content":"hi""#),
        ("/api/rooms/dm:x/messages", &[TEXT], "hi", 404, r#""code":"not_found","reason":"no_such_room""#),
        ("/api/rooms/tea/messages?username=%E2%80%AEx", &[TEXT], "hi", 400, r#""code":"bad_name","reason":"bad_name""#),
    ] {
        let reply = backend.ask("POST", target, fields, body);
        assert_eq!(reply.status, status, "{target} {fields:?} {body}: {}", reply.text());
        assert!(reply.text().contains(part), "{} has no {part}", reply.text());
        let has_nonce = reply.text().contains(r#""nonce""#);
        assert_eq!(has_nonce, part.contains(r#""nonce":"#), "{}", reply.text());
    }
    let long = backend.ask("POST", MESSAGES, &[TEXT], &"x".repeat(9_000));
    assert_eq!((long.status, &*long.reason()), (413, "message_too_long"));
}

#[test]
fn a_refused_field_is_named_in_every_body() {
    let backend = Backend::with_tea();
    let admin = backend.admin("ada");
    let user = UserId(Uuid::from_u128(7));
    for (method, target, body, name) in [
        ("POST", "/api/session", r#"{"username":5}"#, "`username`"),
        ("POST", "/api/session", r#"{"username":null}"#, "`username`"),
        ("POST", "/api/session", r#"{"username":"a","username":"b"}"#, "`username`"),
        ("POST", "/api/accounts", r#"{"username":"a","password":12345678}"#, "`password`"),
        ("PUT", "/api/account/password", r#"{"old":"a","new":[]}"#, "`new`"),
        ("PATCH", "/api/rooms/tea", r#"{"topic":"a","slow_mode_s":"5"}"#, "`slow_mode_s`"),
        ("PATCH", "/api/rooms/tea", r#"{"private":1,"topic":"a"}"#, "`private`"),
        ("PATCH", "/api/rooms/tea", r#"{"posting":"nobody"}"#, "`posting`"),
        ("PATCH", "/api/rooms/tea", r#"{"topic":"a","topic":"b"}"#, "`topic`"),
        ("POST", "/api/invitations", r#"{"uses":1.5}"#, "`uses`"),
        ("POST", "/api/invitations", r#"{"room":7}"#, "`room`"),
        ("POST", "/api/rooms/tea/members", r#"{"invitation":7}"#, "`invitation`"),
        ("POST", "/api/announcements", r#"{"content":{}}"#, "`content`"),
        ("PUT", &*format!("/api/users/{user}"), r#"{"muted_until":7}"#, "`muted_until`"),
        ("PUT", &*format!("/api/users/{user}"), r#"{"banned":{"reason":7}}"#, "`reason`"),
        ("PUT", &*format!("/api/users/{user}"), r#"{"banned":true,"banned":false}"#, "`banned`"),
    ] {
        let reply = backend.ask_as(&admin, method, target, body);
        assert_eq!((reply.status, &*reply.reason()), (400, "malformed_field"), "{body}: {}", reply.text());
        assert!(reply.text().contains(name), "{body}: {}", reply.text());
    }
}

#[test]
fn a_page_of_history_says_where_the_next_page_begins() {
    let backend = Backend::start();
    for content in ["a b 1", "a", "b a 2", "b", "b, A! 3"] {
        backend.post("tea", content);
    }
    let page = |query: &str| {
        let reply = backend.get(&format!("{MESSAGES}?{query}"));
        assert_eq!(reply.status, 200, "{query}: {}", reply.text());
        let page = reply.parsed();
        let frames = page["data"].as_array().unwrap();
        let text = |field: &str| -> Vec<String> {
            frames.iter().map(|frame| frame[field].as_str().unwrap().to_owned()).collect()
        };
        (text("content"), text("id"), page["next"].as_str().map(str::to_owned))
    };
    let (contents, ids, next) = page("limit=2&q=a%20b");
    assert_eq!((contents, next.as_ref()), (vec!["b a 2".into(), "b, A! 3".into()], Some(&ids[0])));
    let (contents, _, next) = page(&format!("limit=2&q=a%20b&before={}", next.unwrap()));
    assert_eq!((contents, next), (vec!["a b 1".to_owned()], None));
    let (contents, all, next) = page("limit=200");
    assert_eq!((contents.len(), next), (5, None));
    let (contents, ids, next) = page(&format!("limit=2&after={}", all[0]));
    assert_eq!((contents, next.as_ref()), (vec!["a".into(), "b a 2".into()], Some(&ids[1])));
    let (contents, _, next) = page(&format!("limit=2&after={}", next.unwrap()));
    assert_eq!((contents, next), (vec!["b".to_owned(), "b, A! 3".to_owned()], None));
    for bad in [
        "limit=0",
        "before=x",
        "before=00000000-0000-0000-0000-000000000001",
        "before=00000000-0000-0000-0000-000000000001&after=00000000-0000-0000-0000-000000000001",
    ] {
        let reply = backend.get(&format!("{MESSAGES}?{bad}"));
        assert_eq!((reply.status, &*reply.reason()), (400, "bad_query"), "{bad}");
    }
    assert_eq!(backend.get("/api/rooms/none/messages").status, 404);
}

#[test]
fn a_page_at_a_forgotten_message_is_a_reset() {
    let backend = Backend::with_tea();
    let page = |query: &str| {
        let reply = backend.get(&format!("{MESSAGES}?{query}"));
        (reply.status, reply.parsed())
    };
    let first = page("").1["data"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(page(&format!("after={first}")).1, serde_json::json!({ "data": [] }));
    for number in 0..HISTORY_MAX {
        backend.post("tea", &format!("number {number}"));
    }
    let (_, after) = page(&format!("after={first}&limit=2"));
    assert_eq!(
        (&after["reset"], &after["data"][0]["content"], &after["data"][0]["seq"]),
        (&true.into(), &"number 0".into(), &2.into())
    );
    let (_, rest) = page(&format!("after={}&limit=2", after["next"].as_str().unwrap()));
    assert_eq!((&rest["reset"], &rest["data"][0]["content"]), (&Value::Null, &"number 2".into()));
    assert_eq!(page(&format!("before={first}")), (200, serde_json::json!({ "data": [], "reset": true })));
    let old = "0192f7a0-0000-7000-8000-000000000001";
    assert_eq!(page(&format!("before={old}")).1["reset"], true);
    let future = "ffffffff-ffff-7000-8000-000000000001".to_owned();
    for never in [Uuid::new_v4().to_string(), future, Uuid::nil().to_string()] {
        assert_eq!(page(&format!("after={never}")).0, 400, "{never}");
    }
}

#[test]
fn every_reason_has_its_status_code_and_headers() {
    for reason in Reason::ALL {
        for retry_ms in [None, Some(0), Some(1_500), Some(60_000)] {
            let rejection = retry_ms.map_or_else(|| (*reason).into(), |ms| reason.because("why").retry_after(ms));
            let sentence = rejection.sentence.clone();
            let reply = Reply::from(rejection);
            assert_eq!(reply.status, reason.status(), "{reason:?}");
            let (code, word) = (reason.code().as_str(), reason.word());
            let body = serde_json::json!({ "error": sentence, "code": code, "reason": word });
            assert_eq!(reply.parsed(), body, "{reason:?}");
            let (retry_after, authenticate) = match (reason.status(), retry_ms) {
                (401, _) => (None, Some("Bearer")),
                (503, _) | (429, Some(0)) => (Some("1"), None),
                (429, Some(1_500)) => (Some("2"), None),
                (429, Some(60_000)) => (Some("61"), None),
                _ => (None, None),
            };
            assert_eq!(reply.header("Retry-After"), retry_after, "{reason:?} {retry_ms:?}");
            assert_eq!(reply.header("WWW-Authenticate"), authenticate, "{reason:?}");
        }
    }
}

#[test]
fn every_reason_has_the_same_name_in_an_error_frame() {
    let backend = Backend::start();
    let mut member = backend.join("tea", UserId(Uuid::from_u128(1)), "ana");
    for (number, reason) in Reason::ALL.iter().enumerate() {
        let nonce = format!("n{number}");
        let retry_ms = (number % 2 == 0).then_some(1_500);
        let rejection = crate::model::reason::Rejection { retry_ms, ..(*reason).into() };
        member.send(Inbound::Rejected(Rejected::new(rejection, Nonce::parse(&nonce).ok())));
        let frame = member.frame("error");
        assert_eq!(frame["reason"], reason.word());
        assert_eq!(frame["code"], reason.code().in_frame(), "{reason:?}");
        assert_eq!(frame["content"], reason.sentence(), "{reason:?}");
        assert_eq!(frame["nonce"], nonce, "{reason:?}");
        assert_eq!(frame["retry_ms"].as_u64(), retry_ms, "{reason:?}");
    }
}

#[test]
fn a_message_is_refused_for_the_same_reason_over_http_and_over_a_websocket() {
    let backend = Backend::with_tea();
    let (admin, (eva, token)) = (backend.admin("ada"), backend.guest("eva"));
    let mut member = backend.join("tea", eva, "eva");
    let text = r#"{"type":"text","content":"hi","nonce":"n"}"#;
    let restrict = |restrictions: &str| {
        let reply = backend.ask_as(&admin, "PUT", &format!("/api/users/{eva}"), restrictions);
        assert_eq!(reply.status, 200, "{}", reply.text());
    };
    let set_room = |patch: &str| {
        let reply = backend.ask_as(&admin, "PATCH", "/api/rooms/tea", patch);
        assert_eq!(reply.status, 200, "{}", reply.text());
    };
    let post = || backend.ask_as(&token, "POST", MESSAGES, r#"{"content":"hi"}"#);
    let mut both = |status, code: &str, reason: &str| {
        let (reply, frame) = (post(), member.refused(text));
        assert_eq!((reply.status, &*reply.reason()), (status, reason), "{}", reply.text());
        assert_eq!((reply.parsed()["code"].as_str(), frame["code"].as_str()), (Some(code), Some(code)));
        assert_eq!((&frame["reason"], &frame["content"]), (&reply.parsed()["reason"], &reply.parsed()["error"]));
        (reply, frame)
    };

    set_room(r#"{"posting":"admins"}"#);
    both(403, "forbidden", "read_only");
    set_room(r#"{"posting":"everyone","slow_mode_s":60}"#);
    assert_eq!(post().status, 201);
    let (reply, frame) = both(429, "rate_limited", "slow_mode");
    let after_s: u64 = reply.header("Retry-After").unwrap().parse().unwrap();
    assert!((40..=61).contains(&after_s), "{after_s}");
    let retry_ms = frame["retry_ms"].as_u64().unwrap();
    assert!((40_000..=60_000).contains(&retry_ms), "{retry_ms}");
    restrict(r#"{"muted_until":"2999-01-01T00:00:00Z"}"#);
    both(403, "forbidden", "muted");
    restrict(r#"{"muted_until":null}"#);

    for (method, target, body) in [
        ("PATCH", "/api/rooms/tea", r#"{"topic":"x"}"#),
        ("PUT", "/api/users/00000000-0000-0000-0000-000000000001", r#"{"banned":true}"#),
        ("POST", "/api/announcements", r#"{"content":"x"}"#),
        ("GET", "/api/bans", ""),
    ] {
        let reply = backend.ask_as(&token, method, target, body);
        assert_eq!((reply.status, &*reply.reason()), (403, "not_admin"), "{method} {target}");
    }
    for (action, reason) in [
        (r#"{"type":"room","topic":"x"}"#, "not_admin"),
        (r#"{"type":"delete","message_id":"00000000-0000-0000-0000-000000000001"}"#, "no_such_message"),
    ] {
        assert_eq!(member.refused(action)["reason"], reason, "{action}");
    }
    set_room(r#"{"private":true}"#);
    let hidden = post();
    assert_eq!((hidden.status, &*hidden.reason()), (404, "no_such_room"));
    assert_eq!(hidden.body, backend.get("/api/rooms/none").body, "it does not tell that the room exists");
    restrict(r#"{"banned":true}"#);
    let banned = post();
    assert_eq!((banned.status, &*banned.reason()), (403, "banned"));
}

#[test]
fn invalid_json_and_an_invalid_field_have_different_reasons() {
    let backend = Backend::start();
    let admin = backend.admin("ada");
    for (method, target) in [("POST", "/api/session"), ("PATCH", "/api/rooms/tea"), ("POST", "/api/invitations")] {
        for (body, reason) in
            [("{", "bad_json"), (r#"{"no_such_field":1}"#, "malformed_field"), ("[]", "malformed_field")]
        {
            let reply = backend.ask_as(&admin, method, target, body);
            assert_eq!((reply.status, &*reply.reason()), (400, reason), "{method} {target} {body}");
            assert_eq!(reply.parsed()["code"], "bad_json");
        }
    }
    for body in [r#"{"content":"hi","username":5}"#, r#"{"content":"hi","username":"a","username":"b"}"#] {
        let reply = backend.ask("POST", MESSAGES, &[JSON], body);
        assert_eq!((reply.status, &*reply.reason()), (400, "malformed_field"), "{body}");
        assert!(reply.text().contains("username") || reply.text().contains("integer"), "{}", reply.text());
    }
}

/// The paths of all operations that read. A health check is left out: it asks the hub.
fn get_targets() -> Vec<String> {
    let reads =
        |route: &&Route| route.operation("GET").is_some() && route.path != "/healthz" && route.path != PANIC_PATH;
    ROUTES.iter().filter(reads).map(filled).collect()
}

/// The path of a route, with the room `tea` and other parameters that name nothing.
fn filled(route: &Route) -> String {
    let part = |part: &str| match part {
        "{room}" => "tea".to_owned(),
        "{message}" | "{user}" => Uuid::new_v4().to_string(),
        "{session}" | "{invitation}" => "7".to_owned(),
        "{address}" => "203.0.113.7".to_owned(),
        part => part.to_owned(),
    };
    route.path.split('/').map(part).collect::<Vec<_>>().join("/")
}

/// The paths of all operations that need a role, with parameters that name nothing.
fn operations_that_need(needs: Needs) -> Vec<(&'static str, String)> {
    let needing = |route: &'static Route| route.operations.iter().filter(move |operation| operation.needs == needs);
    ROUTES.iter().flat_map(|route| needing(route).map(move |operation| (operation.method, filled(route)))).collect()
}

#[test]
fn an_operation_is_refused_without_the_session_or_role_that_it_needs() {
    let backend = Backend::with_tea();
    let (_, guest) = backend.guest("eva");
    // Enough of a body for every operation, so that no other error comes first.
    let body = r#"{"invitation":"x","old":"kettle on the stove","new":"stove on the kettle"}"#;
    for (method, target) in operations_that_need(Needs::Session) {
        let reply = backend.ask(method, &target, &[JSON], r#"{"invitation":"x"}"#);
        assert_eq!((reply.status, &*reply.reason()), (401, "no_session"), "{method} {target}");
    }
    for (method, target) in operations_that_need(Needs::Account) {
        let body = body.replace(r#""invitation":"x","#, "");
        let reply = backend.ask_as(&guest, method, &target, &body);
        assert_eq!((reply.status, &*reply.reason()), (401, "account_required"), "{method} {target}");
    }
    let admin_operations = operations_that_need(Needs::Admin);
    assert!(admin_operations.len() > 8);
    for (method, target) in admin_operations {
        let reply = backend.ask_as(&guest, method, &target, "{}");
        assert_eq!((reply.status, &*reply.reason()), (403, "not_admin"), "{method} {target}");
    }
}

#[test]
fn the_reference_lists_every_operation() {
    let page = include_str!("../../static/docs/http.md");
    for route in ROUTES.iter().filter(|route| route.path != PANIC_PATH) {
        for operation in route.operations {
            let row = format!("| `{} {}", operation.method, route.path);
            let is_there = page
                .lines()
                .any(|line| line.strip_prefix(&row).is_some_and(|rest| rest.starts_with(['`', '?', ' ', '['])));
            assert!(is_there, "static/docs/http.md should have a row that begins with {row}");
        }
    }
}

#[test]
fn the_reference_is_served_as_pages() {
    let backend = Backend::start();
    let index = backend.get("/docs/");
    assert_eq!((index.status, index.header("Content-Type")), (200, Some("text/html; charset=utf-8")));
    let reply = backend.get("/docs");
    assert_eq!((reply.status, reply.header("Location")), (308, Some("docs/")));
    let mut links: Vec<&str> =
        index.text().split("<a href=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    links.retain(|link| !link.starts_with("http") && !link.starts_with("../") && *link != "./");
    assert!(links.len() > 9, "{links:?}");
    for link in links {
        let (page, anchor) = link.split_once('#').unwrap_or((link, ""));
        let reply = backend.get(&format!("/docs/{page}"));
        assert_eq!(reply.status, 200, "{link}");
        assert!(anchor.is_empty() || reply.text().contains(&format!("id=\"{anchor}\"")), "{link}");
    }
    for missing in ["/docs/none", "/docs/index.html/", "/docs/../index.html"] {
        assert_eq!(backend.get(missing).status, 404, "{missing}");
    }
}

#[test]
fn reads_send_the_hub_no_command() {
    let mut backend = Backend::with_tea();
    let (admin, (eva, token)) = (backend.admin("ada"), backend.guest("eva"));
    let _member = backend.join("tea", eva, "eva");
    let commands = backend.divert();
    let id = eva.to_string();
    for (target, part) in [
        (MESSAGES, r#""content":"first""#),
        ("/api/rooms", r#"{"data":[{"id":"tea","name":"tea","client_count":1,"seq":1}]}"#),
        (
            "/api/rooms/tea",
            &*format!(
                r#""client_count":1,"seq":1,"clients":[{{"id":"{id}","username":"eva","role":"guest","bot":false}}]"#
            ),
        ),
        ("/api/session", &*format!(r#""id":"{id}""#)),
        ("/api/sessions", r#""current":true"#),
        ("/api/about", r#""accounts":"optional""#),
        ("/metrics", "adda_"),
        ("/", "<!doctype html>"),
    ] {
        let reply = backend.ask_as(&token, "GET", target, "");
        assert_eq!(reply.status, 200, "{target}");
        assert!(reply.text().contains(part), "{target}: {}", reply.text());
    }
    for target in get_targets() {
        // There is no such message.
        let status = if target.contains("/messages/") { 404 } else { 200 };
        assert_eq!(backend.ask_as(&admin, "GET", &target, "").status, status, "{target}");
    }
    assert!(commands.is_empty());
}

#[test]
fn a_view_of_memory_does_not_deadlock_the_store() {
    let backend = Arc::new(Backend::with_tea());
    let (done, finished) = crossbeam_channel::bounded(1);
    let reading = Arc::clone(&backend);
    // On its own thread, because a deadlock would never end.
    thread::spawn(move || {
        let proposing = reading.context.reader.view(|view| {
            let backend = Arc::clone(&reading);
            let key = crate::auth::guest_token::GuestKey::from_bytes([7; 32]);
            let proposing =
                thread::spawn(move || backend.context.hub.change(By::Operator, Change::RotateGuestKey { key }));
            // Meanwhile the store begins to wait for the end of the view.
            let until = Instant::now() + Duration::from_millis(100);
            while Instant::now() < until {
                assert_eq!(view.head(&RoomId::parse("tea").unwrap())?.0, 1);
                thread::yield_now();
            }
            Ok::<_, store::ReadError>(proposing)
        });
        proposing.unwrap().join().unwrap().unwrap();
        done.send(()).unwrap();
    });
    finished.recv_timeout(FRAME_WAIT).expect("the view and the store wait for each other");
}

#[test]
fn requests_are_refused_if_the_hub_takes_no_commands() {
    let mut backend = Backend::with_tea();
    let admin = backend.admin("ada");
    drop(backend.divert());
    for (method, target, body) in [
        ("GET", "/healthz", ""),
        ("POST", MESSAGES, r#"{"content":"hi"}"#),
        ("PATCH", "/api/rooms/tea", r#"{"topic":"x"}"#),
        ("POST", "/api/announcements", r#"{"content":"hi"}"#),
        ("DELETE", "/api/session", ""),
    ] {
        let reply = backend.ask_as(&admin, method, target, body);
        assert_eq!((reply.status, &*reply.reason()), (503, "busy"), "{method} {target}");
        assert_eq!(reply.header("Retry-After"), Some("1"), "{method} {target}");
        assert_eq!(reply.parsed()["code"], "busy");
    }
}

#[test]
fn a_lost_answer_leaves_the_outcome_unknown() {
    let mut backend = Backend::with_tea();
    let commands = backend.divert();
    thread::scope(|scope| {
        let asking = scope.spawn(|| backend.ask("POST", MESSAGES, &[TEXT], "hi"));
        // Dropping the command drops the sender of its answer.
        drop(commands.recv_timeout(CHANGE_WAIT).unwrap());
        let reply = asking.join().unwrap();
        assert_eq!((reply.status, &*reply.reason()), (504, "outcome_unknown"));
        assert_eq!((reply.parsed()["code"].as_str(), reply.header("Retry-After")), (Some("busy"), None));
    });
}

#[test]
fn each_path_has_its_methods() {
    let backend = Backend::with_tea();
    let ask = |method: &str, target: &str| backend.ask(method, target, &[], "");
    for (target, public) in [
        ("/", false),
        ("/metrics", false),
        ("/healthz", true),
        ("/api/about", true),
        ("/api/rooms", true),
        ("/api/rooms/tea", true),
    ] {
        for (method, status) in
            [("GET", 200), ("HEAD", 200), ("OPTIONS", 204), ("POST", 405), ("get", 405), ("TRACE", 405)]
        {
            let reply = ask(method, target);
            assert_eq!(reply.status, status, "{method} {target}");
            let expected = (public && status != 405).then_some("*");
            assert_eq!(reply.header("Access-Control-Allow-Origin"), expected, "{target}");
            let methods =
                if target == "/api/rooms/tea" { "GET, HEAD, PATCH, DELETE, OPTIONS" } else { "GET, HEAD, OPTIONS" };
            assert_eq!(reply.header("Allow"), (status > 200).then_some(methods), "{method} {target}");
        }
        let methods = ask("OPTIONS", target).header("Access-Control-Allow-Methods").map(str::to_string);
        assert_eq!(methods.is_some(), public, "{target}");
    }
    assert_eq!(ask("OPTIONS", "*").status, 204);
    assert_eq!(ask("OPTIONS", "*").header("Allow"), Some("GET, HEAD, PATCH, DELETE, POST, PUT, OPTIONS"));
}

#[test]
fn a_foreign_origin_may_read_public_paths_and_write_nothing() {
    let backend = Backend::with_tea();
    let own = [("Host", "chat.example"), ("Origin", "https://chat.example")];
    let foreign = [("Host", "chat.example"), ("Origin", "https://evil.example")];
    let friend = [("Host", "chat.example"), ("Origin", "https://friend.example")];
    let ask = |method, target, fields: &[(&str, &str)]| {
        let reply = backend.ask(method, target, fields, "");
        let shared_with = reply.header("Access-Control-Allow-Origin").map(str::to_owned);
        let methods = reply.header("Access-Control-Allow-Methods").map(str::to_owned);
        (reply.status, shared_with, methods)
    };
    let given = |text: &str| Some(text.to_owned());
    for method in ["POST", "PUT", "PATCH", "DELETE", "get", "TRACE"] {
        for target in [MESSAGES, "/api/rooms", "/", "/none"] {
            assert_eq!(ask(method, target, &foreign), (403, None, None), "{method} {target}");
            assert_ne!(ask(method, target, &own).0, 403, "{method} {target}");
            assert_ne!(ask(method, target, &[]).0, 403, "{method} {target}");
        }
    }
    let twice = [own[0], own[1], own[1]];
    assert_eq!(ask("POST", MESSAGES, &twice).0, 403);
    let plain_page = [("Host", "chat.example"), ("Origin", "http://chat.example"), (SECURE_HEADER, "1")];
    assert_eq!(ask("POST", MESSAGES, &plain_page).0, 403, "it came by TLS, and the page did not");
    assert_eq!(ask("GET", MESSAGES, &foreign), (200, given("*"), None));
    assert_eq!(ask("GET", "/metrics", &foreign).1, None);
    // The status is 415 because there is no body. The request was not refused by its origin, and the page can read the
    // response.
    assert_eq!(ask("POST", MESSAGES, &friend), (415, given("https://friend.example"), None));
    assert_eq!(ask("POST", MESSAGES, &own), (415, None, None));
    let preflight = |page: [(&str, &str); 2], method: &str, target| {
        let (status, shared_with, methods) =
            ask("OPTIONS", target, &[page[0], page[1], ("Access-Control-Request-Method", method)]);
        assert_eq!(status, 204);
        (shared_with, methods)
    };
    assert_eq!(preflight(foreign, "GET", MESSAGES), (given("*"), given("GET, HEAD")));
    for method in ["POST", "PUT", "DELETE", "get"] {
        assert_eq!(preflight(foreign, method, MESSAGES), (None, None), "{method}");
    }
    assert_eq!(preflight(foreign, "GET", "/metrics"), (None, None));
    let (shared_with, methods) = preflight(friend, "POST", MESSAGES);
    assert_eq!((shared_with, methods), (given("https://friend.example"), given("GET, HEAD, POST, OPTIONS")));
}

#[test]
fn other_paths_are_not_found() {
    let backend = Backend::with_tea();
    for target in
        ["/none", "/api", "/api/rooms/", "/api/rooms/a/b", "/api/rooms/tea/", "/healthz/", "//", "/static/index.html"]
    {
        for method in ["GET", "POST", "OPTIONS"] {
            let reply = backend.ask(method, target, &[], "");
            assert_eq!(reply.status, 404, "{target}");
            let body = r#"{"error":"Not found","code":"not_found","reason":"no_such_path"}"#;
            assert_eq!(reply.text(), body, "{target}");
        }
    }
}

#[test]
fn metrics_are_in_the_text_format() {
    let backend = Backend::start();
    let reply = backend.get("/metrics");
    assert_eq!(reply.header("Content-Type"), Some("text/plain; version=0.0.4"));
    assert!(reply.body.starts_with(b"# HELP adda_"));
    assert_eq!(backend.get("/healthz").body, &b"ok\n"[..]);
}

fn exchange(endpoint: &Endpoint, target: &str) -> String {
    use std::io::Write;
    let mut stream = endpoint.connect().unwrap();
    write!(stream, "GET {target} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_panic_fails_only_its_own_request() {
    let backend = Backend::start();
    let http = backend.serve(&backend.context.metrics);
    for _ in 0..2 * WORKERS {
        let answer = exchange(&http.endpoint(), PANIC_PATH);
        assert!(answer.starts_with("HTTP/1.0 500 "), "{answer}");
        assert!(answer.ends_with(r#""code":"internal","reason":"internal"}"#), "{answer}");
    }
    assert!(exchange(&http.endpoint(), "/healthz").ends_with("\r\n\r\nok\n"));
}

#[test]
fn the_socket_is_private_and_is_removed_with_its_server() {
    use std::os::unix::fs::PermissionsExt;
    let backend = Backend::start();
    let http = backend.serve(&backend.context.metrics);
    let endpoint = http.endpoint();
    let path = endpoint.0.listening().as_ref().unwrap().path.clone();
    let directory = path.parent().unwrap();
    assert_eq!(fs::metadata(directory).unwrap().permissions().mode() & 0o777, 0o700);
    drop(http);
    assert!(!directory.exists());
    assert_eq!(endpoint.connect().unwrap_err().kind(), io::ErrorKind::NotConnected);
}

#[test]
fn a_lost_socket_is_replaced() {
    let backend = Backend::start();
    let http = backend.serve(&backend.context.metrics);
    let endpoint = http.endpoint();
    for loss in ["file", "listener", "file"] {
        let listening = endpoint.0.listening().clone().unwrap();
        match loss {
            "file" => fs::remove_dir_all(listening.path.parent().unwrap()).unwrap(),
            _ => rustix::net::shutdown(&listening.listener, rustix::net::Shutdown::Both).unwrap(),
        }
        drop(listening);
        for _ in 0..2 * WORKERS {
            assert!(exchange(&endpoint, "/healthz").ends_with("ok\n"), "{loss}");
        }
    }
}

#[test]
fn an_account_that_logs_in_too_often_waits() {
    let backend = Backend::start();
    let (name, other) = (Username::parse("ana").unwrap(), Username::parse("ben").unwrap());
    {
        let mut attempts = backend.context.attempts.lock().unwrap();
        let login = Login { name: &name, address: Ipv4Addr::UNSPECIFIED.into(), device: None };
        for _ in 0..SUCCESSES_PER_ACCOUNT {
            let attempt = attempts.login(login, Instant::now()).unwrap();
            attempts.succeeded(attempt);
        }
    }
    let log_in = |name: &Username| {
        let body = format!(r#"{{"username":"{}","password":"correct horse battery"}}"#, name.as_str());
        backend.ask("POST", "/api/session", &[JSON], &body)
    };
    let refused = log_in(&name);
    assert_eq!((refused.status, refused.reason), (429, Some(Reason::RateLimited)), "{}", refused.text());
    let wait = refused.headers.iter().find(|(name, _)| *name == "Retry-After").map(|(_, value)| value.parse().unwrap());
    assert!(wait.is_some_and(|seconds: u64| (1..=61).contains(&seconds)), "{wait:?}");
    assert!(log_in(&other).later.is_some(), "its password is compared");
}

#[test]
fn the_socket_of_a_killed_server_is_removed() {
    let base = tempfile::tempdir().unwrap();
    let running = Listening::start_in(base.path()).unwrap();
    let killed = base.path().join(format!("{DIRECTORY_PREFIX}killed"));
    let starting = base.path().join(format!("{DIRECTORY_PREFIX}starting"));
    let other = base.path().join("other");
    for directory in [&killed, &starting, &other] {
        fs::create_dir(directory).unwrap();
    }
    drop(UnixListener::bind(killed.join(SOCKET_NAME)).unwrap());
    drop(UnixListener::bind(other.join(SOCKET_NAME)).unwrap());
    let _next = Listening::start_in(base.path()).unwrap();
    assert!(!killed.exists());
    assert!(running.path.exists() && starting.exists() && other.exists());
}

#[test]
fn a_directory_that_accepts_no_socket_is_an_error() {
    let error = Listening::start_in(Path::new("/nonexistent")).err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(Listening::start_in(Path::new("/proc")).is_err());
}

#[test]
fn a_path_may_be_longer_than_the_address_of_a_socket() {
    let base = tempfile::tempdir().unwrap();
    let deep = base.path().join("x".repeat(120));
    fs::create_dir(&deep).unwrap();
    let running = Listening::start_in(&deep).unwrap();
    UnixStream::connect(&running.path).unwrap();
    let killed = deep.join(format!("{DIRECTORY_PREFIX}killed"));
    fs::create_dir(&killed).unwrap();
    let handle = fs::File::open(&killed).unwrap();
    drop(UnixListener::bind(format!("/proc/self/fd/{}/{SOCKET_NAME}", handle.as_raw_fd())).unwrap());
    let next = Listening::start_in(&deep).unwrap();
    assert!(!killed.exists());
    drop((running, next));
    assert_eq!(fs::read_dir(&deep).unwrap().count(), 0);
}
