//! Slow lanes: threads for requests that take long. A password hash takes some tens of milliseconds, and a search up to
//! 200 ms, so a few of them would block all other requests.
//!
//! A handler does the cheap checks on its worker, rate limits first, and returns the rest as a function. The function
//! runs here, so that a bounded number runs at once. A bounded number of requests wait for a bounded time; others are
//! refused with `busy`.
//!
//! A lane is fair by address and, within an address, by account. The next job is one of the address with the fewest
//! running jobs. If too many jobs wait, the address with the most, and its account with the most, loses its newest job.

use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fmt, io};

use crate::limits::{HASH_WAIT, HASHES_RUNNING_MAX, HASHES_WAITING_MAX, SEARCH_WAIT, SEARCHES_WAITING_MAX};
use crate::threads::{join_by, lower_priority};

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

/// The client that a job is done for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Payer {
    /// The network of the client.
    pub(crate) network: IpAddr,
    /// The key of the account ([`account_key`](crate::auth::attempts::Attempts::account_key)); 0 for a job of no account.
    pub(crate) account: u64,
}

/// The threads and their queue of jobs. Dropping it closes it and waits for the threads.
pub(super) struct SlowLane<J> {
    queue: Arc<Queue<J>>,
    waiting_max: usize,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Queue<J> {
    jobs: Mutex<Jobs<J>>,
    /// Wakes the threads.
    changed: Condvar,
}

struct Jobs<J> {
    /// The oldest first.
    waiting: Vec<Waiting<J>>,
    running: Vec<Payer>,
    is_closed: bool,
}

struct Waiting<J> {
    payer: Payer,
    queued: Instant,
    job: J,
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
        let jobs = Mutex::new(Jobs { waiting: Vec::new(), running: Vec::new(), is_closed: false });
        let queue = Arc::new(Queue { jobs, changed: Condvar::new() });
        let this = Self { queue, waiting_max, threads: Mutex::default() };
        for number in 0..running_max {
            let (run, queue) = (run.clone(), Arc::clone(&this.queue));
            let thread = thread::Builder::new().name(format!("{}-{number}", lane.name()));
            let thread = thread.spawn(move || {
                lower_priority(NICE);
                queue.work(wait_max, run);
            })?;
            this.threads().push(thread);
        }
        Ok(this)
    }
}

impl<J> SlowLane<J> {
    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a job. Returns the job that is refused for it, which may be the same one.
    #[must_use = "the job must be answered"]
    pub(super) fn queue(&self, payer: Payer, job: J) -> Option<J> {
        let mut jobs = self.queue.jobs();
        if jobs.is_closed {
            return Some(job);
        }
        let mut refused = None;
        if jobs.waiting.len() >= self.waiting_max {
            let Some(at) = jobs.newest_of_largest(payer) else { return Some(job) };
            refused = Some(jobs.waiting.remove(at).job);
        }
        jobs.waiting.push(Waiting { payer, queued: Instant::now(), job });
        self.queue.changed.notify_one();
        refused
    }

    /// Takes no further job. The jobs that wait are refused.
    pub(super) fn close(&self) {
        self.queue.jobs().is_closed = true;
        self.queue.changed.notify_all();
    }

    /// Waits for the threads of a closed lane, until `deadline` at most.
    pub(super) fn join_by(&self, deadline: Instant) {
        join_by(&mut self.threads(), deadline);
    }
}

impl<J> Queue<J> {
    fn jobs(&self) -> MutexGuard<'_, Jobs<J>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop of a thread.
    fn work(&self, wait_max: Duration, run: impl Fn(J, Turn)) {
        let mut jobs = self.jobs();
        loop {
            let Some(Waiting { payer, queued, job }) = jobs.next() else {
                if jobs.is_closed {
                    return;
                }
                jobs = self.changed.wait(jobs).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let turn = if jobs.is_closed || queued.elapsed() > wait_max { Turn::Late } else { Turn::InTime };
            jobs.running.push(payer);
            drop(jobs);
            run(job, turn);
            jobs = self.jobs();
            if let Some(at) = jobs.running.iter().position(|running| *running == payer) {
                jobs.running.swap_remove(at);
            }
        }
    }
}

impl<J> Jobs<J> {
    /// Takes the next job: of the address with the fewest running jobs, then of the account with the fewest, the oldest.
    fn next(&mut self) -> Option<Waiting<J>> {
        let running = |is_same: &dyn Fn(&Payer) -> bool| self.running.iter().filter(|payer| is_same(payer)).count();
        let key = |Payer { network, account }: Payer| {
            (running(&|payer| payer.network == network), running(&|payer| payer.account == account))
        };
        let (at, _) = self.waiting.iter().enumerate().min_by_key(|(at, waiting)| (key(waiting.payer), *at))?;
        Some(self.waiting.remove(at))
    }

    /// The job that is refused for another job. `None` if no address has more jobs than the address of the other job
    /// would have, nor another account of that address than its account.
    fn newest_of_largest(&self, other: Payer) -> Option<usize> {
        let of_network =
            |network: IpAddr| self.waiting.iter().filter(|waiting| waiting.payer.network == network).count();
        let of_payer = |payer: Payer| self.waiting.iter().filter(|waiting| waiting.payer == payer).count();
        let payers = || self.waiting.iter().map(|waiting| waiting.payer);
        let largest = payers().map(|payer| payer.network).max_by_key(|network| of_network(*network))?;
        let network = if of_network(largest) > of_network(other.network) + 1 { largest } else { other.network };
        let payer = payers().filter(|payer| payer.network == network).max_by_key(|payer| of_payer(*payer))?;
        let is_larger = network != other.network || of_payer(payer) > of_payer(other) + 1;
        is_larger.then(|| self.waiting.iter().rposition(|waiting| waiting.payer == payer))?
    }
}

impl<J> fmt::Debug for SlowLane<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlowLane").finish_non_exhaustive()
    }
}

impl<J> Drop for SlowLane<J> {
    fn drop(&mut self) {
        self.close();
        for thread in self.threads().drain(..) {
            // `run` does not panic.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);
    const LATE: Turn = Turn::Late;

    fn payer(network: u8, account: u64) -> Payer {
        Payer { network: [192, 0, 2, network].into(), account }
    }

    /// A lane whose jobs report that they run, and end when the gate is dropped or receives a message for each.
    fn held(wait_max: Duration) -> (SlowLane<u32>, Receiver<(u32, Turn)>, Sender<()>) {
        let ((gate, opened), (running, runs)) = (bounded::<()>(0), unbounded());
        let run = move |job, turn| {
            running.send((job, turn)).unwrap();
            let _ = opened.recv();
        };
        (SlowLane::start_within(Lane::Login, wait_max, run).unwrap(), runs, gate)
    }

    /// A lane with two running jobs of this client, 1 and 2, and ten of its jobs that wait, 3 to 12.
    fn full(of: Payer) -> (SlowLane<u32>, Receiver<(u32, Turn)>, Sender<()>) {
        let (lane, runs, gate) = held(DEADLINE);
        for job in 1..=2 {
            assert_eq!(lane.queue(of, job), None);
            assert_eq!(runs.recv_timeout(DEADLINE), Ok((job, Turn::InTime)));
        }
        for job in 3..=12 {
            assert_eq!(lane.queue(of, job), None);
        }
        (lane, runs, gate)
    }

    #[test]
    fn two_jobs_run_ten_wait_and_the_next_is_refused() {
        let (lane, runs, gate) = full(payer(1, 1));
        assert_eq!(lane.queue(payer(1, 1), 13), Some(13));
        assert!(runs.is_empty(), "two run at once");
        for expected in 3..=12 {
            gate.send(()).unwrap();
            assert_eq!(runs.recv_timeout(DEADLINE), Ok((expected, Turn::InTime)));
        }
        drop(gate);
        drop(lane);
        assert!(runs.recv_timeout(DEADLINE).is_err(), "the threads have ended");
    }

    #[test]
    fn the_address_with_the_most_jobs_loses_its_newest_for_another() {
        let (lane, runs, gate) = full(payer(1, 1));
        assert_eq!(lane.queue(payer(2, 2), 20), Some(12));
        assert_eq!(lane.queue(payer(2, 3), 21), Some(11));
        let next: Vec<u32> = (0..3)
            .map(|_| {
                gate.send(()).unwrap();
                runs.recv_timeout(DEADLINE).unwrap().0
            })
            .collect();
        assert!(next[0] == 20 && next.contains(&21), "they need not wait for the others: {next:?}");
        drop(gate);
    }

    #[test]
    fn within_an_address_the_account_with_the_most_jobs_loses_its_newest() {
        let (lane, runs, gate) = held(DEADLINE);
        for job in 1..=12 {
            assert_eq!(lane.queue(payer(1, u64::from(job % 4)), job), None);
            if job <= 2 {
                runs.recv_timeout(DEADLINE).unwrap();
            }
        }
        // The accounts 3 and 0 have three jobs each, 1 and 2 have two.
        assert!([Some(11), Some(12)].contains(&lane.queue(payer(1, 100), 20)));
        assert!([Some(11), Some(12)].contains(&lane.queue(payer(1, 101), 21)));
        for account in 102..104 {
            assert!(lane.queue(payer(1, account), 22).is_some_and(|refused| refused < 22));
        }
        assert_eq!(lane.queue(payer(1, 0), 23), Some(23), "it has more than others");
        drop(gate);
    }

    #[test]
    fn equals_do_not_displace_each_other() {
        let (lane, runs, gate) = held(DEADLINE);
        for job in 1..=12 {
            assert_eq!(lane.queue(payer(job as u8, u64::from(job)), job), None);
            if job <= 2 {
                runs.recv_timeout(DEADLINE).unwrap();
            }
        }
        assert_eq!(lane.queue(payer(13, 13), 13), Some(13));
        drop(gate);
    }

    #[test]
    fn a_job_that_waited_too_long_is_late() {
        let (lane, runs, gate) = held(Duration::ZERO);
        assert_eq!(lane.queue(payer(1, 1), 1), None);
        assert_eq!(runs.recv_timeout(DEADLINE), Ok((1, LATE)));
        drop(gate);
    }

    #[test]
    fn a_closed_lane_refuses_what_waits_and_is_joined_until_a_deadline() {
        let (lane, runs, gate) = full(payer(1, 1));
        lane.close();
        assert_eq!(lane.queue(payer(2, 2), 13), Some(13));
        lane.join_by(Instant::now());
        assert!(!lane.threads().is_empty(), "two jobs still run");
        drop(gate);
        lane.join_by(Instant::now() + DEADLINE);
        assert!(lane.threads().is_empty());
        let mut late: Vec<_> = runs.try_iter().collect();
        late.sort_unstable_by_key(|(job, _)| *job);
        assert_eq!(late, (3..=12).map(|job| (job, LATE)).collect::<Vec<_>>());
    }
}
