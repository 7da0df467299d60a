//! What the store keeps in memory: the latest frames of each room, and where each room's order stands.
//!
//! Bounded twice: so many frames to a room, and so many bytes in all, for which the rooms that were silent longest
//! pay first. A room with members is never forgotten, or its order would begin again under their eyes.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use crate::limits::{HISTORY_MAX, KEPT_BYTES_MAX};
use crate::model::{RoomId, Seq};

use super::{KeptRoom, Past, Stored};

/// What a frame takes beside its JSON, about, with its share of the room's own bookkeeping.
const FRAME_OVERHEAD_BYTES: usize = 512;

/// All that is kept.
pub struct Kept {
    rooms: BTreeMap<RoomId, Room>,
    bytes: usize,
    bytes_max: usize,
    /// Counts messages, to know which room spoke last.
    clock: u64,
}

#[derive(Default)]
struct Room {
    head: Seq,
    members: usize,
    frames: VecDeque<Stored>,
    bytes: usize,
    spoke_at: u64,
}

impl Kept {
    pub fn new() -> Self {
        Self::with_bytes_max(KEPT_BYTES_MAX)
    }

    fn with_bytes_max(bytes_max: usize) -> Self {
        Self { rooms: BTreeMap::new(), bytes: 0, bytes_max, clock: 0 }
    }

    /// Gives a message the room's next place and keeps what `encode` makes of it.
    pub fn append(&mut self, id: &RoomId, encode: impl FnOnce(Seq) -> Stored) -> Stored {
        let room = self.rooms.entry(id.clone()).or_default();
        let stored = encode(room.head.next());
        room.head = stored.seq;
        self.clock += 1;
        room.spoke_at = self.clock;
        let mut bytes = cost(&stored);
        room.frames.push_back(stored.clone());
        room.bytes += bytes;
        if room.frames.len() > HISTORY_MAX
            && let Some(oldest) = room.frames.pop_front()
        {
            let freed = cost(&oldest);
            room.bytes -= freed;
            // May be less than nothing for a moment; the sum is not.
            bytes = bytes.wrapping_sub(freed);
        }
        self.bytes = self.bytes.wrapping_add(bytes);
        stored
    }

    /// Somebody is in the room from here on.
    pub fn enter(&mut self, id: &RoomId) {
        self.rooms.entry(id.clone()).or_default().members += 1;
    }

    /// Somebody is no longer in the room. A room without members and messages is gone.
    pub fn exit(&mut self, id: &RoomId) {
        if let Some(room) = self.rooms.get_mut(id) {
            room.members = room.members.saturating_sub(1);
            if room.members == 0 && room.frames.is_empty() {
                self.rooms.remove(id);
            }
        }
    }

    /// What is kept of a room.
    pub fn past(&self, id: &RoomId) -> Past {
        self.rooms
            .get(id)
            .map_or_else(Past::default, |room| Past { head: room.head, frames: room.frames.iter().cloned().collect() })
    }

    /// The rooms with messages, ordered by id.
    pub fn rooms(&self, after: Option<&RoomId>, limit: usize) -> Vec<KeptRoom> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let spoken = self.rooms.range((from, Bound::Unbounded)).filter(|(_, room)| !room.frames.is_empty());
        spoken.take(limit).map(|(id, room)| KeptRoom { id: id.clone(), head: room.head }).collect()
    }

    /// One room with messages.
    pub fn room(&self, id: &RoomId) -> Option<KeptRoom> {
        let room = self.rooms.get(id).filter(|room| !room.frames.is_empty())?;
        Some(KeptRoom { id: id.clone(), head: room.head })
    }

    /// Past the bound, forgets the rooms that were silent longest, with an eighth to spare, so that the search
    /// through all rooms is rare.
    pub fn forget_oldest(&mut self) {
        if self.bytes <= self.bytes_max {
            return;
        }
        let mut silent: Vec<_> = self.rooms.iter().map(|(id, room)| (room.spoke_at, id.clone())).collect();
        silent.sort_unstable();
        for (_, id) in silent {
            if self.bytes <= self.bytes_max / 8 * 7 {
                return;
            }
            if let Some(room) = self.rooms.get_mut(&id) {
                self.bytes -= room.bytes;
                room.bytes = 0;
                room.frames = VecDeque::new();
                if room.members == 0 {
                    self.rooms.remove(&id);
                }
            }
        }
    }
}

fn cost(stored: &Stored) -> usize {
    stored.json.len() + FRAME_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FrameId;

    fn room(number: usize) -> RoomId {
        RoomId::parse(&format!("room {number}")).unwrap()
    }

    fn stored(seq: Seq) -> Stored {
        Stored { id: FrameId(uuid::Uuid::from_u128(u128::from(seq.0))), seq, json: vec![b'x'; 488].into() }
    }

    #[test]
    fn a_room_keeps_its_latest_frames() {
        let mut kept = Kept::new();
        for _ in 0..HISTORY_MAX + 50 {
            kept.append(&room(1), stored);
        }
        let past = kept.past(&room(1));
        assert_eq!((past.head.0, past.frames.len()), (HISTORY_MAX as u64 + 50, HISTORY_MAX));
        assert_eq!(past.frames[0].seq, Seq(51));
        assert_eq!(kept.bytes, HISTORY_MAX * 1000);
    }

    #[test]
    fn a_room_without_members_and_messages_is_gone() {
        let mut kept = Kept::new();
        kept.enter(&room(1));
        kept.exit(&room(1));
        assert!(kept.rooms.is_empty());
        kept.enter(&room(2));
        assert_eq!(kept.room(&room(2)), None);
        kept.append(&room(2), stored);
        kept.exit(&room(2));
        assert_eq!(kept.room(&room(2)), Some(KeptRoom { id: room(2), head: Seq(1) }));
    }

    #[test]
    fn the_rooms_that_were_silent_longest_pay_for_the_bound() {
        let mut kept = Kept::with_bytes_max(80_000);
        kept.enter(&room(0));
        for number in 0..80 {
            kept.append(&room(number), stored);
            kept.forget_oldest();
        }
        assert_eq!(kept.rooms.len(), 80);
        kept.append(&room(1), stored);
        kept.forget_oldest();
        assert!(kept.bytes <= 70_000);
        assert_eq!(kept.past(&room(0)).head, Seq(1), "the order goes on while somebody is there");
        assert!(kept.past(&room(0)).frames.is_empty());
        assert_eq!(kept.past(&room(1)).frames.len(), 2, "the last to speak stays");
        assert_eq!(kept.past(&room(2)).head, Seq(0), "gone");
        let sum: usize = kept.rooms.values().map(|room| room.bytes).sum();
        assert_eq!(sum, kept.bytes);
    }
}
