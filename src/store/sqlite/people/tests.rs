//! Accounts, sessions, rooms and restrictions as they are stored, on a database in memory.

use std::net::IpAddr;

use super::super::super::change::{NewInvitation, NewSession};
use super::*;
use crate::auth::credential::{GUEST_SPAN_MS, LOGIN_SPAN_MS};
use crate::config::Durability;
use crate::model::role::Posting;
use crate::model::{RoomId, Seq};
use crate::store::TokenHash;
use crate::store::log::clock::Moment;
use uuid::Uuid;

const BY: UserId = UserId(Uuid::from_u128(99));

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

fn make(connection: &Connection, account: &Account) -> Result<(), Stop> {
    create(connection, account, &Skeletons::of(&account.name))
}

fn new_session(key: SessionId, kind: SessionKind, token: Option<&str>) -> NewSession {
    let token_hash = token.map(TokenHash::of);
    NewSession { id: key, kind, token_hash, label: "a browser".into(), span_ms: None }
}

/// Begins a session of a user with the token `token`.
fn begin(connection: &Connection, user: UserId, kind: SessionKind, token: &str, expires_ms: Option<u64>) -> SessionId {
    let next = "SELECT coalesce(max(key), 0) + 1 FROM sessions";
    let key = SessionId(connection.query_row(next, [], |row| row.get(0)).unwrap());
    begin_session(connection, user, &new_session(key, kind, Some(token)), expires_ms, 10).unwrap();
    key
}

fn number_of(connection: &Connection, table: &str) -> i64 {
    connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

fn members(connection: &Connection, room: &RoomId) -> Vec<UserId> {
    let mut members = connection.prepare("SELECT user_id FROM room_members WHERE room = ?1 ORDER BY since_ms").unwrap();
    let members = members.query_map([room.as_str()], |row| row.get(0)).unwrap();
    members.map(Result::unwrap).collect()
}

fn settings_of(connection: &Connection, room: &RoomId) -> RoomSettings {
    policy(connection, 0).unwrap().room(room).cloned().unwrap_or_default()
}

/// Uses an invitation to a room, and makes the user a member.
fn accept(connection: &Connection, code: TokenHash, room: &RoomId, user: UserId, now_ms: u64) -> Result<(), Stop> {
    spend(connection, code, now_ms)?;
    assert!(add_member(connection, room, user, Seq(0), now_ms)?);
    Ok(())
}

/// Whether the policy of a starting server has this ban.
fn is_banned(connection: &Connection, banned: Banned, clock_ms: u64) -> bool {
    policy(connection, clock_ms).unwrap().is_banned(banned, clock_ms)
}

fn muted_until(connection: &Connection, user: UserId, clock_ms: u64) -> Option<u64> {
    policy(connection, clock_ms).unwrap().muted_until(user, clock_ms)
}

fn invitation_to(key: i64, code_hash: TokenHash, room: Option<&RoomId>, uses: u32, span_ms: u64) -> NewInvitation {
    NewInvitation { id: InvitationId(key), code_hash, room: room.cloned(), uses, span_ms }
}

fn is_refused<T>(result: Result<T, Stop>, reason: Reason) -> bool {
    matches!(result, Err(Stop::Refused(rejection)) if rejection.reason == reason)
}

fn is_live(connection: &Connection, token: &str, now_ms: u64) -> bool {
    session(connection, TokenHash::of(token), now_ms).unwrap().is_some()
}

#[test]
fn an_account_is_found_by_id_and_by_any_spelling_of_its_name() {
    let db = in_memory().unwrap();
    let rahim = account(1, "রহিম");
    make(&db, &rahim).unwrap();
    make(&db, &Account { role: Role::Admin, password: None, ..account(2, "Ana") }).unwrap();
    assert_eq!(by_id(&db, id(1)).unwrap(), Some(rahim.clone()));
    assert_eq!(by_id(&db, id(3)).unwrap(), None);
    assert_eq!(by_name(&db, &Username::parse("রহিম").unwrap()).unwrap(), Some(rahim));
    assert_eq!(by_name(&db, &Username::parse("ANA").unwrap()).unwrap().unwrap().id, id(2));
    let names: Vec<_> =
        accounts(&db).unwrap().into_iter().map(|account| (account.name.to_string(), account.role)).collect();
    assert_eq!(names, [("Ana".to_owned(), Role::Admin), ("রহিম".to_owned(), Role::User)]);
}

#[test]
fn a_name_that_looks_like_a_taken_name_is_refused() {
    let db = in_memory().unwrap();
    make(&db, &account(1, "admin")).unwrap();
    for (number, spoof) in (10..).zip(["admin", "Admin", "аdmin", "adm1n", "ａｄｍｉｎ", "a.d.m.i.n"]) {
        let taken = make(&db, &account(number, spoof));
        assert!(is_refused(taken, Reason::NameTaken), "{spoof}");
        assert!(resembling(&db, &Skeletons::of(&Username::parse(spoof).unwrap())).unwrap().is_some());
    }
    assert!(is_refused(make(&db, &account(1, "somebody")), Reason::NameTaken), "an id");
    for of_nobody in ["Anonymous", "anonymous", "Аnonymous"] {
        assert!(is_refused(make(&db, &account(4, of_nobody)), Reason::NameTaken), "{of_nobody}");
    }
    make(&db, &account(2, "admiral")).unwrap();
    assert_eq!(accounts(&db).unwrap().len(), 2);
    remove(&db, id(1)).unwrap();
    make(&db, &account(3, "ADMIN")).unwrap();
}

#[test]
fn a_new_password_ends_the_other_sessions() {
    let db = in_memory().unwrap();
    make(&db, &account(1, "rahim")).unwrap();
    make(&db, &account(2, "karim")).unwrap();
    let here = begin(&db, id(1), SessionKind::Login, "here", None);
    let there = begin(&db, id(1), SessionKind::Login, "there", None);
    begin(&db, id(1), SessionKind::Bot, "bot", None);
    begin(&db, id(2), SessionKind::Login, "karim's", None);
    let new = PasswordHash::stored("$another");
    assert_eq!(set_password(&db, id(1), &new, Some(here), 20).unwrap(), [there]);
    assert_eq!(by_id(&db, id(1)).unwrap().unwrap().password, Some(new.clone()));
    let live = ["here", "there", "bot", "karim's"].map(|token| is_live(&db, token, 30));
    assert_eq!(live, [true, false, true, true]);
    assert!(was_session_of(&db, TokenHash::of("there"), id(1)).unwrap(), "its device is no stranger");
    assert!(!was_session_of(&db, TokenHash::of("karim's"), id(1)).unwrap());
    assert_eq!(set_password(&db, id(1), &new, None, 40).unwrap(), [here]);
    assert!(is_refused(set_password(&db, id(7), &new, None, 40), Reason::NotFound));

    let newest = PasswordHash::stored("$dearer");
    assert!(!renew_hash(&db, id(1), &PasswordHash::stored("$a hash"), &newest).unwrap(), "changed meanwhile");
    assert!(renew_hash(&db, id(1), &new, &newest).unwrap());
    assert_eq!(by_id(&db, id(1)).unwrap().unwrap().password, Some(newest));
}

#[test]
fn a_session_lasts_until_it_expires_or_is_ended_by_its_owner() {
    let db = in_memory().unwrap();
    make(&db, &account(1, "rahim")).unwrap();
    let key = begin(&db, id(1), SessionKind::Login, "t", Some(100));
    let found = session(&db, TokenHash::of("t"), 50).unwrap().unwrap();
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
    assert_eq!([99, 100].map(|now_ms| is_live(&db, "t", now_ms)), [true, false]);
    note_use(&db, key, 90).unwrap();
    let until_ms = 90 + LOGIN_SPAN_MS;
    assert!(is_live(&db, "t", until_ms - 1) && !is_live(&db, "t", until_ms) && !is_live(&db, "guess", 91));
    note_use(&db, key, until_ms).unwrap();
    assert!(!is_live(&db, "t", until_ms), "what is over stays over");
    assert!(is_refused(end_session(&db, id(2), key, 95), Reason::NotFound), "not yours");
    end_session(&db, id(1), key, 95).unwrap();
    assert!(!is_live(&db, "t", 96));
    assert!(is_refused(end_session(&db, id(1), key, 97), Reason::NotFound));
    note_use(&db, key, 96).unwrap();
    assert!(!is_live(&db, "t", 97));
}

#[test]
fn sessions_are_listed_and_old_sessions_are_forgotten() {
    let db = in_memory().unwrap();
    make(&db, &account(1, "rahim")).unwrap();
    let first = begin(&db, id(1), SessionKind::Login, "1", None);
    let second = begin(&db, id(1), SessionKind::Login, "2", Some(1_000));
    begin(&db, id(1), SessionKind::Login, "3", Some(30));
    let ended = begin(&db, id(1), SessionKind::Login, "4", None);
    end_session(&db, id(1), ended, 40).unwrap();
    note_use(&db, first, 49).unwrap();
    let keys: Vec<_> = sessions(&db, id(1), 50).unwrap().iter().map(|session| session.key).collect();
    assert_eq!(keys, [first, second], "the latest used first");
    let forget = |after, to, over_ms| {
        let forgettable = forgettable_sessions(&db, after, to, over_ms, 0, 50).unwrap();
        forgettable.iter().for_each(|session| forget_session(&db, *session).unwrap());
        forgettable.len()
    };
    assert_eq!(forget(0, i64::MAX, 35), 1);
    assert_eq!(forget(0, ended.0 - 1, 1_000), 0);
    assert_eq!(forget(ended.0 - 1, ended.0, 1_000), 1);
    assert_eq!(forget(0, i64::MAX, 1_000), 0);
    assert!(is_live(&db, "1", 999) && is_live(&db, "2", 999));
}

#[test]
fn a_use_extends_guests_and_logins_but_not_bots() {
    let db = in_memory().unwrap();
    make(&db, &account(1, "rahim")).unwrap();
    let guest = begin(&db, id(2), SessionKind::Guest, "g", Some(100));
    let login = begin(&db, id(1), SessionKind::Login, "l", Some(100));
    let bot = begin(&db, id(1), SessionKind::Bot, "b", Some(100));
    let lasting = begin(&db, id(1), SessionKind::Bot, "lasting", None);
    for (key, expires_ms) in
        [(guest, Some(50 + GUEST_SPAN_MS)), (login, Some(50 + LOGIN_SPAN_MS)), (bot, Some(100)), (lasting, None)]
    {
        note_use(&db, key, 50).unwrap();
        let used = session_of_key(&db, key, 60).unwrap().unwrap();
        assert_eq!((used.seen_ms, used.expires_ms), (50, expires_ms), "{:?}", used.kind);
    }
}

fn at(clock_ms: u64) -> Moment {
    Moment { clock_ms, wall_ms: clock_ms + 100, index: 1, ahead_ms: 100 }
}

#[test]
fn an_ended_session_of_a_signed_token_is_kept_as_long_as_the_token_could_last() {
    let db = in_memory().unwrap();
    store_guest(&db, id(1), 1_000, None, &at(2_000)).unwrap();
    store_guest(&db, id(2), 1_000, None, &at(2_000)).unwrap();
    let (ended, unseen) = (SessionId::of_guest(id(1)), SessionId::of_guest(id(2)));
    end_session(&db, id(1), ended, 3_000).unwrap();
    let forgettable = |now_ms| forgettable_sessions(&db, 0, i64::MAX, now_ms, now_ms, now_ms).unwrap();
    let over_ms = 1_000 + GUEST_SPAN_MS;
    assert_eq!(forgettable(over_ms), [unseen], "its token is valid again, but its guest has said nothing");
    assert_eq!(forgettable(over_ms + 1), [ended, unseen]);
    assert_eq!(stored_guest(&db, id(1), 4_000).unwrap(), StoredGuest::Over);
    assert_eq!(stored_guest(&db, id(3), 4_000).unwrap(), StoredGuest::Absent);
    // Beyond the limit, the sessions go first whose tokens stay valid anyway.
    store_guest(&db, id(4), 1_000, None, &at(9_000)).unwrap();
    assert_eq!(oldest_guests_beyond(&db, 2).unwrap(), [unseen]);
    assert_eq!(oldest_guests_beyond(&db, 1).unwrap(), [SessionId::of_guest(id(4)), unseen]);
    assert_eq!(oldest_guests_beyond(&db, 3).unwrap(), []);
}

#[test]
fn a_guest_is_stored_once_and_keeps_the_first_name() {
    let db = in_memory().unwrap();
    let (ana, eve) = (Username::parse("ana").unwrap(), Username::parse("eve").unwrap());
    store_guest(&db, id(1), 1_000, None, &at(2_000)).unwrap();
    store_guest(&db, id(1), 1_500, Some(&ana), &at(3_000)).unwrap();
    store_guest(&db, id(1), 1_500, Some(&eve), &at(4_000)).unwrap();
    let StoredGuest::Live(session) = stored_guest(&db, id(1), 5_000).unwrap() else { panic!() };
    assert_eq!((session.username, session.created_ms, session.seen_ms), (Some(ana), 1_100, 2_000));
    assert_eq!(session.expires_ms, Some(1_000 + GUEST_SPAN_MS));
    assert_eq!(stored_guest(&db, id(1), 1_000 + GUEST_SPAN_MS).unwrap(), StoredGuest::Over);
}

#[test]
fn the_time_that_slow_mode_counts_from_is_kept_for_an_hour() {
    let db = in_memory().unwrap();
    let tea = room("tea");
    note_message(&db, &tea, id(1), 1_000).unwrap();
    note_message(&db, &tea, id(1), 2_000).unwrap();
    assert_eq!(last_message_ms(&db, &tea, id(1)).unwrap(), Some(2_000));
    assert_eq!(
        (last_message_ms(&db, &room("jam"), id(1)).unwrap(), last_message_ms(&db, &tea, id(2)).unwrap()),
        (None, None)
    );
    let hour_ms = u64::from(crate::limits::SLOW_MODE_S_MAX) * 1_000;
    forget_what_is_over(&db, 2_000 + hour_ms - 1).unwrap();
    assert_eq!(number_of(&db, "last_posts"), 1, "the longest slow mode still counts from it");
    forget_what_is_over(&db, 2_000 + hour_ms).unwrap();
    assert_eq!(number_of(&db, "last_posts"), 0);
}

#[test]
fn a_guest_is_its_session_and_a_removed_account_has_none() {
    let db = in_memory().unwrap();
    let name = Username::parse("a guest").unwrap();
    let token_hash = TokenHash::of("g");
    let new = |key| new_session(SessionId(key), SessionKind::Guest, Some("g"));
    name_guest(&db, id(5), &name, &new(1), 50, &at(1)).unwrap();
    let guest = session(&db, token_hash, 2).unwrap().unwrap();
    assert_eq!((guest.role, guest.username), (Role::Guest, Some(name.clone())));
    assert!(begin_session(&db, id(5), &new(2), None, 1).is_err(), "a token is one session's");

    make(&db, &account(1, "rahim")).unwrap();
    let login = begin(&db, id(1), SessionKind::Login, "t", None);
    let bot = begin(&db, id(1), SessionKind::Bot, "b", None);
    let over = begin(&db, id(1), SessionKind::Login, "o", None);
    end_session(&db, id(1), over, 11).unwrap();
    set_role(&db, id(1), Role::Admin).unwrap();
    assert_eq!(session(&db, TokenHash::of("t"), 12).unwrap().unwrap().role, Role::Admin, "at once");
    assert_eq!(remove(&db, id(1)).unwrap(), [login, bot]);
    assert!(!is_live(&db, "t", 12) && !is_live(&db, "b", 12));
    assert!(is_refused(remove(&db, id(1)), Reason::NotFound));
}

#[test]
fn an_invitation_has_a_limited_number_of_uses() {
    let db = in_memory().unwrap();
    let code = TokenHash::of("code");
    invite(&db, &invitation_to(1, code, None, 2, 99), BY, 1).unwrap();
    spend(&db, code, 2).unwrap();
    assert_eq!(invitations(&db, None, 3).unwrap()[0].uses_left, 1);
    assert!(is_refused(spend(&db, code, 100), Reason::NotFound), "expired");
    spend(&db, code, 99).unwrap();
    assert!(is_refused(spend(&db, code, 99), Reason::NotFound), "used up");
    assert!(is_refused(spend(&db, TokenHash::of("guess"), 9), Reason::NotFound));
    assert_eq!(invitations(&db, None, 9).unwrap().len(), 0);
}

#[test]
fn an_invitation_to_a_room_makes_a_member_of_that_room_only() {
    let db = in_memory().unwrap();
    let (tea, jam) = (room("tea"), room("jam"));
    let code = TokenHash::of("code");
    let key = InvitationId(1);
    invite(&db, &invitation_to(1, code, Some(&tea), 2, 99), BY, 1).unwrap();
    accept(&db, code, &tea, id(1), 3).unwrap();
    let invitation = Invitation { key, room: Some(tea.clone()), uses_left: 1, expires_ms: 100, created_by: BY };
    assert_eq!(invitations(&db, Some(&tea), 5).unwrap(), [invitation]);
    assert!(invitations(&db, Some(&jam), 5).unwrap().is_empty() && invitations(&db, None, 5).unwrap().is_empty());
    assert_eq!((rooms_of(&db, id(1)).unwrap(), members(&db, &jam)), (vec![tea.clone()], vec![]));
    assert!(is_refused(revoke(&db, key, Some(&jam)), Reason::NotFound), "another room's");
    revoke(&db, key, Some(&tea)).unwrap();
    assert!(is_refused(accept(&db, code, &tea, id(2), 6), Reason::NotFound));
    assert_eq!(members(&db, &tea), [id(1)]);
    assert!(remove_member(&db, &tea, id(1)).unwrap() && !remove_member(&db, &tea, id(1)).unwrap());
}

#[test]
fn the_settings_of_a_room_are_stored_unless_they_are_the_default() {
    let db = in_memory().unwrap();
    let tea = room("tea");
    assert_eq!(settings_of(&db, &tea), RoomSettings::default());
    let settings = RoomSettings {
        name: "চা".into(),
        topic: "of an evening".into(),
        posting: Posting::Admins,
        slow_mode_s: 30,
        is_private: true,
    };
    set_room(&db, &tea, &settings).unwrap();
    assert_eq!(settings_of(&db, &tea), settings);
    assert!(add_member(&db, &tea, id(1), Seq(0), 2).unwrap() && add_member(&db, &tea, id(2), Seq(0), 1).unwrap());
    set_room(&db, &tea, &RoomSettings { topic: "at noon".into(), ..settings.clone() }).unwrap();
    assert_eq!(members(&db, &tea), [id(2), id(1)], "members stay while it is private");
    set_room(&db, &tea, &RoomSettings { is_private: false, ..settings }).unwrap();
    assert!(members(&db, &tea).is_empty());
    set_room(&db, &tea, &RoomSettings::default()).unwrap();
    assert_eq!(number_of(&db, "room_settings"), 0, "the default is no row");
}

#[test]
fn bans_and_mutes_hold_until_they_expire() {
    let db = in_memory().unwrap();
    let addresses = ["10.0.0.1", "2001:db8:1:2::"].map(|text| Banned::Address(text.parse::<IpAddr>().unwrap()));
    let banned = [Banned::User(id(1)), addresses[0], addresses[1]];
    for (number, banned) in banned.iter().enumerate() {
        let until_ms = (number > 0).then_some(100);
        ban(&db, &Ban { banned: *banned, until_ms, reason: "spam".into(), by: BY }, number as u64).unwrap();
    }
    let held = |now| banned.map(|banned| is_banned(&db, banned, now));
    assert_eq!((held(99), held(100)), ([true; 3], [true, false, false]));
    let listed = |now| bans(&db, now).unwrap().into_iter().map(|ban| ban.banned).collect::<Vec<_>>();
    assert_eq!(listed(99), banned);
    assert_eq!(listed(100), banned[..1]);
    assert!(unban(&db, banned[0]).unwrap() && !unban(&db, banned[0]).unwrap());
    assert!(!is_banned(&db, Banned::User(id(2)), 1));

    mute(&db, id(1), 100, BY, 50).unwrap();
    assert_eq!([50, 99, 100].map(|now| muted_until(&db, id(1), now)), [Some(100), Some(100), None]);
    mute(&db, id(1), 0, BY, 60).unwrap();
    assert_eq!(muted_until(&db, id(1), 60), None);

    mute(&db, id(2), 100, BY, 50).unwrap();
    forget_what_is_over(&db, 100).unwrap();
    let rows: i64 = db
        .query_row("SELECT (SELECT count(*) FROM bans) + (SELECT count(*) FROM mutes)", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 0);
}

#[test]
fn an_admin_is_neither_muted_nor_banned() {
    let db = in_memory().unwrap();
    make(&db, &account(1, "rahim")).unwrap();
    mute(&db, id(1), 100, BY, 1).unwrap();
    ban(&db, &Ban { banned: Banned::User(id(1)), until_ms: None, reason: "".into(), by: BY }, 1).unwrap();
    set_role(&db, id(1), Role::User).unwrap();
    assert!(is_banned(&db, Banned::User(id(1)), 2));
    set_role(&db, id(1), Role::Admin).unwrap();
    assert!(!is_banned(&db, Banned::User(id(1)), 2));
    assert_eq!(muted_until(&db, id(1), 2), None);
    assert!(is_refused(set_role(&db, id(1), Role::Guest), Reason::NotFound));
    assert!(is_refused(set_role(&db, id(2), Role::User), Reason::NotFound));
}

#[test]
fn skeletons_are_renewed_when_their_definition_changes() {
    let db = in_memory().unwrap();
    make(&db, &account(1, "admin")).unwrap();
    make(&db, &account(2, "rahim")).unwrap();
    let skeletons = || {
        let mut statement = db.prepare("SELECT skeleton, account FROM skeletons ORDER BY skeleton").unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.collect::<rusqlite::Result<Vec<(String, i64)>>>().unwrap()
    };
    let made = skeletons();
    db.execute("DELETE FROM marks", []).unwrap();
    let spoil =
        || db.execute("UPDATE skeletons SET skeleton = 'as an older adda saw it' WHERE account = 1", []).unwrap();
    spoil();
    renew_skeletons(&db).unwrap();
    assert_eq!(skeletons(), made);
    spoil();
    renew_skeletons(&db).unwrap();
    assert_ne!(skeletons(), made, "nothing is read if the definition is the same");
    db.execute("UPDATE marks SET value = 'an older one' WHERE name = 'skeletons'", []).unwrap();
    renew_skeletons(&db).unwrap();
    assert_eq!(skeletons(), made);
    // A newer Unicode version may find two accounts alike that an older one did not.
    db.execute_batch("UPDATE accounts SET name = 'Admin' WHERE key = 2; DELETE FROM marks").unwrap();
    renew_skeletons(&db).unwrap();
    assert!(skeletons().iter().all(|(_, account)| *account == 1), "{:?}", skeletons());
    for (name, number) in [("Admin", 2), ("admin", 1), ("ADMIN", 1)] {
        let found = by_name(&db, &Username::parse(name).unwrap()).unwrap();
        assert_eq!(found.map(|account| account.id), Some(id(number)), "{name}");
    }
}

#[test]
fn a_refused_account_leaves_the_rest_of_the_transaction_intact() {
    let db = in_memory().unwrap();
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    make(&db, &account(1, "rahim")).unwrap();
    assert!(is_refused(make(&db, &account(2, "rahim")), Reason::NameTaken));
    make(&db, &account(3, "karim")).unwrap();
    db.execute_batch("COMMIT").unwrap();
    assert_eq!(accounts(&db).unwrap().len(), 2);
}

#[test]
fn guests_of_an_older_database_keep_their_sessions() {
    let db = Connection::open_in_memory().unwrap();
    for (done, step) in schema::MIGRATIONS[..2].iter().enumerate() {
        step(&db).unwrap();
        db.pragma_update(None, "user_version", done as i64 + 1).unwrap();
    }
    for number in 1..=3_u8 {
        let hash = TokenHash::of(&number.to_string());
        let values = (id(number.into()).0.into_bytes(), hash.0, i64::from(number) * 10);
        db.execute("INSERT INTO users (id, token_hash, seen_ms) VALUES (?1, ?2, ?3)", values).unwrap();
    }
    schema::migrate(&db).unwrap();
    let guest = session(&db, TokenHash::of("2"), 1_000).unwrap().unwrap();
    assert_eq!((guest.user, guest.role, guest.kind), (id(2), Role::Guest, SessionKind::Guest));
    assert_eq!((guest.username, guest.seen_ms, guest.expires_ms), (None, 20, None));
    let users: i64 =
        db.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'users'", [], |row| row.get(0)).unwrap();
    assert_eq!(users, 0);
}

#[test]
fn tokens_and_codes_are_not_stored_in_plain_text() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("accounts.db");
    let (database, db) = schema::Database::open(&path, Durability::Full).unwrap();
    make(&db, &account(1, "rahim")).unwrap();
    begin(&db, id(1), SessionKind::Login, "the secret token", None);
    invite(&db, &invitation_to(1, TokenHash::of("the secret code"), None, 1, 99), BY, 1).unwrap();
    drop((db, database));
    let file = std::fs::read(path).unwrap();
    let holds = |text: &[u8]| file.windows(text.len()).any(|bytes| bytes == text);
    assert!(holds(b"rahim") && !holds(b"the secret"));
}

#[test]
fn a_guest_can_rename_only_its_own_session() {
    let db = in_memory().unwrap();
    make(&db, &account(1, "rahim")).unwrap();
    let guest = begin(&db, id(2), SessionKind::Guest, "g", Some(20));
    let login = begin(&db, id(1), SessionKind::Login, "l", None);
    let name = Username::parse("ana").unwrap();
    assert_eq!(find_user(&db, id(2)).unwrap(), Some((Role::Guest, None)));
    let of_guest = |key| new_session(key, SessionKind::Guest, Some("g"));
    name_guest(&db, id(2), &name, &of_guest(guest), 50, &at(11)).unwrap();
    let renamed = session(&db, TokenHash::of("g"), 30).unwrap().unwrap();
    assert_eq!((renamed.username, renamed.expires_ms, renamed.seen_ms), (Some(name.clone()), Some(50), 11));
    let over = name_guest(&db, id(2), &name, &of_guest(guest), 90, &at(60));
    assert!(is_refused(over, Reason::NotFound), "it is over");
    let of_login = name_guest(&db, id(2), &name, &of_guest(login), 90, &at(11));
    assert!(is_refused(of_login, Reason::NotFound), "it is a login");
    assert_eq!(find_user(&db, id(2)).unwrap(), Some((Role::Guest, Some(name))));
    assert_eq!(find_user(&db, id(1)).unwrap(), Some((Role::User, Some(account(1, "rahim").name))));
    assert_eq!(find_user(&db, id(3)).unwrap(), None);
}

#[test]
fn the_oldest_logins_beyond_the_limit_end() {
    let db = in_memory().unwrap();
    make(&db, &account(1, "rahim")).unwrap();
    let logins: Vec<_> =
        (0..5).map(|number| begin(&db, id(1), SessionKind::Login, &format!("l{number}"), None)).collect();
    begin(&db, id(1), SessionKind::Bot, "b", None);
    note_use(&db, logins[0], 30).unwrap();
    assert_eq!(end_oldest_logins(&db, id(1), 5, 40).unwrap(), []);
    let mut ended = end_oldest_logins(&db, id(1), 3, 40).unwrap();
    ended.sort();
    assert_eq!(ended, [logins[1], logins[2]]);
    assert!(["l0", "l3", "l4", "b"].iter().all(|token| is_live(&db, token, 41)));
}

#[test]
fn invitations_are_found_by_code_and_rooms_by_member() {
    let db = in_memory().unwrap();
    let (tea, code_hash) = (room("tea"), TokenHash::of("code"));
    let key = InvitationId(5);
    invite(&db, &invitation_to(5, code_hash, Some(&tea), 1, 40), BY, 10).unwrap();
    let found = invitation_by_code(&db, code_hash, 20).unwrap();
    assert_eq!(found.as_ref().map(|found| (found.key, found.room.clone())), Some((key, Some(tea.clone()))));
    assert_eq!(invitation(&db, key, 20).unwrap(), found);
    assert_eq!(invitation_by_code(&db, TokenHash::of("other"), 20).unwrap(), None);
    assert_eq!(invitation(&db, key, 50).unwrap(), None, "it is over");
    accept(&db, code_hash, &tea, id(1), 20).unwrap();
    assert_eq!(invitation_by_code(&db, code_hash, 20).unwrap(), None, "it is used up");
    add_member(&db, &room("coffee"), id(1), Seq(0), 21).unwrap();
    assert_eq!(rooms_of(&db, id(1)).unwrap(), [room("coffee"), tea]);
    assert_eq!(rooms_of(&db, id(2)).unwrap(), []);
}
