//! A WebSocket client that waits with deadlines, and checks the invariants of every frame.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

use super::{DEADLINE, Response, Server, read_response, upgrade_request};

/// The response to the key of [`upgrade_request`] (RFC 6455, section 1.3).
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The next event of a connection.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A text frame, as JSON.
    Frame(Value),
    /// A close frame, with its code if it has one.
    Close(Option<u16>),
    /// The end of the connection without a close frame.
    End,
}

/// A connection after its handshake.
pub struct Ws {
    socket: WebSocket<TcpStream>,
    /// The `welcome` of the room in the URL, if the connection was opened by [`Ws::join`].
    pub welcome: Value,
}

impl Ws {
    /// Opens a WebSocket; returns the response if it is refused.
    pub fn open(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> io::Result<Result<Self, Response>> {
        let mut stream = TcpStream::connect_timeout(&address, DEADLINE)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(DEADLINE))?;
        let written = stream.write_all(upgrade_request(target, headers).as_bytes());
        let response = read_response(&mut stream, DEADLINE)?;
        if response.status != 101 {
            return Ok(Err(response));
        }
        written?;
        assert_eq!(response.header("Sec-WebSocket-Accept"), Some(ACCEPT));
        // The client's own limits must not interfere.
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let socket = WebSocket::from_partially_read(stream, response.body, Role::Client, Some(config));
        let welcome = Value::Null;
        Ok(Ok(Self { socket, welcome }))
    }

    /// Opens a WebSocket, which must be accepted.
    #[track_caller]
    pub fn connect(server: &Server, target: &str) -> Self {
        Self::connect_with(server, target, &[])
    }

    /// Opens a WebSocket with more headers, which must be accepted.
    #[track_caller]
    pub fn connect_with(server: &Server, target: &str, headers: &[(&str, &str)]) -> Self {
        match Self::open(server.addr(), target, headers) {
            Ok(Ok(ws)) => ws,
            Ok(Err(refusal)) => panic!("{target} was refused: {} {:?}", refusal.status, refusal.text()),
            Err(error) => panic!("{target}: {error}"),
        }
    }

    /// Opens a WebSocket, which must be refused.
    #[track_caller]
    pub fn refused(server: &Server, target: &str, headers: &[(&str, &str)]) -> Response {
        match Self::open(server.addr(), target, headers) {
            Ok(Ok(_)) => panic!("{target} was taken"),
            Ok(Err(refusal)) => refusal,
            Err(error) => panic!("{target}: {error}"),
        }
    }

    /// Opens a WebSocket, and reads its `welcome`; a replay follows.
    #[track_caller]
    pub fn join(server: &Server, target: &str) -> Self {
        let mut ws = Self::connect(server, target);
        ws.welcome = ws.expect("welcome");
        ws
    }

    /// The user id of this connection, from its `welcome`.
    #[track_caller]
    pub fn user_id(&self) -> String {
        text_of(&self.welcome, "user_id").to_string()
    }

    /// The underlying socket.
    pub fn stream(&mut self) -> &mut TcpStream {
        self.socket.get_mut()
    }

    /// Sends a text frame unchanged.
    #[track_caller]
    pub fn send(&mut self, text: impl Into<String>) {
        self.send_message(Message::text(text.into() as String));
    }

    /// Sends a command.
    #[track_caller]
    pub fn command(&mut self, command: &Value) {
        self.send(command.to_string());
    }

    /// Sends a message to the room of the URL.
    #[track_caller]
    pub fn say(&mut self, content: &str) {
        self.command(&json!({"content": content}));
    }

    /// Sends a WebSocket message of any type.
    #[track_caller]
    pub fn send_message(&mut self, message: Message) {
        if let Err(error) = self.try_send(message) {
            panic!("failed to send: {error}");
        }
    }

    /// Sends a WebSocket message of any type, if the connection is still open.
    pub fn try_send(&mut self, message: Message) -> Result<(), Error> {
        self.socket.send(message)
    }

    /// Sends raw bytes.
    #[track_caller]
    pub fn send_raw(&mut self, bytes: &[u8]) {
        if let Err(error) = self.stream().write_all(bytes) {
            panic!("failed to send {} bytes: {error}", bytes.len());
        }
    }

    /// The next event. Pings are answered meanwhile.
    #[track_caller]
    pub fn event(&mut self) -> Event {
        match self.event_within(DEADLINE) {
            Some(event) => event,
            None => panic!("nothing came within {DEADLINE:?}"),
        }
    }

    /// The next event within `wait`, if there is one.
    #[track_caller]
    pub fn event_within(&mut self, wait: Duration) -> Option<Event> {
        let end = Instant::now() + wait;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let timeout = self.stream().set_read_timeout(Some(left));
            timeout.expect("a socket takes a timeout");
            match self.socket.read() {
                Ok(Message::Text(text)) => return Some(Event::Frame(checked(&text))),
                Ok(Message::Close(frame)) => return Some(Event::Close(frame.map(|frame| frame.code.into()))),
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(other) => panic!("the server sent {other:?}"),
                // A wait with a time-out is interrupted when a child process of another test ends.
                Err(Error::Io(error))
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(Error::Io(_) | Error::ConnectionClosed | Error::AlreadyClosed) => return Some(Event::End),
                Err(Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake)) => {
                    return Some(Event::End);
                }
                Err(error) => panic!("the server broke the protocol: {error}"),
            }
        }
    }

    /// The next frame.
    #[track_caller]
    pub fn next_frame(&mut self) -> Value {
        match self.event() {
            Event::Frame(frame) => frame,
            other => panic!("{other:?} where a frame was expected"),
        }
    }

    /// The next frame, which must be of this type; no frame is skipped.
    #[track_caller]
    pub fn expect(&mut self, kind: &str) -> Value {
        let frame = self.next_frame();
        assert_eq!(frame["type"], kind, "{frame}");
        frame
    }

    /// The next frame, which must be this message.
    #[track_caller]
    pub fn expect_text(&mut self, content: &str) -> Value {
        let frame = self.expect("text");
        assert_eq!(frame["content"], content, "{frame}");
        frame
    }

    /// The first frame that `wanted` accepts; earlier frames are skipped.
    #[track_caller]
    pub fn until(&mut self, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        loop {
            let frame = self.next_frame();
            if wanted(&frame) {
                return frame;
            }
        }
    }

    /// Reads `count` messages and no other frames; returns their contents.
    #[track_caller]
    pub fn contents(&mut self, count: usize) -> Vec<String> {
        let one = |_| text_of(&self.expect("text"), "content").to_string();
        (0..count).map(one).collect()
    }

    /// Proves that no frame arrives before this connection's own next message.
    #[track_caller]
    pub fn expect_nothing_else(&mut self) {
        self.command(&json!({"content": "nothing else", "nonce": "nothing else"}));
        let frame = self.next_frame();
        assert_eq!(frame["nonce"], "nothing else", "something else waited: {frame}");
    }

    /// Proves that no message arrives; joins and leaves may.
    #[track_caller]
    pub fn expect_no_message(&mut self) {
        self.command(&json!({"type": "typing"}));
        let own = self.user_id();
        self.until(|frame| {
            assert_ne!(frame["type"], "text", "a message waited: {frame}");
            frame["type"] == "typing" && frame["user_id"] == own.as_str()
        });
    }

    /// The close code of the server; earlier frames are skipped.
    #[track_caller]
    pub fn close_code(&mut self) -> u16 {
        loop {
            match self.event() {
                Event::Frame(_) => {}
                Event::Close(Some(code)) => return code,
                other => panic!("{other:?} where a close code was expected"),
            }
        }
    }

    /// Waits for the end of the connection; the server must close it.
    #[track_caller]
    pub fn end(&mut self) {
        while self.event() != Event::End {}
    }

    /// Closes as a client does, and reads the echoed code.
    #[track_caller]
    pub fn close(mut self, code: u16) {
        let frame = tungstenite::protocol::CloseFrame { code: code.into(), reason: "".into() };
        self.socket.close(Some(frame)).expect("a close frame can be sent");
        assert_eq!(self.close_code(), code);
        self.end();
    }
}

/// A masked client frame, with any first byte (FIN, opcode) and payload.
pub fn masked_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x1f, 0x2e, 0x3d, 0x4c];
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A frame as JSON, with the fields that every frame has checked.
#[track_caller]
fn checked(text: &str) -> Value {
    let frame: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("not JSON ({error}): {text}"));
    for name in ["id", "room_id", "user_id", "username", "content", "type", "timestamp"] {
        assert!(frame[name].is_string(), "no {name} in {text}");
    }
    let timestamp = text_of(&frame, "timestamp");
    let parsed = chrono::DateTime::parse_from_rfc3339(timestamp);
    assert!(
        parsed.is_ok() && timestamp.len() == "2026-01-01T00:00:00.000Z".len() && timestamp.ends_with('Z'),
        "a timestamp of another kind in {text}"
    );
    for name in ["id", "user_id"] {
        let id = uuid::Uuid::try_parse(text_of(&frame, name));
        assert!(id.is_ok(), "no id in {text}");
    }
    let stored = ["text", "announcement", "delete", "welcome"].iter().any(|kind| frame["type"] == *kind);
    // A rename is stored in rooms that have messages.
    let may_be_stored = stored || frame["type"] == "rename";
    let has_seq = frame["seq"].is_u64();
    assert!((has_seq || !stored) && (may_be_stored || !has_seq), "seq is for what is stored: {text}");
    frame
}

#[track_caller]
fn text_of<'a>(frame: &'a Value, name: &str) -> &'a str {
    frame[name].as_str().unwrap_or_else(|| panic!("no {name} in {frame}"))
}
