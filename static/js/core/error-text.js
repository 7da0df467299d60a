// A refusal as text in the language of the page.

import { reasonOf } from "./codes.js";
import { Refused } from "../net/requests.js";
import { countdownWords, isFar, momentWords } from "./durations.js";

const MINUTE_MS = 60_000;
const UNREACHABLE = new Refused({ reason: "unreachable" });

// Reasons with a second text, `reason_until.<word>`, for a known end. Each gives the values of that text, or null
// where the first text serves better.
const UNTIL = new Map([
  ["muted", (lang, until) => (isFar(until) ? null : { moment: momentWords(lang, until) })],
  ["rate_limited", momentIfLong],
  ["too_many_attempts", momentIfLong],
  [
    "slow_mode",
    (lang, until) => {
      const seconds = Math.ceil((until - Date.now()) / 1000);
      return seconds > 0 ? { left: countdownWords(lang, seconds) } : null;
    },
  ],
]);

// The text of a failed request: of a `Refused`, or of any other error, which means that there was no answer.
// `values` fill the places of the text: `room` and `name`.
export function refusalText(error, lang, values = {}) {
  const refused = error instanceof Refused ? error : UNREACHABLE;
  const { until, message: sentence } = refused;
  const word = reasonOf(refused);
  const ends = until === null ? null : (UNTIL.get(word)?.(lang, until) ?? null);
  if (ends !== null) return lang.t(`reason_until.${word}`, { ...values, ...ends });
  if (word === "other" && sentence === "") return lang.t("reason.unknown");
  return lang.t(`reason.${word}`, { ...values, sentence });
}

function momentIfLong(lang, until) {
  return until - Date.now() > MINUTE_MS ? { moment: momentWords(lang, until) } : null;
}
