//! Tests of the hub's thread, with a store in memory and with test sockets or channels.

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use crossbeam_channel::Receiver;

use super::fixtures::{account, from_network, guest, history, room, user};
use super::*;
use crate::auth::name::Skeletons;
use crate::config::{Data, Durability, Keep};
use crate::limits::BATCH_BYTES_MAX;
use crate::model::role::Role;
use crate::model::{ROOM_DEFAULT, Username};
use crate::protocol::{AddressBan, BanChange, Restrictions, RoomPatch};
use crate::store::accounts::{InvitationId, SessionId, SessionKind};
use crate::store::change::Change;
use crate::store::change::{AccountRef, NewAccount, NewInvitation, NewSession, Policy, Restrict};
use crate::store::entry::{By, NewMessage, Principal};
use crate::store::{Started, TokenHash};

/// Both ends of a connection.
fn socket() -> (TcpStream, Sink) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    far.set_read_timeout(Some(FRAME_WAIT)).unwrap();
    (far, Sink::Socket(Arc::new(listener.accept().unwrap().0)))
}

/// Makes an account with a token, as an operator does.
fn new_token(number: u64, name: &str, session: i64, role: Role) -> Change {
    let name = Username::parse(name).unwrap();
    let account = NewAccount { id: user(number), skeletons: Skeletons::of(&name), name, role, password: None };
    let token_hash = Some(TokenHash::of(&format!("token {session}")));
    let (id, kind) = (SessionId(session), SessionKind::Bot);
    Change::CreateToken { account, session: NewSession { id, kind, token_hash, label: "".into(), span_ms: None } }
}

fn restrict(number: u64, ban: BanChange) -> Change {
    let restrictions = Restrictions { mute_until_ms: None, ban: Some(ban) };
    Change::Restrict(Restrict {
        user: user(number),
        restrictions,
        target: None,
        networks: Vec::new(),
        is_shared: false,
    })
}

fn ban(number: u64, by_address: bool) -> Change {
    restrict(
        number,
        BanChange::Ban { until_ms: None, reason: "".into(), by_address: by_address.then(AddressBan::default) },
    )
}

/// The client was authenticated before a change, and its connection reaches the hub after it.
#[test]
fn a_client_is_checked_again_when_it_joins() {
    let mut server = Server::prepare();
    server.run(calm());
    let api = server.api.clone();
    let operator = |change| api.change(By::Operator, change).unwrap();
    operator(new_token(1, "ada", 1, Role::Admin));
    operator(new_token(2, "ben", 2, Role::User));
    operator(new_token(3, "eva", 3, Role::User));
    let ada = account(1, "ada", 1);
    let elsewhere = |principal: &Principal| from_network(principal, [192, 0, 2, 7]);

    // An ended session, a removed account, a banned user, a banned network.
    operator(Change::EndSession { session: SessionId(2) });
    server.assert_refused(&account(2, "ben", 2), "session_ended");
    let welcome = |server: &mut Server, principal: &Arc<Principal>| {
        let mut client = server.enter(principal, Encoding::Json, 0);
        assert_eq!(client.next_frames(1), ["welcome: welcome to general"]);
        client
    };
    operator(new_token(2, "ben", 4, Role::User));
    let ben = welcome(&mut server, &account(2, "ben", 4));
    server.gone(ben);
    operator(Change::RemoveAccount { account: AccountRef::Name(Username::parse("ben").unwrap()) });
    server.assert_refused(&account(2, "ben", 4), "session_ended");
    operator(ban(3, false));
    server.assert_refused(&account(3, "eva", 3), "banned");
    operator(restrict(3, BanChange::Lift));
    let eva = welcome(&mut server, &account(3, "eva", 3));
    server.gone(eva);
    let guest_5 = elsewhere(&guest(5, "dan"));
    let mut dan = welcome(&mut server, &guest_5);
    operator(ban(5, true));
    dan.assert_ends(1008);
    server.gone(dan);
    server.assert_refused(&elsewhere(&guest(6, "kim")), "banned");
    let kim = welcome(&mut server, &guest(6, "kim"));
    let eva = welcome(&mut server, &elsewhere(&account(3, "eva", 3)));
    server.gone(eva);
    server.gone(kim);

    // A name that was reserved meanwhile.
    operator(new_token(7, "lena", 7, Role::User));
    server.assert_refused(&guest(8, "LENA"), "name_reserved");

    // A room that became private.
    let patch = RoomPatch { is_private: Some(true), ..RoomPatch::default() };
    api.change(By::Client(ada), Change::SetRoom { room: room("vault"), patch }).unwrap();
    let mut kim = welcome(&mut server, &guest(6, "kim"));
    server.send(&kim, r#"{"type":"join","room_id":"vault"}"#);
    assert_eq!(kim.next_frames(1), ["error: Room not found"]);
    server.stop([kim]);
}

/// The longest time that a test waits for a frame.
const FRAME_WAIT: Duration = Duration::from_secs(20);

/// A hub that can be sent commands before it runs, so that it takes them all in one round.
struct Server {
    commands: Commands,
    queue: Option<CommandQueue>,
    threads: Vec<JoinHandle<()>>,
    metrics: Arc<Metrics>,
    presence: PublishedPresence,
    api: HubApi,
    connections: u64,
}

impl Server {
    fn prepare() -> Self {
        let (commands, queue) = channel();
        let presence = new_presence();
        Self {
            api: HubApi::new(commands.clone(), presence.clone()),
            commands,
            queue: Some(queue),
            threads: Vec::new(),
            metrics: Arc::default(),
            presence,
            connections: 0,
        }
    }

    fn run(&mut self, limits: Limits) {
        let (ends, threads) = self.ends();
        self.threads = start(ends, limits, Arc::clone(&self.metrics)).unwrap();
        self.threads.extend(threads);
    }

    /// The hub's ends, with the threads of a store.
    fn ends(&mut self) -> (Ends, Vec<JoinHandle<()>>) {
        let (data, metrics) = (Data::Memory, Arc::clone(&self.metrics));
        let (queue, presence) = (self.queue.take().unwrap(), self.presence.clone());
        let (keep, policy) = (Keep::default(), Policy::default());
        let started = crate::store::start(&data, Durability::Normal, keep, policy, &queue.sleeper, metrics);
        let Started { writer, reader, threads } = started.unwrap();
        (Ends { queue, store: writer, reader, presence }, threads)
    }

    /// A hub that the test runs one step at a time.
    fn step(&mut self) -> Stepped {
        let (ends, mut threads) = self.ends();
        let (pager, paging) = Pager::start(ends.reader.clone(), &ends.queue.sleeper).unwrap();
        threads.push(paging);
        Stepped { hub: Hub::new(ends, pager, calm(), Arc::default()), begun: Instant::now(), _threads: threads }
    }

    /// Connects a guest. Its user id has the number of the connection.
    fn connect(&mut self, name: &str, encoding: Encoding, count: usize) -> Client {
        let guest = guest(self.connections + 1, name);
        self.enter(&guest, encoding, count)
    }

    fn enter(&mut self, principal: &Arc<Principal>, encoding: Encoding, count: usize) -> Client {
        let (sink, chunks) = Sink::channel();
        let connection = self.send_connect(principal, encoding, sink, count);
        Client { connection, principal: Arc::clone(principal), encoding, chunks, got: VecDeque::new() }
    }

    fn send_connect(
        &mut self,
        principal: &Arc<Principal>,
        encoding: Encoding,
        sink: Sink,
        count: usize,
    ) -> ConnectionId {
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        let arrival = Arrival {
            connection,
            skeletons: Some(Skeletons::of(&principal.person.username)),
            principal: Arc::clone(principal),
            room: room(ROOM_DEFAULT),
            replay: history(count),
            token: None,
        };
        let connect = Connect { sink, encoding, arrival };
        self.commands.send(Command::Connect(Box::new(connect))).unwrap();
        connection
    }

    /// A client on a socket is sent the reason of the refusal, and is closed.
    fn assert_refused(&mut self, principal: &Arc<Principal>, reason: &str) {
        let (mut far, sink) = socket();
        let connection = self.send_connect(principal, Encoding::Json, sink, 0);
        let mut got = Vec::new();
        far.read_to_end(&mut got).unwrap();
        let parts = parts(&got, Encoding::Json);
        let [Got::Frame(error), Got::Close(1008)] = &parts[..] else { panic!("{reason}: {parts:?}") };
        let error: serde_json::Value = serde_json::from_str(error).unwrap();
        assert_eq!((&error["type"], &error["reason"]), (&"error".into(), &reason.into()));
        self.commands.send(Command::Gone { from: connection }).unwrap();
    }

    fn send(&self, client: &Client, text: &str) {
        let frame = crate::protocol::decode(text, &Limits::default()).unwrap();
        let frames = vec![Inbound::Frame(frame)];
        self.commands.send(Command::Frames { from: client.connection, frames }).unwrap();
    }

    fn gone(&self, client: Client) {
        self.commands.send(Command::Gone { from: client.connection }).unwrap();
    }

    fn stop(self, clients: impl IntoIterator<Item = Client>) {
        self.commands.send(Command::Stop).unwrap();
        for mut client in clients {
            client.assert_ends(1001);
            self.gone(client);
        }
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

struct Stepped {
    hub: Hub,
    begun: Instant,
    _threads: Vec<JoinHandle<()>>,
}

impl Stepped {
    /// Takes the queued commands and applies what they propose. What this produces is not sent yet.
    fn apply_queued(&mut self) {
        assert!(self.hub.take_commands());
        self.hub.feed_store();
        while self.hub.with_store {
            self.hub.wait(true);
            self.hub.take_applied();
        }
    }

    /// Ends the round, at the same time as all others: no frames wait too long.
    fn end_round(&mut self) {
        self.hub.end_round(self.begun);
    }

    fn close(&mut self, client: &Client, reason: CloseReason) {
        let member = self.hub.state.member(client.connection).unwrap();
        self.hub.close(member, reason);
    }
}

/// The other end of a channel.
struct Client {
    connection: ConnectionId,
    principal: Arc<Principal>,
    encoding: Encoding,
    chunks: Receiver<Chunk>,
    got: VecDeque<Got>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Got {
    Frame(String),
    KeepAlive,
    Close(u16),
    End,
}

impl Client {
    fn next(&mut self) -> Got {
        if self.got.is_empty() {
            match self.chunks.recv_timeout(FRAME_WAIT) {
                Ok(chunk) => self.got.extend(parts(&chunk, self.encoding)),
                Err(error) if error.is_disconnected() => return Got::End,
                Err(_) => panic!("connection {} got nothing", self.connection.0),
            }
        }
        self.got.pop_front().unwrap()
    }

    /// The next frames, as JSON.
    fn frames(&mut self, count: usize) -> Vec<String> {
        let frame = |got| match got {
            Got::Frame(json) => json,
            other => panic!("{other:?} is no frame"),
        };
        (0..count).map(|_| frame(self.next())).collect()
    }

    /// The next frames, as type and content.
    fn next_frames(&mut self, count: usize) -> Vec<String> {
        self.frames(count).iter().map(|json| summary(json)).collect()
    }

    #[track_caller]
    fn assert_got_nothing(&self) {
        assert!(self.got.is_empty() && self.chunks.is_empty(), "{:?} and {} chunks", self.got, self.chunks.len());
    }

    /// Asserts that only the close comes, with this code if the encoding has close codes.
    #[track_caller]
    fn assert_ends(&mut self, code: u16) {
        if self.encoding == Encoding::Json {
            assert_eq!(self.next(), Got::Close(code));
        }
        assert_eq!(self.next(), Got::End);
    }
}

fn summary(json: &str) -> String {
    let frame: serde_json::Value = serde_json::from_str(json).unwrap();
    format!("{}: {}", frame["type"].as_str().unwrap(), frame["content"].as_str().unwrap())
}

/// The frames of a chunk, parsed without the code that wrote them.
fn parts(chunk: &[u8], encoding: Encoding) -> Vec<Got> {
    let mut rest = chunk;
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let (header, length, trailer) = match (encoding, rest) {
            (Encoding::Json, [_, 127, length @ ..]) => {
                (10, u64::from_be_bytes(length[..8].try_into().unwrap()) as usize, 0)
            }
            (Encoding::Json, [_, 126, length @ ..]) => {
                (4, usize::from(u16::from_be_bytes(length[..2].try_into().unwrap())), 0)
            }
            (Encoding::Json, _) => (2, usize::from(rest[1]), 0),
            (Encoding::Ndjson, _) => (0, rest.iter().position(|byte| *byte == b'\n').expect("a whole line"), 1),
        };
        let payload = &rest[header..header + length];
        let text = || String::from_utf8(payload.to_vec()).unwrap();
        parts.push(match (encoding, rest[0]) {
            (Encoding::Json, 0x81) => Got::Frame(text()),
            (Encoding::Json, 0x88) => Got::Close(u16::from_be_bytes([payload[0], payload[1]])),
            (Encoding::Json, 0x89) => Got::KeepAlive,
            (Encoding::Json, other) => panic!("a frame that begins with {other:#x}"),
            (Encoding::Ndjson, b'\n') => Got::KeepAlive,
            (Encoding::Ndjson, _) => Got::Frame(text()),
        });
        rest = &rest[header + length + trailer..];
    }
    parts
}

/// Limits without a lease, and without keep-alives between frames.
fn calm() -> Limits {
    Limits { lease: Duration::ZERO, ping_interval: Duration::from_secs(300), ..Limits::default() }
}

#[test]
fn members_of_each_encoding_get_the_same_frames() {
    let mut server = Server::prepare();
    let mut ana = server.connect("ana", Encoding::Json, 0);
    let mut bob = server.connect("bob", Encoding::Ndjson, 0);
    server.send(&ana, "one");
    // These two enter in the middle of the batch.
    let mut cai = server.connect("cai", Encoding::Ndjson, 0);
    let mut dan = server.connect("dan", Encoding::Json, 0);
    server.send(&bob, "two");
    server.run(calm());

    let rounds = ["welcome: welcome to general", "join: bob joined", "text: one", "join: cai joined"];
    let rounds: Vec<&str> = rounds.into_iter().chain(["join: dan joined", "text: two"]).collect();
    let of_ana = ana.frames(6);
    assert_eq!(of_ana.iter().map(|json| summary(json)).collect::<Vec<_>>(), rounds);
    for (client, first) in [(&mut bob, 2), (&mut cai, 4), (&mut dan, 5)] {
        assert_eq!(client.next_frames(1), rounds[..1]);
        assert_eq!(client.frames(6 - first), of_ana[first..], "connection {}", client.connection.0);
    }

    // A replay has the same frames.
    let mut eva = server.connect("eva", Encoding::Ndjson, 2);
    assert_eq!(eva.next_frames(1), rounds[..1]);
    assert_eq!(eva.frames(2), [of_ana[2].clone(), of_ana[5].clone()]);
    for client in [&mut ana, &mut bob, &mut cai, &mut dan] {
        assert_eq!(client.next_frames(1), ["join: eva joined"]);
    }
    server.stop([ana, bob, cai, dan, eva]);
}

#[test]
fn the_last_member_of_an_encoding_may_leave_and_another_join() {
    let mut server = Server::prepare();
    server.run(calm());
    let mut ana = server.connect("ana", Encoding::Json, 0);
    assert_eq!(ana.next_frames(1), ["welcome: welcome to general"]);
    for (round, encoding) in
        [Encoding::Ndjson, Encoding::Ndjson, Encoding::Json, Encoding::Ndjson].into_iter().enumerate()
    {
        let mut bob = server.connect("bob", encoding, 0);
        assert_eq!(bob.next_frames(1), ["welcome: welcome to general"]);
        server.send(&ana, &format!("round {round}"));
        let frame = bob.frames(1);
        assert_eq!(summary(&frame[0]), format!("text: round {round}"));
        assert_eq!(ana.next_frames(1), ["join: bob joined"]);
        assert_eq!(ana.frames(1), frame);
        server.gone(bob);
        assert_eq!(ana.next_frames(1), ["leave: bob left"]);
        server.send(&ana, "alone");
        assert_eq!(ana.next_frames(1), ["text: alone"]);
    }
    // The first member of an encoding may be the only one left.
    let mut bob = server.connect("bob", Encoding::Ndjson, 0);
    assert_eq!(bob.next_frames(1), ["welcome: welcome to general"]);
    server.gone(ana);
    assert_eq!(bob.next_frames(1), ["leave: ana left"]);
    server.send(&bob, "alone");
    assert_eq!(bob.next_frames(1), ["text: alone"]);
    server.stop([bob]);
}

#[test]
fn a_slow_consumer_is_cut_at_a_frame_end_and_others_continue() {
    let mut server = Server::prepare();
    server.run(Limits { outbox_bytes_max: 64 * 1024, ..calm() });
    let mut ana = server.connect("ana", Encoding::Json, 0);
    let slow = [("bob", Encoding::Json), ("cai", Encoding::Ndjson)];
    let slow = slow.map(|(name, encoding)| server.connect(name, encoding, 0));
    assert_eq!(ana.next_frames(3), ["welcome: welcome to general", "join: bob joined", "join: cai joined"]);

    let (mut texts, mut left) = (Vec::new(), Vec::new());
    while left.len() < slow.len() {
        assert!(texts.len() < 1_000, "a channel of 32 KiB and an outbox of 64 hold no more than that");
        server.send(&ana, &format!("{} {}", texts.len(), "x".repeat(7_000)));
        // The cut is decided some messages earlier.
        loop {
            let json = ana.frames(1).remove(0);
            if summary(&json).starts_with("text: ") {
                break texts.push(json);
            }
            left.push(summary(&json));
        }
    }
    left.sort_unstable();
    assert_eq!(left, ["leave: bob left", "leave: cai left"]);

    for mut client in slow {
        // Only the client that joined before cai sees `cai joined`.
        let mut frames: Vec<String> = std::iter::from_fn(|| match client.next() {
            Got::Frame(json) => Some(json),
            Got::Close(code) => {
                assert_eq!((client.encoding, code), (Encoding::Json, 1013));
                assert_eq!(client.next(), Got::End);
                None
            }
            Got::End => {
                assert_eq!(client.encoding, Encoding::Ndjson);
                None
            }
            Got::KeepAlive => panic!("no keep-alive is due"),
        })
        .collect();
        frames.retain(|json| summary(json).starts_with("text: "));
        assert!(!frames.is_empty() && texts.starts_with(&frames), "a prefix of what was sent");
        server.gone(client);
    }
    assert!(server.metrics.render().contains("\nadda_drops_total{reason=\"slow_consumer\"} 2\n"));
    server.stop([ana]);
}

#[test]
fn a_session_that_ends_closes_members_of_each_encoding() {
    let mut server = Server::prepare();
    server.run(calm());
    for encoding in Encoding::ALL {
        let mut client = server.connect("ana", encoding, 0);
        assert_eq!(client.next_frames(1), ["welcome: welcome to general"]);
        // A guest logs out.
        let session = SessionId::of_guest(client.principal.user());
        server.api.change(By::Client(Arc::clone(&client.principal)), Change::EndSession { session }).unwrap();
        client.assert_ends(1008);
        server.gone(client);
    }
    server.stop([]);
}

#[test]
fn an_idle_member_gets_keep_alives_in_its_encoding() {
    let mut server = Server::prepare();
    server.run(Limits { ping_interval: Duration::from_millis(20), ..calm() });
    let mut clients = Encoding::ALL.map(|encoding| server.connect("ana", encoding, 0));
    for client in &mut clients {
        // Twice, because each keep-alive schedules the next.
        for _ in 0..2 {
            while client.next() != Got::KeepAlive {}
        }
    }
    server.commands.send(Command::Stop).unwrap();
    for mut client in clients {
        while client.next() != Got::End {}
        server.gone(client);
    }
    server.threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn presence_is_published_before_its_frame_is_sent() {
    let mut server = Server::prepare();
    server.run(calm());
    let names = |server: &Server| {
        let people = server.api.presence(&room(ROOM_DEFAULT)).map(|room| room.people.clone()).unwrap_or_default();
        people.iter().map(|person| person.username.as_str().to_owned()).collect::<Vec<_>>()
    };
    let mut ana = server.connect("ana", Encoding::Json, 0);
    assert_eq!(ana.next_frames(1), ["welcome: welcome to general"]);
    assert_eq!(names(&server), ["ana"]);
    let bob = server.connect("bob", Encoding::Ndjson, 0);
    assert_eq!(ana.next_frames(1), ["join: bob joined"]);
    assert_eq!(names(&server), ["ana", "bob"]);
    assert_eq!(server.api.present_rooms(None, 9, |_| true), [room(ROOM_DEFAULT)]);
    assert!(server.api.present_rooms(Some(&room(ROOM_DEFAULT)), 9, |_| true).is_empty());
    server.gone(bob);
    assert_eq!(ana.next_frames(1), ["leave: bob left"]);
    assert_eq!(names(&server), ["ana"]);
    server.gone(ana);
    let deadline = Instant::now() + FRAME_WAIT;
    while server.api.presence(&room(ROOM_DEFAULT)).is_some() {
        assert!(Instant::now() < deadline, "an empty room is still published");
        server.api.ping().unwrap();
    }
    server.stop([]);
}

#[test]
fn presence_is_published_before_a_batch_that_is_sent_early() {
    let mut server = Server::prepare();
    let mut ana = server.connect("ana", Encoding::Json, 0);
    let mut bob = server.connect("bob", Encoding::Json, 0);
    let text = "x".repeat(8_000);
    let texts = 2 * BATCH_BYTES_MAX / text.len();
    (0..texts).for_each(|_| server.send(&ana, &text));
    let mut stepped = server.step();
    stepped.apply_queued();
    assert_eq!(ana.next_frames(1), ["welcome: welcome to general"]);
    assert_eq!(bob.next_frames(1), ["welcome: welcome to general"]);
    assert_eq!(server.api.presence(&room(ROOM_DEFAULT)).map(|room| room.count), Some(2));
}

#[test]
fn under_load_the_author_gets_its_frames_first_and_the_others_get_them_together() {
    let mut server = Server::prepare();
    let mut ana = server.connect("ana", Encoding::Json, 0);
    let mut bob = server.connect("bob", Encoding::Ndjson, 0);
    let mut stepped = server.step();
    stepped.apply_queued();
    stepped.end_round();
    assert_eq!(ana.next_frames(2), ["welcome: welcome to general", "join: bob joined"]);
    assert_eq!(bob.next_frames(1), ["welcome: welcome to general"]);

    server.send(&ana, "one");
    stepped.apply_queued();
    server.send(&bob, "two");
    stepped.end_round();
    assert_eq!(ana.next_frames(1), ["text: one"]);
    bob.assert_got_nothing();

    // A member that enters meanwhile gets what follows.
    let mut cai = server.connect("cai", Encoding::Json, 1);
    stepped.apply_queued();
    server.send(&ana, "three");
    stepped.end_round();
    assert_eq!(bob.next_frames(3), ["text: one", "text: two", "join: cai joined"]);
    assert_eq!(cai.next_frames(2), ["welcome: welcome to general", "text: two"]);
    ana.assert_got_nothing();

    stepped.apply_queued();
    stepped.end_round();
    assert_eq!(ana.next_frames(3), ["text: two", "join: cai joined", "text: three"]);
    assert_eq!(bob.next_frames(1), ["text: three"]);
    assert_eq!(cai.next_frames(1), ["text: three"]);
    [&ana, &bob, &cai].into_iter().for_each(Client::assert_got_nothing);
}

#[test]
fn what_waits_under_load_is_sent_before_a_leave_or_a_close() {
    let mut server = Server::prepare();
    let mut clients = ["ana", "bob", "cai", "dan"].map(|name| server.connect(name, Encoding::Json, 0));
    let mut stepped = server.step();
    stepped.apply_queued();
    stepped.end_round();
    for (client, others) in clients.iter_mut().zip((0..4).rev()) {
        client.next_frames(1 + others);
    }
    let [ana, mut bob, mut cai, mut dan] = clients;
    server.send(&ana, "one");
    stepped.apply_queued();
    server.send(&bob, r#"{"type":"leave"}"#);
    stepped.end_round();
    [&bob, &cai, &dan].into_iter().for_each(Client::assert_got_nothing);

    stepped.apply_queued();
    assert_eq!(bob.next_frames(1), ["text: one"]);
    stepped.close(&cai, CloseReason::Idle);
    assert_eq!(cai.next_frames(2), ["text: one", "leave: bob left"]);
    assert_eq!(cai.next(), Got::Close(1008));

    // A server that stops keeps nothing back.
    server.send(&ana, "two");
    server.commands.send(Command::Stop).unwrap();
    stepped.apply_queued();
    server.gone(cai);
    stepped.end_round();
    assert_eq!(dan.next_frames(2), ["text: one", "leave: bob left"]);
    assert_eq!(bob.next_frames(1), ["leave: bob left"]);
}

#[test]
fn a_request_is_answered_through_the_log() {
    let mut server = Server::prepare();
    server.run(calm());
    let mut ana = server.connect("ana", Encoding::Json, 0);
    assert_eq!(ana.next_frames(1), ["welcome: welcome to general"]);
    let send = |content: &str| {
        let body = crate::protocol::Body::Text { content: content.into(), reply_to: None };
        let nonce = crate::model::Nonce::parse("n1").ok();
        let (room, author) = (room(ROOM_DEFAULT), guest(9, "bob"));
        server.api.send_message(NewMessage::of_request(room, author, body, nonce), false)
    };
    let Ok(Sent::Stored(json)) = send("hi") else { panic!() };
    assert_eq!(ana.frames(1), [String::from_utf8(json.to_vec()).unwrap()]);
    let Ok(Sent::Duplicate(json)) = send("hi") else { panic!() };
    assert!(String::from_utf8(json.to_vec()).unwrap().contains(r#""duplicate":true"#));
    assert_eq!(send("ho").unwrap_err().reason, crate::model::reason::Reason::NonceUsed);

    // The hub knows a connected user that is not stored.
    let kick = |user| Change::Kick { room: room(ROOM_DEFAULT), user, target: None };
    let refused = server.api.change(By::Operator, kick(user(77))).unwrap_err();
    assert_eq!(refused.reason, crate::model::reason::Reason::NoSuchUser);
    let done = server.api.change(By::Operator, kick(ana.principal.user())).unwrap();
    assert_eq!(done, crate::store::change::Done::Kicked { username: Username::parse("ana").ok() });
    assert_eq!(ana.next_frames(2), ["error: an admin kicked you from this room", "leave: ana left"]);
    // The user is connected but in no room. It may join again.
    server.send(&ana, r#"{"type":"join"}"#);
    assert_eq!(ana.next_frames(2), ["welcome: welcome to general", "text: hi"]);
    server.stop([ana]);
}

#[test]
fn room_settings_are_broadcast_before_the_answer_to_their_command() {
    let mut server = Server::prepare();
    server.run(calm());
    server.api.change(By::Operator, new_token(1, "ada", 1, Role::Admin)).unwrap();
    let mut ada = server.enter(&account(1, "ada", 1), Encoding::Json, 0);
    let mut ben = server.connect("ben", Encoding::Json, 0);
    assert_eq!(ben.next_frames(1), ["welcome: welcome to general"]);
    server.send(&ada, "one");
    server.send(&ada, r#"{"type":"room","topic":"leaves"}"#);
    server.send(&ada, "two");
    let announced = "room: ada changed the room settings";
    let of_room = ["text: one", announced, "text: two"];
    assert_eq!(ben.next_frames(3), of_room);
    let of_ada = ada.next_frames(6);
    assert_eq!(of_ada[..2], ["welcome: welcome to general", "join: ben joined"]);
    let answer = of_ada.iter().position(|frame| frame == "room: the room settings were changed").unwrap();
    assert!(of_ada[..answer].iter().any(|frame| frame == announced), "{of_ada:?}");
    assert_eq!(
        of_ada[2..].iter().filter(|frame| *frame != "room: the room settings were changed").collect::<Vec<_>>(),
        of_room
    );
    server.stop([ada, ben]);
}

#[test]
fn a_user_kicked_from_a_private_room_gets_the_reason() {
    let mut server = Server::prepare();
    server.run(calm());
    server.api.change(By::Operator, new_token(1, "ada", 1, Role::Admin)).unwrap();
    let ada = By::Client(account(1, "ada", 1));
    let patch = RoomPatch { is_private: Some(true), ..RoomPatch::default() };
    server.api.change(ada.clone(), Change::SetRoom { room: room("vault"), patch }).unwrap();
    let code_hash = TokenHash::of("code");
    let (id, of) = (InvitationId(7), Some(room("vault")));
    let invitation = NewInvitation { id, code_hash, room: of, uses: 1, span_ms: 60_000 };
    server.api.change(ada.clone(), Change::Invite(invitation)).unwrap();
    let ben = guest(2, "ben");
    let accept = Change::UseInvitation { room: room("vault"), code_hash };
    server.api.change(By::Client(Arc::clone(&ben)), accept).unwrap();
    let mut client = server.enter(&ben, Encoding::Json, 0);
    server.send(&client, r#"{"type":"join","room_id":"vault"}"#);
    assert_eq!(client.next_frames(2), ["welcome: welcome to general", "welcome: welcome to vault"]);
    let kick = Change::Kick { room: room("vault"), user: user(2), target: None };
    server.api.change(ada, kick).unwrap();
    assert_eq!(client.next_frames(2), ["error: an admin kicked you from this room", "leave: ben left"]);
    server.send(&client, r#"{"type":"join","room_id":"vault"}"#);
    assert_eq!(client.next_frames(1), ["error: Room not found"]);
    server.stop([client]);
}
