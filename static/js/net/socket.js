// The WebSocket to the server, and the rooms that are joined over it: one `Socket` with a `Channel` for each room.
//
// The socket connects, reconnects with jittered back-off, and detects dead connections. After each connect it joins its
// channels again: the first one by the URL, the others by `join` commands. It passes each frame to the channel of the
// frame's room. Of the types of frames it knows `welcome`, which confirms that a room is joined, and those of no room.
//
// Neither class queues commands. A message waits in the outbox until its channel is joined; a typing notice is obsolete
// by then.

import { CloseCode } from "../core/codes.js";

const BACKOFF_BASE_MS = 500;
const BACKOFF_MAX_MS = 15_000;
// From the start of an attempt, or from a `join` command, to `welcome`. Without it, a network that drops packets would
// hold a connection for minutes.
const WELCOME_WAIT_MS = 10_000;
// After a connection of this duration the back-off begins anew.
const STEADY_MS = 5_000;
// A clock that advances by so much between two ticks shows that the machine slept. The server closes a connection after
// 60 s of silence, and the browser may not have noticed.
const TICK_MS = 10_000;
const SLEEP_MS = 75_000;

// Frames about the user. Their `room_id` is that of the URL, but they concern all rooms.
const USER_TYPES = new Set(["mute"]);

export class Socket {
  #prepare;
  #url;
  #isPageVisible;
  // By room, in the order in which they were joined.
  #channels = new Map();
  // The channel that the URL of the present connection joins.
  #first = null;
  #attempt = null;
  #socket = null;
  // "closed", "connecting", "open" (the server has sent `welcome`) or "waiting" (for the next attempt).
  #state = "closed";
  #attempts = 0;
  #openedMs = 0;
  #welcomeTimer;
  #retryTimer;
  #ticker;
  #tickMs = 0;
  #wasOffline = false;

  // `prepare(signal)` runs before each attempt. If it throws, the attempt has failed with the close code in the error's
  // `closeCode`, if there is one. `url(parameters)` returns the URL that joins a room with the parameters of its
  // channel. `isPageVisible` returns whether the page is visible.
  constructor({ prepare, url, isPageVisible }) {
    this.#prepare = prepare;
    this.#url = url;
    this.#isPageVisible = isPageVisible;
  }

  // A channel for a room. `parameters` returns those of each join, `{ history, after }`. `onStatus` is called with
  // "connecting", "online" or "waiting", and with the close code of the connection that was lost. `onFrame` is called
  // with each frame of the room.
  channel(room, { parameters, onStatus, onFrame }) {
    return new Channel(this, room, { parameters, onStatus, onFrame });
  }

  // Adds a channel, and connects if it is the first one.
  join(channel) {
    this.#channels.set(channel.room, channel);
    if (this.#state === "closed") this.#start();
    else if (this.#state === "open") this.#sendJoin(channel);
    else channel.setStatus(this.#state);
  }

  // Removes a channel, and disconnects if it was the last one.
  leave(channel) {
    if (this.#channels.get(channel.room) !== channel) return;
    this.#channels.delete(channel.room);
    if (this.#first === channel) this.#first = null;
    if (this.#channels.size === 0) this.#stop();
    else this.send({ type: "leave", room_id: channel.room });
  }

  // Sends a command if the connection is open. Returns whether it was sent.
  send(command) {
    if (this.#state !== "open" || this.#socket.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(command));
    return true;
  }

  // Whether commands without a `room_id` go to this channel's room.
  isDefault(channel) {
    return channel === this.#first;
  }

  // Ends the wait before the next attempt.
  retry() {
    if (this.#state === "waiting") this.#connect();
  }

  // Replaces a connection that may be dead. Resuming costs little; a dead connection may stay unnoticed for a minute.
  reconnect() {
    if (this.#state !== "closed") this.#connect();
  }

  networkLost() {
    this.#wasOffline = true;
  }

  networkRestored() {
    if (this.#wasOffline) this.reconnect();
    else this.retry();
  }

  #start() {
    this.#tickMs = Date.now();
    this.#ticker = setInterval(() => this.#tick(), TICK_MS);
    this.#connect();
  }

  #stop() {
    clearInterval(this.#ticker);
    this.#close(CloseCode.NORMAL);
    this.#state = "closed";
  }

  #connect() {
    this.#close(CloseCode.RECONNECTING);
    this.#wasOffline = false;
    const attempt = new AbortController();
    this.#attempt = attempt;
    this.#setState("connecting");
    if (this.#attempt !== attempt) return; // The last channel has left.
    this.#welcomeTimer = setTimeout(() => this.#lost(), WELCOME_WAIT_MS);
    this.#prepare(attempt.signal).then(
      () => this.#attempt === attempt && this.#open(),
      (error) => this.#attempt === attempt && this.#lost(error.closeCode),
    );
  }

  #open() {
    [this.#first] = this.#channels.values();
    const socket = new WebSocket(this.#url(this.#first.joinParameters()));
    this.#socket = socket;
    socket.onmessage = ({ data }) => this.#socket === socket && this.#received(data);
    socket.onclose = ({ code }) => this.#socket === socket && this.#lost(code);
  }

  #received(data) {
    const frame = parse(data);
    if (frame === null) return;
    if (USER_TYPES.has(frame.type)) {
      for (const channel of [...this.#channels.values()]) channel.receive(frame);
      return;
    }
    // As in commands, a missing room is that of the URL.
    const channel = frame.room_id === undefined ? this.#first : this.#channels.get(frame.room_id);
    if (frame.type === "welcome") this.#welcomed(channel);
    channel?.receive(frame);
  }

  #welcomed(channel) {
    if (this.#state === "open") return;
    clearTimeout(this.#welcomeTimer);
    this.#openedMs = Date.now();
    this.#state = "open";
    for (const each of this.#channels.values()) if (each !== channel) this.#sendJoin(each);
  }

  #sendJoin(channel) {
    channel.setStatus("connecting");
    this.send({ type: "join", ...channel.joinParameters() });
    channel.awaitWelcome(WELCOME_WAIT_MS);
  }

  #lost(code) {
    const wasOpen = this.#state === "open";
    const wasSteady = wasOpen && Date.now() - this.#openedMs > STEADY_MS;
    this.#close(CloseCode.RECONNECTING);
    if (wasSteady) this.#attempts = 0;
    // A server that rejects the client or is full gets the longest wait. The same code after `welcome` means that this
    // client read too slowly; it reconnects and resumes.
    const isUnwelcome = code === CloseCode.POLICY || (code === CloseCode.TRY_AGAIN_LATER && !wasOpen);
    const waitMs = isUnwelcome ? BACKOFF_MAX_MS : Math.min(BACKOFF_MAX_MS, BACKOFF_BASE_MS * 2 ** this.#attempts);
    this.#attempts += 1;
    // With jitter, the clients of a restarted server do not all come back at the same moment.
    this.#retryTimer = setTimeout(() => this.#connect(), waitMs * (0.5 + Math.random() / 2));
    this.#setState("waiting", code);
  }

  #close(code) {
    clearTimeout(this.#welcomeTimer);
    clearTimeout(this.#retryTimer);
    this.#attempt?.abort();
    this.#attempt = null;
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(code);
  }

  #tick() {
    const hasSlept = Date.now() - this.#tickMs > SLEEP_MS;
    this.#tickMs = Date.now();
    if (hasSlept && this.#isPageVisible()) this.reconnect();
  }

  #setState(state, code) {
    this.#state = state;
    // A channel may leave in its handler.
    for (const channel of [...this.#channels.values()]) channel.setStatus(state, code);
  }
}

// A room that is joined over a socket.
export class Channel {
  room;
  #socket;
  #parameters;
  #onStatus;
  #onFrame;
  #status = "closed";
  #welcomeTimer;

  constructor(socket, room, { parameters, onStatus, onFrame }) {
    this.room = room;
    this.#socket = socket;
    this.#parameters = parameters;
    this.#onStatus = onStatus;
    this.#onFrame = onFrame;
  }

  get isJoined() {
    return this.#status === "online";
  }

  join() {
    this.#socket.join(this);
  }

  leave() {
    clearTimeout(this.#welcomeTimer);
    this.#status = "closed";
    this.#socket.leave(this);
  }

  // Sends a command for the room if it is joined. Returns whether it was sent.
  send(command) {
    if (!this.isJoined) return false;
    return this.#socket.send(this.#socket.isDefault(this) ? command : { ...command, room_id: this.room });
  }

  // The rest is for the socket.

  joinParameters() {
    return { room_id: this.room, ...this.#parameters() };
  }

  awaitWelcome(ms) {
    clearTimeout(this.#welcomeTimer);
    this.#welcomeTimer = setTimeout(() => this.#socket.reconnect(), ms);
  }

  receive(frame) {
    if (frame.type === "welcome") this.setStatus("online");
    // The server has answered the `join`, so the connection is alive.
    if (frame.type === "error") clearTimeout(this.#welcomeTimer);
    this.#onFrame(frame);
  }

  setStatus(status, code) {
    clearTimeout(this.#welcomeTimer);
    this.#status = status;
    this.#onStatus(status, code);
  }
}

// A frame, or null for anything else.
function parse(data) {
  try {
    const frame = JSON.parse(data);
    return typeof frame === "object" ? frame : null;
  } catch {
    return null;
  }
}
