//! The storage of `:memory:`: the latest frames of each room, and each room's head and floor.
//!
//! It gives the same guarantees as the database while the process lives, with less work per message. The operator's
//! retention, a number of frames per room and a total of bytes bound it. Beyond that total, the largest rooms lose their
//! oldest frames. The store's thread writes it under a lock, and readers read it under the same lock.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use crate::config::Keep;
use crate::limits::{EVENTS_KEPT_MAX, HISTORY_MAX, KEPT_BYTES_MAX, MEMORY_FRAMES_AT_ONCE};
use crate::model::{FrameId, Nonce, RoomId, Seq, UserId, Username};

use super::change::Change;
use super::entry::{NewMessage, Past, Stored};
use super::ledger::{Freed, RoomRow, Storage};
use super::log::clock::Stored as Position;
use super::message::Message;
use super::policy::PolicySnapshot;
use super::sqlite::{Connection, Fault, people};
use super::terms::Terms;
use super::{KeptRoom, PageLimit, Side, locked};

/// The approximate size of a frame beside its JSON, with its share of the room's bookkeeping.
const FRAME_OVERHEAD_BYTES: usize = 768;
/// What the frame of a message says when its text is erased: when that was.
const ERASED_BYTES: usize = 64;

#[derive(Debug)]
pub struct Memory {
    rooms: BTreeMap<RoomId, Room>,
    /// The location of the message that an author sent with a nonce.
    nonces: HashMap<(UserId, Nonce), (RoomId, Seq)>,
    bytes: usize,
    bytes_max: usize,
    /// Counts frames, to tell which room was active last.
    frame_count: u64,
}

#[derive(Debug, Default)]
struct Room {
    head: Seq,
    /// The highest seq that is forgotten.
    floor: Seq,
    frames: VecDeque<Kept>,
    /// The number of messages in `frames`.
    messages: usize,
    bytes: usize,
    active_at: u64,
    /// Whether the room was deleted once. Then it is kept, as only it knows where its order goes on.
    is_deleted: bool,
}

#[derive(Debug)]
struct Kept {
    stored: Stored,
    nonce: Option<(UserId, Nonce)>,
}

impl Kept {
    fn cost(&self) -> usize {
        self.stored.json.len() + FRAME_OVERHEAD_BYTES
    }

    fn message(&self) -> Option<Message> {
        Message::of_frame(&self.stored.json)
    }
}

impl Memory {
    pub fn new(keep: Keep) -> Self {
        let bytes_max = keep.bytes_max.and_then(|most| usize::try_from(most).ok());
        let bytes_max = bytes_max.map_or(KEPT_BYTES_MAX, |most| most.min(KEPT_BYTES_MAX));
        Self { rooms: BTreeMap::new(), nonces: HashMap::new(), bytes: 0, bytes_max, frame_count: 0 }
    }

    /// How far to forget each room because of age: its frames from before a log time. This looks at all rooms, so it is
    /// done only at intervals.
    pub fn expired(&self, before_ms: u64) -> Vec<(RoomId, Seq)> {
        let mut expired = Vec::new();
        for (id, room) in &self.rooms {
            let is_old = |kept: &&Kept| kept.stored.id.unix_ms() < before_ms;
            if let Some(last) = room.frames.iter().take_while(is_old).last() {
                expired.push((id.clone(), last.stored.seq));
            }
        }
        expired
    }

    /// What goes because all rooms together take too much memory. The largest rooms lose their oldest frames, down to one
    /// size; of rooms of the same size, the one that was silent longest comes first. An author that holds more of such a
    /// room than all others together first loses its oldest texts. An eighth of the bound is freed, so that this search of
    /// all rooms is rare.
    pub fn excess(&self) -> Vec<Change> {
        if self.bytes <= self.bytes_max {
            return Vec::new();
        }
        let target = self.bytes_max / 8 * 7;
        let mut largest: Vec<_> = self.rooms.iter().filter(|(_, room)| !room.frames.is_empty()).collect();
        largest.sort_unstable_by_key(|(_, room)| (Reverse(room.bytes), room.active_at));
        let size_max = common_size(largest.iter().map(|(_, room)| room.bytes), self.bytes, target);
        let mut bytes = self.bytes;
        let mut excess = Vec::new();
        for (id, room) in largest {
            let size_max = size_max.max(room.bytes.saturating_sub(bytes.saturating_sub(target)));
            if room.bytes > size_max {
                bytes -= room.shrink(id, size_max, &mut excess);
            }
        }
        excess
    }

    /// The name of a user in the latest frame of it that is kept. It looks at all frames.
    pub fn author_name(&self, user: UserId) -> Option<Username> {
        let field = format!("\"user_id\":\"{user}\"");
        // Most frames are not parsed.
        let is_of = |kept: &&Kept| std::str::from_utf8(&kept.stored.json).is_ok_and(|json| json.contains(&field));
        let frames = self.rooms.values().flat_map(|room| &room.frames).filter(is_of).filter_map(Kept::message);
        let latest = frames.filter(|message| message.user == user).max_by_key(|message| message.id);
        latest.map(|message| message.username.clone())
    }

    fn forget_first(&mut self, id: &RoomId) {
        let Some(room) = self.rooms.get_mut(id) else { return };
        let Some(oldest) = room.frames.pop_front() else { return };
        room.floor = oldest.stored.seq;
        room.messages -= usize::from(!oldest.stored.is_event);
        room.bytes -= oldest.cost();
        self.bytes -= oldest.cost();
        if let Some(nonce) = oldest.nonce {
            self.nonces.remove(&nonce);
        }
    }

    /// The rooms without frames.
    pub fn empty_rooms(&self) -> Vec<RoomId> {
        let empty = self.rooms.iter().filter(|(_, room)| room.frames.is_empty() && !room.is_deleted);
        empty.map(|(id, _)| id.clone()).collect()
    }

    pub fn rooms(&self, after: Option<&RoomId>, limit: usize) -> Vec<KeptRoom> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let kept = self.rooms.range((from, Bound::Unbounded)).filter(|(_, room)| !room.frames.is_empty());
        kept.take(limit).map(|(id, room)| KeptRoom { id: id.clone(), head: room.head }).collect()
    }

    /// All rooms with frames, each with its last frame.
    pub fn active_rooms(&self) -> Vec<(KeptRoom, FrameId)> {
        let last = |room: &Room| room.frames.back().map(|kept| kept.stored.id);
        let rooms = self.rooms.iter().filter_map(|(id, room)| Some((id, room, last(room)?)));
        rooms.map(|(id, room, last)| (KeptRoom { id: id.clone(), head: room.head }, last)).collect()
    }

    pub fn room(&self, id: &RoomId) -> Option<KeptRoom> {
        let room = self.rooms.get(id).filter(|room| !room.frames.is_empty())?;
        Some(KeptRoom { id: id.clone(), head: room.head })
    }

    pub fn head(&self, id: &RoomId) -> Seq {
        self.rooms.get(id).map_or(Seq(0), |room| room.head)
    }

    pub fn seq_of(&self, id: &RoomId, frame: FrameId) -> Option<Seq> {
        self.frame(id, frame).map(|kept| kept.stored.seq)
    }

    /// The id of a room's oldest frame above a seq.
    pub fn oldest_id(&self, id: &RoomId, floor: Seq) -> Option<FrameId> {
        let frames = &self.rooms.get(id)?.frames;
        let first = frames.partition_point(|kept| kept.stored.seq <= floor);
        frames.get(first).map(|kept| kept.stored.id)
    }

    fn frame(&self, room: &RoomId, id: FrameId) -> Option<&Kept> {
        // Ids increase with the seq.
        let frames = &self.rooms.get(room)?.frames;
        frames.binary_search_by_key(&id, |kept| kept.stored.id).ok().map(|index| &frames[index])
    }

    /// The next frames of a room on one side of a seq, the nearest first. These are at most
    /// [`MEMORY_FRAMES_AT_ONCE`], so that a reader holds the lock only for a moment.
    pub fn frames(&self, id: &RoomId, side: Side) -> Vec<Stored> {
        let Some(room) = self.rooms.get(id) else { return Vec::new() };
        let split = |is_first: &dyn Fn(Seq) -> bool| room.frames.partition_point(|kept| is_first(kept.stored.seq));
        let stored = |kept: &Kept| kept.stored.clone();
        match side {
            Side::After(seq) => {
                let frames = room.frames.range(split(&|other| other <= seq)..);
                frames.take(MEMORY_FRAMES_AT_ONCE).map(stored).collect()
            }
            Side::Before(seq) => {
                let frames = room.frames.range(..split(&|other| other < seq));
                frames.rev().take(MEMORY_FRAMES_AT_ONCE).map(stored).collect()
            }
        }
    }
}

/// The size to which the largest rooms must be cut so that all together take `target` bytes. `sizes` are those of all
/// rooms, the largest first, and `bytes` is their sum.
fn common_size(sizes: impl Iterator<Item = usize>, bytes: usize, target: usize) -> usize {
    let (mut smaller, mut size_max) = (bytes, 0);
    for (index, size) in sizes.enumerate() {
        if index > 0 && size <= size_max {
            break;
        }
        smaller -= size;
        size_max = target.saturating_sub(smaller) / (index + 1);
    }
    size_max
}

/// The bytes of a message's text; an event has none.
fn text_bytes(message: &Message) -> usize {
    if message.is_event() { 0 } else { message.content.len() }
}

/// The author with the longest texts, and their bytes.
fn longest_texts<'a>(messages: impl Iterator<Item = &'a Message>) -> Option<(UserId, usize)> {
    let mut texts: HashMap<UserId, usize> = HashMap::new();
    for message in messages {
        *texts.entry(message.user).or_default() += text_bytes(message);
    }
    texts.into_iter().max_by_key(|(author, bytes)| (*bytes, *author))
}

/// The frames of a room on one side of a seq that `fits` accepts, oldest first. Also returns the last frame that was
/// looked at if `deadline` came before the end. Some frames are looked at even after the deadline.
///
/// The lock is held only while some frames are copied, never while `fits` runs.
pub fn page(
    memory: &Mutex<Memory>,
    id: &RoomId,
    mut side: Side,
    limit: PageLimit,
    deadline: Option<Instant>,
    fits: impl Fn(&Stored) -> bool,
) -> (Vec<Stored>, Option<FrameId>) {
    let begun = side;
    let (mut page, mut bytes, mut stopped_at) = (Vec::new(), 0, None);
    while limit.has_space(page.len(), bytes) && stopped_at.is_none() {
        let frames = locked(memory).frames(id, side);
        let Some(last) = frames.last() else { break };
        side = side.from(last.seq);
        let last = last.id;
        for frame in frames.into_iter().filter(&fits) {
            if limit.has_space(page.len(), bytes) {
                bytes += frame.json.len();
                page.push(frame);
            }
        }
        let is_over = || deadline.is_some_and(|deadline| Instant::now() >= deadline);
        stopped_at = Some(last).filter(|_| limit.has_space(page.len(), bytes) && is_over());
    }
    begun.sort(&mut page);
    (page, stopped_at)
}

/// Whether a stored frame is a message that has all the terms.
pub fn has_terms(stored: &Stored, terms: &Terms) -> bool {
    !stored.is_event && Message::of_frame(&stored.json).is_some_and(|message| terms.are_in(&message.content))
}

/// The messages and the `people` tables, locked while a batch is applied.
pub struct MemoryStorage<'a> {
    pub memory: MutexGuard<'a, Memory>,
    pub people: MutexGuard<'a, Connection>,
}

impl<'a> MemoryStorage<'a> {
    /// Locks both, `people` first. A reader's view holds `people` and locks the messages within, so the other order
    /// could deadlock.
    pub fn lock(messages: &'a Mutex<Memory>, people: &'a Mutex<Connection>) -> Self {
        let people = locked(people);
        Self { memory: locked(messages), people }
    }
}

impl Storage for MemoryStorage<'_> {
    fn people(&self) -> &Connection {
        &self.people
    }

    fn room(&mut self, room: &RoomId) -> Result<Option<RoomRow>, Fault> {
        Ok(self.memory.rooms.get(room).map(|room| RoomRow { key: 0, head: room.head, floor: room.floor }))
    }

    fn insert(&mut self, new: &NewMessage, _: Option<RoomRow>, stored: &Stored, _: u64) -> Result<bool, Fault> {
        let memory = &mut *self.memory;
        let nonce = new.nonce.clone().map(|nonce| (new.author.user(), nonce));
        if nonce.as_ref().is_some_and(|nonce| memory.nonces.contains_key(nonce)) {
            return Ok(false);
        }
        memory.frame_count += 1;
        let room = memory.rooms.entry(new.room.clone()).or_default();
        room.head = stored.seq;
        room.active_at = memory.frame_count;
        let kept = Kept { stored: stored.clone(), nonce: nonce.clone() };
        room.bytes += kept.cost();
        memory.bytes += kept.cost();
        room.messages += usize::from(!stored.is_event);
        room.frames.push_back(kept);
        while memory.rooms.get(&new.room).is_some_and(Room::is_too_long) {
            memory.forget_first(&new.room);
        }
        if let Some(nonce) = nonce {
            memory.nonces.insert(nonce, (new.room.clone(), stored.seq));
        }
        Ok(true)
    }

    fn by_nonce(&mut self, author: UserId, nonce: &Nonce) -> Result<Option<Message>, Fault> {
        let Some((id, seq)) = self.memory.nonces.get(&(author, nonce.clone())) else { return Ok(None) };
        let Some(room) = self.memory.rooms.get(id) else { return Ok(None) };
        let index = room.frames.binary_search_by_key(seq, |kept| kept.stored.seq);
        Ok(index.ok().and_then(|index| room.frames[index].message()))
    }

    fn by_id(&mut self, room: &RoomId, _: RoomRow, id: FrameId) -> Result<Option<Message>, Fault> {
        Ok(self.memory.frame(room, id).and_then(Kept::message))
    }

    fn author_name(&self, user: UserId) -> Result<Option<Username>, Fault> {
        Ok(self.memory.author_name(user))
    }

    fn erase(&mut self, _: RoomRow, message: &Message, stored: &Stored, _: Freed) -> Result<(), Fault> {
        let memory = &mut *self.memory;
        let Some(room) = memory.rooms.get_mut(&message.room) else { return Ok(()) };
        let Some(kept) = room.frames.iter_mut().find(|kept| kept.stored.id == stored.id) else { return Ok(()) };
        let before = kept.cost();
        kept.stored = stored.clone();
        room.bytes = room.bytes + kept.cost() - before;
        memory.bytes = memory.bytes + kept.cost() - before;
        Ok(())
    }

    fn seq_of(&mut self, room: &RoomId, _: RoomRow, id: FrameId) -> Result<Option<Seq>, Fault> {
        Ok(self.memory.seq_of(room, id))
    }

    fn past(&mut self, room: &RoomId, _: Option<RoomRow>) -> Result<Past, Fault> {
        let Some(room) = self.memory.rooms.get(room) else { return Ok(Past { is_whole: true, ..Past::default() }) };
        let frames = room.frames.iter().map(|kept| kept.stored.clone()).collect();
        Ok(Past { head: room.head, frames, is_whole: true })
    }

    fn forget(&mut self, id: &RoomId, _: RoomRow, up_to: Seq) -> Result<(), Fault> {
        let memory = &mut *self.memory;
        let is_forgotten = |room: &Room| room.frames.front().is_some_and(|kept| kept.stored.seq <= up_to);
        while memory.rooms.get(id).is_some_and(is_forgotten) {
            memory.forget_first(id);
        }
        if let Some(room) = memory.rooms.get_mut(id) {
            room.floor = up_to;
        }
        Ok(())
    }

    fn delete_room(&mut self, room: &RoomId, row: RoomRow) -> Result<(), Fault> {
        self.forget(room, row, row.head)?;
        if let Some(room) = self.memory.rooms.get_mut(room) {
            room.is_deleted = true;
        }
        Ok(())
    }

    fn forget_room(&mut self, id: &RoomId) -> Result<(), Fault> {
        if self.memory.rooms.get(id).is_some_and(|room| room.frames.is_empty() && !room.is_deleted) {
            self.memory.rooms.remove(id);
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    fn commit(&mut self, _: Position) -> Result<(), Fault> {
        Ok(())
    }

    /// Memory has no transactions. What was done before the fault stands, so the policy is read from the tables.
    fn roll_back(&mut self, before: PolicySnapshot, clock_ms: u64) -> PolicySnapshot {
        people::policy(&self.people, clock_ms).unwrap_or(before)
    }
}

impl Room {
    /// Adds the changes that make the room at most so large. Returns by how much they make it smaller.
    fn shrink(&self, id: &RoomId, size_max: usize, changes: &mut Vec<Change>) -> usize {
        let messages: Vec<_> = self.frames.iter().map(Kept::message).collect();
        let mut costs: Vec<_> = self.frames.iter().map(Kept::cost).collect();
        let mut size = self.bytes;
        let mut erased = Vec::new();
        if let Some((author, texts)) = longest_texts(messages.iter().flatten()) {
            let is_others = |message: &Option<Message>| message.as_ref().is_none_or(|message| message.user != author);
            // The author's messages before those of others go whole, below.
            let first = messages.iter().position(is_others).unwrap_or(messages.len());
            let before: usize = costs[..first].iter().sum();
            let mut texts = texts - messages[..first].iter().flatten().map(text_bytes).sum::<usize>();
            for (message, cost) in messages.iter().zip(&mut costs).skip(first) {
                if size - before <= size_max || 2 * texts <= size - before {
                    break;
                }
                let Some(message) = message.as_ref().filter(|message| message.user == author) else { continue };
                let bytes = text_bytes(message);
                if bytes > ERASED_BYTES {
                    let gained = bytes - ERASED_BYTES;
                    (*cost, size, texts) = (*cost - gained, size - gained, texts - bytes);
                    erased.push(message.id);
                }
            }
        }
        let mut up_to = None;
        for (kept, cost) in self.frames.iter().zip(costs) {
            if size <= size_max {
                break;
            }
            size -= cost;
            up_to = Some(kept.stored.seq);
        }
        if !erased.is_empty() {
            changes.push(Change::EraseMessages { room: id.clone(), messages: erased });
        }
        changes.extend(up_to.map(|up_to| Change::Forget { room: id.clone(), up_to }));
        self.bytes - size
    }

    /// Whether the oldest frame must go: there are too many messages or events, or the room is full and begins with an
    /// event.
    fn is_too_long(&self) -> bool {
        self.messages > HISTORY_MAX
            || self.frames.len() - self.messages > EVENTS_KEPT_MAX
            || (self.messages == HISTORY_MAX && self.frames.front().is_some_and(|oldest| oldest.stored.is_event))
    }
}

#[cfg(test)]
mod tests;
