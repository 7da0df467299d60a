//! The wire's JSON, in and out: what a client may say, what the server answers, and the error codes.
//!
//! Pure: text in, values out, and the other way round. Nothing here knows of sockets, rooms or rates.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::limits::{self, Limits};
use crate::model::{FrameId, NameError, Nonce, Person, RoomId, Seq, Timestamp, UserId, Username};
use crate::role::{Posting, Role};

/// What went wrong with a frame, as its `code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Not JSON, or not with the fields that its type needs.
    BadJson,
    /// A type that the server does not take.
    BadType,
    /// A room id that can't be.
    BadRoom,
    /// A username or nonce that can't be.
    BadName,
    /// A text over its bound.
    TooLong,
    /// Too many frames; `retry_ms` says when to try again.
    RateLimited,
    /// Something named that is not there.
    NotFound,
    /// Something that this connection may not do.
    Forbidden,
    /// Something that contradicts what is so already.
    Conflict,
    /// The server can't now; try again.
    Busy,
}

/// The `type` of a frame that the server sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FrameType {
    /// The first frame of a room: who is there, and where its order stands.
    Welcome,
    /// A message.
    Text,
    /// A message of an admin's to all rooms.
    Announcement,
    /// Somebody came.
    Join,
    /// Somebody went.
    Leave,
    /// Somebody is writing.
    Typing,
    /// A command was not carried out.
    Error,
    /// A message was taken back.
    Delete,
    /// What is set of a room has changed, or was changed.
    Room,
    /// Whoever gets it is muted, or no longer; or has muted somebody.
    Mute,
    /// Whoever gets it has put somebody out of a room.
    Kick,
    /// Whoever gets it has banned somebody, or lets them in again.
    Ban,
}

impl FrameType {
    /// The kinds of messages, by their words on the wire and in the database.
    const MESSAGES: [(Self, &'static str); 3] =
        [(Self::Text, "text"), (Self::Announcement, "announcement"), (Self::Delete, "delete")];

    /// The word for a kind of message; that of a text for what is none.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::MESSAGES.iter().find(|(kind, _)| *kind == self).map_or("text", |(_, word)| word)
    }

    /// The kind of message that a word is for.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::MESSAGES.iter().find(|(_, known)| *known == word).map(|(kind, _)| *kind)
    }
}

/// A frame from the server. The first seven fields are on every one, so that the plainest client can show it.
#[derive(Debug, Clone, Serialize)]
pub struct Frame<'a> {
    /// The frame's own id.
    pub id: FrameId,
    /// The room that it is of.
    pub room_id: &'a RoomId,
    /// Who did it; in `welcome` and `error`, whom it is for.
    pub user_id: UserId,
    /// Their name.
    pub username: &'a Username,
    /// The text, or a sentence about what happened.
    pub content: &'a str,
    /// What kind of frame it is.
    #[serde(rename = "type")]
    pub kind: FrameType,
    /// When, by the server's clock.
    pub timestamp: &'a Timestamp,
    /// Its place in the room's order; in `welcome`, the last one taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<Seq>,
    /// As the author gave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nonce: Option<&'a Nonce>,
    /// The stored frame that this one answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<FrameId>,
    /// The stored frame that this one is about, where it is no message of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<FrameId>,
    /// When the message was taken back; then its content is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<&'a Timestamp>,
    /// Set on the answer to a message that was sent again: it is stored already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<bool>,
    /// What only frames of its kind have.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub own: Option<Own<'a>>,
}

/// The further fields of frames of one kind.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Own<'a> {
    /// Of a `welcome`.
    Welcome(Welcome<'a>),
    /// Of an `error`.
    Failure(Failure),
    /// Of a `room`.
    Room {
        /// All that is set.
        room: RoomShown<'a>,
    },
    /// Of a `mute`.
    Mute {
        /// Until when, if they are.
        muted_until: Option<Timestamp>,
    },
}

/// What is set of a room, as it is told everywhere.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct RoomShown<'a> {
    /// Which.
    pub id: &'a RoomId,
    /// What it is called: by its id, where nothing else is set.
    pub name: &'a str,
    /// What it is about; may be empty.
    pub topic: &'a str,
    /// Who may post there.
    pub posting: Posting,
    /// How many seconds somebody waits from one message to their next; 0 is no slow mode.
    pub slow_mode_s: u32,
    /// Whether only its members see it.
    pub private: bool,
}

/// The further fields of a `welcome`.
#[derive(Debug, Clone, Serialize)]
pub struct Welcome<'a> {
    /// What whoever gets it may do here.
    pub role: Role,
    /// What is set of the room, where anything is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<RoomShown<'a>>,
    /// Until when whoever gets it may say nothing, if they may not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub muted_until: Option<Timestamp>,
    /// Who is here, [`limits::MEMBERS_LISTED_MAX`] at most.
    pub members: Vec<Person>,
    /// How many are here.
    pub member_count: usize,
    /// For a new guest, once: what brings the same `user_id` back. A secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<&'a str>,
    /// Set where `after` could not be honoured: what follows is the latest history, with a gap before it.
    pub reset: bool,
    /// What the server takes.
    pub limits: &'a LimitsShown,
}

/// The bounds that a client wants to know.
#[derive(Debug, Clone, Serialize)]
pub struct LimitsShown {
    content_bytes: usize,
    message_bytes: usize,
    room_chars: usize,
    username_chars: usize,
    nonce_chars: usize,
    rooms_per_connection: usize,
    history: usize,
    rate_per_s: u32,
    burst: u32,
}

impl From<&Limits> for LimitsShown {
    fn from(limits: &Limits) -> Self {
        Self {
            content_bytes: limits.content_bytes_max,
            message_bytes: limits::MESSAGE_BYTES_MAX,
            room_chars: limits::ROOM_CHARS_MAX,
            username_chars: limits::USERNAME_CHARS_MAX,
            nonce_chars: limits::NONCE_CHARS_MAX,
            rooms_per_connection: limits::ROOMS_PER_CONNECTION_MAX,
            history: limits::HISTORY_MAX,
            rate_per_s: limits.rate_per_s,
            burst: limits.rate_burst,
        }
    }
}

/// The further fields of an `error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// What went wrong.
    pub code: ErrorCode,
    /// After how many milliseconds it may be tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_ms: Option<u64>,
}

impl<'a> Frame<'a> {
    /// A frame with no more than every frame has.
    #[must_use]
    pub fn new(
        id: FrameId,
        room_id: &'a RoomId,
        person: &'a Person,
        content: &'a str,
        kind: FrameType,
        timestamp: &'a Timestamp,
    ) -> Self {
        Self {
            id,
            room_id,
            user_id: person.id,
            username: &person.username,
            content,
            kind,
            timestamp,
            seq: None,
            nonce: None,
            reply_to: None,
            message_id: None,
            deleted_at: None,
            duplicate: None,
            own: None,
        }
    }

    /// Appends the frame's JSON to `bytes`.
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        // Writing to a Vec can't fail, and no field is of a kind that JSON lacks.
        let encoded = serde_json::to_writer(bytes, self);
        debug_assert!(encoded.is_ok());
    }
}

/// The JSON body of an error over HTTP: `{"error":"…","code":"…"}`.
#[must_use]
pub fn http_error(sentence: &str, code: &str) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        error: &'a str,
        code: &'a str,
    }
    serde_json::to_vec(&Body { error: sentence, code }).unwrap_or_default()
}

/// What is to be stored, and seen by a room in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Something said in a room.
    Text {
        /// What.
        content: Box<str>,
        /// What it answers.
        reply_to: Option<FrameId>,
    },
    /// Something said in every room.
    Announcement {
        /// What.
        content: Box<str>,
    },
    /// A message is taken back: its author's own, or by an admin.
    Delete {
        /// Which.
        message_id: FrameId,
    },
}

impl Body {
    /// The type of its frame.
    #[must_use]
    pub fn kind(&self) -> FrameType {
        match self {
            Self::Text { .. } => FrameType::Text,
            Self::Announcement { .. } => FrameType::Announcement,
            Self::Delete { .. } => FrameType::Delete,
        }
    }

    /// What it says; nothing where it says nothing.
    #[must_use]
    pub fn content(&self) -> &str {
        match self {
            Self::Text { content, .. } | Self::Announcement { content } => content,
            Self::Delete { .. } => "",
        }
    }

    /// What it answers.
    #[must_use]
    pub fn reply_to(&self) -> Option<FrameId> {
        if let Self::Text { reply_to, .. } = self { *reply_to } else { None }
    }

    /// The message that it is about, where it is none of its own.
    #[must_use]
    pub fn message_id(&self) -> Option<FrameId> {
        if let Self::Delete { message_id } = self { Some(*message_id) } else { None }
    }
}

/// A command of a client, checked. No room means the one of the connection's URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientFrame {
    /// Something to be stored.
    Message {
        /// Where.
        room: Option<RoomId>,
        /// The client's own mark on it.
        nonce: Option<Nonce>,
        /// What.
        body: Body,
    },
    /// Something that admins do to keep order.
    Measure {
        /// Where.
        room: Option<RoomId>,
        /// The client's own mark on it.
        nonce: Option<Nonce>,
        /// What.
        measure: Box<Measure>,
    },
    /// The sender is writing.
    Typing {
        /// Where.
        room: Option<RoomId>,
        /// The client's own mark on it.
        nonce: Option<Nonce>,
    },
    /// This connection comes to another room.
    Join {
        /// Which.
        room: Option<RoomId>,
        /// How much of its past, and since when.
        replay: Replay,
        /// The client's own mark on it.
        nonce: Option<Nonce>,
    },
    /// This connection goes from a room.
    Leave {
        /// Which.
        room: Option<RoomId>,
        /// The client's own mark on it.
        nonce: Option<Nonce>,
    },
}

impl ClientFrame {
    /// The client's own mark on the command.
    #[must_use]
    pub fn into_nonce(self) -> Option<Nonce> {
        match self {
            Self::Message { nonce, .. } | Self::Measure { nonce, .. } | Self::Typing { nonce, .. } => nonce,
            Self::Join { nonce, .. } | Self::Leave { nonce, .. } => nonce,
        }
    }

    /// Whether it may be what was sent before and is stored, whatever speaks against it now.
    #[must_use]
    pub fn may_be_a_retry(&self) -> bool {
        matches!(self, Self::Message { nonce: Some(_), .. })
    }
}

/// Something that admins do to keep order, as it was said and not yet looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Measure {
    /// Puts somebody out of the room.
    Kick(UserId),
    /// Keeps somebody from speaking, or out; or no longer.
    Restrain(UserId, Restraint),
    /// Sets what is said of the room.
    SetRoom(RoomChange),
}

impl Measure {
    /// The type of the frame that asks for it, and of the one that tells that it is done.
    #[must_use]
    pub fn kind(&self) -> FrameType {
        match self {
            Self::Kick(_) => FrameType::Kick,
            Self::Restrain(_, restraint) if restraint.banned.is_some() => FrameType::Ban,
            Self::Restrain(..) => FrameType::Mute,
            Self::SetRoom(_) => FrameType::Room,
        }
    }
}

/// A change of what somebody is kept from: the body of `PUT /api/users/{id}`, and the fields of `mute` and `ban`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restraint {
    /// A moment (RFC 3339), or `null` to let them speak again.
    #[serde(default, deserialize_with = "said")]
    pub muted_until: Option<Option<String>>,
    /// Whether they are kept out.
    pub banned: Option<BanSaid>,
}

/// A ban as it is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BanSaid {
    /// For good, or no longer.
    Plain(bool),
    /// With more.
    With(BanTerms),
}

/// For how long, why, and how far somebody is banned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BanTerms {
    /// A moment (RFC 3339); for good where none is said.
    pub until: Option<String>,
    /// Why, for the other admins.
    #[serde(default)]
    pub reason: String,
    /// Whether a guest's addresses are banned, too, for guests.
    #[serde(default)]
    pub address: bool,
}

/// By its shape, and without a copy of what comes, however deep that is.
impl<'de> Deserialize<'de> for BanSaid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = BanSaid;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(r#"true, false or {"until","reason","address"}"#)
            }

            fn visit_bool<E>(self, is_banned: bool) -> Result<BanSaid, E> {
                Ok(BanSaid::Plain(is_banned))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<BanSaid, A::Error> {
                BanTerms::deserialize(MapAccessDeserializer::new(map)).map(BanSaid::With)
            }
        }
        deserializer.deserialize_any(Shape)
    }
}

/// A change of what is set of a room: the body of `PATCH /api/rooms/{id}`, and the fields of `room`. What is not said
/// stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoomChange {
    /// What it is called.
    pub name: Option<String>,
    /// What it is about.
    pub topic: Option<String>,
    /// Who may post there.
    pub posting: Option<Posting>,
    /// Seconds from somebody's message to their next.
    pub slow_mode_s: Option<u32>,
    /// Whether only members see it.
    pub private: Option<bool>,
}

/// A field that may be said to be nothing, which is not the same as not being there.
fn said<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// What a join wants of a room's past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replay {
    /// How many of the last stored frames.
    pub history: usize,
    /// Instead: all that came after this one.
    pub after: Option<After>,
}

/// The `after` of a join: the id of the last stored frame that the client saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// An id of ours, perhaps of a frame that is no longer kept.
    Id(FrameId),
    /// Something that no frame of ours ever had: a gap by definition.
    Unknown,
}

impl After {
    /// Reads the `after` of a client; whatever it is, the answer to an unknown one is a reset.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        FrameId::parse(text).map_or(Self::Unknown, Self::Id)
    }
}

/// Why a client's frame was not taken, for its `error`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// What went wrong.
    pub code: ErrorCode,
    /// In a sentence.
    pub sentence: Cow<'static, str>,
    /// The nonce, where it could be read.
    pub nonce: Option<Nonce>,
    /// When it may be tried again.
    pub retry_ms: Option<u64>,
}

impl Rejected {
    /// A rejection that trying again won't change.
    #[must_use]
    pub fn new(code: ErrorCode, sentence: impl Into<Cow<'static, str>>, nonce: Option<Nonce>) -> Self {
        Self { code, sentence: sentence.into(), nonce, retry_ms: None }
    }
}

/// A string that borrows from the frame where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A client's JSON as it comes; fields that no command of ours has are passed over.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    content: Option<Text<'a>>,
    #[serde(borrow)]
    message: Option<Text<'a>>,
    #[serde(borrow)]
    room_id: Option<Text<'a>>,
    #[serde(borrow)]
    nonce: Option<Text<'a>>,
    #[serde(borrow)]
    reply_to: Option<Text<'a>>,
    #[serde(borrow)]
    message_id: Option<Text<'a>>,
    #[serde(borrow)]
    user_id: Option<Text<'a>>,
    #[serde(borrow)]
    after: Option<Text<'a>>,
    history: Option<u64>,
}

/// All that is wanted of a frame that can't be read: whose mark it bears.
#[derive(Deserialize)]
struct NonceOnly<'a> {
    #[serde(borrow)]
    nonce: Option<Text<'a>>,
}

/// Reads one text frame of a client. A frame that does not begin with `{` is a message as typed.
///
/// # Errors
/// [`Rejected`], ready to be sent back as an `error`.
pub fn decode(text: &str, limits: &Limits) -> Result<ClientFrame, Rejected> {
    if !text.starts_with('{') {
        let typed = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
        let content = checked_content(typed, limits, None)?;
        return Ok(ClientFrame::Message { room: None, nonce: None, body: Body::Text { content, reply_to: None } });
    }
    let fields: Fields<'_> = serde_json::from_str(text).map_err(|error| {
        let nonce = serde_json::from_str::<NonceOnly<'_>>(text).ok().and_then(|fields| fields.nonce);
        let nonce = nonce.and_then(|nonce| Nonce::parse(&nonce.0).ok());
        let sentence = if error.is_data() {
            format!("a field is not what it should be: {error}")
        } else {
            format!("this is not JSON: {error}")
        };
        Rejected::new(ErrorCode::BadJson, sentence, nonce)
    })?;
    let nonce = match &fields.nonce {
        None => None,
        Some(text) => Some(Nonce::parse(&text.0).map_err(|error| {
            Rejected::new(
                name_error_code(error, ErrorCode::BadName),
                format!("the nonce can't be taken: {error}"),
                None,
            )
        })?),
    };
    let room = match &fields.room_id {
        None => None,
        Some(text) => match RoomId::parse(&text.0) {
            Ok(room) => Some(room),
            Err(error) => {
                let sentence = format!("the room's name can't be taken: {error}");
                return Err(Rejected::new(name_error_code(error, ErrorCode::BadRoom), sentence, nonce));
            }
        },
    };
    match fields.kind.as_ref().map_or("text", |kind| &*kind.0) {
        kind @ ("text" | "announcement") => {
            let Some(content) = fields.content.as_ref().or(fields.message.as_ref()) else {
                return Err(Rejected::new(ErrorCode::BadJson, "a message needs its content", nonce));
            };
            let content = checked_content(&content.0, limits, nonce.as_ref())?;
            if kind == "announcement" {
                return Ok(ClientFrame::Message { room, nonce, body: Body::Announcement { content } });
            }
            let reply_to = match &fields.reply_to {
                None => None,
                Some(text) => match FrameId::parse(&text.0) {
                    Some(id) => Some(id),
                    None => return Err(Rejected::new(ErrorCode::NotFound, NO_SUCH_REPLY, nonce)),
                },
            };
            Ok(ClientFrame::Message { room, nonce, body: Body::Text { content, reply_to } })
        }
        "delete" => {
            let Some(id) = &fields.message_id else {
                return Err(Rejected::new(ErrorCode::BadJson, "say by message_id which message", nonce));
            };
            match FrameId::parse(&id.0) {
                Some(message_id) => Ok(ClientFrame::Message { room, nonce, body: Body::Delete { message_id } }),
                None => Err(Rejected::new(ErrorCode::NotFound, NO_SUCH_MESSAGE, nonce)),
            }
        }
        kind @ ("kick" | "mute" | "ban" | "room") => match measure(kind, text, fields.user_id.as_ref()) {
            Ok(measure) => Ok(ClientFrame::Measure { room, nonce, measure: Box::new(measure) }),
            Err(rejected) => Err(Rejected { nonce, ..rejected }),
        },
        "typing" => Ok(ClientFrame::Typing { room, nonce }),
        "leave" => Ok(ClientFrame::Leave { room, nonce }),
        "join" => {
            let history =
                fields.history.map_or(limits.history_default, |count| count.min(limits::HISTORY_MAX as u64) as usize);
            let after = fields.after.as_ref().map(|text| After::parse(&text.0));
            Ok(ClientFrame::Join { room, replay: Replay { history, after }, nonce })
        }
        kind => {
            let shown: String = kind.chars().take(32).collect();
            Err(Rejected::new(ErrorCode::BadType, format!("“{shown}” is not a type that is taken here"), nonce))
        }
    }
}

/// Said where a message answers one that is not kept.
pub const NO_SUCH_REPLY: &str = "there is no message to reply to by that id";
/// Said where something is to be done to a message that is not kept, or was taken back.
pub const NO_SUCH_MESSAGE: &str = "there is no message by that id in this room";
/// Said where something is to be done to somebody whom nobody knows.
pub const NO_SUCH_USER: &str = "there is nobody by that id";

/// Reads a command that keeps order. Its fields are those of the same thing over HTTP.
fn measure(kind: &str, text: &str, user: Option<&Text<'_>>) -> Result<Measure, Rejected> {
    let bad = |sentence: String| Rejected::new(ErrorCode::BadJson, sentence, None);
    let user = || match user.map(|id| Uuid::try_parse(&id.0)) {
        None => Err(bad("say by user_id whom".into())),
        Some(Err(_)) => Err(Rejected::new(ErrorCode::NotFound, NO_SUCH_USER, None)),
        Some(Ok(id)) => Ok(UserId(id)),
    };
    let not_so = |error: serde_json::Error| bad(format!("a field is not what it should be: {error}"));
    // Values are left as they stand: a deep one is never walked, as nothing here is.
    let mut fields: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(text).map_err(not_so)?;
    fields.retain(|name, _| !["type", "room_id", "nonce", "user_id"].contains(&&**name));
    let fields = serde_json::to_string(&fields).map_err(not_so)?;
    match kind {
        "kick" => Ok(Measure::Kick(user()?)),
        "room" => Ok(Measure::SetRoom(serde_json::from_str(&fields).map_err(not_so)?)),
        kind => {
            let restraint: Restraint = serde_json::from_str(&fields).map_err(not_so)?;
            let is_said = match kind {
                "mute" => restraint.muted_until.is_some() && restraint.banned.is_none(),
                _ => restraint.banned.is_some() && restraint.muted_until.is_none(),
            };
            if !is_said {
                let field = if kind == "mute" { "muted_until" } else { "banned" };
                return Err(bad(format!("say {field}, and nothing else")));
            }
            Ok(Measure::Restrain(user()?, restraint))
        }
    }
}

/// A message's text, if it can be one.
///
/// # Errors
/// [`Rejected`], for an empty text or one over its bound.
pub fn checked_content(content: &str, limits: &Limits, nonce: Option<&Nonce>) -> Result<Box<str>, Rejected> {
    if content.len() > limits.content_bytes_max {
        let sentence =
            format!("a message is {} bytes at most; this one has {}", limits.content_bytes_max, content.len());
        return Err(Rejected::new(ErrorCode::TooLong, sentence, nonce.cloned()));
    }
    if content.trim().is_empty() {
        return Err(Rejected::new(ErrorCode::BadJson, "the message is empty", nonce.cloned()));
    }
    Ok(content.into())
}

/// A name that is too long is that first of all; otherwise it is bad in its own way.
fn name_error_code(error: NameError, otherwise: ErrorCode) -> ErrorCode {
    if matches!(error, NameError::TooLong(_)) { ErrorCode::TooLong } else { otherwise }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { content_bytes_max: 100, ..Limits::default() }
    }

    fn text(content: &str) -> ClientFrame {
        let body = Body::Text { content: content.into(), reply_to: None };
        ClientFrame::Message { room: None, nonce: None, body }
    }

    #[test]
    fn a_message_comes_in_many_spellings() {
        for (frame, content) in [
            (r#"{"type":"text","content":"hi"}"#, "hi"),
            (r#"{"content":"হ্যালো"}"#, "হ্যালো"),
            (r#"{"message":"hi"}"#, "hi"),
            (r#"{"content":"hi","message":"other"}"#, "hi"),
            (r#"{"content":"line\nnext","extra":[1,{"a":null}]}"#, "line\nnext"),
            ("hello there", "hello there"),
            ("as typed\n", "as typed"),
            ("[1,2]", "[1,2]"),
            (" {not json", " {not json"),
        ] {
            assert_eq!(decode(frame, &limits()), Ok(text(content)), "{frame}");
        }
    }

    #[test]
    fn commands_carry_their_fields() {
        let room = RoomId::parse("tea").unwrap();
        let nonce = Some(Nonce::parse("n1").unwrap());
        let id = "0192f7a0-0000-7000-8000-000000000001";
        assert_eq!(
            decode(&format!(r#"{{"content":"x","room_id":" tea ","nonce":"n1","reply_to":"{id}"}}"#), &limits()),
            Ok(ClientFrame::Message {
                room: Some(room.clone()),
                nonce: nonce.clone(),
                body: Body::Text { content: "x".into(), reply_to: FrameId::parse(id) },
            })
        );
        assert_eq!(
            decode(&format!(r#"{{"type":"join","room_id":"tea","after":"{id}","history":9999}}"#), &limits()),
            Ok(ClientFrame::Join {
                room: Some(room.clone()),
                replay: Replay { history: limits::HISTORY_MAX, after: Some(After::parse(id)) },
                nonce: None
            })
        );
        assert_eq!(
            decode(r#"{"type":"leave","room_id":"tea","nonce":"n1"}"#, &limits()),
            Ok(ClientFrame::Leave { room: Some(room), nonce: nonce.clone() })
        );
        assert_eq!(
            decode(r#"{"type":"typing","nonce":"n1"}"#, &limits()),
            Ok(ClientFrame::Typing { room: None, nonce })
        );
    }

    const USER: &str = "0192f7a0-0000-7000-8000-000000000002";

    #[test]
    fn order_is_kept_by_commands_too() {
        let user = UserId(Uuid::try_parse(USER).unwrap());
        let until = Some(Some("2026-01-31T12:00:00Z".to_owned()));
        let mute = |muted_until| Measure::Restrain(user, Restraint { muted_until, banned: None });
        let ban = |banned| Measure::Restrain(user, Restraint { muted_until: None, banned: Some(banned) });
        let with = BanSaid::With(BanTerms { until: None, reason: "loud".into(), address: true });
        let topic = RoomChange { topic: Some("tea".into()), slow_mode_s: Some(5), ..RoomChange::default() };
        for (fields, expected) in [
            (format!(r#""type":"kick","user_id":"{USER}""#), Measure::Kick(user)),
            (format!(r#""type":"mute","user_id":"{USER}","muted_until":"2026-01-31T12:00:00Z""#), mute(until)),
            (format!(r#""type":"mute","user_id":"{USER}","muted_until":null"#), mute(Some(None))),
            (format!(r#""type":"ban","user_id":"{USER}","banned":false"#), ban(BanSaid::Plain(false))),
            (format!(r#""type":"ban","user_id":"{USER}","banned":{{"reason":"loud","address":true}}"#), ban(with)),
            (r#""type":"room","topic":"tea","slow_mode_s":5"#.to_owned(), Measure::SetRoom(topic)),
        ] {
            let (room, nonce) = (RoomId::parse("tea").ok(), Nonce::parse("n").ok());
            let decoded = decode(&format!(r#"{{{fields},"room_id":"tea","nonce":"n"}}"#), &limits());
            let measure = Box::new(expected);
            assert_eq!(decoded, Ok(ClientFrame::Measure { room, nonce, measure }), "{fields}");
        }
    }

    #[test]
    fn what_is_wrong_has_its_code_and_its_nonce() {
        use ErrorCode::*;
        let long = "x".repeat(101);
        let deep = format!("{}1{}", r#"{"a":"#.repeat(120), "}".repeat(120));
        for (frame, code, with_nonce) in [
            (r#"{"content":"#.to_string(), BadJson, false),
            (r#"{"content":5,"nonce":"n"}"#.to_string(), BadJson, true),
            (r#"{"nonce":"n"}"#.to_string(), BadJson, true),
            (r#"{"content":"  \n","nonce":"n"}"#.to_string(), BadJson, true),
            (r#"{"type":"dance","nonce":"n"}"#.to_string(), BadType, true),
            (r#"{"content":"x","room_id":"a\u0000","nonce":"n"}"#.to_string(), BadRoom, true),
            (r#"{"content":"x","room_id":"dm:a:b","nonce":"n"}"#.to_string(), BadRoom, true),
            (format!(r#"{{"content":"x","nonce":"{long}"}}"#), TooLong, false),
            (r#"{"content":"x","nonce":""}"#.to_string(), BadName, false),
            (format!(r#"{{"content":"{long}","nonce":"n"}}"#), TooLong, true),
            (r#"{"content":"x","reply_to":"42","nonce":"n"}"#.to_string(), NotFound, true),
            (r#"{"type":"delete","nonce":"n"}"#.to_string(), BadJson, true),
            (r#"{"type":"delete","message_id":"42","nonce":"n"}"#.to_string(), NotFound, true),
            (r#"{"type":"kick","nonce":"n"}"#.to_string(), BadJson, true),
            (r#"{"type":"kick","user_id":"ana","nonce":"n"}"#.to_string(), NotFound, true),
            (format!(r#"{{"type":"mute","user_id":"{USER}","nonce":"n"}}"#), BadJson, true),
            (format!(r#"{{"type":"mute","user_id":"{USER}","banned":true,"nonce":"n"}}"#), BadJson, true),
            (format!(r#"{{"type":"ban","user_id":"{USER}","banned":7,"nonce":"n"}}"#), BadJson, true),
            (format!(r#"{{"type":"ban","user_id":"{USER}","muted_until":null,"nonce":"n"}}"#), BadJson, true),
            (format!(r#"{{"type":"ban","user_id":"{USER}","banned":{deep},"nonce":"n"}}"#), BadJson, true),
            (format!(r#"{{"type":"room","topic":{deep},"nonce":"n"}}"#), BadJson, true),
            (r#"{"type":"room","slow_mode":5,"nonce":"n"}"#.to_string(), BadJson, true),
            (r#"{"type":"room","posting":"nobody","nonce":"n"}"#.to_string(), BadJson, true),
            (long.clone(), TooLong, false),
            (" ".to_string(), BadJson, false),
        ] {
            let rejected = decode(&frame, &limits()).unwrap_err();
            assert_eq!((rejected.code, rejected.nonce.is_some()), (code, with_nonce), "{frame}");
            assert!(!rejected.sentence.is_empty());
        }
    }

    #[test]
    fn a_frame_has_its_seven_fields_and_no_empty_ones() {
        let mut bytes = Vec::new();
        let person = Person { id: UserId(Uuid::nil()), username: Username::parse("রহিম").unwrap() };
        let (id, room, now) = (FrameId(Uuid::nil()), RoomId::parse("tea").unwrap(), Timestamp::at(1_700_000_000_123));
        let frame = Frame::new(id, &room, &person, "\"হ্যালো\"\n", FrameType::Text, &now);
        Frame { seq: Some(Seq(7)), ..frame }.encode(&mut bytes);
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            concat!(
                r#"{"id":"00000000-0000-0000-0000-000000000000","room_id":"tea","#,
                r#""user_id":"00000000-0000-0000-0000-000000000000","username":"রহিম","content":"\"হ্যালো\"\n","#,
                r#""type":"text","timestamp":"2023-11-14T22:13:20.123Z","seq":7}"#
            )
        );
    }
}
