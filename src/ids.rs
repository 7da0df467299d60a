//! Ids of frames: UUID version 7 (RFC 9562, section 5.7), so that they sort by when they were made.
//!
//! The random part is drawn once and counts up within a millisecond: no system call per frame, and two
//! frames of one maker are never out of order.

use uuid::{Builder, Uuid};

use crate::model::{FrameId, Timestamp};

/// Makes ids. Each thread that makes some has a maker of its own, with its own random part.
#[derive(Debug)]
pub(crate) struct FrameIds {
    last_ms: u64,
    /// 74 bits of an id are not time; these are they, and 54 more that are not used.
    random: u128,
}

impl FrameIds {
    /// A maker whose random part comes from the system.
    pub(crate) fn new() -> Self {
        Self { last_ms: 0, random: Uuid::new_v4().as_u128() }
    }

    /// The next id, at a moment that the caller read from the clock.
    pub(crate) fn next(&mut self, now: &Timestamp) -> FrameId {
        // A clock that is set back does not turn the order round.
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
    fn ids_are_of_version_7_and_rise() {
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
