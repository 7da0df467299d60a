//! Tests of the HTTP API with `curl`.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Response, Server, Ws, exchange, run};

/// Runs `curl`, and parses its output.
#[track_caller]
fn curl(server: &Server, target: &str, options: &[&str]) -> Response {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (head, body) = (dir.path().join("head"), dir.path().join("body"));
    let mut command = Command::new("curl");
    command
        .args(["--disable", "--silent", "--show-error", "--noproxy", "*", "--path-as-is", "--max-time", "20"])
        .arg("--dump-header")
        .arg(&head)
        .arg("--output")
        .arg(&body)
        .args(options)
        .arg(format!("http://{}{target}", server.addr()));
    run(&mut command);
    let read = |path| std::fs::read(path).unwrap_or_default();
    let mut response = Response::parse(&read(&head)).expect("a head");
    response.body = read(&body);
    if !options.contains(&"--head") && response.status != 304 {
        let length = response.header("Content-Length").and_then(|length| length.parse().ok());
        assert!(length.is_none_or(|length: usize| length == response.body.len()), "{response:?}");
    }
    response
}

/// The JSON of a response. It must have the right media type, be readable from any page, and not be executable.
#[track_caller]
fn api(response: &Response) -> Value {
    let kind = response.header("Content-Type").unwrap_or_default();
    assert!(kind.starts_with("application/json"), "{kind}");
    assert_eq!(response.header("Access-Control-Allow-Origin"), Some("*"));
    assert_eq!(response.header("X-Content-Type-Options"), Some("nosniff"));
    response.json()
}

#[test]
fn rooms_are_listed() {
    let server = Server::start();
    let empty = curl(&server, "/api/rooms", &[]);
    assert_eq!((empty.status, api(&empty)), (200, json!({"data": []})));

    let mut ana = Ws::join(&server, "/ws/general/Ana");
    let ben = Ws::join(&server, "/ws/general/Ben");
    let _tea = Ws::join(&server, "/ws/%E0%A6%9A%E0%A6%BE/Ana");
    ana.say("hello");
    ana.until(|frame| frame["type"] == "text");
    let rooms = curl(&server, "/api/rooms", &[]);
    assert_eq!(rooms.status, 200);
    assert_eq!(
        api(&rooms),
        json!({"data": [
            {"id": "general", "name": "general", "client_count": 2, "seq": 1},
            {"id": "চা", "name": "চা", "client_count": 1, "seq": 0},
        ]})
    );

    let general = curl(&server, "/api/rooms/general", &[]);
    assert_eq!(general.status, 200);
    let mut room = api(&general);
    let clients = room["data"]["clients"].take();
    assert_eq!(
        room,
        json!({"data": {"id": "general", "name": "general", "client_count": 2, "seq": 1, "clients": null}})
    );
    let clients = clients.as_array().expect("a list of clients");
    assert_eq!(clients.len(), 2);
    for client in [
        json!({"id": ana.user_id(), "username": "Ana", "role": "guest", "bot": false}),
        json!({"id": ben.user_id(), "username": "Ben", "role": "guest", "bot": false}),
    ] {
        assert!(clients.contains(&client), "no {client} in {clients:?}");
    }
    let bengali = curl(&server, "/api/rooms/%E0%A6%9A%E0%A6%BE", &[]);
    assert_eq!(api(&bengali)["data"]["id"], "চা");
}

#[test]
fn an_unknown_room_is_404_and_not_created() {
    let server = Server::start();
    for target in ["/api/rooms/none", "/api/rooms/%E0%A6%9A%E0%A6%BE", "/api/rooms/%00", "/api/rooms/a%E2%80%AEb"] {
        let none = curl(&server, target, &[]);
        let wanted = json!({"error": "Room not found", "code": "not_found", "reason": "no_such_room"});
        assert_eq!((none.status, api(&none)), (404, wanted), "{target}");
    }
    let unreadable = curl(&server, "/api/rooms/%FF", &[]);
    assert!(matches!(unreadable.status, 400 | 404), "{}", unreadable.status);
    assert_eq!(api(&curl(&server, "/api/rooms", &[])), json!({"data": []}));
}

#[test]
fn a_long_listing_is_paged() {
    let server = Server::unhurried();
    let mut ana = Ws::join(&server, "/ws/room00/Ana");
    for number in 1..25 {
        ana.command(&json!({"type": "join", "room_id": format!("room{number:02}")}));
        ana.expect("welcome");
    }
    let mut seen = Vec::new();
    let mut target = "/api/rooms?limit=10".to_string();
    loop {
        let page = api(&curl(&server, &target, &[]));
        let rooms = page["data"].as_array().expect("a list of rooms");
        assert!(rooms.len() <= 10, "{page}");
        seen.extend(rooms.iter().filter_map(|room| room["id"].as_str().map(str::to_string)));
        let Some(next) = page["next"].as_str() else {
            assert_eq!(page.get("next"), None, "`next` stands only where there is more");
            break;
        };
        target = format!("/api/rooms?limit=10&after={next}");
    }
    let all: Vec<String> = (0..25).map(|number| format!("room{number:02}")).collect();
    assert_eq!(seen, all);
    for limit in ["limit=0", "limit=-1", "limit=many", "limit=99999999999999999999"] {
        let page = curl(&server, &format!("/api/rooms?{limit}"), &[]);
        assert!(matches!(page.status, 200 | 400), "{limit}: {}", page.status);
        api(&page);
    }
}

#[test]
fn a_websocket_address_without_an_upgrade_is_426() {
    let server = Server::start();
    for target in ["/ws", "/ws?room=tea", "/ws/Ana", "/ws/tea/Ana", "/ws/chat/tea/"] {
        let response = curl(&server, target, &[]);
        assert_eq!(response.status, 426, "{target}");
        assert_eq!(response.header("Upgrade"), Some("websocket"), "{target}");
        let body = response.json();
        assert!(body["error"].is_string() && body["code"].is_string(), "{target}: {body}");
    }
}

#[test]
fn head_is_get_without_a_body() {
    let server = Server::start();
    for target in ["/", "/api/rooms", "/healthz", "/metrics", "/api/rooms/none"] {
        let get = curl(&server, target, &[]);
        let head = curl(&server, target, &["--head"]);
        assert_eq!(head.status, get.status, "{target}");
        assert!(head.body.is_empty() || head.body.starts_with(b"HTTP/1.1"), "{target}");
        for name in ["Content-Type", "ETag"] {
            assert_eq!(head.header(name), get.header(name), "{target} {name}");
        }
        if target != "/metrics" {
            assert_eq!(head.header("Content-Length"), get.header("Content-Length"), "{target}");
        }
    }
}

#[test]
fn options_lists_the_allowed_methods() {
    let server = Server::start();
    for target in ["/api/rooms", "/api/rooms/general"] {
        let options = ["--request", "OPTIONS"];
        let response = curl(&server, target, &options);
        assert!(matches!(response.status, 200 | 204), "{target}: {}", response.status);
        let allow = response.header("Allow").unwrap_or_default().to_string();
        for method in ["GET", "HEAD", "OPTIONS"] {
            assert!(allow.split(", ").any(|one| one == method), "{target}: no {method} in {allow:?}");
        }
        let preflight = [
            "--request",
            "OPTIONS",
            "--header",
            "Origin: http://other.example",
            "--header",
            "Access-Control-Request-Method: GET",
        ];
        let response = curl(&server, target, &preflight);
        assert_eq!(response.header("Access-Control-Allow-Origin"), Some("*"), "{target}");
        let methods = response.header("Access-Control-Allow-Methods").unwrap_or_default();
        assert!(methods.contains("GET"), "{target}: {methods:?}");
    }
}

#[test]
fn another_method_is_405_with_the_allowed_methods() {
    let server = Server::start();
    for target in ["/", "/api/rooms", "/api/rooms/general", "/healthz", "/metrics"] {
        let methods = ["POST", "PUT", "DELETE", "PATCH", "BREW"].iter();
        let is_allowed = |method: &str| target == "/api/rooms/general" && matches!(method, "PATCH" | "DELETE");
        for method in methods.filter(|method| !is_allowed(method)) {
            let response = curl(&server, target, &["--request", method]);
            assert_eq!(response.status, 405, "{method} {target}");
            let allow = response.header("Allow").unwrap_or_default();
            assert!(allow.contains("GET") && !allow.contains(method), "{method} {target}: {allow:?}");
        }
    }
}

#[test]
fn an_unknown_path_is_404() {
    let server = Server::start();
    for target in [
        "/nothing",
        "/api",
        "/api/",
        "/api/nothing",
        "/api/rooms/a/b/c",
        "/index.html.gz",
        "/../Cargo.toml",
        "/%2e%2e/Cargo.toml",
        "/js/../../Cargo.toml",
        "/js/",
        "/etc/passwd",
        "//etc/passwd",
    ] {
        let response = curl(&server, target, &[]);
        assert!(matches!(response.status, 404 | 400), "{target}: {}", response.status);
        assert!(!response.body.windows(9).any(|nine| nine == b"[package]"), "{target}");
    }
}

#[test]
fn the_page_is_served_whole_with_its_security_headers() {
    let server = Server::start();
    let page = curl(&server, "/", &[]);
    assert_eq!(page.status, 200);
    assert_eq!(page.header("Content-Type").map(str::to_ascii_lowercase).as_deref(), Some("text/html; charset=utf-8"));
    let policy = page.header("Content-Security-Policy").expect("a Content-Security-Policy");
    assert!(policy.contains("default-src 'self'") || policy.contains("default-src 'none'"), "{policy}");
    assert!(!policy.contains("unsafe-inline") && !policy.contains("unsafe-eval"), "{policy}");
    assert!(policy.contains("frame-ancestors"), "{policy}");
    assert_eq!(page.header("X-Content-Type-Options"), Some("nosniff"));
    assert!(page.header("Referrer-Policy").is_some());
    assert!(page.header("Cache-Control").is_some());
    assert_eq!(page.header("Connection"), Some("keep-alive"), "clients must know");
    assert_eq!(curl(&server, "/none", &[]).header("Connection"), Some("close"), "after an error, too");
}

/// The local URLs in `src` and `href` of a page.
fn assets(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    for attribute in ["src=\"", "href=\""] {
        for rest in page.split(attribute).skip(1) {
            let target = rest.split('"').next().unwrap_or_default();
            if !target.is_empty() && !target.contains(':') && !target.starts_with('#') {
                found.push(format!("/{}", target.trim_start_matches("./").trim_start_matches('/')));
            }
        }
    }
    found
}

#[test]
fn every_file_of_the_page_is_served_with_its_media_type() {
    let server = Server::start();
    let page = curl(&server, "/", &[]);
    let assets = assets(page.text());
    assert!(assets.len() >= 2, "a page with a style and a script: {assets:?}");
    for target in assets {
        let asset = curl(&server, &target, &[]);
        assert_eq!(asset.status, 200, "{target}");
        let wanted = match target.rsplit('.').next() {
            Some("css") => "text/css",
            Some("js") => "text/javascript",
            Some("svg") => "image/svg+xml",
            Some("png") => "image/png",
            Some("ico") => "image/",
            Some("json" | "webmanifest") => "application/",
            _ => "",
        };
        let kind = asset.header("Content-Type").unwrap_or_default();
        assert!(kind.starts_with(wanted), "{target}: {kind}");
        assert_eq!(asset.header("X-Content-Type-Options"), Some("nosniff"), "{target}");
    }
}

#[test]
fn a_file_in_the_browsers_cache_is_not_sent_again() {
    let server = Server::start();
    let page = curl(&server, "/", &[]);
    let etag = page.header("ETag").expect("an ETag").to_string();
    let bare = etag.trim_start_matches("W/").to_string();
    for (header, status) in [
        (format!("If-None-Match: {etag}"), 304),
        (format!("If-None-Match: \"other\", {etag}"), 304),
        (format!("If-None-Match: W/{bare}"), 304),
        ("If-None-Match: *".to_string(), 304),
        ("If-None-Match: \"other\"".to_string(), 200),
    ] {
        let again = curl(&server, "/", &["--header", &header]);
        assert_eq!(again.status, status, "{header}");
        assert_eq!(again.body.is_empty(), status == 304, "{header}");
        assert_eq!(again.header("ETag"), Some(etag.as_str()), "{header}");
    }
}

#[test]
fn gzip_is_sent_only_to_clients_that_accept_it() {
    let server = Server::start();
    let plain = curl(&server, "/", &[]);
    assert_eq!(plain.header("Content-Encoding"), None);
    let unpacked = curl(&server, "/", &["--header", "Accept-Encoding: gzip"]);
    assert_eq!(unpacked.header("Content-Encoding"), Some("gzip"));
    assert!(unpacked.header("Vary").is_some_and(|vary| vary.to_ascii_lowercase().contains("accept-encoding")));
    assert!(unpacked.body.len() < plain.body.len(), "smaller, or what is it for");
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&unpacked.body[..]), &mut text).expect("gzip");
    assert_eq!(text, plain.body);
    for refused in ["gzip;q=0", "identity", "gzipped", "br;q=1, gzip;q=0.0"] {
        let response = curl(&server, "/", &["--header", &format!("Accept-Encoding: {refused}")]);
        assert_ne!(response.header("Content-Encoding"), Some("gzip"), "{refused}");
    }
}

#[test]
fn health_and_metrics_are_plain_text() {
    let server = Server::start();
    assert_eq!(curl(&server, "/healthz", &[]).status, 200);
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    let _ben = Ws::join(&server, "/ws/tea/Ben");
    ana.say("one");
    ana.until(|frame| frame["type"] == "text");
    let metrics = curl(&server, "/metrics", &[]);
    assert_eq!(metrics.status, 200);
    let kind = metrics.header("Content-Type").unwrap_or_default();
    assert!(kind.starts_with("text/plain"), "{kind}");
    for (name, value) in [("members", 2), ("rooms", 1), ("messages_total", 1)] {
        server.wait_for_metric(name, value);
    }
    // At least two welcomes, one join and two copies of the message.
    assert!(server.metric("deliveries_total") >= 2);
    assert!(server.metric("connections") >= 2);
    Ws::refused(&server, "/ws", &[("Origin", "http://evil.example")]);
    server.wait_for_metric("refusals_total{reason=\"origin\"}", 1);
}

#[test]
fn a_query_or_a_body_does_not_change_the_response() {
    let server = Server::start();
    assert_eq!(curl(&server, "/?lang=bn", &[]).status, 200);
    assert_eq!(curl(&server, "/healthz?x=1", &[]).status, 200);
    let with_body = curl(&server, "/api/rooms", &["--request", "GET", "--data", "{\"a\":1}"]);
    assert_eq!(with_body.status, 200);
    let chunked = ["--request", "GET", "--header", "Transfer-Encoding: chunked", "--data", "abc"];
    assert_eq!(curl(&server, "/api/rooms", &chunked).status, 200);
    let large = "x".repeat(70 * 1024);
    let refused = curl(&server, "/api/rooms", &["--data", &large]);
    assert!(matches!(refused.status, 405 | 413), "{}", refused.status);
}

#[test]
fn active_rooms_are_listed_by_people_and_then_by_the_latest_message() {
    for data in [&[][..], &["--data", ":memory:"]] {
        let server = Server::with(data);
        let post = |room: &str| {
            let body = Some(json!({"content": "hi"}));
            let posted = exchange(server.addr(), "POST", &format!("/api/rooms/{room}/messages"), &[], body.as_ref());
            assert_eq!(posted.expect("an answer").status, 201);
        };
        ["a", "b", "c", "d", "a"].iter().for_each(|room| post(room));
        let _people = [Ws::join(&server, "/ws/c/Ana"), Ws::join(&server, "/ws/quiet/Ana")];
        let page = |query: &str| {
            let page = server.get(&format!("/api/rooms?sort=active{query}")).json();
            let rooms = page["data"].as_array().expect("rooms").iter().map(|room| room["id"].as_str().expect("an id"));
            (rooms.collect::<Vec<_>>().join(" "), page["next"].as_str().map(str::to_owned))
        };
        assert_eq!(page(""), ("c quiet a d b".to_owned(), None));
        let (first, next) = page("&limit=2");
        let (second, next) = page(&format!("&limit=2&after={}", next.filter(|_| first == "c quiet").expect("a page")));
        let (third, next) = page(&format!("&limit=2&after={}", next.filter(|_| second == "a d").expect("a page")));
        assert_eq!((&*third, next), ("b", None));
        assert_eq!(page("&after=a").0, "d b", "a room id stands for its place");
        for query in ["sort=other", "sort=active&after=", "sort=active&after=dm:x"] {
            let refused = server.get(&format!("/api/rooms?{query}"));
            assert_eq!((refused.status, &refused.json()["reason"]), (400, &"bad_query".into()), "{query}");
        }
    }
}
