//! The public port: accepts connections, enforces the caps, and gives each connection its thread.
//!
//! The listening thread never waits for a peer. A connection that can't be carried is told so (503) by another
//! thread, which keeps it until it has read why. An error of accept is waited out, and never the end.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rustix::net::listen;

use crate::answer::{self, Problem};
use crate::client::{Client, is_forwarded, is_proxy};
use crate::config::Cidr;
use crate::head::{self, Head};
use crate::limits::{REFUSED_MAX, STACK_BYTES};
use crate::metrics::{Metrics, Refusal};
use crate::model::ConnectionId;
use crate::model::reason::Reason;
use crate::rate::network_of;
use crate::relay::Relay;
use crate::session::{self, Context};
use crate::threads::lower_priority;

/// Connections that the system holds for us while all threads are busy starting.
const BACKLOG: i32 = 4_096;
/// How much less urgent a connection's thread is than the hub.
const NICE: i32 = 5;
/// How long an error of accept is waited out: at first, and at the most.
const BACK_OFF_MIN: Duration = Duration::from_millis(10);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);
/// How long a refused connection may take to read why.
const REFUSED_WAIT: Duration = Duration::from_secs(1);
/// How often the refused are looked at.
const REFUSED_LOOK: Duration = Duration::from_millis(20);

/// Why a connection is turned away.
const FULL: Problem<'_> =
    Problem { headers: &[("Retry-After", "5")], ..Problem::new(Reason::ServerFull, Reason::ServerFull.sentence()) };
const SHARE_TAKEN: Problem<'_> =
    Problem { headers: &[("Retry-After", "5")], ..Problem::new(Reason::AddressFull, Reason::AddressFull.sentence()) };

/// What every connection's thread needs; shared by all of them.
#[derive(Debug)]
pub struct Front {
    /// Where WebSockets go.
    pub sessions: Context,
    /// Where everything else goes.
    pub relay: Relay,
    /// Peers that are believed when they say whom they ask for.
    pub proxies: Vec<Cidr>,
    /// Connections at once, in all.
    pub connections_max: u64,
    /// Connections at once from one address, IPv6 by /64; 0 for no limit.
    pub per_address_max: u32,
}

/// Opens the public port.
///
/// # Errors
/// As the system says: the port is in use, the address is not ours.
pub fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    // Once more, as the standard library asks for a shorter queue.
    listen(&listener, BACKLOG)?;
    Ok(listener)
}

/// The listening thread and its helper.
#[derive(Debug)]
pub struct Listening {
    socket: Arc<TcpListener>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Listening {
    /// Begins to accept.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn start(socket: TcpListener, front: Front) -> io::Result<Self> {
        let socket = Arc::new(socket);
        let shared = Arc::new(Shared {
            front,
            count: AtomicU64::new(0),
            addresses: Mutex::default(),
            has_warned: AtomicBool::new(false),
        });
        // A refused connection that finds the queue full is closed without a word.
        let (refuse, refused) = bounded(REFUSED_MAX);
        let refuser = thread::Builder::new()
            .name("refuser".into())
            .stack_size(STACK_BYTES)
            .spawn(move || tell_refused(&refused))?;
        let accepting = Accepting { socket: Arc::clone(&socket), shared: Arc::clone(&shared), refuse };
        let listener =
            thread::Builder::new().name("listener".into()).stack_size(STACK_BYTES).spawn(move || accepting.run())?;
        Ok(Self { socket, shared, threads: vec![listener, refuser] })
    }

    /// Stops accepting, and waits for the thread to end. Open connections go on.
    pub fn stop(&mut self) {
        // A listening socket that is shut down fails its accept; where it does not, the process ends anyway.
        if rustix::net::shutdown(&*self.socket, rustix::net::Shutdown::Both).is_ok() {
            for thread in self.threads.drain(..) {
                // A thread that panicked has said so already.
                let _ = thread.join();
            }
        }
    }

    /// Connections whose thread has not ended.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.connections()
    }
}

/// What every connection's thread needs, and the connections that are open, counted before a thread is made for one.
#[derive(Debug)]
struct Shared {
    front: Front,
    count: AtomicU64,
    addresses: Mutex<HashMap<IpAddr, u32>>,
    /// Whether the log has told of a proxy that is not trusted; one line will do.
    has_warned: AtomicBool,
}

/// One connection's share of the caps, given back when it is dropped.
struct Permit {
    shared: Arc<Shared>,
    /// The address whose share of its cap it is; none where the head has yet to say it.
    address: Option<IpAddr>,
}

impl Shared {
    fn metrics(&self) -> &Metrics {
        &self.front.sessions.metrics
    }

    fn addresses(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a permit for a connection, or nothing where all are taken. Only the listening thread takes permits.
    fn take(self: &Arc<Self>) -> Option<Permit> {
        if self.connections() >= self.front.connections_max {
            return None;
        }
        let count = self.count.fetch_add(1, Ordering::AcqRel) + 1;
        self.metrics().connections.set(count as usize);
        Some(Permit { shared: Arc::clone(self), address: None })
    }

    fn connections(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }
}

impl Permit {
    /// Counts the connection as one of this address's, or says that it has no more.
    fn is_within_share(&mut self, address: IpAddr) -> bool {
        let most = self.shared.front.per_address_max;
        if most == 0 {
            return true;
        }
        let key = network_of(address);
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

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(key) = self.address
            && let Entry::Occupied(mut count) = self.shared.addresses().entry(key)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
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
                    self.welcome(stream, peer, ConnectionId(next));
                    next += 1;
                }
                // Only a socket that was shut down is no longer one to accept from.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The peer went before it was accepted.
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

    /// Gives a connection its thread, if there is a place for it.
    fn welcome(&self, stream: TcpStream, peer: SocketAddr, connection: ConnectionId) {
        let shared = &self.shared;
        let Some(mut permit) = shared.take() else {
            shared.metrics().refused(Refusal::Connections);
            log::debug!("refused {peer}: over the cap on connections");
            return self.turn_away(Arc::new(stream), FULL);
        };
        // A proxy's connections are those of many, and whose this one is stands in its head.
        if !is_proxy(peer.ip(), &shared.front.proxies) && !permit.is_within_share(peer.ip()) {
            shared.metrics().refused(Refusal::PerAddress);
            log::debug!("refused {peer}: over the cap on one address's connections");
            return self.turn_away(Arc::new(stream), SHARE_TAKEN);
        }
        // Shared with the hub later; here so that it outlives a failed spawn.
        let stream = Arc::new(stream);
        let serving = Arc::clone(&stream);
        let builder = thread::Builder::new().name("connection".into()).stack_size(STACK_BYTES);
        let spawned = builder.spawn(move || serve(permit, serving, peer, connection));
        if let Err(error) = spawned {
            shared.metrics().refused(Refusal::Thread);
            log::warn!("no thread for a connection: {error}");
            self.turn_away(stream, FULL);
        }
    }

    fn turn_away(&self, stream: Arc<TcpStream>, problem: Problem<'_>) {
        // The answer fits into any new socket's buffer, and a peer that is gone needs none.
        if stream.set_nonblocking(true).is_ok() && (&*stream).write_all(&problem.encode()).is_ok() {
            let _ = stream.shutdown(Shutdown::Write);
            drop(self.refuse.try_send(stream));
        }
    }
}

/// Keeps refused connections for a moment: closing one with unread bytes would throw its answer away.
fn tell_refused(refused: &Receiver<Arc<TcpStream>>) {
    let mut kept: Vec<(Arc<TcpStream>, Instant)> = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let next = if kept.is_empty() {
            refused.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            refused.recv_timeout(REFUSED_LOOK)
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

/// A connection's life.
///
/// The permit is the first parameter, so that it is given back last, when the socket is closed.
fn serve(mut permit: Permit, stream: Arc<TcpStream>, peer: SocketAddr, connection: ConnectionId) {
    let Some((head, early)) = read_head(&stream, peer, &permit.shared.front) else {
        return;
    };
    let Some(client) = admit(&stream, peer, &head, &mut permit) else {
        return;
    };
    let front = &permit.shared.front;
    if session::is_websocket_path(head.path()) {
        log::debug!("{client} asks for {}", head.path());
        session::serve(stream, head, early, connection, client, &front.sessions);
        log::debug!("{client} is gone");
    } else {
        front.relay.forward(&stream, client, &head, early, &front.sessions.limits);
    }
}

/// Finds the client; one that comes by a proxy is refused here if it is over its share.
#[inline(never)]
fn admit(stream: &TcpStream, peer: SocketAddr, head: &Head, permit: &mut Permit) -> Option<Client> {
    let proxies = &permit.shared.front.proxies;
    let client = Client::of(head, peer, proxies);
    if is_proxy(peer.ip(), proxies) {
        if !permit.is_within_share(client.address) {
            permit.shared.metrics().refused(Refusal::PerAddress);
            log::debug!("refused {client}: over the cap on one address's connections");
            answer::refuse(stream, &Problem { head_only: &*head.method == "HEAD", ..SHARE_TAKEN });
            return None;
        }
    } else if is_forwarded(head) && is_near(peer.ip()) && !permit.shared.has_warned.swap(true, Ordering::Relaxed) {
        log::warn!(
            "{} says whom it asks for, and is not believed: all who come by it count as one address; \
             if it is your proxy, start with --trusted-proxy {0}",
            client.address
        );
    }
    Some(client)
}

/// Whether an address may be that of an operator's own proxy.
fn is_near(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
    }
}

/// Reads the head, or answers why there is none, in a frame of its own: an idle session keeps the stack it used.
#[inline(never)]
fn read_head(stream: &TcpStream, peer: SocketAddr, front: &Front) -> Option<(Head, Vec<u8>)> {
    // Frames are whole when they are sent; waiting to fill a packet only delays them.
    stream.set_nodelay(true).ok()?;
    let read = head::read(stream, Instant::now() + front.sessions.limits.head_deadline);
    read.inspect_err(|error| error.answer(stream, peer, false, &front.sessions.metrics)).ok()
}
