// Loads messages that the timeline does not have: older ones near its first message, newer ones after a long way back,
// those around a search result, and those in a gap. Shows the progress at the two edges of the timeline.

import { isMessageFrame, readHistory } from "../net/history.js";
import { setText } from "../ui/elements.js";

const PAGE = 50;
// Larger, because the reader does not wait for these pages.
const GAP_PAGE = 200;
// The messages that are loaded before and after a search result.
const CONTEXT = 30;

export class HistoryLoader {
  #timeline;
  #lang;
  #room = null;
  #isOwn = () => false;
  // By direction: the element at that edge and its state, which is "idle", "loading", "failed" or, for older messages,
  // an end: "beginning" or "oldest".
  #edges;
  // The result of the last page of older messages: the id of the timeline's first message at that time, and the id from
  // which the next page goes on, if there is one.
  #older = null;
  // Whether the room's latest messages are in the timeline.
  #isReady = false;
  // Whether the room has stored frames, and the id of the last one that was seen. If the timeline has no message, older
  // ones are loaded from there.
  #hasFrames = false;
  #lastSeen;
  #ended = new AbortController();

  // `older` and `later` are the elements above and below the messages.
  constructor({ timeline, older, later, lang }) {
    this.#timeline = timeline;
    this.#lang = lang;
    this.#edges = new Map([
      ["older", { element: older, state: "idle" }],
      ["later", { element: later, state: "idle" }],
    ]);
    for (const [direction, { element }] of this.#edges) {
      element.querySelector("button").addEventListener("click", () => this.#load(direction));
    }
    timeline.onEdge((direction) => this.#isReady && this.#edgeReached(direction));
    this.translate();
  }

  // Enters a room. `isOwn` returns whether a stored frame is the user's own.
  open(room, isOwn) {
    this.close();
    this.#room = room;
    this.#isOwn = isOwn;
    this.#older = null;
    this.#hasFrames = false;
    this.#lastSeen = undefined;
    for (const direction of this.#edges.keys()) this.#setState(direction, "idle");
  }

  close() {
    this.#setReady(false);
    this.#stop();
  }

  // The replay has ended: `lastId` is the id of the last stored frame that came, and `hasFrames` tells whether the room
  // has any. The latest frames may all be other than messages, or a slow network has not brought them yet.
  replayEnded({ lastId, hasFrames }) {
    this.#lastSeen = lastId;
    this.#hasFrames = hasFrames;
    const mayHaveMessages = !this.#timeline.first && this.#olderPage() !== null;
    if (mayHaveMessages && this.#edges.get("older").state === "idle") this.#load("older");
    this.#setReady(true);
    this.#timeline.checkEdges();
    for (const [direction, { state }] of this.#edges) if (state === "failed") this.#load(direction);
    this.#fillGap(this.#ended.signal);
  }

  // Brings a message of this room into the timeline, with the messages around it. Throws, and changes nothing, if they
  // can't be loaded or are not kept any more. Returns whether the message is there; another request may have come in between.
  async bring(frame) {
    if (this.#timeline.has(frame.id)) return true;
    this.#stop();
    const { signal } = this.#ended;
    const pages = [{ before: frame.id }, { after: frame.id }].map((where) =>
      readHistory(this.#room, { ...where, limit: CONTEXT }, signal),
    );
    const [before, after] = await Promise.all(pages).catch((error) => {
      if (signal.aborted) return [];
      throw error;
    });
    if (signal.aborted) return false;
    if (before.reset || after.reset) throw new Error("the message is not kept any more");
    this.#timeline.detach(this.#messagesOf([...before.data, frame, ...after.data]));
    this.#older = { first: this.#timeline.first.id, next: before.next };
    if (after.next === undefined) this.#timeline.attach();
    this.#setState("older", before.next === undefined ? this.#endState() : "idle");
    this.#setState("later", "idle");
    return true;
  }

  translate() {
    for (const [direction, { state }] of this.#edges) this.#setState(direction, state);
  }

  #edgeReached(direction) {
    const { state } = this.#edges.get(direction);
    if (state === "loading" || state === "failed") return;
    if (direction === "older" && this.#olderPage() === null) this.#setState("older", this.#endState());
    else this.#load(direction);
  }

  // The next page of older messages as `{ before }`, without an id for the latest ones; null if there is none.
  #olderPage() {
    const { first } = this.#timeline;
    if (this.#older && this.#older.first === first?.id) return pageBefore(this.#older.next);
    if (!first) return this.#hasFrames ? { before: this.#lastSeen } : null;
    return first.seq === 1 ? null : { before: first.id };
  }

  // The state where nothing is older. Only `seq` 1 is certainly the room's beginning. Before any other message there
  // may have been messages that are not kept, or events that the history omits.
  #endState() {
    return this.#timeline.first?.seq === 1 ? "beginning" : "oldest";
  }

  async #load(direction) {
    this.#setState(direction, "loading");
    const { signal } = this.#ended;
    try {
      await (direction === "older" ? this.#loadOlder(signal) : this.#loadLater(signal));
    } catch {
      if (!signal.aborted) this.#setState(direction, "failed");
    }
  }

  async #loadOlder(signal) {
    let where = this.#olderPage();
    // A page may have no messages.
    for (let isFound = false; where !== null && !isFound; ) {
      const { data, next } = await readHistory(this.#room, { ...where, limit: PAGE }, signal);
      if (signal.aborted) return;
      const messages = this.#messagesOf(data);
      isFound = messages.length > 0;
      this.#timeline.prepend(messages);
      this.#older = { first: this.#timeline.first?.id, next };
      where = pageBefore(next);
    }
    this.#setState("older", where === null ? this.#endState() : "idle");
  }

  async #loadLater(signal) {
    let next = this.#timeline.last.id;
    for (let isFound = false; next !== undefined && !isFound && !this.#timeline.attached; ) {
      const page = await readHistory(this.#room, { after: next, limit: PAGE }, signal);
      if (signal.aborted) return;
      const messages = this.#messagesOf(page.data);
      ({ next } = page);
      isFound = messages.length > 0;
      if (this.#timeline.attached) break;
      // If the shown messages are not kept any more, the timeline goes on with those that are.
      if (page.reset) {
        this.#timeline.detach(messages);
        this.#older = { first: this.#timeline.first?.id, next: undefined };
        this.#setState("older", this.#endState());
      } else {
        this.#timeline.append(messages);
      }
      if (next === undefined) this.#timeline.attach();
    }
    this.#setState("later", "idle");
  }

  // Loads the messages of a gap that the server still has, until they meet the lines before the gap, or the timeline
  // has dropped those lines.
  async #fillGap(signal) {
    let next = this.#timeline.afterGap?.id;
    while (next !== undefined && this.#timeline.afterGap) {
      // After a failure the gap stays. The next replay tries again.
      const page = await readHistory(this.#room, { before: next, limit: GAP_PAGE }, signal).catch(() => ({ data: [] }));
      if (signal.aborted || !this.#timeline.afterGap) return;
      this.#timeline.fillGap(this.#messagesOf(page.data));
      ({ next } = page);
    }
  }

  // The messages among stored frames, for the timeline. Deletions are applied.
  #messagesOf(frames) {
    for (const frame of frames) if (frame.type === "delete") this.#timeline.delete(frame);
    return frames.filter(isMessageFrame).map((frame) => ({ frame, own: this.#isOwn(frame) }));
  }

  #stop() {
    this.#ended.abort();
    this.#ended = new AbortController();
    for (const [direction, { state }] of this.#edges) if (state === "loading") this.#setState(direction, "idle");
  }

  #setReady(isReady) {
    this.#isReady = isReady;
    this.#showEmptiness();
  }

  // The room counts as empty only after the server has said so.
  #showEmptiness() {
    const { state } = this.#edges.get("older");
    this.#timeline.canBeEmpty = this.#isReady && state !== "loading" && state !== "failed";
  }

  #setState(direction, state) {
    const edge = this.#edges.get(direction);
    edge.state = state;
    edge.element.dataset.state = state;
    setText(edge.element.querySelector("span"), state === "idle" ? "" : this.#lang.t(`history.${state}`));
    edge.element.querySelector("button").hidden = state !== "failed";
    this.#showEmptiness();
  }
}

function pageBefore(id) {
  return id === undefined ? null : { before: id };
}
