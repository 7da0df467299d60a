//! Upkeep keeps the database within its bounds. It deletes messages that are too old. If the database is too large, it
//! deletes the oldest messages of the largest room, so that a flood in one room costs no other room its history. If one
//! author holds more of that room than all others together, it erases texts of that author instead. It returns space to
//! the file system, keeps the WAL short, and adds new messages to the word index. It removes sessions, invitations, mutes
//! and bans that are over, guests that were not seen for a long time, old entries of the audit log, and rooms without
//! messages and connections.
//!
//! Everything that clients can see of it goes through the log as entries. It runs on the store's thread and connection,
//! in slices between batches. A slice takes a few milliseconds while no batch waits. Under constant load it takes as
//! long as the batches since the last slice. Beyond a bound it takes longer, so that the bound holds while writing
//! continues. A slice is not synced by itself, as no client was promised what it deletes. The sync of the next batch
//! covers it.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::{Duration, Instant};

use crate::config::{Durability, Keep};
use crate::limits::{AUDIT_KEPT, FORGOTTEN_AT_ONCE};
use crate::model::RoomId;

use super::super::change::Change;
use super::room_sizes::{AuthorTexts, Excess, RoomSizes};
use super::row::{unsigned, value};
use super::schema::{Database, PAGE_BYTES, set_wal_limit};
use super::search::WholeMerge;
use super::space::{self, Bounds, Space};
use super::{Connection, Fault, messages, people, search};

/// How long a slice may take while no batch waits.
const SLICE: Duration = Duration::from_millis(3);
/// The pause after a slice that left work.
const SLICE_PAUSE: Duration = Duration::from_millis(4);
/// The interval between two checks of the bounds while they hold: without batches, and with them.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
const CHECK_INTERVAL_BUSY: Duration = Duration::from_millis(20);
/// Messages that are deleted between two checks of the clock. While no batch waits, a slice deletes no more than these.
const MESSAGES_AT_ONCE: usize = 100;
/// The same after a batch under load. It is larger, as the word index makes a segment of each transaction's words.
const MESSAGES_AT_ONCE_BUSY: usize = 500;
/// Under load and beyond the bound, a slice may take this many times as long as the batches did.
const SHARE_MAX: u32 = 4;
/// Sessions, rooms, or entries of the audit log that are checked at once.
const ROWS_AT_ONCE: usize = 200;
/// The interval between two sweeps of all of them.
const PEOPLE_EVERY: Duration = Duration::from_secs(3600);
const ROOMS_EVERY: Duration = Duration::from_secs(60);
/// The interval between two looks at the audit log.
const AUDIT_EVERY: Duration = Duration::from_secs(60);
/// How long a session that is over is remembered, so that a login with its token comes from a known device. A guest
/// that does not return is remembered as long.
pub const OVER_KEPT: Duration = Duration::from_secs(90 * 24 * 3600);
/// The same for guests without messages and sessions that are over, when the database is near its size bound.
const KEPT_WITHOUT_ROOM: Duration = Duration::from_secs(24 * 3600);
/// Pages that return to the file system between two checks of the clock.
const PAGES_AT_ONCE: u64 = 64;
/// Pages of the word index that are merged between two checks of the clock.
const WORDS_PAGES_AT_ONCE: u64 = 64;
/// Messages of deleted rooms that are deleted and overwritten between two checks of the clock. They may be long.
const PURGED_AT_ONCE: usize = 20;
/// Messages that are added to the word index in one transaction: while no batch waits, and after a batch under load. Each
/// transaction makes a segment of the index, and segments must be merged, so larger transactions cost less in all.
const INDEXED_AT_ONCE: usize = 200;
const INDEXED_AT_ONCE_BUSY: usize = 4_000;
/// Bytes of their texts, for each of these messages.
const INDEXED_BYTES: usize = 200;
/// Under load, the index waits until so many messages are behind it.
const UNINDEXED_MAX: i64 = 100_000;
/// Rows of a replaced index that are deleted between two checks of the clock.
const DROPPED_AT_ONCE: usize = 32;
/// Free pages that are left for new data: this many, or this part of the file, whichever is more.
const FREE_PAGES_MIN: u64 = 256;
const FREE_PART: u64 = 32;
/// WAL pages that may be left to a checkpoint on this thread, which should be short.
const CHECKPOINT_PAGES_SHORT: u64 = 1_024;
/// Work begins this part of the bound before it, so that the bound holds while a batch is written.
const ROOM_PART: u64 = 16;
/// The same while the word index still holds deleted words.
const ROOM_PART_MERGING: u64 = 32;
/// The sizes of the rooms are read from this part of the bound before it.
const ROOM_PART_SIZES: u64 = 4;
/// The WAL counts for no more than this part of the bound. A WAL that a long reader holds up must not cost messages.
const WAL_PART: u64 = 8;

/// What upkeep works on: the database, and the log for every change that clients can see.
pub trait Upkept {
    fn connection(&self) -> &Connection;

    /// Whether a room has connections.
    fn has_connections(&self, room: &RoomId) -> bool;

    /// The log time.
    fn clock_ms(&mut self) -> u64;

    /// Applies changes as a batch of the log.
    fn apply(&mut self, changes: Vec<Change>) -> Result<(), Fault>;
}

#[derive(Debug)]
pub struct Upkeep {
    keep: Keep,
    database: Arc<Database>,
    space: Space,
    bounds: Bounds,
    room_sizes: RoomSizes,
    /// The pages that the writer may use.
    pages_max: u64,
    /// When room was last looked for in vain.
    no_room_at: Option<Instant>,
    /// Whether batches are synced, so that syncing must be turned on again after a slice.
    syncs: bool,
    /// Whether the last slice left work.
    is_behind: bool,
    /// Whether the word index still holds deleted words. It only marks them, and drops them when it merges segments.
    is_merging: bool,
    /// When the last slice ended.
    ended: Instant,
    people: People,
    rooms: TableSweep,
    /// For tests: the size that SQLite may use stays as the test has set it.
    #[cfg(test)]
    pub is_disk_fixed: bool,
}

/// Removes sessions that are over and old entries of the audit log, some at a time, and invitations and restrictions that
/// are over.
#[derive(Debug)]
pub struct People {
    sessions: TableSweep,
    /// When invitations, mutes and bans were last checked. They are few, so all are checked together.
    checked_at: Option<Instant>,
    /// When the audit log was last within its bounds.
    audit_checked_at: Option<Instant>,
}

impl People {
    pub fn new() -> Self {
        Self { sessions: TableSweep::new("sessions", PEOPLE_EVERY), checked_at: None, audit_checked_at: None }
    }

    /// Checks some sessions and the audit log, if it is time. Forgets sessions that have been over for `over_kept`, and
    /// guests without messages that were not seen for `unseen_kept`. Returns whether there is more to check.
    pub fn step(
        &mut self,
        upkept: &mut impl Upkept,
        over_kept: Duration,
        unseen_kept: Option<Duration>,
    ) -> Result<bool, Fault> {
        let clock_ms = upkept.clock_ms();
        if self.checked_at.is_none_or(|checked_at| checked_at.elapsed() >= PEOPLE_EVERY) {
            self.checked_at = Some(Instant::now());
            in_transaction(upkept.connection(), |connection| people::forget_what_is_over(connection, clock_ms))?;
        }
        let before = |kept| Keep { retention: kept, bytes_max: None }.since_ms(clock_ms);
        let forgets = self.forget_audit_entries(upkept, before(Some(AUDIT_KEPT)))?;
        let Some((after, to)) = self.sessions.next(upkept.connection())? else { return Ok(forgets) };
        let (over_ms, unseen_ms) = (before(Some(over_kept)), before(unseen_kept));
        let sessions = people::forgettable_sessions(upkept.connection(), after, to, over_ms, unseen_ms, clock_ms)?;
        if !sessions.is_empty() {
            upkept.apply(vec![Change::ForgetSessions { sessions }])?;
        }
        Ok(true)
    }

    /// Forgets some entries of the audit log beyond its bounds, if it is time. Returns whether there may be more.
    fn forget_audit_entries(&mut self, upkept: &mut impl Upkept, before_ms: u64) -> Result<bool, Fault> {
        if self.audit_checked_at.is_some_and(|checked_at| checked_at.elapsed() < AUDIT_EVERY) {
            return Ok(false);
        }
        let connection = upkept.connection();
        let entries = people::forgettable_audit_entries(connection, before_ms, ROWS_AT_ONCE)?;
        if entries.is_empty() {
            self.audit_checked_at = Some(Instant::now());
            return Ok(false);
        }
        upkept.apply(vec![Change::ForgetAuditEntries { entries }])?;
        Ok(true)
    }
}

/// Walks all rows of a table in the order of their keys, some at a time.
#[derive(Debug)]
struct TableSweep {
    table: &'static str,
    /// The interval between the beginnings of two sweeps.
    every: Duration,
    /// The last row that was checked, while a sweep goes on.
    at: Option<i64>,
    /// When the last sweep began.
    begun: Option<Instant>,
}

impl TableSweep {
    fn new(table: &'static str, every: Duration) -> Self {
        Self { table, every, at: None, begun: None }
    }

    /// The next rows to check, if a sweep goes on or is due. Their keys are greater than the first number and at most
    /// the second.
    fn next(&mut self, connection: &Connection) -> Result<Option<(i64, i64)>, Fault> {
        if self.at.is_none() {
            if self.begun.is_some_and(|begun| begun.elapsed() < self.every) {
                return Ok(None);
            }
            self.begun = Some(Instant::now());
        }
        let from = self.at.unwrap_or(0);
        let sql = format!("SELECT max(key) FROM (SELECT key FROM {} WHERE key > ?1 ORDER BY key LIMIT ?2)", self.table);
        self.at = value(connection, &sql, (from, ROWS_AT_ONCE as i64))?;
        Ok(self.at.map(|to| (from, to)))
    }
}

/// The limits of a slice.
#[derive(Debug, Clone, Copy)]
struct Budget {
    /// How long it may take, and how long beyond a bound.
    time: Duration,
    time_max: Duration,
    /// Messages that it may delete between two checks of the clock, and in all.
    at_once: usize,
    messages: usize,
    /// Messages that it may index between two checks of the clock, and the number from which on it does.
    indexed_at_once: usize,
    unindexed_max: i64,
}

/// The size of the database.
#[derive(Debug, Clone, Copy)]
struct Size {
    pages: u64,
    free: u64,
    /// The bytes that count for the bound.
    bytes: u64,
}

impl Upkeep {
    /// The upkeep of a database within these bounds.
    pub fn new(keep: Keep, database: &Arc<Database>, durability: Durability) -> Self {
        let mut space = Space::new(keep.bytes_max, &database.real_path);
        space.owe_reserve(&database.lock);
        Self {
            keep,
            database: Arc::clone(database),
            bounds: space.bounds(&database.lock),
            room_sizes: RoomSizes::default(),
            space,
            pages_max: u64::MAX,
            no_room_at: None,
            #[cfg(test)]
            is_disk_fixed: false,
            syncs: durability == Durability::Full,
            is_behind: true,
            is_merging: false,
            ended: Instant::now(),
            people: People::new(),
            rooms: TableSweep::new("rooms", ROOMS_EVERY),
        }
    }

    /// How long to wait for a batch before the next slice.
    pub fn wait(&self) -> Duration {
        if self.is_behind { SLICE_PAUSE } else { CHECK_INTERVAL }
    }

    /// Runs a slice while no batch waits.
    pub fn between_batches(&mut self, upkept: &mut impl Upkept) -> Result<(), Fault> {
        let (time, at_once) = (SLICE, MESSAGES_AT_ONCE);
        let budget = Budget {
            time,
            time_max: time,
            at_once,
            messages: at_once,
            indexed_at_once: INDEXED_AT_ONCE,
            unindexed_max: 0,
        };
        self.slice(upkept, budget)
    }

    /// Runs a slice after a batch, if it is due. It may take as long as all work since the last slice, and beyond a
    /// bound [`SHARE_MAX`] times as long. So it keeps up with any write load.
    pub fn behind_batch(&mut self, upkept: &mut impl Upkept) -> Result<(), Fault> {
        let since = self.ended.elapsed();
        if since < CHECK_INTERVAL_BUSY {
            return Ok(());
        }
        let time = since.clamp(SLICE, CHECK_INTERVAL / SHARE_MAX);
        let budget = Budget {
            time,
            time_max: time * SHARE_MAX,
            at_once: MESSAGES_AT_ONCE_BUSY,
            messages: usize::MAX,
            indexed_at_once: INDEXED_AT_ONCE_BUSY,
            unindexed_max: UNINDEXED_MAX,
        };
        self.slice(upkept, budget)
    }

    fn slice(&mut self, upkept: &mut impl Upkept, budget: Budget) -> Result<(), Fault> {
        // A slice that failed is tried again, but not at once.
        self.is_behind = false;
        set_synced(upkept.connection(), self.syncs, false)?;
        let done = self.work(upkept, budget);
        let done = match done {
            // The next slice has the space of the reserve.
            Err(fault) if space::is_full(&fault) && self.make_space(upkept.connection())? => Ok(true),
            done => done,
        };
        self.space.keep_reserve(&self.database.lock);
        let synced = set_synced(upkept.connection(), self.syncs, true);
        self.ended = Instant::now();
        self.is_behind = done?;
        synced
    }

    /// Works within a budget. Returns whether work is left.
    fn work(&mut self, upkept: &mut impl Upkept, budget: Budget) -> Result<bool, Fault> {
        let begun = Instant::now();
        let mut left = budget.messages;
        loop {
            self.look_at_disk(upkept.connection())?;
            let size = self.size(upkept.connection())?;
            let bytes_max = self.bounds.bytes_max;
            let over = |part: u64| bytes_max.is_some_and(|most| size.bytes > most - most / part);
            // Deleted words stay in the index until it is merged. Merging comes before deleting more, while there is
            // space.
            let is_short = self.is_short(&size);
            let is_large = is_short || over(if self.is_merging { ROOM_PART_MERGING } else { ROOM_PART });
            let erases = self.erase(upkept.connection(), is_short)?;
            let forgets = self.forget_people(upkept, is_large)? | self.forget_rooms(upkept)? | erases;
            if over(ROOM_PART_SIZES) {
                self.room_sizes.refresh(&self.database);
            }
            // Those that are too old go first. Near the size bound, any messages may go.
            let limit = left.min(budget.at_once);
            let since_ms = self.keep.since_ms(upkept.clock_ms());
            let mut deleted = self.forget_before(upkept, since_ms, limit)?;
            let is_past = bytes_max.is_some_and(|most| size.bytes > most);
            if deleted == 0 && is_large {
                let (bytes_max, is_urgent) = (self.bounds.forgotten_bytes, is_past || is_short);
                let excess = self.room_sizes.excess(upkept.connection(), limit, bytes_max, is_urgent)?;
                if let Some(excess) = excess {
                    deleted = forget_excess(upkept, &excess)?;
                    self.room_sizes.deleted(&excess);
                }
            }
            if deleted > 0 || self.is_merging {
                let was_merging = self.is_merging;
                self.is_merging = in_transaction(upkept.connection(), |connection| {
                    if !was_merging {
                        search::merge_early(connection)?;
                    }
                    search::merge(connection, WORDS_PAGES_AT_ONCE)
                })?;
            }
            left -= deleted;
            let free_kept = if self.space.owed() > 0 {
                self.bounds.spare_bytes / PAGE_BYTES
            } else {
                FREE_PAGES_MIN.max(size.pages / FREE_PART)
            };
            let is_loose = size.free > free_kept;
            if is_loose {
                self.space.returned(PAGES_AT_ONCE * PAGE_BYTES);
                upkept.connection().execute_batch(&format!("PRAGMA incremental_vacuum({PAGES_AT_ONCE})"))?;
            }
            // Deleting comes first: messages that go soon need no index.
            let indexes = deleted == 0 && !is_short && index(upkept.connection(), budget)?;
            self.shorten_wal(upkept.connection())?;
            if deleted == 0 && !self.is_merging && !is_loose && !forgets && !indexes && !is_short {
                return Ok(false);
            }
            if left == 0 || begun.elapsed() >= if is_past { budget.time_max } else { budget.time } {
                return Ok(true);
            }
        }
    }

    /// Forgets the oldest messages of all rooms that are from before a log time. Returns their number.
    fn forget_before(&self, upkept: &mut impl Upkept, before_ms: u64, limit: usize) -> Result<usize, Fault> {
        let (rooms, count) = messages::oldest(upkept.connection(), before_ms, limit, self.bounds.forgotten_bytes)?;
        if count > 0 {
            let forget = |(room, up_to)| Change::Forget { room, up_to };
            upkept.apply(rooms.into_iter().map(forget).collect())?;
        }
        Ok(count)
    }

    fn size(&self, connection: &Connection) -> Result<Size, Fault> {
        let pragma = |sql: &str| value(connection, sql, []).map(unsigned);
        let (pages, free) = (pragma("PRAGMA page_count")?, pragma("PRAGMA freelist_count")?);
        let wal_bytes_max = self.bounds.bytes_max.unwrap_or(0) / WAL_PART;
        let bytes = (pages - free) * pragma("PRAGMA page_size")? + self.space.wal_bytes().min(wal_bytes_max);
        Ok(Size { pages, free, bytes })
    }

    /// Whether too few pages are free, or can become pages of the file.
    fn is_short(&self, size: &Size) -> bool {
        let grows_by = (self.bounds.file_bytes_max / PAGE_BYTES).saturating_sub(size.pages);
        let spare = self.bounds.spare_bytes + self.space.owed();
        (size.free + grows_by) * PAGE_BYTES < spare && size.bytes > self.bounds.kept_bytes
    }

    /// Adapts the bounds to the space on the disk.
    fn look_at_disk(&mut self, connection: &Connection) -> Result<(), Fault> {
        #[cfg(test)]
        if self.is_disk_fixed {
            return Ok(());
        }
        self.bounds = self.space.bounds(&self.database.lock);
        let (before, wal_bytes_max) = (self.database.wal_bytes_max.load(Relaxed), self.bounds.wal_bytes_max);
        if wal_bytes_max < before || wal_bytes_max / 5 * 4 > before {
            self.database.wal_bytes_max.store(wal_bytes_max, Relaxed);
            set_wal_limit(connection, wal_bytes_max)?;
        }
        let pages_max = self.bounds.file_bytes_max / PAGE_BYTES;
        if pages_max < self.pages_max || pages_max > self.pages_max.saturating_add(PAGES_AT_ONCE) {
            self.pages_max = pages_max;
            // SQLite never goes below the pages that there are.
            let pages_max = pages_max.min(u32::MAX.into()).cast_signed();
            connection.pragma_update_and_check(None, "max_page_count", pages_max, |_| Ok(()))?;
        }
        Ok(())
    }

    /// Makes room on a full disk: removes the reserve, shortens the WAL, and deletes the oldest messages. Returns whether
    /// a further try to write makes sense.
    pub fn make_room(&mut self, upkept: &mut impl Upkept) -> bool {
        #[cfg(test)]
        if self.is_disk_fixed {
            return false;
        }
        // The bound that an earlier failure has set may be what fails now.
        if self.space.believe() {
            return self.look_at_disk(upkept.connection()).is_ok();
        }
        if self.no_room_at.is_some_and(|at| at.elapsed() < CHECK_INTERVAL) {
            return false;
        }
        let time = CHECK_INTERVAL / SHARE_MAX;
        let budget = Budget {
            time,
            time_max: time,
            at_once: MESSAGES_AT_ONCE,
            messages: usize::MAX,
            indexed_at_once: 0,
            unindexed_max: i64::MAX,
        };
        let made = self.make_space(upkept.connection()).and_then(|is_made| {
            self.slice(upkept, budget)?;
            Ok(is_made | self.shorten_whole_wal(upkept.connection())?)
        });
        let is_made = made.unwrap_or_else(|fault| {
            log::debug!("failed to make room on a full disk: {fault}");
            false
        });
        self.no_room_at = (!is_made).then(Instant::now);
        is_made
    }

    /// Removes the reserve and shortens the WAL. Returns whether there may be space now.
    fn make_space(&mut self, connection: &Connection) -> Result<bool, Fault> {
        let had_reserve = self.space.found_full(&self.database.lock);
        Ok(self.shorten_whole_wal(connection)? | had_reserve)
    }

    /// Moves all of the WAL into the database, so that it restarts. Returns whether that was possible.
    fn shorten_whole_wal(&self, connection: &Connection) -> Result<bool, Fault> {
        self.database.checkpoint(connection, "PASSIVE")?;
        let (pages, moved) = frames(connection)?;
        Ok(pages > 0 && pages == moved)
    }

    /// Checks some sessions, if it is time. Returns whether there are more to check.
    fn forget_people(&mut self, upkept: &mut impl Upkept, is_large: bool) -> Result<bool, Fault> {
        if !is_large {
            return self.people.step(upkept, OVER_KEPT, self.keep.retention);
        }
        let unseen_kept = self.keep.retention.map_or(KEPT_WITHOUT_ROOM, |retention| retention.min(KEPT_WITHOUT_ROOM));
        self.people.step(upkept, KEPT_WITHOUT_ROOM, Some(unseen_kept))
    }

    /// Checks some rooms, if it is time. Forgets those without messages and connections. Returns whether there are more
    /// to check.
    fn forget_rooms(&mut self, upkept: &mut impl Upkept) -> Result<bool, Fault> {
        let Some((after, to)) = self.rooms.next(upkept.connection())? else { return Ok(false) };
        // A long order may have been forgotten further than could be deleted at once. Its rows are deleted here.
        let mut has_more = false;
        for room in messages::forgotten_rooms(upkept.connection(), after, to)? {
            let deleted = in_transaction(upkept.connection(), |connection| {
                messages::delete_forgotten(connection, room, FORGOTTEN_AT_ONCE)
            })?;
            has_more |= deleted == FORGOTTEN_AT_ONCE;
        }
        if has_more {
            self.rooms.at = Some(after);
            return Ok(true);
        }
        let mut rooms = messages::empty_rooms(upkept.connection(), after, to)?;
        rooms.retain(|room| !upkept.has_connections(room));
        if !rooms.is_empty() {
            upkept.apply(vec![Change::ForgetRooms { rooms }])?;
        }
        Ok(true)
    }

    /// Erases some words of deleted messages, and some messages of deleted rooms. Returns whether there were any.
    fn erase(&self, connection: &Connection, is_short: bool) -> Result<bool, Fault> {
        let erases = in_transaction(connection, |connection| {
            Ok(search::erase_more(connection)? | messages::purge(connection, PURGED_AT_ONCE)?)
        })?;
        // A merge writes before it deletes.
        let merge = || in_transaction(connection, |connection| search::merge_whole(connection, WORDS_PAGES_AT_ONCE));
        let merged = if is_short { WholeMerge::None } else { merge()? };
        if erases || merged == WholeMerge::Ended {
            self.database.erased.store(true, Release);
        }
        Ok(erases || merged != WholeMerge::None)
    }

    /// Checkpoints the rest of a long WAL, so that it restarts. Under constant load, the other thread's checkpoints
    /// never reach its end, but they leave little to do here. Without them, this happens when the WAL is twice as long.
    fn shorten_wal(&self, connection: &Connection) -> Result<(), Fault> {
        let (length, length_max) = (self.space.wal_bytes(), self.bounds.wal_bytes_max);
        if length < length_max / 2 {
            return Ok(());
        }
        let (pages, moved) = frames(connection)?;
        let left = unsigned(pages - moved);
        if left > 0 && (left < CHECKPOINT_PAGES_SHORT || length >= length_max) {
            self.database.checkpoint(connection, "PASSIVE")?;
        }
        Ok(())
    }
}

/// Forgets messages, or erases texts, of the largest room. Returns their number.
fn forget_excess(upkept: &mut impl Upkept, excess: &Excess) -> Result<usize, Fault> {
    let (change, count) = match excess {
        Excess::Prefix(prefix) => (Change::Forget { room: prefix.room.clone(), up_to: prefix.up_to }, prefix.count),
        Excess::Texts(AuthorTexts { room, messages, .. }) => {
            (Change::EraseMessages { room: room.clone(), messages: messages.clone() }, messages.len())
        }
    };
    upkept.apply(vec![change])?;
    Ok(count)
}

/// Adds messages to the word index, if enough wait. Without, deletes what is left of a replaced index. Returns whether
/// work may be left.
fn index(connection: &Connection, budget: Budget) -> Result<bool, Fault> {
    if search::backlog(connection)? > budget.unindexed_max {
        let at_once = budget.indexed_at_once;
        return in_transaction(connection, |connection| search::follow(connection, at_once, at_once * INDEXED_BYTES));
    }
    let is_idle = budget.unindexed_max == 0;
    Ok(is_idle && in_transaction(connection, |connection| search::drop_data(connection, DROPPED_AT_ONCE))?)
}

/// The frames of the WAL, and how many of them are in the database.
fn frames(connection: &Connection) -> Result<(i64, i64), Fault> {
    connection.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| Ok((row.get(1)?, row.get(2)?)))
}

fn in_transaction<T>(connection: &Connection, work: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, Fault> {
    // The transaction rolls back if it is dropped without a commit.
    let transaction = connection.unchecked_transaction()?;
    let done = work(connection)?;
    transaction.commit()?;
    Ok(done)
}

/// Turns the syncing of commits off and on again. Commits of upkeep need no sync: they can't corrupt the database
/// (WAL), and the next synced commit covers them. Nothing may be acknowledged until syncing is on again.
fn set_synced(connection: &Connection, syncs: bool, is_synced: bool) -> Result<(), Fault> {
    if !syncs {
        return Ok(());
    }
    connection.pragma_update(None, "synchronous", if is_synced { "FULL" } else { "NORMAL" })
}

#[cfg(test)]
mod tests;
