//! Who is who, as it is kept: accounts, sessions, invitations, who is kept out, and what is set of rooms.
//!
//! Plain functions over a connection; which thread has it is the store's affair. Each that changes several rows does so
//! in a savepoint, so it is whole both alone and within a batch's transaction. Nothing secret is in the database: of
//! tokens and codes a hash, of passwords an argon2id hash that is made elsewhere.
//!
//! `:memory:` has the same tables, in a database of SQLite's that is in memory ([`in_memory`]): one implementation, and
//! none of it is on the path of a message.

#[cfg(test)]
mod dump;
mod invitations;
mod restrictions;
mod rooms;
mod sessions;
mod state;

use std::collections::BTreeMap;

use rusqlite::types::Type;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, ffi, params};
use uuid::Uuid;

use crate::auth::name::{self, Looks};
use crate::auth::password::PasswordHash;
use crate::model::{USERNAME_DEFAULT, UserId, Username};
use crate::role::Role;

use super::messages::{number, room_id};

#[cfg(test)]
pub use dump::{dump, integrity};
pub use invitations::{
    Invitation, InvitationId, accept_to_room, invitation, invitation_by_code, invitations, invite, spend, uninvite,
};
pub use restrictions::{Ban, Banned, ban, bans, mute, unban};
pub use rooms::{RoomSettings, add_member, remove_member, rooms_of, set_room};
pub use sessions::{
    Session, SessionId, SessionKind, StoredGuest, begin_session, end_oldest_logins, end_other_sessions, end_session,
    forget_session, forgettable_sessions, name_guest, note_use, oldest_guests_beyond, session, session_of_key,
    sessions, store_guest, stored_guest, was_session_of,
};
pub use state::{note_spoke, policy, set_guest_key, set_policy, spoke};

/// The step of the schema that adds all this.
pub const TABLES: &str = "
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
    CREATE INDEX looks_of_account ON looks (account);
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
";

/// What follows it in a database that has guests: they keep who they are, as sessions without an end.
pub const GUESTS_BECOME_SESSIONS: &str = "
    INSERT INTO sessions (token_hash, user_id, kind, label, created_ms, seen_ms)
        SELECT token_hash, id, 'guest', '', seen_ms, seen_ms FROM users ORDER BY key;
    DROP TABLE users;
";

/// A database in memory that has these tables, for `--data :memory:`.
///
/// # Errors
/// As SQLite says.
pub fn in_memory() -> rusqlite::Result<Connection> {
    let connection = Connection::open_in_memory()?;
    connection.execute_batch(TABLES)?;
    connection.execute_batch(MARKS)?;
    // What other tables refer to; messages and rooms themselves are no rows here.
    connection.execute_batch("CREATE TABLE rooms (key INTEGER PRIMARY KEY); CREATE TABLE messages (user_id BLOB)")?;
    connection.execute_batch(LOG)?;
    Ok(connection)
}

/// Why something about accounts was not done. Nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The name is an account's, or looks like one's.
    #[error("that name is taken, or looks like one that is")]
    Taken,
    /// No such account, session or invitation; or it is over.
    #[error("there is no such thing")]
    NotFound,
    /// The database says so.
    #[error("failed to reach the accounts: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

/// An account, with what is needed to let somebody in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Who.
    pub id: UserId,
    /// What they are called.
    pub name: Username,
    /// User or admin.
    pub role: Role,
    /// Nothing where nobody logs in by a password, as for a bot.
    pub password: Option<PasswordHash>,
    /// When it was made.
    pub created_ms: u64,
}

/// Makes an account.
///
/// # Errors
/// [`AccountError::Taken`], where the name has a look of another account's, or of the name of those who give none: an
/// account of that name would keep them all out.
pub fn create(connection: &Connection, account: &Account, looks: &Looks) -> Result<(), AccountError> {
    atomically(connection, || {
        let of_nobody = Username::parse(USERNAME_DEFAULT).is_ok_and(|name| Looks::of(&name).resemble(looks));
        if of_nobody || resembling(connection, looks)?.is_some() {
            return Err(AccountError::Taken);
        }
        let mut statement = connection.prepare_cached(
            "INSERT INTO accounts (id, name, role, password_hash, created_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        let Account { id, name, role, password, created_ms } = account;
        let password = password.as_ref().map(PasswordHash::as_str);
        let values = params![id.0.as_bytes(), name.as_str(), role.as_str(), password, number(*created_ms)];
        statement.execute(values).map_err(taken)?;
        insert_looks(connection, connection.last_insert_rowid(), looks)
    })
}

fn insert_looks(connection: &Connection, key: i64, looks: &Looks) -> Result<(), AccountError> {
    let mut statement = connection.prepare_cached("INSERT INTO looks (look, account) VALUES (?1, ?2)")?;
    for look in looks.iter() {
        statement.execute(params![look, key]).map_err(taken)?;
    }
    Ok(())
}

/// The account whose name has one of these looks. A guest may not bear such a name.
///
/// # Errors
/// As SQLite says.
pub fn resembling(connection: &Connection, looks: &Looks) -> rusqlite::Result<Option<Account>> {
    let mut statement =
        connection.prepare_cached(&account_where("a.key = (SELECT account FROM looks WHERE look = ?1)"))?;
    for look in looks.iter() {
        if let Some(account) = statement.query_row([look], account).optional()? {
            return Ok(Some(account));
        }
    }
    Ok(None)
}

/// The account of a name, however it is written. Where two look alike by a newer notion, each has its own name.
///
/// # Errors
/// As SQLite says.
pub fn by_name(connection: &Connection, name: &Username) -> rusqlite::Result<Option<Account>> {
    let mut exact = connection.prepare_cached(&account_where("a.name = ?1"))?;
    match exact.query_row([name.as_str()], account).optional()? {
        Some(account) => Ok(Some(account)),
        None => resembling(connection, &Looks::of(name)),
    }
}

/// The account of a user id.
///
/// # Errors
/// As SQLite says.
pub fn by_id(connection: &Connection, id: UserId) -> rusqlite::Result<Option<Account>> {
    connection.prepare_cached(&account_where("a.id = ?1"))?.query_row([id.0.as_bytes()], account).optional()
}

/// What somebody is and is called, by an account or as a guest who has a session or had one that is not forgotten.
///
/// # Errors
/// As SQLite says.
pub fn somebody(connection: &Connection, id: UserId) -> rusqlite::Result<Option<(Role, Option<Username>)>> {
    if let Some(account) = by_id(connection, id)? {
        return Ok(Some((account.role, Some(account.name))));
    }
    let mut statement = connection.prepare_cached(
        "SELECT username FROM sessions WHERE user_id = ?1 AND kind = 'guest' ORDER BY seen_ms DESC, key LIMIT 1",
    )?;
    let name = statement.query_row([id.0.as_bytes()], |row| {
        let has_name = row.get_ref(0)? != rusqlite::types::ValueRef::Null;
        has_name.then(|| username(row, 0)).transpose()
    });
    Ok(name.optional()?.map(|name| (Role::Guest, name)))
}

/// All accounts, ordered by name.
///
/// # Errors
/// As SQLite says.
pub fn accounts(connection: &Connection) -> rusqlite::Result<Vec<Account>> {
    connection.prepare_cached(&account_where("1 ORDER BY a.name"))?.query_map([], account)?.collect()
}

/// Whether anybody is an admin.
///
/// # Errors
/// As SQLite says.
pub fn has_admin(connection: &Connection) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM accounts WHERE role = 'admin'")?.exists([])
}

/// Sets a password, and ends all the account's sessions but `keep`. Gives those that ended, for their connections to be
/// closed. Bots' tokens stay, as they are no logins.
///
/// # Errors
/// [`AccountError::NotFound`].
pub fn set_password(
    connection: &Connection,
    id: UserId,
    password: &PasswordHash,
    keep: Option<SessionId>,
    now_ms: u64,
) -> Result<Vec<SessionId>, AccountError> {
    atomically(connection, || {
        let mut statement = connection.prepare_cached("UPDATE accounts SET password_hash = ?2 WHERE id = ?1")?;
        found(statement.execute(params![id.0.as_bytes(), password.as_str()])?)?;
        Ok(end_other_sessions(connection, id, keep, now_ms)?)
    })
}

/// Puts a hash of today's cost in the place of an older one of the same password, unless that has changed meanwhile.
///
/// # Errors
/// As SQLite says.
pub fn renew_hash(
    connection: &Connection,
    id: UserId,
    old: &PasswordHash,
    new: &PasswordHash,
) -> rusqlite::Result<bool> {
    let mut statement =
        connection.prepare_cached("UPDATE accounts SET password_hash = ?3 WHERE id = ?1 AND password_hash = ?2")?;
    Ok(statement.execute(params![id.0.as_bytes(), old.as_str(), new.as_str()])? > 0)
}

/// Makes somebody an admin or a user. Who becomes an admin is muted and banned no longer, as nobody could undo it.
///
/// # Errors
/// [`AccountError::NotFound`]; also for the role of a guest, which no account has.
pub fn set_role(connection: &Connection, id: UserId, role: Role) -> Result<(), AccountError> {
    if role == Role::Guest {
        return Err(AccountError::NotFound);
    }
    atomically(connection, || {
        let mut statement = connection.prepare_cached("UPDATE accounts SET role = ?2 WHERE id = ?1")?;
        found(statement.execute(params![id.0.as_bytes(), role.as_str()])?)?;
        if role == Role::Admin {
            restrictions::lift_all(connection, id)?;
        }
        Ok(())
    })
}

/// Removes an account with its sessions, bots' too. Its name can be taken again; its messages stay. Gives the sessions
/// that ended.
///
/// # Errors
/// [`AccountError::NotFound`].
pub fn remove(connection: &Connection, id: UserId) -> Result<Vec<SessionId>, AccountError> {
    atomically(connection, || {
        let id = id.0.as_bytes();
        let mut key = connection.prepare_cached("SELECT key FROM accounts WHERE id = ?1")?;
        let key: Option<i64> = key.query_row([id], |row| row.get(0)).optional()?;
        let key = key.ok_or(AccountError::NotFound)?;
        let mut ended = connection.prepare_cached("DELETE FROM sessions WHERE user_id = ?1 RETURNING key, ended_ms")?;
        let ended = ended.query_map([id], |row| Ok((SessionId(row.get(0)?), row.get::<_, Option<i64>>(1)?)))?;
        let ended = ended.collect::<rusqlite::Result<Vec<_>>>()?;
        connection.prepare_cached("DELETE FROM looks WHERE account = ?1")?.execute([key])?;
        connection.prepare_cached("DELETE FROM room_members WHERE user_id = ?1")?.execute([id])?;
        connection.prepare_cached("DELETE FROM accounts WHERE key = ?1")?.execute([key])?;
        Ok(ended.into_iter().filter(|(_, ended)| ended.is_none()).map(|(key, _)| key).collect())
    })
}

/// The step of the schema that adds values of which there is one each.
pub const MARKS: &str = "CREATE TABLE marks (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID";

/// The step of the schema for signed tokens, slow mode and the position of the log.
pub const LOG: &str = "
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

/// Brings the looks of all accounts up to this adda's notion of them, as a newer Unicode finds more alike. To be done on
/// opening; where the notion is the same, it reads one row. Where two accounts look alike by it, the older one has the
/// look.
///
/// # Errors
/// As SQLite says.
pub fn renew_looks(connection: &Connection) -> rusqlite::Result<()> {
    let notion = name::notion();
    let sql = "SELECT value FROM marks WHERE name = 'looks'";
    let made = connection.query_row(sql, [], |row| row.get::<_, String>(0)).optional()?;
    if made.as_deref() == Some(&*notion) {
        return Ok(());
    }
    atomically(connection, || {
        let mut names = connection.prepare("SELECT key, name FROM accounts ORDER BY key DESC")?;
        let names = names.query_map([], |row| Ok((row.get::<_, i64>(0)?, username(row, 1)?)))?;
        let mut wanted = BTreeMap::new();
        for name in names {
            let (key, name) = name?;
            wanted.extend(Looks::of(&name).iter().map(|look| (look.to_owned(), key)));
        }
        connection.execute("DELETE FROM looks", [])?;
        let mut statement = connection.prepare("INSERT INTO looks (look, account) VALUES (?1, ?2)")?;
        for (look, key) in &wanted {
            statement.execute(params![look, key])?;
        }
        let sql = "INSERT OR REPLACE INTO marks (name, value) VALUES ('looks', ?1)";
        connection.execute(sql, [notion]).map(drop)
    })
}

/// Removes invitations, mutes and bans that are over. They count for nothing before that, either.
///
/// # Errors
/// As SQLite says.
pub fn forget_what_is_over(connection: &Connection, now_ms: u64) -> rusqlite::Result<()> {
    let now = number(now_ms);
    connection.execute("DELETE FROM invitations WHERE uses_left = 0 OR expires_ms <= ?1", [now])?;
    connection.execute("DELETE FROM mutes WHERE until_ms <= ?1", [now])?;
    connection.execute("DELETE FROM bans WHERE until_ms <= ?1", [now])?;
    connection.execute("DELETE FROM spoke WHERE clock_ms <= ?1 - 3600000", [now]).map(drop)
}

fn account_where(condition: &str) -> String {
    format!("SELECT a.id, a.name, a.role, a.password_hash, a.created_ms FROM accounts a WHERE {condition}")
}

fn account(row: &Row<'_>) -> rusqlite::Result<Account> {
    let password = row.get::<_, Option<String>>(3)?.map(|hash| PasswordHash::stored(&hash));
    let role = word(row, 2)?;
    Ok(Account { id: user_id(row, 0)?, name: username(row, 1)?, role, password, created_ms: moment(row, 4)? })
}

/// Does all of it or nothing, within a transaction or without one.
fn atomically<T, E: From<rusqlite::Error>>(
    connection: &Connection,
    act: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    connection.execute_batch("SAVEPOINT accounts")?;
    match act() {
        Ok(done) => {
            connection.execute_batch("RELEASE accounts")?;
            Ok(done)
        }
        Err(error) => {
            // Where this fails, SQLite has rolled back more than this already.
            let _ = connection.execute_batch("ROLLBACK TO accounts; RELEASE accounts");
            Err(error)
        }
    }
}

fn found(rows: usize) -> Result<(), AccountError> {
    if rows == 0 { Err(AccountError::NotFound) } else { Ok(()) }
}

/// What was stored twice was taken.
fn taken(error: rusqlite::Error) -> AccountError {
    match error {
        rusqlite::Error::SqliteFailure(
            ffi::Error {
                code: ErrorCode::ConstraintViolation,
                extended_code: ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY,
            },
            _,
        ) => AccountError::Taken,
        error => error.into(),
    }
}

fn user_id(row: &Row<'_>, column: usize) -> rusqlite::Result<UserId> {
    row.get::<_, [u8; 16]>(column).map(|bytes| UserId(Uuid::from_bytes(bytes)))
}

fn username(row: &Row<'_>, column: usize) -> rusqlite::Result<Username> {
    row.get(column).map(Username::stored)
}

/// A word that stands for one of a few values.
fn word<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    row.get::<_, String>(column)?.parse().map_err(|error| broken(column, error))
}

fn broken(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}

fn moment(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(|ms| u64::try_from(ms).unwrap_or(0))
}

fn moment_or_none(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<u64>> {
    row.get::<_, Option<i64>>(column).map(|ms| ms.map(|ms| u64::try_from(ms).unwrap_or(0)))
}

#[cfg(test)]
mod tests;
