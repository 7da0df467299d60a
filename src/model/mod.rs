//! The nouns of the chat: ids, names and sequence numbers, each its own type.
//!
//! A value of one of these types is valid: text from outside becomes one only through `parse`, which
//! normalises it (NFC, trimmed) and refuses what must not be in a name; what is stored was let in by the rules of its day,
//! and is taken as it is. Nothing here does I/O.

pub mod reason;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use unicode_normalization::UnicodeNormalization;
use uuid::Uuid;

use crate::limits::{NONCE_CHARS_MAX, ROOM_CHARS_MAX, USERNAME_CHARS_MAX};

/// The room of a connection that names none.
pub const ROOM_DEFAULT: &str = "general";
/// The name of a person who gives none.
pub const USERNAME_DEFAULT: &str = "Anonymous";
/// Conversations of two are called `dm:<id>:<id>`. No client joins one by its name.
const DIRECT_PREFIX: &str = "dm:";

const ZERO_WIDTH_NON_JOINER: char = '\u{200C}';
const ZERO_WIDTH_JOINER: char = '\u{200D}';

/// Why a text can't be a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing is left once the white space around it is gone.
    #[error("it is empty")]
    Empty,
    /// More characters than the bound, which is given.
    #[error("it is longer than {0} characters")]
    TooLong(usize),
    /// A control, a bidi control, or an invisible character.
    #[error("it has an invisible or control character")]
    Invisible,
    /// Nothing but characters that show as nothing.
    #[error("there is nothing to see in it")]
    Blank,
    /// A prefix that the server keeps for itself.
    #[error("names that begin with “dm:” are kept for private conversations")]
    Reserved,
}

/// A room's id: what stands in the URL, in NFC.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomId(Arc<str>);

impl RoomId {
    /// Reads a room id as a client gave it.
    ///
    /// # Errors
    /// [`NameError`] where it is empty, over [`ROOM_CHARS_MAX`], has invisible characters or is reserved.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let name = visible_name(text, ROOM_CHARS_MAX)?;
        if name.starts_with(DIRECT_PREFIX) {
            return Err(NameError::Reserved);
        }
        Ok(Self(name.into()))
    }

    /// An id as it is stored.
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

/// What a person is called. Two people may bear one name; their [`UserId`]s tell them apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Username(Arc<str>);

impl Username {
    /// The name of a client that gives none.
    #[must_use]
    pub fn anonymous() -> Self {
        Self(USERNAME_DEFAULT.into())
    }

    /// Reads a username as a client gave it.
    ///
    /// # Errors
    /// [`NameError`] where it is empty, over [`USERNAME_CHARS_MAX`] or has invisible characters.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        Ok(Self(visible_name(text, USERNAME_CHARS_MAX)?.into()))
    }

    /// A name as it is stored.
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

/// A client's own mark on a command, given back in the answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Nonce(Box<str>);

impl Nonce {
    /// Reads a nonce as a client gave it; any text will do, as it is only ever given back.
    ///
    /// # Errors
    /// [`NameError::TooLong`] over [`NONCE_CHARS_MAX`], [`NameError::Empty`] for no text.
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

/// A place in a room's order of stored frames: 1, 2, 3 … without gaps; 0 is before the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Seq(pub u64);

impl Seq {
    /// The place after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The id of a user, the same on all of the user's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(pub Uuid);

/// A frame's id; for a stored one, what a client resumes after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameId(pub Uuid);

impl FrameId {
    /// Reads an id as a client gave it back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().map(Self)
    }

    /// When it was made, in milliseconds since 1970 (RFC 9562, section 5.7).
    #[must_use]
    pub fn unix_ms(self) -> u64 {
        (self.0.as_u128() >> 80) as u64
    }
}

/// One accepted connection, counted from 1 since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConnectionId(pub u64);

/// A person as others see them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Person {
    /// Who it is.
    pub id: UserId,
    /// What they are called.
    pub username: Username,
}

/// A moment, read from the clock once per batch: RFC 3339, UTC, milliseconds.
#[derive(Debug, Clone)]
pub struct Timestamp {
    /// Milliseconds since 1970.
    pub unix_ms: u64,
    text: String,
}

impl Timestamp {
    /// The moment at so many milliseconds since 1970.
    #[must_use]
    pub fn at(unix_ms: u64) -> Self {
        let moment = i64::try_from(unix_ms).ok().and_then(DateTime::<Utc>::from_timestamp_millis).unwrap_or_default();
        Self { unix_ms, text: moment.to_rfc3339_opts(SecondsFormat::Millis, true) }
    }

    /// This moment.
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

/// Reads a line of text that people see, such as a room's topic, by the rules of names; nothing is a line, too.
///
/// # Errors
/// [`NameError`] where it is over so many characters, or has invisible ones.
pub fn visible_line(text: &str, chars_max: usize) -> Result<Box<str>, NameError> {
    if text.trim().is_empty() { Ok(Box::default()) } else { Ok(visible_name(text, chars_max)?.into()) }
}

macro_rules! shown_as_text {
    ($($name:ident),*) => {$(
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
                Self::parse(&Cow::<str>::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }
    )*};
}
shown_as_text!(RoomId, Username, Nonce);

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

/// Trims and normalises a name (NFC, UAX #15), and refuses what a reader could not see in it.
///
/// A joiner (ZWJ, ZWNJ) is part of Bengali and other spellings and of emoji, so it may stand between two
/// visible characters, but not at an edge, beside a space or beside another joiner.
fn visible_name(text: &str, chars_max: usize) -> Result<String, NameError> {
    let text = text.trim();
    // A bound on the work: NFC never makes a text more than three times as long (UAX #15, table 6).
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
    // A space behind the last character makes its end an edge like any other.
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

/// What may stand in a name, and is nothing by itself: spaces and what shows as one, joiners, and variation selectors,
/// which only change what stands before them.
fn is_blank(c: char) -> bool {
    c.is_whitespace()
        || is_joiner(c)
        || matches!(c,
            '\u{2800}' | '\u{FE00}'..='\u{FE0F}' | '\u{FFFC}' | '\u{16FE4}' | '\u{1D159}' | '\u{E0100}'..='\u{E01EF}')
}

fn is_joiner(c: char) -> bool {
    c == ZERO_WIDTH_JOINER || c == ZERO_WIDTH_NON_JOINER
}

/// Controls, bidi controls (UAX #9), separators of lines, zero-width and filler characters, and tags.
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
    fn names_that_people_have_are_kept_as_they_are() {
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
        // Bengali YYA is one of the letters that NFC keeps apart (composition exclusions).
        assert_eq!(Username::parse("\u{09DF}").unwrap().as_str(), "\u{09AF}\u{09BC}");
    }

    #[test]
    fn what_nobody_can_see_is_refused() {
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
    fn a_name_is_counted_in_characters() {
        assert!(Username::parse(&"ক".repeat(USERNAME_CHARS_MAX)).is_ok());
        assert_eq!(Username::parse(&"ক".repeat(USERNAME_CHARS_MAX + 1)), Err(NameError::TooLong(USERNAME_CHARS_MAX)));
        assert_eq!(RoomId::parse(&"a".repeat(100_000)), Err(NameError::TooLong(ROOM_CHARS_MAX)));
        assert!(Nonce::parse(&"🙂".repeat(NONCE_CHARS_MAX)).is_ok());
        assert_eq!(Nonce::parse(&"n".repeat(NONCE_CHARS_MAX + 1)), Err(NameError::TooLong(NONCE_CHARS_MAX)));
    }

    #[test]
    fn rooms_of_two_cannot_be_joined_by_name() {
        assert_eq!(RoomId::parse("dm:a:b"), Err(NameError::Reserved));
        assert_eq!(RoomId::parse(" dm:x"), Err(NameError::Reserved));
        assert!(RoomId::parse("dmitri").is_ok());
    }
}
