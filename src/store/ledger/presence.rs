//! Presence: which connections are in which rooms, under which names, and which users were kicked from a room that they
//! have not left yet.
//!
//! It is not in the database. So it keeps its own undo steps, for the rollback of a transaction. The ledger owns it, on
//! the store's thread.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::model::{ConnectionId, RoomId, Seq, UserId, Username};

use super::super::entry::Principal;

#[derive(Default)]
pub struct Presence {
    /// Rooms with connections. The connections of one user are adjacent.
    rooms: HashMap<RoomId, BTreeSet<(UserId, ConnectionId)>>,
    /// The users with connections in rooms.
    users: HashMap<UserId, Present>,
    /// Heads that connections have seen in rooms that were forgotten since. While such a room has connections, its
    /// order continues from there.
    seen_heads: HashMap<RoomId, Seq>,
    /// Messages of these users to these rooms are refused.
    kicked: HashSet<(RoomId, UserId)>,
    /// What the transaction has done, to be undone by a rollback.
    steps: Vec<Step>,
}

/// A user with connections in rooms. All of them have one name.
#[derive(Debug, Clone)]
pub struct Present {
    /// The user under its current name.
    pub principal: Arc<Principal>,
    /// When it chose that name, in log time; `None` if it entered with the name.
    pub renamed_ms: Option<u64>,
    /// The number of its connections in all rooms. One that is in two rooms counts twice.
    entered: usize,
}

impl Present {
    pub fn username(&self) -> &Username {
        &self.principal.person.username
    }
}

enum Step {
    Entered(RoomId, UserId, ConnectionId),
    Left(RoomId, UserId, ConnectionId),
    Kicked(RoomId, UserId),
    Pardoned(RoomId, UserId),
    /// What was known of the user before.
    User(UserId, Option<Present>),
}

impl Presence {
    /// The number of connections in a room.
    pub fn connections(&self, room: &RoomId) -> usize {
        self.rooms.get(room).map_or(0, BTreeSet::len)
    }

    /// Begins a transaction.
    pub fn begin(&mut self) {
        self.steps.clear();
    }

    /// Undoes everything since the beginning of the transaction.
    pub fn roll_back(&mut self) {
        while let Some(step) = self.steps.pop() {
            match step {
                Step::Entered(room, user, connection) => drop(self.remove(&room, user, connection)),
                Step::Left(room, user, connection) => drop(self.insert(&room, user, connection)),
                Step::Kicked(room, user) => drop(self.kicked.remove(&(room, user))),
                Step::Pardoned(room, user) => drop(self.kicked.insert((room, user))),
                Step::User(user, Some(before)) => drop(self.users.insert(user, before)),
                Step::User(user, None) => drop(self.users.remove(&user)),
            }
        }
    }

    /// Adds a connection to a room. Its user may post there again.
    pub fn enter(&mut self, room: &RoomId, principal: &Arc<Principal>, connection: ConnectionId) {
        let user = principal.user();
        self.pardon(room, user);
        if self.insert(room, user, connection) {
            self.steps.push(Step::Entered(room.clone(), user, connection));
            let before = self.users.get(&user).cloned();
            let new = || Present { principal: Arc::clone(principal), renamed_ms: None, entered: 0 };
            self.users.entry(user).or_insert_with(new).entered += 1;
            self.steps.push(Step::User(user, before));
        }
    }

    /// What is known of a user with connections in rooms.
    pub fn user(&self, user: UserId) -> Option<&Present> {
        self.users.get(&user)
    }

    /// All users with connections in rooms, in no particular order.
    pub fn users(&self) -> impl Iterator<Item = &Present> {
        self.users.values()
    }

    /// Gives a present user another name.
    pub fn rename(&mut self, principal: Arc<Principal>, renamed_ms: Option<u64>) {
        let user = principal.user();
        let Some(present) = self.users.get_mut(&user) else { return };
        self.steps.push(Step::User(user, Some(present.clone())));
        (present.principal, present.renamed_ms) = (principal, renamed_ms);
    }

    /// The rooms in which a user has connections, in order.
    pub fn rooms_of(&self, user: UserId) -> Vec<RoomId> {
        let mut rooms: Vec<_> = self.rooms.keys().filter(|room| self.has_connection(room, user)).cloned().collect();
        rooms.sort_unstable();
        rooms
    }

    /// Removes a connection from a room. Nothing changes if its join was refused, as it is not there.
    pub fn leave(&mut self, room: &RoomId, user: UserId, connection: ConnectionId) {
        if self.remove(room, user, connection) {
            self.steps.push(Step::Left(room.clone(), user, connection));
            if let Some(present) = self.users.get_mut(&user) {
                self.steps.push(Step::User(user, Some(present.clone())));
                present.entered -= 1;
                if present.entered == 0 {
                    self.users.remove(&user);
                }
            }
            if !self.has_connection(room, user) {
                self.pardon(room, user);
            }
        }
    }

    /// The highest seq that connections in a room have seen. The room may have been forgotten since.
    pub fn seen_head(&self, room: &RoomId) -> Seq {
        if self.seen_heads.is_empty() { Seq::default() } else { self.seen_heads.get(room).copied().unwrap_or_default() }
    }

    /// Notes that connections in a room have seen a seq.
    pub fn see_head(&mut self, room: &RoomId, head: Seq) {
        let seen = self.seen_heads.entry(room.clone()).or_default();
        *seen = head.max(*seen);
    }

    /// Kicks a user. A user outside the room has no entries in flight there, so nothing is noted.
    pub fn kick(&mut self, room: &RoomId, user: UserId) {
        if self.has_connection(room, user) && self.kicked.insert((room.clone(), user)) {
            self.steps.push(Step::Kicked(room.clone(), user));
        }
    }

    /// Kicks all users of a room.
    pub fn kick_all(&mut self, room: &RoomId) {
        let users = self.rooms.get(room).into_iter().flatten().map(|(user, _)| *user);
        let users: BTreeSet<UserId> = users.collect();
        users.into_iter().for_each(|user| self.kick(room, user));
    }

    pub fn is_kicked(&self, room: &RoomId, user: UserId) -> bool {
        !self.kicked.is_empty() && self.kicked.contains(&(room.clone(), user))
    }

    fn pardon(&mut self, room: &RoomId, user: UserId) {
        if !self.kicked.is_empty() && self.kicked.remove(&(room.clone(), user)) {
            self.steps.push(Step::Pardoned(room.clone(), user));
        }
    }

    /// Whether a user has a connection in a room.
    fn has_connection(&self, room: &RoomId, user: UserId) -> bool {
        let all_of_user = (user, ConnectionId(0))..=(user, ConnectionId(u64::MAX));
        self.rooms.get(room).is_some_and(|connections| connections.range(all_of_user).next().is_some())
    }

    /// Adds a connection. Returns whether it is new.
    fn insert(&mut self, room: &RoomId, user: UserId, connection: ConnectionId) -> bool {
        match self.rooms.get_mut(room) {
            Some(connections) => connections.insert((user, connection)),
            None => self.rooms.entry(room.clone()).or_default().insert((user, connection)),
        }
    }

    /// Removes a connection. Returns whether it was there.
    fn remove(&mut self, room: &RoomId, user: UserId, connection: ConnectionId) -> bool {
        let Some(connections) = self.rooms.get_mut(room) else { return false };
        let was_there = connections.remove(&(user, connection));
        if connections.is_empty() {
            self.rooms.remove(room);
            self.seen_heads.remove(room);
        }
        was_there
    }
}
