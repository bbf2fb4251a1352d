// What the unit says now. Ages are the unit's own, carried on by this browser's monotonic clock; its wall clock is never
// asked, since a phone's may be wrong, and a number that is old is never shown as a live one.
import { language } from "./words.js";

export const live = {
  site: null, points: {}, state: {}, silent: true, connected: false, utcS: null, utcSync: "I",
  snapshotAgeMs: null, snapshotAt: 0, stateAgeMs: null, stateAt: 0,
};
const OLD_MS = 3000;
let source = null;
let listeners = [];
let due = false;

export const onChange = (listener) => { listeners = [listener]; };

function changed() {
  if (due || document.hidden) return;
  due = true;
  requestAnimationFrame(() => { due = false; listeners.forEach((one) => one()); });
}

export function snapshotAge() {
  return live.snapshotAgeMs === null ? null : live.snapshotAgeMs + (performance.now() - live.snapshotAt);
}

export function isOld() {
  const age = snapshotAge();
  return !live.connected || live.silent || age === null || age > OLD_MS + (live.silentAfterMs ?? 0);
}

export function value(name) {
  return live.points[name]?.[0] ?? null;
}

export function quality(name) {
  return live.site?.qualities?.[live.points[name]?.[1] ?? 0] ?? "never";
}

// Age of a reading in s, as the unit said it last and carried on since; null = it never came.
export function age(name) {
  const said = live.state.ages_ms?.[name];
  if (said === undefined || said === null) return null;
  return (said + live.stateAgeMs + performance.now() - live.stateAt) / 1000;
}

export async function ask(path, body) {
  const how = body === undefined ? {} : { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  let answer;
  try {
    answer = await fetch(path, { ...how, cache: "no-store" });
  } catch {
    throw Object.assign(new Error("unreachable"), { code: "unreachable" });
  }
  const said = await answer.json().catch(() => ({ text: `HTTP ${answer.status}` }));
  if (!answer.ok) throw Object.assign(new Error(said.text ?? said.code), { code: said.code, status: answer.status });
  return said;
}

export async function describe() {
  live.site = (await ask("api/v1/describe")).site;
  live.silentAfterMs = Math.max(0, 3000 / live.site.site.snapshot_hz - OLD_MS);
}

export function open(onEnd) {
  close();
  const phone = window.matchMedia("(max-width: 600px)").matches;
  source = new EventSource(`live?hz=${phone ? 5 : 10}`);
  source.onopen = () => { live.connected = true; changed(); };
  source.onerror = () => {
    live.connected = false;
    changed();
    if (source?.readyState === EventSource.CLOSED) { close(); setTimeout(onEnd, 2000); }
  };
  source.addEventListener("ended", () => { close(); onEnd(); });
  source.addEventListener("values", (event) => {
    const frame = JSON.parse(event.data);
    live.connected = true;
    if (frame.full) live.points = frame.points; else Object.assign(live.points, frame.points);
    Object.assign(live, { silent: frame.silent, utcS: frame.utc_s, utcSync: frame.utc_sync, snapshotAgeMs: frame.age_ms, snapshotAt: performance.now() });
    changed();
  });
  source.addEventListener("state", (event) => {
    live.state = JSON.parse(event.data);
    Object.assign(live, { stateAgeMs: live.state.asked_age_ms ?? 0, stateAt: performance.now() });
    changed();
  });
}

export function close() {
  source?.close();
  source = null;
  live.connected = false;
}

setInterval(changed, 1000);
document.addEventListener("visibilitychange", changed);
export const spoken = () => language;
