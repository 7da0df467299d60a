//! What the hub is told or asked, by sessions, requests and tools.

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::limits::COMMANDS_QUEUED_MAX;
use crate::model::ConnectionId;
use crate::model::reason::Rejection;
use crate::protocol::{ClientFrame, Rejected};
use crate::store::change::Change;
use crate::store::entry::{By, NewMessage};
use crate::wire::{CloseReason, Encoding};

use super::handle::Answer;
use super::sink::Sink;
use super::state::Arrival;

/// See the head of this file.
#[derive(Debug)]
pub enum Command {
    /// A connection's handshake is done; from here on the hub alone writes to its sink.
    Connect(Box<Connect>),
    /// What a connection sent, in order.
    Frames { from: ConnectionId, frames: Vec<Inbound> },
    /// A connection's session has ended: nothing more comes from it, nothing can reach it.
    Gone { from: ConnectionId },
    /// A message is proposed by a request. Each channel for an answer has room for it.
    Say { message: Box<NewMessage>, answer: Sender<Answer> },
    /// A change is proposed by a request or a tool.
    Change { by: By, change: Box<Change>, answer: Sender<Answer> },
    /// Asks whether the hub answers at all.
    Ping { answer: Sender<()> },
    /// The server stops: commit, close every connection with 1001, end.
    Stop,
}

/// A new member, with where its frames go and how they are encoded.
#[derive(Debug)]
pub struct Connect {
    pub sink: Sink,
    pub encoding: Encoding,
    pub arrival: Arrival,
}

/// One thing that a connection sent.
#[derive(Debug)]
pub enum Inbound {
    /// A command.
    Frame(ClientFrame),
    /// A command that came too fast, and that may have been stored before.
    Limited(ClientFrame, Box<Rejection>),
    /// Something that its session did not take.
    Rejected(Rejected),
    /// The peer has closed and been answered, or has gone: nothing may be sent to it any more.
    Closed {
        /// Whether it means to go, and not to come back at once.
        is_clean: bool,
    },
    /// Bytes that the protocol wants written: pongs and the answer to a close.
    Control(Vec<u8>),
    /// The end, by a rule that the peer broke.
    Close(CloseReason),
}

/// The channel to the hub, bounded by [`COMMANDS_QUEUED_MAX`]: a sender that finds it full waits.
#[must_use]
pub fn channel() -> (Sender<Command>, Receiver<Command>) {
    bounded(COMMANDS_QUEUED_MAX)
}
