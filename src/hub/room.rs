//! A room as the hub knows it: who is in it, who is on the way in, and its latest frames.

use std::collections::VecDeque;

use crate::limits::HISTORY_MAX;
use crate::model::{RoomId, Seq};
use crate::protocol::{After, Replay};
use crate::store::{Past, Stored};

use super::state::MemberKey;

/// A room with members, or with somebody on the way in.
#[derive(Debug)]
pub struct Room {
    pub id: RoomId,
    pub members: Vec<MemberKey>,
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
}

impl Room {
    pub fn new(id: RoomId) -> Self {
        Self { id, members: Vec::new(), joining: 0, past: None }
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.joining == 0
    }

    pub fn knows_its_past(&self) -> bool {
        self.past.is_some()
    }

    /// Takes what the store says, unless it is known already: then this room has seen more than that.
    pub fn learn(&mut self, past: Past) {
        self.past.get_or_insert_with(|| Ring { head: past.head, frames: past.frames.into() });
    }

    /// The last place taken.
    pub fn head(&self) -> Seq {
        self.past.as_ref().map_or(Seq(0), |ring| ring.head)
    }

    /// Keeps a frame that the store gave its place.
    pub fn push(&mut self, stored: Stored) {
        if let Some(ring) = &mut self.past {
            debug_assert_eq!(ring.head.next(), stored.seq);
            ring.head = stored.seq;
            if ring.frames.len() == HISTORY_MAX {
                ring.frames.pop_front();
            }
            ring.frames.push_back(stored);
        }
    }

    /// What somebody who joins now is sent of the past, and whether it begins behind a gap.
    pub fn replay(&self, wanted: Replay) -> (impl Iterator<Item = &Stored>, bool) {
        let frames = self.past.as_ref().map(|ring| &ring.frames);
        let held = frames.map_or(0, VecDeque::len);
        let latest = held.saturating_sub(wanted.history);
        let (from, reset) = match wanted.after {
            None => (latest, false),
            Some(After::Unknown) => (latest, true),
            Some(After::Id(id)) => match frames.and_then(|frames| frames.iter().rposition(|frame| frame.id == id)) {
                Some(seen) => (seen + 1, false),
                None => (latest, true),
            },
        };
        (frames.into_iter().flat_map(move |frames| frames.range(from..)), reset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FrameId;

    fn stored(seq: u64) -> Stored {
        Stored { id: FrameId(uuid::Uuid::from_u128(u128::from(seq))), seq: Seq(seq), json: Vec::new().into() }
    }

    fn replayed(room: &Room, history: usize, after: Option<After>) -> (Vec<u64>, bool) {
        let (frames, reset) = room.replay(Replay { history, after });
        (frames.map(|frame| frame.seq.0).collect(), reset)
    }

    #[test]
    fn a_join_gets_the_latest_or_all_since_what_it_saw() {
        let mut room = Room::new(RoomId::parse("tea").unwrap());
        room.learn(Past { head: Seq(7), frames: vec![stored(6), stored(7)] });
        room.push(stored(8));
        room.learn(Past { head: Seq(7), frames: Vec::new() });
        assert_eq!(room.head(), Seq(8));
        let seen = |seq| Some(After::Id(stored(seq).id));
        assert_eq!(replayed(&room, 2, None), (vec![7, 8], false));
        assert_eq!(replayed(&room, 0, None), (vec![], false));
        assert_eq!(replayed(&room, 1, seen(6)), (vec![7, 8], false));
        assert_eq!(replayed(&room, 1, seen(8)), (vec![], false));
        assert_eq!(replayed(&room, 1, seen(5)), (vec![8], true));
        assert_eq!(replayed(&room, 9, Some(After::Unknown)), (vec![6, 7, 8], true));
    }

    #[test]
    fn the_ring_is_bounded() {
        let mut room = Room::new(RoomId::parse("tea").unwrap());
        room.learn(Past::default());
        for seq in 1..=HISTORY_MAX as u64 + 10 {
            room.push(stored(seq));
        }
        let (frames, _) = replayed(&room, usize::MAX, None);
        assert_eq!((frames.len(), frames[0]), (HISTORY_MAX, 11));
    }
}
