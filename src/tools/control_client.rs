//! The command's side of the control socket: asks the running server for a change or an answer.
//!
//! Every step has a deadline. Requests hold hashes of passwords and tokens, so they are sent only to a process that may
//! have the database anyway: of its owner, of root, or of the command's own user.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::geteuid;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::agents::control::Refusal;
use crate::agents::control::address::Places;
use crate::agents::control::line::{LineError, Lines, write_line};
use crate::agents::control::message::{AnswerError, VERSION, VersionMismatch, decode_answer, encode_request};
use crate::limits::{CONTROL_ANSWER_BYTES_MAX, CONTROL_ANSWER_WAIT, CONTROL_IO_WAIT, CONTROL_REQUEST_BYTES_MAX};

/// A directory in which others may make files, but not replace those of another user.
const STICKY: u32 = 0o1000;

/// Why there is no answer, or the answer is no.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No process listens for this database.
    #[error("no server has `{}` open", .0.display())]
    NoServer(PathBuf),
    /// A process listens, but takes no request. Nothing was changed.
    #[error("`{}` is in use by another process that does not answer", .0.display())]
    NoAnswer(PathBuf),
    /// A process has taken the request, but has not answered it.
    #[error("`{}` is in use by another process that does not answer; the change may have been made", .0.display())]
    Unknown(PathBuf),
    /// Another user's socket stands where the server's should be.
    #[error("the control socket of `{}` belongs to user {user}, not to the owner of the database", path.display())]
    Foreign {
        /// The database.
        path: PathBuf,
        /// The user.
        user: u32,
    },
    /// The server speaks another version of the protocol.
    #[error("{0}")]
    Version(VersionMismatch),
    /// The server has refused the request.
    #[error(transparent)]
    Refused(Refusal),
    /// The request is too long to be sent.
    #[error("the request is longer than {CONTROL_REQUEST_BYTES_MAX} bytes")]
    TooLong,
    /// The request can't be JSON.
    #[error("the request can't be sent: {0}")]
    Encode(String),
    /// What came is no answer of this protocol.
    #[error("`{}` is in use by another process whose answer is malformed", .0.display())]
    Malformed(PathBuf),
    /// As the system says.
    #[error("failed to reach the server of `{}`: {source}", path.display())]
    Io {
        /// The database.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
}

/// How long a client waits.
#[derive(Debug, Clone, Copy)]
pub struct ClientWaits {
    /// For the connection, and until the server has taken a request.
    pub io: Duration,
    /// For an answer.
    pub answer: Duration,
}

impl Default for ClientWaits {
    fn default() -> Self {
        Self { io: CONTROL_IO_WAIT, answer: CONTROL_ANSWER_WAIT }
    }
}

/// A connection to the server that has a database open. It is made anew where it has been idle, or an answer is
/// missing.
#[derive(Debug)]
pub struct ControlClient {
    database: PathBuf,
    waits: ClientWaits,
    connection: Option<(UnixStream, Instant)>,
}

impl ControlClient {
    /// Connects to the server that has this database open.
    ///
    /// # Errors
    /// [`ControlError::NoServer`] where there is none; others as they say.
    pub fn connect(database: &Path) -> Result<Self, ControlError> {
        Self::connect_within(database, ClientWaits::default())
    }

    /// The same with other deadlines.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_within(database: &Path, waits: ClientWaits) -> Result<Self, ControlError> {
        let stream = open(database, waits.io)?;
        Ok(Self { database: database.to_owned(), waits, connection: Some((stream, Instant::now())) })
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors [`ControlError`]. Only after [`Unknown`](ControlError::Unknown) and
    /// [`Malformed`](ControlError::Malformed) it is not known whether the request was carried out.
    pub fn request<R: Serialize, A: DeserializeOwned>(&mut self, request: &R) -> Result<A, ControlError> {
        let line = encode_request(request).map_err(|error| {
            if error.is_too_long() { ControlError::TooLong } else { ControlError::Encode(error.to_string()) }
        })?;
        // The server ends a connection that is idle for as long as it waits for a request, so one that is half as old
        // is still open.
        let reused = self.connection.take().filter(|(_, used)| used.elapsed() < self.waits.io / 2);
        let stream = match reused {
            Some((stream, _)) => stream,
            None => open(&self.database, self.waits.io)?,
        };
        let answer = self.exchange(&stream, &line)?;
        let answer = match decode_answer(&answer) {
            Ok(answer) => Ok(answer),
            Err(AnswerError::Refused(refusal)) => Err(ControlError::Refused(refusal)),
            Err(AnswerError::Version(server)) => {
                Err(ControlError::Version(VersionMismatch { client: VERSION, server }))
            }
            Err(AnswerError::Malformed) => return Err(ControlError::Malformed(self.database.clone())),
        };
        self.connection = Some((stream, Instant::now()));
        answer
    }

    fn exchange(&self, stream: &UnixStream, line: &[u8]) -> Result<Vec<u8>, ControlError> {
        let database = || self.database.clone();
        match write_line(stream, line, self.waits.io) {
            Ok(()) => {}
            Err(LineError::Io(error)) if is_closed(&error) => {
                // The server may have said why before it closed: a refusal of this user comes without a request.
                let mut lines = Lines::new(stream, CONTROL_ANSWER_BYTES_MAX);
                let said = lines.next(self.waits.io).ok().flatten().map(<[u8]>::to_vec);
                return said.ok_or_else(|| ControlError::NoAnswer(database()));
            }
            // Without the end of its line no request is carried out.
            Err(LineError::Io(source)) => return Err(ControlError::Io { path: database(), source }),
            Err(LineError::TimedOut | LineError::TooLong) => return Err(ControlError::NoAnswer(database())),
        }
        match Lines::new(stream, CONTROL_ANSWER_BYTES_MAX).next(self.waits.answer) {
            Ok(Some(answer)) => Ok(answer.to_vec()),
            Err(LineError::TooLong) => Err(ControlError::Malformed(database())),
            Ok(None) | Err(LineError::TimedOut | LineError::Io(_)) => Err(ControlError::Unknown(database())),
        }
    }
}

fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

fn open(database: &Path, wait: Duration) -> Result<UnixStream, ControlError> {
    let failed = |source: io::Error| ControlError::Io { path: database.to_owned(), source };
    let places = Places::of(database).map_err(failed)?;
    let trusted = |user: u32| user == 0 || user == places.owner || user == geteuid().as_raw();
    let mut problem = ControlError::NoServer(database.to_owned());
    let file = places.file.as_ref().map(|(path, address)| (address, !is_sticky_directory_of(path)));
    for (address, is_proof) in file.into_iter().chain([(&places.hidden, false)]) {
        let stream = match connect_within(address, wait) {
            Ok(stream) => stream,
            Err(Errno::NOENT | Errno::CONNREFUSED) => continue,
            // The queue of a server that accepts no client is full.
            Err(Errno::AGAIN) => return Err(ControlError::NoAnswer(database.to_owned())),
            Err(error) => {
                problem = failed(error.into());
                continue;
            }
        };
        match socket_peercred(&stream).map(|peer| peer.uid.as_raw()) {
            // A user who can make files in this directory can replace the database, too.
            _ if is_proof => return Ok(stream),
            Ok(user) if trusted(user) => return Ok(stream),
            Ok(user) => problem = ControlError::Foreign { path: database.to_owned(), user },
            Err(error) => problem = failed(error.into()),
        }
    }
    Err(problem)
}

fn is_sticky_directory_of(path: &Path) -> bool {
    path.parent().is_none_or(|directory| fs::metadata(directory).map_or(true, |found| found.mode() & STICKY != 0))
}

fn connect_within(address: &SocketAddrUnix, wait: Duration) -> rustix::io::Result<UnixStream> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Linux waits so long for room in the queue of a Unix socket.
    set_socket_timeout(&socket, Timeout::Send, Some(wait))?;
    rustix::io::retry_on_intr(|| connect(&socket, address))?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests;
