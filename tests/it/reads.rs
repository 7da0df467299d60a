//! Tests of reads: they wait neither for the hub nor for the store's writer, and write nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::support::Asked::{ByBearer, Plainly};
use crate::support::{Asked, DEADLINE, Server, Ws, eventually, repository, request, user_token};

/// How long a thread is stopped: longer than any wait for the hub or the store.
const STOPPED: Duration = Duration::from_secs(5);
/// Maximum time of a read meanwhile.
const READ_MAX: Duration = Duration::from_secs(1);
/// How long the files must stay unchanged before the server counts as idle.
const QUIET: Duration = Duration::from_millis(1_500);
const QUIET_WAIT: Duration = Duration::from_secs(30);
const READS: usize = 1_000;
const GUESTS: usize = 50;

/// A server with messages, an account and a guest.
struct Stage {
    dir: TempDir,
    server: Server,
    user: String,
    guest: String,
    /// A member of `tea`.
    ana: Ws,
}

impl Stage {
    fn set() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let data = dir.path().join("adda.db");
        let user = user_token(&data, "rahim", "user");
        let server = Server::with(&["--data", data.to_str().expect("a plain path"), "--rate", "0"]);
        Self::of(dir, server, user)
    }

    /// The same in memory, where there are no accounts: the user is a guest, too.
    fn set_in_memory() -> Self {
        let server = Server::unhurried();
        let user = guest_session(&server, "Rahim");
        Self::of(tempfile::tempdir().expect("a temporary directory"), server, user)
    }

    fn of(dir: TempDir, server: Server, user: String) -> Self {
        let guest = guest_session(&server, "Ben");
        let mut ana = Ws::join(&server, "/ws/tea/Ana");
        for number in 0..60 {
            ana.say(&format!("message {number} কথা"));
            ana.expect("text");
        }
        Self { dir, server, user, guest, ana }
    }

    /// All reads of a client.
    fn reads(&self) -> Vec<(Asked<'_>, &'static str)> {
        let both = [ByBearer(&self.user), ByBearer(&self.guest)];
        let public = [
            "/api/rooms",
            "/api/rooms?limit=1",
            "/api/rooms/tea",
            "/api/rooms/tea/messages",
            "/api/rooms/tea/messages?limit=200",
            "/api/rooms/tea/messages?q=message",
            "/api/rooms/tea/messages?q=%E0%A6%95%E0%A6%A5%E0%A6%BE",
            "/api/about",
        ];
        let own = ["/api/session", "/api/sessions"];
        let plain = public.iter().map(|target| (Plainly, *target));
        plain
            .chain(both.into_iter().flat_map(|asked| public.into_iter().chain(own).map(move |target| (asked, target))))
            .collect()
    }
}

#[track_caller]
fn guest_session(server: &Server, name: &str) -> String {
    let made = request(server.addr(), Plainly, "POST", "/api/session", Some(&json!({"username": name})));
    assert_eq!(made.status, 201, "{}", made.text());
    made.json()["data"]["token"].as_str().expect("a token").to_owned()
}

/// A thread of the server that is stopped while this lives.
struct Stopped(Child);

impl Stopped {
    #[track_caller]
    fn thread(server: &Server, name: &str) -> Self {
        let mut child = Command::new("python3")
            .arg(repository().join("tests/it/stop_thread.py"))
            .args([server.pid().to_string(), name.to_owned()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python");
        let mut line = String::new();
        let said = BufReader::new(child.stdout.take().expect("a piped stdout")).read_line(&mut line);
        assert!(said.is_ok() && line == "stopped\n", "thread {name} does not stop: {line:?}");
        Self(child)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Repeats all reads while a thread is stopped.
#[track_caller]
fn reads_go_on_without(thread: &str, mut stage: Stage) {
    let before: Vec<Value> =
        stage.reads().iter().map(|(asked, target)| answer(&stage.server, *asked, target)).collect();
    let stopped = Stopped::thread(&stage.server, thread);
    let begun = Instant::now();
    stage.ana.command(&json!({"content": "behind", "nonce": "behind"}));
    let mut slowest = (Duration::ZERO, "");
    let mut count = 0;
    while begun.elapsed() < STOPPED {
        for ((asked, target), before) in stage.reads().into_iter().zip(&before) {
            let asked_at = Instant::now();
            let found = answer(&stage.server, asked, target);
            slowest = slowest.max((asked_at.elapsed(), target));
            assert!(asked_at.elapsed() < READ_MAX, "{target} without {thread}: {:?}", asked_at.elapsed());
            assert_eq!(&found, before, "{target} without {thread}");
            count += 1;
        }
    }
    // This proves nothing if the thread was running.
    assert_eq!(stage.ana.event_within(Duration::from_millis(50)), None, "{thread} did not stand still");
    drop(stopped);
    assert_eq!(stage.ana.until(|frame| frame["nonce"] == "behind")["type"], "text");
    println!("{count} reads without {thread}, the slowest {slowest:?}");
}

/// The response to a read, without the fields that may change by themselves.
#[track_caller]
fn answer(server: &Server, asked: Asked<'_>, target: &str) -> Value {
    let answer = request(server.addr(), asked, "GET", target, None);
    assert_eq!(answer.status, 200, "{target}: {}", answer.text());
    let mut json = answer.json();
    for session in json["data"].as_array_mut().into_iter().flatten().filter(|_| target == "/api/sessions") {
        session["seen"].take();
    }
    json
}

#[test]
fn reads_are_answered_while_the_hub_is_stopped() {
    reads_go_on_without("hub", Stage::set());
}

#[test]
fn reads_are_answered_while_the_store_is_stopped() {
    reads_go_on_without("store", Stage::set());
}

#[test]
fn reads_in_memory_are_answered_while_the_hub_is_stopped() {
    reads_go_on_without("hub", Stage::set_in_memory());
}

/// The hashes of the database and of its WAL.
fn contents(dir: &Path) -> BTreeMap<PathBuf, String> {
    let hash = |name: &str| {
        let path = dir.join(name);
        let bytes = fs::read(&path).unwrap_or_default();
        (path, format!("{} bytes, {:x?}", bytes.len(), Sha256::digest(&bytes)))
    };
    ["adda.db", "adda.db-wal"].map(hash).into()
}

/// The hashes when they have not changed for a while.
#[track_caller]
fn contents_at_rest(dir: &Path) -> BTreeMap<PathBuf, String> {
    let end = Instant::now() + QUIET_WAIT;
    let (mut seen, mut since) = (contents(dir), Instant::now());
    while since.elapsed() < QUIET {
        assert!(Instant::now() < end, "the database does not come to rest");
        std::thread::sleep(Duration::from_millis(50));
        let now = contents(dir);
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
    }
    seen
}

/// Checks that an action leaves the files unchanged, and that a message does not.
#[track_caller]
fn writes_nothing(stage: &mut Stage, what: impl FnOnce(&Stage)) {
    let before = contents_at_rest(stage.dir.path());
    what(stage);
    assert_eq!(contents_at_rest(stage.dir.path()), before);
    stage.ana.say("this is written");
    stage.ana.until(|frame| frame["content"] == "this is written");
    assert_ne!(contents(stage.dir.path()), before);
}

/// The paths of the page's files, as the page names them.
fn assets(server: &Server) -> Vec<String> {
    let page = server.get("/");
    let page = page.text();
    let quoted = page.split(['"', '\'']).filter(|part| part.ends_with(".js") || part.ends_with(".css"));
    let assets: Vec<String> =
        quoted.map(|part| format!("/{}", part.trim_start_matches("./").trim_start_matches('/'))).collect();
    assert!(!assets.is_empty(), "the page has no files");
    assets
}

#[test]
fn reads_over_http_write_nothing() {
    writes_nothing(&mut Stage::set(), |stage| {
        let mut plain: Vec<String> = assets(&stage.server);
        plain.extend(["/", "/healthz", "/metrics"].map(str::to_owned));
        let mut targets: Vec<(Asked<'_>, String)> =
            stage.reads().into_iter().map(|(asked, target)| (asked, target.to_owned())).collect();
        targets.extend(plain.into_iter().map(|target| (Plainly, target)));
        for (asked, target) in targets.iter().cycle().take(READS) {
            let answer = request(stage.server.addr(), *asked, "GET", target, None);
            assert_eq!(answer.status, 200, "{target}: {}", answer.text());
        }
    });
}

#[test]
fn guests_that_only_read_write_nothing() {
    writes_nothing(&mut Stage::set(), |stage| {
        for number in 0..GUESTS {
            let mut ws = Ws::join(&stage.server, &format!("/ws/tea/Guest-{number}?history=50"));
            let replayed = ws.contents(50);
            assert_eq!(replayed.len(), 50);
            let token = ws.welcome["token"].as_str().expect("a new guest's token").to_owned();
            for target in ["/api/session", "/api/rooms/tea/messages", "/api/rooms"] {
                answer(&stage.server, ByBearer(&token), target);
            }
            // The guest is recognised by its token.
            let user_id = ws.user_id();
            if number % 2 == 0 {
                ws.close(1000);
            } else {
                drop(ws);
            }
            let back = Ws::join(&stage.server, &format!("/ws/tea/Guest-{number}?token={token}&history=0"));
            assert_eq!(back.user_id(), user_id);
        }
        eventually("only Ana is left", DEADLINE, || {
            answer(&stage.server, Plainly, "/api/rooms/tea")["data"]["client_count"] == 1
        });
    });
}
