//! The reading side of a WebSocket: the stream that `tungstenite` reads from. The frames that the server sends stand in
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

/// A socket as `tungstenite` sees it.
///
/// Reading has one deadline for a whole message, however it trickles in, and never blocks while messages are
/// pending that the hub should get first. Writing goes into a buffer: the hub alone writes to sockets, and gets
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
    has_pending: bool,
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
            has_pending: false,
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

    /// Says whether messages are pending that wait for the next read to return.
    pub fn set_pending(&mut self, has_pending: bool) {
        self.has_pending = has_pending;
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
        // With messages pending one more look at the socket is enough: what it has may be part of a long message, or of
        // none at all.
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
        stream.set_pending(true);
        assert_eq!(stream.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        stream.set_pending(false);
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
        stream.set_pending(true);
        assert_eq!(stream.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        stream.set_pending(false);
        assert_eq!(stream.read(&mut buffer).unwrap(), 0);
    }

    #[test]
    fn pending_messages_do_not_wait_for_a_long_one() {
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
