// Short reports of an action that was done, with a button to undo it. Each is shown for some seconds.

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

  // `undo` is there if the action can be undone. If it fails, `errorTextOf(error)` is shown.
  show(text, { undo, errorTextOf } = {}) {
    const toast = make("div", { className: "toast" }, make("p", {}, text));
    let timer;
    const hold = () => clearTimeout(timer);
    const close = () => {
      hold();
      toast.remove();
    };
    const startTimer = () => {
      hold();
      timer = setTimeout(close, SHOWN_MS);
    };
    if (undo) {
      toast.append(button(this.#lang.t("toast.undo"), "undo", async () => {
        hold();
        try {
          await undo();
          close();
          this.show(this.#lang.t("toast.undone"));
        } catch (error) {
          close();
          this.show(errorTextOf(error));
        }
      }));
    }
    // It stays while the user is about to press the button.
    for (const event of ["pointerenter", "focusin"]) toast.addEventListener(event, hold);
    for (const event of ["pointerleave", "focusout"]) toast.addEventListener(event, startTimer);
    startTimer();
    this.#region.append(toast);
    while (this.#region.children.length > SHOWN_MAX) this.#region.firstElementChild.remove();
  }
}
