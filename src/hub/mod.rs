//! The hub: one thread that owns rooms, members and every outbox.
//!
//! It takes what is queued, up to a count, lets [`state`] decide, hands what is to be stored to the store, and then
//! sends each touched room's batch with one `send` per member. It touches no disk, parses no JSON, and never
//! waits for a sink, a session or the store. It knows encodings, not the bytes of any protocol.

mod batch;
#[cfg(test)]
mod fixtures;
mod handle;
mod outbox;
mod pager;
mod presence;
mod room;
mod roster;
mod sink;
mod state;
#[cfg(test)]
mod state_model;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select, Sender, TryRecvError, bounded};

use crate::limits::{
    CLOSE_WAIT, COMMANDS_PER_ROUND_MAX, COMMANDS_QUEUED_MAX, Limits, OUTBOXES_BYTES_MAX, PROPOSALS_PENDING_MAX,
    SLOW_CLOSE_WAIT, STACK_BYTES,
};
use crate::metrics::{Drop as DropReason, Metrics};
use crate::model::reason::{Code, Rejection};
use crate::model::{ConnectionId, Timestamp};
use crate::protocol::{ClientFrame, Rejected};
use crate::store::change::Change;
use crate::store::entry::{By, NewMessage, Proposal, ReplyTo};
use crate::store::{Reader, Writer};
use crate::threads::AbortOnPanic;
use crate::wire::{CloseReason, Encoding};

use batch::{Batch, InUse, RoomBatch};
pub use handle::{Answer, HubApi, PublishedPresence, RoomPresence, Said, presence as new_presence};
use outbox::Outbox;
use pager::Pager;
pub use sink::{Chunk, ChunkSender, Sink};
pub use state::Arrival;
use state::{Effect, Fetch, MemberKey, RoomKey, State};

/// How soon full sinks are tried again, and what each of them adds to that, so that a crowd of stalled readers
/// takes no more than a few hundredths of the hub's time.
const RETRY_AFTER: Duration = Duration::from_millis(2);
const RETRY_AFTER_EACH: Duration = Duration::from_micros(20);
/// How soon a sink is tried again that only has the reason for its end to take.
const RETRY_CLOSE_AFTER: Duration = Duration::from_millis(50);

/// What the hub is told or asked.
#[derive(Debug)]
pub enum Command {
    /// A connection's handshake is done; from here on the hub alone writes to its sink.
    Connect(Box<Connect>),
    /// What a connection sent, in order.
    Frames { from: ConnectionId, frames: Vec<Inbound> },
    /// A connection's session has ended: nothing more comes from it, nothing can reach it.
    Gone { from: ConnectionId },
    /// A message is proposed by a request. Each channel for an answer has room for it.
    Say { message: Box<NewMessage>, answer: Sender<Answer> },
    /// A change is proposed by a request or a tool.
    Change { by: By, change: Box<Change>, answer: Sender<Answer> },
    /// Asks whether the hub answers at all.
    Ping { answer: Sender<()> },
    /// The server stops: commit, close every connection with 1001, end.
    Stop,
}

/// A new member, with where its frames go and how they are encoded.
#[derive(Debug)]
pub struct Connect {
    pub sink: Sink,
    pub encoding: Encoding,
    pub arrival: Arrival,
}

/// One thing that a connection sent.
#[derive(Debug)]
pub enum Inbound {
    /// A command.
    Frame(ClientFrame),
    /// A command that came too fast, and that may have been stored before.
    Limited(ClientFrame, Box<Rejection>),
    /// Something that its session did not take.
    Rejected(Rejected),
    /// The peer has closed and been answered, or has gone: nothing may be sent to it any more.
    Closed {
        /// Whether it means to go, and not to come back at once.
        is_clean: bool,
    },
    /// Bytes that the protocol wants written: pongs and the answer to a close.
    Control(Vec<u8>),
    /// The end, by a rule that the peer broke.
    Close(CloseReason),
}

/// The channel to the hub, bounded by [`COMMANDS_QUEUED_MAX`]: whoever finds it full waits.
#[must_use]
pub fn channel() -> (Sender<Command>, Receiver<Command>) {
    bounded(COMMANDS_QUEUED_MAX)
}

/// The hub's ends of its channels.
#[derive(Debug)]
pub struct Ends {
    /// What it is told.
    pub commands: Receiver<Command>,
    /// To the store, and back.
    pub store: Writer,
    /// The policy and the log time.
    pub reader: Reader,
    /// Where it publishes who is in which room.
    pub presence: PublishedPresence,
}

/// Starts the hub's thread and its pager's. They end after [`Command::Stop`], or when nobody is left who could tell
/// the hub anything.
///
/// # Errors
/// Where the system gives no thread.
pub fn start(ends: Ends, limits: Limits, metrics: Arc<Metrics>) -> io::Result<Vec<JoinHandle<()>>> {
    let (pager, paging) = Pager::start(ends.reader.clone())?;
    let builder = thread::Builder::new().name("hub".into()).stack_size(8 * STACK_BYTES);
    let hub = builder.spawn(move || {
        let _abort = AbortOnPanic("hub");
        Hub::new(ends, pager, limits, metrics).run();
    })?;
    Ok(vec![hub, paging])
}

struct Hub {
    ends: Ends,
    pager: Pager,
    limits: Limits,
    metrics: Arc<Metrics>,
    state: State,
    /// What the store will be sent when it has given back what it has.
    pending: Vec<Proposal>,
    with_store: bool,
    /// By member key: nothing where the connection has gone and its `leave` has not come back.
    peers: Vec<Option<Peer>>,
    /// By room key: frames that the room's members have not been sent, and the encodings of the members.
    batches: Vec<RoomBatch>,
    touched_rooms: Vec<RoomKey>,
    touched_peers: Vec<MemberKey>,
    /// Whether a batch is so large that it should not wait for the end of the round.
    flush_due: bool,
    /// Members whose outbox is not empty.
    waiting: Vec<MemberKey>,
    /// Connections that were told their close code, until they go.
    closing: HashMap<ConnectionId, Closing>,
    /// Members that catch up and have not taken what they were sent.
    fetches: Vec<Fetch>,
    /// Requests that wait for an answer, by their number.
    requests: HashMap<u64, Sender<Answer>>,
    next_request: u64,
    /// By encoding: when to send which member its next keep-alive. Within one encoding every interval is the same, so what
    /// is pushed behind is due last.
    keep_alives: [VecDeque<(Instant, MemberKey, ConnectionId)>; Encoding::COUNT],
    retry_at: Option<Instant>,
    stopping: Stopping,
}

struct Peer {
    connection: ConnectionId,
    outbox: Outbox,
    /// Frames for this one alone, not yet sent.
    own: Vec<u8>,
}

impl Peer {
    /// Sends a batch from `begin`, and notes the member where something of it has to wait.
    fn send(&mut self, batch: &mut Batch<'_>, begin: usize, member: MemberKey, waiting: &mut Vec<MemberKey>) {
        let waited = !self.outbox.is_empty();
        self.outbox.send(batch, begin);
        if !waited && !self.outbox.is_empty() {
            waiting.push(member);
        }
    }
}

struct Closing {
    outbox: Outbox,
    until: Instant,
    /// Whether all was sent, and the peer knows that nothing more comes.
    ended: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stopping {
    No,
    /// Nothing new is taken; what is with the store is waited for.
    Committing,
    /// Everybody was told.
    Closing,
}

impl Hub {
    fn new(ends: Ends, pager: Pager, limits: Limits, metrics: Arc<Metrics>) -> Self {
        Self {
            state: State::new(&limits, ends.reader.policy(), ends.reader.moment()),
            ends,
            pager,
            limits,
            metrics,
            pending: Vec::new(),
            with_store: false,
            peers: Vec::new(),
            batches: Vec::new(),
            touched_rooms: Vec::new(),
            touched_peers: Vec::new(),
            flush_due: false,
            waiting: Vec::new(),
            closing: HashMap::new(),
            fetches: Vec::new(),
            requests: HashMap::new(),
            next_request: 0,
            keep_alives: Default::default(),
            retry_at: None,
            stopping: Stopping::No,
        }
    }

    /// One round after another: wait, take what there is, send.
    fn run(mut self) {
        let mut connected = true;
        while connected || self.has_work() {
            self.wait(connected);
            self.take_applied();
            self.take_pages();
            connected &= self.take_commands();
            self.state.end_leases();
            self.state.tell_presence();
            self.carry_out();
            self.feed_store();
            self.flush();
            let moment = Instant::now();
            self.keep_alive(moment);
            if self.stopping == Stopping::Committing && self.pending.is_empty() && !self.with_store {
                self.close_all();
            }
            // Last, as all that went before may have left something to be tried again.
            self.retry(moment);
            self.fetch();
            if self.stopping == Stopping::Closing && self.closing.is_empty() {
                return;
            }
            self.show();
        }
    }

    fn has_work(&self) -> bool {
        self.with_store || !self.pending.is_empty() || !self.closing.is_empty()
    }

    /// Whether commands are taken: not while the store is so far behind that its queue is full.
    fn takes_commands(&self) -> bool {
        self.pending.len() < PROPOSALS_PENDING_MAX
    }

    /// Waits until a command or the store's answer is there, or something is due.
    fn wait(&self, connected: bool) {
        let commands = connected && self.takes_commands();
        if (commands && !self.ends.commands.is_empty())
            || (self.with_store && !self.ends.store.applied.is_empty())
            || !self.pager.pages.is_empty()
        {
            return;
        }
        let mut select = Select::new();
        if commands {
            select.recv(&self.ends.commands);
        }
        if self.with_store {
            select.recv(&self.ends.store.applied);
        }
        select.recv(&self.pager.pages);
        let keep_alive_at = self.keep_alives.iter().filter_map(VecDeque::front).map(|(at, ..)| *at).min();
        match [self.retry_at, keep_alive_at, self.state.lease_due(), self.state.presence_due()]
            .into_iter()
            .flatten()
            .min()
        {
            // Which of them it is does not matter: the round looks at both. A time-out is a round, too.
            Some(due) => drop(select.ready_deadline(due)),
            None => drop(select.ready()),
        }
    }

    fn take_applied(&mut self) {
        let batch = if self.with_store { self.ends.store.applied.try_recv().ok() } else { None };
        // Behind the batch, so that the policy has what the batch has changed.
        self.state.begin_round(self.ends.reader.policy(), self.ends.reader.moment(), Timestamp::now(), Instant::now());
        let Some(batch) = batch else { return };
        self.with_store = false;
        for applied in batch {
            self.state.applied(applied);
            self.carry_out();
        }
    }

    fn take_pages(&mut self) {
        for _ in 0..COMMANDS_PER_ROUND_MAX {
            let Ok((fetch, frames)) = self.pager.pages.try_recv() else { return };
            self.state.page(&fetch, frames);
            self.carry_out();
        }
    }

    /// Takes what is queued, up to a count. False when nobody is left to send anything.
    fn take_commands(&mut self) -> bool {
        for _ in 0..COMMANDS_PER_ROUND_MAX {
            if !self.takes_commands() {
                break;
            }
            match self.ends.commands.try_recv() {
                Ok(command) => self.command(command),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
        true
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Connect(connect) => self.connect(*connect),
            Command::Frames { from, frames } => {
                for frame in frames {
                    // Looked up each time, as a frame may be the end of the connection.
                    let Some(member) = self.state.member(from) else { return };
                    self.inbound(member, frame);
                }
            }
            Command::Gone { from } => {
                match self.state.member(from) {
                    Some(member) => drop(self.take_peer(member, true)),
                    None => drop(self.closing.remove(&from)),
                }
                self.carry_out();
            }
            Command::Say { message, answer } => {
                if let Some(reply_to) = self.request(answer) {
                    self.state.say(*message, reply_to);
                    self.carry_out();
                }
            }
            Command::Change { by, change, answer } => {
                if let Some(reply_to) = self.request(answer) {
                    self.state.change(by, change, reply_to);
                    self.carry_out();
                }
            }
            // Whoever asked may have given up waiting.
            Command::Ping { answer } => drop(answer.try_send(())),
            Command::Stop => self.stopping = Stopping::Committing,
        }
    }

    /// The number by which a request's answer is found; nothing where the server stops: the request sees that there is
    /// no answer.
    fn request(&mut self, answer: Sender<Answer>) -> Option<ReplyTo> {
        if self.stopping != Stopping::No {
            return None;
        }
        self.next_request += 1;
        self.requests.insert(self.next_request, answer);
        Some(ReplyTo::Request(self.next_request))
    }

    fn connect(&mut self, connect: Connect) {
        let Connect { sink, encoding, arrival } = connect;
        let connection = arrival.connection;
        let outbox = Outbox::new(sink, encoding);
        if self.stopping != Stopping::No {
            return self.begin_close(connection, outbox, CloseReason::GoingAway);
        }
        let member = self.state.connect(arrival);
        if self.peers.len() <= member.0 {
            self.peers.resize_with(member.0 + 1, || None);
        }
        self.peers[member.0] = Some(Peer { connection, outbox, own: Vec::new() });
        let keep_alive_at = Instant::now() + encoding.keep_alive_interval(self.limits.ping_interval);
        self.keep_alives[encoding.index()].push_back((keep_alive_at, member, connection));
        self.carry_out();
    }

    fn inbound(&mut self, member: MemberKey, frame: Inbound) {
        if self.stopping != Stopping::No {
            // Silence means unknown: the client sends it again when it has come back.
            return;
        }
        match frame {
            Inbound::Frame(frame) => self.state.frame(member, frame, None),
            Inbound::Limited(frame, rejected) => {
                self.metrics.dropped(DropReason::RateLimited);
                self.state.frame(member, frame, Some(rejected));
            }
            Inbound::Rejected(rejected) => {
                let limited = rejected.rejection.reason.code() == Code::RateLimited;
                self.metrics.dropped(if limited { DropReason::RateLimited } else { DropReason::Rejected });
                self.state.reject(member, None, &rejected);
            }
            Inbound::Control(bytes) => self.own(member, |_, own| own.extend_from_slice(&bytes)),
            Inbound::Closed { is_clean } => drop(self.take_peer(member, !is_clean)),
            Inbound::Close(reason) => self.close(member, reason),
        }
        self.carry_out();
    }

    /// Does what the state decided, but for sending: that waits for the end of the round.
    fn carry_out(&mut self) {
        let mut effects = std::mem::take(&mut self.state.effects);
        let mut closes = Vec::new();
        for effect in effects.drain(..) {
            match effect {
                Effect::Propose(proposal) => self.pending.push(proposal),
                Effect::Send { to, json } => self.send_own(to, &json),
                Effect::Broadcast { room, json } => self.broadcast(room, &json),
                Effect::Enter { room, member } => self.enter(room, member),
                Effect::Exit { room, member } => self.flush_last(room, member),
                Effect::Fetch(fetch) => self.fetches.push(fetch),
                Effect::Answer { request, answer } => {
                    if let Some(requester) = self.requests.remove(&request) {
                        // The requester may have given up waiting.
                        drop(requester.try_send(answer));
                    }
                }
                Effect::Close { member, reason } => closes.push((member, reason)),
                Effect::RoomGone { room } => {
                    if let Some(batch) = self.batches.get_mut(room.0) {
                        *batch = RoomBatch::default();
                    }
                }
            }
        }
        // Its memory is used again.
        self.state.effects = effects;
        for (member, reason) in closes {
            self.close(member, reason);
            self.carry_out();
        }
        // Only here, where the members that the state knows are those that the effects have made.
        if self.flush_due {
            self.flush();
        }
    }

    fn batch(&mut self, room: RoomKey) -> &mut RoomBatch {
        if self.batches.len() <= room.0 {
            self.batches.resize_with(room.0 + 1, RoomBatch::default);
        }
        &mut self.batches[room.0]
    }

    fn enter(&mut self, room: RoomKey, member: MemberKey) {
        if let Some(Some(peer)) = self.peers.get(member.0) {
            let encoding = peer.outbox.encoding();
            self.batch(room).enter(member, encoding);
        }
    }

    fn broadcast(&mut self, room: RoomKey, json: &[u8]) {
        let batch = self.batch(room);
        let is_first = batch.frames() == 0;
        let is_large = batch.push(json);
        self.flush_due |= is_large;
        if is_first {
            self.touched_rooms.push(room);
        }
    }

    /// Adds a frame for one member alone.
    fn send_own(&mut self, member: MemberKey, json: &[u8]) {
        self.own(member, |encoding, own| encoding.append_frame(own, json));
    }

    /// Adds bytes for one member alone.
    fn own(&mut self, member: MemberKey, add: impl FnOnce(Encoding, &mut Vec<u8>)) {
        if let Some(Some(peer)) = self.peers.get_mut(member.0) {
            if peer.own.is_empty() {
                self.touched_peers.push(member);
            }
            add(peer.outbox.encoding(), &mut peer.own);
        }
    }

    /// Sends what is a member's own, before what it gets with its rooms.
    fn flush_own(&mut self, member: MemberKey) {
        if let Some(Some(peer)) = self.peers.get_mut(member.0)
            && !peer.own.is_empty()
        {
            // Taken away rather than cleared: a long replay's memory is not kept for every member.
            let own = std::mem::take(&mut peer.own);
            peer.send(&mut Batch::new(&own), 0, member, &mut self.waiting);
        }
    }

    /// Sends a member that leaves a room what the room's batch has for it up to here.
    fn flush_last(&mut self, room: RoomKey, member: MemberKey) {
        self.flush_own(member);
        if let (Some(batch), Some(Some(peer))) = (self.batches.get(room.0), self.peers.get_mut(member.0)) {
            let begin = batch.begin_of(member);
            peer.send(&mut batch.batch(peer.outbox.encoding()), begin, member, &mut self.waiting);
        }
    }

    /// The heart: every touched room's batch to every member, one `send` each. Before a frame tells of it, presence is
    /// published.
    fn flush(&mut self) {
        if let Some(presence) = self.state.take_presence() {
            self.ends.presence.set(presence);
        }
        let mut touched = std::mem::take(&mut self.touched_peers);
        for member in touched.drain(..) {
            self.flush_own(member);
        }
        self.touched_peers = touched;

        self.flush_due = false;
        let mut deliveries = 0;
        for room in self.touched_rooms.drain(..) {
            let room_batch = &mut self.batches[room.0];
            let mut batches = room_batch.batches();
            let mut in_use = InUse::default();
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
            room_batch.clear(in_use);
        }
        self.metrics.deliveries.add(deliveries);
    }

    /// Asks for the pages of those who have taken what they were sent.
    fn fetch(&mut self) {
        let (peers, pager) = (&self.peers, &self.pager);
        self.fetches.retain(|fetch| match peers.get(fetch.member.0) {
            Some(Some(peer)) if peer.own.is_empty() && peer.outbox.is_empty() => {
                pager.fetch(fetch.clone());
                false
            }
            Some(Some(_)) => true,
            // The connection has gone.
            _ => false,
        });
    }

    /// Sends the store what is pending, if it has given back what it had.
    fn feed_store(&mut self) {
        if !self.with_store && !self.pending.is_empty() {
            let batch = std::mem::take(&mut self.pending);
            // There is room: the channel holds one batch, and the last has come back.
            self.with_store = self.ends.store.proposals.try_send(batch).is_ok();
        }
    }

    fn keep_alive(&mut self, now: Instant) {
        for encoding in Encoding::ALL {
            let interval = encoding.keep_alive_interval(self.limits.ping_interval);
            while let Some(&(at, member, connection)) = self.keep_alives[encoding.index()].front()
                && at <= now
            {
                self.keep_alives[encoding.index()].pop_front();
                // The key may be another connection's by now.
                if self.state.member(connection) == Some(member) {
                    self.own(member, |encoding, own| encoding.append_keep_alive(own));
                    self.flush_own(member);
                    self.keep_alives[encoding.index()].push_back((now + interval, member, connection));
                }
            }
        }
        self.touched_peers.clear();
    }

    /// Tries full sinks again, and ends slow consumers and those that were told to go and did not.
    fn retry(&mut self, now: Instant) {
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

    /// Takes a connection from its member, which leaves its rooms or keeps its place for a while. What is the member's own
    /// has been sent.
    fn take_peer(&mut self, member: MemberKey, keeps_place: bool) -> Option<Peer> {
        self.flush_own(member);
        let peer = self.peers.get_mut(member.0)?.take()?;
        self.state.disconnect(peer.connection, keeps_place);
        Some(peer)
    }

    /// Ends a connection from this side: its sink gets the reason behind what waits.
    fn close(&mut self, member: MemberKey, reason: CloseReason) {
        // A client that was too slow, or was lost, may be back in a moment.
        let keeps_place = [CloseReason::SlowConsumer, CloseReason::Overtaken, CloseReason::Idle].contains(&reason);
        if let Some(peer) = self.take_peer(member, keeps_place) {
            self.begin_close(peer.connection, peer.outbox, reason);
        }
    }

    fn begin_close(&mut self, connection: ConnectionId, mut outbox: Outbox, reason: CloseReason) {
        outbox.send_close(reason);
        // Who was too slow is given time to come to the end of what the system holds for it, and read why.
        let wait = if reason == CloseReason::SlowConsumer { SLOW_CLOSE_WAIT } else { CLOSE_WAIT };
        self.closing.insert(connection, Closing { outbox, until: Instant::now() + wait, ended: false });
        self.retry_at = None;
    }

    fn close_all(&mut self) {
        self.stopping = Stopping::Closing;
        for index in 0..self.peers.len() {
            self.close(MemberKey(index), CloseReason::GoingAway);
        }
        let until = Instant::now() + CLOSE_WAIT;
        for closing in self.closing.values_mut() {
            closing.until = closing.until.min(until);
        }
        // Nobody is left to be told that the others go.
        self.state.effects.clear();
        self.pending.clear();
    }

    fn show(&self) {
        self.metrics.members.set(self.state.connection_count());
        self.metrics.rooms.set(self.state.room_count());
        self.metrics.outboxes_waiting.set(self.waiting.len());
        self.metrics.commands_queued.set(self.ends.commands.len());
        self.metrics.proposals_pending.set(self.pending.len());
    }
}
