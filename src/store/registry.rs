//! The way to what is kept of people: accounts, sessions, invitations, who is kept out, what is set of rooms.
//!
//! Reading has connections of its own. Changes go to the store's thread, which makes each in a transaction of its own
//! between two batches: one writer, and nothing here is on the path of a message. In memory both have one connection.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use rusqlite::Connection;

use crate::limits::{CHANGES_WAITING_MAX, STORE_ANSWER_WAIT};
use crate::model::{Timestamp, UserId};

use super::accounts::{self, AccountError, Session};
use super::reader::{ReadError, Reader};
use super::upkeep::{OVER_KEPT, People};
use super::{TokenHash, exit_on_sync_failure, locked};

/// A change, with the way back to whoever waits for it.
pub type Change = Box<dyn FnOnce(&Connection) + Send>;

/// See the head of this file. Cloning gives another handle of the same.
#[derive(Clone)]
pub struct Registry(Place);

#[derive(Clone)]
enum Place {
    Database { reader: Reader, changes: Sender<Change> },
    Memory(Arc<Mutex<Connection>>),
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registry")
    }
}

/// Why nothing was read or changed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// By what is kept: a name is taken, or something is not there.
    #[error(transparent)]
    Account(AccountError),
    /// The database can't be read or written now. After a change that had no answer in time, it may yet be made.
    #[error("the server is busy")]
    Busy,
}

impl From<ReadError> for RegistryError {
    fn from(error: ReadError) -> Self {
        log::error!("{error}");
        Self::Busy
    }
}

impl From<AccountError> for RegistryError {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::Sqlite(error) => {
                log::error!("failed to reach the accounts: {error}");
                Self::Busy
            }
            error => Self::Account(error),
        }
    }
}

impl Registry {
    /// The way to a database; the other end is for the store's thread.
    pub(super) fn of_database(reader: Reader) -> (Self, Receiver<Change>) {
        let (changes, asked) = bounded(CHANGES_WAITING_MAX);
        (Self(Place::Database { reader, changes }), asked)
    }

    /// People who are known as long as this lives.
    ///
    /// # Errors
    /// Where there is no memory for them.
    pub fn in_memory() -> rusqlite::Result<Self> {
        Ok(Self(Place::Memory(Arc::new(Mutex::new(accounts::in_memory()?)))))
    }

    /// Reads.
    ///
    /// # Errors
    /// [`RegistryError::Busy`].
    pub fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, RegistryError> {
        match &self.0 {
            Place::Database { reader, .. } => Ok(reader.read_database(read)?),
            Place::Memory(connection) => Ok(read(&locked(connection)).map_err(ReadError::Sqlite)?),
        }
    }

    /// Changes something: all of it, committed as messages are, or nothing.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Connection) -> Result<T, AccountError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        self.change_by(Instant::now() + STORE_ANSWER_WAIT, change)
    }

    fn change_by<T: Send + 'static>(
        &self,
        deadline: Instant,
        change: impl FnOnce(&Connection) -> Result<T, AccountError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        match &self.0 {
            Place::Memory(connection) => Ok(in_transaction(&locked(connection), change)?),
            Place::Database { changes, .. } => {
                let (answer, answered) = bounded(1);
                let change: Change = Box::new(move |connection| {
                    let done = in_transaction(connection, change);
                    if let Err(AccountError::Sqlite(error)) = &done {
                        exit_on_sync_failure(error);
                    }
                    // Whoever asked may have given up waiting.
                    drop(answer.try_send(done));
                });
                changes.send_deadline(change, deadline).map_err(|_| RegistryError::Busy)?;
                Ok(answered.recv_deadline(deadline).map_err(|_| RegistryError::Busy)??)
            }
        }
    }

    /// Changes something soon, which nobody waits for; says whether there was time for it. What comes of it is in the log
    /// where it fails.
    pub fn change_soon<T>(&self, change: impl FnOnce(&Connection) -> Result<T, AccountError> + Send + 'static) -> bool {
        let change = move |connection: &Connection| {
            if let Err(AccountError::Sqlite(error)) = in_transaction(connection, change) {
                exit_on_sync_failure(&error);
                log::error!("failed to reach the accounts: {error}");
            }
        };
        match &self.0 {
            Place::Memory(connection) => change(&locked(connection)),
            Place::Database { changes, .. } => return changes.try_send(Box::new(change)).is_ok(),
        }
        true
    }

    /// The session of a token, if it is not over.
    ///
    /// # Errors
    /// [`RegistryError::Busy`].
    pub fn session(&self, token: &str) -> Result<Option<Session>, RegistryError> {
        let hash = TokenHash::of(token);
        self.read(|connection| accounts::session(connection, hash, &Timestamp::now()))
    }

    /// Forgets some of what is over, where nothing else does: a database has upkeep.
    pub(super) fn forget_in_memory(&self, people: &mut People) -> rusqlite::Result<()> {
        match &self.0 {
            Place::Memory(connection) if people.is_due() => {
                people.step(&locked(connection), OVER_KEPT, &Timestamp::now(), |_, _| Ok(())).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Whether it is gone with the process.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        matches!(self.0, Place::Memory(_))
    }

    /// Takes note that somebody was here, for upkeep.
    pub fn note_seen(&self, user: UserId) {
        if let Place::Database { reader, .. } = &self.0 {
            reader.note_seen(user);
        }
    }
}

/// All of it, committed, or nothing.
pub(super) fn in_transaction<T>(
    connection: &Connection,
    change: impl FnOnce(&Connection) -> Result<T, AccountError>,
) -> Result<T, AccountError> {
    // Rolls back where it is dropped without a commit.
    let transaction = rusqlite::Transaction::new_unchecked(connection, rusqlite::TransactionBehavior::Immediate)?;
    let done = change(connection)?;
    transaction.commit()?;
    Ok(done)
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::config::Durability;
    use crate::store::schema::Database;

    #[test]
    fn a_store_before_which_too_many_changes_wait_is_busy_and_makes_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let (database, connection) = Database::open(&directory.path().join("adda.db"), Durability::Normal).unwrap();
        let (registry, asked) = Registry::of_database(Reader::of_database(Arc::new(database), Arc::default()));
        let count = |connection: &Connection| Ok(accounts::count_beside(connection)?);
        let soon = || Instant::now() + Duration::from_millis(20);
        // Nobody makes them yet: whoever waited no longer does not know what becomes of theirs.
        assert!(matches!(registry.change_by(soon(), count), Err(RegistryError::Busy)));
        let taken = (0..10_000).take_while(|_| registry.change_soon(count)).count();
        assert_eq!(taken, CHANGES_WAITING_MAX - 1);
        for _ in 0..3 {
            assert!(matches!(registry.change_by(soon(), count), Err(RegistryError::Busy)));
        }
        let store = thread::spawn(move || asked.iter().for_each(|change| change(&connection)));
        registry.change(count).unwrap();
        let made = registry.read(accounts::changes_beside).unwrap();
        assert_eq!(made, CHANGES_WAITING_MAX as i64 + 1, "what was refused is not made, and all the rest is");
        drop(registry);
        store.join().unwrap();
    }
}
