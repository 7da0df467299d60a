//! A room in the hub: its members, its pending joins, and its ring of the latest frames. Pure data; the hub's thread
//! owns it. It reads no rows of the store.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::limits::{HISTORY_MAX, MISSED_MAX, RING_BYTES_MAX};
use crate::model::{Person, RoomId, Seq};
use crate::store::entry::{Past, Stored};

use super::handle::PeopleById;
use super::presence::Changes;
use super::roster::{MemberSet, Roster};
use super::state::MemberKey;

/// A room with members, or with a join that the store has not answered yet.
#[derive(Debug)]
pub struct Room {
    pub id: RoomId,
    pub members: MemberSet,
    /// Members that are still being sent history. They do not get live frames yet.
    pub catching_up: MemberSet,
    /// The people of `members` and `catching_up`.
    pub people: Roster,
    /// The same people with their names, to be published.
    pub people_by_id: PeopleById,
    /// Presence changes that a room with many people has not been told yet.
    pub changes: Changes,
    /// When the next `presence` frame is due, if there are changes.
    pub presence_due: Option<Instant>,
    /// Presence frames that the members in `catching_up` have not been sent.
    pub missed: Missed,
    /// The number of joins that the store has not answered. While there are any the room is kept, because their answers
    /// need it.
    pub joining: usize,
    pub ring: Ring,
    /// Whether a first message is on its way to the store.
    pub has_begun: bool,
}

/// The latest messages and events of a room, so that most joins read no rows. It shares its bytes with the store.
///
/// It is unknown until the store answers the first join, and it is not read before that. If the history could not be
/// read, the ring stays unknown and the room still works.
#[derive(Debug, Default)]
pub struct Ring {
    pub is_known: bool,
    /// The last seq of the room.
    pub head: Seq,
    /// Texts and announcements, oldest first.
    messages: VecDeque<Stored>,
    /// Changes of messages, oldest first.
    events: VecDeque<Stored>,
    /// All messages from this seq on are in the ring.
    messages_from: Seq,
    /// All frames from this seq on are in the ring. It is never below `messages_from`.
    frames_from: Seq,
    pub bytes: usize,
    event_bytes: usize,
}

/// The memory of a frame in addition to its JSON, approximately.
const FRAME_OVERHEAD_BYTES: usize = 128;

fn cost(stored: &Stored) -> usize {
    stored.json.len() + FRAME_OVERHEAD_BYTES
}

impl Ring {
    /// Fills the ring with the store's answer, unless the ring is known already: then it is newer than the answer.
    pub fn learn(&mut self, past: Past) {
        if !self.is_known {
            let Past { head, frames, is_whole } = past;
            let frames_from = frames.first().map_or(head.next(), |first| first.seq);
            let messages_from = if is_whole { Seq(1) } else { frames_from };
            *self = Self { is_known: true, head, messages_from, frames_from, ..Self::default() };
            frames.into_iter().for_each(|stored| self.keep(stored));
        }
    }

    /// Adds a frame to which the store gave a seq.
    pub fn push(&mut self, stored: Stored) {
        if self.is_known {
            debug_assert!(self.head.next() == stored.seq, "{:?} behind {:?}", stored.seq, self.head);
            self.head = stored.seq;
            self.keep(stored);
        }
    }

    fn keep(&mut self, stored: Stored) {
        self.bytes += cost(&stored);
        if stored.is_event {
            self.event_bytes += cost(&stored);
            self.events.push_back(stored);
        } else {
            self.messages.push_back(stored);
            if self.messages.len() > HISTORY_MAX {
                self.pop_message();
            }
        }
        while self.bytes > RING_BYTES_MAX && self.messages.len() + self.events.len() > 1 {
            let event_first = match (self.messages.front(), self.events.front()) {
                (Some(message), Some(event)) => event.seq < message.seq,
                (message, _) => message.is_none(),
            };
            // Many events must not push out the messages.
            if event_first || self.event_bytes > RING_BYTES_MAX / 2 {
                self.pop_event();
            } else {
                self.pop_message();
            }
        }
    }

    fn pop_message(&mut self) {
        if let Some(oldest) = self.messages.pop_front() {
            self.bytes -= cost(&oldest);
            self.messages_from = oldest.seq.next();
            self.frames_from = self.frames_from.max(oldest.seq.next());
        }
        // An event is useful only if all later frames are in the ring.
        while self.events.front().is_some_and(|oldest| oldest.seq < self.frames_from) {
            self.pop_event();
        }
    }

    fn pop_event(&mut self) {
        if let Some(oldest) = self.events.pop_front() {
            self.bytes -= cost(&oldest);
            self.event_bytes -= cost(&oldest);
            self.frames_from = self.frames_from.max(oldest.seq.next());
        }
    }

    /// Removes the frames up to a seq: they are no longer kept.
    pub fn forget(&mut self, up_to: Seq) {
        let is_forgotten = |oldest: Option<&Stored>| oldest.is_some_and(|oldest| oldest.seq <= up_to);
        // The store does not have them either, so the messages that are left are still complete.
        let messages_from = self.messages_from;
        while is_forgotten(self.messages.front()) {
            self.pop_message();
        }
        self.messages_from = messages_from;
        while is_forgotten(self.events.front()) {
            self.pop_event();
        }
    }

    /// Removes the older half of the frames. The store still has them.
    pub fn halve(&mut self) {
        (0..self.messages.len().div_ceil(2)).for_each(|_| self.pop_message());
        (0..self.events.len().div_ceil(2)).for_each(|_| self.pop_event());
    }

    /// Replaces a message with its changed form, if it is in the ring.
    pub fn replace(&mut self, stored: Stored) {
        if let Some(message) = self.messages.iter_mut().find(|message| message.id == stored.id) {
            self.bytes = self.bytes + stored.json.len() - message.json.len();
            *message = stored;
        }
    }

    /// The latest `count` messages, or all if fewer are kept. `None` if some of them are not in the ring.
    pub fn latest(&self, count: usize) -> Option<impl Iterator<Item = &Stored>> {
        let has_all = self.messages.len() >= count || self.messages_from <= Seq(1);
        has_all.then(|| self.messages.range(self.messages.len().saturating_sub(count)..))
    }

    /// The messages after a seq. `None` if some of them are not in the ring.
    pub fn messages_after(&self, place: Seq) -> Option<impl Iterator<Item = &Stored>> {
        let has_all = self.messages_from <= place.next();
        has_all.then(|| self.messages.iter().skip_while(move |message| message.seq <= place))
    }

    /// The frames after a seq. `None` if some of them are not in the ring.
    pub fn frames_after(&self, place: Seq) -> Option<Vec<&Stored>> {
        if self.frames_from > place.next() {
            return None;
        }
        let frames = self.messages.iter().chain(&self.events);
        let mut frames: Vec<_> = frames.filter(|frame| frame.seq > place).collect();
        frames.sort_by_key(|frame| frame.seq);
        Some(frames)
    }
}

/// Presence frames that members in `catching_up` have missed, each with its place among the stored frames.
#[derive(Debug, Default)]
pub struct Missed {
    frames: VecDeque<MissedFrame>,
    /// The number of the first of them. Numbers are never used again.
    first: u64,
}

/// A missed frame, which is not stored.
#[derive(Debug)]
pub struct MissedFrame {
    /// The last seq of the room when the frame was sent.
    pub after: Seq,
    pub json: Arc<[u8]>,
    pub change: MissedChange,
}

/// The presence change that a missed frame tells.
#[derive(Debug)]
pub enum MissedChange {
    Joined(Arc<Person>),
    Left(Arc<Person>),
    /// A `presence` frame.
    Crowd,
}

impl Missed {
    /// The number of the first frame that is still remembered.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The number that the next frame will get.
    pub fn end(&self) -> u64 {
        self.first + self.frames.len() as u64
    }

    pub fn get(&self, number: u64) -> Option<&MissedFrame> {
        self.frames.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    fn push(&mut self, frame: MissedFrame) {
        self.frames.push_back(frame);
        if self.frames.len() > MISSED_MAX {
            self.frames.pop_front();
            self.first += 1;
        }
    }

    fn clear(&mut self) {
        self.first = self.end();
        self.frames = VecDeque::new();
    }
}

impl Room {
    pub fn new(id: RoomId) -> Self {
        Self {
            id,
            members: MemberSet::default(),
            catching_up: MemberSet::default(),
            people: Roster::default(),
            people_by_id: PeopleById::default(),
            changes: Changes::default(),
            presence_due: None,
            missed: Missed::default(),
            joining: 0,
            ring: Ring::default(),
            has_begun: false,
        }
    }

    /// Whether the room has had no frame yet, and none is on its way.
    pub fn is_new(&self) -> bool {
        !self.has_begun && self.ring.is_known && self.ring.head == Seq(0)
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.catching_up.is_empty() && self.joining == 0
    }

    /// All members, including members that are catching up.
    pub fn all_members(&self) -> impl Iterator<Item = MemberKey> {
        self.members.as_slice().iter().chain(self.catching_up.as_slice()).copied()
    }

    /// Notes that a member has caught up, or has left.
    pub fn end_catching_up(&mut self, member: MemberKey) {
        self.catching_up.remove(member);
        if self.catching_up.is_empty() {
            self.missed.clear();
        }
    }

    /// Remembers a frame that is not stored, for the members that are catching up.
    pub fn note_missed(&mut self, json: &Arc<[u8]>, change: MissedChange) {
        if !self.catching_up.is_empty() {
            let after = self.ring.head;
            self.missed.push(MissedFrame { after, json: Arc::clone(json), change });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FrameId;

    fn stored(seq: u64) -> Stored {
        let id = FrameId(uuid::Uuid::from_u128(u128::from(seq)));
        Stored { id, seq: Seq(seq), is_event: false, json: Vec::new().into() }
    }

    fn event(seq: u64) -> Stored {
        Stored { is_event: true, ..stored(seq) }
    }

    fn ring(head: u64, frames: Vec<Stored>, is_whole: bool) -> Ring {
        let mut ring = Ring::default();
        ring.learn(Past { head: Seq(head), frames, is_whole });
        ring
    }

    fn latest(ring: &Ring, count: usize) -> Option<Vec<u64>> {
        ring.latest(count).map(|frames| frames.map(|frame| frame.seq.0).collect())
    }

    fn behind(ring: &Ring, seq: u64) -> Option<Vec<u64>> {
        ring.frames_after(Seq(seq)).map(|frames| frames.iter().map(|frame| frame.seq.0).collect())
    }

    #[test]
    fn a_join_gets_the_latest_messages_or_all_frames_after_a_seq() {
        let mut ring = ring(7, vec![stored(6), stored(7)], false);
        ring.push(stored(8));
        ring.learn(Past { head: Seq(7), frames: Vec::new(), is_whole: true });
        assert_eq!(ring.head, Seq(8));
        for (count, replay) in
            [(2, Some(vec![7, 8])), (0, Some(vec![])), (3, Some(vec![6, 7, 8])), (4, None), (200, None)]
        {
            assert_eq!(latest(&ring, count), replay, "{count}");
        }
        for (seen, replay) in [(8, Some(vec![])), (6, Some(vec![7, 8])), (5, Some(vec![6, 7, 8])), (4, None)] {
            assert_eq!(behind(&ring, seen), replay, "{seen}");
        }
    }

    #[test]
    fn the_latest_are_messages_and_a_resume_gets_all_frames() {
        let frames = vec![stored(4), event(5), event(6), stored(7), event(8)];
        let mut ring = ring(8, frames, false);
        ring.push(event(9));
        assert_eq!(latest(&ring, 2), Some(vec![4, 7]));
        assert_eq!(latest(&ring, 3), None);
        assert_eq!(behind(&ring, 3), Some(vec![4, 5, 6, 7, 8, 9]));
        assert_eq!(behind(&ring, 8), Some(vec![9]));
        let after =
            |seq| ring.messages_after(Seq(seq)).map(|frames| frames.map(|frame| frame.seq.0).collect::<Vec<_>>());
        assert_eq!((after(2), after(3), after(4)), (None, Some(vec![4, 7]), Some(vec![7])));
    }

    #[test]
    fn a_whole_history_answers_every_count() {
        let mut ring = ring(7, vec![event(5), stored(6), event(7)], true);
        assert_eq!(latest(&ring, 200), Some(vec![6]));
        assert_eq!((behind(&ring, 4), behind(&ring, 3)), (Some(vec![5, 6, 7]), None));
        (8..=8 + HISTORY_MAX as u64).for_each(|seq| ring.push(stored(seq)));
        assert_eq!(latest(&ring, HISTORY_MAX).map(|frames| frames.len()), Some(HISTORY_MAX));
        assert_eq!((behind(&ring, 7), behind(&ring, 8).map(|frames| frames.len())), (None, Some(HISTORY_MAX)));
    }

    #[test]
    fn many_events_do_not_push_out_messages() {
        let mut ring = ring(0, Vec::new(), true);
        (1..=50).for_each(|seq| ring.push(Stored { json: vec![b'x'; 1_000].into(), ..stored(seq) }));
        (51..=5_000).for_each(|seq| ring.push(Stored { json: vec![b'x'; 300].into(), ..event(seq) }));
        assert!(ring.bytes <= RING_BYTES_MAX);
        assert_eq!(latest(&ring, 50).map(|frames| frames.len()), Some(50));
        assert_eq!(behind(&ring, 4_900), Some((4_901..=5_000).collect()));
        assert_eq!(behind(&ring, 60), None);
        while ring.bytes > 0 {
            ring.halve();
        }
        assert_eq!((latest(&ring, 1), behind(&ring, 4_999), behind(&ring, 5_000)), (None, None, Some(vec![])));
    }

    #[test]
    fn a_room_with_unreadable_history_still_works() {
        let ring = Ring::default();
        assert_eq!((latest(&ring, 5), behind(&ring, 7), ring.head), (Some(vec![]), Some(vec![]), Seq(0)));
        assert!(ring.messages_after(Seq(0)).is_some());
    }

    #[test]
    fn frames_before_the_ring_are_not_found_in_it() {
        let ring = ring(7, Vec::new(), false);
        assert_eq!((latest(&ring, 5), latest(&ring, 0)), (None, Some(vec![])));
        assert_eq!((behind(&ring, 6), behind(&ring, 7)), (None, Some(vec![])));
    }

    #[test]
    fn a_ring_holds_fewer_large_frames() {
        let mut ring = ring(0, Vec::new(), true);
        for seq in 1..=20 {
            ring.push(Stored { json: vec![b'x'; 50_000].into(), ..stored(seq) });
        }
        assert!(ring.bytes <= RING_BYTES_MAX && ring.bytes > RING_BYTES_MAX / 2);
        assert_eq!(latest(&ring, 3), Some(vec![18, 19, 20]));
        assert_eq!(latest(&ring, 20), None, "the store has the others");
        while ring.bytes > 0 {
            ring.halve();
        }
        assert_eq!(ring.head, Seq(20));
        assert_eq!(latest(&ring, 1), None);
    }

    #[test]
    fn forgotten_frames_are_not_in_the_ring() {
        let mut ring = ring(0, Vec::new(), true);
        (1..=4).for_each(|seq| ring.push(stored(seq)));
        ring.forget(Seq(2));
        assert_eq!((latest(&ring, 2), latest(&ring, 3)), (Some(vec![3, 4]), Some(vec![3, 4])));
        assert_eq!((behind(&ring, 2), behind(&ring, 1)), (Some(vec![3, 4]), None));
        ring.forget(Seq(9));
        assert_eq!((ring.head, ring.bytes), (Seq(4), 0));
        assert_eq!((latest(&ring, 9), behind(&ring, 3)), (Some(vec![]), None));
    }

    #[test]
    fn the_ring_is_bounded() {
        let mut ring = ring(0, Vec::new(), true);
        for seq in 1..=HISTORY_MAX as u64 + 10 {
            ring.push(stored(seq));
        }
        let frames = latest(&ring, HISTORY_MAX).unwrap();
        assert_eq!((frames.len(), frames[0]), (HISTORY_MAX, 11));
    }
}
