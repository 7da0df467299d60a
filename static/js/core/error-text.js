// The text of a failed request, in the language of the page. Pure.

import { OTHER, PageReason, Reason, reasonOf } from "./codes.js";
import { countdownText, isForever, timeText } from "./durations.js";
import { Rejection } from "./rejection.js";

const MINUTE_MS = 60_000;
const UNREACHABLE = new Rejection({ reason: PageReason.UNREACHABLE });

// Reasons with a second text, `reason_until.<reason>`, for a known end. Each function gives the values of that text, or
// null if the first text is to be used.
const UNTIL_VALUES = new Map([
  [Reason.MUTED, (lang, until) => (isForever(until) ? null : { moment: timeText(lang, until) })],
  [Reason.RATE_LIMITED, timeOfLongWait],
  [Reason.TOO_MANY_ATTEMPTS, timeOfLongWait],
  [Reason.SLOW_MODE, remainingWait],
  [Reason.RENAMED_RECENTLY, remainingWait],
]);

// The text of a `Rejection`, or of any other error, which means that no response came. `values` fill the places of the
// text: `room` and `name`.
export function errorText(error, lang, values = {}) {
  const rejection = error instanceof Rejection ? error : UNREACHABLE;
  const { until, message: sentence } = rejection;
  const reason = reasonOf(rejection);
  const untilValues = until === null ? null : (UNTIL_VALUES.get(reason)?.(lang, until) ?? null);
  if (untilValues !== null) return lang.t(`reason_until.${reason}`, { ...values, ...untilValues });
  if (reason === OTHER && sentence === "") return lang.t("reason.unknown");
  return lang.t(`reason.${reason}`, { ...values, sentence });
}

function timeOfLongWait(lang, until) {
  return until - Date.now() > MINUTE_MS ? { moment: timeText(lang, until) } : null;
}

function remainingWait(lang, until) {
  const seconds = Math.ceil((until - Date.now()) / 1000);
  return seconds > 0 ? { left: countdownText(lang, seconds) } : null;
}
