//! Entries of the log and what becomes of them.
//!
//! Every change of durable or shared state is an [`Entry`]. The proposer puts into it what only the proposer knows: ids,
//! hashes, names' skeletons, addresses. What is decided, is decided when the entry is applied, and comes back as an
//! [`Applied`] in the same order.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::auth::name::Looks;
use crate::model::reason::Rejection;
use crate::model::{ConnectionId, FrameId, Nonce, Person, RoomId, Seq, UserId};
use crate::protocol::{After, Body, FrameType};

use super::accounts::{RoomSettings, SessionId};
use super::change::{Change, Done};

/// An entry on its way into the log, with the address for the result.
#[derive(Debug)]
pub struct Proposal {
    pub entry: Entry,
    pub reply_to: ReplyTo,
}

impl Proposal {
    /// An entry whose result only the hub needs.
    #[must_use]
    pub fn unanswered(entry: Entry) -> Self {
        Self { entry, reply_to: ReplyTo::Nobody }
    }
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Entry {
    /// A message for one room.
    Message(NewMessage),
    /// A message for several rooms: it is stored in all of them or in none. The first one has the nonce.
    Announcement { rooms: Vec<RoomId>, message: NewMessage },
    /// A connection enters a room. Nothing is stored.
    Join(Join),
    /// A connection leaves a room, also one whose join was refused. Nothing is stored.
    Leave { room: RoomId, user: UserId, connection: ConnectionId },
    /// Everything else.
    Change { by: By, change: Box<Change> },
}

/// Who proposes a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum By {
    /// The operator, by the command line. Nothing is refused for want of permission.
    Operator,
    /// The server itself.
    Server,
    /// A client.
    Client(Arc<Principal>),
}

impl By {
    /// The client's user; nil for the operator and the server.
    #[must_use]
    pub fn user(&self) -> UserId {
        match self {
            Self::Operator | Self::Server => UserId(Uuid::nil()),
            Self::Client(by) => by.user(),
        }
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator => f.write_str("the operator"),
            Self::Server => f.write_str("the server"),
            Self::Client(by) => by.user().fmt(f),
        }
    }
}

/// A client as the proposer authenticated it. `apply` checks it against the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    pub person: Arc<Person>,
    pub proof: Proof,
    /// The client's network, as addresses are counted.
    pub network: IpAddr,
}

/// By what a client is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proof {
    /// By nothing: a poster without a token.
    None,
    /// A guest by a session that is stored.
    Guest(SessionId),
    /// A guest by a signed token, which is valid without a stored session.
    SignedGuest { issued_ms: u64 },
    /// An account by a login or a bot's token.
    Account(SessionId),
}

impl Principal {
    #[must_use]
    pub fn user(&self) -> UserId {
        self.person.id
    }

    #[must_use]
    pub fn is_guest(&self) -> bool {
        !matches!(self.proof, Proof::Account(_))
    }

    /// The session that is to be valid; none for a poster without a token.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        match self.proof {
            Proof::None => None,
            Proof::Guest(session) | Proof::Account(session) => Some(session),
            Proof::SignedGuest { .. } => Some(SessionId::of_guest(self.person.id)),
        }
    }
}

/// A message that has no place yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewMessage {
    pub room: RoomId,
    pub author: Arc<Principal>,
    pub body: Body,
    pub nonce: Option<Nonce>,
    /// Whether the author sends as a member of the room, and so must not have been kicked.
    pub is_member: bool,
    /// Why it is not to be stored, if it was not stored before: what only the proposer knows.
    pub unless_stored: Option<Box<Rejection>>,
}

/// A connection that enters a room.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Join {
    pub room: RoomId,
    pub connection: ConnectionId,
    pub principal: Arc<Principal>,
    /// What a guest's name looks like, where accounts have names to protect.
    pub looks: Option<Looks>,
    /// Where the room's order stands as the hub knows it; nothing where the hub needs the room's past.
    pub known: Option<Seq>,
    /// The last frame that the client has seen.
    pub after: Option<After>,
}

/// For whom a result is. It stays in the process that proposed the entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyTo {
    /// A member, by its key, that enters or leaves.
    Member(usize),
    /// A connection, which may be gone by then.
    Connection(ConnectionId),
    /// A connection that is not in the room, and so needs its own copy of what is stored there.
    Outsider(ConnectionId),
    /// A connection's command, which is answered by a frame of its own type.
    Command(Box<CommandReply>),
    /// A request, by its number.
    Request(u64),
    Nobody,
}

/// What the answer to a command bears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandReply {
    pub connection: ConnectionId,
    pub room: RoomId,
    pub nonce: Option<Nonce>,
    pub kind: FrameType,
}

/// What became of an entry.
#[derive(Debug, Clone)]
pub struct Applied {
    pub result: Outcome,
    pub reply_to: ReplyTo,
}

/// See [`Applied`].
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// A message is stored, and perhaps it changed another one.
    Stored { room: RoomId, stored: Stored, changed: Option<Stored> },
    /// The message was stored before: its frame, for its author alone.
    Duplicate(Stored),
    /// Nothing is stored or changed.
    Refused { room: Option<RoomId>, rejection: Rejection, nonce: Option<Nonce> },
    /// A connection is in the room from this place of the order on.
    Joined { room: RoomId, past: Option<Past>, seen: Option<Seq> },
    /// A connection may not enter.
    JoinRefused { room: RoomId, rejection: Rejection },
    /// A connection is not in the room any more.
    Left { room: RoomId },
    /// A change is made.
    Changed { done: Done, events: Vec<Event> },
}

/// What a change means for open connections.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Sessions have ended, and with them the connections that use them.
    SessionsEnded { user: UserId, sessions: Vec<SessionId> },
    /// The user is banned, or the account is removed.
    UserEnded(UserId),
    /// The guests of a network are banned.
    GuestsBanned(IpAddr),
    /// A user is kicked out of a room.
    Kicked { room: RoomId, user: UserId },
    /// A user is muted, or not any more.
    Muted { user: UserId },
    /// The settings of a room are changed.
    RoomChanged { room: RoomId, settings: RoomSettings, by: Person },
    /// What is at or before this place of a room's order is not kept any more.
    Forgotten { room: RoomId, up_to: Seq },
}

/// A stored frame as members get it. Cloning shares the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub id: FrameId,
    pub seq: Seq,
    /// Whether it is an event, such as a `delete`, and no message.
    pub is_event: bool,
    pub json: Arc<[u8]>,
}

/// What is kept of a room, at a moment of its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Past {
    /// The last place taken.
    pub head: Seq,
    /// The latest messages, oldest first, [`HISTORY_MAX`](crate::limits::HISTORY_MAX) at most, and all events between
    /// and behind them.
    pub frames: Vec<Stored>,
    /// Whether that is all that is kept.
    pub is_whole: bool,
}
