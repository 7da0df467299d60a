//! A room as the hub knows it: who is in it, who is on the way in, and its latest frames.

use std::collections::VecDeque;

use crate::limits::{HISTORY_MAX, RING_BYTES_MAX};
use crate::model::{RoomId, Seq};
use crate::protocol::Replay;
use crate::store::{Past, Stored};

use super::state::MemberKey;

/// A room with members, or with somebody on the way in.
#[derive(Debug)]
pub struct Room {
    pub id: RoomId,
    pub members: Vec<MemberKey>,
    /// Members that are still being sent what was said before, and do not get what is said yet.
    pub catching_up: Vec<MemberKey>,
    /// How many people are here, each counted once however many connections they have.
    pub people: usize,
    /// Joins that are with the store. While there is one the room stays, as it is what they come back to.
    pub joining: usize,
    /// Known once the first join has come back from the store.
    past: Option<Ring>,
}

/// The latest frames, so that a join asks nobody. Shares its bytes with the store.
#[derive(Debug)]
struct Ring {
    head: Seq,
    frames: VecDeque<Stored>,
    bytes: usize,
}

/// What a frame takes beside its JSON, about.
const FRAME_OVERHEAD_BYTES: usize = 128;

impl Ring {
    fn push(&mut self, stored: Stored) {
        self.bytes += stored.json.len() + FRAME_OVERHEAD_BYTES;
        self.frames.push_back(stored);
        while self.frames.len() > HISTORY_MAX || (self.bytes > RING_BYTES_MAX && self.frames.len() > 1) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(oldest) = self.frames.pop_front() {
            self.bytes -= oldest.json.len() + FRAME_OVERHEAD_BYTES;
        }
    }
}

impl Room {
    pub fn new(id: RoomId) -> Self {
        Self { id, members: Vec::new(), catching_up: Vec::new(), people: 0, joining: 0, past: None }
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.catching_up.is_empty() && self.joining == 0
    }

    /// Who is here.
    pub fn everybody(&self) -> impl Iterator<Item = MemberKey> {
        self.members.iter().chain(&self.catching_up).copied()
    }

    pub fn knows_its_past(&self) -> bool {
        self.past.is_some()
    }

    /// Takes what the store says, unless it is known already: then this room has seen more than that.
    pub fn learn(&mut self, past: Past) {
        if self.past.is_none() {
            let mut ring = Ring { head: past.head, frames: VecDeque::new(), bytes: 0 };
            past.frames.into_iter().for_each(|stored| ring.push(stored));
            self.past = Some(ring);
        }
    }

    /// Bytes of the frames that are at hand.
    pub fn ring_bytes(&self) -> usize {
        self.past.as_ref().map_or(0, |ring| ring.bytes)
    }

    /// Forgets the frames from before a moment (milliseconds since 1970): they are kept no longer.
    pub fn forget_before(&mut self, since_ms: u64) {
        if let Some(ring) = &mut self.past {
            while ring.frames.front().is_some_and(|oldest| oldest.id.unix_ms() < since_ms) {
                ring.pop();
            }
        }
    }

    /// Forgets the older half of the frames that are at hand; the store has them.
    pub fn halve_ring(&mut self) {
        if let Some(ring) = &mut self.past {
            for _ in 0..ring.frames.len().div_ceil(2) {
                ring.pop();
            }
        }
    }

    /// The last place taken.
    pub fn head(&self) -> Seq {
        self.past.as_ref().map_or(Seq(0), |ring| ring.head)
    }

    /// Keeps a frame that the store gave its place.
    pub fn push(&mut self, stored: Stored) {
        if let Some(ring) = &mut self.past {
            debug_assert!(ring.head.next() == stored.seq, "{:?} behind {:?}", stored.seq, ring.head);
            ring.head = stored.seq;
            ring.push(stored);
        }
    }

    /// Puts a frame in the place of what it was, where that is at hand.
    pub fn replace(&mut self, stored: Stored) {
        if let Some(ring) = &mut self.past
            && let Some(frame) = ring.frames.iter_mut().find(|frame| frame.id == stored.id)
        {
            ring.bytes = ring.bytes + stored.json.len() - frame.json.len();
            *frame = stored;
        }
    }

    /// From behind which place somebody who joins now is sent what was said, and whether that begins behind a gap.
    /// `seen` is the place of the frame that they saw last, as the store knows it.
    pub fn replay_from(&self, wanted: Replay, seen: Option<Seq>) -> (Seq, bool) {
        let latest = Seq(self.head().0.saturating_sub(wanted.history as u64));
        match (wanted.after, seen) {
            (None, _) => (latest, false),
            (Some(_), Some(seen)) => (seen, false),
            (Some(_), None) => (latest, true),
        }
    }

    /// The frames behind a place, if all of them are at hand.
    pub fn frames_after(&self, place: Seq) -> Option<impl Iterator<Item = &Stored>> {
        let missing = match self.frames().next() {
            Some(first) => place.next() < first.seq,
            None => place < self.head(),
        };
        (!missing).then(|| self.frames().skip_while(move |frame| frame.seq <= place))
    }

    fn frames(&self) -> impl Iterator<Item = &Stored> {
        self.past.iter().flat_map(|ring| &ring.frames)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FrameId;
    use crate::protocol::After;

    fn stored(seq: u64) -> Stored {
        Stored { id: FrameId(uuid::Uuid::from_u128(u128::from(seq))), seq: Seq(seq), json: Vec::new().into() }
    }

    fn replayed(room: &Room, history: usize, after: Option<After>, seen: Option<u64>) -> (Option<Vec<u64>>, bool) {
        let (from, reset) = room.replay_from(Replay { history, after }, seen.map(Seq));
        (room.frames_after(from).map(|frames| frames.map(|frame| frame.seq.0).collect()), reset)
    }

    #[test]
    fn a_join_gets_the_latest_or_all_since_what_it_saw() {
        let mut room = Room::new(RoomId::parse("tea").unwrap());
        room.learn(Past { head: Seq(7), frames: vec![stored(6), stored(7)] });
        room.push(stored(8));
        room.learn(Past { head: Seq(7), frames: Vec::new() });
        assert_eq!(room.head(), Seq(8));
        let id = Some(After::Id(stored(1).id));
        for (history, after, seen, replay, reset) in [
            (2, None, None, Some(vec![7, 8]), false),
            (0, None, None, Some(vec![]), false),
            (9, None, None, None, false),
            (1, id, Some(6), Some(vec![7, 8]), false),
            (1, id, Some(8), Some(vec![]), false),
            (1, id, Some(5), Some(vec![6, 7, 8]), false),
            (1, id, Some(4), None, false),
            (1, id, None, Some(vec![8]), true),
            (3, Some(After::Unknown), None, Some(vec![6, 7, 8]), true),
        ] {
            assert_eq!(replayed(&room, history, after, seen), (replay, reset), "{history} {after:?} {seen:?}");
        }
    }

    #[test]
    fn what_is_not_at_hand_is_asked_of_the_store() {
        let mut room = Room::new(RoomId::parse("tea").unwrap());
        room.learn(Past { head: Seq(7), frames: Vec::new() });
        assert_eq!(replayed(&room, 5, None, None), (None, false));
        assert_eq!(replayed(&room, 0, None, None), (Some(vec![]), false));
    }

    #[test]
    fn large_frames_are_fewer() {
        let mut room = Room::new(RoomId::parse("tea").unwrap());
        room.learn(Past::default());
        for seq in 1..=20 {
            room.push(Stored { json: vec![b'x'; 50_000].into(), ..stored(seq) });
        }
        assert!(room.ring_bytes() <= RING_BYTES_MAX && room.ring_bytes() > RING_BYTES_MAX / 2);
        assert_eq!(replayed(&room, 3, None, None), (Some(vec![18, 19, 20]), false));
        assert_eq!(replayed(&room, 20, None, None).0.map(|frames| frames.len()), None, "the store has the others");
        while room.ring_bytes() > 0 {
            room.halve_ring();
        }
        assert_eq!(room.head(), Seq(20));
        assert_eq!(replayed(&room, 1, None, None), (None, false));
    }

    #[test]
    fn what_is_too_old_is_not_at_hand() {
        let mut room = Room::new(RoomId::parse("tea").unwrap());
        room.learn(Past::default());
        for seq in 1..=4 {
            let id = FrameId(uuid::Uuid::from_u128(u128::from(seq * 1_000) << 80));
            room.push(Stored { id, ..stored(seq) });
        }
        room.forget_before(3_000);
        assert_eq!(replayed(&room, 2, None, None), (Some(vec![3, 4]), false));
        assert_eq!(replayed(&room, 3, None, None), (None, false));
        room.forget_before(9_000);
        assert_eq!((room.head(), room.ring_bytes()), (Seq(4), 0));
    }

    #[test]
    fn the_ring_is_bounded() {
        let mut room = Room::new(RoomId::parse("tea").unwrap());
        room.learn(Past::default());
        for seq in 1..=HISTORY_MAX as u64 + 10 {
            room.push(stored(seq));
        }
        let frames = replayed(&room, HISTORY_MAX, None, None).0.unwrap();
        assert_eq!((frames.len(), frames[0]), (HISTORY_MAX, 11));
    }
}
