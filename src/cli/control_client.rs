//! The client of the control socket: sends a request to the running server.
//!
//! Runs in the command's process. Every step has a deadline. Requests contain hashes of passwords and tokens. So they
//! are sent only to a process whose user may read the database anyway: its owner, root, or the user of the command.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::geteuid;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::agents::control::address::Addresses;
use crate::agents::control::line::{LineError, Lines, write_line};
use crate::agents::control::message::{AnswerError, decode_answer, encode_request};
use crate::limits::{CONTROL_ANSWER_BYTES_MAX, CONTROL_ANSWER_WAIT, CONTROL_IO_WAIT};
use crate::model::reason::Rejection;

/// The mode bit of a directory in which users may create files, but not replace files of others.
const STICKY: u32 = 0o1000;

/// Why a request has no answer, or was refused.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No process listens for this database.
    #[error("no server has `{}` open", .0.display())]
    NoServer(PathBuf),
    /// A process listens, but reads no request. Nothing was changed.
    #[error("`{}` is in use by another process that does not answer", .0.display())]
    NoAnswer(PathBuf),
    /// A process has read the request, but has not answered it.
    #[error("`{}` is in use by another process that does not answer; the change may have been made", .0.display())]
    Unknown(PathBuf),
    /// The socket belongs to another user.
    #[error("the control socket of `{}` belongs to user {user}, not to the owner of the database", path.display())]
    Foreign { path: PathBuf, user: u32 },
    /// The server uses another version of the protocol.
    #[error("{0}")]
    Version(String),
    /// The server refused the request.
    #[error(transparent)]
    Refused(Rejection),
    /// The request is too long, or can't be JSON.
    #[error("the request can't be sent: {0}")]
    Encode(serde_json::Error),
    /// The response is malformed.
    #[error("`{}` is in use by another process whose answer is malformed", .0.display())]
    Malformed(PathBuf),
    /// Another error of the system.
    #[error("failed to reach the server of `{}`: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// The time-outs of a client; tests shrink them.
#[derive(Debug, Clone, Copy)]
struct ClientWaits {
    /// To connect, and until the server has read a request.
    io: Duration,
    /// Until the answer.
    answer: Duration,
}

impl Default for ClientWaits {
    fn default() -> Self {
        Self { io: CONTROL_IO_WAIT, answer: CONTROL_ANSWER_WAIT }
    }
}

/// Sends a request to the server that has this database open, and waits for its answer.
///
/// # Errors
/// [`ControlError`]. Only after [`Unknown`](ControlError::Unknown) and [`Malformed`](ControlError::Malformed) the
/// client does not know whether the request was carried out.
pub fn request<R: Serialize, A: DeserializeOwned>(database: &Path, request: &R) -> Result<A, ControlError> {
    request_within(database, ClientWaits::default(), request)
}

fn request_within<R: Serialize, A: DeserializeOwned>(
    database: &Path,
    waits: ClientWaits,
    request: &R,
) -> Result<A, ControlError> {
    let line = encode_request(request).map_err(ControlError::Encode)?;
    let answer = exchange(database, waits, &line)?;
    decode_answer(&answer).map_err(|error| match error {
        AnswerError::Refused(rejection) => ControlError::Refused(rejection),
        AnswerError::Version(sentence) => ControlError::Version(sentence),
        AnswerError::Malformed => ControlError::Malformed(database.to_owned()),
    })
}

fn exchange(database: &Path, waits: ClientWaits, line: &[u8]) -> Result<Vec<u8>, ControlError> {
    let stream = open(database, waits.io)?;
    let mut lines = Lines::new(&stream, CONTROL_ANSWER_BYTES_MAX);
    match write_line(&stream, line, waits.io) {
        Ok(()) => {}
        Err(LineError::Io(error)) if is_closed(&error) => {
            // The server may have sent an error before it closed the connection: it refuses a user before it reads a
            // request.
            let said = lines.next(waits.io).ok().flatten().map(<[u8]>::to_vec);
            return said.ok_or_else(|| ControlError::NoAnswer(database.to_owned()));
        }
        // A request without the end of its line is not carried out.
        Err(LineError::Io(source)) => return Err(ControlError::Io { path: database.to_owned(), source }),
        Err(LineError::TimedOut | LineError::TooLong) => return Err(ControlError::NoAnswer(database.to_owned())),
    }
    match lines.next(waits.answer) {
        Ok(Some(answer)) => Ok(answer.to_vec()),
        Err(LineError::TooLong) => Err(ControlError::Malformed(database.to_owned())),
        Ok(None) | Err(LineError::TimedOut | LineError::Io(_)) => Err(ControlError::Unknown(database.to_owned())),
    }
}

fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

fn open(database: &Path, wait: Duration) -> Result<UnixStream, ControlError> {
    let failed = |source: io::Error| ControlError::Io { path: database.to_owned(), source };
    let addresses = Addresses::of(database).map_err(failed)?;
    let trusted = |user: u32| user == 0 || user == addresses.owner || user == geteuid().as_raw();
    let mut problem = ControlError::NoServer(database.to_owned());
    let file = addresses.file.as_ref().map(|(path, address)| (address, !is_sticky_directory_of(path)));
    for (address, is_proof) in file.into_iter().chain([(&addresses.abstract_socket, false)]) {
        let stream = match connect_within(address, wait) {
            Ok(stream) => stream,
            Err(Errno::NOENT | Errno::CONNREFUSED) => continue,
            // The queue of a server that accepts no connection is full.
            Err(Errno::AGAIN) => return Err(ControlError::NoAnswer(database.to_owned())),
            Err(error) => {
                problem = failed(error.into());
                continue;
            }
        };
        match socket_peercred(&stream).map(|peer| peer.uid.as_raw()) {
            // A user that can create files in this directory can replace the database, too.
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
    // The send time-out is how long Linux waits for room in the queue of a Unix socket.
    set_socket_timeout(&socket, Timeout::Send, Some(wait))?;
    rustix::io::retry_on_intr(|| connect(&socket, address))?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests;
