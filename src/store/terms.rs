//! The terms of a search, and the definition of a word.
//!
//! Pure. Both storages share this definition. A text is folded and split into words here, and the word index gets only
//! the words. So reading a message and querying the index give the same answer.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use crate::limits::SEARCH_TERMS_MAX;

/// What a search looks for: messages that have all these words. The last word may be a prefix. Without words, it finds
/// nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    whole: Vec<String>,
    begun: Option<String>,
}

/// A search has more than [`SEARCH_TERMS_MAX`] distinct terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many words to search for: at most {SEARCH_TERMS_MAX} different ones")]
pub struct TooManyTerms;

impl Terms {
    /// Parses a typed text. A word that is repeated counts once.
    ///
    /// # Errors
    /// [`TooManyTerms`].
    pub fn parse(text: &str) -> Result<Self, TooManyTerms> {
        let folded = folded(text);
        let mut whole: Vec<String> = Vec::new();
        let mut begun: Option<&str> = None;
        for word in words(&folded) {
            if let Some(before) = begun.replace(word)
                && !whole.iter().any(|known| known == before)
            {
                whole.push(before.to_owned());
            }
            if whole.len() > SEARCH_TERMS_MAX {
                return Err(TooManyTerms);
            }
        }
        // A word that is wanted whole need not be looked for as a prefix, too.
        let begun = begun.filter(|begun| !whole.iter().any(|known| known == begun)).map(str::to_owned);
        let count = whole.len() + usize::from(begun.is_some());
        if count > SEARCH_TERMS_MAX { Err(TooManyTerms) } else { Ok(Self { whole, begun }) }
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.begun.is_none()
    }

    /// The words that a message must have.
    pub fn whole(&self) -> &[String] {
        &self.whole
    }

    /// What a word of a message must begin with.
    pub fn begun(&self) -> Option<&str> {
        self.begun.as_deref()
    }

    /// Whether a text has all the words.
    pub fn are_in(&self, text: &str) -> bool {
        if self.is_empty() {
            return false;
        }
        let folded = folded(text);
        self.begun.as_ref().is_none_or(|begun| words(&folded).any(|word| word.starts_with(begun)))
            && self.whole.iter().all(|wanted| words(&folded).any(|word| word == wanted))
    }
}

/// Folds a text for comparison: to lower case and without the accents on letters (U+0300 to U+036F). Characters that
/// only shape letters are left out too (joiners, soft hyphens, variation selectors). The result is in NFC, as a letter
/// may be encoded in several ways.
pub fn folded(text: &str) -> Cow<'_, str> {
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
pub fn words(folded: &str) -> impl Iterator<Item = &str> {
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
    fn sixteen_distinct_words_are_the_most() {
        let query = |count: usize| (0..count).map(|number| format!("w{number} ")).collect::<String>();
        assert!(Terms::parse(&query(SEARCH_TERMS_MAX)).is_ok());
        assert_eq!(Terms::parse(&query(SEARCH_TERMS_MAX + 1)), Err(TooManyTerms));
        // A word counts once, however often it is repeated.
        assert!(Terms::parse(&query(SEARCH_TERMS_MAX).repeat(400)).is_ok());
        let twice = Terms::parse("tea Tea TEA").unwrap();
        assert_eq!((twice.whole(), twice.begun()), (&["tea".to_owned()][..], None));
        assert!(twice.are_in("tea") && !twice.are_in("teapot"));
    }
}
