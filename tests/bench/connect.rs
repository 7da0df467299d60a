//! The load `connect`: two threads open anonymous WebSockets one after another: connect, upgrade, `welcome`, close.
//!
//! A connection counts when both sides have closed it, so that the server is never left with connections to clean up.
//! The server must close the TCP connection first: then no client port is left in TIME_WAIT.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::frame::{self, CLOSE, TEXT};
use crate::histogram::Histogram;
use crate::load::Spans;
use crate::member::handshake;

const THREADS: usize = 2;
/// Time-out of every step.
const WAIT: Duration = Duration::from_secs(10);
/// The close code: the member leaves at once, without a lease.
const NORMAL: [u8; 2] = 1000_u16.to_be_bytes();
/// Consecutive failures after which a thread gives up.
const FAILURES_MAX: u32 = 100;

/// The result of the measured span.
pub struct Connects {
    pub per_s: f64,
    /// Time from the start of a connection to its `welcome`.
    pub p50: Option<Duration>,
    pub p99: Option<Duration>,
    /// Failures over the whole load, and the text of one of them.
    pub failed: u64,
    pub example: Option<String>,
}

/// The result of one thread.
#[derive(Default)]
struct Seen {
    welcomed_after: Vec<Duration>,
    failed: u64,
    example: Option<String>,
}

/// Opens connections until the load ends.
pub fn run(address: SocketAddr, rooms_prefix: &str, spans: Spans) -> Connects {
    let measured_from = Instant::now() + spans.warm_up;
    let end = measured_from + spans.measured;
    let seen: Vec<Seen> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                // Each thread has its own room, so that it gets no frames about the other.
                let room = format!("{rooms_prefix}-{number}");
                scope.spawn(move || open_until(address, &room, measured_from, end))
            })
            .collect();
        let failed = |_| Seen { failed: 1, example: Some("a thread panicked".into()), ..Seen::default() };
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(failed)).collect()
    });
    let mut latency = Histogram::new();
    let mut count = 0;
    for after in seen.iter().flat_map(|seen| &seen.welcomed_after) {
        latency.record(after.as_nanos() as u64);
        count += 1;
    }
    Connects {
        per_s: f64::from(count) / spans.measured.as_secs_f64(),
        p50: latency.quantile(0.5),
        p99: latency.quantile(0.99),
        failed: seen.iter().map(|seen| seen.failed).sum(),
        example: seen.into_iter().find_map(|seen| seen.example),
    }
}

fn open_until(address: SocketAddr, room: &str, measured_from: Instant, end: Instant) -> Seen {
    let mut seen = Seen::default();
    let mut failed_in_a_row = 0;
    while Instant::now() < end && failed_in_a_row < FAILURES_MAX {
        match open_and_close(address, room) {
            Ok(welcomed_after) => {
                failed_in_a_row = 0;
                if (measured_from..end).contains(&Instant::now()) {
                    seen.welcomed_after.push(welcomed_after);
                }
            }
            Err(error) => {
                failed_in_a_row += 1;
                seen.failed += 1;
                seen.example.get_or_insert_with(|| error.to_string());
            }
        }
    }
    seen
}

/// Opens one connection and closes it. Returns the time until its `welcome`.
///
/// # Errors
/// If the server does not accept the connection, send a `welcome` or close.
pub fn open_and_close(address: SocketAddr, room: &str) -> io::Result<Duration> {
    let begun = Instant::now();
    let mut socket = TcpStream::connect_timeout(&address, WAIT)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(WAIT))?;
    let mut bytes = handshake(&mut socket, address, room, "visitor")?;
    let mut chunk = [0; 4096];
    loop {
        if let Some(frame) = frame::first(&bytes)? {
            let is_welcome = frame.head == TEXT && contains(frame.payload, br#""type":"welcome""#);
            if !is_welcome {
                return Err(io::Error::other("the first frame is no welcome"));
            }
            break;
        }
        match socket.read(&mut chunk)? {
            0 => return Err(io::Error::other("the connection ended before the welcome")),
            count => bytes.extend(&chunk[..count]),
        }
    }
    let welcomed_after = begun.elapsed();
    let mut close = Vec::new();
    frame::write_masked(&mut close, CLOSE, [9; 4], &NORMAL);
    socket.write_all(&close)?;
    while socket.read(&mut chunk)? > 0 {}
    Ok(welcomed_after)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
