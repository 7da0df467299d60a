// Why the server did not do what an admin asked for, in words: of ours where we have them, or else of its own.

import { Refused } from "./requests.js";

const REASONS = new Map([
  ["that can't be done to an admin", "why.admin"],
  ["that can't be done to oneself", "why.oneself"],
  ["that is for admins", "why.not_admin"],
  ["that is not yours", "why.not_yours"],
  ["one must be logged in here", "why.log_in"],
  ["you are banned here", "why.banned"],
  ["you are muted", "why.muted"],
  ["Room not found", "why.no_room"],
  ["nobody can register here: the operator has closed that", "why.closed"],
]);

export function whyNot(lang, error) {
  if (!(error instanceof Refused) || error.message === "") return lang.t("why.no_answer");
  const key = REASONS.get(error.message);
  return key ? lang.t(key) : lang.t("why.other", { sentence: error.message });
}
