//! Points in time, as frames show them.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer};

/// A point in time, read from the clock once per batch. Its text is RFC 3339, UTC, with milliseconds.
#[derive(Debug, Clone)]
pub struct Timestamp {
    /// Milliseconds since 1970.
    pub unix_ms: u64,
    text: String,
}

impl Timestamp {
    /// The time at this number of milliseconds since 1970.
    #[must_use]
    pub fn at(unix_ms: u64) -> Self {
        let moment = i64::try_from(unix_ms).ok().and_then(DateTime::<Utc>::from_timestamp_millis).unwrap_or_default();
        Self { unix_ms, text: moment.to_rfc3339_opts(SecondsFormat::Millis, true) }
    }

    #[must_use]
    pub fn now() -> Self {
        Self::at(u64::try_from(Utc::now().timestamp_millis()).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}
