//! The log: one line per event on standard error, without characters that could act on a terminal.
//!
//! Runs on the thread that logs. A line may contain text of clients, so control characters are escaped. A closed or
//! full standard error loses lines and has no other effect.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use log::{LevelFilter, Log, Metadata, Record};

use crate::model::Timestamp;

struct Logger {
    level: LevelFilter,
}

/// Starts logging to standard error, down to `level`.
///
/// # Errors
/// If the process has a logger already.
pub fn start(level: LevelFilter) -> Result<(), log::SetLoggerError> {
    log::set_boxed_logger(Box::new(Logger { level }))?;
    log::set_max_level(level);
    Ok(())
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Errors that libraries log are returned to us as well, and we handle and log them.
        metadata.target().starts_with("adda") && metadata.level() <= self.level
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let text = line(record, &Timestamp::now());
            // One write per line, so that lines of two threads don't mix.
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

/// Appends a text. Characters that could act on a terminal, or change the order of the displayed text, are escaped.
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
    fn a_log_line_is_one_line_without_control_characters() {
        let now = Timestamp::at(0);
        let text = line(
            &Record::builder().args(format_args!("রহিম \x1b[31m\r\n\u{202E}x")).level(log::Level::Warn).build(),
            &now,
        );
        assert_eq!(text, "1970-01-01T00:00:00.000Z warn  রহিম \\u{1b}[31m\\u{d}\\u{a}\\u{202e}x\n");
    }
}
