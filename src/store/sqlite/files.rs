//! Watches the files of an open database: whether they are still those at its path, with the contents that SQLite gave
//! them.
//!
//! SQLite does not notice that a file was removed, replaced or truncated. It would go on writing to a file without a
//! name, or to a damaged one, and its messages would be acknowledged and lost.
//!
//! In WAL mode only a checkpoint writes to the database file. All checkpoints of this process pass through
//! [`Files::checkpoint`]. So the file changes between two of them only if another program has changed it.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, TryLockError};

use super::super::locked;
use super::schema::{PAGE_BYTES, beside};
use super::{Connection, Fault};

/// The header with which every database begins that is not empty.
pub const HEADER_BYTES: usize = 100;
/// The first number of a WAL, but for its last bit (SQLite's file format, section 4.1).
const WAL_MAGIC: u32 = 0x377f_0682;
/// The header of the WAL, and that of each of its frames (SQLite's file format, section 4.1).
const WAL_HEADER_BYTES: u64 = 32;
const WAL_FRAME_HEADER_BYTES: u64 = 24;
/// A WAL may restart and be truncated between two readings of it. So they are repeated.
const WAL_READINGS: usize = 3;
/// Pages of each of the two parts of a sample.
const SAMPLE_PAGES: u64 = 8;

/// Why nothing may be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// There is no file at the path.
    Missing(Part),
    /// Another file is at the path.
    Replaced(Part),
    /// Another program has written to the file, or truncated it. This never ends while the process runs.
    Changed(Part),
}

/// A file of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Database,
    Wal,
    /// The index of the WAL.
    Shm,
}

impl Part {
    fn suffix(self) -> &'static str {
        match self {
            Self::Database => "",
            Self::Wal => "-wal",
            Self::Shm => "-shm",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Database => "the database file",
            Self::Wal => "the WAL of the database",
            Self::Shm => "the WAL index of the database",
        })
    }
}

/// The end of a sentence.
impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(part) => write!(f, "{part} was removed or moved"),
            Self::Replaced(part) => write!(f, "{part} was replaced by another file"),
            Self::Changed(part) => write!(f, "{part} was changed by another program"),
        }
    }
}

/// The device and inode of a file.
type Identity = (u64, u64);

fn identity(file: &Metadata) -> Identity {
    (file.dev(), file.ino())
}

/// By what a change of the database file is noticed.
#[derive(Debug)]
struct Content {
    header: [u8; HEADER_BYTES],
    bytes: u64,
    /// The time of the last write, in seconds and nanoseconds.
    modified: (i64, i64),
    /// The digest of some pages. SQLite does not change the header with every change in WAL mode.
    sample: u64,
}

impl Content {
    fn read(database: &File) -> io::Result<Self> {
        let (header, found) = (header(database)?, database.metadata()?);
        let (bytes, modified) = (found.len(), (found.mtime(), found.mtime_nsec()));
        Ok(Self { header, bytes, modified, sample: sample(database, bytes)? })
    }

    /// Whether the file still has this content. A program that has only set the time of the last write has changed
    /// nothing.
    fn is_in(&self, database: &File) -> io::Result<bool> {
        let found = database.metadata()?;
        Ok(header(database)? == self.header
            && found.len() == self.bytes
            && ((found.mtime(), found.mtime_nsec()) == self.modified || sample(database, self.bytes)? == self.sample))
    }
}

fn header(database: &File) -> io::Result<[u8; HEADER_BYTES]> {
    let mut header = [0; HEADER_BYTES];
    database.read_exact_at(&mut header, 0)?;
    Ok(header)
}

/// The digest of pages from all parts of the file, and of the last pages, which have the newest rows.
fn sample(database: &File, bytes: u64) -> io::Result<u64> {
    let pages = bytes / PAGE_BYTES;
    let spread = (0..SAMPLE_PAGES).map(|part| pages * part / SAMPLE_PAGES);
    let last = pages.saturating_sub(SAMPLE_PAGES)..pages;
    let mut digest = DefaultHasher::new();
    let mut page = [0; PAGE_BYTES as usize];
    for number in spread.chain(last) {
        database.read_exact_at(&mut page, number * PAGE_BYTES)?;
        digest.write(&page);
    }
    Ok(digest.finish())
}

#[derive(Debug)]
pub struct Files {
    /// The files as they were opened, with the paths by which they are found. That of the database is as the operator
    /// gave it.
    opened: Vec<(Part, PathBuf, Identity)>,
    /// The content of the database after the last checkpoint. The lock is held during a checkpoint.
    content: Mutex<Option<Content>>,
    loss: Mutex<Option<Loss>>,
}

impl Files {
    /// The files of a database that this process has just opened. `real_path` has no symbolic link.
    pub fn new(database: &File, path: &Path, real_path: &Path) -> io::Result<Self> {
        let mut opened = vec![(Part::Database, path.to_owned(), identity(&database.metadata()?))];
        for part in [Part::Wal, Part::Shm] {
            let path = beside(real_path, part.suffix());
            if let Ok(file) = fs::metadata(&path) {
                opened.push((part, path, identity(&file)));
            }
        }
        Ok(Self { opened, content: Mutex::new(Content::read(database).ok()), loss: Mutex::new(None) })
    }

    /// Why nothing may be stored, as of the last look.
    pub fn loss(&self) -> Option<Loss> {
        *locked(&self.loss)
    }

    /// Looks at the files, and logs what has changed. Reads no file while another thread runs a checkpoint.
    pub fn look(&self, database: &File) {
        let mut found = self.opened.iter().find_map(|(part, path, opened)| match fs::metadata(path) {
            Ok(file) if identity(&file) == *opened => {
                let is_damaged = *part == Part::Wal && has_hole(path, opened);
                is_damaged.then_some(Loss::Changed(*part))
            }
            Ok(_) => Some(Loss::Replaced(*part)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(Loss::Missing(*part)),
            // A path that can't be looked up for another reason says nothing.
            Err(_) => None,
        });
        if found.is_none() {
            let content = match self.content.try_lock() {
                Ok(content) => Some(content),
                Err(TryLockError::Poisoned(content)) => Some(content.into_inner()),
                Err(TryLockError::WouldBlock) => None,
            };
            found = content.and_then(|content| changed(content.as_ref(), database));
        }
        self.note(found);
    }

    fn note(&self, found: Option<Loss>) {
        let mut loss = locked(&self.loss);
        if *loss == found || matches!(*loss, Some(Loss::Changed(_))) {
            return;
        }
        *loss = found;
        drop(loss);
        let path = self.opened[0].1.display();
        match found {
            Some(Loss::Changed(_)) | Some(Loss::Replaced(_)) => log::error!(
                "{}, while the server runs (`{path}`); nothing is stored any more: stop the server and restore a backup",
                found.map(|loss| loss.to_string()).unwrap_or_default()
            ),
            Some(loss) => log::error!("{loss}, while the server runs (`{path}`); nothing is stored until it is back"),
            None => log::warn!("the files of the database are back (`{path}`); messages are stored again"),
        }
    }

    /// Runs a checkpoint, unless the file is lost. Returns whether nothing held it up. No other thread of this process runs one meanwhile.
    ///
    /// # Errors
    /// That of SQLite.
    pub fn checkpoint(&self, connection: &Connection, database: &File, mode: &str) -> Result<bool, Fault> {
        let mut content = locked(&self.content);
        if let Some(loss) = changed(content.as_ref(), database) {
            self.note(Some(loss));
        }
        if self.loss().is_some() {
            return Ok(false);
        }
        let is_whole = |row: &rusqlite::Row<'_>| row.get(0).map(|busy: i64| busy == 0);
        let done = connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], is_whole);
        *content = Content::read(database).ok();
        done
    }

    /// Looks whether the WAL has all frames that SQLite has written. Returns the number of frames.
    pub fn look_at_wal(&self, connection: &Connection) -> Result<u64, Fault> {
        let wal = self.opened.iter().find(|(part, ..)| *part == Part::Wal).map(|(_, path, _)| path);
        let frames = || connection.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get::<_, i64>(1));
        let page_bytes: i64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        let mut pages = 0;
        for _ in 0..WAL_READINGS {
            pages = u64::try_from(frames()?).unwrap_or(0);
            let bytes = WAL_HEADER_BYTES + pages * (page_bytes.unsigned_abs() + WAL_FRAME_HEADER_BYTES);
            let is_there = wal.and_then(|path| fs::metadata(path).ok()).is_none_or(|file| file.len() >= bytes);
            if pages == 0 || is_there {
                return Ok(pages);
            }
        }
        self.note(Some(Loss::Changed(Part::Wal)));
        Ok(pages)
    }
}

/// Whether a WAL that is not empty has no header: a write after a truncation leaves a hole there, and SQLite can then
/// read nothing. Another file at its path says nothing about it.
fn has_hole(wal: &Path, opened: &Identity) -> bool {
    // No lock of SQLite is on the WAL itself, so closing a descriptor of it releases none.
    let Ok(file) = File::open(wal) else { return false };
    let mut magic = [0; 4];
    let is_opened = file.metadata().is_ok_and(|file| identity(&file) == *opened);
    is_opened && file.read_exact_at(&mut magic, 0).is_ok() && u32::from_be_bytes(magic) & !1 != WAL_MAGIC
}

/// Whether another program has changed the database file since the last checkpoint.
fn changed(noted: Option<&Content>, database: &File) -> Option<Loss> {
    let noted = noted?;
    match noted.is_in(database) {
        Ok(true) => None,
        // Shorter than the header.
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => None,
        _ => Some(Loss::Changed(Part::Database)),
    }
}
