//! Invitations: codes that let somebody register, or into a private room, so many times and until a time.

use rusqlite::{Connection, OptionalExtension, Row, params};

use serde::{Deserialize, Serialize};

use super::super::super::TokenHash;
use super::super::super::change::NewInvitation;
use super::{AccountError, found, moment, number, room_id, user_id};
use crate::model::{RoomId, UserId};

/// Which invitation, to those who may revoke it; no secret. The proposer chooses it, at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InvitationId(pub i64);

/// An invitation that can still be used. Its code is known to whoever was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    pub key: InvitationId,
    /// Into which private room; nothing for one to register.
    pub room: Option<RoomId>,
    /// How often it can be used yet.
    pub uses_left: u32,
    /// Until when.
    pub expires_ms: u64,
    /// By whom.
    pub created_by: UserId,
}

/// Makes an invitation.
///
/// # Errors
/// As SQLite says.
pub fn invite(connection: &Connection, new: &NewInvitation, by: UserId, now_ms: u64) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO invitations (key, code_hash, room, uses_left, expires_ms, created_by, created_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    statement.execute(params![
        new.id.0,
        new.code_hash.0,
        new.room.as_ref().map(RoomId::as_str),
        new.uses,
        number(now_ms + new.span_ms),
        by.0.as_bytes(),
        number(now_ms),
    ])?;
    Ok(())
}

const INVITATION: &str = "
    SELECT key, room, uses_left, expires_ms, created_by FROM invitations WHERE uses_left > 0 AND expires_ms > ?2";

fn read(row: &Row<'_>) -> rusqlite::Result<Invitation> {
    let is_to_room = row.get_ref(1)? != rusqlite::types::ValueRef::Null;
    Ok(Invitation {
        key: InvitationId(row.get(0)?),
        room: is_to_room.then(|| room_id(row, 1)).transpose()?,
        uses_left: row.get(2)?,
        expires_ms: moment(row, 3)?,
        created_by: user_id(row, 4)?,
    })
}

/// The invitations that can still be used, to a room or (for none) to register, the latest first.
///
/// # Errors
/// As SQLite says.
pub fn invitations(connection: &Connection, room: Option<&RoomId>, now_ms: u64) -> rusqlite::Result<Vec<Invitation>> {
    let mut statement =
        connection.prepare_cached(&format!("{INVITATION} AND room IS ?1 ORDER BY created_ms DESC, key"))?;
    statement.query_map(params![room.map(RoomId::as_str), number(now_ms)], read)?.collect()
}

/// One of them.
///
/// # Errors
/// As SQLite says.
pub fn invitation(connection: &Connection, key: InvitationId, now_ms: u64) -> rusqlite::Result<Option<Invitation>> {
    let mut statement = connection.prepare_cached(&format!("{INVITATION} AND key = ?1"))?;
    statement.query_row(params![key.0, number(now_ms)], read).optional()
}

/// The one of a code.
///
/// # Errors
/// As SQLite says.
pub fn invitation_by_code(
    connection: &Connection,
    code: TokenHash,
    now_ms: u64,
) -> rusqlite::Result<Option<Invitation>> {
    let mut statement = connection.prepare_cached(&format!("{INVITATION} AND code_hash = ?1"))?;
    statement.query_row(params![code.0, number(now_ms)], read).optional()
}

/// Takes an invitation back.
///
/// # Errors
/// [`AccountError::NotFound`], also where it is to another room than `room`.
pub fn uninvite(connection: &Connection, key: InvitationId, room: Option<&RoomId>) -> Result<(), AccountError> {
    let mut statement = connection.prepare_cached("DELETE FROM invitations WHERE key = ?1 AND room IS ?2")?;
    found(statement.execute(params![key.0, room.map(RoomId::as_str)])?)
}

/// Uses an invitation to a room, and makes the user a member.
///
/// # Errors
/// [`AccountError::NotFound`] where it can't be used.
pub fn accept_to_room(
    connection: &Connection,
    code: TokenHash,
    user: UserId,
    now_ms: u64,
) -> Result<RoomId, AccountError> {
    let room = spend(connection, code, now_ms)?.ok_or(AccountError::NotFound)?;
    super::add_member(connection, &room, user, now_ms)?;
    Ok(room)
}

/// Uses an invitation once, and gives the room that it is to.
///
/// # Errors
/// [`AccountError::NotFound`].
pub fn spend(connection: &Connection, code: TokenHash, now_ms: u64) -> Result<Option<RoomId>, AccountError> {
    let mut statement = connection.prepare_cached(
        "UPDATE invitations SET uses_left = uses_left - 1
         WHERE code_hash = ?1 AND uses_left > 0 AND expires_ms > ?2 RETURNING room",
    )?;
    let spent = statement.query_row(params![code.0, number(now_ms)], |row| {
        let is_to_room = row.get_ref(0)? != rusqlite::types::ValueRef::Null;
        is_to_room.then(|| room_id(row, 0)).transpose()
    });
    spent.optional()?.ok_or(AccountError::NotFound)
}
