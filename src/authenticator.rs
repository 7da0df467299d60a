//! Authentication: finds the session, the role and the name of a client from its token and the name that it asks for.
//!
//! WebSockets and HTTP requests are authenticated by the same functions. Each reads everything from one [`View`].
//! WebSockets use the thread `authenticator`, HTTP requests their own. It changes nothing but the recorded time of a
//! session's last use.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use crossbeam_channel::{Sender, bounded};

use crate::auth::credential::GUEST_SPAN_MS;
use crate::auth::guest_token::{GuestToken, is_guest_token};
use crate::auth::name::Skeletons;
use crate::auth::permission::{Action, PermissionContext, may};
use crate::limits::{AUTHENTICATION_WAIT, AUTHENTICATIONS_WAITING_MAX, STORE_STACK_BYTES};
use crate::model::reason::Reason;
use crate::model::role::Role;
use crate::model::{Person, RoomId, Seq, USERNAME_DEFAULT, UserId, Username};
use crate::rate::network_of;
use crate::store::accounts::{Session, SessionId, SessionKind, StoredGuest};
use crate::store::change::Use;
use crate::store::entry::{Principal, Proof};
use crate::store::{ReadError, Reader, TokenHash, View};
use crate::threads::AbortOnPanic;

/// The use of a session is recorded only if its last recorded use is at least this old: a record costs a commit.
const USE_NOTED_AFTER_MS: u64 = 10 * 60 * 1_000;

/// What a token says about a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authenticated {
    /// The client's session, if its token is valid. A guest's session need not be stored.
    pub session: Option<Session>,
    /// The client under the name of its session, or as anonymous.
    pub identity: Identity,
}

/// A client that is allowed to act, with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `None` for a client without a token.
    pub user: Option<UserId>,
    /// For an account its own name, whatever name the client asked for.
    pub username: Username,
    pub role: Role,
    /// Whether it is a program with a token of its own.
    pub is_bot: bool,
    pub proof: Proof,
    pub network: IpAddr,
    /// The skeletons of a guest's name, if there are accounts whose names are protected.
    pub skeletons: Option<Skeletons>,
}

impl Identity {
    /// The context of the client's permissions in a room, or outside of all rooms.
    #[must_use]
    pub fn context(&self, view: &View<'_>, room: Option<&RoomId>) -> PermissionContext {
        let guest_of = (self.role == Role::Guest).then_some(self.network);
        view.policy().context(self.user, guest_of, room, view.moment().clock_ms)
    }

    /// Whether the client may enter a room, and read its contents.
    ///
    /// # Errors
    /// The reason. For a private room it is the same as for a room that does not exist.
    pub fn may_enter(&self, view: &View<'_>, room: &RoomId) -> Result<(), Reason> {
        may(self.role, Action::Enter, &self.context(view, Some(room)))
    }

    /// Whether the client may join a room. An admin that joins a private room becomes a member.
    ///
    /// # Errors
    /// As [`may_enter`](Self::may_enter).
    pub fn may_join(&self, view: &View<'_>, room: &RoomId) -> Result<(), Reason> {
        match self.may_enter(view, room) {
            Err(Reason::NotMember) => may(self.role, Action::AdmitSelf, &self.context(view, Some(room))),
            entered => entered,
        }
    }

    /// The seq above which the client may read in a room.
    #[must_use]
    pub fn floor(&self, view: &View<'_>, room: &RoomId) -> Seq {
        self.user.map_or(Seq(0), |user| view.policy().floor(room, user))
    }

    /// The client as a proposer; `stranger` is the id of a client without a token.
    #[must_use]
    pub fn principal(&self, stranger: UserId) -> Arc<Principal> {
        let (id, username) = (self.user.unwrap_or(stranger), self.username.clone());
        let person = Person { id, username, role: self.role, is_bot: self.is_bot };
        Arc::new(Principal { person: Arc::new(person), proof: self.proof, network: self.network })
    }
}

/// Finds the session of a token. An invalid or expired token counts as no token.
///
/// # Errors
/// [`ReadError`].
pub fn authenticate(view: &View<'_>, token: Option<&str>, address: IpAddr) -> Result<Authenticated, ReadError> {
    let known = match token {
        None => None,
        Some(token) if is_guest_token(token) => signed_guest(view, token)?,
        Some(token) => view.session(TokenHash::of(token))?.map(|session| {
            let is_guest = session.kind == SessionKind::Guest;
            let proof = if is_guest { Proof::Guest(session.key) } else { Proof::Account(session.key) };
            (session, proof)
        }),
    };
    let (session, proof) = known.map_or((None, Proof::None), |(session, proof)| (Some(session), proof));
    let own_name = session.as_ref().and_then(|session| session.username.clone());
    let identity = Identity {
        user: session.as_ref().map(|session| session.user),
        username: own_name.unwrap_or_else(Username::anonymous),
        role: session.as_ref().map_or(Role::Guest, |session| session.role),
        is_bot: session.as_ref().is_some_and(|session| session.kind == SessionKind::Bot),
        proof,
        network: network_of(address),
        skeletons: None,
    };
    Ok(Authenticated { session, identity })
}

/// The session of a valid signed guest token, stored or not, and the proof for it.
fn signed_guest(view: &View<'_>, text: &str) -> Result<Option<(Session, Proof)>, ReadError> {
    let Some(GuestToken { user, issued_ms }) = view.policy().guest_key.verify(text) else { return Ok(None) };
    let session = match view.stored_guest(user)? {
        StoredGuest::Live(session) => session,
        StoredGuest::Over => return Ok(None),
        StoredGuest::Absent => {
            let expires_ms = issued_ms.saturating_add(GUEST_SPAN_MS);
            if expires_ms <= view.moment().clock_ms {
                return Ok(None);
            }
            Session {
                key: SessionId::of_guest(user),
                user,
                role: Role::Guest,
                kind: SessionKind::Guest,
                username: None,
                label: Box::default(),
                created_ms: view.moment().shown(issued_ms),
                seen_ms: issued_ms,
                expires_ms: Some(expires_ms),
            }
        }
    };
    Ok(Some((session, Proof::SignedGuest { issued_ms })))
}

/// Authenticates a client and gives it a name, or says why it is refused.
///
/// # Errors
/// [`Reason`].
pub fn admit(view: &View<'_>, token: Option<&str>, asked: Username, address: IpAddr) -> Result<Identity, Reason> {
    let Authenticated { session, mut identity } = authenticate(view, token, address)?;
    may(identity.role, Action::Enter, &identity.context(view, None))?;
    let own = session.and_then(|session| session.username);
    if own.is_none() || identity.role == Role::Guest {
        (identity.username, identity.skeletons) = name_of_guest(view, own, asked)?;
    }
    Ok(identity)
}

/// The name of a guest: the name that it asks for, or its last name if it asks for none.
fn name_of_guest(
    view: &View<'_>,
    own: Option<Username>,
    asked: Username,
) -> Result<(Username, Option<Skeletons>), Reason> {
    let is_plain = |name: &Username| name.as_str() == USERNAME_DEFAULT;
    if !view.policy().has_accounts() {
        return Ok((own.filter(|_| is_plain(&asked)).unwrap_or(asked), None));
    }
    if let Some(own) = own.filter(|_| is_plain(&asked)) {
        let skeletons = Skeletons::of(&own);
        // An account may have taken the name since.
        if !view.is_reserved(&skeletons)? {
            return Ok((own, Some(skeletons)));
        }
    }
    if is_plain(&asked) {
        return Ok((asked, None));
    }
    let skeletons = Skeletons::of(&asked);
    if view.is_reserved(&skeletons)? { Err(Reason::NameReserved) } else { Ok((asked, Some(skeletons))) }
}

/// Records the use of a session, if that is worth a commit. A guest's session is stored when half of its lifetime has
/// passed.
pub fn note_use(reader: &Reader, session: &Session, proof: Proof) {
    let age_ms = |since_ms: u64| reader.moment().clock_ms.saturating_sub(since_ms);
    match proof {
        Proof::None => {}
        Proof::SignedGuest { issued_ms } if session.seen_ms == issued_ms => {
            if age_ms(session.seen_ms) >= GUEST_SPAN_MS / 2 {
                reader.note_use(Use::SignedGuest { user: session.user, issued_ms });
            }
        }
        Proof::Guest(_) | Proof::Account(_) | Proof::SignedGuest { .. } => {
            let is_first_of_token = session.kind == SessionKind::Bot && session.created_ms == session.seen_ms;
            if is_first_of_token || age_ms(session.seen_ms) >= USE_NOTED_AFTER_MS {
                reader.note_use(Use::Session(session.key));
            }
        }
    }
}

/// Authenticates WebSocket connections on a thread of its own. A look-up takes much stack, which each connection's
/// thread would otherwise keep. A client that needs no look-up is not handed over. Cloning gives another handle.
#[derive(Debug, Clone)]
pub struct Authenticator {
    reader: Reader,
    requests: Sender<Arc<AdmissionRequest>>,
}

/// A connection to authenticate, and the result. It is one allocation, because memory that a connection's thread frees
/// stays with that thread for its lifetime.
#[derive(Debug)]
struct AdmissionRequest {
    token: Option<Box<str>>,
    asked: Username,
    address: IpAddr,
    room: RoomId,
    answer: Mutex<Option<Result<Identity, Reason>>>,
    answered: Condvar,
}

impl AdmissionRequest {
    fn answer(&self) -> MutexGuard<'_, Option<Result<Identity, Reason>>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Authenticator {
    /// Starts the thread, which ends with the last handle.
    ///
    /// # Errors
    /// If a thread can't be started.
    pub fn start(reader: Reader) -> io::Result<Self> {
        let (requests, waiting) = bounded::<Arc<AdmissionRequest>>(AUTHENTICATIONS_WAITING_MAX);
        let builder = thread::Builder::new().name("authenticator".into()).stack_size(STORE_STACK_BYTES);
        let from = reader.clone();
        builder.spawn(move || {
            let _abort = AbortOnPanic("authenticator");
            for request in waiting {
                // A connection that has timed out has dropped its handle, so its token is not looked up.
                if Arc::strong_count(&request) == 1 {
                    continue;
                }
                let admitted = from.view(|view| {
                    let identity = admit(view, request.token.as_deref(), request.asked.clone(), request.address)?;
                    identity.may_join(view, &request.room)?;
                    Ok(identity)
                });
                *request.answer() = Some(admitted);
                // The connection waits for this, or has timed out.
                request.answered.notify_one();
            }
        })?;
        Ok(Self { reader, requests })
    }

    /// The reader that authenticates.
    #[must_use]
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Authenticates a client that wants to enter a room.
    ///
    /// # Errors
    /// [`Reason`].
    #[inline(never)]
    pub fn admit(
        &self,
        token: Option<&str>,
        asked: &Username,
        address: IpAddr,
        room: &RoomId,
    ) -> Result<Identity, Reason> {
        if token.is_none()
            && let Some(admitted) = self.admit_stranger(asked, address, room)
        {
            return admitted;
        }
        let request = Arc::new(AdmissionRequest {
            token: token.map(Into::into),
            asked: asked.clone(),
            address,
            room: room.clone(),
            answer: Mutex::default(),
            answered: Condvar::new(),
        });
        self.wait(&request, Instant::now() + AUTHENTICATION_WAIT)
    }

    /// Admits a client without a token by the policy alone. `None` if its name must be compared with the names of
    /// accounts.
    #[inline(never)]
    fn admit_stranger(&self, asked: &Username, address: IpAddr, room: &RoomId) -> Option<Result<Identity, Reason>> {
        let (policy, network) = (self.reader.policy(), network_of(address));
        if policy.has_accounts() && asked.as_str() != USERNAME_DEFAULT {
            return None;
        }
        let context = policy.context(None, Some(network), Some(room), self.reader.moment().clock_ms);
        let (role, proof, username) = (Role::Guest, Proof::None, asked.clone());
        let identity = Identity { user: None, username, role, is_bot: false, proof, network, skeletons: None };
        Some(may(role, Action::Enter, &context).map(|()| identity))
    }

    fn wait(&self, request: &Arc<AdmissionRequest>, deadline: Instant) -> Result<Identity, Reason> {
        self.requests.send_deadline(Arc::clone(request), deadline).map_err(|_| Reason::Busy)?;
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = request.answered.wait_timeout_while(request.answer(), left, |answer| answer.is_none());
        let (mut answer, _) = waited.unwrap_or_else(PoisonError::into_inner);
        answer.take().unwrap_or(Err(Reason::Busy))
    }
}

#[cfg(test)]
mod tests;
