//! REST: moderation. Room settings, kicks, mutes, bans and announcements. Runs on the
//! HTTP workers; each change goes through the hub and the log.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::messages::{idempotency_key, stored};
use crate::auth::permission::Action;
use crate::http::error::unexpected;
use crate::http::extract::{Actor, actor, body, json, room, room_to_read};
use crate::http::reply::Reply;
use crate::http::request::Request;
use crate::http1::head::unescape;
use crate::model::reason::{Reason, Rejection};
use crate::model::{ROOM_DEFAULT, RoomId, Timestamp, UserId, Username};
use crate::protocol::{Body, address_ban, checked_content, restrictions, room_patch};
use crate::rate::network_of;
use crate::store::accounts::{Ban, Banned};
use crate::store::change::{Change, Done, Restrict};
use crate::store::entry::NewMessage;

pub(super) const DAY_MS: u64 = 86_400_000;

/// Proposes a change that is answered by the room's settings, and replies with them.
pub(super) fn change_room(
    request: &Request<'_>,
    actor: &Actor,
    room: &RoomId,
    change: Change,
) -> Result<Reply, Rejection> {
    match request.context.hub.change(actor.by(), change)? {
        Done::Room(settings) => Ok(Reply::data(200, settings.shown(room))),
        done => Err(unexpected(&done)),
    }
}

/// `PATCH /api/rooms/{id}`
pub(crate) fn set_room(request: &Request<'_>) -> Result<Reply, Rejection> {
    let room = room(request)?;
    let actor = actor(request, Some(&room))?;
    actor.may(Action::SetPrivate)?;
    let patch = room_patch(json(request)?)?;
    change_room(request, &actor, &room, Change::SetRoom { room: room.clone(), patch })
}

/// `DELETE /api/rooms/{id}`
pub(crate) fn delete_room(request: &Request<'_>) -> Result<Reply, Rejection> {
    let room = room_to_read(request)?;
    let actor = actor(request, Some(&room))?;
    actor.may(Action::DeleteRoom)?;
    request.context.hub.change(actor.by(), Change::DeleteRoom { room })?;
    Ok(Reply::empty(204))
}

/// `DELETE /api/rooms/{id}/members/{user}`
pub(crate) fn kick(request: &Request<'_>) -> Result<Reply, Rejection> {
    let room = room(request)?;
    let actor = actor(request, Some(&room))?;
    actor.may_to_others(Action::Kick)?;
    let change = Change::Kick { room, user: user_at(request)?, target: None };
    request.context.hub.change(actor.by(), change)?;
    Ok(Reply::empty(204))
}

/// The user in the path.
fn user_at(request: &Request<'_>) -> Result<UserId, Rejection> {
    Uuid::try_parse(request.parameter("user")).map(UserId).map_err(|_| Reason::NoSuchUser.into())
}

/// `PUT /api/users/{id}`
pub(crate) fn restrict(request: &Request<'_>) -> Result<Reply, Rejection> {
    #[derive(Serialize)]
    struct Shown {
        id: UserId,
        muted_until: Option<Timestamp>,
        banned: bool,
    }
    let actor = actor(request, None)?;
    actor.may_to_others(Action::Ban)?;
    let restrictions = restrictions(json(request)?)?;
    let id = user_at(request)?;
    let restrict = Restrict::of(id, restrictions);
    match request.context.hub.change(actor.by(), Change::Restrict(restrict))? {
        Done::Restricted { muted_until_ms, is_banned: banned, .. } => {
            Ok(Reply::data(200, Shown { id, muted_until: muted_until_ms.map(Timestamp::at), banned }))
        }
        done => Err(unexpected(&done)),
    }
}

/// The network of the address in the path.
fn network_at(request: &Request<'_>) -> Result<IpAddr, Rejection> {
    let text = unescape(request.parameter("address")).map_err(|_| Reason::NotFound)?;
    Ok(network_of(text.parse().map_err(|_| Reason::NotFound)?))
}

/// `PUT /api/bans/{address}`
pub(crate) fn ban_address(request: &Request<'_>) -> Result<Reply, Rejection> {
    let actor = actor(request, None)?;
    actor.may_to_others(Action::Ban)?;
    let terms = address_ban(json(request)?)?;
    let network = network_at(request)?;
    request.context.hub.change(actor.by(), Change::BanAddress { network, terms, is_shared: false })?;
    Ok(Reply::empty(204))
}

/// `DELETE /api/bans/{address}`
pub(crate) fn unban_address(request: &Request<'_>) -> Result<Reply, Rejection> {
    let actor = actor(request, None)?;
    actor.may_to_others(Action::Ban)?;
    let network = network_at(request)?;
    request.context.hub.change(actor.by(), Change::UnbanAddress { network })?;
    Ok(Reply::empty(204))
}

/// `GET /api/bans`
pub(crate) fn bans(request: &Request<'_>) -> Result<Reply, Rejection> {
    #[derive(Serialize)]
    struct Line {
        #[serde(skip_serializing_if = "Option::is_none")]
        user: Option<UserId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        username: Option<Username>,
        #[serde(skip_serializing_if = "Option::is_none")]
        address: Option<String>,
        until: Option<Timestamp>,
        reason: Box<str>,
        by: UserId,
    }
    actor(request, None)?.may_to_others(Action::Ban)?;
    let lines = request.context.reader.view(|view| {
        let line = |Ban { banned, until_ms, reason, by }| {
            let (user, address) = match banned {
                Banned::User(id) => (Some(id), None),
                Banned::Address(address) => (None, Some(address.to_string())),
            };
            let known = user.map_or(Ok(None), |id| view.user(id))?;
            let username = known.and_then(|(_, name)| name);
            let until = until_ms.map(|until_ms| Timestamp::at(view.moment().shown(until_ms)));
            Ok(Line { user, username, address, until, reason, by })
        };
        view.bans()?.into_iter().map(line).collect::<Result<Vec<_>, Rejection>>()
    })?;
    Ok(Reply::data(200, lines))
}

/// `POST /api/announcements`
pub(crate) fn announce(request: &Request<'_>) -> Result<Reply, Rejection> {
    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        content: String,
    }
    let actor = actor(request, None)?;
    actor.may(Action::Announce)?;
    let asked: Asked = body(request)?;
    let content = checked_content(&asked.content, &request.context.settings.limits)?;
    let nonce = idempotency_key(request)?;
    let room = RoomId::parse(ROOM_DEFAULT).map_err(|_| Reason::NoSuchRoom)?;
    let (author, body) = (actor.known()?, Body::Announcement { content });
    stored(request, NewMessage::of_request(room, author, body, nonce), false)?;
    Ok(Reply::data(202, asked))
}
