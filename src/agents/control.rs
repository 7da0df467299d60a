//! The control socket: commands on this machine send their changes to the running server.
//!
//! A fixed number of threads `control-client` accept, and each serves one client at a time; further clients wait in the
//! system's queue. A client is a process of the server's own user or of root. It sends one JSON object per line and
//! gets one for each ([`message`]). Lengths and times are bounded, so a stalled client holds one of these threads for a
//! few seconds, and nothing else.
//!
//! The caller holds the lock of the database until the control socket is stopped. Only the owner of the lock may bind
//! the socket.

pub mod address;
pub mod line;
pub mod message;

use std::io::{self, ErrorKind, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rustix::net::sockopt::socket_peercred;
use rustix::process::{Uid, geteuid};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits::{
    CONTROL_CLIENTS_MAX, CONTROL_IO_WAIT, CONTROL_REQUEST_BYTES_MAX, REQUESTS_STOP_WAIT, STORE_STACK_BYTES,
};
use crate::model::reason::{Reason, Rejection};
use crate::threads::{AbortOnPanic, lower_priority};

use address::Bound;
use line::{LineError, Lines, write_line};

/// The nice value of these threads, relative to the hub's and the store's.
const NICE: i32 = 5;
/// The back-off after an error of `accept`.
const BACK_OFF: Duration = Duration::from_millis(100);

/// A running control socket. Dropping it is [`stop`](Self::stop) with [`REQUESTS_STOP_WAIT`].
#[derive(Debug)]
pub struct Control {
    /// `None` after the stop.
    bound: Option<Bound>,
    clients: Arc<Clients>,
    /// Each thread holds a sender and sends nothing: the channel is closed when all threads have ended.
    threads: Receiver<()>,
}

impl Control {
    /// Opens the control socket beside a database, and answers its requests with `handler`.
    ///
    /// # Errors
    /// If the socket can't be opened or a thread can't be started.
    pub fn start<R, A, H>(database: &Path, handler: H) -> io::Result<Self>
    where
        R: DeserializeOwned,
        A: Serialize,
        H: Fn(R) -> Result<A, Rejection> + Send + Sync + 'static,
    {
        Self::start_within(database, CONTROL_IO_WAIT, handler)
    }

    /// The same, with another time-out for a client to send a request and to take a response.
    fn start_within<R, A, H>(database: &Path, io_wait: Duration, handler: H) -> io::Result<Self>
    where
        R: DeserializeOwned,
        A: Serialize,
        H: Fn(R) -> Result<A, Rejection> + Send + Sync + 'static,
    {
        let (bound, (ended, threads)) = (Bound::bind(database)?, bounded(0));
        let listener = Arc::clone(&bound.listener);
        let control = Self { bound: Some(bound), clients: Arc::default(), threads };
        // Dropped before `control` where a thread can't be started, which then waits for those that are.
        let ended = ended;
        let answer =
            Arc::new(move |line: &[u8]| message::encode_answer(message::decode_request(line).and_then(&handler)));
        for _ in 0..CONTROL_CLIENTS_MAX {
            let server = Server {
                listener: Arc::clone(&listener),
                clients: Arc::clone(&control.clients),
                io_wait,
                answer: Arc::clone(&answer),
                _ended: ended.clone(),
            };
            let builder = thread::Builder::new().name("control-client".into()).stack_size(STORE_STACK_BYTES);
            builder.spawn(move || server.run())?;
        }
        Ok(control)
    }

    /// Accepts no further client, removes the socket, and waits for the responses to complete requests, until
    /// `deadline` at most.
    pub fn stop(mut self, deadline: Instant) {
        self.end(deadline);
    }

    fn end(&mut self, deadline: Instant) {
        let Some(bound) = self.bound.take() else { return };
        // This comes before the shutdown of the listener: a thread whose `accept` fails after that reads here that the
        // server is stopping.
        self.clients.shut_down(Shutdown::Read);
        // After a shutdown of the socket, `accept` fails.
        let _ = rustix::net::shutdown(&bound.listener, rustix::net::Shutdown::Both);
        drop(bound);
        if self.threads.recv_deadline(deadline) == Err(RecvTimeoutError::Timeout) {
            self.clients.shut_down(Shutdown::Both);
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.end(Instant::now() + REQUESTS_STOP_WAIT);
    }
}

/// One of the threads that accept and serve clients.
struct Server<F> {
    listener: Arc<UnixListener>,
    clients: Arc<Clients>,
    io_wait: Duration,
    answer: Arc<F>,
    /// Dropped when the thread ends; see [`Control`].
    _ended: Sender<()>,
}

impl<F: Fn(&[u8]) -> Vec<u8>> Server<F> {
    fn run(self) {
        // The handler's panics are caught: one elsewhere would leave the socket without a thread in silence.
        let _abort = AbortOnPanic("control socket");
        lower_priority(NICE);
        loop {
            let accepted = self.listener.accept();
            if self.clients.open().is_stopping {
                return;
            }
            match accepted {
                Ok((stream, _)) => self.admit(stream),
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(error) => {
                    log::warn!("failed to accept on the control socket: {error}");
                    thread::sleep(BACK_OFF);
                }
            }
        }
    }

    fn admit(&self, stream: UnixStream) {
        match socket_peercred(&stream) {
            Ok(peer) if is_allowed(peer.uid, geteuid()) => {}
            Ok(peer) => {
                let user = peer.uid.as_raw();
                log::debug!("refused user {user} at the control socket");
                let sentence =
                    format!("user {user} is not allowed to control this server; only its own user and root are");
                return refuse(&stream, Reason::NotYours.because(sentence));
            }
            Err(error) => return log::warn!("failed to read the user of a control client: {error}"),
        }
        let stream = Arc::new(stream);
        if !self.clients.add(&stream) {
            return;
        }
        // A panic of the handler ends only this client: no state that it could leave half changed is used again.
        let served = catch_unwind(AssertUnwindSafe(|| serve(&stream, self.io_wait, &*self.answer)));
        self.clients.remove(&stream);
        if served.is_err() {
            log::error!("the handler of a control request panicked");
        }
    }
}

fn is_allowed(peer: Uid, server: Uid) -> bool {
    peer.is_root() || peer == server
}

/// Sends the refusal without blocking: the line fits into the buffer of any new socket.
fn refuse(mut stream: &UnixStream, rejection: Rejection) {
    let line = message::encode_answer::<()>(Err(rejection));
    // An error means that the client is gone.
    let _ = stream.set_nonblocking(true).and_then(|()| stream.write(&line));
}

/// Serves one client until it closes the connection, stalls, or sends a line that is too long.
fn serve(stream: &UnixStream, io_wait: Duration, answer: impl Fn(&[u8]) -> Vec<u8>) {
    let mut lines = Lines::new(stream, CONTROL_REQUEST_BYTES_MAX);
    loop {
        let (line, is_last) = match lines.next(io_wait) {
            Ok(Some(line)) => (answer(line), false),
            Err(LineError::TooLong) => {
                let sentence = format!("request too long: at most {CONTROL_REQUEST_BYTES_MAX} bytes");
                (message::encode_answer::<()>(Err(Reason::BodyTooLarge.because(sentence))), true)
            }
            // The client is gone or stalled, or the server stops.
            Ok(None) | Err(LineError::TimedOut | LineError::Io(_)) => return,
        };
        if write_line(stream, &line, io_wait).is_err() || is_last {
            return;
        }
    }
}

/// The clients that are being served.
#[derive(Debug, Default)]
struct Clients(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    is_stopping: bool,
    streams: Vec<Arc<UnixStream>>,
}

impl Clients {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns false if the server is stopping.
    fn add(&self, stream: &Arc<UnixStream>) -> bool {
        let mut open = self.open();
        if !open.is_stopping {
            open.streams.push(Arc::clone(stream));
        }
        !open.is_stopping
    }

    fn remove(&self, stream: &Arc<UnixStream>) {
        self.open().streams.retain(|open| !Arc::ptr_eq(open, stream));
    }

    fn shut_down(&self, how: Shutdown) {
        let mut open = self.open();
        open.is_stopping = true;
        for stream in &open.streams {
            // An error means that the client is gone.
            let _ = stream.shutdown(how);
        }
    }
}

#[cfg(test)]
mod tests;
