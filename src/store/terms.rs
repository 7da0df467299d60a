//! The terms of a search, and what a text is made of.
//!
//! Pure. Both storages share these definitions, and the page marks found terms by the same rules
//! (`static/js/core/marks.js`). A text is folded, and consists of words, of runs in scripts without spaces, and of
//! signs. A search looks for words. In a script without spaces, and for signs such as emoji, it looks for a part of the
//! text.
//!
//! The index gets the tokens of a text ([`each_token`]). A message that has a term also has its tokens, so the index
//! finds a superset, and the text decides.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use crate::limits::SEARCH_TERMS_MAX;

/// The number of tokens for which the index is queried at most. More of them would find hardly fewer messages.
const TOKENS_MAX: usize = 32;

/// What a search looks for: messages that have all these terms. Without terms, it finds nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms(Vec<Term>);

/// A folded part of a text. If it begins or ends with a character of a word, it stands at the beginning or the end of a
/// word.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    text: String,
    /// Whether the word at its end may go on. The last word of a query may be typed only in part.
    is_open: bool,
}

/// A search has more than [`SEARCH_TERMS_MAX`] distinct terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many words to search for: at most {SEARCH_TERMS_MAX} different ones")]
pub struct TooManyTerms;

impl Terms {
    /// Parses a typed text. A term that is repeated counts once. Punctuation counts only if there is nothing else.
    ///
    /// # Errors
    /// [`TooManyTerms`].
    pub fn parse(text: &str) -> Result<Self, TooManyTerms> {
        let folded = folded(text);
        let mut terms: Vec<Term> = Vec::new();
        let mut punctuation = None;
        // The last term, and whether it is repeated.
        let mut last = None;
        for chunk in folded.split(|c| Class::of(c) == Class::Space).filter(|chunk| !chunk.is_empty()) {
            let mut is_empty = true;
            each_term(chunk, |text| {
                is_empty = false;
                let is_known = terms.iter().any(|term| term.text == text);
                last = Some(is_known);
                if !is_known && terms.len() <= SEARCH_TERMS_MAX {
                    terms.push(Term { text: text.to_owned(), is_open: false });
                }
            });
            if terms.len() > SEARCH_TERMS_MAX {
                return Err(TooManyTerms);
            }
            if is_empty {
                punctuation.get_or_insert(chunk);
            }
        }
        match (terms.last_mut(), punctuation) {
            (Some(term), _) => term.is_open = last == Some(false),
            (None, Some(text)) => terms.push(Term { text: text.to_owned(), is_open: false }),
            (None, None) => {}
        }
        Ok(Self(terms))
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a text has all the terms.
    pub fn are_in(&self, text: &str) -> bool {
        let folded = folded(text);
        !self.is_empty() && self.0.iter().all(|term| term.is_in(&folded))
    }

    /// What to look for in the index: whole tokens, and prefixes of tokens. Each list has at most [`TOKENS_MAX`] elements.
    pub fn tokens(&self) -> (Vec<String>, Vec<String>) {
        let (mut whole, mut begun) = (Vec::new(), Vec::new());
        for term in &self.0 {
            let mut add = |token: &str, is_begun: bool| {
                let list = if is_begun { &mut begun } else { &mut whole };
                if list.len() < TOKENS_MAX && !list.iter().any(|known| known == token) {
                    list.push(token.to_owned());
                }
            };
            let mut parts = runs(&term.text).peekable();
            while let Some((class, run)) = parts.next() {
                match class {
                    Class::Word => add(run, term.is_open && parts.peek().is_none()),
                    // The pairs say all that single characters say.
                    Class::Unspaced | Class::Sign if run.chars().nth(1).is_some() => {
                        pairs(run).for_each(|pair| add(&token(pair), false));
                    }
                    Class::Unspaced | Class::Sign => singles(run).for_each(|single| add(&token(single), false)),
                    Class::Space => {}
                }
            }
        }
        (whole, begun)
    }
}

impl Term {
    fn is_in(&self, folded: &str) -> bool {
        let is_word = |c: Option<char>| c.is_some_and(|c| Class::of(c) == Class::Word);
        let (begins_word, ends_word) = (is_word(self.text.chars().next()), is_word(self.text.chars().next_back()));
        let mut from = 0;
        while let Some(at) = folded[from..].find(&self.text).map(|at| from + at) {
            let (before, after) = (&folded[..at], &folded[at + self.text.len()..]);
            let goes_back = begins_word && is_word(before.chars().next_back());
            let goes_on = ends_word && !self.is_open && is_word(after.chars().next());
            if !goes_back && !goes_on {
                return true;
            }
            from = at + self.text.chars().next().map_or(1, char::len_utf8);
        }
        false
    }
}

/// What a character is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// A letter, a digit, or a mark on one, such as a Bengali vowel sign.
    Word,
    /// The same in a script whose words have no spaces between them.
    Unspaced,
    /// A symbol or punctuation.
    Sign,
    /// White space, or a character that is not shown.
    Space,
}

impl Class {
    fn of(c: char) -> Self {
        if c.is_alphanumeric() || is_combining_mark(c) {
            if is_unspaced(c) { Self::Unspaced } else { Self::Word }
        } else if c.is_whitespace() || c.is_control() || is_private(c) {
            Self::Space
        } else {
            Self::Sign
        }
    }
}

/// Chinese, Japanese, Thai, Lao, Tibetan, Burmese, Khmer, and scripts that are written like them.
fn is_unspaced(c: char) -> bool {
    matches!(c, '\u{E00}'..='\u{FFF}' | '\u{1000}'..='\u{109F}' | '\u{1780}'..='\u{17FF}' | '\u{1950}'..='\u{19FF}'
        | '\u{1A20}'..='\u{1AAF}' | '\u{1B00}'..='\u{1B7F}' | '\u{3005}'..='\u{3007}' | '\u{3041}'..='\u{312F}'
        | '\u{31F0}'..='\u{31FF}' | '\u{3400}'..='\u{4DBF}' | '\u{4E00}'..='\u{9FFF}' | '\u{A980}'..='\u{A9FF}'
        | '\u{AA00}'..='\u{AADF}' | '\u{F900}'..='\u{FAFF}' | '\u{FF66}'..='\u{FF9F}' | '\u{20000}'..='\u{323AF}')
}

/// A character without a common meaning. The index has its own use for some of them.
fn is_private(c: char) -> bool {
    matches!(c, '\u{E000}'..='\u{F8FF}' | '\u{F0000}'..='\u{10FFFF}')
}

/// A sign that belongs to the word beside it, as in `C++`, `F#` and `R&D`.
fn binds(c: char) -> bool {
    matches!(c, '#' | '$' | '&' | '+' | '<' | '=' | '>' | '@' | '^' | '|' | '~')
}

/// A sign that structures a text. The other signs are symbols, such as emoji.
fn is_punctuation(c: char) -> bool {
    c.is_ascii() && !binds(c)
        || matches!(c, '\u{A1}' | '\u{A7}' | '\u{AB}' | '\u{B6}' | '\u{B7}' | '\u{BB}' | '\u{BF}' | '\u{589}'..='\u{58A}'
            | '\u{5BE}'..='\u{5F4}' | '\u{609}'..='\u{60A}' | '\u{60C}'..='\u{60D}' | '\u{61B}'..='\u{61F}'
            | '\u{66A}'..='\u{66D}' | '\u{6D4}' | '\u{700}'..='\u{70D}' | '\u{964}'..='\u{965}' | '\u{970}'
            | '\u{E4F}'..='\u{E5B}' | '\u{F04}'..='\u{F3D}' | '\u{104A}'..='\u{104F}' | '\u{10FB}'
            | '\u{1360}'..='\u{1368}' | '\u{17D4}'..='\u{17DA}' | '\u{1800}'..='\u{180A}' | '\u{2010}'..='\u{205E}'
            | '\u{2E00}'..='\u{2E7F}' | '\u{3001}'..='\u{3003}' | '\u{3008}'..='\u{3030}' | '\u{303D}' | '\u{30A0}'
            | '\u{30FB}' | '\u{FE10}'..='\u{FE6B}' | '\u{FF01}'..='\u{FF0F}' | '\u{FF1A}'..='\u{FF20}'
            | '\u{FF3B}'..='\u{FF40}' | '\u{FF5B}'..='\u{FF65}')
}

/// Passes the terms of a part of a query without white space to `take`. Punctuation is left out.
fn each_term<'a>(chunk: &'a str, mut take: impl FnMut(&'a str)) {
    #[derive(PartialEq, Eq)]
    enum Part {
        /// Words with the signs that belong to them.
        Bound,
        Symbols,
        Punctuation,
    }
    let part_of = |c: char| match Class::of(c) {
        Class::Word | Class::Unspaced => Part::Bound,
        _ if binds(c) => Part::Bound,
        _ if is_punctuation(c) => Part::Punctuation,
        _ => Part::Symbols,
    };
    let is_of_word = |c: char| matches!(Class::of(c), Class::Word | Class::Unspaced);
    if !chunk.chars().any(|c| is_of_word(c) || part_of(c) == Part::Symbols) {
        // Such as `->`, or punctuation alone.
        if chunk.contains(binds) {
            take(chunk);
        }
        return;
    }
    for (part, text) in groups(chunk, part_of) {
        match part {
            Part::Symbols => take(text),
            Part::Bound if text.contains(binds) && text.contains(is_of_word) => take(text),
            Part::Bound if text.contains(is_of_word) => runs(text).for_each(|(_, run)| take(run)),
            Part::Bound | Part::Punctuation => {}
        }
    }
}

/// The runs of characters of one class.
fn runs(folded: &str) -> impl Iterator<Item = (Class, &str)> {
    groups(folded, Class::of)
}

/// The longest runs of characters for which a function returns the same.
fn groups<T: PartialEq>(text: &str, group: impl Fn(char) -> T) -> impl Iterator<Item = (T, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = group(rest.chars().next()?);
        let end = rest.find(|c| group(c) != first).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        rest = after;
        Some((first, run))
    })
}

/// The tokens of a text, for the index: its words, and of other runs each character and each pair of characters.
/// Punctuation alone is in most texts, so it has no token.
pub fn each_token(text: &str, mut take: impl FnMut(&str)) {
    for (class, run) in runs(&folded(text)) {
        match class {
            Class::Word => take(run),
            Class::Unspaced | Class::Sign => singles(run).chain(pairs(run)).for_each(|part| take(&token(part))),
            Class::Space => {}
        }
    }
}

/// The characters of a run that have a token.
fn singles(run: &str) -> impl Iterator<Item = &str> {
    let characters = run.char_indices().map(|(at, c)| (c, &run[at..at + c.len_utf8()]));
    characters.filter(|(c, _)| !(Class::of(*c) == Class::Sign && is_punctuation(*c))).map(|(_, single)| single)
}

/// The pairs of neighbours in a run.
fn pairs(run: &str) -> impl Iterator<Item = &str> {
    let ends = run.char_indices().skip(1).map(|(at, c)| at + c.len_utf8());
    run.char_indices().zip(ends).map(|((begin, _), end)| &run[begin..end])
}

/// A token as the index gets it. The index splits words at ASCII signs, so they are replaced by private characters.
fn token(part: &str) -> Cow<'_, str> {
    let is_plain = |c: char| !c.is_ascii() || c.is_ascii_alphanumeric();
    if part.chars().all(is_plain) {
        return Cow::Borrowed(part);
    }
    let replaced = |c: char| if is_plain(c) { c } else { char::from_u32(0xE100 + u32::from(c)).unwrap_or(c) };
    Cow::Owned(part.chars().map(replaced).collect())
}

/// Folds a text for comparison: to lower case and without the accents on letters (U+0300 to U+036F). Characters that
/// only shape letters or mark places for a line break are left out too (joiners, soft hyphens, variation selectors,
/// zero-width spaces). The result is in NFC, as a letter may be encoded in several ways.
fn folded(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        let has_upper = text.bytes().any(|byte| byte.is_ascii_uppercase());
        return if has_upper { Cow::Owned(text.to_ascii_lowercase()) } else { Cow::Borrowed(text) };
    }
    let is_left_out = |c: &char| {
        matches!(c, '\u{300}'..='\u{36F}' | '\u{200B}'..='\u{200D}' | '\u{2060}' | '\u{FEFF}' | '\u{AD}'
            | '\u{FE00}'..='\u{FE0F}')
    };
    let mut folded = String::with_capacity(text.len());
    // Nothing composes across a space, and ASCII needs no normalization, which takes most of the time.
    for part in text.split_inclusive(' ') {
        if part.is_ascii() {
            folded.extend(part.chars().map(|c| c.to_ascii_lowercase()));
        } else {
            let lower = part.chars().flat_map(char::to_lowercase).map(|c| if c == 'ς' { 'σ' } else { c });
            folded.extend(lower.nfd().filter(|c| !is_left_out(c)).nfc());
        }
    }
    Cow::Owned(folded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens_of(text: &str) -> Vec<String> {
        let mut tokens = Vec::new();
        each_token(text, |token| tokens.push(token.to_owned()));
        tokens
    }

    fn terms_of(text: &str) -> Vec<String> {
        let open = |term: &Term| if term.is_open { "…" } else { "" };
        Terms::parse(text).unwrap().0.iter().map(|term| format!("{}{}", term.text, open(term))).collect()
    }

    #[test]
    fn a_text_has_the_expected_tokens() {
        for (text, expected) in [
            ("Hot TEA, please!", &["hot", "tea", "please"][..]),
            ("Café crème, ÅNGSTRÖM", &["cafe", "creme", "angstrom"]),
            ("ONE টা Two \u{301} e\u{301}", &["one", "টা", "two", "e"]),
            ("বৃষ্টি নামলে", &["বৃষ্টি", "নামলে"]),
            ("\u{09DF}", &["\u{09AF}\u{09BC}"]),
            ("র\u{200D}্যাম", &["র্যাম"]),
            ("ὈΔΥΣΣΕΎΣ", &["οδυσσευσ"]),
            ("İstanbul", &["istanbul"]),
            ("我喝茶 tea茶", &["我", "喝", "茶", "我喝", "喝茶", "tea", "茶"]),
            ("a_b-c.d 3½", &["a", "b", "c", "d", "3½"]),
            ("\u{E000}17 🎉 ❤\u{FE0F} \"*(", &["17", "🎉", "❤", "\u{E122}\u{E12A}", "\u{E12A}\u{E128}"]),
            ("C++ :)", &["c", "\u{E12B}", "\u{E12B}", "\u{E12B}\u{E12B}", "\u{E13A}\u{E129}"]),
        ] {
            assert_eq!(tokens_of(text), expected, "{text}");
        }
    }

    #[test]
    fn a_query_has_the_expected_terms() {
        for (query, expected) in [
            ("Hot TEA, please!", &["hot", "tea", "please…"][..]),
            ("tea tea", &["tea"]),
            ("C++ or F#, 50%", &["c++", "or", "f#", "50…"]),
            ("c/c++ a@b.org", &["c", "c++", "a@b", "org…"]),
            ("ข้าวผัด กุ้ง12", &["ข้าวผัด", "กุ้ง", "12…"]),
            ("喝茶tea", &["喝茶", "tea…"]),
            ("cake🎂🎂!", &["cake", "🎂🎂…"]),
            ("-> tea", &["->", "tea…"]),
            ("tea - \"cake\"", &["tea", "cake…"]),
            (" ?! ...", &["?!"]),
            ("content:x* -y ^z NEAR(1)", &["content", "x", "y", "^z", "near", "1…"]),
            ("\u{E000}7", &["7…"]),
            (" \t", &[]),
        ] {
            assert_eq!(terms_of(query), expected, "{query}");
        }
    }

    #[test]
    fn a_text_has_the_terms_that_it_shows() {
        for (text, query, is_found) in [
            ("tea and teapots", "teap", true),
            ("tea and teapots", "teap tea", false),
            ("a decaf", "cafe", false),
            ("cake 🎂 for all", "🎂", true),
            ("cake 🍰 for all", "🎂", false),
            ("👍🏽", "👍", true),
            ("I like C++ and C", "c++", true),
            ("I like C and cats", "C++", false),
            ("a C-compiler", "c++", false),
            ("abc++", "c++", false),
            ("xc+c+c", "c+c", true),
            ("in F#", "f#", true),
            ("ผมกินข้าวผัดทุกวัน", "ข้าวผัด", true),
            ("ผมกินข้าวต้มทุกวัน", "ข้าวผัด", false),
            ("ຂ້ອຍກິນເຂົ້າຜັດ", "ເຂົ້າ", true),
            ("ខ្ញុំ\u{200B}ញ៉ាំ\u{200B}បាយ", "ញ៉ាំបាយ", true),
            ("ကျွန်တော်ထမင်းစားတယ်", "ထမင်း", true),
            ("我喝茶", "喝茶", true),
            ("喝了茶", "喝茶", false),
            ("র\u{200D}্যাব আসছে", "র্যাব", true),
            ("র্যাব আসছে", "র\u{200D}্যাব", true),
            ("so :) it is", ":)", true),
            ("so (it) is", ":)", false),
            ("why?", "?", true),
            ("", "tea", false),
            ("tea", "", false),
        ] {
            assert_eq!(Terms::parse(query).unwrap().are_in(text), is_found, "{query} in {text}");
        }
    }

    #[test]
    fn sixteen_distinct_terms_are_the_most() {
        let query = |count: usize| (0..count).map(|number| format!("w{number} ")).collect::<String>();
        assert!(Terms::parse(&query(SEARCH_TERMS_MAX)).is_ok());
        assert_eq!(Terms::parse(&query(SEARCH_TERMS_MAX + 1)), Err(TooManyTerms));
        // A term counts once, however often it is repeated.
        assert!(Terms::parse(&query(SEARCH_TERMS_MAX).repeat(400)).is_ok());
        let twice = Terms::parse("tea Tea TEA").unwrap();
        assert!(twice.are_in("tea") && !twice.are_in("teapot"));
    }

    #[test]
    fn a_long_term_has_few_tokens() {
        for long in [('\u{4E00}'..'\u{5E00}').collect(), "a+b-".repeat(4_000), "🎂🍰".repeat(2_000)] {
            let terms = Terms::parse(&long).unwrap();
            let (whole, begun) = terms.tokens();
            assert!((1..=TOKENS_MAX).contains(&whole.len()) && begun.len() <= TOKENS_MAX, "{whole:?} {begun:?}");
            assert!(terms.are_in(&long) && !terms.are_in("茶 a b 🎂"));
        }
    }

    /// A text with a term has the tokens of the term.
    #[test]
    fn tokens_miss_no_text_with_the_terms() {
        let parts = ["tea", "茶", "喝茶", "+", "++", "🎂", "ข้าว", "ผัด", " ", "?", "c", "।", "-", "র\u{200D}্য"];
        let text = |mut number: usize| {
            let mut text = String::new();
            while number > 0 {
                text += parts[number % parts.len()];
                number /= parts.len();
            }
            text
        };
        let mut found = 0;
        for number in (1..30_000).step_by(7) {
            let (text, query) = (text(number), text(number / parts.len()));
            let terms = Terms::parse(&query).unwrap();
            if terms.are_in(&text) {
                let (tokens, (whole, begun)) = (tokens_of(&text), terms.tokens());
                assert!(whole.iter().all(|token| tokens.contains(token)), "{query} in {text}: {whole:?} {tokens:?}");
                let has = |begun: &String| tokens.iter().any(|token| token.starts_with(&**begun));
                assert!(begun.iter().all(has), "{query} in {text}: {begun:?} {tokens:?}");
                found += 1;
            }
        }
        assert!(found > 1_000, "{found}");
    }
}
