// What the server says of the current room: its settings, the user's role, and the restrictions on posting. Pure.

const DEFAULT_SETTINGS = { name: "", topic: "", posting: "everyone", slow_mode_s: 0, private: false };

export class RoomState {
  #onChange;
  #room = "";
  #settings = DEFAULT_SETTINGS;
  #role = "guest";
  // By the server's clock; null while the user is not muted.
  #mutedUntil = null;
  // By the local clock, for slow mode: the time of the user's last message, and the end of the wait that the server
  // named.
  #lastMessageMs = -Infinity;
  #waitUntilMs = -Infinity;
  // The server's clock minus the local clock.
  #clockOffsetMs = 0;

  // `onChange` is called after each change.
  constructor(onChange) {
    this.#onChange = onChange;
  }

  get isAdmin() {
    return this.#role === "admin";
  }

  get role() {
    return this.#role;
  }

  get settings() {
    return { ...this.#settings, id: this.#room };
  }

  get name() {
    return this.#settings.name || this.#room;
  }

  // The end of the user's mute by the local clock, or null.
  get mutedUntil() {
    return this.#mutedUntil && new Date(this.#mutedUntil.getTime() - this.#clockOffsetMs);
  }

  // Whether only admins post in the room, and the user is none.
  get isReadOnly() {
    return this.#settings.posting === "admins" && !this.isAdmin;
  }

  get hasSlowMode() {
    return this.#settings.slow_mode_s > 0 && !this.isAdmin;
  }

  // Milliseconds until slow mode lets the user post again.
  slowModeWaitMs(nowMs) {
    if (!this.hasSlowMode) return 0;
    const readyMs = Math.max(this.#waitUntilMs, this.#lastMessageMs + this.#settings.slow_mode_s * 1000);
    return Math.max(0, readyMs - nowMs);
  }

  // Enters a room. Its state is unknown until `welcome`.
  reset(room) {
    this.#room = room;
    this.#settings = DEFAULT_SETTINGS;
    this.#role = "guest";
    this.#mutedUntil = null;
    this.#lastMessageMs = -Infinity;
    this.#waitUntilMs = -Infinity;
    this.#onChange();
  }

  applyWelcome({ role = "guest", room, muted_until: mutedUntil = null, timestamp }, nowMs) {
    this.#role = role;
    this.#setClock(timestamp, nowMs);
    this.#settings = { ...DEFAULT_SETTINGS, ...room };
    this.#mutedUntil = dateOf(mutedUntil);
    this.#onChange();
  }

  applySettings(settings) {
    if (settings.id !== this.#room) return;
    this.#settings = { ...DEFAULT_SETTINGS, ...settings };
    this.#waitUntilMs = -Infinity;
    this.#onChange();
  }

  applyMute({ muted_until: mutedUntil = null, timestamp }, nowMs) {
    this.#setClock(timestamp, nowMs);
    this.#mutedUntil = dateOf(mutedUntil);
    this.#onChange();
  }

  // Notes a message of the user.
  applyOwnMessage({ timestamp }) {
    this.#lastMessageMs = Math.max(this.#lastMessageMs, Date.parse(timestamp) - this.#clockOffsetMs);
    this.#onChange();
  }

  // Notes the wait that the server named in a rejection by slow mode.
  applyWait(waitMs, nowMs) {
    this.#waitUntilMs = nowMs + waitMs;
    this.#onChange();
  }

  #setClock(timestamp, nowMs) {
    const serverMs = Date.parse(timestamp);
    if (!Number.isNaN(serverMs)) this.#clockOffsetMs = serverMs - nowMs;
  }
}

function dateOf(text) {
  const date = new Date(text ?? NaN);
  return Number.isNaN(date.getTime()) ? null : date;
}
