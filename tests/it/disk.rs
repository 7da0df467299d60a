//! Tests of a disk that fails, is full, or has a file that is not a database: acked messages are kept, and errors are
//! reported.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

use crate::crash::{assert_kept, assert_sound, command, joined, start_clients, steady_address, whole_log};
use crate::history::{History, Room, check};
use crate::http_clients::HttpClient;
use crate::random::Random;
use crate::support::{DEADLINE, Server, Ws, clean, eventually, http, output, repository, run};
use crate::ws_clients::Stage;

const SENDERS: usize = 8;
const READERS: usize = 8;
const ROOMS: [Room; 2] = [Room(0), Room(1)];
/// Time from free space on the disk to the next stored message.
const RECOVERY_MAX: Duration = Duration::from_secs(1);

/// The library between a server and its disk. Rust needs a C compiler as its linker, so one is installed.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("faulty_disk-{}.so", std::process::id()));
        let source = repository().join("tests/it/faulty_disk.c");
        let flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"];
        run(Command::new("cc").args(flags).arg(&library).arg(source));
        // All runs use one name; a process that has loaded the old file keeps it.
        let name = library.with_file_name("faulty_disk.so");
        fs::rename(&library, &name).expect("the library has its name");
        name
    })
}

/// A directory for a database, on a disk that can be made to fail.
pub struct Disk {
    dir: TempDir,
}

impl Disk {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory") }
    }

    /// A disk with a database that has messages, and that no server has open.
    fn talked() -> Self {
        let disk = Self::new();
        let mut server = disk.serve();
        let mut ana = Ws::join(&server, "/ws/tea/Ana");
        for number in 0..50 {
            let content = format!("{number} {}", "words and ".repeat(50));
            ana.say(&content);
            ana.expect_text(&content);
        }
        server.signal(Signal::TERM);
        assert_eq!(server.wait_exit(DEADLINE).code(), Some(0));
        disk
    }

    /// The path of the database, in the system's canonical form, by which the library knows it.
    pub fn data(&self) -> PathBuf {
        let place = self.place().join("data");
        fs::create_dir_all(&place).expect("a directory");
        place.join("adda.db")
    }

    fn place(&self) -> PathBuf {
        self.dir.path().canonicalize().expect("the directory")
    }

    /// From now on the disk fails; `how` is a command for the library.
    pub fn fails(&self, how: &str) {
        fs::write(self.place().join("fault"), how).expect("a file");
    }

    fn is_mended(&self) {
        fs::remove_file(self.place().join("fault")).expect("the file");
    }

    /// The command of a server on this disk.
    pub fn command(&self, address: SocketAddr) -> Command {
        let mut command = command(address, &self.data());
        self.stand_under(&mut command);
        command
    }

    pub fn serve(&self) -> Server {
        Server::spawn(self.command(([127, 0, 0, 1], 0).into()))
    }

    /// Makes a program that is about to start use this disk.
    pub fn stand_under(&self, command: &mut Command) {
        command.env("LD_PRELOAD", library());
        command.env("FAULT_DATA", self.data()).env("FAULT_FILE", self.place().join("fault"));
    }

    /// The same, and kills the program at an operation; `when` is a command for the library.
    pub fn kill(&self, command: &mut Command, when: &str) {
        self.stand_under(command);
        command.env("FAULT_KILL", when).env("FAULT_COUNT", self.place().join("count"));
    }

    /// How many operations the last program did that ended normally.
    #[track_caller]
    pub fn operations(&self) -> u64 {
        let count = fs::read_to_string(self.place().join("count")).expect("a count");
        count.trim().parse().expect("a number")
    }

    /// The database and the files beside it, with their contents.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let data = self.data();
        let entries = fs::read_dir(data.parent().expect("a directory")).expect("a directory");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        paths.map(|path| (path.display().to_string(), fs::read(&path).unwrap_or_default())).collect()
    }

    /// Checks that a server fails to start, prints one sentence with these words, and leaves all files unchanged.
    #[track_caller]
    fn assert_refused(&self, what: &str, words: &[&str]) {
        let before = self.files();
        self.assert_refused_beside(what, words);
        assert!(self.files() == before, "{what}: from {:?} to {:?}", before.keys(), self.files().keys());
    }

    /// The same while a server has the files open, and may write to them.
    #[track_caller]
    fn assert_refused_beside(&self, what: &str, words: &[&str]) {
        let mut command = self.command(([127, 0, 0, 1], 0).into());
        // A server that starts all the same must not be waited for.
        let mut under = Command::new("timeout");
        under.args(["--signal=KILL", &DEADLINE.as_secs().to_string()]).arg(command.get_program());
        under.args(command.args(["--log", "error"]).get_args());
        under.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = output(clean(&mut under));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.code() == Some(1) && shown.is_empty(), "{what}: {:?}: {shown}{said}", output.status);
        assert!(said.starts_with("adda: ") && said.lines().count() == 1, "{what}, in one sentence: {said}");
        let file = self.data().display().to_string();
        assert!(words.iter().chain([&file.as_str()]).all(|word| said.contains(word)), "{what}: {said}");
    }
}

#[test]
fn a_failed_sync_stops_the_server_and_acks_no_later_message() {
    let mut random = Random::from_env();
    let disk = Disk::new();
    let address = steady_address(&mut random);
    let mut server = Server::spawn(disk.command(address));
    let stage = Stage::new(address, DEADLINE);
    let cast = start_clients(SENDERS, READERS, &ROOMS, &mut random);
    let history = thread::scope(|scope| {
        let _alarm = stage.alarm();
        let mut threads: Vec<_> = cast.into_iter().map(|talker| scope.spawn(|| talker.run(&stage))).collect();
        threads.push(scope.spawn(|| HttpClient::new(SENDERS + READERS, ROOMS[0]).run(&stage)));
        for _ in 0..3 {
            stage.wait_for_acks(random.within(50..400));
            disk.fails("sync");
            assert_eq!(server.wait_exit(DEADLINE).code(), Some(1));
            stage.went_down();
            let log = server.log();
            let said = log.lines().filter(|line| line.contains("failed to sync the database")).count();
            assert!(
                said == 1 && log.lines().last().is_some_and(|line| line.contains("failed to sync the database")),
                "{log}"
            );
            disk.is_mended();
            server = Server::spawn(disk.command(address));
            stage.came_up();
        }
        let log = stage.finish(SENDERS + READERS + 1, || whole_log(&server, &ROOMS));
        History { clients: threads.into_iter().map(joined).collect(), log }
    });
    println!("{}", stage.summary());
    assert_kept(&check(&history));
    server.signal(Signal::KILL);
    server.wait_exit(DEADLINE);
    assert_sound(&disk.data(), &history.log);
}

#[test]
fn a_full_disk_refuses_messages_and_nothing_else() {
    let mut random = Random::from_env();
    let disk = Disk::new();
    let mut server = disk.serve();
    let stage = Stage::new(server.addr(), DEADLINE);
    let cast = start_clients(SENDERS, READERS, &ROOMS, &mut random);
    let (history, stored_elsewhere) = thread::scope(|scope| {
        let _alarm = stage.alarm();
        let threads: Vec<_> = cast.into_iter().map(|talker| scope.spawn(|| talker.run(&stage))).collect();
        let mut stored_elsewhere = 0;
        for round in 0..2 {
            stage.wait_for_acks(random.within(100..400));
            disk.fails("full");
            stage.wait_for_refusals(SENDERS as u64);
            let full_since = Instant::now();
            // A new client can join although nothing of it can be stored; its messages are refused like those of the
            // others.
            let mut nonce = format!("round {round}");
            let mut eva = Ws::join(&server, "/ws/elsewhere/Eva");
            let mut say = json!({"content": "is there room?", "nonce": nonce});
            eva.command(&say);
            let mut refusal = eva.until(|frame| frame["nonce"] == nonce.as_str());
            // The WAL may have room from before.
            for number in 0.. {
                if refusal["type"] == "error" {
                    break;
                }
                stored_elsewhere += 1;
                nonce = format!("round {round}, try {number}");
                say = json!({"content": "is there room?", "nonce": nonce});
                eva.command(&say);
                refusal = eva.until(|frame| frame["nonce"] == nonce.as_str());
            }
            assert_eq!((&refusal["type"], &refusal["code"]), (&json!("error"), &json!("busy")), "{refusal}");
            assert!(refusal["retry_ms"].is_u64(), "{refusal}");
            assert!(refusal["content"].as_str().is_some_and(|said| said.contains("disk is full")), "{refusal}");
            let mut ben = Ws::join(&server, "/ws?room=room-0&username=Ben&history=20");
            for _ in 0..20 {
                ben.until(|frame| frame["type"] == "text");
            }
            let body = "is there room?";
            let post = format!(
                "POST /api/rooms/elsewhere/messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let posted = http(server.addr(), post);
            assert_eq!((posted.status, &posted.json()["code"]), (503, &json!("busy")), "{}", posted.text());
            for target in ["messages?limit=50", "messages?limit=50&q=message"] {
                let answer = server.get(&format!("/api/rooms/room-0/{target}"));
                assert_eq!(answer.status, 200, "{target}: {}", answer.text());
                assert_eq!(answer.json()["data"].as_array().map(Vec::len), Some(50), "{target}");
            }
            assert!(server.get("/api/rooms").text().contains("room-0"));
            stage.wait_for_refusals(SENDERS as u64);
            server.assert_alive();
            println!(
                "full for {} ms, {} lines in the log",
                full_since.elapsed().as_millis(),
                server.log().lines().count()
            );
            disk.is_mended();
            let mended = Instant::now();
            eva.command(&say);
            let stored = eva.until(|frame| frame["nonce"] == nonce.as_str());
            stored_elsewhere += 1;
            assert_eq!((&stored["type"], &stored["seq"]), (&json!("text"), &json!(stored_elsewhere)), "{stored}");
            assert!(stored.get("duplicate").is_none_or(|duplicate| duplicate != true), "{stored}");
            assert!(mended.elapsed() < RECOVERY_MAX, "only after {:?}", mended.elapsed());
        }
        stage.wait_for_acks(100);
        let log = stage.finish(SENDERS + READERS, || whole_log(&server, &ROOMS));
        (History { clients: threads.into_iter().map(joined).collect(), log }, stored_elsewhere)
    });
    println!("{}", stage.summary());
    assert_kept(&check(&history));
    server.signal(Signal::KILL);
    server.wait_exit(DEADLINE);
    let elsewhere = Connection::open(disk.data())
        .expect("the file")
        .execute("DELETE FROM messages WHERE room = (SELECT key FROM rooms WHERE id = 'elsewhere')", []);
    assert_eq!(elsewhere, Ok(stored_elsewhere));
    assert_sound(&disk.data(), &history.log);
}

/// What one client writes into one room costs the other rooms nothing, even if they are older. It also costs the others
/// in its room nothing.
#[test]
fn a_flood_in_one_room_leaves_the_history_of_the_others() {
    let disk = Disk::new();
    let mut command = command(([127, 0, 0, 1], 0).into(), &disk.data());
    command.args(["--max-data", "64M", "--max-content", "32K", "--durability", "normal"]);
    let server = Server::spawn(command);
    let quiet = ["garden", "kitchen", "general"];
    for room in quiet.into_iter().chain(["flood"]) {
        let mut ws = Ws::join(&server, &format!("/ws/{room}/Ana"));
        for number in 0..100 {
            let content = format!("{room} {number}");
            ws.say(&content);
            ws.expect_text(&content);
        }
    }
    let mut mallory = Ws::join(&server, "/ws/flood/Mallory");
    let mut random = Random::from_env();
    let kept = |room: &str| {
        let page = server.get(&format!("/api/rooms/{room}/messages?limit=200")).json();
        page["data"].as_array().map_or(0, Vec::len)
    };
    // More than the bound.
    for number in 0..2_300 {
        let word = random.within(0..1 << 31);
        let content = format!("{number} {word:x} ").repeat(2_000);
        mallory.command(&json!({"content": content, "nonce": format!("n-{number}")}));
        mallory.until(|frame| frame["nonce"] == format!("n-{number}").as_str());
    }
    let database = Connection::open_with_flags(disk.data(), OpenFlags::SQLITE_OPEN_READ_ONLY).expect("the file");
    let erased = "SELECT count(*) FROM messages WHERE content = '' AND deleted_ms > 0";
    eventually("the flood is cut", DEADLINE, || {
        database.query_row(erased, [], |row| row.get::<_, i64>(0)).is_ok_and(|erased| erased > 0)
    });
    drop(database);
    for room in quiet {
        assert_eq!(kept(room), 100, "{room}");
    }
    // A search in so many long texts has several pages.
    let (mut found, mut before) = (Vec::new(), String::new());
    loop {
        let page = server.get(&format!("/api/rooms/flood/messages?limit=200&q=flood{before}")).json();
        let data = page["data"].as_array().expect("a page");
        found.splice(0..0, data.iter().map(|one| (one["content"].clone(), one["id"].clone())));
        let Some(next) = page["next"].as_str() else { break };
        before = format!("&before={next}");
    }
    let (texts, ids): (Vec<_>, Vec<_>) = found.into_iter().unzip();
    assert_eq!(texts, (0..100).map(|number| json!(format!("flood {number}"))).collect::<Vec<_>>());
    let newest = server.get("/api/rooms/flood/messages?limit=50").json();
    let has_text = |one: &&serde_json::Value| one["content"].as_str().is_some_and(|content| content.len() > 1_000);
    let with_text = newest["data"].as_array().map(|page| page.iter().filter(has_text).count());
    assert_eq!(with_text, Some(50), "the newest of the flood are there");
    // A member that was away gets an order without gaps.
    let last = ids[99].as_str().expect("an id");
    let mut away = Ws::join(&server, &format!("/ws/flood/Bo?after={last}"));
    for number in 0..2_300 {
        assert_eq!(away.until(|frame| frame["type"] == "text")["seq"], 101 + number);
    }
    let size = disk.data().metadata().expect("the file").len();
    assert!(size < 80 << 20, "{size}");
}

/// A file system of a few megabytes, which only its own processes see.
struct SmallDisk {
    holder: Child,
    dir: TempDir,
}

impl SmallDisk {
    #[track_caller]
    fn new(size: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let script = "mount -t tmpfs -o size=\"$0\" none \"$1\" && echo mounted && exec sleep 600";
        let mut holder = Command::new("unshare");
        holder.args(["--mount", "sh", "-c", script, size]).arg(dir.path()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut holder = holder.spawn().expect("unshare");
        let mut said = String::new();
        let stdout = holder.stdout.take().expect("a piped stdout");
        BufReader::new(stdout).read_line(&mut said).expect("a line, or the end");
        assert_eq!(
            said, "mounted\n",
            "the tests need the right to mount a file system: they run as root, or in a container that permits it"
        );
        Self { holder, dir }
    }

    fn serve(&self) -> Server {
        let pid = self.holder.id().to_string();
        let data = self.dir.path().join("adda.db");
        let flags = [
            "--rate",
            "0",
            "--max-content",
            "32K",
            "--max-data",
            "64M",
            "--data",
            data.to_str().expect("a path in UTF-8"),
        ];
        Server::under(&["nsenter", "--target", &pid, "--mount", "--"], &flags)
    }

    /// Another program takes all the space that is left.
    fn fill(&self) {
        let path = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        let path = path.join(self.dir.path().strip_prefix("/").expect("an absolute path")).join("fill");
        let mut file = File::options().append(true).create(true).open(path).expect("a file");
        while file.write(&[0; 4_096]).is_ok() {}
    }

    /// The other program removes its file. Waits for the reserve, which the server makes again.
    fn empty(&self) {
        let path = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        let path = path.join(self.dir.path().strip_prefix("/").expect("an absolute path"));
        fs::remove_file(path.join("fill")).expect("the file is removed");
        eventually("there is a reserve", DEADLINE, || path.join("adda.db.reserve").exists());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[test]
fn a_disk_smaller_than_the_bound_makes_room_and_a_restart_always_works() {
    let disk = SmallDisk::new("16m");
    let mut random = Random::from_env();
    let mut text = || (0..2_000).map(|_| format!("word{} ", random.within(0..5_000))).collect::<String>();
    let said = |ws: &mut Ws, content: &str, nonce: &str| {
        ws.command(&json!({"content": content, "nonce": nonce}));
        ws.until(|frame| frame["nonce"] == nonce)
    };
    let mut server = disk.serve();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    // More than the disk holds.
    for number in 0..1_000 {
        let stored = said(&mut ana, &text(), &format!("n-{number}"));
        assert_eq!(stored["type"], "text", "message {number}: {stored}");
    }
    server.wait_for_log("the bound", |log| log.contains("the disk is smaller than --max-data"));
    let kept = server.get("/api/rooms/tea/messages?limit=50").json();
    assert_eq!(kept["data"].as_array().map(Vec::len), Some(50), "the newest are there");
    disk.fill();
    for number in 0..20 {
        let stored = said(&mut ana, &text(), &format!("full-{number}"));
        let is_refused = stored["reason"] == "disk_full";
        assert!(stored["type"] == "text" || is_refused, "message {number} on a full disk: {stored}");
    }
    // A server that is killed at once has not made the reserve again that its start has used.
    for signal in [Signal::TERM, Signal::KILL, Signal::KILL, Signal::TERM, Signal::KILL, Signal::KILL, Signal::TERM] {
        drop(ana);
        server.signal(signal);
        server.wait_exit(DEADLINE);
        // The other program takes what the server has returned.
        disk.fill();
        server = disk.serve();
        ana = Ws::join(&server, "/ws/tea/Ana?history=1");
        ana.expect("text");
        ana.say("hello?");
        ana.until(|frame| frame["type"] == "text" || frame["reason"] == "disk_full");
    }
    disk.empty();
    eventually("messages are stored again", DEADLINE, || said(&mut ana, "there is room", "after")["type"] == "text");
}

#[test]
fn a_full_disk_at_the_start_is_an_error_in_one_sentence() {
    let disk = Disk::new();
    // A file of that name may exist already, empty.
    fs::write(disk.data(), "").expect("a file");
    disk.fails("full");
    disk.assert_refused("a new database", &["disk is full"]);
    disk.is_mended();
    let server = disk.serve();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    ana.say("there is room");
    ana.expect_text("there is room");
}

#[test]
fn an_unwritable_file_or_directory_is_an_error_in_one_sentence() {
    let disk = Disk::talked();
    disk.fails("read-only");
    disk.assert_refused("a disk that is read-only", &["failed to open", "Read-only file system"]);
    disk.fails("no-new");
    disk.assert_refused("a directory that is read-only", &["failed to open"]);
    let disk = Disk::new();
    disk.fails("no-new");
    disk.assert_refused("a directory that is read-only, and empty", &["failed to open", "Permission denied"]);
    fs::create_dir(disk.data()).expect("a directory");
    disk.is_mended();
    disk.assert_refused("a directory in place of the file", &["failed to open", "directory"]);
}

#[test]
fn a_damaged_database_is_an_error_in_one_sentence() {
    let whole = fs::read(Disk::talked().data()).expect("the file");
    let length = whole.len();
    let disk = Disk::new();
    // A torn last page is not one of these: a crash may leave one, and the WAL then has the page whole.
    for kept in [1, 99, 100, 512, 4_095, 4_096, 4_097, 8_192, length / 2, length - 4_096] {
        fs::write(disk.data(), &whole[..kept]).expect("a file");
        disk.assert_refused(&format!("{kept} of {length} bytes"), &["is not an adda database, or is damaged"]);
    }
    for zeros in [1, 512, 4_096, length] {
        fs::write(disk.data(), vec![0; zeros]).expect("a file");
        disk.assert_refused(&format!("{zeros} zeros"), &["is not an adda database, or is damaged"]);
    }
}

#[test]
fn a_database_of_a_newer_adda_is_an_error_in_one_sentence() {
    let disk = Disk::talked();
    let connection = Connection::open(disk.data()).expect("the file");
    connection.pragma_update(None, "user_version", 99).expect("another version");
    drop(connection);
    disk.assert_refused("a newer schema", &["needs a newer adda: its schema is 99"]);
}

#[test]
fn a_database_in_use_is_an_error_in_one_sentence() {
    let disk = Disk::talked();
    let server = disk.serve();
    let mut ana = Ws::join(&server, "/ws/jam/Ana");
    ana.say("before");
    ana.expect_text("before");
    disk.assert_refused_beside("another has it", &["is in use by another adda"]);
    ana.say("behind");
    assert_eq!(ana.expect_text("behind")["seq"], 2);
}
