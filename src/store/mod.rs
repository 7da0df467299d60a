//! The store: applies the entries of the log and commits them, on the thread `store`.
//!
//! The hub sends batches of [`Proposal`]. It gets each batch back as one batch of [`Applied`], in the same order, after
//! the commit that the whole batch shares. Joins and leaves travel in the batches too. So a `join` precedes its user's
//! first message, and a `leave` follows the last. At most one batch is in flight, so neither side ever blocks on a full
//! channel.
//!
//! Reads use their own connections ([`Reader`]) and never pass through this thread. If a batch can't be stored, it is
//! rolled back as a whole and its messages are refused. A failed sync ends the process: the contents of the disk are
//! unknown then, and nothing more may be acknowledged.

pub mod accounts;
pub mod change;
mod engine;
pub mod entry;
mod ledger;
pub mod log;
mod memory;
mod message;
mod policy;
pub mod private_file;
mod reader;
mod sqlite;
pub mod terms;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError, bounded};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::{Data, Durability, Keep};
use crate::limits::STORE_STACK_BYTES;
use crate::metrics::Metrics;
use crate::model::{RoomId, Seq};
use crate::threads::{AbortOnPanic, Sleeper, WakingSender};

use change::Policy;
use engine::Store;
pub use engine::propose_alone;
use entry::{Applied, Outcome, Proposal, Stored};
use log::clock::Reading;
pub use message::Message;
pub use policy::{PolicySnapshot, PublishedPolicy, ServerId};
pub use reader::{Found, ReadError, Reader, View};
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

/// Which frames are read, relative to a seq.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The latest frames before it.
    Before(Seq),
    /// The first frames after it.
    After(Seq),
}

/// Which frames of a room are read: those on a side, above the seq of the reader's floor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    pub side: Side,
    pub floor: Seq,
}

impl From<Side> for Part {
    /// All kept frames on a side.
    fn from(side: Side) -> Self {
        Self { side, floor: Seq(0) }
    }
}

/// The size of a page of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLimit {
    pub frames: usize,
    /// Bytes of JSON. The frame that reaches them is the last of the page.
    pub bytes: usize,
}

impl PageLimit {
    /// Whether a page with these frames and bytes can have another frame.
    fn has_space(self, frames: usize, bytes: usize) -> bool {
        frames < self.frames && bytes < self.bytes
    }
}

impl From<usize> for PageLimit {
    /// A number of frames, of any size.
    fn from(frames: usize) -> Self {
        Self { frames, bytes: usize::MAX }
    }
}

/// Where a frame id stands in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The frame is kept.
    At(Seq),
    /// The frame is not kept any more, as far as its id tells: it is older than all kept frames of the room.
    Forgotten,
    /// The room never had this frame.
    Unknown,
}

/// Which kinds of stored frames are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kinds {
    /// Texts and announcements, in their current form.
    Messages,
    /// Messages and events, without gaps.
    All,
}

impl Side {
    /// The part of it that a reader with this floor may read.
    #[must_use]
    pub fn above(self, floor: Seq) -> Part {
        Part { side: self, floor }
    }

    /// The same side of another seq.
    fn from(self, seq: Seq) -> Self {
        match self {
            Self::Before(_) => Self::Before(seq),
            Self::After(_) => Self::After(seq),
        }
    }

    /// Puts frames that were read on this side into chronological order.
    fn sort<T>(self, walked: &mut [T]) {
        if matches!(self, Self::Before(_)) {
            walked.reverse();
        }
    }
}

/// A room with stored frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptRoom {
    pub id: RoomId,
    /// The highest seq assigned.
    pub head: Seq,
}

/// Locks a mutex, even if it is poisoned. Each change under these locks is complete before the next begins, so a panic
/// leaves the data usable.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The hub's channels to the store.
#[derive(Debug)]
pub struct Writer {
    /// Takes a batch. The channel holds one, and the hub sends the next only after it has the results of the last.
    pub proposals: WakingSender<Vec<Proposal>>,
    /// Returns the results of each batch.
    pub applied: Receiver<Vec<Applied>>,
}

/// The interval at which the WAL is checked, and the number of its pages from which it is checkpointed.
const CHECKPOINT_EVERY: Duration = Duration::from_millis(200);
const CHECKPOINT_PAGES_MIN: u64 = 1_000;

/// A store that was started. Its threads end when the [`Writer`] is dropped.
#[derive(Debug)]
pub struct Started {
    /// The hub's end.
    pub writer: Writer,
    /// Reads, on any thread.
    pub reader: Reader,
    /// The thread `store` and, for a file, the thread `checkpoint`.
    pub threads: Vec<JoinHandle<()>>,
}

/// Opens the database and starts the threads. Results wake the hub's thread where it sleeps.
///
/// # Errors
/// [`StartError`], if the database can't be used or a thread can't be started.
pub fn start(
    data: &Data,
    durability: Durability,
    keep: Keep,
    policy: Policy,
    hub: &Sleeper,
    metrics: Arc<Metrics>,
) -> Result<Started, StartError> {
    let sleeper = Sleeper::default();
    let (proposals, batches) = sleeper.channel(Some(1));
    let (results, applied) = hub.channel(Some(1));
    let writer = Writer { proposals, applied };
    let spawn = |name: &str| thread::Builder::new().name(name.into()).stack_size(STORE_STACK_BYTES);
    let (mut store, reader, checkpoints) = match data {
        Data::File(path) => {
            let (database, connection) = Database::open(path, durability)?;
            let database = Arc::new(database);
            // Nothing is ever sent. The checkpoint thread ends when the store's thread drops `open`.
            let (open, closed) = bounded::<()>(0);
            let (checkpointer, checkpointed) = (database.checkpointer()?, Arc::clone(&database));
            let checkpoints = spawn("checkpoint").spawn(move || checkpoint(&checkpointed, checkpointer, &closed))?;
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
        // Locals drop in reverse order: first the store with its connection, then the guard, then `_open`, which ends
        // the checkpoint thread.
        let (_open, _abort) = (open, AbortOnPanic("store"));
        let mut store = store;
        let mut upkeep_at = Instant::now() + store.wait();
        loop {
            match batches.try_recv() {
                Ok(batch) => {
                    let applied = store.commit(batch);
                    let is_stored = |applied: &&Applied| matches!(applied.result, Outcome::Stored { .. });
                    metrics.messages.add(applied.iter().filter(is_stored).count() as u64);
                    // A failed send means that the hub has ended.
                    if results.send(applied).is_err() {
                        break;
                    }
                    store.keep_bounds(false);
                    upkeep_at = Instant::now() + store.wait();
                }
                Err(TryRecvError::Empty) if Instant::now() < upkeep_at => sleeper.sleep(Some(upkeep_at)),
                Err(TryRecvError::Empty) => {
                    store.keep_bounds(true);
                    upkeep_at = Instant::now() + store.wait();
                }
                Err(TryRecvError::Disconnected) => break,
            }
        }
        store.end();
        readers.close();
    })?;
    let threads = [thread].into_iter().chain(checkpoints).collect();
    Ok(Started { writer, reader, threads })
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("failed to start a thread: {0}")]
    Thread(#[from] io::Error),
    /// The stored policy can't be read, or the flags can't be stored.
    #[error("failed to read the database: {0}")]
    Read(#[from] Fault),
}

/// Checkpoints the WAL at intervals, on the thread `checkpoint`, so that no commit has to. Readers may hold up a
/// checkpoint for a while; the next round continues it. Also looks whether the files are still there.
fn checkpoint(database: &Database, connection: sqlite::Connection, closed: &Receiver<()>) {
    while closed.recv_timeout(CHECKPOINT_EVERY) == Err(RecvTimeoutError::Timeout) {
        database.look();
        if database.loss().is_some() {
            continue;
        }
        if let Err(error) = database.clear_wal(&connection) {
            exit_on_sync_failure(&error);
            ::log::warn!("failed to empty the WAL: {error}");
        }
        let pages = database.look_at_wal(&connection).unwrap_or(u64::MAX);
        if pages >= CHECKPOINT_PAGES_MIN.min(database.wal_pages_max() / 4)
            && let Err(error) = database.checkpoint(&connection, "PASSIVE")
        {
            exit_on_sync_failure(&error);
            ::log::warn!("failed to move the WAL into the database: {error}");
        }
    }
    // The last checkpoint truncates the WAL, so that the file is complete without it.
    database.look();
    let _ = database.checkpoint(&connection, "TRUNCATE");
    // This is the last connection, so SQLite removes the WAL and its shared memory. Their space counts for the reserve.
    drop(connection);
    database.keep_for_start();
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
