//! Messages in the database. The store's thread writes them; any thread with a connection reads them.

use rusqlite::{Connection, Row};

use crate::limits::{HISTORY_MAX, PAST_FRAMES_MAX, RING_BYTES_MAX};
use crate::model::{FrameId, Nonce, RoomId, Seq, UserId, Username};
use crate::protocol::FrameType;

use super::super::entry::{NewMessage, Stored};
use super::super::ledger::RoomRow;
use super::super::message::Message;
use super::super::{KeptRoom, Kinds, PageLimit, Side};
use super::row::{all, execute, first, signed, unsigned, value};
use super::search;

/// The columns of a message, in the order in which [`message`] reads them.
pub const COLUMNS: &str = "m.id, r.id, m.seq, m.user_id, m.username, m.nonce, m.content, m.reply_to, m.at_ms, m.kind,
    m.message_id, m.deleted_ms, m.former";

/// The condition that selects messages; other rows are events.
pub const IS_MESSAGE: &str = "m.kind IN ('text', 'announcement')";

/// The tables of [`COLUMNS`].
pub const FROM: &str = "FROM messages m JOIN rooms r ON r.key = m.room";

/// Begins the name of the mark of a deleted room that still has messages.
const PURGE: &str = "purge:";

/// The condition that selects rooms with kept frames.
const IS_KEPT: &str = "EXISTS (SELECT 1 FROM messages WHERE room = r.key AND seq > r.floor)";

/// A room's row, if it exists.
pub fn room(connection: &Connection, id: &RoomId) -> rusqlite::Result<Option<RoomRow>> {
    first(connection, "SELECT key, head, floor FROM rooms WHERE id = ?1", [id], room_row)
}

fn room_row(row: &Row<'_>) -> rusqlite::Result<RoomRow> {
    Ok(RoomRow { key: row.get(0)?, head: row.get(1)?, floor: row.get(2)? })
}

/// Creates a room's row.
pub fn insert_room(connection: &Connection, id: &RoomId) -> rusqlite::Result<RoomRow> {
    execute(connection, "INSERT INTO rooms (id, head) VALUES (?1, 0)", [id])?;
    Ok(RoomRow { key: connection.last_insert_rowid(), ..RoomRow::default() })
}

/// The key of the next message. A key is never reused, not even when the newest messages are deleted. A row of the word
/// index that is deleted and inserted again can damage the index (FTS5, with its option `secure-delete`).
pub fn next_key(connection: &Connection) -> rusqlite::Result<i64> {
    let sql = "SELECT 1 + max(coalesce((SELECT max(key) FROM messages), 0),
        coalesce((SELECT value FROM marks WHERE name = 'message_key'), 0))";
    value(connection, sql, [])
}

/// Stores the highest key, before messages are deleted.
fn keep_key(connection: &Connection) -> rusqlite::Result<usize> {
    let sql = "INSERT INTO marks (name, value)
        SELECT 'message_key', max(key) FROM messages HAVING max(key) IS NOT NULL
        ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)";
    execute(connection, sql, [])
}

/// Inserts a message. Returns false and writes nothing if the author has used the nonce before.
pub fn insert(
    connection: &Connection,
    key: i64,
    room: RoomRow,
    new: &NewMessage,
    stored: &Stored,
    wall_ms: u64,
) -> rusqlite::Result<bool> {
    let NewMessage { author, body, nonce, .. } = new;
    let sql =
        "INSERT INTO messages (id, room, seq, user_id, username, nonce, content, reply_to, at_ms, kind, message_id, key,
            former)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) ON CONFLICT (user_id, nonce) DO NOTHING";
    let values = (
        stored.id,
        room.key,
        stored.seq,
        author.person.id,
        &author.person.username,
        nonce.as_ref().map(Nonce::as_str),
        body.content(),
        body.reply_to(),
        signed(wall_ms),
        body.kind().as_str(),
        body.message_id(),
        key,
        body.former(),
    );
    Ok(execute(connection, sql, values)? > 0)
}

/// Deletes the row of a forgotten message with this nonce, so that the nonce can be used again. Returns whether there
/// was such a row.
pub fn free_nonce(connection: &Connection, author: UserId, nonce: &Nonce) -> rusqlite::Result<bool> {
    let sql = "SELECT m.key, m.room, m.content FROM messages m JOIN rooms r ON r.key = m.room
         WHERE m.user_id = ?1 AND m.nonce = ?2 AND m.seq <= r.floor";
    let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?));
    let Some((key, room, content)) = first(connection, sql, (author, nonce.as_str()), read)? else { return Ok(false) };
    search::delete(connection, key, room, &content)?;
    keep_key(connection)?;
    execute(connection, "DELETE FROM messages WHERE key = ?1", [key])?;
    Ok(true)
}

/// How far to forget each room so that the oldest messages of all rooms go. These are at most `limit` messages with
/// about `bytes_max` bytes of text, whose ids are from before a log time. Also returns their number.
pub fn oldest(
    connection: &Connection,
    before_ms: u64,
    limit: usize,
    bytes_max: u64,
) -> rusqlite::Result<(Vec<(RoomId, Seq)>, usize)> {
    let mut oldest = connection.prepare_cached(
        "SELECT r.id, m.seq, m.id, octet_length(m.content) FROM messages m JOIN rooms r ON r.key = m.room
         ORDER BY m.key LIMIT ?1",
    )?;
    let mut rows = oldest.query([signed(limit as u64)])?;
    let mut rooms: Vec<(RoomId, Seq)> = Vec::new();
    let (mut count, mut bytes) = (0, 0);
    while let Some(row) = rows.next()? {
        if row.get::<_, FrameId>(2)?.unix_ms() >= before_ms || bytes > bytes_max {
            break;
        }
        count += 1;
        bytes += unsigned(row.get(3)?);
        let (room, seq) = (row.get(0)?, row.get(1)?);
        match rooms.iter_mut().find(|(known, _)| *known == room) {
            Some((_, up_to)) => *up_to = seq,
            None => rooms.push((room, seq)),
        }
    }
    Ok((rooms, count))
}

/// Deletes a room's row, unless the room has messages. Forgotten messages that are not deleted yet count too. Returns
/// whether the row is deleted.
pub fn delete_empty_room(connection: &Connection, room_key: i64) -> rusqlite::Result<bool> {
    let sql = "DELETE FROM rooms WHERE key = ?1 AND is_deleted = 0
         AND NOT EXISTS (SELECT 1 FROM messages WHERE room = ?1)";
    Ok(execute(connection, sql, [room_key])? > 0)
}

/// The rooms without messages whose keys are greater than `after` and at most `up_to`.
pub fn empty_rooms(connection: &Connection, after: i64, up_to: i64) -> rusqlite::Result<Vec<RoomId>> {
    let sql = "SELECT id FROM rooms WHERE key > ?1 AND key <= ?2 AND is_deleted = 0
        AND NOT EXISTS (SELECT 1 FROM messages WHERE room = rooms.key)";
    all(connection, sql, [after, up_to], |row| row.get(0))
}

/// The rooms of which the table still has messages that are forgotten. Only rooms whose key is above `after` and at most
/// `up_to` are looked at.
pub fn forgotten_rooms(connection: &Connection, after: i64, up_to: i64) -> rusqlite::Result<Vec<RoomRow>> {
    let sql = "SELECT key, head, floor FROM rooms r WHERE key > ?1 AND key <= ?2 AND floor > 0
         AND EXISTS (SELECT 1 FROM messages WHERE room = r.key AND seq <= r.floor)";
    all(connection, sql, [after, up_to], room_row)
}

/// Notes that a room was deleted, so that its row is kept, and that [`purge`] is to delete its messages.
pub fn mark_deleted(connection: &Connection, room_key: i64) -> rusqlite::Result<()> {
    execute(connection, "UPDATE rooms SET is_deleted = 1 WHERE key = ?1", [room_key])?;
    let sql = "INSERT OR REPLACE INTO marks (name, value) VALUES (?1 || ?2, ?2)";
    execute(connection, sql, (PURGE, room_key)).map(drop)
}

/// Deletes and overwrites some messages of a deleted room. Returns whether there was such a room.
pub fn purge(connection: &Connection, limit: usize) -> rusqlite::Result<bool> {
    let sql = "SELECT r.key, r.head, r.floor FROM marks m JOIN rooms r ON r.key = m.value
         WHERE m.name >= ?1 AND m.name < ?1 || 'z' LIMIT 1";
    let Some(room) = first(connection, sql, [PURGE], room_row)? else { return Ok(false) };
    if delete_forgotten(connection, room, limit)? < limit {
        execute(connection, "DELETE FROM marks WHERE name = ?1 || ?2", (PURGE, room.key))?;
        search::begin_whole_merge(connection)?;
    }
    Ok(true)
}

/// Stores a room's floor.
pub fn update_floor(connection: &Connection, room: RoomRow) -> rusqlite::Result<()> {
    execute(connection, "UPDATE rooms SET floor = ?2 WHERE key = ?1", (room.key, room.floor)).map(drop)
}

/// Sets what SQLite does with deleted content.
pub fn set_overwriting(connection: &Connection, how: &str) -> rusqlite::Result<()> {
    connection.pragma_update_and_check(None, "secure_delete", how, |_| Ok(()))
}

/// Deletes forgotten messages of a room, `limit` at most, and marks their words as deleted. Overwrites them if the room
/// was deleted. Returns their number.
pub fn delete_forgotten(connection: &Connection, room: RoomRow, limit: usize) -> rusqlite::Result<usize> {
    let mut forgotten = connection
        .prepare_cached("SELECT key, seq, content FROM messages WHERE room = ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3")?;
    let mut last: Option<Seq> = None;
    let mut deleted = 0;
    let mut rows = forgotten.query((room.key, room.floor, signed(limit as u64)))?;
    while let Some(row) = rows.next()? {
        search::delete(connection, row.get(0)?, room.key, row.get_ref(2)?.as_str()?)?;
        last = Some(row.get(1)?);
        deleted += 1;
    }
    if let Some(last) = last {
        keep_key(connection)?;
        let delete = || execute(connection, "DELETE FROM messages WHERE room = ?1 AND seq <= ?2", (room.key, last));
        let is_purged = "SELECT 1 FROM marks WHERE name = ?1 || ?2";
        match first(connection, is_purged, (PURGE, room.key), |_| Ok(()))? {
            Some(()) => delete()?,
            None => without_overwriting(connection, delete)?,
        };
    }
    Ok(deleted)
}

/// The message that an author sent with a nonce, if it is kept.
pub fn by_nonce(connection: &Connection, author: UserId, nonce: &Nonce) -> rusqlite::Result<Option<Message>> {
    let sql = format!("SELECT {COLUMNS} {FROM} WHERE m.user_id = ?1 AND m.nonce = ?2 AND m.seq > r.floor");
    first(connection, &sql, (author, nonce.as_str()), message)
}

/// The name of a user in the latest frame of it that is kept.
pub fn author_name(connection: &Connection, user: UserId) -> rusqlite::Result<Option<Username>> {
    let sql = format!("SELECT m.username {FROM} WHERE m.user_id = ?1 AND m.seq > r.floor ORDER BY m.id DESC LIMIT 1");
    first(connection, &sql, [user], |row| row.get(0))
}

/// A message in a room by its id, if it is kept.
pub fn by_id(connection: &Connection, room_key: i64, id: FrameId) -> rusqlite::Result<Option<Message>> {
    let sql = format!("SELECT {COLUMNS} {FROM} WHERE m.id = ?1 AND m.room = ?2 AND m.seq > r.floor");
    first(connection, &sql, (id, room_key), message)
}

/// The key of a message's row, and its text.
fn key_and_content(connection: &Connection, id: FrameId) -> rusqlite::Result<(i64, String)> {
    let mut find = connection.prepare_cached("SELECT key, content FROM messages WHERE id = ?1")?;
    find.query_row([id], |row| row.try_into())
}

/// Erases a message's text and its words. SQLite overwrites the content that it frees.
pub fn erase(connection: &Connection, room_key: i64, erased: &Message) -> rusqlite::Result<()> {
    let (key, content) = key_and_content(connection, erased.id)?;
    let sql = "UPDATE messages SET content = ?2, deleted_ms = ?3 WHERE key = ?1";
    execute(connection, sql, (key, &*erased.content, erased.deleted_ms.map(signed)))?;
    search::erase(connection, key, room_key, &content, &erased.content)
}

/// Replaces a message's row by one without its text, to gain the space. Its words are only marked as deleted.
pub fn shorten(connection: &Connection, room_key: i64, erased: &Message) -> rusqlite::Result<()> {
    let (key, content) = key_and_content(connection, erased.id)?;
    // SQLite joins pages with much free space only where a row is deleted, not where it becomes shorter.
    without_overwriting(connection, || execute(connection, "DELETE FROM messages WHERE key = ?1", [key]))?;
    let sql = "INSERT INTO messages (id, room, seq, user_id, username, nonce, content, reply_to, at_ms, kind, message_id, key,
            former, deleted_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
    let values = (
        erased.id,
        room_key,
        erased.seq,
        erased.user,
        &erased.username,
        erased.nonce.as_ref().map(Nonce::as_str),
        &*erased.content,
        erased.reply_to,
        signed(erased.at_ms),
        erased.kind.as_str(),
        erased.message_id,
        key,
        erased.former.as_ref(),
        erased.deleted_ms.map(signed),
    );
    execute(connection, sql, values)?;
    search::replace(connection, key, room_key, &content, &erased.content)
}

/// Deletes rows without overwriting the pages that become free, as that would write each of them once more.
fn without_overwriting<T>(
    connection: &Connection,
    delete: impl FnOnce() -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    set_overwriting(connection, "FAST")?;
    let done = delete();
    set_overwriting(connection, "ON")?;
    done
}

/// The seq of a message in a room, if it is kept.
pub fn seq_of(connection: &Connection, room: RoomRow, id: FrameId) -> rusqlite::Result<Option<Seq>> {
    let sql = "SELECT seq FROM messages WHERE id = ?1 AND room = ?2 AND seq > ?3";
    first(connection, sql, (id, room.key, room.floor), |row| row.get(0))
}

/// The id of the oldest kept frame of a room.
pub fn oldest_id(connection: &Connection, room: RoomRow) -> rusqlite::Result<Option<FrameId>> {
    let sql = "SELECT id FROM messages WHERE room = ?1 AND seq > ?2 ORDER BY seq LIMIT 1";
    first(connection, sql, (room.key, room.floor), |row| row.get(0))
}

/// The comparison operator, the sort order and the seq of a side.
pub fn sql_of(side: Side) -> (&'static str, &'static str, Seq) {
    match side {
        Side::Before(seq) => ("<", "DESC", seq),
        Side::After(seq) => (">", "ASC", seq),
    }
}

/// The frames of a room on one side of a seq, oldest first. Reads no more rows than the page has.
pub fn page(
    connection: &Connection,
    room: RoomRow,
    side: Side,
    kinds: Kinds,
    limit: PageLimit,
) -> rusqlite::Result<Vec<Stored>> {
    let (comparison, order, place) = sql_of(side);
    let wanted = if kinds == Kinds::Messages { IS_MESSAGE } else { "TRUE" };
    let sql = format!(
        "SELECT {COLUMNS} {FROM} WHERE m.room = ?1 AND m.seq {comparison} ?2 AND m.seq > ?3 AND {wanted}
         ORDER BY m.seq {order}"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query((room.key, place, room.floor))?;
    let (mut page, mut bytes, mut json) = (Vec::new(), 0, Vec::new());
    while limit.has_space(page.len(), bytes)
        && let Some(row) = rows.next()?
    {
        let frame = message(row)?.stored(false, &mut json);
        bytes += frame.json.len();
        page.push(frame);
    }
    side.sort(&mut page);
    Ok(page)
}

/// The latest messages of a room with all events between and after them, oldest first, as many as the hub holds for a
/// room. Also returns whether these are all kept frames.
pub fn latest(connection: &Connection, room: RoomRow) -> rusqlite::Result<(Vec<Message>, bool)> {
    let sql = format!("SELECT {COLUMNS} {FROM} WHERE m.room = ?1 AND m.seq > ?2 ORDER BY m.seq DESC LIMIT ?3");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query((room.key, room.floor, signed(PAST_FRAMES_MAX as u64)))?;
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
    first(connection, "SELECT id FROM messages ORDER BY key DESC LIMIT 1", [], |row| row.get(0))
}

/// The first and the last key of a message. Without messages, the last is less than the first.
pub fn keys(connection: &Connection) -> rusqlite::Result<(i64, i64)> {
    let sql = "SELECT coalesce((SELECT min(key) FROM messages), 1), coalesce((SELECT max(key) FROM messages), 0)";
    connection.query_row(sql, [], |row| row.try_into())
}

/// The first messages with keys greater than `after` and at most `last`, with their keys. They are of one room or of
/// all, and not older than a wall time.
pub fn following(
    connection: &Connection,
    after: i64,
    last: i64,
    room_key: Option<i64>,
    since_ms: u64,
    limit: usize,
) -> rusqlite::Result<Vec<(i64, Message)>> {
    // CROSS JOIN makes the planner walk the messages by key.
    let sql = format!(
        "SELECT {COLUMNS}, m.key FROM messages m CROSS JOIN rooms r ON r.key = m.room
         WHERE m.key > ?1 AND m.key <= ?2 AND m.seq > r.floor AND (?3 IS NULL OR m.room = ?3) AND m.at_ms >= ?4 ORDER BY m.key LIMIT ?5"
    );
    let values = (after, last, room_key, signed(since_ms), signed(limit as u64));
    all(connection, &sql, values, |row| Ok((key(row)?, message(row)?)))
}

/// The rooms with kept frames whose ids follow `after`, ordered by id.
pub fn rooms(connection: &Connection, after: Option<&RoomId>, limit: usize) -> rusqlite::Result<Vec<KeptRoom>> {
    let sql = format!("SELECT id, head FROM rooms r WHERE id > ?1 AND {IS_KEPT} ORDER BY id LIMIT ?2");
    all(connection, &sql, (after.map_or("", RoomId::as_str), signed(limit as u64)), kept_room_row)
}

/// All rooms of which frames are kept, each with its last frame, in no particular order.
pub fn active_rooms(connection: &Connection) -> rusqlite::Result<Vec<(KeptRoom, FrameId)>> {
    let sql = "SELECT r.id, r.head, m.id FROM rooms r JOIN messages m ON m.room = r.key AND m.seq = r.head
         WHERE r.head > r.floor";
    all(connection, sql, [], |row| Ok((kept_room_row(row)?, row.get(2)?)))
}

/// A room, if frames of it are kept.
pub fn kept_room(connection: &Connection, id: &RoomId) -> rusqlite::Result<Option<KeptRoom>> {
    first(connection, &format!("SELECT id, head FROM rooms r WHERE id = ?1 AND {IS_KEPT}"), [id], kept_room_row)
}

fn kept_room_row(row: &Row<'_>) -> rusqlite::Result<KeptRoom> {
    Ok(KeptRoom { id: row.get(0)?, head: row.get(1)? })
}

/// The id in a row of [`COLUMNS`].
pub fn id(row: &Row<'_>) -> rusqlite::Result<FrameId> {
    row.get(0)
}

/// The text in a row of [`COLUMNS`].
pub fn content<'a>(row: &'a Row<'_>) -> rusqlite::Result<&'a str> {
    Ok(row.get_ref(6)?.as_str()?)
}

/// The key in a row where it follows [`COLUMNS`].
pub fn key(row: &Row<'_>) -> rusqlite::Result<i64> {
    row.get(13)
}

/// The message in a row of [`COLUMNS`].
pub fn message(row: &Row<'_>) -> rusqlite::Result<Message> {
    let nonce: Option<String> = row.get(5)?;
    Ok(Message {
        id: row.get(0)?,
        room: row.get(1)?,
        seq: row.get(2)?,
        user: row.get(3)?,
        username: row.get(4)?,
        nonce: nonce.and_then(|nonce| Nonce::parse(&nonce).ok()),
        kind: FrameType::parse(row.get_ref(9)?.as_str()?).unwrap_or(FrameType::Text),
        content: row.get(6)?,
        reply_to: row.get(7)?,
        at_ms: unsigned(row.get(8)?),
        message_id: row.get(10)?,
        deleted_ms: row.get::<_, Option<i64>>(11)?.map(unsigned),
        former: row.get(12)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_and_the_wire_agree_on_what_is_a_message() {
        for word in ["text", "announcement", "delete", "rename"] {
            let kind = FrameType::parse(word).unwrap();
            assert_eq!(IS_MESSAGE.contains(&format!("'{word}'")), !kind.is_event(), "{word}");
        }
    }
}
