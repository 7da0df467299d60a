//! adda: a real-time chat server in one small binary, blocking on purpose.
//!
//! # Bird's eye view
//!
//! Every connection to the one public port gets an OS thread. A WebSocket stays on its thread. Every other request is
//! relayed to `tiny_http` behind a private socket, one after another if the client keeps its connection open. Every
//! change is an *entry* of one ordered *log*: a message (the deletion of a message, too), a join, a leave, or a
//! [`Change`] of accounts, sessions, rooms and restrictions. The thread `hub` owns rooms, members and their outboxes, and proposes entries. The thread `store`
//! gives each batch of entries its time, applies it in one transaction, and returns the result of each entry.
//!
//! ```text
//! socket ─ listener ─ head ─┬─ WebSocket ─ session ──Command──▶ hub ──Proposal──▶ store: ledger, database
//!                           └─ anything else ─ relay ─ tiny_http ──Command──▶ │       │ commit
//! sinks ◀──────────────── one non-blocking send per member per batch ──────── hub ◀───┘ Applied
//! ```
//!
//! The *ledger* (`store::ledger`) is the code that decides the effect of every entry, the same for a file and for
//! memory. Its input is the entry, its time and the stored data, never a clock, a random source or the environment: the
//! same entries give the same data. With each batch it publishes a `PolicySnapshot` (settings, restrictions, roles).
//! Reads ask neither the thread `hub` nor the thread `store`. Each read uses one transaction of its own, the
//! `PolicySnapshot`, and the list of people that the hub publishes for each room (`hub::roster`).
//!
//! A *member* is a connection in a room. It has an encoding and a sink. An *encoding* (`wire`) turns a JSON frame into
//! bytes: a WebSocket message, or a line. The hub encodes a frame once per encoding in use in the room. A *sink* is the
//! connection's socket, or a channel that the thread of an HTTP response reads. Bytes that a sink does not take at once
//! wait in the member's bounded *outbox*, and the hub tries again every few milliseconds. A member whose outbox is
//! full, or makes no progress, is a slow consumer and is disconnected.
//!
//! # The path of a message
//!
//! `session::read_loop` reads a WebSocket message, `session::decoder` applies the rates and calls `protocol::decode`,
//! and the hub gets a `Command`. `hub::state` turns it into a `Proposal`. The ledger checks it (permission, slow mode,
//! nonce) and stores it. The hub gets `Applied` with the frame's JSON, adds it to the room's batch for each encoding
//! (`hub::batch`), and `hub::delivery` sends the batch to each member: to the author at the end of the round, to the others
//! after a few more rounds if the hub is under load.
//!
//! # The path of a change
//!
//! An admin's kick over a WebSocket is decoded by `protocol::admin` into an `AdminAction`, which `hub::state` turns into
//! a [`Change`]. Over HTTP, `http::handlers::moderation` makes the same `Change`, after an early check of the
//! permission. From there the path is one: `Proposal`, `store::ledger` (which makes the binding check by
//! `auth::permission::may`), the storage, commit, `Applied`. The hub then sends frames and closes connections. It answers
//! the proposer through the `ReplyTo` that came with the proposal: a frame, or a channel on which the thread
//! of an HTTP request waits. A command of the command line comes in by the control socket (`agents::control`), or
//! applies the same `Change` itself if no server has the database open (`cli::propose`).
//!
//! A flag that decides what is allowed, such as `--registration`, is proposed at the start as an entry, so the ledger
//! never reads the configuration. Other flags reach the parts of the server as [`limits::Limits`].
//!
//! # Terms
//!
//! - *command*: what a client or request asks the hub to do (`hub::command`). Not meant are the commands in the JSON of
//!   WebSockets (`protocol::command`) and those of the command line (`cli/`), which become such a command.
//!   *Proposal*: an entry on its way to the store. *Applied*: an entry with its result.
//! - *connection*: a socket. *Session* in `session/`: the life of a WebSocket. In accounts, cookies and tokens, a session
//!   is a login, a guest's token, or a program's token.
//! - *user*: an account or a guest. *People*: the users in a room. *Principal*: the user that proposes something.
//! - *frame*: one JSON object of the protocol, not a frame of a WebSocket. *Head*: the request line and header fields of
//!   a request.
//! - *replay*: the messages that a join sends first. *Resume*: a join that names the last frame that the client has
//!   seen. *Catch-up*: the replay of what it missed since, page by page. *Reset*: the answer that what was missed is no
//!   longer stored.
//! - *restriction*: a mute or a ban. *Lease*: the time for which a lost connection stays a member.
//! - *upkeep*: the work of the store's thread between batches. It *forgets* (removes) what is older than the retention, or
//!   what exceeds the bound on the database's size.
//! - *round*: one turn of the hub's loop: all queued commands, then one batch for each room.
//!
//! # Code map
//!
//! | file or folder | owns |
//! | --- | --- |
//! | `main`, `cli/` | the command line: one file per command, flags, errors for the operator, the client of the control socket |
//! | `front/` | the public port: `listener`, `capacity` (how many connections the system can carry), `relay` to `tiny_http` with `body` and `answer`, `keep_alive` (the requests of a connection after its first), `shares` (bounded resources, fair by address) |
//! | `http1/` | parsing of request heads (`head`), the client behind a proxy (`forwarded`), refusals of foreign origins (`origin`), the responses that `tiny_http` does not write (`response`) |
//! | `http/` | `routes` (the table of operations), `operation` (its parts), `router`, `handlers/`, `openapi` and `components.json` (schemas) |
//! | `session/` | a WebSocket: `handshake`, `stream` (the bytes that `tungstenite` reads, with deadlines), `read_loop` (whole messages; the peer's pings and closes go to the hub, which answers them), `decoder` (rates) |
//! | `authenticator` | the client that a token shows: its user, role and name |
//! | `agents/control` | the server's side of the control socket |
//! | `hub/` | `mod` (the loop), `state` and `state/` (pure decisions: `membership`, `presence` (joins and leaves as others see them), `events` (what a change does to open connections), `catch_up`), `room` (its ring of latest frames), `roster` (people of a room, for readers), `batch` (the frames of a round, encoded), `outbox` (what waits for a member), `delivery` (sending, the server's pings, closing), `sink`, `pager` (catch-up from the database), `handle` (the interface for requests) |
//! | `store/` | `entry` and `change` (what the log holds), `log/` (batches and their time), `ledger` and `ledger/` (what an entry does), `policy` (the published snapshot), `engine` (applies batches), `reader` (all reads), `terms` (what a search looks for), `memory` (messages with `--data :memory:`; accounts and rooms are then in an SQLite database in memory) |
//! | `store/sqlite/` | the database: `schema` and migrations, `messages`, `people/` (accounts, sessions, rooms, restrictions), `search`, `upkeep` (what goes) with `room_sizes` (whose messages go), `space` (the free space of the disk), `files` (notices that a file was removed or replaced; then the store refuses all entries), `offline` (what commands read) |
//! | `protocol/` | the JSON of WebSockets: `decode` and `command` (from clients), `frame` (to clients), `admin` (admin commands, also over HTTP) |
//! | `wire/` | encodings of frames: the WebSocket messages that the server sends, lines; close codes |
//! | `auth/` | `permission` (who can do what), `password`, `credential` (cookies and tokens in requests), `guest_token` (signed tokens, for guests without a row), `attempts` (limits of logins), `name` (look-alike names) |
//! | `model/` | ids, names and their rules, times, roles, `reason` (every refusal: word, code, status, sentence) |
//! | `limits`, `rate` | every bound of the server, and rate limiters |
//! | `config`, `logging`, `metrics`, `threads`, `published` | settings, the log on standard error, counters for Prometheus, thread policies, a value that one thread publishes |
//! | `build`, `build/` | Cargo's build script, which joins the page's modules and turns the reference into HTML. It is no module of the crate |
//!
//! # Where to begin
//!
//! | to change | begin in |
//! | --- | --- |
//! | a fixed bound of size, number or time | `limits`; the rules of names are in `model/names`, the lifetimes of sessions in `auth/credential` |
//! | a flag | `cli/serve` and `config`. If it bounds something, it is a field of [`limits::Limits`], which has the default. If it decides what is allowed, it is a field of `store::change::Policy` |
//! | who can do what, also in slow mode | `auth/permission`; its context is made in `store/policy` |
//! | what a change does | `store/change` (the type) and `store/ledger/changes`, or `store/ledger/accounts` for accounts and sessions, or `store/ledger/upkeep` for what is forgotten. `store/sqlite/people` stores it, in memory and in a file |
//! | what the audit log records | `Ledger::audit` and its callers in `store/ledger/`. The actions are in `store/sqlite/people/audit` |
//! | a user's name, and what a rename does | `store/ledger/names`; `auth/name` decides which names look alike |
//! | private rooms, and the end of a room | `store/ledger/rooms` (who was let in); `auth/permission` says who may join and read |
//! | what a join or leave does | `store/ledger/presence` (the order of entries), `hub/state/membership` (members and leases) |
//! | a reason of refusals | `model/reason`, then `static/docs/errors.md`, `static/js/core/codes.js` and `static/lang/` |
//! | an HTTP operation | `http/routes`, `http/handlers/` and `http/components.json` |
//! | a login | `http/handlers/accounts`: `auth/attempts` limits it, `http/slow_lane` compares the password, `Change::LogIn` begins the session |
//! | how bytes of a WebSocket become a message | `session/stream` and `session/read_loop`; `tungstenite` joins fragments |
//! | how long something is kept | `limits`, or the flag; `store/sqlite/upkeep` removes it, in memory `store/memory` |
//! | the space on the disk, and what is checked before the server serves | `store/sqlite/space`; `store::start` opens the database, `cli/serve` starts all parts |
//! | what a command prints | its file in `cli/`. Commands read the database themselves (`store/sqlite/offline`), and change it by `cli/propose` |
//! | a metric | `metrics`, with a row in `static/docs/operating.md` |
//! | a reconnect | `hub/state/catch_up`, and `hub/pager` for frames that are no longer in memory |
//! | the deletion of a message | `store/ledger` (an entry with `Body::Delete`); `store/sqlite/messages` erases the text |
//! | what members are told of a change | `hub/state/events` |
//! | pings of the server, and when a silent or slow client is disconnected | `hub/delivery`; `hub/outbox` keeps the bytes that wait. Deadlines of reading are in `session/stream` |
//! | what a search finds | `store/terms` and `static/js/core/marks.js`; other tokens in the index need a migration |
//! | what happens if a file of the database is removed or replaced | `store/sqlite/files` notices it, `store/engine` refuses entries |
//! | the tables of the database | `store/sqlite/schema`, with a migration and a fixture for `tests/it/migration` |
//!
//! A change of the protocol or of a limit also concerns `static/js/` (the page) and `static/docs/` (the reference).
//! Tests compare the reference, `components.json` and the page with the code. Tests in `store/ledger/property` compare
//! the storages.
//!
//! # Threads
//!
//! | thread | owns | receives from | sends to | ends when |
//! | --- | --- | --- | --- | --- |
//! | main | the process | signals | hub: `Stop` | the others have ended, or [`STOP_WAIT`] is over |
//! | listener | the public port, the connection limits | `accept` | refuser: sockets | the port is shut down |
//! | refuser | refused sockets | listener | — | the listener has ended |
//! | connection (each) | one socket's reading side | its client | hub: `Connect`, `Frames`, `Gone` | its client has gone, or the hub has shut its socket down |
//! | authenticator | — | connections: tokens of handshakes | connections: identities | the server has stopped |
//! | http (each) | one request at a time | `tiny_http` | hub: messages, changes | the server stops |
//! | login (each) | one request with a password | http: requests | hub: changes | the http threads have ended |
//! | search | one search at a time | http: requests | — | the http threads have ended |
//! | control-client (four) | one client of the control socket at a time, which it accepts | `adda` commands | hub: changes | the server stops |
//! | hub | rooms, members, outboxes | commands, the store, the pager | store: a batch; pager: reads; sinks: frames | `Stop` is carried out |
//! | pager | a page of stored frames | the hub | hub: the page | the hub has ended |
//! | store | the log, the ledger, the database's writer | a batch | hub: the results | the hub has ended |
//! | checkpoint | the checkpoints of the WAL, and looking whether the files are still there | — | — | the store has ended |
//! | room-sizes | one reading of how much each room holds | — | store (upkeep): the sizes | all is read, or the store has ended |
//! | log | standard error, while the server runs (`logging`; not the log of entries) | every thread: lines | — | the process ends |
//! | output | one message to a standard stream | — | — | the message is written |
//!
//! # Channels
//!
//! No cycle of threads can block on full channels. In the graph, `══` may block and `──` never does:
//!
//! ```text
//! connections ══tokens══▶ authenticator ──identities──▶ connections
//! http ──requests──▶ login, search
//! connections, http, login, control ══commands══▶ hub ──proposals──▶ store ──applied──▶ hub
//!                                                 hub ──fetches────▶ pager ──pages────▶ hub
//! every thread ──lines──▶ log
//! ```
//!
//! At most one batch is on its way between hub and store, and each channel between them holds one. Between hub and
//! pager there is at most one page per member and room in catch-up. Bytes that a sink does not take wait in the
//! bounded outbox of the member. So hub, store and pager never wait to send, and a thread that waits for the hub waits
//! for a thread that makes progress. The authenticator waits for no other thread. The response to a request goes into a
//! channel with room for it. A line for which the queue of the thread `log` has no room is dropped and counted, so a
//! standard error that is not read delays no thread.
//!
//! The hub and the store sleep in a `threads::Sleeper` while their channels are empty, and every send to them wakes them.
//!
//! # What never happens
//!
//! - The hub touches no disk, parses no JSON from clients and never blocks on a sink. It knows no protocol: `wire` makes
//!   the bytes that it sends.
//! - A session writes to no socket after the handshake. Pongs and close replies go to the hub, which sends them.
//! - A database has one process that writes it. A tool that changes something sends its change to the server by the
//!   control socket.
//! - Only `front` and `http` name `tiny_http`; only `session` names `tungstenite`; only `store/sqlite` names `rusqlite`.
//! - A read asks neither the hub nor the writer, and no GET appends an entry.
//! - One function decides permission (`auth::permission::may`), and one makes its context (`store::policy`). Every refusal
//!   is a `model::reason::Rejection`.
//! - A file imports only from its own folder, from layers with lower numbers, and from its own layer without a cycle.
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
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use agents::control::Control;
use auth::credential::SessionCookie;
use auth::secret::Secret;
use config::{Config, Data};
use front::listener::{self, Front, Listening};
use front::{capacity, relay};
use hub::{Command, Commands};
use limits::{REQUESTS_STOP_WAIT, STOP_WAIT};
use metrics::Metrics;
use model::reason::{Reason, Rejection};
use rate::RateLimiters;
use store::change::{Change, Policy};
use store::entry::By;
use threads::{JOIN_CHECK_INTERVAL, join_by};

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
    /// A thread can't be started.
    #[error("failed to start a thread: {0}")]
    Thread(#[source] std::io::Error),
}

/// A running server. Dropping it leaves its threads running until the process ends; [`stop`](Self::stop) ends them.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    listening: Listening,
    commands: Commands,
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
    let (commands, queue) = hub::channel();
    let policy = Policy { accounts, registration };
    let store::Started { writer, reader, threads: mut inner } =
        store::start(&data, durability, keep, policy, &queue.sleeper, Arc::clone(&metrics))?;
    let presence = hub::new_presence();
    let ends = hub::Ends { queue, store: writer, reader: reader.clone(), presence: presence.clone() };
    inner.extend(hub::start(ends, limits, Arc::clone(&metrics)).map_err(StartError::Thread)?);
    let api = hub::HubApi::new(commands.clone(), presence);
    let rate_limiters = Arc::new(RateLimiters::new(&limits));
    let directory = match &data {
        Data::File(path) => path.canonicalize().ok().and_then(|path| path.parent().map(Path::to_owned)),
        Data::Memory => None,
    };
    let cookie = Arc::new(session_cookie(&data, address, &reader));
    let settings = http::Settings {
        origins: origins.clone(),
        directory,
        rate_limiters: Arc::clone(&rate_limiters),
        cookie: Arc::clone(&cookie),
        limits,
    };
    let http =
        http::Server::start(api.clone(), reader.clone(), settings, Arc::clone(&metrics)).map_err(StartError::Http)?;
    let relay = relay::Relay::new(http.endpoint(), Arc::clone(&metrics));
    let sessions = session::Context {
        commands: commands.clone(),
        decoder: session::chat,
        authenticator: authenticator::Authenticator::start(reader).map_err(StartError::Thread)?,
        origins,
        rate_limiters,
        cookie,
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

/// The session cookie. A server without a database would have another id after each start, and leave a cookie of each in
/// browsers. So its port stands for its id.
fn session_cookie(data: &Data, address: SocketAddr, reader: &store::Reader) -> SessionCookie {
    let server = &reader.policy().server;
    match data {
        Data::File(_) => SessionCookie::new(&server.id, server.made_ms),
        Data::Memory => SessionCookie::new(&address.port().to_string(), server.made_ms),
    }
}

/// Starts the control socket. Changes from there are proposed as the operator's.
fn control(database: &Path, api: hub::HubApi) -> std::io::Result<Control> {
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
    /// most. Threads that need longer end with the process.
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
        if !join_by(&mut inner, deadline) {
            log::warn!("the store did not finish in time; stopping anyway");
        }
        // All members have their close frame. Requests may still be in progress, and heads may never be complete.
        let soon = deadline.min(Instant::now() + REQUESTS_STOP_WAIT);
        while Instant::now() < soon && listening.connections() > 0 {
            thread::sleep(JOIN_CHECK_INTERVAL);
        }
        http.stop(deadline.min(Instant::now() + REQUESTS_STOP_WAIT));
    }
}
