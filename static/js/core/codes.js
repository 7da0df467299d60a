// The words by which a refusal is known. Each has its text below `reason.` in both languages. Pure.
//
// The server sends a fine word in the field `reason` and a coarse one in the field `code`. The page decides by these
// words alone, never by the server's sentence.

// Values of `reason` that the page can meet: a part of the table in `src/model/reason.rs`. Any other value is read as
// its `code`.
export const REASONS = new Set([
  // Permission.
  "banned",
  "login_required",
  "account_required",
  "muted",
  "read_only",
  "not_admin",
  "not_yours",
  "target_is_self",
  "target_is_admin",
  "registration_closed",
  "already_registered",
  "foreign_origin",
  // Sessions.
  "session_ended",
  "invalid_token",
  "no_session",
  "wrong_login",
  "wrong_password",
  "bad_password",
  // Rooms.
  "no_such_room",
  "not_in_room",
  "kicked",
  "made_private",
  "room_is_public",
  // What a request names.
  "no_such_message",
  "no_such_reply",
  "no_such_user",
  "no_such_invitation",
  "name_taken",
  "name_reserved",
  "nonce_used",
  "logged_in",
  "no_password",
  "address_unknown",
  "target_is_no_guest",
  // What a request says.
  "bad_room",
  "bad_name",
  "name_too_long",
  "empty_message",
  "message_too_long",
  // How often, and how much.
  "rate_limited",
  "slow_mode",
  "too_many_attempts",
  "too_many_connections",
  "disk_full",
  "not_stored",
  "outcome_unknown",
]);

// Values of `code`. A code without a text of its own leaves the server's sentence to be shown.
export const CODES = new Set([
  "bad_json",
  "bad_type",
  "bad_room",
  "bad_name",
  "bad_password",
  "too_long",
  "rate_limited",
  "not_found",
  "forbidden",
  "conflict",
  "busy",
  "internal",
]);

// Reasons that the page finds without asking the server.
export const PAGE_REASONS = new Set(["unreachable", "account_changed", "other_name", "unsure"]);

// The page has to log in, or begin a new session.
const LOGIN_REASONS = new Set(["login_required", "account_required", "session_ended", "invalid_token", "no_session"]);
// Of these, a guest can't come in at all.
const ACCOUNT_REASONS = new Set(["login_required", "account_required"]);
const NAME_REASONS = new Set(["name_taken", "name_reserved", "bad_name", "name_too_long"]);
// The same request can succeed later.
const PASSING_CODES = new Set(["rate_limited", "busy", "internal"]);

// The word that a refusal is known by: its reason, else its code, else "other".
export function reasonOf({ reason, code }) {
  return [reason, code].find((word) => REASONS.has(word) || CODES.has(word) || PAGE_REASONS.has(word)) ?? "other";
}

export function needsLogin(refusal) {
  return LOGIN_REASONS.has(reasonOf(refusal));
}

export function needsAccount(refusal) {
  return ACCOUNT_REASONS.has(reasonOf(refusal));
}

export function isAboutName(refusal) {
  return NAME_REASONS.has(reasonOf(refusal));
}

export function isPassing({ code }) {
  return PASSING_CODES.has(code);
}

// The code of a response whose body has none, as a proxy in front of the server may send it.
export function codeOfStatus(status) {
  if (status >= 500) return "busy";
  return { 401: "forbidden", 403: "forbidden", 404: "not_found", 409: "conflict", 413: "too_long", 429: "rate_limited" }[status] ?? "";
}
