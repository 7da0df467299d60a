//! REST: the client's session, and all sessions of its user. Runs on the HTTP workers; each change goes through the hub
//! and the log.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::accounts;
use crate::auth::credential::{Credential, GUEST_SPAN_MS, SessionCookie, is_old_cookie};
use crate::auth::guest_token::GuestToken;
use crate::auth::name::Skeletons;
use crate::auth::permission::{Action, may};
use crate::auth::secret::Secret;
use crate::authenticator::{Authenticated, authenticate, note_use};
use crate::http::error::{rate_limited, unexpected};
use crate::http::extract::{body, check_rate, client, cookies, shown};
use crate::http::reply::Reply;
use crate::http::request::Request;
use crate::http::server::Context;
use crate::limits::LABEL_CHARS_MAX;
use crate::model::reason::{Reason, Rejection};
use crate::model::role::Role;
use crate::model::{Timestamp, USERNAME_DEFAULT, UserId, Username};
use crate::store::View;
use crate::store::accounts::{Session, SessionId, SessionKind};
use crate::store::change::{Change, Done, NewSession};
use crate::store::entry::By;
use crate::store::log::clock::Moment;

/// `GET /api/session`
pub(crate) fn get(request: &Request<'_>) -> Result<Reply, Rejection> {
    Ok(found(request).unwrap_or_else(|error| without_cookie(request, error)))
}

/// `DELETE /api/session`
pub(crate) fn end(request: &Request<'_>) -> Result<Reply, Rejection> {
    Ok(ended(request, None).unwrap_or_else(|error| without_cookie(request, error)))
}

/// `DELETE /api/sessions/{id}`
pub(crate) fn end_one(request: &Request<'_>) -> Result<Reply, Rejection> {
    let key = request.parameter("session").parse().map(SessionId).map_err(|_| Reason::NotFound)?;
    ended(request, Some(key))
}

/// A session as its user sees it.
#[derive(Serialize)]
pub(crate) struct Me<'a> {
    id: UserId,
    username: Option<&'a Username>,
    role: Role,
    kind: &'static str,
    /// Only in the reply that begins the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    expires: Option<Timestamp>,
}

impl<'a> Me<'a> {
    fn of(session: &'a Session, moment: &Moment) -> Self {
        let Session { user, role, kind, username, expires_ms, .. } = session;
        let expires = expires_ms.map(|expires_ms| Timestamp::at(moment.shown(expires_ms)));
        Self { id: *user, username: username.as_ref(), role: *role, kind: kind.as_str(), token: None, expires }
    }

    /// A session that has begun, or whose guest has a new name.
    pub(crate) fn begun(done: &'a Done, kind: SessionKind, token: Option<&'a str>) -> Result<Self, Rejection> {
        let Done::Session { user, username, role, expires_ms, .. } = done else { return Err(unexpected(done)) };
        let expires = expires_ms.map(Timestamp::at);
        Ok(Self { id: *user, username: Some(username), role: *role, kind: kind.as_str(), token, expires })
    }
}

/// `POST /api/session`
pub(crate) fn begin(request: &Request<'_>) -> Result<Reply, Rejection> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        username: String,
        password: Option<String>,
    }
    let Asked { username, password } = body(request)?;
    let username = Username::parse(&username).map_err(|error| Reason::BadName.of_name("username", error))?;
    match password {
        Some(password) => accounts::log_in(request, username, &password),
        None => name_guest(request, username),
    }
}

/// Begins a session for a new guest, or renames a guest.
fn name_guest(request: &Request<'_>, username: Username) -> Result<Reply, Rejection> {
    let Context { reader, hub, attempts, settings, .. } = request.context;
    let client = reader.view(|view| client(request, view))?;
    let shown = shown(request)?;
    let user = match &client.session {
        Some(session) if session.kind != SessionKind::Guest => return Err(Reason::LoggedIn.into()),
        Some(session) => {
            check_rate(request, Some(session.user))?;
            session.user
        }
        None => {
            let address = request.address();
            accounts::locked(attempts).begin_session(address, Instant::now()).map_err(rate_limited)?;
            UserId(Uuid::new_v4())
        }
    };
    let skeletons = Skeletons::of(&username);
    reader.view(|view| {
        may(Role::Guest, Action::Enter, &client.identity.context(view, None))?;
        if username.as_str() != USERNAME_DEFAULT && view.is_reserved(&skeletons)? {
            return Err(Rejection::from(Reason::NameReserved));
        }
        Ok(())
    })?;
    let session = NewSession {
        id: client.session.as_ref().map_or_else(|| SessionId::of_guest(user), |session| session.key),
        kind: SessionKind::Guest,
        token_hash: None,
        label: label_of(request).into(),
        span_ms: Some(GUEST_SPAN_MS),
    };
    let by = By::Client(client.identity.principal(user));
    let done = hub.change(by, Change::NameGuest { user, username, skeletons, session })?;
    let sign = || reader.policy().guest_key.sign(&GuestToken { user, issued_ms: reader.moment().clock_ms });
    let token = client.session.is_none().then(sign);
    let token = token.as_ref().map(Secret::expose);
    let status = if token.is_some() { 201 } else { 200 };
    let cookie =
        token.or(shown.token()).and_then(|token| settings.cookie.set(token, GUEST_SPAN_MS, request.is_secure()));
    Ok(Reply::data(status, Me::begun(&done, SessionKind::Guest, token)?).with_cookie(cookie))
}

/// Authenticates the client and checks that its session allows the action. Returns the client and its session.
fn own(request: &Request<'_>, view: &View<'_>, action: Action) -> Result<(Authenticated, Session), Rejection> {
    let shown = shown(request)?;
    let client = authenticate(view, shown.token(), request.address())?;
    may(client.identity.role, action, &client.identity.context(view, None))?;
    let session = client.session.clone().ok_or(match shown {
        Credential::Bearer(_) => Reason::InvalidToken,
        _ => Reason::NoSession,
    })?;
    note_use(&request.context.reader, &session, client.identity.proof);
    Ok((client, session))
}

/// Replies with an error. If the session of a cookie is over, the reply removes the cookie.
fn without_cookie(request: &Request<'_>, error: Rejection) -> Reply {
    let is_over = error.reason == Reason::NoSession && matches!(shown(request), Ok(Credential::Cookie(_)));
    let reply = Reply::from(error);
    if is_over { reply.with("Set-Cookie", request.context.settings.cookie.clear(request.is_secure())) } else { reply }
}

/// The field that deletes the cookie of the old name, if the token is in it.
fn old_cookie_cleared(request: &Request<'_>, token: &str) -> Option<String> {
    is_old_cookie(token, cookies(request)).then(|| SessionCookie::clear_old(request.is_secure()))
}

fn found(request: &Request<'_>) -> Result<Reply, Rejection> {
    request.context.reader.view(|view| {
        let (_, session) = own(request, view, Action::Enter)?;
        let reply = Reply::data(200, Me::of(&session, view.moment()));
        let Credential::Cookie(token) = shown(request)? else { return Ok(reply) };
        // The cookie lasts as long as the session.
        let left_ms = session.expires_ms.map(|expires_ms| expires_ms.saturating_sub(view.moment().clock_ms));
        let cookie = &request.context.settings.cookie;
        let reply = reply.with_cookie(left_ms.and_then(|left_ms| cookie.set(token, left_ms, request.is_secure())));
        Ok(reply.with_cookie(old_cookie_cleared(request, token)))
    })
}

/// Ends the client's session, or another session of its user.
fn ended(request: &Request<'_>, key: Option<SessionId>) -> Result<Reply, Rejection> {
    let (client, session) = request.context.reader.view(|view| own(request, view, Action::EndSession))?;
    check_rate(request, Some(session.user))?;
    let ended = key.unwrap_or(session.key);
    let by = By::Client(client.identity.principal(session.user));
    request.context.hub.change(by, Change::EndSession { session: ended })?;
    let reply = Reply::empty(204);
    let Credential::Cookie(token) = shown(request)? else { return Ok(reply) };
    if ended != session.key {
        return Ok(reply);
    }
    let reply = reply.with("Set-Cookie", request.context.settings.cookie.clear(request.is_secure()));
    Ok(reply.with_cookie(old_cookie_cleared(request, token)))
}

/// `GET /api/sessions`
pub(crate) fn list(request: &Request<'_>) -> Result<Reply, Rejection> {
    #[derive(Serialize)]
    struct Line<'a> {
        id: SessionId,
        kind: &'static str,
        label: &'a str,
        created: Timestamp,
        seen: Timestamp,
        expires: Option<Timestamp>,
        current: bool,
    }
    request.context.reader.view(|view| {
        let (_, own) = own(request, view, Action::ListSessions)?;
        let mut sessions = view.sessions(own.user)?;
        if !sessions.iter().any(|session| session.key == own.key) {
            // A guest's session is not stored.
            sessions.push(own.clone());
        }
        let at = |clock_ms| Timestamp::at(view.moment().shown(clock_ms));
        let lines = sessions.iter().map(|session| Line {
            id: session.key,
            kind: session.kind.as_str(),
            label: &session.label,
            created: Timestamp::at(session.created_ms),
            seen: at(session.seen_ms),
            expires: session.expires_ms.map(at),
            current: session.key == own.key,
        });
        Ok(Reply::data(200, lines.collect::<Vec<_>>()))
    })
}

/// A label for a session: the browser and its system, from the User-Agent. Other programs get the beginning of that
/// field.
pub(crate) fn label_of(request: &Request<'_>) -> String {
    label_of_agent(request.header("User-Agent").unwrap_or_default())
}

fn label_of_agent(user_agent: &str) -> String {
    // The first match counts, because most browsers also contain the names of others.
    const BROWSERS: [(&str, &str); 8] = [
        ("Edg", "Edge"),
        ("OPR/", "Opera"),
        ("SamsungBrowser/", "Samsung Internet"),
        ("Firefox/", "Firefox"),
        ("FxiOS/", "Firefox"),
        ("CriOS/", "Chrome"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
    ];
    const SYSTEMS: [(&str, &str); 7] = [
        ("Android", "Android"),
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Windows", "Windows"),
        ("Mac OS X", "macOS"),
        ("CrOS", "ChromeOS"),
        ("Linux", "Linux"),
    ];
    let find =
        |list: &[(&str, &'static str)]| list.iter().find(|(mark, _)| user_agent.contains(mark)).map(|(_, name)| *name);
    match (find(&BROWSERS), find(&SYSTEMS)) {
        (Some(browser), Some(system)) => format!("{browser}, {system}"),
        (Some(name), None) => name.to_owned(),
        _ => {
            let visible = user_agent.chars().map(|c| if c.is_control() { ' ' } else { c });
            visible.take(LABEL_CHARS_MAX).collect::<String>().trim().to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_labelled_with_the_common_name_of_its_browser() {
        for (said, label) in [
            (
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36",
                "Chrome, Linux",
            ),
            ("Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:132.0) Gecko/20100101 Firefox/132.0", "Firefox, Windows"),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Version/18.0 Safari/604.1",
                "Safari, iPhone",
            ),
            ("Mozilla/5.0 (Linux; Android 14) Chrome/130.0 Mobile Safari/537.36 EdgA/130.0", "Edge, Android"),
            ("curl/8.5.0", "curl/8.5.0"),
            ("  a\tb ", "a b"),
            ("", ""),
        ] {
            assert_eq!(label_of_agent(said), label, "{said}");
        }
        assert_eq!(label_of_agent(&"x".repeat(10_000)).len(), LABEL_CHARS_MAX);
    }
}
