"""The plant on a grid that nobody here wrote: OpenDSS solves the IEEE 13 node feeder, and judges control and metering.

    python tests/world/foreign_grid.py [--minutes N] [--seed N] [--out FILE]

Needs the PyPI package opendssdirect.py. The site stands behind 150 m of cable at the feeder's 480 V bus 634, its load
split unevenly over the phases: computers that take the same power at any voltage, and half as much again of ventilation
that takes less at less voltage. Beside it the feeder's own loads swing. Second by second the product's core and plant
(virtual time) and OpenDSS are brought to agree: the load is what OpenDSS says at the voltages that the battery's power
leads to, and the battery's power is what the product orders at that load. Then OpenDSS is believed:

- the feeder is the published one (voltages, losses), or nothing below means anything;
- power at the connection is the plant's, at every second, in sign and size;
- OpenDSS' energy meter and the account that the product keeps of the same hour agree;
- the limit was held, as that meter sees it;
- what the battery gives, the substation gives less of, and more: losses fall with it.
"""

import argparse
import json
import sys
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import opendssdirect as dss
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.world import ieee13
from tidegate.config.compile import compile_site
from tidegate.config.site import load_site
from tidegate.hal.sim.virtual import VirtualPlant

Array = NDArray[np.float64]
START_S = 20  # arming, and the demand window's begin, are not judged
ROUNDS = 6
AGREE_W = 20.0
ROW_S = 0.004  # a step may stand in the plant's means one or two rows of 2 ms beside the second
PHASE_SHARE = (0.45, 0.33, 0.22)
FAN_SHARE = 0.5  # of the computers' power, at nominal voltage
SEEN = ("site_kw", "source_kw", "losses_kw", "voltage_v", "load_kw")


@cache
def program() -> bytes:
    """The demo's site: 30 kW, 60 kWh, 48 kW at the connection."""
    return compile_site(load_site(str(files("tidegate.config").joinpath("demo/site.toml"))))


def computers_w(seconds: int, rng: np.random.Generator) -> Array:
    """Steps every 5 to 60 s: with the fans from far below the limit to above it."""
    found = np.empty(seconds)
    at = 0
    while at < seconds:
        last = at + int(rng.integers(5, 60))
        found[at:last] = rng.uniform(12e3, 46e3)
        at = last
    return found


class Feeder:
    """The feeder with the site on it. swing : factor of the feeder's own loads, second by second."""

    def __init__(self, swing: Array) -> None:
        for command in ieee13.commands():
            dss.Text.Command(command)
        self._swing = swing
        volts = "vminpu=0.7 vmaxpu=1.3"
        for command in (
            # 50 mm2 of copper: 0.387 ohm/km at 20 degC (IEC 60228); reactance of a cable, 0.08 ohm/km.
            "new line.service phases=3 bus1=634 bus2=post r1=0.387 x1=0.08 r0=0.387 x0=0.08 c1=0 c0=0 length=0.15 "
            "units=km",
            "new line.main phases=3 bus1=post bus2=site r1=1e-4 x1=1e-5 r0=1e-4 x0=1e-5 c1=0 c0=0 length=1",
            *(f"new load.it{n} bus1=site.{n} phases=1 kv=0.277 model=1 pf=1 {volts}" for n in (1, 2, 3)),
            *(f"new load.fan{n} bus1=site.{n} phases=1 kv=0.277 model=2 pf=1 {volts}" for n in (1, 2, 3)),
            f"new load.battery bus1=site phases=3 kv=0.48 model=1 pf=1 {volts} kw=0",
            "new energymeter.connection line.main terminal=1",
            "set mode=duty stepsize=1s number=1 controlmode=off sampleenergymeters=yes",
        ):  # fmt: skip
            dss.Text.Command(command)

    def run(self, it_w: Array, ess_w: Array) -> tuple[dict[str, Array], float]:
        """(what was seen each second, kWh of OpenDSS' own meter at the connection)."""
        seen = {name: np.empty(len(it_w)) for name in SEEN}
        dss.Text.Command("reset meters")
        for second, power_w in enumerate(it_w):
            for number, (*_, kw, kvar) in enumerate(ieee13.LOADS):
                dss.Text.Command(
                    f"edit load.spot{number} kw={kw * self._swing[second]} kvar={kvar * self._swing[second]}"
                )
            for phase, share in enumerate(PHASE_SHARE, 1):
                dss.Text.Command(f"edit load.it{phase} kw={power_w * share / 1000} kvar=0")
                dss.Text.Command(f"edit load.fan{phase} kw={power_w * share * FAN_SHARE / 1000} kvar=0")
            dss.Text.Command(f"edit load.battery kw={-ess_w[second] / 1000} kvar=0")
            dss.Solution.Solve()
            if not dss.Solution.Converged():
                raise SystemExit(f"foreign_grid: OpenDSS found no solution in second {second}")
            dss.Circuit.SetActiveElement("line.main")
            seen["site_kw"][second] = sum(dss.CktElement.Powers()[:6:2])
            dss.Circuit.SetActiveElement("load.battery")
            seen["load_kw"][second] = seen["site_kw"][second] - sum(dss.CktElement.Powers()[::2])
            seen["source_kw"][second] = -dss.Circuit.TotalPower()[0]
            seen["losses_kw"][second] = dss.Circuit.Losses()[0] / 1000
            dss.Circuit.SetActiveBus("site")
            seen["voltage_v"][second] = min(dss.Bus.VMagAngle()[::2])
        dss.Meters.First()
        kwh = dict(zip(dss.Meters.RegisterNames(), dss.Meters.RegisterValues(), strict=True))["kWh"]
        return seen, float(kwh)


def ordered(load_w: Array, seed: int) -> tuple[dict[str, Array], float]:
    """(what the plant truly did, a mean a second; Wh that the product accounts from START_S on) at a load."""
    seconds = len(load_w)
    trace = np.arange(float(seconds)), load_w
    overrides = {"cooling_share": 0.0, "trace_phase_s": 0.0, "trace_ppm": 0.0, "soc_start": 0.6}
    with VirtualPlant(program(), trace, seed=seed, series_every=2, overrides=overrides) as plant:
        plant.run(float(seconds))
        series = plant.series()
        rows = [record["points"] for record in plant.meter_records()]
    slot = np.clip(np.ceil(series["t_s"] - 1e-6).astype(int) - 1, 0, seconds - 1)  # a row ends at its time
    count = np.maximum(np.bincount(slot, minlength=seconds), 1)
    true = {name: np.bincount(slot, series[name], minlength=seconds) / count for name in ("grid_w", "ess_w", "load_w")}
    first, last = ({name: value[0] for name, value in row.items()} for row in (rows[START_S - 1], rows[-1]))
    net = [last[f"site.grid_{way}_ws"] - first[f"site.grid_{way}_ws"] for way in ("in", "out")]
    covered = last["site.grid_covered_s"] - first["site.grid_covered_s"]
    return true, (net[0] - net[1]) / 3600 / (covered / (len(rows) - START_S))


def judged(minutes: float, seed: int) -> dict[str, Any]:
    """Run it. Gives the figures."""
    rng, seconds = np.random.default_rng(seed), int(minutes * 60)
    for command in ieee13.commands():
        dss.Text.Command(command)
    dss.Solution.Solve()
    off_pu = max(
        abs(ieee13.voltages(dss)[bus][phase][0] - published)
        for bus, row in ieee13.VOLTAGES.items()
        for phase, (published, _) in row.items()
    )
    published = {
        "voltage_off_pu": off_pu,
        "input_off_kw": -dss.Circuit.TotalPower()[0] - ieee13.INPUT_KW,
        "losses_off_kw": dss.Circuit.Losses()[0] / 1000 - ieee13.LOSSES_KW,
    }
    it_w = computers_w(seconds, rng)
    swing = 0.9 + 0.15 * np.sin(np.arange(seconds) / 97.0) + 0.02 * rng.standard_normal(seconds)
    feeder = Feeder(swing)
    without, _ = feeder.run(it_w, np.zeros(seconds))
    load_w, ess_w = without["load_kw"] * 1000, np.zeros(seconds)
    rounds, apart_w = 0, np.inf
    while apart_w > AGREE_W and rounds < ROUNDS:
        true, accounted_wh = ordered(load_w, seed)
        ess_w = true["ess_w"]
        seen, _ = feeder.run(it_w, ess_w)
        apart_w = float(np.max(np.abs(seen["load_kw"] * 1000 - load_w)))
        load_w = seen["load_kw"] * 1000
        rounds += 1
    # The energy meter over what is judged alone.
    judged_part = slice(START_S, seconds)
    feeder = Feeder(swing[judged_part])
    seen_part, meter_kwh = feeder.run(it_w[judged_part], ess_w[judged_part])
    limit_kw = 48.0
    site_kw, without_kw = seen_part["site_kw"], without["site_kw"][judged_part]
    above = [float(np.sum(np.maximum(power - limit_kw, 0.0))) / 3.6 for power in (without_kw, site_kw)]
    minute = [float(np.max(np.convolve(power, np.ones(60) / 60, "valid"))) for power in (without_kw, site_kw)]
    gives = ess_w[judged_part] > 5e3
    less_kw = without["source_kw"][judged_part][gives] - seen_part["source_kw"][gives]
    off_w = np.abs(1000 * site_kw - true["grid_w"][judged_part])
    stepped_w = np.abs(np.diff(load_w, prepend=load_w[0])) + np.abs(np.diff(load_w, append=load_w[-1]))
    off_w = np.maximum(off_w - ROW_S * stepped_w[judged_part], 0.0)
    return {
        **{name: round(value, 5) for name, value in published.items()},
        "seconds": seconds - START_S, "seed": seed, "rounds": rounds, "load_apart_w": round(apart_w, 2),
        "power_off_w_max": round(float(np.max(off_w)), 1),
        "meter_kwh": round(meter_kwh, 4), "accounted_kwh": round(accounted_wh / 1000, 4),
        "energy_off_percent": round(100 * (accounted_wh / 1000 / meter_kwh - 1), 3), "limit_kw": limit_kw,
        "above_limit_wh": {"without": round(above[0], 1), "with": round(above[1], 1)},
        "minute_mean_kw_max": {"without": round(minute[0], 2), "with": round(minute[1], 2)},
        "seconds_of_discharge": int(np.sum(gives)),
        "source_less_per_ess": round(float(np.sum(less_kw) / (np.sum(ess_w[judged_part][gives]) / 1000)), 4),
        "voltage_v_least_in_discharge": {
            "without": round(float(np.min(without["voltage_v"][judged_part][gives])), 3),
            "with": round(float(np.min(seen_part["voltage_v"][gives])), 3),
        },
    }  # fmt: skip


def broken(found: dict[str, Any]) -> list[str]:
    """What does not hold."""
    holds = {
        "the feeder's voltages are the published ones, to 0.2 %": found["voltage_off_pu"] <= 0.002,
        "its input and losses are, to 1 kW": max(abs(found["input_off_kw"]), abs(found["losses_off_kw"])) <= 1.0,
        f"load and voltage agree to {AGREE_W:g} W": found["load_apart_w"] <= AGREE_W,
        "power at the connection is the plant's, to 20 W": found["power_off_w_max"] <= 20.0,
        "OpenDSS' meter and the account agree to the meter's class, 1 %": abs(found["energy_off_percent"]) <= 1.0,
        "the limit asked for the battery": found["above_limit_wh"]["without"] > 10.0 and found["seconds_of_discharge"],
        "of the energy above the limit 5 % at most are left": found["above_limit_wh"]["with"]
        <= 0.05 * found["above_limit_wh"]["without"],
        "no minute's mean is above the limit": found["minute_mean_kw_max"]["with"] <= found["limit_kw"],
        "the substation gives less by the battery's power and the losses": 1.0 < found["source_less_per_ess"] < 1.15,
        "the lowest voltage rises while the battery gives": found["voltage_v_least_in_discharge"]["with"]
        > found["voltage_v_least_in_discharge"]["without"],
    }
    return [words for words, good in holds.items() if not good]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="file for the figures as JSON")
    args = parser.parse_args()
    found = judged(args.minutes, args.seed)
    print(json.dumps(found, indent=1))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(found, indent=1) + "\n")
    wrong = broken(found)
    for words in wrong:
        print(f"foreign grid: NOT SO: {words}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
