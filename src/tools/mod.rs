//! The tools: what `adda export`, `adda backup`, `adda doctor`, `adda user` and `adda token` do and say. Each is a process
//! of its own that has the database, so the server may be running meanwhile.

mod ask;
pub mod control_client;
pub mod people;
mod propose;

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::logging::push_harmless;
use crate::model::reason::{Reason, Rejection};
use crate::model::{RoomId, Timestamp};
use crate::store::{Inspection, Message, Offline, Progress, StartError, ToolError};
use control_client::ControlError;

/// From one look of the progress bar to the next.
const BAR_EVERY: Duration = Duration::from_millis(100);
/// Characters of its bar.
const BAR_CHARS: u64 = 30;

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// The frame of each, as members got it, one JSON object a line.
    Ndjson,
    /// `[time] name: text`, for people.
    Text,
}

/// What to export.
#[derive(Debug, Clone)]
pub struct Export {
    /// The database.
    pub data: PathBuf,
    /// Only this room.
    pub room: Option<RoomId>,
    /// As what.
    pub format: Format,
    /// Only from this moment on, in milliseconds since 1970.
    pub since_ms: u64,
    /// To which new file; standard output where there is none.
    pub output: Option<PathBuf>,
}

/// Why a tool has failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error(transparent)]
    Database(#[from] ToolError),
    /// The database, where the command itself has to open it.
    #[error(transparent)]
    Store(#[from] StartError),
    /// The server that has the database.
    #[error(transparent)]
    Server(#[from] ControlError),
    /// The change is refused.
    #[error("{0}")]
    Rejected(Rejection),
    /// A name, a password or a token: what the operator is told of it.
    #[error("{0}")]
    Refused(String),
    /// The command itself makes no sense.
    #[error("{0}")]
    Usage(String),
    /// What is written.
    #[error("failed to write `{}`: {source}", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// Why a change is refused, where that is it.
    fn reason(&self) -> Option<Reason> {
        match self {
            Self::Rejected(rejection) | Self::Server(ControlError::Refused(rejection)) => Some(rejection.reason),
            _ => None,
        }
    }
}

/// Writes messages, oldest first, with memory for some of them only. A reader that has seen enough (`| head`) is no
/// failure.
///
/// # Errors
/// [`Error`].
pub fn export(export: &Export) -> Result<(), Error> {
    let database = Offline::open(&export.data)?;
    let path = export.output.clone().unwrap_or_else(|| "standard output".into());
    let written = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|source| Error::Write { path: path.clone(), source }),
    };
    let output: Box<dyn Write> = match &export.output {
        None => Box::new(io::stdout().lock()),
        Some(path) => match File::options().write(true).create_new(true).open(path) {
            Ok(file) => Box::new(file),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(ToolError::Exists(path.clone()).into());
            }
            Err(error) => return written(Err(error)),
        },
    };
    let mut output = BufWriter::with_capacity(64 * 1024, output);
    let mut bar = Bar::on_terminal("exporting");
    let mut line = String::new();
    let mut json = Vec::new();
    let mut result = Ok(());
    database.messages(export.room.as_ref(), export.since_ms, |message, progress| {
        result = match export.format {
            Format::Ndjson => {
                let frame = message.stored(false, &mut json);
                output.write_all(&frame.json).and_then(|()| output.write_all(b"\n"))
            }
            // What was taken back says nothing.
            Format::Text if !message.is_there() => Ok(()),
            Format::Text => {
                text_line(&mut line, message, export.room.is_none());
                output.write_all(line.as_bytes())
            }
        };
        bar.tell(progress);
        result.is_ok()
    })?;
    bar.end();
    let result = result.and_then(|()| output.flush());
    // What was not written is not written at the end of this value either.
    let _ = output.into_parts();
    written(result)
}

/// A message as a line for people, with its room where there may be several. A line that the author broke goes on
/// behind spaces, so no text can look like another's message.
fn text_line(line: &mut String, message: &Message, names_room: bool) {
    line.clear();
    line.push_str(&format!("[{}] ", Timestamp::at(message.at_ms)));
    if names_room {
        push_harmless(line, message.room.as_str());
        line.push_str(" / ");
    }
    push_harmless(line, message.author.username.as_str());
    line.push_str(": ");
    for (index, part) in message.content.split('\n').enumerate() {
        line.push_str(if index == 0 { "" } else { "\n    " });
        push_harmless(line, part.strip_suffix('\r').unwrap_or(part));
    }
    line.push('\n');
}

/// Copies the database of one moment to a new file.
///
/// # Errors
/// [`Error`].
pub fn backup(data: &Path, target: &Path) -> Result<(), Error> {
    let mut bar = Bar::on_terminal("copying");
    let result = Offline::open(data).and_then(|database| database.copy(target, |progress| bar.tell(progress)));
    bar.end();
    Ok(result?)
}

/// Looks at a database and says what it finds. Whether all is well.
///
/// # Errors
/// [`Error`], where it can't be read.
pub fn doctor(data: &Path) -> Result<bool, Error> {
    let inspection = Offline::open(data)?.inspect()?;
    let mut text = String::new();
    for line in report(data, &inspection) {
        push_harmless(&mut text, &line);
        text.push('\n');
    }
    // Where standard output is closed, the exit code says it.
    let _ = io::stdout().write_all(text.as_bytes());
    Ok(inspection.findings.is_empty())
}

fn report(data: &Path, inspection: &Inspection) -> Vec<String> {
    let Inspection { findings, schema, rooms, messages, guests, accounts, bytes } = inspection;
    let kib = bytes / 1024;
    let path = data.display();
    let mut lines = vec![format!(
        "{path}: schema {schema}, {rooms} rooms, {messages} messages, {accounts} accounts, {guests} guests, {kib} KiB"
    )];
    lines.extend(findings.iter().cloned());
    lines.push(match findings.len() {
        0 => "all is well".to_owned(),
        count => format!("{count} findings: this database is not sound; go back to a backup"),
    });
    lines
}

/// A line on standard error that shows how far a tool has come; nothing where that is no terminal.
struct Bar<W: Write> {
    what: &'static str,
    terminal: Option<W>,
    shown: Option<Instant>,
}

impl Bar<io::Stderr> {
    fn on_terminal(what: &'static str) -> Self {
        let stderr = io::stderr();
        Self { what, terminal: stderr.is_terminal().then_some(stderr), shown: None }
    }
}

impl<W: Write> Bar<W> {
    fn tell(&mut self, progress: Progress) {
        let is_time = self.shown.is_none_or(|shown| shown.elapsed() >= BAR_EVERY) || progress.done == progress.whole;
        if let Some(terminal) = &mut self.terminal
            && is_time
        {
            let whole = progress.whole.max(1);
            let full = progress.done.min(whole) * BAR_CHARS / whole;
            let bar: String = (0..BAR_CHARS).map(|at| if at < full { '#' } else { '.' }).collect();
            let percent = progress.done.min(whole) * 100 / whole;
            // A terminal that is gone sees no bar.
            let _ = write!(terminal, "\r{} [{bar}] {percent:3} %", self.what).and_then(|()| terminal.flush());
            self.shown = Some(Instant::now());
        }
    }

    fn end(&mut self) {
        if let Some(terminal) = &mut self.terminal
            && self.shown.is_some()
        {
            let _ = writeln!(terminal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_one_line_that_fills() {
        let mut bar = Bar { what: "copying", terminal: Some(Vec::new()), shown: None };
        bar.tell(Progress { done: 1, whole: 4 });
        bar.tell(Progress { done: 4, whole: 4 });
        bar.end();
        let text = String::from_utf8(bar.terminal.unwrap()).unwrap();
        let lines: Vec<&str> = text.split('\r').collect();
        assert_eq!(lines[1], "copying [#######.......................]  25 %");
        assert_eq!(lines[2], "copying [##############################] 100 %\n");
    }

    #[test]
    fn a_bar_of_nothing_is_nothing() {
        let mut bar = Bar { what: "copying", terminal: Some(Vec::new()), shown: None };
        bar.end();
        assert!(bar.terminal.unwrap().is_empty());
    }
}
