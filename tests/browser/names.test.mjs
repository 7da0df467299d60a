// Names of users and rooms: the errors of the form, and the same rules in the server.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";

import { REPOSITORY } from "./modules.mjs";
import { browserTest, serveModules } from "./support.mjs";

const source = (file) => readFileSync(path.join(REPOSITORY, "src", file), "utf8");

browserTest("the form shows the problem of a name", {}, async (adda) => {
  const ana = await adda.open();
  const { page } = ana;
  const cases = [
    ["", "tea", "#name-error", "Enter a name."],
    [" \t ", "tea", "#name-error", "Enter a name."],
    ["a".repeat(33), "tea", "#name-error", "This name is too long. Use up to 32 characters."],
    ["a\u202Eb", "tea", "#name-error", "invisible character"],
    ["Ana\u200D", "tea", "#name-error", "invisible character"],
    ["Ana", "", "#room-error", "Enter a room name."],
    ["Ana", "a".repeat(65), "#room-error", "Use up to 64 characters."],
    ["Ana", "a\u200Bb", "#room-error", "invisible character"],
    ["Ana", " dm:a:b", "#room-error", "reserved for direct messages"],
  ];
  for (const [name, room, where, sentence] of cases) {
    await page.fill("#name", name);
    await page.fill("#room", room);
    await page.press("#room", "Enter");
    await page.locator(where, { hasText: sentence }).waitFor();
    assert.equal(await page.evaluate(() => document.activeElement.getAttribute("aria-invalid")), "true");
    assert.ok(await page.locator("#start").isVisible());
  }
  await page.fill("#room", "dm");
  await page.locator("#room-error").waitFor({ state: "hidden" });

  await page.click("#start [data-lang=bn]");
  await page.fill("#name", "");
  await page.locator("#name-error", { hasText: "নাম লিখুন।" }).waitFor();
  await page.fill("#name", "ক".repeat(33));
  await page.locator("#name-error", { hasText: "সর্বোচ্চ ৩২টি অক্ষর" }).waitFor();

  await ana.join("  রহিম\u0020", "র\u200D্যাব");
  assert.deepEqual(await ana.people(), ["রহিম"]);
});

browserTest("the page and the server have the same rules for names", {}, async (adda) => {
  const ana = await adda.open({ prepare: serveModules });
  const limits = source("limits.rs");
  const limit = (name) => Number(limits.match(new RegExp(`pub const ${name}: usize = (\\d+);`))[1]);
  const body = source("model/names.rs").match(/fn is_invisible[^]*?\n}/)[0];
  const ranges = [...body.matchAll(/'\\u\{(\w+)\}'(?:\.\.='\\u\{(\w+)\}')?/g)].map(([, from, to]) => [
    parseInt(from, 16),
    parseInt(to ?? from, 16),
  ]);
  assert.ok(ranges.length > 10);
  const differ = await ana.page.evaluate(
    async ({ ranges, nameMax, roomMax }) => {
      const names = await import("/js/core/names.js");
      const found = [];
      if (names.NAME_CHARS_MAX !== nameMax || names.ROOM_CHARS_MAX !== roomMax) found.push("the limits");
      for (let point = 0; point <= 0x10ffff; point += 1) {
        if (point === 0xd800) point = 0xe000; // Surrogates are no characters, and can't be in a Rust string.
        const char = String.fromCodePoint(point);
        const hidden = /\p{Cc}/u.test(char) || ranges.some(([from, to]) => from <= point && point <= to);
        if ((names.checkName(`a${char}b`).problem === "invisible") !== hidden) found.push(point.toString(16));
      }
      return found;
    },
    { ranges, nameMax: limit("USERNAME_CHARS_MAX"), roomMax: limit("ROOM_CHARS_MAX") },
  );
  assert.deepEqual(differ, []);
});

browserTest("the page and the server accept the same names", {}, async (adda) => {
  const ana = await adda.open({ prepare: serveModules });
  const names = [
    "Ana", "রহিম", "ক্ষমা", "র\u200D্যাব", "عمر", "小明", "Jose\u0301", "👩\u200D💻 dev", "O'Neil-Smith", "a  b", "য়", "dm:x",
    "a\u0000b", "a\nb", "a\u007F", "\u202Eabc", "a\u200Bb", "\u200Da", "a\u200C", "a\u200D\u200Cb", "a\u200D b", "a \u200Db",
    "\u2800", "\uFE0F", "\u2800 \uFE0F", "\u2800a", "\uFFFC", "\u{1D159}", "\uFEFFa", "a\uFEFF", "a\u2028b", "\u3164", "a\u{E0041}", "\u0085a", "\u3000a\u3000", "ক".repeat(32), "ক".repeat(33),
    "য়".repeat(16), "য়".repeat(17), "👩\u200D💻".repeat(11),
  ];
  const told = await ana.page.evaluate(async (all) => {
    const { checkName, checkRoom } = await import("/js/core/names.js");
    return all.map((name) => [checkName(name), checkRoom(name)]);
  }, names);
  // The `welcome`, or null if the server rejects the upgrade.
  const connect = (username, room) => adda.bot(username, room).then((bot) => bot.frames[0], () => null);
  for (const [i, name] of names.entries()) {
    const [asName, asRoom] = told[i];
    const [named, roomed] = await Promise.all([connect(name, "tea"), connect("Ana", name)]);
    assert.equal(named?.username ?? null, asName.value ?? null, `name ${JSON.stringify(name)}`);
    assert.equal(roomed?.room_id ?? null, asRoom.value ?? null, `room ${JSON.stringify(name)}`);
  }
});
