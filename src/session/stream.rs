//! The reading side of a WebSocket: the stream that `tungstenite` reads from.
//!
//! Runs on the connection's own thread and writes to no socket. The frames that the server sends are in
//! [`wire`](crate::wire).

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

/// The socket, as a stream for `tungstenite`.
///
/// Reading has one deadline for a whole message, even if the message arrives in small parts. It never blocks while the
/// session holds messages for the hub. Writing goes into a buffer, because only the hub writes to sockets. The hub gets
/// the pongs and close replies that `read` makes from [`take_written`](Self::take_written).
///
/// An idle connection keeps only a small read buffer. If the socket has more than fits into that buffer, the stream
/// reads ahead into a larger one. The larger buffer is freed before the thread waits for the socket.
#[derive(Debug)]
pub struct Stream {
    socket: Arc<TcpStream>,
    /// Bytes that were read ahead and not yet consumed.
    ahead: VecDeque<u8>,
    written: Vec<u8>,
    /// The longest time that one message may take.
    deadline: Duration,
    /// Whether a read must return at once instead of waiting.
    has_pending: bool,
    /// Whether the last read took all that the socket had.
    drained: bool,
    /// The number of bytes since the last whole message, and the time when the first wait for more of them began.
    bytes_of_message: usize,
    waiting_since: Option<Instant>,
    /// Whether the socket's own time-out is now shorter than `deadline`.
    timeout_short: bool,
}

/// A payload may come as one byte per frame, with a header of six or eight bytes each. More bytes than that are abuse.
const RAW_BYTES_PER_MESSAGE_MAX: usize = 9 * MESSAGE_BYTES_MAX;

impl Stream {
    /// Takes over a socket after its handshake.
    ///
    /// # Errors
    /// If the socket does not accept a time-out.
    pub fn new(socket: Arc<TcpStream>, deadline: Duration) -> io::Result<Self> {
        socket.set_read_timeout(Some(deadline))?;
        Ok(Self {
            socket,
            ahead: VecDeque::new(),
            written: Vec::new(),
            deadline,
            has_pending: false,
            drained: true,
            bytes_of_message: 0,
            waiting_since: None,
            timeout_short: false,
        })
    }

    /// Returns the bytes that `tungstenite` has written since the last call.
    pub fn take_written(&mut self) -> Option<Vec<u8>> {
        (!self.written.is_empty()).then(|| std::mem::take(&mut self.written))
    }

    /// Notes that a whole message has arrived: the next one has the full time again.
    pub fn message_came(&mut self) {
        self.bytes_of_message = 0;
        self.waiting_since = None;
    }

    /// Notes that a control frame has arrived, with the size of its payload. It may come between the frames of a
    /// message, so it does not restart the time of that message.
    pub fn control_came(&mut self, payload: usize) {
        // A header of two bytes and a mask of four bytes come before the payload (RFC 6455, section 5.2).
        self.bytes_of_message = self.bytes_of_message.saturating_sub(6 + payload);
        if self.bytes_of_message == 0 {
            self.waiting_since = None;
        }
    }

    /// Sets whether the session holds messages that wait for the next read to return.
    pub fn set_pending(&mut self, has_pending: bool) {
        self.has_pending = has_pending;
    }

    /// Reads what the socket holds beyond a full buffer, without waiting.
    fn read_ahead(&mut self) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(READ_AHEAD_BYTES);
        match recv(&*self.socket, spare_capacity(&mut bytes), RecvFlags::DONTWAIT) {
            // The end of the stream is seen again by the read that waits.
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.drained = bytes.len() < READ_AHEAD_BYTES;
        self.ahead = bytes.into();
        Ok(())
    }

    /// Waits for the next bytes.
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

    /// Sets the socket's time-out to the time left for a message that has begun, or back to the full time.
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
        // What was written must be sent before the thread waits.
        if !self.written.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if self.bytes_of_message > RAW_BYTES_PER_MESSAGE_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // With messages pending, one more read of the socket is enough. What the socket has may be a part of a long
        // message, or of no message at all.
        if self.ahead.is_empty() && !self.drained && !(self.has_pending && self.bytes_of_message > 0) {
            self.read_ahead()?;
        }
        let count = match (self.ahead.is_empty(), self.has_pending) {
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

/// A WebSocket whose handshake is done. `early` is the bytes that came after the head of the request.
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

    fn pair() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (near, _) = listener.accept().unwrap();
        (Stream::new(Arc::new(near), Duration::from_secs(10)).unwrap(), far)
    }

    #[test]
    fn bytes_beyond_the_small_buffer_are_read_ahead_and_then_freed() {
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
        stream.set_pending(true);
        assert_eq!(stream.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        stream.set_pending(false);
        far.write_all(b"more").unwrap();
        assert_eq!(stream.read(&mut buffer).unwrap(), 4);
        assert_eq!(stream.ahead.capacity(), 0);
    }

    #[test]
    fn the_end_is_seen_after_a_full_buffer() {
        let (mut stream, mut far) = pair();
        far.write_all(b"0123456789").unwrap();
        drop(far);
        let mut buffer = [0; 10];
        assert_eq!(stream.read(&mut buffer).unwrap(), 10);
        stream.message_came();
        stream.set_pending(true);
        assert_eq!(stream.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        stream.set_pending(false);
        assert_eq!(stream.read(&mut buffer).unwrap(), 0);
    }

    #[test]
    fn pending_messages_do_not_wait_for_a_long_message() {
        let (mut stream, mut far) = pair();
        far.write_all(&vec![0; READ_AHEAD_BYTES + 20]).unwrap();
        let mut buffer = [0; 10];
        assert_eq!(stream.read(&mut buffer).unwrap(), 10);
        stream.message_came();
        stream.set_pending(true);
        let taken: usize = std::iter::from_fn(|| stream.read(&mut buffer).ok()).sum();
        assert_eq!(taken, READ_AHEAD_BYTES);
    }
}
