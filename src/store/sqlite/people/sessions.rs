//! Sessions: the user, the token's hash and the lifetime of each.

use rusqlite::{Connection, Row};
use serde::{Deserialize, Serialize};

use super::super::super::TokenHash;
use super::super::super::change::NewSession;
use super::super::super::ledger::Stop;
use super::super::super::log::clock::Moment;
use super::super::row::{all, execute, first, signed, unsigned};
use super::found;
use crate::auth::credential::{GUEST_SPAN_MS, LOGIN_SPAN_MS};
use crate::auth::guest_token::GuestToken;
use crate::model::role::{Role, SessionKind};
use crate::model::{UserId, Username};

/// Names a session to its owner. It is no secret. The proposer chooses it at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionId(pub i64);

impl SessionId {
    /// The session of a guest with a signed token.
    pub fn of_guest(user: UserId) -> Self {
        Self(GuestToken { user, issued_ms: 0 }.session_id())
    }
}

/// A session that is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub key: SessionId,
    pub user: UserId,
    /// The account's current role.
    pub role: Role,
    pub kind: SessionKind,
    /// The account's name, or the guest's; `None` for a guest without a name.
    pub username: Option<Username>,
    /// How the owner recognises it.
    pub label: Box<str>,
    /// When it began, in wall time.
    pub created_ms: u64,
    /// Approximately when it was used last, in log time. A login that was not used yet has `created_ms` here.
    pub seen_ms: u64,
    /// When it expires, in log time; `None` if it does not.
    pub expires_ms: Option<u64>,
}

/// Selects sessions that are not over. Sessions of a removed account are left out.
const SESSION: &str = "
    SELECT s.key, s.user_id, coalesce(a.role, 'guest'), s.kind, coalesce(a.name, s.username), s.label, s.created_ms,
        s.seen_ms, s.expires_ms
    FROM sessions s LEFT JOIN accounts a ON a.id = s.user_id
    WHERE s.ended_ms IS NULL AND (s.expires_ms IS NULL OR s.expires_ms > ?2)
        AND (s.kind = 'guest') = (a.key IS NULL)";

struct Times {
    created_ms: u64,
    seen_ms: u64,
    expires_ms: Option<u64>,
}

/// Inserts a session. `on_conflict` is the SQL for the case that its key exists. Returns the number of rows changed.
fn insert(
    connection: &Connection,
    user: UserId,
    new: &NewSession,
    username: Option<&Username>,
    times: Times,
    on_conflict: &str,
) -> rusqlite::Result<usize> {
    let sql = format!(
        "INSERT INTO sessions (key, user_id, kind, username, label, created_ms, seen_ms, expires_ms, is_signed, token_hash)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) {on_conflict}"
    );
    // The column must have a value that no token hashes to and that no other session has.
    let token_hash = new.token_hash.unwrap_or_else(|| TokenHash::of_bytes(user.0.as_bytes()));
    let NewSession { id, kind, label, .. } = new;
    let Times { created_ms, seen_ms, expires_ms } = times;
    let (created_ms, seen_ms, expires_ms) = (signed(created_ms), signed(seen_ms), expires_ms.map(signed));
    let is_signed = new.token_hash.is_none();
    let values = (id, user, kind, username, label, created_ms, seen_ms, expires_ms, is_signed, token_hash.0);
    execute(connection, &sql, values)
}

pub fn begin_session(
    connection: &Connection,
    user: UserId,
    new: &NewSession,
    expires_ms: Option<u64>,
    wall_ms: u64,
) -> rusqlite::Result<()> {
    let times = Times { created_ms: wall_ms, seen_ms: wall_ms, expires_ms };
    insert(connection, user, new, None, times, "").map(drop)
}

/// Stores the session of a guest with a signed token. If it is stored already, only a missing name is added.
pub fn store_guest(
    connection: &Connection,
    user: UserId,
    issued_ms: u64,
    username: Option<&Username>,
    moment: &Moment,
) -> rusqlite::Result<()> {
    let (id, label) = (SessionId::of_guest(user), Box::default());
    let new = NewSession { id, kind: SessionKind::Guest, token_hash: None, label, span_ms: None };
    let times = Times {
        created_ms: moment.shown(issued_ms),
        seen_ms: moment.clock_ms,
        expires_ms: Some(issued_ms + GUEST_SPAN_MS),
    };
    let on_conflict = "ON CONFLICT (key) DO UPDATE SET username = coalesce(username, excluded.username)";
    insert(connection, user, &new, username, times, on_conflict).map(drop)
}

/// Stores a guest's session with a name, or renames and extends the session.
///
/// # Errors
/// `NotFound`, if it is over or not the guest's.
pub fn name_guest(
    connection: &Connection,
    user: UserId,
    username: &Username,
    session: &NewSession,
    expires_ms: u64,
    moment: &Moment,
) -> Result<(), Stop> {
    let times = Times { created_ms: moment.wall_ms, seen_ms: moment.clock_ms, expires_ms: Some(expires_ms) };
    let on_conflict = "
        ON CONFLICT (key) DO UPDATE SET username = ?4, seen_ms = ?7, expires_ms = ?8
        WHERE kind = 'guest' AND user_id = ?2 AND ended_ms IS NULL AND (expires_ms IS NULL OR expires_ms > ?7)";
    found(insert(connection, user, session, Some(username), times, on_conflict)?)
}

/// Renames a guest, if its session is stored.
pub fn rename_guest(connection: &Connection, user: UserId, username: &Username) -> rusqlite::Result<()> {
    let sql = "UPDATE sessions SET username = ?2 WHERE user_id = ?1 AND kind = 'guest'";
    execute(connection, sql, (user, username)).map(drop)
}

/// Notes a use of a session, and extends it unless it is a bot's. A session that is over stays over.
pub fn note_use(connection: &Connection, session: SessionId, now_ms: u64) -> rusqlite::Result<()> {
    let sql =
        "UPDATE sessions SET seen_ms = ?2, expires_ms = CASE kind WHEN 'guest' THEN ?3 WHEN 'login' THEN ?4 ELSE expires_ms END
         WHERE key = ?1 AND ended_ms IS NULL AND (expires_ms IS NULL OR expires_ms > ?2)";
    let (guest_ms, login_ms) = (signed(now_ms + GUEST_SPAN_MS), signed(now_ms + LOGIN_SPAN_MS));
    execute(connection, sql, (session, signed(now_ms), guest_ms, login_ms)).map(drop)
}

/// The state of the session of a guest with a signed token.
pub fn stored_guest(connection: &Connection, user: UserId, now_ms: u64) -> rusqlite::Result<StoredGuest> {
    let key = SessionId::of_guest(user);
    if let Some(session) = session_of_key(connection, key, now_ms)? {
        return Ok(StoredGuest::Live(session));
    }
    let is_stored = connection.prepare_cached("SELECT 1 FROM sessions WHERE key = ?1")?.exists([key])?;
    Ok(if is_stored { StoredGuest::Over } else { StoredGuest::Absent })
}

/// The state of a signed guest's session, which need not be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredGuest {
    Live(Session),
    /// It has ended or expired.
    Over,
    Absent,
}

/// The session of a token, if it is not over.
pub fn session(connection: &Connection, token: TokenHash, now_ms: u64) -> rusqlite::Result<Option<Session>> {
    first(connection, &format!("{SESSION} AND s.token_hash = ?1"), (token.0, signed(now_ms)), read)
}

/// A session by its key, if it is not over.
pub fn session_of_key(connection: &Connection, key: SessionId, now_ms: u64) -> rusqlite::Result<Option<Session>> {
    first(connection, &format!("{SESSION} AND s.key = ?1"), (key, signed(now_ms)), read)
}

/// Whether a token belongs or belonged to a session of this user. The account knows the device of such a client.
pub fn was_session_of(connection: &Connection, token: TokenHash, user: UserId) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM sessions WHERE token_hash = ?1 AND user_id = ?2")?;
    statement.exists((token.0, user))
}

/// The valid sessions of a user, the most recently used first.
pub fn sessions(connection: &Connection, user: UserId, now_ms: u64) -> rusqlite::Result<Vec<Session>> {
    let sql = format!("{SESSION} AND s.user_id = ?1 ORDER BY s.seen_ms DESC, s.created_ms DESC, s.key");
    all(connection, &sql, (user, signed(now_ms)), read)
}

/// Ends a user's logins beyond `kept`, the least recently used first. Returns the sessions that ended.
pub fn end_oldest_logins(
    connection: &Connection,
    user: UserId,
    kept: usize,
    now_ms: u64,
) -> rusqlite::Result<Vec<SessionId>> {
    let sql = "UPDATE sessions SET ended_ms = ?2 WHERE key IN
            (SELECT key FROM sessions WHERE user_id = ?1 AND kind = 'login' AND ended_ms IS NULL
             ORDER BY expires_ms DESC, created_ms DESC, key DESC LIMIT -1 OFFSET ?3)
         RETURNING key";
    all(connection, sql, (user, signed(now_ms), signed(kept as u64)), |row| row.get(0))
}

/// Ends a session of a user. Its row stays until upkeep forgets it, so that its device is still known.
///
/// # Errors
/// `NotFound`, if it has ended or is another user's.
pub fn end_session(connection: &Connection, user: UserId, key: SessionId, now_ms: u64) -> Result<(), Stop> {
    let sql = "UPDATE sessions SET ended_ms = ?3 WHERE key = ?1 AND user_id = ?2 AND ended_ms IS NULL";
    found(execute(connection, sql, (key, user, signed(now_ms)))?)
}

/// Ends a user's sessions, except `keep` and bots' tokens. Returns the sessions that ended.
pub fn end_other_sessions(
    connection: &Connection,
    user: UserId,
    keep: Option<SessionId>,
    now_ms: u64,
) -> rusqlite::Result<Vec<SessionId>> {
    let sql = "UPDATE sessions SET ended_ms = ?3
         WHERE user_id = ?1 AND key IS NOT ?2 AND kind <> 'bot' AND ended_ms IS NULL RETURNING key";
    all(connection, sql, (user, keep, signed(now_ms)), |row| row.get(0))
}

/// The sessions with keys greater than `after` and at most `to` that may be forgotten. These are sessions that ended or
/// expired before `over_ms`, and guests without messages that were not seen since `unseen_ms`. Without its session, a
/// guest's signed token would be valid again. So an ended session is kept as long as its token could last.
pub fn forgettable_sessions(
    connection: &Connection,
    after: i64,
    to: i64,
    over_ms: u64,
    unseen_ms: u64,
    now_ms: u64,
) -> rusqlite::Result<Vec<SessionId>> {
    let sql = "SELECT key FROM sessions WHERE key > ?1 AND key <= ?2 AND (
            (min(coalesce(ended_ms, expires_ms), coalesce(expires_ms, ended_ms)) < ?3
                AND (is_signed = 0 OR expires_ms < ?5))
            OR (kind = 'guest' AND ended_ms IS NULL AND seen_ms < ?4
                AND NOT EXISTS (SELECT 1 FROM messages WHERE user_id = sessions.user_id)))";
    all(connection, sql, (after, to, signed(over_ms), signed(unseen_ms), signed(now_ms)), |row| row.get(0))
}

/// The guests' sessions beyond a number, the least recently used. Without its session, a signed token would be valid
/// again. So ended sessions of signed tokens are given up last.
pub fn oldest_guests_beyond(connection: &Connection, kept: usize) -> rusqlite::Result<Vec<SessionId>> {
    let sql = "SELECT key FROM sessions WHERE kind = 'guest'
         ORDER BY is_signed AND ended_ms IS NOT NULL DESC, seen_ms DESC, created_ms DESC, key DESC LIMIT -1 OFFSET ?1";
    all(connection, sql, [signed(kept as u64)], |row| row.get(0))
}

pub fn forget_session(connection: &Connection, session: SessionId) -> rusqlite::Result<()> {
    execute(connection, "DELETE FROM sessions WHERE key = ?1", [session]).map(drop)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Session> {
    Ok(Session {
        key: row.get(0)?,
        user: row.get(1)?,
        role: row.get(2)?,
        kind: row.get(3)?,
        username: row.get(4)?,
        label: row.get(5)?,
        created_ms: unsigned(row.get(6)?),
        seen_ms: unsigned(row.get(7)?),
        expires_ms: row.get::<_, Option<i64>>(8)?.map(unsigned),
    })
}
