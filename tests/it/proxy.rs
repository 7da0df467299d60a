//! A faulty network on loopback: a proxy that cuts, stalls, fragments and slows its connections.
//!
//! Two threads carry each connection, one per direction. The fault of a connection is drawn when it is accepted, from
//! the proxy's seed. The proxy never changes a byte: the receiver gets the sent bytes, or a prefix of them.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::random::Random;

/// Bytes that are carried at once.
const PIECE_BYTES: usize = 4096;
/// Bytes per second of a slow line, and its interval.
const SLOW_BYTES_PER_S: u64 = 1024;
const SLOW_TICK: Duration = Duration::from_millis(50);

/// The fault of one direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// No fault.
    Good,
    /// After this number of bytes both directions of the connection end.
    Cut { after: u64 },
    /// After this number of bytes the line stalls for a while, and then delivers all waiting bytes.
    BlackHole { after: u64, lasts: Duration },
    /// Every byte arrives alone.
    Slices,
    /// The first bytes, of this number, arrive at 1 KB/s.
    Slow { first: u64 },
}

/// The two lines of one connection: from the client, and to the client.
#[derive(Debug, Clone, Copy)]
pub struct Lines {
    pub up: Line,
    pub down: Line,
}

impl Lines {
    pub const GOOD: Self = Self { up: Line::Good, down: Line::Good };

    /// Random faults; every connection is cut at last, in one direction or the other.
    pub fn rolled(random: &mut Random) -> Self {
        // From within the handshake, of about 200 bytes, to hundreds of messages later.
        let magnitude = random.within(5..17);
        let cut = Line::Cut { after: 1 + random.within(0..1 << magnitude) };
        let other = match random.within(0..6) {
            0 => Line::BlackHole {
                after: random.within(0..5_000),
                lasts: Duration::from_millis(random.within(50..1_500)),
            },
            1 => Line::Slices,
            2 => Line::Slow { first: random.within(1..1_500) },
            _ => Line::Good,
        };
        if random.once_in(2) { Self { up: cut, down: other } } else { Self { up: other, down: cut } }
    }
}

/// A running proxy; dropping it ends its connections.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    upstream: SocketAddr,
    ended: AtomicBool,
    calm: AtomicBool,
    accepted: AtomicU64,
    cut: AtomicU64,
    /// Both ends of every connection.
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// Carries connections to `upstream`, each on lines that `lines` returns.
    pub fn start(upstream: SocketAddr, lines: impl FnMut() -> Lines + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            upstream,
            ended: AtomicBool::new(false),
            calm: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            open: Mutex::new(Vec::new()),
        });
        let accepting = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.accept(&listener, lines))
        };
        Self { address, shared, accepting: Some(accepting) }
    }

    /// The address for clients.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Cuts all connections; later ones have no faults.
    pub fn calm_down(&self) {
        self.shared.calm.store(true, Ordering::SeqCst);
        self.shared.cut_all();
    }

    /// The number of connections so far, and of those that the proxy has cut.
    pub fn counts(&self) -> (u64, u64) {
        (self.shared.accepted.load(Ordering::SeqCst), self.shared.cut.load(Ordering::SeqCst))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the accepting thread; this fails if the thread has ended.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        self.shared.cut_all();
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener, mut lines: impl FnMut() -> Lines) {
        while let Ok((client, _)) = listener.accept() {
            if self.ended.load(Ordering::SeqCst) {
                return;
            }
            self.accepted.fetch_add(1, Ordering::SeqCst);
            // If the server is down, the connection ends at once.
            let Ok(server) = TcpStream::connect(self.upstream) else { continue };
            // The lock is held to the end, so that `calm_down` finds each connection here, or the connection gets a
            // good line.
            let mut open = self.open.lock().expect("no thread panics with it");
            let lines = if self.calm.load(Ordering::SeqCst) { Lines::GOOD } else { lines() };
            let pairs = [(&client, &server, lines.up), (&server, &client, lines.down)];
            for (from, to, line) in pairs {
                to.set_nodelay(true).expect("a socket takes an option");
                let own = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
                let (from, to, shared) = (own(from), own(to), Arc::clone(self));
                thread::spawn(move || shared.carry(from, to, line));
            }
            open.retain(|stream| stream.peer_addr().is_ok());
            open.extend([client, server]);
        }
    }

    /// Ends every connection.
    fn cut_all(&self) {
        for stream in self.open.lock().expect("no thread panics with it").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Carries one direction to its end.
    fn carry(&self, mut from: TcpStream, mut to: TcpStream, line: Line) {
        let mut buffer = [0; PIECE_BYTES];
        let mut carried = 0;
        loop {
            let count = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            match pass(&mut to, &buffer[..count], line, carried) {
                Ok(true) => carried += count as u64,
                Ok(false) => {
                    self.cut.fetch_add(1, Ordering::SeqCst);
                    let _ = from.shutdown(Shutdown::Both);
                    let _ = to.shutdown(Shutdown::Both);
                    return;
                }
                Err(_) => break,
            }
        }
        // All bytes that were read have been passed on, and so is the end.
        let _ = from.shutdown(Shutdown::Read);
        let _ = to.shutdown(Shutdown::Write);
    }
}

/// Passes on a piece, after `carried` earlier bytes. Returns false if the line is cut in it.
fn pass(to: &mut TcpStream, piece: &[u8], line: Line, carried: u64) -> std::io::Result<bool> {
    let left = |bytes: u64| usize::try_from(bytes.saturating_sub(carried)).unwrap_or(usize::MAX).min(piece.len());
    match line {
        Line::Good => to.write_all(piece)?,
        Line::Cut { after } => {
            let whole = left(after);
            to.write_all(&piece[..whole])?;
            return Ok(whole == piece.len());
        }
        Line::BlackHole { after, lasts } => {
            let (before, behind) = piece.split_at(left(after));
            to.write_all(before)?;
            if !behind.is_empty() && carried <= after {
                thread::sleep(lasts);
            }
            to.write_all(behind)?;
        }
        Line::Slices => {
            for byte in piece.chunks(1) {
                to.write_all(byte)?;
            }
        }
        Line::Slow { first } => {
            let (slow, fast) = piece.split_at(left(first));
            let bytes_per_tick = SLOW_BYTES_PER_S * SLOW_TICK.as_millis() as u64 / 1000;
            for part in slow.chunks(bytes_per_tick as usize) {
                thread::sleep(SLOW_TICK);
                to.write_all(part)?;
            }
            to.write_all(fast)?;
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::support::DEADLINE;

    const SENT_BYTES: usize = 10_000;

    /// The bytes that come out of a line, and the time it takes.
    fn through(line: Line) -> (Vec<u8>, Duration) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let proxy = Proxy::start(listener.local_addr().expect("an address"), move || Lines { up: line, ..Lines::GOOD });
        let mut client = TcpStream::connect(proxy.addr()).expect("the proxy accepts");
        let (mut server, _) = listener.accept().expect("the proxy connects");
        server.set_read_timeout(Some(DEADLINE)).expect("a socket takes a timeout");
        let began = Instant::now();
        // This fails if the line was cut before all bytes were sent.
        let _ = client.write_all(&sent());
        let _ = client.shutdown(Shutdown::Write);
        let mut got = Vec::new();
        // A cut line may end with a reset behind the delivered bytes.
        let end = server.read_to_end(&mut got);
        assert!(!matches!(end, Err(error) if error.kind() == ErrorKind::WouldBlock), "the line does not end");
        (got, began.elapsed())
    }

    fn sent() -> Vec<u8> {
        (0..SENT_BYTES).map(|number| (number % 251) as u8).collect()
    }

    #[test]
    fn a_line_without_a_cut_delivers_everything() {
        let slow = Line::Slow { first: 512 };
        let hole = Line::BlackHole { after: 5_000, lasts: Duration::from_millis(300) };
        for (line, at_least) in [(Line::Good, 0), (Line::Slices, 0), (slow, 500), (hole, 300)] {
            let (got, took) = through(line);
            assert!(got == sent(), "{line:?} brought {} bytes", got.len());
            assert!(took >= Duration::from_millis(at_least), "{line:?} took {took:?}");
        }
    }

    #[test]
    fn a_cut_line_delivers_the_bytes_before_the_cut() {
        for after in [1, 4_095, 4_096, 4_097, 9_999] {
            let (got, _) = through(Line::Cut { after });
            assert_eq!(got, sent()[..after as usize], "cut after {after}");
        }
    }

    #[test]
    fn a_proxy_that_was_calmed_down_has_no_faults() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let bad = Lines { up: Line::Cut { after: 2 }, ..Lines::GOOD };
        let proxy = Proxy::start(listener.local_addr().expect("an address"), move || bad);
        let mut first = TcpStream::connect(proxy.addr()).expect("the proxy accepts");
        let (mut kept, _) = listener.accept().expect("the proxy connects");
        first.write_all(b"x").expect("an open line");
        kept.read_exact(&mut [0]).expect("an open line");
        proxy.calm_down();
        let mut rest = Vec::new();
        first.set_read_timeout(Some(DEADLINE)).expect("a socket takes a timeout");
        assert_eq!(first.read_to_end(&mut rest).ok(), Some(0), "what was open is cut");
        let mut client = TcpStream::connect(proxy.addr()).expect("the proxy accepts");
        let (mut server, _) = listener.accept().expect("the proxy connects");
        client.write_all(b"hello").expect("a good line");
        client.shutdown(Shutdown::Write).expect("a good line");
        let mut got = Vec::new();
        server.read_to_end(&mut got).expect("a good line");
        assert_eq!(got, b"hello");
        assert_eq!(proxy.counts(), (2, 0));
    }
}
