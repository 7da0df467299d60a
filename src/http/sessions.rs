//! REST: who one is here, and where else one is that.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::error::ApiError;
use super::who::{body, pace, session, shown};
use super::{Context, Reply, Request, accounts};
use crate::auth::credential::{Credential, clear_cookie, set_cookie, set_cookie_again};
use crate::auth::permission::{Action, Circumstances, may};
use crate::auth::secret::Secret;
use crate::hub::Order;
use crate::identity::{GUEST_SPAN, expires_ms};
use crate::limits::{GUESTS_KEPT_MAX, LABEL_CHARS_MAX};
use crate::model::{Timestamp, UserId, Username};
use crate::role::Role;
use crate::store::TokenHash;
use crate::store::accounts::{self as kept, NewSession, Session, SessionKey, SessionKind};

/// `GET /api/session`
pub(super) fn who(request: &Request<'_>) -> Result<Reply, ApiError> {
    Ok(found(request).unwrap_or_else(|error| without_cookie(request, error)))
}

/// `DELETE /api/session`
pub(super) fn end(request: &Request<'_>) -> Result<Reply, ApiError> {
    Ok(ended(request, None).unwrap_or_else(|error| without_cookie(request, error)))
}

/// `DELETE /api/sessions/{id}`
pub(super) fn end_one(request: &Request<'_>) -> Result<Reply, ApiError> {
    let key = request.item().parse().map(SessionKey).map_err(|_| ApiError::NotFound)?;
    ended(request, Some(key))
}

/// A session as its owner is told of it.
#[derive(Serialize)]
pub(super) struct Me<'a> {
    pub(super) id: UserId,
    pub(super) username: Option<&'a Username>,
    pub(super) role: Role,
    pub(super) kind: &'static str,
    /// Once, when it begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<&'a str>,
    pub(super) expires: Option<Timestamp>,
}

impl<'a> Me<'a> {
    fn of(session: &'a Session) -> Self {
        let Session { user, role, kind, username, expires_ms, .. } = session;
        let expires = expires_ms.map(Timestamp::at);
        Self { id: *user, username: username.as_ref(), role: *role, kind: kind.as_str(), token: None, expires }
    }

    /// The answer's body.
    pub(super) fn reply(&self, status: u16) -> Reply {
        Reply { status, ..Reply::json(&Data { data: self }) }
    }
}

#[derive(Serialize)]
pub(super) struct Data<T> {
    pub(super) data: T,
}

/// `POST /api/session`
pub(super) fn begin(request: &Request<'_>) -> Result<Reply, ApiError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        username: String,
        password: Option<String>,
    }
    let Asked { username, password } = body(request)?;
    let username = Username::parse(&username).map_err(|error| ApiError::Name("username", error))?;
    match password {
        Some(password) => accounts::log_in(request, username, &password),
        None => match session(request)? {
            Some(session) => renamed(request, session, username),
            None => guest(request, username),
        },
    }
}

/// A guest by another name.
fn renamed(request: &Request<'_>, session: Session, username: Username) -> Result<Reply, ApiError> {
    if session.kind != SessionKind::Guest {
        return Err(ApiError::Conflict("you are logged in; log out to be a guest"));
    }
    pace(request)?;
    let shown = shown(request)?;
    let door = request.context.door;
    door.let_in(shown.token(), username.clone(), request.address())?;
    let (key, now) = (session.key, Timestamp::now());
    let expires_ms = expires_ms(SessionKind::Guest, &now);
    let name = username.clone();
    door.registry().change(move |connection| kept::rename_guest(connection, key, &name, expires_ms, &now))?;
    log::info!("{} is called {username} now", session.user);
    let session = Session { username: Some(username), expires_ms, ..session };
    let cookie = shown.token().and_then(|token| set_cookie_again(token, GUEST_SPAN, request.is_secure()));
    let reply = Me::of(&session).reply(200);
    Ok(match cookie {
        Some(cookie) => reply.with("Set-Cookie", cookie),
        None => reply,
    })
}

/// A guest who was nobody before.
fn guest(request: &Request<'_>, username: Username) -> Result<Reply, ApiError> {
    let door = request.context.door;
    let address = request.address();
    accounts::locked(request.context.attempts).begin_session(address, Instant::now()).map_err(ApiError::Rate)?;
    door.let_in(None, username.clone(), address)?;
    let (user, token, now) = (UserId(Uuid::new_v4()), Secret::random(), Timestamp::now());
    let (hash, kind, expires_ms) =
        (TokenHash::of(token.expose()), SessionKind::Guest, expires_ms(SessionKind::Guest, &now));
    let (label, name) = (label_of(request.user_agent()), username.clone());
    let is_in_memory = door.registry().is_in_memory();
    door.registry().change(move |connection| {
        let new = NewSession { token_hash: hash, user, kind, username: Some(&name), label: &label, expires_ms };
        let key = kept::begin_session(connection, &new, &now)?;
        if is_in_memory {
            kept::forget_guests_before(connection, key, GUESTS_KEPT_MAX)?;
        }
        Ok(())
    })?;
    log::info!("{user} ({username}) is a guest, from {address}");
    let expires = expires_ms.map(Timestamp::at);
    let (role, kind, token_shown) = (Role::Guest, kind.as_str(), Some(token.expose()));
    let me = Me { id: user, username: Some(&username), role, kind, token: token_shown, expires };
    Ok(me.reply(201).with("Set-Cookie", set_cookie(&token, GUEST_SPAN, request.is_secure())))
}

/// The session of whoever asks, where they may do something with it.
fn own(request: &Request<'_>, action: Action) -> Result<Session, ApiError> {
    let shown = shown(request)?;
    let door = request.context.door;
    let known = door.look_up(shown.token(), request.address())?;
    let (role, standing, accounts) = (known.role(), known.standing, door.accounts());
    may(role, action, &Circumstances { standing, accounts, ..Circumstances::default() })?;
    known.session.ok_or(match shown {
        Credential::Bearer(_) => ApiError::Token,
        _ => ApiError::NoSession,
    })
}

/// An error that tells a browser to forget a cookie that is over.
fn without_cookie(request: &Request<'_>, error: ApiError) -> Reply {
    let is_over = matches!(error, ApiError::NoSession) && matches!(shown(request), Ok(Credential::Cookie(_)));
    let reply = Reply::from(error);
    if is_over { reply.with("Set-Cookie", clear_cookie(request.is_secure())) } else { reply }
}

fn found(request: &Request<'_>) -> Result<Reply, ApiError> {
    let session = own(request, Action::Enter)?;
    let reply = Me::of(&session).reply(200);
    let Credential::Cookie(token) = shown(request)? else { return Ok(reply) };
    // The browser keeps its cookie as long as the session lasts.
    let left_ms = session.expires_ms.map(|expires_ms| expires_ms.saturating_sub(Timestamp::now().unix_ms));
    let cookie = left_ms.and_then(|ms| set_cookie_again(token, Duration::from_millis(ms), request.is_secure()));
    Ok(match cookie {
        Some(cookie) => reply.with("Set-Cookie", cookie),
        None => reply,
    })
}

/// Ends the session that is shown, or another of its owner's.
fn ended(request: &Request<'_>, key: Option<SessionKey>) -> Result<Reply, ApiError> {
    let session = own(request, Action::EndSession)?;
    pace(request)?;
    let (user, key, now) = (session.user, key.unwrap_or(session.key), Timestamp::now());
    let registry = request.context.door.registry();
    registry.change(move |connection| kept::end_session(connection, user, key, &now))?;
    log::info!("{user} has ended their session {}", key.0);
    close_connections(&request.context, key, (session.kind == SessionKind::Guest).then_some(user))?;
    let reply = Reply::empty(204);
    let is_this = key == session.key && matches!(shown(request)?, Credential::Cookie(_));
    Ok(if is_this { reply.with("Set-Cookie", clear_cookie(request.is_secure())) } else { reply })
}

/// Closes the connections of a session that is over, and of the guest whose it was: a guest who was nobody before is known
/// by no session until they come back.
pub(super) fn close_connections(context: &Context<'_>, key: SessionKey, guest: Option<UserId>) -> Result<(), ApiError> {
    context.directory.order(Order::EndSessions(vec![key]))?;
    if let Some(guest) = guest {
        context.directory.order(Order::EndUser(guest))?;
    }
    Ok(())
}

/// `GET /api/sessions`
pub(super) fn list(request: &Request<'_>) -> Result<Reply, ApiError> {
    #[derive(Serialize)]
    struct Line<'a> {
        id: i64,
        kind: &'static str,
        label: &'a str,
        created: Timestamp,
        seen: Timestamp,
        expires: Option<Timestamp>,
        current: bool,
    }
    let own = own(request, Action::ListSessions)?;
    let registry = request.context.door.registry();
    let sessions = registry.read(|connection| kept::sessions(connection, own.user, &Timestamp::now()))?;
    let lines = sessions.iter().map(|session| Line {
        id: session.key.0,
        kind: session.kind.as_str(),
        label: &session.label,
        created: Timestamp::at(session.created_ms),
        seen: Timestamp::at(session.seen_ms),
        expires: session.expires_ms.map(Timestamp::at),
        current: session.key == own.key,
    });
    Ok(Reply::json(&Data { data: lines.collect::<Vec<_>>() }))
}

/// What a person would call a browser by what it says of itself; of another program its own first words.
pub(super) fn label_of(user_agent: &str) -> String {
    // The first that is found: most browsers claim to be the others, too.
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
    fn a_browser_is_called_what_people_call_it() {
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
            assert_eq!(label_of(said), label, "{said}");
        }
        assert_eq!(label_of(&"x".repeat(10_000)).len(), LABEL_CHARS_MAX);
    }
}
