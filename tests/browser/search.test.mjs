// The search in the messages of a room, in any language.

import assert from "node:assert/strict";

import { browserTest, serveModules } from "./support.mjs";

const FLAGS = ["--rate", "0"];
const MESSAGES_URL = /\/api\/rooms\/[^/]+\/messages\?/;

async function enterAfter(adda, texts, context = {}) {
  const bot = await adda.bot("রহিম", "tea");
  for (const text of texts) bot.send(text);
  await bot.waitForText(texts.at(-1));
  const ana = await adda.enter("Ana", "tea", context);
  await ana.waitForMessage(texts.at(-1));
  return [ana, bot];
}

async function search(ana, words) {
  if (await ana.page.locator("#search").isHidden()) await ana.page.click("#search-open");
  await ana.page.fill("#search input", words);
  await ana.page.press("#search input", "Enter");
}

const results = (ana) => ana.page.locator(".result .content").allTextContents();
const marked = (ana) => ana.page.locator(".result mark").allTextContents();
const nothing = (ana) => ana.page.locator("#search-status[data-state=nothing]").waitFor();
const found = (ana, text) => ana.page.locator(".result .content", { hasText: text }).first().waitFor();

browserTest("Bengali words are found with their signs, and marked whole", { flags: FLAGS }, async (adda) => {
  const [ana] = await enterAfter(adda, [
    "কেউ চা খাবেন?",
    "চায়ের সঙ্গে টা কী আছে?",
    "চিনি ছাড়া",
    "চাঁদ উঠেছে, চা কই?",
    "আমরা যাব",
  ]);
  await search(ana, "চা");
  await found(ana, "কেউ চা");
  // The last word may be incomplete. A letter with another sign is another word.
  assert.deepEqual(await results(ana), ["চাঁদ উঠেছে, চা কই?", "চায়ের সঙ্গে টা কী আছে?", "কেউ চা খাবেন?"]);
  assert.deepEqual(await marked(ana), ["চাঁদ", "চা", "চায়ের", "চা"]);
  const first = ana.page.locator(".result").first();
  assert.equal(await first.locator(".username").textContent(), "রহিম");
  assert.match(await first.locator("time").textContent(), /^Today, \d{1,2}:\d\d\s[AP]M$/u);

  await search(ana, "চা কই");
  await ana.until(() => document.querySelectorAll(".result").length === 1);
  assert.deepEqual(await marked(ana), ["চা", "কই"]);

  // As typed on another keyboard: ড় in two code points.
  await search(ana, "ছাড\u09BCা");
  await found(ana, "চিনি");
  assert.deepEqual(await marked(ana), ["ছাড়া"]);
  await ana.page.click(".bar [data-lang=bn]");
  assert.match(await ana.page.locator(".result time").textContent(), /^আজ, \p{Script=Bengali}+ [০-৯]{1,2}:[০-৯]{2}$/u);
  await search(ana, "পাওয়া যাবে না");
  await ana.page.locator("#search-status", { hasText: "“পাওয়া যাবে না” খুঁজে কিছু পাওয়া যায়নি।" }).waitFor();
});

browserTest("a search ignores case and accents, and special characters are text", { flags: FLAGS }, async (adda) => {
  const [ana] = await enterAfter(adda, ["At the Café Dhaka", "a decaf for me", "50% \"off\" today"]);
  await search(ana, "CAFE dha");
  await found(ana, "Dhaka");
  assert.deepEqual(await results(ana), ["At the Café Dhaka"]);
  assert.deepEqual(await marked(ana), ["Café", "Dhaka"]);
  await search(ana, '"off" 50%');
  await found(ana, "today");
  assert.deepEqual(await marked(ana), ["50", "off"]);
  for (const odd of ['"', "*", "NEAR(", "a AND", "content:x", "' OR 1=1 --", "%_"]) {
    await search(ana, odd);
    await ana.until(() => ["nothing", "found"].includes(document.querySelector("#search-status").dataset.state));
  }
});

browserTest("emoji, signs and scripts without spaces are found and marked", { flags: FLAGS }, async (adda) => {
  const [ana] = await enterAfter(adda, ["a cake 🎂 for you", "C++ and cats", "ผมกินข้าวผัดทุกวัน", "র\u200D্যাব এসেছে", "the end"]);
  for (const [words, text, mark] of [
    ["🎂", "a cake 🎂 for you", "🎂"],
    ["C++", "C++ and cats", "C++"],
    ["ข้าวผัด", "ผมกินข้าวผัดทุกวัน", "ข้าวผัด"],
    ["র্যাব", "র\u200D্যাব এসেছে", "র\u200D্যাব"],
  ]) {
    await search(ana, words);
    await found(ana, text);
    assert.deepEqual([await results(ana), await marked(ana)], [[text], [mark]]);
  }
});

browserTest("the messages of others are never HTML in a search", { flags: FLAGS }, async (adda) => {
  const nasty = `tea <img src=x onerror="window.pwned=1"><mark>tea</mark><script>window.pwned=1</script>&amp; {words}`;
  const [ana] = await enterAfter(adda, [nasty]);
  await search(ana, "tea");
  await found(ana, "pwned");
  assert.deepEqual(await results(ana), [nasty]);
  assert.deepEqual(await marked(ana), ["tea", "tea"]);
  assert.equal(await ana.page.locator("#search img, #search script").count(), 0);
  const asked = `<img src=x onerror="window.pwned=1"> {words} $& coffee`;
  await search(ana, asked);
  await nothing(ana);
  assert.equal(await ana.page.textContent("#search-status"), `No results for “${asked}”.`);
  assert.equal(await ana.page.evaluate(() => window.pwned), undefined);
});

browserTest("results come page by page, newest first", { flags: FLAGS }, async (adda) => {
  const texts = Array.from({ length: 45 }, (_, i) => `tea number ${i + 1}`);
  const [ana, bot] = await enterAfter(adda, texts.flatMap((text) => [text, "coffee"]));
  await search(ana, "tea");
  await found(ana, "number 45");
  for (const count of [20, 40, 45]) {
    await ana.until((all) => document.querySelectorAll(".result").length === all, count);
    assert.deepEqual(await results(ana), texts.toReversed().slice(0, count));
    bot.send(`tea of ${count}`);
    await bot.waitForText(`tea of ${count}`);
    if (count < 45) await ana.page.click("#search-more");
  }
  await ana.page.locator("#search-more").waitFor({ state: "hidden" });
});

browserTest("a result leads to its message, among those around it", { flags: FLAGS }, async (adda) => {
  const filler = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => `message ${from + i}`);
  const [ana, bot] = await enterAfter(adda, [...filler(1, 100), "the needle", ...filler(101, 250)]);
  await search(ana, "needle");
  await found(ana, "needle");
  await ana.page.click(".result button");
  await ana.page.locator("#timeline .message.found", { hasText: "the needle" }).waitFor();
  assert.ok(await ana.page.locator("#search").isHidden());
  const inSight = await ana.page.evaluate(() => {
    const { top, bottom } = document.querySelector(".found").getBoundingClientRect();
    const scroller = document.querySelector("#scroller").getBoundingClientRect();
    return top >= scroller.top && bottom <= scroller.bottom && document.activeElement.matches(".found");
  });
  assert.ok(inSight);
  const around = await ana.messages();
  const all = [...filler(1, 100), "the needle", ...filler(101, 250)];
  assert.deepEqual(around, all.slice(all.indexOf(around[0]), all.indexOf(around[0]) + around.length));

  bot.send("live");
  await ana.page.locator("#newer", { hasText: "New messages (1)" }).waitFor();
  for (let i = 0; !(await ana.messages()).includes("live"); i += 1) {
    assert.ok(i < 20, "the way forth ends");
    const last = (await ana.messages()).at(-1);
    await ana.page.locator("#scroller").evaluate((e) => (e.scrollTop = e.scrollHeight));
    await ana.until((text) => [...document.querySelectorAll("#timeline .content")].at(-1).textContent !== text, last);
  }
  const forth = await ana.messages();
  assert.deepEqual(forth, [...all, "live"].slice(-forth.length));
});

browserTest("a search that is answered in parts goes on by itself", { flags: FLAGS }, async (adda) => {
  const [ana] = await enterAfter(adda, ["tea"]);
  const asked = [];
  await ana.page.route(MESSAGES_URL, (route) => {
    asked.push(new URL(route.request().url()).searchParams.get("before"));
    const frame = { id: "1", username: "Ben", content: "old tea", type: "text", timestamp: new Date().toISOString() };
    return route.fulfill({ json: asked.length < 3 ? { data: [], next: `part ${asked.length}` } : { data: [frame] } });
  });
  await search(ana, "tea");
  await found(ana, "old tea");
  assert.deepEqual(asked, [null, "part 1", "part 2"]);
});

browserTest("a failed search can be retried", { flags: FLAGS, stopsServer: true }, async (adda) => {
  const [ana] = await enterAfter(adda, ["tea"]);
  await ana.page.route(MESSAGES_URL, (route) => route.fulfill({ status: 503, body: "{}" }));
  await search(ana, "tea");
  await ana.page.locator("#search-status", { hasText: "Search failed." }).waitFor();
  await ana.page.unrouteAll({ behavior: "wait" });
  await ana.page.click("#search-retry");
  await found(ana, "tea");
  assert.equal(await ana.page.textContent("#search-status"), "");
});

browserTest("the search works by keyboard and fits a phone", { flags: FLAGS }, async (adda) => {
  const phone = { viewport: { width: 360, height: 640 }, isMobile: true, hasTouch: true };
  const [ana] = await enterAfter(adda, [`tea ${"W".repeat(400)}`, "tea"], phone);
  const focused = () => ana.page.evaluate(() => document.activeElement.closest("[id], .result").id);
  await ana.page.keyboard.press("Control+k");
  assert.equal(await focused(), "search-form");
  await ana.page.keyboard.type("tea");
  await found(ana, "WWW");
  assert.equal(await ana.page.evaluate(() => document.scrollingElement.scrollWidth), 360);
  const inner = await ana.page.locator("#search-results").evaluate((e) => [e.scrollWidth, e.clientWidth]);
  assert.equal(inner[0], inner[1]);
  assert.ok(await ana.page.locator("#message-input").evaluate((e) => e.closest("[inert]") !== null), "what lies below can't be reached");
  await ana.page.keyboard.press("Escape");
  await ana.page.locator("#search").waitFor({ state: "hidden" });
  assert.equal(await focused(), "search-open");
  await ana.page.evaluate(() =>
    document.dispatchEvent(new KeyboardEvent("keydown", { key: "ক", code: "KeyK", ctrlKey: true })),
  );
  assert.equal(await ana.page.inputValue("#search input"), "tea", "it is still there");
  assert.equal(await focused(), "search-form");
  await ana.page.keyboard.press("Tab");
  await ana.page.keyboard.press("Tab");
  await ana.page.keyboard.press("Enter");
  await ana.page.locator("#timeline .message.found").waitFor();

  await ana.page.click("#leave");
  await ana.join("Ana", "chess");
  await ana.page.click("#search-open");
  assert.equal(await ana.page.inputValue("#search input"), "", "another room, another search");
  assert.deepEqual(await results(ana), []);
});

browserTest("the words of the query are marked", {}, async (adda) => {
  const ana = await adda.open({ prepare: serveModules });
  const mark = (text, asked) =>
    ana.page.evaluate(
      async ([text, words]) => {
        const { markWords } = await import("/js/core/marks.js");
        return markWords(text, words).map(({ text: piece, marked: is }) => (is ? `[${piece}]` : piece)).join("");
      },
      [text, asked],
    );
  for (const [text, asked, expected] of [
    ["tea and teapots", "tea", "[tea] and [teapots]"],
    ["tea and teapots", "tea a", "[tea] [and] teapots"],
    ["TÉA", "tea", "[TÉA]"],
    ["tea", "", "tea"],
    ["tea", "?!", "tea"],
    ["tea?!", "?!", "tea[?!]"],
    ["a.b c", "a b c", "[a].[b] [c]"],
    ["কী কি", "কি", "কী [কি]"],
    ["র\u200D্যাব আসছে", "র্যাব", "[র\u200D্যাব] আসছে"],
    ["র্যাব আসছে", "র\u200D্যাব", "[র্যাব] আসছে"],
    ["র\u200D্যাবের গাড়ি", "র\u200D্যা", "[র\u200D্যাবের] গাড়ি"],
    ["ছাড়া ছাড\u09BCা", "ছাড\u09BCা", "[ছাড়া] [ছাড\u09BCা]"],
    ["我喝茶，他也喝茶", "喝茶", "我[喝茶]，他也[喝茶]"],
    ["我喝了茶", "喝茶", "我喝了茶"],
    ["tea茶", "tea 茶", "[tea][茶]"],
    ["ผมกินข้าวผัดทุกวัน", "ข้าวผัด", "ผมกิน[ข้าวผัด]ทุกวัน"],
    ["ញ៉ាំ\u200Bបាយ", "ញ៉ាំបាយ", "[ញ៉ាំ\u200Bបាយ]"],
    ["C++, C and cats", "c++", "[C++], C and cats"],
    ["cake 🎂🍰", "🎂", "cake [🎂]🍰"],
    ["so :) it is", ":)", "so [:)] it is"],
    ["ὈΔΥΣΣΕΎΣ", "οδυσσευς", "[ὈΔΥΣΣΕΎΣ]"],
    ["İstanbul", "istanbul", "[İstanbul]"],
    ["caFE\u0301 e", "cafe", "[caFE\u0301] e"],
    ["", "tea", ""],
  ]) {
    assert.equal(await mark(text, asked), expected);
  }
  const long = await mark(`${"word ".repeat(100)}tea ${"more ".repeat(100)}`, "tea");
  assert.match(long, /^…(?:word ){4,6}\[tea\] (?:more ){100}$/);
  assert.match(await mark(`${"আ".repeat(500)} tea`, "tea"), /^…আ{25,30} \[tea\]$/u);
});
