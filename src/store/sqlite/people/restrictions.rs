//! Mutes and bans.

use std::net::IpAddr;

use rusqlite::{Connection, Row};
use uuid::Uuid;

use super::super::row::{all, execute, signed, unsigned};
use crate::model::UserId;

/// The subject of a ban. A guest's session has its own user id, so one kind of ban covers accounts and guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Banned {
    /// An account, or a guest's session.
    User(UserId),
    /// The guests of an address, or of an IPv6 network, as limits count it.
    Address(IpAddr),
}

impl Banned {
    /// Its kind and subject, as they are stored.
    fn columns(self) -> (&'static str, Vec<u8>) {
        match self {
            Self::User(id) => ("user", id.0.as_bytes().to_vec()),
            Self::Address(IpAddr::V4(address)) => ("address", address.octets().to_vec()),
            Self::Address(IpAddr::V6(address)) => ("address", address.octets().to_vec()),
        }
    }

    /// Reads what [`columns`](Self::columns) made; `None` if it is malformed.
    fn read(kind: &str, subject: &[u8]) -> Option<Self> {
        if kind == "user" {
            return Uuid::from_slice(subject).ok().map(|id| Self::User(UserId(id)));
        }
        let v4 = || <[u8; 4]>::try_from(subject).map(IpAddr::from);
        let v6 = || <[u8; 16]>::try_from(subject).map(IpAddr::from);
        v4().or_else(|_| v6()).ok().map(Self::Address)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    pub banned: Banned,
    /// The end in log time; `None` if it does not end.
    pub until_ms: Option<u64>,
    /// The admin's text.
    pub reason: Box<str>,
    pub by: UserId,
}

/// Bans a user or an address. A second ban replaces the first.
pub fn ban(connection: &Connection, ban: &Ban, now_ms: u64) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO bans (kind, subject, until_ms, reason, banned_by, created_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let Ban { banned, until_ms, reason, by } = ban;
    let (kind, subject) = banned.columns();
    execute(connection, sql, (kind, subject, until_ms.map(signed), reason, by, signed(now_ms))).map(drop)
}

/// Ends a ban. Returns whether there was one.
pub fn unban(connection: &Connection, banned: Banned) -> rusqlite::Result<bool> {
    Ok(execute(connection, "DELETE FROM bans WHERE kind = ?1 AND subject = ?2", banned.columns())? > 0)
}

/// All bans in force, the oldest first.
pub fn bans(connection: &Connection, now_ms: u64) -> rusqlite::Result<Vec<Ban>> {
    let sql = "SELECT kind, subject, until_ms, reason, banned_by FROM bans WHERE until_ms IS NULL OR until_ms > ?1
         ORDER BY created_ms, subject";
    let read = |row: &Row<'_>| {
        let Some(banned) = Banned::read(row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_blob()?) else { return Ok(None) };
        let until_ms = row.get::<_, Option<i64>>(2)?.map(unsigned);
        Ok(Some(Ban { banned, until_ms, reason: row.get(3)?, by: row.get(4)? }))
    };
    Ok(all(connection, sql, [signed(now_ms)], read)?.into_iter().flatten().collect())
}

/// Mutes a user until a log time. A time in the past ends the mute.
pub fn mute(connection: &Connection, user: UserId, until_ms: u64, by: UserId, now_ms: u64) -> rusqlite::Result<()> {
    if until_ms <= now_ms {
        return unmute(connection, user);
    }
    let sql = "INSERT OR REPLACE INTO mutes (user_id, until_ms, muted_by) VALUES (?1, ?2, ?3)";
    execute(connection, sql, (user, signed(until_ms), by)).map(drop)
}

pub(super) fn unmute(connection: &Connection, user: UserId) -> rusqlite::Result<()> {
    execute(connection, "DELETE FROM mutes WHERE user_id = ?1", [user]).map(drop)
}
