// The modules of the page, for tests without a browser.

import { readFileSync, readdirSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

export const REPOSITORY = fileURLToPath(new URL("../../", import.meta.url));
export const STATIC = path.join(REPOSITORY, "static");

// The paths below `static/` of the files with one of these extensions.
export function filesOf(...extensions) {
  return readdirSync(STATIC, { recursive: true }).filter((file) => extensions.includes(path.extname(file))).sort();
}

export function read(file) {
  return readFileSync(path.join(STATIC, file), "utf8");
}

// Imports a module by its path below `static/js/`. Node takes a file of this name as CommonJS, so the module, and each
// module that it imports, becomes a `data:` URL.
export function importModule(file) {
  return import(dataUrl(file));
}

const urls = new Map();

function dataUrl(file) {
  if (!urls.has(file)) {
    const source = read(path.join("js", file)).replace(
      /^(import [^"]*from )"([^"]+)";/gm,
      (_, begin, imported) => `${begin}"${dataUrl(path.join(path.dirname(file), imported))}";`,
    );
    urls.set(file, `data:text/javascript;base64,${Buffer.from(source).toString("base64")}`);
  }
  return urls.get(file);
}
