// The elements of the timeline's lines: makes them, and writes the parts that depend on the language or change later.

import { isAnnouncement, isDeleted, isMessage } from "../core/timeline-model.js";
import { fillAvatar, fillName } from "../ui/avatar.js";
import { cloneTemplate, setPieces } from "../ui/elements.js";

export class LineElements {
  #templates;
  #lang;
  #deletionOf;

  // `templates` has those of a `message` and of any other `line`. `deletionOf` returns the `delete` frame of a message
  // id.
  constructor({ templates, lang, deletionOf }) {
    this.#templates = templates;
    this.#lang = lang;
    this.#deletionOf = deletionOf;
  }

  create(line) {
    const element = isMessage(line) ? this.#createMessage(line) : this.#createLine(line);
    this.update(line, element);
    return element;
  }

  // Writes what can change: the group, a deletion, and the language.
  update(line, element) {
    if (isMessage(line)) this.#updateMessage(line, element);
    else this.#updateLine(line, element.querySelector("span"));
  }

  #createMessage({ frame, own }) {
    const element = cloneTemplate(this.#templates.message);
    element.classList.add(own ? "own" : "other");
    element.dataset.id = frame.id;
    fillAvatar(element.querySelector(".avatar"), frame.username);
    fillName(element.querySelector(".username"), frame.username);
    element.querySelector(".content").textContent = frame.content;
    if (isAnnouncement(frame)) element.classList.add("announcement");
    else element.querySelector(".message-kind").remove();
    return element;
  }

  #createLine({ kind }) {
    const element = cloneTemplate(this.#templates.line);
    element.classList.add(kind);
    return element;
  }

  #updateMessage({ frame, date, follows }, element) {
    element.classList.toggle("follows", follows);
    element.classList.toggle("deleted", isDeleted(frame));
    const time = element.querySelector("time");
    time.dateTime = date.toISOString();
    time.textContent = this.#lang.time(date);
    time.title = this.#lang.moment(date);
    const more = this.#lang.t("message.more", { name: frame.username });
    element.querySelector(".more").setAttribute("aria-label", more);
    if (isDeleted(frame)) setPieces(element.querySelector(".content"), this.#deletedPieces(frame));
    const kind = element.querySelector(".message-kind");
    if (isAnnouncement(frame)) kind.textContent = this.#lang.t("message.announcement");
  }

  #updateLine({ kind, frame, date }, element) {
    if (kind === "day") {
      element.textContent = this.#lang.day(date);
      element.parentElement.title = this.#lang.date(date);
    } else setPieces(element, this.#lang.pieces(`line.${kind}`, { name: frame?.username, former: frame?.former }));
  }

  // The text of a deleted message names the deleting user, unless the author deleted it.
  #deletedPieces({ id, user_id: author }) {
    const deletion = this.#deletionOf(id);
    if (!deletion || deletion.user_id === author) return this.#lang.pieces("message.deleted");
    return this.#lang.pieces("message.deleted_by", { name: deletion.username });
  }
}
