//! The basic types of the chat: ids, names and sequence numbers.
//!
//! A value of these types is valid. Input from outside is converted only by `parse`, which normalises it (NFC, trimmed)
//! and refuses characters that a name must not have. Stored values were valid under the rules of their time, and are
//! not checked again. No function here does I/O, except that [`Timestamp::now`] reads the clock.

mod ids;
mod names;
pub mod reason;
pub mod role;
mod time;

use serde::{Deserialize, Serialize};

pub(crate) use ids::FrameIds;
pub use ids::{ConnectionId, FrameId, Seq, UserId};
pub use names::{NameError, Nonce, ROOM_DEFAULT, RoomId, USERNAME_DEFAULT, Username, shows_nothing, visible_line};
use role::Role;
pub use time::Timestamp;

/// A user as lists of people show it. Permission checks use the policy's role, not this one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Person {
    pub id: UserId,
    pub username: Username,
    pub role: Role,
    /// Whether its client is a program with a token of its own.
    #[serde(rename = "bot")]
    pub is_bot: bool,
}

impl Person {
    #[must_use]
    pub fn guest(id: UserId, username: Username) -> Self {
        Self { id, username, role: Role::Guest, is_bot: false }
    }

    /// The user as a frame names it.
    #[must_use]
    pub fn author(&self) -> Author<'_> {
        Author { id: self.id, username: &self.username }
    }
}

/// A user as a frame names it.
#[derive(Debug, Clone, Copy)]
pub struct Author<'a> {
    pub id: UserId,
    pub username: &'a Username,
}
