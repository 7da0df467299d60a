// What was said in a room, page by page, as the server keeps it. No DOM here.

import { Refused, request } from "./requests.js";

// Stored frames that are read as messages; others, as a reaction, belong to one.
const MESSAGES = new Set(["text", "announcement"]);
const ANSWER_WAIT_MS = 15_000;

export function isMessage({ type }) {
  return MESSAGES.has(type);
}

// A page of the room's history as `{ data, next }`: oldest first, and the id to go on from where there is more in that
// direction. Without `after` it has messages only, and their `seq`s have gaps; behind `after` it has every event. With
// `words` it has only messages that contain all of them. Rejects if `signal` ends it or no response comes in time.
export async function readHistory(room, { before, after, words, limit }, signal) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries({ before, after, q: words, limit })) {
    if (value !== undefined) query.set(name, value);
  }
  const path = `api/rooms/${encodeURIComponent(room)}/messages?${query}`;
  try {
    const { data, next } = await request("GET", path, { signal, waitMs: ANSWER_WAIT_MS });
    return { data, next };
  } catch (error) {
    // A room of which nothing is kept, or a message that is no longer kept, has nothing before it.
    if (error instanceof Refused && error.code === "not_found" && after === undefined) return { data: [] };
    throw error;
  }
}
