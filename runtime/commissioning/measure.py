"""From a recording of steps to figures: signs, phases, lag, delay, interval. Pure arithmetic, nothing is moved here.

A step is an edge of the converter's power. What a meter shows of it, against what the converter says of itself, tells
which way its current transformers face; everything is a median over several edges, so that a load that moves in one of
them does not decide.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

SETTLED = 0.25  # part of a plateau that counts as settled: its end
RIGHT, REVERSED, MISSING, CROSSED, UNCLEAR = "right", "reversed", "missing", "crossed", "unclear"
SHARE_TOLERANCE = 0.3
SPREAD_MAX = 0.25
GAINS_AGREE = 0.15
STOOD_SHARE = 0.02  # of a step: a setpoint that stands moves by less
REST_SHARE = 0.1  # of a step: what a converter gives at most when it is told nothing


@dataclass
class Edge:
    """One change of the setpoint: from plateau to plateau. Times in s of the recording."""

    t_s: float
    before: tuple[float, float]
    after: tuple[float, float]


def edges(t_s: Sequence[float], end_s: float) -> list[Edge]:
    """Edges at these times; a plateau is taken as settled in its last quarter."""
    found = []
    bounds = [*t_s, end_s]
    for i in range(1, len(t_s)):
        start, here, there = bounds[i - 1], bounds[i], bounds[i + 1]
        found.append(Edge(here, (here - SETTLED * (here - start), here), (there - SETTLED * (there - here), there)))
    return found


def departures(t: np.ndarray, setpoint: np.ndarray, times: Sequence[float], step_w: float) -> list[float]:
    """When the setpoint left each plateau: orders are answered after they hold, on a busy machine long after.

    times: of the orders' answers, s. Each but the first is moved back to the last row that still stood on its plateau.
    """
    found = list(times[:1])
    for last, now in pairwise(times):
        inside = (t >= (last + now) / 2) & (t < now) & np.isfinite(setpoint)
        rows, values = t[inside], setpoint[inside]
        stood = rows[np.abs(values - np.median(values)) <= STOOD_SHARE * step_w] if len(rows) else rows
        found.append(float(stood[-1]) if len(stood) else now)
    return found


def mean(t: np.ndarray, values: np.ndarray, span: tuple[float, float]) -> float:
    """Mean of the values in a span of time; NaN if there are none."""
    inside = values[(t >= span[0]) & (t < span[1])]
    inside = inside[np.isfinite(inside)]
    return float(inside.mean()) if len(inside) else float("nan")


def shares(t: np.ndarray, ess: np.ndarray, seen: np.ndarray, steps: Sequence[Edge], step_w: float) -> np.ndarray:
    """For each edge, the part of the battery's own step that a meter showed; +1 where grid import fell as it should.

    Edges on which the battery moved by less than half of `step_w` are left out.
    """
    out = []
    for edge in steps:
        moved = mean(t, ess, edge.after) - mean(t, ess, edge.before)
        shown = mean(t, seen, edge.after) - mean(t, seen, edge.before)
        if np.isfinite(moved) and np.isfinite(shown) and abs(moved) >= step_w / 2:
            out.append(-shown / moved)
    return np.array(out)


def spread(values: np.ndarray) -> float:
    """Median distance from the median: one value that is far off does not count. NaN for no values."""
    return float(np.median(np.abs(values - np.median(values)))) if len(values) else float("nan")


def judge_total(found: np.ndarray) -> str:
    """Which way the transformers of a meter face, by the shares of all edges."""
    if not len(found) or spread(found) > SPREAD_MAX:
        return UNCLEAR
    share = float(np.median(found))
    if abs(share) <= SHARE_TOLERANCE:
        return MISSING
    if abs(abs(share) - 1.0) > SHARE_TOLERANCE:
        return UNCLEAR
    return RIGHT if share > 0 else REVERSED


def judge_phases(found: Sequence[np.ndarray]) -> list[str]:
    """What each of three transformers does, by its share of a three-phase step or of a step on one phase.

    A transformer on another phase than its voltage sees cos 120 degrees of that phase: minus one half.
    """
    if any(not len(one) or spread(one) > SPREAD_MAX for one in found):
        return [UNCLEAR] * 3
    share = np.array([float(np.median(one)) for one in found])
    single = np.flatnonzero(np.abs(share) > 1 - SHARE_TOLERANCE)
    if len(single) == 1 and np.abs(np.delete(share, single)).max() < SHARE_TOLERANCE / 3:
        # A converter on one phase: the others have nothing to show.
        return [(RIGHT if share[i] > 0 else REVERSED) if i == single[0] else RIGHT for i in range(3)]
    out = []
    for one in share * 3:
        if abs(one - 1) <= SHARE_TOLERANCE:
            out.append(RIGHT)
        elif abs(one + 1) <= SHARE_TOLERANCE:
            out.append(REVERSED)
        elif abs(one + 0.5) <= 0.2:
            out.append(CROSSED)
        elif abs(one) <= 0.2:
            out.append(MISSING)
        else:
            out.append(UNCLEAR)
    return out


def crossing(t: np.ndarray, values: np.ndarray, edge: Edge, part: float) -> float:
    """When the values had done this part of the way from plateau to plateau, s after the edge; NaN if they did not."""
    low, high = mean(t, values, edge.before), mean(t, values, edge.after)
    inside = (t >= edge.t_s - 0.001) & (t < edge.after[1]) & np.isfinite(values)
    if not np.isfinite(high - low) or high == low or inside.sum() < 2:
        return float("nan")
    done = (values[inside] - low) / (high - low)
    over = np.flatnonzero(done >= part)
    if not len(over):
        return float("nan")
    i, at = int(over[0]), t[inside]
    if i == 0 or done[i] == done[i - 1]:
        return float(at[i] - edge.t_s)
    # Between two looks it went straight, as far as anybody knows.
    return float(at[i - 1] + (part - done[i - 1]) / (done[i] - done[i - 1]) * (at[i] - at[i - 1]) - edge.t_s)


def median_of(found: Sequence[float]) -> tuple[float, float]:
    """(median, spread) of the finite ones; NaN for none."""
    values = np.array([one for one in found if np.isfinite(one)])
    return (float(np.median(values)), spread(values)) if len(values) else (float("nan"), float("nan"))


def mean_of(found: Sequence[float]) -> float:
    """Mean of the finite ones; NaN for none."""
    values = [one for one in found if np.isfinite(one)]
    return float(np.mean(values)) if values else float("nan")


@dataclass
class Lag:
    """A converter behind its setpoint, as its own readings show it, ms."""

    dead_ms: float
    tau_ms: float
    lag63_ms: float
    lag90_ms: float
    gain: float
    gains: tuple[float, ...] = ()  # of the directions in which all edges agree


def lag(t: np.ndarray, setpoint: np.ndarray, power: np.ndarray, steps: Sequence[Edge]) -> Lag:
    """First-order lag and dead time by the two points 28.3 % and 63.2 %, from the setpoint's own crossing on."""
    rows: dict[str, list[float]] = {"28": [], "63": [], "90": []}
    gains: dict[bool, list[float]] = {True: [], False: []}  # discharge, charge
    for edge in steps:
        for name, part in (("28", 0.283), ("63", 0.632), ("90", 0.9)):
            rows[name].append(crossing(t, power, edge, part) - crossing(t, setpoint, edge, part))
        low, high = mean(t, setpoint, edge.before), mean(t, setpoint, edge.after)
        if np.isfinite(high - low) and high != low:
            was, stood = mean(t, power, edge.before), mean(t, power, edge.after)
            rest = was if abs(low) < abs(high) else stood
            if abs(rest) <= REST_SHARE * abs(high - low):  # else it had not come to rest, or nobody looked since
                gains[low + high > 0].append((stood - was) / (high - low))
    # Means: each reading is one poll old at most, and only over many edges does that average out.
    t28, t63, t90 = (mean_of(rows[name]) * 1e3 for name in ("28", "63", "90"))
    tau = max(0.0, 1.5 * (t63 - t28)) if np.isfinite(t63) else float("nan")
    # On a machine that is too busy to look, a reading is older than its plateau in one edge and not in the other.
    agreed = tuple(median_of(one)[0] for one in gains.values() if len(one) > 1 and np.ptp(one) <= GAINS_AGREE)
    return Lag(max(0.0, t63 - tau), tau, t63, t90, median_of([*gains[True], *gains[False]])[0], agreed)


def ramp_w_per_s(t: np.ndarray, power: np.ndarray, steps: Sequence[Edge]) -> float:
    """Steepest move from 20 to 80 % of a step, W/s; as steep as the readings can show, NaN for none."""
    found = []
    for edge in steps:
        took = crossing(t, power, edge, 0.8) - crossing(t, power, edge, 0.2)
        size = 0.6 * abs(mean(t, power, edge.after) - mean(t, power, edge.before))
        if np.isfinite(took) and took > 0.0 and np.isfinite(size):
            found.append(size / took)
    return max(found) if found else float("nan")


def resolution_w(values: np.ndarray) -> float:
    """Least change that a reading showed, W; NaN if it showed none."""
    changes = np.abs(np.diff(values[np.isfinite(values)]))
    changes = changes[changes > 0]
    return float(changes.min()) if len(changes) else float("nan")


def delay_ms(t: np.ndarray, ess: np.ndarray, grid: np.ndarray, steps: Sequence[Edge]) -> tuple[float, float]:
    """(median, spread) of how much later than the converter's own reading the meter shows half of a step, ms."""
    middle, wide = median_of([crossing(t, grid, edge, 0.5) - crossing(t, ess, edge, 0.5) for edge in steps])
    return middle * 1e3, wide * 1e3


def interval_ms(t: np.ndarray, values: np.ndarray, span: tuple[float, float]) -> tuple[float, float]:
    """(mean, spread) of the time between two changes of a reading while the power moves all the time, ms.

    NaN for fewer than four. Far longer times than the usual one are those in which a change was not seen; they do not
    count.
    """
    inside = (t >= span[0]) & (t < span[1]) & np.isfinite(values)
    at, seen = t[inside], values[inside]
    changed = at[1:][np.diff(seen) != 0]
    if len(changed) < 4:
        return float("nan"), float("nan")
    between = np.diff(changed)
    usual = between < 1.5 * np.median(between) + np.median(np.diff(at))
    return float(np.mean(between[usual]) * 1e3), spread(between[usual]) * 1e3
