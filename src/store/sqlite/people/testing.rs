//! The rows of all tables, for tests that compare two databases.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use super::signed;

/// Each table with its rows that count at a log time (`?1`), in an order that does not depend on when they were
/// written. Upkeep may have removed rows that do not count.
const TABLES: &[(&str, &str)] = &[
    ("accounts", "SELECT * FROM accounts WHERE ?1 > 0 ORDER BY key"),
    ("skeletons", "SELECT * FROM skeletons WHERE ?1 > 0 ORDER BY skeleton"),
    ("sessions", "SELECT * FROM sessions WHERE ?1 > 0 ORDER BY key"),
    ("invitations", "SELECT * FROM invitations WHERE uses_left > 0 AND expires_ms > ?1 ORDER BY key"),
    ("mutes", "SELECT * FROM mutes WHERE until_ms > ?1 ORDER BY user_id"),
    ("bans", "SELECT * FROM bans WHERE until_ms IS NULL OR until_ms > ?1 ORDER BY kind, subject"),
    ("room_settings", "SELECT * FROM room_settings WHERE ?1 > 0 ORDER BY room"),
    ("room_members", "SELECT * FROM room_members WHERE ?1 > 0 ORDER BY room, user_id"),
    ("last_posts", "SELECT * FROM last_posts WHERE clock_ms > ?1 - 3600000 ORDER BY room, user_id"),
    ("audit", "SELECT * FROM audit WHERE ?1 > 0 ORDER BY key"),
    ("marks", "SELECT * FROM marks WHERE name IN ('policy', 'guest_key', 'setup') AND ?1 > 0 ORDER BY name"),
];

/// One line for each row.
pub fn dump(connection: &Connection, clock_ms: u64) -> rusqlite::Result<Vec<String>> {
    let mut lines = Vec::new();
    for (table, sql) in TABLES {
        let mut statement = connection.prepare_cached(sql)?;
        let columns = statement.column_count();
        let rows = statement.query_map([signed(clock_ms)], |row| line(table, columns, row))?;
        for row in rows {
            lines.push(row?);
        }
    }
    Ok(lines)
}

fn line(table: &str, columns: usize, row: &Row<'_>) -> rusqlite::Result<String> {
    let mut line = table.to_owned();
    for column in 0..columns {
        let value = match row.get_ref(column)? {
            ValueRef::Null => "-".to_owned(),
            ValueRef::Integer(number) => number.to_string(),
            ValueRef::Real(number) => number.to_string(),
            ValueRef::Text(text) => format!("{:?}", String::from_utf8_lossy(text)),
            ValueRef::Blob(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        line += &format!(" {value}");
    }
    Ok(line)
}

/// The errors that SQLite finds in a database file, including its word index.
pub fn integrity(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    connection.prepare_cached("PRAGMA integrity_check")?.query_map([], |row| row.get(0))?.collect()
}
