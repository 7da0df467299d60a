//! The hub: one thread that owns rooms, members and every outbox.
//!
//! It takes what is queued, up to a count, lets [`state`] decide, hands what is to be stored to the store, and then
//! sends each touched room's batch with one `send` per member. It touches no disk, parses no JSON, and never
//! waits for a socket, a session or the store.

mod handle;
mod order;
mod outbox;
mod pager;
mod room;
mod rules;
mod state;
#[cfg(test)]
mod state_model;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select, Sender, TryRecvError, bounded};

use crate::config::Keep;
use crate::limits::{
    APPENDS_PENDING_MAX, BATCH_BYTES_KEPT, BATCH_BYTES_MAX, CLOSE_WAIT, COMMANDS_PER_ROUND_MAX, COMMANDS_QUEUED_MAX,
    Limits, OUTBOXES_BYTES_MAX, SLOW_CLOSE_WAIT, STACK_BYTES,
};
use crate::metrics::{Drop as DropReason, Metrics};
use crate::model::{ConnectionId, Person, RoomId, Timestamp, UserId};
use crate::protocol::{ClientFrame, ErrorCode, Rejected, Replay};
use crate::role::Role;
use crate::store::accounts::SessionKey;
use crate::store::{Append, NewGuest, NewMessage, Reader, Ticket, Writer};
use crate::threads::Vital;
use crate::ws::{CloseReason, PING, encode_text};

pub use handle::{Busy, Directory, Handle, HistoryError, HistoryFrom, Known, Post, Roll, RoomDetail, RoomSummary};
pub use order::{Order, Standpoint};
use outbox::{Batch, Outbox};
use pager::Pager;
pub use rules::{Rules, rejected};
use state::{Arrival, Effect, Fetch, MemberKey, Overtaken, RoomKey, State};
pub use state::{Errand, Outcome};

/// How long it takes at the most from looking somebody up to their being here.
const ARRIVAL_WAIT: Duration = Duration::from_secs(60);
/// How soon full sockets are tried again, and what each of them adds to that, so that a crowd of stalled readers
/// takes no more than a few hundredths of the hub's time.
const RETRY_AFTER: Duration = Duration::from_millis(2);
const RETRY_AFTER_EACH: Duration = Duration::from_micros(20);
/// How soon a socket is tried again that only has its close frame to take.
const RETRY_CLOSE_AFTER: Duration = Duration::from_millis(50);

/// What the hub is told or asked.
#[derive(Debug)]
pub enum Command {
    /// A connection's handshake is done; from here on the hub alone writes to its socket.
    Connect(Box<Connect>),
    /// What a connection sent, in order.
    Frames {
        /// Which connection.
        from: ConnectionId,
        /// What.
        frames: Vec<Inbound>,
    },
    /// A connection's session has ended: nothing more comes from it, nothing can reach it.
    Gone {
        /// Which connection.
        from: ConnectionId,
    },
    /// Which rooms have members.
    ListRooms {
        /// Only those behind this id.
        after: Option<RoomId>,
        /// So many at most.
        limit: usize,
        /// Where the answer goes; it has room for it.
        answer: Sender<Vec<RoomSummary>>,
    },
    /// Who is in a room.
    ShowRoom {
        /// Which.
        id: RoomId,
        /// Where the answer goes; it has room for it.
        answer: Sender<Option<RoomDetail>>,
    },
    /// A message comes over HTTP.
    Post {
        /// What.
        post: Box<Post>,
        /// Where the answer goes; it has room for it.
        answer: Sender<Outcome>,
    },
    /// Something is changed of people or rooms, and holds at once.
    Order(Order),
    /// Who is here by a session.
    CallRoll {
        /// Where the answer goes; it has room for it.
        answer: Sender<Roll>,
    },
    /// What became of an errand.
    ErrandDone {
        /// As it was given.
        errand: Box<Errand>,
        /// That it is done, in a sentence, or why not.
        outcome: Result<String, Rejected>,
    },
    /// Where somebody's open connections come from.
    NetworksOf {
        /// Whose.
        user: UserId,
        /// Where the answer goes; it has room for it.
        answer: Sender<Vec<IpAddr>>,
    },
    /// The server stops: commit, close every connection with 1001, end.
    Stop,
}

/// A new member.
#[derive(Debug)]
pub struct Connect {
    /// Its connection.
    pub connection: ConnectionId,
    /// Its socket.
    pub socket: Arc<TcpStream>,
    /// Who it is.
    pub person: Person,
    /// What they may do.
    pub role: Role,
    /// By which session they are known, where they are.
    pub session: Option<SessionKey>,
    /// Where they come from, as addresses are counted.
    pub network: IpAddr,
    /// The room of its URL.
    pub room: RoomId,
    /// What it wants of that room's past.
    pub replay: Replay,
    /// Set for a guest who was never here before.
    pub newcomer: Option<Newcomer>,
    /// When it was begun to look up who it is: what was ordered since is not in that.
    pub asked_at: Instant,
}

/// A guest who was never here before.
#[derive(Debug)]
pub struct Newcomer {
    /// The identity to keep.
    pub guest: NewGuest,
    /// The token to tell, once.
    pub token: Box<str>,
}

/// One thing that a connection sent.
#[derive(Debug)]
pub enum Inbound {
    /// A command.
    Frame(ClientFrame),
    /// A command that came too fast, and that may have been stored before.
    Limited(ClientFrame, Box<Rejected>),
    /// Something that its session did not take.
    Rejected(Rejected),
    /// The peer has closed and been answered, or has gone: nothing may be sent to it any more.
    Closed {
        /// Whether it means to go, and not to come back at once.
        is_farewell: bool,
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
    /// What it hands on to be carried out, if there is room.
    pub errands: Sender<Errand>,
}

/// Starts the hub's thread and its pager's. They end after [`Command::Stop`], or when nobody is left who could tell
/// the hub anything.
///
/// # Errors
/// Where the system gives no thread.
pub fn start(
    ends: Ends,
    reader: Reader,
    rules: Rules,
    keep: Keep,
    limits: Limits,
    metrics: Arc<Metrics>,
) -> io::Result<Vec<JoinHandle<()>>> {
    let (pager, paging) = Pager::start(reader)?;
    let builder = thread::Builder::new().name("hub".into()).stack_size(8 * STACK_BYTES);
    let hub = builder.spawn(move || {
        let _vital = Vital("hub");
        Hub::new(ends, pager, State::new(&limits, keep, rules), limits, metrics).run();
    })?;
    Ok(vec![hub, paging])
}

struct Hub {
    commands: Receiver<Command>,
    store: Writer,
    pager: Pager,
    /// Whoever runs them answers by a command.
    errands: Sender<Errand>,
    /// Orders by which somebody's connections ended, for those who were on the way in.
    orders: VecDeque<(Instant, Order)>,
    limits: Limits,
    metrics: Arc<Metrics>,
    state: State,
    effects: Vec<Effect>,
    /// What the store will be sent when it has given back what it has.
    pending: Vec<Append>,
    with_store: bool,
    /// By member key: nothing where the connection has gone and its `leave` has not come back.
    peers: Vec<Option<Peer>>,
    peer_count: usize,
    /// By room key: frames that the room's members have not been sent.
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
    /// Who waits for an answer over HTTP, by the number of the request.
    requests: HashMap<u64, Sender<Outcome>>,
    next_request: u64,
    /// When whom to ping. Every interval is the same, so what is pushed behind is due last.
    pings: VecDeque<(Instant, MemberKey, ConnectionId)>,
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

#[derive(Default)]
struct RoomBatch {
    bytes: Vec<u8>,
    frames: u64,
    /// Members that came after the batch was begun, and the frame's beginning that is their first.
    late: Vec<(MemberKey, usize)>,
}

impl RoomBatch {
    fn begin_of(&self, member: MemberKey) -> usize {
        // The last entry counts: a member may have left and come again.
        self.late.iter().rev().find(|(late, _)| *late == member).map_or(0, |(_, begin)| *begin)
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
    fn new(ends: Ends, pager: Pager, state: State, limits: Limits, metrics: Arc<Metrics>) -> Self {
        let Ends { commands, store, errands } = ends;
        Self {
            commands,
            store,
            pager,
            errands,
            orders: VecDeque::new(),
            limits,
            metrics,
            state,
            effects: Vec::new(),
            pending: Vec::new(),
            with_store: false,
            peers: Vec::new(),
            peer_count: 0,
            batches: Vec::new(),
            touched_rooms: Vec::new(),
            touched_peers: Vec::new(),
            flush_due: false,
            waiting: Vec::new(),
            closing: HashMap::new(),
            fetches: Vec::new(),
            requests: HashMap::new(),
            next_request: 0,
            pings: VecDeque::new(),
            retry_at: None,
            stopping: Stopping::No,
        }
    }

    /// One round after another: wait, take what there is, send.
    fn run(mut self) {
        let mut connected = true;
        while connected || self.has_work() {
            self.wait(connected);
            let now = Timestamp::now();
            self.take_appended(&now);
            self.take_pages(&now);
            connected &= self.take_commands(&now);
            self.state.end_leases(&now, &mut self.effects);
            self.carry_out();
            self.feed_store();
            self.flush();
            let moment = Instant::now();
            self.ping(moment);
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
        self.pending.len() < APPENDS_PENDING_MAX
    }

    /// Waits until a command or the store's answer is there, or something is due.
    fn wait(&self, connected: bool) {
        let commands = connected && self.takes_commands();
        if (commands && !self.commands.is_empty())
            || (self.with_store && !self.store.appended.is_empty())
            || !self.pager.pages.is_empty()
        {
            return;
        }
        let mut select = Select::new();
        if commands {
            select.recv(&self.commands);
        }
        if self.with_store {
            select.recv(&self.store.appended);
        }
        select.recv(&self.pager.pages);
        let ping_at = self.pings.front().map(|(at, ..)| *at);
        let lease_at = self
            .state
            .lease_due()
            .map(|due_ms| Instant::now() + Duration::from_millis(due_ms.saturating_sub(Timestamp::now().unix_ms)));
        match [self.retry_at, ping_at, lease_at].into_iter().flatten().min() {
            // Which of them it is does not matter: the round looks at both. A time-out is a round, too.
            Some(due) => drop(select.ready_deadline(due)),
            None => drop(select.ready()),
        }
    }

    fn take_appended(&mut self, now: &Timestamp) {
        if !self.with_store {
            return;
        }
        if let Ok(batch) = self.store.appended.try_recv() {
            self.with_store = false;
            for appended in batch {
                self.state.appended(appended, now, &mut self.effects);
                self.carry_out();
            }
        }
    }

    fn take_pages(&mut self, now: &Timestamp) {
        for _ in 0..COMMANDS_PER_ROUND_MAX {
            let Ok((fetch, frames)) = self.pager.pages.try_recv() else { return };
            let paged = self.state.page(&fetch, frames, now, &mut self.effects);
            self.carry_out();
            if paged == Err(Overtaken) {
                self.close(fetch.member, CloseReason::OVERTAKEN);
                self.carry_out();
            }
        }
    }

    /// Takes what is queued, up to a count. False when nobody is left to send anything.
    fn take_commands(&mut self, now: &Timestamp) -> bool {
        for _ in 0..COMMANDS_PER_ROUND_MAX {
            if !self.takes_commands() {
                break;
            }
            match self.commands.try_recv() {
                Ok(command) => self.command(command, now),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
        true
    }

    fn command(&mut self, command: Command, now: &Timestamp) {
        match command {
            Command::Connect(connect) => self.connect(*connect),
            Command::Frames { from, frames } => {
                for frame in frames {
                    // Looked up each time, as a frame may be the end of the connection.
                    let Some(member) = self.state.member(from) else { return };
                    self.inbound(from, member, frame, now);
                }
            }
            Command::Gone { from } => {
                match self.state.member(from) {
                    Some(member) => {
                        self.flush_own(member);
                        self.remove_peer(member, from, true, now);
                    }
                    None => drop(self.closing.remove(&from)),
                }
                self.carry_out();
            }
            // Whoever asked may have given up waiting.
            Command::ListRooms { after, limit, answer } => {
                drop(answer.try_send(self.state.list(after.as_ref(), limit)));
            }
            Command::CallRoll { answer } => drop(answer.try_send(self.state.roll(now))),
            Command::NetworksOf { user, answer } => drop(answer.try_send(self.state.networks_of(user))),
            Command::ShowRoom { id, answer } => drop(answer.try_send(self.state.show(&id))),
            Command::Post { post, answer } => self.post(*post, answer, now),
            Command::Order(order) => {
                let ended = self.state.order(&order, now, &mut self.effects);
                self.carry_out();
                self.remember(order);
                for member in ended {
                    self.close(member, CloseReason::ENDED);
                    self.carry_out();
                }
            }
            Command::ErrandDone { errand, outcome } => {
                if let Some((to, json)) = self.state.errand_done(&errand, outcome, now) {
                    self.own(to, |own| encode_text(own, &json));
                }
            }
            Command::Stop => self.stopping = Stopping::Committing,
        }
    }

    /// Keeps an order in mind for those who are on the way in: they were looked up before it was given.
    fn remember(&mut self, order: Order) {
        let now = Instant::now();
        while self.orders.front().is_some_and(|(at, _)| now.duration_since(*at) > ARRIVAL_WAIT) {
            self.orders.pop_front();
        }
        if order.ends_anybody() {
            self.orders.push_back((now, order));
        }
    }

    fn post(&mut self, post: Post, answer: Sender<Outcome>, now: &Timestamp) {
        if self.stopping != Stopping::No {
            // Whoever asked sees that there is no answer.
            return;
        }
        self.next_request += 1;
        self.requests.insert(self.next_request, answer);
        let Post { room, author, role, body, nonce } = post;
        let (author, ticket) = (Arc::new(author), Ticket::Request(self.next_request));
        let message = NewMessage { room, author, role, body, nonce, refusal: None, ticket };
        self.state.say(message, now, &mut self.effects);
        self.carry_out();
    }

    fn connect(&mut self, connect: Connect) {
        let Connect { connection, socket, person, role, session, network, room, replay, newcomer, asked_at } = connect;
        let outbox = Outbox::new(socket);
        let who = Standpoint { user: person.id, role, session, network };
        // What was ordered since they were looked up holds for them, too.
        let is_ended = self.orders.iter().any(|(at, order)| *at >= asked_at && order.ends(&who));
        if is_ended || !self.state.admits(role, person.id, &room) {
            return self.begin_close(connection, outbox, CloseReason::ENDED);
        }
        if self.stopping != Stopping::No {
            return self.begin_close(connection, outbox, CloseReason::GOING_AWAY);
        }
        let person = Arc::new(person);
        let arrival = Arrival { connection, person, role, session, network, home: room, replay, newcomer };
        let member = self.state.connect(arrival, &mut self.effects);
        if self.peers.len() <= member.0 {
            self.peers.resize_with(member.0 + 1, || None);
        }
        self.peers[member.0] = Some(Peer { connection, outbox, own: Vec::new() });
        self.peer_count += 1;
        self.pings.push_back((Instant::now() + self.limits.ping_interval, member, connection));
        self.carry_out();
    }

    fn inbound(&mut self, from: ConnectionId, member: MemberKey, frame: Inbound, now: &Timestamp) {
        if self.stopping != Stopping::No {
            // Silence means unknown: the client sends it again when it has come back.
            return;
        }
        match frame {
            Inbound::Frame(frame) => self.state.frame(member, frame, None, now, &mut self.effects),
            Inbound::Limited(frame, rejected) => {
                self.metrics.dropped(DropReason::RateLimited);
                self.state.frame(member, frame, Some(rejected), now, &mut self.effects);
            }
            Inbound::Rejected(rejected) => {
                let limited = rejected.code == ErrorCode::RateLimited;
                self.metrics.dropped(if limited { DropReason::RateLimited } else { DropReason::Rejected });
                self.state.reject(member, rejected, now, &mut self.effects);
            }
            Inbound::Control(bytes) => self.own(member, |own| own.extend_from_slice(&bytes)),
            Inbound::Closed { is_farewell } => {
                self.flush_own(member);
                self.remove_peer(member, from, !is_farewell, now);
            }
            Inbound::Close(reason) => self.close(member, reason),
        }
        self.carry_out();
    }

    /// Does what the state decided, but for sending: that waits for the end of the round.
    fn carry_out(&mut self) {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Append(append) => self.pending.push(append),
                Effect::Send { to, json } => self.own(to, |own| encode_text(own, &json)),
                Effect::Broadcast { room, json } => self.broadcast(room, &json),
                Effect::Enter { room, member } => {
                    if let Some(batch) = self.batches.get_mut(room.0)
                        && !batch.bytes.is_empty()
                    {
                        batch.late.push((member, batch.bytes.len()));
                    }
                }
                Effect::Exit { room, member } => self.flush_last(room, member),
                Effect::Fetch(fetch) => self.fetches.push(fetch),
                Effect::Errand(errand) => {
                    if let Err(refused) = self.errands.try_send(errand) {
                        let busy = Rejected::new(ErrorCode::Busy, "too much is being asked for at once", None);
                        let busy = Rejected { retry_ms: Some(1_000), ..busy };
                        let answer = self.state.errand_done(&refused.into_inner(), Err(busy), &Timestamp::now());
                        if let Some((to, json)) = answer {
                            self.own(to, |own| encode_text(own, &json));
                        }
                    }
                }
                Effect::Answer { request, outcome } => {
                    if let Some(answer) = self.requests.remove(&request) {
                        // Whoever asked may have given up waiting.
                        drop(answer.try_send(outcome));
                    }
                }
                Effect::RoomGone { room } => {
                    if let Some(batch) = self.batches.get_mut(room.0) {
                        *batch = RoomBatch::default();
                    }
                }
            }
        }
        self.effects = effects;
        // Only here, where the members that the state knows are those that the effects have made.
        if self.flush_due {
            self.flush();
        }
    }

    fn broadcast(&mut self, room: RoomKey, json: &[u8]) {
        if self.batches.len() <= room.0 {
            self.batches.resize_with(room.0 + 1, RoomBatch::default);
        }
        let batch = &mut self.batches[room.0];
        if batch.bytes.is_empty() {
            self.touched_rooms.push(room);
        }
        encode_text(&mut batch.bytes, json);
        batch.frames += 1;
        self.flush_due |= batch.bytes.len() >= BATCH_BYTES_MAX;
    }

    /// Adds frames for one member alone.
    fn own(&mut self, member: MemberKey, add: impl FnOnce(&mut Vec<u8>)) {
        if let Some(Some(peer)) = self.peers.get_mut(member.0) {
            if peer.own.is_empty() {
                self.touched_peers.push(member);
            }
            add(&mut peer.own);
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
            peer.send(&mut Batch::new(&batch.bytes), batch.begin_of(member), member, &mut self.waiting);
        }
    }

    /// The heart: every touched room's batch to every member, one `send` each.
    fn flush(&mut self) {
        let mut touched = std::mem::take(&mut self.touched_peers);
        for member in touched.drain(..) {
            self.flush_own(member);
        }
        self.touched_peers = touched;

        self.flush_due = false;
        let mut deliveries = 0;
        for room in self.touched_rooms.drain(..) {
            let room_batch = &mut self.batches[room.0];
            let mut batch = Batch::new(&room_batch.bytes);
            for &member in self.state.members(room) {
                let Some(Some(peer)) = self.peers.get_mut(member.0) else {
                    continue;
                };
                let begin = if room_batch.late.is_empty() { 0 } else { room_batch.begin_of(member) };
                peer.send(&mut batch, begin, member, &mut self.waiting);
                if peer.outbox.weight() > self.limits.outbox_bytes_max {
                    self.retry_at = None;
                }
                deliveries += room_batch.frames;
            }
            room_batch.bytes.clear();
            // A burst's memory is not kept for every room.
            room_batch.bytes.shrink_to(BATCH_BYTES_KEPT);
            room_batch.frames = 0;
            room_batch.late.clear();
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
            self.with_store = self.store.appends.try_send(batch).is_ok();
        }
    }

    fn ping(&mut self, now: Instant) {
        while let Some(&(at, member, connection)) = self.pings.front()
            && at <= now
        {
            self.pings.pop_front();
            // The key may be another connection's by now.
            if self.state.member(connection) == Some(member) {
                self.own(member, |own| own.extend_from_slice(PING));
                self.flush_own(member);
                self.pings.push_back((now + self.limits.ping_interval, member, connection));
            }
        }
        self.touched_peers.clear();
    }

    /// Tries full sockets again, and ends slow consumers and those that were told to go and did not.
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
            self.close(member, CloseReason::SLOW_CONSUMER);
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

    /// Ends a connection from this side: its member leaves, and its socket gets a close frame behind what waits.
    fn close(&mut self, member: MemberKey, reason: CloseReason) {
        self.flush_own(member);
        if let Some(peer) = self.peers.get_mut(member.0).and_then(Option::take) {
            self.peer_count -= 1;
            // Who was too slow, or was lost, may be back in a moment.
            let keeps_place = [CloseReason::SLOW_CONSUMER, CloseReason::OVERTAKEN, CloseReason::IDLE].contains(&reason);
            self.state.disconnect(peer.connection, keeps_place, &Timestamp::now(), &mut self.effects);
            self.begin_close(peer.connection, peer.outbox, reason);
        }
    }

    fn begin_close(&mut self, connection: ConnectionId, mut outbox: Outbox, reason: CloseReason) {
        outbox.send_close(reason);
        // Who was too slow is given time to come to the end of what the system holds for it, and read why.
        let wait = if reason == CloseReason::SLOW_CONSUMER { SLOW_CLOSE_WAIT } else { CLOSE_WAIT };
        self.closing.insert(connection, Closing { outbox, until: Instant::now() + wait, ended: false });
        self.retry_at = None;
    }

    fn remove_peer(&mut self, member: MemberKey, connection: ConnectionId, keeps_place: bool, now: &Timestamp) {
        if let Some(peer) = self.peers.get_mut(member.0)
            && peer.take().is_some()
        {
            self.peer_count -= 1;
        }
        self.state.disconnect(connection, keeps_place, now, &mut self.effects);
    }

    fn close_all(&mut self) {
        self.stopping = Stopping::Closing;
        for index in 0..self.peers.len() {
            self.close(MemberKey(index), CloseReason::GOING_AWAY);
        }
        let until = Instant::now() + CLOSE_WAIT;
        for closing in self.closing.values_mut() {
            closing.until = closing.until.min(until);
        }
        // Nobody is left to be told that the others go.
        self.effects.clear();
        self.pending.clear();
    }

    fn show(&self) {
        self.metrics.members.set(self.peer_count);
        self.metrics.rooms.set(self.state.room_count());
        self.metrics.outboxes_waiting.set(self.waiting.len());
        self.metrics.commands_queued.set(self.commands.len());
        self.metrics.appends_pending.set(self.pending.len());
    }
}
