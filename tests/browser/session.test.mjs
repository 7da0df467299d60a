// The session of a guest: a cookie, and no secret in a URL.

import assert from "node:assert/strict";

import { enterIntercepted, browserTest, stopClock } from "./support.mjs";

// The key of a guest's token in pages without the cookie.
const TOKEN = "adda.token./";
const OPEN = { flags: ["--registration", "open"], expectsRejections: true };

const register = async (adda, username) => {
  const answer = await fetch(`${adda.base}/api/accounts`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ username, password: "tea with seven cardamoms" }),
  });
  assert.equal(answer.status, 201);
};

const stored = (person) => person.page.evaluate((key) => localStorage.getItem(key), TOKEN);

const sessionCookie = async (person) => (await person.page.context().cookies()).find(({ name }) => name.startsWith("adda_session_"));

browserTest("no URL that the page requests contains a secret", {}, async (adda) => {
  const addresses = [];
  const note = (page) => {
    page.on("websocket", (socket) => addresses.push(socket.url()));
    page.on("request", (request) => addresses.push(request.url()));
  };
  const ana = await adda.enter("Ana", "tea", { prepare: note });
  const cookie = await sessionCookie(ana);
  assert.equal(cookie.httpOnly, true);
  await ana.page.reload();
  await ana.connected();
  // The server has lost the session, and makes a new guest.
  await ana.page.context().clearCookies();
  await ana.page.reload();
  await ana.connected();
  const next = await sessionCookie(ana);
  assert.notEqual(next.value, cookie.value);
  assert.match(cookie.value, /^\S{20,}$/);
  assert.equal(addresses.filter((address) => address.startsWith("ws:")).length, 3);
  for (const address of addresses) {
    assert.doesNotMatch(address, /token/);
    for (const { value } of [cookie, next]) assert.equal(address.includes(value), false);
  }
  assert.equal(await stored(ana), null);
});

browserTest("a token that an older page stored becomes the cookie of the same user", {}, async (adda) => {
  const bot = await adda.bot("Ana", "tea");
  const { token, user_id: former } = bot.frames[0];
  const ana = await adda.open();
  await ana.page.evaluate(([key, token]) => localStorage.setItem(key, JSON.stringify(token)), [TOKEN, token]);
  await ana.join("Ana", "tea");
  await ana.send("still me");
  assert.equal((await bot.waitForText("still me")).user_id, former);
  assert.equal(await stored(ana), null);
  assert.equal((await sessionCookie(ana)).value, token);
});

browserTest("a user who becomes a new guest on connecting stays that guest", {}, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  const [ana, connection] = await enterIntercepted(adda, "Ana", "tea");
  await ana.send("first");
  const first = await bot.waitForText("first");
  await ana.page.context().clearCookies();
  const adopted = ana.page.waitForResponse((answer) => answer.url().endsWith("/api/session"));
  await connection.cut();
  assert.equal((await adopted).status(), 200);
  await ana.connected();
  await ana.send("second");
  const second = await bot.waitForText("second");
  assert.notEqual(second.user_id, first.user_id);
  await ana.page.reload();
  await ana.connected();
  await ana.send("third");
  assert.equal((await bot.waitForText("third")).user_id, second.user_id);
});

browserTest("a request for a session is repeated after a rate limit", { stopsServer: true }, async (adda) => {
  // With its clock stopped, the page tries again only when it is told to.
  const ana = await adda.open({ prepare: stopClock });
  const answers = [() => null, () => 503, () => 429];
  await ana.page.route("**/api/session", (route) => {
    const next = answers.shift();
    if (!next) return route.continue();
    return next() ? route.fulfill({ status: next(), json: { error: "not now", code: "busy" } }) : route.abort();
  });
  await ana.page.fill("#name", "Ana");
  await ana.page.fill("#room", "tea");
  await ana.page.click("#join .primary");
  for (let left = 2; left >= 0; left -= 1) {
    await ana.disconnected();
    assert.equal(answers.length, left);
    await ana.reconnect();
  }
  await ana.connected();
});

browserTest("the name of an account is rejected on the start screen, in both languages", OPEN, async (adda) => {
  await register(adda, "রহিম");
  const ana = await adda.open();
  const connect = async (name) => {
    await ana.page.fill("#name", name);
    await ana.page.fill("#room", "tea");
    await ana.page.click("#join .primary");
  };
  const wrong = (text) => ana.page.locator("#start #name-error", { hasText: text }).waitFor();
  await connect("রহিম");
  await wrong("This name or a very similar one belongs to an account");
  assert.equal(await ana.page.getAttribute("#name", "aria-invalid"), "true");
  assert.equal(await ana.page.inputValue("#room"), "tea");
  await ana.page.click("#start [data-lang=bn]");
  await wrong("অন্য নাম বেছে নিন");
  await ana.page.fill("#name", "করিম");
  assert.equal(await ana.page.textContent("#name-error"), "");
  await connect("রহিম");
  await wrong("অন্য নাম বেছে নিন");
  // A reload does not try to join the room that rejected the user.
  await ana.page.reload();
  await ana.page.locator("#start").waitFor();
  await connect("করিম");
  await ana.connected();
});

browserTest("a guest is told on the start screen that the server requires an account", { stopsServer: true }, async (adda) => {
  const ana = await adda.enter("Ana", "tea");
  await adda.restart(["--accounts", "required", "--registration", "open"]);
  await ana.page.locator("#start #start-notice", { hasText: "You need an account to join." }).waitFor();
  assert.equal(await ana.page.isVisible("#account-password"), true);
});
