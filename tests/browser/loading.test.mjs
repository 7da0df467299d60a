// What the page loads, and what a room shows before its messages and people are known.

import assert from "node:assert/strict";
import { EventEmitter, once } from "node:events";

import { enterChanged, browserTest, interceptSockets } from "./support.mjs";

const FLAGS = ["--rate", "0"];
const MESSAGES_URL = /\/api\/rooms\/[^/]+\/messages\?/;

async function tryToJoin(person, name, room) {
  await person.page.fill("#name", name);
  await person.page.fill("#room", room);
  await person.page.click("#join .primary");
}

const claimsEmptiness = (person) => person.page.isVisible("#timeline-empty");
const countOf = (person) => person.page.textContent("#people-count");

browserTest("the page is loaded by few requests, and keeps its script and its style", {}, async (adda) => {
  const paths = [];
  const ana = await adda.open({ prepare: (page) => page.on("request", (request) => paths.push(new URL(request.url()).pathname)) });
  const kept = paths.filter((path) => path.startsWith("/v/"));
  assert.deepEqual(kept.map((path) => path.split(".").at(-1)).sort(), ["css", "js"]);
  assert.ok(paths.length <= 12, paths.join(" "));
  assert.deepEqual(paths.filter((path) => /^[/](?:js|css)[/]/.test(path)), []);

  await ana.page.reload();
  await ana.page.locator("#start").waitFor();
  const sizes = await ana.page.evaluate(() =>
    performance.getEntriesByType("resource").filter(({ name }) => name.includes("/v/")).map(({ transferSize }) => transferSize),
  );
  assert.deepEqual(sizes, [0, 0]);
});

browserTest("a room shows no emptiness and no count of people while it connects", {}, async (adda) => {
  let connection;
  const held = [];
  const events = new EventEmitter();
  const ana = await adda.open({
    prepare: async (page) => {
      connection = await interceptSockets(page);
      connection.in = (frame) => (held.push(frame), events.emit("held"), false);
    },
  });
  const welcomed = once(events, "held");
  await tryToJoin(ana, "Ana", "tea");
  await welcomed;
  assert.equal(await claimsEmptiness(ana), false);
  assert.equal(await countOf(ana), "");
  await ana.page.click(".bar [data-lang=bn]");
  assert.equal(await claimsEmptiness(ana), false);
  assert.equal(await countOf(ana), "");
  await ana.page.click(".bar [data-lang=en]");
  for (const frame of held) connection.deliver(frame);
  await ana.page.locator("#timeline-empty").waitFor();
  assert.equal(await countOf(ana), "1 person");
  await ana.send("hello");
  assert.equal(await claimsEmptiness(ana), false);
});

browserTest("a room that can't be reached shows no emptiness", { stopsServer: true }, async (adda) => {
  let connection;
  const ana = await adda.open({
    prepare: async (page) => {
      connection = await interceptSockets(page);
      connection.closed = true;
    },
  });
  await tryToJoin(ana, "Ana", "tea");
  await ana.disconnected();
  assert.equal(await claimsEmptiness(ana), false);
  assert.equal(await countOf(ana), "");
  connection.closed = false;
  await ana.reconnect();
  await ana.connected();
  await ana.page.locator("#timeline-empty").waitFor();
});

browserTest("a room whose messages come late or fail to load shows no emptiness", { flags: FLAGS, stopsServer: true }, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  bot.send("hello");
  await bot.waitForText("hello");
  let answer;
  const [ana] = await enterChanged(adda, "Ana", "tea", (frame) => (frame.type === "text" ? [] : undefined), {
    prepare: (page) => page.route(MESSAGES_URL, (route) => (answer ? answer(route) : undefined)),
  });
  // The replay does not come, so the page asks for the messages.
  const asked = ana.page.waitForRequest(MESSAGES_URL);
  assert.equal(await claimsEmptiness(ana), false);
  await asked;
  assert.equal(await claimsEmptiness(ana), false);
  answer = (route) => route.fulfill({ status: 503, body: "{}" });
  await ana.page.reload();
  await ana.page.locator("#older", { hasText: "Couldn’t load messages." }).waitFor();
  assert.equal(await claimsEmptiness(ana), false);
  answer = (route) => route.fallback();
  await ana.page.click("#older button");
  await ana.waitForMessage("hello");
});

browserTest("a room whose messages are all gone is empty", { flags: FLAGS }, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  bot.send("hello");
  await bot.waitForText("hello");
  const [ana] = await enterChanged(adda, "Ana", "tea", (frame) => (frame.type === "text" ? [] : undefined), {
    prepare: (page) => page.route(MESSAGES_URL, (route) => route.fulfill({ json: { data: [] } })),
  });
  await ana.page.locator("#timeline-empty").waitFor();
});
