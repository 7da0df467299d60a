//! REST: which ways in there are, logging in, registering, and changing one's password.
//!
//! What is cheap is decided first, limits on tries before all; the password is looked at behind that, in the slow lane.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::error::ApiError;
use super::sessions::{Data, Me, close_connections, label_of};
use super::who::{body, shown};
use super::{Context, Reply, Request};
use crate::auth::attempts::{Attempts, Login, Ticket};
use crate::auth::credential::{Credential, set_cookie};
use crate::auth::hasher::{Hasher, Verdict};
use crate::auth::password::{Password, PasswordHash};
use crate::auth::permission::{Action, Circumstances, Refusal, may};
use crate::auth::secret::{Secret, is_secret};
use crate::hub::Order;
use crate::identity::{LOGIN_SPAN, expires_ms};
use crate::limits::LOGINS_PER_USER_MAX;
use crate::model::{Timestamp, UserId, Username};
use crate::role::{Registration, Role};
use crate::store::TokenHash;
use crate::store::accounts::{
    self as kept, Account, AccountError, Banned, NewSession, Session, SessionKey, SessionKind,
};

/// How long a password's hash may take, with the wait for its turn.
const HASH_WAIT: Duration = Duration::from_secs(10);

/// `GET /api/about`: what a page must know to show the ways in, and says of nobody anything.
pub(super) fn about(request: &Request<'_>) -> Result<Reply, ApiError> {
    #[derive(Serialize)]
    struct About {
        accounts: &'static str,
        registration: &'static str,
    }
    let Context { door, policy, .. } = request.context;
    let (accounts, registration) = (door.accounts().as_str(), policy.registration.as_str());
    Ok(Reply::json(&Data { data: About { accounts, registration } }))
}

/// The tries that are remembered, for a moment.
pub(super) fn locked(attempts: &Mutex<Attempts>) -> MutexGuard<'_, Attempts> {
    attempts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A login on its way. It does not count where it is dropped before its password was looked at.
struct Try {
    attempts: Arc<Mutex<Attempts>>,
    ticket: Option<Ticket>,
}

impl Try {
    /// Lets somebody try, unless they or others have tried too often.
    fn begin(context: &Context<'_>, login: Login<'_>) -> Result<Self, ApiError> {
        let attempts = Arc::clone(context.attempts);
        let ticket = locked(&attempts).login(login, Instant::now()).map_err(ApiError::Tries)?;
        Ok(Self { attempts, ticket: Some(ticket) })
    }

    fn succeeded(mut self) {
        if let Some(ticket) = self.ticket.take() {
            locked(&self.attempts).succeeded(ticket);
        }
    }

    fn failed(mut self) {
        drop(self.ticket.take());
    }
}

impl Drop for Try {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            locked(&self.attempts).undecided(ticket);
        }
    }
}

/// From where somebody logs in, and what that takes the place of.
struct Place {
    address: IpAddr,
    label: String,
    is_secure: bool,
    /// The session of the cookie that the new one takes the place of.
    replaced: Option<Session>,
}

impl Place {
    fn of(request: &Request<'_>) -> Result<Self, ApiError> {
        let replaced = match shown(request)? {
            Credential::Cookie(token) => request.context.door.registry().session(token)?,
            _ => None,
        };
        let (address, is_secure) = (request.address(), request.is_secure());
        Ok(Self { address, label: label_of(request.user_agent()), is_secure, replaced })
    }
}

/// A login that has begun.
struct Begun {
    token: Secret,
    expires_ms: Option<u64>,
    /// Logins that are one too many now.
    ended: Vec<SessionKey>,
}

/// Begins a login and ends the session that it takes the place of, within a change.
fn begin(
    connection: &rusqlite::Connection,
    user: UserId,
    label: &str,
    replaced: Option<(UserId, SessionKey)>,
) -> Result<Begun, AccountError> {
    let (token, now) = (Secret::random(), Timestamp::now());
    let (kind, expires_ms) = (SessionKind::Login, expires_ms(SessionKind::Login, &now));
    let token_hash = TokenHash::of(token.expose());
    let new = NewSession { token_hash, user, kind, username: None, label, expires_ms };
    kept::begin_session(connection, &new, &now)?;
    let ended = kept::end_oldest_logins(connection, user, LOGINS_PER_USER_MAX, &now)?;
    if let Some((owner, key)) = replaced {
        match kept::end_session(connection, owner, key, &now) {
            // It has ended meanwhile.
            Ok(()) | Err(AccountError::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Begun { token, expires_ms, ended })
}

/// Closes what has ended, and tells of what has begun.
fn welcome(context: &Context<'_>, account: &Account, begun: &Begun, place: &Place) -> Result<Reply, ApiError> {
    if let Some(replaced) = &place.replaced {
        let guest = (replaced.kind == SessionKind::Guest).then_some(replaced.user);
        close_connections(context, replaced.key, guest)?;
    }
    if !begun.ended.is_empty() {
        context.directory.order(Order::EndSessions(begun.ended.clone()))?;
    }
    let Account { id, name, role, .. } = account;
    let (kind, token) = (SessionKind::Login.as_str(), Some(begun.token.expose()));
    let expires = begun.expires_ms.map(Timestamp::at);
    let me = Me { id: *id, username: Some(name), role: *role, kind, token, expires };
    Ok(me.reply(201).with("Set-Cookie", set_cookie(&begun.token, LOGIN_SPAN, place.is_secure)))
}

/// `POST /api/session` with a password.
pub(super) fn log_in(request: &Request<'_>, username: Username, password: &str) -> Result<Reply, ApiError> {
    let password = Password::shown(password)?;
    let place = Place::of(request)?;
    let shown = shown(request)?;
    let registry = request.context.door.registry();
    let (account, device) = registry.read(|connection| {
        let account = kept::by_name(connection, &username)?;
        let is_of = |token: &&str| match &account {
            Some(account) => kept::was_session_of(connection, TokenHash::of(token), account.id),
            None => Ok(false),
        };
        let device =
            shown.token().map(|token| Ok::<_, rusqlite::Error>(is_of(&token)?.then_some(token))).transpose()?;
        Ok((account, device.flatten()))
    })?;
    let attempt = Try::begin(&request.context, Login { name: &username, address: place.address, device })?;
    Ok(Reply::later(move |context, hasher| {
        logged_in(context, hasher, &username, password, account, attempt, &place).unwrap_or_else(Reply::from)
    }))
}

fn logged_in(
    context: &Context<'_>,
    hasher: &Hasher,
    username: &Username,
    password: Password,
    account: Option<Account>,
    attempt: Try,
    place: &Place,
) -> Result<Reply, ApiError> {
    let stored = account.as_ref().and_then(|account| account.password.clone());
    let verdict = hasher.verify(password, stored.clone(), Instant::now() + HASH_WAIT)?;
    let (Verdict::Right { renewed }, Some(account), Some(stored)) = (verdict, account, stored) else {
        attempt.failed();
        log::info!("a login as {username} from {} has failed", place.address);
        return Err(ApiError::WrongLogin);
    };
    attempt.succeeded();
    let (id, label) = (account.id, place.label.clone());
    let replaced = place.replaced.as_ref().map(|session| (session.user, session.key));
    let begun = context.door.registry().change(move |connection| {
        if kept::is_banned(connection, Banned::User(id), &Timestamp::now())? {
            return Ok(Err(Refusal::Banned.into()));
        }
        // The password may have been changed, or the account removed, while it was hashed.
        if kept::by_id(connection, id)?.and_then(|account| account.password).as_ref() != Some(&stored) {
            return Ok(Err(ApiError::WrongLogin));
        }
        if let Some(renewed) = renewed {
            kept::renew_hash(connection, id, &stored, &renewed)?;
        }
        Ok(Ok(begin(connection, id, &label, replaced)?))
    })??;
    log::info!("{id} ({}) has logged in from {}", account.name, place.address);
    welcome(context, &account, &begun, place)
}

/// `POST /api/accounts`
pub(super) fn register(request: &Request<'_>) -> Result<Reply, ApiError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        username: String,
        password: String,
        invitation: Option<String>,
    }
    let Asked { username, password, invitation } = body(request)?;
    let name = Username::parse(&username).map_err(|error| ApiError::Name("username", error))?;
    let Context { door, policy, attempts, .. } = request.context;
    let place = Place::of(request)?;
    let known = door.look_up(shown(request)?.token(), place.address)?;
    let code = invitation.filter(|code| is_secret(code)).map(|code| TokenHash::of(&code));
    let now = Timestamp::now();
    let invited = code.map(|code| door.registry().read(|c| kept::invitation_by_code(c, code, &now))).transpose()?;
    let invited = invited.flatten().is_some_and(|invitation| invitation.room.is_none());
    let (standing, accounts, registration) = (known.standing, door.accounts(), policy.registration);
    let circumstances = Circumstances { standing, accounts, registration, invited, ..Circumstances::default() };
    may(known.role(), Action::Register, &circumstances)?;
    let password = Password::new(&password, &name)?;
    locked(attempts).register(place.address, Instant::now()).map_err(ApiError::Tries)?;
    if door.registry().read(|connection| kept::by_name(connection, &name))?.is_some() {
        return Err(ApiError::Taken);
    }
    let code = code.filter(|_| registration == Registration::Invite);
    Ok(Reply::later(move |context, hasher| {
        registered(context, hasher, name, password, code, &place).unwrap_or_else(Reply::from)
    }))
}

fn registered(
    context: &Context<'_>,
    hasher: &Hasher,
    name: Username,
    password: Password,
    code: Option<TokenHash>,
    place: &Place,
) -> Result<Reply, ApiError> {
    let hash = hasher.hash(password, Instant::now() + HASH_WAIT)?;
    let (id, now) = (UserId(Uuid::new_v4()), Timestamp::now());
    let account = Account { id, name, role: Role::User, password: Some(hash), created_ms: now.unix_ms };
    let (new, label) = (account.clone(), place.label.clone());
    let replaced = place.replaced.as_ref().map(|session| (session.user, session.key));
    let begun = context.door.registry().change(move |connection| {
        let made = match code {
            Some(code) => kept::register(connection, code, &new, &now),
            None => kept::create(connection, &new),
        };
        match made {
            Ok(()) => Ok(Ok(begin(connection, new.id, &label, replaced)?)),
            // The invitation was used up, or taken back, a moment ago.
            Err(AccountError::NotFound) => Ok(Err(Refusal::Closed)),
            Err(error) => Err(error),
        }
    })??;
    log::info!("{id} ({}) has registered from {}", account.name, place.address);
    welcome(context, &account, &begun, place)
}

/// `PUT /api/account/password`
pub(super) fn change_password(request: &Request<'_>) -> Result<Reply, ApiError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        old: String,
        new: String,
    }
    let Asked { old, new } = body(request)?;
    let shown = shown(request)?;
    let door = request.context.door;
    let address = request.address();
    let known = door.look_up(shown.token(), address)?;
    let (standing, accounts) = (known.standing, door.accounts());
    let circumstances = Circumstances { standing, accounts, ..Circumstances::default() };
    may(known.role(), Action::ChangePassword, &circumstances)?;
    let session = known.session.ok_or(ApiError::NoSession)?;
    let account = door.registry().read(|connection| kept::by_id(connection, session.user))?;
    let account = account.ok_or(ApiError::NoSession)?;
    let Some(stored) = account.password.clone() else {
        return Err(ApiError::Conflict("this account has no password; the operator can give it one"));
    };
    let (old, new) = (Password::shown(&old)?, Password::new(&new, &account.name)?);
    // Who has somebody's token has not their password yet, and is not to find it by trying.
    let login = Login { name: &account.name, address, device: shown.token() };
    let attempt = Try::begin(&request.context, login)?;
    Ok(Reply::later(move |context, hasher| {
        changed_password(context, hasher, &session, stored, (old, new), attempt).unwrap_or_else(Reply::from)
    }))
}

fn changed_password(
    context: &Context<'_>,
    hasher: &Hasher,
    session: &Session,
    stored: PasswordHash,
    (old, new): (Password, Password),
    attempt: Try,
) -> Result<Reply, ApiError> {
    let (id, keep) = (session.user, session.key);
    let verdict = hasher.verify(old, Some(stored.clone()), Instant::now() + HASH_WAIT)?;
    if verdict == Verdict::Wrong {
        attempt.failed();
        log::info!("{id} has shown a wrong password for a new one");
        return Err(ApiError::WrongPassword);
    }
    attempt.succeeded();
    let hash = hasher.hash(new, Instant::now() + HASH_WAIT)?;
    let ended = context.door.registry().change(move |connection| {
        if kept::by_id(connection, id)?.and_then(|account| account.password).as_ref() != Some(&stored) {
            return Ok(Err(ApiError::WrongPassword));
        }
        Ok(Ok(kept::set_password(connection, id, &hash, Some(keep), &Timestamp::now())?))
    })??;
    log::info!("{id} has changed their password, which ends {} other sessions", ended.len());
    context.directory.order(Order::EndSessions(ended))?;
    Ok(Reply::empty(204))
}
