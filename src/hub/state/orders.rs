//! What is ordered, and what admins ask for, as it holds for those who are here.

use std::sync::Arc;

use crate::model::{Person, RoomId, Timestamp, UserId};
use crate::protocol::{ErrorCode, Frame, FrameType, Own, Rejected};
use crate::store::accounts::RoomSettings;
use crate::store::{Append, Ticket};

use super::super::order::Order;
use super::super::rules::Rules;
use super::{Effect, Errand, Member, MemberKey, Phase, State, encoded};

impl State {
    /// Makes a change hold that is stored already. Gives the members whose connection is to be closed for it.
    pub fn order(&mut self, order: &Order, now: &Timestamp, effects: &mut Vec<Effect>) -> Vec<MemberKey> {
        match order {
            Order::EndSessions(_) | Order::EndUser(_) | Order::EndGuests(_) => return self.ended(order, effects),
            Order::SetRole { user, role } => {
                for (_, member) in self.members.iter_mut().filter(|(_, member)| member.person.id == *user) {
                    member.role = *role;
                }
            }
            Order::Kick { room, user } => {
                self.put_out(room, "an admin has put you out of this room", now, effects, |member, _| {
                    member.person.id == *user
                });
            }
            Order::Mute { user, until_ms } => {
                self.rules.mute(*user, *until_ms);
                self.tell_muted(*user, now, effects);
            }
            Order::SetRoom { room, settings, by } => {
                self.rules.set_room(room.clone(), settings.clone());
                self.put_out_strangers(room, now, effects);
                self.tell_settings(room, settings, by, now, effects);
            }
            Order::SetMember { room, user, is_member } => {
                self.rules.set_member(room.clone(), *user, *is_member);
                self.put_out_strangers(room, now, effects);
            }
        }
        Vec::new()
    }

    /// Members for whom an order is the end and who have a connection; those that only keep a place lose it.
    fn ended(&mut self, order: &Order, effects: &mut Vec<Effect>) -> Vec<MemberKey> {
        let ended = self.members.iter().filter(|(_, member)| order.ends(&member.standpoint()));
        let keys: Vec<_> = ended.map(|(key, _)| MemberKey(key)).collect();
        let (gone, here): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| self.members[key.0].gone);
        for key in gone {
            self.depart(key, effects);
        }
        here
    }

    /// Tells somebody by all their connections that they may say nothing until then, or that they may.
    fn tell_muted(&mut self, user: UserId, now: &Timestamp, effects: &mut Vec<Effect>) {
        let muted_until = self.rules.muted_until(user, now);
        let content = match &muted_until {
            Some(until) => format!("you are muted until {until}"),
            None => "you may speak again".to_owned(),
        };
        for (key, member) in self.members.iter().filter(|(_, member)| member.person.id == user && !member.gone) {
            let id = self.ids.next(now);
            let own = Some(Own::Mute { muted_until: muted_until.clone() });
            let frame = Frame { own, ..Frame::new(id, &member.home, &member.person, &content, FrameType::Mute, now) };
            effects.push(Effect::Send { to: MemberKey(key), json: encoded(&frame) });
        }
    }

    /// Tells those who are in a room, and may stay, what is set of it.
    fn tell_settings(
        &mut self,
        id: &RoomId,
        settings: &RoomSettings,
        by: &Person,
        now: &Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let Some(room) = self.by_id.get(id).map(|key| &self.rooms[key.0]) else { return };
        let content = format!("{} has changed what is set of this room", by.username);
        let own = Some(Own::Room { room: settings.shown(id) });
        let json = encoded(&Frame { own, ..Frame::new(self.ids.next(now), id, by, &content, FrameType::Room, now) });
        for key in room.everybody() {
            let member = &self.members[key.0];
            if self.rules.may_enter(member.role, member.person.id, id).is_ok() {
                effects.push(Effect::Send { to: key, json: Arc::clone(&json) });
            }
        }
    }

    /// What a connection is told of what it asked for, if it is still here.
    #[must_use]
    pub fn errand_done(
        &mut self,
        errand: &Errand,
        outcome: Result<String, Rejected>,
        now: &Timestamp,
    ) -> Option<(MemberKey, Arc<[u8]>)> {
        let to = self.member(errand.connection)?;
        let Errand { room, by, nonce, measure, .. } = errand;
        let json = match outcome {
            Ok(sentence) => {
                let frame = Frame::new(self.ids.next(now), room, by, &sentence, measure.kind(), now);
                encoded(&Frame { nonce: nonce.as_ref(), ..frame })
            }
            Err(rejected) => self.rejection(by, room, &Rejected { nonce: nonce.clone(), ..rejected }, now),
        };
        Some((to, json))
    }

    fn put_out_strangers(&mut self, room: &RoomId, now: &Timestamp, effects: &mut Vec<Effect>) {
        self.put_out(room, "this room is private now", now, effects, |member, rules| {
            rules.may_enter(member.role, member.person.id, room).is_err()
        });
    }

    /// Those who match leave a room, and are told why.
    fn put_out(
        &mut self,
        room: &RoomId,
        sentence: &'static str,
        now: &Timestamp,
        effects: &mut Vec<Effect>,
        matches: impl Fn(&Member, &Rules) -> bool,
    ) {
        let rules = &self.rules;
        let is_in =
            |member: &Member| member.subscriptions.iter().any(|one| one.room == *room && one.phase != Phase::Leaving);
        let out = self.members.iter().filter(|(_, member)| is_in(member) && matches(member, rules));
        let out: Vec<_> = out.map(|(key, _)| MemberKey(key)).collect();
        for key in out {
            self.reject_in(key, room, Rejected::new(ErrorCode::Forbidden, sentence, None), now, effects);
            for subscription in &mut self.members[key.0].subscriptions {
                if subscription.room == *room && subscription.phase != Phase::Leaving {
                    subscription.phase = Phase::Leaving;
                    let ticket = Ticket::Member(key.0);
                    effects.push(Effect::Append(Append::Leave { room: room.clone(), ticket }));
                }
            }
        }
    }
}
