//! The model's types as SQLite values, and helpers that run statements.
//!
//! Each statement stays prepared on its connection. Everything here fails as SQLite does.

use std::error::Error;
use std::str::FromStr;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Params, Result, Row};
use uuid::Uuid;

use super::people::{AuditAction, AuditId, InvitationId, SessionId};
use crate::auth::password::PasswordHash;
use crate::model::role::{Posting, Role, SessionKind};
use crate::model::{FrameId, RoomId, Seq, UserId, Username};

/// Runs a statement. Returns the number of rows that it changed.
pub fn execute(connection: &Connection, sql: &str, values: impl Params) -> Result<usize> {
    connection.prepare_cached(sql)?.execute(values)
}

/// The first column of a query's first row, which must exist.
pub fn value<T: FromSql>(connection: &Connection, sql: &str, values: impl Params) -> Result<T> {
    connection.prepare_cached(sql)?.query_row(values, |row| row.get(0))
}

/// The first row of a query, if there is one.
pub fn first<T>(
    connection: &Connection,
    sql: &str,
    values: impl Params,
    read: impl FnOnce(&Row<'_>) -> Result<T>,
) -> Result<Option<T>> {
    connection.prepare_cached(sql)?.query_row(values, read).optional()
}

/// All rows of a query.
pub fn all<T>(
    connection: &Connection,
    sql: &str,
    values: impl Params,
    read: impl FnMut(&Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    connection.prepare_cached(sql)?.query_map(values, read)?.collect()
}

/// Converts a number to SQLite's signed form. The numbers here are far from needing the sign bit.
pub fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Converts back the number that [`signed`] made.
pub fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Defines how each type is stored, and how it is read back.
macro_rules! stored {
    ($($name:ty: |$this:ident| $stored:expr, |$value:ident| $read:expr;)*) => {$(
        impl ToSql for $name {
            fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
                let $this = self;
                Ok($stored.into())
            }
        }

        impl FromSql for $name {
            fn column_result($value: ValueRef<'_>) -> FromSqlResult<Self> {
                $read
            }
        }
    )*};
}
stored! {
    UserId: |id| id.0.as_bytes().as_slice(), |value| uuid(value).map(Self);
    FrameId: |id| id.0.as_bytes().as_slice(), |value| uuid(value).map(Self);
    Seq: |seq| signed(seq.0), |value| value.as_i64().map(|number| Self(unsigned(number)));
    SessionId: |id| id.0, |value| value.as_i64().map(Self);
    InvitationId: |id| id.0, |value| value.as_i64().map(Self);
    AuditId: |id| id.0, |value| value.as_i64().map(Self);
    RoomId: |id| id.as_str(), |value| String::column_result(value).map(Self::stored);
    Username: |name| name.as_str(), |value| String::column_result(value).map(Self::stored);
    PasswordHash: |hash| hash.as_str(), |value| value.as_str().map(Self::stored);
    Role: |role| role.as_str(), |value| word(value);
    Posting: |posting| posting.as_str(), |value| word(value);
    SessionKind: |kind| kind.as_str(), |value| word(value);
    AuditAction: |action| action.word(), |value| {
        let word = value.as_str()?;
        Self::ALL.iter().copied().find(|action| action.word() == word).ok_or(FromSqlError::InvalidType)
    };
}

fn uuid(value: ValueRef<'_>) -> FromSqlResult<Uuid> {
    <[u8; 16]>::column_result(value).map(Uuid::from_bytes)
}

/// Parses one of a fixed set of words.
fn word<T: FromStr<Err: Error + Send + Sync + 'static>>(value: ValueRef<'_>) -> FromSqlResult<T> {
    value.as_str()?.parse().map_err(FromSqlError::other)
}
