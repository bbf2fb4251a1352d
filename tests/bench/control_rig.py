"""The rig of bench_control.py: the plant, its run cycle by cycle, what is read off it, the loads and the peer's filter.

Times in s, powers in W, batteries + discharge, grids + import.
"""

import csv
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tidegate.ext.control.corridor import Control
from tidegate.ext.estimate.estimator import Estimate

ROOT = Path(__file__).parent.parent.parent
TRANSACTION_S = {9600: 0.026, 115200: 0.006, 1_000_000: 0.005}  # 8 + 9 bytes, two gaps, 1 ms turnaround

Load = Callable[[float], float]
Row = dict[str, Any]


@dataclass
class Plant:
    """One cabinet behind one bus; W, s."""

    load: Load
    tau_s: float = 0.05
    meter_s: float = 0.02  # refresh of the meter's register
    delay_s: float = 0.0  # from the sample to the register
    baud: int = 115200
    cycle_s: float = 0.001
    power_w: float = 30e3
    energy_wh: float = 60e3
    soc: float = 0.8
    units: int = 1
    seed: int = 1
    noise_w: float = 0.0


@dataclass
class Run:
    """What happened, one entry a cycle."""

    t_s: list[float] = field(default_factory=list)
    load_w: list[float] = field(default_factory=list)
    grid_w: list[float] = field(default_factory=list)
    ess_w: list[float] = field(default_factory=list)
    request_w: list[float] = field(default_factory=list)
    soc: list[float] = field(default_factory=list)
    reason: list[str] = field(default_factory=list)
    latency_s: tuple[float, float, bool] = (0.0, 0.0, False)

    def array(self, name: str) -> np.ndarray:
        return np.array(getattr(self, name))


def arming(t_s: float, power_w: float) -> float:
    """Pulses as at arming, which tell the meter's age: a tenth of the power, uneven, and over 5 s before t = 0."""
    return 0.1 * power_w if int(np.searchsorted(np.cumsum([0.3, 0.5, 0.4, 0.7] * 5) - 14.5, t_s)) % 2 else 0.0


def simulate(
    plant: Plant, seconds: float, *, oracle: bool = False, start_s: float = 900.0, arm_s: float = 0.0, **settings: Any
) -> Run:
    """Run the plant under the control, or under the oracle that knows the load at each of the meter's samples.

    arm_s: so long before the first row the load rests, with pulses as at arming.
    """
    rng = random.Random(plant.seed)
    control = Control(plant.units, **settings)
    estimate = Estimate(
        age_max_s=10.0, pcs_tau_s=plant.tau_s, **{k: v for k, v in settings.items() if k != "pcs_tau_s"}
    )
    run = Run()
    ess_w = request_w = applied_w = 0.0
    soc = plant.soc
    step = 1.0 - math.exp(-plant.cycle_s / plant.tau_s)
    transaction_s = TRANSACTION_S[plant.baud]
    samples: list[tuple[float, float, float]] = []  # time, grid, true load
    register = (-1.0, plant.load(0.0), plant.load(0.0))
    meter_next, poll_next, turn = -arm_s, -arm_s, 0
    writes: list[tuple[float, float]] = []
    known_w = plant.load(0.0)
    for i in range(-round(arm_s / plant.cycle_s), round(seconds / plant.cycle_s)):
        t_s = i * plant.cycle_s
        load_w = plant.load(max(t_s, 0.0))
        while writes and writes[0][0] <= t_s + 1e-9:
            applied_w = writes.pop(0)[1]
        ess_w += (applied_w - ess_w) * step
        soc -= ess_w * plant.cycle_s / 3600.0 / plant.energy_wh
        grid_w = load_w - ess_w
        if t_s >= meter_next - 1e-9:
            meter_next += plant.meter_s
            samples.append((t_s, grid_w + rng.gauss(0.0, plant.noise_w), load_w))
        while samples and samples[0][0] <= t_s - plant.delay_s + 1e-9:
            register = samples.pop(0)
        if t_s >= poll_next - 1e-9:
            poll_next = max(poll_next + transaction_s, t_s)
            if turn % 2 == 0:
                estimate.reading("grid_w", register[1], start_s + t_s)
                known_w = register[2]
            else:
                estimate.reading("ess0_w", ess_w, start_s + t_s)
            turn += 1
        estimate.reading("soc0", soc, start_s + t_s)
        estimate.step(start_s + t_s, setpoint_w=[int(request_w)])
        used_ws, unknown_s, left_s, paid_w, _ = estimate.demand
        elapsed_s = settings.get("demand_window_s", 900.0) - left_s
        made = control.step(
            grid_w=(known_w - ess_w if oracle else estimate.point("site.grid_w")[0]) if estimate.grid_ok else None,
            net_w=known_w if oracle else estimate.net_w,
            ess_w=ess_w,
            soc=soc,
            energy_wh=plant.energy_wh,
            lo_w=-plant.power_w if soc < 0.98 else 0.0,
            hi_w=plant.power_w if soc > 0.05 else 0.0,
            dt_s=plant.cycle_s,
            paired=oracle or estimate.paired,
            demand=(used_ws / elapsed_s, elapsed_s, left_s, paid_w) if elapsed_s > 0 and unknown_s < 1.0 else None,
        )
        wanted_w = made.request_total_w if t_s >= 0.0 else arming(t_s, plant.power_w)
        if wanted_w != request_w:
            request_w = wanted_w
            writes = [one for one in writes if one[0] <= t_s + transaction_s]  # newest wins
            writes.append((t_s + transaction_s, request_w))
        if t_s < 0.0:
            continue
        for name, value in (
            ("t_s", t_s),
            ("load_w", load_w),
            ("grid_w", grid_w),
            ("ess_w", ess_w),
            ("request_w", request_w),
            ("soc", soc),
            ("reason", made.reason),
        ):
            getattr(run, name).append(value)
    run.latency_s = estimate.latency_s
    return run


def above_wh(run: Run, limit_w: float, cycle_s: float) -> float:
    return float(np.maximum(run.array("grid_w") - limit_w, 0.0).sum() * cycle_s / 3600.0)


def sign_changes(values: np.ndarray, width: float) -> int:
    """Reversals of direction larger than the width: what a limit cycle is made of."""
    turns, last, way = 0, values[0], 0
    for value in values:
        if abs(value - last) > width:
            now = 1 if value > last else -1
            turns += way != 0 and now != way
            way, last = now, value
        elif (value - last) * way > 0:
            last = value
    return turns


def quiet(run: Run, after_s: float, cycle_s: float) -> np.ndarray:
    """Cycles at which the last step of the load lies so far back."""
    moved = np.abs(np.diff(run.array("load_w"), prepend=run.load_w[0])) > 100.0
    return np.convolve(moved, np.ones(round(after_s / cycle_s)), "full")[: len(moved)] < 0.5


def wear(run: Run, cycle_s: float) -> Row:
    ess = run.array("ess_w")
    return {
        "throughput_wh": round(float(np.abs(ess).sum() * cycle_s / 3600.0), 2),
        "sign_changes": int(np.count_nonzero(np.diff(np.sign(np.where(np.abs(ess) < 50.0, 0.0, ess))) != 0)),
        "requests": int(np.count_nonzero(np.diff(run.array("request_w")))),
    }


def trace(path: Path, column: str = "power_w_filled") -> tuple[np.ndarray, np.ndarray]:
    with path.open() as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    return np.array([float(r["t_s"]) for r in rows]), np.array([float(r[column]) for r in rows])


def stepped(path: Path) -> tuple[Load, float]:
    t, w = trace(path)
    step_s = float(t[1] - t[0])
    return lambda at: float(w[min(int(at / step_s), len(w) - 1)]), float(t[-1])


def step_at(at_s: float, low_w: float, high_w: float) -> Load:
    return lambda t: low_w if t < at_s else high_w


def sine(hz: float, mean_w: float, swing_w: float) -> Load:
    return lambda t: mean_w + swing_w * math.sin(2 * math.pi * hz * t)


def square(period_s: float, low_w: float = 20e3, high_w: float = 60e3) -> Load:
    return lambda t: high_w if t % period_s >= period_s / 2 else low_w


def ideal_ramp(load: np.ndarray, rate: float, cycle_s: float, start_w: float) -> np.ndarray:
    grid, out = start_w, []
    for value in load:
        grid = min(max(value, grid - rate * cycle_s), grid + rate * cycle_s)
        out.append(grid)
    return np.array(out)


# What the peer's own test publishes for its default gains: battery power read, setpoint expected, each cycle.
# OpenEMS, io.openems.edge.controller.symmetric.balancing, BalancingImplTest; the filter is in io.openems.edge.common.
PUBLISHED_READ_W = (0, 0, 3793, 8981, 13723, 17469, 20066, 21564, 22175, 22173, 21816, 21311, 20803, 20377)
PUBLISHED_SET_W = (6000, 12000, 16483, 19649, 21577, 22436, 22531, 22171, 21608, 21017, 20508, 20129, 19889, 19767)


class PeerFilter:
    """The peer's PID, from its description: the error is target less what the battery does, target = grid + battery.

    The integral is that of the cycles before; the derivative is of the battery's power; the output is whole watts.
    """

    def __init__(self, p: float = 0.3, i: float = 0.3, d: float = 0.1) -> None:
        self.gains = (p, i, d)
        self.total_w = 0.0
        self.before_w: float | None = None

    def __call__(self, grid_w: float, ess_w: float) -> float:
        error_w = grid_w + ess_w - ess_w
        moved_w = 0.0 if self.before_w is None else ess_w - self.before_w
        self.before_w = ess_w
        p, i, d = self.gains
        out_w = p * error_w + i * self.total_w - d * moved_w
        self.total_w += error_w
        return math.floor(out_w + 0.5)
