// The socket and its channels, without a browser: joins, frames by room, reconnects and waits.

import assert from "node:assert/strict";
import test, { afterEach, beforeEach } from "node:test";

import { importModule } from "./modules.mjs";

const { CloseCode } = await importModule("core/codes.js");
const { Socket } = await importModule("net/socket.js");

const { setTimeout, clearTimeout, setInterval, clearInterval } = globalThis;
const { now } = Date;
const { random } = Math;

let clock;
let connections;

class FakeClock {
  now = 0;
  #timers = new Map();
  #next = 1;

  set(action, ms, every) {
    this.#timers.set(this.#next, { action, at: this.now + ms, every });
    this.#next += 1;
    return this.#next - 1;
  }

  clear(id) {
    this.#timers.delete(id);
  }

  async run(ms) {
    const end = this.now + ms;
    for (;;) {
      const due = [...this.#timers].filter(([, { at }]) => at <= end).sort(([, a], [, b]) => a.at - b.at)[0];
      if (!due) break;
      const [id, timer] = due;
      this.now = timer.at;
      if (timer.every === undefined) this.#timers.delete(id);
      else timer.at += timer.every;
      timer.action();
      await settled();
    }
    this.now = end;
  }

  // Time passes without a timer, as while a machine sleeps.
  sleep(ms) {
    this.now += ms;
    for (const timer of this.#timers.values()) timer.at += ms;
  }
}

class FakeWebSocket {
  static OPEN = 1;
  readyState = 1;
  sent = [];
  closedWith = null;

  constructor(url) {
    this.url = url;
    connections.push(this);
  }

  send(data) {
    this.sent.push(JSON.parse(data));
  }

  close(code) {
    this.readyState = 3;
    this.closedWith = code;
  }

  // The actions of the server.
  receives(frame) {
    this.onmessage({ data: typeof frame === "string" ? frame : JSON.stringify(frame) });
  }

  ends(code) {
    this.readyState = 3;
    this.onclose({ code });
  }
}

async function settled() {
  for (let i = 0; i < 5; i += 1) await Promise.resolve();
}

beforeEach(() => {
  clock = new FakeClock();
  connections = [];
  globalThis.WebSocket = FakeWebSocket;
  globalThis.setTimeout = (action, ms) => clock.set(action, ms);
  globalThis.setInterval = (action, ms) => clock.set(action, ms, ms);
  globalThis.clearTimeout = globalThis.clearInterval = (id) => clock.clear(id);
  Date.now = () => clock.now;
  Math.random = () => 1; // Without jitter.
});

afterEach(() => {
  Object.assign(globalThis, { setTimeout, clearTimeout, setInterval, clearInterval });
  Object.assign(Date, { now });
  Object.assign(Math, { random });
});

function socketWith({ prepare = async () => {}, isPageVisible = () => true } = {}) {
  return new Socket({ prepare, url: (parameters) => parameters, isPageVisible });
}

// A joined channel that notes its statuses and frames.
function join(socket, room, parameters = () => ({ history: 50 })) {
  const received = { statuses: [], frames: [] };
  const channel = socket.channel(room, {
    parameters,
    onStatus: (status, code) => received.statuses.push(code === undefined ? status : `${status} ${code}`),
    onFrame: (frame) => received.frames.push(frame.type),
  });
  channel.join();
  return Object.assign(received, { channel });
}

const welcome = (room) => ({ type: "welcome", room_id: room });

test("the first channel is joined by the URL, and is online after `welcome`", async () => {
  const socket = socketWith();
  const { channel, statuses, frames } = join(socket, "tea");
  await settled();
  assert.deepEqual(connections[0].url, { room_id: "tea", history: 50 });
  assert.equal(channel.send({ type: "text" }), false, "not before `welcome`");
  connections[0].receives(welcome("tea"));
  connections[0].receives({ type: "text", room_id: "tea" });
  connections[0].receives("no JSON");
  connections[0].receives("7");
  assert.deepEqual([statuses, frames], [["connecting", "online"], ["welcome", "text"]]);
  assert.equal(channel.send({ type: "text", content: "hello" }), true);
  assert.deepEqual(connections[0].sent, [{ type: "text", content: "hello" }], "the room of the URL is the default");
});

test("further channels share the connection, and each gets the frames of its room", async () => {
  const socket = socketWith();
  const tea = join(socket, "tea");
  const attic = join(socket, "attic");
  await settled();
  assert.equal(connections.length, 1);
  connections[0].receives(welcome("tea"));
  assert.deepEqual(connections[0].sent, [{ type: "join", room_id: "attic", history: 50 }]);
  assert.equal(attic.channel.send({ type: "text" }), false);
  connections[0].receives(welcome("attic"));
  const late = join(socket, "late");
  assert.equal(connections[0].sent.at(-1).room_id, "late");
  connections[0].receives({ type: "text", room_id: "attic" });
  connections[0].receives({ type: "text", room_id: "elsewhere" });
  connections[0].receives({ type: "mute", room_id: "tea" });
  connections[0].receives({ type: "error" });
  assert.deepEqual(tea.frames, ["welcome", "mute", "error"], "a frame without a room is for the room of the URL");
  assert.deepEqual(attic.frames, ["welcome", "text", "mute"], "a mute is about the user, in all rooms");
  assert.deepEqual(late.statuses, ["connecting"]);
  attic.channel.send({ type: "text" });
  assert.deepEqual(connections[0].sent.at(-1), { type: "text", room_id: "attic" });
});

test("a channel leaves alone, and the last one closes the connection", async () => {
  const socket = socketWith();
  const tea = join(socket, "tea");
  const attic = join(socket, "attic");
  await settled();
  connections[0].receives(welcome("tea"));
  connections[0].receives(welcome("attic"));
  tea.channel.leave();
  assert.deepEqual(connections[0].sent.at(-1), { type: "leave", room_id: "tea" });
  connections[0].receives({ type: "text", room_id: "tea" });
  assert.deepEqual(tea.frames, ["welcome"]);
  assert.equal(connections[0].closedWith, null);
  attic.channel.leave();
  assert.equal(connections[0].closedWith, CloseCode.NORMAL);
  await clock.run(1_000_000);
  assert.equal(connections.length, 1);
  join(socket, "tea");
  await settled();
  assert.equal(connections.length, 2, "a socket can be used again");
});

test("after a loss all channels are joined again, where they were", async () => {
  const socket = socketWith();
  let after;
  const tea = join(socket, "tea", () => ({ history: 50, after }));
  const attic = join(socket, "attic");
  await settled();
  connections[0].receives(welcome("tea"));
  connections[0].receives(welcome("attic"));
  after = "m7";
  connections[0].ends(CloseCode.ABNORMAL);
  assert.deepEqual([tea.statuses.at(-1), attic.statuses.at(-1)], ["waiting 1006", "waiting 1006"]);
  await clock.run(500);
  assert.equal(connections[1].url.after, "m7");
  connections[1].receives(welcome("tea"));
  assert.equal(connections[1].sent[0].room_id, "attic");
  assert.deepEqual([tea.channel.isJoined, attic.channel.isJoined], [true, false]);
});

test("the waits grow, and begin anew after a steady connection", async () => {
  const socket = socketWith();
  join(socket, "tea");
  await settled();
  const waitAfter = async (end) => {
    const count = connections.length;
    end(connections.at(-1));
    const begin = clock.now;
    while (connections.length === count) await clock.run(100);
    return clock.now - begin;
  };
  const lost = (connection) => connection.ends(CloseCode.ABNORMAL);
  const waits = [];
  for (let i = 0; i < 7; i += 1) waits.push(await waitAfter(lost));
  assert.deepEqual(waits, [500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000]);
  connections.at(-1).receives(welcome("tea"));
  await clock.run(6_000);
  assert.equal(await waitAfter(lost), 500);
  assert.equal(await waitAfter((connection) => connection.ends(CloseCode.POLICY)), 15_000);
  assert.equal(await waitAfter((connection) => connection.ends(CloseCode.TRY_AGAIN_LATER)), 15_000);
  connections.at(-1).receives(welcome("tea"));
  await clock.run(6_000);
  assert.equal(await waitAfter((connection) => connection.ends(CloseCode.TRY_AGAIN_LATER)), 500, "a slow client resumes at once");
});

test("an attempt without `welcome` is given up, and so is one whose preparation fails", async () => {
  let fail = null;
  const socket = socketWith({
    prepare: async () => {
      if (fail) throw fail;
    },
  });
  const { statuses } = join(socket, "tea");
  await settled();
  await clock.run(10_000);
  assert.equal(connections[0].closedWith, CloseCode.RECONNECTING);
  assert.equal(statuses.at(-1), "waiting");
  fail = Object.assign(new Error(), { closeCode: CloseCode.TRY_AGAIN_LATER });
  await clock.run(500);
  assert.deepEqual([statuses.at(-1), connections.length], ["waiting 1013", 1]);
  fail = null;
  socket.retry();
  await settled();
  assert.equal(connections.length, 2);
});

test("a room that does not answer a `join` replaces the connection, unless it was rejected", async () => {
  const socket = socketWith();
  join(socket, "tea");
  const attic = join(socket, "attic");
  await settled();
  connections[0].receives(welcome("tea"));
  connections[0].receives({ type: "error", room_id: "attic" });
  assert.deepEqual(attic.frames, ["error"]);
  await clock.run(20_000);
  assert.equal(connections.length, 1);
  attic.channel.leave();
  join(socket, "attic");
  await clock.run(10_000);
  assert.equal(connections.length, 2);
});

test("a network that was lost, and a sleep, replace the connection", async () => {
  const socket = socketWith();
  join(socket, "tea");
  await settled();
  connections[0].receives(welcome("tea"));
  socket.networkRestored();
  await settled();
  assert.equal(connections.length, 1, "the network was not lost");
  socket.networkLost();
  socket.networkRestored();
  await settled();
  assert.equal(connections.length, 2);
  connections[1].receives(welcome("tea"));
  connections[0].ends(CloseCode.ABNORMAL);
  connections[0].receives({ type: "text", room_id: "tea" });
  await clock.run(30_000);
  assert.equal(connections.length, 2, "the former connection is ignored");
  clock.sleep(80_000);
  await clock.run(10_000);
  assert.equal(connections.length, 3);
});
