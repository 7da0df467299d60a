//! Concurrent changes over WebSocket, HTTP and the command line: the answers and the stored data must be those of a
//! sequential order.
//!
//! A change takes effect at one time between its request and its answer. An accepted operation that the change forbids
//! must have begun before that time. An operation that is refused because of the change must have been answered after
//! it. A round fails if there is no such time.
//!
//! `ADDA_SEED` chooses the delays, `ADDA_RACE_ROUNDS` the number of rounds:
//! `ADDA_RACE_ROUNDS=1000 cargo test --test it race -- --nocapture`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::Message;

use crate::crash::joined;
use crate::random::Random;
use crate::support::{DEADLINE, Event, Response, Server, Ws, adda, eventually, exchange, user_token};

/// The number of rounds without `ADDA_RACE_ROUNDS`.
const ROUNDS: u64 = 24;
/// Maximum delay of a client behind the first: about the run time of a command.
const DELAY_MAX: Duration = Duration::from_millis(60);
/// Maximum messages and changes of one client in a round.
const MESSAGES: usize = 400;
const CHANGES: usize = 60;
const UNTIL: &str = "2099-01-01T00:00:00.000Z";

/// A request that was answered, with the times of both.
#[derive(Debug, Clone, Copy)]
struct Op {
    sent: Instant,
    answered: Instant,
    is_accepted: bool,
}

/// The time span in which a change may have taken effect.
#[derive(Debug, Clone, Copy)]
struct Span {
    from: Instant,
    to: Instant,
}

impl Span {
    fn of(op: Op) -> Self {
        Self { from: op.sent, to: op.answered }
    }

    /// Narrows the span in which a change took effect that ended the permission for these operations.
    #[track_caller]
    fn narrowed(self, what: &str, ops: &[Op]) -> Self {
        let mut span = self;
        for op in ops {
            if op.is_accepted {
                span.from = span.from.max(op.sent);
            } else {
                span.to = span.to.min(op.answered);
            }
        }
        assert!(span.from <= span.to, "{what}: accepted {:?} behind a refusal, or the change", span.from - span.to);
        span
    }
}

/// The server of all rounds, and its users.
struct Stage {
    _dir: TempDir,
    data: PathBuf,
    server: Server,
    /// An admin that stays, and an admin that is demoted.
    steady: String,
    demoted: String,
}

impl Stage {
    fn set() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let data = dir.path().join("adda.db");
        let steady = user_token(&data, "steady", "admin");
        let demoted = user_token(&data, "demoted", "admin");
        let server = Server::with(&["--data", data.to_str().expect("a plain path"), "--rate", "0"]);
        Self { _dir: dir, data, server, steady, demoted }
    }

    fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    fn ask(&self, token: &str, method: &str, target: &str, json: Option<&Value>) -> Response {
        let bearer = format!("Bearer {token}");
        exchange(self.addr(), method, target, &[("Authorization", &bearer)], json).expect("an answer")
    }

    /// Sends a request as an operation; it must be accepted, or refused with one of these statuses.
    #[track_caller]
    fn op(&self, token: &str, method: &str, target: &str, json: &Value, refusals: &[u16]) -> Op {
        let sent = Instant::now();
        let answer = self.ask(token, method, target, Some(json));
        let is_accepted = answer.status < 300;
        let is_expected = is_accepted || refusals.contains(&answer.status);
        assert!(is_expected, "{method} {target}: {} {}", answer.status, answer.text());
        Op { sent, answered: Instant::now(), is_accepted }
    }

    /// Runs a command of the operator, which must succeed.
    #[track_caller]
    fn command(&self, arguments: &[&str]) -> Op {
        let sent = Instant::now();
        adda(&self.data, arguments);
        Op { sent, answered: Instant::now(), is_accepted: true }
    }

    #[track_caller]
    fn me(&self, token: &str) -> Value {
        self.ask(token, "GET", "/api/session", None).json()["data"].take()
    }

    fn enters(&self, room: &str, token: &str) -> Ws {
        Ws::join(&self.server, &format!("/ws?room={room}&history=0&token={token}"))
    }

    /// The whole log of a room; its `seq` must have no gap.
    #[track_caller]
    fn log(&self, room: &str) -> Vec<Value> {
        let mut log: Vec<Value> = Vec::new();
        let mut before = String::new();
        loop {
            let target = format!("/api/rooms/{room}/messages?limit=200{before}");
            let answer = self.ask(&self.steady, "GET", &target, None);
            if answer.status == 404 {
                break;
            }
            let mut page = answer.json();
            log.splice(0..0, page["data"].as_array_mut().expect("a page").drain(..));
            match page["next"].as_str() {
                Some(next) => before = format!("&before={next}"),
                None => break,
            }
        }
        let seqs: Vec<u64> = log.iter().filter_map(|frame| frame["seq"].as_u64()).collect();
        assert_eq!(seqs, (1..=log.len() as u64).collect::<Vec<_>>(), "the order of {room}");
        log
    }
}

/// The nonces of the stored messages.
fn nonces(log: &[Value]) -> BTreeSet<String> {
    log.iter().filter_map(|frame| Some(frame["nonce"].as_str()?.to_owned())).collect()
}

/// The messages that a client sent: the operation of each nonce, if it was answered.
type Sent = BTreeMap<String, Option<Op>>;

/// Sends messages over a WebSocket until the connection ends, a message is refused, or the others are done.
fn chat(mut ws: Ws, prefix: &str, are_done: &AtomicBool) -> Sent {
    let mut sent_at: BTreeMap<String, Instant> = BTreeMap::new();
    let mut ops = Sent::new();
    let mut is_over = false;
    while !is_over {
        let is_last = are_done.load(Ordering::SeqCst) || sent_at.len() >= MESSAGES;
        let nonce = format!("{prefix}-{}", sent_at.len());
        let command = json!({"content": "hi", "nonce": nonce});
        sent_at.insert(nonce.clone(), Instant::now());
        ops.insert(nonce.clone(), None);
        is_over = ws.try_send(Message::text(command.to_string())).is_err() || is_last;
        // The answer to this message, or to an earlier one if several are in flight.
        while ops[&nonce].is_none() {
            match ws.event_within(DEADLINE) {
                Some(Event::Frame(frame)) => {
                    let Some(sent) = frame["nonce"].as_str().and_then(|nonce| sent_at.get_key_value(nonce)) else {
                        continue;
                    };
                    let is_accepted = frame["type"] != "error";
                    let op = Op { sent: *sent.1, answered: Instant::now(), is_accepted };
                    ops.insert(sent.0.clone(), Some(op));
                    is_over |= !is_accepted;
                }
                Some(Event::Close(_) | Event::End) => return ops,
                None => panic!("no answer to {nonce}"),
            }
        }
    }
    ops
}

/// Posts until a message is refused, or the others are done.
#[track_caller]
fn post(stage: &Stage, room: &str, token: &str, prefix: &str, are_done: &AtomicBool) -> Sent {
    let mut ops = Sent::new();
    let target = format!("/api/rooms/{room}/messages");
    for number in 0..MESSAGES {
        let is_last = are_done.load(Ordering::SeqCst);
        let nonce = format!("{prefix}-{number}");
        let op = stage.op(token, "POST", &target, &json!({"content": "hi", "nonce": nonce}), &[401, 403]);
        ops.insert(nonce, Some(op));
        if is_last || !op.is_accepted {
            break;
        }
    }
    ops
}

/// Checks that the accepted messages are stored and the refused ones are not.
#[track_caller]
fn assert_stored(sent: &Sent, log: &[Value]) {
    let stored = nonces(log);
    for (nonce, op) in sent {
        if let Some(op) = op {
            assert_eq!(op.is_accepted, stored.contains(nonce), "{nonce}: accepted, and stored");
        }
    }
}

/// The answered operations. A message without an answer counts as accepted if it is stored.
fn answered(sent: &Sent) -> Vec<Op> {
    sent.values().flatten().copied().collect()
}

/// A sequence of room settings; each has its own name in two fields.
struct Changes {
    names: Vec<String>,
    ops: Vec<Op>,
}

impl Changes {
    fn accepted(&self) -> Vec<&str> {
        let pairs = self.names.iter().zip(&self.ops);
        pairs.filter(|(_, op)| op.is_accepted).map(|(name, _)| name.as_str()).collect()
    }
}

/// Changes a room over HTTP until a change is refused, or the others are done; then once more.
#[track_caller]
fn change_by_rest(stage: &Stage, room: &str, token: &str, prefix: &str, are_done: &AtomicBool) -> Changes {
    let mut changes = Changes { names: Vec::new(), ops: Vec::new() };
    let mut is_last = false;
    for number in 0..CHANGES {
        let name = format!("{prefix}-{number}");
        let settings = json!({"name": name, "topic": name});
        let op = stage.op(token, "PATCH", &format!("/api/rooms/{room}"), &settings, &[403]);
        changes.names.push(name);
        changes.ops.push(op);
        if is_last {
            break;
        }
        is_last = are_done.load(Ordering::SeqCst) || !op.is_accepted;
    }
    changes
}

/// The same by commands over a WebSocket.
#[track_caller]
fn change_by_ws(mut ws: Ws, prefix: &str, are_done: &AtomicBool) -> Changes {
    let mut changes = Changes { names: Vec::new(), ops: Vec::new() };
    for number in 0..CHANGES {
        let is_last = are_done.load(Ordering::SeqCst);
        let name = format!("{prefix}-{number}");
        changes.ops.push(command(&mut ws, json!({"type": "room", "name": name, "topic": name, "nonce": name})));
        changes.names.push(name);
        if is_last {
            break;
        }
    }
    changes
}

/// Sends a command with a nonce over a WebSocket; it must be answered.
#[track_caller]
fn command(ws: &mut Ws, command: Value) -> Op {
    let sent = Instant::now();
    ws.command(&command);
    let answer = ws.until(|frame| frame["nonce"] == command["nonce"]);
    let is_accepted = answer["type"] != "error";
    assert!(is_accepted || answer["code"] == "forbidden", "{answer}");
    Op { sent, answered: Instant::now(), is_accepted }
}

/// The settings that a member receives in sequence, until the name of the room is `last`.
#[track_caller]
fn received_settings(mut ws: Ws, last: &str) -> Vec<String> {
    let mut received = Vec::new();
    while received.last().is_none_or(|name| name != last) {
        let frame = ws.until(|frame| frame["type"] == "room");
        let room = &frame["room"];
        assert_eq!(room["name"], room["topic"], "half of a change: {frame}");
        received.push(room["name"].as_str().expect("a name").to_owned());
    }
    received
}

/// Checks that the settings of a room are an interleaving of the accepted changes, and the last of them.
#[track_caller]
fn assert_one_order(streams: &[&Changes], received: &[String], last: &str) {
    let accepted: BTreeSet<&str> = streams.iter().flat_map(|changes| changes.accepted()).collect();
    let distinct: BTreeSet<&str> = received.iter().map(String::as_str).collect();
    assert_eq!(received.len(), distinct.len(), "a change was received twice: {received:?}");
    assert_eq!(distinct, accepted, "received, and accepted");
    for changes in streams {
        let own = changes.accepted();
        let in_order: Vec<&str> = received.iter().map(String::as_str).filter(|name| own.contains(name)).collect();
        assert_eq!(in_order, own, "one client's changes in another order");
    }
    assert_eq!(received.last().map(String::as_str), Some(last));
}

/// The command line demotes an admin. Meanwhile this admin bans a guest and changes a room, another admin changes the
/// room, too, and the guest sends messages.
fn demotion(stage: &Stage, round: u64, random: &mut Random) {
    stage.command(&["user", "role", "demoted", "admin"]);
    eventually("an admin again", DEADLINE, || stage.me(&stage.demoted)["role"] == "admin");
    let room = format!("room-{round}");
    let guest =
        exchange(stage.addr(), "POST", "/api/session", &[], Some(&json!({"username": format!("guest-{round}")})));
    let guest = guest.expect("an answer").json()["data"].take();
    let (guest_id, guest) =
        (guest["id"].as_str().expect("an id").to_owned(), guest["token"].as_str().expect("a token"));
    let (chats, watches) = (stage.enters(&room, guest), stage.enters(&room, &stage.steady));
    let (sets, mut bans) = (stage.enters(&room, &stage.steady), stage.enters(&room, &stage.demoted));
    let bans_by_ws = random.once_in(2);
    let [at_demotion, at_ban, at_changes] = [(); 3].map(|()| random.up_to(DELAY_MAX));
    let are_done = AtomicBool::new(false);
    let (room, guest_id, are_done) = (room.as_str(), guest_id.as_str(), &are_done);
    let (demotion, (ban, behind_ban), by_demoted, by_steady, by_ws, chatted, posted) = thread::scope(|scope| {
        let demotion = scope.spawn(move || {
            thread::sleep(at_demotion);
            stage.command(&["user", "role", "demoted", "user"])
        });
        let ban = scope.spawn(move || {
            thread::sleep(at_ban);
            let banned = json!({"until": UNTIL, "reason": "race"});
            let op = if bans_by_ws {
                command(&mut bans, json!({"type": "ban", "user_id": guest_id, "banned": banned, "nonce": room}))
            } else {
                let target = format!("/api/users/{guest_id}");
                stage.op(&stage.demoted, "PUT", &target, &json!({"banned": banned}), &[403])
            };
            (op, stage.log(room))
        });
        let by_demoted = scope.spawn(move || {
            thread::sleep(at_changes);
            change_by_rest(stage, room, &stage.demoted, &format!("demoted-{round}"), are_done)
        });
        let by_steady =
            scope.spawn(move || change_by_rest(stage, room, &stage.steady, &format!("steady-{round}"), are_done));
        let by_ws = scope.spawn(move || change_by_ws(sets, &format!("ws-{round}"), are_done));
        let chatted = scope.spawn(move || chat(chats, &format!("chat-{round}"), are_done));
        let posted = scope.spawn(move || post(stage, room, guest, &format!("post-{round}"), are_done));
        let (demotion, ban) = (joined(demotion), joined(ban));
        are_done.store(true, Ordering::SeqCst);
        let (chatted, posted) = (joined(chatted), joined(posted));
        (demotion, ban, joined(by_demoted), joined(by_steady), joined(by_ws), chatted, posted)
    });

    // Demotion and ban each have their time; the ban's is the earlier one if it was accepted.
    let of_admin: Vec<Op> = by_demoted.ops.iter().copied().chain([ban]).collect();
    let demoted = Span::of(demotion).narrowed("the demotion", &of_admin);
    let log = stage.log(room);
    let sent: Sent = chatted.into_iter().chain(posted).collect();
    assert_stored(&sent, &log);
    let messages = answered(&sent);
    if ban.is_accepted {
        let banned = Span::of(ban).narrowed("the ban", &messages);
        assert!(banned.from <= demoted.to, "the ban was accepted behind the demotion");
        let late: Vec<String> = nonces(&log).difference(&nonces(&behind_ban)).cloned().collect();
        assert!(late.is_empty(), "stored behind the answer to the ban: {late:?}");
    } else {
        assert!(messages.iter().all(|op| op.is_accepted), "no admin has banned the guest");
    }
    let bans = stage.ask(&stage.steady, "GET", "/api/bans", None).json()["data"].take();
    let is_banned = bans.as_array().expect("bans").iter().any(|ban| ban["user"] == guest_id);
    assert_eq!(is_banned, ban.is_accepted, "stored, and accepted");
    assert_eq!(stage.ask(guest, "GET", "/api/session", None).status, if ban.is_accepted { 403 } else { 200 });

    let settings = stage.ask(&stage.steady, "GET", &format!("/api/rooms/{room}"), None).json()["data"].take();
    assert_eq!(settings["name"], settings["topic"], "half of a change: {settings}");
    let last = settings["name"].as_str().expect("a name");
    assert_one_order(&[&by_demoted, &by_steady, &by_ws], &received_settings(watches, last), last);
    stage.command(&["user", "role", "demoted", "user"]);
}

/// The command line promotes a user to admin while another admin mutes the user. In either order the user can post in
/// the end.
fn promotion(stage: &Stage, round: u64, random: &mut Random) {
    let name = format!("promoted-{round}");
    let token = user_token(&stage.data, &name, "user");
    let id = stage.me(&token)["id"].as_str().expect("an id").to_owned();
    let [at_promotion, at_mute] = [(); 2].map(|()| random.up_to(DELAY_MAX));
    let (promotion, mutes) = thread::scope(|scope| {
        let promotion = scope.spawn(|| {
            thread::sleep(at_promotion);
            stage.command(&["user", "role", &name, "admin"])
        });
        let mutes = scope.spawn(|| {
            thread::sleep(at_mute);
            let mute = || {
                let target = format!("/api/users/{id}");
                stage.op(&stage.steady, "PUT", &target, &json!({"muted_until": UNTIL}), &[403])
            };
            let mut mutes: Vec<Op> = Vec::new();
            while mutes.last().is_none_or(|op| op.is_accepted) && mutes.len() < CHANGES {
                mutes.push(mute());
            }
            mutes
        });
        (joined(promotion), joined(mutes))
    });
    Span::of(promotion).narrowed("the promotion", &mutes);
    let ws = stage.enters("tea", &token);
    assert_eq!((&ws.welcome["muted_until"], &ws.welcome["role"]), (&Value::Null, &json!("admin")));
    let said = stage.ask(&token, "POST", "/api/rooms/tea/messages", Some(&json!({"content": "hi"})));
    assert_eq!(said.status, 201, "{}", said.text());
}

/// The command line revokes a token, or removes its account, while its user sends messages.
fn revocation(stage: &Stage, round: u64, random: &mut Random) {
    let (room, name) = (format!("revoked-{round}"), format!("revoked-{round}"));
    let token = user_token(&stage.data, &name, "user");
    let sessions = stage.ask(&token, "GET", "/api/sessions", None).json()["data"].take();
    let id = sessions[0]["id"].to_string().trim_matches('"').to_owned();
    let arguments = match random.once_in(2) {
        true => vec!["token", "revoke", id.as_str()],
        false => vec!["user", "remove", name.as_str(), "--yes"],
    };
    let ws = stage.enters(&room, &token);
    let at_revocation = random.up_to(DELAY_MAX);
    let are_done = AtomicBool::new(false);
    let (revocation, behind, chatted, posted) = thread::scope(|scope| {
        let chatted = scope.spawn(|| chat(ws, "chat", &are_done));
        let posted = scope.spawn(|| post(stage, &room, &token, "post", &are_done));
        thread::sleep(at_revocation);
        let revocation = stage.command(&arguments);
        let behind = stage.log(&room);
        are_done.store(true, Ordering::SeqCst);
        (revocation, behind, joined(chatted), joined(posted))
    });
    let log = stage.log(&room);
    let sent: Sent = chatted.into_iter().chain(posted).collect();
    assert_stored(&sent, &log);
    Span::of(revocation).narrowed(&format!("{arguments:?}"), &answered(&sent));
    let late: Vec<String> = nonces(&log).difference(&nonces(&behind)).cloned().collect();
    assert!(late.is_empty(), "stored behind the end of {arguments:?}: {late:?}");
    assert_eq!(stage.ask(&token, "GET", "/api/session", None).status, 401);
}

/// Runs rounds of one kind, and checks the database.
fn race(round: fn(&Stage, u64, &mut Random)) {
    let rounds = match std::env::var("ADDA_RACE_ROUNDS") {
        Ok(text) => text.parse().expect("ADDA_RACE_ROUNDS is a number"),
        Err(_) => ROUNDS,
    };
    let mut random = Random::from_env();
    let begun = Instant::now();
    let stage = Stage::set();
    for number in 0..rounds {
        round(&stage, number, &mut random);
    }
    adda(Path::new(&stage.data), &["doctor"]);
    println!("{rounds} rounds, {} s", begun.elapsed().as_secs());
}

#[test]
fn a_demotion_a_ban_settings_and_messages_have_a_sequential_order() {
    race(demotion);
}

#[test]
fn a_promotion_and_a_mute_have_a_sequential_order() {
    race(promotion);
}

#[test]
fn the_end_of_a_token_and_messages_have_a_sequential_order() {
    race(revocation);
}

/// The checks must find planted faults.
#[test]
fn answers_without_a_sequential_order_are_found() {
    let begun = Instant::now();
    let at = |ms: u64| begun + Duration::from_millis(ms);
    let op = |sent, answered, is_accepted| Op { sent: at(sent), answered: at(answered), is_accepted };
    let change = Span { from: at(10), to: at(20) };
    let finds = |ops: &[Op]| std::panic::catch_unwind(|| change.narrowed("planted", ops)).is_err();
    assert!(!finds(&[op(0, 1, true), op(19, 30, true)]));
    assert!(!finds(&[op(0, 1, true), op(12, 18, true), op(11, 15, false), op(21, 25, false)]));
    assert!(finds(&[op(21, 22, true)]), "accepted behind the change");
    assert!(finds(&[op(1, 9, false)]), "refused before the change");
    assert!(finds(&[op(11, 12, false), op(13, 14, true)]), "accepted behind a refusal");
}
