// A page of another origin in the user's browser: it may read public data, and change nothing.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, request } from "node:http";

import { browserTest } from "./support.mjs";

const FOREIGN = `<!DOCTYPE html><title>elsewhere</title>
<form method="post" enctype="text/plain"><input name="content" value="by a form"></form>`;

// Starts a server, calls `act` with its address, and stops it.
async function whileItListens(server, act) {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  try {
    await act(`http://127.0.0.1:${server.address().port}`);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

// Another site on this machine. Its origin has another port.
async function site(act) {
  const server = createServer((_, answer) => answer.setHeader("Content-Type", "text/html").end(FOREIGN));
  await whileItListens(server, act);
}

// Whether a WebSocket from this page to that address opens.
const openSocket = (address) =>
  new Promise((found) => {
    const socket = new WebSocket(address);
    socket.onopen = () => found("open");
    socket.onerror = () => found("error");
  });

// The status of a fetch, or that the browser blocked it.
const fetched = ([address, options]) =>
  fetch(address, options).then(
    ({ status }) => status,
    () => "blocked",
  );

browserTest("a page of another origin opens no WebSocket and writes nothing, by fetch or by form", {}, async (adda) => {
  await site(async (foreign) => {
    const bot = await adda.bot("bot", "tea");
    const socket = `${adda.base.replace("http", "ws")}/ws?room=tea&username=Eve`;
    const messages = `${adda.base}/api/rooms/tea/messages`;
    const json = { method: "POST", headers: { "Content-Type": "application/json" }, body: '{"content":"by fetch"}' };
    const text = { method: "POST", body: "by fetch" };
    const page = await adda.openForeignPage(foreign);

    assert.equal(await page.evaluate(openSocket, socket), "error");
    for (const options of [json, text, { ...json, credentials: "include" }, { ...text, referrerPolicy: "no-referrer" }]) {
      assert.equal(await page.evaluate(fetched, [messages, options]), "blocked", JSON.stringify(options));
    }
    // The browser sends this request, and only hides the response from the page. The room shows whether it had an effect.
    assert.equal(await page.evaluate(fetched, [messages, { ...text, mode: "no-cors" }]), "blocked");
    for (const enctype of ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]) {
      await page.goto(foreign);
      const send = ([action, enctype]) => Object.assign(document.forms[0], { action, enctype }).submit();
      const [answer] = await Promise.all([page.waitForResponse(messages), page.evaluate(send, [messages, enctype])]);
      assert.equal(answer.status(), 403, enctype);
      await page.waitForURL(messages);
    }
    await page.goto(foreign);
    assert.equal(await page.evaluate(fetched, [`${adda.base}/api/rooms`, {}]), 200, "what is public it may read");

    // It can't show the page in a frame, where it could direct the user's clicks.
    const frame = (address) =>
      new Promise((found) => {
        const frame = document.createElement("iframe");
        frame.onload = () => found();
        frame.src = address;
        document.body.append(frame);
      });
    await page.evaluate(frame, adda.base);
    assert.equal(await page.frames()[1].locator("#start").count(), 0);

    // The page of the server itself may do all of this. Its message is the first one in the room.
    const ana = await adda.enter("Ana", "tea");
    assert.equal(await ana.page.evaluate(openSocket, socket), "open");
    assert.equal(await ana.page.evaluate(fetched, [messages, json]), 201);
    await bot.waitForText("by fetch");
    assert.deepEqual(bot.texts, ["by fetch"]);
    // The copy in the browser's cache is validated, and works as well.
    await ana.page.reload();
    await ana.connected();
  });
});

browserTest("a page of an allowed origin may write and read the response", {}, async (adda) => {
  await site(async (friend) => {
    await adda.restart(["--origin", friend]);
    const bot = await adda.bot("bot", "tea");
    const page = await adda.openForeignPage(friend);
    const json = { method: "POST", headers: { "Content-Type": "application/json" }, body: '{"content":"hello"}' };
    assert.equal(await page.evaluate(fetched, [`${adda.base}/api/rooms/tea/messages`, json]), 201);
    assert.equal(await page.evaluate(openSocket, `${adda.base.replace("http", "ws")}/ws?room=tea`), "open");
    await bot.waitForText("hello");
  });
});

// A proxy in front of the server that changes the Host header, such as nginx with `proxy_set_header Host $host`.
async function proxy(adda, host, act) {
  const server = createServer((incoming, outgoing) => {
    const { hostname, port } = new URL(adda.base);
    const { method, url, headers } = incoming;
    const forwarded = request({ hostname, port, path: url, method, headers: { ...headers, host } }, (response) => {
      outgoing.writeHead(response.statusCode, response.headers);
      response.pipe(outgoing);
    });
    incoming.pipe(forwarded);
  });
  await whileItListens(server, act);
}

browserTest("behind a proxy that changes Host the page names its address and the setting", { expectsRejections: true }, async (adda) => {
  for (const host of ["127.0.0.1", "localhost", "chat.example:3000"]) {
    await proxy(adda, host, async (address) => {
      const page = await adda.openForeignPage(address);
      await page.fill("#name", "Ana");
      await page.click("#join .primary");
      const notice = page.locator("#start-notice");
      await notice.filter({ hasText: `The server doesn’t accept requests from ${address}.` }).waitFor();
      await notice.filter({ hasText: `--origin ${address}` }).waitFor();
      await notice.filter({ hasText: "Host" }).waitFor();
      // The server's sentence names the values that it received.
      const sentence = `the origin is ${address} and the Host is ${host}`;
      await page.route("**/api/session", (route) =>
        route.fulfill({ status: 403, json: { reason: "foreign_origin", code: "forbidden", error: sentence } }));
      await page.click("#join .primary");
      await notice.filter({ hasText: `The server says: ${sentence}` }).waitFor();
      await page.click("#start [data-lang=bn]");
      await notice.filter({ hasText: `সার্ভার ${address} থেকে` }).filter({ hasText: sentence }).waitFor();
      await page.context().close();
    });
  }
});
