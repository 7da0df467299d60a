//! What is asked of threads: which the server can't be without, and which let others go first.

use std::thread;

use rustix::process::setpriority_process;
use rustix::thread::gettid;

/// Held by such a thread as long as it runs: if it ends by a panic, the process ends too, and says so. A server that
/// takes connections and does nothing for them is worse than one that its supervisor starts again.
#[derive(Debug)]
pub struct AbortOnPanic(pub &'static str);

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            log::error!("the {} has failed; stopping", self.0);
            std::process::exit(1);
        }
    }
}

/// Makes this thread, and every one that it starts, less urgent than the hub and the store, by so many of the
/// scheduler's steps of about a quarter (19 at most): when a thousand connections have something to do at once, or
/// a client reads a year of messages, the hub still sends new messages in between.
pub fn lower_priority(steps: i32) {
    if let Err(error) = setpriority_process(Some(gettid()), steps) {
        // They work as well as equals, only less evenly under a flood.
        log::debug!("failed to make a thread less urgent than the hub: {error}");
    }
}
