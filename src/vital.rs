//! Threads that the server can't be without.

use std::thread;

/// Held by such a thread as long as it runs: if it ends by a panic, the process ends too, and says so. A server that
/// takes connections and does nothing for them is worse than one that its supervisor starts again.
#[derive(Debug)]
pub struct Vital(pub &'static str);

impl Drop for Vital {
    fn drop(&mut self) {
        if thread::panicking() {
            log::error!("the {} has failed; stopping", self.0);
            std::process::exit(1);
        }
    }
}
