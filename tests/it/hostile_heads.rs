//! Malformed and hostile requests: each gets its status and nothing else, no handler sees it, and the next valid
//! request is answered as usual.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{DEADLINE, Server};

/// How much the server's memory may grow under all of them.
const GROWTH_KIB_MAX: u64 = 5 * 1024;
/// The deadline of a head, plus time for a busy machine.
const HEAD_WAIT: Duration = Duration::from_secs(10 + 5);
/// Bytes of an endless line that the server may read before the client learns that it is refused.
const SWALLOWED_BYTES_MAX: usize = 16 << 20;

/// A request as bytes, and the expected result.
pub struct Case {
    /// The fault of the request.
    pub name: &'static str,
    /// The bytes to send.
    pub bytes: Vec<u8>,
    /// The status of the first response.
    pub status: u16,
    /// The number of requests that reach a handler and are answered by it.
    pub handled: u64,
}

/// A request that must be refused, from text.
fn refused(name: &'static str, status: u16, text: impl AsRef<[u8]>) -> Case {
    Case { name, bytes: text.as_ref().to_vec(), status, handled: 0 }
}

/// A GET with these lines behind its Host.
fn fields(name: &'static str, status: u16, lines: &str) -> Case {
    refused(name, status, format!("GET /healthz HTTP/1.1\r\nHost: h\r\n{lines}\r\n"))
}

/// A POST with these lines behind its Host, and a body.
fn body(name: &'static str, status: u16, lines: &str, body: &str) -> Case {
    refused(name, status, format!("POST /api/rooms HTTP/1.1\r\nHost: h\r\n{lines}\r\n{body}"))
}

/// A POST whose chunks are these bytes.
fn chunks(name: &'static str, status: u16, chunks: &str) -> Case {
    body(name, status, "Transfer-Encoding: chunked\r\n", chunks)
}

/// Three requests in one. The first is valid, and no byte of it may become a part of the next, nor the other way round.
/// Each is answered, unless the first says that the connection ends with it.
fn smuggled(name: &'static str, first: &str) -> Case {
    let second = "GET /api/rooms HTTP/1.1\r\nHost: h\r\n\r\n";
    let last = "GET /api/rooms HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let handled = if first.contains(" HTTP/1.0") || first.contains(": close") { 1 } else { 3 };
    Case { handled, ..refused(name, 200, format!("{first}{second}{last}")) }
}

/// The cases for all limits of a head or a body.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        // The request line.
        refused("HTTP/2.0", 400, "GET /healthz HTTP/2.0\r\nHost: h\r\n\r\n"),
        refused("HTTP/2's preface", 400, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        refused("HTTP/3.0", 400, "GET /healthz HTTP/3.0\r\nHost: h\r\n\r\n"),
        refused("HTTP/1.2", 400, "GET /healthz HTTP/1.2\r\nHost: h\r\n\r\n"),
        refused("HTTP/0.9", 400, "GET /healthz HTTP/0.9\r\nHost: h\r\n\r\n"),
        refused("no version", 400, "GET /healthz\r\n\r\n"),
        refused("lower case version", 400, "GET /healthz http/1.1\r\nHost: h\r\n\r\n"),
        refused("version with leading zeros", 400, "GET /healthz HTTP/01.1\r\nHost: h\r\n\r\n"),
        refused("version with a plus", 400, "GET /healthz HTTP/+1.1\r\nHost: h\r\n\r\n"),
        refused("another protocol", 400, "GET /healthz SIP/2.0\r\nHost: h\r\n\r\n"),
        refused("no method", 400, " /healthz HTTP/1.1\r\nHost: h\r\n\r\n"),
        refused("nothing but a target", 400, "/healthz HTTP/1.1\r\nHost: h\r\n\r\n"),
        refused("method that is no token", 400, "GE(T /healthz HTTP/1.1\r\nHost: h\r\n\r\n"),
        refused("method with a colon", 400, "GET: /healthz HTTP/1.1\r\nHost: h\r\n\r\n"),
        refused("two spaces before the target", 400, "GET  /healthz HTTP/1.1\r\nHost: h\r\n\r\n"),
        refused("two spaces behind the target", 400, "GET /healthz  HTTP/1.1\r\nHost: h\r\n\r\n"),
        refused("space behind the version", 400, "GET /healthz HTTP/1.1 \r\nHost: h\r\n\r\n"),
        refused("tabs for spaces", 400, "GET\t/healthz\tHTTP/1.1\r\nHost: h\r\n\r\n"),
        refused("space in the target", 400, "GET /heal thz HTTP/1.1\r\nHost: h\r\n\r\n"),
        refused("target beyond ASCII", 400, "GET /আড্ডা HTTP/1.1\r\nHost: h\r\n\r\n"),
        refused("target that is not UTF-8", 400, b"GET /\xff\xfe HTTP/1.1\r\nHost: h\r\n\r\n"),
        refused("NUL in the target", 400, "GET /\0 HTTP/1.1\r\nHost: h\r\n\r\n"),
        refused("DEL in the target", 400, "GET /\x7f HTTP/1.1\r\nHost: h\r\n\r\n"),
        refused("fragment in the target", 400, "GET /healthz#a HTTP/1.1\r\nHost: h\r\n\r\n"),
        refused("target without a slash", 400, "GET healthz HTTP/1.1\r\nHost: h\r\n\r\n"),
        refused("asterisk for GET", 400, "GET * HTTP/1.1\r\nHost: h\r\n\r\n"),
        refused("CONNECT", 400, "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n"),
        refused("CONNECT to a path", 400, "CONNECT / HTTP/1.1\r\nHost: h\r\n\r\n"),
        refused("URL of another scheme", 400, "GET ftp://h/healthz HTTP/1.1\r\nHost: h\r\n\r\n"),
        refused("URL without a host", 400, "GET http:///healthz HTTP/1.1\r\nHost: h\r\n\r\n"),
        refused("URL with a password", 400, "GET http://a:b@h/healthz HTTP/1.1\r\nHost: h\r\n\r\n"),
        refused("two empty lines first", 400, "\r\n\r\nGET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"),
        refused("bare LF first", 400, "\nGET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"),
        refused("TLS", 400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        refused("SOCKS", 400, b"\x05\x01\x00"),
        refused("SSH", 400, "SSH-2.0-OpenSSH_9.6\r\n"),
        // Line ends and folding.
        refused("bare LF behind the request line", 400, "GET /healthz HTTP/1.1\nHost: h\r\n\r\n"),
        refused("bare LF everywhere", 400, "GET /healthz HTTP/1.1\nHost: h\n\n"),
        refused("bare CR everywhere", 400, "GET /healthz HTTP/1.1\rHost: h\r\r"),
        refused("CR CR LF", 400, "GET /healthz HTTP/1.1\r\r\nHost: h\r\n\r\n"),
        fields("bare LF between fields", 400, "A: b\nC: d\r\n"),
        fields("bare CR in a value", 400, "A: b\rC: d\r\n"),
        fields("bare CR before the end of a value", 400, "A: b\r\r\n"),
        fields("line folded with a space", 400, "A: b\r\n c\r\n"),
        fields("line folded with a tab", 400, "A: b\r\n\tc\r\n"),
        refused("first field folded", 400, "GET /healthz HTTP/1.1\r\n Host: h\r\n\r\n"),
        // Names and values.
        fields("space before a colon", 400, "A : b\r\n"),
        fields("tab before a colon", 400, "A\t: b\r\n"),
        fields("space before the length's colon", 400, "Content-Length : 0\r\n"),
        fields("space within a name", 400, "A b: c\r\n"),
        fields("field without a name", 400, ": b\r\n"),
        fields("field without a colon", 400, "A\r\n"),
        fields("name beyond ASCII", 400, "Å: b\r\n"),
        fields("name with a slash", 400, "A/b: c\r\n"),
        fields("name with a NUL", 400, "A\0: b\r\n"),
        fields("value with a NUL", 400, "A: b\0c\r\n"),
        fields("value with an escape", 400, "A: \x1b[31m\r\n"),
        fields("value with a DEL", 400, "A: \x7f\r\n"),
        // The host.
        refused("no Host", 400, "GET /healthz HTTP/1.1\r\n\r\n"),
        fields("two Hosts", 400, "Host: h\r\n"),
        fields("two Hosts in other letters", 400, "hOST: other\r\n"),
        refused("empty Host", 400, "GET /healthz HTTP/1.1\r\nHost:\r\n\r\n"),
        refused("Host with a space", 400, "GET /healthz HTTP/1.1\r\nHost: a b\r\n\r\n"),
        refused("Host with a path", 400, "GET /healthz HTTP/1.1\r\nHost: h/x\r\n\r\n"),
        refused("Host with a user", 400, "GET /healthz HTTP/1.1\r\nHost: u@h\r\n\r\n"),
        refused("list of Hosts", 400, "GET /healthz HTTP/1.1\r\nHost: h, i\r\n\r\n"),
        refused("Host with a wrong port", 400, "GET /healthz HTTP/1.1\r\nHost: h:65536\r\n\r\n"),
        refused("Host with half an address", 400, "GET /healthz HTTP/1.1\r\nHost: [::1\r\n\r\n"),
        // One body, one length.
        body("length and chunks", 400, "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        body("chunks and length", 400, "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"),
        body("two lengths", 400, "Content-Length: 5\r\nContent-Length: 6\r\n", "hello!"),
        body("two equal lengths", 400, "Content-Length: 5\r\nContent-Length: 5\r\n", "hello"),
        body("list of lengths", 400, "Content-Length: 5, 5\r\n", "hello"),
        body("length with a plus", 400, "Content-Length: +5\r\n", "hello"),
        body("length with a minus", 400, "Content-Length: -5\r\n", "hello"),
        body("length in hex", 400, "Content-Length: 0x5\r\n", "hello"),
        body("length with a fraction", 400, "Content-Length: 5.0\r\n", "hello"),
        body("length with a space inside", 400, "Content-Length: 5 0\r\n", "hello"),
        body("length with a form feed", 400, "Content-Length: \x0c5\r\n", "hello"),
        body("length in other digits", 400, "Content-Length: ৫\r\n", "hello"),
        body("empty length", 400, "Content-Length:\r\n", "hello"),
        body("length beyond 64 bits", 400, "Content-Length: 18446744073709551616\r\n", "hello"),
        body("length of 40 digits", 400, "Content-Length: 9999999999999999999999999999999999999999\r\n", ""),
        body("chunked twice in a list", 400, "Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"),
        body(
            "chunked twice in lines",
            400,
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "0\r\n\r\n",
        ),
        body(
            "chunked hidden behind identity",
            400,
            "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
            "0\r\n\r\n",
        ),
        body("gzip and chunked", 400, "Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
        body("identity", 400, "Transfer-Encoding: identity\r\n", ""),
        body("xchunked", 400, "Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
        body("chunked with a parameter", 400, "Transfer-Encoding: chunked;q=1\r\n", "0\r\n\r\n"),
        body("chunked with a vertical tab", 400, "Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n"),
        body("chunked in quotes", 400, "Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n"),
        body("empty encoding", 400, "Transfer-Encoding:\r\n", "0\r\n\r\n"),
        refused("two Hosts in HTTP/1.0", 400, "GET / HTTP/1.0\r\nHost: h\r\nHost: h\r\n\r\n"),
        refused("empty Host in HTTP/1.0", 400, "GET / HTTP/1.0\r\nHost:\r\n\r\n"),
        refused(
            "chunks in HTTP/1.0",
            400,
            "POST /api/rooms HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        // Chunks.
        chunks("chunk without a size", 400, "\r\nhello\r\n0\r\n\r\n"),
        chunks("chunk size that is no number", 400, "xyz\r\nhello\r\n0\r\n\r\n"),
        chunks("chunk size with 0x", 400, "0x5\r\nhello\r\n0\r\n\r\n"),
        chunks("chunk size with a plus", 400, "+5\r\nhello\r\n0\r\n\r\n"),
        chunks("chunk size with a minus", 400, "-5\r\nhello\r\n0\r\n\r\n"),
        chunks("space before a chunk size", 400, " 5\r\nhello\r\n0\r\n\r\n"),
        chunks("space behind a chunk size", 400, "5 \r\nhello\r\n0\r\n\r\n"),
        chunks("chunk size of 17 digits", 400, "00000000000000005\r\nhello\r\n0\r\n\r\n"),
        chunks("chunk size that wraps around", 400, "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        chunks("largest chunk size", 413, "FFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n"),
        chunks("bare LF behind a chunk size", 400, "5\nhello\r\n0\r\n\r\n"),
        chunks("bare CR behind a chunk size", 400, "5\rhello\r\n0\r\n\r\n"),
        chunks("bare LF in an extension", 400, "5;a\nb\r\nhello\r\n0\r\n\r\n"),
        chunks("NUL in an extension", 400, "5;\0\r\nhello\r\n0\r\n\r\n"),
        chunks("chunk longer than its size", 400, "5\r\nhello!\r\n0\r\n\r\n"),
        chunks("chunk shorter than its size", 400, "6\r\nhello\r\n0\r\n\r\n"),
        chunks("bare LF behind a chunk", 400, "5\r\nhello\n0\r\n\r\n"),
        chunks("other bytes behind a chunk", 400, "5\r\nhelloxx0\r\n\r\n"),
        chunks("trailer without a colon", 400, "0\r\nA\r\n\r\n"),
        chunks("folded trailer", 400, "0\r\nA: b\r\n c\r\n\r\n"),
        chunks("bare LF behind the last chunk", 400, "0\r\n\n"),
        // Sizes.
        body("body of 100 TB", 413, "Content-Length: 100000000000000\r\n", ""),
        body("largest length", 413, "Content-Length: 18446744073709551615\r\n", "hello"),
        body("body of one byte too many", 413, "Content-Length: 65537\r\n", ""),
        body("body of 100 TB on request", 413, "Expect: 100-continue\r\nContent-Length: 100000000000000\r\n", ""),
        body("another expectation", 417, "Expect: the-unexpected\r\nContent-Length: 5\r\n", "hello"),
        fields("expectation without a body", 417, "Expect: 200-ok\r\n"),
        fields("101 fields", 431, &"A: b\r\n".repeat(100)),
        fields("10,000 fields", 431, &"A: b\r\n".repeat(10_000)),
        fields("value of 16 KiB", 431, &format!("A: {}\r\n", "x".repeat(16 * 1024))),
        fields("name of 16 KiB", 431, &format!("{}: b\r\n", "x".repeat(16 * 1024))),
        fields("1 MiB of fields", 431, &format!("A: {}\r\n", "x".repeat(12_000)).repeat(85)),
        refused("target of 16 KiB", 431, format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(16 * 1024))),
        refused("method of 16 KiB", 431, "G".repeat(16 * 1024)),
    ];
    let large = "x".repeat(60_000);
    let chunked = format!("EA60\r\n{large}\r\nEA60\r\n{large}\r\n0\r\n\r\n");
    cases.push(chunks("chunks that add up to too much", 413, &chunked));
    cases.push(chunks("trailers without an end", 413, &format!("0\r\n{}", "A: b\r\n".repeat(100_000))));
    cases.push(chunks("extension of 64 KiB", 400, &format!("5;{large}\r\nhello\r\n0\r\n\r\n")));
    // The same faults in WebSocket requests, which have no body at all.
    for (name, lines) in [
        ("WebSocket with length and chunks", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        ("WebSocket with two lengths", "Content-Length: 5\r\nContent-Length: 5\r\n"),
        ("WebSocket with two Hosts", "Host: h\r\n"),
        ("WebSocket with a folded line", "A: b\r\n c\r\n"),
    ] {
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let text = format!("GET /ws HTTP/1.1\r\nHost: h\r\n{upgrade}{lines}\r\n");
        cases.push(refused(name, 400, text));
    }
    // Valid requests with more bytes behind them.
    let get = "GET /healthz HTTP/1.1\r\nHost: h\r\n";
    cases.push(smuggled("pipelining", &format!("{get}\r\n")));
    cases
        .push(smuggled("pipelining in HTTP/1.0", "GET /healthz HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n"));
    cases.push(smuggled("no Host in HTTP/1.0", "GET /healthz HTTP/1.0\r\n\r\n"));
    cases.push(smuggled("no Host in HTTP/1.0, with a body", "GET /healthz HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi"));
    cases.push(smuggled("pipelining behind a body", &format!("{get}Content-Length: 5\r\n\r\nhello")));
    cases.push(smuggled(
        "pipelining behind chunks",
        &format!("{get}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n"),
    ));
    let within = "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n";
    cases.push(smuggled("request within a body", &format!("{get}Content-Length: {}\r\n\r\n{within}", within.len())));
    cases.push(smuggled(
        "request within a chunk",
        &format!("{get}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{within}\r\n0\r\n\r\n", within.len()),
    ));
    cases.push(smuggled(
        "forged fields of a proxy",
        &format!("{get}Adda-Peer: 1.2.3.4:5\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n"),
    ));
    cases
        .push(smuggled("upgrade to h2c", &format!("{get}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n")));
    cases.push(smuggled("upgrade of a page", &format!("{get}Connection: upgrade\r\nUpgrade: websocket\r\n\r\n")));
    cases.push(smuggled("a client that asks to close", &format!("{get}Connection: close\r\n\r\n")));
    // The connection ends with a refusal, whatever is behind it.
    for (name, head, status) in [
        ("a request behind a malformed one", "GET /healthz HTTP/1.1\r\nHost: h\r\nA : b\r\n\r\n", 400),
        (
            "a request behind a body that is too large",
            "POST /api/rooms HTTP/1.1\r\nHost: h\r\nContent-Length: 65537\r\n\r\n",
            413,
        ),
    ] {
        cases.push(refused(name, status, format!("{head}{get}\r\n")));
    }
    cases.push(Case {
        handled: 1,
        ..refused(
            "a request behind an error of a handler",
            404,
            format!("GET /none HTTP/1.1\r\nHost: h\r\n\r\n{get}\r\n"),
        )
    });
    cases.push(smuggled("TE", &format!("{get}TE: chunked, trailers\r\nConnection: TE\r\n\r\n")));
    cases
}

/// Sends and reads at the same time, so that neither side waits for the other; returns all bytes received.
fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE).expect("a connection");
    stream.set_read_timeout(Some(DEADLINE)).expect("a time-out");
    stream.set_write_timeout(Some(DEADLINE)).expect("a time-out");
    let mut sending = stream.try_clone().expect("another handle");
    let mut answer = Vec::new();
    thread::scope(|scope| {
        // The server may respond and close the connection before everything is sent.
        scope.spawn(move || drop(sending.write_all(bytes)));
        // A reset after a response loses nothing: received bytes are kept.
        let _ = stream.read_to_end(&mut answer);
    });
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> Option<u16> {
    answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

/// The number of responses, including one right behind the body of another.
fn status_lines(answer: &str) -> usize {
    answer
        .match_indices("HTTP/1.")
        .filter(|(at, _)| status(&format!("HTTP/1.1{}", answer.get(at + 8..).unwrap_or_default())).is_some())
        .count()
}

#[test]
fn responses_are_counted_wherever_they_begin() {
    assert_eq!(status_lines("HTTP/1.1 400 Bad\r\n\r\nonly HTTP/1.1 and HTTP/1.0"), 1);
    assert_eq!(status_lines("HTTP/1.1 200 OK\r\n\r\nokHTTP/1.0 404 Not Found\r\n"), 2);
    assert_eq!(status_lines(""), 0);
}

#[test]
fn every_hostile_request_gets_its_status_and_nothing_else() {
    let server = Server::start();
    let cases = cases();
    assert!(cases.len() >= 90, "{}", cases.len());
    for _ in 0..20 {
        assert_eq!(server.get("/").status, 200);
    }
    let resident = server.rss_kib();
    let mut failures = Vec::new();
    for case in &cases {
        let before = server.metric("http_requests_total");
        let answer = exchange(server.addr(), &case.bytes);
        // The metrics request counts as one more, and proves that the server still answers.
        let handled = server.metric("http_requests_total") - before - 1;
        let answers = status_lines(&answer);
        if (status(&answer), answers as u64, handled) != (Some(case.status), case.handled.max(1), case.handled) {
            failures.push(format!(
                "{}: {answers} answers, {handled} handled, not {} but {}",
                case.name,
                case.status,
                answer.lines().next().unwrap_or("nothing")
            ));
        }
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        let is_error = body.starts_with("{\"error\":\"") && head.contains("\r\nConnection: close");
        if case.handled == 0 && !is_error {
            failures.push(format!("{}: not an error as others: {answer}", case.name));
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
    let growth = server.rss_kib().saturating_sub(resident);
    assert!(growth < GROWTH_KIB_MAX, "{growth} KiB more");
    assert_eq!(server.get("/").status, 200);
}

#[test]
fn a_line_of_100_mb_is_refused_early() {
    let server = Server::start();
    assert_eq!(server.get("/").status, 200);
    let resident = server.rss_kib();
    for beginning in ["", "GET /healthz HTTP/1.1\r\nHost: h\r\nA: "] {
        let before = server.metric("http_requests_total");
        let mut stream = TcpStream::connect(server.addr()).expect("a connection");
        stream.set_read_timeout(Some(DEADLINE)).expect("a time-out");
        stream.set_write_timeout(Some(DEADLINE)).expect("a time-out");
        let mut reading = stream.try_clone().expect("another handle");
        let answered = thread::spawn(move || {
            let mut answer = Vec::new();
            let _ = reading.read_to_end(&mut answer);
            String::from_utf8_lossy(&answer).into_owned()
        });
        let mut sent = 0;
        let piece = [b'x'; 64 * 1024];
        if stream.write_all(beginning.as_bytes()).is_ok() {
            while sent < 100_000_000 && stream.write_all(&piece).is_ok() {
                sent += piece.len();
            }
        }
        let answer = answered.join().expect("an answer");
        assert_eq!(status(&answer), Some(431), "{answer}");
        assert!(sent < SWALLOWED_BYTES_MAX, "{sent} bytes went in");
        assert_eq!(server.metric("http_requests_total"), before + 1);
    }
    let growth = server.rss_kib().saturating_sub(resident);
    assert!(growth < GROWTH_KIB_MAX, "{growth} KiB more");
}

#[test]
fn a_truncated_head_is_malformed_and_an_endless_head_is_too_slow() {
    let server = Server::start();
    let send = |bytes: &str| {
        let mut stream = TcpStream::connect(server.addr()).expect("a connection");
        stream.set_read_timeout(Some(HEAD_WAIT)).expect("a time-out");
        stream.write_all(bytes.as_bytes()).expect("a request");
        stream
    };
    let read = |mut stream: TcpStream| {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    let beginnings = [
        "",
        "\r\n",
        "GET",
        "GET /healthz HTTP/1.1\r\n",
        "GET /healthz HTTP/1.1\r\nHost: h\r\n",
        "GET /healthz HTTP/1.1\r\nHost: h\r\n\r",
    ];
    for beginning in beginnings {
        let stream = send(beginning);
        stream.shutdown(Shutdown::Write).expect("an end");
        // A client that sent nothing gets no response.
        let expected = (!beginning.is_empty()).then_some(400);
        assert_eq!(status(&read(stream)), expected, "{beginning:?}");
    }
    let started = Instant::now();
    let streams: Vec<TcpStream> = beginnings.map(send).into();
    for (stream, beginning) in streams.into_iter().zip(beginnings) {
        assert_eq!(status(&read(stream)), Some(408), "{beginning:?}");
    }
    assert!(started.elapsed() < HEAD_WAIT, "{:?}", started.elapsed());
    assert_eq!(server.metric("http_requests_total"), 1);
    assert_eq!(server.metric("refusals_total{reason=\"slow\"}"), 6);
}
