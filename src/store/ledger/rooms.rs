//! Rooms: their settings, their end, and admins who join private rooms.

use std::sync::Arc;

use crate::auth::permission::{Action, Target};
use crate::model::reason::Reason;
use crate::model::{Person, ROOM_DEFAULT, RoomId, Seq};
use crate::protocol::{Body, RoomPatch};

use super::super::change::Done;
use super::super::entry::{By, Event, NewMessage, Principal};
use super::super::sqlite::Fault;
use super::super::sqlite::people::{self, AuditAction, RoomSettings};
use super::changes::Made;
use super::{Ledger, Storage};

/// What a room is told of an admin that joins it without an invitation.
const JOINED: &str = "joined this private room as an admin, and can read what is written from now on";
/// What a room is told when it is no longer private.
const OPENED: &str = "opened this room: everyone can read it now";

impl Ledger {
    /// Makes an admin a member of a private room, who may read from the notice of it on.
    pub(super) fn admit(
        &mut self,
        storage: &mut impl Storage,
        room: &RoomId,
        admin: &Arc<Principal>,
    ) -> Result<Option<Event>, Fault> {
        storage.begin()?;
        let row = storage.room(room)?;
        let floor = self.head(room, row);
        let notice = self.notice(storage, room, admin, JOINED)?;
        let connection = storage.people();
        people::add_member(connection, room, admin.user(), floor, self.moment.clock_ms)?;
        self.policy.add_member(room, admin.user(), floor);
        let joined = AuditAction::JoinPrivateRoom.audited().room(Some(room));
        self.audit(connection, Some(admin.person.author()), joined)?;
        Ok(notice)
    }

    /// Stores a message of the server, in the name of the admin that it is about. Returns its event.
    fn notice(
        &mut self,
        storage: &mut impl Storage,
        room: &RoomId,
        admin: &Arc<Principal>,
        content: &str,
    ) -> Result<Option<Event>, Fault> {
        let body = Body::Announcement { content: content.into() };
        let new = NewMessage::of_request(room.clone(), Arc::clone(admin), body, None);
        let row = storage.room(room)?;
        let stored = self.append(storage, &new, row)?;
        Ok(stored.map(|stored| Event::Noticed { room: room.clone(), stored }))
    }

    pub(super) fn set_room(
        &mut self,
        storage: &mut impl Storage,
        by: &Arc<Principal>,
        room: &RoomId,
        patch: &RoomPatch,
    ) -> Made {
        let clock_ms = self.moment.clock_ms;
        // An admin that can only make the room public must not change anything else.
        if *patch != (RoomPatch { is_private: Some(false), ..RoomPatch::default() }) {
            self.policy.may(by, Action::SetRoom, Some(room), Target::Own, clock_ms)?;
        }
        if patch.is_private.is_some() {
            self.policy.may(by, Action::SetPrivate, Some(room), Target::Own, clock_ms)?;
        }
        let before = self.policy.room(room).cloned().unwrap_or_default();
        let was_private = before.is_private;
        let settings = RoomSettings {
            name: patch.name.clone().unwrap_or_else(|| before.name.clone()),
            topic: patch.topic.clone().unwrap_or_else(|| before.topic.clone()),
            posting: patch.posting.unwrap_or(before.posting),
            slow_mode_s: patch.slow_mode_s.unwrap_or(before.slow_mode_s),
            is_private: patch.is_private.unwrap_or(before.is_private),
        };
        if settings.is_private && !was_private && room.as_str() == ROOM_DEFAULT {
            return Err(Reason::DefaultRoom.into());
        }
        let connection = storage.people();
        people::set_room(connection, room, &settings)?;
        if settings.is_private && !was_private {
            people::add_member(connection, room, by.user(), Seq(0), clock_ms)?;
            self.policy.add_member(room, by.user(), Seq(0));
        }
        if !settings.is_private && was_private {
            self.policy.remove_members(room);
        }
        if settings == RoomSettings::default() {
            self.policy.rooms.remove_mut(room);
        } else {
            self.policy.rooms.insert_mut(room.clone(), settings.clone().into());
        }
        if settings != before {
            let change = AuditAction::SetRoom.audited().room(Some(room)).detail(settings.difference(&before));
            self.audit(connection, Some(by.person.author()), change)?;
        }
        let person = Person::clone(&by.person);
        self.events.push(Event::RoomChanged { room: room.clone(), settings: settings.clone(), by: person });
        if was_private && !settings.is_private {
            let notice = self.notice(storage, room, by, OPENED)?;
            self.events.extend(notice);
        }
        Ok(Done::Room(settings))
    }

    /// Deletes a room with its messages, settings, members and invitations. If its name is used again, its order goes on.
    pub(super) fn delete_room(&mut self, storage: &mut impl Storage, by: &By, room: &RoomId) -> Made {
        self.may(by, Action::DeleteRoom, Some(room), Target::Own)?;
        let row = storage.room(room)?;
        let is_there = row.is_some_and(|row| row.floor < row.head)
            || self.policy.room(room).is_some()
            || self.presence.connections(room) > 0;
        if !is_there {
            return Err(Reason::NoSuchRoom.into());
        }
        people::set_room(storage.people(), room, &RoomSettings::default())?;
        self.policy.rooms.remove_mut(room);
        self.policy.remove_members(room);
        if let Some(row) = row {
            storage.delete_room(room, row)?;
            self.events.push(Event::Forgotten { room: room.clone(), up_to: row.head });
        }
        // Messages of its people that are on their way are refused.
        self.presence.kick_all(room);
        self.audit(storage.people(), by.author(), AuditAction::DeleteRoom.audited().room(Some(room)))?;
        self.events.push(Event::RoomDeleted { room: room.clone() });
        Ok(Done::Nothing)
    }
}
