//! `adda export`: writes the messages of a database.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use super::Error;
use super::progress::Bar;
use crate::logging::push_harmless;
use crate::model::{RoomId, Timestamp};
use crate::store::{Message, Offline, ToolError};

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
