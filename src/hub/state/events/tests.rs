//! Tests that each event reaches the right connections and no others, and that each proposer is answered.

use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::hub::fixtures::{
    Desk, NOW_MS, account, begin_round, from_network, guest, moment, person, policy, room, stored, user, without_lease,
};
use crate::limits::Limits;
use crate::model::role::{Posting, Role};
use crate::model::{ConnectionId, Nonce, Seq};
use crate::store::accounts::SessionId;
use crate::store::entry::{Outcome, Past};
use crate::wire::CloseReason;

/// Applies a change of the server itself.
fn happen(desk: &mut Desk, events: Vec<Event>) {
    desk.apply(Outcome::Changed { done: Done::Nothing, events }, ReplyTo::None);
}

/// The settings of a room have changed so that no member has to leave.
fn changed(name: &str, settings: RoomSettings, by: Person) -> Event {
    Event::RoomChanged { room: room(name), settings, by }
}

fn closed(desk: &mut Desk) -> Vec<u64> {
    let mut closed: Vec<_> = std::mem::take(&mut desk.closed);
    assert!(closed.iter().all(|(_, reason)| *reason == CloseReason::SessionEnded));
    closed.sort_unstable_by_key(|(connection, _)| *connection);
    closed.into_iter().map(|(connection, _)| connection).collect()
}

#[test]
fn an_ended_session_closes_its_own_connections() {
    let mut desk = Desk::new(&without_lease());
    desk.come(1, &account(1, "ana", 7), "tea");
    desk.come(2, &account(1, "ana", 7), "attic");
    desk.come(3, &account(1, "ana", 8), "tea");
    desk.come(4, &account(2, "ben", 9), "tea");
    desk.come(5, &guest(3, "eva"), "tea");
    happen(&mut desk, vec![Event::SessionsEnded { user: user(1), sessions: vec![SessionId(7), SessionId(9)] }]);
    assert_eq!(closed(&mut desk), [1, 2], "sessions of that user alone");
    happen(&mut desk, vec![Event::SessionsEnded { user: user(3), sessions: vec![SessionId::of_guest(user(3))] }]);
    assert_eq!(closed(&mut desk), [5], "a signed token is a session");
    desk.settle();
    assert_eq!((desk.state.member_count(), desk.state.room_count()), (2, 1));
}

#[test]
fn a_banned_or_removed_user_is_closed_everywhere() {
    let mut desk = Desk::new(&without_lease());
    desk.come(1, &account(1, "ana", 7), "tea");
    desk.come(2, &account(1, "ana", 8), "attic");
    desk.connect(3, &account(1, "ana", 8), "den");
    desk.come(4, &account(2, "ben", 9), "tea");
    desk.connect(5, &account(1, "ana", 8), "den");
    happen(&mut desk, vec![Event::UserEnded(user(1))]);
    assert_eq!(closed(&mut desk), [1, 2, 3, 5], "also those whose join is with the store");
    desk.settle();
    assert_eq!((desk.state.member_count(), desk.state.room_count()), (1, 1));
}

#[test]
fn a_lease_ends_with_its_session() {
    type Ends = fn() -> Event;
    let ends: [Ends; 3] = [
        || Event::UserEnded(user(1)),
        || Event::SessionsEnded { user: user(1), sessions: vec![SessionId::of_guest(user(1))] },
        || Event::GuestsBanned([127, 0, 0, 1].into()),
    ];
    for end in ends {
        let mut desk = Desk::new(&Limits { lease: Duration::from_secs(60), ..Limits::default() });
        desk.come(1, &guest(1, "ana"), "tea");
        desk.come(2, &from_network(&guest(2, "ben"), [192, 0, 2, 7]), "tea");
        desk.disconnect(1, true);
        desk.take_frames();
        happen(&mut desk, vec![end()]);
        desk.settle();
        assert_eq!(closed(&mut desk), [0; 0]);
        assert_eq!(desk.take_frames()[&2], ["leave ana in tea"], "{:?}", end());
        assert_eq!(desk.state.member_count(), 1);
    }
}

#[test]
fn the_guests_of_a_banned_network_are_closed() {
    let mut desk = Desk::new(&without_lease());
    let network = [192, 0, 2, 7];
    desk.come(1, &from_network(&guest(1, "ana"), network), "tea");
    desk.come(2, &from_network(&guest(2, "ben"), network), "attic");
    desk.come(3, &from_network(&account(3, "eva", 7), network), "tea");
    desk.come(4, &from_network(&guest(1, "ana"), [192, 0, 2, 8]), "tea");
    desk.come(5, &guest(5, "dan"), "tea");
    happen(&mut desk, vec![Event::GuestsBanned(network.into())]);
    assert_eq!(closed(&mut desk), [1, 2]);
}

#[test]
fn a_kicked_user_leaves_one_room_by_all_connections() {
    let mut desk = Desk::new(&without_lease());
    let ben = guest(2, "ben");
    desk.come(1, &guest(1, "ana"), "tea");
    desk.come(2, &ben, "tea");
    desk.come(3, &ben, "attic");
    desk.send(3, r#"{"type":"join","room_id":"tea","nonce":"n1"}"#);
    desk.settle();
    desk.come(4, &ben, "attic");
    desk.connect(5, &ben, "tea");
    desk.take_frames();
    happen(&mut desk, vec![Event::Kicked { room: room("tea"), user: user(2) }]);
    let frames = desk.take_frames();
    assert_eq!(frames.keys().copied().collect::<Vec<_>>(), [2, 3, 5], "the user, also by a join that is on its way");
    assert!(frames.values().all(|frames| frames[..] == ["error kicked in tea"]));
    desk.settle();
    let frames = desk.take_frames();
    assert_eq!(frames[&1], ["leave ben in tea"], "the room is told once");
    assert_eq!((&frames[&2][..], &frames[&3][..]), (&["leave ben in tea".to_owned()][..], &frames[&2][..]));
    assert_eq!((frames.get(&4), frames[&5].last().unwrap().as_str()), (None, "leave ben in tea"));
    // The user stays in the other rooms, and may join again.
    assert!(desk.closed.is_empty());
    desk.send(3, r#"{"type":"typing","room_id":"tea"}"#);
    desk.send(4, r#"{"type":"typing"}"#);
    assert_eq!(desk.take_frames()[&3], ["error not_in_room in tea", "typing in attic"]);
    desk.send(2, r#"{"type":"join","room_id":"tea"}"#);
    desk.settle();
    assert_eq!(desk.take_frames()[&2], ["welcome in tea"]);
    // A kick from a room in which the user is not changes nothing.
    happen(&mut desk, vec![Event::Kicked { room: room("den"), user: user(2) }]);
    assert!(desk.inboxes.is_empty() && desk.proposals.is_empty());
}

#[test]
fn non_members_leave_a_room_that_becomes_private() {
    let mut desk = Desk::new(&without_lease());
    for (number, name) in [(1, "ana"), (2, "ben"), (3, "eva")] {
        desk.come(number, &guest(number, name), "tea");
    }
    desk.come(4, &guest(2, "ben"), "attic");
    desk.take_frames();
    let private = RoomSettings { is_private: true, ..RoomSettings::default() };
    let policy = policy().with_room(&room("tea"), private.clone()).with_member(&room("tea"), user(1));
    let policy = policy.with_member(&room("tea"), user(3));
    begin_round(&mut desk.state, policy, moment());
    let by = person(1, "ana");
    happen(&mut desk, vec![changed("tea", private, by)]);
    let settings = &desk.inboxes[&1][0]["room"];
    assert_eq!((&settings["id"], &settings["private"]), (&"tea".into(), &true.into()));
    let frames = desk.take_frames();
    assert_eq!((&frames[&1][..], &frames[&3][..]), (&["room in tea".to_owned()][..], &frames[&1][..]));
    assert_eq!(frames[&2], ["error made_private in tea"], "and not what is set of it");
    assert_eq!(frames.len(), 3);
    desk.settle();
    let frames = desk.take_frames();
    assert!(frames.values().all(|frames| frames[..] == ["leave ben in tea"]) && frames.len() == 3, "{frames:?}");
    assert!(desk.closed.is_empty());
}

#[test]
fn a_mute_is_sent_only_to_its_user() {
    let mut desk = Desk::new(&without_lease());
    desk.come(1, &guest(1, "ana"), "tea");
    desk.come(2, &guest(2, "ben"), "tea");
    desk.come(3, &guest(2, "ben"), "attic");
    desk.take_frames();
    let until_ms = NOW_MS + 60_000;
    let ahead = crate::store::log::clock::Moment { ahead_ms: 5_000, ..moment() };
    begin_round(&mut desk.state, policy().with_mute(user(2), until_ms), ahead);
    happen(&mut desk, vec![Event::Muted { user: user(2) }]);
    let shown = Timestamp::at(until_ms + 5_000).to_string();
    for (connection, home) in [(2, "tea"), (3, "attic")] {
        let [frame] = &desk.inboxes[&connection][..] else { panic!() };
        assert_eq!((&frame["type"], &frame["room_id"]), (&"mute".into(), &home.into()));
        assert_eq!(frame["muted_until"], shown.as_str(), "as the wall clock shows it");
    }
    assert_eq!(desk.take_frames().len(), 2);
    begin_round(&mut desk.state, policy(), moment());
    happen(&mut desk, vec![Event::Muted { user: user(2) }]);
    let frames: Vec<_> = [2, 3].map(|connection| desk.inboxes[&connection][0]["muted_until"].clone()).into();
    assert_eq!((frames, desk.inboxes.len()), (vec![Value::Null; 2], 2));
}

#[test]
fn settings_are_sent_to_the_members_of_the_room() {
    let mut desk = Desk::new(&without_lease());
    desk.come(1, &guest(1, "ana"), "tea");
    desk.come(2, &guest(2, "ben"), "attic");
    desk.come(3, &guest(3, "eva"), "tea");
    desk.take_frames();
    let settings = RoomSettings { topic: "leaves".into(), posting: Posting::Admins, ..RoomSettings::default() };
    let by = person(9, "ada");
    happen(&mut desk, vec![changed("tea", settings.clone(), by.clone())]);
    for connection in [1, 3] {
        let [frame] = &desk.inboxes[&connection][..] else { panic!() };
        assert_eq!((&frame["type"], &frame["username"]), (&"room".into(), &"ada".into()));
        let expected = serde_json::json!({
            "id": "tea", "name": "tea", "topic": "leaves", "posting": "admins", "slow_mode_s": 0, "private": false,
        });
        assert_eq!(frame["room"], expected);
    }
    assert_eq!(desk.take_frames().len(), 2);
    // A room without members.
    happen(&mut desk, vec![changed("den", settings, by)]);
    assert!(desk.inboxes.is_empty());
}

#[test]
fn settings_of_a_public_room_check_no_member() {
    let mut desk = Desk::new(&without_lease());
    for number in 1..=50 {
        desk.come(number, &guest(number, &format!("guest {number}")), "tea");
    }
    // By this policy no member may be in the room, but the policy is not asked.
    let private = RoomSettings { is_private: true, ..RoomSettings::default() };
    begin_round(&mut desk.state, policy().with_room(&room("tea"), private), moment());
    let settings = RoomSettings { topic: "leaves".into(), ..RoomSettings::default() };
    let result = Outcome::Changed { done: Done::Nothing, events: vec![changed("tea", settings, person(9, "ada"))] };
    desk.state.applied(crate::store::entry::Applied { result, reply_to: ReplyTo::None });
    let effects = std::mem::take(&mut desk.state.effects);
    assert!(matches!(&effects[..], [Effect::Broadcast { .. }]), "{} effects", effects.len());
}

#[test]
fn a_member_that_catches_up_is_moderated_like_other_members() {
    let mut desk = Desk::new(&without_lease());
    desk.come(1, &guest(1, "ana"), "tea");
    for seq in 1..=20 {
        let long = Value::String("x".repeat(4_000));
        let json = format!(r#"{{"type":"text","room_id":"tea","seq":{seq},"content":{long}}}"#).into_bytes().into();
        let stored = crate::store::entry::Stored { json, ..stored(seq, false) };
        desk.apply(Outcome::Stored { room: room("tea"), stored, changed: None }, ReplyTo::None);
    }
    desk.connect(2, &guest(2, "ben"), "attic");
    desk.settle();
    desk.send(2, r#"{"type":"join","room_id":"tea","history":200}"#);
    desk.settle();
    assert_eq!(desk.fetches.len(), 1, "it is sent its replay page by page");
    desk.take_frames();
    let settings = RoomSettings { topic: "leaves".into(), ..RoomSettings::default() };
    happen(&mut desk, vec![changed("tea", settings, person(1, "ana"))]);
    assert_eq!(desk.take_frames()[&2], ["room in tea"]);
    happen(&mut desk, vec![Event::Kicked { room: room("tea"), user: user(2) }]);
    desk.settle();
    assert_eq!(desk.take_frames()[&2], ["error kicked in tea", "leave ben in tea"]);
    let fetch = desk.fetches.remove(0);
    desk.state.page(&fetch, Some(vec![stored(1, false)]));
    assert!(desk.state.effects.is_empty(), "its page is not sent any more");
}

#[test]
fn forgotten_frames_are_not_replayed() {
    let mut desk = Desk::new(&without_lease());
    desk.connect(1, &guest(1, "ana"), "tea");
    let reply_to = desk.proposals.pop_front().unwrap().reply_to;
    let past = Some(Past { head: Seq(4), frames: (1..=4).map(|seq| stored(seq, false)).collect(), is_whole: true });
    desk.apply(Outcome::Joined { room: room("tea"), past, seen: None, username: None, events: Vec::new() }, reply_to);
    happen(&mut desk, vec![Event::Forgotten { room: room("tea"), up_to: Seq(2) }]);
    happen(&mut desk, vec![Event::Forgotten { room: room("den"), up_to: Seq(2) }]);
    let rooms = &desk.state.rooms;
    assert_eq!(desk.state.ring_bytes, rooms.iter().map(|(_, room)| room.ring.bytes).sum::<usize>());
    desk.take_frames();
    desk.come(2, &guest(2, "ben"), "tea");
    let frames = desk.take_frames_of(2);
    assert_eq!(frames.iter().map(|frame| frame["seq"].as_u64().unwrap()).collect::<Vec<_>>(), [4, 3, 4]);
    assert!(desk.fetches.is_empty(), "the store has no more than that");
}

#[test]
fn erased_messages_are_replayed_without_their_texts() {
    let mut desk = Desk::new(&without_lease());
    desk.come(1, &guest(1, "ana"), "tea");
    for seq in 1..=3 {
        desk.apply(Outcome::Stored { room: room("tea"), stored: stored(seq, false), changed: None }, ReplyTo::None);
    }
    desk.take_frames();
    let erased = |seq| {
        let json = format!(r#"{{"type":"text","seq":{seq},"deleted_at":"now"}}"#).into_bytes().into();
        crate::store::entry::Stored { json, ..stored(seq, false) }
    };
    // The fourth is not in the ring.
    happen(&mut desk, vec![Event::Erased { room: room("tea"), messages: vec![erased(1), erased(3), erased(4)] }]);
    happen(&mut desk, vec![Event::Erased { room: room("den"), messages: vec![erased(1)] }]);
    assert!(desk.take_frames().is_empty(), "members are not told");
    let rooms = &desk.state.rooms;
    assert_eq!(desk.state.ring_bytes, rooms.iter().map(|(_, room)| room.ring.bytes).sum::<usize>());
    desk.come(2, &guest(2, "ben"), "tea");
    let frames = desk.take_frames_of(2);
    let texts = frames.iter().filter(|frame| frame["type"] == "text");
    assert_eq!(texts.map(|frame| frame["deleted_at"] == "now").collect::<Vec<_>>(), [true, false, true]);
}

fn command(connection: u64, kind: FrameType) -> ReplyTo {
    let nonce = Nonce::parse("n1").ok();
    let (connection, room) = (ConnectionId(connection), room("attic"));
    ReplyTo::Command(Box::new(CommandReply { connection, room, nonce, kind }))
}

#[test]
fn the_proposer_of_a_change_is_answered() {
    let restricted = |muted_until_ms, is_banned| {
        let username = Some(person(2, "ben").username);
        Done::Restricted { username, muted_until_ms, is_banned }
    };
    let kicked = Done::Kicked { username: Some(person(2, "ben").username) };
    for (kind, done, sentence) in [
        (FrameType::Kick, kicked.clone(), "ben was kicked"),
        (FrameType::Mute, restricted(Some(0), false), "ben is muted until 1970-01-01T00:00:00.000Z"),
        (FrameType::Mute, restricted(None, true), "ben is no longer muted"),
        (FrameType::Ban, restricted(Some(0), true), "ben is banned"),
        (FrameType::Ban, restricted(Some(0), false), "ben is no longer banned"),
        (FrameType::Room, Done::Room(RoomSettings::default()), "the room settings were changed"),
    ] {
        let mut desk = Desk::new(&without_lease());
        desk.come(1, &account(1, "ana", 7), "tea");
        desk.come(2, &account(1, "ana", 7), "attic");
        desk.take_frames();
        desk.apply(Outcome::Changed { done: done.clone(), events: Vec::new() }, command(1, kind));
        let [frame] = &desk.inboxes[&1][..] else { panic!("{:?}", desk.inboxes) };
        assert_eq!((&frame["type"], &frame["nonce"]), (&serde_json::to_value(kind).unwrap(), &"n1".into()));
        assert_eq!((&frame["room_id"], &frame["username"]), (&"attic".into(), &"ana".into()));
        assert_eq!((&frame["content"], frame.get("seq")), (&sentence.into(), None));
        assert_eq!(desk.take_frames().len(), 1, "the connection that asked, and no other");

        let rejection = Reason::TargetIsAdmin.because("no").retry_after(9);
        desk.apply(Outcome::Refused { room: None, rejection, nonce: None }, command(1, kind));
        let [frame] = &desk.inboxes[&1][..] else { panic!("{:?}", desk.inboxes) };
        assert_eq!(
            (&frame["type"], &frame["nonce"], &frame["room_id"]),
            (&"error".into(), &"n1".into(), &"attic".into())
        );
        assert_eq!((&frame["reason"], &frame["code"]), (&"target_is_admin".into(), &"forbidden".into()));
        assert_eq!((&frame["content"], &frame["retry_ms"]), (&"no".into(), &9.into()));
        assert_eq!(desk.take_frames().len(), 1);

        desk.apply(Outcome::Changed { done: done.clone(), events: Vec::new() }, ReplyTo::Request(3));
        assert!(matches!(&desk.answers[..], [(3, Answer::Done(answer))] if *answer == done));
        // A closed connection gets no answer.
        desk.disconnect(1, false);
        desk.apply(Outcome::Changed { done, events: Vec::new() }, command(1, kind));
        desk.apply(Outcome::Refused { room: None, rejection: Reason::Busy.into(), nonce: None }, command(1, kind));
        assert!(desk.inboxes.is_empty());
    }
}

#[test]
fn the_events_of_a_change_come_before_its_answer() {
    let mut desk = Desk::with_policy(&without_lease(), policy().with_account(user(1), Role::Admin));
    desk.come(1, &account(1, "ana", 7), "attic");
    desk.take_frames();
    let events = vec![changed("attic", RoomSettings::default(), person(1, "ana"))];
    desk.apply(Outcome::Changed { done: Done::Room(RoomSettings::default()), events }, command(1, FrameType::Room));
    let nonces: Vec<_> = desk.inboxes[&1].iter().map(|frame| frame.get("nonce").is_some()).collect();
    assert_eq!(
        (desk.take_frames()[&1].join(", ").as_str(), nonces),
        ("room in attic, room in attic", vec![false, true])
    );
}
