//! WebSocket bytes (RFC 6455): the frames that the server sends, and the stream that `tungstenite` reads from.
//!
//! Frames from a server bear no mask (section 5.1), so the same bytes serve every member of a room.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tungstenite::protocol::{Role, WebSocketConfig};

use crate::limits::{MESSAGE_BYTES_MAX, READ_AHEAD_BYTES, READ_BUFFER_BYTES};

/// A whole text frame begins with this, FIN and opcode 1 (section 5.2).
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
/// An empty ping.
pub const PING: &[u8] = &[0x89, 0];

/// Why the server ends a connection: a code of section 7.4.1 and a word about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseReason {
    /// The code.
    pub code: u16,
    /// The word, at most 123 bytes.
    pub text: &'static str,
}

impl CloseReason {
    /// The server stops.
    pub const GOING_AWAY: Self = Self { code: 1001, text: "the server is stopping" };
    /// The peer broke the protocol.
    pub const PROTOCOL: Self = Self { code: 1002, text: "not the WebSocket protocol" };
    /// The peer sent a text that is not UTF-8.
    pub const UTF8: Self = Self { code: 1007, text: "text that is not UTF-8" };
    /// The peer was silent, or took too long over one message.
    pub const IDLE: Self = Self { code: 1008, text: "nothing heard for too long" };
    /// The peer cut a message into more pieces than anybody needs.
    pub const PIECES: Self = Self { code: 1008, text: "a message in too many pieces" };
    /// The peer went on after being refused.
    pub const ABUSE: Self = Self { code: 1008, text: "too much was refused" };
    /// The peer sent too large a message.
    pub const TOO_LARGE: Self = Self { code: 1009, text: "a message is at most 64 KiB" };
    /// The peer took what it was sent too slowly.
    pub const SLOW_CONSUMER: Self = Self { code: 1013, text: "too slow; come back and resume" };
    /// The peer's session is over, or it is banned.
    pub const ENDED: Self = Self { code: 1008, text: "your session here has ended" };
    /// What the peer was catching up with is not kept any more, or can't be read now.
    pub const OVERTAKEN: Self = Self { code: 1013, text: "what you had missed is gone; come back and resume" };
}

/// Appends a whole text frame.
pub fn encode_text(bytes: &mut Vec<u8>, payload: &[u8]) {
    encode(bytes, TEXT, payload);
}

/// Appends a whole binary frame.
pub fn encode_binary(bytes: &mut Vec<u8>, payload: &[u8]) {
    encode(bytes, BINARY, payload);
}

/// A close frame with its code and word (section 5.5.1).
#[must_use]
pub fn close_frame(reason: CloseReason) -> Vec<u8> {
    let mut payload = reason.code.to_be_bytes().to_vec();
    payload.extend_from_slice(reason.text.as_bytes());
    let mut bytes = Vec::with_capacity(payload.len() + 2);
    encode(&mut bytes, CLOSE, &payload);
    bytes
}

fn encode(bytes: &mut Vec<u8>, first: u8, payload: &[u8]) {
    bytes.push(first);
    match payload.len() {
        length @ 0..=125 => bytes.push(length as u8),
        length @ 126..=0xFFFF => {
            bytes.push(126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(payload);
}

/// Where the frame that `sent` bytes have begun ends, in bytes that begin with a frame and hold whole ones of
/// ours. A member that is cut off gets the rest of the frame that it has half of, or its close frame
/// would be read as a part of that one.
#[must_use]
pub fn frame_end(bytes: &[u8], sent: usize) -> usize {
    let mut end = 0;
    while end < sent {
        let length = match bytes.get(end + 1) {
            Some(126) => bytes.get(end + 2..end + 4).map(|n| 4 + usize::from(u16::from_be_bytes([n[0], n[1]]))),
            Some(127) => bytes
                .get(end + 2..end + 10)
                .and_then(|n| n.try_into().ok())
                .and_then(|n| usize::try_from(u64::from_be_bytes(n)).ok())
                .map(|n| 10 + n),
            Some(short) => Some(2 + usize::from(*short)),
            None => None,
        };
        match length {
            Some(length) => end += length,
            None => return bytes.len(),
        }
    }
    end.min(bytes.len())
}

/// A socket as `tungstenite` sees it.
///
/// Reading has one deadline for a whole message, however it trickles in, and never blocks while messages are
/// in hand that the hub should get first. Writing goes into a buffer: the hub alone writes to sockets, and gets
/// the pongs and close replies that `read` makes from [`take_written`](Self::take_written).
///
/// What a quiet connection keeps to read into is small. One that has more to say than fits there is read ahead, into memory
/// that is given back before anything is waited for.
#[derive(Debug)]
pub struct Stream {
    socket: Arc<TcpStream>,
    /// What was read and is not taken yet.
    ahead: VecDeque<u8>,
    written: Vec<u8>,
    /// How long a message may take.
    deadline: Duration,
    /// Whether a read must return at once rather than wait.
    in_hand: bool,
    /// Whether the last look at the socket took all there was.
    drained: bool,
    /// Bytes and reads since the last whole message, and when the first wait for the rest began.
    bytes_of_message: usize,
    waiting_since: Option<Instant>,
    /// Whether the socket's own time-out is shorter than `deadline` now.
    timeout_short: bool,
}

/// Payload may come a byte to a frame, each with a header of six bytes or eight; beyond that it is a game.
const RAW_BYTES_PER_MESSAGE_MAX: usize = 9 * MESSAGE_BYTES_MAX;

impl Stream {
    /// Takes over a socket after its handshake.
    ///
    /// # Errors
    /// Where the socket takes no time-out.
    pub fn new(socket: Arc<TcpStream>, deadline: Duration) -> io::Result<Self> {
        socket.set_read_timeout(Some(deadline))?;
        Ok(Self {
            socket,
            ahead: VecDeque::new(),
            written: Vec::new(),
            deadline,
            in_hand: false,
            drained: true,
            bytes_of_message: 0,
            waiting_since: None,
            timeout_short: false,
        })
    }

    /// What was to be written since the last call.
    pub fn take_written(&mut self) -> Option<Vec<u8>> {
        (!self.written.is_empty()).then(|| std::mem::take(&mut self.written))
    }

    /// A whole message came: the next one has the full time again.
    pub fn message_came(&mut self) {
        self.bytes_of_message = 0;
        self.waiting_since = None;
    }

    /// A control frame with so large a payload came, perhaps between the frames of a message: that one's time goes on.
    pub fn control_came(&mut self, payload: usize) {
        // Two bytes and a mask of four before it (section 5.5).
        self.bytes_of_message = self.bytes_of_message.saturating_sub(6 + payload);
        if self.bytes_of_message == 0 {
            self.waiting_since = None;
        }
    }

    /// Says whether messages are in hand that wait for the next read to return.
    pub fn set_in_hand(&mut self, in_hand: bool) {
        self.in_hand = in_hand;
    }

    /// Takes what the socket has beyond a full buffer, without waiting for it.
    fn read_ahead(&mut self) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(READ_AHEAD_BYTES);
        match recv(&*self.socket, spare_capacity(&mut bytes), RecvFlags::DONTWAIT) {
            // The end is seen again by the read that waits.
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.drained = bytes.len() < READ_AHEAD_BYTES;
        self.ahead = bytes.into();
        Ok(())
    }

    /// Waits for what comes next.
    fn wait(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.ahead = VecDeque::new();
        self.prepare_wait()?;
        loop {
            match recv(&*self.socket, &mut *buffer, RecvFlags::empty()) {
                Ok((count, _)) => {
                    self.drained = count < buffer.len();
                    return Ok(count);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sets the socket's time-out to what is left for a message that has begun, or back to the full time.
    fn prepare_wait(&mut self) -> io::Result<()> {
        if self.bytes_of_message == 0 {
            if self.timeout_short {
                self.socket.set_read_timeout(Some(self.deadline))?;
                self.timeout_short = false;
            }
            return Ok(());
        }
        let now = Instant::now();
        let since = *self.waiting_since.get_or_insert(now);
        let left = self.deadline.saturating_sub(now - since);
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.socket.set_read_timeout(Some(left))?;
        self.timeout_short = true;
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // What was written goes out before anything is waited for.
        if !self.written.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if self.bytes_of_message > RAW_BYTES_PER_MESSAGE_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // With messages in hand one more look at the socket is enough: what it has may be part of a long message, or of
        // none at all.
        if self.ahead.is_empty() && !self.drained && !(self.in_hand && self.bytes_of_message > 0) {
            self.read_ahead()?;
        }
        let count = match (self.ahead.is_empty(), self.in_hand) {
            (false, _) => self.ahead.read(buffer)?,
            (true, true) => return Err(io::ErrorKind::WouldBlock.into()),
            (true, false) => self.wait(buffer)?,
        };
        self.bytes_of_message += count;
        Ok(count)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A WebSocket whose handshake is done; `early` is what came behind the request's head.
#[must_use]
pub fn accept(stream: Stream, early: Vec<u8>) -> tungstenite::WebSocket<Stream> {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(MESSAGE_BYTES_MAX)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
        .accept_unmasked_frames(false);
    tungstenite::WebSocket::from_partially_read(stream, early, Role::Server, Some(config))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_frame_has_the_shortest_length_that_fits() {
        for (payload, header) in [
            (0, vec![0x81, 0]),
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (65_535, vec![0x81, 126, 255, 255]),
            (65_536, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut bytes = Vec::new();
            encode_text(&mut bytes, &vec![b'x'; payload]);
            assert_eq!(bytes.len(), header.len() + payload);
            assert_eq!(bytes[..header.len()], header);
        }
    }

    #[test]
    fn every_close_frame_fits_a_control_frame() {
        for reason in [
            CloseReason::GOING_AWAY,
            CloseReason::PROTOCOL,
            CloseReason::UTF8,
            CloseReason::IDLE,
            CloseReason::PIECES,
            CloseReason::ABUSE,
            CloseReason::TOO_LARGE,
            CloseReason::SLOW_CONSUMER,
        ] {
            let bytes = close_frame(reason);
            assert_eq!(bytes[0], 0x88);
            assert_eq!(usize::from(bytes[1]), bytes.len() - 2);
            assert!(bytes.len() <= 127);
            assert_eq!(bytes[2..4], reason.code.to_be_bytes());
        }
    }

    fn pair() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (near, _) = listener.accept().unwrap();
        (Stream::new(Arc::new(near), Duration::from_secs(10)).unwrap(), far)
    }

    #[test]
    fn what_a_small_buffer_does_not_hold_is_read_ahead_and_nothing_is_kept_of_it() {
        let (mut stream, mut far) = pair();
        let sent: Vec<u8> = (0..3 * READ_AHEAD_BYTES).map(|n| n as u8).collect();
        far.write_all(&sent).unwrap();
        let mut buffer = [0; 10];
        let mut got = Vec::new();
        while got.len() < sent.len() {
            let count = stream.read(&mut buffer).unwrap();
            got.extend_from_slice(&buffer[..count]);
            stream.message_came();
        }
        assert!(got == sent, "the bytes differ");
        stream.set_in_hand(true);
        assert_eq!(stream.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        stream.set_in_hand(false);
        far.write_all(b"more").unwrap();
        assert_eq!(stream.read(&mut buffer).unwrap(), 4);
        assert_eq!(stream.ahead.capacity(), 0);
    }

    #[test]
    fn the_end_is_seen_behind_a_full_buffer() {
        let (mut stream, mut far) = pair();
        far.write_all(b"0123456789").unwrap();
        drop(far);
        let mut buffer = [0; 10];
        assert_eq!(stream.read(&mut buffer).unwrap(), 10);
        stream.message_came();
        stream.set_in_hand(true);
        assert_eq!(stream.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        stream.set_in_hand(false);
        assert_eq!(stream.read(&mut buffer).unwrap(), 0);
    }

    #[test]
    fn messages_in_hand_do_not_wait_for_a_long_one() {
        let (mut stream, mut far) = pair();
        far.write_all(&vec![0; READ_AHEAD_BYTES + 20]).unwrap();
        let mut buffer = [0; 10];
        assert_eq!(stream.read(&mut buffer).unwrap(), 10);
        stream.message_came();
        stream.set_in_hand(true);
        let taken: usize = std::iter::from_fn(|| stream.read(&mut buffer).ok()).sum();
        assert_eq!(taken, READ_AHEAD_BYTES);
    }

    #[test]
    fn a_cut_is_made_between_frames() {
        let mut bytes = Vec::new();
        let mut ends = vec![0];
        for length in [0, 3, 125, 126, 300, 70_000] {
            encode_text(&mut bytes, &vec![b'x'; length]);
            ends.push(bytes.len());
        }
        for sent in 0..=bytes.len() {
            let end = frame_end(&bytes, sent);
            assert!(ends.contains(&end) && end >= sent);
            assert!(!ends.iter().any(|&earlier| earlier >= sent && earlier < end), "{sent}");
        }
    }
}
