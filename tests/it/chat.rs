//! Tests of the chat itself: clients join, get the history, send messages, type and leave, in one room or several.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::support::{Server, Ws};

const BENGALI: &str = "আড্ডা: আমার সোনার বাংলা, আমি তোমায় ভালোবাসি — র\u{200d}্যাব, ক্ষ্ম 👩\u{200d}💻";

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Sends `count` numbered messages, and waits for the echo of each.
fn send_numbered(ws: &mut Ws, count: usize) {
    for number in 1..=count {
        let content = number.to_string();
        ws.say(&content);
        ws.until(|frame| frame["content"] == content);
    }
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[test]
fn a_message_reaches_all_members_and_its_author() {
    let server = Server::start();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    let mut ben = Ws::join(&server, "/ws/tea/Ben");
    ana.expect("join");
    ana.say("hello");
    let at_ana = ana.expect_text("hello");
    let at_ben = ben.expect_text("hello");
    assert_eq!(at_ana, at_ben, "a frame reads the same for every member");
    assert_eq!(at_ben["room_id"], "tea");
    assert_eq!(at_ben["username"], "Ana");
    assert_eq!(at_ben["user_id"], ana.user_id());
    assert_eq!(at_ben["seq"], 1);
    assert_eq!(at_ben.get("nonce"), None);
}

#[test]
fn a_welcome_lists_the_members_and_the_limits() {
    let server = Server::start();
    let ana = Ws::join(&server, "/ws/tea/Ana");
    let ben = Ws::join(&server, "/ws/tea/Ben");
    let welcome = &ben.welcome;
    assert_eq!(welcome["room_id"], "tea");
    assert_eq!(welcome["username"], "Ben");
    assert_eq!(welcome["seq"], 0);
    assert_eq!(welcome["reset"], false);
    assert_eq!(welcome["member_count"], 2);
    let person = |ws: &Ws, name: &str| json!({"id": ws.user_id(), "username": name, "role": "guest", "bot": false});
    let members = welcome["members"].as_array().expect("a list of members");
    assert_eq!(members.len(), 2, "{welcome}");
    for member in [person(&ana, "Ana"), person(&ben, "Ben")] {
        assert!(members.contains(&member), "no {member} in {welcome}");
    }
    assert_ne!(ana.user_id(), ben.user_id());
    assert_eq!(
        welcome["limits"],
        json!({"content_bytes": 8192, "message_bytes": 65536, "room_chars": 64, "username_chars": 32, "nonce_chars": 64,
            "rooms_per_connection": 50, "history": 200, "rate_per_s": 10, "burst": 30})
    );
}

#[test]
fn other_members_see_joins_and_leaves() {
    let server = Server::start();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    let mut ben = Ws::join(&server, "/ws/tea/Ben");
    let join = ana.expect("join");
    assert_eq!((&join["username"], &join["user_id"]), (&json!("Ben"), &json!(ben.user_id())));
    let ben_id = ben.user_id();
    ben.say("bye");
    ben.expect_text("bye");
    ben.close(1000);
    ana.expect_text("bye");
    let leave = ana.expect("leave");
    assert_eq!((&leave["username"], &leave["user_id"]), (&json!("Ben"), &json!(ben_id)));
    let carol = Ws::join(&server, "/ws/tea/Carol");
    assert_eq!(carol.welcome["member_count"], 2);
    drop(carol);
    ana.expect("join");
    ana.expect("leave");
    ana.expect_nothing_else();
}

#[test]
fn a_client_does_not_receive_its_own_join() {
    let server = Server::start();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    ana.expect_nothing_else();
}

#[test]
fn a_join_comes_before_the_first_message_and_a_leave_after_the_last() {
    let server = Server::with(&["--rate", "0"]);
    let mut watcher = Ws::join(&server, "/ws/tea/Watcher");
    for round in 0..20 {
        let mut guest = Ws::join(&server, &format!("/ws/tea/Guest{round}"));
        for number in 0..10 {
            guest.say(&format!("{round}.{number}"));
        }
        guest.close(1000);
        watcher.expect("join");
        for number in 0..10 {
            watcher.expect_text(&format!("{round}.{number}"));
        }
        watcher.expect("leave");
    }
}

#[test]
fn typing_is_delivered_and_not_stored() {
    let server = Server::start();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    let mut ben = Ws::join(&server, "/ws/tea/Ben");
    ana.expect("join");
    ana.command(&json!({"type": "typing"}));
    let typing = ben.expect("typing");
    assert_eq!(typing["user_id"], ana.user_id());
    assert_eq!(ana.expect("typing"), typing, "clients leave out their own");
    let mut carol = Ws::join(&server, "/ws/tea/Carol");
    carol.expect_nothing_else();
}

#[test]
fn a_new_member_gets_the_last_five_messages_and_then_live_ones() {
    let server = Server::unhurried();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    send_numbered(&mut ana, 8);
    let mut ben = Ws::join(&server, "/ws/tea/Ben");
    assert_eq!(ben.welcome["seq"], 8);
    ana.say("live");
    assert_eq!(ben.contents(6), ["4", "5", "6", "7", "8", "live"]);
    ben.expect_nothing_else();
}

#[test]
fn history_has_the_requested_length_up_to_200() {
    let server = Server::unhurried();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    send_numbered(&mut ana, 230);
    for (asked, replayed) in [
        ("history=0", 231..231),
        ("history=1", 230..231),
        ("history=200", 31..231),
        ("history=5000", 31..231),
        ("history=", 226..231),
    ] {
        let mut ben = Ws::join(&server, &format!("/ws/tea/Ben?{asked}"));
        let wanted = numbers(replayed);
        assert_eq!(ben.contents(wanted.len()), wanted, "{asked}");
        ben.expect_no_message();
    }
}

#[test]
fn a_history_that_is_not_a_number_is_refused() {
    let server = Server::start();
    for target in ["/ws?history=many", "/ws?history=-1", "/ws?history=1.5"] {
        let refusal = Ws::refused(&server, target, &[]);
        assert_eq!((refusal.status, &refusal.json()["code"]), (400, &json!("bad_request")), "{target}");
    }
}

#[test]
fn the_default_history_can_be_set() {
    let server = Server::with(&["--history", "2"]);
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    send_numbered(&mut ana, 4);
    let mut ben = Ws::join(&server, "/ws/tea/Ben");
    assert_eq!(ben.contents(2), ["3", "4"]);
    ben.expect_nothing_else();
}

#[test]
fn a_replayed_message_is_identical_to_the_live_frame() {
    let server = Server::start();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    ana.command(&json!({"content": BENGALI, "nonce": "n1"}));
    let live = ana.expect("text");
    ana.command(&json!({"content": "and more", "reply_to": live["id"]}));
    let reply = ana.expect("text");
    assert_eq!(reply["reply_to"], live["id"]);
    let mut ben = Ws::join(&server, "/ws/tea/Ben");
    assert_eq!(ben.next_frame(), live);
    assert_eq!(ben.next_frame(), reply);
}

#[test]
fn a_message_has_its_authors_nonce() {
    let server = Server::start();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    for nonce in ["1", "a nonce with \"quotes\" and \n", "ক", &"🙂".repeat(64)] {
        ana.command(&json!({"content": "x", "nonce": nonce}));
        assert_eq!(ana.expect("text")["nonce"], nonce);
    }
}

#[test]
fn seq_is_consecutive_and_the_same_for_all_with_concurrent_senders() {
    const TALKERS: usize = 4;
    const EACH: usize = 100;
    let server = Server::unhurried();
    let mut all: Vec<Ws> = (0..TALKERS).map(|n| Ws::join(&server, &format!("/ws/tea/T{n}"))).collect();
    let heard: Vec<Vec<Value>> = std::thread::scope(|scope| {
        let talk = |(talker, ws): (usize, &mut Ws)| {
            for number in 0..EACH {
                ws.say(&format!("{talker} {number}"));
            }
            let mut heard = Vec::new();
            while heard.len() < TALKERS * EACH {
                heard.push(ws.until(|frame| frame["type"] == "text"));
            }
            heard
        };
        let threads: Vec<_> = all.iter_mut().enumerate().map(|one| scope.spawn(move || talk(one))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a talker")).collect()
    });
    for one in &heard {
        assert_eq!(one, &heard[0]);
    }
    let seqs: Vec<u64> = heard[0].iter().filter_map(|frame| frame["seq"].as_u64()).collect();
    assert_eq!(seqs, (1..=(TALKERS * EACH) as u64).collect::<Vec<_>>());
    for talker in 0..TALKERS {
        let prefix = format!("{talker} ");
        let own: Vec<&str> =
            heard[0].iter().filter_map(|frame| frame["content"].as_str()?.strip_prefix(&prefix)).collect();
        let wanted: Vec<String> = (0..EACH).map(|number| number.to_string()).collect();
        assert_eq!(own, wanted, "one connection's messages keep their order");
    }
}

#[test]
fn each_room_has_its_own_messages_and_its_own_seq() {
    let server = Server::start();
    let mut tea = Ws::join(&server, "/ws/tea/Ana");
    let mut coffee = Ws::join(&server, "/ws/coffee/Ana");
    tea.say("in tea");
    coffee.say("in coffee");
    assert_eq!(tea.expect_text("in tea")["seq"], 1);
    assert_eq!(coffee.expect_text("in coffee")["seq"], 1);
    tea.expect_nothing_else();
    coffee.expect_nothing_else();
}

#[test]
fn one_connection_can_be_in_two_rooms() {
    let server = Server::start();
    let mut coffee = Ws::join(&server, "/ws/coffee/Ben");
    coffee.say("before");
    coffee.expect_text("before");
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    ana.command(&json!({"type": "join", "room_id": "coffee", "nonce": "j"}));
    let welcome = ana.expect("welcome");
    assert_eq!((&welcome["room_id"], &welcome["username"]), (&json!("coffee"), &json!("Ana")));
    assert_eq!(welcome["user_id"], ana.user_id(), "one connection is one user");
    assert_eq!(welcome["member_count"], 2);
    ana.expect_text("before");
    assert_eq!(coffee.expect("join")["user_id"], ana.user_id());

    coffee.say("to coffee");
    coffee.expect_text("to coffee");
    assert_eq!(ana.expect_text("to coffee")["room_id"], "coffee");
    ana.command(&json!({"content": "from tea", "room_id": "coffee"}));
    assert_eq!(coffee.expect_text("from tea")["username"], "Ana");
    ana.expect_text("from tea");
    ana.say("to tea");
    assert_eq!(ana.expect_text("to tea")["room_id"], "tea");

    ana.command(&json!({"type": "leave", "room_id": "coffee"}));
    let ack = ana.expect("leave");
    assert_eq!((&ack["room_id"], &ack["user_id"]), (&json!("coffee"), &json!(ana.user_id())));
    coffee.expect("leave");
    coffee.say("alone again");
    coffee.expect_text("alone again");
    ana.expect_nothing_else();
}

#[test]
fn a_further_room_replays_the_requested_history() {
    let server = Server::start();
    let mut coffee = Ws::join(&server, "/ws/coffee/Ben");
    send_numbered(&mut coffee, 4);
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    ana.command(&json!({"type": "join", "room_id": "coffee", "history": 2}));
    ana.expect("welcome");
    let third = ana.expect_text("3");
    ana.expect_text("4");
    ana.command(&json!({"type": "leave", "room_id": "coffee"}));
    ana.expect("leave");
    ana.command(&json!({"type": "join", "room_id": "coffee", "after": third["id"]}));
    assert_eq!(ana.expect("welcome")["reset"], false);
    ana.expect_text("4");
    ana.expect_nothing_else();
}

#[test]
fn a_disconnected_client_leaves_every_room() {
    let server = Server::start();
    let mut tea = Ws::join(&server, "/ws/tea/Ben");
    let mut coffee = Ws::join(&server, "/ws/coffee/Carol");
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    ana.command(&json!({"type": "join", "room_id": "coffee"}));
    ana.expect("welcome");
    drop(ana);
    for other in [&mut tea, &mut coffee] {
        other.expect("join");
        assert_eq!(other.expect("leave")["username"], "Ana");
    }
}

#[test]
fn a_frame_that_is_not_json_is_a_plain_text_message() {
    let server = Server::start();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    for (typed, content) in [
        ("hello there", "hello there"),
        ("with a line's end\n", "with a line's end"),
        ("[1,2]", "[1,2]"),
        ("\"quoted\"", "\"quoted\""),
        (BENGALI, BENGALI),
    ] {
        ana.send(typed);
        ana.expect_text(content);
    }
}

#[test]
fn a_message_can_be_written_in_several_forms() {
    let server = Server::start();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    for spelling in [
        json!({"type": "text", "content": "hi"}),
        json!({"content": "hi"}),
        json!({"message": "hi"}),
        json!({"content": "hi", "room_id": "tea"}),
        json!({"content": "hi", "username": "Mallory", "user_id": "x", "seq": 99, "timestamp": "never"}),
    ] {
        ana.command(&spelling);
        let frame = ana.expect_text("hi");
        assert_eq!((&frame["username"], &frame["user_id"]), (&json!("Ana"), &json!(ana.user_id())));
    }
}

#[test]
fn bengali_text_is_kept_unchanged() {
    let server = Server::start();
    let (room, name) = ("চায়ের-আড্ডা", "রহিম");
    let mut rahim = Ws::join(&server, &format!("/ws/{}/{}", encoded(room), encoded(name)));
    // Names are stored in NFC, in which য় is two characters; the content of a message stays unchanged.
    assert_eq!(rahim.welcome["username"], name);
    let by_query = format!("/ws?room={}&username={}", encoded(room), encoded("করিম"));
    let mut karim = Ws::join(&server, &by_query);
    assert_eq!(karim.welcome["room_id"], rahim.welcome["room_id"]);
    assert_eq!(rahim.expect("join")["username"], "করিম");
    rahim.say(BENGALI);
    assert_eq!(rahim.expect_text(BENGALI)["username"], name);
    karim.expect_text(BENGALI);
}

#[test]
fn all_forms_of_the_url_lead_to_the_same_room() {
    let server = Server::start();
    for (target, room, name) in [
        ("/ws", "general", "Anonymous"),
        ("/ws?room=tea&username=Ana", "tea", "Ana"),
        ("/ws?username=Ana", "general", "Ana"),
        ("/ws?room=tea", "tea", "Anonymous"),
        ("/ws/Ana", "general", "Ana"),
        ("/ws/tea/Ana", "tea", "Ana"),
        ("/ws/chat/tea/", "tea", "Anonymous"),
        // The path comes first; the query supplies what the path does not name.
        ("/ws/Ana?room=tea", "tea", "Ana"),
        ("/ws/Ana?username=Ben", "general", "Ana"),
        ("/ws/tea/Ana?room=x&username=y", "tea", "Ana"),
        ("/ws/chat/tea/?username=Ana", "tea", "Ana"),
        // A name of white space counts as absent.
        ("/ws?room=&username=", "general", "Anonymous"),
        ("/ws?room=%20%20&username=+", "general", "Anonymous"),
        // Percent-decoding: a plus is a space in a query, and a plus in a path.
        ("/ws?room=a+b&username=A%2BB", "a b", "A+B"),
        ("/ws/a+b/A%20B", "a+b", "A B"),
        ("/ws/a%2Fb/A%3Fc", "a/b", "A?c"),
        ("/ws/tea/%41na", "tea", "Ana"),
        ("/ws/%20tea%20/%09Ana", "tea", "Ana"),
        ("/ws/tea/Jose%CC%81", "tea", "José"),
        // Unknown parameters are ignored.
        ("/ws/tea/Ana?utm=1&history=3&x", "tea", "Ana"),
    ] {
        let ws = Ws::join(&server, target);
        let found = (&ws.welcome["room_id"], &ws.welcome["username"]);
        assert_eq!(found, (&json!(room), &json!(name)), "{target}");
    }
}

#[test]
fn an_invalid_name_is_refused_before_the_upgrade() {
    let server = Server::start();
    let long_name = format!("/ws/tea/{}", "n".repeat(33));
    let long_room = format!("/ws/{}/Ana", "r".repeat(65));
    for (target, code) in [
        ("/ws/tea/%00", "bad_name"),
        ("/ws/tea/a%0Ab", "bad_name"),
        ("/ws/tea/%E2%80%AEevil", "bad_name"),
        (long_name.as_str(), "bad_name"),
        (long_room.as_str(), "bad_room"),
        ("/ws/a%1Bb/Ana", "bad_room"),
        ("/ws/dm%3Aa%3Ab/Ana", "bad_room"),
        ("/ws?room=dm:a:b", "bad_room"),
        ("/ws/tea/%FF%FE", "bad_name"),
        ("/ws?username=%C3%28", "bad_name"),
    ] {
        let refusal = Ws::refused(&server, target, &[]);
        let body = refusal.json();
        assert_eq!((refusal.status, &body["code"]), (400, &json!(code)), "{target}: {body}");
        assert!(body["error"].as_str().is_some_and(|sentence| !sentence.is_empty()), "{target}");
    }
    let longest = format!("/ws/{}/{}", encoded(&"ক".repeat(64)), encoded(&"খ".repeat(32)));
    Ws::join(&server, &longest);
}

#[test]
fn a_room_is_listed_while_it_has_members_or_messages() {
    let server = Server::start();
    let ids = |server: &Server| -> Vec<String> {
        let listing = server.get("/api/rooms").json();
        let rooms = listing["data"].as_array().expect("a list of rooms");
        rooms.iter().filter_map(|room| room["id"].as_str().map(str::to_string)).collect()
    };
    let silent = Ws::join(&server, "/ws/silent/Ana");
    let mut talked = Ws::join(&server, "/ws/talked/Ana");
    talked.say("something");
    talked.expect_text("something");
    assert_eq!(ids(&server), ["silent", "talked"]);
    silent.close(1000);
    talked.close(1000);
    crate::support::eventually("the silent room is gone", crate::support::DEADLINE, || ids(&server) == ["talked"]);
    let back = Ws::join(&server, "/ws/talked/Ben");
    assert_eq!(back.welcome["seq"], 1);
}
