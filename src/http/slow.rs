//! The slow lane: threads for requests that wait for a password hash. A hash takes some tens of milliseconds, so many
//! logins would block all reads.
//!
//! A handler does the cheap checks on its worker, rate limits first, and returns the rest as a function. The function
//! runs here, on two threads, so that at most two hashes are in memory at once. Their priority is lower, so a flood of
//! logins does not slow the chat. A bounded number of requests wait; more are refused with `busy`. The threads end when
//! the [`SlowLane`] is dropped.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Sender, TrySendError, bounded};

use super::reply::{Reply, Rest};
use super::{Shared, caught, respond};
use crate::limits::RELAYS_MAX;
use crate::model::reason::Reason;
use crate::threads::lower_priority;

/// The number of hashes that are computed at once.
const HASHES_MAX: usize = 2;
/// The number of requests that wait for a thread. Together with the requests in work they use at most half of the
/// relay's places.
const WAITING_MAX: usize = 10;
const _: () = assert!(WAITING_MAX + HASHES_MAX <= RELAYS_MAX / 2);
/// How much lower the priority of these threads is than the hub's. The threads of connections have a priority between
/// both.
const NICE: i32 = 10;

/// A request after the cheap checks of its handler.
pub(super) struct SlowRequest {
    pub(super) request: tiny_http::Request,
    /// The header fields of the final reply.
    pub(super) reply: Reply,
    pub(super) rest: Rest,
}

/// The threads and their queue.
#[derive(Debug)]
pub(super) struct SlowLane {
    /// Taken on drop, which ends the threads.
    requests: Option<Sender<SlowRequest>>,
    threads: Vec<JoinHandle<()>>,
}

impl SlowLane {
    /// Starts the threads. Fails if the system can't start a thread.
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

    /// Queues a request, or answers that the queue is full.
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
            // A thread catches the panics of its functions, so there is no panic to propagate.
            let _ = thread.join();
        }
    }
}
