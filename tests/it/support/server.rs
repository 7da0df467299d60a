//! A server process for one test, observed from outside.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{DEADLINE, Response, eventually, http};

/// A running `adda`. Dropping it kills the process, and prints its log if the test fails.
pub struct Server {
    child: Child,
    address: SocketAddr,
    output: Receiver<String>,
    dir: TempDir,
    ended: Option<ExitStatus>,
}

impl Server {
    /// Starts a server without flags, on a free port.
    #[track_caller]
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts a server with more flags.
    #[track_caller]
    pub fn with(flags: &[&str]) -> Self {
        Self::under(&[], flags)
    }

    /// Starts a server without rate limits.
    #[track_caller]
    pub fn unhurried() -> Self {
        Self::with(&["--rate", "0"])
    }

    /// Starts a server by another program (`prlimit`, `setpriv`, `sh -c`), which must `exec` it.
    #[track_caller]
    pub fn under(wrapper: &[&str], flags: &[&str]) -> Self {
        let binary = env!("CARGO_BIN_EXE_adda");
        let mut command = match wrapper {
            [] => Command::new(binary),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(binary);
                command
            }
        };
        command.args(["--listen", "127.0.0.1:0"]).args(flags);
        Self::spawn(command)
    }

    /// Starts `command`, and waits until it prints its address.
    #[track_caller]
    pub fn spawn(command: Command) -> Self {
        let shown = format!("{command:?}");
        let (mut server, first) = Self::launch(command);
        match server.learn_address(first.as_deref()) {
            true => server,
            false => panic!("{shown} said {first:?} and not where it listens"),
        }
    }

    /// Starts `command`, which may end before it listens; then the error is its exit status.
    #[track_caller]
    pub fn try_spawn(command: Command) -> Result<Self, ExitStatus> {
        let (mut server, first) = Self::launch(command);
        match server.learn_address(first.as_deref()) {
            true => Ok(server),
            false => Err(server.wait_exit(DEADLINE)),
        }
    }

    /// Starts `command`, and reads the first line of its stdout, if there is one.
    #[track_caller]
    fn launch(mut command: Command) -> (Self, Option<String>) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let log = File::create(dir.path().join("log")).expect("a log file");
        let child = clean(&mut command).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) => panic!("failed to start {command:?}: {error}"),
        };
        let stdout = child.stdout.take().expect("a piped stdout");
        let (lines, output) = unbounded();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    break;
                }
            }
        });
        let server = Self { child, address: SocketAddr::from(([0, 0, 0, 0], 0)), output, dir, ended: None };
        let first = server.output.recv_timeout(DEADLINE).ok();
        (server, first)
    }

    fn learn_address(&mut self, first_line: Option<&str>) -> bool {
        let address = first_line.and_then(|line| line.strip_prefix("listening on http://"));
        let address = address.and_then(|address| address.parse().ok());
        self.address = address.unwrap_or(self.address);
        address.is_some()
    }

    /// The address of the server.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// The process id of the server.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The log so far. A thread of the server writes it, so the line of an event may come later than the response.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Waits until `condition` holds for the log, and returns the log.
    #[track_caller]
    pub fn wait_for_log(&self, what: &str, condition: impl Fn(&str) -> bool) -> String {
        let mut log = String::new();
        eventually(&format!("{what} in the log"), DEADLINE, || {
            log = self.log();
            condition(&log)
        });
        log
    }

    /// Stops the server, and returns the whole log.
    #[track_caller]
    pub fn whole_log(&mut self) -> String {
        self.signal(Signal::TERM);
        assert_eq!(self.wait_exit(DEADLINE).code(), Some(0));
        self.log()
    }

    /// The next line of stdout.
    #[track_caller]
    pub fn next_line(&self) -> String {
        self.output.recv_timeout(DEADLINE).expect("another line of stdout")
    }

    /// The lines of stdout after the first, to the end; the process must have ended.
    pub fn rest_of_stdout(&self) -> Vec<String> {
        self.output.iter().collect()
    }

    /// Resident memory in KiB.
    #[track_caller]
    pub fn rss_kib(&self) -> u64 {
        self.status_field("VmRSS:")
    }

    /// The number of threads.
    #[track_caller]
    pub fn threads(&self) -> u64 {
        self.status_field("Threads:")
    }

    /// The number of open descriptors.
    #[track_caller]
    pub fn fds(&self) -> usize {
        let dir = format!("/proc/{}/fd", self.pid());
        fs::read_dir(dir).expect("the server is alive").count()
    }

    #[track_caller]
    fn status_field(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the server is alive");
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .unwrap_or_else(|| panic!("no {name} in\n{status}"))
    }

    /// A metric by its name behind `adda_`, with its labels if it has any.
    #[track_caller]
    pub fn metric(&self, name: &str) -> u64 {
        let response = self.get("/metrics");
        let text = response.text();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("adda_{name} ")));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no metric {name} in\n{text}"))
    }

    /// A plain GET.
    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        http(self.address, format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    }

    /// Waits until a metric has this value.
    #[track_caller]
    pub fn wait_for_metric(&self, name: &str, value: u64) {
        eventually(&format!("{name} = {value}"), DEADLINE, || self.metric(name) == value);
    }

    /// Waits until a metric has at least this value.
    #[track_caller]
    pub fn wait_for_metric_over(&self, name: &str, value: u64) {
        eventually(&format!("{name} >= {value}"), DEADLINE, || self.metric(name) >= value);
    }

    /// Sends a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id"), signal).expect("the server is alive");
    }

    /// Waits for the end of the process.
    #[track_caller]
    pub fn wait_exit(&mut self, deadline: Duration) -> ExitStatus {
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = self.ended.or(self.child.try_wait().expect("our own child")) {
                self.ended = Some(status);
                return status;
            }
            assert!(Instant::now() < end, "the server still runs after {deadline:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Fails the test if the process has ended.
    #[track_caller]
    pub fn assert_alive(&mut self) {
        let status = self.child.try_wait().expect("our own child");
        assert!(status.is_none(), "the server ended with {status:?}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = self.log();
            let skipped = log.lines().count().saturating_sub(60);
            let shown: Vec<&str> = log.lines().skip(skipped).collect();
            eprintln!("--- the server's log ({skipped} lines before)\n{}\n---", shown.join("\n"));
        }
    }
}

/// What a program under test gets of the environment around the test.
const INHERITED: [&str; 6] = ["ADDA_TEST_TOOLS", "HOME", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "XDG_CACHE_HOME"];

/// Gives a command no more of the environment around the test than `INHERITED`: `CI`, `NO_COLOR` or `ADDA_LISTEN`
/// would change what it does.
pub fn clean(command: &mut Command) -> &mut Command {
    let set: Vec<_> = command.get_envs().map(|(name, _)| name.to_owned()).collect();
    for (name, _) in std::env::vars_os() {
        if !set.contains(&name) && !INHERITED.iter().any(|inherited| *inherited == name) {
            command.env_remove(name);
        }
    }
    // A test sets `--data` if it needs a file, and `--lease` if lost connections should keep their membership.
    command.env("ADDA_DATA", ":memory:").env("ADDA_LEASE", "0")
}

/// A copy of the binary that a user without access to the checkout can run.
pub fn binary_for_anybody(dir: &Path) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let copy = dir.join("adda");
    fs::copy(env!("CARGO_BIN_EXE_adda"), &copy).expect("a copy of the binary");
    for path in [dir, &copy] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("its mode");
    }
    copy
}
