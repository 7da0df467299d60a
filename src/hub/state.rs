//! What the hub decides, without doing any of it: events in, effects out.
//!
//! Runs on the hub's thread and touches no socket, channel or clock, so that it can be run against a model. The
//! order of effects is the order in which they must be seen: a member gets what is broadcast to a room
//! between its `Enter` and its `Exit`.

mod orders;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

use crate::auth::permission::Action;
use crate::config::Keep;
use crate::ids::FrameIds;
use crate::limits::{
    Limits, MEMBERS_LISTED_MAX, MISSED_MAX, REPLAY_AT_ONCE_BYTES, RINGS_BYTES_MAX, ROOMS_PER_CONNECTION_MAX,
};
use crate::model::{ConnectionId, Nonce, Person, RoomId, Seq, Timestamp, UserId};
use crate::protocol::{
    Body, ClientFrame, ErrorCode, Failure, Frame, FrameType, LimitsShown, Measure, Own, Rejected, Replay, Welcome,
};
use crate::role::Role;
use crate::store::accounts::SessionKey;
use crate::store::{Append, Appended, NewGuest, NewMessage, Stored, Ticket};

use super::order::Standpoint;
use super::room::Room;
use super::rules::{Rules, rejected};
use super::{Known, Newcomer, Roll, RoomDetail, RoomSummary};

/// A member's place in the hub's tables, its own until its last `leave` is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MemberKey(pub usize);

/// A room's place in the hub's tables, its own while it has members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RoomKey(pub usize);

/// What is to be done. Frames are JSON, encoded once for whoever gets them.
#[derive(Debug)]
pub enum Effect {
    /// Ask the store for a place.
    Append(Append),
    /// A frame for one member alone.
    Send { to: MemberKey, json: Arc<[u8]> },
    /// A frame for everybody in a room.
    Broadcast { room: RoomKey, json: Arc<[u8]> },
    /// From here on this member gets what is broadcast to the room.
    Enter { room: RoomKey, member: MemberKey },
    /// Up to here this member gets it.
    Exit { room: RoomKey, member: MemberKey },
    /// The room's key will be another's.
    RoomGone { room: RoomKey },
    /// Read what was said behind a place, for a member that is catching up, when it has taken what it was sent.
    Fetch(Fetch),
    /// Have a measure carried out, elsewhere.
    Errand(Errand),
    /// Answer a request over HTTP.
    Answer { request: u64, outcome: Outcome },
}

/// Something that an admin wants done to keep order, with whom to tell what became of it.
#[derive(Debug, Clone)]
pub struct Errand {
    /// By which connection.
    pub connection: ConnectionId,
    /// Who asks.
    pub by: Arc<Person>,
    /// By which session they are known.
    pub session: Option<SessionKey>,
    /// In which room.
    pub room: RoomId,
    /// The client's own mark on it.
    pub nonce: Option<Nonce>,
    /// What.
    pub measure: Box<Measure>,
}

/// A page that a member needs to catch up.
#[derive(Debug, Clone)]
pub struct Fetch {
    /// For whom.
    pub member: MemberKey,
    /// Of which room.
    pub room: RoomId,
    /// From behind which place.
    pub after: Seq,
}

/// What a member was catching up with is not kept any more, or can't be read: it would miss some of it without being
/// told, so it is sent away, to come back and be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overtaken;

/// What became of a message that came over HTTP.
#[derive(Debug)]
pub enum Outcome {
    /// It is stored; its frame.
    Stored(Arc<[u8]>),
    /// It was stored before; its frame.
    Duplicate(Arc<[u8]>),
    /// It is not stored.
    Refused(Rejected),
}

/// Rooms, members, and who is where.
#[derive(Debug)]
pub struct State {
    members: Slab<Member>,
    rooms: Slab<Room>,
    /// Members that have not gone, by their connection.
    by_connection: HashMap<ConnectionId, MemberKey>,
    /// Rooms by their id, in the order of the listing.
    by_id: BTreeMap<RoomId, RoomKey>,
    /// Bytes of the frames that all rooms have at hand.
    ring_bytes: usize,
    keep: Keep,
    rules: Rules,
    lease: Duration,
    /// Members whose connection was lost, and when they lose their place (milliseconds since 1970). All leases are as
    /// long, so what is pushed behind ends last.
    leases: VecDeque<(u64, MemberKey, ConnectionId)>,
    ids: FrameIds,
    limits_shown: LimitsShown,
}

/// Who comes, and how.
#[derive(Debug)]
pub struct Arrival {
    pub connection: ConnectionId,
    pub person: Arc<Person>,
    pub role: Role,
    pub session: Option<SessionKey>,
    pub network: IpAddr,
    pub home: RoomId,
    pub replay: Replay,
    /// For a guest who was never here before: an identity to keep, and the token that it is kept under.
    pub newcomer: Option<Newcomer>,
}

#[derive(Debug)]
struct Member {
    connection: ConnectionId,
    person: Arc<Person>,
    role: Role,
    session: Option<SessionKey>,
    /// Where they come from, as addresses are counted.
    network: IpAddr,
    /// The room of frames that name none.
    home: RoomId,
    /// In the order of their joins. A room that was left and joined again while both were with the store stands
    /// here twice, and what comes back from the store is always about the first of them.
    subscriptions: Vec<Subscription>,
    /// The token of a new guest, until it has been told.
    token: Option<Box<str>>,
    /// Whether the connection is no more; the member is freed when its last `leave` has come back.
    gone: bool,
}

/// A member's being in one room, from the asking to the last frame.
#[derive(Debug)]
struct Subscription {
    room: RoomId,
    replay: Replay,
    phase: Phase,
    catch_up: Option<CatchUp>,
}

/// What a member has of a room's past so far, while it is paged.
#[derive(Debug)]
struct CatchUp {
    /// The last place that it was sent.
    at: Seq,
    /// Whether the next place must follow it: not while nothing was sent to somebody who wants no more than the latest.
    is_exact: bool,
    /// Who came and went meanwhile; nobody stores that.
    missed: Vec<Arc<[u8]>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Its `join` is with the store.
    Joining,
    /// It gets what is said.
    In,
    /// Its `leave` is with the store (and before it, perhaps, its `join`).
    Leaving,
}

impl State {
    /// No rooms and nobody in them.
    #[must_use]
    pub fn new(limits: &Limits, keep: Keep, rules: Rules) -> Self {
        Self {
            members: Slab::new(),
            rooms: Slab::new(),
            by_connection: HashMap::new(),
            by_id: BTreeMap::new(),
            ring_bytes: 0,
            keep,
            rules,
            lease: limits.lease,
            leases: VecDeque::new(),
            ids: FrameIds::new(),
            limits_shown: LimitsShown::from(limits),
        }
    }

    /// The member of a connection that has not gone.
    #[must_use]
    pub fn member(&self, connection: ConnectionId) -> Option<MemberKey> {
        self.by_connection.get(&connection).copied()
    }

    /// Who gets what is broadcast to a room.
    #[must_use]
    pub fn members(&self, room: RoomKey) -> &[MemberKey] {
        self.rooms.get(room.0).map_or(&[], |room| &room.members)
    }

    /// How many rooms have members.
    #[must_use]
    pub fn room_count(&self) -> usize {
        self.rooms.len()
    }

    /// How many members there are, with those whose last `leave` is still with the store.
    #[cfg(test)]
    pub fn member_count(&self) -> usize {
        self.members.len()
    }

    /// The rooms with members, ordered by id, from behind `after`, `limit` at most.
    #[must_use]
    pub fn list(&self, after: Option<&RoomId>, limit: usize) -> Vec<RoomSummary> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rooms = self.by_id.range((from, Bound::Unbounded)).map(|(_, key)| &self.rooms[key.0]);
        let listed = rooms.filter(|room| room.people > 0 && !self.is_private(&room.id));
        listed.take(limit).map(|room| self.summary(room)).collect()
    }

    /// One room with members.
    #[must_use]
    pub fn show(&self, id: &RoomId) -> Option<RoomDetail> {
        let room = &self.rooms[self.by_id.get(id)?.0];
        (room.people > 0).then(|| RoomDetail { summary: self.summary(room), clients: self.people(room) })
    }

    /// Where somebody's connections come from, also those that only keep a place.
    #[must_use]
    pub fn networks_of(&self, user: UserId) -> Vec<IpAddr> {
        let members = self.members.iter().filter(|(_, member)| member.person.id == user);
        let networks: HashSet<_> = members.map(|(_, member)| member.network).collect();
        networks.into_iter().collect()
    }

    /// Who is here by a session, also those who only keep a place, and who is muted.
    #[must_use]
    pub fn roll(&self, now: &Timestamp) -> Roll {
        let known = self.members.iter().filter_map(|(_, Member { person, role, session, .. })| {
            session.map(|session| (session, Known { user: person.id, role: *role }))
        });
        Roll { sessions: known.collect(), muted: self.rules.muted(now) }
    }

    /// Whether somebody may be in a room as the rules stand now.
    #[must_use]
    pub fn admits(&self, role: Role, user: UserId, room: &RoomId) -> bool {
        self.rules.may_enter(role, user, room).is_ok()
    }

    /// A connection opens, in its first room.
    pub fn connect(&mut self, arrival: Arrival, effects: &mut Vec<Effect>) -> MemberKey {
        let Arrival { connection, person, role, session, network, home, replay, newcomer } = arrival;
        let (guest, token) = newcomer.map(|newcomer| (newcomer.guest, newcomer.token)).unzip();
        let member = Member {
            connection,
            person,
            role,
            session,
            network,
            home: home.clone(),
            // Most are in no other room.
            subscriptions: Vec::with_capacity(1),
            token,
            gone: false,
        };
        let key = MemberKey(self.members.insert(member));
        self.by_connection.insert(connection, key);
        self.begin_join(key, home, replay, guest, effects);
        key
    }

    /// A message is to be stored, if the rules let it. What they refuse may yet be a retry of what was stored: with a
    /// nonce it goes to the store with the refusal, which is its answer where it is new.
    pub fn say(&mut self, message: NewMessage, now: &Timestamp, effects: &mut Vec<Effect>) {
        let refusal = match message.refusal {
            Some(refusal) => Some(refusal),
            None => self.rules.take(&message, now).err().map(Box::new),
        };
        let message = NewMessage { refusal, ..message };
        if message.nonce.is_none()
            && let Some(refusal) = message.refusal
        {
            return self.refuse(message.ticket, &message.room, *refusal, now, effects);
        }
        if matches!(message.body, Body::Announcement { .. }) && message.refusal.is_none() {
            self.announce_everywhere(message, effects);
        } else {
            effects.push(Effect::Append(Append::Message(message)));
        }
    }

    /// Has an announcement stored in every room with members. It has its nonce in the first of them, and its author is told
    /// by that one: so that is one where they are, or one that is public, or else the one that they name.
    fn announce_everywhere(&self, mut message: NewMessage, effects: &mut Vec<Effect>) {
        let present = self.by_id.values().map(|key| &self.rooms[key.0]);
        let present = present.filter(|room| room.people > 0 || room.joining > 0);
        let mut rooms: Vec<RoomId> = present.map(|room| room.id.clone()).collect();
        let author = match message.ticket {
            Ticket::Connection(connection) => self.member(connection).map(|key| &self.members[key.0]),
            _ => None,
        };
        let own = author.and_then(|member| rooms.iter().position(|room| member.speaks_in(Some(room)).is_some()));
        if let (None, Ticket::Connection(connection)) = (own, message.ticket) {
            message.ticket = Ticket::Outsider(connection);
        }
        match own.or_else(|| rooms.iter().position(|room| !self.is_private(room))) {
            Some(first) => rooms.swap(0, first),
            None => {
                let NewMessage { role, author, room, .. } = &message;
                if let Err(refusal) = self.rules.may_enter(*role, author.id, room) {
                    message.refusal = Some(Box::new(rejected(refusal)));
                    return effects.push(Effect::Append(Append::Message(message)));
                }
                rooms.insert(0, room.clone());
            }
        }
        message.room = rooms[0].clone();
        effects.push(Effect::Append(Append::Announcement { rooms, message }));
    }

    /// Tells whoever waits for it that something is not stored.
    fn refuse(
        &mut self,
        ticket: Ticket,
        room: &RoomId,
        rejected: Rejected,
        now: &Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        match ticket {
            Ticket::Connection(connection) | Ticket::Outsider(connection) => {
                if let Some(member) = self.member(connection) {
                    self.reject_in(member, room, rejected, now, effects);
                }
            }
            Ticket::Request(request) => {
                effects.push(Effect::Answer { request, outcome: Outcome::Refused(rejected) });
            }
            Ticket::Member(_) | Ticket::Nobody => {}
        }
    }

    /// A connection is no more, or is about to be. Its member leaves every room, unless it may be back in a moment: then it
    /// keeps its place for a while.
    pub fn disconnect(
        &mut self,
        connection: ConnectionId,
        keeps_place: bool,
        now: &Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let Some(key) = self.by_connection.remove(&connection) else {
            return;
        };
        let member = &mut self.members[key.0];
        member.gone = true;
        if keeps_place && !self.lease.is_zero() {
            let until_ms = now.unix_ms + u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX / 2);
            self.leases.push_back((until_ms, key, connection));
        } else {
            self.depart(key, effects);
        }
    }

    /// When the next lease ends, in milliseconds since 1970.
    #[must_use]
    pub fn lease_due(&self) -> Option<u64> {
        self.leases.front().map(|(until_ms, ..)| *until_ms)
    }

    /// Those whose connection was lost and whose time is over leave every room.
    pub fn end_leases(&mut self, now: &Timestamp, effects: &mut Vec<Effect>) {
        while let Some(&(until_ms, key, connection)) = self.leases.front()
            && until_ms <= now.unix_ms
        {
            self.leases.pop_front();
            // The key may be another's by now.
            if self.members.get(key.0).is_some_and(|member| member.connection == connection) {
                self.depart(key, effects);
            }
        }
    }

    /// A member whose connection is no more leaves every room.
    fn depart(&mut self, key: MemberKey, effects: &mut Vec<Effect>) {
        let Some(member) = self.members.get_mut(key.0) else { return };
        for subscription in &mut member.subscriptions {
            if subscription.phase != Phase::Leaving {
                subscription.phase = Phase::Leaving;
                effects.push(Effect::Append(Append::Leave {
                    room: subscription.room.clone(),
                    ticket: Ticket::Member(key.0),
                }));
            }
        }
        self.free_if_done(key);
    }

    /// A member says something; `limited` where it came too fast, and is not to be taken if it is new.
    pub fn frame(
        &mut self,
        from: MemberKey,
        frame: ClientFrame,
        limited: Option<Box<Rejected>>,
        now: &Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        match frame {
            ClientFrame::Message { room, nonce, body } => {
                let member = &self.members[from.0];
                let is_in = member.speaks_in(room.as_ref()).is_some() || matches!(body, Body::Announcement { .. });
                let room = room.unwrap_or_else(|| member.home.clone());
                let refusal = limited.or_else(|| (!is_in).then(|| Box::new(outsider(&room))));
                let (author, role) = (Arc::clone(&member.person), member.role);
                let ticket = Ticket::Connection(member.connection);
                self.say(NewMessage { room, author, role, body, nonce, refusal, ticket }, now, effects);
            }
            ClientFrame::Measure { room, nonce, measure } => {
                let member = &self.members[from.0];
                let room = room.unwrap_or_else(|| member.home.clone());
                let (connection, session, by) = (member.connection, member.session, Arc::clone(&member.person));
                // Whoever may do it to nobody is told at once; to whom it is done is asked where it is looked up.
                let action = match *measure {
                    Measure::Kick(_) => Action::Kick,
                    Measure::Restrain(..) => Action::Mute,
                    Measure::SetRoom(_) => Action::SetRoom,
                };
                match self.rules.may_keep_order(member.role, by.id, &room, action, now) {
                    Ok(()) => effects.push(Effect::Errand(Errand { connection, room, by, session, nonce, measure })),
                    Err(refusal) => self.reject_in(from, &room, Rejected { nonce, ..rejected(refusal) }, now, effects),
                }
            }
            ClientFrame::Typing { room, nonce } => {
                let member = &self.members[from.0];
                match member.speaks_in(room.as_ref()) {
                    Some(subscription) => {
                        let person = Arc::clone(&member.person);
                        let said = self.rules.may_say(member.role, person.id, &subscription.room, now);
                        if let Err(refusal) = said {
                            let room = subscription.room.clone();
                            let rejected = Rejected { nonce, ..rejected(refusal) };
                            return self.reject_in(from, &room, rejected, now, effects);
                        }
                        // Whose `join` nobody has seen is not seen writing.
                        if subscription.phase == Phase::In
                            && let Some(key) = self.by_id.get(&subscription.room).copied()
                        {
                            self.announce(key, &person, FrameType::Typing, now, effects);
                        }
                    }
                    None => {
                        let room = room.unwrap_or_else(|| member.home.clone());
                        let rejected = Rejected { nonce, ..outsider(&room) };
                        self.reject_in(from, &room, rejected, now, effects);
                    }
                }
            }
            ClientFrame::Join { room, replay, nonce } => {
                let room = room.unwrap_or_else(|| self.members[from.0].home.clone());
                let member = &self.members[from.0];
                let subscriptions = &member.subscriptions;
                let entered = self.rules.may_enter(member.role, member.person.id, &room);
                let refusal = if subscriptions.iter().any(|one| one.room == room && one.phase != Phase::Leaving) {
                    Some((ErrorCode::Conflict, format!("you are in {room} already")))
                } else if let Err(refusal) = entered {
                    let Rejected { code, sentence, .. } = rejected(refusal);
                    Some((code, sentence.into_owned()))
                } else if subscriptions.len() >= ROOMS_PER_CONNECTION_MAX {
                    let sentence =
                        format!("one connection is in {ROOMS_PER_CONNECTION_MAX} rooms at most; leave one first");
                    Some((ErrorCode::Forbidden, sentence))
                } else {
                    None
                };
                match refusal {
                    Some((code, sentence)) => {
                        self.reject_in(from, &room, Rejected::new(code, sentence, nonce), now, effects);
                    }
                    None => self.begin_join(from, room, replay, None, effects),
                }
            }
            ClientFrame::Leave { room, nonce } => {
                let room = room.unwrap_or_else(|| self.members[from.0].home.clone());
                let subscriptions = &mut self.members[from.0].subscriptions;
                match subscriptions.iter_mut().find(|one| one.room == room && one.phase != Phase::Leaving) {
                    Some(subscription) => {
                        subscription.phase = Phase::Leaving;
                        effects.push(Effect::Append(Append::Leave { room, ticket: Ticket::Member(from.0) }));
                    }
                    None => {
                        let rejected = Rejected::new(ErrorCode::NotFound, format!("you are not in {room}"), nonce);
                        self.reject_in(from, &room, rejected, now, effects);
                    }
                }
            }
        }
    }

    /// Something that a member sent is not taken.
    pub fn reject(&mut self, from: MemberKey, rejected: Rejected, now: &Timestamp, effects: &mut Vec<Effect>) {
        let home = self.members[from.0].home.clone();
        self.reject_in(from, &home, rejected, now, effects);
    }

    /// The store gave something its place, or did not.
    pub fn appended(&mut self, appended: Appended, now: &Timestamp, effects: &mut Vec<Effect>) {
        match appended {
            Appended::Message { room, stored, erased, ticket } => {
                match ticket {
                    Ticket::Request(request) => {
                        effects.push(Effect::Answer { request, outcome: Outcome::Stored(Arc::clone(&stored.json)) });
                    }
                    Ticket::Outsider(connection) => {
                        let json = Arc::clone(&stored.json);
                        effects.extend(self.member(connection).map(|to| Effect::Send { to, json }));
                    }
                    _ => {}
                }
                // Without a room its last member went before the message had its place: nobody is there to see it.
                if let Some(key) = self.by_id.get(&room).copied() {
                    effects.push(Effect::Broadcast { room: key, json: Arc::clone(&stored.json) });
                    let room = &mut self.rooms[key.0];
                    let before = room.ring_bytes();
                    room.push(stored);
                    erased.into_iter().for_each(|erased| room.replace(erased));
                    self.ring_bytes = self.ring_bytes + room.ring_bytes() - before;
                    self.bound_rings();
                }
            }
            Appended::Duplicate { stored, ticket } => match ticket {
                Ticket::Connection(connection) | Ticket::Outsider(connection) => {
                    let json = stored.json;
                    effects.extend(self.member(connection).map(|to| Effect::Send { to, json }));
                }
                Ticket::Request(request) => {
                    effects.push(Effect::Answer { request, outcome: Outcome::Duplicate(stored.json) });
                }
                Ticket::Member(_) | Ticket::Nobody => {}
            },
            Appended::Refused { room, rejected, ticket } => self.refuse(ticket, &room, rejected, now, effects),
            Appended::Join { room, ticket: Ticket::Member(member), past, seen, is_known } => {
                // A token that would not be known is not told: who comes back without one is a new guest.
                if !is_known && let Some(member) = self.members.get_mut(member) {
                    member.token = None;
                }
                // The room is there, as it counts this join.
                if let Some(key) = self.by_id.get(&room).copied() {
                    if let Some(past) = past {
                        let room = &mut self.rooms[key.0];
                        let before = room.ring_bytes();
                        room.learn(past);
                        self.ring_bytes += room.ring_bytes() - before;
                        self.bound_rings();
                    }
                    self.rooms[key.0].joining -= 1;
                    self.end_join(MemberKey(member), key, seen, now, effects);
                }
            }
            Appended::Leave { room, ticket: Ticket::Member(member) } => {
                if let Some(key) = self.by_id.get(&room).copied() {
                    self.end_leave(MemberKey(member), key, now, effects);
                }
            }
            Appended::Join { .. } | Appended::Leave { .. } => unreachable!("only members come and go"),
        }
    }

    /// A page was read for a member that is catching up; an empty one where there are no more, none where it can't be
    /// read.
    ///
    /// # Errors
    /// [`Overtaken`].
    pub fn page(
        &mut self,
        fetch: &Fetch,
        frames: Option<Vec<Stored>>,
        now: &Timestamp,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Overtaken> {
        let Some(room_key) = self.by_id.get(&fetch.room).copied() else { return Ok(()) };
        self.forget_expired(room_key, now);
        let room = &mut self.rooms[room_key.0];
        // Gone, or in the room anew: then this page is nobody's.
        let Some(member) = self.members.get_mut(fetch.member.0) else { return Ok(()) };
        let Some(index) = room.catching_up.iter().position(|&one| one == fetch.member) else { return Ok(()) };
        let subscriptions = member.subscriptions.iter_mut();
        let caught = subscriptions.filter(|one| one.room == fetch.room).find_map(|one| one.catch_up.as_mut());
        let Some(catch_up) = caught.filter(|catch_up| catch_up.at == fetch.after) else { return Ok(()) };
        let frames = frames.ok_or(Overtaken)?;
        let is_last = frames.is_empty();
        // What the hub has not seen yet will be broadcast.
        for stored in frames.into_iter().filter(|stored| stored.seq <= room.head()) {
            if catch_up.is_exact && stored.seq != catch_up.at.next() {
                return Err(Overtaken);
            }
            (catch_up.at, catch_up.is_exact) = (stored.seq, true);
            effects.push(Effect::Send { to: fetch.member, json: stored.json });
        }
        match room.frames_after(catch_up.at) {
            None if !is_last => effects.push(Effect::Fetch(Fetch { after: catch_up.at, ..fetch.clone() })),
            None if catch_up.is_exact => return Err(Overtaken),
            rest => {
                let at_hand = rest.into_iter().flatten();
                effects.extend(at_hand.map(|stored| Effect::Send { to: fetch.member, json: Arc::clone(&stored.json) }));
                let missed = std::mem::take(&mut catch_up.missed).into_iter();
                effects.extend(missed.map(|json| Effect::Send { to: fetch.member, json }));
                for subscription in member.subscriptions.iter_mut().filter(|one| one.room == fetch.room) {
                    subscription.catch_up = None;
                }
                room.catching_up.swap_remove(index);
                room.members.push(fetch.member);
                effects.push(Effect::Enter { room: room_key, member: fetch.member });
            }
        }
        Ok(())
    }

    fn begin_join(
        &mut self,
        member: MemberKey,
        id: RoomId,
        replay: Replay,
        guest: Option<NewGuest>,
        effects: &mut Vec<Effect>,
    ) {
        let rooms = &mut self.rooms;
        let key = *self.by_id.entry(id.clone()).or_insert_with_key(|id| RoomKey(rooms.insert(Room::new(id.clone()))));
        let room = &mut self.rooms[key.0];
        room.joining += 1;
        effects.push(Effect::Append(Append::Join {
            room: id.clone(),
            ticket: Ticket::Member(member.0),
            known: room.knows_its_past().then(|| room.head()),
            after: replay.after,
            guest,
        }));
        let subscription = Subscription { room: id, replay, phase: Phase::Joining, catch_up: None };
        self.members[member.0].subscriptions.push(subscription);
    }

    fn end_join(
        &mut self,
        key: MemberKey,
        room_key: RoomKey,
        seen: Option<Seq>,
        now: &Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let person = Arc::clone(&self.members[key.0].person);
        // Who is here by another connection, or keeps a place, has not gone.
        if self.is_alone(room_key, key) {
            self.announce(room_key, &person, FrameType::Join, now, effects);
            self.rooms[room_key.0].people += 1;
        }
        self.forget_expired(room_key, now);
        let room = &mut self.rooms[room_key.0];
        let member = &mut self.members[key.0];
        let gone = member.gone;
        let Some(subscription) = member.subscriptions.iter_mut().find(|one| one.room == room.id) else { return };
        if subscription.phase == Phase::Joining {
            subscription.phase = Phase::In;
        }
        let (from, reset) = room.replay_from(subscription.replay, seen);
        let at_hand: Option<Vec<Arc<[u8]>>> =
            room.frames_after(from).map(|frames| frames.map(|stored| Arc::clone(&stored.json)).collect());
        // More than a socket takes at once is paged, so that nobody is a slow consumer for having been away.
        let at_once =
            at_hand.filter(|frames| frames.iter().map(|json| json.len()).sum::<usize>() <= REPLAY_AT_ONCE_BYTES);
        if at_once.is_some() || gone {
            room.members.push(key);
        } else {
            subscription.catch_up = Some(CatchUp { at: from, is_exact: seen.is_some(), missed: Vec::new() });
            room.catching_up.push(key);
        }
        if gone {
            return;
        }
        let token = member.token.take();
        let room = &self.rooms[room_key.0];
        let settings = self.rules.room(&room.id);
        let welcome = Welcome {
            role: member.role,
            room: settings.map(|settings| settings.shown(&room.id)),
            muted_until: self.rules.muted_until(person.id, now),
            members: self.people(room),
            member_count: room.people,
            token: token.as_deref(),
            reset,
            limits: &self.limits_shown,
        };
        let content = format!("welcome to {}", room.id);
        let frame = Frame {
            seq: Some(room.head()),
            own: Some(Own::Welcome(welcome)),
            ..Frame::new(self.ids.next(now), &room.id, &person, &content, FrameType::Welcome, now)
        };
        effects.push(Effect::Send { to: key, json: encoded(&frame) });
        match at_once {
            Some(frames) => {
                effects.extend(frames.into_iter().map(|json| Effect::Send { to: key, json }));
                effects.push(Effect::Enter { room: room_key, member: key });
            }
            None => effects.push(Effect::Fetch(Fetch { member: key, room: room.id.clone(), after: from })),
        }
    }

    fn end_leave(&mut self, key: MemberKey, room_key: RoomKey, now: &Timestamp, effects: &mut Vec<Effect>) {
        let member = &mut self.members[key.0];
        let room = &mut self.rooms[room_key.0];
        if let Some(index) = member.subscriptions.iter().position(|one| one.room == room.id) {
            member.subscriptions.remove(index);
        }
        for list in [&mut room.members, &mut room.catching_up] {
            if let Some(index) = list.iter().position(|&one| one == key) {
                list.swap_remove(index);
            }
        }
        effects.push(Effect::Exit { room: room_key, member: key });
        let (person, gone) = (Arc::clone(&member.person), member.gone);
        let json = if self.is_alone(room_key, key) {
            self.rooms[room_key.0].people -= 1;
            self.announce(room_key, &person, FrameType::Leave, now, effects)
        } else {
            self.presence(room_key, &person, FrameType::Leave, now)
        };
        if !gone {
            effects.push(Effect::Send { to: key, json });
        }
        if self.rooms[room_key.0].is_empty() {
            let room = self.rooms.remove(room_key.0);
            self.ring_bytes -= room.ring_bytes();
            self.by_id.remove(&room.id);
            effects.push(Effect::RoomGone { room: room_key });
        }
        self.free_if_done(key);
    }

    /// Nothing is shown that is kept no longer.
    fn forget_expired(&mut self, room: RoomKey, now: &Timestamp) {
        let room = &mut self.rooms[room.0];
        let before = room.ring_bytes();
        room.forget_before(self.keep.since_ms(now.unix_ms));
        self.ring_bytes = self.ring_bytes + room.ring_bytes() - before;
    }

    /// Keeps what all rooms have at hand within its bound; what goes is in the store.
    fn bound_rings(&mut self) {
        if self.ring_bytes > RINGS_BYTES_MAX {
            self.rooms.iter_mut().for_each(|(_, room)| room.halve_ring());
            self.ring_bytes = self.rooms.iter().map(|(_, room)| room.ring_bytes()).sum();
        }
    }

    fn free_if_done(&mut self, key: MemberKey) {
        let member = &self.members[key.0];
        if member.gone && member.subscriptions.is_empty() {
            self.members.remove(key.0);
        }
    }

    /// Tells a room what somebody does there; nothing of it is stored.
    fn announce(
        &mut self,
        room_key: RoomKey,
        person: &Person,
        kind: FrameType,
        now: &Timestamp,
        effects: &mut Vec<Effect>,
    ) -> Arc<[u8]> {
        let json = self.presence(room_key, person, kind, now);
        let room = &self.rooms[room_key.0];
        if !room.members.is_empty() {
            effects.push(Effect::Broadcast { room: room_key, json: Arc::clone(&json) });
        }
        if kind != FrameType::Typing {
            for key in &room.catching_up {
                let subscriptions = self.members[key.0].subscriptions.iter_mut();
                let mut catching =
                    subscriptions.filter(|one| one.room == room.id).filter_map(|one| one.catch_up.as_mut());
                if let Some(catch_up) = catching.next().filter(|catch_up| catch_up.missed.len() < MISSED_MAX) {
                    catch_up.missed.push(Arc::clone(&json));
                }
            }
        }
        json
    }

    /// The frame that says what somebody does in a room.
    fn presence(&mut self, room_key: RoomKey, person: &Person, kind: FrameType, now: &Timestamp) -> Arc<[u8]> {
        let content = match kind {
            FrameType::Join => format!("{} joined", person.username),
            FrameType::Leave => format!("{} left", person.username),
            _ => String::new(),
        };
        encoded(&Frame::new(self.ids.next(now), &self.rooms[room_key.0].id, person, &content, kind, now))
    }

    /// Whether nobody else in a room is the same person under the same name.
    fn is_alone(&self, room: RoomKey, key: MemberKey) -> bool {
        let person = &self.members[key.0].person;
        let mut others = self.rooms[room.0].everybody().filter(|other| *other != key);
        !others.any(|other| self.members[other.0].person == *person)
    }

    fn reject_in(
        &mut self,
        from: MemberKey,
        room: &RoomId,
        rejected: Rejected,
        now: &Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let person = Arc::clone(&self.members[from.0].person);
        let json = self.rejection(&person, room, &rejected, now);
        effects.push(Effect::Send { to: from, json });
    }

    fn rejection(&mut self, person: &Person, room: &RoomId, rejected: &Rejected, now: &Timestamp) -> Arc<[u8]> {
        encoded(&Frame {
            nonce: rejected.nonce.as_ref(),
            own: Some(Own::Failure(Failure { code: rejected.code, retry_ms: rejected.retry_ms })),
            ..Frame::new(self.ids.next(now), room, person, &rejected.sentence, FrameType::Error, now)
        })
    }

    fn is_private(&self, room: &RoomId) -> bool {
        self.rules.room(room).is_some_and(|settings| settings.is_private)
    }

    fn summary(&self, room: &Room) -> RoomSummary {
        RoomSummary {
            id: room.id.clone(),
            name: self.rules.name_of(&room.id),
            client_count: room.people,
            seq: room.head(),
        }
    }

    fn people(&self, room: &Room) -> Vec<Person> {
        let mut seen = HashSet::new();
        let people = room.everybody().map(|key| &self.members[key.0].person).filter(|person| seen.insert(*person));
        people.take(MEMBERS_LISTED_MAX).map(|person| Person::clone(person)).collect()
    }
}

impl Member {
    fn standpoint(&self) -> Standpoint {
        Standpoint { user: self.person.id, role: self.role, session: self.session, network: self.network }
    }

    /// This member's being in the room that a frame is meant for, if it may speak there: from the asking to join on.
    fn speaks_in(&self, room: Option<&RoomId>) -> Option<&Subscription> {
        let room = room.unwrap_or(&self.home);
        self.subscriptions.iter().find(|one| one.room == *room && one.phase != Phase::Leaving)
    }
}

/// What somebody is told who says something in a room that they are not in.
fn outsider(room: &RoomId) -> Rejected {
    Rejected::new(ErrorCode::Forbidden, format!("you are not in {room}; join it first"), None)
}

fn encoded(frame: &Frame<'_>) -> Arc<[u8]> {
    let mut json = Vec::with_capacity(384);
    frame.encode(&mut json);
    json.into()
}
