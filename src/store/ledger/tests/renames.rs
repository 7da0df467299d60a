//! Renames: a user has one name at a time, its rooms are told of a new one, and no guest keeps the name of an account.

use super::*;
use crate::limits::RENAME_INTERVAL_MS;
use crate::model::RoomId;
use crate::store::entry::{Renamed, Stored};

/// Joins with another connection.
fn join_again(name: &str, principal: &Arc<Principal>) -> Entry {
    of_connection(2, join(name, principal))
}

/// Asks for a name over HTTP.
fn name_guest(guest: &Principal, name: &str) -> Change {
    let session = SessionId::of_guest(guest.user());
    let session = crate::store::change::NewSession { id: session, ..new_session(1, SessionKind::Guest, None) };
    Change::NameGuest {
        user: guest.user(),
        username: username(name),
        skeletons: Skeletons::of(&username(name)),
        session,
    }
}

/// A rename: the former name, the new one, and the stored frames.
type Told = (String, String, Vec<(RoomId, Stored)>);

/// The renames that entries have caused.
fn renames(outcomes: Vec<Outcome>) -> Vec<Told> {
    let events = outcomes.into_iter().flat_map(|outcome| match outcome {
        Outcome::Changed { events, .. } | Outcome::Joined { events, .. } => events,
        _ => Vec::new(),
    });
    let renamed = events.filter_map(renamed_by);
    renamed.map(|Renamed { former, username, stored, .. }| (former.to_string(), username.to_string(), stored)).collect()
}

fn renamed_by(event: Meaning) -> Option<Renamed> {
    if let Meaning::Renamed(renamed) = event { Some(renamed) } else { None }
}

/// The name that a join was given instead of the one that it asked for.
fn given_name(rig: &mut Rig, entry: Entry) -> Option<String> {
    match rig.apply([entry]).pop() {
        Some(Outcome::Joined { username, .. }) => username.map(|username| username.to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_second_connection_under_another_name_renames_the_user() {
    in_both(|mut rig| {
        let ana = named(&signed_guest(3, rig.moment.clock_ms), "Ana");
        let ann = named(&ana, "Ann");
        rig.stored(message("tea", &stranger(9), "hi"));
        rig.words([join("tea", &ana), join("new", &ana)]);
        rig.moment.index += 1;
        let renamed = renames(rig.apply([join_again("tea", &ann)]));
        let [(former, username, stored)] = &renamed[..] else { panic!("{renamed:?}") };
        assert_eq!((&**former, &**username), ("Ana", "Ann"));
        // The room without messages gets no stored frame.
        let [(told, frame)] = &stored[..] else { panic!("{stored:?}") };
        assert_eq!((told.as_str(), frame.seq, frame.is_event), ("tea", Seq(2), true));
        let json: serde_json::Value = serde_json::from_slice(&frame.json).unwrap();
        for (field, value) in [("type", "rename"), ("content", "Ann"), ("username", "Ann"), ("former", "Ana")] {
            assert_eq!(json[field], value, "{field}");
        }
        let kept = rig.reader.view(|view| view.page(&room("tea"), Side::After(Seq(1)), Kinds::All, 9)).unwrap();
        assert_eq!(kept, std::slice::from_ref(frame), "it is read as it was sent");
        assert_eq!(rig.page("tea", Some("Ann")), [""; 0], "it is no message");
        // A message of the first connection that was on its way has the new name.
        let stored = rig.stored(message("tea", &ana, "hi"));
        assert!(String::from_utf8_lossy(&stored.json).contains(r#""username":"Ann""#));
        assert_eq!(rig.number("SELECT count(*) FROM sessions WHERE username = 'Ann'"), 1);
    });
}

#[test]
fn a_user_is_renamed_once_a_minute_and_keeps_its_name_if_it_asks_for_none() {
    in_both(|mut rig| {
        let ana = named(&signed_guest(3, rig.moment.clock_ms), "Ana");
        rig.words([join("tea", &ana)]);
        for anonymous in ["Anonymous", "Ana"] {
            let joined = rig.apply([join_again("tea", &named(&ana, anonymous))]);
            assert_eq!(renames(joined), [], "{anonymous}");
        }
        assert_eq!(given_name(&mut rig, join_again("new", &named(&ana, "Anonymous"))).as_deref(), Some("Ana"));
        assert_eq!(renames(rig.apply([join_again("tea", &named(&ana, "Ann"))])).len(), 1);
        rig.pass(RENAME_INTERVAL_MS - 1);
        for name in ["Ana", "Anna"] {
            assert_eq!(given_name(&mut rig, join_again("tea", &named(&ana, name))).as_deref(), Some("Ann"));
            assert_eq!(rig.change(by(&ana), name_guest(&ana, name)), Err(Reason::RenamedRecently));
        }
        rig.pass(1);
        let (_, events) = rig.change(by(&ana), name_guest(&ana, "Anna")).unwrap();
        assert!(matches!(&events[..], [Meaning::Renamed(renamed)] if renamed.username.as_str() == "Anna"));
        assert_eq!(renames(rig.apply([join_again("tea", &named(&ana, "Anya"))])), []);
        // A user that has left has no name to keep.
        let rooms = ["tea", "new"].map(|room| [leave(room, &ana), of_connection(2, leave(room, &ana))]);
        rig.apply(rooms.into_iter().flatten());
        assert_eq!(given_name(&mut rig, join("tea", &named(&ana, "Anya"))), None);
    });
}

#[test]
fn a_guest_with_the_name_of_a_new_account_is_renamed() {
    in_both(|mut rig| {
        let issued_ms = rig.moment.clock_ms;
        let signed = |number, name: &str| named(&signed_guest(number, issued_ms), name);
        let guests = [(3, "User 1"), (4, "user one"), (5, "𝐮𝐬𝐞𝐫 1"), (6, "Anonymous")];
        let guests = guests.map(|(number, name)| signed(number, name));
        rig.apply(guests.iter().map(|guest| join("tea", guest)));
        let made = change(By::Operator, Change::CreateAccount(new_account(1, Role::User)));
        let mut names = renames(rig.apply([made])).into_iter().map(|(former, username, _)| (former, username));
        assert_eq!(names.next(), Some(("User 1".into(), "User 1 (guest)".into())));
        assert_eq!(names.next(), Some(("𝐮𝐬𝐞𝐫 1".into(), "𝐮𝐬𝐞𝐫 1 (guest)".into())));
        assert_eq!(names.next(), None);
        // It can join other rooms, and choose a name of its own at once.
        let Entry::Join(next) = join("new", &signed(3, "User 1 (guest)")) else { unreachable!() };
        let skeletons = Some(Skeletons::of(&next.principal.person.username));
        assert!(entered(&rig.word(Entry::Join(Join { skeletons, ..next }))));
        let (_, events) = rig.change(by(&guests[0]), name_guest(&guests[0], "Una")).unwrap();
        assert!(matches!(&events[..], [Meaning::Renamed(_)]));
    });
}

#[test]
fn a_guest_that_registers_under_its_own_name_is_not_renamed() {
    in_both(|mut rig| {
        let flags = Policy { registration: Registration::Open, ..Policy::default() };
        rig.change(By::Server, Change::SetPolicy(flags)).unwrap();
        let guest = named(&signed_guest(3, rig.moment.clock_ms), "User 1");
        let other = named(&signed_guest(4, rig.moment.clock_ms), "User 1");
        rig.apply([join("tea", &guest), join("tea", &other)]);
        let register = Change::Register {
            account: new_account(1, Role::User),
            invitation: None,
            session: new_session(1, SessionKind::Login, Some("token")),
            replaces: Some(SessionId::of_guest(guest.user())),
        };
        let (_, events) = rig.change(by(&guest), register).unwrap();
        let users: Vec<_> = events.into_iter().filter_map(renamed_by).map(|renamed| renamed.user).collect();
        assert_eq!(users, [other.user()]);
    });
}

#[test]
fn a_long_name_is_cut_so_that_it_says_that_it_is_a_guests() {
    in_both(|mut rig| {
        let long = "ক".repeat(32);
        let guest = named(&signed_guest(3, 1), &long);
        rig.apply([join("tea", &guest)]);
        let account = NewAccount {
            name: username(&long),
            skeletons: Skeletons::of(&username(&long)),
            ..new_account(1, Role::User)
        };
        let renamed = renames(rig.apply([change(By::Operator, Change::CreateAccount(account))]));
        assert_eq!(renamed[0].1, format!("{} (guest)", "ক".repeat(24)));
        // A second one of that kind would have the name of another account.
        let taken = username(&renamed[0].1);
        let account = NewAccount { skeletons: Skeletons::of(&taken), name: taken, ..new_account(2, Role::User) };
        let renamed = renames(rig.apply([change(By::Operator, Change::CreateAccount(account))]));
        assert_eq!(renamed[0].1, "Anonymous");
    });
}

#[test]
fn a_guest_from_before_the_first_account_does_not_come_back_under_an_accounts_name() {
    in_both(|mut rig| {
        let guest = named(&signed_guest(3, rig.moment.clock_ms), "User 1");
        rig.words([join("tea", &guest), leave("tea", &guest)]);
        rig.account(1, Role::User);
        // Its connection has no skeletons, because there were no names to protect when it began.
        assert_eq!(rig.word(join("tea", &guest)), "no join: name_reserved");
        assert!(entered(&rig.word(join("tea", &named(&guest, "Una")))));
    });
}

#[test]
fn a_muted_guest_keeps_its_name() {
    in_both(|mut rig| {
        let admin = rig.account(1, Role::Admin);
        let ana = named(&signed_guest(3, rig.moment.clock_ms), "Ana");
        rig.apply([join("tea", &ana)]);
        rig.change(by(&admin), mute(&ana, u64::MAX)).unwrap();
        assert_eq!(given_name(&mut rig, join_again("tea", &named(&ana, "Ann"))).as_deref(), Some("Ana"));
        assert_eq!(rig.change(by(&ana), name_guest(&ana, "Ann")), Err(Reason::Muted));
        assert!(rig.change(by(&ana), name_guest(&ana, "Ana")).is_ok(), "that is its name");
    });
}
