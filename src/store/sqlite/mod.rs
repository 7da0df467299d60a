//! Storage in SQLite. All SQL is in this folder, except savepoints in the ledger and checkpoints in the store.
//!
//! [`SqliteStorage`] belongs to the store's thread. Readers and tools have their own connections.

pub mod files;
pub mod messages;
pub mod offline;
pub mod people;
mod room_sizes;
mod row;
pub mod schema;
pub mod search;
pub mod space;
pub mod upkeep;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::ffi;

use crate::limits::{FORGOTTEN_AT_ONCE, POSITION_EVERY, ROOMS_CACHED_MAX};
use crate::model::reason::Reason;
use crate::model::{FrameId, Nonce, RoomId, Seq, UserId, Username};

use super::entry::{NewMessage, Past, Stored};
use super::ledger::{Freed, RoomRow, Storage};
use super::log::clock;
use super::message::Message;
use super::policy::PolicySnapshot;
use row::{execute, first, signed, unsigned};

pub use rusqlite::Connection;

/// An error of SQLite.
pub type Fault = rusqlite::Error;

/// Messages in a file: the writer's connection, and a cache of room rows.
pub struct SqliteStorage {
    pub connection: Connection,
    rows: HashMap<RoomId, RoomRow>,
    /// The heads that moved in this transaction, by the rooms' keys. They are written at its end.
    heads: HashMap<i64, Seq>,
    /// The key of the next message, if it is known.
    next_key: Option<i64>,
    /// The connection's count of changed rows when this transaction began.
    changes_before: u64,
    /// The log time that the id of this transaction's newest message records.
    told_ms: Option<u64>,
    /// Whether this transaction erases a text, and whether a committed one did.
    erases: bool,
    pub erased: Arc<AtomicBool>,
    /// The log position that this process stored last.
    position: Option<clock::Stored>,
}

impl SqliteStorage {
    pub fn new(connection: Connection) -> Self {
        Self {
            connection,
            rows: HashMap::new(),
            heads: HashMap::new(),
            next_key: None,
            changes_before: 0,
            told_ms: None,
            erases: false,
            erased: Arc::default(),
            position: None,
        }
    }

    /// Stores the position of the log.
    pub fn note_position(&self, position: clock::Stored) -> Result<(), Fault> {
        let sql = "INSERT OR REPLACE INTO position (key, number, clock_ms, wall_ms) VALUES (0, ?1, ?2, ?3)";
        let clock::Stored { index, clock_ms, wall_ms } = position;
        execute(&self.connection, sql, [index, clock_ms, wall_ms].map(signed)).map(drop)
    }

    fn set(&mut self, room: &RoomId, row: RoomRow) {
        // A moved head is only in this cache until the transaction ends.
        if self.rows.len() >= ROOMS_CACHED_MAX && self.heads.is_empty() && !self.rows.contains_key(room) {
            self.rows.clear();
        }
        self.rows.insert(room.clone(), row);
    }
}

impl Storage for SqliteStorage {
    fn people(&self) -> &Connection {
        &self.connection
    }

    fn room(&mut self, room: &RoomId) -> Result<Option<RoomRow>, Fault> {
        if let Some(row) = self.rows.get(room) {
            return Ok(Some(*row));
        }
        let row = messages::room(&self.connection, room)?;
        if let Some(row) = row {
            self.set(room, row);
        }
        Ok(row)
    }

    fn insert(&mut self, new: &NewMessage, row: Option<RoomRow>, stored: &Stored, wall_ms: u64) -> Result<bool, Fault> {
        let is_new_room = row.is_none();
        let mut row = match row {
            Some(row) => row,
            None => messages::insert_room(&self.connection, &new.room)?,
        };
        let key = match self.next_key {
            Some(key) => key,
            None => messages::next_key(&self.connection)?,
        };
        if !messages::insert(&self.connection, key, row, new, stored, wall_ms)? {
            let is_free = match &new.nonce {
                Some(nonce) => messages::free_nonce(&self.connection, new.author.user(), nonce)?,
                None => false,
            };
            if !is_free || !messages::insert(&self.connection, key, row, new, stored, wall_ms)? {
                if is_new_room {
                    messages::delete_empty_room(&self.connection, row.key)?;
                }
                return Ok(false);
            }
        }
        self.next_key = Some(key + 1);
        self.told_ms = Some(stored.id.unix_ms());
        row.head = stored.seq;
        self.set(&new.room, row);
        self.heads.insert(row.key, row.head);
        Ok(true)
    }

    fn by_nonce(&mut self, author: UserId, nonce: &Nonce) -> Result<Option<Message>, Fault> {
        messages::by_nonce(&self.connection, author, nonce)
    }

    fn by_id(&mut self, _: &RoomId, row: RoomRow, id: FrameId) -> Result<Option<Message>, Fault> {
        messages::by_id(&self.connection, row.key, id)
    }

    fn author_name(&self, user: UserId) -> Result<Option<Username>, Fault> {
        messages::author_name(&self.connection, user)
    }

    fn erase(&mut self, row: RoomRow, message: &Message, _: &Stored, freed: Freed) -> Result<(), Fault> {
        match freed {
            Freed::Overwritten => {
                self.erases = true;
                messages::erase(&self.connection, row.key, message)
            }
            Freed::Left => messages::shorten(&self.connection, row.key, message),
        }
    }

    fn seq_of(&mut self, _: &RoomId, row: RoomRow, id: FrameId) -> Result<Option<Seq>, Fault> {
        messages::seq_of(&self.connection, row, id)
    }

    fn past(&mut self, _: &RoomId, row: Option<RoomRow>) -> Result<Past, Fault> {
        let Some(row) = row else { return Ok(Past { is_whole: true, ..Past::default() }) };
        let (latest, is_whole) = messages::latest(&self.connection, row)?;
        let mut json = Vec::new();
        let frames = latest.iter().map(|message| message.stored(false, &mut json)).collect();
        Ok(Past { head: row.head, frames, is_whole })
    }

    fn forget(&mut self, room: &RoomId, row: RoomRow, up_to: Seq) -> Result<(), Fault> {
        // The message that records the time may be among the forgotten ones.
        self.told_ms = None;
        let row = RoomRow { floor: up_to, ..row };
        messages::update_floor(&self.connection, row)?;
        self.set(room, row);
        // Upkeep deletes the rest of a long order later.
        messages::delete_forgotten(&self.connection, row, FORGOTTEN_AT_ONCE).map(drop)
    }

    fn delete_room(&mut self, room: &RoomId, row: RoomRow) -> Result<(), Fault> {
        let row = RoomRow { floor: row.head, ..row };
        messages::update_floor(&self.connection, row)?;
        self.set(room, row);
        // Upkeep deletes the messages.
        messages::mark_deleted(&self.connection, row.key)
    }

    fn forget_room(&mut self, room: &RoomId) -> Result<(), Fault> {
        if let Some(row) = self.room(room)?
            && messages::delete_empty_room(&self.connection, row.key)?
        {
            self.rows.remove(room);
            self.heads.remove(&row.key);
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), Fault> {
        if !self.connection.is_autocommit() {
            return Ok(());
        }
        self.heads.clear();
        self.told_ms = None;
        self.erases = false;
        self.changes_before = self.connection.total_changes();
        self.connection.execute_batch("BEGIN IMMEDIATE")
    }

    /// If nothing has changed, nothing is written.
    ///
    /// Storing the position costs each commit a page. While new messages record the time, it is stored once in
    /// [`POSITION_EVERY`]. At a start, log time begins after the newest message, and the batch numbers of that interval
    /// are skipped.
    fn commit(&mut self, position: clock::Stored) -> Result<(), Fault> {
        if self.connection.is_autocommit() {
            return Ok(());
        }
        for (room_key, head) in self.heads.drain() {
            execute(&self.connection, "UPDATE rooms SET head = ?2 WHERE key = ?1", (room_key, head))?;
        }
        let is_changed = self.connection.total_changes() != self.changes_before;
        let is_told = self.told_ms == Some(position.clock_ms)
            && self.position.is_some_and(|stored| position.is_within(POSITION_EVERY, &stored));
        let is_noted = is_changed && !is_told;
        if is_noted {
            self.note_position(position)?;
        }
        self.connection.execute_batch("COMMIT")?;
        if self.erases {
            self.erased.store(true, Ordering::Release);
        }
        if is_noted {
            self.position = Some(position);
        }
        Ok(())
    }

    fn roll_back(&mut self, before: PolicySnapshot, _: u64) -> PolicySnapshot {
        // Some errors have already rolled it back.
        if !self.connection.is_autocommit() {
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        // What was read within the transaction may not be true any more.
        self.rows.clear();
        self.heads.clear();
        self.next_key = None;
        before
    }
}

/// The log position of the last commit that stored one.
pub fn position(connection: &Connection) -> Result<Option<clock::Stored>, Fault> {
    first(connection, "SELECT number, clock_ms, wall_ms FROM position", [], |row| {
        let (index, clock_ms, wall_ms) = (unsigned(row.get(0)?), unsigned(row.get(1)?), unsigned(row.get(2)?));
        Ok(clock::Stored { index, clock_ms, wall_ms })
    })
}

/// The reason to refuse entries that SQLite can't store.
pub fn reason_of(fault: &Fault) -> Reason {
    if space::is_full(fault) { Reason::DiskFull } else { Reason::NotStored }
}

/// Ends the process after a failed sync. The page cache may have dropped the data, and no later sync would report it.
/// So nothing more may be acknowledged.
pub fn exit_on_sync_failure(fault: &Fault) {
    if let rusqlite::Error::SqliteFailure(ffi::Error { extended_code, .. }, _) = fault
        && matches!(*extended_code, ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC)
    {
        log::error!("failed to sync the database, so its state on the disk is unknown; stopping: {fault}");
        log::logger().flush();
        std::process::exit(1);
    }
}
