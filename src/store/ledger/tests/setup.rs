//! The setup link, in both storages: who can make it, when its code is valid, and that it makes one admin.

use super::*;
use crate::limits::SETUP_SPAN_MS;

fn offer(code: &str) -> Change {
    Change::OfferSetup { code_hash: TokenHash::of(code), span_ms: SETUP_SPAN_MS }
}

/// A guest that registers with a code, or without one. `number` is the account's.
fn register(number: u128, code: Option<&str>) -> Change {
    Change::Register {
        account: new_account(number, Role::User),
        invitation: code.map(TokenHash::of),
        session: new_session(number as i64, SessionKind::Login, Some(&format!("token {number}"))),
        replaces: None,
    }
}

fn guest() -> By {
    by(&stranger(90))
}

fn role_of(done: &Done) -> Role {
    let Done::Session { role, .. } = done else { panic!("{done:?}") };
    *role
}

fn set_registration(rig: &mut Rig, registration: Registration) {
    rig.change(By::Server, Change::SetPolicy(Policy { registration, ..Policy::default() })).unwrap();
}

#[test]
fn a_setup_link_makes_one_admin_whatever_the_registration_policy_says() {
    for registration in Registration::ALL {
        in_both(|mut rig| {
            set_registration(&mut rig, *registration);
            rig.account(5, Role::User);
            let (done, events) = rig.change(By::Operator, offer("code")).unwrap();
            assert_eq!((done, events), (Done::Invited { expires_ms: rig.moment.wall_ms + SETUP_SPAN_MS }, vec![]));
            let mut other = register(10, Some("another"));
            if *registration == Registration::Open {
                // Without the code, the account is an ordinary one.
                let (done, _) = rig.change(guest(), other).unwrap();
                assert_eq!(role_of(&done), Role::User);
                other = register(11, None);
                assert_eq!(role_of(&rig.change(guest(), other).unwrap().0), Role::User);
            } else {
                assert_eq!(rig.change(guest(), other), Err(Reason::RegistrationClosed));
            }

            let (done, _) = rig.change(guest(), register(1, Some("code"))).unwrap();
            let expires_ms = Some(rig.moment.wall_ms + crate::auth::credential::LOGIN_SPAN_MS);
            let username = username("user 1");
            let expected =
                Done::Session { user: user(1), username, role: Role::Admin, expires_ms, is_new_account: false };
            assert_eq!(done, expected);
            assert_eq!(rig.reader.policy().account_role(user(1)), Some(Role::Admin));
            assert_eq!(rig.number("SELECT count(*) FROM accounts WHERE role = 'admin'"), 1);
            assert!(rig.change(by(&logged_in(1)), set_room("tea", patch())).is_ok());
            assert_eq!(rig.change(guest(), register(2, Some("code"))), Err(Reason::NoSuchInvitation));
        });
    }
}

#[test]
fn only_the_operator_makes_a_setup_link_and_only_without_an_admin() {
    in_both(|mut rig| {
        let user = rig.account(5, Role::User);
        for proposer in [by(&user), guest(), By::Server] {
            assert_eq!(rig.change(proposer, offer("code")), Err(Reason::NotAdmin));
        }
        assert_eq!(rig.change(guest(), register(1, Some("code"))), Err(Reason::RegistrationClosed));
        let admin = rig.account(6, Role::Admin);
        assert_eq!(rig.change(by(&admin), offer("code")), Err(Reason::NotAdmin));
        assert_eq!(rig.change(By::Operator, offer("code")), Err(Reason::HasAdmin));
        rig.change(By::Operator, set_role(6, Role::User)).unwrap();
        rig.change(By::Operator, offer("code")).unwrap();
        assert_eq!(rig.change(by(&user), register(1, Some("code"))), Err(Reason::AlreadyRegistered));
        rig.change(guest(), register(1, Some("code"))).unwrap();
    });
}

#[test]
fn a_setup_link_expires_after_an_hour_of_log_time() {
    in_both(|mut rig| {
        rig.change(By::Operator, offer("code")).unwrap();
        // Jumps of the wall clock count for nothing.
        rig.moment.wall_ms += 1_000 * DAY_MS;
        rig.pass(SETUP_SPAN_MS - 1);
        assert_eq!(rig.change(guest(), register(1, Some("guess"))), Err(Reason::RegistrationClosed));
        rig.pass(1);
        rig.moment.wall_ms -= 2_000 * DAY_MS;
        assert_eq!(rig.change(guest(), register(1, Some("code"))), Err(Reason::NoSuchInvitation));
        rig.change(By::Operator, offer("next")).unwrap();
        rig.pass(SETUP_SPAN_MS - 1);
        let (done, _) = rig.change(guest(), register(1, Some("next"))).unwrap();
        assert_eq!(role_of(&done), Role::Admin);
    });
}

#[test]
fn a_newer_setup_link_replaces_the_older_one() {
    in_both(|mut rig| {
        rig.change(By::Operator, offer("old")).unwrap();
        rig.change(By::Operator, offer("new")).unwrap();
        assert_eq!(rig.change(guest(), register(1, Some("old"))), Err(Reason::RegistrationClosed));
        rig.change(guest(), register(1, Some("new"))).unwrap();
        assert_eq!(rig.change(guest(), register(2, Some("old"))), Err(Reason::RegistrationClosed));
    });
}

#[test]
fn of_two_registrations_with_one_setup_link_one_succeeds() {
    for registration in Registration::ALL {
        in_both(|mut rig| {
            set_registration(&mut rig, *registration);
            rig.change(By::Operator, offer("code")).unwrap();
            let words = rig.words([1, 2].map(|number| change(guest(), register(number, Some("code")))));
            assert_eq!(words, ["changed", "no_such_invitation"]);
            assert_eq!(rig.number("SELECT count(*) FROM accounts"), 1);
        });
    }
}

#[test]
fn every_new_admin_ends_the_setup_link_for_good() {
    let new_admins: [&[Change]; 3] = [
        &[Change::CreateAccount(new_account(7, Role::Admin))],
        &[Change::CreateAccount(new_account(7, Role::User)), set_role(7, Role::Admin)],
        &[Change::CreateToken {
            account: new_account(7, Role::Admin),
            session: new_session(7, SessionKind::Bot, Some("bot")),
        }],
    ];
    for changes in new_admins {
        in_both(|mut rig| {
            set_registration(&mut rig, Registration::Open);
            rig.change(By::Operator, offer("code")).unwrap();
            for made in changes {
                rig.change(By::Operator, made.clone()).unwrap();
            }
            assert_eq!(rig.change(guest(), register(1, Some("code"))), Err(Reason::NoSuchInvitation));
            rig.change(By::Operator, set_role(7, Role::User)).unwrap();
            assert_eq!(rig.change(guest(), register(1, Some("code"))), Err(Reason::NoSuchInvitation));
            rig.change(By::Operator, Change::RemoveAccount { account: AccountRef::Id(user(7)) }).unwrap();
            assert_eq!(rig.change(guest(), register(1, Some("code"))), Err(Reason::NoSuchInvitation));
        });
    }
}

#[test]
fn a_refused_registration_leaves_the_setup_link_valid() {
    in_both(|mut rig| {
        set_registration(&mut rig, Registration::Invite);
        rig.account(5, Role::User);
        rig.change(By::Operator, offer("code")).unwrap();
        let taken = Change::Register {
            account: NewAccount { id: user(1), ..new_account(5, Role::User) },
            invitation: Some(TokenHash::of("code")),
            session: new_session(1, SessionKind::Login, Some("token")),
            replaces: None,
        };
        assert_eq!(rig.change(guest(), taken), Err(Reason::NameTaken));
        let banned = stranger(91);
        rig.change(By::Operator, ban(&banned)).unwrap();
        assert_eq!(rig.change(by(&banned), register(1, Some("code"))), Err(Reason::Banned));
        assert_eq!(role_of(&rig.change(guest(), register(1, Some("code"))).unwrap().0), Role::Admin);
    });
}

#[test]
fn a_setup_link_stays_valid_over_a_restart() {
    let mut rig = Rig::in_file();
    rig.change(By::Operator, offer("code")).unwrap();
    let mut rig = rig.restarted();
    rig.change(guest(), register(1, Some("code"))).unwrap();
    let mut rig = rig.restarted();
    rig.change(By::Operator, set_role(1, Role::User)).unwrap();
    assert_eq!(rig.change(guest(), register(2, Some("code"))), Err(Reason::NoSuchInvitation));
}
