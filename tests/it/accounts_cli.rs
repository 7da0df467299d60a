//! Tests of `adda user` and `adda token` as an operator uses them: with and without a running server, with pipes and on
//! a terminal.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use adda::auth::name::Skeletons;
use adda::model::role::Role;
use adda::model::{UserId, Username};
use adda::store::accounts::{SessionId, SessionKind};
use adda::store::change::{AccountRef, Change, NewAccount, NewRole, NewSession};
use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::support::Asked::{ByBearer, Plainly};
use crate::support::{DEADLINE, Server, Ws, clean, eventually, request};

/// How soon a change must apply to open connections.
const AT_ONCE: Duration = Duration::from_secs(1);
const PASSWORD: &str = "correct horse battery";

fn adda(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adda"));
    clean(&mut command).args(arguments);
    command
}

/// The output and the exit code of a command.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Said {
    #[track_caller]
    pub fn done(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    /// Checks that the command failed with one sentence, and printed nothing to stdout.
    #[track_caller]
    pub fn refused(self, with: &str) {
        assert_eq!((self.code, self.out.as_str()), (Some(1), ""), "{self:?}");
        assert!(self.err.starts_with("adda: ") && self.err.lines().count() == 1 && self.err.contains(with), "{self:?}");
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// Starts a command with a pipe as its standard input.
#[track_caller]
fn begin(command: &mut Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a process")
}

/// Runs a command with these bytes as its standard input.
#[track_caller]
fn given(command: &mut Command, input: &[u8]) -> Said {
    let mut child = begin(command);
    // A command may fail before it reads its input.
    let _ = child.stdin.take().expect("its input").write_all(input);
    child.wait_with_output().expect("its end").into()
}

/// A directory for a database, and the commands on it.
pub struct Data(TempDir);

impl Data {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    /// A database that a server has created and closed.
    fn of_a_server() -> Self {
        let data = Self::new();
        let mut server = data.serve(&[]);
        server.signal(Signal::TERM);
        assert_eq!(server.wait_exit(DEADLINE).code(), Some(0));
        data
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("adda.db")
    }

    pub fn file(&self) -> String {
        self.path().to_str().expect("a plain path").to_owned()
    }

    pub fn serve(&self, flags: &[&str]) -> Server {
        Server::with(&[&["--data", &self.file()], flags].concat())
    }

    #[track_caller]
    pub fn run(&self, arguments: &[&str], input: &str) -> Said {
        given(adda(arguments).args(["--data", &self.file()]), input.as_bytes())
    }

    #[track_caller]
    fn add(&self, name: &str, role: &str) -> String {
        self.run(&["user", "add", name, "--role", role], &format!("{PASSWORD}\n")).done()
    }

    #[track_caller]
    fn token(&self, name: &str, more: &[&str]) -> String {
        let out = self.run(&[&["token", "create", name], more].concat(), "").done();
        let token = out.strip_suffix('\n').expect("a line");
        assert!(token.len() == 64 && token.bytes().all(|b| b.is_ascii_hexdigit()), "{out}");
        token.to_owned()
    }

    #[track_caller]
    fn listed(&self, what: &str) -> Vec<Value> {
        let out = self.run(&[what, "list", "--format", "json"], "").done();
        out.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
    }

    #[track_caller]
    fn names(&self) -> Vec<String> {
        self.listed("user").iter().map(|user| user["name"].as_str().expect("a name").to_owned()).collect()
    }

    /// All bytes of the database and of the files beside it.
    pub fn bytes(&self) -> Vec<u8> {
        let files = fs::read_dir(self.0.path()).expect("a directory").map_while(Result::ok);
        files.flat_map(|file| fs::read(file.path()).unwrap_or_default()).collect()
    }

    /// The bytes of the database file. Reading a database in WAL mode may create SQLite's index of the WAL beside it.
    fn stored(&self) -> Vec<u8> {
        fs::read(self.path()).expect("a database")
    }

    #[track_caller]
    fn assert_sound(&self) {
        let out = self.run(&["doctor"], "").done();
        assert!(out.contains("all is well"), "{out}");
    }
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Runs a check with a running server, and without one.
fn both_ways(check: impl Fn(&Data, Option<&Server>)) {
    check(&Data::new(), None);
    let data = Data::new();
    let server = data.serve(&[]);
    check(&data, Some(&server));
}

#[test]
fn an_account_is_created_changed_listed_and_removed() {
    both_ways(|data, _| {
        let out = data.add("Rahim", "admin");
        assert!(out.contains("account created: Rahim (admin)"), "{out}");
        data.add("করিম", "user");
        assert_eq!(data.names(), ["Rahim", "করিম"]);
        assert_eq!(data.listed("user")[0]["role"], "admin");
        let out = data.run(&["user", "list"], "").done();
        let lines: Vec<&str> = out.lines().collect();
        assert!(lines[0].starts_with("role") && lines[0].ends_with("name"), "{out}");
        assert!(lines[1].starts_with("admin  20") && lines[1].ends_with("yes       Rahim"), "{out}");
        assert!(lines[2].starts_with("user   20") && lines[2].ends_with("  করিম"), "{out}");
        let said = data.run(&["user", "role", "Rahim", "user"], "");
        assert!(said.err.contains("adda: warning: no admin left"), "{said:?}");
        assert!(said.done().contains("role changed: Rahim (user)"));
        data.run(&["user", "role", "করিম", "admin"], "").done();
        let roles: Vec<Value> = data.listed("user").iter().map(|user| user["role"].clone()).collect();
        assert_eq!(roles, ["user", "admin"]);
        let out = data.run(&["user", "remove", "Rahim", "--yes"], "").done();
        assert_eq!(out, "account removed: Rahim; 0 sessions ended, messages kept\n");
        assert_eq!(data.names(), ["করিম"]);
        data.add("Rahim", "user");
        data.assert_sound();
    });
}

#[test]
fn a_new_password_ends_the_logins_but_no_token() {
    both_ways(|data, _| {
        data.add("Rahim", "user");
        data.token("Rahim", &[]);
        let connection = Connection::open(data.path()).expect("a database");
        let sql = "INSERT INTO sessions (token_hash, user_id, kind, label, created_ms, seen_ms)
                   SELECT randomblob(32), id, 'login', '', 1, 1 FROM accounts";
        connection.execute(sql, []).expect("a login");
        let hash = || -> String {
            let sql = "SELECT password_hash FROM accounts WHERE name = 'Rahim'";
            connection.query_row(sql, [], |row| row.get(0)).expect("a hash")
        };
        let before = hash();
        assert!(before.starts_with("$argon2id$v=19$m=7168,t=5,p=1$"), "{before}");
        assert_eq!(data.listed("user")[0]["logins"], 1);
        let out = data.run(&["user", "passwd", "Rahim"], "another one altogether\n").done();
        assert!(out == "password changed: Rahim; 1 login ended\n", "{out}");
        assert_ne!(hash(), before);
        let user = &data.listed("user")[0];
        assert_eq!((&user["logins"], &user["tokens"]), (&0.into(), &1.into()));
    });
}

#[test]
fn a_bot_can_join_with_its_token_until_that_is_revoked() {
    let data = Data::new();
    let server = data.serve(&[]);
    data.token("Herald", &["--label", &"ড".repeat(128)]);
    let id = data.listed("token")[0]["id"].to_string();
    data.run(&["token", "revoke", &id], "").done();
    let token = data.token("Herald", &["--label", "the hourly news", "--expires", "90d"]);
    let listed = data.listed("token");
    let [it] = &listed[..] else { panic!("{listed:?}") };
    assert_eq!((&it["name"], &it["label"]), (&"Herald".into(), &"the hourly news".into()));
    assert!(it["expires"].is_string() && it["used"].is_null(), "{it}");
    assert_eq!(data.listed("user")[0]["has_password"], false);
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    let mut bot = Ws::join(&server, &format!("/ws/tea/Herald?token={token}"));
    assert_eq!(ana.expect("join")["username"], "Herald");
    bot.say("news");
    let message = ana.expect_text("news");
    assert_eq!((&message["username"], &message["user_id"]), (&"Herald".into(), &data.listed("user")[0]["id"]));
    let id = it["id"].to_string();
    let out = data.run(&["token", "revoke", &id], "").done();
    assert!(out == format!("token revoked: {id} of Herald\n"), "{out}");
    assert_eq!(data.listed("token"), Vec::<Value>::new());
    data.run(&["token", "revoke", &id], "").refused("no such token: ");
    let stale = crate::support::http(
        server.addr(),
        format!(
            "POST /api/rooms/tea/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: text/plain\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
        ),
    );
    assert_eq!((stale.status, stale.header("WWW-Authenticate")), (401, Some("Bearer")), "{}", stale.text());
    assert_eq!(stale.json()["code"], "forbidden");
}

/// Logs in; returns the token and the user id.
#[track_caller]
fn log_in(server: &Server, name: &str, password: &str) -> (String, String) {
    let login = json!({"username": name, "password": password});
    let response = request(server.addr(), Plainly, "POST", "/api/session", Some(&login));
    assert_eq!(response.status, 201, "{}", response.text());
    let data = &response.json()["data"];
    let text = |name: &str| data[name].as_str().expect("a text").to_owned();
    (text("token"), text("id"))
}

/// Sends a command until it is accepted, or until it is refused; that must happen soon.
#[track_caller]
fn comes_to(ws: &mut Ws, command: &Value, kind: &str) {
    let begun = Instant::now();
    for nonce in 0.. {
        let nonce = format!("{begun:?} {nonce}").replace(|c: char| !c.is_ascii_digit(), "");
        let mut command = command.clone();
        (command["nonce"], command["content"]) = (json!(nonce), json!(nonce));
        ws.command(&command);
        // An announcement may have its nonce in another room.
        let answer = ws.until(|frame| frame["nonce"] == nonce || frame["content"] == nonce);
        assert!(begun.elapsed() < AT_ONCE, "{:?}: {answer}", begun.elapsed());
        if answer["type"] == kind {
            return;
        }
    }
}

#[track_caller]
fn closes_at_once(ws: &mut Ws) {
    let begun = Instant::now();
    assert_eq!(ws.close_code(), 1008);
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
}

#[test]
fn a_change_by_a_command_applies_at_once_to_open_connections() {
    for is_busy in [false, true] {
        let data = Data::new();
        let server = data.serve(&["--rate", "0"]);
        data.add("Rahim", "user");
        data.add("Boss", "admin");
        let bot = data.token("Rahim", &[]);
        let (token, id) = log_in(&server, "Rahim", PASSWORD);
        let (boss, _) = log_in(&server, "Boss", PASSWORD);
        let joins = |token: &str| Ws::join(&server, &format!("/ws?room=tea&history=0&token={token}"));
        let (mut rahim, mut herald) = (joins(&token), joins(&bot));
        let mut others = [joins(&boss), Ws::join(&server, "/ws/tea/Ana")];
        let is_over = &AtomicBool::new(false);
        thread::scope(|scope| {
            let mut talker = Ws::join(&server, "/ws/jam/Karim?history=0");
            scope.spawn(move || {
                while is_busy && !is_over.load(Ordering::Relaxed) {
                    talker.say("jam");
                    talker.until(|frame| frame["content"] == "jam");
                }
            });
            // Also if a check fails.
            let _over = Over(is_over);
            let (announce, say) = (json!({"type": "announcement"}), json!({"type": "text"}));
            comes_to(&mut rahim, &announce, "error");
            data.run(&["user", "role", "Rahim", "admin"], "").done();
            comes_to(&mut rahim, &announce, "announcement");
            data.run(&["user", "role", "Rahim", "user"], "").done();
            comes_to(&mut rahim, &announce, "error");

            let muted = json!({"muted_until": "2099-01-01T00:00:00.000Z"});
            let user = format!("/api/users/{id}");
            assert_eq!(request(server.addr(), ByBearer(&boss), "PUT", &user, Some(&muted)).status, 200);
            comes_to(&mut rahim, &say, "error");
            data.run(&["user", "role", "Rahim", "admin"], "").done();
            comes_to(&mut rahim, &say, "text");
            data.run(&["user", "role", "Rahim", "user"], "").done();
            comes_to(&mut rahim, &announce, "error");
            comes_to(&mut rahim, &say, "text");

            let another = "another one altogether";
            data.run(&["user", "passwd", "Rahim"], &format!("{another}\n")).done();
            closes_at_once(&mut rahim);
            comes_to(&mut herald, &say, "text");
            let id = data.listed("token")[0]["id"].to_string();
            data.run(&["token", "revoke", &id], "").done();
            closes_at_once(&mut herald);

            let mut rahim = joins(&log_in(&server, "Rahim", another).0);
            let mut herald = joins(&data.token("Rahim", &[]));
            data.run(&["user", "remove", "Rahim", "--yes"], "").done();
            closes_at_once(&mut rahim);
            closes_at_once(&mut herald);
            for ws in &mut others {
                comes_to(ws, &say, "text");
            }
        });
        for said in ["(Rahim): role admin", "(Rahim): role user", "has revoked a token of"] {
            server.wait_for_log(said, |log| log.contains(said));
        }
    }
}

/// Sets a flag when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn tokens_are_listed_for_people() {
    let data = Data::new();
    data.token("Herald", &["--label", "news"]);
    data.token("Clock", &["--expires", "12h"]);
    data.token("Clock", &[]);
    let out = data.run(&["token", "list"], "").done();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 4, "{out}");
    assert!(lines[1].contains(" -  ") && lines[1].ends_with("Herald: news"), "{out}");
    assert!(lines[2].matches('Z').count() == 2 && lines[2].ends_with("  Clock"), "{out}");
    let out = data.run(&["token", "list", "Clock"], "").done();
    assert!(out.lines().count() == 3 && !out.contains("Herald"), "{out}");
    data.run(&["token", "list", "Nobody"], "").refused("no such account: Nobody");
    data.assert_sound();
}

#[test]
fn a_weak_password_is_refused_and_no_account_created() {
    let data = Data::new();
    let long = "x1".repeat(2_000);
    for (password, words) in [
        ("", "no password on standard input"),
        ("short", "at least 8 characters"),
        ("\n", "at least 8 characters"),
        ("password123", "too common"),
        ("rahimuddin1", "too similar to the username"),
        (&long, "at most 1024 bytes"),
    ] {
        data.run(&["user", "add", "Rahimuddin"], password).refused(words);
        assert!(!data.path().exists(), "{words}");
    }
    given(adda(&["user", "add", "Rahim"]).args(["--data", &data.file()]), b"\xff\xfe12345678\n").refused("not UTF-8");
    assert!(!data.path().exists());
    data.add("Rahim", "user");
    let before = data.stored();
    data.run(&["user", "passwd", "Rahim"], "short\n").refused("at least 8 characters");
    assert!(data.stored() == before);
}

#[test]
fn a_name_that_is_taken_or_resembles_another_is_refused() {
    both_ways(|data, _| {
        data.add("admin", "admin");
        data.add("রহিম", "user");
        for name in ["admin", "Admin", "аdmin", "ａｄｍｉｎ", "রহিম", "Anonymous"] {
            data.run(&["user", "add", name], &format!("{PASSWORD}\n")).refused("name taken: ");
        }
        data.run(&["token", "create", "Admin"], "").refused("name taken: ");
        // To remove or change an account, its exact name is needed.
        for arguments in [&["remove", "Admin", "--yes"][..], &["role", "Admin", "user"], &["passwd", "Admin"]] {
            data.run(&[&["user"], arguments].concat(), PASSWORD).refused("no such account: Admin; did you mean admin?");
        }
        data.run(&["user", "remove", "Nobody", "--yes"], "").refused("no such account: Nobody");
        assert_eq!(data.names(), ["admin", "রহিম"]);
        assert_eq!(data.listed("user")[0]["role"], "admin");
    });
}

#[test]
fn of_concurrent_commands_for_one_name_exactly_one_succeeds() {
    for begins_empty in [true, false] {
        let data = if begins_empty { Data::new() } else { Data::of_a_server() };
        let children: Vec<Child> =
            (0..6).map(|_| begin(adda(&["user", "add", "Rahim"]).args(["--data", &data.file()]))).collect();
        let ends: Vec<Said> = thread::scope(|scope| {
            let waits: Vec<_> = children
                .into_iter()
                .map(|mut child| {
                    scope.spawn(move || {
                        let _ = child.stdin.take().expect("its input").write_all(PASSWORD.as_bytes());
                        Said::from(child.wait_with_output().expect("its end"))
                    })
                })
                .collect();
            waits.into_iter().map(|wait| wait.join().expect("an end")).collect()
        });
        let (done, refused): (Vec<_>, Vec<_>) = ends.into_iter().partition(|said| said.code == Some(0));
        assert_eq!(done.len(), 1, "{done:?} {refused:?}");
        refused.into_iter().for_each(|said| said.refused("name taken: "));
        assert_eq!(data.names(), ["Rahim"]);
        data.assert_sound();
    }
}

#[test]
fn a_command_and_a_busy_server_do_not_block_each_other() {
    let data = Data::new();
    // The command waits for a password and holds no lock.
    let mut waiting = begin(adda(&["user", "add", "Rahim"]).args(["--data", &data.file()]));
    let mut server = data.serve(&["--rate", "0"]);
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    thread::scope(|scope| {
        let adds = scope.spawn(|| (0..5).for_each(|number| drop(data.token(&format!("bot{number}"), &[]))));
        for _ in 0..300 {
            ana.say("tea");
            ana.expect("text");
        }
        adds.join().expect("tokens");
    });
    waiting.stdin.take().expect("its input").write_all(PASSWORD.as_bytes()).expect("a password");
    Said::from(waiting.wait_with_output().expect("its end")).done();
    assert_eq!(data.names().len(), 6);
    data.assert_sound();
    let log = server.whole_log();
    assert!(!log.to_lowercase().contains("error"), "{log}");
}

#[test]
fn no_secret_is_stored_logged_or_printed() {
    let data = Data::new();
    let mut server = data.serve(&["--log", "debug"]);
    let mut child = begin(adda(&["user", "add", "Rahim"]).args(["--data", &data.file()]));
    let process = child.id();
    child.stdin.as_mut().expect("its input").write_all(PASSWORD.as_bytes()).expect("a password");
    // The command waits for the end of the line, so its process can be inspected.
    for file in ["cmdline", "environ"] {
        let shown = fs::read(format!("/proc/{process}/{file}")).expect("the process");
        assert!(!holds(&shown, PASSWORD), "{file}");
    }
    let said = Said::from(child.wait_with_output().expect("its end"));
    assert!(!format!("{said:?}").contains(PASSWORD), "{said:?}");
    said.done();
    let said = data.run(&["token", "create", "Herald"], "");
    let token = said.out.trim().to_owned();
    assert!(!said.err.contains(&token) && token.len() == 64, "{said:?}");
    let lists = [data.run(&["token", "list"], ""), data.run(&["user", "list"], ""), data.run(&["doctor"], "")];
    let bytes = data.bytes();
    let log = server.whole_log();
    for secret in [PASSWORD, &token] {
        assert!(!format!("{lists:?}").contains(secret) && !log.contains(secret));
        assert!(!holds(&bytes, secret), "in the database");
    }
    assert!(holds(&bytes, "Herald"), "the files are read");
}

#[test]
fn a_password_is_one_line_of_input_unchanged() {
    let hashes: Arc<Mutex<HashSet<String>>> = Arc::default();
    for (number, line) in ["  বৃষ্টি নামল আজ  \n", "  বৃষ্টি নামল আজ  \r\n", "  বৃষ্টি নামল আজ  "].iter().enumerate()
    {
        let data = Data::new();
        data.run(&["user", "add", "করিম"], line).done();
        let connection = Connection::open(data.path()).expect("a database");
        let sql = "SELECT password_hash FROM accounts";
        let hash: String = connection.query_row(sql, [], |row| row.get(0)).expect("a hash");
        let verifies = |text: &str| {
            let shown = adda::auth::password::Password::shown(text).expect("a password");
            let stored = adda::auth::password::PasswordHash::stored(&hash);
            adda::auth::password::verify(&shown, Some(&stored)).expect("a verdict")
                != adda::auth::password::Verdict::Wrong
        };
        assert!(verifies("  বৃষ্টি নামল আজ  "), "{number}");
        assert!(!verifies("বৃষ্টি নামল আজ"), "{number}");
        assert!(hashes.lock().expect("a set").insert(hash.clone()), "each has its own salt");
    }
    let data = Data::new();
    data.run(&["user", "add", "Karim"], "cafe\u{301} cre\u{300}me").done();
    let connection = Connection::open(data.path()).expect("a database");
    let hash: String =
        connection.query_row("SELECT password_hash FROM accounts", [], |row| row.get(0)).expect("a hash");
    let shown = adda::auth::password::Password::shown("caf\u{e9} cr\u{e8}me").expect("a password");
    let stored = adda::auth::password::PasswordHash::stored(&hash);
    let verdict = adda::auth::password::verify(&shown, Some(&stored)).expect("a verdict");
    assert_ne!(verdict, adda::auth::password::Verdict::Wrong, "NFC");
}

#[test]
fn a_foreign_file_is_left_unchanged() {
    let data = Data::of_a_server();
    let good = fs::read(data.path()).expect("a database");
    let connection = |sql: &str| {
        fs::remove_file(data.path()).expect("no database");
        Connection::open(data.path()).expect("a database").execute_batch(sql).expect("a change");
    };
    let check = |words: &str| {
        let before = data.stored();
        for arguments in
            [&["user", "add", "Rahim"][..], &["token", "create", "Bot"], &["user", "list"], &["token", "list"]]
        {
            let said = data.run(arguments, &format!("{PASSWORD}\n"));
            assert!(said.err.contains(words), "{arguments:?} {said:?}");
            said.refused("adda.db");
            assert!(data.stored() == before, "{arguments:?} {words}");
        }
    };
    connection("CREATE TABLE theirs (x); PRAGMA journal_mode = WAL;");
    check("is not an adda database");
    fs::write(data.path(), "Dear grandmother, this is a letter. ".repeat(100)).expect("a file");
    check("is not an adda database");
    fs::write(data.path(), "x").expect("a file");
    check("is not an adda database");
    fs::write(data.path(), &good).expect("a database");
    Connection::open(data.path()).expect("a database").execute_batch("PRAGMA user_version = 99").expect("a change");
    check("needs a newer adda");
    fs::remove_file(data.path()).expect("no database");
    for arguments in [&["user", "list"][..], &["token", "list"], &["user", "passwd", "Rahim"]] {
        data.run(arguments, "").refused("No such file or directory (os error 2); name the database with --data");
        assert!(!data.path().exists());
    }
}

#[test]
fn an_older_database_is_migrated_if_no_server_has_it_open() {
    let data = Data::of_a_server();
    let spoil =
        "DROP TABLE accounts; DROP TABLE skeletons; DROP TABLE sessions; DROP TABLE invitations; DROP TABLE mutes;
        DROP TABLE bans; DROP TABLE room_settings; DROP TABLE room_members; DROP TABLE marks; DROP TABLE last_posts;
        DROP TABLE position; DROP TABLE audit; ALTER TABLE rooms DROP COLUMN floor; PRAGMA user_version = 2;
        ALTER TABLE rooms DROP COLUMN is_deleted;
        ALTER TABLE messages DROP COLUMN kind; ALTER TABLE messages DROP COLUMN message_id;
        ALTER TABLE messages DROP COLUMN deleted_ms; ALTER TABLE messages DROP COLUMN former;
        CREATE TABLE users (key INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, token_hash BLOB NOT NULL UNIQUE,
            seen_ms INTEGER NOT NULL);
        INSERT INTO users VALUES (1, randomblob(16), randomblob(32), 1);";
    Connection::open(data.path()).expect("a database").execute_batch(spoil).expect("an older schema");
    assert_eq!(data.names(), Vec::<String>::new());
    let lock = fs::File::options().write(true).read(true).open(data.path()).expect("the file");
    lock.lock().expect("as a server of an older adda has it");
    let before = data.stored();
    data.run(&["user", "add", "Rahim"], &format!("{PASSWORD}\n"))
        .refused("is in use by another process that does not answer");
    assert!(data.stored() == before);
    drop(lock);
    data.add("Rahim", "user");
    let out = data.run(&["doctor"], "").done();
    assert!(out.contains("1 account, 1 guest, ") && out.contains("all is well"), "{out}");
}

#[test]
fn doctor_finds_damaged_accounts() {
    let sound = Data::new();
    sound.add("Rahim", "user");
    sound.token("Herald", &[]);
    sound.assert_sound();
    let good = fs::read(sound.path()).expect("a database");
    for (spoil, finding) in [
        ("DELETE FROM accounts WHERE name = 'Herald'", "sessions of a missing account: 1"),
        ("DELETE FROM accounts WHERE name = 'Herald'", "name skeletons of a missing account"),
        ("UPDATE sessions SET kind = 'guest'", "guest sessions with the user id of an account: 1"),
        ("UPDATE sessions SET token_hash = x'00'", "sessions without a token hash: 1"),
        ("DELETE FROM skeletons", "accounts without a name skeleton: 2"),
        ("UPDATE accounts SET password_hash = 'plain'", "accounts with an invalid password hash: 2"),
    ] {
        let data = Data::new();
        fs::write(data.path(), &good).expect("a database");
        let connection = Connection::open(data.path()).expect("a database");
        connection.execute_batch(&format!("PRAGMA foreign_keys = OFF; {spoil}")).expect("a change");
        drop(connection);
        let said = data.run(&["doctor"], "");
        assert!(said.code == Some(1) && said.out.contains(finding), "{spoil}: {said:?}");
    }
    let copy = sound.0.path().join("copy.db");
    sound.run(&["backup", copy.to_str().expect("a plain path")], "").done();
    let out = given(&mut adda(&["user", "list", "--data", copy.to_str().expect("a plain path")]), b"").done();
    assert_eq!(out.lines().count(), 3, "{out}");
    sound.run(&["export"], "").done();
}

#[test]
fn an_invalid_command_line_is_exit_2() {
    let data = Data::new();
    for arguments in [
        &["user"][..],
        &["user", "add"],
        &["user", "add", ""],
        &["user", "add", "\u{202e}x"],
        &["user", "add", "Rahim", "--role", "guest"],
        &["user", "add", "Rahim", "--password", "x"],
        &["user", "add", "Rahim", PASSWORD],
        &["user", "role", "Rahim"],
        &["user", "role", "Rahim", "king"],
        &["user", "list", "--format", "xml"],
        &["user", "add", "Rahim", "--data", ":memory:"],
        &["token", "create"],
        &["token", "create", "Bot", "--expires", "0d"],
        &["token", "create", "Bot", "--expires", "soon"],
        &["token", "create", "Bot", "--label", "a\nb"],
        &["token", "create", "Bot", "--label", &"x".repeat(129)],
        &["token", "revoke", "x"],
    ] {
        let said = given(adda(arguments).current_dir(data.0.path()), b"");
        assert!(said.code == Some(2) && said.out.is_empty(), "{arguments:?}: {said:?}");
        assert!(!data.path().exists(), "{arguments:?}");
    }
    data.add("Rahim", "user");
    let said = data.run(&["user", "remove", "Rahim"], "y\n");
    assert!(said.code == Some(2) && said.err.contains("--yes"), "{said:?}");
    assert_eq!(data.names(), ["Rahim"]);
}

/// The control socket accepts requests that no command sends.
#[test]
fn an_account_with_the_role_guest_is_refused_and_loses_no_message() {
    const EACH: usize = 100;
    let data = Data::new();
    data.add("Rahim", "user");
    let path = data.path();
    let server = Server::with(&["--data", path.to_str().expect("a path in UTF-8"), "--rate", "0"]);
    let name = Username::parse("Zoe").expect("a name");
    let account = NewAccount {
        id: UserId(Uuid::new_v4()),
        skeletons: Skeletons::of(&name),
        name: name.clone(),
        role: Role::Guest,
        password: None,
    };
    let token =
        NewSession { id: SessionId(7), kind: SessionKind::Bot, token_hash: None, label: "".into(), span_ms: None };
    let rahim = AccountRef::Name(Username::parse("Rahim").expect("a name"));
    let requests: String = [
        Change::CreateAccount(account.clone()),
        Change::CreateToken { account, session: token },
        Change::SetRole(NewRole { account: rahim, role: Role::Guest }),
    ]
    .iter()
    .map(|change| json!({"version": 1, "request": change}).to_string() + "\n")
    .collect();
    let mut ws = Ws::join(&server, "/ws/tea/ana");
    let mut control = UnixStream::connect(path.with_extension("db.control")).expect("the control socket");
    control.set_read_timeout(Some(DEADLINE)).expect("a time-out");
    let mut answers = BufReader::new(control.try_clone().expect("the same socket"));
    for round in 0..EACH {
        control.write_all(requests.as_bytes()).expect("requests");
        ws.command(&json!({"content": format!("{round}"), "nonce": format!("{round}")}));
        for _ in 0..3 {
            let mut answer = String::new();
            answers.read_line(&mut answer).expect("an answer");
            let answer: Value = serde_json::from_str(&answer).expect("JSON");
            assert_eq!(answer["error"]["reason"], "malformed_request", "{answer}");
            let sentence = answer["error"]["sentence"].as_str().expect("a sentence");
            assert!(sentence.contains("the role of an account is user or admin"), "{sentence}");
        }
    }
    for round in 0..EACH {
        let answer = ws.until(|frame| frame["nonce"] == format!("{round}"));
        assert_eq!(answer["type"], "text", "{answer}");
    }
    assert_eq!(data.names(), ["Rahim"]);
}

#[test]
fn the_first_start_with_required_accounts_prints_the_first_steps() {
    let data = Data::new();
    let steps = |server: &mut Server| {
        assert_eq!(server.get("/healthz").status, 200);
        server.signal(Signal::TERM);
        assert_eq!(server.wait_exit(DEADLINE).code(), Some(0));
        server.rest_of_stdout().join("\n")
    };
    let said = steps(&mut data.serve(&["--accounts", "required"]));
    let command = said.split_once("to make one: adda ").map(|(_, command)| command.trim().to_owned());
    let command = command.unwrap_or_else(|| panic!("{said}"));
    assert_eq!(command, format!("user add NAME --role admin --data {}", data.file()));
    // The printed command works as it is.
    given(&mut adda(&command.split(' ').collect::<Vec<_>>()), PASSWORD.as_bytes()).done();
    for flags in [&["--accounts", "required"][..], &["--accounts", "optional"]] {
        let said = steps(&mut data.serve(flags));
        assert!(!said.contains("user add"), "{said}");
    }
}

/// A terminal on which a command runs, in place of a shell.
struct Terminal {
    ours: fs::File,
    theirs: OwnedFd,
    child: Child,
    shown: Arc<Mutex<String>>,
}

impl Terminal {
    fn run(arguments: &[&str]) -> Self {
        Self::with(&[], arguments)
    }

    /// The same with these variables.
    fn with(variables: &[(&str, &str)], arguments: &[&str]) -> Self {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&ours).and_then(|()| unlockpt(&ours)).expect("its other end");
        let name = ptsname(&ours, Vec::new()).expect("its name").into_string().expect("a plain path");
        let theirs: OwnedFd = fs::File::options().read(true).write(true).open(name).expect("its other end").into();
        let stdio = || Stdio::from(theirs.try_clone().expect("a descriptor"));
        let mut command = Command::new("setsid");
        clean(&mut command).args(["--ctty", env!("CARGO_BIN_EXE_adda")]).args(arguments);
        command.envs(variables.iter().copied());
        let child = command.stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().expect("setsid");
        let shown = Arc::new(Mutex::new(String::new()));
        let ours = fs::File::from(ours);
        let (mut reader, sink) = (ours.try_clone().expect("a descriptor"), Arc::clone(&shown));
        thread::spawn(move || {
            let mut bytes = [0; 1024];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                sink.lock().expect("the text").push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Self { ours, theirs, child, shown }
    }

    fn text(&self) -> String {
        self.shown.lock().expect("the text").clone()
    }

    #[track_caller]
    fn wait_for(&self, text: &str) {
        eventually(&format!("the terminal shows {text}"), DEADLINE, || self.text().contains(text));
    }

    fn write(&mut self, text: &str) {
        self.ours.write_all(text.as_bytes()).expect("a terminal");
    }

    fn echoes(&self) -> bool {
        use rustix::termios::{LocalModes, tcgetattr};
        tcgetattr(&self.theirs).expect("its modes").local_modes.contains(LocalModes::ECHO | LocalModes::ICANON)
    }

    fn end(&mut self) -> Option<i32> {
        self.child.wait().expect("its end").code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn on_a_terminal_a_password_is_asked_for_twice_and_not_shown() {
    let data = Data::new();
    let mut terminal = Terminal::run(&["user", "add", "Rahim", "--data", &data.file()]);
    terminal.wait_for("Password for Rahim: ");
    assert!(!terminal.echoes());
    terminal.write(&format!("{PASSWORD}\n"));
    terminal.wait_for("Repeat password: ");
    assert!(!terminal.echoes());
    terminal.write(&format!("{PASSWORD}\n"));
    assert_eq!(terminal.end(), Some(0), "{}", terminal.text());
    terminal.wait_for("account created: Rahim (user)");
    assert!(terminal.echoes() && !terminal.text().contains("horse"), "{}", terminal.text());
    let mut terminal = Terminal::run(&["user", "passwd", "Rahim", "--data", &data.file()]);
    terminal.wait_for("Password for Rahim: ");
    terminal.write("one good password\n");
    terminal.wait_for("Repeat password: ");
    terminal.write("one god password\n");
    assert_eq!(terminal.end(), Some(1));
    terminal.wait_for("passwords do not match");
    assert!(terminal.echoes());
}

#[test]
fn a_signal_during_password_input_restores_the_terminal() {
    for by_key in [true, false] {
        let data = Data::new();
        let mut terminal = Terminal::run(&["user", "add", "Rahim", "--data", &data.file()]);
        terminal.wait_for("Password for Rahim: ");
        assert!(!terminal.echoes());
        if by_key {
            terminal.write("half a pass\u{3}");
        } else {
            let process = rustix::process::Pid::from_child(&terminal.child);
            rustix::process::kill_process(process, Signal::TERM).expect("a signal");
        }
        assert_eq!(terminal.end(), Some(if by_key { 130 } else { 143 }), "{}", terminal.text());
        assert!(terminal.echoes() && !data.path().exists());
    }
}

#[test]
fn on_a_terminal_the_qr_code_is_black_on_white() {
    for (variables, is_coloured) in [
        (&[("TERM", "xterm"), ("NO_COLOR", "")][..], true),
        (&[("TERM", "xterm"), ("NO_COLOR", "1")], false),
        (&[("TERM", "dumb"), ("NO_COLOR", "")], false),
    ] {
        // A loopback address would get a code that no phone can use; this one is taken for an address of the network.
        let terminal = Terminal::with(variables, &["--listen", "127.0.0.2:0", "--log", "off"]);
        terminal.wait_for("listening on http://127.0.0.2:");
        terminal.wait_for("▀");
        // Behind the code there is a link for the first admin, as there is none.
        terminal.wait_for("There is no admin yet.");
        eventually("the link is complete", DEADLINE, || {
            terminal.text().rsplit_once("/#setup=").is_some_and(|(_, code)| code.trim_end().len() == 64)
        });
        let text = terminal.text();
        let code = text.split("\r\n\r\n").nth(1).expect("a code");
        assert!(code.lines().count() > 12, "{text}");
        for line in code.trim_end().lines() {
            let is_painted = line.starts_with("\u{1b}[30;47m") && line.ends_with("\u{1b}[0m");
            assert_eq!((is_painted, line.contains('\u{1b}')), (is_coloured, is_coloured), "{variables:?}: {line:?}");
        }
    }
}

#[test]
fn on_a_terminal_an_error_has_colours() {
    for (no_color, begin) in
        [("", "\u{1b}[1;31madda:\u{1b}[0m no such command: dance"), ("1", "adda: no such command: dance")]
    {
        let terminal = Terminal::with(&[("TERM", "xterm"), ("NO_COLOR", no_color)], &["dance"]);
        terminal.wait_for("adda --help`");
        assert!(terminal.text().starts_with(begin), "{:?}", terminal.text());
    }
}

#[test]
fn on_a_terminal_the_removal_of_an_account_must_be_confirmed() {
    let data = Data::new();
    data.add("Rahim", "user");
    for (answer, code, left) in [("n\n", 1, 1), ("\n", 1, 1), ("yes\n", 0, 0)] {
        let mut terminal = Terminal::run(&["user", "remove", "Rahim", "--data", &data.file()]);
        terminal.wait_for("Remove account Rahim with its sessions and tokens? [y/N] ");
        terminal.write(answer);
        assert_eq!(terminal.end(), Some(code), "{answer:?}");
        assert_eq!(data.names().len(), left, "{answer:?}");
    }
}
