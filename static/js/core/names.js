// The rules for names of users and rooms, the same as in the server's `src/model/names.rs`, so that a form can report a
// problem before it is sent. Pure.

export const NAME_CHARS_MAX = 32;
export const ROOM_CHARS_MAX = 64;

// Private conversations have the ids `dm:<id>:<id>`. They are not joined by name.
const PRIVATE_PREFIX = "dm:";

const EDGES = /^\p{White_Space}+|\p{White_Space}+$/gu;
// Controls, bidi controls (UAX #9), separators of lines, zero-width and filler characters, and tags.
const INVISIBLE = new RegExp(
  "[\\p{Cc}\\u00AD\\u034F\\u061C\\u115F\\u1160\\u17B4\\u17B5\\u180B-\\u180F\\u200B\\u200E\\u200F\\u2028-\\u202E" +
    "\\u2060-\\u206F\\u3164\\uFEFF\\uFFA0\\uFFF0-\\uFFFB\\u{1BCA0}-\\u{1BCA3}\\u{1D173}-\\u{1D17A}" +
    "\\u{E0000}-\\u{E00FF}\\u{E01F0}-\\u{E0FFF}]",
  "u",
);
// Characters that are allowed in a name but are not visible alone: spaces, joiners, variation selectors and the like.
const BLANK =
  /^[\p{White_Space}\u200C\u200D\u2800\uFE00-\uFE0F\uFFFC\u{16FE4}\u{1D159}\u{E0100}-\u{E01EF}]*$/u;
// A joiner (ZWJ, ZWNJ) belongs to Bengali spelling and to emoji, but only between two visible characters.
const STRAY_JOINER = /(^|[\p{White_Space}\u200C\u200D])[\u200C\u200D]|[\u200C\u200D](\p{White_Space}|$)/u;
// Half of a surrogate pair, which can't be encoded as UTF-8.
const LONE_SURROGATE = /\p{Cs}/u;

// Each check returns `{ value }` or `{ problem, max }`. The problem is "empty", "too_long", "invisible" or
// "reserved".
export function checkName(text) {
  return checkVisible(text, NAME_CHARS_MAX);
}

export function checkRoom(text) {
  const checked = checkVisible(text, ROOM_CHARS_MAX);
  return checked.value?.startsWith(PRIVATE_PREFIX) ? { problem: "reserved" } : checked;
}

function checkVisible(text, max) {
  const value = text.replace(EDGES, "").normalize("NFC");
  if (value === "") return { problem: "empty" };
  if ([...value].length > max) return { problem: "too_long", max };
  const isInvisible = [INVISIBLE, STRAY_JOINER, BLANK, LONE_SURROGATE].some((pattern) => pattern.test(value));
  return isInvisible ? { problem: "invisible" } : { value };
}
