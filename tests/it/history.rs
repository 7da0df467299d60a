//! Checks the records of clients: whether a server kept its promises, whatever failures happened in between.
//!
//! Pure. The input is what each client sent and received, connection by connection, and the server's log at the end.
//! The tests below plant each fault in a faultless history, and check that it is found.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use uuid::Uuid;

/// A room, by its number in the test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Room(pub u8);

/// The nonce of a message; no two messages of a test have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nonce(pub u64);

/// A stored message, as in the log or as a client received it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    pub room: Room,
    pub seq: u64,
    pub id: Uuid,
    /// `None` if no client of the test has sent it.
    pub nonce: Option<Nonce>,
}

/// What a client did or received, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A connection was opened, as this user.
    Connected { user: Uuid },
    /// A `welcome`. The client asked for the messages after the last one that it saw, if it had seen any.
    Joined { room: Room, resumed: bool, reset: bool, head: u64 },
    /// A message was sent, for the first time or again.
    Sent { room: Room, nonce: Nonce },
    /// The author received its own message, live or in a replay.
    Acked(Message),
    /// The author received its own message as the answer to a duplicate, which stored nothing because an earlier
    /// sending had.
    Duplicate(Message),
    /// An `error` with this nonce: one sending of the message stored nothing.
    Refused { nonce: Nonce },
    /// A message of the room arrived.
    Saw(Message),
}

/// The record of a client from its first connection to its last.
#[derive(Debug, Clone, Default)]
pub struct Client {
    pub name: String,
    pub events: Vec<Event>,
}

/// The record of a test.
#[derive(Debug, Clone, Default)]
pub struct History {
    pub clients: Vec<Client>,
    /// The server's log at the end, each room from its beginning.
    pub log: Vec<Message>,
}

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The log of a room is not numbered 1, 2, 3 …
    LogOutOfStep { room: Room, expected: u64, found: u64 },
    /// The log has an id twice.
    DoubledId { id: Uuid },
    /// The log has a message twice.
    DoubledNonce { nonce: Nonce, seqs: [u64; 2] },
    /// The log has a message that no client sent to that room.
    Phantom(Message),
    /// A message was acked, and is not in the log, or has another `seq` there.
    AckLost { client: String, message: Message },
    /// A message was refused each time, and is stored all the same.
    RefusedStored { client: String, nonce: Nonce },
    /// A message was delivered, and is not in the log.
    DeliveredLost { client: String, message: Message },
    /// A message was delivered with a `seq` that another message has in the log.
    SeqReused { client: String, delivered: Message, stored: Message },
    /// A client missed a message.
    Gap { client: String, room: Room, expected: u64, found: u64 },
    /// A client received a message again, or late.
    Repeated { client: String, room: Room, expected: u64, found: u64 },
    /// A client that could resume got a `reset`.
    Reset { client: String, room: Room },
    /// Two messages of one connection are stored in reverse order.
    Reordered { client: String, first: Nonce, second: Nonce },
    /// A client has another user id than before.
    IdentityLost { client: String },
    /// A client did not receive the last messages.
    Behind { client: String, room: Room, seen: u64, head: u64 },
}

/// Returns all faults of a history.
pub fn check(history: &History) -> Vec<Fault> {
    let mut faults = Vec::new();
    let log = Log::new(history, &mut faults);
    for client in &history.clients {
        check_messages(client, &log, &mut faults);
        check_refusals(client, &log, &mut faults);
        check_stream(client, &log, &mut faults);
        check_order(client, &log, &mut faults);
        let mut users = client.events.iter().filter_map(|event| match event {
            Event::Connected { user } => Some(user),
            _ => None,
        });
        if let Some(first) = users.next()
            && users.any(|user| user != first)
        {
            faults.push(Fault::IdentityLost { client: client.name.clone() });
        }
    }
    faults
}

/// The log with its indexes.
struct Log {
    by_place: HashMap<(Room, u64), Message>,
    by_nonce: HashMap<Nonce, Message>,
    heads: BTreeMap<Room, u64>,
}

impl Log {
    fn new(history: &History, faults: &mut Vec<Fault>) -> Self {
        let sent: HashSet<(Room, Nonce)> = history
            .clients
            .iter()
            .flat_map(|client| &client.events)
            .filter_map(|event| match *event {
                Event::Sent { room, nonce } => Some((room, nonce)),
                _ => None,
            })
            .collect();
        let mut log = Self { by_place: HashMap::new(), by_nonce: HashMap::new(), heads: BTreeMap::new() };
        let mut ids = HashSet::new();
        for &message in &history.log {
            let Message { room, seq, id, nonce } = message;
            let head = log.heads.entry(room).or_default();
            if seq != *head + 1 {
                faults.push(Fault::LogOutOfStep { room, expected: *head + 1, found: seq });
            }
            *head = seq;
            if !ids.insert(id) {
                faults.push(Fault::DoubledId { id });
            }
            if !nonce.is_some_and(|nonce| sent.contains(&(room, nonce))) {
                faults.push(Fault::Phantom(message));
            }
            if let Some(nonce) = nonce
                && let Some(first) = log.by_nonce.insert(nonce, message)
            {
                faults.push(Fault::DoubledNonce { nonce, seqs: [first.seq, seq] });
            }
            log.by_place.insert((room, seq), message);
        }
        log
    }

    fn has(&self, message: &Message) -> bool {
        self.by_place.get(&(message.room, message.seq)) == Some(message)
    }
}

/// Checks that each acked or delivered message is stored as it was received.
fn check_messages(client: &Client, log: &Log, faults: &mut Vec<Fault>) {
    let name = || client.name.clone();
    for event in &client.events {
        match *event {
            Event::Acked(message) | Event::Duplicate(message) if !log.has(&message) => {
                faults.push(Fault::AckLost { client: name(), message })
            }
            Event::Saw(message) if !log.has(&message) => {
                faults.push(match log.by_place.get(&(message.room, message.seq)) {
                    Some(&stored) => Fault::SeqReused { client: name(), delivered: message, stored },
                    None => Fault::DeliveredLost { client: name(), message },
                })
            }
            _ => {}
        }
    }
}

/// Checks that a refused message is not stored until it is sent again. It must not be in the log, not be echoed, and
/// not be the original of a duplicate. A refusal concerns one sending; another sending may have stored the message.
fn check_refusals(client: &Client, log: &Log, faults: &mut Vec<Fault>) {
    let refused: HashSet<Nonce> = client.events.iter().filter_map(refused_nonce).collect();
    // The number of sendings of each message without a refusal.
    let mut sendings: BTreeMap<Nonce, i64> = refused.into_iter().map(|nonce| (nonce, 0)).collect();
    let mut stored: BTreeSet<Nonce> = BTreeSet::new();
    for event in &client.events {
        let (nonce, at_least) = match *event {
            Event::Sent { nonce, .. } => {
                sendings.entry(nonce).and_modify(|count| *count += 1);
                continue;
            }
            Event::Refused { nonce } => {
                sendings.entry(nonce).and_modify(|count| *count -= 1);
                continue;
            }
            Event::Acked(Message { nonce, .. }) | Event::Saw(Message { nonce, .. }) => (nonce, 1),
            // Two sendings: one that stored the message, and one that was answered as a duplicate.
            Event::Duplicate(Message { nonce, .. }) => (nonce, 2),
            Event::Connected { .. } | Event::Joined { .. } => continue,
        };
        if let Some(nonce) = nonce
            && sendings.get(&nonce).is_some_and(|count| *count < at_least)
        {
            stored.insert(nonce);
        }
    }
    stored.extend(
        sendings
            .iter()
            .filter(|(nonce, count)| **count <= 0 && log.by_nonce.contains_key(nonce))
            .map(|(nonce, _)| *nonce),
    );
    faults.extend(stored.into_iter().map(|nonce| Fault::RefusedStored { client: client.name.clone(), nonce }));
}

fn refused_nonce(event: &Event) -> Option<Nonce> {
    match *event {
        Event::Refused { nonce } => Some(nonce),
        _ => None,
    }
}

/// Checks that each client receives each room as one sequence without gap or repetition, over all its connections.
fn check_stream(client: &Client, log: &Log, faults: &mut Vec<Fault>) {
    let name = || client.name.clone();
    let mut last_seen: BTreeMap<Room, u64> = BTreeMap::new();
    // For a room joined without an earlier message of it: the highest `seq` with which it may begin.
    let mut begins_by: BTreeMap<Room, u64> = BTreeMap::new();
    for event in &client.events {
        match *event {
            Event::Joined { room, resumed: true, reset, .. } => {
                begins_by.remove(&room);
                if reset {
                    faults.push(Fault::Reset { client: name(), room });
                }
            }
            Event::Joined { room, resumed: false, head, .. } => {
                begins_by.insert(room, head + 1);
            }
            Event::Saw(Message { room, seq: found, .. }) => {
                let last = last_seen.get(&room).copied();
                let expected = match begins_by.remove(&room) {
                    Some(latest) => found.min(latest).max(last.map_or(0, |last| last + 1)),
                    None => last.unwrap_or(0) + 1,
                };
                if found > expected {
                    faults.push(Fault::Gap { client: name(), room, expected, found });
                } else if found < expected {
                    faults.push(Fault::Repeated { client: name(), room, expected, found });
                }
                last_seen.insert(room, found.max(last.unwrap_or(0)));
            }
            _ => {}
        }
    }
    let joined: BTreeSet<Room> = client.events.iter().filter_map(joined_room).collect();
    for room in joined {
        let seen = last_seen.get(&room).copied().unwrap_or(0);
        let head = log.heads.get(&room).copied().unwrap_or(0);
        if seen < head {
            faults.push(Fault::Behind { client: name(), room, seen, head });
        }
    }
}

fn joined_room(event: &Event) -> Option<Room> {
    match *event {
        Event::Joined { room, .. } => Some(room),
        _ => None,
    }
}

/// Checks that messages of one connection are stored in the order of sending.
///
/// This also holds for messages that are sent again, as clients send them in the old order and before new ones. A
/// refused sending has no place in that order.
fn check_order(client: &Client, log: &Log, faults: &mut Vec<Fault>) {
    let mut sendings: Vec<(Room, Nonce)> = Vec::new();
    for event in &client.events {
        match *event {
            Event::Connected { .. } => check_sendings(client, &std::mem::take(&mut sendings), log, faults),
            Event::Sent { room, nonce } => sendings.push((room, nonce)),
            Event::Refused { nonce } => {
                // Answers arrive in the order of the commands.
                if let Some(first) = sendings.iter().position(|(_, one)| *one == nonce) {
                    sendings.remove(first);
                }
            }
            _ => {}
        }
    }
    check_sendings(client, &sendings, log, faults);
}

fn check_sendings(client: &Client, sendings: &[(Room, Nonce)], log: &Log, faults: &mut Vec<Fault>) {
    let mut sent: HashSet<Nonce> = HashSet::new();
    let mut last: BTreeMap<Room, Message> = BTreeMap::new();
    for &(room, nonce) in sendings {
        if !sent.insert(nonce) {
            continue;
        }
        let Some(&stored) = log.by_nonce.get(&nonce) else { continue };
        if let Some(before) = last.insert(room, stored)
            && before.seq > stored.seq
            && let Some(first) = before.nonce
        {
            faults.push(Fault::Reordered { client: client.name.clone(), first, second: nonce });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Event::{Acked, Duplicate, Refused, Saw};

    const TEA: Room = Room(0);
    const ANA: usize = 0;
    const BEN: usize = 1;
    const EVA: usize = 2;

    fn user(number: usize) -> Uuid {
        Uuid::from_u128(0xada_0000 + number as u128)
    }

    /// The message with this nonce and `seq`; its id follows from the nonce.
    fn at(seq: u64, nonce: u64) -> Message {
        Message { room: TEA, seq, id: Uuid::from_u128(nonce.into()), nonce: Some(Nonce(nonce)) }
    }

    fn sent(nonce: u64) -> Event {
        Event::Sent { room: TEA, nonce: Nonce(nonce) }
    }

    fn connected(number: usize) -> Event {
        Event::Connected { user: user(number) }
    }

    fn joined(resumed: bool, head: u64) -> Event {
        Event::Joined { room: TEA, resumed, reset: false, head }
    }

    /// Ana and Ben write, Eva reads. The server is killed once: Ana's 12 was stored but its ack was lost, and her 13
    /// was not received; both are sent again. Ben's 20 is refused.
    fn honest() -> History {
        let ana = vec![
            connected(ANA),
            joined(false, 0),
            sent(11),
            sent(12),
            sent(13),
            Acked(at(1, 11)),
            Saw(at(1, 11)),
            Saw(at(2, 21)),
            connected(ANA),
            joined(true, 3),
            sent(12),
            sent(13),
            sent(14),
            Acked(at(3, 12)),
            Saw(at(3, 12)),
            Duplicate(at(3, 12)),
            Acked(at(4, 13)),
            Saw(at(4, 13)),
            Acked(at(5, 14)),
            Saw(at(5, 14)),
        ];
        let ben = vec![
            connected(BEN),
            joined(false, 0),
            sent(20),
            sent(21),
            Refused { nonce: Nonce(20) },
            Saw(at(1, 11)),
            Acked(at(2, 21)),
            Saw(at(2, 21)),
            connected(BEN),
            joined(true, 3),
            Saw(at(3, 12)),
            Saw(at(4, 13)),
            Saw(at(5, 14)),
        ];
        let eva = vec![
            connected(EVA),
            joined(false, 1),
            Saw(at(1, 11)),
            Saw(at(2, 21)),
            Saw(at(3, 12)),
            connected(EVA),
            joined(true, 3),
            Saw(at(4, 13)),
            Saw(at(5, 14)),
        ];
        let names = ["Ana", "Ben", "Eva"].map(String::from);
        let clients = names.into_iter().zip([ana, ben, eva]).map(|(name, events)| Client { name, events });
        let log = vec![at(1, 11), at(2, 21), at(3, 12), at(4, 13), at(5, 14)];
        History { clients: clients.collect(), log }
    }

    /// Checks that a change to the faultless history is found as the right fault.
    #[track_caller]
    fn caught(plant: impl FnOnce(&mut History), is_it: impl Fn(&Fault) -> bool) {
        let mut history = honest();
        plant(&mut history);
        let faults = check(&history);
        assert!(faults.iter().any(is_it), "not caught; it says {faults:?}");
    }

    /// Removes an event from a client's record.
    fn forget(history: &mut History, client: usize, event: Event) {
        let events = &mut history.clients[client].events;
        let place = events.iter().rposition(|one| *one == event).expect("an event of the story");
        events.remove(place);
    }

    /// Numbers the log again from 1.
    fn renumber(log: &mut [Message]) {
        for (message, seq) in log.iter_mut().zip(1..) {
            message.seq = seq;
        }
    }

    #[test]
    fn a_faultless_history_has_no_fault() {
        assert_eq!(check(&honest()), []);
    }

    #[test]
    fn a_lost_acked_message_is_found() {
        let lost = |fault: &Fault| matches!(fault, Fault::AckLost { message, .. } if *message == at(5, 14));
        caught(|history| _ = history.log.pop(), lost);
        // Stored with another `seq` than in the ack.
        let moved = |history: &mut History| history.log.swap(3, 4);
        caught(
            |history| {
                moved(history);
                renumber(&mut history.log);
            },
            lost,
        );
    }

    #[test]
    fn a_duplicated_nonce_is_found() {
        let again = Message { id: user(9), ..at(6, 12) };
        let doubled = |fault: &Fault| *fault == Fault::DoubledNonce { nonce: Nonce(12), seqs: [3, 6] };
        caught(|history| history.log.push(again), doubled);
        caught(|history| history.log.push(at(6, 12)), |fault| matches!(fault, Fault::DoubledId { .. }));
    }

    #[test]
    fn a_reused_seq_is_found() {
        // Eva received 99 as the third message before the crash; afterwards its `seq` was given to 12.
        let told = Message { id: user(9), ..at(3, 99) };
        caught(
            |history| {
                forget(history, EVA, Saw(at(3, 12)));
                history.clients[EVA].events.insert(4, Saw(told));
            },
            |fault| matches!(fault, Fault::SeqReused { delivered, .. } if *delivered == told),
        );
    }

    #[test]
    fn a_reordering_is_found() {
        caught(
            |history| {
                history.log.swap(2, 3);
                renumber(&mut history.log);
            },
            |fault| matches!(fault, Fault::Reordered { first: Nonce(12), second: Nonce(13), .. }),
        );
    }

    #[test]
    fn a_message_that_no_client_sent_is_found() {
        for phantom in [at(6, 77), Message { nonce: None, ..at(6, 77) }] {
            caught(|history| history.log.push(phantom), |fault| *fault == Fault::Phantom(phantom));
        }
        // In the log of a room to which it was not sent.
        let elsewhere = Message { room: Room(1), ..at(1, 12) };
        caught(|history| history.log.push(elsewhere), |fault| *fault == Fault::Phantom(elsewhere));
    }

    #[test]
    fn a_gap_is_found() {
        let gap = |expected, found| move |fault: &Fault| matches!(*fault, Fault::Gap { expected: e, found: f, .. } if (e, f) == (expected, found));
        // On one connection, and between two connections.
        caught(|history| forget(history, EVA, Saw(at(2, 21))), gap(2, 3));
        caught(|history| forget(history, EVA, Saw(at(4, 13))), gap(4, 5));
        // Between the replay at the join and the live messages: 1 was stored when Eva joined.
        caught(
            |history| {
                forget(history, EVA, Saw(at(1, 11)));
                forget(history, EVA, Saw(at(2, 21)));
            },
            gap(2, 3),
        );
        // At the end, and the whole room.
        caught(|history| forget(history, EVA, Saw(at(5, 14))), |fault| matches!(fault, Fault::Behind { seen: 4, .. }));
        caught(
            |history| history.clients[EVA].events.retain(|event| !matches!(event, Saw(_))),
            |fault| matches!(fault, Fault::Behind { seen: 0, .. }),
        );
        // In the log itself.
        caught(
            |history| _ = history.log.remove(1),
            |fault| matches!(fault, Fault::LogOutOfStep { expected: 2, found: 3, .. }),
        );
    }

    #[test]
    fn a_repetition_is_found() {
        let repeated = |fault: &Fault| matches!(fault, Fault::Repeated { found: 4, .. });
        caught(|history| history.clients[EVA].events.push(Saw(at(4, 13))), repeated);
        // A join without `after` does not excuse a repetition.
        caught(
            |history| history.clients[EVA].events.extend([joined(false, 5), Saw(at(5, 14)), Saw(at(4, 13))]),
            repeated,
        );
    }

    #[test]
    fn a_delivered_message_missing_in_the_log_is_found() {
        let gone = at(6, 15);
        caught(
            |history| {
                history.clients[ANA].events.push(sent(15));
                history.clients[EVA].events.push(Saw(gone));
            },
            |fault| matches!(fault, Fault::DeliveredLost { message, .. } if *message == gone),
        );
    }

    #[test]
    fn a_stored_message_that_was_refused_is_found() {
        caught(
            |history| history.log.push(at(6, 20)),
            |fault| matches!(fault, Fault::RefusedStored { nonce: Nonce(20), .. }),
        );
    }

    #[test]
    fn a_refused_message_is_stored_only_after_it_is_sent_again() {
        // Ben's 22 is refused while his later 23 is stored; then 22 is sent again.
        let told = |history: &mut History, again: &[Event]| {
            let (six, seven) = (at(6, 23), at(7, 22));
            let ben = [&[sent(22), sent(23), Refused { nonce: Nonce(22) }, Acked(six), Saw(six)], again].concat();
            history.clients[BEN].events.extend(ben);
            history.clients[ANA].events.extend([Saw(six), Saw(seven)]);
            history.clients[EVA].events.extend([Saw(six), Saw(seven)]);
            history.log.extend([six, seven]);
        };
        let mut history = honest();
        told(&mut history, &[sent(22), Acked(at(7, 22)), Saw(at(7, 22))]);
        assert_eq!(check(&history), []);
        // Sent twice at once, and one of the sendings refused.
        let mut history = honest();
        told(&mut history, &[sent(22), sent(22), Refused { nonce: Nonce(22) }, Acked(at(7, 22)), Saw(at(7, 22))]);
        assert_eq!(check(&history), []);
        let is_it = |fault: &Fault| matches!(fault, Fault::RefusedStored { nonce: Nonce(22), .. });
        // It arrives before it is sent again; it is a duplicate although it was not stored; it is refused again.
        caught(|history| told(history, &[Saw(at(7, 22)), sent(22)]), is_it);
        caught(|history| told(history, &[sent(22), Duplicate(at(7, 22)), Saw(at(7, 22))]), is_it);
        caught(|history| told(history, &[sent(22), Refused { nonce: Nonce(22) }]), is_it);
        // A refusal does not excuse the order of other messages.
        caught(
            |history| {
                told(history, &[sent(22), Acked(at(7, 22)), Saw(at(7, 22))]);
                history.clients[BEN].events.retain(|event| *event != Refused { nonce: Nonce(22) });
            },
            |fault| {
                matches!(
                    fault,
                    Fault::Reordered { first: Nonce(23), second: Nonce(22), .. }
                        | Fault::Reordered { first: Nonce(22), second: Nonce(23), .. }
                )
            },
        );
    }

    #[test]
    fn a_wrong_reset_and_a_lost_identity_are_found() {
        caught(
            |history| {
                history.clients[EVA].events.push(Event::Joined { room: TEA, resumed: true, reset: true, head: 5 });
            },
            |fault| matches!(fault, Fault::Reset { .. }),
        );
        caught(
            |history| history.clients[ANA].events.push(connected(EVA)),
            |fault| matches!(fault, Fault::IdentityLost { client } if client == "Ana"),
        );
    }
}
