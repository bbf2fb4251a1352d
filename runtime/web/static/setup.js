import { card, english, facts, fill, h } from "./draw.js";
import { ask, live } from "./live.js";
import { w } from "./words.js";

export function setup(main, app) {
  const file = h("div", {});
  const look = h("button", { onclick: async () => {
    look.disabled = true;
    fill(file, h("p", { role: "status" }, w("setup.checking")));
    try {
      const said = await ask("site-file");
      fill(file, h("p", { role: "status" }, h("span", { class: said.good ? "tag" : "tag high" }, said.good ? w("setup.good") : `▲ ${w("setup.bad")}`), ` ${said.path}`),
        h("h3", {}, w("setup.check")), h("pre", { lang: "en", tabindex: "0" }, said.check), h("h3", {}, w("setup.file")), h("pre", { lang: "en", tabindex: "0" }, said.text));
    } catch (why) {
      fill(file, h("p", { class: "wrong", role: "alert" }, english(why.message)));
    }
    look.disabled = false;
  } }, w("setup.look"));
  const site = live.site;
  fill(main, h("h1", {}, w("screen.setup")), h("div", { class: "cards" },
    card(w("setup.site"), facts([[w("setup.name"), site.site.name], [w("setup.zone"), site.site.timezone], [w("setup.program"), h("code", {}, site.sha256.slice(0, 16))], [w("setup.units"), site.units.map((one) => one.name).join(", ")], site.simulated && [w("setup.simulated"), w("yes")]]),
      site.notes.length > 0 && h("ul", { lang: "en" }, site.notes.map((one) => h("li", {}, one)))),
    card(w("setup.you"), facts([[w("login.user"), app.session.user], [w("setup.role"), w(`role.${app.session.role}`)]]), h("p", { class: "small" }, w("setup.more"), " ", h("code", {}, "tidegate web pair"))),
    card(w("setup.trust"), h("p", { class: "small" }, w("setup.trust-how")), h("p", { class: "small" }, h("code", {}, app.session.ca_sha256)), h("a", { href: "ca.crt" }, w("login.ca-file"))),
    card(w("setup.api"), h("p", { class: "small" }, w("setup.api-how"), " ", h("code", {}, "tidegate web grant")), h("a", { href: "openapi.json" }, "OpenAPI 3.1")),
    app.session.role === "maintain" && h("section", { class: "card wide" }, h("h2", {}, w("setup.site-file")), look, file)));
  return {};
}
