// The messages of a room, oldest first, and below them those still on their way. Keeps to the newest while the
// reader is there, and never shows one frame twice.

import { dressFace, hueOf } from "./people.js";

// Lines on the page; the oldest go, so that a day in a busy room doesn't fill a phone.
const LINES_MAX = 1_000;
const LINES_TRIMMED = 100;
// So near to the end counts as being there.
const NEAR_PX = 80;
// Messages of one person that follow one another stand together, if not too far apart in time.
const GROUP_MS = 5 * 60 * 1000;

export class Timeline {
  #scroller;
  #list;
  #pending;
  #empty;
  #newer;
  #templates;
  #lang;
  #retry = () => {};
  #discard = () => {};
  // Lines as shown: `{ id, kind, frame, own, date, element }`; the kind is "message", "join", "leave", "gap" or "day".
  #lines = [];
  // The ids of the messages among them.
  #ids = new Set();
  #pendingByNonce = new Map();
  #items = [];
  #sticks = true;
  #unseen = 0;
  #gapComes = false;

  constructor({ scroller, list, pending, empty, newer, templates, lang }) {
    this.#scroller = scroller;
    this.#list = list;
    this.#pending = pending;
    this.#empty = empty;
    this.#newer = newer;
    this.#templates = templates;
    this.#lang = lang;
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    newer.addEventListener("click", () => {
      this.toNewest();
      scroller.focus({ preventScroll: true });
    });
    // A phone's keyboard, a growing composer or a late font change the height without a scroll.
    const watch = new ResizeObserver(() => this.#settle());
    for (const element of [scroller, list, pending]) watch.observe(element);
  }

  // Begins anew for another room; `retry` and `discard` hear the nonce of a message that failed.
  reset({ retry, discard }) {
    this.#retry = retry;
    this.#discard = discard;
    this.#lines = [];
    this.#ids.clear();
    this.#gapComes = false;
    this.#list.replaceChildren();
    // The past is not read aloud.
    this.#list.ariaBusy = "true";
    this.showPending([]);
    this.toNewest();
  }

  has(id) {
    return this.#ids.has(id);
  }

  // Adds a message; says whether it is a new one.
  addMessage(frame, own) {
    if (this.#ids.has(frame.id)) {
      // What follows a message that we have joins on to it.
      this.#gapComes = false;
      return false;
    }
    this.#closeGap();
    this.#ids.add(frame.id);
    this.#add({ kind: "message", frame, own });
    if (!this.#sticks && !own) this.#unseen += 1;
    this.#showNewer();
    return true;
  }

  // Adds a line about somebody who came or went.
  addPresence(frame) {
    this.#add({ kind: frame.type, frame });
  }

  // The server could not go on where we left off. Whether something is missing shows with what comes next.
  expectGap() {
    this.#gapComes = this.#ids.size > 0;
  }

  // Nothing more of the past comes.
  caughtUp() {
    this.#closeGap();
    this.#list.ariaBusy = "false";
  }

  showPending(items) {
    this.#items = items;
    const gone = new Set(this.#pendingByNonce.keys());
    for (const item of items) {
      gone.delete(item.nonce);
      let element = this.#pendingByNonce.get(item.nonce);
      if (!element) {
        element = this.#pendingElement(item);
        this.#pendingByNonce.set(item.nonce, element);
      }
      this.#dressPending(element, item);
      this.#pending.append(element);
    }
    for (const nonce of gone) {
      this.#pendingByNonce.get(nonce).remove();
      this.#pendingByNonce.delete(nonce);
    }
    this.#showEmpty();
    this.#settle();
  }

  toNewest() {
    this.#sticks = true;
    this.#settle();
    this.#showNewer();
  }

  translate() {
    for (const line of this.#lines) this.#word(line);
    this.showPending(this.#items);
    this.#showNewer();
  }

  #add(line) {
    line.date = new Date(line.frame?.timestamp ?? Date.now());
    if (Number.isNaN(line.date.getTime())) line.date = new Date();
    const before = this.#lines.at(-1);
    if (before?.date.toDateString() !== line.date.toDateString()) {
      // "Today" has become "Yesterday".
      for (const day of this.#lines) if (day.kind === "day") this.#word(day);
      this.#append({ kind: "day", date: line.date });
    }
    this.#append(line);
    if (this.#lines.length > LINES_MAX) this.#trim();
    this.#showEmpty();
    this.#settle();
  }

  #append(line) {
    line.element = line.kind === "message" ? this.#messageElement(line) : this.#lineElement(line);
    this.#word(line);
    this.#lines.push(line);
    this.#list.append(line.element);
  }

  #messageElement({ frame, own, date }) {
    const element = clone(this.#templates.message);
    const before = this.#lines.at(-1);
    const follows =
      before?.kind === "message" && before.frame.user_id === frame.user_id && date - before.date < GROUP_MS;
    element.classList.add(own ? "own" : "other");
    element.classList.toggle("follows", follows);
    element.dataset.id = frame.id;
    dressFace(element.querySelector(".face"), frame.username);
    const who = element.querySelector(".who");
    who.textContent = frame.username;
    who.dataset.hue = hueOf(frame.username);
    element.querySelector(".said").textContent = frame.content;
    return element;
  }

  #lineElement({ kind }) {
    const element = clone(this.#templates.line);
    element.classList.add(kind);
    return element;
  }

  // Writes what depends on the language.
  #word({ kind, frame, date, element }) {
    if (kind === "message") {
      const time = element.querySelector("time");
      time.dateTime = date.toISOString();
      time.textContent = this.#lang.time(date);
      time.title = this.#lang.moment(date);
      return;
    }
    const words = element.querySelector("span");
    if (kind === "day") words.textContent = this.#lang.day(date);
    else words.textContent = this.#lang.t(`line.${kind}`, { name: frame?.username });
  }

  #pendingElement({ nonce, content }) {
    const element = clone(this.#templates.pending);
    element.querySelector(".said").textContent = content;
    element.querySelector(".retry").addEventListener("click", () => this.#retry(nonce));
    element.querySelector(".discard").addEventListener("click", () => this.#discard(nonce));
    return element;
  }

  #dressPending(element, { state, code, sentence }) {
    const failed = state === "failed";
    element.dataset.state = state;
    const key = `error.${code}`;
    const known = this.#lang.t(key);
    const reason = known === key ? sentence || this.#lang.t("error.unknown") : known;
    element.querySelector(".state").textContent = this.#lang.t(`outbox.${state}`, { reason });
    for (const name of ["retry", "discard"]) {
      const button = element.querySelector(`.${name}`);
      button.textContent = this.#lang.t(`outbox.${name}`);
      button.hidden = !failed;
    }
  }

  #closeGap() {
    if (!this.#gapComes) return;
    this.#gapComes = false;
    if (this.#lines.at(-1).kind !== "gap") this.#add({ kind: "gap" });
  }

  #trim() {
    for (const { frame, kind, element } of this.#lines.splice(0, LINES_TRIMMED)) {
      element.remove();
      if (kind === "message") this.#ids.delete(frame.id);
    }
    this.#lines[0].element.classList.remove("follows");
  }

  #showEmpty() {
    this.#empty.hidden = this.#lines.length > 0 || this.#pendingByNonce.size > 0;
  }

  #settle() {
    if (this.#sticks) this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }

  #scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    this.#sticks = scrollHeight - scrollTop - clientHeight < NEAR_PX;
    this.#showNewer();
  }

  #showNewer() {
    if (this.#sticks) this.#unseen = 0;
    this.#newer.hidden = this.#sticks;
    this.#newer.classList.toggle("fresh", this.#unseen > 0);
    this.#newer.textContent =
      this.#unseen > 0 ? this.#lang.plural("timeline.newer", this.#unseen) : this.#lang.t("timeline.newest");
  }
}

function clone(template) {
  return template.content.firstElementChild.cloneNode(true);
}
