//! REST: messages: history, search, posting and deletion.
//!
//! Runs on the HTTP workers. Reads use neither the hub's thread nor the writer. Stored data is read in one transaction,
//! and the people in a room are read from the presence that the hub publishes. No read creates a room.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::rooms::is_there;
use crate::auth::permission::Action;
use crate::http::error::bad_cursor;
use crate::http::extract::{Page, actor, check_rate, client, identity, limit_of, reader, room, room_to_read, text};
use crate::http::reply::Reply;
use crate::http::request::Request;
use crate::hub::Sent;
use crate::limits::{MESSAGES_LISTED, MESSAGES_LISTED_MAX};
use crate::model::reason::{Reason, Rejection};
use crate::model::{FrameId, Nonce, RoomId, Seq, Username};
use crate::protocol::{self, Body, ClientCommand, ClientFrame};
use crate::store::entry::{NewMessage, Principal};
use crate::store::{Kinds, Side};

/// `GET /api/rooms/{id}/messages?before=ID|after=ID&limit=N&q=words`
pub(crate) fn list(request: &Request<'_>) -> Result<Reply, Rejection> {
    let id = room_to_read(request)?;
    let limit = limit_of(request, MESSAGES_LISTED, MESSAGES_LISTED_MAX)?;
    let cursor = |name| match request.query_value(name).transpose()? {
        None => Ok(None),
        Some(text) => FrameId::parse(&text).map(Some).ok_or_else(bad_cursor),
    };
    let (before, after) = (cursor("before")?, cursor("after")?);
    if before.is_some() && after.is_some() {
        return Err(bad_cursor());
    }
    let words = request.query_value("q").transpose()?;
    let frames = request.context.reader.view(|view| -> Result<_, Rejection> {
        reader(request, view)?.may_enter(view, &id)?;
        if !is_there(request, view, &id)? {
            return Err(Reason::NoSuchRoom.into());
        }
        let place = |frame| view.seq_of(&id, frame)?.ok_or_else(bad_cursor);
        let side = match (before, after) {
            (_, Some(after)) => Side::After(place(after)?),
            (Some(before), None) => Side::Before(place(before)?),
            (None, None) => Side::Before(Seq(u64::MAX)),
        };
        // One more frame than is listed tells whether there are more.
        let kinds = if after.is_some() { Kinds::All } else { Kinds::Messages };
        Ok(view.page(&id, side, kinds, limit + 1, words.as_deref())?)
    })?;
    let has_more = frames.len() > limit;
    let frames = match (has_more, after) {
        (false, _) => &frames[..],
        (true, Some(_)) => &frames[..limit],
        (true, None) => &frames[1..],
    };
    let onward = if after.is_some() { frames.last() } else { frames.first() };
    let next = onward.filter(|_| has_more).map(|stored| stored.id);
    let data: Vec<&RawValue> = frames.iter().filter_map(|stored| raw(&stored.json)).collect();
    Ok(Reply::json(&Page { data, next }))
}

/// `POST /api/rooms/{id}/messages`
pub(crate) fn post(request: &Request<'_>) -> Result<Reply, Rejection> {
    #[derive(Deserialize)]
    struct Named {
        username: Option<String>,
    }
    check_rate(request, request.context.reader.view(|view| client(request, view))?.identity.user)?;
    let room = room(request)?;
    let text = text(request)?;
    let limits = &request.context.settings.limits;
    let (body, nonce, named) = match request.media_type().as_str() {
        "application/json" => {
            // A message as plain text is not JSON, so a JSON body must begin with `{`.
            let frame = if text.trim_start().starts_with('{') { text.trim_start() } else { "{" };
            let decoded = protocol::decode(frame, limits).map_err(|rejected| rejected.rejection)?;
            let ClientFrame { nonce, command: ClientCommand::Message(body @ Body::Text { .. }), .. } = decoded else {
                return Err(Reason::UnknownType.because("only messages of type text can be posted"));
            };
            (body, nonce, serde_json::from_str::<Named>(frame)?.username)
        }
        "text/plain" => {
            let content = protocol::checked_content(text, limits)?;
            (Body::Text { content, reply_to: None }, None, None)
        }
        _ => {
            let sentence = "unsupported media type; send application/json or text/plain";
            return Err(Reason::UnknownMediaType.because(sentence));
        }
    };
    let nonce = idempotency_key(request)?.or(nonce);
    let named = match named {
        Some(name) => Some(name),
        None => request.query_value("username").transpose()?,
    };
    let username = match named.filter(|name| !name.trim().is_empty()) {
        Some(name) => Username::parse(&name).map_err(|error| Reason::BadName.of_name("username", error))?,
        None => Username::anonymous(),
    };
    let author = request.context.reader.view(|view| {
        let identity = identity(request, view, username)?;
        identity.may_enter(view, &room)?;
        let stranger = view.policy().guest_key.user_without_token(identity.network, Some(&identity.username));
        Ok::<_, Rejection>(identity.principal(stranger))
    })?;
    let (status, json) = stored(request, room, author, body, nonce)?;
    Ok(Reply::data(status, raw(&json)))
}

/// Stores a message or a deletion. Returns 201 and its frame, or 200 for a retry.
pub(crate) fn stored(
    request: &Request<'_>,
    room: RoomId,
    author: Arc<Principal>,
    body: Body,
    nonce: Option<Nonce>,
) -> Result<(u16, Arc<[u8]>), Rejection> {
    let message = NewMessage { room, author, body, nonce, is_member: false, unless_stored: None };
    match request.context.hub.send_message(message)? {
        Sent::Stored(json) => Ok((201, json)),
        Sent::Duplicate(json) => Ok((200, json)),
    }
}

/// The nonce, which is the `Idempotency-Key` header field.
pub(crate) fn idempotency_key(request: &Request<'_>) -> Result<Option<Nonce>, Rejection> {
    let key = request.header("Idempotency-Key").map(Nonce::parse).transpose();
    key.map_err(|error| Reason::BadName.of_name("Idempotency-Key", error))
}

/// `DELETE /api/rooms/{id}/messages/{message}`
pub(crate) fn delete(request: &Request<'_>) -> Result<Reply, Rejection> {
    let room = room(request)?;
    let actor = actor(request, Some(&room))?;
    let author = actor.known()?;
    // A hidden room and a missing message get the same answer, so that a client learns nothing about either.
    actor.may(Action::Enter).map_err(|reason| if reason.is_hidden() { Reason::NoSuchMessage } else { reason })?;
    let message_id = FrameId::parse(request.parameter("message")).ok_or(Reason::NoSuchMessage)?;
    stored(request, room, author, Body::Delete { message_id }, idempotency_key(request)?)?;
    Ok(Reply::empty(204))
}

/// A stored frame as it is, inside another JSON.
fn raw(json: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice(json).ok()
}
