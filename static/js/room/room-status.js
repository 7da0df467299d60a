// Shows the state of the room: name, topic and privacy in the header; a mute, the posting rule and slow mode at the
// composer.

import { countdownText, durationText, isForever, timeText } from "../core/durations.js";
import { setText } from "../ui/elements.js";

const TICK_MS = 1_000;
// A browser's timer can't be set to more than about 24 days.
const TIMER_MAX_MS = 24 * 60 * 60 * 1000;

export class RoomStatus {
  #parts;
  #state;
  #lang;
  #muteTimer;
  #slowModeTimer;

  // `parts` are the elements `chat`, `name`, `topic`, `lock`, `notice` (why the user can't post), `form` (the composer)
  // and `slowMode`. `state` is the `RoomState`.
  constructor({ parts, state, lang }) {
    this.#parts = parts;
    this.#state = state;
    this.#lang = lang;
    const { topic } = parts;
    topic.addEventListener("click", () => (topic.ariaExpanded = String(topic.ariaExpanded !== "true")));
  }

  reset() {
    this.#parts.topic.ariaExpanded = "false";
  }

  show() {
    const { chat, name, topic, lock } = this.#parts;
    const { settings } = this.#state;
    chat.dataset.role = this.#state.role;
    setText(name, this.#state.name);
    setText(topic, settings.topic);
    topic.title = settings.topic;
    topic.hidden = settings.topic === "";
    // SVG elements have no `hidden` property.
    lock.toggleAttribute("hidden", !settings.private);
    this.#showNotice();
    this.#showSlowMode();
  }

  // Shows the composer, or why the user can't post.
  #showNotice() {
    clearTimeout(this.#muteTimer);
    const { notice, form, slowMode } = this.#parts;
    const text = this.#noticeText();
    setText(notice, text);
    notice.hidden = text === "";
    form.hidden = text !== "";
    slowMode.hidden = text !== "" || !this.#state.hasSlowMode;
    const muteMs = this.#muteMs;
    if (muteMs > 0) this.#muteTimer = setTimeout(() => this.#showNotice(), Math.min(muteMs, TIMER_MAX_MS));
  }

  #noticeText() {
    if (this.#muteMs > 0) {
      const until = this.#state.mutedUntil;
      return isForever(until)
        ? this.#lang.t("restriction.muted")
        : this.#lang.t("restriction.muted_until", { moment: timeText(this.#lang, until) });
    }
    return this.#state.isReadOnly ? this.#lang.t("restriction.admins_post") : "";
  }

  // The rest of the mute in milliseconds.
  get #muteMs() {
    const until = this.#state.mutedUntil;
    return until ? until - Date.now() : 0;
  }

  // Counts the wait of slow mode down, once a second.
  #showSlowMode() {
    clearTimeout(this.#slowModeTimer);
    const { slowMode } = this.#parts;
    if (!this.#state.hasSlowMode) {
      slowMode.hidden = true;
      return;
    }
    const waitMs = this.#state.slowModeWaitMs(Date.now());
    slowMode.dataset.state = waitMs > 0 ? "waiting" : "ready";
    slowMode.textContent = waitMs > 0
      ? this.#lang.t("restriction.slow_mode_wait", { left: countdownText(this.#lang, Math.ceil(waitMs / 1000)) })
      : this.#lang.t("restriction.slow_mode", { every: durationText(this.#lang, this.#state.settings.slow_mode_s) });
    if (waitMs > 0) this.#slowModeTimer = setTimeout(() => this.#showSlowMode(), waitMs % TICK_MS || TICK_MS);
  }
}
