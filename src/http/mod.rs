//! Everything over HTTP that is not a WebSocket: `tiny_http` on a private Unix socket, its workers, the routes.
//!
//! `tiny_http` never meets the network: only the relay connects here, with one checked request at a time. A few
//! worker threads take the requests and answer them; a handler is a function from a request to a [`Reply`] and
//! touches no socket. What waits for a password's hash is handed on to threads of its own ([`slow`]), so that no
//! login holds up a read. All of them end when the [`Server`] is dropped.

mod accounts;
mod api;
mod assets;
mod error;
mod moderation;
mod reply;
mod routes;
mod sessions;
mod slow;
mod socket;
mod who;

use std::fmt;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use self::reply::Reply;
use self::routes::dispatch;
use self::slow::{SlowLane, SlowRequest};
use self::socket::Listening;
use crate::auth::attempts::Attempts;
use crate::config::Origin;
use crate::head::{BadEscape, query_value};
use crate::hub::HubApi;
use crate::limits::{BODY_BYTES_MAX, Limits};
use crate::metrics::Metrics;
use crate::model::reason::Reason;
use crate::rate::Paces;
use crate::store::Reader;

/// Threads that answer requests. They wait for the hub and the store at most, never for a client or a password's hash.
pub const WORKERS: usize = 2;

/// The field in which the relay tells the client's address. The relay passes none of a client's.
pub const CLIENT_HEADER: &str = "Adda-Client";
/// The field that is there where a trusted proxy says that the client came by TLS.
pub const SECURE_HEADER: &str = "Adda-Secure";

/// A path whose handler panics, for tests.
#[cfg(test)]
const PANIC_PATH: &str = "/panic";

/// The private socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No directory would take it; this is the last one that was tried.
    #[error("failed to open a private socket in `{}`: {source}", directory.display())]
    Socket {
        /// Where.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A worker's thread was refused.
    #[error("failed to start an HTTP worker: {0}")]
    Worker(#[source] io::Error),
}

/// The HTTP server and its workers, until it is dropped.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Dropped when no worker hands it anything any more.
    slow: Arc<SlowLane>,
}

/// Where the relay connects.
#[derive(Debug, Clone)]
pub struct Endpoint(Arc<Shared>);

struct Shared {
    /// Nothing once it has stopped.
    listening: Mutex<Option<Arc<Listening>>>,
    context: Context,
}

/// What handlers work with.
pub(crate) struct Context {
    hub: HubApi,
    reader: Reader,
    policy: Policy,
    attempts: Arc<Mutex<Attempts>>,
    metrics: Arc<Metrics>,
}

/// What the operator allows.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Pages besides our own that may write.
    pub origins: Vec<Origin>,
    /// The rates of messages.
    pub paces: Arc<Paces>,
    /// The bounds.
    pub limits: Limits,
}

impl Server {
    /// Opens the private socket and starts the workers.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(hub: HubApi, reader: Reader, policy: Policy, metrics: Arc<Metrics>) -> Result<Self, StartError> {
        let context = Context { hub, reader, policy, attempts: Arc::default(), metrics };
        let listening = Mutex::new(Some(Arc::new(Listening::start()?)));
        let shared = Arc::new(Shared { listening, context });
        let slow = Arc::new(SlowLane::start(&shared).map_err(StartError::Worker)?);
        let mut server = Self { shared, workers: Vec::with_capacity(WORKERS), slow };
        for number in 0..WORKERS {
            let (shared, slow) = (Arc::clone(&server.shared), Arc::clone(&server.slow));
            let worker = thread::Builder::new().name(format!("http-{number}"));
            let worker = worker.spawn(move || shared.work(&slow)).map_err(StartError::Worker)?;
            server.workers.push(worker);
        }
        Ok(server)
    }

    /// Where the relay connects.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        Endpoint(Arc::clone(&self.shared))
    }
}

impl Drop for Server {
    /// Ends the workers, and takes the socket's directory away.
    fn drop(&mut self) {
        // A statement of its own, so that a worker which is only beginning does not find it locked.
        let listening = self.shared.listening().take();
        if let Some(listening) = listening {
            for _ in 0..WORKERS {
                listening.server.unblock();
            }
            for worker in self.workers.drain(..) {
                // It catches what its handlers do, so there is no panic to pass on.
                let _ = worker.join();
            }
        }
    }
}

impl Endpoint {
    /// Connects to `tiny_http`. Where its socket is gone (it ends after any failed accept, and cleaners of
    /// temporary directories take files away), another run takes its place.
    ///
    /// # Errors
    /// Where it has stopped, or no socket can be had.
    pub fn connect(&self) -> io::Result<UnixStream> {
        let stopped = || io::Error::from(io::ErrorKind::NotConnected);
        let listening = self.0.listening().clone().ok_or_else(stopped)?;
        match UnixStream::connect(&listening.path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
                let renewed = self.0.renewed(&listening)?.ok_or_else(stopped)?;
                UnixStream::connect(&renewed.path)
            }
            result => result,
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    fn listening(&self) -> MutexGuard<'_, Option<Arc<Listening>>> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The run that has taken the place of an ended one.
    fn renewed(&self, ended: &Arc<Listening>) -> io::Result<Option<Arc<Listening>>> {
        let mut listening = self.listening();
        if listening.as_ref().is_some_and(|now| Arc::ptr_eq(now, ended)) {
            log::warn!("the private HTTP socket is gone; opening another");
            let next = Listening::start().map_err(io::Error::other)?;
            *listening = Some(Arc::new(next));
            for _ in 0..WORKERS {
                ended.server.unblock();
            }
        }
        Ok(listening.clone())
    }

    /// A worker's life.
    fn work(&self, slow: &SlowLane) {
        loop {
            let Some(listening) = self.listening().clone() else {
                return;
            };
            // An error is the end of this run: another has taken its place, or will when the relay connects next.
            if let Ok(request) = listening.server.recv() {
                // What is not answered is answered with 500 by its own drop.
                let _ = catch_unwind(AssertUnwindSafe(|| self.answer(request, slow)));
            }
        }
    }

    fn answer(&self, mut request: tiny_http::Request, slow: &SlowLane) {
        self.context.metrics.http_requests.increment();
        // What is left of a body is put into memory by tiny_http, all at once. The relay has seen to its size.
        let mut body = Vec::new();
        // An error here is the relay's having gone.
        let _ = request.as_reader().take(BODY_BYTES_MAX as u64).read_to_end(&mut body);
        let (path, query) = match request.url().split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (request.url(), None),
        };
        let question = Request { path, query, headers: request.headers(), body: &body, context: &self.context };
        let method = request.method().as_str();
        let mut reply = caught(method, || dispatch(method, &question));
        match reply.rest.take() {
            Some(rest) => slow.take(SlowRequest { request, reply, rest }),
            None => respond(request, reply),
        }
    }
}

/// What a handler gives, or that it has panicked.
fn caught(method: &str, handler: impl FnOnce() -> Reply) -> Reply {
    catch_unwind(AssertUnwindSafe(handler)).unwrap_or_else(|_| {
        log::error!("a handler of {method} requests has panicked");
        Reply::from(Reason::Internal)
    })
}

fn respond(request: tiny_http::Request, reply: Reply) {
    // An error here is the relay's having gone, which is its to tell.
    let _ = request.respond(reply.into_response());
}

/// What a handler is given.
pub(crate) struct Request<'a> {
    path: &'a str,
    query: Option<&'a str>,
    headers: &'a [tiny_http::Header],
    body: &'a [u8],
    context: &'a Context,
}

impl Request<'_> {
    /// The client's address, which the relay always tells; tests leave it out.
    fn address(&self) -> IpAddr {
        let given = self.header(CLIENT_HEADER).and_then(|address| address.parse().ok());
        given.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }

    /// Whether the client came by TLS, as far as is known.
    fn is_secure(&self) -> bool {
        self.header(SECURE_HEADER).is_some()
    }

    /// Whether the page that asks, if it is one, may write here.
    fn may_write(&self) -> bool {
        let mut given = self.headers_named("Origin");
        let origin = given.next();
        given.next().is_none()
            && Origin::is_welcome(origin, self.header("Host"), self.is_secure(), &self.context.policy.origins)
    }

    /// The page's origin, where the operator named it.
    fn named_origin(&self) -> Option<&Origin> {
        let given: Origin = self.header("Origin")?.parse().ok()?;
        self.context.policy.origins.iter().find(|named| **named == given)
    }

    /// The body's type without its parameters, in lower case.
    fn media_type(&self) -> String {
        let given = self.header("Content-Type").unwrap_or_default();
        given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    fn header(&self, name: &'static str) -> Option<&str> {
        self.headers_named(name).next()
    }

    fn headers_named(&self, name: &'static str) -> impl Iterator<Item = &str> {
        self.headers.iter().filter(move |header| header.field.equiv(name)).map(|header| header.value.as_str())
    }

    fn query_value(&self, name: &str) -> Option<Result<String, BadEscape>> {
        query_value(self.query?, name)
    }

    /// The last part of the path, as it was escaped.
    fn item(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

#[cfg(test)]
pub(crate) mod tests;
