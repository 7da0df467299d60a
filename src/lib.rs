//! adda: a real-time chat server in one small binary, blocking on purpose.
//!
//! One public port; every accepted connection gets an OS thread. WebSocket upgrades stay on their thread, and
//! everything else is relayed to `tiny_http` behind a private socket. One thread, the hub, owns rooms, members
//! and everything that is on its way to a member; another, the store, gives messages their place and keeps them.
//!
//! ```text
//! socket ─ listener ─ head ─┬─ WebSocket ─ session ──Command──▶ hub ──Append──▶ store
//!                           └─ anything else ─ relay ─ tiny_http ──Command──▶ │       │ commit
//! sockets ◀────────────── one non-blocking send per member per batch ──────── hub ◀───┘ Appended
//! ```
//!
//! # Threads
//!
//! | thread | owns | hears | tells | ends when |
//! | --- | --- | --- | --- | --- |
//! | main | the process | signals | hub: `Stop` | the others have ended, or time is up |
//! | listener | the public port, the caps | accept | refuser: sockets | the port is shut down |
//! | refuser | refused sockets | listener | — | the listener has ended |
//! | connection (each) | one socket's reading side | its peer | hub: `Connect`, `Frames`, `Gone` | its peer has gone, or the hub shut its socket down |
//! | door | — | a connection: who comes | the connection: whether they may | the last connection and the listener have ended |
//! | http (each) | one request at a time | `tiny_http` | hub: questions, messages, orders; store: changes | the server is unblocked |
//! | keeper | — | the hub: what admins ask for | hub: orders, what became of it; store: changes | the hub has ended |
//! | login (each) | one request that waits for a password's hash | http: requests | hub: orders; store: changes; hash: passwords | the http threads have ended |
//! | hash (each) | the memory of one hash | login: passwords | login: hashes | the login threads have ended |
//! | hub | rooms, members, outboxes | commands, the store, the pager | store: a batch; pager: what to read; sockets: frames | `Stop` is carried out |
//! | pager | a page of what is kept | the hub | hub: the page | the hub has ended |
//! | store | the database's writer, each room's order | a batch; changes of people | hub: the batch, in its places | the hub has ended |
//! | watch | — | the database: that another process has changed people | hub: who is here?, orders | the server stops |
//! | checkpoint | the WAL's way into the database's file | — | — | the store has ended |
//!
//! # Channels
//!
//! No cycle of threads can block on full channels:
//!
//! ```text
//! connections, http, keeper ══commands══▶ hub ──appends──▶ store ──appended──▶ hub
//!                                         hub ──fetches──▶ pager ──pages──▶ hub      ══ may block, ── never does
//!                                         hub ──errands──▶ keeper
//! ```
//!
//! At most one batch is on its way between hub and store, and each channel between them holds one; between hub and pager
//! there is at most one page for each joining that catches up; and an errand for which there is no room is refused. So none of them ever waits to send, and whoever waits for
//! the hub waits for a thread that goes on. Answers to questions go into a channel with room for them; what is kept is
//! read by whoever wants it, through a connection of its own.
//!
//! # What never happens
//!
//! - The hub touches no disk, parses no JSON from clients and never blocks on a socket.
//! - A session writes to no socket after the handshake.
//! - Nothing outside `relay` and `http` names `tiny_http`; nothing outside `session` and `ws` names `tungstenite`.
//! - A file imports nothing from a higher layer: `main cli tools` over `listener relay session http` over
//!   `head client answer watch` over `hub` over `store` over `protocol ws` over `model limits rate metrics config ids threads`.

pub mod answer;
pub mod auth;
pub mod capacity;
pub mod cli;
pub mod client;
pub mod config;
pub mod head;
pub mod http;
pub mod hub;
pub mod identity;
pub mod ids;
pub mod limits;
pub mod listener;
pub mod logging;
pub mod metrics;
pub mod model;
pub mod moderation;
pub mod protocol;
pub mod rate;
pub mod relay;
pub mod role;
pub mod session;
pub mod store;
pub mod threads;
pub mod tools;
pub mod watch;
pub mod ws;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use config::Config;
use hub::Command;
use limits::{REQUESTS_STOP_WAIT, STOP_WAIT};
use listener::{Caps, Front, Listening};
use metrics::Metrics;
use rate::Paces;

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The public port can't be had.
    #[error("failed to listen on {0}: {1}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// The database can't be used.
    #[error(transparent)]
    Store(#[from] store::StartError),
    /// The handlers of HTTP can't be started.
    #[error("failed to start the web server: {0}")]
    Http(#[source] http::StartError),
    /// What is set of rooms and people can't be read; the log says why.
    #[error("failed to read what is set of rooms and people")]
    House,
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
    watch: watch::Watch,
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
    let store::Started { writer, reader, registry, threads: mut inner } =
        store::start(&data, durability, keep, Arc::clone(&metrics))?;
    let house = registry.read(store::accounts::house).map_err(|_| StartError::House)?;
    let rules = hub::Rules::new(accounts, house);
    let door = identity::Door::new(registry.clone(), accounts);
    let (errands, errands_asked) = moderation::errands();
    let ends = hub::Ends { commands: commanded, store: writer, errands };
    let hub = hub::start(ends, reader.clone(), rules, keep, limits, Arc::clone(&metrics));
    inner.extend(hub.map_err(StartError::Thread)?);
    let handle = hub::Handle::new(commands.clone(), reader);
    let turns = moderation::Turns::default();
    moderation::start(errands_asked, door.clone(), handle.clone(), turns.clone(), commands.clone())
        .map_err(StartError::Thread)?;
    let watch = watch::Watch::start(registry, handle.clone(), turns.clone()).map_err(StartError::Thread)?;
    let paces = Arc::new(Paces::new(&limits));
    let policy = http::Policy { origins: origins.clone(), paces: Arc::clone(&paces), registration, limits };
    let http =
        http::Server::start(handle, door.clone(), turns, policy, Arc::clone(&metrics)).map_err(StartError::Http)?;
    let relay = relay::Relay::new(http.endpoint(), Arc::clone(&metrics));
    let doorkeeper = identity::Doorkeeper::start(door).map_err(StartError::Thread)?;
    let sessions = session::Context {
        commands: commands.clone(),
        decoder: session::chat,
        door: doorkeeper,
        origins,
        paces,
        limits,
        metrics,
    };
    let caps = Caps { connections_max, per_address_max: connections_per_address_max };
    let listening = Listening::start(socket, Front { sessions, relay, proxies }, caps).map_err(StartError::Thread)?;
    Ok(Running { address, listening, commands, http, watch, inner })
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
        let Self { mut listening, commands, http, watch, mut inner, .. } = self;
        let deadline = Instant::now() + STOP_WAIT;
        listening.stop();
        // Before the store closes the database: whoever has it open last leaves no WAL behind if it can write.
        watch.stop(Instant::now() + REQUESTS_STOP_WAIT);
        // Fails only where the hub has ended.
        let _ = commands.send_deadline(Command::Stop, deadline);
        drop(commands);
        while Instant::now() < deadline && !inner.is_empty() {
            inner.extract_if(.., |thread| thread.is_finished()).for_each(|thread| drop(thread.join()));
            thread::sleep(Duration::from_millis(2));
        }
        // Everybody in a room has been told. What is left are requests on their way, and heads that may never come.
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
