// Support for the browser tests: a server for each test, a Chromium, and users who join rooms.
//
// ADDA_BIN names the server's binary; ADDA_TEST_TOOLS a directory whose node_modules has axe-core, playwright-core and
// ws.

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

import { read } from "./modules.mjs";

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
// The password of every account.
export const PASSWORD = "tea with seven cardamoms";

const { chromium } = tool("playwright-core");
const WebSocket = tool("ws");

export function tool(name) {
  const directory = process.env.ADDA_TEST_TOOLS;
  if (!directory) throw new Error("set ADDA_TEST_TOOLS to the directory whose node_modules has the tools of the tests");
  return createRequire(path.join(path.resolve(directory), "/"))(name);
}

let launched = null;

// One Chromium for each test file. Each user has a browser context.
function browser() {
  launched ??= chromium.launch({ executablePath: CHROMIUM, args: CHROMIUM_FLAGS });
  return launched;
}

after(async () => (await launched)?.close());

// A test with a server and a browser, without users. At the end everything is stopped, and no page may have reported an
// error. `stopsServer` allows errors of failed requests, and gives the server a database file, as does `hasDatabase`;
// without a file it keeps the latest messages only. `expectsRejections` allows errors of rejected requests.
export function browserTest(name, options, act) {
  test(name, { timeout: 90_000 }, async () => {
    const adda = new Adda(options);
    try {
      await adda.start();
      await act(adda);
      assert.deepEqual(adda.pageErrors, []);
    } finally {
      await adda.end();
    }
  });
}

// Intercepts the WebSockets of a page. `out` and `in` get each frame and return whether it passes. `cut` ends the
// connection like a network failure. While `closed` is set, new connections fail. While `refusal` is set, each new one
// gets it as an `error` frame and is closed with 1008, as the server does after the handshake.
export async function interceptSockets(page) {
  const connection = { out: () => true, in: () => true, closed: false, refusal: null, attempts: 0, addresses: [], cut: () => {} };
  await page.routeWebSocket(/\/ws\?/, (route) => {
    connection.attempts += 1;
    connection.addresses.push(new URL(route.url()));
    if (connection.closed) return route.close({ code: 1013 });
    if (connection.refusal) {
      route.send(JSON.stringify({ type: "error", content: "a sentence", ...connection.refusal }));
      return route.close({ code: 1008 });
    }
    const server = route.connectToServer();
    connection.cut = (code = 1011) => {
      server.close();
      return route.close({ code });
    };
    connection.deliver = (frame) => route.send(JSON.stringify(frame));
    route.onMessage((data) => connection.out(JSON.parse(data)) && server.send(data));
    server.onMessage((data) => connection.in(JSON.parse(data)) && route.send(data));
    return undefined;
  });
  return connection;
}

// Serves the modules of the page by themselves, which a release build has joined, so that a test can import one.
export function serveModules(page) {
  return page.route(/[/]js[/].*[.]js$/, (route) =>
    route.fulfill({ contentType: "text/javascript", body: read(decodeURIComponent(new URL(route.request().url()).pathname).slice(1)) }),
  );
}

export async function enterIntercepted(adda, name, room) {
  let connection;
  const person = await adda.enter(name, room, {
    prepare: async (page) => {
      connection = await interceptSockets(page);
    },
  });
  return [person, connection];
}

// Stops the clock of a page before it is loaded.
export async function stopClock(page) {
  await page.clock.install();
  await page.clock.pauseAt(Date.now() + 1_000);
}

// Joins a room. `change` gets each frame from the server and returns the frames to deliver instead, or undefined.
// With `frozen` the page's clock is stopped. `prepare` gets the page before it is loaded.
export async function enterChanged(adda, name, room, change, { frozen = false, prepare } = {}) {
  let connection;
  const person = await adda.open({
    prepare: async (page) => {
      await prepare?.(page);
      if (frozen) await stopClock(page);
      connection = await interceptSockets(page);
      connection.in = (frame) => {
        const frames = change(frame);
        if (frames === undefined) return true;
        for (const each of frames) connection.deliver(each);
        return false;
      };
    },
  });
  await person.join(name, room);
  return [person, connection];
}

class Adda {
  pageErrors = [];
  base = "";
  #flags;
  #stopsServer;
  #expectsRejections;
  #hasFile;
  #directory = null;
  #process = null;
  #contexts = [];
  #bots = [];

  constructor({ flags = [], stopsServer = false, hasDatabase = false, expectsRejections = false }) {
    this.#hasFile = stopsServer || hasDatabase;
    this.#flags = flags;
    this.#stopsServer = stopsServer;
    this.#expectsRejections = expectsRejections;
  }

  // Starts the server. After `kill` it has the same port, so that pages reconnect.
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

  // Kills the server.
  async kill() {
    const ended = once(this.#process, "exit");
    this.#process.kill("SIGKILL");
    await ended;
  }

  // Restarts the server with other flags.
  async restart(flags) {
    await this.kill();
    this.#flags = flags;
    await this.start();
  }

  // Runs a command of the operator beside the server, which needs a database file. `input` is its standard input.
  async runCommand(input, ...words) {
    const env = { PATH: process.env.PATH, ADDA_DATA: path.join(this.#directory, "adda.db") };
    const tool = spawn(process.env.ADDA_BIN, words, { env, stdio: ["pipe", "ignore", "inherit"] });
    tool.stdin.end(`${input}\n`);
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
    return this.runCommand(password, "user", "add", name, "--role", role);
  }

  // The response to an HTTP request of a program, with the session of `token`.
  async rest(method, target, { body, token } = {}) {
    const headers = { "Content-Type": "application/json" };
    if (token) headers.Authorization = `Bearer ${token}`;
    const answer = await fetch(`${this.base}${target}`, { method, headers, body: body && JSON.stringify(body) });
    return { status: answer.status, data: answer.status === 204 ? null : (await answer.json()).data };
  }

  // Logs in from another device, and returns the token.
  async logIn(username, password) {
    const { status, data } = await this.rest("POST", "/api/session", { body: { username, password } });
    assert.equal(status, 201);
    return data.token;
  }

  // A new user: a browser context with a page on the start screen.
  async open({ query = "", prepare, ...context } = {}) {
    const opened = await (await browser()).newContext({ locale: "en-US", viewport: { width: 1100, height: 700 }, ...context });
    this.#contexts.push(opened);
    opened.setDefaultTimeout(DEADLINE_MS);
    await opened.exposeFunction("reportViolation", (what) => this.pageErrors.push(`CSP: ${what}`));
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
    page.on("pageerror", (error) => this.pageErrors.push(String(error)));
    page.on("console", (message) => {
      const text = message.text();
      const lost = /WebSocket connection to .* failed|Failed to load resource/.test(text);
      const refused = /Failed to load resource: .* status of 4\d\d/.test(text);
      // The page has given the connection up itself, or is being closed.
      if (text.includes("WebSocket is closed before the connection is established")) return;
      if (["error", "warning"].includes(message.type()) && !(lost && this.#stopsServer) && !(refused && this.#expectsRejections)) this.pageErrors.push(text);
    });
    const person = new Person(page);
    await prepare?.(page);
    await page.goto(`${this.base}/${query}`);
    await page.locator("#start, #chat").filter({ visible: true }).waitFor();
    return person;
  }

  // A page of another origin, in a context of its own. Its errors are ignored.
  async openForeignPage(address) {
    const opened = await (await browser()).newContext();
    this.#contexts.push(opened);
    opened.setDefaultTimeout(DEADLINE_MS);
    const page = await opened.newPage();
    await page.goto(address);
    return page;
  }

  // A user who joins a room.
  async enter(name, room, context = {}) {
    const person = await this.open(context);
    await person.join(name, room);
    return person;
  }

  // A client without a browser, which receives all frames and can send messages.
  async bot(username, room, more = {}) {
    const bot = new Bot(`${this.base.replace("http", "ws")}/ws?${new URLSearchParams({ room, username, ...more })}`);
    this.#bots.push(bot);
    await bot.waitForFrame((frame) => frame.type === "welcome");
    return bot;
  }

  async end() {
    for (const bot of this.#bots) bot.leave();
    for (const context of this.#contexts) await context.close();
    if (this.#process?.exitCode === null && this.#process.signalCode === null) await this.kill();
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

  send(content) {
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

  // Waits for a frame that fits. Rejects if the connection fails.
  waitForFrame(fits) {
    return new Promise((found, failed) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(look);
        failed(new Error(`no such frame; received: ${JSON.stringify(this.frames.map(({ type, content }) => [type, content]))}`));
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

  waitForText(content) {
    return this.waitForFrame((frame) => frame.type === "text" && frame.content === content);
  }
}

// A user of the page: the user's actions, and what the page shows.
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

  // Logs this browser in by a request, without the form.
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

  // Connects without a wait, unless the page has just begun to by itself.
  reconnect() {
    return this.page.evaluate(() => {
      const button = document.querySelector("#reconnect");
      if (button.checkVisibility()) button.click();
    });
  }

  disconnected() {
    return this.page.waitForSelector('#status[data-state="waiting"]');
  }

  async send(text) {
    await this.page.fill("#message-input", text);
    await this.page.press("#message-input", "Enter");
  }

  // Waits until the timeline shows a stored message.
  waitForMessage(text) {
    return this.page.locator("#timeline .message", { hasText: text }).first().waitFor();
  }

  waitForLine(kind, text = "") {
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

  // Waits until `look(argument)`, evaluated in the page, is true.
  until(look, argument) {
    return this.page.waitForFunction(look, argument);
  }
}
