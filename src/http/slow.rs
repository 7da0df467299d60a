//! Requests that wait for a password's hash: a hash takes some tens of milliseconds, and a crowd that logs in would hold
//! up everybody who reads.
//!
//! A handler decides all that is cheap on its worker, limits on tries before anything else, and gives the rest as a
//! function. That runs here, on as many threads as there are hashed at once; some wait, and beyond them whoever asks is
//! told to come again. The threads end when the [`SlowLane`] is dropped.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Sender, TrySendError, bounded};

use super::reply::{Reply, Rest};
use super::{Shared, caught, respond};
use crate::auth::hasher::{HASHERS, Hasher};
use crate::limits::RELAYS_MAX;
use crate::model::reason::Reason;

/// Requests that wait for a thread. With those that are worked on they leave half of the relay's places to others.
const WAITING_MAX: usize = 10;
const _: () = assert!(WAITING_MAX + HASHERS <= RELAYS_MAX / 2);

/// A request whose handler has done what is cheap.
pub(super) struct SlowRequest {
    pub(super) request: tiny_http::Request,
    /// What stands in the answer's head, whatever it is.
    pub(super) reply: Reply,
    pub(super) rest: Rest,
}

/// The threads and their queue.
#[derive(Debug)]
pub(super) struct SlowLane {
    /// Taken when it is dropped, which ends the threads.
    requests: Option<Sender<SlowRequest>>,
    threads: Vec<JoinHandle<()>>,
}

impl SlowLane {
    /// Starts the threads, and those that hash for them.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub(super) fn start(shared: &Arc<Shared>) -> io::Result<Self> {
        let (requests, waiting) = bounded::<SlowRequest>(WAITING_MAX);
        let hasher = Arc::new(Hasher::start()?);
        let mut lane = Self { requests: Some(requests), threads: Vec::with_capacity(HASHERS) };
        for number in 0..HASHERS {
            let (shared, hasher, waiting) = (Arc::clone(shared), Arc::clone(&hasher), waiting.clone());
            let thread = thread::Builder::new().name(format!("login-{number}"));
            lane.threads.push(thread.spawn(move || {
                for SlowRequest { request, reply, rest } in waiting {
                    let done = caught(request.method().as_str(), || rest(&shared.context(), &hasher));
                    respond(request, done.under(reply));
                }
            })?);
        }
        Ok(lane)
    }

    /// Lets a request wait for its turn, or answers that there is no room.
    pub(super) fn take(&self, slow: SlowRequest) {
        let Some(requests) = &self.requests else { return };
        if let Err(TrySendError::Full(slow) | TrySendError::Disconnected(slow)) = requests.try_send(slow) {
            let SlowRequest { request, reply, .. } = slow;
            let busy = Reply::rejected(&Reason::Busy.because("too many logins at once; try again in a moment"));
            respond(request, busy.with("Retry-After", "1").under(reply));
        }
    }
}

impl Drop for SlowLane {
    fn drop(&mut self) {
        drop(self.requests.take());
        for thread in self.threads.drain(..) {
            // It catches what its functions do, so there is no panic to pass on.
            let _ = thread.join();
        }
    }
}
