// Who is typing: what is said of us, seldom, and what is heard of others, which fades.

const SAID_EVERY_MS = 2_500;
const FADES_AFTER_MS = 4_000;
const NAMED_MAX = 3;

// Says that we are typing, at most once in a while.
export class TypingNotice {
  #say;
  #saidAt = -Infinity;

  constructor(say) {
    this.#say = say;
  }

  touched() {
    const now = performance.now();
    if (now - this.#saidAt >= SAID_EVERY_MS && this.#say()) this.#saidAt = now;
  }
}

// Shows who else is typing.
export class TypingLine {
  #line;
  #text;
  #lang;
  // By user id: the name, and the timer that takes it away.
  #typists = new Map();

  constructor({ line, text, lang }) {
    this.#line = line;
    this.#text = text;
    this.#lang = lang;
    this.show();
  }

  heard(id, name) {
    clearTimeout(this.#typists.get(id)?.timer);
    this.#typists.set(id, { name, timer: setTimeout(() => this.gone(id), FADES_AFTER_MS) });
    this.show();
  }

  gone(id) {
    clearTimeout(this.#typists.get(id)?.timer);
    if (this.#typists.delete(id)) this.show();
  }

  clear() {
    for (const { timer } of this.#typists.values()) clearTimeout(timer);
    this.#typists.clear();
    this.show();
  }

  show() {
    const names = Array.from(this.#typists.values(), ({ name }) => name);
    this.#line.classList.toggle("shown", names.length > 0);
    if (names.length === 0) this.#text.textContent = "";
    else if (names.length > NAMED_MAX) this.#text.textContent = this.#lang.plural("typing.many", names.length);
    else this.#text.textContent = this.#lang.plural("typing.named", names.length, { names: this.#lang.list(names) });
  }
}
