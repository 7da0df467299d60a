// The window with the settings of the current room: name, topic, posting, slow mode and access, the invitations of a
// private room, and the deletion of the room.

import { durationText } from "../core/durations.js";
import { errorText } from "../core/error-text.js";
import { requestData } from "../net/requests.js";
import { confirmAction, onSubmit, openWindow } from "../ui/dialog.js";
import { button, make, section, setPieces } from "../ui/elements.js";
import { Field, submitFields } from "../ui/field.js";
import { Invitations } from "./invitations.js";

const SLOW_MODES_S = [5, 10, 30, 60, 300, 900, 3_600];
const NAME_CHARS_MAX = 64;
const TOPIC_CHARS_MAX = 256;

export class RoomSettings {
  #lang;
  #toasts;
  #roomState;
  #onDeleted;

  // `onDeleted` is called with the id of the room that was deleted from here.
  constructor({ lang, toasts, roomState, onDeleted }) {
    this.#lang = lang;
    this.#toasts = toasts;
    this.#roomState = roomState;
    this.#onDeleted = onDeleted;
  }

  open() {
    const t = (key) => this.#lang.t(key);
    const { settings } = this.#roomState;
    const inputs = this.#inputs(settings);
    const error = make("p", { className: "error", role: "alert" });
    const form = make("form", { className: "settings", autocomplete: "off", noValidate: true },
      labelled(t("room.name"), inputs.name),
      labelled(t("room.topic"), inputs.topic),
      group(t("room.posting"), inputs.posting),
      labelled(t("room.slow_mode"), inputs.slowMode, t("room.slow_mode_description")),
      group(t("room.access"), inputs.access),
      error,
      make("div", { className: "dialog-actions" }, make("button", { className: "primary" }, t("room.save"))),
    );
    const content = settings.private ? [form, this.#invitations(settings.id)] : [form];
    const deleteButton = button(t("room.delete"), "secondary danger", () => this.#delete(settings.id));
    const deletion = make("section", {}, deleteButton);
    const dialog = openWindow(this.#lang, t("room.settings"), ...content, deletion);
    onSubmit(form, error, this.#errorTextOf, async () => {
      if (await this.#save(settings, changesOf(settings, inputs))) dialog.close();
    });
  }

  #invitations(room) {
    const invitations = new Invitations({ lang: this.#lang, room });
    invitations.open();
    const description = make("p", { className: "description" }, this.#lang.t("invite.room_description"));
    return section(this.#lang.t("invite.title"), description, invitations.element);
  }

  #inputs(settings) {
    const t = (key) => this.#lang.t(key);
    const access = settings.private ? "private" : "public";
    const name = settings.name || settings.id;
    return {
      name: make("input", { id: "set-name", maxLength: NAME_CHARS_MAX, dir: "auto", value: name }),
      topic: make("input", { id: "set-topic", maxLength: TOPIC_CHARS_MAX, dir: "auto", value: settings.topic }),
      slowMode: this.#slowModeSelect(settings.slow_mode_s),
      posting: [
        radio("set-posting", "everyone", t("room.posting_everyone"), settings.posting),
        radio("set-posting", "admins", t("room.posting_admins"), settings.posting),
      ],
      access: [
        radio("set-access", "public", t("room.public"), access, t("room.public_description")),
        radio("set-access", "private", t("room.private"), access, t("room.private_description")),
      ],
    };
  }

  #slowModeSelect(current) {
    const waits = [...new Set([...SLOW_MODES_S, current])].filter((seconds) => seconds > 0).sort((a, b) => a - b);
    const textOf = (seconds) => this.#lang.t("room.slow_mode_every", { every: durationText(this.#lang, seconds) });
    const select = make("select", { id: "set-slow-mode" },
      make("option", { value: 0 }, this.#lang.t("room.slow_mode_off")),
      ...waits.map((seconds) => make("option", { value: seconds }, textOf(seconds))));
    select.value = String(current);
    return select;
  }

  // Returns whether the changes were saved.
  async #save(before, changes) {
    if (Object.keys(changes).length === 0) return true;
    if (changes.private !== undefined) return this.#saveAccess(before, changes);
    await this.#patch(before.id, changes);
    const former = Object.fromEntries(Object.keys(changes).map((key) => [key, before[key]]));
    const undo = () => this.#patch(before.id, former);
    this.#toasts.show(this.#lang.t("room.saved"), { undo, errorTextOf: this.#errorTextOf });
    return true;
  }

  // A change of access can't be undone: members are removed, or old messages become public.
  async #saveAccess(before, changes) {
    const t = (key) => this.#lang.t(key);
    const isDone = await confirmAction(this.#lang, {
      title: t(changes.private ? "room.make_private_title" : "room.make_public_title"),
      content: [make("p", {}, t(changes.private ? "room.make_private_description" : "room.make_public_description"))],
      confirm: t(changes.private ? "room.make_private_confirm" : "room.make_public_confirm"),
      danger: true,
      action: () => this.#patch(before.id, changes),
      errorTextOf: this.#errorTextOf,
    });
    if (isDone) this.#toasts.show(t(changes.private ? "room.made_private" : "room.made_public"));
    return isDone;
  }

  // The user types the room's name, because a deletion can't be undone.
  async #delete(room) {
    const name = this.#roomState.name;
    const input = make("input", {
      id: "delete-room-name",
      dir: "auto",
      autocapitalize: "off",
      autocomplete: "off",
      spellcheck: false,
      "aria-describedby": "delete-room-name-error",
    });
    const label = make("label", { htmlFor: input.id });
    setPieces(label, this.#lang.pieces("room.delete_name", { room: name }));
    const problem = make("p", { id: "delete-room-name-error", className: "error", role: "alert" });
    const check = (text) => (comparable(text) === comparable(name) ? { value: name } : { problem: "differs" });
    const field = new Field({ key: "room_to_delete", input, error: problem, check, lang: this.#lang });
    const isDone = await confirmAction(this.#lang, {
      title: this.#lang.t("room.delete_title", { room: name }),
      content: [
        make("p", {}, this.#lang.t("room.delete_description")),
        make("div", { className: "field" }, label, input, problem),
      ],
      confirm: this.#lang.t("room.delete_confirm"),
      danger: true,
      action: async () => {
        if (!submitFields({ name: field })) return false;
        return requestData("DELETE", roomPath(room));
      },
      errorTextOf: this.#errorTextOf,
    });
    if (isDone) this.#onDeleted(room);
  }

  async #patch(room, changes) {
    this.#roomState.applySettings(await requestData("PATCH", roomPath(room), { body: changes }));
  }

  #errorTextOf = (error) => errorText(error, this.#lang);
}

// The settings whose inputs have another value.
function changesOf(settings, { name, topic, slowMode, posting, access }) {
  const after = {
    name: name.value.trim(),
    topic: topic.value.trim(),
    posting: checkedValue(posting),
    slow_mode_s: Number(slowMode.value),
    private: checkedValue(access) === "private",
  };
  const before = { ...settings, name: settings.name || settings.id };
  return Object.fromEntries(Object.entries(after).filter(([key, value]) => value !== before[key]));
}

function roomPath(room) {
  return `api/rooms/${encodeURIComponent(room)}`;
}

// A name as it is compared with a typed one. Keyboards differ in capitals, spaces, joiners and variation selectors.
function comparable(name) {
  return name.normalize("NFC").toLowerCase().replace(/[\u200C\u200D\uFE0E\uFE0F]/g, "").replace(/\s+/g, " ").trim();
}

function checkedValue(radios) {
  return radios.map((label) => label.querySelector("input")).find(({ checked }) => checked).value;
}

function radio(name, value, text, current, description) {
  const input = make("input", { type: "radio", name, value, checked: value === current });
  const label = make("span", {}, text);
  if (description) label.append(make("small", {}, description));
  return make("label", { className: "choice" }, input, label);
}

function labelled(label, input, description) {
  const field = make("div", { className: "field" }, make("label", { htmlFor: input.id }, label), input);
  if (description) field.append(make("small", {}, description));
  return field;
}

function group(legend, content) {
  return make("fieldset", {}, make("legend", {}, legend), ...content);
}
