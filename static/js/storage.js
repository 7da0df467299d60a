// What the browser keeps for us, as JSON values by key. It may refuse (blocked site data, a full quota): then a
// Map stands in, and the page works as before but forgets on a reload.

const PREFIX = "adda.";

class Store {
  #area;
  #memory = new Map();

  constructor(areaName) {
    try {
      this.#area = globalThis[areaName];
    } catch {
      this.#area = null;
    }
  }

  get(key) {
    if (this.#memory.has(key)) return this.#memory.get(key);
    try {
      return JSON.parse(this.#area.getItem(PREFIX + key));
    } catch {
      return null;
    }
  }

  set(key, value) {
    try {
      this.#area.setItem(PREFIX + key, JSON.stringify(value));
      this.#memory.delete(key);
    } catch {
      this.#memory.set(key, value);
    }
  }

  remove(key) {
    this.#memory.delete(key);
    try {
      this.#area.removeItem(PREFIX + key);
    } catch {
      // A store that refuses has nothing to forget.
    }
  }
}

// Choices, and who we are to the server: shared by all tabs of this browser.
export const choices = new Store("localStorage");
// What belongs to this tab and must outlive a reload: the room it is in, the draft, messages on their way.
export const tab = new Store("sessionStorage");
