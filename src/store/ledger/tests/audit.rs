//! The audit log: each change has one entry, and what is refused or rolled back has none.

use super::super::super::accounts::AuditId;
use super::*;
use crate::protocol::AddressBanTerms;

/// The entries, oldest first, each as its sentence with a user's number for its id.
fn sentences(rig: &Rig) -> Vec<String> {
    let mut entries = rig.reader.view(|view| view.audit_entries(None, 1_000)).unwrap();
    entries.reverse();
    let ids: Vec<_> = entries.iter().map(|entry| entry.id.0).collect();
    assert!(ids.is_sorted(), "{ids:?}");
    let short =
        |text: String| (1..20).fold(text, |text, number| text.replace(&user(number).to_string(), &number.to_string()));
    entries.iter().map(|entry| short(entry.to_string())).collect()
}

/// The sentences of the entries that a step makes.
fn made(rig: &mut Rig, step: impl FnOnce(&mut Rig)) -> Vec<String> {
    let before = sentences(rig).len();
    step(rig);
    sentences(rig).split_off(before)
}

fn password(text: &str) -> PasswordHash {
    PasswordHash::stored(text)
}

fn set_password(number: u128, new: &str, old: Option<&str>) -> Change {
    let account = AccountRef::Id(user(number));
    Change::SetPassword { account, password: password(new), old: old.map(password), keep: None }
}

fn restrict(number: u128, ban: BanChange) -> Change {
    let networks = vec![NETWORK, "192.0.2.1".parse().unwrap()];
    let restrictions = Restrictions { mute_until_ms: None, ban: Some(ban) };
    Change::Restrict(Restrict { networks, ..Restrict::of(user(number), restrictions) })
}

#[test]
fn each_change_makes_one_entry() {
    in_both(|mut rig| {
        let (admin, account, guest) = (logged_in(1), logged_in(2), signed_guest(6, rig.moment.clock_ms));
        let (login, token) = (SessionKind::Login, SessionKind::Bot);
        let (day, hour) = (rig.moment.wall_ms + DAY_MS, rig.moment.wall_ms + 3_600_000);
        let until = |ms: u64| crate::model::Timestamp::at(ms).to_string();
        let banned = |by_address| BanChange::Ban { until_ms: Some(day), reason: "spam".into(), by_address };
        let register = |number, code: Option<&str>| Change::Register {
            account: new_account(number, Role::User),
            invitation: code.map(TokenHash::of),
            session: new_session(number as i64, login, code),
            replaces: None,
        };
        let terms = AddressBanTerms { until_ms: None, reason: "".into(), force: false };
        let settings = RoomPatch { topic: Some("leaves".into()), slow_mode_s: Some(5), ..private() };
        let policy = Policy { registration: Registration::Invite, ..Policy::default() };
        let setup = Change::OfferSetup { code_hash: TokenHash::of("setup"), span_ms: DAY_MS };
        let key = GuestKey::from_bytes([7; 32]);
        let new_token = |number, id, text| Change::CreateToken {
            account: new_account(number, Role::User),
            session: new_session(id, token, Some(text)),
        };
        for (by, change, sentences) in [
            (By::Operator, setup, vec!["the operator has made a setup link".to_owned()]),
            (
                by(&stranger(1)),
                register(1, Some("setup")),
                vec!["1 (user 1) has registered: from 127.0.0.1, as an admin by the setup link".into()],
            ),
            (
                By::Operator,
                Change::CreateAccount(new_account(2, Role::User)),
                vec!["the operator has created the account 2 (user 2): role user".into()],
            ),
            (By::Operator, new_token(2, 7, "a"), vec!["the operator has created a token of 2 (user 2): id 7".into()]),
            (
                By::Operator,
                new_token(9, 8, "b"),
                vec!["the operator has created a token of 9 (user 9): id 8, new account".into()],
            ),
            (
                By::Operator,
                Change::EndSession { session: SessionId(7) },
                vec!["the operator has revoked a token of 2 (user 2): id 7".into()],
            ),
            (
                By::Operator,
                Change::RemoveAccount { account: AccountRef::Id(user(9)) },
                vec!["the operator has removed the account 9 (user 9)".into()],
            ),
            (
                By::Operator,
                set_password(2, "one", None),
                vec!["the operator has set the password of 2 (user 2)".into()],
            ),
            (by(&account), set_password(2, "two", Some("one")), vec![]),
            (
                By::Operator,
                set_role(2, Role::Admin),
                vec!["the operator has changed the account 2 (user 2): role admin".into()],
            ),
            (By::Operator, set_role(2, Role::Admin), vec![]),
            (
                By::Operator,
                Change::RotateGuestKey { key },
                vec!["the operator has rotated the key of guest tokens".into()],
            ),
            (
                By::Server,
                Change::SetPolicy(policy),
                vec!["the operator has changed the policy: accounts optional, registration invite".into()],
            ),
            (By::Server, Change::SetPolicy(policy), vec![]),
            (
                by(&admin),
                Change::Invite(invitation(1, "code", None, 5)),
                vec![format!("1 (user 1) has created an invitation: id 1, uses 5, until {}", until(day))],
            ),
            (
                by(&stranger(5)),
                register(5, Some("code")),
                vec!["5 (user 5) has registered: from 127.0.0.1, invitation 1".into()],
            ),
            (
                by(&admin),
                set_room("tea", settings.clone()),
                vec!["1 (user 1) has changed the settings of tea: topic, slow_mode_s 5, private true".into()],
            ),
            (by(&admin), set_room("tea", settings), vec![]),
            (
                by(&admin),
                Change::Invite(invitation(2, "door", Some("tea"), 3)),
                vec![format!("1 (user 1) has created an invitation to tea: id 2, uses 3, until {}", until(day))],
            ),
            (by(&guest), use_invitation("tea", "door"), vec!["6 (user 6) has used an invitation to tea: id 2".into()]),
            (by(&guest), use_invitation("tea", "door"), vec![]),
            (
                by(&admin),
                Change::Revoke { invitation: InvitationId(2) },
                vec!["1 (user 1) has revoked an invitation to tea: id 2".into()],
            ),
            (by(&admin), kick("tea", &guest), vec!["1 (user 1) has kicked 6 (user 6) from tea".into()]),
            (by(&admin), mute(&guest, hour), vec![format!("1 (user 1) has muted 6 (user 6): until {}", until(hour))]),
            (by(&admin), mute(&guest, 0), vec!["1 (user 1) has unmuted 6 (user 6)".into()]),
            (by(&admin), mute(&guest, 0), vec![]),
            (by(&admin), ban(&guest), vec!["1 (user 1) has banned 6 (user 6): for good, reason spam".into()]),
            (by(&admin), restrict(6, BanChange::Lift), vec!["1 (user 1) has unbanned 6 (user 6)".into()]),
            (by(&admin), restrict(6, BanChange::Lift), vec![]),
            (
                by(&admin),
                restrict(6, banned(Some(AddressBan { force: true }))),
                ["127.0.0.1", "192.0.2.1"]
                    .map(|address| {
                        let end = until(day);
                        format!("1 (user 1) has banned 6 (user 6) and address {address}: until {end}, reason spam")
                    })
                    .into(),
            ),
            (
                by(&admin),
                Change::BanAddress { network: NETWORK, terms, is_shared: false },
                vec!["1 (user 1) has banned address 127.0.0.1: for good".into()],
            ),
            (
                by(&admin),
                Change::UnbanAddress { network: NETWORK },
                vec!["1 (user 1) has unbanned address 127.0.0.1".into()],
            ),
            (by(&admin), Change::DeleteRoom { room: room("tea") }, vec!["1 (user 1) has deleted tea".into()]),
            (by(&account), Change::EndSession { session: SessionId(2) }, vec![]),
            (By::Server, Change::Seen { sessions: vec![Use::Session(SessionId(1))] }, vec![]),
        ] {
            let case = format!("{change:?}");
            let entries = made(&mut rig, |rig| {
                if let Err(reason) = rig.change(by, change) {
                    assert_eq!((reason, sentences.len()), (Reason::NotFound, 0), "{case}");
                }
            });
            assert_eq!(entries, sentences, "{case}");
        }
        let log_times = "SELECT count(DISTINCT clock_ms) + count(DISTINCT wall_ms - clock_ms) FROM audit";
        assert_eq!(rig.number(log_times), 2, "both clocks of the moment");
    });
}

#[test]
fn an_announcement_and_the_deletion_of_another_users_message_are_recorded() {
    in_both(|mut rig| {
        let (admin, guest) = (rig.account(1, Role::Admin), stranger(3));
        let [own, others] = ["mine", "rude"].map(|content| rig.stored(message("tea", &guest, content)).id);
        assert_eq!(made(&mut rig, |rig| drop(rig.send(delete("tea", &guest, own)))), [""; 0]);
        let sentence = format!("1 (user 1) has deleted a message of 3 (user 3) in tea: id {others}");
        let deletion = delete("tea", &admin, others).with_nonce("n");
        assert_eq!(made(&mut rig, |rig| drop(rig.send(deletion.clone()))), [sentence]);
        assert_eq!(made(&mut rig, |rig| assert_eq!(rig.send(deletion), "duplicate 4")), [""; 0]);
        let announced = |author| Entry::Announcement {
            rooms: vec![room("tea"), room("jam")],
            message: message("tea", author, "").with_body(Body::Announcement { content: "closing".into() }),
        };
        assert_eq!(made(&mut rig, |rig| drop(rig.apply([announced(&guest)]))), [""; 0]);
        let sentence = "1 (user 1) has sent an announcement: rooms 2";
        assert_eq!(made(&mut rig, |rig| drop(rig.apply([announced(&admin)]))), [sentence]);
    });
}

#[test]
fn what_is_refused_or_rolled_back_makes_no_entry() {
    in_both(|mut rig| {
        let (admin, other) = (rig.account(1, Role::Admin), rig.account(2, Role::Admin));
        let guest = signed_guest(3, rig.moment.clock_ms);
        // The mute is allowed, and the ban is refused after it.
        let ban = BanChange::Ban { until_ms: None, reason: "".into(), by_address: Some(AddressBan { force: false }) };
        let restrictions = Restrictions { mute_until_ms: Some(u64::MAX), ban: Some(ban) };
        let target = Some(Arc::clone(&guest));
        let both = Change::Restrict(Restrict { target, ..Restrict::of(user(3), restrictions) });
        for (by, change, reason) in [
            (by(&guest), kick("tea", &admin), Reason::NotAdmin),
            (by(&admin), kick("tea", &other), Reason::TargetIsAdmin),
            (by(&admin), both, Reason::AddressUnknown),
            (By::Operator, Change::CreateAccount(new_account(2, Role::User)), Reason::NameTaken),
        ] {
            assert_eq!(made(&mut rig, |rig| assert_eq!(rig.change(by, change), Err(reason))), [""; 0], "{reason:?}");
        }
    });
    let mut rig = Rig::in_file();
    let (admin, guest) = (rig.account(1, Role::Admin), signed_guest(3, rig.moment.clock_ms));
    let trigger = "CREATE TEMP TRIGGER refuse BEFORE INSERT ON messages BEGIN SELECT RAISE(ABORT, 'no'); END";
    rig.store.on_connection(|connection| connection.execute_batch(trigger).unwrap());
    let entries = made(&mut rig, |rig| {
        let words =
            rig.words([change(by(&admin), mute(&guest, u64::MAX)), Entry::Message(message("tea", &stranger(4), "hi"))]);
        assert_eq!(words, ["busy", "not_stored"]);
    });
    assert_eq!(entries, [""; 0]);
}

#[test]
fn entries_are_read_page_by_page_and_are_there_after_a_restart() {
    let mut rig = Rig::in_file();
    let admin = rig.account(1, Role::Admin);
    let guest = signed_guest(3, rig.moment.clock_ms);
    for _ in 0..4 {
        rig.change(by(&admin), kick("tea", &guest)).unwrap();
    }
    let rig = rig.restarted();
    let ids = |before, limit| -> Vec<i64> {
        let entries = rig.reader.view(|view| view.audit_entries(before, limit)).unwrap();
        entries.iter().map(|entry| entry.id.0).collect()
    };
    assert_eq!(ids(None, 2), [5, 4]);
    assert_eq!(ids(Some(AuditId(4)), 2), [3, 2]);
    assert_eq!(ids(Some(AuditId(2)), 2), [1]);
    assert_eq!(ids(Some(AuditId(1)), 2), [0; 0]);
}

#[test]
fn only_the_entries_that_are_named_are_forgotten() {
    in_both(|mut rig| {
        for number in 1..=3 {
            rig.account(number, Role::User);
        }
        let entries = vec![AuditId(2), AuditId(9)];
        rig.change(By::Server, Change::ForgetAuditEntries { entries }).unwrap();
        let created =
            |number: u128| format!("the operator has created the account {number} (user {number}): role user");
        assert_eq!(sentences(&rig), [1, 3].map(created));
    });
}
