//! Clients that follow the protocol's rules for reliable delivery, whatever failures happen to the server and the
//! network, and record all events.
//!
//! Each client has a thread. It keeps its token and the id of the last message that it saw in each room. It reconnects
//! with both when its connection ends. Messages without an ack are sent again, in the old order and before new ones. A
//! [`Stage`] is the state that the clients share with the test that controls them.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::Message as WsMessage;
use uuid::Uuid;

use crate::history::{Client, Event, Message, Nonce, Room};
use crate::random::Random;
use crate::support::{Event as WsEvent, Response, Ws, eventually, http};

/// How often a client without input checks whether the test goes on.
const TICK: Duration = Duration::from_millis(50);
/// How long a test may wait for an event that happens all the time.
const STALL_MAX: Duration = Duration::from_secs(60);
/// How long a client waits for the last messages.
const END_WAIT: Duration = Duration::from_secs(15);
/// Time until the next attempt to connect.
pub const RETRY: Duration = Duration::from_millis(5);
/// Messages in flight.
const WINDOW_MAX: u64 = 16;
/// One message in this number is sent twice at once; as many are invalid and must be refused.
const ODD_ONE_IN: u64 = 16;
/// Maximum restarts for which a client may stay away.
const AWAY_MAX: u64 = 5;
/// Messages in a page of the log.
const PAGE: usize = 200;

impl Room {
    pub fn id(self) -> String {
        format!("room-{}", self.0)
    }

    fn parse(text: &str) -> Option<Self> {
        text.strip_prefix("room-")?.parse().ok().map(Self)
    }
}

impl Nonce {
    pub fn text(self) -> String {
        format!("nonce-{}", self.0)
    }

    fn parse(text: &str) -> Option<Self> {
        text.strip_prefix("nonce-")?.parse().ok().map(Self)
    }

    /// The content of the message with this nonce.
    pub fn content(self) -> String {
        format!("the message of nonce {}", self.0)
    }
}

/// The message of a frame. Its nonce and its content must belong together.
#[track_caller]
pub fn message_of(frame: &Value) -> Message {
    let text = |name: &str| frame[name].as_str().unwrap_or_else(|| panic!("no {name} in {frame}"));
    let nonce = frame["nonce"].as_str().and_then(Nonce::parse);
    if let Some(nonce) = nonce {
        assert_eq!(text("content"), nonce.content(), "another message's words in {frame}");
    }
    Message {
        room: Room::parse(text("room_id")).unwrap_or_else(|| panic!("an unknown room in {frame}")),
        seq: frame["seq"].as_u64().unwrap_or_else(|| panic!("no seq in {frame}")),
        id: Uuid::try_parse(text("id")).unwrap_or_else(|_| panic!("no id in {frame}")),
        nonce,
    }
}

/// The state that a test and its clients share.
pub struct Stage {
    /// The address for clients.
    address: SocketAddr,
    /// How long a client waits on a silent connection before it gives it up.
    patience: Duration,
    /// Whether the server is running, and how often it has started.
    up: Mutex<(bool, u64)>,
    changed: Condvar,
    /// Messages that were acked for the first time.
    acked: AtomicU64,
    connections: AtomicU64,
    sent_again: AtomicU64,
    duplicates: AtomicU64,
    /// Valid messages that were refused because the server could not store them at that time.
    refused: AtomicU64,
    /// Whether clients send no new messages any more.
    is_ending: AtomicBool,
    /// The number of clients without unacked messages after that.
    settled: AtomicUsize,
    /// The last `seq` of each room once it is final, and the time since then.
    heads: OnceLock<(BTreeMap<Room, u64>, Instant)>,
    failed: AtomicBool,
}

impl Stage {
    pub fn new(address: SocketAddr, patience: Duration) -> Self {
        Self {
            address,
            patience,
            up: Mutex::new((true, 0)),
            changed: Condvar::new(),
            acked: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            sent_again: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            is_ending: AtomicBool::new(false),
            settled: AtomicUsize::new(0),
            heads: OnceLock::new(),
            failed: AtomicBool::new(false),
        }
    }

    /// Stops clients from connecting until the server runs again.
    pub fn went_down(&self) {
        self.up.lock().expect("no thread panics with it").0 = false;
    }

    /// Allows clients to connect again.
    pub fn came_up(&self) {
        let mut up = self.up.lock().expect("no thread panics with it");
        *up = (true, up.1 + 1);
        self.changed.notify_all();
    }

    /// Waits until `more` further messages have been acked.
    #[track_caller]
    pub fn wait_for_acks(&self, more: u64) {
        let target = self.acked() + more;
        self.wait("clients get acks", || self.acked() >= target);
    }

    /// Waits until `more` further messages have been refused.
    #[track_caller]
    pub fn wait_for_refusals(&self, more: u64) {
        let target = self.refused.load(Ordering::SeqCst) + more;
        self.wait("clients are refused", || self.refused.load(Ordering::SeqCst) >= target);
    }

    /// Messages acked so far, each counted once.
    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::SeqCst)
    }

    /// Ends the test: waits until `clients` have their last acks, then until they have seen all messages in `log`.
    #[track_caller]
    pub fn finish(&self, clients: usize, log: impl FnOnce() -> Vec<Message>) -> Vec<Message> {
        self.is_ending.store(true, Ordering::SeqCst);
        self.came_up();
        self.wait("everything is acked", || self.settled.load(Ordering::SeqCst) == clients);
        let log = log();
        let heads = log.iter().map(|message| (message.room, message.seq)).collect();
        assert!(self.heads.set((heads, Instant::now())).is_ok(), "a test ends once");
        log
    }

    /// A summary in one line.
    pub fn summary(&self) -> String {
        let count = |number: &AtomicU64| number.load(Ordering::SeqCst);
        format!(
            "{} messages acked, {} sent again, {} answered as duplicates, {} refused for a while, {} connections",
            self.acked(),
            count(&self.sent_again),
            count(&self.duplicates),
            count(&self.refused),
            count(&self.connections),
        )
    }

    /// A guard that fails the test in all threads if it fails in one.
    pub fn alarm(&self) -> Alarm<'_> {
        Alarm(self)
    }

    #[track_caller]
    fn wait(&self, what: &str, condition: impl Fn() -> bool) {
        eventually(what, STALL_MAX, || self.has_failed() || condition());
        self.assert_going();
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn patience(&self) -> Duration {
        self.patience
    }

    pub fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::SeqCst)
    }

    /// Records that a client has no unacked messages and sends no new ones.
    pub fn settle(&self) {
        self.settled.fetch_add(1, Ordering::SeqCst);
    }

    /// Records the first ack of a message.
    pub fn note_ack(&self, is_duplicate: bool) {
        self.acked.fetch_add(1, Ordering::SeqCst);
        self.duplicates.fetch_add(is_duplicate.into(), Ordering::SeqCst);
    }

    pub fn note_sent_again(&self) {
        self.sent_again.fetch_add(1, Ordering::SeqCst);
    }

    /// Fails if the test has failed in another thread.
    #[track_caller]
    pub fn assert_going(&self) {
        assert!(!self.has_failed(), "the test has failed elsewhere");
    }

    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// Waits until the server is running and has started `times` times. It stops waiting for the count if the end has
    /// come or the test has failed.
    pub fn wait_until_up(&self, times: u64) {
        let mut up = self.up.lock().expect("no thread panics with it");
        while !self.has_failed() && !(up.0 && (up.1 >= times || self.is_ending.load(Ordering::SeqCst))) {
            (up, _) = self.changed.wait_timeout(up, TICK).expect("no thread panics with it");
        }
    }

    fn times_up(&self) -> u64 {
        self.up.lock().expect("no thread panics with it").1
    }
}

/// Reports a panic of its thread to the others.
pub struct Alarm<'a>(&'a Stage);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.failed.store(true, Ordering::SeqCst);
        }
    }
}

/// A client.
pub struct WsClient {
    number: u64,
    /// The rooms that it is in; it sends to the first.
    rooms: Vec<Room>,
    is_sender: bool,
    /// Whether it may stay away for some restarts.
    strays: bool,
    random: Random,
    user: Option<Uuid>,
    token: Option<String>,
    last_seen: BTreeMap<Room, Message>,
    sent_count: u64,
    /// Messages without an ack, in order.
    pending: VecDeque<Pending>,
    /// The time until which the server asked it to send nothing.
    holds_until: Option<Instant>,
    settled: bool,
    events: Vec<Event>,
}

/// A message without an ack.
#[derive(Debug)]
struct Pending {
    nonce: Nonce,
    /// The number of unanswered sendings on this connection; with none, the message must be sent again.
    unanswered: u32,
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
enum ConnectionEnd {
    Broken,
    Done,
}

impl WsClient {
    /// A client that sends and reads.
    pub fn sender(number: usize, room: Room, random: Random) -> Self {
        Self::new(number, vec![room], true, random)
    }

    /// A client that only reads, perhaps in several rooms.
    pub fn reader(number: usize, rooms: Vec<Room>, random: Random) -> Self {
        Self::new(number, rooms, false, random)
    }

    /// Makes the client reconnect at once whenever the server is running, as a page does.
    pub fn faithful(self) -> Self {
        Self { strays: false, ..self }
    }

    fn new(number: usize, rooms: Vec<Room>, is_sender: bool, random: Random) -> Self {
        Self {
            number: number as u64,
            rooms,
            is_sender,
            strays: !is_sender,
            random,
            user: None,
            token: None,
            last_seen: BTreeMap::new(),
            sent_count: 0,
            pending: VecDeque::new(),
            holds_until: None,
            settled: false,
            events: Vec::new(),
        }
    }

    /// Connects and reconnects until all messages are acked and seen.
    pub fn run(mut self, stage: &Stage) -> Client {
        let _alarm = stage.alarm();
        loop {
            // A reader may be away until only the database still has its missed messages.
            let away = if self.strays && self.random.once_in(4) { self.random.within(0..AWAY_MAX) } else { 0 };
            stage.wait_until_up(stage.times_up() + away);
            self.assert_going(stage);
            if self.is_done(stage) {
                return Client { name: self.name(), events: self.events };
            }
            match self.connect(stage) {
                ConnectionEnd::Done => return Client { name: self.name(), events: self.events },
                ConnectionEnd::Broken => thread::sleep(RETRY),
            }
        }
    }

    fn name(&self) -> String {
        format!("{}-{}", if self.is_sender { "sender" } else { "reader" }, self.number)
    }

    fn progress(&self) -> String {
        let seen: Vec<_> = self.last_seen.iter().map(|(room, message)| (room.0, message.seq)).collect();
        format!("seen {seen:?}, unacked {:?}", self.pending)
    }

    #[track_caller]
    fn assert_going(&self, stage: &Stage) {
        assert!(!stage.has_failed(), "failed elsewhere; {} has {}", self.name(), self.progress());
    }

    /// One connection.
    fn connect(&mut self, stage: &Stage) -> ConnectionEnd {
        let mut target = format!("/ws?room={}&username={}&history={PAGE}", self.rooms[0].id(), self.name());
        if let Some(token) = &self.token {
            target += &format!("&token={token}");
        }
        if let Some(last) = self.last_seen.get(&self.rooms[0]) {
            target += &format!("&after={}", last.id);
        }
        // A refused connection means that the server or the network is not ready yet.
        let Ok(Ok(mut ws)) = Ws::open(stage.address, &target, &[]) else { return ConnectionEnd::Broken };
        stage.connections.fetch_add(1, Ordering::SeqCst);
        let window = self.random.within(1..WINDOW_MAX + 1) as usize;
        // Some clients send again at once; others first read the replay.
        let hasty = self.random.once_in(2);
        for pending in &mut self.pending {
            pending.unanswered = 0;
        }
        let mut head = None;
        let mut quiet_since = Instant::now();
        loop {
            let seen = self.last_seen.get(&self.rooms[0]).map_or(0, |message| message.seq);
            let may_send = head.is_some_and(|head| hasty || seen >= head);
            if may_send && self.send(&mut ws, stage, window).is_none() {
                return ConnectionEnd::Broken;
            }
            if self.is_done(stage) {
                return ConnectionEnd::Done;
            }
            self.assert_going(stage);
            match ws.event_within(TICK) {
                None if quiet_since.elapsed() > stage.patience => return ConnectionEnd::Broken,
                None => {}
                Some(WsEvent::Close(_) | WsEvent::End) => return ConnectionEnd::Broken,
                Some(WsEvent::Frame(frame)) => {
                    quiet_since = Instant::now();
                    if head.is_none() {
                        assert_eq!(frame["type"], "welcome", "before the welcome: {frame}");
                        head = frame["seq"].as_u64();
                        self.note_identity(&frame);
                        if self.join_others(&mut ws).is_none() {
                            return ConnectionEnd::Broken;
                        }
                    }
                    self.receive(&frame, stage);
                }
            }
        }
    }

    /// Records the identity in the first `welcome` of a connection.
    fn note_identity(&mut self, welcome: &Value) {
        let user = welcome["user_id"].as_str().and_then(|text| Uuid::try_parse(text).ok());
        let user = user.unwrap_or_else(|| panic!("no user in {welcome}"));
        self.user = Some(user);
        self.events.push(Event::Connected { user });
        if let Some(token) = welcome["token"].as_str() {
            self.token = Some(token.to_string());
        }
        assert!(self.token.is_some(), "a new guest has no token: {welcome}");
    }

    /// Joins the rooms that the URL does not name.
    fn join_others(&mut self, ws: &mut Ws) -> Option<()> {
        for room in &self.rooms[1..] {
            let mut join = json!({"type": "join", "room_id": room.id(), "history": PAGE});
            if let Some(last) = self.last_seen.get(room) {
                join["after"] = last.id.to_string().into();
            }
            ws.try_send(WsMessage::text(join.to_string())).ok()?;
        }
        Some(())
    }

    /// Sends unanswered messages again, and then fills the window with new ones. `None` if the connection has ended.
    fn send(&mut self, ws: &mut Ws, stage: &Stage, window: usize) -> Option<()> {
        if self.holds_until.is_some_and(|until| Instant::now() < until) {
            return Some(());
        }
        for place in 0..self.pending.len() {
            let pending = &mut self.pending[place];
            if pending.unanswered == 0 {
                pending.unanswered = 1;
                let nonce = pending.nonce;
                stage.note_sent_again();
                self.send_one(ws, nonce, &nonce.content())?;
            }
        }
        while self.is_sender && self.pending.len() < window && !stage.is_ending() {
            self.sent_count += 1;
            let nonce = Nonce(self.number << 32 | self.sent_count);
            if self.random.once_in(ODD_ONE_IN) {
                // A message of only white space is invalid.
                self.send_one(ws, nonce, " ")?;
                continue;
            }
            let times = if self.random.once_in(ODD_ONE_IN) { 2 } else { 1 };
            self.pending.push_back(Pending { nonce, unanswered: times });
            for _ in 0..times {
                self.send_one(ws, nonce, &nonce.content())?;
            }
        }
        Some(())
    }

    fn send_one(&mut self, ws: &mut Ws, nonce: Nonce, content: &str) -> Option<()> {
        // Recorded first: if a message can't be sent whole, its outcome is unknown.
        self.events.push(Event::Sent { room: self.rooms[0], nonce });
        let command = json!({"content": content, "nonce": nonce.text()});
        ws.try_send(WsMessage::text(command.to_string())).ok()
    }

    /// Handles a frame.
    fn receive(&mut self, frame: &Value, stage: &Stage) {
        match frame["type"].as_str() {
            Some("welcome") => {
                let room = frame["room_id"].as_str().and_then(Room::parse);
                let room = room.unwrap_or_else(|| panic!("an unknown room in {frame}"));
                self.events.push(Event::Joined {
                    room,
                    resumed: self.last_seen.contains_key(&room),
                    reset: frame["reset"] == true,
                    head: frame["seq"].as_u64().unwrap_or_else(|| panic!("no seq in {frame}")),
                });
            }
            Some("text") => {
                let message = message_of(frame);
                let is_duplicate = frame["duplicate"] == true;
                if is_duplicate {
                    stage.duplicates.fetch_add(1, Ordering::SeqCst);
                } else {
                    self.events.push(Event::Saw(message));
                    self.last_seen.insert(message.room, message);
                }
                let is_own = self.user.is_some_and(|user| frame["user_id"] == user.to_string());
                assert!(is_own || !is_duplicate, "another's duplicate: {frame}");
                let place = self.pending.iter().position(|pending| Some(pending.nonce) == message.nonce);
                assert!(is_own || place.is_none(), "another user sent the message of {}: {frame}", self.name());
                if is_own {
                    self.events.push(if is_duplicate { Event::Duplicate(message) } else { Event::Acked(message) });
                }
                if let Some(place) = place {
                    self.pending.remove(place);
                    stage.acked.fetch_add(1, Ordering::SeqCst);
                }
            }
            Some("error") => {
                let nonce = frame["nonce"].as_str().and_then(Nonce::parse);
                let nonce = nonce.unwrap_or_else(|| panic!("an error of no message: {frame}"));
                self.events.push(Event::Refused { nonce });
                if let Some(pending) = self.pending.iter_mut().find(|pending| pending.nonce == nonce) {
                    assert_eq!(frame["code"], "busy", "a good message was refused: {frame}");
                    let retry_ms = frame["retry_ms"].as_u64().unwrap_or_else(|| panic!("no retry_ms in {frame}"));
                    self.holds_until = Some(Instant::now() + Duration::from_millis(retry_ms));
                    pending.unanswered = pending.unanswered.saturating_sub(1);
                    stage.refused.fetch_add(1, Ordering::SeqCst);
                }
            }
            Some("join" | "leave" | "typing") => {}
            _ => panic!("a frame of no known type: {frame}"),
        }
    }

    /// Whether all messages are acked and seen.
    fn is_done(&mut self, stage: &Stage) -> bool {
        if !stage.is_ending() || !self.pending.is_empty() {
            return false;
        }
        if !self.settled {
            self.settled = true;
            stage.settle();
        }
        let Some((heads, since)) = stage.heads.get() else { return false };
        let seen = |room: &Room| self.last_seen.get(room).map_or(0, |message| message.seq);
        // A client that misses the last messages ends without them: the checker reports that.
        since.elapsed() > END_WAIT || self.rooms.iter().all(|room| seen(room) >= heads.get(room).copied().unwrap_or(0))
    }
}

/// The log of a room from its beginning, read backwards by pages; reading it forwards must give the same.
#[track_caller]
pub fn read_log(address: SocketAddr, room: Room) -> Vec<Message> {
    let page = |query: &str| -> (Vec<Message>, Option<String>) {
        let target = format!("/api/rooms/{}/messages?limit={PAGE}{query}", room.id());
        let response: Response = http(address, format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(response.status, 200, "{target}: {}", response.text());
        let body = response.json();
        let data = body["data"].as_array().unwrap_or_else(|| panic!("no data in {body}"));
        (data.iter().map(message_of).collect(), body["next"].as_str().map(str::to_string))
    };
    let (mut messages, mut next) = page("");
    while let Some(id) = next {
        let (mut before, further) = page(&format!("&before={id}"));
        before.append(&mut messages);
        (messages, next) = (before, further);
    }
    let Some(first) = messages.first() else { return messages };
    let mut forwards = vec![*first];
    let mut next = Some(first.id.to_string());
    while let Some(id) = next {
        let (after, further) = page(&format!("&after={id}"));
        forwards.extend(after);
        next = further;
    }
    assert!(forwards == messages, "{} reads otherwise forwards than backwards", room.id());
    messages
}
