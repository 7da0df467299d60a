//! The server is killed at a write, sync, truncation, rename, link or unlink, one after another, and started again.
//! Every acknowledged change is there, none is half done, and no message is duplicated.
//!
//! `faulty_disk.c` kills before the operation, in the middle of a write, or with all unsynced writes undone, as after a
//! power cut. A share of the operations is tried, chosen by `ADDA_SEED`. `ADDA_CRASH_POINTS=all` tries each operation
//! in all three ways: `ADDA_CRASH_POINTS=all cargo test --test it crash_points -- --nocapture`.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::crash::command;
use crate::disk::Disk;
use crate::migration::{self, Fixture, server_command};
use crate::random::Random;
use crate::support::{DEADLINE, Event, Response, Server, Ws, adda, adda_given, clean, exchange, user_token};

/// Operations that are tried in each scenario without `ADDA_CRASH_POINTS=all`.
const KILLS_ON_ALL_FILES: u64 = 48;
const KILLS_ON_AN_EMPTY_DIRECTORY: u64 = 16;
const KILLS_IN_A_CHECKPOINT: u64 = 12;
const KILLS_IN_A_MIGRATION: u64 = 16;
const KILLS_OF_A_TOOL: u64 = 6;
/// How the process dies at an operation.
const WAYS: [&str; 3] = ["before", "torn", "power"];
const PASSWORD: &str = "correct horse battery";
const PASSWORD_NEW: &str = "another horse battery";
const UNTIL: &str = "2099-01-01T00:00:00.000Z";
/// Rooms whose whole log is read after a crash.
const ROOMS: [&str; 4] = ["tea", "board", "plans", "vault"];
/// Acknowledged texts that are sent again. All texts with an unknown outcome are sent again.
const DONE_TEXTS_SENT_AGAIN: usize = 20;
/// Texts that are sent together, before the first of them is acknowledged.
const TEXTS: u64 = 6;

// ---- Where the process dies.

/// An operation at which the process dies.
#[derive(Debug, Clone)]
struct Point {
    files: &'static str,
    way: &'static str,
    at: u64,
}

impl Point {
    /// A point that is never reached: the process ends normally and counts its operations.
    fn never(files: &'static str) -> Self {
        Self { files, way: "before", at: 0 }
    }

    /// A share of the operations, spread over all of them, or each operation in every way.
    fn chosen(files: &'static str, operations: u64, share: u64, random: &mut Random) -> Vec<Self> {
        if std::env::var("ADDA_CRASH_POINTS").is_ok_and(|which| which == "all") {
            let ways = |at| WAYS.map(|way| Self { files, way, at });
            return (1..=operations).flat_map(ways).collect();
        }
        let share = share.min(operations);
        let place = |number: u64| number * operations / share;
        let mut point = |number| {
            let at = 1 + random.within(place(number)..place(number + 1));
            let way = WAYS[random.within(0..WAYS.len() as u64) as usize];
            Self { files, way, at }
        };
        (0..share).map(&mut point).collect()
    }

    /// The command for the library.
    fn words(&self) -> String {
        format!("{} {} {}", self.files, self.way, self.at)
    }
}

/// Prints how many points were tried, and at how many the process died: it may do fewer operations than at the count.
fn report(scenario: &str, operations: u64, tried: usize, died: usize, begun: Instant) {
    println!("{scenario}: {operations} operations, {tried} tried, killed at {died}, {} s", begun.elapsed().as_secs());
    assert!(died * 10 >= tried * 8, "{scenario}: killed at {died} of {tried} points alone");
}

// ---- What the clients do.

/// The outcome of a request.
#[derive(Debug, Clone)]
enum Outcome {
    /// The server had died before the request was sent.
    NotSent,
    /// It was sent and not answered.
    Unknown,
    /// It was answered with 2xx, or with the sender's own copy.
    Done(Value),
}

impl Outcome {
    /// Checks that what the request was to change has its old or its new state, as the outcome allows.
    #[track_caller]
    fn settled<T: PartialEq + Debug>(&self, what: &str, found: &T, before: &T, after: &T) {
        let right = match self {
            Self::NotSent => found == before,
            Self::Unknown => found == before || found == after,
            Self::Done(_) => found == after,
        };
        assert!(right, "{what}: {found:?}, from {before:?} to {after:?}, {self:?}");
    }
}

/// The users of a database, with their tokens and ids.
#[derive(Debug, Clone, Default)]
struct Cast {
    tokens: BTreeMap<&'static str, String>,
    ids: BTreeMap<&'static str, String>,
}

/// A message that a scenario sends.
struct Text {
    nonce: String,
    sender: &'static str,
    kind: &'static str,
    content: String,
    outcome: Outcome,
}

/// The clients of a scenario, with their records.
struct Clients<'a> {
    address: SocketAddr,
    /// The database of the server.
    data: PathBuf,
    cast: &'a Cast,
    texts: Vec<Text>,
    outcomes: BTreeMap<&'static str, Outcome>,
}

/// One action of a client, and what must hold after the next start.
struct Step {
    name: &'static str,
    act: fn(&mut Clients<'_>) -> io::Result<Value>,
    check: fn(&Clients<'_>, &Outcome),
}

impl<'a> Clients<'a> {
    fn new(address: SocketAddr, data: PathBuf, cast: &'a Cast) -> Self {
        Self { address, data, cast, texts: Vec::new(), outcomes: BTreeMap::new() }
    }

    fn token(&self, name: &str) -> &str {
        &self.cast.tokens[name]
    }

    fn id(&self, name: &str) -> &str {
        &self.cast.ids[name]
    }

    fn answer(&self, token: &str, method: &str, target: &str, json: Option<Value>) -> io::Result<Response> {
        let bearer = format!("Bearer {token}");
        let headers: &[(&str, &str)] = if token.is_empty() { &[] } else { &[("Authorization", &bearer)] };
        exchange(self.address, method, target, headers, json.as_ref())
    }

    /// A request of a user; it must succeed if it is answered.
    fn ask(&self, name: &str, method: &str, target: &str, json: Option<Value>) -> io::Result<Value> {
        let token = if name.is_empty() { "" } else { self.token(name) };
        let response = self.answer(token, method, target, json)?;
        assert!(response.status < 300, "{method} {target}: {} {}", response.status, response.text());
        Ok(if response.body.is_empty() { Value::Null } else { response.json()["data"].take() })
    }

    /// The status of a GET.
    #[track_caller]
    fn status(&self, token: &str, target: &str) -> u16 {
        self.answer(token, "GET", target, None).expect("an answer").status
    }

    /// The response to a user's GET, which must succeed.
    #[track_caller]
    fn get(&self, name: &str, target: &str) -> Value {
        self.ask(name, "GET", target, None).expect("an answer")
    }

    fn done(&self, step: &str) -> Option<&Value> {
        match self.outcomes.get(step) {
            Some(Outcome::Done(value)) => Some(value),
            _ => None,
        }
    }

    /// Sends messages over a WebSocket, all at once, and reads the echo of each.
    fn send(&mut self, sender: &'static str, kind: &'static str, nonces: Vec<String>) -> io::Result<Value> {
        self.send_padded(sender, kind, nonces, 0)
    }

    /// The same with padding in each message.
    fn send_padded(
        &mut self,
        sender: &'static str,
        kind: &'static str,
        nonces: Vec<String>,
        padding_bytes: usize,
    ) -> io::Result<Value> {
        let mut ws = self.join(self.token(sender))?;
        let first = self.texts.len();
        for nonce in nonces {
            let content = format!("{kind} {nonce} কথা{}", "z".repeat(padding_bytes));
            let command = json!({"type": kind, "content": content, "nonce": nonce});
            self.texts.push(Text { nonce, sender, kind, content, outcome: Outcome::Unknown });
            ws.try_send(tungstenite::Message::text(command.to_string())).map_err(io::Error::other)?;
        }
        while self.texts[first..].iter().any(|text| matches!(text.outcome, Outcome::Unknown)) {
            let frame = next_frame(&mut ws)?;
            assert_ne!(frame["type"], "error", "{frame}");
            let own = self.texts[first..].iter_mut().find(|text| frame["nonce"] == text.nonce.as_str());
            if let Some(text) = own {
                text.outcome = Outcome::Done(frame);
            }
        }
        Ok(Value::Null)
    }

    /// Joins `tea` with a token, or without one as a guest. The `welcome` is in the connection.
    fn join(&self, token: &str) -> io::Result<Ws> {
        let query = if token.is_empty() { "username=Dora".into() } else { format!("token={token}") };
        match Ws::open(self.address, &format!("/ws?room=tea&history=0&{query}"), &[])? {
            Ok(mut ws) => {
                ws.welcome = next_frame(&mut ws)?;
                assert_eq!(ws.welcome["type"], "welcome", "{}", ws.welcome);
                Ok(ws)
            }
            Err(refusal) => panic!("refused: {} {}", refusal.status, refusal.text()),
        }
    }

    /// Posts a text to `tea`.
    fn post(&mut self, nonce: &str) -> io::Result<Value> {
        let content = format!("text {nonce} কথা");
        let text = Text { nonce: nonce.into(), sender: "rahim", kind: "text", content, outcome: Outcome::Unknown };
        self.texts.push(text);
        let frame = self.post_again(self.texts.len() - 1)?;
        self.texts.last_mut().expect("it was just added").outcome = Outcome::Done(frame.clone());
        Ok(frame)
    }

    /// Posts a text again that may be stored already.
    fn post_again(&self, at: usize) -> io::Result<Value> {
        let Text { nonce, sender, content, .. } = &self.texts[at];
        let bearer = format!("Bearer {}", self.token(sender));
        let headers = [("Authorization", bearer.as_str()), ("Idempotency-Key", nonce)];
        let json = json!({"content": content});
        let response = exchange(self.address, "POST", "/api/rooms/tea/messages", &headers, Some(&json))?;
        assert!(matches!(response.status, 200 | 201), "{} {}", response.status, response.text());
        Ok(response.json()["data"].take())
    }

    /// The status of a login.
    #[track_caller]
    fn login(&self, username: &str, password: &str) -> u16 {
        let json = json!({"username": username, "password": password});
        self.answer("", "POST", "/api/session", Some(json)).expect("an answer").status
    }

    /// The whole log of a room, with events, as an admin and member reads it.
    #[track_caller]
    fn log(&self, room: &str) -> Vec<Value> {
        let (mut first, mut before) = (None, String::new());
        while let (Some(page), next) = self.page(room, &before)
            && let Some(oldest) = page.into_iter().next()
        {
            first = Some(oldest);
            match next {
                Some(next) => before = format!("&before={next}"),
                None => break,
            }
        }
        let mut log = Vec::from_iter(first);
        while let Some(last) = log.last()
            && let (Some(page), next) = self.page(room, &format!("&after={}", last["id"].as_str().expect("an id")))
        {
            log.extend(page);
            if next.is_none() {
                break;
            }
        }
        log
    }

    /// A page of a room's log if the room exists, and the cursor of the next page.
    #[track_caller]
    fn page(&self, room: &str, side: &str) -> (Option<Vec<Value>>, Option<String>) {
        let token = self.cast.tokens.get("boss").map_or("", String::as_str);
        let target = format!("/api/rooms/{room}/messages?limit=200{side}");
        let answer = self.answer(token, "GET", &target, None).expect("an answer");
        if answer.status == 404 {
            return (None, None);
        }
        let mut page = answer.json();
        let next = page["next"].as_str().map(str::to_owned);
        (Some(page["data"].as_array_mut().expect("a page").drain(..).collect()), next)
    }

    /// Checks the logs against the sent texts, and sends the texts with an unknown outcome again.
    #[track_caller]
    fn check_texts(&self) {
        let logs = || -> Vec<Value> { ROOMS.iter().flat_map(|room| self.log(room)).collect() };
        for room in ROOMS {
            let seqs: Vec<u64> = self.log(room).iter().filter_map(|frame| frame["seq"].as_u64()).collect();
            let expected: Vec<u64> = (1..=seqs.len() as u64).collect();
            assert_eq!(seqs, expected, "the order of {room}");
        }
        let log = logs();
        for text in &self.texts {
            let stored: Vec<&Value> = log.iter().filter(|frame| frame["nonce"] == text.nonce.as_str()).collect();
            let Text { nonce, outcome, .. } = text;
            match (outcome, stored.as_slice()) {
                (Outcome::Done(acked), [stored]) => {
                    assert_eq!((&acked["id"], &acked["seq"]), (&stored["id"], &stored["seq"]), "{nonce}");
                    let is_as_sent = stored["content"] == text.content.as_str() || stored["deleted_at"].is_string();
                    assert!(is_as_sent, "{stored}");
                }
                (Outcome::Unknown, [] | [_]) => {}
                _ => panic!("{nonce}, {outcome:?}, is stored {} times: {stored:?}", stored.len()),
            }
        }
        let is_sent_again = |at: usize, text: &Text| {
            text.kind == "text" && (matches!(text.outcome, Outcome::Unknown) || at < DONE_TEXTS_SENT_AGAIN)
        };
        for (at, text) in self.texts.iter().enumerate().filter(|(at, text)| is_sent_again(*at, text)) {
            let frame = self.post_again(at).expect("an answer");
            assert_eq!(frame["nonce"], text.nonce.as_str(), "{frame}");
            if let Outcome::Done(acked) = &text.outcome {
                assert_eq!((&frame["id"], &frame["duplicate"]), (&acked["id"], &json!(true)), "{frame}");
            }
        }
        let log = logs();
        for (_, text) in self.texts.iter().enumerate().filter(|(at, text)| is_sent_again(*at, text)) {
            let count = log.iter().filter(|frame| frame["nonce"] == text.nonce.as_str()).count();
            assert_eq!(count, 1, "{} after it was sent again", text.nonce);
        }
    }
}

/// The next frame of a connection to a server that may die.
fn next_frame(ws: &mut Ws) -> io::Result<Value> {
    match ws.event_within(DEADLINE) {
        Some(Event::Frame(frame)) => Ok(frame),
        Some(Event::Close(_) | Event::End) => Err(io::ErrorKind::UnexpectedEof.into()),
        None => panic!("nothing came within {DEADLINE:?}"),
    }
}

/// The beginning and the end of every scenario: guests, and texts.
const BY_GUESTS: &[Step] = &[
    Step {
        name: "a guest's session",
        act: |clients| clients.ask("", "POST", "/api/session", Some(json!({"username": "Ana"}))),
        check: |clients, outcome| {
            if let Outcome::Done(session) = outcome {
                let token = session["token"].as_str().expect("a token");
                let me = clients.answer(token, "GET", "/api/session", None).expect("an answer");
                assert_eq!(me.status, 200, "{}", me.text());
                let me = &me.json()["data"];
                assert_eq!((&me["id"], &me["username"]), (&session["id"], &json!("Ana")));
            }
        },
    },
    Step {
        name: "a guest's first text",
        act: |clients| {
            let mut ws = clients.join("")?;
            let token = ws.welcome["token"].clone();
            ws.try_send(tungstenite::Message::text("salaam")).map_err(io::Error::other)?;
            loop {
                let frame = next_frame(&mut ws)?;
                if frame["type"] == "text" && frame["user_id"] == ws.welcome["user_id"] {
                    return Ok(json!({"token": token, "frame": frame}));
                }
            }
        },
        check: |clients, outcome| {
            let stored =
                clients.log("tea").into_iter().filter(|frame| frame["content"] == "salaam").collect::<Vec<_>>();
            match outcome {
                Outcome::NotSent => assert_eq!(stored, Vec::<Value>::new()),
                Outcome::Unknown => assert!(stored.len() <= 1, "{stored:?}"),
                Outcome::Done(done) => {
                    assert_eq!(stored, [done["frame"].clone()]);
                    let token = done["token"].as_str().expect("a token");
                    let me = clients.answer(token, "GET", "/api/session", None).expect("an answer").json();
                    assert_eq!(me["data"]["id"], stored[0]["user_id"]);
                }
            }
        },
    },
];

const BY_ALL: &[Step] = &[
    Step {
        name: "texts",
        act: |clients| clients.send("rahim", "text", (1..=TEXTS).map(|number| format!("text-{number}")).collect()),
        check: |_, _| {},
    },
    Step { name: "a post", act: |clients| clients.post("post-1"), check: |_, _| {} },
    Step { name: "a post to delete", act: |clients| clients.post("post-2"), check: |_, _| {} },
    Step {
        name: "a delete",
        act: |clients| {
            let posted = clients.done("a post to delete").expect("it was sent before")["id"].clone();
            let target = format!("/api/rooms/tea/messages/{}", posted.as_str().expect("an id"));
            clients.ask("rahim", "DELETE", &target, None)
        },
        check: |clients, outcome| {
            let Some(posted) = clients.done("a post to delete") else { return };
            let log = clients.log("tea");
            let target = log.iter().find(|frame| frame["id"] == posted["id"]).expect("it keeps its place");
            let deletes = log.iter().filter(|frame| frame["message_id"] == posted["id"]).count();
            let found = (target["deleted_at"].is_string(), target["content"] == "", deletes);
            outcome.settled("a delete", &found, &(false, false, 0), &(true, true, 1));
        },
    },
    Step {
        name: "a mute",
        act: |clients| {
            let target = format!("/api/users/{}", clients.id("karim"));
            clients.ask("boss", "PUT", &target, Some(json!({"muted_until": UNTIL})))
        },
        check: |clients, outcome| {
            let ws = clients.join(clients.token("karim")).expect("a connection");
            // Its end is later by the time without a server.
            let minute = |until: &str| until[.."2099-01-01T00:00".len()].to_owned();
            let found = ws.welcome["muted_until"].as_str().map(minute);
            outcome.settled("a mute", &found, &None, &Some(minute(UNTIL)));
        },
    },
    Step {
        name: "a ban",
        act: |clients| {
            let target = format!("/api/users/{}", clients.id("mallory"));
            clients.ask("boss", "PUT", &target, Some(json!({"banned": {"until": null, "reason": "spam"}})))
        },
        check: |clients, outcome| {
            let bans = clients.get("boss", "/api/bans");
            let id = clients.id("mallory");
            let ban = bans.as_array().expect("bans").iter().find(|ban| ban["user"] == id);
            let reason = ban.map(|ban| ban["reason"].clone());
            let found = (reason, clients.status(clients.token("mallory"), "/api/session"));
            outcome.settled("a ban", &found, &(None, 200), &(Some(json!("spam")), 403));
        },
    },
    Step {
        name: "room settings",
        act: |clients| {
            let settings = json!({"name": "Board", "topic": "খবর", "posting": "admins", "slow_mode_s": 7});
            clients.ask("boss", "PATCH", "/api/rooms/board", Some(settings))
        },
        check: |clients, outcome| {
            let room = clients.get("boss", "/api/rooms/board");
            let found = ["name", "topic", "posting", "slow_mode_s"].map(|name| room[name].clone());
            let before = [json!("board"), Value::Null, Value::Null, Value::Null];
            let after = [json!("Board"), json!("খবর"), json!("admins"), json!(7)];
            outcome.settled("room settings", &found, &before, &after);
        },
    },
    Step {
        name: "a room made private",
        act: |clients| clients.ask("boss", "PATCH", "/api/rooms/plans", Some(json!({"private": true}))),
        check: |clients, outcome| {
            let room = clients.get("boss", "/api/rooms/plans");
            let found = (room["private"].clone(), clients.status(clients.token("karim"), "/api/rooms/plans"));
            outcome.settled("a room made private", &found, &(Value::Null, 200), &(json!(true), 404));
        },
    },
    Step {
        name: "an invitation",
        act: |clients| {
            let json = json!({"room": "vault", "uses": 2, "days": 1});
            clients.ask("boss", "POST", "/api/invitations", Some(json))
        },
        check: |clients, outcome| {
            let listed = clients.get("boss", "/api/invitations?room=vault");
            let listed = listed.as_array().expect("invitations");
            match outcome {
                Outcome::NotSent => assert!(listed.is_empty(), "{listed:?}"),
                Outcome::Unknown => assert!(listed.len() <= 1, "{listed:?}"),
                Outcome::Done(made) => assert!(listed.iter().any(|one| one["id"] == made["id"]), "{listed:?}"),
            }
        },
    },
    Step {
        name: "an invitation used",
        act: |clients| {
            let code = clients.done("an invitation").expect("it was made before")["code"].clone();
            clients.ask("rahim", "POST", "/api/rooms/vault/members", Some(json!({"invitation": code})))
        },
        check: |clients, outcome| {
            let Some(made) = clients.done("an invitation") else { return };
            let listed = clients.get("boss", "/api/invitations?room=vault");
            let one = listed.as_array().expect("invitations").iter().find(|one| one["id"] == made["id"]);
            let uses_left = one.map(|one| one["uses_left"].clone());
            let found = (uses_left, clients.status(clients.token("rahim"), "/api/rooms/vault"));
            let (before, after) = ((Some(json!(2)), 404), (Some(json!(1)), 200));
            outcome.settled("an invitation used", &found, &before, &after);
        },
    },
    Step {
        name: "a kick out of a private room",
        act: |clients| {
            let target = format!("/api/rooms/vault/members/{}", clients.id("karim"));
            clients.ask("boss", "DELETE", &target, None)
        },
        check: |clients, outcome| {
            let found = clients.status(clients.token("karim"), "/api/rooms/vault");
            outcome.settled("a kick out of a private room", &found, &200, &404);
        },
    },
    Step {
        name: "an account",
        act: |clients| {
            let json = json!({"username": "nadia", "password": PASSWORD});
            clients.ask("", "POST", "/api/accounts", Some(json))
        },
        check: |clients, outcome| {
            let status = clients.login("nadia", PASSWORD);
            outcome.settled("an account", &status, &401, &201);
            if let Outcome::Done(made) = outcome {
                assert_eq!(clients.status(made["token"].as_str().expect("a token"), "/api/session"), 200);
            }
            if matches!(outcome, Outcome::Unknown) && status == 401 {
                let json = json!({"username": "nadia", "password": PASSWORD});
                clients.ask("", "POST", "/api/accounts", Some(json)).expect("an answer");
            }
        },
    },
    Step {
        name: "a password",
        act: |clients| {
            let json = json!({"old": PASSWORD, "new": PASSWORD_NEW});
            clients.ask("login", "PUT", "/api/account/password", Some(json))
        },
        check: |clients, outcome| {
            let other_login = clients.status(clients.token("other login"), "/api/session");
            let found = (clients.login("salma", PASSWORD_NEW), other_login);
            outcome.settled("a password", &found, &(401, 200), &(201, 401));
        },
    },
    Step {
        name: "an announcement",
        act: |clients| clients.send("boss", "announcement", vec!["announcement-1".into()]),
        check: |_, _| {},
    },
    Step {
        name: "a guest's new name",
        act: |clients| clients.ask("wanderer", "POST", "/api/session", Some(json!({"username": "Wanda"}))),
        check: |clients, outcome| {
            let found = clients.get("wanderer", "/api/session")["username"].clone();
            outcome.settled("a guest's new name", &found, &json!("wanderer"), &json!("Wanda"));
        },
    },
    Step {
        name: "a logout",
        act: |clients| clients.ask("fay", "DELETE", "/api/session", None),
        check: |clients, outcome| {
            let found = clients.status(clients.token("fay"), "/api/session");
            outcome.settled("a logout", &found, &200, &401);
        },
    },
];

// ---- A database to begin with.

/// A database with users and rooms. It is created once, and copied for each crash.
fn prepared() -> &'static (Vec<u8>, Cast) {
    static PREPARED: OnceLock<(Vec<u8>, Cast)> = OnceLock::new();
    PREPARED.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let data = dir.path().join("adda.db");
        let mut cast = Cast::default();
        adda_given(&data, &["user", "add", "salma"], &format!("{PASSWORD}\n"));
        for (name, role) in [("boss", "admin"), ("rahim", "user"), ("karim", "user")] {
            cast.tokens.insert(name, user_token(&data, name, role));
        }
        let mut server = Server::spawn(command(([127, 0, 0, 1], 0).into(), &data));
        let address = server.addr();
        let ask = |cast: &Cast, name: &str, method: &str, target: &str, json: Value| {
            Clients::new(address, data.clone(), cast).ask(name, method, target, Some(json)).expect("an answer")
        };
        for name in ["mallory", "wanderer", "fay"] {
            let session = ask(&cast, "", "POST", "/api/session", json!({"username": name}));
            cast.tokens.insert(name, session["token"].as_str().expect("a token").into());
        }
        for name in ["login", "other login"] {
            let json = json!({"username": "salma", "password": PASSWORD});
            let session = ask(&cast, "", "POST", "/api/session", json);
            cast.tokens.insert(name, session["token"].as_str().expect("a token").into());
        }
        for name in ["boss", "rahim", "karim", "mallory"] {
            let me = Clients::new(address, data.clone(), &cast).get(name, "/api/session");
            cast.ids.insert(name, me["id"].as_str().expect("an id").into());
        }
        for room in ROOMS {
            ask(&cast, "boss", "POST", &format!("/api/rooms/{room}/messages"), json!({"content": "the first"}));
        }
        ask(&cast, "boss", "PATCH", "/api/rooms/vault", json!({"private": true}));
        let invitation = ask(&cast, "boss", "POST", "/api/invitations", json!({"room": "vault"}));
        ask(&cast, "karim", "POST", "/api/rooms/vault/members", json!({"invitation": invitation["code"]}));
        server.signal(Signal::TERM);
        assert_eq!(server.wait_exit(DEADLINE).code(), Some(0));
        (fs::read(&data).expect("the database"), cast)
    })
}

// ---- Scenarios.

/// The actions between a start and a stop.
struct Scenario {
    name: &'static str,
    durability: &'static str,
    /// The initial database, and its users.
    prepare: fn(&Disk) -> Cast,
    steps: Vec<&'static Step>,
}

impl Scenario {
    /// Kills the server at chosen operations on these files.
    fn sweep(&self, files: &'static str, kills: u64) {
        let mut random = Random::from_env();
        let begun = Instant::now();
        let (operations, has_died) = self.run(&Point::never(files));
        assert!(!has_died, "{}: nothing kills it", self.name);
        let operations = operations.expect("it came to its end");
        let points = Point::chosen(files, operations, kills, &mut random);
        let died = points.iter().filter(|point| self.run(point).1).count();
        report(self.name, operations, points.len(), died, begun);
    }

    /// Runs the scenario with a kill at one operation, restarts the server, and checks. Returns the number of
    /// operations if the server ended normally, and whether it died.
    fn run(&self, point: &Point) -> (Option<u64>, bool) {
        let disk = Disk::new();
        let cast = (self.prepare)(&disk);
        let mut doomed = disk.command(([127, 0, 0, 1], 0).into());
        doomed.args(["--registration", "open", "--durability", self.durability]);
        disk.kill(&mut doomed, &point.words());
        let mut clients = Clients::new(([127, 0, 0, 1], 0).into(), disk.data(), &cast);
        let status = match Server::try_spawn(doomed) {
            Err(status) => status,
            Ok(mut server) => {
                clients.address = server.addr();
                self.act(&mut clients);
                server.signal(Signal::TERM);
                server.wait_exit(DEADLINE)
            }
        };
        let has_died = status.signal() == Some(Signal::KILL.as_raw());
        assert!(has_died || status.code() == Some(0), "{}, {point:?}: {status}", self.name);
        let operations = (!has_died).then(|| disk.operations());

        let mut again = command(([127, 0, 0, 1], 0).into(), &disk.data());
        again.args(["--registration", "open"]);
        let mut server = Server::spawn(again);
        clients.address = server.addr();
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.check(&clients)));
        if let Err(panic) = checked {
            println!("{}, {point:?}: {:#?}", self.name, clients.outcomes);
            std::panic::resume_unwind(panic);
        }
        server.signal(Signal::TERM);
        assert_eq!(server.wait_exit(DEADLINE).code(), Some(0), "{point:?}");
        adda(&disk.data(), &["doctor"]);
        (operations, has_died)
    }

    fn act(&self, clients: &mut Clients<'_>) {
        let mut is_gone = false;
        for step in &self.steps {
            let outcome = match is_gone {
                true => Outcome::NotSent,
                false => (step.act)(clients).map_or(Outcome::Unknown, Outcome::Done),
            };
            is_gone |= matches!(outcome, Outcome::Unknown);
            clients.outcomes.insert(step.name, outcome);
        }
    }

    #[track_caller]
    fn check(&self, clients: &Clients<'_>) {
        for step in &self.steps {
            (step.check)(clients, clients.outcomes.get(step.name).unwrap_or(&Outcome::NotSent));
        }
        clients.check_texts();
    }
}

/// Copies the prepared database to a disk.
fn prepare(disk: &Disk) -> Cast {
    let (database, cast) = prepared();
    fs::write(disk.data(), database).expect("the database");
    cast.clone()
}

#[test]
fn no_acknowledged_change_is_lost_or_half_done_after_any_kill() {
    let steps = BY_ALL.iter().chain(BY_GUESTS).collect();
    Scenario { name: "all changes", durability: "full", prepare, steps }.sweep("all", KILLS_ON_ALL_FILES);
}

#[test]
fn a_new_database_is_complete_after_any_kill() {
    let steps = BY_GUESTS.iter().collect();
    let scenario = Scenario { name: "a new database", durability: "full", prepare: |_| Cast::default(), steps };
    scenario.sweep("all", KILLS_ON_AN_EMPTY_DIRECTORY);
}

/// Texts that make the WAL so long that a checkpoint runs before the server stops.
const LONG_TEXTS: Step = Step {
    name: "long texts",
    act: |clients| {
        let bytes_before = fs::metadata(&clients.data)?.len();
        for batch in 0..LONG_BATCHES {
            let nonces = (0..LONG_TEXTS_PER_BATCH).map(|number| format!("long-{batch}-{number}"));
            clients.send_padded("rahim", "text", nonces.collect(), LONG_TEXT_BYTES)?;
            if batch == CHECKPOINT_AFTER_BATCH {
                wait_for_a_checkpoint(clients, bytes_before)?;
            }
        }
        Ok(Value::Null)
    },
    check: |_, _| {},
};
const LONG_BATCHES: u64 = 10;
const LONG_TEXTS_PER_BATCH: u64 = 60;
/// After this batch the WAL has more than a thousand pages.
const CHECKPOINT_AFTER_BATCH: u64 = 7;
const LONG_TEXT_BYTES: usize = 7_900;
/// How long the checkpoint may take; if it takes longer, the stop performs it.
const CHECKPOINT_WAIT: Duration = Duration::from_secs(2);

fn wait_for_a_checkpoint(clients: &Clients<'_>, bytes_before: u64) -> io::Result<()> {
    let end = Instant::now() + CHECKPOINT_WAIT;
    while fs::metadata(&clients.data)?.len() == bytes_before && Instant::now() < end {
        // Fails if the server has died.
        exchange(clients.address, "GET", "/api/about", &[], None)?;
    }
    Ok(())
}

#[test]
fn a_checkpoint_loses_nothing_after_any_kill() {
    let scenario = Scenario { name: "a checkpoint", durability: "full", prepare, steps: vec![&LONG_TEXTS] };
    scenario.sweep("database", KILLS_IN_A_CHECKPOINT);
}

/// The migration of an older database at the start, and in the background after it.
#[test]
fn a_migration_loses_nothing_after_any_kill() {
    let binary = Path::new(env!("CARGO_BIN_EXE_adda"));
    let run = |point: &Point| {
        let fixture = Fixture::restore(migration::SCHEMAS[0]);
        let disk = Disk::new();
        fixture.unpack(&disk.data());
        let mut doomed = server_command(binary, &disk.data());
        disk.kill(&mut doomed, &point.words());
        let status = Server::try_spawn(doomed).map_or_else(
            |status| status,
            |mut server| {
                // The rebuild in the background gets some time.
                let read = || exchange(server.addr(), "GET", "/api/rooms/tea/messages?q=brown", &[], None);
                let _ = (0..READS_DURING_A_MIGRATION).try_for_each(|_| read().map(drop));
                server.signal(Signal::TERM);
                server.wait_exit(DEADLINE)
            },
        );
        let has_died = status.signal() == Some(Signal::KILL.as_raw());
        assert!(has_died || status.code() == Some(0), "{point:?}: {status}");
        let operations = (!has_died).then(|| disk.operations());
        let mut server = Server::spawn(server_command(binary, &disk.data()));
        migration::assert_kept(&server, &fixture);
        server.signal(Signal::TERM);
        assert_eq!(server.wait_exit(DEADLINE).code(), Some(0), "{point:?}");
        adda(&disk.data(), &["doctor"]);
        (operations, has_died)
    };
    let mut random = Random::from_env();
    let begun = Instant::now();
    let (operations, has_died) = run(&Point::never("all"));
    assert!(!has_died, "nothing kills it");
    let operations = operations.expect("it came to its end");
    let points = Point::chosen("all", operations, KILLS_IN_A_MIGRATION, &mut random);
    let died = points.iter().filter(|point| run(point).1).count();
    report("a migration", operations, points.len(), died, begun);
}

/// Requests that are answered between the start and the stop.
const READS_DURING_A_MIGRATION: usize = 20;

/// The points at which the check of the checks looks. With 8 it found no loss in one run of four.
const POINTS_OF_THE_CHECK: u64 = 32;

/// The checks above must find a loss: with `--durability normal` a message is acknowledged before it is synced.
#[test]
fn the_checks_find_an_acknowledged_message_lost_in_a_power_cut() {
    let steps = BY_ALL[..2].iter().collect();
    let scenario = Scenario { name: "without syncs", durability: "normal", prepare, steps };
    let (operations, _) = scenario.run(&Point::never("all"));
    let operations = operations.expect("it came to its end");
    // Some of these points are before the first message, and some after the sync at the end.
    let finds = |way| {
        let at = |part| Point { files: "all", way, at: part * operations / POINTS_OF_THE_CHECK };
        (1..POINTS_OF_THE_CHECK).map(at).any(|point| std::panic::catch_unwind(|| scenario.run(&point)).is_err())
    };
    assert!(!finds("before"), "without a power cut nothing is lost");
    assert!(finds("power"), "a lost message was not found");
}

// ---- Commands.

/// A command that changes or copies a database, and how the database shows the change.
struct Tool {
    arguments: &'static [&'static str],
    input: &'static str,
    /// Whether the change is in the database.
    is_done: fn(&Path) -> bool,
    /// Whether the command can succeed a second time.
    is_repeatable: bool,
}

/// An account of `adda user list`.
fn listed(data: &Path, name: &str) -> Option<Value> {
    let listed = adda(data, &["user", "list", "--format", "json"]);
    let mut accounts = listed.lines().map(|line| serde_json::from_str::<Value>(line).expect("an account a line"));
    accounts.find(|account| account["name"] == name)
}

fn copy_of(data: &Path) -> PathBuf {
    data.with_extension("db-copy")
}

const TOOLS: &[Tool] = &[
    Tool {
        arguments: &["user", "add", "nadia", "--role", "admin"],
        input: "correct horse battery\n",
        is_done: |data| listed(data, "nadia").is_some_and(|account| account["role"] == "admin"),
        is_repeatable: false,
    },
    Tool {
        arguments: &["user", "role", "rahim", "admin"],
        input: "",
        is_done: |data| listed(data, "rahim").is_some_and(|account| account["role"] == "admin"),
        is_repeatable: true,
    },
    Tool {
        arguments: &["user", "remove", "salma", "--yes"],
        input: "",
        is_done: |data| listed(data, "salma").is_none(),
        is_repeatable: false,
    },
    Tool {
        arguments: &["backup", "COPY"],
        input: "",
        is_done: |data| {
            let is_there = copy_of(data).exists();
            if is_there {
                adda(&copy_of(data), &["doctor"]);
                assert!(listed(&copy_of(data), "salma").is_some(), "the copy has all accounts");
            }
            is_there
        },
        is_repeatable: false,
    },
];

impl Tool {
    fn command(&self, disk: &Disk) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_adda"));
        let copy = copy_of(&disk.data());
        let argument =
            |argument: &&str| if *argument == "COPY" { copy.clone().into_os_string() } else { argument.into() };
        clean(&mut command).args(self.arguments.iter().map(argument)).arg("--data").arg(disk.data());
        command
    }

    fn end(&self, command: &mut Command) -> Output {
        let streams = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = streams.spawn().expect("the command starts");
        let _ = child.stdin.take().expect("a piped stdin").write_all(self.input.as_bytes());
        child.wait_with_output().expect("the command ends")
    }

    /// Runs the command with a kill at one operation and again without, and checks.
    fn run(&self, point: &Point) -> (u64, bool) {
        let disk = Disk::new();
        prepare(&disk);
        let data = disk.data();
        let mut doomed = self.command(&disk);
        disk.kill(&mut doomed, &point.words());
        let ended = self.end(&mut doomed);
        let has_died = ended.status.signal() == Some(Signal::KILL.as_raw());
        assert!(has_died || ended.status.success(), "{:?}, {point:?}: {ended:?}", self.arguments);
        let operations = if has_died { 0 } else { disk.operations() };
        adda(&data, &["doctor"]);
        let was_done = (self.is_done)(&data);
        assert!(was_done || has_died, "{:?} said that it was done", self.arguments);
        let again = self.end(&mut self.command(&disk));
        let is_right = again.status.success() || (was_done && !self.is_repeatable && again.status.code() == Some(1));
        assert!(is_right, "{:?} once more, {point:?}: {again:?}", self.arguments);
        assert!((self.is_done)(&data), "{:?}, {point:?}", self.arguments);
        adda(&data, &["doctor"]);
        (operations, has_died)
    }
}

#[test]
fn a_killed_command_has_applied_its_change_or_not() {
    let mut random = Random::from_env();
    for tool in TOOLS {
        let begun = Instant::now();
        let (operations, has_died) = tool.run(&Point::never("all"));
        assert!(!has_died, "{:?}: nothing kills it", tool.arguments);
        let points = Point::chosen("all", operations, KILLS_OF_A_TOOL, &mut random);
        let died = points.iter().filter(|point| tool.run(point).1).count();
        report(&tool.arguments.join(" "), operations, points.len(), died, begun);
    }
}
