// One room's WebSocket: opened, watched, and opened again with jittered back-off whenever it is lost. It hands on
// whole frames and knows nothing of what they mean, but for `welcome`, which says that the room is reached.

const BACKOFF_BASE_MS = 500;
const BACKOFF_MAX_MS = 15_000;
// From the first byte to `welcome`; a network that swallows packets would hold a socket for minutes.
const WELCOME_WAIT_MS = 10_000;
// A connection that lasted so long was a good one: the next loss begins again with the shortest pause.
const STEADY_MS = 5_000;
// A clock that jumps by so much between two ticks means that the machine slept. The server, which hears nothing for
// 60 s, has then closed a socket that looks open from here.
const TICK_MS = 10_000;
const SLEEP_MS = 75_000;

const CLOSE_NORMAL = 1000;
const CLOSE_POLICY = 1008;
const CLOSE_OVER_CAPACITY = 1013;
// Tells the server that we mean to come back, so that it keeps our place; what is closed as normal has left.
const CLOSE_RENEWED = 4000;

export class Connection {
  #prepare;
  #address;
  #onStatus;
  #onFrame;
  #attempt = null;
  #socket = null;
  #status = "connecting";
  #attempts = 0;
  #welcomedAt = 0;
  #welcomeTimer;
  #retryTimer;
  #ticker;
  #tickedAt = 0;
  #wentOffline = false;
  #ended = new AbortController();

  // `prepare` does what must be done before each attempt, or fails with the close code of an attempt that failed, if
  // with any; it may also end all attempts by `stop`. `address` gives the URL for each attempt; `onStatus` hears
  // "connecting", "online" or "waiting", and the close code of what was lost; `onFrame` hears each frame.
  constructor({ prepare, address, onStatus, onFrame }) {
    this.#prepare = prepare;
    this.#address = address;
    this.#onStatus = onStatus;
    this.#onFrame = onFrame;
  }

  get status() {
    return this.#status;
  }

  start() {
    const { signal } = this.#ended;
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && this.retry(), { signal });
    window.addEventListener("offline", () => (this.#wentOffline = true), { signal });
    window.addEventListener("online", () => (this.#wentOffline ? this.renew() : this.retry()), { signal });
    this.#tickedAt = Date.now();
    this.#ticker = setInterval(() => this.#tick(), TICK_MS);
    this.#open();
  }

  // Sends a command if the room is reached; says whether it was.
  send(command) {
    if (this.#status !== "online" || this.#socket.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(command));
    return true;
  }

  // Ends the pause before the next attempt, if there is one.
  retry() {
    if (this.#status === "waiting") this.#open();
  }

  // Gives up a socket that may be dead without showing it. Resuming costs little, waiting on a dead one a minute.
  renew() {
    this.#open();
  }

  stop() {
    this.#ended.abort();
    clearInterval(this.#ticker);
    this.#abandon(CLOSE_NORMAL);
  }

  #open() {
    this.#abandon();
    this.#wentOffline = false;
    const attempt = new AbortController();
    this.#attempt = attempt;
    this.#tell("connecting");
    this.#welcomeTimer = setTimeout(() => this.#lose(), WELCOME_WAIT_MS);
    this.#prepare(attempt.signal).then(
      () => this.#attempt === attempt && this.#connect(),
      (error) => this.#attempt === attempt && this.#lose(error.code),
    );
  }

  #connect() {
    const socket = new WebSocket(this.#address());
    this.#socket = socket;
    socket.onmessage = ({ data }) => this.#socket === socket && this.#hear(data);
    socket.onclose = ({ code }) => this.#socket === socket && this.#lose(code);
  }

  #hear(data) {
    let frame;
    try {
      frame = JSON.parse(data);
    } catch {
      return; // Not a frame of ours; what follows may be.
    }
    if (frame === null || typeof frame !== "object") return;
    if (frame.type === "welcome") {
      clearTimeout(this.#welcomeTimer);
      this.#welcomedAt = Date.now();
      this.#tell("online");
    }
    this.#onFrame(frame);
  }

  #lose(code) {
    const reached = this.#status === "online";
    const steady = reached && Date.now() - this.#welcomedAt > STEADY_MS;
    this.#abandon();
    if (steady) this.#attempts = 0;
    // A server that is full, or that had enough of us, is not asked again at once. But one that has let us in is not
    // full: it says the same to a page that read too slowly, which is to come back and resume.
    const unwelcome = code === CLOSE_POLICY || (code === CLOSE_OVER_CAPACITY && !reached);
    const pause = unwelcome ? BACKOFF_MAX_MS : Math.min(BACKOFF_MAX_MS, BACKOFF_BASE_MS * 2 ** this.#attempts);
    this.#attempts += 1;
    // Jittered, or all who lost one server come back to it in the same moment.
    this.#retryTimer = setTimeout(() => this.#open(), pause * (0.5 + Math.random() / 2));
    this.#tell("waiting", code);
  }

  #abandon(code = CLOSE_RENEWED) {
    clearTimeout(this.#welcomeTimer);
    clearTimeout(this.#retryTimer);
    this.#attempt?.abort();
    this.#attempt = null;
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(code);
  }

  #tick() {
    const slept = Date.now() - this.#tickedAt > SLEEP_MS;
    this.#tickedAt = Date.now();
    if (slept && document.visibilityState === "visible") this.renew();
  }

  #tell(status, code) {
    this.#status = status;
    this.#onStatus(status, code);
  }
}
