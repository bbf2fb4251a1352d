"""From when on physics can tell that a meter lies: the first moment at which a detector that knows everything but the
load would.

The detector knows how the meter lies, what the battery truly does, and how this very load changes over one interval of
the meter: the share of all its other changes of the whole run that fall near a value. What it does not know is which
change the load makes next, so the one that is weighed is none of those that it knows: counted among them it would be
likelier than any other, and a load that never does the same twice would give away every lie by that alone. For the same
reason a change between others that it makes is no seldom one because none of them came to the same watt: where few fall
near, the chance is that of the space which the nearest NEIGHBOURS take.

From one reading to the next it weighs the change of the load that an honest reading would mean against the one that
this lie means, and adds up the logarithms of their chances since the lie began, from its lowest point on (CUSUM). It
tells when they favour the lie by SURE to one.

Only what the battery does counts. Without a move of it a lie changes no sum: that a load jumps at the moment at which
the lie begins, or moves by less than it used to, proves nothing of the meter. So no product can be expected to tell
sooner, though one that goes by such a jump may.
"""

from __future__ import annotations

import numpy as np
import zoo_plants as plants

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

SURE = 1e4
SPACING_S = 0.05  # readings are compared no closer than that
SELDOM = 0.02  # so much of the load's changes may be anything
NEIGHBOURS = 3
REPLAYED = 50  # readings that are shown again: REPLAY_READINGS of the simulated meter


def _chances(changes_w: Array, near_w: float, span_w: float) -> tuple[Array, float]:
    return np.sort(changes_w), max(SELDOM * 2.0 * near_w / max(span_w, near_w), 1e-9)


def _log_chance(known: tuple[Array, float], w: Array, near_w: float, own_w: Array) -> Array:
    """Of the load to change by about so much, as its other changes show; own_w: the one that it made then."""
    changes_w, seldom = known
    inside = np.searchsorted(changes_w, w + near_w, "right") - np.searchsorted(changes_w, w - near_w, "left")
    inside = np.maximum(inside - (np.abs(w - own_w) <= near_w), 0).astype(float)
    between = (NEIGHBOURS - 0.5) * near_w / np.maximum(_distance(changes_w, w, own_w), near_w)
    share = np.maximum(inside, between) / max(len(changes_w) - 1, 1)
    found: Array = np.log((1.0 - SELDOM) * np.minimum(share, 1.0) + seldom)
    return found


def _distance(changes_w: Array, w: Array, own_w: Array) -> Array:
    """To the third nearest of the other changes."""
    first = np.searchsorted(changes_w, w)
    at = first[:, None] + np.arange(-NEIGHBOURS - 1, NEIGHBOURS + 1)[None, :]
    near = changes_w[np.clip(at, 0, len(changes_w) - 1)]
    apart = np.where((at >= 0) & (at < len(changes_w)), np.abs(near - w[:, None]), np.inf)
    own = np.argmin(np.abs(near - own_w[:, None]), axis=1)  # one of them is the change that is weighed
    mine = np.abs(near[np.arange(len(w)), own] - own_w) < 1e-9
    apart[np.arange(len(w))[mine], own[mine]] = np.inf
    found: Array = np.sort(apart, axis=1)[:, NEIGHBOURS - 1]
    return found


def first_s(made: plants.Draw, rows: dict[str, Array], on_s: float) -> float | None:
    """When the detector could tell, with the time that meter and converter take to show it; None: not in this run.

    rows: the run's series, with `t_s`, `grid_w`, `ess_w` (true power, not what is shown). on_s: when the lie began.
    """
    spacing_s = max(1e-3 * made.setting("meter_update_ms"), SPACING_S)
    near_w = 2.0 + made.setting("meter_resolution_w") + made.setting("meter_band_w")
    t_s = rows["t_s"]
    times_s = np.arange(on_s - spacing_s * np.floor((on_s - t_s[0]) / spacing_s), t_s[-1], spacing_s)
    grid_w = np.interp(times_s, t_s, rows["grid_w"])
    ess_w = np.interp(times_s, t_s, rows["ess_w"])
    load_dw, ess_dw = np.diff(grid_w + ess_w), np.diff(ess_w)
    known = _chances(load_dw, near_w, float(np.ptp(grid_w + ess_w)) + made.power_w)
    first = int(np.searchsorted(times_s, on_s))
    load_dw, ess_dw, grid_w = load_dw[first:], ess_dw[first:], grid_w[first:]
    lie_w, honest_w = load_dw, _as_honest(made.name, load_dw, ess_dw, grid_w)
    if made.name == "replayed":
        at = np.maximum(first - REPLAYED + np.arange(len(load_dw)) % REPLAYED, 0)
        old_load_dw, old_ess_dw = np.diff(np.interp(times_s, t_s, rows["grid_w"] + rows["ess_w"])), np.diff(ess_w)
        lie_w, honest_w = old_load_dw[at], old_load_dw[at] - old_ess_dw[at] + ess_dw
    sums = _log_chance(known, lie_w, near_w, lie_w) - _log_chance(known, honest_w, near_w, lie_w)
    if made.name in ("frozen", "w_stuck"):  # the value that stands is certain, if it lies
        sums = np.where(np.abs(ess_dw) > near_w, -_log_chance(known, honest_w, near_w, load_dw), 0.0)
    total = 0.0
    for number, more in enumerate(sums):
        total = max(total + float(more), 0.0)
        if total > np.log(SURE):
            shown_s = made.setting("meter_delay_ms") + made.setting("pcs_measure_ms")
            return float(times_s[first + number + 1]) + 1e-3 * shown_s + 1e-3
    return None


def _as_honest(lie: str, load_dw: Array, ess_dw: Array, grid_w: Array) -> Array:
    """What the load would have to do if what is shown were true, in the load's own size.

    A share g of the power shows g of the load and of the battery alike. That the load seems to do less, or more, is no
    physics and left out; that its change and the battery's do not add up is: (1 - g) of the battery's move is left, and
    of a share above 1 as much less as the load looks larger.
    """
    if lie in ("frozen", "w_stuck"):
        return ess_dw
    if lie == "elsewhere":
        return load_dw + ess_dw
    if lie == "absolute":  # turned, while the building gives power
        return load_dw + np.where((grid_w[:-1] < 0.0) & (grid_w[1:] < 0.0), 2.0, 0.0) * ess_dw
    share = {"flipped": -1.0, "reversed": -1.0, "tenfold": 10.0, "tenth": 0.1, "no_l3": 2.0 / 3.0, "replayed": 1.0}[lie]
    return load_dw + (1.0 - share) / max(1.0, abs(share)) * ess_dw
