//! Makes the ids of frames: UUID version 7 (RFC 9562, section 5.7), so that ids sort by their time.
//!
//! The random part is drawn once and incremented for each id. So an id costs no system call, and the ids of one maker
//! are always in order. A maker belongs to one thread.

use uuid::{Builder, Uuid};

use crate::model::{FrameId, Timestamp};

/// A maker of ids. Each thread has its own maker, with its own random part.
#[derive(Debug)]
pub(crate) struct FrameIds {
    last_ms: u64,
    /// 74 of these bits go into an id, beside the time; the other 54 are unused.
    random: u128,
}

impl FrameIds {
    /// A maker with a random part from the system.
    pub(crate) fn new() -> Self {
        Self { last_ms: 0, random: Uuid::new_v4().as_u128() }
    }

    /// The next id, for a time that the caller has read from the clock.
    pub(crate) fn next(&mut self, now: &Timestamp) -> FrameId {
        // Ids stay in order if the clock is set back.
        self.last_ms = self.last_ms.max(now.unix_ms);
        self.random = self.random.wrapping_add(1);
        let mut bytes = [0; 10];
        bytes.copy_from_slice(&self.random.to_be_bytes()[6..]);
        FrameId(Builder::from_unix_timestamp_millis(self.last_ms, &bytes).into_uuid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_version_7_and_ascending() {
        let mut ids = FrameIds::new();
        let mut last = ids.next(&Timestamp::at(1_700_000_000_000));
        assert_eq!(last.0.get_version_num(), 7);
        for ms in [1_700_000_000_000, 1_700_000_000_000, 1_700_000_000_001, 1_600_000_000_000] {
            let id = ids.next(&Timestamp::at(ms));
            assert!(id > last, "{id} after {last}");
            assert!(id.unix_ms() >= ms && id.unix_ms() <= 1_700_000_000_001);
            last = id;
        }
    }
}
