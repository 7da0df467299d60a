//! REST: who one is here, and where else one is that.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::error::ApiError;
use super::who::{body, client, pace, shown};
use super::{Context, Reply, Request, accounts};
use crate::auth::credential::{Credential, GUEST_SPAN_MS, clear_cookie, set_cookie, set_cookie_again};
use crate::auth::guest_token::GuestToken;
use crate::auth::name::Looks;
use crate::auth::permission::{Action, may};
use crate::authenticator::{Authenticated, authenticate, note_use};
use crate::limits::LABEL_CHARS_MAX;
use crate::model::reason::Reason;
use crate::model::{Timestamp, USERNAME_DEFAULT, UserId, Username};
use crate::role::Role;
use crate::store::View;
use crate::store::accounts::{Session, SessionId, SessionKind};
use crate::store::change::{Change, Done, NewSession};
use crate::store::entry::By;
use crate::store::log::clock::Moment;

const GUEST_SPAN: Duration = Duration::from_millis(GUEST_SPAN_MS);

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
    let key = request.item().parse().map(SessionId).map_err(|_| Reason::NotFound)?;
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
    fn of(session: &'a Session, moment: &Moment) -> Self {
        let Session { user, role, kind, username, expires_ms, .. } = session;
        let expires = expires_ms.map(|expires_ms| Timestamp::at(moment.shown(expires_ms)));
        Self { id: *user, username: username.as_ref(), role: *role, kind: kind.as_str(), token: None, expires }
    }
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
    let username = Username::parse(&username).map_err(|error| ApiError::name("username", error))?;
    match password {
        Some(password) => accounts::log_in(request, username, &password),
        None => name_guest(request, username),
    }
}

/// A new guest, or a guest by another name.
fn name_guest(request: &Request<'_>, username: Username) -> Result<Reply, ApiError> {
    let Context { reader, hub, attempts, .. } = request.context;
    let client = reader.view(|view| client(request, view))?;
    let shown = shown(request)?;
    let user = match &client.session {
        Some(session) if session.kind != SessionKind::Guest => return Err(Reason::LoggedIn.into()),
        Some(session) => {
            pace(request, Some(session.user))?;
            session.user
        }
        None => {
            let address = request.address();
            accounts::locked(attempts).begin_session(address, Instant::now()).map_err(ApiError::rate)?;
            UserId(Uuid::new_v4())
        }
    };
    let looks = Looks::of(&username);
    reader.view(|view| {
        may(Role::Guest, Action::Enter, &client.context(view))?;
        if username.as_str() != USERNAME_DEFAULT && view.is_reserved(&looks)? {
            return Err(ApiError::from(Reason::NameReserved));
        }
        Ok(())
    })?;
    let is_new = client.session.is_none();
    let session = NewSession {
        id: client.session.as_ref().map_or_else(|| SessionId::of_guest(user), |session| session.key),
        kind: SessionKind::Guest,
        token_hash: None,
        label: label_of(request.user_agent()).into(),
        span_ms: Some(GUEST_SPAN_MS),
    };
    let by = By::Client(client.principal(user));
    let change = Change::NameGuest { user, username, looks, session };
    let Done::Session { username, expires_ms, .. } = hub.change(by, change)? else {
        return Err(Reason::Internal.into());
    };
    let (role, kind, expires) = (Role::Guest, SessionKind::Guest.as_str(), expires_ms.map(Timestamp::at));
    let me = |token| Me { id: user, username: Some(&username), role, kind, token, expires: expires.clone() };
    if !is_new {
        let cookie = shown.token().and_then(|token| set_cookie_again(token, GUEST_SPAN, request.is_secure()));
        return Ok(with_cookie(Reply::data(200, me(None)), cookie));
    }
    let token = reader.policy().guest_key.sign(&GuestToken { user, issued_ms: reader.moment().clock_ms });
    Ok(Reply::data(201, me(Some(token.expose())))
        .with("Set-Cookie", set_cookie(&token, GUEST_SPAN, request.is_secure())))
}

fn with_cookie(reply: Reply, cookie: Option<String>) -> Reply {
    match cookie {
        Some(cookie) => reply.with("Set-Cookie", cookie),
        None => reply,
    }
}

/// The client that a request shows, where it may do something with its session, and the session.
fn own(request: &Request<'_>, view: &View<'_>, action: Action) -> Result<(Authenticated, Session), ApiError> {
    let shown = shown(request)?;
    let client = authenticate(view, shown.token(), request.address())?;
    may(client.role(), action, &client.context(view))?;
    let session = client.session.clone().ok_or(match shown {
        Credential::Bearer(_) => Reason::InvalidToken,
        _ => Reason::NoSession,
    })?;
    note_use(&request.context.reader, &session, client.proof);
    Ok((client, session))
}

/// An error that tells a browser to forget a cookie that is over.
fn without_cookie(request: &Request<'_>, error: ApiError) -> Reply {
    let is_over = error.reason() == Reason::NoSession && matches!(shown(request), Ok(Credential::Cookie(_)));
    let reply = Reply::from(error);
    if is_over { reply.with("Set-Cookie", clear_cookie(request.is_secure())) } else { reply }
}

fn found(request: &Request<'_>) -> Result<Reply, ApiError> {
    request.context.reader.view(|view| {
        let (_, session) = own(request, view, Action::Enter)?;
        let reply = Reply::data(200, Me::of(&session, view.moment()));
        let Credential::Cookie(token) = shown(request)? else { return Ok(reply) };
        // The browser keeps its cookie as long as the session lasts.
        let left_ms = session.expires_ms.map(|expires_ms| expires_ms.saturating_sub(view.moment().clock_ms));
        let cookie = left_ms.and_then(|ms| set_cookie_again(token, Duration::from_millis(ms), request.is_secure()));
        Ok(with_cookie(reply, cookie))
    })
}

/// Ends the session that is shown, or another of its owner's.
fn ended(request: &Request<'_>, key: Option<SessionId>) -> Result<Reply, ApiError> {
    let (client, session) = request.context.reader.view(|view| own(request, view, Action::EndSession))?;
    pace(request, Some(session.user))?;
    let ended = key.unwrap_or(session.key);
    let by = By::Client(client.principal(session.user));
    request.context.hub.change(by, Change::EndSession { session: ended })?;
    let reply = Reply::empty(204);
    let is_this = ended == session.key && matches!(shown(request)?, Credential::Cookie(_));
    Ok(if is_this { reply.with("Set-Cookie", clear_cookie(request.is_secure())) } else { reply })
}

/// `GET /api/sessions`
pub(super) fn list(request: &Request<'_>) -> Result<Reply, ApiError> {
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
            // A guest's, which is not stored.
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
