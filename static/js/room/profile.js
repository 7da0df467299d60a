// The dialog about the user: a guest can log in or register; a user with an account sees and ends sessions, changes the
// password and logs out.

import { Reason, needsLogin, reasonOf } from "../core/codes.js";
import { errorText } from "../core/error-text.js";
import { checkNewPassword, checkPassword } from "../core/passwords.js";
import { fillAvatar } from "../ui/avatar.js";
import { cloneTemplate, setText } from "../ui/elements.js";
import { Field, submitFields } from "../ui/field.js";
import { PasswordToggle } from "../ui/password-toggle.js";

export class Profile {
  #dialog;
  #find;
  #session;
  #lang;
  #accountForm;
  #template;
  #on;
  // The user's name in the room.
  #name = "";
  #fields;
  #passwordToggle;
  // The account's sessions; null while they are not known.
  #sessions = null;
  // Returns the text of the status line.
  #statusText = () => "";
  #isBusy = false;
  // The open question, `{ text, action, opener }`, or null.
  #question = null;

  // `on` has functions: `loggedIn` is called after a login, `logOut` when the user wants to log out, `ended` when the
  // server has ended the login; `unsentCount` returns the number of unsent messages.
  constructor({ dialog, session, lang, accountForm, template, on }) {
    this.#dialog = dialog;
    this.#find = (name) => dialog.querySelector(`#profile-${name}`);
    this.#session = session;
    this.#lang = lang;
    this.#accountForm = accountForm;
    this.#template = template;
    this.#on = on;
    const { old, next } = this.#find("password-form").elements;
    const field = (name, input, check) =>
      new Field({ key: "password", input, error: this.#find(`${name}-error`), check, lang });
    this.#fields = { old: field("old", old, checkPassword), next: field("new", next, checkNewPassword) };
    this.#passwordToggle = new PasswordToggle({ button: this.#find("password-toggle"), inputs: [old, next], lang });
    this.#listen();
  }

  get isOpen() {
    return this.#dialog.open;
  }

  open(name) {
    this.#name = name;
    this.#reset();
    this.#dialog.showModal();
  }

  close() {
    this.#dialog.close();
  }

  // Shows that an action has failed.
  showError(error) {
    this.#setStatus(() => errorText(error, this.#lang));
  }

  translate() {
    const { account } = this.#session;
    this.#find("role").textContent = this.#lang.t(`profile.role.${account?.role ?? "guest"}`);
    for (const field of Object.values(this.#fields)) field.translate();
    this.#passwordToggle.translate();
    this.#showSessions();
    this.#showStatus();
    if (this.#question) this.#find("question-text").textContent = this.#question.text();
  }

  // Shows the times of the sessions as they are called from now on, because a new day has begun.
  showDays() {
    if (this.isOpen) this.#showSessions();
  }

  #listen() {
    const onClick = (name, action) => this.#find(name).addEventListener("click", action);
    onClick("close", () => this.close());
    // A click beside the dialog closes it.
    this.#dialog.addEventListener("click", (event) => event.target === this.#dialog && this.close());
    this.#dialog.addEventListener("close", () => this.#closed());
    onClick("log-in", () => this.#openAccountForm("login"));
    onClick("register", () => this.#openAccountForm("register"));
    this.#find("password-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#changePassword();
    });
    onClick("sessions-retry", () => this.#readSessions());
    onClick("end-others", () => this.#end(this.#sessions.filter(isOtherLogin)));
    onClick("log-out", () => this.#logOut());
    onClick("end-guest", () => this.#logOut());
    onClick("yes", () => {
      const { action } = this.#question;
      this.#ask(null);
      action();
    });
    onClick("no", () => {
      const { opener } = this.#question;
      this.#ask(null);
      opener.focus();
    });
  }

  #reset() {
    const { account, canRegister } = this.#session;
    fillAvatar(this.#find("avatar"), this.#name);
    this.#find("name").textContent = this.#name;
    this.#find("guest").hidden = account !== null;
    this.#find("account").hidden = account === null;
    this.#find("links").hidden = false;
    this.#find("register").hidden = !canRegister;
    this.#find("username").value = account?.username ?? "";
    for (const field of Object.values(this.#fields)) field.fill("");
    this.#find("password").open = false;
    this.#find("sessions-retry").hidden = true;
    this.#sessions = null;
    this.#ask(null);
    this.#setStatus(() => "");
    this.translate();
    if (account) this.#readSessions();
  }

  #closed() {
    this.#accountForm.close(this.#dialog);
    this.#passwordToggle.hide();
    for (const field of Object.values(this.#fields)) field.fill("");
  }

  #openAccountForm(mode) {
    this.#find("links").hidden = true;
    this.#accountForm.open(this.#find("guest"), {
      mode,
      name: mode === "register" ? this.#name : "",
      onDone: () => {
        this.close();
        this.#on.loggedIn();
      },
      onBack: () => {
        this.#accountForm.close(this.#dialog);
        this.#find("links").hidden = false;
        this.#find("log-in").focus();
      },
    });
  }

  async #changePassword() {
    const values = this.#isBusy ? null : submitFields(this.#fields);
    if (!values) return;
    this.#passwordToggle.hide();
    await this.#exclusively(async () => {
      try {
        await this.#session.changePassword(values);
      } catch (error) {
        this.#passwordRejected(error);
        return;
      }
      for (const field of Object.values(this.#fields)) field.fill("");
      this.#find("password").open = false;
      this.#find("password").querySelector("summary").focus();
      this.#setStatus(() => this.#lang.t("profile.changed"));
      await this.#readSessions();
    });
  }

  #passwordRejected(error) {
    if (needsLogin(error)) throw error;
    const text = () => errorText(error, this.#lang);
    const reason = reasonOf(error);
    if (reason === Reason.WRONG_PASSWORD) this.#fields.old.reject(text);
    else if (reason === Reason.BAD_PASSWORD) this.#fields.next.reject(text);
    else this.#setStatus(text);
  }

  async #readSessions() {
    this.#find("sessions-retry").hidden = true;
    try {
      const sessions = await this.#session.list();
      // The present session first, then those that were used last.
      this.#sessions = sessions.sort((a, b) => b.current - a.current || Date.parse(b.seen) - Date.parse(a.seen));
    } catch (error) {
      if (this.#handleLoginEnd(error)) return;
      this.showError(error);
      this.#find("sessions-retry").hidden = false;
    }
    this.#showSessions();
  }

  #showSessions() {
    const sessions = this.#sessions ?? [];
    this.#find("sessions").replaceChildren(...sessions.map((session) => this.#sessionRow(session)));
    this.#find("end-others").hidden = !sessions.some(isOtherLogin);
  }

  #sessionRow(session) {
    const { kind, current, created, seen } = session;
    const isBot = kind === "bot";
    const label = session.label || this.#lang.t("profile.unknown");
    const times = { created: this.#timeText(created), seen: this.#timeText(seen) };
    const element = cloneTemplate(this.#template);
    element.querySelector(".label").textContent = label;
    const badge = element.querySelector(".badge");
    badge.hidden = !current && !isBot;
    badge.textContent = this.#lang.t(current ? "profile.this_session" : "profile.bot");
    const about = this.#lang.t(isBot ? "profile.about_bot" : "profile.about_login", times);
    element.querySelector(".about").textContent = about;
    const end = element.querySelector("button");
    end.textContent = this.#lang.t("profile.end");
    end.ariaLabel = this.#lang.t("profile.end_named", { label });
    end.addEventListener("click", () => (current ? this.#askToLogOut(end) : this.#end([session])));
    return element;
  }

  #timeText(timestamp) {
    const date = new Date(timestamp);
    return `${this.#lang.day(date)}, ${this.#lang.time(date)}`;
  }

  #end(sessions) {
    return this.#exclusively(async () => {
      try {
        for (const { id } of sessions) await this.#session.end(id);
        this.#setStatus(() => this.#lang.plural("profile.ended", sessions.length));
      } catch (error) {
        if (this.#handleLoginEnd(error)) return;
        this.showError(error);
      }
      await this.#readSessions();
      // The button that was pressed may be gone.
      this.#find("sessions-title").focus();
    });
  }

  // Unsent messages stay in this browser after a logout, so the user is asked first.
  #logOut() {
    const { account } = this.#session;
    if (this.#on.unsentCount() > 0) this.#askToLogOut(this.#find(account ? "log-out" : "end-guest"));
    else this.#on.logOut();
  }

  #askToLogOut(opener) {
    const unsent = this.#on.unsentCount();
    this.#ask({
      text: () =>
        unsent > 0
          ? this.#lang.plural("profile.unsent", unsent, { name: this.#name })
          : this.#lang.t("profile.confirm_log_out"),
      action: () => this.#on.logOut(),
      opener,
    });
  }

  // Asks a question in the dialog; null closes it.
  #ask(question) {
    this.#question = question;
    this.#find("question").hidden = question === null;
    if (question === null) return;
    this.#find("question-text").textContent = question.text();
    this.#find("no").focus();
  }

  // Runs an action, unless one is running.
  async #exclusively(action) {
    if (this.#isBusy) return;
    this.#isBusy = true;
    this.#dialog.ariaBusy = "true";
    try {
      await action();
    } catch (error) {
      if (!this.#handleLoginEnd(error)) throw error;
    } finally {
      this.#isBusy = false;
      this.#dialog.ariaBusy = "false";
    }
  }

  // Returns whether the error means that the login has ended. Then the dialog closes.
  #handleLoginEnd(error) {
    if (!needsLogin(error)) return false;
    this.close();
    this.#on.ended();
    return true;
  }

  #setStatus(text) {
    this.#statusText = text;
    this.#showStatus();
  }

  #showStatus() {
    setText(this.#find("status"), this.#statusText());
  }
}

function isOtherLogin({ kind, current }) {
  return kind === "login" && !current;
}
