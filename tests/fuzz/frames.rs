//! The bytes of a WebSocket: whatever comes, the connection is closed in order, and others go on.

#![no_main]

#[path = "server.rs"]
mod server;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::OnceLock;

use adda::config::Data;
use libfuzzer_sys::fuzz_target;

static SERVER: OnceLock<SocketAddr> = OnceLock::new();
const UPGRADE: &[u8] = b"GET /ws/tea/Ana HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Whether a client that only connects gets its welcome.
fn gets_welcome(address: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(server::WAIT))?;
    stream.write_all(UPGRADE)?;
    let (mut answer, mut part) = (Vec::new(), [0; 1024]);
    let welcome = b"\"type\":\"welcome\"";
    while !answer.windows(welcome.len()).any(|found| found == welcome) {
        match stream.read(&mut part) {
            Ok(0) => return Ok(false),
            Ok(count) => answer.extend_from_slice(&part[..count]),
            // By the alarm of the fuzzer.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

fuzz_target!(|input: &[u8]| {
    let address = *SERVER.get_or_init(|| server::start(Data::Memory));
    let answer = server::exchange(address, &[UPGRADE, input].concat()).expect("an end");
    // A reset after unread bytes may discard the response.
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
    assert!(gets_welcome(address).expect("an answer"), "the next client gets no welcome");
});
