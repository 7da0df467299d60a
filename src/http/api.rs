//! REST: what the rooms are and who is in them.
//!
//! Runs on the HTTP workers and asks the hub, which answers in time or is busy. No request here makes a room.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use uuid::Builder;

use super::{Reply, Request};
use crate::auth::credential::Credential;
use crate::head::{BadEscape, unescape};
use crate::hub::{Busy, Handle, HistoryError, HistoryFrom, Outcome, Post, RoomDetail, RoomSummary};
use crate::identity::{Denied, Identity};
use crate::limits::{MESSAGES_LISTED, MESSAGES_LISTED_MAX, ROOMS_LISTED_MAX};
use crate::model::{FrameId, NameError, Nonce, Person, RoomId, USERNAME_DEFAULT, UserId, Username};
use crate::protocol::{self, ClientFrame, ErrorCode, Rejected};
use crate::store::Stored;

/// What REST asks of the hub and the store.
pub trait Directory: Send + Sync + 'static {
    /// The rooms behind `after`, ordered by id, `limit` at most.
    ///
    /// # Errors
    /// [`Busy`] where there is no answer in time.
    fn rooms(&self, after: Option<&RoomId>, limit: usize) -> Result<Vec<RoomSummary>, Busy>;

    /// One room, where it is.
    ///
    /// # Errors
    /// [`Busy`] where there is no answer in time.
    fn room(&self, id: &RoomId) -> Result<Option<RoomDetail>, Busy>;

    /// A page of a room's messages, and whether there are more; `None` where there is no such room.
    ///
    /// # Errors
    /// [`HistoryError`].
    fn messages(
        &self,
        id: &RoomId,
        from: HistoryFrom,
        limit: usize,
        words: Option<&str>,
    ) -> Result<Option<(Vec<Stored>, bool)>, HistoryError>;

    /// Says something in a room.
    ///
    /// # Errors
    /// [`Busy`] where there is no answer in time.
    fn post(&self, post: Post) -> Result<Outcome, Busy>;
}

impl Directory for Handle {
    fn rooms(&self, after: Option<&RoomId>, limit: usize) -> Result<Vec<RoomSummary>, Busy> {
        Handle::rooms(self, after, limit)
    }

    fn room(&self, id: &RoomId) -> Result<Option<RoomDetail>, Busy> {
        Handle::room(self, id)
    }

    fn messages(
        &self,
        id: &RoomId,
        from: HistoryFrom,
        limit: usize,
        words: Option<&str>,
    ) -> Result<Option<(Vec<Stored>, bool)>, HistoryError> {
        Handle::messages(self, id, from, limit, words)
    }

    fn post(&self, post: Post) -> Result<Outcome, Busy> {
        Handle::post(self, post)
    }
}

/// Why there is no answer to a question.
#[derive(Debug, thiserror::Error)]
enum ApiError {
    #[error("Room not found")]
    NoRoom,
    #[error("the query can't be read: {0}")]
    Escape(#[from] BadEscape),
    #[error("the room behind which to begin can't be one: {0}")]
    After(#[from] NameError),
    #[error("limit is a number from 1 to {0}")]
    Limit(usize),
    #[error("before and after are ids of messages, and only one of them can be said")]
    Cursor,
    #[error("send JSON as application/json, or the text of a message as text/plain")]
    ContentType,
    #[error("the body is not text in UTF-8")]
    Utf8,
    #[error("that token is nobody's")]
    Token,
    #[error("not so fast")]
    Rate(std::time::Duration),
    #[error("{}", .0.sentence)]
    Rejected(Rejected),
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error("no answer in time: it is not known whether the message is stored; send it again with the same key")]
    Unknown,
    #[error("the server is busy; try again")]
    Busy(#[from] Busy),
}

impl From<HistoryError> for ApiError {
    fn from(error: HistoryError) -> Self {
        match error {
            HistoryError::Unknown => Self::Cursor,
            HistoryError::Busy(busy) => Self::Busy(busy),
        }
    }
}

impl From<ApiError> for Reply {
    fn from(error: ApiError) -> Self {
        let (status, code) = match &error {
            ApiError::NoRoom => (404, "not_found"),
            ApiError::Escape(_) => (400, "bad_room"),
            ApiError::Limit(_) | ApiError::Cursor | ApiError::After(_) => (400, "bad_request"),
            ApiError::ContentType => (415, "bad_type"),
            ApiError::Utf8 => (400, "bad_json"),
            ApiError::Token => (401, "forbidden"),
            ApiError::Rate(_) => (429, "rate_limited"),
            ApiError::Rejected(rejected) => match rejected.code {
                ErrorCode::BadJson => (400, "bad_json"),
                ErrorCode::BadType => (400, "bad_type"),
                ErrorCode::BadRoom => (400, "bad_room"),
                ErrorCode::BadName => (400, "bad_name"),
                ErrorCode::TooLong => (413, "too_long"),
                ErrorCode::RateLimited => (429, "rate_limited"),
                ErrorCode::NotFound => (404, "not_found"),
                ErrorCode::Forbidden => (403, "forbidden"),
                ErrorCode::Conflict => (409, "conflict"),
                ErrorCode::Busy => (503, "busy"),
            },
            ApiError::Denied(Denied::Busy) => (503, "busy"),
            ApiError::Denied(Denied::Name) => (403, "bad_name"),
            ApiError::Denied(Denied::Refused(why)) if why.is_hidden() => (404, "not_found"),
            ApiError::Denied(Denied::Refused(why)) if why.wants_login() => (401, "forbidden"),
            ApiError::Denied(Denied::Refused(_)) => (403, "forbidden"),
            ApiError::Unknown => (504, "busy"),
            ApiError::Busy(_) => (503, "busy"),
        };
        let sentence = match &error {
            // The same as of a room that is not there.
            ApiError::Denied(Denied::Refused(why)) if why.is_hidden() => ApiError::NoRoom.to_string(),
            error => error.to_string(),
        };
        let reply = Self::problem(status, &sentence, code);
        match error {
            ApiError::Rate(wait) => reply.with("Retry-After", (wait.as_secs() + 1).to_string()),
            _ if status == 401 => reply.with("WWW-Authenticate", "Bearer"),
            _ if status == 503 => reply.with("Retry-After", "1"),
            _ => reply,
        }
    }
}

/// `GET /api/rooms?limit=N&after=ID`
pub fn rooms(request: &Request<'_>) -> Reply {
    listing(request).unwrap_or_else(Reply::from)
}

/// `GET /api/rooms/{id}`
pub fn room(request: &Request<'_>) -> Reply {
    detail(request).unwrap_or_else(Reply::from)
}

/// `GET /api/rooms/{id}/messages?before=ID|after=ID&limit=N&q=words`
pub fn messages(request: &Request<'_>) -> Reply {
    history(request).unwrap_or_else(Reply::from)
}

/// `POST /api/rooms/{id}/messages`
pub fn post(request: &Request<'_>) -> Reply {
    posted(request).unwrap_or_else(Reply::from)
}

/// The room that stands in the path before `/messages`. What no room can be called is a room that is not there.
fn room_of(request: &Request<'_>) -> Result<RoomId, ApiError> {
    let id = request.path.rsplit('/').nth(1).unwrap_or_default();
    RoomId::parse(&unescape(id).map_err(|_| ApiError::NoRoom)?).map_err(|_| ApiError::NoRoom)
}

fn history(request: &Request<'_>) -> Result<Reply, ApiError> {
    #[derive(Serialize)]
    struct Page<'a> {
        data: Vec<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<FrameId>,
    }
    let id = room_of(request)?;
    request.door.enter(&reader(request)?, &id)?;
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
    let page = request.directory.messages(&id, from, limit, words.as_deref())?;
    let (frames, has_more) = page.ok_or(ApiError::NoRoom)?;
    let onward = if matches!(from, HistoryFrom::After(_)) { frames.last() } else { frames.first() };
    let next = onward.filter(|_| has_more).map(|stored| stored.id);
    let data = frames.iter().filter_map(|stored| raw(&stored.json)).collect();
    Ok(Reply::json(&Page { data, next }))
}

fn posted(request: &Request<'_>) -> Result<Reply, ApiError> {
    #[derive(Deserialize)]
    struct Named {
        username: Option<String>,
    }
    #[derive(Serialize)]
    struct Posted<'a> {
        data: Option<&'a RawValue>,
    }
    let known = known(request)?;
    let (address, now) = (request.address(), Instant::now());
    let paces = &request.policy.paces;
    let pace = known.map_or_else(|| paces.of_passers_by(address, now), |id| paces.of_user(id, address, now));
    pace.take(now).map_err(ApiError::Rate)?;
    let room = room_of(request)?;
    let text = std::str::from_utf8(request.body).map_err(|_| ApiError::Utf8)?;
    let limits = &request.policy.limits;
    let (content, nonce, reply_to, named) = match request.media_type().as_str() {
        "application/json" => {
            // A message as typed has no JSON around it; a body that says that it is JSON is held to it.
            let frame = if text.trim_start().starts_with('{') { text.trim_start() } else { "{" };
            let ClientFrame::Text { content, nonce, reply_to, .. } =
                protocol::decode(frame, limits).map_err(ApiError::Rejected)?
            else {
                let rejected = Rejected::new(ErrorCode::BadType, "only messages can be posted here", None);
                return Err(ApiError::Rejected(rejected));
            };
            let named = serde_json::from_str::<Named>(frame).ok().and_then(|named| named.username);
            (content, nonce, reply_to, named)
        }
        "text/plain" => (protocol::checked_content(text, limits, None).map_err(ApiError::Rejected)?, None, None, None),
        _ => return Err(ApiError::ContentType),
    };
    let bad_name = |what, error: NameError| {
        ApiError::Rejected(Rejected::new(ErrorCode::BadName, format!("the {what} can't be taken: {error}"), None))
    };
    let nonce = match request.header("Idempotency-Key") {
        None => nonce,
        Some(key) => Some(Nonce::parse(key).map_err(|error| bad_name("Idempotency-Key", error))?),
    };
    let named = match named {
        Some(name) => Some(name),
        None => request.query_value("username").transpose()?,
    };
    let named = named.filter(|name| !name.trim().is_empty()).unwrap_or_else(|| USERNAME_DEFAULT.into());
    let username = Username::parse(&named).map_err(|error| bad_name("username", error))?;
    let identity = identity(request, username)?;
    request.door.enter(&identity, &room)?;
    let Identity { user, username, role, .. } = identity;
    let id = user.unwrap_or_else(|| passer_by(&username));
    let post = Post { room, author: Person { id, username }, role, content, nonce, reply_to };
    let (status, json) = match request.directory.post(post).map_err(|Busy| ApiError::Unknown)? {
        Outcome::Stored(json) => (201, json),
        Outcome::Duplicate(json) => (200, json),
        Outcome::Refused(rejected) => return Err(ApiError::Rejected(rejected)),
    };
    Ok(Reply { status, ..Reply::json(&Posted { data: raw(&json) }) })
}

/// What a request shows of who sends it.
fn shown<'a>(request: &'a Request<'_>) -> Result<Credential<'a>, ApiError> {
    let cookies = request.headers_named("Cookie").map(str::as_bytes);
    Credential::of(request.header("Authorization").map(str::as_bytes), cookies, None).map_err(|_| ApiError::Token)
}

/// The user whom a request's token is for, without asking what they may do.
fn known(request: &Request<'_>) -> Result<Option<UserId>, ApiError> {
    let shown = shown(request)?;
    let Some(token) = shown.token() else { return Ok(None) };
    let session = request.door.registry().session(token).map_err(|_| Denied::Busy)?;
    match session {
        Some(session) => Ok(Some(session.user)),
        // A browser keeps a cookie that is over; who shows a token on purpose is told.
        None if matches!(shown, Credential::Cookie(_)) => Ok(None),
        None => Err(ApiError::Token),
    }
}

/// Who asks, by their token, and called so where they have no name of their own.
fn identity(request: &Request<'_>, asked: Username) -> Result<Identity, ApiError> {
    let shown = shown(request)?;
    let identity = request.door.let_in(shown.token(), asked, request.address())?;
    match shown {
        Credential::Bearer(_) if identity.session.is_none() => Err(ApiError::Token),
        _ => Ok(identity),
    }
}

/// Who reads: by their token or as anybody.
fn reader(request: &Request<'_>) -> Result<Identity, ApiError> {
    identity(request, Username::parse(USERNAME_DEFAULT).map_err(|_| ApiError::NoRoom)?)
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

fn listing(request: &Request<'_>) -> Result<Reply, ApiError> {
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
    // One more than is shown tells whether there is more.
    let mut data = request.directory.rooms(after.as_ref(), limit + 1)?;
    let has_more = data.len() > limit;
    data.truncate(limit);
    let next = data.last().filter(|_| has_more).map(|room| room.id.clone());
    // A private room is listed to its members alone.
    data.retain(|room| request.door.enter(&reader, &room.id).is_ok());
    Ok(Reply::json(&Page { data, next }))
}

fn detail(request: &Request<'_>) -> Result<Reply, ApiError> {
    #[derive(Serialize)]
    struct Found {
        data: RoomDetail,
    }
    // What can't be a room's id is the id of no room.
    let text = unescape(request.item()).map_err(|_| ApiError::NoRoom)?;
    let id = RoomId::parse(&text).map_err(|_| ApiError::NoRoom)?;
    request.door.enter(&reader(request)?, &id)?;
    let data = request.directory.room(&id)?.ok_or(ApiError::NoRoom)?;
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
