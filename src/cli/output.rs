//! What a command prints: results to standard output, remarks and errors to standard error.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;

use anstream::{AutoStream, ColorChoice};

use super::Error;
use crate::limits::LOG_FLUSH_WAIT;
use crate::logging::push_harmless;
use crate::model::Timestamp;

const BOLD_RED: &str = "\x1b[1;31m";
const RESET: &str = "\x1b[0m";

/// The format of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ListFormat {
    /// In columns
    Text,
    /// One JSON object a line
    Json,
}

/// A time, to the second.
pub fn second(ms: u64) -> String {
    Timestamp::at(ms / 1_000 * 1_000).to_string().replace(".000", "")
}

/// A number and its noun: `1 account`, `2 accounts`.
pub fn count(number: impl TryInto<u64>, noun: &str) -> String {
    let number = number.try_into().unwrap_or(0);
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// A number of bytes, in the largest fitting unit: `15.8 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let Some((unit, scale)) = UNITS.iter().find(|(_, scale)| bytes >= *scale) else {
        return format!("{bytes} B");
    };
    let tenths = u128::from(bytes) * 10 / u128::from(*scale);
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// Prints a sentence on standard output.
pub fn say(sentence: &str) {
    // A closed standard output does not undo the change.
    let _ = print(&line(sentence));
}

/// Prints a sentence on standard error, where standard output has the result.
pub fn remark(sentence: &str) {
    // If standard error is closed, the sentence is lost.
    let _ = io::stderr().write_all(line(sentence).as_bytes());
}

pub fn warn(sentence: &str) {
    remark(&format!("adda: warning: {sentence}"));
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
#[must_use]
pub fn fail(error: &Error) -> ExitCode {
    let is_coloured = AutoStream::choice(&io::stderr()) != ColorChoice::Never;
    let (begin, end) = if is_coloured { (BOLD_RED, RESET) } else { ("", "") };
    let text = format!("{begin}adda:{end} {}", line(&error.to_string()));
    // If standard error is closed, the sentence is lost; the exit code is still right.
    write_briefly(move || drop(io::stderr().write_all(text.as_bytes())));
    ExitCode::from(error.exit_code())
}

/// Prints a text on standard output.
///
/// # Errors
/// [`Error::Write`].
pub fn print(text: &str) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|source| Error::Write { path: "standard output".into(), source })
}

/// Prints a document, all that a command is for. A reader that closes the pipe early (`| head`) is not an error.
///
/// # Errors
/// [`Error::Write`].
pub fn print_document(text: &str) -> Result<ExitCode, Error> {
    match print(text) {
        Err(Error::Write { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => {}
        result => result?,
    }
    Ok(ExitCode::SUCCESS)
}

fn line(sentence: &str) -> String {
    let mut line = String::with_capacity(sentence.len() + 1);
    push_harmless(&mut line, sentence);
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_to_the_second() {
        assert_eq!(second(1_700_000_000_999), "2023-11-14T22:13:20Z");
    }

    #[test]
    fn numbers_have_nouns_and_units() {
        for (number, text) in [(0, "0 tokens"), (1, "1 token"), (2, "2 tokens")] {
            assert_eq!(count(number, "token"), text);
        }
        for (bytes, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (16_567_501, "15.8 MiB"),
            (1_048_575, "1023.9 KiB"),
            (1 << 31, "2.0 GiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
