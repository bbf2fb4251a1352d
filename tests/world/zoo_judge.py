"""What a plant of the zoo shows: energy above its limit beside the floor of that very plant, chases, events, lies.

The floor (`tidegate.ext.sim.floor.run_ideal`) is the same plant under a controller that reads the same meter at the
same moments, free of its resolution and lies and of what the battery did, writes one least read and one write later,
and recharges as the site is told to. Averages of the meter, dead time, lag, ramp, empty cells, derating are in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tellable
import zoo_plants as plants

from tidegate.ext.sim.floor import run_ideal
from tidegate.hal.sim.build import build
from tidegate.hal.sim.virtual import START_NS, VirtualPlant

S = 1e9
READY = 2  # modes below are tripped and arming
ARMED_WITHIN_S = 30.0  # plus ten times what the meter needs: then it is judged, armed or not
CHASE_REVERSALS = 4
FOUND_WITHIN_S = 5.0
OUTSIDE_LEAST_WH = 0.02
OUTSIDE_CLEAR_SHARE = 1e-3  # of the cabinet, over a minute
RELEARN_S = 60.0
TELLS = ("fault_on", "latch")


@dataclass
class Found:
    """Figures of one plant; energies in Wh after it was ready."""

    seed: int
    stratum: str
    minutes: float
    ready_s: float | None = None
    with_wh: float = 0.0
    without_wh: float = 0.0
    floor_wh: float = 0.0
    allowance_wh: float = 0.0
    ratio: float = 0.0  # with / (floor + allowance)
    recharging_wh: float = 0.0  # what the ideal leaves that recharges, also where leaving the battery alone were better
    still_wh: float = 0.0  # what the same ideal leaves that never recharges; for information
    outside_wh: float = 0.0  # above the limit outside reaction times: outside_w
    outside_minutes: int = 0  # minutes in which there is any to speak of
    outside_clear_minutes: int = 0  # of these, those with more than a thousandth of what the cabinet gives in a minute
    peak_over_w: float = 0.0
    floor_peak_over_w: float = 0.0
    chase_w: float = 0.0  # swing of the battery in the quiet end, 0 = none, where the control asked for it
    moved_w: float = 0.0  # the same where it did not: questions to the meter, pulses of an arming that is not over
    chase_told: bool = False
    quiet_events: int = 0
    quiet_kinds: dict[str, int] = field(default_factory=dict)  # the same by kind
    quiet_hours: float = 0.0
    trips: int = 0
    latched: list[int] = field(default_factory=list)  # rows of the fault table that latched after it was ready
    turns_per_minute: float = 0.0  # of the setpoint in the quiet end, each by more than 2 % of the cabinet
    age_known: bool | None = None  # when it became ready
    age_relearned: bool | None = None  # a minute after the meter changed; None = it did not
    events: dict[str, int] = field(default_factory=dict)
    lie: str = ""
    told_s: float | None = None  # after physics could tell
    told_moved_s: float | None = (
        None  # the same since the grid's power, or the battery, has moved: what was judged before
    )
    lied_export_w: float = 0.0
    lied_over_w: float = 0.0  # above limit and load: what the battery itself added
    sha256: str = ""

    @property
    def recharging_ratio(self) -> float:
        """Beside the ideal that recharges: behind a slow meter that may do more harm than good, and so may this one."""
        return self.with_wh / (self.recharging_wh + self.allowance_wh)

    @property
    def failed(self) -> list[str]:
        """What is worse than asked of any one plant; empty when nothing is."""
        bad = []
        if self.lie:
            if self.told_s is None or self.told_s > FOUND_WITHIN_S:
                bad.append(
                    f"{self.lie} meter: " + ("never told" if self.told_s is None else f"told after {self.told_s:.1f} s")
                )
            return bad
        if self.ready_s is None:
            bad.append("never ready")
        if self.ratio > 2.0:
            bad.append(
                f"{self.ratio:.2f} x floor ({self.with_wh:.2f} Wh, floor {self.floor_wh:.2f} + {self.allowance_wh:.2f})"
            )
        if self.chase_w:
            bad.append(f"chases by {self.chase_w:.0f} W in the quiet end" + (" (told)" if self.chase_told else ""))
        if self.trips:
            bad.append(f"{self.trips} trips")
        return bad


def swings(power_w: np.ndarray, threshold_w: float) -> tuple[int, float]:
    """(reversals, widest swing between two of them) of a power; a turn counts from a threshold on."""
    turns, widest_w, rising = 0, 0.0, 0
    low = high = float(power_w[0])
    for w in power_w.tolist():
        high, low = max(high, w), min(low, w)
        if rising >= 0 and high - w > threshold_w:
            if rising:
                turns, widest_w = turns + 1, max(widest_w, high - low)
            rising, low = -1, w
        elif rising <= 0 and w - low > threshold_w:
            if rising:
                turns, widest_w = turns + 1, max(widest_w, high - low)
            rising, high = 1, w
    return turns, widest_w


def asked_for(request_w: np.ndarray, asking: np.ndarray, threshold_w: float) -> bool:
    """Whether the control itself swings, by what it asked for while no question to the meter moved the battery.

    What it would have asked for meanwhile no unit was given; what it makes of a question afterwards counts.
    """
    given_w = request_w[asking == 0.0]
    return len(given_w) > 0 and swings(given_w, threshold_w)[0] >= CHASE_REVERSALS


def above_wh(grid_w: np.ndarray, limit_w: float, dt_s: float) -> float:
    return float(np.maximum(grid_w - limit_w, 0.0).sum() * dt_s / 3600.0)


def least_of_late(power_w: np.ndarray, rows: int) -> np.ndarray:
    """The least of each row and so many before it."""
    width = max(rows, 0) + 1
    padded = np.concatenate([np.full(width - 1, np.inf), power_w, np.full(-(len(power_w) + width - 1) % width, np.inf)])
    blocks = padded.reshape(-1, width)
    ahead = np.minimum.accumulate(blocks, axis=1).ravel()
    behind = np.minimum.accumulate(blocks[:, ::-1], axis=1)[:, ::-1].ravel()
    return np.asarray(np.minimum(behind[: len(power_w)], ahead[width - 1 : width - 1 + len(power_w)]))


def outside_w(
    grid_w: np.ndarray, load_w: np.ndarray, best_w: np.ndarray, limit_w: float, tolerance_w: float, reaction_rows: int
) -> np.ndarray:
    """What stands above a limit outside reaction times, W a row.

    Within a reaction time the grid may stand above its limit by what the load has risen in it, by a step or on a slope;
    what the ideal does not hold either (empty cells, derating) is not asked.
    """
    risen_w = load_w - least_of_late(load_w, reaction_rows)
    allowed_w = limit_w + tolerance_w + risen_w
    return np.asarray(np.where((grid_w > allowed_w) & (best_w <= allowed_w), grid_w - risen_w - limit_w, 0.0))


def reaction_of(made: plants.Draw, world: VirtualPlant) -> float:
    """Time in which a step may stand above the limit: meter, two rounds and a write on the bus, converter."""
    return made.meter_s + made.converter_s + 4.0 * world.wire_s() + 0.1


def ideal(
    made: plants.Draw, blob: bytes, load: Any, wire_s: float, start_s: float, rows: int, recharges: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """True grid and battery power under the perfect controller, a row a millisecond."""
    built = build(blob, load=load, pv=plants.pv_of(made), seed=made.seed, overrides=plants.overrides(made))
    built.world.start(START_NS)
    control, unit = built.rows["control"], built.rows["units"][0]["gate"]
    grid_w, ess_w = np.empty(rows), np.empty(rows)
    run_ideal(
        built.world, grid_w, ess_w,
        meter=built.meters["grid"], limit_w=made.limit_w,
        recharge_w_max=control["recharge_w_max"] if recharges else -1e12,
        recharge_w=control["recharge_rate_w"],
        target_soc=control["target_soc"], soc_min=unit["soc_min_cpct"] * 1e-4,
        soc_max=unit["soc_max_cpct"] * 1e-4, soc_taper=max(unit["soc_taper_cpct"] * 1e-4, 1e-6), wire_s=wire_s,
        start_s=start_s,
    )  # fmt: skip
    return grid_w, ess_w


def age_known(made: plants.Draw, believed_s: tuple[float, float], changed: bool = False) -> bool:
    """Whether a believed interval of the reading's age is right, and no wider than a meter interval to either side."""
    then = "then_" if changed else ""
    true_s = 1e-3 * (
        made.setting("meter_delay_ms")
        + 0.5 * made.setting(f"meter_{then}average_ms")
        + made.setting(f"meter_{then}lag_ms")
    )
    # What is looked for are trial ages, an eighth apart at the long end; a poll takes some milliseconds.
    width_s = 1e-3 * made.setting(f"meter_{then}update_ms") + 0.02 + 0.13 * true_s
    lo_s, hi_s = believed_s
    return lo_s - width_s <= true_s <= hi_s + width_s and hi_s - lo_s <= 2.0 * width_s


def judge(made: plants.Draw, series: dict[str, np.ndarray] | None = None) -> Found:
    """Run one plant and its floor. A dict given as `series` is filled with the rows of both."""
    blob, load = plants.program(made), plants.load_of(made)
    seconds = made.seconds + made.quiet_s
    every = 1 if seconds <= 200.0 else 5
    limit_w, tolerance_w = made.limit_w, made.tolerance_w
    found = Found(made.seed, made.name or made.stratum, seconds / 60.0)
    with VirtualPlant(
        blob, load, pv=plants.pv_of(made), seed=made.seed, overrides=plants.overrides(made), series_every=every
    ) as plant:
        world = plant.world
        world.set_judgement(limit_w, max(tolerance_w, 20.0), reaction_of(made, plant))
        latest_s = min(ARMED_WITHIN_S + 10.0 * made.meter_s, 0.5 * made.seconds)
        now_s = 0.0
        while found.ready_s is None and now_s < seconds - 1.0:
            plant.run(1.0)
            now_s += 1.0
            modes = [one for one in plant.events if one["event"] == "mode" and one["code"] >= READY]
            if modes:
                found.ready_s = modes[0]["t_ns"] / S - 1.0
                found.age_known = age_known(made, world.age_s)
        changed_s = made.setting("meter_then_s")
        if now_s < changed_s and changed_s + RELEARN_S < seconds:
            plant.run(changed_s + RELEARN_S - now_s)
            now_s = changed_s + RELEARN_S
            found.age_relearned = age_known(made, world.age_s, changed=True)
        plant.run(seconds - now_s)
        rows, events, wire_s, period_s = plant.series(), plant.events, plant.wire_s(), plant.period_ns / S
        found.sha256 = plant.sha256
        reaction_s = reaction_of(made, plant)
    start_s = min(found.ready_s if found.ready_s is not None else latest_s, latest_s)
    best_grid_w, best_ess_w = ideal(made, blob, load, wire_s, start_s, round(seconds / 1e-3))
    still_grid_w, _ = ideal(made, blob, load, wire_s, start_s, len(best_grid_w), recharges=False)
    best_grid_w, best_ess_w = best_grid_w[every - 1 :: every], best_ess_w[every - 1 :: every]
    n = min(len(rows["t_s"]), len(best_grid_w))
    rows = {key: values[:n] for key, values in rows.items()}
    best_grid_w, best_ess_w = best_grid_w[:n], best_ess_w[:n]
    dt_s = period_s * every
    if series is not None:
        series.update(rows, floor_grid_w=best_grid_w, floor_ess_w=best_ess_w)

    judged = rows["t_s"] > start_s
    grid_w, load_w = rows["grid_w"], rows["load_w"] - rows["pv_w"]
    found.with_wh = above_wh(grid_w[judged], limit_w, dt_s)
    found.without_wh = above_wh(load_w[judged], limit_w, dt_s)
    # Who leaves the battery alone leaves what the load alone does: behind a long average that may be the best.
    found.recharging_wh = above_wh(best_grid_w[judged], limit_w, dt_s)
    found.floor_wh = min(found.recharging_wh, found.without_wh)
    found.still_wh = min(above_wh(still_grid_w[every - 1 :: every][:n][judged], limit_w, dt_s), found.without_wh)
    # The floor is free of digits; who has them may stand that much above while the load does.
    found.allowance_wh = float((load_w[judged] > limit_w).sum() * dt_s * made.allowance_w / 3600.0) + 0.01
    found.ratio = found.with_wh / (found.floor_wh + found.allowance_wh)
    found.peak_over_w = float(max(grid_w[judged].max() - limit_w, 0.0))
    found.floor_peak_over_w = float(max(best_grid_w[judged].max() - limit_w, 0.0))

    lost_w = outside_w(grid_w, load_w, best_grid_w, limit_w, 2.0 * tolerance_w, round(reaction_s / dt_s))
    found.outside_wh = float(lost_w[judged].sum() * dt_s / 3600.0)
    each_wh = np.bincount((rows["t_s"][judged] // 60.0).astype(int), lost_w[judged]) * dt_s / 3600.0
    found.outside_minutes = int((each_wh > OUTSIDE_LEAST_WH).sum())
    clear_wh = max(OUTSIDE_CLEAR_SHARE * made.power_w / 60.0, OUTSIDE_LEAST_WH)
    found.outside_clear_minutes = int((each_wh > clear_wh).sum())

    settled = rows["t_s"] > made.seconds + 0.5 * made.quiet_s
    hop = max(1, round(0.01 / dt_s))
    threshold_w = max(0.02 * made.power_w, 4.0 * tolerance_w)
    turns, widest_w = swings(rows["ess_w"][settled][::hop], threshold_w)
    hunting = [one for one in events if one["event"] == "hunting"]
    request_w = np.where(rows["mode"] >= READY, rows["request_w"], 0.0)[settled][::hop]
    if turns >= CHASE_REVERSALS and asked_for(request_w, rows["asking"][settled][::hop], threshold_w):
        found.chase_w, found.chase_told = widest_w, bool(hunting)
    elif turns >= CHASE_REVERSALS:
        found.moved_w = widest_w
    # What a question to the meter moves is no turn of the control's own.
    setpoint_w = rows["setpoint_w"][settled][::hop]
    given = rows["asking"][settled][::hop] == 0.0
    setpoint_w = setpoint_w[given] if given.any() else setpoint_w[:1]
    found.turns_per_minute = swings(setpoint_w, 0.02 * made.power_w)[0] / (0.5 * made.quiet_s / 60.0)
    for one in events:
        found.events[one["event"]] = found.events.get(one["event"], 0) + 1
        at_s = one["t_ns"] / S - 1.0
        if at_s > made.seconds + 0.5 * made.quiet_s:
            found.quiet_events += 1
            found.quiet_kinds[one["event"]] = found.quiet_kinds.get(one["event"], 0) + 1
        if one["event"] == "mode" and one["code"] == 0 and found.ready_s is not None and at_s > found.ready_s:
            found.trips += 1
        if one["event"] == "latch" and one["previous"] == 1 and found.ready_s is not None and at_s > found.ready_s:
            found.latched.append(int(one["code"]))
    found.quiet_hours = 0.5 * made.quiet_s / 3600.0
    if made.faults and made.faults[0].get("lie"):
        _lied(made, found, rows, events, dt_s)
    return found


def _since(clear_s: float | None, told: list[float], end_s: float) -> float | None:
    """How long after that moment it was told; 0 where there was no such moment, None = never."""
    if clear_s is None or (not told and clear_s > end_s - FOUND_WITHIN_S):  # the run ends too soon to say
        return 0.0
    return max(told[0] - clear_s, 0.0) if told else None


def _lied(
    made: plants.Draw, found: Found, rows: dict[str, np.ndarray], events: list[dict[str, Any]], dt_s: float
) -> None:
    """How long after physics could tell the core told, and what it let happen until then.

    When physics can tell is tellable.py's to say: a load that moves behind a value that stands, while the battery
    rests, is seen by nobody, and a small move of the battery before a load that moves more proves nothing. Beside it
    stands the time since the true grid power has moved by more than a twentieth of the cabinet's power (a value that
    stands; an export, of an absolute value) or since the battery has (a wrong sign, a missing phase).
    """
    found.lie = str(made.faults[0]["lie"])
    on_s = float(made.faults[0]["on_s"])
    after = rows["t_s"] >= on_s
    grid_w, ess_w, t_s = rows["grid_w"][after], rows["ess_w"][after], rows["t_s"][after]
    clear_w = 0.05 * made.power_w + 4.0 * made.tolerance_w
    moved = np.abs(grid_w - grid_w[0]) if found.lie in ("frozen", "w_stuck") else np.abs(ess_w - ess_w[0])
    if found.lie == "absolute":  # only an export looks different
        moved = np.where(grid_w < -clear_w, clear_w + 1.0, 0.0)
    shown = np.flatnonzero(moved > clear_w)
    told = [one["t_ns"] / S - 1.0 for one in events
            if one["event"] in TELLS or (one["event"] == "mode" and one["code"] == 0)]  # fmt: skip
    told = [at_s for at_s in told if at_s > max(on_s, 0.5)]
    if found.ready_s is None:  # it did not arm: refused, whether the lie was there first or came while it was armed
        found.told_s = found.told_moved_s = 0.0
    else:
        clear_s = tellable.first_s(replace(made, name=found.lie), rows, max(on_s, found.ready_s))
        moved_s = float(t_s[shown[0]]) + made.meter_s + 1e-3 * made.setting("pcs_measure_ms") if len(shown) else None
        found.told_s, found.told_moved_s = _since(clear_s, told, t_s[-1]), _since(moved_s, told, t_s[-1])
    found.lied_export_w = float(max(-grid_w.min(), 0.0))
    found.lied_over_w = float(max(grid_w.max() - max(rows["load_w"][after].max(), made.limit_w), 0.0))
