//! Messages in the database: written once by the store's thread, read by whoever has a connection.

use std::borrow::Cow;
use std::sync::Arc;

use chrono::DateTime;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Deserialize;
use uuid::Uuid;

use crate::model::{FrameId, Nonce, Person, RoomId, Seq, Timestamp, UserId, Username};
use crate::protocol::{Frame, FrameType};

use super::{KeptRoom, NewMessage, Stored, search};

/// What a message's row has, in the order in which [`message`] reads it.
pub const COLUMNS: &str = "m.id, r.id, m.seq, m.user_id, m.username, m.nonce, m.content, m.reply_to, m.at_ms, m.kind,
    m.message_id, m.deleted_ms";

/// Where they come from.
pub const FROM: &str = "FROM messages m JOIN rooms r ON r.key = m.room";

/// A room's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomRow {
    /// Its key.
    pub key: i64,
    /// The last place taken.
    pub head: Seq,
}

/// A message as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    id: FrameId,
    room: RoomId,
    seq: Seq,
    author: Person,
    nonce: Option<Nonce>,
    kind: FrameType,
    content: Box<str>,
    reply_to: Option<FrameId>,
    at_ms: u64,
    message_id: Option<FrameId>,
    deleted_ms: Option<u64>,
}

/// The frame of a new message at its place, made once for everybody.
pub fn encode_new(new: &NewMessage, id: FrameId, seq: Seq, now: &Timestamp, json: &mut Vec<u8>) -> Stored {
    json.clear();
    let NewMessage { room, author, body, nonce, .. } = new;
    Frame {
        seq: Some(seq),
        nonce: nonce.as_ref(),
        reply_to: body.reply_to(),
        message_id: body.message_id(),
        ..Frame::new(id, room, author, body.content(), body.kind(), now)
    }
    .encode(json);
    Stored { id, seq, json: Arc::from(json.as_slice()) }
}

impl Message {
    /// The message of a stored frame, as [`stored`](Self::stored) made it; nothing where it is none.
    #[must_use]
    pub fn of_frame(json: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Fields<'a> {
            id: &'a str,
            #[serde(borrow)]
            room_id: Cow<'a, str>,
            user_id: &'a str,
            #[serde(borrow)]
            username: Cow<'a, str>,
            content: Box<str>,
            #[serde(rename = "type")]
            kind: &'a str,
            timestamp: &'a str,
            seq: u64,
            nonce: Option<String>,
            reply_to: Option<&'a str>,
            message_id: Option<&'a str>,
            deleted_at: Option<&'a str>,
        }
        let fields: Fields<'_> = serde_json::from_slice(json).ok()?;
        let moment = |text| DateTime::parse_from_rfc3339(text).ok().map(|at| at.timestamp_millis().unsigned_abs());
        Some(Self {
            id: FrameId::parse(fields.id)?,
            room: RoomId::parse(&fields.room_id).ok()?,
            seq: Seq(fields.seq),
            author: Person {
                id: UserId(Uuid::try_parse(fields.user_id).ok()?),
                username: Username::parse(&fields.username).ok()?,
            },
            nonce: fields.nonce.and_then(|nonce| Nonce::parse(&nonce).ok()),
            kind: FrameType::parse(fields.kind)?,
            content: fields.content,
            reply_to: fields.reply_to.and_then(FrameId::parse),
            at_ms: moment(fields.timestamp)?,
            message_id: fields.message_id.and_then(FrameId::parse),
            deleted_ms: fields.deleted_at.and_then(moment),
        })
    }

    /// Where it was said.
    #[must_use]
    pub fn room(&self) -> &RoomId {
        &self.room
    }

    /// By whom.
    #[must_use]
    pub fn author(&self) -> &Person {
        &self.author
    }

    /// What was said.
    #[must_use]
    pub fn content(&self) -> &str {
        &self.content
    }

    /// When.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        Timestamp::at(self.at_ms)
    }

    /// Whether it is something said that has not been taken back.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.kind != FrameType::Delete && self.deleted_ms.is_none()
    }

    /// Whether sending `new` again would only say the same. What was taken back is not known any more, and an
    /// announcement is one message, whichever room it is in.
    pub fn says_the_same(&self, new: &NewMessage) -> bool {
        let NewMessage { room, body, .. } = new;
        (self.room == *room || self.kind == FrameType::Announcement)
            && self.kind == body.kind()
            && (self.deleted_ms.is_some() || *self.content == *body.content())
            && self.reply_to == body.reply_to()
            && self.message_id == body.message_id()
    }

    /// What is left of it when it is taken back.
    #[must_use]
    pub fn erased(self, now: &Timestamp) -> Self {
        Self { content: Box::default(), deleted_ms: Some(now.unix_ms), ..self }
    }

    /// The frame that members get; for a retry's author, marked as one.
    pub fn stored(&self, duplicate: bool, json: &mut Vec<u8>) -> Stored {
        json.clear();
        let (at, deleted_at) = (Timestamp::at(self.at_ms), self.deleted_ms.map(Timestamp::at));
        Frame {
            seq: Some(self.seq),
            nonce: self.nonce.as_ref(),
            reply_to: self.reply_to,
            message_id: self.message_id,
            deleted_at: deleted_at.as_ref(),
            duplicate: duplicate.then_some(true),
            ..Frame::new(self.id, &self.room, &self.author, &self.content, self.kind, &at)
        }
        .encode(json);
        Stored { id: self.id, seq: self.seq, json: Arc::from(json.as_slice()) }
    }
}

/// A room's row, if there is one.
pub fn room(connection: &Connection, id: &RoomId) -> rusqlite::Result<Option<RoomRow>> {
    let mut statement = connection.prepare_cached("SELECT key, head FROM rooms WHERE id = ?1")?;
    statement.query_row([id.as_str()], |row| Ok(RoomRow { key: row.get(0)?, head: seq(row, 1)? })).optional()
}

/// Makes a room's row.
pub fn insert_room(connection: &Connection, id: &RoomId) -> rusqlite::Result<RoomRow> {
    connection.prepare_cached("INSERT INTO rooms (id, head) VALUES (?1, 0)")?.execute([id.as_str()])?;
    Ok(RoomRow { key: connection.last_insert_rowid(), head: Seq(0) })
}

/// Writes where a room's order stands.
pub fn update_head(connection: &Connection, room: RoomRow) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE rooms SET head = ?2 WHERE key = ?1")?
        .execute(params![room.key, number(room.head.0)])?;
    Ok(())
}

/// Writes a message and its words. False where its author has used its nonce before; then nothing is written.
pub fn insert(
    connection: &Connection,
    room: RoomRow,
    new: &NewMessage,
    stored: &Stored,
    now: &Timestamp,
) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO messages (id, room, seq, user_id, username, nonce, content, reply_to, at_ms, kind, message_id)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT (user_id, nonce) DO NOTHING",
    )?;
    let inserted = statement.execute(params![
        stored.id.0.as_bytes(),
        room.key,
        number(stored.seq.0),
        new.author.id.0.as_bytes(),
        new.author.username.as_str(),
        new.nonce.as_ref().map(Nonce::as_str),
        new.body.content(),
        new.body.reply_to().as_ref().map(|id| id.0.as_bytes()),
        number(now.unix_ms),
        new.body.kind().as_str(),
        new.body.message_id().as_ref().map(|id| id.0.as_bytes()),
    ])?;
    if inserted == 0 {
        return Ok(false);
    }
    search::insert(connection, connection.last_insert_rowid(), room.key, new.body.content())?;
    Ok(true)
}

/// Deletes the oldest messages of all with their words, `limit` at most, as long as they are from before a moment. How
/// many they were.
pub fn delete_oldest(connection: &Connection, before_ms: u64, limit: usize) -> rusqlite::Result<usize> {
    let mut oldest =
        connection.prepare_cached("SELECT key, at_ms, room, content FROM messages ORDER BY key LIMIT ?1")?;
    let mut last = None;
    let mut deleted = 0;
    let mut rows = oldest.query([number(limit as u64)])?;
    while let Some(row) = rows.next()? {
        let (key, at_ms): (i64, i64) = (row.get(0)?, row.get(1)?);
        if at_ms >= number(before_ms) {
            break;
        }
        search::delete(connection, key, row.get(2)?, row.get_ref(3)?.as_str()?)?;
        last = Some(key);
        deleted += 1;
    }
    if last.is_some() {
        connection.prepare_cached("DELETE FROM messages WHERE key <= ?1")?.execute([last])?;
    }
    Ok(deleted)
}

/// The message that an author sent with a nonce, if it is kept.
pub fn by_nonce(connection: &Connection, author: UserId, nonce: &Nonce) -> rusqlite::Result<Option<Message>> {
    let sql = format!("SELECT {COLUMNS} {FROM} WHERE m.user_id = ?1 AND m.nonce = ?2");
    connection.prepare_cached(&sql)?.query_row(params![author.0.as_bytes(), nonce.as_str()], message).optional()
}

/// A message by its id, if it is kept in a room.
pub fn by_id(connection: &Connection, room_key: i64, id: FrameId) -> rusqlite::Result<Option<Message>> {
    let sql = format!("SELECT {COLUMNS} {FROM} WHERE m.id = ?1 AND m.room = ?2");
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
pub fn seq_of(connection: &Connection, room_key: i64, id: FrameId) -> rusqlite::Result<Option<Seq>> {
    let mut statement = connection.prepare_cached("SELECT seq FROM messages WHERE id = ?1 AND room = ?2")?;
    statement.query_row(params![id.0.as_bytes(), room_key], |row| seq(row, 0)).optional()
}

/// A side of a place in a room's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The latest ones before it.
    Before(Seq),
    /// The first ones after it.
    After(Seq),
}

impl Side {
    /// How a place is compared, the order in which rows are walked, and the place.
    pub fn sql(self) -> (&'static str, &'static str, Seq) {
        match self {
            Self::Before(seq) => ("<", "DESC", seq),
            Self::After(seq) => (">", "ASC", seq),
        }
    }

    /// Brings what was walked so into the order of time.
    pub fn sort(self, walked: &mut [Message]) {
        if matches!(self, Self::Before(_)) {
            walked.reverse();
        }
    }
}

/// At most `limit` messages of a room on one side of a place, oldest first.
pub fn page(connection: &Connection, room_key: i64, side: Side, limit: usize) -> rusqlite::Result<Vec<Message>> {
    let (comparison, order, place) = side.sql();
    let sql =
        format!("SELECT {COLUMNS} {FROM} WHERE m.room = ?1 AND m.seq {comparison} ?2 ORDER BY m.seq {order} LIMIT ?3");
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params![room_key, number(place.0), number(limit as u64)], message)?;
    let mut messages = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    side.sort(&mut messages);
    Ok(messages)
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
         WHERE m.key > ?1 AND m.key <= ?2 AND (?3 IS NULL OR m.room = ?3) AND m.at_ms >= ?4 ORDER BY m.key LIMIT ?5"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let keyed = |row: &Row<'_>| Ok((key(row)?, message(row)?));
    let rows = statement.query_map(params![after, last, room_key, number(since_ms), number(limit as u64)], keyed)?;
    rows.collect()
}

/// The rooms with messages, ordered by id, from behind `after`.
pub fn rooms(connection: &Connection, after: Option<&RoomId>, limit: usize) -> rusqlite::Result<Vec<KeptRoom>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, head FROM rooms r WHERE id > ?1 AND EXISTS (SELECT 1 FROM messages WHERE room = r.key)
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
        "SELECT head FROM rooms r WHERE id = ?1 AND EXISTS (SELECT 1 FROM messages WHERE room = r.key)",
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
