// The letter and the colour of a user's avatar. Pure.

const HUES = 8;

// The number of a colour, the same for the same name.
export function hueOf(name) {
  let sum = 0;
  for (const char of name) sum = (sum * 31 + char.codePointAt(0)) >>> 0;
  return sum % HUES;
}

export function initialOf(name) {
  return firstGrapheme(name).toLocaleUpperCase();
}

// A Bengali letter consists of several code points: the consonants that it joins, and its vowel sign.
function firstGrapheme(name) {
  if (!Intl.Segmenter) return [...name][0] ?? "";
  const [first] = new Intl.Segmenter(undefined, { granularity: "grapheme" }).segment(name);
  return first?.segment ?? "";
}
