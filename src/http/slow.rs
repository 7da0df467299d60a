//! Requests that wait for a password's hash: a hash takes some tens of milliseconds, and a crowd that logs in would hold
//! up all readers.
//!
//! A handler decides all that is cheap on its worker, limits on tries before anything else, and gives the rest as a
//! function. That runs here, on two threads, so that at most two hashes are in memory at once. They are less urgent than
//! the rest: a flood of logins takes what the chat leaves. Some requests wait, and beyond them a client is told to come
//! again. The threads end when the [`SlowLane`] is dropped.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Sender, TrySendError, bounded};

use super::reply::{Reply, Rest};
use super::{Shared, caught, respond};
use crate::limits::RELAYS_MAX;
use crate::model::reason::Reason;
use crate::threads::lower_priority;

/// Hashes in the making at once.
const HASHES_MAX: usize = 2;
/// Requests that wait for a thread. With those that are worked on they leave half of the relay's places to others.
const WAITING_MAX: usize = 10;
const _: () = assert!(WAITING_MAX + HASHES_MAX <= RELAYS_MAX / 2);
/// How much less urgent than the hub the threads are. Connections' threads are less urgent by less.
const NICE: i32 = 10;

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
    /// Starts the threads.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub(super) fn start(shared: &Arc<Shared>) -> io::Result<Self> {
        let (requests, waiting) = bounded::<SlowRequest>(WAITING_MAX);
        let mut lane = Self { requests: Some(requests), threads: Vec::with_capacity(HASHES_MAX) };
        for number in 0..HASHES_MAX {
            let (shared, waiting) = (Arc::clone(shared), waiting.clone());
            let thread = thread::Builder::new().name(format!("login-{number}"));
            lane.threads.push(thread.spawn(move || {
                lower_priority(NICE);
                for SlowRequest { request, reply, rest } in waiting {
                    let done = caught(request.method().as_str(), || rest(&shared.context));
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
            let busy = Reply::from(Reason::Busy.because("too many logins at once; try again in a moment"));
            respond(request, busy.under(reply));
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
