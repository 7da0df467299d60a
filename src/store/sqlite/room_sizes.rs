//! How much each room holds, and each author in it. From this, upkeep chooses what goes when the database is too large:
//! messages or texts of an author that holds more of the largest room than all others together, or else the oldest
//! messages of that room.
//!
//! Reading all sizes takes long in a large database. So a thread reads them on a connection of its own, some at a time.
//! Upkeep uses its last result, less what was deleted since. What was added since is counted on upkeep's own connection.
//! Before the first result, the number of a room's frames stands for its size.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::super::locked;
use super::messages::IS_MESSAGE;
use super::row::{all, first, signed, unsigned};
use super::schema::Database;
use super::{Connection, Fault};
use crate::limits::STORE_STACK_BYTES;
use crate::model::{FrameId, RoomId, Seq, UserId};

/// What a message takes besides its text: its row, its entries in indexes, its words.
const MESSAGE_BYTES: u64 = 256;
/// Messages that are read in one transaction, so that no checkpoint waits for long.
const MESSAGES_AT_ONCE: i64 = 20_000;
/// The time between two results: at least this, and so many times as long as the reading took.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_FACTOR: u32 = 10;
/// The time between two counts of what was added: at least this, and so many times as long as one took.
const COUNT_PAUSE_MIN: Duration = Duration::from_millis(20);
/// Authors in rooms whose texts are counted. Of more, those with the shortest texts are left out.
const AUTHORS_MAX: usize = 50_000;
/// Frames of a room that are looked at to find texts of an author.
const LOOKED_AT_MAX: u64 = 4_000;

#[derive(Debug, Default)]
struct Sizes {
    /// By the rooms' keys.
    rooms: HashMap<i64, Size>,
    texts: HashMap<(i64, UserId), Texts>,
    /// The key of the last message that is counted.
    last_key: i64,
}

/// What a room holds.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    bytes: u64,
    /// The author with the longest texts.
    author: Option<UserId>,
}

/// The texts of an author in a room.
#[derive(Debug, Clone, Copy)]
struct Texts {
    bytes: u64,
    /// The author has no text before this one.
    first: Seq,
}

/// What goes next.
#[derive(Debug)]
pub enum Excess {
    Prefix(Prefix),
    Texts(AuthorTexts),
}

/// The oldest messages of a room.
#[derive(Debug)]
pub struct Prefix {
    pub room: RoomId,
    pub up_to: Seq,
    pub count: usize,
    key: i64,
    bytes: u64,
    /// The bytes of the texts of the author with the longest texts.
    author_bytes: u64,
}

/// The oldest texts of an author in a room.
#[derive(Debug)]
pub struct AuthorTexts {
    pub room: RoomId,
    pub messages: Vec<FrameId>,
    key: i64,
    author: UserId,
    bytes: u64,
    last: Seq,
}

#[derive(Debug, Default)]
pub struct RoomSizes {
    shared: Arc<Shared>,
    /// When what was added is counted next.
    count_at: Option<Instant>,
}

#[derive(Debug, Default)]
struct Shared {
    /// `None` until they were read.
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
                Ok(None) => {}
                Ok(Some(sizes)) => *locked(&shared.sizes) = Some(sizes),
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

    /// What goes first of the largest room: `limit` messages at most, with about `bytes_max` bytes. `None` if there are no
    /// messages, or if the sizes are not known yet and nothing must go.
    pub fn excess(
        &mut self,
        connection: &Connection,
        limit: usize,
        bytes_max: u64,
        is_urgent: bool,
    ) -> Result<Option<Excess>, Fault> {
        let mut sizes = locked(&self.shared.sizes);
        let Some(sizes) = &mut *sizes else {
            let longest = "SELECT key FROM rooms WHERE head > floor ORDER BY head - floor DESC LIMIT 1";
            let longest = if is_urgent { first(connection, longest, [], |row| row.get(0))? } else { None };
            let Some(key) = longest else { return Ok(None) };
            let prefix = prefix(connection, key, Authors::All { longest: None }, limit, bytes_max)?;
            return Ok(prefix.map(Excess::Prefix));
        };
        let begun = Instant::now();
        if self.count_at.is_none_or(|at| at <= begun) {
            sizes.count(connection)?;
            self.count_at = Some(Instant::now() + COUNT_PAUSE_MIN.max(begun.elapsed() * PAUSE_FACTOR));
        }
        // A room whose messages are gone has no prefix.
        while let Some((&key, &size)) = sizes.rooms.iter().max_by_key(|(_, size)| size.bytes) {
            if let Some((author, texts)) = sizes.excess_of(key, size) {
                let bytes_max = bytes_max.min(2 * texts.bytes - size.bytes);
                // Without its texts a message still takes space. The author's messages before those of others go whole.
                if let Some(prefix) = prefix(connection, key, Authors::Only(author), limit, bytes_max)? {
                    return Ok(Some(Excess::Prefix(prefix)));
                }
                if let Some(found) = author_texts(connection, key, author, texts, limit, bytes_max)? {
                    return Ok(Some(Excess::Texts(found)));
                }
                sizes.texts.remove(&(key, author));
            }
            if let Some(prefix) = prefix(connection, key, Authors::All { longest: size.author }, limit, bytes_max)? {
                return Ok(Some(Excess::Prefix(prefix)));
            }
            sizes.rooms.remove(&key);
        }
        Ok(None)
    }

    /// Notes that this went.
    pub fn deleted(&self, excess: &Excess) {
        let mut sizes = locked(&self.shared.sizes);
        let Some(sizes) = &mut *sizes else { return };
        let (key, bytes) = match excess {
            Excess::Prefix(Prefix { key, bytes, .. }) | Excess::Texts(AuthorTexts { key, bytes, .. }) => (*key, *bytes),
        };
        let Some(size) = sizes.rooms.get_mut(&key) else { return };
        size.bytes = size.bytes.saturating_sub(bytes);
        let author = match excess {
            Excess::Prefix(_) => size.author,
            Excess::Texts(texts) => Some(texts.author),
        };
        let Some(texts) = author.and_then(|author| sizes.texts.get_mut(&(key, author))) else { return };
        match excess {
            Excess::Prefix(prefix) => texts.bytes = texts.bytes.saturating_sub(prefix.author_bytes),
            Excess::Texts(found) => {
                *texts = Texts { bytes: texts.bytes.saturating_sub(bytes), first: found.last.next() };
            }
        }
    }
}

impl Drop for RoomSizes {
    fn drop(&mut self) {
        self.shared.is_closed.store(true, Ordering::Release);
    }
}

impl Sizes {
    /// Counts the next messages. Returns whether there are more.
    fn count(&mut self, connection: &Connection) -> Result<bool, Fault> {
        let sql = format!(
            "SELECT room, user_id, count(*), sum(bytes), max(key), min(seq) FROM
             (SELECT room, user_id, iif({IS_MESSAGE}, octet_length(content), 0) AS bytes, key, seq
              FROM messages m WHERE key > ?1 ORDER BY key LIMIT ?2)
             GROUP BY room, user_id"
        );
        let rows: Vec<(i64, UserId, i64, i64, i64, Seq)> =
            all(connection, &sql, [self.last_key, MESSAGES_AT_ONCE], |row| row.try_into())?;
        let count: i64 = rows.iter().map(|(_, _, count, ..)| count).sum();
        for (room, author, count, bytes, last_key, first) in rows {
            self.last_key = self.last_key.max(last_key);
            self.add(room, author, unsigned(count), Texts { bytes: unsigned(bytes), first });
        }
        Ok(count == MESSAGES_AT_ONCE)
    }

    fn add(&mut self, room: i64, author: UserId, count: u64, added: Texts) {
        if self.texts.len() >= AUTHORS_MAX && !self.texts.contains_key(&(room, author)) {
            self.leave_out_the_shortest();
        }
        let texts = self.texts.entry((room, author)).or_insert(Texts { bytes: 0, ..added });
        texts.bytes += added.bytes;
        let bytes = texts.bytes;
        let longest = self.rooms.get(&room).and_then(|size| self.texts.get(&(room, size.author?)));
        let is_longest = longest.is_none_or(|longest| bytes > longest.bytes);
        let size = self.rooms.entry(room).or_default();
        size.bytes += added.bytes + count * MESSAGE_BYTES;
        if is_longest {
            size.author = Some(author);
        }
    }

    /// Makes place for other authors. Texts of those that are left out are counted too low later.
    fn leave_out_the_shortest(&mut self) {
        let mut all: Vec<u64> = self.texts.values().map(|texts| texts.bytes).collect();
        let middle = all.len() / 2;
        let (_, median, _) = all.select_nth_unstable(middle);
        let median = *median;
        self.texts.retain(|_, texts| texts.bytes > median);
    }

    /// The author of a room whose texts are more than all else in the room.
    fn excess_of(&self, room: i64, size: Size) -> Option<(UserId, Texts)> {
        let author = size.author?;
        let texts = self.texts.get(&(room, author))?;
        (2 * texts.bytes > size.bytes).then_some((author, *texts))
    }
}

/// Reads the sizes of all rooms. `None` if the store has ended meanwhile.
fn read(database: &Database, is_closed: &AtomicBool) -> Result<Option<Sizes>, super::super::ReadError> {
    let connection = database.reader()?;
    let mut sizes = Sizes::default();
    while !is_closed.load(Ordering::Acquire) {
        if !sizes.count(&connection)? {
            return Ok(Some(sizes));
        }
    }
    Ok(None)
}

/// Whose messages may go.
#[derive(Debug, Clone, Copy)]
enum Authors {
    /// The messages of all. `longest` is the author with the longest texts.
    All { longest: Option<UserId> },
    /// Only those of one author.
    Only(UserId),
}

fn prefix(
    connection: &Connection,
    key: i64,
    authors: Authors,
    limit: usize,
    bytes_max: u64,
) -> Result<Option<Prefix>, Fault> {
    let sql = "SELECT r.id, m.seq, octet_length(m.content), m.user_id
         FROM rooms r JOIN messages m ON m.room = r.key AND m.seq > r.floor
         WHERE r.key = ?1 ORDER BY m.seq LIMIT ?2";
    let mut oldest = connection.prepare_cached(sql)?;
    let mut rows = oldest.query((key, signed(limit as u64)))?;
    let mut found: Option<Prefix> = None;
    while let Some(row) = rows.next()? {
        let (text_bytes, author) = (unsigned(row.get(2)?), row.get(3)?);
        let author_bytes = match authors {
            Authors::Only(only) if only != author => break,
            Authors::All { longest } if longest != Some(author) => 0,
            Authors::Only(_) | Authors::All { .. } => text_bytes,
        };
        let bytes = text_bytes + MESSAGE_BYTES;
        match &mut found {
            None => {
                let (room, up_to) = (row.get(0)?, row.get(1)?);
                found = Some(Prefix { room, up_to, count: 1, key, bytes, author_bytes });
            }
            Some(prefix) if prefix.bytes <= bytes_max => {
                prefix.up_to = row.get(1)?;
                prefix.count += 1;
                prefix.bytes += bytes;
                prefix.author_bytes += author_bytes;
            }
            Some(_) => break,
        }
    }
    Ok(found)
}

/// The oldest texts of an author in a room. `None` if the next [`LOOKED_AT_MAX`] frames have none.
fn author_texts(
    connection: &Connection,
    key: i64,
    author: UserId,
    texts: Texts,
    limit: usize,
    bytes_max: u64,
) -> Result<Option<AuthorTexts>, Fault> {
    let sql = format!(
        "SELECT r.id, m.seq, m.id, octet_length(m.content), m.user_id = ?2 AND {IS_MESSAGE} AND m.deleted_ms IS NULL
         FROM rooms r JOIN messages m ON m.room = r.key AND m.seq > r.floor
         WHERE r.key = ?1 AND m.seq >= ?3 ORDER BY m.seq LIMIT ?4"
    );
    let mut frames = connection.prepare_cached(&sql)?;
    let mut rows = frames.query((key, author, texts.first, signed(LOOKED_AT_MAX)))?;
    let mut found: Option<AuthorTexts> = None;
    while let Some(row) = rows.next()? {
        if !row.get::<_, bool>(4)? {
            continue;
        }
        let (last, message, bytes) = (row.get(1)?, row.get(2)?, unsigned(row.get(3)?));
        match &mut found {
            None => {
                let room = row.get(0)?;
                found = Some(AuthorTexts { room, messages: vec![message], key, author, bytes, last });
            }
            Some(found) if found.messages.len() < limit && found.bytes + bytes <= bytes_max => {
                found.messages.push(message);
                found.bytes += bytes;
                found.last = last;
            }
            Some(_) => break,
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authors_with_short_texts_are_left_out() {
        let mut sizes = Sizes::default();
        let author = |number: usize| UserId(uuid::Uuid::from_u128(number as u128));
        let texts = |bytes| Texts { bytes, first: Seq(1) };
        sizes.add(1, author(0), 1, texts(1_000_000));
        for number in 1..=2 * AUTHORS_MAX {
            sizes.add(2, author(number), 1, texts(10 + number as u64 % 7));
            assert!(sizes.texts.len() <= AUTHORS_MAX);
        }
        assert_eq!(sizes.texts[&(1, author(0))].bytes, 1_000_000);
        assert_eq!(sizes.rooms[&1].author, Some(author(0)));
        assert!(sizes.excess_of(1, sizes.rooms[&1]).is_some());
        assert!(sizes.excess_of(2, sizes.rooms[&2]).is_none());
    }
}
