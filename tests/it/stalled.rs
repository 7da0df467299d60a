//! Tests of peers that stall in a request or a response over HTTP, or on the control socket. They cost the others
//! nothing, and they delay no stop.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::support::{DEADLINE, Response, Server, Ws, connect_from, eventually, raise_descriptor_limit, read_response};

const STALLING: Ipv4Addr = Ipv4Addr::LOCALHOST;
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// How long any other client may wait, on a machine that runs other tests, too. A stalled server needs 40 s to give up.
const ANSWER_WAIT: Duration = Duration::from_secs(15);
/// The limit of a stop.
const STOP_WAIT: Duration = Duration::from_secs(5);
/// Bytes that a reader's socket holds for it; the smallest that the system allows.
const RECEIVE_BYTES: usize = 2_048;
/// The longest page of messages: more than the send buffer of any socket here.
const MESSAGES: usize = 200;
const CONTENT_BYTES: usize = 16 * 1024;
const HISTORY: &str = "/api/rooms/tea/messages?limit=200";
const POST: &str = "POST /api/rooms/jam/messages?username=poster HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\n";
/// Bodies in memory at once.
const BODIES_MAX: usize = 256;

/// A server with a room whose page of messages is long.
#[track_caller]
fn with_long_page(flags: &[&str]) -> Server {
    raise_descriptor_limit();
    let server = Server::with(&[&["--rate", "0", "--max-content", "16384", "--outbox-bytes", "64M"], flags].concat());
    let mut writer = Ws::join(&server, "/ws/tea/Writer");
    for number in 0..MESSAGES {
        writer.command(
            &json!({"content": format!("word {}", "x".repeat(CONTENT_BYTES - 5)), "nonce": format!("{number}")}),
        );
        writer.until(|frame| frame["type"] == "text");
    }
    server
}

/// Sends the head of a GET.
#[track_caller]
fn ask(server: &Server, source: Ipv4Addr, target: &str, receive_bytes: Option<usize>) -> TcpStream {
    let mut stream = connect_from(source, server.addr(), receive_bytes).expect("a connection");
    stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).expect("a request");
    stream
}

/// A response within the time that any client may wait.
#[track_caller]
fn answered(mut stream: TcpStream, what: &str) -> Response {
    read_response(&mut stream, ANSWER_WAIT).unwrap_or_else(|error| panic!("{what}: {error}"))
}

#[track_caller]
fn post(server: &Server, source: Ipv4Addr) -> Response {
    let mut stream = connect_from(source, server.addr(), None).expect("a connection");
    stream.write_all(format!("{POST}Content-Length: 2\r\n\r\nhi").as_bytes()).expect("a request");
    answered(stream, "a POST")
}

/// Checks that other clients are served, whatever they ask for.
#[track_caller]
fn assert_serves_others(server: &Server) {
    for source in [OTHER, STALLING] {
        for target in ["/healthz", "/", "/api/rooms", "/metrics", "/docs/", HISTORY] {
            let response = answered(ask(server, source, target, None), target);
            let length = response.header("Content-Length").and_then(|length| length.parse().ok());
            assert_eq!((response.status, Some(response.body.len())), (200, length), "{target} for {source}");
        }
        assert_eq!(post(server, source).status, 201, "for {source}");
    }
    Ws::join(server, "/ws/jam/Eva").say("hello");
}

#[track_caller]
fn assert_stops(mut server: Server) {
    let begun = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit(DEADLINE).code(), Some(0));
    assert!(begun.elapsed() < STOP_WAIT, "{:?}", begun.elapsed());
}

/// The paths of the page's own files.
fn page_files(server: &Server) -> Vec<String> {
    let page = server.get("/");
    let links = page.text().split("src=\"").chain(page.text().split("href=\"")).skip(1);
    let paths =
        links.filter_map(|link| link.split('"').next()).filter(|link| link.contains('.') && !link.contains(':'));
    paths.map(|path| format!("/{}", path.trim_start_matches('/'))).collect()
}

#[test]
fn clients_that_read_a_response_slowly_delay_no_other() {
    let server = with_long_page(&[]);
    let files = page_files(&server);
    assert!(!files.is_empty(), "{}", server.get("/").text());
    let mut targets =
        vec!["/", "/docs/", "/metrics", "/api/openapi.json", HISTORY, "/api/rooms/tea/messages?limit=200&q=word"];
    targets.extend(files.iter().map(String::as_str));
    let mut readers: Vec<TcpStream> = Vec::new();
    for target in &targets {
        readers.extend((0..3).map(|_| ask(&server, STALLING, target, Some(RECEIVE_BYTES))));
    }
    for reader in &readers {
        reader.set_nonblocking(true).expect("a socket");
    }
    for _ in 0..3 {
        for reader in &mut readers {
            let _ = reader.read(&mut [0; 1024]);
        }
        assert_serves_others(&server);
    }
    assert_stops(server);
}

/// Reads a response slowly, but faster than a reader must.
fn read_steadily(mut stream: TcpStream) -> JoinHandle<Option<Response>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let mut piece = [0; 32 * 1024];
        loop {
            match stream.read(&mut piece) {
                Ok(0) => return Response::parse(&bytes),
                Ok(count) => bytes.extend_from_slice(&piece[..count]),
                Err(error) => panic!("after {} bytes: {error}", bytes.len()),
            }
            thread::sleep(Duration::from_millis(5));
        }
    })
}

#[track_caller]
fn assert_is_long_page(reader: JoinHandle<Option<Response>>) {
    let response = reader.join().expect("the reader").expect("a response");
    assert_eq!(response.json()["data"].as_array().map(Vec::len), Some(MESSAGES));
}

#[test]
fn a_slow_reader_is_cut_off_and_a_steady_one_is_not() {
    let server = with_long_page(&[]);
    let mut slow = ask(&server, STALLING, HISTORY, Some(RECEIVE_BYTES));
    let steady = read_steadily(ask(&server, STALLING, HISTORY, Some(RECEIVE_BYTES)));
    slow.set_read_timeout(Some(Duration::from_millis(500))).expect("a time-out");
    let mut read = 0;
    eventually("the slow reader is cut off", 3 * DEADLINE, || {
        thread::sleep(Duration::from_millis(500));
        read += slow.read(&mut [0; 1024]).unwrap_or(0);
        server.metric("drops_total{reason=\"slow_reader\"}") == 1
    });
    assert!(read < 1024 * 1024, "{read} bytes were read");
    assert_is_long_page(steady);
}

#[test]
fn the_memory_for_responses_is_bounded_and_the_largest_owner_pays() {
    let server = with_long_page(&[]);
    let steady = read_steadily(ask(&server, OTHER, HISTORY, Some(RECEIVE_BYTES)));
    let readers: Vec<TcpStream> = (0..30).map(|_| ask(&server, STALLING, HISTORY, Some(RECEIVE_BYTES))).collect();
    // A response has more than 3 MiB, and an address may have 16 MiB.
    server.wait_for_metric_over("drops_total{reason=\"slow_reader\"}", 18);
    // The reader at the other address has lost nothing.
    assert_is_long_page(steady);
    assert_serves_others(&server);
    drop(readers);
}

/// Begins a POST in one of the ways in which a body can be slow.
fn begin_post(server: &Server, number: usize) -> io::Result<TcpStream> {
    let mut stream = connect_from(STALLING, server.addr(), None)?;
    let fields = match number % 4 {
        0 => "Content-Length: 60000\r\n\r\n",
        1 => "Content-Length: 60000\r\n\r\nslow",
        2 => "Transfer-Encoding: chunked\r\n\r\n4\r\nslow\r\n",
        _ => "Expect: 100-continue\r\nContent-Length: 60000\r\n\r\n",
    };
    stream.write_all(format!("{POST}{fields}").as_bytes())?;
    Ok(stream)
}

#[test]
fn slow_bodies_of_one_address_leave_room_for_others() {
    raise_descriptor_limit();
    let server = Server::unhurried();
    let mut bodies: Vec<TcpStream> =
        (0..2 * BODIES_MAX).map(|number| begin_post(&server, number).expect("a request")).collect();
    for round in 0..5 {
        for source in [OTHER, STALLING] {
            let response = post(&server, source);
            assert_eq!(response.status, 201, "round {round} from {source}: {}", response.text());
        }
        // Some go on a little, which makes them no better.
        for body in bodies.iter_mut().step_by(3) {
            let _ = body.write_all(b"x");
        }
    }
    assert_eq!(server.get("/healthz").status, 200);
    // A client that is cut off learns why.
    let cut_off = bodies.iter_mut().find_map(|body| {
        body.set_read_timeout(Some(Duration::from_millis(1))).ok()?;
        let mut answer = Vec::new();
        let _ = body.read_to_end(&mut answer);
        String::from_utf8(answer).ok().filter(|answer| answer.contains("HTTP/1.1 503"))
    });
    assert!(
        cut_off.as_ref().is_some_and(|answer| answer.contains("Retry-After: 1") && answer.contains("slowest")),
        "{cut_off:?}"
    );
    assert_stops(server);
}

#[test]
fn a_stop_waits_for_no_peer() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("adda.db");
    let server = with_long_page(&["--data", data.to_str().expect("a path")]);
    let readers: Vec<TcpStream> = (0..8).map(|_| ask(&server, STALLING, HISTORY, Some(RECEIVE_BYTES))).collect();
    let bodies: Vec<TcpStream> = (0..8).map(|number| begin_post(&server, number).expect("a request")).collect();
    let mut heads: Vec<TcpStream> =
        (0..8).map(|_| connect_from(STALLING, server.addr(), None).expect("a connection")).collect();
    heads[0].write_all(b"GET / HTTP/1.1\r\nHost:").expect("half a head");
    let members: Vec<Ws> = (0..8).map(|number| Ws::join(&server, &format!("/ws/jam/Stalled{number}"))).collect();
    let mut controls: Vec<UnixStream> =
        (0..8).map(|_| UnixStream::connect(dir.path().join("adda.db.control")).expect("the control socket")).collect();
    for (number, control) in controls.iter_mut().enumerate() {
        let half = if number % 2 == 0 { "{\"" } else { "" };
        control.write_all(half.as_bytes()).expect("half a request");
    }
    assert_stops(server);
    drop((readers, bodies, heads, members, controls));
}
