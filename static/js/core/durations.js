// Durations and points in time as text. Pure.

const MINUTE_S = 60;
const HOUR_S = 60 * MINUTE_S;
const DAY_S = 24 * HOUR_S;
// An end later than this counts as no end.
const FOREVER_MS = 10 * 365 * DAY_S * 1000;

// The end of a restriction without an end, as the server takes it.
export const FOREVER = "9999-12-31T00:00:00Z";

export function isForever(date, now = Date.now()) {
  return date.getTime() - now > FOREVER_MS;
}

// A number of seconds in the largest unit that divides it.
export function durationText(lang, seconds) {
  if (seconds % DAY_S === 0) return lang.plural("duration.day", seconds / DAY_S);
  if (seconds % HOUR_S === 0) return lang.plural("duration.hour", seconds / HOUR_S);
  if (seconds % MINUTE_S === 0) return lang.plural("duration.minute", seconds / MINUTE_S);
  return lang.plural("duration.second", seconds);
}

// The rest of a countdown: "1:05", or only seconds.
export function countdownText(lang, seconds) {
  if (seconds < MINUTE_S) return lang.plural("duration.second", seconds);
  const rest = seconds % MINUTE_S;
  return `${lang.number(Math.floor(seconds / MINUTE_S))}:${rest < 10 ? lang.number(0) : ""}${lang.number(rest)}`;
}

// A point in time: the time of day, and the day unless it is today.
export function timeText(lang, date, now = new Date()) {
  // No line break within "4:08 PM".
  const time = lang.time(date).replaceAll(" ", "\u00A0");
  return date.toDateString() === now.toDateString() ? time : `${lang.day(date, now)}, ${time}`;
}
