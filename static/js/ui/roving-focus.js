// One tab stop for a list of many controls: Tab leads to one of them, and the arrow keys, Home and End lead to the others.

export class RovingFocus {
  #container;
  #selector;
  #startsAtLast;
  #stop = null;

  // `selector` matches the controls in `container`, which have the tab index -1. With `startsAtLast` Tab leads to the
  // last one at first, else to the first one; from then on to the one that had the focus last.
  constructor({ container, selector, startsAtLast = false }) {
    this.#container = container;
    this.#selector = selector;
    this.#startsAtLast = startsAtLast;
    // The controls come, go and are hidden at any time. Only a press of Tab needs to know which is the tab stop.
    document.addEventListener("keydown", ({ key }) => key === "Tab" && this.#chooseStop(), { capture: true });
    container.addEventListener("keydown", (event) => this.#keyPressed(event));
    container.addEventListener("focusin", ({ target }) => target.matches(selector) && this.#setStop(target));
  }

  #chooseStop() {
    if (this.#stop && isShown(this.#stop)) return;
    const controls = this.#controls();
    this.#setStop((this.#startsAtLast ? controls.at(-1) : controls[0]) ?? null);
  }

  #setStop(control) {
    if (this.#stop) this.#stop.tabIndex = -1;
    this.#stop = control;
    if (control) control.tabIndex = 0;
  }

  #keyPressed(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || event.shiftKey || !event.target.matches(this.#selector)) return;
    const controls = this.#controls();
    const next = {
      ArrowDown: controls[controls.indexOf(event.target) + 1],
      ArrowUp: controls[controls.indexOf(event.target) - 1],
      Home: controls[0],
      End: controls.at(-1),
    }[event.key];
    if (!next) return;
    event.preventDefault();
    next.focus();
  }

  #controls() {
    return [...this.#container.querySelectorAll(this.#selector)].filter(isShown);
  }
}

function isShown(element) {
  return element.getClientRects().length > 0;
}
