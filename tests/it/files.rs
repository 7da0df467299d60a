//! Tests of the files of a database: who can read them, and what a server does when another program changes them.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{DEADLINE, Server, Ws, clean, eventually, exchange, run};

/// How long a server may take to notice that its files are lost.
const NOTICED_MAX: Duration = Duration::from_secs(1);

/// The modes of all files in a directory that are not 0600, with their names.
#[track_caller]
fn readable_by_others(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry"));
    let modes = entries.map(|entry| {
        let mode = entry.metadata().expect("its mode").permissions().mode() & 0o7777;
        (entry.file_name().to_string_lossy().into_owned(), mode)
    });
    modes.filter(|(_, mode)| *mode != 0o600).map(|(name, mode)| format!("{name} {mode:o}")).collect()
}

/// A shell that sets the umask and then becomes another program.
fn with_umask(umask: &str) -> Vec<String> {
    ["sh", "-c", &format!("umask {umask}; exec \"$0\" \"$@\"")].map(str::to_owned).to_vec()
}

#[track_caller]
fn serve(umask: &str, data: &Path) -> Server {
    let shell = with_umask(umask);
    let shell: Vec<&str> = shell.iter().map(String::as_str).collect();
    Server::under(&shell, &["--data", data.to_str().expect("a path in UTF-8")])
}

#[track_caller]
fn tool(umask: &str, arguments: &[&str], data: &Path) {
    let shell = with_umask(umask);
    let mut command = Command::new(&shell[0]);
    command.args(&shell[1..]).arg(env!("CARGO_BIN_EXE_adda")).args(arguments).arg("--data").arg(data);
    run(clean(&mut command));
}

#[test]
fn only_the_owner_can_read_what_is_written_whatever_the_umask_is() {
    for umask in ["022", "000", "077", "0277", "0777"] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let data = dir.path().join("adda.db");
        let mut server = serve(umask, &data);
        let mut ana = Ws::join(&server, "/ws/tea/Ana");
        ana.say("private");
        ana.expect_text("private");
        let is_socket =
            |name: &str| fs::symlink_metadata(dir.path().join(name)).is_ok_and(|file| file.file_type().is_socket());
        assert!(is_socket("adda.db.control") && dir.path().join("adda.db-wal").exists(), "umask {umask}");
        let copies = [dir.path().join("copy.db"), dir.path().join("all.ndjson")];
        let [copy, export] = copies.each_ref().map(|path| path.to_str().expect("a path in UTF-8"));
        tool(umask, &["backup", copy], &data);
        tool(umask, &["export", "--output", export], &data);
        tool(umask, &["token", "create", "deploy"], &data);
        assert_eq!(readable_by_others(dir.path()), Vec::<String>::new(), "umask {umask}, while it runs");
        // What a killed server leaves, and the next one makes of it.
        server.signal(Signal::KILL);
        server.wait_exit(DEADLINE);
        assert_eq!(readable_by_others(dir.path()), Vec::<String>::new(), "umask {umask}, after a kill");
        let mut server = serve(umask, &data);
        let log = server.whole_log();
        assert!(!log.contains("had mode"), "umask {umask}: {log}");
        assert_eq!(readable_by_others(dir.path()), Vec::<String>::new(), "umask {umask}, after the end");
        // A database that a command makes.
        tool(umask, &["token", "create", "deploy"], &dir.path().join("made.db"));
        assert_eq!(readable_by_others(dir.path()), Vec::<String>::new(), "umask {umask}, by a command");
    }
}

#[test]
fn the_files_of_an_earlier_server_are_made_private_at_the_start() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let place = tempfile::tempdir().expect("a temporary directory");
    // A symbolic link does not hide the files beside the database.
    let (data, link) = (dir.path().join("adda.db"), place.path().join("link.db"));
    std::os::unix::fs::symlink(&data, &link).expect("a link");
    let mut server = serve("022", &link);
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    ana.say("private");
    ana.expect_text("private");
    server.signal(Signal::KILL);
    server.wait_exit(DEADLINE);
    let names = ["adda.db", "adda.db-wal", "adda.db-shm"];
    for (name, mode) in names.iter().zip([0o644, 0o666, 0o640]) {
        fs::set_permissions(dir.path().join(name), Permissions::from_mode(mode)).expect("its mode");
    }
    let server = serve("022", &link);
    assert_eq!(readable_by_others(dir.path()), Vec::<String>::new());
    let log = server.wait_for_log("the modes", |log| log.matches("had mode").count() == names.len());
    for (name, mode) in names.iter().zip(["644", "666", "640"]) {
        assert!(log.contains(&format!("{name}` had mode {mode}; changed it to 600")), "{log}");
    }
    let mut ben = Ws::join(&server, "/ws/tea/Ben?history=1");
    ben.expect_text("private");
}

#[test]
fn a_file_of_another_user_keeps_its_mode() {
    use rustix::process::geteuid;
    if !geteuid().is_root() {
        println!("only root can give a file to another user");
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("adda.db");
    drop(serve("022", &data).whole_log());
    std::os::unix::fs::chown(&data, Some(65_534), None).expect("another owner");
    fs::set_permissions(&data, Permissions::from_mode(0o644)).expect("its mode");
    let mut server = serve("022", &data);
    let log = server.whole_log();
    assert!(log.contains("has mode 644 and belongs to user 65534; left as it is"), "{log}");
    assert_eq!(data.metadata().expect("its mode").permissions().mode() & 0o7777, 0o644);
}

/// A server whose files a test removes, replaces and truncates.
struct Watched {
    dir: tempfile::TempDir,
    server: Server,
    ana: Ws,
    said: u32,
}

impl Watched {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(dir.path().join("data")).expect("a directory");
        let data = dir.path().join("data/adda.db");
        let flags = ["--rate", "0", "--data", data.to_str().expect("a path in UTF-8")];
        // The end of the first server moves the WAL into the database.
        let mut server = Server::with(&flags);
        let mut ana = Ws::join(&server, "/ws/tea/Ana");
        ana.say("in the database");
        ana.expect_text("in the database");
        drop(ana);
        server.whole_log();
        let server = Server::with(&flags);
        let mut ana = Ws::join(&server, "/ws/tea/Ana?history=0");
        ana.say("kept");
        ana.expect_text("kept");
        assert_eq!(server.get("/healthz").status, 200);
        Self { dir, server, ana, said: 0 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Sends a message. Returns its frame, or the error.
    fn answer(&mut self) -> Value {
        self.said += 1;
        let nonce = format!("n-{}", self.said);
        self.ana.command(&json!({"content": "into nothing?", "nonce": nonce}));
        self.ana.until(|frame| frame["nonce"] == nonce.as_str())
    }

    /// Checks that the server notices within a second what was done to its files: it says so and stores nothing.
    #[track_caller]
    fn assert_noticed(&mut self, what: &str, sentence: &str) {
        let until = Instant::now() + NOTICED_MAX;
        loop {
            let health = self.server.get("/healthz");
            if health.status == 503 && health.text().contains(sentence) {
                break;
            }
            // A read may fail before the reason is known.
            assert!(Instant::now() < until, "{what}: not noticed within {NOTICED_MAX:?}: {}", health.text());
        }
        let refused = self.answer();
        assert_eq!((&refused["type"], &refused["code"]), (&json!("error"), &json!("busy")), "{what}: {refused}");
        assert_eq!(refused["reason"], "not_stored", "{what}: {refused}");
        let posted =
            exchange(self.server.addr(), "POST", "/api/rooms/tea/messages", &[], Some(&json!({"content": "x"})));
        assert_eq!(posted.expect("an answer").status, 503, "{what}");
        let changed = exchange(self.server.addr(), "POST", "/api/session", &[], Some(&json!({"username": "Eva"})));
        assert_eq!(changed.expect("an answer").status, 503, "{what}: what is no message is not stored, either");
        self.server.wait_for_log("the fault", |log| log.contains(sentence));
        // Reading and joining go on.
        Ws::join(&self.server, "/ws/tea/Ben?history=1").expect_text("kept");
        self.server.assert_alive();
    }

    /// Checks that messages are stored again.
    #[track_caller]
    fn assert_resumes(&mut self, what: &str) {
        eventually("the server is healthy", DEADLINE, || self.server.get("/healthz").status == 200);
        let stored = self.answer();
        assert_eq!(stored["type"], "text", "{what}: {stored}");
        self.server.wait_for_log("the return", |log| log.contains("messages are stored again"));
    }

    /// Stops the server. It must not touch the files that are at the paths now.
    fn stop(self) -> tempfile::TempDir {
        let Self { dir, mut server, ana, .. } = self;
        drop(ana);
        server.whole_log();
        dir
    }
}

#[test]
fn a_removed_database_is_noticed_and_nothing_is_acked_into_it() {
    for (name, sentence) in [
        ("data/adda.db", "the database file was removed or moved"),
        ("data/adda.db-wal", "the WAL of the database was removed or moved"),
        ("data/adda.db-shm", "the WAL index of the database was removed or moved"),
    ] {
        let mut watched = Watched::new();
        fs::remove_file(watched.path(name)).expect("the file is removed");
        watched.assert_noticed(name, sentence);
        let dir = watched.stop();
        assert!(!dir.path().join(name).exists(), "{name} does not come back");
    }
    let mut watched = Watched::new();
    fs::remove_dir_all(watched.path("data")).expect("the directory is removed");
    watched.assert_noticed("the directory", "the database file was removed or moved");
    watched.stop();
}

#[test]
fn a_database_that_is_moved_back_is_used_again() {
    for (from, to) in [("data/adda.db", "data/away.db"), ("data", "away"), ("data/adda.db-wal", "data/wal")] {
        let mut watched = Watched::new();
        fs::rename(watched.path(from), watched.path(to)).expect("it is moved");
        watched.assert_noticed(from, "was removed or moved");
        fs::rename(watched.path(to), watched.path(from)).expect("it is moved back");
        watched.assert_resumes(from);
        let dir = watched.stop();
        let data = dir.path().join("data/adda.db");
        let server = Server::with(&["--data", data.to_str().expect("a path in UTF-8")]);
        Ws::join(&server, "/ws/tea/Ben?history=1").expect_text("into nothing?");
    }
}

#[test]
fn a_replaced_database_is_noticed_and_its_successor_is_left_alone() {
    let other = Watched::new().stop();
    let other = other.path().join("data/adda.db");
    for name in ["data/adda.db", "data/adda.db-wal"] {
        let mut watched = Watched::new();
        let (place, new) = (watched.path(name), watched.path("data/new"));
        fs::copy(&other, &new).expect("a copy");
        fs::rename(new, &place).expect("the file is replaced");
        watched.assert_noticed(name, "was replaced by another file");
        let _dir = watched.stop();
        assert!(fs::read(place).expect("the file") == fs::read(&other).expect("the file"), "{name} is unchanged");
    }
    // As a restored backup that a second server already uses.
    let mut watched = Watched::new();
    let data = watched.path("data/adda.db");
    for suffix in ["", "-wal", "-shm", ".control"] {
        fs::remove_file(watched.path(&format!("data/adda.db{suffix}"))).expect("the file is removed");
    }
    fs::copy(&other, &data).expect("a backup");
    let second = Server::with(&["--data", data.to_str().expect("a path in UTF-8")]);
    let mut eva = Ws::join(&second, "/ws/tea/Eva?history=1");
    eva.expect_text("kept");
    watched.assert_noticed("a second server", "the database file was replaced by another file");
    let _dir = watched.stop();
    assert!(data.with_extension("db-wal").exists(), "the WAL of the second server is still there");
    eva.say("here");
    eva.expect_text("here");
    assert_eq!(second.get("/healthz").status, 200);
}

#[test]
fn a_database_that_another_program_writes_to_is_noticed() {
    let other = Watched::new().stop();
    let other = fs::read(other.path().join("data/adda.db")).expect("the file");
    type Harm<'a> = &'a dyn Fn(&Path);
    let truncate = |path: &Path, bytes: u64| {
        let file = fs::File::options().write(true).open(path).expect("the file");
        file.set_len(bytes).expect("it is truncated");
    };
    let zeros_at_end = |path: &Path| {
        let file = fs::File::options().write(true).open(path).expect("the file");
        file.write_all_at(&[0; 100], file.metadata().expect("it").len() - 100).expect("it is written");
    };
    let harms: [(&str, &str, Harm<'_>); 6] = [
        ("truncated to nothing", "data/adda.db", &|path| truncate(path, 0)),
        ("truncated to a page", "data/adda.db", &|path| truncate(path, 4_096)),
        ("cut off at its end", "data/adda.db", &|path| truncate(path, fs::metadata(path).expect("it").len() - 4_096)),
        ("overwritten by a copy", "data/adda.db", &|path| fs::write(path, &other).expect("it is written")),
        ("with zeros at its end", "data/adda.db", &zeros_at_end),
        ("without its WAL", "data/adda.db-wal", &|path| truncate(path, 0)),
    ];
    for (what, name, harm) in harms {
        let mut watched = Watched::new();
        harm(&watched.path(name));
        watched.assert_noticed(what, "was changed by another program");
        watched.stop();
    }
}

#[test]
fn a_database_whose_times_another_program_has_set_is_used_further() {
    let mut watched = Watched::new();
    let file = fs::File::options().write(true).open(watched.path("data/adda.db")).expect("the file");
    file.set_modified(SystemTime::UNIX_EPOCH).expect("its time is set");
    let until = Instant::now() + NOTICED_MAX;
    while Instant::now() < until {
        assert_eq!(watched.answer()["type"], "text");
    }
    assert_eq!(watched.server.get("/healthz").status, 200);
    watched.stop();
}
