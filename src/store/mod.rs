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
mod memory;
mod messages;
mod offline;
mod rooms;
mod schema;
mod search;
mod upkeep;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rusqlite::{Connection, ErrorCode, ffi, params};
use sha2::{Digest, Sha256};

use crate::config::{Data, Durability, Keep};
use crate::ids::FrameIds;
use crate::limits::{HISTORY_MAX, STORE_STACK_BYTES};
use crate::metrics::Metrics;
use crate::model::{FrameId, Nonce, Person, RoomId, Seq, Timestamp, UserId};
use crate::protocol::{After, ErrorCode as Code, Rejected};
use crate::threads::Vital;

use memory::Memory;
use messages::RoomRow;
pub use messages::{Message, Side};
pub use offline::{Inspection, Offline, Progress, ToolError};
use rooms::Rooms;
pub use schema::{Database, OpenError};
use search::Wanted;
use upkeep::{Seen, Upkeep};

/// What the hub wants to have a place in a room's order.
#[derive(Debug)]
pub enum Append {
    /// A message, to be stored.
    Message(NewMessage),
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
    /// A member, by its key.
    Member(usize),
    /// A request over HTTP, by its number.
    Request(u64),
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

impl TokenHash {
    /// The hash of a token as its bearer shows it.
    #[must_use]
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }
}

/// A message that has no place yet.
#[derive(Debug)]
pub struct NewMessage {
    /// Where.
    pub room: RoomId,
    /// By whom.
    pub author: Arc<Person>,
    /// What.
    pub content: Box<str>,
    /// The client's own mark on it.
    pub nonce: Option<Nonce>,
    /// The frame that it answers.
    pub reply_to: Option<FrameId>,
    /// The hub's own mark.
    pub ticket: Ticket,
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
    /// The latest frames, oldest first, [`HISTORY_MAX`] at most.
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

/// Reads from the store, for whoever needs to; never through the hub.
#[derive(Clone)]
pub struct Reader(Source);

#[derive(Clone)]
enum Source {
    /// Connections are made as they are needed, and kept for the next.
    Database {
        database: Arc<Database>,
        idle: Arc<Mutex<Vec<Connection>>>,
        /// Whose token was shown, for upkeep.
        seen: Arc<Seen>,
    },
    /// Held by the store's thread for a batch, and by a reader for a page.
    Memory(Arc<Mutex<Memory>>),
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::Database { .. } => "Reader(database)",
            Source::Memory(_) => "Reader(memory)",
        })
    }
}

/// Why nothing could be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No connection could be made.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database says so.
    #[error("failed to read what is stored: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

impl Reader {
    /// The rooms of which something is kept, ordered by id, from behind `after`, `limit` at most.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn rooms(&self, after: Option<&RoomId>, limit: usize) -> Result<Vec<KeptRoom>, ReadError> {
        self.read(|memory| memory.rooms(after, limit), |connection| messages::rooms(connection, after, limit))
    }

    /// One such room.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn room(&self, id: &RoomId) -> Result<Option<KeptRoom>, ReadError> {
        self.read(|memory| memory.room(id), |connection| messages::kept_room(connection, id))
    }

    /// The frames of a room on one side of a place, oldest first, `limit` at most; with words, only those that have
    /// them all.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn page(&self, id: &RoomId, side: Side, limit: usize, words: Option<&str>) -> Result<Vec<Stored>, ReadError> {
        let wanted = words.map(Wanted::parse);
        if wanted == Some(None) {
            return Ok(Vec::new());
        }
        let wanted = wanted.flatten();
        let from_memory = |memory: &Memory| memory.page(id, side, limit, wanted.as_ref());
        self.read(from_memory, |connection| {
            let Some(room) = messages::room(connection, id)? else { return Ok(Vec::new()) };
            let page = match &wanted {
                Some(wanted) => search::page(connection, room.key, side, limit, wanted)?,
                None => messages::page(connection, room.key, side, limit)?,
            };
            let mut json = Vec::new();
            Ok(page.iter().map(|message| message.stored(false, &mut json)).collect())
        })
    }

    /// The place of a frame in a room, if it is kept.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn seq_of(&self, id: &RoomId, frame: FrameId) -> Result<Option<Seq>, ReadError> {
        self.read(
            |memory| memory.seq_of(id, frame),
            |connection| match messages::room(connection, id)? {
                Some(room) => messages::seq_of(connection, room.key, frame),
                None => Ok(None),
            },
        )
    }

    /// Who bears a token, if anybody does.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn bearer(&self, token: &str) -> Result<Option<UserId>, ReadError> {
        let hash = TokenHash::of(token);
        let bearer = self.read(|memory| memory.bearer(hash), |connection| messages::bearer(connection, hash))?;
        if let (Some(user), Source::Database { seen, .. }) = (bearer, &self.0) {
            seen.note(user);
        }
        Ok(bearer)
    }

    fn read<T>(
        &self,
        from_memory: impl FnOnce(&Memory) -> T,
        from_database: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, ReadError> {
        let (database, idle) = match &self.0 {
            Source::Memory(memory) => return Ok(from_memory(&locked(memory))),
            Source::Database { database, idle, .. } => (database, idle),
        };
        let ready = locked(idle).pop();
        let connection = match ready {
            Some(connection) => connection,
            None => database.reader()?,
        };
        let answer = from_database(&connection)?;
        let mut idle = locked(idle);
        if idle.len() < READERS_IDLE_MAX {
            idle.push(connection);
        }
        Ok(answer)
    }
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

/// Connections that are kept for the next reader.
const READERS_IDLE_MAX: usize = 4;
/// How often the WAL is looked at, and from which size on it is moved into the file.
const CHECKPOINT_EVERY: Duration = Duration::from_millis(200);
const CHECKPOINT_PAGES_MIN: u64 = 1_000;
/// How long the store's thread waits before it looks for what is too old in memory.
const MEMORY_LOOK_EVERY: Duration = Duration::from_secs(1);

/// Opens the database and starts the threads. They end when the [`Writer`] is dropped.
///
/// # Errors
/// Where the database can't be used, or the system gives no thread.
pub fn start(
    data: &Data,
    durability: Durability,
    keep: Keep,
    metrics: Arc<Metrics>,
) -> Result<(Writer, Reader, Vec<JoinHandle<()>>), StartError> {
    let (appends, append_batches) = bounded(1);
    let (appended_batches, appended) = bounded(1);
    let writer = Writer { appends, appended };
    let spawn = |name: &str| thread::Builder::new().name(name.into()).stack_size(STORE_STACK_BYTES);
    let path = match data {
        Data::File(path) => path,
        Data::Memory => {
            let memory = Arc::new(Mutex::new(Memory::new(keep)));
            let kept = Arc::clone(&memory);
            let store = spawn("store").spawn(move || {
                let _vital = Vital("store");
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
                }
            })?;
            return Ok((writer, Reader(Source::Memory(memory)), vec![store]));
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
    let mut store = Store::new(connection);
    let store = spawn("store").spawn(move || {
        let (_open, _vital) = (open, Vital("store"));
        loop {
            let kept = match append_batches.recv_timeout(upkeep.wait()) {
                Ok(batch) => {
                    if answer(&appended_batches, &metrics, store.commit(batch)).is_none() {
                        return;
                    }
                    upkeep.behind_batch(&store.connection, &mut store.rooms)
                }
                Err(RecvTimeoutError::Timeout) => upkeep.between_batches(&store.connection, &mut store.rooms),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if let Err(error) = kept {
                exit_on_sync_failure(&error);
                log::warn!("failed to keep the database within its bounds: {error}");
            }
        }
    })?;
    let reader = Reader(Source::Database { database, idle: Arc::default(), seen });
    Ok((writer, reader, vec![store, checkpoints]))
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

/// The writer: its connection, and where each room's order stands.
struct Store {
    connection: Connection,
    rooms: Rooms,
    ids: FrameIds,
    json: Vec<u8>,
}

impl Store {
    fn new(connection: Connection) -> Self {
        Self { connection, rooms: Rooms::default(), ids: FrameIds::new(), json: Vec::new() }
    }

    /// Gives everything in a batch its place and commits it, with one reading of the clock for all of it.
    fn commit(&mut self, batch: Vec<Append>) -> Vec<Appended> {
        self.rooms.note(&batch);
        match self.try_commit(&batch) {
            Ok(answer) => answer,
            Err(error) => {
                exit_on_sync_failure(&error);
                // What was read of the rooms may be of what was rolled back.
                self.rooms.clear();
                log::error!("failed to store {} commands: {error}", batch.len());
                self.refuse(batch, &error)
            }
        }
    }

    fn try_commit(&mut self, batch: &[Append]) -> rusqlite::Result<Vec<Appended>> {
        let now = Timestamp::now();
        let writes =
            batch.iter().any(|append| matches!(append, Append::Message(_) | Append::Join { guest: Some(_), .. }));
        if !writes {
            return batch.iter().map(|append| self.append(append, &now, &mut HashMap::new())).collect();
        }
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let mut touched = HashMap::new();
        let answer =
            batch.iter().map(|append| self.append(append, &now, &mut touched)).collect::<rusqlite::Result<_>>();
        let answer = answer.and_then(|answer: Vec<Appended>| {
            for (key, head) in touched {
                messages::update_head(&self.connection, RoomRow { key, head })?;
            }
            self.connection.execute_batch("COMMIT")?;
            Ok(answer)
        });
        match answer {
            Ok(answer) => Ok(answer),
            Err(error) => {
                // Some errors have rolled it back already.
                if !self.connection.is_autocommit() {
                    let _ = self.connection.execute_batch("ROLLBACK");
                }
                Err(error)
            }
        }
    }

    fn append(&mut self, append: &Append, now: &Timestamp, touched: &mut Heads) -> rusqlite::Result<Appended> {
        match append {
            Append::Message(new) => self.append_message(new, now, touched),
            Append::Join { room, ticket, known, after, guest } => {
                if let Some(guest) = guest {
                    let mut statement = self
                        .connection
                        .prepare_cached("INSERT INTO users (id, token_hash, seen_ms) VALUES (?1, ?2, ?3)")?;
                    let seen_ms = i64::try_from(now.unix_ms).unwrap_or(i64::MAX);
                    statement.execute(params![guest.id.0.as_bytes(), guest.token_hash.0, seen_ms])?;
                }
                let row = self.rooms.row(&self.connection, room)?;
                let past = if known.is_none() { Some(self.past(row)?) } else { None };
                let seen = self.seen(row, *after)?;
                Ok(Appended::Join { room: room.clone(), ticket: *ticket, past, seen, is_known: true })
            }
            Append::Leave { room, ticket } => Ok(Appended::Leave { room: room.clone(), ticket: *ticket }),
        }
    }

    fn append_message(&mut self, new: &NewMessage, now: &Timestamp, touched: &mut Heads) -> rusqlite::Result<Appended> {
        let ticket = new.ticket;
        let row = self.rooms.row(&self.connection, &new.room)?;
        if let Some(answered) = new.reply_to
            && self.seen(row, Some(After::Id(answered)))?.is_none()
        {
            // A retry may come when what it answers has gone.
            if let Some(answer) = self.sent_before(new)? {
                return Ok(answer);
            }
            let rejected = Rejected::new(Code::NotFound, NO_SUCH_REPLY, new.nonce.clone());
            return Ok(Appended::Refused { room: new.room.clone(), rejected, ticket });
        }
        let mut row = match row {
            Some(row) => row,
            None => messages::insert_room(&self.connection, &new.room)?,
        };
        let stored = messages::encode_new(new, self.ids.next(now), row.head.next(), now, &mut self.json);
        if messages::insert(&self.connection, row, new, &stored, now)? {
            row.head = row.head.next();
            self.rooms.set(&new.room, row);
            touched.insert(row.key, row.head);
            return Ok(Appended::Message { room: new.room.clone(), stored, ticket });
        }
        // Only a nonce can stand in the way.
        self.sent_before(new)?.ok_or(rusqlite::Error::QueryReturnedNoRows)
    }

    /// The answer to a message whose author has used its nonce before; nothing where it is new.
    fn sent_before(&mut self, new: &NewMessage) -> rusqlite::Result<Option<Appended>> {
        let Some(nonce) = &new.nonce else { return Ok(None) };
        let Some(before) = messages::by_nonce(&self.connection, new.author.id, nonce)? else { return Ok(None) };
        let ticket = new.ticket;
        Ok(Some(if before.says_the_same(new) {
            Appended::Duplicate { stored: before.stored(true, &mut self.json), ticket }
        } else {
            Appended::Refused { room: new.room.clone(), rejected: nonce_conflict(new), ticket }
        }))
    }

    fn seen(&self, row: Option<RoomRow>, after: Option<After>) -> rusqlite::Result<Option<Seq>> {
        match (row, after) {
            (Some(row), Some(After::Id(id))) => messages::seq_of(&self.connection, row.key, id),
            _ => Ok(None),
        }
    }

    fn past(&mut self, row: Option<RoomRow>) -> rusqlite::Result<Past> {
        let Some(row) = row else { return Ok(Past::default()) };
        let latest = messages::page(&self.connection, row.key, Side::Before(row.head.next()), HISTORY_MAX)?;
        let frames = latest.iter().map(|message| message.stored(false, &mut self.json)).collect();
        Ok(Past { head: row.head, frames })
    }

    /// Answers a batch of which nothing is stored. People come and go all the same.
    fn refuse(&mut self, batch: Vec<Append>, error: &rusqlite::Error) -> Vec<Appended> {
        let sentence = match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => "the disk is full: the message is not stored",
            _ => "the message can't be stored now",
        };
        let refused = batch.into_iter().map(|append| match append {
            // It may be the retry of one that was stored: that it is not would be wrong.
            Append::Message(new) => self.sent_before(&new).ok().flatten().unwrap_or_else(|| {
                let NewMessage { room, nonce, ticket, .. } = new;
                let rejected = Rejected { retry_ms: Some(1_000), ..Rejected::new(Code::Busy, sentence, nonce) };
                Appended::Refused { room, rejected, ticket }
            }),
            Append::Join { room, ticket, known, after, .. } => {
                let row = self.rooms.row(&self.connection, &room).ok().flatten();
                // Reading goes on. What can't be read now, the next to come asks for again.
                let past = if known.is_none() { self.past(row).ok() } else { None };
                let seen = self.seen(row, after).ok().flatten();
                Appended::Join { room, ticket, past, seen, is_known: false }
            }
            Append::Leave { room, ticket } => Appended::Leave { room, ticket },
        });
        refused.collect()
    }
}

/// Where the orders of some rooms stand, by their keys.
type Heads = HashMap<i64, Seq>;

/// Said where a message answers one that is not kept.
const NO_SUCH_REPLY: &str = "there is no message to reply to by that id";

/// Why a message is not stored whose nonce was another's.
fn nonce_conflict(new: &NewMessage) -> Rejected {
    let sentence = "that nonce was another message's; what is new needs a new one";
    Rejected::new(Code::Conflict, sentence, new.nonce.clone())
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
mod tests {
    use super::*;
    use crate::model::Username;

    fn room(name: &str) -> RoomId {
        RoomId::parse(name).unwrap()
    }

    fn author(number: u128) -> Arc<Person> {
        Arc::new(Person { id: UserId(uuid::Uuid::from_u128(number)), username: Username::parse("ana").unwrap() })
    }

    fn message(room_name: &str, content: &str, nonce: Option<&str>) -> Append {
        Append::Message(NewMessage {
            room: room(room_name),
            author: author(1),
            content: content.into(),
            nonce: nonce.map(|nonce| Nonce::parse(nonce).unwrap()),
            reply_to: None,
            ticket: Ticket::Member(7),
        })
    }

    fn join(name: &str, after: Option<FrameId>) -> Append {
        let ticket = Ticket::Member(8);
        Append::Join { room: room(name), ticket, known: None, after: after.map(After::Id), guest: None }
    }

    /// What became of each, in a word.
    fn words(answer: &[Appended]) -> Vec<String> {
        let word = |appended: &Appended| match appended {
            Appended::Message { room, stored, .. } => format!("{room} {}", stored.seq.0),
            Appended::Duplicate { stored, .. } => format!("duplicate {}", stored.seq.0),
            Appended::Refused { rejected, .. } => format!("{:?}", rejected.code),
            Appended::Join { past, seen, .. } => {
                let past = past.as_ref().unwrap();
                format!("join {} of {}, seen {:?}", past.frames.len(), past.head.0, seen.map(|seq| seq.0))
            }
            Appended::Leave { .. } => "leave".into(),
        };
        answer.iter().map(word).collect()
    }

    struct Rig {
        writer: Writer,
        reader: Reader,
        threads: Vec<JoinHandle<()>>,
    }

    impl Rig {
        fn open(data: &Data) -> Self {
            let (writer, reader, threads) = start(data, Durability::Normal, Keep::default(), Arc::default()).unwrap();
            Self { writer, reader, threads }
        }

        fn commit(&self, batch: Vec<Append>) -> Vec<Appended> {
            self.writer.appends.send(batch).unwrap();
            self.writer.appended.recv().unwrap()
        }

        fn close(self) {
            drop((self.writer, self.reader));
            for thread in self.threads {
                thread.join().unwrap();
            }
        }
    }

    /// The same contract, in a file and in memory.
    fn everywhere(test: impl Fn(&Data)) {
        test(&Data::Memory);
        let directory = tempfile::tempdir().unwrap();
        test(&Data::File(directory.path().join("adda.db")));
    }

    fn contents(frames: &[Stored]) -> Vec<String> {
        let content = |stored: &Stored| {
            let frame: serde_json::Value = serde_json::from_slice(&stored.json).unwrap();
            assert_eq!(frame["seq"], stored.seq.0);
            frame["content"].as_str().unwrap().to_owned()
        };
        frames.iter().map(content).collect()
    }

    #[test]
    fn each_room_counts_for_itself_and_order_is_kept() {
        everywhere(|data| {
            let rig = Rig::open(data);
            let batch = vec![
                message("tea", "1", None),
                message("jam", "1", None),
                join("tea", None),
                message("tea", "2", None),
                Append::Leave { room: room("tea"), ticket: Ticket::Member(8) },
            ];
            let answer = words(&rig.commit(batch));
            assert_eq!(answer, ["tea 1", "jam 1", "join 1 of 1, seen None", "tea 2", "leave"]);
            let rooms = rig.reader.rooms(None, 10).unwrap();
            let rooms: Vec<_> = rooms.iter().map(|room| (room.id.as_str(), room.head.0)).collect();
            assert_eq!(rooms, [("jam", 1), ("tea", 2)]);
            assert_eq!(rig.reader.room(&room("none")).unwrap(), None);
            rig.close();
        });
    }

    #[test]
    fn a_nonce_is_one_message_for_good() {
        everywhere(|data| {
            let rig = Rig::open(data);
            let first = rig.commit(vec![message("tea", "a", Some("n")), message("tea", "a", Some("n"))]);
            assert_eq!(words(&first), ["tea 1", "duplicate 1"]);
            let (Appended::Message { stored, .. }, Appended::Duplicate { stored: again, .. }) = (&first[0], &first[1])
            else {
                panic!("{first:?}")
            };
            let first: serde_json::Value = serde_json::from_slice(&stored.json).unwrap();
            let mut again: serde_json::Value = serde_json::from_slice(&again.json).unwrap();
            assert_eq!(again.as_object_mut().unwrap().remove("duplicate"), Some(true.into()));
            assert_eq!(first, again);
            let later = [
                message("tea", "b", Some("n")),
                message("jam", "a", Some("n")),
                message("tea", "a", Some("m")),
                message("tea", "a", None),
            ];
            assert_eq!(words(&rig.commit(later.into())), ["Conflict", "Conflict", "tea 2", "tea 3"]);
            rig.close();
        });
    }

    #[test]
    fn a_retry_is_known_when_what_it_answers_has_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("adda.db");
        let reply = |to: FrameId, nonce: &str, room: &str| {
            let mut append = message(room, "so it is", Some(nonce));
            if let Append::Message(message) = &mut append {
                message.reply_to = Some(to);
            }
            append
        };
        let rig = Rig::open(&Data::File(path.clone()));
        let Appended::Message { stored, .. } = &rig.commit(vec![message("tea", "one", None)])[0] else { panic!() };
        assert_eq!(words(&rig.commit(vec![reply(stored.id, "n", "tea")])), ["tea 2"]);
        rig.close();
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch("DELETE FROM messages WHERE seq = 1").unwrap();
        drop(connection);
        let rig = Rig::open(&Data::File(path.clone()));
        let late = [reply(stored.id, "n", "tea"), reply(stored.id, "m", "tea"), reply(stored.id, "k", "elsewhere")];
        assert_eq!(words(&rig.commit(late.into())), ["duplicate 2", "NotFound", "NotFound"]);
        rig.close();
        let connection = Connection::open(&path).unwrap();
        let rooms: i64 = connection.query_row("SELECT count(*) FROM rooms", [], |row| row.get(0)).unwrap();
        assert_eq!(rooms, 1, "what is refused makes no room");
    }

    #[test]
    fn a_file_remembers() {
        let directory = tempfile::tempdir().unwrap();
        let data = Data::File(directory.path().join("adda.db"));
        let rig = Rig::open(&data);
        let Appended::Message { stored, .. } = &rig.commit(vec![message("tea", "one", Some("n"))])[0] else { panic!() };
        let guest = NewGuest { id: UserId(uuid::Uuid::from_u128(9)), token_hash: TokenHash::of("secret") };
        let ticket = Ticket::Member(1);
        let arrival =
            Append::Join { room: room("tea"), ticket, known: Some(Seq(1)), after: None, guest: Some(guest.clone()) };
        rig.commit(vec![message("tea", "two", None), arrival]);
        rig.close();

        let rig = Rig::open(&data);
        assert_eq!(rig.reader.bearer("secret").unwrap(), Some(guest.id));
        assert_eq!(rig.reader.bearer("guess").unwrap(), None);
        let batch = vec![message("tea", "one", Some("n")), join("tea", Some(stored.id)), message("tea", "3", None)];
        assert_eq!(words(&rig.commit(batch)), ["duplicate 1", "join 2 of 2, seen Some(1)", "tea 3"]);
        rig.close();
        let file = std::fs::read(directory.path().join("adda.db")).unwrap();
        assert!(!file.windows(6).any(|bytes| bytes == b"secret"), "the token is in the file");
    }

    #[test]
    fn history_is_paged_both_ways_and_searched() {
        everywhere(|data| {
            let rig = Rig::open(data);
            let texts = ["Hot tea", "বৃষ্টি নামলে চা", "Café crème", "tea again", "\u{09AF}\u{09BC} চায়ের কাপ"];
            rig.commit(texts.iter().map(|text| message("tea", text, None)).collect());
            rig.commit(vec![message("jam", "tea elsewhere", None)]);
            let page = |side, limit, words: Option<&str>| {
                contents(&rig.reader.page(&room("tea"), side, limit, words).unwrap())
            };
            assert_eq!(page(Side::Before(Seq(u64::MAX)), 2, None), texts[3..]);
            assert_eq!(page(Side::Before(Seq(3)), 9, None), texts[..2]);
            assert_eq!(page(Side::After(Seq(3)), 1, None), [texts[3]]);
            let found = |words| page(Side::Before(Seq(u64::MAX)), 9, Some(words));
            assert_eq!(found("TEA"), [texts[0], texts[3]]);
            assert_eq!(found("tea ag"), [texts[3]]);
            assert_eq!(found("cafe CREM"), [texts[2]]);
            assert_eq!(found("বৃষ্টি"), [texts[1]]);
            assert_eq!(found("বৃষ"), [texts[1]], "the last word may be only begun");
            assert_eq!(found("\u{09DF}"), [texts[4]], "one letter, two spellings");
            assert_eq!(found("ষ্টি"), [""; 0], "no word begins so");
            for odd in ["\"", "*", "tea OR -x NEAR(", "content:", "'; DROP TABLE messages; --"] {
                assert!(found(odd).is_empty(), "{odd}");
            }
            rig.close();
        });
    }

    #[test]
    fn what_was_said_long_ago_is_found_too() {
        let directory = tempfile::tempdir().unwrap();
        let rig = Rig::open(&Data::File(directory.path().join("adda.db")));
        let say = |room: &str, text: &str| message(room, text, None);
        rig.commit(vec![say("tea", "rare 1"), say("jam", "rare, elsewhere"), say("tea", "Rarely 2")]);
        for _ in 0..5 {
            rig.commit((0..1_000).map(|_| say("tea", "noise")).collect());
        }
        rig.commit(vec![say("tea", "rare 3"), say("tea", "noise, rare 4")]);
        let found = |side, limit, words| contents(&rig.reader.page(&room("tea"), side, limit, Some(words)).unwrap());
        let latest = Side::Before(Seq(u64::MAX));
        assert_eq!(found(latest, 9, "rare"), ["rare 1", "Rarely 2", "rare 3", "noise, rare 4"]);
        assert_eq!(found(latest, 3, "rare"), ["Rarely 2", "rare 3", "noise, rare 4"]);
        assert_eq!(found(Side::Before(Seq(5_003)), 1, "rare"), ["Rarely 2"]);
        assert_eq!(found(Side::After(Seq(0)), 3, "rare"), ["rare 1", "Rarely 2", "rare 3"]);
        assert_eq!(found(Side::After(Seq(2)), 1, "rare"), ["rare 3"]);
        assert_eq!(found(latest, 9, "noise rare"), ["noise, rare 4"]);
        assert_eq!(found(latest, 9, "rarely 2"), ["Rarely 2"]);
        assert_eq!(found(Side::After(Seq(2)), 9, "rare noi"), ["noise, rare 4"]);
        assert_eq!(found(latest, 200, "noise").len(), 200);
        rig.close();
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("adda.db");
        let sentence = || {
            start(&Data::File(path.clone()), Durability::Full, Keep::default(), Arc::default())
                .err()
                .unwrap()
                .to_string()
        };

        std::fs::write(&path, b"this is a letter to my grandmother, and not a database of any kind at all").unwrap();
        assert!(sentence().contains("is not a database of adda"), "{}", sentence());
        assert!(std::fs::read(&path).unwrap().starts_with(b"this is a letter"));

        std::fs::remove_file(&path).unwrap();
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE recipes (name TEXT)").unwrap();
        let before = std::fs::read(&path).unwrap();
        assert!(sentence().contains("is not a database of adda"), "{}", sentence());
        assert_eq!(std::fs::read(&path).unwrap(), before);

        std::fs::remove_file(&path).unwrap();
        Rig::open(&Data::File(path.clone())).close();
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        assert!(sentence().contains("newer adda"), "{}", sentence());

        std::fs::remove_file(&path).unwrap();
        let rig = Rig::open(&Data::File(path.clone()));
        assert!(sentence().contains("in use by another adda"), "{}", sentence());
        rig.commit(vec![message("tea", "still here", None)]);
        rig.close();

        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(sentence().contains("damaged"), "{}", sentence());

        let nowhere = Data::File(directory.path().join("no/such/folder/adda.db"));
        let error = start(&nowhere, Durability::Full, Keep::default(), Arc::default()).err().unwrap().to_string();
        assert!(error.contains("failed to open") && error.contains("No such file"), "{error}");
    }

    #[test]
    fn a_full_disk_refuses_and_recovers() {
        let directory = tempfile::tempdir().unwrap();
        let (database, connection) = Database::open(&directory.path().join("adda.db"), Durability::Normal).unwrap();
        connection.pragma_update_and_check(None, "max_page_count", 40, |_| Ok(())).unwrap();
        let mut store = Store::new(connection);
        let batch = |count: usize| {
            let large = "x".repeat(4_000);
            (0..count).map(|_| message("tea", &large, Some("n")).without_nonce()).collect::<Vec<_>>()
        };
        assert_eq!(words(&store.commit(vec![message("tea", "sent before", Some("n"))])), ["tea 1"]);
        let mut stored = 1;
        let refused = loop {
            let answer = store.commit(batch(4));
            match &answer[0] {
                Appended::Message { .. } => stored += answer.len(),
                _ => break answer,
            }
        };
        assert!(stored > 0);
        assert_eq!(words(&refused), ["Busy"; 4]);
        let large = "x".repeat(4_000);
        let retry = || vec![message("tea", "sent before", Some("n")), message("tea", &large, Some("new"))];
        assert_eq!(words(&store.commit(retry().into_iter().chain(batch(4)).collect()))[..2], ["duplicate 1", "Busy"]);
        let Appended::Refused { rejected, .. } = &refused[0] else { panic!() };
        assert!(rejected.sentence.contains("disk is full") && rejected.retry_ms.is_some());
        store.connection.pragma_update_and_check(None, "max_page_count", 4_000, |_| Ok(())).unwrap();
        assert_eq!(words(&store.commit(batch(1))), [format!("tea {}", stored + 1)], "no place is left out");
        drop(database);
    }

    impl Append {
        fn without_nonce(mut self) -> Self {
            if let Self::Message(message) = &mut self {
                message.nonce = None;
            }
            self
        }
    }
}
