//! A batch collects the frames of a room during a round of the hub's loop. At the end of the round, the hub sends it
//! to the members of the room. While more commands are queued, it sends it only to the authors of the frames, and the
//! batch of the others grows for a few rounds. There is one batch per encoding in use.
//!
//! Runs on the hub's thread and does no I/O. A frame is encoded once per encoding in use, for any number of members.

use std::sync::Arc;
use std::time::Instant;

use crate::limits::{BATCH_BYTES_KEPT, BATCH_BYTES_MAX, BATCH_WAIT_BYTES_MAX, BATCH_WAIT_MAX, BUSY_ROOM_INTERVAL};
use crate::wire::Encoding;

use super::state::MemberKey;

/// A batch of frames for many members. If the sinks of some members can't take it at once, they share one copy of the
/// bytes.
#[derive(Debug)]
pub struct Batch<'a> {
    bytes: &'a [u8],
    shared: Option<Arc<[u8]>>,
}

impl<'a> Batch<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, shared: None }
    }

    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The shared copy. The first call makes it.
    pub fn shared(&mut self) -> Arc<[u8]> {
        Arc::clone(self.shared.get_or_insert_with(|| Arc::from(self.bytes)))
    }
}

/// Which encodings are in use, by their indexes.
pub type InUse = [bool; Encoding::COUNT];

/// The frames of one room that its members have not been sent yet, in each encoding in use.
#[derive(Debug, Default)]
pub struct RoomBatch {
    by_encoding: [Vec<u8>; Encoding::COUNT],
    /// Whether a member uses the encoding, by its index. After its last member has left, an encoding stays in use until
    /// the next [`clear`](Self::clear).
    in_use: InUse,
    frames: u64,
    /// The members that need only a part of the batch, because they entered later or were sent the beginning. Each has
    /// the position of its first frame in the batch of its encoding. Sorted by member.
    begins: Vec<(MemberKey, usize)>,
    /// The authors of the frames since the last [`take_authors`](Self::take_authors).
    authors: Vec<MemberKey>,
    /// The end of the first round after which frames were left for the next.
    waits_since: Option<Instant>,
    /// When the last batch was sent to all members.
    sent_at: Option<Instant>,
}

impl RoomBatch {
    /// Adds a member. It gets all frames that are pushed after this call.
    pub fn enter(&mut self, member: MemberKey, encoding: Encoding) {
        self.in_use[encoding.index()] = true;
        if self.frames > 0 {
            self.begin_at_end(member, encoding);
        }
    }

    /// Notes that a member needs only the frames that are pushed after this call.
    pub fn begin_at_end(&mut self, member: MemberKey, encoding: Encoding) {
        let begin = self.by_encoding[encoding.index()].len();
        match self.place_of(member) {
            // The member was sent more, or it has left and joined again.
            Ok(place) => self.begins[place].1 = begin,
            Err(place) => self.begins.insert(place, (member, begin)),
        }
    }

    fn place_of(&self, member: MemberKey) -> Result<usize, usize> {
        self.begins.binary_search_by_key(&member, |(member, _)| *member)
    }

    /// Adds a frame of an author, if a member of the room has sent it. Returns whether the batch is so large that it
    /// should be sent before the end of the round.
    pub fn push(&mut self, json: &[u8], author: Option<MemberKey>) -> bool {
        self.frames += 1;
        self.authors.extend(author);
        let mut is_large = false;
        for encoding in Encoding::ALL.into_iter().filter(|encoding| self.in_use[encoding.index()]) {
            let bytes = &mut self.by_encoding[encoding.index()];
            encoding.append_frame(bytes, json);
            is_large |= bytes.len() >= BATCH_BYTES_MAX;
        }
        is_large
    }

    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// The members that have sent the frames since the last call.
    pub fn take_authors(&mut self) -> Vec<MemberKey> {
        std::mem::take(&mut self.authors)
    }

    /// Whether the frames may wait for those of the next round. More of them must be likely soon, and some of the
    /// `members` members must be no authors.
    pub fn may_wait(&mut self, members: usize, now: Instant) -> bool {
        self.authors.sort_unstable();
        self.authors.dedup();
        let since = *self.waits_since.get_or_insert(now);
        let is_busy = self.sent_at.is_some_and(|at| now.saturating_duration_since(at) < BUSY_ROOM_INTERVAL);
        is_busy
            && members > self.authors.len()
            && now.saturating_duration_since(since) < BATCH_WAIT_MAX
            && self.by_encoding.iter().all(|bytes| bytes.len() < BATCH_WAIT_BYTES_MAX)
    }

    /// The position of a member's first frame in the batch of its encoding.
    pub fn begin_of(&self, member: MemberKey) -> usize {
        self.place_of(member).map_or(0, |place| self.begins[place].1)
    }

    pub fn batch(&self, encoding: Encoding) -> Batch<'_> {
        Batch::new(&self.by_encoding[encoding.index()])
    }

    /// All batches, by the indexes of their encodings.
    pub fn batches(&self) -> [Batch<'_>; Encoding::COUNT] {
        self.by_encoding.each_ref().map(|bytes| Batch::new(bytes))
    }

    /// Removes the frames, which were sent to all members. `in_use` has the encodings of all members.
    pub fn clear(&mut self, in_use: InUse, now: Instant) {
        for bytes in &mut self.by_encoding {
            bytes.clear();
            // The memory of a burst is not kept for every room.
            bytes.shrink_to(BATCH_BYTES_KEPT);
        }
        self.in_use = in_use;
        self.frames = 0;
        self.begins.clear();
        self.authors.clear();
        self.waits_since = None;
        self.sent_at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn of(encodings: &[Encoding]) -> InUse {
        Encoding::ALL.map(|encoding| encodings.contains(&encoding))
    }

    fn text(batch: &RoomBatch, encoding: Encoding) -> &[u8] {
        batch.batch(encoding).bytes()
    }

    #[test]
    fn a_frame_is_encoded_only_for_encodings_in_use() {
        let mut batch = RoomBatch::default();
        batch.push(b"{}", None);
        assert_eq!((text(&batch, Encoding::Json), text(&batch, Encoding::Ndjson)), (&b""[..], &b""[..]));
        batch.clear(of(&[]), Instant::now());

        batch.enter(MemberKey(0), Encoding::Json);
        batch.push(b"{}", None);
        assert_eq!((text(&batch, Encoding::Json), text(&batch, Encoding::Ndjson)), (&b"\x81\x02{}"[..], &b""[..]));
        batch.enter(MemberKey(1), Encoding::Ndjson);
        batch.push(b"[]", None);
        assert_eq!(text(&batch, Encoding::Json), b"\x81\x02{}\x81\x02[]");
        assert_eq!(text(&batch, Encoding::Ndjson), b"[]\n");
        assert_eq!(batch.frames(), 2);

        batch.clear(of(&[Encoding::Ndjson]), Instant::now());
        batch.push(b"{}", None);
        assert_eq!((text(&batch, Encoding::Json), text(&batch, Encoding::Ndjson)), (&b""[..], &b"{}\n"[..]));
    }

    #[test]
    fn a_late_member_begins_at_its_position_in_the_batch_of_its_encoding() {
        let mut batch = RoomBatch::default();
        batch.enter(MemberKey(0), Encoding::Json);
        batch.push(b"{}", None);
        batch.enter(MemberKey(1), Encoding::Ndjson);
        batch.enter(MemberKey(2), Encoding::Json);
        batch.push(b"{}", None);
        batch.enter(MemberKey(3), Encoding::Ndjson);
        assert_eq!([0, 1, 2, 3].map(|key| batch.begin_of(MemberKey(key))), [0, 0, 4, 3]);
    }

    #[test]
    fn the_last_entry_of_a_member_counts() {
        let mut batch = RoomBatch::default();
        batch.enter(MemberKey(0), Encoding::Json);
        batch.push(b"{}", None);
        batch.enter(MemberKey(1), Encoding::Json);
        batch.push(b"{}", None);
        // The same key again: the second time it belongs to another connection.
        batch.enter(MemberKey(1), Encoding::Json);
        batch.enter(MemberKey(0), Encoding::Ndjson);
        assert_eq!((batch.begin_of(MemberKey(1)), batch.begin_of(MemberKey(0))), (8, 0));
        batch.clear(of(&[Encoding::Json]), Instant::now());
        assert_eq!(batch.begin_of(MemberKey(1)), 0);
    }

    #[test]
    fn an_author_needs_only_the_frames_after_those_it_was_sent() {
        let mut batch = RoomBatch::default();
        (0..3).for_each(|key| batch.enter(MemberKey(key), Encoding::Json));
        for author in [Some(2), None, Some(0), Some(2)] {
            batch.push(b"{}", author.map(MemberKey));
        }
        batch.may_wait(3, Instant::now());
        let authors = batch.take_authors();
        assert_eq!(authors, [MemberKey(0), MemberKey(2)]);
        authors.into_iter().for_each(|author| batch.begin_at_end(author, Encoding::Json));
        batch.push(b"[]", Some(MemberKey(0)));
        assert_eq!([0, 1, 2].map(|key| batch.begin_of(MemberKey(key))), [16, 0, 16]);
        assert_eq!(batch.take_authors(), [MemberKey(0)]);
        batch.begin_at_end(MemberKey(0), Encoding::Json);
        assert_eq!([0, 1, 2].map(|key| batch.begin_of(MemberKey(key))), [20, 0, 16]);
        batch.clear(of(&[Encoding::Json]), Instant::now());
        assert_eq!([0, 1, 2].map(|key| batch.begin_of(MemberKey(key))), [0, 0, 0]);
    }

    #[test]
    fn frames_wait_within_a_time_and_a_number_of_bytes() {
        let mut batch = RoomBatch::default();
        batch.enter(MemberKey(0), Encoding::Json);
        let began = Instant::now();
        batch.push(b"{}", Some(MemberKey(0)));
        assert!(!batch.may_wait(2, began), "the room was silent");
        batch.clear(of(&[Encoding::Json]), began);
        batch.push(b"{}", Some(MemberKey(0)));
        batch.push(b"{}", Some(MemberKey(0)));
        assert!(!batch.may_wait(1, began), "nobody is there but the author");
        for (wait, may_wait) in [(BATCH_WAIT_MAX - Duration::from_nanos(1), true), (BATCH_WAIT_MAX, false)] {
            assert_eq!(batch.may_wait(2, began + wait), may_wait, "{wait:?}");
        }
        batch.clear(of(&[Encoding::Json]), Instant::now());
        batch.push(b"{}", None);
        assert!(batch.may_wait(1, began + BATCH_WAIT_MAX), "the time of the next batch begins later");
        while batch.batch(Encoding::Json).bytes().len() < BATCH_WAIT_BYTES_MAX {
            assert!(batch.may_wait(1, began + BATCH_WAIT_MAX));
            batch.push(&[b'x'; 1_000], None);
        }
        assert!(!batch.may_wait(1, began + BATCH_WAIT_MAX));
    }

    #[test]
    fn a_large_batch_is_due_at_once_and_its_memory_is_not_kept() {
        let mut batch = RoomBatch::default();
        batch.enter(MemberKey(0), Encoding::Ndjson);
        let json = vec![b'x'; 1_000];
        let pushes = (1..).find(|_| batch.push(&json, None)).unwrap();
        assert_eq!(pushes, BATCH_BYTES_MAX.div_ceil(1_001));
        batch.clear(of(&[Encoding::Ndjson]), Instant::now());
        assert!(batch.by_encoding.iter().all(|bytes| bytes.capacity() <= BATCH_BYTES_KEPT));
    }
}
