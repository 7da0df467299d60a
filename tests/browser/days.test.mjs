// "Today" and "Yesterday" are days of the calendar in the viewer's time zone, and change at midnight.

import assert from "node:assert/strict";
import test from "node:test";

import { importModule, read } from "./modules.mjs";
import { browserTest } from "./support.mjs";

const FLAGS = ["--rate", "0"];
const HOUR_MS = 60 * 60 * 1000;

const days = (person) => person.page.locator("#timeline .line.day").allTextContents();
const daysAre = (person, expected) =>
  person.page.waitForFunction(
    (expected) => JSON.stringify([...document.querySelectorAll("#timeline .line.day")].map((e) => e.textContent)) === expected,
    JSON.stringify(expected),
  );

// A page with this clock, in a room that has messages of these times.
async function enterAt(adda, room, now, times, context = {}) {
  const bot = await adda.bot("Tomas", room);
  for (const time of times) bot.send(`at ${time}`);
  await bot.waitForText(`at ${times.at(-1)}`);
  const ana = await adda.open({
    ...context,
    prepare: async (page) => {
      await page.clock.install({ time: new Date(now) });
      await page.routeWebSocket(/\/ws\?/, (route) => {
        const server = route.connectToServer();
        server.onMessage((data) => {
          const frame = JSON.parse(data);
          if (frame.type === "text") frame.timestamp = frame.content.replace("at ", "");
          route.send(JSON.stringify(frame));
        });
      });
    },
  });
  await ana.join("Ana", room);
  await ana.waitForMessage(`at ${times.at(-1)}`);
  return ana;
}

browserTest("at midnight Today becomes Yesterday on a page that stays open", { flags: FLAGS }, async (adda) => {
  for (const [timezoneId, offset] of [["Asia/Dhaka", "+06:00"], ["America/New_York", "-04:00"], ["Asia/Kathmandu", "+05:45"]]) {
    const at = (day, time) => new Date(`2026-07-${day}T${time}:00${offset}`).toISOString();
    const times = [at(12, "23:30"), at(13, "00:10"), at(14, "23:50")];
    const ana = await enterAt(adda, timezoneId, at(14, "23:58"), times, { timezoneId });
    await daysAre(ana, ["Sunday, July 12", "Yesterday", "Today"]);
    await ana.page.clock.fastForward("01:30");
    assert.deepEqual((await days(ana)).at(-1), "Today", "still before midnight");
    await ana.page.clock.fastForward("01:00");
    await daysAre(ana, ["Sunday, July 12", "Monday, July 13", "Yesterday"]);
    // The machine sleeps through the next midnight.
    await ana.page.clock.fastForward(25 * HOUR_MS);
    await daysAre(ana, ["Sunday, July 12", "Monday, July 13", "Tuesday, July 14"]);
    await ana.page.context().close();
  }
});

browserTest("results of a search are renewed at midnight, too", { flags: FLAGS }, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  bot.send("tea is ready");
  await bot.waitForText("tea is ready");
  const later = new Date();
  const ana = await adda.open({ prepare: (page) => page.clock.install({ time: later }) });
  await ana.join("Ana", "tea");
  await ana.page.click("#search-open");
  await ana.page.fill("#search-form input", "ready");
  await ana.page.press("#search-form input", "Enter");
  await ana.page.locator(".result time", { hasText: "Today" }).waitFor();
  await ana.page.clock.fastForward(24 * HOUR_MS);
  await ana.page.locator(".result time", { hasText: "Yesterday" }).waitFor();
  await ana.page.clock.fastForward(24 * HOUR_MS);
  await ana.page.locator(".result time", { hasText: /^(?!Today|Yesterday)/ }).waitFor();
});

browserTest("on days of 23 and 25 hours Yesterday is the day before", { flags: FLAGS }, async (adda) => {
  for (const [timezoneId, now, yesterday, before] of [
    // The clock goes forward on March 29, and back on October 25.
    ["Europe/Berlin", "2026-03-30T00:30:00+02:00", "2026-03-29T00:30:00+01:00", "2026-03-28T23:45:00+01:00"],
    ["Europe/Berlin", "2026-10-25T23:30:00+01:00", "2026-10-24T23:45:00+02:00", "2026-10-23T12:00:00+02:00"],
    ["America/New_York", "2026-03-09T00:15:00-04:00", "2026-03-08T00:30:00-05:00", "2026-03-07T23:45:00-05:00"],
    ["America/New_York", "2026-11-01T23:30:00-05:00", "2026-10-31T23:30:00-04:00", "2026-10-30T23:30:00-04:00"],
  ]) {
    const ana = await enterAt(adda, now, now, [before, yesterday, now], { timezoneId });
    await ana.until(() => document.querySelectorAll("#timeline .line.day").length === 3);
    assert.deepEqual((await days(ana)).slice(1), ["Yesterday", "Today"], `${timezoneId} ${now}`);
    await ana.page.context().close();
  }
});

test("a day is named by the calendar in both languages", async () => {
  const { Lang } = await importModule("core/lang.js");
  const texts = Object.fromEntries(["en", "bn"].map((code) => [code, JSON.parse(read(`lang/${code}.json`))]));
  const now = new Date(2026, 2, 1, 0, 5);
  for (const [code, today, yesterday] of [["en", "Today", "Yesterday"], ["bn", "আজ", "গতকাল"]]) {
    const lang = new Lang({ texts, preferred: [code], code });
    assert.equal(lang.day(new Date(2026, 2, 1, 0, 0), now), today);
    assert.equal(lang.day(new Date(2026, 1, 28, 0, 0), now), yesterday);
    assert.equal(lang.day(new Date(2026, 1, 28, 23, 59), now), yesterday);
    assert.notEqual(lang.day(new Date(2026, 1, 27, 23, 59), now), yesterday);
    assert.notEqual(lang.day(new Date(2026, 2, 2, 0, 0), now), today);
  }
});
