// Who is here: the list beside the room, by name, ourselves first. Who is here twice, as in two tabs, is one person.

const HUES = 8;
// People in the list; those beyond it are only counted. A list of thousands would slow down a phone.
const LISTED_MAX = 1_000;

export class People {
  #list;
  #count;
  #badge;
  #more;
  #template;
  #lang;
  #onMore;
  #self = null;
  // By user id: the name, the element, and by how many connections they are here.
  #people = new Map();
  // The number of people here, with those that the server did not name.
  #total = 0;

  // `onMore` hears about whom more is wanted, and by which button.
  constructor({ list, count, badge, more, template, lang, onMore }) {
    this.#list = list;
    this.#count = count;
    this.#badge = badge;
    this.#more = more;
    this.#template = template;
    this.#lang = lang;
    this.#onMore = onMore;
    this.reset([], 0, null);
  }

  reset(members, total, self) {
    this.#self = self;
    this.#people.clear();
    this.#list.replaceChildren();
    const sorted = [...members].sort((a, b) => this.#compare(a.id, a.username, b.id, b.username));
    for (const { id, username } of sorted) {
      if (!this.#again(id)) this.#list.append(this.#enter(id, username));
    }
    this.#total = this.#people.size + Math.max(0, total - members.length);
    this.#tell();
  }

  // Says whether this one was not here before.
  joined(id, name) {
    if (this.#again(id)) return false;
    this.#place(id, name);
    this.#total += 1;
    this.#tell();
    return true;
  }

  // The presence frame of a large room: how many people there are now, and the names of some that joined or left.
  changed({ member_count: total, joined = [], left = [] }) {
    for (const { id } of left) if (id !== this.#self) this.#remove(id);
    for (const { id, username } of joined) if (!this.#people.has(id)) this.#place(id, username);
    this.#total = total;
    this.#tell();
  }

  // Adds a person to the list by name, if it is not full.
  #place(id, name) {
    if (this.#people.size >= LISTED_MAX) return;
    let next = null;
    for (const other of this.#people.values()) {
      const behind = this.#compare(id, name, other.id, other.name) < 0;
      if (behind && (!next || this.#compare(other.id, other.name, next.id, next.name) < 0)) next = other;
    }
    this.#list.insertBefore(this.#enter(id, name), next?.element ?? null);
  }

  #remove(id) {
    this.#people.get(id)?.element.remove();
    this.#people.delete(id);
  }

  // Says whether this one is not here any more.
  left(id) {
    const person = this.#people.get(id);
    if (person) {
      person.connections -= 1;
      if (person.connections > 0) return false;
      this.#remove(id);
    }
    this.#total = Math.max(this.#people.size, this.#total - 1);
    this.#tell();
    return true;
  }

  translate() {
    const sorted = [...this.#people.values()].sort((a, b) => this.#compare(a.id, a.name, b.id, b.name));
    for (const { name, element } of sorted) {
      this.#word(name, element);
      this.#list.append(element);
    }
    this.#tell();
  }

  #again(id) {
    const person = this.#people.get(id);
    if (person) person.connections += 1;
    return person !== undefined;
  }

  #enter(id, name) {
    const element = this.#template.content.firstElementChild.cloneNode(true);
    element.querySelector(".who").textContent = name;
    dressFace(element.querySelector(".face"), name);
    element.querySelector(".you").hidden = id !== this.#self;
    const more = element.querySelector(".more");
    more.addEventListener("click", () => this.#onMore({ id, name, anchor: more }));
    more.hidden = id === this.#self;
    this.#word(name, element);
    this.#people.set(id, { id, name, element, connections: 1 });
    return element;
  }

  // Writes what depends on the language.
  #word(name, element) {
    element.querySelector(".you").textContent = this.#lang.t("people.you");
    element.querySelector(".more").setAttribute("aria-label", this.#lang.t("member.about", { name }));
  }

  #compare(idA, nameA, idB, nameB) {
    return (idB === this.#self) - (idA === this.#self) || this.#lang.compare(nameA, nameB);
  }

  #tell() {
    // The list may hold people that left a large room without being named, so it can be longer than the count.
    const unnamed = Math.max(0, this.#total - this.#people.size);
    this.#count.textContent = this.#lang.plural("people.count", this.#total);
    this.#badge.textContent = this.#lang.number(this.#total);
    this.#more.hidden = unnamed === 0;
    this.#more.textContent = this.#lang.plural("people.more", unnamed);
  }
}

// The round mark of a person: their first letter, in a colour that stays theirs.
export function dressFace(face, name) {
  face.textContent = firstLetter(name).toLocaleUpperCase();
  face.dataset.hue = hueOf(name);
}

export function hueOf(name) {
  let sum = 0;
  for (const char of name) sum = (sum * 31 + char.codePointAt(0)) >>> 0;
  return sum % HUES;
}

// A Bengali letter bears its vowel sign and joined consonants, so code points would cut it.
function firstLetter(name) {
  if (!Intl.Segmenter) return [...name][0] ?? "";
  const [first] = new Intl.Segmenter(undefined, { granularity: "grapheme" }).segment(name);
  return first?.segment ?? "";
}
