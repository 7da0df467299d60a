//! Tests of a wall clock that is wrong, or set while the server runs: nothing is deleted, nobody is put out, nobody
//! waits longer.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::crash::command;
use crate::support::{DEADLINE, Response, Server, Ws, exchange, repository, run, user_token};

const DAY: i64 = 86_400;
const SLOW_MODE_S: u64 = 30;
/// A look of upkeep comes at least once in this time.
const UPKEEP: Duration = Duration::from_millis(1_500);

/// The library between a server and its wall clock.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("shifted_clock-{}.so", std::process::id()));
        let flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"];
        run(Command::new("cc").args(flags).arg(&library).arg(repository().join("tests/it/shifted_clock.c")));
        let name = library.with_file_name("shifted_clock.so");
        fs::rename(&library, &name).expect("the library has its name");
        name
    })
}

/// A machine whose wall clock a test sets.
struct Machine {
    dir: TempDir,
}

impl Machine {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory") }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("adda.db")
    }

    /// Shifts the wall clock.
    fn set(&self, shift_s: i64) {
        let new = self.dir.path().join("clock.new");
        fs::write(&new, shift_s.to_string()).expect("a file");
        fs::rename(new, self.dir.path().join("clock")).expect("the file has its name");
    }

    fn serve(&self) -> Server {
        let mut command = command(([127, 0, 0, 1], 0).into(), &self.data());
        command.args(["--retention", "30d", "--lease", "2s"]);
        // Summer time begins and ends in this zone.
        command
            .env("TZ", "Europe/Berlin")
            .env("LD_PRELOAD", library())
            .env("CLOCK_FILE", self.dir.path().join("clock"));
        Server::spawn(command)
    }
}

fn answer(ws: &mut Ws, content: &str, nonce: &str) -> Value {
    ws.command(&json!({"content": content, "nonce": nonce}));
    ws.until(|frame| frame["nonce"] == nonce)
}

/// What was stored or begun before the clock was set.
struct Before {
    admin: String,
    guest: String,
    message: Value,
}

impl Before {
    fn new(server: &Server, data: &Path) -> Self {
        let admin = user_token(data, "boss", "admin");
        let bearer = format!("Bearer {admin}");
        let slow = json!({"slow_mode_s": SLOW_MODE_S});
        let set = exchange(server.addr(), "PATCH", "/api/rooms/tea", &[("Authorization", &bearer)], Some(&slow));
        assert_eq!(set.expect("an answer").status, 200);
        let session =
            exchange(server.addr(), "POST", "/api/session", &[], Some(&json!({"username": "Eva"}))).expect("an answer");
        let guest = session.json()["data"]["token"].as_str().expect("a token").to_owned();
        let mut eva = Ws::join(server, &format!("/ws?room=tea&token={guest}"));
        let message = answer(&mut eva, "kept for 30 days", "kept");
        assert_eq!(message["type"], "text", "{message}");
        Self { admin, guest, message }
    }

    #[track_caller]
    fn assert_kept(&self, server: &Server, what: &str) {
        for token in [&self.admin, &self.guest] {
            let bearer = format!("Bearer {token}");
            let session = exchange(server.addr(), "GET", "/api/session", &[("Authorization", &bearer)], None);
            assert_eq!(session.expect("an answer").status, 200, "{what}: the session lives");
        }
        let page = server.get("/api/rooms/tea/messages").json();
        assert_eq!(page["data"][0]["id"], self.message["id"], "{what}: {page}");
        let mut eva = Ws::join(server, &format!("/ws?room=tea&history=0&token={}", self.guest));
        let again = answer(&mut eva, "kept for 30 days", "kept");
        assert_eq!((&again["duplicate"], &again["id"]), (&json!(true), &self.message["id"]), "{what}: {again}");
        let slowed = answer(&mut eva, "too early", "too early");
        let retry_ms = slowed["retry_ms"].as_u64();
        // A slow machine may take longer than the slow mode.
        let is_over = slowed["type"] == "text";
        assert!(is_over || slowed["reason"] == "slow_mode", "{what}: {slowed}");
        assert!(is_over || retry_ms.is_some_and(|ms| ms <= SLOW_MODE_S * 1_000), "{what}: {slowed}");
    }
}

/// Starts a server with the first shift, sets the others while it runs, and restarts it with the last.
#[track_caller]
fn survives(what: &str, shifts: &[i64]) {
    let machine = Machine::new();
    machine.set(shifts[0]);
    let mut server = machine.serve();
    let before = Before::new(&server, &machine.data());
    let mut ana = Ws::join(&server, "/ws/jam/Ana");
    for (count, shift_s) in shifts.iter().enumerate().skip(1) {
        // A client that has lost its connection leaves after its lease, by whatever clock.
        let mut lost = Ws::join(&server, &format!("/ws/jam/Lost{count}"));
        lost.stream().shutdown(std::net::Shutdown::Both).expect("the connection is cut");
        machine.set(*shift_s);
        server.wait_for_log("the jump", |log| log.matches("the wall clock jumped").count() >= count);
        // Upkeep has time to delete what it must not.
        while ana.event_within(UPKEEP).is_some() {}
        before.assert_kept(&server, what);
        assert!(!server.get("/api/rooms/jam").text().contains(&format!("Lost{count}")), "{what}: a ghost");
    }
    drop(ana);
    for signal in [Signal::TERM, Signal::KILL] {
        server.signal(signal);
        server.wait_exit(DEADLINE);
        server = machine.serve();
        let mut ana = Ws::join(&server, "/ws/jam/Ana");
        while ana.event_within(UPKEEP).is_some() {}
        before.assert_kept(&server, &format!("{what}, after a restart"));
    }
}

fn since_1970() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970");
    i64::try_from(now.as_secs()).expect("a number")
}

/// A wrong password of the account `boss`.
fn guess(server: &Server) -> Response {
    let login = json!({"username": "boss", "password": "a wrong password"});
    exchange(server.addr(), "POST", "/api/session", &[], Some(&login)).expect("an answer")
}

#[test]
fn rates_are_measured_by_no_wall_clock() {
    let machine = Machine::new();
    machine.set(0);
    let server = machine.serve();
    user_token(&machine.data(), "boss", "admin");
    let wait = |response: &Response| response.header("Retry-After").and_then(|wait| wait.parse::<u64>().ok());
    let mut refused = guess(&server);
    while refused.status != 429 {
        assert_eq!(refused.status, 401, "{}", refused.text());
        refused = guess(&server);
    }
    let longest = wait(&refused).expect("seconds");
    for (jumps, shift_s) in [100 * DAY, -100 * DAY, 3_600, 0].into_iter().enumerate() {
        machine.set(shift_s);
        server.wait_for_log("the jump", |log| log.matches("the wall clock jumped").count() > jumps);
        let refused = guess(&server);
        assert_eq!(refused.status, 429, "no guess is free after a jump to {shift_s}");
        assert!(wait(&refused).is_some_and(|wait| wait <= longest), "nobody waits longer: {refused:?}");
    }
}

#[test]
fn a_clock_that_is_late_at_the_start_and_set_later_costs_nothing() {
    survives("1970 at the start", &[100 - since_1970(), 0]);
    survives("200 days late at the start", &[-200 * DAY, 0]);
}

#[test]
fn a_clock_that_is_ahead_for_a_while_costs_nothing() {
    survives("100 days ahead for a while", &[0, 100 * DAY, 0]);
    survives("ten years ahead for good", &[0, 3_653 * DAY]);
}

#[test]
fn a_clock_that_goes_an_hour_forward_or_back_costs_nothing() {
    survives("an hour back", &[0, -3_600]);
    survives("an hour forward and back", &[0, 3_600, 0]);
}

#[test]
fn a_clock_that_goes_back_far_costs_nothing() {
    survives("back to 1970", &[0, 100 - since_1970()]);
    survives("ahead at the start, and set back", &[200 * DAY, 0]);
}
