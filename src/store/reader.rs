//! Reads from the store, with connections of their own: nothing here passes the hub or waits for the writer.
//!
//! A [`View`] is one read transaction with the policy and the log time of its moment: all that one answer needs is read
//! through one view.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::auth::name::Looks;
use crate::limits::USES_PENDING_MAX;
use crate::model::reason::{Reason, Rejection};
use crate::model::{FrameId, RoomId, Seq, UserId, Username};
use crate::role::Role;

use super::change::Use;
use super::log::clock::{Moment, SharedClock};
use super::memory::Memory;
use super::policy::{PolicySnapshot, PublishedPolicy};
use super::sqlite::people::{self, Account, Ban, Invitation, Session, SessionId, StoredGuest};
use super::sqlite::schema::{Database, OpenError};
use super::sqlite::search::{self, Wanted};
use super::sqlite::{Connection, Fault, messages};
use super::{KeptRoom, Kinds, Side, Stored, TokenHash, locked};

/// Connections that are kept for the next reader.
const READERS_IDLE_MAX: usize = 4;

/// See the head of this file. Cloning gives another handle of the same.
#[derive(Debug, Clone)]
pub struct Reader {
    source: Source,
    policy: PublishedPolicy,
    clock: SharedClock,
    uses: Arc<Uses>,
}

/// Where a reader reads.
#[derive(Debug, Clone)]
pub enum Source {
    /// Connections are made as they are needed, and kept for the next.
    Database { database: Arc<Database>, idle: Arc<Mutex<Idle>> },
    /// Each is held by the store's thread for a batch, and by a reader for a view.
    Memory { messages: Arc<Mutex<Memory>>, people: Arc<Mutex<Connection>> },
}

/// Connections for the next readers.
#[derive(Debug, Default)]
pub struct Idle {
    connections: Vec<Connection>,
    /// Whether none is kept any more.
    closed: bool,
}

/// Uses of sessions since the store noted them last, each session once.
#[derive(Debug, Default)]
pub struct Uses(Mutex<BTreeMap<SessionId, Use>>);

impl Uses {
    /// Notes a use; not where too many wait already, as one that is lost costs nothing but accuracy.
    fn note(&self, used: Use) {
        let session = match &used {
            Use::Session(session) => *session,
            Use::SignedGuest { user, .. } => SessionId::of_guest(*user),
        };
        let mut noted = locked(&self.0);
        if noted.len() < USES_PENDING_MAX {
            noted.entry(session).or_insert(used);
        }
    }

    /// The uses since the last call.
    pub(super) fn take(&self) -> Vec<Use> {
        std::mem::take(&mut *locked(&self.0)).into_values().collect()
    }
}

/// Why nothing could be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No connection could be made.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database says so.
    #[error("failed to read what is stored: {0}")]
    Sqlite(#[from] Fault),
}

impl From<ReadError> for Reason {
    fn from(error: ReadError) -> Self {
        log::error!("{error}");
        Self::Busy
    }
}

impl From<ReadError> for Rejection {
    fn from(error: ReadError) -> Self {
        Reason::from(error).into()
    }
}

/// One read transaction.
pub struct View<'a> {
    connection: &'a Connection,
    messages: Option<&'a Mutex<Memory>>,
    policy: Arc<PolicySnapshot>,
    moment: Moment,
}

impl Reader {
    pub(super) fn new(source: Source, policy: PublishedPolicy, clock: SharedClock, uses: Arc<Uses>) -> Self {
        Self { source, policy, clock, uses }
    }

    /// The same reader with another log time.
    #[cfg(test)]
    pub(super) fn with_clock(self, clock: SharedClock) -> Self {
        Self { clock, ..self }
    }

    /// The policy of the last commit.
    pub fn policy(&self) -> Arc<PolicySnapshot> {
        self.policy.get()
    }

    /// The times of this moment.
    pub fn moment(&self) -> Moment {
        self.clock.now()
    }

    /// Notes that a session is used. It lasts longer by that, a minute later at the latest.
    pub fn note_use(&self, used: Use) {
        self.uses.note(used);
    }

    /// For tests: the uses that wait to be stored. They are not stored then.
    #[cfg(test)]
    pub fn uses_noted(&self) -> Vec<Use> {
        self.uses.take()
    }

    /// Reads whatever one answer needs, as of one moment.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn view<T, E: From<ReadError>>(&self, read: impl FnOnce(&View<'_>) -> Result<T, E>) -> Result<T, E> {
        match &self.source {
            Source::Memory { messages, people } => {
                let people = locked(people);
                read(&self.view_of(&people, Some(messages)))
            }
            Source::Database { database, idle } => {
                let ready = locked(idle).connections.pop();
                let connection = match ready {
                    Some(connection) => connection,
                    None => database.reader().map_err(ReadError::from)?,
                };
                let transaction = connection.unchecked_transaction().map_err(ReadError::from)?;
                let answer = read(&self.view_of(&connection, None))?;
                // Nothing was written, so there is nothing to lose.
                drop(transaction);
                let mut idle = locked(idle);
                if !idle.closed && idle.connections.len() < READERS_IDLE_MAX {
                    idle.connections.push(connection);
                }
                Ok(answer)
            }
        }
    }

    fn view_of<'a>(&self, connection: &'a Connection, messages: Option<&'a Mutex<Memory>>) -> View<'a> {
        View { connection, messages, policy: self.policy(), moment: self.moment() }
    }

    /// Closes the connections that are kept. The last one of all to be closed, if it can write, leaves no WAL behind.
    pub(super) fn close(&self) {
        if let Source::Database { idle, .. } = &self.source {
            *locked(idle) = Idle { connections: Vec::new(), closed: true };
        }
    }
}

type Answer<T> = Result<T, ReadError>;

impl View<'_> {
    /// The policy of this moment.
    pub fn policy(&self) -> &PolicySnapshot {
        &self.policy
    }

    /// The times of this moment.
    pub fn moment(&self) -> &Moment {
        &self.moment
    }

    /// The rooms of which messages are kept, ordered by id, from behind `after`, `limit` at most.
    pub fn rooms(&self, after: Option<&RoomId>, limit: usize) -> Answer<Vec<KeptRoom>> {
        match self.messages {
            Some(memory) => Ok(locked(memory).rooms(after, limit)),
            None => Ok(messages::rooms(self.connection, after, limit)?),
        }
    }

    /// One such room.
    pub fn room(&self, id: &RoomId) -> Answer<Option<KeptRoom>> {
        match self.messages {
            Some(memory) => Ok(locked(memory).room(id)),
            None => Ok(messages::kept_room(self.connection, id)?),
        }
    }

    /// The last place taken in a room's order.
    pub fn head(&self, id: &RoomId) -> Answer<Seq> {
        match self.messages {
            Some(memory) => Ok(locked(memory).head(id)),
            None => Ok(messages::room(self.connection, id)?.map_or(Seq(0), |room| room.head)),
        }
    }

    /// The frames of a room on one side of a place, oldest first, `limit` at most; with words, only those messages
    /// that have them all.
    pub fn page(
        &self,
        id: &RoomId,
        side: Side,
        kinds: Kinds,
        limit: usize,
        words: Option<&str>,
    ) -> Answer<Vec<Stored>> {
        let wanted = match words.map(Wanted::parse) {
            Some(None) => return Ok(Vec::new()),
            wanted => wanted.flatten(),
        };
        if let Some(memory) = self.messages {
            return Ok(locked(memory).page(id, side, kinds, limit, wanted.as_ref()));
        }
        let Some(room) = messages::room(self.connection, id)? else { return Ok(Vec::new()) };
        let page = match &wanted {
            Some(wanted) => search::page(self.connection, room, side, limit, wanted)?,
            None => messages::page(self.connection, room, side, kinds, limit)?,
        };
        let mut json = Vec::new();
        Ok(page.iter().map(|message| message.stored(false, &mut json)).collect())
    }

    /// The place of a frame in a room, if it is kept.
    pub fn seq_of(&self, id: &RoomId, frame: FrameId) -> Answer<Option<Seq>> {
        match self.messages {
            Some(memory) => Ok(locked(memory).seq_of(id, frame)),
            None => {
                let Some(room) = messages::room(self.connection, id)? else { return Ok(None) };
                Ok(messages::seq_of(self.connection, room, frame)?)
            }
        }
    }

    /// The session of a random token, if it is valid.
    pub fn session(&self, token: TokenHash) -> Answer<Option<Session>> {
        Ok(people::session(self.connection, token, self.moment.clock_ms)?)
    }

    /// The session of a guest who has a signed token.
    pub fn stored_guest(&self, user: UserId) -> Answer<StoredGuest> {
        Ok(people::stored_guest(self.connection, user, self.moment.clock_ms)?)
    }

    /// The valid sessions of a user, the latest used first.
    pub fn sessions(&self, user: UserId) -> Answer<Vec<Session>> {
        Ok(people::sessions(self.connection, user, self.moment.clock_ms)?)
    }

    /// Whether a token is or was of a session of this user.
    pub fn was_session_of(&self, token: TokenHash, user: UserId) -> Answer<bool> {
        Ok(people::was_session_of(self.connection, token, user)?)
    }

    pub fn account(&self, id: UserId) -> Answer<Option<Account>> {
        Ok(people::by_id(self.connection, id)?)
    }

    /// The account of a name, however it is written.
    pub fn account_of_name(&self, name: &Username) -> Answer<Option<Account>> {
        Ok(people::by_name(self.connection, name)?)
    }

    /// Whether a name looks like an account's.
    pub fn is_reserved(&self, looks: &Looks) -> Answer<bool> {
        Ok(self.policy.has_accounts() && people::resembling(self.connection, looks)?.is_some())
    }

    /// The role and the name of a user, as far as they are stored.
    pub fn user(&self, id: UserId) -> Answer<Option<(Role, Option<Username>)>> {
        Ok(people::somebody(self.connection, id)?)
    }

    /// The private rooms that a user is a member of, ordered by id.
    pub fn rooms_of(&self, user: UserId) -> Answer<Vec<RoomId>> {
        Ok(people::rooms_of(self.connection, user)?)
    }

    pub fn bans(&self) -> Answer<Vec<Ban>> {
        Ok(people::bans(self.connection, self.moment.clock_ms)?)
    }

    /// The invitations that can be used, to a room or to register.
    pub fn invitations(&self, room: Option<&RoomId>) -> Answer<Vec<Invitation>> {
        Ok(people::invitations(self.connection, room, self.moment.clock_ms)?)
    }

    pub fn invitation_of_code(&self, code: TokenHash) -> Answer<Option<Invitation>> {
        Ok(people::invitation_by_code(self.connection, code, self.moment.clock_ms)?)
    }
}
