// The form of the start screen: name and room, checked as the server checks them.

import { checkName, checkRoom } from "../core/names.js";
import { Field, submitFields } from "../ui/field.js";

export class JoinForm {
  #form;
  #fields;
  #account = null;

  // `onJoin` is called with a valid name and room.
  constructor({ form, lang, onJoin }) {
    this.#form = form;
    const field = (key, input, check) =>
      new Field({ key, input, error: form.querySelector(`#${key}-error`), check, lang });
    this.#fields = {
      name: field("name", form.elements.username, checkName),
      room: field("room", form.elements.room, checkRoom),
    };
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const { name, room } = this.#fields;
      const values = submitFields(this.#account ? { room } : { name, room });
      if (values) onJoin({ name: this.#account?.username ?? values.name, room: values.room });
    });
  }

  get name() {
    return this.#fields.name.text;
  }

  get room() {
    return this.#fields.room.text;
  }

  set room(room) {
    this.#fields.room.fill(room);
  }

  fill({ name, room }) {
    this.#fields.name.fill(name);
    this.#fields.room.fill(room);
  }

  // A user with an account has a name already.
  setAccount(account) {
    this.#account = account;
    this.#form.querySelector("#name-field").hidden = account !== null;
  }

  // Shows why the server rejects the name. `text()` returns it in the current language.
  rejectName(text) {
    this.#fields.name.reject(text);
  }

  focus() {
    const { name, room } = this.#fields;
    if (this.#account || (name.text !== "" && room.text === "")) room.focus();
    else name.focus();
  }

  submit() {
    this.#form.requestSubmit();
  }

  translate() {
    for (const field of Object.values(this.#fields)) field.translate();
  }
}
