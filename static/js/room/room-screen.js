// The screen of a room: the header, the messages, the composer, the people and the search. Creates their views, and
// opens and closes the parts that cover others.

import { CloseCode } from "../core/codes.js";
import { errorText } from "../core/error-text.js";
import { tabStore } from "../net/storage.js";
import { fillAvatar } from "../ui/avatar.js";
import { setText } from "../ui/elements.js";
import { RovingFocus } from "../ui/roving-focus.js";
import { Composer } from "./composer.js";
import { HistoryLoader } from "./history-loader.js";
import { People } from "./people.js";
import { RoomStatus } from "./room-status.js";
import { Search } from "./search.js";
import { Timeline } from "./timeline.js";
import { TypingLine } from "./typing.js";

// On a page of this width the people are beside the room, else in a drawer. The same width is in `css/people.css`.
const WIDE = "(min-width: 48rem)";

const find = (id) => document.getElementById(id);

export class RoomScreen {
  // The views that a `Room` updates.
  views;
  #lang;
  #room = null;
  #status = { status: "connecting" };

  // `on` has functions for the user's actions: `leave`, `retry` (connect now), `openProfile`, and `messageMenu` and
  // `personMenu` with the message or person whose menu button was pressed.
  constructor({ lang, roomState, on }) {
    this.#lang = lang;
    this.views = this.#createViews(roomState, on);
    find("leave").addEventListener("click", () => on.leave());
    find("reconnect").addEventListener("click", () => on.retry());
    find("profile-open").addEventListener("click", () => on.openProfile());
    find("people-open").addEventListener("click", () => this.#setDrawer(true));
    find("people-close").addEventListener("click", () => this.#setDrawer(false));
    find("drawer-backdrop").addEventListener("click", () => this.#setDrawer(false));
    find("search-open").addEventListener("click", () => this.#setSearch(find("search").hidden));
    find("search-close").addEventListener("click", () => this.#setSearch(false));
    document.addEventListener("keydown", (event) => this.#keyPressed(event));
    new RovingFocus({ container: find("timeline"), selector: ".more", startsAtLast: true });
    new RovingFocus({ container: find("people"), selector: ".person .more" });
    new RovingFocus({ container: find("search-results"), selector: ".result button" });
    matchMedia(WIDE).addEventListener("change", () => this.#setDrawer(false));
  }

  open(room, name) {
    this.#room = room;
    this.showName(name);
    find("chat").hidden = false;
    find("disconnected").hidden = true;
  }

  showName(name) {
    fillAvatar(find("profile-open").querySelector(".avatar"), name);
  }

  close() {
    this.#room = null;
    this.#setDrawer(false);
    this.#setSearch(false);
    this.views.search.reset();
  }

  hide() {
    find("chat").hidden = true;
  }

  focus() {
    this.views.composer.focus();
  }

  // Shows the status of the connection: the channel's status, the close code and the rejection of a lost connection.
  showConnection({ status, closeCode, rejection = null }) {
    this.#status = { status, closeCode, rejection };
    find("status").dataset.state = status;
    // During an attempt to reconnect the texts stay. Otherwise they would flicker, and be read aloud each time.
    const isLost = status === "waiting" || (status === "connecting" && !find("disconnected").hidden);
    setText(find("status-text"), this.#lang.t(`status.${isLost ? "waiting" : status}`));
    setText(find("disconnected-text"), isLost ? this.#lostText() : "");
    find("disconnected").hidden = !isLost;
  }

  translate() {
    const { roomStatus, timeline, historyLoader, people, typing, composer, search } = this.views;
    roomStatus.show();
    timeline.translate();
    historyLoader.translate();
    people.translate();
    typing.show();
    composer.translate();
    search.translate();
    this.showConnection(this.#status);
  }

  // Shows points in time as they are called from now on, because a new day has begun.
  showDays() {
    const { roomStatus, timeline, search } = this.views;
    roomStatus.show();
    timeline.showDays();
    search.showTimes();
  }

  #createViews(roomState, on) {
    const lang = this.#lang;
    const timeline = new Timeline({
      scroller: find("scroller"),
      list: find("timeline"),
      pending: find("pending"),
      empty: find("timeline-empty"),
      newer: find("newer"),
      templates: { message: find("message-template"), line: find("line-template"), pending: find("pending-template") },
      lang,
      onMore: (message) => on.messageMenu(message),
    });
    return {
      timeline,
      historyLoader: new HistoryLoader({ timeline, older: find("older"), later: find("later"), lang }),
      people: new People({
        list: find("people").querySelector("ul"),
        count: find("people-count"),
        badge: find("people-badge"),
        more: find("people-more"),
        template: find("person-template"),
        lang,
        onMore: (person) => on.personMenu(person),
      }),
      roomStatus: new RoomStatus({
        parts: {
          chat: find("chat"),
          name: find("room-name"),
          topic: find("topic"),
          lock: find("room-lock"),
          notice: find("compose-notice"),
          form: find("compose"),
          slowMode: find("slow-mode"),
        },
        state: roomState,
        lang,
      }),
      typing: new TypingLine({ line: find("typing"), text: find("typing-text"), lang }),
      composer: new Composer({
        form: find("compose"),
        input: find("message-input"),
        error: find("compose-error"),
        lang,
        store: tabStore,
      }),
      search: new Search({
        form: find("search-form"),
        state: find("search-status"),
        list: find("search-results").querySelector("ol"),
        more: find("search-more"),
        retry: find("search-retry"),
        template: find("result-template"),
        lang,
        onPick: (frame) => this.#showMessage(frame),
      }),
    };
  }

  #lostText() {
    const { closeCode, rejection } = this.#status;
    if (rejection !== null) return errorText(rejection, this.#lang);
    return this.#lang.t(closeCode === CloseCode.POLICY ? "disconnected.policy" : "disconnected.text");
  }

  async #showMessage(frame) {
    if (!(await this.views.historyLoader.bring(frame))) return;
    this.#setSearch(false);
    this.views.timeline.show(frame.id);
  }

  #keyPressed(event) {
    if (event.isComposing || this.#room === null || document.querySelector("dialog[open]")) return;
    if (event.key === "Escape") this.#escapePressed(event);
    else if (isK(event) && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      this.#setDrawer(false);
      this.#setSearch(true);
    }
  }

  #escapePressed(event) {
    if (this.#isDrawerOpen) this.#setDrawer(false);
    else if (!find("search").hidden) {
      // Some browsers clear a search field on Escape. The query is to stay.
      event.preventDefault();
      this.#setSearch(false);
    }
  }

  get #isDrawerOpen() {
    return find("chat").classList.contains("drawer");
  }

  // Opens or closes the search, which covers the messages.
  #setSearch(isOpen) {
    const wasOpen = !find("search").hidden;
    find("search").hidden = !isOpen;
    find("search-open").setAttribute("aria-expanded", String(isOpen));
    this.#updateInert();
    if (isOpen) this.views.search.open(this.#room);
    else if (wasOpen) find("search-open").focus();
  }

  // Opens or closes the list of people on a narrow page, where it covers the room.
  #setDrawer(isOpen) {
    if (isOpen === this.#isDrawerOpen) return;
    find("chat").classList.toggle("drawer", isOpen);
    find("drawer-backdrop").hidden = !isOpen;
    find("people-open").setAttribute("aria-expanded", String(isOpen));
    for (const id of ["leave", "search", "search-open"]) find(id).inert = isOpen;
    this.#updateInert();
    (isOpen ? find("people-close") : find("people-open")).focus();
  }

  // What is covered can't have the focus.
  #updateInert() {
    const isCovered = this.#isDrawerOpen || !find("search").hidden;
    for (const element of [find("messages"), find("footer")]) element.inert = isCovered;
  }
}

// Whether the key is K. On a Bengali keyboard layout that key has another letter.
function isK({ key, code }) {
  return key.toLowerCase() === "k" || (code === "KeyK" && !/^[a-z]$/i.test(key));
}
