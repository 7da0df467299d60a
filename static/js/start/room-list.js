// The rooms that are open now, offered at the door.

const LISTED_MAX = 200;
const SHOWN_MAX = 12;
const REFRESH_MS = 10_000;

export class Rooms {
  #section;
  #list;
  #template;
  #lang;
  #onPick;
  #rooms = [];
  #timer = null;

  constructor({ section, list, template, lang, onPick }) {
    this.#section = section;
    this.#list = list;
    this.#template = template;
    this.#lang = lang;
    this.#onPick = onPick;
  }

  // Keeps the list fresh until `close`.
  open() {
    this.close();
    const look = () => document.visibilityState === "visible" && this.#look();
    look();
    this.#timer = setInterval(look, REFRESH_MS);
  }

  close() {
    clearInterval(this.#timer);
    this.#timer = null;
    this.#rooms = [];
    this.#show();
  }

  translate() {
    this.#show();
  }

  async #look() {
    try {
      const answer = await fetch(`api/rooms?limit=${LISTED_MAX}`);
      if (!answer.ok) return;
      const { data } = await answer.json();
      if (this.#timer === null) return;
      this.#rooms = data;
      this.#rooms.sort((a, b) => b.client_count - a.client_count || this.#lang.compare(a.name, b.name));
      this.#show();
    } catch {
      // The list is an offer; without it one still types a name.
    }
  }

  #show() {
    const elements = this.#rooms.slice(0, SHOWN_MAX).map(({ id, name, client_count: count }) => {
      const element = this.#template.content.firstElementChild.cloneNode(true);
      element.querySelector(".room").textContent = name;
      element.querySelector(".count").textContent = this.#lang.plural("form.here", count);
      element.querySelector("button").addEventListener("click", () => this.#onPick(id));
      return element;
    });
    // A list that did not change keeps its buttons, and with them the keyboard's focus.
    const same = elements.length === this.#list.children.length
      && elements.every((element, i) => element.isEqualNode(this.#list.children[i]));
    if (!same) this.#list.replaceChildren(...elements);
    this.#section.hidden = elements.length === 0;
  }
}
