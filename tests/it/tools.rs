//! Tests of the tools beside a running server: export, backup, doctor, and the limits on the size of the database.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{DEADLINE, Server, Ws, clean, eventually, output, run};

fn adda(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adda"));
    clean(&mut command).args(arguments);
    command
}

/// Runs a command; returns its exit code and its stderr.
fn end_of(arguments: &[&str]) -> (Option<i32>, String) {
    let output = output(&mut adda(arguments));
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A database in its own directory, and the files beside it.
struct Data {
    dir: TempDir,
}

impl Data {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn named(&self, name: &str) -> String {
        self.path(name).to_str().expect("a plain path").to_owned()
    }

    fn file(&self) -> String {
        self.named("adda.db")
    }

    fn serve(&self, flags: &[&str]) -> Server {
        Server::with(&[&["--data", &self.file(), "--rate", "0"], flags].concat())
    }

    /// A database with messages that no server has open.
    fn talked(texts: &[(&str, &str, &str)]) -> Self {
        let data = Self::new();
        let mut server = data.serve(&[]);
        for (room, name, text) in texts {
            let mut ws = Ws::join(&server, &format!("/ws/{room}/{name}"));
            ws.command(&serde_json::json!({"content": text, "nonce": "n"}));
            ws.expect("text");
            ws.close(1000);
        }
        server.signal(Signal::TERM);
        assert_eq!(server.wait_exit(DEADLINE).code(), Some(0));
        data
    }

    /// Damages the database by SQL.
    fn spoil(&self, sql: &str) {
        Connection::open(self.path("adda.db")).expect("a database").execute_batch(sql).expect("a change");
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a frame a line")).collect()
}

fn contents(frames: &[Value]) -> Vec<&str> {
    frames.iter().map(|frame| frame["content"].as_str().expect("a text")).collect()
}

/// Sends messages until it is told to stop.
fn talk(mut ws: Ws, stopped: &AtomicBool, content: &str) -> u64 {
    let mut said = 0;
    while !stopped.load(Ordering::Relaxed) {
        for _ in 0..20 {
            ws.say(content);
        }
        for _ in 0..20 {
            ws.expect("text");
            said += 1;
        }
    }
    said
}

#[test]
fn export_writes_the_frames_that_members_received() {
    let data = Data::new();
    let server = data.serve(&[]);
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    let mut frames = Vec::new();
    for text in ["one", "বৃষ্টি", "three\nlines\n\"quoted\""] {
        ana.command(&serde_json::json!({"content": text, "nonce": text}));
        frames.push(ana.expect("text"));
    }
    let mut ben = Ws::join(&server, "/ws/jam/Ben");
    ben.say("elsewhere");
    frames.push(ben.expect("text"));
    // The server is running and has all data in its WAL.
    let all = run(&mut adda(&["export", "--data", &data.file()]));
    assert_eq!(lines(&all), frames);
    let tea = run(&mut adda(&["export", "--data", &data.file(), "--room", "tea"]));
    assert_eq!(lines(&tea), frames[..3]);
    let later = run(&mut adda(&["export", "--data", &data.file(), "--since", "2999-01-01"]));
    assert_eq!(later, "");
    let lately = run(&mut adda(&["export", "--data", &data.file(), "--since", "1h"]));
    assert_eq!(lately, all);
    ana.say("and on it goes");
    ana.expect_text("and on it goes");
    drop(server);
    // As a killed server leaves it.
    let file = data.named("out.ndjson");
    let output = output(&mut adda(&["export", "--data", &data.file(), "--output", &file]));
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), format!("exported 5 messages to {file}\n"));
    assert_eq!(lines(&fs::read_to_string(&file).expect("a file")).len(), 5);
}

#[test]
fn exported_text_is_readable_and_has_no_control_characters() {
    let texts =
        [("tea", "Ana", "hi \u{1b}[31m\u{202e}x\n[2026-01-01T00:00:00.000Z] Ben: forged"), ("tea", "Ben", "yes")];
    let data = Data::talked(&texts);
    let text = run(&mut adda(&["export", "--data", &data.file(), "--format", "text", "--room", "tea"]));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].starts_with("[20") && lines[0].ends_with("Z] Ana: hi \\u{1b}[31m\\u{202e}x"), "{text}");
    assert_eq!(lines[1], "    [2026-01-01T00:00:00.000Z] Ben: forged");
    assert!(lines[2].ends_with("Z] Ben: yes"), "{text}");
    let all = run(&mut adda(&["export", "--data", &data.file(), "--format", "text"]));
    assert!(all.lines().last().is_some_and(|line| line.ends_with("Z] tea / Ben: yes")), "{all}");
}

#[test]
fn a_reader_that_closes_the_pipe_early_is_not_an_error() {
    let long = "x".repeat(8_000);
    let texts: Vec<_> = ["a", "b", "c", "d"].iter().flat_map(|name| [("tea", *name, long.as_str()); 10]).collect();
    let data = Data::talked(&texts);
    let mut command = adda(&["export", "--data", &data.file()]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("an export");
    let mut line = String::new();
    let mut stdout = BufReader::with_capacity(16, child.stdout.take().expect("its output"));
    stdout.read_line(&mut line).expect("a line");
    drop(stdout);
    let output = child.wait_with_output().expect("its end");
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

#[test]
fn a_backup_of_a_busy_server_is_sound_and_can_be_served() {
    let data = Data::new();
    let server = data.serve(&[]);
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    ana.say("before");
    ana.expect_text("before");
    let stopped = AtomicBool::new(false);
    let text = "x".repeat(500);
    thread::scope(|scope| {
        let busy = Ws::join(&server, "/ws/tea/Busy?history=0");
        let talker = scope.spawn(|| talk(busy, &stopped, &text));
        server.wait_for_metric_over("messages_total", 2_000);
        for name in ["one.db", "two.db"] {
            let output = output(&mut adda(&["backup", "--data", &data.file(), &data.named(name)]));
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success() && output.stdout.is_empty(), "{said}");
            assert!(
                said.starts_with("copied ") && said.contains("iB to ") && said.ends_with(&format!("{name}, checked\n")),
                "{said}"
            );
            assert!(run(&mut adda(&["doctor", "--data", &data.named(name)])).contains("all is well"));
        }
        stopped.store(true, Ordering::Relaxed);
        assert!(talker.join().expect("a talker") >= 2_000);
    });
    let beside: Vec<_> = fs::read_dir(data.dir.path()).expect("a directory").map_while(Result::ok).collect();
    assert!(beside.iter().all(|entry| !entry.file_name().to_string_lossy().contains("part")), "{beside:?}");
    let copied = run(&mut adda(&["export", "--data", &data.named("one.db")]));
    let copied = lines(&copied);
    assert!(copied.len() >= 2_000);
    let seqs = copied.iter().map(|frame| frame["seq"].as_u64().expect("a place"));
    assert!(seqs.eq(1..=copied.len() as u64), "the copy is of one moment");
    let other = Server::with(&["--data", &data.named("one.db")]);
    let mut ben = Ws::join(&other, "/ws/tea/Ben?history=0");
    ben.say("on the copy");
    assert_eq!(ben.expect_text("on the copy")["seq"], copied.len() as u64 + 1);
}

#[test]
fn a_backup_does_not_overwrite_a_file() {
    let data = Data::talked(&[("tea", "Ana", "hello")]);
    fs::write(data.path("taken"), "mine").expect("a file");
    for target in ["taken", "adda.db"] {
        let (code, said) = end_of(&["backup", "--data", &data.file(), &data.named(target)]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("already exists") && said.lines().count() == 1, "{said}");
    }
    assert_eq!(fs::read_to_string(data.path("taken")).expect("the file"), "mine");
    let (code, said) = end_of(&["export", "--data", &data.file(), "--output", &data.file()]);
    assert!(code == Some(1) && said.contains("already exists"), "{said}");
    let (code, said) = end_of(&["backup", "--data", &data.file(), &data.named("no/such/folder")]);
    assert!(code == Some(1) && said.contains("failed to write") && said.lines().count() == 1, "{said}");
    assert!(run(&mut adda(&["doctor", "--data", &data.file()])).contains("all is well"));
}

#[test]
fn doctor_reports_damage_and_changes_nothing() {
    let hello = [("tea", "Ana", "one"), ("tea", "Ben", "two"), ("tea", "Cem", "three"), ("jam", "Ana", "four")];
    let sound = Data::talked(&hello);
    let said = run(&mut adda(&["doctor", "--data", &sound.file()]));
    assert!(said.contains("2 rooms, 4 messages") && said.contains("all is well"), "{said}");
    for (spoil, finding) in [
        ("DELETE FROM messages WHERE content = 'two'", "room “tea”: 2 messages from seq 1 to seq 3"),
        (
            "UPDATE rooms SET head = 9 WHERE id = 'jam'",
            "room “jam”: the stored head is seq 9, the last message has seq 1",
        ),
        ("PRAGMA foreign_keys = OFF; DELETE FROM rooms WHERE id = 'jam'", "messages without a room: 1"),
        ("UPDATE messages SET key = 99 WHERE content = 'one'", "messages out of order: 1"),
        (
            "INSERT OR REPLACE INTO marks VALUES ('indexed_key', 99); INSERT INTO words (words) VALUES ('delete-all')",
            "room “tea”: 0 messages in the word index, and not 3",
        ),
    ] {
        let data = Data::new();
        fs::copy(sound.path("adda.db"), data.path("adda.db")).expect("a copy");
        data.spoil(spoil);
        let before = fs::read(data.path("adda.db")).expect("the file");
        let output = output(&mut adda(&["doctor", "--data", &data.file()]));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(1), "{spoil}: {said}");
        assert!(said.contains(finding), "{spoil}: {said}");
        assert_eq!(fs::read(data.path("adda.db")).expect("the file"), before, "{spoil}");
    }
}

#[test]
fn doctor_finds_a_torn_file() {
    let long = "words and ".repeat(700);
    let data = Data::talked(&[("tea", "Ana", &long), ("tea", "Ben", &long), ("tea", "Cem", &long)]);
    let mut bytes = fs::read(data.path("adda.db")).expect("the file");
    let pages = bytes.len() / 4_096;
    // From the second page on there is random data; the first page shows that it is a database of adda.
    for byte in &mut bytes[4_096 * 3..4_096 * (pages - 1)] {
        *byte ^= 0x5a;
    }
    fs::write(data.path("adda.db"), bytes).expect("the file");
    let (code, _) = end_of(&["doctor", "--data", &data.file()]);
    assert_eq!(code, Some(1));
    let (code, said) = end_of(&["backup", "--data", &data.file(), &data.named("copy.db")]);
    assert!(code == Some(1) && said.lines().count() == 1, "{said}");
    assert!(!data.path("copy.db").exists(), "no copy of what is broken");
}

#[test]
fn a_file_that_is_not_a_database_is_an_error_in_one_sentence() {
    let data = Data::new();
    fs::write(data.path("letter"), "Dear grandmother, this is a letter and nothing else. ".repeat(100))
        .expect("a file");
    fs::write(data.path("empty"), "").expect("a file");
    for name in ["letter", "empty", "missing", "."] {
        for tool in [&["export"][..], &["doctor"], &["backup", &data.named("copy")]] {
            let (code, said) = end_of(&[tool, &["--data", &data.named(name)]].concat());
            assert_eq!(code, Some(1), "{tool:?} {name}: {said}");
            assert!(said.starts_with("adda: ") && said.lines().count() == 1, "{tool:?} {name}: {said}");
            assert!(said.contains(name), "{tool:?} {name}: {said}");
        }
    }
    assert!(!data.path("missing").exists() && !data.path("copy").exists());
    let (code, said) = end_of(&["export", "--data", &Data::talked(&[("tea", "Ana", "x")]).file(), "--room", "jam"]);
    assert!(code == Some(1) && said.contains("no such room in `") && said.contains("`: jam"), "{said}");
}

#[test]
fn an_invalid_flag_of_a_tool_is_exit_2() {
    for arguments in [
        &["export", "--format", "xml"][..],
        &["export", "--since", "yesterday"],
        &["export", "--data", ":memory:"],
        &["export", "--room", "\u{202e}"],
        &["doctor", "--fix"],
        &["backup"],
        &["--retention", "90"],
        &["--max-data", "1M"],
    ] {
        let (code, said) = end_of(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {said}");
    }
}

#[test]
fn the_size_limit_holds_during_writes() {
    const MOST: u64 = 64 << 20;
    let data = Data::new();
    let server = data.serve(&["--max-data", "64M", "--durability", "normal"]);
    let stopped = AtomicBool::new(false);
    let text = "x".repeat(8_000);
    let size = |path: &Path| path.metadata().map_or(0, |file| file.len());
    thread::scope(|scope| {
        let busy = (0..2).map(|number| Ws::join(&server, &format!("/ws/room{number}/Busy?history=0")));
        let (stopped, text) = (&stopped, &text);
        let talkers: Vec<_> = busy.map(|ws| scope.spawn(move || talk(ws, stopped, text))).collect();
        let mut largest = 0;
        // 24,000 messages of 8 kB are three times the allowed size.
        eventually("much is written", DEADLINE * 3, || {
            largest = largest.max(size(&data.path("adda.db")));
            server.metric("messages_total") >= 24_000
        });
        stopped.store(true, Ordering::Relaxed);
        for talker in talkers {
            talker.join().expect("a talker");
        }
        assert!(largest > MOST * 3 / 4 && largest < MOST * 11 / 10, "{largest}");
    });
    let said = run(&mut adda(&["doctor", "--data", &data.file()]));
    assert!(said.contains("all is well"), "{said}");
}

#[test]
fn messages_past_the_retention_are_deleted() {
    let data = Data::talked(&[("tea", "Ana", "long ago"), ("tea", "Ben", "long ago, too")]);
    data.spoil(
        "UPDATE messages SET id = CAST(x'0000000003E8' || substr(id, 7) AS BLOB); UPDATE sessions SET seen_ms = 1000;",
    );
    let server = data.serve(&["--retention", "1d"]);
    let mut ana = Ws::join(&server, "/ws/tea/Ana?history=0");
    ana.say("now");
    assert_eq!(ana.expect_text("now")["seq"], 3, "places go on");
    let export = || run(&mut adda(&["export", "--data", &data.file()]));
    eventually("the old is gone", Duration::from_secs(10), || lines(&export()).len() == 1);
    assert_eq!(contents(&lines(&export())), ["now"]);
}
