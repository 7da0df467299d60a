// One stay in one room: what comes over the connection goes to the views, what is written goes through the outbox.

import { needsAccount, needsLogin, reasonOf } from "../core/codes.js";
import { Connection } from "../net/socket.js";
import { isMessage } from "../net/history.js";
import { Outbox } from "../net/outbox.js";
import { Refused, ask } from "../net/requests.js";
import { SERVER } from "../net/storage.js";
import { TypingNotice } from "./typing.js";
import { Unsent, newNonce } from "../net/unsent.js";

// Messages shown on joining; older ones come as they are looked for.
const HISTORY = 50;
// `welcome` says how far the room's order goes, so the end of a replay of events is seen. If it never comes, we don't
// wait for it for ever.
const REPLAY_WAIT_MS = 3_000;
// A replay of messages can end before that seq, since other events can follow the last message. The server sends it in
// one piece, so a pause marks its end. A pause that comes too early does no harm: the server still knows each nonce.
const HISTORY_PAUSE_MS = 300;
// A server that has forgotten our session makes us somebody new; so many of our former ids are kept.
const SELVES_MAX = 50;
const SELVES_KEY = `selves.${SERVER}`;
const CLOSE_POLICY = 1008;
const CLOSE_OVER_CAPACITY = 1013;
// What a browser says of a WebSocket that was not let in, or whose network is gone.
const CLOSE_ABNORMAL = 1006;
// So often in a row a room that seems not to be there is asked for.
const KNOCKS_MAX = 3;
// Refusals that end the stay in a room, also behind `welcome`.
const ENDING_REASONS = new Set(["banned", "kicked", "made_private"]);

export class Visit {
  #name;
  #account;
  #session;
  #room;
  #views;
  #store;
  #onStatus;
  #onMessage;
  #onRefused;
  #connection;
  #unsent;
  #outbox;
  #notice;
  #isOnline = false;
  #knocks = 0;
  // The last refusal on this connection that answers no command: the server may close the connection for it.
  #refusal = null;
  #self = null;
  #called;
  #selves;
  // The last stored frame seen, to resume after.
  #last = null;
  // The place in the room's order at which the replay ends; null once it has.
  #replayEnd = null;
  // In a replay of messages: how many may still come; null in a replay of events.
  #historyLeft = null;
  #replayTimer;
  #ended = new AbortController();

  // As a guest by this name, or with the session's account. `views` are the timeline, its past, search, people, typing
  // line, composer and how we stand; `store` is the browser's, for all its tabs:
  // whom we have been and what is unsent; `onStatus` hears the connection's, and the refusal that it was lost by if
  // there was one; `onMessage` hears of each message of others; `onRefused` hears of the refusal that ends the stay.
  constructor({ name, session, room, views, store, onStatus, onMessage, onRefused }) {
    this.#name = name;
    this.#called = name;
    this.#account = session.account?.id ?? null;
    this.#session = session;
    this.#room = room;
    this.#views = views;
    this.#store = store;
    this.#onStatus = onStatus;
    this.#onMessage = onMessage;
    this.#onRefused = onRefused;
    this.#selves = new Set(store.get(SELVES_KEY) ?? []);
    this.#connection = new Connection({
      prepare: (signal) => this.#ensureSession(signal),
      address: () => this.#address(),
      onStatus: (status, code) => this.#statusChanged(status, code),
      onFrame: (frame) => this.#hear(frame),
    });
    this.#unsent = new Unsent({ store, scope: SERVER, room, name, onChange: () => this.#outbox.changed() });
    this.#outbox = new Outbox({
      unsent: this.#unsent,
      send: ({ nonce, content }) => this.#connection.send({ type: "text", content, nonce }),
      onChange: (items, pausedBy) => views.timeline.showPending(items, pausedBy),
      onSilence: () => this.#connection.renew(),
    });
    // With a nonce, so that an error about it is known for what it is.
    this.#notice = new TypingNotice(() => this.#connection.send({ type: "typing", nonce: newNonce() }));
  }

  start() {
    const { timeline, past, people, typing, composer, standing } = this.#views;
    standing.reset(this.#room);
    timeline.reset({
      retry: (nonce) => this.#outbox.retry(nonce),
      discard: (nonce) => this.#outbox.discard(nonce),
    });
    this.#outbox.start();
    past.open(this.#room, (frame) => this.#recognise(frame));
    people.reset([], 0, null);
    typing.clear();
    composer.open(this.#room, {
      onSend: (content) => {
        timeline.toNewest();
        this.#outbox.add(content);
      },
      onTyping: () => this.#notice.touched(),
    });
    this.#session.watch(() => this.#askWhoWeAre(), this.#ended.signal);
    this.#connection.start();
  }

  // Whether the room was ever reached.
  get wasThere() {
    return this.#self !== null;
  }

  // How many messages are not known to be stored.
  get unsent() {
    return this.#outbox.size;
  }

  retry() {
    this.#connection.retry();
  }

  stop() {
    this.#ended.abort();
    clearTimeout(this.#replayTimer);
    this.#connection.stop();
    this.#outbox.close();
    this.#unsent.close();
    this.#views.past.close();
    this.#views.typing.clear();
  }

  async #ensureSession(signal) {
    try {
      await this.#session.ensure({ name: this.#name, account: this.#account }, signal);
    } catch (error) {
      if (error instanceof Refused && !error.isPassing && !signal.aborted) this.#onRefused(error);
      // One that has had enough of us is asked again only after the longest pause, as after its close code.
      throw Object.assign(new Error("no session"), { code: error.code === "rate_limited" ? CLOSE_OVER_CAPACITY : undefined });
    }
  }

  // Asks at once, as whoever was logged in is to hear soon that they are not any more.
  #askWhoWeAre() {
    this.#session.doubt();
    this.#ensureSession(this.#ended.signal).catch(() => {
      // It is asked again before the next connection.
    });
  }

  // A page is not told why its WebSocket was not let in or was ended; over HTTP the server says it.
  async #askWhy() {
    const knocks = this.#knocks;
    try {
      await ask("GET", "api/session");
      if (knocks >= KNOCKS_MAX) await ask("GET", `api/rooms/${encodeURIComponent(this.#room)}`);
    } catch (error) {
      if (this.#ended.signal.aborted || !(error instanceof Refused) || error.isPassing) return;
      // The next attempt renews a session that is over. By now the room may have been reached after all.
      if (needsLogin(error) || (error.code === "not_found" && this.#knocks < KNOCKS_MAX)) return;
      this.#onRefused(error);
    }
  }

  // No secret is in it: addresses end up in logs.
  #address() {
    const url = new URL("ws", document.baseURI);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    url.searchParams.set("room", this.#room);
    url.searchParams.set("username", this.#name);
    url.searchParams.set("history", HISTORY);
    if (this.#last) url.searchParams.set("after", this.#last.id);
    return url;
  }

  #statusChanged(status, code) {
    // What is lost before it was online, or by the server's will, may have been refused for want of a session: a page
    // is not told why its WebSocket was not let in.
    if (status === "waiting" && (!this.#isOnline || code === CLOSE_POLICY)) {
      this.#session.doubt();
      if (code === CLOSE_ABNORMAL || this.#refusal !== null) this.#knocks += 1;
      if (this.#isFinal(this.#refusal)) return this.#onRefused(this.#refusal);
      if (code === CLOSE_POLICY && this.#session.isLogin) this.#askWhoWeAre();
      else if (this.#refusal === null && (code === CLOSE_POLICY || code === CLOSE_ABNORMAL)) this.#askWhy();
    }
    const refusal = this.#refusal;
    if (status !== "waiting") this.#refusal = null;
    this.#isOnline = status === "online";
    if (this.#isOnline) this.#knocks = 0;
    if (status !== "online") {
      clearTimeout(this.#replayTimer);
      this.#outbox.close();
      this.#views.typing.clear();
    }
    return this.#onStatus(status, code, refusal);
  }

  // Whether a connection that was lost behind this refusal would be refused again.
  #isFinal(refusal) {
    if (refusal === null || refusal.isPassing) return false;
    if (ENDING_REASONS.has(reasonOf(refusal))) return true;
    // Behind `welcome` the connection has outlived the refusal, so it was lost for another reason.
    if (this.#isOnline) return false;
    // A login is looked at before the next attempt, and a guest gets a new session then; that may fail too.
    const mayHelp = this.#session.isLogin || !needsAccount(refusal);
    if (needsLogin(refusal) && mayHelp) return this.#knocks >= KNOCKS_MAX;
    return true;
  }

  #hear(frame) {
    switch (frame.type) {
      case "welcome":
        return this.#welcomed(frame);
      case "join":
        if (this.#views.people.joined(frame.user_id, frame.username)) this.#views.timeline.addPresence(frame);
        return undefined;
      case "leave":
        // It comes to ourselves only if it was not we who went.
        if (frame.user_id === this.#self && frame.username === this.#called) return this.#onRefused(new Refused({ reason: "kicked" }));
        if (!this.#views.people.left(frame.user_id)) return undefined;
        this.#views.typing.gone(frame.user_id);
        return this.#views.timeline.addPresence(frame);
      case "presence":
        for (const { id } of frame.left ?? []) this.#views.typing.gone(id);
        return this.#views.people.changed(frame);
      case "typing":
        if (!this.#selves.has(frame.user_id)) this.#views.typing.heard(frame.user_id, frame.username);
        return undefined;
      case "error":
        return this.#refused(frame);
      case "room":
        this.#views.standing.set(frame.room);
        return this.#outbox.resume();
      case "mute":
        return this.#views.standing.muted(frame);
      case "delete":
        this.#views.timeline.delete(frame);
        this.#views.search.deleted(frame);
        return this.#passed(frame);
      default:
        if (frame.duplicate) return this.#storedBefore(frame);
        return isMessage(frame) ? this.#message(frame) : this.#passed(frame);
    }
  }

  #welcomed(frame) {
    const { user_id: self, username, token, members, member_count: total, seq, reset, limits } = frame;
    if (typeof token === "string") {
      // The server knew us no more. A guest is somebody new then; whoever was logged in is to be told.
      if (this.#account !== null) {
        this.#session.over();
        return this.#onRefused(new Refused({ reason: "session_ended" }));
      }
      this.#session.adopt(token, this.#name);
    }
    this.#called = username;
    this.#views.standing.welcomed(frame);
    this.#become(self);
    // In a large room the server names only some people, and perhaps not us.
    const named = members.some(({ id }) => id === self) ? members : [{ id: self, username }, ...members];
    this.#views.people.reset(named, total, self);
    if (limits) this.#views.composer.limit(limits.content_bytes);
    if (reset) this.#last = null;
    if (!this.#last) this.#views.timeline.expectGap();
    const known = this.#last?.seq ?? 0;
    this.#replayEnd = seq;
    this.#historyLeft = this.#last ? null : HISTORY;
    this.#replayTimer = setTimeout(() => this.#caughtUp(), REPLAY_WAIT_MS);
    if (known >= seq) this.#caughtUp();
    return undefined;
  }

  #message(frame) {
    const own = this.#recognise(frame);
    this.#views.typing.gone(frame.user_id);
    if (frame.user_id === this.#self) this.#views.standing.said(frame);
    if (this.#views.timeline.addMessage(frame, own) && !own) this.#onMessage(frame);
    this.#passed(frame);
  }

  #refused(frame) {
    const refusal = Refused.ofFrame(frame);
    const word = reasonOf(refusal);
    if (word === "muted") refusal.until ??= this.#views.standing.mutedUntil;
    if (this.#outbox.refused(frame.nonce, refusal)) {
      if (word === "slow_mode" && refusal.until) this.#views.standing.mustWait(refusal.until - Date.now());
      return undefined;
    }
    if (frame.nonce) return undefined;
    this.#refusal = refusal;
    return ENDING_REASONS.has(word) ? this.#onRefused(refusal) : undefined;
  }

  // What we sent again had arrived. It is acked, and not shown here: it stands in the past, where it belongs.
  #storedBefore({ nonce }) {
    this.#outbox.stored(nonce);
  }

  // Says whether a stored message is ours; then it is not on its way any more, whichever tab sent it.
  #recognise({ user_id: author, nonce }) {
    const own = this.#selves.has(author);
    if (own && nonce) this.#outbox.stored(nonce);
    return own;
  }

  // Takes note of who we are now. Other tabs may have been somebody too.
  #become(self) {
    this.#self = self;
    this.#selves = new Set([...(this.#store.get(SELVES_KEY) ?? []), ...this.#selves]);
    this.#selves.delete(self);
    this.#selves.add(self);
    this.#store.set(SELVES_KEY, [...this.#selves].slice(-SELVES_MAX));
  }

  // Takes note of how far the room's order has come; only a stored frame has a place in it.
  #passed({ id, seq }) {
    if (seq > (this.#last?.seq ?? 0)) this.#last = { id, seq };
    if (this.#replayEnd === null || seq === undefined) return;
    if (this.#historyLeft !== null) this.#historyLeft -= 1;
    if (seq >= this.#replayEnd || this.#historyLeft === 0) return this.#caughtUp();
    if (this.#historyLeft === null) return;
    clearTimeout(this.#replayTimer);
    this.#replayTimer = setTimeout(() => this.#caughtUp(), HISTORY_PAUSE_MS);
  }

  #caughtUp() {
    clearTimeout(this.#replayTimer);
    this.#replayEnd = null;
    this.#views.timeline.caughtUp();
    this.#views.past.caughtUp(this.#last?.id);
    this.#outbox.open(this.#self);
  }
}
