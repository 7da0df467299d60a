//! What upkeep's changes do to messages: frames that are forgotten, and texts that are erased.

use super::*;

#[test]
fn forgotten_messages_are_hidden_before_their_rows_are_deleted() {
    let count = FORGOTTEN_AT_ONCE + 100;
    let mut rig = Rig::in_file();
    let author = stranger(3);
    let sent = (0..count).map(|number| {
        let message = message("tea", &author, &format!("needle {number}")).with_nonce(&format!("n{number}"));
        Entry::Message(message)
    });
    let outcomes = rig.apply(sent.collect::<Vec<_>>());
    let id = |index: usize| match &outcomes[index] {
        Outcome::Stored { stored, .. } => stored.id,
        other => panic!("{other:?}"),
    };
    let up_to = Seq(count as u64 - 1);
    let forget = |up_to| Change::Forget { room: room("tea"), up_to };
    let (_, events) = rig.change(By::Server, forget(up_to)).unwrap();
    assert_eq!(events, [Meaning::Forgotten { room: room("tea"), up_to }]);
    assert_eq!(rig.number("SELECT count(*) FROM messages"), 100, "some rows are left");
    let (hidden, last) = (count - 2, count - 1);
    let only = [format!("needle {last}")];
    assert_eq!((rig.page("tea", None), rig.page("tea", Some("needle"))), (only.to_vec(), only.to_vec()));
    let seq = |index| rig.reader.view(|view| view.seq_of(&room("tea"), id(index))).unwrap();
    assert_eq!((seq(hidden), seq(last)), (None, Some(Seq(count as u64))), "the cursor");
    let kept = rig.reader.view(|view| view.room(&room("tea"))).unwrap();
    assert_eq!(kept.map(|kept| kept.head), Some(Seq(count as u64)));
    let answer = |index| {
        let body = Body::Text { content: "so it is".into(), reply_to: Some(id(index)) };
        Entry::Message(message("tea", &author, "").with_body(body))
    };
    let words = rig.words([
        join_after("tea", &author, id(hidden)),
        answer(hidden),
        Entry::Message(delete("tea", &author, id(hidden))),
        answer(last),
        // The nonce of a forgotten message is free again. The nonce of a kept message is not.
        Entry::Message(message("tea", &author, "another text").with_nonce(&format!("n{hidden}"))),
        Entry::Message(message("tea", &author, "another text").with_nonce(&format!("n{last}"))),
    ]);
    let (first, second) = (count + 1, count + 2);
    let expected = [
        format!("join 1 of {count}, seen None"),
        "no_such_reply".into(),
        "no_such_message".into(),
        format!("tea {first}"),
        format!("tea {second}"),
        "nonce_used".into(),
    ];
    assert_eq!(words, expected);
    // Everything is forgotten now: the room is not listed, and its order continues.
    rig.change(By::Server, forget(Seq(u64::MAX))).unwrap();
    assert!(rig.number("SELECT count(*) FROM rooms WHERE head = floor") == 1);
    assert_eq!(rig.reader.view(|view| view.rooms(None, 9)).unwrap(), []);
    assert_eq!(rig.reader.view(|view| view.room(&room("tea"))).unwrap(), None);
    assert_eq!(rig.send(message("tea", &author, "on")), format!("tea {}", count + 3));
}

#[test]
fn forgotten_messages_are_hidden_in_memory() {
    let mut rig = Rig::in_memory();
    let author = stranger(3);
    let ids: Vec<_> = (0..5)
        .map(|number| {
            rig.stored(message("tea", &author, &format!("needle {number}")).with_nonce(&format!("n{number}")))
        })
        .map(|stored| stored.id)
        .collect();
    rig.word(join("tea", &author));
    rig.change(By::Server, Change::Forget { room: room("tea"), up_to: Seq(4) }).unwrap();
    assert_eq!(
        (rig.page("tea", None), rig.page("tea", Some("needle"))),
        (vec!["needle 4".into()], vec!["needle 4".into()])
    );
    let seq = |index: usize| rig.reader.view(|view| view.seq_of(&room("tea"), ids[index])).unwrap();
    assert_eq!((seq(3), seq(4)), (None, Some(Seq(5))));
    let words = rig.words([
        Entry::Message(message("tea", &author, "another text").with_nonce("n3")),
        Entry::Message(message("tea", &author, "another text").with_nonce("n4")),
        join_after("tea", &author, ids[3]),
    ]);
    assert_eq!(words, ["tea 6", "nonce_used", "join 2 of 6, seen None"]);
    rig.change(By::Server, Change::Forget { room: room("tea"), up_to: Seq(u64::MAX) }).unwrap();
    assert_eq!(rig.reader.view(|view| view.rooms(None, 9)).unwrap(), []);
    assert_eq!(rig.send(message("tea", &author, "on")), "tea 7", "the room has a member");
}

#[test]
fn an_erased_message_keeps_its_seq_and_its_nonce() {
    in_both(|mut rig| {
        let (author, other) = (stranger(3), stranger(4));
        let erased = rig.stored(message("tea", &author, "needle one").with_nonce("n"));
        let kept = rig.stored(message("tea", &other, "needle two"));
        let elsewhere = rig.stored(message("jam", &author, "needle three"));
        let event = rig.stored(delete("jam", &author, elsewhere.id));
        let erase = |messages: &[FrameId]| Change::EraseMessages { room: room("tea"), messages: messages.to_vec() };
        // What is not there, or of another room, or an event, is left alone.
        let messages = [erased.id, elsewhere.id, event.id, FrameId(uuid::Uuid::from_u128(9)), erased.id];
        let (_, events) = rig.change(By::Server, erase(&messages)).unwrap();
        let [Meaning::Erased { room: of, messages: frames }] = &events[..] else { panic!("{events:?}") };
        assert_eq!((of, frames.len(), frames[0].id, frames[0].seq), (&room("tea"), 1, erased.id, Seq(1)));
        let shown: serde_json::Value = serde_json::from_slice(&frames[0].json).unwrap();
        assert_eq!((&shown["content"], shown["deleted_at"].is_string()), (&"".into(), true));
        assert_eq!(rig.page("tea", None), ["", "needle two"]);
        assert_eq!(rig.page("tea", Some("needle")), ["needle two"]);
        assert_eq!(rig.change(By::Server, erase(&[erased.id])).unwrap().1, [], "it is erased already");
        let entries = [
            Entry::Message(message("tea", &author, "needle one").with_nonce("n")),
            Entry::Message(delete("tea", &author, erased.id)),
            Entry::Message(delete("tea", &other, kept.id)),
            Entry::Message(message("tea", &author, "on")),
        ];
        assert_eq!(rig.words(entries), ["duplicate 1", "no_such_message", "tea 3", "tea 4"]);
    });
}
