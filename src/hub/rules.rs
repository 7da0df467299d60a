//! What is set of rooms, who is a member of the private ones, and who is muted: what the hub must know of people to let
//! them say something or come in. The store keeps it; here it is at hand, as it was read at the start and ordered since.

use std::collections::{HashMap, HashSet};

use crate::auth::permission::{Access, Action, Circumstances, Refusal, Standing, Whose, is_slowed, may};
use crate::limits::{SLOW_MODE_KEPT_MAX, SLOW_MODE_WAITING_MAX};
use crate::model::{RoomId, Timestamp, UserId};
use crate::protocol::{Body, ErrorCode, Rejected};
use crate::role::{Accounts, Role};
use crate::store::NewMessage;
use crate::store::accounts::{House, RoomSettings};

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Rules {
    accounts: Accounts,
    rooms: HashMap<RoomId, RoomSettings>,
    /// Of private rooms.
    members: HashMap<RoomId, HashSet<UserId>>,
    /// Until when, in milliseconds since 1970.
    muted: HashMap<UserId, u64>,
    /// When somebody said something last in a room with slow mode.
    spoke: HashMap<(RoomId, UserId), u64>,
    /// How many of them there are when it is looked again who need not wait any more.
    sweep_at: usize,
}

impl Rules {
    /// As they stand at the start.
    pub fn new(accounts: Accounts, house: House) -> Self {
        let mut members: HashMap<RoomId, HashSet<UserId>> = HashMap::new();
        for (room, user) in house.members {
            members.entry(room).or_default().insert(user);
        }
        let (rooms, muted) = (house.rooms.into_iter().collect(), house.muted.into_iter().collect());
        Self { accounts, rooms, members, muted, spoke: HashMap::new(), sweep_at: 0 }
    }

    /// What is set of a room, where anything is.
    pub fn room(&self, room: &RoomId) -> Option<&RoomSettings> {
        self.rooms.get(room)
    }

    /// Sets all of it.
    pub fn set_room(&mut self, room: RoomId, settings: RoomSettings) {
        if !settings.is_private {
            self.members.remove(&room);
        }
        if settings == RoomSettings::default() {
            self.rooms.remove(&room);
        } else {
            self.rooms.insert(room, settings);
        }
    }

    /// Makes somebody a member of a private room, or no longer one.
    pub fn set_member(&mut self, room: RoomId, user: UserId, is_member: bool) {
        let members = self.members.entry(room).or_default();
        if is_member {
            members.insert(user);
        } else {
            members.remove(&user);
        }
    }

    /// Mutes somebody until a time.
    pub fn mute(&mut self, user: UserId, until_ms: u64) {
        self.muted.insert(user, until_ms);
    }

    /// Who is muted.
    pub fn muted(&self, now: &Timestamp) -> Vec<UserId> {
        let muted = self.muted.iter().filter(|(_, until_ms)| **until_ms > now.unix_ms);
        muted.map(|(user, _)| *user).collect()
    }

    /// Whether somebody may come into a room, or stay there.
    pub fn may_enter(&self, role: Role, user: UserId, room: &RoomId) -> Result<(), Refusal> {
        may(role, Action::Enter, &self.circumstances(user, room, 0))
    }

    /// What a room is called.
    pub fn name_of(&self, room: &RoomId) -> String {
        let named = self.rooms.get(room).filter(|settings| !settings.name.is_empty());
        named.map_or_else(|| room.to_string(), |settings| settings.name.to_string())
    }

    /// Whether somebody may say something in a room, or be seen typing there.
    pub fn may_say(&self, role: Role, user: UserId, room: &RoomId, now: &Timestamp) -> Result<(), Refusal> {
        // Nearly always nothing is set of anybody.
        if self.rooms.is_empty() && self.muted.is_empty() && self.accounts == Accounts::Optional {
            return Ok(());
        }
        may(role, Action::Say, &self.circumstances(user, room, now.unix_ms))
    }

    /// Whether a message may be stored: where it is said, by whom, and by the clock, as slow mode counts what is said.
    /// Whose message it is that is taken back, the store knows.
    pub fn take(&mut self, message: &NewMessage, now: &Timestamp) -> Result<(), Rejected> {
        let NewMessage { room, author, role, body, .. } = message;
        let (user, role) = (author.id, *role);
        let wait_ms = match body {
            Body::Text { .. } => {
                self.may_say(role, user, room, now).map_err(rejected)?;
                self.rooms.get(room).map_or(0, |settings| u64::from(settings.slow_mode_s) * 1_000)
            }
            Body::Announcement { .. } => {
                let standing = self.standing(user, now.unix_ms);
                may(role, Action::Announce, &Circumstances { standing, ..Circumstances::default() })
                    .map_err(rejected)?;
                0
            }
            Body::Delete { .. } => {
                may(role, Action::Delete, &self.circumstances(user, room, now.unix_ms)).map_err(rejected)?;
                0
            }
        };
        if wait_ms == 0 || !is_slowed(role) {
            return Ok(());
        }
        if self.spoke.len() >= self.sweep_at.max(SLOW_MODE_KEPT_MAX) {
            let rooms = &self.rooms;
            let is_waiting = |room: &RoomId, at: u64| {
                rooms.get(room).is_some_and(|set| at + u64::from(set.slow_mode_s) * 1_000 > now.unix_ms)
            };
            self.spoke.retain(|(room, _), at| is_waiting(room, *at));
            // So that a crowd that all waits is not walked for each message.
            self.sweep_at = 2 * self.spoke.len();
        }
        if self.spoke.len() >= SLOW_MODE_WAITING_MAX && !self.spoke.contains_key(&(room.clone(), user)) {
            return Ok(());
        }
        let last = self.spoke.entry((room.clone(), user)).or_default();
        let left_ms = (*last + wait_ms).saturating_sub(now.unix_ms);
        if *last > 0 && left_ms > 0 {
            let sentence = format!("slow mode: one message in {} s here", wait_ms / 1_000);
            let limited = Rejected::new(ErrorCode::RateLimited, sentence, None);
            return Err(Rejected { retry_ms: Some(left_ms), ..limited });
        }
        *last = now.unix_ms;
        Ok(())
    }

    /// Until when somebody may say nothing, if they may not.
    pub fn muted_until(&self, user: UserId, now: &Timestamp) -> Option<Timestamp> {
        self.muted.get(&user).filter(|until_ms| **until_ms > now.unix_ms).map(|until_ms| Timestamp::at(*until_ms))
    }

    /// Whether somebody may do something to some other guest or user of a room, before it is known to whom.
    pub fn may_keep_order(
        &self,
        role: Role,
        user: UserId,
        room: &RoomId,
        action: Action,
        now: &Timestamp,
    ) -> Result<(), Refusal> {
        let whose = Whose::Others(Role::Guest);
        may(role, action, &Circumstances { whose, ..self.circumstances(user, room, now.unix_ms) })
    }

    fn standing(&self, user: UserId, now_ms: u64) -> Standing {
        let is_muted = self.muted.get(&user).is_some_and(|until_ms| *until_ms > now_ms);
        if is_muted { Standing::Muted } else { Standing::Good }
    }

    fn circumstances(&self, user: UserId, room: &RoomId, now_ms: u64) -> Circumstances {
        let settings = self.rooms.get(room);
        let access = match settings {
            Some(settings) if settings.is_private => {
                let is_member = self.members.get(room).is_some_and(|members| members.contains(&user));
                if is_member { Access::Member } else { Access::Stranger }
            }
            _ => Access::Public,
        };
        Circumstances {
            standing: self.standing(user, now_ms),
            access,
            posting: settings.map(|settings| settings.posting).unwrap_or_default(),
            accounts: self.accounts,
            ..Circumstances::default()
        }
    }
}

/// A refusal as it is told over a WebSocket and over HTTP.
pub fn rejected(refusal: Refusal) -> Rejected {
    let code = if refusal.is_hidden() { ErrorCode::NotFound } else { ErrorCode::Forbidden };
    Rejected::new(code, refusal.to_string(), None)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Person, Username};
    use crate::role::Posting;
    use crate::store::Ticket;

    fn tea() -> RoomId {
        RoomId::parse("tea").unwrap()
    }

    fn user(number: u128) -> UserId {
        UserId(uuid::Uuid::from_u128(number))
    }

    #[test]
    fn what_is_set_of_a_room_holds_for_those_whom_it_is_for() {
        let mut rules = Rules::default();
        let now = Timestamp::at(1_000_000);
        let ana = user(1);
        assert_eq!(rules.may_say(Role::Guest, ana, &tea(), &now), Ok(()));
        rules.set_room(tea(), RoomSettings { posting: Posting::Admins, ..RoomSettings::default() });
        assert_eq!(rules.may_say(Role::User, ana, &tea(), &now), Err(Refusal::ReadOnly));
        assert_eq!(rules.may_say(Role::Admin, ana, &tea(), &now), Ok(()));
        rules.set_room(tea(), RoomSettings { is_private: true, ..RoomSettings::default() });
        rules.set_member(tea(), user(2), true);
        assert_eq!(rules.may_enter(Role::Admin, ana, &tea()), Err(Refusal::NoSuchRoom));
        assert_eq!(rules.may_enter(Role::Guest, user(2), &tea()), Ok(()));
        rules.set_member(tea(), user(2), false);
        assert_eq!(rules.may_enter(Role::Guest, user(2), &tea()), Err(Refusal::NoSuchRoom));
        rules.set_room(tea(), RoomSettings::default());
        assert_eq!(rules.may_enter(Role::Guest, ana, &tea()), Ok(()));
    }

    fn take(rules: &mut Rules, role: Role, id: UserId, now: &Timestamp) -> Result<(), Rejected> {
        let author = Arc::new(Person { id, username: Username::parse("ana").unwrap() });
        let body = Body::Text { content: "hi".into(), reply_to: None };
        let (room, nonce, refusal, ticket) = (tea(), None, None, Ticket::Nobody);
        rules.take(&NewMessage { room, author, role, body, nonce, refusal, ticket }, now)
    }

    #[test]
    fn who_waits_is_remembered_within_a_bound() {
        let mut rules = Rules::default();
        rules.set_room(tea(), RoomSettings { slow_mode_s: 3_600, ..RoomSettings::default() });
        let at = |ms: u64| Timestamp::at(1_000_000 + ms);
        for number in 0..SLOW_MODE_WAITING_MAX as u128 + 100 {
            assert_eq!(take(&mut rules, Role::Guest, user(number), &at(0)), Ok(()));
        }
        assert_eq!(rules.spoke.len(), SLOW_MODE_WAITING_MAX);
        assert!(take(&mut rules, Role::Guest, user(0), &at(1)).is_err(), "who is remembered waits");
        assert_eq!(take(&mut rules, Role::Guest, user(0), &at(3_600_000)), Ok(()));
    }

    #[test]
    fn a_mute_ends_by_itself_and_slow_mode_lets_wait() {
        let mut rules = Rules::default();
        let (ana, at) = (user(1), |ms: u64| Timestamp::at(1_000_000 + ms));
        rules.mute(ana, 1_005_000);
        assert_eq!(rules.may_say(Role::Guest, ana, &tea(), &at(0)), Err(Refusal::Muted));
        assert_eq!(rules.may_say(Role::Guest, ana, &tea(), &at(5_000)), Ok(()));
        rules.set_room(tea(), RoomSettings { slow_mode_s: 10, ..RoomSettings::default() });
        assert_eq!(take(&mut rules, Role::Guest, ana, &at(6_000)), Ok(()));
        let early = take(&mut rules, Role::Guest, ana, &at(7_000)).unwrap_err();
        assert_eq!((early.code, early.retry_ms), (ErrorCode::RateLimited, Some(9_000)));
        assert_eq!(take(&mut rules, Role::Guest, user(2), &at(7_000)), Ok(()));
        assert_eq!(take(&mut rules, Role::Admin, user(3), &at(7_000)), Ok(()));
        assert_eq!(take(&mut rules, Role::Admin, user(3), &at(7_001)), Ok(()));
        assert_eq!(take(&mut rules, Role::Guest, ana, &at(16_000)), Ok(()));
    }
}
