//! The chat protocol's JSON: the frames of clients, the frames of the server, and the error codes.
//!
//! Pure functions from text to values and back, which run on the caller's thread. This module must not depend on
//! sockets, the hub or rate limits.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::DateTime;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::limits::{self, LABEL_CHARS_MAX, Limits, ROOM_NAME_CHARS_MAX, SLOW_MODE_S_MAX, TOPIC_CHARS_MAX};
use crate::model::reason::{Reason, Rejection};
use crate::model::{FrameId, Nonce, Person, RoomId, Seq, Timestamp, UserId, Username, visible_line};
use crate::role::{Posting, Role};

/// The `type` of a frame that the server sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FrameType {
    /// The first frame of a room: the people in it, and its last seq.
    Welcome,
    /// A message.
    Text,
    /// A message of an admin to all rooms.
    Announcement,
    /// A person joined the room.
    Join,
    /// A person left the room.
    Leave,
    /// People joined or left a room that has many people.
    Presence,
    /// A person is typing.
    Typing,
    /// A command failed.
    Error,
    /// A message was deleted.
    Delete,
    /// The settings of a room have changed. Also the answer to the command that changed them.
    Room,
    /// The receiver is muted, or no longer muted. Also the answer to the command `mute`.
    Mute,
    /// The answer to the command `kick`.
    Kick,
    /// The answer to the command `ban`.
    Ban,
}

impl FrameType {
    /// The kinds of messages, with their names in frames and in the database.
    const MESSAGES: [(Self, &'static str); 3] =
        [(Self::Text, "text"), (Self::Announcement, "announcement"), (Self::Delete, "delete")];

    /// The name of a kind of message. Other frame types return the name of a text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::MESSAGES.iter().find(|(kind, _)| *kind == self).map_or("text", |(_, word)| word)
    }

    /// Whether a stored frame of this kind is an event: a change of a message, not a message.
    #[must_use]
    pub fn is_event(self) -> bool {
        self == Self::Delete
    }

    /// The kind of message with this name.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::MESSAGES.iter().find(|(_, known)| *known == word).map(|(kind, _)| *kind)
    }
}

/// A frame from the server. Every frame has the first seven fields, so that even a very simple client can show it.
#[derive(Debug, Clone, Serialize)]
pub struct Frame<'a> {
    /// The id of this frame.
    pub id: FrameId,
    pub room_id: &'a RoomId,
    /// The user that caused the frame. In `welcome` and `error` it is the receiver.
    pub user_id: UserId,
    pub username: &'a Username,
    /// The text of a message, or a sentence about the event.
    pub content: &'a str,
    /// The type of the frame.
    #[serde(rename = "type")]
    pub kind: FrameType,
    /// The time of the frame, by the server's clock.
    pub timestamp: &'a Timestamp,
    /// The seq of the frame in its room. In `welcome`, it is the last seq of the room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<Seq>,
    /// The nonce as the author sent it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nonce: Option<&'a Nonce>,
    /// The stored frame to which this frame replies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<FrameId>,
    /// The stored frame that this frame is about, if this frame is an event and not a message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<FrameId>,
    /// The time when the message was deleted. A deleted message has no content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<&'a Timestamp>,
    /// Set in the answer to a retry: the message was already stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<bool>,
    /// The fields that only frames of this type have.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub own: Option<Own<'a>>,
}

/// The additional fields of one frame type.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Own<'a> {
    /// The fields of a `welcome`.
    Welcome(Welcome<'a>),
    /// The fields of an `error`.
    Failure(Failure),
    /// The fields of a `room`.
    Room {
        /// All settings of the room.
        room: RoomSettingsView<'a>,
    },
    /// The fields of a `presence`.
    Presence(Presence<'a>),
    /// The fields of a `mute`.
    Mute {
        /// The end of the mute, if the receiver is muted.
        muted_until: Option<Timestamp>,
    },
}

/// The settings of a room, as JSON shows them.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct RoomSettingsView<'a> {
    pub id: &'a RoomId,
    /// The name of the room. It is the room's id if no name is set.
    pub name: &'a str,
    /// The topic of the room; may be empty.
    pub topic: &'a str,
    /// The role that is needed to post in the room.
    pub posting: Posting,
    /// The number of seconds that a user must wait between two messages; 0 means no slow mode.
    pub slow_mode_s: u32,
    /// Whether only members can see the room.
    pub private: bool,
}

/// The additional fields of a `welcome`.
#[derive(Debug, Clone, Serialize)]
pub struct Welcome<'a> {
    /// The role of the receiver.
    pub role: Role,
    /// The settings of the room, if any are set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<RoomSettingsView<'a>>,
    /// The end of the receiver's mute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub muted_until: Option<Timestamp>,
    /// The people in the room, at most [`limits::MEMBERS_LISTED_MAX`].
    pub members: Vec<Arc<Person>>,
    /// The number of people in the room.
    pub member_count: usize,
    /// For a new guest, once: the token with which the client can reconnect under the same `user_id`. A secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<&'a str>,
    /// Set if the server can't replay from `after`. The latest history follows, with a gap before it.
    pub reset: bool,
    /// The limits of the server.
    pub limits: &'a LimitsShown,
}

/// The additional fields of a `presence`.
#[derive(Debug, Clone, Serialize)]
pub struct Presence<'a> {
    /// The number of people in the room.
    pub member_count: usize,
    /// People who joined, at most [`limits::PRESENCE_NAMES_MAX`].
    pub joined: Vec<&'a Person>,
    /// People who left, at most as many.
    pub left: Vec<&'a Person>,
}

/// The limits that clients need to know.
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

/// The additional fields of an `error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Failure {
    pub code: &'static str,
    pub reason: Reason,
    /// The number of milliseconds after which a retry may succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_ms: Option<u64>,
}

impl<'a> Frame<'a> {
    /// A frame with only the fields that every frame has.
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
        // Writing to a Vec can't fail, and JSON can express the type of every field.
        let encoded = serde_json::to_writer(bytes, self);
        debug_assert!(encoded.is_ok());
    }
}

/// The JSON body of an error over HTTP: `{"error":"…","code":"…","reason":"…"}`.
#[must_use]
pub fn http_error(reason: Reason, sentence: &str) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        error: &'a str,
        code: &'a str,
        reason: Reason,
    }
    serde_json::to_vec(&Body { error: sentence, code: reason.code().as_str(), reason }).unwrap_or_default()
}

/// An entry to be stored, which members of a room see in the room's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// A message in one room.
    Text {
        content: Box<str>,
        /// The message to which it replies.
        reply_to: Option<FrameId>,
    },
    /// A message in every room.
    Announcement { content: Box<str> },
    /// The deletion of a message, by its author or by an admin.
    Delete { message_id: FrameId },
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

    /// The text of the message; empty for a deletion.
    #[must_use]
    pub fn content(&self) -> &str {
        match self {
            Self::Text { content, .. } | Self::Announcement { content } => content,
            Self::Delete { .. } => "",
        }
    }

    /// The message to which it replies.
    #[must_use]
    pub fn reply_to(&self) -> Option<FrameId> {
        if let Self::Text { reply_to, .. } = self { *reply_to } else { None }
    }

    /// The message that it is about, if it is not a message.
    #[must_use]
    pub fn message_id(&self) -> Option<FrameId> {
        if let Self::Delete { message_id } = self { Some(*message_id) } else { None }
    }
}

/// A frame from a client, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFrame {
    /// `None` means the room of the connection's URL.
    pub room: Option<RoomId>,
    /// Copied to the answer. It tells a retry of a message from a new message.
    pub nonce: Option<Nonce>,
    pub command: ClientCommand,
}

/// A client's command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCommand {
    /// Store a message or a deletion.
    Message(Body),
    /// An admin command.
    Admin(Box<AdminAction>),
    /// Show the room that the sender is typing.
    Typing,
    /// Join another room.
    Join(Replay),
    Leave,
}

impl ClientFrame {
    /// Whether it may be a retry of a stored message. A retry is answered with the stored message, even if a new
    /// message would be refused.
    #[must_use]
    pub fn may_be_a_retry(&self) -> bool {
        self.nonce.is_some() && matches!(self.command, ClientCommand::Message(_))
    }
}

/// A moderation command of an admin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminAction {
    Kick(UserId),
    /// Mutes or bans a user, or ends a mute or ban.
    Restrict(UserId, Restrictions),
    SetRoom(RoomPatch),
}

impl AdminAction {
    /// The frame type of the command, and of its answer.
    #[must_use]
    pub fn kind(&self) -> FrameType {
        match self {
            Self::Kick(_) => FrameType::Kick,
            Self::Restrict(_, restrictions) if restrictions.ban.is_some() => FrameType::Ban,
            Self::Restrict(..) => FrameType::Mute,
            Self::SetRoom(_) => FrameType::Room,
        }
    }
}

/// Changes to the restrictions of a user. `None` keeps the current value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restrictions {
    /// The end of the mute: a wall time in milliseconds since 1970. 0 ends a mute.
    pub mute_until_ms: Option<u64>,
    pub ban: Option<BanChange>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BanChange {
    Lift,
    Ban {
        /// The end of the ban, as a wall time; `None` is a permanent ban.
        until_ms: Option<u64>,
        reason: Box<str>,
        /// Whether guests from the addresses of a banned guest are banned, too.
        by_address: bool,
    },
}

/// Changes to the settings of a room. `None` keeps the current value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoomPatch {
    pub name: Option<Box<str>>,
    pub topic: Option<Box<str>>,
    pub posting: Option<Posting>,
    pub slow_mode_s: Option<u32>,
    #[serde(rename = "private")]
    pub is_private: Option<bool>,
}

/// Reads the body of `PUT /api/users/{id}`, or the fields of `mute` and `ban`.
///
/// # Errors
/// If a field is invalid.
pub fn restrictions(json: &str) -> Result<Restrictions, Rejection> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fields<'a> {
        /// A timestamp (RFC 3339), or `null` to end a mute.
        #[serde(default, deserialize_with = "said")]
        muted_until: Option<Option<String>>,
        /// `false`, `true` for a permanent ban, or the terms of a ban. Kept as raw JSON, so that no deeply nested value
        /// is parsed.
        #[serde(borrow)]
        banned: Option<&'a RawValue>,
    }
    let Fields { muted_until, banned } = serde_json::from_str(json).map_err(bad_field)?;
    let mute_until_ms = muted_until.map(|until| until.as_deref().map_or(Ok(0), moment)).transpose()?;
    let ban = match banned.map(RawValue::get) {
        None => None,
        Some("false") => Some(BanChange::Lift),
        Some("true") => Some(BanTerms::default().read()?),
        // A sequence would be taken for the fields in their order.
        Some(terms) if !terms.starts_with('{') => return Err(Reason::MalformedField.because(BAN_SHAPE)),
        Some(terms) => Some(serde_json::from_str::<BanTerms>(terms).map_err(bad_field)?.read()?),
    };
    if mute_until_ms.is_none() && ban.is_none() {
        return Err(Reason::BadField.because("say muted_until, or banned, or both"));
    }
    Ok(Restrictions { mute_until_ms, ban })
}

/// Reads a patch of a room's settings from JSON.
///
/// # Errors
/// If a field is invalid.
pub fn room_patch(json: &str) -> Result<RoomPatch, Rejection> {
    let patch: RoomPatch = serde_json::from_str(json).map_err(bad_field)?;
    if patch.slow_mode_s.is_some_and(|s| s > SLOW_MODE_S_MAX) {
        return Err(Reason::BadField.because("slow_mode_s is a number of seconds, an hour at most"));
    }
    let line = |what, text: Option<Box<str>>, chars_max| text.map(|text| line(what, &text, chars_max)).transpose();
    let name = line("name", patch.name, ROOM_NAME_CHARS_MAX)?;
    let topic = line("topic", patch.topic, TOPIC_CHARS_MAX)?;
    Ok(RoomPatch { name, topic, ..patch })
}

fn bad_field(error: serde_json::Error) -> Rejection {
    if error.is_data() {
        Reason::MalformedField.because(format!("a field is not what it should be: {error}"))
    } else {
        Reason::BadJson.because(format!("this is not JSON: {error}"))
    }
}

/// Parses a timestamp (RFC 3339) into milliseconds since 1970.
fn moment(text: &str) -> Result<u64, Rejection> {
    let moment = DateTime::parse_from_rfc3339(text);
    let moment = moment.map_err(|_| Reason::BadField.because("a moment looks like 2026-01-31T12:00:00Z"))?;
    Ok(u64::try_from(moment.timestamp_millis()).unwrap_or(0))
}

/// Checks a line of text that is shown to users.
fn line(what: &str, text: &str, chars_max: usize) -> Result<Box<str>, Rejection> {
    visible_line(text, chars_max).map_err(|error| Reason::BadName.of_name(what, error))
}

/// The sentence for a value of `banned` that is none.
const BAN_SHAPE: &str = r#"banned is true, false or {"until","reason","address"}"#;

/// The terms of a ban, as in JSON.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct BanTerms {
    /// The end of the ban, as a timestamp (RFC 3339); `None` is a permanent ban.
    until: Option<String>,
    /// The reason, shown to other admins.
    #[serde(default)]
    reason: String,
    /// Whether guests from the addresses of a banned guest are banned, too.
    #[serde(default)]
    address: bool,
}

impl BanTerms {
    fn read(self) -> Result<BanChange, Rejection> {
        let until_ms = self.until.as_deref().map(moment).transpose()?;
        let reason = line("reason", &self.reason, LABEL_CHARS_MAX)?;
        Ok(BanChange::Ban { until_ms, reason, by_address: self.address })
    }
}

/// Tells a field that is `null` from a field that is missing: `null` is `Some(None)`.
fn said<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// The history that a join asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replay {
    /// The number of the latest stored messages.
    pub history: usize,
    /// If set, all stored frames after this frame are sent instead.
    pub after: Option<After>,
}

/// The `after` of a join: the id of the last stored frame that the client saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum After {
    /// The id of a stored frame, which may no longer be kept.
    Id(FrameId),
    /// A value that can't be the id of a frame. The answer is a reset.
    Unknown,
}

impl After {
    /// Parses the `after` of a client. An invalid value is not an error: the answer to an unknown id is a reset.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        FrameId::parse(text).map_or(Self::Unknown, Self::Id)
    }
}

/// The reason why a client's frame was refused, for its `error` frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    pub rejection: Rejection,
    /// The nonce of the frame, if it could be read.
    pub nonce: Option<Nonce>,
}

impl Rejected {
    #[must_use]
    pub fn new(rejection: impl Into<Rejection>, nonce: Option<Nonce>) -> Self {
        Self { rejection: rejection.into(), nonce }
    }
}

/// A string that borrows from the frame if it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The fields of a client's JSON. Unknown fields are ignored.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    content: Option<Text<'a>>,
    message: Option<Text<'a>>,
    room_id: Option<Text<'a>>,
    nonce: Option<Text<'a>>,
    reply_to: Option<Text<'a>>,
    message_id: Option<Text<'a>>,
    user_id: Option<Text<'a>>,
    after: Option<Text<'a>>,
    history: Option<u64>,
}

/// For a frame that can't be decoded: only its nonce, for the answer.
#[derive(Deserialize)]
struct NonceOnly<'a> {
    #[serde(borrow)]
    nonce: Option<Text<'a>>,
}

/// Decodes one text frame of a client. A frame that does not begin with `{` is the plain text of a message.
///
/// # Errors
/// [`Rejected`], ready to be sent back as an `error`.
pub fn decode(text: &str, limits: &Limits) -> Result<ClientFrame, Rejected> {
    if !text.starts_with('{') {
        let typed = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
        let content = checked_content(typed, limits).map_err(|rejection| Rejected::new(rejection, None))?;
        let command = ClientCommand::Message(Body::Text { content, reply_to: None });
        return Ok(ClientFrame { room: None, nonce: None, command });
    }
    let fields: Fields<'_> = serde_json::from_str(text).map_err(|error| {
        let nonce = serde_json::from_str::<NonceOnly<'_>>(text).ok().and_then(|fields| fields.nonce);
        let nonce = nonce.and_then(|nonce| Nonce::parse(&nonce.0).ok());
        Rejected::new(bad_field(error), nonce)
    })?;
    let nonce = fields.nonce.as_ref().map(|text| Nonce::parse(&text.0)).transpose();
    let nonce = nonce.map_err(|error| Rejected::new(Reason::BadName.of_name("nonce", error), None))?;
    match room_and_command(&fields, text, limits) {
        Ok((room, command)) => Ok(ClientFrame { room, nonce, command }),
        Err(rejection) => Err(Rejected { rejection, nonce }),
    }
}

fn room_and_command(
    fields: &Fields<'_>,
    text: &str,
    limits: &Limits,
) -> Result<(Option<RoomId>, ClientCommand), Rejection> {
    let room = fields.room_id.as_ref().map(|text| RoomId::parse(&text.0)).transpose();
    let room = room.map_err(|error| Reason::BadRoom.of_name("room's name", error))?;
    let command = match fields.kind.as_ref().map_or("text", |kind| &*kind.0) {
        kind @ ("text" | "announcement") => {
            let content = fields.content.as_ref().or(fields.message.as_ref());
            let content = content.ok_or_else(|| Reason::MalformedField.because("a message needs its content"))?;
            let content = checked_content(&content.0, limits)?;
            if kind == "announcement" {
                ClientCommand::Message(Body::Announcement { content })
            } else {
                let reply_to = fields.reply_to.as_ref();
                let reply_to = reply_to.map(|id| FrameId::parse(&id.0).ok_or(Reason::NoSuchReply)).transpose()?;
                ClientCommand::Message(Body::Text { content, reply_to })
            }
        }
        "delete" => {
            let id = fields.message_id.as_ref();
            let id = id.ok_or_else(|| Reason::MalformedField.because("say by message_id which message"))?;
            let message_id = FrameId::parse(&id.0).ok_or(Reason::NoSuchMessage)?;
            ClientCommand::Message(Body::Delete { message_id })
        }
        kind @ ("kick" | "mute" | "ban" | "room") => {
            ClientCommand::Admin(Box::new(admin_action(kind, text, fields.user_id.as_ref())?))
        }
        "typing" => ClientCommand::Typing,
        "leave" => ClientCommand::Leave,
        "join" => {
            let history =
                fields.history.map_or(limits.history_default, |count| count.min(limits::HISTORY_MAX as u64) as usize);
            let after = fields.after.as_ref().map(|text| After::parse(&text.0));
            ClientCommand::Join(Replay { history, after })
        }
        kind => {
            let shown: String = kind.chars().take(32).collect();
            return Err(Reason::UnknownType.because(format!("“{shown}” is not a type that is taken here")));
        }
    };
    Ok((room, command))
}

/// Reads an admin command. Its fields are the same as in the HTTP API.
fn admin_action(kind: &str, text: &str, user: Option<&Text<'_>>) -> Result<AdminAction, Rejection> {
    let user = || match user.map(|id| Uuid::try_parse(&id.0)) {
        None => Err(Reason::MalformedField.because("say by user_id whom")),
        Some(Err(_)) => Err(Reason::NoSuchUser.into()),
        Some(Ok(id)) => Ok(UserId(id)),
    };
    // Values are kept as raw JSON, so that no deeply nested value is parsed here.
    let mut fields: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(text).map_err(bad_field)?;
    fields.retain(|name, _| !["type", "room_id", "nonce", "user_id"].contains(&&**name));
    let json = serde_json::to_string(&fields).map_err(bad_field)?;
    match kind {
        "kick" => Ok(AdminAction::Kick(user()?)),
        "room" => Ok(AdminAction::SetRoom(room_patch(&json)?)),
        kind => {
            let field = if kind == "mute" { "muted_until" } else { "banned" };
            if fields.len() != 1 || !fields.contains_key(field) {
                return Err(Reason::MalformedField.because(format!("say {field}, and nothing else")));
            }
            let user = user()?;
            Ok(AdminAction::Restrict(user, restrictions(&json)?))
        }
    }
}

/// Checks the text of a message.
///
/// # Errors
/// If the text is empty or too long.
pub fn checked_content(content: &str, limits: &Limits) -> Result<Box<str>, Rejection> {
    if content.len() > limits.content_bytes_max {
        let sentence =
            format!("a message is {} bytes at most; this one has {}", limits.content_bytes_max, content.len());
        return Err(Reason::MessageTooLong.because(sentence));
    }
    if content.trim().is_empty() {
        return Err(Reason::EmptyMessage.into());
    }
    Ok(content.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { content_bytes_max: 100, ..Limits::default() }
    }

    fn text(content: &str) -> ClientFrame {
        let command = ClientCommand::Message(Body::Text { content: content.into(), reply_to: None });
        ClientFrame { room: None, nonce: None, command }
    }

    #[test]
    fn a_message_may_be_json_or_plain_text() {
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
        let room = RoomId::parse("tea").ok();
        let nonce = Nonce::parse("n1").ok();
        let id = "0192f7a0-0000-7000-8000-000000000001";
        let reply = Body::Text { content: "x".into(), reply_to: FrameId::parse(id) };
        let replay = Replay { history: limits::HISTORY_MAX, after: Some(After::parse(id)) };
        for (json, room, nonce, command) in [
            (
                format!(r#"{{"content":"x","room_id":" tea ","nonce":"n1","reply_to":"{id}"}}"#),
                room.clone(),
                nonce.clone(),
                ClientCommand::Message(reply),
            ),
            (
                format!(r#"{{"type":"join","room_id":"tea","after":"{id}","history":9999}}"#),
                room.clone(),
                None,
                ClientCommand::Join(replay),
            ),
            (r#"{"type":"leave","room_id":"tea","nonce":"n1"}"#.to_owned(), room, nonce.clone(), ClientCommand::Leave),
            (r#"{"type":"typing","nonce":"n1"}"#.to_owned(), None, nonce, ClientCommand::Typing),
        ] {
            assert_eq!(decode(&json, &limits()), Ok(ClientFrame { room, nonce, command }), "{json}");
        }
    }

    const USER: &str = "0192f7a0-0000-7000-8000-000000000002";

    #[test]
    fn admin_commands_carry_their_fields() {
        let user = UserId(Uuid::try_parse(USER).unwrap());
        let until_ms = 1_769_860_800_000;
        let restrict = |mute_until_ms, ban| AdminAction::Restrict(user, Restrictions { mute_until_ms, ban });
        let ban = |until_ms, reason: &str, by_address| {
            restrict(None, Some(BanChange::Ban { until_ms, reason: reason.into(), by_address }))
        };
        let topic = RoomPatch { topic: Some("tea".into()), slow_mode_s: Some(5), ..RoomPatch::default() };
        for (fields, expected) in [
            (format!(r#""type":"kick","user_id":"{USER}""#), AdminAction::Kick(user)),
            (
                format!(r#""type":"mute","user_id":"{USER}","muted_until":"2026-01-31T12:00:00Z""#),
                restrict(Some(until_ms), None),
            ),
            (format!(r#""type":"mute","user_id":"{USER}","muted_until":null"#), restrict(Some(0), None)),
            (format!(r#""type":"ban","user_id":"{USER}","banned":false"#), restrict(None, Some(BanChange::Lift))),
            (format!(r#""type":"ban","user_id":"{USER}","banned":true"#), ban(None, "", false)),
            (
                format!(r#""type":"ban","user_id":"{USER}","banned":{{"reason":"loud","address":true}}"#),
                ban(None, "loud", true),
            ),
            (
                format!(r#""type":"ban","user_id":"{USER}","banned":{{"until":"2026-01-31T12:00:00Z"}}"#),
                ban(Some(until_ms), "", false),
            ),
            (r#""type":"room","topic":"tea","slow_mode_s":5"#.to_owned(), AdminAction::SetRoom(topic)),
        ] {
            let (room, nonce) = (RoomId::parse("tea").ok(), Nonce::parse("n").ok());
            let decoded = decode(&format!(r#"{{{fields},"room_id":"tea","nonce":"n"}}"#), &limits());
            let command = ClientCommand::Admin(Box::new(expected));
            assert_eq!(decoded, Ok(ClientFrame { room, nonce, command }), "{fields}");
        }
    }

    #[test]
    fn a_refused_frame_has_its_reason_and_its_nonce() {
        use Reason::*;
        let long = "x".repeat(101);
        let deep = format!("{}1{}", r#"{"a":"#.repeat(120), "}".repeat(120));
        let long_name = "x".repeat(limits::ROOM_NAME_CHARS_MAX + 1);
        for (frame, reason, code, with_nonce) in [
            (r#"{"content":"#.to_string(), BadJson, "bad_json", false),
            (r#"{"content":5,"nonce":"n"}"#.to_string(), MalformedField, "bad_json", true),
            (r#"{"nonce":"n"}"#.to_string(), MalformedField, "bad_json", true),
            (r#"{"content":"  \n","nonce":"n"}"#.to_string(), EmptyMessage, "bad_json", true),
            (r#"{"type":"dance","nonce":"n"}"#.to_string(), UnknownType, "bad_type", true),
            (r#"{"content":"x","room_id":"a\u0000","nonce":"n"}"#.to_string(), BadRoom, "bad_room", true),
            (r#"{"content":"x","room_id":"dm:a:b","nonce":"n"}"#.to_string(), BadRoom, "bad_room", true),
            (format!(r#"{{"content":"x","nonce":"{long}"}}"#), NameTooLong, "too_long", false),
            (r#"{"content":"x","nonce":""}"#.to_string(), BadName, "bad_name", false),
            (format!(r#"{{"content":"{long}","nonce":"n"}}"#), MessageTooLong, "too_long", true),
            (r#"{"content":"x","reply_to":"42","nonce":"n"}"#.to_string(), NoSuchReply, "not_found", true),
            (r#"{"type":"delete","nonce":"n"}"#.to_string(), MalformedField, "bad_json", true),
            (r#"{"type":"delete","message_id":"42","nonce":"n"}"#.to_string(), NoSuchMessage, "not_found", true),
            (r#"{"type":"kick","nonce":"n"}"#.to_string(), MalformedField, "bad_json", true),
            (r#"{"type":"kick","user_id":"ana","nonce":"n"}"#.to_string(), NoSuchUser, "not_found", true),
            (format!(r#"{{"type":"mute","user_id":"{USER}","nonce":"n"}}"#), MalformedField, "bad_json", true),
            (
                format!(r#"{{"type":"mute","user_id":"{USER}","banned":true,"nonce":"n"}}"#),
                MalformedField,
                "bad_json",
                true,
            ),
            (
                format!(r#"{{"type":"ban","user_id":"{USER}","banned":7,"nonce":"n"}}"#),
                MalformedField,
                "bad_json",
                true,
            ),
            (
                format!(r#"{{"type":"ban","user_id":"{USER}","muted_until":null,"nonce":"n"}}"#),
                MalformedField,
                "bad_json",
                true,
            ),
            (
                format!(r#"{{"type":"ban","user_id":"{USER}","banned":{deep},"nonce":"n"}}"#),
                MalformedField,
                "bad_json",
                true,
            ),
            (format!(r#"{{"type":"room","topic":{deep},"nonce":"n"}}"#), MalformedField, "bad_json", true),
            (r#"{"type":"room","slow_mode":5,"nonce":"n"}"#.to_string(), MalformedField, "bad_json", true),
            (r#"{"type":"room","posting":"nobody","nonce":"n"}"#.to_string(), MalformedField, "bad_json", true),
            (
                format!(r#"{{"type":"mute","user_id":"{USER}","muted_until":"soon","nonce":"n"}}"#),
                BadField,
                "bad_json",
                true,
            ),
            (r#"{"type":"room","slow_mode_s":3601,"nonce":"n"}"#.to_string(), BadField, "bad_json", true),
            (format!(r#"{{"type":"room","name":"{long_name}","nonce":"n"}}"#), NameTooLong, "too_long", true),
            (long.clone(), MessageTooLong, "too_long", false),
            (" ".to_string(), EmptyMessage, "bad_json", false),
        ] {
            let rejected = decode(&frame, &limits()).unwrap_err();
            let Rejected { rejection, nonce } = rejected;
            assert_eq!((rejection.reason, nonce.is_some()), (reason, with_nonce), "{frame}");
            assert_eq!(rejection.reason.code().in_frame(), code, "{frame}");
            assert!(!rejection.sentence.is_empty());
        }
    }

    #[test]
    fn invalid_fields_of_an_http_body_are_refused() {
        use Reason::*;
        for (json, reason) in [
            ("{", BadJson),
            ("", BadJson),
            ("7", MalformedField),
            ("{}", BadField),
            (r#"{"muted":null}"#, MalformedField),
            (r#"{"muted_until":"soon"}"#, BadField),
            (r#"{"banned":{"until":"soon"}}"#, BadField),
            (r#"{"banned":{"reason":"\u0000"}}"#, BadName),
            (r#"{"banned":[null]}"#, MalformedField),
            (r#"{"banned":"for good"}"#, MalformedField),
            (r#"{"banned":{"until":null,"for":1}}"#, MalformedField),
        ] {
            let rejection = restrictions(json).unwrap_err();
            assert_eq!((rejection.reason, rejection.reason.status()), (reason, 400), "{json}");
        }
        assert_eq!(room_patch("{").unwrap_err().reason, BadJson);
        assert_eq!(room_patch(r#"{"slow_mode_s":-1}"#).unwrap_err().reason, MalformedField);
    }

    #[test]
    fn a_frame_has_the_seven_fields_and_no_empty_fields() {
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
