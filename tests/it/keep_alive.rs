//! Tests of connections that carry several requests.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{DEADLINE, Response, Server, connect_from, eventually, output, read_response, upgrade_request};

const GET: &str = "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n";
/// Requests that a connection carries.
const REQUESTS_MAX: usize = 100;
/// Idle connections that are kept of an address.
const IDLE_MAX: usize = 8;
/// How long an idle connection is kept, with time for a busy machine.
const IDLE_WAIT: Duration = Duration::from_secs(15 + 15);

fn connect(server: &Server) -> TcpStream {
    connect_from(Ipv4Addr::LOCALHOST, server.addr(), None).expect("a connection")
}

#[track_caller]
fn ask(stream: &mut TcpStream, request: &str) -> Response {
    stream.write_all(request.as_bytes()).expect("a request");
    read_response(stream, DEADLINE).expect("a response")
}

/// All bytes to the end of the connection, which must come.
#[track_caller]
fn rest(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(IDLE_WAIT)).expect("a time-out");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("the end of the connection");
    text
}

/// Whether the server has closed the connection, which is not waited for.
fn is_closed(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a socket");
    let read = stream.peek(&mut [0]);
    stream.set_nonblocking(false).expect("a socket");
    !read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

#[test]
fn curl_uses_a_connection_again() {
    let server = Server::start();
    let urls = ["/", "/api/rooms", "/healthz"].map(|path| format!("http://{}{path}", server.addr()));
    let mut command = Command::new("curl");
    command.args(["-s", "-w", "%{num_connects}\n", "-o", "/dev/null"]).arg(&urls[0]);
    for url in &urls[1..] {
        command.args(["-o", "/dev/null"]).arg(url);
    }
    let printed = String::from_utf8(output(&mut command).stdout).expect("text");
    assert_eq!(printed.split_whitespace().collect::<Vec<_>>(), ["1", "0", "0"]);
    let mut command = Command::new("curl");
    command.args(["-s", "-w", "%{http_code} %{num_connects}\n", "-o", "/dev/null", "-I"]).arg(&urls[0]);
    command.args(["--next", "-s", "-w", "%{http_code} %{num_connects}\n", "-o", "/dev/null"]);
    command.args(["-H", "Content-Type: text/plain", "-d", "hi"]);
    command.arg(format!("http://{}/api/rooms/tea/messages?username=ana", server.addr()));
    command.args(["--next", "-s", "-w", "%{http_code} %{num_connects}\n", "-o", "/dev/null"]).arg(&urls[1]);
    let printed = String::from_utf8(output(&mut command).stdout).expect("text");
    assert_eq!(printed.lines().collect::<Vec<_>>(), ["200 1", "201 0", "200 0"]);
}

#[test]
fn a_connection_carries_requests_of_every_kind_one_after_the_other() {
    let server = Server::start();
    let mut stream = connect(&server);
    let page = ask(&mut stream, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    let tag = page.header("ETag").expect("a tag").to_owned();
    for (request, status, body) in [
        ("HEAD /healthz HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 200, ""),
        (format!("GET / HTTP/1.1\r\nHost: h\r\nIf-None-Match: {tag}\r\n\r\n"), 304, ""),
        ("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 204, ""),
        ("GET /healthz HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc".to_owned(), 200, "ok\n"),
        (
            "GET /healthz HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n".to_owned(),
            200,
            "ok\n",
        ),
        ("\r\nGET /healthz HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 200, "ok\n"),
        ("GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".to_owned(), 200, "ok\n"),
    ] {
        stream.write_all(request.as_bytes()).expect("a request");
        let mut head = Vec::new();
        stream.set_read_timeout(Some(DEADLINE)).expect("a time-out");
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a head");
            head.push(byte[0]);
        }
        let response = Response::parse(&head).expect("a response");
        let mut read = vec![0; body.len()];
        stream.read_exact(&mut read).expect("a body");
        assert_eq!((response.status, &*read), (status, body.as_bytes()), "{request}");
        let expected = if request.contains("close") { "close" } else { "keep-alive" };
        assert_eq!(response.header("Connection"), Some(expected), "{request}");
    }
    assert_eq!(rest(&mut stream), "", "it is closed");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start();
    let mut stream = connect(&server);
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
    let post = "POST /api/rooms/tea/messages?username=ana HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\n";
    let requests = [
        get("/healthz"),
        format!("{post}Content-Length: 3\r\n\r\none"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n"),
        get("/api/rooms/tea"),
        get("/none"),
        get("/healthz"),
    ]
    .concat();
    stream.write_all(requests.as_bytes()).expect("requests");
    let text = rest(&mut stream);
    let found: Vec<&str> = text.match_indices("HTTP/1.1 ").map(|(at, _)| &text[at + 9..at + 12]).collect();
    assert_eq!(found, ["200", "201", "201", "200", "404"], "the last is behind an error: {text}");
    assert!(text.contains("\"seq\":2") && text.contains("ok\n"), "{text}");
    // A WebSocket may follow a request, too.
    let mut stream = connect(&server);
    let upgrade = upgrade_request("/ws/tea/Ana", &[]);
    assert_eq!(ask(&mut stream, GET).status, 200);
    assert_eq!(ask(&mut stream, &upgrade).status, 101);
}

#[test]
fn a_connection_ends_after_an_error_or_a_hundred_requests() {
    let server = Server::unhurried();
    for (request, status) in [
        ("GET /none HTTP/1.1\r\nHost: h\r\n\r\n", 404),
        ("GET /healthz HTTP/1.1\r\nHost: h\r\nA : b\r\n\r\n", 400),
        ("POST /api/rooms HTTP/1.1\r\nHost: h\r\nContent-Length: 65537\r\n\r\n", 413),
        ("POST /api/rooms HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi", 405),
        ("GET /healthz HTTP/1.0\r\n\r\n", 200),
        ("GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 200),
        ("not HTTP\r\n\r\n", 400),
    ] {
        let mut stream = connect(&server);
        assert_eq!(ask(&mut stream, GET).status, 200);
        let response = ask(&mut stream, request);
        assert_eq!((response.status, response.header("Connection")), (status, Some("close")), "{request}");
        assert_eq!(rest(&mut stream), "", "{request}");
    }
    let mut stream = connect(&server);
    for number in 1..=REQUESTS_MAX {
        let expected = if number == REQUESTS_MAX { "close" } else { "keep-alive" };
        assert_eq!(ask(&mut stream, GET).header("Connection"), Some(expected), "{number}");
    }
    assert_eq!(rest(&mut stream), "");
}

#[test]
fn few_idle_connections_of_an_address_are_kept_and_for_a_while() {
    let mut server = Server::start();
    let start = Instant::now();
    let mut streams: Vec<TcpStream> = (0..IDLE_MAX + 3).map(|_| connect(&server)).collect();
    for stream in &mut streams {
        assert_eq!(ask(stream, GET).status, 200);
    }
    eventually("the oldest are closed", DEADLINE, || streams.iter().filter(|stream| is_closed(stream)).count() == 3);
    let mut other = connect_from(Ipv4Addr::new(127, 0, 0, 2), server.addr(), None).expect("a connection");
    assert_eq!(ask(&mut other, GET).status, 200);
    streams.retain(|stream| !is_closed(stream));
    assert_eq!((streams.len(), is_closed(&other)), (IDLE_MAX, false));
    // A request ends the wait, and its connection is the newest then.
    assert_eq!(ask(&mut streams[0], GET).status, 200);
    assert_eq!(rest(&mut other), "");
    let waited = start.elapsed();
    assert!(waited > Duration::from_secs(10) && waited < 2 * IDLE_WAIT, "{waited:?}");
    // Idle connections delay no stop.
    assert_eq!(ask(&mut connect(&server), GET).status, 200);
    let start = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit(DEADLINE).code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn idle_connections_make_room_at_the_limit_on_connections() {
    let server = Server::with(&["--max-connections", "40"]);
    let mut idle: Vec<TcpStream> = (0..3).map(|_| connect(&server)).collect();
    for stream in &mut idle {
        assert_eq!(ask(stream, GET).status, 200);
    }
    let members: Vec<_> = (0..37).map(|_| crate::support::Ws::join(&server, "/ws/tea/Ana")).collect();
    for number in 0..3 {
        let mut stream = connect(&server);
        let request = "GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        assert_eq!(ask(&mut stream, request).status, 200, "{number}");
        assert!(idle.iter().any(is_closed), "{number}");
    }
    drop(members);
}

#[test]
fn behind_a_proxy_each_request_counts_for_its_own_client() {
    let server = Server::with(&["--trusted-proxy", "127.0.0.0/8", "--max-per-ip", "1"]);
    let get = |client: &str| format!("GET /healthz HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: {client}\r\n\r\n");
    let mut streams = [connect(&server), connect(&server)];
    for (stream, client) in [(0, "192.0.2.1"), (1, "192.0.2.2"), (0, "192.0.2.3"), (1, "192.0.2.1"), (1, "192.0.2.1")] {
        assert_eq!(ask(&mut streams[stream], &get(client)).status, 200, "{stream} {client}");
    }
    assert_eq!(ask(&mut streams[0], &get("192.0.2.1")).status, 503, "the other connection is its own");
}
