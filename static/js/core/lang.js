// The page's texts in English and Bengali, with numbers, times and lists in the form of each language. Pure.

export const LANGUAGES = ["en", "bn"];
const DEFAULT = "en";

// The page's language for a language tag such as `bn-BD`; undefined for other languages.
export function languageOf(tag) {
  return LANGUAGES.find((code) => tag === code || tag?.startsWith(`${code}-`));
}

export class Lang {
  #texts;
  #values;
  #preferred;
  #code;
  #listeners = [];
  #numbers;
  #plurals;
  #times;
  #days;
  #moments;
  #dates;
  #lists;
  #collator;

  // `texts` has the texts of each language, by key. `values` fill places of any text. `preferred` are the browser's
  // language tags, best first. `code` is the language that the user has chosen, if any.
  constructor({ texts, values = {}, preferred, code }) {
    this.#texts = new Map(Object.entries(texts).map(([each, byKey]) => [each, new Map(Object.entries(byKey))]));
    this.#values = values;
    this.#preferred = preferred;
    this.#use(languageOf(code) ?? preferred.map(languageOf).find(Boolean) ?? DEFAULT);
  }

  get code() {
    return this.#code;
  }

  choose(code) {
    this.#use(code);
    for (const listener of this.#listeners) listener();
  }

  // Calls `listener` after each change of the language.
  onChange(listener) {
    this.#listeners.push(listener);
  }

  // The text of a key, with each `{place}` filled from `values`.
  t(key, values = {}) {
    return this.pieces(key, values).map(({ text }) => text).join("");
  }

  // The same text in pieces `{ text, isValue }`. A value, such as a name, can have another direction than the text.
  pieces(key, values = {}) {
    const text = this.#texts.get(this.#code).get(key) ?? key;
    return text.split(/(\{\w+\})/).map((piece) => {
      const name = piece.startsWith("{") ? piece.slice(1, -1) : "";
      const value = values[name] ?? this.#values[name];
      if (value === undefined) return { text: piece, isValue: false };
      return { text: typeof value === "number" ? this.number(value) : value, isValue: true };
    });
  }

  // The text of a key that has one form for each plural category of the language.
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
    return this.#collator.compare(a, b);
  }

  // The time of day. In Bengali the part of the day comes before the hour; `Intl` puts it after the minutes.
  time(date) {
    if (this.#code !== "bn") return this.#times.format(date);
    const parts = this.#times.formatToParts(date);
    const dayPeriod = parts.find(({ type }) => type === "dayPeriod")?.value ?? "";
    const clock = parts.filter(({ type }) => type !== "dayPeriod").map(({ value }) => value).join("");
    return `${dayPeriod} ${clock.trim()}`.trim();
  }

  // The full date and time.
  moment(date) {
    return this.#moments.format(date);
  }

  // The date without the time.
  date(date) {
    return this.#dates.format(date);
  }

  // The day as it is called on the day of `now`. Days are those of the calendar, which are not always of 24 hours.
  day(date, now = new Date()) {
    if (isSameDay(date, now)) return this.t("line.today");
    const yesterday = new Date(now.getFullYear(), now.getMonth(), now.getDate() - 1);
    if (isSameDay(date, yesterday)) return this.t("line.yesterday");
    return (date.getFullYear() === now.getFullYear() ? this.#days : this.#dates).format(date);
  }

  #use(code) {
    this.#code = code;
    // The user's own region decides, for example, between 20:05 and 8:05 PM.
    const locale = this.#preferred.find((tag) => languageOf(tag) === code) ?? code;
    const digits = code === "bn" ? { numberingSystem: "beng" } : {};
    const clock = { hour: "numeric", minute: "2-digit", ...digits };
    this.#numbers = new Intl.NumberFormat(locale, digits);
    this.#plurals = new Intl.PluralRules(code);
    this.#times = new Intl.DateTimeFormat(locale, code === "bn" ? { ...clock, dayPeriod: "short" } : clock);
    this.#days = new Intl.DateTimeFormat(locale, { weekday: "long", day: "numeric", month: "long", ...digits });
    this.#dates = new Intl.DateTimeFormat(locale, { dateStyle: "long", ...digits });
    this.#moments = new Intl.DateTimeFormat(locale, { dateStyle: "full", timeStyle: "medium", ...digits });
    this.#lists = new Intl.ListFormat(locale, { type: "conjunction" });
    this.#collator = new Intl.Collator(locale);
  }
}

function isSameDay(a, b) {
  return a.toDateString() === b.toDateString();
}
