//! The bytes of a client of the control socket: each line is answered by a line of JSON, and others go on.

#![no_main]

#[path = "server.rs"]
mod server;

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::OnceLock;

use adda::config::Data;
use libfuzzer_sys::fuzz_target;

static SOCKET: OnceLock<PathBuf> = OnceLock::new();
/// A request of another version, which is answered by an error.
const KNOWN: &str = "{\"version\":0}\n";

fn exchange(socket: &PathBuf, bytes: &[u8]) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(server::WAIT))?;
    stream.set_write_timeout(Some(server::WAIT))?;
    // The server may have closed the connection before it has read everything.
    let sent = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
    let mut answer = String::new();
    match stream.read_to_string(&mut answer) {
        Err(error) if sent.is_ok() && error.kind() != io::ErrorKind::ConnectionReset => Err(error),
        _ => Ok(answer),
    }
}

fuzz_target!(|input: &[u8]| {
    let socket = SOCKET.get_or_init(|| {
        let directory = tempfile::tempdir().expect("a directory").keep();
        server::start(Data::File(directory.join("adda.db")));
        directory.join("adda.db.control")
    });
    let answer = exchange(socket, input).expect("an end");
    for line in answer.lines() {
        assert!(line.starts_with("{\"version\":1,"), "{line}");
    }
    assert!(answer.lines().count() <= input.split(|byte| *byte == b'\n').count(), "one answer a line: {answer}");
    let next = exchange(socket, KNOWN.as_bytes()).expect("an answer");
    assert!(next.starts_with("{\"version\":1,\"error\":") && next.ends_with('\n'), "the next client is served: {next}");
});
