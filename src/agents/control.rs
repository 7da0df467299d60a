//! The control socket: commands on this machine have the running server make their changes.
//!
//! A fixed number of threads `control-client` accept, each one client at a time; further clients wait in the system's queue. A
//! client is a process of the server's own user or of root. It sends one JSON object a line and gets one for each
//! ([`message`]). Lengths and times are bounded, so a stalled client holds one of these threads for a few seconds, and
//! nothing else.
//!
//! The caller holds the database's lock, which alone allows to bind the socket, until this has ended.

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

/// How much less urgent than the hub and the store this is.
const NICE: i32 = 5;
/// How long an error of accept is waited out.
const BACK_OFF: Duration = Duration::from_millis(100);

/// A control socket that is served. Dropping it is [`stop`](Self::stop) with [`REQUESTS_STOP_WAIT`].
#[derive(Debug)]
pub struct Control {
    /// Nothing where it has stopped.
    bound: Option<Bound>,
    clients: Arc<Clients>,
    /// Each thread holds a sender, and sends nothing: the channel is closed when all of them have ended.
    threads: Receiver<()>,
}

impl Control {
    /// Binds the control socket of a database, and answers requests by `handler`.
    ///
    /// # Errors
    /// As the system says, also where it gives no thread.
    pub fn start<R, A, H>(database: &Path, handler: H) -> io::Result<Self>
    where
        R: DeserializeOwned,
        A: Serialize,
        H: Fn(R) -> Result<A, Rejection> + Send + Sync + 'static,
    {
        Self::start_within(database, CONTROL_IO_WAIT, handler)
    }

    /// The same with another time for a client to send a request, and to take an answer.
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

    /// Accepts no further client, removes the socket, and waits for the answers to requests that came whole, until
    /// `deadline` at the most.
    pub fn stop(mut self, deadline: Instant) {
        self.end(deadline);
    }

    fn end(&mut self, deadline: Instant) {
        let Some(bound) = self.bound.take() else { return };
        // First, so that a thread whose accept fails by the next step knows why.
        self.clients.shut_down(Shutdown::Read);
        // A listening socket that is shut down fails its accept.
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

/// One of the threads that accept and serve.
struct Server<F> {
    listener: Arc<UnixListener>,
    clients: Arc<Clients>,
    io_wait: Duration,
    answer: Arc<F>,
    /// See [`Control`].
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
                let sentence = format!("user {user} may not control this server; its own user and root may");
                return refuse(&stream, Reason::NotYours.because(sentence));
            }
            Err(error) => return log::warn!("failed to ask for the user of a process: {error}"),
        }
        let stream = Arc::new(stream);
        if !self.clients.add(&stream) {
            return;
        }
        // A handler that panics ends this client alone: nothing that it can leave half done is used again.
        let served = catch_unwind(AssertUnwindSafe(|| serve(&stream, self.io_wait, &*self.answer)));
        self.clients.remove(&stream);
        if served.is_err() {
            log::error!("the handler of a control request has failed");
        }
    }
}

fn is_allowed(peer: Uid, server: Uid) -> bool {
    peer.is_root() || peer == server
}

/// Says why, and waits for nothing: the line fits into the buffer of any new socket.
fn refuse(mut stream: &UnixStream, rejection: Rejection) {
    let line = message::encode_answer::<()>(Err(rejection));
    // A peer that is gone needs no answer.
    let _ = stream.set_nonblocking(true).and_then(|()| stream.write(&line));
}

/// Answers one client until it goes, stalls, or sends what is no line.
fn serve(stream: &UnixStream, io_wait: Duration, answer: impl Fn(&[u8]) -> Vec<u8>) {
    let mut lines = Lines::new(stream, CONTROL_REQUEST_BYTES_MAX);
    loop {
        let (line, is_last) = match lines.next(io_wait) {
            Ok(Some(line)) => (answer(line), false),
            Err(LineError::TooLong) => {
                let sentence = format!("the request is longer than {CONTROL_REQUEST_BYTES_MAX} bytes");
                (message::encode_answer::<()>(Err(Reason::BodyTooLarge.because(sentence))), true)
            }
            // Gone, stalled, or stopped by us.
            Ok(None) | Err(LineError::TimedOut | LineError::Io(_)) => return,
        };
        if write_line(stream, &line, io_wait).is_err() || is_last {
            return;
        }
    }
}

/// The clients that are served.
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

    /// False where the server is stopping.
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
            // A peer that is gone has shut it down.
            let _ = stream.shutdown(how);
        }
    }
}

#[cfg(test)]
mod tests;
