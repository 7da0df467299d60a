//! A stored message: what it says now, its frame, and what events make of it.

use std::borrow::Cow;
use std::sync::Arc;

use chrono::DateTime;
use serde::Deserialize;
use uuid::Uuid;

use crate::model::{FrameId, Nonce, Person, RoomId, Seq, Timestamp, UserId, Username};
use crate::protocol::{Body, Frame, FrameType};

use super::entry::{NewMessage, Stored};

/// What happens to a message after it was stored. Each has a place of its own in the room's order, as a frame that names
/// the message by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Deleted { wall_ms: u64 },
}

impl Event {
    /// The event that a body stands for; nothing for a message.
    #[must_use]
    pub fn of(body: &Body, wall_ms: u64) -> Option<Self> {
        match body {
            Body::Delete { .. } => Some(Self::Deleted { wall_ms }),
            Body::Text { .. } | Body::Announcement { .. } => None,
        }
    }
}

/// The frame of a new message at its place, encoded once for all members.
pub fn encode_new(new: &NewMessage, id: FrameId, seq: Seq, now: &Timestamp, json: &mut Vec<u8>) -> Stored {
    json.clear();
    let NewMessage { room, author, body, nonce, .. } = new;
    Frame {
        seq: Some(seq),
        nonce: nonce.as_ref(),
        reply_to: body.reply_to(),
        message_id: body.message_id(),
        ..Frame::new(id, room, &author.person, body.content(), body.kind(), now)
    }
    .encode(json);
    Stored { id, seq, is_event: body.kind().is_event(), json: Arc::from(json.as_slice()) }
}

/// A message as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub(super) id: FrameId,
    pub(super) room: RoomId,
    pub(super) seq: Seq,
    pub(super) author: Person,
    pub(super) nonce: Option<Nonce>,
    pub(super) kind: FrameType,
    pub(super) content: Box<str>,
    pub(super) reply_to: Option<FrameId>,
    pub(super) at_ms: u64,
    pub(super) message_id: Option<FrameId>,
    pub(super) deleted_ms: Option<u64>,
}

impl Message {
    /// The message of a stored frame, as [`stored`](Self::stored) made it; nothing where it is none.
    #[must_use]
    pub fn of_frame(json: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Fields<'a> {
            id: &'a str,
            #[serde(borrow)]
            room_id: Cow<'a, str>,
            user_id: &'a str,
            #[serde(borrow)]
            username: Cow<'a, str>,
            content: Box<str>,
            #[serde(rename = "type")]
            kind: &'a str,
            timestamp: &'a str,
            seq: u64,
            nonce: Option<String>,
            reply_to: Option<&'a str>,
            message_id: Option<&'a str>,
            deleted_at: Option<&'a str>,
        }
        let fields: Fields<'_> = serde_json::from_slice(json).ok()?;
        let moment = |text| DateTime::parse_from_rfc3339(text).ok().map(|at| at.timestamp_millis().unsigned_abs());
        Some(Self {
            id: FrameId::parse(fields.id)?,
            room: RoomId::parse(&fields.room_id).ok()?,
            seq: Seq(fields.seq),
            author: Person {
                id: UserId(Uuid::try_parse(fields.user_id).ok()?),
                username: Username::parse(&fields.username).ok()?,
            },
            nonce: fields.nonce.and_then(|nonce| Nonce::parse(&nonce).ok()),
            kind: FrameType::parse(fields.kind)?,
            content: fields.content,
            reply_to: fields.reply_to.and_then(FrameId::parse),
            at_ms: moment(fields.timestamp)?,
            message_id: fields.message_id.and_then(FrameId::parse),
            deleted_ms: fields.deleted_at.and_then(moment),
        })
    }

    /// Where it was said.
    #[must_use]
    pub fn room(&self) -> &RoomId {
        &self.room
    }

    /// By whom.
    #[must_use]
    pub fn author(&self) -> &Person {
        &self.author
    }

    /// What was said.
    #[must_use]
    pub fn content(&self) -> &str {
        &self.content
    }

    /// When.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        Timestamp::at(self.at_ms)
    }

    /// Whether it is an event, and no message.
    #[must_use]
    pub fn is_event(&self) -> bool {
        self.kind.is_event()
    }

    /// Whether it is a message that has not been deleted.
    #[must_use]
    pub fn is_there(&self) -> bool {
        !self.is_event() && self.deleted_ms.is_none()
    }

    /// Whether sending `new` again would only say the same. What was taken back is not known any more, and an
    /// announcement is one message, whichever room it is in.
    pub fn says_the_same(&self, new: &NewMessage) -> bool {
        let NewMessage { room, body, .. } = new;
        (self.room == *room || self.kind == FrameType::Announcement)
            && self.kind == body.kind()
            && (self.deleted_ms.is_some() || *self.content == *body.content())
            && self.reply_to == body.reply_to()
            && self.message_id == body.message_id()
    }

    /// What an event makes of it: the one place that says so.
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Deleted { wall_ms } => {
                self.content = Box::default();
                self.deleted_ms = Some(wall_ms);
            }
        }
    }

    /// The frame that members get; for a retry's author, marked as one.
    pub fn stored(&self, duplicate: bool, json: &mut Vec<u8>) -> Stored {
        json.clear();
        let (at, deleted_at) = (Timestamp::at(self.at_ms), self.deleted_ms.map(Timestamp::at));
        Frame {
            seq: Some(self.seq),
            nonce: self.nonce.as_ref(),
            reply_to: self.reply_to,
            message_id: self.message_id,
            deleted_at: deleted_at.as_ref(),
            duplicate: duplicate.then_some(true),
            ..Frame::new(self.id, &self.room, &self.author, &self.content, self.kind, &at)
        }
        .encode(json);
        let (id, seq, is_event) = (self.id, self.seq, self.is_event());
        Stored { id, seq, is_event, json: Arc::from(json.as_slice()) }
    }
}
