// Brings what is not on the page: older messages as the reader comes near the first one, later ones again after a
// long way back, the surroundings of a message that was found, and what is missing after the server began anew. Says so
// at each edge, and how it went.

import { isMessage, readHistory } from "../net/history.js";

const PAGE = 50;
// Many at once, since nobody has scrolled there to wait for them.
const GAP_PAGE = 200;
// On each side of a message that is gone to.
const SURROUNDINGS = 30;

export class Past {
  #timeline;
  #lang;
  #room = null;
  #isOwn = () => false;
  // By direction: the elements at that edge, and whether it is "idle", "loading", "failed" or (older) an end.
  #edges;
  // Where older messages go on, by the id of the first one that was on the page then; no id to go on from means that
  // it is the first of the room.
  #reached = null;
  // Not before the room's latest messages are on the page.
  #ready = false;
  // The id of a stored frame that was seen: where to look for messages if none is on the page.
  #seen;
  #ended = new AbortController();

  // `older` and `later` are the elements for what is to be said above and below the messages.
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
    timeline.onEdge((direction) => this.#ready && this.#near(direction));
    this.translate();
  }

  // Turns to a room; `isOwn` is asked of each frame that is brought, and knows one of ours.
  open(room, isOwn) {
    this.close();
    this.#room = room;
    this.#isOwn = isOwn;
    this.#reached = null;
    this.#seen = undefined;
    for (const direction of this.#edges.keys()) this.#tell(direction, "idle");
  }

  close() {
    this.#ready = false;
    this.#stop();
  }

  // The room is reached (again), and its latest messages are on the page. What failed is tried once more. `seen` is the
  // id of the last stored frame: the latest may all be of another kind than messages.
  caughtUp(seen) {
    this.#ready = true;
    this.#seen = seen;
    if (seen !== undefined && !this.#timeline.first && this.#edges.get("older").state === "idle") this.#load("older");
    this.#timeline.tellEdges();
    for (const [direction, { state }] of this.#edges) if (state === "failed") this.#load(direction);
    this.#fillGap(this.#ended.signal);
  }

  // Brings a message of this room onto the page, wherever it is. Rejects if its surroundings can't be had, and then
  // changes nothing; says whether it is there before something else was wanted.
  async bring(frame) {
    if (!this.#timeline.has(frame.id)) {
      this.#stop();
      const { signal } = this.#ended;
      const around = [{ before: frame.id }, { after: frame.id }].map((where) =>
        readHistory(this.#room, { ...where, limit: SURROUNDINGS }, signal),
      );
      const [before, after] = await Promise.all(around).catch((error) => {
        if (signal.aborted) return [];
        throw error;
      });
      if (signal.aborted) return false;
      this.#timeline.detach(this.#shown([...before.data, frame, ...after.data]));
      this.#reached = { first: this.#timeline.first.id, next: before.next };
      if (after.next === undefined) this.#timeline.attach();
      this.#tell("older", before.next === undefined ? this.#end() : "idle");
      this.#tell("later", "idle");
    }
    return true;
  }

  translate() {
    for (const [direction, { state }] of this.#edges) this.#tell(direction, state);
  }

  #near(direction) {
    const { state } = this.#edges.get(direction);
    if (state === "loading" || state === "failed") return;
    if (direction === "older" && this.#olderThan() === undefined) this.#tell("older", this.#end());
    else this.#load(direction);
  }

  // The id that older messages are to be asked for with, if there are any.
  #olderThan() {
    const { first } = this.#timeline;
    if (this.#reached && this.#reached.first === first?.id) return this.#reached.next;
    if (!first) return this.#seen;
    return first.seq === 1 ? undefined : first.id;
  }

  // What is said where there is nothing older. Only the first place in the room's order is surely its beginning: before
  // a later one there were perhaps messages that are not kept, perhaps events that a history omits.
  #end() {
    return this.#timeline.first?.seq === 1 ? "beginning" : "oldest";
  }

  async #load(direction) {
    this.#tell(direction, "loading");
    const { signal } = this.#ended;
    try {
      await (direction === "older" ? this.#loadOlder(signal) : this.#loadLater(signal));
    } catch {
      if (!signal.aborted) this.#tell(direction, "failed");
    }
  }

  async #loadOlder(signal) {
    let next = this.#olderThan();
    // A page may hold nothing that is shown.
    for (let found = false; next !== undefined && !found; ) {
      const page = await readHistory(this.#room, { before: next, limit: PAGE }, signal);
      if (signal.aborted) return;
      const shown = this.#shown(page.data);
      ({ next } = page);
      found = shown.length > 0;
      this.#timeline.prepend(shown);
      this.#reached = { first: this.#timeline.first?.id, next };
    }
    this.#tell("older", next === undefined ? this.#end() : "idle");
  }

  async #loadLater(signal) {
    let next = this.#timeline.last.id;
    for (let found = false; next !== undefined && !found && !this.#timeline.attached; ) {
      const page = await readHistory(this.#room, { after: next, limit: PAGE }, signal);
      if (signal.aborted) return;
      const shown = this.#shown(page.data);
      ({ next } = page);
      found = shown.length > 0;
      if (this.#timeline.attached) break;
      this.#timeline.append(shown);
      if (next === undefined) this.#timeline.attach();
    }
    this.#tell("later", "idle");
  }

  // Where the server could not go on from what is on the page, it began with its latest messages. What it still keeps
  // of those between comes here. It ends with them, or when the page has no more room for what was before the gap.
  async #fillGap(signal) {
    let next = this.#timeline.afterGap?.id;
    while (next !== undefined && this.#timeline.afterGap) {
      // If that fails, the gap says that something is missing, and the next time that the room is reached will do.
      const page = await readHistory(this.#room, { before: next, limit: GAP_PAGE }, signal).catch(() => ({ data: [] }));
      if (signal.aborted || !this.#timeline.afterGap) return;
      this.#timeline.fillGap(this.#shown(page.data));
      ({ next } = page);
    }
  }

  #shown(frames) {
    for (const frame of frames) if (frame.type === "delete") this.#timeline.delete(frame);
    return frames.filter(isMessage).map((frame) => ({ frame, own: this.#isOwn(frame) }));
  }

  #stop() {
    this.#ended.abort();
    this.#ended = new AbortController();
    for (const [direction, { state }] of this.#edges) if (state === "loading") this.#tell(direction, "idle");
  }

  #tell(direction, state) {
    const edge = this.#edges.get(direction);
    edge.state = state;
    edge.element.dataset.state = state;
    const words = edge.element.querySelector("span");
    words.textContent = state === "idle" ? "" : this.#lang.t(`past.${state}`);
    edge.element.querySelector("button").hidden = state !== "failed";
  }
}
