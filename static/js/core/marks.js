// Marks the terms of a search in a text. Terms, folding and the ends of words are those of the server
// (`src/store/terms.rs`), so the marked parts are those that the server found. Pure.

// A letter, a digit, or a mark on one, such as a Bengali vowel sign.
const OF_WORD = "\\p{Alphabetic}\\p{N}\\p{M}";
// The scripts whose words have no spaces between them.
const UNSPACED =
  "\\u0E00-\\u109F\\u1780-\\u17FF\\u1950-\\u19FF\\u1A20-\\u1AAF\\u1B00-\\u1B7F\\u3005-\\u3007\\u3041-\\u312F" +
  "\\u31F0-\\u31FF\\u3400-\\u4DBF\\u4E00-\\u9FFF\\uA980-\\uA9FF\\uAA00-\\uAADF\\uF900-\\uFAFF\\uFF66-\\uFF9F" +
  "\\u{20000}-\\u{323AF}";
// White space, and characters that are not shown.
const SPACE = "\\s\\p{Cc}\\p{Co}";
// Signs that belong to the word beside them, as in `C++`.
const BINDING = "#$&+<=>@\\^|~";
// Signs that structure a text, besides the others of ASCII.
const PUNCTUATION =
  "\\u00A1\\u00A7\\u00AB\\u00B6\\u00B7\\u00BB\\u00BF\\u0589\\u058A\\u05BE-\\u05F4\\u0609\\u060A\\u060C\\u060D\\u061B-\\u061F" +
  "\\u066A-\\u066D\\u06D4\\u0700-\\u070D\\u0964\\u0965\\u0970\\u0E4F-\\u0E5B\\u0F04-\\u0F3D\\u104A-\\u104F\\u10FB" +
  "\\u1360-\\u1368\\u17D4-\\u17DA\\u1800-\\u180A\\u2010-\\u205E\\u2E00-\\u2E7F\\u3001-\\u3003\\u3008-\\u3030\\u303D\\u30A0" +
  "\\u30FB\\uFE10-\\uFE6B\\uFF01-\\uFF0F\\uFF1A-\\uFF20\\uFF3B-\\uFF40\\uFF5B-\\uFF65";

const SPACES = new RegExp(`[${SPACE}]+`, "u");
const IS_OF_WORD = new RegExp(`[${OF_WORD}]`, "u");
const IS_UNSPACED = new RegExp(`[${UNSPACED}]`, "u");
const IS_BINDING = new RegExp(`[${BINDING}]`, "u");
const IS_PUNCTUATION = new RegExp(`[\\x21-\\x7E${PUNCTUATION}]`, "u");
// A character with what shapes it. Nothing composes across the ends of such a part.
const SHAPED = /.[\p{M}\u00AD\u1160-\u11FF\u200B-\u200D\u2060\uFEFF]*/gsu;
// Accents, and characters that only shape letters or mark places for a line break.
const LEFT_OUT = /[\u0300-\u036F\u00AD\u200B-\u200D\u2060\uFEFF\uFE00-\uFE0F]/gu;
// The part of a long text that is shown before its first mark.
const LEAD_CHARS = 30;
const LEAD_CHARS_MAX = 60;

// The text in pieces `{ text, marked }`. What the query looks for is marked, with the rest of a word of which the query
// has only the beginning. Text far before the first mark is left out.
export function markWords(text, query) {
  const pieces = [];
  let end = 0;
  for (const [from, to] of marksOf(text, termsOf(query))) {
    if (from > end) pieces.push({ text: text.slice(end, from), marked: false });
    pieces.push({ text: text.slice(from, to), marked: true });
    end = to;
  }
  if (end < text.length) pieces.push({ text: text.slice(end), marked: false });
  const [first] = pieces;
  if (pieces.length > 1 && !first.marked && first.text.length > LEAD_CHARS_MAX) first.text = `…${lead(first.text)}`;
  return pieces;
}

// The end of a text, from the first beginning of a word.
function lead(text) {
  const end = [...text.slice(-2 * LEAD_CHARS)].slice(-LEAD_CHARS).join("");
  const space = end.search(/\s\S/u);
  return space < 0 ? end : end.slice(space + 1);
}

// The marked parts of a text as `[from, to]`, in order and without overlaps.
function marksOf(text, terms) {
  const folded = foldWithPlaces(text);
  const found = terms.flatMap((term) => placesOf(term, folded.text));
  const marks = [];
  for (const [from, to] of found.sort(([a], [b]) => a - b)) {
    const mark = [folded.begins[from], folded.ends[to - 1]];
    const last = marks.at(-1);
    if (last && mark[0] < last[1]) last[1] = Math.max(last[1], mark[1]);
    else marks.push(mark);
  }
  return marks;
}

// The places of a term in a folded text, as `[from, to]`.
function placesOf({ text: term, isOpen }, folded) {
  const places = [];
  const beginsWord = isWord(firstOf(term));
  const endsWord = isWord(lastOf(term));
  for (let from = folded.indexOf(term); from >= 0; from = folded.indexOf(term, from + 1)) {
    let to = from + term.length;
    if (beginsWord && isWord(lastOf(folded.slice(0, from)))) continue;
    if (endsWord && !isOpen && isWord(firstOf(folded.slice(to)))) continue;
    while (endsWord && isWord(firstOf(folded.slice(to)))) to += firstOf(folded.slice(to)).length;
    places.push([from, to]);
  }
  return places;
}

// The terms of a query, each `{ text, isOpen }`. The last word may be typed only in part.
function termsOf(query) {
  const chunks = fold(query).split(SPACES).filter((chunk) => chunk !== "");
  const texts = chunks.flatMap(termsOfChunk);
  const [punctuation] = chunks;
  if (texts.length === 0) return punctuation === undefined ? [] : [{ text: punctuation, isOpen: false }];
  const isRepeated = texts.indexOf(texts.at(-1)) < texts.length - 1;
  return [...new Set(texts)].map((text) => ({ text, isOpen: text === texts.at(-1) && !isRepeated }));
}

// The terms of a part of a query without white space. Punctuation is left out.
function termsOfChunk(chunk) {
  const parts = groups(chunk, partOf);
  if (!IS_OF_WORD.test(chunk) && !parts.some(([part]) => part === "symbols")) {
    return IS_BINDING.test(chunk) ? [chunk] : [];
  }
  return parts.flatMap(([part, text]) => {
    if (part === "symbols") return [text];
    if (part === "punctuation" || !IS_OF_WORD.test(text)) return [];
    return IS_BINDING.test(text) ? [text] : groups(text, (char) => IS_UNSPACED.test(char)).map(([, run]) => run);
  });
}

function partOf(char) {
  if (IS_OF_WORD.test(char) || IS_BINDING.test(char)) return "bound";
  return IS_PUNCTUATION.test(char) ? "punctuation" : "symbols";
}

// The longest runs of characters for which a function returns the same, each with that result.
function groups(text, group) {
  const runs = [];
  for (const char of text) {
    const result = group(char);
    if (runs.at(-1)?.[0] === result) runs.at(-1)[1] += char;
    else runs.push([result, char]);
  }
  return runs;
}

// Whether a character is part of a word in a script with spaces.
function isWord(char) {
  return char !== undefined && IS_OF_WORD.test(char) && !IS_UNSPACED.test(char);
}

function firstOf(text) {
  const code = text.codePointAt(0);
  return code === undefined ? undefined : String.fromCodePoint(code);
}

function lastOf(text) {
  return [...text.slice(-2)].at(-1);
}

function fold(text) {
  return foldWithPlaces(text).text;
}

// The folded text, and where each of its code units begins and ends in the text.
function foldWithPlaces(text) {
  const begins = [];
  const ends = [];
  let folded = "";
  for (const { 0: shaped, index } of text.matchAll(SHAPED)) {
    const part = shaped.toLowerCase().replaceAll("ς", "σ").normalize("NFD").replace(LEFT_OUT, "").normalize("NFC");
    for (let i = 0; i < part.length; i += 1) {
      begins.push(index);
      ends.push(index + shaped.length);
    }
    folded += part;
  }
  return { text: folded, begins, ends };
}
