//! The routes and the workers, without a hub and without a network.

use std::sync::LazyLock;

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;

use uuid::Uuid;

use super::socket::{DIRECTORY_PREFIX, SOCKET_NAME};
use super::*;
use crate::hub::{Busy, HistoryError, HistoryFrom, Order, Outcome, Post, RoomDetail, RoomSummary};
use crate::model::{FrameId, Nonce, Person, RoomId, Seq, Timestamp, UserId, Username};
use crate::protocol::{ErrorCode, Rejected};
use crate::role::Accounts;
use crate::store::accounts::{NewSession, SessionKind, begin_session};
use crate::store::{Registry, Stored, TokenHash};

pub(crate) static DOOR: LazyLock<Door> = LazyLock::new(|| {
    let registry = Registry::in_memory().unwrap();
    let session = NewSession {
        token_hash: TokenHash::of("good"),
        user: UserId(Uuid::from_u128(7)),
        kind: SessionKind::Guest,
        username: None,
        label: "",
        expires_ms: None,
    };
    let begin = move |connection: &_| Ok(begin_session(connection, &session, &Timestamp::now())?);
    registry.change(begin).unwrap();
    Door::new(registry, Accounts::Optional)
});

/// Rooms without a hub.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rooms {
    names: Vec<RoomId>,
    is_busy: bool,
}

impl Rooms {
    pub(crate) fn of(names: &[&str]) -> Self {
        let names = names.iter().map(|name| RoomId::parse(name).unwrap()).collect();
        Self { names, is_busy: false }
    }

    pub(crate) fn busy() -> Self {
        Self { is_busy: true, ..Self::default() }
    }

    fn summary(id: &RoomId) -> RoomSummary {
        RoomSummary { id: id.clone(), name: id.to_string(), client_count: 2, seq: Seq(7) }
    }
}

impl Directory for Rooms {
    fn rooms(&self, after: Option<&RoomId>, limit: usize) -> Result<Vec<RoomSummary>, Busy> {
        if self.is_busy {
            return Err(Busy);
        }
        let behind = self.names.iter().filter(|id| after.is_none_or(|after| *id > after));
        Ok(behind.take(limit).map(Self::summary).collect())
    }

    fn room(&self, id: &RoomId) -> Result<Option<RoomDetail>, Busy> {
        assert_ne!(id.as_str(), "panic", "as the test wants it");
        if self.is_busy {
            return Err(Busy);
        }
        Ok(self.names.contains(id).then(|| RoomDetail {
            summary: Self::summary(id),
            clients: vec![Person { id: UserId(Uuid::nil()), username: Username::parse("Ana").unwrap() }],
        }))
    }

    fn messages(
        &self,
        id: &RoomId,
        _: HistoryFrom,
        limit: usize,
        words: Option<&str>,
    ) -> Result<Option<(Vec<Stored>, bool)>, HistoryError> {
        let frame = |seq: u64| Stored {
            id: FrameId(Uuid::from_u128(u128::from(seq))),
            seq: Seq(seq),
            json: format!(r#"{{"seq":{seq},"q":"{}"}}"#, words.unwrap_or("-")).into_bytes().into(),
        };
        Ok(self.room(id)?.map(|_| ((1..=limit.min(3) as u64).map(frame).collect(), limit < 3)))
    }

    fn post(&self, post: Post) -> Result<Outcome, Busy> {
        if self.is_busy {
            return Err(Busy);
        }
        let nonce = post.nonce.as_ref().map_or("-", Nonce::as_str);
        let json = format!(r#"{{"by":"{}","says":"{}","nonce":"{nonce}"}}"#, post.author.username, post.body.content());
        let json: Arc<[u8]> = json.into_bytes().into();
        Ok(match nonce {
            "again" => Outcome::Duplicate(json),
            "taken" => Outcome::Refused(Rejected::new(ErrorCode::Conflict, "taken", post.nonce)),
            _ => Outcome::Stored(json),
        })
    }

    fn order(&self, _: Order) -> Result<(), Busy> {
        self.ordered()
    }

    fn networks_of(&self, _: UserId) -> Result<Vec<IpAddr>, Busy> {
        self.ordered().map(|()| Vec::new())
    }
}

impl Rooms {
    /// Nobody is there whom an order could reach.
    fn ordered(&self) -> Result<(), Busy> {
        if self.is_busy { Err(Busy) } else { Ok(()) }
    }
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(field, _)| *field == name)?;
        Some(&header.1)
    }
}

pub(crate) fn headers(fields: &[(&str, &str)]) -> Vec<tiny_http::Header> {
    let header = |(name, value): &(&str, &str)| tiny_http::Header::from_bytes(*name, *value).unwrap();
    fields.iter().map(header).collect()
}

pub(crate) fn request<'a>(target: &'a str, headers: &'a [tiny_http::Header], rooms: &'a Rooms) -> Request<'a> {
    static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::default);
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    static POLICY: LazyLock<Policy> = LazyLock::new(|| {
        let limits = Limits { rate_per_s: 0, ..Limits::default() };
        let origins = vec!["https://friend.example".parse().unwrap()];
        Policy { origins, paces: Arc::new(Paces::new(&limits)), limits, ..Policy::default() }
    });
    static ATTEMPTS: LazyLock<Arc<Mutex<Attempts>>> = LazyLock::new(Arc::default);
    static TURNS: LazyLock<Turns> = LazyLock::new(Turns::default);
    let (policy, attempts, metrics) = (&*POLICY, &*ATTEMPTS, &*METRICS);
    Request {
        path,
        query,
        headers,
        body: &[],
        context: Context { directory: rooms, door: &DOOR, policy, attempts, turns: &TURNS, metrics },
    }
}

fn ask(method: &str, target: &str) -> Reply {
    dispatch(method, &request(target, &[], &Rooms::of(&["tea"])))
}

fn posted(target: &str, fields: &[(&str, &str)], body: &str) -> (u16, String) {
    let (rooms, headers) = (Rooms::of(&["tea"]), headers(fields));
    let reply = dispatch("POST", &Request { body: body.as_bytes(), ..request(target, &headers, &rooms) });
    (reply.status, String::from_utf8(reply.body.into_owned()).unwrap())
}

#[test]
fn a_message_is_posted_as_json_or_as_text() {
    const PATH: &str = "/api/rooms/tea/messages";
    const JSON: (&str, &str) = ("Content-Type", "application/json");
    const TEXT: (&str, &str) = ("Content-Type", "text/plain; charset=utf-8");
    for (target, fields, body, status, part) in [
        (
            PATH,
            &[JSON][..],
            r#"{"content":"hi","username":"ana"}"#,
            201,
            r#"{"data":{"by":"ana","says":"hi","nonce":"-"}}"#,
        ),
        (PATH, &[TEXT], "{as typed", 201, r#""by":"Anonymous","says":"{as typed""#),
        (PATH, &[TEXT, ("Idempotency-Key", "k1")], "hi", 201, r#""nonce":"k1""#),
        ("/api/rooms/tea/messages?username=bob+b", &[TEXT], "hi", 201, r#""by":"bob b""#),
        (PATH, &[JSON], r#"{"content":"hi","nonce":"again"}"#, 200, r#""nonce":"again""#),
        (PATH, &[JSON], r#"{"content":"hi","nonce":"taken"}"#, 409, "conflict"),
        (PATH, &[TEXT, ("Authorization", "Bearer good")], "hi", 201, "says"),
        (PATH, &[TEXT, ("Authorization", "Bearer bad")], "hi", 401, "nobody's"),
        (PATH, &[TEXT, ("Authorization", "Basic x")], "hi", 401, "nobody's"),
        (PATH, &[], "hi", 415, "application/json"),
        (PATH, &[JSON], "hi", 400, "bad_json"),
        (PATH, &[JSON], r#"{"content":""}"#, 400, "bad_json"),
        (PATH, &[JSON], r#"{"type":"join","room_id":"x"}"#, 400, "bad_type"),
        (PATH, &[TEXT, ("Host", "a"), ("Origin", "http://b")], "hi", 403, "forbidden"),
        (PATH, &[TEXT, ("Host", "a"), ("Origin", "http://a")], "hi", 201, "says"),
        ("/api/rooms/dm:x/messages", &[TEXT], "hi", 404, "not_found"),
        ("/api/rooms/tea/messages?username=%E2%80%AEx", &[TEXT], "hi", 400, "bad_name"),
    ] {
        let (found, text) = posted(target, fields, body);
        assert_eq!(found, status, "{target} {fields:?} {body}: {text}");
        assert!(text.contains(part), "{text} has no {part}");
    }
    let long = "x".repeat(9_000);
    assert_eq!(posted(PATH, &[TEXT], &long).0, 413);
}

#[test]
fn history_says_how_to_go_on() {
    let body = |target: &str| String::from_utf8(ask("GET", target).body.into_owned()).unwrap();
    let page = body("/api/rooms/tea/messages?limit=2&q=a%20b");
    assert!(
        page.starts_with(
            r#"{"data":[{"seq":1,"q":"a b"},{"seq":2,"q":"a b"}],"next":"00000000-0000-0000-0000-000000000001"}"#
        ),
        "{page}"
    );
    let on = body("/api/rooms/tea/messages?limit=2&after=00000000-0000-0000-0000-000000000001");
    assert!(on.ends_with(r#""next":"00000000-0000-0000-0000-000000000002"}"#), "{on}");
    assert!(!body("/api/rooms/tea/messages?limit=200").contains("next"));
    for bad in [
        "limit=0",
        "before=x",
        "before=00000000-0000-0000-0000-000000000001&after=00000000-0000-0000-0000-000000000001",
    ] {
        assert_eq!(ask("GET", &format!("/api/rooms/tea/messages?{bad}")).status, 400, "{bad}");
    }
    assert_eq!(ask("GET", "/api/rooms/none/messages").status, 404);
}

#[test]
fn each_path_has_its_methods() {
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
            let methods = if target == "/api/rooms/tea" { "GET, HEAD, PATCH, OPTIONS" } else { "GET, HEAD, OPTIONS" };
            assert_eq!(reply.header("Allow"), (status > 200).then_some(methods), "{method} {target}");
        }
        let methods = ask("OPTIONS", target).header("Access-Control-Allow-Methods").map(str::to_string);
        assert_eq!(methods.is_some(), public, "{target}");
    }
    assert_eq!(ask("OPTIONS", "*").status, 204);
    assert_eq!(ask("OPTIONS", "*").header("Allow"), Some("GET, HEAD, PATCH, POST, DELETE, PUT, OPTIONS"));
}

#[test]
fn a_foreign_page_may_read_what_is_public_and_write_nothing() {
    const MESSAGES: &str = "/api/rooms/tea/messages";
    let own = [("Host", "chat.example"), ("Origin", "https://chat.example")];
    let foreign = [("Host", "chat.example"), ("Origin", "https://evil.example")];
    let friend = [("Host", "chat.example"), ("Origin", "https://friend.example")];
    let ask = |method, target, fields: &[(&str, &str)]| {
        let (rooms, headers) = (Rooms::of(&["tea"]), headers(fields));
        let reply = dispatch(method, &request(target, &headers, &rooms));
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
    // 415: there is no body; but it got so far, and the page can read that.
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
    for target in
        ["/none", "/api", "/api/rooms/", "/api/rooms/a/b", "/api/rooms/tea/", "/healthz/", "//", "/static/index.html"]
    {
        for method in ["GET", "POST", "OPTIONS"] {
            let reply = ask(method, target);
            assert_eq!(reply.status, 404, "{target}");
            assert_eq!(reply.body, &br#"{"error":"Not found","code":"not_found"}"#[..]);
        }
    }
}

#[test]
fn metrics_are_in_the_text_format() {
    let reply = ask("GET", "/metrics");
    assert_eq!(reply.header("Content-Type"), Some("text/plain; version=0.0.4"));
    assert!(reply.body.starts_with(b"# HELP adda_"));
    assert_eq!(ask("GET", "/healthz").body, &b"ok\n"[..]);
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
fn a_panic_costs_its_own_request_only() {
    let http =
        Server::start(Rooms::default(), DOOR.clone(), Turns::default(), Policy::default(), Arc::default()).unwrap();
    for _ in 0..2 * WORKERS {
        let answer = exchange(&http.endpoint(), "/api/rooms/panic");
        assert!(answer.starts_with("HTTP/1.0 500 "), "{answer}");
        assert!(answer.ends_with(r#""code":"internal"}"#), "{answer}");
    }
    assert!(exchange(&http.endpoint(), "/healthz").ends_with("\r\n\r\nok\n"));
}

#[test]
fn the_socket_is_private_and_goes_with_its_server() {
    use std::os::unix::fs::PermissionsExt;
    let http =
        Server::start(Rooms::default(), DOOR.clone(), Turns::default(), Policy::default(), Arc::default()).unwrap();
    let endpoint = http.endpoint();
    let path = endpoint.0.listening().as_ref().unwrap().path.clone();
    let directory = path.parent().unwrap();
    assert_eq!(fs::metadata(directory).unwrap().permissions().mode() & 0o777, 0o700);
    drop(http);
    assert!(!directory.exists());
    assert_eq!(endpoint.connect().unwrap_err().kind(), io::ErrorKind::NotConnected);
}

#[test]
fn a_lost_socket_is_made_anew() {
    let http =
        Server::start(Rooms::default(), DOOR.clone(), Turns::default(), Policy::default(), Arc::default()).unwrap();
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
fn what_a_killed_server_left_is_swept_away() {
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
fn a_place_that_cannot_be_is_named() {
    let error = Listening::start_in(Path::new("/nonexistent")).err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    let base = std::env::temp_dir().join("x".repeat(120));
    let _ = fs::create_dir(&base);
    let error = Listening::start_in(&base).err().unwrap();
    let left = fs::read_dir(&base).unwrap().count();
    fs::remove_dir(&base).unwrap();
    assert!(error.to_string().contains("SUN_LEN"), "{error}");
    assert_eq!(left, 0);
}
