// What can be done about a message and about somebody: offered in a menu, asked once where it can't be taken back or
// hits hard, and undone where that is possible. Everybody is offered to delete their own messages, admins the rest; the
// server decides anyway.

import { reasonOf } from "../core/codes.js";
import { askFirst, openMenu } from "../ui/dialog.js";
import { make } from "../ui/elements.js";
import { refusalText } from "../core/error-text.js";
import { ask } from "../net/requests.js";
import { FAR, momentWords, spanWords } from "../core/durations.js";

const MUTES_S = [600, 3_600, 86_400];
const BANS_S = [3_600, 86_400, 7 * 86_400];
const REASON_CHARS_MAX = 128;
const QUOTED_CHARS = 160;

export class Moderation {
  #lang;
  #toasts;
  #standing;
  // By id: the names of those who were banned from this page.
  #banned = new Map();

  constructor({ lang, toasts, standing }) {
    this.#lang = lang;
    this.#toasts = toasts;
    this.#standing = standing;
  }

  nameOf(id) {
    return this.#banned.get(id);
  }

  messageMenu({ frame, own, anchor }) {
    const t = (key, values) => this.#lang.t(key, values);
    const items = [];
    const about = { id: frame.user_id, name: frame.username, anchor };
    if (own || this.#standing.isAdmin) {
      items.push({ words: t("message.delete"), danger: true, run: () => this.#delete(frame, anchor) });
    }
    if (!own && this.#standing.isAdmin) {
      items.push({ words: t("member.about", { name: frame.username }), run: () => this.memberMenu(about) });
    }
    if (items.length > 0) openMenu(this.#lang, { anchor, title: t("message.of", { name: frame.username }), items });
  }

  memberMenu({ id, name, anchor }) {
    const t = (key, values) => this.#lang.t(key, values);
    const mutes = MUTES_S.map((seconds) => ({
      words: spanWords(this.#lang, seconds),
      run: () => this.#mute(id, name, new Date(Date.now() + seconds * 1000).toISOString()),
    }));
    mutes.push({ words: t("mute.far"), run: () => this.#mute(id, name, FAR) });
    openMenu(this.#lang, {
      anchor,
      title: name,
      items: [
        { label: t("mute.for"), choices: mutes },
        { words: t("mute.end"), run: () => this.#unmute(id, name) },
        { words: t("kick.offer"), danger: true, run: () => this.#kick(id, name) },
        { words: t("ban.offer"), danger: true, run: () => this.#ban(id, name) },
      ],
    });
  }

  async #delete(frame, anchor) {
    const { id: room } = this.#standing.settings;
    await askFirst(this.#lang, {
      title: this.#lang.t("delete.ask"),
      says: [
        make("blockquote", { dir: "auto" }, quoted(frame.content)),
        make("p", {}, this.#lang.t("delete.means")),
      ],
      yes: this.#lang.t("delete.yes"),
      danger: true,
      act: () => ask("DELETE", `api/rooms/${encodeURIComponent(room)}/messages/${frame.id}`),
      whyNot: this.#whyNot,
    });
    // The button that the focus would go back to may have gone meanwhile.
    const message = anchor.closest("li");
    if (document.activeElement !== document.body || !message.isConnected) return;
    message.tabIndex = -1;
    message.focus({ preventScroll: true });
  }

  async #kick(id, name) {
    const { id: room, private: isPrivate } = this.#standing.settings;
    const done = await askFirst(this.#lang, {
      title: this.#lang.t("kick.ask", { name, room: this.#standing.name }),
      says: [make("p", {}, this.#lang.t(isPrivate ? "kick.means_private" : "kick.means"))],
      yes: this.#lang.t("kick.yes"),
      danger: true,
      act: () => ask("DELETE", `api/rooms/${encodeURIComponent(room)}/members/${id}`),
      whyNot: this.#whyNot,
    });
    if (done) this.#toasts.tell(this.#lang.t("kick.done", { name }));
  }

  async #mute(id, name, until) {
    await this.#orTell(async () => {
      const { muted_until: mutedUntil } = await ask("PUT", userPath(id), { body: { muted_until: until } });
      const words = until === FAR
        ? this.#lang.t("mute.done_far", { name })
        : this.#lang.t("mute.done", { name, moment: momentWords(this.#lang, new Date(mutedUntil)) });
      const undo = () => ask("PUT", userPath(id), { body: { muted_until: null } });
      this.#toasts.tell(words, { undo, whyNot: this.#whyNot });
    });
  }

  async #unmute(id, name) {
    await this.#orTell(async () => {
      await ask("PUT", userPath(id), { body: { muted_until: null } });
      this.#toasts.tell(this.#lang.t("mute.ended", { name }));
    });
  }

  async #ban(id, name) {
    const reason = make("input", { id: "ban-reason", maxLength: REASON_CHARS_MAX, dir: "auto", autocomplete: "off" });
    const spans = BANS_S.map((seconds) => make("option", { value: seconds }, spanWords(this.#lang, seconds)));
    const span = make("select", { id: "ban-span" }, ...spans, make("option", { value: "" }, this.#lang.t("ban.for_good")));
    span.value = String(BANS_S[1]);
    const address = make("input", { type: "checkbox", id: "ban-address" });
    let addresses = [];
    const done = await askFirst(this.#lang, {
      title: this.#lang.t("ban.ask", { name }),
      says: [
        make("p", {}, this.#lang.t("ban.means")),
        field(this.#lang.t("ban.span"), span),
        field(this.#lang.t("ban.reason"), reason),
        make("label", { className: "check" }, address, make("span", {}, this.#lang.t("ban.address"))),
      ],
      yes: this.#lang.t("ban.yes"),
      danger: true,
      act: async () => {
        const until = span.value === "" ? null : new Date(Date.now() + Number(span.value) * 1000).toISOString();
        addresses = await ban(id, { until, reason: reason.value.trim() }, address.checked);
      },
      whyNot: this.#whyNot,
    });
    if (!done) return;
    this.#banned.set(id, name);
    this.#toasts.tell(this.#lang.t("ban.done", { name }), { undo: () => unban(id, addresses), whyNot: this.#whyNot });
  }

  async #orTell(act) {
    try {
      await act();
    } catch (error) {
      this.#toasts.tell(this.#whyNot(error));
    }
  }

  #whyNot = (error) => refusalText(error, this.#lang);
}

// Gives the addresses that were banned with a guest. An account has none that it is banned by: then it is banned alone.
async function ban(id, how, withAddress) {
  if (!withAddress) {
    await ask("PUT", userPath(id), { body: { banned: how } });
    return [];
  }
  const before = await bannedAddresses();
  try {
    await ask("PUT", userPath(id), { body: { banned: { ...how, address: true } } });
  } catch (error) {
    if (reasonOf(error) !== "target_is_no_guest") throw error;
    return ban(id, how, false);
  }
  const after = await bannedAddresses();
  return [...after].filter((address) => !before.has(address));
}

async function unban(id, addresses) {
  await ask("PUT", userPath(id), { body: { banned: false } });
  for (const address of addresses) await ask("DELETE", `api/bans/${encodeURIComponent(address)}`);
}

async function bannedAddresses() {
  const bans = await ask("GET", "api/bans");
  return new Set(bans.map(({ address }) => address).filter((address) => address !== undefined));
}

function userPath(id) {
  return `api/users/${encodeURIComponent(id)}`;
}

function field(words, input) {
  return make("div", { className: "field" }, make("label", { htmlFor: input.id }, words), input);
}

function quoted(text) {
  const chars = [...text];
  return chars.length > QUOTED_CHARS ? `${chars.slice(0, QUOTED_CHARS).join("")}…` : text;
}
