//! The names that clients choose: of rooms, of users, and of messages (nonces).
//!
//! `parse` normalises a name (NFC, trimmed) and refuses characters that a name must not have.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use unicode_normalization::UnicodeNormalization;

use crate::limits::{NONCE_CHARS_MAX, ROOM_CHARS_MAX, USERNAME_CHARS_MAX};

/// The room of a connection that does not name one.
pub const ROOM_DEFAULT: &str = "general";
/// The name of a client that does not give one.
pub const USERNAME_DEFAULT: &str = "Anonymous";
/// The prefix of private conversations, `dm:<id>:<id>`. A client can't join one by its name.
const DIRECT_PREFIX: &str = "dm:";

const ZERO_WIDTH_NON_JOINER: char = '\u{200C}';
const ZERO_WIDTH_JOINER: char = '\u{200D}';

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is empty or only white space.
    #[error("must not be empty")]
    Empty,
    /// It is longer than this number of characters.
    #[error("must have at most {0} characters")]
    TooLong(usize),
    /// It has a control character, a bidi control or an invisible character.
    #[error("must not contain invisible or control characters")]
    Invisible,
    /// It has only characters that show nothing.
    #[error("must contain a visible character")]
    Blank,
    /// It begins with a prefix that is reserved for the server.
    #[error("must not begin with “dm:”, which is reserved for private conversations")]
    Reserved,
    /// It is `.` or `..`, which URL parsers remove from a path (RFC 3986, section 5.2.4).
    #[error("must not be “.” or “..”, which URLs can't contain")]
    DotSegment,
}

/// A room's id, as in the URL, in NFC.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomId(Arc<str>);

impl RoomId {
    /// Reads a room id from a client.
    ///
    /// # Errors
    /// [`NameError`] if it is empty, longer than [`ROOM_CHARS_MAX`], reserved, a dot segment of a URL, or has invisible
    /// characters.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let room = Self::parse_to_read(text)?;
        if matches!(room.as_str(), "." | "..") { Err(NameError::DotSegment) } else { Ok(room) }
    }

    /// Reads the id of a room that may be older than today's rules of names. Such a room can be read, but not written.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), but a dot segment is accepted.
    pub fn parse_to_read(text: &str) -> Result<Self, NameError> {
        let name = visible_name(text, ROOM_CHARS_MAX)?;
        if name.starts_with(DIRECT_PREFIX) {
            return Err(NameError::Reserved);
        }
        Ok(Self(name.into()))
    }

    /// A stored id.
    #[must_use]
    pub fn stored(text: String) -> Self {
        Self(text.into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of a user. Two users may have the same name; their [`UserId`](super::UserId)s differ.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Username(Arc<str>);

impl Username {
    /// The name of a client that does not give one.
    #[must_use]
    pub fn anonymous() -> Self {
        Self(USERNAME_DEFAULT.into())
    }

    /// Reads a username from a client.
    ///
    /// # Errors
    /// [`NameError`] if it is empty, longer than [`USERNAME_CHARS_MAX`], or has invisible characters.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        Ok(Self(visible_name(text, USERNAME_CHARS_MAX)?.into()))
    }

    /// A stored name.
    #[must_use]
    pub fn stored(text: String) -> Self {
        Self(text.into())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A nonce: an idempotency key that the client chooses for a command. The answer repeats it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Nonce(Box<str>);

impl Nonce {
    /// Reads a nonce from a client. Any text is allowed, as it is only compared and sent back.
    ///
    /// # Errors
    /// [`NameError::TooLong`] above [`NONCE_CHARS_MAX`], [`NameError::Empty`] for an empty text.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > NONCE_CHARS_MAX && text.chars().count() > NONCE_CHARS_MAX {
            return Err(NameError::TooLong(NONCE_CHARS_MAX));
        }
        Ok(Self(text.into()))
    }

    /// The nonce as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Reads a visible line of text, such as a room's topic, by the rules of names. An empty line is allowed.
///
/// # Errors
/// [`NameError`] if it is longer than `chars_max`, or has invisible characters.
pub fn visible_line(text: &str, chars_max: usize) -> Result<Box<str>, NameError> {
    if text.trim().is_empty() { Ok(Box::default()) } else { Ok(visible_name(text, chars_max)?.into()) }
}

macro_rules! shown_as_text {
    ($($name:ident by $parse:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::$parse(&Cow::<str>::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }
    )*};
}
shown_as_text!(RoomId by parse_to_read, Username by parse, Nonce by parse);

/// Trims and normalises a name (NFC, UAX #15), and refuses names with invisible characters.
///
/// A joiner (ZWJ, ZWNJ) is part of emoji and of the spelling of Bengali and other languages. So it may stand between
/// two visible characters, but not at an edge, beside a space or beside another joiner.
fn visible_name(text: &str, chars_max: usize) -> Result<String, NameError> {
    let text = text.trim();
    // Bounds the work. NFC makes a text at most three times as long (UAX #15, table 6), and at least a third as long.
    // So a longer text can't become a valid name.
    if text.len() > chars_max * 4 * 3 {
        return Err(NameError::TooLong(chars_max));
    }
    let name: String = text.nfc().collect();
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.chars().count() > chars_max {
        return Err(NameError::TooLong(chars_max));
    }
    let mut before = ' ';
    // The added space makes the end of the name an edge like any other.
    for c in name.chars().chain([' ']) {
        let at_edge = |c: char| c.is_whitespace() || is_joiner(c);
        if is_invisible(c) || (is_joiner(c) && at_edge(before)) || (is_joiner(before) && at_edge(c)) {
            return Err(NameError::Invisible);
        }
        before = c;
    }
    if name.chars().all(is_blank) {
        return Err(NameError::Blank);
    }
    Ok(name)
}

/// Whether a text shows nothing: it has only spaces, control characters and invisible characters.
#[must_use]
pub fn shows_nothing(text: &str) -> bool {
    text.chars().all(|c| is_blank(c) || is_invisible(c))
}

/// Characters that are allowed in a name but show nothing by themselves: spaces and similar characters, joiners, and
/// variation selectors, which only change the character before them.
fn is_blank(c: char) -> bool {
    c.is_whitespace()
        || is_joiner(c)
        || matches!(c,
            '\u{2800}' | '\u{FE00}'..='\u{FE0F}' | '\u{FFFC}' | '\u{16FE4}' | '\u{1D159}' | '\u{E0100}'..='\u{E01EF}')
}

fn is_joiner(c: char) -> bool {
    c == ZERO_WIDTH_JOINER || c == ZERO_WIDTH_NON_JOINER
}

/// Control characters, bidi controls (UAX #9), line separators, zero-width and filler characters, and tags.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00AD}' | '\u{034F}' | '\u{061C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}'
            | '\u{180B}'..='\u{180F}' | '\u{200B}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}'
            | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E00FF}' | '\u{E01F0}'..='\u{E0FFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_names_are_kept_unchanged() {
        for name in [
            "Ana",
            "রহিম",
            "ক্ষমা",
            "র\u{200D}্যাব",
            "ক\u{09CD}\u{200C}ষ",
            "عمر",
            "می\u{200C}خواهم",
            "小明",
            "辻\u{E0100}",
            "José",
            "O'Neil-Smith",
            "a  b",
            "👩\u{200D}💻 dev",
            "☁\u{FE0F}",
            "👍🏽",
            "🇧🇩",
            "1\u{FE0F}\u{20E3}",
            "❤\u{FE0F}\u{200D}🔥",
            "👨\u{200D}👩\u{200D}👧\u{200D}👦",
            "🏳\u{FE0F}\u{200D}🌈",
            "⠃⠗⠇",
            "a\u{2800}b",
            "।",
            ".",
            "\u{09BE}",
        ] {
            assert_eq!(Username::parse(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn names_are_trimmed_and_composed() {
        assert_eq!(Username::parse("  Jose\u{301}\t").unwrap().as_str(), "José");
        // NFC decomposes Bengali YYA (composition exclusions).
        assert_eq!(Username::parse("\u{09DF}").unwrap().as_str(), "\u{09AF}\u{09BC}");
    }

    #[test]
    fn invisible_characters_are_refused() {
        for name in [
            "a\u{0}b",
            "a\nb",
            "a\u{7f}",
            "\u{202E}abc",
            "a\u{2066}b",
            "a\u{200B}b",
            "\u{200D}a",
            "a\u{200C}",
            "a\u{200D}\u{200C}b",
            "a\u{200D} b",
            "a \u{200D}b",
            "\u{FEFF}a",
            "a\u{2028}b",
            "\u{3164}",
            "a\u{E0041}",
            "a\u{200F}",
        ] {
            assert_eq!(Username::parse(name), Err(NameError::Invisible), "{name:?}");
        }
        for name in ["\u{115F}", "\u{1160}", "\u{FFA0}", "\u{17B4}", "\u{180E}", "\u{1D173}", "\u{E0080}", "\u{E0FFF}"]
        {
            assert_eq!(Username::parse(name), Err(NameError::Invisible), "{name:?}");
        }
        for name in [
            "\u{2800}",
            "\u{2800} \u{2800}",
            "\u{FE0F}",
            "\u{FE00}\u{FE0F}",
            "\u{E0100}",
            "\u{FE0F}\u{200D}\u{FE0F}",
            "\u{2800}\u{FE0F}",
            "\u{FE0E} \u{FE0E}",
            "\u{16FE4}",
            "\u{1D159}",
            "\u{FFFC}",
        ] {
            assert_eq!(Username::parse(name), Err(NameError::Blank), "{name:?}");
            assert_eq!(RoomId::parse(name), Err(NameError::Blank), "{name:?}");
        }
        for name in ["", "   ", "\t\n", "\u{3000}"] {
            assert_eq!(Username::parse(name), Err(NameError::Empty), "{name:?}");
        }
    }

    #[test]
    fn the_length_of_a_name_is_counted_in_characters() {
        assert!(Username::parse(&"ক".repeat(USERNAME_CHARS_MAX)).is_ok());
        assert_eq!(Username::parse(&"ক".repeat(USERNAME_CHARS_MAX + 1)), Err(NameError::TooLong(USERNAME_CHARS_MAX)));
        assert_eq!(RoomId::parse(&"a".repeat(100_000)), Err(NameError::TooLong(ROOM_CHARS_MAX)));
        assert!(Nonce::parse(&"🙂".repeat(NONCE_CHARS_MAX)).is_ok());
        assert_eq!(Nonce::parse(&"n".repeat(NONCE_CHARS_MAX + 1)), Err(NameError::TooLong(NONCE_CHARS_MAX)));
    }

    #[test]
    fn a_room_name_that_urls_cannot_contain_is_for_reading_only() {
        for name in [".", "..", " . ", "..\t"] {
            assert_eq!(RoomId::parse(name), Err(NameError::DotSegment), "{name:?}");
            assert!(RoomId::parse_to_read(name).is_ok(), "{name:?}");
        }
        for name in ["...", ".a", "a.", "a..b", "%2e", "%2E%2E", "a/b", "?", "#", "\\", "c:"] {
            assert_eq!(RoomId::parse(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn a_text_without_any_visible_character_shows_nothing() {
        for text in [
            "",
            " \n\t",
            "\u{200B}",
            "\u{200B} \u{200B}\n",
            "\u{2060}",
            "\u{FEFF}",
            "\u{200D}\u{FE0F}",
            "\u{202E}\u{202C}",
            "\u{3164}",
            "\u{2800}",
            "\u{AD}",
            "\u{E0041}",
            "\0\u{7F}",
            "\u{115F}\u{1160}",
        ] {
            assert!(shows_nothing(text), "{text:?}");
        }
        for text in [".", "\u{200B}a", "।", "\u{09BE}", "🦊", "☁\u{FE0F}", "\u{20E3}"] {
            assert!(!shows_nothing(text), "{text:?}");
        }
    }

    #[test]
    fn a_private_conversation_cannot_be_joined_by_name() {
        assert_eq!(RoomId::parse("dm:a:b"), Err(NameError::Reserved));
        assert_eq!(RoomId::parse(" dm:x"), Err(NameError::Reserved));
        assert!(RoomId::parse("dmitri").is_ok());
    }
}
