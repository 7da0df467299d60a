//! The store: one thread that gives every message its place in its room's order and commits it.
//!
//! The hub sends it batches of [`Append`] and gets each back as one batch of [`Appended`], in the same order, after the
//! commit that all of it shares; presence travels in the batches too, so that a `join` comes before its user's first
//! message and a `leave` after the last. At most one batch is on its way at a time, so neither side ever waits for room
//! in a channel. Reads have connections of their own ([`Reader`]) and never pass through here.
//!
//! What cannot be stored is answered so: the whole batch is rolled back and every message in it refused. A sync that
//! failed is the end of the process: what the disk holds is not known any more, and nothing may be acked on top.

pub mod accounts;
mod beside;
mod memory;
mod messages;
mod offline;
mod reader;
mod registry;
mod rooms;
mod schema;
mod search;
mod upkeep;
mod writer;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, never, select};
use rusqlite::{Connection, ffi};
use sha2::{Digest, Sha256};

use crate::auth::permission::{Action, Circumstances, Whose, may};
use crate::config::{Data, Durability, Keep};
use crate::limits::STORE_STACK_BYTES;
use crate::metrics::Metrics;
use crate::model::{ConnectionId, FrameId, Nonce, Person, RoomId, Seq, Timestamp, UserId};
use crate::protocol::{After, Body, ErrorCode as Code, NO_SUCH_MESSAGE, Rejected};
use crate::role::Role;
use crate::threads::Vital;

use accounts::{NewSession, SessionKind};
pub use beside::{Absent, Beside};
use memory::Memory;
pub use messages::{Message, Side};
pub use offline::{Inspection, Offline, Progress, ToolError};
pub use reader::{ReadError, Reader};
pub use registry::{Registry, RegistryError};
pub use schema::{Database, OpenError};
use upkeep::{People, Seen, Upkeep};
use writer::Store;

/// What the hub wants to have a place in a room's order.
#[derive(Debug)]
pub enum Append {
    /// A message, to be stored.
    Message(NewMessage),
    /// A message for several rooms, to be stored in all of them or in none.
    Announcement {
        /// Which, the first one first: there it has its nonce.
        rooms: Vec<RoomId>,
        /// What; its room is the first.
        message: NewMessage,
    },
    /// Somebody comes; not stored, but in order. Bears whatever the hub wants back.
    Join {
        /// Which room.
        room: RoomId,
        /// The hub's own mark.
        ticket: Ticket,
        /// Where the room's order stands as the hub knows it; nothing where the hub needs to be told the room's past.
        known: Option<Seq>,
        /// The last frame that whoever comes has seen; its place is told.
        after: Option<After>,
        /// A guest who was never here before, to be known again by a token.
        guest: Option<NewGuest>,
    },
    /// Somebody goes; not stored, but in order.
    Leave {
        /// Which room.
        room: RoomId,
        /// The hub's own mark.
        ticket: Ticket,
    },
}

/// The hub's own mark on what it sends: whom the answer is for. The store only gives it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ticket {
    /// A member, by its key, that comes or goes.
    Member(usize),
    /// A connection, which may have gone meanwhile.
    Connection(ConnectionId),
    /// A connection that is not in the room, and so is told by itself what is stored there.
    Outsider(ConnectionId),
    /// A request over HTTP, by its number.
    Request(u64),
    /// Nobody waits for it.
    Nobody,
}

/// A guest's identity that is to outlive the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGuest {
    /// Who.
    pub id: UserId,
    /// What the token hashes to; the token itself is nowhere.
    pub token_hash: TokenHash,
}

/// SHA-256 of a token. A token has 256 random bits, so a plain hash is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

impl NewGuest {
    /// The session that keeps it.
    fn session(&self) -> NewSession<'_> {
        NewSession {
            token_hash: self.token_hash,
            user: self.id,
            kind: SessionKind::Guest,
            username: None,
            label: "",
            expires_ms: None,
        }
    }
}

impl TokenHash {
    /// The hash of a token as its bearer shows it.
    #[must_use]
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }
}

/// A message that has no place yet.
#[derive(Debug, Clone)]
pub struct NewMessage {
    /// Where.
    pub room: RoomId,
    /// By whom.
    pub author: Arc<Person>,
    /// What they may do.
    pub role: Role,
    /// What.
    pub body: Body,
    /// The client's own mark on it.
    pub nonce: Option<Nonce>,
    /// Why it is not to be stored, if it was not stored before.
    pub refusal: Option<Box<Rejected>>,
    /// The hub's own mark.
    pub ticket: Ticket,
}

impl NewMessage {
    /// The same for one more room. One nonce is one message, and one answer is enough.
    fn copy_in(&self, room: &RoomId) -> Self {
        Self { room: room.clone(), nonce: None, ticket: Ticket::Nobody, ..self.clone() }
    }
}

/// What has its place now.
#[derive(Debug)]
pub enum Appended {
    /// A message is stored.
    Message {
        /// Where.
        room: RoomId,
        /// The frame, with its place.
        stored: Stored,
        /// The frame of the message that it took back, as it is from now on.
        erased: Option<Stored>,
        /// As it was given.
        ticket: Ticket,
    },
    /// A message was stored before: this is its frame, for its author alone.
    Duplicate {
        /// The frame as it was, marked as a duplicate.
        stored: Stored,
        /// As it was given.
        ticket: Ticket,
    },
    /// A message is not stored.
    Refused {
        /// Where it was meant to be.
        room: RoomId,
        /// Why.
        rejected: Rejected,
        /// As it was given.
        ticket: Ticket,
    },
    /// Somebody comes at this place.
    Join {
        /// Which room.
        room: RoomId,
        /// As it was given.
        ticket: Ticket,
        /// The room's past, where it was asked for.
        past: Option<Past>,
        /// The place of the frame that was seen last, where one was named and is kept.
        seen: Option<Seq>,
        /// Whether a new guest's identity is stored, so that its token will be known.
        is_known: bool,
    },
    /// Somebody goes at this place.
    Leave {
        /// Which room.
        room: RoomId,
        /// As it was given.
        ticket: Ticket,
    },
}

/// A stored frame as members get it. Cloning shares the bytes.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its id.
    pub id: FrameId,
    /// Its place.
    pub seq: Seq,
    /// Its JSON.
    pub json: Arc<[u8]>,
}

/// What is kept of a room, at a moment of its order.
#[derive(Debug, Clone, Default)]
pub struct Past {
    /// The last place taken.
    pub head: Seq,
    /// The latest frames, oldest first, [`HISTORY_MAX`](crate::limits::HISTORY_MAX) at most.
    pub frames: Vec<Stored>,
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
    pub appends: Sender<Vec<Append>>,
    /// Gives it back.
    pub appended: Receiver<Vec<Appended>>,
}

/// How often the WAL is looked at, and from which size on it is moved into the file.
const CHECKPOINT_EVERY: Duration = Duration::from_millis(200);
const CHECKPOINT_PAGES_MIN: u64 = 1_000;
/// How long the store's thread waits before it looks for what is too old in memory.
const MEMORY_LOOK_EVERY: Duration = Duration::from_secs(1);

/// What was started. The threads end when the [`Writer`] is dropped.
#[derive(Debug)]
pub struct Started {
    /// For the hub.
    pub writer: Writer,
    /// For whoever reads messages.
    pub reader: Reader,
    /// For whoever asks after people.
    pub registry: Registry,
    /// The store's own.
    pub threads: Vec<JoinHandle<()>>,
}

/// Opens the database and starts the threads.
///
/// # Errors
/// Where the database can't be used, or the system gives no thread.
pub fn start(data: &Data, durability: Durability, keep: Keep, metrics: Arc<Metrics>) -> Result<Started, StartError> {
    let (appends, append_batches) = bounded(1);
    let (appended_batches, appended) = bounded(1);
    let writer = Writer { appends, appended };
    let spawn = |name: &str| thread::Builder::new().name(name.into()).stack_size(STORE_STACK_BYTES);
    let path = match data {
        Data::File(path) => path,
        Data::Memory => {
            let registry = Registry::in_memory().map_err(StartError::Memory)?;
            let memory = Arc::new(Mutex::new(Memory::new(keep, registry.clone())));
            let (kept, known) = (Arc::clone(&memory), registry.clone());
            let store = spawn("store").spawn(move || {
                let _vital = Vital("store");
                let mut people = People::new();
                loop {
                    match append_batches.recv_timeout(MEMORY_LOOK_EVERY) {
                        Ok(batch) => {
                            let batch = locked(&kept).commit(batch);
                            if answer(&appended_batches, &metrics, batch).is_none() {
                                return;
                            }
                        }
                        Err(RecvTimeoutError::Timeout) => locked(&kept).forget_expired(Timestamp::now().unix_ms),
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                    if let Err(error) = known.forget_in_memory(&mut people) {
                        log::warn!("failed to forget who is long gone: {error}");
                    }
                }
            })?;
            return Ok(Started { writer, reader: Reader::of_memory(memory), registry, threads: vec![store] });
        }
    };
    let (database, connection) = Database::open(path, durability)?;
    let database = Arc::new(database);
    // Nothing is ever sent: its end is the store's.
    let (open, closed) = bounded::<()>(0);
    let checkpointer = database.checkpointer()?;
    let checkpoints = spawn("checkpoint").spawn(move || checkpoint(&checkpointer, &closed))?;
    let seen = Arc::new(Seen::default());
    let mut upkeep = Upkeep::new(keep, &database, durability, Arc::clone(&seen));
    let reader = Reader::of_database(database, seen);
    let (registry, mut changes) = Registry::of_database(reader.clone());
    let readers = ReadersClosed(reader.clone());
    let mut store = Store::new(connection);
    let store = spawn("store").spawn(move || {
        // Dropped before the connection is, the last first.
        let (_open, _vital) = (open, Vital("store"));
        let store = &mut store;
        let _readers = readers;
        loop {
            let kept = select! {
                recv(append_batches) -> batch => {
                    let Ok(batch) = batch else { return };
                    if answer(&appended_batches, &metrics, store.commit(batch)).is_none() {
                        return;
                    }
                    upkeep.behind_batch(&store.connection, &mut store.rooms)
                }
                recv(changes) -> change => {
                    match change {
                        Ok(change) => change(&store.connection),
                        // Nobody asks any more.
                        Err(_) => changes = never(),
                    }
                    Ok(())
                }
                default(upkeep.wait()) => upkeep.between_batches(&store.connection, &mut store.rooms),
            };
            if let Err(error) = kept {
                exit_on_sync_failure(&error);
                log::warn!("failed to keep the database within its bounds: {error}");
            }
        }
    })?;
    Ok(Started { writer, reader, registry, threads: vec![store, checkpoints] })
}

/// Closes the readers' connections when it is dropped.
struct ReadersClosed(Reader);

impl Drop for ReadersClosed {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Gives a batch back to the hub; nothing where the hub has ended.
fn answer(appended: &Sender<Vec<Appended>>, metrics: &Metrics, batch: Vec<Appended>) -> Option<()> {
    let messages = batch.iter().filter(|appended| matches!(appended, Appended::Message { .. })).count();
    metrics.messages.add(messages as u64);
    appended.send(batch).ok()
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
    /// No memory for the accounts.
    #[error("failed to make room for accounts in memory: {0}")]
    Memory(#[source] rusqlite::Error),
}

/// Moves what is in the WAL into the file, now and then, so that no commit has to. Readers may hold it up for a while;
/// the next round goes on from there.
fn checkpoint(connection: &Connection, closed: &Receiver<()>) {
    while closed.recv_timeout(CHECKPOINT_EVERY) == Err(RecvTimeoutError::Timeout) {
        let moved = connection.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get::<_, i64>(1));
        let pages = moved.map_or(u64::MAX, |pages| u64::try_from(pages).unwrap_or(0));
        if pages >= CHECKPOINT_PAGES_MIN
            && let Err(error) = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
        {
            exit_on_sync_failure(&error);
            log::warn!("failed to move the WAL into the database: {error}");
        }
    }
    // The last one leaves a file that needs no WAL.
    let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
}

/// The answer to a message that is not stored.
fn refused(new: &NewMessage, rejected: Rejected) -> Appended {
    let (room, nonce) = (new.room.clone(), new.nonce.clone());
    Appended::Refused { room, rejected: Rejected { nonce, ..rejected }, ticket: new.ticket }
}

/// What a message's author is told who has used its nonce before.
fn sent_before(new: &NewMessage, before: &Message, json: &mut Vec<u8>) -> Appended {
    if before.says_the_same(new) {
        return Appended::Duplicate { stored: before.stored(true, json), ticket: new.ticket };
    }
    refused(new, Rejected::new(Code::Conflict, "that nonce was another message's; what is new needs a new one", None))
}

/// Says in the log who has taken back what another said. Not what that was.
fn log_taken_back(new: &NewMessage, erased: &Stored) {
    log::info!("{} has taken back message {} in {}", new.author.id, erased.id, new.room);
}

/// Whether a message may be taken back by whoever wants it; the hub has asked about the room.
fn may_take_back(new: &NewMessage, message: Option<&Message>) -> Result<(), Rejected> {
    // What is no message, or was taken back, can't be taken back.
    let message = message.filter(|message| message.is_there());
    let message = message.ok_or_else(|| Rejected::new(Code::NotFound, NO_SUCH_MESSAGE, None))?;
    let whose = if message.author().id == new.author.id { Whose::Own } else { Whose::Others(Role::Guest) };
    let circumstances = Circumstances { whose, ..Circumstances::default() };
    may(new.role, Action::Delete, &circumstances)
        .map_err(|refusal| Rejected::new(Code::Forbidden, refusal.to_string(), None))
}

/// Ends the process where a sync failed: nothing may be acked any more.
fn exit_on_sync_failure(error: &rusqlite::Error) {
    if is_sync_failure(error) {
        log::error!("a sync failed, so what the disk holds is not known; stopping: {error}");
        std::process::exit(1);
    }
}

/// Whether the system failed to bring data to the disk: then the page cache may have forgotten it, and no later sync
/// will tell.
fn is_sync_failure(error: &rusqlite::Error) -> bool {
    let rusqlite::Error::SqliteFailure(ffi::Error { extended_code, .. }, _) = error else { return false };
    matches!(*extended_code, ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC)
}

#[cfg(test)]
mod tests;
