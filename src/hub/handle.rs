//! The way to the hub for requests and tools: what they propose goes through the log, and what the hub publishes is read
//! without asking it.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Sender, bounded};
use rpds::RedBlackTreeMapSync;

use crate::limits::{CHANGE_WAIT, HUB_ANSWER_WAIT};
use crate::model::reason::{Reason, Rejection};
use crate::model::{Person, RoomId};
use crate::published::Published;
use crate::store::change::{Change, Done};
use crate::store::entry::{By, NewMessage};

use super::Command;

/// The people in a room, as of the hub's last round.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoomPresence {
    /// How many people, each counted once.
    pub count: usize,
    /// The first of them, [`MEMBERS_LISTED_MAX`](crate::limits::MEMBERS_LISTED_MAX) at most.
    pub people: Vec<Arc<Person>>,
}

/// Rooms with people, by their ids.
pub(super) type Presence = RedBlackTreeMapSync<RoomId, Arc<RoomPresence>>;
/// The latest of it, for readers on other threads.
pub type PublishedPresence = Published<Presence>;

/// No people in any room.
#[must_use]
pub fn presence() -> PublishedPresence {
    Published::new(Presence::new_sync())
}

/// A message that is stored: its frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Stored(Arc<[u8]>),
    /// It was stored before.
    Duplicate(Arc<[u8]>),
}

/// What a request is told of what it proposed.
#[derive(Debug)]
pub enum Answer {
    Said(Said),
    Done(Done),
    Refused(Rejection),
}

/// See the head of this file. Cloning gives another handle.
#[derive(Debug, Clone)]
pub struct HubApi {
    commands: Sender<Command>,
    presence: PublishedPresence,
}

impl HubApi {
    #[must_use]
    pub fn new(commands: Sender<Command>, presence: PublishedPresence) -> Self {
        Self { commands, presence }
    }

    /// Proposes a message, and waits until it is stored or refused.
    ///
    /// # Errors
    /// Why it is not stored; [`Reason::OutcomeUnknown`] where that is not known.
    pub fn say(&self, message: NewMessage) -> Result<Said, Rejection> {
        match self.propose(|answer| Command::Say { message: Box::new(message), answer })? {
            Answer::Said(said) => Ok(said),
            Answer::Refused(rejection) => Err(rejection),
            Answer::Done(_) => Err(Reason::Internal.into()),
        }
    }

    /// Proposes a change, and waits until it is made or refused.
    ///
    /// # Errors
    /// Why it is not made; [`Reason::OutcomeUnknown`] where that is not known.
    pub fn change(&self, by: By, change: Change) -> Result<Done, Rejection> {
        match self.propose(|answer| Command::Change { by, change: Box::new(change), answer })? {
            Answer::Done(done) => Ok(done),
            Answer::Refused(rejection) => Err(rejection),
            Answer::Said(_) => Err(Reason::Internal.into()),
        }
    }

    fn propose(&self, command: impl FnOnce(Sender<Answer>) -> Command) -> Result<Answer, Rejection> {
        let (answer, answered) = bounded(1);
        let deadline = Instant::now() + CHANGE_WAIT;
        self.commands.send_deadline(command(answer), deadline).map_err(|_| Reason::Busy)?;
        Ok(answered.recv_deadline(deadline).map_err(|_| Reason::OutcomeUnknown)?)
    }

    /// Asks whether the hub answers at all.
    ///
    /// # Errors
    /// [`Reason::Busy`].
    pub fn ping(&self) -> Result<(), Reason> {
        let (answer, answered) = bounded(1);
        let deadline = Instant::now() + HUB_ANSWER_WAIT;
        self.commands.send_deadline(Command::Ping { answer }, deadline).map_err(|_| Reason::Busy)?;
        answered.recv_deadline(deadline).map_err(|_| Reason::Busy)
    }

    /// The people in a room; nothing where there are none.
    #[must_use]
    pub fn presence(&self, room: &RoomId) -> Option<Arc<RoomPresence>> {
        self.presence.get().get(room).cloned()
    }

    /// The rooms with people behind one, ordered by id, `count` at most of those that `fits` takes.
    #[must_use]
    pub fn present_rooms(&self, after: Option<&RoomId>, count: usize, fits: impl Fn(&RoomId) -> bool) -> Vec<RoomId> {
        use std::ops::Bound;
        let presence = self.presence.get();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rooms = presence.range((from, Bound::Unbounded)).map(|(room, _)| room);
        rooms.filter(|room| fits(room)).take(count).cloned().collect()
    }
}
