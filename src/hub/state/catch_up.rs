//! Catch-up: history that is sent to a member page by page, because it is not in the room's ring or too long for one
//! send. Runs on the hub's thread and reads no rows itself. Until it has caught up, the member gets no broadcasts of
//! the room.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::model::{Person, RoomId, Seq, UserId};
use crate::store::entry::Stored;
use crate::wire::CloseReason;

use super::super::room::{Missed, MissedChange, Room};
use super::{Effect, MemberKey, RoomKey, State};

/// A page that a member needs to catch up.
#[derive(Debug, Clone)]
pub struct Fetch {
    pub member: MemberKey,
    pub room: RoomId,
    /// The next part of the room's history.
    pub span: Span,
    /// The seq above which the member may read.
    pub floor: Seq,
}

/// A part of a room's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// The latest messages up to a seq.
    Latest { count: usize, until: Seq },
    /// The messages after a seq, up to another seq.
    Messages { after: Seq, until: Seq },
    /// All frames after a seq.
    All { after: Seq },
}

/// The state of a member's catch-up in one room.
#[derive(Debug)]
pub struct CatchUp {
    /// The part that comes next.
    span: Span,
    /// The number of the next missed presence frame to send.
    next_missed: u64,
    /// Whether the room has dropped missed frames before they were sent.
    is_short: bool,
    /// The people that the client believes to be in the room. `None` if its `welcome` did not list all people.
    told: Option<HashMap<UserId, Arc<Person>>>,
}

impl CatchUp {
    /// Begins after a `welcome` that listed these people.
    pub fn new(span: Span, missed: &Missed, told: Option<HashMap<UserId, Arc<Person>>>) -> Self {
        Self { span, next_missed: missed.end(), is_short: false, told }
    }

    /// Sends the missed presence frames before a seq, or all of them.
    fn send_missed(&mut self, missed: &Missed, before: Option<Seq>, to: MemberKey, effects: &mut Vec<Effect>) {
        self.is_short |= self.next_missed < missed.first();
        while !self.is_short
            && let Some(frame) = missed.get(self.next_missed)
            && before.is_none_or(|seq| frame.after < seq)
        {
            self.next_missed += 1;
            match (&frame.change, &mut self.told) {
                (MissedChange::Joined(person), Some(told)) => drop(told.insert(person.id, Arc::clone(person))),
                (MissedChange::Left(person), Some(told)) => drop(told.remove(&person.id)),
                (MissedChange::Crowd, told) => *told = None,
                (_, None) => {}
            }
            effects.push(Effect::Send { to, json: Arc::clone(&frame.json) });
        }
    }

    /// Sends stored frames, and the missed presence frames between them.
    fn send<'a>(
        &mut self,
        frames: impl IntoIterator<Item = &'a Stored>,
        missed: &Missed,
        to: MemberKey,
        effects: &mut Vec<Effect>,
    ) {
        for stored in frames {
            self.send_missed(missed, Some(stored.seq), to, effects);
            effects.push(Effect::Send { to, json: Arc::clone(&stored.json) });
        }
    }

    /// Sends the frames of a page. Returns the seq after which all frames are still to be sent, or `Some(None)` if
    /// another page of messages comes first. Returns `None` if the next frames are no longer kept.
    fn take_page(
        &mut self,
        page: &[Stored],
        room: &Room,
        to: MemberKey,
        effects: &mut Vec<Effect>,
    ) -> Option<Option<Seq>> {
        let (sent, until) = match self.span {
            Span::All { after } => {
                // Frames that the hub has not seen yet will be broadcast.
                let seen = page.iter().take_while(|stored| stored.seq <= room.ring.head);
                let frames: Vec<_> = seen.collect();
                if !frames.iter().zip(after.0 + 1..).all(|(stored, seq)| stored.seq.0 == seq) {
                    return None;
                }
                self.send(frames.iter().copied(), &room.missed, to, effects);
                let at = frames.last().map_or(after, |last| last.seq);
                if page.is_empty() && room.ring.frames_after(at).is_none() {
                    return None;
                }
                return Some(Some(at));
            }
            Span::Latest { until, .. } => (Seq(0), until),
            Span::Messages { after, until } => (after, until),
        };
        let messages: Vec<_> = page.iter().take_while(|stored| stored.seq <= until).collect();
        let is_end = messages.is_empty() || messages.len() < page.len();
        let sent = messages.last().map_or(sent, |last| last.seq);
        self.send(messages, &room.missed, to, effects);
        if !is_end {
            let Some(rest) = room.ring.messages_after(sent) else {
                self.span = Span::Messages { after: sent, until };
                return Some(None);
            };
            self.send(rest.take_while(|stored| stored.seq <= until), &room.missed, to, effects);
        }
        Some(Some(until))
    }
}

impl State {
    /// Takes a page for a member that is catching up. The page is empty if there are no more frames, and `None` if it
    /// can't be read. If frames are no longer kept or can't be read, the member is closed. Otherwise it would have a
    /// silent gap; after a reconnect its client learns of the gap.
    pub fn page(&mut self, fetch: &Fetch, page: Option<Vec<Stored>>) {
        let Some(room_key) = self.by_id.get(&fetch.room).copied() else { return };
        let (room, to) = (&self.rooms[room_key.0], fetch.member);
        // The member has left, or has joined again: then the page is not for it.
        if !room.catching_up.contains(to) {
            return;
        }
        let Some(member) = self.members.get_mut(to.0) else { return };
        let mut catching = member.subscriptions.iter_mut().filter(|one| one.room == fetch.room);
        let Some(subscription) = catching.find(|one| one.catch_up.is_some()) else { return };
        let Some(catch_up) = subscription.catch_up.as_mut().filter(|one| one.span == fetch.span) else { return };
        let taken = page.and_then(|page| catch_up.take_page(&page, room, to, &mut self.effects));
        let Some(all_from) = taken else {
            self.effects.push(Effect::Close { member: to, reason: CloseReason::Overtaken });
            return;
        };
        if let Some(after) = all_from {
            if let Some(rest) = room.ring.frames_after(after) {
                catch_up.send(rest, &room.missed, to, &mut self.effects);
                catch_up.send_missed(&room.missed, None, to, &mut self.effects);
                let caught_up = subscription.catch_up.take();
                return self.end_catch_up(to, room_key, caught_up);
            }
            catch_up.span = Span::All { after };
        }
        self.effects.push(Effect::Fetch(Fetch { span: catch_up.span, ..fetch.clone() }));
    }

    /// Ends the catch-up: the member gets the broadcasts of the room after this.
    fn end_catch_up(&mut self, member: MemberKey, room_key: RoomKey, catch_up: Option<Box<CatchUp>>) {
        if let Some(CatchUp { is_short: true, told, .. }) = catch_up.map(|catch_up| *catch_up) {
            for json in self.made_up_for(room_key, told) {
                self.send(member, json);
            }
        }
        let room = &mut self.rooms[room_key.0];
        room.end_catching_up(member);
        room.members.insert(member);
        self.effects.push(Effect::Enter { room: room_key, member });
    }

    /// The frames for a member that has missed presence frames. They give the difference between the people that it
    /// knows and the people in the room. In a crowded room there is one frame with only the number of people.
    fn made_up_for(&mut self, room_key: RoomKey, told: Option<HashMap<UserId, Arc<Person>>>) -> Vec<Arc<[u8]>> {
        let room = &self.rooms[room_key.0];
        let member_count = room.people.len();
        let Some(told) = told.filter(|_| !self.is_crowded(room_key)) else {
            return vec![self.presence_frame(room_key, member_count, &[], &[])];
        };
        let here: HashSet<_> = self.persons(room).map(|person| person.id).collect();
        let mut left: Vec<_> = told.values().filter(|person| !here.contains(&person.id)).cloned().collect();
        let joined: Vec<_> = self.persons(room).filter(|person| !told.contains_key(&person.id)).cloned().collect();
        left.sort_unstable_by(|a, b| a.username.as_str().cmp(b.username.as_str()));
        self.presence_frames(room_key, member_count, &joined, &left)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::hub::fixtures::{arrival, guest, policy, room, state, stored};
    use crate::limits::{Limits, MISSED_MAX};
    use crate::model::ConnectionId;
    use crate::protocol::{After, Replay};
    use crate::store::entry::{Applied, Entry, Outcome, Past, Proposal, ReplyTo};

    /// A room with 400 stored frames, of which the last 100 are in the ring.
    struct Rig {
        state: State,
        head: u64,
    }

    impl Rig {
        fn new(presence_people_max: usize) -> Self {
            let limits = Limits { presence_people_max, ..Limits::default() };
            let state = state(&limits, policy());
            Self { state, head: 400 }
        }

        /// Connects a user. The connection has the number of the user.
        fn come(&mut self, number: u64, history: usize, seen: Option<u64>) -> MemberKey {
            let after = seen.map(|seq| After::Id(stored(seq, false).id));
            let guest = guest(number, &format!("guest {number}"));
            let arrival = arrival(number, guest, "tea", Replay { history, after });
            let member = self.state.connect(arrival);
            let Some(Effect::Propose(Proposal { entry: Entry::Join(join), reply_to })) = self.state.effects.pop()
            else {
                panic!()
            };
            let frames = (301..=400).map(|seq| stored(seq, false)).collect();
            let past = join.known.is_none().then_some(Past { head: Seq(400), frames, is_whole: false });
            self.apply(
                Outcome::Joined { room: join.room, past, seen: seen.map(Seq), username: None, events: Vec::new() },
                reply_to,
            );
            member
        }

        fn go(&mut self, number: u64) {
            self.state.disconnect(ConnectionId(number), false);
            let Some(Effect::Propose(Proposal { entry: Entry::Leave { room, .. }, reply_to })) =
                self.state.effects.pop()
            else {
                panic!()
            };
            self.apply(Outcome::Left { room }, reply_to);
        }

        fn store(&mut self, is_event: bool) {
            self.head += 1;
            let stored = stored(self.head, is_event);
            self.apply(Outcome::Stored { room: room("tea"), stored, changed: None }, ReplyTo::None);
        }

        fn apply(&mut self, result: Outcome, reply_to: ReplyTo) {
            self.state.applied(Applied { result, reply_to });
        }

        fn fetch(&mut self) -> Fetch {
            let fetch = self.state.effects.iter().rev().find_map(|effect| match effect {
                Effect::Fetch(fetch) => Some(fetch.clone()),
                _ => None,
            });
            self.state.effects.clear();
            fetch.expect("a page is asked for")
        }

        /// The frames that a member is sent for a page: seqs of stored frames, and words for other frames.
        fn page(&mut self, fetch: &Fetch, page: Vec<Stored>) -> Vec<String> {
            self.state.page(fetch, Some(page));
            assert!(!self.state.effects.iter().any(|effect| matches!(effect, Effect::Close { .. })));
            let sent = self.state.effects.iter().filter_map(|effect| match effect {
                Effect::Send { to, json } => {
                    assert_eq!(*to, fetch.member);
                    let frame: Value = serde_json::from_slice(json).unwrap();
                    let name = frame["username"].as_str().unwrap();
                    Some(match frame["type"].as_str().unwrap() {
                        "presence" => frame.to_string(),
                        kind @ ("join" | "leave") => format!("{kind} {name}"),
                        _ => frame["seq"].to_string(),
                    })
                }
                Effect::Enter { .. } => Some("in".to_owned()),
                _ => None,
            });
            sent.collect()
        }
    }

    fn seqs(seqs: impl IntoIterator<Item = u64>) -> Vec<String> {
        seqs.into_iter().map(|seq| seq.to_string()).collect()
    }

    #[test]
    fn missed_joins_and_leaves_are_sent_in_order() {
        let mut rig = Rig::new(200);
        rig.come(1, 0, None);
        rig.state.effects.clear();
        rig.come(2, 0, Some(10));
        let fetch = rig.fetch();
        rig.come(3, 0, None);
        rig.store(false);
        rig.go(3);
        rig.store(true);
        rig.come(4, 0, None);
        rig.state.effects.clear();
        let sent = rig.page(&fetch, (11..=200).map(|seq| stored(seq, false)).collect());
        assert_eq!(sent, seqs(11..=200), "nothing has happened there yet");
        let fetch = rig.fetch();
        let sent = rig.page(&fetch, (201..=350).map(|seq| stored(seq, false)).collect());
        let mut expected = seqs(201..=400);
        let behind = ["join guest 3", "401", "leave guest 3", "402", "join guest 4", "in"];
        expected.extend(behind.map(str::to_owned));
        assert_eq!(sent, expected);
    }

    #[test]
    fn the_latest_messages_are_followed_by_all_frames() {
        let mut rig = Rig::new(200);
        rig.come(1, 0, None);
        rig.state.effects.clear();
        rig.come(2, 150, None);
        let fetch = rig.fetch();
        assert_eq!(fetch.span, Span::Latest { count: 150, until: Seq(400) });
        rig.store(true);
        rig.come(3, 0, None);
        rig.store(false);
        rig.state.effects.clear();
        // The page ends before the ring begins.
        let sent = rig.page(&fetch, (101..=250).step_by(3).map(|seq| stored(seq, false)).collect());
        assert_eq!(sent, seqs((101..=250).step_by(3)));
        let fetch = rig.fetch();
        assert_eq!(fetch.span, Span::Messages { after: Seq(248), until: Seq(400) });
        let sent = rig.page(&fetch, [260, 301].map(|seq| stored(seq, false)).into());
        let mut expected = seqs([260].into_iter().chain(301..=401));
        expected.extend(["join guest 3", "402", "in"].map(str::to_owned));
        assert_eq!(sent, expected);
    }

    #[test]
    fn a_replay_of_messages_continues_after_each_page() {
        let mut rig = Rig::new(200);
        rig.come(1, 0, None);
        rig.state.effects.clear();
        rig.come(2, 200, None);
        let fetch = rig.fetch();
        rig.store(false);
        rig.state.effects.clear();
        // None of the messages are kept any more, but later frames are.
        assert_eq!(rig.page(&fetch, Vec::new()), ["401", "in"]);
    }

    #[test]
    fn a_member_that_misses_too_many_frames_gets_the_difference() {
        let mut rig = Rig::new(200);
        rig.come(1, 0, None);
        rig.come(9, 0, None);
        rig.state.effects.clear();
        rig.come(2, 0, Some(10));
        let fetch = rig.fetch();
        rig.go(1);
        for _ in 0..=MISSED_MAX / 2 {
            rig.come(3, 0, None);
            rig.go(3);
        }
        for number in 20..50 {
            rig.come(number, 0, None);
        }
        rig.state.effects.clear();
        let sent = rig.page(&fetch, (11..=301).map(|seq| stored(seq, false)).collect());
        assert_eq!(sent[..390], seqs(11..=400));
        let told: Vec<Value> = sent[390..sent.len() - 1].iter().map(|one| serde_json::from_str(one).unwrap()).collect();
        let names = |list: &str| {
            let people = told.iter().flat_map(|frame| frame[list].as_array().unwrap());
            people.map(|one| one["username"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names("joined"), (20..50).map(|number| format!("guest {number}")).collect::<Vec<_>>());
        assert_eq!(names("left"), ["guest 1"]);
        assert_eq!((told.len(), &told[0]["member_count"], sent.last().unwrap().as_str()), (2, &32.into(), "in"));
    }

    #[test]
    fn a_member_that_misses_too_many_frames_of_a_crowded_room_gets_the_count() {
        let mut rig = Rig::new(2);
        rig.come(1, 0, None);
        rig.come(9, 0, None);
        rig.state.effects.clear();
        rig.come(2, 0, Some(10));
        let fetch = rig.fetch();
        rig.go(9);
        for _ in 0..=MISSED_MAX / 2 {
            rig.come(3, 0, None);
            rig.go(3);
        }
        rig.state.effects.clear();
        let sent = rig.page(&fetch, (11..=301).map(|seq| stored(seq, false)).collect());
        assert_eq!((&sent[..390], sent.len(), sent[391].as_str()), (&seqs(11..=400)[..], 392, "in"));
        let told: Value = serde_json::from_str(&sent[390]).unwrap();
        assert_eq!(
            (&told["member_count"], &told["joined"], &told["left"]),
            (&2.into(), &[0; 0][..].into(), &[0; 0][..].into())
        );
    }

    #[test]
    fn missed_frames_are_kept_only_while_a_member_catches_up() {
        let mut rig = Rig::new(200);
        rig.come(1, 0, None);
        rig.state.effects.clear();
        rig.come(2, 0, Some(10));
        let key = rig.state.by_id[&room("tea")];
        rig.come(3, 0, None);
        assert_eq!(rig.state.rooms[key.0].missed.end() - rig.state.rooms[key.0].missed.first(), 1);
        rig.state.effects.clear();
        rig.go(2);
        rig.come(4, 0, None);
        let missed = &rig.state.rooms[key.0].missed;
        assert_eq!((missed.first(), missed.end()), (1, 1));
    }
}
