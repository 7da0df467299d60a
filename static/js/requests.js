// Asks the server something over REST, and tells in one form why it would not.

// A password takes the server a while, and may have to wait for its turn.
const ANSWER_WAIT_MS = 30_000;
const TOO_MANY = 429;
const NO_CONTENT = 204;

export class Refused extends Error {
  // `code` is the server's word for why, or ours where we know better; `until` when it can be tried again, where that
  // was said.
  constructor({ status, code, sentence = "", until = null }) {
    super(sentence);
    this.status = status;
    this.code = code;
    this.until = until;
  }

  // Whether the same may be taken later.
  get isPassing() {
    return this.status === TOO_MANY || this.status >= 500;
  }
}

// What the server answers with; fails with `Refused`, or with anything else where it was not reached.
export async function ask(method, path, { body, token, signal } = {}) {
  const ended = new AbortController();
  const end = () => ended.abort();
  const timer = setTimeout(end, ANSWER_WAIT_MS);
  signal?.addEventListener("abort", end, { once: true });
  try {
    signal?.throwIfAborted();
    const headers = {};
    if (body !== undefined) headers["Content-Type"] = "application/json";
    if (token) headers.Authorization = `Bearer ${token}`;
    const given = body === undefined ? undefined : JSON.stringify(body);
    const answer = await fetch(new URL(path, document.baseURI), { method, headers, body: given, signal: ended.signal });
    if (!answer.ok) throw await refusal(answer);
    return answer.status === NO_CONTENT ? null : (await answer.json()).data;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", end);
  }
}

async function refusal(answer) {
  const { code, error } = await answer.json().catch(() => ({}));
  const waitS = Number(answer.headers.get("Retry-After"));
  const until = waitS > 0 ? new Date(Date.now() + waitS * 1000) : null;
  return new Refused({ status: answer.status, code: String(code ?? ""), sentence: String(error ?? ""), until });
}
