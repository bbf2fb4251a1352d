// Elements without markup in strings: nothing that came from a device or a person is ever parsed as HTML.
const SVG = "http://www.w3.org/2000/svg";

function put(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(9)) if (child !== null && child !== undefined && child !== false) element.append(child);
  return element;
}

export const h = (tag, attributes, ...children) => put(document.createElement(tag), attributes, children);
export const s = (tag, attributes, ...children) => put(document.createElementNS(SVG, tag), attributes, children);

export function fill(element, ...children) {
  element.replaceChildren(...children.flat(9).filter((one) => one !== null && one !== undefined && one !== false));
}

// English words of the unit in a page of another language: read out and hyphenated as what they are.
export const english = (text) => h("span", { lang: "en" }, text ?? "");

// Whether somebody works inside an element just now, so that it is not drawn anew under the hand.
export const isUsed = (element) => document.activeElement !== element && element.contains(document.activeElement);

export function card(title, ...children) {
  return h("section", { class: "card" }, h("h2", {}, title), children);
}

export function table(label, heads, rows) {
  return h("div", { class: "table", tabindex: "0", role: "region", "aria-label": label },
    h("table", {}, h("thead", {}, h("tr", {}, heads.map((one) => h("th", { scope: "col" }, one)))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell) => h("td", { class: String(cell?.textContent ?? cell).length > 40 && "long" }, cell)))))));
}

export function facts(pairs) {
  return h("dl", {}, pairs.filter(Boolean).map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

// A value on an axis with limits: text beside it says the same, so it is hidden from readers of text.
export function gauge({ least, most, value, limits = [], bands = [], marks = [] }) {
  const width = 400;
  const at = (v) => 10 + ((Math.min(most, Math.max(least, v)) - least) / (most - least || 1)) * (width - 20);
  return s("svg", { viewBox: `0 0 ${width} 44`, "aria-hidden": "true" },
    s("line", { x1: 10, x2: width - 10, y1: 22, y2: 22, class: "s-line" }),
    bands.filter((one) => Number.isFinite(one.lo) && Number.isFinite(one.hi)).map((one) => s("rect", { x: at(one.lo), width: Math.max(2, at(one.hi) - at(one.lo)), y: one.y ?? 12, height: one.height ?? 20, class: one.class })),
    value !== null && value !== undefined && s("rect", { x: Math.min(at(0), at(value)), width: Math.max(1, Math.abs(at(value) - at(0))), y: 16, height: 12, class: limits.some((one) => one.over?.(value)) ? "s-over" : "s-ink" }),
    limits.map((one) => s("line", { x1: at(one.at), x2: at(one.at), y1: 4, y2: 40, class: "s-mark" })),
    marks.filter((one) => one.at !== null && one.at !== undefined).map((one) => s("path", { d: `M${at(one.at)} ${one.up ? 12 : 32}l-6 ${one.up ? -10 : 10}h12z`, class: "s-ink" })),
    least < 0 && most > 0 && s("line", { x1: at(0), x2: at(0), y1: 8, y2: 36, class: "s-line" }));
}
