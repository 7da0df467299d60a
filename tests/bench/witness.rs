//! Checks the messages of a sampled member as they arrive: the `seq` of the room and each sender's counter must be
//! consecutive.

use crate::frame::Stamp;

/// Checks the order of one room, from its marker (message 0 of its first sender) on.
pub struct Witness {
    /// The index of the room's first sender; the others follow it.
    sender_first: u16,
    senders: Vec<Seen>,
    /// The last `seq`; `None` before the marker, or if the server sends none.
    seq_last: Option<u64>,
    seq_gaps: u64,
    counter_gaps: u64,
    /// Messages that arrived again, or too late.
    pub duplicates: u64,
}

/// The messages of one sender.
#[derive(Clone, Copy, Default)]
struct Seen {
    counter_last: u32,
    count: u32,
}

impl Witness {
    pub fn new(sender_first: u16, senders: usize) -> Self {
        Self {
            sender_first,
            senders: vec![Seen::default(); senders],
            seq_last: None,
            seq_gaps: 0,
            counter_gaps: 0,
            duplicates: 0,
        }
    }

    /// Records the marker: the order is checked from here.
    pub fn begin(&mut self, seq: Option<u64>) {
        self.seq_last = seq;
    }

    /// Records a message.
    pub fn see(&mut self, stamp: Stamp, seq: Option<u64>) {
        let sender = usize::from(stamp.sender.wrapping_sub(self.sender_first));
        let Some(sender) = self.senders.get_mut(sender) else {
            return;
        };
        let missed_of_room = match (self.seq_last, seq) {
            (None, _) => Some(0),
            (Some(last), Some(seq)) => seq.checked_sub(last + 1),
            (Some(_), None) => Some(1),
        };
        let missed_of_sender = stamp.counter.checked_sub(sender.counter_last + 1);
        let (Some(missed_of_room), Some(missed_of_sender)) = (missed_of_room, missed_of_sender) else {
            self.duplicates += 1;
            return;
        };
        self.seq_gaps += missed_of_room;
        self.counter_gaps += u64::from(missed_of_sender);
        self.seq_last = self.seq_last.and(seq);
        sender.counter_last = stamp.counter;
        sender.count += 1;
    }

    /// Messages that were missing when a later one arrived. A missing message leaves a hole in both orders, and a fault
    /// of the numbering in one of them.
    pub fn gaps(&self) -> u64 {
        self.seq_gaps.max(self.counter_gaps)
    }

    /// The number of messages that arrived, each counted once.
    pub fn count(&self) -> u64 {
        self.senders.iter().map(|sender| u64::from(sender.count)).sum()
    }

    /// Whether the server numbers its messages.
    pub fn has_seq(&self) -> bool {
        self.seq_last.is_some()
    }
}
