//! Decodes the frames of clients.

use std::borrow::Cow;

use serde::Deserialize;
use uuid::Uuid;

use super::fields::RawFields;
use super::{
    AdminAction, After, Body, ClientCommand, ClientFrame, Replay, read, restrictions, room_patch, whole_number,
};
use crate::limits::{self, Limits};
use crate::model::reason::{Reason, Rejection};
use crate::model::{FrameId, Nonce, RoomId, UserId, shows_nothing};

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
    #[serde(default, deserialize_with = "whole_number")]
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
    let fields: Fields<'_> = read(text).map_err(|rejection| {
        let nonce = serde_json::from_str::<NonceOnly<'_>>(text).ok().and_then(|fields| fields.nonce);
        let nonce = nonce.and_then(|nonce| Nonce::parse(&nonce.0).ok());
        Rejected { rejection, nonce }
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
    let room = room.map_err(|error| Reason::BadRoom.of_name("room name", error))?;
    let command = match fields.kind.as_ref().map_or("text", |kind| &*kind.0) {
        kind @ ("text" | "announcement") => {
            let content = fields.content.as_ref().or(fields.message.as_ref());
            let content = content.ok_or_else(|| Reason::MalformedField.because("missing field: content"))?;
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
            let id = id.ok_or_else(|| Reason::MalformedField.because("missing field: message_id"))?;
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
            return Err(Reason::UnknownType.because(format!("unknown type “{shown}”")));
        }
    };
    Ok((room, command))
}

/// Reads an admin command. Its fields are the same as in the HTTP API.
fn admin_action(kind: &str, text: &str, user: Option<&Text<'_>>) -> Result<AdminAction, Rejection> {
    let user = || match user.map(|id| Uuid::try_parse(&id.0)) {
        None => Err(Reason::MalformedField.because("missing field: user_id")),
        Some(Err(_)) => Err(Reason::NoSuchUser.into()),
        Some(Ok(id)) => Ok(UserId(id)),
    };
    let RawFields(mut fields) = read(text)?;
    fields.retain(|name, _| !["type", "room_id", "nonce", "user_id"].contains(&&**name));
    let json = serde_json::to_string(&fields).map_err(|_| Reason::Internal)?;
    match kind {
        "kick" => Ok(AdminAction::Kick(user()?)),
        "room" => Ok(AdminAction::SetRoom(room_patch(&json)?)),
        kind => {
            let field = if kind == "mute" { "muted_until" } else { "banned" };
            if fields.len() != 1 || !fields.contains_key(field) {
                return Err(Reason::MalformedField
                    .because(format!("a frame of type {kind} must have the field {field} and no other")));
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
        let sentence = format!("message too long: {} bytes, at most {}", content.len(), limits.content_bytes_max);
        return Err(Reason::MessageTooLong.because(sentence));
    }
    if shows_nothing(content) {
        return Err(Reason::EmptyMessage.into());
    }
    Ok(content.into())
}
