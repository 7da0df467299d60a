// Typing notices: sends those of the user at intervals, and shows those of others for a while.

const SEND_INTERVAL_MS = 2_500;
const SHOWN_MS = 4_000;
const NAMES_MAX = 3;

export class TypingSender {
  #send;
  #sentMs = -Infinity;

  // `send` sends a notice and returns whether it was sent.
  constructor(send) {
    this.#send = send;
  }

  typed() {
    const now = performance.now();
    if (now - this.#sentMs >= SEND_INTERVAL_MS && this.#send()) this.#sentMs = now;
  }
}

export class TypingLine {
  #line;
  #text;
  #lang;
  // By user id: the name, and the timer that removes it.
  #users = new Map();

  constructor({ line, text, lang }) {
    this.#line = line;
    this.#text = text;
    this.#lang = lang;
    this.show();
  }

  add(id, name) {
    clearTimeout(this.#users.get(id)?.timer);
    this.#users.set(id, { name, timer: setTimeout(() => this.remove(id), SHOWN_MS) });
    this.show();
  }

  remove(id) {
    clearTimeout(this.#users.get(id)?.timer);
    if (this.#users.delete(id)) this.show();
  }

  clear() {
    for (const { timer } of this.#users.values()) clearTimeout(timer);
    this.#users.clear();
    this.show();
  }

  show() {
    const names = Array.from(this.#users.values(), ({ name }) => name);
    this.#line.classList.toggle("shown", names.length > 0);
    if (names.length === 0) this.#text.textContent = "";
    else if (names.length > NAMES_MAX) this.#text.textContent = this.#lang.plural("typing.many", names.length);
    else this.#text.textContent = this.#lang.plural("typing.named", names.length, { names: this.#lang.list(names) });
  }
}
