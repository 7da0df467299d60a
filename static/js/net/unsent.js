// The messages of a room that are not known to be stored. The browser keeps them for 30 days: through a reload, a
// closed tab and a restart of the browser.
//
// Each message has a key of its own and names the tab that owns it, so no tab overwrites the messages of another. A tab
// sends the messages that it owns. Any tab that sees a message's own copy removes the message. A tab that is closed
// releases its messages. A tab that ended without that (in a crash, or because a phone ended the browser) does not
// answer when the others ask for it. Messages without an owner are taken over by the next tab that joins the room, in
// their order and before new ones. Under another name they are shown as failed.
//
// This needs no lock. A tab that was only asleep finds its messages owned by another tab, or gone. If two tabs have
// sent the same message, the server knows its nonce and stores it once.

import { PageReason } from "../core/codes.js";

const NONCE_BYTES = 16;
const RETENTION_MS = 30 * 24 * 60 * 60 * 1000;
// A tab answers within a few milliseconds, also in the background. A tab that takes longer loses no message.
const ANSWER_WAIT_MS = 300;

export class Unsent {
  #store;
  #prefix;
  #name;
  #onChange;
  #channel = null;
  #tab = newNonce();
  #owned = [];
  // The tabs that have answered.
  #alive = new Set();
  #takingOver = null;
  #ended = new AbortController();

  // `store` is shared by the browser's tabs. `scope` distinguishes servers behind one host. `name` is the user's name
  // in the room. `onChange` is called when the list changes through another tab.
  constructor({ store, scope, room, name, onChange }) {
    this.#store = store;
    this.#prefix = `outbox ${scope} ${encodeURIComponent(room)} `;
    this.#name = name;
    this.#onChange = onChange;
    this.#removeExpired(`outbox ${scope} `);
    const { signal } = this.#ended;
    store.watch(this.#prefix, (isCleared) => this.#changedByOther(isCleared), signal);
    window.addEventListener("pagehide", () => this.#release(), { signal });
    // The browser may keep a page that the user has left, and show it again as it was.
    window.addEventListener("pageshow", ({ persisted }) => persisted && this.takeOver(), { signal });
    this.#openChannel();
  }

  // The messages of this tab in their order, each `{ nonce, content, state, reason, code, sentence, until, by, name }`.
  // The state is "queued", "sent" or "failed". `by` is the user id under which the message was sent, if it was. `name`
  // is the name under which it was written.
  list() {
    this.#owned = this.#all().filter(({ tab }) => tab === this.#tab);
    return this.#owned.map((item) =>
      item.name === this.#name || item.state === "failed"
        ? item
        : { ...item, state: "failed", reason: PageReason.OTHER_NAME },
    );
  }

  // Adds a message after all others.
  add({ nonce = newNonce(), content }) {
    const at = Math.max(Date.now(), ...this.#all().map((item) => item.at + 1));
    this.update({ nonce, content, state: "queued", name: this.#name, at });
  }

  update(item) {
    this.#store.set(this.#prefix + item.nonce, { ...item, tab: this.#tab });
  }

  // Removes a message of any tab.
  remove(nonce) {
    this.#store.remove(this.#prefix + nonce);
  }

  // Takes over the messages without an owner. Resolves when they are known.
  takeOver() {
    this.#takingOver ??= this.#takeOver().finally(() => (this.#takingOver = null));
    return this.#takingOver;
  }

  // Releases all messages.
  close() {
    this.#ended.abort();
    this.#channel?.close();
    this.#release();
  }

  async #takeOver() {
    this.#takeFrom((tab) => tab === null);
    const others = new Set(this.#all().map(({ tab }) => tab));
    others.delete(this.#tab);
    if (others.size > 0) {
      this.#onChange();
      this.#alive.clear();
      this.#channel?.postMessage({ asks: this.#tab });
      await new Promise((resolve) => setTimeout(resolve, ANSWER_WAIT_MS));
      if (this.#ended.signal.aborted) return;
      this.#takeFrom((tab) => tab === null || (others.has(tab) && !this.#alive.has(tab)));
    }
    this.#onChange();
  }

  #takeFrom(hasEnded) {
    for (const item of this.#all()) {
      if (item.tab === this.#tab || !hasEnded(item.tab)) continue;
      this.update({ ...item, state: item.state === "sent" ? "queued" : item.state });
    }
  }

  #release() {
    for (const item of this.#all()) {
      if (item.tab === this.#tab) this.#store.set(this.#prefix + item.nonce, { ...item, tab: null });
    }
  }

  #openChannel() {
    try {
      this.#channel = new BroadcastChannel(`adda ${this.#prefix}`);
    } catch {
      return; // A browser that refuses it also refuses storage, so no message is shared.
    }
    this.#channel.onmessage = ({ data: { asks, lives } }) => {
      if (asks !== undefined) this.#channel.postMessage({ lives: this.#tab });
      else this.#alive.add(lives);
    };
  }

  #changedByOther(isCleared) {
    // A cleared storage does not mean that the messages were sent.
    if (isCleared) for (const item of this.#owned) this.update(item);
    this.#onChange();
  }

  // The messages of all tabs in this room.
  #all() {
    return this.#store
      .keys(this.#prefix)
      .map((key) => this.#store.get(key))
      .filter((item) => typeof item?.content === "string")
      .sort((a, b) => a.at - b.at);
  }

  #removeExpired(prefix) {
    for (const key of this.#store.keys(prefix)) {
      // A wrong clock may have set a time in the future.
      if (!(Math.abs(Date.now() - this.#store.get(key)?.at) < RETENTION_MS)) this.#store.remove(key);
    }
  }
}

// Not `crypto.randomUUID`, which is missing on plain http://.
export function newNonce() {
  const bytes = crypto.getRandomValues(new Uint8Array(NONCE_BYTES));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
