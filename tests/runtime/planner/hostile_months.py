"""Seeded months of hostile plans through all that bounds them: measured history, the steps that are sent, the loop.

What is real: the history's peak without a battery, the steps of a plan, the compiled control with its limits and its
demand window. In the place of forecasts and solver stand plans that know nothing of the load: what they ask for is as
bad as can be. Quarter hours are missing or half covered, meters differ, the battery is derated and its state of charge
drifts, the planner is silent for up to 30 hours, clocks change, and the month turns under a plan.

Where ten thousand months are wanted, arithmetic stands in the place of the compiled control (compiled=False): charging
is cut at the limits that the step carries, and nothing is discharged to hold a mean. So it draws no less than that.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np

from tidegate.ext.control.corridor import Control
from tidegate.runtime.planner.peak_guard import highest_window_kw, last_of_window
from tidegate.runtime.planner.plan_inputs import Connection, Horizon, Storage
from tidegate.runtime.planner.plan_solver import Plan
from tidegate.runtime.planner.plan_steps import steps_of
from tidegate.runtime.planner.site_history import METERS_DIFFER, Quarter

QUARTER_S = 900
SAME_KW = 1e-6
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe")
EDGE = 32  # quarter hours lived before the month and after it
PLANS = ("charge", "random", "flip", "night", "greedy")


@dataclass(frozen=True)
class Lived:
    """kw: (quarters * parts,) true import, as a bill's register counts it (no export taken off), and what it would have
    been without the battery, of equal parts."""

    seed: int
    window_s: int
    begin_utc_s: int
    part_s: int
    grid_kw: np.ndarray
    alone_kw: np.ndarray
    months: list[slice]  # in parts
    zone: ZoneInfo
    charged_kwh: float

    def above_kw(self) -> list[float]:
        """Of each month: how much higher its highest billed window is than without the battery."""
        return [self._peak_kw(self.grid_kw, part) - self._peak_kw(self.alone_kw, part) for part in self.months]

    def _peak_kw(self, kw: np.ndarray, part: slice) -> float:
        # Days on which clocks change have windows as others do. What was cut (the simulation at its begin and end, a
        # window by the change itself) is no window of a bill.
        begins = self.begin_utc_s + self.part_s * np.arange(part.start, part.stop)
        quarters, of = np.unique(begins // QUARTER_S * QUARTER_S, return_inverse=True)
        offsets = np.array([offset_s(int(at), self.zone) for at in quarters])[of]
        changes = np.cumsum(np.diff(offsets, prepend=offsets[0]) != 0)
        window = (begins + offsets) // self.window_s + changes * (1 << 40)
        _, at, count = np.unique(window, return_inverse=True, return_counts=True)
        means = np.bincount(at, weights=kw[part])[count == self.window_s // self.part_s]
        return float(means.max(initial=0.0)) * self.part_s / self.window_s


def offset_s(utc_s: int, zone: ZoneInfo) -> int:
    """Of the local clock."""
    return int((datetime.fromtimestamp(utc_s, zone).utcoffset() or timedelta(0)).total_seconds())


def month_of(rng: np.random.Generator) -> tuple[ZoneInfo, int, int]:
    """(zone, first UTC second, quarter hours) of a local month of 2025; every third one has a clock change."""
    zone = ZoneInfo(ZONES[int(rng.integers(len(ZONES)))])
    month = int(rng.choice([3, 4, 10, 11])) if rng.random() < 0.34 else int(rng.integers(1, 13))
    begin = datetime(2025, month, 1, tzinfo=zone)
    end = datetime(2025 + month // 12, month % 12 + 1, 1, tzinfo=zone)
    first, last = int(begin.timestamp()), int(end.timestamp())
    return zone, first, (last - first) // QUARTER_S


def load_of(rng: np.random.Generator, quarters: int, parts: int) -> np.ndarray:
    """(quarters * parts,) kW of load less sun: levels that leap, a day's shape, noise, minutes unlike their quarter."""
    hour = np.arange(quarters) / 4 % 24
    level = rng.uniform(5, 80)
    leaps = np.cumsum(rng.random(quarters) < rng.uniform(0.002, 0.1))
    levels = level * rng.uniform(0.2, 2.0, int(leaps.max()) + 1)[leaps]
    shape = level * rng.uniform(0, 1) * np.maximum(0, np.sin((hour - rng.uniform(0, 12)) * np.pi / 12))
    trend = np.linspace(*rng.uniform(0.5, 1.5, 2), quarters)
    sun = rng.uniform(0, 1.5) * level * np.maximum(0, np.sin((hour - 6) * np.pi / 12)) * rng.uniform(0, 1, quarters)
    load = (levels + shape) * trend + np.abs(rng.normal(0, rng.uniform(0, 10), quarters)) - sun * (rng.random() < 0.5)
    if parts == 1:
        return load
    inner = np.abs(1 + rng.uniform(0, 0.4) * rng.standard_t(3, (quarters, parts)))
    late = rng.random(quarters) < 0.02  # a load that begins or ends within a quarter hour
    cut = rng.integers(1, parts, quarters)
    step = np.where(np.arange(parts) < cut[:, None], rng.uniform(0, 2, quarters)[:, None], 1.0)
    inner = np.where(late[:, None], step, inner)
    return (load[:, None] * inner).ravel()


def asked_kw(rng: np.random.Generator, kind: str, steps: int, storage: Storage) -> np.ndarray:
    """(steps,) battery power that a plan asks for, + discharge."""
    most, least = storage.discharge_kw_max, -storage.charge_kw_max
    if kind == "charge":
        return np.full(steps, least)
    if kind == "random":
        return rng.uniform(least, most, steps)
    if kind == "flip":
        return np.where(np.arange(steps) % int(rng.integers(2, 9)) == 0, most, least)
    if kind == "night":
        return np.where(np.arange(steps) // int(rng.integers(8, 49)) % 2, least, most)
    return rng.choice([least, least / 2, 0.0, -0.04, most / 3], steps)


def lived(seed: int, parts: int = 1, *, compiled: bool = True) -> Lived:
    """One month and the hours around it. parts: of a quarter hour, in each of which the loop decides once."""
    rng = np.random.default_rng(seed)
    zone, first_s, quarters = month_of(rng)
    window_s = int(rng.choice([900, 900, 900, 1800, 3600]))
    begin_s, quarters = first_s - EDGE * QUARTER_S, quarters + 2 * EDGE
    part_s, load = QUARTER_S // parts, load_of(rng, quarters, parts)
    power = float(rng.uniform(3, 80))
    storage = Storage(power * float(rng.uniform(0.5, 6)), power, power, float(rng.uniform(0.85, 0.98)),
                      float(rng.uniform(0.85, 0.98)))  # fmt: skip
    kind = PLANS[int(rng.integers(len(PLANS)))]
    holes, covered, off = rng.uniform(0, 0.2), rng.uniform(0, 0.2), rng.uniform(-1, 1) * METERS_DIFFER
    derated = np.where(rng.random(quarters) < 0.1, rng.uniform(0, 1, quarters), 1.0).tolist()
    missing, half, wrong = rng.random(quarters) < holes, rng.random(quarters) < covered, rng.uniform(0.5, 2, quarters)
    silent_h = float(rng.choice([3.0, 30.0] if compiled else [24.0, 30.0]))
    least, most = storage.least_kwh, storage.most_kwh
    control = Control(demand_window_s=float(window_s), recharge_rate_w=0.0, soc_min=storage.soc_min)
    known_kw = np.full(quarters, np.nan)  # as SiteHistory.alone_peak_kw has them
    stored, drift = storage.least_kwh, float(rng.uniform(-0.05, 0.05))
    months = [datetime.fromtimestamp(begin_s + k * QUARTER_S, zone).month for k in range(quarters)]
    month_begin_s, next_plan, sent = begin_s, 0, None
    step_h = part_s / 3600
    grid_kw, battery = np.empty(quarters * parts), 0.0
    used_ws, window_at, charged = 0.0, None, 0.0
    for k in range(quarters):
        at_s = begin_s + k * QUARTER_S
        if k and months[k] != months[k - 1]:
            month_begin_s = at_s
        if k == next_plan:
            next_plan = k + 1 + int(rng.exponential(4 * silent_h))
            # What is known of the month is what has been lived of it here.
            bound_kw = highest_window_kw(month_begin_s, QUARTER_S, known_kw[(month_begin_s - begin_s) // QUARTER_S : k],
                                         window_s, zone)  # fmt: skip
            sent = Sent(hostile(rng, kind, storage, at_s, months[k : k + 96], bound_kw, quarters - k, window_s,
                                zone))  # fmt: skip
        offset = offset_s(at_s, zone)
        quarter_grid = 0.0
        for part in range(parts):
            now_s = at_s + part * part_s
            clock_s = now_s + offset
            if clock_s // window_s != window_at:
                window_at, used_ws = clock_s // window_s, 0.0
            elapsed_s = float(clock_s % window_s)
            net_kw = float(load[k * parts + part])
            give, take = derated[k] * power, derated[k] * power
            give = min(give, (stored - least) / step_h * storage.discharge_efficiency)
            take = min(take, (most - stored) / step_h / storage.charge_efficiency)
            order = sent.at(now_s) if sent is not None else {}
            until, plan_w = order.get("until_soc"), order.get("setpoint_w")
            told = min(max(stored / storage.energy_kwh + drift, 0.0), 1.0)
            if until is not None and plan_w:
                plan_w = 0.0 if (told >= until if plan_w < 0 else told <= until) else plan_w
            decide = compiled_kw if compiled else plain_kw
            asked = decide(control, order, plan_w, net_kw, battery, (give, take, told, storage.energy_kwh),
                           (used_ws, elapsed_s, window_s, part_s))  # fmt: skip
            battery = min(max(asked, -take), give)
            moved = battery / storage.discharge_efficiency if battery > 0 else battery * storage.charge_efficiency
            stored = min(max(stored - moved * step_h, least), most)
            charged += max(0.0, -battery) * step_h
            grid = net_kw - battery
            grid_kw[k * parts + part] = grid
            used_ws += max(0.0, grid) * 1e3 * part_s
            quarter_grid += grid / parts
        if not missing[k]:
            net = float(load[k * parts : (k + 1) * parts].mean()) if parts > 1 else net_kw
            seen = net - quarter_grid  # the battery's mean, by a meter that differs
            known = quarter_grid + seen * (1 + off)
            scale, counted = (wrong[k], 0.98) if half[k] else (1.0, 1.0)
            known_kw[k] = Quarter(known * scale, 0.0, quarter_grid * scale, counted).alone_kw
    edges = [0, *[k for k in range(1, quarters) if months[k] != months[k - 1]], quarters]
    parts_of = [slice(a * parts, b * parts) for a, b in pairwise(edges)]
    return Lived(seed, window_s, begin_s, part_s, np.maximum(grid_kw, 0.0), np.maximum(load, 0.0), parts_of, zone,
                 charged)  # fmt: skip


Orders = dict[str, float | int]
Can = tuple[float, float, float, float]  # kW to give and to take, the state of charge that is told, kWh


def compiled_kw(control: Control, order: Orders, plan_w: float | None, net_kw: float, battery: float,
                can: Can, window: tuple[float, float, int, int]) -> float:  # fmt: skip
    """What the compiled control asks of the battery."""
    (give, take, soc, energy_kwh), (used_ws, elapsed_s, window_s, part_s) = can, window
    made = control.step(
        grid_w=(net_kw - battery) * 1e3, ess_w=battery * 1e3, soc=soc, energy_wh=energy_kwh * 1e3,
        lo_w=-take * 1e3, hi_w=give * 1e3, dt_s=float(part_s), plan_w=plan_w, import_w_max=order.get("import_w_max"),
        demand_w_max=order.get("demand_w_max"), setpoint_w=battery * 1e3, paired=True,
        demand=(used_ws / elapsed_s if elapsed_s else 0.0, elapsed_s, window_s - elapsed_s),
    )  # fmt: skip
    return made.request_total_w / 1e3


def plain_kw(_control: Control, order: Orders, plan_w: float | None, net_kw: float, _battery: float,
             _can: Can, window: tuple[float, float, int, int]) -> float:  # fmt: skip
    """The same by arithmetic, with no discharge but the plan's."""
    if not plan_w:
        return 0.0
    if plan_w > 0:
        return plan_w / 1e3
    used_ws, elapsed_s, window_s, _ = window
    limits = [order["import_w_max"], (order["demand_w_max"] * window_s - used_ws) / (window_s - elapsed_s)]
    return max(plan_w / 1e3, min(0.0, net_kw - min(limits) / 1e3))


def hostile(rng: np.random.Generator, kind: str, storage: Storage, at_s: int, months: list[int], bound_kw: float,
            left: int, window_s: int, zone: ZoneInfo) -> tuple[list[dict[str, float | int]], int]:  # fmt: skip
    """The steps that would be sent of a plan that asks for what it likes."""
    n = min(96, left)
    power, zero = asked_kw(rng, kind, n, storage), np.zeros(n)
    counts = np.array([month == months[0] for month in months[:n]])
    horizon = Horizon(at_s, QUARTER_S, zero, zero, zero, zero, counts,
                      recharges=last_of_window(at_s, QUARTER_S, n, window_s, zone))  # fmt: skip
    edge = storage.soc_max if rng.random() < 0.5 else rng.uniform(storage.soc_min, storage.soc_max)
    stored = np.where(power < 0, edge, storage.soc_min) * storage.energy_kwh
    charge, discharge, none = np.maximum(-power, 0.0), np.maximum(power, 0.0), np.zeros((0, n))
    plan = Plan(horizon, charge, discharge, zero, zero, zero, stored, none, 0.0, 0.0, 0.0, zero, zero)
    connection = Connection(1e4, 1e4, demand_eur_per_kw=8.0, recharge_kw_max=bound_kw)
    return steps_of(plan, storage, connection)


class Sent:
    """A plan in the site: its steps by the clock."""

    def __init__(self, made: tuple[list[dict[str, float | int]], int]) -> None:
        self.steps, self.end_s = made
        self.next = 0

    def at(self, now_s: int) -> dict[str, float | int]:
        """What holds now; {} after the end. Moments come in order."""
        while self.next < len(self.steps) and self.steps[self.next]["start_utc_s"] <= now_s:
            self.next += 1
        return self.steps[self.next - 1] if self.next and now_s < self.end_s else {}
