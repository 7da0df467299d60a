//! One address attacks the server for a minute with 200 connections in every way at once. A chat beside it loses nothing
//! and stays quick, other addresses are answered, memory comes back, and the server stops in time.
//!
//! It measures times, and so it runs only when it is asked for: `cargo test --release --test it -- --ignored attack
//! --nocapture`.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use adda::threads::lower_priority;
use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    DEADLINE, Server, Ws, connect_from, get_from, raise_descriptor_limit, read_response, upgrade_request,
};

const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 5);
const ATTACK: Duration = Duration::from_secs(60);
/// Between two messages of the chat, which is below the default rate of a user.
const PACE: Duration = Duration::from_millis(125);
const READERS: usize = 4;
/// What the 200 connections do.
const KINDS: [(&str, usize, Attack); 9] = [
    ("slow readers", 30, slow_reader),
    ("slow bodies", 30, slow_body),
    ("heads that never end", 20, slow_head),
    ("searches", 20, search),
    ("logins", 20, log_in),
    ("handshakes", 30, handshake),
    ("posts", 20, post),
    ("joins", 20, join),
    ("members that never read", 10, stalled_member),
];

/// One connection's attack, until it is cut off. It is then begun again.
type Attack = fn(SocketAddr, &AtomicBool) -> io::Result<()>;

fn open(address: SocketAddr, receive_bytes: Option<usize>) -> io::Result<TcpStream> {
    let stream = connect_from(ATTACKER, address, receive_bytes)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    Ok(stream)
}

fn request(stream: &mut TcpStream, head: &str, body: &str) -> io::Result<()> {
    let head = format!(
        "{head} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes())?;
    read_response(stream, Duration::from_secs(5)).map(drop)
}

fn slow_reader(address: SocketAddr, stop: &AtomicBool) -> io::Result<()> {
    let mut stream = open(address, Some(2_048))?;
    stream.write_all(b"GET /api/rooms/long/messages?limit=200 HTTP/1.1\r\nHost: h\r\n\r\n")?;
    let mut part = [0; 1_024];
    while !stop.load(Ordering::Relaxed) && stream.read(&mut part)? > 0 {
        thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

fn drip(mut stream: TcpStream, stop: &AtomicBool) -> io::Result<()> {
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(b"x")?;
        thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

fn slow_body(address: SocketAddr, stop: &AtomicBool) -> io::Result<()> {
    let mut stream = open(address, None)?;
    stream.write_all(b"POST /api/rooms/tea/messages HTTP/1.1\r\nHost: h\r\nContent-Length: 60000\r\n\r\n")?;
    drip(stream, stop)
}

fn slow_head(address: SocketAddr, stop: &AtomicBool) -> io::Result<()> {
    let mut stream = open(address, None)?;
    stream.write_all(b"GET / HTTP/1.1\r\nX: ")?;
    drip(stream, stop)
}

fn search(address: SocketAddr, stop: &AtomicBool) -> io::Result<()> {
    let mut stream = open(address, None)?;
    while !stop.load(Ordering::Relaxed) {
        request(&mut stream, "GET /api/rooms/long/messages?q=a+b+c+d+e+f+g+h+i+j+k+l+m+n+o+p&limit=200", "")?;
    }
    Ok(())
}

fn log_in(address: SocketAddr, stop: &AtomicBool) -> io::Result<()> {
    let mut stream = open(address, None)?;
    while !stop.load(Ordering::Relaxed) {
        request(&mut stream, "POST /api/session", r#"{"username":"boss","password":"not this one"}"#)?;
    }
    Ok(())
}

fn websocket(address: SocketAddr, room: &str, receive_bytes: Option<usize>) -> io::Result<TcpStream> {
    let mut stream = open(address, receive_bytes)?;
    stream.write_all(upgrade_request(&format!("/ws/{room}/Mallory"), &[]).as_bytes())?;
    match read_response(&mut stream, Duration::from_secs(5))?.status {
        101 => Ok(stream),
        _ => Err(io::ErrorKind::ConnectionRefused.into()),
    }
}

fn handshake(address: SocketAddr, _: &AtomicBool) -> io::Result<()> {
    websocket(address, "tea", None).map(drop)
}

fn post(address: SocketAddr, stop: &AtomicBool) -> io::Result<()> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let mut stream = open(address, None)?;
    while !stop.load(Ordering::Relaxed) {
        let room = NUMBER.fetch_add(1, Ordering::Relaxed) % 1_000;
        request(&mut stream, &format!("POST /api/rooms/spam{room}/messages"), r#"{"content":"spam"}"#)?;
    }
    Ok(())
}

fn join(address: SocketAddr, stop: &AtomicBool) -> io::Result<()> {
    let mut stream = websocket(address, "tea", None)?;
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let kind = if number % 2 == 0 { "join" } else { "leave" };
        let command = json!({"type": kind, "room_id": format!("side{}", number / 2 % 40)}).to_string();
        stream.write_all(&crate::support::masked_frame(0x81, command.as_bytes()))?;
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn stalled_member(address: SocketAddr, stop: &AtomicBool) -> io::Result<()> {
    let stream = websocket(address, "chat", Some(2_048))?;
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(100));
        // It notices only whether it was cut off.
        if stream.peek(&mut []).is_err() {
            break;
        }
    }
    Ok(())
}

/// Ends the attack.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn percentile(took: &mut [Duration], percent: usize) -> Duration {
    took.sort_unstable();
    took[(took.len() - 1) * percent / 100]
}

#[test]
#[ignore = "takes a minute and measures times"]
fn an_attack_from_one_address_harms_no_one_else() {
    raise_descriptor_limit();
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("adda.db");
    crate::support::adda_given(&data, &["user", "add", "boss"], "kettle on the stove\n");
    let mut server = Server::with(&["--data", data.to_str().expect("a plain path")]);
    let address = server.addr();
    let mut writer = Ws::join(&server, "/ws/long/Writer");
    for number in 0..200 {
        writer.command(&json!({"content": format!("{number} {}", "a b c d e f ".repeat(600))}));
        writer.until(|frame| frame["type"] == "text" || frame["type"] == "error");
        thread::sleep(Duration::from_millis(20));
    }
    drop(writer);
    let mut sender = Ws::join(&server, "/ws/chat/Sender");
    let readers: Vec<_> = (0..READERS).map(|number| Ws::join(&server, &format!("/ws/chat/Reader{number}"))).collect();
    let before_kib = server.rss_kib();
    let (stop, begun, most_kib) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let (mut deliveries, mut answers) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let stop = &stop;
        // The attack ends with a failed check, too.
        let _ended = Ended(stop);
        for (_, count, attack) in KINDS {
            for _ in 0..count {
                let begun = &begun;
                scope.spawn(move || {
                    // The clients that are measured run on the same cores.
                    lower_priority(15);
                    while !stop.load(Ordering::Relaxed) {
                        begun.fetch_add(1, Ordering::Relaxed);
                        if attack(address, stop).is_err() {
                            thread::sleep(Duration::from_millis(5));
                        }
                    }
                });
            }
        }
        let started = Instant::now();
        let hearing: Vec<_> = readers
            .into_iter()
            .map(|mut reader| {
                scope.spawn(move || {
                    let mut heard = Vec::new();
                    loop {
                        let frame = reader.until(|frame| frame["type"] == "text");
                        if frame["content"] == "end" {
                            return heard;
                        }
                        heard.push((frame["content"].as_str().expect("a text").to_owned(), Instant::now()));
                    }
                })
            })
            .collect();
        let probing = scope.spawn(move || {
            let mut took = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                for target in ["/", "/api/rooms", "/healthz"] {
                    let start = Instant::now();
                    let response = get_from(address, OTHER, target).expect("an answer");
                    assert_eq!(response.status, 200, "{target}");
                    took.push(start.elapsed());
                }
                thread::sleep(PACE);
            }
            took
        });
        let mut sent = Vec::new();
        while started.elapsed() < ATTACK {
            sent.push(Instant::now());
            sender.say(&format!("{}", sent.len() - 1));
            sender.until(|frame| frame["content"] == format!("{}", sent.len() - 1));
            most_kib.fetch_max(server.rss_kib(), Ordering::Relaxed);
            thread::sleep(PACE);
        }
        sender.say("end");
        for heard in hearing {
            let heard = heard.join().expect("a reader");
            let contents: Vec<_> = heard.iter().map(|(content, _)| content.as_str()).collect();
            let wanted: Vec<_> = (0..sent.len()).map(|number| number.to_string()).collect();
            assert_eq!(contents, wanted, "nothing is lost, and all is in order");
            deliveries.extend(heard.iter().zip(&sent).map(|((_, at), sent)| at.duration_since(*sent)));
        }
        // The attack goes on while the server stops.
        let stopping = Instant::now();
        stop.store(true, Ordering::Relaxed);
        answers = probing.join().expect("the answers");
        println!("probes ended after {:?}", stopping.elapsed());
    });
    let p99 = percentile(&mut deliveries, 99);
    let (worst, most_kib) = (percentile(&mut answers, 100), most_kib.into_inner());
    println!(
        "{} messages: p50 {:?}, p99 {p99:?}, slowest {:?}; {} answers: p99 {:?}, slowest {worst:?}; {} connections begun; \
         memory {before_kib} KiB, at most {most_kib} KiB",
        deliveries.len() / READERS,
        percentile(&mut deliveries, 50),
        percentile(&mut deliveries, 100),
        answers.len(),
        percentile(&mut answers, 99),
        begun.into_inner(),
    );
    let end = Instant::now() + DEADLINE;
    let mut after_kib = server.rss_kib();
    while after_kib > before_kib + 8 * 1_024 && Instant::now() < end {
        thread::sleep(Duration::from_millis(500));
        after_kib = server.rss_kib();
    }
    println!("memory afterwards {after_kib} KiB");
    assert!(p99 < Duration::from_millis(50), "{p99:?}");
    assert!(worst < Duration::from_millis(250), "{worst:?}");
    assert!(most_kib < before_kib + 32 * 1_024, "{before_kib} KiB, and then {most_kib} KiB");
    // A stop is quick in the middle of an attack, too.
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for (_, _, attack) in KINDS {
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let _ = attack(address, stop);
                    thread::sleep(Duration::from_millis(5));
                }
            });
        }
        thread::sleep(Duration::from_secs(1));
        server.signal(Signal::TERM);
        let stopping = Instant::now();
        server.wait_exit(Duration::from_secs(5));
        println!("stopped within {:?}", stopping.elapsed());
        stop.store(true, Ordering::Relaxed);
    });
}
