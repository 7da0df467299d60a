//! What entries do, in both storages: permissions, the order of the checks, and the effects of refusals and rollbacks.

use std::sync::Arc;

use super::super::accounts::{Banned, SessionId, SessionKind};
use super::super::change::{AccountRef, Change, Done, NewAccount, NewInvitation, NewLogin, Policy, Restrict, Use};
use super::super::entry::{By, Entry, Event as Meaning, Join, Outcome, Principal, Proof};
use super::super::testing::{
    NETWORK, Rig, ban, by, change, contents, in_both, join, join_after, kick, leave, logged_in, message, mute, named,
    new_account, new_session, of_connection, proposals, room, set_role, set_room, signed_guest, stranger, user,
    username, word,
};
use super::super::{Kinds, Side, TokenHash, accounts::InvitationId};
use crate::auth::credential::GUEST_SPAN_MS;
use crate::auth::guest_token::GuestKey;
use crate::auth::name::Skeletons;
use crate::auth::password::PasswordHash;
use crate::limits::{FORGOTTEN_AT_ONCE, LOGINS_PER_USER_MAX};
use crate::model::reason::Reason;
use crate::model::role::{Accounts, Posting, Registration, Role};
use crate::model::{FrameId, Seq};
use crate::protocol::{AddressBan, BanChange, Body, Restrictions, RoomPatch};

mod audit;
mod private_rooms;
mod renames;
mod setup;
mod upkeep;

const DAY_MS: u64 = 86_400_000;

fn patch() -> RoomPatch {
    RoomPatch::default()
}

/// The default settings, as a patch.
fn plain() -> RoomPatch {
    RoomPatch {
        name: Some("".into()),
        topic: Some("".into()),
        posting: Some(Posting::Everyone),
        slow_mode_s: Some(0),
        is_private: Some(false),
    }
}

fn private() -> RoomPatch {
    RoomPatch { is_private: Some(true), ..patch() }
}

fn delete(name: &str, author: &Arc<Principal>, message_id: FrameId) -> super::NewMessage {
    message(name, author, "").with_body(Body::Delete { message_id })
}

fn invitation(number: i64, code: &str, to: Option<&str>, uses: u32) -> NewInvitation {
    let (id, code_hash) = (InvitationId(number), TokenHash::of(code));
    NewInvitation { id, code_hash, room: to.map(room), uses, span_ms: DAY_MS }
}

fn use_invitation(name: &str, code: &str) -> Change {
    Change::UseInvitation { room: room(name), code_hash: TokenHash::of(code) }
}

fn entered(word: &str) -> bool {
    word.starts_with("join")
}

#[test]
fn room_settings_apply_by_role() {
    in_both(|mut rig| {
        let (admin, other) = (rig.account(1, Role::Admin), rig.account(2, Role::Admin));
        let (guest, member) = (stranger(3), stranger(4));
        let send = |rig: &mut Rig, author: &_| rig.send(message("tea", author, "hi"));
        assert_eq!(send(&mut rig, &guest), "tea 1");
        let read_only = RoomPatch { posting: Some(Posting::Admins), ..patch() };
        rig.change(by(&admin), set_room("tea", read_only)).unwrap();
        assert_eq!((send(&mut rig, &guest), send(&mut rig, &other)), ("read_only".into(), "tea 2".into()));

        let mut set = |patch| {
            let (_, events) = rig.change(by(&admin), set_room("tea", patch)).unwrap();
            let [Meaning::RoomChanged { settings, .. }] = &events[..] else { panic!("{events:?}") };
            settings.is_private
        };
        let topic = || RoomPatch { topic: Some("leaves".into()), ..patch() };
        assert!(!set(topic()));
        assert!(set(RoomPatch { is_private: Some(true), ..plain() }));
        assert!(set(topic()) && set(private()), "it is private already");
        rig.change(by(&admin), Change::Invite(invitation(1, "code", Some("tea"), 5))).unwrap();
        rig.change(by(&member), use_invitation("tea", "code")).unwrap();
        assert_eq!(send(&mut rig, &other), "not_member", "an admin who is no member");
        assert!(entered(&rig.word(join("tea", &member))));
        assert_eq!(send(&mut rig, &member), "tea 3");
        let (_, events) = rig.change(by(&admin), kick("tea", &member)).unwrap();
        assert_eq!(events, [Meaning::Kicked { room: room("tea"), user: member.user() }]);
        assert_eq!(rig.word(join("tea", &member)), "no join: no_such_room", "a kick ends the membership");

        let (_, events) = rig.change(by(&admin), set_room("tea", plain())).unwrap();
        assert!(matches!(events[..], [Meaning::RoomChanged { .. }, Meaning::Noticed { .. }]), "{events:?}");
        assert_eq!(rig.store.policy().room(&room("tea")), None, "the default is no entry");
        assert!(entered(&rig.word(join("tea", &guest))));
        assert_eq!(rig.change(by(&guest), set_room("tea", private())), Err(Reason::NotAdmin));
    });
}

#[test]
fn a_mute_expires_and_slow_mode_delays_a_client() {
    in_both(|mut rig| {
        let (admin, other) = (rig.account(1, Role::Admin), rig.account(2, Role::Admin));
        let (guest, another) = (signed_guest(3, rig.moment.clock_ms), stranger(4));
        let until_ms = rig.moment.wall_ms + 5_000;
        rig.change(by(&admin), mute(&guest, until_ms)).unwrap();
        assert_eq!(rig.send(message("tea", &guest, "hi")), "muted");
        rig.pass(4_999);
        assert_eq!(rig.send(message("tea", &guest, "hi")), "muted");
        rig.pass(1);
        assert_eq!(rig.send(message("tea", &guest, "hi")), "tea 1");

        rig.change(by(&admin), set_room("tea", RoomPatch { slow_mode_s: Some(10), ..patch() })).unwrap();
        assert_eq!(rig.send(message("tea", &guest, "counts from here")), "tea 2");
        rig.pass(1_000);
        let Outcome::Refused { rejection, .. } = &rig.apply([Entry::Message(message("tea", &guest, "early"))])[0]
        else {
            panic!()
        };
        assert_eq!((rejection.reason, rejection.retry_ms), (Reason::SlowMode, Some(9_000)));
        assert_eq!(rig.send(message("tea", &another, "hi")), "tea 3");
        assert_eq!(rig.send(message("tea", &other, "hi")), "tea 4");
        assert_eq!(rig.send(message("tea", &other, "admins do not wait")), "tea 5");
        rig.pass(8_999);
        assert_eq!(rig.send(message("tea", &guest, "early")), "slow_mode");
        rig.pass(1);
        assert_eq!(rig.send(message("tea", &guest, "on time")), "tea 6");
    });
}

#[test]
fn a_jump_of_the_wall_clock_ends_neither_mute_nor_slow_mode() {
    in_both(|mut rig| {
        let admin = rig.account(1, Role::Admin);
        let (guest, slow) = (signed_guest(3, rig.moment.clock_ms), stranger(4));
        let until_ms = rig.moment.wall_ms + 5_000;
        rig.change(by(&admin), mute(&guest, until_ms)).unwrap();
        rig.change(by(&admin), set_room("tea", RoomPatch { slow_mode_s: Some(10), ..patch() })).unwrap();
        assert_eq!(rig.send(message("tea", &slow, "hi")), "tea 1");
        for jump_ms in [1_000 * DAY_MS as i64, -2_000 * DAY_MS as i64] {
            rig.moment.wall_ms = rig.moment.wall_ms.saturating_add_signed(jump_ms);
            assert_eq!(rig.send(message("tea", &guest, "hi")), "muted");
            assert_eq!(rig.send(message("tea", &slow, "hi")), "slow_mode");
        }
        rig.pass(10_000);
        assert_eq!(rig.send(message("tea", &guest, "hi")), "tea 2");
        assert_eq!(rig.send(message("tea", &slow, "hi")), "tea 3");
    });
}

#[test]
fn an_admin_can_be_neither_muted_nor_banned_nor_kicked() {
    in_both(|mut rig| {
        let (admin, other) = (rig.account(1, Role::Admin), rig.account(2, Role::Admin));
        let guest = stranger(3);
        for made in [mute(&other, u64::MAX), ban(&other), kick("tea", &other)] {
            assert_eq!(rig.change(by(&admin), made.clone()), Err(Reason::TargetIsAdmin));
            assert_eq!(rig.change(by(&guest), made), Err(Reason::NotAdmin));
        }
        for made in [mute(&admin, u64::MAX), ban(&admin), kick("tea", &admin)] {
            assert_eq!(rig.change(by(&admin), made), Err(Reason::TargetIsSelf));
        }
        // The demotion was applied first, so it decides.
        rig.change(By::Operator, set_role(1, Role::User)).unwrap();
        assert_eq!(rig.change(by(&admin), mute(&guest, u64::MAX)), Err(Reason::NotAdmin));
        assert_eq!(rig.change(by(&other), kick("tea", &admin)).map(drop), Ok(()));
    });
}

/// For each reason to refuse a message: its cause, and a message that it would refuse.
#[test]
fn a_retry_is_recognised_before_any_reason_to_refuse_it() {
    /// The reason, the author's number, and what happens after a message of this author was stored.
    type Case = (&'static str, u128, fn(&mut Rig, FrameId));
    let cases: &[Case] = &[
        ("banned", 3, |rig, _| drop(rig.change(by(&logged_in(1)), ban(&logged_in(3))).unwrap())),
        ("muted", 3, |rig, _| drop(rig.change(by(&logged_in(1)), mute(&logged_in(3), u64::MAX)).unwrap())),
        ("read_only", 3, |rig, _| {
            let patch = RoomPatch { posting: Some(Posting::Admins), ..patch() };
            rig.change(by(&logged_in(1)), set_room("tea", patch)).unwrap();
        }),
        ("no_such_room", 3, |rig, _| drop(rig.change(by(&logged_in(1)), set_room("tea", private())).unwrap())),
        ("kicked", 3, |rig, _| drop(rig.change(by(&logged_in(1)), kick("tea", &logged_in(3))).unwrap())),
        ("slow_mode", 3, |rig, _| {
            let patch = RoomPatch { slow_mode_s: Some(60), ..patch() };
            rig.change(by(&logged_in(1)), set_room("tea", patch)).unwrap();
            rig.stored(message("tea", &logged_in(3), "counts"));
        }),
        ("session_ended", 3, |rig, _| {
            let account = AccountRef::Id(user(3));
            rig.change(By::Operator, Change::RemoveAccount { account }).unwrap();
        }),
        ("login_required", 4, |rig, _| {
            let flags = Policy { accounts: Accounts::Required, ..Policy::default() };
            rig.change(By::Server, Change::SetPolicy(flags)).unwrap();
        }),
        ("no_such_reply", 3, |rig, answered| {
            let up_to = rig.reader.view(|view| view.seq_of(&room("tea"), answered)).unwrap().unwrap();
            rig.change(By::Server, Change::Forget { room: room("tea"), up_to }).unwrap();
        }),
    ];
    for (reason, number, happens) in cases {
        in_both(|mut rig| {
            rig.account(1, Role::Admin);
            rig.account(3, Role::User);
            let author = if *number == 3 { logged_in(3) } else { stranger(*number) };
            assert!(entered(&rig.word(join("tea", &author))));
            let answered = rig.stored(message("tea", &stranger(9), "first")).id;
            let answer = |content: &str| {
                let body = Body::Text { content: content.into(), reply_to: Some(answered) };
                message("tea", &author, "").with_body(body)
            };
            assert_eq!(rig.send(answer("hi").with_nonce("n")), "tea 2");
            happens(&mut rig, answered);
            let entries = [answer("hi").with_nonce("n"), answer("else").with_nonce("n"), answer("new").with_nonce("m")];
            let words = rig.words(entries.map(Entry::Message));
            assert_eq!(words, ["duplicate 2", "nonce_used", reason]);
        });
    }
}

#[test]
fn a_retry_is_recognised_before_the_proposers_own_reason() {
    in_both(|mut rig| {
        let author = stranger(3);
        let limited = |message: super::NewMessage| {
            let rejection = Reason::RateLimited.because("retry in 2 s").retry_after(2_000);
            Entry::Message(super::NewMessage { unless_stored: Some(Box::new(rejection)), ..message })
        };
        assert_eq!(rig.send(message("tea", &author, "hi").with_nonce("n")), "tea 1");
        let entries = [
            limited(message("tea", &author, "hi").with_nonce("n")),
            limited(message("tea", &author, "else").with_nonce("n")),
            limited(message("tea", &author, "new").with_nonce("m")),
            limited(message("tea", &author, "new")),
        ];
        let outcomes = rig.apply(entries);
        let words: Vec<_> = outcomes.iter().map(word).collect();
        assert_eq!(words, ["duplicate 1", "nonce_used", "rate_limited", "rate_limited"]);
        let Outcome::Refused { rejection, nonce, .. } = &outcomes[2] else { panic!() };
        assert_eq!((&*rejection.sentence, rejection.retry_ms), ("retry in 2 s", Some(2_000)));
        assert_eq!(nonce.as_ref().map(|nonce| nonce.as_str()), Some("m"));
        assert_eq!(rig.send(message("tea", &author, "new").with_nonce("m")), "tea 2", "nothing was stored");
    });
}

#[test]
fn a_retried_delete_is_recognised_although_its_message_is_deleted() {
    in_both(|mut rig| {
        let admin = rig.account(1, Role::Admin);
        let (author, other) = (stranger(3), stranger(4));
        let first = rig.stored(message("tea", &author, "a secret")).id;
        assert_eq!(rig.send(delete("tea", &other, first)), "not_yours");
        let outcome = rig.apply([Entry::Message(delete("tea", &author, first).with_nonce("n"))]).remove(0);
        let Outcome::Stored { stored, changed: Some(changed), .. } = &outcome else { panic!("{outcome:?}") };
        assert_eq!((stored.seq, changed.seq, changed.id), (Seq(2), Seq(1), first));
        assert_eq!(contents(std::slice::from_ref(changed)), [""]);
        assert_eq!(rig.send(delete("tea", &author, first).with_nonce("n")), "duplicate 2");
        assert_eq!(rig.send(delete("tea", &author, first)), "no_such_message");
        assert_eq!(rig.send(delete("tea", &author, stored.id)), "no_such_message", "a delete can't be deleted");
        assert_eq!(rig.send(delete("jam", &author, first)), "no_such_message", "it is in another room");
        assert_eq!((rig.page("tea", None), rig.page("tea", Some("secret"))), (vec!["".into()], vec![]));
        let second = rig.stored(message("tea", &author, "two")).id;
        assert_eq!(rig.send(delete("tea", &admin, second)), "tea 4", "an admin deletes any message");
    });
}

#[test]
fn a_refused_change_rolls_back_only_itself() {
    in_both(|mut rig| {
        let admin = rig.account(1, Role::Admin);
        let target = rig.account(2, Role::User);
        rig.change(By::Server, Change::SetPolicy(Policy { registration: Registration::Invite, ..Policy::default() }))
            .unwrap();
        rig.change(by(&admin), Change::Invite(invitation(7, "code", None, 1))).unwrap();
        // The mute is written before the ban is refused, as only guests can be banned by address.
        let ban = BanChange::Ban { until_ms: None, reason: "".into(), by_address: Some(AddressBan::default()) };
        let restrictions = Restrictions { mute_until_ms: Some(u64::MAX), ban: Some(ban) };
        let half = Restrict { user: user(2), restrictions, target: None, networks: vec![], is_shared: false };
        // The invitation is used before the name is found to be taken.
        let register = |number, token: &str| Change::Register {
            account: new_account(number, Role::User),
            invitation: Some(TokenHash::of("code")),
            session: new_session(number as i64, SessionKind::Login, Some(token)),
            replaces: None,
        };
        let taken = match register(5, "t") {
            Change::Register { account, invitation, session, replaces } => {
                let account = NewAccount { id: user(6), ..account };
                Change::Register { account, invitation, session, replaces }
            }
            other => other,
        };
        rig.change(By::Operator, Change::CreateAccount(new_account(5, Role::User))).unwrap();
        let slow = RoomPatch { slow_mode_s: Some(30), ..patch() };
        let words = rig.words([
            Entry::Message(message("tea", &stranger(3), "one")),
            change(by(&admin), set_room("tea", slow)),
            change(by(&admin), Change::Restrict(half)),
            Entry::Message(message("jam", &target, "two")),
            change(by(&stranger(8)), taken),
            change(by(&stranger(8)), register(8, "token")),
            Entry::Message(message("jam", &stranger(3), "three")),
        ]);
        let expected = ["tea 1", "changed", "target_is_no_guest", "jam 1", "name_taken", "changed", "jam 2"];
        assert_eq!(words, expected);
        let policy = rig.reader.policy();
        assert_eq!(policy.room(&room("tea")).map(|settings| settings.slow_mode_s), Some(30));
        assert_eq!(policy.muted_until(user(2), rig.moment.clock_ms), None);
        assert_eq!((policy.account_role(user(6)), policy.account_role(user(8))), (None, Some(Role::User)));
        assert_eq!(rig.number("SELECT count(*) FROM mutes"), 0);
        assert_eq!(rig.number("SELECT uses_left FROM invitations"), 0, "it was used once, by the one who registered");
    });
}

#[test]
fn a_failed_batch_changes_nothing() {
    let mut rig = Rig::in_file();
    let admin = rig.account(1, Role::Admin);
    let (guest, target) = (stranger(3), logged_in(4));
    rig.account(4, Role::User);
    assert!(entered(&rig.word(join("tea", &guest))) && entered(&rig.word(join("tea", &target))));
    assert_eq!(rig.send(message("tea", &guest, "sent before").with_nonce("n")), "tea 1");
    let trigger = "CREATE TEMP TRIGGER refuse BEFORE INSERT ON messages WHEN NEW.content = 'breaks'
                   BEGIN SELECT RAISE(ABORT, 'no'); END";
    rig.store.on_connection(|connection| connection.execute_batch(trigger).unwrap());
    let before = rig.number("SELECT total_changes()");
    assert!(before > 0);
    let signed = signed_guest(6, rig.moment.clock_ms);
    let words = rig.words([
        change(by(&admin), set_room("cellar", private())),
        change(by(&admin), mute(&target, u64::MAX)),
        change(by(&admin), ban(&signed)),
        change(by(&admin), kick("tea", &target)),
        change(By::Operator, Change::RotateGuestKey { key: GuestKey::from_bytes([7; 32]) }),
        join("cellar", &guest),
        of_connection(2, join("tea", &guest)),
        leave("tea", &target),
        Entry::Message(message("jam", &guest, "new room")),
        Entry::Message(message("tea", &guest, "sent before").with_nonce("n")),
        Entry::Message(message("tea", &guest, "breaks")),
    ]);
    let refused = ["busy"; 5].into_iter();
    let presence = ["join 0 of 0, seen None", "join 1 of 1, seen None", "leave"];
    let expected: Vec<_> = refused.chain(presence).chain(["not_stored", "duplicate 1", "not_stored"]).collect();
    assert_eq!(words, expected);

    for policy in [rig.store.policy(), &*rig.reader.policy()] {
        assert!(!policy.is_private(&room("cellar")) && policy.muted_until(user(4), 0).is_none());
        assert!(!policy.is_banned(Banned::User(user(6)), 0));
        assert_ne!(policy.guest_key.as_bytes(), &[7; 32]);
    }
    for table in ["room_settings", "room_members", "mutes", "bans", "sessions"] {
        assert_eq!(rig.number(&format!("SELECT count(*) FROM {table}")), 0, "{table}");
    }
    assert_eq!(rig.number("SELECT count(*) FROM rooms"), 1);
    assert_eq!((rig.store.present(&room("tea")), rig.store.present(&room("cellar"))), (2, 1), "each counts once");
    assert!(entered(&rig.word(join("tea", &target))));
    assert_eq!(rig.send(message("tea", &target, "not kicked, not muted")), "tea 2", "no place is left out");
    rig.words([leave("tea", &guest), of_connection(2, leave("tea", &guest)), leave("tea", &target)]);
    assert_eq!(rig.store.present(&room("tea")), 0);
}

#[test]
fn a_kick_in_a_failed_batch_has_no_effect() {
    let mut rig = Rig::in_file();
    let admin = rig.account(1, Role::Admin);
    let guest = stranger(3);
    let signed = signed_guest(4, rig.moment.clock_ms);
    for client in [&guest, &signed] {
        assert!(entered(&rig.word(join("tea", client))));
    }
    let trigger = "CREATE TEMP TRIGGER refuse BEFORE INSERT ON messages WHEN NEW.content = 'breaks'
                   BEGIN SELECT RAISE(ABORT, 'no'); END";
    rig.store.on_connection(|connection| connection.execute_batch(trigger).unwrap());
    rig.change(by(&admin), kick("tea", &signed)).unwrap();
    assert_eq!(rig.send(message("tea", &signed, "hi")), "kicked");
    let again = signed_guest(4, rig.moment.clock_ms);
    let other = signed_guest(5, rig.moment.clock_ms);
    assert!(entered(&rig.word(join("tea", &other))));
    let breaks = Entry::Message(message("tea", &guest, "breaks"));
    assert_eq!(rig.words([change(by(&admin), kick("tea", &other)), breaks.clone()]), ["busy", "not_stored"]);
    assert_eq!(rig.send(message("tea", &other, "still here")), "tea 1");
    // A connection that joins may post again, whether its batch is stored or not.
    assert_eq!(rig.words([join("tea", &again), breaks]), ["join 1 of 1, seen None", "not_stored"]);
    assert_eq!(rig.send(message("tea", &again, "back")), "tea 2");
}

#[test]
fn a_banned_client_cannot_join_while_nothing_can_be_stored() {
    let mut rig = Rig::in_file();
    let admin = rig.account(1, Role::Admin);
    let banned = signed_guest(3, rig.moment.clock_ms);
    rig.change(by(&admin), ban(&banned)).unwrap();
    rig.change(by(&admin), set_room("cellar", private())).unwrap();
    let trigger = "CREATE TEMP TRIGGER refuse BEFORE INSERT ON messages BEGIN SELECT RAISE(ABORT, 'no'); END";
    rig.store.on_connection(|connection| connection.execute_batch(trigger).unwrap());
    let words = rig.words([
        join("tea", &banned),
        join("cellar", &stranger(4)),
        join("tea", &stranger(4)),
        Entry::Message(message("tea", &stranger(4), "hi")),
    ]);
    assert_eq!(words, ["no join: banned", "no join: no_such_room", "join 0 of 0, seen None", "not_stored"]);
    assert_eq!((rig.store.present(&room("tea")), rig.store.present(&room("cellar"))), (1, 0));
}

#[test]
fn a_kick_affects_only_a_user_in_the_room() {
    in_both(|mut rig| {
        let admin = rig.account(1, Role::Admin);
        let (guest, poster) = (signed_guest(3, rig.moment.clock_ms), signed_guest(4, rig.moment.clock_ms));
        rig.word(join("tea", &guest));
        let unknown = Change::Kick { room: room("tea"), user: user(9), target: None };
        assert_eq!(rig.change(by(&admin), unknown), Err(Reason::NoSuchUser));
        let (_, events) = rig.change(by(&admin), kick("tea", &guest)).unwrap();
        assert_eq!(events, [Meaning::Kicked { room: room("tea"), user: user(3) }]);
        assert_eq!(rig.send(message("tea", &guest, "hi")), "kicked");
        assert_eq!(rig.send(message("jam", &guest, "hi")), "jam 1");
        let elsewhere = super::NewMessage { is_member: false, ..message("tea", &guest, "by a request") };
        assert_eq!(rig.send(elsewhere), "tea 1");
        rig.word(leave("tea", &guest));
        rig.word(join("tea", &guest));
        assert_eq!(rig.send(message("tea", &guest, "hi")), "tea 2", "a kick is no ban");
        // Later messages of a user that was not in the room are not refused.
        rig.change(by(&admin), kick("tea", &poster)).unwrap();
        assert_eq!(rig.send(message("tea", &poster, "hi")), "tea 3");
    });
}

#[test]
fn connections_are_counted_by_room_and_user() {
    in_both(|mut rig| {
        let (ana, eve) = (stranger(3), stranger(4));
        let present = |rig: &Rig| rig.store.present(&room("tea"));
        rig.words([join("tea", &ana), of_connection(2, join("tea", &ana)), join("tea", &eve)]);
        assert_eq!(present(&rig), 3);
        rig.words([leave("tea", &ana), leave("tea", &eve), leave("tea", &eve)]);
        assert_eq!(present(&rig), 1, "a connection that was never counted takes nothing away");
        rig.words([leave("tea", &ana), of_connection(2, leave("tea", &ana))]);
        assert_eq!(present(&rig), 0);
    });
}

#[test]
fn the_leave_of_a_refused_connection_removes_no_other_connection() {
    in_both(|mut rig| {
        let admin = rig.account(1, Role::Admin);
        let guest = signed_guest(3, rig.moment.clock_ms);
        let second = |entry| of_connection(2, entry);
        let Entry::Join(refused) = second(join("tea", &named(&guest, "User 1"))) else { unreachable!() };
        let refused = Entry::Join(Join { skeletons: Some(Skeletons::of(&admin.person.username)), ..refused });
        // The leave was proposed before the refusal was known.
        let words = rig.words([join("tea", &guest), refused.clone(), second(leave("tea", &guest))]);
        assert_eq!(words[1..], ["no join: name_reserved", "leave"]);
        assert_eq!(rig.store.present(&room("tea")), 1);
        rig.stored(message("tea", &guest, "hi"));
        let forget =
            [Change::Forget { room: room("tea"), up_to: Seq(1) }, Change::ForgetRooms { rooms: vec![room("tea")] }];
        rig.apply(forget.map(|one| change(By::Server, one)));
        assert_eq!(rig.send(message("tea", &guest, "again")), "tea 2", "the order goes on for the first connection");
        // The leave does not end a kick either, as messages of the first connection may be in flight.
        rig.change(by(&admin), kick("tea", &guest)).unwrap();
        rig.words([refused, second(leave("tea", &guest))]);
        assert_eq!(rig.send(message("tea", &guest, "hi")), "kicked");
        rig.word(leave("tea", &guest));
        assert_eq!(rig.send(message("tea", &guest, "hi")), "tea 3");
    });
}

#[test]
fn registration_follows_the_policy() {
    in_both(|mut rig| {
        let register = |number: u128, name: Option<u128>, code: Option<&str>, token: &str| Change::Register {
            account: NewAccount { id: user(number), ..new_account(name.unwrap_or(number), Role::User) },
            invitation: code.map(TokenHash::of),
            session: new_session(number as i64, SessionKind::Login, Some(token)),
            replaces: None,
        };
        let guest = by(&stranger(90));
        let closed = rig.change(guest.clone(), register(10, None, Some("code"), "a"));
        assert_eq!(closed, Err(Reason::RegistrationClosed));
        rig.change(By::Server, Change::SetPolicy(Policy { registration: Registration::Invite, ..Policy::default() }))
            .unwrap();
        let admin = rig.account(1, Role::Admin);
        rig.change(by(&admin), set_room("cellar", private())).unwrap();
        rig.change(by(&admin), Change::Invite(invitation(1, "code", None, 2))).unwrap();
        rig.change(by(&admin), Change::Invite(invitation(2, "cellar", Some("cellar"), 2))).unwrap();
        let uses_left = |rig: &Rig| rig.number("SELECT uses_left FROM invitations WHERE key = 1");

        let (done, _) = rig.change(guest.clone(), register(10, None, Some("code"), "a")).unwrap();
        let expires_ms = Some(rig.moment.wall_ms + crate::auth::credential::LOGIN_SPAN_MS);
        let expected = Done::Session {
            user: user(10),
            username: username("user 10"),
            role: Role::User,
            expires_ms,
            is_new_account: false,
        };
        assert_eq!(done, expected, "the time that is shown is wall time");
        assert_eq!(
            rig.change(by(&logged_in(10)), register(11, None, Some("code"), "b")),
            Err(Reason::AlreadyRegistered)
        );
        assert_eq!(rig.change(guest.clone(), register(11, Some(10), Some("code"), "b")), Err(Reason::NameTaken));
        assert_eq!(uses_left(&rig), 1, "a name that is taken uses nothing");
        for code in [None, Some("guess"), Some("cellar")] {
            assert_eq!(rig.change(guest.clone(), register(11, None, code, "b")), Err(Reason::RegistrationClosed));
        }
        rig.pass(DAY_MS - 1);
        rig.change(guest.clone(), register(11, None, Some("code"), "b")).unwrap();
        let used_up = rig.change(guest.clone(), register(12, None, Some("code"), "c"));
        assert_eq!((used_up, uses_left(&rig)), (Err(Reason::RegistrationClosed), 0));

        rig.change(by(&admin), Change::Invite(invitation(3, "late", None, 2))).unwrap();
        rig.pass(DAY_MS);
        let expired = rig.change(guest.clone(), register(12, None, Some("late"), "c"));
        assert_eq!(expired, Err(Reason::RegistrationClosed));
        rig.change(By::Server, Change::SetPolicy(Policy { registration: Registration::Open, ..Policy::default() }))
            .unwrap();
        rig.change(guest, register(12, None, None, "c")).unwrap();
        assert_eq!(rig.number("SELECT count(*) FROM accounts"), 4);
    });
}

#[test]
fn a_member_can_repeat_an_invitation_without_spending_it() {
    in_both(|mut rig| {
        let admin = rig.account(1, Role::Admin);
        let (member, other) = (stranger(3), stranger(4));
        rig.change(by(&admin), set_room("tea", private())).unwrap();
        rig.change(by(&admin), Change::Invite(invitation(1, "code", Some("tea"), 1))).unwrap();
        assert_eq!(rig.change(by(&member), use_invitation("jam", "code")), Err(Reason::NoSuchRoom), "another room's");
        let (_, events) = rig.change(by(&member), use_invitation("tea", "code")).unwrap();
        assert_eq!(events, [], "a new member removes no other member");
        let (_, events) = rig.change(by(&member), use_invitation("tea", "code")).unwrap();
        assert_eq!(events, []);
        assert_eq!(rig.change(by(&other), use_invitation("tea", "code")), Err(Reason::NoSuchRoom), "used up");
        assert_eq!(rig.change(by(&other), use_invitation("tea", "guess")), Err(Reason::NoSuchRoom));
        assert_eq!(
            rig.change(by(&other), Change::Invite(invitation(9, "mine", Some("tea"), 1))),
            Err(Reason::NotAdmin)
        );
        let to_public = Change::Invite(invitation(9, "mine", Some("jam"), 1));
        assert_eq!(rig.change(by(&admin), to_public), Err(Reason::RoomIsPublic));
    });
}

#[test]
fn a_login_needs_the_current_password_and_ends_the_oldest_login() {
    in_both(|mut rig| {
        let (old, new) = (PasswordHash::stored("$old"), PasswordHash::stored("$new"));
        rig.account(1, Role::User);
        let account = AccountRef::Id(user(1));
        let set = |password: &PasswordHash, old: Option<&PasswordHash>, keep| Change::SetPassword {
            account: account.clone(),
            password: password.clone(),
            old: old.cloned(),
            keep,
        };
        rig.change(By::Operator, set(&old, None, None)).unwrap();
        let log_in = |number: i64, password: &PasswordHash| {
            Change::LogIn(NewLogin {
                user: user(1),
                password: password.clone(),
                renewed: None,
                session: new_session(number, SessionKind::Login, Some(&format!("{number}"))),
                replaces: None,
            })
        };
        let guest = by(&stranger(90));
        assert_eq!(rig.change(guest.clone(), log_in(1, &new)), Err(Reason::WrongLogin));
        for number in 1..=LOGINS_PER_USER_MAX as i64 {
            let (_, events) = rig.change(guest.clone(), log_in(number, &old)).unwrap();
            assert_eq!(events, []);
            rig.pass(1);
        }
        let (_, events) = rig.change(guest.clone(), log_in(1_000, &old)).unwrap();
        assert_eq!(events, [Meaning::SessionsEnded { user: user(1), sessions: vec![SessionId(1)] }]);
        let client = |number: i64| {
            let proof = Proof::Account(SessionId(number));
            Arc::new(Principal { proof, ..Principal::clone(&logged_in(1)) })
        };
        assert_eq!(rig.send(message("tea", &client(1), "hi")), "session_ended");
        assert_eq!(rig.send(message("tea", &client(1_000), "hi")), "tea 1");

        let wrong = rig.change(by(&client(1_000)), set(&new, Some(&new), Some(SessionId(1_000))));
        assert_eq!(wrong, Err(Reason::WrongPassword));
        let others = rig.change(by(&stranger(3)), set(&new, Some(&old), None));
        assert_eq!(others, Err(Reason::NotYours));
        let (done, events) = rig.change(by(&client(1_000)), set(&new, Some(&old), Some(SessionId(1_000)))).unwrap();
        let sessions_ended = LOGINS_PER_USER_MAX - 1;
        assert_eq!(done, Done::Account { sessions_ended, has_admin: false });
        assert!(matches!(&events[..], [Meaning::SessionsEnded { sessions, .. }] if sessions.len() == sessions_ended));
        assert_eq!(rig.change(guest.clone(), log_in(2_000, &old)), Err(Reason::WrongLogin), "it was changed meanwhile");
        assert_eq!(rig.send(message("tea", &client(1_000), "hi")), "tea 2");
        rig.change(
            By::Operator,
            Change::Restrict(Restrict {
                user: user(1),
                restrictions: Restrictions {
                    mute_until_ms: None,
                    ban: Some(BanChange::Ban { until_ms: None, reason: "".into(), by_address: None }),
                },
                target: None,
                networks: vec![],
                is_shared: false,
            }),
        )
        .unwrap();
        assert_eq!(rig.change(guest, log_in(2_000, &new)), Err(Reason::Banned));
    });
}

#[test]
fn the_guests_of_an_address_are_banned_and_unbanned() {
    in_both(|mut rig| {
        let admin = rig.account(1, Role::Admin);
        let account = rig.account(2, Role::User);
        let (guest, neighbour) = (signed_guest(3, rig.moment.clock_ms), stranger(4));
        let ban = |networks| {
            let ban = BanChange::Ban { until_ms: None, reason: "".into(), by_address: Some(AddressBan::default()) };
            let restrictions = Restrictions { mute_until_ms: None, ban: Some(ban) };
            Change::Restrict(Restrict {
                user: user(3),
                restrictions,
                target: Some(Arc::clone(&guest)),
                networks,
                is_shared: false,
            })
        };
        assert_eq!(rig.change(by(&admin), ban(vec![])), Err(Reason::AddressUnknown));
        assert!(entered(&rig.word(join("tea", &guest))), "a refused ban has no effect");
        let (_, events) = rig.change(by(&admin), ban(vec![NETWORK])).unwrap();
        assert_eq!(events, [Meaning::UserEnded(user(3)), Meaning::GuestsBanned(NETWORK)]);
        let words = rig.words([
            join("tea", &guest),
            join("tea", &neighbour),
            join("tea", &account),
            Entry::Message(message("tea", &neighbour, "hi")),
        ]);
        assert_eq!(words, ["no join: banned", "no join: banned", "join 0 of 0, seen None", "banned"]);
        let unban = || Change::UnbanAddress { network: NETWORK };
        assert_eq!(rig.change(by(&account), unban()), Err(Reason::NotAdmin));
        rig.change(by(&admin), unban()).unwrap();
        assert_eq!(rig.change(by(&admin), unban()), Err(Reason::NotFound));
        assert_eq!(rig.words([join("tea", &guest)]), ["no join: banned"], "as a user");
        assert!(entered(&rig.word(join("tea", &neighbour))));
    });
}

fn rows_of_guests(rig: &Rig) -> i64 {
    rig.number("SELECT count(*) FROM sessions WHERE kind = 'guest'")
}

#[test]
fn a_signed_guest_needs_no_row_until_the_first_message() {
    in_both(|mut rig| {
        let admin = rig.account(1, Role::Admin);
        let guest = signed_guest(3, rig.moment.clock_ms);
        rig.stored(message("tea", &stranger(9), "hi"));
        rig.words([join("tea", &guest), leave("tea", &guest), join("tea", &guest)]);
        rig.change(by(&admin), set_room("cellar", RoomPatch { posting: Some(Posting::Admins), ..patch() })).unwrap();
        assert_eq!(rig.send(message("cellar", &guest, "hi")), "read_only");
        assert_eq!(rows_of_guests(&rig), 0, "a guest who only reads leaves no row, nor does a refused message");
        assert_eq!(rig.send(message("tea", &guest, "hi")), "tea 2");
        assert_eq!(rig.send(message("tea", &guest, "again")), "tea 3");
        assert_eq!(rows_of_guests(&rig), 1);
        let issued_ms = rig.moment.clock_ms as i64;
        assert_eq!(rig.number("SELECT created_ms FROM sessions"), rig.moment.shown(issued_ms as u64) as i64);
        assert_eq!(rig.number("SELECT expires_ms FROM sessions"), issued_ms + GUEST_SPAN_MS as i64);
    });
}

#[test]
fn moderation_and_an_invitation_store_a_guest() {
    in_both(|mut rig| {
        let admin = rig.account(1, Role::Admin);
        rig.change(by(&admin), set_room("cellar", private())).unwrap();
        rig.change(by(&admin), Change::Invite(invitation(1, "code", Some("cellar"), 5))).unwrap();
        let issued_ms = rig.moment.clock_ms;
        let guests: Vec<_> = (10..16).map(|number| signed_guest(number, issued_ms)).collect();
        let changes = [
            (&admin, mute(&guests[0], u64::MAX)),
            (&admin, ban(&guests[1])),
            (&admin, kick("tea", &guests[2])),
            (&guests[3], use_invitation("cellar", "code")),
            (&guests[4], Change::EndSession { session: SessionId::of_guest(user(14)) }),
        ];
        for (index, (client, made)) in changes.into_iter().enumerate() {
            rig.change(by(client), made).unwrap();
            assert_eq!(rows_of_guests(&rig), index as i64 + 1);
        }
        let name = |user| rig.reader.view(|view| view.user(user)).unwrap().and_then(|(_, name)| name);
        assert_eq!(name(user(10)), Some(username("user 10")), "a guest is listed under the name of then");
        assert_eq!(rig.change(by(&guests[5]), mute(&guests[0], 0)), Err(Reason::NotAdmin));
        assert_eq!(rows_of_guests(&rig), 5, "a refused change stores no guest");
    });
}

#[test]
fn a_guest_that_takes_a_name_is_stored_and_keeps_the_session() {
    in_both(|mut rig| {
        let issued_ms = rig.moment.clock_ms;
        let guest = signed_guest(3, issued_ms);
        let name = |name: &str| {
            let username = username(name);
            let session = new_session(SessionId::of_guest(user(3)).0, SessionKind::Guest, None);
            Change::NameGuest { user: user(3), skeletons: Skeletons::of(&username), username, session }
        };
        rig.change(by(&guest), name("ana")).unwrap();
        rig.pass(DAY_MS);
        rig.change(by(&guest), name("eve")).unwrap();
        assert_eq!(rows_of_guests(&rig), 1);
        let known = rig.reader.view(|view| view.user(user(3))).unwrap();
        assert_eq!(known, Some((Role::Guest, Some(username("eve")))));
        let expires_ms = (issued_ms + DAY_MS + GUEST_SPAN_MS) as i64;
        assert_eq!(rig.number("SELECT expires_ms FROM sessions"), expires_ms, "from its last use");
        rig.account(4, Role::User);
        assert_eq!(rig.change(by(&guest), name("USER 4")), Err(Reason::NameReserved));
        assert_eq!(rig.change(by(&logged_in(4)), name("x")), Err(Reason::LoggedIn));
    });
}

#[test]
fn a_guest_that_logged_out_stays_logged_out() {
    in_both(|mut rig| {
        let guest = signed_guest(3, rig.moment.clock_ms);
        let end = || Change::EndSession { session: SessionId::of_guest(user(3)) };
        let (_, events) = rig.change(by(&guest), end()).unwrap();
        assert!(events.contains(&Meaning::UserEnded(user(3))), "{events:?}");
        // An entry of that session that was in flight.
        assert_eq!(rig.send(message("tea", &guest, "hi")), "session_ended");
        assert_eq!(rig.word(join("tea", &guest)), "no join: session_ended");
        assert_eq!(rig.change(by(&guest), end()), Err(Reason::SessionEnded));
        let state = |rig: &Rig| rig.reader.view(|view| view.stored_guest(user(3))).unwrap();
        assert_eq!(state(&rig), super::people::StoredGuest::Over);
        // A use that was noted before does not restore the session.
        let issued_ms = rig.moment.clock_ms;
        rig.pass(DAY_MS);
        let used = Use::SignedGuest { user: user(3), issued_ms };
        rig.change(By::Server, Change::Seen { sessions: vec![used] }).unwrap();
        assert_eq!(state(&rig), super::people::StoredGuest::Over);
        assert_eq!(rows_of_guests(&rig), 1);
    });
}

#[test]
fn a_use_stores_a_guest_and_extends_its_session() {
    in_both(|mut rig| {
        let issued_ms = rig.moment.clock_ms;
        rig.pass(GUEST_SPAN_MS / 2);
        let used = Use::SignedGuest { user: user(3), issued_ms };
        rig.change(By::Server, Change::Seen { sessions: vec![used] }).unwrap();
        let now_ms = rig.moment.clock_ms;
        let column = |name| rig.number(&format!("SELECT {name} FROM sessions"));
        let columns = ["created_ms", "seen_ms", "expires_ms"].map(column);
        assert_eq!(columns, [rig.moment.shown(issued_ms), now_ms, now_ms + GUEST_SPAN_MS].map(|ms| ms as i64));
        // A token that has expired meanwhile is invalid, and no use renews it.
        rig.pass(2 * GUEST_SPAN_MS);
        let used = Use::SignedGuest { user: user(3), issued_ms };
        rig.change(By::Server, Change::Seen { sessions: vec![used] }).unwrap();
        assert_eq!(rig.number("SELECT expires_ms FROM sessions"), (now_ms + GUEST_SPAN_MS) as i64);
    });
}

#[test]
fn noted_uses_become_an_entry() {
    let mut rig = Rig::in_file();
    let issued_ms = rig.moment.clock_ms;
    let used = || Use::SignedGuest { user: user(3), issued_ms };
    rig.reader.note_use(used());
    rig.reader.note_use(used());
    assert_eq!(rows_of_guests(&rig), 0, "not at once");
    rig.store.note_uses_now();
    assert_eq!(rows_of_guests(&rig), 1);
    let writes = rig.number("SELECT total_changes()");
    rig.store.note_uses_now();
    assert_eq!(rig.number("SELECT total_changes()"), writes, "without uses nothing is written");
}

#[test]
fn a_login_ends_the_guest_session_that_it_replaces() {
    in_both(|mut rig| {
        let guest = signed_guest(3, rig.moment.clock_ms);
        rig.change(By::Server, Change::SetPolicy(Policy { registration: Registration::Open, ..Policy::default() }))
            .unwrap();
        let register = Change::Register {
            account: new_account(5, Role::User),
            invitation: None,
            session: new_session(50, SessionKind::Login, Some("t")),
            replaces: guest.session(),
        };
        let (_, events) = rig.change(by(&guest), register).unwrap();
        assert!(events.contains(&Meaning::UserEnded(user(3))), "{events:?}");
        let state = rig.reader.view(|view| view.stored_guest(user(3))).unwrap();
        assert_eq!(state, super::people::StoredGuest::Over, "its token would be valid without a row");
        assert!(rig.reader.view(|view| view.session(TokenHash::of("t"))).unwrap().is_some());
    });
}

#[test]
fn only_the_server_and_the_operator_can_propose_their_changes() {
    in_both(|mut rig| {
        let admin = rig.account(1, Role::Admin);
        let key = GuestKey::from_bytes([7; 32]);
        let of_the_server = [
            Change::Forget { room: room("tea"), up_to: Seq(1) },
            Change::EraseMessages { room: room("tea"), messages: vec![] },
            Change::ForgetRooms { rooms: vec![] },
            Change::ForgetSessions { sessions: vec![] },
            Change::ForgetAuditEntries { entries: vec![] },
            Change::SetPolicy(Policy::default()),
        ];
        for made in of_the_server {
            assert_eq!(rig.change(by(&admin), made.clone()), Err(Reason::NotAdmin), "{made:?}");
            assert_eq!(rig.change(By::Operator, made.clone()), Err(Reason::NotAdmin), "{made:?}");
            assert!(rig.change(By::Server, made).is_ok());
        }
        let of_the_operator = [
            Change::CreateAccount(new_account(5, Role::Admin)),
            set_role(1, Role::User),
            Change::RotateGuestKey { key: key.clone() },
        ];
        for made in of_the_operator {
            assert_eq!(rig.change(by(&admin), made.clone()), Err(Reason::NotAdmin), "{made:?}");
            assert_eq!(rig.change(By::Server, made.clone()), Err(Reason::NotAdmin), "{made:?}");
            assert!(rig.change(By::Operator, made).is_ok());
        }
        assert_eq!(rig.reader.policy().guest_key.as_bytes(), key.as_bytes());
    });
}

#[test]
fn ids_and_seqs_depend_on_the_moment_alone() {
    let mut rigs = [Rig::in_memory(), Rig::in_file()];
    let moment = rigs[0].moment;
    let ids = rigs.each_mut().map(|rig| {
        rig.moment = moment;
        let batch = ["one", "two"].map(|content| Entry::Message(message("tea", &stranger(3), content)));
        let stored = |outcome| match outcome {
            Outcome::Stored { stored, .. } => (stored.id, stored.json),
            other => panic!("{other:?}"),
        };
        rig.apply(batch).into_iter().map(stored).collect::<Vec<_>>()
    });
    assert_eq!(ids[0], ids[1], "both storages make the same bytes");
    assert!(ids[0][0].0 < ids[0][1].0);
}

#[test]
fn several_batches_share_one_transaction() {
    let mut rig = Rig::in_file();
    let batch = |content: &str| proposals([Entry::Message(message("tea", &stranger(3), content))]);
    let later = super::Moment { index: rig.moment.index + 1, ..rig.moment };
    let applied = rig.store.apply(vec![(rig.moment, batch("one")), (later, batch("two"))]);
    let words: Vec<_> = applied.iter().map(|applied| word(&applied.result)).collect();
    assert_eq!(words, ["tea 1", "tea 2"]);
    let trigger = "CREATE TEMP TRIGGER refuse BEFORE INSERT ON messages WHEN NEW.content = 'breaks'
                   BEGIN SELECT RAISE(ABORT, 'no'); END";
    rig.store.on_connection(|connection| connection.execute_batch(trigger).unwrap());
    let moments = [2, 3].map(|step| super::Moment { index: rig.moment.index + step, ..rig.moment });
    let applied = rig.store.apply(vec![(moments[0], batch("three")), (moments[1], batch("breaks"))]);
    let words: Vec<_> = applied.iter().map(|applied| word(&applied.result)).collect();
    assert_eq!(words, ["not_stored", "not_stored"]);
    let page = rig.reader.view(|view| view.page(&room("tea"), Side::After(Seq(0)), Kinds::All, 9)).unwrap();
    assert_eq!(contents(&page), ["one", "two"]);
}

#[test]
fn changes_still_work_after_a_fault_in_memory() {
    let mut rig = Rig::in_memory();
    let admin = rig.account(1, Role::Admin);
    let guest = signed_guest(3, rig.moment.clock_ms);
    let trigger = "CREATE TEMP TRIGGER refuse BEFORE INSERT ON mutes BEGIN SELECT RAISE(ABORT, 'no'); END";
    rig.store.on_connection(|connection| connection.execute_batch(trigger).unwrap());
    let slow = RoomPatch { slow_mode_s: Some(30), ..patch() };
    let entries = [change(by(&admin), set_room("tea", slow)), change(by(&admin), mute(&guest, u64::MAX))];
    assert_eq!(rig.words(entries), ["busy", "busy"]);
    assert!(rig.store.on_connection(super::Connection::is_autocommit), "no savepoint is left open");
    assert_eq!(rig.store.policy().muted_until(user(3), rig.moment.clock_ms), None);
    // Memory has no transaction around a batch, so the proposer does not learn the results of the earlier entries.
    let stored = rig.number("SELECT count(*) FROM room_settings") == 1;
    assert_eq!(stored, rig.store.policy().room(&room("tea")).is_some(), "the policy is that of the tables");
    rig.store.on_connection(|connection| connection.execute_batch("DROP TRIGGER refuse").unwrap());
    assert_eq!(rig.words([change(by(&admin), mute(&guest, u64::MAX))]), ["changed"]);
}
