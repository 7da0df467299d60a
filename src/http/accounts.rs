//! REST: which ways in there are, logging in, registering, and changing one's password.
//!
//! What is cheap is decided first, limits on tries before all; the password is looked at behind that, in the slow lane.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::error::ApiError;
use super::sessions::{Data, Me, label_of};
use super::who::{STRANGER, body, shown};
use super::{Context, Reply, Request};
use crate::auth::attempts::{Attempts, Login, Ticket};
use crate::auth::credential::{Credential, LOGIN_SPAN_MS, set_cookie};
use crate::auth::hasher::{Hasher, Verdict};
use crate::auth::name::Looks;
use crate::auth::password::{Password, PasswordHash};
use crate::auth::permission::{Action, PermissionContext, may};
use crate::auth::secret::{Secret, is_secret, random_id};
use crate::authenticator::{Authenticated, authenticate};
use crate::model::reason::Reason;
use crate::model::{Timestamp, UserId, Username};
use crate::role::Role;
use crate::store::accounts::{Account, Session, SessionId, SessionKind};
use crate::store::change::{AccountRef, Change, Done, NewAccount, NewSession};
use crate::store::entry::By;
use crate::store::{TokenHash, View};

/// How long a password's hash may take, with the wait for its turn.
const HASH_WAIT: Duration = Duration::from_secs(10);

/// `GET /api/about`: what a page must know to show the ways in, and says of nobody anything.
pub(super) fn about(request: &Request<'_>) -> Result<Reply, ApiError> {
    #[derive(Serialize)]
    struct About {
        accounts: &'static str,
        registration: &'static str,
    }
    let flags = request.context.reader.policy().flags;
    let (accounts, registration) = (flags.accounts.as_str(), flags.registration.as_str());
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
        let ticket = locked(&attempts).login(login, Instant::now()).map_err(ApiError::attempts)?;
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

/// From where a client logs in, and which session the new one replaces.
struct Origin {
    client: Authenticated,
    address: IpAddr,
    label: String,
    is_secure: bool,
}

impl Origin {
    fn of(request: &Request<'_>, view: &View<'_>) -> Result<Self, ApiError> {
        let client = authenticate(view, shown(request)?.token(), request.address())?;
        let (address, is_secure) = (request.address(), request.is_secure());
        Ok(Self { client, address, label: label_of(request.user_agent()), is_secure })
    }

    /// The session of the cookie, which the new one replaces.
    fn replaced(&self, request: &Request<'_>) -> Result<Option<SessionId>, ApiError> {
        let is_cookie = matches!(shown(request)?, Credential::Cookie(_));
        Ok(self.client.session.as_ref().filter(|_| is_cookie).map(|session| session.key))
    }

    fn by(&self) -> By {
        By::Client(self.client.principal(STRANGER))
    }
}

/// A new login's session, and its token.
fn new_login(label: &str) -> (NewSession, Secret) {
    let token = Secret::random();
    let session = NewSession {
        id: SessionId(random_id()),
        kind: SessionKind::Login,
        token_hash: Some(TokenHash::of(token.expose())),
        label: label.into(),
        span_ms: Some(LOGIN_SPAN_MS),
    };
    (session, token)
}

/// What a client is told whose login has begun.
fn begun(done: Done, token: &Secret, is_secure: bool) -> Result<Reply, ApiError> {
    let Done::Session { user, username, role, expires_ms, .. } = done else { return Err(Reason::Internal.into()) };
    let (kind, expires) = (SessionKind::Login.as_str(), expires_ms.map(Timestamp::at));
    let me = Me { id: user, username: Some(&username), role, kind, token: Some(token.expose()), expires };
    let cookie = set_cookie(token, Duration::from_millis(LOGIN_SPAN_MS), is_secure);
    Ok(me.reply(201).with("Set-Cookie", cookie))
}

/// `POST /api/session` with a password.
pub(super) fn log_in(request: &Request<'_>, username: Username, password: &str) -> Result<Reply, ApiError> {
    let password = Password::shown(password)?;
    let shown = shown(request)?;
    let (origin, account, device) = request.context.reader.view(|view| {
        let account = view.account_of_name(&username)?;
        let device = match (&account, shown.token()) {
            (Some(account), Some(token)) if view.was_session_of(TokenHash::of(token), account.id)? => Some(token),
            _ => None,
        };
        Ok::<_, ApiError>((Origin::of(request, view)?, account, device))
    })?;
    let replaces = origin.replaced(request)?;
    let attempt = Try::begin(&request.context, Login { name: &username, address: origin.address, device })?;
    Ok(Reply::later(move |context, hasher| {
        logged_in(context, hasher, &username, password, account, attempt, &origin, replaces).unwrap_or_else(Reply::from)
    }))
}

#[expect(clippy::too_many_arguments, reason = "each is used once, at the end of a login")]
fn logged_in(
    context: &Context<'_>,
    hasher: &Hasher,
    username: &Username,
    password: Password,
    account: Option<Account>,
    attempt: Try,
    origin: &Origin,
    replaces: Option<SessionId>,
) -> Result<Reply, ApiError> {
    let stored = account.as_ref().and_then(|account| account.password.clone());
    let verdict = hasher.verify(password, stored.clone(), Instant::now() + HASH_WAIT)?;
    let (Verdict::Right { renewed }, Some(account), Some(stored)) = (verdict, account, stored) else {
        attempt.failed();
        log::info!("a login as {username} from {} has failed", origin.address);
        return Err(Reason::WrongLogin.into());
    };
    attempt.succeeded();
    let (session, token) = new_login(&origin.label);
    let change = Change::LogIn { user: account.id, password: stored, renewed, session, replaces };
    begun(context.hub.change(origin.by(), change)?, &token, origin.is_secure)
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
    let name = Username::parse(&username).map_err(|error| ApiError::name("username", error))?;
    let Context { reader, attempts, .. } = request.context;
    let code = invitation.filter(|code| is_secret(code)).map(|code| TokenHash::of(&code));
    let (origin, is_taken) = reader.view(|view| {
        let invited = code.map_or(Ok(None), |code| view.invitation_of_code(code))?;
        let invited = invited.is_some_and(|invitation| invitation.room.is_none());
        let origin = Origin::of(request, view)?;
        let context = PermissionContext { invited, ..origin.client.context(view) };
        may(origin.client.role(), Action::Register, &context)?;
        Ok::<_, ApiError>((origin, view.account_of_name(&name)?.is_some()))
    })?;
    let password = Password::new(&password, &name)?;
    locked(attempts).register(origin.address, Instant::now()).map_err(ApiError::attempts)?;
    if is_taken {
        return Err(Reason::NameTaken.into());
    }
    let replaces = origin.replaced(request)?;
    Ok(Reply::later(move |context, hasher| {
        registered(context, hasher, name, password, code, &origin, replaces).unwrap_or_else(Reply::from)
    }))
}

fn registered(
    context: &Context<'_>,
    hasher: &Hasher,
    name: Username,
    password: Password,
    invitation: Option<TokenHash>,
    origin: &Origin,
    replaces: Option<SessionId>,
) -> Result<Reply, ApiError> {
    let hash = hasher.hash(password, Instant::now() + HASH_WAIT)?;
    let (id, looks) = (UserId(Uuid::new_v4()), Looks::of(&name));
    let account = NewAccount { id, name, looks, role: Role::User, password: Some(hash) };
    let (session, token) = new_login(&origin.label);
    let change = Change::Register { account, invitation, session, replaces };
    begun(context.hub.change(origin.by(), change)?, &token, origin.is_secure)
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
    let address = request.address();
    let (client, session, account) = request.context.reader.view(|view| {
        let client = authenticate(view, shown.token(), address)?;
        may(client.role(), Action::ChangePassword, &client.context(view))?;
        let session = client.session.clone().ok_or(Reason::NoSession)?;
        let account = view.account(session.user)?.ok_or(Reason::NoSession)?;
        Ok::<_, ApiError>((client, session, account))
    })?;
    let stored = account.password.clone().ok_or(Reason::NoPassword)?;
    let (old, new) = (Password::shown(&old)?, Password::new(&new, &account.name)?);
    // A client with a stolen token has not the password yet, and is not to find it by trying.
    let login = Login { name: &account.name, address, device: shown.token() };
    let attempt = Try::begin(&request.context, login)?;
    let by = By::Client(client.principal(session.user));
    Ok(Reply::later(move |context, hasher| {
        changed_password(context, hasher, &session, by, stored, (old, new), attempt).unwrap_or_else(Reply::from)
    }))
}

fn changed_password(
    context: &Context<'_>,
    hasher: &Hasher,
    session: &Session,
    by: By,
    stored: PasswordHash,
    (old, new): (Password, Password),
    attempt: Try,
) -> Result<Reply, ApiError> {
    let verdict = hasher.verify(old, Some(stored.clone()), Instant::now() + HASH_WAIT)?;
    if verdict == Verdict::Wrong {
        attempt.failed();
        log::info!("{} has shown a wrong password for a new one", session.user);
        return Err(Reason::WrongPassword.into());
    }
    attempt.succeeded();
    let password = hasher.hash(new, Instant::now() + HASH_WAIT)?;
    let (account, old, keep) = (AccountRef::Id(session.user), Some(stored), Some(session.key));
    context.hub.change(by, Change::SetPassword { account, password, old, keep })?;
    Ok(Reply::empty(204))
}
