// The browser's storage, with JSON values by key. Where the browser refuses to store (blocked site data, a full quota),
// a `Map` holds the values until the page is reloaded.

const PREFIX = "adda.";

// The path of this server. Another server may share the origin.
export const SERVER = new URL(".", location.href).pathname;

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

  // The keys with this prefix.
  keys(prefix) {
    const keys = [...this.#memory.keys()];
    try {
      for (const key of Object.keys(this.#area)) if (key.startsWith(PREFIX)) keys.push(key.slice(PREFIX.length));
    } catch {
      // Without storage the keys in memory are all.
    }
    return [...new Set(keys)].filter((key) => key.startsWith(prefix));
  }

  // Calls `onChange(isCleared)` when another tab changes a value whose key has this prefix, or clears the storage.
  watch(prefix, onChange, signal) {
    const changed = ({ storageArea, key }) => {
      if (storageArea !== this.#area) return;
      if (key === null || key.startsWith(PREFIX + prefix)) onChange(key === null);
    };
    window.addEventListener("storage", changed, { signal });
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
      // Nothing was stored.
    }
  }
}

// Shared by all tabs of the browser: the language, the account, the user's ids, and unsent messages.
export const browserStore = new Store("localStorage");
// Kept by one tab through a reload: its room, and its drafts.
export const tabStore = new Store("sessionStorage");
