//! REST: keeping order. Invitations, what is set of rooms, who is in the private ones, mutes, bans, announcements.
//!
//! Each is stored first and then ordered of the hub, so that it holds at once for those who are here.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::api::{idempotency_key, stored};
use super::error::ApiError;
use super::sessions::Data;
use super::who::{actor, body, person, room_at};
use super::{Reply, Request};
use crate::auth::permission::Action;
use crate::auth::secret::{Secret, is_secret};
use crate::head::unescape;
use crate::hub::{Order, Post};
use crate::identity::{Actor, Denied};
use crate::limits::{INVITATION_DAYS_MAX, INVITATION_USES_MAX};
use crate::model::{ROOM_DEFAULT, RoomId, Timestamp, UserId, Username};
use crate::moderation::Restrained;
use crate::protocol::{Body, checked_content};
use crate::rate::network_of;
use crate::role::Registration;
use crate::store::TokenHash;
use crate::store::accounts::{self as kept, Accepted, Ban, Banned, Invitation, NewInvitation};

const DAY_MS: u64 = 86_400_000;

/// `PATCH /api/rooms/{id}`
pub(super) fn set_room(request: &Request<'_>) -> Result<Reply, ApiError> {
    let room = room_at(request, 0)?;
    let mut actor = actor(request, Some(&room))?;
    actor.may(Action::SetRoom)?;
    let settings = request.context.keeper().set_room(&mut actor, &room, body(request)?)?;
    Ok(Reply::json(&Data { data: settings.shown(&room) }))
}

/// `POST /api/rooms/{id}/members`
pub(super) fn become_member(request: &Request<'_>) -> Result<Reply, ApiError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        invitation: String,
    }
    let room = room_at(request, 1)?;
    // By an invitation one comes in as its member does.
    let actor = actor(request, None)?;
    actor.may(Action::Enter)?;
    let Asked { invitation } = body(request)?;
    let user = person(&actor)?.id;
    // One answer to whatever is no invitation to this room.
    let code = Some(&*invitation).filter(|code| is_secret(code)).map(TokenHash::of).ok_or(ApiError::NoRoom)?;
    let (id, now) = (room.clone(), Timestamp::now());
    let turn = request.context.keeper().turn();
    let accepted = request.context.door.registry().change(move |connection| {
        // Whoever is a member may follow their old invitation again.
        if kept::is_member(connection, &id, user)? {
            return Ok(Some((Accepted::Already(id.clone()), kept::room_settings(connection, &id)?)));
        }
        let invitation = kept::invitation_by_code(connection, code, &now)?;
        if invitation.is_none_or(|invitation| invitation.room.as_ref() != Some(&id)) {
            return Ok(None);
        }
        let settings = kept::room_settings(connection, &id)?;
        Ok(Some((kept::accept_to_room(connection, code, user, &now)?, settings)))
    })?;
    let (accepted, settings) = accepted.ok_or(ApiError::NoRoom)?;
    if matches!(accepted, Accepted::New(_)) {
        log::info!("{user} ({}) is a member of {room} by an invitation", actor.identity.username);
    }
    // Also for who was one before: the hub may have been busy when they became it.
    request.context.directory.order(Order::SetMember { room: room.clone(), user, is_member: true })?;
    drop(turn);
    Ok(Reply::json(&Data { data: settings.shown(&room) }))
}

/// `DELETE /api/rooms/{id}/members/{user}`
pub(super) fn kick(request: &Request<'_>) -> Result<Reply, ApiError> {
    let room = room_at(request, 2)?;
    let mut actor = actor(request, Some(&room))?;
    actor.may_to_others(Action::Kick)?;
    request.context.keeper().kick(&mut actor, &room, user_at(request)?)?;
    Ok(Reply::empty(204))
}

/// The user of the last part of the path.
fn user_at(request: &Request<'_>) -> Result<UserId, ApiError> {
    Uuid::try_parse(request.item()).map(UserId).map_err(|_| ApiError::NotFound)
}

/// `PUT /api/users/{id}`
pub(super) fn restrain(request: &Request<'_>) -> Result<Reply, ApiError> {
    #[derive(Serialize)]
    struct Shown {
        id: UserId,
        muted_until: Option<Timestamp>,
        banned: bool,
    }
    let mut actor = actor(request, None)?;
    actor.may_to_others(Action::Ban)?;
    let asked = body(request)?;
    let id = user_at(request)?;
    let Restrained { muted_until, is_banned: banned, .. } = request.context.keeper().restrain(&mut actor, id, asked)?;
    Ok(Reply::json(&Data { data: Shown { id, muted_until, banned } }))
}

/// `DELETE /api/bans/{address}`
pub(super) fn readmit(request: &Request<'_>) -> Result<Reply, ApiError> {
    let mut actor = actor(request, None)?;
    actor.may_to_others(Action::Ban)?;
    let text = unescape(request.item()).map_err(|_| ApiError::NotFound)?;
    let network = network_of(text.parse().map_err(|_| ApiError::NotFound)?);
    let by = person(&actor)?.id;
    let was_banned = request
        .context
        .door
        .registry()
        .change(move |connection| Ok(kept::unban(connection, Banned::Address(network))?))?;
    if !was_banned {
        return Err(ApiError::NotFound);
    }
    log::info!("{by} lets the guests of {network} in again");
    Ok(Reply::empty(204))
}

/// `GET /api/bans`
pub(super) fn bans(request: &Request<'_>) -> Result<Reply, ApiError> {
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
    let mut actor = actor(request, None)?;
    actor.may_to_others(Action::Ban)?;
    let lines = request.context.door.registry().read(|connection| {
        let line = |Ban { banned, until_ms, reason, by }| {
            let (user, address) = match banned {
                Banned::User(id) => (Some(id), None),
                Banned::Address(address) => (None, Some(address.to_string())),
            };
            let known = user.map_or(Ok(None), |id| kept::somebody(connection, id))?;
            let (username, until) = (known.and_then(|(_, name)| name), until_ms.map(Timestamp::at));
            Ok(Line { user, username, address, until, reason, by })
        };
        kept::bans(connection, &Timestamp::now())?.into_iter().map(line).collect::<rusqlite::Result<Vec<_>>>()
    })?;
    Ok(Reply::json(&Data { data: lines }))
}

/// `POST /api/announcements`
pub(super) fn announce(request: &Request<'_>) -> Result<Reply, ApiError> {
    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        content: String,
    }
    let actor = actor(request, None)?;
    actor.may(Action::Announce)?;
    let asked: Asked = body(request)?;
    let content = checked_content(&asked.content, &request.context.policy.limits, None).map_err(ApiError::Rejected)?;
    let (author, role, nonce) = (person(&actor)?, actor.identity.role, idempotency_key(request)?);
    log::info!("{} announces something to all rooms", author.id);
    let (room, body) = (RoomId::parse(ROOM_DEFAULT).map_err(|_| ApiError::NoRoom)?, Body::Announcement { content });
    stored(request, Post { room, author, role, body, nonce })?;
    Ok(Reply { status: 202, ..Reply::json(&Data { data: asked }) })
}

/// An invitation as admins are told of it.
#[derive(Serialize)]
struct InvitationShown<'a> {
    id: i64,
    /// Once, when it is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    room: Option<&'a RoomId>,
    uses_left: u32,
    expires: Timestamp,
    by: UserId,
}

/// Whether somebody may have to do with invitations to a room, or to register.
fn may_invite(request: &Request<'_>, room: Option<&RoomId>) -> Result<Actor, ApiError> {
    let actor = actor(request, room)?;
    actor.may(if room.is_some() { Action::InviteToRoom } else { Action::InviteToRegister })?;
    Ok(actor)
}

/// `POST /api/invitations`
pub(super) fn invite(request: &Request<'_>) -> Result<Reply, ApiError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        room: Option<String>,
        uses: Option<u32>,
        days: Option<u32>,
    }
    let Asked { room, uses, days } = body(request)?;
    let room = room.map(|room| RoomId::parse(&room)).transpose().map_err(|_| ApiError::NoRoom)?;
    let actor = may_invite(request, room.as_ref())?;
    let (uses, days) = (uses.unwrap_or(1), days.unwrap_or(7));
    if !(1..=INVITATION_USES_MAX).contains(&uses) || !(1..=INVITATION_DAYS_MAX).contains(&days) {
        return Err(ApiError::Field("uses is a number from 1 to 1000, days one from 1 to 365"));
    }
    if room.is_none() && request.context.policy.registration == Registration::Closed {
        return Err(ApiError::Conflict("nobody can register here: the operator has closed that"));
    }
    let (by, code, now) = (person(&actor)?.id, Secret::random(), Timestamp::now());
    let (code_hash, expires_ms) = (TokenHash::of(code.expose()), now.unix_ms + u64::from(days) * DAY_MS);
    let to = room.clone();
    let key = request.context.door.registry().change(move |connection| {
        if let Some(room) = &to
            && !kept::room_settings(connection, room)?.is_private
        {
            return Ok(None);
        }
        let new = NewInvitation { code_hash, room: to.as_ref(), uses, expires_ms, created_by: by };
        Ok(Some(kept::invite(connection, &new, &now)?))
    })?;
    let id = key.ok_or(ApiError::Conflict("this room is public; anybody may come in"))?;
    match &room {
        Some(room) => log::info!("{by} has made invitation {id} to {room}, for {uses} uses in {days} days"),
        None => log::info!("{by} has made invitation {id} to register, for {uses} uses in {days} days"),
    }
    let expires = Timestamp::at(expires_ms);
    let data = InvitationShown { id, code: Some(code.expose()), room: room.as_ref(), uses_left: uses, expires, by };
    Ok(Reply { status: 201, ..Reply::json(&Data { data }) })
}

/// `GET /api/invitations?room=R`
pub(super) fn invitations(request: &Request<'_>) -> Result<Reply, ApiError> {
    let room = request.query_value("room").transpose()?.map(|room| RoomId::parse(&room));
    let room = room.transpose().map_err(|_| ApiError::NoRoom)?;
    may_invite(request, room.as_ref())?;
    let registry = request.context.door.registry();
    let list = registry.read(|connection| kept::invitations(connection, room.as_ref(), &Timestamp::now()))?;
    let shown = list.iter().map(|Invitation { key, room, uses_left, expires_ms, created_by }| InvitationShown {
        id: *key,
        code: None,
        room: room.as_ref(),
        uses_left: *uses_left,
        expires: Timestamp::at(*expires_ms),
        by: *created_by,
    });
    Ok(Reply::json(&Data { data: shown.collect::<Vec<_>>() }))
}

/// `DELETE /api/invitations/{id}`
pub(super) fn uninvite(request: &Request<'_>) -> Result<Reply, ApiError> {
    let key = request.item().parse().map_err(|_| ApiError::NotFound)?;
    let registry = request.context.door.registry();
    let found = registry.read(|connection| kept::invitation(connection, key, &Timestamp::now()))?;
    // Who may make none to register is told that, whether there is this one or not.
    let Some(Invitation { room, .. }) = found else {
        may_invite(request, None)?;
        return Err(ApiError::NotFound);
    };
    // One answer to whatever is no invitation for whoever asks.
    let actor = may_invite(request, room.as_ref()).map_err(|error| match error {
        ApiError::Denied(Denied::Refused(why)) if why.is_hidden() => ApiError::NotFound,
        error => error,
    })?;
    registry.change(move |connection| kept::uninvite(connection, key, room.as_ref()))?;
    log::info!("{} has taken back invitation {key}", person(&actor)?.id);
    Ok(Reply::empty(204))
}
