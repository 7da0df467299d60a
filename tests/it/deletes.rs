//! Tests of deletion: a deleted message is gone for all clients, over every protocol, and from the file.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use adda::model::role::Role;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::random::Random;
use crate::support::Asked::ByBearer;
use crate::support::{DEADLINE, People, Server, Ws, adda, eventually, request};

/// How long a deleted text may stay in a file.
const GONE_WITHIN: Duration = Duration::from_secs(10);

fn sent(ws: &mut Ws, content: &str, nonce: &str) -> Value {
    ws.command(&json!({"content": content, "nonce": nonce}));
    ws.until(|frame| frame["nonce"] == nonce)
}

fn deleted(ws: &mut Ws, id: &Value, nonce: &str) -> Value {
    ws.command(&json!({"type": "delete", "message_id": id, "nonce": nonce}));
    ws.until(|frame| frame["nonce"] == nonce)
}

fn history(server: &Server, query: &str) -> Vec<Value> {
    let page = server.get(&format!("/api/rooms/tea/messages{query}")).json();
    page["data"].as_array().expect("a page").clone()
}

/// The checks for both stores, in memory and in a file.
fn is_gone_for_all_clients(server: &Server) {
    let mut ana = Ws::join(server, "/ws/tea/Ana");
    let mut ben = Ws::join(server, "/ws/tea/Ben");
    let regretted = sent(&mut ana, "regrettable words", "1");
    let kept = sent(&mut ana, "kind words", "2");
    assert_eq!(deleted(&mut ben, &regretted["id"], "b")["code"], "forbidden", "another's");

    let ack = deleted(&mut ana, &regretted["id"], "3");
    assert_eq!((&ack["type"], &ack["seq"], &ack["content"]), (&"delete".into(), &3.into(), &"".into()));
    assert_eq!(ack["message_id"], regretted["id"]);
    assert_eq!(ben.until(|frame| frame["type"] == "delete"), ack, "all clients get the same frame");

    let erased = history(server, "").remove(0);
    assert_eq!((&erased["id"], &erased["seq"], &erased["content"]), (&regretted["id"], &1.into(), &"".into()));
    assert!(erased["deleted_at"].is_string(), "{erased}");
    assert_eq!(history(server, ""), vec![erased.clone(), kept.clone()], "the event is no message");
    let first = format!("?after={}", regretted["id"].as_str().expect("an id"));
    assert_eq!(history(server, &first), vec![kept.clone(), ack.clone()], "all that came since");
    assert_eq!(history(server, "?q=regrettable"), Vec::<Value>::new());
    assert_eq!(history(server, "?q=words"), vec![kept.clone()]);

    // A client that joins later, with frames from the hub or from the store.
    let mut late = Ws::join(server, "/ws/tea/Late?history=9");
    assert_eq!([late.next_frame(), late.next_frame()], [erased, kept.clone()]);
    late.expect_nothing_else();
    let last = kept["id"].as_str().expect("an id");
    let mut back = Ws::join(server, &format!("/ws/tea/Back?after={last}"));
    assert_eq!(back.next_frame(), ack);
    assert_eq!(back.expect_text("nothing else")["seq"], 4);

    // A retry of a deleted message is a duplicate, and does not restore it.
    let again = sent(&mut ana, "regrettable words", "1");
    assert_eq!((&again["duplicate"], &again["content"]), (&true.into(), &"".into()));
    let twice = deleted(&mut ana, &regretted["id"], "3");
    assert_eq!((&twice["duplicate"], &twice["id"]), (&true.into(), &ack["id"]));
    for (id, nonce) in [(&regretted["id"], "4"), (&ack["id"], "5")] {
        assert_eq!(deleted(&mut ana, id, nonce)["code"], "not_found", "there is nothing to delete");
    }
    ana.command(&json!({"content": "so?", "reply_to": regretted["id"], "nonce": "6"}));
    assert_eq!(ana.until(|frame| frame["nonce"] == "6")["type"], "text", "its place is kept");
}

#[test]
fn a_message_deleted_in_memory_is_gone_for_all_clients() {
    is_gone_for_all_clients(&Server::with(&["--rate", "0"]));
}

#[test]
fn a_deleted_message_is_gone_from_the_file_too() {
    let people = People::new();
    let secret = "unsayable".repeat(600);
    {
        let mut server = people.serve(&[]);
        is_gone_for_all_clients(&server);
        let mut ana = Ws::join(&server, "/ws/tea/Ana");
        // A text larger than a database page, and a text within one page.
        for (content, nonce) in [(secret.as_str(), "7"), ("unsayable", "8")] {
            let id = sent(&mut ana, content, nonce)["id"].take();
            deleted(&mut ana, &id, &format!("{nonce}!"));
        }
        // The stop of the server also removes the WAL.
        server.signal(Signal::TERM);
        server.wait_exit(DEADLINE);
    }
    let file = std::fs::read(people.data()).expect("the database");
    assert!(file.windows(10).any(|part| part == b"kind words"), "texts stand in it as they are");
    for gone in ["regrettable words", &secret[..30]] {
        assert!(!file.windows(gone.len()).any(|part| part == gone.as_bytes()), "{gone}");
    }
}

/// The files of a directory that contain one of these texts.
fn files_with(directory: &Path, texts: &[String]) -> Vec<String> {
    let starts: HashSet<&[u8]> = texts.iter().map(|text| &text.as_bytes()[..4]).collect();
    let has = |bytes: &[u8]| {
        bytes.windows(4).enumerate().any(|(at, window)| {
            starts.contains(window) && texts.iter().any(|text| bytes[at..].starts_with(text.as_bytes()))
        })
    };
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    let found = entries.filter(|path| has(&fs::read(path).unwrap_or_default()));
    found.map(|path| path.display().to_string()).collect()
}

#[test]
fn a_deleted_text_is_gone_from_every_file_within_ten_seconds() {
    let people = People::new();
    let directory = people.data().parent().expect("a directory").to_owned();
    let mut server = people.serve(&[]);
    let mut ana = Ws::join(&server, "/ws/tea/Ana?history=0");
    let mut random = Random::from_env();
    // The index leaves out the beginning that a word shares with the word before. So the ends are looked for.
    let mut text = |words: usize| -> Vec<String> {
        let mut word =
            || format!("{}q{:08x}", ["x", "y", "z"][random.within(0..3) as usize], random.within(0..1 << 31));
        (0..words).map(|_| word()).collect()
    };
    let (short, page, long) = (text(3), text(150), text(700));
    let say = |ws: &mut Ws, words: &[String], nonce: &str| sent(ws, &words.join(" "), nonce)["id"].take();
    let ids = [("short", &short), ("page", &page), ("long", &long)].map(|(nonce, words)| say(&mut ana, words, nonce));
    // The index merges its segments meanwhile, and leaves pages free.
    for number in 0..120 {
        say(&mut ana, &text(60), &format!("n-{number}"));
    }
    let ends: Vec<String> = [&short, &page, &long].into_iter().flatten().map(|word| word[2..].to_owned()).collect();
    assert!(!files_with(&directory, &ends).is_empty(), "they are in the files");
    let check = |what| eventually(what, GONE_WITHIN, || files_with(&directory, &ends).is_empty());
    for (id, nonce) in ids.iter().zip(["a", "b", "c"]) {
        deleted(&mut ana, id, nonce);
    }
    sent(&mut ana, "kept", "kept");
    check("the texts are gone");
    assert_eq!(history(&server, "?q=kept").len(), 1);
    assert_eq!(history(&server, &format!("?q={}", long[699])), Vec::<Value>::new());
    // The server is killed after the answer, before it has erased everything.
    let again = say(&mut ana, &long, "again");
    deleted(&mut ana, &again, "d");
    server.signal(Signal::KILL);
    server.wait_exit(DEADLINE);
    let mut server = people.serve(&[]);
    check("the texts are gone after a kill");
    assert_eq!(history(&server, &format!("?q={}", long[699])), Vec::<Value>::new());
    server.signal(Signal::TERM);
    server.wait_exit(DEADLINE);
    assert_eq!(files_with(&directory, &ends), Vec::<String>::new());
    adda(&people.data(), &["doctor"]);
}

#[test]
fn the_texts_of_a_deleted_room_are_gone_from_every_file_within_ten_seconds() {
    let mut people = People::new();
    let (_, admin) = people.find_user("admin", Role::Admin);
    let directory = people.data().parent().expect("a directory").to_owned();
    let mut server = people.serve(&[]);
    let mut random = Random::from_env();
    let mut words =
        |count: usize| -> Vec<String> { (0..count).map(|_| format!("xq{:08x}", random.within(0..1 << 31))).collect() };
    let rooms = ["jam", "tea", "oil"];
    let texts: Vec<Vec<Vec<String>>> =
        rooms.iter().map(|_| (0..60).map(|number| words(if number % 20 == 0 { 700 } else { 20 })).collect()).collect();
    for number in 0..60 {
        for (name, texts) in rooms.iter().zip(&texts) {
            let mut ws = Ws::join(&server, &format!("/ws/{name}/Ana?history=0"));
            sent(&mut ws, &texts[number].join(" "), &format!("{name} {number}"));
        }
    }
    let ends = |room: usize| -> Vec<String> { texts[room].iter().flatten().map(|word| word[2..].to_owned()).collect() };
    let delete = |server: &Server, name: &str| {
        let status = request(server.addr(), ByBearer(&admin), "DELETE", &format!("/api/rooms/{name}"), None).status;
        assert_eq!(status, 204, "{name}");
    };
    assert!(!files_with(&directory, &ends(0)).is_empty(), "they are in the files");
    delete(&server, "jam");
    eventually("the texts are gone", GONE_WITHIN, || files_with(&directory, &ends(0)).is_empty());
    // The server is killed after the answer, before it has erased everything.
    delete(&server, "oil");
    server.signal(Signal::KILL);
    server.wait_exit(DEADLINE);
    let mut server = people.serve(&[]);
    eventually("the texts are gone after a kill", GONE_WITHIN, || files_with(&directory, &ends(2)).is_empty());
    let found = history(&server, &format!("?q={}", texts[1][59][3]));
    assert_eq!(found.len(), 1, "the other room is whole");
    server.signal(Signal::TERM);
    server.wait_exit(DEADLINE);
    adda(&people.data(), &["doctor"]);
}

#[test]
fn history_counts_messages_and_a_resume_gets_events_too() {
    let people = People::new();
    let mut server = people.serve(&["--durability", "normal"]);
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    // More than a replay sends at once.
    let text = "words ".repeat(60);
    let mut ids = Vec::new();
    for number in 1..=210 {
        ids.push(sent(&mut ana, &text, &number.to_string())["id"].take());
    }
    for (number, id) in ids.iter().rev().take(5).enumerate() {
        deleted(&mut ana, id, &format!("delete {number}"));
    }
    let replayed = |ws: &mut Ws| {
        let frames: Vec<Value> = (0..200).map(|_| ws.expect("text")).collect();
        let seqs: Vec<_> = frames.iter().map(|frame| frame["seq"].as_u64().expect("a place")).collect();
        assert_eq!(seqs, (11..=210).collect::<Vec<_>>());
        assert_eq!(frames.iter().filter(|frame| frame["deleted_at"].is_string()).count(), 5);
    };
    let mut late = Ws::join(&server, "/ws/tea/Late?history=200");
    assert_eq!(late.welcome["seq"], 215);
    replayed(&mut late);
    deleted(&mut ana, &ids[0], "the first");
    assert_eq!(late.expect("delete")["seq"], 216);
    // The same with frames that are read from the file.
    server.signal(Signal::TERM);
    server.wait_exit(DEADLINE);
    let server = people.serve(&[]);
    let mut late = Ws::join(&server, "/ws/tea/Late?history=200");
    replayed(&mut late);
    late.expect_nothing_else();
    let last = ids[209].as_str().expect("an id");
    let mut back = Ws::join(&server, &format!("/ws/tea/Back?after={last}"));
    let seqs: Vec<_> = (0..7).map(|_| back.next_frame()["seq"].as_u64()).collect();
    assert_eq!(seqs, (211..=217).map(Some).collect::<Vec<_>>());
}

#[test]
fn an_admin_can_delete_any_message_and_it_is_logged() {
    let mut people = People::new();
    let (_, admin) = people.find_user("admin", Role::Admin);
    let server = people.serve(&[]);
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    let id = sent(&mut ana, "rude", "1")["id"].as_str().expect("an id").to_owned();
    let target = format!("/api/rooms/tea/messages/{id}");
    let ask = |target: &str| request(server.addr(), ByBearer(&admin), "DELETE", target, None).status;
    assert_eq!(ask(&format!("/api/rooms/coffee/messages/{id}")), 404, "it is in another room");
    assert_eq!(ask("/api/rooms/tea/messages/42"), 404);
    assert_eq!(ask(&target), 204);
    let told = ana.until(|frame| frame["type"] == "delete");
    assert_eq!((&told["username"], &told["message_id"]), (&"admin".into(), &id.as_str().into()));
    assert_eq!(ask(&target), 404, "it is gone already");
    server.wait_for_log("the deletion", |log| log.contains(&format!("(Ana) in tea: id {id}")));
}
