// Unsent messages belong to the browser, not to a tab: they are not lost with a tab, and two tabs do not send them twice.

import assert from "node:assert/strict";

import { enterIntercepted, browserTest, interceptSockets } from "./support.mjs";

const DAY_MS = 24 * 60 * 60 * 1000;

// The unsent messages in the browser's storage.
const kept = (person) =>
  person.page.evaluate(() =>
    Object.keys(localStorage)
      .filter((key) => key.startsWith("adda.outbox "))
      .map((key) => JSON.parse(localStorage.getItem(key)))
      .sort((a, b) => a.at - b.at)
      .map(({ content }) => content),
  );
const nothingPending = (person) => person.until(() => document.querySelector("#pending").children.length === 0);
const pendingCount = (person, count) => person.until((n) => document.querySelectorAll("#pending .message").length === n, count);
// A tab that ends without events, as in a crash.
const silent = (page) => page.addInitScript(() => window.addEventListener("pagehide", (event) => event.stopImmediatePropagation()));

async function offline(person, connection) {
  connection.closed = true;
  await connection.cut();
  await person.disconnected();
}

async function online(person, connection) {
  connection.closed = false;
  await person.reconnect();
  await person.connected();
}

// Joins a room with intercepted WebSockets. `more` prepares the page.
async function anotherTab(adda, person, name, room, more) {
  let connection;
  const tab = await adda.tab(person, {
    prepare: async (page) => {
      connection = await interceptSockets(page);
      await more?.(page);
    },
  });
  await tab.page.fill("#name", name);
  await tab.page.fill("#room", room);
  await tab.page.click("#join .primary");
  return [tab, connection];
}

for (const [how, prepared] of [
  ["closed", undefined],
  ["lost in a crash", silent],
]) {
  browserTest(`the unsent messages of a tab that was ${how} are sent by the next one, in their order and before new ones`, {}, async (adda) => {
    const bot = await adda.bot("Tomas", "tea");
    const first = await adda.open();
    const [ana, connection] = await anotherTab(adda, first, "Ana", "tea", prepared);
    await ana.connected();
    await offline(ana, connection);
    for (const text of ["এক", "two", "three"]) await ana.send(text);
    assert.deepEqual(await kept(ana), ["এক", "two", "three"]);
    await ana.page.close();

    const [tab] = await anotherTab(adda, first, "Ana", "tea");
    await tab.send("new");
    await bot.waitForText("new");
    assert.deepEqual(bot.texts, ["এক", "two", "three", "new"]);
    await tab.waitForMessage("new");
    assert.deepEqual(await tab.messages(), ["এক", "two", "three", "new"]);
    await nothingPending(tab);
    assert.deepEqual(await kept(tab), []);
  });
}

browserTest("unsent messages survive a restart of the browser, and are listed without a connection", {}, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  const [ana, connection] = await enterIntercepted(adda, "Ana", "tea");
  await offline(ana, connection);
  await ana.send("one");
  await ana.send("two");
  const storageState = await ana.page.context().storageState();
  await ana.page.context().close();

  let again;
  const later = await adda.open({
    storageState,
    prepare: async (page) => {
      again = await interceptSockets(page);
      again.closed = true;
    },
  });
  await later.page.click("#join .primary");
  await later.disconnected();
  await pendingCount(later, 2);
  assert.deepEqual(await later.pending(), ["one", "two"]);
  await later.send("three");
  await online(later, again);
  await bot.waitForText("three");
  assert.deepEqual(bot.texts, ["one", "two", "three"]);
});

browserTest("the unsent messages of a living tab stay with it", {}, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  const [ana, connection] = await enterIntercepted(adda, "Ana", "tea");
  await offline(ana, connection);
  await ana.send("one");
  await ana.send("two");
  const [tab] = await anotherTab(adda, ana, "Ana", "tea");
  await tab.send("from the other tab");
  await bot.waitForText("from the other tab");
  await tab.waitForMessage("from the other tab");
  assert.deepEqual(await tab.pending(), []);
  assert.deepEqual(await ana.pending(), ["one", "two"]);
  await online(ana, connection);
  await nothingPending(ana);
  await tab.waitForMessage("two");
  assert.deepEqual(bot.texts, ["from the other tab", "one", "two"]);
  assert.deepEqual(await tab.messages(), ["from the other tab", "one", "two"]);
});

browserTest("a room that was left keeps its unsent messages for the next tab that joins it", {}, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  const [ana, connection] = await enterIntercepted(adda, "Ana", "tea");
  await offline(ana, connection);
  await ana.send("one");
  await ana.page.click("#leave");
  connection.closed = false;
  await ana.join("Ana", "coffee");
  assert.deepEqual(await ana.pending(), []);
  await ana.send("elsewhere");
  await ana.waitForMessage("elsewhere");
  assert.deepEqual(await kept(ana), ["one"]);
  await ana.page.click("#leave");
  await ana.join("Ana", "tea");
  await bot.waitForText("one");
  await nothingPending(ana);
  assert.deepEqual(bot.texts, ["one"]);
});

browserTest("a message that any tab sees stored is pending in none", {}, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  const [ana, connection] = await enterIntercepted(adda, "Ana", "tea");
  const [tab] = await anotherTab(adda, ana, "Ana", "tea");
  await tab.connected();
  connection.in = ({ type }) => type !== "text";
  await ana.send("its copy is lost on the way to this tab");
  await tab.waitForMessage("its copy is lost");
  await nothingPending(ana);
  assert.equal(connection.attempts, 1, "it need not ask again");
  await ana.send("next");
  await bot.waitForText("next");
  assert.equal(bot.texts.length, 2);
});

browserTest("a tab that slept while its messages were taken does not list or send them again", {}, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  const first = await adda.open();
  const [ana, connection] = await anotherTab(adda, first, "Ana", "tea", (page) =>
    page.addInitScript(() => {
      BroadcastChannel.prototype.postMessage = () => {};
    }),
  );
  await ana.connected();
  await offline(ana, connection);
  await ana.send("keep");
  await ana.send("discard");
  const [tab, other] = await anotherTab(adda, first, "Ana", "tea");
  other.out = (frame) => {
    if (frame.content !== "discard") return true;
    other.deliver({ type: "error", code: "forbidden", content: "no", nonce: frame.nonce });
    return false;
  };
  await tab.page.locator("#pending .discard").filter({ visible: true }).click();
  await nothingPending(tab);
  await nothingPending(ana);
  await online(ana, connection);
  await ana.waitForMessage("keep");
  await ana.send("awake");
  await bot.waitForText("awake");
  assert.deepEqual(bot.texts, ["keep", "awake"]);
});

browserTest("clearing the browser's storage does not lose the unsent messages of an open tab", {}, async (adda) => {
  const [ana, connection] = await enterIntercepted(adda, "Ana", "tea");
  const other = await adda.tab(ana);
  await offline(ana, connection);
  await ana.send("one");
  await other.page.evaluate(() => localStorage.clear());
  await ana.until(() => Object.keys(localStorage).some((key) => key.startsWith("adda.outbox ")));
  await ana.send("two");
  assert.deepEqual(await ana.pending(), ["one", "two"]);
});

browserTest("a message that was written under another name is shown, and sent only on request", {}, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  const [ana, connection] = await enterIntercepted(adda, "Ana", "tea");
  await offline(ana, connection);
  await ana.send("mine");
  await ana.send("nobody's");
  await ana.page.click("#leave");
  connection.closed = false;
  await ana.join("রহিম", "tea");
  await pendingCount(ana, 2);
  assert.deepEqual(await ana.page.locator("#pending .state").allTextContents(), Array(2).fill("Not sent. You wrote this message as Ana."));
  await ana.send("as who I am");
  await bot.waitForText("as who I am");
  await ana.page.locator("#pending .message", { hasText: "nobody's" }).locator(".discard").click();
  await ana.page.locator("#pending .message", { hasText: "mine" }).locator(".retry").click();
  await bot.waitForText("mine");
  await nothingPending(ana);
  assert.deepEqual(bot.texts, ["as who I am", "mine"]);
});

// Makes the server forget the guest's session, as far as this page can tell.
const forgetUs = (person) => person.page.context().clearCookies();

browserTest("a user with a new id decides about a message that may be stored, and messages that were never sent are sent", {}, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  const [ana, connection] = await enterIntercepted(adda, "Ana", "tea");
  connection.out = ({ type }) => type !== "text";
  await ana.send("sent");
  await ana.page.waitForSelector("#pending [data-state=sent]");
  await ana.send("behind it");
  await forgetUs(ana);
  connection.out = () => true;
  await connection.cut();
  await bot.waitForText("behind it");
  await ana.page.locator("#pending .state", { hasText: "This may have been sent already" }).waitFor();
  assert.deepEqual(bot.texts, ["behind it"]);
  await ana.page.locator("#pending .retry").click();
  await bot.waitForText("sent");
  await nothingPending(ana);
});

browserTest("a user with a new id is not asked about messages that are found stored, in the replay or further back", { flags: ["--rate", "0"] }, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  const [ana, connection] = await enterIntercepted(adda, "Ana", "tea");
  connection.in = ({ type }) => type !== "text";
  await ana.send("arrived");
  await bot.waitForText("arrived");
  await forgetUs(ana);
  connection.in = () => true;
  await connection.cut();
  await ana.waitForMessage("arrived");
  await nothingPending(ana);
  assert.deepEqual(bot.texts, ["arrived"]);

  connection.in = ({ type }) => type !== "text";
  await ana.send("long ago");
  await bot.waitForText("long ago");
  for (let i = 1; i <= 60; i += 1) bot.send(`later ${i}`);
  await bot.waitForText("later 60");
  await forgetUs(ana);
  connection.in = () => true;
  await ana.page.reload();
  await ana.page.locator("#pending .state", { hasText: "This may have been sent already" }).waitFor();
  await ana.page.locator("#scroller").evaluate((scroller) => (scroller.scrollTop = 0));
  await ana.waitForMessage("long ago");
  await nothingPending(ana);
  assert.equal(await ana.page.locator("#timeline .message.own").count(), 2);
  assert.equal(bot.texts.filter((text) => text === "long ago").length, 1);
});

browserTest("unsent messages are removed after thirty days, in all rooms", {}, async (adda) => {
  const [ana, connection] = await enterIntercepted(adda, "Ana", "once");
  await offline(ana, connection);
  for (const text of ["old", "of tomorrow's clock", "recent"]) await ana.send(text);
  await ana.page.evaluate((ages) => {
    for (const key of Object.keys(localStorage).filter((key) => key.startsWith("adda.outbox "))) {
      const item = JSON.parse(localStorage.getItem(key));
      localStorage.setItem(key, JSON.stringify({ ...item, at: Date.now() - ages[item.content] }));
    }
  }, { old: 31 * DAY_MS, "of tomorrow's clock": -31 * DAY_MS, recent: 29 * DAY_MS });
  await ana.page.click("#leave");
  connection.closed = false;
  await ana.join("Ana", "elsewhere");
  assert.deepEqual(await kept(ana), ["recent"]);
});

browserTest("a browser that has no room left sends as ever", {}, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  const [ana, connection] = await enterIntercepted(adda, "Ana", "tea");
  const refused = await ana.page.evaluate(() => {
    for (let size = 4 * 1024 * 1024; size >= 1; ) {
      try {
        localStorage.setItem(`filler ${localStorage.length}`, "x".repeat(size));
      } catch {
        size = Math.floor(size / 2);
      }
    }
    try {
      localStorage.setItem("probe", "x".repeat(100));
      return false;
    } catch {
      return true;
    }
  });
  assert.equal(refused, true);
  await ana.send("one");
  await ana.waitForMessage("one");
  await offline(ana, connection);
  await ana.send("two");
  await ana.send("three");
  assert.deepEqual(await ana.pending(), ["two", "three"]);
  await online(ana, connection);
  await ana.waitForMessage("three");
  await nothingPending(ana);
  assert.deepEqual(bot.texts, ["one", "two", "three"]);
});
