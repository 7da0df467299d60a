// Rules of the house that a reader could break without noticing.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import path from "node:path";
import test from "node:test";

import { REPOSITORY, STATIC, importPure } from "./support.mjs";

// A module imports only from lower layers.
const LAYERS = [
  ["core/codes.js", "core/durations.js", "core/lang.js", "core/marks.js", "core/names.js", "core/passwords.js", "net/socket.js", "net/storage.js", "net/unsent.js", "ui/elements.js", "ui/field.js"],
  ["net/requests.js"],
  ["core/error-text.js", "net/history.js"],
  ["net/outbox.js", "net/session.js", "room/composer.js", "room/past.js", "room/people.js", "room/typing.js", "start/invitation-link.js", "start/join-form.js", "start/room-list.js"],
  ["admin/invitations.js", "room/restrictions.js", "ui/dialog.js", "ui/toasts.js"],
  ["admin/moderation.js", "admin/room-settings.js", "admin/server-settings.js"],
  ["room/room.js", "room/search.js", "room/timeline.js", "ui/account-form.js"],
  ["room/profile.js", "start/start-screen.js"],
  ["main.js"],
];
const FORBIDDEN = [
  [/\b(?:innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|setHTMLUnsafe)\b/, "text only by textContent"],
  [/\beval\b|new Function\b|setAttribute\(\s*"(?:style|on\w+)"/, "no code or styles from strings"],
  [/randomUUID|navigator\.(?:serviceWorker|clipboard)|\bNotification\b/, "it must work on http:// on a LAN"],
  [/https?:\/\/(?!www\.w3\.org\/2000\/svg)/, "nothing from elsewhere"],
];

const files = readdirSync(STATIC, { recursive: true }).filter((file) => /\.(?:js|html|css|svg|json)$/.test(file));
const read = (file) => readFileSync(path.join(STATIC, file), "utf8");

test("nothing in the page's code is of the forbidden kind", () => {
  assert.ok(files.length > 15);
  for (const file of files) {
    // A comment may name what it warns of.
    const code = read(file).replace(/^\s*\/\/.*$/gm, "");
    for (const [pattern, reason] of FORBIDDEN) assert.doesNotMatch(code, pattern, `${file}: ${reason}`);
  }
});

test("the HTML fits a Content-Security-Policy of default-src 'self'", () => {
  const html = read("index.html");
  assert.doesNotMatch(html, /\sstyle=|<style|\son\w+=|javascript:|data:/i);
  for (const [script] of html.matchAll(/<script[^]*?<\/script>/g)) assert.match(script, /^<script type="module" src="[^"]+"><\/script>$/);
});

test("every module stands in its layer and is fetched ahead", () => {
  const modules = files.filter((file) => file.endsWith(".js")).map((file) => path.relative("js", file)).sort();
  assert.deepEqual(LAYERS.flat().sort(), modules);
  const ahead = [...read("index.html").matchAll(/modulepreload" href="js\/([^"]+)"/g)].map(([, file]) => file);
  assert.deepEqual(ahead.sort(), modules);
  for (const [layer, own] of LAYERS.entries()) {
    const lower = LAYERS.slice(0, layer).flat();
    for (const file of own) {
      for (const [, imported] of read(path.join("js", file)).matchAll(/^import .* from "([^"]+)";/gm)) {
        assert.ok(lower.includes(path.join(path.dirname(file), imported)), `${file} imports ${imported}, which is not below it`);
      }
    }
  }
});

test("all switches of languages are alike", () => {
  const switches = read("index.html").match(/<div class="lang-switch"[^]*?<\/div>/g).map((html) => html.replace(/\s+/g, " "));
  assert.equal(switches.length, 3);
  assert.equal(new Set(switches).size, 1);
});

test("each reason and code that the page knows is one of the server's", async () => {
  const table = readFileSync(path.join(REPOSITORY, "src/model/reason.rs"), "utf8");
  const reasons = new Set([...table.matchAll(/^ {4}[A-Z]\w+ "(\w+)" [A-Z]\w+ \d{3}\s/gm)].map(([, word]) => word));
  const codes = new Set([...table.matchAll(/Self::[A-Z]\w+ => "(\w+)"/g)].map(([, word]) => word));
  assert.ok(reasons.size > 50 && codes.size > 10);
  const { REASONS, CODES, PAGE_REASONS } = await importPure("core/codes.js");
  for (const word of REASONS) assert.ok(reasons.has(word), word);
  for (const word of CODES) assert.ok(codes.has(word), word);
  for (const word of PAGE_REASONS) assert.ok(!reasons.has(word) && !codes.has(word), word);
});

test("the page decides by words, never by the server's sentences", () => {
  const table = readFileSync(path.join(REPOSITORY, "src/model/reason.rs"), "utf8");
  const sentences = [...table.matchAll(/^ {4}[A-Z]\w+ "\w+" [A-Z]\w+ \d{3}\s+"([^"]+)";/gm)].map(([, sentence]) => sentence);
  assert.ok(sentences.length > 50);
  for (const file of files.filter((file) => file.endsWith(".js"))) {
    for (const sentence of sentences) assert.ok(!read(file).includes(`"${sentence}"`), `${file}: ${sentence}`);
  }
});
