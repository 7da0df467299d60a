//! Who somebody is to us, by the token that they show and the name that they ask for.
//!
//! The same on every road: whoever opens a WebSocket and whoever sends a request passes this door.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use rusqlite::Connection;

use crate::auth::name::Looks;
use crate::auth::permission::{Access, Action, Circumstances, Refusal, Standing, Whose, may};
use crate::limits::{DOOR_ANSWER_WAIT, KNOCKS_WAITING_MAX, STORE_STACK_BYTES};
use crate::model::{Person, RoomId, Timestamp, USERNAME_DEFAULT, UserId, Username};
use crate::rate::network_of;
use crate::role::{Accounts, Role};
use crate::store::accounts::{self, Banned, Session, SessionKey, SessionKind};
use crate::store::{Registry, RegistryError, TokenHash};
use crate::threads::Vital;

/// For how long a guest is known who does not come back.
pub const GUEST_SPAN: Duration = Duration::from_secs(90 * 86_400);
/// For how long somebody stays logged in who does not come back.
pub const LOGIN_SPAN: Duration = Duration::from_secs(30 * 86_400);
/// How much of that must have passed before a visit lets a session last longer again: it costs a commit.
const RENEWED_AFTER: Duration = Duration::from_secs(86_400);

/// Until when a session lasts that is used now, in milliseconds since 1970. A bot's lasts until it is revoked.
#[must_use]
pub fn expires_ms(kind: SessionKind, now: &Timestamp) -> Option<u64> {
    let span = match kind {
        SessionKind::Guest => GUEST_SPAN,
        SessionKind::Login => LOGIN_SPAN,
        SessionKind::Bot => return None,
    };
    Some(now.unix_ms + u64::try_from(span.as_millis()).unwrap_or(0))
}

/// Who somebody is, before it is asked what they may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// By which session, if that is not over.
    pub session: Option<Session>,
    /// How they stand with the house.
    pub standing: Standing,
}

impl Known {
    /// What they may do.
    #[must_use]
    pub fn role(&self) -> Role {
        self.session.as_ref().map_or(Role::Guest, |session| session.role)
    }
}

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

    /// Looks up who shows a token, which lets their session last longer. One that is nobody's (any more) is none.
    ///
    /// # Errors
    /// [`Denied::Busy`].
    pub fn look_up(&self, token: Option<&str>, address: IpAddr) -> Result<Known, Denied> {
        let now = Timestamp::now();
        let mut known = self.registry.read(|connection| known(connection, token, address, &now))?;
        self.renew(&mut known, &now);
        Ok(known)
    }

    /// Lets a session that is used last longer, once a day.
    fn renew(&self, known: &mut Known, now: &Timestamp) {
        let Some(session) = known.session.as_mut().filter(|_| known.standing != Standing::Banned) else { return };
        self.registry.note_seen(session.user);
        let (Some(lasts), Some(would_last)) = (session.expires_ms, expires_ms(session.kind, now)) else { return };
        if would_last.saturating_sub(lasts) >= RENEWED_AFTER.as_millis().try_into().unwrap_or(u64::MAX) {
            let (key, now) = (session.key, now.clone());
            let renew = move |connection: &_| Ok(accounts::renew_session(connection, key, Some(would_last), &now)?);
            // Nobody waits for it. Where there is no time for it now, the next visit does it.
            if self.registry.change_soon(renew) {
                session.expires_ms = Some(would_last);
            }
        }
    }

    /// Lets somebody in, or says why not. A token that is nobody's (any more) is none.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn let_in(&self, token: Option<&str>, asked: Username, address: IpAddr) -> Result<Identity, Denied> {
        let now = Timestamp::now();
        let (mut known, username) = self.registry.read(|connection| {
            let known = known(connection, token, address, &now)?;
            let is_plain = |name: &Username| name.as_str() == USERNAME_DEFAULT;
            let is_free = |name: &Username| -> rusqlite::Result<bool> {
                Ok(is_plain(name) || accounts::resembling(connection, &Looks::of(name))?.is_none())
            };
            let own = known.session.as_ref().and_then(|session| session.username.clone());
            let username = match own {
                Some(name) if known.role() > Role::Guest => Some(name),
                // A guest who says nothing is called what they said before, unless an account has taken that name since.
                Some(name) if is_plain(&asked) && is_free(&name)? => Some(name),
                _ => is_free(&asked)?.then_some(asked),
            };
            Ok((known, username))
        })?;
        let (role, standing) = (known.role(), known.standing);
        may(role, Action::Enter, &Circumstances { standing, accounts: self.accounts, ..Circumstances::default() })?;
        let username = username.ok_or(Denied::Name)?;
        self.renew(&mut known, &now);
        let (user, session) = known.session.map(|session| (session.user, session.key)).unzip();
        Ok(Identity { user, username, role, session })
    }

    /// Somebody who is here by a connection, as they are now, about to do something in a room. Whose session is over may do
    /// no more than a guest.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn member(&self, person: &Person, session: Option<SessionKey>, room: &RoomId) -> Result<Actor, Denied> {
        let id = person.id;
        let now = Timestamp::now();
        let (session, is_banned) = self.registry.read(|connection| {
            let known = session.map_or(Ok(None), |key| accounts::session_of_key(connection, key, &now))?;
            Ok((known, accounts::is_banned(connection, Banned::User(id), &now)?))
        })?;
        let session = session.filter(|session| session.user == id);
        let role = session.as_ref().map_or(Role::Guest, |session| session.role);
        let session = session.map(|session| session.key);
        let identity = Identity { user: Some(id), username: person.username.clone(), role, session };
        let mut circumstances = self.circumstances(&identity, Some(room))?;
        if is_banned {
            circumstances.standing = Standing::Banned;
        }
        Ok(Actor { identity, circumstances })
    }

    /// What counts when somebody is about to do something, in a room or in the house; whose it is that is acted on, the
    /// caller knows.
    ///
    /// # Errors
    /// [`Denied::Busy`].
    pub fn circumstances(&self, identity: &Identity, room: Option<&RoomId>) -> Result<Circumstances, Denied> {
        let user = identity.user;
        Ok(self.registry.read(|connection| {
            let muted = user.map_or(Ok(None), |user| accounts::muted_until(connection, user, &Timestamp::now()))?;
            let standing = if muted.is_some() { Standing::Muted } else { Standing::Good };
            let settings = room.map(|room| accounts::room_settings(connection, room)).transpose()?.unwrap_or_default();
            let access = match (room, settings.is_private) {
                (Some(room), true) => access(connection, room, user)?,
                _ => Access::Public,
            };
            let (accounts, posting) = (self.accounts, settings.posting);
            Ok(Circumstances { standing, access, posting, accounts, ..Circumstances::default() })
        })?)
    }

    /// Whether somebody may come into a room, and read what is its own.
    ///
    /// # Errors
    /// [`Denied`]; of a private room that they are no member of, the same as of one that is not there.
    pub fn enter(&self, identity: &Identity, room: &RoomId) -> Result<(), Denied> {
        let circumstances = self.circumstances(identity, Some(room))?;
        Ok(may(identity.role, Action::Enter, &circumstances)?)
    }
}

/// Somebody who is about to do something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// Who.
    pub identity: Identity,
    /// What counts, but for whose it is that is acted on.
    pub circumstances: Circumstances,
}

impl Actor {
    /// Who they are, as others see them; only strangers have no id.
    #[must_use]
    pub fn person(&self) -> Option<Person> {
        Some(Person { id: self.identity.user?, username: self.identity.username.clone() })
    }

    /// Whether they may, in these circumstances.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn may(&self, action: Action) -> Result<(), Refusal> {
        may(self.identity.role, action, &self.circumstances)
    }

    /// Whether they may do this to some guest: asked first, so that whoever may not learns nothing of who there is.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn may_to_others(&mut self, action: Action) -> Result<(), Refusal> {
        self.circumstances.whose = Whose::Others(Role::Guest);
        self.may(action)
    }
}

/// What a private room is to somebody.
fn access(connection: &Connection, room: &RoomId, user: Option<UserId>) -> rusqlite::Result<Access> {
    let is_member = user.map_or(Ok(false), |user| accounts::is_member(connection, room, user))?;
    Ok(if is_member { Access::Member } else { Access::Stranger })
}

/// Who shows a token at an address, and whether they are kept out: by who they are or, guests, by where they come from.
fn known(connection: &Connection, token: Option<&str>, address: IpAddr, now: &Timestamp) -> rusqlite::Result<Known> {
    let session = token.map_or(Ok(None), |token| accounts::session(connection, TokenHash::of(token), now))?;
    let is_guest = session.as_ref().is_none_or(|session| session.kind == SessionKind::Guest);
    let is_banned = |banned| accounts::is_banned(connection, banned, now);
    let is_banned = session.as_ref().map_or(Ok(false), |session| is_banned(Banned::User(session.user)))?
        || (is_guest && is_banned(Banned::Address(network_of(address)))?);
    Ok(Known { session, standing: if is_banned { Standing::Banned } else { Standing::Good } })
}

/// The door of connections that stay: a thread that looks up who comes, so that the stack that a search takes is not
/// kept by each connection's thread for as long as it lives. Cloning gives another handle of the same.
#[derive(Debug, Clone)]
pub struct Doorkeeper(Sender<Arc<Knock>>);

/// Somebody at the door, and what they are told. One piece of memory, as whoever knocks keeps what is freed of it for
/// as long as their connection lives.
#[derive(Debug)]
struct Knock {
    token: Option<Box<str>>,
    asked: Username,
    address: IpAddr,
    room: RoomId,
    answer: Mutex<Option<Result<Identity, Denied>>>,
    answered: Condvar,
}

impl Knock {
    fn answer(&self) -> MutexGuard<'_, Option<Result<Identity, Denied>>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Doorkeeper {
    /// Starts the thread, which ends with the last handle.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn start(door: Door) -> io::Result<Self> {
        let (knocks, knocked) = bounded::<Arc<Knock>>(KNOCKS_WAITING_MAX);
        let builder = thread::Builder::new().name("door".into()).stack_size(STORE_STACK_BYTES);
        builder.spawn(move || {
            let _vital = Vital("door");
            for knock in knocked {
                // Who has given up waiting is not looked up for nobody.
                if Arc::strong_count(&knock) == 1 {
                    continue;
                }
                let admitted = door.let_in(knock.token.as_deref(), knock.asked.clone(), knock.address);
                let admitted = admitted.and_then(|identity| door.enter(&identity, &knock.room).map(|()| identity));
                *knock.answer() = Some(admitted);
                // Whoever knocked waits for it, or has gone.
                knock.answered.notify_one();
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
        let knock = Arc::new(Knock {
            token: token.map(Into::into),
            asked: asked.clone(),
            address,
            room: room.clone(),
            answer: Mutex::default(),
            answered: Condvar::new(),
        });
        self.wait(&knock, Instant::now() + DOOR_ANSWER_WAIT)
    }

    fn wait(&self, knock: &Arc<Knock>, deadline: Instant) -> Result<Identity, Denied> {
        self.0.send_deadline(Arc::clone(knock), deadline).map_err(|_| Denied::Busy)?;
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = knock.answered.wait_timeout_while(knock.answer(), left, |answer| answer.is_none());
        let (mut answer, _) = waited.unwrap_or_else(PoisonError::into_inner);
        answer.take().unwrap_or(Err(Denied::Busy))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use uuid::Uuid;

    use super::*;
    use crate::store::accounts::{Account, Ban, NewSession};

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const DAY_MS: u64 = 86_400_000;

    fn name(text: &str) -> Username {
        Username::parse(text).unwrap()
    }

    /// A door with one session of a kind, which ends at some time from now.
    fn door(kind: SessionKind, lasts_ms: Option<u64>) -> (Door, UserId) {
        let registry = Registry::in_memory().unwrap();
        let user = UserId(Uuid::from_u128(7));
        registry
            .change(move |connection| {
                let now = Timestamp::now();
                if kind != SessionKind::Guest {
                    let name = name("rahim");
                    let account = Account { id: user, name, role: Role::User, password: None, created_ms: 0 };
                    accounts::create(connection, &account)?;
                }
                let (token_hash, said) = (TokenHash::of("good"), name("ana"));
                let username = (kind == SessionKind::Guest).then_some(&said);
                let expires_ms = lasts_ms.map(|ms| now.unix_ms + ms);
                let new = NewSession { token_hash, user, kind, username, label: "", expires_ms };
                Ok(accounts::begin_session(connection, &new, &now)?)
            })
            .unwrap();
        (Door::new(registry, Accounts::Optional), user)
    }

    #[test]
    fn a_session_that_is_used_lasts_longer_and_is_written_once_a_day() {
        for (kind, lasts_ms, renewed) in [
            (SessionKind::Login, Some(DAY_MS), true),
            (SessionKind::Login, Some(30 * DAY_MS - DAY_MS / 2), false),
            (SessionKind::Login, Some(29 * DAY_MS - 1_000), true),
            (SessionKind::Guest, Some(30 * DAY_MS), true),
            (SessionKind::Guest, None, false),
            (SessionKind::Bot, Some(DAY_MS), false),
        ] {
            let (door, _) = door(kind, lasts_ms);
            let session = || door.registry().session("good").unwrap().unwrap();
            let before = session().expires_ms;
            let identity = door.let_in(Some("good"), name("eve"), HERE).unwrap();
            assert_eq!(identity.session, Some(session().key), "{kind:?}");
            let after = session().expires_ms;
            assert_eq!(after != before, renewed, "{kind:?} {lasts_ms:?}");
            if renewed {
                let left_ms = after.unwrap() - Timestamp::now().unix_ms;
                let span = if kind == SessionKind::Guest { GUEST_SPAN } else { LOGIN_SPAN };
                assert!(u128::from(left_ms) > span.as_millis() - 10_000, "{left_ms}");
            }
            door.let_in(Some("good"), name("eve"), HERE).unwrap();
            assert_eq!(session().expires_ms, after, "once a day");
        }
    }

    #[test]
    fn a_session_that_is_over_or_banned_is_not_renewed() {
        let (over, _) = door(SessionKind::Guest, Some(0));
        assert_eq!(over.let_in(Some("good"), name("eve"), HERE).unwrap().user, None);
        let (door, user) = door(SessionKind::Login, Some(DAY_MS));
        let ban = Ban { banned: Banned::User(user), until_ms: None, reason: "".into(), by: user };
        door.registry().change(move |connection| Ok(accounts::ban(connection, &ban, &Timestamp::now())?)).unwrap();
        let before = door.registry().session("good").unwrap();
        assert_eq!(door.let_in(Some("good"), name("eve"), HERE), Err(Denied::Refused(Refusal::Banned)));
        assert_eq!(door.look_up(Some("good"), HERE).unwrap().standing, Standing::Banned);
        assert_eq!(door.registry().session("good").unwrap(), before);
    }

    #[test]
    fn a_door_before_which_too_many_wait_is_busy_and_lets_the_others_in_all_the_same() {
        let (door, _) = door(SessionKind::Guest, None);
        let registry = door.registry().clone();
        let keeper = Doorkeeper::start(door).unwrap();
        let room = RoomId::parse("tea").unwrap();
        let knock = || {
            let (asked, room) = (name("eve"), room.clone());
            let (answer, answered) = (Mutex::default(), Condvar::new());
            Arc::new(Knock { token: None, asked, address: HERE, room, answer, answered })
        };
        let (mut waiting, mut refused) = (Vec::new(), 0);
        let soon = Instant::now() + Duration::from_secs(20);
        // While this reads, whoever else reads must wait, as all people are in one place in memory.
        let read = registry.read(|_| {
            // One is with the thread, soon; the queue is full when it is not taken from any more.
            while waiting.len() <= KNOCKS_WAITING_MAX {
                let knock = knock();
                keeper.0.send_deadline(Arc::clone(&knock), soon).unwrap();
                waiting.push(knock);
            }
            for _ in 0..3 {
                let answer = keeper.wait(&knock(), Instant::now() + Duration::from_millis(20));
                refused += usize::from(answer == Err(Denied::Busy));
            }
            Ok(())
        });
        read.unwrap();
        assert_eq!((waiting.len(), refused), (KNOCKS_WAITING_MAX + 1, 3));
        for knock in waiting {
            let left = soon.saturating_duration_since(Instant::now());
            let waited = knock.answered.wait_timeout_while(knock.answer(), left, |answer| answer.is_none());
            assert!(matches!(*waited.unwrap().0, Some(Ok(_))));
        }
        assert!(keeper.admit(None, &name("eve"), HERE, &room).is_ok());
    }

    #[test]
    fn a_guest_keeps_a_name_until_an_account_has_it() {
        let (door, _) = door(SessionKind::Guest, None);
        let called = |asked: &str| door.let_in(Some("good"), name(asked), HERE).map(|identity| identity.username);
        assert_eq!(called(USERNAME_DEFAULT), Ok(name("ana")));
        assert_eq!(called("eve"), Ok(name("eve")));
        let id = UserId(Uuid::from_u128(8));
        let account = Account { id, name: name("Ana"), role: Role::User, password: None, created_ms: 0 };
        door.registry().change(move |connection| accounts::create(connection, &account)).unwrap();
        assert_eq!(called(USERNAME_DEFAULT), Ok(name(USERNAME_DEFAULT)));
        assert_eq!(called("ana"), Err(Denied::Name));
    }
}
