// One stay in one room: what comes over the connection goes to the views, what is written goes through the outbox.

import { Connection } from "./connection.js";
import { Outbox, newNonce } from "./outbox.js";
import { TypingNotice } from "./typing.js";

// Messages shown on joining; more when something may have got lost with the page, and is to be looked for.
const HISTORY = 50;
const HISTORY_SEARCHED = 200;
// `welcome` says how far the past goes, so its end is seen. If it never comes, we don't wait for it for ever.
const REPLAY_WAIT_MS = 3_000;
// Without a login each connection makes us somebody new; so many of our former ids are kept.
const SELVES_MAX = 50;

export class Visit {
  #name;
  #room;
  #views;
  #store;
  #onStatus;
  #onMessage;
  #connection;
  #outbox;
  #notice;
  #selves;
  // The last stored frame seen, to resume after.
  #last = null;
  // The place in the room's order at which the replay ends; null once it has.
  #replayEnd = null;
  #replayTimer;

  // `views` are the timeline, people, typing line and composer; `onStatus` hears the connection's; `onMessage` hears
  // of each message of others.
  constructor({ name, room, views, store, onStatus, onMessage }) {
    this.#name = name;
    this.#room = room;
    this.#views = views;
    this.#store = store;
    this.#onStatus = onStatus;
    this.#onMessage = onMessage;
    this.#selves = new Set(store.get("selves") ?? []);
    this.#connection = new Connection({
      address: () => this.#address(),
      onStatus: (status, code) => this.#statusChanged(status, code),
      onFrame: (frame) => this.#hear(frame),
    });
    this.#outbox = new Outbox({
      send: ({ nonce, content }) => this.#connection.send({ type: "text", content, nonce }),
      onChange: (items) => views.timeline.showPending(items),
      onSilence: () => this.#connection.renew(),
      store,
      key: `outbox.${room}`,
    });
    // With a nonce, so that an error about it is known for what it is.
    this.#notice = new TypingNotice(() => this.#connection.send({ type: "typing", nonce: newNonce() }));
  }

  start() {
    const { timeline, people, typing, composer } = this.#views;
    timeline.reset({
      retry: (nonce) => this.#outbox.retry(nonce),
      discard: (nonce) => this.#outbox.discard(nonce),
    });
    timeline.showPending(this.#outbox.items);
    people.reset([], 0, null);
    typing.clear();
    composer.open(this.#room, {
      onSend: (content) => {
        timeline.toNewest();
        this.#outbox.add(content);
      },
      onTyping: () => this.#notice.touched(),
    });
    this.#connection.start();
  }

  retry() {
    this.#connection.retry();
  }

  stop() {
    clearTimeout(this.#replayTimer);
    this.#connection.stop();
    this.#outbox.close();
    this.#views.typing.clear();
  }

  #address() {
    const url = new URL("ws", document.baseURI);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    url.searchParams.set("room", this.#room);
    url.searchParams.set("username", this.#name);
    url.searchParams.set("history", this.#outbox.unsure ? HISTORY_SEARCHED : HISTORY);
    if (this.#last) url.searchParams.set("after", this.#last.id);
    return url;
  }

  #statusChanged(status, code) {
    if (status !== "online") {
      clearTimeout(this.#replayTimer);
      this.#outbox.close();
      this.#views.typing.clear();
    }
    this.#onStatus(status, code);
  }

  #hear(frame) {
    switch (frame.type) {
      case "welcome":
        return this.#welcomed(frame);
      case "join":
        this.#views.people.joined(frame.user_id, frame.username);
        return this.#views.timeline.addPresence(frame);
      case "leave":
        this.#views.people.left(frame.user_id);
        this.#views.typing.gone(frame.user_id);
        return this.#views.timeline.addPresence(frame);
      case "typing":
        if (!this.#selves.has(frame.user_id)) this.#views.typing.heard(frame.user_id, frame.username);
        return undefined;
      case "error":
        this.#outbox.refused(frame);
        return undefined;
      case "text":
      case "announcement":
        return this.#message(frame);
      default:
        return this.#passed(frame);
    }
  }

  #welcomed({ user_id: self, members, member_count: total, seq, reset, limits }) {
    this.#selves.add(self);
    this.#store.set("selves", [...this.#selves].slice(-SELVES_MAX));
    this.#views.people.reset(members, total, self);
    if (limits) this.#views.composer.limit(limits.content_bytes);
    if (reset) this.#last = null;
    if (!this.#last) this.#views.timeline.expectGap();
    const known = this.#last?.seq ?? 0;
    this.#replayEnd = seq;
    this.#replayTimer = setTimeout(() => this.#caughtUp(), REPLAY_WAIT_MS);
    if (known >= seq) this.#caughtUp();
  }

  #message(frame) {
    const own = this.#selves.has(frame.user_id);
    if (own && frame.nonce) this.#outbox.stored(frame.nonce);
    this.#views.typing.gone(frame.user_id);
    if (this.#views.timeline.addMessage(frame, own) && !own) this.#onMessage(frame);
    this.#passed(frame);
  }

  // Takes note of how far the room's order has come; only a stored frame has a place in it.
  #passed({ id, seq }) {
    if (seq > (this.#last?.seq ?? 0)) this.#last = { id, seq };
    if (this.#replayEnd !== null && seq >= this.#replayEnd) this.#caughtUp();
  }

  #caughtUp() {
    clearTimeout(this.#replayTimer);
    this.#replayEnd = null;
    this.#views.timeline.caughtUp();
    this.#outbox.open();
  }
}
