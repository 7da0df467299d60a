// The stored messages of a room, page by page.

import { Code } from "../core/codes.js";
import { Rejection } from "../core/rejection.js";
import { request } from "./requests.js";

// The stored frames that are shown as messages. Others, such as a deletion, change a message.
const MESSAGE_TYPES = new Set(["text", "announcement"]);
const RESPONSE_WAIT_MS = 15_000;

export function isMessageFrame({ type }) {
  return MESSAGE_TYPES.has(type);
}

// A page as `{ data, next, reset }`: frames, oldest first, and the id from which the next page goes on, if there is one.
// `reset` says that the frame of `before` or `after` is not kept any more; then the page has the oldest frames, or none.
// Without `after` the frames are messages only, and their `seq`s have gaps; with `after` they are all events. With
// `query` they are the messages that contain all its words. Throws if `signal` aborts or no response comes in time.
export async function readHistory(room, { before, after, query, limit }, signal) {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries({ before, after, q: query, limit })) {
    if (value !== undefined) parameters.set(name, value);
  }
  const path = `api/rooms/${encodeURIComponent(room)}/messages?${parameters}`;
  try {
    const { data, next, reset = false } = await request("GET", path, { signal, waitMs: RESPONSE_WAIT_MS });
    return { data, next, reset };
  } catch (error) {
    // Nothing is older than a message, or a room, that the server does not keep.
    if (error instanceof Rejection && error.code === Code.NOT_FOUND && after === undefined) return { data: [], reset: false };
    throw error;
  }
}
