//! Upkeep: what keeps the database within its bounds. The oldest messages go first, with their words; space goes back
//! to the file system; guests who are long gone, sessions that are long over, invitations, mutes and bans that are over, and
//! rooms without messages and members are forgotten; the WAL stays short.
//!
//! All of it runs on the store's thread and connection, in slices between batches: a slice while nothing waits takes a
//! few milliseconds; under constant load, as long as the batches since the last one, and longer where a bound is passed,
//! so that it holds while writing goes on. A slice is not synced for itself: nobody was promised that what it deletes is gone, and
//! the sync of the next batch covers it.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use crate::config::{Durability, Keep};
use crate::limits::{SEEN_PENDING_MAX, WAL_BYTES_MAX};
use crate::model::{Timestamp, UserId};

use super::rooms::Rooms;
use super::schema::Database;
use super::{accounts, messages, search};

/// How long a slice may take while nothing waits.
const SLICE: Duration = Duration::from_millis(3);
/// The pause behind a slice that left something to do.
const SLICE_PAUSE: Duration = Duration::from_millis(10);
/// From one look at the bounds to the next, while they hold: without batches, and with them.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_EVERY_BUSY: Duration = Duration::from_millis(20);
/// Messages that are deleted between two looks at the clock; a slice while nothing waits deletes no more than these.
const MESSAGES_AT_ONCE: usize = 100;
/// The same behind a batch under load, as the index of words makes a part of each transaction's words.
const MESSAGES_AT_ONCE_BUSY: usize = 500;
/// Under load, with the bound itself passed, a slice may take so many times as long as the batches did.
const SHARE_MAX: u32 = 4;
/// Sessions, and rooms, that are looked at in a slice.
const ROWS_AT_ONCE: usize = 200;
/// From one look at all of them to the next.
const PEOPLE_EVERY: Duration = Duration::from_secs(3600);
const ROOMS_EVERY: Duration = Duration::from_secs(60);
/// How long a session that is over is remembered: whoever shows its token logs in from a device that is no stranger. As
/// long as a guest is known who does not come back.
pub const OVER_KEPT: Duration = Duration::from_secs(90 * 24 * 3600);
/// How long a guest without messages is known, and a session that is over, where there is no room for all.
const KEPT_WITHOUT_ROOM: Duration = Duration::from_secs(24 * 3600);
/// Pages that go back to the file system between two looks at the clock.
const PAGES_AT_ONCE: u64 = 64;
/// Pages of the index of words that are merged between two looks at the clock.
const WORDS_PAGES_AT_ONCE: u64 = 64;
/// Free pages that are left for what comes next: these, or this part of the file.
const FREE_PAGES_MIN: u64 = 256;
const FREE_PART: u64 = 32;
/// Pages of the WAL that may be left to a checkpoint on this thread, which is meant to be short.
const CHECKPOINT_PAGES_SHORT: u64 = 1_024;
/// Work begins this part of the bound before it, so that it holds while a batch is written.
const ROOM_PART: u64 = 16;
/// The same while the index of words still holds what was deleted.
const ROOM_PART_MERGING: u64 = 32;
/// The WAL counts for no more than this part: one that a long reader holds up must not cost messages.
const WAL_PART: u64 = 8;

/// Who has shown a token since the last slice. Readers write it, upkeep takes it.
#[derive(Debug, Default)]
pub struct Seen(Mutex<HashSet<UserId>>);

impl Seen {
    /// Notes somebody; not where too many wait already, as a note lost costs nothing but accuracy.
    pub fn note(&self, user: UserId) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.len() < SEEN_PENDING_MAX {
            noted.insert(user);
        }
    }

    fn take(&self) -> HashSet<UserId> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Where upkeep stands.
#[derive(Debug)]
pub struct Upkeep {
    keep: Keep,
    seen: Arc<Seen>,
    /// The WAL's file, where the database is one.
    wal: PathBuf,
    /// Whether batches are synced, so that this must be set again behind a slice.
    syncs: bool,
    /// Whether the last slice left something to do.
    is_behind: bool,
    /// Whether the index of words still holds what is deleted: it marks it, and drops it when it merges its parts.
    is_merging: bool,
    /// When the last slice ended.
    ended: Instant,
    people: People,
    rooms: Walk,
}

/// A look at what is kept of people, some of it at a time.
#[derive(Debug)]
pub struct People {
    sessions: Walk,
    /// When invitations, mutes and bans were looked at last: they are few, as admins make them.
    looked: Option<Instant>,
}

impl People {
    /// Before the first look.
    pub fn new() -> Self {
        Self { sessions: Walk::new("sessions", PEOPLE_EVERY), looked: None }
    }

    /// Whether it is time to look at something.
    pub fn is_due(&self) -> bool {
        self.sessions.is_due()
    }

    /// Looks at some sessions, if it is time to, and forgets those that have been over for so long; the rest of it goes at
    /// once when it is over. `also` is done with the same sessions: those behind one key and up to another. Whether
    /// there are more to look at.
    pub fn step(
        &mut self,
        connection: &Connection,
        kept: Duration,
        now: &Timestamp,
        also: impl FnOnce(i64, i64) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<bool> {
        if self.looked.is_none_or(|looked| looked.elapsed() >= PEOPLE_EVERY) {
            self.looked = Some(Instant::now());
            in_transaction(connection, || accounts::forget_what_is_over(connection, now))?;
        }
        let before_ms = Keep { retention: Some(kept), bytes_max: None }.since_ms(now.unix_ms);
        self.sessions.step(connection, |after, to| {
            accounts::forget_sessions(connection, after + 1..=to, before_ms)?;
            also(after, to)
        })
    }
}

/// A look at all rows of a table, in the order of their keys, some at a time.
#[derive(Debug)]
struct Walk {
    table: &'static str,
    /// From one beginning to the next.
    every: Duration,
    /// The row that was looked at last, while it goes on.
    at: Option<i64>,
    /// When it began last.
    begun: Option<Instant>,
}

impl Walk {
    fn new(table: &'static str, every: Duration) -> Self {
        Self { table, every, at: None, begun: None }
    }

    /// Whether it goes on, or it is time to begin again.
    fn is_due(&self) -> bool {
        self.at.is_some() || self.begun.is_none_or(|begun| begun.elapsed() >= self.every)
    }

    /// Gives `visit` the next rows, if there are some or it is time to begin again: those behind one key and up to
    /// another. Whether there are more.
    fn step(
        &mut self,
        connection: &Connection,
        visit: impl FnOnce(i64, i64) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<bool> {
        if !self.is_due() {
            return Ok(false);
        }
        let from = self.at.unwrap_or_else(|| {
            self.begun = Some(Instant::now());
            0
        });
        self.at = in_transaction(connection, || {
            let sql =
                format!("SELECT max(key) FROM (SELECT key FROM {} WHERE key > ?1 ORDER BY key LIMIT ?2)", self.table);
            let mut keys = connection.prepare_cached(&sql)?;
            let to: Option<i64> = keys.query_row(params![from, ROWS_AT_ONCE as i64], |row| row.get(0))?;
            to.map_or(Ok(()), |to| visit(from, to))?;
            Ok(to)
        })?;
        Ok(self.at.is_some())
    }
}

/// What a slice may do.
#[derive(Debug, Clone, Copy)]
struct Budget {
    /// How long it may take, and how long where a bound is passed.
    time: Duration,
    time_max: Duration,
    /// Messages that it deletes between two looks at the clock, and in all.
    at_once: usize,
    messages: usize,
}

/// How large the database is.
#[derive(Debug, Clone, Copy)]
struct Size {
    pages: u64,
    free: u64,
    page_bytes: u64,
    wal_bytes: u64,
}

impl Upkeep {
    /// Upkeep of a database within these bounds.
    pub fn new(keep: Keep, database: &Database, durability: Durability, seen: Arc<Seen>) -> Self {
        let mut wal = database.file().as_os_str().to_owned();
        wal.push("-wal");
        let wal = PathBuf::from(wal);
        let syncs = durability == Durability::Full;
        let ended = Instant::now();
        Self {
            keep,
            seen,
            wal,
            syncs,
            is_behind: true,
            is_merging: false,
            ended,
            people: People::new(),
            rooms: Walk::new("rooms", ROOMS_EVERY),
        }
    }

    /// How long to wait for a batch before the next slice.
    pub fn wait(&self) -> Duration {
        if self.is_behind { SLICE_PAUSE } else { LOOK_EVERY }
    }

    /// A slice while no batch waits.
    ///
    /// # Errors
    /// As the database says; what the slice did is rolled back.
    pub fn between_batches(&mut self, connection: &Connection, rooms: &mut Rooms) -> rusqlite::Result<()> {
        self.slice(
            connection,
            rooms,
            Budget { time: SLICE, time_max: SLICE, at_once: MESSAGES_AT_ONCE, messages: MESSAGES_AT_ONCE },
        )
    }

    /// A slice behind a batch, now and then: near a bound it may take as long as all that was done since the last one,
    /// and past it some times as long, so it keeps up with whatever is written.
    ///
    /// # Errors
    /// As the database says; what the slice did is rolled back.
    pub fn behind_batch(&mut self, connection: &Connection, rooms: &mut Rooms) -> rusqlite::Result<()> {
        let since = self.ended.elapsed();
        if since < LOOK_EVERY_BUSY {
            return Ok(());
        }
        let time = since.clamp(SLICE, LOOK_EVERY / SHARE_MAX);
        let budget = Budget { time, time_max: time * SHARE_MAX, at_once: MESSAGES_AT_ONCE_BUSY, messages: usize::MAX };
        self.slice(connection, rooms, budget)
    }

    fn slice(&mut self, connection: &Connection, rooms: &mut Rooms, budget: Budget) -> rusqlite::Result<()> {
        // What fails is tried again, but not at once.
        self.is_behind = false;
        let unsynced = Unsynced::begin(connection, self.syncs)?;
        let done = self.work(connection, rooms, budget);
        let synced = unsynced.end();
        self.ended = Instant::now();
        self.is_behind = done?;
        synced
    }

    /// Does what there is to do within a budget; gives back whether something is left.
    fn work(&mut self, connection: &Connection, rooms: &mut Rooms, budget: Budget) -> rusqlite::Result<bool> {
        let begun = Instant::now();
        let now = Timestamp::now();
        note_seen(connection, &self.seen.take(), &now)?;
        let mut left = budget.messages;
        loop {
            let size = self.size(connection)?;
            let over = |part: u64| self.keep.bytes_max.is_some_and(|most| size.bytes(most) > most - most / part);
            // What was deleted is in the index until it is merged: that goes before deleting more, while it can.
            let is_large = over(if self.is_merging { ROOM_PART_MERGING } else { ROOM_PART });
            let forgets = self.forget_people(connection, is_large, &now)?
                | self.rooms.step(connection, |after, to| rooms.delete_empty(connection, after, to))?;
            // All of them where there is no room; where they are too old, those.
            let before_ms = if is_large { u64::MAX } else { self.keep.since_ms(now.unix_ms) };
            let deleted = in_transaction(connection, || {
                let deleted = messages::delete_oldest(connection, before_ms, left.min(budget.at_once))?;
                if deleted > 0 && !self.is_merging {
                    search::merge_early(connection)?;
                    self.is_merging = true;
                }
                if self.is_merging {
                    self.is_merging = search::merge(connection, WORDS_PAGES_AT_ONCE)?;
                }
                Ok(deleted)
            })?;
            left -= deleted;
            let is_loose = size.free > FREE_PAGES_MIN.max(size.pages / FREE_PART);
            if is_loose {
                connection.execute_batch(&format!("PRAGMA incremental_vacuum({PAGES_AT_ONCE})"))?;
            }
            self.shorten_wal(connection)?;
            if deleted == 0 && !self.is_merging && !is_loose && !forgets {
                return Ok(false);
            }
            let is_past = self.keep.bytes_max.is_some_and(|most| size.bytes(most) > most);
            if left == 0 || begun.elapsed() >= if is_past { budget.time_max } else { budget.time } {
                return Ok(true);
            }
        }
    }

    fn size(&self, connection: &Connection) -> rusqlite::Result<Size> {
        let pragma = |name: &str| -> rusqlite::Result<u64> {
            let mut statement = connection.prepare_cached(&format!("PRAGMA {name}"))?;
            let value: i64 = statement.query_row([], |row| row.get(0))?;
            Ok(u64::try_from(value).unwrap_or(0))
        };
        // Asked by name: closing a descriptor of our own would take SQLite's locks away.
        let wal_bytes = self.wal.metadata().map_or(0, |file| file.len());
        let (pages, free) = (pragma("page_count")?, pragma("freelist_count")?);
        Ok(Size { pages, free, page_bytes: pragma("page_size")?, wal_bytes })
    }

    /// Looks at some sessions, if it is time to: forgets those that are long over, and guests who have no messages and were
    /// not seen for long. Whether there are more to look at.
    fn forget_people(&mut self, connection: &Connection, is_large: bool, now: &Timestamp) -> rusqlite::Result<bool> {
        let kept = if is_large { KEPT_WITHOUT_ROOM } else { OVER_KEPT };
        let retention = if is_large {
            Some(self.keep.retention.map_or(KEPT_WITHOUT_ROOM, |retention| retention.min(KEPT_WITHOUT_ROOM)))
        } else {
            self.keep.retention
        };
        let before_ms = Keep { retention, ..self.keep }.since_ms(now.unix_ms);
        self.people.step(connection, kept, now, |after, to| {
            let mut delete = connection.prepare_cached(
                "DELETE FROM sessions WHERE key > ?1 AND key <= ?2 AND kind = 'guest' AND seen_ms < ?3
                 AND NOT EXISTS (SELECT 1 FROM messages WHERE user_id = sessions.user_id)",
            )?;
            delete.execute(params![after, to, i64::try_from(before_ms).unwrap_or(i64::MAX)])?;
            Ok(())
        })
    }

    /// Begins the WAL anew, where it has grown long and the checkpoints of the other thread never see its end, as
    /// under constant load. They have left little to do here; without them, when it is twice as long.
    fn shorten_wal(&self, connection: &Connection) -> rusqlite::Result<()> {
        let length = self.wal.metadata().map_or(0, |file| file.len());
        if length < WAL_BYTES_MAX / 2 {
            return Ok(());
        }
        let mut statement = connection.prepare_cached("PRAGMA wal_checkpoint(NOOP)")?;
        let (pages, moved): (i64, i64) = statement.query_row([], |row| Ok((row.get(1)?, row.get(2)?)))?;
        let left = u64::try_from(pages - moved).unwrap_or(0);
        if left > 0 && (left < CHECKPOINT_PAGES_SHORT || length >= WAL_BYTES_MAX) {
            connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
        }
        Ok(())
    }
}

impl Size {
    /// What counts for a bound.
    fn bytes(self, most: u64) -> u64 {
        (self.pages - self.free) * self.page_bytes + self.wal_bytes.min(most / WAL_PART)
    }
}

fn note_seen(connection: &Connection, users: &HashSet<UserId>, now: &Timestamp) -> rusqlite::Result<()> {
    if users.is_empty() {
        return Ok(());
    }
    in_transaction(connection, || {
        let mut statement =
            connection.prepare_cached("UPDATE sessions SET seen_ms = ?2 WHERE user_id = ?1 AND kind = 'guest'")?;
        for user in users {
            statement.execute(params![user.0.as_bytes(), i64::try_from(now.unix_ms).unwrap_or(i64::MAX)])?;
        }
        Ok(())
    })
}

fn in_transaction<T>(connection: &Connection, work: impl FnOnce() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    // Rolls back where it is dropped without a commit. Writing from its begin on: what reads first and then writes fails
    // where one of the operator's commands has written in between.
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    let done = work()?;
    transaction.commit()?;
    Ok(done)
}

/// A time in which commits are not synced. They can't break the database (WAL), and the next synced one covers them.
struct Unsynced<'a> {
    connection: &'a Connection,
    syncs: bool,
}

impl<'a> Unsynced<'a> {
    fn begin(connection: &'a Connection, syncs: bool) -> rusqlite::Result<Self> {
        if syncs {
            connection.pragma_update(None, "synchronous", "NORMAL")?;
        }
        Ok(Self { connection, syncs })
    }

    /// Nothing may be acked unless this has succeeded.
    fn end(self) -> rusqlite::Result<()> {
        if self.syncs {
            self.connection.pragma_update(None, "synchronous", "FULL")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Body;
    use crate::role::Role;
    use std::path::Path;

    use crate::ids::FrameIds;
    use crate::model::{Nonce, Person, RoomId, Username};
    use crate::store::{Append, NewMessage, Ticket};

    /// A database with a writer and its upkeep, without threads.
    struct Rig {
        database: Database,
        connection: Connection,
        ids: FrameIds,
        written: u64,
    }

    impl Rig {
        fn open(path: &Path) -> Self {
            let (database, connection) = Database::open(path, Durability::Full).unwrap();
            Self { database, connection, ids: FrameIds::new(), written: 0 }
        }

        fn upkeep(&self, keep: Keep) -> Upkeep {
            Upkeep::new(keep, &self.database, Durability::Full, Arc::default())
        }

        /// A batch of messages at a moment.
        fn write(&mut self, texts: &[String], at_ms: u64) {
            let tea = RoomId::parse("tea").unwrap();
            let room = messages::room(&self.connection, &tea).unwrap();
            let mut row = room.unwrap_or_else(|| messages::insert_room(&self.connection, &tea).unwrap());
            in_transaction(&self.connection, || {
                for text in texts {
                    let id = uuid::Uuid::from_u128(u128::from(self.written % 50));
                    let author = Person { id: UserId(id), username: Username::parse("ana").unwrap() };
                    let new = NewMessage {
                        room: tea.clone(),
                        author: Arc::new(author),
                        role: Role::Guest,
                        body: Body::Text { content: text.as_str().into(), reply_to: None },
                        nonce: Some(Nonce::parse(&format!("{}", self.written)).unwrap()),
                        refusal: None,
                        ticket: Ticket::Nobody,
                    };
                    row.head = row.head.next();
                    let now = Timestamp::at(at_ms);
                    let stored = messages::encode_new(&new, self.ids.next(&now), row.head, &now, &mut Vec::new());
                    assert!(messages::insert(&self.connection, row, &new, &stored, &now)?);
                    self.written += 1;
                }
                messages::update_head(&self.connection, row)
            })
            .unwrap();
        }

        fn number(&self, sql: &str) -> u64 {
            let number: i64 = self.connection.query_row(sql, [], |row| row.get(0)).unwrap();
            u64::try_from(number).unwrap()
        }

        fn finish(&self, upkeep: &mut Upkeep) {
            upkeep.is_behind = true;
            while upkeep.is_behind {
                upkeep.between_batches(&self.connection, &mut Rooms::default()).unwrap();
            }
        }

        fn assert_sound(&self) {
            let said: String = self.connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!(said, "ok");
        }
    }

    fn everywhere(test: impl Fn(Rig)) {
        let directory = tempfile::tempdir().unwrap();
        test(Rig::open(&directory.path().join("adda.db")));
    }

    /// Texts of about a kilobyte with words that differ, as those of people do.
    fn texts(from: u64, count: u64) -> Vec<String> {
        let text = |n: u64| {
            let word = |k: u64| format!("w{:x} ", n.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(k as u32) >> 44);
            (0..120).map(word).collect()
        };
        (from..from + count).map(text).collect()
    }

    #[test]
    fn what_is_too_old_goes_with_its_words_and_its_space() {
        everywhere(|mut rig| {
            assert_eq!(rig.number("PRAGMA auto_vacuum"), 2, "space can go back in slices");
            let now = Timestamp::now().unix_ms;
            let hour_ms = 3_600_000;
            rig.write(&["an old \u{09DF} word".to_owned()], now - 5 * hour_ms);
            rig.write(&texts(0, 3_000), now - 3 * hour_ms);
            rig.write(&["a new word".to_owned()], now);
            let pages = rig.number("PRAGMA page_count");
            let retention = Some(Duration::from_secs(2 * 3600));
            rig.finish(&mut rig.upkeep(Keep { retention, bytes_max: None }));
            assert_eq!(rig.number("SELECT count(*) FROM messages"), 1);
            assert_eq!(rig.number("SELECT head FROM rooms"), 3_002, "places are never given twice");
            let found = |query: &str| rig.number(&format!("SELECT count(*) FROM words WHERE words MATCH '{query}'"));
            assert_eq!((found("old"), found("\u{09AF}\u{09BC}"), found("w*")), (0, 0, 1));
            assert_eq!((found("new"), found("word")), (1, 1));
            assert!(rig.number("PRAGMA page_count") < pages / 2, "of {pages}");
            rig.assert_sound();
        });
    }

    #[test]
    fn without_bounds_nothing_goes() {
        everywhere(|mut rig| {
            rig.write(&texts(0, 100), 1);
            rig.finish(&mut rig.upkeep(Keep::default()));
            assert_eq!(rig.number("SELECT count(*) FROM messages"), 100);
        });
    }

    #[test]
    fn the_size_is_kept_while_writing_goes_on() {
        everywhere(|mut rig| {
            let most = 8 << 20;
            let mut upkeep = rig.upkeep(Keep { retention: None, bytes_max: Some(most) });
            let mut least_kept = u64::MAX;
            for batch in 0..400 {
                rig.write(&texts(batch * 50, 50), Timestamp::now().unix_ms);
                // As if that had taken its time.
                upkeep.ended -= LOOK_EVERY;
                upkeep.behind_batch(&rig.connection, &mut Rooms::default()).unwrap();
                let size = rig.number("PRAGMA page_count") * 4_096;
                assert!(size < most * 11 / 10, "{size} after batch {batch}");
                let kept = rig.number("SELECT count(*) FROM messages");
                if batch >= 200 {
                    least_kept = least_kept.min(kept);
                }
            }
            assert!(least_kept > 300, "no more goes than must: {least_kept} were left");
            rig.assert_sound();
        });
    }

    #[test]
    fn guests_who_are_long_gone_are_forgotten() {
        everywhere(|mut rig| {
            let now = Timestamp::now().unix_ms;
            rig.write(&["hello".to_owned()], now);
            let guest = |number: u128, seen_ms: u64| {
                let id = uuid::Uuid::from_u128(number);
                let sql = "INSERT INTO sessions (user_id, token_hash, kind, label, created_ms, seen_ms)
                           VALUES (?1, ?1, 'guest', '', ?2, ?2)";
                rig.connection.execute(sql, params![id.as_bytes(), seen_ms as i64]).unwrap();
            };
            guest(0, 1); // has written
            guest(1_000, 1); // comes back now
            guest(1_001, now);
            for number in 2_000..2_500 {
                guest(number, 1);
            }
            let mut upkeep = rig.upkeep(Keep { retention: Some(Duration::from_secs(60)), bytes_max: None });
            upkeep.seen.note(UserId(uuid::Uuid::from_u128(1_000)));
            rig.finish(&mut upkeep);
            assert_eq!(rig.number("SELECT count(*) FROM sessions"), 3);
        });
    }

    #[test]
    fn what_is_over_of_people_is_forgotten_in_its_time() {
        everywhere(|rig| {
            let now = Timestamp::now().unix_ms;
            let long_ago = now - 91 * 86_400_000;
            let lately = now - 89 * 86_400_000;
            let session = |number: u128, kind: &str, expires_ms: Option<u64>, ended_ms: Option<u64>| {
                let id = uuid::Uuid::from_u128(number);
                let sql =
                    "INSERT INTO sessions (user_id, token_hash, kind, label, created_ms, seen_ms, expires_ms, ended_ms)
                           VALUES (?1, ?1, ?2, '', 1, ?3, ?4, ?5)";
                let values =
                    (id.as_bytes(), kind, now as i64, expires_ms.map(|ms| ms as i64), ended_ms.map(|ms| ms as i64));
                rig.connection.execute(sql, values).unwrap();
            };
            session(1, "bot", None, None);
            session(2, "login", Some(now + 1_000_000), None);
            session(3, "login", Some(lately), None);
            session(4, "login", Some(now + 1_000_000), Some(lately));
            for number in 10..600 {
                let (expires_ms, ended_ms) =
                    if number % 2 == 0 { (Some(long_ago), None) } else { (None, Some(long_ago)) };
                session(number, ["login", "bot", "guest"][number as usize % 3], expires_ms, ended_ms);
            }
            rig.connection
                .execute_batch(
                    "INSERT INTO mutes VALUES (x'01', 1, x'00'), (x'02', 9e15, x'00');
                     INSERT INTO bans VALUES ('user', x'01', 1, '', x'00', 0), ('user', x'02', NULL, '', x'00', 0);
                     INSERT INTO invitations (code_hash, uses_left, expires_ms, created_by, created_ms)
                        VALUES (x'01', 1, 1, x'00', 0), (x'02', 0, 9e15, x'00', 0), (x'03', 1, 9e15, x'00', 0);",
                )
                .unwrap();
            let mut upkeep = rig.upkeep(Keep::default());
            rig.finish(&mut upkeep);
            let keys = rig
                .number("SELECT CAST(group_concat(key, '') AS INTEGER) FROM (SELECT key FROM sessions ORDER BY key)");
            assert_eq!(keys, 1234);
            for table in ["mutes", "bans", "invitations"] {
                assert_eq!(rig.number(&format!("SELECT count(*) FROM {table}")), 1, "{table}");
            }
            session(700, "login", Some(long_ago), None);
            rig.finish(&mut upkeep);
            assert_eq!(rig.number("SELECT count(*) FROM sessions"), 5, "not before it is time again");
            for walked in [&mut upkeep.people.sessions.begun, &mut upkeep.people.looked] {
                *walked = walked.and_then(|at| at.checked_sub(PEOPLE_EVERY));
            }
            rig.connection.execute("UPDATE mutes SET until_ms = 1", []).unwrap();
            rig.finish(&mut upkeep);
            assert_eq!(rig.number("SELECT count(*) FROM sessions"), 4);
            assert_eq!(rig.number("SELECT count(*) FROM mutes"), 0);
            let mut is_full = rig.upkeep(Keep { retention: None, bytes_max: Some(1) });
            rig.finish(&mut is_full);
            assert_eq!(
                rig.number("SELECT CAST(group_concat(key, '') AS INTEGER) FROM sessions"),
                12,
                "there is no room for more"
            );
        });
    }

    #[test]
    fn a_room_goes_with_its_last_message_unless_somebody_is_there() {
        everywhere(|mut rig| {
            rig.write(&["an old word".to_owned()], 1);
            for name in ["jam", "milk"] {
                messages::insert_room(&rig.connection, &RoomId::parse(name).unwrap()).unwrap();
            }
            let jam = RoomId::parse("jam").unwrap();
            let ticket = Ticket::Member(0);
            let join = Append::Join { room: jam.clone(), ticket, known: None, after: None, guest: None };
            let mut rooms = Rooms::default();
            rooms.note(&[join]);
            let tea = RoomId::parse("tea").unwrap();
            assert!(rooms.row(&rig.connection, &tea).unwrap().is_some());
            let keep = Keep { retention: Some(Duration::from_secs(60)), bytes_max: None };
            let finish = |rooms: &mut Rooms| {
                let mut upkeep = rig.upkeep(keep);
                while upkeep.is_behind {
                    upkeep.between_batches(&rig.connection, rooms).unwrap();
                }
            };
            finish(&mut rooms);
            assert_eq!(rig.number("SELECT count(*) FROM messages"), 0);
            finish(&mut rooms);
            assert_eq!(rooms.row(&rig.connection, &tea).unwrap(), None);
            assert!(rooms.row(&rig.connection, &jam).unwrap().is_some(), "somebody is there");
            assert_eq!(rig.number("SELECT count(*) FROM rooms"), 1);
            rooms.note(&[Append::Leave { room: jam.clone(), ticket }]);
            finish(&mut rooms);
            assert_eq!(rooms.row(&rig.connection, &jam).unwrap(), None);
        });
    }

    #[test]
    fn commits_are_synced_again_behind_a_slice() {
        let directory = tempfile::tempdir().unwrap();
        let rig = Rig::open(&directory.path().join("adda.db"));
        rig.finish(&mut rig.upkeep(Keep::default()));
        assert_eq!(rig.number("PRAGMA synchronous"), 2);
    }

    #[test]
    fn the_wal_stays_short_without_any_other_checkpoint() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("adda.db");
        let mut rig = Rig::open(&path);
        let mut upkeep = rig.upkeep(Keep::default());
        for batch in 0..200 {
            rig.write(&texts(batch * 300, 300), Timestamp::now().unix_ms);
            upkeep.ended -= LOOK_EVERY_BUSY;
            upkeep.behind_batch(&rig.connection, &mut Rooms::default()).unwrap();
            let length = path.with_extension("db-wal").metadata().unwrap().len();
            assert!(length < WAL_BYTES_MAX * 5 / 4, "{length}");
        }
        assert!(path.metadata().unwrap().len() > WAL_BYTES_MAX, "much was written");
    }
}
