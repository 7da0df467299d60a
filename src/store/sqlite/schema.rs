//! The database: how it is opened, migrated and refused.
//!
//! Every connection to a server's database is opened here. So each has the settings that durability depends on: WAL,
//! and `synchronous` as the operator chose. A file that can't be a database of adda is left unchanged.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::config::Durability;
use crate::limits::WAL_BYTES_MAX;

use super::super::private_file;
use super::files::{Files, HEADER_BYTES, Loss};
use super::row::value;
use super::{messages, people, search, space};

/// How long a connection waits for another connection's lock. Only checkpoints and upkeep ever hold one.
const BUSY_WAIT: Duration = Duration::from_secs(5);
/// The same for the checkpoint that empties the WAL. The writer waits meanwhile.
const CLEAR_WAIT: Duration = Duration::from_millis(20);
/// How long to wait for another process's lock on the whole database.
const LOCK_WAIT: Duration = Duration::from_secs(1);
/// SQLite's default size of a page.
pub const PAGE_BYTES: u64 = 4_096;
/// "adda" in ASCII. It marks a file as a database of adda (`PRAGMA application_id`).
const APPLICATION_ID: i32 = 0x6164_6461;

/// Numbered migrations from an empty file to the current schema. `user_version` says how many are done.
pub(super) const MIGRATIONS: &[fn(&Connection) -> rusqlite::Result<()>] = &[
    |connection| connection.execute_batch(MESSAGES),
    // SQLite's tokenizer no longer defines what a word is.
    search::begin_anew,
    |connection| connection.execute_batch(PEOPLE),
    |connection| connection.execute_batch(DELETED_MESSAGES),
    |connection| connection.execute_batch(MARKS),
    |connection| connection.execute_batch(LOG),
    |connection| connection.execute_batch(NAMES),
    |connection| connection.execute_batch(DELETED_ROOMS),
    // The index follows the messages, and has other terms.
    search::begin_anew,
    |connection| connection.execute_batch(RENAMES),
    |connection| connection.execute_batch(AUDIT),
];

/// Migration 1.
const MESSAGES: &str = "
    CREATE TABLE rooms (
        key INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        head INTEGER NOT NULL
    );
    CREATE TABLE users (
        key INTEGER PRIMARY KEY,
        id BLOB NOT NULL UNIQUE,
        token_hash BLOB NOT NULL UNIQUE,
        seen_ms INTEGER NOT NULL
    );
    CREATE TABLE messages (
        key INTEGER PRIMARY KEY,
        id BLOB NOT NULL UNIQUE,
        room INTEGER NOT NULL REFERENCES rooms (key),
        seq INTEGER NOT NULL,
        user_id BLOB NOT NULL,
        username TEXT NOT NULL,
        nonce TEXT,
        content TEXT NOT NULL,
        reply_to BLOB,
        at_ms INTEGER NOT NULL,
        UNIQUE (room, seq),
        UNIQUE (user_id, nonce)
    );
    CREATE VIRTUAL TABLE words USING fts5 (
        content, content = '', detail = none, columnsize = 0,
        tokenize = \"unicode61 remove_diacritics 2 categories 'L* N* M* Co'\"
    );
";

/// Migration 3: accounts, sessions, invitations, restrictions and room settings. Guests become sessions without an end.
const PEOPLE: &str = "
    CREATE TABLE accounts (
        key INTEGER PRIMARY KEY,
        id BLOB NOT NULL UNIQUE,
        name TEXT NOT NULL UNIQUE,
        role TEXT NOT NULL CHECK (role IN ('user', 'admin')),
        password_hash TEXT,
        created_ms INTEGER NOT NULL
    );
    CREATE TABLE looks (
        look TEXT PRIMARY KEY,
        account INTEGER NOT NULL REFERENCES accounts (key)
    ) WITHOUT ROWID;
    CREATE INDEX skeletons_of_account ON looks (account);
    CREATE TABLE sessions (
        key INTEGER PRIMARY KEY,
        token_hash BLOB NOT NULL UNIQUE,
        user_id BLOB NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('guest', 'login', 'bot')),
        username TEXT,
        label TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        seen_ms INTEGER NOT NULL,
        expires_ms INTEGER,
        ended_ms INTEGER
    );
    CREATE INDEX sessions_of_user ON sessions (user_id);
    CREATE TABLE invitations (
        key INTEGER PRIMARY KEY,
        code_hash BLOB NOT NULL UNIQUE,
        room TEXT,
        uses_left INTEGER NOT NULL CHECK (uses_left >= 0),
        expires_ms INTEGER NOT NULL,
        created_by BLOB NOT NULL,
        created_ms INTEGER NOT NULL
    );
    CREATE TABLE mutes (
        user_id BLOB PRIMARY KEY,
        until_ms INTEGER NOT NULL,
        muted_by BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE bans (
        kind TEXT NOT NULL CHECK (kind IN ('user', 'address')),
        subject BLOB NOT NULL,
        until_ms INTEGER,
        reason TEXT NOT NULL,
        banned_by BLOB NOT NULL,
        created_ms INTEGER NOT NULL,
        PRIMARY KEY (kind, subject)
    ) WITHOUT ROWID;
    CREATE TABLE room_settings (
        room TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        topic TEXT NOT NULL,
        posting TEXT NOT NULL CHECK (posting IN ('everyone', 'admins')),
        slow_mode_s INTEGER NOT NULL,
        is_private INTEGER NOT NULL CHECK (is_private IN (0, 1))
    ) WITHOUT ROWID;
    CREATE TABLE room_members (
        room TEXT NOT NULL,
        user_id BLOB NOT NULL,
        since_ms INTEGER NOT NULL,
        PRIMARY KEY (room, user_id)
    ) WITHOUT ROWID;
    INSERT INTO sessions (token_hash, user_id, kind, label, created_ms, seen_ms)
        SELECT token_hash, id, 'guest', '', seen_ms, seen_ms FROM users ORDER BY key;
    DROP TABLE users;
    ALTER TABLE messages ADD COLUMN kind TEXT NOT NULL DEFAULT 'text';
";

/// Migration 4: the message that an event is about, and when it was deleted.
const DELETED_MESSAGES: &str = "
    ALTER TABLE messages ADD COLUMN message_id BLOB;
    ALTER TABLE messages ADD COLUMN deleted_ms INTEGER;
";

/// Migration 5: named single values.
const MARKS: &str = "CREATE TABLE marks (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID";

/// Migration 6: signed tokens, slow mode and the position of the log.
const LOG: &str = "
    ALTER TABLE sessions ADD COLUMN is_signed INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE rooms ADD COLUMN floor INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE spoke (
        room TEXT NOT NULL,
        user_id BLOB NOT NULL,
        clock_ms INTEGER NOT NULL,
        PRIMARY KEY (room, user_id)
    ) WITHOUT ROWID;
    CREATE TABLE position (
        key INTEGER PRIMARY KEY CHECK (key = 0),
        number INTEGER NOT NULL,
        clock_ms INTEGER NOT NULL,
        wall_ms INTEGER NOT NULL
    );
    DELETE FROM marks WHERE name = 'beside';
";

/// Migration 7: the names of tables are the terms of the code.
const NAMES: &str = "
    ALTER TABLE looks RENAME TO skeletons;
    ALTER TABLE skeletons RENAME COLUMN look TO skeleton;
    ALTER TABLE spoke RENAME TO last_posts;
    UPDATE marks SET name = 'skeletons' WHERE name = 'looks';
";

/// Migration 8: whether a room was deleted.
const DELETED_ROOMS: &str = "ALTER TABLE rooms ADD COLUMN is_deleted INTEGER NOT NULL DEFAULT 0";

/// Migration 10: the name before a rename, and the seq above which a member of a private room may read.
const RENAMES: &str = "
    ALTER TABLE messages ADD COLUMN former TEXT;
    ALTER TABLE room_members ADD COLUMN floor INTEGER NOT NULL DEFAULT 0;
";

/// Migration 11: the audit log. All registrations have the same source.
const AUDIT: &str = "
    CREATE TABLE audit (
        key INTEGER PRIMARY KEY,
        clock_ms INTEGER NOT NULL,
        wall_ms INTEGER NOT NULL,
        by_id BLOB,
        by_name TEXT,
        action TEXT NOT NULL,
        user_id BLOB,
        username TEXT,
        room TEXT,
        address TEXT,
        detail TEXT NOT NULL,
        source AS (iif(action = 'register', action, by_id))
    );
    CREATE INDEX audit_sources ON audit (source);
";

/// Why a database can't be used. The file is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("failed to open `{}`: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("`{}` is in use by another adda process", .0.display())]
    InUse(PathBuf),
    #[error("`{}` is not an adda database, or is damaged", .0.display())]
    Foreign(PathBuf),
    #[error("`{}` needs a newer adda: its schema is {found}, and this program supports up to {known}", path.display())]
    Newer { path: PathBuf, found: usize, known: usize },
    /// Any other error of SQLite.
    #[error("failed to open `{}`: {source}", path.display())]
    Sqlite { path: PathBuf, source: rusqlite::Error },
}

/// An open database: its path for further connections, and the lock that keeps other processes out.
#[derive(Debug)]
pub struct Database {
    path: PathBuf,
    /// The path without symbolic links. SQLite makes its files beside it.
    pub(super) real_path: PathBuf,
    durability: Durability,
    files: Files,
    /// Whether a text was erased that may still be in the WAL. A killed process may have left one there.
    pub erased: Arc<AtomicBool>,
    /// See [`Bounds`](super::space::Bounds).
    pub(super) wal_bytes_max: AtomicU64,
    /// Held as long as the process has connections. Closing any descriptor of the file would release SQLite's locks on
    /// it (POSIX). So this is opened before the first connection and dropped after the last.
    pub(super) lock: File,
}

impl Database {
    /// Opens or creates a database, migrates it, and returns the writer's connection.
    ///
    /// # Errors
    /// [`OpenError`]; the file is unchanged.
    pub fn open(path: &Path, durability: Durability) -> Result<(Self, Connection), OpenError> {
        let lock = lock(path)?;
        let failed = |source| OpenError::File { path: path.to_owned(), source };
        let real_path = fs::canonicalize(path).map_err(failed)?;
        // Before the first connection. SQLite gives its files the mode of the database.
        restrict(&lock, &real_path).map_err(failed)?;
        let open = || {
            let writer = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE, durability)?;
            migrate(&writer).map_err(|error| open_error(path, error))?;
            Ok(writer)
        };
        let writer = match open() {
            // There is space again: that of the reserve, or of the WAL, which the connection has removed as it closed.
            Err(OpenError::Sqlite { source, .. }) if space::is_full(&source) => {
                space::release(&real_path);
                open()
            }
            opened => opened,
        }?;
        let files = Files::new(&lock, path, &real_path).map_err(failed)?;
        Ok((
            Self {
                path: path.to_owned(),
                real_path,
                durability,
                files,
                erased: Arc::new(AtomicBool::new(true)),
                wal_bytes_max: AtomicU64::new(WAL_BYTES_MAX),
                lock,
            },
            writer,
        ))
    }

    /// Why nothing may be stored, as of the last look.
    pub fn loss(&self) -> Option<Loss> {
        self.files.loss()
    }

    /// Looks whether the files are still there and unchanged.
    pub fn look(&self) {
        self.files.look(&self.lock);
    }

    /// Looks whether the WAL is whole. Returns the number of its frames.
    pub fn look_at_wal(&self, connection: &Connection) -> rusqlite::Result<u64> {
        self.files.look_at_wal(connection)
    }

    /// Makes the reserve for the next start, when nothing is written any more.
    pub fn keep_for_start(&self) {
        if self.loss().is_none() {
            space::keep_for_start(&self.real_path, &self.lock);
        }
    }

    /// How many pages of the WAL may wait for a checkpoint.
    pub fn wal_pages_max(&self) -> u64 {
        self.wal_bytes_max.load(Ordering::Relaxed) / PAGE_BYTES
    }

    /// Empties the WAL, if a text was erased since the last time. Does not wait for readers: the next call tries again.
    pub fn clear_wal(&self, connection: &Connection) -> rusqlite::Result<()> {
        if !self.erased.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        // Most of the work is done without a lock that the writer waits for.
        let cleared = self.checkpoint(connection, "PASSIVE").and_then(|_| {
            connection.busy_timeout(CLEAR_WAIT)?;
            let cleared = self.checkpoint(connection, "TRUNCATE");
            connection.busy_timeout(BUSY_WAIT)?;
            cleared
        });
        if !matches!(cleared, Ok(true)) {
            self.erased.store(true, Ordering::Release);
        }
        cleared.map(drop)
    }

    /// Runs a checkpoint, unless the files are lost. Returns whether nothing held it up.
    pub fn checkpoint(&self, connection: &Connection, mode: &str) -> rusqlite::Result<bool> {
        self.files.checkpoint(connection, &self.lock, mode)
    }

    /// Opens another connection, for reading.
    pub fn reader(&self) -> Result<Connection, OpenError> {
        self.connect(OpenFlags::SQLITE_OPEN_READ_ONLY)
    }

    /// Opens a connection for checkpoints.
    pub fn checkpointer(&self) -> Result<Connection, OpenError> {
        self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)
    }

    fn connect(&self, access: OpenFlags) -> Result<Connection, OpenError> {
        connect(&self.path, access, self.durability)
    }
}

fn connect(path: &Path, access: OpenFlags, durability: Durability) -> Result<Connection, OpenError> {
    let connection = open(path, access)?;
    set_up(&connection, access, durability).map_err(|error| open_error(path, error))?;
    Ok(connection)
}

fn set_up(connection: &Connection, access: OpenFlags, durability: Durability) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(32);
    // Negative sizes are in KiB. Readers need less.
    if access.contains(OpenFlags::SQLITE_OPEN_READ_ONLY) {
        return connection.pragma_update(None, "cache_size", -512);
    }
    connection.pragma_update(None, "cache_size", -2048)?;
    // Free space returns to the file system in slices. This must be set before WAL creates the first page. A file that
    // has pages keeps its own setting, but SQLite would write it again, and a start on a full disk must write nothing.
    if value::<i64>(connection, "PRAGMA page_count", [])? == 0 {
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    let synchronous = if durability == Durability::Full { "FULL" } else { "NORMAL" };
    connection.pragma_update(None, "synchronous", synchronous)?;
    // What is deleted is overwritten, also in pages that become free. A merge of the word index frees pages with words of
    // messages that may be deleted later.
    messages::set_overwriting(connection, "ON")?;
    // Another connection does checkpoints, off the writer's path.
    connection.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
    set_wal_limit(connection, WAL_BYTES_MAX)
}

/// A WAL that had to grow is truncated when it restarts.
pub fn set_wal_limit(connection: &Connection, bytes_max: u64) -> rusqlite::Result<()> {
    connection.pragma_update_and_check(None, "journal_size_limit", (bytes_max / 2).cast_signed(), |_| Ok(()))
}

/// Opens a connection to a file that is empty or a database of adda with a known schema. Writes nothing.
pub fn open(path: &Path, access: OpenFlags) -> Result<Connection, OpenError> {
    let open = || {
        let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(BUSY_WAIT)?;
        check_application(&connection)?;
        let found = version(&connection)?;
        Ok((connection, found))
    };
    let (connection, found) = open().map_err(|error| open_error(path, error))?;
    let known = MIGRATIONS.len();
    if found > known { Err(OpenError::Newer { path: path.to_owned(), found, known }) } else { Ok(connection) }
}

/// The path of a file beside the database: its name with a suffix.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Converts an error of SQLite to the reason why a file can't be used.
fn open_error(path: &Path, source: rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => OpenError::Foreign(path),
        _ => OpenError::Sqlite { path, source },
    }
}

/// Makes the database and the files that an earlier process left beside it private.
fn restrict(database: &File, real_path: &Path) -> io::Result<()> {
    private_file::restrict(database, real_path)?;
    ["-wal", "-shm", "-journal"].iter().try_for_each(|suffix| private_file::restrict_path(&beside(real_path, suffix)))
}

/// Takes the lock that says that a process uses this file.
fn lock(path: &Path) -> Result<File, OpenError> {
    let failed = |source| OpenError::File { path: path.to_owned(), source };
    let file = private_file::open(path).map_err(failed)?;
    // A process that is ending or starting may hold it for a moment.
    let until = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if Instant::now() < until => thread::sleep(LOCK_WAIT / 50),
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
    // SQLite would treat a file of one byte as empty and overwrite it.
    let is_cut_off = (1..HEADER_BYTES as u64).contains(&file.metadata().map_err(failed)?.len());
    if is_cut_off { Err(OpenError::Foreign(path.to_owned())) } else { Ok(file) }
}

/// Returns the error for a damaged file, if the file is another program's database.
fn check_application(connection: &Connection) -> rusqlite::Result<()> {
    // Both are read in one snapshot, as another process may be creating the database.
    let moment = connection.unchecked_transaction()?;
    let id: i32 = value(&moment, "PRAGMA application_id", [])?;
    let tables: i64 = value(&moment, "SELECT count(*) FROM sqlite_schema", [])?;
    if id == APPLICATION_ID || (id == 0 && tables == 0) {
        return Ok(());
    }
    let foreign = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_NOTADB);
    Err(rusqlite::Error::SqliteFailure(foreign, None))
}

/// The number of migrations that a database has done.
pub fn version(connection: &Connection) -> rusqlite::Result<usize> {
    let found: i64 = value(connection, "PRAGMA user_version", [])?;
    Ok(usize::try_from(found).unwrap_or(usize::MAX))
}

/// Runs the missing migrations, each in a transaction.
pub fn migrate(connection: &Connection) -> rusqlite::Result<()> {
    for (index, step) in MIGRATIONS.iter().enumerate().skip(version(connection)?) {
        let transaction = connection.unchecked_transaction()?;
        step(&transaction)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", index as i64 + 1)?;
        transaction.commit()?;
    }
    people::renew_skeletons(connection)
}

#[cfg(test)]
mod tests {
    use rusqlite::params;

    use super::*;
    use crate::limits::SEARCH_TIME;
    use crate::model::{RoomId, Seq};
    use crate::store::sqlite::messages;
    use crate::store::terms::Terms;
    use crate::store::{Kinds, Side};

    #[test]
    fn a_database_of_the_first_schema_is_migrated() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("adda.db");
        let old = Connection::open(&path).unwrap();
        MIGRATIONS[0](&old).unwrap();
        old.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
        old.pragma_update(None, "user_version", 1).unwrap();
        old.execute_batch("INSERT INTO rooms VALUES (1, 'tea', 2)").unwrap();
        for (key, content) in [(1, "Café, hot"), (2, "বৃষ্টি নামলে")] {
            old.execute(
                "INSERT INTO messages VALUES (?1, ?3, 1, ?1, zeroblob(16), 'ana', ?1, ?2, NULL, 1)",
                params![key, content, [key as u8; 16]],
            )
            .unwrap();
            old.execute("INSERT INTO words (rowid, content) VALUES (?1, ?2)", params![key, content]).unwrap();
        }
        drop(old);

        let (_database, connection) = Database::open(&path, Durability::Full).unwrap();
        let sql = "SELECT value FROM marks WHERE name = 'skeletons'";
        let made: String = connection.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(made, crate::auth::name::skeleton_version());
        let version_found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        assert_eq!(version_found, MIGRATIONS.len() as i64);
        while search::follow(&connection, 1, usize::MAX).unwrap() {}
        assert!(search::drop_data(&connection, 9).unwrap());
        while search::drop_data(&connection, 9).unwrap() {}
        let room = messages::room(&connection, &RoomId::parse("tea").unwrap()).unwrap().unwrap();
        assert_eq!((room.key, room.head, room.floor), (1, Seq(2), Seq(0)));
        for (text, count) in [("cafe", 1), ("বৃষ্টি", 1), ("tea", 0)] {
            let (terms, deadline) = (Terms::parse(text).unwrap(), Instant::now() + SEARCH_TIME);
            let (found, _) = search::page(&connection, room, Side::After(Seq(0)), 9, &terms, deadline).unwrap();
            assert_eq!(found.len(), count, "{text}");
            let sql = "SELECT count(*) FROM words WHERE words MATCH ?1";
            let indexed: i64 = connection.query_row(sql, [format!("\"{text}\"")], |row| row.get(0)).unwrap();
            assert_eq!(indexed, count as i64, "{text} in the index");
        }
        assert_eq!(messages::page(&connection, room, Side::After(Seq(0)), Kinds::All, 9.into()).unwrap().len(), 2);
    }
}
