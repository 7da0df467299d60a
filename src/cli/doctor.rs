//! `adda doctor`: checks a database.

use std::io::{self, Write};
use std::path::Path;

use super::Error;
use crate::logging::push_harmless;
use crate::store::{Inspection, Offline};

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
