//! Tests of slow consumers: a member that stops reading affects no other member.

use std::time::Instant;

use serde_json::json;

use crate::support::{DEADLINE, Event, Server, Ws, eventually};

const CONTENT_BYTES: usize = 4_000;
const OUTBOX_KIB: u64 = 512;
/// The latest frames of a room that the hub caches.
const KEPT_KIB: u64 = 256;
/// Messages that fill the caches of the database.
const WARM_UP: u64 = 800;

#[test]
fn a_member_that_stops_reading_is_closed_with_1013_and_others_miss_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("adda.db");
    let flags = ["--rate", "0", "--outbox-bytes", "512K", "--durability", "normal", "--data"];
    let server = Server::with(&[&flags[..], &[file.to_str().unwrap()]].concat());
    let mut writer = Ws::join(&server, "/ws/tea/Writer");
    let mut reader = Ws::join(&server, "/ws/tea/Reader");
    // The database's caches are filled first, or they would be counted as outbox.
    for _ in 0..WARM_UP {
        writer.say(&"w".repeat(CONTENT_BYTES));
        writer.until(|frame| frame["type"] == "text");
        reader.until(|frame| frame["type"] == "text");
    }
    let mut slow = Ws::join(&server, "/ws/tea/Slow?history=0");
    let slow_id = slow.user_id();
    writer.expect("join");
    reader.expect("join");
    let before_kib = server.rss_kib();
    let content = "x".repeat(CONTENT_BYTES);
    let start = Instant::now();
    let mut sent = 0;
    let mut gone_at = None;
    let mut most_kib = before_kib;
    // One at a time, waiting for each echo, so that only the slow member falls behind.
    while gone_at.is_none() {
        assert!(start.elapsed() < DEADLINE, "still a member after {sent} messages");
        sent += 1;
        writer.say(&content);
        for ws in [&mut writer, &mut reader] {
            let frame = ws.until(|frame| frame["type"] == "text" || frame["user_id"] == slow_id.as_str());
            if frame["type"] == "leave" {
                gone_at = Some(sent);
                ws.expect("text");
            } else {
                assert_eq!(frame["seq"], WARM_UP + sent, "a gap");
            }
        }
        if sent % 50 == 0 {
            most_kib = most_kib.max(server.rss_kib());
        }
    }
    assert_eq!(server.metric("drops_total{reason=\"slow_consumer\"}"), 1);
    let mut seq = 0;
    loop {
        match slow.event() {
            Event::Frame(frame) => {
                seq += 1;
                assert_eq!(frame["seq"], WARM_UP + seq, "whole frames in their order");
                assert_eq!(frame["content"].as_str().map(str::len), Some(CONTENT_BYTES));
            }
            Event::Close(code) => {
                assert_eq!(code, Some(1013));
                break;
            }
            Event::End => panic!("an end without a close code after {seq} of {sent} messages"),
        }
    }
    slow.end();
    // Besides the outbox there are the cached frames of the room, and the slack of the allocator.
    let grown_kib = most_kib.saturating_sub(before_kib);
    println!("{grown_kib} KiB more after {sent} messages");
    assert!(grown_kib < OUTBOX_KIB + KEPT_KIB + 2 * 1024, "{grown_kib} KiB more after {sent} messages");
    server.wait_for_metric("outbox_bytes", 0);
    // It reconnects, and has lost nothing.
    let mut back = Ws::join(&server, "/ws/tea/Slow?history=1");
    assert_eq!(back.welcome["seq"], WARM_UP + sent);
    back.expect("text");
}

#[test]
fn a_member_that_reads_late_gets_everything() {
    let server = Server::with(&["--rate", "0", "--outbox-bytes", "64M"]);
    let mut writer = Ws::join(&server, "/ws/tea/Writer");
    let mut late = Ws::join(&server, "/ws/tea/Late");
    writer.expect("join");
    let content = "x".repeat(CONTENT_BYTES);
    let mut sent = 0;
    eventually("its outbox is in use", DEADLINE, || {
        for _ in 0..100 {
            writer.say(&content);
            writer.expect("text");
            sent += 1;
        }
        server.metric("outboxes_waiting") == 1
    });
    for seq in 1..=sent {
        assert_eq!(late.expect("text")["seq"], seq);
    }
    late.expect_nothing_else();
    server.wait_for_metric("outbox_bytes", 0);
    assert_eq!(server.metric("drops_total{reason=\"slow_consumer\"}"), 0);
}

#[test]
fn a_slow_member_that_floods_does_not_delay_others() {
    let server = Server::with(&["--rate", "0", "--outbox-bytes", "256K"]);
    let mut writer = Ws::join(&server, "/ws/tea/Writer");
    let mut flood = Ws::join(&server, "/ws/tea/Flood");
    writer.expect("join");
    let flooding = std::thread::spawn(move || {
        let command = json!({"content": "x".repeat(CONTENT_BYTES)}).to_string();
        for _ in 0..20_000 {
            if flood.try_send(tungstenite::Message::text(command.clone())).is_err() {
                return;
            }
        }
    });
    writer.until(|frame| frame["type"] == "leave");
    flooding.join().expect("the flood");
    writer.say("peace");
    writer.until(|frame| frame["content"] == "peace");
}
