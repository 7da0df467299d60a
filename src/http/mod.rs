//! The HTTP server for everything that is not a WebSocket: `tiny_http` on a private Unix socket, its workers, and the
//! routes.
//!
//! `tiny_http` is never exposed to the network: only the relay connects here, with one checked request at a time. A few
//! worker threads answer the requests. A handler is a function from a request to a [`reply::Reply`] and must not touch a
//! socket. Requests that wait for a password hash, and searches, go on to separate threads ([`slow_lane`]), so that they
//! delay no other request.
//! All these threads end when the [`Server`] is dropped.

mod error;
mod extract;
mod handlers;
mod openapi;
mod operation;
mod reply;
mod request;
mod router;
mod routes;
mod server;
mod slow_lane;
mod socket;

pub use server::{CLIENT_HEADER, Endpoint, SECURE_HEADER, Server, Settings, StartError, WORKERS};

#[cfg(test)]
pub(crate) mod tests;
