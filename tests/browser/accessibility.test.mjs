// No rule of axe-core finds a violation, also none of those that are off by default: on any screen, in both colour
// schemes and languages.

import assert from "node:assert/strict";

import { PASSWORD, browserTest, tool } from "./support.mjs";

const { source: AXE } = tool("axe-core");
const ACCOUNTS = { flags: ["--rate", "0", "--registration", "open"], stopsServer: true, expectsRejections: true };
const PHONE = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true };
// Without animations, because text that fades in has less contrast at first.
const CONTEXTS = [
  { viewport: { width: 1280, height: 800 }, colorScheme: "light", locale: "en-US" },
  { viewport: { width: 1280, height: 800 }, colorScheme: "dark", locale: "bn-BD" },
  { ...PHONE, colorScheme: "light", locale: "bn-BD" },
  { ...PHONE, colorScheme: "dark", locale: "en-US" },
].map((context) => ({ ...context, reducedMotion: "reduce" }));

// The violations on the page as it is now.
async function violations(person, where) {
  await person.page.evaluate(AXE);
  const found = await person.page.evaluate(async () => {
    const rules = Object.fromEntries(axe.getRules().map(({ ruleId }) => [ruleId, { enabled: true }]));
    const { violations } = await axe.run(document, { rules, resultTypes: ["violations"] });
    return violations.flatMap(({ id, nodes }) => nodes.map(({ html, failureSummary }) => `${id}: ${html}\n${failureSummary}`));
  });
  return found.map((each) => `${where}: ${each}`);
}

for (const context of CONTEXTS) {
  const { viewport, colorScheme, locale } = context;
  browserTest(`nothing violates a rule: ${viewport.width} px, ${colorScheme}, ${locale}`, ACCOUNTS, async (adda) => {
    const found = [];
    const look = async (person, where) => found.push(...(await violations(person, where)));
    await adda.account("Host", PASSWORD, "admin");
    const token = await adda.logIn("Host", PASSWORD);
    await adda.rest("PATCH", "/api/rooms/cellar", { body: { private: true }, token });
    const bot = await adda.bot("ليلى", "tea");
    // With them, most people connect from one address.
    for (const name of ["Rahim", "Karim"]) await adda.bot(name, "cards");
    for (const text of ["who wants tea?", "with milk\nor without?", "هل يريد أحد كوبا من الشاي؟", "কেউ চা খাবেন?"]) bot.send(text);

    const ana = await adda.open(context);
    await ana.page.locator("#rooms li").first().waitFor();
    await look(ana, "start");
    await ana.page.fill("#name", "\u200B");
    await ana.page.fill("#room", "");
    await ana.page.click("#join .primary");
    await ana.page.locator("#name-error").filter({ visible: true }).waitFor();
    await look(ana, "start with errors");
    await ana.page.click("#join-log-in");
    await ana.page.locator("#account-form").waitFor();
    await look(ana, "login");
    await ana.page.click("#account-switch");
    await look(ana, "registration");
    await ana.page.click("#account-back");
    await ana.join("Ana", "empty");
    await ana.page.locator("#timeline-empty").waitFor();
    await look(ana, "empty room");
    await ana.page.click("#leave");
    await ana.join("Ana", "tea");
    await ana.send("me!");
    await ana.waitForMessage("me!");
    bot.typing();
    await ana.page.locator("#typing.shown").waitFor();
    await look(ana, "room of a guest");
    await ana.page.click("#profile-open");
    await look(ana, "profile of a guest");
    await ana.page.keyboard.press("Escape");

    const host = await adda.open(context);
    await host.logIn("Host");
    await host.page.locator("#rooms .lock").filter({ visible: true }).waitFor();
    await look(host, "start of an account");
    await host.join("Host", "tea");
    await host.waitForMessage("me!");
    await look(host, "room of an admin");
    if (viewport.width < 768) {
      await host.page.click("#people-open");
      await host.page.locator("#people").waitFor();
      await look(host, "people");
      await host.page.click("#people-close");
    }
    await host.page.locator("#timeline .message", { hasText: "me!" }).locator(".more").click();
    await look(host, "menu of a message");
    await host.page.locator(".menu-item").nth(1).click();
    await look(host, "menu of a person");
    await host.page.locator(".menu-item.danger").last().click();
    await look(host, "question of a ban");
    await host.page.check("#ban-address");
    await host.page.click(".question .primary");
    await host.page.locator(".question").nth(1).waitFor();
    await look(host, "question of a ban of a shared address");
    await host.page.keyboard.press("Escape");
    await host.page.keyboard.press("Escape");
    await host.page.click("#profile-open");
    await host.page.locator(".session").first().waitFor();
    await host.page.click("#profile-password summary");
    await look(host, "profile of an account");
    await host.page.keyboard.press("Escape");
    if (viewport.width < 768) await host.page.click("#people-open");
    await host.page.click("#server-settings");
    await host.page.click(".invitations > .secondary");
    await host.page.locator(".rows li").first().waitFor();
    await look(host, "server settings");
    await host.page.keyboard.press("Escape");
    await host.page.click("#room-settings");
    await look(host, "room settings");
    await host.page.click(".window .secondary.danger");
    await host.page.click(".question .primary");
    await host.page.locator("#delete-room-name-error").filter({ visible: true }).waitFor();
    await look(host, "question of a deletion of a room");
    await host.page.keyboard.press("Escape");
    await host.page.fill("#set-topic", "tea and rain");
    await host.page.selectOption("#set-slow-mode", "30");
    await host.page.click(".settings .primary");
    await host.page.locator(".toast").waitFor();
    await look(host, "toast");
    if (viewport.width < 768) await host.page.click("#people-close");
    await host.page.click("#search-open");
    await host.page.fill("#search-form input", "milk");
    await host.page.locator(".result").waitFor();
    await look(host, "search");
    await ana.page.locator("#slow-mode").filter({ visible: true }).waitFor();
    await ana.send("soon");
    await ana.send("later");
    await ana.page.locator("#pending .message", { hasText: "later" }).waitFor();
    await look(ana, "unsent message");
    await adda.kill();
    await ana.disconnected();
    await look(ana, "disconnected");
    assert.deepEqual(found, []);
  });
}
