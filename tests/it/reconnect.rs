//! Coming back: all that was missed, nothing twice, and the truth where that can't be.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::support::{DEADLINE, Server, Ws};

/// Says numbered messages and gives back the frames as the author got them.
fn said(ws: &mut Ws, numbers: std::ops::RangeInclusive<usize>) -> Vec<Value> {
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
fn who_comes_back_hears_just_what_was_missed() {
    let server = Server::unhurried();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    let before = said(&mut ana, 1..=3);
    // As much as a room keeps in memory.
    let missed = said(&mut ana, 4..=200);
    let mut ben = Ws::join(&server, &format!("/ws/tea/Ben?after={}", id(&before[2])));
    assert_eq!((&ben.welcome["reset"], &ben.welcome["seq"]), (&false.into(), &200.into()));
    for frame in &missed {
        assert_eq!(&ben.next_frame(), frame);
    }
    ben.expect_nothing_else();
}

#[test]
fn who_was_away_for_long_hears_all_of_it_and_then_what_is_said() {
    let server = Server::unhurried();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    let first = said(&mut ana, 1..=1).remove(0);
    let mut missed = said(&mut ana, 2..=1_500);
    let mut ben = Ws::join(&server, &format!("/ws/tea/Ben?after={}", id(&first)));
    assert_eq!((&ben.welcome["reset"], &ben.welcome["seq"]), (&false.into(), &1_500.into()));
    // Ana goes on while Ben catches up.
    missed.extend(said(&mut ana, 1_501..=1_550));
    for frame in &missed {
        assert_eq!(&ben.next_frame(), frame);
    }
    ben.expect_nothing_else();
}

#[test]
fn who_saw_what_nobody_kept_is_told_so() {
    let server = Server::unhurried();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    said(&mut ana, 1..=250);
    let mut ben = Ws::join(&server, "/ws/tea/Ben?after=0192f7a0-0000-7000-8000-000000000001");
    assert_eq!(ben.welcome["reset"], true);
    assert_eq!(ben.contents(5), ["246", "247", "248", "249", "250"]);
    ben.expect_nothing_else();
}

#[test]
fn who_missed_nothing_hears_nothing() {
    let server = Server::start();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    let last = said(&mut ana, 1..=3).pop().expect("three messages");
    let mut ben = Ws::join(&server, &format!("/ws/tea/Ben?after={}", id(&last)));
    assert_eq!(ben.welcome["reset"], false);
    ben.expect_nothing_else();
}

#[test]
fn an_unknown_place_is_a_reset_with_the_latest_history() {
    let server = Server::start();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    let last = said(&mut ana, 1..=7).pop().expect("seven messages");
    let mut elsewhere = Ws::join(&server, "/ws/coffee/Ana");
    let foreign = said(&mut elsewhere, 1..=1).remove(0);
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
fn an_empty_after_was_not_given() {
    let server = Server::start();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    said(&mut ana, 1..=2);
    let mut ben = Ws::join(&server, "/ws/tea/Ben?after=");
    assert_eq!(ben.welcome["reset"], false);
    assert_eq!(ben.contents(2), ["1", "2"]);
}

#[test]
fn no_gap_and_no_duplicate_however_often_the_line_breaks() {
    const MESSAGES: u64 = 600;
    /// What the writer may be ahead, which the room still keeps.
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
            // Fails only when the writer is done.
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
