//! Entries of the log and their results.
//!
//! Every change of durable or shared state is an [`Entry`]. The proposer adds what only the proposer knows: ids,
//! hashes, skeletons of names, addresses. All decisions are made when the entry is applied. The results are
//! [`Applied`], in the same order.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::auth::name::Skeletons;
use crate::model::reason::Rejection;
use crate::model::role::Role;
use crate::model::{Author, ConnectionId, FrameId, Nonce, Person, RoomId, Seq, UserId, Username};
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
        Self { entry, reply_to: ReplyTo::None }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Entry {
    /// A message to one room.
    Message(NewMessage),
    /// A message to several rooms. It is stored in all of them or in none. Only the first copy has the nonce.
    Announcement { rooms: Vec<RoomId>, message: NewMessage },
    /// A connection joins a room. Nothing is stored.
    Join(Join),
    /// A connection leaves a room. Its join may have been refused. Nothing is stored.
    Leave { room: RoomId, user: UserId, connection: ConnectionId },
    /// Any other change.
    Change { by: By, change: Box<Change> },
}

/// The proposer of a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum By {
    /// The operator, by the command line. No permission is needed.
    Operator,
    Server,
    Client(Arc<Principal>),
}

impl By {
    /// The client's user.
    #[must_use]
    pub fn author(&self) -> Option<Author<'_>> {
        match self {
            Self::Operator | Self::Server => None,
            Self::Client(by) => Some(by.person.author()),
        }
    }

    /// The client's user; the nil id for the operator and the server.
    #[must_use]
    pub fn user(&self) -> UserId {
        self.author().map_or(UserId(Uuid::nil()), |author| author.id)
    }
}

/// A client as the proposer authenticated it. The ledger checks it against the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    pub person: Arc<Person>,
    pub proof: Proof,
    /// The client's address, or its IPv6 network, as limits and bans count it.
    pub network: IpAddr,
}

/// How a client is authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proof {
    /// Without proof: a client that posts without a token.
    None,
    /// A guest, by a stored session.
    Guest(SessionId),
    /// A guest, by a signed token. It is valid without a stored session.
    SignedGuest { issued_ms: u64 },
    /// An account, by a login or a bot's token.
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

    /// The session that must be valid; `None` for a client without a token.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        match self.proof {
            Proof::None => None,
            Proof::Guest(session) | Proof::Account(session) => Some(session),
            Proof::SignedGuest { .. } => Some(SessionId::of_guest(self.person.id)),
        }
    }
}

/// A message without a seq.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewMessage {
    pub room: RoomId,
    pub author: Arc<Principal>,
    pub body: Body,
    pub nonce: Option<Nonce>,
    /// Whether the author sends as a member of the room. A kicked member is refused.
    pub is_member: bool,
    /// Why the message is refused unless it is a retry. Only the proposer knows this reason.
    pub unless_stored: Option<Box<Rejection>>,
}

impl NewMessage {
    /// A message of a request. Its author need not be in the room.
    #[must_use]
    pub fn of_request(room: RoomId, author: Arc<Principal>, body: Body, nonce: Option<Nonce>) -> Self {
        Self { room, author, body, nonce, is_member: false, unless_stored: None }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Join {
    pub room: RoomId,
    pub connection: ConnectionId,
    pub principal: Arc<Principal>,
    /// The skeletons of a guest's name, if accounts have names to protect.
    pub skeletons: Option<Skeletons>,
    /// The head of the room as the hub knows it; `None` if the hub needs the room's past.
    pub known: Option<Seq>,
    /// The last frame that the client has seen.
    pub after: Option<After>,
}

/// The recipient of a result. It stays in the process that proposed the entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyTo {
    /// A joining or leaving member, by its key.
    Member(usize),
    /// A connection, which may be closed by then.
    Connection(ConnectionId),
    /// A connection outside the room. It needs its own copy of what is stored there.
    Outsider(ConnectionId),
    /// A command of a connection. Its reply is a frame of its own type.
    Command(Box<CommandReply>),
    /// A request, by its number.
    Request(u64),
    None,
}

/// What the reply to a command contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandReply {
    pub connection: ConnectionId,
    pub room: RoomId,
    pub nonce: Option<Nonce>,
    pub kind: FrameType,
}

/// The result of an entry, and its recipient.
#[derive(Debug, Clone)]
pub struct Applied {
    pub result: Outcome,
    pub reply_to: ReplyTo,
}

/// The result of an entry.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// A message is stored. `changed` is the message that it changed, if any.
    Stored { room: RoomId, stored: Stored, changed: Option<Stored> },
    /// The message was stored before. Only its author gets the frame.
    Duplicate(Stored),
    /// Nothing is stored or changed.
    Refused { room: Option<RoomId>, rejection: Rejection, nonce: Option<Nonce> },
    /// The connection is in the room. `past` is there if the hub asked for it, and `username` if the user has another name
    /// than the connection joined with. The events come before the join.
    Joined { room: RoomId, past: Option<Past>, seen: Option<Seq>, username: Option<Username>, events: Vec<Event> },
    /// The connection may not join.
    JoinRefused { room: RoomId, rejection: Rejection },
    /// The connection is no longer in the room.
    Left { room: RoomId },
    /// The change is made.
    Changed { done: Done, events: Vec<Event> },
}

/// An effect of a change on open connections.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Sessions have ended. Their connections must be closed.
    SessionsEnded { user: UserId, sessions: Vec<SessionId> },
    /// The user is banned, the account is removed, or the guest's session has ended.
    UserEnded(UserId),
    /// The guests of a network are banned.
    GuestsBanned(IpAddr),
    /// The user is kicked from a room.
    Kicked { room: RoomId, user: UserId },
    /// A frame was stored that tells a room of a change.
    Noticed { room: RoomId, stored: Stored },
    /// The user has another name.
    Renamed(Renamed),
    /// The account has another role.
    RoleSet { user: UserId, role: Role },
    /// A mute of the user has begun or ended.
    Muted { user: UserId },
    /// The settings of a room have changed.
    RoomChanged { room: RoomId, settings: RoomSettings, by: Person },
    /// The room is deleted. Its members must leave it.
    RoomDeleted { room: RoomId },
    /// The frames of a room up to this seq are no longer kept.
    Forgotten { room: RoomId, up_to: Seq },
    /// The texts of messages are erased. These are the messages without them.
    Erased { room: RoomId, messages: Vec<Stored> },
}

/// A user has another name.
#[derive(Debug, Clone, PartialEq)]
pub struct Renamed {
    pub user: UserId,
    pub username: Username,
    pub former: Username,
    /// The stored frames that say so, of the rooms with messages.
    pub stored: Vec<(RoomId, Stored)>,
}

/// A stored frame as members receive it. Clones share the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub id: FrameId,
    pub seq: Seq,
    /// Whether it is an event, such as a `delete`, and not a message.
    pub is_event: bool,
    pub json: Arc<[u8]>,
}

/// What is kept of a room, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Past {
    /// The highest seq assigned.
    pub head: Seq,
    /// The latest messages, oldest first, [`HISTORY_MAX`](crate::limits::HISTORY_MAX) at most, with all events between
    /// and after them.
    pub frames: Vec<Stored>,
    /// Whether these are all frames that are kept.
    pub is_whole: bool,
}
