// Back and Forward lead from screen to screen.

import assert from "node:assert/strict";

import { PASSWORD, browserTest } from "./support.mjs";

const ACCOUNTS = { hasDatabase: true, expectsRejections: true };

const onStart = (person) => person.page.locator("#start").waitFor();

async function inRoom(person, room) {
  await person.page.locator("#room-name", { hasText: room }).waitFor();
  await person.connected();
  assert.equal(new URL(person.page.url()).searchParams.get("room"), room);
}

async function join(person, room) {
  await person.page.fill("#room", room);
  await person.page.click("#join .primary");
  await inRoom(person, room);
}

browserTest("Back leads from a room to the start screen or the last room, and Forward to the next one", {}, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  const ana = await adda.enter("Ana", "tea");
  await ana.page.goBack();
  await onStart(ana);
  assert.equal(new URL(ana.page.url()).search, "");
  assert.equal(await ana.page.title(), "adda");
  await bot.waitForFrame(({ type, username }) => type === "leave" && username === "Ana");
  await ana.page.goForward();
  await inRoom(ana, "tea");
  await ana.send("back again");
  await bot.waitForText("back again");

  await ana.page.click("#leave");
  await onStart(ana);
  await join(ana, "চা ঘর + বই");
  await ana.page.goBack();
  await onStart(ana);
  await ana.page.goBack();
  await inRoom(ana, "tea");
  assert.deepEqual(await ana.messages(), ["back again"]);
  await ana.page.evaluate(() => history.go(2));
  await inRoom(ana, "চা ঘর + বই");
  assert.deepEqual(await ana.people(), ["Ana"]);
});

browserTest("Back closes what is open in the room", {}, async (adda) => {
  const ana = await adda.enter("Ana", "tea", { viewport: { width: 390, height: 844 } });
  await ana.page.click("#profile-open");
  await ana.page.goBack();
  await onStart(ana);
  assert.equal(await ana.page.locator("dialog[open]").count(), 0);
  await ana.page.goForward();
  await inRoom(ana, "tea");
  await ana.page.click("#people-open");
  await ana.page.goBack();
  await onStart(ana);
  await ana.page.goForward();
  await inRoom(ana, "tea");
  assert.equal(await ana.page.locator("#people").isVisible(), false);
  await ana.page.click("#message-input");
});

browserTest("the entry of a link keeps its address, and a reload keeps the screen", {}, async (adda) => {
  const ana = await adda.open({ query: "?room=tea" });
  await ana.page.fill("#name", "Ana");
  await ana.page.press("#name", "Enter");
  await inRoom(ana, "tea");
  await ana.page.goBack();
  await onStart(ana);
  assert.equal(await ana.page.inputValue("#room"), "tea");
  await ana.page.reload();
  await onStart(ana);
  await ana.page.goForward();
  await inRoom(ana, "tea");
  await ana.page.reload();
  await inRoom(ana, "tea");
  // Another site, and back.
  await ana.page.goto("about:blank");
  await ana.page.goBack();
  await inRoom(ana, "tea");
  // A new fragment of the address is no other screen.
  await ana.page.evaluate(() => (location.hash = "x"));
  await ana.send("still here");
  await ana.waitForMessage("still here");
  await ana.page.goBack();
  await ana.send("and here");
  await ana.waitForMessage("and here");
  await ana.page.goBack();
  await onStart(ana);
});

browserTest("Back does not lead into a room that was lost, nor past a logout", ACCOUNTS, async (adda) => {
  await adda.account("Host", PASSWORD, "admin");
  const ana = await adda.enter("Ana", "tea");
  const host = await adda.open();
  await host.logIn("Host");
  await host.join("Host", "tea");
  await host.page.locator("#people .person", { hasText: "Ana" }).locator(".more").click();
  await host.page.locator(".menu .menu-item", { hasText: "Kick from this room" }).click();
  await host.page.locator(".question .dialog-actions button", { hasText: "Kick" }).click();
  await ana.page.locator("#start-notice", { hasText: "An admin kicked you" }).waitFor();
  await ana.page.goBack();
  await onStart(ana);
  assert.deepEqual(await host.people(), ["Host"]);

  await host.page.click("#leave");
  await onStart(host);
  await host.page.click("#join-log-out");
  await host.page.locator("#name").waitFor();
  await host.page.goBack();
  await onStart(host);
  assert.equal(await host.page.inputValue("#room"), "tea", "an account's room takes a login");
});
