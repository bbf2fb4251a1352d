// Orders: what it will do first, then a confirmation. The page only reads until the password was given again.
import { fill, h } from "./draw.js";
import { ask } from "./live.js";
import { lack, usePasskey } from "./passkeys.js";
import { power, span, w } from "./words.js";

const dialog = document.getElementById("dialog");

function shownIn(title, ...children) {
  fill(dialog, h("h2", { id: "dialog-title" }, title), children);
  if (!dialog.open) dialog.showModal();
}

function arm(app) {
  return new Promise((done) => {
    const wrong = h("p", { class: "wrong", role: "alert" });
    const field = h("input", { type: "password", id: "arm-password", autocomplete: "current-password", required: true });
    const send = async (event) => {
      event.preventDefault();
      try {
        await ask("session/arm", { password: field.value });
        await app.refresh();
        done(true);
      } catch (why) {
        wrong.textContent = why.message;
        field.value = "";
      }
    };
    const key = lack(app) === null && h("button", { type: "button", hidden: true, onclick: async () => {
      if (await usePasskey("arm", wrong)) { await app.refresh(); done(true); }
    } }, w("passkey.arm"));
    if (key) ask("session/passkeys").then((found) => { key.hidden = !found.here; }, () => {});
    dialog.addEventListener("close", () => done(false), { once: true });
    shownIn(w("arm.title"), h("p", {}, w("arm.how")), h("form", { onsubmit: send }, h("label", { for: "arm-password" }, w("login.password")), field, wrong,
      h("div", { class: "buttons" }, h("button", { class: "main" }, w("arm.go")), key, h("button", { type: "button", onclick: () => dialog.close() }, w("order.cancel")))));
    field.focus();
  });
}

function effectText(effect) {
  const list = (names) => (names?.length ? names.join(", ") : w("order.nothing"));
  return w(effect.name, {
    faults: list(effect.faults), lifts: list(effect.lifts), stays: list(effect.stays),
    limit: effect.import_w_max === undefined ? "" : power(effect.import_w_max), path: effect.path ?? "", time: effect.for_ms === undefined ? "" : span(effect.for_ms / 1000),
  });
}

// path, name: of what is no order of the site itself, such as a change of its file. done: called once it is carried out.
export async function confirmOrder(app, wanted, { path = "orders/prepare", name = wanted.action, done } = {}) {
  await app.refresh().catch(() => {});
  if (wanted.action !== "stop" && !(app.session?.armed_s > 0) && !(await arm(app))) return;
  let prepared;
  try {
    prepared = await ask(path, wanted);
  } catch (why) {
    shownIn(w("order.refused"), h("p", { class: "wrong", lang: "en" }, why.message), h("div", { class: "buttons" }, h("button", { onclick: () => dialog.close() }, w("order.close"))));
    return;
  }
  const outcome = h("p", { role: "status" });
  const go = h("button", { class: "main", onclick: async () => {
    go.disabled = true;
    try {
      const answer = await ask("orders/confirm", { token: prepared.token });
      outcome.textContent = w("order.done", { status: answer.status }) + (answer.text ? ` ${answer.text}` : "");
      await done?.();
    } catch (why) {
      outcome.textContent = `${w("order.refused")}: ${why.message}`;
    }
  } }, w("order.confirm", { order: w(`order.${name}`) }));
  shownIn([w(`order.${name}`), prepared.site].filter(Boolean).join(" – "), h("p", {}, effectText(prepared.effect)),
    h("div", { class: "buttons" }, go, h("button", { onclick: () => dialog.close() }, w("order.close"))), outcome);
}

// Why, and for how long, an alarm is put aside; then as any order.
export function askShelf(app, unit, alarm) {
  const reason = h("input", { id: "shelf-why", required: true, maxlength: "120" });
  const hours = h("select", { id: "shelf-for" }, [1, 4, 8, 24].map((n) => h("option", { value: String(n) }, span(n * 3600))));
  const send = (event) => {
    event.preventDefault();
    confirmOrder(app, { action: "shelve", unit, alarm, for_ms: Number(hours.value) * 3600000, reason: reason.value.trim() });
  };
  shownIn(`${w("order.shelve")} – ${unit} ${alarm}`, h("form", { onsubmit: send }, h("label", { for: "shelf-why" }, w("alarms.reason")), reason,
    h("label", { for: "shelf-for" }, w("alarms.for")), hours,
    h("div", { class: "buttons" }, h("button", { class: "main" }, w("order.shelve")), h("button", { type: "button", onclick: () => dialog.close() }, w("order.cancel")))));
  reason.focus();
}
