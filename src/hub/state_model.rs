//! Compares the hub's decisions with a simple model: one list of actions in order, with nothing in flight. Commands and
//! the answers of the store are mixed at random.
//!
//! Refusals of the store, and kicks, take effect when the hub gets them. The model applies them at that time.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use proptest::prelude::*;
use serde_json::Value;

use super::fixtures::{self, NOW_MS, arrival, guest, history, policy, without_lease};
use super::handle::Presence;
use super::state::{Effect, MemberKey, RoomKey, State};
use crate::limits::{Limits, PRESENCE_INTERVAL};
use crate::model::FrameIds;
use crate::model::reason::Reason;
use crate::model::{ConnectionId, Nonce, RoomId, Seq, Timestamp, UserId};
use crate::protocol::{AdminAction, After, Body, ClientCommand, ClientFrame, Replay};
use crate::store::change::{Change, Done};
use crate::store::entry::{Applied, Entry, Event, Join, NewMessage, Outcome, Past, Proposal, ReplyTo, Stored};
use crate::wire::CloseReason;

const HISTORY: usize = 3;

#[derive(Debug, Clone)]
enum Step {
    /// The store refuses the join if `is_refused` is set.
    Connect {
        client: u64,
        room: usize,
        is_refused: bool,
    },
    Join {
        client: u64,
        room: usize,
        is_refused: bool,
    },
    Leave {
        client: u64,
        room: usize,
    },
    Text {
        client: u64,
        room: Option<usize>,
    },
    Typing {
        client: u64,
        room: usize,
    },
    Disconnect {
        client: u64,
    },
    /// A connection kicks a user. The store refuses a user that kicks itself.
    Kick {
        client: u64,
        user: u64,
        room: usize,
    },
    /// The store returns all its answers, and a `presence` interval passes.
    Second,
    /// The store returns this many of its answers.
    Store {
        count: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (client, room) = (0..8u64, 0..3usize);
    let is_refused = || proptest::bool::weighted(0.15);
    let connect = (client.clone(), room.clone(), is_refused());
    let join = (client.clone(), room.clone(), is_refused());
    let step = prop_oneof![
        4 => connect.prop_map(|(client, room, is_refused)| Step::Connect { client, room, is_refused }),
        3 => join.prop_map(|(client, room, is_refused)| Step::Join { client, room, is_refused }),
        2 => (client.clone(), room.clone()).prop_map(|(client, room)| Step::Leave { client, room }),
        5 => (client.clone(), proptest::option::of(room.clone())).prop_map(|(client, room)| Step::Text { client, room }),
        1 => (client.clone(), room.clone()).prop_map(|(client, room)| Step::Typing { client, room }),
        1 => client.clone().prop_map(|client| Step::Disconnect { client }),
        1 => (client, 0..4u64, room).prop_map(|(client, user, room)| Step::Kick { client, user, room }),
        1 => Just(Step::Second),
        6 => (1..6usize).prop_map(|count| Step::Store { count }),
    ];
    proptest::collection::vec(step, 0..120)
}

fn room_id(number: usize) -> RoomId {
    fixtures::room(&format!("room {number}"))
}

fn frame(room: usize, command: ClientCommand) -> ClientFrame {
    ClientFrame { room: Some(room_id(room)), nonce: None, command }
}

/// A frame of one room that a connection was sent, in short form.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    /// The members, in the order of their arrival.
    Welcome {
        head: u64,
        members: Vec<String>,
    },
    Text {
        seq: u64,
        content: String,
    },
    Joined(String),
    Left(String),
    Renamed {
        former: String,
        name: String,
    },
    Presence {
        count: usize,
        joined: Vec<String>,
        left: Vec<String>,
    },
}

#[derive(Default)]
struct Room {
    /// Oldest first.
    connections: Vec<u64>,
    /// The users of the connections, in the order of their arrival.
    people: Vec<u64>,
    texts: Vec<String>,
    /// Users and names that are not yet in a `presence` frame.
    joined: Vec<(u64, String)>,
    left: Vec<(u64, String)>,
    /// Whether a `welcome` had a count that includes such a change.
    are_known: bool,
}

/// The model: the frames that each connection should get of each room, as if each command took effect at once.
#[derive(Default)]
struct Model {
    home: HashMap<u64, usize>,
    /// The user of each connection.
    user: HashMap<u64, u64>,
    rooms: BTreeMap<usize, Room>,
    /// A room with more people is crowded.
    presence_people_max: usize,
    seen: HashMap<(u64, usize), Vec<Seen>>,
    /// The reasons of errors, in order: from the hub, and from the store.
    errors: HashMap<u64, Vec<&'static str>>,
    refusals: HashMap<u64, Vec<&'static str>>,
    /// The nonces of the kicks that were made.
    kicks: HashMap<u64, Vec<String>>,
}

/// A connection's name. Connection numbers are never reused, so a name belongs to one connection.
fn name(connection: u64) -> String {
    format!("c{connection}")
}

impl Model {
    /// One `presence` frame with all pending changes of a room.
    fn send_presence_changes(&mut self, room: usize, count: usize) {
        let Room { joined, left, are_known, .. } = self.rooms.get_mut(&room).unwrap();
        let are_known = std::mem::take(are_known);
        let names = |people: &mut Vec<(u64, String)>| people.drain(..).map(|(_, name)| name).collect::<Vec<_>>();
        let (joined, left) = (names(joined), names(left));
        if are_known || !joined.is_empty() || !left.is_empty() {
            self.tell(room, &Seen::Presence { count, joined, left });
        }
    }

    fn is_in(&self, connection: u64, room: usize) -> bool {
        self.rooms.get(&room).is_some_and(|room| room.connections.contains(&connection))
    }

    fn tell(&mut self, room: usize, seen: &Seen) {
        for connection in self.rooms[&room].connections.clone() {
            self.seen.entry((connection, room)).or_default().push(seen.clone());
        }
    }

    fn join(&mut self, connection: u64, room: usize) {
        let user = self.user[&connection];
        let Room { people, joined, left, .. } = self.rooms.entry(room).or_default();
        if !people.contains(&user) {
            people.push(user);
            if people.len() <= self.presence_people_max {
                self.tell(room, &Seen::Joined(name(connection)));
            } else if let Some(index) = left.iter().position(|(one, _)| *one == user) {
                // Each connection has its own name here.
                let (_, former) = left.remove(index);
                let name = name(connection);
                if former != name {
                    self.tell(room, &Seen::Renamed { former, name });
                }
            } else {
                joined.push((user, name(connection)));
            }
        }
        let Room { connections, people, texts, joined, left, are_known } = self.rooms.get_mut(&room).unwrap();
        *are_known |= joined.iter().chain(&*left).any(|(one, _)| *one != user);
        connections.push(connection);
        let head = texts.len() as u64;
        let seen = self.seen.entry((connection, room)).or_default();
        let first = |user: &u64| connections.iter().find(|one| self.user[one] == *user).unwrap();
        seen.push(Seen::Welcome { head, members: people.iter().map(|user| name(*first(user))).collect() });
        let latest = texts.len().saturating_sub(HISTORY);
        let replayed = texts.iter().enumerate().skip(latest);
        seen.extend(replayed.map(|(index, text)| Seen::Text { seq: index as u64 + 1, content: text.clone() }));
    }

    fn leave(&mut self, connection: u64, room: usize, told: bool) {
        let user = self.user[&connection];
        let Room { connections, people, joined, left, .. } = self.rooms.get_mut(&room).unwrap();
        connections.retain(|one| *one != connection);
        if !connections.iter().any(|one| self.user[one] == user) {
            people.retain(|one| *one != user);
            if people.len() > self.presence_people_max {
                if !forget(joined, user) {
                    left.push((user, name(connection)));
                }
            } else {
                let count = people.len() + 1;
                self.send_presence_changes(room, count);
                self.tell(room, &Seen::Left(name(connection)));
            }
        }
        if told {
            self.seen.entry((connection, room)).or_default().push(Seen::Left(name(connection)));
        }
    }
}

fn forget(people: &mut Vec<(u64, String)>, user: u64) -> bool {
    let before = people.len();
    people.retain(|(one, _)| *one != user);
    people.len() < before
}

/// An entry that the store has decided but not returned.
struct Decided {
    applied: Applied,
    /// The number of a join.
    join: u64,
}

/// A minimal store: it assigns seqs, and knows which joins it refused and which users were kicked.
#[derive(Default)]
struct StoreModel {
    kept: HashMap<RoomId, Vec<Stored>>,
    /// Connections whose last join of a room was refused.
    refused: BTreeSet<(u64, RoomId)>,
    kicked: BTreeSet<(RoomId, UserId)>,
}

impl StoreModel {
    /// The reason why a message of a connection is refused.
    fn refusal(&self, connection: u64, room: &RoomId, user: UserId) -> Option<Reason> {
        if self.refused.contains(&(connection, room.clone())) {
            Some(REFUSAL)
        } else {
            self.kicked.contains(&(room.clone(), user)).then_some(Reason::Kicked)
        }
    }
}

/// The reason for which the store refuses a join.
const REFUSAL: Reason = Reason::NameReserved;

/// The people in a room that a client knows from its frames.
struct Known {
    people: BTreeSet<String>,
    count: usize,
    /// Whether the room was not crowded when the client entered. In a crowded room, a client learns the number of
    /// people but not every person.
    is_whole: bool,
}

/// The state, with the parts of the hub's thread and of the store that the test needs.
struct Rig {
    state: State,
    with_store: VecDeque<Decided>,
    store_model: StoreModel,
    ids: FrameIds,
    now: Timestamp,
    moment: Instant,
    entered: HashMap<RoomKey, BTreeSet<usize>>,
    connection_of: HashMap<usize, u64>,
    inboxes: HashMap<u64, Vec<Value>>,
    published: Presence,
    known: HashMap<(u64, RoomId), Known>,
    model: Model,
    next_connection: u64,
    /// The current connection of each client.
    current: HashMap<u64, u64>,
    gone: BTreeSet<u64>,
    texts: usize,
    next_join: u64,
    /// The joins of the rooms in which connections began.
    first_joins: BTreeSet<u64>,
    /// Rooms that a connection has asked to join and not to leave, each with the number of that join. A join is removed
    /// when its refusal has come back.
    asked: BTreeMap<(u64, usize), u64>,
    /// Whether the store refuses the join of this step.
    is_refused: bool,
    kicks: usize,
}

impl Rig {
    fn new(presence_people_max: usize) -> Self {
        let limits = Limits { presence_people_max, ..without_lease() };
        Self {
            state: fixtures::state(&limits, policy()),
            moment: Instant::now(),
            with_store: VecDeque::new(),
            store_model: StoreModel::default(),
            ids: FrameIds::new(),
            now: Timestamp::at(NOW_MS),
            entered: HashMap::new(),
            connection_of: HashMap::new(),
            inboxes: HashMap::new(),
            published: Presence::new_sync(),
            known: HashMap::new(),
            model: Model { presence_people_max, ..Model::default() },
            next_connection: 0,
            current: HashMap::new(),
            gone: BTreeSet::new(),
            texts: 0,
            next_join: 0,
            first_joins: BTreeSet::new(),
            asked: BTreeMap::new(),
            is_refused: false,
            kicks: 0,
        }
    }

    fn carry_out(&mut self) {
        let mut closes = Vec::new();
        for effect in std::mem::take(&mut self.state.effects) {
            match effect {
                Effect::Propose(proposal) => self.propose(proposal),
                Effect::Send { to, json } => self.deliver(to.0, &json),
                Effect::Broadcast { room, json, .. } => {
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
                    unreachable!("no connection resumes here, and nothing comes over HTTP")
                }
                Effect::Close { member, .. } => closes.push(self.connection_of[&member.0]),
                Effect::RoomGone { room } => {
                    assert!(
                        self.entered.remove(&room).unwrap_or_default().is_empty(),
                        "a room went with members in it"
                    );
                }
            }
        }
        for connection in closes {
            let last = self.inboxes[&connection].last().unwrap();
            assert_eq!(last["reason"], REFUSAL.word(), "a connection is told why it is closed");
            self.end(connection);
        }
    }

    fn deliver(&mut self, member: usize, json: &[u8]) {
        let connection = self.connection_of[&member];
        if !self.gone.contains(&connection) {
            let frame = serde_json::from_slice(json).unwrap();
            self.learn(connection, &frame);
            self.inboxes.entry(connection).or_default().push(frame);
        }
    }

    /// Updates the people that a client knows to be in the room.
    fn learn(&mut self, connection: u64, frame: &Value) {
        let key = (connection, fixtures::room(frame["room_id"].as_str().unwrap()));
        let id = |person: &Value, field: &str| person[field].as_str().unwrap().to_owned();
        let ids = |list: &str| frame[list].as_array().unwrap().iter().map(|one| id(one, "id")).collect::<Vec<_>>();
        let user = id(frame, "user_id");
        match frame["type"].as_str().unwrap() {
            "welcome" => {
                let count = frame["member_count"].as_u64().unwrap() as usize;
                let is_whole = count <= self.model.presence_people_max;
                self.known.insert(key, Known { people: ids("members").into_iter().collect(), count, is_whole });
            }
            "leave" if user == self.user_of(connection).0.to_string() => drop(self.known.remove(&key)),
            kind @ ("join" | "leave" | "presence") => {
                let known = self.known.get_mut(&key).expect("a welcome comes first");
                match kind {
                    "join" => known.count += usize::from(known.people.insert(user)),
                    "leave" => {
                        known.people.remove(&user);
                        known.count -= 1;
                    }
                    _ => {
                        known.people.extend(ids("joined"));
                        let left = ids("left");
                        known.people.retain(|user| !left.contains(user));
                        known.count = frame["member_count"].as_u64().unwrap() as usize;
                    }
                }
            }
            _ => {}
        }
    }

    /// Publishes presence as the hub does, and compares it with the people that the clients know. The clients of a
    /// crowded room learn of changes later, unless `is_told` is set.
    fn publish(&mut self, is_told: bool) {
        if let Some(presence) = self.state.take_presence() {
            self.published = presence;
        }
        for (room, presence) in &self.published {
            assert!(presence.count > 0 && presence.count == presence.people.len(), "{room}: {presence:?}");
        }
        for ((connection, room), known) in &self.known {
            let published = self.published.get(room).expect("a room with members is published");
            if is_told || published.count <= self.model.presence_people_max {
                let ids: BTreeSet<_> = published.people.iter().map(|person| person.id.0.to_string()).collect();
                assert_eq!(published.count, known.count, "{connection} in {room}");
                assert!(!known.is_whole || ids == known.people, "{connection} in {room}: {ids:?}, {:?}", known.people);
            }
        }
    }

    /// With nothing in flight, the published presence equals the model's.
    fn assert_published(&self) {
        let mut rooms = 0;
        for (number, room) in self.model.rooms.iter().filter(|(_, room)| !room.people.is_empty()) {
            let published = self.published.get(&room_id(*number)).expect("a room with people is published");
            let first = |user: &u64| room.connections.iter().find(|one| self.model.user[one] == *user).unwrap();
            let names: Vec<_> = room.people.iter().map(|user| name(*first(user))).collect();
            let listed: Vec<_> = published.people.iter().map(|person| person.username.as_str().to_owned()).collect();
            assert_eq!((published.count, listed), (names.len(), names));
            rooms += 1;
        }
        assert_eq!(self.published.size(), rooms, "rooms without people are published");
    }

    fn user_of(&self, connection: u64) -> UserId {
        fixtures::user(self.model.user[&connection])
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Connect { client, room, is_refused } => {
                if self.current.contains_key(&client) {
                    return;
                }
                self.next_connection += 1;
                let connection = self.next_connection;
                self.current.insert(client, connection);
                let user = client / 2;
                self.model.home.insert(connection, room);
                self.model.user.insert(connection, user);
                let guest = guest(user, &name(connection));
                let arrival = arrival(connection, guest, room_id(room).as_str(), history(HISTORY));
                let key = self.state.connect(arrival);
                self.connection_of.insert(key.0, connection);
                self.first_joins.insert(self.next_join);
                self.ask_to_join(connection, room, is_refused);
            }
            Step::Disconnect { client } => {
                if let Some(connection) = self.current.get(&client) {
                    self.end(*connection);
                }
            }
            Step::Store { count } => {
                for _ in 0..count {
                    let Some(decided) = self.with_store.pop_front() else {
                        return;
                    };
                    self.give_back(decided);
                    self.carry_out();
                    self.publish(false);
                }
            }
            Step::Second => {
                self.step(Step::Store { count: usize::MAX });
                for _ in 0..2 {
                    self.moment += PRESENCE_INTERVAL;
                    let (policy, now) = (Arc::new(policy()), self.now.clone());
                    self.state.begin_round(policy, fixtures::moment(), now, self.moment);
                    self.state.send_presence();
                }
                for room in 0..3 {
                    if let Some(count) = self.model.rooms.get(&room).map(|room| room.people.len()) {
                        self.model.send_presence_changes(room, count);
                    }
                }
                self.carry_out();
                self.publish(true);
                self.assert_published();
            }
            Step::Join { client, room, is_refused } => {
                let frame = frame(room, ClientCommand::Join(history(HISTORY)));
                if let Some(connection) = self.command(client, room, frame, Reason::AlreadyInRoom, false) {
                    self.ask_to_join(connection, room, is_refused);
                }
            }
            Step::Leave { client, room } => {
                let frame = frame(room, ClientCommand::Leave);
                if let Some(connection) = self.command(client, room, frame, Reason::NotJoined, true) {
                    self.asked.remove(&(connection, room));
                    if self.model.is_in(connection, room) {
                        self.model.leave(connection, room, true);
                    }
                }
            }
            Step::Typing { client, room } => {
                let frame = frame(room, ClientCommand::Typing);
                self.command(client, room, frame, Reason::NotInRoom, true);
            }
            Step::Text { client, room } => {
                self.texts += 1;
                let content = format!("text {}", self.texts);
                let home = self.current.get(&client).map_or(0, |connection| self.model.home[connection]);
                let body = Body::Text { content: content.as_str().into(), reply_to: None };
                let command = ClientCommand::Message(body);
                let frame = ClientFrame { room: room.map(room_id), nonce: None, command };
                let room = room.unwrap_or(home);
                if let Some(connection) = self.command(client, room, frame, Reason::NotInRoom, true)
                    && self.store_model.refusal(connection, &room_id(room), self.user_of(connection)).is_none()
                {
                    let texts = &mut self.model.rooms.get_mut(&room).unwrap().texts;
                    texts.push(content.clone());
                    let seq = texts.len() as u64;
                    self.model.tell(room, &Seen::Text { seq, content });
                }
            }
            Step::Kick { client, user, room } => {
                if let Some(&connection) = self.current.get(&client) {
                    self.kicks += 1;
                    let nonce = Nonce::parse(&format!("kick {}", self.kicks)).ok();
                    let command = ClientCommand::Admin(Box::new(AdminAction::Kick(fixtures::user(user))));
                    self.send(connection, ClientFrame { nonce, ..frame(room, command) });
                }
            }
        }
        self.carry_out();
    }

    fn ask_to_join(&mut self, connection: u64, room: usize, is_refused: bool) {
        self.is_refused = is_refused;
        self.asked.insert((connection, room), self.next_join);
        if !is_refused {
            self.model.join(connection, room);
        }
    }

    /// Sends a command that the hub accepts only from connections in the room, or only from connections outside it.
    /// Returns the connection if the command is accepted.
    fn command(
        &mut self,
        client: u64,
        room: usize,
        frame: ClientFrame,
        otherwise: Reason,
        is_for_members: bool,
    ) -> Option<u64> {
        let &connection = self.current.get(&client)?;
        self.send(connection, frame);
        if self.asked.contains_key(&(connection, room)) == is_for_members {
            return Some(connection);
        }
        self.model.errors.entry(connection).or_default().push(otherwise.word());
        None
    }

    fn send(&mut self, connection: u64, frame: ClientFrame) {
        let member = self.state.member(ConnectionId(connection)).unwrap();
        self.state.frame(member, frame, None);
    }

    /// Ends a connection, by itself or because it was refused.
    fn end(&mut self, connection: u64) {
        self.current.retain(|_, one| *one != connection);
        self.gone.insert(connection);
        self.known.retain(|(one, _), _| *one != connection);
        self.asked.retain(|(one, _), _| *one != connection);
        for room in 0..3 {
            if self.model.is_in(connection, room) {
                self.model.leave(connection, room, false);
            }
        }
        self.state.disconnect(ConnectionId(connection), true);
        self.carry_out();
    }

    /// The store decides an entry, in the order of the proposals.
    fn propose(&mut self, Proposal { entry, reply_to }: Proposal) {
        let join = self.next_join;
        let result = match entry {
            Entry::Message(message) => {
                let ReplyTo::Connection(connection) = reply_to else { panic!("{reply_to:?}") };
                let NewMessage { room, author, body, nonce, .. } = message;
                match self.store_model.refusal(connection.0, &room, author.user()) {
                    Some(reason) => Outcome::Refused { room: Some(room), rejection: reason.into(), nonce },
                    None => {
                        let kept = self.store_model.kept.entry(room.clone()).or_default();
                        let (id, seq) = (self.ids.next(&self.now), Seq(kept.len() as u64 + 1));
                        let json = serde_json::json!({
                            "type": "text", "room_id": room.as_str(), "user_id": author.user().0.to_string(),
                            "content": body.content(), "seq": seq,
                        });
                        let stored = Stored { id, seq, is_event: false, json: json.to_string().into_bytes().into() };
                        kept.push(stored.clone());
                        Outcome::Stored { room, stored, changed: None }
                    }
                }
            }
            Entry::Join(Join { room, connection, principal, known, .. }) => {
                self.next_join += 1;
                let ReplyTo::Member(member) = reply_to else { panic!("{reply_to:?}") };
                let key = (self.connection_of[&member], room.clone());
                assert_eq!(connection.0, key.0);
                if std::mem::take(&mut self.is_refused) {
                    self.store_model.refused.insert(key);
                    Outcome::JoinRefused { room, rejection: REFUSAL.into() }
                } else {
                    self.store_model.refused.remove(&key);
                    self.store_model.kicked.remove(&(room.clone(), principal.user()));
                    let frames = self.store_model.kept.get(&room).cloned().unwrap_or_default();
                    let head = Seq(frames.len() as u64);
                    let past = known.is_none().then_some(Past { head, frames, is_whole: true });
                    Outcome::Joined { room, past, seen: None, username: None, events: Vec::new() }
                }
            }
            Entry::Leave { room, user, connection } => {
                let ReplyTo::Member(member) = reply_to else { panic!("{reply_to:?}") };
                assert_eq!(connection.0, self.connection_of[&member]);
                self.store_model.kicked.remove(&(room.clone(), user));
                Outcome::Left { room }
            }
            Entry::Change { change, .. } => {
                let Change::Kick { room, user, .. } = *change else { panic!("{change:?}") };
                let ReplyTo::Command(reply) = &reply_to else { panic!("{reply_to:?}") };
                if self.user_of(reply.connection.0) == user {
                    Outcome::Refused { room: None, rejection: Reason::TargetIsSelf.into(), nonce: None }
                } else {
                    self.store_model.kicked.insert((room.clone(), user));
                    Outcome::Changed {
                        done: Done::Kicked { username: None },
                        events: vec![Event::Kicked { room, user }],
                    }
                }
            }
            Entry::Announcement { .. } => unreachable!("nothing is announced here"),
        };
        self.with_store.push_back(Decided { applied: Applied { result, reply_to }, join });
    }

    /// The hub gets the outcome of an entry.
    fn give_back(&mut self, Decided { applied, join }: Decided) {
        let mut kicked = None;
        let mut refused = None;
        let mut closed = None;
        match (&applied.result, &applied.reply_to) {
            (Outcome::JoinRefused { room, rejection }, ReplyTo::Member(member)) => {
                let connection = self.connection_of[member];
                refused = Some((connection, rejection.reason));
                let number = (0..3).find(|number| room_id(*number) == *room).unwrap();
                if self.first_joins.contains(&join) && !self.gone.contains(&connection) {
                    closed = Some(*member);
                }
                if self.asked.get(&(connection, number)) == Some(&join) {
                    self.asked.remove(&(connection, number));
                }
            }
            (Outcome::Refused { rejection, .. }, ReplyTo::Connection(connection)) => {
                refused = Some((connection.0, rejection.reason));
            }
            (Outcome::Refused { rejection, .. }, ReplyTo::Command(reply)) => {
                refused = Some((reply.connection.0, rejection.reason));
            }
            (Outcome::Changed { events, .. }, ReplyTo::Command(reply)) => {
                let [Event::Kicked { room, user }] = events.as_slice() else { panic!("{events:?}") };
                let number = (0..3).find(|number| room_id(*number) == *room).unwrap();
                kicked = Some((number, *user));
                let nonce = reply.nonce.as_ref().unwrap().as_str().to_owned();
                self.model.kicks.entry(reply.connection.0).or_default().push(nonce);
            }
            _ => {}
        }
        if let Some((connection, reason)) = refused {
            self.model.refusals.entry(connection).or_default().push(reason.word());
        }
        self.state.applied(applied);
        let closes = self.state.effects.iter().filter_map(|effect| match effect {
            Effect::Close { member, reason } => Some((member.0, *reason)),
            _ => None,
        });
        let closed = closed.map(|member| (member, CloseReason::SessionEnded));
        assert!(closes.eq(closed), "only a connection that may not enter its first room is closed");
        if let Some((room, user)) = kicked {
            self.kick(room, user);
        }
    }

    /// The connections of a user that are in a room, or ask to join it, get the kick and leave. The order is that of
    /// their leaves.
    fn kick(&mut self, room: usize, user: UserId) {
        let proposed = self.state.effects.iter().filter_map(|effect| match effect {
            Effect::Propose(Proposal { entry: Entry::Leave { .. }, reply_to: ReplyTo::Member(member) }) => {
                Some(*member)
            }
            _ => None,
        });
        let leaves: Vec<u64> = proposed.map(|member| self.connection_of[&member]).collect();
        let asked = self.asked.keys().filter(|(one, of)| *of == room && self.user_of(*one) == user);
        let asked: BTreeSet<u64> = asked.map(|(one, _)| *one).collect();
        assert_eq!(leaves.iter().copied().collect::<BTreeSet<_>>(), asked, "a kick is for all of a user's connections");
        assert_eq!(leaves.len(), asked.len(), "each leaves once");
        for connection in leaves {
            self.model.refusals.entry(connection).or_default().push(Reason::Kicked.word());
            self.asked.remove(&(connection, room));
            if self.model.is_in(connection, room) {
                self.model.leave(connection, room, true);
            }
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
            "rename" => Some(Seen::Renamed { former: text(&frame["former"]), name: text(&frame["content"]) }),
            "presence" => Some(Seen::Presence {
                count: frame["member_count"].as_u64().unwrap() as usize,
                joined: frame["joined"].as_array().unwrap().iter().map(|one| text(&one["username"])).collect(),
                left: frame["left"].as_array().unwrap().iter().map(|one| text(&one["username"])).collect(),
            }),
            _ => None,
        });
        seen.collect()
    }

    /// A field of all frames of one type that a connection was sent.
    fn field(&self, connection: u64, kind: &str, field: &str) -> Vec<String> {
        let frames = self.inboxes.get(&connection).map_or(&[][..], Vec::as_slice);
        let of_kind = frames.iter().filter(|frame| frame["type"] == kind);
        of_kind.map(|frame| frame[field].as_str().unwrap().to_owned()).collect()
    }

    /// The reasons of the errors from the hub, and of the errors from the store.
    fn errors(&self, connection: u64) -> (Vec<String>, Vec<String>) {
        let by_hub = [Reason::AlreadyInRoom, Reason::NotJoined, Reason::NotInRoom].map(Reason::word);
        self.field(connection, "error", "reason").into_iter().partition(|reason| by_hub.contains(&reason.as_str()))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_connection_sees_the_frames_of_the_model(presence_people_max in 1..5usize, steps in steps()) {
        let mut rig = Rig::new(presence_people_max);
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
            let owned = |reasons: &HashMap<u64, Vec<&str>>| -> Vec<String> {
                reasons.get(&connection).into_iter().flatten().map(|reason| (*reason).to_owned()).collect()
            };
            let (errors, refusals) = rig.errors(connection);
            let (errors_due, refusals_due) = (owned(&rig.model.errors), owned(&rig.model.refusals));
            let kicks = rig.field(connection, "kick", "nonce");
            let kicks_due = rig.model.kicks.get(&connection).cloned().unwrap_or_default();
            if rig.gone.contains(&connection) {
                prop_assert!(errors_due.starts_with(&errors) && refusals_due.starts_with(&refusals));
                prop_assert!(kicks_due.starts_with(&kicks));
            } else {
                prop_assert_eq!((errors, refusals, kicks), (errors_due, refusals_due, kicks_due), "{}", connection);
            }
        }
        rig.step(Step::Second);
        for client in 0..8 {
            rig.step(Step::Disconnect { client });
        }
        rig.step(Step::Store { count: usize::MAX });
        prop_assert_eq!(rig.state.room_count(), 0);
        prop_assert!(rig.state.member_count() == 0, "members are left behind");
        prop_assert!(rig.published.is_empty(), "rooms are left behind");
    }
}

#[test]
fn the_checker_detects_a_lost_frame() {
    let mut rig = Rig::new(2);
    rig.step(Step::Connect { client: 0, room: 0, is_refused: false });
    rig.step(Step::Text { client: 0, room: None });
    rig.step(Step::Store { count: 9 });
    let should = rig.model.seen[&(1, 0)].clone();
    assert_eq!(rig.seen(1, 0), should);
    rig.inboxes.get_mut(&1).unwrap().pop();
    assert_ne!(rig.seen(1, 0), should);
}

#[test]
fn a_gap_in_the_history_closes_the_connection() {
    let kept = |seqs: std::ops::Range<u64>| seqs.map(|seq| fixtures::stored(seq, false)).collect::<Vec<_>>();
    // The last seq that the client saw, the pages in order, and whether each page is accepted.
    for (seen, pages) in [
        (Some(10), &[(Some(11..21), true), (Some(21..301), true)][..]),
        (Some(10), &[(Some(11..21), true), (Some(22..32), false)]),
        (Some(10), &[(Some(12..22), false)]),
        (Some(10), &[(Some(11..21), true), (Some(0..0), false)]),
        (Some(10), &[(None, false)]),
        (None, &[(Some(250..301), true)]),
        // The latest messages may have gaps, where events are. What follows them must have none.
        (None, &[(Some(250..260), true), (Some(261..301), true)]),
        (None, &[(Some(0..0), true)]),
    ] {
        let mut state = fixtures::state(&without_lease(), policy());
        let after = seen.map(|seq| After::Id(fixtures::stored(seq, false).id));
        let replay = Replay { history: 200, after };
        let member = state.connect(arrival(1, guest(1, "ana"), "tea", replay));
        let past = Some(Past { head: Seq(400), frames: kept(301..401), is_whole: false });
        let joined = Outcome::Joined {
            room: fixtures::room("tea"),
            past,
            seen: seen.map(Seq),
            username: None,
            events: Vec::new(),
        };
        state.applied(Applied { result: joined, reply_to: ReplyTo::Member(member.0) });
        for (number, (page, fits)) in pages.iter().enumerate() {
            let fetch = state.effects.iter().rev().find_map(|effect| match effect {
                Effect::Fetch(fetch) => Some(fetch.clone()),
                _ => None,
            });
            let fetch = fetch.unwrap_or_else(|| panic!("page {number} of {pages:?} is not asked for"));
            state.effects.clear();
            let page = page.clone().map(kept);
            state.page(&fetch, page);
            let is_closed = |effect: &Effect| matches!(effect, Effect::Close { reason: CloseReason::Overtaken, .. });
            assert_eq!(!state.effects.iter().any(is_closed), *fits, "page {number} of {pages:?}");
        }
        let is_in = state.effects.iter().any(|effect| matches!(effect, Effect::Enter { .. }));
        assert_eq!(is_in, pages.iter().all(|(_, fits)| *fits), "{pages:?}");
    }
}

#[test]
fn a_member_key_is_not_reused_before_its_leave_is_done() {
    let mut rig = Rig::new(2);
    rig.step(Step::Connect { client: 0, room: 0, is_refused: false });
    rig.step(Step::Disconnect { client: 0 });
    rig.step(Step::Connect { client: 1, room: 0, is_refused: false });
    assert_eq!(rig.state.member(ConnectionId(1)), None);
    assert_eq!(rig.state.member(ConnectionId(2)), Some(MemberKey(1)));
}
