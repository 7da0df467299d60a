//! The handshake of a WebSocket (RFC 6455, section 4.2): the request, the client, and the answer.

use std::borrow::Cow;
use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use tungstenite::handshake::derive_accept_key;
use uuid::Uuid;

use super::{Context, Decoder};
use crate::auth::credential::Credential;
use crate::auth::guest_token::GuestToken;
use crate::authenticator::Identity;
use crate::config::Origin;
use crate::http1::forwarded::Client;
use crate::http1::head::{Framing, Head, Version, query_value, unescape};
use crate::http1::origin::foreign_origin;
use crate::http1::response::{self, Problem};
use crate::hub::{Arrival, Connect, Sink};
use crate::limits::{HISTORY_MAX, Limits};
use crate::metrics::Refusal;
use crate::model::reason::{Reason, Rejection};
use crate::model::{ConnectionId, ROOM_DEFAULT, RoomId, USERNAME_DEFAULT, UserId, Username};
use crate::protocol::{After, Replay};
use crate::store::Reader;
use crate::store::entry::Proof;
use crate::wire::Encoding;

/// The answer to a handshake, whose key has 28 characters.
const ACCEPTED_BYTES_MAX: usize = 160;

/// The parameters of a handshake request, checked.
#[derive(Debug, PartialEq, Eq)]
struct UpgradeRequest {
    room: RoomId,
    username: Username,
    replay: Replay,
    token: Option<String>,
    accept_key: String,
}

/// The reason why a request does not become a WebSocket.
#[derive(Debug, PartialEq, Eq)]
struct Refused {
    rejection: Rejection,
    headers: &'static [(&'static str, &'static str)],
    /// The metric that counts it.
    counted: Refusal,
}

impl Refused {
    fn new(rejection: impl Into<Rejection>, counted: Refusal) -> Box<Self> {
        Box::new(Self { rejection: rejection.into(), headers: &[], counted })
    }

    /// Refuses a request that asks for no WebSocket, or for one that the server can't provide.
    fn upgrade(reason: Reason, sentence: impl Into<Cow<'static, str>>) -> Box<Self> {
        Self::new(reason.because(sentence), Refusal::Upgrade)
    }

    fn with_headers(mut self: Box<Self>, headers: &'static [(&'static str, &'static str)]) -> Box<Self> {
        self.headers = headers;
        self
    }
}

/// The handshake, in stack frames of its own. The stack that a step needs is not kept while the session lives, and it
/// is not added to that of another step.
#[inline(never)]
pub(super) fn open<'a>(
    socket: &Arc<TcpStream>,
    head: Head,
    connection: ConnectionId,
    client: Client,
    context: &'a Context,
) -> Option<(Box<Connect>, Box<dyn Decoder + 'a>)> {
    match ask(socket, &head, connection, client, context) {
        Ok((connect, accept_key)) => {
            accept(socket, &accept_key).ok()?;
            let rate_limiter =
                context.rate_limiters.of_user(connect.arrival.principal.user(), client.address, Instant::now());
            Some((connect, (context.decoder)(&context.limits, rate_limiter)))
        }
        Err(refused) => {
            refuse(socket, &head, &refused, context);
            None
        }
    }
}

/// Checks the request. Returns the connection for the hub, and the accept key of the response.
fn ask(
    socket: &Arc<TcpStream>,
    head: &Head,
    connection: ConnectionId,
    client: Client,
    context: &Context,
) -> Result<(Box<Connect>, String), Box<Refused>> {
    let request = upgrade_request(head, client, &context.origins, &context.limits)?;
    // The rate limit comes before any lookup. At 20 handshakes per second or more, one second is long enough to wait.
    context.rate_limiters.take_handshake(client.address, Instant::now()).map_err(|_| {
        Refused::new(Reason::TooManyConnections, Refusal::Handshakes).with_headers(&[("Retry-After", "1")])
    })?;
    let identity = identify(head, &request, client, context)?;
    Ok(connect(socket, connection, *request, *identity, context.authenticator.reader()))
}

/// Makes the member for the hub. A new guest gets a token, with which it can reconnect as the same user.
#[inline(never)]
fn connect(
    socket: &Arc<TcpStream>,
    connection: ConnectionId,
    request: UpgradeRequest,
    mut identity: Identity,
    reader: &Reader,
) -> (Box<Connect>, String) {
    let UpgradeRequest { room, replay, accept_key, .. } = request;
    let (stranger, token) = match identity.user {
        Some(user) => (user, None),
        None => {
            let (user, issued_ms) = (UserId(Uuid::new_v4()), reader.moment().clock_ms);
            identity.proof = Proof::SignedGuest { issued_ms };
            let token = reader.policy().guest_key.sign(&GuestToken { user, issued_ms });
            (user, Some(token.into_text()))
        }
    };
    let (principal, skeletons) = (identity.principal(stranger), identity.skeletons);
    let arrival = Arrival { connection, principal, skeletons, room, replay, token };
    let (sink, encoding) = (Sink::Socket(Arc::clone(socket)), Encoding::Json);
    (Box::new(Connect { sink, encoding, arrival }), accept_key)
}

#[inline(never)]
fn accept(mut socket: &TcpStream, accept_key: &str) -> io::Result<()> {
    // On the stack: the allocator would keep a piece of the heap for this thread.
    let mut response = io::Cursor::new([0; ACCEPTED_BYTES_MAX]);
    write!(
        response,
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept_key}\r\n\r\n"
    )?;
    let length = response.position() as usize;
    socket.write_all(&response.get_ref()[..length])
}

#[inline(never)]
fn refuse(socket: &TcpStream, head: &Head, refused: &Refused, context: &Context) {
    context.metrics.refused(refused.counted);
    let problem = Problem::of(&refused.rejection);
    // An OPTIONS request asks what is allowed here (RFC 9110, section 9.3.7); it is not refused.
    let is_question = &*head.method == "OPTIONS" && problem.status == 405;
    let status = if is_question { 204 } else { problem.status };
    let problem = Problem { status, headers: refused.headers, head_only: &*head.method == "HEAD", ..problem };
    response::refuse(socket, &problem);
}

/// Authenticates the client.
#[inline(never)]
fn identify(
    head: &Head,
    request: &UpgradeRequest,
    client: Client,
    context: &Context,
) -> Result<Box<Identity>, Box<Refused>> {
    let Context { authenticator, cookie, .. } = context;
    let in_cookie = || cookie.token(|| head.headers_named("Cookie"), authenticator.reader().moment().clock_ms);
    let shown = Credential::of(head.header("Authorization"), request.token.as_deref(), in_cookie)
        .map_err(|error| Refused::upgrade(Reason::BadQuery, error.to_string()))?;
    let admitted = authenticator.admit(shown.token(), &request.username, client.address, &request.room);
    admitted.map(Box::new).map_err(denied)
}

#[inline(never)]
fn denied(reason: Reason) -> Box<Refused> {
    match reason.status() {
        503 => Refused::new(reason, Refusal::Busy).with_headers(&[("Retry-After", "1")]),
        401 => Refused::new(reason, Refusal::Authentication).with_headers(&[("WWW-Authenticate", "Bearer")]),
        _ => Refused::new(reason, Refusal::Authentication),
    }
}

/// Reads a request. The checks are in the order in which a client would fix its errors.
#[inline(never)]
fn upgrade_request(
    head: &Head,
    client: Client,
    origins: &[Origin],
    limits: &Limits,
) -> Result<Box<UpgradeRequest>, Box<Refused>> {
    if &*head.method != "GET" && &*head.method != "HEAD" {
        return Err(Refused::upgrade(Reason::MethodNotAllowed, "a WebSocket handshake must use GET")
            .with_headers(&[("Allow", "GET, HEAD, OPTIONS")]));
    }
    let has_token = |name: &str, token: &str| {
        let lists = head.headers_named(name).filter_map(|value| std::str::from_utf8(value).ok());
        lists.flat_map(|list| list.split(',')).any(|one| one.trim().eq_ignore_ascii_case(token))
    };
    let asks = &*head.method == "GET" && head.version == Version::Http11;
    if !asks || !has_token("Connection", "upgrade") || !has_token("Upgrade", "websocket") {
        return Err(Refused::new(Reason::UpgradeRequired, Refusal::Upgrade).with_headers(&[("Upgrade", "websocket")]));
    }
    if head.header("Sec-WebSocket-Version").map(<[u8]>::trim_ascii) != Some(b"13") {
        let sentence = "unsupported WebSocket version; use 13";
        return Err(Refused::upgrade(Reason::UpgradeRequired, sentence)
            .with_headers(&[("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]));
    }
    let (room, username) = names(head)?;
    let malformed = |sentence: &'static str| Err(Refused::upgrade(Reason::MalformedRequest, sentence));
    let mut keys = head.headers_named("Sec-WebSocket-Key");
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return malformed("a WebSocket handshake must have one Sec-WebSocket-Key");
    };
    if !is_key(key) {
        return malformed("Sec-WebSocket-Key must be 16 bytes in base64");
    }
    if !matches!(head.framing, Framing::None | Framing::Length(0)) {
        return malformed("a WebSocket handshake must not have a body");
    }
    if !origin_is_allowed(head, client, origins) {
        let origin = head.header("Origin").map(String::from_utf8_lossy);
        let rejection = foreign_origin(origin.as_deref(), Some(&head.host));
        return Err(Refused::new(rejection, Refusal::Origin));
    }
    let query = |name| head.query().and_then(|query| query_value(query, name)).and_then(Result::ok);
    let query = |name| query(name).filter(|text| !text.is_empty());
    let history = match query("history") {
        None => limits.history_default,
        // A number that does not fit into a `usize` counts as a large one.
        Some(text) if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().unwrap_or(HISTORY_MAX).min(HISTORY_MAX),
        Some(_) => return Err(Refused::upgrade(Reason::BadQuery, "history must be a number")),
    };
    let replay = Replay { history, after: query("after").map(|text| After::parse(&text)) };
    let accept_key = derive_accept_key(key);
    Ok(Box::new(UpgradeRequest { room, username, replay, token: query("token"), accept_key }))
}

/// Reads the room and the username from the path, and what the path lacks from the query.
fn names(head: &Head) -> Result<(RoomId, Username), Box<Refused>> {
    let parts: Vec<&str> = head.path().split('/').skip(2).collect();
    let (room, username) = match parts[..] {
        [] | [""] => (None, None),
        [username] => (None, Some(username)),
        ["chat", room, ""] => (Some(room), None),
        [room, username] if !username.is_empty() => (Some(room), Some(username)),
        _ => {
            let sentence = "no such WebSocket path; use /ws, /ws/NAME, /ws/ROOM/NAME or /ws/chat/ROOM/";
            return Err(Refused::upgrade(Reason::NoSuchPath, sentence));
        }
    };
    let given = |part: Option<&str>, name: &str, default: &str| {
        let text = match part {
            Some(part) => Some(unescape(part).map(Cow::into_owned)),
            None => head.query().and_then(|query| query_value(query, name)),
        };
        text.transpose().map(|text| text.filter(|text| !text.trim().is_empty()).unwrap_or_else(|| default.into()))
    };
    let room = given(room, "room", ROOM_DEFAULT)
        .map_err(|error| Refused::upgrade(Reason::BadRoom, format!("invalid room name: {error}")))?;
    let room = RoomId::parse(&room)
        .map_err(|error| Refused::upgrade(Reason::BadRoom, format!("invalid room name: {error}")))?;
    let username = given(username, "username", USERNAME_DEFAULT)
        .map_err(|error| Refused::upgrade(Reason::BadName, format!("invalid username: {error}")))?;
    let username = Username::parse(&username)
        .map_err(|error| Refused::upgrade(Reason::BadName, format!("invalid username: {error}")))?;
    Ok((room, username))
}

/// 16 bytes in base64 are 24 characters. The last two of them are padding (RFC 6455, section 4.1).
fn is_key(key: &[u8]) -> bool {
    let is_digit = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    key.len() == 24 && key.ends_with(b"==") && key[..22].iter().all(is_digit)
}

/// Whether the origin of a request may connect (RFC 6455, section 10.2).
fn origin_is_allowed(head: &Head, client: Client, origins: &[Origin]) -> bool {
    let mut given = head.headers_named("Origin");
    let origin = given.next().map(|bytes| std::str::from_utf8(bytes).unwrap_or_default());
    given.next().is_none() && Origin::is_allowed(origin, Some(&head.host), client.is_secure, origins)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: Client = Client { address: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), is_secure: false };
    const UPGRADE: &str = "Host: chat.example\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
                           Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

    fn asked(line: &str, fields: &str, origins: &[&str]) -> Result<UpgradeRequest, Refused> {
        let text = format!("{line} HTTP/1.1\r\n{fields}\r\n");
        let (head, _) = crate::http1::head::parse(text.as_bytes()).unwrap().unwrap();
        let origins: Vec<Origin> = origins.iter().map(|origin| origin.parse().unwrap()).collect();
        upgrade_request(&head, CLIENT, &origins, &Limits::default()).map(|request| *request).map_err(|refused| *refused)
    }

    #[test]
    fn every_websocket_url_has_a_room_and_a_username() {
        for (target, room, username) in [
            ("/ws", "general", "Anonymous"),
            ("/ws/", "general", "Anonymous"),
            ("/ws?room=tea&username=ana", "tea", "ana"),
            ("/ws?room=&username=", "general", "Anonymous"),
            ("/ws?username=a+b%20c", "general", "a b c"),
            ("/ws?room=%E0%A6%86%E0%A6%A1%E0%A7%8D%E0%A6%A1%E0%A6%BE", "আড্ডা", "Anonymous"),
            ("/ws/ana", "general", "ana"),
            ("/ws/ana?room=tea&username=bob", "tea", "ana"),
            ("/ws/tea/ana", "tea", "ana"),
            ("/ws/tea/%E0%A6%B0%E0%A6%B9%E0%A6%BF%E0%A6%AE?room=jam", "tea", "রহিম"),
            ("/ws/a%2Fb/a+b", "a/b", "a+b"),
            ("/ws/chat/tea/", "tea", "Anonymous"),
            ("/ws/chat/tea/?username=ana", "tea", "ana"),
            ("/ws/chat/tea", "chat", "tea"),
        ] {
            let request = asked(&format!("GET {target}"), UPGRADE, &[]).unwrap();
            assert_eq!((request.room.as_str(), request.username.as_str()), (room, username), "{target}");
            // RFC 6455, section 1.3.
            assert_eq!(request.accept_key, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        }
    }

    #[test]
    fn history_and_after_are_read() {
        let id = "0192f7a0-0000-7000-8000-000000000001";
        for (query, history, after) in [
            ("", 5, None),
            ("history=0", 0, None),
            ("history=99999999999999999999999", 200, None),
            ("history=&after=", 5, None),
            (&format!("after={id}&history=7"), 7, Some(After::parse(id))),
            ("after=42", 5, Some(After::Unknown)),
        ] {
            let request = asked(&format!("GET /ws?{query}"), UPGRADE, &[]).unwrap();
            assert_eq!(request.replay, Replay { history, after }, "{query}");
        }
    }

    #[test]
    fn a_bad_websocket_request_has_its_status() {
        let without = |field: &str| {
            let fields = UPGRADE.split_inclusive("\r\n").filter(|line| !line.starts_with(field));
            fields.collect::<String>()
        };
        let long = format!("GET /ws/{}", "a".repeat(33));
        for (line, fields, status, code) in [
            ("GET /ws", "Host: x\r\n".to_string(), 426, "upgrade_required"),
            ("HEAD /ws", UPGRADE.into(), 426, "upgrade_required"),
            ("POST /ws", UPGRADE.into(), 405, "method_not_allowed"),
            ("GET /ws", without("Connection"), 426, "upgrade_required"),
            ("GET /ws", without("Upgrade"), 426, "upgrade_required"),
            ("GET /ws", without("Sec-WebSocket-Version"), 426, "upgrade_required"),
            ("GET /ws", without("Sec-WebSocket-Key"), 400, "bad_request"),
            ("GET /ws", UPGRADE.replace("dGhl", "d"), 400, "bad_request"),
            ("GET /ws", UPGRADE.replace("==\r\n", "=A\r\n"), 400, "bad_request"),
            ("GET /ws", format!("{UPGRADE}Content-Length: 1\r\n"), 400, "bad_request"),
            ("GET /ws?history=all", UPGRADE.into(), 400, "bad_request"),
            ("GET /ws/a/b/c", UPGRADE.into(), 404, "not_found"),
            ("GET /ws/tea/ana/", UPGRADE.into(), 404, "not_found"),
            (&long, UPGRADE.into(), 400, "bad_name"),
            ("GET /ws/%ff", UPGRADE.into(), 400, "bad_name"),
            ("GET /ws/%E2%80%AEana", UPGRADE.into(), 400, "bad_name"),
            ("GET /ws?room=dm:a:b", UPGRADE.into(), 400, "bad_room"),
            ("GET /ws/%2/ana", UPGRADE.into(), 400, "bad_room"),
        ] {
            let refused = asked(line, &fields, &[]).unwrap_err();
            let reason = refused.rejection.reason;
            assert_eq!((reason.status(), reason.code().as_str()), (status, code), "{line} {fields}");
        }
    }

    #[test]
    fn a_refusal_has_its_status_code_and_headers() {
        for (reason, status, code, counted, headers) in [
            (Reason::Busy, 503, "busy", Refusal::Busy, &[("Retry-After", "1")][..]),
            (Reason::LoginRequired, 401, "forbidden", Refusal::Authentication, &[("WWW-Authenticate", "Bearer")]),
            (Reason::NameReserved, 403, "bad_name", Refusal::Authentication, &[]),
            (Reason::Banned, 403, "forbidden", Refusal::Authentication, &[]),
            (Reason::NoSuchRoom, 404, "not_found", Refusal::Authentication, &[]),
        ] {
            let refused = denied(reason);
            let problem = Problem::of(&refused.rejection);
            assert_eq!((problem.status, problem.reason.code().as_str()), (status, code), "{reason:?}");
            assert_eq!((problem.reason, problem.sentence), (reason, reason.sentence()));
            assert_eq!((refused.counted, refused.headers), (counted, headers), "{reason:?}");
        }
    }

    #[test]
    fn foreign_origins_are_refused() {
        for (origin, welcome) in [
            ("http://chat.example", true),
            ("https://chat.example", true),
            ("https://friend.example", true),
            ("http://friend.example", false),
            ("http://chat.example:3000", false),
            ("https://evil.example", false),
            ("null", false),
            ("", false),
        ] {
            let fields = format!("{UPGRADE}Origin: {origin}\r\n");
            let asked = asked("GET /ws", &fields, &["https://friend.example"]);
            assert_eq!(asked.is_ok(), welcome, "{origin}");
            assert!(welcome || asked.unwrap_err().rejection.reason == Reason::ForeignOrigin, "{origin}");
        }
        let twice = format!("{UPGRADE}Origin: http://chat.example\r\nOrigin: http://chat.example\r\n");
        let refused = asked("GET /ws", &twice, &[]).unwrap_err();
        assert_eq!((refused.rejection.reason, refused.rejection.reason.status()), (Reason::ForeignOrigin, 403));
    }
}
