//! REST: what the rooms are and who is in them.
//!
//! Runs on the HTTP workers and asks the hub, which answers in time or is busy. No request here makes a room.

use serde::Serialize;

use super::{Reply, Request};
use crate::head::{BadEscape, unescape};
use crate::hub::{Busy, Handle, RoomDetail, RoomSummary};
use crate::limits::ROOMS_LISTED_MAX;
use crate::model::{NameError, RoomId};

/// What REST asks of the hub.
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
}

impl Directory for Handle {
    fn rooms(&self, after: Option<&RoomId>, limit: usize) -> Result<Vec<RoomSummary>, Busy> {
        Handle::rooms(self, after, limit)
    }

    fn room(&self, id: &RoomId) -> Result<Option<RoomDetail>, Busy> {
        Handle::room(self, id)
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
    #[error("limit is a number from 1 to {ROOMS_LISTED_MAX}")]
    Limit,
    #[error("the server is busy; try again")]
    Busy(#[from] Busy),
}

impl From<ApiError> for Reply {
    fn from(error: ApiError) -> Self {
        let (status, code) = match error {
            ApiError::NoRoom => (404, "not_found"),
            ApiError::After(_) => (400, "bad_room"),
            ApiError::Escape(_) | ApiError::Limit => (400, "bad_request"),
            ApiError::Busy(_) => (503, "busy"),
        };
        let reply = Self::problem(status, &error.to_string(), code);
        if status == 503 { reply.with("Retry-After", "1") } else { reply }
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

fn listing(request: &Request<'_>) -> Result<Reply, ApiError> {
    #[derive(Serialize)]
    struct Page {
        data: Vec<RoomSummary>,
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<RoomId>,
    }
    let limit = match request.query_value("limit").transpose()? {
        None => ROOMS_LISTED_MAX,
        Some(text) => match text.parse::<usize>() {
            Ok(limit) if limit > 0 => limit.min(ROOMS_LISTED_MAX),
            _ => return Err(ApiError::Limit),
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
