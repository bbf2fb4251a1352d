// A minute before and after a moment, from a recording whose every cycle the unit has decided again.
import { english, facts, fill, h, s, table } from "./draw.js";
import { confirmOrder } from "./orders.js";
import { ask, live, snapshotAge, stateAge } from "./live.js";
import { moment, number, power, share, w, word } from "./words.js";

const [WIDTH, HEIGHT, LEFT, BOTTOM] = [800, 110, 84, 18];
const AROUND_S = 60;
const AGAIN_MS = 5000;
const KINDS = ["fault_on", "latch", "overrun"];

// Signals that people look at first, then powers, then what else was read; what only counts up comes last.
const FIRST = ["site.grid_w", "site.load_w", "site.setpoint_w", "site.request_w", "site.ess_w", "site.soc"];
const rank = (one) => (FIRST.includes(one.name) ? FIRST.indexOf(one.name) : one.unit === "W" ? 10 : one.unit === "Ws" || one.name.endsWith("covered_s") ? 30 : 20);
const shown = (unit, name, value) => {
  if (value === null || value === undefined) return "–";
  if (unit === "W") return power(value);
  if (name.endsWith("soc") || name.endsWith("soh")) return share(value);
  return `${number(value, Math.abs(value) < 100 ? 2 : 0)} ${unit}`.trim();
};
const atText = (seconds) => `${seconds < 0 ? "−" : "+"}${w("span.s", { n: number(Math.abs(seconds), 2) })}`;

// A word of the core in this language; of faults, and what has no word here, the core's own.
function said(name, text) {
  if (!text) return w("recorder.unknown");
  const kind = name === "site.mode" || name.endsWith(".state") ? "mode" : ["site.reason", "site.preference"].includes(name) ? "reason" : name.endsWith("reaction") ? "reaction" : "";
  const known = kind ? word(kind, text) : text;
  return known === text ? english(text) : known;
}

export const momentHash = (utcS) => `#recorder@${utcS.toFixed(3)}`;

// The moment of an alarm: its event, where that is among the newest, else by its age.
export function momentOf(alarm) {
  const found = live.state.events?.filter((one) => one.event === "fault_on" && one.name === alarm.id).at(-1);
  if (found) return found.utc_ns / 1e9;
  if (alarm.since_s === null || live.utcS === null) return null;
  return live.utcS + (snapshotAge() ?? 0) / 1000 - alarm.since_s - stateAge() / 1000;
}

export const momentOfEvent = (event) => (KINDS.includes(event.event) ? event.utc_ns / 1e9 : null);

function trace(answer, one) {
  const most = one.most ?? one.least;
  const all = [...one.least, ...most].filter((value) => value !== null);
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const x = (seconds) => LEFT + ((seconds + AROUND_S) / (2 * AROUND_S)) * (WIDTH - LEFT - 8);
  const y = (value) => 8 + ((high - value) / (high - low || 1)) * (HEIGHT - BOTTOM - 16);
  const pieces = [[]];
  one.least.forEach((least, at) => { if (least === null) pieces.push([]); else pieces.at(-1).push([(at + 0.5) * answer.bin_s - AROUND_S, least, most[at]]); });
  const label = w("recorder.chart", { name: one.name, least: shown(one.unit, one.name, low), most: shown(one.unit, one.name, high) });
  return h("figure", {}, h("figcaption", { class: "small" }, one.name), s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "chart", role: "img", "aria-label": label },
    [low, high].map((value) => [s("line", { x1: LEFT, x2: WIDTH - 8, y1: y(value), y2: y(value), class: "s-rule" }), s("text", { x: LEFT - 6, y: y(value) + 5, "text-anchor": "end", class: "t-soft" }, shown(one.unit, one.name, value))]),
    pieces.filter((piece) => piece.length).map((piece) => s("path", { class: "s-trace s-0", d: `M${piece.map((bin) => `${x(bin[0])} ${y(bin[1])}V${y(bin[2])}`).join("L")}`, fill: "none" })),
    s("line", { x1: x(0), x2: x(0), y1: 2, y2: HEIGHT - BOTTOM, class: "s-mark" }),
    [-60, -30, 0, 30, 60].map((at) => s("text", { x: x(at), y: HEIGHT - 4, "text-anchor": at === -60 ? "start" : at === 60 ? "end" : "middle", class: "t-soft" }, `${at} s`))));
}

function decided(answer) {
  if (answer.differs) {
    return [h("p", {}, h("span", { class: "tag high" }, `▲ ${w("recorder.differs")}`), " ", w("recorder.differs-at", { cycle: answer.differs.cycle, at: atText(answer.differs.at_s), what: answer.differs.what.join(", ") })),
      answer.differs.points.length > 0 && table(w("recorder.differs"), ["recorder.signal", "recorder.recorded", "recorder.again"].map((key) => w(key)), answer.differs.points.map(([name, one, two]) => [name, String(one ?? "–"), String(two ?? "–")]))];
  }
  return h("p", {}, h("span", { class: "tag" }, w("recorder.alike")), " ", w("recorder.cycles", { n: answer.cycles }), answer.cut > 0 && ` ${w("recorder.cut", { n: answer.cut })}`);
}

function draw(answer) {
  const ranked = [...answer.signals].sort((a, b) => rank(a) - rank(b));
  const rows = answer.changes.map(([at, name, before, after]) => [h("span", { class: "whole" }, atText(at)), name, said(name, before), said(name, after)]);
  const fixed = answer.still_words.map(([name, text]) => [name, said(name, text)]);
  return [
    h("div", { class: "cards" }, h("section", { class: "card wide" }, h("h2", {}, w("recorder.decided")), decided(answer),
      facts([[w("recorder.moment"), moment(answer.at_utc_s)], [w("recorder.span"), `${atText(answer.from_s)} … ${atText(answer.until_s)}`], [w("recorder.cause"), english(answer.cause)], [w("recorder.file"), h("code", {}, answer.file)]]),
      answer.until_s < AROUND_S - 1 && h("p", { class: "soft" }, w(answer.rest_due ? "recorder.rest" : "recorder.no-rest")),
      answer.from_s > 1 - AROUND_S && h("p", { class: "soft" }, w("recorder.no-before"))),
    h("section", { class: "card wide" }, h("h2", {}, w("recorder.moved", { n: answer.signals.length })), h("div", { class: "traces" }, ranked.map((one) => trace(answer, one))), answer.left_out.length > 0 && h("p", {}, w("recorder.left-out"), " ", answer.left_out.join(", "))),
    h("section", { class: "card wide tall" }, h("h2", {}, w("recorder.changes")), rows.length ? table(w("recorder.changes"), ["recorder.when", "recorder.signal", "recorder.from", "recorder.to"].map((key) => w(key)), rows) : h("p", { class: "soft" }, w("recorder.no-changes")), answer.changes_left_out > 0 && h("p", {}, w("recorder.changes-more", { n: answer.changes_left_out }))),
    h("section", { class: "card wide" }, h("h2", {}, w("recorder.still", { n: answer.still.length + fixed.length })), h("details", {}, h("summary", {}, w("recorder.list")), h("dl", {}, [...fixed, ...answer.still.map(([name, unit, value]) => [name, shown(unit, name, value)])].map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]))))),
  ];
}

export function recorder(main, app) {
  const at = Number(location.hash.split("@")[1]);
  const place = h("div", {});
  const status = h("p", { role: "status" });
  let [timer, gone] = [null, false];
  const record = app.session.role !== "read" && h("button", { hidden: true, onclick: () => confirmOrder(app, { action: "record", reason: "at the page" }).then(() => { clearTimeout(timer); look(); }) }, w("order.record"));
  fill(main, h("h1", {}, w("screen.recorder")), h("p", {}, h("a", { href: "#alarms" }, `← ${w("screen.alarms")}`)), status, record && h("div", { class: "buttons" }, record), place);

  async function look() {
    if (!place.childElementCount) status.textContent = w("recorder.deciding");
    try {
      const answer = await ask(`recordings/around?at=${at}`);
      if (gone) return;
      if (record) record.hidden = answer.recorded !== false;
      if (answer.problem) fill(status, english(answer.problem));
      else { status.textContent = ""; fill(place, draw(answer)); }
      if (answer.rest_due || answer.recorded === false) timer = setTimeout(look, AGAIN_MS);
    } catch (why) {
      if (gone) return;
      fill(status, why.code === "unreachable" ? w("old.link") : english(why.message));
      if (why.code === "busy" || why.code === "unreachable") timer = setTimeout(look, AGAIN_MS);
    }
  }
  if (Number.isFinite(at)) look(); else status.textContent = w("recorder.no-moment");
  return { leave: () => { gone = true; clearTimeout(timer); } };
}
