//! Policies for threads: a thread waits for its channels without spinning, the process ends if an essential thread panics,
//! less urgent threads run at lower priority, and a stop waits for threads only until a deadline.

use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, SendError, SendTimeoutError, Sender, TrySendError, bounded, unbounded};
use rustix::process::setpriority_process;
use rustix::thread::gettid;

/// Where a thread sleeps until another thread has something for it. It belongs to one thread, the first that sleeps.
///
/// The receivers of `crossbeam-channel` spin and yield for some microseconds before they park. For a message that passes
/// several threads this was nearly half of the work. A sleeping thread parks at once.
#[derive(Debug, Default)]
pub struct Sleeper(Arc<OnceLock<Thread>>);

/// Wakes a sleeping thread. Also wakes it when dropped, so that it sees the end of a channel.
#[derive(Debug, Clone)]
struct Waker(Arc<OnceLock<Thread>>);

impl Sleeper {
    fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.0))
    }

    /// A channel for the thread that sleeps here: its messages wake it.
    #[must_use]
    pub fn channel<T>(&self, capacity: Option<usize>) -> (WakingSender<T>, Receiver<T>) {
        let (sender, receiver) = capacity.map_or_else(unbounded, bounded);
        (WakingSender { sender, waker: self.waker() }, receiver)
    }

    /// Sleeps until it is woken, or until a time. It may return early, so the caller looks at its channels in a loop. A
    /// wake since the last sleep ends the next one.
    pub fn sleep(&self, until: Option<Instant>) {
        if self.0.set(thread::current()).is_ok() {
            // Earlier wakers found no thread. What they sent is seen now.
            fence(Ordering::SeqCst);
            return;
        }
        match until {
            Some(until) => thread::park_timeout(until.saturating_duration_since(Instant::now())),
            None => thread::park(),
        }
    }
}

impl Waker {
    fn wake(&self) {
        if self.0.get().is_none() {
            // Either the thread is seen here, or it looks at its channels after this.
            fence(Ordering::SeqCst);
        }
        if let Some(thread) = self.0.get() {
            thread.unpark();
        }
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        self.wake();
    }
}

/// The sending end of a channel for a thread with a [`Sleeper`]. The methods are those of the sender.
#[derive(Debug)]
pub struct WakingSender<T> {
    // Dropped in this order: when the thread is woken, the channel has ended.
    sender: Sender<T>,
    waker: Waker,
}

impl<T> Clone for WakingSender<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), waker: self.waker.clone() }
    }
}

impl<T> WakingSender<T> {
    /// # Errors
    /// If the channel has ended.
    pub fn send(&self, message: T) -> Result<(), SendError<T>> {
        self.sender.send(message).inspect(|()| self.waker.wake())
    }

    /// # Errors
    /// If the channel is full or has ended.
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        self.sender.try_send(message).inspect(|()| self.waker.wake())
    }

    /// # Errors
    /// If the channel is full until the deadline, or has ended.
    pub fn send_deadline(&self, message: T, deadline: Instant) -> Result<(), SendTimeoutError<T>> {
        self.sender.send_deadline(message, deadline).inspect(|()| self.waker.wake())
    }
}

/// Held by an essential thread while it runs. If the thread panics, the process logs this and exits. A server that
/// accepts connections and does nothing for them is worse than one that its supervisor restarts.
#[derive(Debug)]
pub struct AbortOnPanic(pub &'static str);

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            log::error!("the {} has failed; stopping", self.0);
            log::logger().flush();
            std::process::exit(1);
        }
    }
}

/// How often a stop checks whether threads have ended.
pub const JOIN_CHECK_INTERVAL: Duration = Duration::from_millis(2);

/// Joins threads until all have ended or the time is over, and returns whether all have ended.
pub fn join_by(threads: &mut Vec<JoinHandle<()>>, deadline: Instant) -> bool {
    loop {
        // A panic has been reported already.
        threads.extract_if(.., |thread| thread.is_finished()).for_each(|thread| drop(thread.join()));
        if threads.is_empty() || Instant::now() >= deadline {
            return threads.is_empty();
        }
        thread::sleep(JOIN_CHECK_INTERVAL);
    }
}

/// Lowers the priority of this thread, and of the threads that it starts, below that of the hub and the store. Each
/// step of the scheduler (19 at most) is about a quarter. So the hub still sends new messages when a thousand
/// connections become active at once, or a client reads a year of messages.
pub fn lower_priority(steps: i32) {
    if let Err(error) = setpriority_process(Some(gettid()), steps) {
        // At equal priority everything works, only less evenly under load.
        log::debug!("failed to make a thread less urgent than the hub: {error}");
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::TryRecvError;

    use super::*;

    /// Receives until the channel ends, as a thread with a sleeper does. Returns what was sent.
    fn receive(sleeper: &Sleeper, receiver: &Receiver<u32>) -> Vec<u32> {
        let mut got = Vec::new();
        loop {
            match receiver.try_recv() {
                Ok(message) => got.push(message),
                Err(TryRecvError::Empty) => sleeper.sleep(None),
                Err(TryRecvError::Disconnected) => return got,
            }
        }
    }

    /// A lost wake would leave the receiver asleep for ever, as it sleeps without a time.
    #[test]
    fn no_message_and_no_end_of_a_channel_is_missed() {
        for capacity in [None, Some(1), Some(100)] {
            for _ in 0..50 {
                let sleeper = Sleeper::default();
                let (sender, receiver) = sleeper.channel(capacity);
                let receiving = thread::spawn(move || receive(&sleeper, &receiver));
                let senders = [0, 1_000].map(|first| (first, sender.clone()));
                drop(sender);
                let sending = senders.map(|(first, sender)| {
                    thread::spawn(move || {
                        for number in first..first + 100 {
                            sender.send(number).unwrap();
                            // Now and then the receiver falls asleep.
                            if number % 10 == 0 {
                                thread::sleep(Duration::from_micros(20));
                            }
                        }
                    })
                });
                sending.into_iter().for_each(|sending| sending.join().unwrap());
                let mut got = receiving.join().unwrap();
                got.sort_unstable();
                assert_eq!(got, (0..100).chain(1_000..1_100).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_sleep_ends_at_its_time_or_after_a_wake_that_came_before_it() {
        let sleeper = Sleeper::default();
        // The first sleep only takes the thread.
        sleeper.sleep(None);
        let begun = Instant::now();
        sleeper.waker().wake();
        sleeper.sleep(Some(begun + Duration::from_secs(60)));
        sleeper.sleep(Some(begun + Duration::from_millis(20)));
        assert!(begun.elapsed() < Duration::from_secs(50), "{:?}", begun.elapsed());
    }
}
