// The rules for passwords that the page can check, the same as in the server's `src/auth/password.rs`. The server also
// rejects passwords that are easily guessed. Pure.

export const PASSWORD_CHARS_MIN = 8;
export const PASSWORD_BYTES_MAX = 1024;

// Checks a password for a login. Like a check of names it returns `{ value }` or `{ problem, min }`.
export function checkPassword(text) {
  if (text === "") return { problem: "empty" };
  if (new TextEncoder().encode(text.normalize("NFC")).length > PASSWORD_BYTES_MAX) return { problem: "too_long" };
  return { value: text };
}

export function checkNewPassword(text) {
  const checked = checkPassword(text);
  if (checked.problem || [...text.normalize("NFC")].length >= PASSWORD_CHARS_MIN) return checked;
  return { problem: "too_short", min: PASSWORD_CHARS_MIN };
}
