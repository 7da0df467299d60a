//! The public port: accepts connections, enforces the connection limits, and starts a thread for each connection.
//!
//! At the limit of connections, one that is idle or without a complete head makes room for another: the largest address
//! pays first. A connection over the rate limit of its address waits for its turn on its own thread. The connections of a
//! trusted proxy have no rate limit: they are those of many clients, and the proxy can limit each of these.
//!
//! Runs on the thread `listener`, which never waits for a peer. The thread `refuser` keeps a refused connection until
//! the client could read its 503. After an error of `accept` the listener waits and tries again; such an error never
//! ends it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::listen;

use crate::config::Cidr;
use crate::front::keep_alive;
use crate::front::relay::Relay;
use crate::front::shares::{Bounds, Claim, Pool, Share};
use crate::http1::forwarded::{Client, is_forwarded, is_proxy};
use crate::http1::head::{self, Head};
use crate::http1::response::{self, Problem};
use crate::limits::{HEAD_SPARED, IDLE_WAIT, REFUSED_MAX, REQUESTS_PER_CONNECTION_MAX, STACK_BYTES};
use crate::metrics::{self, Metrics, Refusal};
use crate::model::ConnectionId;
use crate::model::reason::Reason;
use crate::rate::network_of;
use crate::session::{self, Context};
use crate::threads::lower_priority;

/// The length of the system's queue of connections that wait for `accept`.
const BACKLOG: i32 = 4_096;
/// The nice value of the threads of connections, relative to the hub's.
const NICE: i32 = 5;
/// The first and the longest back-off after an error of `accept`.
const BACK_OFF_MIN: Duration = Duration::from_millis(10);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);
/// How long a refused connection is kept for its client to read the response.
const REFUSED_WAIT: Duration = Duration::from_secs(1);
/// How often the kept refused connections are checked.
const REFUSED_CHECK_INTERVAL: Duration = Duration::from_millis(20);
/// How long the listener waits until the thread of a displaced connection has ended, and how often it checks that.
const DISPLACED_WAIT: Duration = Duration::from_millis(500);
const DISPLACED_CHECK_INTERVAL: Duration = Duration::from_micros(200);

/// The responses to refused connections.
const FULL: Problem<'_> =
    Problem { headers: &[("Retry-After", "5")], ..Problem::new(Reason::ServerFull, Reason::ServerFull.sentence()) };
const SHARE_TAKEN: Problem<'_> =
    Problem { headers: &[("Retry-After", "5")], ..Problem::new(Reason::AddressFull, Reason::AddressFull.sentence()) };
const TOO_FAST: Problem<'_> = Problem {
    headers: &[("Retry-After", "1")],
    ..Problem::new(Reason::TooManyConnections, Reason::TooManyConnections.sentence())
};

/// The parameters of all connection threads, shared by them.
#[derive(Debug)]
pub struct Front {
    /// The context of WebSocket sessions.
    pub sessions: Context,
    /// The relay for all other requests.
    pub relay: Relay,
    /// Trusted proxies: the server uses their headers about the client's address.
    pub proxies: Vec<Cidr>,
    /// Maximum number of connections.
    pub connections_max: u64,
    /// Maximum number of connections of one address, IPv6 by /64; 0 for no limit.
    pub per_address_max: u32,
}

/// Opens the public port.
///
/// # Errors
/// An error of the system: the port is in use, or the address is not one of this machine.
pub fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    // A second `listen`, because the standard library asks for a shorter queue.
    listen(&listener, BACKLOG)?;
    Ok(listener)
}

/// The threads `listener` and `refuser`.
#[derive(Debug)]
pub struct Listening {
    socket: Arc<TcpListener>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Listening {
    /// Starts the threads, which accept connections.
    ///
    /// # Errors
    /// If a thread can't be started.
    pub fn start(socket: TcpListener, front: Front) -> io::Result<Self> {
        let socket = Arc::new(socket);
        let shared = Arc::new(Shared {
            idle: keep_alive::idle_pool(front.connections_max),
            front,
            count: AtomicU64::new(0),
            arriving: Pool::new(Bounds {
                total: usize::MAX,
                of_owner: usize::MAX,
                spared: HEAD_SPARED,
                cut: Shutdown::Both,
            }),
            addresses: Mutex::default(),
            has_warned: AtomicBool::new(false),
        });
        // If the queue is full, a refused connection is closed at once.
        let (refuse, refused) = bounded(REFUSED_MAX);
        let refuser = thread::Builder::new()
            .name("refuser".into())
            .stack_size(STACK_BYTES)
            .spawn(move || close_refused(&refused))?;
        let accepting = Accepting { socket: Arc::clone(&socket), shared: Arc::clone(&shared), refuse };
        let listener =
            thread::Builder::new().name("listener".into()).stack_size(STACK_BYTES).spawn(move || accepting.run())?;
        Ok(Self { socket, shared, threads: vec![listener, refuser] })
    }

    /// Stops accepting, ends idle connections, and waits for the threads `listener` and `refuser` to end. The other
    /// connections stay open.
    pub fn stop(&mut self) {
        self.shared.idle.close();
        // After a shutdown of the socket, `accept` fails. If the shutdown fails, the threads end with the process.
        if rustix::net::shutdown(&*self.socket, rustix::net::Shutdown::Both).is_ok() {
            for thread in self.threads.drain(..) {
                // A panic has been reported already.
                let _ = thread.join();
            }
        }
    }

    /// The number of connections whose thread has not ended.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.connections()
    }
}

/// The parameters of all connection threads, and the number of open connections. A connection is counted before its
/// thread starts.
#[derive(Debug)]
struct Shared {
    front: Front,
    count: AtomicU64,
    /// The connections whose head is not complete.
    arriving: Arc<Pool>,
    /// The connections that are kept and wait for a request.
    idle: Arc<Pool>,
    addresses: Mutex<HashMap<IpAddr, u32>>,
    /// Whether the log has a line about a proxy that is not trusted; one line is enough.
    has_warned: AtomicBool,
}

/// A connection's permit under the limits. Dropping it releases it.
struct Permit {
    shared: Arc<Shared>,
    /// The address under whose limit the connection counts; `None` until the head of a proxied request names it.
    address: Option<IpAddr>,
}

impl Shared {
    fn metrics(&self) -> &Metrics {
        &self.front.sessions.metrics
    }

    fn addresses(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a permit for a connection; `None` if the limit is reached. Only the thread `listener` takes permits.
    fn take(self: &Arc<Self>, peer: IpAddr) -> Option<Permit> {
        if self.is_full() && !self.displace_one(peer) {
            return None;
        }
        let count = self.count.fetch_add(1, Ordering::AcqRel) + 1;
        self.metrics().connections.set(count as usize);
        Some(Permit { shared: Arc::clone(self), address: None })
    }

    fn connections(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    fn is_full(&self) -> bool {
        self.connections() >= self.front.connections_max
    }

    /// Closes an idle connection, or one without a complete head, for another client. Returns whether there is room now.
    fn displace_one(&self, peer: IpAddr) -> bool {
        let owner = network_of(peer);
        if !self.idle.take_back_for(owner) && !self.arriving.take_back_for(owner) {
            return false;
        }
        self.metrics().dropped(metrics::Drop::Displaced);
        let deadline = Instant::now() + DISPLACED_WAIT;
        while self.is_full() && Instant::now() < deadline {
            thread::sleep(DISPLACED_CHECK_INTERVAL);
        }
        !self.is_full()
    }
}

impl Permit {
    /// Counts the connection under the limit of this address. Returns whether it is within the limit.
    fn is_within_share(&mut self, address: IpAddr) -> bool {
        let most = self.shared.front.per_address_max;
        let key = network_of(address);
        if most == 0 || self.address == Some(key) {
            return true;
        }
        // The requests on a proxy's connection may be those of several clients.
        self.leave_address();
        let mut addresses = self.shared.addresses();
        let count = addresses.entry(key).or_default();
        if *count >= most {
            return false;
        }
        *count += 1;
        self.address = Some(key);
        true
    }
}

impl Permit {
    fn leave_address(&mut self) {
        if let Some(key) = self.address.take()
            && let Entry::Occupied(mut count) = self.shared.addresses().entry(key)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.leave_address();
        let count = self.shared.count.fetch_sub(1, Ordering::AcqRel) - 1;
        self.shared.metrics().connections.set(count as usize);
    }
}

struct Accepting {
    socket: Arc<TcpListener>,
    shared: Arc<Shared>,
    refuse: Sender<Arc<TcpStream>>,
}

impl Accepting {
    fn run(self) {
        lower_priority(NICE);
        let mut back_off = BACK_OFF_MIN;
        let mut next = 1;
        loop {
            match self.socket.accept() {
                Ok((stream, peer)) => {
                    back_off = BACK_OFF_MIN;
                    self.shared.metrics().accepted.increment();
                    self.start_connection(stream, peer, ConnectionId(next));
                    next += 1;
                }
                // `accept` gives this error only after the socket was shut down.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The client closed the connection before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    self.shared.metrics().accept_errors.increment();
                    log::warn!("failed to accept a connection, trying again in {back_off:?}: {error}");
                    thread::sleep(back_off);
                    back_off = (back_off * 2).min(BACK_OFF_MAX);
                }
            }
        }
    }

    /// Starts the thread of a connection, or refuses the connection.
    fn start_connection(&self, stream: TcpStream, peer: SocketAddr, connection: ConnectionId) {
        let shared = &self.shared;
        let Some(mut permit) = shared.take(peer.ip()) else {
            shared.metrics().refused(Refusal::Connections);
            log::debug!("refused {peer}: connection limit reached");
            return self.refuse_connection(Arc::new(stream), FULL);
        };
        // The connections of a proxy are those of many clients. The head of the request names the client.
        let mut wait = Duration::ZERO;
        if !is_proxy(peer.ip(), &shared.front.proxies) {
            if !permit.is_within_share(peer.ip()) {
                shared.metrics().refused(Refusal::PerAddress);
                log::debug!("refused {peer}: connection limit of its address reached");
                return self.refuse_connection(Arc::new(stream), SHARE_TAKEN);
            }
            match shared.front.sessions.rate_limiters.reserve_connection(peer.ip(), Instant::now()) {
                Ok(until_turn) => wait = until_turn,
                Err(_) => {
                    shared.metrics().refused(Refusal::ConnectionRate);
                    log::debug!("refused {peer}: connection rate limit of its address reached");
                    return self.refuse_connection(Arc::new(stream), TOO_FAST);
                }
            }
        }
        // The hub shares it later. Here the second handle keeps the socket open if the thread can't be started.
        let stream = Arc::new(stream);
        let serving = Arc::clone(&stream);
        let claim = Claim { owner: network_of(peer.ip()), amount: 1, socket: Some(Arc::clone(&stream)) };
        let arriving = shared.arriving.take(claim);
        let builder = thread::Builder::new().name("connection".into()).stack_size(STACK_BYTES);
        let spawned = builder.spawn(move || {
            if wait.is_zero() || waits_for_turn(&serving, wait) {
                serve(permit, arriving, serving, peer, connection);
            }
        });
        if let Err(error) = spawned {
            shared.metrics().refused(Refusal::Thread);
            log::warn!("failed to start a connection thread: {error}");
            self.refuse_connection(stream, FULL);
        }
    }

    fn refuse_connection(&self, stream: Arc<TcpStream>, problem: Problem<'_>) {
        // The response fits into the buffer of any new socket. An error means that the client is gone.
        if stream.set_nonblocking(true).is_ok() && (&*stream).write_all(&problem.encode()).is_ok() {
            let _ = stream.shutdown(Shutdown::Write);
            drop(self.refuse.try_send(stream));
        }
    }
}

/// Keeps each refused connection for a moment: closing it with unread bytes would discard the response.
fn close_refused(refused: &Receiver<Arc<TcpStream>>) {
    let mut kept: Vec<(Arc<TcpStream>, Instant)> = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let next = if kept.is_empty() {
            refused.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            refused.recv_timeout(REFUSED_CHECK_INTERVAL)
        };
        let now = Instant::now();
        match next {
            Ok(stream) => {
                if kept.len() == REFUSED_MAX {
                    kept.remove(0);
                }
                kept.push((stream, now + REFUSED_WAIT));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        kept.retain(|(stream, until)| {
            now < *until
                && match (&**stream).read(&mut buffer) {
                    Ok(count) => count > 0,
                    Err(error) => error.kind() == io::ErrorKind::WouldBlock,
                }
        });
    }
}

/// Serves one connection to its end: requests one after the other, or a WebSocket.
///
/// The permit is the first parameter, so that it is dropped last, after the socket.
fn serve(
    mut permit: Permit,
    arriving: Option<Share>,
    stream: Arc<TcpStream>,
    peer: SocketAddr,
    connection: ConnectionId,
) {
    let shared = Arc::clone(&permit.shared);
    let Shared { front, idle, .. } = &*shared;
    let (mut arriving, mut early) = (arriving, Vec::new());
    for number in 1.. {
        let Some((head, behind)) = read_head(&stream, &early, arriving.take(), peer, front) else {
            return;
        };
        let Some(client) = admit(&stream, peer, &head, &mut permit) else {
            return;
        };
        if session::is_websocket_path(head.path()) {
            log::debug!("{client} requests {}", head.path());
            session::serve(stream, head, behind, connection, client, &front.sessions);
            log::debug!("{client} disconnected");
            return;
        }
        let may_keep = number < REQUESTS_PER_CONNECTION_MAX && keep_alive::is_wanted(&head);
        let next = front.relay.forward(&stream, client, &head, &behind, may_keep, &front.sessions.limits);
        let Some(next) = next else { return };
        let owner = network_of(client.address);
        if next.is_empty() && !keep_alive::wait(&stream, owner, idle, IDLE_WAIT) {
            return;
        }
        arriving = shared.arriving.take(Claim { owner, amount: 1, socket: Some(Arc::clone(&stream)) });
        early = next;
    }
}

/// Waits for the turn of a connection. Returns whether the connection is still open: a reset ends the wait, as does the
/// listener when the connection makes room for another. A FIN does not, because a client may close its sending side
/// after the request.
fn waits_for_turn(stream: &TcpStream, wait: Duration) -> bool {
    let turn = Instant::now() + wait;
    loop {
        let left = turn.saturating_duration_since(Instant::now());
        // Without events, `poll` waits for the end of the connection only.
        let mut connection = [PollFd::new(stream, PollFlags::empty())];
        match Timespec::try_from(left).map(|left| poll(&mut connection, Some(&left))) {
            Ok(Ok(0)) => return true,
            Ok(Err(Errno::INTR)) => {}
            _ => return false,
        }
    }
}

/// Finds the client. Refuses a client behind a proxy if its address has too many connections.
#[inline(never)]
fn admit(stream: &TcpStream, peer: SocketAddr, head: &Head, permit: &mut Permit) -> Option<Client> {
    let proxies = &permit.shared.front.proxies;
    let client = Client::of(head, peer, proxies);
    if is_proxy(peer.ip(), proxies) {
        if !permit.is_within_share(client.address) {
            permit.shared.metrics().refused(Refusal::PerAddress);
            log::debug!("refused {client}: connection limit of its address reached");
            response::refuse(stream, &Problem { head_only: &*head.method == "HEAD", ..SHARE_TAKEN });
            return None;
        }
    } else if is_forwarded(head) && is_near(peer.ip()) && !permit.shared.has_warned.swap(true, Ordering::Relaxed) {
        log::warn!(
            "{} sends forwarded addresses but is not a trusted proxy: all its clients count as one address; \
             if it is your proxy, start with --trusted-proxy {0}",
            client.address
        );
    }
    Some(client)
}

/// Whether an address may be that of the operator's own proxy.
fn is_near(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
    }
}

/// Reads the head, or sends the error response. It has a stack frame of its own, because an idle session keeps the
/// pages of stack that it has used.
#[inline(never)]
fn read_head(
    stream: &TcpStream,
    early: &[u8],
    arriving: Option<Share>,
    peer: SocketAddr,
    front: &Front,
) -> Option<(Head, Vec<u8>)> {
    // Frames are whole when they are written, so Nagle's algorithm would only delay them.
    stream.set_nodelay(true).ok()?;
    let read = head::read(stream, early, Instant::now() + front.sessions.limits.head_deadline);
    let read = read.inspect_err(|error| {
        if !arriving.is_some_and(|share| share.is_taken_back()) {
            error.answer(stream, peer, false, &front.sessions.metrics);
        }
    });
    read.ok()
}
