//! The frames of the server, and the body of an error over HTTP.

use std::sync::Arc;

use serde::Serialize;

use crate::limits::{self, Limits};
use crate::model::reason::Reason;
use crate::model::role::{Posting, Role};
use crate::model::{Author, FrameId, Nonce, Person, RoomId, Seq, Timestamp, UserId, Username};

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
    /// A person has another name.
    Rename,
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
    const MESSAGES: [(Self, &'static str); 4] = [
        (Self::Text, "text"),
        (Self::Announcement, "announcement"),
        (Self::Delete, "delete"),
        (Self::Rename, "rename"),
    ];

    /// The name of a kind of message. Other frame types return the name of a text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::MESSAGES.iter().find(|(kind, _)| *kind == self).map_or("text", |(_, word)| word)
    }

    /// Whether a stored frame of this kind is an event, not a message.
    #[must_use]
    pub fn is_event(self) -> bool {
        matches!(self, Self::Delete | Self::Rename)
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
    /// The name of the user before a rename. The new name is the content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub former: Option<&'a Username>,
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
        author: Author<'a>,
        content: &'a str,
        kind: FrameType,
        timestamp: &'a Timestamp,
    ) -> Self {
        Self {
            id,
            room_id,
            user_id: author.id,
            username: author.username,
            content,
            kind,
            timestamp,
            seq: None,
            nonce: None,
            reply_to: None,
            message_id: None,
            former: None,
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
