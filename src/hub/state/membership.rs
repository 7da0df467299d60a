//! Membership: how members enter and leave rooms, and how a member remains in its rooms for a lease after its connection is
//! lost. Runs on the hub's thread; the store decides each join and leave.

use std::sync::Arc;
use std::time::Instant;

use crate::limits::REPLAY_AT_ONCE_BYTES;
use crate::model::reason::{Reason, Rejection};
use crate::model::role::Role;
use crate::model::{ConnectionId, Nonce, RoomId, Seq};
use crate::protocol::{Frame, FrameType, Own, Rejected, Replay, Welcome};
use crate::store::entry::{Entry, Join, Past, ReplyTo, Stored};
use crate::wire::CloseReason;

use super::super::room::Room;
use super::catch_up::{CatchUp, Fetch, Span};
use super::{Effect, Joining, Member, MemberKey, Phase, RoomKey, State, Subscription, encoded};

impl State {
    /// Handles the end of a connection. Its member leaves every room. If the client may reconnect soon, the member
    /// has a lease first.
    pub fn disconnect(&mut self, connection: ConnectionId, has_lease: bool) {
        let Some(key) = self.by_connection.remove(&connection) else {
            return;
        };
        let member = &mut self.members[key.0];
        member.gone = true;
        if has_lease && !self.lease.is_zero() {
            self.leases.push_back((self.at + self.lease, key, connection));
        } else {
            self.depart(key);
        }
    }

    /// The end of the next lease.
    #[must_use]
    pub fn lease_due(&self) -> Option<Instant> {
        self.leases.front().map(|(until, ..)| *until)
    }

    /// Ends the leases that are over: their members leave every room.
    pub fn end_leases(&mut self) {
        while let Some(&(until, key, connection)) = self.leases.front()
            && until <= self.at
        {
            self.leases.pop_front();
            // The key may belong to another member by now.
            if self.members.get(key.0).is_some_and(|member| member.connection == connection) {
                self.depart(key);
            }
        }
    }

    /// Makes a member without a connection leave every room.
    pub(super) fn depart(&mut self, key: MemberKey) {
        let rooms: Vec<_> = self.members[key.0].subscriptions.iter().map(|one| one.room.clone()).collect();
        for room in rooms {
            self.begin_leave(key, &room);
        }
        self.free_if_done(key);
    }

    /// Proposes that a member leaves a room. Returns false if it is not in the room or already leaving.
    pub(super) fn begin_leave(&mut self, key: MemberKey, room: &RoomId) -> bool {
        let member = &mut self.members[key.0];
        let mut subscriptions = member.subscriptions.iter_mut();
        let Some(subscription) = subscriptions.find(|one| one.room == *room && !one.phase.is_leaving()) else {
            return false;
        };
        subscription.phase = Phase::Leaving;
        let (user, connection) = (member.principal.user(), member.connection);
        let entry = Entry::Leave { room: room.clone(), user, connection };
        self.propose(entry, ReplyTo::Member(key.0));
        true
    }

    /// Handles a refused join. If it was for the room of the connection's URL, the connection is closed. Otherwise the
    /// client gets an error.
    pub(super) fn refuse_join(&mut self, key: MemberKey, room_key: RoomKey, rejection: Rejection) {
        let room = self.rooms[room_key.0].id.clone();
        let member = &mut self.members[key.0];
        let Some(index) = member.subscriptions.iter().position(|one| one.room == room) else { return };
        let gone = member.gone;
        let subscription = &mut member.subscriptions[index];
        let (nonce, is_first) = subscription.joining.take().map_or((None, false), |one| (one.nonce, one.is_first));
        if subscription.phase == Phase::Leaving {
            // Its `leave` is already with the store; the answer to it ends the subscription.
            subscription.phase = Phase::Refused;
        } else {
            member.subscriptions.remove(index);
            self.rooms[room_key.0].joining -= 1;
        }
        if !gone {
            let is_busy = rejection.reason == Reason::Busy;
            self.reject(key, Some(&room), &Rejected::new(rejection, nonce));
            if is_first {
                let reason = if is_busy { CloseReason::Busy } else { CloseReason::SessionEnded };
                self.effects.push(Effect::Close { member: key, reason });
            }
        }
        self.free_room_if_empty(room_key);
        self.free_if_done(key);
    }

    pub(super) fn free_room_if_empty(&mut self, key: RoomKey) {
        if self.rooms[key.0].is_empty() {
            let room = self.rooms.remove(key.0);
            self.ring_bytes -= room.ring.bytes;
            self.by_id.remove(&room.id);
            self.effects.push(Effect::RoomGone { room: key });
        }
    }

    pub(super) fn begin_join(
        &mut self,
        member: MemberKey,
        id: RoomId,
        replay: Replay,
        nonce: Option<Nonce>,
        is_first: bool,
    ) {
        let rooms = &mut self.rooms;
        let key = *self.by_id.entry(id.clone()).or_insert_with_key(|id| RoomKey(rooms.insert(Room::new(id.clone()))));
        let room = &mut self.rooms[key.0];
        room.joining += 1;
        let known = room.ring.is_known.then_some(room.ring.head);
        let Member { connection, principal, skeletons, .. } = &self.members[member.0];
        let (connection, principal, skeletons) = (*connection, Arc::clone(principal), skeletons.clone());
        let entry =
            Entry::Join(Join { room: id.clone(), connection, principal, skeletons, known, after: replay.after });
        self.propose(entry, ReplyTo::Member(member.0));
        let joining = Some(Box::new(Joining { replay, nonce, is_first }));
        let subscription = Subscription { room: id, phase: Phase::Joining, joining, catch_up: None };
        self.members[member.0].subscriptions.push(subscription);
    }

    pub(super) fn end_join(&mut self, key: MemberKey, room_key: RoomKey, past: Option<Past>, seen: Option<Seq>) {
        if let Some(past) = past {
            self.change_ring(room_key, |ring| ring.learn(past));
        }
        self.rooms[room_key.0].joining -= 1;
        self.note_presence(room_key);
        self.refresh_role(key);
        let person = Arc::clone(&self.members[key.0].principal.person);
        // A user with another connection here, or with a lease, was already in the room.
        let room = &mut self.rooms[room_key.0];
        if room.people.enter(person.id, key) {
            room.people_by_id.insert_mut(person.id, Arc::clone(&person));
            self.person_joined(room_key, &person);
        }
        let room = &mut self.rooms[room_key.0];
        room.changes.note_welcome(&person);
        let member = &mut self.members[key.0];
        let gone = member.gone;
        let Some(subscription) = member.subscriptions.iter_mut().find(|one| one.room == room.id) else { return };
        if subscription.phase == Phase::Joining {
            subscription.phase = Phase::In;
        }
        let Some(Joining { replay: Replay { history: count, after }, .. }) =
            subscription.joining.take().map(|joining| *joining)
        else {
            return;
        };
        let until = room.ring.head;
        let floor = self.policy.floor(&room.id, person.id);
        // What the client has seen before it lost the right to read it counts for nothing.
        let seen = seen.filter(|seen| *seen >= floor);
        // Without a known seq to continue from, the latest messages are replayed.
        let (span, at_hand) = match seen.filter(|_| after.is_some()) {
            Some(after) => (Span::All { after }, room.ring.frames_after(after)),
            None => (
                Span::Latest { count, until },
                room.ring.latest(count).map(|frames| frames.filter(|stored| stored.seq > floor).collect()),
            ),
        };
        let reset = after.is_some() && seen.is_none();
        // A replay that is longer than a socket takes at once is paged. Otherwise a client would become a slow consumer
        // only because it was away.
        let bytes = |frames: &Vec<&Stored>| frames.iter().map(|stored| stored.json.len()).sum::<usize>();
        let at_once = at_hand.filter(|frames| bytes(frames) <= REPLAY_AT_ONCE_BYTES);
        let at_once: Option<Vec<Arc<[u8]>>> =
            at_once.map(|frames| frames.into_iter().map(|stored| Arc::clone(&stored.json)).collect());
        if at_once.is_some() || gone {
            room.members.insert(key);
        } else {
            room.catching_up.insert(key);
            let room = &self.rooms[room_key.0];
            let is_whole = room.people.len() <= self.presence_people_max;
            let people = || self.persons(room).map(|person| (person.id, Arc::clone(person))).collect();
            let catch_up = Some(Box::new(CatchUp::new(span, &room.missed, is_whole.then(people))));
            let mut subscriptions = self.members[key.0].subscriptions.iter_mut();
            if let Some(subscription) = subscriptions.find(|one| one.room == room.id) {
                subscription.catch_up = catch_up;
            }
        }
        if gone {
            return;
        }
        let member = &mut self.members[key.0];
        let token = member.token.take();
        let room = &self.rooms[room_key.0];
        let settings = self.policy.room(&room.id);
        let welcome = Welcome {
            role: self.policy.role(&self.members[key.0].principal).unwrap_or(Role::Guest),
            room: settings.map(|settings| settings.shown(&room.id)),
            muted_until: self.muted_until(person.id),
            members: self.listed(room),
            member_count: room.people.len(),
            token: token.as_deref(),
            reset,
            limits: &self.limits_shown,
        };
        let content = format!("welcome to {}", room.id);
        let frame = Frame {
            seq: Some(room.ring.head),
            own: Some(Own::Welcome(welcome)),
            ..Frame::new(self.ids.next(&self.now), &room.id, person.author(), &content, FrameType::Welcome, &self.now)
        };
        let json = encoded(&frame);
        self.effects.push(Effect::Send { to: key, json });
        match at_once {
            Some(frames) => {
                self.effects.extend(frames.into_iter().map(|json| Effect::Send { to: key, json }));
                self.effects.push(Effect::Enter { room: room_key, member: key });
            }
            None => self.effects.push(Effect::Fetch(Fetch { member: key, room: room.id.clone(), span, floor })),
        }
    }

    /// Shows a member in its current role, which may have changed since it was authenticated.
    fn refresh_role(&mut self, key: MemberKey) {
        let principal = &self.members[key.0].principal;
        let (user, shown) = (principal.user(), principal.person.role);
        if let Ok(role) = self.policy.role(principal)
            && role != shown
        {
            self.set_role(user, role);
        }
    }

    pub(super) fn end_leave(&mut self, key: MemberKey, room_key: RoomKey) {
        let member = &mut self.members[key.0];
        let room = &mut self.rooms[room_key.0];
        if let Some(index) = member.subscriptions.iter().position(|one| one.room == room.id) {
            let left = member.subscriptions.remove(index);
            if left.phase == Phase::Refused {
                // The member never was in the room.
                room.joining -= 1;
                self.free_room_if_empty(room_key);
                return self.free_if_done(key);
            }
        }
        if room.members.remove(key) {
            self.effects.push(Effect::Exit { room: room_key, member: key });
        } else {
            room.end_catching_up(key);
        }
        let (person, gone) = (Arc::clone(&member.principal.person), member.gone);
        let room = &mut self.rooms[room_key.0];
        let told = if room.people.leave(person.id, key) {
            room.people_by_id.remove_mut(&person.id);
            self.person_left(room_key, &person)
        } else {
            // The name of a person is that of its oldest connection.
            if let Some(first) = room.people.first_of(person.id) {
                room.people_by_id.insert_mut(person.id, Arc::clone(&self.members[first.0].principal.person));
            }
            None
        };
        if !gone {
            // A member that leaves by a command gets a `leave` frame, even if the room gets none.
            let json = told.unwrap_or_else(|| self.person_frame(room_key, &person, FrameType::Leave));
            self.send(key, json);
        }
        self.note_presence(room_key);
        self.free_room_if_empty(room_key);
        self.free_if_done(key);
    }

    pub(super) fn free_if_done(&mut self, key: MemberKey) {
        let member = &self.members[key.0];
        if !member.gone || !member.subscriptions.is_empty() {
            return;
        }
        let user = self.members.remove(key.0).principal.user();
        self.by_user.remove(&(user, key));
    }
}
