//! Reads and writes lines on a socket, each with a time-out and a maximum length. Runs on the caller's thread.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const CHUNK_BYTES: usize = 8 * 1024;

/// Why a line can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error("line too long")]
    TooLong,
    /// It was not complete in time.
    #[error("timeout while reading a line")]
    TimedOut,
    /// An error of the socket.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads lines from a socket. Bytes behind the end of a line are kept for the next line.
#[derive(Debug)]
pub struct Lines<'a> {
    stream: &'a UnixStream,
    bytes_max: usize,
    buffer: Vec<u8>,
    /// The length in the buffer of the line that was returned last.
    given: usize,
}

impl<'a> Lines<'a> {
    /// Reads lines of at most `bytes_max` bytes, with their ends.
    #[must_use]
    pub fn new(stream: &'a UnixStream, bytes_max: usize) -> Self {
        Self { stream, bytes_max, buffer: Vec::new(), given: 0 }
    }

    /// The next line without its end. `None` if the client has closed the connection, even in the middle of a line.
    ///
    /// # Errors
    /// [`LineError`]. After an error no further line can be read.
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

/// Writes a whole line.
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

/// Whether to try again. This includes a time-out of the socket, because the deadline is checked before each attempt.
fn is_interruption(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// The time until the deadline. It is never zero, because a zero would mean no time-out.
fn left_until(deadline: Instant) -> Result<Duration, LineError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(LineError::TimedOut) } else { Ok(left) }
}
