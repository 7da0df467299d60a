//! `adda backup`: copies a database.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::Error;
use super::args::DatabaseFlag;
use super::output::{remark, size};
use super::progress::Bar;
use crate::store::Offline;

#[derive(Debug, Clone, Args)]
pub struct Backup {
    #[command(flatten)]
    database: DatabaseFlag,

    /// New file for the copy; must not exist
    #[arg(value_name = "TARGET", value_hint = clap::ValueHint::FilePath)]
    target: PathBuf,
}

/// Copies a consistent snapshot of the database to a new file, and checks the copy.
///
/// # Errors
/// [`Error`].
pub fn run(flags: &Backup) -> Result<ExitCode, Error> {
    let (data, target) = (flags.database.file()?, flags.target.as_path());
    let mut bar = Bar::on_terminal("copying");
    let result = Offline::open(data).and_then(|database| database.copy(target, |progress| bar.tell(progress)));
    bar.end();
    result?;
    let copied = target.metadata().map_or_else(|_| "the database".to_owned(), |file| size(file.len()));
    remark(&format!("copied {copied} to {}, checked", target.display()));
    Ok(ExitCode::SUCCESS)
}
