import { card, facts, fill, gauge, h, s, table } from "./draw.js";
import { confirmOrder } from "./orders.js";
import { age, live, quality, value } from "./live.js";
import { number, power, share, span, w, word } from "./words.js";

const STILL_W = 1; // less is drawn as no flow

// One line between a device and the busbar: width by power, arrow by direction, text for both.
function flow(x, y, watts, inwards, most) {
  const towards = watts > 0 === inwards;
  const still = watts === null || Math.abs(watts) < STILL_W;
  const wide = still ? 1.5 : 2 + 8 * Math.min(1, Math.abs(watts) / most);
  const [x0, y0, x1, y1] = [x, y, 240, 130];
  const [mx, my] = [(x0 + x1) / 2, (y0 + y1) / 2];
  const angle = (Math.atan2(y1 - y0, x1 - x0) * 180) / Math.PI + (towards ? 0 : 180);
  return s("g", {}, s("line", { x1: x0, y1: y0, x2: x1, y2: y1, "stroke-width": wide, class: still ? "s-line" : `s-flow moves${towards ? " back" : ""}` }),
    !still && s("path", { d: "M12 0L-8 -9V9Z", transform: `translate(${mx} ${my}) rotate(${angle})`, class: "s-arrow" }));
}

function box(x, y, name, watts, what) {
  return s("g", {}, s("rect", { x: x - 78, y: y - 34, width: 156, height: 68, rx: 6, class: "s-box" }),
    s("text", { x, y: y - 14, "text-anchor": "middle", class: "t-soft" }, name),
    s("text", { x, y: y + 6, "text-anchor": "middle", class: "live", "font-weight": 650 }, power(watts)),
    s("text", { x, y: y + 25, "text-anchor": "middle", class: "t-soft" }, what));
}

function direction(watts, plus, minus) {
  if (watts === null) return w("flow.unknown");
  return Math.abs(watts) < STILL_W ? w("flow.zero") : w(watts > 0 ? plus : minus);
}

function flows() {
  const [grid, load, ess, pv] = ["grid", "load", "ess", "pv"].map((name) => value(`site.${name}_w`));
  const most = Math.max(1000, ...[grid, load, ess, pv].map((one) => Math.abs(one ?? 0)));
  const hasPv = live.site.nodes.some((node) => node.role === "pv") || Math.abs(pv ?? 0) >= STILL_W;
  const words = { grid: direction(grid, "flow.import", "flow.export"), load: direction(load, "flow.use", "flow.feed"), ess: direction(ess, "flow.discharge", "flow.charge"), pv: direction(pv, "flow.generation", "flow.own-use") };
  const told = [["grid", grid], ["load", load], ["ess", ess], ...(hasPv ? [["pv", pv]] : [])].map(([name, watts]) => `${w(`flow.${name}`)}: ${power(watts)} ${words[name]}`).join("; ");
  return s("svg", { viewBox: "0 0 480 260", role: "img", "aria-label": told },
    flow(90, 60, grid, true, most), flow(90, 200, ess, true, most), flow(390, hasPv ? 200 : 130, load, false, most), hasPv && flow(390, 60, pv, true, most),
    s("circle", { cx: 240, cy: 130, r: 9, class: "s-ink" }),
    box(90, 40, w("flow.grid"), grid, words.grid), box(90, 220, w("flow.ess"), ess, words.ess),
    box(390, hasPv ? 220 : 130, w("flow.load"), load, words.load), hasPv && box(390, 40, w("flow.pv"), pv, words.pv));
}

function gridCard() {
  const limits = live.site.limits;
  const grid = value("site.grid_w");
  const limit = value("site.grid_limit_w"); // not known is not the connection's
  const out = limits.connection_export_w_max;
  const room = grid === null || limit === null ? null : limit - grid;
  const over = room !== null && room < 0;
  const exportRoom = grid === null || out === null ? null : out + grid;
  const tooMuch = exportRoom !== null && exportRoom < 0;
  return [
    h("p", { class: "number value" }, power(grid), " ", h("span", { class: "unit" }, direction(grid, "flow.import", "flow.export"))),
    gauge({ least: out === null ? Math.min(0, grid ?? 0) : -out, most: Math.max(limits.connection_import_w_max ?? 0, limit ?? 0, grid ?? 0, 1), value: grid,
      limits: [limit, limits.connection_import_w_max].filter((one) => one !== null).map((at) => ({ at, over: (now) => now > at })).concat(out === null ? [] : [{ at: -out, over: (now) => now < -out }]) }),
    facts([
      [over ? h("span", { class: "tag high" }, `▲ ${w("grid.over")}`) : w("grid.headroom"), h("span", { class: "value" }, power(room === null ? null : Math.abs(room)))],
      [w("grid.limit"), power(limit)], [w("grid.connection"), power(limits.connection_import_w_max)],
      [w("grid.export-limit"), out === null ? w("grid.none") : power(out)],
      (tooMuch || (exportRoom !== null && grid < 0)) && [tooMuch ? h("span", { class: "tag high" }, `▲ ${w("grid.export-over")}`) : w("grid.export-room"), h("span", { class: "value" }, power(Math.abs(exportRoom)))],
      [w("age"), span(age("site.grid_w") ?? age("grid.power_w"))],
    ]),
  ];
}

function whyCard() {
  const why = live.state.why ?? {};
  const ends = [why.corridor_lo_w, why.corridor_hi_w, why.envelope_lo_w, why.envelope_hi_w, why.setpoint_w, why.request_w].map((one) => Math.abs(one ?? 0));
  const most = Math.max(1000, ...ends);
  const values = { setpoint: power(why.setpoint_w), reason: word("reason", why.reason), preference: word("reason", why.preference), lo: power(why.corridor_lo_w), hi: power(why.corridor_hi_w) };
  return [
    h("p", {}, w(why.stopped ? "why.stopped" : "why.sentence", values)),
    gauge({ least: -most, most, bands: [{ lo: why.envelope_lo_w, hi: why.envelope_hi_w, class: "s-soft" }, { lo: why.corridor_lo_w, hi: why.corridor_hi_w, class: "s-fill", y: 16, height: 12 }],
      marks: [{ at: why.setpoint_w, up: true }, { at: why.request_w }] }),
    h("p", { class: "small soft" }, w("why.legend")),
    facts([
      [w("why.setpoint"), h("span", { class: "value" }, power(why.setpoint_w))], [w("why.request"), h("span", { class: "value" }, power(why.request_w))],
      [w("why.corridor"), `${power(why.corridor_lo_w)} … ${power(why.corridor_hi_w)}`], [w("why.envelope"), `${power(why.envelope_lo_w)} … ${power(why.envelope_hi_w)}`],
      why.shortfall_w > 0 && [h("span", { class: "tag high" }, `▲ ${w("why.shortfall")}`), power(why.shortfall_w)],
      why.unenforced?.length > 0 && [h("span", { class: "tag medium" }, `◆ ${w("why.unenforced")}`), why.unenforced.map((one) => word("reason", one)).join(", ")],
      why.lease && [w("why.lease"), `${why.lease.holder} (${span(why.lease.expires_ms / 1000)})`],
      why.grid_operator && [h("span", { class: "tag medium" }, `◆ ${w("why.operator")}`), h("span", { lang: "en" }, why.grid_operator.text)],
    ]),
  ];
}

function demandCard() {
  const control = live.site.control;
  const demand = value("site.demand_w");
  const left = value("site.demand_left_s");
  const limit = control.demand_w_max;
  const window = control.demand_window_s ?? 900;
  const most = Math.max(limit ?? 0, demand ?? 0, value("site.demand_peak_w") ?? 0, 1);
  return [
    h("p", { class: "number value" }, power(demand)),
    gauge({ least: 0, most: most * 1.1, value: demand, limits: limit === null ? [] : [{ at: limit, over: (now) => now > limit }] }),
    s("svg", { viewBox: "0 0 400 14", "aria-hidden": "true" }, s("rect", { x: 10, y: 2, width: 380, height: 10, class: "s-soft" }), left !== null && s("rect", { x: 10, y: 2, width: 380 * Math.min(1, Math.max(0, 1 - left / window)), height: 10, class: "s-fill" })),
    facts([
      [w("demand.limit"), limit === null ? w("grid.none") : power(limit)], limit !== null && demand !== null && [demand > limit ? h("span", { class: "tag high" }, `▲ ${w("demand.over")}`) : w("demand.room"), power(Math.abs(limit - demand))],
      [w("demand.left"), left === null ? "–" : span(left)], [w("demand.peak"), power(value("site.demand_peak_w"))],
    ]),
  ];
}

function carbonCard() {
  const row = live.state.carbon?.rows?.[0];
  if (!row) return [h("p", { class: "soft" }, w("carbon.none")), h("p", { class: "small", lang: "en" }, live.state.carbon?.text ?? "")];
  const { g_per_kwh: grams, pue, doubts } = row.now;
  return [
    h("p", { class: "number value" }, grams === null || grams === undefined ? "–" : number(grams, 0), " ", h("span", { class: "unit" }, "g/kWh")),
    facts([[w("carbon.pue"), pue === null || pue === undefined ? "–" : number(pue, 3)], [w("carbon.age"), span(live.state.carbon.age_s)],
      live.state.carbon.late && [h("span", { class: "tag medium" }, `◆ ${w("carbon.late")}`), ""]]),
    h("p", { class: "small soft" }, w("carbon.provisional")),
    doubts?.length > 0 && h("details", {}, h("summary", {}, w("carbon.doubts", { n: doubts.length })), h("ul", { lang: "en" }, doubts.map((one) => h("li", {}, one)))),
  ];
}

function unitRows() {
  return live.site.units.map((unit, at) => {
    const said = live.state.why?.units?.[at] ?? {};
    const banks = [unit.bms, ...unit.parallel].filter(Boolean);
    return [
      unit.name, h("span", { class: "value" }, word("mode", said.mode) || "–"), h("span", { class: "value" }, power(value(`${unit.pcs}.power_w`))),
      h("span", { class: "value" }, power(value(`unit${at}.setpoint_w`))),
      banks.map((bms) => h("div", {}, h("span", { class: "value" }, share(value(`${bms}.soc`))), quality(`${bms}.soc`) === "good" ? "" : ` (${w(`quality.${quality(`${bms}.soc`)}`)})`)),
      span(age(`${banks[0]}.soc`)),
      said.faults?.length ? h("span", { class: "tag high", lang: "en" }, `▲ ${said.faults.join(", ")}`) : w("units.none"),
    ];
  });
}

export function now(main, app) {
  const slots = Object.fromEntries(["flow", "grid", "why", "units", "demand", "carbon", "alarms"].map((name) => [name, h("div", {})]));
  const may = app.session.role !== "read";
  fill(main, h("h1", {}, w("screen.now")), h("div", { class: "cards" },
    card(w("card.alarms"), slots.alarms), card(w("card.flow"), slots.flow), card(w("card.grid"), slots.grid), card(w("card.why"), slots.why), card(w("card.demand"), slots.demand), card(w("card.carbon"), slots.carbon),
    h("section", { class: "card wide" }, h("h2", {}, w("card.units")), slots.units),
    may && h("section", { class: "card wide" }, h("h2", {}, w("card.orders")), orders(app))));
  const update = () => {
    const soc = value("site.soc") ?? live.state.why?.soc;
    const open = live.state.alarms?.length ?? 0;
    fill(slots.alarms, live.state.alarms === undefined ? h("p", { class: "soft" }, w("age.never")) : open ? h("p", {}, h("span", { class: "tag high" }, `▲ ${w("alarms.open", { n: open })}`), " ", h("a", { href: "#alarms" }, w("screen.alarms"))) : h("p", {}, w("alarms.none")),
      h("p", { class: "number value" }, share(soc), " ", h("span", { class: "unit" }, w("soc"))));
    fill(slots.flow, flows());
    fill(slots.grid, gridCard());
    fill(slots.why, whyCard());
    fill(slots.demand, demandCard());
    fill(slots.carbon, carbonCard());
    if (!slots.units.contains(document.activeElement)) {
      fill(slots.units, table(w("card.units"), ["units.name", "units.mode", "units.power", "units.setpoint", "soc", "age", "units.faults"].map((key) => w(key)), unitRows()));
    }
  };
  return { update };
}

function orders(app) {
  const watts = h("input", { id: "limit-kw", type: "number", min: 0, step: "0.1", required: true });
  const minutes = h("input", { id: "limit-min", type: "number", min: 1, max: 1440, value: 15, required: true });
  const limit = (event) => {
    event.preventDefault();
    confirmOrder(app, { action: "limit", import_w_max: Number(watts.value) * 1000, for_ms: Math.round(Number(minutes.value) * 60000) });
  };
  return [
    h("p", { class: "small soft" }, w("order.note")),
    h("div", { class: "buttons" }, h("button", { onclick: () => confirmOrder(app, { action: "run" }) }, w("order.run")), h("button", { class: "stop", onclick: () => confirmOrder(app, { action: "stop" }) }, `■ ${w("order.stop")}`)),
    h("form", { onsubmit: limit }, h("label", { for: "limit-kw" }, w("order.limit-kw")), watts, h("label", { for: "limit-min" }, w("order.limit-min")), minutes, h("div", { class: "buttons" }, h("button", {}, w("order.limit")))),
  ];
}
