"""How low a peak can be promised, and the energy to keep for it: from the forecast's own past errors, as whole paths.

Each path is the forecast plus what one past forecast missed. For each, the lowest limit that the battery can hold is
worked out; the promise is a quantile of them. A limit held too low empties the battery, and the peak comes after all.
"""

from dataclasses import dataclass
from datetime import datetime, tzinfo

import numpy as np

from tidegate.runtime.planner.plan_inputs import Flags, Floats, Storage

PROMISE = (
    0.5  # quantile of the limits that the paths ask for: what is too low ratchets up, what is too high never comes down
)
KEEP = 0.65  # quantile of the energy that they need
CUSHIONS = (0.8, 0.9, 0.97)  # quantiles of the energy that it is good to have beside that
NEED_H = 24.0  # a need is seen for so long before it comes, so each hour bears so much of what it would cost
HALVINGS = 24
BILLED_WINDOW_S = 900  # where the site file names no other


@dataclass(frozen=True)
class PeakGuard:
    """The limit that is worth holding, kW, and the stored energy to keep at each step's end, kWh."""

    limit_kw: float
    reserve_kwh: Floats
    cushions: tuple[tuple[Floats, float], ...] = ()  # (kWh at each step's end, EUR an hour for each kWh that lacks)


def highest_window_kw(begin_utc_s: int, step_s: int, net_kw: Floats, window_s: int, zone: tzinfo) -> float:
    """The highest mean of a billed window among steps (n,) of net load, NaN where nobody knows; 0 where none is whole.

    Charging never takes the import beyond it, so a month with a battery has no higher peak than the same without one.
    Windows begin where the local clock has a whole number of them; one of which a step is missing does not count. Steps
    longer than a window count as they are: their mean is no higher than that of the highest window in them.
    """
    parts = max(1, window_s // step_s)
    if parts == 1 or len(net_kw) == 0:
        known = net_kw[np.isfinite(net_kw)]
        return float(max(0.0, known.max())) if len(known) else 0.0
    window = np.floor(local_clock_s(begin_utc_s, step_s, len(net_kw), zone) / window_s)
    sure = np.isfinite(window) & np.isfinite(net_kw)
    _, at, count = np.unique(window[sure], return_inverse=True, return_counts=True)
    means = np.bincount(at, weights=net_kw[sure])[count == parts] / parts if sure.any() else np.zeros(0)
    return float(max(0.0, means.max(initial=0.0)))


def last_of_window(begin_utc_s: int, step_s: int, steps: int, window_s: int, zone: tzinfo) -> Flags:
    """(steps,) whether a billed window ends with the step. On a day in which the clock changes nobody knows: none."""
    if step_s >= window_s:
        return np.ones(steps, dtype=bool)
    ends: Flags = (local_clock_s(begin_utc_s, step_s, steps, zone) + step_s) % window_s == 0
    return ends


def local_clock_s(begin_utc_s: int, step_s: int, steps: int, zone: tzinfo) -> Floats:
    """(steps,) seconds by the local clock at which each step begins; NaN on UTC days in which that clock changes."""
    begins = begin_utc_s + step_s * np.arange(steps)
    days, of_day = np.unique(begins // 86_400, return_inverse=True)
    offsets = np.array([[_offset_s(int(day + k) * 86_400, zone) for k in (0, 1)] for day in days], dtype=float)
    offset = np.where(offsets[:, 0] == offsets[:, 1], offsets[:, 0], np.nan)
    return np.asarray(begins + offset[of_day], dtype=np.float64)


def _offset_s(utc_s: int, zone: tzinfo) -> int:
    offset = datetime.fromtimestamp(utc_s, zone).utcoffset()
    return 0 if offset is None else int(offset.total_seconds())


def energy_needed(paths_kw: Floats, limit_kw: Floats, storage: Storage, step_h: float) -> Floats:
    """(paths, steps + 1) kWh above the least that must be stored before each step for no later one to exceed the limit.

    paths_kw: (paths, steps) net load; limit_kw: (paths,). Below the limit the battery may charge, never beyond it.
    """
    count, steps = paths_kw.shape
    need = np.zeros((count, steps + 1))
    for k in range(steps - 1, -1, -1):
        over = paths_kw[:, k] - limit_kw
        give = np.maximum(over, 0.0) * step_h / storage.discharge_efficiency
        take = np.minimum(np.maximum(-over, 0.0), storage.charge_kw_max) * step_h * storage.charge_efficiency
        need[:, k] = np.maximum(0.0, need[:, k + 1] + give - take)
    return need


def lowest_limits(paths_kw: Floats, storage: Storage, stored_kwh: float, step_h: float) -> Floats:
    """(paths,) kW: the lowest limit that the battery can hold on each path, from what is stored now."""
    have = max(0.0, stored_kwh - storage.least_kwh)
    room = storage.most_kwh - storage.least_kwh
    high: Floats = paths_kw.max(axis=1)
    low = high - storage.discharge_kw_max
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        need = energy_needed(paths_kw, middle, storage, step_h)
        holds = (need[:, 0] <= have) & (need.max(axis=1) <= room)
        low, high = np.where(holds, low, middle), np.where(holds, middle, high)
    return high


def guard(net_kw: Floats, errors_kw: Floats, storage: Storage, stored_kwh: float, step_h: float,
          paid_kw: float, demand_eur_per_kw: float = 0.0) -> PeakGuard:  # fmt: skip
    """From the expected net load (steps,) and past errors (paths, steps); paid_kw: peak that the bill has already.

    A kWh that lacks in the hour of need raises the peak by one kW over the hours above the limit. It is worth that
    share of the demand charge, times the share of the paths that need it: what a full battery is held for.
    """
    paths = net_kw + errors_kw if len(errors_kw) else net_kw[None, :]
    limits = lowest_limits(paths, storage, stored_kwh, step_h)
    limit = max(paid_kw, float(np.quantile(limits, PROMISE)))
    need = energy_needed(paths, np.full(len(paths), limit), storage, step_h)[:, 1:]
    keep = np.minimum(np.quantile(need, KEEP, axis=0), storage.most_kwh - storage.least_kwh)
    if not demand_eur_per_kw or len(errors_kw) == 0:
        return PeakGuard(limit, storage.least_kwh + keep)
    hours = (paths > limit).sum(axis=1) * step_h
    above_h = max(1.0, float(hours[hours > 0].mean())) if (hours > 0).any() else 1.0
    cushions, edges = [], (KEEP, *CUSHIONS)
    for below, q in zip(edges, CUSHIONS, strict=False):
        level = np.minimum(np.quantile(need, q, axis=0), storage.most_kwh - storage.least_kwh)
        # Each costs what it adds to the one above it: together a kWh costs what the share of paths that need it says.
        more = (q - below) / 2 + (edges[edges.index(q) + 1] - q) / 2 if q != CUSHIONS[-1] else 1 - (below + q) / 2
        cushions.append((storage.least_kwh + level, more * demand_eur_per_kw / above_h / NEED_H))
    return PeakGuard(limit, storage.least_kwh + keep, tuple(cushions))
