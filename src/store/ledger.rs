//! What an entry does. It is decided here once, for every storage, and it is deterministic: it reads the entry, its
//! moment and the state, never the clock, a random source or the environment.
//!
//! Runs on the store's thread, within the transaction of the batch. A message is checked before its first write, so a
//! refused one leaves nothing. A change has a savepoint: a refused one rolls back nothing but itself. A retry is
//! recognised before anything is refused.

use std::collections::HashSet;

use crate::auth::permission::{Action, PermissionContext, Target, is_slowed, may};
use crate::limits::STORED_GUESTS_CACHED_MAX;
use crate::model::reason::{Reason, Rejection};
use crate::model::{ConnectionId, FrameId, Nonce, RoomId, Seq, Timestamp, UserId};
use crate::protocol::{After, Body};

use super::entry::{Applied, Entry, Join, NewMessage, Outcome, Past, Principal, Proof, Proposal, ReplyTo, Stored};
use super::log::clock::Moment;
use super::message::{Message, encode_new};
use super::policy::PolicySnapshot;
use super::sqlite::{Connection, Fault, people};

mod changes;
mod presence;
#[cfg(test)]
mod property;

use presence::Presence;

/// Where a room's order stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoomRow {
    /// The storage's own key.
    pub key: i64,
    /// The last place taken.
    pub head: Seq,
    /// The last place that is forgotten.
    pub floor: Seq,
}

/// What the ledger needs of a storage of messages. Everything at or before a room's floor is not there.
pub trait Storage {
    /// The connection with accounts, sessions, settings and restrictions.
    fn people(&self) -> &Connection;

    fn room(&mut self, room: &RoomId) -> Result<Option<RoomRow>, Fault>;

    /// Stores a message at its place, and the room where there is none. False where its author has used the nonce
    /// before; then nothing is written.
    fn insert(&mut self, new: &NewMessage, row: Option<RoomRow>, stored: &Stored, wall_ms: u64) -> Result<bool, Fault>;

    /// The message that an author sent with a nonce.
    fn by_nonce(&mut self, author: UserId, nonce: &Nonce) -> Result<Option<Message>, Fault>;

    fn by_id(&mut self, room: &RoomId, row: RoomRow, id: FrameId) -> Result<Option<Message>, Fault>;

    /// Puts a message in the place of what it was, so that nothing of that is left.
    fn replace(&mut self, room: &RoomId, row: RoomRow, message: &Message, stored: &Stored) -> Result<(), Fault>;

    fn seq_of(&mut self, room: &RoomId, row: RoomRow, id: FrameId) -> Result<Option<Seq>, Fault>;

    fn past(&mut self, room: &RoomId, row: Option<RoomRow>) -> Result<Past, Fault>;

    /// Forgets a room's order up to a place.
    fn forget(&mut self, room: &RoomId, row: RoomRow, up_to: Seq) -> Result<(), Fault>;

    /// Forgets a room of which nothing is kept.
    fn forget_room(&mut self, room: &RoomId) -> Result<(), Fault>;
}

/// See the head of this file.
pub struct Ledger {
    policy: PolicySnapshot,
    presence: Presence,
    /// Guests whose session is stored, as far as is known.
    stored_guests: HashSet<UserId>,
    /// The place of the next frame within the batch.
    place: u32,
    /// The wall time of the batch.
    timestamp: Timestamp,
    json: Vec<u8>,
    /// What is to be logged when the batch is committed.
    lines: Vec<String>,
}

impl Ledger {
    #[must_use]
    pub fn new(policy: PolicySnapshot) -> Self {
        Self {
            policy,
            presence: Presence::default(),
            stored_guests: HashSet::new(),
            place: 0,
            timestamp: Timestamp::at(0),
            json: Vec::new(),
            lines: Vec::new(),
        }
    }

    #[must_use]
    pub fn policy(&self) -> &PolicySnapshot {
        &self.policy
    }

    /// How many connections are in a room.
    pub fn connections(&self, room: &RoomId) -> usize {
        self.presence.connections(room)
    }

    /// What is to be logged of the entries that were applied.
    pub fn take_lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }

    /// Applies a batch of the log.
    ///
    /// # Errors
    /// Where the storage fails. Then the transaction is to be rolled back, and [`restored`](Self::restored) to be
    /// called with what the database has.
    pub fn apply<S: Storage>(
        &mut self,
        storage: &mut S,
        batch: &[Proposal],
        moment: &Moment,
    ) -> Result<Vec<Applied>, Fault> {
        self.place = 0;
        self.timestamp = moment.timestamp();
        self.forget_ended(moment);
        let mut applied = Vec::with_capacity(batch.len());
        for Proposal { entry, reply_to } in batch {
            let result = match entry {
                Entry::Message(new) => self.message(storage, new, moment)?,
                Entry::Announcement { rooms, message } => {
                    let first = self.message(storage, message, moment)?;
                    if matches!(first, Outcome::Stored { .. }) {
                        applied.push(Applied { result: first, reply_to: reply_to.clone() });
                        for room in rooms.iter().skip(1) {
                            let result = self.message(storage, &message.copy_in(room), moment)?;
                            applied.push(Applied { result, reply_to: ReplyTo::Nobody });
                        }
                        continue;
                    }
                    first
                }
                Entry::Join(join) => self.join(storage, join, moment)?,
                Entry::Leave { room, user, connection } => self.leave(room, *user, *connection),
                Entry::Change { by, change } => self.change(storage, by, change, moment)?,
            };
            applied.push(Applied { result, reply_to: reply_to.clone() });
        }
        Ok(applied)
    }

    /// Begins a transaction.
    pub fn begin(&mut self) {
        self.presence.begin();
    }

    /// Takes everything back to the beginning of the transaction, where it was rolled back. `policy` is that of then.
    pub fn restored(&mut self, policy: PolicySnapshot) {
        self.policy = policy;
        self.presence.roll_back();
        self.stored_guests.clear();
        self.lines.clear();
    }

    /// The results of a batch that could not be stored. People enter and leave all the same.
    pub fn refuse<S: Storage>(
        &mut self,
        storage: &mut S,
        batch: Vec<Proposal>,
        moment: &Moment,
        reason: Reason,
    ) -> Vec<Applied> {
        let why = || Rejection::from(reason).retry_after(1_000);
        let refused = batch.into_iter().map(|Proposal { entry, reply_to }| {
            let result = match entry {
                // It may be the retry of one that was stored: that it is not would be wrong.
                Entry::Message(new) | Entry::Announcement { message: new, .. } => {
                    self.sent_before(storage, &new).ok().flatten().unwrap_or_else(|| refused(&new, why()))
                }
                Entry::Join(join) => {
                    // What can't be checked is not allowed.
                    let may = self.may_join(storage, &join, moment).unwrap_or(Err(Reason::Busy));
                    if let Err(reason) = may {
                        let result = Outcome::JoinRefused { room: join.room, rejection: reason.into() };
                        return Applied { result, reply_to };
                    }
                    let row = storage.room(&join.room).ok().flatten();
                    // Reading goes on. What can't be read now, the next to enter asks for again.
                    let past = if join.known.is_none() { storage.past(&join.room, row).ok() } else { None };
                    let seen = seen(storage, &join, row).ok().flatten();
                    self.enter(&join, row);
                    Outcome::Joined { room: join.room, past, seen }
                }
                Entry::Leave { room, user, connection } => self.leave(&room, user, connection),
                Entry::Change { .. } => Outcome::Refused {
                    room: None,
                    rejection: Reason::Busy.because("the change can't be stored now").retry_after(1_000),
                    nonce: None,
                },
            };
            Applied { result, reply_to }
        });
        refused.collect()
    }

    fn next_id(&mut self, moment: &Moment) -> FrameId {
        let id = moment.frame_id(self.place);
        self.place += 1;
        id
    }

    fn message<S: Storage>(&mut self, storage: &mut S, new: &NewMessage, moment: &Moment) -> Result<Outcome, Fault> {
        let row = storage.room(&new.room)?;
        let checked = match &new.unless_stored {
            Some(rejection) => Err(Rejection::clone(rejection)),
            None => self.check(storage, new, row, moment)?,
        };
        let target = match checked {
            Ok(target) => target,
            // A retry may come when what it was about has gone, or when it would not be taken any more.
            Err(rejection) => {
                return Ok(self.sent_before(storage, new)?.unwrap_or_else(|| refused(new, rejection)));
            }
        };
        let seq = self.head(&new.room, row).next();
        let id = self.next_id(moment);
        let stored = encode_new(new, id, seq, &self.timestamp, &mut self.json);
        if !storage.insert(new, row, &stored, moment.wall_ms)? {
            // Only a nonce can stand in the way.
            return Ok(self.sent_before(storage, new)?.unwrap_or_else(|| refused(new, Reason::NotStored.into())));
        }
        self.note_author(storage, new, moment)?;
        let changed = match target {
            Some(mut changed) => {
                changed.apply(&new.body, moment.wall_ms);
                let frame = changed.stored(false, &mut self.json);
                let row = RoomRow { head: seq, ..row.unwrap_or_default() };
                storage.replace(&new.room, row, &changed, &frame)?;
                self.lines.push(format!("{} has deleted message {} in {}", new.author.user(), frame.id, new.room));
                Some(frame)
            }
            None => None,
        };
        Ok(Outcome::Stored { room: new.room.clone(), stored, changed })
    }

    /// Whether a message may be stored if it is new. Gives the message that it changes, where it changes one.
    fn check<S: Storage>(
        &mut self,
        storage: &mut S,
        new: &NewMessage,
        row: Option<RoomRow>,
        moment: &Moment,
    ) -> Result<Result<Option<Message>, Rejection>, Fault> {
        let NewMessage { room, author, body, .. } = new;
        let may = |target, action| {
            let room = if action == Action::Announce { None } else { Some(room) };
            self.policy.may(author, action, room, target, moment.clock_ms)
        };
        let action = match body {
            Body::Text { .. } => Action::Say,
            Body::Announcement { .. } => Action::Announce,
            Body::Delete { .. } => Action::Delete,
        };
        let role = match may(Target::Own, action) {
            Ok(role) => role,
            Err(reason) => return Ok(Err(reason.into())),
        };
        // An announcement is for all rooms, so its author needs to be in none.
        if new.is_member && action != Action::Announce && self.presence.is_kicked(room, author.user()) {
            return Ok(Err(Reason::Kicked.into()));
        }
        if action == Action::Say
            && is_slowed(role)
            && let Some(slow_mode_s) = self.policy.room(room).map(|settings| settings.slow_mode_s).filter(|s| *s > 0)
            && let Some(last) = people::spoke(storage.people(), room, author.user())?
        {
            let left_ms = (last + u64::from(slow_mode_s) * 1_000).saturating_sub(moment.clock_ms);
            if left_ms > 0 {
                let sentence = format!("slow mode: one message in {slow_mode_s} s here");
                return Ok(Err(Reason::SlowMode.because(sentence).retry_after(left_ms)));
            }
        }
        if let Some(answered) = body.reply_to() {
            let seq = match row {
                Some(row) => storage.seq_of(room, row, answered)?,
                None => None,
            };
            if seq.is_none() {
                return Ok(Err(Reason::NoSuchReply.into()));
            }
        }
        let Some(message_id) = body.message_id() else { return Ok(Ok(None)) };
        let message = match row {
            Some(row) => storage.by_id(room, row, message_id)?,
            None => None,
        };
        // What is no message, or was deleted, can't be deleted.
        let Some(message) = message.filter(Message::is_there) else { return Ok(Err(Reason::NoSuchMessage.into())) };
        let is_own = message.author.id == author.user();
        // Whose the message is otherwise, makes no difference.
        let target = if is_own { Target::Own } else { Target::Others(crate::role::Role::Guest) };
        Ok(may(target, action).map(|_| Some(message)).map_err(Rejection::from))
    }

    /// What a stored message leaves of its author: a guest's session, and the time that slow mode counts from.
    fn note_author<S: Storage>(&mut self, storage: &S, new: &NewMessage, moment: &Moment) -> Result<(), Fault> {
        let NewMessage { room, author, body, .. } = new;
        if let Proof::SignedGuest { issued_ms } = author.proof {
            self.store_guest(storage, author.user(), issued_ms, None, moment)?;
        }
        if matches!(body, Body::Text { .. }) && self.policy.room(room).is_some_and(|settings| settings.slow_mode_s > 0)
        {
            people::note_spoke(storage.people(), room, author.user(), moment.clock_ms)?;
        }
        Ok(())
    }

    /// Stores the session of a guest who has a signed token, where it is not stored yet.
    fn store_guest<S: Storage>(
        &mut self,
        storage: &S,
        user: UserId,
        issued_ms: u64,
        username: Option<&crate::model::Username>,
        moment: &Moment,
    ) -> Result<(), Fault> {
        // A name is stored with it, where there is none yet: that is seen in the database alone.
        if username.is_none() && self.stored_guests.contains(&user) {
            return Ok(());
        }
        people::store_guest(storage.people(), user, issued_ms, username, moment)?;
        if self.stored_guests.len() >= STORED_GUESTS_CACHED_MAX {
            self.stored_guests.clear();
        }
        self.stored_guests.insert(user);
        Ok(())
    }

    /// The answer to a message whose author has used its nonce before; nothing where it is new.
    fn sent_before<S: Storage>(&mut self, storage: &mut S, new: &NewMessage) -> Result<Option<Outcome>, Fault> {
        let Some(nonce) = &new.nonce else { return Ok(None) };
        let before = storage.by_nonce(new.author.user(), nonce)?;
        Ok(before.map(|before| {
            if before.says_the_same(new) {
                Outcome::Duplicate(before.stored(true, &mut self.json))
            } else {
                refused(new, Reason::NonceUsed.into())
            }
        }))
    }

    fn join<S: Storage>(&mut self, storage: &mut S, join: &Join, moment: &Moment) -> Result<Outcome, Fault> {
        let Join { room, known, .. } = join;
        if let Err(reason) = self.may_join(storage, join, moment)? {
            return Ok(Outcome::JoinRefused { room: room.clone(), rejection: reason.into() });
        }
        let row = storage.room(room)?;
        let past = match known {
            Some(_) => None,
            None => Some(Past { head: self.head(room, row), ..storage.past(room, row)? }),
        };
        let seen = seen(storage, join, row)?;
        self.enter(join, row);
        Ok(Outcome::Joined { room: room.clone(), past, seen })
    }

    fn may_join<S: Storage>(&self, storage: &S, join: &Join, moment: &Moment) -> Result<Result<(), Reason>, Fault> {
        let Join { room, principal, looks, .. } = join;
        if let Err(reason) = self.policy.may(principal, Action::Enter, Some(room), Target::Own, moment.clock_ms) {
            return Ok(Err(reason));
        }
        if principal.is_guest()
            && self.policy.has_accounts()
            && let Some(looks) = looks
            && people::resembling(storage.people(), looks)?.is_some()
        {
            return Ok(Err(Reason::NameReserved));
        }
        Ok(Ok(()))
    }

    /// Where a room's order stands.
    fn head(&self, room: &RoomId, row: Option<RoomRow>) -> Seq {
        row.unwrap_or_default().head.max(self.presence.seen_head(room))
    }

    fn enter(&mut self, join: &Join, row: Option<RoomRow>) {
        self.presence.enter(&join.room, join.principal.user(), join.connection);
        if let Some(known) = join.known
            && known > self.head(&join.room, row)
        {
            self.presence.see_head(&join.room, known);
        }
    }

    fn leave(&mut self, room: &RoomId, user: UserId, connection: ConnectionId) -> Outcome {
        self.presence.leave(room, user, connection);
        Outcome::Left { room: room.clone() }
    }

    /// Forgets sessions whose end is so long ago that no entry of theirs can be on its way.
    fn forget_ended(&mut self, moment: &Moment) {
        if self.policy.ended.is_empty() {
            return;
        }
        let over = |(_, at): &(_, &u64)| **at + super::policy::ENDED_KEPT_MS <= moment.clock_ms;
        let over: Vec<_> = self.policy.ended.iter().filter(over).map(|(session, _)| *session).collect();
        for session in over {
            self.policy.ended.remove_mut(&session);
        }
    }

    /// What a client may do who has no session yet, or whose session does not count.
    fn may_as_guest(
        &self,
        principal: &Principal,
        action: Action,
        invited: bool,
        moment: &Moment,
    ) -> Result<(), Reason> {
        let role = self.policy.role(principal)?;
        let guest_of = principal.is_guest().then_some(principal.network);
        let context = self.policy.context(Some(principal.user()), guest_of, None, moment.clock_ms);
        may(role, action, &PermissionContext { invited, ..context })
    }
}

/// The place of the last frame that a client has seen, where it is kept.
fn seen<S: Storage>(storage: &mut S, join: &Join, row: Option<RoomRow>) -> Result<Option<Seq>, Fault> {
    match (row, join.after) {
        (Some(row), Some(After::Id(id))) => storage.seq_of(&join.room, row, id),
        _ => Ok(None),
    }
}

fn refused(new: &NewMessage, rejection: Rejection) -> Outcome {
    Outcome::Refused { room: Some(new.room.clone()), rejection, nonce: new.nonce.clone() }
}

/// What a change stops at.
#[derive(Debug)]
pub enum Stop {
    Refused(Rejection),
    Fault(Fault),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Reason> for Stop {
    fn from(reason: Reason) -> Self {
        Self::Refused(reason.into())
    }
}

/// What a change tells of itself, and what it means for open connections.
pub(super) type Made = (super::change::Done, Vec<super::entry::Event>);

#[cfg(test)]
mod tests;
