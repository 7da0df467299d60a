//! adda: a real-time chat server in one small binary.

pub mod answer;
pub mod config;
pub mod head;
pub mod hub;
pub mod ids;
pub mod limits;
pub mod metrics;
pub mod model;
pub mod protocol;
pub mod rate;
pub mod store;
pub mod ws;
