//! Tests of origins: which pages may open a WebSocket.

use crate::support::{Server, Ws, http, upgrade_request};

#[test]
fn a_page_of_this_host_and_a_client_without_origin_may_connect() {
    let server = Server::start();
    let host = server.addr().to_string();
    let own = format!("http://{host}");
    for headers in [
        &[("Host", host.as_str())][..],
        &[("Host", host.as_str()), ("Origin", own.as_str())],
        &[("Host", "chat.example"), ("Origin", "https://chat.example")],
        &[("Host", "chat.example:443"), ("Origin", "https://chat.example")],
        &[("Host", "CHAT.example"), ("Origin", "http://chat.EXAMPLE")],
        &[("Host", "[::1]:3000"), ("Origin", "http://[::1]:3000")],
    ] {
        let mut ws = Ws::connect_with(&server, "/ws/tea/Ana", headers);
        ws.expect("welcome");
    }
}

#[test]
fn a_foreign_page_may_not_connect() {
    let server = Server::start();
    let host = server.addr().to_string();
    for origin in [
        "http://evil.example",
        "https://evil.example",
        "http://127.0.0.1",
        "http://127.0.0.1:1",
        "null",
        "",
        "file://",
        "http://localhost.evil.example",
        "nonsense",
    ] {
        let refusal = Ws::refused(&server, "/ws/tea/Ana", &[("Host", &host), ("Origin", origin)]);
        assert_eq!(refusal.status, 403, "{origin:?}");
        assert_eq!(refusal.json()["code"], "forbidden", "{origin:?}");
    }
    let two = format!("http://{host}");
    let refusal = Ws::refused(&server, "/ws", &[("Host", &host), ("Origin", &two), ("Origin", "http://evil.example")]);
    assert!(matches!(refusal.status, 400 | 403), "two origins: {}", refusal.status);
    server.wait_for_metric("members", 0);
}

#[test]
fn the_operator_may_allow_further_origins() {
    let server = Server::with(&["--origin", "https://chat.example", "--origin", "http://192.168.1.5:8080"]);
    for (origin, status) in [
        ("https://chat.example", 101),
        ("http://192.168.1.5:8080", 101),
        ("http://chat.example", 403),
        ("https://www.chat.example", 403),
        ("http://192.168.1.5", 403),
    ] {
        let found = match Ws::open(server.addr(), "/ws/tea/Ana", &[("Origin", origin)]) {
            Ok(Ok(_)) => 101,
            Ok(Err(refusal)) => refusal.status,
            Err(error) => panic!("{origin}: {error}"),
        };
        assert_eq!(found, status, "{origin}");
    }
}

#[test]
fn a_refused_origin_is_explained_to_the_client_and_once_in_the_log() {
    let server = Server::start();
    // As with `proxy_set_header Host $host;` in nginx, which drops the port.
    let fields = "Host: chat.example\r\nOrigin: http://chat.example:8080\r\n";
    for _ in 0..50 {
        let post = format!(
            "POST /api/rooms/tea/messages HTTP/1.1\r\n{fields}Content-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi"
        );
        let refusal = http(server.addr(), post);
        assert_eq!((refusal.status, &refusal.json()["reason"]), (403, &"foreign_origin".into()));
        let sentence = refusal.text().to_owned();
        assert!(
            ["http://chat.example:8080", "chat.example", "--origin"].iter().all(|part| sentence.contains(part)),
            "{sentence}"
        );
    }
    let headers = [("Host", "chat.example"), ("Origin", "http://chat.example:8080")];
    let refusal = Ws::refused(&server, "/ws/tea/Ana", &headers);
    assert!(refusal.text().contains("chat.example:8080") && refusal.text().contains("--origin"), "{}", refusal.text());
    for number in 0..100 {
        Ws::refused(&server, "/ws/tea/Ana", &[("Host", "chat.example"), ("Origin", &format!("http://evil{number}"))]);
    }
    let log = server.wait_for_log("the refusal", |log| log.contains("chat.example:8080"));
    assert_eq!(
        log.matches("Origin is \\\"http://chat.example:8080\\\"").count()
            + log.matches("Origin is \"http://chat.example:8080\"").count(),
        1,
        "{log}"
    );
    assert!(log.contains("--origin http://chat.example:8080"), "{log}");
    assert!(log.contains("Host is \\\"chat.example\\\"") || log.contains("Host is \"chat.example\""), "{log}");
    assert!(log.matches("refused a page of another origin").count() <= 20, "{log}");
}

#[test]
fn any_page_may_read_the_room_listing() {
    let server = Server::start();
    let request = "GET /api/rooms HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n";
    let response = http(server.addr(), request);
    assert_eq!(response.status, 200);
    assert_eq!(response.header("Access-Control-Allow-Origin"), Some("*"));
}

#[test]
fn an_invalid_upgrade_is_refused() {
    let server = Server::start();
    for (what, from, to, status) in [
        ("another version", "Version: 13", "Version: 8", 426),
        ("no key", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400),
        ("a short key", "dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=", 400),
        ("no upgrade", "Upgrade: websocket\r\n", "", 426),
        ("another protocol", "Upgrade: websocket", "Upgrade: h2c", 426),
        ("no connection", "Connection: Upgrade", "Connection: keep-alive", 426),
        ("a POST", "GET", "POST", 405),
    ] {
        let request = upgrade_request("/ws/tea/Ana", &[]).replace(from, to);
        let response = http(server.addr(), request);
        assert!(
            response.status == status || (status == 426 && response.status == 400),
            "{what}: {} {}",
            response.status,
            response.text()
        );
    }
    server.wait_for_metric("members", 0);
}
