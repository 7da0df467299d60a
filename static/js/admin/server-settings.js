// What admins do for the whole house: say something in all rooms, let in again who is banned, invite to register.

import { openWindow } from "../ui/dialog.js";
import { button, make } from "../ui/elements.js";
import { Invitations } from "./invitations.js";
import { refusalText } from "../core/error-text.js";
import { ask } from "../net/requests.js";
import { momentWords } from "../core/durations.js";

// So much of an id tells two guests apart.
const ID_CHARS = 8;

export class House {
  #lang;
  #nameOf;

  // `nameOf` knows somebody by their id, or not: the server keeps no name of guests who only came by.
  constructor({ lang, nameOf }) {
    this.#lang = lang;
    this.#nameOf = nameOf;
  }

  open() {
    const t = (key) => this.#lang.t(key);
    const invitations = new Invitations({ lang: this.#lang });
    const bans = make("ul", { className: "rows" });
    const state = make("p", { className: "state-of", role: "status" });
    openWindow(this.#lang, t("house.title"),
      section(t("announce.title"), this.#announcement()),
      section(t("bans.title"), state, bans),
      section(t("invite.register_title"), make("p", { className: "means" }, t("invite.register_means")), invitations.element),
    );
    this.#readBans(bans, state);
    invitations.open();
  }

  #announcement() {
    const t = (key) => this.#lang.t(key);
    const words = make("textarea", { rows: 3, dir: "auto", "aria-label": t("announce.title"), placeholder: t("announce.hint") });
    const state = make("p", { className: "state-of", role: "status" });
    const form = make("form", { className: "announce" }, words,
      make("div", { className: "answers" }, state, make("button", { className: "primary" }, t("announce.yes"))));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const content = words.value.trim();
      if (content === "" || form.ariaBusy === "true") return;
      form.ariaBusy = "true";
      try {
        await ask("POST", "api/announcements", { body: { content } });
        words.value = "";
        state.textContent = t("announce.done");
      } catch (error) {
        state.textContent = refusalText(error, this.#lang);
      } finally {
        form.ariaBusy = null;
      }
    });
    return form;
  }

  async #readBans(list, state) {
    try {
      const bans = await ask("GET", "api/bans");
      list.replaceChildren(...bans.map((ban) => this.#ban(ban, list, state)));
      state.textContent = bans.length === 0 ? this.#lang.t("bans.nobody") : "";
    } catch (error) {
      state.textContent = refusalText(error, this.#lang);
    }
  }

  #ban({ user, username, address, until, reason }, list, state) {
    const name = () => username ?? this.#nameOf(user) ?? this.#lang.t("bans.guest", { id: user.slice(0, ID_CHARS) });
    const who = address === undefined ? name() : this.#lang.t("bans.address", { address });
    const ends = until === null
      ? this.#lang.t("bans.for_good")
      : this.#lang.t("bans.until", { moment: momentWords(this.#lang, new Date(until)) });
    const about = make("span", {}, make("b", { dir: "auto" }, who), make("small", { dir: "auto" }, reason === "" ? ends : `${ends} · ${reason}`));
    const readmit = async () => {
      try {
        if (address === undefined) await ask("PUT", `api/users/${encodeURIComponent(user)}`, { body: { banned: false } });
        else await ask("DELETE", `api/bans/${encodeURIComponent(address)}`);
      } catch (error) {
        state.textContent = refusalText(error, this.#lang);
        return;
      }
      await this.#readBans(list, state);
    };
    return make("li", {}, about, button(this.#lang.t("bans.readmit"), "soft", readmit));
  }
}

function section(words, ...parts) {
  return make("section", {}, make("h3", {}, words), ...parts);
}
