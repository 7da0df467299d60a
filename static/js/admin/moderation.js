// The menus of a message and of a person, with the actions of moderation. An action that can't be undone is confirmed;
// any other one can be undone. A user may delete their own messages, an admin all; the server decides.

import { Reason, reasonOf } from "../core/codes.js";
import { FOREVER, durationText, timeText } from "../core/durations.js";
import { errorText } from "../core/error-text.js";
import { requestData } from "../net/requests.js";
import { confirmAction, openMenu } from "../ui/dialog.js";
import { make, setPieces } from "../ui/elements.js";

const MUTES_S = [600, 3_600, 86_400];
const BANS_S = [3_600, 86_400, 7 * 86_400];
const BAN_DEFAULT_S = BANS_S[1];
const REASON_CHARS_MAX = 128;
const QUOTE_CHARS_MAX = 160;
// Fields of a request for a ban.
const WITH_ADDRESS = { address: true };
const WITH_SHARED_ADDRESS = { address: true, force: true };
const PROXY_FLAG = "--trusted-proxy";

export class Moderation {
  #lang;
  #toasts;
  #roomState;
  // By user id: the names of those who were banned from this page.
  #bannedNames = new Map();

  constructor({ lang, toasts, roomState }) {
    this.#lang = lang;
    this.#toasts = toasts;
    this.#roomState = roomState;
  }

  // The name of a user who was banned from this page, if known. The server keeps no names of guests.
  bannedName(id) {
    return this.#bannedNames.get(id);
  }

  openMessageMenu({ frame, own, anchor }) {
    const t = (key, values) => this.#lang.t(key, values);
    const author = { id: frame.user_id, name: frame.username, anchor };
    const items = [];
    if (own || this.#roomState.isAdmin) {
      items.push({ text: t("message.delete"), danger: true, run: () => this.#delete(frame, anchor) });
    }
    if (!own && this.#roomState.isAdmin) {
      items.push({ text: t("person.menu", { name: author.name }), run: () => this.openPersonMenu(author) });
    }
    if (items.length > 0) openMenu(this.#lang, { anchor, title: t("message.menu", { name: author.name }), items });
  }

  openPersonMenu({ id, name, anchor }) {
    const t = (key, values) => this.#lang.t(key, values);
    const mutes = MUTES_S.map((seconds) => ({
      text: durationText(this.#lang, seconds),
      run: () => this.#mute(id, name, new Date(Date.now() + seconds * 1000).toISOString()),
    }));
    mutes.push({ text: t("mute.forever"), run: () => this.#mute(id, name, FOREVER) });
    openMenu(this.#lang, {
      anchor,
      title: name,
      items: [
        { label: t("mute.for"), choices: mutes },
        { text: t("mute.end"), run: () => this.#unmute(id, name) },
        { text: t("kick.menu"), danger: true, run: () => this.#kick(id, name) },
        { text: t("ban.menu"), danger: true, run: () => this.#ban(id, name) },
      ],
    });
  }

  async #delete(frame, anchor) {
    const path = `${roomPath(this.#roomState)}/messages/${frame.id}`;
    await this.#confirm({
      title: this.#lang.t("delete.title"),
      content: [
        make("blockquote", { dir: "auto" }, shortened(frame.content)),
        make("p", {}, this.#lang.t("delete.description")),
      ],
      confirm: this.#lang.t("delete.confirm"),
      action: () => requestData("DELETE", path),
    });
    // The focus returns to the menu button. If that is hidden by now, the message takes the focus.
    const message = anchor.closest(".message");
    if (document.activeElement !== document.body || !message.isConnected) return;
    message.tabIndex = -1;
    message.focus({ preventScroll: true });
  }

  async #kick(id, name) {
    const { settings } = this.#roomState;
    const path = `${roomPath(this.#roomState)}/members/${id}`;
    const isDone = await this.#confirm({
      title: this.#lang.t("kick.title", { name, room: this.#roomState.name }),
      content: [make("p", {}, this.#lang.t(settings.private ? "kick.description_private" : "kick.description"))],
      confirm: this.#lang.t("kick.confirm"),
      action: () => requestData("DELETE", path),
    });
    if (isDone) this.#toasts.show(this.#lang.t("kick.done", { name }));
  }

  async #mute(id, name, until) {
    await this.#reportFailure(async () => {
      const { muted_until: mutedUntil } = await requestData("PUT", userPath(id), { body: { muted_until: until } });
      const text = until === FOREVER
        ? this.#lang.t("mute.done_forever", { name })
        : this.#lang.t("mute.done", { name, moment: timeText(this.#lang, new Date(mutedUntil)) });
      const undo = () => requestData("PUT", userPath(id), { body: { muted_until: null } });
      this.#toasts.show(text, { undo, errorTextOf: this.#errorTextOf });
    });
  }

  async #unmute(id, name) {
    await this.#reportFailure(async () => {
      await requestData("PUT", userPath(id), { body: { muted_until: null } });
      this.#toasts.show(this.#lang.t("mute.ended", { name }));
    });
  }

  async #ban(id, name) {
    const { duration, reason, address, content } = this.#banForm();
    let addresses = [];
    const run = async (extent) => {
      const seconds = Number(duration.value);
      const until = duration.value === "" ? null : new Date(Date.now() + seconds * 1000).toISOString();
      addresses = await ban(id, { until, reason: reason.value.trim(), ...extent });
    };
    const isDone = await this.#confirm({
      title: this.#lang.t("ban.title", { name }),
      content,
      confirm: this.#lang.t("ban.confirm"),
      action: async () => {
        try {
          return await run(address.checked ? WITH_ADDRESS : {});
        } catch (error) {
          if (reasonOf(error) !== Reason.ADDRESS_SHARED) throw error;
          return this.#confirmSharedAddress(name, error, run);
        }
      },
    });
    if (!isDone) return;
    this.#bannedNames.set(id, name);
    const undo = () => unban(id, addresses);
    this.#toasts.show(this.#lang.t("ban.done", { name }), { undo, errorTextOf: this.#errorTextOf });
  }

  // Asks whether an address is banned that the server does not ban without force: most people connect from it.
  #confirmSharedAddress(name, error, run) {
    const t = (key) => this.#lang.t(key);
    const aboutProxy = make("p", { className: "description" });
    setPieces(aboutProxy, this.#lang.pieces("ban.shared_proxy", { flag: PROXY_FLAG }));
    return this.#confirm({
      title: t("ban.shared_title"),
      content: [
        make("p", {}, this.#errorTextOf(error)),
        make("p", {}, t("ban.shared_description")),
        aboutProxy,
      ],
      confirm: t("ban.shared_confirm"),
      action: () => run(WITH_SHARED_ADDRESS),
      alternative: { text: this.#lang.t("ban.shared_alone", { name }), action: () => run({}) },
    });
  }

  // The inputs of a ban, and the content of the dialog with them.
  #banForm() {
    const t = (key) => this.#lang.t(key);
    const durations = BANS_S.map((seconds) => make("option", { value: seconds }, durationText(this.#lang, seconds)));
    durations.push(make("option", { value: "" }, t("ban.permanent")));
    const duration = make("select", { id: "ban-duration" }, ...durations);
    duration.value = String(BAN_DEFAULT_S);
    const reason = make("input", { id: "ban-reason", maxLength: REASON_CHARS_MAX, dir: "auto", autocomplete: "off" });
    const address = make("input", { type: "checkbox", id: "ban-address" });
    const content = [
      make("p", {}, t("ban.description")),
      labelled(t("ban.duration"), duration),
      labelled(t("ban.reason"), reason),
      make("label", { className: "choice" }, address, make("span", {}, t("ban.address"))),
    ];
    return { duration, reason, address, content };
  }

  #confirm(question) {
    return confirmAction(this.#lang, { ...question, danger: true, errorTextOf: this.#errorTextOf });
  }

  async #reportFailure(action) {
    try {
      await action();
    } catch (error) {
      this.#toasts.show(this.#errorTextOf(error));
    }
  }

  #errorTextOf = (error) => errorText(error, this.#lang);
}

// Bans a user, and returns the addresses that were banned with a guest. An account is not banned by its address: then
// it is banned alone. `terms` are the fields of the request.
async function ban(id, terms) {
  if (!terms.address) {
    await requestData("PUT", userPath(id), { body: { banned: terms } });
    return [];
  }
  const before = await bannedAddresses();
  try {
    await requestData("PUT", userPath(id), { body: { banned: terms } });
  } catch (error) {
    if (reasonOf(error) !== Reason.TARGET_IS_NO_GUEST) throw error;
    const { until, reason } = terms;
    return ban(id, { until, reason });
  }
  const after = await bannedAddresses();
  return [...after].filter((address) => !before.has(address));
}

async function unban(id, addresses) {
  await requestData("PUT", userPath(id), { body: { banned: false } });
  for (const address of addresses) await requestData("DELETE", `api/bans/${encodeURIComponent(address)}`);
}

async function bannedAddresses() {
  const bans = await requestData("GET", "api/bans");
  return new Set(bans.map(({ address }) => address).filter((address) => address !== undefined));
}

function userPath(id) {
  return `api/users/${encodeURIComponent(id)}`;
}

function roomPath({ settings }) {
  return `api/rooms/${encodeURIComponent(settings.id)}`;
}

function labelled(label, input) {
  return make("div", { className: "field" }, make("label", { htmlFor: input.id }, label), input);
}

function shortened(text) {
  const chars = [...text];
  return chars.length > QUOTE_CHARS_MAX ? `${chars.slice(0, QUOTE_CHARS_MAX).join("")}…` : text;
}
