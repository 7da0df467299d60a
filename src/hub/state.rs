//! The decisions of the hub: events in, effects out.
//!
//! Runs on the hub's thread and uses no socket, channel or clock, so that a test can compare it with a model. Effects
//! are ordered as receivers must see them. A member gets the broadcasts of a room between its `Enter` and its `Exit`.

mod catch_up;
mod events;
mod membership;
mod presence;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;
use uuid::Uuid;

use crate::auth::name::Skeletons;
use crate::auth::permission::{Action, Target};
use crate::limits::{
    Limits, MEMBERS_LISTED_MAX, NEW_ROOM_INTERVAL, NEW_ROOMS_BURST, RINGS_BYTES_MAX, ROOMS_PER_CONNECTION_MAX,
};
use crate::model::FrameIds;
use crate::model::reason::{Reason, Rejection};
use crate::model::role::Role;
use crate::model::{ConnectionId, Nonce, Person, RoomId, Timestamp, UserId, Username};
use crate::protocol::{
    AdminAction, Body, ClientCommand, ClientFrame, Failure, Frame, FrameType, LimitsShown, Own, Rejected, Replay,
};
use crate::rate::TokenBuckets;
use crate::store::PolicySnapshot;
use crate::store::change::{Change, Restrict};
use crate::store::entry::{
    Applied, By, CommandReply, Entry, NewMessage, Outcome, Principal, Proposal, ReplyTo, Stored,
};
use crate::store::log::clock::Moment;
use crate::wire::CloseReason;

use super::handle::{Answer, Presence, RoomPresence, Sent};
use super::room::{Ring, Room};

use catch_up::CatchUp;
pub use catch_up::{Fetch, Span};

/// A member's index in the hub's tables. It is not reused before the member's last `leave` is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberKey(pub usize);

/// A room's index in the hub's tables. It is not reused while the room exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RoomKey(pub usize);

/// An effect, which the hub's thread carries out. Frames are JSON, encoded once for all receivers.
#[derive(Debug)]
pub enum Effect {
    /// Propose an entry to the store.
    Propose(Proposal),
    /// Send a frame to one member only.
    Send { to: MemberKey, json: Arc<[u8]> },
    /// Send a frame to all members of a room. The author's connection, if there is one, gets it without delay.
    Broadcast { room: RoomKey, json: Arc<[u8]>, author: Option<MemberKey> },
    /// The member gets all broadcasts of the room after this effect.
    Enter { room: RoomKey, member: MemberKey },
    /// The member gets no broadcasts of the room after this effect.
    Exit { room: RoomKey, member: MemberKey },
    /// The room is freed, and its key may be reused.
    RoomGone { room: RoomKey },
    /// Read a page of a room's history for a member that is catching up. The hub waits until the member's sink has
    /// taken all earlier frames.
    Fetch(Fetch),
    /// Answer a request.
    Answer { request: u64, answer: Answer },
    /// Close a connection.
    Close { member: MemberKey, reason: CloseReason },
}

/// The rooms, the members, and which member is in which room.
#[derive(Debug)]
pub struct State {
    members: Slab<Member>,
    rooms: Slab<Room>,
    /// Members whose connection is open, by that connection.
    by_connection: HashMap<ConnectionId, MemberKey>,
    /// All members of each user, including members that have only a lease.
    by_user: BTreeSet<(UserId, MemberKey)>,
    /// The networks of clients that have sent a message without a token.
    posters: HashMap<UserId, IpAddr>,
    /// By network: how many rooms it may make.
    new_rooms: TokenBuckets<IpAddr>,
    /// Rooms by id, in the order of room lists.
    by_id: BTreeMap<RoomId, RoomKey>,
    /// The memory of all rings, in bytes.
    ring_bytes: usize,
    /// The policy and the times of this round.
    policy: Arc<PolicySnapshot>,
    moment: Moment,
    now: Timestamp,
    at: Instant,
    /// Effects that are not carried out yet; the hub's thread takes them.
    pub effects: Vec<Effect>,
    /// The people of each room, as last published, and the rooms that have changed since.
    presence: Presence,
    presence_changed: Vec<RoomId>,
    /// Rooms with at most this many people get one frame for each person that joins or leaves.
    presence_people_max: usize,
    /// When rooms with many people get their next `presence` frame. All intervals are equal, so the queue is in the
    /// order of the due times.
    presence_due: VecDeque<(Instant, RoomKey)>,
    /// The user of `presence` frames.
    server: Person,
    lease: Duration,
    /// Members whose connection was lost, and when their lease ends. All leases are equal, so the queue is in the
    /// order of the end times.
    leases: VecDeque<(Instant, MemberKey, ConnectionId)>,
    ids: FrameIds,
    limits_shown: LimitsShown,
}

/// A new connection.
#[derive(Debug)]
pub struct Arrival {
    pub connection: ConnectionId,
    pub principal: Arc<Principal>,
    /// The skeleton of a guest's name, if accounts have protected names.
    pub skeletons: Option<Skeletons>,
    /// The room of the connection's URL.
    pub room: RoomId,
    /// The history that the client asks for.
    pub replay: Replay,
    /// The token of a new guest, which is sent once.
    pub token: Option<Box<str>>,
}

#[derive(Debug)]
struct Member {
    connection: ConnectionId,
    principal: Arc<Principal>,
    /// The skeleton of a guest's name, if accounts have protected names.
    skeletons: Option<Skeletons>,
    /// The room of frames without a `room_id`.
    home: RoomId,
    /// In the order of the joins. A room is here twice if it was left and joined again before the store answered. An
    /// answer of the store is always for the first of them.
    subscriptions: Vec<Subscription>,
    /// The token of a new guest, until it is sent.
    token: Option<Box<str>>,
    /// Whether the connection is closed. The member is freed when its last `leave` has come back.
    gone: bool,
}

/// A member's subscription to one room, from its join command to its last frame.
#[derive(Debug)]
struct Subscription {
    room: RoomId,
    phase: Phase,
    /// The parameters of the join, until it is done or refused.
    joining: Option<Box<Joining>>,
    catch_up: Option<Box<CatchUp>>,
}

#[derive(Debug)]
struct Joining {
    replay: Replay,
    /// The nonce of the join command, for a refusal.
    nonce: Option<Nonce>,
    /// Whether this is the room of the connection's URL.
    is_first: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The store has not answered its `join`.
    Joining,
    /// It gets the broadcasts of the room.
    In,
    /// The store has not answered its `leave`; perhaps it has not answered its `join` either.
    Leaving,
    /// Its `join` was refused, and the store has not answered its `leave`.
    Refused,
}

impl Phase {
    fn is_leaving(self) -> bool {
        matches!(self, Self::Leaving | Self::Refused)
    }
}

impl State {
    /// Has no rooms and no members.
    #[must_use]
    pub fn new(limits: &Limits, policy: Arc<PolicySnapshot>, moment: Moment) -> Self {
        let new_rooms_per_s = if limits.rate_per_s == 0 { 0.0 } else { NEW_ROOM_INTERVAL.as_secs_f64().recip() };
        Self {
            members: Slab::new(),
            rooms: Slab::new(),
            by_connection: HashMap::new(),
            by_user: BTreeSet::new(),
            posters: HashMap::new(),
            new_rooms: TokenBuckets::new(new_rooms_per_s, NEW_ROOMS_BURST),
            by_id: BTreeMap::new(),
            ring_bytes: 0,
            policy,
            moment,
            now: Timestamp::at(moment.wall_ms),
            at: Instant::now(),
            effects: Vec::new(),
            presence: Presence::new_sync(),
            presence_changed: Vec::new(),
            presence_people_max: limits.presence_people_max,
            presence_due: VecDeque::new(),
            server: Person::guest(UserId(Uuid::nil()), Username::stored("adda".into())),
            lease: limits.lease,
            leases: VecDeque::new(),
            ids: FrameIds::new(),
            limits_shown: LimitsShown::from(limits),
        }
    }

    /// The member of an open connection.
    #[must_use]
    pub fn member(&self, connection: ConnectionId) -> Option<MemberKey> {
        self.by_connection.get(&connection).copied()
    }

    /// The members that get the broadcasts of a room.
    #[must_use]
    pub fn members(&self, room: RoomKey) -> &[MemberKey] {
        self.rooms.get(room.0).map_or(&[], |room| room.members.as_slice())
    }

    /// Whether a member gets the broadcasts of a room.
    #[must_use]
    pub fn is_in(&self, room: RoomKey, member: MemberKey) -> bool {
        self.rooms.get(room.0).is_some_and(|room| room.members.contains(member))
    }

    /// The rooms whose broadcasts a member gets.
    #[must_use]
    pub fn rooms_of(&self, member: MemberKey) -> Vec<RoomKey> {
        let subscriptions = self.members.get(member.0).map_or(&[][..], |member| &member.subscriptions);
        let rooms = subscriptions.iter().filter_map(|one| self.by_id.get(&one.room).copied());
        rooms.filter(|room| self.is_in(*room, member)).collect()
    }

    /// The number of open connections.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.by_connection.len()
    }

    /// The number of rooms.
    #[must_use]
    pub fn room_count(&self) -> usize {
        self.rooms.len()
    }

    /// The number of members, including members whose last `leave` the store has not answered.
    #[cfg(test)]
    pub fn member_count(&self) -> usize {
        self.members.len()
    }

    /// Begins a round with its policy and its times: of the log, of the wall clock, and of the monotonic clock.
    pub fn begin_round(&mut self, policy: Arc<PolicySnapshot>, moment: Moment, now: Timestamp, at: Instant) {
        self.policy = policy;
        self.moment = moment;
        self.now = now;
        self.at = at;
    }

    /// The people of each room, if they have changed since the last call.
    pub fn take_presence(&mut self) -> Option<Presence> {
        if self.presence_changed.is_empty() {
            return None;
        }
        for id in std::mem::take(&mut self.presence_changed) {
            match self.by_id.get(&id).map(|key| &self.rooms[key.0]).filter(|room| !room.people.is_empty()) {
                Some(room) => {
                    let (count, people, all) = (room.people.len(), self.listed(room), room.people_by_id.clone());
                    let presence = RoomPresence { count, people, all };
                    self.presence.insert_mut(id, Arc::new(presence));
                }
                None => drop(self.presence.remove_mut(&id)),
            }
        }
        Some(self.presence.clone())
    }

    fn note_presence(&mut self, room_key: RoomKey) {
        let room = &self.rooms[room_key.0].id;
        if self.presence_changed.last() != Some(room) {
            self.presence_changed.push(room.clone());
        }
    }

    /// The members of a user, including members that have only a lease.
    fn members_of(&self, user: UserId) -> impl Iterator<Item = &Member> {
        self.keys_of(user, |_| true).into_iter().map(|key| &self.members[key.0])
    }

    /// The keys of a user's members for which the test is true.
    fn keys_of(&self, user: UserId, is_meant: impl Fn(&Member) -> bool) -> Vec<MemberKey> {
        let keys = self.by_user.range((user, MemberKey(0))..=(user, MemberKey(usize::MAX)));
        keys.map(|&(_, key)| key).filter(|key| is_meant(&self.members[key.0])).collect()
    }

    /// Whether a client may do something in a room, by the current policy.
    fn may(&self, principal: &Principal, action: Action, room: &RoomId) -> Result<Role, Reason> {
        self.policy.may(principal, action, Some(room), Target::Own, self.moment.clock_ms)
    }

    /// The end of a user's mute, as clients are shown it.
    fn muted_until(&self, user: UserId) -> Option<Timestamp> {
        let until_ms = self.policy.muted_until(user, self.moment.clock_ms)?;
        Some(Timestamp::at(self.moment.shown(until_ms)))
    }

    /// Opens a connection, which joins its first room.
    pub fn connect(&mut self, arrival: Arrival) -> MemberKey {
        let Arrival { connection, principal, skeletons, room, replay, token } = arrival;
        let user = principal.user();
        let member = Member {
            connection,
            principal,
            skeletons,
            home: room.clone(),
            // Most connections join no other room.
            subscriptions: Vec::with_capacity(1),
            token,
            gone: false,
        };
        let key = MemberKey(self.members.insert(member));
        self.by_connection.insert(connection, key);
        self.by_user.insert((user, key));
        self.begin_join(key, room, replay, None, true);
        key
    }

    /// Proposes a message. `makes_room` says that it would be the first in its room. A message that the hub refuses may be a retry of a stored message. If it has a nonce, it
    /// goes to the store together with the refusal. The store refuses it only if it is new.
    pub fn send_message(&mut self, mut message: NewMessage, makes_room: bool, reply_to: ReplyTo) {
        self.note_poster(&message.author);
        if makes_room && message.unless_stored.is_none() {
            match self.take_new_room(&message.author) {
                Ok(()) => {
                    if let Some(key) = self.by_id.get(&message.room) {
                        self.rooms[key.0].has_begun = true;
                    }
                }
                Err(rejection) => message.unless_stored = Some(Box::new(rejection)),
            }
        }
        if message.nonce.is_none()
            && let Some(rejection) = message.unless_stored
        {
            return self.refuse(reply_to, Some(message.room), Rejected::new(*rejection, None));
        }
        let is_announcement = matches!(message.body, Body::Announcement { .. });
        let (entry, reply_to) = if is_announcement && message.unless_stored.is_none() {
            self.announcement(message, reply_to)
        } else {
            (Entry::Message(message), reply_to)
        };
        self.propose(entry, reply_to);
    }

    /// Makes the entry of an announcement for every room with members. The first room keeps its nonce, and its author
    /// gets the answer from that room. So the first room is one that the author is in, else a public one, else the one
    /// that the author names.
    fn announcement(&self, mut message: NewMessage, mut reply_to: ReplyTo) -> (Entry, ReplyTo) {
        let present = self.by_id.values().map(|key| &self.rooms[key.0]);
        let present = present.filter(|room| !room.people.is_empty() || room.joining > 0);
        let mut rooms: Vec<RoomId> = present.map(|room| room.id.clone()).collect();
        let author = match reply_to {
            ReplyTo::Connection(connection) => self.member(connection).map(|key| &self.members[key.0]),
            _ => None,
        };
        let own = author.and_then(|member| rooms.iter().position(|room| member.is_in(room)));
        if let (None, ReplyTo::Connection(connection)) = (own, &reply_to) {
            reply_to = ReplyTo::Outsider(*connection);
        }
        match own.or_else(|| rooms.iter().position(|room| !self.policy.is_private(room))) {
            Some(first) => rooms.swap(0, first),
            None => {
                if let Err(reason) = self.may(&message.author, Action::Enter, &message.room) {
                    message.unless_stored = Some(Box::new(reason.into()));
                    return (Entry::Message(message), reply_to);
                }
                rooms.insert(0, message.room.clone());
            }
        }
        message.room = rooms[0].clone();
        (Entry::Announcement { rooms, message }, reply_to)
    }

    /// Answers the proposer that nothing was stored or changed.
    fn refuse(&mut self, reply_to: ReplyTo, room: Option<RoomId>, rejected: Rejected) {
        let (connection, room, rejected) = match reply_to {
            ReplyTo::Connection(connection) | ReplyTo::Outsider(connection) => (connection, room, rejected),
            ReplyTo::Command(reply) => {
                (reply.connection, Some(reply.room), Rejected { nonce: reply.nonce, ..rejected })
            }
            ReplyTo::Request(request) => return self.answer(request, Answer::Refused(rejected.rejection)),
            ReplyTo::Member(_) | ReplyTo::None => return,
        };
        if let Some(member) = self.member(connection) {
            self.reject(member, room.as_ref(), &rejected);
        }
    }

    fn propose(&mut self, entry: Entry, reply_to: ReplyTo) {
        self.effects.push(Effect::Propose(Proposal { entry, reply_to }));
    }

    fn send(&mut self, to: MemberKey, json: Arc<[u8]>) {
        self.effects.push(Effect::Send { to, json });
    }

    /// Sends a frame to a connection, unless it is closed.
    fn send_to(&mut self, connection: ConnectionId, json: Arc<[u8]>) {
        if let Some(to) = self.member(connection) {
            self.send(to, json);
        }
    }

    fn answer(&mut self, request: u64, answer: Answer) {
        self.effects.push(Effect::Answer { request, answer });
    }

    /// Handles a member's command. `limited` is set if the command is over the rate limit: then it is accepted only if
    /// it is a retry.
    pub fn frame(&mut self, from: MemberKey, frame: ClientFrame, limited: Option<Box<Rejection>>) {
        let ClientFrame { room, nonce, command } = frame;
        let member = &self.members[from.0];
        let room = room.unwrap_or_else(|| member.home.clone());
        let rejection = match command {
            ClientCommand::Message(body) => {
                let is_in = member.is_in(&room) || matches!(body, Body::Announcement { .. });
                let unless_stored = limited.or_else(|| (!is_in).then(|| Box::new(outsider(&room))));
                let author = Arc::clone(&member.principal);
                let reply_to = ReplyTo::Connection(member.connection);
                let message = NewMessage { room, author, body, nonce, is_member: true, unless_stored };
                // The first message makes a room, not a join.
                let makes_room = self.by_id.get(&message.room).is_some_and(|key| self.rooms[key.0].is_new());
                return self.send_message(message, makes_room, reply_to);
            }
            ClientCommand::Admin(action) => {
                let kind = action.kind();
                let (by, connection) = (By::Client(Arc::clone(&member.principal)), member.connection);
                let change = match *action {
                    AdminAction::Kick(user) => Change::Kick { room: room.clone(), user, target: None },
                    AdminAction::Restrict(user, restrictions) => Change::Restrict(Restrict::of(user, restrictions)),
                    AdminAction::SetRoom(patch) => Change::SetRoom { room: room.clone(), patch },
                };
                let reply_to = ReplyTo::Command(Box::new(CommandReply { connection, room, nonce, kind }));
                return self.change(by, Box::new(change), reply_to);
            }
            ClientCommand::Typing => match member.subscription(&room) {
                None => outsider(&room),
                Some(subscription) => match self.may(&member.principal, Action::Post, &room) {
                    Err(reason) => reason.into(),
                    Ok(_) => {
                        // A member's `typing` must not be seen before its `join`.
                        if subscription.phase == Phase::In
                            && let Some(key) = self.by_id.get(&room).copied()
                        {
                            let person = Arc::clone(&member.principal.person);
                            self.show_typing(key, &person);
                        }
                        return;
                    }
                },
            },
            ClientCommand::Join(_) if member.is_in(&room) => {
                Reason::AlreadyInRoom.because(format!("you are already in {room}"))
            }
            ClientCommand::Join(_) if member.subscriptions.len() >= ROOMS_PER_CONNECTION_MAX => Reason::TooManyRooms
                .because(format!("too many rooms: at most {ROOMS_PER_CONNECTION_MAX} per connection; leave one first")),
            ClientCommand::Join(replay) => return self.begin_join(from, room, replay, nonce, false),
            ClientCommand::Leave if self.begin_leave(from, &room) => return,
            ClientCommand::Leave => Reason::NotJoined.because(format!("you are not in {room}")),
        };
        self.reject(from, Some(&room), &Rejected { rejection, nonce });
    }

    /// Sends a member the `error` for something it sent. Without a room, the error names the room of its URL.
    pub fn reject(&mut self, from: MemberKey, room: Option<&RoomId>, rejected: &Rejected) {
        let Member { home, principal, .. } = &self.members[from.0];
        let Rejected { rejection: Rejection { reason, sentence, retry_ms }, nonce } = rejected;
        let (id, room) = (self.ids.next(&self.now), room.unwrap_or(home));
        let json = encoded(&Frame {
            nonce: nonce.as_ref(),
            own: Some(Own::Failure(Failure { code: reason.code().in_frame(), reason: *reason, retry_ms: *retry_ms })),
            ..Frame::new(id, room, principal.person.author(), sentence, FrameType::Error, &self.now)
        });
        self.send(from, json);
    }

    /// Handles an entry that the store has applied.
    pub fn applied(&mut self, applied: Applied) {
        let Applied { result, reply_to } = applied;
        match result {
            Outcome::Stored { room, stored, changed } => {
                let mut author = None;
                match reply_to {
                    ReplyTo::Request(request) => {
                        self.answer(request, Answer::Sent(Sent::Stored(Arc::clone(&stored.json))));
                    }
                    ReplyTo::Outsider(connection) => self.send_to(connection, Arc::clone(&stored.json)),
                    ReplyTo::Connection(connection) => author = self.member(connection),
                    _ => {}
                }
                self.broadcast_stored(&room, author, stored, changed);
            }
            Outcome::Duplicate(stored) => match reply_to {
                ReplyTo::Connection(connection) | ReplyTo::Outsider(connection) => {
                    self.send_to(connection, stored.json);
                }
                ReplyTo::Request(request) => self.answer(request, Answer::Sent(Sent::Duplicate(stored.json))),
                ReplyTo::Member(_) | ReplyTo::Command(_) | ReplyTo::None => {}
            },
            Outcome::Refused { room, rejection, nonce } => self.refuse(reply_to, room, Rejected { rejection, nonce }),
            Outcome::Changed { done, events } => self.changed(done, events, reply_to),
            Outcome::Joined { room, past, seen, username, events } => {
                events.into_iter().for_each(|event| self.event(event));
                if let Some((member, room)) = self.member_and_room(&reply_to, &room) {
                    if let Some(username) = username {
                        self.members[member.0].rename(&username, &self.policy);
                    }
                    self.end_join(member, room, past, seen);
                }
            }
            Outcome::JoinRefused { room, rejection } => {
                if let Some((member, room)) = self.member_and_room(&reply_to, &room) {
                    self.refuse_join(member, room, rejection);
                }
            }
            Outcome::Left { room } => {
                if let Some((member, room)) = self.member_and_room(&reply_to, &room) {
                    self.end_leave(member, room);
                }
            }
        }
    }

    /// Sends a room its next stored frame, which may have changed another.
    fn broadcast_stored(&mut self, room: &RoomId, author: Option<MemberKey>, stored: Stored, changed: Option<Stored>) {
        // If the room is freed, its last member left before the frame got its seq: there is no receiver.
        let Some(key) = self.by_id.get(room).copied() else { return };
        self.effects.push(Effect::Broadcast { room: key, json: Arc::clone(&stored.json), author });
        self.change_ring(key, |ring| {
            ring.push(stored);
            changed.into_iter().for_each(|changed| ring.replace(changed));
        });
    }

    /// The member that joined or left a room. Both exist until the hub has the store's answer to the last join or
    /// leave.
    fn member_and_room(&self, reply_to: &ReplyTo, room: &RoomId) -> Option<(MemberKey, RoomKey)> {
        let ReplyTo::Member(member) = reply_to else { return None };
        Some((MemberKey(*member), self.by_id.get(room).copied()?))
    }

    /// Changes the ring of a room, and keeps all rings together within their bound. Frames that are removed are still
    /// in the store.
    fn change_ring(&mut self, key: RoomKey, change: impl FnOnce(&mut Ring)) {
        let ring = &mut self.rooms[key.0].ring;
        let before = ring.bytes;
        change(ring);
        self.ring_bytes = self.ring_bytes + ring.bytes - before;
        if self.ring_bytes > RINGS_BYTES_MAX {
            self.rooms.iter_mut().for_each(|(_, room)| room.ring.halve());
            self.ring_bytes = self.rooms.iter().map(|(_, room)| room.ring.bytes).sum();
        }
    }

    /// The people of a room, in the order of their arrival.
    fn persons(&self, room: &Room) -> impl Iterator<Item = &Arc<Person>> {
        room.people.firsts().map(|key| &self.members[key.0].principal.person)
    }

    /// The people of a room that are listed: the first to arrive.
    fn listed(&self, room: &Room) -> Vec<Arc<Person>> {
        self.persons(room).take(MEMBERS_LISTED_MAX).cloned().collect()
    }
}

impl Member {
    /// The subscription to a room, from the join command to the leave command.
    fn subscription(&self, room: &RoomId) -> Option<&Subscription> {
        self.subscriptions.iter().find(|one| one.room == *room && !one.phase.is_leaving())
    }

    fn is_in(&self, room: &RoomId) -> bool {
        self.subscription(room).is_some()
    }

    /// Gives its user another name.
    fn rename(&mut self, username: &Username, policy: &PolicySnapshot) {
        let principal = Arc::make_mut(&mut self.principal);
        Arc::make_mut(&mut principal.person).username = username.clone();
        self.skeletons = (principal.is_guest() && policy.has_accounts()).then(|| Skeletons::of(username));
    }
}

/// The refusal for a client that sends something to a room without being in it.
fn outsider(room: &RoomId) -> Rejection {
    Reason::NotInRoom.because(format!("you are not in {room}; join it first"))
}

fn encoded(frame: &Frame<'_>) -> Arc<[u8]> {
    let mut json = Vec::with_capacity(384);
    frame.encode(&mut json);
    json.into()
}

#[cfg(test)]
mod tests;
