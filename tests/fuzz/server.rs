//! A server in this process, without rate limits.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use adda::config::{Config, Data};
use adda::limits::Limits;

/// How long a response may take. The server itself ends what takes longer than its own deadlines.
pub const WAIT: Duration = Duration::from_secs(20);

/// Starts a server and returns its address. It runs until the process ends.
pub fn start(data: Data) -> SocketAddr {
    let limits = Limits {
        rate_per_s: 0,
        connections_per_s: 0,
        handshakes_per_s: 0,
        searches_per_s: 0,
        pages_per_s: 0,
        lease: Duration::ZERO,
        ..Limits::default()
    };
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let running = adda::start(Config { listen, data, limits, ..Config::default() }).expect("a server");
    let address = running.address();
    std::mem::forget(running);
    address
}

/// Sends bytes on a new connection, and returns all that comes until the server closes it.
#[allow(dead_code)] // not all fuzzers use it
pub fn exchange(address: SocketAddr, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(WAIT))?;
    stream.set_write_timeout(Some(WAIT))?;
    let mut answer = Vec::new();
    // The server may have closed the connection before it has read everything.
    let sent = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
    match stream.read_to_end(&mut answer) {
        Err(error) if sent.is_ok() && error.kind() != io::ErrorKind::ConnectionReset => Err(error),
        _ => Ok(answer),
    }
}
