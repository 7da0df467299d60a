//! How a command makes a change: it sends the change to the server that has the database open. If no server has it, the
//! command applies the change itself. Either way the change is an entry of the log.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::control_client::ControlError;
use super::output::remark;
use super::{Error, control_client};
use crate::store::change::{Change, Done};
use crate::store::{Offline, OpenError, StartError, propose_alone};

/// How long to wait for another process that is opening or closing the database.
const OTHERS_WAIT: Duration = Duration::from_secs(3);
const OTHERS_POLL: Duration = Duration::from_millis(20);

/// What to do if the database does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    Make,
    Refuse,
}

/// Makes a change, synced to the disk, or returns why it was not made.
///
/// # Errors
/// [`Error`]. The file is unchanged then, unless the error says that the outcome is unknown.
pub fn propose(data: &Path, absent: Absent, change: Change) -> Result<Done, Error> {
    check(data, absent)?;
    let is_new = !data.exists();
    let deadline = Instant::now() + OTHERS_WAIT;
    loop {
        // Without a file, no server can have it open.
        if data.exists() {
            match control_client::request(data, &change) {
                Err(ControlError::NoServer(_)) => {}
                answer => return Ok(answer?),
            }
        }
        match propose_alone(data, change.clone()) {
            Ok(done) => {
                if is_new {
                    let path = data.canonicalize().unwrap_or_else(|_| data.to_owned());
                    remark(&format!("created a new database, {}; no server has it open", path.display()));
                }
                return done.map_err(Error::Rejected);
            }
            // Another process has the database open. It may be about to bind its control socket, or to end.
            Err(StartError::Open(OpenError::InUse(_))) if Instant::now() < deadline => {
                thread::sleep(OTHERS_POLL);
            }
            Err(StartError::Open(OpenError::InUse(path))) => {
                return Err(ControlError::NoAnswer(path).into());
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Checks that a file is a database of adda, or may become one. The check only reads, because a connection with write
/// access would change the files of another program's database, too.
fn check(data: &Path, absent: Absent) -> Result<(), Error> {
    if absent == Absent::Make {
        match fs::metadata(data) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            // A server accepts an empty file, too.
            Ok(file) if file.is_file() && file.len() == 0 => return Ok(()),
            _ => {}
        }
        Offline::open_even_empty(data)?;
    } else {
        Offline::open(data)?;
    }
    Ok(())
}
