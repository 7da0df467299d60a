//! The hub: one thread that owns rooms, members and every outbox.

use crossbeam_channel::Sender;
use serde::Serialize;

use crate::model::{RoomId, Seq};
use crate::protocol::Person;

/// What the hub is asked or told.
pub enum Command {}

/// A way to ask the hub, for the handlers of REST.
#[derive(Clone)]
pub struct Handle {
    #[expect(dead_code)]
    commands: Sender<Command>,
}

/// The hub did not answer within [`HUB_ANSWER_WAIT`](crate::limits::HUB_ANSWER_WAIT).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server is busy")]
pub struct Busy;

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

impl Handle {
    /// The rooms that have members or kept messages, ordered by id, from behind `after`, `limit` at most.
    ///
    /// # Errors
    /// [`Busy`] where the hub has no time for it.
    pub fn rooms(&self, after: Option<&RoomId>, limit: usize) -> Result<Vec<RoomSummary>, Busy> {
        let _ = (after, limit);
        Err(Busy)
    }

    /// One room, or `None` where there is none by that id.
    ///
    /// # Errors
    /// [`Busy`] where the hub has no time for it.
    pub fn room(&self, id: &RoomId) -> Result<Option<RoomDetail>, Busy> {
        let _ = id;
        Err(Busy)
    }
}
