//! adda: a real-time chat server in one small binary, blocking on purpose.
//!
//! Every connection to the one public port gets an OS thread. A WebSocket stays on its thread; every other request is
//! relayed to `tiny_http` behind a private socket. Every change is an entry of one log: a message, a join, a leave, or
//! a change of accounts, sessions, rooms and restrictions. The thread `hub` owns rooms, members and their outboxes, and
//! proposes entries. The thread `store` gives each batch of entries its time, applies it in one transaction, and
//! returns the result of each entry.
//!
//! ```text
//! socket ─ listener ─ head ─┬─ WebSocket ─ session ──Command──▶ hub ──Proposal──▶ store: log, ledger
//!                           └─ anything else ─ relay ─ tiny_http ──Command──▶ │       │ commit
//! sinks ◀──────────────── one non-blocking send per member per batch ──────── hub ◀───┘ Applied
//! ```
//!
//! The ledger (`store::ledger`) decides the effect of every entry, with the same code for a file and for memory. Its
//! input is the entry, its time and the stored data, never a clock, a random source or the environment: the same log
//! gives the same data. With each batch it publishes a `PolicySnapshot` (settings, restrictions, roles). Reads ask
//! neither the hub nor the store. Each uses one transaction of its own, the policy, and the people of each room as the
//! hub last published them.
//!
//! A member has an encoding and a sink. An encoding (`wire`) turns a JSON frame into bytes: a WebSocket message, or a
//! line. The hub encodes a frame once per encoding in use in the room. A sink is the connection's socket, or a channel
//! whose reader has a thread of its own. Both have the same bounds and the same rule for slow consumers.
//!
//! # Threads
//!
//! | thread | owns | receives from | sends to | ends when |
//! | --- | --- | --- | --- | --- |
//! | main | the process | signals | hub: `Stop` | the others have ended, or [`STOP_WAIT`] is over |
//! | listener | the public port, the connection limits | `accept` | refuser: sockets | the port is shut down |
//! | refuser | refused sockets | listener | — | the listener has ended |
//! | connection (each) | one socket's reading side | its client | hub: `Connect`, `Frames`, `Gone` | its client has gone, or the hub has shut its socket down |
//! | authenticator | — | connections: tokens | connections: identities | the server has stopped |
//! | http (each) | one request at a time | `tiny_http` | hub: messages, changes | the server is unblocked |
//! | login (each) | one request that needs a password hash | http: requests | hub: changes | the http threads have ended |
//! | control-client (four) | one client of the control socket at a time | commands that connect | hub: changes | the server stops |
//! | hub | rooms, members, outboxes | commands, the store, the pager | store: a batch; pager: reads; sinks: frames | `Stop` is carried out |
//! | pager | a page of stored frames | the hub | hub: the page | the hub has ended |
//! | store | the log, the ledger, the database's writer | a batch | hub: the results | the hub has ended |
//! | checkpoint | the checkpoints of the WAL | — | — | the store has ended |
//! | log | standard error, while the server runs | every thread: lines | — | the process ends |
//! | output | one message to a standard stream | — | — | the message is written |
//!
//! # Channels
//!
//! No cycle of threads can block on full channels:
//!
//! ```text
//! connections, http, control ══commands══▶ hub ──proposals──▶ store ──applied──▶ hub
//!                                          hub ──fetches────▶ pager ──pages────▶ hub      ══ may block, ── never does
//! every thread                             ──lines──────▶ log
//! ```
//!
//! At most one batch is on its way between hub and store, and each channel between them holds one. Between hub and
//! pager there is at most one page per member and room in catch-up. Bytes for which a member's channel has no room wait
//! in its bounded outbox. So none of these threads ever waits to send, and a thread that waits for the hub waits for a
//! thread that makes progress. The response to a request goes into a channel with room for it. A line for which the
//! log's queue has no room is dropped and counted, so a standard error that is not read delays no thread.
//!
//! # What never happens
//!
//! - The hub touches no disk, parses no JSON from clients and never blocks on a sink. It knows no bytes of a protocol.
//! - A session writes to no socket after the handshake.
//! - A database has one process that writes it. A tool that changes something sends its change to the server by the
//!   control socket.
//! - Only `front` and `http` name `tiny_http`; only `session` names `tungstenite`; only `store/sqlite` names `rusqlite`.
//! - A read asks neither the hub nor the writer, and no GET appends to the log.
//! - One function decides permission, and one makes the context for it. Every refusal is one type, with its words.
//! - A file imports only from lower layers and from its own folder. No layer has a cycle of imports.
//!
//! # Layers
//!
//! | layer | files and folders |
//! | --- | --- |
//! | 6 | `main` `cli` `lib` |
//! | 5 | `front` |
//! | 4 | `authenticator` `session` `http` `agents` |
//! | 3 | `hub` |
//! | 2 | `store` |
//! | 1 | `protocol` `wire` `http1` `auth` `logging` |
//! | 0 | `build` `model` `limits` `rate` `metrics` `config` `threads` `published` |

pub mod agents;
pub mod auth;
pub mod authenticator;
pub mod cli;
pub mod config;
pub mod front;
pub mod http;
pub mod http1;
pub mod hub;
pub mod limits;
pub mod logging;
pub mod metrics;
pub mod model;
pub mod protocol;
pub mod published;
pub mod rate;
pub mod session;
pub mod store;
pub mod threads;
pub mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use agents::control::Control;
use auth::secret::Secret;
use config::{Config, Data};
use front::listener::{self, Front, Listening};
use front::{capacity, relay};
use hub::Command;
use limits::{REQUESTS_STOP_WAIT, STOP_WAIT};
use metrics::Metrics;
use model::reason::{Reason, Rejection};
use rate::RateLimiters;
use store::change::{Change, Policy};
use store::entry::By;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The public port can't be opened.
    #[error("failed to listen on {0}: {1}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// The database can't be opened.
    #[error(transparent)]
    Store(#[from] store::StartError),
    /// The control socket can't be opened.
    #[error("failed to open the control socket: {0}")]
    Control(#[source] std::io::Error),
    /// The HTTP server can't be started.
    #[error("failed to start the web server: {0}")]
    Http(#[source] http::StartError),
    /// The system refuses a thread.
    #[error("failed to start a thread: {0}")]
    Thread(#[source] std::io::Error),
}

/// A running server. Dropping it leaves its threads running until the process ends; [`stop`](Self::stop) ends them.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    listening: Listening,
    commands: Sender<Command>,
    api: hub::HubApi,
    http: http::Server,
    /// `None` with `--data :memory:`, as no data outlives the process.
    control: Option<Control>,
    /// The threads of the hub and of the store.
    inner: Vec<JoinHandle<()>>,
}

/// Starts all parts, the inner ones first. The server accepts connections when this returns.
///
/// # Errors
/// [`StartError`]; then no part that a client could reach is left running.
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
    log::info!("connection limit: {connections_max}, set by {term}");

    let metrics = Arc::new(Metrics::default());
    let (commands, commanded) = hub::channel();
    let policy = Policy { accounts, registration };
    let store::Started { writer, reader, threads: mut inner } =
        store::start(&data, durability, keep, policy, Arc::clone(&metrics))?;
    let presence = hub::new_presence();
    let ends = hub::Ends { commands: commanded, store: writer, reader: reader.clone(), presence: presence.clone() };
    inner.extend(hub::start(ends, limits, Arc::clone(&metrics)).map_err(StartError::Thread)?);
    let api = hub::HubApi::new(commands.clone(), presence);
    let rate_limiters = Arc::new(RateLimiters::new(&limits));
    let policy = http::Policy { origins: origins.clone(), rate_limiters: Arc::clone(&rate_limiters), limits };
    let http =
        http::Server::start(api.clone(), reader.clone(), policy, Arc::clone(&metrics)).map_err(StartError::Http)?;
    let relay = relay::Relay::new(http.endpoint(), Arc::clone(&metrics));
    let sessions = session::Context {
        commands: commands.clone(),
        decoder: session::chat,
        authenticator: authenticator::Authenticator::start(reader).map_err(StartError::Thread)?,
        origins,
        rate_limiters,
        limits,
        metrics,
    };
    let control = match &data {
        Data::File(path) => Some(control(path, api.clone()).map_err(StartError::Control)?),
        Data::Memory => None,
    };
    let front = Front { sessions, relay, proxies, connections_max, per_address_max: connections_per_address_max };
    let listening = Listening::start(socket, front).map_err(StartError::Thread)?;
    Ok(Running { address, listening, commands, api, http, control, inner })
}

/// Starts the control socket. Changes from there are proposed as the operator's.
fn control(database: &std::path::Path, api: hub::HubApi) -> std::io::Result<Control> {
    Control::start(database, move |change: Change| api.change(By::Operator, change))
}

impl Running {
    /// The address on which the server listens, with the real port if port 0 was configured.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes a setup link, as the operator, and returns its code. `None` if there is an admin already.
    ///
    /// # Errors
    /// The reason why no link is made.
    pub fn offer_setup(&self) -> Result<Option<Secret>, Rejection> {
        let (change, code) = Change::offer_setup();
        match self.api.change(By::Operator, change) {
            Ok(_) => Ok(Some(code)),
            Err(rejection) if rejection.reason == Reason::HasAdmin => Ok(None),
            Err(rejection) => Err(rejection),
        }
    }

    /// Stops accepting, commits, closes every connection with 1001, and waits for the threads, for [`STOP_WAIT`] at
    /// most.
    pub fn stop(self) {
        let Self { mut listening, commands, http, control, mut inner, .. } = self;
        let deadline = Instant::now() + STOP_WAIT;
        listening.stop();
        // Before the database's lock is released: after that, another process may bind the socket.
        if let Some(control) = control {
            control.stop(Instant::now() + REQUESTS_STOP_WAIT);
        }
        // Fails only if the hub has ended.
        let _ = commands.send_deadline(Command::Stop, deadline);
        drop(commands);
        while Instant::now() < deadline && !inner.is_empty() {
            inner.extract_if(.., |thread| thread.is_finished()).for_each(|thread| drop(thread.join()));
            thread::sleep(Duration::from_millis(2));
        }
        // All members have their close frame. Requests may still be in progress, and heads may never be complete.
        let soon = deadline.min(Instant::now() + REQUESTS_STOP_WAIT);
        while Instant::now() < soon && listening.connections() > 0 {
            thread::sleep(Duration::from_millis(2));
        }
        if !inner.is_empty() {
            log::warn!("the store did not finish in time; stopping anyway");
        }
        drop(http);
    }
}
