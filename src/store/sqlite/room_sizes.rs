//! How much each room holds, for the choice of the room whose oldest messages go when the database is too large.
//!
//! Reading all sizes takes long in a large database. So a thread reads them on a connection of its own, some at a time.
//! Upkeep uses its last result, less what it has deleted since. What was added since is estimated from the rooms' heads.
//! Before the first result, the number of a room's frames stands for its size.

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

/// The time between two estimates of what was added: at least this, and so many times as long as one took.
const ESTIMATE_PAUSE_MIN: Duration = Duration::from_millis(20);

/// What a room holds.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    bytes: u64,
    /// The frames up to this one are counted.
    head: Seq,
    /// The bytes of a frame, on average.
    average: u64,
}

/// Sizes by the rooms' keys.
type Sizes = HashMap<i64, Size>;

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
    /// When what was added is estimated next.
    estimate_at: Option<Instant>,
}

#[derive(Debug, Default)]
struct Shared {
    sizes: Mutex<Sizes>,
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
                Ok(None) => {}
                Ok(Some(sizes)) => *locked(&shared.sizes) = sizes,
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

    /// The oldest messages of the largest room, about `bytes_max` bytes at most. `None` if there are no messages.
    pub fn largest(&mut self, connection: &Connection, limit: usize, bytes_max: u64) -> Result<Option<Prefix>, Fault> {
        let mut sizes = locked(&self.shared.sizes);
        let begun = Instant::now();
        if self.estimate_at.is_none_or(|at| at <= begun) {
            estimate(connection, &mut sizes)?;
            self.estimate_at = Some(Instant::now() + ESTIMATE_PAUSE_MIN.max(begun.elapsed() * PAUSE_FACTOR));
        }
        // A room whose messages are gone has no prefix.
        while let Some(key) = sizes.iter().max_by_key(|(_, size)| size.bytes).map(|(key, _)| *key) {
            if let Some(prefix) = prefix(connection, key, limit, bytes_max)? {
                return Ok(Some(prefix));
            }
            sizes.remove(&key);
        }
        Ok(None)
    }

    /// Notes that a prefix was deleted.
    pub fn deleted(&self, prefix: &Prefix) {
        if let Some(size) = locked(&self.shared.sizes).get_mut(&prefix.key) {
            size.bytes = size.bytes.saturating_sub(prefix.bytes);
        }
    }
}

impl Drop for RoomSizes {
    fn drop(&mut self) {
        self.shared.is_closed.store(true, Ordering::Release);
    }
}

/// Adds what was added to each room since its size was read.
fn estimate(connection: &Connection, sizes: &mut Sizes) -> Result<(), Fault> {
    let rooms: Vec<(i64, Seq, Seq)> = all(connection, "SELECT key, head, floor FROM rooms", [], |row| row.try_into())?;
    for (key, head, floor) in rooms {
        let size = sizes.entry(key).or_insert(Size { bytes: 0, head: floor, average: MESSAGE_BYTES });
        size.bytes += head.0.saturating_sub(size.head.0) * size.average;
        size.head = size.head.max(head);
    }
    Ok(())
}

/// Reads the sizes of all rooms. `None` if the store has ended meanwhile.
fn read(database: &Database, is_closed: &AtomicBool) -> Result<Option<Sizes>, super::super::ReadError> {
    let connection = database.reader()?;
    let mut sizes = Sizes::new();
    let mut after = 0;
    let sql = "SELECT room, count(*), sum(bytes), max(key), max(seq) FROM
         (SELECT room, octet_length(content) AS bytes, key, seq FROM messages WHERE key > ?1 ORDER BY key LIMIT ?2)
         GROUP BY room";
    while !is_closed.load(Ordering::Acquire) {
        let rows: Vec<(i64, i64, i64, i64, Seq)> =
            all(&connection, sql, [after, MESSAGES_AT_ONCE], |row| row.try_into())?;
        let Some(last) = rows.iter().map(|(.., last, _)| *last).max() else { return Ok(Some(sizes)) };
        after = last;
        for (room, count, bytes, _, head) in rows {
            let bytes = unsigned(bytes) + unsigned(count) * MESSAGE_BYTES;
            let size = sizes.entry(room).or_default();
            *size = Size { bytes: size.bytes + bytes, head, average: bytes / unsigned(count).max(1) };
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
