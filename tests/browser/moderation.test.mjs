// Moderation: the actions of admins on the page, and what the members see.

import assert from "node:assert/strict";

import { PASSWORD, enterIntercepted, browserTest, interceptSockets } from "./support.mjs";

// Accounts need a database file. The server rejects the request for a guest's session during a login.
const ACCOUNTS = { hasDatabase: true, expectsRejections: true };

// An admin who has joined a room.
async function host(adda, room, context) {
  await adda.account("Host", PASSWORD, "admin");
  const admin = await adda.open(context);
  await admin.logIn("Host");
  await admin.join("Host", room);
  return admin;
}

const messageWith = (person, text) => person.page.locator("#timeline .message", { hasText: text });
const memberNamed = (person, name) => person.page.locator("#people .person", { hasText: name });
const item = (person, words) => person.page.locator(".menu .menu-item", { hasText: words });
const isVisible = (person, selector) => person.page.locator(selector).isVisible();

// Chooses an item in the menu of a member.
async function toMember(admin, name, words) {
  await memberNamed(admin, name).locator(".more").click();
  await item(admin, words).click();
}

const answer = (person, words) => person.page.locator(".question .dialog-actions button", { hasText: words }).click();
const toast = (person, words) => person.page.locator(".toast", { hasText: words });
const seesNote = (person, words) => person.page.locator("#compose-notice", { hasText: words }).waitFor();
const question = (person, words) => person.page.locator(".question", { hasText: words });
const focusedText = (person) => person.page.evaluate(() => document.activeElement.textContent);
const focusedId = (person) => person.page.evaluate(() => document.activeElement.id);
const seesOnStart = (person, words) => person.page.locator("#start-notice", { hasText: words }).waitFor();

// Makes a request as the page does.
const asks = (person, method, path, body) =>
  person.page.evaluate(async ([method, path, body]) => {
    const headers = { "Content-Type": "application/json" };
    const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
    return { status: answer.status, ...(answer.status === 204 ? {} : await answer.json()) };
  }, [method, path, body]);

browserTest("the actions of admins are shown to admins only", ACCOUNTS, async (adda) => {
  const bot = await adda.bot("Rahim", "tea");
  bot.send("anybody here?");
  const ana = await adda.enter("Ana", "tea");
  await ana.waitForMessage("anybody here?");
  await ana.send("me");
  await ana.waitForMessage("me");
  const admin = await host(adda, "tea");
  await admin.waitForMessage("anybody here?");
  for (const [person, isAdmin] of [[ana, false], [admin, true]]) {
    assert.equal(await isVisible(person, "#admin-tools"), isAdmin);
    assert.equal(await messageWith(person, "anybody here?").locator(".more").isVisible(), isAdmin);
    assert.equal(await memberNamed(person, "Rahim").locator(".more").isVisible(), isAdmin);
  }
  assert.equal(await messageWith(ana, "me").last().locator(".more").isVisible(), true);
  assert.equal(await memberNamed(admin, "Host").locator(".more").isVisible(), false, "nothing is done to oneself");
});

browserTest("a message is deleted for everyone, after one question, and stays deleted", ACCOUNTS, async (adda) => {
  const bot = await adda.bot("Rahim", "tea");
  bot.send("buy cheap tea");
  const ana = await adda.enter("Ana", "tea");
  await ana.send("what I regret");
  await ana.waitForMessage("what I regret");
  const admin = await host(adda, "tea");
  await ana.page.click("#search-open");
  await ana.page.fill("#search-form input", "tea");
  await ana.page.locator("#search-results .result", { hasText: "cheap" }).waitFor();
  await ana.page.keyboard.press("Escape");

  await messageWith(ana, "what I regret").locator(".more").click();
  await item(ana, "Delete").click();
  assert.match(await ana.page.textContent(".question"), /for everyone\?.*what I regret/s);
  await answer(ana, "Cancel");
  await ana.send("still there");
  await admin.waitForMessage("still there");
  assert.ok((await admin.messages()).includes("what I regret"));

  await messageWith(ana, "what I regret").locator(".more").click();
  await item(ana, "Delete").click();
  await answer(ana, "Delete");
  for (const person of [ana, admin]) await person.waitForMessage("This message was deleted.");
  await messageWith(admin, "buy cheap tea").locator(".more").click();
  await item(admin, "Delete").click();
  await answer(admin, "Delete");
  for (const person of [ana, admin]) await person.waitForMessage("Host deleted this message.");
  assert.equal(await ana.page.locator("#search-results .result").count(), 0, "it is no more among what was found");

  // Only connected members learn from the event that an admin deleted it: a history has messages only.
  const late = await adda.enter("Late", "tea", { locale: "bn-BD" });
  await late.until(() => document.querySelectorAll("#timeline .message.deleted").length === 2);
  await late.waitForMessage("মেসেজটি মুছে ফেলা হয়েছে।");
  await ana.page.reload();
  await ana.connected();
  await ana.until(() => document.querySelectorAll("#timeline .message.deleted").length === 2);
  for (const person of [ana, admin, late]) {
    const text = (await person.messages()).join("\n");
    assert.doesNotMatch(text, /cheap|regret/);
    assert.equal(await person.page.locator(".message.deleted .more:visible").count(), 0);
  }
});

browserTest("a deletion counts for resuming, and is not a message", ACCOUNTS, async (adda) => {
  const [ana, connection] = await enterIntercepted(adda, "Ana", "tea");
  await ana.send("first");
  await ana.waitForMessage("first");
  const bot = await adda.bot("Rahim", "tea");
  await messageWith(ana, "first").locator(".more").click();
  await item(ana, "Delete").click();
  await answer(ana, "Delete");
  const { id } = await bot.waitForFrame(({ type }) => type === "delete");
  await ana.waitForMessage("This message was deleted.");
  connection.cut();
  await ana.disconnected();
  await ana.connected();
  assert.equal(connection.addresses.at(-1).searchParams.get("after"), id);
  assert.equal((await ana.messages()).length, 1);
});

browserTest("older messages are loaded where the latest frames are all deletions", { ...ACCOUNTS, flags: ["--rate", "0"] }, async (adda) => {
  const bot = await adda.bot("Rahim", "tea");
  bot.send("the good old days");
  for (let i = 0; i < 60; i += 1) bot.send(`spam ${i}`);
  await bot.waitForText("spam 59");
  const admin = await host(adda, "tea");
  const ids = bot.frames.filter(({ content }) => content.startsWith("spam")).map(({ id }) => id);
  for (const id of ids) assert.equal((await asks(admin, "DELETE", `api/rooms/tea/messages/${id}`)).status, 204);
  const ana = await adda.enter("Ana", "tea");
  await ana.waitForMessage("This message was deleted.");
  await ana.page.locator("#scroller").evaluate((scroller) => scroller.scrollTo(0, 0));
  await ana.waitForMessage("the good old days");
});

browserTest("a mute replaces the composer, can be undone, and expires", ACCOUNTS, async (adda) => {
  const ana = await adda.enter("Ana", "tea");
  const admin = await host(adda, "tea");
  await ana.page.fill("#message-input", "what I was about to say");
  await toMember(admin, "Ana", "1 hour");
  await seesNote(ana, "You are muted until");
  assert.equal(await isVisible(ana, "#compose"), false);
  await ana.page.click(".bar [data-lang=bn]");
  await seesNote(ana, "পর্যন্ত মিউট করা হয়েছে");
  await ana.page.reload();
  await ana.connected();
  await seesNote(ana, "মিউট করা হয়েছে");
  await toast(admin, "Ana is muted until").locator(".undo").click();
  await toast(admin, "Undone.").waitFor();
  await ana.page.locator("#compose").waitFor();
  assert.equal(await ana.page.inputValue("#message-input"), "what I was about to say");
  await ana.page.press("#message-input", "Enter");
  await admin.waitForMessage("what I was about to say");

  const { data } = await asks(ana, "GET", "api/session");
  await asks(admin, "PUT", `api/users/${data.id}`, { muted_until: new Date(Date.now() + 3_000).toISOString() });
  await seesNote(ana, "মিউট করা হয়েছে");
  await ana.page.locator("#compose").waitFor();
  await ana.send("free again");
  await admin.waitForMessage("free again");
  await toMember(admin, "Ana", "Until unmuted");
  await seesNote(ana, "অ্যাডমিন আনমিউট না করা পর্যন্ত");
  await toMember(admin, "Ana", /^Unmute$/);
  await ana.page.locator("#compose").waitFor();
});

browserTest("a kicked user is told on the start screen, and does not rejoin automatically", ACCOUNTS, async (adda) => {
  const [ana, connection] = await enterIntercepted(adda, "Ana", "tea");
  const admin = await host(adda, "tea");
  await toMember(admin, "Ana", "Kick from this room");
  await answer(admin, "Kick");
  await seesOnStart(ana, "An admin kicked you from “tea”.");
  await toast(admin, "Ana was kicked from this room.").waitFor();
  await ana.page.click("#start [data-lang=bn]");
  await seesOnStart(ana, "বের করে দিয়েছেন");
  await ana.page.reload();
  await ana.page.locator("#start").waitFor();
  assert.equal(connection.attempts, 1);
  await ana.join("Ana", "tea");
  assert.equal(await isVisible(ana, "#start"), false);
});

browserTest("a banned user is told, and can't join until the ban ends; a guest's address is banned, too", ACCOUNTS, async (adda) => {
  const [ana, connection] = await enterIntercepted(adda, "Ana", "tea");
  const admin = await host(adda, "tea");
  await toMember(admin, "Ana", "Ban from this server");
  await admin.page.fill("#ban-reason", "sells tea");
  await admin.page.check("#ban-address");
  await answer(admin, "Ban");
  await seesOnStart(ana, "You are banned.");
  assert.equal(connection.attempts, 1);
  await ana.page.click("#join .primary");
  await seesOnStart(ana, "You are banned.");
  const other = await adda.open();
  await other.page.fill("#name", "Ana 2");
  await other.page.click("#join .primary");
  await seesOnStart(other, "You are banned.");
  await toast(admin, "Ana is banned.").locator(".undo").click();
  await toast(admin, "Undone.").waitFor();
  await other.page.click("#join .primary");
  await other.connected();
  await ana.join("Ana", "tea");

  await memberNamed(admin, "Ana").filter({ hasNotText: "2" }).locator(".more").click();
  await item(admin, "Ban from this server").click();
  await answer(admin, "Ban");
  await seesOnStart(ana, "You are banned.");
  await admin.page.click("#server-settings");
  const row = admin.page.locator(".window .rows li", { hasText: "Ana" });
  await row.locator("button", { hasText: "Unban" }).click();
  await admin.page.locator(".window", { hasText: "No bans." }).waitFor();
  await ana.join("Ana", "tea");
});

browserTest("an address that most people connect from is banned only after a second question", ACCOUNTS, async (adda) => {
  const ana = await adda.enter("Ana", "tea");
  for (const name of ["Rahim", "Mitali", "Karim"]) await adda.bot(name, "tea");
  const admin = await host(adda, "tea");
  const bannedUsers = async () => (await asks(admin, "GET", "api/bans")).data;
  const askTwice = async () => {
    await toMember(admin, "Ana", "Ban from this server");
    await admin.page.selectOption("#ban-duration", "3600");
    await admin.page.fill("#ban-reason", "sells tea");
    await admin.page.check("#ban-address");
    await answer(admin, /^Ban$/);
    await question(admin, "Most people here connect from this IP address. All guests among them would be banned too.").waitFor();
  };
  await askTwice();
  const second = question(admin, "Ban all guests from this IP address?");
  for (const words of ["People with an account can stay.", "for example in a school", "--trusted-proxy"]) await second.filter({ hasText: words }).waitFor();
  await second.getByRole("button", { name: "Cancel" }).click();
  await second.waitFor({ state: "detached" });
  assert.deepEqual(await bannedUsers(), []);
  assert.equal(await admin.page.inputValue("#ban-reason"), "sells tea");
  assert.equal(await admin.page.isChecked("#ban-address"), true);
  await answer(admin, /^Ban$/);
  await second.getByRole("button", { name: "Ban only Ana" }).click();
  await seesOnStart(ana, "You are banned.");
  const [only] = await bannedUsers();
  assert.deepEqual([only.address, only.reason], [undefined, "sells tea"]);
  await toast(admin, "Ana is banned.").locator(".undo").click();
  await toast(admin, "Undone.").waitFor();
  assert.equal(await admin.page.locator("dialog[open]").count(), 0);
  await ana.join("Ana", "tea");
  await memberNamed(admin, "Ana").waitFor();
  assert.equal((await admin.people()).length, 5);

  await askTwice();
  await second.getByRole("button", { name: "Ban all guests from this IP address anyway" }).click();
  await seesOnStart(ana, "You are banned.");
  await admin.until(() => document.querySelectorAll("#people .person").length === 1);
  const bans = await bannedUsers();
  assert.deepEqual(bans.map(({ address }) => address).sort(), ["127.0.0.1", undefined]);
  for (const { reason, until } of bans) assert.deepEqual([reason, Date.parse(until) < Date.now() + 3_600_001], ["sells tea", true]);
  await toast(admin, "Ana is banned.").locator(".undo").click();
  await toast(admin, "Undone.").last().waitFor();
  await admin.until(() => document.querySelectorAll(".toast .undo").length === 0);
  assert.deepEqual(await bannedUsers(), []);
  await ana.join("Ana", "tea");
  await adda.bot("Rahim", "tea");
});

browserTest("the second question of a ban works by keyboard, in Bengali on a phone, and shows errors", ACCOUNTS, async (adda) => {
  const ana = await adda.enter("Ana", "tea");
  for (const name of ["Rahim", "Mitali", "Karim"]) await adda.bot(name, "tea");
  const admin = await host(adda, "tea", { locale: "bn-BD", viewport: { width: 360, height: 740 }, hasTouch: true });
  await admin.page.tap("#people-open");
  await memberNamed(admin, "Ana").locator(".more").tap();
  await item(admin, "ব্যান করুন…").tap();
  await admin.page.locator("#ban-address").press("Space");
  await admin.page.locator("#ban-reason").press("Enter");
  const second = question(admin, "এই আইপি অ্যাড্রেসের সব অতিথিকে ব্যান করবেন?");
  await second.filter({ hasText: "তাঁরাও ব্যান হয়ে যাবেন" }).waitFor();
  // An Enter too many bans nobody: the button Cancel has the focus.
  assert.equal(await focusedText(admin), "বাতিল");
  await admin.page.keyboard.press("Enter");
  await second.waitFor({ state: "detached" });
  assert.equal(await focusedId(admin), "ban-reason");
  await admin.page.keyboard.press("Enter");
  await second.waitFor();
  await admin.page.keyboard.press("Tab");
  assert.equal(await focusedText(admin), "শুধু Ana-কে ব্যান করুন");
  await admin.page.keyboard.press("Tab");
  assert.equal(await focusedText(admin), "তবুও এই আইপি অ্যাড্রেসের সব অতিথিকে ব্যান করুন");
  assert.equal(await admin.page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), true);

  // The guest has left in the meantime.
  const bodies = [];
  await admin.page.route("**/api/users/*", (route) => {
    bodies.push(route.request().postDataJSON().banned);
    return route.fulfill({ status: 409, json: { reason: "address_unknown", code: "conflict", error: "a sentence" } });
  }, { times: 1 });
  await admin.page.keyboard.press("Enter");
  await second.locator(".error", { hasText: "এই অতিথি এখন অফলাইন" }).waitFor();
  assert.deepEqual([bodies[0].address, bodies[0].force, bodies[0].reason], [true, true, ""]);
  await admin.page.keyboard.press("Shift+Tab");
  await admin.page.keyboard.press("Enter");
  await toast(admin, "Ana-কে ব্যান করা হয়েছে।").waitFor();
  await seesOnStart(ana, "You are banned.");
  const { data } = await asks(admin, "GET", "api/bans");
  assert.deepEqual(data.map(({ address }) => address), [undefined]);
  await toast(admin, "Ana-কে ব্যান করা হয়েছে।").locator(".undo").click();
  await toast(admin, "আগের অবস্থায় ফেরানো হয়েছে।").waitFor();
  await ana.join("Ana", "tea");
});

browserTest("a rejected action shows a text", ACCOUNTS, async (adda) => {
  await adda.account("Owner", PASSWORD, "admin");
  const owner = await adda.open({ locale: "bn-BD" });
  await owner.logIn("Owner");
  await owner.join("Owner", "tea");
  const admin = await host(adda, "tea");
  await toMember(admin, "Owner", "1 hour");
  await toast(admin, "You can’t do this to an admin.").waitFor();
  await memberNamed(owner, "Host").locator(".more").click();
  await item(owner, "ব্যান করুন").click();
  await answer(owner, "ব্যান করুন");
  await owner.page.locator(".question .error", { hasText: "অ্যাডমিনের ক্ষেত্রে এটি করা যায় না।" }).waitFor();

  // The reason decides, whatever the sentence; the code if the reason is new; the sentence if both are new.
  const rejectWith = (body) => admin.page.route("**/api/users/*", (route) => route.fulfill({ status: 400, json: body }), { times: 1 });
  for (const [body, words] of [
    [{ reason: "target_is_self", code: "forbidden", error: "a sentence" }, "You can’t do this to yourself."],
    [{ reason: "no_such_user", code: "not_found", error: "a sentence" }, "This user no longer exists."],
    [{ reason: "a_word_of_tomorrow", code: "not_found", error: "a sentence" }, "This no longer exists."],
    [{ reason: "a_word_of_tomorrow", code: "a_code_of_tomorrow", error: "a sentence" }, "The server refused this: a sentence"],
  ]) {
    await rejectWith(body);
    await toMember(admin, "Owner", "1 hour");
    await toast(admin, words).waitFor();
  }

  // An account is banned without its address. For a guest who is offline the admin decides.
  const bans = [];
  await admin.page.route("**/api/users/*", (route) => {
    const { banned } = route.request().postDataJSON();
    bans.push(banned.address ?? false);
    const reason = bans.length === 1 ? "address_unknown" : "target_is_no_guest";
    if (banned.address) return route.fulfill({ status: 400, json: { reason, code: "bad_request", error: "a sentence" } });
    return route.fulfill({ json: { data: { banned } } });
  });
  await toMember(admin, "Owner", "Ban from this server");
  await admin.page.check("#ban-address");
  await answer(admin, "Ban");
  await admin.page.locator(".question .error", { hasText: "You can still ban them without it." }).waitFor();
  assert.deepEqual(bans, [true]);
  await answer(admin, "Ban");
  await toast(admin, "Owner is banned.").waitFor();
  assert.deepEqual(bans, [true, true, false]);
});

browserTest("a room's name, topic and posting rule change for all members at once, and can be undone", ACCOUNTS, async (adda) => {
  const ana = await adda.enter("Ana", "tea");
  const admin = await host(adda, "tea");
  await admin.page.click("#room-settings");
  assert.equal(await admin.page.inputValue("#set-name"), "tea");
  await admin.page.fill("#set-name", "চা-ঘর");
  await admin.page.fill("#set-topic", "<b>tea</b> and rain");
  await admin.page.check("[name=set-posting][value=admins]");
  await admin.page.click(".settings .primary");
  await seesNote(ana, "Only admins can send messages here.");
  assert.equal(await isVisible(ana, "#compose"), false);
  assert.equal(await isVisible(admin, "#compose"), true);
  for (const person of [ana, admin]) {
    assert.equal(await person.page.textContent("#room-name"), "চা-ঘর");
    assert.equal(await person.page.textContent("#topic"), "<b>tea</b> and rain");
    assert.equal(await person.page.title(), "চা-ঘর · adda");
  }
  await ana.page.reload();
  await ana.connected();
  await seesNote(ana, "Only admins can send messages here.");
  assert.equal(await ana.page.textContent("#room-name"), "চা-ঘর");
  await toast(admin, "Room settings saved.").locator(".undo").click();
  await ana.page.locator("#compose").waitFor();
  assert.equal(await ana.page.textContent("#room-name"), "tea");
  assert.equal(await isVisible(ana, "#topic"), false);
});

browserTest("a room is deleted after its name is typed, and everyone in it is told", ACCOUNTS, async (adda) => {
  const ana = await adda.enter("Ana", "Tea room");
  await ana.send("the first cup");
  const admin = await host(adda, "Tea room");
  await admin.waitForMessage("the first cup");
  const open = async () => {
    await admin.page.click("#room-settings");
    await admin.page.click(".window .secondary.danger");
  };
  await open();
  await question(admin, "Delete “Tea room”?").filter({ hasText: "all its messages and settings will be deleted" }).waitFor();
  const input = admin.page.getByLabel("To confirm, type the name of the room: Tea room");
  for (const words of ["", "Tea"]) {
    await input.fill(words);
    await answer(admin, "Delete room");
    await admin.page.locator("#delete-room-name-error", { hasText: "This doesn’t match the room’s name." }).waitFor();
    assert.equal(await input.getAttribute("aria-invalid"), "true");
    assert.equal(await focusedId(admin), "delete-room-name");
  }
  await answer(admin, "Cancel");
  await admin.page.keyboard.press("Escape");
  await ana.send("the second cup");
  await admin.waitForMessage("the second cup");

  await open();
  await input.fill(" tea  ROOM ");
  await answer(admin, "Delete room");
  for (const person of [ana, admin]) await seesOnStart(person, "An admin deleted “Tea room”.");
  assert.equal(await admin.page.locator("dialog[open]").count(), 0);
  // The first list may be from before the deletion. It is read again after some seconds.
  await admin.page.locator("#rooms li", { hasText: "Tea room" }).waitFor({ state: "detached" });
  await ana.page.click("#start [data-lang=bn]");
  await seesOnStart(ana, "একজন অ্যাডমিন “Tea room” রুমটি মুছে ফেলেছেন।");
  await ana.page.click("#join .primary");
  await ana.connected();
  await ana.page.locator("#timeline-empty").filter({ visible: true }).waitFor();
});

browserTest("a room without messages is deleted by keyboard, in Bengali on a phone", ACCOUNTS, async (adda) => {
  const ana = await adda.enter("Ana", "general", { locale: "bn-BD" });
  const admin = await host(adda, "general", { locale: "bn-BD", viewport: { width: 360, height: 740 }, hasTouch: true });
  await asks(admin, "PATCH", "api/rooms/general", { name: "র\u200D্যাম্পের আড্ডা" });
  await admin.page.locator("#room-name", { hasText: "আড্ডা" }).waitFor();
  const deleteButton = admin.page.locator(".window .secondary.danger", { hasText: "এই রুমটি মুছে ফেলুন…" });
  await admin.page.tap("#people-open");
  await admin.page.tap("#room-settings");
  await deleteButton.focus();
  await admin.page.keyboard.press("Enter");
  await question(admin, "রুমটি মুছে ফেলবেন?").waitFor();
  // An Enter too many deletes nothing: the input has the focus, and is empty.
  await admin.page.keyboard.press("Enter");
  await question(admin, "রুমের নাম মিলছে না।").waitFor();
  await admin.page.keyboard.press("Escape");
  assert.equal(await deleteButton.evaluate((button) => button === document.activeElement), true);
  await admin.page.keyboard.press("Enter");
  await question(admin, "সব মেসেজ ও সেটিংস মুছে যাবে").waitFor();
  await admin.page.keyboard.type("র্যাম্পের আড্ডা");
  assert.equal(await admin.page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), true);
  await admin.page.keyboard.press("Enter");
  for (const person of [ana, admin]) await seesOnStart(person, "একজন অ্যাডমিন “general” রুমটি মুছে ফেলেছেন।");
  assert.equal(await focusedId(admin), "room");
  await admin.page.keyboard.press("Enter");
  await admin.connected();
  assert.equal(await admin.page.textContent("#room-name"), "general");
});

browserTest("a rejected deletion of a room shows a text; a removal that is lost is made up for", ACCOUNTS, async (adda) => {
  const prepare = async (page) => {
    const connection = await interceptSockets(page);
    // The connection is lost just before the removal, so nothing after it arrives either.
    let isLost = false;
    connection.in = ({ reason }) => !(isLost ||= reason === "room_deleted");
  };
  const admin = await host(adda, "tea", { prepare });
  const other = await adda.enter("Ana", "tea");
  await admin.page.click("#room-settings");
  await admin.page.click(".window .secondary.danger");
  await admin.page.fill("#delete-room-name", "tea");
  for (const [status, json, words] of [
    [403, { reason: "not_member", code: "forbidden", error: "a sentence" }, "You are not a member of it."],
    [404, { reason: "no_such_room", code: "not_found", error: "a sentence" }, "This room doesn’t exist or is private."],
    [429, { reason: "rate_limited", code: "rate_limited", error: "a sentence" }, "You are doing this too often."],
  ]) {
    await admin.page.route("**/api/rooms/tea", (route) => route.fulfill({ status, json }), { times: 1 });
    await answer(admin, "Delete room");
    await admin.page.locator(".question form > .error", { hasText: words }).waitFor();
  }
  await answer(admin, "Delete room");
  for (const person of [other, admin]) await seesOnStart(person, "An admin deleted “tea”.");
  assert.equal(await admin.page.locator("dialog[open]").count(), 0);
});

browserTest("slow mode shows a countdown, not an error", ACCOUNTS, async (adda) => {
  const ana = await adda.enter("Ana", "tea");
  const admin = await host(adda, "tea");
  await admin.page.click("#room-settings");
  await admin.page.selectOption("#set-slow-mode", "5");
  await admin.page.click(".settings .primary");
  const slow = (words) => ana.page.locator("#slow-mode", { hasText: words }).waitFor();
  await slow("wait 5 seconds between messages");
  await ana.send("one");
  await slow(/next message in [345] seconds/);
  await ana.send("two");
  await ana.page.locator("#pending .message", { hasText: "Will be sent in a moment" }).waitFor();
  await slow(/next message in 2 seconds/);
  await admin.waitForMessage("two");
  assert.equal(await ana.page.locator("#pending .message").count(), 0);
  assert.equal(await isVisible(admin, "#slow-mode"), false);
  // A message whose wait has ended is sent at once.
  await admin.page.click("#room-settings");
  await admin.page.selectOption("#set-slow-mode", "3600");
  await admin.page.click(".settings .primary");
  await slow("59:");
  await ana.send("three");
  await ana.page.locator("#pending .message", { hasText: "Will be sent in a moment" }).waitFor();
  await toast(admin, "Room settings saved.").last().locator(".undo").click();
  await admin.page.click("#room-settings");
  await admin.page.selectOption("#set-slow-mode", "0");
  await admin.page.click(".settings .primary");
  await admin.waitForMessage("three");
});

browserTest("a private room is joined by invitation only, and removed members are told why", { ...ACCOUNTS, stopsServer: true }, async (adda) => {
  const ana = await adda.enter("Ana", "cellar");
  const admin = await host(adda, "cellar");
  await admin.page.click("#room-settings");
  await admin.page.check("[name=set-access][value=private]");
  await admin.page.click(".settings .primary");
  assert.match(await admin.page.textContent(".question"), /Everyone except you will be removed/);
  await answer(admin, "Make private");
  await seesOnStart(ana, "“cellar” is now private.");
  await admin.page.locator("#room-lock").waitFor();
  await ana.page.click("#join .primary");
  await seesOnStart(ana, "This room doesn’t exist or is private. You need an invite to join a private room.");

  await admin.page.click("#room-settings");
  await admin.page.click(".invitations > .secondary");
  const link = new URL(await admin.page.inputValue(".copy input"));
  const { invite, room } = Object.fromEntries(new URLSearchParams(link.hash.slice(1)));
  assert.deepEqual([link.pathname, link.search, room], ["/", "", "cellar"]);
  await admin.page.click(".copy .secondary");
  await admin.page.locator(".new-invitation", { hasText: "Copied." }).waitFor();
  assert.equal(await admin.page.evaluate(() => String(getSelection()) || document.activeElement.value), link.href);
  await admin.page.locator(".rows li", { hasText: "Can be used by 1 more person" }).waitFor();
  assert.match(invite, /^\w{64}$/);
  await ana.page.goto(link.href);
  await seesOnStart(ana, "You are invited to “cellar”.");
  await ana.join("Ana", "cellar");
  await ana.page.locator("#room-lock").waitFor();

  // The row of the invitation that is used up stays until the list is read again.
  const listed = admin.page.waitForResponse((answer) => answer.url().includes("/api/invitations?"));
  await admin.page.click(".invitations > .secondary");
  await listed;
  await admin.page.locator(".rows li button", { hasText: "Revoke" }).click();
  await admin.page.waitForFunction(() => document.querySelectorAll(".rows li").length === 0);
});

browserTest("who is kicked from a private room is told of the kick, in each tab", { ...ACCOUNTS, stopsServer: true }, async (adda) => {
  const admin = await host(adda, "cellar");
  await asks(admin, "PATCH", "api/rooms/cellar", { private: true });
  const { data: invitation } = await asks(admin, "POST", "api/invitations", { room: "cellar", uses: 1, days: 1 });
  const ana = await adda.open({ query: `#invite=${invitation.code}&room=cellar` });
  await ana.join("Ana", "cellar");
  const tab = await adda.tab(ana, { query: "?room=cellar" });
  await tab.join("Ana", "cellar");
  await toMember(admin, "Ana", "Kick from this room");
  await answer(admin, "Kick");
  for (const person of [ana, tab]) {
    await seesOnStart(person, "An admin kicked you from “cellar”.");
    await person.page.click("#start [data-lang=bn]");
    await seesOnStart(person, "বের করে দিয়েছেন");
  }
  await ana.page.click("#join .primary");
  await seesOnStart(ana, "রুমটি নেই অথবা এটি প্রাইভেট।");
});

browserTest("a private room is listed to an admin who is no member, who is asked before joining it", ACCOUNTS, async (adda) => {
  await adda.account("Owner", PASSWORD, "admin");
  const owner = await adda.open();
  await owner.logIn("Owner");
  await owner.join("Owner", "cellar");
  await asks(owner, "PATCH", "api/rooms/cellar", { private: true });
  await owner.send("the old recipe");
  await owner.waitForMessage("the old recipe");
  await adda.bot("Rahim", "tea");
  const listed = (person, room) => person.page.locator("#rooms li", { hasText: room });
  const guest = await adda.open();
  await listed(guest, "tea").waitFor();
  assert.equal(await listed(guest, "cellar").count(), 0, "a guest sees no private room");

  await adda.account("Host", PASSWORD, "admin");
  const admin = await adda.open();
  await admin.page.click("#join-log-in");
  await admin.page.fill("#account-name", "Host");
  await admin.page.fill("#account-password", PASSWORD);
  await admin.page.press("#account-password", "Enter");
  await listed(admin, "cellar").waitFor();
  assert.equal(await listed(admin, "cellar").getByRole("img", { name: "Private room, invite only" }).isVisible(), true);
  assert.equal(await listed(admin, "tea").locator(".lock").isVisible(), false);
  // By the list, by the form, and by the keyboard.
  const ways = [
    () => listed(admin, "cellar").locator("button").click(),
    () => admin.page.click("#join .primary"),
    () => admin.page.press("#room", "Enter"),
  ];
  for (const [i, way] of ways.entries()) {
    await way();
    const asked = question(admin, "Join the private room “cellar”?");
    await asked.filter({ hasText: "Its members will see that you joined as an admin." }).waitFor();
    if (i === 1) await admin.page.keyboard.press("Escape");
    else await answer(admin, "Cancel");
    await asked.waitFor({ state: "detached" });
    assert.equal(await isVisible(admin, "#start"), true);
  }
  await owner.send("still alone");
  await owner.waitForMessage("still alone");
  assert.deepEqual([await owner.people(), await owner.page.locator(".announcement").count()], [["Owner"], 0]);

  await admin.page.click("#start [data-lang=bn]");
  await listed(admin, "cellar").getByRole("img", { name: "প্রাইভেট রুম, শুধু আমন্ত্রিতদের জন্য" }).waitFor();
  await listed(admin, "cellar").locator("button").press("Enter");
  await question(admin, "“cellar” প্রাইভেট রুমে যোগ দেবেন?").waitFor();
  assert.equal(await focusedText(admin), "যোগ দিন");
  await admin.page.keyboard.press("Enter");
  await admin.connected();
  for (const person of [owner, admin]) {
    const announcement = person.page.locator("#timeline .announcement", { hasText: "joined this private room as an admin" });
    await announcement.locator(".username", { hasText: "Host" }).waitFor();
    await announcement.locator(".message-kind", { hasText: person === owner ? /^Announcement$/ : /^ঘোষণা$/ }).waitFor();
  }
  assert.equal(await messageWith(admin, "the old recipe").count(), 0);
  // A member is not asked again.
  await admin.page.click("#leave");
  await listed(admin, "cellar").locator("button").click();
  await admin.connected();
  assert.equal(await owner.page.locator(".announcement").count(), 1);
});

browserTest("an announcement is marked as such in every room", ACCOUNTS, async (adda) => {
  const ana = await adda.enter("Ana", "tea");
  const mitali = await adda.enter("Mitali", "cards", { locale: "bn-BD" });
  const admin = await host(adda, "tea");
  await admin.page.click("#server-settings");
  await admin.page.fill(".announce textarea", "the kitchen closes at ten");
  await admin.page.click(".announce .primary");
  await admin.page.locator(".announce", { hasText: "Announcement sent." }).waitFor();
  await admin.page.click(".close");
  for (const [person, words] of [[ana, "Announcement"], [mitali, "ঘোষণা"], [admin, "Announcement"]]) {
    const announcement = person.page.locator("#timeline .announcement", { hasText: "the kitchen closes at ten" });
    await announcement.locator(".message-kind", { hasText: words }).waitFor();
    assert.equal(await announcement.locator(".username").isVisible(), true);
    assert.equal(await announcement.locator(".username").textContent(), "Host");
  }
});

browserTest("moderation works by keyboard and by touch", ACCOUNTS, async (adda) => {
  const bot = await adda.bot("Rahim", "tea");
  bot.send("buy cheap tea");
  const admin = await host(adda, "tea", { viewport: { width: 360, height: 720 }, hasTouch: true });
  const more = messageWith(admin, "buy cheap tea").locator(".more");
  await more.focus();
  await admin.page.keyboard.press("Enter");
  await item(admin, "Delete").waitFor();
  await admin.page.keyboard.press("ArrowDown");
  assert.match(await admin.page.evaluate(() => document.activeElement.textContent), /Mute, kick or ban Rahim/);
  await admin.page.keyboard.press("Escape");
  assert.equal(await more.evaluate((button) => button === document.activeElement), true);
  await admin.page.keyboard.press("Enter");
  await admin.page.keyboard.press("Enter");
  // A second Enter does not delete: the button Cancel has the focus.
  await admin.page.locator(".question").waitFor();
  assert.equal(await admin.page.evaluate(() => document.activeElement.textContent), "Cancel");
  await admin.page.keyboard.press("Tab");
  await admin.page.keyboard.press("Enter");
  await admin.waitForMessage("Host deleted this message.");
  await admin.until(() => document.activeElement.matches(".message.deleted"));
  await admin.page.tap("#people-open");
  await memberNamed(admin, "Rahim").locator(".more").tap();
  await item(admin, "Kick from this room").tap();
  await admin.page.locator(".question .primary").tap();
  await bot.waitForFrame(({ type, user_id: id }) => type === "leave" && id === bot.frames[0].user_id);
  assert.equal(await admin.page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), true);
});
