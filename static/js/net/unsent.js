// What was written in a room and is not known to be stored. The browser keeps it through a reload, a closed tab and
// a restart of its own, for 30 days. No DOM here.
//
// Each message stands under a key of its own and names the tab that has it in hand, so that no tab ever writes over
// what another wrote. A tab sends what it has in hand; any tab that sees the author's own copy removes the message,
// whoever has it. A tab that goes lets go of its messages. One that ended without the chance to (a crash, a phone that
// ended the browser) does not answer when it is asked for. What nobody has in hand is taken by the next tab that
// reaches the room, in its order and before what is new; under another name it is shown, but not sent by itself.
//
// This needs no lock. A tab that only seemed to be gone (it was asleep) finds its messages in other hands or gone,
// and lists them no more. If two have sent one nevertheless, the server knows its nonce and stores it once.

const NONCE_BYTES = 16;
const KEPT_MS = 30 * 24 * 60 * 60 * 1000;
// A living tab answers in a few milliseconds, in the background too. One that takes longer loses nothing.
const ANSWER_WAIT_MS = 300;

export class Unsent {
  #store;
  #prefix;
  #name;
  #onChange;
  #channel = null;
  #tab = newNonce();
  #held = [];
  #living = new Set();
  #taking = null;
  #ended = new AbortController();

  // `store` is shared by the browser's tabs, `scope` tells servers behind one host apart, `name` is what we are
  // called in the room; `onChange` hears when the list is another without this tab's writing in it.
  constructor({ store, scope, room, name, onChange }) {
    this.#store = store;
    this.#prefix = `outbox ${scope} ${encodeURIComponent(room)} `;
    this.#name = name;
    this.#onChange = onChange;
    this.#forgetOld(`outbox ${scope} `);
    const { signal } = this.#ended;
    store.watch(this.#prefix, (cleared) => this.#changedElsewhere(cleared), signal);
    window.addEventListener("pagehide", () => this.#letGo(), { signal });
    // The browser may keep a page that one went away from, and show it again as it was.
    window.addEventListener("pageshow", ({ persisted }) => persisted && this.takeOver(), { signal });
    this.#listen();
  }

  // This tab's messages in their order, each `{ nonce, content, state, reason, code, sentence, until, by, name }`: the state is
  // "queued", "sent" or "failed", `by` the user id that it was sent under, if it was, `name` whom it was written as.
  list() {
    this.#held = this.#all().filter(({ tab }) => tab === this.#tab);
    return this.#held.map((item) =>
      item.name === this.#name || item.state === "failed" ? item : { ...item, state: "failed", reason: "other_name" },
    );
  }

  // Puts a message behind all others.
  add({ nonce = newNonce(), content }) {
    const at = Math.max(Date.now(), ...this.#all().map((item) => item.at + 1));
    this.update({ nonce, content, state: "queued", name: this.#name, at });
  }

  update(item) {
    this.#store.set(this.#prefix + item.nonce, { ...item, tab: this.#tab });
  }

  // Removes a message, whoever has it in hand.
  remove(nonce) {
    this.#store.remove(this.#prefix + nonce);
  }

  // Takes what nobody has in hand; done when that is known.
  takeOver() {
    this.#taking ??= this.#take().finally(() => (this.#taking = null));
    return this.#taking;
  }

  // Lets go of everything, for whoever comes to the room next.
  close() {
    this.#ended.abort();
    this.#channel?.close();
    this.#letGo();
  }

  async #take() {
    this.#takeFrom((tab) => tab === null);
    const others = new Set(this.#all().map(({ tab }) => tab));
    others.delete(this.#tab);
    if (others.size > 0) {
      this.#onChange();
      this.#living.clear();
      this.#channel?.postMessage({ asks: this.#tab });
      await new Promise((waited) => setTimeout(waited, ANSWER_WAIT_MS));
      if (this.#ended.signal.aborted) return;
      this.#takeFrom((tab) => tab === null || (others.has(tab) && !this.#living.has(tab)));
    }
    this.#onChange();
  }

  #takeFrom(isGone) {
    for (const item of this.#all()) {
      if (item.tab === this.#tab || !isGone(item.tab)) continue;
      this.update({ ...item, state: item.state === "sent" ? "queued" : item.state });
    }
  }

  #letGo() {
    for (const item of this.#all()) {
      if (item.tab === this.#tab) this.#store.set(this.#prefix + item.nonce, { ...item, tab: null });
    }
  }

  #listen() {
    try {
      this.#channel = new BroadcastChannel(`adda ${this.#prefix}`);
    } catch {
      return; // Refused where storage is: then there is nothing to ask about either.
    }
    this.#channel.onmessage = ({ data: { asks, lives } }) => {
      if (asks !== undefined) this.#channel.postMessage({ lives: this.#tab });
      else this.#living.add(lives);
    };
  }

  #changedElsewhere(cleared) {
    // Somebody emptied the whole store. That was not to say that these messages were sent.
    if (cleared) for (const item of this.#held) this.update(item);
    this.#onChange();
  }

  // All the room's messages, whoever has them.
  #all() {
    return this.#store
      .keys(this.#prefix)
      .map((key) => this.#store.get(key))
      .filter((item) => typeof item?.content === "string")
      .sort((a, b) => a.at - b.at);
  }

  #forgetOld(prefix) {
    for (const key of this.#store.keys(prefix)) {
      // A clock that was wrong may have dated it in the future.
      if (!(Math.abs(Date.now() - this.#store.get(key)?.at) < KEPT_MS)) this.#store.remove(key);
    }
  }
}

// `crypto.randomUUID` is missing on plain http://, where a server on the LAN is.
export function newNonce() {
  return Array.from(crypto.getRandomValues(new Uint8Array(NONCE_BYTES)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
