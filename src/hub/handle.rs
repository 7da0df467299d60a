//! The hub's interface for requests and tools. Messages and changes are proposed through the log. Presence is read from
//! what the hub publishes, without a command to the hub.
//!
//! Runs on the threads of requests and tools. Each wait for the hub has a deadline.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Sender, bounded};
use rpds::RedBlackTreeMapSync;

use crate::limits::{CHANGE_WAIT, HUB_ANSWER_WAIT};
use crate::model::reason::{Reason, Rejection};
use crate::model::{Person, RoomId, UserId};
use crate::published::Published;
use crate::store::change::{Change, Done};
use crate::store::entry::{By, NewMessage};

use super::{Command, Commands};

/// The people in a room, as of the hub's last round.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoomPresence {
    /// The number of people. A user with several connections counts once.
    pub count: usize,
    /// The people who joined first, at most [`MEMBERS_LISTED_MAX`](crate::limits::MEMBERS_LISTED_MAX).
    pub people: Vec<Arc<Person>>,
    /// All people, by their ids.
    pub all: PeopleById,
}

/// People by their ids. A copy shares what has not changed.
pub type PeopleById = RedBlackTreeMapSync<UserId, Arc<Person>>;

impl RoomPresence {
    /// The people whose ids follow `after`, ordered by id, `limit` at most.
    #[must_use]
    pub fn after(&self, after: Option<UserId>, limit: usize) -> Vec<Arc<Person>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.all.range((from, Bound::Unbounded)).map(|(_, person)| Arc::clone(person)).take(limit).collect()
    }
}

/// The rooms with people, by their ids.
pub(super) type Presence = RedBlackTreeMapSync<RoomId, Arc<RoomPresence>>;
/// The latest presence, for readers on other threads.
pub type PublishedPresence = Published<Presence>;

/// The initial presence: no room has people.
#[must_use]
pub fn presence() -> PublishedPresence {
    Published::new(Presence::new_sync())
}

/// The frame of a stored message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    Stored(Arc<[u8]>),
    /// It was already stored before.
    Duplicate(Arc<[u8]>),
}

/// The answer to the message or change of a request.
#[derive(Debug)]
pub enum Answer {
    Sent(Sent),
    Done(Done),
    Refused(Rejection),
}

/// The interface for requests and tools. A clone uses the same hub.
#[derive(Debug, Clone)]
pub struct HubApi {
    commands: Commands,
    presence: PublishedPresence,
}

impl HubApi {
    #[must_use]
    pub fn new(commands: Commands, presence: PublishedPresence) -> Self {
        Self { commands, presence }
    }

    /// Proposes a message, and waits until it is stored or refused. `makes_room` says that its room does not exist.
    ///
    /// # Errors
    /// The reason why it is not stored; [`Reason::OutcomeUnknown`] if that is not known.
    pub fn send_message(&self, message: NewMessage, makes_room: bool) -> Result<Sent, Rejection> {
        match self.propose(|answer| Command::SendMessage { message: Box::new(message), makes_room, answer })? {
            Answer::Sent(sent) => Ok(sent),
            Answer::Refused(rejection) => Err(rejection),
            Answer::Done(_) => Err(Reason::Internal.into()),
        }
    }

    /// Proposes a change, and waits until it is made or refused.
    ///
    /// # Errors
    /// The reason why it is not made; [`Reason::OutcomeUnknown`] if that is not known.
    pub fn change(&self, by: By, change: Change) -> Result<Done, Rejection> {
        match self.propose(|answer| Command::Change { by, change: Box::new(change), answer })? {
            Answer::Done(done) => Ok(done),
            Answer::Refused(rejection) => Err(rejection),
            Answer::Sent(_) => Err(Reason::Internal.into()),
        }
    }

    fn propose(&self, command: impl FnOnce(Sender<Answer>) -> Command) -> Result<Answer, Rejection> {
        let (answer, answered) = bounded(1);
        let deadline = Instant::now() + CHANGE_WAIT;
        self.commands.send_deadline(command(answer), deadline).map_err(|_| Reason::Busy)?;
        Ok(answered.recv_deadline(deadline).map_err(|_| Reason::OutcomeUnknown)?)
    }

    /// A health check: waits until the hub answers.
    ///
    /// # Errors
    /// [`Reason::Busy`] if it does not answer in time.
    pub fn ping(&self) -> Result<(), Reason> {
        let (answer, answered) = bounded(1);
        let deadline = Instant::now() + HUB_ANSWER_WAIT;
        self.commands.send_deadline(Command::Ping { answer }, deadline).map_err(|_| Reason::Busy)?;
        answered.recv_deadline(deadline).map_err(|_| Reason::Busy)
    }

    /// The people in a room; `None` if there are no people in it.
    #[must_use]
    pub fn presence(&self, room: &RoomId) -> Option<Arc<RoomPresence>> {
        self.presence.get().get(room).cloned()
    }

    /// The rooms with people after a given room, ordered by id. Only rooms that `fits` accepts are listed, at most
    /// `count`.
    #[must_use]
    pub fn present_rooms(&self, after: Option<&RoomId>, count: usize, fits: impl Fn(&RoomId) -> bool) -> Vec<RoomId> {
        let presence = self.presence.get();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rooms = presence.range((from, Bound::Unbounded)).map(|(room, _)| room);
        rooms.filter(|room| fits(room)).take(count).cloned().collect()
    }
}
