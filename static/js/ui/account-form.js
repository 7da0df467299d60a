// The form to log in and to register. The start screen and the profile dialog share it; it is moved to where it opens.

import { Reason, isAboutName, reasonOf } from "../core/codes.js";
import { errorText } from "../core/error-text.js";
import { checkName } from "../core/names.js";
import { checkNewPassword, checkPassword } from "../core/passwords.js";
import { setText } from "./elements.js";
import { Field, submitFields } from "./field.js";
import { PasswordToggle } from "./password-toggle.js";

export class AccountForm {
  #form;
  #find;
  #session;
  #lang;
  #fields;
  #passwordToggle;
  // "login" or "register".
  #mode = "login";
  #onDone = () => {};
  #onBack = null;
  #isBusy = false;
  // Returns the error of the form.
  #errorText = () => "";

  constructor({ form, session, lang }) {
    this.#form = form;
    this.#find = (name) => form.querySelector(`#account-${name}`);
    this.#session = session;
    this.#lang = lang;
    const { username, password } = form.elements;
    this.#fields = {
      username: new Field({ key: "name", input: username, error: this.#find("name-error"), check: checkName, lang }),
      password: new Field({
        key: "password",
        input: password,
        error: this.#find("password-error"),
        check: (text) => (this.#isRegistration ? checkNewPassword(text) : checkPassword(text)),
        lang,
      }),
    };
    this.#passwordToggle = new PasswordToggle({ button: this.#find("password-toggle"), inputs: [password], lang });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.#find("switch").addEventListener("click", () => this.#setMode(this.#isRegistration ? "login" : "register"));
    this.#find("back").addEventListener("click", () => this.#onBack?.());
  }

  // Moves the form to `host`. `onDone` is called after a login. `onBack` is called if the user goes back; without it
  // the form has no way back.
  open(host, { mode, name = "", onDone, onBack = null }) {
    this.#onDone = onDone;
    this.#onBack = onBack;
    this.#fields.username.fill(name);
    host.append(this.#form);
    this.#form.hidden = false;
    this.#setMode(this.#session.canRegister ? mode : "login");
  }

  // Hides the form, if it is in `host`.
  close(host) {
    if (!host.contains(this.#form)) return;
    this.#form.hidden = true;
    this.#fields.password.fill("");
    this.#passwordToggle.hide();
  }

  translate() {
    const t = (key) => this.#lang.t(key);
    this.#find("title").textContent = t(this.#isRegistration ? "account.register" : "account.log_in");
    this.#find("submit").textContent = t(this.#isRegistration ? "account.submit_register" : "account.submit_log_in");
    this.#find("switch").textContent = t(this.#isRegistration ? "account.has_account" : "account.create");
    for (const field of Object.values(this.#fields)) field.translate();
    this.#passwordToggle.translate();
    this.#showError();
  }

  get #isRegistration() {
    return this.#mode === "register";
  }

  #setMode(mode) {
    this.#mode = mode;
    const { username, password } = this.#fields;
    username.fill(username.text);
    password.fill("");
    this.#passwordToggle.hide();
    this.#form.elements.password.autocomplete = this.#isRegistration ? "new-password" : "current-password";
    this.#find("password-hint").hidden = !this.#isRegistration;
    this.#find("switch").hidden = !this.#session.canRegister;
    this.#find("back").hidden = this.#onBack === null;
    this.#errorText = () => "";
    this.translate();
    (username.text === "" ? username : password).focus();
  }

  async #submit() {
    const values = this.#isBusy ? null : submitFields(this.#fields);
    if (!values) return;
    this.#passwordToggle.hide();
    this.#setBusy(true);
    const mode = this.#mode;
    try {
      if (this.#isRegistration) await this.#session.register(values);
      else await this.#session.logIn(values);
    } catch (error) {
      if (mode === this.#mode) this.#rejected(error);
      return;
    } finally {
      this.#setBusy(false);
    }
    this.close(this.#form.parentElement);
    this.#onDone();
  }

  #rejected(error) {
    const { username, password } = this.#fields;
    const isCodeRefused = [Reason.NO_SUCH_INVITATION, Reason.REGISTRATION_CLOSED].includes(reasonOf(error));
    const isSetupRefused = this.#isRegistration && isCodeRefused && this.#session.invitation?.isSetup;
    const text = () => (isSetupRefused ? this.#lang.t("invitation.setup_refused") : errorText(error, this.#lang));
    if (isAboutName(error)) username.reject(text);
    else if (reasonOf(error) === Reason.BAD_PASSWORD) password.reject(text);
    else {
      this.#errorText = text;
      this.#showError();
      this.#form.elements.password.select();
    }
  }

  #setBusy(isBusy) {
    this.#isBusy = isBusy;
    if (isBusy) this.#errorText = () => "";
    this.#showError();
    this.#form.ariaBusy = String(isBusy);
    // Unlike a disabled button, it keeps the focus.
    this.#find("submit").setAttribute("aria-disabled", String(isBusy));
  }

  #showError() {
    setText(this.#find("error"), this.#errorText());
  }
}
