// A rejection by the server, of an HTTP request or of a command on the WebSocket. Pure.

import { REASONS, isTemporary } from "./codes.js";

export class Rejection extends Error {
  // `reason` and `code` are words of `codes.js`, `sentence` is the server's text. `until` (a `Date` or milliseconds) is
  // the time after which a retry can succeed, or at which the cause ends.
  constructor({ reason = "", code = "", sentence = "", until = null }) {
    super(sentence);
    this.reason = reason;
    this.code = code;
    this.until = until === null ? null : new Date(until);
  }

  // The rejection in an `error` frame.
  static ofFrame({ reason, code, content, retry_ms: retryMs }) {
    return Rejection.received({ reason, code, sentence: content, retryMs });
  }

  // The rejection with these fields from the network, which may be missing or of a wrong type. The values reach the
  // page and the browser's storage, so they become text.
  static received({ reason, code, sentence, retryMs }) {
    return new Rejection({
      reason: REASONS.has(reason) ? reason : "",
      code: String(code ?? ""),
      sentence: String(sentence ?? ""),
      until: retryMs > 0 ? Date.now() + retryMs : null,
    });
  }

  // Whether the same request can succeed later.
  get isTemporary() {
    return isTemporary(this);
  }
}
