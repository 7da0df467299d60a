//! Thousands of clients join one room: the bytes sent stay in proportion to their number, and each gets its `welcome`
//! soon.
//!
//! `ADDA_CROWD=12000 cargo test --test it crowd -- --nocapture` joins 12,000 clients in 20 s, on the binary in
//! `ADDA_BIN` if that is set.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::net::{RecvFlags, recv};

use crate::crash::joined;
use crate::support::{DEADLINE, Event, Server, Ws, raise_descriptor_limit, upgrade_request};

/// The number of clients without `ADDA_CROWD`.
const CROWD: usize = 1_000;
/// 12,000 clients join within 20 s.
const JOINS_PER_S: usize = 600;
/// Bytes sent per join on average: 400 MB for 12,000 joins. With one frame per join to each member, it would be 125 KB
/// for a thousand joins and more than a megabyte for 12,000.
const BYTES_PER_JOIN_MAX: u64 = 33_333;
/// Maximum time to a `welcome`, alone and on a machine that runs other tests in a debug build.
const WELCOME_MAX: Duration = Duration::from_secs(1);
const WELCOME_BESIDE_OTHERS_MAX: Duration = Duration::from_secs(5);
/// How long no data arrives until no more is expected: longer than the interval between two presence frames.
const QUIET: Duration = Duration::from_millis(2_500);

/// A client that joins. Of the bytes after the `welcome` it only counts the number.
struct Joiner {
    socket: TcpStream,
    asked: Instant,
    /// The response to the handshake and the first frame, until that is complete.
    head: Vec<u8>,
    welcomed_after: Option<Duration>,
    bytes: u64,
    has_ended: bool,
}

impl Joiner {
    fn read(&mut self, buffer: &mut [u8]) {
        loop {
            let flags = if self.welcomed_after.is_some() { RecvFlags::TRUNC } else { RecvFlags::empty() };
            let count = match recv(&self.socket, &mut *buffer, flags) {
                Ok((_, 0)) => return self.has_ended = true,
                Ok((_, count)) => count,
                Err(error) if std::io::Error::from(error).kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.has_ended = true,
            };
            self.bytes += count as u64;
            if self.welcomed_after.is_none() {
                self.head.extend(&buffer[..count]);
                if let Some(first) = first_frame(&self.head) {
                    let text = String::from_utf8_lossy(first);
                    assert!(text.contains(r#""type":"welcome""#), "the first frame: {text}");
                    self.welcomed_after = Some(self.asked.elapsed());
                    self.head = Vec::new();
                }
            }
        }
    }
}

/// The payload of the first frame after the response to the handshake, if it is complete.
fn first_frame(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    assert!(bytes.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&bytes[..end]));
    let frame = &bytes[end..];
    let (start, length) = match frame {
        [0x81, 126, a, b, ..] => (4, usize::from(u16::from_be_bytes([*a, *b]))),
        [0x81, 127, _, _, _, _, a, b, c, d, ..] => (10, u32::from_be_bytes([*a, *b, *c, *d]) as usize),
        [0x81, 126 | 127, ..] | [0x81] | [] => return None,
        [0x81, short, ..] => (2, usize::from(*short)),
        [other, ..] => panic!("a frame that begins with {other:#x}"),
    };
    frame.get(start..start + length)
}

/// All clients, on one thread.
struct Crowd {
    epoll: rustix::fd::OwnedFd,
    joiners: Vec<Joiner>,
    events: Vec<epoll::Event>,
    buffer: Vec<u8>,
}

impl Crowd {
    fn new() -> Self {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll");
        Self { epoll, joiners: Vec::new(), events: Vec::with_capacity(1_024), buffer: vec![0; 256 * 1024] }
    }

    fn join(&mut self, server: &Server, number: usize) {
        let asked = Instant::now();
        let mut socket = TcpStream::connect_timeout(&server.addr(), DEADLINE).expect("a connection");
        let target = format!("/ws?room=crowd&username=member-{number:05}&history=0");
        socket.write_all(upgrade_request(&target, &[]).as_bytes()).expect("a request");
        socket.set_nonblocking(true).expect("a socket");
        let flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(number as u64), flags).expect("a place");
        let joiner = Joiner { socket, asked, head: Vec::new(), welcomed_after: None, bytes: 0, has_ended: false };
        self.joiners.push(joiner);
    }

    /// Reads available data, waiting at most for `wait`; returns whether there was any.
    fn turn(&mut self, wait: Duration) -> bool {
        let wait = Timespec::try_from(wait).expect("a time");
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&wait)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return false,
            Err(error) => panic!("{error}"),
        }
        for event in &self.events {
            self.joiners[event.data.u64() as usize].read(&mut self.buffer);
        }
        !self.events.is_empty()
    }

    fn bytes(&self) -> u64 {
        self.joiners.iter().map(|joiner| joiner.bytes).sum()
    }
}

/// A member that follows the member count until it is told to stop.
fn follow(mut ws: Ws, is_over: &AtomicBool) -> u64 {
    let mut count = ws.welcome["member_count"].as_u64().expect("a number");
    while !is_over.load(Ordering::Relaxed) {
        match ws.event_within(Duration::from_millis(100)) {
            Some(Event::Frame(frame)) => match frame["type"].as_str() {
                Some("join") => count += 1,
                Some("leave") => count -= 1,
                Some("presence") => count = frame["member_count"].as_u64().expect("a number"),
                _ => {}
            },
            Some(event) => panic!("{event:?}"),
            None => {}
        }
    }
    count
}

#[test]
fn joins_of_a_crowd_are_fast_and_cost_bytes_in_proportion() {
    let named = std::env::var("ADDA_CROWD").ok();
    let size = named.as_ref().map_or(CROWD, |text| text.parse().expect("ADDA_CROWD is a number"));
    let binary = named.as_ref().and_then(|_| std::env::var_os("ADDA_BIN"));
    let binary = binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_adda").into());
    raise_descriptor_limit();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new(binary);
    command.args(["--listen", "127.0.0.1:0", "--rate", "0", "--ping-interval", "300s", "--data"]);
    command.arg(dir.path().join("adda.db"));
    let server = Server::spawn(command);
    let follower = Ws::join(&server, "/ws/crowd/follower");
    let is_over = AtomicBool::new(false);
    let (mut crowd, joined_after, followed) = thread::scope(|scope| {
        let followed = scope.spawn(|| follow(follower, &is_over));
        let mut crowd = Crowd::new();
        let begun = Instant::now();
        for number in 0..size {
            let due = begun + Duration::from_secs(1) * number as u32 / JOINS_PER_S as u32;
            // At least once, so that no reading client becomes a slow consumer.
            crowd.turn(due.saturating_duration_since(Instant::now()));
            while Instant::now() < due {
                crowd.turn(due.saturating_duration_since(Instant::now()));
            }
            crowd.join(&server, number);
        }
        let end = Instant::now() + DEADLINE;
        while crowd.joiners.iter().any(|joiner| joiner.welcomed_after.is_none()) && Instant::now() < end {
            crowd.turn(Duration::from_millis(50));
        }
        let joined_after = begun.elapsed();
        let (mut bytes, mut since) = (crowd.bytes(), Instant::now());
        while since.elapsed() < QUIET {
            crowd.turn(Duration::from_millis(50));
            if crowd.bytes() != bytes {
                (bytes, since) = (crowd.bytes(), Instant::now());
            }
        }
        is_over.store(true, Ordering::Relaxed);
        (crowd, joined_after, joined(followed))
    });
    let welcomed: Vec<Duration> = crowd.joiners.iter().filter_map(|joiner| joiner.welcomed_after).collect();
    let slowest = welcomed.iter().max().copied().unwrap_or_default();
    let (bytes, ended) = (crowd.bytes(), crowd.joiners.iter().filter(|joiner| joiner.has_ended).count());
    println!(
        "{} of {size} joined in {joined_after:?}, the slowest welcome after {slowest:?}; {:.1} MB in all, {} bytes a join",
        welcomed.len(),
        bytes as f64 / 1e6,
        bytes / size as u64,
    );
    assert_eq!((welcomed.len(), ended), (size, 0), "welcomed, and ended");
    assert!(bytes <= BYTES_PER_JOIN_MAX * size as u64, "{} bytes a join", bytes / size as u64);
    let welcome_max = if named.is_some() { WELCOME_MAX } else { WELCOME_BESIDE_OTHERS_MAX };
    assert!(slowest <= welcome_max, "the slowest welcome came after {slowest:?}");
    // The count has all members: for a member from the beginning, and for a new one.
    assert_eq!(followed, size as u64 + 1);
    let last = Ws::join(&server, "/ws/crowd/last");
    assert_eq!(last.welcome["member_count"], size as u64 + 1, "the one who followed has left");
    assert!(last.welcome["members"].as_array().is_some_and(|members| members.len() <= 200), "200 are named at most");
    crowd.turn(Duration::ZERO);
}
