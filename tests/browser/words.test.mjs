// Bengali and English: every text in both, chosen by the browser or the user.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import test from "node:test";

import { REPOSITORY, filesOf, importModule, read } from "./modules.mjs";
import { browserTest } from "./support.mjs";

const words = (code) => new Map(Object.entries(JSON.parse(read(`lang/${code}.json`))));
const html = read("index.html");
const scripts = filesOf(".js").map(read).join("\n");
const keysInHtml = [...html.matchAll(/data-i18n(?:-[a-z-]+)?="([^"]+)"/g)].map(([, key]) => key);
// Keys that the scripts put together from a literal beginning and a variable end.
const KEYS_MADE = /^(?:field\.(?:name|room|room_to_delete|password)|profile\.role|reason|reason_until|status|line|outbox|history|search)\./;

test("both languages have the same keys, and the same places in each", () => {
  const [en, bn] = [words("en"), words("bn")];
  assert.deepEqual([...en.keys()].sort(), [...bn.keys()].sort());
  const places = (text) => [...text.matchAll(/\{\w+\}/g)].map(([place]) => place).sort();
  for (const [key, text] of en) {
    assert.deepEqual(places(bn.get(key)), places(text), key);
    assert.ok(bn.get(key).trim() !== "" && text.trim() !== "", key);
    if (!key.startsWith("lang.")) assert.match(bn.get(key), /\p{Script=Bengali}/u, key);
  }
});

test("every key that is used exists, and every key that exists is used", () => {
  const en = words("en");
  const literal = [...scripts.matchAll(/\.(?:t|pieces)\(\s*"([^"]+)"/g)].map(([, key]) => key);
  const plural = [...scripts.matchAll(/\.plural\(\s*"([^"]+)"/g)].map(([, key]) => key);
  assert.ok(literal.length > 5 && plural.length > 3 && keysInHtml.length > 20);
  const used = new Set([...keysInHtml, ...literal, ...plural.flatMap((key) => [`${key}.one`, `${key}.other`])]);
  // Two choices in one expression, as in `t(a ? "x" : "y")`.
  for (const [, key] of scripts.matchAll(/"([a-z]+\.[a-z_.]+)"/g)) if (en.has(key)) used.add(key);
  for (const key of used) assert.ok(en.has(key), `${key} is not in en.json`);
  for (const key of en.keys()) assert.ok(used.has(key) || KEYS_MADE.test(key), `${key} is not used`);
});

test("each reason and code that the page knows has its text, and each problem of a name", async () => {
  const en = words("en");
  const { REASONS, CODES, PAGE_REASONS } = await importModule("core/codes.js");
  const known = new Set([...REASONS, ...CODES, ...PAGE_REASONS, "other", "unknown"]);
  for (const word of known) assert.ok(en.has(`reason.${word}`), word);
  for (const key of en.keys()) {
    const [, word] = key.match(/^reason(?:_until)?\.(.*)$/) ?? [];
    if (word !== undefined) assert.ok(known.has(word), key);
  }
  for (const problem of ["empty", "too_long", "invisible"]) {
    for (const field of ["name", "room"]) assert.ok(en.has(`field.${field}.${problem}`), `${field} ${problem}`);
  }
});

test("no reason of a message that is sent again tells the user to try again", async () => {
  const { REASONS, CODES } = await importModule("core/codes.js");
  const table = readFileSync(path.join(REPOSITORY, "src/model/reason.rs"), "utf8");
  const busy = [...table.matchAll(/^ {4}[A-Z]\w+ "(\w+)" Busy \d{3}\s/gm)].map(([, word]) => word);
  assert.ok(busy.length > 2);
  const reasons = ["busy", ...busy.filter((word) => REASONS.has(word) || CODES.has(word))];
  for (const reason of reasons) {
    assert.doesNotMatch(words("en").get(`reason.${reason}`), /try again/i, reason);
    assert.doesNotMatch(words("bn").get(`reason.${reason}`), /আবার চেষ্টা/, reason);
  }
});

browserTest("every word in the HTML has a key, and is the English one", {}, async (adda) => {
  const ana = await adda.open();
  const found = await ana.page.evaluate(async () => {
    const en = new Map(Object.entries(await (await fetch("/lang/en.json")).json()));
    const page = new DOMParser().parseFromString(await (await fetch("/")).text(), "text/html");
    for (const template of page.querySelectorAll("template")) template.replaceWith(template.content);
    page.querySelector("noscript").remove();
    page.querySelector("title").remove();
    const wrong = [];
    const walk = page.createTreeWalker(page.body, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
      const text = walk.currentNode.data.trim();
      if (text === "") continue;
      const key = walk.currentNode.parentElement.dataset.i18n;
      if (en.get(key) !== text) wrong.push([key, text]);
    }
    for (const attribute of ["aria-label", "placeholder", "title", "alt"]) {
      for (const element of page.body.querySelectorAll(`[${attribute}]:not([${attribute}=""])`)) {
        const key = element.getAttribute(`data-i18n-${attribute}`);
        if (en.get(key) !== element.getAttribute(attribute)) wrong.push([key, attribute]);
      }
    }
    return wrong;
  });
  assert.deepEqual(found, []);
});

browserTest("the browser's languages choose, in their order", {}, async (adda) => {
  for (const [locale, code, join] of [
    ["bn-BD", "bn", "যোগ দিন"],
    ["bn-IN", "bn", "যোগ দিন"],
    ["en-GB", "en", "Join"],
    ["de-DE", "en", "Join"],
  ]) {
    const ana = await adda.open({ locale });
    assert.equal(await ana.page.textContent("#join .primary"), join, locale);
    assert.equal(await ana.page.getAttribute("html", "lang"), code, locale);
  }
});

browserTest("the switch turns everything over, and is remembered", {}, async (adda) => {
  const ana = await adda.enter("Ana", "tea");
  const bot = await adda.bot("রহিম", "tea");
  bot.send("কেমন আছেন?");
  await ana.waitForMessage("কেমন আছেন?");
  bot.typing();
  await ana.page.locator("#typing-text", { hasText: "রহিম is typing…" }).waitFor();
  await ana.page.click(".bar [data-lang=bn]");
  assert.equal(await ana.page.getAttribute("html", "lang"), "bn");
  assert.equal(await ana.page.textContent("#typing-text"), "রহিম লিখছেন…");
  assert.equal(await ana.page.textContent("#status-text"), "সংযুক্ত");
  assert.equal(await ana.page.textContent("#people-count"), "২ জন");
  assert.equal(await ana.page.textContent(".line.join"), "রহিম যোগ দিয়েছেন");
  assert.equal(await ana.page.textContent(".line.day"), "আজ");
  assert.match(await ana.page.textContent("#timeline time"), /^\p{Script=Bengali}+ [০-৯]{1,2}:[০-৯]{2}$/u);
  assert.equal(await ana.page.getAttribute("#message-input", "placeholder"), "মেসেজ লিখুন");
  assert.equal(await ana.page.getAttribute(".send", "aria-label"), "পাঠান");
  assert.equal(await ana.page.title(), "tea · আড্ডা");
  assert.equal(await ana.page.getAttribute(".bar [data-lang=bn]", "aria-pressed"), "true");
  // No text of the page is left in Latin letters, except for what the two languages share.
  const latin = await ana.page.evaluate(() =>
    [...document.querySelectorAll("#chat [data-i18n], .line, #people-count, .self, #status-text")]
      .filter((e) => e.checkVisibility() && e.lang !== "en")
      .map((e) => e.textContent)
      .filter((text) => /[a-z]{2}/i.test(text.replace(/Enter|Shift/g, ""))),
  );
  assert.deepEqual(latin, []);

  await ana.page.reload();
  await ana.connected();
  assert.equal(await ana.page.textContent("#people-title"), "কারা আছেন");
  await ana.page.click(".bar [data-lang=en]");
  assert.equal(await ana.page.textContent("#people-title"), "People");
});
