// What admins set of the room that they are in: its name and topic, who may post, slow mode, and who may come in.

import { askFirst, onSubmit, openWindow } from "../ui/dialog.js";
import { make } from "../ui/elements.js";
import { Invitations } from "./invitations.js";
import { refusalText } from "../core/error-text.js";
import { ask } from "../net/requests.js";
import { spanWords } from "../core/durations.js";

const SLOW_S = [5, 10, 30, 60, 300, 900, 3_600];
const NAME_CHARS_MAX = 64;
const TOPIC_CHARS_MAX = 256;

export class RoomSettings {
  #lang;
  #toasts;
  #standing;

  constructor({ lang, toasts, standing }) {
    this.#lang = lang;
    this.#toasts = toasts;
    this.#standing = standing;
  }

  open() {
    const t = (key) => this.#lang.t(key);
    const before = this.#standing.settings;
    const fields = this.#fields(before);
    const wrong = make("p", { className: "wrong", role: "alert" });
    const form = make("form", { className: "settings", autocomplete: "off", noValidate: true },
      labelled(t("room.name"), fields.name),
      labelled(t("room.topic"), fields.topic),
      group(t("room.posting"), fields.posting),
      labelled(t("room.slow"), fields.slow, t("room.slow_means")),
      group(t("room.access"), fields.access),
      wrong,
      make("div", { className: "answers" }, make("button", { className: "primary" }, t("room.save"))),
    );
    const parts = [form];
    if (before.private) {
      const invitations = new Invitations({ lang: this.#lang, room: before.id });
      parts.push(section(t("invite.title"), make("p", { className: "means" }, t("invite.room_means")), invitations.element));
      invitations.open();
    }
    const dialog = openWindow(this.#lang, t("room.settings"), ...parts);
    onSubmit(form, wrong, (error) => refusalText(error, this.#lang), async () => {
      if (await this.#save(before, asked(before, fields))) dialog.close();
    });
  }

  #fields(now) {
    const t = (key) => this.#lang.t(key);
    const name = make("input", { id: "set-name", maxLength: NAME_CHARS_MAX, dir: "auto", value: now.name || now.id });
    const topic = make("input", { id: "set-topic", maxLength: TOPIC_CHARS_MAX, dir: "auto", value: now.topic });
    const waits = [...new Set([...SLOW_S, now.slow_mode_s])].filter((s) => s > 0).sort((a, b) => a - b);
    const slow = make("select", { id: "set-slow" },
      make("option", { value: 0 }, t("room.slow_off")),
      ...waits.map((s) => make("option", { value: s }, this.#lang.t("room.slow_every", { every: spanWords(this.#lang, s) }))));
    slow.value = String(now.slow_mode_s);
    const posting = [
      radio("set-posting", "everyone", t("room.posting_everyone"), now.posting),
      radio("set-posting", "admins", t("room.posting_admins"), now.posting),
    ];
    const access = [
      radio("set-access", "public", t("room.public"), now.private ? "private" : "public", t("room.public_means")),
      radio("set-access", "private", t("room.private"), now.private ? "private" : "public", t("room.private_means")),
    ];
    return { name, topic, slow, posting, access };
  }

  // Says whether it is done.
  async #save(before, after) {
    if (Object.keys(after).length === 0) return true;
    const set = (settings) => ask("PATCH", `api/rooms/${encodeURIComponent(before.id)}`, { body: settings });
    if (after.private === undefined) {
      this.#standing.set(await set(after));
      const former = Object.fromEntries(Object.keys(after).map((name) => [name, before[name]]));
      const undo = async () => this.#standing.set(await set(former));
      this.#toasts.tell(this.#lang.t("room.saved"), { undo, whyNot: (error) => refusalText(error, this.#lang) });
      return true;
    }
    // Who is put out by it, and what becomes readable, can't be taken back.
    const done = await askFirst(this.#lang, {
      title: this.#lang.t(after.private ? "room.private_ask" : "room.public_ask"),
      says: [make("p", {}, this.#lang.t(after.private ? "room.private_ask_means" : "room.public_ask_means"))],
      yes: this.#lang.t(after.private ? "room.private_yes" : "room.public_yes"),
      danger: true,
      act: async () => this.#standing.set(await set(after)),
      whyNot: (error) => refusalText(error, this.#lang),
    });
    if (done) this.#toasts.tell(this.#lang.t(after.private ? "room.is_private" : "room.is_public"));
    return done;
  }
}

// What is to be changed.
function asked(before, { name, topic, slow, posting, access }) {
  const after = {
    name: name.value.trim(),
    topic: topic.value.trim(),
    posting: chosen(posting),
    slow_mode_s: Number(slow.value),
    private: chosen(access) === "private",
  };
  const now = { ...before, name: before.name || before.id };
  return Object.fromEntries(Object.entries(after).filter(([key, value]) => value !== now[key]));
}

function chosen(radios) {
  return radios.map((one) => one.querySelector("input")).find(({ checked }) => checked).value;
}

function radio(name, value, words, now, means) {
  const input = make("input", { type: "radio", name, value, checked: value === now });
  const about = make("span", {}, words);
  if (means) about.append(make("small", {}, means));
  return make("label", { className: "check" }, input, about);
}

function labelled(words, input, means) {
  const field = make("div", { className: "field" }, make("label", { htmlFor: input.id }, words), input);
  if (means) field.append(make("small", {}, means));
  return field;
}

function group(words, parts) {
  return make("fieldset", {}, make("legend", {}, words), ...parts);
}

function section(words, ...parts) {
  return make("section", {}, make("h3", {}, words), ...parts);
}
