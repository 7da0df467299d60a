//! The base of all tests: a server per test, clients that wait with a deadline, and no sleeps.

mod http;
mod operator;
mod people;
mod server;
mod ws;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Once;
use std::thread;
use std::time::{Duration, Instant};

pub use http::{Response, connect_from, exchange, get_from, http, read_response, upgrade_request};
pub use operator::{adda, adda_given, user_token};
pub use people::{Asked, People, request};
pub use server::{Server, binary_for_anybody, clean};
pub use ws::{Event, Ws, masked_frame};

/// Deadline of every expected event; long, because a passing test never waits for it.
pub const DEADLINE: Duration = Duration::from_secs(20);
/// Interval between two checks of a condition.
const POLL: Duration = Duration::from_millis(5);

/// Waits until `condition` holds; fails the test if it does not within `deadline`.
#[track_caller]
pub fn eventually(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + deadline;
    while !condition() {
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        thread::sleep(POLL);
    }
}

/// Runs a program, which must succeed; returns its output.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = output(command);
    let stdout = String::from_utf8_lossy(&stdout).into_owned();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?} ended with {status}\n{stdout}\n{stderr}");
    stdout
}

/// Runs a program to its end, with success or not.
#[track_caller]
pub fn output(command: &mut Command) -> Output {
    match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) => panic!("failed to run {command:?}: {error}"),
    }
}

/// The directory in which `tests/run` has installed the foreign clients: `ADDA_TEST_TOOLS`, or the default place.
pub fn test_tools() -> PathBuf {
    let tools = std::env::var_os("ADDA_TEST_TOOLS").map(PathBuf::from).unwrap_or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
        cache.unwrap_or_else(home).join("adda-tests")
    });
    let ready = tools.is_dir();
    assert!(ready, "no tools at {}: run tests/run once, it installs them", tools.display());
    tools
}

/// The code blocks of a language in a page of Markdown.
pub fn code_blocks(markdown: &str, language: &str) -> Vec<String> {
    let mut blocks: Vec<String> = Vec::new();
    let mut inside = None;
    for line in markdown.lines() {
        match (line.strip_prefix("```"), inside) {
            (Some(_), Some(_)) => inside = None,
            (Some(begun), None) => {
                inside = Some(begun == language);
                if begun == language {
                    blocks.push(String::new());
                }
            }
            (None, Some(true)) => *blocks.last_mut().expect("a block") += &format!("{line}\n"),
            _ => {}
        }
    }
    blocks
}

/// The checkout under test.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Raises the soft limit on descriptors of this process, for tests with many sockets.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        let _ = setrlimit(Resource::Nofile, limit);
    });
}
