//! The control socket: how commands on this machine have the running server make their changes.
//!
//! The thread `control` accepts; each client has a thread of its own, for as long as it is there. A client is a process
//! of the server's own user or of root. It sends one JSON object a line and gets one for each ([`message`]). Lengths,
//! times and the number of clients are bounded, so a stalled client holds one of a few places for a few seconds, and
//! nothing else.
//!
//! The caller holds the database's lock, which alone allows to bind the socket, until this has ended.

pub mod address;
pub mod line;
pub mod message;

use std::io::{self, ErrorKind, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};
use rustix::net::sockopt::socket_peercred;
use rustix::process::{Uid, geteuid};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits::{
    CONTROL_CLIENTS_MAX, CONTROL_IO_WAIT, CONTROL_REQUEST_BYTES_MAX, REQUESTS_STOP_WAIT, STORE_STACK_BYTES,
};
use crate::threads::{AbortOnPanic, lower_priority};

use address::Bound;
use line::{LineError, Lines, write_line};
pub use message::Refusal;

/// How much less urgent than the hub and the store this is.
const NICE: i32 = 5;
/// How long an error of accept is waited out.
const BACK_OFF: Duration = Duration::from_millis(500);

/// The bounds that a test shrinks.
#[derive(Debug, Clone, Copy)]
pub struct ControlLimits {
    /// Clients that are served at once. Others wait in the system's queue.
    pub clients_max: usize,
    /// How long a client may take to send a request, and to take an answer.
    pub io_wait: Duration,
}

impl Default for ControlLimits {
    fn default() -> Self {
        Self { clients_max: CONTROL_CLIENTS_MAX, io_wait: CONTROL_IO_WAIT }
    }
}

/// A control socket that is served. Dropping it is [`stop`](Self::stop) with little patience.
#[derive(Debug)]
pub struct Control {
    bound: Option<Arc<Bound>>,
    clients: Arc<Clients>,
    /// Nothing is ever sent: its end is the thread's.
    open: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Binds the control socket of a database, and answers requests by `handler`, on one thread for each client.
    ///
    /// # Errors
    /// As the system says, also where it gives no thread.
    pub fn start<R, A, H>(database: &Path, limits: ControlLimits, handler: H) -> io::Result<Self>
    where
        R: DeserializeOwned,
        A: Serialize,
        H: Fn(R) -> Result<A, Refusal> + Send + Sync + 'static,
    {
        let bound = Arc::new(Bound::bind(database)?);
        let clients = Arc::new(Clients::new(limits.clients_max));
        let (open, closed) = bounded(0);
        let answer = move |line: &[u8]| message::encode_answer(message::decode_request(line).and_then(&handler));
        let accepting = Accepting {
            bound: Arc::clone(&bound),
            clients: Arc::clone(&clients),
            closed,
            server: geteuid(),
            io_wait: limits.io_wait,
            answer: Arc::new(answer),
        };
        let builder = thread::Builder::new().name("control".into()).stack_size(STORE_STACK_BYTES);
        let thread = builder.spawn(move || accepting.run())?;
        Ok(Self { bound: Some(bound), clients, open: Some(open), thread: Some(thread) })
    }

    /// Accepts no further client, removes the socket, and waits for the answers to requests that came whole, until
    /// `deadline` at the most.
    pub fn stop(mut self, deadline: Instant) {
        self.end(deadline);
    }

    fn end(&mut self, deadline: Instant) {
        drop(self.open.take());
        let Some(bound) = self.bound.take() else { return };
        // A listening socket that is shut down fails its accept.
        if rustix::net::shutdown(&bound.listener, rustix::net::Shutdown::Both).is_ok()
            && let Some(thread) = self.thread.take()
        {
            // One that panicked has ended the process.
            let _ = thread.join();
        }
        drop(bound);
        self.clients.stop(deadline);
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.end(Instant::now() + REQUESTS_STOP_WAIT);
    }
}

/// The accepting thread.
struct Accepting<F> {
    bound: Arc<Bound>,
    clients: Arc<Clients>,
    closed: Receiver<()>,
    /// The server's own user.
    server: Uid,
    io_wait: Duration,
    answer: Arc<F>,
}

impl<F: Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static> Accepting<F> {
    fn run(self) {
        let _abort = AbortOnPanic("control");
        // The clients' threads inherit it.
        lower_priority(NICE);
        loop {
            // Before a client is accepted: one for which there is no permit waits in the system's queue.
            let permit = select! {
                recv(self.clients.permits) -> permit => permit,
                recv(self.closed) -> _ => return,
            };
            let Ok(Permit) = permit else { return };
            let permit = HeldPermit(Arc::clone(&self.clients));
            match self.bound.listener.accept() {
                Ok((stream, _)) => self.admit(stream, permit),
                Err(error) => {
                    drop(permit);
                    if !self.wait_out(&error) {
                        return;
                    }
                }
            }
        }
    }

    /// Whether to go on behind an error of accept.
    fn wait_out(&self, error: &io::Error) -> bool {
        if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) {
            return true;
        }
        let is_open = self.closed.recv_timeout(BACK_OFF) == Err(crossbeam_channel::RecvTimeoutError::Timeout);
        if is_open {
            log::warn!("failed to accept on the control socket: {error}");
        }
        is_open
    }

    fn admit(&self, stream: UnixStream, permit: HeldPermit) {
        match socket_peercred(&stream) {
            Ok(peer) if is_allowed(peer.uid, self.server) => {}
            Ok(peer) => {
                let user = peer.uid.as_raw();
                log::debug!("refused user {user} at the control socket");
                let sentence = format!("user {user} may not control this server; its own user and root may");
                return refuse(&stream, Refusal::new("forbidden", "not_owner", sentence));
            }
            Err(error) => return log::warn!("failed to ask for the user of a process: {error}"),
        }
        let stream = Arc::new(stream);
        let Some(registered) = Registered::new(&permit.0, &stream) else { return };
        let (answer, io_wait) = (Arc::clone(&self.answer), self.io_wait);
        let serving = Arc::clone(&stream);
        let builder = thread::Builder::new().name("control-client".into()).stack_size(STORE_STACK_BYTES);
        let spawned = builder.spawn(move || {
            // Dropped in this order, also where the handler panics.
            let _permit = permit;
            let _registered = registered;
            serve(&serving, io_wait, &*answer);
        });
        if let Err(error) = spawned {
            log::warn!("failed to start a thread for the control socket: {error}");
            refuse(&stream, Refusal::new("busy", "busy", "the server is busy; try again"));
        }
    }
}

fn is_allowed(peer: Uid, server: Uid) -> bool {
    peer.is_root() || peer == server
}

/// Says why, and waits for nothing: the line fits into the buffer of any new socket.
fn refuse(mut stream: &UnixStream, refusal: Refusal) {
    // A peer that is gone needs no answer.
    let _ =
        stream.set_nonblocking(true).and_then(|()| stream.write(&message::encode_answer::<()>(Err(refusal))).map(drop));
}

/// Answers one client until it goes, stalls, or sends what is no line.
fn serve(stream: &UnixStream, io_wait: Duration, answer: impl Fn(&[u8]) -> Vec<u8>) {
    let mut lines = Lines::new(stream, CONTROL_REQUEST_BYTES_MAX);
    loop {
        let (line, is_last) = match lines.next(io_wait) {
            Ok(Some(line)) => (answer(line), false),
            Err(LineError::TooLong) => {
                let sentence = format!("the request is longer than {CONTROL_REQUEST_BYTES_MAX} bytes");
                (message::encode_answer::<()>(Err(Refusal::new("too_large", "request_too_large", sentence))), true)
            }
            // Gone, stalled, or stopped by us.
            Ok(None) | Err(LineError::TimedOut | LineError::Io(_)) => return,
        };
        if write_line(stream, &line, io_wait).is_err() || is_last {
            return;
        }
    }
}

/// The right to serve one client.
#[derive(Debug)]
struct Permit;

/// The clients that are served.
#[derive(Debug)]
struct Clients {
    permits: Receiver<Permit>,
    returned: Sender<Permit>,
    permits_count: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    is_stopping: bool,
    streams: Vec<Arc<UnixStream>>,
}

impl Clients {
    fn new(permits_count: usize) -> Self {
        let (returned, permits) = bounded(permits_count);
        for _ in 0..permits_count {
            // There is room for all of them.
            let _ = returned.try_send(Permit);
        }
        Self { permits, returned, permits_count, open: Mutex::default() }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads no further request, waits for the answers, and cuts off what is left at the deadline.
    fn stop(&self, deadline: Instant) {
        self.shut_down(Shutdown::Read);
        for _ in 0..self.permits_count {
            if self.permits.recv_deadline(deadline).is_err() {
                self.shut_down(Shutdown::Both);
                return;
            }
        }
    }

    fn shut_down(&self, how: Shutdown) {
        let mut open = self.open();
        open.is_stopping = true;
        for stream in &open.streams {
            // A peer that is gone has shut it down.
            let _ = stream.shutdown(how);
        }
    }
}

/// Returns the permit when it is dropped.
struct HeldPermit(Arc<Clients>);

impl Drop for HeldPermit {
    fn drop(&mut self) {
        // There is room: it was taken from there.
        let _ = self.0.returned.try_send(Permit);
    }
}

/// A stream that [`Clients::stop`] knows, until this is dropped.
struct Registered {
    clients: Arc<Clients>,
    stream: Arc<UnixStream>,
}

impl Registered {
    /// `None` where it is too late.
    fn new(clients: &Arc<Clients>, stream: &Arc<UnixStream>) -> Option<Self> {
        let mut open = clients.open();
        if open.is_stopping {
            return None;
        }
        open.streams.push(Arc::clone(stream));
        Some(Self { clients: Arc::clone(clients), stream: Arc::clone(stream) })
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.clients.open().streams.retain(|stream| !Arc::ptr_eq(stream, &self.stream));
    }
}

#[cfg(test)]
mod tests;
