//! The hub's decisions against a model so simple that it can be seen to be right: one list of what was done, read
//! in order, with nothing in flight. Commands and the store's answers are mixed at random.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;

use super::rules::Rules;
use super::state::{Arrival, Effect, MemberKey, RoomKey, State};
use crate::config::Keep;
use crate::ids::FrameIds;
use crate::limits::Limits;
use crate::model::{ConnectionId, FrameId, Person, RoomId, Seq, Timestamp, UserId, Username};
use crate::protocol::{After, Body, ClientFrame, Replay};
use crate::role::Role;
use crate::store::{Append, Appended, Past, Stored};

const HISTORY: usize = 3;

#[derive(Debug, Clone)]
enum Step {
    Connect {
        who: u64,
        room: usize,
    },
    Join {
        who: u64,
        room: usize,
    },
    Leave {
        who: u64,
        room: usize,
    },
    Text {
        who: u64,
        room: Option<usize>,
    },
    Typing {
        who: u64,
        room: usize,
    },
    Disconnect {
        who: u64,
    },
    /// The store gives back this many of what it has.
    Store {
        count: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (who, room) = (0..5u64, 0..3usize);
    let step = prop_oneof![
        3 => (who.clone(), room.clone()).prop_map(|(who, room)| Step::Connect { who, room }),
        2 => (who.clone(), room.clone()).prop_map(|(who, room)| Step::Join { who, room }),
        2 => (who.clone(), room.clone()).prop_map(|(who, room)| Step::Leave { who, room }),
        5 => (who.clone(), proptest::option::of(room.clone())).prop_map(|(who, room)| Step::Text { who, room }),
        1 => (who.clone(), room).prop_map(|(who, room)| Step::Typing { who, room }),
        1 => who.prop_map(|who| Step::Disconnect { who }),
        6 => (1..6usize).prop_map(|count| Step::Store { count }),
    ];
    proptest::collection::vec(step, 0..120)
}

fn room_id(number: usize) -> RoomId {
    RoomId::parse(&format!("room {number}")).unwrap()
}

/// What a connection is shown of one room, in few words.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Welcome { head: u64, members: BTreeSet<String> },
    Text { seq: u64, content: String },
    Joined(String),
    Left(String),
}

/// The model: what each connection should see of each room, had every command been carried out at once.
#[derive(Default)]
struct Model {
    home: HashMap<u64, usize>,
    rooms: BTreeMap<usize, (BTreeSet<u64>, Vec<String>)>,
    seen: HashMap<(u64, usize), Vec<Seen>>,
    errors: HashMap<u64, Vec<&'static str>>,
}

/// A connection's name. Numbers are never used again, so a name is one connection's.
fn name(connection: u64) -> String {
    format!("c{connection}")
}

impl Model {
    fn is_in(&self, who: u64, room: usize) -> bool {
        self.rooms.get(&room).is_some_and(|(members, _)| members.contains(&who))
    }

    fn tell(&mut self, room: usize, seen: &Seen) {
        for who in self.rooms[&room].0.clone() {
            self.seen.entry((who, room)).or_default().push(seen.clone());
        }
    }

    fn join(&mut self, who: u64, room: usize) {
        self.rooms.entry(room).or_default();
        self.tell(room, &Seen::Joined(name(who)));
        let (members, texts) = self.rooms.get_mut(&room).unwrap();
        members.insert(who);
        let head = texts.len() as u64;
        let seen = self.seen.entry((who, room)).or_default();
        seen.push(Seen::Welcome { head, members: members.iter().map(|one| name(*one)).collect() });
        let latest = texts.len().saturating_sub(HISTORY);
        let replayed = texts.iter().enumerate().skip(latest);
        seen.extend(replayed.map(|(index, text)| Seen::Text { seq: index as u64 + 1, content: text.clone() }));
    }

    fn leave(&mut self, who: u64, room: usize, told: bool) {
        self.rooms.get_mut(&room).unwrap().0.remove(&who);
        self.tell(room, &Seen::Left(name(who)));
        if told {
            self.seen.entry((who, room)).or_default().push(Seen::Left(name(who)));
        }
    }
}

/// Whoever goes has gone.
fn without_lease() -> Limits {
    Limits { lease: Duration::ZERO, ..Limits::default() }
}

fn arrival(connection: u64, person: Person, home: RoomId, replay: Replay) -> Arrival {
    let (connection, network) = (ConnectionId(connection), IpAddr::from([127, 0, 0, 1]));
    let (person, role) = (Arc::new(person), Role::Guest);
    Arrival { connection, person, role, session: None, network, home, replay, newcomer: None }
}

/// The state with everything around it that the hub's thread and the store would do.
struct Rig {
    state: State,
    effects: Vec<Effect>,
    with_store: VecDeque<Append>,
    kept: HashMap<RoomId, Vec<Stored>>,
    ids: FrameIds,
    now: Timestamp,
    entered: HashMap<RoomKey, BTreeSet<usize>>,
    connection_of: HashMap<usize, u64>,
    inboxes: HashMap<u64, Vec<Value>>,
    model: Model,
    next_connection: u64,
    /// Which connection a step's number means now.
    current: HashMap<u64, u64>,
    gone: BTreeSet<u64>,
    texts: usize,
}

impl Rig {
    fn new() -> Self {
        Self {
            state: State::new(&without_lease(), Keep::default(), Rules::default()),
            effects: Vec::new(),
            with_store: VecDeque::new(),
            kept: HashMap::new(),
            ids: FrameIds::new(),
            now: Timestamp::at(1_000),
            entered: HashMap::new(),
            connection_of: HashMap::new(),
            inboxes: HashMap::new(),
            model: Model::default(),
            next_connection: 0,
            current: HashMap::new(),
            gone: BTreeSet::new(),
            texts: 0,
        }
    }

    fn carry_out(&mut self) {
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Append(append) => self.with_store.push_back(append),
                Effect::Errand(_) => unreachable!("nobody keeps order here"),
                Effect::Send { to, json } => self.deliver(to.0, &json),
                Effect::Broadcast { room, json } => {
                    for member in self.entered.get(&room).cloned().unwrap_or_default() {
                        self.deliver(member, &json);
                    }
                }
                Effect::Enter { room, member } => {
                    assert!(self.entered.entry(room).or_default().insert(member.0), "entered twice");
                }
                Effect::Exit { room, member } => {
                    self.entered.entry(room).or_default().remove(&member.0);
                }
                Effect::Fetch(_) | Effect::Answer { .. } => {
                    unreachable!("nobody resumes here, and nothing comes over HTTP")
                }
                Effect::RoomGone { room } => {
                    assert!(
                        self.entered.remove(&room).unwrap_or_default().is_empty(),
                        "a room went with members in it"
                    );
                }
            }
        }
    }

    fn deliver(&mut self, member: usize, json: &[u8]) {
        let connection = self.connection_of[&member];
        if !self.gone.contains(&connection) {
            let frame = serde_json::from_slice(json).unwrap();
            self.inboxes.entry(connection).or_default().push(frame);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Connect { who, room } => {
                if self.current.contains_key(&who) {
                    return;
                }
                self.next_connection += 1;
                let connection = self.next_connection;
                self.current.insert(who, connection);
                let person = Person {
                    id: UserId(uuid::Uuid::from_u128(u128::from(connection))),
                    username: Username::parse(&name(connection)).unwrap(),
                };
                let replay = Replay { history: HISTORY, after: None };
                let arrival = arrival(connection, person, room_id(room), replay);
                let key = self.state.connect(arrival, &mut self.effects);
                self.connection_of.insert(key.0, connection);
                self.model.home.insert(connection, room);
                self.model.join(connection, room);
            }
            Step::Disconnect { who } => {
                let Some(connection) = self.current.remove(&who) else {
                    return;
                };
                self.gone.insert(connection);
                self.state.disconnect(ConnectionId(connection), true, &self.now, &mut self.effects);
                for room in 0..3 {
                    if self.model.is_in(connection, room) {
                        self.model.leave(connection, room, false);
                    }
                }
            }
            Step::Store { count } => {
                for _ in 0..count {
                    let Some(append) = self.with_store.pop_front() else {
                        return;
                    };
                    let appended = self.place(append);
                    self.state.appended(appended, &self.now, &mut self.effects);
                    self.carry_out();
                }
            }
            Step::Join { who, room } => self.command(who, room, |room| ClientFrame::Join {
                room: Some(room),
                replay: Replay { history: HISTORY, after: None },
                nonce: None,
            }),
            Step::Leave { who, room } => {
                self.command(who, room, |room| ClientFrame::Leave { room: Some(room), nonce: None })
            }
            Step::Typing { who, room } => {
                self.command(who, room, |room| ClientFrame::Typing { room: Some(room), nonce: None });
            }
            Step::Text { who, room } => {
                self.texts += 1;
                let content = format!("text {}", self.texts);
                let named = room.map(room_id);
                let home = self.current.get(&who).map_or(0, |connection| self.model.home[connection]);
                self.command(who, room.unwrap_or(home), |_| ClientFrame::Message {
                    room: named,
                    nonce: None,
                    body: Body::Text { content: content.into(), reply_to: None },
                });
            }
        }
        self.carry_out();
    }

    fn command(&mut self, who: u64, room: usize, frame: impl FnOnce(RoomId) -> ClientFrame) {
        let Some(&connection) = self.current.get(&who) else {
            return;
        };
        let frame = frame(room_id(room));
        let is_in = self.model.is_in(connection, room);
        let error = match &frame {
            ClientFrame::Join { .. } if is_in => Some("conflict"),
            ClientFrame::Leave { .. } if !is_in => Some("not_found"),
            ClientFrame::Message { .. } | ClientFrame::Typing { .. } if !is_in => Some("forbidden"),
            _ => None,
        };
        match (&frame, error) {
            (_, Some(code)) => self.model.errors.entry(connection).or_default().push(code),
            (ClientFrame::Join { .. }, None) => self.model.join(connection, room),
            (ClientFrame::Leave { .. }, None) => self.model.leave(connection, room, true),
            (ClientFrame::Message { body, .. }, None) => {
                let texts = &mut self.model.rooms.get_mut(&room).unwrap().1;
                texts.push(body.content().to_string());
                let seen = Seen::Text { seq: texts.len() as u64, content: body.content().to_string() };
                self.model.tell(room, &seen);
            }
            (ClientFrame::Typing { .. } | ClientFrame::Measure { .. }, None) => {}
        }
        let member = self.state.member(ConnectionId(connection)).unwrap();
        self.state.frame(member, frame, None, &self.now, &mut self.effects);
    }

    /// What the store does, in the fewest words.
    fn place(&mut self, append: Append) -> Appended {
        match append {
            Append::Message(message) => {
                let kept = self.kept.entry(message.room.clone()).or_default();
                let (id, seq) = (self.ids.next(&self.now), Seq(kept.len() as u64 + 1));
                let json = serde_json::json!({
                    "type": "text", "room_id": message.room.as_str(), "content": message.body.content(), "seq": seq,
                });
                let stored = Stored { id, seq, json: json.to_string().into_bytes().into() };
                kept.push(stored.clone());
                Appended::Message { room: message.room, stored, erased: None, ticket: message.ticket }
            }
            Append::Join { room, ticket, known, .. } => {
                let frames = self.kept.get(&room).cloned().unwrap_or_default();
                let past = known.is_none().then_some(Past { head: Seq(frames.len() as u64), frames });
                Appended::Join { room, ticket, past, seen: None, is_known: true }
            }
            Append::Leave { room, ticket } => Appended::Leave { room, ticket },
            Append::Announcement { .. } => unreachable!("nobody announces anything here"),
        }
    }

    fn seen(&self, connection: u64, room: usize) -> Vec<Seen> {
        let frames = self.inboxes.get(&connection).map_or(&[][..], Vec::as_slice);
        let of_room = frames.iter().filter(|frame| frame["room_id"] == room_id(room).as_str());
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let seen = of_room.filter_map(|frame| match frame["type"].as_str().unwrap() {
            "welcome" => Some(Seen::Welcome {
                head: frame["seq"].as_u64().unwrap(),
                members: frame["members"].as_array().unwrap().iter().map(|one| text(&one["username"])).collect(),
            }),
            "text" => Some(Seen::Text { seq: frame["seq"].as_u64().unwrap(), content: text(&frame["content"]) }),
            "join" => Some(Seen::Joined(text(&frame["username"]))),
            "leave" => Some(Seen::Left(text(&frame["username"]))),
            _ => None,
        });
        seen.collect()
    }

    fn errors(&self, connection: u64) -> Vec<String> {
        let frames = self.inboxes.get(&connection).map_or(&[][..], Vec::as_slice);
        let errors = frames.iter().filter(|frame| frame["type"] == "error");
        errors.map(|frame| frame["code"].as_str().unwrap().to_owned()).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn everybody_sees_what_the_model_says(steps in steps()) {
        let mut rig = Rig::new();
        for step in steps {
            rig.step(step);
        }
        rig.step(Step::Store { count: usize::MAX });
        for connection in 1..=rig.next_connection {
            for room in 0..3 {
                let seen = rig.seen(connection, room);
                let should = rig.model.seen.get(&(connection, room)).cloned().unwrap_or_default();
                if rig.gone.contains(&connection) {
                    prop_assert!(should.starts_with(&seen), "{connection} in {room}: {seen:?} of {should:?}");
                } else {
                    prop_assert_eq!(seen, should, "{} in {}", connection, room);
                }
            }
            if !rig.gone.contains(&connection) {
                let should = rig.model.errors.get(&connection).cloned().unwrap_or_default();
                prop_assert_eq!(rig.errors(connection), should);
            }
        }
        for who in 0..5 {
            rig.step(Step::Disconnect { who });
        }
        rig.step(Step::Store { count: usize::MAX });
        prop_assert_eq!(rig.state.room_count(), 0);
        prop_assert!(rig.state.member_count() == 0, "members are left behind");
    }
}

#[test]
fn the_checker_sees_a_frame_that_is_lost() {
    let mut rig = Rig::new();
    rig.step(Step::Connect { who: 0, room: 0 });
    rig.step(Step::Text { who: 0, room: None });
    rig.step(Step::Store { count: 9 });
    let should = rig.model.seen[&(1, 0)].clone();
    assert_eq!(rig.seen(1, 0), should);
    rig.inboxes.get_mut(&1).unwrap().pop();
    assert_ne!(rig.seen(1, 0), should);
}

#[test]
fn a_gap_is_never_silent() {
    let kept = |places: std::ops::Range<u64>| -> Vec<Stored> {
        let frame = |seq: u64| Stored {
            id: FrameId(uuid::Uuid::from_u128(u128::from(seq))),
            seq: Seq(seq),
            json: format!("{{\"type\":\"text\",\"seq\":{seq}}}").into_bytes().into(),
        };
        places.map(frame).collect()
    };
    let (room, now) = (room_id(0), Timestamp::at(1_000));
    // What was seen last, the pages as they come, and whether each can be the next.
    for (seen, pages) in [
        (Some(10), &[(Some(11..21), true), (Some(21..301), true)][..]),
        (Some(10), &[(Some(11..21), true), (Some(22..32), false)]),
        (Some(10), &[(Some(12..22), false)]),
        (Some(10), &[(Some(11..21), true), (Some(0..0), false)]),
        (Some(10), &[(None, false)]),
        (None, &[(Some(250..301), true)]),
        (None, &[(Some(250..260), true), (Some(261..301), false)]),
        (None, &[(Some(0..0), true)]),
    ] {
        let mut state = State::new(&without_lease(), Keep::default(), Rules::default());
        let mut effects = Vec::new();
        let person = Person { id: UserId(uuid::Uuid::nil()), username: Username::parse("ana").unwrap() };
        let after = seen.map(|seq| After::Id(FrameId(uuid::Uuid::from_u128(u128::from(seq)))));
        let replay = Replay { history: 200, after };
        let member = state.connect(arrival(1, person, room.clone(), replay), &mut effects);
        let joined = Appended::Join {
            room: room.clone(),
            ticket: crate::store::Ticket::Member(member.0),
            past: Some(Past { head: Seq(400), frames: kept(301..401) }),
            seen: seen.map(Seq),
            is_known: true,
        };
        state.appended(joined, &now, &mut effects);
        for (number, (page, fits)) in pages.iter().enumerate() {
            let fetch = effects.iter().rev().find_map(|effect| match effect {
                Effect::Fetch(fetch) => Some(fetch.clone()),
                _ => None,
            });
            let fetch = fetch.unwrap_or_else(|| panic!("page {number} of {pages:?} is not asked for"));
            effects.clear();
            let page = page.clone().map(kept);
            assert_eq!(state.page(&fetch, page, &now, &mut effects).is_ok(), *fits, "page {number} of {pages:?}");
        }
        let is_in = effects.iter().any(|effect| matches!(effect, Effect::Enter { .. }));
        assert_eq!(is_in, pages.iter().all(|(_, fits)| *fits), "{pages:?}");
    }
}

#[test]
fn a_key_is_its_own_until_its_leave_is_done() {
    let mut rig = Rig::new();
    rig.step(Step::Connect { who: 0, room: 0 });
    rig.step(Step::Disconnect { who: 0 });
    rig.step(Step::Connect { who: 1, room: 0 });
    assert_eq!(rig.state.member(ConnectionId(1)), None);
    assert_eq!(rig.state.member(ConnectionId(2)), Some(MemberKey(1)));
}
