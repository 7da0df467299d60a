//! The commands of the hub, which sessions, requests and tools send, and the channel that carries them.

use crossbeam_channel::{Receiver, Sender};

use crate::limits::COMMANDS_QUEUED_MAX;
use crate::model::ConnectionId;
use crate::model::reason::Rejection;
use crate::protocol::{ClientFrame, Rejected};
use crate::store::change::Change;
use crate::store::entry::{By, NewMessage};
use crate::threads::{Sleeper, WakingSender};
use crate::wire::{CloseReason, Encoding};

use super::handle::Answer;
use super::sink::Sink;
use super::state::Arrival;

/// A command for the hub.
#[derive(Debug)]
pub enum Command {
    /// A connection's handshake is done. From now on only the hub writes to its sink.
    Connect(Box<Connect>),
    /// The frames that a connection sent, in order.
    Frames { from: ConnectionId, frames: Vec<Inbound> },
    /// A connection's session has ended. It sends no more commands, and its client can't be reached.
    Gone { from: ConnectionId },
    /// A request proposes a message, which makes its room if there is none. Every answer channel has a capacity of one,
    /// so the hub never blocks on it.
    SendMessage { message: Box<NewMessage>, makes_room: bool, answer: Sender<Answer> },
    /// A request or a tool proposes a change.
    Change { by: By, change: Box<Change>, answer: Sender<Answer> },
    /// A health check: asks whether the hub answers.
    Ping { answer: Sender<()> },
    /// The server stops. The hub commits, closes every connection with code 1001, and ends.
    Stop,
}

/// A new connection, with its sink and its encoding.
#[derive(Debug)]
pub struct Connect {
    pub sink: Sink,
    pub encoding: Encoding,
    pub arrival: Arrival,
}

/// One event of a connection.
#[derive(Debug)]
pub enum Inbound {
    Frame(ClientFrame),
    /// A client frame over the rate limit. It may be a retry of a stored message.
    Limited(ClientFrame, Box<Rejection>),
    /// A frame that the session refused.
    Rejected(Rejected),
    /// The client has closed, and its close frame was answered; or it is gone. Nothing more may be sent to it.
    Closed {
        /// Whether the client left on purpose, so that it will not reconnect at once.
        is_clean: bool,
    },
    /// Bytes that the WebSocket protocol must send: pongs and the answer to a close frame.
    Control(Vec<u8>),
    /// The client violated a rule, and the hub must close the connection.
    Close(CloseReason),
}

/// The sending end of the command channel. A sender waits while the channel is full.
pub type Commands = WakingSender<Command>;

/// The hub's end of the command channel, which is bounded by [`COMMANDS_QUEUED_MAX`].
#[derive(Debug)]
pub struct CommandQueue {
    pub commands: Receiver<Command>,
    /// Where the hub's thread sleeps while there is nothing to do.
    pub sleeper: Sleeper,
}

/// The command channel.
#[must_use]
pub fn channel() -> (Commands, CommandQueue) {
    let sleeper = Sleeper::default();
    let (sender, commands) = sleeper.channel(Some(COMMANDS_QUEUED_MAX));
    (sender, CommandQueue { commands, sleeper })
}
