// How we stand in the room, and how the room stands: its name, topic and sign in the header; who may post, a mute and
// slow mode at the place where one writes.

import { countdownWords, isFar, momentWords, spanWords } from "../core/durations.js";

const TICK_MS = 1_000;
// A timer takes no more than about 24 days.
const TIMER_MAX_MS = 24 * 60 * 60 * 1000;

const UNSET = { name: "", topic: "", posting: "everyone", slow_mode_s: 0, private: false };

export class Standing {
  #parts;
  #lang;
  #onChange;
  #room = "";
  #settings = UNSET;
  #role = "guest";
  #mutedUntil = null;
  // By our clock: when we said something last, and until when the server last told us to wait.
  #saidAt = -Infinity;
  #toldUntil = -Infinity;
  // How far the server's clock is ahead of ours.
  #aheadMs = 0;
  #muteTimer;
  #ticker = null;

  // `parts` are the elements `chat`, `name`, `topic`, `lock`, `note` (for why one can't write), `form` (where one
  // writes) and `slow`. `onChange` hears when anything of the room or our role may have changed.
  constructor({ parts, lang, onChange }) {
    this.#parts = parts;
    this.#lang = lang;
    this.#onChange = onChange;
    parts.topic.addEventListener("click", () => {
      const isOpen = parts.topic.ariaExpanded !== "true";
      parts.topic.ariaExpanded = String(isOpen);
    });
  }

  get role() {
    return this.#role;
  }

  get isAdmin() {
    return this.#role === "admin";
  }

  get settings() {
    return { ...this.#settings, id: this.#room };
  }

  // The end of our mute by the page's clock; null without one.
  get mutedUntil() {
    return this.#mutedUntil && new Date(this.#mutedUntil.getTime() - this.#aheadMs);
  }

  // What the room is called.
  get name() {
    return this.#settings.name || this.#room;
  }

  // Turns to a room of which nothing is known yet.
  reset(room) {
    this.#room = room;
    this.#settings = UNSET;
    this.#role = "guest";
    this.#mutedUntil = null;
    this.#saidAt = -Infinity;
    this.#toldUntil = -Infinity;
    this.#parts.topic.ariaExpanded = "false";
    this.#show();
  }

  welcomed({ role = "guest", room, muted_until: mutedUntil = null, timestamp }) {
    this.#role = role;
    this.#setClock(timestamp);
    this.#settings = { ...UNSET, ...room };
    this.#mutedUntil = moment(mutedUntil);
    this.#show();
  }

  // The room's settings have changed.
  set(room) {
    if (room.id !== this.#room) return;
    this.#settings = { ...UNSET, ...room };
    this.#toldUntil = -Infinity;
    this.#show();
  }

  muted({ muted_until: mutedUntil = null, timestamp }) {
    this.#setClock(timestamp);
    this.#mutedUntil = moment(mutedUntil);
    this.#show();
  }

  // We have said something at that moment of the server's clock.
  said({ timestamp }) {
    this.#saidAt = Math.max(this.#saidAt, Date.parse(timestamp) - this.#aheadMs);
    this.#tick();
  }

  // The server says how long we have to wait.
  mustWait(ms) {
    this.#toldUntil = Date.now() + ms;
    this.#tick();
  }

  translate() {
    this.#show();
  }

  get #isSlowed() {
    return this.#settings.slow_mode_s > 0 && !this.isAdmin;
  }

  #setClock(timestamp) {
    const there = Date.parse(timestamp);
    if (!Number.isNaN(there)) this.#aheadMs = there - Date.now();
  }

  #show() {
    const { chat, name, topic, lock } = this.#parts;
    chat.dataset.role = this.#role;
    name.textContent = this.name;
    topic.textContent = this.#settings.topic;
    topic.title = this.#settings.topic;
    topic.hidden = this.#settings.topic === "";
    // What is no HTML has no `hidden` of its own.
    lock.toggleAttribute("hidden", !this.#settings.private);
    this.#showNote();
    this.#tick();
    this.#onChange();
  }

  // Why we can't write, if we can't; else there is where to write.
  #showNote() {
    clearTimeout(this.#muteTimer);
    const { note, form } = this.#parts;
    const until = this.mutedUntil;
    const leftMs = until ? until - Date.now() : 0;
    let words = "";
    if (leftMs > 0) {
      words = isFar(this.#mutedUntil)
        ? this.#lang.t("note.muted")
        : this.#lang.t("note.muted_until", { moment: momentWords(this.#lang, until) });
      this.#muteTimer = setTimeout(() => this.#showNote(), Math.min(leftMs, TIMER_MAX_MS));
    } else if (this.#settings.posting === "admins" && !this.isAdmin) {
      words = this.#lang.t("note.admins_post");
    }
    if (note.textContent !== words) note.textContent = words;
    note.hidden = words === "";
    form.hidden = words !== "";
    this.#parts.slow.hidden = words !== "" || !this.#isSlowed;
  }

  // The wait of slow mode, each second until it is over.
  #tick() {
    clearTimeout(this.#ticker);
    const { slow } = this.#parts;
    if (!this.#isSlowed) {
      slow.hidden = true;
      return;
    }
    const leftMs = Math.max(this.#toldUntil, this.#saidAt + this.#settings.slow_mode_s * 1000) - Date.now();
    const left = Math.ceil(leftMs / 1000);
    slow.dataset.state = left > 0 ? "waiting" : "ready";
    slow.textContent = left > 0
      ? this.#lang.t("note.slow_wait", { left: countdownWords(this.#lang, left) })
      : this.#lang.t("note.slow", { every: spanWords(this.#lang, this.#settings.slow_mode_s) });
    if (left > 0) this.#ticker = setTimeout(() => this.#tick(), leftMs % TICK_MS || TICK_MS);
  }
}

function moment(text) {
  const date = new Date(text ?? NaN);
  return Number.isNaN(date.getTime()) ? null : date;
}
