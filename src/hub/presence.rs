//! The pending presence changes of a room with many people: the joins and leaves since its last `presence` frame. Pure
//! data; the hub's thread owns it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::{Person, UserId};

/// The people who joined and those who left since the last `presence` frame. A person who joined and left again is in
/// neither list.
#[derive(Debug, Default)]
pub struct Changes {
    joined: People,
    left: People,
    next: u64,
    /// Whether a member got a `welcome` after a change. If that change is undone, the member has a wrong count.
    are_known: bool,
}

/// People with a number that gives their order.
type People = HashMap<UserId, (u64, Arc<Person>)>;

impl Changes {
    /// Notes that a person has joined. Returns the person as it has left, if it comes back under another name.
    pub fn join(&mut self, person: &Arc<Person>) -> Option<Arc<Person>> {
        if let Some((_, left)) = self.left.remove(&person.id) {
            return Some(left).filter(|left| left.username != person.username);
        }
        self.next += 1;
        self.joined.insert(person.id, (self.next, Arc::clone(person)));
        None
    }

    pub fn leave(&mut self, person: &Arc<Person>) {
        if self.joined.remove(&person.id).is_none() {
            self.next += 1;
            self.left.insert(person.id, (self.next, Arc::clone(person)));
        }
    }

    /// Replaces a person who joined, as it is shown otherwise now.
    pub fn replace(&mut self, person: &Arc<Person>) {
        if let Some((_, joined)) = self.joined.get_mut(&person.id) {
            *joined = Arc::clone(person);
        }
    }

    /// Notes that a member of this person was sent the number of people in the room.
    pub fn note_welcome(&mut self, person: &Person) {
        let own = usize::from(self.joined.contains_key(&person.id));
        self.are_known |= self.joined.len() + self.left.len() > own;
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.joined.is_empty() && self.left.is_empty() && !self.are_known
    }

    /// The people who joined and the people who left, each in order.
    pub fn into_lists(self) -> (Vec<Arc<Person>>, Vec<Arc<Person>>) {
        (in_order(self.joined), in_order(self.left))
    }
}

fn in_order(people: People) -> Vec<Arc<Person>> {
    let mut people: Vec<_> = people.into_values().collect();
    people.sort_unstable_by_key(|(number, _)| *number);
    people.into_iter().map(|(_, person)| person).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Username;

    #[test]
    fn only_net_changes_are_listed() {
        let [ana, ben, eva] = ["ana", "ben", "eva"].map(|name| {
            let id = UserId(uuid::Uuid::from_u128(u128::from(name.as_bytes()[0])));
            Arc::new(Person::guest(id, Username::parse(name).unwrap()))
        });
        let mut changes = Changes::default();
        changes.join(&eva);
        changes.join(&ana);
        changes.leave(&ben);
        assert!(!changes.is_empty());
        changes.leave(&ana);
        changes.join(&ana);
        let (joined, left) = std::mem::take(&mut changes).into_lists();
        assert_eq!((joined, left), (vec![Arc::clone(&eva), Arc::clone(&ana)], vec![Arc::clone(&ben)]));
        // A person who left and joined again has changed nothing.
        changes.leave(&ben);
        changes.join(&ben);
        assert!(changes.is_empty());
    }

    #[test]
    fn a_person_who_comes_back_under_another_name_is_reported() {
        let id = UserId(uuid::Uuid::from_u128(1));
        let [ana, ann] = ["ana", "ann"].map(|name| Arc::new(Person::guest(id, Username::parse(name).unwrap())));
        let mut changes = Changes::default();
        changes.leave(&ana);
        assert_eq!(changes.join(&ann).as_ref(), Some(&ana));
        assert!(changes.is_empty());
        changes.leave(&ann);
        assert_eq!(changes.join(&ann), None);
        assert_eq!(changes.into_lists(), (Vec::new(), Vec::new()));
    }

    #[test]
    fn a_wrong_count_in_a_welcome_is_a_change() {
        let [ana, ben] = ["ana", "ben"].map(|name| {
            let id = UserId(uuid::Uuid::from_u128(u128::from(name.as_bytes()[0])));
            Arc::new(Person::guest(id, Username::parse(name).unwrap()))
        });
        let mut changes = Changes::default();
        changes.join(&ana);
        changes.note_welcome(&ana);
        changes.leave(&ana);
        assert!(changes.is_empty(), "the member that knew of it has left");
        changes.leave(&ben);
        changes.note_welcome(&ana);
        changes.join(&ben);
        assert!(!changes.is_empty());
        assert_eq!(changes.into_lists(), (Vec::new(), Vec::new()));
    }
}
