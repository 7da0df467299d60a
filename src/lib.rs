//! adda: a real-time chat server in one small binary, blocking on purpose.
//!
//! One public port; every accepted connection gets an OS thread. WebSocket upgrades stay on their thread, and
//! everything else is relayed to `tiny_http` behind a private socket. Whatever changes something is an entry of one log: a
//! message, a join, a leave, or a change of accounts, sessions, rooms and restrictions. One thread, the hub, owns rooms, members
//! and everything that is on its way to a member, and proposes entries. Another, the store, gives each batch of them its moment,
//! applies it in one transaction, and returns what became of each.
//!
//! ```text
//! socket ─ listener ─ head ─┬─ WebSocket ─ session ──Command──▶ hub ──Proposal──▶ store: log, ledger
//!                           └─ anything else ─ relay ─ tiny_http ──Command──▶ │       │ commit
//! sinks ◀──────────────── one non-blocking send per member per batch ──────── hub ◀───┘ Applied
//! ```
//!
//! The ledger (`store::ledger`) decides what every entry does, once for a file and for memory. It reads the entry, its moment and
//! what is stored, never a clock, a random source or the environment: the same log gives the same contents. It publishes a
//! `PolicySnapshot` (settings, restrictions, roles) with each batch. Reads ask neither the hub nor the store: an answer is read in
//! one transaction of its own, by the policy and by the people of rooms as the hub's last round published them.
//!
//! A member has an encoding and a sink. An encoding (`wire`) says how a JSON frame becomes bytes: a WebSocket message, or a
//! line. The hub encodes a frame once per encoding in use in the room. A sink is the connection's socket, or a channel whose
//! reader is a thread of its own; both have the same bounds, and the same rule for slow consumers.
//!
//! # Threads
//!
//! | thread | owns | hears | tells | ends when |
//! | --- | --- | --- | --- | --- |
//! | main | the process | signals | hub: `Stop` | the others have ended, or time is up |
//! | listener | the public port, the caps | accept | refuser: sockets | the port is shut down |
//! | refuser | refused sockets | listener | — | the listener has ended |
//! | connection (each) | one socket's reading side | its peer | hub: `Connect`, `Frames`, `Gone` | its peer has gone, or the hub shut its socket down |
//! | authenticator | — | connections: tokens | connections: who they are | the server has stopped |
//! | http (each) | one request at a time | `tiny_http` | hub: messages, changes | the server is unblocked |
//! | login (each) | one request that waits for a password's hash | http: requests | hub: changes | the http threads have ended |
//! | control-client (four) | one client of the control socket at a time | commands that connect | hub: changes | the server stops |
//! | hub | rooms, members, outboxes | commands, the store, the pager | store: a batch; pager: what to read; sinks: frames | `Stop` is carried out |
//! | pager | a page of what is kept | the hub | hub: the page | the hub has ended |
//! | store | the log, the ledger, the database's writer | a batch | hub: what became of it | the hub has ended |
//! | checkpoint | the WAL's way into the database's file | — | — | the store has ended |
//!
//! # Channels
//!
//! No cycle of threads can block on full channels:
//!
//! ```text
//! connections, http, control ══commands══▶ hub ──proposals──▶ store ──applied──▶ hub
//!                                          hub ──fetches────▶ pager ──pages────▶ hub      ══ may block, ── never does
//! ```
//!
//! At most one batch is on its way between hub and store, and each channel between them holds one; between hub and pager
//! there is at most one page for each joining that catches up; what the channel of a member has no room for waits in the
//! outbox, bounded. So none of them ever waits to send, and a thread that waits for the hub waits for one that goes on. The
//! answer to a request goes into a channel with room for it.
//!
//! # What never happens
//!
//! - The hub touches no disk, parses no JSON from clients and never blocks on a sink. It names no bytes of a protocol.
//! - A session writes to no socket after the handshake.
//! - A database has one process that writes it. A tool that changes something asks the server by the control socket.
//! - Nothing outside `relay` and `http` names `tiny_http`; nothing outside `session` and `ws` names `tungstenite`; nothing outside
//!   `store` names `rusqlite`.
//! - A file imports nothing from a higher layer: `main cli tools` over `listener relay` over `head client answer authenticator
//!   session http agents` over `hub` over `store` over `protocol wire ws auth logging` over
//!   `model ids limits rate metrics config threads published role`.

pub mod agents;
pub mod answer;
pub mod auth;
pub mod authenticator;
pub mod capacity;
pub mod cli;
pub mod client;
pub mod config;
pub mod head;
pub mod http;
pub mod hub;
pub mod ids;
pub mod limits;
pub mod listener;
pub mod logging;
pub mod metrics;
pub mod model;
pub mod protocol;
pub mod published;
pub mod rate;
pub mod relay;
pub mod role;
pub mod session;
pub mod store;
pub mod threads;
pub mod tools;
pub mod wire;
pub mod ws;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use agents::control::Control;
use config::{Config, Data};
use hub::Command;
use limits::{REQUESTS_STOP_WAIT, STOP_WAIT};
use listener::{Front, Listening};
use metrics::Metrics;
use rate::Paces;
use store::change::{Change, Policy};
use store::entry::By;

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The public port can't be had.
    #[error("failed to listen on {0}: {1}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// The database can't be used.
    #[error(transparent)]
    Store(#[from] store::StartError),
    /// The socket for the command line can't be had.
    #[error("failed to open the control socket: {0}")]
    Control(#[source] std::io::Error),
    /// The handlers of HTTP can't be started.
    #[error("failed to start the web server: {0}")]
    Http(#[source] http::StartError),
    /// The system gives no thread.
    #[error("failed to start a thread: {0}")]
    Thread(#[source] std::io::Error),
}

/// A server that accepts. Dropping it leaves its threads to the end of the process; [`stop`](Self::stop) ends them.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    listening: Listening,
    commands: Sender<Command>,
    http: http::Server,
    /// Nothing where nothing outlives the process.
    control: Option<Control>,
    /// The hub's and the store's threads.
    inner: Vec<JoinHandle<()>>,
}

/// Starts everything, the inner parts first, and accepts when it returns.
///
/// # Errors
/// [`StartError`], with nothing left running that a client could reach.
pub fn start(config: Config) -> Result<Running, StartError> {
    let Config {
        listen,
        data,
        durability,
        keep,
        origins,
        proxies,
        connections_max,
        connections_per_address_max,
        accounts,
        registration,
        limits,
    } = config;
    let (connections_max, term) = capacity::Bounds::raise_and_read().connections_max(connections_max);
    let socket = listener::open(listen).map_err(|error| StartError::Listen(listen, error))?;
    let address = socket.local_addr().map_err(|error| StartError::Listen(listen, error))?;
    log::info!("{connections_max} connections at once, by {term}");

    let metrics = Arc::new(Metrics::default());
    let (commands, commanded) = hub::channel();
    let policy = Policy { accounts, registration };
    let store::Started { writer, reader, threads: mut inner } =
        store::start(&data, durability, keep, policy, Arc::clone(&metrics))?;
    let presence = hub::new_presence();
    let ends = hub::Ends { commands: commanded, store: writer, reader: reader.clone(), presence: presence.clone() };
    inner.extend(hub::start(ends, limits, Arc::clone(&metrics)).map_err(StartError::Thread)?);
    let api = hub::HubApi::new(commands.clone(), presence);
    let paces = Arc::new(Paces::new(&limits));
    let policy = http::Policy { origins: origins.clone(), paces: Arc::clone(&paces), limits };
    let http =
        http::Server::start(api.clone(), reader.clone(), policy, Arc::clone(&metrics)).map_err(StartError::Http)?;
    let relay = relay::Relay::new(http.endpoint(), Arc::clone(&metrics));
    let sessions = session::Context {
        commands: commands.clone(),
        decoder: session::chat,
        authenticator: authenticator::Authenticator::start(reader).map_err(StartError::Thread)?,
        origins,
        paces,
        limits,
        metrics,
    };
    let control = match &data {
        Data::File(path) => Some(control(path, api.clone()).map_err(StartError::Control)?),
        Data::Memory => None,
    };
    let front = Front { sessions, relay, proxies, connections_max, per_address_max: connections_per_address_max };
    let listening = Listening::start(socket, front).map_err(StartError::Thread)?;
    Ok(Running { address, listening, commands, http, control, inner })
}

/// Serves the command line: what it asks for is proposed as the operator's.
fn control(database: &std::path::Path, api: hub::HubApi) -> std::io::Result<Control> {
    Control::start(database, move |change: Change| api.change(By::Operator, change))
}

impl Running {
    /// Where it listens; the real port where port 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, commits, closes every connection with 1001, and waits for the threads, for
    /// [`STOP_WAIT`] at the most.
    pub fn stop(self) {
        let Self { mut listening, commands, http, control, mut inner, .. } = self;
        let deadline = Instant::now() + STOP_WAIT;
        listening.stop();
        // Before the database's lock is given up, which allows another process to bind the socket.
        if let Some(control) = control {
            control.stop(Instant::now() + REQUESTS_STOP_WAIT);
        }
        // Fails only where the hub has ended.
        let _ = commands.send_deadline(Command::Stop, deadline);
        drop(commands);
        while Instant::now() < deadline && !inner.is_empty() {
            inner.extract_if(.., |thread| thread.is_finished()).for_each(|thread| drop(thread.join()));
            thread::sleep(Duration::from_millis(2));
        }
        // All members have been told. What is left are requests on their way, and heads that may never come.
        let soon = deadline.min(Instant::now() + REQUESTS_STOP_WAIT);
        while Instant::now() < soon && listening.connections() > 0 {
            thread::sleep(Duration::from_millis(2));
        }
        if !inner.is_empty() {
            log::warn!("what was being stored did not come to its end in time");
        }
        drop(http);
    }
}
