// Makes the README's pictures: `node tests/browser/picture.mjs` writes `page.png` and `phone.png` beside this file.

import { fileURLToPath } from "node:url";

import { browserTest } from "./support.mjs";

const DESKTOP = fileURLToPath(new URL("page.png", import.meta.url));
const PHONE = fileURLToPath(new URL("phone.png", import.meta.url));

browserTest("the README's pictures", { flags: ["--rate", "0"] }, async (adda) => {
  const friends = new Map();
  for (const name of ["নাসরিন", "রহিম"]) friends.set(name, await adda.bot(name, "চা-ঘর"));
  const ana = await adda.enter("Ana", "চা-ঘর", { viewport: { width: 960, height: 632 }, locale: "en-GB" });
  friends.set("Mitali", await adda.bot("Mitali", "চা-ঘর"));
  await ana.waitForLine("join", "Mitali");
  for (const [name, text] of [
    ["রহিম", "কেউ চা খাবেন?"],
    ["Ana", "Always! Is the shingara still warm?"],
    ["রহিম", "গরম গরম শিঙাড়া এইমাত্র এলো। বৃষ্টি নামলে সবাই বারান্দায় চলে আসুন, ওখানেই আড্ডা জমবে।"],
    ["Mitali", "On my way."],
    ["Mitali", "Keep a cup for me!"],
  ]) {
    if (name === "Ana") await ana.send(text);
    else friends.get(name).send(text);
    await ana.waitForMessage(text);
  }
  friends.get("নাসরিন").typing();
  await ana.page.locator("#typing.shown").waitFor();
  await ana.page.screenshot({ path: DESKTOP });

  const phone = await adda.enter("Karim", "চা-ঘর", { viewport: { width: 360, height: 632 }, locale: "en-GB" });
  await phone.waitForMessage("Keep a cup for me!");
  friends.get("নাসরিন").typing();
  await phone.page.locator("#typing.shown").waitFor();
  await phone.page.screenshot({ path: PHONE });
});
