// Fills the texts of the HTML in the language of the page.

// Attributes with text. The key of each stands in `data-i18n-<attribute>`.
const ATTRIBUTES = ["aria-label", "placeholder", "title"];

export function translateElements(root, lang) {
  for (const element of root.querySelectorAll("[data-i18n]")) element.textContent = lang.t(element.dataset.i18n);
  for (const attribute of ATTRIBUTES) {
    for (const element of root.querySelectorAll(`[data-i18n-${attribute}]`)) {
      element.setAttribute(attribute, lang.t(element.getAttribute(`data-i18n-${attribute}`)));
    }
  }
}
