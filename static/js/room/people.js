// The list of the people in the room, by name, with the user first. A user with several connections is listed once.

import { fillAvatar } from "../ui/avatar.js";
import { cloneTemplate } from "../ui/elements.js";

// People that are listed. The rest is only counted, because a list of thousands slows a phone down.
const LISTED_MAX = 1_000;

export class People {
  #list;
  #count;
  #badge;
  #more;
  #template;
  #lang;
  #onMore;
  #userId = null;
  // By user id: the name, the element, and the number of connections.
  #people = new Map();
  // The number of people in the room, with those that the server did not name.
  #total = 0;

  // `onMore` is called with the person whose menu button was pressed: `{ id, name, anchor }`.
  constructor({ list, count, badge, more, template, lang, onMore }) {
    this.#list = list;
    this.#count = count;
    this.#badge = badge;
    this.#more = more;
    this.#template = template;
    this.#lang = lang;
    this.#onMore = onMore;
    this.clear();
  }

  // The people are not known.
  clear() {
    this.reset([], 0, null);
  }

  reset(members, total, userId) {
    this.#userId = userId;
    this.#people.clear();
    this.#list.replaceChildren();
    const sorted = [...members].sort((a, b) => this.#compare(a.id, a.username, b.id, b.username));
    for (const { id, username } of sorted) {
      if (!this.#addConnection(id)) this.#list.append(this.#create(id, username));
    }
    this.#total = this.#people.size + Math.max(0, total - members.length);
    this.#showCount();
  }

  // Returns whether the person was not in the room before.
  joined(id, name) {
    if (this.#addConnection(id)) return false;
    this.#insert(id, name);
    this.#total += 1;
    this.#showCount();
    return true;
  }

  // Returns whether the person has left the room with their last connection.
  left(id) {
    const person = this.#people.get(id);
    if (person) {
      person.connections -= 1;
      if (person.connections > 0) return false;
      this.#remove(id);
    }
    this.#total = Math.max(this.#people.size, this.#total - 1);
    this.#showCount();
    return true;
  }

  // Shows a person under another name, unless the list has a newer one already.
  renamed({ user_id: id, content: name, former }) {
    const person = this.#people.get(id);
    if (person?.name !== former) return;
    this.#remove(id);
    this.#insert(id, name);
    this.#people.get(id).connections = person.connections;
  }

  // Applies the `presence` frame of a large room: the number of people, and some that joined or left.
  changed({ member_count: total, joined = [], left = [] }) {
    for (const { id } of left) if (id !== this.#userId) this.#remove(id);
    for (const { id, username } of joined) if (!this.#people.has(id)) this.#insert(id, username);
    this.#total = total;
    this.#showCount();
  }

  translate() {
    const sorted = [...this.#people.values()].sort((a, b) => this.#compare(a.id, a.name, b.id, b.name));
    for (const { name, element } of sorted) {
      this.#translatePerson(name, element);
      this.#list.append(element);
    }
    this.#showCount();
  }

  // Counts one more connection of a listed person. Returns whether the person is listed.
  #addConnection(id) {
    const person = this.#people.get(id);
    if (person) person.connections += 1;
    return person !== undefined;
  }

  // Adds a person at their place by name, unless the list is full.
  #insert(id, name) {
    if (this.#people.size >= LISTED_MAX) return;
    let next = null;
    for (const other of this.#people.values()) {
      const isAfter = this.#compare(id, name, other.id, other.name) < 0;
      if (isAfter && (!next || this.#compare(other.id, other.name, next.id, next.name) < 0)) next = other;
    }
    this.#list.insertBefore(this.#create(id, name), next?.element ?? null);
  }

  #remove(id) {
    this.#people.get(id)?.element.remove();
    this.#people.delete(id);
  }

  #create(id, name) {
    const element = cloneTemplate(this.#template);
    element.querySelector(".username").textContent = name;
    fillAvatar(element.querySelector(".avatar"), name);
    element.querySelector(".self").hidden = id !== this.#userId;
    const more = element.querySelector(".more");
    more.addEventListener("click", () => this.#onMore({ id, name, anchor: more }));
    more.hidden = id === this.#userId;
    this.#translatePerson(name, element);
    this.#people.set(id, { id, name, element, connections: 1 });
    return element;
  }

  #translatePerson(name, element) {
    element.querySelector(".self").textContent = this.#lang.t("people.you");
    element.querySelector(".more").setAttribute("aria-label", this.#lang.t("person.menu", { name }));
  }

  #compare(idA, nameA, idB, nameB) {
    return (idB === this.#userId) - (idA === this.#userId) || this.#lang.compare(nameA, nameB);
  }

  #showCount() {
    // The list may still have people that left a large room without being named, so it can be longer than the count.
    const unlisted = Math.max(0, this.#total - this.#people.size);
    const isKnown = this.#userId !== null;
    this.#count.textContent = isKnown ? this.#lang.plural("people.count", this.#total) : "";
    this.#badge.textContent = isKnown ? this.#lang.number(this.#total) : "";
    this.#more.hidden = unlisted === 0;
    this.#more.textContent = this.#lang.plural("people.more", unlisted);
  }
}
