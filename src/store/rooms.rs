//! The rooms as the writer knows them: where each one's order stands, and in which somebody is.
//!
//! A room's row is kept while it has messages or members, so that its order never begins again while anybody could
//! have seen it. Who is there is known here because everybody's coming and going passes through the store.

use std::collections::HashMap;

use rusqlite::{Connection, params};

use crate::limits::ROOMS_CACHED_MAX;
use crate::model::RoomId;

use super::Append;
use super::messages::{self, RoomRow};

/// What is known of the rooms without asking the database.
#[derive(Debug, Default)]
pub struct Rooms {
    rows: HashMap<RoomId, RoomRow>,
    /// How many are in each room with members.
    members: HashMap<RoomId, usize>,
}

impl Rooms {
    /// Takes note of who comes and goes in a batch. It is so whether or not the batch can be stored.
    pub fn note(&mut self, batch: &[Append]) {
        for append in batch {
            match append {
                Append::Join { room, .. } => *self.members.entry(room.clone()).or_default() += 1,
                Append::Leave { room, .. } => {
                    if let Some(count) = self.members.get_mut(room) {
                        *count -= 1;
                        if *count == 0 {
                            self.members.remove(room);
                        }
                    }
                }
                Append::Message(_) | Append::Announcement { .. } => {}
            }
        }
    }

    /// A room's row, if there is one.
    pub fn row(&mut self, connection: &Connection, id: &RoomId) -> rusqlite::Result<Option<RoomRow>> {
        if let Some(row) = self.rows.get(id) {
            return Ok(Some(*row));
        }
        let row = messages::room(connection, id)?;
        if let Some(row) = row {
            self.set(id, row);
        }
        Ok(row)
    }

    /// Where a room's order stands now.
    pub fn set(&mut self, id: &RoomId, row: RoomRow) {
        if let Some(known) = self.rows.get_mut(id) {
            *known = row;
            return;
        }
        if self.rows.len() >= ROOMS_CACHED_MAX {
            self.rows.clear();
        }
        self.rows.insert(id.clone(), row);
    }

    /// Forgets all rows, as what was read may be of what was rolled back.
    pub fn clear(&mut self) {
        self.rows.clear();
    }

    /// Deletes the rows of rooms without messages and members, of those whose key is in a range.
    pub fn delete_empty(&mut self, connection: &Connection, after: i64, up_to: i64) -> rusqlite::Result<()> {
        let mut silent = connection.prepare_cached(
            "SELECT key, id FROM rooms WHERE key > ?1 AND key <= ?2
             AND NOT EXISTS (SELECT 1 FROM messages WHERE room = rooms.key)",
        )?;
        let mut delete = connection.prepare_cached("DELETE FROM rooms WHERE key = ?1")?;
        let mut rows = silent.query(params![after, up_to])?;
        while let Some(row) = rows.next()? {
            let id = messages::room_id(row, 1)?;
            if !self.members.contains_key(&id) {
                delete.execute([row.get::<_, i64>(0)?])?;
                self.rows.remove(&id);
            }
        }
        Ok(())
    }
}
