//! Accounts, sessions, rooms' settings, invitations and restrictions, as they are stored.

pub use super::sqlite::people::{
    Account, Ban, Banned, Invitation, InvitationId, RoomSettings, Session, SessionId, StoredGuest,
};
pub use crate::role::SessionKind;
