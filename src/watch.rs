//! Makes what another process has changed of people, as the operator's commands do beside a server, hold for those who
//! are here.
//!
//! A thread of its own: the store does not know who is here, and the hub, which does, reads no database.

use std::collections::HashMap;
use std::io;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::hub::{Busy, Directory, Handle, Order, Roll};
use crate::limits::{DOOR_ANSWER_WAIT, STORE_STACK_BYTES};
use crate::model::Timestamp;
use crate::moderation::Turns;
use crate::role::Role;
use crate::store::accounts;
use crate::store::{Registry, RegistryError};
use crate::threads::{Vital, yield_to_the_hub};

/// From one look for a change to the next: it reads one row, and what is changed is to hold within a second.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// When those who are here are looked up once more behind a change: who was let in just before it may come to the hub
/// just behind the first look.
const LATE_AFTER: Duration = DOOR_ANSWER_WAIT.saturating_add(Duration::from_secs(1));
/// How much less urgent than the hub and the store it is: a crowd is looked up in a good part of a second.
const NICE: i32 = 5;

/// A thread that watches.
#[derive(Debug)]
pub struct Watch {
    /// Nothing is ever sent: its end is the thread's.
    open: Sender<()>,
    thread: JoinHandle<()>,
}

impl Watch {
    /// Starts it. Where people are in memory there is nothing to see, and it ends at once.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn start(registry: Registry, hub: Handle, turns: Turns) -> io::Result<Self> {
        let (open, closed) = bounded(0);
        let builder = thread::Builder::new().name("watch".into()).stack_size(STORE_STACK_BYTES);
        let thread = builder.spawn(move || {
            let _vital = Vital("watch");
            yield_to_the_hub(NICE);
            if !registry.is_in_memory() {
                run(&closed, &registry, &hub, &turns);
            }
        })?;
        Ok(Self { open, thread })
    }

    /// Ends it, behind the look that it is at; one that waits for the hub beyond the deadline is left to itself.
    pub fn stop(self, deadline: Instant) {
        drop(self.open);
        while !self.thread.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

fn run(closed: &Receiver<()>, registry: &Registry, hub: &Handle, turns: &Turns) {
    // Nothing, so that what is changed while the server starts is not missed.
    let mut seen = None;
    let mut late_at: Option<Instant> = None;
    while closed.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
        // What there was no time for is tried again.
        let Ok(changes) = registry.read(accounts::changes_beside) else { continue };
        let is_new = seen != Some(changes);
        let is_late = late_at.is_some_and(|at| at <= Instant::now());
        if (is_new || is_late) && reconcile(registry, hub, turns).is_ok() {
            seen = Some(changes);
            late_at = is_new.then(|| Instant::now() + LATE_AFTER);
        }
    }
}

/// There was no time for it now.
struct TooBusy;

impl From<Busy> for TooBusy {
    fn from(_: Busy) -> Self {
        Self
    }
}

impl From<RegistryError> for TooBusy {
    fn from(_: RegistryError) -> Self {
        Self
    }
}

/// Compares those who are here with what is kept, and orders what differs.
fn reconcile(registry: &Registry, hub: &Handle, turns: &Turns) -> Result<(), TooBusy> {
    // What is read here must not be older than what another orders meanwhile.
    let _turn = turns.take();
    for order in differences(registry, &hub.roll()?)? {
        hub.order(order)?;
    }
    Ok(())
}

fn differences(registry: &Registry, roll: &Roll) -> Result<Vec<Order>, RegistryError> {
    let now = Timestamp::now();
    registry.read(|connection| {
        let (mut over, mut roles) = (Vec::new(), HashMap::new());
        for (key, known) in &roll.sessions {
            match accounts::session_of_key(connection, *key, &now)? {
                // No command ends a guest's session: it was forgotten while they were here, and they may stay.
                None if known.role == Role::Guest => {}
                None => {
                    log::info!("session {} of {} is over, by another process", key.0, known.user);
                    over.push(*key);
                }
                // A key may be another's by now.
                Some(session) if session.user != known.user => over.push(*key),
                Some(session) if session.role != known.role => drop(roles.insert(known.user, session.role)),
                Some(_) => {}
            }
        }
        let mut orders = Vec::new();
        if !over.is_empty() {
            orders.push(Order::EndSessions(over));
        }
        for (user, role) in roles {
            log::info!("{user} is of role {role} now, by another process");
            orders.push(Order::SetRole { user, role });
        }
        // Whoever becomes an admin is muted no longer.
        for user in roll.muted.iter().copied() {
            if accounts::muted_until(connection, user, &now)?.is_none() {
                orders.push(Order::Mute { user, until_ms: 0 });
            }
        }
        Ok(orders)
    })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::hub::Known;
    use crate::model::{UserId, Username};
    use crate::store::TokenHash;
    use crate::store::accounts::{Account, NewSession, SessionKey, SessionKind};

    #[test]
    fn what_differs_is_ordered_and_nothing_else() {
        let registry = Registry::in_memory().unwrap();
        let user = |number: u128| UserId(Uuid::from_u128(number));
        let begin = |number: u128, name: &str, role: Role| {
            let account =
                Account { id: user(number), name: Username::parse(name).unwrap(), role, password: None, created_ms: 0 };
            let change = move |connection: &_| {
                accounts::create(connection, &account)?;
                let (token_hash, kind) = (TokenHash::of(&number.to_string()), SessionKind::Login);
                let new =
                    NewSession { token_hash, user: account.id, kind, username: None, label: "", expires_ms: None };
                Ok(accounts::begin_session(connection, &new, &Timestamp::now())?)
            };
            registry.change(change).unwrap()
        };
        let same = begin(1, "ana", Role::User);
        let raised = begin(2, "rahim", Role::Admin);
        let lowered = begin(3, "karim", Role::User);
        let removed = SessionKey(99);
        let until_ms = Timestamp::now().unix_ms + 60_000;
        let mute = move |connection: &_| Ok(accounts::mute(connection, user(1), until_ms, user(9), &Timestamp::now())?);
        registry.change(mute).unwrap();
        let known =
            [(same, 1, Role::User), (raised, 2, Role::User), (lowered, 3, Role::Admin), (removed, 4, Role::User)];
        let sessions = known.map(|(key, number, role)| (key, Known { user: user(number), role })).into();
        let roll = Roll { sessions, muted: vec![user(1), user(2)] };
        let mut orders: Vec<_> =
            differences(&registry, &roll).unwrap().iter().map(|order| format!("{order:?}")).collect();
        orders.sort();
        let role = |number: u128, role: Role| format!("{:?}", Order::SetRole { user: user(number), role });
        let expected = [
            format!("{:?}", Order::EndSessions(vec![removed])),
            format!("{:?}", Order::Mute { user: user(2), until_ms: 0 }),
            role(2, Role::Admin),
            role(3, Role::User),
        ];
        assert_eq!(orders, expected);
    }
}
