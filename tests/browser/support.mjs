// What the browser tests stand on: a server of their own, a Chromium, and people who enter rooms.
//
// ADDA_BIN names the server's binary; ADDA_TEST_TOOLS a directory whose node_modules has playwright-core and ws.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import test, { after } from "node:test";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const CHROMIUM_FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-background-networking",
  "--no-first-run",
  "--disable-component-update",
  "--disable-sync",
];
const DEADLINE_MS = 20_000;
// Of every account that the tests make.
export const PASSWORD = "tea with seven cardamoms";

const { chromium } = tool("playwright-core");
const WebSocket = tool("ws");

function tool(name) {
  const directory = process.env.ADDA_TEST_TOOLS;
  if (!directory) throw new Error("set ADDA_TEST_TOOLS to the directory that holds node_modules with playwright-core and ws");
  return createRequire(path.join(path.resolve(directory), "/"))(name);
}

let launched = null;

// One Chromium for each test file; each person in it has a context of their own.
function browser() {
  launched ??= chromium.launch({ executablePath: CHROMIUM, args: CHROMIUM_FLAGS });
  return launched;
}

after(async () => (await launched)?.close());

// A test with a server, a browser and nobody there yet. When it is over everything it started is ended, and nothing
// may have gone wrong in any page. `losesServer` lets the browser complain of what it could not get, and gives the
// server a file for what it must remember, as does `keepsMuch`: without one it keeps the latest messages only.
// `refuses` lets the browser complain of a request that the server refuses, as it does of any.
export function scene(name, options, act) {
  test(name, { timeout: 90_000 }, async () => {
    const adda = new Adda(options);
    try {
      await adda.start();
      await act(adda);
      assert.deepEqual(adda.complaints, []);
    } finally {
      await adda.end();
    }
  });
}

// Stands between a page and the server. `out` and `in` see each frame and say whether it may pass; `cut` ends the
// connection as a network would; while `closed` no new one is let through. While there is a `refusal`, each new one
// gets it as an `error` frame and is closed with 1008, as the server does once the handshake is over.
export async function wire(page) {
  const between = { out: () => true, in: () => true, closed: false, refusal: null, attempts: 0, addresses: [], cut: () => {} };
  await page.routeWebSocket(/\/ws\?/, (route) => {
    between.attempts += 1;
    between.addresses.push(new URL(route.url()));
    if (between.closed) return route.close({ code: 1013 });
    if (between.refusal) {
      route.send(JSON.stringify({ type: "error", content: "a sentence", ...between.refusal }));
      return route.close({ code: 1008 });
    }
    const server = route.connectToServer();
    between.cut = (code = 1011) => {
      server.close();
      return route.close({ code });
    };
    between.tell = (frame) => route.send(JSON.stringify(frame));
    route.onMessage((data) => between.out(JSON.parse(data)) && server.send(data));
    server.onMessage((data) => between.in(JSON.parse(data)) && route.send(data));
    return undefined;
  });
  return between;
}

export async function enterWired(adda, name, room) {
  let between;
  const person = await adda.enter(name, room, {
    prepare: async (page) => {
      between = await wire(page);
    },
  });
  return [person, between];
}

// Joins a room. `change` gets each frame from the server and returns the frames to deliver instead, or undefined.
// With `frozen` the page's clock stands.
export async function enterChanged(adda, name, room, change, { frozen = false } = {}) {
  let between;
  const person = await adda.open({
    prepare: async (page) => {
      if (frozen) {
        await page.clock.install();
        await page.clock.pauseAt(Date.now() + 1_000);
      }
      between = await wire(page);
      between.in = (frame) => {
        const frames = change(frame);
        if (frames === undefined) return true;
        for (const each of frames) between.tell(each);
        return false;
      };
    },
  });
  await person.join(name, room);
  return [person, between];
}

class Adda {
  complaints = [];
  base = "";
  #flags;
  #losesServer;
  #refuses;
  #hasFile;
  #directory = null;
  #process = null;
  #contexts = [];
  #bots = [];

  constructor({ flags = [], losesServer = false, keepsMuch = false, refuses = false }) {
    this.#hasFile = losesServer || keepsMuch;
    this.#flags = flags;
    this.#losesServer = losesServer;
    this.#refuses = refuses;
  }

  // Starts the server; after a loss on the port that it had before, so that pages find it again.
  async start() {
    const bin = process.env.ADDA_BIN;
    if (!bin || !existsSync(bin)) throw new Error(`set ADDA_BIN to the server's binary (it is ${bin ?? "not set"})`);
    const listen = this.base ? new URL(this.base).host : "127.0.0.1:0";
    if (this.#hasFile) this.#directory ??= await mkdtemp(path.join(tmpdir(), "adda-browser-"));
    const env = { PATH: process.env.PATH, ADDA_DATA: this.#data };
    this.#process = spawn(bin, ["--listen", listen, ...this.#flags], { env, stdio: ["ignore", "pipe", "pipe"] });
    let log = "";
    this.#process.stderr.on("data", (data) => (log += data));
    this.base = await new Promise((found, failed) => {
      let out = "";
      this.#process.stdout.on("data", (data) => {
        out += data;
        const line = out.match(/^listening on (http:\/\/\S+)\n/m);
        if (line) found(line[1]);
      });
      this.#process.once("error", failed);
      this.#process.once("exit", (code) => failed(new Error(`the server ended (${code}) before it listened: ${log}`)));
      setTimeout(() => failed(new Error(`the server does not listen: ${log}`)), DEADLINE_MS).unref();
    });
  }

  get #data() {
    return this.#directory ? path.join(this.#directory, "adda.db") : ":memory:";
  }

  // As a power cut would.
  async lose() {
    const ended = once(this.#process, "exit");
    this.#process.kill("SIGKILL");
    await ended;
  }

  // The server anew, with other flags.
  async restart(flags) {
    await this.lose();
    this.#flags = flags;
    await this.start();
  }

  // A tool of the operator's, beside the server; it needs one that has a file. `said` goes to its standard input.
  async operator(said, ...words) {
    const env = { PATH: process.env.PATH, ADDA_DATA: path.join(this.#directory, "adda.db") };
    const tool = spawn(process.env.ADDA_BIN, words, { env, stdio: ["pipe", "ignore", "inherit"] });
    tool.stdin.end(`${said}\n`);
    const [code] = await once(tool, "exit");
    assert.equal(code, 0, words.join(" "));
  }

  // Makes a setup link through the control socket; returns its code. The server needs a file.
  async offerSetup() {
    const code = randomBytes(32).toString("hex");
    const code_hash = [...createHash("sha256").update(code).digest()];
    const socket = connect(`${this.#data}.control`);
    socket.end(`${JSON.stringify({ version: 1, request: { OfferSetup: { code_hash, span_ms: 3_600_000 } } })}\n`);
    let answer = "";
    for await (const part of socket) answer += part;
    assert.ok(JSON.parse(answer).answer, answer);
    return code;
  }

  account(name, password, role = "user") {
    return this.operator(password, "user", "add", name, "--role", role);
  }

  // What REST answers to a program; `token` says who asks.
  async rest(method, target, { body, token } = {}) {
    const headers = { "Content-Type": "application/json" };
    if (token) headers.Authorization = `Bearer ${token}`;
    const answer = await fetch(`${this.base}${target}`, { method, headers, body: body && JSON.stringify(body) });
    return { status: answer.status, data: answer.status === 204 ? null : (await answer.json()).data };
  }

  // A login from elsewhere: its token.
  async logIn(username, password) {
    const { status, data } = await this.rest("POST", "/api/session", { body: { username, password } });
    assert.equal(status, 201);
    return data.token;
  }

  // A browser context with a page at the door.
  async open({ query = "", prepare, ...context } = {}) {
    const opened = await (await browser()).newContext({ locale: "en-US", viewport: { width: 1100, height: 700 }, ...context });
    this.#contexts.push(opened);
    opened.setDefaultTimeout(DEADLINE_MS);
    await opened.exposeFunction("reportViolation", (what) => this.complaints.push(`CSP: ${what}`));
    await opened.addInitScript(() => {
      document.addEventListener("securitypolicyviolation", (e) => window.reportViolation(`${e.violatedDirective} ${e.blockedURI}`));
    });
    return this.#page(opened, query, prepare);
  }

  // Another tab of the same browser.
  async tab(person, { query = "", prepare } = {}) {
    return this.#page(person.page.context(), query, prepare);
  }

  async #page(context, query, prepare) {
    const page = await context.newPage();
    page.on("pageerror", (error) => this.complaints.push(String(error)));
    page.on("console", (message) => {
      const text = message.text();
      const lost = /WebSocket connection to .* failed|Failed to load resource/.test(text);
      const refused = /Failed to load resource: .* status of 4\d\d/.test(text);
      if (["error", "warning"].includes(message.type()) && !(lost && this.#losesServer) && !(refused && this.#refuses)) this.complaints.push(text);
    });
    const person = new Person(page);
    await prepare?.(page);
    await page.goto(`${this.base}/${query}`);
    await page.locator("#start, #chat").filter({ visible: true }).waitFor();
    return person;
  }

  // A page of somebody else's, in a browser of its own; what goes wrong there is none of ours.
  async elsewhere(address) {
    const opened = await (await browser()).newContext();
    this.#contexts.push(opened);
    opened.setDefaultTimeout(DEADLINE_MS);
    const page = await opened.newPage();
    await page.goto(address);
    return page;
  }

  // Somebody who goes into a room.
  async enter(name, room, context = {}) {
    const person = await this.open(context);
    await person.join(name, room);
    return person;
  }

  // Somebody without a browser, who hears everything and can talk.
  async bot(username, room, more = {}) {
    const bot = new Bot(`${this.base.replace("http", "ws")}/ws?${new URLSearchParams({ room, username, ...more })}`);
    this.#bots.push(bot);
    await bot.heard((frame) => frame.type === "welcome");
    return bot;
  }

  async end() {
    for (const bot of this.#bots) bot.leave();
    for (const context of this.#contexts) await context.close();
    if (this.#process?.exitCode === null && this.#process.signalCode === null) await this.lose();
    if (this.#directory) await rm(this.#directory, { recursive: true });
  }
}

class Bot {
  frames = [];
  #socket;
  #refused = null;
  #waiting = new Set();

  constructor(address) {
    this.#socket = new WebSocket(address);
    this.#socket.on("error", (error) => {
      this.#refused = error;
      for (const look of this.#waiting) look();
    });
    this.#socket.on("message", (data) => {
      this.frames.push(JSON.parse(data));
      for (const look of this.#waiting) look();
    });
  }

  say(content) {
    this.#socket.send(JSON.stringify({ type: "text", content }));
  }

  typing() {
    this.#socket.send(JSON.stringify({ type: "typing" }));
  }

  leave() {
    this.#socket.terminate();
  }

  // The contents of all messages so far.
  get texts() {
    return this.frames.filter(({ type }) => type === "text").map(({ content }) => content);
  }

  // Waits for a frame that fits; fails with the connection.
  heard(fits) {
    return new Promise((found, failed) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(look);
        failed(new Error(`not heard; heard was ${JSON.stringify(this.frames.map(({ type, content }) => [type, content]))}`));
      }, DEADLINE_MS);
      const look = () => {
        const frame = this.frames.find(fits);
        if (!frame && !this.#refused) return;
        clearTimeout(timer);
        this.#waiting.delete(look);
        if (frame) found(frame);
        else failed(this.#refused);
      };
      this.#waiting.add(look);
      look();
    });
  }

  heardText(content) {
    return this.heard((frame) => frame.type === "text" && frame.content === content);
  }
}

// A person at a page, with the words that the tests use for what they do and see.
class Person {
  constructor(page) {
    this.page = page;
  }

  async join(name, room) {
    await this.page.fill("#name", name);
    await this.page.fill("#room", room);
    await this.page.click("#join .primary");
    await this.connected();
  }

  // Logs this browser in, by the page's own cookie jar.
  async logIn(username) {
    const status = await this.page.evaluate(async (login) => {
      const headers = { "Content-Type": "application/json" };
      return (await fetch("api/session", { method: "POST", headers, body: JSON.stringify(login) })).status;
    }, { username, password: PASSWORD });
    assert.equal(status, 201);
    await this.page.reload();
    await this.page.locator("#start, #chat").filter({ visible: true }).waitFor();
  }

  connected() {
    return this.page.waitForSelector('#chat:not([hidden]) #status[data-state="online"]');
  }

  disconnected() {
    return this.page.waitForSelector('#status[data-state="waiting"]');
  }

  async say(text) {
    await this.page.fill("#message-input", text);
    await this.page.press("#message-input", "Enter");
  }

  // Waits until a message stands among the stored ones.
  sees(text) {
    return this.page.locator("#timeline .message", { hasText: text }).first().waitFor();
  }

  seesLine(kind, text = "") {
    return this.page.locator(`#timeline .line.${kind}`, { hasText: text }).first().waitFor();
  }

  messages() {
    return this.page.locator("#timeline .message .content").allTextContents();
  }

  pending() {
    return this.page.locator("#pending .message .content").allTextContents();
  }

  people() {
    return this.page.locator("#people .person .username").allTextContents();
  }

  // Waits until what `look` gives (run in the page, with `argument`) is so.
  until(look, argument) {
    return this.page.waitForFunction(look, argument);
  }
}
