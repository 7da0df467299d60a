// Where a message is written. Typing is never in the way of anything: not of a lost connection, not of a refusal.

const HEIGHT_MAX_PX = 180;
const CONTENT_BYTES_MAX_DEFAULT = 8 * 1024;
// Some browsers end a composition before its last key event, which then bears only this code.
const KEY_OF_IME = 229;

export class Composer {
  #form;
  #words;
  #wrong;
  #lang;
  #store;
  #key = null;
  #onSend = () => {};
  #onTyping = () => {};
  #bytesMax = CONTENT_BYTES_MAX_DEFAULT;

  constructor({ form, words, wrong, lang, store }) {
    this.#form = form;
    this.#words = words;
    this.#wrong = wrong;
    this.#lang = lang;
    this.#store = store;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    words.addEventListener("keydown", (event) => this.#pressed(event));
    words.addEventListener("input", () => this.#edited());
  }

  // Turns to a room; its draft is kept in the store until it is sent.
  open(room, { onSend, onTyping }) {
    this.#key = `draft.${room}`;
    this.#onSend = onSend;
    this.#onTyping = onTyping;
    this.#words.value = this.#store.get(this.#key) ?? "";
    this.translate();
    this.#fit();
  }

  limit(bytes) {
    this.#bytesMax = bytes;
    this.translate();
  }

  focus() {
    this.#words.focus();
  }

  translate() {
    const long = this.#tooLong(this.#words.value);
    this.#wrong.textContent = long ? this.#lang.t("compose.too_long") : "";
    this.#words.setAttribute("aria-invalid", String(long));
  }

  #pressed(event) {
    // Enter within a composition picks a word of the input method; the message is not done.
    if (event.isComposing || event.keyCode === KEY_OF_IME) return;
    if (event.key !== "Enter" || event.shiftKey || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    this.#send();
  }

  #edited() {
    if (this.#words.value === "") this.#store.remove(this.#key);
    else this.#store.set(this.#key, this.#words.value);
    this.translate();
    this.#fit();
    if (this.#words.value.trim() !== "") this.#onTyping();
  }

  #send() {
    const content = this.#words.value.trimEnd();
    this.focus();
    if (content.trim() === "" || this.#tooLong(content)) return;
    this.#words.value = "";
    this.#edited();
    // A lone half of a surrogate pair can't be sent as UTF-8.
    this.#onSend(content.toWellFormed?.() ?? content);
  }

  #tooLong(content) {
    return new TextEncoder().encode(content.trimEnd()).length > this.#bytesMax;
  }

  #fit() {
    const { style } = this.#words;
    style.height = "auto";
    style.height = `${Math.min(this.#words.scrollHeight, HEIGHT_MAX_PX)}px`;
  }
}
