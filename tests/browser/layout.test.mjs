// The layout: what is visible and reachable on screens of all sizes, whatever the lengths of names and texts.

import assert from "node:assert/strict";

import { PASSWORD, browserTest } from "./support.mjs";

const PHONES = [320, 360, 390].map((width) => ({ viewport: { width, height: 844 }, isMobile: true, hasTouch: true }));
const LONG_ROOMS = ["W".repeat(40), "general-discussion-for-all-of-our-team-2026", "আড্ডাঘর".repeat(8), "😀".repeat(64)];
const DESKTOP = { viewport: { width: 1280, height: 800 } };

// The controls that are not completely within the width of the window.
const cutOff = (person, selector) =>
  person.page.locator(selector).evaluateAll((elements) =>
    elements
      .filter((element) => element.checkVisibility())
      .filter((element) => {
        const { left, right } = element.getBoundingClientRect();
        return left < 0 || right > innerWidth;
      })
      .map((element) => element.outerHTML),
  );

const isWithinWindow = (person, selector) =>
  person.page.locator(selector).evaluate((element) => {
    const { top, bottom, left, right } = element.getBoundingClientRect();
    return top >= 0 && left >= 0 && bottom <= innerHeight && right <= innerWidth;
  });

const pageOverflow = (person) =>
  person.page.evaluate(() => {
    const { scrollHeight, clientHeight, scrollWidth, clientWidth } = document.scrollingElement;
    return [scrollHeight - clientHeight, scrollWidth - clientWidth];
  });

const fromEnd = (person) =>
  person.page.locator("#scroller").evaluate((e) => Math.round(e.scrollHeight - e.scrollTop - e.clientHeight));

browserTest("long names of rooms leave the start screen usable on a phone", {}, async (adda) => {
  for (const room of LONG_ROOMS) await adda.bot("Tomas", room);
  for (const phone of PHONES) {
    const ana = await adda.open({ ...phone, locale: "bn-BD" });
    await ana.until((count) => document.querySelectorAll("#rooms li").length === count, LONG_ROOMS.length);
    assert.deepEqual(await cutOff(ana, "#start button, #start input, #start .count"), []);
    assert.deepEqual((await pageOverflow(ana))[1], 0);
    const card = await ana.page.locator(".start-card").evaluate((e) => e.getBoundingClientRect().width);
    assert.ok(card <= phone.viewport.width, `${card} px`);
  }
});

browserTest("long names of users leave the start screen and the profile usable on a phone", { hasDatabase: true, expectsRejections: true }, async (adda) => {
  const names = ["M".repeat(32), "নাসরিনসুলতানা".repeat(2), "ليلىحسين".repeat(4)];
  const isReadable = async (person, selector) => {
    const { width, height } = await person.page.locator(selector).boundingBox();
    assert.ok(width >= 60 && height <= 160, `${selector}: ${width} by ${height} px`);
  };
  for (const name of names) {
    await adda.account(name, PASSWORD);
    const ana = await adda.open(PHONES[0]);
    await ana.page.click("#join-log-in");
    await ana.page.fill("#account-name", name);
    await ana.page.fill("#account-password", PASSWORD);
    await ana.page.click("#account-submit");
    await ana.page.locator("#join-identity").waitFor();
    await isReadable(ana, "#join-identity .username");
    assert.deepEqual(await cutOff(ana, "#start button, #start input"), []);
    await ana.page.click("#join .primary");
    await ana.connected();
    await ana.page.click("#profile-open");
    await isReadable(ana, "#profile-name");
    assert.deepEqual(await cutOff(ana, "#profile button, #profile summary"), []);
    await ana.page.context().close();
  }
});

browserTest("only the parts of a room scroll, never the page", { flags: ["--rate", "0"], hasDatabase: true, expectsRejections: true }, async (adda) => {
  await adda.account("Host", PASSWORD, "admin");
  const bot = await adda.bot("Tomas", "tea");
  for (let i = 1; i <= 100; i += 1) bot.send(`message ${i}`);
  await bot.waitForText("message 100");
  for (const context of [DESKTOP, PHONES[2]]) {
    const ana = await adda.open(context);
    await ana.logIn("Host");
    await ana.join("Host", "tea");
    for (let i = 1; i <= 5; i += 1) await ana.send(`mine ${i}`);
    await ana.waitForMessage("mine 5");
    assert.deepEqual(await pageOverflow(ana), [0, 0]);
    const isInPlace = async (when) => {
      assert.equal(await ana.page.evaluate(() => scrollY), 0, when);
      for (const selector of [".bar", "#message-input", ".send"]) assert.ok(await isWithinWindow(ana, selector), `${selector} ${when}`);
    };
    await isInPlace("at the beginning");
    await ana.page.locator("#scroller").evaluate((e) => (e.scrollTop = 0));
    for (const key of ["PageDown", "End", "Space"]) {
      await ana.page.evaluate(() => document.activeElement.blur());
      await ana.page.keyboard.press(key);
      await isInPlace(`after ${key}`);
    }
    if (!context.isMobile) {
      for (const selector of [".bar", "#people", "#scroller", "#footer"]) {
        const { x, y, width, height } = await ana.page.locator(selector).boundingBox();
        await ana.page.mouse.move(x + width / 2, y + height / 2);
        for (let i = 0; i < 5; i += 1) await ana.page.mouse.wheel(0, 2_000);
        await isInPlace(`after the wheel over ${selector}`);
      }
    }
    await ana.page.click("#profile-open");
    await isInPlace("with the profile");
    await ana.page.keyboard.press("Escape");
    await ana.page.locator("#timeline .message.other .more").last().click();
    await isInPlace("with a menu");
    await ana.page.keyboard.press("Escape");
    await isInPlace("after the menu");
    await ana.page.click("#search-open");
    await ana.page.fill("#search-form input", "message");
    await ana.page.locator("#search-results .result").nth(19).waitFor();
    assert.ok(await isWithinWindow(ana, ".bar"), "with results of a search");
    assert.deepEqual(await pageOverflow(ana), [0, 0], "with results of a search");
  }
});

browserTest("a composer that grows or shrinks keeps the newest message in sight", { flags: ["--rate", "0"] }, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  for (let i = 1; i <= 40; i += 1) bot.send(`message ${i}`);
  await bot.waitForText("message 40");
  for (const context of [DESKTOP, PHONES[0]]) {
    const ana = await adda.enter("Ana", "tea", context);
    await ana.waitForMessage("message 40");
    const follows = async (when) => {
      await ana.page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
      assert.ok((await fromEnd(ana)) <= 1, when);
      assert.ok(await ana.page.locator("#newer").isHidden(), when);
    };
    await ana.page.focus("#message-input");
    for (let i = 1; i <= 9; i += 1) {
      await ana.page.keyboard.type(`line ${i}`);
      await follows(`line ${i}`);
      await ana.page.keyboard.press("Shift+Enter");
      await follows(`a new line after line ${i}`);
    }
    bot.send("while writing");
    await ana.waitForMessage("while writing");
    await follows("a message while writing");
    for (let i = 0; i < 60; i += 1) await ana.page.keyboard.press("Backspace");
    await follows("lines were deleted");
    // A keyboard on the screen, and a turned phone.
    const { width, height } = context.viewport;
    await ana.page.setViewportSize({ width, height: height - 300 });
    await follows("the window is lower");
    await ana.page.setViewportSize({ width: width * 2, height: height - 300 });
    await follows("the window is wider");
    await ana.page.setViewportSize({ width, height });
    await follows("the window is higher");
  }
});

browserTest("a composer that grows does not move the lines that are being read", { flags: ["--rate", "0"] }, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  for (let i = 1; i <= 40; i += 1) bot.send(`message ${i}`);
  await bot.waitForText("message 40");
  const ana = await adda.enter("Ana", "tea");
  await ana.waitForMessage("message 40");
  const scroller = ana.page.locator("#scroller");
  const before = await scroller.evaluate((e) => (e.scrollTop = e.scrollHeight - e.clientHeight - 120));
  await ana.page.locator("#newer").waitFor();
  for (let i = 1; i <= 6; i += 1) {
    await ana.page.locator("#message-input").pressSequentially(`line ${i}`);
    await ana.page.keyboard.press("Shift+Enter");
  }
  assert.equal(await scroller.evaluate((e) => e.scrollTop), before);
  assert.ok(await ana.page.locator("#newer").isVisible());
});
