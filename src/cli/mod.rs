//! The command line: one file for each command. Each command runs in a process of its own, and the server may run at
//! the same time.

pub mod args;
pub mod audit;
pub mod backup;
pub mod completions;
mod control_client;
pub mod doctor;
mod error;
pub mod export;
mod greeting;
pub mod man;
pub mod output;
mod progress;
mod prompt;
mod propose;
pub mod serve;
pub mod service;
pub mod setup;
pub mod tokens;
mod usage;
pub mod users;
mod values;

pub use error::Error;
