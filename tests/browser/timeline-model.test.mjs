// The model of the timeline: order, duplicates, deletions, groups, gaps, pages of the past, and pending messages.

import assert from "node:assert/strict";
import test from "node:test";

import { importModule } from "./modules.mjs";

const { LINES_MAX, LINES_TRIMMED, TAIL_MAX, TimelineModel } = await importModule("core/timeline-model.js");

const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;
const NOON = new Date(2026, 0, 10, 12).getTime();

// The stored message with this place in the room's order. Messages are a minute apart.
function message(seq, more = {}) {
  const timestamp = new Date(NOON + seq * MINUTE_MS).toISOString();
  return { type: "text", id: `m${seq}`, seq, user_id: `u${seq}`, username: `user ${seq}`, content: `text ${seq}`, timestamp, ...more };
}

function page(from, to) {
  return Array.from({ length: to - from + 1 }, (_, i) => ({ frame: message(from + i), own: false }));
}

function deletion(seq, by) {
  return { type: "delete", message_id: `m${seq}`, user_id: by, username: by };
}

// A timeline with these messages, live in this order.
function timelineOf(...seqs) {
  const model = new TimelineModel();
  for (const seq of seqs) model.addMessage(message(seq), false);
  return model;
}

// The lines that are shown: the `seq`s of messages, and the kinds of other lines. Days are left out.
function shown(model) {
  const lines = model.lines.filter(({ kind }) => kind !== "day");
  return lines.map(({ kind, frame }) => (kind === "message" ? frame.seq : kind));
}

const days = (model) => model.lines.filter(({ kind }) => kind === "day").length;
const groups = (model) => model.lines.filter(({ kind }) => kind === "message").map(({ follows }) => follows);

test("messages are in the room's order, whatever the order in which they come", () => {
  const model = timelineOf(1, 2, 5, 3, 4);
  assert.deepEqual(shown(model), [1, 2, 3, 4, 5]);
  assert.deepEqual([model.first.seq, model.last.seq], [1, 5]);
  model.addPresence({ type: "join", username: "Ana" });
  model.addMessage(message(7), false);
  model.addMessage(message(6), false);
  assert.deepEqual(shown(model), [1, 2, 3, 4, 5, "join", 6, 7]);
});

test("a message is there once, from wherever it comes", () => {
  const model = timelineOf(3, 4);
  assert.equal(model.addMessage(message(4), false), false);
  model.prepend(page(1, 4));
  model.append(page(4, 5));
  assert.deepEqual(shown(model), [1, 2, 3, 4, 5]);
  assert.ok(model.has("m5") && !model.has("m6"));
  assert.equal(model.lineOf("m2").frame.content, "text 2");
});

test("a new day begins with a line, which is there once", () => {
  const yesterday = { timestamp: new Date(NOON - DAY_MS).toISOString() };
  const model = timelineOf(3, 4);
  assert.equal(days(model), 1);
  model.prepend([{ frame: message(1, yesterday), own: false }, { frame: message(2, yesterday), own: false }]);
  assert.equal(days(model), 2);
  assert.deepEqual(model.lines.map(({ kind }) => kind), ["day", "message", "message", "day", "message", "message"]);
  model.prepend([{ frame: message(0, yesterday), own: false }]);
  assert.equal(days(model), 2, "the line of the day is above the new page");
  assert.equal(model.lines[0].kind, "day");
});

test("successive messages of one user form a group", () => {
  const ana = { user_id: "ana" };
  const model = new TimelineModel();
  for (const frame of [message(1, ana), message(2, ana), message(3), message(4, ana), message(20, ana)]) model.addMessage(frame, false);
  assert.deepEqual(groups(model), [false, true, false, false, false], "not after another user, nor after a long pause");
  model.addMessage(message(21, { ...ana, type: "announcement" }), false);
  model.addMessage(message(22, ana), false);
  assert.deepEqual(groups(model).slice(-2), [false, false], "an announcement stands alone");
});

test("a group is formed anew when a message comes between or before", () => {
  const ana = { user_id: "ana" };
  const model = new TimelineModel();
  model.addMessage(message(2, ana), false);
  model.prepend([{ frame: message(1, ana), own: false }]);
  assert.deepEqual(groups(model), [false, true]);
  model.addMessage(message(4, ana), false);
  model.takeChanges();
  model.addMessage(message(3), false);
  assert.deepEqual(shown(model), [1, 2, 3, 4]);
  assert.deepEqual(groups(model), [false, true, false, false]);
  const { added, changed } = model.takeChanges();
  assert.deepEqual([...added, ...changed].map(({ frame }) => frame.seq), [3, 4], "both are rendered");
});

test("a deletion erases the message wherever it is, and its copies", () => {
  const model = timelineOf(1, 2);
  model.takeChanges();
  model.delete(deletion(1, "admin"));
  const [line] = model.takeChanges().changed;
  assert.deepEqual([line.frame.id, line.frame.content], ["m1", ""]);
  assert.ok(line.frame.deleted_at);
  assert.equal(model.deletionOf("m1").username, "admin");

  model.delete(deletion(0, "admin"));
  model.prepend(page(0, 0));
  assert.equal(model.first.content, "", "a copy that comes later is erased, too");
  model.delete({ ...deletion(1, "another user") });
  assert.equal(model.deletionOf("m1").username, "admin", "the first deletion counts");

  model.detach(page(-20, -18));
  model.delete(deletion(2, "admin"));
  model.toNewest();
  assert.equal(model.last.content, "", "in the tail");
});

test("a pending message is confirmed by its own copy", () => {
  const model = timelineOf(1);
  model.setPending([{ nonce: "a", content: "one" }, { nonce: "b", content: "two" }]);
  model.addMessage(message(2, { nonce: "a" }), false);
  assert.equal(model.pending.length, 2, "another user may have the same nonce");
  model.addMessage(message(3, { nonce: "a" }), true);
  assert.deepEqual(model.pending.map(({ nonce }) => nonce), ["b"]);
  assert.deepEqual(shown(model), [1, 2, 3]);
  const empty = new TimelineModel();
  empty.setPending([{ nonce: "a", content: "one" }]);
  assert.equal(empty.isEmpty, false);
  assert.equal(empty.hasMessages, false);
});

test("a reset leaves a gap, unless the next message is known", () => {
  const known = timelineOf(1, 2);
  known.expectGap();
  known.addMessage(message(2), false);
  known.addMessage(message(3), false);
  assert.deepEqual(shown(known), [1, 2, 3]);

  const lost = timelineOf(1, 2);
  lost.expectGap();
  lost.addMessage(message(8), false);
  assert.deepEqual(shown(lost), [1, 2, "gap", 8]);
  assert.equal(lost.afterGap.seq, 8);

  const restarted = timelineOf(7, 8);
  restarted.expectGap();
  restarted.addMessage(message(1), false);
  restarted.addMessage(message(2), false);
  assert.deepEqual(shown(restarted), [7, 8, "gap", 1, 2], "the order begins anew after a reset");

  const partly = timelineOf(7, 8);
  partly.expectGap();
  partly.addMessage(message(7), false);
  partly.addMessage(message(2), false);
  assert.deepEqual(shown(partly), [7, 8, 2], "also where a known message shows that there is no gap");

  const silent = timelineOf(1);
  silent.expectGap();
  silent.closeGap();
  silent.expectGap();
  silent.closeGap();
  assert.deepEqual(shown(silent), [1, "gap"], "one gap is enough");
  const first = new TimelineModel();
  first.expectGap();
  first.addMessage(message(1), false);
  assert.deepEqual(shown(first), [1], "an empty timeline has no gap");
});

test("a gap is filled from its end, and goes when it meets a known message", () => {
  const model = timelineOf(1, 2);
  model.expectGap();
  model.addMessage(message(9), false);
  model.fillGap(page(6, 8));
  assert.deepEqual(shown(model), [1, 2, "gap", 6, 7, 8, 9]);
  model.fillGap(page(2, 5));
  assert.deepEqual(shown(model), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
  assert.equal(days(model), 1);
  assert.equal(model.afterGap, undefined);
});

test("a detached timeline shows an older part, and keeps what comes for later", () => {
  const model = timelineOf(50, 51);
  model.detach(page(10, 12));
  assert.deepEqual([shown(model), model.isAttached], [[10, 11, 12], false]);
  assert.equal(model.addMessage(message(52), false), true);
  assert.equal(model.addMessage(message(52), false), false, "also there it is kept once");
  assert.deepEqual(shown(model), [10, 11, 12]);
  model.append(page(13, 14));
  assert.deepEqual(shown(model), [10, 11, 12, 13, 14]);
  model.toNewest();
  assert.deepEqual([shown(model), model.isAttached], [[50, 51, 52], true]);
});

test("pages of newer messages lead back to the tail", () => {
  const model = timelineOf(14, 15);
  model.detach(page(10, 12));
  model.addMessage(message(16), false);
  model.append(page(13, 15));
  model.attach();
  assert.deepEqual([shown(model), model.isAttached], [[10, 11, 12, 13, 14, 15, 16], true]);
});

test("the tail keeps a bounded number of lines", () => {
  const model = timelineOf(1);
  model.detach(page(-5, -4));
  for (let seq = 2; seq < 2 * TAIL_MAX; seq += 1) model.addMessage(message(seq), false);
  model.toNewest();
  assert.equal(shown(model).length, TAIL_MAX);
  assert.equal(model.last.seq, 2 * TAIL_MAX - 1);
});

test("a timeline with too many lines drops those at one end", () => {
  const overfull = () => {
    const model = new TimelineModel();
    model.prepend(page(1, LINES_MAX));
    assert.ok(model.isOverfull);
    model.takeChanges();
    return model;
  };
  const newest = overfull();
  newest.trimOldest();
  assert.deepEqual([newest.isOverfull, newest.isAttached, newest.last.seq], [false, true, LINES_MAX]);
  assert.equal(newest.takeChanges().removed.size, LINES_TRIMMED);
  assert.equal(newest.lines[0].kind, "day", "the first day keeps its line");
  assert.ok(!newest.has("m1"));

  const oldest = overfull();
  oldest.trimNewest();
  assert.deepEqual([oldest.isOverfull, oldest.isAttached, oldest.first.seq], [false, false, 1]);
  oldest.toNewest();
  assert.equal(oldest.last.seq, LINES_MAX);
});

test("the changes are those since they were taken, for a view that renders them", () => {
  const model = timelineOf(1, 2);
  const { added } = model.takeChanges();
  assert.deepEqual([...added].map(({ kind }) => kind), ["day", "message", "message"]);
  assert.deepEqual(Object.values(model.takeChanges()).map(({ size }) => size), [0, 0, 0]);
  model.addMessage(message(3), false);
  model.reset();
  const { added: none, removed } = model.takeChanges();
  assert.equal(none.size, 0, "a line that came and went is never rendered");
  assert.deepEqual([...removed].map(({ kind }) => kind), ["day", "message", "message"]);
  assert.ok(model.isEmpty && model.isAttached);
});

test("the names of days are written again after midnight", () => {
  const model = timelineOf(1);
  model.takeChanges();
  model.addMessage(message(2, { timestamp: new Date(NOON + DAY_MS).toISOString() }), false);
  assert.deepEqual([...model.takeChanges().changed].map(({ kind }) => kind), ["day"]);
});
