//! Tests of the search in a room's messages.

use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use rustix::process::Signal;
use serde_json::Value;

use crate::disk::Disk;
use crate::support::{DEADLINE, People, Response, Server, Ws, eventually, get_from};

/// More searches than any burst.
const SEARCHES_MANY: usize = 2_000;

/// Percent-encodes a text for a query.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn search(server: &Server, query: &str) -> Response {
    server.get(&format!("/api/rooms/tea/messages?limit=200&q={}", encoded(query)))
}

/// The texts that a query finds, oldest first.
#[track_caller]
fn found(server: &Server, query: &str) -> Vec<String> {
    let response = search(server, query);
    assert_eq!(response.status, 200, "{query}: {}", response.text());
    let page = response.json();
    assert_eq!(page["next"], Value::Null, "{query}: one page has all");
    let frames = page["data"].as_array().expect("a page");
    frames.iter().map(|frame| frame["content"].as_str().expect("a text").to_owned()).collect()
}

#[test]
fn sixteen_different_words_can_be_searched_for() {
    let server = Server::unhurried();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    let words: Vec<String> = (1..=17).map(|number| format!("w{number}")).collect();
    ana.say(&words.join(" "));
    ana.expect("text");
    assert_eq!(found(&server, &words[..16].join(" ")).len(), 1);
    assert_eq!(found(&server, &"w1 w2 ".repeat(400)).len(), 1, "repeated words count once");
    let many: Vec<String> = (0..1_000).map(|number| format!("{number}")).collect();
    for query in [words.join(" "), many.join(" ")] {
        let refused = search(&server, &query);
        let error = refused.json();
        assert_eq!(
            (refused.status, &error["code"], &error["reason"]),
            (400, &"bad_request".into(), &"bad_query".into())
        );
        assert!(error["error"].as_str().expect("a sentence").contains("at most 16"), "{error}");
    }
}

/// Sends requests until one is refused for the rate. Returns the refusal.
#[track_caller]
fn until_refused(mut ask: impl FnMut() -> Response) -> Response {
    for _ in 0..SEARCHES_MANY {
        let response = ask();
        if response.status != 200 {
            return response;
        }
    }
    panic!("no request is refused");
}

/// Bytes of hay in a message, and messages of it. A search must read them all, one page after another.
const HAY_BYTES: usize = 4_000;
const HAY_MESSAGES: usize = 600;
/// Maximum time of an answer: 200 ms, plus time for a busy machine.
const SEARCH_MAX: Duration = Duration::from_secs(1);

#[test]
fn a_search_on_a_slow_disk_answers_in_time_with_what_it_has_and_can_be_continued() {
    let disk = Disk::new();
    let server = disk.serve();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    ana.say("a needle");
    ana.expect("text");
    for number in 0..HAY_MESSAGES {
        ana.say(&format!("{number} {}", "hay ".repeat(HAY_BYTES / 4)));
        ana.expect("text");
    }
    disk.fails("slow");
    let (mut before, mut answers) = (String::new(), 0);
    let found = loop {
        let begun = Instant::now();
        let response = server.get(&format!("/api/rooms/tea/messages?q=needle{before}"));
        assert_eq!(response.status, 200, "{}", response.text());
        assert!(begun.elapsed() < SEARCH_MAX, "answer {answers} took {:?}", begun.elapsed());
        answers += 1;
        let page = response.json();
        let frames = page["data"].as_array().expect("a page");
        if let [found] = frames.as_slice() {
            break found["content"].clone();
        }
        // The chat goes on meanwhile.
        ana.say("no hay");
        ana.expect_text("no hay");
        before = format!("&before={}", page["next"].as_str().expect("the search is not at its end"));
    };
    assert_eq!(found, "a needle");
    assert!(answers > 1, "the search has never come to the end of its time");
}

#[test]
fn searches_are_rated_by_address() -> io::Result<()> {
    let server = Server::start();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    ana.say("tea");
    ana.expect("text");
    let refused = until_refused(|| search(&server, "tea"));
    assert_eq!((refused.status, &refused.json()["reason"]), (429, &"rate_limited".into()), "{}", refused.text());
    assert!(refused.header("Retry-After").is_some_and(|seconds| seconds.parse().is_ok_and(|seconds: u32| seconds > 0)));
    // Reading goes on, and so do other addresses.
    assert_eq!(server.get("/api/rooms/tea/messages").status, 200);
    let other = get_from(server.addr(), Ipv4Addr::new(127, 0, 0, 2), "/api/rooms/tea/messages?q=tea")?;
    assert_eq!(other.status, 200);
    Ok(())
}

#[test]
fn without_a_rate_searches_have_none() {
    let server = Server::unhurried();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    ana.say("tea");
    ana.expect("text");
    for _ in 0..300 {
        assert_eq!(found(&server, "tea"), ["tea"]);
    }
}

/// Checks what searches find on a server. Returns the texts, in their order.
#[track_caller]
fn finds_signs_and_scripts_without_spaces(server: &Server) -> Vec<&'static str> {
    let texts = vec![
        "a cake 🎂 for you",
        "I write C++ and C",
        "a cat in a box",
        "ผมกินข้าวผัดทุกวัน",
        "ຂ້ອຍກິນເຂົ້າຜັດທຸກມື້",
        "ខ្ញុំញ៉ាំបាយឆារាល់ថ្ងៃ",
        "ကျွန်တော်ထမင်းကြော်စားတယ်",
        "我喝茶",
        "র\u{200D}্যাব এসেছে",
        "done :)",
    ];
    let mut ana = Ws::join(server, "/ws/tea/Ana");
    for text in &texts {
        ana.say(text);
        ana.expect("text");
    }
    for (query, number) in [
        ("🎂", 0),
        ("c++", 1),
        ("ข้าวผัด", 3),
        ("ເຂົ້າຜັດ", 4),
        ("បាយ", 5),
        ("ထမင်း", 6),
        ("喝茶", 7),
        ("র্যাব", 8),
        ("র\u{200D}্যাব", 8),
        (":)", 9),
    ] {
        assert_eq!(found(server, query), [texts[number]], "{query}");
    }
    for query in ["🍰", "C#", "ข้าวต้ม", "茶喝", ":(", "", " ", &"茶".repeat(1_000)] {
        assert_eq!(found(server, query), [""; 0], "{query}");
    }
    texts
}

#[test]
fn signs_and_scripts_without_spaces_are_found_in_memory() {
    finds_signs_and_scripts_without_spaces(&Server::unhurried());
}

#[test]
fn signs_and_scripts_without_spaces_are_found_in_a_file_and_after_a_crash() {
    let people = People::new();
    let mut server = people.serve(&[]);
    let texts = finds_signs_and_scripts_without_spaces(&server);
    server.signal(Signal::KILL);
    server.wait_exit(DEADLINE);
    let server = people.serve(&[]);
    let all = || ["🎂", "c++", "喝茶", "ထမင်း"].map(|query| found(&server, query));
    let expected = [texts[0], texts[1], texts[7], texts[6]].map(|text| vec![text.to_owned()]);
    assert_eq!(all(), expected, "at once");
    // The index follows.
    eventually("the messages are indexed", DEADLINE, || {
        let data = Connection::open_with_flags(people.data(), OpenFlags::SQLITE_OPEN_READ_ONLY).expect("a database");
        let sql = "SELECT count(*) FROM messages WHERE key > coalesce(
            (SELECT value FROM marks WHERE name = 'indexed_key'), 0)";
        data.query_row(sql, [], |row| row.get::<_, i64>(0)).is_ok_and(|count| count == 0)
    });
    assert_eq!(all(), expected, "by the index");
}
