//! Hundreds of slow and idle connections while a room chats: the room is not affected, and no resources leak.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{
    DEADLINE, Server, Ws, eventually, exchange, raise_descriptor_limit, read_response, upgrade_request,
};

const DRIPPING: usize = 150;
const IDLE: usize = 150;
/// The deadline of a head, plus time for a busy machine.
const HEAD_WAIT: Duration = Duration::from_secs(10 + 5);
/// Maximum delivery time of a message, on a machine that runs other tests, too.
const DELIVERY_MAX: Duration = Duration::from_millis(500);
/// The interval between two messages.
const PACE: Duration = Duration::from_millis(10);

/// Two members exchange messages until they are told to stop; returns how long each message took.
fn chat(writer: &mut Ws, reader: &mut Ws, stop: &AtomicBool) -> Vec<Duration> {
    let mut took = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let content = format!("message {}", took.len());
        let start = Instant::now();
        writer.say(&content);
        reader.until(|frame| frame["content"] == content);
        took.push(start.elapsed());
        writer.until(|frame| frame["content"] == content);
        thread::sleep(PACE);
    }
    took
}

/// Opens many heads that never end and many WebSockets that never pong, and waits until all are closed.
fn wave(server: &Server) {
    let connect = || TcpStream::connect(server.addr()).expect("a connection");
    let idle = |_| {
        let mut stream = connect();
        stream.write_all(upgrade_request("/ws/crowd/Idle", &[]).as_bytes()).expect("a request");
        let status = read_response(&mut stream, DEADLINE).expect("an answer").status;
        assert_eq!(status, 101);
        stream
    };
    let start = Instant::now();
    let mut dripping: Vec<TcpStream> = (0..DRIPPING).map(|_| connect()).collect();
    let idle: Vec<TcpStream> = (0..IDLE).map(idle).collect();
    let head = b"GET /api/rooms HTTP/1.1\r\nHost: localhost\r\nX-Drip: ".iter().chain(std::iter::repeat(&b'x'));
    for byte in head {
        dripping.retain_mut(|stream| stream.write_all(&[*byte]).is_ok());
        if dripping.is_empty() {
            break;
        }
        assert!(start.elapsed() < HEAD_WAIT, "{} heads still drip", dripping.len());
        thread::sleep(Duration::from_millis(50));
    }
    eventually("the idle ones are gone", HEAD_WAIT, || server.metric("members") == 2);
    drop(idle);
}

#[test]
fn a_room_is_unaffected_by_hundreds_of_slow_and_idle_connections() {
    raise_descriptor_limit();
    let server = Server::with(&["--rate", "0", "--ping-interval", "2s"]);
    let mut writer = Ws::join(&server, "/ws/tea/Writer");
    let mut reader = Ws::join(&server, "/ws/tea/Reader");
    let stop = AtomicBool::new(false);
    let mut took = thread::scope(|scope| {
        let chatting = scope.spawn(|| chat(&mut writer, &mut reader, &stop));
        // After the first wave the server has what it keeps: stacks, the allocator's memory, its own threads.
        wave(&server);
        let at_rest = |server: &Server| (server.threads(), server.fds());
        // `tiny_http`'s spare threads end by themselves after a while.
        let mut rest = at_rest(&server);
        eventually("the server is at rest", DEADLINE, || {
            let now = at_rest(&server);
            let steady = now.0 <= 32 && now.1 <= 64;
            rest = now;
            steady
        });
        let before_kib = server.rss_kib();
        wave(&server);
        eventually("threads and descriptors are back where they were", DEADLINE, || {
            let now = at_rest(&server);
            now.0 <= rest.0 && now.1 <= rest.1
        });
        let grown_kib = server.rss_kib().saturating_sub(before_kib);
        assert!(grown_kib < 3 * 1024, "{grown_kib} KiB stay of the second wave");
        stop.store(true, Ordering::Relaxed);
        chatting.join().expect("the chat")
    });
    took.sort();
    let p99 = took[took.len() * 99 / 100];
    println!("{} messages, p99 {p99:?}, longest {:?}", took.len(), took[took.len() - 1]);
    assert!(took.len() > 200, "only {} messages", took.len());
    assert!(p99 < DELIVERY_MAX, "p99 {p99:?}");
    let slow = server.metric("refusals_total{reason=\"slow\"}");
    let idle = server.metric("drops_total{reason=\"idle\"}");
    assert_eq!((slow, idle), (2 * DRIPPING as u64, 2 * IDLE as u64), "each is counted by its reason");
}

#[test]
fn a_crowd_that_leaves_frees_all_resources() {
    raise_descriptor_limit();
    let server = Server::unhurried();
    let mut watcher = Ws::join(&server, "/ws/watch/Watcher");
    for _ in 0..3 {
        let crowd: Vec<Ws> = (0..100).map(|n| Ws::join(&server, &format!("/ws/crowd{}/Guest{n}", n % 10))).collect();
        server.wait_for_metric("members", 101);
        server.wait_for_metric("rooms", 11);
        drop(crowd);
        server.wait_for_metric("members", 1);
        server.wait_for_metric("rooms", 1);
    }
    eventually("only the watcher's connection is left", DEADLINE, || server.fds() < 32);
    watcher.expect_nothing_else();
}

#[test]
fn an_address_makes_few_rooms_at_once() {
    let server = Server::with(&["--trusted-proxy", "127.0.0.1"]);
    let post = |address: &str, room: &str| {
        let headers = [("X-Forwarded-For", address)];
        let body = Some(json!({"content": "hi"}));
        let target = format!("/api/rooms/{room}/messages");
        exchange(server.addr(), "POST", &target, &headers, body.as_ref()).expect("an answer")
    };
    assert_eq!(post("198.51.100.1", "tea").status, 201);
    let made = (0..100).take_while(|number| post("203.0.113.7", &format!("junk-{number}")).status == 201).count();
    assert!((20..25).contains(&made), "{made}");
    let refused = post("203.0.113.7", "one-more");
    assert_eq!((refused.status, &refused.json()["reason"]), (429, &"rate_limited".into()));
    assert!(refused.header("Retry-After").is_some() && refused.text().contains("new rooms"), "{}", refused.text());
    // By a WebSocket it is the same, and old rooms and other addresses go on.
    let mut ws = Ws::connect_with(&server, "/ws/junk/Ana", &[("X-Forwarded-For", "203.0.113.7")]);
    ws.expect("welcome");
    ws.command(&json!({"content": "hi", "nonce": "n"}));
    assert_eq!(ws.until(|frame| frame["nonce"] == "n")["reason"], "rate_limited");
    assert_eq!((post("203.0.113.7", "tea").status, post("198.51.100.1", "new").status), (201, 201));
    // The first messages of a room count once, though they are sent before the room is there.
    let mut ben = Ws::connect_with(&server, "/ws/fresh/Ben", &[("X-Forwarded-For", "198.51.100.2")]);
    ben.expect("welcome");
    (0..25).for_each(|number| ben.say(&format!("message {number}")));
    ben.until(|frame| frame["content"] == "message 24");
}
