// The list of unsent messages below the timeline, each with its state and, after a failure, a retry.

import { Code, PageReason, reasonOf } from "../core/codes.js";
import { errorText } from "../core/error-text.js";
import { Rejection } from "../core/rejection.js";
import { cloneTemplate } from "../ui/elements.js";

export class PendingList {
  #list;
  #template;
  #lang;
  #onRetry;
  #onDiscard;
  #elements = new Map();

  // `onRetry` and `onDiscard` are called with the nonce of a failed message.
  constructor({ list, template, lang, onRetry, onDiscard }) {
    this.#list = list;
    this.#template = template;
    this.#lang = lang;
    this.#onRetry = onRetry;
    this.#onDiscard = onDiscard;
  }

  // Shows these messages. `pausedBy` is the rejection after which the outbox waits, or null.
  show(items, pausedBy) {
    const nonces = new Set(items.map(({ nonce }) => nonce));
    for (const [nonce, element] of this.#elements) {
      if (nonces.has(nonce)) continue;
      element.remove();
      this.#elements.delete(nonce);
    }
    for (const [i, item] of items.entries()) {
      if (!this.#elements.has(item.nonce)) this.#elements.set(item.nonce, this.#create(item));
      const element = this.#elements.get(item.nonce);
      this.#update(element, item, pausedBy);
      // An element that is moved loses the focus.
      if (this.#list.children[i] !== element) this.#list.insertBefore(element, this.#list.children[i] ?? null);
    }
  }

  #create({ nonce, content }) {
    const element = cloneTemplate(this.#template);
    element.querySelector(".content").textContent = content;
    element.querySelector(".retry").addEventListener("click", () => this.#onRetry(nonce));
    element.querySelector(".discard").addEventListener("click", () => this.#onDiscard(nonce));
    return element;
  }

  #update(element, item, pausedBy) {
    element.dataset.state = item.state;
    element.querySelector(".state").textContent = this.#stateText(item, pausedBy);
    for (const action of ["retry", "discard"]) {
      const button = element.querySelector(`.${action}`);
      button.textContent = this.#lang.t(`outbox.${action}`);
      button.hidden = item.state !== "failed";
    }
  }

  #stateText({ state, name, ...rejection }, pausedBy) {
    if (state === "failed") {
      const reason = errorText(new Rejection(rejection), this.#lang, { name });
      // Such a message may be stored, so its text must not say that it was not sent.
      return reasonOf(rejection) === PageReason.UNSURE ? reason : this.#lang.t("outbox.failed", { reason });
    }
    if (state !== "queued" || pausedBy === null) return this.#lang.t(`outbox.${state}`);
    // A rate limit is common. A fault of the server is named.
    if (pausedBy.code === Code.RATE_LIMITED) return this.#lang.t("outbox.waiting");
    return this.#lang.t("outbox.will_retry", { reason: errorText(pausedBy, this.#lang) });
  }
}
