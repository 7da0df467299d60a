// Accounts on the page: login, registration, password, sessions, and the secrets that must not leak.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";

import { REPOSITORY } from "./modules.mjs";
import { enterIntercepted, browserTest, interceptSockets, serveModules } from "./support.mjs";

const PASSWORD = "tea with seven cardamoms";
const NEXT = "বৃষ্টি নামল আজ";
const kept = (...flags) => ({ hasDatabase: true, flags });
// The browser reports an error for each rejected request.
const refusing = (...flags) => ({ ...kept(...flags), expectsRejections: true });

const visible = (person, selector) => person.page.locator(selector).filter({ visible: true }).waitFor();
const hidden = (person, selector) => person.page.locator(selector).waitFor({ state: "hidden" });
const says = (person, selector, text) => person.page.locator(selector, { hasText: text }).filter({ visible: true }).waitFor();
const sessionCookie = async (person) => (await person.page.context().cookies()).find(({ name }) => name.startsWith("adda_session_"));

// Fills in the account form, on the start screen or in the profile dialog, and submits it.
async function sendAccount(person, name, password) {
  await person.page.fill("#account-name", name);
  await person.page.fill("#account-password", password);
  await person.page.click("#account-submit");
}

async function logInAtStart(person, name, password = PASSWORD) {
  if (await person.page.isVisible("#join-log-in")) await person.page.click("#join-log-in");
  await sendAccount(person, name, password);
  await says(person, "#join-identity", name);
}

// Joins a room as the account that is logged in.
async function enterAs(person, room) {
  await person.page.fill("#room", room);
  await person.page.click("#join .primary");
  await person.connected();
}

async function backOnline(person, connection) {
  await person.disconnected();
  connection.closed = false;
  await person.reconnect();
  await person.connected();
}

const openProfile = async (person) => {
  await person.page.click("#profile-open");
  await visible(person, "#profile");
};

async function member(adda, name, room, context) {
  const person = await adda.open(context);
  await logInAtStart(person, name);
  await enterAs(person, room);
  return person;
}

browserTest("a guest joins at once, and registration is offered only where the server allows it", {}, async (adda) => {
  const ana = await adda.open();
  assert.equal(await ana.page.isVisible("#join-register"), false);
  await ana.page.click("#join-log-in");
  await hidden(ana, "#join");
  assert.equal(await ana.page.isVisible("#account-switch"), false);
  await ana.page.click("#account-back");
  await ana.join("Ana", "tea");
  await openProfile(ana);
  assert.equal(await ana.page.textContent("#profile-role"), "Guest");
  assert.equal(await ana.page.isVisible("#profile-register"), false);
  assert.equal(await ana.page.isVisible("#profile-account"), false);
});

// No request is rejected, so the browser reports no error.
browserTest("a user logs in on the start screen, has the account's name, and stays logged in", kept(), async (adda) => {
  await adda.account("রহিম", PASSWORD);
  const bot = await adda.bot("Tomas", "tea");
  const rahim = await adda.open();
  await rahim.page.fill("#name", "Ana");
  await rahim.page.click("#join-log-in");
  for (const [selector, attribute, value] of [
    ["#account-name", "autocomplete", "username"],
    ["#account-password", "autocomplete", "current-password"],
    ["#account-password", "type", "password"],
  ]) {
    assert.equal(await rahim.page.getAttribute(selector, attribute), value);
  }
  await sendAccount(rahim, "রহিম", PASSWORD);
  await says(rahim, "#join-identity", "রহিম");
  assert.equal(await rahim.page.isVisible("#name"), false);
  await enterAs(rahim, "tea");
  await rahim.send("as myself");
  const { user_id: self, username } = await bot.waitForText("as myself");
  assert.equal(username, "রহিম");
  await rahim.page.reload();
  await rahim.connected();
  await rahim.send("still");
  assert.equal((await bot.waitForText("still")).user_id, self);
  // Another tab, on the start screen.
  const tab = await adda.tab(rahim);
  await says(tab, "#join-identity", "রহিম");
  await enterAs(tab, "tea");
  await tab.send("from there");
  assert.equal((await bot.waitForText("from there")).user_id, self);
});

browserTest("a login that the page does not know of decides the name, whatever was typed", refusing(), async (adda) => {
  await adda.account("রহিম", PASSWORD);
  const bot = await adda.bot("Tomas", "tea");
  const rahim = await adda.open();
  await logInAtStart(rahim, "রহিম");
  await rahim.page.evaluate(() => localStorage.clear());
  await rahim.page.reload();
  await rahim.join("Ana", "tea");
  await rahim.send("who is it?");
  assert.equal((await bot.waitForText("who is it?")).username, "রহিম");
  assert.equal(bot.frames.some(({ username }) => username === "Ana"), false);
});

browserTest("a wrong password shows a text, and too many attempts show when the next one is allowed", refusing(), async (adda) => {
  await adda.account("রহিম", PASSWORD);
  const ana = await adda.open();
  await ana.page.click("#join-log-in");
  await ana.page.click("#account-submit");
  await says(ana, "#account-name-error", "Enter a name.");
  await says(ana, "#account-password-error", "Enter a password.");
  for (let tries = 0; tries < 5; tries += 1) {
    const answer = ana.page.waitForResponse("**/api/session");
    await sendAccount(ana, "রহিম", `guess ${tries}`);
    assert.equal((await answer).status(), 401);
    await says(ana, "#account-error", "Wrong username or password.");
  }
  await sendAccount(ana, "রহিম", PASSWORD);
  await says(ana, "#account-error", /Try again after (?:.+, )?\d{1,2}:\d{2}\s[AP]M\./u);
  await ana.page.click("#start [data-lang=bn]");
  await says(ana, "#account-error", /(?:.+, )?\p{Script=Bengali}+\s[০-৯]{1,2}:[০-৯]{2}-এর পরে আবার চেষ্টা করুন।/u);
  await ana.page.click("#account-back");
  await ana.join("Ana", "tea");
});

browserTest("a busy or unreachable server has another text than a wrong password", { ...refusing(), stopsServer: true }, async (adda) => {
  await adda.account("রহিম", PASSWORD);
  const rahim = await adda.open();
  await rahim.page.click("#join-log-in");
  const answers = [(route) => route.fulfill({ status: 503, json: { error: "busy", code: "busy" } }), (route) => route.abort()];
  await rahim.page.route("**/api/session", (route) => (answers.shift() ?? ((it) => it.continue()))(route));
  await sendAccount(rahim, "রহিম", PASSWORD);
  await says(rahim, "#account-error", "The server is busy.");
  await rahim.page.click("#account-submit");
  await says(rahim, "#account-error", "Can’t reach the server.");
  await rahim.page.click("#account-submit");
  await says(rahim, "#join-identity", "রহিম");
});

browserTest("a password is visible only on request, and never when the form is sent", kept(), async (adda) => {
  await adda.account("রহিম", PASSWORD);
  const rahim = await adda.open();
  await rahim.page.click("#join-log-in");
  await rahim.page.fill("#account-password", PASSWORD);
  const type = () => rahim.page.getAttribute("#account-password", "type");
  await rahim.page.click("#account-password-toggle");
  assert.equal(await type(), "text");
  assert.equal(await rahim.page.getAttribute("#account-password-toggle", "aria-pressed"), "true");
  assert.equal(await rahim.page.textContent("#account-password-toggle"), "Hide password");
  await sendAccount(rahim, "রহিম", PASSWORD);
  await says(rahim, "#join-identity", "রহিম");
  assert.equal(await type(), "password");
  assert.equal(await rahim.page.inputValue("#account-password"), "");
});

// No request is rejected: the page makes none that only members may make.
browserTest("a server that requires accounts offers the login only", kept("--accounts", "required"), async (adda) => {
  await adda.account("রহিম", PASSWORD);
  const rahim = await adda.open({ query: "?room=tea" });
  await visible(rahim, "#account-form");
  for (const selector of ["#join", "#account-back", "#account-switch", "#rooms"]) {
    assert.equal(await rahim.page.isVisible(selector), false, selector);
  }
  assert.equal(await rahim.page.evaluate(() => document.activeElement.id), "account-name");
  await sendAccount(rahim, "রহিম", PASSWORD);
  await says(rahim, "#join-identity", "রহিম");
  assert.equal(await rahim.page.inputValue("#room"), "tea");
  await rahim.page.press("#room", "Enter");
  await rahim.connected();
});

browserTest("a guest with the name of an account is offered the login, which leads to the chosen room", refusing(), async (adda) => {
  await adda.account("রহিম", PASSWORD);
  const rahim = await adda.open();
  await rahim.page.fill("#name", "রহিম");
  await rahim.page.fill("#room", "tea");
  await rahim.page.click("#join .primary");
  await rahim.page.click("#join-own-name");
  assert.equal(await rahim.page.inputValue("#account-name"), "রহিম");
  assert.equal(await rahim.page.evaluate(() => document.activeElement.id), "account-password");
  await sendAccount(rahim, "রহিম", PASSWORD);
  await rahim.connected();
  assert.equal(await rahim.page.textContent("#room-name"), "tea");
  assert.deepEqual(await rahim.people(), ["রহিম"]);
});

browserTest("open registration creates an account by the server's rules", refusing("--registration", "open"), async (adda) => {
  await adda.account("রহিম", PASSWORD);
  const ana = await adda.open();
  await ana.page.fill("#name", "Mitali");
  await ana.page.click("#join-register");
  assert.equal(await ana.page.inputValue("#account-name"), "Mitali");
  assert.equal(await ana.page.getAttribute("#account-password", "autocomplete"), "new-password");
  await visible(ana, "#account-password-hint");
  for (const [name, password, where, sentence] of [
    ["Mitali", "short", "#account-password-error", "too short. Use at least 8 characters."],
    ["Mitali", "password", "#account-password-error", "too easy to guess"],
    ["Mitali", "mitali123", "#account-password-error", "too easy to guess"],
    ["রহিম", PASSWORD, "#account-name-error", "This name or a very similar one is taken"],
  ]) {
    await sendAccount(ana, name, password);
    await says(ana, where, sentence);
  }
  await ana.page.click("#start [data-lang=bn]");
  await says(ana, "#account-name-error", "অন্য নাম বেছে নিন");
  await ana.page.fill("#account-password", "ছোট");
  await says(ana, "#account-password-error", "অন্তত ৮টি অক্ষর ব্যবহার করুন");
  await sendAccount(ana, "Mitali", PASSWORD);
  await says(ana, "#join-identity", "Mitali");
  await enterAs(ana, "tea");
  await openProfile(ana);
  assert.equal(await ana.page.textContent("#profile-role"), "নিবন্ধিত ব্যবহারকারী");
});

browserTest("the page and the server count the characters of a password alike", {}, async (adda) => {
  const ana = await adda.open({ prepare: serveModules });
  const source = readFileSync(path.join(REPOSITORY, "src/auth/password.rs"), "utf8");
  const limit = (name) => Number(source.match(new RegExp(`pub const ${name}: usize = (\\d+);`))[1]);
  const { PASSWORD_CHARS_MIN: min, PASSWORD_BYTES_MAX: max, problems } = await ana.page.evaluate(async () => {
    const { checkNewPassword, checkPassword, ...limits } = await import("/js/core/passwords.js");
    const problems = ["", "১২৩৪৫৬৭", "য়".repeat(4), "é".repeat(512), "é".repeat(513)].map((text) => checkNewPassword(text).problem);
    return { ...limits, problems };
  });
  assert.deepEqual([min, max], [limit("PASSWORD_CHARS_MIN"), limit("PASSWORD_BYTES_MAX")]);
  assert.deepEqual(problems, ["empty", "too_short", undefined, undefined, "too_long"]);
});

browserTest("an invitation creates one account, and leaves the address bar at once", refusing("--registration", "invite"), async (adda) => {
  await adda.account("admin", PASSWORD, "admin");
  const token = await adda.logIn("admin", PASSWORD);
  const { code } = (await adda.rest("POST", "/api/invitations", { body: {}, token })).data;
  const plain = await adda.open();
  assert.equal(await plain.page.isVisible("#join-register"), false);

  const ana = await adda.open({ query: `?room=tea#invite=${code}` });
  await says(ana, "#start-notice", "You are invited to create an account.");
  assert.equal(await ana.page.evaluate(() => location.href), `${adda.base}/?room=tea`);
  await sendAccount(ana, "Mitali", PASSWORD);
  await says(ana, "#join-identity", "Mitali");
  await enterAs(ana, "tea");

  // The link is opened in a page that is open already. It is for one person.
  await plain.join("Ana", "tea");
  await plain.page.evaluate((code) => (location.hash = `#invite=${code}`), code);
  await says(plain, "#account-title", "Create an account");
  assert.equal(await plain.page.evaluate(() => location.hash), "");
  await sendAccount(plain, "Karim", PASSWORD);
  await says(plain, "#account-error", "The invite link is no longer valid");
  await plain.page.click("#account-back");
  await plain.join("Ana", "tea");
  // A user with an account needs no invitation.
  const tab = await adda.tab(ana, { query: `#invite=${code}` });
  await says(tab, "#start-notice", "You already have an account.");
  await enterAs(tab, "tea");
});

browserTest("a setup link registers the first admin once, although registration is closed", refusing(), async (adda) => {
  const code = await adda.offerSetup();
  const ana = await adda.open({ query: `#setup=${code}` });
  await says(ana, "#start-notice", "Create the first admin account.");
  assert.equal(await ana.page.evaluate(() => location.href), `${adda.base}/`);
  const late = await adda.open({ query: `#setup=${code}` });
  await sendAccount(ana, "Mitali", PASSWORD);
  await says(ana, "#join-identity", "Mitali");
  await enterAs(ana, "tea");
  await openProfile(ana);
  assert.equal(await ana.page.textContent("#profile-role"), "Admin");

  await sendAccount(late, "Karim", PASSWORD);
  await says(late, "#account-error", "This setup link has been used, has expired, or belongs to another database.");
  const tab = await adda.tab(ana, { query: `#setup=${code}` });
  await says(tab, "#start-notice", "You already have an account.");
});

browserTest("an invitation to a private room admits a guest and an account", refusing(), async (adda) => {
  await adda.account("admin", PASSWORD, "admin");
  await adda.account("রহিম", PASSWORD);
  const token = await adda.logIn("admin", PASSWORD);
  assert.equal((await adda.rest("PATCH", "/api/rooms/বারান্দা", { body: { private: true }, token })).status, 200);
  const { code } = (await adda.rest("POST", "/api/invitations", { body: { room: "বারান্দা", uses: 2 }, token })).data;
  const link = `#${new URLSearchParams({ invite: code, room: "বারান্দা" })}`;

  const ana = await adda.open({ query: link });
  await says(ana, "#start-notice", "You are invited to “বারান্দা”.");
  assert.equal(await ana.page.inputValue("#room"), "বারান্দা");
  await ana.page.fill("#name", "Ana");
  await ana.page.click("#join .primary");
  await ana.connected();

  const rahim = await adda.open({ query: link });
  await logInAtStart(rahim, "রহিম");
  await rahim.page.click("#join .primary");
  await rahim.connected();
  await rahim.send("so here we are");
  await ana.waitForMessage("so here we are");

  const late = await adda.open({ query: link });
  await late.page.fill("#name", "Karim");
  await late.page.click("#join .primary");
  await says(late, "#start-notice", "This invite link is no longer valid");
  // An invalid code is not shown as an invitation.
  const odd = await adda.open({ query: "#invite=<b>&room=tea" });
  assert.equal(await odd.page.textContent("#start-notice"), "");
  assert.equal(await odd.page.evaluate(() => location.hash), "");
});

browserTest("a guest who logs in stays in the room, and unsent messages are neither lost nor sent as the account", kept(), async (adda) => {
  await adda.account("রহিম", PASSWORD);
  const bot = await adda.bot("Tomas", "tea");
  const [ana, connection] = await enterIntercepted(adda, "Ana", "tea");
  await ana.send("as a guest");
  const { user_id: guest } = await bot.waitForText("as a guest");
  connection.closed = true;
  await connection.cut();
  await ana.disconnected();
  await ana.send("unsent");
  await ana.page.locator("#message-input").pressSequentially("half a thou");
  await openProfile(ana);
  await ana.page.click("#profile-log-in");
  await ana.page.click("#account-back");
  await ana.page.click("#profile-log-in");
  await sendAccount(ana, "রহিম", PASSWORD);
  await hidden(ana, "#profile");
  await backOnline(ana, connection);
  await says(ana, "#pending .state", "You wrote this message as Ana.");
  assert.equal(await ana.page.inputValue("#message-input"), "half a thou");
  await ana.send("as myself");
  const mine = await bot.waitForText("as myself");
  assert.equal(mine.username, "রহিম");
  assert.notEqual(mine.user_id, guest);
  assert.deepEqual(bot.texts, ["as a guest", "as myself"]);
  assert.equal(await ana.page.textContent("#profile-open .avatar"), "র");
  await openProfile(ana);
  assert.equal(await ana.page.textContent("#profile-role"), "Registered user");
});

browserTest("a guest who registers the own name keeps the unsent messages", kept("--registration", "open"), async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  const [ana, connection] = await enterIntercepted(adda, "Ana", "tea");
  await ana.send("as a guest");
  const { user_id: guest } = await bot.waitForText("as a guest");
  connection.closed = true;
  await connection.cut();
  await ana.disconnected();
  await ana.send("unsent");
  await openProfile(ana);
  await ana.page.click("#profile-register");
  assert.equal(await ana.page.inputValue("#account-name"), "Ana");
  await ana.page.fill("#account-password", PASSWORD);
  await ana.page.press("#account-password", "Enter");
  await hidden(ana, "#profile");
  await backOnline(ana, connection);
  const sent = await bot.waitForText("unsent");
  assert.equal(sent.username, "Ana");
  assert.notEqual(sent.user_id, guest);
  await ana.waitForMessage("unsent");
  assert.equal(await ana.page.locator("#pending .message").count(), 0);
});

browserTest("a new password ends the other logins, which show it and offer the login", refusing(), async (adda) => {
  await adda.account("রহিম", PASSWORD);
  const bot = await adda.bot("Tomas", "tea");
  const [here, there] = [await member(adda, "রহিম", "tea"), await member(adda, "রহিম", "tea")];
  await openProfile(here);
  await here.page.click("#profile-password summary");
  const change = async (old, next) => {
    await here.page.fill("#profile-old", old);
    await here.page.fill("#profile-new", next);
    await here.page.click("#profile-password-form .primary");
  };
  assert.equal(await here.page.getAttribute("#profile-old", "autocomplete"), "current-password");
  assert.equal(await here.page.getAttribute("#profile-new", "autocomplete"), "new-password");
  await change("wrong", NEXT);
  await says(here, "#profile-old-error", "The current password is wrong.");
  await change(PASSWORD, "short");
  await says(here, "#profile-new-error", "too short");
  await change(PASSWORD, "password123");
  await says(here, "#profile-new-error", "too easy to guess");
  await change(PASSWORD, NEXT);
  await says(here, "#profile-status", "Password changed.");
  assert.equal(await here.page.inputValue("#profile-new"), "");

  await says(there, "#start-notice", "You have been logged out");
  assert.equal(await there.page.inputValue("#account-name"), "রহিম");
  await sendAccount(there, "রহিম", PASSWORD);
  await says(there, "#account-error", "Wrong username or password.");
  await sendAccount(there, "রহিম", NEXT);
  await there.connected();
  assert.equal(await there.page.textContent("#room-name"), "tea");
  await there.send("back");
  await bot.waitForText("back");
  await here.page.keyboard.press("Escape");
  await here.send("never away");
  await bot.waitForText("never away");
  assert.deepEqual([...new Set(bot.frames.map(({ username }) => username))], ["Tomas", "রহিম"]);
});

browserTest("the profile lists the sessions and ends them", refusing(), async (adda) => {
  await adda.account("রহিম", PASSWORD);
  const phone = "Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 Chrome/130.0.0.0 Mobile Safari/537.36 Firefox/130.0";
  const here = await member(adda, "রহিম", "tea");
  const there = await member(adda, "রহিম", "tea", { userAgent: phone });
  for (let i = 0; i < 2; i += 1) await adda.logIn("রহিম", PASSWORD);
  await adda.runCommand("", "token", "create", "রহিম", "--label", "tea clock");
  await openProfile(here);
  const lines = here.page.locator("#profile-sessions .session");
  const count = (n) => here.until((n) => document.querySelectorAll("#profile-sessions .session").length === n, n);
  await count(5);
  assert.match(await lines.first().textContent(), /Chrome, Linux\s+This device\s+Logged in: Today, .*Last active: Today, /);
  await lines.filter({ hasText: "Firefox, Android" }).getByRole("button", { name: "End session: Firefox, Android" }).click();
  await says(here, "#profile-status", "1 session ended.");
  await count(4);
  await says(there, "#start-notice", "You have been logged out");
  // The server admits guests, but a user whose login has ended becomes one only on request.
  await there.page.click("#account-back");
  assert.equal(await there.page.isVisible("#join-identity"), false);

  await here.page.click("#profile-end-others");
  await says(here, "#profile-status", "2 sessions ended.");
  await count(2);
  await hidden(here, "#profile-end-others");
  // A program's token is no login of the user, so it is ended separately.
  await lines.filter({ hasText: "Bot" }).getByRole("button", { name: "End session: tea clock" }).click();
  await count(1);

  await lines.first().getByRole("button").click();
  await says(here, "#profile-question", "Log out on this device?");
  await here.page.click("#profile-no");
  await hidden(here, "#profile-question");
  await lines.first().getByRole("button").click();
  await here.page.click("#profile-yes");
  await visible(here, "#join");
  assert.equal(await sessionCookie(here), undefined);
  await here.join("Ana", "tea");
});

browserTest("more sessions are ended than the server's rate allows at once", refusing("--rate", "2/s", "--burst", "2"), async (adda) => {
  await adda.account("রহিম", PASSWORD);
  const rahim = await member(adda, "রহিম", "tea");
  for (let i = 0; i < 5; i += 1) await adda.logIn("রহিম", PASSWORD);
  await openProfile(rahim);
  await rahim.page.click("#profile-end-others");
  await says(rahim, "#profile-status", "5 sessions ended.");
  assert.equal(await rahim.page.locator("#profile-sessions .session").count(), 1);
});

browserTest("a logout leads every tab to the start screen, and another user can join", refusing(), async (adda) => {
  await adda.account("রহিম", PASSWORD);
  const bot = await adda.bot("Tomas", "tea");
  let connection;
  const rahim = await member(adda, "রহিম", "tea", { prepare: async (page) => (connection = await interceptSockets(page)) });
  const tab = await adda.tab(rahim);
  await enterAs(tab, "tea");
  connection.closed = true;
  await connection.cut();
  await rahim.disconnected();
  await rahim.send("unsent");
  await openProfile(rahim);
  await rahim.page.click("#profile-log-out");
  await says(rahim, "#profile-question", "1 message hasn’t been sent. It will be kept in this browser until you come back as রহিম.");
  connection.closed = false;
  await rahim.page.click("#profile-yes");
  await visible(rahim, "#join");
  await says(tab, "#start-notice", "You have been logged out");
  await rahim.join("Karim", "tea");
  await says(rahim, "#pending .state", "You wrote this message as রহিম.");
  await rahim.send("a guest");
  assert.equal((await bot.waitForText("a guest")).username, "Karim");
  await rahim.page.click("#leave");
  await logInAtStart(rahim, "রহিম");
  await enterAs(rahim, "tea");
  assert.equal((await bot.waitForText("unsent")).username, "রহিম");
});

browserTest("a login that ended while the page was closed is reported, and does not become a guest", refusing(), async (adda) => {
  await adda.account("রহিম", PASSWORD);
  const bot = await adda.bot("Tomas", "tea");
  const rahim = await member(adda, "রহিম", "tea");
  await rahim.page.context().clearCookies();
  await rahim.page.reload();
  await says(rahim, "#start-notice", "You have been logged out");
  assert.equal(await sessionCookie(rahim), undefined);
  await sendAccount(rahim, "রহিম", PASSWORD);
  await rahim.connected();
  assert.deepEqual([...new Set(bot.frames.map(({ username }) => username))], ["Tomas", "রহিম"]);
});

for (const [how, input, ...words] of [
  ["by another password", NEXT, "user", "passwd", "রহিম"],
  ["with the account", "", "user", "remove", "রহিম", "--yes"],
]) {
  browserTest(`a login that the operator has ended ${how} is reported on the next connection`, { ...refusing(), stopsServer: true }, async (adda) => {
    await adda.account("রহিম", PASSWORD);
    let connection;
    const rahim = await member(adda, "রহিম", "tea", { prepare: async (page) => (connection = await interceptSockets(page)) });
    const { value: former } = await sessionCookie(rahim);
    await adda.runCommand(input, ...words);
    await connection.cut();
    await says(rahim, "#start-notice", "You have been logged out");
    assert.equal(await rahim.page.inputValue("#account-name"), "রহিম");
    // An expired cookie may remain. A guest's cookie would be a new one.
    assert.ok([undefined, former].includes((await sessionCookie(rahim))?.value));
  });
}

browserTest("a login in another tab is reported in this one", refusing(), async (adda) => {
  await adda.account("রহিম", PASSWORD);
  const ana = await adda.enter("Ana", "tea");
  const tab = await adda.tab(ana);
  await logInAtStart(tab, "রহিম");
  await says(ana, "#start-notice", "You are now logged in as রহিম in this browser.");
  await ana.page.click("#join .primary");
  await ana.connected();
  assert.deepEqual(await ana.people(), ["রহিম"]);
});

browserTest("a guest's tab begins no new session while another tab logs in", refusing(), async (adda) => {
  await adda.account("রহিম", PASSWORD);
  const [ana, connection] = await enterIntercepted(adda, "Ana", "tea");
  const tab = await adda.tab(ana);
  const begins = [];
  const isBegin = (request) => request.method() === "POST" && request.url().endsWith("api/session");
  ana.page.on("request", (request) => isBegin(request) && begins.push(request.url()));
  await tab.page.route("**/api/session", async (route) => {
    // The login has begun. The guest's session ends before the response.
    connection.cut(1008);
    await ana.disconnected();
    await ana.reconnect();
    await ana.page.waitForRequest(isBegin, { timeout: 1_500 }).catch(() => null);
    return route.continue();
  });
  await logInAtStart(tab, "রহিম");
  await says(ana, "#start-notice", "You are now logged in as রহিম in this browser.");
  assert.deepEqual(begins, []);
});

browserTest("a page that reconnects stays a member, and a page that leaves is none", {}, async (adda) => {
  const bot = await adda.bot("Tomas", "tea");
  const ana = await adda.enter("Ana", "tea");
  await bot.waitForFrame(({ type, username }) => type === "join" && username === "Ana");
  const renewed = ana.page.waitForEvent("websocket");
  await ana.page.evaluate(() => {
    window.dispatchEvent(new Event("offline"));
    window.dispatchEvent(new Event("online"));
  });
  await renewed;
  await ana.connected();
  await ana.send("here");
  await bot.waitForText("here");
  const comings = () => bot.frames.filter(({ type }) => type === "join" || type === "leave").map(({ type }) => type);
  assert.deepEqual(comings(), ["join"]);
  await ana.page.click("#leave");
  await bot.waitForFrame(({ type }) => type === "leave");
  assert.deepEqual(comings(), ["join", "leave"]);
});

browserTest("the profile dialog works by keyboard and in Bengali", kept(), async (adda) => {
  await adda.account("রহিম", PASSWORD, "admin");
  const rahim = await member(adda, "রহিম", "tea", { viewport: { width: 360, height: 640 } });
  assert.equal(await rahim.page.isVisible(".bar .lang-switch"), false);
  await rahim.page.focus("#profile-open");
  await rahim.page.keyboard.press("Enter");
  const dialog = rahim.page.getByRole("dialog", { name: "Your profile" });
  await dialog.waitFor();
  assert.equal(await rahim.page.textContent("#profile-role"), "Admin");
  await rahim.page.locator("#profile-sessions .session").waitFor();
  await rahim.page.keyboard.press("Control+k");
  assert.equal(await rahim.page.isVisible("#search"), false);
  await rahim.page.click("#profile [data-lang=bn]");
  await says(rahim, "#profile-role", "অ্যাডমিন");
  await rahim.page.click("#profile-password summary");
  const latin = await rahim.page.evaluate(() =>
    [...document.querySelectorAll("#profile [data-i18n], #profile .session .about, #profile .session .badge, #profile .session button, #profile-role")]
      .filter((element) => element.checkVisibility() && element.lang !== "en")
      .map((element) => element.textContent)
      .filter((text) => /[a-z]{2}/i.test(text)),
  );
  assert.deepEqual(latin, []);
  await rahim.page.keyboard.press("Escape");
  await hidden(rahim, "#profile");
  assert.equal(await rahim.page.evaluate(() => document.activeElement.id), "profile-open");
});

browserTest("no password, token or invitation is in a URL, in the browser's storage or in the console", refusing("--registration", "invite"), async (adda) => {
  await adda.account("admin", PASSWORD, "admin");
  const token = await adda.logIn("admin", PASSWORD);
  const { code } = (await adda.rest("POST", "/api/invitations", { body: {}, token })).data;
  assert.equal((await adda.rest("PATCH", "/api/rooms/attic", { body: { private: true }, token })).status, 200);
  const attic = (await adda.rest("POST", "/api/invitations", { body: { room: "attic" }, token })).data;
  const seen = [];
  const secrets = [PASSWORD, NEXT, code, attic.code];
  const store = (person) => person.page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, location.href, history.state]));
  const note = (page) => {
    page.on("request", (request) => seen.push(request.url(), request.headers().referer ?? ""));
    page.on("websocket", (socket) => seen.push(socket.url()));
    page.on("console", (message) => seen.push(message.text()));
    page.on("response", async (answer) => {
      const { token } = await answer.json().then(({ data }) => data ?? {}, () => ({}));
      if (token) secrets.push(token);
    });
  };
  const ana = await adda.open({ query: `#invite=${code}`, prepare: note });
  await sendAccount(ana, "Mitali", PASSWORD);
  await says(ana, "#join-identity", "Mitali");
  seen.push(await store(ana));
  secrets.push((await sessionCookie(ana)).value);
  await ana.page.evaluate((hash) => (location.hash = hash), `#invite=${attic.code}&room=attic`);
  await says(ana, "#start-notice", "You are invited to “attic”.");
  await ana.page.click("#join .primary");
  await ana.connected();
  await ana.send("up here");
  await ana.waitForMessage("up here");
  await openProfile(ana);
  await ana.page.click("#profile-password summary");
  await ana.page.fill("#profile-old", PASSWORD);
  await ana.page.fill("#profile-new", NEXT);
  await ana.page.click("#profile-password-form .primary");
  await says(ana, "#profile-status", "Password changed.");
  seen.push(await store(ana));
  await ana.page.click("#profile-log-out");
  await visible(ana, "#join");
  await ana.page.click("#join-log-in");
  await sendAccount(ana, "Mitali", "not it at all");
  await says(ana, "#account-error", "Wrong username or password.");
  await sendAccount(ana, "Mitali", NEXT);
  await says(ana, "#join-identity", "Mitali");
  secrets.push((await sessionCookie(ana)).value);
  seen.push(await store(ana));
  assert.ok(seen.length > 40 && secrets.length >= 6);
  // The first address is that of the link. No request has its fragment.
  for (const text of seen) {
    for (const secret of secrets) assert.ok(!text.includes(secret) && !text.includes(encodeURIComponent(secret)), text);
  }
});
