//! The word index, and searches in the database.
//!
//! A search first reads the messages nearest to its seq, where frequent words are found soonest. For the others it
//! queries the index.

use std::time::Instant;

use rusqlite::{Connection, Rows};

use crate::model::FrameId;

use super::super::Side;
use super::super::ledger::RoomRow;
use super::super::message::Message;
use super::super::terms::{Terms, folded, words};
use super::messages::{self, COLUMNS, FROM, IS_MESSAGE, sql_of};
use super::row::{execute, signed};

/// The schema of the index. It compares words by their bytes. A prefix of two or three characters is looked up
/// directly; for another length, all words that begin with it are walked. The index keeps no text, no positions within
/// a text and no lengths.
pub const SCHEMA: &str = "CREATE VIRTUAL TABLE words USING fts5 (
    content, content = '', detail = none, columnsize = 0, prefix = '2 3', tokenize = 'ascii'
)";

/// The number of messages that a search reads before it queries the index, and the bytes of their texts.
const READ_MAX: usize = 2_000;
const READ_BYTES_MAX: usize = 512 * 1024;
/// The number of messages that are read between two checks of the clock, and the bytes of their texts.
const READ_AT_ONCE: usize = 64;
const READ_AT_ONCE_BYTES: usize = 64 * 1024;
/// The number of a message's words that are erased from the index at once: 60 µs each with 20,000 messages.
const WORDS_ERASED_MAX: usize = 200;
/// Begins the word that names the room of a message. No word of a text contains this private-use character.
const ROOM_MARK: char = '\u{E000}';

/// The text that the index gets for a message, when it is inserted and when it is deleted.
fn indexed(room_key: i64, content: &str) -> String {
    let folded = folded(content);
    let mut text = format!("{ROOM_MARK}{room_key}");
    for word in words(&folded) {
        text.push(' ');
        text.push_str(word);
    }
    text
}

/// Inserts a message's words.
pub fn insert(connection: &Connection, key: i64, room_key: i64, content: &str) -> rusqlite::Result<()> {
    let sql = "INSERT INTO words (rowid, content) VALUES (?1, ?2)";
    execute(connection, sql, (key, indexed(room_key, content))).map(drop)
}

/// Deletes a message's words. The index has no text of its own, so it needs the text that was inserted.
pub fn delete(connection: &Connection, key: i64, room_key: i64, content: &str) -> rusqlite::Result<()> {
    let sql = "INSERT INTO words (words, rowid, content) VALUES ('delete', ?1, ?2)";
    execute(connection, sql, (key, indexed(room_key, content))).map(drop)
}

/// Replaces the indexed words of a message by those of another text. The old words are erased at once, which reads and
/// writes the index for each word. For a very long message that would delay other messages. Its old words are only
/// marked as deleted, as [`delete`] does it, and disappear when the index merges its segments.
pub fn erase(connection: &Connection, key: i64, room_key: i64, was: &str, is: &str) -> rusqlite::Result<()> {
    if indexed(room_key, was).split(' ').count() > WORDS_ERASED_MAX {
        delete(connection, key, room_key, was)?;
        return insert(connection, key, room_key, is);
    }
    // Words that the index has not written yet are written in its usual way.
    execute(connection, "INSERT INTO words (words) VALUES ('flush')", [])?;
    execute(connection, "INSERT INTO words (words, rank) VALUES ('secure-delete', 1)", [])?;
    delete(connection, key, room_key, was)?;
    execute(connection, "INSERT INTO words (words) VALUES ('flush')", [])?;
    execute(connection, "INSERT INTO words (words, rank) VALUES ('secure-delete', 0)", [])?;
    insert(connection, key, room_key, is)
}

/// Rebuilds the index from the messages.
pub fn rebuild(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&format!("DROP TABLE IF EXISTS words; {SCHEMA}"))?;
    let mut messages = connection.prepare("SELECT key, room, content FROM messages ORDER BY key")?;
    let mut rows = messages.query([])?;
    while let Some(row) = rows.next()? {
        insert(connection, row.get(0)?, row.get(1)?, row.get_ref(2)?.as_str()?)?;
    }
    Ok(())
}

/// Lets the index merge as few as two of its segments.
pub fn merge_early(connection: &Connection) -> rusqlite::Result<()> {
    execute(connection, "INSERT INTO words (words, rank) VALUES ('usermerge', 2)", []).map(drop)
}

/// Merges some pages of the index, which drops deleted words. Returns whether there was something to merge.
pub fn merge(connection: &Connection, pages: u64) -> rusqlite::Result<bool> {
    let before = connection.total_changes();
    execute(connection, "INSERT INTO words (words, rank) VALUES ('merge', ?1)", [signed(pages)])?;
    // The command itself counts as one change (FTS5, section 6.8).
    Ok(connection.total_changes() - before >= 2)
}

/// The query for FTS5. Its terms are quoted, so that nothing in them is an operator.
fn query(terms: &Terms, room_key: i64) -> String {
    let begun = terms.begun().map(|begun| format!(" \"{begun}\"*")).unwrap_or_default();
    format!("{}{begun}", whole_query(terms, room_key))
}

/// The same without the last word, which may be a prefix.
fn whole_query(terms: &Terms, room_key: i64) -> String {
    let whole: String = terms.whole().iter().map(|word| format!(" \"{word}\"")).collect();
    format!("\"{ROOM_MARK}{room_key}\"{whole}")
}

/// The messages of a room on one side of a seq that have all the terms, oldest first, `limit` at most. Also returns the
/// last message that was read if the search ended at its deadline. A search reads some messages even after its deadline.
///
/// Frequent words are found soonest by reading the messages nearest to the seq, rare words by querying the index. The
/// index is slow only for a prefix of frequent words. So it is first queried for the whole words, and their messages
/// are read.
pub fn page(
    connection: &Connection,
    room: RoomRow,
    side: Side,
    limit: usize,
    terms: &Terms,
    deadline: Instant,
) -> rusqlite::Result<(Vec<Message>, Option<FrameId>)> {
    let RoomRow { key: room_key, floor, .. } = room;
    let (comparison, order, place) = sql_of(side);
    let mut search = Search { terms, limit, deadline, found: Vec::new(), last: None };
    let sql = format!(
        "SELECT {COLUMNS}, m.key {FROM} WHERE m.room = ?1 AND m.seq {comparison} ?2 AND m.seq > ?3 AND {IS_MESSAGE} ORDER BY m.seq {order}"
    );
    let mut nearest = connection.prepare_cached(&sql)?;
    let mut end = search.read(nearest.query((room_key, place, floor))?, READ_MAX, READ_BYTES_MAX)?;
    // Keys increase with the seq in a room. CROSS JOIN makes the index lead, in that order and only as far as needed.
    let sql = format!(
        "SELECT {COLUMNS}, m.key
         FROM words w CROSS JOIN messages m ON m.key = w.rowid CROSS JOIN rooms r ON r.key = m.room
         WHERE w.words MATCH ?1 AND w.rowid {comparison} ?2 AND m.room = ?3 AND m.seq > ?4 AND {IS_MESSAGE}
         ORDER BY w.rowid {order}"
    );
    let mut matching = connection.prepare_cached(&sql)?;
    if let End::Bound(key) = end
        && !terms.whole().is_empty()
        && terms.begun().is_some()
    {
        let rows = matching.query((whole_query(terms, room_key), key, room_key, floor))?;
        end = search.read(rows, READ_MAX, READ_BYTES_MAX)?;
    }
    if let End::Bound(key) = end {
        let rows = matching.query((query(terms, room_key), key, room_key, floor))?;
        end = search.read(rows, usize::MAX, usize::MAX)?;
    }
    let Search { mut found, last, .. } = search;
    side.sort(&mut found);
    Ok((found, last.filter(|_| matches!(end, End::Deadline))))
}

/// A search that goes on from one query to the next.
struct Search<'a> {
    terms: &'a Terms,
    limit: usize,
    deadline: Instant,
    found: Vec<Message>,
    /// The last message that was read.
    last: Option<FrameId>,
}

/// Why reading ended.
enum End {
    /// Enough matches are found, or no messages are left.
    Complete,
    /// As many messages were read as should be. The last one has this key.
    Bound(i64),
    Deadline,
}

impl Search<'_> {
    fn read(&mut self, mut rows: Rows<'_>, messages_max: usize, bytes_max: usize) -> rusqlite::Result<End> {
        let (mut messages_read, mut bytes_read) = (0, 0);
        let (mut unchecked, mut unchecked_bytes) = (0, 0);
        while self.found.len() < self.limit {
            let Some(row) = rows.next()? else { return Ok(End::Complete) };
            let content = messages::content(row)?;
            if self.terms.are_in(content) {
                self.found.push(messages::message(row)?);
            }
            self.last = Some(messages::id(row)?);
            (messages_read, bytes_read) = (messages_read + 1, bytes_read + content.len());
            if messages_read >= messages_max || bytes_read >= bytes_max {
                return Ok(End::Bound(messages::key(row)?));
            }
            (unchecked, unchecked_bytes) = (unchecked + 1, unchecked_bytes + content.len());
            if unchecked >= READ_AT_ONCE || unchecked_bytes >= READ_AT_ONCE_BYTES {
                if Instant::now() >= self.deadline {
                    return Ok(End::Deadline);
                }
                (unchecked, unchecked_bytes) = (0, 0);
            }
        }
        Ok(End::Complete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_characters_are_never_query_operators() {
        let query = |text| Terms::parse(text).map(|terms| query(&terms, 7)).unwrap();
        for (text, expected) in [
            ("tea", "\"\u{E000}7\" \"tea\"*"),
            ("a AND (b OR \"c", "\"\u{E000}7\" \"a\" \"and\" \"b\" \"or\" \"c\"*"),
            ("content:x* -y ^z NEAR(1)", "\"\u{E000}7\" \"content\" \"x\" \"y\" \"z\" \"near\" \"1\"*"),
        ] {
            assert_eq!(query(text), expected, "{text}");
        }
        assert!(Terms::parse("\"'%;--").unwrap().is_empty() && Terms::parse("").unwrap().is_empty());
    }

    /// Every fifth code point, in a text of its own: the index must find what reading finds.
    #[test]
    fn the_index_finds_what_reading_finds() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(SCHEMA).unwrap();
        let texts: Vec<String> =
            (0..0x3_2000).step_by(5).filter_map(char::from_u32).map(|c| format!("x{c}y {c} z")).collect();
        connection.execute_batch("BEGIN").unwrap();
        for (key, text) in texts.iter().enumerate() {
            insert(&connection, key as i64, (key % 2) as i64, text).unwrap();
        }
        connection.execute_batch("COMMIT").unwrap();
        let mut find = connection.prepare("SELECT rowid FROM words WHERE words MATCH ?1 ORDER BY rowid").unwrap();
        let mut searched = 0;
        for text in texts.iter().step_by(401).chain(&["x".to_owned(), "xa".to_owned(), "xay a z".to_owned()]) {
            let terms = Terms::parse(text).unwrap();
            let indexed: Vec<i64> =
                find.query_map([query(&terms, 1)], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
            let read = texts.iter().enumerate().filter(|(key, text)| key % 2 == 1 && terms.are_in(text));
            assert_eq!(indexed, read.map(|(key, _)| key as i64).collect::<Vec<_>>(), "{text}");
            searched += 1;
        }
        assert!(searched > 50, "{searched}");
    }
}
