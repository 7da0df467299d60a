// The page switches on the reason of a rejection, and shows a text in its language. The test sends the rejections in
// place of the server, so that each reason can be tested.

import assert from "node:assert/strict";

import { enterIntercepted, browserTest, interceptSockets } from "./support.mjs";

const says = (person, selector, text) => person.page.locator(selector, { hasText: text }).filter({ visible: true }).waitFor();

// A page at the start screen, whose connections the test controls.
async function openIntercepted(adda, context = {}) {
  let connection;
  const person = await adda.open({ ...context, prepare: async (page) => (connection = await interceptSockets(page)) });
  return [person, connection];
}

async function tryToJoin(person, name, room) {
  await person.page.fill("#name", name);
  await person.page.fill("#room", room);
  await person.page.click("#join .primary");
}

browserTest("a connection that is closed after a rejection shows it, and does not reconnect", { expectsRejections: true }, async (adda) => {
  const [ana, connection] = await openIntercepted(adda);
  const cases = [
    [{ reason: "banned", code: "forbidden" }, "#start-notice", "You are banned.", "আপনাকে ব্যান করা হয়েছে।"],
    [{ reason: "no_such_room", code: "not_found" }, "#start-notice", "This room doesn’t exist or is private.", "রুমটি নেই অথবা এটি প্রাইভেট।"],
    [{ reason: "made_private", code: "forbidden" }, "#start-notice", "“tea” is now private.", "“tea” রুমটি এখন প্রাইভেট।"],
    [{ reason: "name_reserved", code: "bad_name" }, "#name-error", "This name or a very similar one belongs to an account", "এই নামে বা প্রায় একই নামে একটি অ্যাকাউন্ট আছে।"],
    [{ reason: "bad_name", code: "bad_name" }, "#name-error", "This name is not allowed.", "এই নাম ব্যবহার করা যাবে না।"],
    [{ reason: "a_word_of_tomorrow", code: "forbidden" }, "#start-notice", "You don’t have permission to do this.", "আপনার এটি করার অনুমতি নেই।"],
    [{ reason: "a_word_of_tomorrow", code: "a_code_of_tomorrow" }, "#start-notice", "The server refused this: a sentence", "সার্ভার এটি গ্রহণ করেনি: a sentence"],
  ];
  for (const [i, [refusal, where, en, bn]] of cases.entries()) {
    connection.refusal = refusal;
    await tryToJoin(ana, "Ana", "tea");
    await says(ana, where, en);
    await ana.page.click("#start [data-lang=bn]");
    await says(ana, where, bn);
    await ana.page.click("#start [data-lang=en]");
    assert.equal(await ana.page.isVisible("#join-own-name"), refusal.reason === "name_reserved", "a log-in is offered for an account's name");
    assert.equal(connection.attempts, i + 1, refusal.reason);
  }
  connection.refusal = { reason: "login_required", code: "forbidden" };
  await tryToJoin(ana, "Ana", "tea");
  await says(ana, "#start-notice", "You need an account to join.");
  await ana.page.locator("#account-password").waitFor();
  assert.equal(connection.attempts, cases.length + 1);
  await ana.page.click("#account-back");
  connection.refusal = null;
  await ana.join("Ana", "tea");
});

browserTest("a temporary rejection is shown while the page reconnects", {}, async (adda) => {
  const [ana, connection] = await openIntercepted(adda);
  connection.refusal = { reason: "too_many_connections", code: "rate_limited" };
  await tryToJoin(ana, "Ana", "tea");
  await says(ana, "#disconnected-text", "Too many connections from your network.");
  await ana.page.click(".bar [data-lang=bn]");
  await says(ana, "#disconnected-text", "আপনার নেটওয়ার্ক থেকে অনেক বেশি সংযোগ খোলা আছে।");
  assert.equal(connection.attempts, 1, "after this close code the pause is the longest");
  connection.refusal = null;
  await ana.reconnect();
  await ana.connected();
  await ana.page.locator("#disconnected").waitFor({ state: "hidden" });
});

browserTest("a guest whose session ends gets a new one a few times only", {}, async (adda) => {
  const [ana, connection] = await openIntercepted(adda);
  connection.refusal = { reason: "session_ended", code: "forbidden" };
  await tryToJoin(ana, "Ana", "tea");
  await ana.disconnected();
  connection.refusal = null;
  await ana.reconnect();
  await ana.connected();

  connection.refusal = { reason: "session_ended", code: "forbidden" };
  const { attempts } = connection;
  await connection.cut(1008);
  for (let i = 1; i <= 3; i += 1) {
    await ana.disconnected();
    await ana.reconnect();
    await ana.until(() => document.querySelector("#status").dataset.state !== "connecting" || document.querySelector("#chat").hidden);
  }
  await says(ana, "#start-notice", "You have been logged out");
  assert.equal(connection.attempts, attempts + 3);
});

browserTest("a rejection that ends the membership is shown at once, with its reason", {}, async (adda) => {
  const [ana, connection] = await openIntercepted(adda);
  const cases = [
    ["kicked", "An admin kicked you from “tea”.", "একজন অ্যাডমিন আপনাকে “tea” রুম থেকে বের করে দিয়েছেন।"],
    ["made_private", "“tea” is now private.", "“tea” রুমটি এখন প্রাইভেট।"],
    ["banned", "You are banned.", "আপনাকে ব্যান করা হয়েছে।"],
  ];
  for (const [i, [reason, en, bn]] of cases.entries()) {
    await ana.join("Ana", "tea");
    // Other rejections, and rejections of a command, do not end the membership.
    connection.deliver({ type: "error", reason: "bad_json", code: "bad_json", content: "a sentence" });
    connection.deliver({ type: "error", reason, code: "forbidden", content: "a sentence", nonce: "of another command" });
    await ana.send(`still here ${i}`);
    await ana.waitForMessage(`still here ${i}`);
    connection.deliver({ type: "error", reason, code: "forbidden", content: "a sentence" });
    await says(ana, "#start-notice", en);
    await ana.page.click("#start [data-lang=bn]");
    await says(ana, "#start-notice", bn);
    await ana.page.click("#start [data-lang=en]");
    assert.equal(connection.attempts, i + 1, reason);
  }
});

browserTest("a rejected message shows the reason, and a temporary one is sent later", {}, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  const [ana, connection] = await enterIntercepted(adda, "Ana", "tea");
  let refusal;
  connection.out = (frame) => {
    if (frame.type !== "text" || !refusal) return true;
    connection.deliver({ type: "error", content: "a sentence", nonce: frame.nonce, ...refusal });
    return false;
  };
  const pending = (text) => ana.page.locator("#pending .message", { hasText: text });
  const isTold = (text, words) => pending(text).locator(".state", { hasText: words }).waitFor();
  for (const [text, given, en, bn] of [
    ["one", { reason: "muted", code: "forbidden" }, "Not sent. You are muted.", "পাঠানো যায়নি। আপনাকে মিউট করা হয়েছে।"],
    ["two", { reason: "muted", code: "forbidden", retry_ms: 3_600_000 }, "Not sent. You are muted until ", " পর্যন্ত মিউট করা হয়েছে।"],
    ["three", { reason: "read_only", code: "forbidden" }, "Not sent. Only admins can send messages in this room.", "এই রুমে শুধু অ্যাডমিনরা মেসেজ পাঠাতে পারেন।"],
    ["four", { reason: "message_too_long", code: "too_long" }, "Not sent. This message is too long.", "মেসেজটি খুব বড়।"],
    ["five", { reason: "a_word_of_tomorrow", code: "too_long" }, "Not sent. This is too long.", "এটি খুব বড়।"],
    ["six", { code: "a_code_of_tomorrow" }, "Not sent. The server refused this: a sentence", "সার্ভার এটি গ্রহণ করেনি: a sentence"],
  ]) {
    refusal = given;
    await ana.send(text);
    await isTold(text, en);
    await ana.page.click(".bar [data-lang=bn]");
    await isTold(text, bn);
    await ana.page.click(".bar [data-lang=en]");
  }
  // The message is stored with its reason.
  await ana.page.reload();
  await ana.connected();
  await isTold("one", "Not sent. You are muted.");
  await isTold("two", "Not sent. You are muted until ");
  await isTold("six", "Not sent. The server refused this: a sentence");

  for (const [text, given, words] of [
    ["slow", { reason: "slow_mode", code: "rate_limited", retry_ms: 1_500 }, "Will be sent in a moment"],
    ["full", { reason: "disk_full", code: "busy", retry_ms: 1_500 }, "Retrying automatically. The server is out of disk space"],
    ["busy", { code: "busy", retry_ms: 1_500 }, /^Retrying automatically\. The server is busy\.$/],
  ]) {
    refusal = given;
    await ana.send(text);
    await isTold(text, words);
    refusal = null;
    await bot.waitForText(text);
    await ana.waitForMessage(text);
  }

  // A nonce that belongs to another message is not used again.
  refusal = { reason: "nonce_used", code: "conflict" };
  await ana.send("mistaken");
  await isTold("mistaken", "Not sent. Something went wrong with this message.");
  refusal = null;
  const nonces = [];
  const out = connection.out;
  connection.out = (frame) => {
    if (frame.content === "mistaken") nonces.push(frame.nonce);
    return out(frame);
  };
  await pending("mistaken").locator(".retry").click();
  await bot.waitForText("mistaken");
  assert.equal(nonces.length, 1);
  assert.ok(bot.frames.some(({ content, nonce }) => content === "mistaken" && nonce === nonces[0]));
});

browserTest("a message that may be stored is not sent under another user id", {}, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  const [ana, connection] = await enterIntercepted(adda, "Ana", "tea");
  connection.out = (frame) => {
    if (frame.type !== "text") return true;
    connection.deliver({ type: "error", reason: "outcome_unknown", code: "busy", content: "a sentence", nonce: frame.nonce, retry_ms: 60_000 });
    return false;
  };
  await ana.send("perhaps");
  await says(ana, "#pending .state", "Retrying automatically. The server didn’t respond in time.");
  connection.out = () => true;
  await ana.page.context().clearCookies();
  await connection.cut();
  await says(ana, "#pending .state", "This may have been sent already. Check before you send it again.");
  await ana.send("next");
  await bot.waitForText("next");
  assert.deepEqual(bot.texts, ["next"]);
});

browserTest("too many attempts show the end of the wait, and a response without a body is known by its status", { stopsServer: true, expectsRejections: true }, async (adda) => {
  const ana = await adda.open();
  await ana.page.click("#join-log-in");
  await ana.page.fill("#account-name", "Ana");
  await ana.page.fill("#account-password", "tea with seven cardamoms");
  for (const [response, words] of [
    [{ status: 429, json: { reason: "too_many_attempts", code: "rate_limited", error: "a sentence", retry_ms: 600_000 } }, /Try again after (?:.+, )?\d{1,2}:\d{2}\s[AP]M\./u],
    [{ status: 429, json: { reason: "too_many_attempts", code: "rate_limited", error: "a sentence" }, headers: { "Retry-After": "600" } }, /Try again after (?:.+, )?\d{1,2}:\d{2}\s[AP]M\./u],
    [{ status: 429, json: { reason: "too_many_attempts", code: "rate_limited", error: "a sentence" } }, "Too many attempts. Try again in a moment."],
    [{ status: 401, json: { reason: "wrong_login", code: "forbidden", error: "a sentence" } }, "Wrong username or password."],
    [{ status: 403, json: { reason: "banned", code: "forbidden", error: "a sentence" } }, "You are banned."],
    [{ status: 502, contentType: "text/html", body: "<h1>Bad Gateway</h1>" }, "The server is busy."],
    [{ status: 403, contentType: "text/html", body: "<h1>Forbidden</h1>" }, "You don’t have permission to do this."],
    [{ status: 400, json: null }, "The server refused this."],
  ]) {
    await ana.page.route("**/api/session", (route) => route.fulfill(response), { times: 1 });
    const answered = ana.page.waitForResponse("**/api/session");
    await ana.page.click("#account-submit");
    await answered;
    await says(ana, "#account-error", words);
  }
});
