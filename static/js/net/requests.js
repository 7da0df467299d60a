// HTTP requests to the server. The page makes all of them with `request`.

import { codeOfStatus } from "../core/codes.js";
import { Rejection } from "../core/rejection.js";

// The server hashes one password at a time, so a login may have to wait.
const RESPONSE_WAIT_MS = 30_000;
const NO_CONTENT = 204;

// The JSON body of the response, or null without a body. Throws a `Rejection`, or another error if no response came.
export async function request(method, path, { body, token, signal, waitMs = RESPONSE_WAIT_MS } = {}) {
  const controller = new AbortController();
  const abort = () => controller.abort();
  const timer = setTimeout(abort, waitMs);
  signal?.addEventListener("abort", abort, { once: true });
  try {
    signal?.throwIfAborted();
    const headers = {};
    if (body !== undefined) headers["Content-Type"] = "application/json";
    if (token) headers.Authorization = `Bearer ${token}`;
    const response = await fetch(new URL(path, location.href), {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: controller.signal,
    });
    if (!response.ok) throw await rejectionOf(response);
    return response.status === NO_CONTENT ? null : await response.json();
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
  }
}

// The field `data` of the response.
export async function requestData(method, path, options) {
  return (await request(method, path, options))?.data ?? null;
}

async function rejectionOf(response) {
  const { reason, code, error, retry_ms: retryMs } = (await response.json().catch(() => null)) ?? {};
  const retryAfterMs = Number(response.headers.get("Retry-After")) * 1000;
  return Rejection.received({
    reason,
    code: code ?? codeOfStatus(response.status),
    sentence: error,
    retryMs: retryMs ?? retryAfterMs,
  });
}
