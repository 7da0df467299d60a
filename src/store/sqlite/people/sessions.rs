//! Sessions: by which token somebody is known, since when and until when.

use std::str::FromStr;

use rusqlite::{Connection, OptionalExtension, Row, params};

use serde::{Deserialize, Serialize};

use super::super::super::TokenHash;
use super::super::super::change::NewSession;
use super::super::super::log::clock::Moment;
use super::{AccountError, moment, moment_or_none, number, user_id, username, word};
use crate::auth::credential::{GUEST_SPAN_MS, LOGIN_SPAN_MS};
use crate::auth::guest_token::GuestToken;
use crate::model::{UserId, Username};
use crate::role::Role;

/// Which session, to its owner; no secret. The proposer chooses it, at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionId(pub i64);

impl SessionId {
    /// The session of a guest who has a signed token.
    #[must_use]
    pub fn of_guest(user: UserId) -> Self {
        Self(GuestToken { user, issued_ms: 0 }.session_id())
    }
}

/// How a session came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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

/// A session that is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Which.
    pub key: SessionId,
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
    /// When it began, in wall time.
    pub created_ms: u64,
    /// When it was used last, about, in log time; as `created_ms` while it was not used.
    pub seen_ms: u64,
    /// When it expires, in log time, if it does.
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
pub fn begin_session(
    connection: &Connection,
    user: UserId,
    new: &NewSession,
    username: Option<&Username>,
    expires_ms: Option<u64>,
    wall_ms: u64,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO sessions (key, token_hash, user_id, kind, username, label, created_ms, seen_ms, expires_ms, is_signed)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8, ?9)",
    )?;
    statement.execute(params![
        new.id.0,
        stored_hash(user, new.token_hash).0,
        user.0.as_bytes(),
        new.kind.as_str(),
        username.map(Username::as_str),
        &*new.label,
        number(wall_ms),
        expires_ms.map(number),
        new.token_hash.is_none(),
    ])?;
    Ok(())
}

/// What stands in the place of a token's hash. A signed token needs none; its column must have a value that no token
/// hashes to, and that no other session has.
fn stored_hash(user: UserId, token_hash: Option<TokenHash>) -> TokenHash {
    token_hash.unwrap_or_else(|| TokenHash::of_bytes(user.0.as_bytes()))
}

/// Stores the session of a guest who has a signed token, unless it is stored.
///
/// # Errors
/// As SQLite says.
pub fn store_guest(
    connection: &Connection,
    user: UserId,
    issued_ms: u64,
    username: Option<&Username>,
    moment: &Moment,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO sessions (key, token_hash, user_id, kind, username, label, created_ms, seen_ms, expires_ms, is_signed)
         VALUES (?1, ?2, ?3, 'guest', ?4, '', ?5, ?6, ?7, 1)
         ON CONFLICT (key) DO UPDATE SET username = coalesce(username, excluded.username)",
    )?;
    statement.execute(params![
        SessionId::of_guest(user).0,
        stored_hash(user, None).0,
        user.0.as_bytes(),
        username.map(Username::as_str),
        number(moment.shown(issued_ms)),
        number(moment.clock_ms),
        number(issued_ms + GUEST_SPAN_MS),
    ])?;
    Ok(())
}

/// Stores a guest's session under a name, or gives the session another name, and lets it last longer.
///
/// # Errors
/// [`AccountError::NotFound`] where it is over.
pub fn name_guest(
    connection: &Connection,
    user: UserId,
    username: &Username,
    session: &NewSession,
    expires_ms: u64,
    moment: &Moment,
) -> Result<(), AccountError> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO sessions (key, token_hash, user_id, kind, username, label, created_ms, seen_ms, expires_ms, is_signed)
         VALUES (?1, ?2, ?3, 'guest', ?4, ?5, ?9, ?6, ?7, ?8)
         ON CONFLICT (key) DO UPDATE SET username = ?4, seen_ms = ?6, expires_ms = ?7
            WHERE kind = 'guest' AND user_id = ?3 AND ended_ms IS NULL AND (expires_ms IS NULL OR expires_ms > ?6)",
    )?;
    super::found(statement.execute(params![
        session.id.0,
        stored_hash(user, session.token_hash).0,
        user.0.as_bytes(),
        username.as_str(),
        &*session.label,
        number(moment.clock_ms),
        number(expires_ms),
        session.token_hash.is_none(),
        number(moment.wall_ms),
    ])?)
}

/// Notes that a session is used, and lets it last longer. One that is over stays over.
///
/// # Errors
/// As SQLite says.
pub fn note_use(connection: &Connection, session: SessionId, now_ms: u64) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "UPDATE sessions SET seen_ms = ?2, expires_ms = CASE kind WHEN 'guest' THEN ?3 WHEN 'login' THEN ?4 ELSE expires_ms END
         WHERE key = ?1 AND ended_ms IS NULL AND (expires_ms IS NULL OR expires_ms > ?2)",
    )?;
    statement.execute(params![
        session.0,
        number(now_ms),
        number(now_ms + GUEST_SPAN_MS),
        number(now_ms + LOGIN_SPAN_MS),
    ])?;
    Ok(())
}

/// The state of the session of a guest who has a signed token, where it is stored.
///
/// # Errors
/// As SQLite says.
pub fn stored_guest(connection: &Connection, user: UserId, now_ms: u64) -> rusqlite::Result<StoredGuest> {
    let key = SessionId::of_guest(user);
    if let Some(session) = session_of_key(connection, key, now_ms)? {
        return Ok(StoredGuest::Live(session));
    }
    let mut statement = connection.prepare_cached("SELECT 1 FROM sessions WHERE key = ?1")?;
    Ok(if statement.exists([key.0])? { StoredGuest::Over } else { StoredGuest::Absent })
}

/// See [`stored_guest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredGuest {
    Live(Session),
    /// It has ended or expired.
    Over,
    Absent,
}

/// The session of a token, if it is not over.
///
/// # Errors
/// As SQLite says.
pub fn session(connection: &Connection, token: TokenHash, now_ms: u64) -> rusqlite::Result<Option<Session>> {
    let mut statement = connection.prepare_cached(&format!("{SESSION} AND s.token_hash = ?1"))?;
    statement.query_row(params![token.0, number(now_ms)], read).optional()
}

/// A session by its key, if it is not over.
///
/// # Errors
/// As SQLite says.
pub fn session_of_key(connection: &Connection, key: SessionId, now_ms: u64) -> rusqlite::Result<Option<Session>> {
    let mut statement = connection.prepare_cached(&format!("{SESSION} AND s.key = ?1"))?;
    statement.query_row(params![key.0, number(now_ms)], read).optional()
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
pub fn sessions(connection: &Connection, user: UserId, now_ms: u64) -> rusqlite::Result<Vec<Session>> {
    let sql = format!("{SESSION} AND s.user_id = ?1 ORDER BY s.seen_ms DESC, s.created_ms DESC, s.key");
    let mut statement = connection.prepare_cached(&sql)?;
    statement.query_map(params![user.0.as_bytes(), number(now_ms)], read)?.collect()
}

/// Ends a user's logins beyond so many, those first that were used longest ago. Gives those that ended.
///
/// # Errors
/// As SQLite says.
pub fn end_oldest_logins(
    connection: &Connection,
    user: UserId,
    kept: usize,
    now_ms: u64,
) -> rusqlite::Result<Vec<SessionId>> {
    let mut statement = connection.prepare_cached(
        "UPDATE sessions SET ended_ms = ?2 WHERE key IN
            (SELECT key FROM sessions WHERE user_id = ?1 AND kind = 'login' AND ended_ms IS NULL
             ORDER BY seen_ms DESC, created_ms DESC, key DESC LIMIT -1 OFFSET ?3)
         RETURNING key",
    )?;
    let ended =
        statement.query_map(params![user.0.as_bytes(), number(now_ms), number(kept as u64)], |row| row.get(0))?;
    ended.map(|key| key.map(SessionId)).collect()
}

/// Ends a session of a user's. Its row stays until `forget_sessions`, so that its device is known again.
///
/// # Errors
/// [`AccountError::NotFound`] where it is over, or another's.
pub fn end_session(connection: &Connection, user: UserId, key: SessionId, now_ms: u64) -> Result<(), AccountError> {
    let mut statement = connection
        .prepare_cached("UPDATE sessions SET ended_ms = ?3 WHERE key = ?1 AND user_id = ?2 AND ended_ms IS NULL")?;
    super::found(statement.execute(params![key.0, user.0.as_bytes(), number(now_ms)])?)
}

/// Ends a user's sessions, except `keep` and a bot's. Gives those that ended.
///
/// # Errors
/// As SQLite says.
pub fn end_other_sessions(
    connection: &Connection,
    user: UserId,
    keep: Option<SessionId>,
    now_ms: u64,
) -> rusqlite::Result<Vec<SessionId>> {
    let mut statement = connection.prepare_cached(
        "UPDATE sessions SET ended_ms = ?3
         WHERE user_id = ?1 AND key IS NOT ?2 AND kind <> 'bot' AND ended_ms IS NULL RETURNING key",
    )?;
    let keep = keep.map(|keep| keep.0);
    let ended = statement.query_map(params![user.0.as_bytes(), keep, number(now_ms)], |row| row.get(0))?;
    ended.map(|key| key.map(SessionId)).collect()
}

/// The sessions behind a key, up to another, that may be forgotten: those that ended or expired before `over_ms`, and guests
/// without messages who were not seen since `unseen_ms`. A guest's signed token would be valid again without its session,
/// so one that has ended is kept as long as the token could last.
///
/// # Errors
/// As SQLite says.
pub fn forgettable_sessions(
    connection: &Connection,
    after: i64,
    to: i64,
    over_ms: u64,
    unseen_ms: u64,
    now_ms: u64,
) -> rusqlite::Result<Vec<SessionId>> {
    let mut statement = connection.prepare_cached(
        "SELECT key FROM sessions WHERE key > ?1 AND key <= ?2 AND (
            (min(coalesce(ended_ms, expires_ms), coalesce(expires_ms, ended_ms)) < ?3
                AND (is_signed = 0 OR expires_ms < ?5))
            OR (kind = 'guest' AND ended_ms IS NULL AND seen_ms < ?4
                AND NOT EXISTS (SELECT 1 FROM messages WHERE user_id = sessions.user_id)))",
    )?;
    let values = params![after, to, number(over_ms), number(unseen_ms), number(now_ms)];
    statement.query_map(values, |row| row.get(0).map(SessionId))?.collect()
}

/// The guests' sessions that are one too many, those first that were used longest ago. A signed token would be valid again
/// without its session, so one that has ended goes after all that have not.
///
/// # Errors
/// As SQLite says.
pub fn oldest_guests_beyond(connection: &Connection, kept: usize) -> rusqlite::Result<Vec<SessionId>> {
    let mut statement = connection.prepare_cached(
        "SELECT key FROM sessions WHERE kind = 'guest'
         ORDER BY is_signed AND ended_ms IS NOT NULL DESC, seen_ms DESC, created_ms DESC, key DESC LIMIT -1 OFFSET ?1",
    )?;
    statement.query_map([number(kept as u64)], |row| row.get(0).map(SessionId))?.collect()
}

/// Removes a session.
///
/// # Errors
/// As SQLite says.
pub fn forget_session(connection: &Connection, session: SessionId) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM sessions WHERE key = ?1")?.execute([session.0])?;
    Ok(())
}

fn read(row: &Row<'_>) -> rusqlite::Result<Session> {
    let has_name = row.get_ref(4)? != rusqlite::types::ValueRef::Null;
    Ok(Session {
        key: SessionId(row.get(0)?),
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
