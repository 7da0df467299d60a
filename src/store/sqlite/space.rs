//! The space on the disk: how large the database may become, and a reserve for when the disk is full.
//!
//! The database stays below the real end of the disk, which may come before `--max-data`. On a full disk SQLite can't
//! even delete, as a deletion writes to the WAL first. So a file beside the database holds some space. It is removed
//! when that space is needed, and made again when there is enough.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{ErrorCode, ffi};

use super::super::private_file;
use super::Fault;
use super::schema::beside;
use crate::limits::{KEPT_ON_FULL_DISK_BYTES, RESERVE_BYTES_MAX, WAL_BYTES_MAX};

/// The reserve is this part of what the database could use, at most [`RESERVE_BYTES_MAX`].
const RESERVE_PART: u64 = 16;
/// The WAL may take this part of the bound, if there is no space outside of the bound.
const WAL_PART: u64 = 8;
/// On a small file system, this part of it is used before messages are refused rather than deleted.
const KEPT_PART: u64 = 4;
/// A slice deletes this part of the bound at once, as deleting writes to the WAL.
const FORGOTTEN_PART: u64 = 64;
/// What a transaction may write to the WAL beyond its bound.
const TRANSACTION_BYTES_MAX: u64 = 1 << 20;
const TRANSACTION_PART: u64 = 32;
const SPARE_BYTES_MAX: u64 = 2 << 20;
/// How long it is believed that a disk is full that reports free space. There may be a quota.
const FULL_BELIEVED: Duration = Duration::from_secs(60);
const SUFFIX: &str = ".reserve";

/// Whether SQLite failed because the disk is full.
pub fn is_full(fault: &Fault) -> bool {
    match fault {
        rusqlite::Error::SqliteFailure(ffi::Error { code: ErrorCode::DiskFull, .. }, _) => true,
        // The index of the WAL could not be extended.
        rusqlite::Error::SqliteFailure(ffi::Error { extended_code, .. }, _) => {
            *extended_code == ffi::SQLITE_IOERR_SHMSIZE
        }
        _ => false,
    }
}

/// Removes the reserve of a database, so that there is space. Returns whether there was one.
pub fn release(real_path: &Path) -> bool {
    fs::remove_file(beside(real_path, SUFFIX)).is_ok()
}

/// How large the files of a database may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The bytes of the database; `None` for no bound.
    pub bytes_max: Option<u64>,
    pub wal_bytes_max: u64,
    /// The length that the database file may reach. There must always be space for a checkpoint: without one, a WAL never
    /// restarts.
    pub file_bytes_max: u64,
    /// On a full disk, a database of this size deletes nothing.
    pub kept_bytes: u64,
    /// The bytes that must be free in the file, or by which the file must be able to grow. A merge of the word index writes
    /// before it deletes.
    pub spare_bytes: u64,
    /// The bytes of messages that are deleted at once.
    pub forgotten_bytes: u64,
    /// Whether the disk bounds the database, and not the operator.
    pub is_by_disk: bool,
}

/// The sizes of the files, and of the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sizes {
    database: u64,
    wal: u64,
    reserve: u64,
    /// Free in the file system for this process.
    free: u64,
    /// Of the whole file system.
    whole: u64,
}

impl Sizes {
    fn held(&self) -> u64 {
        self.database + self.wal + self.reserve
    }

    fn capacity(&self) -> u64 {
        self.held().saturating_add(self.free)
    }
}

#[derive(Debug)]
pub struct Space {
    /// The operator's bound.
    bytes_max: Option<u64>,
    wal: PathBuf,
    reserve: PathBuf,
    /// The bytes of all files when the disk was full although it reported free space, and when that was.
    full_at: Option<(u64, Instant)>,
    /// Bytes that the database returns to the file system, so that there can be a reserve again. Others may take them, so
    /// this has an end.
    owed: u64,
    was_by_disk: bool,
}

impl Space {
    pub fn new(bytes_max: Option<u64>, real_path: &Path) -> Self {
        let (wal, reserve) = (beside(real_path, "-wal"), beside(real_path, SUFFIX));
        Self { bytes_max, wal, reserve, full_at: None, owed: 0, was_by_disk: false }
    }

    /// The file is found by its path. Closing a descriptor of our own would release SQLite's locks.
    pub fn wal_bytes(&self) -> u64 {
        self.wal.metadata().map_or(0, |file| file.len())
    }

    fn sizes(&self, database: &File) -> io::Result<Sizes> {
        let system = rustix::fs::fstatvfs(database)?;
        Ok(Sizes {
            database: database.metadata()?.len(),
            wal: self.wal_bytes(),
            reserve: self.reserve.metadata().map_or(0, |file| file.len()),
            free: system.f_bavail.saturating_mul(system.f_frsize),
            whole: system.f_blocks.saturating_mul(system.f_frsize),
        })
    }

    /// The bounds now. Logs when the disk begins or ceases to be the bound.
    pub fn bounds(&mut self, database: &File) -> Bounds {
        // A file system that does not tell its size is full when a write fails.
        let unknown = Sizes { database: 0, wal: 0, reserve: 0, free: u64::MAX / 4, whole: u64::MAX / 4 };
        let mut sizes = self.sizes(database).unwrap_or(unknown);
        self.full_at = self.full_at.filter(|(held, since)| sizes.held() <= *held && since.elapsed() < FULL_BELIEVED);
        if self.full_at.is_some() {
            sizes.free = 0;
        }
        let found = bounds(self.bytes_max, &sizes);
        if found.is_by_disk != self.was_by_disk && self.bytes_max.is_some() {
            self.was_by_disk = found.is_by_disk;
            let mebibytes = found.bytes_max.unwrap_or(0) >> 20;
            match found.is_by_disk {
                true => log::warn!(
                    "the disk is smaller than --max-data: the oldest messages are deleted from {mebibytes} MiB on"
                ),
                false => log::info!("there is enough space on the disk for --max-data again"),
            }
        }
        found
    }

    /// Notes that a write has failed because the disk is full, and removes the reserve. Returns whether there
    /// was one.
    pub fn found_full(&mut self, database: &File) -> bool {
        if let Ok(sizes) = self.sizes(database)
            && sizes.free > WAL_BYTES_MAX
        {
            self.full_at = Some((sizes.held(), Instant::now()));
        }
        let is_removed = fs::remove_file(&self.reserve).is_ok();
        if is_removed && let Ok(sizes) = self.sizes(database) {
            self.owed = 3 * reserve_of(sizes.capacity());
        }
        is_removed
    }

    /// Begins to return space for a reserve that the start has used.
    pub fn owe_reserve(&mut self, database: &File) {
        if let Ok(sizes) = self.sizes(database) {
            let wanted = reserve_of(sizes.capacity());
            if sizes.reserve == 0 && sizes.free < 2 * wanted {
                self.owed = 3 * wanted;
            }
        }
    }

    /// Believes the free space that the disk reports again. Returns whether it was not believed.
    pub fn believe(&mut self) -> bool {
        self.full_at.take().is_some()
    }

    /// Bytes that the database must still return to the file system.
    pub fn owed(&self) -> u64 {
        self.owed
    }

    /// Notes that the database has returned some bytes.
    pub fn returned(&mut self, bytes: u64) {
        self.owed = self.owed.saturating_sub(bytes);
    }

    /// Makes the reserve, if there is none and enough space for it.
    pub fn keep_reserve(&mut self, database: &File) {
        let Ok(sizes) = self.sizes(database) else { return };
        let wanted = reserve_of(sizes.capacity());
        if sizes.reserve > 0 {
            self.owed = 0;
        }
        if sizes.reserve > 0 || wanted == 0 || sizes.free < 2 * wanted || self.full_at.is_some() {
            return;
        }
        self.make_reserve(wanted);
    }

    fn make_reserve(&mut self, bytes: u64) {
        if let Err(error) = make(&self.reserve, bytes) {
            // A part of a reserve would only take space.
            let _ = fs::remove_file(&self.reserve);
            log::debug!("failed to make `{}`: {error}", self.reserve.display());
        }
    }
}

/// Makes a reserve for the next start, if there is none. `database` is closed, so all space that is free counts.
pub fn keep_for_start(real_path: &Path, database: &File) {
    let mut space = Space::new(None, real_path);
    let Ok(sizes) = space.sizes(database) else { return };
    let wanted = reserve_of(sizes.capacity()).min(sizes.free);
    if sizes.reserve == 0 && wanted > 0 {
        space.make_reserve(wanted);
    }
}

fn reserve_of(capacity: u64) -> u64 {
    (capacity / RESERVE_PART).min(RESERVE_BYTES_MAX)
}

/// Zeros that are written: a hole would hold no space.
fn make(reserve: &Path, bytes: u64) -> io::Result<()> {
    let mut file = private_file::create_new(reserve)?;
    let zeros = [0; 64 * 1024];
    let mut left = bytes;
    while left > 0 {
        let count = left.min(zeros.len() as u64);
        file.write_all(&zeros[..count as usize])?;
        left -= count;
    }
    Ok(())
}

fn bounds(bytes_max: Option<u64>, sizes: &Sizes) -> Bounds {
    let capacity = sizes.capacity();
    let usable = capacity.saturating_sub(2 * reserve_of(capacity));
    let kept_bytes = KEPT_ON_FULL_DISK_BYTES.min(sizes.whole / KEPT_PART);
    let by_disk = usable.max(kept_bytes);
    let bound = bytes_max.map_or(by_disk, |most| most.min(by_disk));
    let outside = usable.saturating_sub(bound);
    let wal_bytes_max = (bound / WAL_PART).saturating_add(outside).min(WAL_BYTES_MAX);
    // One transaction may be long: it can merge much of the word index.
    let wal_space = 2 * wal_bytes_max + TRANSACTION_BYTES_MAX.min(bound / TRANSACTION_PART);
    Bounds {
        bytes_max: Some(bound),
        wal_bytes_max: wal_bytes_max.min(sizes.wal.saturating_add(sizes.free) / 2),
        file_bytes_max: sizes.database + sizes.free.saturating_sub(wal_space.saturating_sub(sizes.wal)),
        kept_bytes,
        spare_bytes: SPARE_BYTES_MAX.min(bound / TRANSACTION_PART),
        forgotten_bytes: bound / FORGOTTEN_PART,
        is_by_disk: bytes_max.is_none_or(|most| by_disk < most),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_bound_is_below_the_end_of_the_disk() {
        let bounds =
            |bytes_max, free, whole| bounds(bytes_max, &Sizes { database: 0, wal: 0, reserve: 0, free, whole });
        let large = bounds(Some(1 << 30), 80 << 30, 250 << 30);
        assert_eq!((large.bytes_max, large.wal_bytes_max, large.is_by_disk), (Some(1 << 30), WAL_BYTES_MAX, false));
        let unbounded = bounds(None, 80 << 30, 250 << 30);
        assert!(unbounded.is_by_disk && unbounded.bytes_max.is_some_and(|most| most > 79 << 30));
        for capacity in [8 * MIB, 16 * MIB, 40 * MIB, 90 * MIB, 200 * MIB] {
            let found = bounds(Some(1 << 30), capacity, capacity);
            let bound = found.bytes_max.unwrap();
            assert!(found.is_by_disk && bound + 2 * reserve_of(capacity) <= capacity, "{capacity}: {found:?}");
            assert!(found.wal_bytes_max <= bound / 8 && found.forgotten_bytes > 0, "{capacity}: {found:?}");
        }
        // The disk has space for the bound, but not for a WAL of any length.
        let near = bounds(Some(64 * MIB), 80 * MIB, 80 * MIB);
        assert!(!near.is_by_disk && near.bytes_max == Some(64 * MIB), "{near:?}");
        assert!(64 * MIB + near.wal_bytes_max + 8 * MIB <= 80 * MIB + 8 * MIB, "{near:?}");
    }

    #[test]
    fn a_small_database_does_not_make_room_for_what_others_write() {
        let full = |whole| Sizes { database: 2 * MIB, wal: MIB, reserve: 0, free: 0, whole };
        let on_large = bounds(Some(1 << 30), &full(250 << 30));
        assert_eq!(on_large.bytes_max, Some(KEPT_ON_FULL_DISK_BYTES));
        let on_small = bounds(Some(1 << 30), &full(8 * MIB));
        assert!(on_small.bytes_max.is_some_and(|most| most <= 3 * MIB), "{on_small:?}");
        assert_eq!((on_large.file_bytes_max, on_small.file_bytes_max), (2 * MIB, 2 * MIB), "a checkpoint always works");
    }
}
