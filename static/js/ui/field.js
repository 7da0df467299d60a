// A field of a form, and what is wrong with what stands in it. Nobody is corrected in the middle of a first try: it is
// checked when it is sent, and from then on with every key.

export class Field {
  #key;
  #input;
  #wrong;
  #check;
  #lang;
  #isTold = false;
  // Gives the sentence for why the server does not take it; null until it says so, and once it is written anew.
  #refusal = null;

  // `check` gives `{ value }` or `{ problem, max, min }`; the sentence of a problem has the key `wrong.<key>.<problem>`
  // and stands in `wrong`.
  constructor({ key, input, wrong, check, lang }) {
    this.#key = key;
    this.#input = input;
    this.#wrong = wrong;
    this.#check = check;
    this.#lang = lang;
    input.addEventListener("input", () => {
      this.#refusal = null;
      this.translate();
    });
  }

  get text() {
    return this.#input.value;
  }

  // What stands in it when the form is shown; nothing is wrong with that yet.
  fill(text) {
    this.#input.value = text;
    this.#isTold = false;
    this.#refusal = null;
    this.#tell("");
  }

  // The value if it will do; otherwise says beside the field why not.
  take() {
    this.#isTold = true;
    this.#refusal = null;
    return this.#look();
  }

  // `words` gives the sentence in the language of the moment.
  refuse(words) {
    this.#isTold = true;
    this.#refusal = words;
    this.#look();
    this.#input.focus();
  }

  focus() {
    this.#input.focus();
  }

  translate() {
    if (this.#isTold) this.#look();
  }

  #look() {
    const { value, problem, max, min } = this.#check(this.#input.value);
    if (problem) this.#tell(this.#lang.t(`wrong.${this.#key}.${problem}`, { max, min }));
    else this.#tell(this.#refusal?.() ?? "");
    return value;
  }

  #tell(sentence) {
    if (this.#wrong.textContent !== sentence) this.#wrong.textContent = sentence;
    this.#input.setAttribute("aria-invalid", String(sentence !== ""));
  }
}

// The values of some fields by their names if all will do; otherwise leads to the first that will not.
export function takeAll(fields) {
  const values = {};
  let firstWrong = null;
  for (const [name, field] of Object.entries(fields)) {
    values[name] = field.take();
    if (values[name] === undefined) firstWrong ??= field;
  }
  firstWrong?.focus();
  return firstWrong ? null : values;
}
