//! The query of a request: whatever it asks for, the server answers, and never with an error of its own.

#![no_main]

#[path = "server.rs"]
mod server;

use std::net::SocketAddr;
use std::sync::OnceLock;

use adda::config::Data;
use adda::http1::head::query_value;
use libfuzzer_sys::fuzz_target;

static SERVER: OnceLock<SocketAddr> = OnceLock::new();
const PATHS: [&str; 5] = ["/api/rooms/tea/messages", "/api/rooms", "/api/rooms/tea/members", "/api/session", "/"];

fuzz_target!(|input: (u8, &str)| {
    let (path, query) = input;
    let _ = query_value(query, "q");
    if query.contains(|c: char| c.is_control() || c == ' ') {
        return;
    }
    let address = *SERVER.get_or_init(|| {
        let address = server::start(Data::Memory);
        let text = "The kettle is on";
        let head = format!("Host: h\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", text.len());
        let request = format!("POST /api/rooms/tea/messages HTTP/1.1\r\n{head}{text}");
        let answer = server::exchange(address, request.as_bytes()).expect("an answer");
        assert!(answer.starts_with(b"HTTP/1.1 201 "), "{}", String::from_utf8_lossy(&answer));
        address
    });
    let path = PATHS[usize::from(path) % PATHS.len()];
    let request = format!("GET {path}?{query} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    let answer = server::exchange(address, request.as_bytes()).expect("an answer");
    let status = std::str::from_utf8(&answer[..12.min(answer.len())]).expect("a status line");
    assert!(
        ["200", "304", "400", "401", "404", "409", "414", "431"].iter().any(|known| status.ends_with(known)),
        "{status}"
    );
});
