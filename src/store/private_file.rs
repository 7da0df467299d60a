//! The modes of files with chats in them: readable and writable for their owner alone, whatever the umask says.

use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::process::geteuid;

/// Only the owner may read and write.
pub const MODE: u32 = 0o600;
const MODE_BITS: u32 = 0o7777;

/// Creates a file that must not exist.
///
/// # Errors
/// As for [`File::create_new`].
pub fn create_new(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).write(true).create_new(true).mode(MODE).open(path)?;
    // A umask may have taken bits from the owner, too.
    file.set_permissions(Permissions::from_mode(MODE))?;
    Ok(file)
}

/// Opens a file for writing, and creates it if it does not exist.
pub(super) fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).mode(MODE).open(path)
}

/// Takes the rights of others to an open file, if it belongs to this process's user.
pub(super) fn restrict(file: &File, path: &Path) -> io::Result<()> {
    restrict_by(path, &file.metadata()?, |mode| file.set_permissions(mode))
}

/// The same for a file by its path, if it exists.
pub(super) fn restrict_path(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => restrict_by(path, &found, |mode| fs::set_permissions(path, mode)),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn restrict_by(path: &Path, found: &Metadata, set: impl FnOnce(Permissions) -> io::Result<()>) -> io::Result<()> {
    let mode = found.mode() & MODE_BITS;
    let is_wider = mode & !MODE != 0;
    if mode == MODE {
        return Ok(());
    }
    if found.uid() != geteuid().as_raw() {
        if is_wider {
            log::warn!("`{}` has mode {mode:o} and belongs to user {}; left as it is", path.display(), found.uid());
        }
        return Ok(());
    }
    set(Permissions::from_mode(MODE))?;
    // A file without rights of others has just been created, under a umask that takes rights of the owner.
    if is_wider {
        log::warn!(
            "`{}` had mode {mode:o}; changed it to {MODE:o}, so that only its owner can read it",
            path.display()
        );
    }
    Ok(())
}
