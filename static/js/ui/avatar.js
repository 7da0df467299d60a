// The round avatar of a user, and their name in the same colour.

import { hueOf, initialOf } from "../core/avatars.js";

export function fillAvatar(element, name) {
  element.textContent = initialOf(name);
  element.dataset.hue = hueOf(name);
}

export function fillName(element, name) {
  element.textContent = name;
  element.dataset.hue = hueOf(name);
}
