//! One connection of the generator: the handshake, reading, and the messages of a sender.
//!
//! A watched member is read frame by frame. Other members only count bytes once their room is settled. The kernel
//! discards these bytes without a copy (`MSG_TRUNC`), so that the generator is not the bottleneck.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::frame::{self, Field, PING, PONG, Stamp, TEXT};
use crate::histogram::Histogram;
use crate::witness::Witness;

const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);
/// The example key of RFC 6455, section 1.3, with the answer that proves that the server knows the protocol.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The pace of a sender.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// Keeps this number of its messages unechoed.
    Window(u32),
    /// Sends this number of messages per second, whatever it receives.
    PerSecond(u32),
}

/// The interval between two messages at a rate.
pub fn interval_ns(rate_per_s: u32) -> u64 {
    1_000_000_000 / u64::from(rate_per_s)
}

/// The state of a sender: the messages that it sends, and the echoes that it received.
pub struct Sender {
    index: u16,
    /// The counts do not include the marker.
    pub sent: u32,
    echoed: u32,
    /// The time of the next message, if the pace is a rate.
    due_ns: u64,
}

impl Sender {
    pub fn new(index: u16, due_ns: u64) -> Self {
        Self { index, sent: 0, echoed: 0, due_ns }
    }

    pub fn due_ns(&self) -> u64 {
        self.due_ns
    }
}

/// One connection to the server.
pub struct Member {
    socket: TcpStream,
    /// The beginning of an incomplete frame.
    partial: Vec<u8>,
    /// Bytes that the socket did not take at once.
    unsent: Vec<u8>,
    pub witness: Option<Witness>,
    pub sender: Option<Sender>,
    /// Whether the first frame of the server has arrived.
    pub welcomed: bool,
    /// Whether the marker of the room has arrived: all members have joined, and what follows is live.
    pub settled: bool,
    /// Whether the member only counts bytes from now on.
    pub counted: bool,
    /// Bytes of live traffic on the wire. They are the same for all members, so all members of a room must end with
    /// equal counts.
    pub live_bytes: u64,
    /// Why the connection has ended.
    pub gone: Option<String>,
}

/// The records of all members together.
pub struct Sightings {
    pub latency: Histogram,
    /// The time from which on sent messages are timed.
    pub timed_since_ns: u64,
    pub live_bytes: u64,
    /// The bytes and the messages of it that watched members have read.
    pub watched_bytes: u64,
    pub watched_messages: u64,
    pub welcomed: usize,
    pub settled: usize,
    pub pongs: usize,
    /// The first `error` frame, and the number of all.
    pub refusal: Option<String>,
    pub refusals: u64,
    content: Field,
    seq: Field,
    kind_error: Field,
}

impl Sightings {
    pub fn new() -> Self {
        Self {
            latency: Histogram::new(),
            timed_since_ns: u64::MAX,
            live_bytes: 0,
            watched_bytes: 0,
            watched_messages: 0,
            welcomed: 0,
            settled: 0,
            pongs: 0,
            refusal: None,
            refusals: 0,
            content: Field::new(r#""content":""#),
            seq: Field::new(r#""seq":"#),
            kind_error: Field::new(r#""type":"error""#),
        }
    }
}

impl Member {
    /// A member over a connection after its handshake; `partial` are the bytes that were read beyond it.
    pub fn over(socket: TcpStream, partial: Vec<u8>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            partial,
            unsent: Vec::new(),
            witness: None,
            sender: None,
            welcomed: false,
            settled: false,
            counted: false,
            live_bytes: 0,
            gone: None,
        })
    }

    /// Connects and joins a room.
    ///
    /// # Errors
    /// If the server refuses the connection; the text has the first line of its response.
    pub fn join(address: SocketAddr, room: &str, username: &str) -> io::Result<Self> {
        let mut socket = TcpStream::connect_timeout(&address, HANDSHAKE_WAIT)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(HANDSHAKE_WAIT))?;
        let partial = handshake(&mut socket, address, room, username)?;
        Self::over(socket, partial)
    }

    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Reads everything that the socket has. `buffer` is borrowed for the call.
    pub fn read(&mut self, buffer: &mut [u8], now_ns: u64, sightings: &mut Sightings) {
        if self.gone.is_some() {
            return;
        }
        let read = if self.counted {
            self.read_counting(buffer, sightings)
        } else {
            self.read_frames(buffer, now_ns, sightings)
        };
        if let Err(error) = read {
            self.end(&error.to_string());
        }
    }

    /// Records the end of the connection.
    pub fn end(&mut self, why: &str) {
        self.gone.get_or_insert_with(|| why.to_owned());
    }

    fn read_counting(&mut self, buffer: &mut [u8], sightings: &mut Sightings) -> io::Result<()> {
        while let Some(count) = receive(&self.socket, buffer, RecvFlags::TRUNC)? {
            self.live_bytes += count as u64;
            sightings.live_bytes += count as u64;
            // The sockets are polled edge-triggered: a short read means that no more data is there.
            if count < buffer.len() {
                break;
            }
        }
        Ok(())
    }

    fn read_frames(&mut self, buffer: &mut [u8], now_ns: u64, sightings: &mut Sightings) -> io::Result<()> {
        loop {
            let kept = self.partial.len();
            buffer[..kept].copy_from_slice(&self.partial);
            let (count, full) = match receive(&self.socket, &mut buffer[kept..], RecvFlags::empty())? {
                Some(count) => (count, kept + count == buffer.len()),
                None => (0, false),
            };
            let mut rest = &buffer[..kept + count];
            while let Some(frame) = frame::first(rest)? {
                self.take(&frame, now_ns, sightings)?;
                rest = &rest[frame.wire_bytes..];
            }
            self.partial.clear();
            self.partial.extend(rest);
            if !full {
                return Ok(());
            }
        }
    }

    fn take(&mut self, frame: &frame::Frame, now_ns: u64, sightings: &mut Sightings) -> io::Result<()> {
        match frame.head {
            TEXT => self.take_text(frame, now_ns, sightings),
            PING => {
                frame::write_masked(&mut self.unsent, PONG, [7; 4], frame.payload);
                self.flush();
            }
            PONG => sightings.pongs += 1,
            _ => {
                let code = frame.payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                return Err(io::Error::other(format!("closed by the server, code {code:?}")));
            }
        }
        Ok(())
    }

    fn take_text(&mut self, frame: &frame::Frame, now_ns: u64, sightings: &mut Sightings) {
        if self.settled {
            self.live_bytes += frame.wire_bytes as u64;
            sightings.live_bytes += frame.wire_bytes as u64;
        }
        if !self.welcomed {
            self.welcomed = true;
            sightings.welcomed += 1;
        }
        let Some(stamp) = sightings.content.find(frame.payload).and_then(Stamp::read) else {
            if sightings.kind_error.find(frame.payload).is_some() {
                sightings.refusals += 1;
                let text = || String::from_utf8_lossy(frame.payload).into_owned();
                sightings.refusal.get_or_insert_with(text);
            }
            return;
        };
        let seq = sightings.seq.number(frame.payload);
        if !self.settled {
            self.settled = stamp.counter == 0;
            sightings.settled += usize::from(self.settled);
            if let Some(witness) = &mut self.witness {
                witness.begin(seq);
            }
            return;
        }
        if let Some(sender) = &mut self.sender {
            sender.echoed += u32::from(sender.index == stamp.sender);
        }
        if let Some(witness) = &mut self.witness {
            witness.see(stamp, seq);
            sightings.watched_bytes += frame.wire_bytes as u64;
            sightings.watched_messages += 1;
            if stamp.sent_ns >= sightings.timed_since_ns {
                sightings.latency.record(now_ns.saturating_sub(stamp.sent_ns));
            }
        }
    }

    /// Sends the messages that are due, all in one write.
    pub fn send_due(&mut self, pace: Pace, now_ns: u64) {
        let Some(sender) = &mut self.sender else { return };
        let written = self.unsent.len();
        loop {
            match pace {
                Pace::Window(unechoed_max) if sender.sent.saturating_sub(sender.echoed) < unechoed_max => {}
                Pace::PerSecond(rate) if sender.due_ns <= now_ns => sender.due_ns += interval_ns(rate),
                _ => break,
            }
            sender.sent += 1;
            let stamp = Stamp { sent_ns: now_ns, counter: sender.sent, sender: sender.index };
            stamp.write_command(&mut self.unsent);
        }
        if self.unsent.len() > written {
            self.flush();
        }
    }

    /// Sends the marker of the room, in the name of the room's first sender.
    pub fn send_marker(&mut self, sender: u16) {
        let stamp = Stamp { sent_ns: 0, counter: 0, sender };
        stamp.write_command(&mut self.unsent);
        self.flush();
    }

    /// Sends a ping.
    pub fn send_ping(&mut self) {
        frame::write_masked(&mut self.unsent, PING, [42; 4], b"adda");
        self.flush();
    }

    /// Sends as much as the socket takes; the rest is sent when it takes more.
    pub fn flush(&mut self) {
        while !self.unsent.is_empty() {
            match send(&self.socket, &self.unsent, SendFlags::NOSIGNAL).map_err(io::Error::from) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    self.unsent.clear();
                    self.end(&error.to_string());
                }
            }
        }
    }
}

/// Performs the handshake into a room; returns the bytes that were read beyond the response.
///
/// # Errors
/// If the server refuses the connection; the text has the first line of its response.
pub fn handshake(socket: &mut TcpStream, address: SocketAddr, room: &str, username: &str) -> io::Result<Vec<u8>> {
    socket.write_all(
        format!(
            "GET /ws?room={room}&username={username}&history=0 HTTP/1.1\r\nHost: {address}\r\n\
             Upgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
        )
        .as_bytes(),
    )?;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    let end = loop {
        let count = socket.read(&mut chunk)?;
        answer.extend(&chunk[..count]);
        match answer.windows(4).position(|four| four == b"\r\n\r\n") {
            Some(end) => break end + 4,
            None if count == 0 || answer.len() > HEAD_BYTES_MAX => break answer.len(),
            None => {}
        }
    };
    let head = String::from_utf8_lossy(&answer[..end]);
    if !head.starts_with("HTTP/1.1 101 ") || !head.contains(ACCEPT) {
        let line = head.lines().next().unwrap_or("nothing");
        return Err(io::Error::other(format!("a member was not let in: {line}")));
    }
    Ok(answer.split_off(end))
}

/// Receives once. Returns the number of bytes; `None` if there are none now.
///
/// # Errors
/// Also at the end of the stream, because the server has no reason to end it.
pub fn receive(socket: &TcpStream, buffer: &mut [u8], flags: RecvFlags) -> io::Result<Option<usize>> {
    match recv(socket, buffer, flags).map_err(io::Error::from) {
        Ok((_, 0)) => Err(io::Error::new(ErrorKind::UnexpectedEof, "the server ended the connection")),
        Ok((_, count)) => Ok(Some(count)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
