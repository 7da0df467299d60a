// Renames: a user with several tabs has one name, and the room is told of a new one.

import assert from "node:assert/strict";

import { browserTest } from "./support.mjs";

const DATABASE = { hasDatabase: true };
const toast = (person, text) => person.page.locator("#toasts", { hasText: text }).waitFor();

// Joins from another tab, which has the name of the first one in its form.
async function joinTab(adda, person, name, room) {
  const tab = await adda.tab(person);
  await tab.join(name, room);
  return tab;
}

browserTest("another tab under another name renames the user everywhere", { expectsRejections: true }, async (adda) => {
  const ben = await adda.enter("Ben", "tea");
  await ben.send("hello");
  const ana = await adda.enter("Ana", "tea");
  await ben.waitForLine("join", "Ana joined");
  const tab = await joinTab(adda, ana, "Ann", "tea");
  await ben.waitForLine("rename", "Ana is now Ann");
  await ana.waitForLine("rename", "Ana is now Ann");
  await toast(ana, "Your name is Ann now.");
  for (const person of [ana, tab]) assert.deepEqual(await person.people(), ["Ann", "Ben"]);
  assert.deepEqual(await ben.people(), ["Ben", "Ann"]);
  await ana.send("from the first tab");
  await ben.page.locator(".message .username", { hasText: "Ann" }).waitFor();
  assert.equal(await ben.page.locator(".line.join").count(), 1, "a rename is no join");

  // A third name is too soon. The tab joins under the present one.
  const third = await joinTab(adda, ana, "Anna", "tea");
  await toast(third, "Your name is Ann now.");
  assert.deepEqual(await third.people(), ["Ann", "Ben"]);
  // The name is that of the next visit, too.
  await ana.page.reload();
  await ana.connected();
  assert.deepEqual(await ana.people(), ["Ann", "Ben"]);
  await ben.page.click(".bar [data-lang=bn]");
  await ben.waitForLine("rename", "Ana এখন থেকে Ann");
});

browserTest("a guest whose name becomes an account's is told its new name, and stays", DATABASE, async (adda) => {
  const boss = await adda.enter("Boss", "tea");
  await boss.send("hello");
  await boss.waitForMessage("hello");
  await adda.account("boss", "kettle on the stove");
  await boss.waitForLine("rename", "Boss is now Boss (guest)");
  await toast(boss, "Your name is Boss (guest) now.");
  await boss.page.reload();
  await boss.connected();
  await boss.send("still here");
  await boss.waitForMessage("still here");
  assert.deepEqual(await boss.people(), ["Boss (guest)"]);
});
