// Invitations to a private room or to register: creates them, shows the link of a new one, lists those that can still
// be used, and revokes them.

import { durationText, timeText } from "../core/durations.js";
import { errorText } from "../core/error-text.js";
import { requestData } from "../net/requests.js";
import { button, make } from "../ui/elements.js";

const DAY_S = 86_400;
const USES = [1, 5, 25, 100];
const USES_DEFAULT = 1;
const DAYS = [1, 7, 30];
const DAYS_DEFAULT = 7;

export class Invitations {
  element;
  #lang;
  #room;
  #list = make("ul", { className: "rows" });
  #link = make("div", { className: "new-invitation", hidden: true });
  #error = make("p", { className: "error", role: "alert" });

  // Without a `room` the invitations are to register.
  constructor({ lang, room }) {
    this.#lang = lang;
    this.#room = room;
    const usesOptions = USES.map((n) => [n, lang.plural("invite.uses_count", n)]);
    const daysOptions = DAYS.map((n) => [n, durationText(lang, n * DAY_S)]);
    const uses = labelledSelect(lang.t("invite.uses"), usesOptions, USES_DEFAULT);
    const days = labelledSelect(lang.t("invite.days"), daysOptions, DAYS_DEFAULT);
    const create = button(lang.t("invite.create"), "secondary", () =>
      this.#showFailure(() => this.#create(Number(uses.select.value), Number(days.select.value))),
    );
    this.element = make("div", { className: "invitations" },
      make("div", { className: "columns" }, uses.element, days.element), create, this.#link, this.#error, this.#list);
  }

  open() {
    return this.#showFailure(() => this.#read());
  }

  async #read() {
    const query = this.#room === undefined ? "" : `?room=${encodeURIComponent(this.#room)}`;
    const invitations = await requestData("GET", `api/invitations${query}`);
    this.#list.replaceChildren(...invitations.map((invitation) => this.#row(invitation)));
  }

  #row({ id, uses_left: usesLeft, expires }) {
    const moment = timeText(this.#lang, new Date(expires));
    const revoke = async () => {
      await requestData("DELETE", `api/invitations/${id}`);
      this.#link.hidden = true;
      await this.#read();
    };
    return make("li", {},
      make("span", {}, this.#lang.plural("invite.left", usesLeft, { moment })),
      button(this.#lang.t("invite.revoke"), "secondary", () => this.#showFailure(revoke)));
  }

  async #create(uses, days) {
    const { code } = await requestData("POST", "api/invitations", { body: { room: this.#room, uses, days } });
    this.#showLink(code);
    await this.#read();
  }

  // The server shows the code once and keeps only its hash. The code is in the fragment of the link, which a browser
  // sends to no server.
  #showLink(code) {
    const link = new URL(location.pathname, location.href);
    link.hash = new URLSearchParams({ invite: code, ...(this.#room === undefined ? {} : { room: this.#room }) });
    const input = make("input", { readOnly: true, value: link.href, "aria-label": this.#lang.t("invite.link") });
    const status = make("span", { className: "copy-status", role: "status" });
    input.addEventListener("focus", () => input.select());
    const copy = button(this.#lang.t("invite.copy"), "secondary", () => {
      status.textContent = this.#lang.t(copyText(input) ? "invite.copied" : "invite.copy_failed");
    });
    this.#link.replaceChildren(
      make("p", {}, this.#lang.t("invite.shown_once")), make("div", { className: "copy" }, input, copy), status);
    this.#link.hidden = false;
    input.focus();
  }

  async #showFailure(action) {
    this.#error.textContent = "";
    try {
      await action();
    } catch (error) {
      this.#error.textContent = errorText(error, this.#lang);
    }
  }
}

// Copies the text of an input, and returns whether the browser allowed it. The modern clipboard is for https:// only;
// this old command also works on plain http://.
function copyText(input) {
  input.focus();
  input.select();
  try {
    return document.execCommand("copy");
  } catch {
    return false;
  }
}

function labelledSelect(label, options, value) {
  const select = make("select", {}, ...options.map(([each, text]) => make("option", { value: each }, text)));
  select.value = String(value);
  return { select, element: make("label", { className: "field" }, make("span", {}, label), select) };
}
