import { english, facts, fill, h, isUsed, table } from "./draw.js";
import { age, live, quality } from "./live.js";
import { number, span, w } from "./words.js";

const SHOWN = ["good", "held"];

function deviceCard(device) {
  const names = live.site.points.filter((point) => !point.hidden && point.name.startsWith(`${device.name}.`)).map((point) => point.name);
  const ages = names.map(age).filter((one) => one !== null);
  const lost = names.filter((name) => !SHOWN.includes(quality(name)));
  const youngest = ages.length ? Math.min(...ages) : null;
  const silent = youngest === null || youngest > 5;
  const tag = silent ? h("span", { class: "tag high" }, `▲ ${w("devices.silent")}`) : lost.length ? h("span", { class: "tag" }, w("devices.partly", { n: lost.length })) : h("span", { class: "tag" }, w("devices.good"));
  return h("section", { class: "card" }, h("h2", {}, device.name, " ", tag), facts([
    [w("devices.kind"), w(`kind.${device.kind}`)], [w("devices.map"), english(device.title || device.map)], [w("devices.bus"), device.bus],
    [w("devices.age"), h("span", { class: "value" }, span(youngest))], [w("devices.points"), `${names.length - lost.length} / ${names.length}`],
  ]),
  lost.length > 0 && h("details", {}, h("summary", {}, w("devices.lost", { n: lost.length })), h("ul", {}, lost.map((name) => h("li", {}, `${name}: ${w(`quality.${quality(name)}`)}`)))),
  device.doubts.length > 0 && h("details", {}, h("summary", {}, w("devices.doubts", { n: device.doubts.length })), h("ul", { lang: "en" }, device.doubts.map((one) => h("li", {}, one)))));
}

function busRows() {
  const buses = live.state.health?.buses;
  if (!buses) return [];
  const serial = Object.entries(buses.serial ?? {}).map(([name, port]) => {
    const damaged = port.crc_errors + port.shorts + port.mismatches;
    return [name, english(port.thread_lost ? "lost" : "open"), String(port.ok), String(port.timeouts), String(damaged), String(port.exceptions ?? 0)];
  });
  const can = Object.entries(buses.can ?? {}).map(([name, bus]) => [name, english(bus.state), String(bus.frames), "–", String(bus.error_frames), String(bus.bus_off)]);
  return [...serial, ...can];
}

export function devices(main) {
  const cards = h("div", { class: "cards" });
  const buses = h("div", {});
  const loop = h("div", {});
  fill(main, h("h1", {}, w("screen.devices")), cards, h("h2", {}, w("devices.buses")), buses, h("h2", {}, w("devices.core")), loop);
  let drawn = -1e9;
  const update = () => {
    if (!live.site || performance.now() - drawn < 1000 || isUsed(main)) return;
    drawn = performance.now();
    fill(cards, live.site.devices.map(deviceCard));
    fill(buses, table(w("devices.buses"), ["devices.bus", "devices.state", "devices.answers", "devices.timeouts", "devices.damaged", "devices.refused"].map((key) => w(key)), busRows()));
    const core = live.state.health?.core;
    fill(loop, facts([[w("devices.running"), core ? (core.running && !core.stalled ? w("yes") : h("span", { class: "tag high" }, `▲ ${w("no")}`)) : w("age.never")],
      [w("devices.image"), core?.image_age_ms === undefined || core?.image_age_ms === null ? "–" : `${number(core.image_age_ms, 1)} ms`],
      [w("devices.journal"), live.state.health?.journal?.error ? h("span", { class: "tag high", lang: "en" }, `▲ ${live.state.health.journal.error}`) : w("devices.good")]]));
  };
  return { update };
}
