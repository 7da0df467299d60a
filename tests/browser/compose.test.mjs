// The composer: keys, input methods, lengths, narrow screens.

import assert from "node:assert/strict";

import { browserTest } from "./support.mjs";

browserTest("Enter sends, Shift+Enter inserts a new line", {}, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  const ana = await adda.enter("Ana", "tea");
  assert.equal(await ana.page.evaluate(() => document.activeElement.id), "message-input");
  await ana.page.press("#message-input", "Enter");
  await ana.page.keyboard.type("  indented");
  await ana.page.keyboard.press("Shift+Enter");
  await ana.page.keyboard.type("second line");
  await ana.page.keyboard.press("Enter");
  await bot.waitForText("  indented\nsecond line");
  assert.equal(await ana.page.inputValue("#message-input"), "");
  await ana.page.keyboard.type("by the button");
  await ana.page.click(".send");
  await bot.waitForText("by the button");
  assert.equal(bot.texts.length, 2, "an empty message is not sent");
  assert.equal(await ana.page.evaluate(() => document.activeElement.id), "message-input");
});

browserTest("Enter within a composition belongs to the input method", {}, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  const ana = await adda.enter("Ana", "tea");
  await ana.page.evaluate(() => {
    window.keysSeen = [];
    document.querySelector("#message-input").addEventListener("keydown", ({ key, isComposing }) => {
      window.keysSeen.push([key, isComposing]);
    });
  });
  const devtools = await ana.page.context().newCDPSession(ana.page);
  await devtools.send("Input.imeSetComposition", { text: "আমার", selectionStart: 4, selectionEnd: 4 });
  await ana.page.keyboard.press("Enter");
  assert.deepEqual(await ana.page.evaluate(() => window.keysSeen), [["Enter", true]], "it was a composition");
  assert.match(await ana.page.inputValue("#message-input"), /^আমার/);
  await devtools.send("Input.insertText", { text: "আমার সোনার বাংলা" });
  const value = await ana.page.inputValue("#message-input");
  // In browsers that have ended the composition by then, only the key's code shows it.
  await ana.page.evaluate(() =>
    document
      .querySelector("#message-input")
      .dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", keyCode: 229, bubbles: true, cancelable: true })),
  );
  assert.equal(await ana.page.inputValue("#message-input"), value);
  await ana.page.keyboard.press("Enter");
  await bot.waitForText(value.trimEnd());
  assert.equal(bot.texts.length, 1);
});

browserTest("a text that is too long stays in the input", { flags: ["--max-content", "1024"] }, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  const ana = await adda.enter("Ana", "tea");
  const long = "আড্ডা ".repeat(80);
  await ana.send(long);
  await ana.page.locator("#compose-error", { hasText: "too long" }).waitFor();
  assert.equal(await ana.page.inputValue("#message-input"), long);
  assert.equal(await ana.page.getAttribute("#message-input", "aria-invalid"), "true");
  await ana.send("short");
  await bot.waitForText("short");
  assert.deepEqual(bot.texts, ["short"]);
  assert.ok(await ana.page.locator("#compose-error").isHidden());
});

browserTest("nothing is wider than a narrow phone", {}, async (adda) => {
  const phone = { viewport: { width: 360, height: 640 }, isMobile: true, hasTouch: true };
  for (const locale of ["en-US", "bn-BD"]) {
    const ana = await adda.open({ ...phone, locale });
    const width = () => ana.page.evaluate(() => document.scrollingElement.scrollWidth);
    assert.equal(await width(), 360, `the start screen in ${locale}`);
    const room = `${locale} ${"W".repeat(50)}`;
    await ana.join("W".repeat(32), room);
    const bot = await adda.bot("M".repeat(32), room);
    bot.send("W".repeat(400));
    bot.typing();
    await ana.waitForMessage("WWW");
    await ana.send("x".repeat(400));
    await ana.waitForMessage("xxx");
    assert.equal(await width(), 360, `the room in ${locale}`);
    const inner = await ana.page.locator("#scroller").evaluate((e) => [e.scrollWidth, e.clientWidth]);
    assert.equal(inner[0], inner[1]);

    await ana.page.locator("#people").waitFor({ state: "hidden" });
    await ana.page.click("#people-open");
    await ana.page.locator(".person", { hasText: "MMM" }).waitFor();
    assert.equal(await ana.page.evaluate(() => document.activeElement.id), "people-close");
    assert.equal(await width(), 360, `the drawer in ${locale}`);
    await ana.page.keyboard.press("Escape");
    await ana.page.locator("#people").waitFor({ state: "hidden" });
    assert.equal(await ana.page.evaluate(() => document.activeElement.id), "people-open");
  }
});

browserTest("every control has a name and works by keyboard", {}, async (adda) => {
  const ana = await adda.open();
  const unnamed = () =>
    ana.page.evaluate(() =>
      [...document.querySelectorAll("button, input, textarea, [role=region], [role=log], [role=group]")]
        .filter((e) => e.checkVisibility())
        .filter((e) => !(e.ariaLabel || e.textContent.trim() || e.labels?.length))
        .map((e) => e.outerHTML),
    );
  assert.deepEqual(await unnamed(), []);
  assert.equal(await ana.page.evaluate(() => document.activeElement.id), "name");
  await ana.page.keyboard.type("Ana");
  await ana.page.keyboard.press("Tab");
  await ana.page.keyboard.press("Control+A");
  await ana.page.keyboard.type("tea");
  await ana.page.keyboard.press("Enter");
  await ana.connected();
  assert.deepEqual(await unnamed(), []);
  assert.equal(await ana.page.getAttribute("#timeline", "aria-live"), "polite");
  await ana.page.keyboard.press("Tab");
  assert.equal(await ana.page.evaluate(() => document.activeElement.className), "send");
});
