// Why the server would not, in words: of ours, or else of its own.

import { Refused } from "./requests.js";

const TOO_MANY = 429;
const MINUTE_MS = 60_000;

// Gives a function that says it in the language of the moment. `meanings` has, by status or code, the key of what a
// refusal means where it was asked, or by the server's sentence where that says more; `values` are for its places.
export function refusalText(error, lang, meanings = {}, values = {}) {
  if (!(error instanceof Refused)) return () => lang.t("refused.unreachable");
  const { status, code, message: sentence, until } = error;
  if (status === TOO_MANY) {
    const isLong = until - Date.now() > MINUTE_MS;
    return () => (isLong ? lang.t("refused.until", { time: lang.time(until) }) : lang.t("refused.moment"));
  }
  if (status >= 500) return () => lang.t("refused.busy");
  const key = meanings[sentence] ?? meanings[code] ?? meanings[status];
  return () => (key ? lang.t(key, values) : lang.t("refused.other", { sentence }));
}
