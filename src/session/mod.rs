//! A WebSocket connection: the handshake, then reading, decoding and checking frames until the connection ends.
//!
//! Runs on the connection's own thread. After the handshake it writes to no socket. All bytes to send, including the
//! pongs and close replies of the protocol, go to the hub as commands.

mod decoder;
mod handshake;
mod read_loop;
pub mod stream;

use std::net::TcpStream;
use std::sync::Arc;

pub use self::decoder::{Decoder, chat};
use crate::auth::credential::SessionCookie;
use crate::authenticator::Authenticator;
use crate::config::Origin;
use crate::http1::forwarded::Client;
use crate::http1::head::Head;
use crate::hub::{Command, Commands};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::model::ConnectionId;
use crate::rate::{RateLimiter, RateLimiters};

/// Whether a path is a WebSocket endpoint.
#[must_use]
pub fn is_websocket_path(path: &str) -> bool {
    path == "/ws" || path.starts_with("/ws/")
}

/// What every session needs. All sessions share it.
#[derive(Debug)]
pub struct Context {
    pub commands: Commands,
    /// Makes a session's decoder. It is [`chat`], except in tests of the WebSocket protocol itself.
    pub decoder: fn(&Limits, RateLimiter) -> Box<dyn Decoder + '_>,
    pub authenticator: Authenticator,
    /// Other origins whose pages may connect.
    pub origins: Vec<Origin>,
    /// The rate limits of messages and handshakes, per user and per address.
    pub rate_limiters: Arc<RateLimiters>,
    pub cookie: Arc<SessionCookie>,
    pub limits: Limits,
    pub metrics: Arc<Metrics>,
}

/// Does the handshake (RFC 6455, section 4.2) and runs the session to its end, or refuses the request.
pub fn serve(
    socket: Arc<TcpStream>,
    head: Head,
    early: Vec<u8>,
    connection: ConnectionId,
    client: Client,
    context: &Context,
) {
    let Some((connect, decoder)) = handshake::open(&socket, head, connection, client, context) else {
        return;
    };
    if context.commands.send(Command::Connect(connect)).is_ok() {
        read_loop::run(socket, early, connection, decoder, context);
    }
}
