//! The store's engine: applies batches, publishes the policy and keeps the storage within its bounds. It runs on the
//! store's thread and touches no channel.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::config::{Durability, Keep};
use crate::limits::GUESTS_KEPT_MAX;
use crate::model::RoomId;
use crate::model::reason::{Reason, Rejection};
use crate::published::Published;

use super::change::{Change, Done, Policy};
use super::entry::{Applied, By, Entry, Outcome, Proposal};
use super::ledger::{Ledger, Storage};
use super::log::Log;
use super::log::clock::{LogClock, Moment, Reading};
use super::memory::{Memory, MemoryStorage};
use super::policy::PublishedPolicy;
use super::reader::{Source, Uses};
use super::sqlite::schema::Database;
use super::sqlite::space::is_full;
use super::sqlite::upkeep::{OVER_KEPT, People, Upkeep, Upkept};
use super::sqlite::{self, Connection, Fault, SqliteStorage, exit_on_sync_failure, people};
use super::{Reader, StartError};

/// The interval between two entries that note uses of sessions.
const SEEN_EVERY: Duration = Duration::from_secs(60);
/// The interval between two looks at the files of the database while batches come.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long the thread waits before it checks for expired data in memory.
const MEMORY_CHECK_INTERVAL: Duration = Duration::from_secs(1);

pub struct Store {
    core: Core,
    backend: Backend,
    uses: Arc<Uses>,
    seen_at: Instant,
}

/// The parts that every storage has.
struct Core {
    log: Log,
    ledger: Ledger,
    policy: PublishedPolicy,
    /// Results of the store's own entries, for the hub's next batch.
    own: Vec<Applied>,
}

#[expect(clippy::large_enum_variant, reason = "there is one, and it is never moved again")]
enum Backend {
    File { storage: SqliteStorage, upkeep: Upkeep, database: Arc<Database>, looked_at: Instant },
    Memory { messages: Arc<Mutex<Memory>>, people: Arc<Mutex<Connection>>, upkeep: MemoryUpkeep },
}

struct MemoryUpkeep {
    keep: Keep,
    people: People,
    checked_at: Instant,
}

impl Store {
    /// Opens the store of a database file. `reading` starts its clock.
    pub fn of_database(
        database: &Arc<Database>,
        connection: Connection,
        durability: Durability,
        keep: Keep,
        reading: Reading,
    ) -> Result<(Self, Reader), StartError> {
        let newest = sqlite::messages::newest_id(&connection)?.map(|id| id.unix_ms());
        let clock = LogClock::resume(sqlite::position(&connection)?, newest, reading);
        let shared = clock.shared();
        let core = Core::new(clock, &connection)?;
        let uses = Arc::default();
        let source = Source::Database { database: Arc::clone(database), idle: Arc::default() };
        let reader = Reader::new(source, core.policy.clone(), shared, Arc::clone(&uses));
        let upkeep = Upkeep::new(keep, database, durability);
        let (mut storage, database) = (SqliteStorage::new(connection), Arc::clone(database));
        storage.erased = Arc::clone(&database.erased);
        let backend = Backend::File { storage, upkeep, database, looked_at: Instant::now() };
        Ok((Self { core, backend, uses, seen_at: Instant::now() }, reader))
    }

    /// Opens a store that ends with the process. `reading` starts its clock.
    pub fn in_memory(keep: Keep, reading: Reading) -> Result<(Self, Reader), StartError> {
        let people = people::in_memory()?;
        let clock = LogClock::resume(None, None, reading);
        let shared = clock.shared();
        let core = Core::new(clock, &people)?;
        let (messages, people) = (Arc::new(Mutex::new(Memory::new(keep))), Arc::new(Mutex::new(people)));
        let (policy, uses) = (core.policy.clone(), Arc::default());
        let source = Source::Memory { messages: Arc::clone(&messages), people: Arc::clone(&people) };
        let reader = Reader::new(source, policy, shared, Arc::clone(&uses));
        let upkeep = MemoryUpkeep { keep, people: People::new(), checked_at: Instant::now() };
        let backend = Backend::Memory { messages, people, upkeep };
        Ok((Self { core, backend, uses, seen_at: Instant::now() }, reader))
    }

    /// Sets the policy flags, if they differ from the stored flags.
    pub fn set_policy(&mut self, policy: Policy) -> Result<(), StartError> {
        if self.core.ledger.policy().flags != policy {
            let set = || vec![Change::SetPolicy(policy)];
            match self.apply_own(set()) {
                Err(fault) if is_full(&fault) && self.make_room() => self.apply_own(set())?,
                set => set?,
            }
        }
        Ok(())
    }

    /// Gives a batch its moment and applies it. The results of the store's own earlier entries come first.
    pub fn commit(&mut self, batch: Vec<Proposal>) -> Vec<Applied> {
        let moment = self.core.log.next_moment();
        let mut applied = std::mem::take(&mut self.core.own);
        applied.extend(self.apply(vec![(moment, batch)]));
        applied
    }

    /// Applies batches of the log, all in one transaction.
    pub fn apply(&mut self, batches: Vec<(Moment, Vec<Proposal>)>) -> Vec<Applied> {
        match &mut self.backend {
            Backend::File { storage, database, looked_at, upkeep } => {
                if looked_at.elapsed() >= LOOK_EVERY {
                    *looked_at = Instant::now();
                    database.look();
                }
                match database.loss() {
                    Some(_) => self.core.refuse(storage, batches, Reason::NotStored),
                    None => {
                        let mut applied = self.core.apply(storage, &batches);
                        if applied.as_ref().is_err_and(is_full)
                            && upkeep.make_room(&mut Kept { core: &mut self.core, storage })
                        {
                            applied = self.core.apply(storage, &batches);
                        }
                        self.core.or_refuse(storage, batches, applied)
                    }
                }
            }
            Backend::Memory { messages, people, .. } => {
                let mut storage = MemoryStorage::lock(messages, people);
                let applied = self.core.apply(&mut storage, &batches);
                self.core.or_refuse(&mut storage, batches, applied)
            }
        }
    }

    /// How long to wait for a batch before upkeep is due.
    pub fn wait(&self) -> Duration {
        match &self.backend {
            Backend::File { upkeep, .. } => upkeep.wait(),
            Backend::Memory { .. } => MEMORY_CHECK_INTERVAL,
        }
    }

    /// Runs the upkeep that is due, after a batch or while no batch waits.
    pub fn keep_bounds(&mut self, is_idle: bool) {
        if is_idle {
            self.core.log.observe();
        }
        if self.is_lost() {
            return;
        }
        let noted = if self.seen_at.elapsed() < SEEN_EVERY { Ok(()) } else { self.note_uses() };
        let Self { core, backend, .. } = self;
        let kept = noted.and_then(|()| match backend {
            Backend::File { storage, upkeep, .. } => {
                let upkept = &mut Kept { core, storage };
                if is_idle { upkeep.between_batches(upkept) } else { upkeep.behind_batch(upkept) }
            }
            Backend::Memory { messages, people, upkeep } => {
                upkeep.step(&mut Kept { core, storage: &mut MemoryStorage::lock(messages, people) })
            }
        });
        report(kept);
    }

    /// Whether the files of the database are lost.
    fn is_lost(&self) -> bool {
        matches!(&self.backend, Backend::File { database, .. } if database.loss().is_some())
    }

    /// Ends the store, before the end of the process.
    pub fn end(mut self) {
        if self.is_lost() {
            // SQLite would write to the lost files. It would also remove the WAL at the path, which another process may
            // use.
            return std::mem::forget(self);
        }
        self.note_time();
    }

    /// Stores the log time at the end, so that the next run continues from there and not from the last batch.
    fn note_time(&mut self) {
        self.core.log.observe();
        if let Backend::File { storage, .. } = &self.backend
            && let Err(fault) = storage.note_position(self.core.log.stored())
        {
            log::warn!("failed to store the log time: {fault}");
        }
    }

    /// Proposes the noted uses as an entry, which extends the sessions.
    fn note_uses(&mut self) -> Result<(), Fault> {
        self.seen_at = Instant::now();
        let sessions = self.uses.take();
        if sessions.is_empty() { Ok(()) } else { self.apply_own(vec![Change::Seen { sessions }]) }
    }

    /// Makes room on a full disk. Returns whether a further try makes sense.
    fn make_room(&mut self) -> bool {
        match &mut self.backend {
            Backend::File { storage, upkeep, .. } => upkeep.make_room(&mut Kept { core: &mut self.core, storage }),
            Backend::Memory { .. } => false,
        }
    }

    fn apply_own(&mut self, changes: Vec<Change>) -> Result<(), Fault> {
        match &mut self.backend {
            Backend::File { storage, .. } => Kept { core: &mut self.core, storage }.apply(changes),
            Backend::Memory { messages, people, .. } => {
                let mut storage = MemoryStorage::lock(messages, people);
                Kept { core: &mut self.core, storage: &mut storage }.apply(changes)
            }
        }
    }
}

impl MemoryUpkeep {
    fn step(&mut self, upkept: &mut Kept<'_, MemoryStorage<'_>>) -> Result<(), Fault> {
        let mut changes = upkept.storage.memory.excess();
        if self.checked_at.elapsed() >= MEMORY_CHECK_INTERVAL {
            self.checked_at = Instant::now();
            if self.keep.retention.is_some() {
                let before_ms = self.keep.since_ms(upkept.clock_ms());
                let expired = upkept.storage.memory.expired(before_ms);
                changes.extend(expired.into_iter().map(|(room, up_to)| Change::Forget { room, up_to }));
            }
            self.people.step(upkept, OVER_KEPT, None)?;
            let sessions = people::oldest_guests_beyond(&upkept.storage.people, GUESTS_KEPT_MAX)?;
            if !sessions.is_empty() {
                upkept.apply(vec![Change::ForgetSessions { sessions }])?;
            }
            let mut rooms = upkept.storage.memory.empty_rooms();
            rooms.retain(|room| !upkept.has_connections(room));
            if !rooms.is_empty() {
                upkept.apply(vec![Change::ForgetRooms { rooms }])?;
            }
        }
        if changes.is_empty() { Ok(()) } else { upkept.apply(changes) }
    }
}

#[cfg(test)]
impl Store {
    /// For tests: reads or damages what is stored.
    pub fn on_connection<T>(&self, act: impl FnOnce(&Connection) -> T) -> T {
        match &self.backend {
            Backend::File { storage, .. } => act(&storage.connection),
            Backend::Memory { people, .. } => act(&super::locked(people)),
        }
    }

    /// For tests: the disk has room for this number of pages.
    pub fn fix_disk(&mut self, pages: u32) {
        let Backend::File { storage, upkeep, .. } = &mut self.backend else { return };
        upkeep.is_disk_fixed = true;
        storage.connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).expect("a bound");
    }

    /// For tests: the number of connections in a room.
    pub fn present(&self, room: &RoomId) -> usize {
        self.core.ledger.connections(room)
    }

    /// For tests: the policy that applies to the next entry.
    pub fn policy(&self) -> &super::PolicySnapshot {
        self.core.ledger.policy()
    }

    /// For tests: proposes the noted uses now.
    pub fn note_uses_now(&mut self) {
        report(self.note_uses());
    }
}

fn report(kept: Result<(), Fault>) {
    if let Err(fault) = kept {
        exit_on_sync_failure(&fault);
        log::warn!("failed to apply the retention and the size limit: {fault}");
    }
}

impl Core {
    fn new(clock: LogClock, connection: &Connection) -> Result<Self, Fault> {
        let policy = people::policy(connection, clock.shared().now().clock_ms)?;
        let published = Published::new(policy.clone());
        Ok(Self { log: Log::Local(clock), ledger: Ledger::new(policy), policy: published, own: Vec::new() })
    }

    /// Applies batches in one transaction. Publishes the policy if it may have changed, and logs what was done.
    fn apply(
        &mut self,
        storage: &mut impl Storage,
        batches: &[(Moment, Vec<Proposal>)],
    ) -> Result<Vec<Applied>, Fault> {
        let has = |is_one: fn(&Entry) -> bool| {
            batches.iter().any(|(_, batch)| batch.iter().any(|proposal| is_one(&proposal.entry)))
        };
        let before = self.ledger.policy().clone();
        // Most joins and leaves write nothing. One that does begins the transaction itself.
        if has(|entry| !matches!(entry, Entry::Join(_) | Entry::Leave { .. })) {
            storage.begin()?;
        }
        let applied = self.apply_all(storage, batches).and_then(|applied| {
            storage.commit(self.log.stored())?;
            Ok(applied)
        });
        if applied.is_err() {
            let clock_ms = batches.last().map_or(0, |(moment, _)| moment.clock_ms);
            self.ledger.restored(storage.roll_back(before, clock_ms));
        }
        let joined_with_events =
            |applied: &Applied| matches!(&applied.result, Outcome::Joined { events, .. } if !events.is_empty());
        let has_changes = has(|entry| matches!(entry, Entry::Change { .. }));
        if has_changes || applied.as_ref().is_ok_and(|applied| applied.iter().any(joined_with_events)) {
            self.policy.set(self.ledger.policy().clone());
        }
        for line in self.ledger.take_lines() {
            log::info!("{line}");
        }
        applied
    }

    fn apply_all(
        &mut self,
        storage: &mut impl Storage,
        batches: &[(Moment, Vec<Proposal>)],
    ) -> Result<Vec<Applied>, Fault> {
        self.ledger.begin();
        let mut all = Vec::new();
        for (moment, batch) in batches {
            let applied = self.ledger.apply(storage, batch, moment)?;
            if all.is_empty() {
                all = applied;
            } else {
                all.extend(applied);
            }
        }
        Ok(all)
    }

    /// Returns the results of batches. If they could not be stored, refuses all of them.
    fn or_refuse(
        &mut self,
        storage: &mut impl Storage,
        batches: Vec<(Moment, Vec<Proposal>)>,
        applied: Result<Vec<Applied>, Fault>,
    ) -> Vec<Applied> {
        let fault = match applied {
            Ok(applied) => return applied,
            Err(fault) => fault,
        };
        exit_on_sync_failure(&fault);
        let count: usize = batches.iter().map(|(_, batch)| batch.len()).sum();
        log::error!("failed to store {count} entries: {fault}");
        self.refuse(storage, batches, sqlite::reason_of(&fault))
    }

    fn refuse(
        &mut self,
        storage: &mut impl Storage,
        batches: Vec<(Moment, Vec<Proposal>)>,
        reason: Reason,
    ) -> Vec<Applied> {
        let refuse = |(moment, batch)| self.ledger.refuse(storage, batch, &moment, reason);
        batches.into_iter().flat_map(refuse).collect()
    }
}

/// A store as upkeep sees it.
struct Kept<'a, S> {
    core: &'a mut Core,
    storage: &'a mut S,
}

impl<S: Storage> Upkept for Kept<'_, S> {
    fn connection(&self) -> &Connection {
        self.storage.people()
    }

    fn has_connections(&self, room: &RoomId) -> bool {
        self.core.ledger.connections(room) > 0
    }

    fn clock_ms(&mut self) -> u64 {
        self.core.log.observe()
    }

    fn apply(&mut self, changes: Vec<Change>) -> Result<(), Fault> {
        let moment = self.core.log.next_moment();
        let entry = |change| Entry::Change { by: By::Server, change: Box::new(change) };
        let batch = changes.into_iter().map(|change| Proposal::unanswered(entry(change))).collect();
        let applied = self.core.apply(self.storage, &[(moment, batch)])?;
        // The effects on open connections go to the hub with the next batch.
        let has_events =
            |applied: &Applied| matches!(&applied.result, Outcome::Changed { events, .. } if !events.is_empty());
        self.core.own.extend(applied.into_iter().filter(has_events));
        Ok(())
    }
}

/// Applies one change of the operator to a database that no server has open.
///
/// # Errors
/// [`StartError`], if the database can't be used. The inner error is the reason why the change is refused.
pub fn propose_alone(path: &Path, change: Change) -> Result<Result<Done, Rejection>, StartError> {
    let (database, connection) = Database::open(path, Durability::Full)?;
    let (keep, reading) = (Keep::default(), Reading::now());
    let (mut store, reader) = Store::of_database(&Arc::new(database), connection, Durability::Full, keep, reading)?;
    let entry = Entry::Change { by: By::Operator, change: Box::new(change) };
    let applied = store.commit(vec![Proposal::unanswered(entry)]).pop().map(|applied| applied.result);
    reader.close();
    Ok(match applied {
        Some(Outcome::Changed { done, .. }) => Ok(done),
        Some(Outcome::Refused { rejection, .. }) => Err(rejection),
        _ => Err(Reason::Internal.into()),
    })
}

#[cfg(test)]
pub(super) mod scripted;
