//! The log: a line per event on standard error, with nothing in it that could act on a terminal.
//!
//! What peers send may stand in a line, so control characters are escaped; a closed or full standard error
//! loses lines, and nothing else.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use log::{LevelFilter, Log, Metadata, Record};

use crate::model::Timestamp;

struct Logger {
    level: LevelFilter,
}

/// Sends the log to standard error from here on, down to `level`.
///
/// # Errors
/// Where the process has a log already.
pub fn start(level: LevelFilter) -> Result<(), log::SetLoggerError> {
    log::set_boxed_logger(Box::new(Logger { level }))?;
    log::set_max_level(level);
    Ok(())
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Libraries log what their callers, we, handle and tell.
        metadata.target().starts_with("adda") && metadata.level() <= self.level
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let text = line(record, &Timestamp::now());
            // One write, so that lines of two threads don't mix.
            let _ = io::stderr().lock().write_all(text.as_bytes());
        }
    }

    fn flush(&self) {}
}

fn line(record: &Record<'_>, now: &Timestamp) -> String {
    let mut text = String::with_capacity(128);
    let _ = write!(text, "{now} {:5} ", record.level().as_str().to_ascii_lowercase());
    let message = record.args().to_string();
    push_harmless(&mut text, &message);
    text.push('\n');
    text
}

/// Adds a text with all that could act on a terminal, or on the order of what is read, escaped.
pub fn push_harmless(line: &mut String, text: &str) {
    for c in text.chars() {
        if c.is_control() || matches!(c, '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}') {
            let _ = write!(line, "{}", c.escape_unicode());
        } else {
            line.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_and_harmless() {
        let now = Timestamp::at(0);
        let text = line(
            &Record::builder().args(format_args!("রহিম \x1b[31m\r\n\u{202E}x")).level(log::Level::Warn).build(),
            &now,
        );
        assert_eq!(text, "1970-01-01T00:00:00.000Z warn  রহিম \\u{1b}[31m\\u{d}\\u{a}\\u{202e}x\n");
    }
}
