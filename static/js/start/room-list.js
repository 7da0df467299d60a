// The rooms with people in them, on the start screen.

import { request } from "../net/requests.js";
import { cloneTemplate } from "../ui/elements.js";
import { isPageVisible } from "../ui/page-events.js";

const REQUESTED_MAX = 200;
const SHOWN_MAX = 12;
const REFRESH_MS = 10_000;

export class RoomList {
  #section;
  #list;
  #template;
  #lang;
  #onPick;
  #rooms = [];
  #timer = null;

  // `onPick` is called with the id of the room that was pressed.
  constructor({ section, list, template, lang, onPick }) {
    this.#section = section;
    this.#list = list;
    this.#template = template;
    this.#lang = lang;
    this.#onPick = onPick;
  }

  // Refreshes the list until `close`.
  open() {
    this.close();
    const refresh = () => isPageVisible() && this.#read();
    refresh();
    this.#timer = setInterval(refresh, REFRESH_MS);
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

  async #read() {
    try {
      const { data } = await request("GET", `api/rooms?sort=active&limit=${REQUESTED_MAX}`);
      if (this.#timer === null) return;
      this.#rooms = data;
      // Among rooms with as many people, the server's order stays: the latest message first.
      this.#rooms.sort((a, b) => b.client_count - a.client_count);
      this.#show();
    } catch {
      // The form works without the list.
    }
  }

  #show() {
    const elements = this.#rooms.slice(0, SHOWN_MAX).map((room) => this.#create(room));
    // An unchanged list keeps its buttons, and with them the focus.
    const isSame = elements.length === this.#list.children.length
      && elements.every((element, i) => element.isEqualNode(this.#list.children[i]));
    if (!isSame) this.#list.replaceChildren(...elements);
    this.#section.hidden = elements.length === 0;
  }

  // Whether a room is listed as a private room that the user is no member of.
  isClosed(id) {
    return this.#rooms.some((room) => room.id === id && room.member === false);
  }

  #create({ id, name, client_count: count, private: isPrivate = false }) {
    const element = cloneTemplate(this.#template);
    element.querySelector(".room").textContent = name;
    const lock = element.querySelector(".lock");
    lock.toggleAttribute("hidden", !isPrivate);
    lock.setAttribute("aria-label", this.#lang.t("room.private_icon"));
    element.querySelector(".count").textContent = this.#lang.plural("start.people", count);
    element.querySelector("button").addEventListener("click", () => this.#onPick(id));
    return element;
  }
}
