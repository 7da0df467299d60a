// What the browser keeps for us, as JSON values by key. It may refuse (blocked site data, a full quota): then a
// Map stands in, and the page works as before but forgets on a reload.

const PREFIX = "adda.";

// The server at this address; another one may be beside it, behind the same host.
export const SERVER = new URL(".", document.baseURI).pathname;

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

  // The keys that begin so.
  keys(prefix) {
    const kept = [...this.#memory.keys()];
    try {
      for (const key of Object.keys(this.#area)) if (key.startsWith(PREFIX)) kept.push(key.slice(PREFIX.length));
    } catch {
      // What we hold ourselves is all there is.
    }
    return [...new Set(kept)].filter((key) => key.startsWith(prefix));
  }

  // Calls `hear` when another tab changes what stands under keys that begin so, or (with true) empties the store.
  watch(prefix, hear, signal) {
    const heard = ({ storageArea, key }) => {
      if (storageArea !== this.#area) return;
      if (key === null || key.startsWith(PREFIX + prefix)) hear(key === null);
    };
    window.addEventListener("storage", heard, { signal });
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

// Choices, whom we have been to the server, and messages on their way: shared by all tabs of this browser.
export const choices = new Store("localStorage");
// What belongs to this tab and must outlive a reload: the room it is in, the draft.
export const tab = new Store("sessionStorage");
