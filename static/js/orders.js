// Asks the server to do something, as those who keep order ask, and says in words why it was not done. No DOM here but
// the page's own address.

const ANSWER_WAIT_MS = 15_000;
const NO_CONTENT = 204;

// The server's reasons that have words of ours. What it says else is shown as it says it.
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

// What was asked for was not done. `status` is HTTP's, or 0 where no answer came; `message` is the server's sentence.
export class NotDone extends Error {
  constructor(status, code, sentence) {
    super(sentence);
    this.status = status;
    this.code = code;
  }
}

// Gives the `data` of the answer, if it has any. Fails with `NotDone`.
export async function order(method, path, body) {
  const request = { method, signal: AbortSignal.timeout(ANSWER_WAIT_MS) };
  if (body !== undefined) {
    request.headers = { "Content-Type": "application/json" };
    request.body = JSON.stringify(body);
  }
  let answer;
  let said = {};
  try {
    answer = await fetch(new URL(path, document.baseURI), request);
    if (answer.status !== NO_CONTENT) said = await answer.json();
  } catch {
    throw new NotDone(answer?.status ?? 0, "", "");
  }
  if (!answer.ok) throw new NotDone(answer.status, String(said.code ?? ""), String(said.error ?? ""));
  return said.data;
}

export function roomPath(room, ...rest) {
  return ["api/rooms", encodeURIComponent(room), ...rest.map(encodeURIComponent)].join("/");
}

export function whyNot(lang, error) {
  if (!(error instanceof NotDone)) throw error;
  const key = REASONS.get(error.message);
  if (key) return lang.t(key);
  return error.message === "" ? lang.t("why.no_answer") : lang.t("why.other", { sentence: error.message });
}
