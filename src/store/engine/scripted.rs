//! A store for tests. The test gives its moments, its clock stands still between them, and all its contents can be
//! compared.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::super::log::clock::Stored as Position;
use super::super::policy::PolicySnapshot;
use super::*;
use crate::limits::BATCH_NUMBERS_SKIPPED;
use crate::model::{Seq, UserId};
use crate::store::ledger::Storage;
use crate::store::sqlite::people::Banned;
use crate::store::sqlite::search;

pub struct ScriptedStore {
    store: Store,
    reader: Reader,
    file: Option<PathBuf>,
    moment: Moment,
}

/// Longer than any test. The monotonic clock of a started store stands still until then.
const FAR: Duration = Duration::from_secs(7 * 24 * 3_600);

fn still(wall_ms: u64) -> Reading {
    Reading { at: Instant::now() + FAR, wall_ms }
}

impl ScriptedStore {
    /// Opens the store of a file, and creates the file if there is none. An existing log continues where it stopped.
    pub fn of_file(path: &Path, moment: Moment) -> Self {
        let (store, reader) = Self::open(path, moment);
        Self { store, reader, file: Some(path.to_owned()), moment }
    }

    pub fn in_memory(moment: Moment) -> Self {
        let (store, reader) = Store::in_memory(Keep::default(), still(moment.clock_ms)).unwrap();
        Self { store, reader, file: None, moment }
    }

    fn open(path: &Path, moment: Moment) -> (Store, Reader) {
        let (database, connection) = Database::open(path, Durability::Normal).unwrap();
        let (database, reading) = (Arc::new(database), still(moment.clock_ms));
        Store::of_database(&database, connection, Durability::Normal, Keep::default(), reading).unwrap()
    }

    /// Closes the file and opens it again, as a new process does.
    pub fn reopen(&mut self) {
        let path = self.file.clone().expect("only a file can be opened again");
        // A store in memory takes the place of the open file, so that the file is closed first.
        *self = Self::in_memory(self.moment);
        *self = Self::of_file(&path, self.moment);
        // The file has the time of its last write. Batches that wrote nothing may have come after it.
        self.set_clock();
    }

    /// Applies batches of the log in one transaction.
    pub fn apply(&mut self, batches: Vec<(Moment, Vec<Proposal>)>) -> Vec<Applied> {
        if let Some((moment, _)) = batches.last() {
            self.moment = *moment;
            self.set_clock();
        }
        self.store.apply(batches)
    }

    /// Sets the log clock to the moment, so that the transaction stores that moment.
    fn set_clock(&mut self) {
        let Moment { clock_ms, wall_ms, index, .. } = self.moment;
        let position = Position { clock_ms, wall_ms, index: index.saturating_sub(BATCH_NUMBERS_SKIPPED) };
        let clock = LogClock::resume(Some(position), None, still(wall_ms));
        self.reader = self.reader.clone().with_clock(clock.shared());
        self.store.core.log = Log::Local(clock);
    }

    /// Adds messages to the word index of a file, as upkeep does.
    pub fn index(&mut self, messages_max: usize) {
        if let Backend::File { storage, .. } = &self.store.backend {
            let transaction = storage.connection.unchecked_transaction().unwrap();
            search::follow(&transaction, messages_max, usize::MAX).unwrap();
            transaction.commit().unwrap();
            assert_eq!(search::wrong_counts(&storage.connection, 9).unwrap(), []);
        }
    }

    /// Removes expired rows, as upkeep does.
    pub fn forget_what_is_over(&mut self) {
        self.with_storage(|storage| people::forget_what_is_over(storage.people(), storage.clock_ms).unwrap());
    }

    /// The log time of the last batch.
    pub fn clock_ms(&self) -> u64 {
        self.moment.clock_ms
    }

    pub fn policy(&self) -> &PolicySnapshot {
        self.store.core.ledger.policy()
    }

    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    pub fn connections(&self, room: &RoomId) -> usize {
        self.store.core.ledger.connections(room)
    }

    /// The head and the floor of a room.
    pub fn order(&mut self, room: &RoomId) -> Option<(Seq, Seq)> {
        self.with_storage(|storage| storage.room(room).map(|row| (row.head, row.floor)))
    }

    /// The rows of all tables in `people` that still count.
    pub fn people(&mut self) -> Vec<String> {
        self.with_storage(|storage| people::dump(storage.people(), storage.clock_ms).unwrap())
    }

    /// The errors that SQLite finds in the file; "ok" if there are none.
    pub fn integrity(&mut self) -> Vec<String> {
        self.with_storage(|storage| people::integrity(storage.people()).unwrap())
    }

    fn with_storage<T>(&mut self, act: impl FnOnce(&mut AnyStorage<'_>) -> T) -> T {
        let clock_ms = self.moment.clock_ms;
        match &mut self.store.backend {
            Backend::File { storage, .. } => act(&mut AnyStorage { messages: AnyMessages::File(storage), clock_ms }),
            Backend::Memory { messages, people, .. } => {
                let storage = MemoryStorage::lock(messages, people);
                act(&mut AnyStorage { messages: AnyMessages::Memory(storage), clock_ms })
            }
        }
    }
}

struct AnyStorage<'a> {
    messages: AnyMessages<'a>,
    clock_ms: u64,
}

enum AnyMessages<'a> {
    File(&'a mut SqliteStorage),
    Memory(MemoryStorage<'a>),
}

impl AnyStorage<'_> {
    fn people(&self) -> &Connection {
        match &self.messages {
            AnyMessages::File(storage) => storage.people(),
            AnyMessages::Memory(storage) => storage.people(),
        }
    }

    fn room(&mut self, room: &RoomId) -> Option<crate::store::ledger::RoomRow> {
        match &mut self.messages {
            AnyMessages::File(storage) => storage.room(room).unwrap(),
            AnyMessages::Memory(storage) => storage.room(room).unwrap(),
        }
    }
}

impl PolicySnapshot {
    /// Everything that counts at a log time, as text in a fixed order.
    pub fn shown_at(&self, clock_ms: u64) -> Vec<String> {
        let mut lines = vec![format!("flags {:?}, key {:?}", self.flags, self.guest_key.as_bytes())];
        lines.extend(self.rooms.iter().map(|(room, settings)| format!("room {room}: {settings:?}")));
        let members =
            self.members().flat_map(|(room, users)| users.iter().map(move |(user, floor)| (room, user, floor)));
        lines.extend(members.map(|(room, user, floor)| format!("member of {room}: {user} above {floor:?}")));
        lines.extend(self.roles.iter().map(|(user, role)| format!("role of {user}: {role}")));
        let muted = |user: &UserId| Some(format!("muted {user} until {}", self.muted_until(*user, clock_ms)?));
        lines.extend(self.muted.keys().filter_map(muted));
        let banned = |(banned, until_ms): (&Banned, &Option<u64>)| {
            self.is_banned(*banned, clock_ms).then(|| format!("banned {banned:?} until {until_ms:?}"))
        };
        lines.extend(self.banned.iter().filter_map(banned));
        lines.sort();
        lines
    }
}
