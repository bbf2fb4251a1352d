// The site file in the making: typed with its schema beside it, looked at by the unit, and put in place or not.
import { english, fill, h } from "./draw.js";
import { confirmOrder } from "./orders.js";
import { ask } from "./live.js";
import { w } from "./words.js";

const SHOWN_MAX = 14;
const HEADER = /^\s*\[\[?\s*([a-z_]+)[^\]]*\]\]?/;

function resolved(schema, node) {
  if (node?.$ref) return resolved(schema, schema.$defs[node.$ref.split("/").at(-1)]);
  if (node?.items) return resolved(schema, node.items);
  const inner = node?.anyOf?.map((one) => resolved(schema, one)).find((one) => one?.properties);
  return inner ?? node;
}

// The section that a place in the text stands in, and what of a key was typed there.
export function placeOf(text, at) {
  const lines = text.slice(0, at).split("\n");
  const typed = /^\s*([a-z_]*)$/.exec(lines.at(-1));
  let section = "";
  for (const line of lines) section = HEADER.exec(line)?.[1] ?? section;
  return { section, typed: typed ? typed[1] : null };
}

// Keys that the schema has for a place: [name, what it is].
export function keysFor(schema, section, typed) {
  const properties = section ? resolved(schema, schema.properties[section])?.properties : schema.properties;
  const kind = (node) => node.type ?? node.enum?.join(" | ") ?? node.anyOf?.map(kind).filter((one) => one !== "null").join(" | ") ?? (node.$ref ? kind(resolved(schema, node)) : "");
  return Object.entries(properties ?? {}).filter(([name]) => name.startsWith(typed ?? "")).map(([name, node]) => [name, [kind(node), node.default !== undefined && node.default !== null ? `= ${JSON.stringify(node.default)}` : "", node.description ?? ""].filter(Boolean).join(" · ")]);
}

function diffLine(line) {
  const kind = line.startsWith("+") && !line.startsWith("+++") ? "added" : line.startsWith("-") && !line.startsWith("---") ? "removed" : "";
  return h("span", { class: kind }, `${line}\n`);
}

export function siteFile(app, found) {
  let [schema, reviewed] = [null, null];
  const result = h("div", {});
  const keys = h("div", { class: "keys" });
  const text = h("textarea", { id: "site-text", rows: "22", spellcheck: "false", autocapitalize: "none", autocomplete: "off", wrap: "off" });
  text.value = found.text;
  text.setSelectionRange(0, 0);
  const apply = h("button", { class: "main", disabled: true, onclick: () => confirmOrder(app, { sha256: reviewed.sha256 }, { path: "setup/apply", name: "apply", done: again }) }, w("setup.apply"));
  const back = h("button", { disabled: found.previous === null, onclick: () => { text.value = found.previous; review(); } }, w("setup.roll-back"));
  const drop = h("button", { onclick: () => { text.value = found.text; changed(); } }, w("setup.drop"));

  async function again() {
    found = await ask("setup/file");
    text.value = found.text;
    back.disabled = found.previous === null;
    show(found);
  }

  function changed() {
    apply.disabled = true;
    reviewed = null;
    if (text.value !== found.text) fill(result, h("p", { class: "soft" }, w("setup.unchecked")));
  }

  function complete() {
    if (!schema) return;
    const { section, typed } = placeOf(text.value, text.selectionStart);
    const offered = typed === null ? [] : keysFor(schema, section, typed);
    const insert = (name) => () => {
      const at = text.selectionStart;
      text.setRangeText(`${name} = `, at - typed.length, at, "end");
      text.focus();
      changed();
      complete();
    };
    fill(keys, h("h3", {}, section ? w("setup.keys-of", { section }) : w("setup.sections")), offered.length ? h("ul", { class: "plain" }, offered.slice(0, SHOWN_MAX).map(([name, what]) => h("li", { class: "small" }, h("button", { type: "button", onclick: insert(name) }, name), " ", english(what)))) : h("p", { class: "small soft" }, w("setup.no-keys")),
      offered.length > SHOWN_MAX && h("p", { class: "small soft" }, w("setup.more-keys", { n: offered.length - SHOWN_MAX })));
  }

  function show(said) {
    const bad = said.problems.length > 0;
    fill(result, h("p", { role: "status" }, h("span", { class: bad ? "tag high" : "tag" }, bad ? `▲ ${w("setup.bad")}` : w("setup.good")), ` ${said.path}`),
      bad && h("ul", { class: "wrong", lang: "en" }, said.problems.map((one) => h("li", {}, one))),
      said.warnings.length > 0 && [h("h3", {}, w("setup.warnings")), h("ul", { lang: "en" }, said.warnings.map((one) => h("li", {}, one)))],
      said.wider.length > 0 && h("p", {}, w("setup.wider"), " ", h("code", {}, said.wider.join(", "))),
      said.changed ? [h("h3", {}, w("setup.diff")), h("pre", { tabindex: "0", class: "diff" }, said.diff.map(diffLine))] : h("p", { class: "soft" }, w("setup.unchanged")),
      said.summary.length > 0 && h("details", {}, h("summary", {}, w("setup.summary")), h("pre", { lang: "en", tabindex: "0" }, said.summary.join("\n"))));
    apply.disabled = bad || !said.changed || !found.changes;
    reviewed = said;
  }

  const check = h("button", { onclick: review }, w("setup.check"));
  async function review() {
    check.disabled = true;
    fill(result, h("p", { role: "status" }, w("setup.checking")));
    const sent = text.value;
    try {
      const said = await ask("setup/review", { text: sent });
      if (text.value === sent) show(said); else changed();
    } catch (why) {
      fill(result, h("p", { class: "wrong", role: "alert" }, english(why.message)));
    }
    check.disabled = false;
  }

  text.addEventListener("input", () => { changed(); complete(); });
  for (const event of ["keyup", "click", "focus"]) text.addEventListener(event, complete);
  ask("setup/schema").then((said) => { schema = said; complete(); }, (why) => fill(keys, h("p", {}, english(why.message))));
  show(found);
  return [h("label", { for: "site-text" }, w("setup.text")), h("div", { class: "editor" }, text, keys),
    h("div", { class: "buttons" }, check, apply, back, drop), !found.changes && h("p", { class: "small" }, w("setup.read-only"), " ", h("code", {}, "tidegate web serve --set-up")), result];
}
