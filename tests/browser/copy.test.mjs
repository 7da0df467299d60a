// What a selection of messages copies.

import assert from "node:assert/strict";

import { browserTest } from "./support.mjs";

const FLAGS = ["--rate", "0"];
const TIME = String.raw`\d{1,2}:\d{2}\s[AP]M`;

// Copies the selection, and returns the text in the clipboard.
const copied = (person) =>
  person.page.evaluate(() => {
    let text = null;
    const note = (event) => (text = event.defaultPrevented ? event.clipboardData.getData("text/plain") : getSelection().toString());
    document.addEventListener("copy", note, { once: true });
    document.execCommand("copy");
    return text;
  });

// Selects from a place in one element to a place in another; without a place, all of it.
const select = (person, begin, end = begin) =>
  person.page.evaluate(
    ([begin, end]) => {
      const find = ([selector, text]) =>
        [...document.querySelectorAll(selector)].find((element) => element.textContent.includes(text));
      const [first, last] = [find(begin), find(end)];
      const range = document.createRange();
      if (begin[2] === undefined) range.setStart(first, 0);
      else range.setStart(first.firstChild, begin[2]);
      if (end[3] === undefined) range.setEnd(last, last.childNodes.length);
      else range.setEnd(last.firstChild, end[3]);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
    },
    [begin, end],
  );

browserTest("messages are copied with time, name and text, without the letter of the avatar", { flags: FLAGS }, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  const ana = await adda.enter("Ana", "tea", { locale: "en-US" });
  for (const text of ["who wants tea?", "with milk\nor without?", "ليس الآن"]) bot.send(text);
  await ana.waitForMessage("ليس الآن");
  await ana.send("me!");
  await ana.waitForMessage("me!");
  const lines = [
    new RegExp(`^\\[${TIME}\\] Tomas: who wants tea\\?$`, "u"),
    new RegExp(`^\\[${TIME}\\] Tomas: with milk$`, "u"),
    /^or without\?$/,
    new RegExp(`^\\[${TIME}\\] Tomas: ليس الآن$`, "u"),
    new RegExp(`^\\[${TIME}\\] Ana: me!$`, "u"),
  ];
  const matches = (text, expected) => {
    const found = text.split("\n");
    assert.equal(found.length, expected.length, text);
    for (const [i, pattern] of expected.entries()) assert.match(found[i], pattern);
  };
  const date = new RegExp(`^${new Intl.DateTimeFormat("en-US", { dateStyle: "long" }).format(new Date())}$`);

  await select(ana, ["#timeline", ""]);
  matches(await copied(ana), [date, ...lines]);
  await select(ana, ["#timeline .message", "who wants"], ["#timeline .message", "me!"]);
  matches(await copied(ana), lines);
  await select(ana, ["#timeline .content", "who wants", 4], ["#timeline .content", "with milk", undefined, 4]);
  matches(await copied(ana), [/^wants tea\?$/, new RegExp(`^\\[${TIME}\\] Tomas: with$`, "u")]);
  await select(ana, ["#timeline .content", "who wants"], ["#timeline .message", "with milk", undefined, 0]);
  assert.equal(await copied(ana), "who wants tea?", "as after a triple click");
  await select(ana, ["#timeline .content", "with milk", 5, 10]);
  assert.equal((await copied(ana)).replace("\n", "|"), "milk|", "within a message the browser copies");
  await select(ana, ["#timeline .message", "who wants"]);
  matches(await copied(ana), [lines[0]]);
  assert.doesNotMatch(await ana.page.evaluate(() => getSelection().toString()), /^T\b/m, "the letter is not selected");

  await ana.page.keyboard.press("Control+Shift+Tab");
  await ana.page.evaluate(() => document.activeElement.blur());
  await ana.page.keyboard.press("Control+A");
  const all = await copied(ana);
  assert.match(all, new RegExp(`\\[${TIME}\\] Tomas: who wants tea\\?\n`, "u"));
});

browserTest("a text in the composer is copied as it is", { flags: FLAGS }, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  bot.send("hello");
  const ana = await adda.enter("Ana", "tea");
  await ana.waitForMessage("hello");
  await select(ana, ["#timeline", ""]);
  await ana.page.fill("#message-input", "my words");
  await ana.page.focus("#message-input");
  await ana.page.keyboard.press("Control+A");
  await ana.page.keyboard.press("Control+C");
  await ana.page.keyboard.press("Control+V");
  await ana.page.keyboard.press("Control+V");
  assert.equal(await ana.page.inputValue("#message-input"), "my wordsmy words");
});

browserTest("lines of joins and leaves are copied, too", { flags: FLAGS }, async (adda) => {
  const ana = await adda.enter("Ana", "tea", { locale: "bn-BD" });
  const bot = await adda.bot("রহিম", "tea");
  bot.send("কেউ চা খাবেন?");
  await ana.waitForMessage("কেউ চা");
  bot.leave();
  await ana.page.locator("#timeline .line.leave").waitFor();
  await select(ana, ["#timeline", ""]);
  const text = await copied(ana);
  assert.match(text, /\nরহিম যোগ দিয়েছেন\n\[[^\]]+\] রহিম: কেউ চা খাবেন\?\nরহিম .+$/u);
});
