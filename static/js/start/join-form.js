// The form at the door: whom one wants to be and where one wants to go, checked as the server checks it.

import { Field, takeAll } from "../ui/field.js";
import { checkName, checkRoom } from "../core/names.js";

export class JoinForm {
  #form;
  #fields;
  #account = null;

  // `onJoin` hears a name and a room that are fit to be sent.
  constructor({ form, lang, onJoin }) {
    this.#form = form;
    const field = (key, input, check) => new Field({ key, input, wrong: form.querySelector(`#${key}-wrong`), check, lang });
    this.#fields = {
      name: field("name", form.elements.username, checkName),
      room: field("room", form.elements.room, checkRoom),
    };
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const { name, room } = this.#fields;
      const taken = takeAll(this.#account ? { room } : { name, room });
      if (taken) onJoin({ name: this.#account?.username ?? taken.name, room: taken.room });
    });
  }

  get name() {
    return this.#fields.name.text;
  }

  fill({ name, room }) {
    this.#fields.name.fill(name);
    this.#fields.room.fill(room);
  }

  // Whoever is logged in has a name.
  setAccount(account) {
    this.#account = account;
    this.#form.querySelector("#name-field").hidden = account !== null;
  }

  // Says beside the name why the server does not let its bearer in.
  refuse(words) {
    this.#fields.name.refuse(words);
  }

  setRoom(room) {
    this.#fields.room.fill(room);
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
