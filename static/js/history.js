// What was said in a room, page by page, as the server keeps it. No DOM here.

// Stored frames that are read as messages; others, as a reaction, belong to one.
const MESSAGES = new Set(["text", "announcement"]);
const ANSWER_WAIT_MS = 15_000;
const NOT_FOUND = 404;

export function isMessage({ type }) {
  return MESSAGES.has(type);
}

// Messages before or after the one of an id, or the latest; with `words` only those that have them all. Gives
// `{ data, next }`: oldest first, and the id to go on from where there are more that way. Rejects if `signal` ends it
// or no good answer comes in time.
export async function readHistory(room, { before, after, words, limit }, signal) {
  const url = new URL(`api/rooms/${encodeURIComponent(room)}/messages`, document.baseURI);
  for (const [name, value] of Object.entries({ before, after, q: words, limit })) {
    if (value !== undefined) url.searchParams.set(name, value);
  }
  const ended = new AbortController();
  const end = () => ended.abort();
  const timer = setTimeout(end, ANSWER_WAIT_MS);
  signal.addEventListener("abort", end, { once: true });
  try {
    signal.throwIfAborted();
    const answer = await fetch(url, { signal: ended.signal });
    // A room of which nothing is kept, or a message that is no longer kept, has nothing before it.
    if (answer.status === NOT_FOUND && after === undefined) return { data: [] };
    if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
    const { data, next } = await answer.json();
    return { data, next };
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", end);
  }
}
