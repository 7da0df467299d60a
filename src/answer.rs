//! An answer without a handler: why a connection or a request was refused.
//!
//! Runs on whatever thread holds the socket. Nothing here reads a request or knows why it was refused.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::model::reason::{Reason, Rejection};
use crate::protocol::http_error;

/// How long a client that was answered may take to read it and go.
pub const LINGER_WAIT: Duration = Duration::from_secs(2);
/// How much of what it still sends is read and forgotten meanwhile.
const DRAIN_BYTES_MAX: usize = 512 * 1024;
/// What is read of it at once.
const DRAIN_CHUNK_BYTES: usize = 4 * 1024;

/// What every answer says, ours and those of the handlers, unless it says something else by that name.
///
/// An answer is no page and no script, and is not cached, unless a handler says otherwise. `Referrer-Policy` must
/// not be `no-referrer`: then a form of our own would be sent with `Origin: null` (Fetch, “append a request `Origin`
/// header”).
pub const STANDING: [(&str, &str); 7] = [
    ("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
];

/// Adds to an answer's head what is [`STANDING`] and what it does not say itself.
pub fn complete(head: &mut String, says: impl Fn(&str) -> bool) {
    for (name, value) in STANDING.iter().filter(|(name, _)| !says(name)) {
        push_field(head, name, value);
    }
}

fn push_field(head: &mut String, name: &str, value: &str) {
    head.push_str(name);
    head.push_str(": ");
    head.push_str(value);
    head.push_str("\r\n");
}

/// A refusal as HTTP shows it.
#[derive(Debug, Clone, Copy)]
pub struct Problem<'a> {
    /// The status code, which is not the reason's where the answer is no error.
    pub status: u16,
    /// What a program reads.
    pub reason: Reason,
    /// What a person reads.
    pub sentence: &'a str,
    /// Further header fields, such as `Retry-After`, `Allow` or `Upgrade`.
    pub headers: &'a [(&'a str, &'a str)],
    /// Whether the request was a HEAD, whose answer has no body (RFC 9110, section 9.3.2).
    pub head_only: bool,
}

impl<'a> Problem<'a> {
    /// A refusal without further header fields, of a request that was not a HEAD.
    #[must_use]
    pub const fn new(reason: Reason, sentence: &'a str) -> Self {
        Self { status: reason.status(), reason, sentence, headers: &[], head_only: false }
    }

    /// A rejection as HTTP shows it.
    #[must_use]
    pub fn of(rejection: &'a Rejection) -> Self {
        Self::new(rejection.reason, &rejection.sentence)
    }

    /// The answer's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, phrase(self.status));
        // 204 has no body, and says nothing of one (RFC 9110, section 8.6).
        let body = if self.status == 204 { Vec::new() } else { http_error(self.reason, self.sentence) };
        if !body.is_empty() {
            push_field(&mut head, "Content-Type", "application/json");
            push_field(&mut head, "Content-Length", &body.len().to_string());
        }
        // `Upgrade` is a hop's own and has to be named as such (RFC 9110, section 7.8).
        let upgrades = self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("upgrade"));
        head.push_str(if upgrades { "Connection: close, Upgrade\r\n" } else { "Connection: close\r\n" });
        for (name, value) in self.headers {
            push_field(&mut head, name, value);
        }
        complete(&mut head, |name| self.headers.iter().any(|(said, _)| said.eq_ignore_ascii_case(name)));
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        if !self.head_only {
            bytes.extend_from_slice(&body);
        }
        bytes
    }
}

/// Answers with `problem` and sees to it that the client can read it. Blocks for [`LINGER_WAIT`] and a
/// little more at the worst; the stream is at its end afterwards.
pub fn refuse(stream: &TcpStream, problem: &Problem<'_>) {
    if send(stream, problem).is_ok() {
        linger(stream);
    }
}

/// Only writes the answer, for a caller that does not wait. It fits into any socket's buffer, so the
/// bound in time is for a peer that has filled that already.
///
/// # Errors
/// Where the peer is gone or takes nothing.
pub fn send(stream: &TcpStream, problem: &Problem<'_>) -> io::Result<()> {
    stream.set_write_timeout(Some(Duration::from_secs(1)))?;
    let mut stream = stream;
    stream.write_all(&problem.encode())
}

/// Ends our side and waits, within bounds, for the client to end its own. Closing a socket with unread
/// bytes sends a reset, which may throw away an answer that the client has not read yet (RFC 9112, section 9.6).
pub fn linger(stream: &TcpStream) {
    if stream.shutdown(Shutdown::Write).is_ok() {
        drain(stream, Instant::now() + LINGER_WAIT);
    }
}

/// Reads and forgets what the client still sends, until it has ended its side or sent too much, or the time is up.
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

/// Reads once, until the deadline. Leaves a read timeout on the stream.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`] at the deadline, and others of the socket's.
pub fn read_by(mut stream: &TcpStream, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(buffer) {
            // Also at the end of the read timeout.
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            result => return result,
        }
    }
}

/// The phrase behind a status that the front gives.
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
    fn a_refusal_is_a_whole_answer() {
        let problem = Problem {
            headers: &[("Upgrade", "websocket")],
            ..Problem::new(Reason::UpgradeRequired, "speak \"WebSocket\"")
        };
        let text = String::from_utf8(problem.encode()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 426 Upgrade Required\r\n"));
        assert!(head.contains("\r\nConnection: close, Upgrade\r\n"));
        assert!(head.contains("\r\nUpgrade: websocket\r\n"));
        for (name, value) in STANDING {
            assert_eq!(head.matches(&format!("\r\n{name}: {value}")).count(), 1, "{name}");
        }
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
        assert_eq!(body, r#"{"error":"speak \"WebSocket\"","code":"upgrade_required","reason":"upgrade_required"}"#);
        let without = Problem { head_only: true, ..problem };
        assert!(without.encode().ends_with(b"\r\n\r\n"));
    }

    #[test]
    fn the_answer_outlives_what_the_client_is_still_sending() {
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
