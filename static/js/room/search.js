// Looks for words in what was said in the room, newest first, and goes to what was found.

import { isMessage, readHistory } from "../net/history.js";
import { markWords } from "../core/marks.js";
import { dressFace, hueOf } from "./people.js";

const PAGE = 20;
// A pause in typing that is long enough to look.
const PAUSE_MS = 300;

export class Search {
  #form;
  #field;
  #state;
  #list;
  #more;
  #retry;
  #template;
  #lang;
  #onPick;
  #room = null;
  // What was asked for, what was found, and where it goes on.
  #asked = "";
  #found = [];
  #next;
  #status = "hint";
  #timer;
  #ended = new AbortController();

  // `state` is the line that says how it went; `onPick` hears the frame of the message to go to, and may reject.
  constructor({ form, state, list, more, retry, template, lang, onPick }) {
    this.#form = form;
    this.#field = form.elements.words;
    this.#state = state;
    this.#list = list;
    this.#more = more;
    this.#retry = retry;
    this.#template = template;
    this.#lang = lang;
    this.#onPick = onPick;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#ask();
    });
    this.#field.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#ask(), PAUSE_MS);
    });
    more.addEventListener("click", () => this.#read());
    retry.addEventListener("click", () => this.#read());
  }

  // What was found in a room stays while one is in it, so that one can look at one result after another.
  open(room) {
    if (room !== this.#room) this.forget();
    this.#room = room;
    this.translate();
    this.#field.focus();
    this.#field.select();
  }

  forget() {
    this.#stop();
    this.#room = null;
    this.#field.value = "";
    this.#begin("");
  }

  // A message is deleted: what was found of it goes.
  deleted({ message_id: id }) {
    const at = this.#found.findIndex(({ frame }) => frame.id === id);
    if (at < 0) return;
    const [{ element }] = this.#found.splice(at, 1);
    element.remove();
    if (this.#found.length === 0 && this.#status === "found" && this.#next === undefined) this.#tell("nothing");
  }

  translate() {
    for (const result of this.#found) this.#word(result);
    this.#tell(this.#status);
  }

  #ask() {
    const asked = this.#field.value.trim();
    clearTimeout(this.#timer);
    if (asked === this.#asked && this.#status !== "failed") return;
    this.#begin(asked);
    if (asked !== "") this.#read();
  }

  #begin(asked) {
    this.#stop();
    this.#asked = asked;
    this.#found = [];
    this.#next = undefined;
    this.#list.replaceChildren();
    this.#tell("hint");
  }

  // Reads the next page of what is asked for.
  async #read() {
    this.#stop();
    const { signal } = this.#ended;
    // Who asks for more by the keyboard goes on from the first that comes.
    const goesOn = document.activeElement === this.#more;
    const known = this.#found.length;
    this.#tell("loading");
    try {
      const { data, next } = await readHistory(this.#room, { words: this.#asked, before: this.#next, limit: PAGE }, signal);
      if (signal.aborted) return;
      for (const frame of data.filter(isMessage).reverse()) this.#add(frame);
      this.#next = next;
      this.#tell(this.#found.length > 0 || next !== undefined ? "found" : "nothing");
      if (goesOn) this.#found[known]?.element.querySelector("button").focus();
    } catch {
      if (!signal.aborted) this.#tell("failed");
    }
  }

  #add(frame) {
    const element = this.#template.content.firstElementChild.cloneNode(true);
    dressFace(element.querySelector(".face"), frame.username);
    const who = element.querySelector(".who");
    who.textContent = frame.username;
    who.dataset.hue = hueOf(frame.username);
    element.querySelector(".said").append(...markWords(frame.content, this.#asked).map(pieceOf));
    element.querySelector("button").addEventListener("click", () => this.#pick(frame));
    const result = { frame, element };
    this.#found.push(result);
    this.#word(result);
    this.#list.append(element);
  }

  // Writes what depends on the language.
  #word({ frame, element }) {
    const date = new Date(frame.timestamp);
    const time = element.querySelector("time");
    time.dateTime = frame.timestamp;
    time.textContent = `${this.#lang.day(date)}, ${this.#lang.time(date)}`;
  }

  async #pick(frame) {
    try {
      await this.#onPick(frame);
    } catch {
      this.#tell("lost");
    }
  }

  #tell(status) {
    this.#status = status;
    this.#state.dataset.state = status;
    // What was found speaks for itself.
    const words = status === "found" ? "" : this.#lang.t(`search.${status}`, { words: this.#asked });
    if (this.#state.textContent !== words) this.#state.textContent = words;
    this.#more.hidden = status !== "found" || this.#next === undefined;
    this.#retry.hidden = status !== "failed";
    this.#form.ariaBusy = String(status === "loading");
  }

  #stop() {
    clearTimeout(this.#timer);
    this.#ended.abort();
    this.#ended = new AbortController();
  }
}

function pieceOf({ text, marked }) {
  if (!marked) return document.createTextNode(text);
  const mark = document.createElement("mark");
  mark.textContent = text;
  return mark;
}
