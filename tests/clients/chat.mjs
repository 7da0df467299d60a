// Chats by Node's `ws`: chat.mjs URL CONTENT EXPECTED (with ADDA_TEST_TOOLS set)
//
// Waits until somebody says "begin", says CONTENT, reads until it has heard EXPECTED further messages (its
// own among them), prints each as "username: content", and goes.

import { createRequire } from "node:module";
import path from "node:path";

const require = createRequire(path.join(process.env.ADDA_TEST_TOOLS, "node_modules", "x"));
const WebSocket = require("ws");

const [url, content, expected] = process.argv.slice(2);
let heard = 0;

const ws = new WebSocket(url);
const timeout = setTimeout(() => {
  console.error(`only ${heard} of ${expected} messages in time`);
  process.exit(1);
}, 30_000);

ws.on("error", (error) => {
  console.error(error);
  process.exit(1);
});
ws.on("message", (data) => {
  const frame = JSON.parse(data.toString("utf8"));
  if (frame.type !== "text") return;
  if (frame.content === "begin") {
    ws.send(JSON.stringify({ type: "text", content }));
    return;
  }
  console.log(`${frame.username}: ${frame.content}`);
  heard += 1;
  if (heard === Number(expected)) {
    clearTimeout(timeout);
    ws.close(1000);
  }
});
ws.on("close", (code) => {
  if (heard < Number(expected)) {
    console.error(`closed with ${code} after ${heard} of ${expected} messages`);
    process.exit(1);
  }
});
