import { card, english, facts, fill, h, table } from "./draw.js";
import { askShelf, confirmOrder } from "./orders.js";
import { live, stateAge } from "./live.js";
import { momentHash, momentOf, momentOfEvent } from "./recorder.js";
import { moment, span, w, word } from "./words.js";

// What a person has to do how soon, by what the controller does about it itself.
const PRIORITY = { open: "high", zero_silent: "high", zero: "high", ramp_zero: "medium", derate: "medium", warn: "low", none: "low" };
const EVENTS_SHOWN = 60;
const SIGN = { high: "▲", medium: "◆", low: "●" };
export const priority = (alarm) => PRIORITY[alarm.reaction] ?? "high";

// What every signal did around it: its moment is looked up when it is asked for, since its age moves on.
function recorderButton(alarm) {
  if (momentOf(alarm) === null) return null;
  return h("button", { onclick: () => { location.hash = momentHash(momentOf(alarm)); }, "aria-label": `${w("recorder.open")}: ${alarm.unit} ${alarm.id}` }, w("recorder.open"));
}

// An alarm is put aside for a time, with a reason, or taken back.
function shelfButton(app, unit, alarm, shelved) {
  if (app.session.role === "read") return null;
  const go = () => (shelved ? confirmOrder(app, { action: "shelve", unit, alarm, for_ms: 0 }) : askShelf(app, unit, alarm));
  return h("button", { onclick: go, "aria-label": `${w(shelved ? "order.unshelve" : "order.shelve")}: ${unit} ${alarm}` }, w(shelved ? "order.unshelve" : "order.shelve"));
}

const shelvedText = (one) => w("alarms.shelved", { by: one.by, reason: one.reason, time: span(one.left_s) });

function item(app, alarm, first) {
  const level = priority(alarm);
  const since = alarm.since_s === null ? w("alarms.before") : span(alarm.since_s + stateAge() / 1000);
  return h("li", { class: `card alarm ${alarm.shelved ? "is-shelved" : `is-${level}`}` },
    h("h2", {}, h("span", { class: `tag ${level}` }, `${SIGN[level]} ${w(`priority.${level}`)}`), " ", english(alarm.text || alarm.id), first && [" ", h("span", { class: "tag" }, w("alarms.first"))]),
    facts([
      [w("alarms.unit"), alarm.unit], [w("alarms.since"), since],
      [w("alarms.state"), `${w(alarm.active ? "alarms.active" : "alarms.gone")}${alarm.latched ? `, ${w("alarms.latched")}` : ""}`],
      alarm.shelved && [w("alarms.shelf"), shelvedText(alarm.shelved)],
      [w("alarms.reaction"), word("reaction", alarm.reaction)], [w("alarms.cause"), english(alarm.cause)],
      alarm.finding && [w("alarms.finding"), english(alarm.finding)],
      [w("alarms.remedy"), [english(alarm.remedy.condition), alarm.remedy.acknowledge && ` ${w("alarms.then-ack")}`]],
    ]), h("div", { class: "buttons" }, recorderButton(alarm), shelfButton(app, alarm.unit, alarm.id, alarm.shelved)));
}

function event(one) {
  const at = momentOfEvent(one);
  return [at === null ? moment(one.utc_ns / 1e9) : h("a", { href: momentHash(at) }, moment(at)), english(one.event), english([one.name, one.detail, one.value === null || one.value === undefined ? "" : String(one.value)].filter(Boolean).join(" · "))];
}

export function alarms(main, app) {
  const list = h("ul", { class: "plain" });
  const findings = h("div", {});
  const events = h("div", {});
  const count = h("p", { role: "status" });
  const shelf = h("div", {});
  const ack = app.session.role === "maintain" && h("div", { class: "buttons" }, h("button", { onclick: () => confirmOrder(app, { action: "ack" }) }, w("order.ack")));
  fill(main, h("h1", {}, w("screen.alarms")), count, ack, list, shelf, h("div", { class: "cards" }, card(w("alarms.findings"), findings), h("section", { class: "card wide" }, h("h2", {}, w("alarms.events")), events)));
  let seen = "";
  const update = () => {
    if (live.state.alarms === undefined) return;
    const rows = [...live.state.alarms].sort((a, b) => Boolean(a.shelved) - Boolean(b.shelved));
    const away = (live.state.shelved ?? []).filter((one) => !rows.some((row) => row.id === one.alarm && row.unit === one.unit));
    const key = JSON.stringify([rows.map((one) => [one.id, one.unit, one.active, one.latched, Math.floor((one.since_s ?? 0) + 0), Math.ceil((one.shelved?.left_s ?? 0) / 60)]), away.map((one) => [one.unit, one.alarm]), live.state.findings, live.state.events.at(-1)?.seq]);
    if (key === seen) return;
    seen = key;
    const earliest = rows.filter((one) => one.active && one.since_s !== null).sort((a, b) => b.since_s - a.since_s)[0];
    const text = rows.length ? w("alarms.open", { n: rows.length }) : w("alarms.none");
    if (count.textContent !== text) count.textContent = text;
    fill(list, rows.map((one) => item(app, one, rows.length > 1 && one === earliest)));
    fill(shelf, away.length ? [h("h2", {}, w("alarms.shelf")), h("ul", {}, away.map((one) => h("li", {}, h("strong", {}, `${one.unit} ${one.alarm}`), " – ", shelvedText(one), " ", shelfButton(app, one.unit, one.alarm, one))))] : []);
    fill(findings, live.state.findings.length ? h("ul", { lang: "en" }, live.state.findings.map((one) => h("li", {}, h("strong", {}, one.title), " – ", one.because, " ", one.remedy))) : h("p", { class: "soft" }, w("alarms.no-findings")));
    if (!events.contains(document.activeElement)) {
      fill(events, table(w("alarms.events"), ["events.when", "events.what", "events.detail"].map((name) => w(name)), live.state.events.slice(-EVENTS_SHOWN).reverse().map(event)));
    }
  };
  return { update };
}
