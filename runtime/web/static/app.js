import { fill, h } from "./draw.js";
import { ask, close, describe, isFollowed, isOld, isStateOld, live, onChange, open, snapshotAge, stateAge } from "./live.js";
import { LANGUAGES, language, moment, preferred, span, speak, w, word } from "./words.js";
import { confirmOrder } from "./orders.js";
import { login } from "./login.js";
import { now } from "./now.js";
import { alarms } from "./alarms.js";
import { devices } from "./devices.js";
import { energy } from "./energy.js";
import { history } from "./history.js";
import { plan } from "./plan.js";
import { recorder } from "./recorder.js";
import { setup } from "./setup.js";

const SCREENS = { now, alarms, devices, energy, history, plan, setup };
const BELOW = { recorder: "alarms" }; // a screen that another one leads to
const DRAWN = { ...SCREENS, recorder };
const RELOAD_MS = 30000; // a browser gives no reason for a stream that it cannot open, a changed certificate included
const head = document.getElementById("head");
const main = document.getElementById("main");
const banner = document.getElementById("banner");
export const app = { session: null, refresh, again: start };
let shown = null;
let parts = {};

const asked = () => location.hash.slice(1).split("@")[0];
const screenName = () => (asked() in DRAWN ? asked() : "now");
const inBar = (name) => BELOW[name] ?? name;

async function refresh() {
  app.session = await ask("session");
}

function drawHead() {
  const languages = h("select", { id: "language", "aria-label": w("head.language"), onchange: async (event) => {
    localStorage.setItem("language", event.target.value);
    await speak(event.target.value);
    drawHead();
    show(true);
  } }, Object.entries(LANGUAGES).map(([key, name]) => h("option", { value: key, selected: key === language, lang: key }, name)));
  document.getElementById("skip").textContent = w("head.skip");
  parts = { mode: h("span", { class: "tag value" }), age: h("span", { class: "small soft" }), clock: h("span", { class: "small soft" }) };
  const stop = h("button", { class: "stop", onclick: () => confirmOrder(app, { action: "stop" }) }, `■ ${w("order.stop")}`);
  const may = app.session?.role && app.session.role !== "read";
  fill(head, h("div", { class: "bar" },
    h("span", { class: "site" }, app.session?.site || "Tidegate"), app.session?.user && [parts.mode, parts.age, parts.clock],
    h("span", { class: "push" }), may && stop, languages,
    app.session?.user && h("button", { onclick: logout }, `${w("head.logout")} (${app.session.user})`)),
  app.session?.user && h("nav", { "aria-label": w("head.screens") }, h("ul", {}, Object.keys(SCREENS).map((name) =>
    h("li", {}, h("a", { href: `#${name}`, "aria-current": name === inBar(screenName()) && "page" }, w(`screen.${name}`)))))));
}

async function logout() {
  close();
  await ask("session/logout", {}).catch(() => {});
  await start();
}

function show(again = false) {
  if (!app.session?.user) return;
  const name = screenName();
  if (live.site === null && name !== "setup") {
    start(); // no site has run so far: does one now?
    return;
  }
  if (shown?.hash === location.hash && shown?.name === name && !again) return;
  shown?.leave?.();
  for (const link of head.querySelectorAll("nav a")) {
    if (link.getAttribute("href") === `#${inBar(name)}`) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  document.title = `${w(`screen.${name}`)} – ${app.session.site || "Tidegate"}`;
  shown = { name, hash: location.hash, ...DRAWN[name](main, app) };
  update();
}

function update() {
  if (!app.session?.user) return;
  const old = isOld();
  const age = snapshotAge();
  document.body.classList.toggle("old", old);
  let text = "";
  if (old && live.connected && !live.silent && isStateOld()) {
    text = w("old.state", { age: span(stateAge() / 1000) });
  } else if (old) {
    const why = live.connected || !isFollowed() ? w("old.site") : w("old.link");
    text = age === null ? `${why} ${w("old.none")}` : `${why} ${w("old.since", { age: span(age / 1000) })}`;
    if (isFollowed() && !live.connected && age > RELOAD_MS) text += ` ${w("old.reload")}`;
  }
  // Seconds that go by are not read out again and again: only the first words change what a reader of screens hears.
  if (banner.dataset.kind !== `${old}${live.connected}` || !old) banner.textContent = text;
  else if (banner.firstChild) banner.firstChild.nodeValue = text;
  banner.dataset.kind = `${old}${live.connected}`;
  if (parts.mode) {
    parts.mode.textContent = word("mode", live.state.why?.mode) || "–";
    parts.age.textContent = age === null ? w("age.never") : w("age.ago", { age: span(age / 1000) });
    parts.clock.textContent = live.utcS === null ? "" : `${w("head.clock")} ${moment(live.utcS)}${live.utcSync === "S" ? "" : ` – ${w(`sync.${live.utcSync}`)}`}`;
  }
  shown?.update?.();
}

async function start() {
  close();
  shown = null;
  try {
    await refresh();
  } catch {
    fill(main, h("p", {}, w("old.link")));
    setTimeout(start, 3000);
    return;
  }
  document.body.classList.remove("old");
  banner.textContent = "";
  drawHead();
  if (!app.session.user) {
    document.getElementById("dialog").close(); // what was to be ordered was somebody's who is logged in no more
    login(main, app);
    return;
  }
  try {
    await describe();
  } catch (why) {
    const retry = setTimeout(start, 3000);
    const setUp = app.session.role === "maintain" && h("button", { onclick: () => { clearTimeout(retry); location.hash = "setup"; show(true); } }, w("screen.setup"));
    fill(main, h("h1", {}, app.session.site || "Tidegate"), h("p", { class: "wrong", role: "alert" }, w("old.site"), " ", h("span", { lang: "en" }, why.message)), setUp && h("div", { class: "buttons" }, setUp));
    return;
  }
  drawHead();
  onChange(update);
  open(start);
  show(true);
}

window.addEventListener("hashchange", () => { show(); main.focus(); });
await speak(preferred());
await start();
