//! The stored types of accounts, sessions, room settings, invitations and restrictions, for use outside the store.

pub use super::sqlite::people::{
    Account, Ban, Banned, Invitation, InvitationId, RoomSettings, Session, SessionId, StoredGuest,
};
pub use crate::model::role::SessionKind;
