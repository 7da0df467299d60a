//! Admins that join private rooms, and open them.

use std::time::{Duration, Instant};

use super::*;
use crate::store::terms::Terms;
use crate::store::{Place, ReadError};

#[test]
fn an_admin_that_joins_a_private_room_reads_from_then_on() {
    in_both(|mut rig| {
        let (admin, other) = (rig.account(1, Role::Admin), rig.account(2, Role::Admin));
        let guest = stranger(3);
        rig.change(by(&admin), set_room("tea", private())).unwrap();
        for number in 1..=3 {
            rig.stored(message("tea", &admin, &format!("secret {number}")));
        }
        assert_eq!(rig.word(join("tea", &guest)), "no join: no_such_room");
        let joined = rig.apply([join("tea", &other)]);
        let [Outcome::Joined { events, past: Some(past), .. }] = &joined[..] else { panic!("{joined:?}") };
        let [Meaning::Noticed { room: noticed, stored }] = &events[..] else { panic!("{events:?}") };
        assert_eq!((noticed, stored.seq, stored.is_event, past.head), (&room("tea"), Seq(4), false, Seq(4)));
        let floor = rig.reader.policy().floor(&room("tea"), other.user());
        assert_eq!((floor, rig.reader.policy().floor(&room("tea"), admin.user())), (Seq(3), Seq(0)));
        rig.stored(message("tea", &other, "secret 5"));
        let read = |side: Side| {
            let page = rig.reader.view(|view| view.page(&room("tea"), side.above(floor), Kinds::Messages, 9)).unwrap();
            page.iter().map(|stored| stored.seq.0).collect::<Vec<_>>()
        };
        assert_eq!((read(Side::After(Seq(0))), read(Side::Before(Seq(9)))), (vec![4, 5], vec![4, 5]));
        assert_eq!((read(Side::Before(Seq(3))), read(Side::After(Seq(4)))), (vec![], vec![5]));
        let terms = Terms::parse("secret").unwrap();
        let part = Side::Before(Seq(9)).above(floor);
        let soon = Instant::now() + Duration::from_secs(60);
        let found = rig.reader.search(&room("tea"), &terms, 9, soon, |_| Ok::<_, ReadError>(part)).unwrap();
        assert_eq!(contents(&found.frames), ["secret 5"]);
        // What it may not read is not there for it.
        let hidden =
            rig.reader.view(|view| view.page(&room("tea"), Side::After(Seq(0)), Kinds::All, 1)).unwrap().remove(0).id;
        let reply = Body::Text { content: "re".into(), reply_to: Some(hidden) };
        assert_eq!(rig.send(message("tea", &other, "").with_body(reply)), "no_such_reply");
        assert_eq!(rig.send(delete("tea", &other, hidden)), "no_such_message");
        let place = |id, floor| rig.reader.view(|view| view.place(&room("tea"), id, floor)).unwrap();
        assert_eq!((place(hidden, Seq(0)), place(hidden, floor)), (Place::At(Seq(1)), Place::Forgotten));
        let before_it = FrameId(uuid::Uuid::from_u128(hidden.0.as_u128() + 1));
        assert_eq!((place(before_it, Seq(0)), place(before_it, floor)), (Place::Unknown, Place::Forgotten));
        // It joins once, and the others need no notice.
        assert_eq!(rig.words([leave("tea", &other), join("tea", &other)]).len(), 2);
        assert_eq!(rig.reader.view(|view| view.head(&room("tea"))).unwrap(), Seq(5));
        let (_, events) = rig.change(by(&other), set_room("tea", plain())).unwrap();
        assert!(matches!(events[..], [Meaning::RoomChanged { .. }, Meaning::Noticed { .. }]), "{events:?}");
        assert_eq!(rig.reader.policy().floor(&room("tea"), other.user()), Seq(0), "all can read all");
    });
}

#[test]
fn the_order_of_a_room_goes_on_while_a_member_may_not_read_all_of_it() {
    in_both(|mut rig| {
        let (admin, other) = (rig.account(1, Role::Admin), rig.account(2, Role::Admin));
        rig.change(by(&admin), set_room("tea", private())).unwrap();
        rig.stored(message("tea", &admin, "secret"));
        rig.words([join("tea", &other), leave("tea", &other)]);
        let forget =
            [Change::Forget { room: room("tea"), up_to: Seq(2) }, Change::ForgetRooms { rooms: vec![room("tea")] }];
        rig.apply(forget.map(|one| change(By::Server, one)));
        assert_eq!(rig.send(message("tea", &admin, "more")), "tea 3");
    });
}
