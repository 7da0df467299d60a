//! Sessions: by which token somebody is known, since when and until when.

use std::ops::RangeInclusive;
use std::str::FromStr;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::super::TokenHash;
use super::{AccountError, moment, moment_or_none, number, user_id, username, word};
use crate::model::{Timestamp, UserId, Username};
use crate::role::Role;

/// Which session, to its owner; no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey(pub i64);

/// How a session came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionKind {
    /// A guest's: all that there is of them.
    Guest,
    /// By a password.
    Login,
    /// A token that the operator has made for a program.
    Bot,
}

impl SessionKind {
    /// The word for it, on the wire and in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Login => "login",
            Self::Bot => "bot",
        }
    }
}

/// Why a word is no kind of session.
#[derive(Debug, thiserror::Error)]
#[error("it is one of: guest, login, bot")]
pub struct NoSuchKind;

impl FromStr for SessionKind {
    type Err = NoSuchKind;

    fn from_str(text: &str) -> Result<Self, NoSuchKind> {
        [Self::Guest, Self::Login, Self::Bot].into_iter().find(|kind| kind.as_str() == text).ok_or(NoSuchKind)
    }
}

/// A session that is to be.
#[derive(Debug, Clone)]
pub struct NewSession<'a> {
    /// What its token hashes to.
    pub token_hash: TokenHash,
    /// Whose.
    pub user: UserId,
    /// How it came to be.
    pub kind: SessionKind,
    /// What a guest is called; an account has its own name.
    pub username: Option<&'a Username>,
    /// What its owner knows it by: a browser, or what a bot is for.
    pub label: &'a str,
    /// Until when, if not for good.
    pub expires_ms: Option<u64>,
}

/// A session that is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Which.
    pub key: SessionKey,
    /// Whose.
    pub user: UserId,
    /// What they may do: the account's role as it is now.
    pub role: Role,
    /// How it came to be.
    pub kind: SessionKind,
    /// What they are called: the account's name, or what the guest said; nothing for a guest who never did.
    pub username: Option<Username>,
    /// What its owner knows it by.
    pub label: Box<str>,
    /// Since when.
    pub created_ms: u64,
    /// When it was used last, about.
    pub seen_ms: u64,
    /// Until when, if not for good.
    pub expires_ms: Option<u64>,
}

/// A session's columns, and the one whose account is gone left out: it would be nobody's.
const SESSION: &str = "
    SELECT s.key, s.user_id, coalesce(a.role, 'guest'), s.kind, coalesce(a.name, s.username), s.label, s.created_ms,
        s.seen_ms, s.expires_ms
    FROM sessions s LEFT JOIN accounts a ON a.id = s.user_id
    WHERE s.ended_ms IS NULL AND (s.expires_ms IS NULL OR s.expires_ms > ?2)
        AND (s.kind = 'guest') = (a.key IS NULL)";

/// Begins a session.
///
/// # Errors
/// As SQLite says.
pub fn begin_session(connection: &Connection, new: &NewSession<'_>, now: &Timestamp) -> rusqlite::Result<SessionKey> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO sessions (token_hash, user_id, kind, username, label, created_ms, seen_ms, expires_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7)",
    )?;
    statement.execute(params![
        new.token_hash.0,
        new.user.0.as_bytes(),
        new.kind.as_str(),
        new.username.map(Username::as_str),
        new.label,
        number(now.unix_ms),
        new.expires_ms.map(number),
    ])?;
    Ok(SessionKey(connection.last_insert_rowid()))
}

/// The session of a token, if it is not over.
///
/// # Errors
/// As SQLite says.
pub fn session(connection: &Connection, token: TokenHash, now: &Timestamp) -> rusqlite::Result<Option<Session>> {
    let mut statement = connection.prepare_cached(&format!("{SESSION} AND s.token_hash = ?1"))?;
    statement.query_row(params![token.0, number(now.unix_ms)], read).optional()
}

/// A session by its key, if it is not over.
///
/// # Errors
/// As SQLite says.
pub fn session_of_key(connection: &Connection, key: SessionKey, now: &Timestamp) -> rusqlite::Result<Option<Session>> {
    let mut statement = connection.prepare_cached(&format!("{SESSION} AND s.key = ?1"))?;
    statement.query_row(params![key.0, number(now.unix_ms)], read).optional()
}

/// Whether a token is or was of a session of this user: then whoever shows it is no stranger to the account.
///
/// # Errors
/// As SQLite says.
pub fn was_session_of(connection: &Connection, token: TokenHash, user: UserId) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM sessions WHERE token_hash = ?1 AND user_id = ?2")?;
    statement.exists(params![token.0, user.0.as_bytes()])
}

/// The sessions of a user, the latest used first.
///
/// # Errors
/// As SQLite says.
pub fn sessions(connection: &Connection, user: UserId, now: &Timestamp) -> rusqlite::Result<Vec<Session>> {
    let sql = format!("{SESSION} AND s.user_id = ?1 ORDER BY s.seen_ms DESC, s.key DESC");
    let mut statement = connection.prepare_cached(&sql)?;
    statement.query_map(params![user.0.as_bytes(), number(now.unix_ms)], read)?.collect()
}

/// Notes that a session is used, and lets it last until then. One that is over stays over.
///
/// # Errors
/// As SQLite says.
pub fn renew_session(
    connection: &Connection,
    key: SessionKey,
    expires_ms: Option<u64>,
    now: &Timestamp,
) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached(
        "UPDATE sessions SET seen_ms = ?2, expires_ms = ?3
         WHERE key = ?1 AND ended_ms IS NULL AND (expires_ms IS NULL OR expires_ms > ?2)",
    )?;
    Ok(statement.execute(params![key.0, number(now.unix_ms), expires_ms.map(number)])? > 0)
}

/// Gives a guest another name, and lets their session last until then.
///
/// # Errors
/// [`AccountError::NotFound`] where it is over, or no guest's.
pub fn rename_guest(
    connection: &Connection,
    key: SessionKey,
    username: &Username,
    expires_ms: Option<u64>,
    now: &Timestamp,
) -> Result<(), AccountError> {
    let mut statement = connection.prepare_cached(
        "UPDATE sessions SET username = ?2, seen_ms = ?3, expires_ms = ?4
         WHERE key = ?1 AND kind = 'guest' AND ended_ms IS NULL AND (expires_ms IS NULL OR expires_ms > ?3)",
    )?;
    let expires = expires_ms.map(number);
    super::found(statement.execute(params![key.0, username.as_str(), number(now.unix_ms), expires])?)
}

/// Ends a user's logins beyond so many, those first that were used longest ago. Gives those that ended.
///
/// # Errors
/// As SQLite says.
pub fn end_oldest_logins(
    connection: &Connection,
    user: UserId,
    kept: usize,
    now: &Timestamp,
) -> rusqlite::Result<Vec<SessionKey>> {
    let mut statement = connection.prepare_cached(
        "UPDATE sessions SET ended_ms = ?2 WHERE key IN
            (SELECT key FROM sessions WHERE user_id = ?1 AND kind = 'login' AND ended_ms IS NULL
             ORDER BY seen_ms DESC, key DESC LIMIT -1 OFFSET ?3)
         RETURNING key",
    )?;
    let ended =
        statement.query_map(params![user.0.as_bytes(), number(now.unix_ms), number(kept as u64)], |row| row.get(0))?;
    ended.map(|key| key.map(SessionKey)).collect()
}

/// Ends a session of a user's. Its row stays until [`forget_sessions`], so that its device is known again.
///
/// # Errors
/// [`AccountError::NotFound`] where it is over, or another's.
pub fn end_session(
    connection: &Connection,
    user: UserId,
    key: SessionKey,
    now: &Timestamp,
) -> Result<(), AccountError> {
    let mut statement = connection
        .prepare_cached("UPDATE sessions SET ended_ms = ?3 WHERE key = ?1 AND user_id = ?2 AND ended_ms IS NULL")?;
    super::found(statement.execute(params![key.0, user.0.as_bytes(), number(now.unix_ms)])?)
}

/// Ends a user's sessions, except `keep` and a bot's. Gives those that ended.
///
/// # Errors
/// As SQLite says.
pub fn end_other_sessions(
    connection: &Connection,
    user: UserId,
    keep: Option<SessionKey>,
    now: &Timestamp,
) -> rusqlite::Result<Vec<SessionKey>> {
    let mut statement = connection.prepare_cached(
        "UPDATE sessions SET ended_ms = ?3
         WHERE user_id = ?1 AND key IS NOT ?2 AND kind <> 'bot' AND ended_ms IS NULL RETURNING key",
    )?;
    let keep = keep.map(|keep| keep.0);
    let ended = statement.query_map(params![user.0.as_bytes(), keep, number(now.unix_ms)], |row| row.get(0))?;
    ended.map(|key| key.map(SessionKey)).collect()
}

/// Removes those sessions among these keys that ended or expired before a moment. Gives how many.
///
/// # Errors
/// As SQLite says.
pub fn forget_sessions(connection: &Connection, keys: RangeInclusive<i64>, before_ms: u64) -> rusqlite::Result<usize> {
    let mut statement = connection.prepare_cached(
        "DELETE FROM sessions WHERE key BETWEEN ?1 AND ?2
            AND min(coalesce(ended_ms, expires_ms), coalesce(expires_ms, ended_ms)) < ?3",
    )?;
    statement.execute(params![keys.start(), keys.end(), number(before_ms)])
}

/// Removes the guests that came so many sessions and more before one; looks for them only now and then.
///
/// # Errors
/// As SQLite says.
pub fn forget_guests_before(connection: &Connection, key: SessionKey, kept: usize) -> rusqlite::Result<()> {
    const EVERY: i64 = 256;
    if key.0 % EVERY == 0 {
        let mut statement = connection.prepare_cached("DELETE FROM sessions WHERE key <= ?1 AND kind = 'guest'")?;
        statement.execute([key.0 - number(kept as u64)])?;
    }
    Ok(())
}

fn read(row: &Row<'_>) -> rusqlite::Result<Session> {
    let has_name = row.get_ref(4)? != rusqlite::types::ValueRef::Null;
    Ok(Session {
        key: SessionKey(row.get(0)?),
        user: user_id(row, 1)?,
        role: word(row, 2)?,
        kind: word(row, 3)?,
        username: has_name.then(|| username(row, 4)).transpose()?,
        label: row.get::<_, String>(5)?.into(),
        created_ms: moment(row, 6)?,
        seen_ms: moment(row, 7)?,
        expires_ms: moment_or_none(row, 8)?,
    })
}
