//! The front of the server: the public port, the limits of connections, and the way of plain HTTP requests to
//! `tiny_http`.

mod answer;
mod body;
pub mod capacity;
mod keep_alive;
pub mod listener;
pub mod relay;
mod shares;
