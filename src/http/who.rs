//! Who asks, what they may do, and what they say: what the handlers begin with.

use std::time::Instant;

use serde::Deserialize;

use super::Request;
use super::error::ApiError;
use crate::auth::credential::Credential;
use crate::head::unescape;
use crate::identity::{Actor, Denied, Identity};
use crate::model::{Person, RoomId, USERNAME_DEFAULT, UserId, Username};
use crate::store::accounts::Session;

/// What a request shows of who sends it.
pub(super) fn shown<'a>(request: &'a Request<'_>) -> Result<Credential<'a>, ApiError> {
    let cookies = request.headers_named("Cookie").map(str::as_bytes);
    Credential::of(request.header("Authorization").map(str::as_bytes), cookies, None).map_err(|_| ApiError::Token)
}

/// The session that a request shows, without asking what it may do.
pub(super) fn session(request: &Request<'_>) -> Result<Option<Session>, ApiError> {
    let shown = shown(request)?;
    let Some(token) = shown.token() else { return Ok(None) };
    let session = request.context.door.registry().session(token).map_err(|_| Denied::Busy)?;
    match session {
        Some(session) => Ok(Some(session)),
        // A browser keeps a cookie that is over; who shows a token on purpose is told.
        None if matches!(shown, Credential::Cookie(_)) => Ok(None),
        None => Err(ApiError::Token),
    }
}

/// The user whom a request's token is for, without asking what they may do.
pub(super) fn known(request: &Request<'_>) -> Result<Option<UserId>, ApiError> {
    Ok(session(request)?.map(|session| session.user))
}

/// Who asks, by their token, and called so where they have no name of their own.
pub(super) fn identity(request: &Request<'_>, asked: Username) -> Result<Identity, ApiError> {
    let shown = shown(request)?;
    let identity = request.context.door.let_in(shown.token(), asked, request.address())?;
    match shown {
        Credential::Bearer(_) if identity.session.is_none() => Err(ApiError::Token),
        _ => Ok(identity),
    }
}

/// Who reads: by their token or as anybody.
pub(super) fn reader(request: &Request<'_>) -> Result<Identity, ApiError> {
    identity(request, Username::parse(USERNAME_DEFAULT).map_err(|_| ApiError::NoRoom)?)
}

/// Takes one of the messages that whoever asks may send: what writes costs a commit, too.
pub(super) fn pace(request: &Request<'_>) -> Result<(), ApiError> {
    let known = known(request)?;
    let (address, now) = (request.address(), Instant::now());
    let paces = &request.context.policy.paces;
    let pace = known.map_or_else(|| paces.of_passers_by(address, now), |id| paces.of_user(id, address, now));
    pace.take(now).map_err(ApiError::Rate)
}

/// Who asks to do something in a room, or in the house.
pub(super) fn actor(request: &Request<'_>, room: Option<&RoomId>) -> Result<Actor, ApiError> {
    pace(request)?;
    let identity = reader(request)?;
    let circumstances = request.context.door.circumstances(&identity, room)?;
    Ok(Actor { identity, circumstances })
}

/// Who somebody is, as others see them; only strangers have no id.
pub(super) fn person(actor: &Actor) -> Result<Person, ApiError> {
    actor.person().ok_or(ApiError::NoSession)
}

/// The room of a part of the path, counted from the right. What no room can be called is a room that is not there.
pub(super) fn room_at(request: &Request<'_>, part: usize) -> Result<RoomId, ApiError> {
    let part = request.path.rsplit('/').nth(part).unwrap_or_default();
    RoomId::parse(&unescape(part).map_err(|_| ApiError::NoRoom)?).map_err(|_| ApiError::NoRoom)
}

/// The body, which must be JSON and say that it is.
pub(super) fn body<'a, T: Deserialize<'a>>(request: &Request<'a>) -> Result<T, ApiError> {
    if request.media_type() != "application/json" {
        return Err(ApiError::NotJson);
    }
    Ok(serde_json::from_slice(request.body)?)
}
