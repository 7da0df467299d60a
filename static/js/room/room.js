// The room that the tab is in. Received frames go to the views; written messages go through the outbox.

import { CloseCode, Code, Reason, isRemoval, needsAccount, needsLogin, reasonOf } from "../core/codes.js";
import { Rejection } from "../core/rejection.js";
import { isMessageFrame } from "../net/history.js";
import { Outbox } from "../net/outbox.js";
import { OwnIds } from "../net/own-ids.js";
import { requestData } from "../net/requests.js";
import { Socket } from "../net/socket.js";
import { SERVER } from "../net/storage.js";
import { Unsent, newNonce } from "../net/unsent.js";
import { connectPageEvents, isPageVisible } from "../ui/page-events.js";
import { Replay } from "./replay.js";
import { TypingSender } from "./typing.js";

// The messages that are replayed on joining. Older ones are loaded on demand.
const HISTORY = 50;
// Failed attempts in a row after which a rejection that may pass is final.
const REJECTED_JOINS_MAX = 3;

export class Room {
  #name;
  #account;
  #session;
  #room;
  #state;
  #views;
  #onStatus;
  #onMessage;
  #onRemoved;
  #onRenamed;
  #socket;
  #channel;
  #unsent;
  #outbox;
  #typingSender;
  #ownIds;
  #replay;
  #isOnline = false;
  #rejectedJoins = 0;
  // The last rejection on this connection that answers no command. The server may close the connection after it.
  #rejection = null;
  // The user's id and name in the room.
  #userId = null;
  #username;
  #ended = new AbortController();

  // The user is the session's account or, without one, a guest with this name. `state` is the `RoomState`. `views` are
  // `timeline`, `historyLoader`, `search`, `people`, `typing`, `composer` and `roomStatus`. `store` is shared by the
  // browser's tabs. `onStatus` is called with the channel's status, the close code and the rejection of the connection
  // that was lost. `onMessage` is called for each new message of another user. `onRemoved` is called with the rejection
  // that ends the membership. `onRenamed` is called with the user's name if it is another one than before.
  constructor({ name, session, room, state, views, store, onStatus, onMessage, onRemoved, onRenamed }) {
    this.#name = name;
    this.#username = name;
    this.#account = session.account?.id ?? null;
    this.#session = session;
    this.#room = room;
    this.#state = state;
    this.#views = views;
    this.#onStatus = onStatus;
    this.#onMessage = onMessage;
    this.#onRemoved = onRemoved;
    this.#onRenamed = onRenamed;
    this.#ownIds = new OwnIds(store);
    this.#replay = new Replay(() => this.#replayEnded());
    this.#socket = new Socket({
      prepare: (signal) => this.#ensureSession(signal),
      url: (parameters) => this.#url(parameters),
      isPageVisible,
    });
    this.#channel = this.#socket.channel(room, {
      parameters: () => ({ history: HISTORY, after: this.#replay.lastId }),
      onStatus: (status, code) => this.#statusChanged(status, code),
      onFrame: (frame) => this.#received(frame),
    });
    this.#unsent = new Unsent({ store, scope: SERVER, room, name, onChange: () => this.#outbox.update() });
    this.#outbox = new Outbox({
      unsent: this.#unsent,
      send: ({ nonce, content }) => this.#channel.send({ type: "text", content, nonce }),
      onChange: (items, pausedBy) => views.timeline.showPending(items, pausedBy),
      onTimeout: () => this.#socket.reconnect(),
    });
    // The nonce identifies an error as the answer to this command.
    this.#typingSender = new TypingSender(() => this.#channel.send({ type: "typing", nonce: newNonce() }));
  }

  start() {
    const { timeline, historyLoader, people, typing, composer, roomStatus } = this.#views;
    roomStatus.reset();
    this.#state.reset(this.#room);
    timeline.reset({
      onRetry: (nonce) => this.#outbox.retry(nonce),
      onDiscard: (nonce) => this.#outbox.discard(nonce),
    });
    this.#outbox.start();
    historyLoader.open(this.#room, (frame) => this.#isOwn(frame));
    people.clear();
    typing.clear();
    composer.open(this.#room, {
      onSend: (content) => {
        timeline.toNewest();
        this.#outbox.add(content);
      },
      onTyping: () => this.#typingSender.typed(),
    });
    const { signal } = this.#ended;
    this.#session.watch(() => this.#checkSession(), signal);
    connectPageEvents(this.#socket, signal);
    this.#channel.join();
  }

  // Whether the server has ever confirmed the join.
  get wasJoined() {
    return this.#userId !== null;
  }

  // The number of messages that are not known to be stored.
  get unsentCount() {
    return this.#outbox.size;
  }

  retry() {
    this.#socket.retry();
  }

  stop() {
    this.#ended.abort();
    this.#replay.stop();
    this.#channel.leave();
    this.#outbox.close();
    this.#unsent.close();
    this.#views.historyLoader.close();
    this.#views.typing.clear();
  }

  // The URL contains no secret, because URLs are logged.
  #url({ room_id: room, history, after }) {
    const url = new URL("ws", location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    url.searchParams.set("room", room);
    url.searchParams.set("username", this.#name);
    url.searchParams.set("history", history);
    if (after !== undefined) url.searchParams.set("after", after);
    return url;
  }

  async #ensureSession(signal) {
    try {
      await this.#session.ensure({ name: this.#name, account: this.#account }, signal);
    } catch (error) {
      if (error instanceof Rejection && !error.isTemporary && !signal.aborted) this.#onRemoved(error);
      // A rate limit leads to the longest wait, like its close code.
      const closeCode = error.code === Code.RATE_LIMITED ? CloseCode.TRY_AGAIN_LATER : undefined;
      throw Object.assign(new Error("no session"), { closeCode });
    }
  }

  // Checks the session at once, so that a user whose login has ended learns it soon.
  #checkSession() {
    this.#session.invalidate();
    this.#ensureSession(this.#ended.signal).catch(() => {
      // The next connection checks it again.
    });
  }

  // Asks over HTTP for the reason why a WebSocket was rejected or closed. A browser hides it from the page.
  async #findReason() {
    const rejectedJoins = this.#rejectedJoins;
    try {
      await this.#session.check(this.#ended.signal);
      if (rejectedJoins >= REJECTED_JOINS_MAX) await requestData("GET", `api/rooms/${encodeURIComponent(this.#room)}`);
    } catch (error) {
      if (this.#ended.signal.aborted || !(error instanceof Rejection) || error.isTemporary) return;
      // The next attempt renews a session that has ended.
      if (needsLogin(error)) return;
      // The room may have been joined in the meantime.
      if (error.code === Code.NOT_FOUND && this.#rejectedJoins < REJECTED_JOINS_MAX) return;
      this.#onRemoved(error);
    }
  }

  #statusChanged(status, code) {
    const rejection = this.#rejection;
    // Such a connection may have been rejected for its session.
    if (status === "waiting" && (!this.#isOnline || code === CloseCode.POLICY)) {
      this.#session.invalidate();
      if (code === CloseCode.ABNORMAL || rejection !== null) this.#rejectedJoins += 1;
      if (this.#isFinal(rejection)) {
        this.#onRemoved(rejection);
        return;
      }
      if (code === CloseCode.POLICY && this.#session.isLogin) this.#checkSession();
      else if (rejection === null && (code === CloseCode.POLICY || code === CloseCode.ABNORMAL)) this.#findReason();
    }
    if (status !== "waiting") this.#rejection = null;
    this.#isOnline = status === "online";
    if (this.#isOnline) this.#rejectedJoins = 0;
    else {
      this.#replay.stop();
      this.#outbox.close();
      this.#views.typing.clear();
    }
    this.#onStatus(status, code, rejection);
  }

  // Whether a new connection would be rejected for the same reason.
  #isFinal(rejection) {
    if (rejection === null || rejection.isTemporary) return false;
    if (isRemoval(rejection)) return true;
    // A connection that was joined has survived the rejection. It was lost for another reason.
    if (this.#isOnline) return false;
    // The next attempt checks a login and gives a guest a new session, which may help a few times.
    const mayHelp = this.#session.isLogin || !needsAccount(rejection);
    if (needsLogin(rejection) && mayHelp) return this.#rejectedJoins >= REJECTED_JOINS_MAX;
    return true;
  }

  #received(frame) {
    const { timeline, people, typing, search } = this.#views;
    switch (frame.type) {
      case "welcome":
        this.#welcomed(frame);
        break;
      case "join":
        if (people.joined(frame.user_id, frame.username)) timeline.addPresence(frame);
        break;
      case "leave":
        this.#left(frame);
        break;
      case "presence":
        for (const { id } of frame.left ?? []) typing.remove(id);
        people.changed(frame);
        break;
      case "typing":
        if (!this.#ownIds.has(frame.user_id)) typing.add(frame.user_id, frame.username);
        break;
      case "error":
        this.#rejected(frame);
        break;
      case "rename":
        this.#renamed(frame);
        break;
      case "room":
        this.#state.applySettings(frame.room);
        this.#outbox.resume();
        break;
      case "mute":
        this.#state.applyMute(frame, Date.now());
        break;
      case "delete":
        timeline.delete(frame);
        search.deleted(frame);
        this.#replay.passed(frame);
        break;
      default:
        // The server had stored the message before. It is not new here, but has its place in the history.
        if (frame.duplicate) this.#outbox.stored(frame.nonce);
        else if (isMessageFrame(frame)) this.#messageReceived(frame);
        else this.#replay.passed(frame);
    }
  }

  #welcomed(frame) {
    const { user_id: userId, username, token, members, member_count: total, limits } = frame;
    if (typeof token === "string") {
      // The server did not know the session, and has made a new guest.
      if (this.#account !== null) {
        this.#session.loginEnded();
        this.#onRemoved(new Rejection({ reason: Reason.SESSION_ENDED }));
        return;
      }
      this.#session.adopt(token, this.#name);
    }
    this.#userId = userId;
    this.#setName(username);
    this.#ownIds.add(userId);
    this.#state.applyWelcome(frame, Date.now());
    // In a large room the server lists only some of the members, perhaps without this user.
    const listed = members.some(({ id }) => id === userId) ? members : [{ id: userId, username }, ...members];
    this.#views.people.reset(listed, total, userId);
    if (limits) this.#views.composer.limit(limits.content_bytes);
    if (frame.reset || this.#replay.lastId === undefined) this.#views.timeline.expectGap();
    this.#replay.begin(frame, HISTORY);
  }

  #renamed(frame) {
    const { people, timeline, typing } = this.#views;
    people.renamed(frame);
    typing.remove(frame.user_id);
    timeline.addPresence(frame);
    if (frame.user_id === this.#userId && frame.former === this.#username) this.#setName(frame.username);
    this.#replay.passed(frame);
  }

  // The server knows the user by this name. It may have been chosen in another tab.
  #setName(name) {
    this.#username = name;
    if (name === this.#name) return;
    this.#name = name;
    this.#onRenamed(name);
  }

  #left(frame) {
    // The server sends it to the user's own connection only after a kick.
    if (frame.user_id === this.#userId && frame.username === this.#username) {
      this.#onRemoved(new Rejection({ reason: Reason.KICKED }));
      return;
    }
    if (!this.#views.people.left(frame.user_id)) return;
    this.#views.typing.remove(frame.user_id);
    this.#views.timeline.addPresence(frame);
  }

  #messageReceived(frame) {
    const own = this.#isOwn(frame);
    this.#views.typing.remove(frame.user_id);
    if (frame.user_id === this.#userId) this.#state.applyOwnMessage(frame);
    if (this.#views.timeline.addMessage(frame, own) && !own) this.#onMessage(frame);
    this.#replay.passed(frame);
  }

  #rejected(frame) {
    const rejection = Rejection.ofFrame(frame);
    const reason = reasonOf(rejection);
    if (reason === Reason.MUTED) rejection.until ??= this.#state.mutedUntil;
    if (this.#outbox.rejected(frame.nonce, rejection)) {
      const now = Date.now();
      if (reason === Reason.SLOW_MODE && rejection.until) this.#state.applyWait(rejection.until - now, now);
    } else if (!frame.nonce) {
      this.#rejection = rejection;
      if (isRemoval(rejection)) this.#onRemoved(rejection);
    }
  }

  // Whether a stored message is the user's own. Then the outbox removes it, whichever tab has sent it.
  #isOwn({ user_id: author, nonce }) {
    const isOwn = this.#ownIds.has(author);
    if (isOwn && nonce) this.#outbox.stored(nonce);
    return isOwn;
  }

  #replayEnded() {
    this.#views.timeline.replayEnded();
    this.#views.historyLoader.replayEnded(this.#replay);
    this.#outbox.open(this.#userId);
  }
}
