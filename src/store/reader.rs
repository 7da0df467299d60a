//! Reads from the store, on connections of their own and on any thread. Reads never pass through the hub, and reads of
//! a file never wait for the writer.
//!
//! A [`View`] is one read transaction, with the policy and the log time of its beginning. One answer is read through
//! one view.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::auth::name::Skeletons;
use crate::auth::permission::RegistrationCode;
use crate::limits::USES_PENDING_MAX;
use crate::model::reason::{Reason, Rejection};
use crate::model::role::Role;
use crate::model::{FrameId, RoomId, Seq, UserId, Username};

use super::change::Use;
use super::log::clock::{Moment, SharedClock};
use super::memory::{self, Memory};
use super::message::Message;
use super::policy::{PolicySnapshot, PublishedPolicy};
use super::sqlite::people::{self, Account, AuditEntry, AuditId, Ban, Invitation, Session, SessionId, StoredGuest};
use super::sqlite::schema::{Database, OpenError};
use super::sqlite::{Connection, Fault, messages, search};
use super::terms::Terms;
use super::{KeptRoom, Kinds, PageLimit, Part, Place, Stored, TokenHash, locked};

/// Idle connections that are kept for later readers, at most.
const READERS_IDLE_MAX: usize = 4;

/// A handle to read with. Clones share the connections.
#[derive(Debug, Clone)]
pub struct Reader {
    source: Source,
    policy: PublishedPolicy,
    clock: SharedClock,
    uses: Arc<Uses>,
}

/// The storage that a reader reads.
#[derive(Debug, Clone)]
pub enum Source {
    /// Connections are opened on demand and kept in `idle` for later readers.
    Database { database: Arc<Database>, idle: Arc<Mutex<Idle>> },
    /// The store's thread holds both locks for a batch. A view holds the lock of `people`.
    Memory { messages: Arc<Mutex<Memory>>, people: Arc<Mutex<Connection>> },
}

/// Connections for later readers.
#[derive(Debug, Default)]
pub struct Idle {
    connections: Vec<Connection>,
    /// Whether no more connections are kept, as the store has ended.
    closed: bool,
}

/// Uses of sessions since the store last took them, one per session.
#[derive(Debug, Default)]
pub struct Uses(Mutex<BTreeMap<SessionId, Use>>);

impl Uses {
    /// Notes a use, unless too many are pending. A lost use costs only accuracy.
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

    /// Takes the uses since the last call.
    pub(super) fn take(&self) -> Vec<Use> {
        std::mem::take(&mut *locked(&self.0)).into_values().collect()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("failed to read the database: {0}")]
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

/// The result of a search.
#[derive(Debug, Default)]
pub struct Found {
    /// The messages that were found, oldest first.
    pub frames: Vec<Stored>,
    /// The last message that was read, if the deadline came before the end.
    pub stopped_at: Option<FrameId>,
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

    /// The current times.
    pub fn moment(&self) -> Moment {
        self.clock.now()
    }

    /// Why nothing is stored, if the files of the database are lost.
    pub fn loss(&self) -> Option<String> {
        match &self.source {
            Source::Database { database, .. } => database.loss().map(|loss| loss.to_string()),
            Source::Memory { .. } => None,
        }
    }

    /// Notes a use of a session. The session is extended within a minute.
    pub fn note_use(&self, used: Use) {
        self.uses.note(used);
    }

    /// For tests: takes the uses that are not stored yet. The store then never stores them.
    #[cfg(test)]
    pub fn uses_noted(&self) -> Vec<Use> {
        self.uses.take()
    }

    /// Runs all reads of one answer in one transaction.
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
                let answer = read(&self.view_of(&connection, None));
                // Nothing was written, so the rollback loses nothing.
                drop(transaction);
                let mut idle = locked(idle);
                if !idle.closed && idle.connections.len() < READERS_IDLE_MAX {
                    idle.connections.push(connection);
                }
                answer
            }
        }
    }

    /// Searches the messages of a room, on the side that `begin` returns. Ends at the deadline, but some messages are
    /// read in any case. In a file, `begin` and the search read the same transaction. In memory, the search holds no
    /// lock.
    ///
    /// # Errors
    /// [`ReadError`], or the error of `begin`.
    pub fn search<E: From<ReadError>>(
        &self,
        room: &RoomId,
        terms: &Terms,
        limit: usize,
        deadline: Instant,
        begin: impl FnOnce(&View<'_>) -> Result<Part, E>,
    ) -> Result<Found, E> {
        if terms.is_empty() {
            return self.view(begin).map(|_| Found::default());
        }
        if let Source::Memory { messages, .. } = &self.source {
            let Part { side, floor } = self.view(begin)?;
            let fits = |stored: &Stored| stored.seq > floor && memory::has_terms(stored, terms);
            let (frames, stopped_at) = memory::page(messages, room, side, limit.into(), Some(deadline), fits);
            return Ok(Found { frames, stopped_at });
        }
        self.view(|view| {
            let Part { side, floor } = begin(view)?;
            let search = || -> Answer<Found> {
                let Some(row) = messages::room(view.connection, room)? else { return Ok(Found::default()) };
                let row = row.above(floor);
                let (found, stopped_at) = search::page(view.connection, row, side, limit, terms, deadline)?;
                Ok(Found { frames: stored(&found), stopped_at })
            };
            Ok(search()?)
        })
    }

    fn view_of<'a>(&self, connection: &'a Connection, messages: Option<&'a Mutex<Memory>>) -> View<'a> {
        View { connection, messages, policy: self.policy(), moment: self.moment() }
    }

    /// Closes the idle connections. If the last connection of all can write, closing it removes the WAL.
    pub(super) fn close(&self) {
        if let Source::Database { idle, .. } = &self.source {
            *locked(idle) = Idle { connections: Vec::new(), closed: true };
        }
    }
}

type Answer<T> = Result<T, ReadError>;

fn stored(messages: &[Message]) -> Vec<Stored> {
    let mut json = Vec::new();
    messages.iter().map(|message| message.stored(false, &mut json)).collect()
}

impl View<'_> {
    /// The policy at the beginning of this view.
    pub fn policy(&self) -> &PolicySnapshot {
        &self.policy
    }

    /// The times at the beginning of this view.
    pub fn moment(&self) -> &Moment {
        &self.moment
    }

    /// The rooms with kept frames whose ids follow `after`, ordered by id, `limit` at most.
    pub fn rooms(&self, after: Option<&RoomId>, limit: usize) -> Answer<Vec<KeptRoom>> {
        match self.messages {
            Some(memory) => Ok(locked(memory).rooms(after, limit)),
            None => Ok(messages::rooms(self.connection, after, limit)?),
        }
    }

    /// All rooms of which frames are kept, each with its last frame, in no particular order.
    pub fn active_rooms(&self) -> Answer<Vec<(KeptRoom, FrameId)>> {
        match self.messages {
            Some(memory) => Ok(locked(memory).active_rooms()),
            None => Ok(messages::active_rooms(self.connection)?),
        }
    }

    /// A room, if frames of it are kept.
    pub fn room(&self, id: &RoomId) -> Answer<Option<KeptRoom>> {
        match self.messages {
            Some(memory) => Ok(locked(memory).room(id)),
            None => Ok(messages::kept_room(self.connection, id)?),
        }
    }

    /// The highest seq assigned in a room.
    pub fn head(&self, id: &RoomId) -> Answer<Seq> {
        match self.messages {
            Some(memory) => Ok(locked(memory).head(id)),
            None => Ok(messages::room(self.connection, id)?.map_or(Seq(0), |room| room.head)),
        }
    }

    /// The frames of a part of a room, oldest first.
    pub fn page(
        &self,
        id: &RoomId,
        part: impl Into<Part>,
        kinds: Kinds,
        limit: impl Into<PageLimit>,
    ) -> Answer<Vec<Stored>> {
        let (Part { side, floor }, limit) = (part.into(), limit.into());
        if let Some(memory) = self.messages {
            let fits = |stored: &Stored| stored.seq > floor && (kinds == Kinds::All || !stored.is_event);
            return Ok(memory::page(memory, id, side, limit, None, fits).0);
        }
        let Some(room) = messages::room(self.connection, id)? else { return Ok(Vec::new()) };
        Ok(messages::page(self.connection, room.above(floor), side, kinds, limit)?)
    }

    /// The seq of a frame in a room, if it is kept.
    pub fn seq_of(&self, id: &RoomId, frame: FrameId) -> Answer<Option<Seq>> {
        match self.messages {
            Some(memory) => Ok(locked(memory).seq_of(id, frame)),
            None => {
                let Some(room) = messages::room(self.connection, id)? else { return Ok(None) };
                Ok(messages::seq_of(self.connection, room, frame)?)
            }
        }
    }

    /// Where a frame id stands in a room. Ids increase with the seq, so an id tells that its frame is forgotten.
    /// What is not above the reader's floor counts as forgotten.
    pub fn place(&self, id: &RoomId, frame: FrameId, floor: Seq) -> Answer<Place> {
        if let Some(seq) = self.seq_of(id, frame)?.filter(|seq| *seq > floor) {
            return Ok(Place::At(seq));
        }
        let oldest = match self.messages {
            Some(memory) => locked(memory).oldest_id(id, floor),
            None => match messages::room(self.connection, id)? {
                Some(room) => messages::oldest_id(self.connection, room.above(floor))?,
                None => None,
            },
        };
        let is_old = match oldest {
            Some(oldest) => frame < oldest,
            // The room keeps nothing, so whatever it had is forgotten.
            None => frame.unix_ms() <= self.moment.clock_ms,
        };
        Ok(if frame.is_ordered() && is_old { Place::Forgotten } else { Place::Unknown })
    }

    /// The session of a random token, if it is valid.
    pub fn session(&self, token: TokenHash) -> Answer<Option<Session>> {
        Ok(people::session(self.connection, token, self.moment.clock_ms)?)
    }

    /// The state of the session of a guest with a signed token.
    pub fn stored_guest(&self, user: UserId) -> Answer<StoredGuest> {
        Ok(people::stored_guest(self.connection, user, self.moment.clock_ms)?)
    }

    /// The valid sessions of a user, the most recently used first.
    pub fn sessions(&self, user: UserId) -> Answer<Vec<Session>> {
        Ok(people::sessions(self.connection, user, self.moment.clock_ms)?)
    }

    /// Whether a token belongs or belonged to a session of this user.
    pub fn was_session_of(&self, token: TokenHash, user: UserId) -> Answer<bool> {
        Ok(people::was_session_of(self.connection, token, user)?)
    }

    pub fn account(&self, id: UserId) -> Answer<Option<Account>> {
        Ok(people::by_id(self.connection, id)?)
    }

    /// The account with a name, in any spelling.
    pub fn account_of_name(&self, name: &Username) -> Answer<Option<Account>> {
        Ok(people::by_name(self.connection, name)?)
    }

    /// Whether a name looks like the name of an account.
    pub fn is_reserved(&self, skeletons: &Skeletons) -> Answer<bool> {
        Ok(self.policy.has_accounts() && people::resembling(self.connection, skeletons)?.is_some())
    }

    /// The role and the name of a user, as far as they are stored.
    pub fn user(&self, id: UserId) -> Answer<Option<(Role, Option<Username>)>> {
        if let Some(known) = people::find_user(self.connection, id)? {
            return Ok(Some(known));
        }
        let name = match self.messages {
            Some(memory) => locked(memory).author_name(id),
            None => messages::author_name(self.connection, id)?,
        };
        Ok(name.map(|name| (Role::Guest, Some(name))))
    }

    /// The private rooms that a user is a member of, ordered by id.
    pub fn rooms_of(&self, user: UserId) -> Answer<Vec<RoomId>> {
        Ok(people::rooms_of(self.connection, user)?)
    }

    pub fn bans(&self) -> Answer<Vec<Ban>> {
        Ok(people::bans(self.connection, self.moment.clock_ms)?)
    }

    /// The invitations that can still be used: to a room, or to register for `None`.
    pub fn invitations(&self, room: Option<&RoomId>) -> Answer<Vec<Invitation>> {
        Ok(people::invitations(self.connection, room, self.moment.clock_ms)?)
    }

    /// The latest entries of the audit log before one, or the latest of all, `limit` at most. The newest comes first.
    pub fn audit_entries(&self, before: Option<AuditId>, limit: usize) -> Answer<Vec<AuditEntry>> {
        Ok(people::audit_entries(self.connection, before, limit)?)
    }

    /// Looks up a code that a client shows in order to register.
    pub fn registration_code(&self, code: TokenHash) -> Answer<RegistrationCode> {
        Ok(people::registration_code(self.connection, code, self.moment.clock_ms)?)
    }
}
