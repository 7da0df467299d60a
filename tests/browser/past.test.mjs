// Older messages: they are loaded on demand, and the lines that are being read stay in place.

import assert from "node:assert/strict";
import { EventEmitter, once } from "node:events";

import { browserTest } from "./support.mjs";

const FLAGS = ["--rate", "0"];
const MESSAGES_URL = /\/api\/rooms\/[^/]+\/messages\?/;

const upTo = (count) => Array.from({ length: count }, (_, i) => `message ${i + 1}`);

// A room with so many messages, and a user who has just joined it.
async function enterAfter(adda, count, context = {}) {
  const bot = await adda.bot("Tomas", "tea");
  for (const text of upTo(count)) bot.send(text);
  await bot.waitForText(`message ${count}`);
  const ana = await adda.enter("Ana", "tea", context);
  await ana.waitForMessage(`message ${count}`);
  return [ana, bot];
}

const toTop = (ana) => ana.page.locator("#scroller").evaluate((e) => (e.scrollTop = 0));
const toBottom = (ana) => ana.page.locator("#scroller").evaluate((e) => (e.scrollTop = e.scrollHeight));
const edgeIs = (ana, edge, state) => ana.page.waitForSelector(`#${edge}[data-state="${state}"]`, { state: "attached" });
const topOf = (ana, text) =>
  ana.page.evaluate((text) => {
    const all = [...document.querySelectorAll("#timeline .message")];
    return all.find((e) => e.querySelector(".content").textContent === text).getBoundingClientRect().top;
  }, text);

// Scrolls towards one end until the text is on the page.
async function scrollUntil(ana, go, text) {
  const there = () => ana.messages().then((texts) => texts.includes(text));
  while (!(await there())) {
    const before = await ana.messages();
    await go(ana);
    await ana.until(
      ([first, last]) => {
        const contents = document.querySelectorAll("#timeline .message .content");
        return contents[0].textContent !== first || contents[contents.length - 1].textContent !== last;
      },
      [before[0], before.at(-1)],
    );
  }
}

browserTest("scrolling up loads older messages, and the visible lines stay in place", { flags: FLAGS }, async (adda) => {
  const [ana] = await enterAfter(adda, 130);
  assert.deepEqual(await ana.messages(), upTo(130).slice(80));
  const asked = [];
  const held = [];
  const events = new EventEmitter();
  await ana.page.route(MESSAGES_URL, (route) => {
    asked.push(new URL(route.request().url()).searchParams);
    held.push(route);
    events.emit("held");
  });
  // The page shows that it loads before its request comes here.
  const release = async () => {
    if (held.length === 0) await once(events, "held");
    await held.shift().fallback();
  };

  await toTop(ana);
  await ana.page.locator("#older", { hasText: "Loading messages…" }).waitFor();
  await ana.until(() => document.querySelector("#scroller").scrollTop === 0);
  const place = await topOf(ana, "message 81");
  await release();
  await ana.waitForMessage("message 31");
  assert.deepEqual(await ana.messages(), upTo(130).slice(30));
  assert.ok(Math.abs((await topOf(ana, "message 81")) - place) <= 1, "the first message of before has not moved");
  assert.equal(asked[0].get("limit"), "50");

  await toTop(ana);
  await edgeIs(ana, "older", "loading");
  await release();
  await ana.waitForMessage("message 1");
  await ana.page.locator("#older", { hasText: "This is the beginning of the room." }).waitFor();
  assert.deepEqual(await ana.messages(), upTo(130));
  assert.equal(await ana.page.locator("#timeline .line.day").count(), 1, "a day is told once");
  await toTop(ana);
  await toBottom(ana);
  await ana.page.locator("#newer").waitFor({ state: "hidden" });
  assert.equal(asked.length, 2, "past the beginning nothing is asked for");
});

browserTest("a new room shows its beginning and requests no older messages", { flags: FLAGS }, async (adda) => {
  let asked = 0;
  const [ana] = await enterAfter(adda, 3, {
    prepare: (page) => page.route(MESSAGES_URL, (route) => ((asked += 1), route.fallback())),
  });
  await ana.page.locator("#older", { hasText: "This is the beginning of the room." }).waitFor();
  assert.deepEqual(await ana.messages(), upTo(3));
  assert.equal(asked, 0);
});

browserTest("a failed page of older messages can be retried", { flags: FLAGS, stopsServer: true }, async (adda) => {
  const [ana] = await enterAfter(adda, 80);
  await ana.page.route(MESSAGES_URL, (route) => route.fulfill({ status: 503, body: "{}" }));
  await toTop(ana);
  await ana.page.locator("#older", { hasText: "Couldn’t load messages." }).waitFor();
  assert.deepEqual(await ana.messages(), upTo(80).slice(30));
  await ana.page.unrouteAll({ behavior: "wait" });
  await ana.page.click("#older button");
  await ana.waitForMessage("message 1");
  await edgeIs(ana, "older", "beginning");
  assert.deepEqual(await ana.messages(), upTo(80));
});

browserTest("a room whose older messages are gone does not show a beginning", { flags: FLAGS }, async (adda) => {
  const [ana] = await enterAfter(adda, 80);
  await ana.page.route(MESSAGES_URL, (route) => route.fulfill({ status: 200, json: { data: [] } }));
  await toTop(ana);
  await ana.page.locator("#older", { hasText: "There are no older messages." }).waitFor();
  assert.deepEqual(await ana.messages(), upTo(80).slice(30));
});

browserTest("a message that comes meanwhile moves no line, and is shown once", { flags: FLAGS }, async (adda) => {
  const [ana, bot] = await enterAfter(adda, 120);
  await toTop(ana);
  await ana.waitForMessage("message 21");
  const place = await topOf(ana, "message 71");
  bot.send("meanwhile");
  await ana.waitForMessage("meanwhile");
  await ana.page.locator("#newer", { hasText: "New messages (1)" }).waitFor();
  assert.ok(Math.abs((await topOf(ana, "message 71")) - place) <= 1);
  await scrollUntil(ana, toTop, "message 1");
  assert.deepEqual(await ana.messages(), [...upTo(120), "meanwhile"]);
});

browserTest("a page that overlaps the lines is shown once", { flags: FLAGS }, async (adda) => {
  const [ana, bot] = await enterAfter(adda, 120);
  const later = bot.frames.find(({ content }) => content === "message 90").id;
  let overlapped = 0;
  await ana.page.route(MESSAGES_URL, (route) => {
    const url = new URL(route.request().url());
    if (overlapped === 0) url.searchParams.set("before", later);
    overlapped += 1;
    return route.continue({ url: url.href });
  });
  await scrollUntil(ana, toTop, "message 1");
  assert.deepEqual(await ana.messages(), upTo(120));
});

browserTest("a long way back keeps the number of lines bounded, and two ways lead forward", { flags: FLAGS, hasDatabase: true }, async (adda) => {
  const count = 2_150;
  const [ana, bot] = await enterAfter(adda, count);
  await scrollUntil(ana, toTop, "message 1");
  const held = await ana.messages();
  assert.ok(held.length <= 2_000, `${held.length} messages`);
  assert.deepEqual(held, upTo(held.length), "what is near the reader stays, what is far goes");

  bot.send("live");
  await ana.page.locator("#newer", { hasText: "New messages (1)" }).waitFor();
  assert.equal((await ana.messages()).includes("live"), false);
  await scrollUntil(ana, toBottom, "live");
  const forth = await ana.messages();
  assert.deepEqual(forth, [...upTo(count), "live"].slice(-forth.length), "no gap and nothing twice");
  assert.ok(forth.length <= 2_000);

  await scrollUntil(ana, toTop, "message 1");
  await ana.page.click("#newer");
  await ana.waitForMessage("live");
  await ana.page.locator("#newer").waitFor({ state: "hidden" });
  bot.send("and live again");
  await ana.waitForMessage("and live again");
  const newest = await ana.messages();
  assert.deepEqual(newest, [...upTo(count), "live", "and live again"].slice(-newest.length));
});

browserTest("messages that are gone meanwhile give way to those that are kept", { flags: FLAGS }, async (adda) => {
  const [ana, bot] = await enterAfter(adda, 150);
  await ana.page.click("#search-open");
  await ana.page.fill("#search input", "message 3");
  await ana.page.press("#search input", "Enter");
  const third = ana.page.locator(".content", { hasText: /^message 3$/ });
  await ana.page.locator(".result", { has: third }).locator("button").click();
  await ana.waitForMessage("message 3");
  // In memory, a room keeps 200 messages.
  for (let number = 151; number <= 450; number += 1) bot.send(`message ${number}`);
  await bot.waitForText("message 450");
  await toBottom(ana);
  await ana.waitForMessage("message 251");
  assert.equal((await ana.messages())[0], "message 251");
  await toTop(ana);
  await edgeIs(ana, "older", "oldest");
  await scrollUntil(ana, toBottom, "message 450");
  const all = await ana.messages();
  assert.deepEqual(all, upTo(450).slice(450 - all.length));
});
