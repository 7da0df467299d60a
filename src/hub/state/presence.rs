//! Presence: how a room learns which people join and leave. It gets one `join` or `leave` frame for each person. With
//! more than [`PRESENCE_PEOPLE_MAX`](crate::limits::PRESENCE_PEOPLE_MAX) people it gets one `presence` frame per
//! second. Runs on the hub's thread.

use std::sync::Arc;
use std::time::Instant;

use crate::limits::{MEMBERS_LISTED_MAX, PRESENCE_INTERVAL, PRESENCE_NAMES_MAX, PRESENCE_NAMES_PER_INTERVAL_MAX};
use crate::model::{Person, Username};
use crate::protocol::{Frame, FrameType, Own, Presence};

use super::super::room::MissedChange;
use super::{Effect, RoomKey, State, encoded};

impl State {
    /// The time of the next `presence` frame.
    #[must_use]
    pub fn presence_due(&self) -> Option<Instant> {
        self.presence_due.front().map(|(due, _)| *due)
    }

    /// Sends the `presence` frames that are due.
    pub fn send_presence(&mut self) {
        while let Some(&(due, room_key)) = self.presence_due.front()
            && due <= self.at
        {
            self.presence_due.pop_front();
            // The key may belong to another room by now.
            let Some(room) = self.rooms.get_mut(room_key.0).filter(|room| room.presence_due == Some(due)) else {
                continue;
            };
            room.presence_due = None;
            let (changes, member_count) = (std::mem::take(&mut room.changes), room.people.len());
            if !changes.is_empty() {
                let (joined, left) = changes.into_lists();
                let json = self.presence_frame(room_key, member_count, &joined, &left);
                self.send_room_presence(room_key, json, MissedChange::Crowd);
            }
        }
    }

    /// Tells a room that a person joined. The roster has the person already.
    pub(super) fn person_joined(&mut self, room_key: RoomKey, person: &Arc<Person>) {
        if self.is_crowded(room_key) {
            if let Some(former) = self.rooms[room_key.0].changes.join(person) {
                let json = self.rename_frame(room_key, person, &former.username);
                self.send_room_presence(room_key, json, MissedChange::Joined(Arc::clone(person)));
            }
            self.begin_changes(room_key);
        } else {
            let json = self.person_frame(room_key, person, FrameType::Join);
            self.send_room_presence(room_key, json, MissedChange::Joined(Arc::clone(person)));
        }
    }

    /// Tells a room that a person left. The roster does not have the person any more. Returns the `leave` frame if one
    /// was made.
    pub(super) fn person_left(&mut self, room_key: RoomKey, person: &Arc<Person>) -> Option<Arc<[u8]>> {
        if self.is_crowded(room_key) {
            self.rooms[room_key.0].changes.leave(person);
            self.begin_changes(room_key);
            return None;
        }
        // The changes are older than this leave, so the count still includes the person.
        let count = self.rooms[room_key.0].people.len() + 1;
        self.send_presence_changes(room_key, count);
        let json = self.person_frame(room_key, person, FrameType::Leave);
        self.send_room_presence(room_key, Arc::clone(&json), MissedChange::Left(Arc::clone(person)));
        Some(json)
    }

    pub(super) fn is_crowded(&self, room: RoomKey) -> bool {
        self.rooms[room.0].people.len() > self.presence_people_max
    }

    fn begin_changes(&mut self, room_key: RoomKey) {
        let room = &mut self.rooms[room_key.0];
        if room.presence_due.is_none() {
            let due = self.at + PRESENCE_INTERVAL;
            room.presence_due = Some(due);
            self.presence_due.push_back((due, room_key));
        }
    }

    /// Sends a room that is no longer crowded its pending changes. Makes as many frames as are needed to name all these
    /// people, up to the number of people that a `welcome` lists.
    fn send_presence_changes(&mut self, room_key: RoomKey, member_count: usize) {
        let changes = std::mem::take(&mut self.rooms[room_key.0].changes);
        if changes.is_empty() {
            return;
        }
        let (joined, left) = changes.into_lists();
        let frames = if joined.is_empty() && left.is_empty() {
            // The changes have cancelled out, but the count must still be sent.
            vec![self.presence_frame(room_key, member_count, &[], &[])]
        } else {
            self.presence_frames(room_key, member_count, &joined, &left)
        };
        for json in frames {
            self.send_room_presence(room_key, json, MissedChange::Crowd);
        }
    }

    /// Makes the `presence` frames that name the people who joined and left. Each frame names [`PRESENCE_NAMES_MAX`] of
    /// each at most, and all together name [`MEMBERS_LISTED_MAX`]. The others are only counted.
    pub(super) fn presence_frames(
        &mut self,
        room_key: RoomKey,
        member_count: usize,
        joined: &[Arc<Person>],
        left: &[Arc<Person>],
    ) -> Vec<Arc<[u8]>> {
        let listed = joined.len().max(left.len()).min(MEMBERS_LISTED_MAX);
        let part = |people: &[Arc<Person>], from: usize| -> Vec<Arc<Person>> {
            people.iter().skip(from).take(PRESENCE_NAMES_MAX).cloned().collect()
        };
        let parts = (0..listed).step_by(PRESENCE_NAMES_MAX);
        parts.map(|from| self.presence_frame(room_key, member_count, &part(joined, from), &part(left, from))).collect()
    }

    /// A `presence` frame that names the first of these people.
    pub(super) fn presence_frame(
        &mut self,
        room_key: RoomKey,
        member_count: usize,
        joined: &[Arc<Person>],
        left: &[Arc<Person>],
    ) -> Arc<[u8]> {
        let names = (PRESENCE_NAMES_PER_INTERVAL_MAX / member_count.max(1)).clamp(1, PRESENCE_NAMES_MAX);
        let (joined_count, left_count) = (joined.len(), left.len());
        let joined = joined.iter().take(names).map(|person| &**person).collect();
        let left = left.iter().take(names).map(|person| &**person).collect();
        let content = format!("{joined_count} joined, {left_count} left");
        let own = Some(Own::Presence(Presence { member_count, joined, left }));
        let (id, room) = (self.ids.next(&self.now), &self.rooms[room_key.0].id);
        encoded(&Frame { own, ..Frame::new(id, room, self.server.author(), &content, FrameType::Presence, &self.now) })
    }

    /// Shows a room that a person is typing.
    pub(super) fn show_typing(&mut self, room_key: RoomKey, person: &Person) {
        let json = self.person_frame(room_key, person, FrameType::Typing);
        self.broadcast(room_key, json);
    }

    /// The frame that tells a room what one person does.
    pub(super) fn person_frame(&mut self, room_key: RoomKey, person: &Person, kind: FrameType) -> Arc<[u8]> {
        let content = match kind {
            FrameType::Join => format!("{} joined", person.username),
            FrameType::Leave => format!("{} left", person.username),
            _ => String::new(),
        };
        encoded(&Frame::new(
            self.ids.next(&self.now),
            &self.rooms[room_key.0].id,
            person.author(),
            &content,
            kind,
            &self.now,
        ))
    }

    /// The frame of a rename that is not stored.
    pub(super) fn rename_frame(&mut self, room_key: RoomKey, person: &Person, former: &Username) -> Arc<[u8]> {
        let (id, room) = (self.ids.next(&self.now), &self.rooms[room_key.0].id);
        let content = person.username.as_str();
        let frame = Frame::new(id, room, person.author(), content, FrameType::Rename, &self.now);
        encoded(&Frame { former: Some(former), ..frame })
    }

    pub(super) fn broadcast(&mut self, room_key: RoomKey, json: Arc<[u8]>) {
        if !self.rooms[room_key.0].members.is_empty() {
            self.effects.push(Effect::Broadcast { room: room_key, json, author: None });
        }
    }

    /// Sends a presence frame to the members, and remembers it for the members that are catching up.
    fn send_room_presence(&mut self, room_key: RoomKey, json: Arc<[u8]>, change: MissedChange) {
        self.rooms[room_key.0].note_missed(&json, change);
        self.broadcast(room_key, json);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Value;

    use super::*;
    use crate::hub::fixtures::{arrival, guest, history, policy, room, state, without_lease};
    use crate::limits::PRESENCE_PEOPLE_MAX;
    use crate::model::{ConnectionId, Seq};
    use crate::protocol::{ClientCommand, ClientFrame};
    use crate::store::entry::{Applied, Entry, Outcome, Past, Proposal};

    /// One room, a store that answers at once, and a count of the bytes that are sent.
    struct Rig {
        state: State,
        members: usize,
        bytes: usize,
        welcomes: usize,
        /// The frames that the room was sent, without typing.
        told: Vec<Value>,
    }

    impl Rig {
        fn new() -> Self {
            let state = state(&without_lease(), policy());
            Self { state, members: 0, bytes: 0, welcomes: 0, told: Vec::new() }
        }

        fn carry_out(&mut self) {
            while !self.state.effects.is_empty() {
                for effect in std::mem::take(&mut self.state.effects) {
                    match effect {
                        Effect::Propose(Proposal { entry, reply_to }) => {
                            let result = match entry {
                                Entry::Join(join) => {
                                    let past = join.known.is_none().then(Past::default);
                                    Outcome::Joined {
                                        room: join.room,
                                        past,
                                        seen: None,
                                        username: None,
                                        events: Vec::new(),
                                    }
                                }
                                Entry::Leave { room, .. } => Outcome::Left { room },
                                other => panic!("{other:?}"),
                            };
                            self.state.applied(Applied { result, reply_to });
                        }
                        Effect::Send { json, .. } => {
                            self.welcomes += 1;
                            self.bytes += json.len();
                        }
                        Effect::Broadcast { json, .. } => {
                            self.bytes += json.len() * self.members;
                            self.told.push(serde_json::from_slice(&json).unwrap());
                        }
                        Effect::Enter { .. } => self.members += 1,
                        Effect::Exit { .. } => self.members -= 1,
                        Effect::RoomGone { .. } => {}
                        other => panic!("{other:?}"),
                    }
                }
            }
        }

        fn come(&mut self, number: u64) {
            self.come_by(number, number);
        }

        fn come_by(&mut self, connection: u64, number: u64) {
            let guest = guest(number, &format!("guest {number}"));
            let arrival = arrival(connection, guest, "tea", history(5));
            self.state.connect(arrival);
            self.carry_out();
        }

        fn go(&mut self, number: u64) {
            self.state.disconnect(ConnectionId(number), false);
            self.carry_out();
        }

        /// The frames that the room is sent when this time has passed.
        fn pass(&mut self, time: Duration) -> Vec<Value> {
            self.state.at += time;
            self.state.send_presence();
            self.carry_out();
            std::mem::take(&mut self.told)
        }
    }

    fn names(list: &Value) -> Vec<u64> {
        let number = |one: &Value| one["username"].as_str().unwrap()["guest ".len()..].parse().unwrap();
        list.as_array().unwrap().iter().map(number).collect()
    }

    fn kinds(told: &[Value]) -> Vec<&str> {
        told.iter().map(|frame| frame["type"].as_str().unwrap()).collect()
    }

    const FULL: u64 = PRESENCE_PEOPLE_MAX as u64;

    #[test]
    fn a_crowded_room_gets_one_presence_frame_per_second() {
        let mut rig = Rig::new();
        (1..=FULL).for_each(|number| rig.come(number));
        assert_eq!(kinds(&rig.pass(Duration::ZERO)), ["join"; PRESENCE_PEOPLE_MAX - 1], "the first was alone");
        assert_eq!(rig.state.presence_due(), None);
        (FULL + 1..=FULL + 30).for_each(|number| rig.come(number));
        rig.go(1);
        rig.go(FULL + 2);
        rig.come(FULL + 31);
        rig.go(FULL + 31);
        assert_eq!(rig.pass(Duration::ZERO), [Value::Null; 0]);
        assert_eq!(rig.state.presence_due(), Some(rig.state.at + PRESENCE_INTERVAL));
        assert_eq!(rig.pass(PRESENCE_INTERVAL - Duration::from_millis(1)), [Value::Null; 0]);
        let told = rig.pass(Duration::from_millis(1));
        assert_eq!(kinds(&told), ["presence"]);
        assert_eq!((&told[0]["member_count"], &told[0]["seq"]), (&(FULL + 28).into(), &Value::Null));
        assert_eq!(told[0]["content"], "29 joined, 1 left");
        let named: Vec<u64> = [FULL + 1].into_iter().chain(FULL + 3..=FULL + 21).collect();
        assert_eq!((names(&told[0]["joined"]), names(&told[0]["left"])), (named, vec![1]));
        // A person who joined and left again has changed nothing.
        rig.come(999);
        rig.go(999);
        rig.pass(Duration::ZERO);
        assert_eq!(rig.pass(PRESENCE_INTERVAL), [Value::Null; 0]);
        assert_eq!(rig.state.presence_due(), None);
    }

    #[test]
    fn a_room_that_is_no_longer_crowded_gets_all_changes_first() {
        let mut rig = Rig::new();
        (1..=FULL + 50).for_each(|number| rig.come(number));
        rig.pass(Duration::ZERO);
        (1..=50).for_each(|number| rig.go(number));
        let told = rig.pass(Duration::ZERO);
        // The leave that makes it 200 people again has its own frame.
        assert_eq!(kinds(&told), ["presence", "presence", "presence", "leave"]);
        let counts: Vec<_> = told[..3].iter().map(|frame| frame["member_count"].as_u64().unwrap()).collect();
        assert_eq!(counts, [FULL + 1; 3]);
        let all = |list: &str| told[..3].iter().flat_map(|frame| names(&frame[list])).collect::<Vec<_>>();
        assert_eq!(all("joined"), (FULL + 1..=FULL + 50).collect::<Vec<_>>());
        assert_eq!(all("left"), (1..50).collect::<Vec<_>>());
        rig.come(7);
        rig.go(FULL);
        assert_eq!(kinds(&rig.pass(PRESENCE_INTERVAL)), ["presence", "leave"], "over the bound for a moment");
        rig.go(FULL + 1);
        rig.come(8);
        assert_eq!(kinds(&rig.pass(PRESENCE_INTERVAL)), ["leave", "join"]);
        assert_eq!(rig.pass(PRESENCE_INTERVAL), [Value::Null; 0]);
    }

    #[test]
    fn a_count_of_a_welcome_is_corrected_when_changes_cancel_out() {
        for is_crowded_still in [true, false] {
            let mut rig = Rig::new();
            (1..=FULL + 2).for_each(|number| rig.come(number));
            rig.pass(Duration::ZERO);
            rig.pass(PRESENCE_INTERVAL);
            rig.go(1);
            // Another connection of a user: its `welcome` has a count that is too low by one.
            rig.come_by(1_000, 2);
            rig.come(1);
            rig.pass(Duration::ZERO);
            let told = if is_crowded_still {
                rig.pass(PRESENCE_INTERVAL)
            } else {
                rig.go(3);
                rig.pass(Duration::ZERO);
                rig.go(4);
                rig.pass(Duration::ZERO)
            };
            let (count, left) = if is_crowded_still { (FULL + 2, vec![]) } else { (FULL + 1, vec![3]) };
            assert_eq!((&told[0]["type"], &told[0]["member_count"]), (&"presence".into(), &count.into()));
            assert_eq!((names(&told[0]["joined"]), names(&told[0]["left"])), (vec![], left));
        }
    }

    #[test]
    fn a_member_that_leaves_a_crowded_room_by_a_command_gets_a_leave_frame() {
        let mut rig = Rig::new();
        (1..=FULL + 5).for_each(|number| rig.come(number));
        let member = rig.state.member(ConnectionId(3)).unwrap();
        let leave = ClientFrame { room: None, nonce: None, command: ClientCommand::Leave };
        rig.state.frame(member, leave, None);
        let Some(Effect::Propose(Proposal { entry: Entry::Leave { room, .. }, reply_to })) = rig.state.effects.pop()
        else {
            panic!()
        };
        rig.state.applied(Applied { result: Outcome::Left { room }, reply_to });
        let effects = &rig.state.effects;
        let sent = effects.iter().find_map(|effect| match effect {
            Effect::Send { to, json } if *to == member => serde_json::from_slice::<Value>(json).ok(),
            _ => None,
        });
        let sent = sent.expect("a frame of their own");
        assert_eq!((&sent["type"], &sent["username"]), (&"leave".into(), &"guest 3".into()));
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Broadcast { .. })));
    }

    #[test]
    fn thousands_join_a_room_without_a_flood_of_frames() {
        const CROWD: u64 = 12_000;
        const SECONDS: u64 = 20;
        let mut rig = Rig::new();
        let mut frames = 0;
        for second in 0..SECONDS {
            let (first, last) = (second * CROWD / SECONDS, (second + 1) * CROWD / SECONDS);
            (first..last).for_each(|number| rig.come(number));
            frames += rig.pass(PRESENCE_INTERVAL).len();
        }
        frames += rig.pass(PRESENCE_INTERVAL).len();
        assert_eq!(rig.welcomes, CROWD as usize);
        assert!(frames <= PRESENCE_PEOPLE_MAX + SECONDS as usize + 1, "{frames}");
        assert!(rig.bytes < 400_000_000, "{} bytes", rig.bytes);
        let presence = rig.state.take_presence().unwrap();
        assert_eq!(presence.get(&room("tea")).unwrap().count, CROWD as usize);
        assert_eq!(rig.state.rooms[rig.state.by_id[&room("tea")].0].ring.head, Seq(0));
    }
}
