//! Which rooms have connections, and which users were kicked out of a room that they have not left yet.
//!
//! It is not in the database, so it keeps by itself what is to be undone where a transaction is rolled back.

use std::collections::{BTreeMap, HashMap, HashSet, btree_map};

use crate::model::{RoomId, Seq, UserId};

/// See the head of this file.
#[derive(Default)]
pub struct Presence {
    rooms: HashMap<RoomId, Connections>,
    /// The last places taken that connections have seen of rooms that were forgotten since. Such an order goes on there
    /// while there are connections in the room.
    seen_heads: HashMap<RoomId, Seq>,
    /// What these users still say in the room is refused.
    kicked: HashSet<(RoomId, UserId)>,
    /// What the transaction has done.
    steps: Vec<Step>,
}

/// The connections that are in a room.
#[derive(Default)]
struct Connections {
    count: usize,
    /// How many of them each user has.
    of_users: BTreeMap<UserId, usize>,
}

enum Step {
    Entered(RoomId, UserId),
    Left(RoomId, UserId),
    Kicked(RoomId, UserId),
    Pardoned(RoomId, UserId),
}

impl Presence {
    /// How many connections are in a room.
    pub fn connections(&self, room: &RoomId) -> usize {
        self.rooms.get(room).map_or(0, |connections| connections.count)
    }

    /// Begins a transaction.
    pub fn begin(&mut self) {
        self.steps.clear();
    }

    /// Takes everything back to the beginning of the transaction.
    pub fn roll_back(&mut self) {
        while let Some(step) = self.steps.pop() {
            match step {
                Step::Entered(room, user) => drop(self.count_out(&room, user)),
                Step::Left(room, user) => self.count_in(&room, user),
                Step::Kicked(room, user) => drop(self.kicked.remove(&(room, user))),
                Step::Pardoned(room, user) => drop(self.kicked.insert((room, user))),
            }
        }
    }

    /// A connection enters a room. Its user may speak there again.
    pub fn enter(&mut self, room: &RoomId, user: UserId) {
        self.pardon(room, user);
        self.count_in(room, user);
        self.steps.push(Step::Entered(room.clone(), user));
    }

    /// A connection leaves a room. One that was refused leaves, too, and was never counted.
    pub fn leave(&mut self, room: &RoomId, user: UserId) {
        if let Some(is_last_of_user) = self.count_out(room, user) {
            self.steps.push(Step::Left(room.clone(), user));
            if is_last_of_user {
                self.pardon(room, user);
            }
        }
    }

    /// The last place taken that connections in a room have seen, where the room may have been forgotten since.
    pub fn seen_head(&self, room: &RoomId) -> Seq {
        if self.seen_heads.is_empty() { Seq::default() } else { self.seen_heads.get(room).copied().unwrap_or_default() }
    }

    /// Takes note that connections in a room have seen a place.
    pub fn see_head(&mut self, room: &RoomId, head: Seq) {
        self.seen_heads.insert(room.clone(), head);
    }

    /// A user is kicked. One who is not in the room has nothing on its way there.
    pub fn kick(&mut self, room: &RoomId, user: UserId) {
        let is_there = self.rooms.get(room).is_some_and(|connections| connections.of_users.contains_key(&user));
        if is_there && self.kicked.insert((room.clone(), user)) {
            self.steps.push(Step::Kicked(room.clone(), user));
        }
    }

    pub fn is_kicked(&self, room: &RoomId, user: UserId) -> bool {
        !self.kicked.is_empty() && self.kicked.contains(&(room.clone(), user))
    }

    fn pardon(&mut self, room: &RoomId, user: UserId) {
        if !self.kicked.is_empty() && self.kicked.remove(&(room.clone(), user)) {
            self.steps.push(Step::Pardoned(room.clone(), user));
        }
    }

    fn count_in(&mut self, room: &RoomId, user: UserId) {
        let connections = match self.rooms.get_mut(room) {
            Some(connections) => connections,
            None => self.rooms.entry(room.clone()).or_default(),
        };
        connections.count += 1;
        *connections.of_users.entry(user).or_default() += 1;
    }

    /// Whether it was the user's last connection there; nothing where the user had none.
    fn count_out(&mut self, room: &RoomId, user: UserId) -> Option<bool> {
        let connections = self.rooms.get_mut(room)?;
        let btree_map::Entry::Occupied(mut of_user) = connections.of_users.entry(user) else { return None };
        *of_user.get_mut() -= 1;
        let is_last_of_user = *of_user.get() == 0;
        if is_last_of_user {
            of_user.remove();
        }
        connections.count -= 1;
        if connections.count == 0 {
            self.rooms.remove(room);
            self.seen_heads.remove(room);
        }
        Some(is_last_of_user)
    }
}
