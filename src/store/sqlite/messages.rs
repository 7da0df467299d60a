//! Messages in the database: written once by the store's thread, read by whoever has a connection.

use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use crate::limits::{HISTORY_MAX, PAST_FRAMES_MAX, RING_BYTES_MAX};
use crate::model::{FrameId, Nonce, Person, RoomId, Seq, UserId, Username};
use crate::protocol::FrameType;

use super::super::entry::{NewMessage, Stored};
use super::super::ledger::RoomRow;
use super::super::message::Message;
use super::super::{KeptRoom, Kinds, Side};
use super::search;

/// What a message's row has, in the order in which [`message`] reads it.
pub const COLUMNS: &str = "m.id, r.id, m.seq, m.user_id, m.username, m.nonce, m.content, m.reply_to, m.at_ms, m.kind,
    m.message_id, m.deleted_ms";

/// What is a message, and no event.
pub const IS_MESSAGE: &str = "m.kind IN ('text', 'announcement')";

/// Where they come from.
pub const FROM: &str = "FROM messages m JOIN rooms r ON r.key = m.room";

/// A room's row, if there is one.
pub fn room(connection: &Connection, id: &RoomId) -> rusqlite::Result<Option<RoomRow>> {
    let mut statement = connection.prepare_cached("SELECT key, head, floor FROM rooms WHERE id = ?1")?;
    let read = |row: &Row<'_>| Ok(RoomRow { key: row.get(0)?, head: seq(row, 1)?, floor: seq(row, 2)? });
    statement.query_row([id.as_str()], read).optional()
}

/// Makes a room's row.
pub fn insert_room(connection: &Connection, id: &RoomId) -> rusqlite::Result<RoomRow> {
    connection.prepare_cached("INSERT INTO rooms (id, head) VALUES (?1, 0)")?.execute([id.as_str()])?;
    Ok(RoomRow { key: connection.last_insert_rowid(), ..RoomRow::default() })
}

/// The key of the next message. No key is given twice, not even when the newest messages are deleted: a row of the index of
/// words that is deleted and made again can damage the index (FTS5, with its option `secure-delete`).
pub fn next_key(connection: &Connection) -> rusqlite::Result<i64> {
    let sql = "SELECT 1 + max(coalesce((SELECT max(key) FROM messages), 0),
        coalesce((SELECT value FROM marks WHERE name = 'message_key'), 0))";
    connection.prepare_cached(sql)?.query_row([], |row| row.get(0))
}

/// Notes the last key that was given, before messages are deleted.
fn keep_key(connection: &Connection) -> rusqlite::Result<()> {
    let sql = "INSERT INTO marks (name, value)
        SELECT 'message_key', max(key) FROM messages HAVING max(key) IS NOT NULL
        ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)";
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

/// Writes a message and its words. False where its author has used its nonce before; then nothing is written.
pub fn insert(
    connection: &Connection,
    key: i64,
    room: RoomRow,
    new: &NewMessage,
    stored: &Stored,
    wall_ms: u64,
) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO messages (id, room, seq, user_id, username, nonce, content, reply_to, at_ms, kind, message_id, key)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) ON CONFLICT (user_id, nonce) DO NOTHING",
    )?;
    let inserted = statement.execute(params![
        stored.id.0.as_bytes(),
        room.key,
        number(stored.seq.0),
        new.author.person.id.0.as_bytes(),
        new.author.person.username.as_str(),
        new.nonce.as_ref().map(Nonce::as_str),
        new.body.content(),
        new.body.reply_to().as_ref().map(|id| id.0.as_bytes()),
        number(wall_ms),
        new.body.kind().as_str(),
        new.body.message_id().as_ref().map(|id| id.0.as_bytes()),
        key,
    ])?;
    if inserted == 0 {
        return Ok(false);
    }
    search::insert(connection, key, room.key, new.body.content())?;
    Ok(true)
}

/// Removes the row of a forgotten message that still has a nonce, so that the nonce can be used again. Whether there was
/// one.
pub fn free_nonce(connection: &Connection, author: UserId, nonce: &Nonce) -> rusqlite::Result<bool> {
    let mut find = connection.prepare_cached(
        "SELECT m.key, m.room, m.content FROM messages m JOIN rooms r ON r.key = m.room
         WHERE m.user_id = ?1 AND m.nonce = ?2 AND m.seq <= r.floor",
    )?;
    let found = find.query_row(params![author.0.as_bytes(), nonce.as_str()], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?))
    });
    let Some((key, room, content)) = found.optional()? else { return Ok(false) };
    search::delete(connection, key, room, &content)?;
    keep_key(connection)?;
    connection.prepare_cached("DELETE FROM messages WHERE key = ?1")?.execute([key])?;
    Ok(true)
}

/// How far each room's order is to be forgotten so that the oldest messages of all go, `limit` at most, as long as their
/// ids are from before a log time. And how many they are.
pub fn oldest(connection: &Connection, before_ms: u64, limit: usize) -> rusqlite::Result<(Vec<(RoomId, Seq)>, usize)> {
    let mut oldest = connection.prepare_cached(
        "SELECT r.id, m.seq, m.id FROM messages m JOIN rooms r ON r.key = m.room ORDER BY m.key LIMIT ?1",
    )?;
    let mut rows = oldest.query([number(limit as u64)])?;
    let mut rooms: Vec<(RoomId, Seq)> = Vec::new();
    let mut count = 0;
    while let Some(row) = rows.next()? {
        if FrameId(uuid(row, 2)?).unix_ms() >= before_ms {
            break;
        }
        count += 1;
        let (room, seq) = (room_id(row, 0)?, seq(row, 1)?);
        match rooms.iter_mut().find(|(known, _)| *known == room) {
            Some((_, up_to)) => *up_to = seq,
            None => rooms.push((room, seq)),
        }
    }
    Ok((rooms, count))
}

/// Whether nothing of a room is kept, forgotten messages that are not deleted yet included.
pub fn is_empty(connection: &Connection, room: RoomRow) -> rusqlite::Result<bool> {
    Ok(!connection.prepare_cached("SELECT 1 FROM messages WHERE room = ?1")?.exists([room.key])?)
}

/// Deletes a room's row.
pub fn delete_room(connection: &Connection, room_key: i64) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM rooms WHERE key = ?1")?.execute([room_key]).map(drop)
}

/// The rooms without messages behind a key, up to another.
pub fn empty_rooms(connection: &Connection, after: i64, up_to: i64) -> rusqlite::Result<Vec<RoomId>> {
    let mut empty = connection.prepare_cached(
        "SELECT id FROM rooms WHERE key > ?1 AND key <= ?2 AND NOT EXISTS (SELECT 1 FROM messages WHERE room = rooms.key)",
    )?;
    empty.query_map([after, up_to], |row| room_id(row, 0))?.collect()
}

/// The rooms behind a key, up to another, of which forgotten messages are not deleted yet.
pub fn forgotten_rooms(connection: &Connection, after: i64, up_to: i64) -> rusqlite::Result<Vec<RoomRow>> {
    let mut rooms = connection.prepare_cached(
        "SELECT key, head, floor FROM rooms r WHERE key > ?1 AND key <= ?2 AND floor > 0
         AND EXISTS (SELECT 1 FROM messages WHERE room = r.key AND seq <= r.floor)",
    )?;
    let read = |row: &Row<'_>| Ok(RoomRow { key: row.get(0)?, head: seq(row, 1)?, floor: seq(row, 2)? });
    rooms.query_map([after, up_to], read)?.collect()
}

/// Writes how far a room's order is forgotten.
pub fn update_floor(connection: &Connection, room: RoomRow) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE rooms SET floor = ?2 WHERE key = ?1")?
        .execute(params![room.key, number(room.floor.0)])?;
    Ok(())
}

/// Deletes forgotten messages of a room with their words, `limit` at most. How many they were.
pub fn delete_forgotten(connection: &Connection, room: RoomRow, limit: usize) -> rusqlite::Result<usize> {
    let mut forgotten = connection
        .prepare_cached("SELECT key, seq, content FROM messages WHERE room = ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3")?;
    let mut last = None;
    let mut deleted = 0;
    let mut rows = forgotten.query(params![room.key, number(room.floor.0), number(limit as u64)])?;
    while let Some(row) = rows.next()? {
        search::delete(connection, row.get(0)?, room.key, row.get_ref(2)?.as_str()?)?;
        last = Some(seq(row, 1)?);
        deleted += 1;
    }
    if let Some(last) = last {
        keep_key(connection)?;
        connection
            .prepare_cached("DELETE FROM messages WHERE room = ?1 AND seq <= ?2")?
            .execute(params![room.key, number(last.0)])?;
    }
    Ok(deleted)
}

/// The message that an author sent with a nonce, if it is kept.
pub fn by_nonce(connection: &Connection, author: UserId, nonce: &Nonce) -> rusqlite::Result<Option<Message>> {
    let sql = format!("SELECT {COLUMNS} {FROM} WHERE m.user_id = ?1 AND m.nonce = ?2 AND m.seq > r.floor");
    connection.prepare_cached(&sql)?.query_row(params![author.0.as_bytes(), nonce.as_str()], message).optional()
}

/// A message by its id, if it is kept in a room.
pub fn by_id(connection: &Connection, room_key: i64, id: FrameId) -> rusqlite::Result<Option<Message>> {
    let sql = format!("SELECT {COLUMNS} {FROM} WHERE m.id = ?1 AND m.room = ?2 AND m.seq > r.floor");
    connection.prepare_cached(&sql)?.query_row(params![id.0.as_bytes(), room_key], message).optional()
}

/// Takes a message's text away for good, and its words: SQLite overwrites what it frees meanwhile. Words that an earlier
/// merge of the index has left in pages that are free since stay there until those are used again.
pub fn erase(connection: &Connection, room_key: i64, erased: &Message) -> rusqlite::Result<()> {
    let mut find = connection.prepare_cached("SELECT key, content FROM messages WHERE id = ?1")?;
    let (key, content): (i64, String) =
        find.query_row([erased.id.0.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let overwrites = |is_on: &str| connection.query_row(&format!("PRAGMA secure_delete = {is_on}"), [], |_| Ok(()));
    overwrites("ON")?;
    let mut update = connection.prepare_cached("UPDATE messages SET content = ?2, deleted_ms = ?3 WHERE key = ?1")?;
    let updated = update.execute(params![key, &*erased.content, erased.deleted_ms.map(number)]);
    let erased = updated.and_then(|_| search::erase(connection, key, room_key, &content, &erased.content));
    overwrites("OFF")?;
    erased
}

/// Where in a room's order a message is, if it is kept.
pub fn seq_of(connection: &Connection, room: RoomRow, id: FrameId) -> rusqlite::Result<Option<Seq>> {
    let mut statement = connection.prepare_cached("SELECT seq FROM messages WHERE id = ?1 AND room = ?2")?;
    let seq = statement.query_row(params![id.0.as_bytes(), room.key], |row| seq(row, 0)).optional()?;
    Ok(seq.filter(|seq| *seq > room.floor))
}

/// How a place is compared, the order in which rows are walked, and the place.
pub fn sql_of(side: Side) -> (&'static str, &'static str, Seq) {
    match side {
        Side::Before(seq) => ("<", "DESC", seq),
        Side::After(seq) => (">", "ASC", seq),
    }
}

/// At most `limit` frames of a room on one side of a place, oldest first.
pub fn page(
    connection: &Connection,
    room: RoomRow,
    side: Side,
    kinds: Kinds,
    limit: usize,
) -> rusqlite::Result<Vec<Message>> {
    let (comparison, order, place) = sql_of(side);
    let wanted = if kinds == Kinds::Messages { IS_MESSAGE } else { "TRUE" };
    let sql = format!(
        "SELECT {COLUMNS} {FROM} WHERE m.room = ?1 AND m.seq {comparison} ?2 AND m.seq > ?3 AND {wanted}
         ORDER BY m.seq {order} LIMIT ?4"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let values = params![room.key, number(place.0), number(room.floor.0), number(limit as u64)];
    let rows = statement.query_map(values, message)?;
    let mut messages = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    side.sort(&mut messages);
    Ok(messages)
}

/// The latest messages of a room with all events between and behind them, oldest first, as many as a room has at hand;
/// and whether that is all there is.
pub fn latest(connection: &Connection, room: RoomRow) -> rusqlite::Result<(Vec<Message>, bool)> {
    let sql = format!("SELECT {COLUMNS} {FROM} WHERE m.room = ?1 AND m.seq > ?2 ORDER BY m.seq DESC LIMIT ?3");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![room.key, number(room.floor.0), number(PAST_FRAMES_MAX as u64)])?;
    let (mut latest, mut messages, mut bytes) = (Vec::new(), 0, 0);
    let is_whole = loop {
        if messages == HISTORY_MAX || latest.len() == PAST_FRAMES_MAX || bytes >= RING_BYTES_MAX {
            break false;
        }
        let Some(row) = rows.next()? else { break true };
        let frame = message(row)?;
        messages += usize::from(!frame.is_event());
        bytes += frame.content.len();
        latest.push(frame);
    };
    latest.reverse();
    Ok((latest, is_whole))
}

/// The id of the newest message.
pub fn newest_id(connection: &Connection) -> rusqlite::Result<Option<FrameId>> {
    let sql = "SELECT id FROM messages ORDER BY key DESC LIMIT 1";
    connection.query_row(sql, [], |row| uuid(row, 0).map(FrameId)).optional()
}

/// The first and the last key of a message; where there is none, the last is before the first.
pub fn keys(connection: &Connection) -> rusqlite::Result<(i64, i64)> {
    let sql = "SELECT coalesce((SELECT min(key) FROM messages), 1), coalesce((SELECT max(key) FROM messages), 0)";
    connection.prepare_cached(sql)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// The first messages behind a key, up to another, with their keys: of a room or of all, from a moment on.
pub fn following(
    connection: &Connection,
    after: i64,
    last: i64,
    room_key: Option<i64>,
    since_ms: u64,
    limit: usize,
) -> rusqlite::Result<Vec<(i64, Message)>> {
    // CROSS: the messages are walked by key, whatever the planner thinks of it.
    let sql = format!(
        "SELECT {COLUMNS}, m.key FROM messages m CROSS JOIN rooms r ON r.key = m.room
         WHERE m.key > ?1 AND m.key <= ?2 AND m.seq > r.floor AND (?3 IS NULL OR m.room = ?3) AND m.at_ms >= ?4 ORDER BY m.key LIMIT ?5"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let keyed = |row: &Row<'_>| Ok((key(row)?, message(row)?));
    let rows = statement.query_map(params![after, last, room_key, number(since_ms), number(limit as u64)], keyed)?;
    rows.collect()
}

/// The rooms with messages, ordered by id, from behind `after`.
pub fn rooms(connection: &Connection, after: Option<&RoomId>, limit: usize) -> rusqlite::Result<Vec<KeptRoom>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, head FROM rooms r WHERE id > ?1 AND EXISTS (SELECT 1 FROM messages WHERE room = r.key AND seq > r.floor)
         ORDER BY id LIMIT ?2",
    )?;
    let after = after.map_or("", RoomId::as_str);
    let rows = statement.query_map(params![after, number(limit as u64)], |row| {
        Ok(KeptRoom { id: room_id(row, 0)?, head: seq(row, 1)? })
    })?;
    rows.collect()
}

/// One such room.
pub fn kept_room(connection: &Connection, id: &RoomId) -> rusqlite::Result<Option<KeptRoom>> {
    let mut statement = connection.prepare_cached(
        "SELECT head FROM rooms r WHERE id = ?1 AND EXISTS (SELECT 1 FROM messages WHERE room = r.key AND seq > r.floor)",
    )?;
    statement.query_row([id.as_str()], |row| Ok(KeptRoom { id: id.clone(), head: seq(row, 0)? })).optional()
}

/// The text of a row of [`COLUMNS`].
pub fn content<'a>(row: &'a Row<'_>) -> rusqlite::Result<&'a str> {
    Ok(row.get_ref(6)?.as_str()?)
}

/// The key of a row, where it stands behind [`COLUMNS`].
pub fn key(row: &Row<'_>) -> rusqlite::Result<i64> {
    row.get(12)
}

/// A row of [`COLUMNS`].
pub fn message(row: &Row<'_>) -> rusqlite::Result<Message> {
    let nonce: Option<String> = row.get(5)?;
    Ok(Message {
        id: FrameId(uuid(row, 0)?),
        room: room_id(row, 1)?,
        seq: seq(row, 2)?,
        author: Person { id: UserId(uuid(row, 3)?), username: Username::stored(row.get(4)?) },
        nonce: nonce.and_then(|nonce| Nonce::parse(&nonce).ok()),
        kind: FrameType::parse(row.get_ref(9)?.as_str()?).unwrap_or(FrameType::Text),
        content: row.get::<_, String>(6)?.into(),
        reply_to: frame_id(row, 7)?,
        at_ms: u64::try_from(row.get::<_, i64>(8)?).unwrap_or(0),
        message_id: frame_id(row, 10)?,
        deleted_ms: row.get::<_, Option<i64>>(11)?.map(|ms| u64::try_from(ms).unwrap_or(0)),
    })
}

fn frame_id(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<FrameId>> {
    Ok(row.get::<_, Option<[u8; 16]>>(column)?.map(|bytes| FrameId(Uuid::from_bytes(bytes))))
}

fn uuid(row: &Row<'_>, column: usize) -> rusqlite::Result<Uuid> {
    row.get::<_, [u8; 16]>(column).map(Uuid::from_bytes)
}

fn seq(row: &Row<'_>, column: usize) -> rusqlite::Result<Seq> {
    row.get::<_, i64>(column).map(|seq| Seq(u64::try_from(seq).unwrap_or(0)))
}

/// A room's id in a column.
pub fn room_id(row: &Row<'_>, column: usize) -> rusqlite::Result<RoomId> {
    row.get(column).map(RoomId::stored)
}

/// SQLite's integers have a sign; ours are far from needing that bit.
pub fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_and_the_wire_agree_on_what_is_a_message() {
        for word in ["text", "announcement", "delete"] {
            let kind = FrameType::parse(word).unwrap();
            assert_eq!(IS_MESSAGE.contains(&format!("'{word}'")), !kind.is_event(), "{word}");
        }
    }
}
