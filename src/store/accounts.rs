//! The stored types of accounts, sessions, room settings, invitations, restrictions and the audit log, for use outside the store.

pub use super::sqlite::people::{
    Account, AuditAction, AuditEntry, AuditId, Ban, Banned, Invitation, InvitationId, RoomSettings, Session, SessionId,
    StoredGuest,
};
pub use crate::model::role::SessionKind;
