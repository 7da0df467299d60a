//! Tests of rooms with very many members: joins and leaves are announced once a second.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Server, Ws, raise_descriptor_limit};

const FULL: usize = 200;

fn names(frame: &Value, list: &str) -> Vec<String> {
    let people = frame[list].as_array().unwrap_or_else(|| panic!("no {list} in {frame}"));
    assert!(people.len() <= 20, "{frame}");
    people.iter().map(|one| one["username"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn in_a_large_room_joins_and_leaves_are_announced_once_a_second() {
    raise_descriptor_limit();
    let server = Server::with(&["--rate", "0", "--lease", "0"]);
    let come = |number: usize| Ws::join(&server, &format!("/ws/tea/guest{number}"));
    let mut first = come(1);
    let mut crowd: Vec<Ws> = (2..=FULL).map(come).collect();
    for number in 2..=FULL {
        assert_eq!(first.expect("join")["username"], format!("guest{number}"));
    }

    // Three members join, and one of the first leaves.
    let late: Vec<Ws> = (FULL + 1..=FULL + 3).map(come).collect();
    let counts: Vec<_> = late.iter().map(|ws| ws.welcome["member_count"].as_u64().expect("a count")).collect();
    assert_eq!(counts, [201, 202, 203]);
    assert_eq!(late[2].welcome["members"].as_array().map(Vec::len), Some(FULL), "the first 200");
    let mut leaver = crowd.remove(0);
    leaver.command(&json!({"type": "leave"}));
    let own = leaver.until(|frame| frame["type"] == "leave");
    assert_eq!(own["username"], "guest2", "who goes by a command is told so");
    let (mut joined, mut left, mut count) = (BTreeSet::new(), BTreeSet::new(), Value::Null);
    while joined.len() < 3 || left.is_empty() {
        let frame = first.expect("presence");
        joined.extend(names(&frame, "joined"));
        left.extend(names(&frame, "left"));
        count = frame["member_count"].clone();
    }
    assert_eq!(joined, (FULL + 1..=FULL + 3).map(|number| format!("guest{number}")).collect());
    assert_eq!((left, count), (BTreeSet::from(["guest2".to_owned()]), 202.into()));

    // Back to 200 members: the collected changes are announced, and then each one singly again.
    for ws in late {
        ws.close(1000);
    }
    let (mut told, mut left) = (None, BTreeSet::new());
    while told.is_none() {
        let frame = first.next_frame();
        match frame["type"].as_str() {
            Some("presence") => left.extend(names(&frame, "left")),
            Some("leave") => told = Some(frame),
            _ => panic!("{frame}"),
        }
    }
    assert_eq!(left, BTreeSet::from(["guest201".to_owned()]));
    assert_eq!(told.expect("a leave")["username"], "guest202");
    assert_eq!(first.expect("leave")["username"], "guest203");
    come(FULL + 4).close(1000);
    assert_eq!((first.expect("join")["username"].take(), first.expect("leave")["username"].take()), {
        let name = Value::from(format!("guest{}", FULL + 4));
        (name.clone(), name)
    });
}
