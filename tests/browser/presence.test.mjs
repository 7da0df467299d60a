// Presence in large rooms, where one frame a second replaces joins and leaves. The test changes what the server sends.

import assert from "node:assert/strict";

import { enterChanged, browserTest } from "./support.mjs";

const named = (n) => ({ id: `00000000-0000-4000-8000-${String(n).padStart(12, "0")}`, username: `Guest ${String(n).padStart(5, "0")}` });
const range = (from, to) => Array.from({ length: to - from }, (_, i) => named(from + i));
const count = (person) => person.page.textContent("#people-count");
const counts = (person, words) => person.page.locator("#people-count", { hasText: new RegExp(`^${words}$`) }).waitFor();

browserTest("in a large room the count and the list follow presence frames, without lines", {}, async (adda) => {
  let self;
  const [ana, connection] = await enterChanged(adda, "Ana", "square", (frame) => {
    if (frame.type !== "welcome") return undefined;
    self = frame.user_id;
    return [{ ...frame, members: range(0, 200), member_count: 12_000 }];
  });
  assert.equal(await count(ana), "12,000 people");
  assert.equal((await ana.people())[0], "Ana", "we are listed, although the server does not name us");
  assert.equal((await ana.people()).length, 201);
  assert.equal(await ana.page.textContent("#people-more"), "and 11,799 more");

  const typing = { type: "typing", user_id: named(7).id, username: named(7).username };
  connection.deliver(typing);
  await ana.page.locator("#typing-text", { hasText: "Guest 00007 is typing" }).waitFor();
  const presence = (memberCount, joined, left) =>
    connection.deliver({ type: "presence", member_count: memberCount, joined, left, timestamp: new Date().toISOString() });
  presence(12_012, [named(5_000), named(3)], [named(7), named(9_999)]);
  await counts(ana, "12,012 people");
  const people = await ana.people();
  assert.equal(people.length, 201);
  assert.ok(people.includes("Guest 05000") && !people.includes("Guest 00007"));
  assert.equal(people.filter((name) => name === "Guest 00003").length, 1, "no person is listed twice");
  assert.deepEqual(people.slice(1), [...people.slice(1)].sort());
  assert.equal(await ana.page.textContent("#typing-text"), "");

  // Only some of the people who left are named. The count is right nevertheless.
  presence(11_000, undefined, undefined);
  await counts(ana, "11,000 people");
  presence(150, [], [{ id: self, username: "Ana" }, ...range(10, 20)]);
  await counts(ana, "150 people");
  assert.equal((await ana.people())[0], "Ana");
  assert.equal(await ana.page.isVisible("#people-more"), false);
  await ana.page.click(".bar [data-lang=bn]");
  await counts(ana, "১৫০ জন");
  assert.equal(await ana.page.locator(".line.join, .line.leave").count(), 0);
  assert.equal(await ana.page.locator(".line.gap").count(), 0);
});

browserTest("the list of a large room does not grow without end", {}, async (adda) => {
  const [ana, connection] = await enterChanged(adda, "Ana", "square", (frame) =>
    frame.type === "welcome" ? [{ ...frame, members: range(0, 200), member_count: 5_000 }] : undefined,
  );
  for (let n = 200; n < 1_400; n += 20) connection.deliver({ type: "presence", member_count: 5_000 + n, joined: range(n, n + 20), left: [] });
  await counts(ana, "6,380 people");
  assert.equal((await ana.people()).length, 1_000);
  assert.equal(await ana.page.textContent("#people-more"), "and 5,380 more");
});

browserTest("a room that is small again has a line for each join and leave", {}, async (adda) => {
  const [ana, connection] = await enterChanged(adda, "Ana", "square", (frame) =>
    frame.type === "welcome" ? [{ ...frame, members: range(0, 200), member_count: 201 }] : undefined,
  );
  connection.deliver({ type: "presence", member_count: 200, joined: [], left: [named(1)] });
  await counts(ana, "200 people");
  connection.deliver({ type: "leave", user_id: named(2).id, username: named(2).username, timestamp: new Date().toISOString() });
  await ana.waitForLine("leave", "Guest 00002");
  await counts(ana, "199 people");
  const bot = await adda.bot("Tomas", "square");
  await ana.waitForLine("join", "Tomas");
  await counts(ana, "200 people");
  bot.leave();
});
