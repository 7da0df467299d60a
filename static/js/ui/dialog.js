// Dialogs: a menu at a button, a question that must be confirmed, and a window. Each is created when it opens, in the
// language of that moment, and removed when it closes.

import { button, make } from "./elements.js";

// On a wide page a menu opens at its button, else at the bottom. The same width is in `css/dialogs.css`.
const WIDE = "(min-width: 48rem)";
const GAP_PX = 4;

// A menu of `items`, each `{ text, run, danger }`, or `{ label, choices }` for several in one row.
export function openMenu(lang, { anchor, title, items }) {
  const dialog = create("menu", title);
  const item = ({ text, run, danger }) =>
    button(text, danger ? "menu-item danger" : "menu-item", () => {
      dialog.close();
      return run();
    });
  dialog.append(
    make("p", { className: "menu-title" }, title),
    ...items.map((each) => (each.choices === undefined ? item(each) : menuGroup(each.label, each.choices.map(item)))),
    button(lang.t("dialog.cancel"), "menu-item cancel", () => dialog.close()),
  );
  dialog.addEventListener("click", ({ target }) => target === dialog && dialog.close());
  dialog.addEventListener("keydown", (event) => moveFocus(dialog, event));
  show(dialog);
  if (matchMedia(WIDE).matches) placeAt(dialog, anchor);
  dialog.querySelector(".menu-item").focus();
}

// Asks for a confirmation of `action`, which runs while the question is open. If it fails, the question shows
// `errorTextOf(error)`. If it returns false, the question stays open. `alternative`, `{ text, action }`, is a milder
// action that can be chosen instead. Resolves to whether an action was done.
export function confirmAction(lang, { title, content = [], confirm, danger = false, action, alternative, errorTextOf }) {
  return new Promise((resolve) => {
    const dialog = create("question", title);
    const error = make("p", { className: "error", role: "alert" });
    let isDone = false;
    const form = make("form", { method: "dialog", noValidate: true });
    const done = (chosen) => async () => {
      isDone = (await chosen()) !== false;
      if (isDone) dialog.close();
    };
    form.append(
      make("h2", {}, title),
      ...content,
      error,
      make("div", { className: "dialog-actions" },
        button(lang.t("dialog.cancel"), "secondary", () => dialog.close()),
        alternative
          ? button(alternative.text, "secondary danger", () => runOnce(form, error, errorTextOf, done(alternative.action)))
          : null,
        make("button", { className: danger ? "primary danger" : "primary" }, confirm)),
    );
    onSubmit(form, error, errorTextOf, done(action));
    dialog.append(form);
    dialog.addEventListener("close", () => resolve(isDone));
    show(dialog);
    // An Enter too many must not confirm what can't be undone.
    (form.querySelector("input, select, textarea") ?? form.querySelector(danger ? ".secondary" : ".primary")).focus();
  });
}

// Runs `action` when a form is submitted, once at a time. A failure is shown in the element `error`.
export function onSubmit(form, error, errorTextOf, action) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    runOnce(form, error, errorTextOf, action);
  });
}

// Runs `action` unless an action of the form is running.
async function runOnce(form, error, errorTextOf, action) {
  if (form.ariaBusy === "true") return;
  form.ariaBusy = "true";
  error.textContent = "";
  try {
    await action();
  } catch (failure) {
    error.textContent = errorTextOf(failure);
  } finally {
    form.ariaBusy = null;
  }
}

// A window with a title and a close button.
export function openWindow(lang, title, ...content) {
  const dialog = create("window", title);
  const close = button("×", "icon close", () => dialog.close());
  close.title = lang.t("dialog.close");
  close.setAttribute("aria-label", close.title);
  dialog.append(make("header", {}, make("h2", {}, title), close), ...content);
  show(dialog);
  return dialog;
}

function create(className, title) {
  const dialog = make("dialog", { className: `dialog ${className}`, "aria-label": title });
  // The page's keyboard shortcuts do not apply in a dialog.
  dialog.addEventListener("keydown", (event) => event.stopPropagation());
  dialog.addEventListener("close", () => dialog.remove());
  return dialog;
}

function show(dialog) {
  document.body.append(dialog);
  dialog.showModal();
}

function menuGroup(label, items) {
  return make("div", { className: "menu-group", role: "group", "aria-label": label },
    make("span", { className: "label" }, label), ...items);
}

// Places a menu below its button or, where there is no space, above it.
function placeAt(dialog, anchor) {
  const at = anchor.getBoundingClientRect();
  const { width, height } = dialog.getBoundingClientRect();
  const { clientWidth, clientHeight } = document.documentElement;
  const fitsBelow = at.bottom + GAP_PX + height <= clientHeight;
  const top = fitsBelow ? at.bottom + GAP_PX : Math.max(GAP_PX, at.top - GAP_PX - height);
  dialog.style.left = `${Math.max(GAP_PX, Math.min(at.right - width, clientWidth - width - GAP_PX))}px`;
  dialog.style.top = `${top}px`;
}

// The arrow keys move the focus between the items of a menu.
function moveFocus(dialog, event) {
  const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
  if (step === undefined) return;
  event.preventDefault();
  const items = [...dialog.querySelectorAll(".menu-item")];
  const index = items.indexOf(document.activeElement);
  items[(index + step + items.length) % items.length].focus();
}
