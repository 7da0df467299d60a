//! What is kept of people, on a database in memory.

use std::net::IpAddr;

use super::*;
use crate::model::RoomId;
use crate::role::Posting;
use crate::store::TokenHash;

const BY: UserId = UserId(Uuid::from_u128(99));

fn at(ms: u64) -> Timestamp {
    Timestamp::at(ms)
}

fn id(number: u128) -> UserId {
    UserId(Uuid::from_u128(number))
}

fn account(number: u128, name: &str) -> Account {
    Account {
        id: id(number),
        name: Username::parse(name).unwrap(),
        role: Role::User,
        password: Some(PasswordHash::stored("$a hash")),
        created_ms: 5,
    }
}

fn room(name: &str) -> RoomId {
    RoomId::parse(name).unwrap()
}

/// A session of a user, whose token is `token`.
fn begin(connection: &Connection, user: UserId, kind: SessionKind, token: &str, expires_ms: Option<u64>) -> SessionKey {
    let new =
        NewSession { token_hash: TokenHash::of(token), user, kind, username: None, label: "a browser", expires_ms };
    begin_session(connection, &new, &at(10)).unwrap()
}

fn is_live(connection: &Connection, token: &str, now_ms: u64) -> bool {
    session(connection, TokenHash::of(token), &at(now_ms)).unwrap().is_some()
}

#[test]
fn an_account_is_found_by_id_and_however_its_name_is_written() {
    let db = in_memory().unwrap();
    let rahim = account(1, "রহিম");
    create(&db, &rahim).unwrap();
    create(&db, &Account { role: Role::Admin, password: None, ..account(2, "Ana") }).unwrap();
    assert_eq!(by_id(&db, id(1)).unwrap(), Some(rahim.clone()));
    assert_eq!(by_id(&db, id(3)).unwrap(), None);
    assert_eq!(by_name(&db, &Username::parse("রহিম").unwrap()).unwrap(), Some(rahim));
    assert_eq!(by_name(&db, &Username::parse("ANA").unwrap()).unwrap().unwrap().id, id(2));
    let names: Vec<_> =
        accounts(&db).unwrap().into_iter().map(|account| (account.name.to_string(), account.role)).collect();
    assert_eq!(names, [("Ana".to_owned(), Role::Admin), ("রহিম".to_owned(), Role::User)]);
}

#[test]
fn a_name_that_looks_like_anothers_is_taken() {
    let db = in_memory().unwrap();
    create(&db, &account(1, "admin")).unwrap();
    for (number, spoof) in (10..).zip(["admin", "Admin", "аdmin", "adm1n", "ａｄｍｉｎ", "a.d.m.i.n"]) {
        let taken = create(&db, &account(number, spoof));
        assert!(matches!(taken, Err(AccountError::Taken)), "{spoof}: {taken:?}");
        assert!(resembling(&db, &Looks::of(&Username::parse(spoof).unwrap())).unwrap().is_some());
    }
    assert!(matches!(create(&db, &account(1, "somebody")), Err(AccountError::Taken)), "an id");
    for of_nobody in ["Anonymous", "anonymous", "Аnonymous"] {
        assert!(matches!(create(&db, &account(4, of_nobody)), Err(AccountError::Taken)), "{of_nobody}");
    }
    create(&db, &account(2, "admiral")).unwrap();
    assert_eq!(accounts(&db).unwrap().len(), 2);
    remove(&db, id(1)).unwrap();
    create(&db, &account(3, "ADMIN")).unwrap();
}

#[test]
fn a_new_password_ends_the_other_sessions() {
    let db = in_memory().unwrap();
    create(&db, &account(1, "rahim")).unwrap();
    create(&db, &account(2, "karim")).unwrap();
    let here = begin(&db, id(1), SessionKind::Login, "here", None);
    let there = begin(&db, id(1), SessionKind::Login, "there", None);
    begin(&db, id(1), SessionKind::Bot, "bot", None);
    begin(&db, id(2), SessionKind::Login, "karim's", None);
    let new = PasswordHash::stored("$another");
    assert_eq!(set_password(&db, id(1), &new, Some(here), &at(20)).unwrap(), [there]);
    assert_eq!(by_id(&db, id(1)).unwrap().unwrap().password, Some(new.clone()));
    let live = ["here", "there", "bot", "karim's"].map(|token| is_live(&db, token, 30));
    assert_eq!(live, [true, false, true, true]);
    assert!(was_session_of(&db, TokenHash::of("there"), id(1)).unwrap(), "its device is no stranger");
    assert!(!was_session_of(&db, TokenHash::of("karim's"), id(1)).unwrap());
    assert_eq!(set_password(&db, id(1), &new, None, &at(40)).unwrap(), [here]);
    assert!(matches!(set_password(&db, id(7), &new, None, &at(40)), Err(AccountError::NotFound)));

    let newest = PasswordHash::stored("$dearer");
    assert!(!renew_hash(&db, id(1), &PasswordHash::stored("$a hash"), &newest).unwrap(), "changed meanwhile");
    assert!(renew_hash(&db, id(1), &new, &newest).unwrap());
    assert_eq!(by_id(&db, id(1)).unwrap().unwrap().password, Some(newest));
}

#[test]
fn a_session_lasts_until_it_expires_or_is_ended_by_its_owner() {
    let db = in_memory().unwrap();
    create(&db, &account(1, "rahim")).unwrap();
    let key = begin(&db, id(1), SessionKind::Login, "t", Some(100));
    let found = session(&db, TokenHash::of("t"), &at(50)).unwrap().unwrap();
    let expected = Session {
        key,
        user: id(1),
        role: Role::User,
        kind: SessionKind::Login,
        username: Some(Username::parse("rahim").unwrap()),
        label: "a browser".into(),
        created_ms: 10,
        seen_ms: 10,
        expires_ms: Some(100),
    };
    assert_eq!(found, expected);
    assert_eq!([99, 100].map(|now| is_live(&db, "t", now)), [true, false]);
    assert!(renew_session(&db, key, Some(300), &at(90)).unwrap());
    assert!(is_live(&db, "t", 299) && !is_live(&db, "guess", 299));
    assert!(!renew_session(&db, key, Some(900), &at(300)).unwrap(), "what is over stays over");
    assert!(matches!(end_session(&db, id(2), key, &at(95)), Err(AccountError::NotFound)), "not yours");
    end_session(&db, id(1), key, &at(95)).unwrap();
    assert!(!is_live(&db, "t", 96));
    assert!(matches!(end_session(&db, id(1), key, &at(97)), Err(AccountError::NotFound)));
    assert!(!renew_session(&db, key, None, &at(96)).unwrap());
}

#[test]
fn sessions_are_listed_and_the_old_ones_forgotten() {
    let db = in_memory().unwrap();
    create(&db, &account(1, "rahim")).unwrap();
    let first = begin(&db, id(1), SessionKind::Login, "1", None);
    let second = begin(&db, id(1), SessionKind::Login, "2", Some(1_000));
    begin(&db, id(1), SessionKind::Login, "3", Some(30));
    let ended = begin(&db, id(1), SessionKind::Login, "4", None);
    end_session(&db, id(1), ended, &at(40)).unwrap();
    renew_session(&db, first, None, &at(60)).unwrap();
    let keys: Vec<_> = sessions(&db, id(1), &at(50)).unwrap().iter().map(|session| session.key).collect();
    assert_eq!(keys, [first, second], "the latest used first");
    let all = 1..=i64::MAX;
    assert_eq!(forget_sessions(&db, all.clone(), 35).unwrap(), 1);
    assert_eq!(forget_sessions(&db, 1..=ended.0 - 1, 1_000).unwrap(), 0);
    assert_eq!(forget_sessions(&db, ended.0..=ended.0, 1_000).unwrap(), 1);
    assert_eq!(forget_sessions(&db, all, 1_000).unwrap(), 0);
    assert!(is_live(&db, "1", 999) && is_live(&db, "2", 999));
}

#[test]
fn a_guest_is_their_session_and_an_account_that_is_gone_is_nobody() {
    let db = in_memory().unwrap();
    let name = Username::parse("a guest").unwrap();
    let token_hash = TokenHash::of("g");
    let kind = SessionKind::Guest;
    let new = NewSession { token_hash, user: id(5), kind, username: Some(&name), label: "", expires_ms: None };
    begin_session(&db, &new, &at(1)).unwrap();
    let guest = session(&db, token_hash, &at(2)).unwrap().unwrap();
    assert_eq!((guest.role, guest.username), (Role::Guest, Some(name.clone())));
    assert!(begin_session(&db, &new, &at(1)).is_err(), "a token is one session's");

    create(&db, &account(1, "rahim")).unwrap();
    let login = begin(&db, id(1), SessionKind::Login, "t", None);
    let bot = begin(&db, id(1), SessionKind::Bot, "b", None);
    let over = begin(&db, id(1), SessionKind::Login, "o", None);
    end_session(&db, id(1), over, &at(11)).unwrap();
    set_role(&db, id(1), Role::Admin).unwrap();
    assert_eq!(session(&db, TokenHash::of("t"), &at(12)).unwrap().unwrap().role, Role::Admin, "at once");
    assert_eq!(remove(&db, id(1)).unwrap(), [login, bot]);
    assert!(!is_live(&db, "t", 12) && !is_live(&db, "b", 12));
    assert!(matches!(remove(&db, id(1)), Err(AccountError::NotFound)));
}

#[test]
fn an_invitation_lets_in_as_often_as_it_says() {
    let db = in_memory().unwrap();
    let code = TokenHash::of("code");
    let new = NewInvitation { code_hash: code, room: None, uses: 2, expires_ms: 100, created_by: BY };
    invite(&db, &new, &at(1)).unwrap();
    register(&db, code, &account(1, "rahim"), &at(2)).unwrap();
    assert!(matches!(register(&db, code, &account(2, "RAHIM"), &at(3)), Err(AccountError::Taken)));
    assert_eq!(invitations(&db, None, &at(3)).unwrap()[0].uses_left, 1, "a name that is taken uses nothing");
    assert!(matches!(register(&db, code, &account(3, "karim"), &at(100)), Err(AccountError::NotFound)), "expired");
    register(&db, code, &account(3, "karim"), &at(99)).unwrap();
    assert!(matches!(register(&db, code, &account(4, "fatema"), &at(99)), Err(AccountError::NotFound)), "used up");
    assert!(matches!(
        register(&db, TokenHash::of("guess"), &account(4, "fatema"), &at(9)),
        Err(AccountError::NotFound)
    ));
    assert_eq!((invitations(&db, None, &at(9)).unwrap().len(), accounts(&db).unwrap().len()), (0, 2));
}

#[test]
fn an_invitation_to_a_room_makes_a_member_of_it_alone() {
    let db = in_memory().unwrap();
    let (tea, jam) = (room("tea"), room("jam"));
    let code = TokenHash::of("code");
    let new = NewInvitation { code_hash: code, room: Some(&tea), uses: 2, expires_ms: 100, created_by: BY };
    let key = invite(&db, &new, &at(1)).unwrap();
    assert!(matches!(register(&db, code, &account(1, "rahim"), &at(2)), Err(AccountError::NotFound)));
    assert_eq!(accept_to_room(&db, code, id(1), &at(3)).unwrap(), Accepted::New(tea.clone()));
    assert_eq!(accept_to_room(&db, code, id(1), &at(4)).unwrap(), Accepted::Already(tea.clone()));
    let invitation = Invitation { key, room: Some(tea.clone()), uses_left: 1, expires_ms: 100, created_by: BY };
    assert_eq!(invitations(&db, Some(&tea), &at(5)).unwrap(), [invitation]);
    assert!(
        invitations(&db, Some(&jam), &at(5)).unwrap().is_empty() && invitations(&db, None, &at(5)).unwrap().is_empty()
    );
    assert!(is_member(&db, &tea, id(1)).unwrap() && !is_member(&db, &jam, id(1)).unwrap());
    assert!(matches!(uninvite(&db, key, Some(&jam)), Err(AccountError::NotFound)), "another room's");
    uninvite(&db, key, Some(&tea)).unwrap();
    assert!(matches!(accept_to_room(&db, code, id(2), &at(6)), Err(AccountError::NotFound)));
    assert_eq!(members(&db, &tea).unwrap(), [id(1)]);
    assert!(remove_member(&db, &tea, id(1)).unwrap() && !remove_member(&db, &tea, id(1)).unwrap());
}

#[test]
fn a_room_is_what_is_set_of_it() {
    let db = in_memory().unwrap();
    let tea = room("tea");
    assert_eq!(room_settings(&db, &tea).unwrap(), RoomSettings::default());
    let settings = RoomSettings {
        name: "চা".into(),
        topic: "of an evening".into(),
        posting: Posting::Admins,
        slow_mode_s: 30,
        is_private: true,
    };
    set_room(&db, &tea, &settings).unwrap();
    assert_eq!(room_settings(&db, &tea).unwrap(), settings);
    assert!(add_member(&db, &tea, id(1), &at(2)).unwrap() && add_member(&db, &tea, id(2), &at(1)).unwrap());
    set_room(&db, &tea, &RoomSettings { topic: "at noon".into(), ..settings.clone() }).unwrap();
    assert_eq!(members(&db, &tea).unwrap(), [id(2), id(1)], "members stay while it is private");
    set_room(&db, &tea, &RoomSettings { is_private: false, ..settings }).unwrap();
    assert!(members(&db, &tea).unwrap().is_empty());
    set_room(&db, &tea, &RoomSettings::default()).unwrap();
    let rows: i64 = db.query_row("SELECT count(*) FROM room_settings", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 0, "the default is no row");
}

#[test]
fn bans_and_mutes_hold_until_their_time() {
    let db = in_memory().unwrap();
    let addresses = ["10.0.0.1", "2001:db8:1:2::"].map(|text| Banned::Address(text.parse::<IpAddr>().unwrap()));
    let banned = [Banned::User(id(1)), addresses[0], addresses[1]];
    for (number, banned) in banned.iter().enumerate() {
        let until_ms = (number > 0).then_some(100);
        ban(&db, &Ban { banned: *banned, until_ms, reason: "spam".into(), by: BY }, &at(number as u64)).unwrap();
    }
    let held = |now| banned.map(|banned| is_banned(&db, banned, &at(now)).unwrap());
    assert_eq!((held(99), held(100)), ([true; 3], [true, false, false]));
    let listed = |now| bans(&db, &at(now)).unwrap().into_iter().map(|ban| ban.banned).collect::<Vec<_>>();
    assert_eq!(listed(99), banned);
    assert_eq!(listed(100), banned[..1]);
    assert!(unban(&db, banned[0]).unwrap() && !unban(&db, banned[0]).unwrap());
    assert!(!is_banned(&db, Banned::User(id(2)), &at(1)).unwrap());

    mute(&db, id(1), 100, BY, &at(50)).unwrap();
    assert_eq!([50, 99, 100].map(|now| muted_until(&db, id(1), &at(now)).unwrap()), [Some(100), Some(100), None]);
    mute(&db, id(1), 0, BY, &at(60)).unwrap();
    assert_eq!(muted_until(&db, id(1), &at(60)).unwrap(), None);

    mute(&db, id(2), 100, BY, &at(50)).unwrap();
    forget_what_is_over(&db, &at(100)).unwrap();
    let rows: i64 = db
        .query_row("SELECT (SELECT count(*) FROM bans) + (SELECT count(*) FROM mutes)", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 0);
}

#[test]
fn an_admin_is_neither_muted_nor_banned() {
    let db = in_memory().unwrap();
    create(&db, &account(1, "rahim")).unwrap();
    mute(&db, id(1), 100, BY, &at(1)).unwrap();
    ban(&db, &Ban { banned: Banned::User(id(1)), until_ms: None, reason: "".into(), by: BY }, &at(1)).unwrap();
    set_role(&db, id(1), Role::User).unwrap();
    assert!(is_banned(&db, Banned::User(id(1)), &at(2)).unwrap());
    set_role(&db, id(1), Role::Admin).unwrap();
    assert!(!is_banned(&db, Banned::User(id(1)), &at(2)).unwrap());
    assert_eq!(muted_until(&db, id(1), &at(2)).unwrap(), None);
    assert!(matches!(set_role(&db, id(1), Role::Guest), Err(AccountError::NotFound)));
    assert!(matches!(set_role(&db, id(2), Role::User), Err(AccountError::NotFound)));
}

#[test]
fn looks_are_brought_up_to_date_where_the_notion_of_them_is_another() {
    let db = in_memory().unwrap();
    db.execute_batch(MARKS).unwrap();
    create(&db, &account(1, "admin")).unwrap();
    create(&db, &account(2, "rahim")).unwrap();
    let looks = || {
        let mut statement = db.prepare("SELECT look, account FROM looks ORDER BY look").unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.collect::<rusqlite::Result<Vec<(String, i64)>>>().unwrap()
    };
    let made = looks();
    let spoil = || db.execute("UPDATE looks SET look = 'as an older adda saw it' WHERE account = 1", []).unwrap();
    spoil();
    renew_looks(&db).unwrap();
    assert_eq!(looks(), made);
    spoil();
    renew_looks(&db).unwrap();
    assert_ne!(looks(), made, "by the same notion nothing is read");
    db.execute("UPDATE marks SET value = 'an older one'", []).unwrap();
    renew_looks(&db).unwrap();
    assert_eq!(looks(), made);
    // A newer notion may find two accounts alike that an older one did not.
    db.execute_batch("UPDATE accounts SET name = 'Admin' WHERE key = 2; DELETE FROM marks").unwrap();
    renew_looks(&db).unwrap();
    assert!(looks().iter().all(|(_, account)| *account == 1), "{:?}", looks());
    for (name, number) in [("Admin", 2), ("admin", 1), ("ADMIN", 1)] {
        let found = by_name(&db, &Username::parse(name).unwrap()).unwrap();
        assert_eq!(found.map(|account| account.id), Some(id(number)), "{name}");
    }
}

#[test]
fn all_is_done_or_nothing_within_a_transaction_too() {
    let db = in_memory().unwrap();
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    create(&db, &account(1, "rahim")).unwrap();
    assert!(matches!(create(&db, &account(2, "rahim")), Err(AccountError::Taken)));
    create(&db, &account(3, "karim")).unwrap();
    db.execute_batch("COMMIT").unwrap();
    assert_eq!(accounts(&db).unwrap().len(), 2, "what failed took nothing else with it");
}

#[test]
fn guests_of_an_older_database_stay_who_they_are() {
    let db = Connection::open_in_memory().unwrap();
    db.execute_batch(
        "CREATE TABLE users (
            key INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, token_hash BLOB NOT NULL UNIQUE, seen_ms INTEGER NOT NULL
        )",
    )
    .unwrap();
    for number in 1..=3_u8 {
        let hash = TokenHash::of(&number.to_string());
        let values = (id(number.into()).0.into_bytes(), hash.0, i64::from(number) * 10);
        db.execute("INSERT INTO users (id, token_hash, seen_ms) VALUES (?1, ?2, ?3)", values).unwrap();
    }
    db.execute_batch(TABLES).unwrap();
    db.execute_batch(GUESTS_BECOME_SESSIONS).unwrap();
    let guest = session(&db, TokenHash::of("2"), &at(1_000)).unwrap().unwrap();
    assert_eq!((guest.user, guest.role, guest.kind), (id(2), Role::Guest, SessionKind::Guest));
    assert_eq!((guest.username, guest.seen_ms, guest.expires_ms), (None, 20, None));
    let users: i64 =
        db.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'users'", [], |row| row.get(0)).unwrap();
    assert_eq!(users, 0);
}

#[test]
fn nothing_secret_is_in_the_database() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("accounts.db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch(TABLES).unwrap();
    create(&db, &account(1, "rahim")).unwrap();
    begin(&db, id(1), SessionKind::Login, "the secret token", None);
    let code_hash = TokenHash::of("the secret code");
    let new = NewInvitation { code_hash, room: None, uses: 1, expires_ms: 100, created_by: BY };
    invite(&db, &new, &at(1)).unwrap();
    drop(db);
    let file = std::fs::read(path).unwrap();
    let holds = |text: &[u8]| file.windows(text.len()).any(|bytes| bytes == text);
    assert!(holds(b"rahim") && !holds(b"the secret"));
}

#[test]
fn a_guest_takes_another_name_and_nobody_elses_session_does() {
    let db = in_memory().unwrap();
    create(&db, &account(1, "rahim")).unwrap();
    let guest = begin(&db, id(2), SessionKind::Guest, "g", Some(20));
    let login = begin(&db, id(1), SessionKind::Login, "l", None);
    let name = Username::parse("ana").unwrap();
    assert_eq!(somebody(&db, id(2)).unwrap(), Some((Role::Guest, None)));
    rename_guest(&db, guest, &name, Some(50), &at(11)).unwrap();
    let renamed = session(&db, TokenHash::of("g"), &at(30)).unwrap().unwrap();
    assert_eq!((renamed.username, renamed.expires_ms, renamed.seen_ms), (Some(name.clone()), Some(50), 11));
    assert!(matches!(rename_guest(&db, guest, &name, Some(90), &at(60)), Err(AccountError::NotFound)), "it is over");
    assert!(matches!(rename_guest(&db, login, &name, None, &at(11)), Err(AccountError::NotFound)), "it is a login");
    assert_eq!(somebody(&db, id(2)).unwrap(), Some((Role::Guest, Some(name))));
    assert_eq!(somebody(&db, id(1)).unwrap(), Some((Role::User, Some(account(1, "rahim").name))));
    assert_eq!(somebody(&db, id(3)).unwrap(), None);
}

#[test]
fn of_too_many_logins_the_oldest_end() {
    let db = in_memory().unwrap();
    create(&db, &account(1, "rahim")).unwrap();
    let logins: Vec<_> =
        (0..5).map(|number| begin(&db, id(1), SessionKind::Login, &format!("l{number}"), None)).collect();
    begin(&db, id(1), SessionKind::Bot, "b", None);
    renew_session(&db, logins[0], None, &at(30)).unwrap();
    assert_eq!(end_oldest_logins(&db, id(1), 5, &at(40)).unwrap(), []);
    let mut ended = end_oldest_logins(&db, id(1), 3, &at(40)).unwrap();
    ended.sort();
    assert_eq!(ended, [logins[1], logins[2]]);
    assert!(["l0", "l3", "l4", "b"].iter().all(|token| is_live(&db, token, 41)));
}

#[test]
fn an_invitation_is_found_by_its_code_and_a_member_by_their_rooms() {
    let db = in_memory().unwrap();
    let (tea, code_hash) = (room("tea"), TokenHash::of("code"));
    let new = NewInvitation { code_hash, room: Some(&tea), uses: 1, expires_ms: 50, created_by: BY };
    let key = invite(&db, &new, &at(10)).unwrap();
    let found = invitation_by_code(&db, code_hash, &at(20)).unwrap();
    assert_eq!(found.as_ref().map(|found| (found.key, found.room.clone())), Some((key, Some(tea.clone()))));
    assert_eq!(invitation(&db, key, &at(20)).unwrap(), found);
    assert_eq!(invitation_by_code(&db, TokenHash::of("other"), &at(20)).unwrap(), None);
    assert_eq!(invitation(&db, key, &at(50)).unwrap(), None, "it is over");
    accept_to_room(&db, code_hash, id(1), &at(20)).unwrap();
    assert_eq!(invitation_by_code(&db, code_hash, &at(20)).unwrap(), None, "it is used up");
    add_member(&db, &room("coffee"), id(1), &at(21)).unwrap();
    assert_eq!(rooms_of(&db, id(1)).unwrap(), [room("coffee"), tea]);
    assert_eq!(rooms_of(&db, id(2)).unwrap(), []);
}
