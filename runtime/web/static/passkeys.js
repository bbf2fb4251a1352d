// Passkeys: what an authenticator signs in the place of a password. Only under a name, never under an address.
import { english, fill, h } from "./draw.js";
import { ask } from "./live.js";
import { moment, w } from "./words.js";

const bytes = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (sign) => sign.charCodeAt(0));
const text = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");

// What somebody without a passkey's place reads instead of a button: an old browser, or a page opened by an address.
export function lack(app) {
  const given = app.session.passkeys;
  if (!given) return h("span", {});
  if (!window.PublicKeyCredential) return h("p", { class: "small soft" }, w("passkey.old"));
  if (given.rp_id) return null;
  const port = location.port ? `:${location.port}` : "";
  return h("p", { class: "small soft" }, w("passkey.address"), given.names.map((name) => [" ", h("a", { href: `${location.protocol}//${name}${port}/` }, `${location.protocol}//${name}${port}`)]));
}

function failure(why) {
  if (why.code) return why.code === "unreachable" ? w("old.link") : english(why.message);
  return w("passkey.failed", { why: why.message.replace(/\.$/, "") || why.name });
}

async function options(kind, more = {}) {
  const said = await ask("session/passkey/options", { kind, ...more });
  const listed = (rows) => (rows ?? []).map((one) => ({ ...one, id: bytes(one.id) }));
  return { ...said, challenge: bytes(said.challenge), ...(said.user && { user: { ...said.user, id: bytes(said.user.id) } }),
    ...(said.allowCredentials && { allowCredentials: listed(said.allowCredentials) }), ...(said.excludeCredentials && { excludeCredentials: listed(said.excludeCredentials) }) };
}

// Ask for a signature and hand it in; kind is login or arm. Errors are shown in `wrong`; true where it was believed.
export async function usePasskey(kind, wrong) {
  try {
    const found = await navigator.credentials.get({ publicKey: await options(kind) });
    const { response } = found;
    await ask(`session/passkey/${kind}`, { credential: { id: found.id, rawId: text(found.rawId), type: found.type, response: {
      clientDataJSON: text(response.clientDataJSON), authenticatorData: text(response.authenticatorData), signature: text(response.signature), userHandle: response.userHandle ? text(response.userHandle) : null } } });
    return true;
  } catch (why) {
    fill(wrong, failure(why));
    return false;
  }
}

async function make(name, password) {
  const made = await navigator.credentials.create({ publicKey: await options("register", { password }) });
  await ask("session/passkey/register", { name, credential: { id: made.id, rawId: text(made.rawId), type: made.type, response: { clientDataJSON: text(made.response.clientDataJSON), attestationObject: text(made.response.attestationObject) } } });
}

// One's own passkeys on the set-up screen: those there are, and a form for one more.
export function ownPasskeys(app) {
  const place = h("div", {});
  const list = h("div", {});
  const wrong = h("p", { class: "wrong", role: "alert" });
  const draw = async () => {
    try {
      const { passkeys } = await ask("session/passkeys");
      fill(list, passkeys.length ? h("ul", {}, passkeys.map((one) => h("li", {}, one.name, " – ", h("span", { class: "small soft" }, w("passkey.made", { when: moment(one.made_utc_s), name: one.rp_id }), one.used_utc_s && `, ${w("passkey.used", { when: moment(one.used_utc_s) })}`), one.copied && h("span", { class: "tag high" }, `▲ ${w("passkey.copied")}`), " ",
        h("button", { onclick: async () => { await ask("session/passkey/remove", { id: one.id }).catch((why) => fill(wrong, failure(why))); await draw(); } }, w("passkey.remove", { name: one.name }))))) : h("p", { class: "soft" }, w("passkey.none")));
    } catch (why) {
      fill(wrong, failure(why));
    }
  };
  const send = async (event) => {
    event.preventDefault();
    const { elements } = event.target;
    fill(wrong);
    try {
      await make(elements["passkey-name"].value, elements["passkey-password"].value);
      event.target.reset();
    } catch (why) {
      fill(wrong, failure(why));
    }
    await draw();
  };
  const without = lack(app);
  fill(place, without ?? h("p", { class: "small" }, w("passkey.how", { name: app.session.passkeys.rp_id })), list, wrong, without === null && h("form", { onsubmit: send },
    h("label", { for: "passkey-name" }, w("passkey.name")), h("input", { id: "passkey-name", required: true, maxlength: 40, autocomplete: "off" }),
    h("label", { for: "passkey-password" }, w("login.password")), h("input", { id: "passkey-password", type: "password", required: true, autocomplete: "current-password" }),
    h("div", { class: "buttons" }, h("button", {}, w("passkey.add")))));
  draw();
  return place;
}
