//! A stored message: its current content, its frame, and the effect of events on it.

use std::sync::Arc;

use chrono::DateTime;
use serde::Deserialize;

use crate::model::{Author, FrameId, Nonce, RoomId, Seq, Timestamp, UserId, Username};
use crate::protocol::{Body, Frame, FrameType};

use super::entry::{NewMessage, Stored};

/// Encodes the frame of a new message at its seq, once for all members.
pub fn encode_new(new: &NewMessage, id: FrameId, seq: Seq, now: &Timestamp, json: &mut Vec<u8>) -> Stored {
    let NewMessage { room, author, body, nonce, .. } = new;
    let frame = Frame {
        nonce: nonce.as_ref(),
        reply_to: body.reply_to(),
        message_id: body.message_id(),
        former: body.former(),
        ..Frame::new(id, room, author.person.author(), body.content(), body.kind(), now)
    };
    encode(frame, seq, json)
}

fn encode(frame: Frame<'_>, seq: Seq, json: &mut Vec<u8>) -> Stored {
    json.clear();
    // A rename has the new name as its content. It is not stored as such, so that no search finds it.
    let content = if frame.kind == FrameType::Rename { frame.username.as_str() } else { frame.content };
    Frame { seq: Some(seq), content, ..frame }.encode(json);
    Stored { id: frame.id, seq, is_event: frame.kind.is_event(), json: Arc::from(json.as_slice()) }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub id: FrameId,
    pub room: RoomId,
    pub seq: Seq,
    /// The author.
    pub user: UserId,
    pub username: Username,
    pub nonce: Option<Nonce>,
    pub kind: FrameType,
    pub content: Box<str>,
    pub reply_to: Option<FrameId>,
    pub at_ms: u64,
    pub message_id: Option<FrameId>,
    pub former: Option<Username>,
    pub deleted_ms: Option<u64>,
}

impl Message {
    /// Reads the message from a frame that [`stored`](Self::stored) made; `None` if it is malformed.
    pub fn of_frame(json: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Fields<'a> {
            id: FrameId,
            room_id: RoomId,
            user_id: UserId,
            username: Username,
            content: Box<str>,
            #[serde(rename = "type")]
            kind: &'a str,
            timestamp: &'a str,
            seq: Seq,
            nonce: Option<Nonce>,
            reply_to: Option<FrameId>,
            message_id: Option<FrameId>,
            former: Option<Username>,
            deleted_at: Option<&'a str>,
        }
        let fields: Fields<'_> = serde_json::from_slice(json).ok()?;
        let moment = |text| DateTime::parse_from_rfc3339(text).ok().map(|at| at.timestamp_millis().unsigned_abs());
        Some(Self {
            id: fields.id,
            room: fields.room_id,
            seq: fields.seq,
            user: fields.user_id,
            username: fields.username,
            nonce: fields.nonce,
            kind: FrameType::parse(fields.kind)?,
            content: fields.content,
            reply_to: fields.reply_to,
            at_ms: moment(fields.timestamp)?,
            message_id: fields.message_id,
            former: fields.former,
            deleted_ms: fields.deleted_at.and_then(moment),
        })
    }

    /// Whether it is an event and not a message.
    pub fn is_event(&self) -> bool {
        self.kind.is_event()
    }

    /// Whether it is a message that is not deleted.
    pub fn is_there(&self) -> bool {
        !self.is_event() && self.deleted_ms.is_none()
    }

    /// Whether `new` has the same content as this message. The content of a deleted message is unknown, so any content
    /// matches. An announcement is one message, whichever room it is in.
    pub fn has_same_content(&self, new: &NewMessage) -> bool {
        let NewMessage { room, body, .. } = new;
        (self.room == *room || self.kind == FrameType::Announcement)
            && self.kind == body.kind()
            && (self.deleted_ms.is_some() || *self.content == *body.content())
            && self.reply_to == body.reply_to()
            && self.message_id == body.message_id()
    }

    /// Applies an event to the message that it names. Nothing else changes a stored message.
    pub fn apply(&mut self, event: &Body, wall_ms: u64) {
        match event {
            Body::Delete { .. } => {
                self.content = Box::default();
                self.deleted_ms = Some(wall_ms);
            }
            Body::Text { .. } | Body::Announcement { .. } | Body::Rename { .. } => {}
        }
    }

    /// Encodes the frame that members receive. For the author of a retry, it is marked as a duplicate.
    pub fn stored(&self, duplicate: bool, json: &mut Vec<u8>) -> Stored {
        let (at, deleted_at) = (Timestamp::at(self.at_ms), self.deleted_ms.map(Timestamp::at));
        let frame = Frame {
            nonce: self.nonce.as_ref(),
            reply_to: self.reply_to,
            message_id: self.message_id,
            former: self.former.as_ref(),
            deleted_at: deleted_at.as_ref(),
            duplicate: duplicate.then_some(true),
            ..Frame::new(
                self.id,
                &self.room,
                Author { id: self.user, username: &self.username },
                &self.content,
                self.kind,
                &at,
            )
        };
        encode(frame, self.seq, json)
    }
}
