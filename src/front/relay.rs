//! The relay: carries one request to `tiny_http` and the response back.
//!
//! Runs on the connection's own thread. `tiny_http` sees only what this file has checked and rewritten: the whole
//! body with one Content-Length, the allowed header fields, and HTTP/1.0. In HTTP/1.0 it neither sends chunks nor waits
//! for a second request. Every response says `Connection: close`, and a connection carries one request.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::http::{CLIENT_HEADER, Endpoint, SECURE_HEADER, WORKERS};
use crate::http1::forwarded::Client;
use crate::http1::head::{Framing, Head, RequestError, Version, field_line};
use crate::http1::response;
use crate::limits::{BODIES_MAX, BODY_BYTES_MAX, HUB_ANSWER_WAIT, Limits, RELAY_WAIT, RELAYS_MAX};
use crate::metrics::Metrics;

/// A response body up to this size is read whole, so that its permit is released before a slow client has read it.
const ANSWER_BYTES_KEPT: u64 = 256 * 1024;
/// Maximum bytes of a response's head.
const ANSWER_HEAD_BYTES_MAX: u64 = 16 * 1024;
/// How long `tiny_http` may take for a response. A permit must not be released before `tiny_http` is done with the
/// request, or more requests would be there than permits. So this is longer than the hub can keep all of them waiting.
const ANSWER_WAIT: Duration = Duration::from_secs(40);
const _: () = assert!((RELAYS_MAX / WORKERS) as u64 * HUB_ANSWER_WAIT.as_secs() < ANSWER_WAIT.as_secs());
/// Bytes that are read at once of a body or of a long response.
const PIECE_BYTES: usize = 8 * 1024;
/// Maximum bytes of a line between chunks: a size with extensions, which are hardly ever used, or a trailer.
const CHUNK_LINE_BYTES_MAX: usize = 1024;
/// Maximum bytes of a chunked body with its framing: even bytes sent in chunks of one take six times their size.
const CHUNKED_BYTES_MAX: u64 = 8 * BODY_BYTES_MAX as u64;

/// The header fields of a request that are passed to the handlers; all others are dropped.
const PASSED: [&str; 15] = [
    "Accept",
    "Accept-Encoding",
    "Accept-Language",
    "Access-Control-Request-Method",
    "Authorization",
    "Content-Type",
    "Cookie",
    "Idempotency-Key",
    "If-Modified-Since",
    "If-None-Match",
    "If-Range",
    "Last-Event-ID",
    "Origin",
    "Range",
    "User-Agent",
];
/// The header fields of a response that are replaced, or that concern only the hop behind the relay.
const REPLACED: [&str; 5] = ["Connection", "Content-Length", "Keep-Alive", "Server", "Transfer-Encoding"];

/// The relay to `tiny_http`, for [`RELAYS_MAX`] requests at once.
#[derive(Debug)]
pub struct Relay {
    endpoint: Endpoint,
    metrics: Arc<Metrics>,
    /// Permits for requests at `tiny_http`.
    requests: Semaphore,
    /// Permits for request bodies, which are held in memory before that.
    bodies: Semaphore,
    permit_wait: Duration,
}

impl Relay {
    /// A relay to the endpoint of an HTTP server.
    #[must_use]
    pub fn new(endpoint: Endpoint, metrics: Arc<Metrics>) -> Self {
        let (requests, bodies) = (Semaphore::new(RELAYS_MAX), Semaphore::new(BODIES_MAX));
        Self { endpoint, metrics, requests, bodies, permit_wait: RELAY_WAIT }
    }

    /// Carries out one request, or sends an error response. `early` are the bytes behind the head that have been read
    /// already. Waits for the body, for a permit, for the response and for its reader, each with a time-out. Nothing
    /// can be sent on the stream afterwards.
    pub fn forward(&self, stream: &TcpStream, client: Client, head: &Head, early: Vec<u8>, limits: &Limits) {
        match self.exchange(stream, client, head, early, limits) {
            Ok(()) => response::linger(stream),
            Err(error) => error.answer(stream, client, &*head.method == "HEAD", &self.metrics),
        }
    }

    fn exchange(
        &self,
        stream: &TcpStream,
        client: Client,
        head: &Head,
        early: Vec<u8>,
        limits: &Limits,
    ) -> Result<(), RequestError> {
        stream.set_write_timeout(Some(limits.write_stall)).map_err(|_| RequestError::Gone)?;
        let _held = match head.framing {
            Framing::None | Framing::Length(0) => None,
            Framing::Length(_) | Framing::Chunked => {
                Some(self.bodies.acquire(self.permit_wait).ok_or(RequestError::Busy)?)
            }
        };
        let body = read_body(stream, head, early, limits)?;
        let permit = self.requests.acquire(self.permit_wait).ok_or(RequestError::Busy)?;
        let unanswered = |error| {
            log::warn!("no answer from the web server: {error}");
            RequestError::Unanswered
        };
        let mut answer = self.ask(&request(head, client, &body)).map_err(unanswered)?;
        drop(body);
        let (bytes, mut left) = read_answer(&mut answer, &head.method).map_err(unanswered)?;
        if left == 0 {
            drop(answer);
            drop(permit);
            return send(stream, &bytes);
        }
        send(stream, &bytes)?;
        while left > 0 {
            // From here on an error can only truncate the response; its Content-Length shows that.
            let piece = answer.fill_buf().map_err(|_| RequestError::Gone)?;
            let count = left.min(piece.len() as u64) as usize;
            if count == 0 {
                return Err(RequestError::Gone);
            }
            send(stream, &piece[..count])?;
            answer.consume(count);
            left -= count as u64;
        }
        Ok(())
    }

    /// Sends a whole request.
    fn ask(&self, request: &[u8]) -> io::Result<BufReader<UnixStream>> {
        let mut stream = self.endpoint.connect()?;
        stream.set_read_timeout(Some(ANSWER_WAIT))?;
        stream.set_write_timeout(Some(ANSWER_WAIT))?;
        stream.write_all(request)?;
        Ok(BufReader::with_capacity(PIECE_BYTES, stream))
    }
}

/// A semaphore: a channel that holds one message for each permit that is taken.
#[derive(Debug)]
struct Semaphore(Sender<()>, Receiver<()>);

/// A permit; dropping it releases it.
struct Permit<'a>(&'a Receiver<()>);

impl Semaphore {
    fn new(permits: usize) -> Self {
        let (taken, given_back) = bounded(permits);
        Self(taken, given_back)
    }

    fn acquire(&self, wait: Duration) -> Option<Permit<'_>> {
        self.0.send_timeout((), wait).ok()?;
        Some(Permit(&self.1))
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let _ = self.0.try_recv();
    }
}

/// The request in the form that `tiny_http` gets.
fn request(head: &Head, client: Client, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1024 + body.len());
    let mut line = |parts: &[&[u8]]| {
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        bytes.extend_from_slice(b"\r\n");
    };
    line(&[head.method.as_bytes(), b" ", head.target.as_bytes(), b" HTTP/1.0"]);
    line(&[CLIENT_HEADER.as_bytes(), b": ", client.address.to_string().as_bytes()]);
    if client.is_secure {
        line(&[SECURE_HEADER.as_bytes(), b": 1"]);
    }
    // If the target has a host, that host counts.
    line(&[b"Host: ", head.host.as_bytes()]);
    for (name, value) in head.headers() {
        let is_passed = PASSED.iter().any(|passed| passed.eq_ignore_ascii_case(name));
        // `tiny_http` refuses a request with a byte beyond ASCII.
        if is_passed && value.is_ascii() {
            line(&[name.as_bytes(), b": ", value]);
        }
    }
    if head.framing != Framing::None {
        line(&[b"Content-Length: ", body.len().to_string().as_bytes()]);
    }
    line(&[]);
    bytes.extend_from_slice(body);
    bytes
}

/// Reads the whole body, of a known length or in chunks.
fn read_body(stream: &TcpStream, head: &Head, early: Vec<u8>, limits: &Limits) -> Result<Vec<u8>, RequestError> {
    let mut waits = false;
    // HTTP/1.0 has no expectations (RFC 9110, section 10.1.1).
    if head.version == Version::Http11 {
        for expectation in head.headers_named("Expect") {
            if !expectation.eq_ignore_ascii_case(b"100-continue") {
                return Err(RequestError::Expectation);
            }
            waits = true;
        }
    }
    let length = match head.framing {
        Framing::None | Framing::Length(0) => return Ok(Vec::new()),
        Framing::Length(length) => Some(length),
        Framing::Chunked => None,
    };
    if length.is_some_and(|length| length > BODY_BYTES_MAX as u64) {
        return Err(RequestError::BodyTooLarge);
    }
    if waits && early.is_empty() {
        send(stream, b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let source = Source { early: &early, stream, deadline: Instant::now() + limits.body_deadline };
    let mut reader = BodyReader(BufReader::with_capacity(PIECE_BYTES, source.take(CHUNKED_BYTES_MAX)));
    match length {
        Some(length) => {
            let mut body = Vec::new();
            reader.append(length as usize, &mut body)?;
            Ok(body)
        }
        None => dechunk(&mut reader),
    }
}

/// The input behind a head: the bytes that were read with it, then those of the stream until the deadline.
struct Source<'a> {
    early: &'a [u8],
    stream: &'a TcpStream,
    deadline: Instant,
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.early.is_empty() {
            response::read_by(self.stream, buffer, self.deadline)
        } else {
            self.early.read(buffer)
        }
    }
}

struct BodyReader<'a>(BufReader<io::Take<Source<'a>>>);

impl BodyReader<'_> {
    /// Moves the next `count` bytes to the end of `body`.
    fn append(&mut self, count: usize, body: &mut Vec<u8>) -> Result<(), RequestError> {
        // The buffer grows with what comes: a length alone costs no memory.
        let read = self.0.by_ref().take(count as u64).read_to_end(body).map_err(|error| self.failed(error.kind()))?;
        if read < count { Err(self.failed(io::ErrorKind::UnexpectedEof)) } else { Ok(()) }
    }

    /// The next line without its CRLF.
    fn line(&mut self) -> Result<Vec<u8>, RequestError> {
        let mut line = Vec::new();
        let read = self.0.by_ref().take(CHUNK_LINE_BYTES_MAX as u64).read_until(b'\n', &mut line);
        read.map_err(|error| self.failed(error.kind()))?;
        match &*line {
            [.., b'\r', b'\n'] => {
                line.truncate(line.len() - 2);
                Ok(line)
            }
            [.., b'\n'] => Err(RequestError::Malformed("a chunk line does not end in CRLF")),
            _ if line.len() < CHUNK_LINE_BYTES_MAX => Err(self.failed(io::ErrorKind::UnexpectedEof)),
            _ => Err(RequestError::Malformed("a chunk line is too long")),
        }
    }

    fn failed(&self, kind: io::ErrorKind) -> RequestError {
        match kind {
            io::ErrorKind::TimedOut => RequestError::BodyTooSlow,
            io::ErrorKind::UnexpectedEof if self.0.get_ref().limit() == 0 => RequestError::BodyTooLarge,
            io::ErrorKind::UnexpectedEof => RequestError::Malformed("the request body ended early"),
            _ => RequestError::Gone,
        }
    }
}

/// Decodes a chunked body (RFC 9112, section 7.1). Extensions and trailers are checked and dropped.
fn dechunk(source: &mut BodyReader<'_>) -> Result<Vec<u8>, RequestError> {
    let mut body = Vec::new();
    loop {
        let size = chunk_size(&source.line()?).ok_or(RequestError::Malformed("invalid chunk size"))?;
        if size == 0 {
            break;
        }
        if size > (BODY_BYTES_MAX - body.len()) as u64 {
            return Err(RequestError::BodyTooLarge);
        }
        source.append(size as usize, &mut body)?;
        let mut end = Vec::new();
        source.append(2, &mut end)?;
        if end != b"\r\n" {
            return Err(RequestError::Malformed("a chunk is longer than its size says"));
        }
    }
    loop {
        let line = source.line()?;
        if line.is_empty() {
            return Ok(body);
        }
        field_line(&line)?;
    }
}

/// The size of a chunk: up to 16 hex digits, and optionally extensions behind a semicolon.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let (digits, extension) = line.split_at(digits);
    let is_extension = |bytes: &[u8]| bytes[0] == b';' && bytes.iter().all(|b| matches!(b, b'\t' | b' '..=b'~'));
    if digits.len() > 16 || !(extension.is_empty() || is_extension(extension)) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Reads the head of a response, and the body if it is small. Returns the bytes to send, and the length of the rest of
/// the body.
fn read_answer(answer: &mut BufReader<UnixStream>, method: &str) -> io::Result<(Vec<u8>, u64)> {
    let (head, length) = rewritten_head(answer, method)?;
    let mut bytes = head.into_bytes();
    if length > ANSWER_BYTES_KEPT {
        return Ok((bytes, length));
    }
    let before = bytes.len();
    bytes.resize(before + length as usize, 0);
    answer.read_exact(&mut bytes[before..])?;
    Ok((bytes, 0))
}

/// The head of `tiny_http`'s response in the form that the client gets, and the length of the body that follows.
fn rewritten_head(answer: &mut impl BufRead, method: &str) -> io::Result<(String, u64)> {
    let mut lines = answer.take(ANSWER_HEAD_BYTES_MAX).lines();
    let mut next_line = || lines.next().unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()));
    let status_line = next_line()?;
    let status_line = status_line.strip_prefix("HTTP/1.0 ").ok_or(io::ErrorKind::InvalidData)?;
    let status =
        status_line.get(..3).and_then(|status| status.parse::<u16>().ok()).ok_or(io::ErrorKind::InvalidData)?;
    let mut head = format!("HTTP/1.1 {status_line}\r\n");
    let mut said = Vec::with_capacity(16);
    let mut length = None;
    loop {
        let line = next_line()?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(": ").ok_or(io::ErrorKind::InvalidData)?;
        said.push(name.to_owned());
        if name.eq_ignore_ascii_case("Content-Length") {
            length = value.parse::<u64>().ok();
        }
        if !REPLACED.iter().any(|replaced| replaced.eq_ignore_ascii_case(name)) {
            head.push_str(&line);
            head.push_str("\r\n");
        }
    }
    response::complete(&mut head, |name| said.iter().any(|said| said.eq_ignore_ascii_case(name)));
    // These statuses have no body, so a Content-Length of `tiny_http` would be wrong for them (RFC 9110, section 8.6).
    let has_none = status < 200 || status == 204 || status == 304;
    if !has_none {
        head.push_str(&format!("Content-Length: {}\r\n", length.ok_or(io::ErrorKind::InvalidData)?));
    }
    head.push_str("Connection: close\r\n\r\n");
    Ok((head, length.filter(|_| !has_none && method != "HEAD").unwrap_or(0)))
}

/// Writes to the client. The stream's time-out applies to each write, so only a reader that takes nothing fails.
fn send(mut stream: &TcpStream, bytes: &[u8]) -> Result<(), RequestError> {
    stream.write_all(bytes).map_err(|_| RequestError::Gone)
}

#[cfg(test)]
mod tests {
    use std::net::{Shutdown, TcpListener};
    use std::thread;

    use super::*;
    use crate::http::Server;
    use crate::http::tests::Backend;
    use crate::http1::head;

    /// A relay and a server without the listener: clients connect one at a time.
    struct Rig {
        listener: TcpListener,
        relay: Arc<Relay>,
        metrics: Arc<Metrics>,
        limits: Limits,
        _server: Server,
        _backend: Backend,
    }

    impl Rig {
        fn new() -> Self {
            let metrics = Arc::new(Metrics::default());
            let backend = Backend::start();
            let server = backend.serve(&metrics);
            Self {
                listener: TcpListener::bind("127.0.0.1:0").unwrap(),
                relay: Arc::new(Relay::new(server.endpoint(), Arc::clone(&metrics))),
                metrics,
                limits: Limits::default(),
                _server: server,
                _backend: backend,
            }
        }

        fn connect(&self) -> TcpStream {
            let client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let (stream, peer) = self.listener.accept().unwrap();
            let (relay, limits, metrics) = (Arc::clone(&self.relay), self.limits, Arc::clone(&self.metrics));
            thread::spawn(move || match head::read(&stream, Instant::now() + limits.head_deadline) {
                Ok((head, early)) => relay.forward(&stream, Client::of(&head, peer, &[]), &head, early, &limits),
                Err(error) => error.answer(&stream, peer, false, &metrics),
            });
            client
        }

        fn ask(&self, request: impl AsRef<[u8]>) -> String {
            let mut client = self.connect();
            client.write_all(request.as_ref()).unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            answer
        }
    }

    fn parsed(bytes: &str) -> Head {
        head::parse(bytes.as_bytes()).unwrap().unwrap().0
    }

    #[test]
    fn every_response_closes_the_connection() {
        let rig = Rig::new();
        for version in ["1.0", "1.1"] {
            let answer = rig.ask(format!("GET /healthz HTTP/{version}\r\nHost: h\r\nConnection: keep-alive\r\n\r\n"));
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            assert_eq!(head.matches("Connection: close").count(), 1, "{head}");
            assert_eq!(head.matches("Content-Length: 3").count(), 1, "{head}");
            assert!(!head.contains("Server:") && !head.contains("Transfer-Encoding"), "{head}");
            assert_eq!(body, "ok\n");
        }
    }

    #[test]
    fn responses_to_head_and_some_statuses_have_no_body() {
        let rig = Rig::new();
        for (request, status, length) in [
            ("HEAD /healthz", 200, Some("Content-Length: 3")),
            ("HEAD /none", 404, Some("Content-Length: 64")),
            ("OPTIONS *", 204, None),
            ("GET /", 304, None),
        ] {
            let answer = rig.ask(format!("{request} HTTP/1.1\r\nHost: h\r\nIf-None-Match: *\r\n\r\n"));
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            assert!(answer.ends_with("\r\n\r\n"), "{answer}");
            assert_eq!(answer.lines().find(|line| line.starts_with("Content-Length")), length);
        }
    }

    #[test]
    fn a_second_request_on_a_connection_is_not_read() {
        let rig = Rig::new();
        let get = "GET /healthz HTTP/1.1\r\nHost: h\r\n";
        for first in [
            format!("{get}\r\n"),
            format!("{get}Content-Length: 3\r\n\r\nabc"),
            format!("{get}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ] {
            let before = rig.metrics.http_requests.get();
            let answer = rig.ask(format!("{first}{get}\r\n{get}\r\n"));
            assert_eq!(answer.matches("HTTP/1.").count(), 1, "{answer}");
            assert_eq!(rig.metrics.http_requests.get(), before + 1);
        }
    }

    #[test]
    fn a_handler_sees_only_the_allowed_header_fields() {
        let head = parsed(
            "POST /a?b HTTP/1.1\r\nHost: h\r\nADDA-CLIENT: 1.2.3.4\r\nAdda-Secure: 1\r\n\
             X-Forwarded-For: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\nX-Forwarded-Proto: https\r\nCookie: a=b\r\n\
             User-Agent: caf\u{e9}\r\nTE: chunked\r\nExpect: 100-continue\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\
             if-none-match: *\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        let client = |is_secure| Client { address: "::1".parse().unwrap(), is_secure };
        let rest = "Host: h\r\nCookie: a=b\r\nif-none-match: *\r\nContent-Length: 4\r\n\r\nbody";
        for (is_secure, secure) in [(false, ""), (true, "Adda-Secure: 1\r\n")] {
            let request = String::from_utf8(request(&head, client(is_secure), b"body")).unwrap();
            assert_eq!(request, format!("POST /a?b HTTP/1.0\r\nAdda-Client: ::1\r\n{secure}{rest}"));
        }
        let head = parsed("GET http://other/a HTTP/1.1\r\nHost: h\r\n\r\n");
        let request = String::from_utf8(request(&head, client(false), b"")).unwrap();
        assert_eq!(request, "GET /a HTTP/1.0\r\nAdda-Client: ::1\r\nHost: other\r\n\r\n");
    }

    /// The result of `read_body` for bytes that come with the head, or in pieces after it.
    fn body_of(fields: &str, bytes: &[u8], at_once: bool, limits: &Limits) -> Result<Vec<u8>, RequestError> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let head = parsed(&format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n"));
        let early = if at_once { bytes.to_vec() } else { Vec::new() };
        let rest = if at_once { Vec::new() } else { bytes.to_vec() };
        thread::scope(|scope| {
            scope.spawn(move || {
                client.set_nodelay(true).unwrap();
                let pieces = if rest.len() < 1000 { 1 } else { 4096 };
                // The server may have closed the connection already.
                let _ = rest.chunks(pieces).try_for_each(|piece| client.write_all(piece));
                let _ = client.shutdown(Shutdown::Write);
                let _ = client.read(&mut [0; 64]);
            });
            let body = read_body(&stream, &head, early, limits);
            drop(stream);
            body
        })
    }

    #[test]
    fn a_body_is_read_whole_or_refused() {
        let full = vec![b'x'; BODY_BYTES_MAX];
        let chunked = |chunk: usize, tail: &str| {
            let mut bytes: Vec<u8> = full
                .chunks(chunk)
                .flat_map(|piece| [format!("{:X}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat())
                .collect();
            bytes.extend_from_slice(tail.as_bytes());
            bytes
        };
        let te = "Transfer-Encoding: chunked";
        for (fields, bytes, expected) in [
            ("A: b", b"rest".to_vec(), Some(&b""[..])),
            ("Content-Length: 0", b"rest".to_vec(), Some(b"")),
            ("Content-Length: 4", b"bodyrest".to_vec(), Some(b"body")),
            ("Content-Length: 65536", full.clone(), Some(&full)),
            (te, b"0\r\n\r\nrest".to_vec(), Some(b"")),
            (te, b"4\r\nbody\r\n0000\r\n\r\n".to_vec(), Some(b"body")),
            (te, b"1;a=\"b\"\r\nx\r\n0A\r\n0123456789\r\n0;x\r\nT: v\r\nU:\r\n\r\n".to_vec(), Some(b"x0123456789")),
            (te, chunked(1, "0\r\n\r\n"), Some(&full)),
            (te, chunked(60_000, "0\r\n\r\n"), Some(&full)),
            (te, chunked(60_000, "1\r\nx\r\n0\r\n\r\n"), None),
            ("Content-Length: 65537", Vec::new(), None),
            ("Content-Length: 5", b"body".to_vec(), None),
            (te, b"".to_vec(), None),
            (te, b"4\r\nbody\r\n".to_vec(), None),
            (te, b"4\r\nbody\r\n0\r\n".to_vec(), None),
        ] {
            for at_once in [true, false] {
                let body = body_of(fields, &bytes, at_once, &Limits::default());
                assert_eq!(
                    body.ok().as_deref(),
                    expected,
                    "{fields} {}",
                    bytes.escape_ascii().to_string().get(..60).unwrap_or_default()
                );
            }
        }
    }

    #[test]
    fn a_chunked_body_has_one_interpretation() {
        for bytes in [
            "\r\n",
            "4\nbody\r\n0\r\n\r\n",
            "4\rbody\r\n0\r\n\r\n",
            "4 \r\nbody\r\n0\r\n\r\n",
            " 4\r\nbody\r\n0\r\n\r\n",
            "+4\r\nbody\r\n0\r\n\r\n",
            "-4\r\nbody\r\n0\r\n\r\n",
            "0x4\r\nbody\r\n0\r\n\r\n",
            "4,\r\nbody\r\n0\r\n\r\n",
            "g\r\nbody\r\n0\r\n\r\n",
            "00000000000000004\r\nbody\r\n0\r\n\r\n",
            "4;a\nb\r\nbody\r\n0\r\n\r\n",
            "4;\0\r\nbody\r\n0\r\n\r\n",
            "4\r\nbody!\r\n0\r\n\r\n",
            "4\r\nbod\r\n0\r\n\r\n",
            "4\r\nbody0\r\n\r\n",
            "4\r\nbody\n\n0\r\n\r\n",
            "0\r\nno colon\r\n\r\n",
            "0\r\nT : v\r\n\r\n",
            "0\r\n folded\r\n\r\n",
            "0\r\n\n",
        ] {
            for at_once in [true, false] {
                let body = body_of("Transfer-Encoding: chunked", bytes.as_bytes(), at_once, &Limits::default());
                assert!(matches!(body, Err(RequestError::Malformed(_))), "{bytes:?}: {body:?}");
            }
        }
        let extension = format!("4;{}\r\nbody\r\n0\r\n\r\n", "x".repeat(2 * CHUNK_LINE_BYTES_MAX));
        assert!(body_of("Transfer-Encoding: chunked", extension.as_bytes(), true, &Limits::default()).is_err());
        let huge = body_of("Transfer-Encoding: chunked", b"FFFFFFFFFFFFFFFF\r\n", true, &Limits::default());
        assert_eq!(huge, Err(RequestError::BodyTooLarge));
        let trailers = format!("0\r\n{}\r\n", "T: v\r\n".repeat(CHUNKED_BYTES_MAX as usize / 4));
        let endless = body_of("Transfer-Encoding: chunked", trailers.as_bytes(), false, &Limits::default());
        assert_eq!(endless, Err(RequestError::BodyTooLarge));
    }

    #[test]
    fn a_client_may_expect_100_continue_before_it_sends_the_body() {
        let rig = Rig::new();
        let mut client = rig.connect();
        let head = "POST /healthz HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\nContent-Length: 4\r\n\r\n";
        client.write_all(head.as_bytes()).unwrap();
        let asked = b"HTTP/1.1 100 Continue\r\n\r\n";
        let mut read = [0; 25];
        client.read_exact(&mut read).unwrap();
        assert_eq!(&read, asked);
        client.write_all(b"body").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
        // No 100 is sent for a body that is refused, and none in HTTP/1.0.
        for (head, status) in [
            ("1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 65537", 413),
            ("1.1\r\nHost: h\r\nExpect: tea\r\nContent-Length: 4", 417),
            ("1.1\r\nHost: h\r\nExpect: tea", 417),
            ("1.0\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 0", 405),
        ] {
            let answer = rig.ask(format!("POST /healthz HTTP/{head}\r\n\r\n"));
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        }
    }

    #[test]
    fn a_client_that_is_still_sending_can_read_the_error() {
        let rig = Rig::new();
        let mut client = rig.connect();
        client.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 300000\r\n\r\n").unwrap();
        client.write_all(&vec![b'x'; 300_000]).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 413 ") && answer.ends_with("\"reason\":\"body_too_large\"}"), "{answer}");
        assert_eq!(rig.metrics.http_requests.get(), 0);
    }

    #[test]
    fn a_body_has_one_deadline() {
        let limits = Limits { body_deadline: Duration::from_millis(100), ..Limits::default() };
        let mut rig = Rig::new();
        rig.limits = limits;
        let answer = rig.ask("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nbody");
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(rig.metrics.render().contains("reason=\"slow\"} 1"));
    }

    #[test]
    fn a_request_without_a_permit_is_busy_with_retry_after() {
        let mut rig = Rig::new();
        let relay = Arc::get_mut(&mut rig.relay).unwrap();
        relay.requests = Semaphore::new(1);
        relay.permit_wait = Duration::from_millis(20);
        let permit = rig.relay.requests.acquire(Duration::ZERO).unwrap();
        let answer = rig.ask("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nRetry-After: 1\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
        drop(permit);
        for _ in 0..3 {
            assert!(rig.ask("GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n").ends_with("ok\n"));
        }
    }

    #[test]
    fn a_long_response_is_relayed_in_pieces() {
        let body: Vec<u8> = (0..700_000u32).map(|number| number as u8).collect();
        for length in [0, 1, 100_000, 256 * 1024, 700_000] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let mut ours = BufReader::new(ours);
            let body = &body[..length];
            let bytes =
                [format!("HTTP/1.0 200 OK\r\nServer: x\r\nA: b\r\nX-Frame-Options: SAMEORIGIN\r\nContent-Length: {length}\r\n\r\n").as_bytes(), body]
                    .concat();
            thread::spawn(move || theirs.write_all(&bytes));
            let (mut bytes, left) = read_answer(&mut ours, "GET").unwrap();
            assert_eq!(left > 0, length as u64 > ANSWER_BYTES_KEPT);
            ours.take(left).read_to_end(&mut bytes).unwrap();
            let mut expected = "HTTP/1.1 200 OK\r\nA: b\r\nX-Frame-Options: SAMEORIGIN\r\n".to_owned();
            response::complete(&mut expected, |name| name == "X-Frame-Options");
            expected += &format!("Content-Length: {length}\r\nConnection: close\r\n\r\n");
            assert!(bytes.starts_with(expected.as_bytes()));
            assert_eq!(&bytes[expected.len()..], body);
        }
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nbod").unwrap();
        drop(theirs);
        assert!(read_answer(&mut BufReader::new(ours), "GET").is_err());
    }

    #[test]
    fn a_client_that_reads_nothing_of_a_response_times_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
        assert_eq!(send(&stream, &vec![0; 32 << 20]), Err(RequestError::Gone));
    }
}
