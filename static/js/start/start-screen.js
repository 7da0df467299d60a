// The door: who one is, where one wants to go, and the ways in. A guest is one step away from the room; beside it one can
// log in or, where the server lets one, make an account. Whoever is logged in chooses a room only.

import { isAboutName, needsLogin, reasonOf } from "../core/codes.js";
import { JoinForm } from "./join-form.js";
import { dressFace } from "../room/people.js";
import { refusalText } from "../core/error-text.js";
import { Rooms } from "./room-list.js";

// The name belongs to an account, which may be the visitor's own.
const ACCOUNT_NAME_REASONS = new Set(["name_taken", "name_reserved"]);

export class Door {
  #door;
  #find;
  #session;
  #lang;
  #join;
  #account;
  #rooms;
  #onEnter;
  // Gives the sentence above the forms.
  #notice = () => "";
  // The room to go to as soon as one has logged in.
  #straightTo = null;
  #isBusy = false;

  // `account` is the form to log in by; `onEnter` hears the name and the room, `onLogOut` that somebody wants to.
  constructor({ door, session, lang, account, roomTemplate, onEnter, onLogOut }) {
    this.#door = door;
    this.#find = (id) => door.querySelector(`#${id}`);
    this.#session = session;
    this.#lang = lang;
    this.#account = account;
    this.#onEnter = onEnter;
    this.#join = new JoinForm({ form: this.#find("join"), lang, onJoin: (chosen) => this.#isBusy || onEnter(chosen) });
    this.#rooms = new Rooms({
      section: this.#find("rooms"),
      list: this.#find("rooms").querySelector("ul"),
      template: roomTemplate,
      lang,
      onPick: (room) => {
        this.#join.setRoom(room);
        this.#join.submit();
      },
    });
    this.#find("join-account").addEventListener("click", () => this.#logIn(""));
    this.#find("join-register").addEventListener("click", () => this.#register());
    this.#find("join-mine").addEventListener("click", () => this.#logIn(this.#join.name));
    this.#find("join-log-out").addEventListener("click", onLogOut);
    // Whoever takes another name is not asked whether the first is theirs.
    this.#find("name").addEventListener("input", () => (this.#find("join-mine").hidden = true));
  }

  // Shows what is fit for whoever is there. `why` is the refusal that led here, `straightTo` the room to go (back) to once
  // one has logged in.
  show({ name, room, why = null, straightTo = null }) {
    this.#door.hidden = false;
    this.#straightTo = null;
    this.#join.fill({ name, room: this.#session.invitation?.room ?? room });
    this.#tell(this.#invited());
    if (why) this.refuse(why, straightTo);
    else this.#choose();
  }

  close() {
    this.#door.hidden = true;
    this.#rooms.close();
    this.#account.close(this.#door);
  }

  // Says why one is not let in, and offers what may help.
  refuse(error, straightTo = null) {
    const values = { room: this.#find("room").value, name: this.#session.account?.username ?? "" };
    const words = () => refusalText(error, this.#lang, values);
    this.#straightTo = straightTo;
    if (needsLogin(error)) {
      this.#tell(words);
      this.#logIn(this.#session.lost?.username ?? "");
    } else if (this.#session.account || !isAboutName(error)) {
      this.#tell(words);
      this.#choose();
    } else {
      this.#choose();
      this.#find("join-mine").hidden = !ACCOUNT_NAME_REASONS.has(reasonOf(error));
      this.#join.refuse(words);
    }
  }

  setBusy(isBusy) {
    this.#isBusy = isBusy;
    this.#find("join").ariaBusy = String(isBusy);
    this.#find("join").querySelector(".primary").setAttribute("aria-disabled", String(isBusy));
  }

  translate() {
    this.#join.translate();
    this.#rooms.translate();
    const words = this.#notice();
    if (this.#find("door-notice").textContent !== words) this.#find("door-notice").textContent = words;
  }

  // What whoever comes by an invitation is told.
  #invited() {
    const { account, about, invitation } = this.#session;
    if (invitation === null) return () => "";
    const { room } = invitation;
    const canBeGuest = !account && about.accounts === "optional";
    if (room !== null) return () => this.#lang.t(canBeGuest ? "invited.room_guest" : "invited.room", { room });
    if (!account && invitation.isSetup) return () => this.#lang.t("invited.setup");
    if (!account) return () => this.#lang.t(about.registration === "closed" ? "invited.closed" : "invited.register");
    this.#session.invitation = null;
    return () => this.#lang.t("invited.have_one");
  }

  #choose() {
    const { account, about, invitation, canRegister } = this.#session;
    if (account) this.#showJoin();
    else if (invitation?.room === null && canRegister) this.#register();
    else if (about.accounts === "required") this.#logIn("");
    else this.#showJoin();
  }

  #showJoin() {
    const { account, canRegister } = this.#session;
    this.#account.close(this.#door);
    // Which rooms there are may be another thing to whoever has just logged in.
    this.#rooms.open();
    this.#find("join").hidden = false;
    this.#find("join-as").hidden = account === null;
    this.#find("join-ways").hidden = account !== null;
    this.#find("join-register").hidden = !canRegister;
    this.#find("join-mine").hidden = true;
    this.#join.setAccount(account);
    if (account) {
      this.#find("join-as").querySelector(".who").textContent = account.username;
      dressFace(this.#find("join-as").querySelector(".face"), account.username);
    }
    this.#join.focus();
  }

  #logIn(name) {
    this.#showAccount("login", name);
  }

  #register() {
    this.#showAccount("register", this.#join.name);
  }

  #showAccount(mode, name) {
    this.#find("join").hidden = true;
    this.#rooms.close();
    this.#account.open(this.#find("door-account"), {
      mode,
      name,
      onDone: () => this.#loggedIn(),
      onBack: this.#session.about.accounts === "required" ? null : () => this.#back(),
    });
  }

  #back() {
    this.#straightTo = null;
    this.#tell(this.#invited());
    this.#showJoin();
  }

  #loggedIn() {
    if (this.#straightTo) {
      this.#onEnter({ name: this.#session.account.username, room: this.#straightTo });
      return;
    }
    this.#tell(this.#invited());
    this.#showJoin();
  }

  #tell(words) {
    this.#notice = words;
    this.translate();
  }
}
