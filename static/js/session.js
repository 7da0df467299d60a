// Who we are to the server: a session, which the browser keeps as a cookie that no script sees. All tabs share it.

import { Refused } from "./requests.js";

// For a server that has had enough of us: asked again only after the longest pause, as after its close code 1013.
const TOO_MANY = 429;
const CLOSE_OVER_CAPACITY = 1013;
const UNAUTHORIZED = 401;
const CONFLICT = 409;

// No session for now; `code` is the close code that says the same of a WebSocket, where there is one.
class NotNow extends Error {
  constructor(code) {
    super("no session for now");
    this.code = code;
  }
}

export class Session {
  #name;
  #store;
  #tokenKey;
  // A token that is to become the cookie.
  #token;
  #isSure = false;

  // `store` may have a token from before there was a cookie, under `tokenKey`.
  constructor({ name, store, tokenKey }) {
    this.#name = name;
    this.#store = store;
    this.#tokenKey = tokenKey;
    const token = store.get(tokenKey);
    this.#token = typeof token === "string" ? token : null;
  }

  // Done when the browser has a session's cookie; fails with `Refused`, or with anything else where one may ask again.
  async ensure(signal) {
    if (this.#isSure) return;
    let answer = await this.#ask(signal);
    if (answer.status === UNAUTHORIZED && this.#token !== null) {
      // It was nobody's any more, or is not enough here.
      this.#forgetToken();
      answer = await this.#ask(signal);
    }
    // With a conflict we are told that we are logged in, and so are somebody.
    if (!answer.ok && answer.status !== CONFLICT) throw await whyNot(answer);
    this.#forgetToken();
    this.#isSure = true;
  }

  // To be asked for anew before the next connection.
  doubt() {
    this.#isSure = false;
  }

  // The server knew no session by our cookie, and has made us somebody new, by this token.
  async adopt(token) {
    this.#token = token;
    this.#isSure = false;
    try {
      await this.ensure();
    } catch {
      // It is tried again before the next connection.
    }
  }

  #ask(signal) {
    const headers = { "Content-Type": "application/json" };
    if (this.#token !== null) headers.Authorization = `Bearer ${this.#token}`;
    const body = JSON.stringify({ username: this.#name });
    return fetch(new URL("api/session", document.baseURI), { method: "POST", headers, body, signal });
  }

  #forgetToken() {
    this.#token = null;
    this.#store.remove(this.#tokenKey);
  }
}

async function whyNot(answer) {
  if (answer.status === TOO_MANY) return new NotNow(CLOSE_OVER_CAPACITY);
  if (answer.status >= 500) return new NotNow();
  const { code, error } = await answer.json().catch(() => ({}));
  const sentence = String(error ?? "");
  return new Refused({ status: answer.status, code: answer.status === UNAUTHORIZED ? "login" : String(code ?? ""), sentence });
}
