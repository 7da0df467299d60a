//! The hub: one thread that owns rooms, members and every outbox.
//!
//! Each round it takes the queued commands, up to a count, and lets [`state`] decide. It hands proposals to the store,
//! and then sends each touched room's batch with one `send` per member. While more commands are queued, it sends the
//! batch to the authors of its frames only, and the others get it a few rounds later. It touches no disk, parses no
//! JSON, and never waits for a sink, a session or the store. It knows encodings, but not the bytes of any protocol.

mod batch;
mod command;
mod delivery;
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
use std::time::Instant;

use crossbeam_channel::{Sender, TryRecvError};

use crate::limits::{CLOSE_WAIT, COMMANDS_PER_ROUND_MAX, Limits, PROPOSALS_PENDING_MAX, STACK_BYTES};
use crate::metrics::{Drop as DropReason, Metrics};
use crate::model::reason::Code;
use crate::model::{ConnectionId, Timestamp};
use crate::store::entry::{Proposal, ReplyTo};
use crate::store::{Reader, Writer};
use crate::threads::AbortOnPanic;
use crate::wire::{CloseReason, Encoding};

use batch::{Batch, RoomBatch};
pub use command::{Command, CommandQueue, Commands, Connect, Inbound, channel};
pub use handle::{Answer, HubApi, PublishedPresence, RoomPresence, Sent, presence as new_presence};
use outbox::Outbox;
use pager::Pager;
pub use sink::{Chunk, ChunkSender, Sink};
pub use state::Arrival;
use state::{Effect, Fetch, MemberKey, RoomKey, State};

/// The hub's ends of its channels, and what it reads and publishes.
#[derive(Debug)]
pub struct Ends {
    /// Commands to the hub, and where its thread sleeps.
    pub queue: CommandQueue,
    /// The channels to the store and back.
    pub store: Writer,
    /// Reads the policy and the log time.
    pub reader: Reader,
    /// Where the hub publishes the people of each room.
    pub presence: PublishedPresence,
}

/// Starts the hub's thread and its pager's. They end after [`Command::Stop`], or when all senders of commands are
/// dropped.
///
/// # Errors
/// If the system can't start a thread.
pub fn start(ends: Ends, limits: Limits, metrics: Arc<Metrics>) -> io::Result<Vec<JoinHandle<()>>> {
    let (pager, paging) = Pager::start(ends.reader.clone(), &ends.queue.sleeper)?;
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
    /// Proposals for the store's next batch. They are sent when the store has returned the current batch.
    pending: Vec<Proposal>,
    with_store: bool,
    /// By member key: `None` if the connection has closed and the member's last `leave` has not come back from the
    /// store.
    peers: Vec<Option<Peer>>,
    /// By room key: the frames that the room's members have not been sent yet, and the members' encodings.
    batches: Vec<RoomBatch>,
    touched_rooms: Vec<RoomKey>,
    touched_peers: Vec<MemberKey>,
    /// Whether a batch is so large that it should be sent before the end of the round.
    flush_due: bool,
    /// Members whose outbox is not empty.
    waiting: Vec<MemberKey>,
    /// Connections that were sent a close reason, until they are gone.
    closing: HashMap<ConnectionId, Closing>,
    /// Page fetches that wait until the member's sink has taken all earlier frames.
    fetches: Vec<Fetch>,
    /// Requests that wait for an answer, by their number.
    requests: HashMap<u64, Sender<Answer>>,
    next_request: u64,
    /// By encoding: when each member is due its next keep-alive. All intervals of one encoding are equal, so the queue
    /// is in the order of the due times.
    keep_alives: [VecDeque<(Instant, MemberKey, ConnectionId)>; Encoding::COUNT],
    retry_at: Option<Instant>,
    stopping: Stopping,
}

struct Peer {
    connection: ConnectionId,
    outbox: Outbox,
    /// Frames for this member only that are not sent yet.
    own: Vec<u8>,
}

impl Peer {
    /// Sends a batch from `begin`. If a part of it has to wait, the member is added to `waiting`.
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
    /// Whether everything was sent and the sending side is shut down.
    ended: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stopping {
    No,
    /// The hub takes no new commands. It waits for the batch that is with the store.
    Committing,
    /// Every connection was sent the close reason.
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

    /// Runs rounds until the server stops: wait, take what is queued, send.
    fn run(mut self) {
        let mut connected = true;
        while connected || self.has_work() {
            self.wait(connected);
            self.take_applied();
            self.take_pages();
            connected &= self.take_commands();
            self.state.end_leases();
            self.state.send_presence();
            self.carry_out();
            self.feed_store();
            let moment = Instant::now();
            self.end_round(moment);
            self.keep_alive(moment);
            if self.stopping == Stopping::Committing && self.pending.is_empty() && !self.with_store {
                self.close_all();
            }
            // This comes last, because any step before it may have left something to be tried again.
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

    /// Whether commands are taken. They are not taken while the queue to the store is full.
    fn takes_commands(&self) -> bool {
        self.pending.len() < PROPOSALS_PENDING_MAX
    }

    /// Whether commands are queued that the next round takes at once.
    fn has_commands(&self) -> bool {
        self.takes_commands() && !self.ends.queue.commands.is_empty()
    }

    /// Waits until a command, a page or a batch from the store is there, or a timer is due. May return early.
    fn wait(&self, connected: bool) {
        if (connected && self.has_commands())
            || (self.with_store && !self.ends.store.applied.is_empty())
            || !self.pager.pages.is_empty()
        {
            return;
        }
        let keep_alive_at = self.keep_alives.iter().filter_map(VecDeque::front).map(|(at, ..)| *at).min();
        let timers = [self.retry_at, keep_alive_at, self.state.lease_due(), self.state.presence_due()];
        self.ends.queue.sleeper.sleep(timers.into_iter().flatten().min());
    }

    fn take_applied(&mut self) {
        let batch = if self.with_store { self.ends.store.applied.try_recv().ok() } else { None };
        // After the batch is taken, so that the policy includes the changes of the batch.
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

    /// Takes the queued commands, up to a count. Returns false if all senders are dropped.
    fn take_commands(&mut self) -> bool {
        for _ in 0..COMMANDS_PER_ROUND_MAX {
            if !self.takes_commands() {
                break;
            }
            match self.ends.queue.commands.try_recv() {
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
                    // The member is looked up each time, because a frame may close the connection.
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
            Command::SendMessage { message, makes_room, answer } => {
                if let Some(reply_to) = self.request(answer) {
                    self.state.send_message(*message, makes_room, reply_to);
                    self.carry_out();
                }
            }
            Command::Change { by, change, answer } => {
                if let Some(reply_to) = self.request(answer) {
                    self.state.change(by, change, reply_to);
                    self.carry_out();
                }
            }
            // The requester may have given up.
            Command::Ping { answer } => drop(answer.try_send(())),
            Command::Stop => self.stopping = Stopping::Committing,
        }
    }

    /// Registers a request and returns its number. Returns `None` if the server is stopping: the channel is dropped, so
    /// the request gets no answer.
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
            // No answer means an unknown outcome: the client sends the frame again after it reconnects.
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

    /// Carries out the effects of the state. Most bytes are sent only at the end of the round.
    fn carry_out(&mut self) {
        let mut effects = std::mem::take(&mut self.state.effects);
        let mut closes = Vec::new();
        for effect in effects.drain(..) {
            match effect {
                Effect::Propose(proposal) => self.pending.push(proposal),
                Effect::Send { to, json } => self.send_own(to, &json),
                Effect::Broadcast { room, json, author } => self.broadcast(room, &json, author),
                Effect::Enter { room, member } => self.enter(room, member),
                Effect::Exit { room, member } => self.flush_last(room, member),
                Effect::Fetch(fetch) => self.fetches.push(fetch),
                Effect::Answer { request, answer } => {
                    if let Some(requester) = self.requests.remove(&request) {
                        // The requester may have given up.
                        drop(requester.try_send(answer));
                    }
                }
                Effect::Close { member, reason } => closes.push((member, reason)),
                Effect::RoomGone { room } => {
                    if let Some(batch) = self.batches.get_mut(room.0) {
                        *batch = RoomBatch::default();
                        self.touched_rooms.retain(|touched| *touched != room);
                    }
                }
            }
        }
        // The vector's memory is used again.
        self.state.effects = effects;
        for (member, reason) in closes {
            self.close(member, reason);
            self.carry_out();
        }
        // A flush is safe only here: the effects are done, so the hub's tables agree with the members in the state.
        if self.flush_due {
            self.flush(Instant::now());
        }
    }

    /// Asks the pager for the next pages of members whose sinks have taken all earlier frames.
    fn fetch(&mut self) {
        let (peers, pager) = (&self.peers, &self.pager);
        self.fetches.retain(|fetch| match peers.get(fetch.member.0) {
            Some(Some(peer)) if peer.own.is_empty() && peer.outbox.is_empty() => {
                pager.fetch(fetch.clone());
                false
            }
            Some(Some(_)) => true,
            // The connection has closed.
            _ => false,
        });
    }

    /// Sends the pending proposals to the store, if it has returned the last batch.
    fn feed_store(&mut self) {
        if !self.with_store && !self.pending.is_empty() {
            let batch = std::mem::take(&mut self.pending);
            // The channel has room: it holds one batch, and the last one has come back.
            self.with_store = self.ends.store.proposals.try_send(batch).is_ok();
        }
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
        // No connection is left to receive the leaves.
        self.state.effects.clear();
        self.pending.clear();
    }

    fn show(&self) {
        self.metrics.members.set(self.state.connection_count());
        self.metrics.rooms.set(self.state.room_count());
        self.metrics.outboxes_waiting.set(self.waiting.len());
        self.metrics.commands_queued.set(self.ends.queue.commands.len());
        self.metrics.proposals_pending.set(self.pending.len());
    }
}
