// What opens over the page: a small menu at a button, a question that waits for an answer, a window with more in it.
// Each is made when it is opened, in the language of that moment, and gone when it is closed.

import { button, make } from "./elements.js";

// Where a menu opens at its button; elsewhere it comes from below. As in `app.css`.
const WIDE = "(min-width: 48rem)";
const GAP_PX = 4;

// A menu of `items`: `{ words, run, danger }`, or `{ label, choices }` for several that stand in one row.
export function openMenu(lang, { anchor, title, items }) {
  const dialog = opened("menu", title);
  const close = (run) => () => {
    dialog.close();
    return run();
  };
  const item = ({ words, run, danger }) => button(words, danger ? "item danger" : "item", close(run));
  const list = items.map((one) =>
    one.choices === undefined
      ? item(one)
      : make("div", { className: "choices-of", role: "group", "aria-label": one.label },
          make("span", { className: "label" }, one.label), ...one.choices.map(item)),
  );
  dialog.append(
    make("p", { className: "menu-title", dir: "auto" }, title),
    ...list,
    button(lang.t("dialog.cancel"), "item cancel", () => dialog.close()),
  );
  dialog.addEventListener("click", ({ target }) => target === dialog && dialog.close());
  dialog.addEventListener("keydown", (event) => walk(dialog, event));
  show(dialog);
  if (matchMedia(WIDE).matches) placeAt(dialog, anchor);
  dialog.querySelector(".item").focus();
}

// Asks; `act` does what was agreed to, while the question stands, and what it fails with is said in the question.
// Gives whether it was done.
export function askFirst(lang, { title, says = [], yes, danger = false, act, whyNot }) {
  return new Promise((answered) => {
    const dialog = opened("ask", title);
    const wrong = make("p", { className: "wrong", role: "alert" });
    let done = false;
    const form = make("form", { method: "dialog", noValidate: true },
      make("h2", { dir: "auto" }, title),
      ...says,
      wrong,
      make("div", { className: "answers" },
        button(lang.t("dialog.cancel"), "soft", () => dialog.close()),
        make("button", { className: danger ? "primary danger" : "primary" }, yes)),
    );
    onSubmit(form, wrong, whyNot, async () => {
      await act();
      done = true;
      dialog.close();
    });
    dialog.append(form);
    dialog.addEventListener("close", () => answered(done));
    show(dialog);
    // What can't be undone is not agreed to by an Enter too many.
    (form.querySelector("input, select, textarea") ?? form.querySelector(danger ? ".soft" : ".primary")).focus();
  });
}

// Does `act` when a form is sent, once at a time; what it fails with is said in `wrong`, in the words of `whyNot`.
export function onSubmit(form, wrong, whyNot, act) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (form.ariaBusy === "true") return;
    form.ariaBusy = "true";
    wrong.textContent = "";
    try {
      await act();
    } catch (error) {
      wrong.textContent = whyNot(error);
    } finally {
      form.ariaBusy = null;
    }
  });
}

// A window with a title, a cross that closes it, and what `content` is.
export function openWindow(lang, title, ...content) {
  const dialog = opened("window", title);
  const cross = button("×", "icon cross", () => dialog.close());
  cross.title = lang.t("dialog.close");
  cross.setAttribute("aria-label", cross.title);
  dialog.append(make("header", {}, make("h2", { dir: "auto" }, title), cross), ...content);
  show(dialog);
  return dialog;
}

function opened(className, title) {
  const dialog = make("dialog", { className: `over ${className}`, "aria-label": title });
  // What is pressed here is not the page's.
  dialog.addEventListener("keydown", (event) => event.stopPropagation());
  dialog.addEventListener("close", () => dialog.remove());
  return dialog;
}

function show(dialog) {
  document.body.append(dialog);
  dialog.showModal();
}

function placeAt(dialog, anchor) {
  const at = anchor.getBoundingClientRect();
  const { width, height } = dialog.getBoundingClientRect();
  const { clientWidth, clientHeight } = document.documentElement;
  const below = at.bottom + GAP_PX + height <= clientHeight;
  const top = below ? at.bottom + GAP_PX : Math.max(GAP_PX, at.top - GAP_PX - height);
  dialog.style.left = `${Math.max(GAP_PX, Math.min(at.right - width, clientWidth - width - GAP_PX))}px`;
  dialog.style.top = `${top}px`;
}

// Arrows go from item to item, as in any menu.
function walk(dialog, event) {
  const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
  if (step === undefined) return;
  event.preventDefault();
  const items = [...dialog.querySelectorAll(".item")];
  const at = items.indexOf(document.activeElement);
  items[(at + step + items.length) % items.length].focus();
}
