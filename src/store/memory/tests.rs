//! The bounds of the storage in memory.

use std::sync::Mutex;
use std::time::Duration;

use super::super::change::Change;
use super::super::entry::{By, Entry, Join, Outcome};
use super::super::ledger::Ledger;
use super::super::log::clock::Moment;
use super::super::sqlite::people;
use super::super::testing::{self, change, message, nonce, proposals, room, stranger};
use super::*;

/// The storage, and the ledger that applies entries to it.
struct Rig {
    memory: Mutex<Memory>,
    people: Mutex<Connection>,
    ledger: Ledger,
    moment: Moment,
}

impl Rig {
    fn new(keep: Keep) -> Self {
        let people = people::in_memory().unwrap();
        let ledger = Ledger::new(people::policy(&people, 0).unwrap());
        let moment = Moment { clock_ms: 1_000_000, wall_ms: 5_000_000, index: 1, ahead_ms: 4_000_000 };
        Self { memory: Mutex::new(Memory::new(keep)), people: Mutex::new(people), ledger, moment }
    }

    fn apply(&mut self, entries: Vec<Entry>) -> Vec<Outcome> {
        let mut storage = MemoryStorage { memory: self.memory.lock().unwrap(), people: self.people.lock().unwrap() };
        self.moment.index += 1;
        let applied = self.ledger.apply(&mut storage, &proposals(entries), &self.moment).unwrap();
        applied.into_iter().map(|applied| applied.result).collect()
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap()
    }

    fn forget(&mut self, rooms: Vec<(RoomId, Seq)>) {
        let forget = |(room, up_to)| change(By::Server, Change::Forget { room, up_to });
        self.apply(rooms.into_iter().map(forget).collect());
    }

    fn forget_empty_rooms(&mut self) {
        let rooms = self.memory().empty_rooms();
        self.apply(vec![change(By::Server, Change::ForgetRooms { rooms })]);
    }

    /// Does what the store does after a batch.
    fn keep(&mut self) {
        let excess = self.memory().excess();
        self.apply(excess.into_iter().map(|made| change(By::Server, made)).collect());
    }
}

fn name(number: usize) -> String {
    format!("room {number}")
}

fn said(number: usize) -> Entry {
    Entry::Message(message(&name(number), &stranger(1), &"x".repeat(200)))
}

fn join(number: usize, known: Option<Seq>) -> Entry {
    let Entry::Join(join) = testing::join(&name(number), &stranger(2)) else { unreachable!() };
    Entry::Join(Join { known, ..join })
}

fn leave(number: usize) -> Entry {
    testing::leave(&name(number), &stranger(2))
}

fn seq(outcomes: &[Outcome]) -> u64 {
    match outcomes.last() {
        Some(Outcome::Stored { stored, .. }) => stored.seq.0,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_room_keeps_its_latest_frames() {
    let mut rig = Rig::new(Keep::default());
    for number in 0..HISTORY_MAX + 50 {
        let message = message(&name(1), &stranger(1), "hi").with_nonce(&format!("{number}"));
        rig.apply(vec![Entry::Message(message)]);
    }
    let (page, _) = page(&rig.memory, &room(&name(1)), Side::After(Seq(0)), 9_999.into(), None, |_| true);
    let memory = rig.memory();
    assert_eq!((page.len(), page[0].seq), (HISTORY_MAX, Seq(51)));
    assert_eq!(memory.bytes, page.iter().map(|stored| stored.json.len() + FRAME_OVERHEAD_BYTES).sum::<usize>());
    assert_eq!(memory.nonces.len(), HISTORY_MAX, "a nonce goes with its frame");
    assert!(!memory.nonces.contains_key(&(stranger(1).user(), nonce("49"))));
}

#[test]
fn a_reader_holds_no_lock_while_it_compares_frames() {
    let mut rig = Rig::new(Keep::default());
    rig.apply((0..HISTORY_MAX).map(|_| said(1)).collect());
    let memory = &rig.memory;
    let is_free = |_: &Stored| memory.try_lock().is_ok();
    for side in [Side::Before(Seq(u64::MAX)), Side::After(Seq(0))] {
        assert!(memory.lock().unwrap().frames(&room(&name(1)), side).len() <= MEMORY_FRAMES_AT_ONCE);
        let (page, stopped_at) = page(memory, &room(&name(1)), side, 9_999.into(), None, is_free);
        assert_eq!((page.len(), stopped_at), (HISTORY_MAX, None));
    }
}

#[test]
fn the_largest_rooms_lose_their_oldest_frames() {
    let mut rig = Rig::new(Keep { bytes_max: Some(100_000), retention: None });
    rig.apply(vec![said(0), said(0), said(0)]);
    for _ in 0..100 {
        rig.apply(vec![said(1), said(2)]);
        rig.keep();
        assert!(rig.memory().bytes <= 100_000);
    }
    let seqs = |rig: &Rig, number: usize| -> Vec<u64> {
        rig.memory().rooms[&room(&name(number))].frames.iter().map(|kept| kept.stored.seq.0).collect()
    };
    assert_eq!(seqs(&rig, 0), [1, 2, 3], "the quiet room keeps its own");
    let (one, two) = (seqs(&rig, 1), seqs(&rig, 2));
    assert_eq!((one.last(), two.last()), (Some(&100), Some(&100)));
    assert!(one.len().abs_diff(two.len()) <= 10 && one.len() > 20, "{} and {}", one.len(), two.len());
    let sum: usize = rig.memory().rooms.values().map(|room| room.bytes).sum();
    assert_eq!(sum, rig.memory().bytes);
}

#[test]
fn an_author_that_floods_a_shared_room_loses_its_texts_first() {
    let mut rig = Rig::new(Keep { bytes_max: Some(400_000), retention: None });
    let text = |author: u128, length: usize| message(&name(1), &stranger(author), &"x".repeat(length));
    // Before and between the flooder's messages there are those of others.
    rig.apply(vec![Entry::Message(text(1, 20_000)), Entry::Message(text(2, 20)), Entry::Message(text(3, 20))]);
    for number in 4..=50 {
        let author = if number % 10 == 0 { 2 } else { 1 };
        rig.apply(vec![Entry::Message(text(author, if author == 1 { 20_000 } else { 20 }))]);
        rig.keep();
        assert!(rig.memory().bytes <= 400_000);
    }
    let memory = rig.memory();
    let room = &memory.rooms[&room(&name(1))];
    let shown: Vec<_> = room.frames.iter().map(|kept| (kept.stored.seq.0, kept.message().unwrap())).collect();
    assert_eq!(
        shown.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(),
        (2..=50).collect::<Vec<_>>(),
        "only its first went"
    );
    for (seq, message) in shown {
        match (message.user == stranger(1).user(), seq) {
            (false, _) => assert_eq!(message.content.len(), 20, "{seq}"),
            (true, ..30) => assert!(message.content.is_empty() && message.deleted_ms.is_some(), "{seq}"),
            (true, 45..) => assert_eq!(message.content.len(), 20_000, "{seq}"),
            (true, _) => {}
        }
    }
    assert_eq!(room.bytes, room.frames.iter().map(Kept::cost).sum::<usize>());
    assert_eq!(memory.bytes, room.bytes);
}

#[test]
fn of_rooms_of_the_same_size_those_silent_longest_are_forgotten_first() {
    let mut rig = Rig::new(Keep { bytes_max: Some(100_000), retention: None });
    rig.apply(vec![join(100, None)]);
    // All names are equally long.
    for number in 100..300 {
        rig.apply(vec![said(number)]);
        rig.keep();
        assert!(rig.memory().bytes <= 100_000);
    }
    assert_eq!(rig.memory().room(&room(&name(101))), None, "gone");
    assert!(rig.memory().room(&room(&name(299))).is_some(), "the last to speak stays");
    let sum: usize = rig.memory().rooms.values().map(|room| room.bytes).sum();
    assert_eq!(sum, rig.memory().bytes);
    assert_eq!(seq(&rig.apply(vec![said(100)])), 2, "the order goes on while a connection is there");
}

#[test]
fn the_order_continues_while_the_hub_still_has_the_room() {
    let mut rig = Rig::new(Keep { bytes_max: Some(0), retention: None });
    rig.apply(vec![join(1, None), said(1), said(1), said(1)]);
    rig.keep();
    // The only member leaves and returns before the hub has dropped the room.
    rig.apply(vec![leave(1)]);
    assert_eq!(rig.memory().empty_rooms(), [room(&name(1))]);
    rig.forget_empty_rooms();
    assert!(rig.memory().rooms.is_empty());
    assert_eq!(seq(&rig.apply(vec![join(1, Some(Seq(3))), said(1)])), 4);
}

#[test]
fn expired_messages_are_forgotten() {
    let keep = Keep { retention: Some(Duration::from_secs(60)), bytes_max: None };
    let mut rig = Rig::new(keep);
    rig.apply(vec![said(1), join(2, None), said(2)]);
    let mut look = |after_ms: u64| {
        rig.moment.clock_ms = 1_000_000 + after_ms;
        let expired = rig.memory().expired(keep.since_ms(rig.moment.clock_ms));
        rig.forget(expired);
        rig.forget_empty_rooms();
        let memory = rig.memory();
        (memory.room(&room(&name(1))).is_some(), memory.bytes, memory.nonces.len(), memory.rooms.len())
    };
    assert!(look(50_000).0);
    assert_eq!(look(70_000), (false, 0, 0, 1), "a connection is in the other room");
}
