//! REST: messages: history, search, posting and deletion.
//!
//! Runs on the HTTP workers, and searches on their own thread. Reads use neither the hub's thread nor the writer. Stored
//! data is read in one transaction, and the people in a room are read from the presence that the hub publishes. No read
//! creates a room.

use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::rooms::{check_room, is_there};
use crate::auth::permission::Action;
use crate::authenticator::Identity;
use crate::http::error::{bad_cursor, rate_limited};
use crate::http::extract::{
    actor, check_page_rate, check_rate, client, identity, limit_of, reader, room, room_to_read, text,
};
use crate::http::reply::Reply;
use crate::http::request::Request;
use crate::http::server::Context;
use crate::http::slow_lane::{Lane, Payer};
use crate::hub::Sent;
use crate::limits::{MESSAGES_LISTED, MESSAGES_LISTED_MAX, SEARCH_TIME};
use crate::model::reason::{Reason, Rejection};
use crate::model::{FrameId, Nonce, RoomId, Seq, Username};
use crate::protocol::{self, Body, ClientCommand, ClientFrame};
use crate::rate::network_of;
use crate::store::entry::{NewMessage, Stored};
use crate::store::terms::Terms;
use crate::store::{Found, Kinds, Part, Place, Side, View};

/// `GET /api/rooms/{id}/messages?before=ID|after=ID|around=ID&limit=N&q=words`
pub(crate) fn list(request: &Request<'_>) -> Result<Reply, Rejection> {
    let id = room_to_read(request)?;
    let limit = limit_of(request, MESSAGES_LISTED, MESSAGES_LISTED_MAX)?;
    let cursor = Cursor::of(request)?;
    let Some(words) = request.query_value("q").transpose()? else {
        check_page_rate(request)?;
        return request.context.reader.view(|view| {
            let start = cursor.enter(request.context, view, &reader(request, view)?, &id)?;
            match (cursor, start) {
                (Cursor::Around(_), Start { part: Part { side: Side::After(middle), floor }, is_reset: false }) => {
                    around(view, &id, middle, floor, limit)
                }
                // With `after`, a client follows the room, so it gets events, too.
                (Cursor::After(_), _) => {
                    Ok(page(start, limit, &view.page(&id, start.part, Kinds::All, limit + 1)?, None))
                }
                // One more frame than is listed tells whether there are more.
                _ => Ok(page(start, limit, &view.page(&id, start.part, Kinds::Messages, limit + 1)?, None)),
            }
        });
    };
    if matches!(cursor, Cursor::Around(_)) {
        return Err(Reason::BadQuery.because("around and q can't be given together"));
    }
    let rate_limiters = &request.context.settings.rate_limiters;
    rate_limiters.take_search(request.address(), Instant::now()).map_err(rate_limited)?;
    let terms = Terms::parse(&words).map_err(|error| Reason::BadQuery.because(error.to_string()))?;
    let payer = Payer { network: network_of(request.address()), account: 0 };
    // The room is checked here, so that a refused search does not wait. The search checks it again in its transaction.
    let identity = request.context.reader.view(|view| {
        let identity = reader(request, view)?;
        cursor.enter(request.context, view, &identity, &id)?;
        Ok::<_, Rejection>(identity)
    })?;
    Ok(Reply::later(Lane::Search, payer, move |context| {
        let deadline = Instant::now() + SEARCH_TIME;
        let mut start = Start::latest(Seq(0));
        let begin = |view: &View<'_>| {
            start = cursor.enter(context, view, &identity, &id)?;
            Ok::<_, Rejection>(start.part)
        };
        let Found { frames, stopped_at } = context.reader.search(&id, &terms, limit + 1, deadline, begin)?;
        Ok(page(start, limit, &frames, stopped_at))
    }))
}

/// Where a page is, relative to a stored frame.
#[derive(Debug, Clone, Copy)]
enum Cursor {
    /// The latest frames.
    Latest,
    Before(FrameId),
    After(FrameId),
    /// The frame with the messages before and after it.
    Around(FrameId),
}

/// Where a page begins in a room.
#[derive(Debug, Clone, Copy)]
struct Start {
    part: Part,
    /// Whether the frame of the cursor is not kept any more.
    is_reset: bool,
}

impl Start {
    /// The latest frames of a reader with a floor.
    fn latest(floor: Seq) -> Self {
        Self { part: Side::Before(Seq(u64::MAX)).above(floor), is_reset: false }
    }

    fn is_after(self) -> bool {
        matches!(self.part.side, Side::After(_))
    }
}

impl Cursor {
    fn of(request: &Request<'_>) -> Result<Self, Rejection> {
        let id = |name| match request.query_value(name).transpose()? {
            None => Ok(None),
            Some(text) => FrameId::parse(&text).map(Some).ok_or_else(bad_cursor),
        };
        match (id("before")?, id("after")?, id("around")?) {
            (None, None, None) => Ok(Self::Latest),
            (Some(before), None, None) => Ok(Self::Before(before)),
            (None, Some(after), None) => Ok(Self::After(after)),
            (None, None, Some(around)) => Ok(Self::Around(around)),
            _ => Err(bad_cursor()),
        }
    }

    /// The start of the page in a room, which must exist for the client. If the frame of the cursor is not kept any
    /// more, the page begins with the oldest kept frame, and nothing is before it.
    fn enter(self, context: &Context, view: &View<'_>, client: &Identity, room: &RoomId) -> Result<Start, Rejection> {
        check_room(context, view, client, room)?;
        let floor = client.floor(view, room);
        let (id, side): (_, fn(Seq) -> Side) = match self {
            Self::Latest => return Ok(Start::latest(floor)),
            Self::Before(id) => (id, Side::Before),
            Self::After(id) | Self::Around(id) => (id, Side::After),
        };
        match view.place(room, id, floor)? {
            Place::At(seq) => Ok(Start { part: side(seq).above(floor), is_reset: false }),
            Place::Forgotten => Ok(Start { part: side(Seq(0)).above(floor), is_reset: true }),
            Place::Unknown => Err(bad_cursor()),
        }
    }
}

/// A page of a room's history.
#[derive(Serialize)]
struct HistoryPage<'a> {
    data: Vec<&'a RawValue>,
    /// Only around a frame: the `before` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    prev: Option<FrameId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<FrameId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reset: Option<bool>,
}

/// A page of at most `limit` frames. More frames than that tell that there is a next page. So does `stopped_at`, the
/// last message that a search has read.
fn page(start: Start, limit: usize, frames: &[Stored], stopped_at: Option<FrameId>) -> Reply {
    let has_more = frames.len() > limit;
    let frames = match (has_more, start.is_after()) {
        (false, _) => frames,
        (true, true) => &frames[..limit],
        (true, false) => &frames[1..],
    };
    let onward = if start.is_after() { frames.last() } else { frames.first() };
    let next = onward.filter(|_| has_more).map(|stored| stored.id).or(stopped_at);
    let data = frames.iter().filter_map(|stored| raw(&stored.json)).collect();
    Reply::json(&HistoryPage { data, prev: None, next, reset: start.is_reset.then_some(true) })
}

/// The page of at most `limit` messages with a frame in the middle.
fn around(view: &View<'_>, room: &RoomId, middle: Seq, floor: Seq, limit: usize) -> Result<Reply, Rejection> {
    let (older_max, newer_max) = (limit / 2, limit.div_ceil(2));
    let older = view.page(room, Side::Before(middle).above(floor), Kinds::Messages, older_max + 1)?;
    let newer = view.page(room, Side::After(Seq(middle.0 - 1)), Kinds::Messages, newer_max + 1)?;
    let (has_older, has_newer) = (older.len() > older_max, newer.len() > newer_max);
    let frames: Vec<&Stored> = older[usize::from(has_older)..].iter().chain(newer.iter().take(newer_max)).collect();
    let prev = frames.first().filter(|_| has_older).map(|stored| stored.id);
    let next = frames.last().filter(|_| has_newer).map(|stored| stored.id);
    let data = frames.iter().filter_map(|stored| raw(&stored.json)).collect();
    Ok(Reply::json(&HistoryPage { data, prev, next, reset: None }))
}

/// `GET /api/rooms/{id}/messages/{message}`
pub(crate) fn get(request: &Request<'_>) -> Result<Reply, Rejection> {
    let room = room_to_read(request)?;
    check_page_rate(request)?;
    let frame = request.context.reader.view(|view| {
        let client = reader(request, view)?;
        check_room(request.context, view, &client, &room)?;
        let id = FrameId::parse(request.parameter("message")).ok_or(Reason::NoSuchMessage)?;
        let floor = client.floor(view, &room);
        let seq = view.seq_of(&room, id)?.filter(|seq| *seq > floor).ok_or(Reason::NoSuchMessage)?;
        let page = view.page(&room, Side::After(Seq(seq.0 - 1)), Kinds::Messages, 1)?;
        // The frame may be an event.
        page.into_iter().find(|stored| stored.id == id).ok_or(Rejection::from(Reason::NoSuchMessage))
    })?;
    Ok(Reply::data(200, raw(&frame.json)))
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
            (body, nonce, protocol::read::<Named>(frame)?.username)
        }
        // `curl -d` sends a text as a form. It is taken as it is.
        "text/plain" | "application/x-www-form-urlencoded" => {
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
    let (author, makes_room) = request.context.reader.view(|view| {
        let identity = identity(request, view, username)?;
        identity.may_enter(view, &room)?;
        let stranger = view.policy().guest_key.user_without_token(identity.network, Some(&identity.username));
        // If that can't be read, the store still says whether the message is stored.
        let makes_room = !is_there(request.context, view, &room).unwrap_or(true);
        Ok::<_, Rejection>((identity.principal(stranger), makes_room))
    })?;
    let message = NewMessage::of_request(room, author, body, nonce);
    let (status, json) = stored(request, message, makes_room)?;
    Ok(Reply::data(status, raw(&json)))
}

/// Stores a message or a deletion. Returns 201 and its frame, or 200 for a retry.
pub(crate) fn stored(
    request: &Request<'_>,
    message: NewMessage,
    makes_room: bool,
) -> Result<(u16, Arc<[u8]>), Rejection> {
    match request.context.hub.send_message(message, makes_room)? {
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
    let (body, nonce) = (Body::Delete { message_id }, idempotency_key(request)?);
    stored(request, NewMessage::of_request(room, author, body, nonce), false)?;
    Ok(Reply::empty(204))
}

/// A stored frame as it is, inside another JSON.
fn raw(json: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice(json).ok()
}
