//! Policies for threads: the process ends if an essential thread panics, and less urgent threads run at lower priority.

use std::thread;

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

/// Lowers the priority of this thread, and of the threads that it starts, below that of the hub and the store. Each
/// step of the scheduler (19 at most) is about a quarter. So the hub still sends new messages when a thousand
/// connections become active at once, or a client reads a year of messages.
pub fn lower_priority(steps: i32) {
    if let Err(error) = setpriority_process(Some(gettid()), steps) {
        // At equal priority everything works, only less evenly under load.
        log::debug!("failed to make a thread less urgent than the hub: {error}");
    }
}
