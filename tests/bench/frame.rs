//! The wire format for the generator (RFC 6455, section 5): finds the frames in a server's bytes, and writes a
//! client's. Pure.

use std::io;

/// The first byte of an unfragmented text frame, a close, a ping and a pong.
pub const TEXT: u8 = 0x81;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8a;

/// A frame of a server: unmasked and unfragmented.
pub struct Frame<'a> {
    pub head: u8,
    pub payload: &'a [u8],
    /// Bytes on the wire, with the frame head.
    pub wire_bytes: usize,
}

/// The frame at the beginning of `bytes`; `None` while it is incomplete.
///
/// # Errors
/// A masked frame, which no server may send, or a fragmented one, which ours never sends.
pub fn first(bytes: &[u8]) -> io::Result<Option<Frame<'_>>> {
    let &[head, short, ..] = bytes else { return Ok(None) };
    if !matches!(head, TEXT | CLOSE | PING | PONG) || short & 0x80 != 0 {
        return Err(io::Error::other(format!("the server sent a frame beginning {head:#04x} {short:#04x}")));
    }
    let (start, length) = match (short, bytes) {
        (126, &[_, _, a, b, ..]) => (4, usize::from(u16::from_be_bytes([a, b]))),
        (127, &[_, _, 0, 0, 0, 0, a, b, c, d, ..]) => (10, u32::from_be_bytes([a, b, c, d]) as usize),
        (126 | 127, _) => return Ok(None),
        _ => (2, usize::from(short)),
    };
    let wire_bytes = start + length;
    Ok(bytes.get(start..wire_bytes).map(|payload| Frame { head, payload, wire_bytes }))
}

/// Appends a masked client frame. The payload must be short enough for a one-byte length.
pub fn write_masked(out: &mut Vec<u8>, head: u8, mask: [u8; 4], payload: &[u8]) {
    debug_assert!(payload.len() < 126);
    out.extend([head, 0x80 | payload.len() as u8]);
    out.extend(mask);
    let start = out.len();
    out.extend(payload);
    for four in out[start..].chunks_mut(4) {
        for (byte, key) in four.iter_mut().zip(mask) {
            *byte ^= key;
        }
    }
}

/// The content of the generator's messages: the time of sending, its number at its sender, and the sender. It is always
/// `BYTES` long, so that all frames of a load have the same size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    pub sent_ns: u64,
    pub counter: u32,
    pub sender: u16,
}

impl Stamp {
    pub const BYTES: usize = 40;

    /// The content: `0000000000000000 00000000 0000 adda-load`.
    pub fn content(&self) -> [u8; Self::BYTES] {
        let mut content = *b"0000000000000000 00000000 0000 adda-load";
        write_hex(&mut content[..16], self.sent_ns);
        write_hex(&mut content[17..25], self.counter.into());
        write_hex(&mut content[26..30], self.sender.into());
        content
    }

    /// Reads a stamp from the start of a content; `None` if it is not one of the generator's.
    pub fn read(content: &[u8]) -> Option<Self> {
        let content = content.get(..Self::BYTES)?;
        content.ends_with(b" adda-load").then_some(())?;
        Some(Self {
            sent_ns: read_hex(&content[..16])?,
            counter: read_hex(&content[17..25])? as u32,
            sender: read_hex(&content[26..30])? as u16,
        })
    }

    /// Appends the command that sends this message, with its own nonce.
    pub fn write_command(&self, out: &mut Vec<u8>) {
        let mut json =
            *br#"{"type":"text","content":"0000000000000000 00000000 0000 adda-load","nonce":"0000.00000000"}"#;
        let content = self.content();
        json[26..26 + Self::BYTES].copy_from_slice(&content);
        json[77..81].copy_from_slice(&content[26..30]);
        json[82..90].copy_from_slice(&content[17..25]);
        let mask = (self.sent_ns as u32 ^ self.counter.wrapping_mul(0x9e37_79b9)).to_ne_bytes();
        write_masked(out, TEXT, mask, &json);
    }
}

fn write_hex(digits: &mut [u8], value: u64) {
    let mut value = value;
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

fn read_hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(digit))
    })
}

/// A field of the server's JSON. Similar frames have it at the same position, so the last position is tried first.
pub struct Field {
    key: &'static [u8],
    at: usize,
}

impl Field {
    /// A field by its key, as written in the JSON: with quotes and colon, and with the opening quote of a string.
    pub fn new(key: &'static str) -> Self {
        Self { key: key.as_bytes(), at: 0 }
    }

    /// The bytes behind the key.
    pub fn find<'a>(&mut self, json: &'a [u8]) -> Option<&'a [u8]> {
        if !json.get(self.at..).is_some_and(|rest| rest.starts_with(self.key)) {
            self.at = json.windows(self.key.len()).position(|window| window == self.key)?;
        }
        Some(&json[self.at + self.key.len()..])
    }

    /// The whole number behind the key.
    pub fn number(&mut self, json: &[u8]) -> Option<u64> {
        let digits = self.find(json)?;
        let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
        std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
    }
}
