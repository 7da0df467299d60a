//! The first steps of most handlers: authenticate the client, check its permissions, and read its request. Runs on the
//! HTTP workers.

use std::sync::Arc;
use std::time::Instant;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::error::{bad_limit, rate_limited};
use super::request::Request;
use super::server::Context;
use crate::auth::credential::Credential;
use crate::auth::permission::{Action, PermissionContext, Target, may};
use crate::authenticator::{Authenticated, Identity, admit, authenticate, note_use};
use crate::http1::head::unescape;
use crate::model::reason::{Reason, Rejection};
use crate::model::role::Role;
use crate::model::{NameError, RoomId, UserId, Username};
use crate::protocol;
use crate::store::View;
use crate::store::entry::{By, Principal};

/// The user id of a client without a session that proposes something. The proposal is refused, or makes its own id.
pub(super) const UNKNOWN_USER: UserId = UserId(Uuid::nil());

/// The credential of a request.
pub(super) fn shown<'a>(request: &'a Request<'_>) -> Result<Credential<'a>, Rejection> {
    let Context { settings, reader, .. } = request.context;
    let in_cookie = || settings.cookie.token(|| cookies(request), reader.moment().clock_ms);
    Credential::of(request.header("Authorization").map(str::as_bytes), None, in_cookie)
        .map_err(|error| Reason::InvalidToken.because(format!("invalid token: {error}")))
}

/// The Cookie fields of a request.
pub(super) fn cookies<'a>(request: &'a Request<'_>) -> impl Iterator<Item = &'a [u8]> {
    request.headers_named("Cookie").map(str::as_bytes)
}

/// Authenticates the client by its token. An expired cookie counts as no token, because browsers keep sending it. An
/// invalid bearer token is an error, because a program sends it on purpose.
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

/// Authenticates the client. A client without a name of its own gets the name that it asks for.
pub(super) fn identity(request: &Request<'_>, view: &View<'_>, asked: Username) -> Result<Identity, Rejection> {
    let shown = shown(request)?;
    let identity = admit(view, shown.token(), asked, request.address())?;
    match shown {
        Credential::Bearer(_) if identity.user.is_none() => Err(Reason::InvalidToken.into()),
        _ => Ok(identity),
    }
}

/// A client that reads, with its token or as an anonymous guest.
pub(super) fn reader(request: &Request<'_>, view: &View<'_>) -> Result<Identity, Rejection> {
    identity(request, view, Username::anonymous())
}

/// Takes one token of the client's message rate limit. All writes count, because each costs a commit.
pub(super) fn check_rate(request: &Request<'_>, user: Option<UserId>) -> Result<(), Rejection> {
    let (address, now) = (request.address(), Instant::now());
    let rate_limiters = &request.context.settings.rate_limiters;
    let rate_limiter =
        user.map_or_else(|| rate_limiters.of_anonymous(address, now), |id| rate_limiters.of_user(id, address, now));
    rate_limiter.take(now).map_err(rate_limited)
}

/// Takes one token of the address's rate limit of pages.
pub(super) fn check_page_rate(request: &Request<'_>) -> Result<(), Rejection> {
    let rate_limiters = &request.context.settings.rate_limiters;
    rate_limiters.take_page(request.address(), Instant::now()).map_err(rate_limited)
}

/// A client that proposes something, for one room or for the whole server. Permissions are checked here, so that a
/// refusal comes before other errors. The binding check is made when the entry is applied.
pub(super) struct Actor {
    pub(super) principal: Arc<Principal>,
    role: Role,
    context: PermissionContext,
}

/// Authenticates the client of a request that changes something, and counts the request against the client's rate
/// limit.
pub(super) fn actor(request: &Request<'_>, room: Option<&RoomId>) -> Result<Actor, Rejection> {
    request.context.reader.view(|view| {
        check_rate(request, client(request, view)?.identity.user)?;
        let identity = reader(request, view)?;
        let (role, context) = (identity.role, identity.context(view, room));
        Ok(Actor { principal: identity.principal(UNKNOWN_USER), role, context })
    })
}

impl Actor {
    pub(super) fn may(&self, action: Action) -> Result<(), Reason> {
        may(self.role, action, &self.context)
    }

    /// Whether the client may do something to any guest. It is checked first, so that a client without the permission
    /// does not learn which users exist.
    pub(super) fn may_to_others(&self, action: Action) -> Result<(), Reason> {
        may(self.role, action, &PermissionContext { target: Target::Others(Role::Guest), ..self.context })
    }

    /// The client's principal, or [`Reason::NoSession`] if it has no session.
    pub(super) fn known(&self) -> Result<Arc<Principal>, Reason> {
        if self.principal.user() == UNKNOWN_USER { Err(Reason::NoSession) } else { Ok(Arc::clone(&self.principal)) }
    }

    pub(super) fn by(&self) -> By {
        By::Client(Arc::clone(&self.principal))
    }
}

/// The room in the path. A name that is not valid is a room that does not exist.
pub(super) fn room(request: &Request<'_>) -> Result<RoomId, Rejection> {
    room_by(request, RoomId::parse)
}

/// The room in the path of a request that only reads.
pub(super) fn room_to_read(request: &Request<'_>) -> Result<RoomId, Rejection> {
    room_by(request, RoomId::parse_to_read)
}

fn room_by(request: &Request<'_>, parse: fn(&str) -> Result<RoomId, NameError>) -> Result<RoomId, Rejection> {
    let text = unescape(request.parameter("room")).map_err(|_| Reason::NoSuchRoom)?;
    parse(&text).map_err(|_| Reason::NoSuchRoom.into())
}

/// The body as the text of a JSON object. Its media type must be JSON.
pub(super) fn json<'a>(request: &Request<'a>) -> Result<&'a str, Rejection> {
    if request.media_type() != "application/json" {
        return Err(Reason::UnknownMediaType.into());
    }
    let text = text(request)?;
    // Otherwise an array would be taken for the fields in their order.
    if !text.trim_start().starts_with('{') {
        protocol::read::<IgnoredAny>(text)?;
        return Err(Reason::MalformedField.because("the request body must be a JSON object"));
    }
    Ok(text)
}

pub(super) fn text<'a>(request: &Request<'a>) -> Result<&'a str, Rejection> {
    std::str::from_utf8(request.body).map_err(|_| Reason::BadJson.because("the request body is not valid UTF-8"))
}

/// The body as JSON. Its media type must be JSON.
pub(super) fn body<'a, T: Deserialize<'a>>(request: &Request<'a>) -> Result<T, Rejection> {
    protocol::read(json(request)?)
}

/// A page of a list, and where the next page begins.
#[derive(Serialize)]
pub(super) struct Page<T, N> {
    pub(super) data: Vec<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<N>,
}

/// The number that the client asks for, at most `most`.
pub(super) fn limit_of(request: &Request<'_>, default: usize, most: usize) -> Result<usize, Rejection> {
    match request.query_value("limit").transpose()? {
        None => Ok(default),
        // A number that is too large for an integer is a large number, too.
        Some(text) if text.bytes().all(|b| b.is_ascii_digit()) && text.bytes().any(|b| b != b'0') => {
            Ok(text.parse().unwrap_or(most).min(most))
        }
        Some(_) => Err(bad_limit(most)),
    }
}
