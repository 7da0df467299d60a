// Few tab stops lead to every control, however many messages, people and results there are.

import assert from "node:assert/strict";

import { PASSWORD, browserTest } from "./support.mjs";

const FLAGS = ["--rate", "0"];

const tabStops = (person, within) =>
  person.page.locator(within).evaluate((root) =>
    [...root.querySelectorAll("button, a[href], input, textarea, [tabindex]")].filter((e) => e.tabIndex >= 0 && e.checkVisibility()).length,
  );

// The text of the message whose menu button has the focus; null for any other focus.
const focusedMessage = (person) =>
  person.page.evaluate(() => {
    const { activeElement: element } = document;
    return element.matches("#timeline .more") ? element.closest(".message").querySelector(".content").textContent : null;
  });

const focusedId = (person) => person.page.evaluate(() => document.activeElement.closest("[id]").id);

async function press(person, ...keys) {
  for (const key of keys) await person.page.keyboard.press(key);
}

browserTest("one tab stop leads to the menus of all messages", { flags: FLAGS }, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  const ana = await adda.enter("Ana", "tea");
  for (let i = 1; i <= 60; i += 1) {
    await ana.send(`mine ${i}`);
    if (i % 3 === 0) bot.send(`theirs ${i}`);
  }
  await ana.waitForMessage("mine 60");
  await ana.waitForMessage("theirs 60");
  await ana.page.focus("#message-input");
  assert.ok((await tabStops(ana, "#timeline")) <= 1);
  await press(ana, "Shift+Tab");
  assert.equal(await focusedMessage(ana), "mine 60", "the newest message comes first");
  assert.equal(await tabStops(ana, "#timeline"), 1);
  await press(ana, "ArrowUp", "ArrowUp");
  assert.equal(await focusedMessage(ana), "mine 58");
  await press(ana, "ArrowDown");
  assert.equal(await focusedMessage(ana), "mine 59");
  await press(ana, "Enter");
  assert.equal(await ana.page.locator(".menu .menu-item").first().textContent(), "Delete");
  await press(ana, "Escape");
  assert.equal(await focusedMessage(ana), "mine 59", "the focus returns");
  await press(ana, "End");
  assert.equal(await focusedMessage(ana), "mine 60");
  await press(ana, "ArrowDown");
  assert.equal(await focusedMessage(ana), "mine 60", "the last one stays");
  await press(ana, "Home");
  // A tab stop between the messages and the input, once the page has scrolled.
  await ana.page.locator("#newer").waitFor();
  await press(ana, "Tab");
  assert.equal(await focusedId(ana), "newer");
  assert.equal(await tabStops(ana, "#timeline"), 1);
  await press(ana, "Shift+Tab");
  assert.equal(await focusedMessage(ana), "mine 1", "Tab comes back to the same message");

  // The stop moves on when its message is deleted.
  await press(ana, "Enter", "Enter", "Tab", "Enter");
  await ana.page.locator("#timeline .message.deleted").waitFor();
  await ana.page.locator(".question").waitFor({ state: "detached" });
  await ana.page.focus("#newer");
  await press(ana, "Shift+Tab");
  assert.equal(await focusedMessage(ana), "mine 60");
  await press(ana, "Home");
  assert.equal(await focusedMessage(ana), "mine 2");
});

browserTest("a reader whose messages have no menu has no tab stop in them", { flags: FLAGS }, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  for (let i = 1; i <= 20; i += 1) bot.send(`theirs ${i}`);
  const ana = await adda.enter("Ana", "tea");
  await ana.waitForMessage("theirs 20");
  await ana.page.focus("#message-input");
  await press(ana, "Shift+Tab");
  assert.equal(await focusedId(ana), "scroller");
  assert.equal(await tabStops(ana, "#timeline"), 0);
});

browserTest("one tab stop leads to the people of an admin, and one to the results of a search", { flags: FLAGS, hasDatabase: true, expectsRejections: true }, async (adda) => {
  await adda.account("Host", PASSWORD, "admin");
  for (let i = 10; i < 40; i += 1) await adda.bot(`Guest ${i}`, "tea");
  const bot = await adda.bot("Tomas", "tea");
  for (let i = 10; i < 40; i += 1) bot.send(`message ${i}`);
  await bot.waitForText("message 39");
  const host = await adda.open();
  await host.logIn("Host");
  await host.join("Host", "tea");
  await host.waitForMessage("message 39");
  await host.page.focus("#server-settings");
  await press(host, "Tab");
  const person = () => host.page.evaluate(() => document.activeElement.closest(".person")?.querySelector(".username").textContent);
  assert.equal(await person(), "Guest 10");
  assert.equal(await tabStops(host, "#people ul"), 1);
  await press(host, "ArrowDown", "ArrowDown");
  assert.equal(await person(), "Guest 12");
  await press(host, "End", "Enter");
  await host.page.locator(".menu", { hasText: "Tomas" }).waitFor();
  await press(host, "Escape");
  assert.equal(await person(), "Tomas");

  await press(host, "Control+K");
  await host.page.keyboard.type("message");
  await host.page.locator(".result").nth(19).waitFor();
  await press(host, "Tab", "Tab");
  const result = () => host.page.evaluate(() => document.activeElement.closest(".result")?.querySelector(".content").textContent);
  assert.equal(await result(), "message 39");
  assert.equal(await tabStops(host, "#search-results ol"), 1);
  await press(host, "ArrowDown");
  assert.equal(await result(), "message 38");
  await press(host, "Tab", "Enter");
  await host.page.locator(".result").nth(29).waitFor();
  await host.until(() => document.activeElement.closest(".result"));
  assert.equal(await result(), "message 19", "the first new result");
  await press(host, "Enter");
  await host.page.locator("#timeline .message.found", { hasText: "message 19" }).waitFor();
});

browserTest("few presses of Tab lead through a full room and back to its composer", { flags: FLAGS }, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  const ana = await adda.enter("Ana", "tea");
  for (let i = 1; i <= 50; i += 1) await ana.send(`mine ${i}`);
  bot.send("theirs");
  await ana.waitForMessage("theirs");
  await ana.page.focus("#leave");
  let presses = 0;
  for (; (await focusedId(ana)) !== "message-input"; presses += 1) await press(ana, "Tab");
  assert.ok(presses <= 8, `${presses} presses from the first control to the composer`);
});
