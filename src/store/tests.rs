//! The contract of the store: the same cases on a file and in memory.

use super::*;
use crate::model::Username;

fn room(name: &str) -> RoomId {
    RoomId::parse(name).unwrap()
}

fn author(number: u128) -> Arc<Person> {
    Arc::new(Person { id: UserId(uuid::Uuid::from_u128(number)), username: Username::parse("ana").unwrap() })
}

fn message(room_name: &str, content: &str, nonce: Option<&str>) -> Append {
    Append::Message(NewMessage {
        room: room(room_name),
        author: author(1),
        role: Role::Guest,
        body: Body::Text { content: content.into(), reply_to: None },
        nonce: nonce.map(|nonce| Nonce::parse(nonce).unwrap()),
        refusal: None,
        ticket: Ticket::Nobody,
    })
}

fn join(name: &str, after: Option<FrameId>) -> Append {
    let ticket = Ticket::Member(8);
    Append::Join { room: room(name), ticket, known: None, after: after.map(After::Id), guest: None }
}

/// What became of each, in a word.
fn words(answer: &[Appended]) -> Vec<String> {
    let word = |appended: &Appended| match appended {
        Appended::Message { room, stored, .. } => format!("{room} {}", stored.seq.0),
        Appended::Duplicate { stored, .. } => format!("duplicate {}", stored.seq.0),
        Appended::Refused { rejected, .. } => format!("{:?}", rejected.code),
        Appended::Join { past, seen, .. } => {
            let past = past.as_ref().unwrap();
            format!("join {} of {}, seen {:?}", past.frames.len(), past.head.0, seen.map(|seq| seq.0))
        }
        Appended::Leave { .. } => "leave".into(),
    };
    answer.iter().map(word).collect()
}

struct Rig(Started);

impl Rig {
    fn open(data: &Data) -> Self {
        Self(start(data, Durability::Normal, Keep::default(), Arc::default()).unwrap())
    }

    fn commit(&self, batch: Vec<Append>) -> Vec<Appended> {
        self.0.writer.appends.send(batch).unwrap();
        self.0.writer.appended.recv().unwrap()
    }

    fn close(self) {
        drop((self.0.writer, self.0.reader, self.0.registry));
        for thread in self.0.threads {
            thread.join().unwrap();
        }
    }
}

/// The same contract, in a file and in memory.
fn everywhere(test: impl Fn(&Data)) {
    test(&Data::Memory);
    let directory = tempfile::tempdir().unwrap();
    test(&Data::File(directory.path().join("adda.db")));
}

fn contents(frames: &[Stored]) -> Vec<String> {
    let content = |stored: &Stored| {
        let frame: serde_json::Value = serde_json::from_slice(&stored.json).unwrap();
        assert_eq!(frame["seq"], stored.seq.0);
        frame["content"].as_str().unwrap().to_owned()
    };
    frames.iter().map(content).collect()
}

#[test]
fn each_room_counts_for_itself_and_order_is_kept() {
    everywhere(|data| {
        let rig = Rig::open(data);
        let batch = vec![
            message("tea", "1", None),
            message("jam", "1", None),
            join("tea", None),
            message("tea", "2", None),
            Append::Leave { room: room("tea"), ticket: Ticket::Member(8) },
        ];
        let answer = words(&rig.commit(batch));
        assert_eq!(answer, ["tea 1", "jam 1", "join 1 of 1, seen None", "tea 2", "leave"]);
        let rooms = rig.0.reader.rooms(None, 10).unwrap();
        let rooms: Vec<_> = rooms.iter().map(|room| (room.id.as_str(), room.head.0)).collect();
        assert_eq!(rooms, [("jam", 1), ("tea", 2)]);
        assert_eq!(rig.0.reader.room(&room("none")).unwrap(), None);
        rig.close();
    });
}

#[test]
fn a_nonce_is_one_message_for_good() {
    everywhere(|data| {
        let rig = Rig::open(data);
        let first = rig.commit(vec![message("tea", "a", Some("n")), message("tea", "a", Some("n"))]);
        assert_eq!(words(&first), ["tea 1", "duplicate 1"]);
        let (Appended::Message { stored, .. }, Appended::Duplicate { stored: again, .. }) = (&first[0], &first[1])
        else {
            panic!("{first:?}")
        };
        let first: serde_json::Value = serde_json::from_slice(&stored.json).unwrap();
        let mut again: serde_json::Value = serde_json::from_slice(&again.json).unwrap();
        assert_eq!(again.as_object_mut().unwrap().remove("duplicate"), Some(true.into()));
        assert_eq!(first, again);
        let later = [
            message("tea", "b", Some("n")),
            message("jam", "a", Some("n")),
            message("tea", "a", Some("m")),
            message("tea", "a", None),
        ];
        assert_eq!(words(&rig.commit(later.into())), ["Conflict", "Conflict", "tea 2", "tea 3"]);
        rig.close();
    });
}

#[test]
fn a_retry_is_known_when_what_it_answers_has_gone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("adda.db");
    let reply = |to: FrameId, nonce: &str, room: &str| {
        let mut append = message(room, "so it is", Some(nonce));
        if let Append::Message(message) = &mut append {
            message.body = Body::Text { content: "so it is".into(), reply_to: Some(to) };
        }
        append
    };
    let rig = Rig::open(&Data::File(path.clone()));
    let Appended::Message { stored, .. } = &rig.commit(vec![message("tea", "one", None)])[0] else { panic!() };
    assert_eq!(words(&rig.commit(vec![reply(stored.id, "n", "tea")])), ["tea 2"]);
    rig.close();
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch("DELETE FROM messages WHERE seq = 1").unwrap();
    drop(connection);
    let rig = Rig::open(&Data::File(path.clone()));
    let late = [reply(stored.id, "n", "tea"), reply(stored.id, "m", "tea"), reply(stored.id, "k", "elsewhere")];
    assert_eq!(words(&rig.commit(late.into())), ["duplicate 2", "NotFound", "NotFound"]);
    rig.close();
    let connection = Connection::open(&path).unwrap();
    let rooms: i64 = connection.query_row("SELECT count(*) FROM rooms", [], |row| row.get(0)).unwrap();
    assert_eq!(rooms, 1, "what is refused makes no room");
}

#[test]
fn a_file_remembers() {
    let directory = tempfile::tempdir().unwrap();
    let data = Data::File(directory.path().join("adda.db"));
    let rig = Rig::open(&data);
    let Appended::Message { stored, .. } = &rig.commit(vec![message("tea", "one", Some("n"))])[0] else { panic!() };
    let guest = NewGuest { id: UserId(uuid::Uuid::from_u128(9)), token_hash: TokenHash::of("secret") };
    let ticket = Ticket::Member(1);
    let arrival =
        Append::Join { room: room("tea"), ticket, known: Some(Seq(1)), after: None, guest: Some(guest.clone()) };
    rig.commit(vec![message("tea", "two", None), arrival]);
    rig.close();

    let rig = Rig::open(&data);
    let session = rig.0.registry.session("secret").unwrap().unwrap();
    assert_eq!((session.user, session.kind), (guest.id, SessionKind::Guest));
    assert_eq!(rig.0.registry.session("guess").unwrap(), None);
    let batch = vec![message("tea", "one", Some("n")), join("tea", Some(stored.id)), message("tea", "3", None)];
    assert_eq!(words(&rig.commit(batch)), ["duplicate 1", "join 2 of 2, seen Some(1)", "tea 3"]);
    rig.close();
    let file = std::fs::read(directory.path().join("adda.db")).unwrap();
    assert!(!file.windows(6).any(|bytes| bytes == b"secret"), "the token is in the file");
}

#[test]
fn history_is_paged_both_ways_and_searched() {
    everywhere(|data| {
        let rig = Rig::open(data);
        let texts = ["Hot tea", "বৃষ্টি নামলে চা", "Café crème", "tea again", "\u{09AF}\u{09BC} চায়ের কাপ"];
        rig.commit(texts.iter().map(|text| message("tea", text, None)).collect());
        rig.commit(vec![message("jam", "tea elsewhere", None)]);
        let page =
            |side, limit, words: Option<&str>| contents(&rig.0.reader.page(&room("tea"), side, limit, words).unwrap());
        assert_eq!(page(Side::Before(Seq(u64::MAX)), 2, None), texts[3..]);
        assert_eq!(page(Side::Before(Seq(3)), 9, None), texts[..2]);
        assert_eq!(page(Side::After(Seq(3)), 1, None), [texts[3]]);
        let found = |words| page(Side::Before(Seq(u64::MAX)), 9, Some(words));
        assert_eq!(found("TEA"), [texts[0], texts[3]]);
        assert_eq!(found("tea ag"), [texts[3]]);
        assert_eq!(found("cafe CREM"), [texts[2]]);
        assert_eq!(found("বৃষ্টি"), [texts[1]]);
        assert_eq!(found("বৃষ"), [texts[1]], "the last word may be only begun");
        assert_eq!(found("\u{09DF}"), [texts[4]], "one letter, two spellings");
        assert_eq!(found("ষ্টি"), [""; 0], "no word begins so");
        for odd in ["\"", "*", "tea OR -x NEAR(", "content:", "'; DROP TABLE messages; --"] {
            assert!(found(odd).is_empty(), "{odd}");
        }
        rig.close();
    });
}

#[test]
fn what_was_said_long_ago_is_found_too() {
    let directory = tempfile::tempdir().unwrap();
    let rig = Rig::open(&Data::File(directory.path().join("adda.db")));
    let say = |room: &str, text: &str| message(room, text, None);
    rig.commit(vec![say("tea", "rare 1"), say("jam", "rare, elsewhere"), say("tea", "Rarely 2")]);
    for _ in 0..5 {
        rig.commit((0..1_000).map(|_| say("tea", "noise")).collect());
    }
    rig.commit(vec![say("tea", "rare 3"), say("tea", "noise, rare 4")]);
    let found = |side, limit, words| contents(&rig.0.reader.page(&room("tea"), side, limit, Some(words)).unwrap());
    let latest = Side::Before(Seq(u64::MAX));
    assert_eq!(found(latest, 9, "rare"), ["rare 1", "Rarely 2", "rare 3", "noise, rare 4"]);
    assert_eq!(found(latest, 3, "rare"), ["Rarely 2", "rare 3", "noise, rare 4"]);
    assert_eq!(found(Side::Before(Seq(5_003)), 1, "rare"), ["Rarely 2"]);
    assert_eq!(found(Side::After(Seq(0)), 3, "rare"), ["rare 1", "Rarely 2", "rare 3"]);
    assert_eq!(found(Side::After(Seq(2)), 1, "rare"), ["rare 3"]);
    assert_eq!(found(latest, 9, "noise rare"), ["noise, rare 4"]);
    assert_eq!(found(latest, 9, "rarely 2"), ["Rarely 2"]);
    assert_eq!(found(Side::After(Seq(2)), 9, "rare noi"), ["noise, rare 4"]);
    assert_eq!(found(latest, 200, "noise").len(), 200);
    rig.close();
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("adda.db");
    let sentence = || {
        start(&Data::File(path.clone()), Durability::Full, Keep::default(), Arc::default()).err().unwrap().to_string()
    };

    std::fs::write(&path, b"this is a letter to my grandmother, and not a database of any kind at all").unwrap();
    assert!(sentence().contains("is not a database of adda"), "{}", sentence());
    assert!(std::fs::read(&path).unwrap().starts_with(b"this is a letter"));

    std::fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE recipes (name TEXT)").unwrap();
    let before = std::fs::read(&path).unwrap();
    assert!(sentence().contains("is not a database of adda"), "{}", sentence());
    assert_eq!(std::fs::read(&path).unwrap(), before);

    std::fs::remove_file(&path).unwrap();
    Rig::open(&Data::File(path.clone())).close();
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(sentence().contains("newer adda"), "{}", sentence());

    std::fs::remove_file(&path).unwrap();
    let rig = Rig::open(&Data::File(path.clone()));
    assert!(sentence().contains("in use by another adda"), "{}", sentence());
    rig.commit(vec![message("tea", "still here", None)]);
    rig.close();

    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(sentence().contains("damaged"), "{}", sentence());

    let nowhere = Data::File(directory.path().join("no/such/folder/adda.db"));
    let error = start(&nowhere, Durability::Full, Keep::default(), Arc::default()).err().unwrap().to_string();
    assert!(error.contains("failed to open") && error.contains("No such file"), "{error}");
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let (database, connection) = Database::open(&directory.path().join("adda.db"), Durability::Normal).unwrap();
    connection.pragma_update_and_check(None, "max_page_count", 40, |_| Ok(())).unwrap();
    let mut store = Store::new(connection);
    let batch = |count: usize| {
        let large = "x".repeat(4_000);
        (0..count).map(|_| message("tea", &large, Some("n")).without_nonce()).collect::<Vec<_>>()
    };
    assert_eq!(words(&store.commit(vec![message("tea", "sent before", Some("n"))])), ["tea 1"]);
    let mut stored = 1;
    let refused = loop {
        let answer = store.commit(batch(4));
        match &answer[0] {
            Appended::Message { .. } => stored += answer.len(),
            _ => break answer,
        }
    };
    assert!(stored > 0);
    assert_eq!(words(&refused), ["Busy"; 4]);
    let large = "x".repeat(4_000);
    let retry = || vec![message("tea", "sent before", Some("n")), message("tea", &large, Some("new"))];
    assert_eq!(words(&store.commit(retry().into_iter().chain(batch(4)).collect()))[..2], ["duplicate 1", "Busy"]);
    let Appended::Refused { rejected, .. } = &refused[0] else { panic!() };
    assert!(rejected.sentence.contains("disk is full") && rejected.retry_ms.is_some());
    store.connection.pragma_update_and_check(None, "max_page_count", 4_000, |_| Ok(())).unwrap();
    assert_eq!(words(&store.commit(batch(1))), [format!("tea {}", stored + 1)], "no place is left out");
    drop(database);
}

impl Append {
    fn without_nonce(mut self) -> Self {
        if let Self::Message(message) = &mut self {
            message.nonce = None;
        }
        self
    }
}

#[test]
fn what_is_long_over_is_forgotten_in_memory_too() {
    let forgets = || {
        let rig = Rig::open(&Data::Memory);
        let session = |token: &'static str, expires_ms: u64| {
            let (token_hash, kind) = (TokenHash::of(token), SessionKind::Guest);
            let expires_ms = Some(expires_ms);
            let new = NewSession { token_hash, user: author(1).id, kind, username: None, label: "", expires_ms };
            rig.0.registry.read(|connection| accounts::begin_session(connection, &new, &Timestamp::at(1))).unwrap();
        };
        session("long ago", 1);
        session("lately", Timestamp::now().unix_ms);
        // The second is taken when all that comes with the first is done.
        rig.commit(Vec::new());
        rig.commit(Vec::new());
        let is_known = |token: &str| {
            let was = |connection: &_| accounts::was_session_of(connection, TokenHash::of(token), author(1).id);
            rig.0.registry.read(was).unwrap()
        };
        let known = (is_known("long ago"), is_known("lately"));
        rig.close();
        known == (false, true)
    };
    // The first look may have come before there was anything, as it does after a second.
    assert!((0..5).any(|_| forgets()));
}
