//! The private HTTP server: `tiny_http`, its workers, and the threads for logins and searches.

use std::fmt;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::reply::{Reply, Rest};
use super::request::Request;
use super::router::dispatch;
use super::slow_lane::{Lane, SlowLane, Turn};
use super::socket::Listening;
use crate::auth::attempts::Attempts;
use crate::auth::credential::SessionCookie;
use crate::config::Origin;
use crate::hub::HubApi;
use crate::limits::{BODY_BYTES_MAX, Limits, REQUESTS_STOP_WAIT};
use crate::metrics::Metrics;
use crate::model::reason::Reason;
use crate::rate::RateLimiters;
use crate::store::Reader;
use crate::threads::join_by;

/// The number of threads that answer requests. They may wait for the hub and the store, but never for a client or a
/// password hash or a search.
pub const WORKERS: usize = 2;

/// The header field in which the relay passes the client's address. The relay removes this field from clients'
/// requests.
pub const CLIENT_HEADER: &str = "Adda-Client";
/// The header field that is present if a trusted proxy reported that the client uses TLS.
pub const SECURE_HEADER: &str = "Adda-Secure";

/// A path whose handler panics, for tests.
#[cfg(test)]
pub(super) const PANIC_PATH: &str = "/panic";

/// The HTTP server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No directory accepts the socket; this is the first directory that was tried.
    #[error("failed to open a private socket in `{}`: {source}", directory.display())]
    Socket { directory: PathBuf, source: io::Error },
    /// The system can't start a worker thread.
    #[error("failed to start an HTTP worker: {0}")]
    Worker(#[source] io::Error),
}

/// The HTTP server and its threads. Dropping it is [`stop`](Self::stop) with [`REQUESTS_STOP_WAIT`].
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    slow: Arc<SlowLanes>,
}

/// The lanes of slow requests.
#[derive(Debug)]
struct SlowLanes {
    logins: SlowLane<SlowRequest>,
    searches: SlowLane<SlowRequest>,
}

impl SlowLanes {
    fn start(shared: &Arc<Shared>) -> io::Result<Self> {
        let start = |lane| {
            let shared = Arc::clone(shared);
            SlowLane::start(lane, move |request, turn| shared.finish(request, turn))
        };
        Ok(Self { logins: start(Lane::Login)?, searches: start(Lane::Search)? })
    }

    fn get(&self, lane: Lane) -> &SlowLane<SlowRequest> {
        match lane {
            Lane::Login => &self.logins,
            Lane::Search => &self.searches,
        }
    }

    fn close(&self) {
        self.logins.close();
        self.searches.close();
    }

    /// Waits for the threads of closed lanes, until `deadline` at most.
    fn join_by(&self, deadline: Instant) {
        self.logins.join_by(deadline);
        self.searches.join_by(deadline);
    }
}

/// The address of the private socket, for the relay.
#[derive(Debug, Clone)]
pub struct Endpoint(pub(super) Arc<Shared>);

pub(super) struct Shared {
    /// `None` after the server has stopped.
    listening: Mutex<Option<Arc<Listening>>>,
    context: Context,
}

/// What handlers need to answer a request.
pub(crate) struct Context {
    pub(super) hub: HubApi,
    pub(super) reader: Reader,
    pub(super) settings: Settings,
    pub(super) attempts: Arc<Mutex<Attempts>>,
    pub(super) metrics: Arc<Metrics>,
    /// The description of the API, encoded at the first request.
    pub(super) openapi: OnceLock<Vec<u8>>,
}

/// The operator's settings for HTTP.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Other origins whose pages may write.
    pub origins: Vec<Origin>,
    /// The directory of the database, if it is a file.
    pub directory: Option<PathBuf>,
    /// The rate limits of messages.
    pub rate_limiters: Arc<RateLimiters>,
    pub cookie: Arc<SessionCookie>,
    pub limits: Limits,
}

impl Server {
    /// Opens the private socket and starts the workers.
    ///
    /// # Errors
    /// If the private socket can't be opened, or a thread can't be started.
    pub fn start(hub: HubApi, reader: Reader, settings: Settings, metrics: Arc<Metrics>) -> Result<Self, StartError> {
        let listening = Mutex::new(Some(Arc::new(Listening::start(settings.directory.as_deref())?)));
        let context = Context { hub, reader, settings, attempts: Arc::default(), metrics, openapi: OnceLock::new() };
        let shared = Arc::new(Shared { listening, context });
        let slow = Arc::new(SlowLanes::start(&shared).map_err(StartError::Worker)?);
        let mut server = Self { shared, workers: Vec::with_capacity(WORKERS), slow };
        for number in 0..WORKERS {
            let (shared, slow) = (Arc::clone(&server.shared), Arc::clone(&server.slow));
            let worker = thread::Builder::new().name(format!("http-{number}"));
            let worker = worker.spawn(move || shared.work(&slow)).map_err(StartError::Worker)?;
            server.workers.push(worker);
        }
        Ok(server)
    }

    /// Accepts no further request, and waits for the threads until `deadline` at most. A thread that needs longer ends
    /// with the process.
    pub fn stop(mut self, deadline: Instant) {
        self.end(deadline);
    }

    fn end(&mut self, deadline: Instant) {
        // A separate statement, so that the mutex is not locked while a starting worker needs it.
        let listening = self.shared.listening().take();
        let Some(listening) = listening else { return };
        for _ in 0..WORKERS {
            listening.server.unblock();
        }
        // Requests that wait are refused, and no further one is taken.
        self.slow.close();
        join_by(&mut self.workers, deadline);
        self.slow.join_by(deadline);
        // A thread that goes on may hold the socket, but it must not leave its directory behind.
        listening.remove();
    }

    /// The address to which the relay connects.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        Endpoint(Arc::clone(&self.shared))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end(Instant::now() + REQUESTS_STOP_WAIT);
    }
}

impl Endpoint {
    /// Connects to `tiny_http`. Its socket may be gone: `tiny_http` ends after any failed accept, and cleaners of
    /// temporary directories remove files. Then a new `tiny_http` replaces it.
    ///
    /// # Errors
    /// If the server has stopped, or no socket can be opened.
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
    pub(super) fn listening(&self) -> MutexGuard<'_, Option<Arc<Listening>>> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces a `tiny_http` that has ended. Returns `None` if the server has stopped.
    fn renewed(&self, ended: &Arc<Listening>) -> io::Result<Option<Arc<Listening>>> {
        let mut listening = self.listening();
        if listening.as_ref().is_some_and(|now| Arc::ptr_eq(now, ended)) {
            log::warn!("the private HTTP socket is gone; opening another");
            let next = Listening::start(self.context.settings.directory.as_deref()).map_err(io::Error::other)?;
            *listening = Some(Arc::new(next));
            for _ in 0..WORKERS {
                ended.server.unblock();
            }
        }
        Ok(listening.clone())
    }

    /// The loop of a worker thread.
    fn work(&self, slow: &SlowLanes) {
        loop {
            let Some(listening) = self.listening().clone() else {
                return;
            };
            // An error means that this `tiny_http` has ended. Another has replaced it, or will replace it when the
            // relay connects next.
            if let Ok(request) = listening.server.recv() {
                // If `answer` panics, `tiny_http` answers the dropped request with 500.
                let _ = catch_unwind(AssertUnwindSafe(|| self.answer(request, slow)));
            }
        }
    }

    fn answer(&self, mut request: tiny_http::Request, slow: &SlowLanes) {
        self.context.metrics.http_requests.increment();
        // Later, `tiny_http` would read an unread body into memory, all at once. The relay has already bounded its
        // size.
        let mut body = Vec::new();
        // An error here means that the relay has closed the connection.
        let _ = request.as_reader().take(BODY_BYTES_MAX as u64).read_to_end(&mut body);
        let (path, query) = match request.url().split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (request.url(), None),
        };
        let question =
            Request { template: "", path, query, headers: request.headers(), body: &body, context: &self.context };
        let method = request.method().as_str();
        let mut reply = caught(method, || dispatch(method, &question));
        match reply.later.take() {
            None => respond(request, reply),
            Some((lane, payer, rest)) => {
                let refused = slow.get(lane).queue(payer, SlowRequest { request, reply, rest });
                if let Some(SlowRequest { request, reply, .. }) = refused {
                    let busy = Reply::from(Reason::Busy.because(lane.full()));
                    respond(request, busy.under(reply));
                }
            }
        }
    }

    /// Answers a request from a slow lane.
    fn finish(&self, slow: SlowRequest, turn: Turn) {
        let SlowRequest { request, reply, rest } = slow;
        let done = match turn {
            Turn::InTime => caught(request.method().as_str(), || rest(&self.context)),
            Turn::Late => Reply::from(Reason::Busy),
        };
        respond(request, done.under(reply));
    }
}

/// A request for a slow lane, after the cheap checks of its handler.
struct SlowRequest {
    request: tiny_http::Request,
    /// The header fields of the final reply.
    reply: Reply,
    rest: Rest,
}

/// Runs a handler, and turns a panic into an internal error.
fn caught(method: &str, handler: impl FnOnce() -> Reply) -> Reply {
    catch_unwind(AssertUnwindSafe(handler)).unwrap_or_else(|_| {
        log::error!("the handler of a {method} request panicked");
        Reply::from(Reason::Internal)
    })
}

fn respond(request: tiny_http::Request, reply: Reply) {
    // An error here means that the relay has closed the connection; the relay reports it.
    let _ = request.respond(reply.into_response());
}
