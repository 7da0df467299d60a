//! Tests of the log: a standard error that is not read, full or closed costs lines of the log and nothing else.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use adda::logging;
use adda::threads::AbortOnPanic;
use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::{Server, Ws, clean, eventually, http, run};

/// Maximum time of a stop, with the last lines of the log.
const STOP_WAIT: Duration = Duration::from_secs(5);
/// Maximum time of a response, while a blocked server would not respond at all.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// Requests that log two lines each: more than the queue and a pipe hold.
const REQUESTS: usize = 1_000;
/// Set in the process of a child test.
const IS_CHILD: &str = "ADDA_TEST_IS_CHILD";
const LEVELS: [&str; 4] = ["ERROR", "WARN ", "INFO ", "DEBUG"];

/// A pipe for standard error, of which the test controls the reading end.
struct Fifo {
    /// Reads and writes, so that the pipe has a reader and stays open.
    end: File,
    dir: TempDir,
}

impl Fifo {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("fifo");
        run(Command::new("mkfifo").arg(&path));
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).expect("flags");
        let end = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path).expect("a fifo");
        Self { end, dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("fifo")
    }

    /// Fills the pipe, so that the next write blocks.
    fn fill(&self) {
        for size in [4_096, 1] {
            while (&self.end).write(&b"\n".repeat(size)).is_ok() {}
        }
    }

    /// Reads the pipe on a thread, as lines.
    fn read(self) -> crossbeam_channel::Receiver<String> {
        let (lines, read) = crossbeam_channel::unbounded();
        let reader = File::open(self.path()).expect("the reading end");
        thread::spawn(move || {
            BufReader::new(reader).lines().map_while(Result::ok).try_for_each(|line| lines.send(line))
        });
        read
    }
}

/// Starts a server that logs everything to `path`.
#[track_caller]
fn logging_to(path: &str) -> Server {
    logging_to_with(path, &[])
}

/// The same, with more flags.
#[track_caller]
fn logging_to_with(path: &str, flags: &[&str]) -> Server {
    let script = format!("exec \"$0\" \"$@\" 2>{path}");
    Server::under(&["sh", "-c", &script], &[&["--log", "debug", "--rate", "0"], flags].concat())
}

/// Logs more lines than the queue and a pipe hold.
#[track_caller]
fn flood(server: &Server) {
    let path = format!("/ws/{}", "x".repeat(3_000));
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    for _ in 0..REQUESTS {
        let begun = Instant::now();
        assert!((400..500).contains(&http(server.addr(), &request).status));
        assert!(begun.elapsed() < ANSWER_WAIT, "{:?}", begun.elapsed());
    }
}

/// Checks that REST, WebSocket and `/healthz` answer, and that SIGTERM ends the server.
#[track_caller]
fn assert_serves_and_stops(mut server: Server, ana: &mut Ws) {
    let begun = Instant::now();
    for target in ["/healthz", "/api/rooms", "/metrics"] {
        assert_eq!(server.get(target).status, 200, "{target}");
    }
    assert!(begun.elapsed() < ANSWER_WAIT, "{:?}", begun.elapsed());
    let mut eva = Ws::join(&server, "/ws/tea/Eva");
    eva.say("hello");
    ana.until(|frame| frame["content"] == "hello");
    ana.say("hello, Eva");
    eva.until(|frame| frame["content"] == "hello, Eva");
    assert!(begun.elapsed() < 2 * ANSWER_WAIT, "{:?}", begun.elapsed());
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit(STOP_WAIT).code(), Some(0));
}

#[test]
fn a_stderr_that_is_not_read_stalls_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("adda.db");
    for data in [":memory:", file.to_str().expect("a path")] {
        let fifo = Fifo::new();
        let server = logging_to_with(fifo.path().to_str().expect("a path"), &["--data", data]);
        let mut ana = Ws::join(&server, "/ws/tea/Ana");
        flood(&server);
        assert!(server.metric("log_lines_dropped_total") > 0);
        assert_serves_and_stops(server, &mut ana);
    }
}

#[test]
fn a_stderr_that_is_read_again_says_how_many_lines_were_dropped() {
    let fifo = Fifo::new();
    let mut server = logging_to(fifo.path().to_str().expect("a path"));
    flood(&server);
    let dropped = server.metric("log_lines_dropped_total");
    let lines = fifo.read();
    // The queue has room again when its last line before the gap is written.
    let mut next = 0;
    let mut read = Vec::new();
    eventually("the gap is reported", crate::support::DEADLINE, || {
        next += 1;
        let _ = server.get(&format!("/ws/after-{next}"));
        read.extend(lines.try_iter());
        read.iter().any(|line: &String| line.contains("dropped"))
    });
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit(STOP_WAIT).code(), Some(0));
    read.extend(lines.iter());
    assert_lines(&read.join("\n"));
    let reports: Vec<_> =
        read.iter().filter_map(|line| line.split_once("] ")?.1.strip_suffix(" log lines dropped")).collect();
    let reported: u64 = reports.iter().map(|count| count.parse::<u64>().expect("a count")).sum();
    assert!(reported >= dropped, "{reports:?} of {dropped}");
    assert!(read.last().is_some_and(|line| line.ends_with("] stopped")), "{:?}", read.last());
}

#[test]
fn a_full_or_closed_stderr_stops_nothing() {
    for path in ["/dev/full", "&-"] {
        let server = logging_to(path);
        let mut ana = Ws::join(&server, "/ws/tea/Ana");
        flood(&server);
        if path == "/dev/full" {
            eventually("lines are dropped", crate::support::DEADLINE, || {
                server.metric("log_lines_dropped_total") > 1_000
            });
        }
        assert_serves_and_stops(server, &mut ana);
    }
}

#[test]
fn a_stderr_whose_reader_is_gone_stops_nothing() {
    let fifo = Fifo::new();
    let server = logging_to(fifo.path().to_str().expect("a path"));
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    drop(fifo);
    flood(&server);
    assert!(server.metric("log_lines_dropped_total") > 0);
    assert_serves_and_stops(server, &mut ana);
}

/// Starts a server whose standard output and standard error are full.
fn starts_stalled(fifo: &Fifo, address: &str) -> Child {
    fifo.fill();
    let stream = || OpenOptions::new().write(true).open(fifo.path()).expect("the writing end");
    let mut command = Command::new(env!("CARGO_BIN_EXE_adda"));
    let command = clean(&mut command).args(["--listen", address]).stdin(Stdio::null());
    command.stdout(stream()).stderr(stream()).spawn().expect("a process")
}

#[track_caller]
fn wait_exit(mut child: Child) -> ExitStatus {
    let mut status = None;
    eventually("the process has ended", STOP_WAIT, || {
        status = child.try_wait().expect("our own child");
        status.is_some()
    });
    status.expect("a status")
}

#[test]
fn a_server_that_starts_with_stalled_streams_stops_on_sigterm() {
    let fifo = Fifo::new();
    let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
    let server = starts_stalled(&fifo, &address.to_string());
    eventually("it listens", crate::support::DEADLINE, || std::net::TcpStream::connect(address).is_ok());
    assert_eq!(http(address, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 200);
    let pid = i32::try_from(server.id()).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, Signal::TERM).expect("the server is alive");
    assert_eq!(wait_exit(server).code(), Some(0));
}

#[test]
fn a_failed_start_with_stalled_streams_ends() {
    let fifo = Fifo::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    assert_eq!(wait_exit(starts_stalled(&fifo, &address.to_string())).code(), Some(1));
}

/// Checks that each line has a level, a time in UTC and a text.
#[track_caller]
fn assert_lines(log: &str) {
    for line in log.lines() {
        let (level, rest) = line.split_at_checked(5).unwrap_or_default();
        let (time, text) = rest.strip_prefix(" [").and_then(|rest| rest.split_once("Z] ")).unwrap_or_default();
        let is_time = time.len() == 23 && time.chars().all(|c| c.is_ascii_digit() || "-T:.".contains(c));
        assert!(LEVELS.contains(&level) && is_time && !text.is_empty(), "{line:?}");
    }
}

#[test]
fn a_name_with_control_characters_stays_one_line() {
    let mut server = Server::with(&["--log", "debug"]);
    for target in ["/ws/tea/%0AERROR%1B%5B31m", "/ws/tea/\u{1b}[31m\u{85}x", "/ws/\u{202e}x"] {
        let _ = http(server.addr(), format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    }
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit(STOP_WAIT).code(), Some(0));
    let log = server.log();
    assert_lines(&log);
    assert!(log.contains("INFO  [") && log.contains("DEBUG ["), "{log}");
    assert!(!log.chars().any(|c| c.is_control() && c != '\n'), "{log:?}");
}

/// Runs one of the child tests below in a process of its own, as the log and the panic hook belong to a process.
fn in_its_own_process(test: &str, stderr: Stdio) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    let command = command.args(["--exact", &format!("logging::{test}"), "--nocapture"]);
    command.env(IS_CHILD, "1").stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn().expect("a process")
}

#[test]
fn child_panics() {
    if std::env::var_os(IS_CHILD).is_none() {
        return;
    }
    logging::start(log::LevelFilter::Off).expect("a log");
    let begun = Instant::now();
    let worker = thread::Builder::new().name("worker".into()).spawn(|| panic!("{}\n\u{1b}[31mred", "broken"));
    worker.expect("a thread").join().expect_err("a panic");
    assert!(begun.elapsed() < ANSWER_WAIT, "{:?}", begun.elapsed());
    log::logger().flush();
}

#[test]
fn child_fails() {
    if std::env::var_os(IS_CHILD).is_none() {
        return;
    }
    logging::start(log::LevelFilter::Info).expect("a log");
    let hub = thread::spawn(|| {
        let _guard = AbortOnPanic("hub");
        panic!("broken");
    });
    let _ = hub.join();
}

#[test]
fn a_panic_is_one_line_of_the_log() {
    let said = in_its_own_process("child_panics", Stdio::piped()).wait_with_output().expect("an output");
    let log = String::from_utf8(said.stderr).expect("text");
    assert!(said.status.success(), "{log}");
    assert_lines(&log);
    assert!(log.starts_with("ERROR [") && log.lines().count() == 1, "{log}");
    assert!(log.contains("thread `worker` panicked at ") && log.contains("logging.rs:"), "{log}");
    assert!(log.ends_with(": broken\\u{a}\\u{1b}[31mred\n"), "{log}");
}

#[test]
fn the_panic_of_an_essential_thread_is_logged_before_the_process_ends() {
    let said = in_its_own_process("child_fails", Stdio::piped()).wait_with_output().expect("an output");
    let log = String::from_utf8(said.stderr).expect("text");
    assert_eq!(said.status.code(), Some(1), "{log}");
    assert!(log.contains(": broken\n") && log.ends_with("the hub has failed; stopping\n"), "{log}");
}

#[test]
fn a_panic_does_not_wait_for_a_stalled_stderr() {
    let open = |path: &Path| -> io::Result<Stdio> { Ok(OpenOptions::new().write(true).open(path)?.into()) };
    for (test, code) in [("child_panics", 0), ("child_fails", 1)] {
        let fifo = Fifo::new();
        fifo.fill();
        let child = in_its_own_process(test, open(&fifo.path()).expect("the writing end"));
        assert_eq!(wait_exit(child).code(), Some(code), "{test}");
    }
}
