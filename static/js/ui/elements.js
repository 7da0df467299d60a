// Makes elements. Words are put in as text, never as HTML.

// `of` is what is set on the element, as its properties or (where it has none of the name) its attributes; `children`
// are elements, texts, and null for nothing.
export function make(tag, of = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(of)) {
    if (value === undefined) continue;
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

// A button that does something, and can't be pressed again while it is doing it.
export function button(words, className, press) {
  const element = make("button", { type: "button", className }, words);
  element.addEventListener("click", async () => {
    if (element.ariaDisabled === "true") return;
    element.ariaDisabled = "true";
    try {
      await press(element);
    } finally {
      element.ariaDisabled = null;
    }
  });
  return element;
}
