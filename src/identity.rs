//! Who somebody is to us, by the token that they show and the name that they ask for.
//!
//! The same on every road: whoever opens a WebSocket and whoever sends a request passes this door.

use std::io;
use std::net::IpAddr;
use std::thread;
use std::time::Instant;

use crossbeam_channel::{Sender, bounded};

use crate::auth::attempts::network_of;
use crate::auth::name::Looks;
use crate::auth::permission::{Access, Action, Circumstances, Refusal, Standing, may};
use crate::limits::{DOOR_ANSWER_WAIT, KNOCKS_WAITING_MAX, STORE_STACK_BYTES};
use crate::model::{RoomId, Timestamp, USERNAME_DEFAULT, UserId, Username};
use crate::role::{Accounts, Role};
use crate::store::accounts::{self, Banned, Session, SessionKey, SessionKind};
use crate::store::{Registry, RegistryError, TokenHash};
use crate::threads::Vital;

/// Who was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Who, where they are known; a stranger has no id yet.
    pub user: Option<UserId>,
    /// What they are called here: an account by its name, whatever was asked for.
    pub username: Username,
    /// What they may do.
    pub role: Role,
    /// By which session they are known.
    pub session: Option<SessionKey>,
}

/// Why somebody is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// By the table of permissions.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A guest may not bear a name that is an account's, or looks like one's.
    #[error("that name is somebody's here, or looks like it: log in, or take another")]
    Name,
    /// It can't be looked up now.
    #[error("the server is busy")]
    Busy,
}

impl From<RegistryError> for Denied {
    fn from(_: RegistryError) -> Self {
        Self::Busy
    }
}

/// Where it is decided.
#[derive(Debug, Clone)]
pub struct Door {
    registry: Registry,
    accounts: Accounts,
}

impl Door {
    /// A door with this list of people.
    #[must_use]
    pub fn new(registry: Registry, accounts: Accounts) -> Self {
        Self { registry, accounts }
    }

    /// What is kept of people.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Whether one must have an account here.
    #[must_use]
    pub fn accounts(&self) -> Accounts {
        self.accounts
    }

    /// Lets somebody in, or says why not. A token that is nobody's (any more) is none.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn let_in(&self, token: Option<&str>, asked: Username, address: IpAddr) -> Result<Identity, Denied> {
        let hash = token.map(TokenHash::of);
        let now = Timestamp::now();
        let (session, is_banned, is_taken) = self.registry.read(|connection| {
            let session = hash.map_or(Ok(None), |hash| accounts::session(connection, hash, &now))?;
            let is_guest = session.as_ref().is_none_or(|session| session.kind == SessionKind::Guest);
            let is_user_banned = |session: &Session| accounts::is_banned(connection, Banned::User(session.user), &now);
            let is_banned = session.as_ref().map_or(Ok(false), is_user_banned)?
                || (is_guest && accounts::is_banned(connection, Banned::Address(network_of(address)), &now)?);
            let is_plain = asked.as_str() == USERNAME_DEFAULT;
            let is_taken = is_guest && !is_plain && accounts::resembling(connection, &Looks::of(&asked))?.is_some();
            Ok((session, is_banned, is_taken))
        })?;
        let role = session.as_ref().map_or(Role::Guest, |session| session.role);
        let standing = if is_banned { Standing::Banned } else { Standing::Good };
        may(role, Action::Enter, &Circumstances { standing, accounts: self.accounts, ..Circumstances::default() })?;
        if is_taken {
            return Err(Denied::Name);
        }
        let Some(session) = session else {
            return Ok(Identity { user: None, username: asked, role, session: None });
        };
        self.registry.note_seen(session.user);
        let username = match (session.kind, session.username) {
            (SessionKind::Login | SessionKind::Bot, Some(name)) => name,
            // A guest who says nothing is called what they said before.
            (SessionKind::Guest, Some(name)) if asked.as_str() == USERNAME_DEFAULT => name,
            _ => asked,
        };
        Ok(Identity { user: Some(session.user), username, role, session: Some(session.key) })
    }

    /// Whether somebody may come into a room, and read what is its own.
    ///
    /// # Errors
    /// [`Denied`]; of a private room that they are no member of, the same as of one that is not there.
    pub fn enter(&self, identity: &Identity, room: &RoomId) -> Result<(), Denied> {
        let user = identity.user;
        let access = self.registry.read(|connection| {
            if !accounts::room_settings(connection, room)?.is_private {
                return Ok(Access::Public);
            }
            let is_member = user.map_or(Ok(false), |user| accounts::is_member(connection, room, user))?;
            Ok(if is_member { Access::Member } else { Access::Stranger })
        })?;
        let circumstances = Circumstances { access, accounts: self.accounts, ..Circumstances::default() };
        Ok(may(identity.role, Action::Enter, &circumstances)?)
    }
}

/// The door of connections that stay: a thread that looks up who comes, so that the stack that a search takes is not
/// kept by each connection's thread for as long as it lives. Cloning gives another handle of the same.
#[derive(Debug, Clone)]
pub struct Doorkeeper(Sender<Box<Knock>>);

#[derive(Debug)]
struct Knock {
    token: Option<Box<str>>,
    asked: Username,
    address: IpAddr,
    room: RoomId,
    /// Has room for the answer.
    answer: Sender<Result<Identity, Denied>>,
}

impl Doorkeeper {
    /// Starts the thread, which ends with the last handle.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn start(door: Door) -> io::Result<Self> {
        let (knocks, knocked) = bounded::<Box<Knock>>(KNOCKS_WAITING_MAX);
        let builder = thread::Builder::new().name("door".into()).stack_size(STORE_STACK_BYTES);
        builder.spawn(move || {
            let _vital = Vital("door");
            for knock in knocked {
                let Knock { token, asked, address, room, answer } = *knock;
                let admitted = door.let_in(token.as_deref(), asked, address);
                let admitted = admitted.and_then(|identity| door.enter(&identity, &room).map(|()| identity));
                // Whoever knocked waits for it, or has gone.
                drop(answer.try_send(admitted));
            }
        })?;
        Ok(Self(knocks))
    }

    /// Lets somebody into a room, or says why not.
    ///
    /// # Errors
    /// [`Denied`].
    #[inline(never)]
    pub fn admit(
        &self,
        token: Option<&str>,
        asked: &Username,
        address: IpAddr,
        room: &RoomId,
    ) -> Result<Identity, Denied> {
        let (answer, answered) = bounded(1);
        let deadline = Instant::now() + DOOR_ANSWER_WAIT;
        let (asked, room) = (asked.clone(), room.clone());
        let knock = Box::new(Knock { token: token.map(Into::into), asked, address, room, answer });
        self.0.send_deadline(knock, deadline).map_err(|_| Denied::Busy)?;
        answered.recv_deadline(deadline).unwrap_or(Err(Denied::Busy))
    }
}
