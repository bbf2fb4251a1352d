// What the unit says now. Ages are the unit's own, carried on by this browser's clocks: by the monotonic one, and by what
// the wall clock went on more, since the first stands still while a phone sleeps. What time it is no clock here is asked,
// since a phone's may be wrong; and a number that is old is never shown as a live one.
import { language } from "./words.js";

export const live = {
  site: null, points: {}, state: {}, silent: true, connected: false, utcS: null, utcSync: "I",
  snapshotAgeMs: null, snapshotAt: null, stateAgeMs: null, stateAt: null,
};
const OLD_MS = 3000;
const STATE_OLD_MS = 10000;
const STALLED_MS = 8000; // the unit speaks each second: what says nothing for so long is dead, whatever TCP believes
const ANSWER_MS = 30000; // of a question that is answered at once, were its connection not dead
const SLOW = /^(recordings|setup|plan|history)/;
const REST_MS = 20000; // a tab that nobody sees gives its connection back: a browser has six for all tabs of a host
const mark = () => ({ steady: performance.now(), wall: Date.now() });
const since = (at) => Math.max(performance.now() - at.steady, Date.now() - at.wall);
let source = null;
let ended = null;
let heard = mark();
let rest = null;
let listeners = [];
let due = false;

export const onChange = (listener) => { listeners = [listener]; };

function changed() {
  if (due || document.hidden) return;
  due = true;
  requestAnimationFrame(() => { due = false; listeners.forEach((one) => one()); });
}

export function snapshotAge() {
  return live.snapshotAgeMs === null ? null : live.snapshotAgeMs + since(live.snapshotAt);
}

// Of the reasons and alarms, which are asked apart from the numbers; null = they never came.
export function stateAge() {
  return live.stateAgeMs === null ? null : live.stateAgeMs + since(live.stateAt);
}

export const isStateOld = () => stateAge() > STATE_OLD_MS;

export function isOld() {
  const age = snapshotAge();
  return !live.connected || live.silent || age === null || age > OLD_MS + (live.silentAfterMs ?? 0) || isStateOld();
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
  return (said + stateAge()) / 1000;
}

export async function ask(path, body) {
  const how = body === undefined ? {} : { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  let answer;
  try {
    answer = await fetch(path, { ...how, cache: "no-store", signal: SLOW.test(path) ? undefined : AbortSignal.timeout?.(ANSWER_MS) });
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
  ended = onEnd;
  heard = mark();
  const phone = window.matchMedia("(max-width: 600px)").matches;
  const own = new EventSource(`live?hz=${phone ? 5 : 10}`);
  source = own;
  own.onopen = () => { heard = mark(); live.connected = true; changed(); };
  own.onerror = () => {
    if (source !== own) return;
    live.connected = false;
    changed();
    if (own.readyState === EventSource.CLOSED) { close(); setTimeout(onEnd, 2000); }
  };
  own.addEventListener("ended", () => { close(); onEnd(); });
  own.addEventListener("values", (event) => {
    const frame = JSON.parse(event.data);
    heard = mark();
    live.connected = true;
    if (frame.full) live.points = frame.points; else Object.assign(live.points, frame.points);
    Object.assign(live, { silent: frame.silent, utcS: frame.utc_s, utcSync: frame.utc_sync, snapshotAgeMs: frame.age_ms, snapshotAt: mark() });
    changed();
  });
  own.addEventListener("state", (event) => {
    live.state = JSON.parse(event.data);
    Object.assign(live, { stateAgeMs: live.state.asked_age_ms, stateAt: mark() });
    changed();
  });
}

export function close() {
  source?.close();
  source = null;
  ended = null;
  live.connected = false;
}

// Whether the unit's values are asked for at all: not while no site runs.
export const isFollowed = () => ended !== null;

function look() {
  if (source !== null && !document.hidden && since(heard) > STALLED_MS) open(ended);
  changed();
}

setInterval(look, 1000);
document.addEventListener("visibilitychange", () => {
  clearTimeout(rest);
  if (document.hidden) {
    rest = setTimeout(() => { source?.close(); source = null; live.connected = false; }, REST_MS);
  } else if (ended !== null && source === null) open(ended);
  look();
});
// A page that comes back out of the browser's cache of pages went on with nothing meanwhile.
window.addEventListener("pageshow", (event) => { if (event.persisted && ended !== null) open(ended); });
export const spoken = () => language;
