//! REST: invitations to private rooms and to register. Runs on the HTTP workers; each change goes through the hub and
//! the log.

use serde::{Deserialize, Serialize};

use super::moderation::{DAY_MS, change_room};
use crate::auth::permission::Action;
use crate::auth::secret::{Secret, is_secret, random_id};
use crate::http::error::unexpected;
use crate::http::extract::{Actor, actor, body, room};
use crate::http::reply::Reply;
use crate::http::request::Request;
use crate::limits::{INVITATION_DAYS_MAX, INVITATION_USES_MAX};
use crate::model::reason::{Reason, Rejection};
use crate::model::role::Registration;
use crate::model::{RoomId, Timestamp, UserId};
use crate::protocol::whole_number;
use crate::store::TokenHash;
use crate::store::accounts::{Invitation, InvitationId};
use crate::store::change::{Change, Done, NewInvitation};

/// `POST /api/rooms/{id}/members`
pub(crate) fn accept(request: &Request<'_>) -> Result<Reply, Rejection> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        invitation: String,
    }
    let room = room(request)?;
    // With an invitation, a user may enter like a member.
    let actor = actor(request, None)?;
    actor.may(Action::Enter)?;
    let Asked { invitation } = body(request)?;
    actor.known()?;
    // Everything that is not an invitation to this room gets the same answer.
    let code_hash = Some(&*invitation).filter(|code| is_secret(code)).map(TokenHash::of).ok_or(Reason::NoSuchRoom)?;
    change_room(request, &actor, &room, Change::UseInvitation { room: room.clone(), code_hash })
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
pub(crate) fn create(request: &Request<'_>) -> Result<Reply, Rejection> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        room: Option<String>,
        #[serde(default, deserialize_with = "whole_number")]
        uses: Option<u32>,
        #[serde(default, deserialize_with = "whole_number")]
        days: Option<u32>,
    }
    let Asked { room, uses, days } = body(request)?;
    let room = room.map(|room| RoomId::parse(&room)).transpose().map_err(|_| Reason::NoSuchRoom)?;
    let actor = inviting(request, room.as_ref())?;
    let (uses, days) = (uses.unwrap_or(1), days.unwrap_or(7));
    if !(1..=INVITATION_USES_MAX).contains(&uses) || !(1..=INVITATION_DAYS_MAX).contains(&days) {
        return Err(Reason::BadField.because("uses must be from 1 to 1000, and days from 1 to 365"));
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
pub(crate) fn list(request: &Request<'_>) -> Result<Reply, Rejection> {
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
pub(crate) fn revoke(request: &Request<'_>) -> Result<Reply, Rejection> {
    let invitation = request.parameter("invitation").parse().map(InvitationId).map_err(|_| Reason::NotFound)?;
    let actor = actor(request, None)?;
    request.context.hub.change(actor.by(), Change::Revoke { invitation })?;
    Ok(Reply::empty(204))
}
