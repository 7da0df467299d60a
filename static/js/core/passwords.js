// What may be a password: as far as the page can know it, the same as the server's `src/auth/password.rs`, which also
// turns away what is guessed at once.

export const PASSWORD_CHARS_MIN = 8;
export const PASSWORD_BYTES_MAX = 1024;

// One that is shown: any that could have been taken.
export function checkShown(text) {
  if (text === "") return { problem: "empty" };
  if (new TextEncoder().encode(text.normalize("NFC")).length > PASSWORD_BYTES_MAX) return { problem: "too_long" };
  return { value: text };
}

export function checkNew(text) {
  const shown = checkShown(text);
  if (shown.problem || [...text.normalize("NFC")].length >= PASSWORD_CHARS_MIN) return shown;
  return { problem: "too_short", min: PASSWORD_CHARS_MIN };
}

// Lets one look at what one types. `button` says in `aria-pressed` whether it is shown.
export class Reveal {
  #button;
  #inputs;
  #lang;

  constructor({ button, inputs, lang }) {
    this.#button = button;
    this.#inputs = inputs;
    this.#lang = lang;
    button.addEventListener("click", () => this.#show(button.getAttribute("aria-pressed") !== "true"));
    this.hide();
  }

  // Before a form is sent, or a browser takes its password for a text that it may offer elsewhere.
  hide() {
    this.#show(false);
  }

  translate() {
    const isShown = this.#button.getAttribute("aria-pressed") === "true";
    this.#button.textContent = this.#lang.t(isShown ? "password.hide" : "password.show");
  }

  #show(isShown) {
    this.#button.setAttribute("aria-pressed", String(isShown));
    for (const input of this.#inputs) input.type = isShown ? "text" : "password";
    this.translate();
  }
}
