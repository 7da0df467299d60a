// The messages of a room, oldest first, and below them those still on their way. Keeps to the newest while the
// reader is there, keeps what is read in its place while lines come or go around it, and never shows one frame twice.
//
// The page holds a part of the room's messages. It is attached while that part ends with the newest; detached (the
// reader went far back, or to a message that was found) what is said now waits in the tail.

import { reasonOf } from "../core/codes.js";
import { dressFace, hueOf } from "./people.js";
import { refusalText } from "../core/error-text.js";
import { Refused } from "../net/requests.js";

// Lines on the page. Past it those go that are farthest from the reader, or a day in a busy room would fill a phone.
const LINES_MAX = 2_000;
const LINES_TRIMMED = 200;
// Lines at the room's end that are kept while the reader is elsewhere.
const TAIL_MAX = 200;
// So near to the end counts as being there.
const NEAR_PX = 80;
// So near to an edge of what the page holds, more is wanted.
const EDGE_PX = 600;
// Deletions that are remembered, to say of each who did it and to keep a copy found elsewhere from being shown.
const DELETIONS_MAX = 5_000;
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
  #onEdge = () => {};
  #onMore;
  // Lines as shown: `{ kind, frame, own, date, element }`; the kind is "message", "join", "leave", "gap" or "day".
  #lines = [];
  // While detached: the room's last lines, without elements. Otherwise null.
  #tail = null;
  // The ids of the messages among them.
  #ids = new Set();
  // By the message's id: the frame that deleted it.
  #deletions = new Map();
  #pendingByNonce = new Map();
  #items = [];
  #pausedBy = null;
  #sticks = true;
  #unseen = 0;
  #gapComes = false;
  #found = null;

  // `onMore` hears of which message more is wanted, and by which button.
  constructor({ scroller, list, pending, empty, newer, templates, lang, onMore }) {
    this.#scroller = scroller;
    this.#list = list;
    this.#pending = pending;
    this.#empty = empty;
    this.#newer = newer;
    this.#templates = templates;
    this.#lang = lang;
    this.#onMore = onMore;
    list.addEventListener("click", ({ target }) => this.#wantMore(target.closest(".more")));
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    newer.addEventListener("click", () => {
      this.toNewest();
      scroller.focus({ preventScroll: true });
    });
    // A phone's keyboard, a growing composer or a late font change the height without a scroll.
    const watch = new ResizeObserver(() => {
      this.#settle();
      this.tellEdges();
    });
    for (const element of [scroller, list, pending]) watch.observe(element);
  }

  // Calls `hear` with "older" or "later" whenever the reader comes near an edge behind which there may be more.
  onEdge(hear) {
    this.#onEdge = hear;
  }

  // Begins anew for another room; `retry` and `discard` hear the nonce of a message that failed.
  reset({ retry, discard }) {
    this.#retry = retry;
    this.#discard = discard;
    this.#clear();
    this.#tail = null;
    this.#gapComes = false;
    this.#deletions.clear();
    // The past is not read aloud.
    this.#list.ariaBusy = "true";
    this.showPending([]);
    this.toNewest();
  }

  // Whether the newest message is, or would be, on the page.
  get attached() {
    return this.#tail === null;
  }

  // The frames of the first and of the last message on the page, if there are any.
  get first() {
    return this.#lines.find(isMessage)?.frame;
  }

  get last() {
    return this.#lines.findLast(isMessage)?.frame;
  }

  has(id) {
    return this.#ids.has(id);
  }

  // Adds a message that came live or in the replay; says whether it is a new one.
  addMessage(frame, own) {
    if (this.#ids.has(frame.id) || this.#tail?.some((line) => isMessage(line) && line.frame.id === frame.id)) {
      // What follows a message that we have joins on to it.
      this.#gapComes = false;
      return false;
    }
    this.#closeGap();
    this.#add({ kind: "message", frame, own });
    if (!this.#sticks && !own) this.#unseen += 1;
    this.#showNewer();
    return true;
  }

  // A message was deleted: its text goes, wherever it stands and whenever it comes again.
  delete(deletion) {
    const { message_id: id } = deletion;
    if (this.#deletions.has(id)) return;
    this.#deletions.set(id, deletion);
    if (this.#deletions.size > DELETIONS_MAX) this.#deletions.delete(this.#deletions.keys().next().value);
    for (const line of [...this.#lines, ...(this.#tail ?? [])]) {
      if (!isMessage(line) || line.frame.id !== id) continue;
      line.frame = erased(line.frame);
      if (line.element?.isConnected) this.#keepPlace(() => this.#erase(line));
    }
  }

  // Adds a line about somebody who came or went.
  addPresence(frame) {
    this.#add({ kind: frame.type, frame });
  }

  // Puts older messages, `{ frame, own }` each, above those on the page.
  prepend(messages) {
    this.#quietly(() => this.#insert(0, this.#unknown(messages)));
  }

  // The first message behind the newest gap on the page, if there is one.
  get afterGap() {
    return this.attached ? this.#lines.slice(this.#gapAt()).find(isMessage)?.frame : undefined;
  }

  // Puts messages between that gap and what stands behind it; the gap closes if one of them is known from before it.
  fillGap(messages) {
    this.#quietly(() => {
      const gap = this.#gapAt();
      const before = new Set(this.#lines.slice(0, gap).filter(isMessage).map(({ frame }) => frame.id));
      this.#insert(gap + 1, this.#unknown(messages));
      if (!messages.some(({ frame }) => before.has(frame.id))) return;
      this.#drop(this.#lines.splice(gap, 1));
      this.#mend(gap);
    });
  }

  // Puts later messages below those on the page, which is detached.
  append(messages) {
    this.#quietly(() => this.#insert(this.#lines.length, this.#unknown(messages)));
  }

  // Shows a stretch of the past instead of what is on the page.
  detach(messages) {
    this.#tail ??= this.#lines.filter(({ kind }) => kind !== "day").slice(-TAIL_MAX);
    this.#sticks = false;
    this.#quietly(() => {
      this.#clear();
      this.#insert(0, this.#unknown(messages));
    });
  }

  // The end of the room is reached: what waits in the tail follows on what is on the page.
  attach() {
    const known = this.#tail.findLastIndex((line) => isMessage(line) && this.#ids.has(line.frame.id));
    const rest = this.#tail.slice(known + 1);
    this.#tail = null;
    this.#quietly(() => this.#insert(this.#lines.length, rest));
    this.#scrolled();
  }

  // Goes to a message on the page, and marks it as the one that was looked for.
  show(id) {
    this.#unmark();
    this.#found = this.#lines.find((line) => isMessage(line) && line.frame.id === id).element;
    this.#found.classList.add("found");
    this.#found.tabIndex = -1;
    this.#sticks = false;
    this.#found.scrollIntoView({ block: "center" });
    this.#found.focus({ preventScroll: true });
  }

  // The server could not go on where we left off. Whether something is missing shows with what comes next.
  expectGap() {
    this.#gapComes = this.#ids.size > 0;
  }

  // Nothing more of the past comes by itself.
  caughtUp() {
    this.#closeGap();
    this.#list.ariaBusy = "false";
  }

  // `pausedBy` is the refusal after which the next one waits, if there is one.
  showPending(items, pausedBy = null) {
    this.#items = items;
    this.#pausedBy = pausedBy;
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
    this.#unmark();
    if (this.#tail) {
      const lines = this.#tail;
      this.#tail = null;
      this.#clear();
      this.#insert(0, lines);
    }
    this.#sticks = true;
    this.#settle();
    this.#showNewer();
  }

  translate() {
    for (const line of this.#lines) this.#word(line);
    this.showPending(this.#items, this.#pausedBy);
    this.#showNewer();
  }

  // Tells of each edge that the reader is near to.
  tellEdges() {
    if (this.#ids.size === 0) return;
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    if (scrollTop < EDGE_PX) this.#onEdge("older");
    if (this.#tail && scrollHeight - scrollTop - clientHeight < EDGE_PX) this.#onEdge("later");
  }

  #add(line) {
    if (this.#tail) {
      this.#tail.push(dated(line));
      if (this.#tail.length > TAIL_MAX) this.#tail.shift();
      return;
    }
    const newDay = !sameDay(this.#lines.at(-1), dated(line));
    this.#keepPlace(() => this.#insert(this.#lines.length, [line]));
    // "Today" has become "Yesterday".
    if (newDay) for (const day of this.#lines) if (day.kind === "day") this.#word(day);
  }

  // The lines for those messages that are not on the page.
  #unknown(messages) {
    return messages
      .filter(({ frame }) => !this.#ids.has(frame.id))
      .map(({ frame, own }) => ({ kind: "message", frame, own }));
  }

  // Puts lines between those on the page, before the one at an index, with the days that they need.
  #insert(index, lines) {
    const block = [];
    for (const line of lines) {
      const before = block.at(-1) ?? this.#lines[index - 1];
      if (!sameDay(before, dated(line))) block.push({ kind: "day", date: line.date });
      block.push(line);
    }
    const elements = document.createDocumentFragment();
    for (const [i, line] of block.entries()) {
      if (isMessage(line) && this.#deletions.has(line.frame.id)) line.frame = erased(line.frame);
      line.element = isMessage(line) ? this.#messageElement(line) : this.#lineElement(line);
      this.#word(line);
      this.#group(block[i - 1] ?? this.#lines[index - 1], line);
      if (isMessage(line)) this.#ids.add(line.frame.id);
      elements.append(line.element);
    }
    this.#list.insertBefore(elements, this.#lines[index]?.element ?? null);
    this.#lines.splice(index, 0, ...block);
    this.#mend(index + block.length);
    this.#showEmpty();
  }

  // Makes the line at an index fit to the one that is now before it.
  #mend(index) {
    const before = this.#lines[index - 1];
    const line = this.#lines[index];
    if (!line) return;
    if (line.kind !== "day") {
      if (!sameDay(before, line)) this.#insertDay(index, line.date);
      else this.#group(before, line);
    } else if (sameDay(before, line)) {
      line.element.remove();
      this.#lines.splice(index, 1);
      this.#mend(index);
    }
  }

  #insertDay(index, date) {
    const day = { kind: "day", date };
    day.element = this.#lineElement(day);
    this.#word(day);
    const line = this.#lines[index];
    line.element.before(day.element);
    this.#lines.splice(index, 0, day);
    this.#group(day, line);
  }

  // Consecutive messages of one person stand together.
  #group(before, line) {
    if (!isMessage(line)) return;
    const follows =
      before !== undefined &&
      isMessage(before) &&
      !isAnnouncement(before.frame) &&
      !isAnnouncement(line.frame) &&
      before.frame.user_id === line.frame.user_id &&
      line.date - before.date < GROUP_MS;
    line.element.classList.toggle("follows", follows);
  }

  #messageElement({ frame, own }) {
    const element = clone(this.#templates.message);
    element.classList.add(own ? "own" : "other");
    element.dataset.id = frame.id;
    dressFace(element.querySelector(".face"), frame.username);
    const who = element.querySelector(".who");
    who.textContent = frame.username;
    who.dataset.hue = hueOf(frame.username);
    element.querySelector(".said").textContent = frame.content;
    element.classList.toggle("deleted", isDeleted(frame));
    if (isAnnouncement(frame)) element.classList.add("announcement");
    else element.querySelector(".kind").remove();
    return element;
  }

  #erase(line) {
    const { element } = line;
    // Who stood on its button goes on from the message.
    const stood = element.contains(document.activeElement);
    element.classList.add("deleted");
    this.#word(line);
    if (!stood) return;
    element.tabIndex = -1;
    element.focus({ preventScroll: true });
  }

  #wantMore(anchor) {
    const line = anchor && this.#lines.find(({ element }) => element.contains(anchor));
    if (line) this.#onMore({ frame: line.frame, own: line.own, anchor });
  }

  // "Deleted", and by whom if not by its author.
  #deletedWords({ id, user_id: author }) {
    const by = this.#deletions.get(id);
    if (!by || by.user_id === author) return this.#lang.t("message.deleted");
    return this.#lang.t("message.deleted_by", { name: by.username });
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
      const more = this.#lang.t("message.more", { name: frame.username });
      element.querySelector(".more").setAttribute("aria-label", more);
      if (isDeleted(frame)) element.querySelector(".said").textContent = this.#deletedWords(frame);
      if (isAnnouncement(frame)) element.querySelector(".kind").textContent = this.#lang.t("message.announcement");
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

  #dressPending(element, item) {
    const { state } = item;
    const failed = state === "failed";
    element.dataset.state = state;
    element.querySelector(".state").textContent = this.#pendingWords(item);
    for (const way of ["retry", "discard"]) {
      const button = element.querySelector(`.${way}`);
      button.textContent = this.#lang.t(`outbox.${way}`);
      button.hidden = !failed;
    }
  }

  #pendingWords({ state, name, ...refusal }) {
    if (state === "failed") {
      const reason = refusalText(new Refused(refusal), this.#lang, { name });
      // What may have arrived is not said to be unsent.
      return reasonOf(refusal) === "unsure" ? reason : this.#lang.t("outbox.failed", { reason });
    }
    if (state !== "queued" || this.#pausedBy === null) return this.#lang.t(`outbox.${state}`);
    // A limit on how often is met every day; trouble of the server's is named.
    if (this.#pausedBy.code === "rate_limited") return this.#lang.t("outbox.waits");
    return this.#lang.t("outbox.retries", { reason: refusalText(this.#pausedBy, this.#lang) });
  }

  // Where the newest gap stands; behind all lines if there is none.
  #gapAt() {
    const at = this.#lines.findLastIndex(({ kind }) => kind === "gap");
    return at < 0 ? this.#lines.length : at;
  }

  #closeGap() {
    if (!this.#gapComes) return;
    this.#gapComes = false;
    if ((this.#tail ?? this.#lines).at(-1)?.kind !== "gap") this.#add({ kind: "gap" });
  }

  // Where there are too many lines, those at the end that is farther from the reader go. If it is the newest, the
  // page is detached.
  #trim() {
    if (this.#lines.length <= LINES_MAX) return;
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    if (this.#sticks || scrollTop > scrollHeight - scrollTop - clientHeight) {
      this.#drop(this.#lines.splice(0, LINES_TRIMMED));
      this.#mend(0);
    } else {
      this.#tail ??= this.#lines.filter(({ kind }) => kind !== "day").slice(-TAIL_MAX);
      this.#drop(this.#lines.splice(-LINES_TRIMMED));
    }
  }

  #drop(lines) {
    for (const { kind, frame, element } of lines) {
      element.remove();
      if (kind === "message") this.#ids.delete(frame.id);
    }
  }

  #clear() {
    this.#unmark();
    this.#drop(this.#lines.splice(0));
  }

  #unmark() {
    this.#found?.classList.remove("found");
    this.#found = null;
  }

  // Changes lines without having them read aloud, since they are of the past.
  #quietly(change) {
    this.#list.ariaBusy = "true";
    this.#keepPlace(change);
    requestAnimationFrame(() => (this.#list.ariaBusy = "false"));
  }

  // Changes lines without moving what is read.
  #keepPlace(change) {
    const { top } = this.#scroller.getBoundingClientRect();
    const placeOf = ({ element }) => element.getBoundingClientRect();
    const anchor = this.#sticks ? undefined : this.#lines.find((line) => isMessage(line) && placeOf(line).bottom > top);
    const place = anchor && placeOf(anchor).top;
    change();
    this.#trim();
    if (anchor?.element.isConnected) this.#scroller.scrollTop += placeOf(anchor).top - place;
    this.#settle();
    this.#showNewer();
  }

  #showEmpty() {
    this.#empty.hidden = this.#lines.length > 0 || this.#pendingByNonce.size > 0;
  }

  #settle() {
    if (this.#sticks) this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }

  #scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    this.#sticks = this.attached && scrollHeight - scrollTop - clientHeight < NEAR_PX;
    this.#showNewer();
    this.tellEdges();
  }

  #showNewer() {
    if (this.#sticks) this.#unseen = 0;
    this.#newer.hidden = this.#sticks;
    this.#newer.classList.toggle("fresh", this.#unseen > 0);
    this.#newer.textContent =
      this.#unseen > 0 ? this.#lang.plural("timeline.newer", this.#unseen) : this.#lang.t("timeline.newest");
  }
}

function isMessage({ kind }) {
  return kind === "message";
}

function isAnnouncement({ type }) {
  return type === "announcement";
}

function isDeleted({ deleted_at: at }) {
  return at !== undefined && at !== null;
}

// A message as it is once it was deleted.
function erased(frame) {
  return { ...frame, content: "", deleted_at: frame.deleted_at ?? new Date().toISOString() };
}

// A line with the time that it stands at.
function dated(line) {
  if (line.date) return line;
  line.date = new Date(line.frame?.timestamp ?? Date.now());
  if (Number.isNaN(line.date.getTime())) line.date = new Date();
  return line;
}

function sameDay(a, b) {
  return a?.date.toDateString() === b.date.toDateString();
}

function clone(template) {
  return template.content.firstElementChild.cloneNode(true);
}
