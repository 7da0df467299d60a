//! Who is muted, and who is kept out.

use std::net::IpAddr;

use rusqlite::{Connection, params};
use uuid::Uuid;

use super::{moment_or_none, number, user_id};
use crate::model::UserId;

/// Who is kept out. A guest is their session, which has a user id of its own; so one kind of ban is for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Banned {
    /// An account, or a guest's session.
    User(UserId),
    /// The guests of an address, or of an IPv6 network, as it is counted.
    Address(IpAddr),
}

impl Banned {
    fn kind(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Address(_) => "address",
        }
    }

    fn subject(&self) -> Vec<u8> {
        match self {
            Self::User(id) => id.0.as_bytes().to_vec(),
            Self::Address(IpAddr::V4(address)) => address.octets().to_vec(),
            Self::Address(IpAddr::V6(address)) => address.octets().to_vec(),
        }
    }

    fn read(kind: &str, subject: &[u8]) -> Option<Self> {
        match (kind, subject.len()) {
            ("user", 16) => Uuid::from_slice(subject).ok().map(|id| Self::User(UserId(id))),
            ("address", 4) => <[u8; 4]>::try_from(subject).ok().map(|octets| Self::Address(octets.into())),
            ("address", 16) => <[u8; 16]>::try_from(subject).ok().map(|octets| Self::Address(octets.into())),
            _ => None,
        }
    }
}

/// A ban as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// Whom.
    pub banned: Banned,
    /// Until when, if not for good.
    pub until_ms: Option<u64>,
    /// Why, in the admin's words.
    pub reason: Box<str>,
    /// By whom.
    pub by: UserId,
}

/// Keeps somebody out; a second ban takes the first one's place.
///
/// # Errors
/// As SQLite says.
pub fn ban(connection: &Connection, ban: &Ban, now_ms: u64) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT OR REPLACE INTO bans (kind, subject, until_ms, reason, banned_by, created_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    let Ban { banned, until_ms, reason, by } = ban;
    let until = until_ms.map(number);
    let values = params![banned.kind(), banned.subject(), until, &**reason, by.0.as_bytes(), number(now_ms)];
    statement.execute(values).map(drop)
}

/// Lets somebody in again; says whether they were kept out.
///
/// # Errors
/// As SQLite says.
pub fn unban(connection: &Connection, banned: Banned) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached("DELETE FROM bans WHERE kind = ?1 AND subject = ?2")?;
    Ok(statement.execute(params![banned.kind(), banned.subject()])? > 0)
}

/// All bans that hold now, the oldest first.
///
/// # Errors
/// As SQLite says.
pub fn bans(connection: &Connection, now_ms: u64) -> rusqlite::Result<Vec<Ban>> {
    let mut statement = connection.prepare_cached(
        "SELECT kind, subject, until_ms, reason, banned_by FROM bans WHERE until_ms IS NULL OR until_ms > ?1
         ORDER BY created_ms, subject",
    )?;
    let rows = statement.query_map([number(now_ms)], |row| {
        let (kind, subject): (String, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let (until_ms, reason, by) = (moment_or_none(row, 2)?, row.get::<_, String>(3)?.into(), user_id(row, 4)?);
        Ok(Banned::read(&kind, &subject).map(|banned| Ban { banned, until_ms, reason, by }))
    })?;
    rows.filter_map(Result::transpose).collect()
}

/// Mutes somebody until a time; a time that is past ends it.
///
/// # Errors
/// As SQLite says.
pub fn mute(connection: &Connection, user: UserId, until_ms: u64, by: UserId, now_ms: u64) -> rusqlite::Result<()> {
    if until_ms <= now_ms {
        return connection
            .prepare_cached("DELETE FROM mutes WHERE user_id = ?1")?
            .execute([user.0.as_bytes()])
            .map(drop);
    }
    let mut statement =
        connection.prepare_cached("INSERT OR REPLACE INTO mutes (user_id, until_ms, muted_by) VALUES (?1, ?2, ?3)")?;
    statement.execute(params![user.0.as_bytes(), number(until_ms), by.0.as_bytes()]).map(drop)
}

/// Neither muted nor banned any longer.
pub(super) fn lift_all(connection: &Connection, user: UserId) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM mutes WHERE user_id = ?1")?.execute([user.0.as_bytes()])?;
    unban(connection, Banned::User(user)).map(drop)
}
