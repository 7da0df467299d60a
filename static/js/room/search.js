// The search in the messages of the room, newest first.

import { markWords } from "../core/marks.js";
import { isMessageFrame, readHistory } from "../net/history.js";
import { fillAvatar, fillName } from "../ui/avatar.js";
import { cloneTemplate, setText } from "../ui/elements.js";

const PAGE = 20;
// A pause in typing that starts the search.
const PAUSE_MS = 300;

export class Search {
  #form;
  #input;
  #state;
  #list;
  #more;
  #retry;
  #template;
  #lang;
  #onPick;
  #room = null;
  #query = "";
  // The results, each `{ frame, element }`, and the id from which the next page goes on.
  #results = [];
  #next;
  // "hint", "loading", "found", "nothing", "failed" or "open_failed" (of a result).
  #status = "hint";
  #timer;
  #ended = new AbortController();

  // `state` is the element for the status. `onPick` is called with the frame of a result. If it rejects, the search
  // says so.
  constructor({ form, state, list, more, retry, template, lang, onPick }) {
    this.#form = form;
    this.#input = form.elements.query;
    this.#state = state;
    this.#list = list;
    this.#more = more;
    this.#retry = retry;
    this.#template = template;
    this.#lang = lang;
    this.#onPick = onPick;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#search();
    });
    this.#input.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#search(), PAUSE_MS);
    });
    more.addEventListener("click", () => this.#readPage());
    retry.addEventListener("click", () => this.#readPage());
  }

  // Results are kept while the user is in the room, so that one can be opened after the other.
  open(room) {
    if (room !== this.#room) this.reset();
    this.#room = room;
    this.translate();
    this.#input.focus();
    this.#input.select();
  }

  reset() {
    this.#stop();
    this.#room = null;
    this.#input.value = "";
    this.#begin("");
  }

  // Removes a deleted message from the results.
  deleted({ message_id: id }) {
    const index = this.#results.findIndex(({ frame }) => frame.id === id);
    if (index < 0) return;
    const [{ element }] = this.#results.splice(index, 1);
    element.remove();
    if (this.#results.length === 0 && this.#status === "found" && this.#next === undefined) this.#setStatus("nothing");
  }

  translate() {
    this.showTimes();
    this.#setStatus(this.#status);
  }

  showTimes() {
    for (const result of this.#results) this.#showTime(result);
  }

  #search() {
    const query = this.#input.value.trim();
    clearTimeout(this.#timer);
    if (query === this.#query && this.#status !== "failed") return;
    this.#begin(query);
    if (query !== "") this.#readPage();
  }

  #begin(query) {
    this.#stop();
    this.#query = query;
    this.#results = [];
    this.#next = undefined;
    this.#list.replaceChildren();
    this.#setStatus("hint");
  }

  async #readPage() {
    this.#stop();
    const { signal } = this.#ended;
    // After a press of "Show more" the focus moves to the first new result.
    const movesFocus = document.activeElement === this.#more;
    const firstNew = this.#results.length;
    this.#setStatus("loading");
    try {
      // A search that takes long is answered in several pages, which may be empty.
      do {
        const page = await readHistory(this.#room, { query: this.#query, before: this.#next, limit: PAGE }, signal);
        if (signal.aborted) return;
        for (const frame of page.data.filter(isMessageFrame).reverse()) this.#add(frame);
        this.#next = page.next;
      } while (this.#results.length === firstNew && this.#next !== undefined);
      this.#setStatus(this.#results.length > 0 ? "found" : "nothing");
      if (movesFocus) this.#results[firstNew]?.element.querySelector("button").focus();
    } catch {
      if (!signal.aborted) this.#setStatus("failed");
    }
  }

  #add(frame) {
    const element = cloneTemplate(this.#template);
    fillAvatar(element.querySelector(".avatar"), frame.username);
    fillName(element.querySelector(".username"), frame.username);
    element.querySelector(".content").append(...markWords(frame.content, this.#query).map(nodeOf));
    element.querySelector("button").addEventListener("click", () => this.#pick(frame));
    const result = { frame, element };
    this.#results.push(result);
    this.#showTime(result);
    this.#list.append(element);
  }

  #showTime({ frame, element }) {
    const date = new Date(frame.timestamp);
    const time = element.querySelector("time");
    time.dateTime = frame.timestamp;
    time.textContent = `${this.#lang.day(date)}, ${this.#lang.time(date)}`;
  }

  async #pick(frame) {
    try {
      await this.#onPick(frame);
    } catch {
      this.#setStatus("open_failed");
    }
  }

  #setStatus(status) {
    this.#status = status;
    this.#state.dataset.state = status;
    setText(this.#state, status === "found" ? "" : this.#lang.t(`search.${status}`, { words: this.#query }));
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

function nodeOf({ text, marked }) {
  if (!marked) return document.createTextNode(text);
  const mark = document.createElement("mark");
  mark.textContent = text;
  return mark;
}
