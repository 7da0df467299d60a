//! The bytes of a WebSocket: whatever comes, the connection is closed in order, and others go on.

#![no_main]

#[path = "server.rs"]
mod server;

use std::net::SocketAddr;
use std::sync::OnceLock;

use adda::config::Data;
use libfuzzer_sys::fuzz_target;

static SERVER: OnceLock<SocketAddr> = OnceLock::new();
const UPGRADE: &[u8] = b"GET /ws/tea/Ana HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fuzz_target!(|input: &[u8]| {
    let address = *SERVER.get_or_init(|| server::start(Data::Memory));
    let answer = server::exchange(address, &[UPGRADE, input].concat()).expect("an end");
    // A reset after unread bytes may discard the response.
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
});
