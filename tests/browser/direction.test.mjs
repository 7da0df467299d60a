// Texts that are written from right to left.

import assert from "node:assert/strict";

import { PASSWORD, browserTest } from "./support.mjs";

const FLAGS = ["--rate", "0"];
const LONG = {
  Arabic: "مرحبا بالجميع، هل يريد أحد كوبا من الشاي قبل أن نبدأ الاجتماع الأسبوعي؟ ".repeat(3).trim(),
  Hebrew: "שלום לכולם, מישהו רוצה כוס תה לפני שמתחילים את הפגישה השבועית? ".repeat(3).trim(),
  Urdu: "سب کو سلام، کیا کوئی ہفتہ وار ملاقات سے پہلے چائے پینا چاہے گا؟ ".repeat(3).trim(),
  Persian: "سلام به همه، کسی پیش از جلسه‌ی هفتگی چای می‌خواهد؟ ".repeat(4).trim(),
};
const LATIN = "Does anybody want a cup of tea before the weekly meeting begins? ".repeat(3).trim();
const BENGALI = "সাপ্তাহিক সভা শুরুর আগে কেউ এক কাপ চা খাবেন? ".repeat(4).trim();

// For each paragraph of the message: at which edge of its text its last line begins, "left" or "right".
const edgesOf = (person, selector, text) =>
  person.page.evaluate(
    ([selector, text]) => {
      const content = [...document.querySelectorAll(selector)].find((element) => element.textContent.startsWith(text));
      const node = content.firstChild;
      const block = content.closest("[dir=auto]").getBoundingClientRect();
      const edges = [];
      let begin = 0;
      for (const paragraph of node.data.split("\n")) {
        const range = document.createRange();
        range.setStart(node, begin);
        range.setEnd(node, begin + paragraph.length);
        const rects = [...range.getClientRects()];
        const last = rects.filter(({ bottom }) => bottom > Math.max(...rects.map((rect) => rect.top)) + 1);
        const [left, right] = [Math.min(...last.map((rect) => rect.left)), Math.max(...last.map((rect) => rect.right))];
        edges.push(left - block.left < block.right - right ? "left" : "right");
        begin += paragraph.length + 1;
      }
      return edges;
    },
    [selector, text],
  );

const CONTENT = "#timeline .content";

browserTest("each paragraph of a message begins at the side of its script", { flags: FLAGS }, async (adda) => {
  const bot = await adda.bot("ليلى", "tea");
  for (const context of [{}, { viewport: { width: 390, height: 844 } }, { locale: "bn-BD" }]) {
    const ana = await adda.enter("נועה", "tea", context);
    for (const [language, text] of Object.entries(LONG)) {
      for (const speak of [(content) => bot.send(content), (content) => ana.send(content)]) {
        speak(`${text} 1`);
        await ana.waitForMessage(`${text} 1`);
        assert.deepEqual(await edgesOf(ana, CONTENT, text), ["right"], language);
        const mixed = `${text} 2\n${LATIN}\n${text}\n${BENGALI}`;
        speak(mixed);
        await ana.until((text) => [...document.querySelectorAll("#timeline .content")].at(-1).textContent === text, mixed);
        assert.deepEqual(await edgesOf(ana, CONTENT, `${text} 2`), ["right", "left", "right", "left"], language);
        const latin = `${LATIN} ${language} ${text}`;
        speak(latin);
        await ana.until((text) => [...document.querySelectorAll("#timeline .content")].at(-1).textContent === text, latin);
        assert.deepEqual(await edgesOf(ana, CONTENT, latin), ["left"], language);
      }
    }
    await ana.page.click("#leave");
    await ana.page.locator("#start").waitFor();
  }
});

browserTest("the time of a message is at the end of its text, and is read from left to right", { flags: FLAGS }, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  const ana = await adda.enter("Ana", "tea", { locale: "en-US" });
  for (const [text, side] of [[LONG.Hebrew, "left"], [LATIN, "right"]]) {
    bot.send(text);
    await ana.waitForMessage(text);
    const found = await ana.page.locator("#timeline .message", { hasText: text }).evaluate((message) => {
      const time = message.querySelector("time");
      const [box, block] = [time, message.querySelector(".text")].map((element) => element.getBoundingClientRect());
      return [getComputedStyle(time).direction, box.left - block.left < block.right - box.right ? "left" : "right"];
    });
    assert.deepEqual(found, ["ltr", side]);
  }
});

browserTest("names written from right to left do not turn the page's sentences around", { flags: FLAGS, hasDatabase: true, expectsRejections: true }, async (adda) => {
  await adda.account("מנהל", PASSWORD, "admin");
  const ana = await adda.enter("Ana", "tea");
  const admin = await adda.open();
  await admin.logIn("מנהל");
  await admin.join("מנהל", "tea");
  await ana.waitForLine("join", "מנהל joined");
  await ana.send("to be deleted");
  await admin.page.locator("#timeline .message", { hasText: "to be deleted" }).locator(".more").click();
  await admin.page.locator(".menu .menu-item", { hasText: "Delete" }).click();
  await admin.page.locator(".question .primary").click();
  await ana.waitForMessage("מנהל deleted this message.");
  // The name is first, so it is on the left, and the rest of the sentence on its right.
  const isInOrder = (selector) =>
    ana.page.locator(selector).first().evaluate((element) => {
      const [name, rest] = element.childNodes[0].data === "" ? [...element.childNodes].slice(1) : element.childNodes;
      const range = document.createRange();
      range.selectNodeContents(rest);
      return name.nodeName === "BDI" && name.getBoundingClientRect().right <= range.getBoundingClientRect().left + 1;
    });
  assert.ok(await isInOrder("#timeline .line.join span"));
  assert.ok(await isInOrder("#timeline .message.deleted .content"));
});

browserTest("results of a search, the composer and a quotation begin at the side of their script", { flags: FLAGS }, async (adda) => {
  const ana = await adda.enter("Ana", "tea");
  await ana.send(`${LONG.Arabic}\n${LATIN}`);
  await ana.waitForMessage(LATIN);
  const style = (selector) =>
    ana.page.locator(selector).evaluate((element) => {
      const { direction, unicodeBidi, textAlign } = getComputedStyle(element);
      return [direction, unicodeBidi, textAlign];
    });
  await ana.page.fill("#message-input", LONG.Urdu);
  assert.deepEqual(await style("#message-input"), ["rtl", "plaintext", "start"]);
  await ana.page.locator("#timeline .message .more").click();
  await ana.page.locator(".menu .menu-item", { hasText: "Delete" }).click();
  assert.deepEqual(await style(".question blockquote"), ["rtl", "plaintext", "start"]);
  await ana.page.keyboard.press("Escape");
  await ana.page.click("#search-open");
  await ana.page.fill("#search-form input", "الجميع بالجميع");
  await ana.page.fill("#search-form input", "بالجميع");
  await ana.page.locator("#search-results .result").waitFor();
  assert.deepEqual(await style("#search-results .result .content"), ["rtl", "plaintext", "start"]);
  assert.equal((await style("#search-form input"))[0], "rtl");
});
