//! The way to the hub and to what is kept for whoever has no connection: questions, messages, orders.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Instant;

use crossbeam_channel::{Sender, bounded};
use serde::Serialize;

use crate::limits::HUB_ANSWER_WAIT;
use crate::model::{FrameId, Nonce, Person, RoomId, Seq, UserId};
use crate::protocol::Body;
use crate::role::Role;
use crate::store::accounts::SessionKey;
use crate::store::{ReadError, Reader, Side, Stored};

use super::{Command, Order, Outcome};

/// What is asked of the hub and the store by those who have no connection: the hub knows who is there, the store what is
/// kept.
pub trait Directory: Send + Sync + 'static {
    /// The rooms that have members or kept messages, ordered by id, from behind `after`, `limit` at most.
    ///
    /// # Errors
    /// [`Busy`] where the hub has no time for it.
    fn rooms(&self, after: Option<&RoomId>, limit: usize) -> Result<Vec<RoomSummary>, Busy>;

    /// One room, or `None` where there is none by that id.
    ///
    /// # Errors
    /// [`Busy`] where the hub has no time for it.
    fn room(&self, id: &RoomId) -> Result<Option<RoomDetail>, Busy>;

    /// A page of a room's stored frames, oldest first, and whether there are more in that direction; `None` where there
    /// is no such room. With words, only those frames that have them all.
    ///
    /// # Errors
    /// [`HistoryError`].
    fn messages(
        &self,
        id: &RoomId,
        from: HistoryFrom,
        limit: usize,
        words: Option<&str>,
    ) -> Result<Option<(Vec<Stored>, bool)>, HistoryError>;

    /// Says something for somebody who is not there.
    ///
    /// # Errors
    /// [`Busy`] where the hub has no time for it. Then it is not known whether the message is stored.
    fn post(&self, post: Post) -> Result<Outcome, Busy>;

    /// Makes a change, which is stored already, hold at once for those who are here.
    ///
    /// # Errors
    /// [`Busy`] where the hub has no time for it: then it holds from their next coming on.
    fn order(&self, order: Order) -> Result<(), Busy>;

    /// Where somebody's open connections come from, as addresses are counted.
    ///
    /// # Errors
    /// [`Busy`] where the hub has no time for it.
    fn networks_of(&self, user: UserId) -> Result<Vec<IpAddr>, Busy>;
}

/// A line of the listing of rooms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RoomSummary {
    /// The room's id.
    pub id: RoomId,
    /// What it is called.
    pub name: String,
    /// Members now.
    pub client_count: usize,
    /// The last place taken in its order.
    pub seq: Seq,
}

/// One room, with who is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RoomDetail {
    /// What the listing says of it.
    #[serde(flatten)]
    pub summary: RoomSummary,
    /// Who is in it, [`MEMBERS_LISTED_MAX`](crate::limits::MEMBERS_LISTED_MAX) at most.
    pub clients: Vec<Person>,
}

/// Who is here by a session, and who is muted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roll {
    /// By which sessions, and what they may do.
    pub sessions: HashMap<SessionKey, Known>,
    /// Who is muted, here or not.
    pub muted: Vec<UserId>,
}

/// Somebody who is here by a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Who.
    pub user: UserId,
    /// What they may do.
    pub role: Role,
}

/// The hub did not answer within [`HUB_ANSWER_WAIT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server is busy")]
pub struct Busy;

/// A message that comes over HTTP.
#[derive(Debug)]
pub struct Post {
    /// Where; of no meaning to what is for all rooms.
    pub room: RoomId,
    /// By whom.
    pub author: Person,
    /// What they may do.
    pub role: Role,
    /// What.
    pub body: Body,
    /// The client's own mark on it.
    pub nonce: Option<Nonce>,
}

/// Where a page of history begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryFrom {
    /// At the end, going back.
    Latest,
    /// Before a frame, going back.
    Before(FrameId),
    /// After a frame, going on.
    After(FrameId),
}

/// Why there is no page of history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// The frame that it was to begin at is not kept.
    #[error("there is no message by that id in this room")]
    Unknown,
    /// No time.
    #[error(transparent)]
    Busy(#[from] Busy),
}

/// See the head of this file.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: Sender<Command>,
    kept: Reader,
}

impl Handle {
    /// A handle that sends to `commands` and reads from the store.
    #[must_use]
    pub fn new(commands: Sender<Command>, kept: Reader) -> Self {
        Self { commands, kept }
    }

    /// Who is here.
    ///
    /// # Errors
    /// [`Busy`] where the hub has no time for it.
    pub fn roll(&self) -> Result<Roll, Busy> {
        self.ask(|answer| Command::CallRoll { answer })
    }

    fn read<T>(&self, answer: Result<T, ReadError>) -> Result<T, Busy> {
        answer.map_err(|error| {
            log::error!("{error}");
            Busy
        })
    }

    fn ask<T>(&self, question: impl FnOnce(Sender<T>) -> Command) -> Result<T, Busy> {
        let (answer, answered) = bounded(1);
        let deadline = Instant::now() + HUB_ANSWER_WAIT;
        self.commands.send_deadline(question(answer), deadline).map_err(|_| Busy)?;
        answered.recv_deadline(deadline).map_err(|_| Busy)
    }
}

impl Directory for Handle {
    fn rooms(&self, after: Option<&RoomId>, limit: usize) -> Result<Vec<RoomSummary>, Busy> {
        let mut rooms = self.ask(|answer| Command::ListRooms { after: after.cloned(), limit, answer })?;
        let kept = self.read(self.kept.rooms(after, limit))?;
        let live: HashSet<_> = rooms.iter().map(|room| room.id.clone()).collect();
        rooms.extend(kept.into_iter().filter(|room| !live.contains(&room.id)).map(|room| deserted(room.id, room.head)));
        rooms.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        rooms.truncate(limit);
        Ok(rooms)
    }

    fn room(&self, id: &RoomId) -> Result<Option<RoomDetail>, Busy> {
        if let Some(room) = self.ask(|answer| Command::ShowRoom { id: id.clone(), answer })? {
            return Ok(Some(room));
        }
        let kept = self.read(self.kept.room(id))?;
        Ok(kept.map(|room| RoomDetail { summary: deserted(room.id, room.head), clients: Vec::new() }))
    }

    fn messages(
        &self,
        id: &RoomId,
        from: HistoryFrom,
        limit: usize,
        words: Option<&str>,
    ) -> Result<Option<(Vec<Stored>, bool)>, HistoryError> {
        if self.room(id)?.is_none() {
            return Ok(None);
        }
        let place = |frame| match self.read(self.kept.seq_of(id, frame))? {
            Some(seq) => Ok(seq),
            None => Err(HistoryError::Unknown),
        };
        let side = match from {
            HistoryFrom::Latest => Side::Before(Seq(u64::MAX)),
            HistoryFrom::Before(frame) => Side::Before(place(frame)?),
            HistoryFrom::After(frame) => Side::After(place(frame)?),
        };
        // One more than is shown tells whether there is more.
        let mut frames = self.read(self.kept.page(id, side, limit + 1, words))?;
        let has_more = frames.len() > limit;
        if has_more {
            match side {
                Side::Before(_) => drop(frames.remove(0)),
                Side::After(_) => frames.truncate(limit),
            }
        }
        Ok(Some((frames, has_more)))
    }

    fn order(&self, order: Order) -> Result<(), Busy> {
        self.commands.send_deadline(Command::Order(order), Instant::now() + HUB_ANSWER_WAIT).map_err(|_| Busy)
    }

    fn post(&self, post: Post) -> Result<Outcome, Busy> {
        self.ask(|answer| Command::Post { post: Box::new(post), answer })
    }

    fn networks_of(&self, user: UserId) -> Result<Vec<IpAddr>, Busy> {
        self.ask(|answer| Command::NetworksOf { user, answer })
    }
}

/// A room of which messages are kept, and nobody is in it.
fn deserted(id: RoomId, seq: Seq) -> RoomSummary {
    RoomSummary { name: id.to_string(), id, client_count: 0, seq }
}
