//! The contract of the store: the same cases on a file and in memory, with the threads that a server has.

use std::time::Instant;

use super::testing::{
    Rig as Bench, by, change, contents, join, join_after, leave, logged_in, message as said, mute, new_account,
    new_session, proposals, room, set_room, signed_guest, stranger, user, word,
};
use super::*;
use crate::auth::guest_token::GuestToken;
use crate::limits::{BATCH_NUMBERS_SKIPPED, HISTORY_MAX};
use crate::model::FrameId;
use crate::model::role::{Accounts, Role};
use crate::protocol::{Body, RoomPatch};
use crate::threads::Sleeper;
use accounts::{SessionId, SessionKind};
use change::Change;
use entry::{By, Entry, Past};
use sqlite::{Connection, people};
use terms::Terms;

fn message(room: &str, content: &str, nonce: Option<&str>) -> Entry {
    let message = said(room, &stranger(1), content);
    Entry::Message(match nonce {
        Some(nonce) => message.with_nonce(nonce),
        None => message,
    })
}

fn reply(room: &str, nonce: &str, to: FrameId) -> Entry {
    let body = Body::Text { content: "so it is".into(), reply_to: Some(to) };
    Entry::Message(said(room, &stranger(1), "").with_nonce(nonce).with_body(body))
}

fn words(applied: &[Applied]) -> Vec<String> {
    applied.iter().map(|applied| word(&applied.result)).collect()
}

fn stored(applied: &[Applied]) -> Stored {
    match &applied.last().unwrap().result {
        Outcome::Stored { stored, .. } => stored.clone(),
        other => panic!("{other:?}"),
    }
}

/// An entry by which the author of a stored message deletes it.
fn delete(applied: &Applied) -> Entry {
    let Outcome::Stored { stored, .. } = &applied.result else { panic!("{applied:?}") };
    Entry::Message(said("tea", &stranger(1), "").with_body(Body::Delete { message_id: stored.id }))
}

/// The room's past, from the last result, which is of a join.
fn past(applied: &[Applied]) -> Past {
    match applied.last().map(|applied| &applied.result) {
        Some(Outcome::Joined { past: Some(past), .. }) => past.clone(),
        other => panic!("{other:?}"),
    }
}

struct Rig(Started);

impl Rig {
    fn open(data: &Data) -> Self {
        Self(
            start(data, Durability::Normal, Keep::default(), Policy::default(), &Sleeper::default(), Arc::default())
                .unwrap(),
        )
    }

    fn commit(&self, entries: Vec<Entry>) -> Vec<Applied> {
        self.0.writer.proposals.send(proposals(entries)).unwrap();
        self.0.writer.applied.recv().unwrap()
    }

    fn page(&self, side: Side, limit: usize, words: Option<&str>) -> Vec<String> {
        contents(&testing::page(&self.0.reader, &room("tea"), side, Kinds::Messages, limit, words))
    }

    fn close(self) {
        drop((self.0.writer, self.0.reader));
        for thread in self.0.threads {
            thread.join().unwrap();
        }
    }
}

/// Runs a test on memory and on a file.
fn everywhere(test: impl Fn(&Data)) {
    test(&Data::Memory);
    let directory = tempfile::tempdir().unwrap();
    test(&Data::File(directory.path().join("adda.db")));
}

#[test]
fn each_room_has_its_own_seqs_and_order_is_kept() {
    everywhere(|data| {
        let rig = Rig::open(data);
        let batch = vec![
            message("tea", "1", None),
            message("jam", "1", None),
            join("tea", &stranger(2)),
            message("tea", "2", None),
            leave("tea", &stranger(2)),
        ];
        let answer = words(&rig.commit(batch));
        assert_eq!(answer, ["tea 1", "jam 1", "join 1 of 1, seen None", "tea 2", "leave"]);
        let rooms = rig.0.reader.view(|view| view.rooms(None, 10)).unwrap();
        let rooms: Vec<_> = rooms.iter().map(|room| (room.id.as_str(), room.head.0)).collect();
        assert_eq!(rooms, [("jam", 1), ("tea", 2)]);
        assert_eq!(rig.0.reader.view(|view| view.room(&room("none"))).unwrap(), None);
        rig.close();
    });
}

#[test]
fn the_frame_that_reaches_the_bytes_of_a_page_is_its_last() {
    everywhere(|data| {
        let rig = Rig::open(data);
        rig.commit((0..9).map(|number| message("tea", &format!("{number}{}", "x".repeat(1_000)), None)).collect());
        let page = |side, frames, bytes| {
            let limit = PageLimit { frames, bytes };
            let page = rig.0.reader.view(|view| view.page(&room("tea"), side, Kinds::Messages, limit)).unwrap();
            page.iter().map(|stored| stored.seq.0).collect::<Vec<_>>()
        };
        assert_eq!(page(Side::After(Seq(2)), 500, 1), [3]);
        assert_eq!(page(Side::After(Seq(2)), 500, 3_000), [3, 4, 5]);
        assert_eq!(page(Side::After(Seq(2)), 2, 3_000), [3, 4]);
        assert_eq!(page(Side::Before(Seq(8)), 500, 3_000), [5, 6, 7]);
        assert_eq!(page(Side::After(Seq(7)), 500, 3_000), [8, 9]);
        rig.close();
    });
}

#[test]
fn a_nonce_names_one_message_forever() {
    everywhere(|data| {
        let rig = Rig::open(data);
        let first = rig.commit(vec![message("tea", "a", Some("n")), message("tea", "a", Some("n"))]);
        assert_eq!(words(&first), ["tea 1", "duplicate 1"]);
        let (Outcome::Stored { stored, .. }, Outcome::Duplicate(again)) = (&first[0].result, &first[1].result) else {
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
        assert_eq!(words(&rig.commit(later.into())), ["nonce_used", "nonce_used", "tea 2", "tea 3"]);
        rig.close();
    });
}

#[test]
fn a_retry_is_recognised_after_the_answered_message_is_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("adda.db");
    let rig = Rig::open(&Data::File(path.clone()));
    let first = stored(&rig.commit(vec![message("tea", "one", None)])).id;
    assert_eq!(words(&rig.commit(vec![reply("tea", "n", first)])), ["tea 2"]);
    rig.close();
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch("DELETE FROM messages WHERE seq = 1").unwrap();
    drop(connection);
    let rig = Rig::open(&Data::File(path.clone()));
    let late = [reply("tea", "n", first), reply("tea", "m", first), reply("elsewhere", "k", first)];
    assert_eq!(words(&rig.commit(late.into())), ["duplicate 2", "no_such_reply", "no_such_reply"]);
    rig.close();
    let connection = Connection::open(&path).unwrap();
    let rooms: i64 = connection.query_row("SELECT count(*) FROM rooms", [], |row| row.get(0)).unwrap();
    assert_eq!(rooms, 1, "a refused message makes no room");
}

#[test]
fn a_file_keeps_its_contents_across_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let data = Data::File(directory.path().join("adda.db"));
    let rig = Rig::open(&data);
    let first = stored(&rig.commit(vec![message("tea", "one", Some("n"))]));
    let issued_ms = rig.0.reader.moment().clock_ms;
    let token = GuestToken { user: user(9), issued_ms };
    let token = rig.0.reader.policy().guest_key.sign(&token);
    let secret = Change::CreateToken {
        account: new_account(3, Role::User),
        session: new_session(77, SessionKind::Bot, Some("secret")),
    };
    let of_guest = Entry::Message(said("tea", &signed_guest(9, issued_ms), "two"));
    assert_eq!(words(&rig.commit(vec![of_guest, change(By::Operator, secret)])), ["tea 2", "changed"]);
    rig.close();

    let rig = Rig::open(&data);
    let session = |token: &str| rig.0.reader.view(|view| view.session(TokenHash::of(token))).unwrap();
    let bot = session("secret").unwrap();
    assert_eq!((bot.user, bot.kind, bot.key), (user(3), SessionKind::Bot, SessionId(77)));
    assert_eq!(session("guess"), None);
    let verified = rig.0.reader.policy().guest_key.verify(token.expose());
    assert_eq!(verified, Some(GuestToken { user: user(9), issued_ms }), "the key is the same");
    let guest = rig.0.reader.view(|view| view.stored_guest(user(9))).unwrap();
    assert!(matches!(guest, people::StoredGuest::Live(session) if session.kind == SessionKind::Guest));
    let batch =
        vec![message("tea", "one", Some("n")), join_after("tea", &stranger(2), first.id), message("tea", "3", None)];
    assert_eq!(words(&rig.commit(batch)), ["duplicate 1", "join 2 of 2, seen Some(1)", "tea 3"]);
    rig.close();
    let file = std::fs::read(directory.path().join("adda.db")).unwrap();
    assert!(!file.windows(6).any(|bytes| bytes == b"secret"), "the token is in the file");
}

#[test]
fn settings_and_restrictions_are_the_same_after_a_restart() {
    let mut rig = Bench::in_file();
    let admin = rig.account(1, Role::Admin);
    rig.account(2, Role::User);
    let (guest, muted, banned) = (stranger(3), signed_guest(4, 1), logged_in(2));
    let until_ms = rig.moment.wall_ms + 60_000;
    let private = RoomPatch { is_private: Some(true), topic: Some("tea".into()), ..RoomPatch::default() };
    let slow = RoomPatch { slow_mode_s: Some(30), ..RoomPatch::default() };
    for made in
        [set_room("cellar", private), set_room("tea", slow), mute(&muted, until_ms), super::testing::ban(&banned)]
    {
        rig.change(by(&admin), made).unwrap();
    }
    let flags = Policy { accounts: Accounts::Optional, registration: crate::model::role::Registration::Invite };
    rig.store.set_policy(flags).unwrap();
    assert_eq!(rig.send(said("tea", &guest, "one")), "tea 1");

    let facts = |rig: &Bench| {
        let policy = rig.store.policy();
        let clock_ms = rig.moment.clock_ms;
        assert_eq!(policy.guest_key.as_bytes(), rig.reader.policy().guest_key.as_bytes());
        (
            policy.flags,
            policy.room(&room("cellar")).cloned(),
            policy.room(&room("tea")).cloned(),
            policy.is_member(&room("cellar"), user(1)),
            policy.muted_until(user(4), clock_ms),
            policy.is_banned(accounts::Banned::User(user(2)), clock_ms),
            [1, 2, 3].map(|number| policy.account_role(user(number))),
            *policy.guest_key.as_bytes(),
        )
    };
    let before = facts(&rig);
    assert_eq!(before.4, Some(rig.moment.clock_ms + 60_000), "a mute is stored in log time");
    let mut rig = rig.restarted();
    assert_eq!(facts(&rig), before);
    let entries = [
        Entry::Message(said("tea", &banned, "hi")),
        Entry::Message(said("jam", &muted, "hi")),
        Entry::Message(said("tea", &guest, "two")),
        join("cellar", &guest),
        join("cellar", &admin),
    ];
    let expected = ["banned", "muted", "slow_mode", "no join: no_such_room", "join 0 of 0, seen None"];
    assert_eq!(rig.words(entries), expected);
    rig.pass(60_000);
    assert_eq!(rig.send(said("jam", &muted, "hi")), "jam 1");
    assert_eq!(rig.send(said("tea", &guest, "two")), "tea 2");
}

#[test]
fn the_position_of_the_log_is_stored_with_its_batch() {
    let mut rig = Bench::in_file();
    let position = |rig: &Bench| rig.store.on_connection(|connection| sqlite::position(connection).unwrap());
    assert_eq!(position(&rig), None);
    let one = |entry| proposals([entry]);
    assert_eq!(words(&rig.store.commit(one(message("tea", "one", None)))), ["tea 1"]);
    let first = position(&rig).unwrap();
    assert_eq!(words(&rig.store.commit(one(message("tea", "two", None)))), ["tea 2"]);
    assert_eq!(position(&rig), Some(first), "the message tells the time");
    let begun = Instant::now();
    let mut commits = 2;
    while position(&rig) == Some(first) {
        assert!(begun.elapsed() < Duration::from_secs(20), "the position is never stored again");
        thread::sleep(Duration::from_millis(20));
        rig.store.commit(one(message("tea", "later", None)));
        commits += 1;
    }
    let later = position(&rig).unwrap();
    assert_eq!(later.index, first.index + commits - 1);
    // Both clocks are cut to milliseconds, and the wall clock may reach the second first.
    assert!(later.clock_ms + 2 >= first.clock_ms + 1_000, "{later:?} {first:?}");
    assert_eq!(
        words(&rig.store.commit(one(change(By::Operator, Change::CreateAccount(new_account(1, Role::User)))))),
        ["changed"]
    );
    let changed = position(&rig).unwrap();
    assert_eq!(changed.index, later.index + 1, "no message tells the time of a change");
    let gone = change(By::Server, Change::Forget { room: room("tea"), up_to: Seq(commits + 1) });
    let batch = proposals([message("tea", "gone", None), gone]);
    assert_eq!(words(&rig.store.commit(batch)), [format!("tea {}", commits + 1), "changed".into()]);
    let second = position(&rig).unwrap();
    assert_eq!(second.index, changed.index + 1, "the message that told the time is gone");
    rig.store.commit(one(join("tea", &stranger(2))));
    assert_eq!(position(&rig), Some(second), "presence writes nothing");
    let refuse = "CREATE TEMP TRIGGER refuse BEFORE INSERT ON messages BEGIN SELECT RAISE(ABORT, 'no'); END";
    rig.store.on_connection(|connection| connection.execute_batch(refuse).unwrap());
    assert_eq!(words(&rig.store.commit(one(message("tea", "three", None)))), ["not_stored"]);
    assert_eq!(position(&rig), Some(second), "a batch that is rolled back leaves no position");
    let rig = rig.restarted();
    let moment = rig.reader.moment();
    assert!(moment.clock_ms >= second.clock_ms, "log time goes on");
}

#[test]
fn the_policy_is_published_before_the_result_is_sent() {
    everywhere(|data| {
        let rig = Rig::open(data);
        rig.commit(vec![change(By::Operator, Change::CreateAccount(new_account(1, Role::Admin)))]);
        for slow_mode_s in 1..50 {
            let patch = RoomPatch { slow_mode_s: Some(slow_mode_s), ..RoomPatch::default() };
            let applied = rig.commit(vec![change(by(&logged_in(1)), set_room("tea", patch))]);
            let published = rig.0.reader.policy();
            assert_eq!(words(&applied), ["changed"]);
            assert_eq!(published.room(&room("tea")).map(|settings| settings.slow_mode_s), Some(slow_mode_s));
        }
        rig.close();
    });
}

#[test]
fn unchanged_flags_are_not_stored_again() {
    let directory = tempfile::tempdir().unwrap();
    let data = Data::File(directory.path().join("adda.db"));
    let flags = Policy { accounts: Accounts::Required, ..Policy::default() };
    let started =
        || start(&data, Durability::Normal, Keep::default(), flags, &Sleeper::default(), Arc::default()).unwrap();
    let rig = Rig(started());
    assert_eq!(rig.0.reader.policy().flags, flags, "before the first batch");
    assert_eq!(words(&rig.commit(vec![message("tea", "one", None)])), ["login_required"]);
    rig.close();
    let position = || sqlite::position(&Connection::open(directory.path().join("adda.db")).unwrap()).unwrap();
    let index = || position().unwrap().index;
    let before = index();
    let rig = Rig(started());
    assert_eq!(rig.0.reader.policy().flags, flags);
    rig.close();
    assert_eq!(index(), before + BATCH_NUMBERS_SKIPPED, "the same flags are no entry");
}

#[test]
fn log_time_without_a_batch_is_kept_across_a_stop() {
    let directory = tempfile::tempdir().unwrap();
    let data = Data::File(directory.path().join("adda.db"));
    let rig = Rig::open(&data);
    rig.commit(vec![message("tea", "one", None)]);
    let clock_ms = || rig.0.reader.moment().clock_ms;
    let begun_ms = clock_ms();
    while clock_ms() < begun_ms + 50 {
        thread::sleep(Duration::from_millis(5));
    }
    let before_ms = clock_ms();
    rig.close();
    let rig = Rig::open(&data);
    let connection = Connection::open(directory.path().join("adda.db")).unwrap();
    assert!(sqlite::position(&connection).unwrap().unwrap().clock_ms >= before_ms);
    rig.close();
}

#[test]
fn the_operator_changes_a_database_that_no_server_has_open() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("adda.db");
    let account = || Change::CreateAccount(new_account(1, Role::Admin));
    let expected = change::Done::Account { sessions_ended: 0, has_admin: true };
    assert_eq!(propose_alone(&path, account()).unwrap(), Ok(expected));
    let rejection = propose_alone(&path, account()).unwrap().unwrap_err();
    assert_eq!(rejection.reason.word(), "name_taken");
    let rig = Rig::open(&Data::File(path.clone()));
    assert_eq!(rig.0.reader.policy().account_role(user(1)), Some(Role::Admin));
    assert!(matches!(propose_alone(&path, account()), Err(StartError::Open(OpenError::InUse(_)))));
    rig.close();
}

#[test]
fn history_is_paged_both_ways_and_searched() {
    everywhere(|data| {
        let rig = Rig::open(data);
        let texts = ["Hot tea", "বৃষ্টি নামলে চা", "Café crème", "tea again", "\u{09AF}\u{09BC} চায়ের কাপ"];
        rig.commit(texts.iter().map(|text| message("tea", text, None)).collect());
        rig.commit(vec![message("jam", "tea elsewhere", None)]);
        assert_eq!(rig.page(Side::Before(Seq(u64::MAX)), 2, None), texts[3..]);
        assert_eq!(rig.page(Side::Before(Seq(3)), 9, None), texts[..2]);
        assert_eq!(rig.page(Side::After(Seq(3)), 1, None), [texts[3]]);
        let found = |words| rig.page(Side::Before(Seq(u64::MAX)), 9, Some(words));
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
fn a_search_that_ends_at_its_deadline_goes_on_from_there() {
    everywhere(|data| {
        let rig = Rig::open(data);
        for begin in (0..1_000).step_by(100) {
            rig.commit((begin..begin + 100).map(|number| message("tea", &format!("number {number}"), None)).collect());
        }
        // In memory, 200 messages are kept.
        let oldest = if *data == Data::Memory { 800 } else { 0 };
        let terms = Terms::parse(&format!("number {oldest}")).unwrap();
        for mut side in [Side::Before(Seq(u64::MAX)), Side::After(Seq(0))] {
            let (mut found, mut steps) = (Vec::new(), 0);
            loop {
                steps += 1;
                let over = Instant::now();
                let step =
                    rig.0.reader.search(&room("tea"), &terms, 9, over, |_| Ok::<_, ReadError>(side.into())).unwrap();
                found.extend(contents(&step.frames));
                let Some(id) = step.stopped_at else { break };
                let seq = rig.0.reader.view(|view| view.seq_of(&room("tea"), id)).unwrap().unwrap();
                assert_ne!(side, side.from(seq), "it goes on");
                side = side.from(seq);
            }
            assert_eq!(found, [format!("number {oldest}")]);
            assert!(steps > 1, "the deadline was over from the beginning");
        }
        rig.close();
    });
}

#[test]
fn events_are_not_messages() {
    everywhere(|data| {
        let rig = Rig::open(data);
        let said =
            rig.commit(vec![message("tea", "one", None), message("tea", "two", None), message("tea", "three", None)]);
        let deleted = rig.commit(said[..2].iter().map(delete).collect());
        assert_eq!(words(&deleted), ["tea 4", "tea 5"]);
        let page = |side, kinds, limit| {
            let page = rig.0.reader.view(|view| view.page(&room("tea"), side, kinds, limit)).unwrap();
            page.iter().map(|stored| (stored.seq.0, stored.is_event)).collect::<Vec<_>>()
        };
        let latest = Side::Before(Seq(u64::MAX));
        assert_eq!(page(latest, Kinds::Messages, 2), [(2, false), (3, false)]);
        assert_eq!(page(latest, Kinds::All, 2), [(4, true), (5, true)]);
        assert_eq!(page(Side::After(Seq(2)), Kinds::All, 9), [(3, false), (4, true), (5, true)]);
        assert_eq!(page(Side::After(Seq(2)), Kinds::Messages, 9), [(3, false)]);
        let past = past(&rig.commit(vec![join("tea", &stranger(2))]));
        let seqs: Vec<_> = past.frames.iter().map(|stored| stored.seq.0).collect();
        assert_eq!((past.head, seqs, past.is_whole), (Seq(5), vec![1, 2, 3, 4, 5], true));
        rig.close();
    });
}

#[test]
fn the_past_of_a_room_counts_its_messages() {
    everywhere(|data| {
        let rig = Rig::open(data);
        let said = rig.commit((0..HISTORY_MAX + 2).map(|_| message("tea", "x", None)).collect());
        rig.commit(said.iter().rev().take(10).map(delete).collect());
        let past = past(&rig.commit(vec![join("tea", &stranger(2))]));
        let messages = past.frames.iter().filter(|stored| !stored.is_event).count();
        assert_eq!((messages, past.frames.len(), past.frames[0].seq), (HISTORY_MAX, HISTORY_MAX + 10, Seq(3)));
        rig.close();
    });
}

#[test]
fn old_messages_are_found_too() {
    let directory = tempfile::tempdir().unwrap();
    let rig = Rig::open(&Data::File(directory.path().join("adda.db")));
    let send = |room: &str, text: &str| message(room, text, None);
    rig.commit(vec![send("tea", "rare 1"), send("jam", "rare, elsewhere"), send("tea", "Rarely 2")]);
    for _ in 0..5 {
        rig.commit((0..1_000).map(|_| send("tea", "noise")).collect());
    }
    rig.commit(vec![send("tea", "rare 3"), send("tea", "noise, rare 4")]);
    let found = |side, limit, words| rig.page(side, limit, Some(words));
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
fn a_foreign_file_is_left_unchanged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("adda.db");
    let sentence = || {
        let data = Data::File(path.clone());
        start(&data, Durability::Full, Keep::default(), Policy::default(), &Sleeper::default(), Arc::default())
            .err()
            .unwrap()
            .to_string()
    };

    std::fs::write(&path, b"this is a letter to my grandmother, and not a database of any kind at all").unwrap();
    assert!(sentence().contains("is not an adda database"), "{}", sentence());
    assert!(std::fs::read(&path).unwrap().starts_with(b"this is a letter"));

    std::fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE recipes (name TEXT)").unwrap();
    let before = std::fs::read(&path).unwrap();
    assert!(sentence().contains("is not an adda database"), "{}", sentence());
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
    let error =
        start(&nowhere, Durability::Full, Keep::default(), Policy::default(), &Sleeper::default(), Arc::default());
    let error = error.err().unwrap().to_string();
    assert!(error.contains("failed to open") && error.contains("No such file"), "{error}");
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let (database, connection) = Database::open(&directory.path().join("adda.db"), Durability::Normal).unwrap();
    let database = Arc::new(database);
    let (mut store, _reader) =
        Store::of_database(&database, connection, Durability::Normal, Keep::default(), Reading::now()).unwrap();
    store.fix_disk(40);
    let large = "x".repeat(4_000);
    let batch = |count: usize| (0..count).map(|_| message("tea", &large, None)).collect::<Vec<_>>();
    let first = store.commit(proposals([message("tea", "sent before", Some("n"))]));
    assert_eq!(words(&first), ["tea 1"]);
    let mut stored = 1;
    let refused = loop {
        let applied = store.commit(proposals(batch(4)));
        match &applied[0].result {
            Outcome::Stored { .. } => stored += applied.len(),
            _ => break applied,
        }
    };
    assert!(stored > 0);
    assert_eq!(words(&refused), ["disk_full"; 4]);
    let retry = [message("tea", "sent before", Some("n")), message("tea", &large, Some("new"))];
    let answer = words(&store.commit(proposals(retry.into_iter().chain(batch(4)))));
    assert_eq!(answer[..2], ["duplicate 1", "disk_full"]);
    let Outcome::Refused { rejection, .. } = &refused[0].result else { panic!() };
    assert!(rejection.sentence.contains("disk is full") && rejection.retry_ms.is_some());
    store.fix_disk(4_000);
    assert_eq!(words(&store.commit(proposals(batch(1)))), [format!("tea {}", stored + 1)], "no place is left out");
}

#[test]
fn sessions_that_are_long_over_are_forgotten_in_memory() {
    let mut rig = Bench::in_memory();
    let begin = |number, token: &str, expires_ms| {
        let new = new_session(number, SessionKind::Guest, Some(token));
        let begun = |connection: &Connection| {
            people::begin_session(connection, user(1), &new, Some(expires_ms), 1).unwrap();
        };
        rig.store.on_connection(begun);
    };
    begin(1, "long ago", 1);
    begin(2, "lately", rig.moment.clock_ms);
    let deadline = Instant::now() + Duration::from_secs(20);
    let is_known =
        |rig: &Bench, token: &str| rig.reader.view(|view| view.was_session_of(TokenHash::of(token), user(1))).unwrap();
    // The store checks once a second.
    while is_known(&rig, "long ago") {
        assert!(Instant::now() < deadline, "it is still known");
        thread::sleep(Duration::from_millis(20));
        rig.store.keep_bounds(true);
    }
    assert!(is_known(&rig, "lately"));
}

#[test]
fn an_announcement_is_stored_in_all_rooms_or_in_none() {
    everywhere(|data| {
        let rig = Rig::open(data);
        rig.commit(vec![change(By::Operator, Change::CreateAccount(new_account(1, Role::Admin)))]);
        let announce = |number, content: &str| {
            let author = if number == 1 { logged_in(1) } else { stranger(number) };
            let body = Body::Announcement { content: content.into() };
            let message = said("tea", &author, "").with_body(body).with_nonce("n");
            Entry::Announcement { rooms: ["tea", "jam"].map(room).into(), message }
        };
        assert_eq!(words(&rig.commit(vec![announce(1, "hi")])), ["tea 1", "jam 1"]);
        assert_eq!(words(&rig.commit(vec![announce(1, "hi")])), ["duplicate 1"]);
        assert_eq!(words(&rig.commit(vec![announce(1, "another")])), ["nonce_used"]);
        assert_eq!(words(&rig.commit(vec![announce(2, "hi")])), ["not_admin"]);
        assert_eq!(rig.page(Side::After(Seq(0)), 9, None), ["hi"]);
        rig.close();
    });
}
