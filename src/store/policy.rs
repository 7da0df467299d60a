//! The state that permission checks need, in memory: room settings, members of private rooms, roles, mutes and bans.
//!
//! The store's thread owns it and changes it together with the database. It publishes snapshots, each as cheap as
//! copying a pointer. Handshakes and the hub read the snapshot of the last commit.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use rpds::HashTrieMapSync;

use crate::auth::guest_token::GuestKey;
use crate::auth::permission::{Access, Action, PermissionContext, RegistrationCode, Restriction, Target, may};
use crate::model::reason::Reason;
use crate::model::role::Role;
use crate::model::{RoomId, Seq, UserId};
use crate::published::Published;

use super::accounts::{Banned, RoomSettings, SessionId};
use super::change::Policy;
use super::entry::{Principal, Proof};

/// How long an ended session is remembered here, in milliseconds of log time. Its connections are closed when its end
/// is applied. The rest of the time is for entries in flight.
pub const ENDED_KEPT_MS: u64 = 60_000;

#[derive(Debug, Clone)]
pub struct PolicySnapshot {
    pub flags: Policy,
    pub(super) rooms: HashTrieMapSync<RoomId, Arc<RoomSettings>>,
    /// The members of each private room that has any.
    members: HashTrieMapSync<RoomId, Arc<Members>>,
    /// The end of each mute, in log time.
    pub(super) muted: HashTrieMapSync<UserId, u64>,
    /// The end of each ban, in log time; `None` for a permanent ban.
    pub(super) banned: HashTrieMapSync<Banned, Option<u64>>,
    /// The roles of accounts. Guests are not here.
    pub(super) roles: HashTrieMapSync<UserId, Role>,
    /// Recently ended sessions, with the log time of their end.
    pub(super) ended: HashTrieMapSync<SessionId, u64>,
    pub guest_key: Arc<GuestKey>,
    pub server: Arc<ServerId>,
}

/// The random id of a server, which it keeps in its database, and the log time at which it was made.
#[derive(Debug, PartialEq, Eq)]
pub struct ServerId {
    pub id: Box<str>,
    pub made_ms: u64,
}

/// The members of a private room, each with the seq above which it may read.
pub(super) type Members = HashMap<UserId, Seq>;

/// The latest snapshot, for readers on other threads.
pub type PublishedPolicy = Published<PolicySnapshot>;

/// Looks up a key. The crate hashes it for an empty map, too, and most of these maps are empty on most servers.
fn get<'a, K: Eq + std::hash::Hash, V>(map: &'a HashTrieMapSync<K, V>, key: &K) -> Option<&'a V> {
    if map.is_empty() { None } else { map.get(key) }
}

impl PolicySnapshot {
    /// A policy without accounts, settings or restrictions.
    #[must_use]
    pub fn new(flags: Policy, guest_key: GuestKey, server: ServerId) -> Self {
        Self {
            flags,
            rooms: HashTrieMapSync::new_sync(),
            members: HashTrieMapSync::new_sync(),
            muted: HashTrieMapSync::new_sync(),
            banned: HashTrieMapSync::new_sync(),
            roles: HashTrieMapSync::new_sync(),
            ended: HashTrieMapSync::new_sync(),
            guest_key: Arc::new(guest_key),
            server: Arc::new(server),
        }
    }

    /// A room's settings; `None` if they are the default.
    #[must_use]
    pub fn room(&self, room: &RoomId) -> Option<&RoomSettings> {
        get(&self.rooms, room).map(|settings| &**settings)
    }

    #[must_use]
    pub fn is_private(&self, room: &RoomId) -> bool {
        self.room(room).is_some_and(|settings| settings.is_private)
    }

    #[must_use]
    pub fn is_member(&self, room: &RoomId, user: UserId) -> bool {
        get(&self.members, room).is_some_and(|members| members.contains_key(&user))
    }

    /// The seq above which a user may read in a room.
    #[must_use]
    pub fn floor(&self, room: &RoomId, user: UserId) -> Seq {
        get(&self.members, room).and_then(|members| members.get(&user)).copied().unwrap_or_default()
    }

    /// Whether a room has members that may not read all of it. Its order must go on as long as it has.
    pub(super) fn has_floors(&self, room: &RoomId) -> bool {
        get(&self.members, room).is_some_and(|members| members.values().any(|floor| *floor > Seq(0)))
    }

    pub(super) fn add_member(&mut self, room: &RoomId, user: UserId, floor: Seq) {
        let mut members = self.members.get(room).cloned().unwrap_or_default();
        Arc::make_mut(&mut members).insert(user, floor);
        self.members.insert_mut(room.clone(), members);
    }

    pub(super) fn remove_member(&mut self, room: &RoomId, user: UserId) {
        let Some(mut members) = self.members.get(room).cloned() else { return };
        Arc::make_mut(&mut members).remove(&user);
        if members.is_empty() {
            self.members.remove_mut(room);
        } else {
            self.members.insert_mut(room.clone(), members);
        }
    }

    /// Removes a user from all private rooms.
    pub(super) fn remove_from_rooms(&mut self, user: UserId) {
        let of_user = self.members.iter().filter(|(_, members)| members.contains_key(&user));
        let rooms: Vec<_> = of_user.map(|(room, _)| room.clone()).collect();
        rooms.iter().for_each(|room| self.remove_member(room, user));
    }

    /// Removes all members of a room.
    pub(super) fn remove_members(&mut self, room: &RoomId) {
        self.members.remove_mut(room);
    }

    /// Whether there are accounts. Guests may not take their names.
    #[must_use]
    pub fn has_accounts(&self) -> bool {
        !self.roles.is_empty()
    }

    /// The role of an account; `None` if there is no such account.
    #[must_use]
    pub fn account_role(&self, user: UserId) -> Option<Role> {
        self.roles.get(&user).copied()
    }

    /// The role of a client while its session is valid.
    ///
    /// # Errors
    /// [`Reason::SessionEnded`].
    pub fn role(&self, principal: &Principal) -> Result<Role, Reason> {
        if principal.session().is_some_and(|session| get(&self.ended, &session).is_some()) {
            return Err(Reason::SessionEnded);
        }
        match principal.proof {
            Proof::Account(_) => self.account_role(principal.user()).ok_or(Reason::SessionEnded),
            Proof::None | Proof::Guest(_) | Proof::SignedGuest { .. } => Ok(Role::Guest),
        }
    }

    /// The log time until which a user is muted.
    #[must_use]
    pub fn muted_until(&self, user: UserId, clock_ms: u64) -> Option<u64> {
        get(&self.muted, &user).copied().filter(|until_ms| *until_ms > clock_ms)
    }

    #[must_use]
    pub fn is_banned(&self, banned: Banned, clock_ms: u64) -> bool {
        get(&self.banned, &banned).is_some_and(|until_ms| until_ms.is_none_or(|until_ms| until_ms > clock_ms))
    }

    fn restriction(&self, user: Option<UserId>, guest_of: Option<IpAddr>, clock_ms: u64) -> Restriction {
        let is_banned = |banned| self.is_banned(banned, clock_ms);
        if user.is_some_and(|user| is_banned(Banned::User(user)))
            || guest_of.is_some_and(|network| is_banned(Banned::Address(network)))
        {
            Restriction::Banned
        } else if user.is_some_and(|user| self.muted_until(user, clock_ms).is_some()) {
            Restriction::Muted
        } else {
            Restriction::None
        }
    }

    /// Gathers the facts that decide whether a client may do something, in a room or outside all rooms. No other code
    /// gathers them. `guest_of` is the network of a guest.
    #[must_use]
    pub fn context(
        &self,
        user: Option<UserId>,
        guest_of: Option<IpAddr>,
        room: Option<&RoomId>,
        clock_ms: u64,
    ) -> PermissionContext {
        let settings = room.and_then(|room| self.room(room));
        let is_member = || room.zip(user).is_some_and(|(room, user)| self.is_member(room, user));
        let access = match settings {
            Some(settings) if settings.is_private && is_member() => Access::Member,
            Some(settings) if settings.is_private && room.is_some_and(|room| get(&self.members, room).is_none()) => {
                Access::Abandoned
            }
            Some(settings) if settings.is_private => Access::NonMember,
            _ => Access::Public,
        };
        PermissionContext {
            restriction: self.restriction(user, guest_of, clock_ms),
            access,
            posting: settings.map(|settings| settings.posting).unwrap_or_default(),
            accounts: self.flags.accounts,
            registration: self.flags.registration,
            ..PermissionContext::default()
        }
    }

    /// Checks whether a client may do something to `target`.
    ///
    /// # Errors
    /// The first reason against it that the client may know.
    pub fn may(
        &self,
        principal: &Principal,
        action: Action,
        room: Option<&RoomId>,
        target: Target,
        clock_ms: u64,
    ) -> Result<Role, Reason> {
        let role = self.role(principal)?;
        may(role, action, &PermissionContext { target, ..self.context_of(principal, room, clock_ms) })?;
        Ok(role)
    }

    /// Checks whether a client that shows a code may register.
    ///
    /// # Errors
    /// As [`may`](Self::may).
    pub fn may_register(&self, principal: &Principal, code: RegistrationCode, clock_ms: u64) -> Result<(), Reason> {
        let context = PermissionContext { code, ..self.context_of(principal, None, clock_ms) };
        may(self.role(principal)?, Action::Register, &context)
    }

    fn context_of(&self, principal: &Principal, room: Option<&RoomId>, clock_ms: u64) -> PermissionContext {
        let guest_of = principal.is_guest().then_some(principal.network);
        self.context(Some(principal.user()), guest_of, room, clock_ms)
    }
}

/// Builds a policy for tests. Elsewhere only the ledger changes a policy.
#[cfg(test)]
impl PolicySnapshot {
    #[must_use]
    pub fn with_room(mut self, room: &RoomId, settings: RoomSettings) -> Self {
        self.rooms.insert_mut(room.clone(), Arc::new(settings));
        self
    }

    #[must_use]
    pub fn with_member(mut self, room: &RoomId, user: UserId) -> Self {
        self.add_member(room, user, Seq(0));
        self
    }

    /// The members of private rooms.
    pub fn members(&self) -> impl Iterator<Item = (&RoomId, &Members)> {
        self.members.iter().map(|(room, users)| (room, &**users))
    }

    #[must_use]
    pub fn with_account(mut self, user: UserId, role: Role) -> Self {
        self.roles.insert_mut(user, role);
        self
    }

    #[must_use]
    pub fn with_mute(mut self, user: UserId, until_ms: u64) -> Self {
        self.muted.insert_mut(user, until_ms);
        self
    }
}
