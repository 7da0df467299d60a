// Who one is here: as a guest the ways to an account, with one its password and where one is logged in.

import { needsLogin, reasonOf } from "../core/codes.js";
import { Field, takeAll } from "../ui/field.js";
import { Reveal, checkNew, checkShown } from "../core/passwords.js";
import { dressFace } from "./people.js";
import { refusalText } from "../core/error-text.js";

export class You {
  #dialog;
  #find;
  #session;
  #lang;
  #account;
  #template;
  #on;
  #name = "";
  #password;
  #reveal;
  // Where we are logged in; null while that is not known.
  #sessions = null;
  #status = () => "";
  #isBusy = false;
  // What is done if one is sure.
  #sure = null;

  // `account` is the form to log in by. `on` hears `loggedIn`; `logOut` that somebody wants to; `ended` that they are not
  // logged in any more; and is asked `unsent`, how many messages are on their way.
  constructor({ dialog, session, lang, account, template, on }) {
    this.#dialog = dialog;
    this.#find = (name) => dialog.querySelector(`#you-${name}`);
    this.#session = session;
    this.#lang = lang;
    this.#account = account;
    this.#template = template;
    this.#on = on;
    const { old, next } = this.#find("password").elements;
    const field = (key, input, check) => new Field({ key: "password", input, wrong: this.#find(`${key}-wrong`), check, lang });
    this.#password = { old: field("old", old, checkShown), next: field("next", next, checkNew) };
    this.#reveal = new Reveal({ button: this.#find("reveal"), inputs: [old, next], lang });
    this.#listen();
  }

  get isOpen() {
    return this.#dialog.open;
  }

  // `name` is what we are called in the room.
  open(name) {
    this.#name = name;
    this.#show();
    this.#dialog.showModal();
  }

  close() {
    this.#dialog.close();
  }

  translate() {
    const { account } = this.#session;
    this.#find("role").textContent = this.#lang.t(`you.role.${account?.role ?? "guest"}`);
    for (const field of Object.values(this.#password)) field.translate();
    this.#reveal.translate();
    this.#showSessions();
    this.#showStatus();
    if (this.#sure) this.#find("sure").querySelector("p").textContent = this.#sure.words();
  }

  #listen() {
    this.#find("close").addEventListener("click", () => this.close());
    // A click beside it closes it, as people expect; what is typed in it is gone then as with Escape.
    this.#dialog.addEventListener("click", (event) => event.target === this.#dialog && this.close());
    this.#dialog.addEventListener("close", () => this.#closed());
    this.#find("log-in").addEventListener("click", () => this.#enter("login"));
    this.#find("register").addEventListener("click", () => this.#enter("register"));
    this.#find("password").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#changePassword();
    });
    this.#find("retry").addEventListener("click", () => this.#load());
    this.#find("others").addEventListener("click", () => this.#endOthers());
    this.#find("log-out").addEventListener("click", () => this.#logOut());
    this.#find("forget").addEventListener("click", () => this.#logOut());
    this.#find("yes").addEventListener("click", () => {
      const { act } = this.#sure;
      this.#ask(null);
      act();
    });
    this.#find("no").addEventListener("click", () => {
      const { asker } = this.#sure;
      this.#ask(null);
      asker.focus();
    });
  }

  #show() {
    const { account, canRegister } = this.#session;
    dressFace(this.#find("face"), this.#name);
    this.#find("name").textContent = this.#name;
    this.#find("guest").hidden = account !== null;
    this.#find("account").hidden = account === null;
    this.#find("ways").hidden = false;
    this.#find("register").hidden = !canRegister;
    this.#find("username").value = account?.username ?? "";
    for (const field of Object.values(this.#password)) field.fill("");
    this.#find("change").open = false;
    this.#find("retry").hidden = true;
    this.#sessions = null;
    this.#ask(null);
    this.#tell(() => "");
    this.translate();
    if (account) this.#load();
  }

  #closed() {
    this.#account.close(this.#dialog);
    this.#reveal.hide();
    for (const field of Object.values(this.#password)) field.fill("");
  }

  #enter(mode) {
    this.#find("ways").hidden = true;
    this.#account.open(this.#find("guest"), {
      mode,
      name: mode === "register" ? this.#name : "",
      onDone: () => {
        this.close();
        this.#on.loggedIn();
      },
      onBack: () => {
        this.#account.close(this.#dialog);
        this.#find("ways").hidden = false;
        this.#find("log-in").focus();
      },
    });
  }

  async #changePassword() {
    const taken = this.#isBusy ? null : takeAll(this.#password);
    if (!taken) return;
    this.#reveal.hide();
    await this.#while(async () => {
      try {
        await this.#session.changePassword(taken);
      } catch (error) {
        if (needsLogin(error)) throw error;
        const words = () => refusalText(error, this.#lang);
        const word = reasonOf(error);
        if (word === "wrong_password") this.#password.old.refuse(words);
        else if (word === "bad_password") this.#password.next.refuse(words);
        else this.#tell(words);
        return;
      }
      for (const field of Object.values(this.#password)) field.fill("");
      this.#find("change").open = false;
      this.#find("change").querySelector("summary").focus();
      this.#tell(() => this.#lang.t("you.changed"));
      await this.#load();
    });
  }

  async #load() {
    this.#find("retry").hidden = true;
    try {
      const sessions = await this.#session.list();
      // This one first, then those that were used last.
      this.#sessions = sessions.sort((a, b) => b.current - a.current || Date.parse(b.seen) - Date.parse(a.seen));
    } catch (error) {
      if (this.#isEnded(error)) return;
      this.#tell(() => refusalText(error, this.#lang));
      this.#find("retry").hidden = false;
    }
    this.#showSessions();
  }

  #showSessions() {
    const sessions = this.#sessions ?? [];
    this.#find("sessions").replaceChildren(...sessions.map((session) => this.#line(session)));
    this.#find("others").hidden = !sessions.some(isOtherLogin);
  }

  #line(session) {
    const { kind, current } = session;
    const element = this.#template.content.firstElementChild.cloneNode(true);
    const label = session.label || this.#lang.t("you.unknown");
    const moment = (text) => {
      const date = new Date(text);
      return `${this.#lang.day(date)}, ${this.#lang.time(date)}`;
    };
    const values = { created: moment(session.created), seen: moment(session.seen) };
    element.querySelector(".label").textContent = label;
    const badge = element.querySelector(".badge");
    badge.hidden = !current && kind !== "bot";
    badge.textContent = this.#lang.t(current ? "you.this_one" : "you.program");
    element.querySelector(".about").textContent = this.#lang.t(kind === "bot" ? "you.about_program" : "you.about_login", values);
    const end = element.querySelector("button");
    end.textContent = this.#lang.t("you.end");
    end.ariaLabel = this.#lang.t("you.end_named", { label });
    end.addEventListener("click", () => (current ? this.#askToLogOut(end) : this.#end([session])));
    return element;
  }

  #endOthers() {
    this.#end(this.#sessions.filter(isOtherLogin));
  }

  #end(sessions) {
    return this.#while(async () => {
      try {
        for (const { id } of sessions) await this.#session.end(id);
        this.#tell(() => this.#lang.plural("you.ended", sessions.length));
      } catch (error) {
        if (this.#isEnded(error)) return;
        this.#tell(() => refusalText(error, this.#lang));
      }
      await this.#load();
      // What was pressed may not be there any more.
      this.#find("where").focus();
    });
  }

  // What is unsent stays here for whoever wrote it, which not everybody expects.
  #logOut() {
    const { account } = this.#session;
    if (this.#on.unsent() > 0) this.#askToLogOut(this.#find(account ? "log-out" : "forget"));
    else this.#on.logOut();
  }

  #askToLogOut(asker) {
    const unsent = this.#on.unsent();
    this.#ask({
      words: () => (unsent > 0 ? this.#lang.plural("you.unsent", unsent, { name: this.#name }) : this.#lang.t("you.sure")),
      act: () => this.#on.logOut(),
      asker,
    });
  }

  #ask(sure) {
    this.#sure = sure;
    this.#find("sure").hidden = sure === null;
    if (sure === null) return;
    this.#find("sure").querySelector("p").textContent = sure.words();
    this.#find("no").focus();
  }

  // One thing at a time.
  async #while(act) {
    if (this.#isBusy) return;
    this.#isBusy = true;
    this.#dialog.ariaBusy = "true";
    try {
      await act();
    } catch (error) {
      if (!this.#isEnded(error)) throw error;
    } finally {
      this.#isBusy = false;
      this.#dialog.ariaBusy = "false";
    }
  }

  #isEnded(error) {
    if (!needsLogin(error)) return false;
    this.close();
    this.#on.ended();
    return true;
  }

  // Says what came of something; also that logging out has failed.
  tell(error) {
    this.#tell(() => refusalText(error, this.#lang));
  }

  #tell(words) {
    this.#status = words;
    this.#showStatus();
  }

  #showStatus() {
    const words = this.#status();
    if (this.#find("status").textContent !== words) this.#find("status").textContent = words;
  }
}

function isOtherLogin({ kind, current }) {
  return kind === "login" && !current;
}
