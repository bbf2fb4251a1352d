import { card, english, facts, fill, h, isUsed, table } from "./draw.js";
import { ask, live } from "./live.js";
import { moment, number, power, share, span, w, word } from "./words.js";

const FIGURES = { cost_eur: "if.cost", import_kw_max: "if.peak", import_kwh: "if.energy", stored_kwh: "if.stored" };

const shown = (name, value) => {
  if (name.endsWith("_w") || name.includes("_w_")) return power(value);
  return name.includes("soc") ? share(value) : String(value);
};

function stepRows(steps) {
  return steps.map((step) => [moment(step.start_utc_s), moment(step.end_utc_s), Object.entries(step).filter(([name]) => !["start_utc_s", "end_utc_s", "forced"].includes(name)).map(([name, value]) => h("div", {}, english(name), ` ${shown(name, value)}`)), step.forced ? w("yes") : w("no")]);
}

const notHeld = (title, texts) => texts.length > 0 && [h("p", { class: "small" }, title), h("ul", { lang: "en" }, texts.map((one) => h("li", {}, one)))];

// A question to the planner: the plan in force beside the one that it would be. It moves nothing.
function whatIf() {
  const peak = h("input", { id: "if-peak", type: "number", min: "0", step: "any", inputmode: "decimal" });
  const later = h("input", { id: "if-later", type: "number", min: "0", max: "168", step: "any", inputmode: "decimal" });
  const button = h("button", { class: "main", type: "submit" }, w("if.ask"));
  const said = h("p", { role: "status" });
  const place = h("div", {});
  const asked = async (event) => {
    event.preventDefault();
    button.disabled = true;
    fill(said, w("if.asking"));
    fill(place);
    const [limit, hours] = [peak.value, later.value];
    try {
      const answer = await ask(`plan/what-if?peak_limit_kw=${encodeURIComponent(limit)}&jobs_later_h=${encodeURIComponent(hours)}`);
      const changed = [limit && w("if.limit", { kw: limit }), hours && w("if.jobs", { h: hours })].filter(Boolean).join(", ");
      fill(said, changed);
      const rows = Object.entries(FIGURES).map(([name, key]) => [w(key), number(answer.as_it_is[name], 2), number(answer.if[name], 2), number(answer.if[name] - answer.as_it_is[name], 2)]);
      fill(place, h("p", { class: "small soft" }, w("if.span", { from: moment(answer.start_utc_s), until: moment(answer.end_utc_s) })),
        table(w("if.title"), [w("if.figure"), w("if.as-it-is"), w("if.if"), w("if.difference")], rows),
        notHeld(w("if.not-held"), answer.relaxed), notHeld(w("if.not-held-if"), answer.relaxed_if));
    } catch (why) {
      fill(said, `${w("if.none")} `, english(why.message));
    }
    button.disabled = false;
  };
  return h("section", { class: "card wide", id: "what-if" }, h("h2", {}, w("if.title")), h("p", { class: "small soft" }, w("if.note")),
    h("form", { onsubmit: asked }, h("label", { for: "if-peak" }, w("if.peak-limit")), peak, h("label", { for: "if-later" }, w("if.later")), later, h("p", {}, button)), said, place);
}

export function plan(main) {
  const inForce = h("div", {});
  const steps = h("div", {});
  const policies = h("div", {});
  fill(main, h("h1", {}, w("screen.plan")), h("div", { class: "cards" }, card(w("plan.now"), inForce), card(w("plan.policies"), policies), h("section", { class: "card wide" }, h("h2", {}, w("plan.steps")), steps), whatIf()));
  const update = () => {
    const why = live.state.why;
    if (!why || isUsed(steps)) return;
    fill(inForce, facts([[w("plan.source"), word("reason", why.preference)], [w("why.setpoint"), h("span", { class: "value" }, power(why.setpoint_w))], why.lease && [w("why.lease"), `${why.lease.holder} (${span(why.lease.expires_ms / 1000)})`], [w("plan.owner"), why.plan?.owner || "–"]]));
    const held = Object.entries(why.policies ?? {});
    fill(policies, held.length ? facts(held.map(([name, one]) => [english(name), english(typeof one === "object" ? JSON.stringify(one) : String(one))])) : h("p", { class: "soft" }, w("plan.no-policies")));
    const calendar = live.site.schedule ?? [];
    fill(steps, why.plan?.steps?.length ? table(w("plan.steps"), ["plan.from", "plan.until", "plan.what", "plan.forced"].map((key) => w(key)), stepRows(why.plan.steps)) : h("p", { class: "soft" }, w("plan.none"), " ", h("code", {}, "tidegate plan send")),
      calendar.length > 0 && h("p", {}, w("plan.calendar", { n: calendar.length })));
  };
  return { update };
}
