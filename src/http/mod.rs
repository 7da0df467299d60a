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
use crate::limits::{BODY_BYTES_MAX, Limits};
use crate::metrics::Metrics;
use crate::protocol::http_error;
use crate::rate::Paces;

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
    pub fn start(directory: impl Directory, policy: Policy, metrics: Arc<Metrics>) -> Result<Self, StartError> {
        let shared = Arc::new(Shared {
            listening: Mutex::new(Some(Arc::new(Listening::start()?))),
            is_stopping: AtomicBool::new(false),
            directory: Box::new(directory),
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
pub(crate) mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::hub::{Busy, HistoryError, HistoryFrom, Outcome, Post, RoomDetail, RoomSummary};
    use crate::model::{FrameId, Nonce, Person, RoomId, Seq, UserId, Username};
    use crate::protocol::{ErrorCode, Rejected};
    use crate::store::Stored;

    /// Rooms without a hub.
    #[derive(Debug, Clone, Default)]
    pub(crate) struct Rooms {
        names: Vec<RoomId>,
        is_busy: bool,
    }

    impl Rooms {
        pub(crate) fn of(names: &[&str]) -> Self {
            let names = names.iter().map(|name| RoomId::parse(name).unwrap()).collect();
            Self { names, is_busy: false }
        }

        pub(crate) fn busy() -> Self {
            Self { is_busy: true, ..Self::default() }
        }

        fn summary(id: &RoomId) -> RoomSummary {
            RoomSummary { id: id.clone(), name: id.to_string(), client_count: 2, seq: Seq(7) }
        }
    }

    impl Directory for Rooms {
        fn rooms(&self, after: Option<&RoomId>, limit: usize) -> Result<Vec<RoomSummary>, Busy> {
            if self.is_busy {
                return Err(Busy);
            }
            let behind = self.names.iter().filter(|id| after.is_none_or(|after| *id > after));
            Ok(behind.take(limit).map(Self::summary).collect())
        }

        fn room(&self, id: &RoomId) -> Result<Option<RoomDetail>, Busy> {
            assert_ne!(id.as_str(), "panic", "as the test wants it");
            if self.is_busy {
                return Err(Busy);
            }
            Ok(self.names.contains(id).then(|| RoomDetail {
                summary: Self::summary(id),
                clients: vec![Person { id: UserId(Uuid::nil()), username: Username::parse("Ana").unwrap() }],
            }))
        }

        fn messages(
            &self,
            id: &RoomId,
            _: HistoryFrom,
            limit: usize,
            words: Option<&str>,
        ) -> Result<Option<(Vec<Stored>, bool)>, HistoryError> {
            let frame = |seq: u64| Stored {
                id: FrameId(Uuid::from_u128(u128::from(seq))),
                seq: Seq(seq),
                json: format!(r#"{{"seq":{seq},"q":"{}"}}"#, words.unwrap_or("-")).into_bytes().into(),
            };
            Ok(self.room(id)?.map(|_| ((1..=limit.min(3) as u64).map(frame).collect(), limit < 3)))
        }

        fn bearer(&self, token: &str) -> Result<Option<UserId>, Busy> {
            Ok((token == "good").then(|| UserId(Uuid::nil())))
        }

        fn post(&self, post: Post) -> Result<Outcome, Busy> {
            if self.is_busy {
                return Err(Busy);
            }
            let nonce = post.nonce.as_ref().map_or("-", Nonce::as_str);
            let json = format!(r#"{{"by":"{}","says":"{}","nonce":"{nonce}"}}"#, post.author.username, post.content);
            let json: Arc<[u8]> = json.into_bytes().into();
            Ok(match nonce {
                "again" => Outcome::Duplicate(json),
                "taken" => Outcome::Refused(Rejected::new(ErrorCode::Conflict, "taken", post.nonce)),
                _ => Outcome::Stored(json),
            })
        }
    }

    impl Reply {
        pub(crate) fn header(&self, name: &str) -> Option<&str> {
            let header = self.headers.iter().find(|(field, _)| *field == name)?;
            Some(&header.1)
        }
    }

    pub(crate) fn headers(fields: &[(&str, &str)]) -> Vec<tiny_http::Header> {
        let header = |(name, value): &(&str, &str)| tiny_http::Header::from_bytes(*name, *value).unwrap();
        fields.iter().map(header).collect()
    }

    pub(crate) fn request<'a>(target: &'a str, headers: &'a [tiny_http::Header], rooms: &'a Rooms) -> Request<'a> {
        static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::default);
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        static POLICY: LazyLock<Policy> = LazyLock::new(|| {
            let limits = Limits { rate_per_s: 0, ..Limits::default() };
            let origins = vec!["https://friend.example".parse().unwrap()];
            Policy { origins, paces: Arc::new(Paces::new(&limits)), limits }
        });
        Request { path, query, headers, body: &[], directory: rooms, policy: &POLICY, metrics: &METRICS }
    }

    fn ask(method: &str, target: &str) -> Reply {
        dispatch(method, &request(target, &[], &Rooms::of(&["tea"])))
    }

    fn posted(target: &str, fields: &[(&str, &str)], body: &str) -> (u16, String) {
        let (rooms, headers) = (Rooms::of(&["tea"]), headers(fields));
        let reply = dispatch("POST", &Request { body: body.as_bytes(), ..request(target, &headers, &rooms) });
        (reply.status, String::from_utf8(reply.body.into_owned()).unwrap())
    }

    #[test]
    fn a_message_is_posted_as_json_or_as_text() {
        const PATH: &str = "/api/rooms/tea/messages";
        const JSON: (&str, &str) = ("Content-Type", "application/json");
        const TEXT: (&str, &str) = ("Content-Type", "text/plain; charset=utf-8");
        for (target, fields, body, status, part) in [
            (
                PATH,
                &[JSON][..],
                r#"{"content":"hi","username":"ana"}"#,
                201,
                r#"{"data":{"by":"ana","says":"hi","nonce":"-"}}"#,
            ),
            (PATH, &[TEXT], "{as typed", 201, r#""by":"Anonymous","says":"{as typed""#),
            (PATH, &[TEXT, ("Idempotency-Key", "k1")], "hi", 201, r#""nonce":"k1""#),
            ("/api/rooms/tea/messages?username=bob+b", &[TEXT], "hi", 201, r#""by":"bob b""#),
            (PATH, &[JSON], r#"{"content":"hi","nonce":"again"}"#, 200, r#""nonce":"again""#),
            (PATH, &[JSON], r#"{"content":"hi","nonce":"taken"}"#, 409, "conflict"),
            (PATH, &[TEXT, ("Authorization", "Bearer good")], "hi", 201, "says"),
            (PATH, &[TEXT, ("Authorization", "Bearer bad")], "hi", 401, "nobody's"),
            (PATH, &[TEXT, ("Authorization", "Basic x")], "hi", 401, "nobody's"),
            (PATH, &[], "hi", 415, "application/json"),
            (PATH, &[JSON], "hi", 400, "bad_json"),
            (PATH, &[JSON], r#"{"content":""}"#, 400, "bad_json"),
            (PATH, &[JSON], r#"{"type":"join","room_id":"x"}"#, 400, "bad_type"),
            (PATH, &[TEXT, ("Host", "a"), ("Origin", "http://b")], "hi", 403, "forbidden"),
            (PATH, &[TEXT, ("Host", "a"), ("Origin", "http://a")], "hi", 201, "says"),
            ("/api/rooms/dm:x/messages", &[TEXT], "hi", 404, "not_found"),
            ("/api/rooms/tea/messages?username=%E2%80%AEx", &[TEXT], "hi", 400, "bad_name"),
        ] {
            let (found, text) = posted(target, fields, body);
            assert_eq!(found, status, "{target} {fields:?} {body}: {text}");
            assert!(text.contains(part), "{text} has no {part}");
        }
        let long = "x".repeat(9_000);
        assert_eq!(posted(PATH, &[TEXT], &long).0, 413);
    }

    #[test]
    fn history_says_how_to_go_on() {
        let body = |target: &str| String::from_utf8(ask("GET", target).body.into_owned()).unwrap();
        let page = body("/api/rooms/tea/messages?limit=2&q=a%20b");
        assert!(
            page.starts_with(
                r#"{"data":[{"seq":1,"q":"a b"},{"seq":2,"q":"a b"}],"next":"00000000-0000-0000-0000-000000000001"}"#
            ),
            "{page}"
        );
        let on = body("/api/rooms/tea/messages?limit=2&after=00000000-0000-0000-0000-000000000001");
        assert!(on.ends_with(r#""next":"00000000-0000-0000-0000-000000000002"}"#), "{on}");
        assert!(!body("/api/rooms/tea/messages?limit=200").contains("next"));
        for bad in [
            "limit=0",
            "before=x",
            "before=00000000-0000-0000-0000-000000000001&after=00000000-0000-0000-0000-000000000001",
        ] {
            assert_eq!(ask("GET", &format!("/api/rooms/tea/messages?{bad}")).status, 400, "{bad}");
        }
        assert_eq!(ask("GET", "/api/rooms/none/messages").status, 404);
    }

    #[test]
    fn each_path_has_its_methods() {
        for (target, public) in
            [("/", false), ("/metrics", false), ("/healthz", true), ("/api/rooms", true), ("/api/rooms/tea", true)]
        {
            for (method, status) in
                [("GET", 200), ("HEAD", 200), ("OPTIONS", 204), ("POST", 405), ("get", 405), ("TRACE", 405)]
            {
                let reply = ask(method, target);
                assert_eq!(reply.status, status, "{method} {target}");
                let expected = (public && status != 405).then_some("*");
                assert_eq!(reply.header("Access-Control-Allow-Origin"), expected, "{target}");
                let allow = (status > 200).then_some("GET, HEAD, OPTIONS");
                assert_eq!(reply.header("Allow"), allow, "{method} {target}");
            }
            let methods = ask("OPTIONS", target).header("Access-Control-Allow-Methods").map(str::to_string);
            assert_eq!(methods.is_some(), public, "{target}");
        }
        assert_eq!(ask("OPTIONS", "*").status, 204);
        assert_eq!(ask("OPTIONS", "*").header("Allow"), Some("GET, HEAD, POST, OPTIONS"));
    }

    #[test]
    fn a_foreign_page_may_read_what_is_public_and_write_nothing() {
        const MESSAGES: &str = "/api/rooms/tea/messages";
        let own = [("Host", "chat.example"), ("Origin", "https://chat.example")];
        let foreign = [("Host", "chat.example"), ("Origin", "https://evil.example")];
        let friend = [("Host", "chat.example"), ("Origin", "https://friend.example")];
        let ask = |method, target, fields: &[(&str, &str)]| {
            let (rooms, headers) = (Rooms::of(&["tea"]), headers(fields));
            let reply = dispatch(method, &request(target, &headers, &rooms));
            let shared_with = reply.header("Access-Control-Allow-Origin").map(str::to_owned);
            let methods = reply.header("Access-Control-Allow-Methods").map(str::to_owned);
            (reply.status, shared_with, methods)
        };
        let given = |text: &str| Some(text.to_owned());
        for method in ["POST", "PUT", "PATCH", "DELETE", "get", "TRACE"] {
            for target in [MESSAGES, "/api/rooms", "/", "/none"] {
                assert_eq!(ask(method, target, &foreign), (403, None, None), "{method} {target}");
                assert_ne!(ask(method, target, &own).0, 403, "{method} {target}");
                assert_ne!(ask(method, target, &[]).0, 403, "{method} {target}");
            }
        }
        let twice = [own[0], own[1], own[1]];
        assert_eq!(ask("POST", MESSAGES, &twice).0, 403);
        let plain_page = [("Host", "chat.example"), ("Origin", "http://chat.example"), (SECURE_HEADER, "1")];
        assert_eq!(ask("POST", MESSAGES, &plain_page).0, 403, "it came by TLS, and the page did not");
        assert_eq!(ask("GET", MESSAGES, &foreign), (200, given("*"), None));
        assert_eq!(ask("GET", "/metrics", &foreign).1, None);
        // 415: there is no body; but it got so far, and the page can read that.
        assert_eq!(ask("POST", MESSAGES, &friend), (415, given("https://friend.example"), None));
        assert_eq!(ask("POST", MESSAGES, &own), (415, None, None));
        let preflight = |page: [(&str, &str); 2], method: &str, target| {
            let (status, shared_with, methods) =
                ask("OPTIONS", target, &[page[0], page[1], ("Access-Control-Request-Method", method)]);
            assert_eq!(status, 204);
            (shared_with, methods)
        };
        assert_eq!(preflight(foreign, "GET", MESSAGES), (given("*"), given("GET, HEAD")));
        for method in ["POST", "PUT", "DELETE", "get"] {
            assert_eq!(preflight(foreign, method, MESSAGES), (None, None), "{method}");
        }
        assert_eq!(preflight(foreign, "GET", "/metrics"), (None, None));
        let (shared_with, methods) = preflight(friend, "POST", MESSAGES);
        assert_eq!((shared_with, methods), (given("https://friend.example"), given("GET, HEAD, POST, OPTIONS")));
    }

    #[test]
    fn other_paths_are_not_found() {
        for target in [
            "/none",
            "/api",
            "/api/rooms/",
            "/api/rooms/a/b",
            "/api/rooms/tea/",
            "/healthz/",
            "//",
            "/static/index.html",
        ] {
            for method in ["GET", "POST", "OPTIONS"] {
                let reply = ask(method, target);
                assert_eq!(reply.status, 404, "{target}");
                assert_eq!(reply.body, &br#"{"error":"Not found","code":"not_found"}"#[..]);
            }
        }
    }

    #[test]
    fn metrics_are_in_the_text_format() {
        let reply = ask("GET", "/metrics");
        assert_eq!(reply.header("Content-Type"), Some("text/plain; version=0.0.4"));
        assert!(reply.body.starts_with(b"# HELP adda_"));
        assert_eq!(ask("GET", "/healthz").body, &b"ok\n"[..]);
    }

    fn exchange(endpoint: &Endpoint, target: &str) -> String {
        use std::io::Write;
        let mut stream = endpoint.connect().unwrap();
        write!(stream, "GET {target} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn a_panic_costs_its_own_request_only() {
        let http = Server::start(Rooms::default(), Policy::default(), Arc::default()).unwrap();
        for _ in 0..2 * WORKERS {
            let answer = exchange(&http.endpoint(), "/api/rooms/panic");
            assert!(answer.starts_with("HTTP/1.0 500 "), "{answer}");
            assert!(answer.ends_with(r#""code":"internal"}"#), "{answer}");
        }
        assert!(exchange(&http.endpoint(), "/healthz").ends_with("\r\n\r\nok\n"));
    }

    #[test]
    fn the_socket_is_private_and_goes_with_its_server() {
        use std::os::unix::fs::PermissionsExt;
        let http = Server::start(Rooms::default(), Policy::default(), Arc::default()).unwrap();
        let endpoint = http.endpoint();
        let path = endpoint.0.listening().as_ref().unwrap().path.clone();
        let directory = path.parent().unwrap();
        assert_eq!(fs::metadata(directory).unwrap().permissions().mode() & 0o777, 0o700);
        drop(http);
        assert!(!directory.exists());
        assert_eq!(endpoint.connect().unwrap_err().kind(), io::ErrorKind::NotConnected);
    }

    #[test]
    fn a_lost_socket_is_made_anew() {
        let http = Server::start(Rooms::default(), Policy::default(), Arc::default()).unwrap();
        let endpoint = http.endpoint();
        for loss in ["file", "listener", "file"] {
            let listening = endpoint.0.listening().clone().unwrap();
            match loss {
                "file" => fs::remove_dir_all(listening.path.parent().unwrap()).unwrap(),
                _ => rustix::net::shutdown(&listening.listener, rustix::net::Shutdown::Both).unwrap(),
            }
            drop(listening);
            for _ in 0..2 * WORKERS {
                assert!(exchange(&endpoint, "/healthz").ends_with("ok\n"), "{loss}");
            }
        }
    }

    #[test]
    fn what_a_killed_server_left_is_swept_away() {
        let base = tempfile::tempdir().unwrap();
        let running = Listening::start_in(base.path()).unwrap();
        let killed = base.path().join(format!("{DIRECTORY_PREFIX}killed"));
        let starting = base.path().join(format!("{DIRECTORY_PREFIX}starting"));
        let other = base.path().join("other");
        for directory in [&killed, &starting, &other] {
            fs::create_dir(directory).unwrap();
        }
        drop(UnixListener::bind(killed.join(SOCKET_NAME)).unwrap());
        drop(UnixListener::bind(other.join(SOCKET_NAME)).unwrap());
        let _next = Listening::start_in(base.path()).unwrap();
        assert!(!killed.exists());
        assert!(running.path.exists() && starting.exists() && other.exists());
    }

    #[test]
    fn a_place_that_cannot_be_is_named() {
        let error = Listening::start_in(Path::new("/nonexistent")).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let base = std::env::temp_dir().join("x".repeat(120));
        let _ = fs::create_dir(&base);
        let error = Listening::start_in(&base).err().unwrap();
        let left = fs::read_dir(&base).unwrap().count();
        fs::remove_dir(&base).unwrap();
        assert!(error.to_string().contains("SUN_LEN"), "{error}");
        assert_eq!(left, 0);
    }
}
