//! Delivery to members: batches, outboxes, keep-alives, and the closing of connections.
//!
//! Runs on the hub's thread and never waits for a sink.

use std::thread;
use std::time::{Duration, Instant};

use crate::limits::{CLOSE_WAIT, OUTBOXES_BYTES_MAX, SLOW_CLOSE_WAIT};
use crate::metrics::Drop as DropReason;
use crate::model::ConnectionId;
use crate::wire::{CloseReason, Encoding};

use super::batch::{Batch, InUse, RoomBatch};
use super::outbox::Outbox;
use super::state::{MemberKey, RoomKey};
use super::{Closing, Hub, Peer, Stopping};

/// The time until full sinks are tried again, and what each of them adds to it. Thus a crowd of stalled readers takes
/// only a few hundredths of the hub's time.
const RETRY_AFTER: Duration = Duration::from_millis(2);
const RETRY_AFTER_EACH: Duration = Duration::from_micros(20);
/// The time until a closing sink is tried again. Such a sink has only its last bytes and the close reason to take.
const RETRY_CLOSE_AFTER: Duration = Duration::from_millis(50);

impl Hub {
    pub(super) fn batch(&mut self, room: RoomKey) -> &mut RoomBatch {
        if self.batches.len() <= room.0 {
            self.batches.resize_with(room.0 + 1, RoomBatch::default);
        }
        &mut self.batches[room.0]
    }

    pub(super) fn enter(&mut self, room: RoomKey, member: MemberKey) {
        if let Some(Some(peer)) = self.peers.get(member.0) {
            let encoding = peer.outbox.encoding();
            self.batch(room).enter(member, encoding);
        }
    }

    pub(super) fn broadcast(&mut self, room: RoomKey, json: &[u8], author: Option<MemberKey>) {
        let batch = self.batch(room);
        let is_first = batch.frames() == 0;
        let is_large = batch.push(json, author);
        self.flush_due |= is_large;
        if is_first {
            self.touched_rooms.push(room);
        }
    }

    /// Adds a frame for one member only.
    pub(super) fn send_own(&mut self, member: MemberKey, json: &[u8]) {
        self.own(member, |encoding, own| encoding.append_frame(own, json));
    }

    /// Adds bytes for one member only.
    pub(super) fn own(&mut self, member: MemberKey, add: impl FnOnce(Encoding, &mut Vec<u8>)) {
        if let Some(Some(peer)) = self.peers.get_mut(member.0) {
            if peer.own.is_empty() {
                self.touched_peers.push(member);
            }
            add(peer.outbox.encoding(), &mut peer.own);
        }
    }

    /// Sends the frames that are for this member only, before the batches of its rooms.
    pub(super) fn flush_own(&mut self, member: MemberKey) {
        if let Some(Some(peer)) = self.peers.get_mut(member.0)
            && !peer.own.is_empty()
        {
            // Taken, not cleared: the memory of a long replay is not kept for every member.
            let own = std::mem::take(&mut peer.own);
            peer.send(&mut Batch::new(&own), 0, member, &mut self.waiting);
        }
    }

    /// Sends the pending batch of a room to a member that leaves the room.
    pub(super) fn flush_last(&mut self, room: RoomKey, member: MemberKey) {
        self.flush_own(member);
        if let (Some(batch), Some(Some(peer))) = (self.batches.get(room.0), self.peers.get_mut(member.0)) {
            let begin = batch.begin_of(member);
            peer.send(&mut batch.batch(peer.outbox.encoding()), begin, member, &mut self.waiting);
        }
    }

    /// Sends what the round has produced. A `send` costs about the same for any number of frames. So under load, only
    /// the authors get their frames at once, because many send no more before that. What the other members of a busy
    /// room get grows over the next rounds, within bounds.
    pub(super) fn end_round(&mut self, now: Instant) {
        self.flush_peers();
        let mut rooms = std::mem::take(&mut self.touched_rooms);
        rooms.retain(|&room| {
            let may_wait = self.batches[room.0].may_wait(self.state.members(room).len(), now);
            if may_wait {
                self.flush_authors(room)
            } else {
                self.flush_room(room, now)
            }
            may_wait
        });
        self.touched_rooms = rooms;
        if self.touched_rooms.is_empty() {
            return;
        }
        // Whether there is load is known only when the sessions whose clients have sent something have run. They may
        // need this core.
        thread::yield_now();
        if self.stopping != Stopping::No || !self.has_commands() {
            self.flush(now);
        }
    }

    /// Sends all that waits.
    pub(super) fn flush(&mut self, now: Instant) {
        self.flush_peers();
        self.flush_due = false;
        let mut rooms = std::mem::take(&mut self.touched_rooms);
        for room in rooms.drain(..) {
            self.flush_room(room, now);
        }
        self.touched_rooms = rooms;
    }

    /// Publishes presence, before a frame tells of it, and sends the frames that are for one member only.
    fn flush_peers(&mut self) {
        if let Some(presence) = self.state.take_presence() {
            self.ends.presence.set(presence);
        }
        let mut touched = std::mem::take(&mut self.touched_peers);
        for member in touched.drain(..) {
            self.flush_own(member);
        }
        self.touched_peers = touched;
    }

    /// The hot path: sends a room's batch to every member, with one `send` per member.
    fn flush_room(&mut self, room: RoomKey, now: Instant) {
        let room_batch = &mut self.batches[room.0];
        let mut batches = room_batch.batches();
        let mut in_use = InUse::default();
        let mut deliveries = 0;
        for &member in self.state.members(room) {
            let Some(Some(peer)) = self.peers.get_mut(member.0) else {
                continue;
            };
            let encoding = peer.outbox.encoding();
            in_use[encoding.index()] = true;
            let begin = room_batch.begin_of(member);
            peer.send(&mut batches[encoding.index()], begin, member, &mut self.waiting);
            if peer.outbox.weight() > self.limits.outbox_bytes_max {
                self.retry_at = None;
            }
            deliveries += room_batch.frames();
        }
        room_batch.clear(in_use, now);
        self.metrics.deliveries.add(deliveries);
    }

    /// Sends a room's batch to the authors of its new frames.
    fn flush_authors(&mut self, room: RoomKey) {
        let room_batch = &mut self.batches[room.0];
        for member in room_batch.take_authors() {
            // An author may have closed its connection, or left the room.
            let (Some(Some(peer)), true) = (self.peers.get_mut(member.0), self.state.is_in(room, member)) else {
                continue;
            };
            let encoding = peer.outbox.encoding();
            let begin = room_batch.begin_of(member);
            peer.send(&mut room_batch.batch(encoding), begin, member, &mut self.waiting);
            room_batch.begin_at_end(member, encoding);
        }
    }

    pub(super) fn keep_alive(&mut self, now: Instant) {
        for encoding in Encoding::ALL {
            let interval = encoding.keep_alive_interval(self.limits.ping_interval);
            while let Some(&(at, member, connection)) = self.keep_alives[encoding.index()].front()
                && at <= now
            {
                self.keep_alives[encoding.index()].pop_front();
                // The key may belong to another connection by now.
                if self.state.member(connection) == Some(member) {
                    self.own(member, |encoding, own| encoding.append_keep_alive(own));
                    self.flush_own(member);
                    self.keep_alives[encoding.index()].push_back((now + interval, member, connection));
                }
            }
        }
        self.touched_peers.clear();
    }

    /// Tries full sinks again. Closes slow consumers, and abandons closing connections whose time is over.
    pub(super) fn retry(&mut self, now: Instant) {
        if self.waiting.is_empty() && self.closing.is_empty() {
            self.retry_at = None;
            return;
        }
        if self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        let (mut slow, mut bytes) = (Vec::new(), 0);
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain(|&member| {
            let Some(Some(peer)) = self.peers.get_mut(member.0) else {
                return false;
            };
            peer.outbox.retry();
            let stalled = peer
                .outbox
                .progress_at()
                .is_some_and(|at| now.saturating_duration_since(at) > self.limits.outbox_stall);
            if stalled || peer.outbox.weight() > self.limits.outbox_bytes_max {
                slow.push(member);
                return false;
            }
            bytes += peer.outbox.weight();
            !peer.outbox.is_empty()
        });
        while bytes > OUTBOXES_BYTES_MAX {
            let size = |member: &MemberKey| self.peers[member.0].as_ref().map_or(0, |peer| peer.outbox.weight());
            let Some((index, size)) = waiting.iter().map(size).enumerate().max_by_key(|(_, size)| *size) else {
                break;
            };
            slow.push(waiting.swap_remove(index));
            bytes -= size;
        }
        self.waiting = waiting;
        for member in slow {
            if let Some(Some(peer)) = self.peers.get_mut(member.0) {
                peer.outbox.cut();
            }
            self.metrics.dropped(DropReason::SlowConsumer);
            self.close(member, CloseReason::SlowConsumer);
        }
        self.carry_out();

        let waiting = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX);
        self.retry_at = (waiting > 0).then(|| now + RETRY_AFTER + RETRY_AFTER_EACH * waiting);
        self.closing.retain(|_, closing| {
            if !closing.ended {
                closing.outbox.retry();
                if closing.outbox.is_empty() {
                    closing.outbox.end();
                    closing.ended = true;
                }
            }
            if now >= closing.until {
                closing.outbox.abandon();
                return false;
            }
            let due = if closing.ended { closing.until } else { now + RETRY_CLOSE_AFTER };
            self.retry_at = Some(self.retry_at.map_or(due, |at| at.min(due)));
            true
        });
        self.metrics.outbox_bytes.set(bytes);
    }

    /// Removes the connection of a member. The member leaves its rooms, or has a lease. The frames
    /// that are for it only are sent first.
    pub(super) fn take_peer(&mut self, member: MemberKey, has_lease: bool) -> Option<Peer> {
        self.flush_own(member);
        let peer = self.peers.get_mut(member.0)?.take()?;
        self.state.disconnect(peer.connection, has_lease);
        Some(peer)
    }

    /// Closes a connection from the server's side. Its sink gets the close reason after the frames that wait.
    pub(super) fn close(&mut self, member: MemberKey, reason: CloseReason) {
        // A client that was too slow or lost its network may reconnect soon.
        let has_lease = [CloseReason::SlowConsumer, CloseReason::Overtaken, CloseReason::Idle].contains(&reason);
        if reason != CloseReason::SlowConsumer {
            for room in self.state.rooms_of(member) {
                self.flush_last(room, member);
            }
        }
        if let Some(peer) = self.take_peer(member, has_lease) {
            self.begin_close(peer.connection, peer.outbox, reason);
        }
    }

    pub(super) fn begin_close(&mut self, connection: ConnectionId, mut outbox: Outbox, reason: CloseReason) {
        outbox.send_close(reason);
        // A slow consumer gets time to read what the kernel has buffered for it, and then the close reason.
        let wait = if reason == CloseReason::SlowConsumer { SLOW_CLOSE_WAIT } else { CLOSE_WAIT };
        self.closing.insert(connection, Closing { outbox, until: Instant::now() + wait, ended: false });
        self.retry_at = None;
    }
}
