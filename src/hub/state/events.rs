//! The effects of changes on open connections, and the answers to their proposers. Runs on the hub's thread; the store
//! has already decided each change.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use crate::auth::permission::Action;
use crate::limits::{POSTERS_KEPT_MAX, SHARED_ADDRESS_MIN};
use crate::model::reason::{Reason, Rejection};
use crate::model::role::Role;
use crate::model::{Person, RoomId, Timestamp, UserId, Username};
use crate::protocol::{Frame, FrameType, Own, Rejected};
use crate::store::accounts::RoomSettings;
use crate::store::change::{Change, Done};
use crate::store::entry::{By, CommandReply, Entry, Event, Principal, Proof, Renamed, ReplyTo};
use crate::wire::CloseReason;

use super::super::handle::Answer;
use super::{Effect, Member, MemberKey, RoomKey, State, encoded};

impl State {
    /// Proposes a change. The hub adds what only it knows: the target's principal, and the networks of the target's
    /// connections.
    pub fn change(&mut self, by: By, mut change: Box<Change>, reply_to: ReplyTo) {
        let target = |user| self.members_of(user).next().map(|member| Arc::clone(&member.principal));
        match &mut *change {
            Change::Kick { user, target: known, .. } => *known = target(*user),
            Change::Restrict(restrict) => {
                restrict.target = target(restrict.user);
                restrict.networks = self.networks_of(restrict.user);
                restrict.is_shared =
                    restrict.networks.iter().any(|network| self.is_shared(*network, Some(restrict.user)));
            }
            Change::BanAddress { network, is_shared, .. } => *is_shared = self.is_shared(*network, None),
            _ => {}
        }
        self.propose(Entry::Change { by, change }, reply_to);
    }

    /// The networks of a user's connections, or the network of its latest request without a token.
    fn networks_of(&self, user: UserId) -> Vec<IpAddr> {
        let mut networks: Vec<_> = self.members_of(user).map(|member| member.principal.network).collect();
        if networks.is_empty() {
            networks.extend(self.posters.get(&user));
        }
        networks.sort_unstable();
        networks.dedup();
        networks
    }

    /// Whether most connections come from a network, and several are not the user's. So it may be the address of a
    /// proxy, or of a school.
    fn is_shared(&self, network: IpAddr, except: Option<UserId>) -> bool {
        let is_other = |member: &&Member| Some(member.principal.user()) != except;
        let others = self.members.iter().map(|(_, member)| member).filter(is_other);
        let (here, all) = others
            .fold((0, 0), |(here, all), member| (here + usize::from(member.principal.network == network), all + 1));
        here >= SHARED_ADDRESS_MIN && 2 * here > all
    }

    /// Takes the token of one new room from the bucket of the author's network. Admins need none.
    pub(super) fn take_new_room(&mut self, author: &Principal) -> Result<(), Rejection> {
        if self.policy.account_role(author.user()) == Some(Role::Admin) {
            return Ok(());
        }
        self.new_rooms.take(author.network, self.at).map_err(|wait| {
            let sentence = format!("too many new rooms from this address, retry in {} s", wait.as_secs() + 1);
            Reason::RateLimited.because(sentence).retry_in(wait)
        })
    }

    /// Notes the network of a client without a token, which has no connection.
    pub(super) fn note_poster(&mut self, author: &Principal) {
        if author.proof == Proof::None {
            if self.posters.len() >= POSTERS_KEPT_MAX {
                self.posters.clear();
            }
            self.posters.insert(author.user(), author.network);
        }
    }

    /// Applies a change to open connections, and answers its proposer.
    pub fn changed(&mut self, done: Done, events: Vec<Event>, reply_to: ReplyTo) {
        for event in events {
            self.event(event);
        }
        match reply_to {
            ReplyTo::Command(reply) => {
                let sentence = sentence_of(&reply, &done);
                self.send_answer(&reply, &sentence);
            }
            ReplyTo::Request(request) => self.answer(request, Answer::Done(done)),
            ReplyTo::Member(_) | ReplyTo::Connection(_) | ReplyTo::Outsider(_) | ReplyTo::None => {}
        }
    }

    pub(super) fn event(&mut self, event: Event) {
        match event {
            Event::SessionsEnded { user, sessions } => {
                let is_ended =
                    |member: &Member| member.principal.session().is_some_and(|session| sessions.contains(&session));
                self.end(self.keys_of(user, is_ended));
            }
            Event::UserEnded(user) => self.end(self.keys_of(user, |_| true)),
            Event::GuestsBanned(network) => {
                let is_of = |member: &Member| member.principal.is_guest() && member.principal.network == network;
                let ended = self.members.iter().filter(|(_, member)| is_of(member)).map(|(key, _)| MemberKey(key));
                self.end(ended.collect());
            }
            Event::Kicked { room, user } => self.remove_from(&room, self.keys_of(user, |_| true), Reason::Kicked),
            Event::Noticed { room, stored } => self.broadcast_stored(&room, None, stored, None),
            Event::Renamed(renamed) => self.rename(renamed),
            Event::RoleSet { user, role } => self.set_role(user, role),
            Event::Muted { user } => self.send_mute(user),
            Event::RoomChanged { room, settings, by } => {
                if let Some(key) = self.by_id.get(&room).copied() {
                    let frame = self.settings_frame(&room, &settings, &by);
                    if settings.is_private {
                        self.send_private_settings(key, &frame);
                    } else {
                        self.send_settings(key, frame);
                    }
                }
            }
            Event::RoomDeleted { room } => {
                let members = self.by_id.get(&room).map(|key| self.rooms[key.0].all_members().collect());
                self.remove_from(&room, members.unwrap_or_default(), Reason::RoomDeleted);
            }
            Event::Forgotten { room, up_to } => {
                if let Some(key) = self.by_id.get(&room).copied() {
                    self.change_ring(key, |ring| ring.forget(up_to));
                }
            }
            Event::Erased { room, messages } => {
                if let Some(key) = self.by_id.get(&room).copied() {
                    self.change_ring(key, |ring| messages.into_iter().for_each(|message| ring.replace(message)));
                }
            }
        }
    }

    /// Shows a user in another role, in the lists of people.
    pub(super) fn set_role(&mut self, user: UserId, role: Role) {
        for key in self.keys_of(user, |_| true) {
            let principal = Arc::make_mut(&mut self.members[key.0].principal);
            Arc::make_mut(&mut principal.person).role = role;
        }
        self.refresh_person(user);
    }

    /// Gives a user another name on all its connections, and tells its rooms.
    fn rename(&mut self, Renamed { user, username, former, stored }: Renamed) {
        for key in self.keys_of(user, |_| true) {
            self.members[key.0].rename(&username, &self.policy);
        }
        let mut told: HashSet<RoomKey> = HashSet::new();
        for (room, stored) in stored {
            told.extend(self.by_id.get(&room));
            self.broadcast_stored(&room, None, stored, None);
        }
        for (room_key, person) in self.refresh_person(user) {
            if !told.contains(&room_key) {
                let json = self.rename_frame(room_key, &person, &former);
                self.broadcast(room_key, json);
            }
        }
    }

    /// Puts a user into the lists of people as it is shown now. Returns its rooms.
    fn refresh_person(&mut self, user: UserId) -> Vec<(RoomKey, Arc<Person>)> {
        let mut refreshed = Vec::new();
        for key in self.keys_of(user, |_| true) {
            let member = &self.members[key.0];
            for room_key in member.subscriptions.iter().filter_map(|one| self.by_id.get(&one.room)) {
                if self.rooms[room_key.0].people.first_of(user) == Some(key) {
                    refreshed.push((*room_key, Arc::clone(&member.principal.person)));
                }
            }
        }
        for (room_key, person) in &refreshed {
            let room = &mut self.rooms[room_key.0];
            room.people_by_id.insert_mut(user, Arc::clone(person));
            room.changes.replace(person);
            self.note_presence(*room_key);
        }
        refreshed
    }

    /// Ends members. Members with a connection are closed; members with only a lease lose it.
    fn end(&mut self, members: Vec<MemberKey>) {
        for key in members {
            if self.members[key.0].gone {
                self.depart(key);
            } else {
                self.effects.push(Effect::Close { member: key, reason: CloseReason::SessionEnded });
            }
        }
    }

    /// Sends a user, on all its connections, the end of its mute, or that it is no longer muted.
    fn send_mute(&mut self, user: UserId) {
        let muted_until = self.muted_until(user);
        let content = match &muted_until {
            Some(until) => format!("you are muted until {until}"),
            None => "you are no longer muted".to_owned(),
        };
        for key in self.keys_of(user, |member| !member.gone) {
            let id = self.ids.next(&self.now);
            let member = &self.members[key.0];
            let own = Some(Own::Mute { muted_until: muted_until.clone() });
            let frame = Frame {
                own,
                ..Frame::new(id, &member.home, member.principal.person.author(), &content, FrameType::Mute, &self.now)
            };
            let json = encoded(&frame);
            self.send(key, json);
        }
    }

    /// The frame with the settings of a room.
    fn settings_frame(&mut self, room: &RoomId, settings: &RoomSettings, by: &Person) -> Arc<[u8]> {
        let content = format!("{} changed the room settings", by.username);
        let own = Some(Own::Room { room: settings.shown(room) });
        encoded(&Frame {
            own,
            ..Frame::new(self.ids.next(&self.now), room, by.author(), &content, FrameType::Room, &self.now)
        })
    }

    /// Sends the members of a public room its new settings. No member has to leave.
    fn send_settings(&mut self, room_key: RoomKey, frame: Arc<[u8]>) {
        for to in self.rooms[room_key.0].catching_up.as_slice() {
            self.effects.push(Effect::Send { to: *to, json: Arc::clone(&frame) });
        }
        self.broadcast(room_key, frame);
    }

    /// Sends the members of a private room its new settings. Where the room was public, members that are not invited
    /// leave it and get no settings. A pending join is not touched, because the store decides it by the new settings.
    fn send_private_settings(&mut self, room_key: RoomKey, frame: &Arc<[u8]>) {
        let room = &self.rooms[room_key.0];
        let id = room.id.clone();
        let may_stay = |key: &MemberKey| self.may(&self.members[key.0].principal, Action::Enter, &id).is_ok();
        let (stay, leave): (Vec<_>, Vec<_>) = room.all_members().partition(may_stay);
        self.remove_from(&id, leave, Reason::MadePrivate);
        self.effects.extend(stay.into_iter().map(|to| Effect::Send { to, json: Arc::clone(frame) }));
    }

    /// Answers a command with a frame of the command's type.
    fn send_answer(&mut self, reply: &CommandReply, sentence: &str) {
        let CommandReply { connection, room, nonce, kind } = reply;
        let Some(to) = self.member(*connection) else { return };
        // The answer must come after the room's frame about the change.
        if let Some(room) = self.by_id.get(room).copied().filter(|key| self.rooms[key.0].members.contains(to)) {
            self.effects.extend([Effect::Exit { room, member: to }, Effect::Enter { room, member: to }]);
        }
        let person = Arc::clone(&self.members[to.0].principal.person);
        let frame = Frame::new(self.ids.next(&self.now), room, person.author(), sentence, *kind, &self.now);
        let json = encoded(&Frame { nonce: nonce.as_ref(), ..frame });
        self.send(to, json);
    }

    /// Makes members leave a room, and sends them the reason.
    fn remove_from(&mut self, room: &RoomId, members: Vec<MemberKey>, reason: Reason) {
        for key in members {
            if !self.members[key.0].is_in(room) {
                continue;
            }
            self.reject(key, Some(room), &Rejected::new(reason, None));
            self.begin_leave(key, room);
        }
    }
}

/// A sentence that describes what a command has done.
fn sentence_of(reply: &CommandReply, done: &Done) -> String {
    match done {
        Done::Kicked { username } => {
            format!("{} was kicked", username.as_ref().map_or("", Username::as_str))
        }
        Done::Restricted { username, muted_until_ms, is_banned } => {
            let name = username.as_ref().map_or("", Username::as_str);
            match (reply.kind, is_banned, muted_until_ms) {
                (FrameType::Ban, true, _) => format!("{name} is banned"),
                (FrameType::Ban, false, _) => format!("{name} is no longer banned"),
                (_, _, Some(until_ms)) => format!("{name} is muted until {}", Timestamp::at(*until_ms)),
                (_, _, None) => format!("{name} is no longer muted"),
            }
        }
        _ => "the room settings were changed".to_owned(),
    }
}

#[cfg(test)]
mod tests;
