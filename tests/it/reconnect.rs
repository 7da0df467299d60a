//! Tests of reconnects: a client receives all missed messages, none twice, and a `reset` if that is impossible.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OpenFlags};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{DEADLINE, Event, Server, Ws, eventually};

/// Sends numbered messages, and returns the frames that the author received.
fn send_numbered(ws: &mut Ws, numbers: std::ops::RangeInclusive<usize>) -> Vec<Value> {
    let one = |number: usize| {
        let content = number.to_string();
        ws.say(&content);
        ws.until(|frame| frame["content"] == content)
    };
    numbers.map(one).collect()
}

fn id(frame: &Value) -> &str {
    frame["id"].as_str().expect("an id")
}

#[test]
fn a_reconnect_replays_exactly_the_missed_messages() {
    let server = Server::unhurried();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    let before = send_numbered(&mut ana, 1..=3);
    // As many messages as a room keeps in memory.
    let missed = send_numbered(&mut ana, 4..=200);
    let mut ben = Ws::join(&server, &format!("/ws/tea/Ben?after={}", id(&before[2])));
    assert_eq!((&ben.welcome["reset"], &ben.welcome["seq"]), (&false.into(), &200.into()));
    for frame in &missed {
        assert_eq!(&ben.next_frame(), frame);
    }
    ben.expect_nothing_else();
}

#[test]
fn after_a_long_absence_a_client_gets_all_messages_and_then_live_ones() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("adda.db");
    let flags = ["--rate", "0", "--durability", "normal", "--data", file.to_str().unwrap()];
    let server = Server::with(&flags);
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    let first = send_numbered(&mut ana, 1..=1).remove(0);
    let mut missed = send_numbered(&mut ana, 2..=1_500);
    let mut ben = Ws::join(&server, &format!("/ws/tea/Ben?after={}", id(&first)));
    assert_eq!((&ben.welcome["reset"], &ben.welcome["seq"]), (&false.into(), &1_500.into()));
    // Ana goes on sending while Ben catches up.
    ana.expect("join");
    missed.extend(send_numbered(&mut ana, 1_501..=1_550));
    for frame in &missed {
        assert_eq!(&ben.next_frame(), frame);
    }
    ben.expect_nothing_else();
    drop((ana, ben, server));

    // A restart of the server does not affect a client that reconnects.
    let server = Server::with(&flags);
    let mut ben = Ws::join(&server, &format!("/ws/tea/Ben?after={}", id(&missed[1_000])));
    assert_eq!(ben.welcome["reset"], false);
    for frame in &missed[1_001..] {
        assert_eq!(&ben.next_frame(), frame);
    }
    assert_eq!(ben.next_frame()["seq"], 1_551, "what Ben said to see that there was nothing else");
    ben.expect_nothing_else();
}

#[test]
fn during_catch_up_a_join_arrives_before_the_members_messages() {
    const STORED: usize = 1_200;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("adda.db");
    let server =
        Server::with(&["--rate", "0", "--lease", "0", "--durability", "normal", "--data", file.to_str().unwrap()]);
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    let first = send_numbered(&mut ana, 1..=1).remove(0);
    let text = "words ".repeat(20);
    (1..STORED).for_each(|_| ana.say(&text));
    (1..STORED).for_each(|_| drop(ana.expect("text")));
    for round in 0..5 {
        let mut ben = Ws::join(&server, &format!("/ws/tea/Ben{round}?after={}", id(&first)));
        let name = format!("Eve{round}");
        let mut eve = Ws::join(&server, &format!("/ws/tea/{name}?history=0"));
        eve.say("hello");
        eve.expect_text("hello");
        eve.close(1000);
        let mut of_eve = Vec::new();
        while of_eve.len() < 3 {
            let frame = ben.next_frame();
            if frame["username"] == name.as_str() {
                of_eve.push(frame["type"].as_str().expect("a type").to_owned());
            }
        }
        assert_eq!(of_eve, ["join", "text", "leave"], "round {round}");
        ben.close(1000);
    }
}

#[test]
fn an_absence_longer_than_the_kept_history_is_a_reset() {
    let server = Server::unhurried();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    let first = send_numbered(&mut ana, 1..=1).remove(0);
    send_numbered(&mut ana, 2..=250);
    let mut ben = Ws::join(&server, &format!("/ws/tea/Ben?after={}", id(&first)));
    assert_eq!(ben.welcome["reset"], true);
    assert_eq!(ben.contents(5), ["246", "247", "248", "249", "250"]);
    ben.expect_nothing_else();
}

#[test]
fn a_guest_keeps_its_id_by_the_token_and_a_nonce_is_one_message() {
    let server = Server::unhurried();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    let token = ana.welcome["token"].as_str().expect("a token").to_owned();
    assert_eq!(token.len(), 78);
    ana.send(serde_json::json!({"content": "once", "nonce": "n"}).to_string());
    let stored = ana.expect("text");
    let id = ana.user_id();
    drop(ana);
    let mut again = Ws::join(&server, &format!("/ws/tea/Ana?history=0&token={token}"));
    assert_eq!((again.user_id(), again.welcome.get("token")), (id.clone(), None));
    again.send(serde_json::json!({"content": "once", "nonce": "n"}).to_string());
    let mut duplicate = again.expect("text");
    assert_eq!(duplicate.as_object_mut().unwrap().remove("duplicate"), Some(true.into()));
    assert_eq!(duplicate, stored);
    again.send(serde_json::json!({"content": "twice", "nonce": "n"}).to_string());
    assert_eq!(again.expect("error")["code"], "conflict");
    let stranger = Ws::join(&server, "/ws/tea/Ana?token=guess");
    assert!(stranger.user_id() != id && stranger.welcome["token"].is_string());
}

#[test]
fn a_client_that_missed_nothing_gets_no_replay() {
    let server = Server::start();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    let last = send_numbered(&mut ana, 1..=3).pop().expect("three messages");
    let mut ben = Ws::join(&server, &format!("/ws/tea/Ben?after={}", id(&last)));
    assert_eq!(ben.welcome["reset"], false);
    ben.expect_nothing_else();
}

#[test]
fn an_unknown_id_is_a_reset_with_the_latest_history() {
    let server = Server::start();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    let last = send_numbered(&mut ana, 1..=7).pop().expect("seven messages");
    let mut elsewhere = Ws::join(&server, "/ws/coffee/Ana");
    let foreign = send_numbered(&mut elsewhere, 1..=1).remove(0);
    let other = format!("/ws/tea/Ben?after={}", id(&foreign));
    for target in [
        "/ws/tea/Ben?after=0192f7a0-0000-7000-8000-000000000001",
        "/ws/tea/Ben?after=nonsense",
        "/ws/tea/Ben?after=%F0%9F%99%82",
        other.as_str(),
    ] {
        let mut ben = Ws::join(&server, target);
        assert_eq!(ben.welcome["reset"], true, "{target}");
        assert_eq!(ben.contents(5), ["3", "4", "5", "6", "7"], "{target}");
        ben.expect_no_message();
    }
    let mut ben = Ws::join(&server, &format!("/ws/tea/Ben?after={}&history=1", id(&last)));
    assert_eq!(ben.welcome["reset"], false, "`after` goes before `history`");
    ben.expect_no_message();
}

#[test]
fn an_empty_after_counts_as_absent() {
    let server = Server::start();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    send_numbered(&mut ana, 1..=2);
    let mut ben = Ws::join(&server, "/ws/tea/Ben?after=");
    assert_eq!(ben.welcome["reset"], false);
    assert_eq!(ben.contents(2), ["1", "2"]);
}

#[test]
fn no_gap_and_no_duplicate_with_many_lost_connections() {
    const MESSAGES: u64 = 600;
    /// How far the writer may be ahead; the room still keeps that.
    const AHEAD_MAX: u64 = 150;
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.subsec_nanos());
    println!("seed {seed}");
    let mut random = u64::from(seed) | 1;
    let mut roll = |bound: u64| {
        // xorshift64 (Marsaglia 2003)
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % bound
    };
    let server = Server::unhurried();
    let mut reader = Ws::join(&server, "/ws/tea/Reader");
    let mut writer = Ws::join(&server, "/ws/tea/Writer");
    let (read, progress) = std::sync::mpsc::channel();
    let writing = std::thread::spawn(move || {
        let mut reader_at = 0;
        for number in 1..=MESSAGES {
            while number > reader_at + AHEAD_MAX {
                reader_at = progress.recv_timeout(DEADLINE).expect("the reader reads on");
            }
            writer.say(&number.to_string());
            writer.until(|frame| frame["seq"] == number);
        }
    });
    let mut heard: Vec<u64> = Vec::new();
    let mut last = String::new();
    let mut breaks = 0;
    while heard.len() < MESSAGES as usize {
        for _ in 0..roll(40) {
            if heard.len() == MESSAGES as usize {
                break;
            }
            let frame = reader.until(|frame| frame["type"] == "text");
            heard.extend(frame["seq"].as_u64());
            last = id(&frame).to_string();
            // This fails only when the writer is done.
            let _ = read.send(heard.len() as u64);
        }
        let target = match last.as_str() {
            "" => "/ws/tea/Reader?history=200".to_string(),
            last => format!("/ws/tea/Reader?after={last}"),
        };
        reader = Ws::join(&server, &target);
        assert_eq!(reader.welcome["reset"], false);
        breaks += 1;
    }
    writing.join().expect("the writer");
    assert_eq!(heard, (1..=MESSAGES).collect::<Vec<_>>(), "seed {seed}, {breaks} breaks");
}

/// Reads messages until the content is `last`; their `seq` must be consecutive.
#[track_caller]
fn read_in_order(ws: &mut Ws, mut seq: u64, last: &str) -> u64 {
    loop {
        let frame = ws.until(|frame| frame["type"] == "text");
        seq += 1;
        assert_eq!(frame["seq"], seq, "a gap or a repetition: {frame}");
        if frame["content"] == last {
            return seq;
        }
    }
}

#[test]
fn after_a_long_absence_a_client_catches_up_with_a_busy_room() {
    const MISSED: usize = 5_000;
    const AT_ONCE: usize = 50;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("adda.db");
    let server = Server::with(&["--rate", "0", "--durability", "normal", "--data", file.to_str().unwrap()]);
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    let first = send_numbered(&mut ana, 1..=1).remove(0);
    let talk = |ana: &mut Ws, from: usize| {
        (0..AT_ONCE).for_each(|number| ana.say(&format!("{} {}", from + number, "words ".repeat(30))));
        (0..AT_ONCE).for_each(|_| drop(ana.until(|frame| frame["type"] == "text")));
    };
    (0..MISSED).step_by(AT_ONCE).for_each(|from| talk(&mut ana, from));
    let (is_back, last_words) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            // Ana sends all the time, and for a while after Ben has caught up.
            let mut from = MISSED;
            while !last_words.load(Ordering::SeqCst) {
                talk(&mut ana, from);
                from += AT_ONCE;
                is_back.store(true, Ordering::SeqCst);
            }
            ana.say("the end");
        });
        eventually("the room is busy", DEADLINE, || is_back.load(Ordering::SeqCst));
        let mut ben = Ws::join(&server, &format!("/ws/tea/Ben?after={}", id(&first)));
        assert_eq!(ben.welcome["reset"], false);
        let head = ben.welcome["seq"].as_u64().expect("a head");
        assert!(head > MISSED as u64, "{head}");
        let mut seq = 1;
        // Live messages arrive once the `seq` is behind the head and a further message was sent.
        while seq < head + AT_ONCE as u64 {
            let frame = ben.until(|frame| frame["type"] == "text");
            seq += 1;
            assert_eq!(frame["seq"], seq, "a gap or a repetition: {frame}");
        }
        last_words.store(true, Ordering::SeqCst);
        let end = read_in_order(&mut ben, seq, "the end");
        busy.join().expect("a talker");
        assert_eq!(server.metric("messages_total"), end);
    });
}

#[test]
fn a_client_overtaken_by_the_retention_gets_a_reset() {
    const STORED: usize = 6_000;
    const AT_ONCE: usize = 100;
    const OLD: u64 = 5_500;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("adda.db");
    let flags = ["--rate", "0", "--durability", "normal", "--data", file.to_str().unwrap()];
    let mut server = Server::with(&flags);
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    let first = send_numbered(&mut ana, 1..=1).remove(0);
    let text = "words ".repeat(600);
    for _ in (1..STORED).step_by(AT_ONCE) {
        (0..AT_ONCE).for_each(|_| ana.say(&text));
        (0..AT_ONCE).for_each(|_| drop(ana.until(|frame| frame["type"] == "text")));
    }
    drop(ana);
    server.signal(Signal::TERM);
    server.wait_exit(DEADLINE);
    // Most messages pass the retention soon, but not yet: Ben must be reading them at that time.
    let connection = Connection::open(&file).unwrap();
    let soon = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64 - 3_600_000 + 2_500;
    // The age of a message is in its id, as log time.
    let soon = u64::try_from(soon).unwrap().to_be_bytes();
    let sql = "UPDATE messages SET id = CAST(?1 || substr(id, 7) AS BLOB) WHERE seq <= ?2";
    connection.execute(sql, (&soon[2..], OLD as i64)).unwrap();
    let sql = "SELECT id FROM messages WHERE seq = ?1";
    let first: [u8; 16] = connection.query_row(sql, [first["seq"].as_i64()], |row| row.get(0)).unwrap();
    let first = uuid::Uuid::from_bytes(first).to_string();
    drop(connection);
    let server = Server::with(&[&flags[..], &["--retention", "1h"]].concat());
    let mut ben = Ws::join(&server, &format!("/ws/tea/Ben?after={}", first));
    let mut seq = if ben.welcome["reset"] == true { OLD } else { ben.expect("text")["seq"].as_u64().unwrap() };
    let mut last_id = None;
    // Ben reads nothing while the oldest messages are deleted.
    let reader = Connection::open_with_flags(&file, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let oldest = || reader.query_row("SELECT min(seq) FROM messages", [], |row| row.get::<_, i64>(0)).unwrap();
    eventually("the old is gone", DEADLINE, || oldest() > OLD as i64);
    drop(reader);
    let token = ben.welcome["token"].as_str().expect("a token").to_owned();
    while seq <= STORED as u64 {
        match ben.event() {
            Event::Frame(frame) if frame["type"] == "text" => {
                let found = frame["seq"].as_u64().unwrap();
                assert_eq!(found, seq + 1, "a gap without a reset");
                (seq, last_id) = (found, Some(id(&frame).to_owned()));
            }
            Event::Frame(_) => {}
            // Ben reconnects for the rest. He gets a `reset`, and the `seq` from which the room continues.
            Event::Close(code) => {
                assert_eq!(code, Some(1013));
                let after = last_id.take().unwrap_or_else(|| first.clone());
                ben = Ws::join(&server, &format!("/ws/tea/Ben?history=200&after={after}&token={token}"));
                assert_eq!((&ben.welcome["reset"], ben.user_id().is_empty()), (&true.into(), false));
                seq = ben.expect("text")["seq"].as_u64().unwrap();
                assert!(seq > OLD, "{seq} is past the retention");
            }
            Event::End => panic!("an end without a word behind {seq}"),
        }
    }
    ben.expect_nothing_else();
    let page = server.get(&format!("/api/rooms/tea/messages?after={first}&limit=1")).json();
    assert_eq!((&page["reset"], page["data"][0]["seq"].as_u64() > Some(OLD)), (&true.into(), true), "{page}");
}
