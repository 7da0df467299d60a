//! The commands that read a database: `adda export`, `adda backup` and `adda doctor`.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::logging::push_harmless;
use crate::model::reason::{Reason, Rejection};
use crate::model::{RoomId, Timestamp};
use crate::store::{Inspection, Message, Offline, Progress, StartError, ToolError};

use super::control_client::ControlError;

/// Time between two updates of the progress bar.
const BAR_EVERY: Duration = Duration::from_millis(100);
/// Width of the progress bar in characters.
const BAR_CHARS: u64 = 30;

/// The format of exported messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// The frame of each, as members got it, one JSON object a line.
    Ndjson,
    /// `[time] name: text`, for people.
    Text,
}

/// The parameters of an export.
#[derive(Debug, Clone)]
pub struct Export {
    /// The path of the database.
    pub data: PathBuf,
    /// Only messages of this room.
    pub room: Option<RoomId>,
    pub format: Format,
    /// Only messages from this time on, in milliseconds since 1970.
    pub since_ms: u64,
    /// The file to create; standard output if there is none.
    pub output: Option<PathBuf>,
}

/// Why a tool failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An error of the database.
    #[error(transparent)]
    Database(#[from] ToolError),
    /// An error of the database if the command itself opens it.
    #[error(transparent)]
    Store(#[from] StartError),
    /// An error of the server that has the database open.
    #[error(transparent)]
    Server(#[from] ControlError),
    /// The change was refused.
    #[error("{0}")]
    Rejected(Rejection),
    /// A name, a password or a token is refused; the text is for the operator.
    #[error("{0}")]
    Refused(String),
    /// The command line is invalid.
    #[error("{0}")]
    Usage(String),
    /// The output can't be written.
    #[error("failed to write `{}`: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl Error {
    /// The reason, if the change was refused.
    pub(super) fn reason(&self) -> Option<Reason> {
        match self {
            Self::Rejected(rejection) | Self::Server(ControlError::Refused(rejection)) => Some(rejection.reason),
            _ => None,
        }
    }
}

/// Writes messages, oldest first, a few at a time in memory. A reader that closes the pipe early (`| head`) is not an
/// error.
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
            // A deleted message has no text.
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
    // This drops the buffered rest, which the destructor of the writer would write otherwise.
    let _ = output.into_parts();
    written(result)
}

/// A message as a line for people, with its room if there may be several. Further lines of its text are indented, so
/// that no text can look like another message.
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

/// Copies a consistent snapshot of the database to a new file.
///
/// # Errors
/// [`Error`].
pub fn backup(data: &Path, target: &Path) -> Result<(), Error> {
    let mut bar = Bar::on_terminal("copying");
    let result = Offline::open(data).and_then(|database| database.copy(target, |progress| bar.tell(progress)));
    bar.end();
    Ok(result?)
}

/// Checks a database and prints the findings. Returns whether it is sound.
///
/// # Errors
/// [`Error`] if it can't be read.
pub fn doctor(data: &Path) -> Result<bool, Error> {
    let inspection = Offline::open(data)?.inspect()?;
    let mut text = String::new();
    for line in report(data, &inspection) {
        push_harmless(&mut text, &line);
        text.push('\n');
    }
    // If standard output is closed, the exit code still tells the result.
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

/// A progress bar on standard error; nothing is shown if that is not a terminal.
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
            // An error means that the terminal is gone.
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
    fn a_progress_bar_is_one_line_that_fills() {
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
    fn a_bar_without_progress_shows_nothing() {
        let mut bar = Bar { what: "copying", terminal: Some(Vec::new()), shown: None };
        bar.end();
        assert!(bar.terminal.unwrap().is_empty());
    }
}
