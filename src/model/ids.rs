//! Ids and numbers that the server assigns.
//!
//! The ids of frames are UUIDs of version 7 (RFC 9562, section 5.7), so they sort by their time. Their random part is
//! drawn once and incremented for each id. So an id costs no system call, and the ids of one maker are always in order.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::{Builder, Uuid};

use super::Timestamp;

/// The number of a stored frame in its room: 1, 2, 3 … without gaps; 0 is before the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Seq(pub u64);

impl Seq {
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The id of a user, the same on all of the user's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(pub Uuid);

/// The id of a frame. A client resumes after the id of a stored frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameId(pub Uuid);

impl FrameId {
    /// Reads an id from a client.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().map(Self)
    }

    /// Whether it is an id as the server makes them for frames, which sort by their time.
    #[must_use]
    pub fn is_ordered(self) -> bool {
        self.0.get_version_num() == 7
    }

    /// The time of its creation, in milliseconds since 1970 (RFC 9562, section 5.7).
    #[must_use]
    pub fn unix_ms(self) -> u64 {
        (self.0.as_u128() >> 80) as u64
    }
}

/// The number of an accepted connection since the start, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConnectionId(pub u64);

macro_rules! shown_as_uuid {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.0.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Uuid::try_parse(&Cow::<str>::deserialize(deserializer)?).map(Self).map_err(serde::de::Error::custom)
            }
        }
    )*};
}
shown_as_uuid!(UserId, FrameId);

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
