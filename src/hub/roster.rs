//! The roster of a room: its people, counted by user, and a set of members, one per connection.
//!
//! Pure data; the hub's thread owns it. Joining, leaving and counting take about the same time for any number of
//! people.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use crate::model::UserId;

use super::state::MemberKey;

/// The people of a room, in the order of their arrival. A user with several connections is one person.
#[derive(Debug, Default)]
pub struct Roster {
    /// The arrival number of each user.
    people: BTreeMap<UserId, u64>,
    /// The oldest connection of each user, by arrival number. Its name is shown in lists.
    firsts: BTreeMap<u64, MemberKey>,
    /// The other connections of users with several connections, oldest first.
    others: BTreeMap<UserId, Vec<MemberKey>>,
    next_arrival: u64,
}

impl Roster {
    /// Adds a connection. Returns true if its user was not in the room before.
    pub fn enter(&mut self, user: UserId, member: MemberKey) -> bool {
        if self.people.contains_key(&user) {
            self.others.entry(user).or_default().push(member);
            return false;
        }
        let arrival = self.next_arrival;
        self.next_arrival += 1;
        self.people.insert(user, arrival);
        self.firsts.insert(arrival, member);
        true
    }

    /// Removes a connection. Returns true if it was the last connection of its user.
    pub fn leave(&mut self, user: UserId, member: MemberKey) -> bool {
        let Some(arrival) = self.people.get(&user).copied() else { return false };
        let is_first = self.firsts.get(&arrival) == Some(&member);
        let Some(others) = self.others.get_mut(&user) else {
            if is_first {
                self.firsts.remove(&arrival);
                self.people.remove(&user);
            }
            return is_first;
        };
        if is_first {
            self.firsts.insert(arrival, others.remove(0));
        } else {
            others.retain(|&other| other != member);
        }
        if others.is_empty() {
            self.others.remove(&user);
        }
        false
    }

    /// The number of people in the room.
    pub fn len(&self) -> usize {
        self.people.len()
    }

    pub fn is_empty(&self) -> bool {
        self.people.is_empty()
    }

    /// The oldest connection of a person.
    pub fn first_of(&self, user: UserId) -> Option<MemberKey> {
        self.firsts.get(self.people.get(&user)?).copied()
    }

    /// The oldest connection of each person, in the order of arrival.
    pub fn firsts(&self) -> impl Iterator<Item = MemberKey> {
        self.firsts.values().copied()
    }
}

/// A set of members whose elements are in one slice, in no particular order.
#[derive(Debug, Default)]
pub struct MemberSet {
    keys: Vec<MemberKey>,
    /// The index in `keys` of each member.
    indexes: HashMap<MemberKey, usize>,
}

impl MemberSet {
    pub fn insert(&mut self, member: MemberKey) {
        if let Entry::Vacant(vacant) = self.indexes.entry(member) {
            vacant.insert(self.keys.len());
            self.keys.push(member);
        }
    }

    /// Returns true if the member was in the set.
    pub fn remove(&mut self, member: MemberKey) -> bool {
        let Some(index) = self.indexes.remove(&member) else { return false };
        self.keys.swap_remove(index);
        if let Some(moved) = self.keys.get(index) {
            self.indexes.insert(*moved, index);
        }
        true
    }

    pub fn contains(&self, member: MemberKey) -> bool {
        self.indexes.contains_key(&member)
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub fn as_slice(&self) -> &[MemberKey] {
        &self.keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(number: u128) -> UserId {
        UserId(uuid::Uuid::from_u128(number))
    }

    #[test]
    fn a_user_with_several_connections_is_one_person() {
        let mut roster = Roster::default();
        assert!(roster.enter(user(1), MemberKey(1)));
        assert!(roster.enter(user(2), MemberKey(2)));
        assert!(!roster.enter(user(1), MemberKey(3)));
        assert!(!roster.enter(user(1), MemberKey(4)));
        assert_eq!((roster.len(), roster.firsts().collect::<Vec<_>>()), (2, vec![MemberKey(1), MemberKey(2)]));
        // When the oldest connection of a user leaves, the user's next connection takes its place in the list.
        assert!(!roster.leave(user(1), MemberKey(1)));
        assert_eq!(roster.firsts().collect::<Vec<_>>(), [MemberKey(3), MemberKey(2)]);
        assert!(!roster.leave(user(1), MemberKey(4)));
        assert!(!roster.leave(user(1), MemberKey(4)), "it has left already");
        assert!(roster.leave(user(1), MemberKey(3)));
        assert!(!roster.leave(user(1), MemberKey(3)));
        assert!(roster.enter(user(1), MemberKey(5)));
        assert_eq!(
            roster.firsts().collect::<Vec<_>>(),
            [MemberKey(2), MemberKey(5)],
            "a person who comes back is last"
        );
        assert!(roster.leave(user(1), MemberKey(5)) && roster.leave(user(2), MemberKey(2)));
        assert!(roster.is_empty() && roster.firsts.is_empty() && roster.others.is_empty());
    }

    #[test]
    fn a_member_set_finds_members_after_a_swap_remove() {
        let mut set = MemberSet::default();
        (0..5).for_each(|key| set.insert(MemberKey(key)));
        assert!(set.remove(MemberKey(1)));
        assert!(!set.remove(MemberKey(1)));
        assert!(set.remove(MemberKey(4)), "the one that took the other's place");
        let mut left = set.as_slice().to_vec();
        left.sort_unstable_by_key(|key| key.0);
        assert_eq!(left, [MemberKey(0), MemberKey(2), MemberKey(3)]);
        assert!(set.contains(MemberKey(3)) && !set.contains(MemberKey(4)) && !set.is_empty());
    }
}
