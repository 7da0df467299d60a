//! The ledger: what each entry does. It decides this in one place, for both storages, and it is deterministic. The
//! result depends on the entry, its moment and the state, never on the clock, a random source or the environment.
//!
//! It runs on the store's thread, within the transaction of the batch. A message is checked before its first write, so
//! a refused message leaves nothing behind. A change has a savepoint, so a refused change rolls back only itself. A
//! retry is recognised before any check that could refuse it.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::auth::name::Skeletons;
use crate::auth::permission::{Action, Target, is_slowed};
use crate::limits::STORED_GUESTS_CACHED_MAX;
use crate::model::reason::{Reason, Rejection};
use crate::model::role::Role;
use crate::model::{ConnectionId, FrameId, Nonce, RoomId, Seq, Timestamp, USERNAME_DEFAULT, UserId, Username};
use crate::protocol::{After, Body};

use super::entry::{
    Applied, Entry, Event, Join, NewMessage, Outcome, Past, Principal, Proof, Proposal, ReplyTo, Stored,
};
use super::log::clock::{Moment, Stored as Position};
use super::message::{Message, encode_new};
use super::policy::{ENDED_KEPT_MS, PolicySnapshot};
use super::sqlite::people::{self, AuditAction};
use super::sqlite::{Connection, Fault};

mod accounts;
mod audit;
mod changes;
mod names;
mod presence;
#[cfg(test)]
mod property;
mod rooms;
mod upkeep;

use presence::{Presence, Present};

/// A room's row: its key and the bounds of its order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoomRow {
    /// The storage's own key.
    pub key: i64,
    /// The highest seq assigned.
    pub head: Seq,
    /// The highest seq that is forgotten.
    pub floor: Seq,
}

impl RoomRow {
    /// The room as a reader with a floor of its own sees it.
    #[must_use]
    pub fn above(self, floor: Seq) -> Self {
        Self { floor: self.floor.max(floor), ..self }
    }
}

/// What a storage does with the bytes of a text that it erases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freed {
    /// It overwrites them. Soon they are in no file.
    Overwritten,
    /// It leaves them, until their space is used again.
    Left,
}

/// What the ledger needs from a storage of messages. A storage returns no frame at or below its room's floor.
pub trait Storage {
    /// The connection to accounts, sessions, settings and restrictions.
    fn people(&self) -> &Connection;

    fn room(&mut self, room: &RoomId) -> Result<Option<RoomRow>, Fault>;

    /// Stores a message at its seq, and the room if it is new. Returns false and writes nothing if the author has used
    /// the nonce before.
    fn insert(&mut self, new: &NewMessage, row: Option<RoomRow>, stored: &Stored, wall_ms: u64) -> Result<bool, Fault>;

    /// Finds the message that an author sent with a nonce.
    fn by_nonce(&mut self, author: UserId, nonce: &Nonce) -> Result<Option<Message>, Fault>;

    fn by_id(&mut self, room: &RoomId, row: RoomRow, id: FrameId) -> Result<Option<Message>, Fault>;

    /// The name of a user in the latest frame of it that is kept.
    fn author_name(&self, user: UserId) -> Result<Option<Username>, Fault>;

    /// Replaces a stored message by its form without a text.
    fn erase(&mut self, row: RoomRow, message: &Message, stored: &Stored, freed: Freed) -> Result<(), Fault>;

    fn seq_of(&mut self, room: &RoomId, row: RoomRow, id: FrameId) -> Result<Option<Seq>, Fault>;

    fn past(&mut self, room: &RoomId, row: Option<RoomRow>) -> Result<Past, Fault>;

    /// Forgets a room's frames up to a seq.
    fn forget(&mut self, room: &RoomId, row: RoomRow, up_to: Seq) -> Result<(), Fault>;

    /// Forgets all frames of a room. Its row is kept, so that its order goes on if its name is used again.
    fn delete_room(&mut self, room: &RoomId, row: RoomRow) -> Result<(), Fault>;

    /// Forgets a room without frames, unless it was deleted.
    fn forget_room(&mut self, room: &RoomId) -> Result<(), Fault>;

    /// Begins a transaction, if the storage has any and none has begun. It must come before the first write.
    fn begin(&mut self) -> Result<(), Fault>;

    /// Commits the transaction with the position of the log, if one has begun.
    ///
    /// # Errors
    /// [`Fault`]; the transaction must then be rolled back.
    fn commit(&mut self, position: Position) -> Result<(), Fault>;

    /// Rolls back what was not committed. Returns the policy that holds then. `before` is the policy at the beginning
    /// of the transaction.
    fn roll_back(&mut self, before: PolicySnapshot, clock_ms: u64) -> PolicySnapshot;
}

pub struct Ledger {
    policy: PolicySnapshot,
    presence: Presence,
    /// Guests whose session is known to be stored.
    stored_guests: HashSet<UserId>,
    /// The place of the next frame within the batch.
    place: u32,
    moment: Moment,
    /// The batch's wall time, as frames show it.
    timestamp: Timestamp,
    json: Vec<u8>,
    /// The effects of the current change on open connections.
    events: Vec<Event>,
    /// The log lines of the transaction. A rollback clears them.
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
            moment: Moment { clock_ms: 0, wall_ms: 0, index: 0, ahead_ms: 0 },
            timestamp: Timestamp::at(0),
            json: Vec::new(),
            events: Vec::new(),
            lines: Vec::new(),
        }
    }

    #[must_use]
    pub fn policy(&self) -> &PolicySnapshot {
        &self.policy
    }

    /// The number of connections in a room.
    pub fn connections(&self, room: &RoomId) -> usize {
        self.presence.connections(room)
    }

    /// Takes the log lines of the entries that were applied.
    pub fn take_lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }

    /// Applies a batch of the log.
    ///
    /// # Errors
    /// [`Fault`], if the storage fails. The caller must then roll back the transaction and call
    /// [`restored`](Self::restored) with the policy that the database has.
    pub fn apply(
        &mut self,
        storage: &mut impl Storage,
        batch: &[Proposal],
        moment: &Moment,
    ) -> Result<Vec<Applied>, Fault> {
        self.place = 0;
        self.moment = *moment;
        self.timestamp = moment.timestamp();
        self.forget_ended();
        let mut applied = Vec::with_capacity(batch.len());
        for Proposal { entry, reply_to } in batch {
            let result = match entry {
                Entry::Message(message) | Entry::Announcement { message, .. } => self.message(storage, message)?,
                Entry::Join(join) => self.join(storage, join)?,
                Entry::Leave { room, user, connection } => self.leave(room, *user, *connection),
                Entry::Change { by, change } => self.change(storage, by, change)?,
            };
            let is_stored = matches!(result, Outcome::Stored { .. });
            applied.push(Applied { result, reply_to: reply_to.clone() });
            if let Entry::Announcement { rooms, message } = entry
                && is_stored
            {
                let sent = AuditAction::Announce.audited().detail(format_args!("rooms {}", rooms.len()));
                self.audit(storage.people(), Some(message.author.person.author()), sent)?;
                for room in rooms.iter().skip(1) {
                    let copy = NewMessage { room: room.clone(), nonce: None, ..message.clone() };
                    let result = self.message(storage, &copy)?;
                    applied.push(Applied { result, reply_to: ReplyTo::None });
                }
            }
        }
        Ok(applied)
    }

    /// Begins a transaction.
    pub fn begin(&mut self) {
        self.presence.begin();
    }

    /// Restores the state at the beginning of the transaction, after a rollback. `policy` is the policy that holds
    /// then.
    pub fn restored(&mut self, policy: PolicySnapshot) {
        self.policy = policy;
        self.presence.roll_back();
        self.stored_guests.clear();
        self.lines.clear();
    }

    /// Returns the results of a batch that could not be stored. Joins and leaves still take effect.
    pub fn refuse(
        &mut self,
        storage: &mut impl Storage,
        batch: Vec<Proposal>,
        moment: &Moment,
        reason: Reason,
    ) -> Vec<Applied> {
        self.moment = *moment;
        let refuse = |Proposal { entry, reply_to }| {
            let result = match entry {
                // The message may be a retry of a stored message. Then the answer must not be that it is not stored.
                Entry::Message(new) | Entry::Announcement { message: new, .. } => {
                    let sent_before = self.sent_before(storage, &new).ok().flatten();
                    sent_before.unwrap_or_else(|| refused(&new, Rejection::from(reason).retry_after(1_000)))
                }
                Entry::Join(join) => match self.may_join(storage, &join) {
                    // Reading goes on. If the room's past can't be read now, the next join requests it again.
                    Ok(false) => {
                        let position = self.history_position(storage, &join).unwrap_or_default();
                        self.enter(&join, position, Vec::new())
                    }
                    Ok(true) => Outcome::JoinRefused { room: join.room, rejection: Reason::Busy.into() },
                    Err(Stop::Refused(rejection)) => Outcome::JoinRefused { room: join.room, rejection },
                    // A join that can't be checked is not allowed.
                    Err(Stop::Fault(_)) => Outcome::JoinRefused { room: join.room, rejection: Reason::Busy.into() },
                },
                Entry::Leave { room, user, connection } => self.leave(&room, user, connection),
                Entry::Change { .. } => Outcome::Refused {
                    room: None,
                    rejection: Reason::Busy.because("the change could not be stored").retry_after(1_000),
                    nonce: None,
                },
            };
            Applied { result, reply_to }
        };
        batch.into_iter().map(refuse).collect()
    }

    fn message(&mut self, storage: &mut impl Storage, new: &NewMessage) -> Result<Outcome, Fault> {
        let new = &*self.under_current_name(new);
        let row = storage.room(&new.room)?;
        let checked = match &new.unless_stored {
            Some(rejection) => Err(Stop::Refused(Rejection::clone(rejection))),
            None => self.check(storage, new, row),
        };
        let target = match checked {
            Ok(target) => target,
            // A retry is answered even if its target is gone, or if the same message would be refused now.
            Err(Stop::Refused(rejection)) => {
                return Ok(self.sent_before(storage, new)?.unwrap_or_else(|| refused(new, rejection)));
            }
            Err(Stop::Fault(fault)) => return Err(fault),
        };
        let Some(stored) = self.append(storage, new, row)? else {
            return Ok(self.sent_before(storage, new)?.unwrap_or_else(|| refused(new, Reason::NotStored.into())));
        };
        let seq = stored.seq;
        self.note_author(storage.people(), new)?;
        let changed = match target {
            Some(mut changed) => {
                changed.apply(&new.body, self.moment.wall_ms);
                let frame = changed.stored(false, &mut self.json);
                let row = RoomRow { head: seq, ..row.unwrap_or_default() };
                storage.erase(row, &changed, &frame, Freed::Overwritten)?;
                self.audit_deletion(storage.people(), new, &changed)?;
                Some(frame)
            }
            None => None,
        };
        Ok(Outcome::Stored { room: new.room.clone(), stored, changed })
    }

    /// Stores a frame at the end of its room. Returns `None` if its author has used the nonce before.
    fn append(
        &mut self,
        storage: &mut impl Storage,
        new: &NewMessage,
        row: Option<RoomRow>,
    ) -> Result<Option<Stored>, Fault> {
        let (id, seq) = (self.moment.frame_id(self.place), self.head(&new.room, row).next());
        self.place += 1;
        let stored = encode_new(new, id, seq, &self.timestamp, &mut self.json);
        Ok(storage.insert(new, row, &stored, self.moment.wall_ms)?.then_some(stored))
    }

    /// Checks whether a message may be stored if it is new. Returns the message that it changes, if any.
    fn check(
        &mut self,
        storage: &mut impl Storage,
        new: &NewMessage,
        row: Option<RoomRow>,
    ) -> Result<Option<Message>, Stop> {
        let NewMessage { room, author, body, .. } = new;
        let clock_ms = self.moment.clock_ms;
        let (action, in_room) = match body {
            Body::Text { .. } => (Action::Post, Some(room)),
            // An announcement is for all rooms, so its author needs to be in none.
            Body::Announcement { .. } => (Action::Announce, None),
            Body::Delete { .. } => (Action::Delete, Some(room)),
            Body::Rename { .. } => return Err(Reason::NotAdmin.into()),
        };
        let role = self.policy.may(author, action, in_room, Target::Own, clock_ms)?;
        if new.is_member && in_room.is_some() && self.presence.is_kicked(room, author.user()) {
            return Err(Reason::Kicked.into());
        }
        if action == Action::Post
            && is_slowed(role)
            && let Some(slow_mode_s) = self.slow_mode_s(room)
            && let Some(last) = people::last_message_ms(storage.people(), room, self.slow_mode_user(author))?
        {
            let left_ms = (last + u64::from(slow_mode_s) * 1_000).saturating_sub(clock_ms);
            if left_ms > 0 {
                let left_s = left_ms.div_ceil(1_000);
                let sentence = format!("slow mode: one message per {slow_mode_s} s in this room, retry in {left_s} s");
                return Err(Stop::Refused(Reason::SlowMode.because(sentence).retry_after(left_ms)));
            }
        }
        // What the author may not read is not there for it.
        let floor = self.policy.floor(room, author.user());
        if let Some(answered) = body.reply_to() {
            let row = row.ok_or(Reason::NoSuchReply)?;
            storage.seq_of(room, row, answered)?.filter(|seq| *seq > floor).ok_or(Reason::NoSuchReply)?;
        }
        let Some(message_id) = body.message_id() else { return Ok(None) };
        let row = row.ok_or(Reason::NoSuchMessage)?;
        // Only a message that is not yet deleted can be deleted.
        let message = storage.by_id(room, row, message_id)?.filter(|message| message.is_there() && message.seq > floor);
        let message = message.ok_or(Reason::NoSuchMessage)?;
        let is_own = message.user == author.user();
        // If the message is not the author's own, it does not matter which user sent it.
        let target = if is_own { Target::Own } else { Target::Others(Role::Guest) };
        self.policy.may(author, action, in_room, target, clock_ms)?;
        Ok(Some(message))
    }

    /// The user that slow mode counts for. All clients of a network without a token are one, whatever their names.
    fn slow_mode_user(&self, author: &Principal) -> UserId {
        match author.proof {
            Proof::None => self.policy.guest_key.user_without_token(author.network, None),
            Proof::Guest(_) | Proof::SignedGuest { .. } | Proof::Account(_) => author.user(),
        }
    }

    /// The slow mode of a room, if it is on.
    fn slow_mode_s(&self, room: &RoomId) -> Option<u32> {
        self.policy.room(room).map(|settings| settings.slow_mode_s).filter(|slow_mode_s| *slow_mode_s > 0)
    }

    /// Stores what follows from a new message for its author: a guest's session, and the time that slow mode counts
    /// from.
    fn note_author(&mut self, connection: &Connection, new: &NewMessage) -> Result<(), Fault> {
        let NewMessage { room, author, body, .. } = new;
        if let Proof::SignedGuest { issued_ms } = author.proof {
            self.store_guest(connection, author.user(), issued_ms, None)?;
        }
        if matches!(body, Body::Text { .. }) && self.slow_mode_s(room).is_some() {
            people::note_message(connection, room, self.slow_mode_user(author), self.moment.clock_ms)?;
        }
        Ok(())
    }

    /// Stores the session of a guest with a signed token, if it is not stored yet.
    fn store_guest(
        &mut self,
        connection: &Connection,
        user: UserId,
        issued_ms: u64,
        username: Option<&Username>,
    ) -> Result<(), Fault> {
        // A username is stored too, if the session has none yet. Only the database knows that.
        if username.is_none() && self.stored_guests.contains(&user) {
            return Ok(());
        }
        people::store_guest(connection, user, issued_ms, username, &self.moment)?;
        if self.stored_guests.len() >= STORED_GUESTS_CACHED_MAX {
            self.stored_guests.clear();
        }
        self.stored_guests.insert(user);
        Ok(())
    }

    /// Returns the answer to a message whose nonce its author has used before; `None` if the message is new.
    fn sent_before(&mut self, storage: &mut impl Storage, new: &NewMessage) -> Result<Option<Outcome>, Fault> {
        let Some(nonce) = &new.nonce else { return Ok(None) };
        let before = storage.by_nonce(new.author.user(), nonce)?;
        Ok(before.map(|before| {
            if before.has_same_content(new) {
                Outcome::Duplicate(before.stored(true, &mut self.json))
            } else {
                refused(new, Reason::NonceUsed.into())
            }
        }))
    }

    fn join(&mut self, storage: &mut impl Storage, join: &Join) -> Result<Outcome, Fault> {
        match self.may_join(storage, join) {
            Ok(admits_self) => {
                let mut events = Vec::new();
                events.extend(self.rename_for_join(storage, join)?.map(Event::Renamed));
                if admits_self {
                    events.extend(self.admit(storage, &join.room, &join.principal)?);
                }
                let position = self.history_position(storage, join)?;
                Ok(self.enter(join, position, events))
            }
            Err(Stop::Refused(rejection)) => Ok(Outcome::JoinRefused { room: join.room.clone(), rejection }),
            Err(Stop::Fault(fault)) => Err(fault),
        }
    }

    /// Checks a join. Returns whether it makes the client a member of a private room.
    fn may_join(&self, storage: &impl Storage, join: &Join) -> Result<bool, Stop> {
        let Join { room, principal, skeletons, .. } = join;
        let may = |action| self.policy.may(principal, action, Some(room), Target::Own, self.moment.clock_ms);
        let admits_self = match may(Action::Enter) {
            Err(Reason::NotMember) => may(Action::AdmitSelf).map(|_| true)?,
            entered => entered.map(|_| false)?,
        };
        if principal.is_guest()
            && self.policy.has_accounts()
            && principal.person.username.as_str() != USERNAME_DEFAULT
            && self.has_new_name(join)
        {
            // A client that has connected before there were accounts has none.
            let skeletons =
                skeletons.as_ref().map_or_else(|| Cow::Owned(Skeletons::of(&principal.person.username)), Cow::Borrowed);
            if people::resembling(storage.people(), &skeletons)?.is_some() {
                return Err(Reason::NameReserved.into());
            }
        }
        Ok(admits_self)
    }

    fn history_position(&self, storage: &mut impl Storage, join: &Join) -> Result<HistoryPosition, Fault> {
        let room = &join.room;
        let row = storage.room(room)?;
        let head = self.head(room, row);
        let past = match join.known {
            Some(_) => None,
            None => Some(Past { head, ..storage.past(room, row)? }),
        };
        let seen = match (row, join.after) {
            (Some(row), Some(After::Id(id))) => storage.seq_of(room, row, id)?,
            _ => None,
        };
        Ok(HistoryPosition { head, past, seen })
    }

    fn enter(
        &mut self,
        join: &Join,
        HistoryPosition { head, past, seen }: HistoryPosition,
        events: Vec<Event>,
    ) -> Outcome {
        self.presence.enter(&join.room, &join.principal, join.connection);
        let asked = &join.principal.person.username;
        let present = self.presence.user(join.principal.user()).map(Present::username);
        let username = present.filter(|username| *username != asked).cloned();
        if let Some(known) = join.known.filter(|known| *known > head) {
            self.presence.see_head(&join.room, known);
        }
        Outcome::Joined { room: join.room.clone(), past, seen, username, events }
    }

    /// The room's head, or a higher seq that its connections have seen.
    fn head(&self, room: &RoomId, row: Option<RoomRow>) -> Seq {
        row.unwrap_or_default().head.max(self.presence.seen_head(room))
    }

    fn leave(&mut self, room: &RoomId, user: UserId, connection: ConnectionId) -> Outcome {
        self.presence.leave(room, user, connection);
        Outcome::Left { room: room.clone() }
    }

    /// Forgets ended sessions that are so old that no entry of theirs can be in flight.
    fn forget_ended(&mut self) {
        if self.policy.ended.is_empty() {
            return;
        }
        let is_over = |at_ms: &u64| at_ms + ENDED_KEPT_MS <= self.moment.clock_ms;
        let ended = self.policy.ended.iter();
        let over: Vec<_> = ended.filter(|(_, at_ms)| is_over(at_ms)).map(|(session, _)| *session).collect();
        for session in over {
            self.policy.ended.remove_mut(&session);
        }
    }
}

/// Where a joining connection stands in the room's history.
#[derive(Default)]
struct HistoryPosition {
    head: Seq,
    past: Option<Past>,
    /// The seq of the last frame that the client has seen, if the frame is kept.
    seen: Option<Seq>,
}

fn refused(new: &NewMessage, rejection: Rejection) -> Outcome {
    Outcome::Refused { room: Some(new.room.clone()), rejection, nonce: new.nonce.clone() }
}

/// Why an entry is not applied: it is refused, or the storage failed.
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

#[cfg(test)]
mod tests;
