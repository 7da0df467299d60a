//! Lines over a socket, each within a time and a length.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const CHUNK_BYTES: usize = 8 * 1024;

/// Why there is no line.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// It is longer than it may be.
    #[error("the line is too long")]
    TooLong,
    /// It did not come whole in time.
    #[error("no whole line in time")]
    TimedOut,
    /// As the system says.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads lines of a socket. What came behind the end of one is kept for the next.
#[derive(Debug)]
pub struct Lines<'a> {
    stream: &'a UnixStream,
    bytes_max: usize,
    buffer: Vec<u8>,
    /// How much of the buffer is the line that was given last.
    given: usize,
}

impl<'a> Lines<'a> {
    /// Reads lines of so many bytes at most, their ends counted.
    #[must_use]
    pub fn new(stream: &'a UnixStream, bytes_max: usize) -> Self {
        Self { stream, bytes_max, buffer: Vec::new(), given: 0 }
    }

    /// The next line without its end; `None` where the peer has ended the connection, in the middle of a line, too.
    ///
    /// # Errors
    /// [`LineError`]. No further line can be read then.
    pub fn next(&mut self, wait: Duration) -> Result<Option<&[u8]>, LineError> {
        let deadline = Instant::now() + wait;
        self.buffer.drain(..self.given);
        self.given = 0;
        let mut searched = 0;
        loop {
            if let Some(at) = self.buffer[searched..].iter().position(|byte| *byte == b'\n') {
                let end = searched + at;
                if end >= self.bytes_max {
                    return Err(LineError::TooLong);
                }
                self.given = end + 1;
                return Ok(Some(&self.buffer[..end]));
            }
            searched = self.buffer.len();
            if searched >= self.bytes_max {
                return Err(LineError::TooLong);
            }
            if self.read(deadline)? == 0 {
                return Ok(None);
            }
        }
    }

    fn read(&mut self, deadline: Instant) -> Result<usize, LineError> {
        let mut chunk = [0; CHUNK_BYTES];
        let mut stream = self.stream;
        loop {
            stream.set_read_timeout(Some(left_until(deadline)?))?;
            match stream.read(&mut chunk) {
                Err(error) if is_interruption(&error) => {}
                read => {
                    let read = read?;
                    self.buffer.extend_from_slice(&chunk[..read]);
                    return Ok(read);
                }
            }
        }
    }
}

/// Writes all of a line.
///
/// # Errors
/// [`LineError`].
pub fn write_line(mut stream: &UnixStream, mut line: &[u8], wait: Duration) -> Result<(), LineError> {
    let deadline = Instant::now() + wait;
    while !line.is_empty() {
        stream.set_write_timeout(Some(left_until(deadline)?))?;
        match stream.write(line) {
            Ok(0) => return Err(io::Error::from(ErrorKind::WriteZero).into()),
            Ok(written) => line = &line[written..],
            Err(error) if is_interruption(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A time-out of the socket is one, too: the deadline is looked at before the next try.
fn is_interruption(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Never zero, which would mean no time-out.
fn left_until(deadline: Instant) -> Result<Duration, LineError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(LineError::TimedOut) } else { Ok(left) }
}
