import { card, english, facts, fill, h, isUsed, table } from "./draw.js";
import { live } from "./live.js";
import { moment, power, share, span, w, word } from "./words.js";

const shown = (name, value) => {
  if (name.endsWith("_w") || name.includes("_w_")) return power(value);
  return name.includes("soc") ? share(value) : String(value);
};

function stepRows(steps) {
  return steps.map((step) => [moment(step.start_utc_s), moment(step.end_utc_s), Object.entries(step).filter(([name]) => !["start_utc_s", "end_utc_s", "forced"].includes(name)).map(([name, value]) => h("div", {}, english(name), ` ${shown(name, value)}`)), step.forced ? w("yes") : w("no")]);
}

export function plan(main) {
  const inForce = h("div", {});
  const steps = h("div", {});
  const policies = h("div", {});
  fill(main, h("h1", {}, w("screen.plan")), h("div", { class: "cards" }, card(w("plan.now"), inForce), card(w("plan.policies"), policies), h("section", { class: "card wide" }, h("h2", {}, w("plan.steps")), steps)));
  const update = () => {
    const why = live.state.why;
    if (!why || isUsed(main)) return;
    fill(inForce, facts([[w("plan.source"), word("reason", why.preference)], [w("why.setpoint"), h("span", { class: "value" }, power(why.setpoint_w))], why.lease && [w("why.lease"), `${why.lease.holder} (${span(why.lease.expires_ms / 1000)})`], [w("plan.owner"), why.plan?.owner || "–"]]));
    const held = Object.entries(why.policies ?? {});
    fill(policies, held.length ? facts(held.map(([name, one]) => [english(name), english(typeof one === "object" ? JSON.stringify(one) : String(one))])) : h("p", { class: "soft" }, w("plan.no-policies")));
    const calendar = live.site.schedule ?? [];
    fill(steps, why.plan?.steps?.length ? table(w("plan.steps"), ["plan.from", "plan.until", "plan.what", "plan.forced"].map((key) => w(key)), stepRows(why.plan.steps)) : h("p", { class: "soft" }, w("plan.none"), " ", h("code", {}, "tidegate plan send")),
      calendar.length > 0 && h("p", {}, w("plan.calendar", { n: calendar.length })));
  };
  return { update };
}
