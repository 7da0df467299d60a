// The session at the server: a guest's, or a login to an account. It is a cookie that scripts can't read and that all
// tabs share.
//
// A guest whose session the server does not know becomes a new guest. A user who is logged in never becomes a guest, or
// another account, without notice: `ensure` throws, and the page tells the user.
//
// The account is noted in the browser's storage. The note gives no access. It saves guests a request that the server
// would reject.

import { Code, PageReason, Reason, needsAccount, needsLogin, reasonOf } from "../core/codes.js";
import { Rejection } from "../core/rejection.js";
import { requestData } from "./requests.js";
import { SERVER } from "./storage.js";

// A guest's token from a version of the page without the cookie.
const TOKEN_KEY = `token.${SERVER}`;
const ACCOUNT_KEY = `account.${SERVER}`;
// The time at which a tab began to log in. The key exists until the response.
const LOGIN_KEY = `login.${SERVER}`;
// The longest wait for a login in another tab. A tab that is closed during a login leaves the key.
const LOGIN_WAIT_MS = 10_000;
const LOGIN_POLL_MS = 50;
// The wait after a rate limit, if the server names none.
const RATE_LIMIT_WAIT_MS = 1_000;

export class Session {
  #store;
  // The account `{ id, username, role }`, or null for a guest.
  #account;
  // The last account, if its login ended without a logout in this tab.
  #endedAccount = null;
  // A guest's token that is not a cookie yet.
  #token = null;
  // The account's id, or the guest's name, for which the cookie was last checked; null if it must be checked again.
  #checkedFor = null;
  #isLoggingOut = false;
  // The server's policy for accounts. This is the default until the server's response.
  about = { accounts: "optional", registration: "closed" };
  // The invitation `{ code, room, isSetup }` of the link that opened the page, until it is used. The room is null if the
  // invitation is to register; `isSetup` means that it is to register as the first admin.
  invitation = null;

  // `store` is shared by the browser's tabs.
  constructor(store) {
    this.#store = store;
    this.#account = notedAccount(store);
  }

  // The session after the first requests. It is usable if they fail.
  static async load(store) {
    const session = new Session(store);
    await Promise.allSettled([session.#readAbout(), session.#account && session.#readAccount()]);
    return session;
  }

  get account() {
    return this.#account;
  }

  get endedAccount() {
    return this.#endedAccount;
  }

  // Whether this tab or another one is logged in, and does not log out at this moment.
  get isLogin() {
    return !this.#isLoggingOut && (this.#account !== null || notedAccount(this.#store) !== null);
  }

  get canRegister() {
    const { registration } = this.about;
    if (registration === "open" || this.invitation?.isSetup) return true;
    return registration === "invite" && this.invitation?.room === null;
  }

  // Resolves when the cookie is that of the account with this id or, without an id, that of a guest with this name.
  // Throws a `Rejection` if the login has ended or another account is logged in.
  async ensure({ name, account = null }, signal) {
    if (this.#checkedFor === (account ?? name)) return;
    await this.#otherLoginEnded(signal);
    if (this.#account || notedAccount(this.#store)) await this.#readAccount(signal);
    if (!this.#account && !account) await this.#beginGuest(name, signal);
    const current = this.#account?.id ?? null;
    if (current !== account) {
      throw new Rejection({ reason: current === null ? Reason.SESSION_ENDED : PageReason.ACCOUNT_CHANGED });
    }
    this.#checkedFor = account ?? name;
  }

  // Throws the server's rejection if the cookie's session is invalid. A rejection also deletes the cookie, so during a
  // login in another tab the request waits: it could delete the cookie of the login.
  async check(signal) {
    await this.#otherLoginEnded(signal);
    await requestData("GET", "api/session", { signal });
  }

  // Calls `onChange` when another tab logs in or out.
  watch(onChange, signal) {
    this.#store.watch(ACCOUNT_KEY, onChange, signal);
  }

  // The next `ensure` checks the cookie again.
  invalidate() {
    this.#checkedFor = null;
  }

  // Makes the token of a new guest the cookie. The server sends one if it did not know the former session.
  async adopt(token, name) {
    this.#token = token;
    this.#checkedFor = null;
    try {
      await this.ensure({ name });
    } catch {
      // The next connection calls `ensure` again.
    }
  }

  // Notes that the server has ended the login.
  loginEnded() {
    this.#setAccount(null);
  }

  async logIn({ username, password }) {
    await this.#enter("api/session", { username, password });
  }

  async register({ username, password }) {
    const invitation = this.invitation?.room === null ? this.invitation.code : undefined;
    await this.#enter("api/accounts", { username, password, invitation });
    if (invitation) this.invitation = null;
  }

  // Ends the session, also that of a guest.
  async logOut() {
    this.#isLoggingOut = true;
    try {
      await requestData("DELETE", "api/session").catch(nullIfNoSession);
      this.#setAccount(null);
      this.#endedAccount = null;
    } finally {
      this.#isLoggingOut = false;
    }
  }

  async changePassword({ old, next }) {
    await requestData("PUT", "api/account/password", { body: { old, new: next } });
  }

  // All sessions of the account, each `{ id, kind, label, created, seen, expires, current }`.
  list() {
    return requestData("GET", "api/sessions");
  }

  // Ends another session of the account.
  async end(id) {
    for (;;) {
      try {
        return await requestData("DELETE", `api/sessions/${id}`);
      } catch (error) {
        if (error.code === Code.NOT_FOUND) return null; // It has ended already.
        if (error.code !== Code.RATE_LIMITED) throw error;
        await sleep(error.until ? error.until - Date.now() : RATE_LIMIT_WAIT_MS);
      }
    }
  }

  // Uses the invitation to become a member of its private room. An invalid invitation is dropped.
  async acceptInvitation() {
    const { room, code } = this.invitation;
    try {
      await requestData("POST", `api/rooms/${encodeURIComponent(room)}/members`, { body: { invitation: code } });
    } catch (error) {
      if (error.code !== Code.NOT_FOUND) throw error;
      this.invitation = null;
      throw new Rejection({ reason: Reason.NO_SUCH_INVITATION, code: Code.NOT_FOUND });
    }
    this.invitation = null;
  }

  // Logs in or registers. The server ends the guest's session of all tabs before it responds. A tab that begins a new
  // guest's session in between could overwrite the cookie of the login, so the other tabs wait while the key is set.
  async #enter(path, body) {
    this.#store.set(LOGIN_KEY, Date.now());
    try {
      this.#setAccount(await requestData("POST", path, { body }));
    } finally {
      this.#store.remove(LOGIN_KEY);
    }
  }

  // Waits for a login in another tab.
  async #otherLoginEnded(signal) {
    const isLoggingIn = () => Math.abs(Date.now() - (this.#store.get(LOGIN_KEY) ?? 0)) < LOGIN_WAIT_MS;
    while (isLoggingIn() && !signal?.aborted) await sleep(LOGIN_POLL_MS);
  }

  async #readAbout() {
    this.about = await requestData("GET", "api/about");
  }

  async #readAccount(signal) {
    this.#setAccount(await requestData("GET", "api/session", { signal }).catch(nullIfNoSession));
  }

  async #beginGuest(name, signal) {
    const storedToken = this.#store.get(TOKEN_KEY);
    if (typeof storedToken === "string") this.#token ??= storedToken;
    const begin = () => requestData("POST", "api/session", { body: { username: name }, token: this.#token, signal });
    try {
      await begin().catch((error) => {
        if (!needsLogin(error) || this.#token === null) throw error;
        // The token is invalid, or the server admits no guests. Without it the server says which.
        this.#forgetToken();
        return begin();
      });
      this.#forgetToken();
    } catch (error) {
      if (needsAccount(error)) this.about.accounts = "required";
      // The guest keeps its name for now. The server says which when it is in a room.
      if (reasonOf(error) === Reason.RENAMED_RECENTLY) return;
      if (reasonOf(error) !== Reason.LOGGED_IN) throw error;
      // The cookie is that of a login that this tab did not know of.
      this.#forgetToken();
      await this.#readAccount(signal);
    }
  }

  // `user` is the server's answer, or null without a session.
  #setAccount(user) {
    const former = this.#account ?? notedAccount(this.#store);
    this.#account = user && user.kind !== "guest" ? { id: user.id, username: user.username, role: user.role } : null;
    this.#endedAccount = this.#account ? null : (former ?? this.#endedAccount);
    this.#checkedFor = this.#account?.id ?? null;
    if (this.#account) this.#store.set(ACCOUNT_KEY, this.#account);
    else this.#store.remove(ACCOUNT_KEY);
  }

  #forgetToken() {
    this.#token = null;
    this.#store.remove(TOKEN_KEY);
  }
}

function notedAccount(store) {
  const account = store.get(ACCOUNT_KEY);
  return typeof account?.id === "string" && typeof account.username === "string" ? account : null;
}

function nullIfNoSession(error) {
  if (needsLogin(error)) return null;
  throw error;
}

function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
