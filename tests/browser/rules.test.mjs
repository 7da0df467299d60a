// Rules for the code of the page that a program can check. Each checker is first tested with a violation that it must find.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import test from "node:test";

import { REPOSITORY, filesOf, importModule, read } from "./modules.mjs";

// The folders from which the modules of a folder may import, besides their own folder. `main.js` may import all.
const IMPORTS = new Map([
  ["core", []],
  ["net", ["core"]],
  ["ui", ["core"]],
  ["room", ["core", "net", "ui"]],
  ["start", ["core", "net", "ui"]],
  ["admin", ["core", "net", "ui"]],
]);
const ENTRY = "main.js";

// Names that the modules of a folder must not use. `core` computes only; `net` does not touch the document.
const DOM = /\b(?:document|querySelector\w*|getElementById|HTML\w*Element|SVG\w*Element|(?:Resize|Mutation)Observer|Node|matchMedia|requestAnimationFrame)\b/;
const BROWSER = /\b(?:window|globalThis|location|history|navigator|fetch|WebSocket|localStorage|sessionStorage|BroadcastChannel|setTimeout|setInterval)\b/;
const FORBIDDEN_IN_FOLDER = [
  ["core", DOM, "no DOM"],
  ["core", BROWSER, "no network, no storage, no timer"],
  ["net", DOM, "no DOM"],
];

const FORBIDDEN = [
  [/\b(?:innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|setHTMLUnsafe)\b/, "text only by textContent"],
  [/\beval\b|new Function\b|setAttribute\(\s*"(?:style|on\w+)"/, "no code or styles from strings"],
  [/randomUUID|navigator\.(?:serviceWorker|clipboard)|\bNotification\b/, "it must work on http:// on a LAN"],
  [/https?:\/\/(?!www\.w3\.org\/2000\/svg)/, "nothing from elsewhere"],
];

// Names that only one module may use.
const KEPT_TO = [
  [/\bfetch\(|\bXMLHttpRequest\b|\bEventSource\b|\bsendBeacon\b/, "net/requests.js"],
  [/\bnew WebSocket\b/, "net/socket.js"],
  [/\b(?:localStorage|sessionStorage)\b/, "net/storage.js"],
];

const CODES_MODULE = "core/codes.js";

// The modules by their path below `js/`, each with its code: the text without whole-line comments, which may name what
// they warn of.
const modules = new Map(filesOf(".js").map((file) => [path.relative("js", file), codeOf(read(file))]));

function codeOf(text) {
  return text.replace(/^\s*\/\/.*$/gm, "");
}

function folderOf(file) {
  return path.dirname(file);
}

function importsOf(file, code) {
  return [...code.matchAll(/^(?:import|export) [^"]*from "([^"]+)";/gm)].map(([, target]) => path.join(folderOf(file), target));
}

// The imports that the table does not allow, and those that form a circle.
function importViolations(sources) {
  const violations = [];
  const imports = new Map([...sources].map(([file, code]) => [file, importsOf(file, code)]));
  for (const [file, targets] of imports) {
    const folder = folderOf(file);
    if (file !== ENTRY && !IMPORTS.has(folder)) violations.push(`${file} is in no folder of the table`);
    for (const target of targets) {
      const isAllowed = file === ENTRY || [folder, ...(IMPORTS.get(folder) ?? [])].includes(folderOf(target));
      if (!sources.has(target)) violations.push(`${file} imports ${target}, which does not exist`);
      else if (!isAllowed) violations.push(`${file} imports ${target}`);
    }
  }
  const done = new Set();
  const visit = (file, route) => {
    if (route.includes(file)) violations.push(`circle: ${[...route.slice(route.indexOf(file)), file].join(" → ")}`);
    else if (!done.has(file)) for (const target of imports.get(file) ?? []) visit(target, [...route, file]);
    done.add(file);
  };
  for (const file of imports.keys()) visit(file, []);
  return violations;
}

function nameViolations(sources) {
  const violations = [];
  for (const [file, code] of sources) {
    const found = (pattern, reason) => pattern.test(code) && violations.push(`${file}: ${code.match(pattern)[0]}: ${reason}`);
    for (const [pattern, reason] of FORBIDDEN) found(pattern, reason);
    for (const [folder, pattern, reason] of FORBIDDEN_IN_FOLDER) if (folderOf(file) === folder) found(pattern, reason);
    for (const [pattern, owner] of KEPT_TO) if (file !== owner) found(pattern, `only ${owner}`);
  }
  return violations;
}

// The words of rejections, and close codes, that stand as literals outside of the module of codes.
async function codeViolations(sources) {
  const { REASONS, CODES, PAGE_REASONS, CloseCode } = await importModule(CODES_MODULE);
  const words = new Set([...REASONS, ...CODES, ...PAGE_REASONS]);
  const numbers = new Set(Object.values(CloseCode).map(String));
  // Problems that a form finds itself are no rejections.
  const withoutProblems = (code) => code.replace(/\bproblem: "\w+"/g, "");
  return [...sources]
    .filter(([file]) => file !== CODES_MODULE)
    .flatMap(([file, code]) => {
      const literals = [...withoutProblems(code).matchAll(/"(\w+)"/g)].map(([, word]) => word).filter((word) => words.has(word));
      const closeCodes = [...code.matchAll(/code\w* (?:===|!==) (\d{4})\b|\bclose\((\d{4})\)|\bCLOSE_\w+ = (\d{4})\b/gi)]
        .map((match) => match.slice(1).find(Boolean))
        .filter((number) => numbers.has(number));
      return [...literals, ...closeCodes].map((literal) => `${file}: ${literal}`);
    });
}

function styleViolations(html) {
  const linked = [...html.matchAll(/<link rel="stylesheet" href="css\/([^"]+)">/g)].map(([, file]) => file);
  const present = filesOf(".css").filter((file) => folderOf(file) === "css").map((file) => path.basename(file));
  return present.filter((file) => !linked.includes(file)).concat(linked.filter((file) => !present.includes(file)));
}

test("the checkers find planted violations", async () => {
  const planted = (file, code) => new Map([...modules, [file, code]]);
  const imports = (file, code) => importViolations(planted(file, code)).join("\n");
  assert.match(imports("core/x.js", 'import { request } from "../net/requests.js";'), /core\/x\.js imports net\/requests\.js/);
  assert.match(imports("net/x.js", 'import { make } from "../ui/elements.js";'), /net\/x\.js imports ui\/elements\.js/);
  assert.match(imports("room/x.js", 'import { Moderation } from "../admin/moderation.js";'), /room\/x\.js imports admin/);
  assert.match(imports("start/x.js", 'import {\n  Room,\n} from "../room/room.js";'), /start\/x\.js imports room/);
  assert.match(imports("other/x.js", ""), /in no folder/);
  assert.match(imports("core/x.js", 'import { y } from "./y.js";'), /does not exist/);
  const circle = new Map([["core/x.js", 'import { y } from "./y.js";'], ["core/y.js", 'import { x } from "./x.js";']]);
  assert.match(importViolations(circle).join("\n"), /circle: core\/x\.js → core\/y\.js → core\/x\.js/);

  const names = (file, code) => nameViolations(planted(file, code)).join("\n");
  assert.match(names("net/x.js", "document.title"), /no DOM/);
  assert.match(names("net/x.js", "x instanceof HTMLElement"), /no DOM/);
  assert.match(names("core/x.js", "window.document"), /no DOM/);
  assert.match(names("core/x.js", "setTimeout(x)"), /no timer/);
  assert.match(names("room/x.js", 'await fetch("api/rooms")'), /only net\/requests\.js/);
  assert.match(names("room/x.js", "new WebSocket(url)"), /only net\/socket\.js/);
  assert.match(names("ui/x.js", "localStorage.getItem"), /only net\/storage\.js/);
  assert.match(names("ui/x.js", "element.innerHTML = text"), /textContent/);
  assert.equal(codeOf("  // document\nx"), "\nx");

  const codes = async (code) => (await codeViolations(planted("room/x.js", code))).join("\n");
  assert.match(await codes('if (reason === "banned") leave();'), /room\/x\.js: banned/);
  assert.match(await codes('if (code === "rate_limited") wait();'), /rate_limited/);
  assert.match(await codes("if (closeCode === 1008) stop();"), /1008/);
  assert.deepEqual(styleViolations(read("index.html").replace("css/base.css", "css/none.css")), ["base.css", "none.css"]);
});

test("each folder of the page imports only what the table allows", () => {
  assert.ok(modules.size > 30);
  assert.deepEqual([...new Set([...modules.keys()].map(folderOf))].sort(), [".", ...IMPORTS.keys()].sort());
  assert.deepEqual(importViolations(modules), []);
});

test("no module uses a name that it must not use", () => {
  assert.deepEqual(nameViolations(modules), []);
  for (const file of filesOf(".html", ".css", ".svg", ".json")) {
    for (const [pattern, reason] of FORBIDDEN) assert.doesNotMatch(read(file), pattern, `${file}: ${reason}`);
  }
});

test("the words of rejections and the close codes are in one module", async () => {
  assert.deepEqual(await codeViolations(modules), []);
});

test("the HTML fits a Content-Security-Policy of default-src 'self'", () => {
  const html = read("index.html");
  assert.doesNotMatch(html, /\sstyle=|<style|\son\w+=|javascript:|data:/i);
  for (const [script] of html.matchAll(/<script[^]*?<\/script>/g)) assert.match(script, /^<script type="module" src="[^"]+"><\/script>$/);
});

test("every module is preloaded, and every style sheet is linked", () => {
  const html = read("index.html");
  const preloaded = [...html.matchAll(/modulepreload" href="js\/([^"]+)"/g)].map(([, file]) => file);
  assert.deepEqual(preloaded.sort(), [...modules.keys()].sort());
  assert.deepEqual(styleViolations(html), []);
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
  const { REASONS, CODES, PAGE_REASONS } = await importModule(CODES_MODULE);
  for (const word of REASONS) assert.ok(reasons.has(word), word);
  for (const word of CODES) assert.ok(codes.has(word), word);
  for (const word of PAGE_REASONS) assert.ok(!reasons.has(word) && !codes.has(word), word);
});

test("the page decides by words, never by the server's sentences", () => {
  const table = readFileSync(path.join(REPOSITORY, "src/model/reason.rs"), "utf8");
  const sentences = [...table.matchAll(/^ {4}[A-Z]\w+ "\w+" [A-Z]\w+ \d{3}\s+"([^"]+)";/gm)].map(([, sentence]) => sentence);
  assert.ok(sentences.length > 50);
  for (const [file, code] of modules) {
    for (const sentence of sentences) assert.ok(!code.includes(`"${sentence}"`), `${file}: ${sentence}`);
  }
});
