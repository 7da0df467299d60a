//! Invitations: codes that let somebody register, or into a private room, so many times and until a time.

use rusqlite::{Connection, OptionalExtension, params};

use super::super::TokenHash;
use super::{Account, AccountError, atomically, create, found, moment, number, room_id, user_id};
use crate::model::{RoomId, Timestamp, UserId};

/// An invitation that is to be.
#[derive(Debug, Clone)]
pub struct NewInvitation<'a> {
    /// What its code hashes to.
    pub code_hash: TokenHash,
    /// Into which private room; nothing for one to register.
    pub room: Option<&'a RoomId>,
    /// How often it can be used.
    pub uses: u32,
    /// Until when.
    pub expires_ms: u64,
    /// By whom.
    pub created_by: UserId,
}

/// An invitation that can still be used. Its code is known to whoever was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// Which, to those who may take it back; no secret.
    pub key: i64,
    /// Into which private room; nothing for one to register.
    pub room: Option<RoomId>,
    /// How often it can be used yet.
    pub uses_left: u32,
    /// Until when.
    pub expires_ms: u64,
    /// By whom.
    pub created_by: UserId,
}

/// What came of an invitation to a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// A member now; one use less is left.
    New(RoomId),
    /// A member before; nothing is used.
    Already(RoomId),
}

/// Makes an invitation.
///
/// # Errors
/// As SQLite says.
pub fn invite(connection: &Connection, new: &NewInvitation<'_>, now: &Timestamp) -> rusqlite::Result<i64> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO invitations (code_hash, room, uses_left, expires_ms, created_by, created_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    statement.execute(params![
        new.code_hash.0,
        new.room.map(RoomId::as_str),
        new.uses,
        number(new.expires_ms),
        new.created_by.0.as_bytes(),
        number(now.unix_ms),
    ])?;
    Ok(connection.last_insert_rowid())
}

/// The invitations that can still be used, to a room or (for none) to register, the latest first.
///
/// # Errors
/// As SQLite says.
pub fn invitations(
    connection: &Connection,
    room: Option<&RoomId>,
    now: &Timestamp,
) -> rusqlite::Result<Vec<Invitation>> {
    let mut statement = connection.prepare_cached(
        "SELECT key, room, uses_left, expires_ms, created_by FROM invitations
         WHERE room IS ?1 AND uses_left > 0 AND expires_ms > ?2 ORDER BY key DESC",
    )?;
    let rows = statement.query_map(params![room.map(RoomId::as_str), number(now.unix_ms)], |row| {
        let is_to_room = row.get_ref(1)? != rusqlite::types::ValueRef::Null;
        Ok(Invitation {
            key: row.get(0)?,
            room: is_to_room.then(|| room_id(row, 1)).transpose()?,
            uses_left: row.get(2)?,
            expires_ms: moment(row, 3)?,
            created_by: user_id(row, 4)?,
        })
    })?;
    rows.collect()
}

/// Takes an invitation back.
///
/// # Errors
/// [`AccountError::NotFound`], also where it is to another room than `room`.
pub fn uninvite(connection: &Connection, key: i64, room: Option<&RoomId>) -> Result<(), AccountError> {
    let mut statement = connection.prepare_cached("DELETE FROM invitations WHERE key = ?1 AND room IS ?2")?;
    found(statement.execute(params![key, room.map(RoomId::as_str)])?)
}

/// Uses an invitation to register, and makes the account, or does neither.
///
/// # Errors
/// [`AccountError::NotFound`] where the invitation can't be used, [`AccountError::Taken`] where the name can't.
pub fn register(
    connection: &Connection,
    code: TokenHash,
    account: &Account,
    now: &Timestamp,
) -> Result<(), AccountError> {
    atomically(connection, || {
        let room: Option<RoomId> = spend(connection, code, now)?;
        if room.is_some() {
            return Err(AccountError::NotFound);
        }
        create(connection, account)
    })
}

/// Uses an invitation to a room for somebody, who is a member then.
///
/// # Errors
/// [`AccountError::NotFound`] where it can't be used.
pub fn accept_to_room(
    connection: &Connection,
    code: TokenHash,
    user: UserId,
    now: &Timestamp,
) -> Result<Accepted, AccountError> {
    atomically(connection, || {
        let room = spend(connection, code, now)?.ok_or(AccountError::NotFound)?;
        if super::add_member(connection, &room, user, now)? {
            return Ok(Accepted::New(room));
        }
        let mut statement =
            connection.prepare_cached("UPDATE invitations SET uses_left = uses_left + 1 WHERE code_hash = ?1")?;
        statement.execute([code.0])?;
        Ok(Accepted::Already(room))
    })
}

/// Uses an invitation once, and says into which room, if into one. Looking and using are one statement, so that the last
/// use is had by one alone.
fn spend(connection: &Connection, code: TokenHash, now: &Timestamp) -> Result<Option<RoomId>, AccountError> {
    let mut statement = connection.prepare_cached(
        "UPDATE invitations SET uses_left = uses_left - 1
         WHERE code_hash = ?1 AND uses_left > 0 AND expires_ms > ?2 RETURNING room",
    )?;
    let spent = statement.query_row(params![code.0, number(now.unix_ms)], |row| {
        let is_to_room = row.get_ref(0)? != rusqlite::types::ValueRef::Null;
        is_to_room.then(|| room_id(row, 0)).transpose()
    });
    spent.optional()?.ok_or(AccountError::NotFound)
}
