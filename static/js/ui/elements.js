// Creates elements. Texts are inserted as text, never as HTML.

// `properties` are set as properties of the element, or as attributes where it has no property of that name. `children`
// are elements, texts, or null for nothing.
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined) continue;
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

// A button with an action. A press has no effect while the action runs.
export function button(text, className, action) {
  const element = make("button", { type: "button", className }, text);
  element.addEventListener("click", async () => {
    if (element.ariaDisabled === "true") return;
    element.ariaDisabled = "true";
    try {
      await action(element);
    } finally {
      element.ariaDisabled = null;
    }
  });
  return element;
}

// A section with a heading.
export function section(title, ...content) {
  return make("section", {}, make("h3", {}, title), ...content);
}

export function cloneTemplate(template) {
  return template.content.firstElementChild.cloneNode(true);
}

// Shows a text of `Lang.pieces`. The direction of a value does not spread to the text around it.
export function setPieces(element, pieces) {
  element.replaceChildren(...pieces.map(({ text, isValue }) => (isValue ? make("bdi", {}, text) : text)));
}

// Sets a text unless it is there already. A live region is read aloud each time its text is set.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
