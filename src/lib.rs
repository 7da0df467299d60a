//! adda: a real-time chat server in one small binary.

pub mod answer;
pub mod config;
pub mod head;
pub mod http;
pub mod hub;
pub mod limits;
pub mod metrics;
pub mod model;
pub mod protocol;
