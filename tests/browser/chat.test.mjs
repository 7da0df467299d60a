// Users in one room.

import assert from "node:assert/strict";

import { browserTest } from "./support.mjs";

browserTest("two users in a room see each other join, write, type and leave", {}, async (adda) => {
  const ana = await adda.enter("Ana", "চা-ঘর");
  await ana.page.locator("#timeline-empty").waitFor();
  await ana.send("is anybody here?");
  await ana.waitForMessage("is anybody here?");

  const rahim = await adda.enter("রহিম", "চা-ঘর");
  await ana.waitForLine("join", "রহিম joined");
  await rahim.waitForMessage("is anybody here?");
  assert.deepEqual(await ana.people(), ["Ana", "রহিম"]);
  assert.deepEqual(await rahim.people(), ["রহিম", "Ana"], "oneself comes first");
  assert.equal(await ana.page.textContent("#people-count"), "2 people");
  assert.equal(await ana.page.locator(".person .self:visible").count(), 1);

  await rahim.page.locator("#message-input").pressSequentially("আমি");
  await ana.page.locator("#typing-text", { hasText: "রহিম is typing…" }).waitFor();
  assert.equal(await rahim.page.textContent("#typing-text"), "", "one's own typing is left out");

  await rahim.send("আমি আছি");
  await ana.waitForMessage("আমি আছি");
  await ana.page.waitForSelector("#typing:not(.shown)", { state: "attached" });
  const received = ana.page.locator("#timeline .message.other");
  assert.equal(await received.locator(".username").textContent(), "রহিম");
  assert.match(await received.locator("time").textContent(), /^\d{1,2}:\d\d\s[AP]M$/u);
  assert.equal(await ana.page.locator("#timeline .message.own .content").textContent(), "is anybody here?");
  assert.deepEqual(await rahim.messages(), ["is anybody here?", "আমি আছি"]);
  assert.equal(await rahim.page.locator("#timeline .line.day").textContent(), "Today");

  await rahim.page.click("#leave");
  await ana.waitForLine("leave", "রহিম left");
  assert.deepEqual(await ana.people(), ["Ana"]);
  await rahim.page.locator("#start").waitFor();
});

browserTest("typing notices are sent at intervals and disappear", {}, async (adda) => {
  const ana = await adda.enter("Ana", "tea");
  const bot = await adda.bot("Tomas", "tea");
  await ana.waitForLine("join", "Tomas");
  await ana.page.locator("#message-input").pressSequentially("abcdefghij");
  await ana.send("done");
  await bot.waitForText("done");
  assert.equal(bot.frames.filter(({ type }) => type === "typing").length, 1);

  bot.typing();
  await ana.page.waitForSelector("#typing.shown");
  await ana.page.waitForSelector("#typing:not(.shown)", { state: "attached" });
});

browserTest("successive messages of one user form a group", {}, async (adda) => {
  const ana = await adda.enter("Ana", "tea");
  const bot = await adda.bot("Tomas", "tea");
  for (const text of ["one", "two"]) bot.send(text);
  await ana.waitForMessage("two");
  await ana.send("three");
  await ana.waitForMessage("three");
  const follows = await ana.page.locator("#timeline .message").evaluateAll((all) => all.map((e) => e.classList.contains("follows")));
  assert.deepEqual(follows, [false, true, false]);
});

browserTest("the messages of others are never HTML", {}, async (adda) => {
  const nasty = `<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>&amp;`;
  const ana = await adda.enter("Ana", "<b>tea</b>");
  const bot = await adda.bot("<img src=x onerror=pwned=1>", "<b>tea</b>");
  await ana.waitForLine("join", "<img src=x onerror=pwned=1>");
  bot.typing();
  await ana.page.locator("#typing-text", { hasText: "<img src=x" }).waitFor();
  bot.send(nasty);
  await ana.waitForMessage(nasty);
  assert.deepEqual(await ana.messages(), [nasty]);
  assert.equal(await ana.page.textContent("#room-name"), "<b>tea</b>");
  assert.equal(await ana.page.locator("#chat img, #chat script, #chat b").count(), 0);
  assert.equal(await ana.page.evaluate(() => window.pwned), undefined);
});

browserTest("names of properties of JavaScript objects are ordinary names", {}, async (adda) => {
  for (const room of ["__proto__", "constructor"]) {
    const ana = await adda.enter("toString", room);
    const bot = await adda.bot("__proto__", room);
    await ana.waitForLine("join", "__proto__ joined");
    bot.send("hasOwnProperty");
    await ana.waitForMessage("hasOwnProperty");
    await ana.send("{name} $& valueOf");
    await bot.waitForText("{name} $& valueOf");
    await ana.waitForMessage("{name} $& valueOf");
    assert.deepEqual(await ana.people(), ["toString", "__proto__"]);
  }
});

browserTest("the start screen lists the rooms", {}, async (adda) => {
  await adda.bot("Tomas", "সাহিত্য");
  await adda.bot("Tomas", "tea");
  await adda.bot("Mita", "tea");
  const ana = await adda.open();
  await ana.page.locator("#rooms li", { hasText: "সাহিত্য" }).waitFor();
  assert.deepEqual(await ana.page.locator("#rooms li").allInnerTexts().then((all) => all.map((text) => text.split("\n"))), [
    ["tea", "2 people"],
    ["সাহিত্য", "1 person"],
  ]);
  await ana.page.fill("#name", "Ana");
  await ana.page.click("#rooms button:has-text('সাহিত্য')");
  await ana.connected();
  assert.deepEqual(await ana.people(), ["Ana", "Tomas"]);
});

browserTest("a room with people is listed first, however many rooms there are", { flags: ["--rate", "0"] }, async (adda) => {
  await adda.bot("Tomas", "zebra");
  for (let i = 0; i < 205; i += 1) {
    const posted = await fetch(`${adda.base}/api/rooms/room-${i}/messages?username=Mita`, {
      method: "POST",
      headers: { "Content-Type": "text/plain" },
      body: "hello",
    });
    assert.equal(posted.status, 201);
  }
  const ana = await adda.open();
  const first = ana.page.locator("#rooms li").first();
  await first.waitFor();
  assert.deepEqual((await first.innerText()).split("\n"), ["zebra", "1 person"]);
});

browserTest("a link leads to a room and does not contain the user's name", {}, async (adda) => {
  const ana = await adda.open({ query: `?room=${encodeURIComponent("চা ঘর + বই")}` });
  assert.equal(await ana.page.inputValue("#room"), "চা ঘর + বই");
  await ana.page.fill("#name", "Ana");
  await ana.page.press("#name", "Enter");
  await ana.connected();
  assert.deepEqual([...new URL(ana.page.url()).searchParams], [["room", "চা ঘর + বই"]]);
  const mita = await adda.open({ query: new URL(ana.page.url()).search });
  assert.equal(await mita.page.inputValue("#room"), "চা ঘর + বই");
  await mita.page.fill("#name", "Mita");
  await mita.page.press("#name", "Enter");
  await ana.waitForLine("join", "Mita");
});

browserTest("the title counts the messages that come while the page is hidden", {}, async (adda) => {
  const ana = await adda.enter("Ana", "tea");
  const look = (state) =>
    ana.page.evaluate((visibility) => {
      Object.defineProperty(document, "visibilityState", { value: visibility, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }, state);
  assert.equal(await ana.page.title(), "tea · adda");
  await look("hidden");
  const bot = await adda.bot("Tomas", "tea");
  bot.send("one");
  bot.send("two");
  await ana.until(() => document.title === "(2) tea · adda");
  await look("visible");
  await ana.until(() => document.title === "tea · adda");
});

browserTest("the view follows the newest message only while the reader is at the end", {}, async (adda) => {
  const ana = await adda.enter("Ana", "tea");
  const bot = await adda.bot("Tomas", "tea");
  const fromEnd = () =>
    ana.page.locator("#scroller").evaluate((e) => Math.round(e.scrollHeight - e.scrollTop - e.clientHeight));
  for (let i = 1; i <= 25; i += 1) bot.send(`message number ${i}`);
  await ana.waitForMessage("message number 25");
  assert.ok((await fromEnd()) <= 1);
  assert.ok(await ana.page.locator("#newer").isHidden());

  await ana.page.locator("#scroller").evaluate((e) => (e.scrollTop = 0));
  await ana.page.locator("#newer", { hasText: "Jump to latest" }).waitFor();
  bot.send("while reading");
  await ana.page.locator("#newer", { hasText: "New messages (1)" }).waitFor();
  bot.send("and again");
  await ana.page.locator("#newer", { hasText: "New messages (2)" }).waitFor();
  assert.equal(await ana.page.locator("#scroller").evaluate((e) => e.scrollTop), 0);

  await ana.page.click("#newer");
  assert.ok((await fromEnd()) <= 1);
  await ana.page.locator("#newer").waitFor({ state: "hidden" });

  await ana.page.locator("#scroller").evaluate((e) => (e.scrollTop = 0));
  await ana.page.locator("#newer").waitFor();
  await ana.send("my own");
  await ana.waitForMessage("my own");
  assert.ok((await fromEnd()) <= 1, "one's own message is looked at");
});

browserTest("a user who writes faster than the rate allows loses no message", { flags: ["--rate", "4/s", "--burst", "2"] }, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  const ana = await adda.enter("Ana", "tea");
  const texts = ["one", "two", "three", "four", "five", "six"];
  for (const text of texts) await ana.send(text);
  await bot.waitForText("six");
  assert.deepEqual(bot.texts, texts);
  await ana.waitForMessage("six");
  assert.deepEqual(await ana.messages(), texts);
  await ana.until(() => document.querySelector("#pending").children.length === 0);
});
