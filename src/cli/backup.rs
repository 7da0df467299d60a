//! `adda backup`: copies a database.

use std::path::Path;

use super::Error;
use super::progress::Bar;
use crate::store::Offline;

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
