// Messages on their way, in the order they were written. Each has a nonce, and ends in one of three ways: the
// author's own copy comes back (stored), an error bears its nonce (not stored), or nothing comes (unknown; it is sent
// again with its nonce, and the server, which knows it if it had arrived, stores it once). One is under way at a time,
// so that none overtakes another when the server refuses one for a while. No DOM here.

const NONCE_BYTES = 16;
// An answer takes a round trip and a commit; past this the connection is not believed any more.
const ANSWER_WAIT_MS = 10_000;
const RETRY_DEFAULT_MS = 1_000;
const RETRY_MAX_MS = 60_000;
// Refusals that pass by themselves.
const PASSING = new Set(["rate_limited", "busy"]);

export class Outbox {
  #send;
  #onChange;
  #onSilence;
  #store;
  #key;
  #items;
  #flowing = false;
  #answerTimer;
  #pauseTimer = null;

  // `send` gives a message to the connection and says whether it took it; `onChange` hears of every change;
  // `onSilence` hears when no answer came in time. What waits is kept in `store` under `key`.
  constructor({ send, onChange, onSilence, store, key }) {
    this.#send = send;
    this.#onChange = onChange;
    this.#onSilence = onSilence;
    this.#store = store;
    this.#key = key;
    this.#items = store.get(key) ?? [];
  }

  // The messages, each `{ nonce, content, state, code, sentence }`; the state is "queued", "sent" or "failed".
  get items() {
    return this.#items;
  }

  add(content) {
    this.#items.push({ nonce: newNonce(), content, state: "queued" });
    this.#changed();
    this.#pump();
  }

  // The room is reached and its latest messages are seen: what went out before and was not among them goes out again.
  open() {
    for (const item of this.#items) if (item.state === "sent") item.state = "queued";
    this.#flowing = true;
    this.#changed();
    this.#pump();
  }

  // The connection is gone. What is under way stays "sent" until the room is reached again.
  close() {
    this.#flowing = false;
    clearTimeout(this.#answerTimer);
    this.#endPause();
  }

  // The author's own copy came: live, in the replay, or because it was sent twice.
  stored(nonce) {
    if (!this.#take(nonce)) return;
    clearTimeout(this.#answerTimer);
    this.#changed();
    this.#pump();
  }

  // An error came; says whether it was about one of ours.
  refused({ nonce, code, content, retry_ms: retryMs }) {
    const item = this.#find(nonce);
    if (!item) return false;
    clearTimeout(this.#answerTimer);
    if (PASSING.has(code)) {
      item.state = "queued";
      this.#pause(Math.min(retryMs ?? RETRY_DEFAULT_MS, RETRY_MAX_MS));
    } else {
      Object.assign(item, { state: "failed", code, sentence: content });
    }
    this.#changed();
    this.#pump();
    return true;
  }

  // Sends a failed one again, behind what was written since.
  retry(nonce) {
    const item = this.#take(nonce);
    if (item) this.add(item.content);
  }

  discard(nonce) {
    if (this.#take(nonce)) this.#changed();
  }

  #pump() {
    if (!this.#flowing || this.#pauseTimer !== null) return;
    if (this.#items.some(({ state }) => state === "sent")) return;
    const next = this.#items.find(({ state }) => state === "queued");
    if (!next || !this.#send(next)) return;
    next.state = "sent";
    this.#answerTimer = setTimeout(this.#onSilence, ANSWER_WAIT_MS);
    this.#changed();
  }

  #pause(ms) {
    this.#endPause();
    this.#pauseTimer = setTimeout(() => {
      this.#pauseTimer = null;
      this.#pump();
    }, ms);
  }

  #endPause() {
    clearTimeout(this.#pauseTimer);
    this.#pauseTimer = null;
  }

  #find(nonce) {
    return this.#items.find((item) => item.nonce === nonce);
  }

  #take(nonce) {
    const item = this.#find(nonce);
    if (item) this.#items = this.#items.filter((other) => other !== item);
    return item;
  }

  #changed() {
    if (this.#items.length > 0) this.#store.set(this.#key, this.#items);
    else this.#store.remove(this.#key);
    this.#onChange(this.#items);
  }
}

// `crypto.randomUUID` is missing on plain http://, where a server on the LAN is.
export function newNonce() {
  return Array.from(crypto.getRandomValues(new Uint8Array(NONCE_BYTES)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
