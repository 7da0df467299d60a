// The user ids that this browser has had at the server. A server that has forgotten a guest's session gives a new id;
// messages under the former ids are still the user's own.

import { SERVER } from "./storage.js";

const KEY = `selves.${SERVER}`;
const IDS_MAX = 50;

export class OwnIds {
  #store;
  #ids;

  constructor(store) {
    this.#store = store;
    this.#ids = new Set(store.get(KEY) ?? []);
  }

  has(id) {
    return this.#ids.has(id);
  }

  // Adds the current id as the newest one, and those that other tabs have added.
  add(id) {
    this.#ids = new Set([...(this.#store.get(KEY) ?? []), ...this.#ids]);
    this.#ids.delete(id);
    this.#ids.add(id);
    this.#store.set(KEY, [...this.#ids].slice(-IDS_MAX));
  }
}
