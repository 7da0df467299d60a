//! The changes that upkeep proposes: what is forgotten because of its age, or of the bounds on its size.

use crate::model::{FrameId, RoomId, Seq};
use crate::protocol::Body;

use super::super::change::Done;
use super::super::entry::Event;
use super::super::sqlite::Connection;
use super::super::sqlite::people::{self, AuditId, SessionId};
use super::changes::Made;
use super::{Freed, Ledger, Storage};

impl Ledger {
    pub(super) fn forget(&mut self, storage: &mut impl Storage, room: &RoomId, up_to: Seq) -> Made {
        if let Some(row) = storage.room(room)? {
            // This also runs if the frames are already forgotten, as rows of a long order may be left.
            let up_to = up_to.min(row.head).max(row.floor);
            storage.forget(room, row, up_to)?;
            if row.floor < up_to {
                self.events.push(Event::Forgotten { room: room.clone(), up_to });
            }
        }
        Ok(Done::Nothing)
    }

    /// Erases the texts of the messages that are there. Clients that have seen them are not told, as with messages that
    /// are forgotten.
    pub(super) fn erase_messages(&mut self, storage: &mut impl Storage, room: &RoomId, messages: &[FrameId]) -> Made {
        let Some(row) = storage.room(room)? else { return Ok(Done::Nothing) };
        let mut erased = Vec::with_capacity(messages.len());
        for id in messages {
            let Some(mut message) = storage.by_id(room, row, *id)?.filter(|message| message.is_there()) else {
                continue;
            };
            message.apply(&Body::Delete { message_id: *id }, self.moment.wall_ms);
            let frame = message.stored(false, &mut self.json);
            storage.erase(row, &message, &frame, Freed::Left)?;
            erased.push(frame);
        }
        if !erased.is_empty() {
            self.events.push(Event::Erased { room: room.clone(), messages: erased });
        }
        Ok(Done::Nothing)
    }

    pub(super) fn forget_rooms(&self, storage: &mut impl Storage, rooms: &[RoomId]) -> Made {
        let is_over = |room: &&RoomId| self.presence.connections(room) == 0 && !self.policy.has_floors(room);
        for room in rooms.iter().filter(is_over) {
            storage.forget_room(room)?;
        }
        Ok(Done::Nothing)
    }

    pub(super) fn forget_sessions(&mut self, people: &Connection, sessions: &[SessionId]) -> Made {
        // A recently ended session is kept, as entries of it may be in flight. After a restart, only its row says that it
        // has ended.
        for session in sessions.iter().filter(|session| !self.policy.ended.contains_key(session)) {
            people::forget_session(people, *session)?;
        }
        self.stored_guests.clear();
        Ok(Done::Nothing)
    }
}

pub(super) fn forget_audit_entries(people: &Connection, entries: &[AuditId]) -> Made {
    for entry in entries {
        people::forget_audit_entry(people, *entry)?;
    }
    Ok(Done::Nothing)
}
