//! The property of the ledger: the batch, its moment and the state alone decide what a batch does.
//!
//! Random batches go to three stores. The first is a file with a transaction for each batch. The second is a file with
//! several batches in a transaction, and is closed and reopened at intervals. The third is memory. The word indexes of the
//! files follow at different paces. All give the same answers and end with the same contents. The run continues until each kind of entry was accepted, and refused for
//! each of its reasons, as often as the table wants.

mod regressions;
mod table;
mod world;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::super::engine::scripted::ScriptedStore;
use super::super::entry::{Applied, Entry, Outcome, Proposal};
use super::super::log::clock::Moment;
use super::super::testing::page;
use super::super::{Kinds, ReadError, Side};
use crate::limits::{BATCH_NUMBERS_SKIPPED, HISTORY_MAX};
use crate::model::Seq;
use table::{Kind, Table, Verdict};
use world::{WORDS, World};

/// The minimum of batches, and the number after which missing outcomes fail the test.
const BATCHES_MIN: usize = 2_000;
const BATCHES_MAX: usize = 20_000;
/// How many admins must register by a setup link.
const SETUPS_USED_MIN: u32 = 10;
/// Batches between two comparisons of all contents.
const BATCHES_PER_COMPARISON: usize = 100;
/// The maximum of log batches in a transaction of the second store.
const BATCHES_PER_TRANSACTION_MAX: usize = 12;
/// The second store restarts after this many batches, on average.
const RESTART_ONCE_IN: u64 = 40;
/// 2026-01-01.
const BEGIN_MS: u64 = 1_767_225_600_000;

type Batch = (Moment, Vec<Proposal>);

fn copy((moment, batch): &Batch) -> Batch {
    (*moment, batch.iter().map(copy_of).collect())
}

fn copy_of(proposal: &Proposal) -> Proposal {
    Proposal { entry: proposal.entry.clone(), reply_to: proposal.reply_to.clone() }
}

/// The three stores, and the batches and results that the second store has yet to match.
struct Stores {
    plain: ScriptedStore,
    grouped: ScriptedStore,
    memory: ScriptedStore,
    pending: Vec<Batch>,
    expected: Vec<Applied>,
}

impl Stores {
    fn new(directory: &Path, moment: Moment) -> Self {
        Self {
            plain: ScriptedStore::of_file(&directory.join("plain.db"), moment),
            grouped: ScriptedStore::of_file(&directory.join("grouped.db"), moment),
            memory: ScriptedStore::in_memory(moment),
            pending: Vec::new(),
            expected: Vec::new(),
        }
    }

    /// Applies a batch to the first store and to memory. The second store gets it with its next transaction.
    fn apply(&mut self, batch: Batch) -> Vec<Applied> {
        let applied = self.plain.apply(vec![copy(&batch)]);
        let in_memory = self.memory.apply(vec![copy(&batch)]);
        same("memory", &[copy(&batch)], (&mut self.plain, &applied), (&mut self.memory, &in_memory));
        self.pending.push(batch);
        self.expected.extend(applied.iter().cloned());
        applied
    }

    fn flush(&mut self) {
        let applied = self.grouped.apply(self.pending.iter().map(copy).collect());
        same("grouped", &self.pending, (&mut self.plain, &self.expected), (&mut self.grouped, &applied));
        self.pending.clear();
        self.expected.clear();
    }

    /// Compares all contents of the stores.
    fn compare(&mut self, world: &World, moment: Moment) {
        self.flush();
        for store in [&mut self.plain, &mut self.grouped] {
            assert_eq!(store.integrity(), ["ok"]);
        }
        let plain = contents(&mut self.plain, world, moment);
        for (which, store) in [("grouped", &mut self.grouped), ("memory", &mut self.memory)] {
            let other = contents(store, world, moment);
            assert!(plain == other, "{which} {}", difference(&plain, &other));
        }
    }
}

/// Compares the results of two stores for the same batches.
fn same(
    which: &str,
    batches: &[Batch],
    plain: (&mut ScriptedStore, &[Applied]),
    other: (&mut ScriptedStore, &[Applied]),
) {
    let ((plain, expected), (other, applied)) = (plain, other);
    assert_eq!(expected.len(), applied.len(), "{which}");
    for (expected, found) in expected.iter().zip(applied) {
        if expected.result != found.result || expected.reply_to != found.reply_to {
            let difference = difference(&state(plain), &state(other));
            let sent: String = batches.iter().map(|(moment, batch)| format!("{moment:?} {batch:#?}\n")).collect();
            panic!("{sent}{which} answers\n{found:?}, and not\n{expected:?}\n{difference}");
        }
    }
}

type Contents = BTreeMap<&'static str, Vec<String>>;

fn difference(expected: &Contents, found: &Contents) -> String {
    let mut text = String::new();
    for (what, lines) in expected {
        let others = &found[what];
        let only = |these: &[String], those: &[String]| -> Vec<String> {
            these.iter().filter(|line| !those.contains(line)).cloned().collect()
        };
        if lines != others {
            text += &format!("{what}: missing {:#?}, and too much {:#?}\n", only(lines, others), only(others, lines));
        }
    }
    text
}

/// The state by which a store decides.
fn state(store: &mut ScriptedStore) -> Contents {
    let clock_ms = store.clock_ms();
    let rooms: Vec<_> = world::rooms().map(|room| format!("{} in {room}", store.connections(&room))).collect();
    BTreeMap::from([
        ("rows", store.people()),
        ("policy of the ledger", store.policy().shown_at(clock_ms)),
        ("policy of readers", store.reader().policy().shown_at(clock_ms)),
        ("connections", rooms),
    ])
}

/// All contents of a store, and all that a reader sees of them.
fn contents(store: &mut ScriptedStore, world: &World, moment: Moment) -> Contents {
    assert_eq!(store.clock_ms(), moment.clock_ms);
    let mut all = state(store);
    let orders = world.all_rooms.iter().map(|room| format!("{room}: {:?}", store.order(room))).collect();
    all.insert("orders", orders);
    let read = store.reader().view(|view| {
        let shown = |lines: &mut Vec<String>, what: &dyn std::fmt::Debug| lines.push(format!("{what:?}"));
        let mut lines = Vec::new();
        shown(&mut lines, &view.rooms(None, 1_000)?);
        for room in &world.all_rooms {
            shown(&mut lines, &(room, view.room(room)?, view.head(room)?, view.invitations(Some(room))?));
            let frames = view.page(room, Side::After(Seq(0)), Kinds::All, 10 * HISTORY_MAX)?;
            for stored in &frames {
                shown(&mut lines, &(room, stored.seq, stored.id, String::from_utf8_lossy(&stored.json)));
            }
            if let Some(last) = frames.last() {
                shown(
                    &mut lines,
                    &(view.seq_of(room, last.id)?, view.page(room, Side::Before(last.seq), Kinds::All, 2)?),
                );
            }
        }
        for user in &world.users {
            shown(&mut lines, &(user, view.user(*user)?, view.account(*user)?, view.rooms_of(*user)?));
            shown(&mut lines, &(user, view.sessions(*user)?, view.stored_guest(*user)?));
        }
        for token in &world.token_hashes {
            let session = view.session(*token)?;
            let was_theirs = session.as_ref().map(|session| view.was_session_of(*token, session.user)).transpose()?;
            shown(&mut lines, &(session, was_theirs));
        }
        let setup = world.setup.map(|setup| view.registration_code(setup.code_hash)).transpose()?;
        shown(&mut lines, &(view.bans()?, view.invitations(None)?, setup, view.audit_entries(None, 1_000)?));
        Ok::<_, ReadError>(lines)
    });
    all.insert("what a reader sees", read.unwrap());
    let mut found = Vec::new();
    for room in &world.all_rooms {
        for word in WORDS {
            let latest = Side::Before(Seq(u64::MAX >> 1));
            let page = page(store.reader(), room, latest, Kinds::Messages, 10 * HISTORY_MAX, Some(word));
            found.push(format!("{room} {word} {:?}", page.iter().map(|stored| stored.seq.0).collect::<Vec<_>>()));
        }
    }
    all.insert("what a search finds", found);
    all
}

fn seed() -> u64 {
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| u64::from(since.subsec_nanos()));
    std::env::var("ADDA_SEED").map_or_else(|_| clock(), |text| text.parse().expect("ADDA_SEED is a number"))
}

#[test]
fn three_stores_agree_on_random_batches() {
    let seed = seed();
    println!("ADDA_SEED={seed}");
    let directory = tempfile::tempdir().unwrap();
    let begin = Moment { clock_ms: BEGIN_MS, wall_ms: BEGIN_MS, index: BATCH_NUMBERS_SKIPPED, ahead_ms: 0 };
    let mut stores = Stores::new(directory.path(), begin);
    let mut world = World::new(seed, begin, stores.plain.policy().clone());
    let mut table = Table::new();
    let all: Vec<_> = table.all().collect();
    let first = world.first();
    stores.apply((begin, first));
    let (mut batches, mut restarts) = (0, 0);
    loop {
        let mut missing = table.missing();
        if world.setups_used < SETUPS_USED_MIN {
            missing.push((Kind::Register, Verdict::Accepted));
        }
        if batches >= BATCHES_MAX || batches >= BATCHES_MIN && missing.is_empty() {
            break;
        }
        batches += 1;
        let moment = world.tick();
        let restarts_now = world.random.once_in(RESTART_ONCE_IN);
        let batch = if restarts_now {
            world.all_leave()
        } else if world.is_full() {
            world.batch(stores.plain.policy().clone(), &[(Kind::Forget, Verdict::Accepted)])
        } else {
            let aims = if missing.is_empty() || world.random.once_in(3) { &all } else { &missing };
            world.batch(stores.plain.policy().clone(), aims)
        };
        let sent: Vec<_> = batch.iter().map(|proposal| proposal.entry.clone()).collect();
        let applied = stores.apply((moment, batch));
        learn(&mut world, &mut table, &sent, applied);
        for room in &world.all_rooms {
            let connections = stores.plain.connections(room);
            assert_eq!(connections, world.connections(room), "connections in {room} behind {sent:#?}");
        }
        if restarts_now {
            stores.flush();
            stores.grouped.reopen();
            restarts += 1;
        } else if stores.pending.len() > world.random.below(BATCHES_PER_TRANSACTION_MAX) {
            stores.flush();
            if world.random.once_in(10) {
                stores.grouped.forget_what_is_over();
            }
            // One index follows closely, and the other now and then.
            stores.plain.index(usize::MAX >> 1);
            if world.random.once_in(3) {
                stores.grouped.index(1 + world.random.below(30));
            }
        }
        if batches.is_multiple_of(BATCHES_PER_COMPARISON) {
            stores.compare(&world, moment);
        }
    }
    let moment = world.tick();
    stores.apply((moment, world.all_leave()));
    stores.flush();
    stores.grouped.reopen();
    stores.compare(&world, moment);
    println!("{batches} batches, {restarts} restarts, {} setup links used\n{table}", world.setups_used);
    let missing = table.missing();
    assert!(missing.is_empty(), "not often enough: {missing:?}");
    assert!(world.setups_used >= SETUPS_USED_MIN, "{} setup links used", world.setups_used);
}

/// Passes the results of a batch to the world and the table.
fn learn(world: &mut World, table: &mut Table, sent: &[Entry], applied: Vec<Applied>) {
    let mut applied = applied.into_iter().map(|applied| applied.result);
    for entry in sent {
        let Some(first) = applied.next() else { panic!("no result for {entry:?}") };
        let (kind, verdict) = (Kind::of(entry), Verdict::of(&first));
        let mut outcomes = vec![first];
        if let (Entry::Announcement { rooms, .. }, Verdict::Accepted) = (entry, verdict) {
            outcomes.extend(applied.by_ref().take(rooms.len() - 1));
            let is_stored = |outcome: &Outcome| matches!(outcome, Outcome::Stored { .. });
            assert!(outcomes.len() == rooms.len() && outcomes.iter().all(is_stored), "{entry:?}: {outcomes:?}");
        }
        assert!(table.count(kind, verdict), "no row for {kind:?}, {verdict:?}: {entry:?}\n{outcomes:?}");
        world.learn(entry, &outcomes);
    }
    assert!(applied.next().is_none(), "more results than entries");
}
