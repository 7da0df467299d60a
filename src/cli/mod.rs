//! The command line: its flags, and one file for each command. Each command runs in a process of its own, and the
//! server may run at the same time.

pub mod args;
pub mod control_client;
pub mod export;
mod prompt;
mod propose;
pub mod setup;
pub mod users;

pub use export::Error;
