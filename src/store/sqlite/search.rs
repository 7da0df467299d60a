//! The word index, and searches in the database.
//!
//! The index follows the messages: upkeep adds them in the order of their keys, in transactions of their own. Its
//! *position* is the key up to which it is complete. So a commit of messages writes no index, and many messages are
//! indexed at once, which costs less. A search reads the messages behind the position.
//!
//! A search first reads the messages nearest to its seq, where frequent words are found soonest. For the others it
//! queries the index.

use std::collections::HashSet;
use std::time::Instant;

use rusqlite::{Connection, Rows};

use crate::model::{FrameId, Seq};

use super::super::Side;
use super::super::ledger::RoomRow;
use super::super::message::Message;
use super::super::terms::{Terms, each_token};
use super::messages::{self, COLUMNS, FROM, IS_MESSAGE, sql_of};
use super::row::{all, execute, first, signed, value};

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
/// The number of a message's tokens that are erased from the index at once: 60 µs each with 20,000 messages. In a script
/// without spaces, a text has two for each character.
const TOKENS_ERASED_MAX: usize = 400;
/// Begins the name of the mark with the words of a deleted message that are still to be erased.
const ERASURE: &str = "erase:";
/// The name of the mark that all of the index is to be merged. Its value says whether that has begun.
const WHOLE_MERGE: &str = "whole_merge";
/// Begins the word that names the room of a message. No word of a text contains this private-use character.
const ROOM_MARK: char = '\u{E000}';

/// The text that the index gets for a message, when it is inserted and when it is deleted.
fn indexed(room_key: i64, content: &str) -> String {
    let mut text = format!("{ROOM_MARK}{room_key}");
    each_token(content, |token| {
        text.push(' ');
        text.push_str(token);
    });
    text
}

/// The key up to which all messages are in the index. No message after it is in the index.
pub fn position(connection: &Connection) -> rusqlite::Result<i64> {
    value(connection, "SELECT coalesce((SELECT value FROM marks WHERE name = 'indexed_key'), 0)", [])
}

/// The number of keys behind the position, which is at least the number of messages there.
pub fn backlog(connection: &Connection) -> rusqlite::Result<i64> {
    let (_, last) = messages::keys(connection)?;
    Ok((last - position(connection)?).max(0))
}

/// Adds the next messages to the index: at most so many, with texts of about so many bytes. Runs in a transaction.
/// Returns whether messages may be left.
pub fn follow(connection: &Connection, messages_max: usize, bytes_max: usize) -> rusqlite::Result<bool> {
    let mut next =
        connection.prepare_cached("SELECT key, room, content FROM messages WHERE key > ?1 ORDER BY key LIMIT ?2")?;
    let mut rows = next.query((position(connection)?, signed(messages_max as u64)))?;
    let (mut last, mut count, mut bytes) = (None, 0, 0);
    while bytes < bytes_max
        && let Some(row) = rows.next()?
    {
        let (key, content) = (row.get(0)?, row.get_ref(2)?.as_str()?);
        insert(connection, key, row.get(1)?, content)?;
        (last, count, bytes) = (Some(key), count + 1, bytes + content.len());
    }
    let Some(last) = last else { return Ok(false) };
    let sql = "INSERT OR REPLACE INTO marks (name, value) VALUES ('indexed_key', ?1)";
    execute(connection, sql, [last])?;
    Ok(count == messages_max || bytes >= bytes_max)
}

/// Inserts a message's words.
fn insert(connection: &Connection, key: i64, room_key: i64, content: &str) -> rusqlite::Result<()> {
    let sql = "INSERT INTO words (rowid, content) VALUES (?1, ?2)";
    execute(connection, sql, (key, indexed(room_key, content))).map(drop)
}

/// Deletes a message's words, if it is indexed. The index has no text of its own, so it needs the text that was
/// inserted.
pub fn delete(connection: &Connection, key: i64, room_key: i64, content: &str) -> rusqlite::Result<()> {
    if key > position(connection)? {
        return Ok(());
    }
    let sql = "INSERT INTO words (words, rowid, content) VALUES ('delete', ?1, ?2)";
    execute(connection, sql, (key, indexed(room_key, content))).map(drop)
}

/// Replaces the words of a message by those of another text, if it is indexed. The old words are only marked as deleted.
pub fn replace(connection: &Connection, key: i64, room_key: i64, was: &str, is: &str) -> rusqlite::Result<()> {
    if key > position(connection)? {
        return Ok(());
    }
    delete(connection, key, room_key, was)?;
    insert(connection, key, room_key, is)
}

/// Replaces the words of a message by those of another text, if it is indexed. The old words are erased, which reads and writes the
/// index for each word. For a very long message that would delay other messages. So the rest of its words is noted, and
/// [`erase_more`] erases some at a time.
pub fn erase(connection: &Connection, key: i64, room_key: i64, was: &str, is: &str) -> rusqlite::Result<()> {
    if key > position(connection)? {
        return Ok(());
    }
    let indexed = indexed(room_key, was);
    let mut known = HashSet::new();
    let words: Vec<&str> = indexed.split(' ').filter(|word| known.insert(*word)).collect();
    let (now, later) = words.split_at(words.len().min(TOKENS_ERASED_MAX));
    erase_words(connection, key, now)?;
    note_erasure(connection, key, later)?;
    insert(connection, key, room_key, is)
}

/// Notes the words of a message that are still to be erased.
fn note_erasure(connection: &Connection, key: i64, words: &[&str]) -> rusqlite::Result<()> {
    let name = format!("{ERASURE}{key}");
    if words.is_empty() {
        return execute(connection, "DELETE FROM marks WHERE name = ?1", [name]).map(drop);
    }
    let sql = "INSERT OR REPLACE INTO marks (name, value) VALUES (?1, ?2)";
    execute(connection, sql, (name, words.join(" "))).map(drop)
}

/// Erases more words of a deleted message. Returns whether there were any.
pub fn erase_more(connection: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT name, value FROM marks WHERE name >= ?1 AND name < ?1 || 'z' LIMIT 1";
    let noted: Option<(String, String)> = first(connection, sql, [ERASURE], |row| row.try_into())?;
    let Some((name, words)) = noted else { return Ok(false) };
    let key = name.trim_start_matches(ERASURE).parse().unwrap_or(0);
    let words: Vec<&str> = words.split(' ').collect();
    let (now, later) = words.split_at(words.len().min(TOKENS_ERASED_MAX));
    // FTS5 counts rows, and each erasure takes one away.
    execute(connection, "INSERT INTO words (rowid, content) VALUES (?1, '')", [key])?;
    erase_words(connection, key, now)?;
    note_erasure(connection, key, later)?;
    Ok(true)
}

fn erase_words(connection: &Connection, key: i64, words: &[&str]) -> rusqlite::Result<()> {
    // Words that the index has not written yet are written in its usual way.
    execute(connection, "INSERT INTO words (words) VALUES ('flush')", [])?;
    execute(connection, "INSERT INTO words (words, rank) VALUES ('secure-delete', 1)", [])?;
    let sql = "INSERT INTO words (words, rowid, content) VALUES ('delete', ?1, ?2)";
    execute(connection, sql, (key, words.join(" ")))?;
    execute(connection, "INSERT INTO words (words) VALUES ('flush')", [])?;
    execute(connection, "INSERT INTO words (words, rank) VALUES ('secure-delete', 0)", []).map(drop)
}

/// Makes an empty index at the beginning. The data of the index before is left to [`drop_data`], as dropping a large
/// table takes seconds.
pub fn begin_anew(connection: &Connection) -> rusqlite::Result<()> {
    if value::<i64>(connection, "SELECT count(*) FROM (SELECT 1 FROM messages LIMIT 1)", [])? == 0 {
        return connection.execute_batch(&format!("DROP TABLE words; {SCHEMA}"));
    }
    // Earlier schemas have no position.
    connection.execute_batch(&format!(
        "DROP TABLE IF EXISTS dropped_words;
         ALTER TABLE words_data RENAME TO dropped_words;
         CREATE TABLE words_data (id INTEGER PRIMARY KEY, block BLOB);
         -- What FTS5 reads before it drops the table.
         INSERT INTO words_data SELECT * FROM dropped_words WHERE id IN (1, 10);
         DROP TABLE words;
         {SCHEMA};"
    ))?;
    Ok(())
}

/// Deletes some data of an index that was replaced. Returns whether there is more.
pub fn drop_data(connection: &Connection, rows_max: usize) -> rusqlite::Result<bool> {
    let is_there = "SELECT count(*) FROM sqlite_schema WHERE name = 'dropped_words'";
    if value::<i64>(connection, is_there, [])? == 0 {
        return Ok(false);
    }
    let sql = "DELETE FROM dropped_words WHERE id IN (SELECT id FROM dropped_words LIMIT ?1)";
    if execute(connection, sql, [signed(rows_max as u64)])? == 0 {
        connection.execute_batch("DROP TABLE dropped_words")?;
    }
    Ok(true)
}

/// Lets the index merge as few as two of its segments.
pub fn merge_early(connection: &Connection) -> rusqlite::Result<()> {
    execute(connection, "INSERT INTO words (words, rank) VALUES ('usermerge', 2)", []).map(drop)
}

/// Merges some pages of the index, which drops deleted words. Returns whether there was something to merge.
pub fn merge(connection: &Connection, pages: u64) -> rusqlite::Result<bool> {
    merge_pages(connection, signed(pages))
}

fn merge_pages(connection: &Connection, pages: i64) -> rusqlite::Result<bool> {
    let before = connection.total_changes();
    execute(connection, "INSERT INTO words (words, rank) VALUES ('merge', ?1)", [pages])?;
    // The command itself counts as one change (FTS5, section 6.8).
    Ok(connection.total_changes() - before >= 2)
}

/// Notes that all of the index is to be merged. This drops all deleted words, and a usual merge only some.
pub fn begin_whole_merge(connection: &Connection) -> rusqlite::Result<()> {
    execute(connection, "INSERT OR REPLACE INTO marks (name, value) VALUES (?1, 0)", [WHOLE_MERGE]).map(drop)
}

/// Merges some pages, if all of the index is to be merged. Returns whether it is, and whether this was the end.
pub fn merge_whole(connection: &Connection, pages: u64) -> rusqlite::Result<WholeMerge> {
    let sql = "SELECT value FROM marks WHERE name = ?1";
    let Some(is_begun) = first(connection, sql, [WHOLE_MERGE], |row| row.get::<_, bool>(0))? else {
        return Ok(WholeMerge::None);
    };
    if !is_begun {
        merge_early(connection)?;
        // A negative number joins all segments into one, however many there are (FTS5, section 6.8).
        merge_pages(connection, -signed(pages))?;
        execute(connection, "UPDATE marks SET value = 1 WHERE name = ?1", [WHOLE_MERGE])?;
        return Ok(WholeMerge::InProgress);
    }
    if merge(connection, pages)? {
        return Ok(WholeMerge::InProgress);
    }
    execute(connection, "DELETE FROM marks WHERE name = ?1", [WHOLE_MERGE])?;
    Ok(WholeMerge::Ended)
}

/// How far a merge of all of the index is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WholeMerge {
    None,
    InProgress,
    Ended,
}

/// The rooms of which the index does not have as many messages as it should: the room, the number that it has, and the
/// number that it should have.
pub fn wrong_counts(connection: &Connection, limit: i64) -> rusqlite::Result<Vec<(String, i64, i64)>> {
    let sql = "SELECT id, indexed, messages FROM (
            SELECT r.id, (SELECT count(*) FROM words WHERE words MATCH '\"' || char(?1) || r.key || '\"') AS indexed,
                (SELECT count(*) FROM messages m WHERE m.room = r.key AND m.key <= ?2) AS messages
            FROM rooms r)
        WHERE indexed <> messages LIMIT ?3";
    all(connection, sql, (u32::from(ROOM_MARK), position(connection)?, limit), |row| row.try_into())
}

/// The queries for FTS5: for the whole tokens of a search, and for all. They are quoted, so that nothing in them is an
/// operator.
struct Queries {
    whole: String,
    all: String,
}

impl Queries {
    fn new(terms: &Terms, room_key: i64) -> Self {
        let (whole, begun) = terms.tokens();
        let whole: String = whole.iter().map(|token| format!(" \"{token}\"")).collect();
        let whole = format!("\"{ROOM_MARK}{room_key}\"{whole}");
        let begun: String = begun.iter().map(|token| format!(" \"{token}\"*")).collect();
        Self { all: format!("{whole}{begun}"), whole }
    }
}

/// The messages of a room on one side of a seq that have all the terms, oldest first, `limit` at most. Also returns the
/// last message that was read if the search ended at its deadline. A search reads some messages even after its deadline.
///
/// Frequent words are found soonest by reading the messages nearest to the seq, rare words by querying the index. The
/// index is slow only for a prefix of frequent words. So it is first queried for the whole words, and their messages
/// are read. Messages that are not indexed yet are the newest, and all of them are read.
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
    let position = position(connection)?;
    let mut search = Search { terms, limit, deadline, position, found: Vec::new(), last: None };
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
           AND m.deleted_ms IS NULL
         ORDER BY w.rowid {order}"
    );
    // The words of a deleted message may stay in the index for some seconds.
    let mut matching = connection.prepare_cached(&sql)?;
    let is_indexed = matches!(end, End::Bound(_));
    let queries = Queries::new(terms, room_key);
    if let End::Bound(key) = end
        && queries.all != queries.whole
        && queries.whole.contains(' ')
    {
        let rows = matching.query((&queries.whole, key, room_key, floor))?;
        end = search.read(rows, READ_MAX, READ_BYTES_MAX)?;
    }
    if let End::Bound(key) = end {
        let rows = matching.query((&queries.all, key, room_key, floor))?;
        end = search.read(rows, usize::MAX, usize::MAX)?;
    }
    if is_indexed
        && let (Side::After(_), End::Exhausted) = (side, &end)
        && let Some(before) = last_indexed(connection, room, position)?
    {
        end = search.read(nearest.query((room_key, before, floor))?, usize::MAX, usize::MAX)?;
    }
    let Search { mut found, last, .. } = search;
    side.sort(&mut found);
    Ok((found, last.filter(|_| matches!(end, End::Deadline))))
}

/// The last seq of a room whose message is indexed; `None` if all messages of the room are.
fn last_indexed(connection: &Connection, room: RoomRow, position: i64) -> rusqlite::Result<Option<Seq>> {
    let sql = "SELECT key FROM messages WHERE room = ?1 AND seq >= ?2 ORDER BY seq LIMIT 1";
    let is_behind = |seq: u64| first(connection, sql, (room.key, Seq(seq)), |row| row.get::<_, i64>(0));
    // Keys increase with the seq.
    let (mut low, mut high) = (room.floor.0, room.head.0);
    if is_behind(high)?.is_none_or(|key| key <= position) {
        return Ok(None);
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if is_behind(middle)?.is_some_and(|key| key <= position) { low = middle } else { high = middle }
    }
    Ok(Some(Seq(low)))
}

/// A search that goes on from one query to the next.
struct Search<'a> {
    terms: &'a Terms,
    limit: usize,
    deadline: Instant,
    /// The key of the last message that is indexed.
    position: i64,
    found: Vec<Message>,
    /// The last message that was read.
    last: Option<FrameId>,
}

/// Why reading ended.
enum End {
    /// Enough matches are found.
    Complete,
    /// No messages are left.
    Exhausted,
    /// As many messages were read as should be. The last one has this key.
    Bound(i64),
    Deadline,
}

impl Search<'_> {
    fn read(&mut self, mut rows: Rows<'_>, messages_max: usize, bytes_max: usize) -> rusqlite::Result<End> {
        let (mut messages_read, mut bytes_read) = (0, 0);
        let (mut unchecked, mut unchecked_bytes) = (0, 0);
        while self.found.len() < self.limit {
            let Some(row) = rows.next()? else { return Ok(End::Exhausted) };
            let content = messages::content(row)?;
            if self.terms.are_in(content) {
                self.found.push(messages::message(row)?);
            }
            self.last = Some(messages::id(row)?);
            (messages_read, bytes_read) = (messages_read + 1, bytes_read + content.len());
            if messages_read >= messages_max || bytes_read >= bytes_max {
                // The index does not have the messages behind its position, so all of them are read.
                let key = messages::key(row)?;
                if key <= self.position {
                    return Ok(End::Bound(key));
                }
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
        for (text, expected) in [
            ("tea", "\"\u{E000}7\" \"tea\"*"),
            ("a AND (b OR \"c", "\"\u{E000}7\" \"a\" \"and\" \"b\" \"or\" \"c\"*"),
            ("content:x* -y NEAR(1)", "\"\u{E000}7\" \"content\" \"x\" \"y\" \"near\" \"1\"*"),
            ("\"'", "\"\u{E000}7\" \"\u{E122}\u{E127}\""),
        ] {
            assert_eq!(Queries::new(&Terms::parse(text).unwrap(), 7).all, expected, "{text}");
        }
    }

    /// A database with messages in two rooms. Returns their rows, with the seqs and texts of the first room.
    fn with_messages(connection: &Connection, count: u64) -> (RoomRow, Vec<(u64, String)>) {
        crate::store::sqlite::schema::migrate(connection).unwrap();
        let mut rows = [1, 2].map(|key| RoomRow { key, head: Seq(0), floor: Seq(0) });
        connection.execute_batch("INSERT INTO rooms (key, id, head) VALUES (1, 'tea', 0), (2, 'jam', 0)").unwrap();
        let mut texts = Vec::new();
        for key in 1..=count {
            let room = usize::from(key % 3 == 0);
            let seq = rows[room].head.next();
            rows[room].head = seq;
            let text = format!("all n{} {}", key % 7, if key % 10 == 1 { "rare" } else { "often" });
            let sql = "INSERT INTO messages (id, room, seq, user_id, username, content, at_ms, key)
                VALUES (?1, ?2, ?3, zeroblob(16), 'ana', ?4, 1, ?5)";
            let id = FrameId(uuid::Uuid::from_u128(u128::from(key)));
            connection.execute(sql, (id, rows[room].key, seq, &text, key as i64)).unwrap();
            if room == 0 {
                texts.push((seq.0, text));
            }
        }
        for row in &rows {
            connection.execute("UPDATE rooms SET head = ?2 WHERE key = ?1", (row.key, row.head)).unwrap();
        }
        (rows[0], texts)
    }

    #[test]
    fn a_search_finds_the_same_wherever_the_index_is() {
        let connection = Connection::open_in_memory().unwrap();
        let (room, texts) = with_messages(&connection, 6_000);
        loop {
            for query in ["rare", "n3 ra", "all", "n1 n2", "often al"] {
                let terms = Terms::parse(query).unwrap();
                let matching = || texts.iter().filter(|(_, text)| terms.are_in(text)).map(|(seq, _)| *seq);
                for place in [0, 1, 100, 2_500, 3_999, u64::MAX >> 1] {
                    for limit in [1, 7, 9_999] {
                        let find = |side| {
                            let deadline = Instant::now() + std::time::Duration::from_secs(60);
                            let (found, end) = page(&connection, room, side, limit, &terms, deadline).unwrap();
                            assert_eq!(end, None);
                            found.iter().map(|message| message.seq.0).collect::<Vec<_>>()
                        };
                        let after: Vec<_> = matching().filter(|seq| *seq > place).take(limit).collect();
                        let at = position(&connection).unwrap();
                        assert_eq!(find(Side::After(Seq(place))), after, "{query} after {place}, index at {at}");
                        let mut before: Vec<_> = matching().filter(|seq| *seq < place).collect();
                        before.drain(..before.len().saturating_sub(limit));
                        assert_eq!(find(Side::Before(Seq(place))), before, "{query} before {place}, index at {at}");
                    }
                }
            }
            if !follow(&connection, 1_700, usize::MAX).unwrap() {
                break;
            }
        }
        assert_eq!((backlog(&connection).unwrap(), wrong_counts(&connection, 9).unwrap()), (0, Vec::new()));
    }

    #[test]
    fn a_text_that_is_gone_is_in_no_index() {
        let connection = Connection::open_in_memory().unwrap();
        let _ = with_messages(&connection, 20);
        follow(&connection, 10, usize::MAX).unwrap();
        let count = |query: &str| -> i64 {
            let sql = "SELECT count(*) FROM words WHERE words MATCH ?1";
            connection.query_row(sql, [query], |row| row.get(0)).unwrap()
        };
        assert_eq!((count("rare"), count("often")), (1, 9));
        for key in [1, 2, 11, 12] {
            let (room, content): (i64, String) = connection
                .query_row("SELECT room, content FROM messages WHERE key = ?1", [key], |row| row.try_into())
                .unwrap();
            if key % 2 == 0 {
                delete(&connection, key, room, &content).unwrap();
                connection.execute("DELETE FROM messages WHERE key = ?1", [key]).unwrap();
            } else {
                erase(&connection, key, room, &content, "").unwrap();
                connection.execute("UPDATE messages SET content = '' WHERE key = ?1", [key]).unwrap();
            }
        }
        assert_eq!((count("rare"), count("often")), (0, 8));
        assert_eq!(wrong_counts(&connection, 9).unwrap(), []);
        while follow(&connection, 3, usize::MAX).unwrap() {}
        assert_eq!((count("rare"), count("often")), (0, 16));
        assert_eq!(wrong_counts(&connection, 9).unwrap(), []);
        // A fault is noticed.
        connection.execute("UPDATE marks SET value = 19 WHERE name = 'indexed_key'", []).unwrap();
        assert_eq!(wrong_counts(&connection, 9).unwrap().len(), 1);
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
            let query = Queries::new(&terms, 1).all;
            let indexed = find.query_map([query], |row| row.get::<_, i64>(0)).unwrap().map(Result::unwrap);
            let indexed: Vec<i64> = indexed.filter(|key| terms.are_in(&texts[*key as usize])).collect();
            let read = texts.iter().enumerate().filter(|(key, text)| key % 2 == 1 && terms.are_in(text));
            assert_eq!(indexed, read.map(|(key, _)| key as i64).collect::<Vec<_>>(), "{text}");
            searched += 1;
        }
        assert!(searched > 50, "{searched}");
    }
}
