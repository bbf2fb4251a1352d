import { card, english, facts, fill, h } from "./draw.js";
import { confirmOrder } from "./orders.js";
import { siteFile } from "./sitefile.js";
import { ask, live } from "./live.js";
import { ownPasskeys } from "./passkeys.js";
import { w } from "./words.js";

export const STEPS = ["bms", "signs", "phases", "lag", "meter", "revert"];
// What `tidegate init` asks; lists are words with spaces between, roles and maps WHERE=VALUE.
const QUESTIONS = { name: "text", timezone: "text", serial: "list", tcp: "list", can: "list", roles: "list", maps: "list", energy_wh: "text", charge_w_max: "text", discharge_w_max: "text", connection_import_w_max: "text", connection_export_w_max: "text", peak_w_max: "text" };
const POLL_MS = 1000;

// The command that runs, with what it prints; looked at each second, which also keeps one that moves the battery alive.
// onEnd: called when a command that was seen running has ended; it may have written the site file.
function jobPanel(onEnd) {
  const place = h("div", {});
  const output = h("pre", { lang: "en", tabindex: "0" });
  const status = h("p", { role: "status" });
  const end = h("button", { class: "stop", onclick: () => ask("setup/end", {}).catch(() => {}) }, w("setup.end"));
  let [timer, gone, ran] = [null, false, false];
  async function look() {
    clearTimeout(timer);
    let job;
    try {
      job = await ask("setup/job");
    } catch (why) {
      if (gone) return;
      status.textContent = why.code === "unreachable" ? w("old.link") : why.message;
      timer = setTimeout(look, POLL_MS);
      return;
    }
    if (gone || !job.kind) return;
    const text = job.running ? w("setup.running", { by: job.user }) : `${w("setup.ended", { code: job.code })}${job.ended_because ? ` – ${job.ended_because}` : ""}`;
    if (status.textContent !== text) status.textContent = text;
    if (output.textContent !== job.lines.join("\n")) output.textContent = job.lines.join("\n");
    end.hidden = !job.running;
    if (!place.childElementCount) fill(place, h("h3", {}, w("setup.output")), h("p", {}, h("code", {}, job.command)), status, h("div", { class: "buttons" }, end), output);
    place.querySelector("code").textContent = job.command;
    if (job.running) timer = setTimeout(look, POLL_MS);
    else if (ran) onEnd();
    ran = job.running;
  }
  look();
  return { place, look, leave: () => { gone = true; clearTimeout(timer); } };
}

function check(id, text, checked = false) {
  return h("label", { class: "inline" }, h("input", { type: "checkbox", id, checked }), text);
}

function commission(app, look) {
  const power = h("input", { id: "commission-w", inputmode: "numeric" });
  const boxes = STEPS.map((step) => h("label", { class: "inline" }, h("input", { type: "checkbox", value: step, checked: step !== "revert" }), w(`step.${step}`)));
  const [start, write] = [check("commission-start", w("setup.commission-start")), check("commission-write", w("setup.commission-write"), true)];
  const send = (event) => {
    event.preventDefault();
    const skip = boxes.map((one) => one.firstChild).filter((one) => !one.checked).map((one) => one.value);
    confirmOrder(app, { kind: "commission", skip, start: start.firstChild.checked, write: write.firstChild.checked, ...(power.value ? { power_w: Number(power.value) } : {}) }, { path: "setup/task", name: "commission", done: look });
  };
  return h("form", { onsubmit: send }, h("p", {}, w("setup.commission-how")), h("fieldset", {}, h("legend", {}, w("setup.steps")), boxes), h("label", { for: "commission-w" }, w("setup.commission-w")), power, h("div", {}, start), h("div", {}, write),
    h("div", { class: "buttons" }, h("button", { class: "main" }, w("order.commission"))));
}

function init(app, look) {
  const send = (event) => {
    event.preventDefault();
    const given = Object.keys(QUESTIONS).map((name) => [name, event.target.elements[`init-${name}`].value.trim()]).filter(([, value]) => value);
    const answers = Object.fromEntries(given.map(([name, value]) => [name, QUESTIONS[name] === "list" ? value.split(/\s+/) : value]));
    confirmOrder(app, { kind: "init", answers }, { path: "setup/task", name: "init", done: look });
  };
  return h("form", { onsubmit: send }, h("p", {}, w("setup.init-how")), Object.keys(QUESTIONS).map((name) => [h("label", { for: `init-${name}` }, w(`ask.${name}`)), h("input", { id: `init-${name}`, name: `init-${name}`, autocapitalize: "none", spellcheck: "false" })]),
    h("div", { class: "buttons" }, h("button", { class: "main" }, w("order.init"))));
}

export function setup(main, app) {
  const place = h("section", { class: "card wide" }, h("h2", {}, w("setup.site-file")));
  const tools = h("section", { class: "card wide" }, h("h2", {}, w("setup.tools")));
  const job = app.session.role === "maintain" ? jobPanel(() => { if (held === null || document.getElementById("site-text")?.value === held) file(); }) : null;
  const site = live.site;
  let held; // the file's text as it was read: what somebody has typed since is not drawn over
  const file = async () => {
    try {
      const found = await ask("setup/file");
      held = found.text;
      fill(place, h("h2", {}, w("setup.site-file")), found.text === null ? init(app, job.look) : siteFile(app, found));
      const doctor = h("button", { onclick: () => ask("setup/task", { kind: "doctor" }).then(job.look, (why) => fill(problem, english(why.message))) }, "tidegate doctor");
      const problem = h("p", { class: "wrong", role: "alert" });
      const restart = found.changes && h("button", { onclick: () => confirmOrder(app, { kind: "restart" }, { path: "setup/task", name: "restart", done: job.look }) }, w("order.restart"));
      fill(tools, h("h2", {}, w("setup.tools")), problem, found.text !== null && [h("p", { class: "small" }, w("setup.doctor-how")), h("div", { class: "buttons" }, doctor, restart)], job.place,
        found.changes && found.text !== null && h("details", {}, h("summary", {}, w("setup.commission")), commission(app, job.look)));
    } catch (why) {
      fill(place, h("h2", {}, w("setup.site-file")), h("p", { class: "wrong", role: "alert" }, english(why.message)));
      tools.hidden = true;
    }
  };
  fill(main, h("h1", {}, w("screen.setup")), h("div", { class: "cards" },
    site && card(w("setup.site"), facts([[w("setup.name"), site.site.name], [w("setup.zone"), site.site.timezone], [w("setup.program"), h("code", {}, site.sha256.slice(0, 16))], [w("setup.units"), site.units.map((one) => one.name).join(", ")], site.simulated && [w("setup.simulated"), w("yes")]]),
      site.notes.length > 0 && h("ul", { lang: "en" }, site.notes.map((one) => h("li", {}, one)))),
    card(w("setup.you"), facts([[w("login.user"), app.session.user], [w("setup.role"), w(`role.${app.session.role}`)]]), h("p", { class: "small" }, w("setup.more"), " ", h("code", {}, "tidegate web pair"))),
    app.session.passkeys && card(w("passkey.title"), ownPasskeys(app)),
    card(w("setup.trust"), h("p", { class: "small" }, w("setup.trust-how")), h("p", { class: "small" }, h("code", {}, app.session.ca_sha256)), h("a", { href: "ca.crt" }, w("login.ca-file"))),
    card(w("setup.api"), h("p", { class: "small" }, w("setup.api-how"), " ", h("code", {}, "tidegate web grant")), h("a", { href: "openapi.json" }, "OpenAPI 3.1")),
    job && [place, tools]));
  if (job) file();
  return { leave: () => job?.leave() };
}
