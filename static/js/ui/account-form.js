// Logging in and making an account: one form, which stands where it is opened, at the door or in the room.

import { isAboutName, reasonOf } from "../core/codes.js";
import { Field, takeAll } from "./field.js";
import { checkName } from "../core/names.js";
import { Reveal, checkNew, checkShown } from "../core/passwords.js";
import { refusalText } from "../core/error-text.js";

export class AccountForm {
  #form;
  #find;
  #session;
  #lang;
  #fields;
  #reveal;
  #mode = "login";
  #onDone = () => {};
  #onBack = null;
  #isBusy = false;
  #wrong = () => "";

  constructor({ form, session, lang }) {
    this.#form = form;
    this.#find = (name) => form.querySelector(`#account-${name}`);
    this.#session = session;
    this.#lang = lang;
    const { username, password } = form.elements;
    this.#fields = {
      username: new Field({ key: "name", input: username, wrong: this.#find("name-wrong"), check: checkName, lang }),
      password: new Field({
        key: "password",
        input: password,
        wrong: this.#find("password-wrong"),
        check: (text) => (this.#isNew ? checkNew(text) : checkShown(text)),
        lang,
      }),
    };
    this.#reveal = new Reveal({ button: this.#find("reveal"), inputs: [password], lang });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.#find("other").addEventListener("click", () => this.#turn(this.#isNew ? "login" : "register"));
    this.#find("back").addEventListener("click", () => this.#onBack?.());
  }

  // Moves the form to `host`. `mode` is "login" or "register"; `onDone` hears that we are logged in, `onBack` that
  // somebody would rather not, where that is offered.
  open(host, { mode, name = "", onDone, onBack = null }) {
    this.#onDone = onDone;
    this.#onBack = onBack;
    this.#fields.username.fill(name);
    host.append(this.#form);
    this.#form.hidden = false;
    this.#turn(this.#session.canRegister ? mode : "login");
  }

  // Ends what was begun in `host`, if it stands there still.
  close(host) {
    if (!host.contains(this.#form)) return;
    this.#form.hidden = true;
    this.#fields.password.fill("");
    this.#reveal.hide();
  }

  translate() {
    const t = (key) => this.#lang.t(key);
    this.#find("title").textContent = t(this.#isNew ? "account.register" : "account.log_in");
    this.#find("submit").textContent = t(this.#isNew ? "account.do_register" : "account.do_log_in");
    this.#find("other").textContent = t(this.#isNew ? "account.have_one" : "account.make_one");
    for (const field of Object.values(this.#fields)) field.translate();
    this.#reveal.translate();
    this.#showWrong();
  }

  get #isNew() {
    return this.#mode === "register";
  }

  #turn(mode) {
    this.#mode = mode;
    const { username, password } = this.#fields;
    username.fill(username.text);
    password.fill("");
    this.#reveal.hide();
    this.#form.elements.password.autocomplete = this.#isNew ? "new-password" : "current-password";
    this.#find("password-hint").hidden = !this.#isNew;
    this.#find("other").hidden = !this.#session.canRegister;
    this.#find("back").hidden = this.#onBack === null;
    this.#wrong = () => "";
    this.translate();
    (username.text === "" ? username : password).focus();
  }

  async #submit() {
    const taken = this.#isBusy ? null : takeAll(this.#fields);
    if (!taken) return;
    this.#reveal.hide();
    this.#setBusy(true);
    const mode = this.#mode;
    try {
      if (this.#isNew) await this.#session.register(taken);
      else await this.#session.logIn(taken);
    } catch (error) {
      if (mode === this.#mode) this.#refused(error);
      return;
    } finally {
      this.#setBusy(false);
    }
    this.close(this.#form.parentElement);
    this.#onDone();
  }

  #refused(error) {
    const { username, password } = this.#fields;
    const words = () => refusalText(error, this.#lang);
    if (isAboutName(error)) username.refuse(words);
    else if (reasonOf(error) === "bad_password") password.refuse(words);
    else {
      this.#wrong = words;
      this.#showWrong();
      this.#form.elements.password.select();
    }
  }

  #setBusy(isBusy) {
    this.#isBusy = isBusy;
    this.#wrong = isBusy ? () => "" : this.#wrong;
    this.#showWrong();
    this.#form.ariaBusy = String(isBusy);
    // It keeps the focus, and a second press does nothing.
    this.#find("submit").setAttribute("aria-disabled", String(isBusy));
  }

  #showWrong() {
    const words = this.#wrong();
    if (this.#find("wrong").textContent !== words) this.#find("wrong").textContent = words;
  }
}
