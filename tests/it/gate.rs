//! Tests of admission: addresses, trusted proxies, rate limits that users share, and pages of other origins, which may
//! not write.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use adda::config::{Config, Data};
use adda::limits::Limits;
use serde_json::json;

use crate::support::{
    DEADLINE, Event, Response, Server, Ws, connect_from, eventually, http, read_response, upgrade_request,
};

/// Trusts the address of the tests as a proxy.
const TRUSTING: [&str; 2] = ["--trusted-proxy", "127.0.0.0/8"];
const MESSAGES: &str = "/api/rooms/tea/messages";
/// How many WebSockets an address may open at once.
const HANDSHAKES_BURST: usize = 300;
/// The rate limit of an address, as a multiple of a user's.
const USERS_PER_ADDRESS: usize = 20;

/// A POST of a message as text.
#[track_caller]
fn post(server: &Server, headers: &[(&str, &str)]) -> Response {
    let mut request = format!("POST {MESSAGES} HTTP/1.1\r\nContent-Length: 2\r\n");
    let defaults = [("Host", "localhost"), ("Content-Type", "text/plain")];
    let is_given = |name: &str| headers.iter().any(|(given, _)| *given == name);
    for (name, value) in defaults.iter().filter(|(name, _)| !is_given(name)).chain(headers) {
        request += &format!("{name}: {value}\r\n");
    }
    http(server.addr(), request + "\r\nhi")
}

#[track_caller]
fn assert_has_retry_after(refusal: &Response, status: u16, code: &str) {
    assert_eq!(refusal.status, status, "{}", refusal.text());
    assert_eq!(refusal.json()["code"], code);
    let seconds = refusal.header("Retry-After").and_then(|value| value.parse::<u64>().ok());
    assert!(seconds.is_some_and(|seconds| (1..=60).contains(&seconds)), "{:?}", refusal.headers);
}

/// The client that the log names for a path.
#[track_caller]
fn logged_client(server: &Server, path: &str) -> String {
    let mut found = None;
    eventually("it is in the log", DEADLINE, || {
        let log = server.log();
        let line = log.lines().find_map(|line| line.strip_suffix(&format!(" requests {path}")).map(str::to_owned));
        found = line.and_then(|line| line.rsplit(' ').next().map(str::to_owned));
        found.is_some()
    });
    found.expect("who")
}

#[test]
fn only_a_trusted_proxy_can_name_the_client() {
    let trusting = Server::with(&["--log", "debug", "--trusted-proxy", "127.0.0.1,10.0.0.0/8"]);
    let other = Server::with(&["--log", "debug", "--trusted-proxy", "10.0.0.0/8"]);
    for (number, (name, value, who)) in [
        ("X-Forwarded-For", "192.0.2.1", "192.0.2.1"),
        ("X-Forwarded-For", "8.8.8.8, 192.0.2.1, 10.1.1.1", "192.0.2.1"),
        ("X-Forwarded-For", "\"><script>, 2001:db8::7", "2001:db8::7"),
        ("X-Forwarded-For", "::ffff:192.0.2.1", "192.0.2.1"),
        ("Forwarded", "for=8.8.8.8, for=\"[2001:db8::7]:443\";proto=https", "2001:db8::7"),
        ("X-Forwarded-For", "nobody", "127.0.0.1"),
        ("Forwarded", "for=unknown", "127.0.0.1"),
        ("X-Real-IP", "192.0.2.1", "127.0.0.1"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/ws/tea/Ana{number}");
        Ws::connect_with(&trusting, &path, &[(name, value)]);
        assert_eq!(logged_client(&trusting, &path), who, "{name}: {value}");
        Ws::connect_with(&other, &path, &[(name, value)]);
        assert_eq!(logged_client(&other, &path), "127.0.0.1", "not trusted, {name}: {value}");
    }
    let warnings = |server: &Server| server.log().matches("start with --trusted-proxy 127.0.0.1").count();
    assert_eq!((warnings(&trusting), warnings(&other)), (0, 1), "the operator is told, once");
}

#[test]
fn behind_a_proxy_each_client_has_its_own_connection_limit() {
    let server = Server::with(&[&TRUSTING[..], &["--max-per-ip", "3"]].concat());
    let from = |address: &'static str| [("X-Forwarded-For", address)];
    // A proxy may open any number of connections before it names a client.
    let silent: Vec<TcpStream> = (0..10).map(|_| TcpStream::connect(server.addr()).expect("a connection")).collect();
    let mut members: Vec<Ws> = (0..3).map(|_| Ws::connect_with(&server, "/ws/tea/Ana", &from("192.0.2.1"))).collect();
    let refusal = Ws::refused(&server, "/ws/tea/Ana", &from("192.0.2.1"));
    assert_has_retry_after(&refusal, 503, "busy");
    let request = "HEAD / HTTP/1.1\r\nHost: h\r\nForwarded: for=192.0.2.1\r\n\r\n";
    let refusal = http(server.addr(), request);
    assert_eq!((refusal.status, refusal.body.len()), (503, 0));
    // An IPv6 subscriber counts as one client, whichever addresses it uses.
    let _six: Vec<Ws> = ["2001:db8::1", "2001:db8::2", "2001:db8::ffff:3"]
        .map(|address| Ws::connect_with(&server, "/ws/tea/Six", &[("X-Forwarded-For", address)]))
        .into();
    assert_eq!(Ws::refused(&server, "/ws/tea/Six", &from("2001:db8::4")).status, 503);
    for address in ["192.0.2.2", "2001:db8:0:1::1"] {
        Ws::connect_with(&server, "/ws/tea/Ben", &[("X-Forwarded-For", address)]).expect("welcome");
    }
    assert_eq!(server.metric("refusals_total{reason=\"per_address\"}"), 3);
    members.pop();
    eventually("the share is free again", DEADLINE, || {
        matches!(Ws::open(server.addr(), "/ws/tea/Ana", &from("192.0.2.1")), Ok(Ok(_)))
    });
    drop(silent);
}

/// Opens WebSockets until one is refused; returns how many were accepted.
#[track_caller]
fn shake_hands(server: &Server, most: usize, headers: &[(&str, &str)]) -> (usize, Option<Response>) {
    for count in 0..most {
        match Ws::open(server.addr(), "/ws/tea/Ana", headers) {
            Ok(Ok(_)) => {}
            Ok(Err(refusal)) => return (count, Some(refusal)),
            Err(error) => panic!("neither taken nor refused at {count}: {error}"),
        }
    }
    (most, None)
}

#[test]
fn an_address_has_a_rate_limit_on_handshakes() {
    let server = Server::with(&TRUSTING);
    let from = |address: &'static str| [("X-Forwarded-For", address)];
    let (count, refusal) = shake_hands(&server, 3 * HANDSHAKES_BURST, &from("2001:db8::1"));
    assert_has_retry_after(&refusal.expect("a refusal"), 429, "rate_limited");
    assert!(count >= HANDSHAKES_BURST, "a school of {count} is too small");
    assert_eq!(server.metric("refusals_total{reason=\"handshakes\"}"), 1);
    // Other requests do not count as handshakes, and other networks are not affected.
    let get = "GET /healthz HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 2001:db8::1\r\n\r\n";
    assert_eq!(http(server.addr(), get).status, 200);
    Ws::connect_with(&server, "/ws/tea/Ben", &from("2001:db8:0:1::1")).expect("welcome");
    // The subscriber has used up its burst: one more is accepted every twentieth of a second.
    let (count, _) = shake_hands(&server, HANDSHAKES_BURST, &from("2001:db8::2"));
    assert!(count < HANDSHAKES_BURST, "{count} more");
    eventually("it may again after a while", DEADLINE, || {
        matches!(Ws::open(server.addr(), "/ws/tea/Ana", &from("2001:db8::1")), Ok(Ok(_)))
    });
}

/// A server in this process, with small limits on new connections.
fn hasty(limits: Limits) -> SocketAddr {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let proxies = vec!["127.0.0.8/32".parse().expect("a range")];
    let config = Config { listen, data: Data::Memory, proxies, limits, ..Config::default() };
    let running = adda::start(config).expect("a server");
    let address = running.address();
    // It runs until the process ends.
    std::mem::forget(running);
    address
}

/// Opens a connection and sends a request, without waiting for the response.
fn begin(source: [u8; 4], address: SocketAddr) -> TcpStream {
    let mut stream = connect_from(Ipv4Addr::from(source), address, None).expect("a connection");
    stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").expect("a request");
    stream
}

#[test]
fn connections_over_the_rate_limit_of_an_address_wait_for_their_turn() {
    const BURST: usize = 4;
    const WAITING: usize = 20;
    let limits = Limits {
        connections_per_s: 2,
        connections_burst: BURST as u32,
        connection_wait_max: Duration::from_secs(WAITING as u64 / 2),
        ..Limits::default()
    };
    let address = hasty(limits);
    let begun = Instant::now();
    let mut opened: Vec<TcpStream> = (0..40).map(|_| begin([127, 0, 0, 9], address)).collect();
    let status = |stream: &mut TcpStream| read_response(stream, DEADLINE).expect("a response").status;
    // Other addresses and proxies are served at once, while the last ones wait.
    for source in [[127, 0, 0, 7], [127, 0, 0, 8]] {
        for _ in 0..BURST {
            assert_eq!(status(&mut begin(source, address)), 200);
        }
    }
    assert_eq!(
        (0..40).filter(|_| status(&mut begin([127, 0, 0, 8], address)) == 200).count(),
        40,
        "a proxy has no rate"
    );
    let mut refused = 0;
    let mut turns = Vec::new();
    for stream in &mut opened {
        let response = read_response(stream, DEADLINE).expect("a response");
        match response.status {
            200 => turns.push(begun.elapsed()),
            _ => {
                assert_has_retry_after(&response, 429, "rate_limited");
                assert_eq!(response.json()["reason"], "too_many_connections");
                refused += 1;
            }
        }
    }
    let served = turns.len();
    assert!(served >= BURST + WAITING && refused > 0 && served + refused == 40, "{served} served, {refused} refused");
    for (number, at) in turns.iter().enumerate().skip(BURST) {
        let turn = Duration::from_millis(500) * (number + 1 - BURST) as u32;
        assert!(*at + Duration::from_millis(20) >= turn, "connection {number} is served after {at:?}");
    }
    let off = hasty(Limits { connections_per_s: 0, ..limits });
    assert_eq!((0..40).filter(|_| status(&mut begin([127, 0, 0, 9], off)) == 200).count(), 40);
}

#[test]
fn loopback_is_limited_like_other_addresses_unless_rates_are_off() {
    let (_, refusal) = shake_hands(&Server::start(), 3 * HANDSHAKES_BURST, &[]);
    assert_has_retry_after(&refusal.expect("a refusal"), 429, "rate_limited");
    for flags in [["--rate", "0"], ["--burst", "0"]] {
        assert_eq!(shake_hands(&Server::with(&flags), 3 * HANDSHAKES_BURST, &[]).0, 3 * HANDSHAKES_BURST);
    }
}

/// Sends a message; returns whether it was accepted.
#[track_caller]
fn is_taken(ws: &mut Ws, nonce: &str) -> bool {
    ws.command(&json!({"content": "hi", "nonce": nonce}));
    let answer = ws.until(|frame| frame["nonce"] == nonce);
    match answer["type"].as_str() {
        Some("text") => true,
        _ => {
            assert_eq!(answer["code"], "rate_limited", "{answer}");
            assert!(answer["retry_ms"].as_u64().is_some_and(|ms| ms > 0), "{answer}");
            false
        }
    }
}

#[test]
fn a_user_has_one_rate_limit_over_all_connections_and_requests() {
    // A burst of a minute's messages, so that few tokens are refilled while this runs.
    let server = Server::with(&["--rate", "1/s", "--burst", "60"]);
    let first = Ws::join(&server, "/ws/tea/Ana");
    let token = first.welcome["token"].as_str().expect("a token").to_owned();
    let mut tabs: Vec<Ws> = (0..9).map(|_| Ws::join(&server, &format!("/ws/tea/Ana?token={token}"))).collect();
    tabs.push(first);
    let bearer = format!("Bearer {token}");
    let mut taken = 0;
    for number in 0..10 {
        for (at, tab) in tabs.iter_mut().enumerate() {
            taken += usize::from(is_taken(tab, &format!("{number} {at}")));
        }
        let posted = post(&server, &[("Authorization", &bearer)]);
        taken += usize::from(posted.status == 201);
        if posted.status != 201 {
            assert_has_retry_after(&posted, 429, "rate_limited");
        }
    }
    assert!((60..=90).contains(&taken), "{taken} of 110 were taken");
    // A reconnect gives no new burst, and another user is not affected.
    drop(tabs);
    let mut again = Ws::join(&server, &format!("/ws/jam/Ana?token={token}"));
    let taken = (0..40).filter(|number| is_taken(&mut again, &format!("again {number}"))).count();
    assert!(taken < 35, "{taken} more were taken");
    assert!(is_taken(&mut Ws::join(&server, "/ws/jam/Ben"), "n"));
}

#[test]
fn new_guests_of_an_address_share_its_rate_limit() {
    let server = Server::with(&[&TRUSTING[..], &["--rate", "1/s", "--burst", "5"]].concat());
    let burst = 5 * USERS_PER_ADDRESS;
    let guest = |address: &str| Ws::connect_with(&server, "/ws/tea/Guest", &[("X-Forwarded-For", address)]);
    let mut taken = 0;
    for number in 0.. {
        assert!(number < HANDSHAKES_BURST, "no end after {taken}");
        let mut ws = guest("192.0.2.1");
        ws.expect("welcome");
        let sent = (0..5).filter(|at| is_taken(&mut ws, &format!("{number} {at}"))).count();
        taken += sent;
        if sent < 5 {
            break;
        }
    }
    assert!(taken >= burst, "{taken} are too few for an address");
    // Posts without a token count under the same limit.
    assert_has_retry_after(&post(&server, &[("X-Forwarded-For", "192.0.2.1")]), 429, "rate_limited");
    assert_eq!(post(&server, &[("X-Forwarded-For", "192.0.2.2")]).status, 201);
    let mut other = guest("192.0.2.3");
    assert!(is_taken(&mut other, "another address"));
}

#[test]
fn posts_without_a_token_are_limited_by_address() {
    let server = Server::with(&[&TRUSTING[..], &["--rate", "1/s", "--burst", "5"]].concat());
    let statuses: Vec<u16> =
        (1..=8).map(|last| post(&server, &[("X-Forwarded-For", &format!("2001:db8::{last}"))]).status).collect();
    assert_eq!(statuses[..5], [201; 5]);
    assert!(statuses[5..].contains(&429), "{statuses:?}");
    assert_eq!(post(&server, &[("X-Forwarded-For", "2001:db8:0:1::1")]).status, 201);
}

#[test]
fn abuse_is_counted_by_user_and_not_by_connection() {
    let server = Server::start();
    let mut ben = Ws::join(&server, "/ws/tea/Ben");
    let first = Ws::join(&server, "/ws/tea/Ana");
    let token = first.welcome["token"].as_str().expect("a token").to_owned();
    let mut tabs: Vec<Ws> = (0..4).map(|_| Ws::join(&server, &format!("/ws/jam/Ana?token={token}"))).collect();
    let mut sent = 0;
    let closed = 'closed: loop {
        for tab in &mut tabs {
            assert!(sent < 1_000, "no end after {sent} refusals, {} by each", sent / 4);
            tab.send("{\"type\":\"dance\"}");
            sent += 1;
            loop {
                match tab.event() {
                    Event::Close(code) => break 'closed code,
                    Event::Frame(frame) if frame["type"] == "error" => break,
                    Event::Frame(_) => {}
                    Event::End => panic!("an end without a reason"),
                }
            }
        }
    };
    assert_eq!(closed, Some(1008));
    assert!(sent < 400, "{sent} refusals are the measure of several");
    // Other users are not affected.
    ben.say("still here");
    ben.until(|frame| frame["content"] == "still here");
}

#[test]
fn a_foreign_page_cannot_write_and_its_preflight_is_refused() {
    let server = Server::with(&["--origin", "https://friend.example"]);
    let _tea = Ws::join(&server, "/ws/tea/Ana");
    let host = server.addr().to_string();
    for origin in ["https://evil.example", "null", "", "http://127.0.0.1:1", "file://"] {
        for kind in ["application/json", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
            let refusal = post(&server, &[("Host", &host), ("Origin", origin), ("Content-Type", kind)]);
            assert_eq!((refusal.status, &refusal.json()["code"]), (403, &json!("forbidden")), "{origin:?} {kind}");
            assert_eq!(refusal.header("Access-Control-Allow-Origin"), None);
        }
    }
    let preflight = |origin: &str, method: &str| {
        let request = format!(
            "OPTIONS {MESSAGES} HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\n\
             Access-Control-Request-Method: {method}\r\nAccess-Control-Request-Headers: content-type\r\n\r\n"
        );
        let answer = http(server.addr(), request);
        assert_eq!(answer.status, 204);
        let field = |name| answer.header(name).map(str::to_owned);
        (field("Access-Control-Allow-Origin"), field("Access-Control-Allow-Headers"))
    };
    assert_eq!(preflight("https://evil.example", "POST"), (None, None));
    assert_eq!(preflight("https://evil.example", "DELETE"), (None, None));
    let (readers, fields) = preflight("https://evil.example", "GET");
    assert_eq!(readers.as_deref(), Some("*"));
    assert!(!fields.expect("fields").to_ascii_lowercase().contains("content-type"));
    let (writers, fields) = preflight("https://friend.example", "POST");
    assert_eq!(writers.as_deref(), Some("https://friend.example"));
    assert!(fields.expect("fields").to_ascii_lowercase().contains("content-type"));
    // A form of a foreign page is refused, also in the media type that `curl -d` uses, and a GET writes nothing.
    for kind in ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain"] {
        let form = [("Content-Type", kind), ("Origin", "https://evil.example")];
        assert_eq!(post(&server, &form).status, 403, "{kind}");
    }
    for kind in ["multipart/form-data; boundary=x", "text/html"] {
        assert_eq!(post(&server, &[("Content-Type", kind)]).status, 415, "{kind}");
    }
    for line in [format!("GET {MESSAGES}?content=hi&username=Eve"), format!("GET {MESSAGES}?_method=POST&content=hi")] {
        let body = "{\"content\":\"hi\"}";
        let head = format!("{line} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 16\r\n");
        assert_eq!(http(server.addr(), format!("{head}X-HTTP-Method-Override: POST\r\n\r\n{body}")).status, 200);
    }
    assert_eq!(server.get(MESSAGES).json()["data"], json!([]), "nothing was written");
    let own = format!("http://{host}");
    for (fields, readers) in [
        (&[("Host", host.as_str())][..], None),
        (&[("Host", &host), ("Origin", &own)], None),
        (&[("Host", &host), ("Origin", "https://friend.example")], Some("https://friend.example")),
    ] {
        let posted = post(&server, fields);
        assert_eq!(posted.status, 201, "{fields:?}: {}", posted.text());
        assert_eq!(posted.header("Access-Control-Allow-Origin"), readers);
    }
}

#[test]
fn a_page_behind_a_tls_proxy_has_our_origin() {
    let server = Server::with(&TRUSTING);
    let _tea = Ws::join(&server, "/ws/tea/Ana");
    let https: &[(&str, &str)] = &[("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-Proto", "https")];
    let forwarded: &[(&str, &str)] = &[("Forwarded", "for=192.0.2.1;proto=https")];
    for (host, origin, proxy, is_ours) in [
        ("chat.example", "https://chat.example", https, true),
        ("chat.example:443", "https://chat.example", forwarded, true),
        ("chat.example", "http://chat.example", https, false),
        ("chat.example", "http://chat.example", forwarded, false),
        ("chat.example", "https://evil.example", https, false),
        ("chat.example", "http://chat.example", &[], true),
        ("chat.example", "https://chat.example", &[], true),
    ] {
        let headers = [&[("Host", host), ("Origin", origin)], proxy].concat();
        let opened = Ws::open(server.addr(), "/ws/tea/Ben", &headers).expect("an answer");
        assert_eq!(opened.map_err(|refusal| refusal.status).err(), (!is_ours).then_some(403), "{headers:?}");
        assert_eq!(post(&server, &headers).status, if is_ours { 201 } else { 403 }, "{headers:?}");
    }
}

/// The value of a header that must occur once.
#[track_caller]
fn only<'a>(response: &'a Response, name: &str) -> &'a str {
    response.header(name).unwrap_or_else(|| panic!("{} without {name}: {:?}", response.status, response.headers))
}

#[test]
fn every_response_has_the_security_headers() {
    let server = Server::with(&["--rate", "1/s", "--burst", "1"]);
    let get = |rest: &str| format!("GET {rest} HTTP/1.1\r\nHost: h\r\n\r\n");
    let post = |fields: &str| format!("POST {MESSAGES} HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n{fields}\r\nhi");
    let tag = |target: &str| only(&server.get(target), "ETag").to_owned();
    let text = "Content-Type: text/plain\r\n";
    let cases = [
        (200, get("/healthz")),
        (200, get("/metrics")),
        (200, get("/api/rooms")),
        (404, get("/api/rooms/none")),
        (404, get("/none")),
        (400, get("/api/rooms?limit=x")),
        (405, "DELETE /api/rooms HTTP/1.1\r\nHost: h\r\n\r\n".into()),
        (204, "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n".into()),
        (204, "OPTIONS /ws HTTP/1.1\r\nHost: h\r\n\r\n".into()),
        (200, "HEAD /api/rooms HTTP/1.1\r\nHost: h\r\n\r\n".into()),
        (403, post("Origin: http://evil.example\r\n")),
        (201, post(text)),
        (429, post(text)),
        (413, format!("POST {MESSAGES} HTTP/1.1\r\nHost: h\r\nContent-Length: 99999\r\n\r\n")),
        (417, post("Expect: tea\r\n")),
        (400, "GET / HTTP/1.1\r\n\r\n".into()),
        (431, format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(20_000))),
        (426, get("/ws/tea/Ana")),
        (403, upgrade_request("/ws/tea/Ana", &[("Origin", "http://evil.example")])),
        (400, upgrade_request("/ws/%ff", &[])),
    ];
    let guarded = |answer: &Response, what: &str| {
        for (name, value) in [
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
            ("Referrer-Policy", "same-origin"),
            ("Cross-Origin-Opener-Policy", "same-origin"),
        ] {
            assert_eq!(only(answer, name), value, "{what}");
        }
        assert!(only(answer, "Content-Security-Policy").contains("frame-ancestors 'none'"), "{what}");
        let shared = answer.header("Access-Control-Allow-Origin").is_some();
        let readers = if shared { "cross-origin" } else { "same-origin" };
        assert_eq!(only(answer, "Cross-Origin-Resource-Policy"), readers, "{what}");
    };
    for (status, request) in &cases {
        let answer = http(server.addr(), request);
        let what = &request[..request.len().min(80)];
        assert_eq!(answer.status, *status, "{what}: {}", answer.text());
        guarded(&answer, what);
        assert_eq!(only(&answer, "Cache-Control"), "no-store", "{what}");
        assert!(only(&answer, "Content-Security-Policy").starts_with("default-src 'none';"), "{what}");
    }
    // The page is cached and revalidated, and may use the resources of this server.
    for target in ["/", "/css/base.css", "/js/main.js", "/lang/bn.json"] {
        let known = format!("GET {target} HTTP/1.1\r\nHost: h:8\r\nIf-None-Match: {}\r\n\r\n", tag(target));
        let fresh = http(server.addr(), format!("GET {target} HTTP/1.1\r\nHost: h:8\r\n\r\n"));
        let known = http(server.addr(), known);
        assert_eq!((fresh.status, known.status), (200, 304), "{target}");
        for answer in [&fresh, &known] {
            guarded(answer, target);
            assert_eq!(only(answer, "Cache-Control"), "no-cache");
            let policy = only(answer, "Content-Security-Policy");
            assert!(policy.starts_with("default-src 'self'; connect-src 'self' ws://h:8 wss://h:8;"), "{policy}");
            assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        }
    }
    for flag in ["--max-connections", "--max-per-ip"] {
        let server = Server::with(&[flag, "1"]);
        let _member = Ws::join(&server, "/ws/tea/Ana");
        let full = server.get("/");
        assert_eq!(full.status, 503);
        guarded(&full, flag);
    }
}
