// Replays of messages only. Their `seq`s have gaps, which mean no loss, and they may end before the `seq` of `welcome`.

import assert from "node:assert/strict";

import { enterChanged, browserTest } from "./support.mjs";

browserTest("the end of a replay is found although events follow its last message", {}, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  for (const text of ["one", "two"]) bot.send(text);
  await bot.waitForText("two");
  // The `seq`s are those of a room where events, which a history omits, follow each message.
  const spread = (seq) => seq * 10;
  const change = (frame) => (frame.seq === undefined ? undefined : [{ ...frame, seq: frame.type === "welcome" ? spread(frame.seq) + 7 : spread(frame.seq) }]);
  const [ana] = await enterChanged(adda, "Ana", "tea", change, { frozen: true });
  await ana.waitForMessage("two");
  await ana.send("three");
  assert.deepEqual(await ana.pending(), ["three"]);
  await ana.page.clock.runFor(300);
  await bot.waitForText("three");
  await ana.waitForMessage("three");
  assert.deepEqual(await ana.messages(), ["one", "two", "three"]);
  assert.equal(await ana.page.locator(".line.gap").count(), 0);
});

browserTest("a full history ends with its last message", { flags: ["--rate", "0"] }, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  for (let i = 1; i <= 60; i += 1) bot.send(`message ${i}`);
  await bot.waitForText("message 60");
  const change = (frame) => (frame.type === "welcome" ? [{ ...frame, seq: frame.seq + 7 }] : undefined);
  const [ana] = await enterChanged(adda, "Ana", "tea", change, { frozen: true });
  await ana.send("mine");
  await bot.waitForText("mine");
  await ana.waitForMessage("mine");
  const messages = await ana.messages();
  assert.equal(messages.at(-2), "message 60");
  assert.equal(await ana.page.locator(".line.gap").count(), 0);
});

browserTest("a reset leaves no gap in the timeline if one message is known, although the history has gaps in `seq`", {}, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  const spread = (frame) => (frame.seq === undefined ? undefined : [{ ...frame, seq: frame.seq * 10 }]);
  const [ana, connection] = await enterChanged(adda, "Ana", "tea", spread);
  bot.send("one");
  await ana.waitForMessage("one");
  bot.send("two");
  await ana.waitForMessage("two");
  // The server does not have the page's last frame any more, so it can't resume.
  connection.deliver({ ...bot.frames.find(({ content }) => content === "two"), id: crypto.randomUUID(), seq: 90, content: "gone" });
  await ana.waitForMessage("gone");
  await connection.cut();
  await ana.disconnected();
  await ana.reconnect();
  await ana.connected();
  bot.send("three");
  await ana.waitForMessage("three");
  assert.deepEqual(await ana.messages(), ["one", "two", "gone", "three"]);
  assert.equal(await ana.page.locator(".line.gap").count(), 0);
});
