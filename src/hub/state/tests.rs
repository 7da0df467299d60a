//! Tests of refused joins, leases, the presence that the state publishes, and the facts that it adds to changes.

use std::time::Duration;

use super::*;
use crate::hub::fixtures::{
    Desk, NOW_MS, account, begin_round, from_network, guest, moment, person, policy, room, stored, user, without_lease,
};
use crate::limits::MEMBERS_LISTED_MAX;
use crate::model::Seq;
use crate::protocol::Restrictions;
use crate::store::accounts::RoomSettings;
use crate::store::entry::{Past, Stored};

#[test]
fn a_refused_first_join_ends_the_connection() {
    let mut desk = Desk::new(&Limits::default());
    desk.connect(1, &guest(1, "ana"), "tea");
    desk.refuse_join(Reason::NameReserved);
    let [error] = &desk.inboxes[&1][..] else { panic!("{:?}", desk.inboxes) };
    assert_eq!((&error["type"], &error["room_id"]), (&"error".into(), &"tea".into()));
    assert_eq!((&error["code"], &error["reason"]), (&"bad_name".into(), &"name_reserved".into()));
    assert_eq!(error.get("nonce"), None);
    assert_eq!(desk.closed, [(1, CloseReason::SessionEnded)]);
    assert_empty(&desk);
}

#[test]
fn a_refused_join_of_another_room_leaves_the_others() {
    let mut desk = Desk::new(&Limits::default());
    desk.come(1, &guest(1, "ana"), "tea");
    desk.come(2, &guest(2, "ben"), "tea");
    desk.take_frames();
    desk.send(1, r#"{"type":"join","room_id":"attic","nonce":"n1"}"#);
    desk.refuse_join(Reason::NoSuchRoom);
    let [error] = &desk.take_frames_of(1)[..] else { panic!() };
    assert_eq!((&error["reason"], &error["nonce"]), (&"no_such_room".into(), &"n1".into()));
    assert_eq!((&error["room_id"], error["code"].as_str()), (&"attic".into(), Some("not_found")));
    assert_eq!((desk.closed.len(), desk.state.room_count(), desk.state.member_count()), (0, 1, 2));
    // The client still gets the frames of the first room, and may ask for the other room again.
    desk.disconnect(2, false);
    desk.settle();
    assert_eq!(desk.take_frames()[&1], ["leave ben in tea"]);
    desk.send(1, r#"{"type":"join","room_id":"attic"}"#);
    desk.settle();
    assert_eq!(desk.take_frames()[&1], ["welcome in attic"]);
}

#[test]
fn a_connection_that_has_left_its_first_room_may_be_refused_another() {
    let mut desk = Desk::new(&Limits::default());
    desk.come(1, &guest(1, "ana"), "tea");
    desk.send(1, r#"{"type":"leave"}"#);
    desk.settle();
    desk.send(1, r#"{"type":"join","room_id":"attic"}"#);
    desk.refuse_join(Reason::NoSuchRoom);
    assert_eq!((desk.closed.len(), desk.state.member_count()), (0, 1));
    desk.send(1, r#"{"type":"join","room_id":"tea"}"#);
    desk.settle();
    assert_eq!(desk.take_frames()[&1].last().unwrap(), "welcome in tea");
}

#[test]
fn a_refused_join_with_a_pending_leave_leaves_no_state() {
    for is_first in [true, false] {
        for is_empty in [true, false] {
            let mut desk = Desk::new(&without_lease());
            if !is_empty {
                desk.come(2, &guest(2, "ben"), "attic");
            }
            if is_first {
                desk.connect(1, &guest(1, "ana"), "attic");
            } else {
                desk.come(1, &guest(1, "ana"), "tea");
                desk.send(1, r#"{"type":"join","room_id":"attic","nonce":"n1"}"#);
            }
            desk.take_frames();
            desk.send(1, r#"{"type":"leave","room_id":"attic"}"#);
            desk.refuse_join(Reason::NoSuchRoom);
            desk.settle();
            let context = format!("first: {is_first}, empty: {is_empty}");
            // It gets no `leave`, because there was no `join`; and the room's members get no frame.
            let frames = desk.take_frames();
            assert_eq!(frames.into_iter().collect::<Vec<_>>(), [(1, vec!["error no_such_room in attic".to_owned()])]);
            assert_eq!(desk.closed.len(), usize::from(is_first), "{context}");
            assert_eq!(desk.state.room_count(), usize::from(!is_first) + usize::from(!is_empty), "{context}");
            for connection in [1, 2] {
                desk.disconnect(connection, false);
            }
            desk.settle();
            assert_empty(&desk);
        }
    }
}

#[test]
fn a_room_that_is_left_and_joined_again_gets_each_answer_in_order() {
    let mut desk = Desk::new(&without_lease());
    desk.come(1, &guest(1, "ana"), "tea");
    desk.take_frames();
    desk.send(1, r#"{"type":"join","room_id":"attic","nonce":"n1"}"#);
    desk.send(1, r#"{"type":"leave","room_id":"attic"}"#);
    desk.send(1, r#"{"type":"join","room_id":"attic","nonce":"n2"}"#);
    desk.refuse_join(Reason::NoSuchRoom);
    assert_eq!(desk.inboxes[&1][0]["nonce"], "n1");
    desk.settle();
    assert_eq!(desk.take_frames()[&1], ["error no_such_room in attic", "welcome in attic"]);
    desk.send(1, r#"{"type":"leave","room_id":"attic"}"#);
    desk.send(1, r#"{"type":"join","room_id":"attic","nonce":"n3"}"#);
    let Some(Proposal { entry: Entry::Leave { room, .. }, reply_to }) = desk.proposals.pop_front() else { panic!() };
    desk.apply(Outcome::Left { room }, reply_to);
    desk.refuse_join(Reason::NoSuchRoom);
    assert_eq!(desk.inboxes[&1].last().unwrap()["nonce"], "n3");
    assert_eq!(desk.take_frames()[&1], ["leave ana in attic", "error no_such_room in attic"]);
    desk.disconnect(1, false);
    desk.settle();
    assert_empty(&desk);
}

#[test]
fn a_refused_join_of_a_closed_connection_sends_no_frame() {
    for has_lease in [true, false] {
        let mut desk = Desk::new(&Limits::default());
        desk.connect(1, &guest(1, "ana"), "tea");
        desk.disconnect(1, has_lease);
        desk.refuse_join(Reason::Banned);
        desk.settle();
        assert!(desk.inboxes.is_empty() && desk.closed.is_empty());
        assert_empty(&desk);
        // The lease of a freed member ends without effect.
        desk.state.at += Limits::default().lease;
        desk.state.end_leases();
        assert!(desk.state.effects.is_empty() && desk.state.lease_due().is_none());
    }
}

/// Asserts that no member and no room is left.
#[track_caller]
fn assert_empty(desk: &Desk) {
    let State { members, rooms, by_connection, by_user, by_id, .. } = &desk.state;
    assert!(members.is_empty() && rooms.is_empty() && by_connection.is_empty());
    assert!(by_user.is_empty() && by_id.is_empty());
    assert_eq!(desk.state.ring_bytes, 0);
}

#[test]
fn a_lost_connection_remains_a_member_until_its_lease_ends() {
    let limits = Limits { lease: Duration::from_secs(10), ..Limits::default() };
    let mut desk = Desk::new(&limits);
    desk.come(1, &guest(1, "ana"), "tea");
    desk.come(2, &guest(2, "ben"), "tea");
    desk.take_frames();
    desk.disconnect(1, true);
    assert_eq!(desk.state.lease_due(), Some(desk.state.at + limits.lease));
    let lost_at = desk.state.at;
    desk.state.at = lost_at + limits.lease - Duration::from_millis(1);
    desk.state.end_leases();
    assert!(desk.state.effects.is_empty() && desk.proposals.is_empty());
    desk.state.at = lost_at;
    assert_eq!(count(&mut desk.state, "tea"), 2, "it is still counted");
    // The same user reconnects in time: the room gets no frame.
    desk.come(3, &guest(1, "ana"), "tea");
    assert_eq!(desk.take_frames().into_iter().collect::<Vec<_>>(), [(3, vec!["welcome in tea".to_owned()])]);
    desk.disconnect(2, true);
    desk.state.at = lost_at + limits.lease;
    desk.state.end_leases();
    let leaves = desk.state.effects.drain(..).map(|effect| match effect {
        Effect::Propose(proposal) => proposal,
        other => panic!("{other:?}"),
    });
    desk.proposals.extend(leaves);
    desk.settle();
    assert_eq!(desk.take_frames()[&3], ["leave ben in tea"]);
    assert_eq!((count(&mut desk.state, "tea"), desk.state.member_count()), (1, 1));
}

fn count(state: &mut State, name: &str) -> usize {
    let presence = state.take_presence().unwrap_or_else(|| state.presence.clone());
    presence.get(&room(name)).map_or(0, |room| room.count)
}

#[test]
fn presence_of_changed_rooms_is_published() {
    let mut desk = Desk::new(&without_lease());
    assert!(desk.state.take_presence().is_none());
    desk.connect(1, &guest(1, "ana"), "tea");
    assert!(desk.state.take_presence().is_none(), "the join is with the store");
    desk.settle();
    desk.come(2, &guest(2, "ben"), "tea");
    desk.come(3, &guest(3, "eva"), "attic");
    let before = desk.state.take_presence().unwrap();
    let names = |presence: &Presence, name: &str| {
        presence.get(&room(name)).map(|room| {
            let names = room.people.iter().map(|person| person.username.as_str().to_owned());
            (room.count, names.collect::<Vec<_>>().join(" "))
        })
    };
    assert_eq!(names(&before, "tea"), Some((2, "ana ben".to_owned())));
    assert_eq!(names(&before, "attic"), Some((1, "eva".to_owned())));
    assert!(desk.state.take_presence().is_none(), "nothing has changed since");

    // A user with two connections is one person, with the name of the older connection.
    desk.come(4, &guest(1, "ana at work"), "tea");
    desk.disconnect(1, false);
    desk.disconnect(3, false);
    desk.settle();
    let after = desk.state.take_presence().unwrap();
    assert_eq!(names(&after, "tea"), Some((2, "ana at work ben".to_owned())));
    assert_eq!((names(&after, "attic"), after.size()), (None, 1), "a room without people is not published");
    assert_eq!(names(&before, "attic"), Some((1, "eva".to_owned())), "a reader keeps what it has");

    // A refused join changes no presence.
    desk.connect(5, &guest(5, "eva"), "attic");
    desk.refuse_join(Reason::Banned);
    assert!(desk.state.take_presence().is_none());
    desk.disconnect(2, false);
    desk.disconnect(4, false);
    desk.settle();
    assert!(desk.state.take_presence().unwrap().is_empty());
    assert_empty(&desk);
}

#[test]
fn published_people_of_a_room_are_bounded() {
    let mut desk = Desk::new(&without_lease());
    let people_max = MEMBERS_LISTED_MAX as u64;
    for number in 1..=people_max + 5 {
        desk.come(number, &guest(number, &format!("guest {number}")), "tea");
    }
    let presence = desk.state.take_presence().unwrap();
    let tea = presence.get(&room("tea")).unwrap();
    let expected: Vec<_> = (1..=people_max).map(|number| person(number, &format!("guest {number}"))).collect();
    assert_eq!(
        (tea.count, tea.people.iter().map(|person| Person::clone(person)).collect()),
        (MEMBERS_LISTED_MAX + 5, expected)
    );
}

#[test]
fn an_admin_command_carries_its_target_and_networks() {
    let mut desk = Desk::new(&without_lease());
    let ben = guest(2, "ben");
    let ben_elsewhere = from_network(&ben, [192, 0, 2, 7]);
    desk.come(1, &account(1, "ana", 7), "tea");
    desk.come(2, &ben, "tea");
    desk.come(3, &ben_elsewhere, "attic");
    desk.come(4, &ben_elsewhere, "tea");
    let known = user(2).0;
    let unknown = user(9).0;
    for (command, id, expected) in [("ban", known, 2), ("mute", known, 2), ("ban", unknown, 0)] {
        let field = if command == "ban" { r#""banned":{"address":true}"# } else { r#""muted_until":null"# };
        desk.send(1, &format!(r#"{{"type":"{command}","user_id":"{id}",{field},"nonce":"n1"}}"#));
        let Some(Proposal { entry: Entry::Change { by, change }, reply_to }) = desk.proposals.pop_front() else {
            panic!("{command}")
        };
        let Change::Restrict(Restrict { user, restrictions, target, mut networks, is_shared: false }) = *change else {
            panic!()
        };
        assert_eq!(by, By::Client(account(1, "ana", 7)));
        assert_eq!((user.0, restrictions == Restrictions::default()), (id, false));
        assert_eq!(target.map(|target| target.user().0), (expected > 0).then_some(id), "{command} {id}");
        networks.sort_unstable();
        let all: [std::net::IpAddr; 2] = [[127, 0, 0, 1].into(), [192, 0, 2, 7].into()];
        assert_eq!(networks, all[..expected], "each once");
        let ReplyTo::Command(reply) = reply_to else { panic!("{reply_to:?}") };
        assert_eq!((reply.connection, &reply.room), (ConnectionId(1), &room("tea")));
        assert_eq!(
            (reply.nonce, format!("{:?}", reply.kind).to_lowercase()),
            (Nonce::parse("n1").ok(), command.into())
        );
    }
    desk.send(1, &format!(r#"{{"type":"kick","user_id":"{known}","room_id":"attic"}}"#));
    let Some(Proposal { entry: Entry::Change { change, .. }, .. }) = desk.proposals.pop_front() else { panic!() };
    assert_eq!(*change, Change::Kick { room: room("attic"), user: user(2), target: Some(ben) });
    desk.send(1, r#"{"type":"room","topic":"leaves"}"#);
    let Some(Proposal { entry: Entry::Change { change, .. }, .. }) = desk.proposals.pop_front() else { panic!() };
    assert!(matches!(*change, Change::SetRoom { room: of, .. } if of == room("tea")));
}

#[test]
fn an_admin_command_finds_a_user_that_has_only_a_lease() {
    let mut desk = Desk::new(&Limits::default());
    let ben = guest(2, "ben");
    desk.come(2, &ben, "tea");
    desk.disconnect(2, true);
    let change = Change::Kick { room: room("tea"), user: user(2), target: None };
    desk.state.change(By::Operator, Box::new(change), ReplyTo::None);
    let [Effect::Propose(Proposal { entry: Entry::Change { change, .. }, .. })] = &desk.state.effects[..] else {
        panic!("{:?}", desk.state.effects)
    };
    assert_eq!(**change, Change::Kick { room: room("tea"), user: user(2), target: Some(ben) });
}

#[test]
fn a_welcome_follows_the_policy_of_its_round() {
    let settings = RoomSettings { topic: "leaves".into(), ..RoomSettings::default() };
    let ana = account(1, "ana", 7);
    let mut desk = Desk::new(&without_lease());
    let policy = policy().with_room(&room("tea"), settings).with_account(user(1), Role::Admin);
    let policy = policy.with_mute(user(1), NOW_MS + 60_000);
    // The wall clock is one hour ahead of log time.
    let moment = Moment { wall_ms: NOW_MS + 3_600_000, ahead_ms: 3_600_000, ..moment() };
    begin_round(&mut desk.state, policy, moment);
    desk.come(1, &ana, "tea");
    let [welcome] = &desk.take_frames_of(1)[..] else { panic!() };
    assert_eq!((&welcome["role"], &welcome["room"]["topic"]), (&"admin".into(), &"leaves".into()));
    assert_eq!(welcome["muted_until"], Timestamp::at(NOW_MS + 3_660_000).to_string());
    // A muted user may not send `typing`.
    desk.send(1, r#"{"type":"typing","nonce":"n1"}"#);
    let [error] = &desk.take_frames_of(1)[..] else { panic!() };
    assert_eq!((&error["reason"], &error["nonce"]), (&"muted".into(), &"n1".into()));
}

#[test]
fn a_message_that_the_hub_refuses_may_be_a_retry() {
    let mut desk = Desk::new(&without_lease());
    desk.come(1, &guest(1, "ana"), "tea");
    desk.take_frames();
    desk.send(1, r#"{"content":"hi","room_id":"attic"}"#);
    assert_eq!(desk.take_frames()[&1], ["error not_in_room in attic"]);
    assert!(desk.proposals.is_empty());
    desk.send(1, r#"{"content":"hi","room_id":"attic","nonce":"n1"}"#);
    let Some(Proposal { entry: Entry::Message(message), reply_to }) = desk.proposals.pop_front() else { panic!() };
    assert_eq!(message.unless_stored.as_ref().map(|rejection| rejection.reason), Some(Reason::NotInRoom));
    assert!(message.is_member);
    // The message is stored: only its author gets the answer.
    desk.apply(Outcome::Duplicate(stored(3, false)), reply_to);
    assert_eq!(desk.take_frames_of(1)[0]["seq"], 3);
}

#[test]
fn an_announcement_reaches_each_room_with_people() {
    let private = RoomSettings { is_private: true, ..RoomSettings::default() };
    let policy = policy().with_room(&room("attic"), private).with_account(user(1), Role::Admin);
    let mut desk = Desk::with_policy(&without_lease(), policy);
    let announce = r#"{"type":"announcement","content":"hi","nonce":"n1"}"#;
    let next = |desk: &mut Desk| {
        let Some(Proposal { entry: Entry::Announcement { rooms, message }, reply_to }) = desk.proposals.pop_front()
        else {
            panic!()
        };
        assert_eq!(rooms[0], message.room, "the first one has the nonce");
        (rooms.iter().map(|room| room.as_str().to_owned()).collect::<Vec<_>>().join(" "), reply_to)
    };
    desk.come(2, &guest(2, "ben"), "attic");
    desk.come(3, &guest(3, "eva"), "den");
    desk.come(1, &account(1, "ana", 7), "tea");
    desk.take_frames();
    desk.send(1, announce);
    let (rooms, reply_to) = next(&mut desk);
    assert_eq!((rooms.as_str(), &reply_to), ("tea den attic", &ReplyTo::Connection(ConnectionId(1))));
    // An author that is in no room gets the answer from the first public room.
    desk.send(1, r#"{"type":"leave"}"#);
    desk.settle();
    desk.take_frames();
    desk.send(1, announce);
    let (rooms, reply_to) = next(&mut desk);
    assert_eq!((rooms.as_str(), &reply_to), ("den attic", &ReplyTo::Outsider(ConnectionId(1))));
    let is_known = |desk: &Desk, connection| desk.inboxes.get(&connection).is_some_and(|frames| frames.len() == 1);
    desk.apply(Outcome::Stored { room: room("den"), stored: stored(1, false), changed: None }, reply_to);
    assert!(is_known(&desk, 1) && is_known(&desk, 3) && !is_known(&desk, 2));
    // If only private rooms have members, the announcement also goes to the room that its author names.
    desk.disconnect(3, false);
    desk.settle();
    desk.send(1, announce);
    assert_eq!(next(&mut desk).0, "tea attic");
}

#[test]
fn a_stored_message_is_broadcast_and_its_request_is_answered() {
    let mut desk = Desk::new(&without_lease());
    desk.come(1, &guest(1, "ana"), "tea");
    desk.come(2, &guest(2, "ben"), "attic");
    desk.take_frames();
    let result = Outcome::Stored { room: room("tea"), stored: stored(1, false), changed: None };
    desk.apply(result, ReplyTo::Request(7));
    assert_eq!(desk.inboxes.keys().copied().collect::<Vec<_>>(), [1]);
    let [(7, Answer::Sent(Sent::Stored(json)))] = &desk.answers[..] else { panic!("{:?}", desk.answers) };
    assert_eq!(json, &stored(1, false).json);
    desk.apply(Outcome::Duplicate(stored(1, false)), ReplyTo::Request(8));
    assert!(matches!(&desk.answers[1], (8, Answer::Sent(Sent::Duplicate(_)))));
    desk.apply(Outcome::Refused { room: None, rejection: Reason::Muted.into(), nonce: None }, ReplyTo::Request(9));
    assert!(matches!(&desk.answers[2], (9, Answer::Refused(rejection)) if rejection.reason == Reason::Muted));
    // A deleted message is replayed in its deleted form.
    let deleted =
        Stored { json: br#"{"type":"text","seq":1,"username":"ana","content":""}"#[..].into(), ..stored(1, false) };
    let result = Outcome::Stored { room: room("tea"), stored: stored(2, true), changed: Some(deleted) };
    desk.apply(result, ReplyTo::None);
    desk.take_frames();
    desk.come(3, &guest(3, "eva"), "tea");
    let frames = desk.take_frames_of(3);
    assert_eq!(frames.iter().skip(1).map(|frame| frame["content"].as_str()).collect::<Vec<_>>(), [Some("")]);
}

#[test]
fn a_room_learns_its_history_only_from_the_first_join() {
    let mut desk = Desk::new(&without_lease());
    let known = |desk: &Desk| match &desk.proposals.back().unwrap().entry {
        Entry::Join(join) => join.known,
        other => panic!("{other:?}"),
    };
    desk.connect(1, &guest(1, "ana"), "tea");
    desk.connect(2, &guest(2, "ben"), "tea");
    assert_eq!(known(&desk), None, "the first has not come back");
    desk.refuse_join(Reason::Banned);
    let Some(Proposal { entry: Entry::Join(_), reply_to }) = desk.proposals.pop_front() else { panic!() };
    let past = Some(Past { head: Seq(2), frames: vec![stored(1, false), stored(2, false)], is_whole: true });
    desk.take_frames();
    desk.apply(Outcome::Joined { room: room("tea"), past, seen: None, username: None, events: Vec::new() }, reply_to);
    assert_eq!(
        desk.take_frames_of(2).iter().map(|frame| frame["seq"].as_u64()).collect::<Vec<_>>(),
        [2, 1, 2].map(Some)
    );
    desk.connect(3, &guest(3, "eva"), "tea");
    assert_eq!(known(&desk), Some(Seq(2)));
}
