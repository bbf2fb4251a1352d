import { fill, h } from "./draw.js";
import { ask } from "./live.js";
import { lack, usePasskey } from "./passkeys.js";
import { w } from "./words.js";

function field(name, label, more = {}) {
  return [h("label", { for: name }, label), h("input", { id: name, name, required: true, ...more })];
}

export function login(main, app) {
  const code = new URLSearchParams(location.hash.slice(1)).get("pair");
  const pairing = code !== null || !app.session.has_users;
  const wrong = h("p", { class: "wrong", role: "alert" });
  document.title = `${w("login.title")} – Tidegate`;

  const send = (path, names) => async (event) => {
    event.preventDefault();
    const body = Object.fromEntries(names.map((name) => [name, event.target.elements[name].value]));
    if ("again" in event.target.elements && event.target.elements.again.value !== body.password) {
      wrong.textContent = w("login.differ");
      return;
    }
    try {
      await ask(path, body);
      if (code !== null) window.history.replaceState(null, "", app.pairCommand ? "#sites" : "#now");
      await app.again();
    } catch (why) {
      wrong.textContent = why.code === "unreachable" ? w("old.link") : why.message;
    }
  };
  const known = h("form", { onsubmit: send("session/login", ["user", "password"]) },
    field("user", w("login.user"), { autocomplete: "username", autocapitalize: "none", spellcheck: "false" }),
    field("password", w("login.password"), { type: "password", autocomplete: "current-password" }),
    h("div", { class: "buttons" }, h("button", { class: "main" }, w("login.go"))));
  const fresh = h("form", { onsubmit: send("session/pair", ["code", "user", "password"]) },
    h("p", {}, w("pair.how"), " ", h("code", {}, app.pairCommand ?? "tidegate web pair")),
    field("code", w("pair.code"), { value: code ?? "", autocomplete: "one-time-code", autocapitalize: "characters", spellcheck: "false" }),
    field("user", w("pair.user"), { autocomplete: "username", autocapitalize: "none", pattern: "[a-z][a-z0-9_\\-]{0,15}", title: w("pair.name-rule") }),
    field("password", w("pair.password"), { type: "password", autocomplete: "new-password", minlength: 8 }),
    field("again", w("pair.again"), { type: "password", autocomplete: "new-password" }),
    h("div", { class: "buttons" }, h("button", { class: "main" }, w("pair.go"))));
  const other = h("button", { onclick: () => { location.hash = pairing ? "" : "pair="; login(main, { ...app, session: { ...app.session, has_users: true } }); } }, pairing ? w("login.instead") : w("pair.instead"));
  const enter = async () => { if (await usePasskey("login", wrong)) await app.again(); };
  const passkey = !pairing && (lack(app) ?? h("div", { class: "buttons" }, h("button", { id: "passkey", onclick: enter }, w("passkey.use"))));
  fill(main, h("h1", {}, pairing ? w("pair.title") : w("login.title")), wrong, pairing ? fresh : known, passkey,
    app.session.has_users !== false && h("div", { class: "buttons" }, other),
    h("p", { class: "small soft" }, w("login.ca"), " ", h("code", {}, app.session.ca_sha256), " ", h("a", { href: "ca.crt" }, w("login.ca-file"))));
}
