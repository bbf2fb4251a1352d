// One catalogue a language: en.json, zh.json, de.json have the same keys. What the unit itself words is English.
export const LANGUAGES = { en: "English", zh: "中文", de: "Deutsch" };
let held = {};
export let language = "en";

export async function speak(wanted) {
  language = wanted in LANGUAGES ? wanted : "en";
  const answer = await fetch(`${language}.json`);
  if (!answer.ok) throw new Error(`no words in ${language}`);
  held = await answer.json();
  document.documentElement.lang = language;
}

export function preferred() {
  const kept = localStorage.getItem("language");
  if (kept in LANGUAGES) return kept;
  return navigator.languages.map((one) => one.slice(0, 2)).find((one) => one in LANGUAGES) ?? "en";
}

// The text of a key, with {name} filled in. A key that is not there is shown as it is: it is seen, and a test finds it.
export function w(key, values = {}) {
  const text = held[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? values[name] : whole));
}

// The word of a mode or a reason, or the unit's own where the catalogue has none.
export function word(kind, text) {
  return held[`${kind}.${text}`] ?? text ?? "";
}

export function number(value, digits = 1) {
  return new Intl.NumberFormat(language, { maximumFractionDigits: digits, minimumFractionDigits: digits }).format(value);
}

export function power(value) {
  if (value === null || value === undefined) return "–";
  return `${number(value / 1000, Math.abs(value) < 100000 ? 2 : 1)} kW`;
}

export function share(value) {
  return value === null || value === undefined ? "–" : `${number(value * 100, 1)} %`;
}

export function span(seconds) {
  if (seconds === null || seconds === undefined) return w("age.never");
  if (seconds < 10) return w("span.s", { n: number(seconds, 1) });
  if (seconds < 120) return w("span.s", { n: number(seconds, 0) });
  if (seconds < 7200) return w("span.min", { n: number(seconds / 60, 0) });
  if (seconds < 172800) return w("span.h", { n: number(seconds / 3600, 1) });
  return w("span.d", { n: number(seconds / 86400, 1) });
}

export function moment(utcSeconds, withDay = true) {
  const how = { hour: "2-digit", minute: "2-digit", second: "2-digit", ...(withDay ? { year: "numeric", month: "2-digit", day: "2-digit" } : {}) };
  return new Intl.DateTimeFormat(language === "en" ? "en-GB" : language, how).format(new Date(utcSeconds * 1000));
}
