//! REST: the rooms that a client may see. Runs on the HTTP workers. No read creates a room.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

use crate::authenticator::Identity;
use crate::http::extract::{Page, check_page_rate, limit_of, reader, room_to_read};
use crate::http::reply::Reply;
use crate::http::request::Request;
use crate::http::server::Context;
use crate::limits::{MEMBERS_LISTED_MAX, ROOMS_LISTED_MAX};
use crate::model::reason::{Reason, Rejection};
use crate::model::role::{Posting, Role};
use crate::model::{FrameId, Person, RoomId, Seq, UserId};
use crate::store::View;
use crate::store::accounts::RoomSettings;

/// Whether a room exists: it has members, messages, or settings.
pub(crate) fn is_there(context: &Context, view: &View<'_>, room: &RoomId) -> Result<bool, Rejection> {
    let is_known = view.policy().room(room).is_some() || context.hub.presence(room).is_some();
    Ok(is_known || view.room(room)?.is_some())
}

/// Checks that a client may enter a room, and that the room exists.
pub(crate) fn check_room(
    context: &Context,
    view: &View<'_>,
    client: &Identity,
    room: &RoomId,
) -> Result<(), Rejection> {
    client.may_enter(view, room)?;
    if is_there(context, view, room)? { Ok(()) } else { Err(Reason::NoSuchRoom.into()) }
}

/// An entry in the list of rooms.
#[derive(Serialize)]
struct RoomSummary {
    id: RoomId,
    name: String,
    client_count: usize,
    seq: Seq,
    /// Only of a private room.
    #[serde(skip_serializing_if = "Option::is_none")]
    private: Option<bool>,
    /// Whether the client is a member. Only of a private room.
    #[serde(skip_serializing_if = "Option::is_none")]
    member: Option<bool>,
}

impl RoomSummary {
    fn of(
        request: &Request<'_>,
        view: &View<'_>,
        client: &Identity,
        id: RoomId,
        seq: Option<Seq>,
    ) -> Result<Self, Rejection> {
        let named = view.policy().room(&id).map(|settings| &*settings.name).filter(|name| !name.is_empty());
        let name = named.unwrap_or(id.as_str()).to_owned();
        let client_count = request.context.hub.presence(&id).map_or(0, |presence| presence.count);
        let seq = match seq {
            Some(seq) => seq,
            None => view.head(&id)?,
        };
        let private = view.policy().is_private(&id).then_some(true);
        let member = private.map(|_| is_member(view, client, &id));
        Ok(Self { id, name, client_count, seq, private, member })
    }
}

/// `GET /api/rooms?sort=id|active&limit=N&after=CURSOR`
pub(crate) fn list(request: &Request<'_>) -> Result<Reply, Rejection> {
    let limit = limit_of(request, ROOMS_LISTED_MAX, ROOMS_LISTED_MAX)?;
    let after = request.query_value("after").transpose()?;
    match request.query_value("sort").transpose()?.as_deref() {
        None | Some("id") => list_by_id(request, limit, after.as_deref()),
        Some("active") => list_by_activity(request, limit, after.as_deref()),
        Some(_) => Err(Reason::BadQuery.because("sort must be “id” or “active”")),
    }
}

fn list_by_id(request: &Request<'_>, limit: usize, after: Option<&str>) -> Result<Reply, Rejection> {
    let after = after.map(RoomId::parse_to_read).transpose();
    let after = after.map_err(|error| Reason::BadQuery.because(format!("invalid after: {error}")))?;
    request.context.reader.view(|view| {
        let identity = reader(request, view)?;
        // One more room than is listed tells whether there are more. Private rooms are removed before anything is
        // counted, so that even `next` does not reveal one.
        let mut data = listed(request, view, &identity, after, limit + 1)?;
        let has_more = data.len() > limit;
        data.truncate(limit);
        let next = data.last().filter(|_| has_more).map(|room| room.id.clone());
        Ok(Reply::json(&Page { data, next }))
    })
}

/// The place of a room in the list by activity: rooms with people first, then the rooms with the latest frames.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Activity {
    is_empty: bool,
    last: Reverse<FrameId>,
    id: RoomId,
}

impl Activity {
    /// The cursor of the page after this room.
    fn cursor(&self) -> String {
        format!("{}-{}-{}", u8::from(self.is_empty), self.last.0.0.simple(), self.id)
    }

    fn parse(cursor: &str) -> Option<Self> {
        let (is_empty, rest) = cursor.split_once('-')?;
        let (last, id) = rest.split_once('-')?;
        let (last, id) = (Reverse(FrameId::parse(last)?), RoomId::parse_to_read(id).ok()?);
        matches!(is_empty, "0" | "1").then(|| Self { is_empty: is_empty == "1", last, id })
    }
}

fn list_by_activity(request: &Request<'_>, limit: usize, after: Option<&str>) -> Result<Reply, Rejection> {
    let after_room = after.map(RoomId::parse_to_read).transpose();
    let after_room = after_room.map_err(|error| Reason::BadQuery.because(format!("invalid after: {error}")))?;
    // This looks at all rooms.
    check_page_rate(request)?;
    request.context.reader.view(|view| {
        let identity = reader(request, view)?;
        let is_listed = |room: &RoomId| is_listed(view, &identity, room);
        let kept = view.active_rooms()?.into_iter().map(|(room, last)| (room.id, (Some(room.head), last)));
        let mut rooms: HashMap<RoomId, (Option<Seq>, FrameId)> = kept.filter(|(room, _)| is_listed(room)).collect();
        let present: HashSet<RoomId> =
            request.context.hub.present_rooms(None, usize::MAX, is_listed).into_iter().collect();
        let own = identity.user.map_or_else(|| Ok(Vec::new()), |user| view.rooms_of(user))?;
        for room in present.iter().cloned().chain(own) {
            rooms.entry(room).or_insert((None, FrameId(Uuid::nil())));
        }
        let place = |(id, (head, last)): (RoomId, (Option<Seq>, FrameId))| {
            (Activity { is_empty: !present.contains(&id), last: Reverse(last), id }, head)
        };
        let mut rooms: Vec<_> = rooms.into_iter().map(place).collect();
        // A room id stands for the place of that room.
        let place_of = |id: &RoomId| rooms.iter().find(|(room, _)| room.id == *id).map(|(room, _)| room.clone());
        let after = after.and_then(Activity::parse).or_else(|| after_room.as_ref().and_then(place_of));
        rooms.retain(|(room, _)| after.as_ref().is_none_or(|after| room > after));
        rooms.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let has_more = rooms.len() > limit;
        rooms.truncate(limit);
        let next = rooms.last().filter(|_| has_more).map(|(room, _)| room.cursor());
        let data = rooms.into_iter().map(|(room, head)| RoomSummary::of(request, view, &identity, room.id, head));
        let data = data.collect::<Result<Vec<_>, Rejection>>()?;
        Ok(Reply::json(&Page { data, next }))
    })
}

fn is_member(view: &View<'_>, identity: &Identity, room: &RoomId) -> bool {
    identity.user.is_some_and(|user| view.policy().is_member(room, user))
}

/// Whether a room is listed to a client: it is public, or the client is a member or an admin.
pub(super) fn is_listed(view: &View<'_>, identity: &Identity, room: &RoomId) -> bool {
    identity.role == Role::Admin || !view.policy().is_private(room) || is_member(view, identity, room)
}

/// The rooms after a given room that a client may see, ordered by id, at most `count`.
fn listed(
    request: &Request<'_>,
    view: &View<'_>,
    identity: &Identity,
    after: Option<RoomId>,
    count: usize,
) -> Result<Vec<RoomSummary>, Rejection> {
    let is_listed = |room: &RoomId| is_listed(view, identity, room);
    let mut rooms: Vec<(RoomId, Option<Seq>)> = Vec::new();
    // Rooms with messages, page by page, until enough of them are listed.
    let mut behind = after.clone();
    loop {
        let page = view.rooms(behind.as_ref(), count)?;
        let is_last = page.len() < count;
        behind = page.last().map(|room| room.id.clone());
        rooms.extend(page.into_iter().filter(|room| is_listed(&room.id)).map(|room| (room.id, Some(room.head))));
        if is_last || rooms.len() >= count {
            break;
        }
    }
    // Rooms with members, and the private rooms in which the user is a member.
    let present = request.context.hub.present_rooms(after.as_ref(), count, is_listed);
    let own = identity.user.map_or_else(|| Ok(Vec::new()), |user| view.rooms_of(user))?;
    let own = own.into_iter().filter(|room| after.as_ref().is_none_or(|after| room > after));
    for room in present.into_iter().chain(own) {
        if !rooms.iter().any(|(known, _)| *known == room) {
            rooms.push((room, None));
        }
    }
    rooms.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    rooms.truncate(count);
    rooms.into_iter().map(|(id, seq)| RoomSummary::of(request, view, identity, id, seq)).collect()
}

/// `GET /api/rooms/{id}`
pub(crate) fn get(request: &Request<'_>) -> Result<Reply, Rejection> {
    /// Settings with their default values are omitted.
    #[derive(Serialize)]
    struct Room<'a> {
        #[serde(flatten)]
        summary: RoomSummary,
        clients: &'a [Arc<Person>],
        #[serde(skip_serializing_if = "str::is_empty")]
        topic: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        posting: Option<Posting>,
        #[serde(skip_serializing_if = "Option::is_none")]
        slow_mode_s: Option<u32>,
    }
    let id = room_to_read(request)?;
    request.context.reader.view(|view| {
        let client = reader(request, view)?;
        check_room(request.context, view, &client, &id)?;
        let settings = view.policy().room(&id).cloned().unwrap_or_default();
        let presence = request.context.hub.presence(&id);
        let RoomSettings { topic, posting, slow_mode_s, .. } = &settings;
        let data = Room {
            summary: RoomSummary::of(request, view, &client, id, None)?,
            clients: presence.as_deref().map_or(&[], |presence| &presence.people),
            topic,
            posting: Some(*posting).filter(|posting| *posting != Posting::default()),
            slow_mode_s: Some(*slow_mode_s).filter(|s| *s > 0),
        };
        Ok(Reply::data(200, data))
    })
}

/// `GET /api/rooms/{id}/members?limit=N&after=ID`
pub(crate) fn members(request: &Request<'_>) -> Result<Reply, Rejection> {
    let id = room_to_read(request)?;
    let limit = limit_of(request, MEMBERS_LISTED_MAX, MEMBERS_LISTED_MAX)?;
    let after = match request.query_value("after").transpose()? {
        None => None,
        Some(text) => Some(
            Uuid::try_parse(&text)
                .map(UserId)
                .map_err(|_| Reason::BadQuery.because("after must be the id of a user"))?,
        ),
    };
    check_page_rate(request)?;
    request.context.reader.view(|view| check_room(request.context, view, &reader(request, view)?, &id))?;
    // One more person than is listed tells whether there are more.
    let presence = request.context.hub.presence(&id);
    let mut data = presence.map_or_else(Vec::new, |presence| presence.after(after, limit + 1));
    let has_more = data.len() > limit;
    data.truncate(limit);
    let next = data.last().filter(|_| has_more).map(|person| person.id);
    Ok(Reply::json(&Page { data, next }))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use crate::http::tests::{Backend, Member};
    use crate::model::UserId;

    /// Four rooms with one message and two members each. The members are dropped first.
    fn four_rooms() -> (Vec<Member>, Backend) {
        let backend = Backend::start();
        let mut members = Vec::new();
        for room in ["a b", "general", "tea", "আড্ডা"] {
            backend.post(room, "hi");
            for number in [1, 2] {
                members.push(backend.join(room, UserId(Uuid::from_u128(number)), "ana"));
            }
        }
        (members, backend)
    }

    fn ask(backend: &Backend, target: &str) -> (u16, String) {
        let reply = backend.get(target);
        assert_eq!(reply.header("Access-Control-Allow-Origin"), Some("*"), "{target}");
        (reply.status, reply.text().to_owned())
    }

    #[test]
    fn the_list_of_rooms_is_paged() {
        let (_members, backend) = four_rooms();
        let ask = |target: &str| ask(&backend, target);
        let (status, body) = ask("/api/rooms");
        assert_eq!(status, 200);
        assert!(body.starts_with(r#"{"data":[{"id":"a b","name":"a b","client_count":2,"seq":1}"#), "{body}");
        assert!(!body.contains("next"));
        assert!(ask("/api/rooms?limit=4").1.ends_with("]}"));
        let (_, body) = ask("/api/rooms?limit=2");
        assert!(body.ends_with(r#"],"next":"general"}"#), "{body}");
        let (_, body) = ask("/api/rooms?limit=2&after=general");
        assert!(body.starts_with(r#"{"data":[{"id":"tea""#) && !body.contains("next"), "{body}");
        assert!(ask("/api/rooms?after=a+b").1.starts_with(r#"{"data":[{"id":"general""#));
        // A number that no integer can hold counts as the largest limit, too.
        for limit in ["9999", "99999999999999999999999999"] {
            assert_eq!(ask(&format!("/api/rooms?limit={limit}")).0, 200, "{limit}");
        }
        for query in ["limit=0", "limit=x", "limit=-1", "limit=%ff", "after=%00", "after=%f", "after="] {
            assert_eq!(ask(&format!("/api/rooms?{query}")).0, 400, "{query}");
        }
    }

    #[test]
    fn a_room_without_messages_is_listed_while_it_has_members() {
        let backend = Backend::start();
        backend.post("general", "hi");
        let member = backend.join("empty", UserId(Uuid::from_u128(1)), "ana");
        let page = r#"{"data":[{"id":"empty","name":"empty","client_count":1,"seq":0},{"id":"general","name":"general","client_count":0,"seq":1}]}"#;
        assert_eq!(ask(&backend, "/api/rooms").1, page);
        assert_eq!(ask(&backend, "/api/rooms/empty").0, 200);
        drop(member);
    }

    #[test]
    fn all_people_of_a_room_are_listed_page_by_page() {
        let backend = Backend::start();
        let user = |number: u128| UserId(Uuid::from_u128(number));
        let mut members: Vec<_> = (1..=250).rev().map(|number| backend.join("tea", user(number), "ana")).collect();
        // A second connection is no second person.
        members.push(backend.join("tea", user(7), "ana"));
        let page = |query: &str| {
            let (status, body) = ask(&backend, &format!("/api/rooms/tea/members{query}"));
            assert_eq!(status, 200, "{body}");
            serde_json::from_str::<serde_json::Value>(&body).unwrap()
        };
        let ids = |page: &serde_json::Value| -> Vec<UserId> {
            let people = page["data"].as_array().unwrap().iter();
            people.map(|person| UserId(person["id"].as_str().unwrap().parse().unwrap())).collect()
        };
        let first = page("");
        assert_eq!(
            first["data"][0],
            serde_json::json!({"id": user(1).to_string(), "username": "ana", "role": "guest", "bot": false})
        );
        assert_eq!(ids(&first), (1..=200).map(user).collect::<Vec<_>>());
        let last = page(&format!("?after={}", first["next"].as_str().unwrap()));
        assert_eq!((ids(&last), &last["next"]), ((201..=250).map(user).collect(), &serde_json::Value::Null));
        drop(members.drain(..240));
        // A page goes on after a person that has left.
        let rest = page(&format!("?limit=3&after={}", user(4)));
        assert_eq!((ids(&rest), rest["next"].as_str()), ((5..=7).map(user).collect(), Some(&*user(7).to_string())));
        for query in ["after=ana", "after=", "limit=0"] {
            assert_eq!(ask(&backend, &format!("/api/rooms/tea/members?{query}")).0, 400, "{query}");
        }
        assert_eq!(ask(&backend, "/api/rooms/none/members").0, 404);
    }

    #[test]
    fn a_room_is_found_by_its_percent_encoded_id() {
        let (_members, backend) = four_rooms();
        for path in
            ["/api/rooms/general", "/api/rooms/a%20b", "/api/rooms/%E0%A6%86%E0%A6%A1%E0%A7%8D%E0%A6%A1%E0%A6%BE"]
        {
            let (status, body) = ask(&backend, path);
            assert_eq!(status, 200, "{path}");
            assert!(body.contains(r#""clients":[{"id":""#), "{body}");
        }
        for id in ["none", "%zz", "%ff", "%00", "%20", "dm:a:b"] {
            let (status, body) = ask(&backend, &format!("/api/rooms/{id}"));
            let expected = r#"{"error":"Room not found","code":"not_found","reason":"no_such_room"}"#;
            assert_eq!((status, &*body), (404, expected), "{id}");
        }
    }
}
