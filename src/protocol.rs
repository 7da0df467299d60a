//! The wire's JSON, in and out: what a client may say, what the server answers, and the error codes.
//!
//! Pure: text in, values out, and the other way round. Nothing here knows of sockets, rooms or rates.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::DateTime;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::limits::{self, LABEL_CHARS_MAX, Limits, ROOM_NAME_CHARS_MAX, SLOW_MODE_S_MAX, TOPIC_CHARS_MAX};
use crate::model::reason::{Reason, Rejection};
use crate::model::{FrameId, NameError, Nonce, Person, RoomId, Seq, Timestamp, UserId, Username, visible_line};
use crate::role::{Posting, Role};

/// The `type` of a frame that the server sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FrameType {
    /// The first frame of a room: its people, and the last seq of its order.
    Welcome,
    /// A message.
    Text,
    /// A message of an admin to all rooms.
    Announcement,
    /// A person joined the room.
    Join,
    /// A person left the room.
    Leave,
    /// People came to a room with many people, or left it.
    Presence,
    /// A person is writing.
    Typing,
    /// A command was not carried out.
    Error,
    /// A message was deleted.
    Delete,
    /// The settings of a room have changed; or the answer to the command that changed them.
    Room,
    /// The receiver is muted, or not any more; or the answer to the command `mute`.
    Mute,
    /// The answer to the command `kick`.
    Kick,
    /// The answer to the command `ban`.
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

    /// Whether a stored frame of this kind is an event: something that has happened to a message, and no message itself.
    #[must_use]
    pub fn is_event(self) -> bool {
        self == Self::Delete
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
    /// The user that did it; in `welcome` and `error`, the receiver.
    pub user_id: UserId,
    /// The name of that user.
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
    /// When the message was deleted; then its content is gone.
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
        /// All settings.
        room: RoomShown<'a>,
    },
    /// Of a `presence`.
    Presence(Presence<'a>),
    /// Of a `mute`.
    Mute {
        /// Until when, if they are.
        muted_until: Option<Timestamp>,
    },
}

/// The settings of a room, as JSON shows them.
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
    /// How many seconds a user waits from one message to the next; 0 is no slow mode.
    pub slow_mode_s: u32,
    /// Whether only its members see it.
    pub private: bool,
}

/// The further fields of a `welcome`.
#[derive(Debug, Clone, Serialize)]
pub struct Welcome<'a> {
    /// The role of the receiver.
    pub role: Role,
    /// The settings of the room, where any are set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<RoomShown<'a>>,
    /// Until when the receiver is muted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub muted_until: Option<Timestamp>,
    /// The people in the room, [`limits::MEMBERS_LISTED_MAX`] at most.
    pub members: Vec<Arc<Person>>,
    /// How many people are in the room.
    pub member_count: usize,
    /// For a new guest, once: what brings the same `user_id` back. A secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<&'a str>,
    /// Set where `after` could not be honoured: what follows is the latest history, with a gap before it.
    pub reset: bool,
    /// What the server takes.
    pub limits: &'a LimitsShown,
}

/// The further fields of a `presence`.
#[derive(Debug, Clone, Serialize)]
pub struct Presence<'a> {
    /// How many people are in the room.
    pub member_count: usize,
    /// People who came, [`limits::PRESENCE_NAMES_MAX`] at most.
    pub joined: Vec<&'a Person>,
    /// People who left, as many at most.
    pub left: Vec<&'a Person>,
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
    pub code: &'static str,
    pub reason: Reason,
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

/// What is to be stored, and seen by a room in its order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// A message is deleted, by its author or by an admin.
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

/// What a client sends, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFrame {
    /// Nothing for the room of the connection's URL.
    pub room: Option<RoomId>,
    /// Given back in the answer; it tells a retry of a message from a new one.
    pub nonce: Option<Nonce>,
    pub command: ClientCommand,
}

/// What a client wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCommand {
    /// Store something.
    Message(Body),
    /// A command of admins.
    Admin(Box<AdminAction>),
    /// Show the room that the sender is writing.
    Typing,
    /// Enter another room.
    Join(Replay),
    Leave,
}

impl ClientFrame {
    /// Whether it may be what was sent before and is stored, whatever speaks against it now.
    #[must_use]
    pub fn may_be_a_retry(&self) -> bool {
        self.nonce.is_some() && matches!(self.command, ClientCommand::Message(_))
    }
}

/// What admins do to people and rooms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminAction {
    Kick(UserId),
    /// Mutes, bans, or ends that.
    Restrict(UserId, Restrictions),
    SetRoom(RoomPatch),
}

impl AdminAction {
    /// The type of the frame that asks for it, and of the one that tells that it is done.
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

/// What a user is to be restricted to. What is not given stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restrictions {
    /// Muted until a wall time, in milliseconds since 1970; 0 ends a mute.
    pub mute_until_ms: Option<u64>,
    pub ban: Option<BanChange>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BanChange {
    Lift,
    Ban {
        /// A wall time; nothing for good.
        until_ms: Option<u64>,
        reason: Box<str>,
        /// Whether a guest's addresses are banned, too, for guests.
        by_address: bool,
    },
}

/// Changes of a room's settings. What is not given stays.
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
/// What a field is not.
pub fn restrictions(json: &str) -> Result<Restrictions, Rejection> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fields<'a> {
        /// A moment (RFC 3339), or `null` to end a mute.
        #[serde(default, deserialize_with = "said")]
        muted_until: Option<Option<String>>,
        /// `false`, or `true` for good, or terms. Left as it stands, so that a deep value is never walked.
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

/// Reads changes of a room's settings, as JSON gives them.
///
/// # Errors
/// What a field is not.
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

/// A moment (RFC 3339), in milliseconds since 1970.
fn moment(text: &str) -> Result<u64, Rejection> {
    let moment = DateTime::parse_from_rfc3339(text);
    let moment = moment.map_err(|_| Reason::BadField.because("a moment looks like 2026-01-31T12:00:00Z"))?;
    Ok(u64::try_from(moment.timestamp_millis()).unwrap_or(0))
}

/// A line of text that people see.
fn line(what: &str, text: &str, chars_max: usize) -> Result<Box<str>, Rejection> {
    visible_line(text, chars_max).map_err(|error| bad_name(what, error, Reason::BadName))
}

fn bad_name(what: &str, error: NameError, reason: Reason) -> Rejection {
    Reason::of_name(error, reason).because(format!("the {what} can't be taken: {error}"))
}

/// What is said of a ban that is none.
const BAN_SHAPE: &str = r#"banned is true, false or {"until","reason","address"}"#;

/// The terms of a ban, as JSON gives them.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct BanTerms {
    /// A moment (RFC 3339); nothing for a ban without an end.
    until: Option<String>,
    /// Why, for the other admins.
    #[serde(default)]
    reason: String,
    /// Whether a guest's addresses are banned, too, for guests.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
    pub rejection: Rejection,
    /// The nonce, where it could be read.
    pub nonce: Option<Nonce>,
}

impl Rejected {
    #[must_use]
    pub fn new(rejection: impl Into<Rejection>, nonce: Option<Nonce>) -> Self {
        Self { rejection: rejection.into(), nonce }
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
    let nonce = nonce.map_err(|error| Rejected::new(bad_name("nonce", error, Reason::BadName), None))?;
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
    let room = room.map_err(|error| bad_name("room's name", error, Reason::BadRoom))?;
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

/// Reads a command of admins. Its fields are those of the same thing over HTTP.
fn admin_action(kind: &str, text: &str, user: Option<&Text<'_>>) -> Result<AdminAction, Rejection> {
    let user = || match user.map(|id| Uuid::try_parse(&id.0)) {
        None => Err(Reason::MalformedField.because("say by user_id whom")),
        Some(Err(_)) => Err(Reason::NoSuchUser.into()),
        Some(Ok(id)) => Ok(UserId(id)),
    };
    // Values are left as they stand: a deep one is never walked, as nothing here is.
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

/// A message's text, if it can be one.
///
/// # Errors
/// For an empty text or one over its bound.
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
    fn a_frame_that_is_refused_has_its_reason_and_its_nonce() {
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
    fn fields_of_a_body_are_refused_as_those_of_a_frame() {
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
