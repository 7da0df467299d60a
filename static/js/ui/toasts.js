// Says what was done, for a while, and offers to undo it.

import { button, make } from "./elements.js";

const SHOWN_MS = 12_000;
const SHOWN_MAX = 3;

export class Toasts {
  #region;
  #lang;

  constructor({ region, lang }) {
    this.#region = region;
    this.#lang = lang;
  }

  // `undo`, if it can be undone, may fail; `whyNot` says why.
  tell(words, { undo, whyNot } = {}) {
    const toast = make("div", { className: "toast" }, make("p", { dir: "auto" }, words));
    let timer;
    const end = () => {
      clearTimeout(timer);
      toast.remove();
    };
    const begin = () => {
      clearTimeout(timer);
      timer = setTimeout(end, SHOWN_MS);
    };
    if (undo) {
      toast.append(button(this.#lang.t("toast.undo"), "undo", async () => {
        clearTimeout(timer);
        try {
          await undo();
          end();
          this.tell(this.#lang.t("toast.undone"));
        } catch (error) {
          end();
          this.tell(whyNot(error));
        }
      }));
    }
    // Whoever is about to press it has the time for it.
    for (const stay of ["pointerenter", "focusin"]) toast.addEventListener(stay, () => clearTimeout(timer));
    for (const go of ["pointerleave", "focusout"]) toast.addEventListener(go, begin);
    begin();
    this.#region.append(toast);
    while (this.#region.children.length > SHOWN_MAX) this.#region.firstElementChild.remove();
  }

  clear() {
    this.#region.replaceChildren();
  }
}
