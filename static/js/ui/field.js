// An input of a form with its error. The input is checked when the form is submitted, and from then on with each key,
// so that no error appears in the middle of a first try.

import { setText } from "./elements.js";

export class Field {
  #key;
  #input;
  #error;
  #check;
  #lang;
  #wasSubmitted = false;
  // Returns the text of the server's rejection of this value; null if there is none.
  #rejectionText = null;

  // `check` returns `{ value }` or `{ problem, max, min }`. The text of a problem has the key `field.<key>.<problem>`.
  // It is shown in the element `error`.
  constructor({ key, input, error, check, lang }) {
    this.#key = key;
    this.#input = input;
    this.#error = error;
    this.#check = check;
    this.#lang = lang;
    input.addEventListener("input", () => {
      this.#rejectionText = null;
      this.translate();
    });
  }

  get text() {
    return this.#input.value;
  }

  // Sets the input, and removes the error.
  fill(text) {
    this.#input.value = text;
    this.#wasSubmitted = false;
    this.#rejectionText = null;
    this.#showError("");
  }

  // The value if it is valid. Otherwise shows the error.
  submit() {
    this.#wasSubmitted = true;
    this.#rejectionText = null;
    return this.#validate();
  }

  // Shows the server's rejection. `text()` returns it in the current language.
  reject(text) {
    this.#wasSubmitted = true;
    this.#rejectionText = text;
    this.#validate();
    this.#input.focus();
  }

  focus() {
    this.#input.focus();
  }

  translate() {
    if (this.#wasSubmitted) this.#validate();
  }

  #validate() {
    const { value, problem, max, min } = this.#check(this.#input.value);
    if (problem) this.#showError(this.#lang.t(`field.${this.#key}.${problem}`, { max, min }));
    else this.#showError(this.#rejectionText?.() ?? "");
    return value;
  }

  #showError(text) {
    setText(this.#error, text);
    this.#input.setAttribute("aria-invalid", String(text !== ""));
  }
}

// The values of fields, by the fields' names, if all are valid. Otherwise null; the first invalid field has the focus.
export function submitFields(fields) {
  const values = {};
  let firstInvalid = null;
  for (const [name, field] of Object.entries(fields)) {
    values[name] = field.submit();
    if (values[name] === undefined) firstInvalid ??= field;
  }
  firstInvalid?.focus();
  return firstInvalid ? null : values;
}
