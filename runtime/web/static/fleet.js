// A whole fleet, as its hub knows it: worst first, with why. It reads; every age is the hub's own.
import { card, english, facts, fill, h, isUsed, s, table } from "./draw.js";
import { chart } from "./history.js";
import { ask } from "./live.js";
import { login } from "./login.js";
import { LANGUAGES, language, moment, number, preferred, span, speak, w } from "./words.js";

const SCREENS = ["sites", "alarms", "account"];
const EVERY_MS = 10000;
const head = document.getElementById("head");
const main = document.getElementById("main");
const banner = document.getElementById("banner");
const app = { session: null, again: start, pairCommand: "tidegate hub pair" };
let timer = null;
let find = "";
let month = "";
let lastAt = null;

const at = () => { const [name, value] = location.hash.slice(1).split("="); return name === "site" ? { name, value: decodeURIComponent(value ?? "") } : { name: SCREENS.includes(name) ? name : "sites" }; };
const priority = (name) => (name === "fine" ? h("span", { class: "tag" }, w("fleet.fine")) : h("span", { class: `tag is-${name}` }, w(`priority.${name}`)));
const none = (text) => (text === null || text === undefined || text === "" ? "–" : text);

function why([, key, text, value]) {
  const shown = key === "clock" || key === "certificate" ? span(Math.abs(value)) : key === "letters" ? value : span(value);
  if (key === "finding" || key === "alarm") return h("span", {}, w(`fleetwhy.${key}`), " ", english(text));
  if (key === "certificate") return value < 0 ? w("fleet.certificate-over", { age: shown }) : w("fleetwhy.certificate", { age: shown });
  if (key === "clock") return w("fleetwhy.clock", { age: `${value < 0 ? "−" : "+"}${shown}` });
  return w(`fleetwhy.${key}`, { age: shown, n: value });
}

function clock(site) {
  if (!site.has_condition) return "–";
  const off = site.clock_off_s ?? 0;
  return `${off < 0 ? "−" : "+"}${span(Math.abs(off))}${site.utc_sync && site.utc_sync !== "S" ? `, ${w(`sync.${site.utc_sync}`)}` : ""}`;
}

// Each priority has a shape of its own, so that no colour is needed to read the map.
function mark(x, y, name) {
  if (name === "high") return s("path", { d: `M${x} ${y - 9}l9 15h-18z`, class: "s-over" });
  if (name === "medium") return s("rect", { x: x - 6, y: y - 6, width: 12, height: 12, class: "s-ink" });
  if (name === "low") return s("path", { d: `M${x} ${y - 7}l7 7l-7 7l-7 -7z`, class: "s-fill" });
  return s("circle", { cx: x, cy: y, r: 4, class: "s-fill" });
}

function map(sites) {
  const placed = sites.filter((one) => one.at[0] !== null && one.at[1] !== null).map((one) => ({ ...one, lat: one.at[0] / 1e6, lon: one.at[1] / 1e6 }));
  const without = sites.length - placed.length;
  if (!placed.length) return h("p", { class: "soft" }, w("fleet.no-places"));
  const [width, height, edge] = [560, 360, 40];
  const grow = (low, high, least) => { const more = Math.max((high - low) * 0.08, least); return [low - more, high + more]; };
  const [south, north] = grow(Math.min(...placed.map((one) => one.lat)), Math.max(...placed.map((one) => one.lat)), 0.05);
  const [west, east] = grow(Math.min(...placed.map((one) => one.lon)), Math.max(...placed.map((one) => one.lon)), 0.05);
  const squeeze = Math.max(0.1, Math.cos(((south + north) / 2) * Math.PI / 180)); // a degree of longitude there, of latitude
  const scale = Math.min((width - 2 * edge) / ((east - west) * squeeze), (height - 2 * edge) / (north - south));
  const x = (lon) => width / 2 + (lon - (west + east) / 2) * squeeze * scale;
  const y = (lat) => height / 2 - (lat - (south + north) / 2) * scale;
  const lines = (middle, half, pixels) => { // of round degrees, far enough from each other for their words
    const [low, high, rough] = [middle - half / pixels, middle + half / pixels, 80 / pixels];
    const size = 10 ** Math.floor(Math.log10(rough));
    const every = [1, 2, 5, 10].map((one) => one * size).find((one) => one >= rough * 0.999);
    const found = [];
    for (let n = Math.ceil(low / every); n * every <= high; n++) found.push([n * every, every < 1 ? Math.ceil(-Math.log10(every)) : 0]);
    return found;
  };
  return [s("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": w("fleet.map-label", { n: placed.length, without }) },
    lines((south + north) / 2, height / 2 - 30, scale).map(([lat, digits]) => [s("line", { x1: edge, x2: width, y1: y(lat), y2: y(lat), class: "s-rule" }), s("text", { x: 2, y: y(lat) + 5, class: "t-soft" }, `${number(lat, digits)}°`)]),
    lines((west + east) / 2, width / 2 - edge, scale * squeeze).map(([lon, digits]) => [s("line", { x1: x(lon), x2: x(lon), y1: 0, y2: height - 22, class: "s-rule" }), s("text", { x: x(lon), y: height - 6, "text-anchor": "middle", class: "t-soft" }, `${number(lon, digits)}°`)]),
    [...placed].reverse().map((one) => mark(x(one.lon), y(one.lat), one.priority))),
  h("p", { class: "small soft" }, w("fleet.map-shapes"), " ", without > 0 && w("fleet.without", { n: without }))];
}

const link = (name) => h("a", { href: `#site=${encodeURIComponent(name)}` }, name);

function siteTable(answer) {
  return table(w("screen.sites"), [w("fleet.site"), w("fleet.priority"), w("fleet.why"), w("fleet.seen"), w("fleet.version"), w("fleet.clock"), w("fleet.certificate"), w("fleet.owner"), w("fleet.region"), w("fleet.entries")],
    answer.sites.map((one) => [link(one.site), priority(one.priority), one.reasons.length ? h("span", {}, one.reasons.map((reason, n) => [n > 0 && h("br"), why(reason)])) : "–",
      one.seen_utc_s ? w("age.ago", { age: span(answer.now_utc_s - one.seen_utc_s) }) : w("age.never"), english(none(one.version)), clock(one),
      one.certificate_until_utc_s ? moment(one.certificate_until_utc_s) : "–", none(one.owner), none(one.region), number(one.entries, 0)]));
}

function drawSites(answer, first) {
  if (first) {
    const place = h("div", { id: "place" });
    const box = h("input", { id: "find", type: "search", value: find, oninput: (event) => { find = event.target.value; update(); } });
    fill(main, h("h1", {}, w("screen.sites")), h("label", { for: "find" }, w("fleet.find")), box, place);
  }
  const counts = ["high", "medium", "low", "fine"].map((name) => [priority(name), " ", number(answer.counts[name], 0), " "]);
  const parts = [h("p", { role: "status" }, w("fleet.count", { shown: answer.sites.length, found: answer.found, count: answer.count }), " ", counts),
    h("div", { class: "cards" }, h("div", { class: "card wide" }, siteTable(answer)), h("section", { class: "card wide" }, h("h2", {}, w("fleet.map")), map(answer.sites)))];
  const place = document.getElementById("place");
  if (!isUsed(place)) fill(place, parts);
}

function drawAlarms(answer) {
  fill(main, h("h1", {}, w("screen.alarms")), h("p", { role: "status" }, answer.alarms.length ? w("fleet.alarms", { shown: answer.alarms.length, count: answer.alarms_count }) : w("fleet.no-alarms")),
    answer.alarms.length > 0 && h("div", { class: "card" }, table(w("screen.alarms"), [w("fleet.priority"), w("fleet.site"), w("fleet.alarm")],
      answer.alarms.map(([site, name, , text]) => [priority(name), link(site), english(text)]))));
}

const kwh = (milliwh) => `${number(Number(milliwh) / 1e6, 0)} kWh`;
const kg = (ug) => `${number(Number(ug) / 1e9, 1)} kg`;

function sums(row) {
  return [kwh(row.import_milliwh), kg(row.import_ug), kwh(row.generation_milliwh), kwh(row.load_milliwh), kg(row.load_ug), kwh(row.same_period_milliwh), kwh(row.shifted_milliwh)];
}

async function drawAccount() {
  const place = h("div", {}, h("p", { role: "status" }, w("fleet.reckoning")));
  const box = h("input", { id: "month", type: "month", value: month, onchange: (event) => { month = event.target.value; show(); } });
  fill(main, h("h1", {}, w("screen.account")), h("label", { for: "month" }, w("fleet.month")), box, place);
  let found;
  try {
    found = await ask(`fleet/account?month=${month}`);
  } catch (problem) {
    fill(place, h("p", { class: "wrong", role: "alert" }, english(problem.message)));
    return;
  }
  const heads = [w("fleet.import"), w("fleet.import-carbon"), w("fleet.own"), w("fleet.loads"), w("fleet.loads-carbon"), w("fleet.same"), w("fleet.shifted")];
  const group = (title, key, name) => h("div", { class: "card wide" }, h("h2", {}, title), table(title, [name, w("fleet.sites"), ...heads], found[key].map((row) => [none(row.owner ?? row.region), number(row.sites, 0), ...sums(row)])));
  fill(place, h("p", { role: "status" }, w("fleet.account-of", { n: found.sites_in_it, count: found.sites_enrolled })),
    h("div", { class: "cards" },
      card(w("fleet.whole"), facts([...heads.map((one, n) => [one, sums(found.whole)[n]]), [w("fleet.balance"), `${found.whole.balance_error_ug} µg`]])),
      h("section", { class: "card" }, h("h2", {}, w("fleet.not-whole")), found.missing_count ? table(w("fleet.not-whole"), [w("fleet.site"), w("fleet.why")], found.missing.map((row) => [link(row.site), english(row.why)])) : h("p", {}, w("fleet.all-whole")), found.missing_count > found.missing.length && h("p", {}, w("fleet.more", { n: found.missing_count - found.missing.length }))),
      group(w("fleet.by-region"), "regions", w("fleet.region")), group(w("fleet.by-owner"), "owners", w("fleet.owner")),
      h("div", { class: "card wide" }, h("h2", {}, w("fleet.by-tenant")), table(w("fleet.by-tenant"), [w("fleet.tenant"), w("fleet.jobs"), w("fleet.energy"), w("fleet.loads-carbon")], found.tenants.map((row) => [none(row.tenant), number(row.jobs, 0), kwh(row.energy_milliwh), kg(row.ug)]))),
      h("div", { class: "card wide" }, h("h2", {}, w("fleet.across")), table(w("fleet.across"), [w("fleet.region"), w("fleet.exported"), w("fleet.import"), w("fleet.at-most")], found.same_period.map((row) => [none(row.name), kwh(row.own_export_milliwh), kwh(row.import_milliwh), kwh(row.same_period_milliwh)])), h("p", { class: "small soft" }, w("fleet.across-note"))),
      h("p", { class: "small soft wide" }, "SHA-256 ", h("code", {}, found.sha256))));
}

async function drawSite(name) {
  let found;
  try {
    found = await ask(`fleet/site?name=${encodeURIComponent(name)}`);
  } catch (problem) {
    fill(main, h("h1", {}, name), h("p", { class: "wrong", role: "alert" }, english(problem.message)), h("a", { href: "#sites" }, w("fleet.back")));
    return;
  }
  if (isUsed(main)) return;
  const names = ["site.grid_w", "site.load_w", "site.ess_w"].filter((one) => found.minutes.some(([, values]) => values[one]));
  const soc = Object.keys(found.minutes.at(-1)?.[1] ?? {}).find((one) => one.endsWith(".soc"));
  const drawn = soc ? [...names, soc] : names;
  const series = Object.fromEntries(drawn.map((one) => [one, { step_s: 60, slots: found.minutes.filter(([, values]) => values[one]).map(([utc, values]) => [utc, values[one][1], values[one][2], values[one][0]]) }]));
  fill(main, h("p", {}, h("a", { href: "#sites" }, w("fleet.back"))), h("h1", {}, name, " ", priority(found.priority)),
    found.reasons.length > 0 && h("ul", {}, found.reasons.map((reason) => h("li", {}, why(reason)))),
    h("div", { class: "cards" },
      card(w("fleet.now"), facts([[w("fleet.seen"), found.seen_utc_s ? w("age.ago", { age: span(found.now_utc_s - found.seen_utc_s) }) : w("age.never")], [w("fleet.version"), english(none(found.version))], [w("fleet.mode"), english(none(found.mode))], [w("fleet.clock"), clock(found)],
        [w("fleet.certificate"), found.certificate_until_utc_s ? moment(found.certificate_until_utc_s) : "–"], [w("fleet.owner"), none(found.owner)], [w("fleet.region"), none(found.region)]])),
      card(w("fleet.ledger"), facts([[w("fleet.entries"), number(found.entries, 0)], [w("fleet.head"), h("code", {}, found.ledger.root)], [w("fleet.key"), h("code", {}, found.ledger.key)], [w("fleet.enrolled"), moment(found.ledger.enrolled_utc_s)]])),
      h("section", { class: "card wide" }, h("h2", {}, w("fleet.day")), drawn.length ? [chart({ since: found.minutes[0][0], until: found.minutes.at(-1)[0] + 60, series }, drawn), h("p", { class: "small soft" }, drawn.join(", "))] : h("p", {}, w("fleet.no-minutes"))),
      h("section", { class: "card wide" }, h("h2", {}, w("fleet.events")), found.events.length ? table(w("fleet.events"), [w("fleet.at"), w("fleet.event"), w("fleet.what")], found.events.map(([utc, kind, body]) => [moment(utc), english(kind), english(none(body.name ?? body.detail ?? body.text))])) : h("p", {}, w("fleet.no-events"))),
      h("section", { class: "card wide" }, h("h2", {}, w("fleet.letters")), found.letters.length ? table(w("fleet.letters"), ["ID", w("fleet.entry"), w("fleet.what"), w("fleet.times")], found.letters.map(([id, seq, kind, what, , times]) => [id, seq, english(`${kind}: ${what}`), times])) : h("p", {}, w("fleet.no-letters")))));
}

function drawHead() {
  const languages = h("select", { id: "language", "aria-label": w("head.language"), onchange: async (event) => {
    localStorage.setItem("language", event.target.value);
    await speak(event.target.value);
    drawHead();
    show();
  } }, Object.entries(LANGUAGES).map(([key, name]) => h("option", { value: key, selected: key === language, lang: key }, name)));
  document.getElementById("skip").textContent = w("head.skip");
  fill(head, h("div", { class: "bar" }, h("span", { class: "site" }, w("fleet.title")), h("span", { class: "push" }), languages,
    app.session?.user && h("button", { onclick: async () => { await ask("session/logout", {}).catch(() => {}); await start(); } }, `${w("head.logout")} (${app.session.user})`)),
  app.session?.user && h("nav", { "aria-label": w("head.screens") }, h("ul", {}, SCREENS.map((name) => h("li", {}, h("a", { href: `#${name}`, "aria-current": name === at().name && "page" }, w(`screen.${name}`)))))));
}

async function draw(first) {
  const place = at();
  if (place.name === "account") { if (first) await drawAccount(); return; }
  if (place.name === "site") { await drawSite(place.value); return; }
  const answer = await ask(`fleet?find=${encodeURIComponent(find)}`);
  if (at().name !== place.name) return;
  if (!month) month = new Date(answer.now_utc_s * 1000).toISOString().slice(0, 7);
  if (place.name === "alarms") drawAlarms(answer); else drawSites(answer, first || !document.getElementById("place"));
}

async function update(first = false) {
  try {
    await draw(first);
    lastAt = performance.now();
    banner.textContent = "";
  } catch (problem) {
    if (problem.status === 401) { await start(); return; }
    banner.textContent = `${w("fleet.old", { age: lastAt === null ? w("age.never") : span((performance.now() - lastAt) / 1000) })} ${problem.code === "unreachable" ? "" : problem.message}`;
  }
}

async function show() {
  drawHead();
  document.title = `${w("fleet.title")} – Tidegate`;
  main.removeAttribute("data-ready");
  await update(true);
  main.dataset.ready = location.hash;
}

async function start() {
  clearInterval(timer);
  try {
    app.session = await ask("session");
  } catch {
    fill(main, h("p", {}, w("old.link")));
    setTimeout(start, 3000);
    return;
  }
  drawHead();
  if (!app.session.user) { login(main, app); return; }
  timer = setInterval(() => { if (!document.hidden) update(); }, EVERY_MS);
  await show();
}

window.addEventListener("hashchange", () => { if (app.session?.user) { show(); main.focus(); } });
await speak(preferred());
await start();
