import { english, fill, h, s, table } from "./draw.js";
import { ask } from "./live.js";
import { moment, number, power, share, w } from "./words.js";

const RANGES = { "range.1h": 3600, "range.24h": 86400, "range.7d": 604800, "range.30d": 2592000, "range.1y": 31622400 };
const FIRST = ["site.grid_w", "site.load_w", "site.ess_w"];
const [WIDTH, HEIGHT, LEFT, BOTTOM] = [800, 300, 64, 26];
const shownValue = (name, value) => (name.endsWith(".soc") ? share(value) : power(value));

export function chart(answer, names, other) {
  const powers = names.filter((name) => !name.endsWith(".soc"));
  const all = [answer, other].filter(Boolean).flatMap((one) => powers.flatMap((name) => one.series[name].slots.flatMap((slot) => [slot[1], slot[2]])));
  const least = Math.min(0, ...all) / 1000;
  const most = Math.max(1, ...all.map((one) => one / 1000));
  const x = (utc) => LEFT + ((utc - answer.since) / (answer.until - answer.since)) * (WIDTH - LEFT - 8);
  const y = (kw) => 8 + ((most - kw) / (most - least)) * (HEIGHT - BOTTOM - 8);
  const scaled = (name, value) => (name.endsWith(".soc") ? y(least + value * (most - least)) : y(value / 1000));
  const rough = (most - least) / 5;
  const size = 10 ** Math.floor(Math.log10(rough));
  const every = [1, 2, 5, 10].map((one) => one * size).find((one) => one >= rough);
  const ticks = [];
  for (let at = Math.ceil(least / every); at * every <= most; at++) ticks.push(at * every);
  return s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "chart", role: "img", "aria-label": w("history.chart", { names: names.join(", ") }) },
    ticks.map((kw) => [s("line", { x1: LEFT, x2: WIDTH - 8, y1: y(kw), y2: y(kw), class: "s-rule" }), s("text", { x: LEFT - 6, y: y(kw) + 5, "text-anchor": "end", class: "t-soft" }, number(kw, every < 1 ? 1 : 0))]),
    s("line", { x1: LEFT, x2: WIDTH - 8, y1: y(0), y2: y(0), class: "s-line" }),
    s("text", { x: LEFT, y: HEIGHT - 6, class: "t-soft" }, moment(answer.since)), s("text", { x: WIDTH - 8, y: HEIGHT - 6, "text-anchor": "end", class: "t-soft" }, moment(answer.until)),
    names.map((name, at) => pieces(answer.series[name]).map((piece) => s("g", { class: `s-${at % 4}` },
      s("path", { class: "s-band", d: `M${piece.map((one) => `${x(one[0])} ${scaled(name, one[2])}`).join("L")}L${[...piece].reverse().map((one) => `${x(one[0])} ${scaled(name, one[1])}`).join("L")}Z` }),
      s("path", { class: `s-trace s-${at % 4}`, d: `M${piece.map((one) => `${x(one[0])} ${scaled(name, one[3])}`).join("L")}`, fill: "none" })))),
    other && names.map((name, at) => pieces(other.series[name]).map((piece) => s("path", { class: `s-trace s-other s-${at % 4}`, d: `M${piece.map((one) => `${x(one[0])} ${scaled(name, one[3])}`).join("L")}`, fill: "none" }))));
}

// The same hours of another day, laid over these: its times are moved by whole days.
async function otherDay(chosen, since, until, day) {
  const there = Date.parse(`${day}T00:00Z`) / 1000;
  const shift = Math.floor((since + until) / 2 / 86400) * 86400 - there;
  const answer = await ask(`history?series=${chosen.map(encodeURIComponent).join(",")}&since=${since - shift}&until=${until - shift}&width=600`);
  for (const name of chosen) answer.series[name].slots = answer.series[name].slots.map((slot) => [slot[0] + shift, ...slot.slice(1)]);
  return answer;
}

// A stretch without readings is a hole in the line, never a line across it.
function pieces({ step_s: step, slots }) {
  const made = [];
  for (const slot of slots) {
    if (made.length && slot[0] - made.at(-1).at(-1)[0] <= 2 * step) made.at(-1).push(slot); else made.push([slot]);
  }
  return made.map((one) => (one.length === 1 ? [one[0], [one[0][0] + step, ...one[0].slice(1)]] : one));
}

export function history(main) {
  let [until, length] = [null, 86400];
  let chosen = null;
  let gone = false;
  const compared = h("input", { type: "date", id: "compared", onchange: () => draw() });
  const place = h("div", {});
  const wrong = h("p", { class: "soft", role: "status" });
  const picks = h("fieldset", { class: "card" }, h("legend", {}, w("history.series")));
  const csv = h("a", { download: true }, w("history.csv"));
  const step = (factor) => () => { until = (until ?? Date.now() / 1000 + offset) + factor * length; draw(); };
  const zoom = (factor) => () => { const end = until ?? nowUtc(); until = end - length * (1 - factor) / 2; length = Math.max(60, Math.round(length * factor)); draw(); };
  let offset = 0;
  const nowUtc = () => Date.now() / 1000 + offset; // corrected to the unit's clock when its series were asked for
  fill(main, h("h1", {}, w("screen.history")),
    h("div", { class: "buttons" }, Object.entries(RANGES).map(([key, seconds]) => h("button", { onclick: () => { length = seconds; until = null; draw(); } }, w(key)))),
    h("div", { class: "buttons" }, h("button", { onclick: step(-0.5) }, `← ${w("history.back")}`), h("button", { onclick: zoom(0.5) }, `+ ${w("history.in")}`), h("button", { onclick: zoom(2) }, `− ${w("history.out")}`), h("button", { onclick: step(0.5) }, `${w("history.on")} →`), h("button", { onclick: () => { until = null; draw(); } }, w("history.now")), csv),
    h("p", {}, h("label", { for: "compared" }, w("history.compare")), " ", compared),
    wrong, place, picks);

  async function draw() {
    const end = Math.round(until ?? nowUtc());
    const query = `series=${chosen.map(encodeURIComponent).join(",")}&since=${end - length}&until=${end}`;
    csv.setAttribute("href", `history?${query}&format=csv`);
    if (!chosen.length) { fill(place, h("p", {}, w("history.choose"))); return; }
    try {
      const answer = await ask(`history?${query}&width=600`);
      const day = compared.value;
      const other = day ? await otherDay(chosen, end - length, end, day) : null;
      if (gone) return;
      const rowOf = (from, name, at) => {
        const slots = from.series[name].slots;
        const label = from === other ? w("history.other", { name, day }) : name;
        const swatch = s("svg", { class: "swatch", viewBox: "0 0 34 10", "aria-hidden": "true" }, s("line", { x1: 0, x2: 34, y1: 5, y2: 5, "stroke-width": 3, class: `s-${at % 4}${from === other ? " s-other" : ""}` }));
        if (!slots.length) return [h("span", {}, swatch, " ", label), "–", "–", "–", "–"];
        const mean = slots.reduce((sum, one) => sum + one[3], 0) / slots.length;
        return [h("span", {}, swatch, " ", label), shownValue(name, Math.min(...slots.map((one) => one[1]))), shownValue(name, mean), shownValue(name, Math.max(...slots.map((one) => one[2]))), w("span.s", { n: from.series[name].step_s })];
      };
      const rows = chosen.flatMap((name, at) => [answer, other].filter(Boolean).map((from) => rowOf(from, name, at)));
      fill(place, h("div", { class: "card" }, h("p", { class: "small soft" }, w("history.axis")), chart(answer, chosen, other)), table(w("screen.history"), ["history.name", "history.least", "history.mean", "history.most", "history.step"].map((key) => w(key)), rows));
      wrong.textContent = chosen.every((name) => !answer.series[name].slots.length) ? w("history.empty") : "";
    } catch (why) {
      fill(wrong, english(why.message));
      fill(place);
    }
  }

  (async () => {
    try {
      const said = await ask("history/series");
      if (gone) return;
      offset = said.now_utc_s - Date.now() / 1000;
      chosen = FIRST.filter((name) => said.series.includes(name));
      picks.append(...said.series.map((name) => h("label", { class: "inline" }, h("input", { type: "checkbox", value: name, checked: chosen.includes(name), onchange: (event) => {
        chosen = event.target.checked ? [...chosen, name] : chosen.filter((one) => one !== name);
        if (chosen.length > 4) { event.target.checked = false; chosen.pop(); fill(wrong, w("history.four")); return; }
        draw();
      } }), `${name} `)));
      if (said.problem) fill(wrong, english(said.problem));
      await draw();
    } catch (why) {
      fill(wrong, english(why.message));
    }
  })();
  return { leave: () => { gone = true; } };
}
