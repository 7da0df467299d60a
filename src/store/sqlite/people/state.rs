//! The policy as it is at hand, and what there is one of: flags, the key of guests' tokens; and when users spoke last.

use rusqlite::{Connection, OptionalExtension, params};

use super::super::super::change::{GuestKeyBytes, Policy};
use super::super::super::policy::{ENDED_KEPT_MS, PolicySnapshot};
use super::{SessionId, accounts, bans, moment, number, room_id, rooms, user_id};
use crate::auth::guest_token::GuestKey;
use crate::model::{RoomId, UserId};

/// Reads the whole policy. Sessions that ended within a minute of the log time are part of it.
///
/// # Errors
/// As SQLite says.
pub fn policy(connection: &Connection, clock_ms: u64) -> rusqlite::Result<PolicySnapshot> {
    let flags = value(connection, "policy", |row| row.get::<_, String>(0))?;
    let flags = flags.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default();
    let mut policy = PolicySnapshot::new(flags, GuestKey::from_bytes(guest_key(connection)?.0));
    for account in accounts(connection)? {
        policy.roles.insert_mut(account.id, account.role);
    }
    let mut settings = connection.prepare("SELECT room FROM room_settings")?;
    for room in settings.query_map([], |row| room_id(row, 0))? {
        let room = room?;
        let settings = rooms::room_settings(connection, &room)?;
        policy.rooms.insert_mut(room, settings.into());
    }
    let mut members = connection.prepare("SELECT room, user_id FROM room_members")?;
    for member in members.query_map([], |row| Ok((room_id(row, 0)?, user_id(row, 1)?)))? {
        policy.members.insert_mut(member?, ());
    }
    let mut muted = connection.prepare("SELECT user_id, until_ms FROM mutes WHERE until_ms > ?1")?;
    for mute in muted.query_map([number(clock_ms)], |row| Ok((user_id(row, 0)?, moment(row, 1)?)))? {
        let (user, until_ms) = mute?;
        policy.muted.insert_mut(user, until_ms);
    }
    for ban in bans(connection, clock_ms)? {
        policy.banned.insert_mut(ban.banned, ban.until_ms);
    }
    let since_ms = clock_ms.saturating_sub(ENDED_KEPT_MS);
    let mut ended = connection.prepare("SELECT key, ended_ms FROM sessions WHERE ended_ms > ?1")?;
    for session in ended.query_map([number(since_ms)], |row| Ok((SessionId(row.get(0)?), moment(row, 1)?)))? {
        let (session, at_ms) = session?;
        policy.ended.insert_mut(session, at_ms);
    }
    Ok(policy)
}

/// Stores the flags.
///
/// # Errors
/// As SQLite says.
pub fn set_policy(connection: &Connection, policy: &Policy) -> rusqlite::Result<()> {
    set_value(connection, "policy", serde_json::to_string(policy).unwrap_or_default())
}

/// The key of guests' tokens; a new one where there is none.
///
/// # Errors
/// As SQLite says.
pub fn guest_key(connection: &Connection) -> rusqlite::Result<GuestKeyBytes> {
    if let Some(key) = value(connection, "guest_key", |row| row.get(0))? {
        return Ok(GuestKeyBytes(key));
    }
    let key = GuestKeyBytes(*GuestKey::random().as_bytes());
    set_guest_key(connection, &key)?;
    Ok(key)
}

/// Stores another key.
///
/// # Errors
/// As SQLite says.
pub fn set_guest_key(connection: &Connection, key: &GuestKeyBytes) -> rusqlite::Result<()> {
    set_value(connection, "guest_key", key.0)
}

fn value<T>(
    connection: &Connection,
    name: &str,
    read: impl FnOnce(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Option<T>> {
    connection.prepare_cached("SELECT value FROM marks WHERE name = ?1")?.query_row([name], read).optional()
}

fn set_value(connection: &Connection, name: &str, value: impl rusqlite::ToSql) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO marks (name, value) VALUES (?1, ?2)";
    connection.prepare_cached(sql)?.execute(params![name, value]).map(drop)
}

/// When a user spoke last in a room with slow mode, in log time.
///
/// # Errors
/// As SQLite says.
pub fn spoke(connection: &Connection, room: &RoomId, user: UserId) -> rusqlite::Result<Option<u64>> {
    let mut statement = connection.prepare_cached("SELECT clock_ms FROM spoke WHERE room = ?1 AND user_id = ?2")?;
    statement.query_row(params![room.as_str(), user.0.as_bytes()], |row| moment(row, 0)).optional()
}

/// Notes that a user speaks in a room with slow mode.
///
/// # Errors
/// As SQLite says.
pub fn note_spoke(connection: &Connection, room: &RoomId, user: UserId, clock_ms: u64) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO spoke (room, user_id, clock_ms) VALUES (?1, ?2, ?3)";
    let values = params![room.as_str(), user.0.as_bytes(), number(clock_ms)];
    connection.prepare_cached(sql)?.execute(values).map(drop)
}
