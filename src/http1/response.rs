//! Error responses that no handler writes, for refused connections and requests, and the orderly close after them.
//!
//! Runs on the thread that holds the socket. It reads no request and does not decide why one is refused.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::model::reason::{Reason, Rejection};
use crate::protocol::http_error;

/// How long the server waits, after an answer, for the client to read it and to close the connection.
pub const LINGER_WAIT: Duration = Duration::from_secs(2);
/// Bytes that are read and discarded during that time.
const DRAIN_BYTES_MAX: usize = 512 * 1024;
/// Bytes of one such read.
const DRAIN_CHUNK_BYTES: usize = 4 * 1024;

/// Header fields of every response, ours and those of the handlers, unless the response sets a field of that name
/// itself.
///
/// A response is neither a page nor a script and is not cached, unless a handler says otherwise. `Referrer-Policy` must
/// not be `no-referrer`: a form of our own page would then be sent with `Origin: null` (Fetch, “append a request
/// `Origin` header”).
pub const DEFAULT_FIELDS: [(&str, &str); 7] = [
    ("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
];

/// Adds those [`DEFAULT_FIELDS`] fields to the head of a response that it does not set itself.
pub fn complete(head: &mut String, is_set: impl Fn(&str) -> bool) {
    for (name, value) in DEFAULT_FIELDS.iter().filter(|(name, _)| !is_set(name)) {
        push_field(head, name, value);
    }
}

fn push_field(head: &mut String, name: &str, value: &str) {
    head.push_str(name);
    head.push_str(": ");
    head.push_str(value);
    head.push_str("\r\n");
}

/// An error response.
#[derive(Debug, Clone, Copy)]
pub struct Problem<'a> {
    /// The status code. It differs from the status of the reason if the response is not an error.
    pub status: u16,
    /// The reason, for programs.
    pub reason: Reason,
    /// The sentence, for people.
    pub sentence: &'a str,
    /// Further header fields, such as `Retry-After`, `Allow` or `Upgrade`.
    pub headers: &'a [(&'a str, &'a str)],
    /// Whether the method was HEAD, whose response has no body (RFC 9110, section 9.3.2).
    pub head_only: bool,
}

impl<'a> Problem<'a> {
    /// An error response without further header fields, for a method other than HEAD.
    #[must_use]
    pub const fn new(reason: Reason, sentence: &'a str) -> Self {
        Self { status: reason.status(), reason, sentence, headers: &[], head_only: false }
    }

    /// The error response of a rejection.
    #[must_use]
    pub fn of(rejection: &'a Rejection) -> Self {
        Self::new(rejection.reason, &rejection.sentence)
    }

    /// The bytes of the response.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, phrase(self.status));
        // A 204 has no body and no Content-Length (RFC 9110, section 8.6).
        let body = if self.status == 204 { Vec::new() } else { http_error(self.reason, self.sentence) };
        if !body.is_empty() {
            push_field(&mut head, "Content-Type", "application/json");
            push_field(&mut head, "Content-Length", &body.len().to_string());
        }
        // `Upgrade` applies to one hop only and must be named in `Connection` (RFC 9110, section 7.8).
        let upgrades = self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("upgrade"));
        head.push_str(if upgrades { "Connection: close, Upgrade\r\n" } else { "Connection: close\r\n" });
        for (name, value) in self.headers {
            push_field(&mut head, name, value);
        }
        complete(&mut head, |name| self.headers.iter().any(|(set, _)| set.eq_ignore_ascii_case(name)));
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        if !self.head_only {
            bytes.extend_from_slice(&body);
        }
        bytes
    }
}

/// Sends `problem`, and keeps the socket until the client could read it. Blocks for a little more than [`LINGER_WAIT`]
/// at most. Nothing can be sent on the stream afterwards.
pub fn refuse(stream: &TcpStream, problem: &Problem<'_>) {
    if send(stream, problem).is_ok() {
        linger(stream);
    }
}

/// Only writes the response, for a caller that does not wait. The response fits into an empty send buffer. The time-out
/// is for a peer that has filled the buffer already.
///
/// # Errors
/// If the peer has closed the connection or reads nothing.
pub fn send(stream: &TcpStream, problem: &Problem<'_>) -> io::Result<()> {
    stream.set_write_timeout(Some(Duration::from_secs(1)))?;
    let mut stream = stream;
    stream.write_all(&problem.encode())
}

/// Shuts down the sending side and waits, within bounds, for the client to close its own. Closing a socket with unread
/// bytes sends a reset, which may discard a response that the client has not read yet (RFC 9112, section 9.6).
pub fn linger(stream: &TcpStream) {
    if stream.shutdown(Shutdown::Write).is_ok() {
        drain(stream, Instant::now() + LINGER_WAIT);
    }
}

/// Reads and discards input until the client has shut down its side, has sent too much, or the time is over.
pub fn drain(stream: &TcpStream, deadline: Instant) {
    let mut chunk = vec![0; DRAIN_CHUNK_BYTES];
    let mut drained = 0;
    while drained < DRAIN_BYTES_MAX {
        match read_by(stream, &mut chunk, deadline) {
            Ok(0) | Err(_) => return,
            Ok(count) => drained += count,
        }
    }
}

/// Reads once, with a deadline. Leaves a read time-out on the stream.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`] at the deadline, and other errors of the socket.
pub fn read_by(mut stream: &TcpStream, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(buffer) {
            // `WouldBlock` is also the error of a read time-out.
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            result => return result,
        }
    }
}

/// The reason phrase of each status that is sent from here.
fn phrase(status: u16) -> &'static str {
    match status {
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        417 => "Expectation Failed",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Refused",
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn an_error_response_is_complete() {
        let problem = Problem {
            headers: &[("Upgrade", "websocket")],
            ..Problem::new(Reason::UpgradeRequired, "speak \"WebSocket\"")
        };
        let text = String::from_utf8(problem.encode()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 426 Upgrade Required\r\n"));
        assert!(head.contains("\r\nConnection: close, Upgrade\r\n"));
        assert!(head.contains("\r\nUpgrade: websocket\r\n"));
        for (name, value) in DEFAULT_FIELDS {
            assert_eq!(head.matches(&format!("\r\n{name}: {value}")).count(), 1, "{name}");
        }
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
        assert_eq!(body, r#"{"error":"speak \"WebSocket\"","code":"upgrade_required","reason":"upgrade_required"}"#);
        let without = Problem { head_only: true, ..problem };
        assert!(without.encode().ends_with(b"\r\n\r\n"));
    }

    #[test]
    fn a_client_that_is_still_sending_can_read_the_response() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        client.write_all(&[b'x'; 100_000]).unwrap();
        let refusing = std::thread::spawn(move || refuse(&server, &Problem::new(Reason::BodyTooLarge, "too much")));
        client.write_all(&[b'x'; 100_000]).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        refusing.join().unwrap();
    }
}
