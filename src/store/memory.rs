//! What `:memory:` keeps: the latest frames of each room, and where each room's order stands.
//!
//! The same promises as the database's while the process lives, for less work a message. Bounded by the operator's
//! retention, by so many frames to a room, and by so many bytes in all, for which the rooms that were silent longest pay
//! first.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;

use crate::config::Keep;
use crate::ids::FrameIds;
use crate::limits::{GUESTS_KEPT_MAX, HISTORY_MAX, KEPT_BYTES_MAX};
use crate::model::{FrameId, Nonce, RoomId, Seq, Timestamp, UserId};
use crate::protocol::{After, ErrorCode, NO_SUCH_REPLY, Rejected};

use super::messages::{Message, encode_new};
use super::search::Wanted;
use super::{Append, Appended, KeptRoom, NewGuest, NewMessage, Past, Registry, Side, Stored, accounts};
use super::{log_taken_back, may_take_back, refused, sent_before};

/// What a frame takes beside its JSON, about, with its share of the room's own bookkeeping.
const FRAME_OVERHEAD_BYTES: usize = 768;

/// From one look for what is too old to the next, in milliseconds.
const SWEEP_EVERY_MS: u64 = 1_000;

/// All that is kept.
pub struct Memory {
    rooms: BTreeMap<RoomId, Room>,
    /// Where the message is that an author sent with a nonce.
    nonces: HashMap<(UserId, Nonce), (RoomId, Seq)>,
    bytes: usize,
    bytes_max: usize,
    keep: Keep,
    people: Registry,
    /// When it was last looked for what is too old.
    swept_ms: u64,
    /// Counts messages, to know which room spoke last.
    clock: u64,
    ids: FrameIds,
    json: Vec<u8>,
}

#[derive(Default)]
struct Room {
    head: Seq,
    members: usize,
    frames: VecDeque<Kept>,
    bytes: usize,
    spoke_at: u64,
}

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
    pub fn new(keep: Keep, people: Registry) -> Self {
        let bytes_max = keep.bytes_max.and_then(|most| usize::try_from(most).ok());
        let bytes_max = bytes_max.map_or(KEPT_BYTES_MAX, |most| most.min(KEPT_BYTES_MAX));
        Self {
            rooms: BTreeMap::new(),
            nonces: HashMap::new(),
            bytes: 0,
            bytes_max,
            keep,
            people,
            swept_ms: 0,
            clock: 0,
            ids: FrameIds::new(),
            json: Vec::new(),
        }
    }

    /// Gives everything in a batch its place, with one reading of the clock for all of it.
    pub fn commit(&mut self, batch: Vec<Append>) -> Vec<Appended> {
        let now = Timestamp::now();
        let mut answer = Vec::with_capacity(batch.len());
        for append in batch {
            match append {
                Append::Message(new) => answer.push(self.append(&new, &now)),
                Append::Announcement { rooms, message } => self.announce(&rooms, &message, &now, &mut answer),
                Append::Join { room: id, ticket, known, after, guest } => {
                    let is_known = guest.is_none_or(|guest| keep_guest(guest, &now, &self.people));
                    let room = self.rooms.entry(id.clone()).or_default();
                    room.members += 1;
                    // What was forgotten goes on where it was, as those who are there have seen it.
                    room.head = room.head.max(known.unwrap_or_default());
                    let past = known.is_none().then(|| Past {
                        head: room.head,
                        frames: room.frames.iter().map(|kept| kept.stored.clone()).collect(),
                    });
                    let seen = match after {
                        Some(After::Id(seen)) => self.seq_of(&id, seen),
                        _ => None,
                    };
                    answer.push(Appended::Join { room: id, ticket, past, seen, is_known });
                }
                Append::Leave { room, ticket } => {
                    if let Some(left) = self.rooms.get_mut(&room) {
                        left.members = left.members.saturating_sub(1);
                        if left.members == 0 && left.frames.is_empty() {
                            self.rooms.remove(&room);
                        }
                    }
                    answer.push(Appended::Leave { room, ticket });
                }
            }
        }
        self.forget_oldest();
        self.forget_expired(now.unix_ms);
        answer
    }

    /// Forgets what is too old, a while after it is: all rooms are looked at for it, so it is done now and then.
    pub fn forget_expired(&mut self, now_ms: u64) {
        let since_ms = self.keep.since_ms(now_ms);
        if since_ms == 0 || now_ms < self.swept_ms + SWEEP_EVERY_MS {
            return;
        }
        self.swept_ms = now_ms;
        for room in self.rooms.values_mut() {
            while room.frames.front().is_some_and(|oldest| oldest.stored.id.unix_ms() < since_ms)
                && let Some(oldest) = room.frames.pop_front()
            {
                room.bytes -= oldest.cost();
                self.bytes -= oldest.cost();
                if let Some(nonce) = oldest.nonce {
                    self.nonces.remove(&nonce);
                }
            }
        }
        self.rooms.retain(|_, room| room.members > 0 || !room.frames.is_empty());
    }

    /// A message in several rooms, of which only the first bears its nonce.
    fn announce(&mut self, rooms: &[RoomId], message: &NewMessage, now: &Timestamp, answer: &mut Vec<Appended>) {
        let first = self.append(message, now);
        let is_new = matches!(first, Appended::Message { .. });
        answer.push(first);
        for room in rooms.iter().skip(1).filter(|_| is_new) {
            answer.push(self.append(&message.copy_in(room), now));
        }
    }

    fn append(&mut self, new: &NewMessage, now: &Timestamp) -> Appended {
        let ticket = new.ticket;
        let nonce = new.nonce.clone().map(|nonce| (new.author.id, nonce));
        if let Some((id, seq)) = nonce.as_ref().and_then(|nonce| self.nonces.get(nonce))
            && let Some(before) = self.rooms.get(id).and_then(|room| room.at(*seq)).and_then(Kept::message)
        {
            return sent_before(new, &before, &mut self.json);
        }
        let target = match new.refusal.as_deref().map_or_else(|| self.check(new), |why| Err(why.clone())) {
            Ok(target) => target,
            Err(rejected) => return refused(new, rejected),
        };
        let erased = target.map(|message| {
            let erased = message.erased(now).stored(false, &mut self.json);
            self.replace(&new.room, &erased);
            log_taken_back(new, &erased);
            erased
        });
        let room = self.rooms.entry(new.room.clone()).or_default();
        room.head = room.head.next();
        self.clock += 1;
        room.spoke_at = self.clock;
        let stored = encode_new(new, self.ids.next(now), room.head, now, &mut self.json);
        let kept = Kept { stored: stored.clone(), nonce: nonce.clone() };
        room.bytes += kept.cost();
        self.bytes += kept.cost();
        room.frames.push_back(kept);
        if room.frames.len() > HISTORY_MAX
            && let Some(oldest) = room.frames.pop_front()
        {
            room.bytes -= oldest.cost();
            self.bytes -= oldest.cost();
            if let Some(nonce) = oldest.nonce {
                self.nonces.remove(&nonce);
            }
        }
        if let Some(nonce) = nonce {
            self.nonces.insert(nonce, (new.room.clone(), stored.seq));
        }
        Appended::Message { room: new.room.clone(), stored, erased, ticket }
    }

    /// Whether a message may be stored that is new, as far as what it is about goes: what it answers must be there,
    /// and so must what it takes back, which is given.
    fn check(&self, new: &NewMessage) -> Result<Option<Message>, Rejected> {
        if new.body.reply_to().is_some_and(|answered| self.seq_of(&new.room, answered).is_none()) {
            return Err(Rejected::new(ErrorCode::NotFound, NO_SUCH_REPLY, None));
        }
        let Some(message_id) = new.body.message_id() else { return Ok(None) };
        let frames = self.rooms.get(&new.room).into_iter().flat_map(|room| &room.frames);
        let message = frames.rev().find(|kept| kept.stored.id == message_id).and_then(Kept::message);
        may_take_back(new, message.as_ref()).map(|()| message)
    }

    /// Puts a frame in the place of what it was.
    fn replace(&mut self, id: &RoomId, stored: &Stored) {
        let Some(room) = self.rooms.get_mut(id) else { return };
        let Some(kept) = room.frames.iter_mut().find(|kept| kept.stored.id == stored.id) else { return };
        let before = kept.cost();
        kept.stored = stored.clone();
        room.bytes = room.bytes + kept.cost() - before;
        self.bytes = self.bytes + kept.cost() - before;
    }

    /// Past the bound, forgets the rooms that were silent longest, with an eighth to spare, so that the search
    /// through all rooms is rare.
    fn forget_oldest(&mut self) {
        if self.bytes <= self.bytes_max {
            return;
        }
        let mut silent: Vec<_> = self.rooms.iter().map(|(id, room)| (room.spoke_at, id.clone())).collect();
        silent.sort_unstable();
        for (_, id) in silent {
            if self.bytes <= self.bytes_max / 8 * 7 {
                return;
            }
            if let Some(room) = self.rooms.get_mut(&id) {
                self.bytes -= std::mem::take(&mut room.bytes);
                for kept in std::mem::take(&mut room.frames) {
                    if let Some(nonce) = kept.nonce {
                        self.nonces.remove(&nonce);
                    }
                }
                if room.members == 0 {
                    self.rooms.remove(&id);
                }
            }
        }
    }

    pub fn rooms(&self, after: Option<&RoomId>, limit: usize) -> Vec<KeptRoom> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let spoken = self.rooms.range((from, Bound::Unbounded)).filter(|(_, room)| !room.frames.is_empty());
        spoken.take(limit).map(|(id, room)| KeptRoom { id: id.clone(), head: room.head }).collect()
    }

    pub fn room(&self, id: &RoomId) -> Option<KeptRoom> {
        let room = self.rooms.get(id).filter(|room| !room.frames.is_empty())?;
        Some(KeptRoom { id: id.clone(), head: room.head })
    }

    pub fn seq_of(&self, id: &RoomId, frame: FrameId) -> Option<Seq> {
        let frames = &self.rooms.get(id)?.frames;
        frames.iter().rev().map(|kept| &kept.stored).find(|stored| stored.id == frame).map(|stored| stored.seq)
    }

    pub fn page(&self, id: &RoomId, side: Side, limit: usize, wanted: Option<&Wanted>) -> Vec<Stored> {
        let Some(room) = self.rooms.get(id) else { return Vec::new() };
        let fits = |kept: &&Kept| match wanted {
            None => true,
            Some(wanted) => kept.message().is_some_and(|message| wanted.are_in(message.content())),
        };
        let frames = room.frames.iter();
        match side {
            Side::After(seq) => {
                let behind = frames.filter(|kept| kept.stored.seq > seq).filter(fits);
                behind.take(limit).map(|kept| kept.stored.clone()).collect()
            }
            Side::Before(seq) => {
                let before = frames.rev().filter(|kept| kept.stored.seq < seq).filter(fits);
                let mut page: Vec<_> = before.take(limit).map(|kept| kept.stored.clone()).collect();
                page.reverse();
                page
            }
        }
    }
}

/// Keeps who a guest is, and the latest of them only. Whether it could.
fn keep_guest(guest: NewGuest, now: &Timestamp, people: &Registry) -> bool {
    let now = now.clone();
    let kept = people.change(move |connection| {
        let key = accounts::begin_session(connection, &guest.session(), &now)?;
        accounts::forget_guests_before(connection, key, GUESTS_KEPT_MAX)?;
        Ok(())
    });
    kept.is_ok()
}

impl Room {
    fn at(&self, seq: Seq) -> Option<&Kept> {
        let first = self.frames.front()?.stored.seq;
        self.frames.get(usize::try_from(seq.0.checked_sub(first.0)?).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::model::{Person, Username};
    use crate::protocol::Body;
    use crate::role::Role;
    use crate::store::Ticket;

    fn memory(keep: Keep) -> Memory {
        Memory::new(keep, Registry::in_memory().unwrap())
    }

    fn room(number: usize) -> RoomId {
        RoomId::parse(&format!("room {number}")).unwrap()
    }

    fn message(number: usize) -> Append {
        Append::Message(NewMessage {
            room: room(number),
            author: Arc::new(Person { id: UserId(uuid::Uuid::nil()), username: Username::parse("ana").unwrap() }),
            role: Role::Guest,
            body: Body::Text { content: "x".repeat(200).into(), reply_to: None },
            nonce: None,
            refusal: None,
            ticket: Ticket::Member(0),
        })
    }

    fn join(number: usize, known: Option<Seq>) -> Append {
        Append::Join { room: room(number), ticket: Ticket::Member(0), known, after: None, guest: None }
    }

    fn seq(appended: &[Appended]) -> u64 {
        match appended.last() {
            Some(Appended::Message { stored, .. }) => stored.seq.0,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_room_keeps_its_latest_frames() {
        let mut memory = memory(Keep::default());
        for _ in 0..HISTORY_MAX + 50 {
            memory.commit(vec![message(1)]);
        }
        let page = memory.page(&room(1), Side::After(Seq(0)), 9_999, None);
        assert_eq!((page.len(), page[0].seq), (HISTORY_MAX, Seq(51)));
        assert_eq!(memory.bytes, page.iter().map(|stored| stored.json.len() + FRAME_OVERHEAD_BYTES).sum::<usize>());
    }

    #[test]
    fn the_rooms_that_were_silent_longest_pay_for_the_bound() {
        let mut memory = memory(Keep { bytes_max: Some(100_000), retention: None });
        memory.commit(vec![join(0, None)]);
        for number in 0..200 {
            memory.commit(vec![message(number)]);
            assert!(memory.bytes <= 100_000);
        }
        assert_eq!(memory.room(&room(1)), None, "gone");
        assert!(memory.room(&room(199)).is_some(), "the last to speak stays");
        let sum: usize = memory.rooms.values().map(|room| room.bytes).sum();
        assert_eq!(sum, memory.bytes);
        assert_eq!(seq(&memory.commit(vec![message(0)])), 2, "the order goes on while somebody is there");
    }

    #[test]
    fn an_order_goes_on_for_whoever_the_hub_still_has() {
        let mut memory = memory(Keep { bytes_max: Some(0), retention: None });
        memory.commit(vec![join(1, None), message(1), message(1), message(1)]);
        // Its only member goes and comes back before the hub has let the room go.
        memory.commit(vec![Append::Leave { room: room(1), ticket: Ticket::Member(0) }]);
        assert!(memory.rooms.is_empty());
        assert_eq!(seq(&memory.commit(vec![join(1, Some(Seq(3))), message(1)])), 4);
    }

    #[test]
    fn what_is_too_old_is_forgotten() {
        let retention = Duration::from_secs(60);
        let mut memory = memory(Keep { retention: Some(retention), bytes_max: None });
        memory.commit(vec![message(1), join(2, None), message(2)]);
        let now_ms = Timestamp::now().unix_ms;
        memory.forget_expired(now_ms + 50_000);
        assert!(memory.room(&room(1)).is_some());
        memory.forget_expired(now_ms + 70_000);
        assert_eq!((memory.room(&room(1)), memory.bytes, memory.nonces.len()), (None, 0, 0));
        assert_eq!(memory.rooms.len(), 1, "somebody is in the other");
    }
}
