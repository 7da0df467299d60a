//! How much each room holds, for the choice of the room whose oldest messages go when the database is too large.
//!
//! Reading all sizes takes long in a large database. So a thread reads them on a connection of its own, some at a time.
//! Upkeep uses its last result, less what it has deleted since.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::super::locked;
use super::row::{all, signed, unsigned};
use super::schema::Database;
use super::{Connection, Fault};
use crate::limits::STORE_STACK_BYTES;
use crate::model::{RoomId, Seq};

/// What a message takes besides its text: its row, its entries in indexes, its words.
const MESSAGE_BYTES: u64 = 256;
/// Messages that are read in one transaction, so that no checkpoint waits for long.
const MESSAGES_AT_ONCE: i64 = 20_000;
/// The time between two results: at least this, and so many times as long as the reading took.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_FACTOR: u32 = 10;

/// Bytes by the rooms' keys.
type Sizes = HashMap<i64, u64>;

/// The oldest messages of a room.
#[derive(Debug)]
pub struct Prefix {
    pub room: RoomId,
    pub up_to: Seq,
    pub count: usize,
    key: i64,
    bytes: u64,
}

#[derive(Debug, Default)]
pub struct RoomSizes {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    sizes: Mutex<Option<Sizes>>,
    is_reading: AtomicBool,
    is_closed: AtomicBool,
    next_at: Mutex<Option<Instant>>,
}

impl RoomSizes {
    /// Begins to read the sizes, if that is due.
    pub fn refresh(&self, database: &Arc<Database>) {
        let is_early = locked(&self.shared.next_at).is_some_and(|at| Instant::now() < at);
        if is_early || self.shared.is_reading.swap(true, Ordering::AcqRel) {
            return;
        }
        let (shared, database) = (Arc::clone(&self.shared), Arc::clone(database));
        let thread = thread::Builder::new().name("room-sizes".into()).stack_size(STORE_STACK_BYTES);
        let started: io::Result<_> = thread.spawn(move || {
            let begun = Instant::now();
            match read(&database, &shared.is_closed) {
                Ok(sizes) => *locked(&shared.sizes) = sizes,
                Err(error) => log::warn!("failed to read the sizes of the rooms: {error}"),
            }
            *locked(&shared.next_at) = Some(Instant::now() + PAUSE_MIN.max(begun.elapsed() * PAUSE_FACTOR));
            shared.is_reading.store(false, Ordering::Release);
        });
        if let Err(error) = started {
            log::warn!("failed to start a thread: {error}");
            self.shared.is_reading.store(false, Ordering::Release);
        }
    }

    /// The oldest messages of the largest room, about `bytes_max` bytes at most. `None` if the sizes are not known yet.
    pub fn largest(&self, connection: &Connection, limit: usize, bytes_max: u64) -> Result<Option<Prefix>, Fault> {
        let mut sizes = locked(&self.shared.sizes);
        let Some(sizes) = &mut *sizes else { return Ok(None) };
        // A room whose messages are gone has no prefix.
        while let Some((key, _)) = sizes.iter().max_by_key(|(_, bytes)| **bytes).map(|(key, bytes)| (*key, *bytes)) {
            if let Some(prefix) = prefix(connection, key, limit, bytes_max)? {
                return Ok(Some(prefix));
            }
            sizes.remove(&key);
        }
        Ok(None)
    }

    /// Notes that a prefix was deleted.
    pub fn deleted(&self, prefix: &Prefix) {
        if let Some(sizes) = &mut *locked(&self.shared.sizes)
            && let Some(bytes) = sizes.get_mut(&prefix.key)
        {
            *bytes = bytes.saturating_sub(prefix.bytes);
        }
    }
}

impl Drop for RoomSizes {
    fn drop(&mut self) {
        self.shared.is_closed.store(true, Ordering::Release);
    }
}

/// Reads the sizes of all rooms. `None` if the store has ended meanwhile.
fn read(database: &Database, is_closed: &AtomicBool) -> Result<Option<Sizes>, super::super::ReadError> {
    let connection = database.reader()?;
    let mut sizes = Sizes::new();
    let mut after = 0;
    let sql = "SELECT room, count(*), sum(bytes), max(key)
         FROM (SELECT room, octet_length(content) AS bytes, key FROM messages WHERE key > ?1 ORDER BY key LIMIT ?2) GROUP BY room";
    while !is_closed.load(Ordering::Acquire) {
        let rows: Vec<(i64, i64, i64, i64)> = all(&connection, sql, [after, MESSAGES_AT_ONCE], |row| row.try_into())?;
        let Some(last) = rows.iter().map(|(.., last)| *last).max() else { return Ok(Some(sizes)) };
        after = last;
        for (room, count, bytes, _) in rows {
            *sizes.entry(room).or_default() += unsigned(bytes) + unsigned(count) * MESSAGE_BYTES;
        }
    }
    Ok(None)
}

fn prefix(connection: &Connection, key: i64, limit: usize, bytes_max: u64) -> Result<Option<Prefix>, Fault> {
    let sql =
        "SELECT r.id, m.seq, octet_length(m.content) FROM rooms r JOIN messages m ON m.room = r.key AND m.seq > r.floor
         WHERE r.key = ?1 ORDER BY m.seq LIMIT ?2";
    let mut oldest = connection.prepare_cached(sql)?;
    let mut rows = oldest.query((key, signed(limit as u64)))?;
    let mut found: Option<Prefix> = None;
    while let Some(row) = rows.next()? {
        let bytes = unsigned(row.get(2)?) + MESSAGE_BYTES;
        match &mut found {
            None => {
                let (room, up_to) = (row.get(0)?, row.get(1)?);
                found = Some(Prefix { room, up_to, count: 1, key, bytes });
            }
            Some(prefix) if prefix.bytes <= bytes_max => {
                prefix.up_to = row.get(1)?;
                prefix.count += 1;
                prefix.bytes += bytes;
            }
            Some(_) => break,
        }
    }
    Ok(found)
}
