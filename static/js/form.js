// The door: who one is and where one wants to go, checked as the server checks it.

import { checkName, checkRoom } from "./names.js";

// Why the server does not let one in, by its code.
const REFUSALS = new Map([
  ["bad_name", "refused.name"],
  ["login", "refused.login"],
  ["forbidden", "refused.forbidden"],
]);

export class JoinForm {
  #form;
  #fields;
  #lang;
  #onJoin;
  #refusal = null;

  // `onJoin` hears a name and a room that are fit to be sent.
  constructor({ form, lang, onJoin }) {
    this.#form = form;
    this.#lang = lang;
    this.#onJoin = onJoin;
    this.#fields = new Map([
      ["name", field("name", form.elements.username, form.querySelector("#name-wrong"), checkName)],
      ["room", field("room", form.elements.room, form.querySelector("#room-wrong"), checkRoom)],
    ]);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    // What was found wrong is checked again with every key, but nobody is corrected in the middle of a first try.
    for (const field of this.#fields.values()) {
      field.input.addEventListener("input", () => this.#changed(field));
    }
  }

  fill({ name, room }) {
    this.#fields.get("name").input.value = name;
    this.#fields.get("room").input.value = room;
  }

  // Says beside the name why the server does not let its bearer in: in words of ours, or else in the server's.
  refuse(code, sentence) {
    this.#refusal = { code, sentence };
    const name = this.#fields.get("name");
    name.told = true;
    this.#check(name);
    name.input.focus();
  }

  setRoom(room) {
    this.#fields.get("room").input.value = room;
  }

  focus() {
    const empty = [...this.#fields.values()].find(({ input }) => input.value === "");
    (empty?.input ?? this.#form.elements.username).focus();
  }

  submit() {
    const values = new Map();
    let firstWrong = null;
    this.#refusal = null;
    for (const [key, field] of this.#fields) {
      field.told = true;
      const value = this.#check(field);
      if (value === undefined) firstWrong ??= field;
      values.set(key, value);
    }
    if (firstWrong) firstWrong.input.focus();
    else this.#onJoin({ name: values.get("name"), room: values.get("room") });
  }

  translate() {
    for (const field of this.#fields.values()) if (field.told) this.#check(field);
  }

  #changed(field) {
    if (field.key === "name") this.#refusal = null;
    if (field.told) this.#check(field);
  }

  #refusalText({ code, sentence }) {
    const key = REFUSALS.get(code);
    return key ? this.#lang.t(key) : this.#lang.t("refused.other", { sentence });
  }

  // The value if it will do; otherwise says beside the field why not.
  #check(field) {
    const { value, problem, max } = field.check(field.input.value);
    const refusal = field.key === "name" ? this.#refusal : null;
    let sentence = problem ? this.#lang.t(`wrong.${field.key}.${problem}`, { max }) : "";
    if (refusal && !problem) sentence = this.#refusalText(refusal);
    if (field.wrong.textContent !== sentence) field.wrong.textContent = sentence;
    field.input.setAttribute("aria-invalid", String(sentence !== ""));
    return value;
  }
}

// `told` once its problem was shown.
function field(key, input, wrong, check) {
  return { key, input, wrong, check, told: false };
}
