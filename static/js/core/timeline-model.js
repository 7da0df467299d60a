// The timeline of a room: which messages and other lines it has, and in which order. Pure.
//
// The timeline holds a part of the room's messages. It is attached while that part ends with the room's newest message.
// It is detached while it shows an older part; new messages are then kept in the tail. No message is in it twice.
//
// A line is `{ kind, frame, own, run, date, follows }`. The kind is "message", "join", "leave", "rename", "gap" (messages
// may be missing here) or "day" (the day of the lines below it begins). `follows` means that the message is shown in one group
// with the message above it.

// The lines that are kept. Above that number, those farthest from the reader are removed, so that a busy room does not
// fill the memory of a phone.
export const LINES_MAX = 2_000;
export const LINES_TRIMMED = 200;
// The lines of the tail.
export const TAIL_MAX = 200;
// The deletions that are kept, for the name of the deleting user and for copies of the message that come later.
const DELETIONS_MAX = 5_000;
// Successive messages of one user within this time form a group.
const GROUP_MS = 5 * 60 * 1000;

export class TimelineModel {
  #lines = [];
  // The newest lines while detached, else null.
  #tail = null;
  // The ids of the messages in `#lines`.
  #ids = new Set();
  // The `delete` frames, by the id of the deleted message.
  #deletions = new Map();
  #gapExpected = false;
  // Counts the replays that did not resume. A server that has lost messages begins its order anew, so `seq`s are
  // compared within one run only.
  #run = 0;
  #pending = [];
  #changes = noChanges();

  get lines() {
    return this.#lines;
  }

  // Unsent messages, in the order in which they were written.
  get pending() {
    return this.#pending;
  }

  get isEmpty() {
    return this.#lines.length === 0 && this.#pending.length === 0;
  }

  get hasMessages() {
    return this.#ids.size > 0;
  }

  get isAttached() {
    return this.#tail === null;
  }

  get isOverfull() {
    return this.#lines.length > LINES_MAX;
  }

  // The frames of the first and the last message, if any.
  get first() {
    return this.#lines.find(isMessage)?.frame;
  }

  get last() {
    return this.#lines.findLast(isMessage)?.frame;
  }

  // The frame of the first message after the newest gap, if there is a gap.
  get afterGap() {
    return this.isAttached ? this.#lines.slice(this.#newestGap()).find(isMessage)?.frame : undefined;
  }

  has(id) {
    return this.#ids.has(id);
  }

  lineOf(id) {
    return this.#lines.find((line) => isMessage(line) && line.frame.id === id);
  }

  deletionOf(id) {
    return this.#deletions.get(id);
  }

  // The changes since the last call: the lines that were added, removed and changed in place.
  takeChanges() {
    const changes = this.#changes;
    this.#changes = noChanges();
    return changes;
  }

  reset() {
    this.#clear();
    this.#tail = null;
    this.#gapExpected = false;
    this.#deletions.clear();
    this.#pending = [];
  }

  setPending(items) {
    this.#pending = items;
  }

  // Adds a live or replayed message. Returns whether it is new.
  addMessage(frame, own) {
    if (own && frame.nonce) this.#confirm(frame.nonce);
    if (this.#ids.has(frame.id) || this.#tail?.some((line) => isMessage(line) && line.frame.id === frame.id)) {
      // The messages that follow a known message leave no gap.
      this.#gapExpected = false;
      return false;
    }
    this.closeGap();
    this.#add({ kind: "message", frame, own, run: this.#run });
    return true;
  }

  // Adds a line for a `join`, `leave` or `rename` frame.
  addPresence(frame) {
    this.#add({ kind: frame.type, frame });
  }

  // Erases a message, wherever it is and whenever a copy of it comes.
  delete(deletion) {
    const { message_id: id } = deletion;
    if (this.#deletions.has(id)) return;
    this.#deletions.set(id, deletion);
    if (this.#deletions.size > DELETIONS_MAX) this.#deletions.delete(this.#deletions.keys().next().value);
    for (const line of [...this.#lines, ...(this.#tail ?? [])]) {
      if (!isMessage(line) || line.frame.id !== id) continue;
      line.frame = erased(line.frame);
      this.#changed(line);
    }
  }

  // The next message may not follow on the last one, because the server could not resume.
  expectGap() {
    this.#run += 1;
    this.#gapExpected = this.#ids.size > 0;
  }

  // Adds the expected gap, if it has not been disproved.
  closeGap() {
    if (!this.#gapExpected) return;
    this.#gapExpected = false;
    if ((this.#tail ?? this.#lines).at(-1)?.kind !== "gap") this.#add({ kind: "gap" });
  }

  // Adds a page of older messages, each `{ frame, own }`, above the lines.
  prepend(messages) {
    this.#insert(0, this.#unknown(messages));
  }

  // Adds a page of newer messages below the lines of a detached timeline.
  append(messages) {
    this.#insert(this.#lines.length, this.#unknown(messages));
  }

  // Adds messages between the newest gap and the lines after it. The gap is removed if one of the messages is known
  // from before the gap.
  fillGap(messages) {
    const gap = this.#newestGap();
    const before = new Set(this.#lines.slice(0, gap).filter(isMessage).map(({ frame }) => frame.id));
    this.#insert(gap + 1, this.#unknown(messages));
    if (!messages.some(({ frame }) => before.has(frame.id))) return;
    // The gap has the date at which it was noticed, so it may have a "day" line of its own.
    const begin = this.#lines[gap - 1]?.kind === "day" ? gap - 1 : gap;
    this.#remove(begin, gap + 1 - begin);
    this.#repair(begin);
  }

  // Replaces the lines by an older part of the room.
  detach(messages) {
    this.#keepTail();
    this.#clear();
    this.#insert(0, this.#unknown(messages));
  }

  // The lines have reached the newest messages: adds those of the tail that follow.
  attach() {
    const known = this.#tail.findLastIndex((line) => isMessage(line) && this.#ids.has(line.frame.id));
    const rest = this.#tail.slice(known + 1);
    this.#tail = null;
    this.#insert(this.#lines.length, rest);
  }

  // Replaces the lines of a detached timeline by the tail.
  toNewest() {
    if (!this.#tail) return;
    const lines = this.#tail;
    this.#tail = null;
    this.#clear();
    this.#insert(0, lines);
  }

  trimOldest() {
    this.#remove(0, LINES_TRIMMED);
    this.#repair(0);
  }

  // Removes the newest lines, which detaches the timeline.
  trimNewest() {
    this.#keepTail();
    this.#remove(this.#lines.length - LINES_TRIMMED, LINES_TRIMMED);
  }

  // A stored message is not pending any more.
  #confirm(nonce) {
    if (!this.#pending.some((item) => item.nonce === nonce)) return;
    this.#pending = this.#pending.filter((item) => item.nonce !== nonce);
  }

  #keepTail() {
    this.#tail ??= this.#lines.filter(({ kind }) => kind !== "day").slice(-TAIL_MAX);
  }

  #add(line) {
    if (this.#tail) {
      this.#tail.splice(placeOf(line, this.#tail), 0, dated(line));
      if (this.#tail.length > TAIL_MAX) this.#tail.shift();
      return;
    }
    // The texts "Today" and "Yesterday" change at midnight.
    if (!isSameDay(this.#lines.at(-1), dated(line))) this.#daysChanged();
    this.#insert(placeOf(line, this.#lines), [line]);
  }

  #daysChanged() {
    for (const line of this.#lines) if (line.kind === "day") this.#changed(line);
  }

  // Lines for those messages that the timeline does not have.
  #unknown(messages) {
    return messages
      .filter(({ frame }) => !this.#ids.has(frame.id))
      .map(({ frame, own }) => ({ kind: "message", frame, own }));
  }

  // Inserts lines before an index, with a "day" line wherever the day changes.
  #insert(index, lines) {
    const block = [];
    for (const line of lines) {
      const before = block.at(-1) ?? this.#lines[index - 1];
      if (!isSameDay(before, dated(line))) block.push({ kind: "day", date: line.date });
      block.push(line);
    }
    for (const [i, line] of block.entries()) {
      if (isMessage(line)) {
        if (this.#deletions.has(line.frame.id)) line.frame = erased(line.frame);
        this.#ids.add(line.frame.id);
        line.follows = follows(block[i - 1] ?? this.#lines[index - 1], line);
      }
      this.#changes.added.add(line);
    }
    this.#lines.splice(index, 0, ...block);
    this.#repair(index + block.length);
  }

  // Adapts the line at an index to the line that is now before it.
  #repair(index) {
    const before = this.#lines[index - 1];
    const line = this.#lines[index];
    if (!line) return;
    if (line.kind === "day") {
      if (!isSameDay(before, line)) return;
      this.#remove(index, 1);
      this.#repair(index);
    } else if (!isSameDay(before, line)) {
      const day = { kind: "day", date: line.date };
      this.#lines.splice(index, 0, day);
      this.#changes.added.add(day);
      this.#regroup(day, line);
    } else {
      this.#regroup(before, line);
    }
  }

  #regroup(before, line) {
    if (!isMessage(line) || line.follows === follows(before, line)) return;
    line.follows = !line.follows;
    this.#changed(line);
  }

  #remove(index, count) {
    for (const line of this.#lines.splice(index, count)) {
      if (isMessage(line)) this.#ids.delete(line.frame.id);
      this.#changes.changed.delete(line);
      if (!this.#changes.added.delete(line)) this.#changes.removed.add(line);
    }
  }

  #clear() {
    this.#remove(0, this.#lines.length);
  }

  #changed(line) {
    if (!this.#changes.added.has(line)) this.#changes.changed.add(line);
  }

  // The index of the newest gap, or the end of the lines.
  #newestGap() {
    const index = this.#lines.findLastIndex(({ kind }) => kind === "gap");
    return index < 0 ? this.#lines.length : index;
  }
}

export function isMessage({ kind }) {
  return kind === "message";
}

export function isAnnouncement({ type }) {
  return type === "announcement";
}

export function isDeleted({ deleted_at: deletedAt }) {
  return deletedAt !== undefined && deletedAt !== null;
}

// The index at which a new line is inserted: before the messages that the room's order puts after it, else at the end.
function placeOf({ frame, run }, lines) {
  let place = lines.length;
  for (let i = lines.length - 1; i >= 0; i -= 1) {
    if (!isMessage(lines[i])) continue;
    if (lines[i].run !== run || !(frame?.seq < lines[i].frame.seq)) break;
    place = i;
  }
  return place;
}

function follows(before, line) {
  return (
    before !== undefined &&
    isMessage(before) &&
    !isAnnouncement(before.frame) &&
    !isAnnouncement(line.frame) &&
    before.frame.user_id === line.frame.user_id &&
    line.date - before.date < GROUP_MS
  );
}

// A message after its deletion.
function erased(frame) {
  return { ...frame, content: "", deleted_at: frame.deleted_at ?? new Date().toISOString() };
}

// The line with its date.
function dated(line) {
  if (line.date) return line;
  line.date = new Date(line.frame?.timestamp ?? Date.now());
  if (Number.isNaN(line.date.getTime())) line.date = new Date();
  return line;
}

function isSameDay(a, b) {
  return a?.date.toDateString() === b.date.toDateString();
}

function noChanges() {
  return { added: new Set(), removed: new Set(), changed: new Set() };
}
