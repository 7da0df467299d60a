//! The log: one line per event on standard error, without characters that could act on a terminal.
//!
//! The thread that logs formats the text and queues it; it never waits and never panics. The thread `log` gives each
//! line to `simple_logger`. That blocks while standard error is not read, and panics if standard error can't be
//! written. Lines that find the queue full, or can't be written, are dropped and counted. The next line follows a line
//! with their number.

use std::any::Any;
use std::convert::Infallible;
use std::fmt::{self, Write as _};
use std::io;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::{self, ThreadId};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{Level, LevelFilter, Log, Metadata, Record};
use simple_logger::SimpleLogger;

use crate::limits::{LOG_FLUSH_WAIT, LOG_LINES_QUEUED_MAX, LOG_TEXT_BYTES_MAX, STACK_BYTES};
use crate::metrics::{Counter, LOG_LINES_DROPPED};
use crate::model::Timestamp;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The process has a logger already.
    #[error(transparent)]
    Taken(#[from] log::SetLoggerError),
    /// A thread can't be started.
    #[error(transparent)]
    Thread(#[from] io::Error),
}

/// Starts logging to standard error, down to `level`. Panics are logged as well, at every level.
///
/// `log::logger().flush()` writes the queued lines before the process ends.
///
/// # Errors
/// [`StartError`]; then nothing is logged.
pub fn start(level: LevelFilter) -> Result<(), StartError> {
    let (queue, entries) = bounded(LOG_LINES_QUEUED_MAX);
    let mut writer = Writer { sink: SimpleLogger::new(), unreported: 0, dropped: &LOG_LINES_DROPPED };
    let builder = thread::Builder::new().name("log".into()).stack_size(STACK_BYTES);
    // The thread ends with the process, as the logger has no end.
    let writer = builder.spawn(move || writer.run(&entries))?.thread().id();
    let logger = Arc::new(Logger { level, queue, unreported: AtomicU64::new(0), dropped: &LOG_LINES_DROPPED });
    log::set_boxed_logger(Box::new(Arc::clone(&logger)))?;
    log::set_max_level(level);
    log_panics(logger, writer);
    Ok(())
}

/// Replaces the standard panic hook, which would write to standard error and so might block the thread that panics.
fn log_panics(logger: Arc<Logger>, writer: ThreadId) {
    panic::set_hook(Box::new(move |panic| {
        let thread = thread::current();
        // `simple_logger` panics if standard error can't be written. The writer counts the line as dropped.
        if thread.id() == writer {
            return;
        }
        let (name, message) = (thread.name().unwrap_or("unnamed"), message_of(panic.payload()));
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        logger.push(Level::Error, format_args!("thread `{name}` panicked at {place}: {message}"));
        // The process ends with its main thread.
        if name == "main" {
            logger.flush();
        }
    }));
}

fn message_of(payload: &dyn Any) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("a value that is not text")
}

/// What the thread `log` receives.
struct Entry {
    /// Lines that were dropped since the entry before, as the queue was full.
    dropped_before: u64,
    item: Item,
}

enum Item {
    Line(Line),
    /// Its sender is dropped when everything before it is written.
    Flush(#[expect(dead_code, reason = "it is only dropped")] Sender<Infallible>),
}

struct Line {
    level: Level,
    /// The time of the event; the line may be written later.
    time: Timestamp,
    text: String,
}

/// The end of the queue that every thread uses.
struct Logger {
    level: LevelFilter,
    queue: Sender<Entry>,
    /// Dropped lines that no entry has reported yet.
    unreported: AtomicU64,
    dropped: &'static Counter,
}

impl Logger {
    /// Queues a line without waiting, or drops it if the queue is full.
    fn push(&self, level: Level, message: fmt::Arguments<'_>) {
        let dropped_before = self.unreported.swap(0, Relaxed);
        let entry = || {
            let line = Line { level, time: Timestamp::now(), text: text_of(message) };
            Entry { dropped_before, item: Item::Line(line) }
        };
        // A line that would be dropped is not formatted.
        if self.queue.is_full() || self.queue.try_send(entry()).is_err() {
            self.dropped.increment();
            self.unreported.fetch_add(dropped_before + 1, Relaxed);
        }
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Errors that libraries log are returned to us as well, and we handle and log them.
        metadata.target().starts_with("adda") && metadata.level() <= self.level
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.push(record.level(), *record.args());
        }
    }

    /// Waits until the queued lines are written, for [`LOG_FLUSH_WAIT`] at most.
    fn flush(&self) {
        let deadline = Instant::now() + LOG_FLUSH_WAIT;
        let (pending, written) = bounded(0);
        let entry = Entry { dropped_before: self.unreported.swap(0, Relaxed), item: Item::Flush(pending) };
        if self.queue.send_deadline(entry, deadline).is_ok() {
            // Returns when the writer drops the sender, or at the deadline.
            let _ = written.recv_deadline(deadline);
        }
    }
}

/// The end of the queue that the thread `log` uses.
struct Writer<S> {
    sink: S,
    /// Dropped lines that no line has reported yet.
    unreported: u64,
    dropped: &'static Counter,
}

impl<S: Log> Writer<S> {
    fn run(&mut self, entries: &Receiver<Entry>) {
        for Entry { dropped_before, item } in entries {
            self.unreported += dropped_before;
            let is_reported = self.report();
            if let Item::Line(line) = item
                && !(is_reported && self.write(&line))
            {
                self.dropped.increment();
                self.unreported += 1;
            }
        }
    }

    /// Writes how many lines were dropped, if any were. Returns whether there is nothing left to report.
    fn report(&mut self) -> bool {
        if self.unreported > 0 {
            let text = match self.unreported {
                1 => "1 log line dropped".to_owned(),
                count => format!("{count} log lines dropped"),
            };
            if self.write(&Line { level: Level::Warn, time: Timestamp::now(), text }) {
                self.unreported = 0;
            }
        }
        self.unreported == 0
    }

    /// Writes a line: `INFO  [2026-01-31T12:00:00.000Z] text`. Returns whether it could be written.
    ///
    /// The time is in the place of the target, because `simple_logger` itself would print the time of the write.
    fn write(&self, line: &Line) -> bool {
        let Line { level, time, text } = line;
        let time = time.to_string();
        let log = || {
            let args = format_args!("{text}");
            self.sink.log(&Record::builder().level(*level).target(&time).args(args).build());
        };
        catch_unwind(AssertUnwindSafe(log)).is_ok()
    }
}

/// The text of a line: escaped, and cut after [`LOG_TEXT_BYTES_MAX`] bytes.
fn text_of(message: fmt::Arguments<'_>) -> String {
    let mut text = Text(String::with_capacity(128));
    // An error means that the text is cut, or that a value can't be formatted; then the text before it is logged.
    let _ = text.write_fmt(message);
    text.0
}

struct Text(String);

impl fmt::Write for Text {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        for c in part.chars() {
            let length = self.0.len();
            push_escaped(&mut self.0, c);
            if self.0.len() > LOG_TEXT_BYTES_MAX {
                self.0.truncate(length);
                self.0.push('…');
                return Err(fmt::Error);
            }
        }
        Ok(())
    }
}

/// Appends a text. Characters that could act on a terminal, or change the order of the displayed text, are escaped.
pub fn push_harmless(line: &mut String, text: &str) {
    text.chars().for_each(|c| push_escaped(line, c));
}

fn push_escaped(line: &mut String, c: char) {
    if c.is_control() || matches!(c, '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}') {
        let _ = write!(line, "{}", c.escape_unicode());
    } else {
        line.push(c);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::thread::JoinHandle;
    use std::time::Duration;

    use super::*;

    /// Collects lines, each when the test permits it.
    #[derive(Clone)]
    struct Sink {
        permits: Receiver<Permit>,
        lines: Arc<Mutex<Vec<String>>>,
    }

    #[derive(PartialEq)]
    enum Permit {
        Write,
        /// As `simple_logger` does if standard error is closed.
        Panic,
    }

    impl Log for Sink {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &Record<'_>) {
            assert!(self.permits.recv() != Ok(Permit::Panic), "a closed standard error");
            let line = format!("{} {}", record.level(), record.args());
            self.lines.lock().unwrap().push(line);
        }

        fn flush(&self) {}
    }

    /// A logger whose sink waits for permits.
    struct Fixture {
        logger: Logger,
        permits: Sender<Permit>,
        lines: Arc<Mutex<Vec<String>>>,
        thread: JoinHandle<()>,
    }

    impl Fixture {
        fn new(capacity: usize) -> Self {
            let (queue, entries) = bounded(capacity);
            let (permits, permitted) = bounded(100);
            let lines = Arc::default();
            let dropped: &'static Counter = Box::leak(Box::default());
            let sink = Sink { permits: permitted, lines: Arc::clone(&lines) };
            let thread = thread::spawn(move || Writer { sink, unreported: 0, dropped }.run(&entries));
            let logger = Logger { level: LevelFilter::Info, queue, unreported: AtomicU64::new(0), dropped };
            Self { logger, permits, lines, thread }
        }

        /// Logs a line, and waits until the writer has taken it, so that the queue is empty.
        fn log_and_stall(&self, text: &str) {
            self.log(text);
            while !self.logger.queue.is_empty() {
                thread::yield_now();
            }
        }

        fn log(&self, text: &str) {
            self.logger.push(Level::Info, format_args!("{text}"));
        }

        fn permit(&self, permit: Permit) {
            self.permits.send(permit).unwrap();
        }

        /// Lets every line be written; returns the lines and the number of dropped ones.
        fn finish(self) -> (Vec<String>, u64) {
            let dropped = self.logger.dropped;
            drop(self.permits);
            self.logger.flush();
            drop(self.logger);
            self.thread.join().unwrap();
            (self.lines.lock().unwrap().clone(), dropped.get())
        }
    }

    #[test]
    fn a_text_is_one_line_without_control_characters() {
        let text = text_of(format_args!("রহিম \x1b[31m{}\u{202E}x", "\r\n"));
        assert_eq!(text, "রহিম \\u{1b}[31m\\u{d}\\u{a}\\u{202e}x");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        for (part, escaped) in [("a", "a"), ("র", "র"), ("\n", "\\u{a}")] {
            let whole = LOG_TEXT_BYTES_MAX / escaped.len();
            assert_eq!(text_of(format_args!("{}", part.repeat(whole))), escaped.repeat(whole));
            let cut = text_of(format_args!("{}{}", part.repeat(whole), part.repeat(1_000_000)));
            assert_eq!(cut, escaped.repeat(whole) + "…");
        }
    }

    #[test]
    fn a_value_that_cannot_be_formatted_ends_the_text() {
        struct Broken;
        impl fmt::Display for Broken {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                Err(fmt::Error)
            }
        }
        assert_eq!(text_of(format_args!("before {Broken} after")), "before ");
    }

    #[test]
    fn a_blocked_sink_drops_lines_and_reports_their_number_at_the_gap() {
        let fixture = Fixture::new(2);
        fixture.log_and_stall("1");
        let begun = Instant::now();
        for text in ["2", "3", "4", "5", "6"] {
            fixture.log(text);
        }
        assert!(begun.elapsed() < Duration::from_secs(1));
        assert_eq!(fixture.logger.dropped.get(), 3);
        for _ in 0..4 {
            fixture.permit(Permit::Write);
        }
        fixture.logger.flush();
        fixture.log("7");
        let (lines, dropped) = fixture.finish();
        assert_eq!(dropped, 3);
        assert_eq!(lines, ["INFO 1", "INFO 2", "INFO 3", "WARN 3 log lines dropped", "INFO 7"]);
    }

    #[test]
    fn a_panic_of_the_sink_drops_a_line_and_ends_nothing() {
        let fixture = Fixture::new(10);
        for permit in [Permit::Panic, Permit::Write, Permit::Write, Permit::Panic, Permit::Panic] {
            fixture.permit(permit);
        }
        for text in ["1", "2", "3", "4", "5"] {
            fixture.log(text);
        }
        let (lines, dropped) = fixture.finish();
        assert_eq!(dropped, 3);
        assert_eq!(lines, ["WARN 1 log line dropped", "INFO 2", "WARN 2 log lines dropped", "INFO 5"]);
    }

    #[test]
    fn a_flush_waits_for_a_blocked_sink_only_so_long() {
        for lines in [1, 4] {
            let fixture = Fixture::new(2);
            (0..lines).for_each(|_| fixture.log("x"));
            let begun = Instant::now();
            fixture.logger.flush();
            assert!((LOG_FLUSH_WAIT..10 * LOG_FLUSH_WAIT).contains(&begun.elapsed()), "{:?}", begun.elapsed());
            fixture.finish();
        }
    }

    #[test]
    fn only_our_own_events_of_the_level_are_logged() {
        let fixture = Fixture::new(10);
        for (target, level) in
            [("adda::hub", Level::Info), ("adda", Level::Error), ("adda", Level::Debug), ("tiny_http", Level::Error)]
        {
            let args = format_args!("{target} {level}");
            fixture.logger.log(&Record::builder().target(target).level(level).args(args).build());
        }
        assert_eq!(fixture.finish().0, ["INFO adda::hub INFO", "ERROR adda ERROR"]);
    }
}
