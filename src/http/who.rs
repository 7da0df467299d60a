//! Which client asks, what it may do, and what it sends: what the handlers begin with.

use std::sync::Arc;
use std::time::Instant;

use serde::Deserialize;
use uuid::Uuid;

use super::Request;
use super::error::rate_limited;
use crate::auth::credential::Credential;
use crate::auth::permission::{Action, PermissionContext, Target, may};
use crate::authenticator::{Authenticated, Identity, admit, authenticate, note_use};
use crate::head::unescape;
use crate::model::reason::{Reason, Rejection};
use crate::model::{RoomId, UserId, Username};
use crate::role::Role;
use crate::store::View;
use crate::store::entry::{By, Principal};

/// The id of a client without a session where it proposes something: it is refused, or makes an id of its own.
pub(super) const STRANGER: UserId = UserId(Uuid::nil());

/// What a request shows of its client.
pub(super) fn shown<'a>(request: &'a Request<'_>) -> Result<Credential<'a>, Rejection> {
    let cookies = request.headers_named("Cookie").map(str::as_bytes);
    Credential::of(request.header("Authorization").map(str::as_bytes), cookies, None)
        .map_err(|_| Reason::InvalidToken.into())
}

/// The client by its token. A browser keeps a cookie that is over, so that counts as none; a token that was put there on
/// purpose does not.
pub(super) fn client(request: &Request<'_>, view: &View<'_>) -> Result<Authenticated, Rejection> {
    let shown = shown(request)?;
    let client = authenticate(view, shown.token(), request.address())?;
    if let Some(session) = &client.session {
        note_use(&request.context.reader, session, client.identity.proof);
    }
    match shown {
        Credential::Bearer(_) if client.session.is_none() => Err(Reason::InvalidToken.into()),
        _ => Ok(client),
    }
}

/// The client under the name that it asks for, where it has none of its own.
pub(super) fn identity(request: &Request<'_>, view: &View<'_>, asked: Username) -> Result<Identity, Rejection> {
    let shown = shown(request)?;
    let identity = admit(view, shown.token(), asked, request.address())?;
    match shown {
        Credential::Bearer(_) if identity.user.is_none() => Err(Reason::InvalidToken.into()),
        _ => Ok(identity),
    }
}

/// A client that reads: by its token or as anybody.
pub(super) fn reader(request: &Request<'_>, view: &View<'_>) -> Result<Identity, Rejection> {
    identity(request, view, Username::anonymous())
}

/// Takes one of the messages that a client may send: what writes costs a commit, too.
pub(super) fn pace(request: &Request<'_>, user: Option<UserId>) -> Result<(), Rejection> {
    let (address, now) = (request.address(), Instant::now());
    let paces = &request.context.policy.paces;
    let pace = user.map_or_else(|| paces.of_passers_by(address, now), |id| paces.of_user(id, address, now));
    pace.take(now).map_err(rate_limited)
}

/// A client that proposes something, in a room or beside all rooms. Whether it may is asked here, so that it is told so
/// before anything else; what counts is asked again when the entry is applied.
pub(super) struct Actor {
    pub(super) principal: Arc<Principal>,
    role: Role,
    context: PermissionContext,
}

/// The client of a request that proposes something.
pub(super) fn actor(request: &Request<'_>, room: Option<&RoomId>) -> Result<Actor, Rejection> {
    request.context.reader.view(|view| {
        pace(request, client(request, view)?.identity.user)?;
        let identity = reader(request, view)?;
        let (role, context) = (identity.role, identity.context(view, room));
        Ok(Actor { principal: identity.principal(STRANGER), role, context })
    })
}

impl Actor {
    /// # Errors
    /// [`Reason`].
    pub(super) fn may(&self, action: Action) -> Result<(), Reason> {
        may(self.role, action, &self.context)
    }

    /// Whether the client may do something to any guest. Asked first, so that a client that may not do it does not learn
    /// which users there are.
    ///
    /// # Errors
    /// [`Reason`].
    pub(super) fn may_to_others(&self, action: Action) -> Result<(), Reason> {
        may(self.role, action, &PermissionContext { target: Target::Others(Role::Guest), ..self.context })
    }

    /// The client as one that has a session.
    ///
    /// # Errors
    /// [`Reason::NoSession`].
    pub(super) fn known(&self) -> Result<Arc<Principal>, Reason> {
        if self.principal.user() == STRANGER { Err(Reason::NoSession) } else { Ok(Arc::clone(&self.principal)) }
    }

    pub(super) fn by(&self) -> By {
        By::Client(Arc::clone(&self.principal))
    }
}

/// The room of a part of the path, counted from the right. What no room can be called is a room that is not there.
pub(super) fn room_at(request: &Request<'_>, part: usize) -> Result<RoomId, Rejection> {
    let part = request.path.rsplit('/').nth(part).unwrap_or_default();
    let text = unescape(part).map_err(|_| Reason::NoSuchRoom)?;
    RoomId::parse(&text).map_err(|_| Reason::NoSuchRoom.into())
}

/// The body as text, which must say that it is JSON.
pub(super) fn json<'a>(request: &Request<'a>) -> Result<&'a str, Rejection> {
    if request.media_type() != "application/json" {
        return Err(Reason::UnknownMediaType.into());
    }
    text(request)
}

pub(super) fn text<'a>(request: &Request<'a>) -> Result<&'a str, Rejection> {
    std::str::from_utf8(request.body).map_err(|_| Reason::BadJson.because("the body is not text in UTF-8"))
}

/// The body, which must be JSON and say that it is.
pub(super) fn body<'a, T: Deserialize<'a>>(request: &Request<'a>) -> Result<T, Rejection> {
    Ok(serde_json::from_str(json(request)?)?)
}
