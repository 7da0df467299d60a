// Who we are to the server: a session, which the browser keeps as a cookie that no script sees. All tabs share it.
//
// As a guest one is whoever the server takes the cookie for, and somebody new where it knows it no more. Whoever is
// logged in does not become somebody else unawares: that is a refusal, which the page has to tell.
//
// That somebody is logged in, and as whom, is noted in the browser's store. It lets nobody in, but saves everybody else a
// question that the server would refuse.

import { needsAccount, needsLogin, reasonOf } from "../core/codes.js";
import { Refused, ask } from "./requests.js";
import { SERVER } from "./storage.js";

// A guest's token from before the session was a cookie.
const TOKEN_KEY = `token.${SERVER}`;
const ACCOUNT_KEY = `account.${SERVER}`;
// When a tab began to log in, until it has the answer.
const LOGIN_KEY = `login.${SERVER}`;
// For so long another tab's login is waited for; a tab that is closed meanwhile leaves its note.
const LOGIN_WAIT_MS = 10_000;
const LOGIN_POLL_MS = 50;
// What is asked one after another may be too much at once; the server says when to go on.
const PAUSE_DEFAULT_MS = 1_000;

export class Session {
  #store;
  // Whom we are logged in as, `{ id, username, role }`, or null; and whom we were, where that has ended unasked for.
  #account;
  #lost = null;
  // A guest's token that is to become the cookie.
  #token = null;
  // As whom the cookie was last seen to be good; null while that is in doubt.
  #sureOf = null;
  #isLeaving = false;
  // Which ways in the server has; until it says so, the one that it always has.
  about = { accounts: "optional", registration: "closed" };
  // The one that was followed hither, `{ code, room, isSetup }`, until it is used.
  invitation = null;

  // `store` is shared by the browser's tabs.
  constructor(store) {
    this.#store = store;
    this.#account = noted(store);
  }

  // A session of which is known what the server says of it, as far as it can be reached.
  static async load(store) {
    const session = new Session(store);
    await Promise.allSettled([session.#ask(), session.#account && session.#look()]);
    return session;
  }

  get account() {
    return this.#account;
  }

  get lost() {
    return this.#lost;
  }

  // Whether this page or another tab has logged in, and does not mean to end it just now.
  get isLogin() {
    return !this.#isLeaving && (this.#account !== null || noted(this.#store) !== null);
  }

  get canRegister() {
    const { registration } = this.about;
    if (registration === "open" || this.invitation?.isSetup) return true;
    return registration === "invite" && this.invitation?.room === null;
  }

  // Done when the browser has the cookie of the account of this id or, without one, of a guest of this name. Fails with
  // `Refused`: "session_ended" where we are not logged in any more, "account_changed" where another account is.
  async ensure({ name, account = null }, signal) {
    if (this.#sureOf === (account ?? name)) return;
    await this.#loginDone(signal);
    if (this.#account || noted(this.#store)) await this.#look(signal);
    if (!this.#account && !account) await this.#beGuest(name, signal);
    const now = this.#account?.id ?? null;
    if (now !== account) throw new Refused({ reason: now === null ? "session_ended" : "account_changed" });
    this.#sureOf = account ?? name;
  }

  // Calls `hear` when another tab logs in or out.
  watch(hear, signal) {
    this.#store.watch(ACCOUNT_KEY, hear, signal);
  }

  // To be asked for anew before the next connection.
  doubt() {
    this.#sureOf = null;
  }

  // The server knew no session by our cookie, and has made us a new guest, by this token.
  async adopt(token, name) {
    this.#token = token;
    this.#sureOf = null;
    try {
      await this.ensure({ name });
    } catch {
      // It is tried again before the next connection.
    }
  }

  // The server has taken us for somebody new where we were logged in.
  over() {
    this.#know(null);
  }

  async logIn({ username, password }) {
    await this.#enter("api/session", { username, password });
  }

  async register({ username, password }) {
    const invitation = this.invitation?.room === null ? this.invitation.code : undefined;
    await this.#enter("api/accounts", { username, password, invitation });
    if (invitation) this.invitation = null;
  }

  // Ends this session, a guest's too.
  async logOut() {
    this.#isLeaving = true;
    try {
      await ask("DELETE", "api/session").catch(unlessUnknown);
      this.#know(null);
      this.#lost = null;
    } finally {
      this.#isLeaving = false;
    }
  }

  async changePassword({ old, next }) {
    await ask("PUT", "api/account/password", { body: { old, new: next } });
  }

  // Where we are logged in, each `{ id, kind, label, created, seen, expires, current }`.
  list() {
    return ask("GET", "api/sessions");
  }

  // Ends one of them that is not this one.
  async end(id) {
    for (;;) {
      try {
        return await ask("DELETE", `api/sessions/${id}`);
      } catch (error) {
        if (error.code === "not_found") return null; // It has ended meanwhile.
        if (error.code !== "rate_limited") throw error;
        await new Promise((waited) => setTimeout(waited, error.until ? error.until - Date.now() : PAUSE_DEFAULT_MS));
      }
    }
  }

  // Becomes a member of the private room that we are invited to. One that is not good is not kept either.
  async accept() {
    const { room, code } = this.invitation;
    try {
      await ask("POST", `api/rooms/${encodeURIComponent(room)}/members`, { body: { invitation: code } });
    } catch (error) {
      if (error.code !== "not_found") throw error;
      this.invitation = null;
      throw new Refused({ reason: "no_such_invitation", code: "not_found" });
    }
    this.invitation = null;
  }

  // Logs in by a request. A login ends the guest's session of all tabs before its answer has come. A tab that became a
  // new guest in between could get its cookie last, and the login's would be lost: so the others are told to wait.
  async #enter(path, body) {
    this.#store.set(LOGIN_KEY, Date.now());
    try {
      this.#know(await ask("POST", path, { body }));
    } finally {
      this.#store.remove(LOGIN_KEY);
    }
  }

  // Waits while a tab logs in.
  async #loginDone(signal) {
    const isUnderWay = () => Math.abs(Date.now() - (this.#store.get(LOGIN_KEY) ?? 0)) < LOGIN_WAIT_MS;
    while (isUnderWay() && !signal?.aborted) await new Promise((waited) => setTimeout(waited, LOGIN_POLL_MS));
  }

  // Which ways in there are.
  async #ask() {
    this.about = await ask("GET", "api/about");
  }

  async #look(signal) {
    this.#know(await ask("GET", "api/session", { signal }).catch(unlessUnknown));
  }

  async #beGuest(name, signal) {
    const kept = this.#store.get(TOKEN_KEY);
    if (typeof kept === "string") this.#token ??= kept;
    const begin = () => ask("POST", "api/session", { body: { username: name }, token: this.#token, signal });
    try {
      await begin().catch((error) => {
        if (!needsLogin(error) || this.#token === null) throw error;
        // It was nobody's any more, or is not enough here.
        this.#forgetToken();
        return begin();
      });
      this.#forgetToken();
    } catch (error) {
      if (needsAccount(error)) this.about.accounts = "required";
      if (reasonOf(error) !== "logged_in") throw error;
      // We are logged in, and did not know.
      this.#forgetToken();
      await this.#look(signal);
    }
  }

  // Takes note of who we are: `me` as the server says it, or null for nobody.
  #know(me) {
    const known = this.#account ?? noted(this.#store);
    this.#account = me && me.kind !== "guest" ? { id: me.id, username: me.username, role: me.role } : null;
    this.#lost = this.#account ? null : (known ?? this.#lost);
    this.#sureOf = this.#account?.id ?? null;
    if (this.#account) this.#store.set(ACCOUNT_KEY, this.#account);
    else this.#store.remove(ACCOUNT_KEY);
  }

  #forgetToken() {
    this.#token = null;
    this.#store.remove(TOKEN_KEY);
  }
}

function noted(store) {
  const account = store.get(ACCOUNT_KEY);
  return typeof account?.id === "string" && typeof account.username === "string" ? account : null;
}

// Nothing where the server knows nobody by what we show.
function unlessUnknown(error) {
  if (needsLogin(error)) return null;
  throw error;
}
