"""Seeded minutes of the world under random policies: what the control must hold in every one of them.

    python tests/world/minutes.py --minutes 10000       # make control: one line each that fails, and a sum
    python tests/world/minutes.py --seed 17             # one minute again

A minute is a site with some of the policies, a load of steps, ramps and swings, PV, a state of charge, a meter that may
die for a while, a lease, a plan and run-time limits. It runs on the whole core against the plant three times, at cycles
of 1, 10 and 100 ms. Judged from outside, by the plant's true powers: the request lies inside the corridor and the
corridor inside the envelope; where a limit is not held once the load has been still for a second, the reason names a
policy that is stronger than it. The sites say how old their meter's readings can be (`meter_latency_ms_max`). The same
bytes come out a second time. The readings of the minute are then given to the control once more with a tighter import
limit: it never lets the grid have more.

Cycles of 1 and 10 ms give the same energy through the battery, within 2 %, on the whole site. At 100 ms an answer comes
up to a tenth of a second later than the load moves, and that energy is the plant's; the control by itself, on the
minute's readings held for 100 ms, gives the same at 10 and 100 ms, but for the stairs of a ramp limit, which are a
cycle long. Dynamic range and damping remember which peak of a swing a cycle met: there the energy is compared,
counted and printed, not judged, as is that of whole sites at 100 ms.
"""

import argparse
import random
import sys
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tidegate.config.compile import compile_site
from tidegate.config.site import load_site, parse_site
from tidegate.ext.abi import shared
from tidegate.ext.abi.image import REASONS_BY_NUMBER as REASONS
from tidegate.ext.control.corridor import Control
from tidegate.hal.sim.virtual import VirtualPlant

S = 10**9
SITE = files("tidegate.config").joinpath("demo/site.toml")
MINUTE_S, START_S = 60.0, 3.0
TENTHS = round(MINUTE_S * 10.0)
ASKED_AFTER_S = 2.0  # after a question the battery returns to what the limits need
STILL_S = 1.0
MODE_ARMING, MODE_READY = 1, 2
PERIODS_US = (1_000, 10_000, 100_000)
VARIANTS = 250  # sites; the seeds take turns
DEADBAND_W = 100.0
# Outside the corridor by design: half the meter's resolution is held, a whole watt goes to the PCS.
WIDTH_W = 2.0 * DEADBAND_W + 2.0
# True grid power against what was decided from readings: the PCS's loss and rounding, the meter's digit, and the width.
TRUE_W = WIDTH_W + 100.0
# The trim stands on top of what was decided, so that the converter's own error ends inside; at most so much of it.
TRIM_SHARE = 0.05
ENERGY_SHARE = 0.02

# Whatever may stand against a limit, strongest first; what never decides anything is not in it.
RANK = ("stopped", "blind", "gate", "envelope", "unproven meter", "connection limit", "export limit", "phase limit",
        "circuit limit", "backup reserve", "demand window", "peak limit", "grid ramp limit", "dynamic range limit",
        "oscillation damping", "recharge band")  # fmt: skip


@dataclass
class Minute:
    """What one seed makes happen."""

    seed: int
    control: dict[str, float | bool]
    load: tuple[np.ndarray, np.ndarray]
    pv: tuple[np.ndarray, np.ndarray] | None
    overrides: dict[str, Any]
    orders: list[tuple[float, int, float, float]] = field(default_factory=list)  # at s, kind, value, for s
    plan: list[tuple[float, float, bool, dict[str, float]]] = field(default_factory=list)  # from s, to s, forced


def settings(variant: int) -> dict[str, float | bool]:
    """Policies of one site: each is there or not. A recharge band lies below the peak, as the loader demands."""
    chance = random.Random(variant)
    peak_w = round(chance.uniform(25e3, 52e3))
    found: dict[str, float | bool] = {
        "deadband_w": DEADBAND_W,
        "meter_latency_ms_max": 100,
        "peak_w_max": peak_w,
        "recharge_w_max": round(peak_w * chance.uniform(0.6, 0.95)),
        "recharge_rate_w": round(chance.uniform(500.0, 8e3)),
        "target_soc": chance.choice([0.5, 0.7, 0.9]),
    }
    some: tuple[dict[str, float | bool], ...] = (
        {"ramp_up_w_per_s": round(chance.uniform(1e3, 10e3)), "ramp_down_w_per_s": round(chance.uniform(1e3, 10e3))},
        {"range_w_max": round(chance.uniform(5e3, 25e3)), "range_window_s": 20},
        {"damp_share": round(chance.uniform(0.2, 0.9), 2)},
        {"reserve_soc": 0.3},
        {"demand_w_max": round(chance.uniform(20e3, 45e3)), "demand_window_s": 300},
        {"follow_grid": True, "target_grid_w": round(chance.uniform(0.0, 10e3)), "follow_soc_min": 0.4},
        {"recentre": True},
    )
    for one in some:
        if chance.random() < 0.35:
            found.update(one)
    return found


@cache
def program(variant: int, period_us: int) -> bytes:
    """The demo's site with the policies of a variant in place of its own; compiled once a length of the cycle."""
    own = settings(variant)
    kept, table = [], ""
    for line in SITE.read_text().split("\n"):
        table = line if line.startswith("[") else table
        if table == "[control]" and line.partition("=")[0].strip() in own:
            continue
        kept.append(line)
        if line == "[control]":
            kept += [f"{key} = {str(value).lower()}" for key, value in own.items()]
    text = "\n".join(kept).replace("period_us = 1000", f"period_us = {period_us}", 1)
    site, problems = parse_site(tomllib.loads(text), text)
    assert site is not None and not problems, problems
    site._folder = load_site(str(SITE)).folder
    return compile_site(site)


def minute(seed: int) -> Minute:
    """The seed's minute. The load ends as it began, so that a later answer costs as much as it gives."""
    chance = random.Random(1_000_000 + seed)
    times, powers, at_s = [0.0], [chance.uniform(10e3, 50e3)], START_S + 2.0
    while at_s < MINUTE_S - 8.0:
        kind = chance.choice(["step", "step", "step", "ramp", "swing"])
        to_w = chance.uniform(5e3, 75e3)
        if kind == "step":
            times.append(at_s)
            powers.append(to_w)
        elif kind == "ramp":
            for i in range(1, 21):
                times.append(at_s + 0.1 * i)
                powers.append(powers[-1] + (to_w - powers[-1]) * i / 20.0)
        else:
            middle_w, width_w, hz = powers[-1], chance.uniform(1e3, 8e3), chance.uniform(0.2, 2.0)
            for i in range(40):
                times.append(at_s + 0.05 * i)
                powers.append(max(middle_w + width_w * float(np.sin(2.0 * np.pi * hz * 0.05 * i)), 0.0))
            times.append(at_s + 2.0)
            powers.append(middle_w)
        at_s += 2.0 + chance.uniform(1.5, 8.0)
    times.append(MINUTE_S - 5.0)
    powers.append(powers[0])
    pv = None
    if chance.random() < 0.3:
        pv = np.array([0.0, 20.0, 40.0]), np.array([0.0, chance.uniform(0.0, 20e3), 0.0])
    faults = []
    if chance.random() < 0.2:
        on_s = chance.uniform(10.0, 40.0)
        faults.append({"kind": "dead", "target": chance.choice(["grid", "pcs1"]), "value": 0.0, "on_s": on_s,
                       "off_s": on_s + chance.uniform(0.05, 6.0)})  # fmt: skip
    soc = chance.choice([0.1, 0.25, 0.31, 0.5, 0.8, 0.94])
    made = Minute(seed, settings(seed % VARIANTS), (np.array(times), np.array(powers)), pv,
                  {"cooling_share": 0.0, "faults": faults, "soc_start": soc,
                   "pcs_tau_ms": chance.choice([10.0, 20.0, 50.0]),
                   "meter_update_ms": chance.choice([5.0, 10.0, 20.0])})  # fmt: skip
    names = shared.ORDER_NAMES
    if chance.random() < 0.3:
        made.orders.append((chance.uniform(5.0, 20.0), names.index("setpoint_w"), chance.uniform(-40e3, 40e3), 15.0))
    if chance.random() < 0.2:
        made.orders.append((chance.uniform(5.0, 30.0), names.index("import_w_max"), chance.uniform(5e3, 50e3), 15.0))
    if chance.random() < 0.1:
        made.orders.append((chance.uniform(5.0, 40.0), names.index("mode"), 2.0, 4.0))
    if chance.random() < 0.3:
        made.plan.append((20.0, 35.0, chance.random() < 0.5, {"setpoint_w": chance.uniform(-30e3, 30e3)}))
    if chance.random() < 0.2:
        made.plan.append((35.5, 45.0, False, {"peak_w_max": chance.uniform(20e3, 50e3)}))
    return made


def play(made: Minute, period_us: int) -> tuple[dict[str, np.ndarray], str, float]:
    """(series of every cycle, hash of all that left the controller, since when it hunts in s).

    The column `running` is 1 from when the arming, with its pulses, is over for good; `asked` is 1 while the grid
    meter is asked by steps, to a tenth of a second; `doubt_w` how far apart the load's bounds are.
    """
    with VirtualPlant(program(made.seed % VARIANTS, period_us), made.load, pv=made.pv, seed=made.seed, series_every=1,
                      overrides=made.overrides) as world:  # fmt: skip
        start_ns = world.world.t_ns
        world.put_plan([shared.PlanRow(start_ns + round(a * S), start_ns + round(b * S), 2, i + 1, forced, values)
                        for i, (a, b, forced, values) in enumerate(made.plan)])  # fmt: skip
        asked: list[bool] = []
        doubt_w: list[float] = []

        def run_to(tenths: int) -> None:
            while len(asked) < tenths:  # whoever is tripped arms once a run, so then a second is run at once
                some = min(10 if world.world.tripped else 1, tenths - len(asked))
                world.run(0.1 * some)
                asked.extend([world.world.meter_truth["asking"] != 0] * some)
                least_w, most_w = world.world.net_w
                doubt_w.extend([most_w - least_w] * some)

        for at_s, kind, value, for_s in sorted(made.orders):
            run_to(round(at_s * 10.0))  # in whole cycles at every length
            world.order(kind, value, for_s)
        run_to(TENTHS)
        hunts = [one["t_ns"] / S - 1.0 for one in world.events if one["event"] == "hunting"]
        series = world.series()
        armed_s = [
            one["t_ns"] / S - 1.0 for one in world.events if one["event"] == "mode" and one["code"] == MODE_READY
        ]
        series["running"] = series["t_s"] > (armed_s[0] + 0.5 if armed_s else MINUTE_S)
        each = len(series["t_s"]) // TENTHS
        series["asked"] = np.repeat(asked, each)
        series["doubt_w"] = np.repeat(doubt_w, each)
        return series, world.sha256, min(hunts, default=float("inf"))


def still(series: dict[str, np.ndarray], still_s: float, cycle_s: float) -> np.ndarray:
    """Cycles at which nothing has moved for so long: the load, the PV, who decides, what the units can do."""
    moved = np.zeros(len(series["t_s"]), dtype=bool)
    for name, width in (("load_w", 60.0), ("pv_w", 60.0), ("reason", 0.5), ("mode", 0.5), ("envelope_lo_w", 1.0),
                        ("envelope_hi_w", 1.0)):  # fmt: skip
        moved[1:] |= np.abs(np.diff(series[name])) > width
    n = round(still_s / cycle_s)
    moved[:n] = True
    return np.convolve(moved, np.ones(n), "full")[: len(moved)] < 0.5


def corridor(made: Minute, series: dict[str, np.ndarray], hunts_s: float, cycle_s: float) -> list[str]:
    """What is outside the corridor, or above a limit with no stronger policy to blame; empty when all is well.

    From the event that says so on, a damped request may lag behind its corridor and the limits in it.
    """
    series = {name: values[series["t_s"] < hunts_s] for name, values in series.items()}
    bad: list[str] = []

    def check(name: str, wrong: np.ndarray) -> None:
        if wrong.any():
            at = int(np.argmax(wrong))
            row = {key: round(float(series[key][at]), 1) for key in series if key.endswith("_w") and "min" not in key}
            bad.append(f"{name}: {int(wrong.sum())} cycles, first at {series['t_s'][at]:.3f} s, "
                       f"reason {REASONS[int(series['reason'][at])]!r}, {row}")  # fmt: skip

    lo, hi, request = series["corridor_lo_w"], series["corridor_hi_w"], series["request_w"]
    reason, grid, ess = series["reason"].astype(int), series["grid_w"], series["ess_w"]
    check("corridor is upside down", lo > hi + 1e-6)
    check("corridor leaves the envelope", (lo < series["envelope_lo_w"] - 1e-6) | (hi > series["envelope_hi_w"] + 1e-6))
    width = WIDTH_W + TRIM_SHARE * np.abs(request)
    check("request leaves the corridor", (request < lo - width) | (request > hi + width))
    check("request leaves the envelope",
          (request < series["envelope_lo_w"] - 1.0) | (request > series["envelope_hi_w"] + 1.0))  # fmt: skip
    settled = still(series, STILL_S, cycle_s) & (series["t_s"] > START_S) & (series["mode"] == series["mode"][-1])

    def stronger(name: str) -> np.ndarray:
        return np.isin(reason, [REASONS.index(one) for one in RANK[: RANK.index(name)]])

    own = made.control
    check("connection limit", settled & (grid > 55e3 + TRUE_W) & ~stronger("connection limit"))
    check("export limit", settled & (grid < -TRUE_W) & ~stronger("export limit"))
    check("peak limit", settled & (grid > float(own["peak_w_max"]) + TRUE_W) & ~stronger("peak limit"))
    check("recharge band", settled & (ess < -TRUE_W) & (grid > float(own["recharge_w_max"]) + TRUE_W)
          & ~stronger("recharge band") & (reason != REASONS.index("forced charge or discharge")))  # fmt: skip
    if "reserve_soc" in own:
        low = series["soc"] < float(own["reserve_soc"]) - 0.01
        check("backup reserve", settled & low & (ess > TRUE_W) & ~stronger("backup reserve"))
    if "ramp_up_w_per_s" in own:
        n = round(1.0 / cycle_s)
        rise = np.zeros(len(grid))
        rise[n:] = grid[n:] - grid[:-n]
        # Whoever outranked the ramp a second ago may have left the grid where it is.
        # The grid is led by the load's upper bound, and stands anywhere within its doubt; one that ends lets go what it
        # had held back, a tenth of a second later. A second may see one cycle's part of the ramp more.
        m = n + round(0.1 / cycle_s)
        doubt_w = np.zeros(len(grid))
        doubt_w[m:] = sliding_window_view(series["doubt_w"], m + 1).max(axis=1)
        led = settled & np.concatenate((np.zeros(n, dtype=bool), settled[:-n])) & ~stronger("grid ramp limit")
        check("grid ramp up", led & (rise > float(own["ramp_up_w_per_s"]) * (1.05 + cycle_s) + TRUE_W + doubt_w))
        check("grid ramp down", led & (-rise > float(own["ramp_down_w_per_s"]) * (1.05 + cycle_s) + TRUE_W + doubt_w))
    return bad


def least_wh(made: Minute) -> float:
    """What holding a request costs in a minute: it stays within the deadband, a charge within a step of its rate.

    One of two may stand at one end of it and the other at the other.
    """
    return max(DEADBAND_W, float(made.control["recharge_rate_w"]) / 16.0) * MINUTE_S / 3600.0


def rearm_wh(made: Minute) -> float:
    """A converter that was dead is armed again by an operator who looks once a second: so much later, or sooner."""
    dead = any(one["target"] == "pcs1" for one in made.overrides["faults"])
    return 30e3 / 3600.0 if dead else 0.0


def bare(made: Minute) -> dict[str, float]:
    """The minute's settings as the compiled control names them."""
    rest = {key: float(value) for key, value in made.control.items() if key != "meter_latency_ms_max"}
    return {**rest, "connection_import_w_max": 55e3, "connection_export_w_max": 0.0}


def alone(made: Minute, series: dict[str, np.ndarray]) -> list[str]:
    """Energy asked of the battery at cycles of 10 and 100 ms, both on the net power that holds for 100 ms."""
    settings_ = bare(made)
    # The filters of a 2 Hz band need readings faster than ten a second.
    settings_.pop("damp_share", None)
    stairs_w = 0.5 * (0.1 - 0.01) * max(settings_.get("ramp_up_w_per_s", 0.0), settings_.get("ramp_down_w_per_s", 0.0))
    ramped_s = 0.0
    columns = [series[key][::10] for key in ("load_w", "pv_w", "soc", "envelope_lo_w", "envelope_hi_w")]
    rows = np.stack(columns, axis=1).tolist()
    found = []
    for each, dt_s in ((10, 0.01), (1, 0.1)):
        control, total_ws = Control(**settings_), 0.0
        for load_w, pv_w, soc, lo_w, hi_w in rows:
            for _ in range(each):
                decided = control.step(grid_w=load_w - pv_w, net_w=load_w - pv_w, soc=soc, lo_w=lo_w, hi_w=hi_w,
                                       dt_s=dt_s, paired=True)  # fmt: skip
                total_ws += abs(decided.request_total_w) * dt_s
                ramped_s += dt_s / 2.0 * (decided.reason == "grid ramp limit")
        found.append(total_ws / 3600.0)
    most_wh = max(ENERGY_SHARE * found[0], least_wh(made)) + stairs_w * ramped_s / 3600.0
    if abs(found[1] - found[0]) > most_wh and "range_w_max" not in settings_:
        return [f"control alone: {found[0]:.2f} Wh at 10 ms, {found[1]:.2f} Wh at 100 ms"]
    return []


def tighter(made: Minute, series: dict[str, np.ndarray]) -> list[str]:
    """The same readings, every tenth of a second, to two controls that differ by one import limit."""
    chance = random.Random(2_000_000 + made.seed)
    name = chance.choice(["connection_import_w_max", "peak_w_max"])
    rest = bare(made)
    tight = {**rest, name: rest[name] * chance.uniform(0.5, 0.98)}
    loose_control, tight_control = Control(**rest), Control(**tight)
    step = len(series["t_s"]) // 600
    columns = [series[key][::step] for key in ("grid_measured_w", "ess_w", "soc", "envelope_lo_w", "envelope_hi_w")]
    for i, (grid_w, ess_w, soc, lo_w, hi_w) in enumerate(np.stack(columns, axis=1).tolist()):
        inputs: dict[str, Any] = {"grid_w": grid_w, "ess_w": ess_w, "soc": soc, "lo_w": lo_w, "hi_w": hi_w,
                                  "dt_s": 0.1, "paired": True}  # fmt: skip
        loose_w = loose_control.step(**inputs).request_total_w
        tight_w = tight_control.step(**inputs).request_total_w
        if tight_w < loose_w - 2.0 * DEADBAND_W - float(rest["recharge_rate_w"]) / 16.0:
            return [f"tighter {name} ({tight[name]:.0f} for {rest[name]:.0f} W) gives the grid more: reading {i}, "
                    f"{tight_w:.0f} W in place of {loose_w:.0f} W"]  # fmt: skip
    return []


def energy_wh(series: dict[str, np.ndarray], cycle_s: float, from_s: float, besides: np.ndarray) -> float:
    """Throughput of the battery from then on, but for some of TENTHS."""
    tenth = np.minimum((series["t_s"] / 0.1 - 1e-6).astype(int), len(besides) - 1)
    counts = (series["t_s"] > from_s) & ~besides[tenth]
    return float(np.abs(series["ess_w"][counts]).sum() * cycle_s / 3600.0)


def held_tenths(played: list[dict[str, np.ndarray]]) -> np.ndarray:
    """Tenths of a second in which one of them asks the meter or arms again, and ASKED_AFTER_S after.

    The units are held meanwhile, or follow pulses; for how long depends on when the meter is read.
    """
    asked = np.zeros(TENTHS, dtype=bool)
    for series in played:
        pulses = series["asked"] | (series["mode"] == MODE_ARMING)
        asked[np.unique((series["t_s"][pulses] / 0.1 - 1e-6).astype(int))] = True
    after = np.ones(round(ASKED_AFTER_S * 10.0) + 1)
    return np.asarray(np.convolve(asked, after)[:TENTHS] > 0.5)


def until_alike(made: Minute, played: list[dict[str, np.ndarray]], besides: np.ndarray, from_s: float) -> np.ndarray:
    """Those tenths, and where a policy remembers what the grid did meanwhile, those until both are one again.

    A ramp goes on from where a question of one of them, or its arming, had left the grid; a demand window has used more
    of it at one of them. What comes apart at any other time is judged.
    """
    if not {"ramp_up_w_per_s", "demand_w_max"} & set(made.control):
        return besides
    means = [series["ess_w"].reshape(TENTHS, -1).mean(axis=1) for series in played]
    found, apart = besides.copy(), True
    for tenth in range(TENTHS):
        apart = (
            bool(besides[tenth]) or 0.1 * tenth < from_s or (apart and abs(means[0][tenth] - means[1][tenth]) > TRUE_W)
        )
        found[tenth] = apart
    return found


def used_wh(made: Minute, played: list[dict[str, np.ndarray]], besides: np.ndarray) -> float:
    """What a demand window has used more at one of them in those tenths of a second: it is made up for later."""
    if "demand_w_max" not in made.control:
        return 0.0
    means = [series["grid_w"].reshape(TENTHS, -1).mean(axis=1)[besides].sum() for series in played]
    return float(abs(means[0] - means[1])) * 0.1 / 3600.0


def run_from_s(series: dict[str, np.ndarray]) -> float:
    """When the arming is over. How many pulses show the age of the readings depends on when the meter is read."""
    return float(series["t_s"][series["running"]].min(initial=MINUTE_S))


def judge(seed: int) -> dict[str, Any]:
    """One minute with all its properties; `failed` says which broke."""
    made = minute(seed)
    failed, played, hunting = [], [], False
    for period_us in PERIODS_US:
        series, sha256, hunts_s = play(made, period_us)
        hunting = hunting or hunts_s < MINUTE_S
        played.append({key: series[key] for key in ("t_s", "ess_w", "grid_w", "running", "asked", "mode")})
        failed += [f"{period_us / 1e3:g} ms: {one}" for one in corridor(made, series, hunts_s, period_us * 1e-6)]
        if period_us == 10_000:
            failed += tighter(made, series) + alone(made, series)
        if period_us == (1_000 if seed % 10 == 0 else 10_000) and play(made, period_us)[1] != sha256:
            failed.append(f"{period_us / 1e3:g} ms: equal inputs gave other bytes")
    # Compared from when all of them run: pulses of the arming are no answer to the load.
    from_s = max(START_S, *(run_from_s(series) for series in played))
    besides = until_alike(made, played[:2], held_tenths(played), from_s)
    energies = [energy_wh(series, us * 1e-6, from_s, besides) for series, us in zip(played, PERIODS_US, strict=True)]
    before = besides | (0.1 * np.arange(TENTHS) < from_s)
    most_wh = max(ENERGY_SHARE * energies[0], least_wh(made)) + rearm_wh(made) + used_wh(made, played[:2], before)
    other = abs(energies[1] - energies[0]) > most_wh and not hunting
    path = "range_w_max" in made.control or "damp_share" in made.control
    if other and not path:
        failed.append(f"energy depends on the cycle: {energies[0]:.2f} Wh at 1 ms, {energies[1]:.2f} at 10 ms")
    asked = any(bool(series["asked"].any()) for series in played)
    return {"seed": seed, "failed": failed, "energies": energies, "hunting": hunting, "path": path, "other": other,
            "asked": asked, "left_out": float(besides.mean()),
            "late": abs(energies[2] - energies[0]) > most_wh}  # fmt: skip


def judged(seeds: list[int], jobs: int) -> Iterator[dict[str, Any]]:
    """Each seed's minute, in their order."""
    if jobs == 1:
        yield from map(judge, seeds)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(judge, seeds, chunksize=10)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--jobs", type=int, default=1, help="processes; the results are the same")
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.minutes)
    bad, counts, started = 0, dict.fromkeys(("hunting", "path", "other", "late", "asked"), 0), time.perf_counter()
    left_out = 0.0
    asked_for = list(seeds) if arguments.seed is None else [arguments.seed]
    for seed, found in zip(asked_for, judged(asked_for, arguments.jobs), strict=True):
        bad += bool(found["failed"])
        left_out += found["left_out"]
        for name in counts:
            counts[name] += bool(found[name])
        for one in found["failed"]:
            print(f"seed {seed}: {one}", flush=True)
        if arguments.seed is not None:
            print(f"energies {found['energies']} Wh")
        if (seed + 1) % 500 == 0:
            print(f"{seed + 1 - arguments.first} minutes, {bad} bad, {time.perf_counter() - started:.0f} s", flush=True)
    many = len(seeds) if arguments.seed is None else 1
    print(f"{bad} bad minutes of {many}; {counts['hunting']} had a chase at some cycle, {counts['asked']} a question")
    print(f"more than 2 % other energy: at 10 ms {counts['other']} of the {counts['path']} with range or damping, "
          f"at 100 ms {counts['late']} of all")  # fmt: skip
    print(f"energies compared over {1.0 - left_out / many:.0%} of the time: not while the site arms or asks, "
          f"nor until both are one again after that where a ramp or a demand window remembers it")  # fmt: skip
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
