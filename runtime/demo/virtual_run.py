"""The whole run: the demo's trace in virtual time through the compiled core, booked and attributed like a real site."""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tidegate.config.site import Simulation, Site
from tidegate.runtime.carbon.ledger.bodies import PeriodBody
from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.carbon.ledger.signing import sign, verify
from tidegate.runtime.carbon.sidecar.service import Sidecar
from tidegate.runtime.demo.runs import WholeRun
from tidegate.runtime.state.device_key import DeviceKey

# The trace was recorded on 2024-05-09, the grid factors in March 2023: the replay is dated into the factors.
REPLAY_UTC_S = 1_678_915_160  # 2023-03-15T21:19:20Z, the trace's own time of day
SERIES_S = 0.5
CLOSE_UP_S = 60.0
CLOSE_UP_CYCLES = 5
LEAD_S = 20.0  # of the close-up, before the steepest step
SHORTEST_S = LEAD_S + CLOSE_UP_S  # of a trace


@dataclass(frozen=True, slots=True)
class Trace:
    """The IT load that is replayed as steps."""

    path: Path
    column: str
    t_s: np.ndarray
    power_w: np.ndarray
    sha256: str

    @property
    def seconds(self) -> float:
        return float(self.t_s[-1] + (self.t_s[-1] - self.t_s[-2]) if len(self.t_s) > 1 else 0.0)

    def cut(self, start_s: float, length_s: float) -> tuple[np.ndarray, np.ndarray]:
        """(t_s from 0, power_w) of a part; the value that holds at its start comes first."""
        first = max(0, int(np.searchsorted(self.t_s, start_s, side="right")) - 1)
        last = int(np.searchsorted(self.t_s, start_s + length_s, side="left"))
        t_s = np.maximum(self.t_s[first:last] - start_s, 0.0)
        return t_s, self.power_w[first:last]

    def steepest_s(self, window_s: float = CLOSE_UP_S) -> float:
        """Start of the window with the largest sum of upward steps, its largest one LEAD_S after the start."""
        rise = np.maximum(np.diff(self.power_w), 0.0)
        at = self.t_s[1:]
        inside = np.searchsorted(at, at + window_s)
        total = np.concatenate(([0.0], np.cumsum(rise)))
        sums = total[inside] - total[:-1]
        first = int(np.argmax(np.where(at + window_s <= self.t_s[-1], sums, -1.0)))
        span = slice(first, int(inside[first]))
        largest = float(at[span][int(np.argmax(rise[span]))])
        return float(min(max(0.0, largest - LEAD_S), self.seconds - window_s))


def simulation_of(site: Site) -> tuple[Simulation, str]:
    """A site's [simulation] and the name of its load trace. Raises TraceError if it has none."""
    from tidegate.hal.sim.trace import TraceError

    if site.simulation is None or site.simulation.load_trace is None:
        raise TraceError("the demo needs a [simulation] with a load_trace")
    return site.simulation, site.simulation.load_trace


def trace_of(site: Site) -> Trace:
    """The trace that a site's [simulation] names. Raises TraceError naming file, line and remedy."""
    from tidegate.hal.sim.trace import TraceError, read_trace

    simulation, name = simulation_of(site)
    path = site.folder / name
    t_s, power_w = read_trace(
        path, simulation.load_column, start_s=simulation.start_s, length_s=simulation.length_s, least_w=0.0
    )
    if t_s[-1] < SHORTEST_S:
        raise TraceError(
            f"{path}: is {t_s[-1]:g} s long; the demo replays {SHORTEST_S:g} s at least: give a longer trace"
        )
    return Trace(path, simulation.load_column, t_s, power_w, hashlib.sha256(path.read_bytes()).hexdigest())


def run_whole(site: Site, blob: bytes, trace: Trace, ledger: Path, seconds: float) -> WholeRun:
    """Replay `seconds` of the trace from its start; book and attribute it into a fresh ledger at `ledger`."""
    from tidegate.ext.abi import program
    from tidegate.ext.abi.image import REASONS_BY_NUMBER
    from tidegate.hal.sim.virtual import VirtualPlant

    load = trace.cut(0.0, seconds)
    every = round(SERIES_S / (site.site.period_us * 1e-6))
    with VirtualPlant(blob, load, series_every=every, utc_start_ns=REPLAY_UTC_S * 10**9) as plant:
        cpu_s = time.process_time()
        plant.run(seconds)
        cpu_s = time.process_time() - cpu_s
        describe = program.describe(blob)
        verdict, totals = plant.verdict(), plant.totals()
        series = {name: np.array(column) for name, column in plant.series().items()}
        bodies, kinds, notes = book(describe, plant.meter_records(), ledger, site.folder)
        answers = list(plant.step_to_wire_ms)
        return WholeRun(
            seconds=seconds,
            cycles=int(plant.world.cycle),
            wall_s=plant.wall_s,
            cpu_s=cpu_s,
            sha256=plant.sha256,
            seed=plant.seed,
            row_s=SERIES_S,
            series=series,
            limit_w=verdict["limit_w"],
            reaction_s=verdict["reaction_s"],
            steps=verdict["steps"],
            above_wh=verdict["energy_above_limit_wh"],
            peak_w=verdict["grid_peak_w"],
            reasons=REASONS_BY_NUMBER,
            bodies=bodies,
            kinds=kinds,
            notes=notes,
            checks={name: int(value) for name, value in plant.checks.items()},
            step_to_wire_ms=answers,
            close_up=close_up(blob, trace, site),
            import_wh=totals["grid_in_wh"],
        )


def close_up(blob: bytes, trace: Trace, site: Site) -> dict[str, np.ndarray]:
    """The steepest minute again, with a row every few cycles."""
    from tidegate.hal.sim.virtual import VirtualPlant

    start_s = trace.steepest_s()
    settle_s = 10.0
    begin = max(0.0, start_s - settle_s)
    load = trace.cut(begin, start_s - begin + CLOSE_UP_S)
    with VirtualPlant(blob, load, series_every=CLOSE_UP_CYCLES) as plant:
        plant.run(start_s - begin + CLOSE_UP_S)
        series = plant.series()
    keep = series["t_s"] >= start_s - begin
    return {
        "t_s": series["t_s"][keep] - (start_s - begin),
        **{name: np.array(series[name][keep]) for name in ("load_w", "grid_w", "ess_w", "setpoint_w")},
    }


def book(
    describe: dict[str, Any], records: Any, path: Path, folder: Path
) -> tuple[list[PeriodBody], dict[str, str], list[str]]:
    """Book meter records into a fresh ledger; the part at the end that is no whole period is booked as PARTIAL.

    Returns the period bodies, the nodes' roles, and what a reader should know.
    """
    path.unlink(missing_ok=True)
    ledger = Ledger(path)
    sidecar = Sidecar(describe, ledger, folder=folder)
    sidecar.take(records)
    rest = sidecar.booker.finish()
    sidecar.commit()
    if rest is not None:
        ledger.append([("period", rest.start_utc_s, sidecar.accountant.book(rest))])
    sign(ledger, DeviceKey.at(path.with_name("ledger-key.pem")), sidecar.site, least=1)
    bodies = [entry.body for entry in ledger.entries("period")]
    notes = list(sidecar.nodes.notes)
    if sidecar.factors.grid is not None:
        notes += [f"grid factors, {note}" for note in sidecar.factors.grid.notes]
    damages = verify(ledger)
    ledger.close()
    if damages:
        raise ArithmeticError(f"{path}: the ledger just written does not verify: {damages[0]}")
    return bodies, sidecar.nodes.kinds, notes
