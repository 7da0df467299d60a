// The page. Creates the screens and dialogs once, and moves between the start screen and one room at a time.
//
// The other modules are in folders, and import only from their own folder and those in this list:
//
// - core/  pure functions and models; imports no other folder
// - net/   requests, the WebSocket, the session, storage; imports core
// - ui/    widgets that several views share; imports core
// - room/, start/, admin/  the views; import core, net and ui, not each other

import { Moderation } from "./admin/moderation.js";
import { RoomSettings } from "./admin/room-settings.js";
import { ServerSettings } from "./admin/server-settings.js";
import { PageReason, Reason, reasonOf } from "./core/codes.js";
import { LANGUAGES, Lang } from "./core/lang.js";
import { checkName, checkRoom } from "./core/names.js";
import { Rejection } from "./core/rejection.js";
import { RoomState } from "./core/room-state.js";
import { request } from "./net/requests.js";
import { Session } from "./net/session.js";
import { browserStore, tabStore } from "./net/storage.js";
import { Profile } from "./room/profile.js";
import { Room } from "./room/room.js";
import { RoomScreen } from "./room/room-screen.js";
import { takeInvitation } from "./start/invitation-link.js";
import { StartScreen } from "./start/start-screen.js";
import { AccountForm } from "./ui/account-form.js";
import { confirmAction } from "./ui/dialog.js";
import { make } from "./ui/elements.js";
import { onNewDay } from "./ui/new-day.js";
import { isPageVisible } from "./ui/page-events.js";
import { ScreenHistory } from "./ui/screen-history.js";
import { Toasts } from "./ui/toasts.js";
import { translateElements } from "./ui/translate.js";

const ROOM_DEFAULT = "general";
// The key of the room that the tab is in, `{ name, room, isAccount }`.
const TAB_ROOM_KEY = "stay";

const find = (id) => document.getElementById(id);

class Page {
  #lang;
  #session;
  #toasts;
  #accountForm;
  #startScreen;
  #roomScreen;
  #roomState;
  #profile;
  #history = new ScreenHistory((entry) => entry.room !== this.#roomId && this.#show(entry));
  // The room that the tab is in, its id, and the user's name in it.
  #room = null;
  #roomId = null;
  #name = "";
  // Messages that came while the page was hidden.
  #unreadCount = 0;

  constructor({ lang, session }) {
    this.#lang = lang;
    this.#session = session;
    this.#toasts = new Toasts({ region: find("toasts"), lang });
    this.#accountForm = new AccountForm({ form: find("account-form"), session, lang });
    this.#startScreen = new StartScreen({
      screen: find("start"),
      session,
      lang,
      accountForm: this.#accountForm,
      roomTemplate: find("room-template"),
      onJoin: ({ name, room }) => this.#join(name, room),
      onLogOut: () => this.#logOut(),
    });
    this.#profile = new Profile({
      dialog: find("profile"),
      session,
      lang,
      accountForm: this.#accountForm,
      template: find("session-template"),
      on: {
        loggedIn: () => this.#rejoin(),
        logOut: () => this.#logOut(),
        ended: () => this.#removed(new Rejection({ reason: Reason.SESSION_ENDED })),
        unsentCount: () => this.#room?.unsentCount ?? 0,
      },
    });
    this.#roomState = new RoomState(() => this.#roomStateChanged());
    const moderation = this.#createAdminTools();
    this.#roomScreen = new RoomScreen({
      lang,
      roomState: this.#roomState,
      on: {
        leave: () => this.#leave(),
        retry: () => this.#room?.retry(),
        openProfile: () => this.#profile.open(this.#name),
        messageMenu: (message) => moderation.openMessageMenu(message),
        personMenu: (person) => moderation.openPersonMenu(person),
      },
    });
    this.#listen();
    lang.onChange(() => this.#translate());
    this.#translate();
  }

  // Returns to the room that the tab was in before a reload, or shows the start screen.
  open() {
    const requested = requestedBy(location);
    const last = tabStore.get(TAB_ROOM_KEY);
    const { account, endedAccount, invitation } = this.#session;
    const { entry } = this.#history;
    const loginEnded = new Rejection({ reason: Reason.SESSION_ENDED });
    if (entry !== null && entry.room !== (last?.room ?? null) && !invitation) {
      this.#show(entry);
    } else if (!last || invitation || (requested.room && requested.room !== last.room)) {
      this.#history.start();
      this.#showStart({ ...requested, error: endedAccount && loginEnded });
    } else if (account || !last.isAccount) {
      this.#enter(account?.username ?? last.name, last.room);
    } else {
      this.#lose({ room: last.room, error: loginEnded });
    }
  }

  // The windows for admins, and the menus of messages and people.
  #createAdminTools() {
    const lang = this.#lang;
    const roomState = this.#roomState;
    const toasts = this.#toasts;
    const moderation = new Moderation({ lang, toasts, roomState });
    const roomSettings = new RoomSettings({ lang, toasts, roomState, onDeleted: (room) => this.#roomDeleted(room) });
    const serverSettings = new ServerSettings({ lang, nameOf: (id) => moderation.bannedName(id) });
    find("room-settings").addEventListener("click", () => roomSettings.open());
    find("server-settings").addEventListener("click", () => serverSettings.open());
    return moderation;
  }

  #listen() {
    for (const button of document.querySelectorAll("[data-lang]")) {
      button.addEventListener("click", () => {
        browserStore.set("lang", button.dataset.lang);
        this.#lang.choose(button.dataset.lang);
      });
    }
    window.addEventListener("hashchange", () => this.#invited(takeInvitation()));
    onNewDay(() => {
      this.#roomScreen.showDays();
      this.#profile.showDays();
    });
    document.addEventListener("visibilitychange", () => {
      this.#unreadCount = 0;
      this.#showTitle();
    });
  }

  #showStart({ name, room, error, roomAfterLogin }) {
    this.#roomScreen.hide();
    this.#startScreen.show({
      name: name ?? browserStore.get("name") ?? "",
      room: room ?? browserStore.get("room") ?? ROOM_DEFAULT,
      error,
      roomAfterLogin,
    });
    this.#showTitle();
  }

  // An invitation link was opened in this page.
  #invited(invitation) {
    if (!invitation) return;
    this.#session.invitation = invitation;
    this.#lose();
  }

  // Shows the screen of an entry of the history. A room is joined again, unless it takes a login or a name.
  #show({ room, isAccount }) {
    this.#closeRoom();
    const { account } = this.#session;
    const name = account?.username ?? (isAccount ? null : browserStore.get("name"));
    if (room !== null && name) this.#enter(name, room);
    else this.#showStart(requestedBy(location));
  }

  // Joins a room from the start screen. An invitation to the room is used first.
  async #join(name, room) {
    if (this.#session.invitation?.room === room) {
      this.#startScreen.setBusy(true);
      try {
        await this.#session.ensure({ name, account: this.#session.account?.id });
        await this.#session.acceptInvitation();
      } catch (error) {
        this.#startScreen.reject(error, room);
        return;
      } finally {
        this.#startScreen.setBusy(false);
      }
    }
    if (await this.#mayEnter(room)) this.#enter(name, room);
  }

  // Asks an admin before a private room is joined without an invitation, because its members see it.
  async #mayEnter(room) {
    return !this.#startScreen.isClosed(room) || confirmAction(this.#lang, {
      title: this.#lang.t("start.join_private", { room }),
      content: [make("p", {}, this.#lang.t("start.join_private_text"))],
      confirm: this.#lang.t("start.join_private_confirm"),
      action: () => {},
    });
  }

  #enter(name, room) {
    const { account } = this.#session;
    this.#startScreen.close();
    browserStore.set("room", room);
    this.#history.enterRoom(room, account !== null);
    this.#roomId = room;
    this.#name = name;
    this.#rememberName();
    this.#roomScreen.open(room, name);
    this.#room = new Room({
      name,
      session: this.#session,
      room,
      state: this.#roomState,
      views: this.#roomScreen.views,
      store: browserStore,
      onStatus: (status, closeCode, rejection) => this.#roomScreen.showConnection({ status, closeCode, rejection }),
      onMessage: () => this.#countUnread(),
      onRemoved: (error) => this.#removed(error),
      onRenamed: (name) => this.#renamed(name),
    });
    this.#room.start();
    this.#roomScreen.focus();
    this.#showTitle();
  }

  // The user has another name in the room.
  #renamed(name) {
    this.#name = name;
    this.#rememberName();
    this.#roomScreen.showName(name);
    this.#toasts.show(this.#lang.t("profile.renamed", { name }));
  }

  // Notes the room and the user's name in it, for a reload and for the start screen.
  #rememberName() {
    const isAccount = this.#session.account !== null;
    if (!isAccount) browserStore.set("name", this.#name);
    tabStore.set(TAB_ROOM_KEY, { name: this.#name, room: this.#roomId, isAccount });
  }

  // Joins the same room as the account that is logged in now. Unsent messages of the former user are kept, not sent.
  #rejoin() {
    const room = this.#roomId;
    this.#room.stop();
    this.#enter(this.#session.account.username, room);
  }

  // The user can't be, or stay, in the room. If another account is logged in before the room was joined, it joins
  // instead.
  #removed(error) {
    const isOtherAccount = reasonOf(error) === PageReason.ACCOUNT_CHANGED && this.#session.account;
    if (isOtherAccount && !this.#room.wasJoined) this.#rejoin();
    else this.#lose({ room: this.#roomId, error });
  }

  // The user has deleted the room. Its removal may have come before, or is lost with the connection.
  #roomDeleted(room) {
    if (room === this.#roomId) this.#removed(new Rejection({ reason: Reason.ROOM_DELETED }));
  }

  async #logOut() {
    if (!this.#session.account) browserStore.remove("name");
    try {
      await this.#session.logOut();
    } catch (error) {
      if (this.#profile.isOpen) this.#profile.showError(error);
      else this.#startScreen.reject(error);
      return;
    }
    this.#lose();
  }

  // Leaves the room by the user's wish.
  #leave() {
    this.#closeRoom();
    this.#history.leaveRoom();
    this.#showStart({});
  }

  // Leaves the room for good. After a rejection with an `error`, a login leads back to `room`.
  #lose({ room, error } = {}) {
    this.#closeRoom();
    this.#history.loseRoom();
    this.#showStart({ room, error, roomAfterLogin: room });
  }

  #closeRoom() {
    this.#room?.stop();
    this.#room = null;
    this.#profile.close();
    this.#roomScreen.close();
    for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
    tabStore.remove(TAB_ROOM_KEY);
    this.#roomId = null;
    this.#unreadCount = 0;
  }

  #countUnread() {
    if (isPageVisible()) return;
    this.#unreadCount += 1;
    this.#showTitle();
  }

  #roomStateChanged() {
    this.#roomScreen.views.roomStatus.show();
    this.#showTitle();
  }

  #showTitle() {
    const app = this.#lang.t("app.name");
    const title = this.#roomId === null ? app : `${this.#roomState.name} · ${app}`;
    document.title = this.#unreadCount > 0 ? `(${this.#lang.number(this.#unreadCount)}) ${title}` : title;
  }

  #translate() {
    document.documentElement.lang = this.#lang.code;
    translateElements(document, this.#lang);
    for (const button of document.querySelectorAll("[data-lang]")) {
      button.setAttribute("aria-pressed", String(button.dataset.lang === this.#lang.code));
    }
    this.#startScreen.translate();
    this.#accountForm.translate();
    this.#profile.translate();
    this.#roomScreen.translate();
    this.#showTitle();
  }
}

// The room and the name in the page's URL, if they are valid.
function requestedBy({ search }) {
  const query = new URLSearchParams(search);
  return { room: checkRoom(query.get("room") ?? "").value, name: checkName(query.get("name") ?? "").value };
}

// Loads all languages, because a change of the language must work without a connection.
async function loadLang() {
  const texts = await Promise.all(LANGUAGES.map(async (code) => [code, await request("GET", `lang/${code}.json`)]));
  return new Lang({
    texts: Object.fromEntries(texts),
    values: { origin: location.origin },
    preferred: navigator.languages,
    code: browserStore.get("lang"),
  });
}

const invitation = takeInvitation();
const [lang, session] = await Promise.all([loadLang(), Session.load(browserStore)]);
session.invitation = invitation;
new Page({ lang, session }).open();
