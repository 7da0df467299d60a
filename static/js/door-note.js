// What is to be said at the door to somebody who was put out, or is not let in.

// Why one stands at the door, by the code of the refusal or the server's sentence.
const PUT_OUT = new Map([
  ["put_out", "door.put_out"],
  ["made_private", "door.made_private"],
  ["no_room", "door.no_room"],
  ["you are banned here", "door.banned"],
]);

export class DoorNote {
  #element;
  #lang;
  #key = null;
  #values = {};

  constructor({ element, lang }) {
    this.#element = element;
    this.#lang = lang;
  }

  // Says whether there is something to say about it.
  refused({ code, message }, room) {
    const key = PUT_OUT.get(code) ?? PUT_OUT.get(message);
    if (key) this.#tell(key, { room });
    return key !== undefined;
  }

  clear() {
    this.#tell(null);
  }

  translate() {
    this.#tell(this.#key, this.#values);
  }

  #tell(key, values = {}) {
    this.#key = key;
    this.#values = values;
    this.#element.textContent = key === null ? "" : this.#lang.t(key, values);
    this.#element.hidden = key === null;
  }
}
