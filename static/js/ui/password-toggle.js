// A button that shows and hides the text of password fields. Its `aria-pressed` says whether the text is visible.

export class PasswordToggle {
  #button;
  #inputs;
  #lang;

  constructor({ button, inputs, lang }) {
    this.#button = button;
    this.#inputs = inputs;
    this.#lang = lang;
    button.addEventListener("click", () => this.#setVisible(!this.#isVisible));
    this.hide();
  }

  // Must run before a form is sent: a browser may save a visible password as ordinary text and suggest it in other
  // forms.
  hide() {
    this.#setVisible(false);
  }

  translate() {
    this.#button.textContent = this.#lang.t(this.#isVisible ? "password.hide" : "password.show");
  }

  get #isVisible() {
    return this.#button.getAttribute("aria-pressed") === "true";
  }

  #setVisible(isVisible) {
    this.#button.setAttribute("aria-pressed", String(isVisible));
    for (const input of this.#inputs) input.type = isVisible ? "text" : "password";
    this.translate();
  }
}
