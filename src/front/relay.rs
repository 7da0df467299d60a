//! The relay: carries one request to `tiny_http` and the response back.
//!
//! Runs on the connection's own thread. `tiny_http` sees only what this file has checked and rewritten: the whole
//! body with one Content-Length, the allowed header fields, and HTTP/1.0. In HTTP/1.0 it neither sends chunks nor waits
//! for a second request. So each request has a private connection of its own, also if the client's is kept.

use std::io::{self, BufReader, Write};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

use super::answer::{Answer, Undelivered, WholeResponse, send_to_reader};
use super::body::{BodyAndRest, read_body};
use super::shares::{Bounds, Claim, Pool, Share};
use crate::http::{CLIENT_HEADER, Endpoint, SECURE_HEADER, WORKERS};
use crate::http1::forwarded::Client;
use crate::http1::head::{Framing, Head, RequestError};
use crate::http1::response;
use crate::limits::{
    BODIES_MAX, BODIES_PER_ADDRESS_MAX, BODY_SPARED, HUB_ANSWER_WAIT, Limits, RELAY_WAIT, RELAYS_MAX,
    RELAYS_PER_ADDRESS_MAX, RESPONSES_BYTES_MAX, RESPONSES_PER_ADDRESS_BYTES_MAX,
};
use crate::metrics::{Drop, Metrics};
use crate::rate::network_of;

/// How long `tiny_http` may take for a response. A permit must not be released before `tiny_http` is done with the
/// request, or more requests would be there than permits. So this is longer than the hub can keep all of them waiting.
const ANSWER_WAIT: Duration = Duration::from_secs(40);
const _: () = assert!((RELAYS_MAX / WORKERS) as u64 * HUB_ANSWER_WAIT.as_secs() < ANSWER_WAIT.as_secs());
/// Bytes that are read at once of the head of a response.
const PIECE_BYTES: usize = 8 * 1024;

/// The header fields of a request that are passed to the handlers; all others are dropped.
const PASSED: [&str; 15] = [
    "Accept",
    "Accept-Encoding",
    "Accept-Language",
    "Access-Control-Request-Method",
    "Authorization",
    "Content-Type",
    "Cookie",
    "Idempotency-Key",
    "If-Modified-Since",
    "If-None-Match",
    "If-Range",
    "Last-Event-ID",
    "Origin",
    "Range",
    "User-Agent",
];

/// The relay to `tiny_http`, for [`RELAYS_MAX`] requests at once.
#[derive(Debug)]
pub struct Relay {
    endpoint: Endpoint,
    metrics: Arc<Metrics>,
    /// Permits for requests at `tiny_http`.
    requests: Arc<Pool>,
    /// Permits for request bodies, which are held in memory before that.
    bodies: Arc<Pool>,
    /// Bytes of responses until their readers have taken them.
    responses: Arc<Pool>,
    permit_wait: Duration,
}

impl Relay {
    /// A relay to the endpoint of an HTTP server.
    #[must_use]
    pub fn new(endpoint: Endpoint, metrics: Arc<Metrics>) -> Self {
        let (spared, cut) = (Duration::ZERO, Shutdown::Both);
        Self {
            endpoint,
            metrics,
            requests: Pool::new(Bounds { total: RELAYS_MAX, of_owner: RELAYS_PER_ADDRESS_MAX, spared, cut }),
            // A client whose body is cut off can still read why.
            bodies: Pool::new(Bounds {
                total: BODIES_MAX,
                of_owner: BODIES_PER_ADDRESS_MAX,
                spared: BODY_SPARED,
                cut: Shutdown::Read,
            }),
            responses: Pool::new(Bounds {
                total: RESPONSES_BYTES_MAX,
                of_owner: RESPONSES_PER_ADDRESS_BYTES_MAX,
                spared,
                cut,
            }),
            permit_wait: RELAY_WAIT,
        }
    }

    /// Carries out one request, or sends an error response. `early` are the bytes behind the head that have been read
    /// already, and `may_keep` is whether the connection may carry a further request. Waits for the body, for a permit,
    /// for the response and for its reader, each with a time-out.
    ///
    /// Returns the first bytes of the next request if the connection is kept. Otherwise nothing can be sent on the
    /// stream afterwards.
    ///
    /// Not inlined: a WebSocket on the same thread must not keep the stack of this function.
    #[inline(never)]
    pub fn forward(
        &self,
        stream: &Arc<TcpStream>,
        client: Client,
        head: &Head,
        early: &[u8],
        may_keep: bool,
        limits: &Limits,
    ) -> Option<Vec<u8>> {
        match self.answer(stream, client, head, early, may_keep, limits) {
            Ok(delivery) => self.deliver(stream, delivery, limits),
            Err(error) => {
                error.answer(stream, client, &*head.method == "HEAD", &self.metrics);
                None
            }
        }
    }

    /// The response of `tiny_http`, whole, so that no permit depends on the client that reads it.
    fn answer(
        &self,
        stream: &Arc<TcpStream>,
        client: Client,
        head: &Head,
        early: &[u8],
        may_keep: bool,
        limits: &Limits,
    ) -> Result<Delivery, RequestError> {
        let owner = network_of(client.address);
        let ((body, next), body_share) = self.body(stream, owner, head, early, limits)?;
        let claim = Claim { owner, amount: 1, socket: None };
        let _permit = self.requests.acquire(claim, self.permit_wait).ok_or(RequestError::Busy)?;
        let unanswered = |error| {
            log::warn!("no answer from the web server: {error}");
            RequestError::Unanswered
        };
        let source = self.ask(&request(head, client, &body)).map_err(unanswered)?;
        drop((body, body_share));
        let answer = Answer::begin(source, &head.method, may_keep).map_err(unanswered)?;
        let claim = Claim { owner, amount: answer.len(), socket: Some(Arc::clone(stream)) };
        let share = self.responses.take(claim).ok_or(RequestError::Busy)?;
        let next = answer.is_kept().then_some(next);
        Ok(Delivery { bytes: answer.read().map_err(unanswered)?, share, next })
    }

    /// The body of a request, the bytes behind it that have been read, and its share of the memory for bodies.
    fn body(
        &self,
        stream: &Arc<TcpStream>,
        owner: IpAddr,
        head: &Head,
        early: &[u8],
        limits: &Limits,
    ) -> Result<(BodyAndRest, Option<Share>), RequestError> {
        let share = match head.framing {
            Framing::None | Framing::Length(0) => None,
            Framing::Length(_) | Framing::Chunked => {
                stream.set_write_timeout(Some(limits.write_stall)).map_err(|_| RequestError::Gone)?;
                let claim = Claim { owner, amount: 1, socket: Some(Arc::clone(stream)) };
                Some(self.bodies.acquire(claim, self.permit_wait).ok_or(RequestError::Busy)?)
            }
        };
        let is_cut_off = || share.as_ref().is_some_and(Share::is_taken_back);
        let body = read_body(stream, head, early, share.as_ref(), limits)
            .map_err(|error| if is_cut_off() { RequestError::CutOff } else { error })?;
        // The client has done its part. What remains to wait for is the server.
        share.iter().for_each(Share::keep);
        Ok((body, share))
    }

    /// Sends a whole request.
    fn ask(&self, request: &[u8]) -> io::Result<BufReader<UnixStream>> {
        let mut stream = self.endpoint.connect()?;
        stream.set_read_timeout(Some(ANSWER_WAIT))?;
        stream.set_write_timeout(Some(ANSWER_WAIT))?;
        stream.write_all(request)?;
        Ok(BufReader::with_capacity(PIECE_BYTES, stream))
    }

    /// Sends a response. The client is cut off if it reads too slowly, or if the memory for responses is short and it is
    /// the slowest of the largest owner.
    fn deliver(&self, stream: &TcpStream, delivery: Delivery, limits: &Limits) -> Option<Vec<u8>> {
        let Delivery { bytes, share, next } = delivery;
        let sent = send_to_reader(stream, &bytes, &share, limits.write_stall);
        // A kept share is not taken back any more, so a connection that is kept can't be shut down for this response.
        share.keep();
        let is_cut_off = sent == Err(Undelivered::TooSlow) || share.is_taken_back();
        drop((bytes, share));
        if is_cut_off {
            self.metrics.dropped(Drop::SlowReader);
            // A reset, so that the kernel discards what it still has of the response.
            let _ = set_socket_linger(stream, Some(Duration::ZERO));
            return None;
        }
        sent.ok()?;
        if next.is_none() {
            response::linger(stream);
        }
        next
    }
}

/// A response on its way to the client.
struct Delivery {
    bytes: WholeResponse,
    share: Share,
    /// The bytes behind the request, if the connection is kept.
    next: Option<Vec<u8>>,
}

/// The request in the form that `tiny_http` gets.
fn request(head: &Head, client: Client, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1024 + body.len());
    let mut line = |parts: &[&[u8]]| {
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        bytes.extend_from_slice(b"\r\n");
    };
    line(&[head.method.as_bytes(), b" ", head.target.as_bytes(), b" HTTP/1.0"]);
    line(&[CLIENT_HEADER.as_bytes(), b": ", client.address.to_string().as_bytes()]);
    if client.is_secure {
        line(&[SECURE_HEADER.as_bytes(), b": 1"]);
    }
    // If the target has a host, that host counts.
    if !head.host.is_empty() {
        line(&[b"Host: ", head.host.as_bytes()]);
    }
    for (name, value) in head.headers() {
        let is_passed = PASSED.iter().any(|passed| passed.eq_ignore_ascii_case(name));
        // `tiny_http` refuses a request with a byte beyond ASCII.
        if is_passed && value.is_ascii() {
            line(&[name.as_bytes(), b": ", value]);
        }
    }
    if head.framing != Framing::None {
        line(&[b"Content-Length: ", body.len().to_string().as_bytes()]);
    }
    line(&[]);
    bytes.extend_from_slice(body);
    bytes
}

/// Writes to the client. The stream's time-out applies to each write, so only a reader that takes nothing fails.
pub(super) fn send(mut stream: &TcpStream, bytes: &[u8]) -> Result<(), RequestError> {
    stream.write_all(bytes).map_err(|_| RequestError::Gone)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;
    use std::thread;
    use std::time::Instant;

    use super::*;
    use crate::http::Server;
    use crate::http::tests::Backend;
    use crate::http1::head;

    /// A relay and a server without the listener: clients connect one at a time.
    struct Rig {
        listener: TcpListener,
        relay: Arc<Relay>,
        metrics: Arc<Metrics>,
        limits: Limits,
        _server: Server,
        _backend: Backend,
    }

    impl Rig {
        fn new() -> Self {
            let metrics = Arc::new(Metrics::default());
            let backend = Backend::start();
            let server = backend.serve(&metrics);
            Self {
                listener: TcpListener::bind("127.0.0.1:0").unwrap(),
                relay: Arc::new(Relay::new(server.endpoint(), Arc::clone(&metrics))),
                metrics,
                limits: Limits::default(),
                _server: server,
                _backend: backend,
            }
        }

        fn connect(&self) -> TcpStream {
            let client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let (stream, peer) = self.listener.accept().unwrap();
            let (relay, limits, metrics) = (Arc::clone(&self.relay), self.limits, Arc::clone(&self.metrics));
            thread::spawn(move || match head::read(&stream, &[], Instant::now() + limits.head_deadline) {
                Ok((head, early)) => {
                    let client = Client::of(&head, peer, &[]);
                    let next = relay.forward(&stream.into(), client, &head, &early, false, &limits);
                    assert_eq!(next, None, "it may not be kept");
                }
                Err(error) => error.answer(&stream, peer, false, &metrics),
            });
            client
        }

        fn ask(&self, request: impl AsRef<[u8]>) -> String {
            let mut client = self.connect();
            client.write_all(request.as_ref()).unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            answer
        }
    }

    fn parsed(bytes: &str) -> Head {
        head::parse(bytes.as_bytes()).unwrap().unwrap().0
    }

    #[test]
    fn a_connection_that_may_not_be_kept_is_closed() {
        let rig = Rig::new();
        for version in ["1.0", "1.1"] {
            let answer = rig.ask(format!("GET /healthz HTTP/{version}\r\nHost: h\r\nConnection: keep-alive\r\n\r\n"));
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            assert_eq!(head.matches("Connection: close").count(), 1, "{head}");
            assert_eq!(head.matches("Content-Length: 3").count(), 1, "{head}");
            assert!(!head.contains("Server:") && !head.contains("Transfer-Encoding"), "{head}");
            assert_eq!(body, "ok\n");
        }
    }

    #[test]
    fn responses_to_head_and_some_statuses_have_no_body() {
        let rig = Rig::new();
        for (request, status, length) in [
            ("HEAD /healthz", 200, Some("Content-Length: 3")),
            ("HEAD /none", 404, Some("Content-Length: 64")),
            ("OPTIONS *", 204, None),
            ("GET /", 304, None),
        ] {
            let answer = rig.ask(format!("{request} HTTP/1.1\r\nHost: h\r\nIf-None-Match: *\r\n\r\n"));
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            assert!(answer.ends_with("\r\n\r\n"), "{answer}");
            assert_eq!(answer.lines().find(|line| line.starts_with("Content-Length")), length);
        }
    }

    #[test]
    fn a_second_request_on_a_connection_is_not_read() {
        let rig = Rig::new();
        let get = "GET /healthz HTTP/1.1\r\nHost: h\r\n";
        for first in [
            format!("{get}\r\n"),
            format!("{get}Content-Length: 3\r\n\r\nabc"),
            format!("{get}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ] {
            let before = rig.metrics.http_requests.get();
            let answer = rig.ask(format!("{first}{get}\r\n{get}\r\n"));
            assert_eq!(answer.matches("HTTP/1.").count(), 1, "{answer}");
            assert_eq!(rig.metrics.http_requests.get(), before + 1);
        }
    }

    #[test]
    fn a_handler_sees_only_the_allowed_header_fields() {
        let head = parsed(
            "POST /a?b HTTP/1.1\r\nHost: h\r\nADDA-CLIENT: 1.2.3.4\r\nAdda-Secure: 1\r\n\
             X-Forwarded-For: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\nX-Forwarded-Proto: https\r\nCookie: a=b\r\n\
             User-Agent: caf\u{e9}\r\nTE: chunked\r\nExpect: 100-continue\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\
             if-none-match: *\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        let client = |is_secure| Client { address: "::1".parse().unwrap(), is_secure };
        let rest = "Host: h\r\nCookie: a=b\r\nif-none-match: *\r\nContent-Length: 4\r\n\r\nbody";
        for (is_secure, secure) in [(false, ""), (true, "Adda-Secure: 1\r\n")] {
            let request = String::from_utf8(request(&head, client(is_secure), b"body")).unwrap();
            assert_eq!(request, format!("POST /a?b HTTP/1.0\r\nAdda-Client: ::1\r\n{secure}{rest}"));
        }
        let head = parsed("GET http://other/a HTTP/1.1\r\nHost: h\r\n\r\n");
        let request = String::from_utf8(request(&head, client(false), b"")).unwrap();
        assert_eq!(request, "GET /a HTTP/1.0\r\nAdda-Client: ::1\r\nHost: other\r\n\r\n");
    }

    #[test]
    fn a_client_may_expect_100_continue_before_it_sends_the_body() {
        let rig = Rig::new();
        let mut client = rig.connect();
        let head = "POST /healthz HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\nContent-Length: 4\r\n\r\n";
        client.write_all(head.as_bytes()).unwrap();
        let asked = b"HTTP/1.1 100 Continue\r\n\r\n";
        let mut read = [0; 25];
        client.read_exact(&mut read).unwrap();
        assert_eq!(&read, asked);
        client.write_all(b"body").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
        // No 100 is sent for a body that is refused, and none in HTTP/1.0.
        for (head, status) in [
            ("1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 65537", 413),
            ("1.1\r\nHost: h\r\nExpect: tea\r\nContent-Length: 4", 417),
            ("1.1\r\nHost: h\r\nExpect: tea", 417),
            ("1.0\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 0", 405),
        ] {
            let answer = rig.ask(format!("POST /healthz HTTP/{head}\r\n\r\n"));
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        }
    }

    #[test]
    fn a_client_that_is_still_sending_can_read_the_error() {
        let rig = Rig::new();
        let mut client = rig.connect();
        client.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 300000\r\n\r\n").unwrap();
        client.write_all(&vec![b'x'; 300_000]).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 413 ") && answer.ends_with("\"reason\":\"body_too_large\"}"), "{answer}");
        assert_eq!(rig.metrics.http_requests.get(), 0);
    }

    #[test]
    fn a_body_has_one_deadline() {
        let limits = Limits { body_deadline: Duration::from_millis(100), ..Limits::default() };
        let mut rig = Rig::new();
        rig.limits = limits;
        let answer = rig.ask("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nbody");
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(rig.metrics.render().contains("reason=\"slow\"} 1"));
    }

    #[test]
    fn a_request_without_a_permit_is_busy_with_retry_after() {
        let mut rig = Rig::new();
        let relay = Arc::get_mut(&mut rig.relay).unwrap();
        let bounds = Bounds { total: 1, of_owner: 1, spared: Duration::ZERO, cut: Shutdown::Both };
        relay.requests = Pool::new(bounds);
        relay.permit_wait = Duration::from_millis(20);
        let owner = "::1".parse().unwrap();
        let permit = rig.relay.requests.take(Claim { owner, amount: 1, socket: None }).unwrap();
        let answer = rig.ask("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nRetry-After: 1\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
        drop(permit);
        for _ in 0..3 {
            assert!(rig.ask("GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n").ends_with("ok\n"));
        }
    }
}
