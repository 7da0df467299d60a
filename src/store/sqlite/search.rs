//! The definition of a word, and the word index.
//!
//! Both storages share this definition. A text is folded and split into words here, and the index gets only the words.
//! So reading a message and querying the index give the same answer. A search first reads the messages nearest to its
//! seq, where frequent words are found soonest. For the others it queries the index.

use std::borrow::Cow;

use rusqlite::{Connection, Rows};
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::super::Side;
use super::super::ledger::RoomRow;
use super::super::message::Message;
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
/// The number of a message's words that are erased from the index at once: 60 µs each with 20,000 messages.
const WORDS_ERASED_MAX: usize = 200;
/// Begins the word that names the room of a message. No word of a text contains this private-use character.
const ROOM_MARK: char = '\u{E000}';

/// The words that a search looks for. The last word may be a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    whole: Vec<String>,
    begun: String,
}

impl Wanted {
    /// The words of a typed text; `None` if it has none.
    pub fn parse(text: &str) -> Option<Self> {
        let folded = folded(text);
        let mut whole: Vec<String> = words(&folded).map(str::to_owned).collect();
        let begun = whole.pop()?;
        Some(Self { whole, begun })
    }

    /// Whether a text has all the words.
    pub fn are_in(&self, text: &str) -> bool {
        let folded = folded(text);
        words(&folded).any(|word| word.starts_with(&self.begun))
            && self.whole.iter().all(|wanted| words(&folded).any(|word| word == wanted))
    }

    /// The query for FTS5. Its terms are quoted, so that nothing in them is an operator.
    fn query(&self, room_key: i64) -> String {
        format!("{} \"{}\"*", self.whole_query(room_key), self.begun)
    }

    /// The same without the last word, which may be a prefix.
    fn whole_query(&self, room_key: i64) -> String {
        let whole: String = self.whole.iter().map(|word| format!(" \"{word}\"")).collect();
        format!("\"{ROOM_MARK}{room_key}\"{whole}")
    }
}

/// Folds a text for comparison: to lower case and without the accents on letters (U+0300 to U+036F). Characters that
/// only shape letters are left out too (joiners, soft hyphens, variation selectors). The result is in NFC, as a letter
/// may be encoded in several ways.
fn folded(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        let has_upper = text.bytes().any(|byte| byte.is_ascii_uppercase());
        return if has_upper { Cow::Owned(text.to_ascii_lowercase()) } else { Cow::Borrowed(text) };
    }
    let is_left_out =
        |c: &char| matches!(c, '\u{300}'..='\u{36F}' | '\u{200C}' | '\u{200D}' | '\u{AD}' | '\u{FE00}'..='\u{FE0F}');
    let lower = text.chars().flat_map(char::to_lowercase).map(|c| if c == 'ς' { 'σ' } else { c });
    Cow::Owned(lower.nfd().filter(|c| !is_left_out(c)).nfc().collect())
}

/// The words of a folded text: runs of letters, digits and the marks on them, such as Bengali vowel signs. Chinese and
/// Japanese are written without spaces, so each of their characters is a word.
fn words(folded: &str) -> impl Iterator<Item = &str> {
    let runs = folded.split(|c: char| !(c.is_alphanumeric() || is_combining_mark(c)));
    runs.flat_map(|run| {
        run.split_inclusive(stands_alone).flat_map(|part| match part.char_indices().last() {
            Some((at, last)) if stands_alone(last) => [&part[..at], &part[at..]],
            _ => [part, ""],
        })
    })
    .filter(|word| !word.is_empty())
}

fn stands_alone(c: char) -> bool {
    matches!(c, '\u{3041}'..='\u{3096}' | '\u{30A1}'..='\u{30FA}' | '\u{3400}'..='\u{4DBF}' | '\u{4E00}'..='\u{9FFF}'
        | '\u{F900}'..='\u{FAFF}' | '\u{20000}'..='\u{323AF}')
}

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

/// The messages of a room on one side of a seq that have all the words, oldest first, `limit` at most.
///
/// Frequent words are found soonest by reading the messages nearest to the seq, rare words by querying the index. The
/// index is slow only for a prefix of frequent words. So it is first queried for the whole words, and their messages
/// are read.
pub fn page(
    connection: &Connection,
    room: RoomRow,
    side: Side,
    limit: usize,
    wanted: &Wanted,
) -> rusqlite::Result<Vec<Message>> {
    let RoomRow { key: room_key, floor, .. } = room;
    let (comparison, order, place) = sql_of(side);
    let mut found = Vec::new();
    let sql = format!(
        "SELECT {COLUMNS}, m.key {FROM} WHERE m.room = ?1 AND m.seq {comparison} ?2 AND m.seq > ?3 AND {IS_MESSAGE} ORDER BY m.seq {order}"
    );
    let mut nearest = connection.prepare_cached(&sql)?;
    let mut read_up_to = read(nearest.query((room_key, place, floor))?, limit, wanted, &mut found)?;
    // Keys increase with the seq in a room. CROSS JOIN makes the index lead, in that order and only as far as needed.
    let sql = format!(
        "SELECT {COLUMNS}, m.key
         FROM words w CROSS JOIN messages m ON m.key = w.rowid CROSS JOIN rooms r ON r.key = m.room
         WHERE w.words MATCH ?1 AND w.rowid {comparison} ?2 AND m.room = ?3 AND m.seq > ?5 AND {IS_MESSAGE}
         ORDER BY w.rowid {order} LIMIT ?4"
    );
    let mut matching = connection.prepare_cached(&sql)?;
    if let Some(key) = read_up_to
        && !wanted.whole.is_empty()
    {
        let rows = matching.query((wanted.whole_query(room_key), key, room_key, -1, floor))?;
        read_up_to = read(rows, limit, wanted, &mut found)?;
    }
    if let Some(key) = read_up_to {
        let left = signed((limit - found.len()) as u64);
        let values = (wanted.query(room_key), key, room_key, left, floor);
        for message in matching.query_map(values, messages::message)? {
            found.push(message?);
        }
    }
    side.sort(&mut found);
    Ok(found)
}

/// Reads messages until enough matches are found or no messages are left. At the bound, returns the key of the last
/// message that it read.
fn read(mut rows: Rows<'_>, limit: usize, wanted: &Wanted, found: &mut Vec<Message>) -> rusqlite::Result<Option<i64>> {
    let (mut messages_read, mut bytes_read) = (0, 0);
    while found.len() < limit {
        let Some(row) = rows.next()? else { return Ok(None) };
        let content = messages::content(row)?;
        if wanted.are_in(content) {
            found.push(messages::message(row)?);
        }
        (messages_read, bytes_read) = (messages_read + 1, bytes_read + content.len());
        if messages_read == READ_MAX || bytes_read >= READ_BYTES_MAX {
            return Ok(Some(messages::key(row)?));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words_of(text: &str) -> Vec<String> {
        words(&folded(text)).map(str::to_owned).collect()
    }

    #[test]
    fn a_text_is_split_into_the_expected_words() {
        for (text, expected) in [
            ("Hot TEA, please!", &["hot", "tea", "please"][..]),
            ("Café crème, ÅNGSTRÖM", &["cafe", "creme", "angstrom"]),
            ("বৃষ্টি নামলে", &["বৃষ্টি", "নামলে"]),
            ("\u{09DF}", &["\u{09AF}\u{09BC}"]),
            ("র\u{200D}্যাম", &["র্যাম"]),
            ("ὈΔΥΣΣΕΎΣ", &["οδυσσευσ"]),
            ("İstanbul", &["istanbul"]),
            ("我喝茶 tea茶", &["我", "喝", "茶", "tea", "茶"]),
            ("a_b-c.d 3½", &["a", "b", "c", "d", "3½"]),
            ("\u{E000}17 🎉 ❤\u{FE0F} \"*(", &["17"]),
        ] {
            assert_eq!(words_of(text), expected, "{text}");
            assert_eq!(words_of(&words_of(text).join(" ")), expected, "{text}: its words are folded already");
        }
    }

    #[test]
    fn special_characters_are_never_query_operators() {
        let query = |text| Wanted::parse(text).map(|wanted| wanted.query(7));
        for (text, expected) in [
            ("tea", "\"\u{E000}7\" \"tea\"*"),
            ("a AND (b OR \"c", "\"\u{E000}7\" \"a\" \"and\" \"b\" \"or\" \"c\"*"),
            ("content:x* -y ^z NEAR(1)", "\"\u{E000}7\" \"content\" \"x\" \"y\" \"z\" \"near\" \"1\"*"),
        ] {
            assert_eq!(query(text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(query("\"'%;--"), None);
        assert_eq!(query(""), None);
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
            let Some(wanted) = Wanted::parse(text) else { continue };
            let indexed: Vec<i64> =
                find.query_map([wanted.query(1)], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
            let read = texts.iter().enumerate().filter(|(key, text)| key % 2 == 1 && wanted.are_in(text));
            assert_eq!(indexed, read.map(|(key, _)| key as i64).collect::<Vec<_>>(), "{text}");
            searched += 1;
        }
        assert!(searched > 50, "{searched}");
    }
}
