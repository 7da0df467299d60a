// The page's words, in Bengali and English, with numbers, times and lists as each language writes them.

const CODES = ["en", "bn"];
const CODE_DEFAULT = "en";
// Attributes that bear words; each has its key in `data-i18n-<attribute>`.
const ATTRIBUTES = ["aria-label", "placeholder", "title"];
const DAY_MS = 24 * 60 * 60 * 1000;

export class Lang {
  #words;
  #code;
  #store;
  #heard = [];
  #numbers;
  #plurals;
  #times;
  #days;
  #moments;
  #dates;
  #lists;
  #order;

  // Both languages are read at the start, since a switch must work without a connection too.
  static async load(store) {
    const words = await Promise.all(
      CODES.map(async (code) => [code, new Map(Object.entries(await (await fetch(`lang/${code}.json`)).json()))]),
    );
    return new Lang(new Map(words), store);
  }

  constructor(words, store) {
    this.#words = words;
    this.#store = store;
    this.#use(known(store.get("lang")) ?? navigator.languages.map(known).find(Boolean) ?? CODE_DEFAULT);
  }

  get code() {
    return this.#code;
  }

  choose(code) {
    this.#store.set("lang", code);
    this.#use(code);
    for (const hear of this.#heard) hear();
  }

  // Calls `hear` after each switch.
  onSwitch(hear) {
    this.#heard.push(hear);
  }

  // The words of a key, with each `{place}` filled from `values`.
  t(key, values = {}) {
    const words = this.#words.get(this.#code).get(key) ?? key;
    return words.replace(/\{(\w+)\}/g, (place, name) => {
      const value = values[name];
      if (value === undefined) return place;
      return typeof value === "number" ? this.number(value) : value;
    });
  }

  // The same for a key that has one form for each plural category of the language.
  plural(key, count, values = {}) {
    return this.t(`${key}.${this.#plurals.select(count)}`, { count, ...values });
  }

  number(value) {
    return this.#numbers.format(value);
  }

  list(names) {
    return this.#lists.format(names);
  }

  compare(a, b) {
    return this.#order.compare(a, b);
  }

  // The time of day. Bengali says the part of the day before the hour, where Intl puts it behind.
  time(date) {
    if (this.#code !== "bn") return this.#times.format(date);
    const parts = this.#times.formatToParts(date);
    const part = parts.find(({ type }) => type === "dayPeriod")?.value ?? "";
    const clock = parts.filter(({ type }) => type !== "dayPeriod").map(({ value }) => value).join("");
    return `${part} ${clock.trim()}`.trim();
  }

  moment(date) {
    return this.#moments.format(date);
  }

  day(date, now = new Date()) {
    if (sameDay(date, now)) return this.t("line.today");
    if (sameDay(date, new Date(now - DAY_MS))) return this.t("line.yesterday");
    return (date.getFullYear() === now.getFullYear() ? this.#days : this.#dates).format(date);
  }

  // Fills in every word that stands in the HTML.
  apply(root) {
    for (const element of root.querySelectorAll("[data-i18n]")) element.textContent = this.t(element.dataset.i18n);
    for (const attribute of ATTRIBUTES) {
      for (const element of root.querySelectorAll(`[data-i18n-${attribute}]`)) {
        element.setAttribute(attribute, this.t(element.getAttribute(`data-i18n-${attribute}`)));
      }
    }
  }

  #use(code) {
    this.#code = code;
    // The reader's own region decides, say, between 20:05 and 8:05 PM.
    const locale = navigator.languages.find((tag) => known(tag) === code) ?? code;
    const digits = code === "bn" ? { numberingSystem: "beng" } : {};
    this.#numbers = new Intl.NumberFormat(locale, digits);
    this.#plurals = new Intl.PluralRules(code);
    const clock = { hour: "numeric", minute: "2-digit", ...digits };
    this.#times = new Intl.DateTimeFormat(locale, code === "bn" ? { ...clock, dayPeriod: "short" } : clock);
    this.#days = new Intl.DateTimeFormat(locale, { weekday: "long", day: "numeric", month: "long", ...digits });
    this.#dates = new Intl.DateTimeFormat(locale, { dateStyle: "long", ...digits });
    this.#moments = new Intl.DateTimeFormat(locale, { dateStyle: "full", timeStyle: "medium", ...digits });
    this.#lists = new Intl.ListFormat(locale, { type: "conjunction" });
    this.#order = new Intl.Collator(locale);
  }
}

function known(tag) {
  return CODES.find((code) => tag === code || tag?.startsWith(`${code}-`));
}

function sameDay(a, b) {
  return a.toDateString() === b.toDateString();
}
