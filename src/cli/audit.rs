//! `adda audit`: prints the audit log.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;

use super::Error;
use super::args::DatabaseFlag;
use super::output::{ListFormat, print_document, second};
use super::values::limit;
use crate::logging::push_harmless;
use crate::store::Offline;

#[derive(Debug, Clone, Args)]
pub struct Audit {
    #[command(flatten)]
    database: DatabaseFlag,

    /// Print at most this many entries; 0 prints all
    #[arg(long, value_name = "N", default_value = "100", value_parser = limit)]
    limit: u32,

    /// Print sentences (text) or one JSON object a line (json)
    #[arg(long, value_name = "FORMAT", default_value = "text", value_enum)]
    format: ListFormat,
}

/// Prints the latest entries, the newest first.
///
/// # Errors
/// [`Error`].
pub fn run(flags: &Audit) -> Result<ExitCode, Error> {
    let limit = if flags.limit == 0 { usize::MAX } else { flags.limit as usize };
    let mut text = String::new();
    for entry in Offline::open(flags.database.file()?)?.audit_entries(limit)? {
        match flags.format {
            ListFormat::Json => text.push_str(&serde_json::to_string(&entry).unwrap_or_default()),
            ListFormat::Text => {
                let _ = write!(text, "{}  ", second(entry.at.unix_ms));
                push_harmless(&mut text, &entry.to_string());
            }
        }
        text.push('\n');
    }
    print_document(&text)
}
