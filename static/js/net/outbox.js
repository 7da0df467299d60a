// Messages on their way, in the order they were written. Each has a nonce, and ends in one of three ways: the
// author's own copy comes back (stored), an error bears its nonce (not stored), or nothing comes (unknown; it is sent
// again with its nonce, and the server, which knows it if it had arrived, stores it once). One is under way at a time,
// so that none overtakes another when the server refuses one for a while. No DOM here.
//
// The server knows a nonce together with its author. If it has forgotten who we are, what went out under the former
// user id could be stored twice: unless the copy of it is seen, its writer is asked.

import { reasonOf } from "../core/codes.js";

// An answer takes a round trip and a commit; past this the connection is not believed any more.
const ANSWER_WAIT_MS = 10_000;
const RETRY_DEFAULT_MS = 1_000;
const RETRY_MAX_MS = 60_000;
// Refusals after which the same message is sent again by itself.
const RETRIED_CODES = new Set(["rate_limited", "busy"]);
// Refusals of the nonce itself: the message needs another one.
const NONCE_USED = new Set(["nonce_used", "conflict"]);

export class Outbox {
  #unsent;
  #send;
  #onChange;
  #onSilence;
  #items = [];
  // The user id that we are in the room; null while it is not reached.
  #self = null;
  #opening = null;
  #answerTimer;
  #pauseTimer = null;
  // The refusal that a pause follows.
  #pauseReason = null;

  // `unsent` keeps the messages; `send` gives one to the connection and says whether it took it; `onChange` hears of
  // every change, and of the refusal that makes us wait, or null; `onSilence` hears when no answer came in time.
  constructor({ unsent, send, onChange, onSilence }) {
    this.#unsent = unsent;
    this.#send = send;
    this.#onChange = onChange;
    this.#onSilence = onSilence;
  }

  // How many messages are on their way.
  get size() {
    return this.#items.length;
  }

  // Shows what is there, and what gone tabs have left.
  start() {
    this.changed();
    this.#unsent.takeOver();
  }

  add(content) {
    this.#unsent.add({ content });
    this.changed();
  }

  // The room is reached as `self` and its latest messages are seen: what is not among them goes out.
  async open(self) {
    const opening = Symbol("opening");
    this.#opening = opening;
    await this.#unsent.takeOver();
    if (this.#opening !== opening) return;
    this.#self = self;
    this.changed();
  }

  // The connection is gone. What is under way has to go out again, unless its copy comes first.
  close() {
    this.#opening = null;
    this.#self = null;
    this.#endPause();
    for (const item of this.#unsent.list().filter(isSent)) this.#unsent.update({ ...item, state: "queued" });
    this.changed();
  }

  // The author's own copy came: live, in the replay, from the past, or because it was sent twice.
  stored(nonce) {
    this.#unsent.remove(nonce);
    if (this.#find(nonce)) this.changed();
  }

  // An error came, with the nonce of one of ours or with another; says whether it was one of ours.
  refused(nonce, refused) {
    const item = this.#find(nonce);
    if (!item) return false;
    const { reason, code, message: sentence, until } = refused;
    if (RETRIED_CODES.has(code)) {
      // What may be stored must not go out under another user id.
      const by = reason === "outcome_unknown" ? item.by : undefined;
      this.#unsent.update({ ...item, state: "queued", by });
      this.#pause(Math.min(until ? until - Date.now() : RETRY_DEFAULT_MS, RETRY_MAX_MS), refused);
    } else {
      this.#unsent.update({ ...item, state: "failed", reason, code, sentence, until: until?.getTime() ?? null });
    }
    this.changed();
    return true;
  }

  // The server may want us to wait no longer.
  resume() {
    if (this.#pauseTimer === null) return;
    this.#endPause();
    this.changed();
  }

  // Sends a failed one again, behind what was written since. If it had arrived after all, its nonce tells.
  retry(nonce) {
    const item = this.#find(nonce);
    if (!item) return;
    this.#unsent.remove(nonce);
    const isUsed = NONCE_USED.has(reasonOf(item));
    this.#unsent.add({ nonce: isUsed ? undefined : nonce, content: item.content });
    this.changed();
  }

  discard(nonce) {
    this.#unsent.remove(nonce);
    this.changed();
  }

  // Goes on with what there is now.
  changed() {
    this.#pump();
    this.#items = this.#unsent.list();
    if (!this.#items.some(isSent)) clearTimeout(this.#answerTimer);
    this.#onChange(this.#items, this.#pauseReason);
  }

  #pump() {
    if (this.#self === null || this.#pauseTimer !== null) return;
    const items = this.#unsent.list();
    if (items.some(isSent)) return;
    for (const item of items.filter(({ state }) => state === "queued")) {
      if (item.by !== undefined && item.by !== this.#self) {
        this.#unsent.update({ ...item, state: "failed", reason: "unsure" });
        continue;
      }
      // Noted before it is done: the page may end in between.
      this.#unsent.update({ ...item, state: "sent", by: this.#self });
      if (this.#send(item)) {
        clearTimeout(this.#answerTimer);
        this.#answerTimer = setTimeout(this.#onSilence, ANSWER_WAIT_MS);
      } else {
        this.#unsent.update(item);
      }
      return;
    }
  }

  #pause(ms, refused) {
    this.#endPause();
    this.#pauseReason = refused;
    this.#pauseTimer = setTimeout(() => {
      this.#endPause();
      this.changed();
    }, ms);
  }

  #endPause() {
    clearTimeout(this.#pauseTimer);
    this.#pauseTimer = null;
    this.#pauseReason = null;
  }

  #find(nonce) {
    return this.#items.find((item) => item.nonce === nonce);
  }
}

function isSent({ state }) {
  return state === "sent";
}
