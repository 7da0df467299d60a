//! Invitations: codes to register or to join a private room. Each has a number of uses and an end.

use rusqlite::{Connection, Row};
use serde::{Deserialize, Serialize};

use super::super::super::TokenHash;
use super::super::super::change::NewInvitation;
use super::super::super::ledger::Stop;
use super::super::row::{all, execute, first, signed, unsigned};
use super::found;
use crate::model::reason::Reason;
use crate::model::{RoomId, UserId};

/// Names an invitation to users that may revoke it. It is no secret. The proposer chooses it at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InvitationId(pub i64);

/// An invitation that can still be used. Its code is not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    pub key: InvitationId,
    /// The private room; `None` for an invitation to register.
    pub room: Option<RoomId>,
    pub uses_left: u32,
    /// In log time.
    pub expires_ms: u64,
    pub created_by: UserId,
}

/// Creates an invitation.
pub fn invite(connection: &Connection, new: &NewInvitation, by: UserId, now_ms: u64) -> rusqlite::Result<()> {
    let sql = "INSERT INTO invitations (key, code_hash, room, uses_left, expires_ms, created_by, created_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let expires_ms = signed(now_ms + new.span_ms);
    let values = (new.id, new.code_hash.0, &new.room, new.uses, expires_ms, by, signed(now_ms));
    execute(connection, sql, values).map(drop)
}

const INVITATION: &str = "
    SELECT key, room, uses_left, expires_ms, created_by FROM invitations WHERE uses_left > 0 AND expires_ms > ?2";

fn read(row: &Row<'_>) -> rusqlite::Result<Invitation> {
    Ok(Invitation {
        key: row.get(0)?,
        room: row.get(1)?,
        uses_left: row.get(2)?,
        expires_ms: unsigned(row.get(3)?),
        created_by: row.get(4)?,
    })
}

/// The invitations that can still be used, the latest first: to a room, or to register for `None`.
pub fn invitations(connection: &Connection, room: Option<&RoomId>, now_ms: u64) -> rusqlite::Result<Vec<Invitation>> {
    let sql = format!("{INVITATION} AND room IS ?1 ORDER BY created_ms DESC, key");
    all(connection, &sql, (room, signed(now_ms)), read)
}

/// An invitation by its key, if it can still be used.
pub fn invitation(connection: &Connection, key: InvitationId, now_ms: u64) -> rusqlite::Result<Option<Invitation>> {
    first(connection, &format!("{INVITATION} AND key = ?1"), (key, signed(now_ms)), read)
}

/// An invitation by its code, if it can still be used.
pub fn invitation_by_code(
    connection: &Connection,
    code: TokenHash,
    now_ms: u64,
) -> rusqlite::Result<Option<Invitation>> {
    first(connection, &format!("{INVITATION} AND code_hash = ?1"), (code.0, signed(now_ms)), read)
}

/// Revokes an invitation.
///
/// # Errors
/// `NotFound`, also if the invitation is not to `room`.
pub fn revoke(connection: &Connection, key: InvitationId, room: Option<&RoomId>) -> Result<(), Stop> {
    found(execute(connection, "DELETE FROM invitations WHERE key = ?1 AND room IS ?2", (key, room))?)
}

/// Uses an invitation once. Returns its key.
///
/// # Errors
/// `NotFound`, if it can't be used.
pub fn spend(connection: &Connection, code: TokenHash, now_ms: u64) -> Result<InvitationId, Stop> {
    let sql = "UPDATE invitations SET uses_left = uses_left - 1
         WHERE code_hash = ?1 AND uses_left > 0 AND expires_ms > ?2 RETURNING key";
    let used = first(connection, sql, (code.0, signed(now_ms)), |row| row.get(0))?;
    used.ok_or_else(|| Reason::NotFound.into())
}
