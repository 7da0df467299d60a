//! Temporary.
#![allow(missing_docs)]
use std::net::*;
#[derive(Debug)]
pub struct Relay;
impl Relay {
    pub fn forward(
        &self,
        stream: &TcpStream,
        _p: SocketAddr,
        _h: &crate::head::Head,
        _e: Vec<u8>,
        _l: &crate::limits::Limits,
    ) {
        crate::answer::refuse(
            stream,
            &crate::answer::Problem::new(404, "nothing here yet", "not_found"),
        );
    }
}
