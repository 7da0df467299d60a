//! `adda export`: writes the messages of a database.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::Error;
use super::args::DatabaseFlag;
use super::output::{count, remark};
use super::progress::Bar;
use super::values::{room, since};
use crate::logging::push_harmless;
use crate::model::{RoomId, Timestamp};
use crate::store::{Message, Offline, ToolError, private_file};

/// The format of exported messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// The frame of each message, one JSON object a line
    Ndjson,
    /// `[time] name: text`
    Text,
}

#[derive(Debug, Clone, Args)]
pub struct Export {
    #[command(flatten)]
    database: DatabaseFlag,

    /// Export only this room
    #[arg(long, value_name = "ROOM", value_parser = room)]
    room: Option<RoomId>,

    /// Write JSON frames (ndjson) or readable lines (text)
    #[arg(long, value_name = "FORMAT", default_value = "ndjson", value_enum)]
    format: Format,

    /// Export messages since a date, a time or a time ago
    ///
    /// Such as 2026-01-31, 2026-01-31T18:00:00Z, or 7d for the last seven days.
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Timestamp>,

    /// New file to write; `-` is standard output
    #[arg(long, value_name = "FILE", default_value = "-", hide_default_value = true,
          value_hint = clap::ValueHint::FilePath)]
    output: PathBuf,
}

impl Export {
    /// The file to create; `None` for standard output.
    fn file(&self) -> Option<&Path> {
        (self.output.as_os_str() != "-").then_some(&*self.output)
    }
}

/// Writes messages, oldest first, a few at a time in memory. A reader that closes the pipe early (`| head`) is not an
/// error.
///
/// # Errors
/// [`Error`].
pub fn run(export: &Export) -> Result<ExitCode, Error> {
    let database = Offline::open(export.database.file()?)?;
    let path = export.file().map_or_else(|| "standard output".into(), Path::to_owned);
    let written = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|source| Error::Write { path: path.clone(), source }),
    };
    let output: Box<dyn Write> = match export.file() {
        None => Box::new(io::stdout().lock()),
        Some(path) => match private_file::create_new(path) {
            Ok(file) => Box::new(file),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(ToolError::Exists(path.to_owned()).into());
            }
            Err(error) => return written(Err(error)).map(|()| ExitCode::SUCCESS),
        },
    };
    let mut output = BufWriter::with_capacity(64 * 1024, output);
    let mut bar = Bar::on_terminal("exporting");
    let mut line = String::new();
    let mut json = Vec::new();
    let mut result = Ok(());
    let mut messages: u64 = 0;
    let since_ms = export.since.as_ref().map_or(0, |since| since.unix_ms);
    database.messages(export.room.as_ref(), since_ms, |message, progress| {
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
        messages += u64::from(export.format == Format::Ndjson || message.is_there());
        bar.tell(progress);
        result.is_ok()
    })?;
    bar.end();
    let result = result.and_then(|()| output.flush());
    // This drops the buffered rest, which the destructor of the writer would write otherwise.
    let _ = output.into_parts();
    written(result)?;
    if let Some(path) = export.file() {
        remark(&format!("exported {} to {}", count(messages, "message"), path.display()));
    }
    Ok(ExitCode::SUCCESS)
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
    push_harmless(line, message.username.as_str());
    line.push_str(": ");
    for (index, part) in message.content.split('\n').enumerate() {
        line.push_str(if index == 0 { "" } else { "\n    " });
        push_harmless(line, part.strip_suffix('\r').unwrap_or(part));
    }
    line.push('\n');
}
