//! What a command prints: results to standard output, remarks to standard error.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;

use super::Error;
use crate::limits::LOG_FLUSH_WAIT;
use crate::logging::push_harmless;
use crate::model::Timestamp;

/// The exit code for invalid flags or an invalid environment.
pub const EXIT_USAGE: u8 = 2;

/// How a running server applies the changes.
pub const HEEDED: &str = "a running server heeds it within a second, on open connections too";

/// The format of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ListFormat {
    /// In columns, for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A time, to the second.
pub fn second(ms: u64) -> String {
    Timestamp::at(ms / 1_000 * 1_000).to_string().replace(".000", "")
}

/// Prints a sentence on standard output.
pub fn say(sentence: &str) -> Result<(), Error> {
    let mut line = String::new();
    push_harmless(&mut line, sentence);
    line.push('\n');
    // A closed standard output does not undo the change.
    let _ = print(&line);
    Ok(())
}

/// Prints a sentence on standard error; it is lost if that is closed.
pub fn tell(sentence: &str) {
    let mut line = String::from("adda: ");
    push_harmless(&mut line, sentence);
    line.push('\n');
    let _ = io::stderr().write_all(line.as_bytes());
}

pub fn print(text: &str) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|source| Error::Write { path: "standard output".into(), source })
}

/// Writes to a standard stream on a thread of its own, and waits for at most [`LOG_FLUSH_WAIT`]. A terminal that is
/// stopped (Ctrl-S) or a full pipe blocks the write, and must not block the thread that waits for the signals.
pub fn write_briefly(write: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel::<()>();
    let output = move || {
        write();
        drop(done);
    };
    match thread::Builder::new().name("output".into()).spawn(output) {
        // Returns when `done` is dropped, or after that time.
        Ok(_) => drop(ended.recv_timeout(LOG_FLUSH_WAIT)),
        Err(error) => log::warn!("failed to start a thread for the output: {error}"),
    }
}

/// Prints an error, and returns its exit code.
pub fn fail(sentence: &str, code: u8) -> ExitCode {
    // If standard error is closed the sentence is lost; the exit code is still right.
    let _ = writeln!(io::stderr(), "adda: {sentence}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_to_the_second() {
        assert_eq!(second(1_700_000_000_999), "2023-11-14T22:13:20Z");
    }
}
