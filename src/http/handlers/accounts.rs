//! REST: the account settings that the page needs before a login; login, registration, and password changes.
//!
//! Runs on the HTTP workers and does the cheap checks there, rate limits before the password. Password hashes are
//! computed only in the slow lane.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::sessions::{Me, label_of};
use crate::auth::attempts::{Attempts, Login, LoginAttempt, LoginRefused};
use crate::auth::credential::{Credential, LOGIN_SPAN_MS};
use crate::auth::name::Skeletons;
use crate::auth::password::{self, Password, PasswordHash, Verdict};
use crate::auth::permission::{Action, PermissionContext, RegistrationCode, may};
use crate::auth::secret::{Secret, is_secret, random_id};
use crate::authenticator::{Authenticated, authenticate};
use crate::http::error::{rate_limited, too_many_attempts};
use crate::http::extract::{UNKNOWN_USER, body, shown};
use crate::http::reply::Reply;
use crate::http::request::Request;
use crate::http::server::Context;
use crate::http::slow_lane::{Lane, Payer};
use crate::model::reason::{Reason, Rejection};
use crate::model::role::Role;
use crate::model::{UserId, Username};
use crate::rate::network_of;
use crate::store::TokenHash;
use crate::store::accounts::{SessionId, SessionKind};
use crate::store::change::{self, AccountRef, Change, NewAccount, NewSession};
use crate::store::entry::By;

/// `GET /api/about`: whether accounts and registration are on. It must reveal nothing about users.
pub(crate) fn about(request: &Request<'_>) -> Result<Reply, Rejection> {
    let flags = request.context.reader.policy().flags;
    let about = json!({ "accounts": flags.accounts.as_str(), "registration": flags.registration.as_str() });
    Ok(Reply::data(200, about))
}

/// Locks the attempts for a short time.
pub(crate) fn locked(attempts: &Mutex<Attempts>) -> MutexGuard<'_, Attempts> {
    attempts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The client for which a password is hashed.
fn payer(request: &Request<'_>, name: &Username) -> Payer {
    let account = locked(&request.context.attempts).account_key(name);
    Payer { network: network_of(request.address()), account }
}

/// A login attempt. It does not count if it is dropped before its password was compared.
struct Try {
    attempts: Arc<Mutex<Attempts>>,
    pending: Option<LoginAttempt>,
}

impl Try {
    /// Begins an attempt, unless there were too many attempts by this client or for this account.
    fn begin(context: &Context, login: Login<'_>) -> Result<Self, Rejection> {
        let attempts = Arc::clone(&context.attempts);
        let pending = locked(&attempts).login(login, Instant::now()).map_err(|refused| match refused {
            LoginRefused::Failed(wait) => too_many_attempts(wait),
            LoginRefused::Succeeded(wait) => rate_limited(wait),
        })?;
        Ok(Self { attempts, pending: Some(pending) })
    }

    /// Compares the password. A wrong password counts as a failed attempt.
    fn verify(mut self, password: &Password, stored: Option<&PasswordHash>) -> Result<Verdict, Rejection> {
        let verdict = password::verify(password, stored)?;
        if let Some(pending) = self.pending.take()
            && verdict != Verdict::Wrong
        {
            locked(&self.attempts).succeeded(pending);
        }
        Ok(verdict)
    }
}

impl Drop for Try {
    fn drop(&mut self) {
        if let Some(pending) = self.pending.take() {
            locked(&self.attempts).undecided(&pending);
        }
    }
}

/// A session that is about to begin.
struct NewLogin {
    by: By,
    session: NewSession,
    token: Secret,
    /// The session of the cookie, which the new session replaces.
    replaces: Option<SessionId>,
    is_secure: bool,
}

impl NewLogin {
    fn of(request: &Request<'_>, client: &Authenticated) -> Result<Self, Rejection> {
        let token = Secret::random();
        let session = NewSession {
            id: SessionId(random_id()),
            kind: SessionKind::Login,
            token_hash: Some(TokenHash::of(token.expose())),
            label: label_of(request).into(),
            span_ms: Some(LOGIN_SPAN_MS),
        };
        let is_cookie = matches!(shown(request)?, Credential::Cookie(_));
        let replaces = client.session.as_ref().filter(|_| is_cookie).map(|session| session.key);
        let by = By::Client(client.identity.principal(UNKNOWN_USER));
        Ok(Self { by, session, token, replaces, is_secure: request.is_secure() })
    }

    /// Proposes the change that begins the session, and replies with the session.
    fn begin(
        self,
        context: &Context,
        change: impl FnOnce(NewSession, Option<SessionId>) -> Change,
    ) -> Result<Reply, Rejection> {
        let change = change(self.session, self.replaces);
        let done = context.hub.change(self.by, change)?;
        let token = self.token.expose();
        let me = Me::begun(&done, SessionKind::Login, Some(token))?;
        Ok(Reply::data(201, me).with_cookie(context.settings.cookie.set(token, LOGIN_SPAN_MS, self.is_secure)))
    }
}

/// `POST /api/session` with a password.
pub(crate) fn log_in(request: &Request<'_>, username: Username, password: &str) -> Result<Reply, Rejection> {
    let password = Password::shown(password)?;
    let (shown, address) = (shown(request)?, request.address());
    let (login, account, device) = request.context.reader.view(|view| {
        let account = view.account_of_name(&username)?;
        let device = match (&account, shown.token()) {
            (Some(account), Some(token)) if view.was_session_of(TokenHash::of(token), account.id)? => Some(token),
            _ => None,
        };
        let client = authenticate(view, shown.token(), address)?;
        Ok::<_, Rejection>((NewLogin::of(request, &client)?, account, device))
    })?;
    let attempt = Try::begin(request.context, Login { name: &username, address, device })?;
    Ok(Reply::later(Lane::Login, payer(request, &username), move |context| {
        let stored = account.as_ref().and_then(|account| account.password.clone());
        let verdict = attempt.verify(&password, stored.as_ref())?;
        let (Verdict::Right { renewed }, Some(account), Some(password)) = (verdict, account, stored) else {
            log::info!("failed login as {username} from {address}");
            return Err(Reason::WrongLogin.into());
        };
        login.begin(context, |session, replaces| {
            Change::LogIn(change::NewLogin { user: account.id, password, renewed, session, replaces })
        })
    }))
}

/// `POST /api/accounts`
pub(crate) fn register(request: &Request<'_>) -> Result<Reply, Rejection> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        username: String,
        password: String,
        invitation: Option<String>,
    }
    let Asked { username, password, invitation } = body(request)?;
    let name = Username::parse(&username).map_err(|error| Reason::BadName.of_name("username", error))?;
    let address = request.address();
    let invitation = invitation.filter(|code| is_secret(code)).map(|code| TokenHash::of(&code));
    let (login, is_taken) = request.context.reader.view(|view| {
        let code = invitation.map_or(Ok(RegistrationCode::None), |code| view.registration_code(code))?;
        let client = authenticate(view, shown(request)?.token(), address)?;
        may(
            client.identity.role,
            Action::Register,
            &PermissionContext { code, ..client.identity.context(view, None) },
        )?;
        Ok::<_, Rejection>((NewLogin::of(request, &client)?, view.account_of_name(&name)?.is_some()))
    })?;
    let password = Password::new(&password, &name)?;
    locked(&request.context.attempts).register(address, Instant::now()).map_err(too_many_attempts)?;
    if is_taken {
        return Err(Reason::NameTaken.into());
    }
    Ok(Reply::later(Lane::Login, payer(request, &name), move |context| {
        let (skeletons, password) = (Skeletons::of(&name), Some(password::hash(&password)?));
        let account = NewAccount { id: UserId(Uuid::new_v4()), name, skeletons, role: Role::User, password };
        login.begin(context, |session, replaces| Change::Register { account, invitation, session, replaces })
    }))
}

/// `PUT /api/account/password`
pub(crate) fn change_password(request: &Request<'_>) -> Result<Reply, Rejection> {
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
        may(client.identity.role, Action::ChangePassword, &client.identity.context(view, None))?;
        let session = client.session.clone().ok_or(Reason::NoSession)?;
        let account = view.account(session.user)?.ok_or(Reason::NoSession)?;
        Ok::<_, Rejection>((client, session, account))
    })?;
    let stored = account.password.clone().ok_or(Reason::NoPassword)?;
    let (old, new) = (Password::shown(&old)?, Password::new(&new, &account.name)?);
    // A client with a stolen token does not know the password, and must not find it by guessing.
    let login = Login { name: &account.name, address, device: shown.token() };
    let attempt = Try::begin(request.context, login)?;
    let by = By::Client(client.identity.principal(session.user));
    Ok(Reply::later(Lane::Login, payer(request, &account.name), move |context| {
        if attempt.verify(&old, Some(&stored))? == Verdict::Wrong {
            log::info!("{} gave a wrong old password", session.user);
            return Err(Reason::WrongPassword.into());
        }
        let password = password::hash(&new)?;
        let (account, old, keep) = (AccountRef::Id(session.user), Some(stored), Some(session.key));
        context.hub.change(by, Change::SetPassword { account, password, old, keep })?;
        Ok(Reply::empty(204))
    }))
}
