// Marks the words of a search in a text. A word is the same as in the server's index (`src/store/sqlite/search.rs`), so
// the marked words are those that the server found. Pure.

// Letters with all their marks, so that a Bengali vowel sign does not end a word.
const WORD = /[\p{L}\p{N}\p{M}\p{Co}]+/gu;
const ACCENTS = /[\u0300-\u036F]/g;
// The part of a long text that is shown before its first mark.
const LEAD_CHARS = 30;
const LEAD_CHARS_MAX = 60;

// The text in pieces `{ text, marked }`. A word is marked if the query has it, or if it begins with the query's last
// word. Text far before the first mark is left out.
export function markWords(text, query) {
  const wanted = (query.match(WORD) ?? []).map(fold);
  const prefix = wanted.at(-1);
  const pieces = [];
  let end = 0;
  for (const { 0: word, index } of text.matchAll(WORD)) {
    const folded = fold(word);
    if (!wanted.includes(folded) && !(prefix !== undefined && folded.startsWith(prefix))) continue;
    if (index > end) pieces.push({ text: text.slice(end, index), marked: false });
    pieces.push({ text: word, marked: true });
    end = index + word.length;
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

function fold(word) {
  return word.normalize("NFD").replace(ACCENTS, "").toLowerCase();
}
