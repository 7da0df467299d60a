//! REST: what the rooms are and who is in them.
//!
//! Runs on the HTTP workers and asks the hub, which answers in time or is busy. No request here makes a room.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use uuid::Builder;

use super::error::ApiError;
use super::who::{actor, identity, pace, person, reader, room_at};
use super::{Reply, Request};
use crate::auth::permission::Action;
use crate::hub::{Busy, HistoryFrom, Outcome, Post, RoomDetail, RoomSummary};
use crate::identity::Identity;
use crate::limits::{MESSAGES_LISTED, MESSAGES_LISTED_MAX, ROOMS_LISTED_MAX};
use crate::model::{FrameId, Nonce, Person, RoomId, Seq, USERNAME_DEFAULT, UserId, Username};
use crate::protocol::{self, Body, ClientFrame, ErrorCode, Rejected};
use crate::role::Posting;
use crate::store::accounts::{self, RoomSettings};

/// `GET /api/rooms/{id}/messages?before=ID|after=ID&limit=N&q=words`
pub(super) fn messages(request: &Request<'_>) -> Result<Reply, ApiError> {
    #[derive(Serialize)]
    struct Page<'a> {
        data: Vec<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<FrameId>,
    }
    let id = room_at(request, 1)?;
    let settings = settings_for(request, &reader(request)?, &id)?;
    let limit = match request.query_value("limit").transpose()? {
        None => MESSAGES_LISTED,
        Some(text) => match text.parse::<usize>() {
            Ok(limit) if limit > 0 => limit.min(MESSAGES_LISTED_MAX),
            _ => return Err(ApiError::Limit(MESSAGES_LISTED_MAX)),
        },
    };
    let cursor = |name| match request.query_value(name).transpose()? {
        None => Ok(None),
        Some(text) => FrameId::parse(&text).map(Some).ok_or(ApiError::Cursor),
    };
    let from = match (cursor("before")?, cursor("after")?) {
        (None, None) => HistoryFrom::Latest,
        (Some(before), None) => HistoryFrom::Before(before),
        (None, Some(after)) => HistoryFrom::After(after),
        (Some(_), Some(_)) => return Err(ApiError::Cursor),
    };
    let words = request.query_value("q").transpose()?;
    let page = request.context.directory.messages(&id, from, limit, words.as_deref())?;
    // A room of which something is set is there, though nobody has said anything yet.
    let page = page.or_else(|| (settings != RoomSettings::default()).then(Default::default));
    let (frames, has_more) = page.ok_or(ApiError::NoRoom)?;
    let onward = if matches!(from, HistoryFrom::After(_)) { frames.last() } else { frames.first() };
    let next = onward.filter(|_| has_more).map(|stored| stored.id);
    let data = frames.iter().filter_map(|stored| raw(&stored.json)).collect();
    Ok(Reply::json(&Page { data, next }))
}

/// `POST /api/rooms/{id}/messages`
pub(super) fn post(request: &Request<'_>) -> Result<Reply, ApiError> {
    #[derive(Deserialize)]
    struct Named {
        username: Option<String>,
    }
    #[derive(Serialize)]
    struct Posted<'a> {
        data: Option<&'a RawValue>,
    }
    pace(request)?;
    let room = room_at(request, 1)?;
    let text = std::str::from_utf8(request.body).map_err(|_| ApiError::Utf8)?;
    let limits = &request.context.policy.limits;
    let (body, nonce, named) = match request.media_type().as_str() {
        "application/json" => {
            // A message as typed has no JSON around it; a body that says that it is JSON is held to it.
            let frame = if text.trim_start().starts_with('{') { text.trim_start() } else { "{" };
            let decoded = protocol::decode(frame, limits).map_err(ApiError::Rejected)?;
            let ClientFrame::Message { nonce, body: body @ Body::Text { .. }, .. } = decoded else {
                let rejected = Rejected::new(ErrorCode::BadType, "only messages can be posted here", None);
                return Err(ApiError::Rejected(rejected));
            };
            let named = serde_json::from_str::<Named>(frame).ok().and_then(|named| named.username);
            (body, nonce, named)
        }
        "text/plain" => {
            let content = protocol::checked_content(text, limits, None).map_err(ApiError::Rejected)?;
            (Body::Text { content, reply_to: None }, None, None)
        }
        _ => return Err(ApiError::ContentType),
    };
    let nonce = idempotency_key(request)?.or(nonce);
    let named = match named {
        Some(name) => Some(name),
        None => request.query_value("username").transpose()?,
    };
    let named = named.filter(|name| !name.trim().is_empty()).unwrap_or_else(|| USERNAME_DEFAULT.into());
    let username = Username::parse(&named).map_err(|error| ApiError::Name("username", error))?;
    let identity = identity(request, username)?;
    request.context.door.enter(&identity, &room)?;
    let Identity { user, username, role, .. } = identity;
    let id = user.unwrap_or_else(|| passer_by(&username));
    let post = Post { room, author: Person { id, username }, role, body, nonce };
    let (status, json) = stored(request, post)?;
    Ok(Reply { status, ..Reply::json(&Posted { data: raw(&json) }) })
}

/// A status, and a stored frame.
type Placed = (u16, Arc<[u8]>);

/// Has something stored: 201 and its frame, or 200 where it was sent before.
pub(super) fn stored(request: &Request<'_>, post: Post) -> Result<Placed, ApiError> {
    match request.context.directory.post(post).map_err(|Busy| ApiError::Unknown)? {
        Outcome::Stored(json) => Ok((201, json)),
        Outcome::Duplicate(json) => Ok((200, json)),
        Outcome::Refused(rejected) => Err(ApiError::Rejected(rejected)),
    }
}

/// The client's own mark on what it sends, as HTTP has it.
pub(super) fn idempotency_key(request: &Request<'_>) -> Result<Option<Nonce>, ApiError> {
    let key = request.header("Idempotency-Key").map(Nonce::parse).transpose();
    key.map_err(|error| ApiError::Name("Idempotency-Key", error))
}

/// `DELETE /api/rooms/{id}/messages/{message}`
pub(super) fn take_back(request: &Request<'_>) -> Result<Reply, ApiError> {
    let room = room_at(request, 2)?;
    let actor = actor(request, Some(&room))?;
    let author = person(&actor)?;
    // One answer to whatever is not there for whoever asks: a room, or a message in it.
    actor.may(Action::Enter).map_err(|why| if why.is_hidden() { ApiError::NotFound } else { why.into() })?;
    let message_id = FrameId::parse(request.item()).ok_or(ApiError::NotFound)?;
    let (role, nonce) = (actor.identity.role, idempotency_key(request)?);
    match stored(request, Post { room, author, role, body: Body::Delete { message_id }, nonce }) {
        Err(ApiError::Rejected(Rejected { code: ErrorCode::NotFound, .. })) => Err(ApiError::NotFound),
        stored => stored.map(|_| Reply::empty(204)),
    }
}

/// Who posts without a token: nobody who could be known again, but the same for the same name, so that trying again
/// with the same Idempotency-Key is known as that. A version 8 UUID (RFC 9562, section 5.8), as no other id here is.
fn passer_by(username: &Username) -> UserId {
    let hash: [u8; 32] = Sha256::digest(username.as_str().as_bytes()).into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    UserId(Builder::from_custom_bytes(bytes).into_uuid())
}

/// A stored frame as it is, inside another JSON.
fn raw(json: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice(json).ok()
}

/// `GET /api/rooms?limit=N&after=ID`
pub(super) fn rooms(request: &Request<'_>) -> Result<Reply, ApiError> {
    #[derive(Serialize)]
    struct Page {
        data: Vec<RoomSummary>,
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<RoomId>,
    }
    let reader = reader(request)?;
    let limit = match request.query_value("limit").transpose()? {
        None => ROOMS_LISTED_MAX,
        Some(text) => match text.parse::<usize>() {
            Ok(limit) if limit > 0 => limit.min(ROOMS_LISTED_MAX),
            _ => return Err(ApiError::Limit(ROOMS_LISTED_MAX)),
        },
    };
    let after = match request.query_value("after").transpose()? {
        None => None,
        Some(text) => Some(RoomId::parse(&text)?),
    };
    // One more than is shown tells whether there is more. Private rooms are left out before anything is counted, so that
    // not even `next` tells of one.
    let mut data = public_rooms(request, after.clone(), limit + 1)?;
    if let Some(user) = reader.user {
        let own = request.context.door.registry().read(|connection| accounts::rooms_of(connection, user))?;
        for room in own.into_iter().filter(|room| after.as_ref().is_none_or(|after| room > after)) {
            // Asked as a page is: what is no room of theirs any more is not shown.
            let Ok(settings) = settings_for(request, &reader, &room) else { continue };
            data.push(found(request, room, &settings)?.summary);
        }
        data.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    }
    let has_more = data.len() > limit;
    data.truncate(limit);
    let next = data.last().filter(|_| has_more).map(|room| room.id.clone());
    Ok(Reply::json(&Page { data, next }))
}

/// The public rooms behind one, by their names, `count` at most.
fn public_rooms(request: &Request<'_>, after: Option<RoomId>, count: usize) -> Result<Vec<RoomSummary>, ApiError> {
    let mut after = after;
    let mut rooms = Vec::new();
    loop {
        let page = request.context.directory.rooms(after.as_ref(), count)?;
        let is_last = page.len() < count;
        after = page.last().map(|room| room.id.clone());
        let public = request.context.door.registry().read(|connection| {
            let mut public = Vec::with_capacity(page.len());
            for mut room in page {
                let settings = accounts::room_settings(connection, &room.id)?;
                if !settings.is_private {
                    rename(&mut room, &settings);
                    public.push(room);
                }
            }
            Ok(public)
        })?;
        rooms.extend(public);
        if is_last || rooms.len() >= count {
            rooms.truncate(count);
            return Ok(rooms);
        }
    }
}

fn rename(room: &mut RoomSummary, settings: &RoomSettings) {
    if !settings.name.is_empty() {
        room.name = settings.name.to_string();
    }
}

/// What is set of a room that somebody may enter.
fn settings_for(request: &Request<'_>, reader: &Identity, room: &RoomId) -> Result<RoomSettings, ApiError> {
    let door = request.context.door;
    door.enter(reader, room)?;
    Ok(door.registry().read(|connection| accounts::room_settings(connection, room))?)
}

/// A room that is there, by its members, its messages, or what is set of it.
fn found(request: &Request<'_>, id: RoomId, settings: &RoomSettings) -> Result<RoomDetail, ApiError> {
    let mut room = match request.context.directory.room(&id)? {
        Some(room) => room,
        None if *settings == RoomSettings::default() => return Err(ApiError::NoRoom),
        None => {
            let summary = RoomSummary { name: id.to_string(), id, client_count: 0, seq: Seq(0) };
            RoomDetail { summary, clients: Vec::new() }
        }
    };
    rename(&mut room.summary, settings);
    Ok(room)
}

/// `GET /api/rooms/{id}`
pub(super) fn room(request: &Request<'_>) -> Result<Reply, ApiError> {
    #[derive(Serialize)]
    struct Found<'a> {
        data: Room<'a>,
    }
    /// What nobody has set is not told.
    #[derive(Serialize)]
    struct Room<'a> {
        #[serde(flatten)]
        room: RoomDetail,
        #[serde(skip_serializing_if = "str::is_empty")]
        topic: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        posting: Option<Posting>,
        #[serde(skip_serializing_if = "Option::is_none")]
        slow_mode_s: Option<u32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        private: Option<bool>,
    }
    let id = room_at(request, 0)?;
    let settings = settings_for(request, &reader(request)?, &id)?;
    let room = found(request, id, &settings)?;
    let data = Room {
        room,
        topic: &settings.topic,
        posting: Some(settings.posting).filter(|posting| *posting != Posting::default()),
        slow_mode_s: Some(settings.slow_mode_s).filter(|s| *s > 0),
        private: settings.is_private.then_some(true),
    };
    Ok(Reply::json(&Found { data }))
}

#[cfg(test)]
mod tests {
    use crate::http::dispatch;
    use crate::http::tests::{Rooms, request};

    fn ask(target: &str) -> (u16, String) {
        let rooms = Rooms::of(&["a b", "general", "tea", "আড্ডা"]);
        let reply = dispatch("GET", &request(target, &[], &rooms));
        assert_eq!(reply.header("Access-Control-Allow-Origin"), Some("*"), "{target}");
        (reply.status, String::from_utf8(reply.body.into_owned()).unwrap())
    }

    #[test]
    fn the_listing_is_paged() {
        let (status, body) = ask("/api/rooms");
        assert_eq!(status, 200);
        assert!(body.starts_with(r#"{"data":[{"id":"a b","name":"a b","client_count":2,"seq":7}"#), "{body}");
        assert!(!body.contains("next"));
        assert!(ask("/api/rooms?limit=4").1.ends_with("]}"));
        let (_, body) = ask("/api/rooms?limit=2");
        assert!(body.ends_with(r#"],"next":"general"}"#), "{body}");
        let (_, body) = ask("/api/rooms?limit=2&after=general");
        assert!(body.starts_with(r#"{"data":[{"id":"tea""#) && !body.contains("next"), "{body}");
        assert!(ask("/api/rooms?after=a+b").1.starts_with(r#"{"data":[{"id":"general""#));
        assert_eq!(ask("/api/rooms?limit=9999").0, 200);
        for query in ["limit=0", "limit=x", "limit=-1", "limit=%ff", "after=%00", "after=%f", "after="] {
            assert_eq!(ask(&format!("/api/rooms?{query}")).0, 400, "{query}");
        }
    }

    #[test]
    fn a_room_is_found_by_its_escaped_id() {
        for path in
            ["/api/rooms/general", "/api/rooms/a%20b", "/api/rooms/%E0%A6%86%E0%A6%A1%E0%A7%8D%E0%A6%A1%E0%A6%BE"]
        {
            let (status, body) = ask(path);
            assert_eq!(status, 200, "{path}");
            assert!(body.contains(r#""clients":[{"id":""#), "{body}");
        }
        for id in ["none", "%zz", "%ff", "%00", "%20", "dm:a:b"] {
            let (status, body) = ask(&format!("/api/rooms/{id}"));
            assert_eq!((status, &*body), (404, r#"{"error":"Room not found","code":"not_found"}"#), "{id}");
        }
    }

    #[test]
    fn a_busy_hub_is_a_503() {
        for target in ["/api/rooms", "/api/rooms/general"] {
            let reply = dispatch("GET", &request(target, &[], &Rooms::busy()));
            assert_eq!((reply.status, reply.header("Retry-After")), (503, Some("1")));
            assert!(reply.body.ends_with(br#""code":"busy"}"#));
        }
    }
}
