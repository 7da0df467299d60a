//! REST: moderation. Invitations, room settings, members of private rooms, mutes, bans and announcements. Runs on the
//! HTTP workers; each change goes through the hub and the log.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::api::{idempotency_key, stored};
use super::error::unexpected;
use super::who::{Actor, actor, body, json, room_at};
use super::{Reply, Request};
use crate::auth::permission::Action;
use crate::auth::secret::{Secret, is_secret, random_id};
use crate::http1::head::unescape;
use crate::limits::{INVITATION_DAYS_MAX, INVITATION_USES_MAX};
use crate::model::reason::{Reason, Rejection};
use crate::model::role::Registration;
use crate::model::{ROOM_DEFAULT, RoomId, Timestamp, UserId, Username};
use crate::protocol::{Body, checked_content, restrictions, room_patch};
use crate::rate::network_of;
use crate::store::TokenHash;
use crate::store::accounts::{Ban, Banned, Invitation, InvitationId};
use crate::store::change::{Change, Done, NewInvitation, Restrict};

const DAY_MS: u64 = 86_400_000;

/// Proposes a change that is answered by the room's settings, and replies with them.
fn change_room(request: &Request<'_>, actor: &Actor, room: &RoomId, change: Change) -> Result<Reply, Rejection> {
    match request.context.hub.change(actor.by(), change)? {
        Done::Room(settings) => Ok(Reply::data(200, settings.shown(room))),
        done => Err(unexpected(&done)),
    }
}

/// `PATCH /api/rooms/{id}`
pub(super) fn set_room(request: &Request<'_>) -> Result<Reply, Rejection> {
    let room = room_at(request, 0)?;
    let actor = actor(request, Some(&room))?;
    actor.may(Action::SetRoom)?;
    let patch = room_patch(json(request)?)?;
    change_room(request, &actor, &room, Change::SetRoom { room: room.clone(), patch })
}

/// `POST /api/rooms/{id}/members`
pub(super) fn become_member(request: &Request<'_>) -> Result<Reply, Rejection> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        invitation: String,
    }
    let room = room_at(request, 1)?;
    // With an invitation, a user may enter like a member.
    let actor = actor(request, None)?;
    actor.may(Action::Enter)?;
    let Asked { invitation } = body(request)?;
    actor.known()?;
    // Everything that is not an invitation to this room gets the same answer.
    let code_hash = Some(&*invitation).filter(|code| is_secret(code)).map(TokenHash::of).ok_or(Reason::NoSuchRoom)?;
    change_room(request, &actor, &room, Change::UseInvitation { room: room.clone(), code_hash })
}

/// `DELETE /api/rooms/{id}/members/{user}`
pub(super) fn kick(request: &Request<'_>) -> Result<Reply, Rejection> {
    let room = room_at(request, 2)?;
    let actor = actor(request, Some(&room))?;
    actor.may_to_others(Action::Kick)?;
    let change = Change::Kick { room, user: user_at(request)?, target: None };
    request.context.hub.change(actor.by(), change)?;
    Ok(Reply::empty(204))
}

/// The user in the last part of the path.
fn user_at(request: &Request<'_>) -> Result<UserId, Rejection> {
    Uuid::try_parse(request.item()).map(UserId).map_err(|_| Reason::NoSuchUser.into())
}

/// `PUT /api/users/{id}`
pub(super) fn restrict(request: &Request<'_>) -> Result<Reply, Rejection> {
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
    let restrict = Restrict { user: id, restrictions, target: None, networks: Vec::new() };
    match request.context.hub.change(actor.by(), Change::Restrict(restrict))? {
        Done::Restricted { muted_until_ms, is_banned: banned, .. } => {
            Ok(Reply::data(200, Shown { id, muted_until: muted_until_ms.map(Timestamp::at), banned }))
        }
        done => Err(unexpected(&done)),
    }
}

/// `DELETE /api/bans/{address}`
pub(super) fn unban_address(request: &Request<'_>) -> Result<Reply, Rejection> {
    let actor = actor(request, None)?;
    actor.may_to_others(Action::Ban)?;
    let text = unescape(request.item()).map_err(|_| Reason::NotFound)?;
    let network = network_of(text.parse().map_err(|_| Reason::NotFound)?);
    request.context.hub.change(actor.by(), Change::UnbanAddress { network })?;
    Ok(Reply::empty(204))
}

/// `GET /api/bans`
pub(super) fn bans(request: &Request<'_>) -> Result<Reply, Rejection> {
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
pub(super) fn announce(request: &Request<'_>) -> Result<Reply, Rejection> {
    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        content: String,
    }
    let actor = actor(request, None)?;
    actor.may(Action::Announce)?;
    let asked: Asked = body(request)?;
    let content = checked_content(&asked.content, &request.context.policy.limits)?;
    let nonce = idempotency_key(request)?;
    let room = RoomId::parse(ROOM_DEFAULT).map_err(|_| Reason::NoSuchRoom)?;
    stored(request, room, actor.known()?, Body::Announcement { content }, nonce)?;
    Ok(Reply::data(202, asked))
}

/// An invitation as admins see it.
#[derive(Serialize)]
struct InvitationShown<'a> {
    id: InvitationId,
    /// Only in the reply that creates the invitation.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    room: Option<&'a RoomId>,
    uses_left: u32,
    expires: Timestamp,
    by: UserId,
}

/// Authenticates a client that may create and revoke invitations, to a room or to register.
fn inviting(request: &Request<'_>, room: Option<&RoomId>) -> Result<Actor, Rejection> {
    let actor = actor(request, room)?;
    actor.may(if room.is_some() { Action::InviteToRoom } else { Action::InviteToRegister })?;
    Ok(actor)
}

/// `POST /api/invitations`
pub(super) fn invite(request: &Request<'_>) -> Result<Reply, Rejection> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        room: Option<String>,
        uses: Option<u32>,
        days: Option<u32>,
    }
    let Asked { room, uses, days } = body(request)?;
    let room = room.map(|room| RoomId::parse(&room)).transpose().map_err(|_| Reason::NoSuchRoom)?;
    let actor = inviting(request, room.as_ref())?;
    let (uses, days) = (uses.unwrap_or(1), days.unwrap_or(7));
    if !(1..=INVITATION_USES_MAX).contains(&uses) || !(1..=INVITATION_DAYS_MAX).contains(&days) {
        return Err(Reason::BadField.because("uses is a number from 1 to 1000, days one from 1 to 365"));
    }
    if room.is_none() && request.context.reader.policy().flags.registration == Registration::Closed {
        return Err(Reason::RegistrationOff.into());
    }
    let (id, code) = (InvitationId(random_id()), Secret::random());
    let code_hash = TokenHash::of(code.expose());
    let invitation = NewInvitation { id, code_hash, room: room.clone(), uses, span_ms: u64::from(days) * DAY_MS };
    match request.context.hub.change(actor.by(), Change::Invite(invitation))? {
        Done::Invited { expires_ms } => {
            let (code, by) = (Some(code.expose()), actor.principal.user());
            let (room, expires) = (room.as_ref(), Timestamp::at(expires_ms));
            Ok(Reply::data(201, InvitationShown { id, code, room, uses_left: uses, expires, by }))
        }
        done => Err(unexpected(&done)),
    }
}

/// `GET /api/invitations?room=R`
pub(super) fn invitations(request: &Request<'_>) -> Result<Reply, Rejection> {
    let room = request.query_value("room").transpose()?.map(|room| RoomId::parse(&room));
    let room = room.transpose().map_err(|_| Reason::NoSuchRoom)?;
    inviting(request, room.as_ref())?;
    request.context.reader.view(|view| {
        let list = view.invitations(room.as_ref())?;
        let shown = list.iter().map(|Invitation { key, room, uses_left, expires_ms, created_by }| InvitationShown {
            id: *key,
            code: None,
            room: room.as_ref(),
            uses_left: *uses_left,
            expires: Timestamp::at(view.moment().shown(*expires_ms)),
            by: *created_by,
        });
        Ok(Reply::data(200, shown.collect::<Vec<_>>()))
    })
}

/// `DELETE /api/invitations/{id}`
pub(super) fn uninvite(request: &Request<'_>) -> Result<Reply, Rejection> {
    let invitation = request.item().parse().map(InvitationId).map_err(|_| Reason::NotFound)?;
    let actor = actor(request, None)?;
    request.context.hub.change(actor.by(), Change::Uninvite { invitation })?;
    Ok(Reply::empty(204))
}
