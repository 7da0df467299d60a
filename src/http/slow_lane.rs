//! Slow lanes: threads for requests that take long. A password hash takes some tens of milliseconds, and a search up to
//! 200 ms, so a few of them would block all other requests.
//!
//! A handler does the cheap checks on its worker, rate limits first, and returns the rest as a function. The function
//! runs here, so that a bounded number runs at once. A bounded number of requests wait for a bounded time; others are
//! refused with `busy`. The threads end when the [`SlowLane`] is dropped.

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fmt, io};

use crossbeam_channel::{Sender, TrySendError, bounded};

use crate::limits::{HASH_WAIT, HASHES_RUNNING_MAX, HASHES_WAITING_MAX, SEARCH_WAIT, SEARCHES_WAITING_MAX};
use crate::threads::lower_priority;

/// The nice value of these threads, the same as that of connection threads. A thread with a higher one could be preempted
/// while it holds a lock that they wait for.
const NICE: i32 = 5;

/// The kind of a slow lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Password hashes. At most two are in memory at once.
    Login,
    /// Searches, on one thread: they never take more than one core.
    Search,
}

impl Lane {
    /// The name of its threads.
    fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Search => "search",
        }
    }

    /// Jobs that run at once, and jobs that wait.
    fn sizes(self) -> (usize, usize) {
        match self {
            Self::Login => (HASHES_RUNNING_MAX, HASHES_WAITING_MAX),
            Self::Search => (1, SEARCHES_WAITING_MAX),
        }
    }

    fn wait_max(self) -> Duration {
        match self {
            Self::Login => HASH_WAIT,
            Self::Search => SEARCH_WAIT,
        }
    }

    /// The sentence for a request for which there is no room.
    pub(super) fn full(self) -> &'static str {
        match self {
            Self::Login => "too many logins at once; try again in a moment",
            Self::Search => "too many searches at once; try again in a moment",
        }
    }
}

/// Whether a job got its thread in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    InTime,
    /// The job must be refused.
    Late,
}

/// The threads and their queue of jobs.
pub(super) struct SlowLane<J> {
    /// Each job with the time when it was queued. `None` during the drop, which ends the threads.
    jobs: Option<Sender<(Instant, J)>>,
    threads: Vec<JoinHandle<()>>,
}

impl<J: Send + 'static> SlowLane<J> {
    /// Starts the threads, which call `run` for each job. It must not panic.
    ///
    /// # Errors
    /// If a thread can't be started.
    pub(super) fn start(lane: Lane, run: impl Fn(J, Turn) + Clone + Send + 'static) -> io::Result<Self> {
        Self::start_within(lane, lane.wait_max(), run)
    }

    fn start_within(
        lane: Lane,
        wait_max: Duration,
        run: impl Fn(J, Turn) + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let (running_max, waiting_max) = lane.sizes();
        let (jobs, waiting) = bounded::<(Instant, J)>(waiting_max);
        let mut this = Self { jobs: Some(jobs), threads: Vec::with_capacity(running_max) };
        for number in 0..running_max {
            let (run, waiting) = (run.clone(), waiting.clone());
            let thread = thread::Builder::new().name(format!("{}-{number}", lane.name()));
            this.threads.push(thread.spawn(move || {
                lower_priority(NICE);
                for (queued, job) in waiting {
                    run(job, if queued.elapsed() <= wait_max { Turn::InTime } else { Turn::Late });
                }
            })?);
        }
        Ok(this)
    }

    /// Queues a job. Returns it if the queue is full.
    pub(super) fn queue(&self, job: J) -> Result<(), J> {
        let Some(jobs) = &self.jobs else { return Err(job) };
        let queued = jobs.try_send((Instant::now(), job));
        queued.map_err(|(TrySendError::Full((_, job)) | TrySendError::Disconnected((_, job)))| job)
    }
}

impl<J> fmt::Debug for SlowLane<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlowLane").field("threads", &self.threads).finish_non_exhaustive()
    }
}

impl<J> Drop for SlowLane<J> {
    fn drop(&mut self) {
        drop(self.jobs.take());
        for thread in self.threads.drain(..) {
            // `run` does not panic.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::{Receiver, unbounded};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    /// A lane whose jobs report that they run, and end when the gate is dropped.
    fn held(wait_max: Duration) -> (SlowLane<u32>, Receiver<(u32, Turn)>, Sender<()>) {
        let ((gate, closed), (running, runs)) = (bounded::<()>(0), unbounded());
        let run = move |job, turn| {
            running.send((job, turn)).unwrap();
            let _ = closed.recv();
        };
        (SlowLane::start_within(Lane::Login, wait_max, run).unwrap(), runs, gate)
    }

    #[test]
    fn two_jobs_run_ten_wait_and_the_next_is_given_back() {
        let (lane, runs, gate) = held(DEADLINE);
        for job in 1..=2 {
            lane.queue(job).unwrap();
            assert_eq!(runs.recv_timeout(DEADLINE), Ok((job, Turn::InTime)));
        }
        for job in 3..=12 {
            lane.queue(job).unwrap();
        }
        assert_eq!(lane.queue(13), Err(13));
        assert!(runs.is_empty(), "two run at once");
        drop(gate);
        let mut others: Vec<_> = (3..=12).map(|_| runs.recv_timeout(DEADLINE).unwrap()).collect();
        others.sort_unstable_by_key(|(job, _)| *job);
        assert_eq!(others, (3..=12).map(|job| (job, Turn::InTime)).collect::<Vec<_>>());
        drop(lane);
        assert!(runs.recv_timeout(DEADLINE).is_err(), "the threads have ended");
    }

    #[test]
    fn a_job_that_waited_too_long_is_late() {
        let (lane, runs, gate) = held(Duration::ZERO);
        lane.queue(1).unwrap();
        assert_eq!(runs.recv_timeout(DEADLINE), Ok((1, Turn::Late)));
        drop(gate);
    }
}
