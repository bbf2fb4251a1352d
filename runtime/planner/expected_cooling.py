"""What a cooling unit is going to draw more or less than its owner's set-point would have it, for the battery's plan.

The cooling adapter writes it with its advice while it may write set-points; the planner adds it to the load that it
forecasts, so that battery and cooling do not each plan as if the other stood still.
"""

import json
import time
from pathlib import Path

import numpy as np

from tidegate.runtime.planner.adapter_audit import COOLING_ADVICE, DOUBTS_SILENT_S
from tidegate.runtime.planner.plan_inputs import Floats, Horizon

MOVED = "moved_kw"
PLAUSIBLE_KW = 1e4
SAME_KW = 0.005


def expected_cooling(folder: Path, now_utc_s: float | None = None) -> tuple[dict[int, float], list[str]]:
    """({begin of a quarter hour in UTC s: kW more than the owners' own set-points would draw}, doubts in words).

    Of all units together. Nothing where no adapter writes set-points, or where what it wrote is old: then it orders
    nothing either.
    """
    now = time.time() if now_utc_s is None else now_utc_s
    found: dict[int, float] = {}
    odd = []
    for path in sorted(folder.glob(COOLING_ADVICE)):
        try:
            one = _moves_of(path, now)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as why:
            odd.append(f"{path}: {why!r}: the plan leaves this unit's moves out; its adapter writes the file anew")
            continue
        for at, value in one.items():
            found[at] = found.get(at, 0.0) + value
    return found, odd


def _moves_of(path: Path, now: float) -> dict[int, float]:
    told = json.loads(path.read_text(encoding="utf-8"))
    moved = told.get(MOVED)
    if not moved or not -60 <= now - float(told["utc_s"]) <= DOUBTS_SILENT_S:
        return {}
    begin, step_s = int(moved["begin_utc_s"]), int(moved["step_s"])
    values = [float(one) for one in moved["kw"]]
    if step_s <= 0 or begin % step_s or not all(abs(one) < PLAUSIBLE_KW for one in values):
        raise ValueError("a time or a power in it cannot be")
    return {begin + k * step_s: value for k, value in enumerate(values)}


def moved_kw(horizon: Horizon, moves: dict[int, float]) -> Floats:
    """(steps,) mean of what lies in each step of the horizon; 0 where nothing is expected."""
    found, n = np.zeros(len(horizon.load_kw)), len(horizon.load_kw)
    count = np.zeros(n)
    for at, value in moves.items():
        k = (at - horizon.start_utc_s) // horizon.step_s
        if 0 <= k < n:
            found[k] += value
            count[k] += 1
    return np.where(count > 0, found / np.maximum(count, 1), 0.0)


def cooling_text(moved: Floats, step_h: float) -> str:
    """One sentence of what the cooling's plan moves in the load that a plan stands on; "" where it moves nothing."""
    if not np.any(np.abs(moved) > SAME_KW):
        return ""
    more, less = np.maximum(moved, 0.0), np.maximum(-moved, 0.0)
    return (f"the load holds what the cooling's plan moves: {more.sum() * step_h:.1f} kWh more (at most "
            f"{more.max():.1f} kW), {less.sum() * step_h:.1f} kWh less (at most {less.max():.1f} kW)")  # fmt: skip
