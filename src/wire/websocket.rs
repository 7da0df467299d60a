//! WebSocket bytes (RFC 6455): the frames that the server sends, and its close codes.
//!
//! Pure functions; they run on the caller's thread. Frames from a server are not masked (section 5.1), so all members
//! of a room can get the same bytes.

use super::CloseReason;

/// The first byte of a complete frame: FIN and the opcode (section 5.2).
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
/// An empty ping.
pub(super) const PING: &[u8] = &[0x89, 0];

/// Appends a complete text frame.
pub fn append_text(bytes: &mut Vec<u8>, payload: &[u8]) {
    append(bytes, TEXT, payload);
}

/// Appends a complete binary frame.
pub fn append_binary(bytes: &mut Vec<u8>, payload: &[u8]) {
    append(bytes, BINARY, payload);
}

/// Appends a close frame with its code and text (section 5.5.1).
pub(super) fn append_close(bytes: &mut Vec<u8>, reason: CloseReason) {
    let (code, text) = status(reason);
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(text.as_bytes());
    append(bytes, CLOSE, &payload);
}

/// A close frame with its code and text (section 5.5.1).
#[must_use]
pub fn close_frame(reason: CloseReason) -> Vec<u8> {
    let mut bytes = Vec::new();
    append_close(&mut bytes, reason);
    bytes
}

/// The close code (section 7.4.1) and a text of at most 123 bytes.
fn status(reason: CloseReason) -> (u16, &'static str) {
    match reason {
        CloseReason::GoingAway => (1001, "the server is stopping"),
        CloseReason::Protocol => (1002, "protocol error"),
        CloseReason::Utf8 => (1007, "invalid UTF-8"),
        CloseReason::Idle => (1008, "idle timeout"),
        CloseReason::Pieces => (1008, "too many fragments in a message"),
        CloseReason::Abuse => (1008, "too many rejected frames"),
        CloseReason::SessionEnded => (1008, "session ended"),
        CloseReason::TooLarge => (1009, "message too large: at most 64 KiB"),
        CloseReason::SlowConsumer => (1013, "slow consumer; reconnect to resume"),
        CloseReason::Busy => (1013, "the server is busy; reconnect"),
        CloseReason::Overtaken => (1013, "missed frames are no longer stored; reconnect to resume"),
    }
}

fn append(bytes: &mut Vec<u8>, first: u8, payload: &[u8]) {
    bytes.push(first);
    match payload.len() {
        length @ 0..=125 => bytes.push(length as u8),
        length @ 126..=0xFFFF => {
            bytes.push(126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(payload);
}

/// See [`Encoding::frame_end`](super::Encoding::frame_end).
pub(super) fn frame_end(bytes: &[u8], position: usize) -> usize {
    let mut end = 0;
    while end < position {
        let length = match bytes.get(end + 1) {
            Some(126) => bytes.get(end + 2..end + 4).map(|n| 4 + usize::from(u16::from_be_bytes([n[0], n[1]]))),
            Some(127) => bytes
                .get(end + 2..end + 10)
                .and_then(|n| n.try_into().ok())
                .and_then(|n| usize::try_from(u64::from_be_bytes(n)).ok())
                .map(|n| 10 + n),
            Some(short) => Some(2 + usize::from(*short)),
            None => None,
        };
        match length {
            Some(length) => end += length,
            None => return bytes.len(),
        }
    }
    end.min(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_header_uses_the_shortest_length_form() {
        for (payload, header) in [
            (0, vec![0x81, 0]),
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (65_535, vec![0x81, 126, 255, 255]),
            (65_536, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut bytes = Vec::new();
            append_text(&mut bytes, &vec![b'x'; payload]);
            assert_eq!(bytes.len(), header.len() + payload);
            assert_eq!(bytes[..header.len()], header);
        }
    }

    #[test]
    fn every_close_frame_has_its_code_and_fits_a_control_frame() {
        for (reason, code) in [
            (CloseReason::GoingAway, 1001_u16),
            (CloseReason::Protocol, 1002),
            (CloseReason::Utf8, 1007),
            (CloseReason::Idle, 1008),
            (CloseReason::Pieces, 1008),
            (CloseReason::Abuse, 1008),
            (CloseReason::SessionEnded, 1008),
            (CloseReason::TooLarge, 1009),
            (CloseReason::SlowConsumer, 1013),
            (CloseReason::Busy, 1013),
            (CloseReason::Overtaken, 1013),
        ] {
            let bytes = close_frame(reason);
            assert_eq!(bytes[0], 0x88);
            assert_eq!(usize::from(bytes[1]), bytes.len() - 2);
            assert!(bytes.len() <= 127);
            assert_eq!(bytes[2..4], code.to_be_bytes(), "{reason:?}");
        }
    }
}
