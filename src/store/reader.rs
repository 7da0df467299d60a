//! Reads from the store, with connections of their own: nothing here passes through the hub or waits for a commit.

use std::fmt;
use std::sync::{Arc, Mutex};

use rusqlite::Connection;

use crate::model::{FrameId, RoomId, Seq, UserId};

use super::memory::Memory;
use super::messages::{self, Side};
use super::schema::{Database, OpenError};
use super::search::{self, Wanted};
use super::upkeep::Seen;
use super::{KeptRoom, Stored, locked};

/// Connections that are kept for the next reader.
const READERS_IDLE_MAX: usize = 4;

/// Reads from the store, for whoever needs to; never through the hub.
#[derive(Clone)]
pub struct Reader(Source);

#[derive(Clone)]
enum Source {
    /// Connections are made as they are needed, and kept for the next.
    Database {
        database: Arc<Database>,
        idle: Arc<Mutex<Idle>>,
        /// Whose token was shown, for upkeep.
        seen: Arc<Seen>,
    },
    /// Held by the store's thread for a batch, and by a reader for a page.
    Memory(Arc<Mutex<Memory>>),
}

#[derive(Default)]
struct Idle {
    connections: Vec<Connection>,
    /// Whether none is kept any more.
    closed: bool,
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
    pub(super) fn of_database(database: Arc<Database>, seen: Arc<Seen>) -> Self {
        Self(Source::Database { database, idle: Arc::default(), seen })
    }

    pub(super) fn of_memory(memory: Arc<Mutex<Memory>>) -> Self {
        Self(Source::Memory(memory))
    }

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

    /// Closes the connections that are kept. Whoever closes the last one of all, and can write, leaves no WAL behind.
    pub(super) fn close(&self) {
        if let Source::Database { idle, .. } = &self.0 {
            *locked(idle) = Idle { connections: Vec::new(), closed: true };
        }
    }

    /// Takes note that somebody's token was shown, for upkeep.
    pub(super) fn note_seen(&self, user: UserId) {
        if let Source::Database { seen, .. } = &self.0 {
            seen.note(user);
        }
    }

    fn read<T>(
        &self,
        from_memory: impl FnOnce(&Memory) -> T,
        from_database: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, ReadError> {
        match &self.0 {
            Source::Memory(memory) => Ok(from_memory(&locked(memory))),
            Source::Database { .. } => self.read_database(from_database),
        }
    }

    /// Reads from the database, where there is one.
    pub(super) fn read_database<T>(
        &self,
        from_database: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, ReadError> {
        let Source::Database { database, idle, .. } = &self.0 else {
            return Err(ReadError::Sqlite(rusqlite::Error::InvalidQuery));
        };
        let ready = locked(idle).connections.pop();
        let connection = match ready {
            Some(connection) => connection,
            None => database.reader()?,
        };
        let answer = from_database(&connection)?;
        let mut idle = locked(idle);
        if !idle.closed && idle.connections.len() < READERS_IDLE_MAX {
            idle.connections.push(connection);
        }
        Ok(answer)
    }
}
