//! The stored policy, named single values, and when users last posted in rooms with slow mode.

use rusqlite::types::FromSql;
use rusqlite::{Connection, ToSql};

use super::super::super::change::Policy;
use super::super::super::policy::{ENDED_KEPT_MS, PolicySnapshot, ServerId};
use super::super::row::{all, execute, first, signed, unsigned};
use super::{accounts, bans, rooms};
use crate::auth::guest_token::GuestKey;
use crate::auth::secret::random_name;
use crate::model::{RoomId, UserId};

/// Reads the whole policy. It includes sessions that ended within a minute before the log time.
pub fn policy(connection: &Connection, clock_ms: u64) -> rusqlite::Result<PolicySnapshot> {
    let flags = value::<String>(connection, "policy")?;
    let flags = flags.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default();
    let mut policy = PolicySnapshot::new(flags, guest_key(connection)?, server_id(connection, clock_ms)?);
    for account in accounts(connection)? {
        policy.roles.insert_mut(account.id, account.role);
    }
    for (room, settings) in rooms::room_settings(connection)? {
        policy.rooms.insert_mut(room, settings.into());
    }
    let members = "SELECT room, user_id, floor FROM room_members";
    for (room, user, floor) in all(connection, members, [], |row| row.try_into())? {
        policy.add_member(&room, user, floor);
    }
    let muted = "SELECT user_id, until_ms FROM mutes WHERE until_ms > ?1";
    for (user, until_ms) in all(connection, muted, [signed(clock_ms)], |row| row.try_into())? {
        policy.muted.insert_mut(user, unsigned(until_ms));
    }
    for ban in bans(connection, clock_ms)? {
        policy.banned.insert_mut(ban.banned, ban.until_ms);
    }
    let since_ms = signed(clock_ms.saturating_sub(ENDED_KEPT_MS));
    let ended = "SELECT key, ended_ms FROM sessions WHERE ended_ms > ?1";
    for (session, at_ms) in all(connection, ended, [since_ms], |row| row.try_into())? {
        policy.ended.insert_mut(session, unsigned(at_ms));
    }
    Ok(policy)
}

/// Stores the policy flags.
pub fn set_policy(connection: &Connection, policy: &Policy) -> rusqlite::Result<()> {
    set_value(connection, "policy", serde_json::to_string(policy).unwrap_or_default())
}

/// The key that signs guest tokens. A new key is made if there is none.
fn guest_key(connection: &Connection) -> rusqlite::Result<GuestKey> {
    if let Some(bytes) = value(connection, "guest_key")? {
        return Ok(GuestKey::from_bytes(bytes));
    }
    let key = GuestKey::random();
    set_guest_key(connection, &key)?;
    Ok(key)
}

/// The server's id. It is made if there is none.
fn server_id(connection: &Connection, clock_ms: u64) -> rusqlite::Result<ServerId> {
    if let (Some(id), Some(made_ms)) = (value::<String>(connection, "server_id")?, value(connection, "server_id_ms")?) {
        return Ok(ServerId { id: id.into(), made_ms: unsigned(made_ms) });
    }
    let server = ServerId { id: random_name().into(), made_ms: clock_ms };
    set_value(connection, "server_id", &*server.id)?;
    set_value(connection, "server_id_ms", signed(clock_ms))?;
    Ok(server)
}

pub fn set_guest_key(connection: &Connection, key: &GuestKey) -> rusqlite::Result<()> {
    set_value(connection, "guest_key", *key.as_bytes())
}

pub(super) fn value<T: FromSql>(connection: &Connection, name: &str) -> rusqlite::Result<Option<T>> {
    first(connection, "SELECT value FROM marks WHERE name = ?1", [name], |row| row.get(0))
}

pub(super) fn set_value(connection: &Connection, name: &str, value: impl ToSql) -> rusqlite::Result<()> {
    execute(connection, "INSERT OR REPLACE INTO marks (name, value) VALUES (?1, ?2)", (name, value)).map(drop)
}

/// When a user last posted in a room with slow mode, in log time.
pub fn last_message_ms(connection: &Connection, room: &RoomId, user: UserId) -> rusqlite::Result<Option<u64>> {
    let sql = "SELECT clock_ms FROM last_posts WHERE room = ?1 AND user_id = ?2";
    first(connection, sql, (room, user), |row| row.get(0).map(unsigned))
}

/// Notes that a user posts in a room with slow mode.
pub fn note_message(connection: &Connection, room: &RoomId, user: UserId, clock_ms: u64) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO last_posts (room, user_id, clock_ms) VALUES (?1, ?2, ?3)";
    execute(connection, sql, (room, user, signed(clock_ms))).map(drop)
}
