// The view of a room's timeline. It renders the model, follows the newest message while the reader is at the end, and
// otherwise keeps the lines that are being read in place while others come and go.

import { TimelineModel, isMessage } from "../core/timeline-model.js";
import { copyMessagesAsText } from "./copied-text.js";
import { LineElements } from "./line-elements.js";
import { PendingList } from "./pending-list.js";

// The distance from the end within which the reader counts as being there.
const END_DISTANCE_PX = 80;
// The distance from an edge of the lines within which the next page is needed.
const EDGE_DISTANCE_PX = 600;

export class Timeline {
  #scroller;
  #list;
  #empty;
  #newer;
  #lang;
  #onMore;
  #onEdge = () => {};
  #onRetry = () => {};
  #onDiscard = () => {};
  #model = new TimelineModel();
  #lineElements;
  #pendingList;
  // The element of each line that is shown.
  #elements = new Map();
  #pausedBy = null;
  #shownPending = null;
  // Whether the view follows the newest message.
  #follows = true;
  // The heights of the scroller and of its content when the view last scrolled to the end.
  #followedHeights = "";
  // Messages of others that came while the reader was elsewhere.
  #unseen = 0;
  // The element of the message that was searched for.
  #found = null;
  // Whether a timeline without lines means a room without messages.
  #canBeEmpty = false;

  // `onMore` is called with the message whose menu button was pressed: `{ frame, own, anchor }`.
  constructor({ scroller, list, pending, empty, newer, templates, lang, onMore }) {
    this.#scroller = scroller;
    this.#list = list;
    this.#empty = empty;
    this.#newer = newer;
    this.#lang = lang;
    this.#onMore = onMore;
    this.#lineElements = new LineElements({ templates, lang, deletionOf: (id) => this.#model.deletionOf(id) });
    this.#pendingList = new PendingList({
      list: pending,
      template: templates.pending,
      lang,
      onRetry: (nonce) => this.#onRetry(nonce),
      onDiscard: (nonce) => this.#onDiscard(nonce),
    });
    copyMessagesAsText(list);
    list.addEventListener("click", ({ target }) => this.#openMenu(target.closest(".more")));
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    newer.addEventListener("click", () => {
      this.toNewest();
      scroller.focus({ preventScroll: true });
    });
    // A keyboard on the screen, a growing composer and a late font change the height without a scroll event.
    const observer = new ResizeObserver(() => {
      this.#scrollToEnd();
      this.checkEdges();
    });
    for (const element of [scroller, list, pending]) observer.observe(element);
  }

  // Calls `listener` with "older" or "later" whenever the reader comes near that edge of the lines.
  onEdge(listener) {
    this.#onEdge = listener;
  }

  get attached() {
    return this.#model.isAttached;
  }

  // While the room's messages are not known, its timeline does not show that it has none.
  set canBeEmpty(canBeEmpty) {
    this.#canBeEmpty = canBeEmpty;
    this.#showEmptiness();
  }

  get first() {
    return this.#model.first;
  }

  get last() {
    return this.#model.last;
  }

  get afterGap() {
    return this.#model.afterGap;
  }

  has(id) {
    return this.#model.has(id);
  }

  // Enters another room. `onRetry` and `onDiscard` are called with the nonce of a failed message.
  reset({ onRetry, onDiscard }) {
    this.#onRetry = onRetry;
    this.#onDiscard = onDiscard;
    this.#unmark();
    this.#model.reset();
    // Screen readers must not read the replayed messages aloud.
    this.#list.ariaBusy = "true";
    this.#render();
    this.showPending([]);
    this.toNewest();
  }

  // Adds a live or replayed message. Returns whether it is new.
  addMessage(frame, own) {
    let isNew;
    this.#keepPlace(() => (isNew = this.#model.addMessage(frame, own)));
    if (isNew && !this.#follows && !own) this.#unseen += 1;
    this.#showNewer();
    return isNew;
  }

  addPresence(frame) {
    this.#keepPlace(() => this.#model.addPresence(frame));
  }

  delete(deletion) {
    this.#keepPlace(() => this.#model.delete(deletion));
  }

  prepend(messages) {
    this.#changeSilently(() => this.#model.prepend(messages));
  }

  append(messages) {
    this.#changeSilently(() => this.#model.append(messages));
  }

  fillGap(messages) {
    this.#changeSilently(() => this.#model.fillGap(messages));
  }

  detach(messages) {
    this.#follows = false;
    this.#unmark();
    this.#changeSilently(() => this.#model.detach(messages));
  }

  attach() {
    this.#changeSilently(() => this.#model.attach());
    this.#scrolled();
  }

  expectGap() {
    this.#model.expectGap();
  }

  replayEnded() {
    this.#keepPlace(() => this.#model.closeGap());
    this.#list.ariaBusy = "false";
  }

  // Shows the unsent messages. `pausedBy` is the rejection after which the outbox waits, or null.
  showPending(items, pausedBy = null) {
    this.#model.setPending(items);
    this.#pausedBy = pausedBy;
    this.#renderPending();
    this.#scrollToEnd();
  }

  // Scrolls to a message of the lines, and marks it as the one that was searched for.
  show(id) {
    this.#unmark();
    this.#found = this.#elements.get(this.#model.lineOf(id));
    this.#found.classList.add("found");
    this.#found.tabIndex = -1;
    this.#follows = false;
    this.#found.scrollIntoView({ block: "center" });
    this.#found.focus({ preventScroll: true });
  }

  toNewest() {
    this.#unmark();
    this.#model.toNewest();
    this.#render();
    this.#follows = true;
    this.#scrollToEnd();
    this.#showNewer();
  }

  translate() {
    for (const [line, element] of this.#elements) this.#lineElements.update(line, element);
    this.#renderPending();
    this.#showNewer();
  }

  showDays() {
    for (const [line, element] of this.#elements) if (line.kind === "day") this.#lineElements.update(line, element);
  }

  // Reports each edge of the lines that the reader is near to.
  checkEdges() {
    if (!this.#model.hasMessages) return;
    const { scrollTop } = this.#scroller;
    if (scrollTop < EDGE_DISTANCE_PX) this.#onEdge("older");
    if (!this.attached && this.#distanceToEnd < EDGE_DISTANCE_PX) this.#onEdge("later");
  }

  get #distanceToEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    return scrollHeight - scrollTop - clientHeight;
  }

  // Brings the elements to the state of the model.
  #render() {
    const { added, removed, changed } = this.#model.takeChanges();
    for (const line of removed) {
      this.#elements.get(line)?.remove();
      this.#elements.delete(line);
    }
    if (added.size > 0) this.#insert(added);
    for (const line of changed) if (this.#elements.has(line)) this.#update(line);
    if (this.#model.pending !== this.#shownPending) this.#renderPending();
    this.#showEmptiness();
  }

  // Inserts the elements of new lines, each run of neighbours at once. Most lines are added at the end, so the search
  // begins there.
  #insert(added) {
    const { lines } = this.#model;
    let next = null;
    let missing = added.size;
    for (let end = lines.length; missing > 0; ) {
      let begin = end;
      while (begin > 0 && added.has(lines[begin - 1])) begin -= 1;
      if (begin < end) {
        const run = document.createDocumentFragment();
        for (const line of lines.slice(begin, end)) {
          this.#elements.set(line, this.#lineElements.create(line));
          run.append(this.#elements.get(line));
        }
        missing -= end - begin;
        const first = run.firstElementChild;
        this.#list.insertBefore(run, next);
        next = first;
        end = begin;
      } else {
        next = this.#elements.get(lines[end - 1]);
        end -= 1;
      }
    }
  }

  #update(line) {
    const element = this.#elements.get(line);
    const hadFocus = element.contains(document.activeElement);
    this.#lineElements.update(line, element);
    // The menu button of a deleted message is hidden. The message takes its focus.
    if (!hadFocus || !element.classList.contains("deleted")) return;
    element.tabIndex = -1;
    element.focus({ preventScroll: true });
  }

  #renderPending() {
    this.#shownPending = this.#model.pending;
    this.#pendingList.show(this.#model.pending, this.#pausedBy);
    this.#showEmptiness();
  }

  #showEmptiness() {
    this.#empty.hidden = !this.#canBeEmpty || !this.#model.isEmpty;
  }

  // Changes the lines without an announcement by screen readers, since the lines are old.
  #changeSilently(change) {
    this.#list.ariaBusy = "true";
    this.#keepPlace(change);
    requestAnimationFrame(() => (this.#list.ariaBusy = "false"));
  }

  // Changes the lines, and keeps those that are being read in place.
  #keepPlace(change) {
    const anchor = this.#follows ? undefined : this.#firstVisibleMessage();
    const top = anchor?.getBoundingClientRect().top;
    change();
    this.#render();
    this.#trim();
    if (anchor?.isConnected) this.#scroller.scrollTop += anchor.getBoundingClientRect().top - top;
    this.#scrollToEnd();
    this.#showNewer();
  }

  #firstVisibleMessage() {
    const { top } = this.#scroller.getBoundingClientRect();
    const elements = this.#model.lines.filter(isMessage).map((line) => this.#elements.get(line));
    return elements.find((element) => element.getBoundingClientRect().bottom > top);
  }

  // Removes lines at the end that is farther from the reader, if there are too many.
  #trim() {
    if (!this.#model.isOverfull) return;
    if (this.#follows || this.#scroller.scrollTop > this.#distanceToEnd) this.#model.trimOldest();
    else this.#model.trimNewest();
    this.#render();
  }

  #openMenu(anchor) {
    if (!anchor) return;
    const { frame, own } = this.#model.lineOf(anchor.closest("[data-id]").dataset.id);
    this.#onMore({ frame, own, anchor });
  }

  #unmark() {
    this.#found?.classList.remove("found");
    this.#found = null;
  }

  #scrollToEnd() {
    if (!this.#follows) return;
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#followedHeights = this.#heights;
  }

  get #heights() {
    const { scrollHeight, clientHeight } = this.#scroller;
    return `${scrollHeight} ${clientHeight}`;
  }

  // After a change of the heights it was the browser that scrolled, not the reader.
  #scrolled() {
    if (this.#follows && this.#heights !== this.#followedHeights) this.#scrollToEnd();
    else this.#follows = this.attached && this.#distanceToEnd < END_DISTANCE_PX;
    this.#showNewer();
    this.checkEdges();
  }

  #showNewer() {
    if (this.#follows) this.#unseen = 0;
    this.#newer.hidden = this.#follows;
    this.#newer.classList.toggle("unread", this.#unseen > 0);
    this.#newer.textContent =
      this.#unseen > 0 ? this.#lang.plural("timeline.newer", this.#unseen) : this.#lang.t("timeline.newest");
  }
}
