//! Settings of rooms, and members of private rooms. They are kept apart from the rooms, which come and go with their
//! messages.

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::super::row::{all, execute, signed};
use crate::model::role::Posting;
use crate::model::{RoomId, Seq, UserId};
use crate::protocol::RoomSettingsView;

/// A room's settings. The default applies to every room until an admin changes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomSettings {
    /// Empty if the room is shown by its id.
    pub name: Box<str>,
    pub topic: Box<str>,
    pub posting: Posting,
    /// Seconds between two messages of a user; 0 for no limit.
    pub slow_mode_s: u32,
    /// Whether only members may join.
    pub is_private: bool,
}

impl RoomSettings {
    /// The settings that differ from those before, without texts, for the audit log.
    pub fn difference(&self, before: &Self) -> String {
        let Self { name, topic, posting, slow_mode_s, is_private } = self;
        let settings = [
            (*name != before.name).then(|| "name".to_owned()),
            (*topic != before.topic).then(|| "topic".to_owned()),
            (*posting != before.posting).then(|| format!("posting {posting}")),
            (*slow_mode_s != before.slow_mode_s).then(|| format!("slow_mode_s {slow_mode_s}")),
            (*is_private != before.is_private).then(|| format!("private {is_private}")),
        ];
        settings.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// The settings as clients receive them.
    pub fn shown<'a>(&'a self, id: &'a RoomId) -> RoomSettingsView<'a> {
        let Self { name, topic, posting, slow_mode_s, is_private } = self;
        let name = if name.is_empty() { id.as_str() } else { name };
        RoomSettingsView { id, name, topic, posting: *posting, slow_mode_s: *slow_mode_s, private: *is_private }
    }
}

/// The settings of all rooms that have any.
pub fn room_settings(connection: &Connection) -> rusqlite::Result<Vec<(RoomId, RoomSettings)>> {
    let sql = "SELECT name, topic, posting, slow_mode_s, is_private, room FROM room_settings";
    all(connection, sql, [], |row| {
        let settings = RoomSettings {
            name: row.get(0)?,
            topic: row.get(1)?,
            posting: row.get(2)?,
            slow_mode_s: row.get(3)?,
            is_private: row.get(4)?,
        };
        Ok((row.get(5)?, settings))
    })
}

/// Stores all settings of a room. A public room has no members and no invitations. So a room that becomes private
/// begins with none, and the same change must add the client that made it private.
pub fn set_room(connection: &Connection, room: &RoomId, settings: &RoomSettings) -> rusqlite::Result<()> {
    if !settings.is_private {
        execute(connection, "DELETE FROM room_members WHERE room = ?1", [room])?;
        execute(connection, "DELETE FROM invitations WHERE room = ?1", [room])?;
    }
    if *settings == RoomSettings::default() {
        return execute(connection, "DELETE FROM room_settings WHERE room = ?1", [room]).map(drop);
    }
    let sql = "INSERT OR REPLACE INTO room_settings (room, name, topic, posting, slow_mode_s, is_private)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let RoomSettings { name, topic, posting, slow_mode_s, is_private } = settings;
    execute(connection, sql, (room, name, topic, posting, slow_mode_s, is_private)).map(drop)
}

/// Makes a user a member of a private room, who may read above a seq. Returns whether the user was not a member.
pub fn add_member(
    connection: &Connection,
    room: &RoomId,
    user: UserId,
    floor: Seq,
    now_ms: u64,
) -> rusqlite::Result<bool> {
    let sql = "INSERT OR IGNORE INTO room_members (room, user_id, floor, since_ms) VALUES (?1, ?2, ?3, ?4)";
    Ok(execute(connection, sql, (room, user, floor, signed(now_ms)))? > 0)
}

/// Removes a user from the members of a private room. Returns whether the user was a member.
pub fn remove_member(connection: &Connection, room: &RoomId, user: UserId) -> rusqlite::Result<bool> {
    Ok(execute(connection, "DELETE FROM room_members WHERE room = ?1 AND user_id = ?2", (room, user))? > 0)
}

/// The private rooms that a user is a member of, ordered by id.
pub fn rooms_of(connection: &Connection, user: UserId) -> rusqlite::Result<Vec<RoomId>> {
    let sql = "SELECT room FROM room_members WHERE user_id = ?1 ORDER BY room";
    all(connection, sql, [user], |row| row.get(0))
}
