//! The store: one thread that applies the entries of the log and commits them.
//!
//! The hub sends it batches of [`Proposal`] and gets each back as one batch of [`Applied`], in the same order, after the
//! commit that all of it shares; presence travels in the batches too, so that a `join` comes before its user's first
//! message and a `leave` after the last. At most one batch is on its way at a time, so neither side ever waits for room
//! in a channel. Reads have connections of their own ([`Reader`]) and never pass through here.
//!
//! What cannot be stored is answered so: the whole batch is rolled back and every message in it refused. A sync that
//! failed is the end of the process: what the disk holds is not known any more, and nothing may be acked on top.

pub mod accounts;
pub mod change;
mod engine;
pub mod entry;
mod ledger;
pub mod log;
mod memory;
mod message;
mod policy;
mod reader;
mod sqlite;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::{Data, Durability, Keep};
use crate::limits::STORE_STACK_BYTES;
use crate::metrics::Metrics;
use crate::model::{RoomId, Seq};
use crate::threads::AbortOnPanic;

use change::Policy;
use engine::Store;
pub use engine::propose_alone;
use entry::{Applied, Outcome, Proposal, Stored};
use log::clock::Reading;
pub use message::Message;
pub use policy::{PolicySnapshot, PublishedPolicy};
pub use reader::{ReadError, Reader, View};
pub use sqlite::offline::{Inspection, Offline, Progress, ToolError};
pub use sqlite::schema::{Database, OpenError};
use sqlite::{Fault, exit_on_sync_failure};

/// SHA-256 of a token or code. It has 256 random bits, so a plain hash is enough.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TokenHash([u8; 32]);

impl std::fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

impl TokenHash {
    /// The hash of a token as a client shows it.
    #[must_use]
    pub fn of(token: &str) -> Self {
        Self::of_bytes(token.as_bytes())
    }

    fn of_bytes(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

/// A side of a place in a room's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The latest ones before it.
    Before(Seq),
    /// The first ones after it.
    After(Seq),
}

/// Which stored frames are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kinds {
    /// Texts and announcements, as they stand now.
    Messages,
    /// Those and the events, without gaps.
    All,
}

impl Side {
    /// Brings what was walked so into the order of time.
    fn sort(self, walked: &mut [Message]) {
        if matches!(self, Self::Before(_)) {
            walked.reverse();
        }
    }
}

/// A room of which something is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptRoom {
    /// Its id.
    pub id: RoomId,
    /// The last place taken.
    pub head: Seq,
}

/// A thread that panicked with the lock has left what it had: every change here is whole before the next begins.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The hub's end of the store.
#[derive(Debug)]
pub struct Writer {
    /// Takes a batch; holds one, and the hub sends the next only when the last has come back.
    pub proposals: Sender<Vec<Proposal>>,
    /// Gives it back.
    pub applied: Receiver<Vec<Applied>>,
}

/// How often the WAL is looked at, and from which size on it is moved into the file.
const CHECKPOINT_EVERY: Duration = Duration::from_millis(200);
const CHECKPOINT_PAGES_MIN: u64 = 1_000;

/// What was started. The threads end when the [`Writer`] is dropped.
#[derive(Debug)]
pub struct Started {
    /// For the hub.
    pub writer: Writer,
    /// For everything that reads.
    pub reader: Reader,
    /// The store's own.
    pub threads: Vec<JoinHandle<()>>,
}

/// Opens the database and starts the threads.
///
/// # Errors
/// Where the database can't be used, or the system gives no thread.
pub fn start(
    data: &Data,
    durability: Durability,
    keep: Keep,
    policy: Policy,
    metrics: Arc<Metrics>,
) -> Result<Started, StartError> {
    let (proposals, batches) = bounded(1);
    let (results, applied) = bounded(1);
    let writer = Writer { proposals, applied };
    let spawn = |name: &str| thread::Builder::new().name(name.into()).stack_size(STORE_STACK_BYTES);
    let (mut store, reader, checkpoints) = match data {
        Data::File(path) => {
            let (database, connection) = Database::open(path, durability)?;
            let database = Arc::new(database);
            // Nothing is ever sent: its end is the store's.
            let (open, closed) = bounded::<()>(0);
            let checkpointer = database.checkpointer()?;
            let checkpoints = spawn("checkpoint").spawn(move || checkpoint(&checkpointer, &closed))?;
            let (store, reader) = Store::of_database(&database, connection, durability, keep, Reading::now())?;
            (store, reader, Some((open, checkpoints)))
        }
        Data::Memory => {
            let (store, reader) = Store::in_memory(keep, Reading::now())?;
            (store, reader, None)
        }
    };
    store.set_policy(policy)?;
    let (open, checkpoints) = checkpoints.unzip();
    let readers = reader.clone();
    let thread = spawn("store").spawn(move || {
        // Dropped before the connection is, the last first.
        let (_open, _abort) = (open, AbortOnPanic("store"));
        let mut store = store;
        loop {
            match batches.recv_timeout(store.wait()) {
                Ok(batch) => {
                    let applied = store.commit(batch);
                    let is_stored = |applied: &&Applied| matches!(applied.result, Outcome::Stored { .. });
                    metrics.messages.add(applied.iter().filter(is_stored).count() as u64);
                    // The hub has ended where it takes nothing.
                    if results.send(applied).is_err() {
                        break;
                    }
                    store.keep_bounds(false);
                }
                Err(RecvTimeoutError::Timeout) => store.keep_bounds(true),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        store.note_time();
        readers.close();
    })?;
    let threads = [thread].into_iter().chain(checkpoints).collect();
    Ok(Started { writer, reader, threads })
}

/// Why the store did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database can't be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// No thread.
    #[error("failed to start a thread: {0}")]
    Thread(#[from] io::Error),
    /// What is stored of people and rooms can't be read.
    #[error("failed to read what is stored: {0}")]
    Read(#[from] Fault),
}

/// Moves what is in the WAL into the file, now and then, so that no commit has to. Readers may hold it up for a while;
/// the next round goes on from there.
fn checkpoint(connection: &sqlite::Connection, closed: &Receiver<()>) {
    while closed.recv_timeout(CHECKPOINT_EVERY) == Err(RecvTimeoutError::Timeout) {
        let moved = connection.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get::<_, i64>(1));
        let pages = moved.map_or(u64::MAX, |pages| u64::try_from(pages).unwrap_or(0));
        if pages >= CHECKPOINT_PAGES_MIN
            && let Err(error) = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
        {
            exit_on_sync_failure(&error);
            ::log::warn!("failed to move the WAL into the database: {error}");
        }
    }
    // The last one leaves a file that needs no WAL.
    let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
