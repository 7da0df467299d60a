// Invitations, to one private room or to register: makes them, shows the link of a new one, lists those that can still
// be used, and takes one back.

import { button, make } from "../ui/elements.js";
import { refusalText } from "../core/error-text.js";
import { ask } from "../net/requests.js";
import { momentWords, spanWords } from "../core/durations.js";

const DAY_S = 86_400;
const USES = [1, 5, 25, 100];
const DAYS = [1, 7, 30];
const DAYS_DEFAULT = 7;

export class Invitations {
  element;
  #lang;
  #room;
  #list = make("ul", { className: "rows" });
  #link = make("div", { className: "made", hidden: true });
  #state = make("p", { className: "wrong", role: "alert" });

  // `room` is none for invitations to register.
  constructor({ lang, room }) {
    this.#lang = lang;
    this.#room = room;
    const uses = choice(lang.t("invite.uses"), USES.map((n) => [n, lang.plural("invite.uses_of", n)]), 1);
    const days = choice(lang.t("invite.days"), DAYS.map((n) => [n, spanWords(lang, n * DAY_S)]), DAYS_DEFAULT);
    const make_ = button(lang.t("invite.make"), "soft", () =>
      this.#orSay(() => this.#make(Number(uses.select.value), Number(days.select.value))),
    );
    this.element = make("div", { className: "invitations" },
      make("div", { className: "pair" }, uses.element, days.element), make_, this.#link, this.#state, this.#list);
  }

  open() {
    return this.#orSay(() => this.#read());
  }

  async #read() {
    const query = this.#room === undefined ? "" : `?room=${encodeURIComponent(this.#room)}`;
    const all = await ask("GET", `api/invitations${query}`);
    this.#list.replaceChildren(...all.map((one) => this.#row(one)));
  }

  #row({ id, uses_left: uses, expires }) {
    const until = momentWords(this.#lang, new Date(expires));
    const words = this.#lang.plural("invite.left", uses, { moment: until });
    return make("li", {}, make("span", {}, words),
      button(this.#lang.t("invite.take_back"), "soft", () =>
        this.#orSay(async () => {
          await ask("DELETE", `api/invitations/${id}`);
          this.#link.hidden = true;
          await this.#read();
        }),
      ));
  }

  async #make(uses, days) {
    const { code } = await ask("POST", "api/invitations", { body: { room: this.#room, uses, days } });
    this.#showLink(code);
    await this.#read();
  }

  // The link is told once; the server keeps only what proves it. Its secret is in the fragment, which no server sees.
  #showLink(code) {
    const link = new URL(location.pathname, location.href);
    link.hash = new URLSearchParams({ invite: code, ...(this.#room === undefined ? {} : { room: this.#room }) });
    const field = make("input", { readOnly: true, value: link.href, "aria-label": this.#lang.t("invite.link") });
    const said = make("span", { className: "said-of", role: "status" });
    field.addEventListener("focus", () => field.select());
    const copy = button(this.#lang.t("invite.copy"), "soft", () => {
      said.textContent = this.#lang.t(copied(field) ? "invite.copied" : "invite.copy_by_hand");
    });
    this.#link.replaceChildren(make("p", {}, this.#lang.t("invite.once")), make("div", { className: "copy" }, field, copy), said);
    this.#link.hidden = false;
    field.focus();
  }

  async #orSay(act) {
    this.#state.textContent = "";
    try {
      await act();
    } catch (error) {
      this.#state.textContent = refusalText(error, this.#lang);
    }
  }
}

// The clipboard of newer pages is only for https://; this old way works on a LAN as well, where the browser lets it.
function copied(field) {
  field.focus();
  field.select();
  try {
    return document.execCommand("copy");
  } catch {
    return false;
  }
}

function choice(label, options, chosen) {
  const select = make("select", {}, ...options.map(([value, words]) => make("option", { value }, words)));
  select.value = String(chosen);
  return { select, element: make("label", { className: "field" }, make("span", {}, label), select) };
}
