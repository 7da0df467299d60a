//! Encodings: how a JSON frame becomes the bytes of a connection.
//!
//! Pure functions over byte buffers, without sockets, clocks or state. They run on the caller's thread. The hub keeps
//! one batch per encoding. The bytes of each encoding are in a file of their own.

mod ndjson;
pub mod websocket;

use std::time::Duration;

use crate::limits::STREAM_KEEP_ALIVE_INTERVAL_MAX;

/// How the frames of one connection are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Each frame is a WebSocket text message.
    Json,
    /// Each frame is one line.
    Ndjson,
}

impl Encoding {
    /// All encodings, each at its [`index`](Self::index).
    pub const ALL: [Self; 2] = [Self::Json, Self::Ndjson];
    /// The length of a table with one entry per encoding.
    pub const COUNT: usize = Self::ALL.len();

    /// The index in a table with one entry per encoding.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Appends a frame. `json` is one JSON object without a line break.
    pub fn append_frame(self, bytes: &mut Vec<u8>, json: &[u8]) {
        match self {
            Self::Json => websocket::append_text(bytes, json),
            Self::Ndjson => ndjson::append_line(bytes, json),
        }
    }

    /// Appends a keep-alive. It shows an idle client, and each proxy in between, that the connection is alive.
    pub fn append_keep_alive(self, bytes: &mut Vec<u8>) {
        match self {
            Self::Json => bytes.extend_from_slice(websocket::PING),
            Self::Ndjson => ndjson::append_line(bytes, &[]),
        }
    }

    /// Appends the reason for the end of the connection. Appends nothing if the encoding can't express a reason.
    pub fn append_close(self, bytes: &mut Vec<u8>, reason: CloseReason) {
        match self {
            Self::Json => websocket::append_close(bytes, reason),
            Self::Ndjson => {}
        }
    }

    /// Returns the end of the frame that contains the byte before `position`, or 0 for position 0. `bytes` begins with
    /// a frame and holds whole frames.
    #[must_use]
    pub fn frame_end(self, bytes: &[u8], position: usize) -> usize {
        match self {
            Self::Json => websocket::frame_end(bytes, position),
            Self::Ndjson => ndjson::frame_end(bytes, position),
        }
    }

    /// The time between two keep-alives. A WebSocket client answers them, so the configured interval applies. A stream
    /// is one-way: its keep-alives only have to come more often than the time-outs of proxies.
    #[must_use]
    pub fn keep_alive_interval(self, ping_interval: Duration) -> Duration {
        match self {
            Self::Json => ping_interval,
            Self::Ndjson => ping_interval.min(STREAM_KEEP_ALIVE_INTERVAL_MAX),
        }
    }
}

/// The reason why the server ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The server stops.
    GoingAway,
    /// The client violated the protocol.
    Protocol,
    /// The client sent text that is not UTF-8.
    Utf8,
    /// The client sent nothing for too long, or took too long to send one message.
    Idle,
    /// The client sent one message in too many frames.
    Pieces,
    /// The client continued after many refusals.
    Abuse,
    /// The client sent a message over the size limit.
    TooLarge,
    /// The client reads too slowly.
    SlowConsumer,
    /// The session has ended, or the user is banned.
    SessionEnded,
    /// The server can't admit the client at this moment.
    Busy,
    /// The history that the client was catching up with is no longer stored, or can't be read now.
    Overtaken,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// JSON whose lengths are close to each step of the frame header's size.
    fn frames() -> Vec<String> {
        [0, 1, 115, 116, 117, 300, 70_000].map(|length| format!(r#"{{"a":"{}"}}"#, "x".repeat(length))).into()
    }

    #[test]
    fn frame_end_is_the_end_of_the_frame_at_a_position() {
        for encoding in Encoding::ALL {
            let mut bytes = Vec::new();
            let mut ends = vec![0];
            for json in frames() {
                encoding.append_frame(&mut bytes, json.as_bytes());
                ends.push(bytes.len());
                encoding.append_keep_alive(&mut bytes);
                ends.push(bytes.len());
            }
            for position in 0..=bytes.len() {
                let expected = ends.iter().find(|end| **end >= position);
                assert_eq!(Some(&encoding.frame_end(&bytes, position)), expected, "{encoding:?} {position}");
            }
        }
    }

    #[test]
    fn an_incomplete_frame_ends_with_the_bytes() {
        for encoding in Encoding::ALL {
            let mut bytes = Vec::new();
            encoding.append_frame(&mut bytes, frames()[5].as_bytes());
            for length in 1..bytes.len() {
                assert_eq!(encoding.frame_end(&bytes[..length], length), length, "{encoding:?} {length}");
            }
        }
    }

    #[test]
    fn each_encoding_has_its_own_bytes() {
        for (encoding, frame, keep_alive) in
            [(Encoding::Json, &b"\x81\x02{}"[..], &b"\x89\x00"[..]), (Encoding::Ndjson, b"{}\n", b"\n")]
        {
            let mut bytes = Vec::new();
            encoding.append_frame(&mut bytes, b"{}");
            assert_eq!(bytes, frame);
            bytes.clear();
            encoding.append_keep_alive(&mut bytes);
            assert_eq!(bytes, keep_alive);
        }
        let mut bytes = Vec::new();
        Encoding::Ndjson.append_close(&mut bytes, CloseReason::GoingAway);
        assert_eq!(bytes, b"");
        Encoding::Json.append_close(&mut bytes, CloseReason::GoingAway);
        assert_eq!(bytes, websocket::close_frame(CloseReason::GoingAway));
    }

    #[test]
    fn a_stream_gets_keep_alives_as_often_as_proxies_need_them() {
        for (encoding, ping_interval_s, expected_s) in
            [(Encoding::Json, 25, 25), (Encoding::Json, 1, 1), (Encoding::Ndjson, 25, 15), (Encoding::Ndjson, 1, 1)]
        {
            let interval = encoding.keep_alive_interval(Duration::from_secs(ping_interval_s));
            assert_eq!(interval, Duration::from_secs(expected_s), "{encoding:?}");
        }
    }

    #[test]
    fn each_encoding_is_at_its_index() {
        assert!(Encoding::ALL.iter().enumerate().all(|(index, encoding)| encoding.index() == index));
    }
}
