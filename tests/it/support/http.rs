//! HTTP as bytes on a socket: the server reads exactly the bytes of the test.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType, sockopt};

use super::DEADLINE;

/// A response.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// A header's value; the test fails if there are two of one name.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "two headers {name}: {:?}", self.headers);
        value
    }

    /// The body as text.
    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("not JSON ({error}): {:?}", self.text()),
        }
    }

    /// Whether nothing of the response is missing. The bytes behind an upgrade count as its body.
    fn is_whole(&self, is_head: bool) -> bool {
        let length = self.header("Content-Length").and_then(|length| length.parse().ok());
        is_head
            || matches!(self.status, 101 | 204 | 304)
            || length.is_some_and(|length: usize| self.body.len() >= length)
    }

    /// Parses a response from `bytes`, as `curl -i` prints it or a socket receives it.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(end) = parsed.parse(bytes).ok()? else {
            return None;
        };
        let own = |h: &httparse::Header<'_>| (h.name.to_string(), String::from_utf8_lossy(h.value).into_owned());
        Some(Self {
            status: parsed.code?,
            headers: parsed.headers.iter().map(own).collect(),
            body: bytes[end..].to_vec(),
        })
    }
}

/// Sends `request` unchanged, and reads the first response.
#[track_caller]
pub fn http(address: SocketAddr, request: impl AsRef<[u8]>) -> Response {
    match try_http(address, request) {
        Ok(response) => response,
        Err(error) => panic!("no answer: {error}"),
    }
}

/// The same with a server that may die meanwhile.
///
/// # Errors
/// If there is no response.
pub fn try_http(address: SocketAddr, request: impl AsRef<[u8]>) -> io::Result<Response> {
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE)?;
    // A server may refuse a request before it has read all of it; only its response matters.
    let _ = stream.write_all(request.as_ref());
    read_response_to(request.as_ref().starts_with(b"HEAD "), &mut stream, DEADLINE)
}

/// Connects from a given address of the loopback network. `receive_bytes` bounds the bytes that arrive before they are
/// read.
///
/// # Errors
/// An error of the system.
pub fn connect_from(
    source: impl Into<IpAddr>,
    address: SocketAddr,
    receive_bytes: Option<usize>,
) -> io::Result<TcpStream> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    if let Some(bytes) = receive_bytes {
        sockopt::set_socket_recv_buffer_size(&socket, bytes)?;
    }
    rustix::net::bind(&socket, &SocketAddr::new(source.into(), 0))?;
    rustix::net::connect(&socket, &address)?;
    Ok(TcpStream::from(socket))
}

/// Sends a request with these header fields, and JSON if there is any, to a server that may die meanwhile.
///
/// # Errors
/// If there is no complete response.
pub fn exchange(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    json: Option<&serde_json::Value>,
) -> io::Result<Response> {
    let mut request = format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    let body = json.map(serde_json::Value::to_string).unwrap_or_default();
    if json.is_some() {
        request += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    }
    let response = try_http(address, format!("{request}\r\n{body}"))?;
    let length: Option<usize> = response.header("Content-Length").and_then(|length| length.parse().ok());
    match length {
        Some(length) if method != "HEAD" && response.body.len() != length => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(response),
    }
}

/// A GET from a given address of the loopback network.
///
/// # Errors
/// If there is no response.
pub fn get_from(address: SocketAddr, source: Ipv4Addr, target: &str) -> io::Result<Response> {
    let mut stream = connect_from(source, address, None)?;
    stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())?;
    read_response(&mut stream, DEADLINE)
}

/// Reads one response to a request that is not HEAD. Of an upgrade (101) it reads the head, with the bytes behind it as
/// the body; of others the whole body, or what comes of it before the end of the connection.
pub fn read_response(stream: &mut TcpStream, deadline: Duration) -> io::Result<Response> {
    read_response_to(false, stream, deadline)
}

/// Reads the response to a HEAD, which has no body, or to another request.
fn read_response_to(is_head: bool, stream: &mut TcpStream, deadline: Duration) -> io::Result<Response> {
    let end = Instant::now() + deadline;
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(response) = Response::parse(&bytes).filter(|response| response.is_whole(is_head)) {
            return Ok(response);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the answer does not end"));
        }
        stream.set_read_timeout(Some(left))?;
        let ended = match stream.read(&mut buffer) {
            Ok(0) => true,
            Ok(count) => {
                bytes.extend_from_slice(&buffer[..count]);
                false
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => false,
            // A reset after a complete head is the end of a refusal without a linger.
            Err(_) if Response::parse(&bytes).is_some() => true,
            Err(error) => return Err(error),
        };
        if ended {
            let cut = || io::Error::new(io::ErrorKind::UnexpectedEof, format!("{} bytes, no head", bytes.len()));
            return Response::parse(&bytes).ok_or_else(cut);
        }
    }
}

/// A WebSocket upgrade of `target`, with the example key of RFC 6455, section 1.3.
pub fn upgrade_request(target: &str, headers: &[(&str, &str)]) -> String {
    let mut request = format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    );
    for (name, value) in headers {
        if name.eq_ignore_ascii_case("host") {
            request = request.replace("Host: localhost", &format!("Host: {value}"));
        } else {
            request += &format!("{name}: {value}\r\n");
        }
    }
    request + "\r\n"
}
