//! The hub: one thread that owns rooms, members and every outbox.
//!
//! It takes what is queued, up to a count, lets [`state`] decide, hands what is to be stored to the store, and then
//! sends each touched room's batch with one `send` per member. It touches no disk, parses no JSON, and never
//! waits for a sink, a session or the store. It knows encodings, not the bytes of any protocol.

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

use crossbeam_channel::{Receiver, Select, Sender, TryRecvError};

use crate::limits::{CLOSE_WAIT, COMMANDS_PER_ROUND_MAX, Limits, PROPOSALS_PENDING_MAX, STACK_BYTES};
use crate::metrics::{Drop as DropReason, Metrics};
use crate::model::reason::Code;
use crate::model::{ConnectionId, Timestamp};
use crate::store::entry::{Proposal, ReplyTo};
use crate::store::{Reader, Writer};
use crate::threads::AbortOnPanic;
use crate::wire::{CloseReason, Encoding};

use batch::{Batch, RoomBatch};
pub use command::{Command, Connect, Inbound, channel};
pub use handle::{Answer, HubApi, PublishedPresence, RoomPresence, Said, presence as new_presence};
use outbox::Outbox;
use pager::Pager;
pub use sink::{Chunk, ChunkSender, Sink};
pub use state::Arrival;
use state::{Effect, Fetch, MemberKey, RoomKey, State};

/// The hub's ends of its channels.
#[derive(Debug)]
pub struct Ends {
    /// What it is told.
    pub commands: Receiver<Command>,
    /// To the store, and back.
    pub store: Writer,
    /// The policy and the log time.
    pub reader: Reader,
    /// Where it publishes the people of each room.
    pub presence: PublishedPresence,
}

/// Starts the hub's thread and its pager's. They end after [`Command::Stop`], or when all
/// senders of commands are gone.
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
    /// Every connection was told the reason.
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

    /// Takes what is queued, up to a count. False when all senders are gone.
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
            // The requester may have given up waiting.
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

    fn close_all(&mut self) {
        self.stopping = Stopping::Closing;
        for index in 0..self.peers.len() {
            self.close(MemberKey(index), CloseReason::GoingAway);
        }
        let until = Instant::now() + CLOSE_WAIT;
        for closing in self.closing.values_mut() {
            closing.until = closing.until.min(until);
        }
        // No connection is left to be told of the leaves.
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
