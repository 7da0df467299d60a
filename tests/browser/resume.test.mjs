// Lost connections, restarts and reloads lose no message.

import assert from "node:assert/strict";

import { enterIntercepted, browserTest, interceptSockets } from "./support.mjs";

// The key of a guest's token in pages without the cookie.
const TOKEN = "adda.token./";

browserTest("a restart of the server loses and doubles nothing", { stopsServer: true }, async (adda) => {
  const ana = await adda.enter("Ana", "tea");
  const rahim = await adda.enter("রহিম", "tea");
  await ana.waitForLine("join", "রহিম");
  await ana.send("before");
  await rahim.waitForMessage("before");

  await adda.kill();
  await ana.disconnected();
  await ana.page.locator("#disconnected-text", { hasText: "You can keep writing" }).waitFor();
  await ana.send("meanwhile");
  await ana.send("and more");
  await ana.page.locator("#message-input").pressSequentially("half a thou");
  assert.deepEqual(await ana.pending(), ["meanwhile", "and more"]);
  await ana.page.locator("#pending [data-state=queued] .state", { hasText: "Waiting for connection…" }).first().waitFor();

  await adda.start();
  await ana.connected();
  await rahim.connected();
  await ana.waitForMessage("and more");
  await rahim.waitForMessage("and more");
  await ana.until(() => document.querySelector("#pending").children.length === 0);
  assert.deepEqual(await ana.messages(), ["before", "meanwhile", "and more"]);
  assert.deepEqual(await rahim.messages(), ["before", "meanwhile", "and more"]);
  assert.equal(await ana.page.inputValue("#message-input"), "half a thou");
  assert.equal(await ana.page.locator(".line.gap").count(), 0);
  await ana.page.locator("#disconnected").waitFor({ state: "hidden" });
  const late = await adda.bot("late", "tea", { history: 50 });
  await late.waitForText("and more");
  assert.deepEqual(late.texts, ["before", "meanwhile", "and more"]);
});

browserTest("messages that came during a disconnection are shown once, without a gap", {}, async (adda) => {
  const [ana, connection] = await enterIntercepted(adda, "Ana", "tea");
  const bot = await adda.bot("Tomas", "tea");
  bot.send("one");
  await ana.waitForMessage("one");
  connection.closed = true;
  await connection.cut();
  await ana.disconnected();
  for (const text of ["two", "three"]) bot.send(text);
  await bot.waitForText("three");
  connection.closed = false;
  await ana.reconnect();
  await ana.waitForMessage("three");
  bot.send("four");
  await ana.waitForMessage("four");
  assert.deepEqual(await ana.messages(), ["one", "two", "three", "four"]);
  assert.equal(await ana.page.locator(".line.gap").count(), 0);
  assert.equal(connection.addresses.at(-1).searchParams.get("after"), bot.frames.find(({ content }) => content === "one").id);
});

browserTest("a history that is replayed twice is shown once, without a gap", {}, async (adda) => {
  const [ana, connection] = await enterIntercepted(adda, "Ana", "tea");
  const bot = await adda.bot("Tomas", "tea");
  bot.send("one");
  await ana.waitForMessage("one");
  // The server can't resume after a frame that it does not know, as after a restart that lost the last messages.
  connection.deliver({ ...bot.frames.find(({ type }) => type === "text"), id: crypto.randomUUID(), seq: 9, content: "forgotten" });
  await ana.waitForMessage("forgotten");
  let reset;
  connection.in = (frame) => {
    if (frame.type === "welcome") reset = frame.reset;
    return true;
  };
  connection.closed = true;
  await connection.cut();
  await ana.disconnected();
  connection.closed = false;
  await ana.reconnect();
  await ana.connected();
  bot.send("two");
  await ana.waitForMessage("two");
  assert.equal(reset, true);
  assert.deepEqual(await ana.messages(), ["one", "forgotten", "two"]);
  assert.equal(await ana.page.locator(".line.gap").count(), 0);
});

browserTest("a page that read too slowly reconnects soon, and gets the missing messages", { hasDatabase: true, flags: ["--rate", "0"] }, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  let connection;
  const ana = await adda.open({
    prepare: async (page) => {
      connection = await interceptSockets(page);
      await page.clock.install();
    },
  });
  await ana.join("Ana", "tea");
  bot.send("one");
  await ana.waitForMessage("one");
  // The server does not have the page's last frame any more, so it can't resume, and its messages are much newer.
  connection.deliver({ ...bot.frames.find(({ type }) => type === "text"), id: crypto.randomUUID(), seq: 9, content: "gone" });
  await ana.waitForMessage("gone");
  await ana.page.clock.pauseAt(Date.now() + 60_000);
  await connection.cut(1013);
  await ana.disconnected();
  const missed = Array.from({ length: 320 }, (_, i) => `missed ${i + 1}`);
  for (const text of missed) bot.send(text);
  await bot.waitForText(missed.at(-1));
  let reset;
  connection.in = (frame) => {
    if (frame.type === "welcome") reset = frame.reset;
    return true;
  };
  await ana.page.clock.runFor(500);
  await ana.connected();
  await ana.waitForMessage("missed 1");
  assert.equal(reset, true);
  await ana.page.locator(".line.gap").waitFor({ state: "detached" });
  assert.deepEqual(await ana.messages(), ["one", "gone", ...missed]);
});

browserTest("where the server can't resume, the kept messages are shown, and a line says that some may be missing", {
  stopsServer: true,
  flags: ["--rate", "0", "--data", ":memory:"],
}, async (adda) => {
  const [ana, connection] = await enterIntercepted(adda, "Ana", "tea");
  await ana.send("before");
  await ana.waitForMessage("before");
  connection.closed = true;
  await adda.kill();
  await ana.disconnected();
  await adda.start();
  const bot = await adda.bot("Tomas", "tea");
  const since = Array.from({ length: 70 }, (_, i) => `since ${i + 1}`);
  for (const text of since) bot.send(text);
  await bot.waitForText(since.at(-1));
  connection.closed = false;
  await ana.reconnect();
  await ana.waitForMessage("since 1");
  await ana.waitForLine("gap", "Some messages may be missing here.");
  assert.deepEqual(await ana.messages(), ["before", ...since]);
  const kinds = await ana.page.locator("#timeline > :not(.join, .leave)").evaluateAll((lines) => lines.slice(1, 4).map((e) => e.className.split(" ")[0]));
  assert.deepEqual(kinds, ["message", "line", "message"], "the gap stands between");
});

browserTest("a message whose acknowledgement was lost is found in the replay and not sent again", {}, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  const [ana, connection] = await enterIntercepted(adda, "Ana", "tea");
  connection.in = ({ type }) => type !== "text";
  await ana.send("only once");
  await bot.waitForText("only once");
  assert.deepEqual(await ana.pending(), ["only once"]);
  connection.in = () => true;
  await connection.cut();
  await ana.waitForMessage("only once");
  await ana.send("next");
  await bot.waitForText("next");
  assert.deepEqual(bot.texts, ["only once", "next"]);
  await ana.waitForMessage("next");
  assert.deepEqual(await ana.messages(), ["only once", "next"]);
  assert.equal(await ana.page.locator("#timeline .message.own").count(), 2, "still one's own after a reconnect");
});

browserTest("a message that never reached the server is sent again", {}, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  const [ana, connection] = await enterIntercepted(adda, "Ana", "tea");
  const swallowed = [];
  connection.out = (frame) => {
    if (frame.type === "text") swallowed.push(frame);
    return frame.type !== "text";
  };
  await ana.send("swallowed");
  await ana.page.waitForSelector("#pending [data-state=sent]");
  await ana.send("behind it");
  assert.deepEqual(await ana.pending(), ["swallowed", "behind it"]);
  connection.out = () => true;
  await connection.cut();
  await bot.waitForText("behind it");
  assert.deepEqual(bot.texts, ["swallowed", "behind it"]);
  assert.equal(swallowed.length, 1, "nothing overtakes what is under way");
  assert.equal(bot.frames.find(({ content }) => content === "swallowed").nonce, swallowed[0].nonce);
});

browserTest("a reload keeps the room, the draft and the unsent messages", {}, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  const [ana, connection] = await enterIntercepted(adda, "Ana", "tea");
  await ana.send("arrived");
  await ana.waitForMessage("arrived");
  connection.in = ({ type }) => type !== "text";
  await ana.send("ack lost");
  await bot.waitForText("ack lost");
  await ana.send("not yet sent");
  await ana.page.locator("#message-input").pressSequentially("a draft");
  assert.deepEqual(await ana.pending(), ["ack lost", "not yet sent"]);

  connection.in = () => true;
  await ana.page.reload();
  await ana.connected();
  assert.equal(await ana.page.inputValue("#message-input"), "a draft");
  await bot.waitForText("not yet sent");
  await ana.waitForMessage("not yet sent");
  assert.deepEqual(await ana.messages(), ["arrived", "ack lost", "not yet sent"]);
  assert.deepEqual(bot.texts, ["arrived", "ack lost", "not yet sent"]);
  await ana.until(() => document.querySelector("#pending").children.length === 0);
  assert.equal(await ana.page.locator("#timeline .message.own").count(), 3);

  await ana.page.press("#message-input", "Enter");
  await ana.waitForMessage("a draft");
  await ana.page.reload();
  await ana.connected();
  assert.equal(await ana.page.inputValue("#message-input"), "", "what was sent is no draft any more");
});

browserTest("a message whose acknowledgement was lost long ago is acknowledged when it is sent again, and shown once", { flags: ["--rate", "0"] }, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  const [ana, connection] = await enterIntercepted(adda, "Ana", "tea");
  connection.in = ({ type }) => type !== "text";
  await ana.send("only once");
  await bot.waitForText("only once");
  // More messages than a new join replays.
  for (let i = 1; i <= 60; i += 1) bot.send(`later ${i}`);
  await bot.waitForText("later 60");
  const duplicates = [];
  connection.in = (frame) => {
    if (frame.duplicate) duplicates.push(frame.content);
    return true;
  };
  await ana.page.reload();
  await ana.connected();
  await ana.until(() => document.querySelector("#pending").children.length === 0);
  assert.deepEqual(duplicates, ["only once"]);
  assert.equal((await ana.messages()).includes("only once"), false, "it is not the newest");
  assert.equal(bot.texts.filter((text) => text === "only once").length, 1);
  await ana.send("next");
  await ana.waitForMessage("next");
  const shown = await ana.messages();
  connection.deliver({ ...bot.frames.find(({ content }) => content === "next"), duplicate: true });
  bot.send("after it");
  await ana.waitForMessage("after it");
  assert.deepEqual(await ana.messages(), [...shown, "after it"]);
});

browserTest("the user is the same after a reload and on a later visit", {}, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  const [ana, connection] = await enterIntercepted(adda, "Ana", "tea");
  const authorOf = async (text) => (await bot.waitForText(text)).user_id;
  const token = async () => (await ana.page.context().cookies()).find(({ name }) => name.startsWith("adda_session_")).value;
  await ana.send("first");
  const first = await authorOf("first");
  const given = await token();
  assert.match(given, /^[\w-]{20,}$/);
  assert.equal(ana.page.url().includes(given), false);

  await ana.page.reload();
  await ana.connected();
  await ana.send("reloaded");
  assert.equal(await authorOf("reloaded"), first);
  assert.equal(connection.addresses.length, 2);
  for (const { searchParams } of connection.addresses) assert.equal(searchParams.has("token"), false);
  assert.equal(await token(), given);

  const later = await ana.page.context().newPage();
  await ana.page.close();
  await later.goto(`${adda.base}/?room=tea`);
  await later.fill("#name", "Ana again");
  await later.press("#name", "Enter");
  await later.fill("#message-input", "later");
  await later.press("#message-input", "Enter");
  assert.equal(await authorOf("later"), first);

  const mita = await adda.enter("Mita", "tea");
  await mita.send("somebody else");
  assert.notEqual(await authorOf("somebody else"), first);
});

browserTest("a user with two tabs is listed once", {}, async (adda) => {
  const rahim = await adda.enter("রহিম", "tea");
  const ana = await adda.enter("Ana", "tea");
  await rahim.waitForLine("join", "Ana");
  const tab = await ana.page.context().newPage();
  await tab.goto(`${adda.base}/?room=tea`);
  await tab.fill("#name", "Ana");
  await tab.press("#name", "Enter");
  await tab.fill("#message-input", "from the other tab");
  await tab.press("#message-input", "Enter");
  await ana.waitForMessage("from the other tab");
  assert.equal(await ana.page.locator("#timeline .message.own").count(), 1);
  assert.deepEqual(await tab.locator("#people .person .username").allTextContents(), ["Ana", "রহিম"]);
  await ana.page.click("#leave");
  await tab.fill("#message-input", "still here");
  await tab.press("#message-input", "Enter");
  await rahim.waitForMessage("still here");
  assert.deepEqual(await rahim.people(), ["রহিম", "Ana"]);
  assert.equal(await rahim.page.textContent("#people-count"), "2 people");
  await tab.click("#leave");
  await rahim.waitForLine("leave", "Ana left");
  assert.deepEqual(await rahim.people(), ["রহিম"]);
  assert.deepEqual(await rahim.page.locator(".line:not(.day)").allTextContents(), ["Ana joined", "Ana left"]);
});

browserTest("a token that the server does not know is replaced", { expectsRejections: true }, async (adda) => {
  const ana = await adda.enter("Ana", "tea");
  await ana.send("mine");
  await ana.waitForMessage("mine");
  const strange = "A".repeat(43);
  await ana.page.context().clearCookies();
  await ana.page.evaluate(([key, token]) => localStorage.setItem(key, JSON.stringify(token)), [TOKEN, strange]);
  await ana.page.reload();
  await ana.connected();
  const replaced = (await ana.page.context().cookies()).find(({ name }) => name.startsWith("adda_session_")).value;
  assert.match(replaced, /^[\w-]{20,}$/);
  assert.notEqual(replaced, strange);
  assert.equal(await ana.page.evaluate((key) => localStorage.getItem(key), TOKEN), null);
  await ana.waitForMessage("mine");
  assert.equal(await ana.page.locator("#timeline .message.own").count(), 1, "what this tab wrote before is still one's own");
});

browserTest("a rejected message shows the reason, and can be retried or discarded", {}, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  const [ana, connection] = await enterIntercepted(adda, "Ana", "tea");
  const refuse = (code) => (frame) => {
    if (frame.type !== "text") return true;
    connection.deliver({ type: "error", code, content: "a sentence from the server", nonce: frame.nonce });
    return false;
  };
  connection.out = refuse("forbidden");
  await ana.send("first");
  await ana.page.locator("#pending .state", { hasText: "Not sent. You don’t have permission to do this." }).waitFor();
  connection.out = refuse("a_code_of_tomorrow");
  await ana.send("second");
  await ana.page.locator("#pending .state", { hasText: "Not sent. The server refused this: a sentence from the server" }).waitFor();

  connection.out = () => true;
  await ana.page.locator("#pending .message", { hasText: "second" }).locator(".discard").click();
  await ana.page.locator("#pending .message", { hasText: "first" }).locator(".retry").click();
  await bot.waitForText("first");
  await ana.waitForMessage("first");
  await ana.until(() => document.querySelector("#pending").children.length === 0);
  assert.deepEqual(bot.texts, ["first"]);
});

browserTest("the waits grow with each failure, and end when the page is visible or the network is back", {}, async (adda) => {
  let connection;
  const ana = await adda.open({
    prepare: async (page) => {
      connection = await interceptSockets(page);
      await page.clock.install();
    },
  });
  await ana.join("Ana", "tea");
  await ana.page.clock.pauseAt(Date.now() + 60_000);
  connection.closed = true;
  await connection.cut();
  await ana.disconnected();
  const attempts = connection.attempts;

  // The wait is at most 500 ms at first. After a close with 1013 before `welcome` it is 7.5 to 15 s.
  await ana.page.clock.runFor(500);
  await ana.disconnected();
  assert.equal(connection.attempts, attempts + 1);
  await ana.page.clock.runFor(7_000);
  assert.equal(connection.attempts, attempts + 1);
  await ana.page.clock.runFor(8_000);
  await ana.disconnected();
  assert.equal(connection.attempts, attempts + 2);

  for (const [i, event] of ["online", "visibilitychange"].entries()) {
    await ana.page.evaluate((name) => (name === "online" ? window : document).dispatchEvent(new Event(name)), event);
    await ana.disconnected();
    assert.equal(connection.attempts, attempts + 3 + i, event);
  }
  connection.closed = false;
  await ana.page.evaluate(() => window.dispatchEvent(new Event("online")));
  await ana.connected();
});

browserTest("a dead connection is replaced", {}, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  let connection;
  const ana = await adda.open({
    prepare: async (page) => {
      connection = await interceptSockets(page);
      await page.clock.install();
    },
  });
  await ana.join("Ana", "tea");
  bot.send("one");
  await ana.waitForMessage("one");
  const resumed = async (why, act) => {
    const { attempts } = connection;
    await act();
    await ana.connected();
    assert.equal(connection.attempts, attempts + 1, why);
  };
  await resumed("the network changed", () =>
    ana.page.evaluate(() => {
      window.dispatchEvent(new Event("offline"));
      window.dispatchEvent(new Event("online"));
    }),
  );
  await resumed("the machine slept", () => ana.page.clock.fastForward(120_000));
  await resumed("no answer came", async () => {
    connection.out = () => false;
    await ana.send("two");
    await ana.page.waitForSelector("#pending [data-state=sent]");
    connection.out = () => true;
    await ana.page.clock.fastForward(10_000);
    await bot.waitForText("two");
  });
  await ana.waitForMessage("two");
  assert.deepEqual(await ana.messages(), ["one", "two"]);
  assert.deepEqual(bot.texts, ["one", "two"]);
});

browserTest("the page works where the browser stores nothing", {}, async (adda) => {
  const ana = await adda.open({
    prepare: (page) =>
      page.addInitScript(() => {
        for (const area of ["localStorage", "sessionStorage"]) {
          Object.defineProperty(window, area, {
            get() {
              throw new DOMException("refused", "SecurityError");
            },
          });
        }
      }),
  });
  await ana.join("Ana", "tea");
  await ana.send("hello");
  await ana.waitForMessage("hello");
  await ana.page.click(".bar [data-lang=bn]");
  await ana.page.locator("#people-title", { hasText: "কারা আছেন" }).waitFor();
});
