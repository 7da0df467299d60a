//! Fixtures for tests of the hub: principals, a policy, and a state whose store is the test.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use uuid::Uuid;

use super::handle::Answer;
use super::state::{Arrival, Effect, Fetch, MemberKey, RoomKey, State};
use crate::auth::guest_token::GuestKey;
use crate::limits::Limits;
use crate::model::reason::Reason;
use crate::model::{ConnectionId, FrameId, Person, RoomId, Seq, Timestamp, UserId, Username};
use crate::protocol::{ClientFrame, Replay};
use crate::store::accounts::SessionId;
use crate::store::change::Policy;
use crate::store::entry::{Applied, Entry, Outcome, Past, Principal, Proof, Proposal, ReplyTo, Stored};
use crate::store::log::clock::Moment;
use crate::store::{PolicySnapshot, ServerId};
use crate::wire::CloseReason;

/// The log time and the wall time in tests.
pub const NOW_MS: u64 = 1_767_225_600_000;

pub fn room(name: &str) -> RoomId {
    RoomId::parse(name).unwrap()
}

pub fn user(number: u64) -> UserId {
    UserId(Uuid::from_u128(number.into()))
}

pub fn person(number: u64, name: &str) -> Person {
    Person::guest(user(number), Username::parse(name).unwrap())
}

/// A guest with a signed token.
pub fn guest(number: u64, name: &str) -> Arc<Principal> {
    principal(number, name, Proof::SignedGuest { issued_ms: NOW_MS })
}

/// An account with a login session.
pub fn account(number: u64, name: &str, session: i64) -> Arc<Principal> {
    principal(number, name, Proof::Account(SessionId(session)))
}

fn principal(number: u64, name: &str, proof: Proof) -> Arc<Principal> {
    let network = IpAddr::from([127, 0, 0, 1]);
    Arc::new(Principal { person: Arc::new(person(number, name)), proof, network })
}

/// The same client, connected from another network.
pub fn from_network(principal: &Principal, network: [u8; 4]) -> Arc<Principal> {
    Arc::new(Principal { network: network.into(), ..principal.clone() })
}

pub fn policy() -> PolicySnapshot {
    let server = ServerId { id: "12".into(), made_ms: 0 };
    PolicySnapshot::new(Policy::default(), GuestKey::from_bytes([7; GuestKey::BYTES]), server)
}

pub fn moment() -> Moment {
    Moment { clock_ms: NOW_MS, wall_ms: NOW_MS, index: 1, ahead_ms: 0 }
}

/// A state with this policy, and no members or rooms.
pub fn state(limits: &Limits, policy: PolicySnapshot) -> State {
    State::new(limits, Arc::new(policy), moment())
}

/// Begins a round with this policy, at this time of the log.
pub fn begin_round(state: &mut State, policy: PolicySnapshot, moment: Moment) {
    state.begin_round(Arc::new(policy), moment, Timestamp::at(NOW_MS), Instant::now());
}

/// Limits without a lease: a lost connection keeps no place.
pub fn without_lease() -> Limits {
    Limits { lease: Duration::ZERO, ..Limits::default() }
}

pub fn history(count: usize) -> Replay {
    Replay { history: count, after: None }
}

pub fn arrival(connection: u64, principal: Arc<Principal>, home: &str, replay: Replay) -> Arrival {
    let (connection, room) = (ConnectionId(connection), room(home));
    Arrival { connection, principal, skeletons: None, room, replay, token: None }
}

/// A stored frame whose id is its seq.
pub fn stored(seq: u64, is_event: bool) -> Stored {
    let kind = if is_event { "delete" } else { "text" };
    let json = format!(r#"{{"type":"{kind}","seq":{seq},"username":"ana"}}"#).into_bytes().into();
    Stored { id: FrameId(Uuid::from_u128(seq.into())), seq: Seq(seq), is_event, json }
}

/// A state with the parts of the hub's thread that tests need. The test is its store: proposals wait in a queue until
/// the test gives their outcome.
pub struct Desk {
    pub state: State,
    pub proposals: VecDeque<Proposal>,
    /// The frames that each connection was sent since the test last took them.
    pub inboxes: BTreeMap<u64, Vec<Value>>,
    pub closed: Vec<(u64, CloseReason)>,
    pub answers: Vec<(u64, Answer)>,
    pub fetches: Vec<Fetch>,
    entered: HashMap<RoomKey, BTreeSet<usize>>,
    connections: HashMap<usize, u64>,
}

impl Desk {
    pub fn new(limits: &Limits) -> Self {
        Self::with_policy(limits, policy())
    }

    pub fn with_policy(limits: &Limits, policy: PolicySnapshot) -> Self {
        Self {
            state: state(limits, policy),
            proposals: VecDeque::new(),
            inboxes: BTreeMap::new(),
            closed: Vec::new(),
            answers: Vec::new(),
            fetches: Vec::new(),
            entered: HashMap::new(),
            connections: HashMap::new(),
        }
    }

    /// Opens a connection. Its join waits in the queue.
    pub fn connect(&mut self, connection: u64, principal: &Arc<Principal>, home: &str) -> MemberKey {
        let member = self.state.connect(arrival(connection, Arc::clone(principal), home, history(5)));
        self.connections.insert(member.0, connection);
        self.carry_out();
        member
    }

    /// Opens a connection and completes its join.
    pub fn come(&mut self, connection: u64, principal: &Arc<Principal>, home: &str) -> MemberKey {
        let member = self.connect(connection, principal, home);
        self.settle();
        member
    }

    /// A connection sends a command.
    pub fn send(&mut self, connection: u64, json: &str) {
        let frame = crate::protocol::decode(json, &Limits::default()).unwrap();
        self.frame(connection, frame);
    }

    pub fn frame(&mut self, connection: u64, frame: ClientFrame) {
        let member = self.state.member(ConnectionId(connection)).unwrap();
        self.state.frame(member, frame, None);
        self.carry_out();
    }

    pub fn disconnect(&mut self, connection: u64, has_lease: bool) {
        self.state.disconnect(ConnectionId(connection), has_lease);
        self.carry_out();
    }

    /// The store returns an outcome that was not proposed, or whose proposal the test has taken.
    pub fn apply(&mut self, result: Outcome, reply_to: ReplyTo) {
        self.state.applied(Applied { result, reply_to });
        self.carry_out();
    }

    /// The store refuses the first join in the queue.
    pub fn refuse_join(&mut self, reason: Reason) {
        let Some(Proposal { entry: Entry::Join(join), reply_to }) = self.proposals.pop_front() else {
            panic!("no join waits");
        };
        self.apply(Outcome::JoinRefused { room: join.room, rejection: reason.into() }, reply_to);
    }

    /// The store accepts all waiting joins and leaves.
    pub fn settle(&mut self) {
        while let Some(proposal) = self.proposals.pop_front() {
            match proposal {
                Proposal { entry: Entry::Join(join), reply_to } => {
                    let past = join.known.is_none().then(|| Past { is_whole: true, ..Past::default() });
                    self.apply(
                        Outcome::Joined { room: join.room, past, seen: None, username: None, events: Vec::new() },
                        reply_to,
                    );
                }
                Proposal { entry: Entry::Leave { room, .. }, reply_to } => self.apply(Outcome::Left { room }, reply_to),
                other => return self.proposals.push_front(other),
            }
        }
    }

    /// The connections that were sent frames since the last call, each with its frames in short form.
    pub fn take_frames(&mut self) -> BTreeMap<u64, Vec<String>> {
        let inboxes = std::mem::take(&mut self.inboxes);
        inboxes.into_iter().map(|(connection, frames)| (connection, frames.iter().map(short).collect())).collect()
    }

    /// The frames that one connection was sent since the last call. The frames of other connections are discarded.
    pub fn take_frames_of(&mut self, connection: u64) -> Vec<Value> {
        std::mem::take(&mut self.inboxes).remove(&connection).unwrap_or_default()
    }

    fn carry_out(&mut self) {
        let mut closes = Vec::new();
        for effect in std::mem::take(&mut self.state.effects) {
            match effect {
                Effect::Propose(proposal) => self.proposals.push_back(proposal),
                Effect::Send { to, json } => self.deliver(to.0, &json),
                Effect::Broadcast { room, json, .. } => {
                    for member in self.entered.get(&room).cloned().unwrap_or_default() {
                        self.deliver(member, &json);
                    }
                }
                Effect::Enter { room, member } => drop(self.entered.entry(room).or_default().insert(member.0)),
                Effect::Exit { room, member } => drop(self.entered.entry(room).or_default().remove(&member.0)),
                Effect::RoomGone { room } => {
                    assert!(
                        self.entered.remove(&room).unwrap_or_default().is_empty(),
                        "a room went with members in it"
                    );
                }
                Effect::Fetch(fetch) => self.fetches.push(fetch),
                Effect::Answer { request, answer } => self.answers.push((request, answer)),
                Effect::Close { member, reason } => closes.push((self.connections[&member.0], reason)),
            }
        }
        for (connection, reason) in closes {
            self.closed.push((connection, reason));
            self.disconnect(connection, false);
        }
    }

    fn deliver(&mut self, member: usize, json: &[u8]) {
        let connection = self.connections[&member];
        // The hub sends nothing to a closed connection.
        if self.state.member(ConnectionId(connection)) == Some(MemberKey(member)) {
            self.inboxes.entry(connection).or_default().push(serde_json::from_slice(json).unwrap());
        }
    }
}

/// A frame in short form: its type, its room, and what distinguishes it from other frames of its type.
fn short(frame: &Value) -> String {
    let text = |field: &str| frame[field].as_str().unwrap_or_default().to_owned();
    let (kind, room) = (text("type"), text("room_id"));
    match kind.as_str() {
        "error" => format!("error {} in {room}", text("reason")),
        "join" | "leave" => format!("{kind} {} in {room}", text("username")),
        _ => format!("{kind} in {room}"),
    }
}
