// The window for the whole server: announcements, bans, and invitations to register.

import { timeText } from "../core/durations.js";
import { errorText } from "../core/error-text.js";
import { requestData } from "../net/requests.js";
import { openWindow } from "../ui/dialog.js";
import { button, make, section } from "../ui/elements.js";
import { Invitations } from "./invitations.js";

// The part of an id that distinguishes guests without a name.
const ID_CHARS = 8;

export class ServerSettings {
  #lang;
  #nameOf;

  // `nameOf` returns the name of a user id, if it is known. The server keeps no names of guests.
  constructor({ lang, nameOf }) {
    this.#lang = lang;
    this.#nameOf = nameOf;
  }

  open() {
    const t = (key) => this.#lang.t(key);
    const invitations = new Invitations({ lang: this.#lang });
    const list = make("ul", { className: "rows" });
    const status = statusLine();
    const description = make("p", { className: "description" }, t("invite.register_description"));
    openWindow(this.#lang, t("server.title"),
      section(t("announce.title"), this.#announcementForm()),
      section(t("bans.title"), status, list),
      section(t("invite.register_title"), description, invitations.element),
    );
    this.#readBans(list, status);
    invitations.open();
  }

  #announcementForm() {
    const t = (key) => this.#lang.t(key);
    const texts = { "aria-label": t("announce.title"), placeholder: t("announce.hint") };
    const input = make("textarea", { rows: 3, dir: "auto", ...texts });
    const submit = make("button", { className: "primary" }, t("announce.submit"));
    const status = statusLine();
    const form = make("form", { className: "announce" }, input,
      make("div", { className: "dialog-actions" }, status, submit));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const content = input.value.trim();
      if (content === "" || form.ariaBusy === "true") return;
      form.ariaBusy = "true";
      try {
        await requestData("POST", "api/announcements", { body: { content } });
        input.value = "";
        status.textContent = t("announce.done");
      } catch (error) {
        status.textContent = errorText(error, this.#lang);
      } finally {
        form.ariaBusy = null;
      }
    });
    return form;
  }

  async #readBans(list, status) {
    try {
      const bans = await requestData("GET", "api/bans");
      list.replaceChildren(...bans.map((ban) => this.#banRow(ban, list, status)));
      status.textContent = bans.length === 0 ? this.#lang.t("bans.empty") : "";
    } catch (error) {
      status.textContent = errorText(error, this.#lang);
    }
  }

  #banRow(ban, list, status) {
    const { user, address, until, reason } = ban;
    const ends = until === null
      ? this.#lang.t("bans.permanent")
      : this.#lang.t("bans.until", { moment: timeText(this.#lang, new Date(until)) });
    const details = reason === "" ? ends : `${ends} · ${reason}`;
    const unban = async () => {
      try {
        await (address === undefined ? unbanUser(user) : unbanAddress(address));
      } catch (error) {
        status.textContent = errorText(error, this.#lang);
        return;
      }
      await this.#readBans(list, status);
    };
    return make("li", {},
      make("span", {}, make("b", { dir: "auto" }, this.#banTitle(ban)), make("small", {}, details)),
      button(this.#lang.t("bans.unban"), "secondary", unban));
  }

  #banTitle({ user, username, address }) {
    if (address !== undefined) return this.#lang.t("bans.address", { address });
    return username ?? this.#nameOf(user) ?? this.#lang.t("bans.guest", { id: user.slice(0, ID_CHARS) });
  }
}

function unbanUser(id) {
  return requestData("PUT", `api/users/${encodeURIComponent(id)}`, { body: { banned: false } });
}

function unbanAddress(address) {
  return requestData("DELETE", `api/bans/${encodeURIComponent(address)}`);
}

function statusLine() {
  return make("p", { className: "status-line", role: "status" });
}
