//! The commands of clients, decoded and checked.

use serde::{Deserialize, Serialize};

use super::{AdminAction, FrameType};
use crate::model::{FrameId, Nonce, RoomId, Username};

/// An entry to be stored, which members of a room see in the room's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// A message in one room.
    Text {
        content: Box<str>,
        /// The message to which it replies.
        reply_to: Option<FrameId>,
    },
    /// A message in every room.
    Announcement { content: Box<str> },
    /// The deletion of a message, by its author or by an admin.
    Delete { message_id: FrameId },
    /// The author has another name. Clients can't send it.
    Rename { former: Username },
}

impl Body {
    /// The type of its frame.
    #[must_use]
    pub fn kind(&self) -> FrameType {
        match self {
            Self::Text { .. } => FrameType::Text,
            Self::Announcement { .. } => FrameType::Announcement,
            Self::Delete { .. } => FrameType::Delete,
            Self::Rename { .. } => FrameType::Rename,
        }
    }

    /// The text of the message; empty for an event.
    #[must_use]
    pub fn content(&self) -> &str {
        match self {
            Self::Text { content, .. } | Self::Announcement { content } => content,
            Self::Delete { .. } | Self::Rename { .. } => "",
        }
    }

    /// The message to which it replies.
    #[must_use]
    pub fn reply_to(&self) -> Option<FrameId> {
        if let Self::Text { reply_to, .. } = self { *reply_to } else { None }
    }

    /// The author's name before a rename.
    #[must_use]
    pub fn former(&self) -> Option<&Username> {
        if let Self::Rename { former } = self { Some(former) } else { None }
    }

    /// The message that it is about, if it is not a message.
    #[must_use]
    pub fn message_id(&self) -> Option<FrameId> {
        if let Self::Delete { message_id } = self { Some(*message_id) } else { None }
    }
}

/// A frame from a client, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFrame {
    /// `None` means the room of the connection's URL.
    pub room: Option<RoomId>,
    /// Copied to the answer. It tells a retry of a message from a new message.
    pub nonce: Option<Nonce>,
    pub command: ClientCommand,
}

/// A client's command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCommand {
    /// Store a message or a deletion.
    Message(Body),
    Admin(Box<AdminAction>),
    /// Show the room that the sender is typing.
    Typing,
    /// Join another room.
    Join(Replay),
    Leave,
}

impl ClientFrame {
    /// Whether it may be a retry of a stored message. A retry is answered with the stored message, even if a new
    /// message would be refused.
    #[must_use]
    pub fn may_be_a_retry(&self) -> bool {
        self.nonce.is_some() && matches!(self.command, ClientCommand::Message(_))
    }
}

/// The history that a join asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replay {
    /// The number of the latest stored messages.
    pub history: usize,
    /// If set, all stored frames after this frame are sent instead.
    pub after: Option<After>,
}

/// The `after` of a join: the id of the last stored frame that the client saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum After {
    /// The id of a stored frame, which may no longer be kept.
    Id(FrameId),
    /// A value that can't be the id of a frame. The answer is a reset.
    Unknown,
}

impl After {
    /// Parses the `after` of a client. An invalid value is not an error: the answer to an unknown id is a reset.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        FrameId::parse(text).map_or(Self::Unknown, Self::Id)
    }
}
