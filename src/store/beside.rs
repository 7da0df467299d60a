//! The database as the operator's commands change it: by a process of their own, beside a server or without one.
//!
//! SQLite lets one process write at a time, and each waits for the other. The lock that says that a server has the file
//! ([`Database`]) is taken only to make the file or to bring it up to date: a server that starts meanwhile must not find
//! it taken for as long as somebody thinks of a password.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::config::Durability;

use super::accounts::{self, AccountError};
use super::offline::{Offline, ToolError};
use super::registry::in_transaction;
use super::schema::{self, Database, OpenError};

/// How long to wait for another process that makes the file or brings it up to date.
const OTHERS_WAIT: Duration = Duration::from_secs(3);
/// From one look at it to the next.
const OTHERS_POLL: Duration = Duration::from_millis(20);

/// What to do where there is no database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// Make one.
    Make,
    /// Fail.
    Refuse,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Beside {
    path: PathBuf,
    connection: Connection,
}

impl Beside {
    /// Opens a database of adda, with this adda's schema; brings an older one up to date where no server has it.
    ///
    /// # Errors
    /// [`ToolError`], with the file as it was.
    pub fn open(path: &Path, absent: Absent) -> Result<Self, ToolError> {
        let deadline = Instant::now() + OTHERS_WAIT;
        while !is_up_to_date(path, absent)? {
            match Database::open(path, Durability::Full) {
                Ok(opened) => drop(opened),
                Err(OpenError::InUse(_)) if Instant::now() < deadline => thread::sleep(OTHERS_POLL),
                Err(OpenError::InUse(path)) => return Err(OpenError::Older(path).into()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self { path: path.to_owned(), connection: schema::connect_beside(path)? })
    }

    /// Changes something: all of it, synced to the disk, or nothing. A server that has the file sees that there is a change.
    ///
    /// # Errors
    /// [`ToolError`].
    pub fn change<T>(&self, change: impl FnOnce(&Connection) -> Result<T, AccountError>) -> Result<T, ToolError> {
        let counted = |connection: &Connection| {
            let done = change(connection)?;
            accounts::count_beside(connection)?;
            Ok(done)
        };
        in_transaction(&self.connection, counted).map_err(|error| match error {
            AccountError::Sqlite(error) => ToolError::Write { path: self.path.clone(), source: error.into() },
            error => ToolError::Account(error),
        })
    }
}

/// Whether a file is a database with this adda's schema. It is looked at by reading alone, as a connection that may write
/// would tidy up somebody else's database, too.
fn is_up_to_date(path: &Path, absent: Absent) -> Result<bool, ToolError> {
    let makes = absent == Absent::Make;
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound && makes => return Ok(false),
        // A server takes an empty file, too.
        Ok(file) if file.is_file() && file.len() == 0 && makes => return Ok(false),
        _ => {}
    }
    let database = if makes { Offline::open_even_empty(path) } else { Offline::open(path) };
    Ok(database?.schema()? == schema::version() as i64)
}
