// Follows the replay of a room after `welcome`, and finds its end. Remembers the last stored frame, after which the
// next connection resumes.

// The end of a replay that never reaches the `seq` of `welcome`.
const REPLAY_WAIT_MS = 3_000;
// A replay of messages can end before that `seq`, because other events can follow the last message. The server sends
// the replay in one piece, so a pause marks its end. A pause that comes too early does no harm: the server knows each
// nonce.
const HISTORY_PAUSE_MS = 300;

export class Replay {
  #onEnd;
  // The `{ id, seq }` of the last stored frame, or null.
  #last = null;
  // The `seq` at which the replay ends; null after its end.
  #endSeq = null;
  // Whether the room has stored frames.
  #hasFrames = false;
  // The messages that may still come in a replay of messages; null in a replay of events.
  #messagesLeft = null;
  #timer;

  constructor(onEnd) {
    this.#onEnd = onEnd;
  }

  // The id of the last stored frame, if any.
  get lastId() {
    return this.#last?.id;
  }

  // Whether the room has stored frames, also those that the replay does not have.
  get hasFrames() {
    return this.#hasFrames || this.#last !== null;
  }

  // A replay begins. With `reset` the server could not resume, so the replay has the latest messages, `history` at
  // most.
  begin({ seq, reset }, history) {
    if (reset) this.#last = null;
    this.#endSeq = seq;
    this.#hasFrames = seq > 0;
    this.#messagesLeft = this.#last ? null : history;
    this.#wait(REPLAY_WAIT_MS);
    if ((this.#last?.seq ?? 0) >= seq) this.#end();
  }

  // Notes a frame. Only a stored frame has a `seq`.
  passed({ id, seq }) {
    if (seq > (this.#last?.seq ?? 0)) this.#last = { id, seq };
    if (this.#endSeq === null || seq === undefined) return;
    if (this.#messagesLeft !== null) this.#messagesLeft -= 1;
    if (seq >= this.#endSeq || this.#messagesLeft === 0) this.#end();
    else if (this.#messagesLeft !== null) this.#wait(HISTORY_PAUSE_MS);
  }

  // The connection is lost.
  stop() {
    clearTimeout(this.#timer);
  }

  #wait(ms) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#end(), ms);
  }

  #end() {
    clearTimeout(this.#timer);
    this.#endSeq = null;
    this.#onEnd();
  }
}
