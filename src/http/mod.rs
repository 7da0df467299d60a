//! Everything over HTTP that is not a WebSocket: `tiny_http` on a private Unix socket, its workers, the routes.
//!
//! `tiny_http` never meets the network: only the relay connects here, with one checked request at a time. A few
//! worker threads take the requests and answer them; a handler is a function from a request to a [`Reply`] and
//! touches no socket. The workers end when the [`Server`] is dropped.

mod api;
mod assets;

use std::borrow::Cow;
use std::fmt;
use std::fs::{self, DirBuilder};
use std::io::{self, Cursor, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use serde::Serialize;
use uuid::Uuid;

pub use self::api::Directory;
use crate::config::Origin;
use crate::head::{BadEscape, query_value};
use crate::identity::Door;
use crate::limits::{BODY_BYTES_MAX, Limits};
use crate::metrics::Metrics;
use crate::protocol::http_error;
use crate::rate::Paces;
use crate::role::Registration;

/// Threads that answer requests. They wait for the hub at most, never for a client.
pub const WORKERS: usize = 2;

/// Where the relay says who asks: the client's address. No client can send it through.
pub const CLIENT_HEADER: &str = "Adda-Client";
/// There where the client came by TLS, by the word of a trusted proxy.
pub const SECURE_HEADER: &str = "Adda-Secure";

/// What the private directories' names begin with.
const DIRECTORY_PREFIX: &str = "adda-http-";
/// The socket in one.
const SOCKET_NAME: &str = "http";

/// What any page may do, and send along, where something is public: read it.
const READING: [&str; 2] = ["GET", "HEAD"];
const READING_HEADERS: &str = "Authorization, Last-Event-ID";
/// What the pages may send along that the operator lets write.
const WRITING_HEADERS: &str = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID";
/// How long a browser need not ask again whether it may.
const PREFLIGHT_AGE_S: &str = "600";

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
}

/// Where the relay connects.
#[derive(Debug, Clone)]
pub struct Endpoint(Arc<Shared>);

struct Shared {
    /// Nothing once it has stopped.
    listening: Mutex<Option<Arc<Listening>>>,
    is_stopping: AtomicBool,
    directory: Box<dyn Directory>,
    door: Door,
    policy: Policy,
    metrics: Arc<Metrics>,
}

/// What the operator allows.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Pages besides our own that may write.
    pub origins: Vec<Origin>,
    /// How fast everybody may talk.
    pub paces: Arc<Paces>,
    /// How one comes to an account.
    pub registration: Registration,
    /// The bounds.
    pub limits: Limits,
}

/// One run of `tiny_http`. The fields are dropped in this order: it looks for its socket as it goes.
struct Listening {
    server: tiny_http::Server,
    path: PathBuf,
    /// A second handle of the socket that it accepts on, to end that.
    listener: UnixListener,
    _directory: PrivateDirectory,
}

impl Server {
    /// Opens the private socket and starts the workers.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(
        directory: impl Directory,
        door: Door,
        policy: Policy,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let shared = Arc::new(Shared {
            listening: Mutex::new(Some(Arc::new(Listening::start()?))),
            is_stopping: AtomicBool::new(false),
            directory: Box::new(directory),
            door,
            policy,
            metrics,
        });
        let mut server = Self { shared, workers: Vec::with_capacity(WORKERS) };
        for number in 0..WORKERS {
            let shared = Arc::clone(&server.shared);
            let worker = thread::Builder::new().name(format!("http-{number}"));
            let worker = worker.spawn(move || shared.work()).map_err(StartError::Worker)?;
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
    /// Answers what is queued, ends the workers, and takes the socket's directory away.
    fn drop(&mut self) {
        self.shared.is_stopping.store(true, Ordering::Release);
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
    fn work(&self) {
        loop {
            let Some(listening) = self.listening().clone() else {
                return;
            };
            match listening.server.recv() {
                Ok(request) => {
                    // What is not answered is answered with 500 by its own drop.
                    let _ = catch_unwind(AssertUnwindSafe(|| self.answer(request)));
                }
                Err(_) if self.is_stopping.load(Ordering::Acquire) => return,
                // Its listener has ended: the next request through the relay finds that out.
                Err(_) => {}
            }
        }
    }

    fn answer(&self, mut request: tiny_http::Request) {
        self.metrics.http_requests.increment();
        // What is left of a body is put into memory by tiny_http, all at once. The relay has seen to its size.
        let mut body = Vec::new();
        // An error here is the relay's having gone.
        let _ = request.as_reader().take(BODY_BYTES_MAX as u64).read_to_end(&mut body);
        let (path, query) = match request.url().split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (request.url(), None),
        };
        let question = Request {
            path,
            query,
            headers: request.headers(),
            body: &body,
            directory: &*self.directory,
            door: &self.door,
            policy: &self.policy,
            metrics: &self.metrics,
        };
        let method = request.method().as_str();
        let reply = catch_unwind(AssertUnwindSafe(|| dispatch(method, &question))).unwrap_or_else(|_| {
            log::error!("a handler of {method} requests has panicked");
            Reply::problem(500, "this should not have happened", "internal")
        });
        // An error here is the relay's having gone, which is its to tell.
        let _ = request.respond(reply.into_response());
    }
}

impl Listening {
    fn start() -> Result<Self, StartError> {
        let mut last = None;
        for base in directories() {
            match Self::start_in(&base) {
                Ok(listening) => return Ok(listening),
                Err(source) => {
                    last = Some(StartError::Socket { directory: base, source });
                }
            }
        }
        Err(last.unwrap_or_else(|| StartError::Socket {
            directory: PathBuf::new(),
            source: io::ErrorKind::NotFound.into(),
        }))
    }

    fn start_in(base: &Path) -> io::Result<Self> {
        sweep(base);
        let directory = PrivateDirectory::make(base)?;
        let path = directory.0.join(SOCKET_NAME);
        let listener = UnixListener::bind(&path)?;
        let server = tiny_http::Server::from_listener(listener.try_clone()?, None).map_err(io::Error::other)?;
        Ok(Self { server, path, listener, _directory: directory })
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // tiny_http ends its accepting by connecting to the socket's path, which may be gone; this always does.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
    }
}

/// Where a private socket may be, the best place first.
fn directories() -> impl Iterator<Item = PathBuf> {
    let of_service = std::env::var_os("RUNTIME_DIRECTORY").map(|paths| {
        // There may be several, with colons between them (systemd.exec).
        let first = paths.to_string_lossy();
        PathBuf::from(first.split(':').next().unwrap_or_default())
    });
    let of_user = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let shared = std::env::temp_dir();
    of_service.into_iter().chain(of_user).filter(|path| path.is_absolute()).chain([shared])
}

/// Takes away what killed servers have left: directories like ours whose socket nobody listens to any more.
fn sweep(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(DIRECTORY_PREFIX) {
            // Without waiting, as it may be anybody's: who listens takes it or is busy, and another user's may not be
            // looked into.
            let connected = rustix::net::SocketAddrUnix::new(entry.path().join(SOCKET_NAME)).and_then(|address| {
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
                rustix::net::connect(&socket, &address)
            });
            if connected == Err(rustix::io::Errno::CONNREFUSED) {
                drop(PrivateDirectory(entry.path()));
            }
        }
    }
}

/// A directory that nobody else can look into, until it is dropped.
struct PrivateDirectory(PathBuf);

impl PrivateDirectory {
    fn make(base: &Path) -> io::Result<Self> {
        let path = base.join(format!("{DIRECTORY_PREFIX}{}", Uuid::new_v4().simple()));
        // Fails where there is anything by that name already.
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a handler is given.
pub(crate) struct Request<'a> {
    path: &'a str,
    query: Option<&'a str>,
    headers: &'a [tiny_http::Header],
    body: &'a [u8],
    directory: &'a dyn Directory,
    door: &'a Door,
    policy: &'a Policy,
    metrics: &'a Metrics,
}

impl Request<'_> {
    /// Who asks. Only a test does so without the relay, from nowhere.
    fn address(&self) -> IpAddr {
        let given = self.header(CLIENT_HEADER).and_then(|address| address.parse().ok());
        given.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }

    /// Whether who asks came by TLS, as far as is known.
    fn is_secure(&self) -> bool {
        self.header(SECURE_HEADER).is_some()
    }

    /// Whether the page that asks, if it is one, may write here.
    fn may_write(&self) -> bool {
        let mut given = self.headers.iter().filter(|header| header.field.equiv("Origin"));
        let origin = given.next().map(|header| header.value.as_str());
        given.next().is_none()
            && Origin::is_welcome(origin, self.header("Host"), self.is_secure(), &self.policy.origins)
    }

    /// The page's origin, where the operator named it.
    fn named_origin(&self) -> Option<&Origin> {
        let given: Origin = self.header("Origin")?.parse().ok()?;
        self.policy.origins.iter().find(|named| **named == given)
    }

    /// The body's type without its parameters, in lower case.
    fn media_type(&self) -> String {
        let given = self.header("Content-Type").unwrap_or_default();
        given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    fn header(&self, name: &'static str) -> Option<&str> {
        let header = self.headers.iter().find(|header| header.field.equiv(name))?;
        Some(header.value.as_str())
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

/// What a handler gives: a whole answer in memory. The relay adds what stands in every answer: nobody keeps it, no page
/// frames it, it is no page itself; a handler that knows better says so.
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(&'static str, Cow<'static, str>)>,
    body: Cow<'static, [u8]>,
}

impl Reply {
    fn new(status: u16, content_type: &'static str, body: impl Into<Cow<'static, [u8]>>) -> Self {
        let mut reply = Self::empty(status).with("Content-Type", content_type);
        reply.body = body.into();
        reply
    }

    fn empty(status: u16) -> Self {
        Self { status, headers: Vec::with_capacity(12), body: Cow::Borrowed(&[]) }
    }

    fn json(value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::new(200, "application/json", body),
            Err(_) => Self::problem(500, "this should not have happened", "internal"),
        }
    }

    fn problem(status: u16, sentence: &str, code: &str) -> Self {
        Self::new(status, "application/json", http_error(sentence, code))
    }

    fn not_found() -> Self {
        Self::problem(404, "Not found", "not_found")
    }

    /// Adds a header field. A value comes from this program, never from a request: tiny_http would write a line
    /// end in it as it is.
    fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        let value = value.into();
        debug_assert!(value.bytes().all(|b| matches!(b, b' '..=b'~')), "{name}");
        self.headers.push((name, value));
        self
    }

    fn into_response(self) -> tiny_http::Response<Cursor<Cow<'static, [u8]>>> {
        let headers = self.headers.iter().filter_map(|(name, value)| {
            // The check of `with`, for a build without assertions.
            let is_clean = value.bytes().all(|b| matches!(b, b' '..=b'~'));
            tiny_http::Header::from_bytes(*name, value.as_bytes()).ok().filter(|_| is_clean)
        });
        let length = self.body.len();
        let headers = headers.collect();
        let body = Cursor::new(self.body);
        tiny_http::Response::new(tiny_http::StatusCode(self.status), headers, body, Some(length), None)
            .with_chunked_threshold(usize::MAX)
    }
}

/// Which paths a route is for.
enum Paths {
    /// This one.
    Exact(&'static str),
    /// This and one part more, which may not be empty.
    Item(&'static str),
    /// This, a part that may not be empty, and this behind it.
    Within(&'static str, &'static str),
    /// Those of the page.
    Assets,
}

impl Paths {
    fn has(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == *exact,
            Self::Item(prefix) => path.strip_prefix(prefix).is_some_and(|item| !item.is_empty() && !item.contains('/')),
            Self::Within(prefix, suffix) => {
                let item = path.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(suffix));
                item.is_some_and(|item| !item.is_empty() && !item.contains('/'))
            }
            Self::Assets => assets::has(path),
        }
    }
}

type Handler = fn(&Request<'_>) -> Reply;

/// What can be done at some paths. HEAD goes with GET, OPTIONS with everything.
struct Route {
    paths: Paths,
    methods: &'static [(&'static str, Handler)],
    /// Whether any page may read it; none but ours and those that the operator named may write anything.
    is_public: bool,
}

const ROUTES: &[Route] = &[
    Route { paths: Paths::Exact("/healthz"), methods: &[("GET", healthz)], is_public: true },
    Route { paths: Paths::Exact("/metrics"), methods: &[("GET", metrics)], is_public: false },
    Route { paths: Paths::Exact("/api/rooms"), methods: &[("GET", api::rooms)], is_public: true },
    Route { paths: Paths::Item("/api/rooms/"), methods: &[("GET", api::room)], is_public: true },
    Route {
        paths: Paths::Within("/api/rooms/", "/messages"),
        methods: &[("GET", api::messages), ("POST", api::post)],
        is_public: true,
    },
    Route { paths: Paths::Assets, methods: &[("GET", assets::get)], is_public: false },
];

impl Route {
    /// The methods that some routes take, as `Allow` lists them.
    fn allowed<'a>(routes: impl IntoIterator<Item = &'a Self>) -> String {
        let mut methods = Vec::new();
        for (method, _) in routes.into_iter().flat_map(|route| route.methods) {
            let with_head = ["GET", "HEAD"].iter().take(2 * usize::from(*method == "GET"));
            for method in [method].into_iter().chain(with_head) {
                if !methods.contains(method) {
                    methods.push(*method);
                }
            }
        }
        methods.push("OPTIONS");
        methods.join(", ")
    }
}

/// Finds the handler of a request, and says which pages may have its answer. What is not there to read writes, so a
/// foreign page is turned away here, whatever it asks for.
fn dispatch(method: &str, request: &Request<'_>) -> Reply {
    let is_writing = !READING.contains(&method) && method != "OPTIONS";
    if is_writing && !request.may_write() {
        return Reply::problem(403, "a page of another origin may not write here", "forbidden");
    }
    if request.path == "*" {
        return Reply::empty(204).with("Allow", Route::allowed(ROUTES));
    }
    let Some(route) = ROUTES.iter().find(|route| route.paths.has(request.path)) else {
        return Reply::not_found();
    };
    let handled_as = if method == "HEAD" { "GET" } else { method };
    let reply = if let Some((_, handler)) = route.methods.iter().find(|(name, _)| *name == handled_as) {
        handler(request)
    } else {
        let allowed = Route::allowed([route]);
        if method == "OPTIONS" {
            Reply::empty(204).with("Allow", allowed)
        } else {
            Reply::problem(405, "this method is not for here", "method_not_allowed").with("Allow", allowed)
        }
    };
    shared(reply, method, route, request)
}

/// Tells a browser which pages may have an answer, or may ask (Fetch, “CORS protocol”): any may read what is public,
/// those that the operator named everything.
fn shared(reply: Reply, method: &str, route: &Route, request: &Request<'_>) -> Reply {
    // A preflight is about the request that is to come.
    let intended = request.header("Access-Control-Request-Method").filter(|_| method == "OPTIONS");
    let is_reading = match intended {
        Some(intended) => READING.contains(&intended),
        None => READING.contains(&method) || method == "OPTIONS",
    };
    let asks = |reply: Reply, methods: String, headers| {
        if method != "OPTIONS" {
            return reply;
        }
        reply
            .with("Access-Control-Allow-Methods", methods)
            .with("Access-Control-Allow-Headers", headers)
            .with("Access-Control-Max-Age", PREFLIGHT_AGE_S)
    };
    if route.is_public && is_reading {
        let reply = reply.with("Access-Control-Allow-Origin", "*").with("Cross-Origin-Resource-Policy", "cross-origin");
        asks(reply, READING.join(", "), READING_HEADERS)
    } else if let Some(origin) = request.named_origin() {
        let reply = reply.with("Access-Control-Allow-Origin", origin.to_string()).with("Vary", "Origin");
        asks(reply, Route::allowed([route]), WRITING_HEADERS)
    } else {
        reply
    }
}

/// Says that it is well only if the hub and the store say anything at all.
fn healthz(request: &Request<'_>) -> Reply {
    if request.directory.rooms(None, 1).is_err() {
        return Reply::problem(503, "the server is busy", "busy").with("Retry-After", "1");
    }
    Reply::new(200, "text/plain; charset=utf-8", &b"ok\n"[..])
}

fn metrics(request: &Request<'_>) -> Reply {
    let text = request.metrics.render().into_bytes();
    Reply::new(200, "text/plain; version=0.0.4", text)
}

#[cfg(test)]
pub(crate) mod tests;
