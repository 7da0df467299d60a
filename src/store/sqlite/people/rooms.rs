//! What admins have set of rooms, and who is a member of a private one. Kept apart from the rooms themselves, which come
//! and go with their messages.

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::{atomically, number, room_id, word};
use crate::model::{RoomId, UserId};
use crate::protocol::RoomShown;
use crate::role::Posting;

/// What is set of a room. The default is what every room has until an admin says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomSettings {
    /// What it is called, where not by its id; else empty.
    pub name: Box<str>,
    /// What it is about.
    pub topic: Box<str>,
    /// Who may post.
    pub posting: Posting,
    /// Seconds from one message of somebody to their next; 0 for no such wait.
    pub slow_mode_s: u32,
    /// Whether only members may enter.
    pub is_private: bool,
}

impl RoomSettings {
    /// As it is told.
    #[must_use]
    pub fn shown<'a>(&'a self, id: &'a RoomId) -> RoomShown<'a> {
        let Self { name, topic, posting, slow_mode_s, is_private } = self;
        let name = if name.is_empty() { id.as_str() } else { name };
        RoomShown { id, name, topic, posting: *posting, slow_mode_s: *slow_mode_s, private: *is_private }
    }
}

/// What is set of a room.
///
/// # Errors
/// As SQLite says.
pub fn room_settings(connection: &Connection, room: &RoomId) -> rusqlite::Result<RoomSettings> {
    let mut statement = connection
        .prepare_cached("SELECT name, topic, posting, slow_mode_s, is_private FROM room_settings WHERE room = ?1")?;
    let settings = statement.query_row([room.as_str()], |row| {
        Ok(RoomSettings {
            name: row.get::<_, String>(0)?.into(),
            topic: row.get::<_, String>(1)?.into(),
            posting: word(row, 2)?,
            slow_mode_s: row.get(3)?,
            is_private: row.get(4)?,
        })
    });
    settings.optional().map(Option::unwrap_or_default)
}

/// Sets all of it. A room that is public has no list of members, so one that becomes private begins with none: whoever
/// makes it private is to be added in the same breath.
///
/// # Errors
/// As SQLite says.
pub fn set_room(connection: &Connection, room: &RoomId, settings: &RoomSettings) -> rusqlite::Result<()> {
    atomically(connection, || {
        let id = room.as_str();
        if !settings.is_private {
            connection.prepare_cached("DELETE FROM room_members WHERE room = ?1")?.execute([id])?;
            connection.prepare_cached("DELETE FROM invitations WHERE room = ?1")?.execute([id])?;
        }
        if *settings == RoomSettings::default() {
            return connection.prepare_cached("DELETE FROM room_settings WHERE room = ?1")?.execute([id]).map(drop);
        }
        let mut statement = connection.prepare_cached(
            "INSERT OR REPLACE INTO room_settings (room, name, topic, posting, slow_mode_s, is_private)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        let RoomSettings { name, topic, posting, slow_mode_s, is_private } = settings;
        statement.execute(params![id, &**name, &**topic, posting.as_str(), slow_mode_s, is_private]).map(drop)
    })
}

/// Makes somebody a member of a private room; says whether they were none.
///
/// # Errors
/// As SQLite says.
pub fn add_member(connection: &Connection, room: &RoomId, user: UserId, now_ms: u64) -> rusqlite::Result<bool> {
    let mut statement = connection
        .prepare_cached("INSERT OR IGNORE INTO room_members (room, user_id, since_ms) VALUES (?1, ?2, ?3)")?;
    Ok(statement.execute(params![room.as_str(), user.0.as_bytes(), number(now_ms)])? > 0)
}

/// Puts somebody out of a private room for good; says whether they were in it.
///
/// # Errors
/// As SQLite says.
pub fn remove_member(connection: &Connection, room: &RoomId, user: UserId) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached("DELETE FROM room_members WHERE room = ?1 AND user_id = ?2")?;
    Ok(statement.execute(params![room.as_str(), user.0.as_bytes()])? > 0)
}

/// The private rooms that somebody is a member of, ordered by id.
///
/// # Errors
/// As SQLite says.
pub fn rooms_of(connection: &Connection, user: UserId) -> rusqlite::Result<Vec<RoomId>> {
    let mut statement = connection.prepare_cached("SELECT room FROM room_members WHERE user_id = ?1 ORDER BY room")?;
    statement.query_map([user.0.as_bytes()], |row| room_id(row, 0))?.collect()
}
