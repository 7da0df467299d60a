// Spans and moments, as they are told to those who wait for their end. Pure.

const MINUTE_S = 60;
const HOUR_S = 60 * MINUTE_S;
const DAY_S = 24 * HOUR_S;
// What ends later than this has no end that anybody waits for.
const FOREVER_MS = 10 * 365 * DAY_S * 1000;

// A moment that stands for "until further notice".
export const FAR = "9999-12-31T00:00:00Z";

export function isFar(date, now = Date.now()) {
  return date.getTime() - now > FOREVER_MS;
}

// So many seconds, in the largest unit that fits.
export function spanWords(lang, seconds) {
  if (seconds % DAY_S === 0) return lang.plural("span.day", seconds / DAY_S);
  if (seconds % HOUR_S === 0) return lang.plural("span.hour", seconds / HOUR_S);
  if (seconds % MINUTE_S === 0) return lang.plural("span.minute", seconds / MINUTE_S);
  return lang.plural("span.second", seconds);
}

// A wait that is counted down: "1:05", or seconds alone.
export function countdownWords(lang, seconds) {
  if (seconds < MINUTE_S) return lang.plural("span.second", seconds);
  const rest = seconds % MINUTE_S;
  return `${lang.number(Math.floor(seconds / MINUTE_S))}:${rest < 10 ? lang.number(0) : ""}${lang.number(rest)}`;
}

// When something ends: the time alone if that is today.
export function momentWords(lang, date, now = new Date()) {
  // "4:08 PM" does not stand on two lines.
  const time = lang.time(date).replaceAll(" ", "\u00A0");
  return date.toDateString() === now.toDateString() ? time : `${lang.day(date, now)}, ${time}`;
}
