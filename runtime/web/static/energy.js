import { english, fill, h, table } from "./draw.js";
import { ask } from "./live.js";
import { number, share, span, w } from "./words.js";

const KINDS = ["site", "node", "job", "namespace", "rack", "idle"];
const cell = (value, digits) => (value === null || value === undefined ? "–" : number(value, digits));

function rows(answer) {
  return answer.rows.flatMap((row) => ["now", "today"].filter((when) => row[when]).map((when) => {
    const at = row[when];
    return [row.name, row.node || "–", w(`energy.${when}`), cell(at.energy_kwh, 3), cell(at.kg, 3), cell(at.g_per_kwh, 0), cell(at.pue, 3), share(at.renewable_direct), share(at.renewable_stored), cell(at.cost, 2),
      at.doubts?.length ? h("details", {}, h("summary", {}, w("carbon.doubts", { n: at.doubts.length })), h("ul", { lang: "en" }, at.doubts.map((one) => h("li", {}, one)))) : w("energy.sound")];
  }));
}

export function energy(main) {
  const place = h("div", {});
  const wrong = h("p", { role: "status" });
  const kind = h("select", { id: "energy-kind", onchange: () => load() }, KINDS.map((one) => h("option", { value: one }, w(`energy.${one}`))));
  fill(main, h("h1", {}, w("screen.energy")), h("label", { for: "energy-kind" }, w("energy.by")), kind, h("p", { class: "small soft" }, w("energy.note")), wrong, place);
  let timer = 0;
  const load = async () => {
    clearTimeout(timer);
    try {
      const answer = await ask(`api/v1/carbon?of=${kind.value}`);
      wrong.textContent = `${w("carbon.age")}: ${span(answer.age_s)}${answer.late ? ` – ${w("carbon.late")}` : ""}`;
      if (!place.contains(document.activeElement)) {
        fill(place, table(w("screen.energy"), ["energy.name", "energy.node", "energy.span", "energy.kwh", "energy.kg", "energy.g", "carbon.pue", "energy.direct", "energy.stored", "energy.cost", "energy.doubts"].map((key) => w(key)), rows(answer)));
      }
    } catch (why) {
      fill(wrong, `${w("carbon.none")} `, english(why.message));
      fill(place);
    }
    timer = setTimeout(load, 5000);
  };
  load();
  return { leave: () => clearTimeout(timer) };
}
