//! A batch collects the frames of a room during one round of the hub's loop. At the end of the round, the hub sends it
//! to the members of the room. There is one batch per encoding in use.
//!
//! Runs on the hub's thread and does no I/O. A frame is encoded once per encoding in use, for any number of members.

use std::sync::Arc;

use crate::limits::{BATCH_BYTES_KEPT, BATCH_BYTES_MAX};
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
    /// Members that entered after the batch was begun, each with the position of its first frame in the batch of its
    /// encoding.
    late: Vec<(MemberKey, usize)>,
}

impl RoomBatch {
    /// Adds a member. It gets all frames that are pushed after this call.
    pub fn enter(&mut self, member: MemberKey, encoding: Encoding) {
        self.in_use[encoding.index()] = true;
        if self.frames > 0 {
            self.late.push((member, self.by_encoding[encoding.index()].len()));
        }
    }

    /// Adds a frame. Returns whether the batch is so large that it should be sent before the end of the round.
    pub fn push(&mut self, json: &[u8]) -> bool {
        self.frames += 1;
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

    /// The position of a member's first frame in the batch of its encoding.
    pub fn begin_of(&self, member: MemberKey) -> usize {
        if self.late.is_empty() {
            return 0;
        }
        // The last entry of a member counts: the member may have left and joined again.
        self.late.iter().rev().find(|(late, _)| *late == member).map_or(0, |(_, begin)| *begin)
    }

    pub fn batch(&self, encoding: Encoding) -> Batch<'_> {
        Batch::new(&self.by_encoding[encoding.index()])
    }

    /// All batches, by the indexes of their encodings.
    pub fn batches(&self) -> [Batch<'_>; Encoding::COUNT] {
        self.by_encoding.each_ref().map(|bytes| Batch::new(bytes))
    }

    /// Removes the frames that were sent. `in_use` has the encodings of all members.
    pub fn clear(&mut self, in_use: InUse) {
        for bytes in &mut self.by_encoding {
            bytes.clear();
            // The memory of a burst is not kept for every room.
            bytes.shrink_to(BATCH_BYTES_KEPT);
        }
        self.in_use = in_use;
        self.frames = 0;
        self.late.clear();
    }
}

#[cfg(test)]
mod tests {
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
        batch.push(b"{}");
        assert_eq!((text(&batch, Encoding::Json), text(&batch, Encoding::Ndjson)), (&b""[..], &b""[..]));
        batch.clear(of(&[]));

        batch.enter(MemberKey(0), Encoding::Json);
        batch.push(b"{}");
        assert_eq!((text(&batch, Encoding::Json), text(&batch, Encoding::Ndjson)), (&b"\x81\x02{}"[..], &b""[..]));
        batch.enter(MemberKey(1), Encoding::Ndjson);
        batch.push(b"[]");
        assert_eq!(text(&batch, Encoding::Json), b"\x81\x02{}\x81\x02[]");
        assert_eq!(text(&batch, Encoding::Ndjson), b"[]\n");
        assert_eq!(batch.frames(), 2);

        batch.clear(of(&[Encoding::Ndjson]));
        batch.push(b"{}");
        assert_eq!((text(&batch, Encoding::Json), text(&batch, Encoding::Ndjson)), (&b""[..], &b"{}\n"[..]));
    }

    #[test]
    fn a_late_member_begins_at_its_position_in_the_batch_of_its_encoding() {
        let mut batch = RoomBatch::default();
        batch.enter(MemberKey(0), Encoding::Json);
        batch.push(b"{}");
        batch.enter(MemberKey(1), Encoding::Ndjson);
        batch.enter(MemberKey(2), Encoding::Json);
        batch.push(b"{}");
        batch.enter(MemberKey(3), Encoding::Ndjson);
        assert_eq!([0, 1, 2, 3].map(|key| batch.begin_of(MemberKey(key))), [0, 0, 4, 3]);
    }

    #[test]
    fn the_last_entry_of_a_member_counts() {
        let mut batch = RoomBatch::default();
        batch.enter(MemberKey(0), Encoding::Json);
        batch.push(b"{}");
        batch.enter(MemberKey(1), Encoding::Json);
        batch.push(b"{}");
        // The same key again: the second time it belongs to another connection.
        batch.enter(MemberKey(1), Encoding::Json);
        batch.enter(MemberKey(0), Encoding::Ndjson);
        assert_eq!((batch.begin_of(MemberKey(1)), batch.begin_of(MemberKey(0))), (8, 0));
        batch.clear(of(&[Encoding::Json]));
        assert_eq!(batch.begin_of(MemberKey(1)), 0);
    }

    #[test]
    fn a_large_batch_is_due_at_once_and_its_memory_is_not_kept() {
        let mut batch = RoomBatch::default();
        batch.enter(MemberKey(0), Encoding::Ndjson);
        let json = vec![b'x'; 1_000];
        let pushes = (1..).find(|_| batch.push(&json)).unwrap();
        assert_eq!(pushes, BATCH_BYTES_MAX.div_ceil(1_001));
        batch.clear(of(&[Encoding::Ndjson]));
        assert!(batch.by_encoding.iter().all(|bytes| bytes.capacity() <= BATCH_BYTES_KEPT));
    }
}
