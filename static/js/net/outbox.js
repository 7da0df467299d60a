// Sends the messages of a room, in the order in which they were written.
//
// Each message has a nonce and one of three outcomes: its own copy comes back (stored), an error has its nonce (not
// stored), or nothing comes (unknown). In the last case it is sent again with the same nonce, and the server stores it
// once. One message is in flight at a time, so that no message overtakes one that waits for a rate limit.
//
// The server knows a nonce together with its author. If the user has a new user id, a message that was sent under the
// former id could be stored twice. Such a message fails, and the user decides.

import { PageReason, Reason, isResent, needsNewNonce } from "../core/codes.js";

// The time for one round trip and one commit. After that the connection counts as dead.
const ANSWER_WAIT_MS = 10_000;
const RETRY_DEFAULT_MS = 1_000;
const RETRY_MAX_MS = 60_000;

export class Outbox {
  #unsent;
  #send;
  #onChange;
  #onTimeout;
  #items = [];
  // The user's id in the room; null while the room is not joined.
  #userId = null;
  #opening = null;
  #answerTimer;
  #pauseTimer = null;
  // The rejection after which the outbox waits.
  #pausedBy = null;

  // `unsent` stores the messages. `send` gives a message to the connection and returns whether it took it. `onChange`
  // is called with the messages and the rejection after which the outbox waits, or null. `onTimeout` is called if no
  // answer comes in time.
  constructor({ unsent, send, onChange, onTimeout }) {
    this.#unsent = unsent;
    this.#send = send;
    this.#onChange = onChange;
    this.#onTimeout = onTimeout;
  }

  // The number of messages that are not known to be stored.
  get size() {
    return this.#items.length;
  }

  // Lists the stored messages, and takes over those of closed tabs.
  start() {
    this.update();
    this.#unsent.takeOver();
  }

  add(content) {
    this.#unsent.add({ content });
    this.update();
  }

  // The room is joined as `userId`, and the replay has confirmed those messages that had been stored. The rest is sent.
  async open(userId) {
    const opening = Symbol("opening");
    this.#opening = opening;
    await this.#unsent.takeOver();
    if (this.#opening !== opening) return;
    this.#userId = userId;
    this.update();
  }

  // The connection is lost. The message in flight is sent again, unless its copy comes first.
  close() {
    this.#opening = null;
    this.#userId = null;
    this.#endPause();
    for (const item of this.#unsent.list().filter(isSent)) this.#unsent.update({ ...item, state: "queued" });
    this.update();
  }

  // The message's own copy came: live, in a replay, in a page of history, or as the answer to a repetition.
  stored(nonce) {
    this.#unsent.remove(nonce);
    if (this.#find(nonce)) this.update();
  }

  // An error came for a nonce. Returns whether the nonce is one of this outbox.
  rejected(nonce, rejection) {
    const item = this.#find(nonce);
    if (!item) return false;
    const { reason, code, message: sentence, until } = rejection;
    if (isResent(rejection)) {
      // A message that may be stored must not be sent under another user id.
      const by = reason === Reason.OUTCOME_UNKNOWN ? item.by : undefined;
      this.#unsent.update({ ...item, state: "queued", by });
      this.#pause(Math.min(until ? until - Date.now() : RETRY_DEFAULT_MS, RETRY_MAX_MS), rejection);
    } else {
      this.#unsent.update({ ...item, state: "failed", reason, code, sentence, until: until?.getTime() ?? null });
    }
    this.update();
    return true;
  }

  // Ends a pause early, because the reason for it may be gone.
  resume() {
    if (this.#pauseTimer === null) return;
    this.#endPause();
    this.update();
  }

  // Sends a failed message again, after the messages that were written since. With the same nonce the server recognises
  // a message that it has stored.
  retry(nonce) {
    const item = this.#find(nonce);
    if (!item) return;
    this.#unsent.remove(nonce);
    this.#unsent.add({ nonce: needsNewNonce(item) ? undefined : nonce, content: item.content });
    this.update();
  }

  discard(nonce) {
    this.#unsent.remove(nonce);
    this.update();
  }

  // Sends the next message, if there is one, and reports the list.
  update() {
    this.#sendNext();
    this.#items = this.#unsent.list();
    if (!this.#items.some(isSent)) clearTimeout(this.#answerTimer);
    this.#onChange(this.#items, this.#pausedBy);
  }

  #sendNext() {
    if (this.#userId === null || this.#pauseTimer !== null) return;
    const items = this.#unsent.list();
    if (items.some(isSent)) return;
    for (const item of items.filter(({ state }) => state === "queued")) {
      if (item.by !== undefined && item.by !== this.#userId) {
        this.#unsent.update({ ...item, state: "failed", reason: PageReason.UNSURE });
        continue;
      }
      // The state is stored before the message is sent, because the page may end in between.
      this.#unsent.update({ ...item, state: "sent", by: this.#userId });
      if (this.#send(item)) {
        clearTimeout(this.#answerTimer);
        this.#answerTimer = setTimeout(this.#onTimeout, ANSWER_WAIT_MS);
      } else {
        this.#unsent.update(item);
      }
      return;
    }
  }

  #pause(ms, rejection) {
    this.#endPause();
    this.#pausedBy = rejection;
    this.#pauseTimer = setTimeout(() => {
      this.#endPause();
      this.update();
    }, ms);
  }

  #endPause() {
    clearTimeout(this.#pauseTimer);
    this.#pauseTimer = null;
    this.#pausedBy = null;
  }

  #find(nonce) {
    return this.#items.find((item) => item.nonce === nonce);
  }
}

function isSent({ state }) {
  return state === "sent";
}
