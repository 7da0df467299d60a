// The words and numbers that the server sends with a rejection. Every module takes them from here. Pure.
//
// A rejection has a fine word in the field `reason` and a coarse one in the field `code`. Each word has its text below
// `reason.` in both languages. The page switches on these words, never on the server's sentence.

// Values of `reason` that the page can meet, from the table in `src/model/reason.rs`. For any other value the page uses
// the `code`.
export const Reason = Object.freeze({
  // Permission.
  BANNED: "banned",
  LOGIN_REQUIRED: "login_required",
  ACCOUNT_REQUIRED: "account_required",
  MUTED: "muted",
  READ_ONLY: "read_only",
  NOT_ADMIN: "not_admin",
  NOT_YOURS: "not_yours",
  TARGET_IS_SELF: "target_is_self",
  TARGET_IS_ADMIN: "target_is_admin",
  REGISTRATION_CLOSED: "registration_closed",
  ALREADY_REGISTERED: "already_registered",
  FOREIGN_ORIGIN: "foreign_origin",
  // Sessions.
  SESSION_ENDED: "session_ended",
  INVALID_TOKEN: "invalid_token",
  NO_SESSION: "no_session",
  WRONG_LOGIN: "wrong_login",
  WRONG_PASSWORD: "wrong_password",
  BAD_PASSWORD: "bad_password",
  // Rooms.
  NO_SUCH_ROOM: "no_such_room",
  NOT_IN_ROOM: "not_in_room",
  KICKED: "kicked",
  MADE_PRIVATE: "made_private",
  NOT_MEMBER: "not_member",
  ROOM_DELETED: "room_deleted",
  DEFAULT_ROOM: "default_room",
  ROOM_IS_PUBLIC: "room_is_public",
  // Objects of a request.
  NO_SUCH_MESSAGE: "no_such_message",
  NO_SUCH_REPLY: "no_such_reply",
  NO_SUCH_USER: "no_such_user",
  NO_SUCH_INVITATION: "no_such_invitation",
  NAME_TAKEN: "name_taken",
  NAME_RESERVED: "name_reserved",
  NONCE_USED: "nonce_used",
  LOGGED_IN: "logged_in",
  NO_PASSWORD: "no_password",
  ADDRESS_UNKNOWN: "address_unknown",
  ADDRESS_SHARED: "address_shared",
  TARGET_IS_NO_GUEST: "target_is_no_guest",
  // Contents of a request.
  BAD_ROOM: "bad_room",
  BAD_NAME: "bad_name",
  NAME_TOO_LONG: "name_too_long",
  EMPTY_MESSAGE: "empty_message",
  MESSAGE_TOO_LONG: "message_too_long",
  // Rates and capacity.
  RATE_LIMITED: "rate_limited",
  SLOW_MODE: "slow_mode",
  RENAMED_RECENTLY: "renamed_recently",
  TOO_MANY_ATTEMPTS: "too_many_attempts",
  TOO_MANY_CONNECTIONS: "too_many_connections",
  DISK_FULL: "disk_full",
  NOT_STORED: "not_stored",
  OUTCOME_UNKNOWN: "outcome_unknown",
});

// Values of `code`. For a code that is not listed the page shows the server's sentence.
export const Code = Object.freeze({
  BAD_JSON: "bad_json",
  BAD_TYPE: "bad_type",
  BAD_ROOM: "bad_room",
  BAD_NAME: "bad_name",
  BAD_PASSWORD: "bad_password",
  TOO_LONG: "too_long",
  RATE_LIMITED: "rate_limited",
  NOT_FOUND: "not_found",
  FORBIDDEN: "forbidden",
  CONFLICT: "conflict",
  BUSY: "busy",
  INTERNAL: "internal",
});

// Reasons that the page itself finds.
export const PageReason = Object.freeze({
  UNREACHABLE: "unreachable",
  ACCOUNT_CHANGED: "account_changed",
  // An unsent message was written under another name.
  OTHER_NAME: "other_name",
  // An unsent message may be stored already, under another user id.
  UNSURE: "unsure",
});

// The word of a rejection that has neither a known reason nor a known code.
export const OTHER = "other";

// Close codes of a WebSocket.
export const CloseCode = Object.freeze({
  NORMAL: 1000,
  // The browser reports it for a failed handshake and for a lost network.
  ABNORMAL: 1006,
  // The server rejected the connection.
  POLICY: 1008,
  // The server is full, or this client read too slowly.
  TRY_AGAIN_LATER: 1013,
  // Sent by the page: the client will reconnect, so the server keeps its membership for the lease.
  RECONNECTING: 4000,
});

export const REASONS = new Set(Object.values(Reason));
export const CODES = new Set(Object.values(Code));
export const PAGE_REASONS = new Set(Object.values(PageReason));

// The user must log in, or begin a new session.
const LOGIN_REASONS = new Set([
  Reason.LOGIN_REQUIRED,
  Reason.ACCOUNT_REQUIRED,
  Reason.SESSION_ENDED,
  Reason.INVALID_TOKEN,
  Reason.NO_SESSION,
]);
// The server admits no guest.
const ACCOUNT_REASONS = new Set([Reason.LOGIN_REQUIRED, Reason.ACCOUNT_REQUIRED]);
const NAME_REASONS = new Set([Reason.NAME_TAKEN, Reason.NAME_RESERVED, Reason.BAD_NAME, Reason.NAME_TOO_LONG]);
// The name belongs to an account, which may be the user's own.
const ACCOUNT_NAME_REASONS = new Set([Reason.NAME_TAKEN, Reason.NAME_RESERVED]);
// They end the membership of a room, also after `welcome`.
const REMOVAL_REASONS = new Set([Reason.BANNED, Reason.KICKED, Reason.MADE_PRIVATE, Reason.ROOM_DELETED]);
// The nonce itself is rejected: the message needs a new one.
const NONCE_REASONS = new Set([Reason.NONCE_USED, Code.CONFLICT]);
// The same request can succeed later.
const TEMPORARY_CODES = new Set([Code.RATE_LIMITED, Code.BUSY, Code.INTERNAL]);
// A message with such a rejection is sent again automatically.
const RESENT_CODES = new Set([Code.RATE_LIMITED, Code.BUSY]);

const CODE_OF_STATUS = new Map([
  [401, Code.FORBIDDEN],
  [403, Code.FORBIDDEN],
  [404, Code.NOT_FOUND],
  [409, Code.CONFLICT],
  [413, Code.TOO_LONG],
  [429, Code.RATE_LIMITED],
]);

// The word that identifies a rejection: its reason, else its code, else `OTHER`.
export function reasonOf({ reason, code }) {
  return [reason, code].find((word) => REASONS.has(word) || CODES.has(word) || PAGE_REASONS.has(word)) ?? OTHER;
}

export function needsLogin(rejection) {
  return LOGIN_REASONS.has(reasonOf(rejection));
}

export function needsAccount(rejection) {
  return ACCOUNT_REASONS.has(reasonOf(rejection));
}

export function isAboutName(rejection) {
  return NAME_REASONS.has(reasonOf(rejection));
}

export function isNameOfAccount(rejection) {
  return ACCOUNT_NAME_REASONS.has(reasonOf(rejection));
}

export function isRemoval(rejection) {
  return REMOVAL_REASONS.has(reasonOf(rejection));
}

export function needsNewNonce(rejection) {
  return NONCE_REASONS.has(reasonOf(rejection));
}

export function isTemporary({ code }) {
  return TEMPORARY_CODES.has(code);
}

export function isResent({ code }) {
  return RESENT_CODES.has(code);
}

// The code of a response without one in its body, as a proxy in front of the server may send it.
export function codeOfStatus(status) {
  return status >= 500 ? Code.BUSY : (CODE_OF_STATUS.get(status) ?? "");
}
