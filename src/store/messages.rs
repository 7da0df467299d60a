//! Messages in the database: written once by the store's thread, read by whoever has a connection.

use std::borrow::Cow;
use std::sync::Arc;

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};
use unicode_normalization::char::is_combining_mark;
use unicode_normalization::{UnicodeNormalization, is_nfc};
use uuid::Uuid;

use crate::model::{FrameId, Nonce, Person, RoomId, Seq, Timestamp, UserId, Username};
use crate::protocol::{Frame, FrameType};

use super::{KeptRoom, NewMessage, Stored, TokenHash};

/// What a message's row has, in the order in which [`message`] reads it.
const COLUMNS: &str = "m.id, r.id, m.seq, m.user_id, m.username, m.nonce, m.content, m.reply_to, m.at_ms";

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
    content: Box<str>,
    reply_to: Option<FrameId>,
    at_ms: u64,
}

/// The frame of a new message at its place, made once for everybody.
pub fn encode_new(new: &NewMessage, id: FrameId, seq: Seq, now: &Timestamp, json: &mut Vec<u8>) -> Stored {
    json.clear();
    Frame {
        id,
        room_id: &new.room,
        user_id: new.author.id,
        username: &new.author.username,
        content: &new.content,
        kind: FrameType::Text,
        timestamp: now,
        seq: Some(seq),
        nonce: new.nonce.as_ref(),
        reply_to: new.reply_to,
        duplicate: None,
        welcome: None,
        error: None,
    }
    .encode(json);
    Stored { id, seq, json: Arc::from(json.as_slice()) }
}

impl Message {
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

    /// Whether sending `new` again would only say the same.
    pub fn says_the_same(&self, new: &NewMessage) -> bool {
        self.room == new.room && self.content == new.content && self.reply_to == new.reply_to
    }

    /// The frame that members get; for a retry's author, marked as one.
    pub fn stored(&self, duplicate: bool, json: &mut Vec<u8>) -> Stored {
        json.clear();
        Frame {
            id: self.id,
            room_id: &self.room,
            user_id: self.author.id,
            username: &self.author.username,
            content: &self.content,
            kind: FrameType::Text,
            timestamp: &Timestamp::at(self.at_ms),
            seq: Some(self.seq),
            nonce: self.nonce.as_ref(),
            reply_to: self.reply_to,
            duplicate: duplicate.then_some(true),
            welcome: None,
            error: None,
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
        "INSERT INTO messages (id, room, seq, user_id, username, nonce, content, reply_to, at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (user_id, nonce) DO NOTHING",
    )?;
    let inserted = statement.execute(params![
        stored.id.0.as_bytes(),
        room.key,
        number(stored.seq.0),
        new.author.id.0.as_bytes(),
        new.author.username.as_str(),
        new.nonce.as_ref().map(Nonce::as_str),
        &*new.content,
        new.reply_to.as_ref().map(|id| id.0.as_bytes()),
        number(now.unix_ms),
    ])?;
    if inserted == 0 {
        return Ok(false);
    }
    let mut statement = connection.prepare_cached("INSERT INTO words (rowid, content) VALUES (?1, ?2)")?;
    statement.execute(params![connection.last_insert_rowid(), indexed(&new.content)])?;
    Ok(true)
}

/// Deletes the oldest messages of all with their words, `limit` at most, as long as they are from before a moment. How
/// many they were.
pub fn delete_oldest(connection: &Connection, before_ms: u64, limit: usize) -> rusqlite::Result<usize> {
    let mut oldest = connection.prepare_cached("SELECT key, at_ms, content FROM messages ORDER BY key LIMIT ?1")?;
    // The index has no text of its own: it is told what it had.
    let mut words = connection.prepare_cached("INSERT INTO words (words, rowid, content) VALUES ('delete', ?1, ?2)")?;
    let mut last = None;
    let mut deleted = 0;
    let mut rows = oldest.query([number(limit as u64)])?;
    while let Some(row) = rows.next()? {
        let (key, at_ms): (i64, i64) = (row.get(0)?, row.get(1)?);
        if at_ms >= number(before_ms) {
            break;
        }
        words.execute(params![key, indexed(row.get_ref(2)?.as_str()?)])?;
        last = Some(key);
        deleted += 1;
    }
    if last.is_some() {
        connection.prepare_cached("DELETE FROM messages WHERE key <= ?1")?.execute([last])?;
    }
    Ok(deleted)
}

/// Tells the index of words that two of its parts are enough to be merged.
pub fn merge_words_early(connection: &Connection) -> rusqlite::Result<()> {
    connection.prepare_cached("INSERT INTO words (words, rank) VALUES ('usermerge', 2)")?.execute([])?;
    Ok(())
}

/// Merges some pages of the index of words, so that what was deleted leaves it. Whether there was something to merge.
pub fn merge_words(connection: &Connection, pages: u64) -> rusqlite::Result<bool> {
    let before = connection.total_changes();
    let mut statement = connection.prepare_cached("INSERT INTO words (words, rank) VALUES ('merge', ?1)")?;
    statement.execute([number(pages)])?;
    // The command itself counts as one (FTS5, section 6.8).
    Ok(connection.total_changes() - before >= 2)
}

/// A text as the index has it: in NFC, as one letter may be spelt in several ways (U+09DF in Bengali).
fn indexed(text: &str) -> Cow<'_, str> {
    if is_nfc(text) { Cow::Borrowed(text) } else { Cow::Owned(text.nfc().collect()) }
}

/// The message that an author sent with a nonce.
pub fn by_nonce(connection: &Connection, author: UserId, nonce: &Nonce) -> rusqlite::Result<Message> {
    let sql = format!(
        "SELECT {COLUMNS} FROM messages m JOIN rooms r ON r.key = m.room WHERE m.user_id = ?1 AND m.nonce = ?2"
    );
    connection.prepare_cached(&sql)?.query_row(params![author.0.as_bytes(), nonce.as_str()], message)
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

/// At most `limit` messages of a room on one side of a place, oldest first. With words: only those that have all
/// of them, the last perhaps only begun.
pub fn page(
    connection: &Connection,
    room_key: i64,
    side: Side,
    limit: usize,
    words: Option<&str>,
) -> rusqlite::Result<Vec<Message>> {
    let matching = words.map(|words| words_query(&indexed(words)));
    if matching.as_deref() == Some("") {
        return Ok(Vec::new());
    }
    let (comparison, order, place) = match side {
        Side::Before(seq) => ("<", "DESC", seq),
        Side::After(seq) => (">", "ASC", seq),
    };
    let among = if matching.is_some() { "AND m.key IN (SELECT rowid FROM words WHERE words MATCH ?4)" } else { "" };
    let sql = format!(
        "SELECT {COLUMNS} FROM messages m JOIN rooms r ON r.key = m.room
         WHERE m.room = ?1 AND m.seq {comparison} ?2 {among} ORDER BY m.seq {order} LIMIT ?3"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let (place, limit) = (number(place.0), number(limit as u64));
    let rows = match matching {
        None => statement.query_map(params![room_key, place, limit], message)?,
        Some(query) => statement.query_map(params![room_key, place, limit, query], message)?,
    };
    let mut messages = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    if matches!(side, Side::Before(_)) {
        messages.reverse();
    }
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
    let keyed = |row: &Row<'_>| Ok((row.get(9)?, message(row)?));
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

/// Who bears the token of this hash, if anybody does.
pub fn bearer(connection: &Connection, hash: TokenHash) -> rusqlite::Result<Option<UserId>> {
    let mut statement = connection.prepare_cached("SELECT id FROM users WHERE token_hash = ?1")?;
    statement.query_row([hash.0], |row| uuid(row, 0).map(UserId)).optional()
}

/// The words of a text as the index takes them: letters, digits and the marks on them, such as Bengali vowel signs.
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_in_word = |c: char| c.is_alphanumeric() || is_combining_mark(c);
    text.split(move |c| !is_in_word(c)).filter(|word| !word.is_empty())
}

/// What people type as a query of FTS5: each word a term of its own, quoted, so that no character of it is an
/// operator; the last may be the beginning of a word. Empty where there is no word in it.
fn words_query(text: &str) -> String {
    let mut words: Vec<String> = words(text).map(|word| format!("\"{word}\"")).collect();
    if let Some(last) = words.last_mut() {
        last.push('*');
    }
    words.join(" ")
}

fn message(row: &Row<'_>) -> rusqlite::Result<Message> {
    let nonce: Option<String> = row.get(5)?;
    Ok(Message {
        id: FrameId(uuid(row, 0)?),
        room: room_id(row, 1)?,
        seq: seq(row, 2)?,
        author: Person {
            id: UserId(uuid(row, 3)?),
            username: Username::parse(&row.get::<_, String>(4)?).map_err(|error| broken(4, error))?,
        },
        nonce: nonce.and_then(|nonce| Nonce::parse(&nonce).ok()),
        content: row.get::<_, String>(6)?.into(),
        reply_to: row.get::<_, Option<[u8; 16]>>(7)?.map(|bytes| FrameId(Uuid::from_bytes(bytes))),
        at_ms: u64::try_from(row.get::<_, i64>(8)?).unwrap_or(0),
    })
}

fn uuid(row: &Row<'_>, column: usize) -> rusqlite::Result<Uuid> {
    row.get::<_, [u8; 16]>(column).map(Uuid::from_bytes)
}

fn seq(row: &Row<'_>, column: usize) -> rusqlite::Result<Seq> {
    row.get::<_, i64>(column).map(|seq| Seq(u64::try_from(seq).unwrap_or(0)))
}

fn room_id(row: &Row<'_>, column: usize) -> rusqlite::Result<RoomId> {
    RoomId::parse(&row.get::<_, String>(column)?).map_err(|error| broken(column, error))
}

fn broken(column: usize, error: crate::model::NameError) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}

/// SQLite's integers have a sign; ours are far from needing that bit.
fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_characters_are_never_a_query_of_their_own() {
        for (text, query) in [
            ("tea", "\"tea\"*"),
            ("hot tea", "\"hot\" \"tea\"*"),
            ("বৃষ্টি নামলে", "\"বৃষ্টি\" \"নামলে\"*"),
            ("a AND (b OR \"c", "\"a\" \"AND\" \"b\" \"OR\" \"c\"*"),
            ("content:x* -y ^z NEAR(1)", "\"content\" \"x\" \"y\" \"z\" \"NEAR\" \"1\"*"),
            ("\"'%;--", ""),
            ("", ""),
        ] {
            assert_eq!(words_query(text), query, "{text}");
        }
    }
}
