// Requests to the server over REST. A refusal has one form, wherever it comes from.

import { REASONS, codeOfStatus, isPassing } from "../core/codes.js";

// A password takes the server a while, and may have to wait for its turn.
const ANSWER_WAIT_MS = 30_000;
const NO_CONTENT = 204;

export class Refused extends Error {
  // `reason` and `code` are words of `codes.js`, `sentence` is the server's text, `until` the time (a `Date` or
  // milliseconds) after which a retry can succeed, or the refusal's cause ends.
  constructor({ reason = "", code = "", sentence = "", until = null }) {
    super(sentence);
    this.reason = reason;
    this.code = code;
    this.until = until === null ? null : new Date(until);
  }

  // The refusal in an `error` frame.
  static ofFrame({ reason, code, content, retry_ms: retryMs }) {
    return new Refused({ ...told(reason, code, content), until: after(retryMs) });
  }

  // Whether the same request can succeed later.
  get isPassing() {
    return isPassing(this);
  }
}

// The `data` of the response. Fails with `Refused`, or with another error where no response came.
export async function ask(method, path, options) {
  return (await request(method, path, options))?.data ?? null;
}

// The whole response, or null where it has no body.
export async function request(method, path, { body, token, signal, waitMs = ANSWER_WAIT_MS } = {}) {
  const ended = new AbortController();
  const end = () => ended.abort();
  const timer = setTimeout(end, waitMs);
  signal?.addEventListener("abort", end, { once: true });
  try {
    signal?.throwIfAborted();
    const headers = {};
    if (body !== undefined) headers["Content-Type"] = "application/json";
    if (token) headers.Authorization = `Bearer ${token}`;
    const given = body === undefined ? undefined : JSON.stringify(body);
    const response = await fetch(new URL(path, document.baseURI), { method, headers, body: given, signal: ended.signal });
    if (!response.ok) throw await refusal(response);
    return response.status === NO_CONTENT ? null : await response.json();
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", end);
  }
}

async function refusal(response) {
  const { reason, code, error, retry_ms: retryMs } = (await response.json().catch(() => null)) ?? {};
  const waitS = Number(response.headers.get("Retry-After"));
  const until = after(retryMs ?? waitS * 1000);
  return new Refused({ ...told(reason, code ?? codeOfStatus(response.status), error), until });
}

// Only what is text, since it goes into texts and into the browser's store.
function told(reason, code, sentence) {
  return { reason: REASONS.has(reason) ? reason : "", code: String(code ?? ""), sentence: String(sentence ?? "") };
}

function after(ms) {
  return ms > 0 ? new Date(Date.now() + ms) : null;
}
