//! Reads the frames of a WebSocket until the connection ends.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, Message, error::ProtocolError};

use super::stream::{self, Stream};
use super::{Context, Decoder};
use crate::http1::response;
use crate::hub::{Command, Commands, Inbound};
use crate::limits::{CLOSE_WAIT, FRAMES_PER_COMMAND_MAX, MESSAGE_BYTES_MAX};
use crate::metrics::Drop as DropReason;
use crate::model::ConnectionId;
use crate::wire::CloseReason;

/// Frames that the session has not yet sent to the hub.
#[derive(Default)]
struct PendingFrames {
    frames: Vec<Inbound>,
    bytes: usize,
}

/// Reads until the connection ends. Messages that arrive together go to the hub as one command.
///
/// Not inlined: the handshake uses the stack first, and `run` uses the same stack afterwards.
#[inline(never)]
pub(super) fn run(
    socket: Arc<TcpStream>,
    early: Vec<u8>,
    connection: ConnectionId,
    mut decoder: Box<dyn Decoder + '_>,
    context: &Context,
) {
    let Context { commands, limits, metrics, .. } = context;
    if let Ok(stream) = Stream::new(Arc::clone(&socket), limits.read_deadline())
        && let Some(reason) = converse(stream, early, connection, commands, &mut *decoder)
    {
        metrics.dropped(reason);
        // Closing a socket with unread bytes discards what was sent last: the close frame.
        response::drain(&socket, Instant::now() + CLOSE_WAIT);
    }
    // Fails only if the hub has ended, and then all connections have ended, too.
    let _ = commands.send(Command::Gone { from: connection });
}

/// Reads until the client leaves or violates a rule. After a violation it sends the hub the close reason, and returns
/// the rule. Returns `None` if the client left or the hub has ended.
fn converse(
    stream: Stream,
    early: Vec<u8>,
    connection: ConnectionId,
    commands: &Commands,
    decoder: &mut (dyn Decoder + '_),
) -> Option<DropReason> {
    let mut socket = stream::accept(stream, early);
    let mut pending = PendingFrames::default();
    let mut is_clean = false;
    loop {
        let read = socket.read();
        if let Some(bytes) = socket.get_mut().take_written() {
            pending.bytes += bytes.len();
            pending.frames.push(Inbound::Control(bytes));
        }
        let (inbound, reason) = match read {
            Ok(message) => {
                match &message {
                    Message::Ping(payload) | Message::Pong(payload) => socket.get_mut().control_came(payload.len()),
                    _ => socket.get_mut().message_came(),
                }
                pending.bytes += message.len();
                let inbound = match message {
                    Message::Close(close) => {
                        is_clean = is_clean_close(close.as_ref());
                        None
                    }
                    Message::Text(text) => Some(decoder.text(&text)),
                    Message::Binary(bytes) => Some(decoder.binary(&bytes)),
                    Message::Ping(_) | Message::Pong(_) => decoder.control(),
                    Message::Frame(_) => None,
                };
                let reason = matches!(inbound, Some(Inbound::Close(_))).then_some(Some(DropReason::Abuse));
                (inbound, reason)
            }
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                pending.hand_over(connection, commands)?;
                (None, None)
            }
            Err(error) => {
                let broken = rule_broken(&error);
                let end = match broken {
                    Some((close, _)) => Inbound::Close(close),
                    None => Inbound::Closed { is_clean },
                };
                (Some(end), Some(broken.map(|(_, reason)| reason)))
            }
        };
        pending.frames.extend(inbound);
        if reason.is_some() || pending.frames.len() >= FRAMES_PER_COMMAND_MAX || pending.bytes >= MESSAGE_BYTES_MAX {
            pending.hand_over(connection, commands)?;
        }
        if let Some(reason) = reason {
            return reason;
        }
        socket.get_mut().set_pending(!pending.frames.is_empty());
    }
}

impl PendingFrames {
    /// Sends the frames to the hub as one command. Returns `None` if the hub has ended.
    fn hand_over(&mut self, from: ConnectionId, commands: &Commands) -> Option<()> {
        self.bytes = 0;
        if self.frames.is_empty() {
            return Some(());
        }
        let frames = std::mem::take(&mut self.frames);
        commands.send(Command::Frames { from, frames }).ok()
    }
}

/// Whether the client left on purpose. Other codes mean that it lost its page or its network (RFC 6455, section 7.4.1).
fn is_clean_close(close: Option<&CloseFrame>) -> bool {
    close.is_none_or(|close| close.code == CloseCode::Normal)
}

/// Returns the rule that an error means, and the close reason for it. Returns `None` if the client only left.
fn rule_broken(error: &Error) -> Option<(CloseReason, DropReason)> {
    match error {
        Error::Io(error) if error.kind() == io::ErrorKind::TimedOut => Some((CloseReason::Idle, DropReason::Idle)),
        Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            Some((CloseReason::Pieces, DropReason::Abuse))
        }
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Io(_)
        | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Utf8(_) => Some((CloseReason::Utf8, DropReason::Utf8)),
        Error::Capacity(_) => Some((CloseReason::TooLarge, DropReason::TooLarge)),
        _ => Some((CloseReason::Protocol, DropReason::Protocol)),
    }
}
