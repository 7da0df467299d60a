//! The database as the tools see it, read by another process than the server, which may be running.
//!
//! Connections here are read-only and take no lock that disturbs a server. They hold up a checkpoint for no longer than
//! it takes to read a page of messages. Only a copy and an inspection take longer, as they read one snapshot.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use crate::model::{RoomId, Timestamp, Username};

use super::super::message::Message;
use super::super::private_file;
use super::messages;
use super::people::{self, Account, AuditEntry, Session};
use super::row::{all, unsigned, value};
use super::schema::{self, OpenError, beside};
use super::search;

/// Messages that are read at once.
const MESSAGES_AT_ONCE: usize = 500;
/// Pages that are copied between two progress reports.
const PAGES_AT_ONCE: i32 = 1_000;
/// How long to wait if the database is locked for a moment, for example by a starting server.
const LOCKED_WAIT: Duration = Duration::from_millis(20);
/// The schema that introduced accounts and sessions.
const ACCOUNTS_SINCE: usize = 3;
/// The schema that introduced signed tokens and the floors of rooms.
const LOG_SINCE: usize = 6;
/// The schema that named the tables `skeletons` and `last_posts`.
const NAMES_SINCE: usize = 7;
/// The schema since which the word index has a position.
const INDEX_SINCE: usize = 9;
/// The schema that introduced renames.
const RENAMES_SINCE: usize = 10;
/// The schema that introduced the audit log.
const AUDIT_SINCE: usize = 11;
/// The number of findings of one kind that are reported.
const FINDINGS_MAX: i64 = 20;

#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("failed to read `{}`: {source}", path.display())]
    Read { path: PathBuf, source: rusqlite::Error },
    #[error("no such room in `{}`: {room}", path.display())]
    NoRoom { path: PathBuf, room: RoomId },
    #[error("`{}` has no audit log yet, as it is from an earlier adda; start the server on it once", .0.display())]
    NoAudit(PathBuf),
    /// The target of the copy exists.
    #[error("`{}` already exists and is not overwritten", .0.display())]
    Exists(PathBuf),
    #[error("failed to write `{}`: {source}", path.display())]
    Write { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    /// The copy is not sound, so it was removed.
    #[error("the copy of `{}` failed its check: {finding}", path.display())]
    Unsound { path: PathBuf, finding: String },
}

/// The progress of a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// How much of `whole` is done.
    pub done: u64,
    /// The total, in the tool's own unit.
    pub whole: u64,
}

/// A database that a tool reads.
#[derive(Debug)]
pub struct Offline {
    path: PathBuf,
    connection: Connection,
}

/// The result of an inspection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// What is wrong, in sentences; empty if the database is sound.
    pub findings: Vec<String>,
    /// The version of its schema.
    pub schema: usize,
    pub rooms: i64,
    pub messages: i64,
    pub guests: i64,
    pub accounts: i64,
    pub bytes: i64,
}

impl Offline {
    /// Opens an existing database of adda for reading.
    ///
    /// # Errors
    /// [`ToolError`]; the file is unchanged.
    pub fn open(path: &Path) -> Result<Self, ToolError> {
        let this = Self::open_even_empty(path)?;
        if this.read(schema::version)? == 0 { Err(OpenError::Foreign(path.to_owned()).into()) } else { Ok(this) }
    }

    /// The same, but also for an empty database, which has schema 0: another process may be creating it.
    ///
    /// # Errors
    /// [`ToolError`]; the file is unchanged.
    pub fn open_even_empty(path: &Path) -> Result<Self, ToolError> {
        // This is checked first, as SQLite has one error text for all reasons.
        let failed = |source| OpenError::File { path: path.to_owned(), source };
        if !fs::metadata(path).map_err(failed)?.is_file() {
            return Err(OpenError::Foreign(path.to_owned()).into());
        }
        let connection = schema::open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let this = Self { path: path.to_owned(), connection };
        this.read(add_missing_names)?;
        Ok(this)
    }

    /// All accounts by name, each with its valid sessions. There are none in a database from before accounts existed.
    pub fn accounts(&self) -> Result<Vec<(Account, Vec<Session>)>, ToolError> {
        self.read(|connection| {
            let moment = connection.unchecked_transaction()?;
            if schema::version(&moment)? < ACCOUNTS_SINCE {
                return Ok(Vec::new());
            }
            let now_ms = log_time(&moment)?;
            let accounts = people::accounts(&moment)?.into_iter();
            accounts
                .map(|account| people::sessions(&moment, account.id, now_ms).map(|sessions| (account, sessions)))
                .collect()
        })
    }

    /// The account with this name, or with a name that looks like it.
    pub fn account(&self, name: &Username) -> Result<Option<Account>, ToolError> {
        self.read(|connection| {
            if schema::version(connection)? < ACCOUNTS_SINCE {
                return Ok(None);
            }
            people::by_name(connection, name)
        })
    }

    /// Whether there is an admin.
    pub fn has_admin(&self) -> Result<bool, ToolError> {
        self.read(|connection| Ok(schema::version(connection)? >= ACCOUNTS_SINCE && people::has_admin(connection)?))
    }

    /// The latest entries of the audit log, `limit` at most. The newest comes first.
    pub fn audit_entries(&self, limit: usize) -> Result<Vec<AuditEntry>, ToolError> {
        if self.read(schema::version)? < AUDIT_SINCE {
            return Err(ToolError::NoAudit(self.path.clone()));
        }
        self.read(|connection| people::audit_entries(connection, None, limit))
    }

    /// Passes every message to `take`, oldest first, with the progress: of one room or of all, from a wall time on.
    /// Ends early if `take` returns false.
    pub fn messages(
        &self,
        room: Option<&RoomId>,
        since_ms: u64,
        mut take: impl FnMut(&Message, Progress) -> bool,
    ) -> Result<(), ToolError> {
        let mut room_key = None;
        if let Some(id) = room {
            let row = self.read(|connection| messages::room(connection, id))?;
            let row = row.ok_or_else(|| ToolError::NoRoom { path: self.path.clone(), room: id.clone() })?;
            room_key = Some(row.key);
        }
        // New messages arrive while these are read. The end is fixed at the beginning.
        let (first, last) = self.read(messages::keys)?;
        let mut after = first - 1;
        while after < last {
            let page = self.read(|connection| {
                messages::following(connection, after, last, room_key, since_ms, MESSAGES_AT_ONCE)
            })?;
            let Some((last_read, _)) = page.last() else { break };
            after = *last_read;
            for (key, message) in &page {
                let part = |key: i64| unsigned(key - first + 1);
                if !take(message, Progress { done: part(*key), whole: part(last) }) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Writes a sound copy of one snapshot to a new file, while a server may go on writing.
    ///
    /// # Errors
    /// [`ToolError`]; then no copy remains, nor a part of one.
    pub fn copy(&self, target: &Path, tell: impl FnMut(Progress)) -> Result<(), ToolError> {
        let exists = || ToolError::Exists(target.to_owned());
        if target.symlink_metadata().is_ok() {
            return Err(exists());
        }
        let write = |source| ToolError::Write { path: target.to_owned(), source };
        let part = Part(beside(target, &format!(".{}.part", std::process::id())));
        // The file is created here, so that no other file can be taken for it.
        drop(private_file::create_new(&part.0).map_err(|error| write(error.into()))?);
        if let Some(finding) = self.copy_into(&part.0, tell).map_err(|error| write(error.into()))? {
            return Err(ToolError::Unsound { path: self.path.clone(), finding });
        }
        // A hard link never replaces a file. Some file systems do not have them.
        match fs::hard_link(&part.0, target) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(exists()),
            Err(_) if target.symlink_metadata().is_ok() => return Err(exists()),
            Err(_) => fs::rename(&part.0, target).map_err(|error| write(error.into()))?,
        }
        drop(part);
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| write(error.into()))
    }

    /// Copies the database into a file. Returns what is wrong with the copy.
    fn copy_into(&self, part: &Path, mut tell: impl FnMut(Progress)) -> rusqlite::Result<Option<String>> {
        let mut copy = Connection::open(part)?;
        // The whole copy reads one snapshot. Without it, the copy of a busy database would restart with every commit.
        let moment = self.connection.unchecked_transaction()?;
        value::<i64>(&moment, "SELECT count(*) FROM sqlite_schema", [])?;
        let backup = Backup::new(&moment, &mut copy)?;
        loop {
            let step = backup.step(PAGES_AT_ONCE)?;
            let progress = backup.progress();
            let pages = |count: i32| unsigned(count.into());
            tell(Progress { done: pages(progress.pagecount - progress.remaining), whole: pages(progress.pagecount) });
            match step {
                StepResult::Done => break,
                StepResult::Busy | StepResult::Locked => std::thread::sleep(LOCKED_WAIT),
                _ => {}
            }
        }
        drop(backup);
        drop(moment);
        // The copy is one file, with no WAL beside it.
        copy.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(()))?;
        let finding = integrity(&copy)?.into_iter().next();
        copy.close().map_err(|(_, error)| error)?;
        Ok(finding)
    }

    /// Checks the whole database in one snapshot. Changes nothing.
    ///
    /// # Errors
    /// [`ToolError`], if the check itself fails.
    pub fn inspect(&self) -> Result<Inspection, ToolError> {
        self.read(|connection| {
            let moment = connection.unchecked_transaction()?;
            let mut findings = integrity(&moment)?;
            if findings.is_empty() {
                findings = disorder(&moment)?;
            }
            let number = |sql: &str| value::<i64>(&moment, sql, []);
            let count = |table: &str| number(&format!("SELECT count(*) FROM {table}"));
            let schema = schema::version(&moment)?;
            Ok(Inspection {
                findings,
                schema,
                rooms: count("rooms")?,
                messages: count("messages")?,
                guests: count(if schema < ACCOUNTS_SINCE { "users" } else { "sessions WHERE kind = 'guest'" })?,
                accounts: if schema < ACCOUNTS_SINCE { 0 } else { count("accounts")? },
                bytes: number("PRAGMA page_count")? * number("PRAGMA page_size")?,
            })
        })
    }

    fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, ToolError> {
        read(&self.connection).map_err(|source| ToolError::Read { path: self.path.clone(), source })
    }
}

/// A file that is removed when this value is dropped, with the files that SQLite may have left beside it.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        // The file may have been renamed, and usually there is nothing beside it.
        let _ = fs::remove_file(&self.0);
        for suffix in ["-journal", "-wal", "-shm"] {
            let _ = fs::remove_file(beside(&self.0, suffix));
        }
    }
}

/// Lets a database of an earlier schema be read as one of this schema. The added views exist only on this connection.
fn add_missing_names(connection: &Connection) -> rusqlite::Result<()> {
    let schema = schema::version(connection)?;
    if (1..LOG_SINCE).contains(&schema) {
        connection.execute_batch("CREATE TEMP VIEW rooms AS SELECT *, 0 AS floor FROM main.rooms")?;
    }
    if (1..RENAMES_SINCE).contains(&schema) {
        connection.execute_batch("CREATE TEMP VIEW messages AS SELECT *, NULL AS former FROM main.messages")?;
    }
    if (ACCOUNTS_SINCE..LOG_SINCE).contains(&schema) {
        connection.execute_batch("CREATE TEMP VIEW sessions AS SELECT *, 0 AS is_signed FROM main.sessions")?;
    }
    if (ACCOUNTS_SINCE..NAMES_SINCE).contains(&schema) {
        connection.execute_batch("CREATE TEMP VIEW skeletons AS SELECT look AS skeleton, account FROM main.looks")?;
    }
    Ok(())
}

/// The log time as far as a tool can tell: the stored one, or the wall clock if none is stored.
fn log_time(connection: &Connection) -> rusqlite::Result<u64> {
    let position = if schema::version(connection)? < LOG_SINCE { None } else { super::position(connection)? };
    Ok(position.map_or_else(|| Timestamp::now().unix_ms, |position| position.clock_ms))
}

/// The errors that SQLite finds in the file.
fn integrity(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let said: Vec<String> = all(connection, &format!("PRAGMA integrity_check({FINDINGS_MAX})"), [], |row| row.get(0))?;
    Ok(said.into_iter().filter(|line| line != "ok").map(|line| format!("SQLite: {line}")).collect())
}

/// Rows that must not exist, and the finding for each.
const WRONG_MESSAGES: [(&str, &str); 2] = [
    ("messages WHERE room NOT IN (SELECT key FROM rooms)", "messages without a room"),
    (
        "(SELECT seq, lag(seq) OVER (PARTITION BY room ORDER BY key) AS before FROM messages) WHERE seq <= before",
        "messages out of order",
    ),
];
const WRONG_PEOPLE: [(&str, &str); 7] = [
    ("sessions WHERE kind <> 'guest' AND user_id NOT IN (SELECT id FROM accounts)", "sessions of a missing account"),
    (
        "sessions WHERE kind = 'guest' AND user_id IN (SELECT id FROM accounts)",
        "guest sessions with the user id of an account",
    ),
    ("sessions WHERE length(token_hash) <> 32", "sessions without a token hash"),
    ("skeletons WHERE account NOT IN (SELECT key FROM accounts)", "name skeletons of a missing account"),
    ("accounts WHERE key NOT IN (SELECT account FROM skeletons)", "accounts without a name skeleton"),
    ("accounts WHERE password_hash NOT LIKE '$argon2id$%'", "accounts with an invalid password hash"),
    ("invitations WHERE length(code_hash) <> 32", "invitations without a code hash"),
];

/// Violations of adda's own rules in a file that SQLite finds sound.
fn disorder(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut findings = Vec::new();
    let rooms = "SELECT r.id, r.head, count(m.key), coalesce(min(m.seq), 0), coalesce(max(m.seq), 0)
         FROM rooms r LEFT JOIN messages m ON m.room = r.key GROUP BY r.key
         HAVING count(m.key) > 0 AND (max(m.seq) <> r.head OR max(m.seq) - min(m.seq) + 1 <> count(m.key)) LIMIT ?1";
    let rooms: Vec<(String, i64, i64, i64, i64)> = all(connection, rooms, [FINDINGS_MAX], |row| row.try_into())?;
    for (room, head, count, first, last) in rooms {
        if last != head {
            findings.push(format!("room “{room}”: the stored head is seq {head}, the last message has seq {last}"));
        }
        if last - first + 1 != count {
            findings.push(format!("room “{room}”: {count} messages from seq {first} to seq {last}"));
        }
    }
    if schema::version(connection)? >= INDEX_SINCE {
        for (room, indexed, messages) in search::wrong_counts(connection, FINDINGS_MAX)? {
            findings.push(format!("room “{room}”: {indexed} messages in the word index, and not {messages}"));
        }
    }
    let has_accounts = schema::version(connection)? >= ACCOUNTS_SINCE;
    let wrong_people: &[_] = if has_accounts { &WRONG_PEOPLE } else { &[] };
    for (rows, sentence) in WRONG_MESSAGES.iter().chain(wrong_people) {
        let count: i64 = value(connection, &format!("SELECT count(*) FROM {rows}"), [])?;
        if count > 0 {
            findings.push(format!("{sentence}: {count}"));
        }
    }
    Ok(findings)
}
