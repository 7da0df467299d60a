// The start screen. A guest enters a name and a room. A user with an account logs in, and enters a room only. Where the
// server's policy allows it, a new user registers.

import { isAboutName, isNameOfAccount, needsLogin } from "../core/codes.js";
import { errorText } from "../core/error-text.js";
import { fillAvatar } from "../ui/avatar.js";
import { setText } from "../ui/elements.js";
import { JoinForm } from "./join-form.js";
import { RoomList } from "./room-list.js";

export class StartScreen {
  #screen;
  #find;
  #session;
  #lang;
  #joinForm;
  #accountForm;
  #roomList;
  #onJoin;
  // Returns the text above the forms.
  #noticeText = () => "";
  // The room that is joined after a login, if any.
  #roomAfterLogin = null;
  #isBusy = false;

  // `onJoin` is called with `{ name, room }`, `onLogOut` when the user wants to log out.
  constructor({ screen, session, lang, accountForm, roomTemplate, onJoin, onLogOut }) {
    this.#screen = screen;
    this.#find = (id) => screen.querySelector(`#${id}`);
    this.#session = session;
    this.#lang = lang;
    this.#accountForm = accountForm;
    this.#onJoin = onJoin;
    this.#joinForm = new JoinForm({
      form: this.#find("join"),
      lang,
      onJoin: (values) => this.#isBusy || onJoin(values),
    });
    this.#roomList = new RoomList({
      section: this.#find("rooms"),
      list: this.#find("rooms").querySelector("ul"),
      template: roomTemplate,
      lang,
      onPick: (room) => {
        this.#joinForm.room = room;
        this.#joinForm.submit();
      },
    });
    this.#find("join-log-in").addEventListener("click", () => this.#openLogin(""));
    this.#find("join-register").addEventListener("click", () => this.#openRegistration());
    this.#find("join-own-name").addEventListener("click", () => this.#openLogin(this.#joinForm.name));
    this.#find("join-log-out").addEventListener("click", onLogOut);
    // The offer to log in under the rejected name ends with another name.
    this.#find("name").addEventListener("input", () => (this.#find("join-own-name").hidden = true));
  }

  // Shows the form that fits the session. `error` is the rejection that led here. `roomAfterLogin` is the room that is
  // joined after a login.
  show({ name, room, error = null, roomAfterLogin = null }) {
    this.#screen.hidden = false;
    this.#roomAfterLogin = null;
    this.#joinForm.fill({ name, room: this.#session.invitation?.room ?? room });
    this.#setNotice(this.#invitationText());
    if (error) this.reject(error, roomAfterLogin);
    else this.#openForm();
  }

  close() {
    this.#screen.hidden = true;
    this.#roomList.close();
    this.#accountForm.close(this.#screen);
  }

  // Shows a rejection, with the form that may help.
  reject(error, roomAfterLogin = null) {
    const values = { room: this.#joinForm.room, name: this.#session.account?.username ?? "" };
    const text = () => errorText(error, this.#lang, values);
    this.#roomAfterLogin = roomAfterLogin;
    if (needsLogin(error)) {
      this.#setNotice(text);
      this.#openLogin(this.#session.endedAccount?.username ?? "");
    } else if (this.#session.account || !isAboutName(error)) {
      this.#setNotice(text);
      this.#openForm();
    } else {
      this.#openForm();
      this.#find("join-own-name").hidden = !isNameOfAccount(error);
      this.#joinForm.rejectName(text);
    }
  }

  setBusy(isBusy) {
    this.#isBusy = isBusy;
    this.#find("join").ariaBusy = String(isBusy);
    this.#find("join").querySelector(".primary").setAttribute("aria-disabled", String(isBusy));
  }

  translate() {
    this.#joinForm.translate();
    this.#roomList.translate();
    setText(this.#find("start-notice"), this.#noticeText());
  }

  // The function for the text about the invitation, if there is one.
  #invitationText() {
    const { account, about, invitation } = this.#session;
    if (invitation === null) return () => "";
    const { room } = invitation;
    const canBeGuest = !account && about.accounts === "optional";
    if (room !== null) return () => this.#lang.t(canBeGuest ? "invitation.room_guest" : "invitation.room", { room });
    if (!account && invitation.isSetup) return () => this.#lang.t("invitation.setup");
    const isClosed = about.registration === "closed";
    if (!account) return () => this.#lang.t(isClosed ? "invitation.closed" : "invitation.register");
    this.#session.invitation = null;
    return () => this.#lang.t("invitation.have_one");
  }

  // Opens the form that the session needs next.
  #openForm() {
    const { account, about, invitation, canRegister } = this.#session;
    if (account) this.#openJoin();
    else if (invitation?.room === null && canRegister) this.#openRegistration();
    else if (about.accounts === "required") this.#openLogin("");
    else this.#openJoin();
  }

  #openJoin() {
    const { account, canRegister } = this.#session;
    this.#accountForm.close(this.#screen);
    // After a login the list may have private rooms.
    this.#roomList.open();
    this.#find("join").hidden = false;
    this.#find("join-identity").hidden = account === null;
    this.#find("join-links").hidden = account !== null;
    this.#find("join-register").hidden = !canRegister;
    this.#find("join-own-name").hidden = true;
    this.#joinForm.setAccount(account);
    if (account) {
      this.#find("join-identity").querySelector(".username").textContent = account.username;
      fillAvatar(this.#find("join-identity").querySelector(".avatar"), account.username);
    }
    this.#joinForm.focus();
  }

  // Whether a room is private, and the user no member of it.
  isClosed(room) {
    return this.#roomList.isClosed(room);
  }

  #openLogin(name) {
    this.#openAccountForm("login", name);
  }

  #openRegistration() {
    this.#openAccountForm("register", this.#joinForm.name);
  }

  #openAccountForm(mode, name) {
    this.#find("join").hidden = true;
    this.#roomList.close();
    this.#accountForm.open(this.#find("start-account"), {
      mode,
      name,
      onDone: () => this.#loggedIn(),
      onBack: this.#session.about.accounts === "required" ? null : () => this.#goBack(),
    });
  }

  #goBack() {
    this.#roomAfterLogin = null;
    this.#setNotice(this.#invitationText());
    this.#openJoin();
  }

  #loggedIn() {
    if (this.#roomAfterLogin) {
      this.#onJoin({ name: this.#session.account.username, room: this.#roomAfterLogin });
      return;
    }
    this.#setNotice(this.#invitationText());
    this.#openJoin();
  }

  #setNotice(text) {
    this.#noticeText = text;
    this.translate();
  }
}
