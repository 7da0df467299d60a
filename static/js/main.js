// The page: a door with a form, and behind it the room. Builds the views once and wires them to one visit at a time.

import { AccountForm } from "./ui/account-form.js";
import { reasonOf } from "./core/codes.js";
import { Composer } from "./room/composer.js";
import { Door } from "./start/start-screen.js";
import { House } from "./admin/server-settings.js";
import { takeInvitation } from "./start/invitation-link.js";
import { Lang } from "./core/lang.js";
import { Moderation } from "./admin/moderation.js";
import { checkName, checkRoom } from "./core/names.js";
import { Past } from "./room/past.js";
import { People, dressFace } from "./room/people.js";
import { refusalText } from "./core/error-text.js";
import { Refused } from "./net/requests.js";
import { RoomSettings } from "./admin/room-settings.js";
import { Search } from "./room/search.js";
import { Session } from "./net/session.js";
import { Standing } from "./room/restrictions.js";
import { choices, tab } from "./net/storage.js";
import { Timeline } from "./room/timeline.js";
import { Toasts } from "./ui/toasts.js";
import { TypingLine } from "./room/typing.js";
import { Visit } from "./room/room.js";
import { You } from "./room/profile.js";

const ROOM_DEFAULT = "general";
const CLOSE_POLICY = 1008;

// Where the people stand beside the room, and are no drawer; as in `app.css`.
const WIDE = "(min-width: 48rem)";

const find = (id) => document.getElementById(id);

class Page {
  #lang;
  #session;
  #account;
  #door;
  #you;
  #views;
  #search;
  #visit = null;
  #room = null;
  #name = "";
  #status = { status: "connecting" };
  #unread = 0;

  constructor({ lang, session }) {
    this.#lang = lang;
    this.#session = session;
    this.#account = new AccountForm({ form: find("account"), session, lang });
    this.#door = new Door({
      door: find("door"),
      session,
      lang,
      account: this.#account,
      roomTemplate: find("room-template"),
      onEnter: ({ name, room }) => this.#enter(name, room),
      onLogOut: () => this.#logOut(),
    });
    this.#you = new You({
      dialog: find("you"),
      session,
      lang,
      account: this.#account,
      template: find("session-template"),
      on: {
        loggedIn: () => this.#rejoin(),
        logOut: () => this.#logOut(),
        ended: () => this.#refused(new Refused({ reason: "session_ended" })),
        unsent: () => this.#visit?.unsent ?? 0,
      },
    });
    const { standing, moderation } = this.#keepOrder();
    const timeline = new Timeline({
      scroller: find("scroller"),
      list: find("timeline"),
      pending: find("pending"),
      empty: find("empty"),
      newer: find("newer"),
      templates: { message: find("message-template"), line: find("line-template"), pending: find("pending-template") },
      lang,
      onMore: (about) => moderation.messageMenu(about),
    });
    this.#views = {
      timeline,
      past: new Past({ timeline, older: find("older"), later: find("later"), lang }),
      people: new People({
        list: find("people").querySelector("ul"),
        count: find("people-count"),
        badge: find("people-badge"),
        more: find("people-more"),
        template: find("person-template"),
        lang,
        onMore: (about) => moderation.memberMenu(about),
      }),
      standing,
      typing: new TypingLine({ line: find("typing"), text: find("typing-text"), lang }),
      composer: new Composer({
        form: find("compose"),
        words: find("words"),
        wrong: find("compose-wrong"),
        lang,
        store: tab,
      }),
    };
    this.#search = new Search({
      form: find("search-form"),
      state: find("search-state"),
      list: find("search-found").querySelector("ol"),
      more: find("search-more"),
      retry: find("search-retry"),
      template: find("result-template"),
      lang,
      onPick: (frame) => this.#goTo(frame),
    });
    this.#views.search = this.#search;
    this.#listen();
    lang.onSwitch(() => this.#translate());
    this.#translate();
  }

  // Goes back to where this tab was before a reload; otherwise to the door.
  open() {
    const asked = askedFor(location);
    const stay = tab.get("stay");
    const { account, lost, invitation } = this.#session;
    const ended = new Refused({ reason: "session_ended" });
    if (!stay || invitation || (asked.room && asked.room !== stay.room)) this.#showDoor({ ...asked, why: lost && ended });
    else if (account || !stay.isAccount) this.#join(account?.username ?? stay.name, stay.room);
    else this.#leave({ room: stay.room, why: ended });
  }

  // What is there for keeping order, and for seeing that it is kept.
  #keepOrder() {
    const lang = this.#lang;
    const toasts = new Toasts({ region: find("toasts"), lang });
    const parts = {
      chat: find("chat"),
      name: find("room-name"),
      topic: find("topic"),
      lock: find("room-private"),
      note: find("compose-note"),
      form: find("compose"),
      slow: find("slow"),
    };
    const standing = new Standing({ parts, lang, onChange: () => this.#showTitle() });
    const settings = new RoomSettings({ lang, toasts, standing });
    const moderation = new Moderation({ lang, toasts, standing });
    const house = new House({ lang, nameOf: (id) => moderation.nameOf(id) });
    find("room-settings").addEventListener("click", () => settings.open());
    find("house").addEventListener("click", () => house.open());
    return { standing, moderation };
  }

  #listen() {
    for (const button of document.querySelectorAll("[data-lang]")) {
      button.addEventListener("click", () => this.#lang.choose(button.dataset.lang));
    }
    find("you-open").addEventListener("click", () => this.#you.open(this.#name));
    window.addEventListener("hashchange", () => this.#invited(takeInvitation()));
    find("leave").addEventListener("click", () => this.#leave());
    find("lost-retry").addEventListener("click", () => this.#visit?.retry());
    find("people-open").addEventListener("click", () => this.#toggleDrawer(true));
    find("people-close").addEventListener("click", () => this.#toggleDrawer(false));
    find("veil").addEventListener("click", () => this.#toggleDrawer(false));
    find("search-open").addEventListener("click", () => this.#toggleSearch(find("search").hidden));
    find("search-close").addEventListener("click", () => this.#toggleSearch(false));
    document.addEventListener("keydown", (event) => this.#pressed(event));
    matchMedia(WIDE).addEventListener("change", () => this.#toggleDrawer(false));
    document.addEventListener("visibilitychange", () => {
      this.#unread = 0;
      this.#showTitle();
    });
  }

  #showDoor({ name, room, why, straightTo }) {
    find("chat").hidden = true;
    const filled = { name: name ?? choices.get("name") ?? "", room: room ?? choices.get("room") ?? ROOM_DEFAULT };
    this.#door.show({ ...filled, why, straightTo });
    this.#showTitle();
  }

  // A link was followed while the page was open.
  #invited(invitation) {
    if (!invitation) return;
    this.#session.invitation = invitation;
    this.#leave();
  }

  // Goes from the door into a room; where one is invited to it, as its member.
  async #enter(name, room) {
    if (this.#session.invitation?.room === room) {
      this.#door.setBusy(true);
      try {
        await this.#session.ensure({ name, account: this.#session.account?.id });
        await this.#session.accept();
      } catch (error) {
        this.#door.refuse(error, room);
        return;
      } finally {
        this.#door.setBusy(false);
      }
    }
    this.#join(name, room);
  }

  #join(name, room) {
    const { account } = this.#session;
    this.#door.close();
    if (!account) choices.set("name", name);
    choices.set("room", room);
    tab.set("stay", { name, room, isAccount: account !== null });
    // The link in the address bar leads others to the room, and does not bear our name.
    const link = new URL(location.pathname, location.href);
    link.searchParams.set("room", room);
    history.replaceState(null, "", link);
    this.#room = room;
    this.#name = name;
    dressFace(find("you-open").querySelector(".face"), name);
    find("chat").hidden = false;
    find("lost").hidden = true;
    this.#visit = new Visit({
      name,
      session: this.#session,
      room,
      views: this.#views,
      store: choices,
      onStatus: (status, code, refused) => this.#showStatus({ status, code, refused }),
      onMessage: () => this.#count(),
      onRefused: (error) => this.#refused(error),
    });
    this.#visit.start();
    this.#views.composer.focus();
    this.#showTitle();
  }

  // As whoever we are now; what is unsent in the name of whom we were is kept, and not sent.
  #rejoin() {
    const room = this.#room;
    this.#visit.stop();
    this.#join(this.#session.account.username, room);
  }

  // The server does not let us in, or not any more, as who we were. Whoever was not in the room yet goes there as
  // whoever they are.
  #refused(error) {
    if (reasonOf(error) === "account_changed" && this.#session.account && !this.#visit.wasThere) this.#rejoin();
    else this.#leave({ room: this.#room, why: error });
  }

  async #logOut() {
    if (!this.#session.account) choices.remove("name");
    try {
      await this.#session.logOut();
    } catch (error) {
      if (this.#you.isOpen) this.#you.tell(error);
      else this.#door.refuse(error);
      return;
    }
    this.#leave();
  }

  #leave({ room, why } = {}) {
    this.#visit?.stop();
    this.#visit = null;
    this.#you.close();
    this.#toggleDrawer(false);
    this.#toggleSearch(false);
    for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
    this.#search.forget();
    tab.remove("stay");
    history.replaceState(null, "", location.pathname);
    this.#room = null;
    this.#unread = 0;
    this.#showDoor({ room, why, straightTo: room });
  }

  #showStatus(status) {
    this.#status = status;
    find("status").dataset.state = status.status;
    // Note and words stay while it is tried again, or they would flicker (and be read out) with each attempt.
    const lost = status.status === "waiting" || (status.status === "connecting" && !find("lost").hidden);
    const state = this.#lang.t(`status.${lost ? "waiting" : status.status}`);
    if (find("status-text").textContent !== state) find("status-text").textContent = state;
    const words = lost ? this.#lostText(status) : "";
    if (find("lost-text").textContent !== words) find("lost-text").textContent = words;
    find("lost").hidden = !lost;
  }

  #lostText({ code, refused = null }) {
    if (refused !== null) return refusalText(refused, this.#lang);
    return this.#lang.t(code === CLOSE_POLICY ? "lost.policy" : "lost.text");
  }

  #count() {
    if (document.visibilityState !== "hidden") return;
    this.#unread += 1;
    this.#showTitle();
  }

  #showTitle() {
    const app = this.#lang.t("app.name");
    const title = this.#room === null ? app : `${this.#views.standing.name} · ${app}`;
    document.title = this.#unread > 0 ? `(${this.#lang.number(this.#unread)}) ${title}` : title;
  }

  #pressed(event) {
    if (event.isComposing || this.#room === null || document.querySelector("dialog[open]")) return;
    if (event.key === "Escape") {
      if (find("chat").classList.contains("drawer")) this.#toggleDrawer(false);
      else if (!find("search").hidden) {
        // Some browsers empty a search field on Escape; what was looked for is to stay.
        event.preventDefault();
        this.#toggleSearch(false);
      }
    } else if (isK(event) && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      this.#toggleDrawer(false);
      this.#toggleSearch(true);
    }
  }

  // The search lies over the talk, which can't be reached meanwhile.
  #toggleSearch(open) {
    const wasOpen = !find("search").hidden;
    find("search").hidden = !open;
    find("search-open").setAttribute("aria-expanded", String(open));
    this.#coverTalk();
    if (open) this.#search.open(this.#room);
    else if (wasOpen) find("search-open").focus();
  }

  #coverTalk() {
    const covered = find("chat").classList.contains("drawer") || !find("search").hidden;
    for (const element of [find("talk"), find("foot")]) element.inert = covered;
  }

  async #goTo(frame) {
    if (!(await this.#views.past.bring(frame))) return;
    this.#toggleSearch(false);
    this.#views.timeline.show(frame.id);
  }

  // On a phone the list of people is a drawer, and the rest can't be reached while it is open.
  #toggleDrawer(open) {
    const wasOpen = find("chat").classList.contains("drawer");
    if (open === wasOpen) return;
    find("chat").classList.toggle("drawer", open);
    find("veil").hidden = !open;
    find("people-open").setAttribute("aria-expanded", String(open));
    for (const id of ["leave", "search", "search-open"]) find(id).inert = open;
    this.#coverTalk();
    (open ? find("people-close") : find("people-open")).focus();
  }

  #translate() {
    document.documentElement.lang = this.#lang.code;
    this.#lang.apply(document);
    for (const button of document.querySelectorAll("[data-lang]")) {
      button.setAttribute("aria-pressed", String(button.dataset.lang === this.#lang.code));
    }
    this.#door.translate();
    this.#account.translate();
    this.#you.translate();
    this.#views.standing.translate();
    this.#views.timeline.translate();
    this.#views.past.translate();
    this.#views.people.translate();
    this.#views.typing.show();
    this.#views.composer.translate();
    this.#search.translate();
    this.#showStatus(this.#status);
    this.#showTitle();
  }
}

// On a Bengali layout the key that elsewhere is K bears another letter.
function isK({ key, code }) {
  return key.toLowerCase() === "k" || (code === "KeyK" && !/^[a-z]$/i.test(key));
}

// A room and a name that a link asks for, as far as they can be.
function askedFor({ search }) {
  const query = new URLSearchParams(search);
  return { room: checkRoom(query.get("room") ?? "").value, name: checkName(query.get("name") ?? "").value };
}

const invitation = takeInvitation();
const [lang, session] = await Promise.all([Lang.load(choices), Session.load(choices)]);
session.invitation = invitation;
new Page({ lang, session }).open();
