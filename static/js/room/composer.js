// The input for messages. It accepts text at any time, also without a connection.

const HEIGHT_MAX_PX = 180;
const CONTENT_BYTES_MAX_DEFAULT = 8 * 1024;
// Some browsers end a composition before its last key event, which then has only this code.
const KEY_CODE_OF_IME = 229;

export class Composer {
  #form;
  #input;
  #error;
  #lang;
  #store;
  #draftKey = null;
  #onSend = () => {};
  #onTyping = () => {};
  #bytesMax = CONTENT_BYTES_MAX_DEFAULT;

  // `store` keeps the draft of each room.
  constructor({ form, input, error, lang, store }) {
    this.#form = form;
    this.#input = input;
    this.#error = error;
    this.#lang = lang;
    this.#store = store;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    input.addEventListener("keydown", (event) => this.#keyPressed(event));
    input.addEventListener("input", () => this.#edited());
    // On a narrower screen the same text has more lines.
    window.addEventListener("resize", () => this.#fitHeight());
  }

  // Enters a room, with its draft.
  open(room, { onSend, onTyping }) {
    this.#draftKey = `draft.${room}`;
    this.#onSend = onSend;
    this.#onTyping = onTyping;
    this.#input.value = this.#store.get(this.#draftKey) ?? "";
    this.translate();
    this.#fitHeight();
  }

  // Sets the server's limit for the content of a message.
  limit(bytes) {
    this.#bytesMax = bytes;
    this.translate();
  }

  focus() {
    this.#input.focus();
  }

  translate() {
    const isTooLong = this.#isTooLong(this.#input.value);
    this.#error.textContent = isTooLong ? this.#lang.t("compose.too_long") : "";
    this.#input.setAttribute("aria-invalid", String(isTooLong));
  }

  #keyPressed(event) {
    // Within a composition, Enter selects a word of the input method.
    if (event.isComposing || event.keyCode === KEY_CODE_OF_IME) return;
    if (event.key !== "Enter" || event.shiftKey || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    this.#send();
  }

  #edited() {
    if (this.#input.value === "") this.#store.remove(this.#draftKey);
    else this.#store.set(this.#draftKey, this.#input.value);
    this.translate();
    this.#fitHeight();
    if (this.#input.value.trim() !== "") this.#onTyping();
  }

  #send() {
    const content = this.#input.value.trimEnd();
    this.focus();
    if (content.trim() === "" || this.#isTooLong(content)) return;
    this.#input.value = "";
    this.#edited();
    // A lone surrogate can't be encoded as UTF-8.
    this.#onSend(content.toWellFormed?.() ?? content);
  }

  #isTooLong(content) {
    return new TextEncoder().encode(content.trimEnd()).length > this.#bytesMax;
  }

  #fitHeight() {
    const { style } = this.#input;
    // The form keeps its height meanwhile. Otherwise the timeline would be taller for a moment, and would scroll.
    this.#form.style.minHeight = `${this.#form.offsetHeight}px`;
    style.height = "auto";
    style.height = `${Math.min(this.#input.scrollHeight, HEIGHT_MAX_PX)}px`;
    this.#form.style.minHeight = "";
  }
}
