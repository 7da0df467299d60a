//! `adda doctor`: checks a database.

use std::path::Path;
use std::process::ExitCode;

use super::Error;
use super::args::DatabaseFlag;
use super::output::{count, print};
use crate::logging::push_harmless;
use crate::store::{Inspection, Offline};

/// Checks a database and prints the findings. The exit code says whether it is sound.
///
/// # Errors
/// [`Error`] if it can't be read.
pub fn run(flags: &DatabaseFlag) -> Result<ExitCode, Error> {
    let data = flags.file()?;
    let inspection = Offline::open(data)?.inspect()?;
    let mut text = String::new();
    for line in report(data, &inspection) {
        push_harmless(&mut text, &line);
        text.push('\n');
    }
    // If standard output is closed, the exit code still tells the result.
    let _ = print(&text);
    Ok(if inspection.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report(data: &Path, inspection: &Inspection) -> Vec<String> {
    let Inspection { findings, schema, rooms, messages, guests, accounts, bytes } = inspection;
    let (rooms, messages) = (count(*rooms, "room"), count(*messages, "message"));
    let (accounts, guests) = (count(*accounts, "account"), count(*guests, "guest"));
    let (path, kib) = (data.display(), bytes / 1024);
    let mut lines = vec![format!("{path}: schema {schema}, {rooms}, {messages}, {accounts}, {guests}, {kib} KiB")];
    lines.extend(findings.iter().cloned());
    lines.push(match findings.len() {
        0 => "all is well".to_owned(),
        found => format!("{}: the database is damaged; restore a backup", count(found, "problem")),
    });
    lines
}
