//! Policies for threads: the process ends if an essential thread panics, less urgent threads run at lower priority, and a
//! stop waits for threads only until a deadline.

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::setpriority_process;
use rustix::thread::gettid;

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
