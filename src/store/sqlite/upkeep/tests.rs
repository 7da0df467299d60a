//! What upkeep forgets and keeps, on a database file without threads.

use std::path::Path;

use super::super::super::change::NewSession;
use super::super::super::entry::{By, Entry, Principal};
use super::super::super::ledger::{Ledger, Storage};
use super::super::super::log::clock::{Moment, Stored as Position};
use super::super::super::testing::{change, join, leave, message, proposals, room, stranger, user};
use super::super::SqliteStorage;
use super::super::people::{SessionId, SessionKind};
use super::*;
use crate::auth::credential::GUEST_SPAN_MS;
use crate::limits::{AUDIT_ENTRIES_MAX, AUDIT_REGISTRATIONS_KEPT, WAL_BYTES_MAX};
use crate::model::Seq;
use crate::store::TokenHash;

/// A log time with enough time before it.
const NOW_MS: u64 = 1_780_272_000_000;
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// A database with its writer, its ledger and a clock that the test sets.
struct Rig {
    database: Arc<Database>,
    storage: SqliteStorage,
    ledger: Ledger,
    moment: Moment,
    written: u64,
}

fn at(clock_ms: u64) -> Moment {
    Moment { clock_ms, wall_ms: clock_ms, index: 1, ahead_ms: 0 }
}

impl Rig {
    fn open(path: &Path) -> Self {
        let (database, connection) = Database::open(path, Durability::Full).unwrap();
        let ledger = Ledger::new(people::policy(&connection, NOW_MS).unwrap());
        let moment = at(NOW_MS);
        Self { database: Arc::new(database), storage: SqliteStorage::new(connection), ledger, moment, written: 0 }
    }

    fn upkeep(&self, keep: Keep) -> Upkeep {
        Upkeep::new(keep, &self.database, Durability::Full)
    }

    fn commit(&mut self, entries: Vec<Entry>, clock_ms: u64) {
        self.moment.index += 1;
        let moment = Moment { clock_ms, ..self.moment };
        self.storage.begin().unwrap();
        self.ledger.begin();
        self.ledger.apply(&mut self.storage, &proposals(entries), &moment).unwrap();
        self.storage.commit(Position { clock_ms, wall_ms: 1, index: moment.index }).unwrap();
    }

    /// Writes a batch of messages at a log time.
    fn write(&mut self, texts: &[String], clock_ms: u64) {
        let said = |text: &String| {
            let author = stranger(u128::from(self.written % 50));
            self.written += 1;
            Entry::Message(message("tea", &author, text).with_nonce(&format!("{}", self.written)))
        };
        let entries = texts.iter().map(said).collect();
        self.commit(entries, clock_ms);
    }

    fn number(&self, sql: &str) -> u64 {
        let number: i64 = self.storage.connection.query_row(sql, [], |row| row.get(0)).unwrap();
        u64::try_from(number).unwrap()
    }

    fn finish(&mut self, upkeep: &mut Upkeep) {
        upkeep.is_behind = true;
        let mut slices = 0;
        while upkeep.is_behind {
            upkeep.between_batches(self).unwrap();
            slices += 1;
            assert!(slices < 10_000, "upkeep comes to no end");
        }
    }

    fn assert_sound(&self) {
        let said: String = self.storage.connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(said, "ok");
    }
}

impl Upkept for Rig {
    fn connection(&self) -> &Connection {
        &self.storage.connection
    }

    fn has_connections(&self, room: &RoomId) -> bool {
        self.ledger.connections(room) > 0
    }

    fn clock_ms(&mut self) -> u64 {
        self.moment.clock_ms
    }

    fn apply(&mut self, changes: Vec<Change>) -> Result<(), Fault> {
        let clock_ms = self.moment.clock_ms;
        self.commit(changes.into_iter().map(|made| change(By::Server, made)).collect(), clock_ms);
        Ok(())
    }
}

fn everywhere(test: impl Fn(Rig)) {
    let directory = tempfile::tempdir().unwrap();
    test(Rig::open(&directory.path().join("adda.db")));
}

/// Texts of about a kilobyte whose words differ, as in real messages.
fn texts(from: u64, count: u64) -> Vec<String> {
    let text = |n: u64| {
        let word = |k: u64| format!("w{:x} ", n.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(k as u32) >> 44);
        (0..120).map(word).collect()
    };
    (from..from + count).map(text).collect()
}

#[test]
fn expired_messages_are_deleted_with_their_words_and_space() {
    everywhere(|mut rig| {
        assert_eq!(rig.number("PRAGMA auto_vacuum"), 2, "space can go back in slices");
        rig.write(&["an old \u{09DF} word".to_owned()], NOW_MS - 5 * HOUR_MS);
        rig.write(&texts(0, 3_000), NOW_MS - 3 * HOUR_MS);
        rig.write(&["a new word".to_owned()], NOW_MS);
        let pages = rig.number("PRAGMA page_count");
        let retention = Some(Duration::from_secs(2 * 3600));
        let mut upkeep = rig.upkeep(Keep { retention, bytes_max: None });
        rig.finish(&mut upkeep);
        assert_eq!(rig.number("SELECT count(*) FROM messages"), 1);
        assert_eq!(rig.number("SELECT head FROM rooms"), 3_002, "places are never given twice");
        assert_eq!(rig.number("SELECT floor FROM rooms"), 3_001);
        let found = |query: &str| rig.number(&format!("SELECT count(*) FROM words WHERE words MATCH '{query}'"));
        assert_eq!((found("old"), found("\u{09AF}\u{09BC}"), found("w*")), (0, 0, 1));
        assert_eq!((found("new"), found("word")), (1, 1));
        assert!(rig.number("PRAGMA page_count") < pages / 2, "of {pages}");
        rig.assert_sound();
    });
}

#[test]
fn the_word_index_waits_under_load_and_follows_afterwards() {
    everywhere(|mut rig| {
        rig.write(&texts(0, 500), NOW_MS);
        let mut upkeep = rig.upkeep(Keep::default());
        upkeep.ended -= CHECK_INTERVAL;
        upkeep.behind_batch(&mut rig).unwrap();
        let backlog = |rig: &Rig| search::backlog(&rig.storage.connection).unwrap();
        assert_eq!(backlog(&rig), 500);
        rig.finish(&mut upkeep);
        assert_eq!(backlog(&rig), 0);
        assert_eq!(search::wrong_counts(&rig.storage.connection, 9).unwrap(), []);
        assert_eq!(upkeep.wait(), CHECK_INTERVAL, "there is nothing left to do");
        rig.assert_sound();
    });
}

#[test]
fn without_bounds_nothing_is_deleted() {
    everywhere(|mut rig| {
        rig.write(&texts(0, 100), 1);
        let mut upkeep = rig.upkeep(Keep::default());
        rig.finish(&mut upkeep);
        assert_eq!(rig.number("SELECT count(*) FROM messages"), 100);
    });
}

#[test]
fn the_size_bound_holds_while_writing_continues() {
    everywhere(|mut rig| {
        let most = 8 << 20;
        let mut upkeep = rig.upkeep(Keep { retention: None, bytes_max: Some(most) });
        let mut least_kept = u64::MAX;
        for batch in 0..400 {
            rig.write(&texts(batch * 50, 50), NOW_MS);
            // As if the batch had taken its time.
            upkeep.ended -= CHECK_INTERVAL;
            upkeep.behind_batch(&mut rig).unwrap();
            let size = rig.number("PRAGMA page_count") * 4_096;
            assert!(size < most * 11 / 10, "{size} after batch {batch}");
            let kept = rig.number("SELECT count(*) FROM messages");
            if batch >= 200 {
                least_kept = least_kept.min(kept);
            }
        }
        assert!(least_kept > 300, "no more goes than must: {least_kept} were left");
        rig.assert_sound();
    });
}

#[test]
fn a_flood_in_one_room_leaves_the_history_of_the_others() {
    everywhere(|mut rig| {
        let quiet = ["garden", "kitchen", "general"];
        for name in quiet {
            let said = |number: u64| Entry::Message(message(name, &stranger(number.into()), "hello there"));
            rig.commit((0..100).map(said).collect(), NOW_MS - HOUR_MS);
        }
        // A bound of the smallest size that the sizes of the rooms are read for.
        let most = 8 << 20;
        let mut upkeep = rig.upkeep(Keep { retention: None, bytes_max: Some(most) });
        for batch in 0..300 {
            rig.write(&texts(batch * 50, 50), NOW_MS);
            upkeep.ended -= CHECK_INTERVAL;
            upkeep.behind_batch(&mut rig).unwrap();
        }
        rig.finish(&mut upkeep);
        let size = rig.number("PRAGMA page_count") * 4_096;
        assert!(size < most * 11 / 10, "{size}");
        for name in quiet {
            let kept = messages::room(&rig.storage.connection, &room(name)).unwrap().unwrap();
            assert_eq!((kept.head, kept.floor), (Seq(100), Seq(0)), "{name}");
        }
        assert!(rig.number("SELECT floor FROM rooms WHERE id = 'tea'") > 5_000);
        rig.assert_sound();
    });
}

/// Writes a flood of one author into the room `tea`, three times as long as the bound, with upkeep behind each batch.
fn flood(rig: &mut Rig, upkeep: &mut Upkeep, bytes_max: u64) {
    let author = stranger(1_000);
    for batch in 0..bytes_max / 8_192 * 3 / 10 {
        // Long texts: without its text, a message still takes space.
        let said = |texts: &[String]| Entry::Message(message("tea", &author, &texts.concat()));
        rig.commit(texts(batch * 80, 80).chunks(8).map(said).collect(), NOW_MS);
        upkeep.ended -= CHECK_INTERVAL;
        upkeep.behind_batch(rig).unwrap();
    }
    rig.finish(upkeep);
    let size = rig.number("PRAGMA page_count") * 4_096;
    assert!(size < bytes_max * 11 / 10, "{size}");
    assert_eq!(search::wrong_counts(&rig.storage.connection, 9).unwrap(), []);
    rig.assert_sound();
}

#[test]
fn a_flood_of_one_author_leaves_the_texts_of_the_others_in_its_room() {
    everywhere(|mut rig| {
        let bytes_max = 8 << 20;
        let quiet: Vec<_> = (0..100).map(|number| message("tea", &stranger(number), "hello there")).collect();
        rig.commit(quiet.into_iter().map(Entry::Message).collect(), NOW_MS);
        let mut upkeep = rig.upkeep(Keep { retention: None, bytes_max: Some(bytes_max) });
        flood(&mut rig, &mut upkeep, bytes_max);
        let count = rig.number("SELECT head FROM rooms");
        assert_eq!(rig.number("SELECT count(*) FROM messages"), count, "each seq is there");
        assert_eq!(
            rig.number("SELECT count(*) FROM messages WHERE content = 'hello there' AND deleted_ms IS NULL"),
            100
        );
        let erased = rig.number("SELECT count(*) FROM messages WHERE content = '' AND deleted_ms IS NOT NULL");
        let newest =
            rig.number("SELECT count(*) FROM messages WHERE seq > (SELECT head FROM rooms) - 200 AND content <> ''");
        assert!(erased > 1_000, "{erased}");
        assert_eq!(newest, 200, "the oldest went");
    });
}

#[test]
fn a_flood_of_one_author_alone_in_its_room_leaves_no_empty_messages() {
    everywhere(|mut rig| {
        let bytes_max = 8 << 20;
        let mut upkeep = rig.upkeep(Keep { retention: None, bytes_max: Some(bytes_max) });
        flood(&mut rig, &mut upkeep, bytes_max);
        assert_eq!(rig.number("SELECT count(*) FROM messages WHERE content = ''"), 0);
        assert!(rig.number("SELECT floor FROM rooms") > 1_000);
        assert!(rig.number("SELECT count(*) FROM messages") > 300);
    });
}

#[test]
fn nothing_goes_before_the_sizes_of_the_rooms_are_known_unless_it_must() {
    everywhere(|mut rig| {
        rig.write(&texts(0, 300), NOW_MS);
        let mut sizes = RoomSizes::default();
        let mut excess = |is_urgent| sizes.excess(&rig.storage.connection, 10, u64::MAX, is_urgent).unwrap();
        assert!(excess(false).is_none());
        assert!(matches!(excess(true), Some(Excess::Prefix(prefix)) if prefix.count == 10 && prefix.up_to == Seq(10)));
    });
}

#[test]
fn guests_not_seen_for_long_are_forgotten() {
    everywhere(|mut rig| {
        rig.write(&["hello".to_owned()], NOW_MS);
        let guest = |rig: &Rig, number: u128, seen_ms: u64| {
            people::store_guest(&rig.storage.connection, user(number), NOW_MS - DAY_MS, None, &at(seen_ms)).unwrap();
        };
        guest(&rig, 0, 1); // has a message
        guest(&rig, 1_000, 1); // is used now
        guest(&rig, 1_001, NOW_MS);
        for number in 2_000..2_500 {
            guest(&rig, number, 1);
        }
        people::note_use(&rig.storage.connection, SessionId::of_guest(user(1_000)), NOW_MS).unwrap();
        let mut upkeep = rig.upkeep(Keep { retention: Some(Duration::from_secs(60)), bytes_max: None });
        rig.finish(&mut upkeep);
        assert_eq!(rig.number("SELECT count(*) FROM sessions"), 3);
    });
}

#[test]
fn a_guest_that_logged_out_is_kept_while_its_token_could_be_used() {
    everywhere(|mut rig| {
        let issued_ms = NOW_MS - 2 * GUEST_SPAN_MS;
        for (number, issued_ms) in [(1, issued_ms), (2, NOW_MS - DAY_MS)] {
            let connection = &rig.storage.connection;
            people::store_guest(connection, user(number), issued_ms, None, &at(issued_ms)).unwrap();
            people::end_session(connection, user(number), SessionId::of_guest(user(number)), issued_ms).unwrap();
        }
        // The size bound is passed, and as little as possible is kept.
        let mut upkeep = rig.upkeep(Keep { retention: Some(Duration::from_secs(60)), bytes_max: Some(1) });
        rig.finish(&mut upkeep);
        assert_eq!(rig.number("SELECT key FROM sessions"), 2);
    });
}

#[test]
fn expired_sessions_and_restrictions_are_forgotten_in_time() {
    everywhere(|mut rig| {
        let long_ago = NOW_MS - 91 * DAY_MS;
        let lately = NOW_MS - 89 * DAY_MS;
        let session = |rig: &Rig, number: i64, kind: &str, expires_ms: Option<u64>, ended_ms: Option<u64>| {
            let (connection, token_hash) = (&rig.storage.connection, Some(TokenHash::of(&number.to_string())));
            let kind: SessionKind = kind.parse().unwrap();
            let new = NewSession { id: SessionId(number), kind, token_hash, label: "".into(), span_ms: None };
            let owner = user(number.unsigned_abs().into());
            people::begin_session(connection, owner, &new, expires_ms, NOW_MS).unwrap();
            if let Some(ended_ms) = ended_ms {
                people::end_session(connection, owner, SessionId(number), ended_ms).unwrap();
            }
        };
        session(&rig, 1, "bot", None, None);
        session(&rig, 2, "login", Some(NOW_MS + 1_000_000), None);
        session(&rig, 3, "login", Some(lately), None);
        session(&rig, 4, "login", Some(NOW_MS + 1_000_000), Some(lately));
        for number in 10..600 {
            let (expires_ms, ended_ms) = if number % 2 == 0 { (Some(long_ago), None) } else { (None, Some(long_ago)) };
            session(&rig, number, ["login", "bot", "guest"][number as usize % 3], expires_ms, ended_ms);
        }
        rig.storage
            .connection
            .execute_batch(
                "INSERT INTO mutes VALUES (x'01', 1, x'00'), (x'02', 9e15, x'00');
                 INSERT INTO bans VALUES ('user', x'01', 1, '', x'00', 0), ('user', x'02', NULL, '', x'00', 0);
                 INSERT INTO invitations (code_hash, uses_left, expires_ms, created_by, created_ms)
                    VALUES (x'01', 1, 1, x'00', 0), (x'02', 0, 9e15, x'00', 0), (x'03', 1, 9e15, x'00', 0);",
            )
            .unwrap();
        let mut upkeep = rig.upkeep(Keep::default());
        rig.finish(&mut upkeep);
        let keys =
            rig.number("SELECT CAST(group_concat(key, '') AS INTEGER) FROM (SELECT key FROM sessions ORDER BY key)");
        assert_eq!(keys, 1234);
        for table in ["mutes", "bans", "invitations"] {
            assert_eq!(rig.number(&format!("SELECT count(*) FROM {table}")), 1, "{table}");
        }
        session(&rig, 700, "login", Some(long_ago), None);
        rig.finish(&mut upkeep);
        assert_eq!(rig.number("SELECT count(*) FROM sessions"), 5, "not before it is time again");
        for walked in [&mut upkeep.people.sessions.begun, &mut upkeep.people.checked_at] {
            *walked = walked.and_then(|at| at.checked_sub(PEOPLE_EVERY));
        }
        rig.storage.connection.execute("UPDATE mutes SET until_ms = 1", []).unwrap();
        rig.finish(&mut upkeep);
        assert_eq!(rig.number("SELECT count(*) FROM sessions"), 4);
        assert_eq!(rig.number("SELECT count(*) FROM mutes"), 0);
        let mut is_full = rig.upkeep(Keep { retention: None, bytes_max: Some(1) });
        rig.finish(&mut is_full);
        assert_eq!(
            rig.number("SELECT CAST(group_concat(key, '') AS INTEGER) FROM sessions"),
            12,
            "there is no room for more"
        );
    });
}

#[test]
fn a_room_is_deleted_with_its_last_message_unless_it_has_connections() {
    everywhere(|mut rig| {
        rig.write(&["an old word".to_owned()], 1);
        for name in ["jam", "milk"] {
            messages::insert_room(&rig.storage.connection, &room(name)).unwrap();
        }
        let guest: &Principal = &stranger(1);
        rig.commit(vec![join("jam", &stranger(1))], NOW_MS);
        let keep = Keep { retention: Some(Duration::from_secs(60)), bytes_max: None };
        // Each run begins with a sweep of all rooms.
        let finish = |rig: &mut Rig| {
            let mut upkeep = rig.upkeep(keep);
            rig.finish(&mut upkeep);
        };
        finish(&mut rig);
        assert_eq!(rig.number("SELECT count(*) FROM messages"), 0);
        finish(&mut rig);
        let row = |rig: &Rig, name| messages::room(&rig.storage.connection, &room(name)).unwrap();
        assert_eq!(row(&rig, "tea"), None);
        assert!(row(&rig, "jam").is_some(), "a connection is there");
        assert_eq!(rig.number("SELECT count(*) FROM rooms"), 1);
        rig.commit(vec![leave("jam", guest)], NOW_MS);
        finish(&mut rig);
        assert_eq!(row(&rig, "jam"), None);
        // A deleted room that is created again starts at seq 1. The row in the writer's cache is not used.
        rig.write(&["a new word".to_owned()], NOW_MS);
        assert_eq!(row(&rig, "tea").map(|row| (row.head, row.floor)), Some((Seq(1), Seq(0))));
    });
}

#[test]
fn rows_left_over_from_a_long_order_are_deleted() {
    everywhere(|mut rig| {
        let count = 3 * FORGOTTEN_AT_ONCE as u64;
        rig.write(&texts(0, count - 10), NOW_MS - 3 * HOUR_MS);
        rig.write(&texts(count, 10), NOW_MS);
        let forget = Change::Forget { room: room("tea"), up_to: Seq(count - 10) };
        rig.apply(vec![forget]).unwrap();
        assert_eq!(rig.number("SELECT count(*) FROM messages"), count - FORGOTTEN_AT_ONCE as u64);
        // No sweep of all rooms is due.
        let mut upkeep = rig.upkeep(Keep { retention: Some(Duration::from_secs(3_600)), bytes_max: None });
        upkeep.rooms.begun = Some(Instant::now());
        rig.finish(&mut upkeep);
        assert_eq!(rig.number("SELECT count(*) FROM messages"), 10);
        rig.assert_sound();
    });
}

#[test]
fn one_sweep_deletes_all_rows_of_a_long_room_that_was_forgotten() {
    everywhere(|mut rig| {
        let count = 3 * FORGOTTEN_AT_ONCE as u64 + 1;
        rig.write(&texts(0, count), NOW_MS);
        rig.apply(vec![Change::Forget { room: room("tea"), up_to: Seq(count) }]).unwrap();
        assert_eq!(rig.number("SELECT count(*) FROM messages"), count - FORGOTTEN_AT_ONCE as u64);
        let mut upkeep = rig.upkeep(Keep::default());
        rig.finish(&mut upkeep);
        assert_eq!(rig.number("SELECT count(*) FROM messages"), 0);
        rig.assert_sound();
    });
}

#[test]
fn the_messages_of_a_deleted_room_go_with_their_words() {
    everywhere(|mut rig| {
        let said = |number: u64| {
            let name = ["tea", "jam"][number as usize % 2];
            Entry::Message(message(name, &stranger(number.into()), &texts(number, 1)[0]))
        };
        let mut upkeep = rig.upkeep(Keep::default());
        // Several segments of the word index.
        for batch in 0..20 {
            rig.commit((batch * 50..batch * 50 + 50).map(said).collect(), NOW_MS);
            rig.finish(&mut upkeep);
        }
        rig.commit(vec![change(By::Operator, Change::DeleteRoom { room: room("tea") })], NOW_MS);
        let rows = rig.number("SELECT count(*) FROM messages");
        assert_eq!(rows, 1_000, "the deletion itself costs the other rooms no time");
        // Its name is used again.
        rig.commit(vec![Entry::Message(message("tea", &stranger(7), "a new word"))], NOW_MS);
        rig.finish(&mut upkeep);
        assert_eq!(rig.number("SELECT count(*) FROM messages"), 501);
        assert_eq!(rig.number("SELECT count(*) FROM marks WHERE name LIKE 'purge:%' OR name = 'whole_merge'"), 0);
        let found = |word: &str| rig.number(&format!("SELECT count(*) FROM words WHERE words MATCH '\"{word}\"'"));
        let word = |number: u64| texts(number, 1)[0].split(' ').next().unwrap().to_owned();
        assert_eq!((found(&word(0)), found(&word(1)), found("new")), (0, 1, 1));
        // Deleted words take no space: an index of the other messages alone is as large.
        let blocks = "SELECT sum(length(block)) FROM words_data";
        let bytes = rig.number(blocks);
        rig.storage.connection.execute_batch("INSERT INTO words (words) VALUES ('optimize')").unwrap();
        assert_eq!(rig.number(blocks), bytes);
        assert_eq!(search::wrong_counts(&rig.storage.connection, 9).unwrap(), []);
        rig.assert_sound();
    });
}

#[test]
fn commits_are_synced_again_after_a_slice() {
    let directory = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(&directory.path().join("adda.db"));
    let mut upkeep = rig.upkeep(Keep::default());
    rig.finish(&mut upkeep);
    assert_eq!(rig.number("PRAGMA synchronous"), 2);
}

#[test]
fn the_wal_stays_short_without_any_other_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("adda.db");
    let mut rig = Rig::open(&path);
    let mut upkeep = rig.upkeep(Keep::default());
    for batch in 0..200 {
        rig.write(&texts(batch * 300, 300), NOW_MS);
        upkeep.ended -= CHECK_INTERVAL_BUSY;
        upkeep.behind_batch(&mut rig).unwrap();
        let length = path.with_extension("db-wal").metadata().unwrap().len();
        assert!(length < WAL_BYTES_MAX * 5 / 4, "{length}");
    }
    assert!(path.metadata().unwrap().len() > WAL_BYTES_MAX, "much was written");
}

/// Adds entries of one user to the audit log, or of users that register.
fn add_audit_entries(rig: &Rig, count: usize, clock_ms: u64, action: &str, by: Option<u8>) {
    let sql = "INSERT INTO audit (clock_ms, wall_ms, action, detail, by_id)
        WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?1)
        SELECT ?2, 0, ?3, '', coalesce(?4, randomblob(16)) FROM numbers";
    let values = (count as i64, clock_ms.cast_signed(), action, by.map(|by| [by; 16]));
    rig.storage.connection.execute(sql, values).unwrap();
}

#[test]
fn the_audit_log_is_kept_within_its_bounds() {
    everywhere(|mut rig| {
        let old_ms = NOW_MS - AUDIT_KEPT.as_millis() as u64;
        add_audit_entries(&rig, 500, old_ms - 1, "ban", Some(1));
        add_audit_entries(&rig, 20_000, old_ms, "ban", Some(1));
        add_audit_entries(&rig, AUDIT_REGISTRATIONS_KEPT + 400, NOW_MS, "register", None);
        add_audit_entries(&rig, AUDIT_ENTRIES_MAX - AUDIT_REGISTRATIONS_KEPT - 20_000, NOW_MS, "ban", Some(2));
        let number = |rig: &Rig, what: &str, of: &str| rig.number(&format!("SELECT {what} FROM audit WHERE {of}"));
        let sources = ["action = 'register'", "by_id < x'02' AND action = 'ban'", "by_id > x'02' AND action = 'ban'"];
        let counts = |rig: &Rig| sources.map(|source| number(rig, "count(*)", source));
        rig.finish(&mut rig.upkeep(Keep::default()));
        assert_eq!(counts(&rig), [10_000, 20_000, 70_000]);
        assert_eq!(number(&rig, "min(key)", sources[0]), 20_901, "the oldest went");
        add_audit_entries(&rig, 300, NOW_MS, "ban", Some(1));
        rig.finish(&mut rig.upkeep(Keep::default()));
        assert_eq!(counts(&rig), [10_000, 20_300, 69_700]);
        assert_eq!(number(&rig, "min(key)", sources[2]), 31_201, "the oldest went");
    });
}
