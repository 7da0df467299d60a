//! The threads that hash passwords: two of them, so that at most two hashes are in memory at once.
//!
//! Layer 1, with threads of its own: it knows nothing of who asks. A job comes with what is to be done with its answer,
//! so nobody need wait for it; [`Hasher::verify`] and [`Hasher::hash`] wait, with a deadline. The hub must do neither.
//!
//! The threads are less urgent than the rest, so that a flood of logins takes what the chat leaves. Their memory goes back to
//! the system as soon as nothing waits. They end when the [`Hasher`] is dropped; jobs that still wait are answered
//! [`HasherError::Busy`].

use std::io;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::threads::{AbortOnPanic, lower_priority};

use super::password::{self, Cost, HashError, Memory, Password, PasswordHash};

/// Hashes in the making at once.
pub const HASHERS: usize = 2;
/// Jobs that wait for a thread: a second or two of work. Beyond it, whoever asks is told to come again.
pub const JOBS_WAITING_MAX: usize = 16;
/// Stack of a hashing thread: argon2's blocks on it are 1 KiB each, a handful at a time.
const STACK_BYTES: usize = 256 * 1024;
/// How much less urgent than the hub they are. Connections' threads are less urgent by less.
const NICE: i32 = 10;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HasherError {
    /// Too many wait, or the deadline has come. Nothing was decided.
    #[error("too many logins at once; try again in a moment")]
    Busy,
    /// The hash that was to be compared is none, or none could be made.
    #[error(transparent)]
    Hash(#[from] HashError),
}

/// What a password turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The account's. A new hash is to be stored in place of the old one, where that was made at another cost.
    Right {
        /// The new hash.
        renewed: Option<PasswordHash>,
    },
    /// Not the account's, or there is no such account: the same time has passed.
    Wrong,
}

type Answer<T> = Box<dyn FnOnce(Result<T, HasherError>) + Send>;

enum Job {
    Hash { password: Password, deadline: Instant, answer: Answer<PasswordHash> },
    Verify { password: Password, stored: Option<PasswordHash>, deadline: Instant, answer: Answer<Verdict> },
}

impl Job {
    fn deadline(&self) -> Instant {
        match self {
            Self::Hash { deadline, .. } | Self::Verify { deadline, .. } => *deadline,
        }
    }

    fn refuse(self) {
        match self {
            Self::Hash { answer, .. } => answer(Err(HasherError::Busy)),
            Self::Verify { answer, .. } => answer(Err(HasherError::Busy)),
        }
    }
}

/// The threads and their queue.
#[derive(Debug)]
pub struct Hasher {
    /// Taken when it is dropped, which ends the threads.
    jobs: Option<Sender<Job>>,
    /// The other end, for what still waits then.
    waiting: Receiver<Job>,
    threads: Vec<JoinHandle<()>>,
}

impl Hasher {
    /// Starts the threads, for hashes of today's cost.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn start() -> io::Result<Self> {
        Self::with_cost(Cost::CURRENT)
    }

    fn with_cost(cost: Cost) -> io::Result<Self> {
        let (jobs, waiting) = bounded(JOBS_WAITING_MAX);
        let mut hasher = Self { jobs: Some(jobs), waiting, threads: Vec::with_capacity(HASHERS) };
        for number in 1..=HASHERS {
            let waiting = hasher.waiting.clone();
            let thread = thread::Builder::new().name(format!("hash-{number}")).stack_size(STACK_BYTES);
            let nobodys = PasswordHash::nobodys(cost).map_err(io::Error::other)?;
            hasher.threads.push(thread.spawn(move || {
                let _abort = AbortOnPanic("hasher");
                lower_priority(NICE);
                work(&waiting, &nobodys, cost);
            })?);
        }
        Ok(hasher)
    }

    /// Hashes a new password, and waits for it until the deadline.
    ///
    /// # Errors
    /// [`HasherError`].
    pub fn hash(&self, password: Password, deadline: Instant) -> Result<PasswordHash, HasherError> {
        wait(deadline, |answer| self.submit_hash(password, deadline, answer))
    }

    /// Compares a password with a stored hash, and waits for it until the deadline. Where there is no account and so no
    /// hash, it takes as long, and is wrong.
    ///
    /// # Errors
    /// [`HasherError`].
    pub fn verify(
        &self,
        password: Password,
        stored: Option<PasswordHash>,
        deadline: Instant,
    ) -> Result<Verdict, HasherError> {
        wait(deadline, |answer| self.submit_verify(password, stored, deadline, answer))
    }

    /// As [`hash`](Self::hash), with `answer` called on the hashing thread. It must not wait for anything.
    ///
    /// # Errors
    /// [`HasherError::Busy`] where too many wait; then `answer` is not called.
    pub fn submit_hash(
        &self,
        password: Password,
        deadline: Instant,
        answer: impl FnOnce(Result<PasswordHash, HasherError>) + Send + 'static,
    ) -> Result<(), HasherError> {
        self.submit(Job::Hash { password, deadline, answer: Box::new(answer) })
    }

    /// As [`verify`](Self::verify), with `answer` called on the hashing thread. It must not wait for anything.
    ///
    /// # Errors
    /// [`HasherError::Busy`] where too many wait; then `answer` is not called.
    pub fn submit_verify(
        &self,
        password: Password,
        stored: Option<PasswordHash>,
        deadline: Instant,
        answer: impl FnOnce(Result<Verdict, HasherError>) + Send + 'static,
    ) -> Result<(), HasherError> {
        self.submit(Job::Verify { password, stored, deadline, answer: Box::new(answer) })
    }

    fn submit(&self, job: Job) -> Result<(), HasherError> {
        let jobs = self.jobs.as_ref().ok_or(HasherError::Busy)?;
        jobs.try_send(job).map_err(|_| HasherError::Busy)
    }
}

impl Drop for Hasher {
    fn drop(&mut self) {
        drop(self.jobs.take());
        for job in self.waiting.try_iter() {
            job.refuse();
        }
        for thread in self.threads.drain(..) {
            // One that panicked has said so already.
            let _ = thread.join();
        }
    }
}

fn wait<T: Send + 'static>(
    deadline: Instant,
    submit: impl FnOnce(Box<dyn FnOnce(Result<T, HasherError>) + Send>) -> Result<(), HasherError>,
) -> Result<T, HasherError> {
    let (sender, receiver) = bounded(1);
    submit(Box::new(move |answer| {
        // Fails only where the deadline has come and nobody waits.
        let _ = sender.send(answer);
    }))?;
    receiver.recv_deadline(deadline).unwrap_or(Err(HasherError::Busy))
}

/// One thread's life.
fn work(waiting: &Receiver<Job>, nobodys: &PasswordHash, cost: Cost) {
    let mut memory = Memory::default();
    loop {
        let job = match waiting.try_recv() {
            Ok(job) => job,
            Err(_) => {
                memory.free();
                let Ok(job) = waiting.recv() else { return };
                job
            }
        };
        match job {
            job if Instant::now() >= job.deadline() => job.refuse(),
            Job::Hash { password, answer, .. } => {
                answer(password::hash(&password, cost, &mut memory).map_err(Into::into));
            }
            Job::Verify { password, stored: Some(stored), answer, .. } => {
                answer(verify(&password, &stored, cost, &mut memory));
            }
            Job::Verify { password, stored: None, answer, .. } => {
                let compared = password::verify(&password, nobodys, cost, &mut memory);
                answer(compared.map(|_| Verdict::Wrong).map_err(Into::into));
            }
        }
    }
}

fn verify(password: &Password, stored: &PasswordHash, cost: Cost, memory: &mut Memory) -> Result<Verdict, HasherError> {
    match password::verify(password, stored, cost, memory)? {
        (true, is_outdated) => {
            let renewed = is_outdated.then(|| password::hash(password, cost, memory)).transpose()?;
            Ok(Verdict::Right { renewed })
        }
        (false, _) => Ok(Verdict::Wrong),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossbeam_channel::unbounded;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    fn password(text: &str) -> Password {
        Password::shown(text).unwrap()
    }

    /// A pool whose threads are held up until the gate is dropped.
    fn held() -> (Hasher, Sender<()>) {
        let hasher = Hasher::with_cost(Cost::LITTLE).unwrap();
        let (gate, closed) = bounded::<()>(0);
        let (begun, begins) = unbounded();
        for _ in 0..HASHERS {
            let (closed, begun) = (closed.clone(), begun.clone());
            let answer = move |_| {
                begun.send(()).unwrap();
                let _ = closed.recv();
            };
            hasher.submit_hash(password("holds"), soon(), answer).unwrap();
            begins.recv_timeout(Duration::from_secs(30)).expect("one more thread has taken its job");
        }
        (hasher, gate)
    }

    #[test]
    fn a_password_is_right_or_wrong() {
        let hasher = Hasher::with_cost(Cost::LITTLE).unwrap();
        let stored = hasher.hash(password("correct horse"), soon()).unwrap();
        let verify = |text, stored| hasher.verify(password(text), stored, soon());
        assert_eq!(verify("correct horse", Some(stored.clone())), Ok(Verdict::Right { renewed: None }));
        assert_eq!(verify("correct hors", Some(stored.clone())), Ok(Verdict::Wrong));
        assert_eq!(verify("correct horse", None), Ok(Verdict::Wrong));
        let broken = PasswordHash::stored("nonsense");
        assert_eq!(verify("correct horse", Some(broken)), Err(HasherError::Hash(HashError::Stored)));
    }

    #[test]
    fn a_hash_of_another_cost_is_made_anew_when_it_is_used() {
        let stored = Hasher::with_cost(Cost::LITTLE).unwrap().hash(password("correct horse"), soon()).unwrap();
        let hasher = Hasher::start().unwrap();
        assert_eq!(hasher.verify(password("wrong"), Some(stored.clone()), soon()), Ok(Verdict::Wrong));
        let verdict = hasher.verify(password("correct horse"), Some(stored), soon());
        let Ok(Verdict::Right { renewed: Some(renewed) }) = verdict else { panic!("{verdict:?}") };
        assert_eq!(
            hasher.verify(password("correct horse"), Some(renewed), soon()),
            Ok(Verdict::Right { renewed: None })
        );
    }

    #[test]
    fn two_are_hashed_at_once_a_few_wait_and_the_rest_come_again() {
        let (hasher, gate) = held();
        let (sender, answers) = unbounded();
        for _ in 0..JOBS_WAITING_MAX {
            let sender = sender.clone();
            let answer = move |verdict| sender.send(verdict).unwrap();
            hasher.submit_verify(password("waits"), None, soon(), answer).unwrap();
        }
        assert_eq!(hasher.hash(password("too many"), soon()), Err(HasherError::Busy));
        assert!(answers.is_empty(), "both threads are held up");
        drop(gate);
        for _ in 0..JOBS_WAITING_MAX {
            assert_eq!(answers.recv_timeout(Duration::from_secs(30)), Ok(Ok(Verdict::Wrong)));
        }
        assert!(hasher.hash(password("again"), soon()).is_ok());
    }

    #[test]
    fn nobody_waits_past_the_deadline_and_nothing_is_hashed_behind_it() {
        let (hasher, gate) = held();
        let deadline = Instant::now() + Duration::from_millis(20);
        assert_eq!(hasher.hash(password("waits"), deadline), Err(HasherError::Busy));
        assert!(Instant::now() >= deadline);
        let (sender, answers) = unbounded();
        hasher.submit_hash(password("late"), deadline, move |answer| sender.send(answer).unwrap()).unwrap();
        drop(gate);
        assert_eq!(answers.recv_timeout(Duration::from_secs(30)), Ok(Err(HasherError::Busy)));
    }

    #[test]
    fn the_threads_end_with_the_pool_and_who_waits_is_told() {
        let (hasher, gate) = held();
        let (sender, answers) = unbounded();
        hasher.submit_hash(password("waits"), soon(), move |answer| sender.send(answer).unwrap()).unwrap();
        let dropper = thread::spawn(move || drop(hasher));
        assert_eq!(
            answers.recv_timeout(Duration::from_secs(30)),
            Ok(Err(HasherError::Busy)),
            "before any thread is free"
        );
        drop(gate);
        dropper.join().unwrap();
    }
}
