"""Named plants of the zoo: those that broke once, and every shipped trace at five limits and five seeds.

The devices are those of the demo: a 10 ms meter, a converter of 20 ms, 115200 baud. The site knows none of that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import zoo_judge as judges
import zoo_loads as loads
import zoo_plants as plants

RATIO_ASKED = 1.25
PERCENTILES = (10, 30, 50, 75, 95)
SEEDS = (1, 2, 3, 4, 5)
DEVICES = {"meter_update_ms": 10.0, "pcs_tau_ms": 20.0, "soc_start": 0.7}
STRETCH_S = 600.0


def _case(name: str, seed: int, components: list[loads.Component], seconds: float, limit_w: float, power_w: float,
          energy_wh: float) -> plants.Draw:  # fmt: skip
    return plants.Draw(seed, "case", seconds, 20.0, 0.2, components, limit_w, power_w, energy_wh, round(limit_w / 24.0),
                       round(power_w / 12.0), 115200, dict(DEVICES), name=name)  # fmt: skip


def _trace(name: str, start_s: float = 0.0) -> loads.Component:
    return {
        "kind": "trace",
        "seed": 0,
        "trace": name,
        "scale": 12.0 if name.startswith("dgx") else 1.0,
        "start_s": start_s,
    }


def broken() -> list[plants.Draw]:
    """Three loads on which the limit was far from held."""
    made = []
    for seed in SEEDS:
        walk = {"kind": "free_walk", "seed": seed, "start_w": 25e3, "step_w": 1e3, "every_s": 1.0}
        made += [
            _case("64 nodes, 339 kW", seed, [_trace("64node-llama")], 115.0, 339e3, 150e3, 300e3),
            _case("9 nodes, 45 kW", seed, [_trace("9node")], 2400.0, 45e3, 30e3, 60e3),
            _case("walk, 24 kW", seed, [walk], 120.0, 24e3, 30e3, 60e3),
        ]
    return made


def traces() -> list[plants.Draw]:
    """Every shipped trace; a stretch of it that each seed begins somewhere else."""
    made = []
    for name in loads.TRACES:
        t_s, power_w = loads.trace(name)
        power_w = power_w * (12.0 if name.startswith("dgx") else 1.0)
        long_s = min(float(t_s[-1]), STRETCH_S)
        for percent in PERCENTILES:
            limit_w = float(round(np.percentile(power_w, percent)))
            cabinet_w = float(round(max(1.1 * (power_w.max() - limit_w), 0.05 * limit_w, 5e3), -2))
            for seed in SEEDS:
                start_s = float(np.floor((t_s[-1] - long_s) * (seed - 1) / (len(SEEDS) - 1)))
                made.append(_case(f"{name} at {percent} %", seed, [_trace(name, start_s)], long_s, limit_w, cabinet_w,
                                  2.0 * cabinet_w))  # fmt: skip
    return made


# Converters and batteries as they are: what each seed of `units` adds to a plain draw of the zoo, one after the other.
UNIT_HABITS = ("gain", "share", "cap", "dead", "ramp", "offset", "full", "taper", "percent", "jump")


def _unit_habit(habit: str, made: plants.Draw, chance: np.random.Generator) -> dict[str, float]:
    """Settings of the plant that show this habit."""
    at_s = float(round(made.seconds * chance.uniform(0.3, 0.5)))
    match habit:
        case "gain":  # from the arming on
            return {"pcs_gain": float(chance.uniform(0.2, 0.95))}
        case "share":  # derated while it runs, and back
            return {"pcs_derate_share": float(chance.uniform(0.2, 0.95)), "pcs_derate_from_s": at_s,
                    "pcs_derate_until_s": at_s + 0.35 * made.seconds}  # fmt: skip
        case "cap":
            return {"pcs_derate_w": float(chance.uniform(0.2, 0.8)) * made.power_w, "pcs_derate_from_s": at_s,
                    "pcs_derate_until_s": at_s + 0.35 * made.seconds}  # fmt: skip
        case "dead":
            return {
                "pcs_dead_ms": float(chance.uniform(200.0, 5000.0)),
                "pcs_tau_ms": float(chance.uniform(10.0, 3000.0)),
            }
        case "ramp":
            return {"pcs_ramp_w_per_s": float(chance.uniform(0.2, 1.0)) * made.power_w}
        case "offset":
            return {"pcs_gain": float(chance.uniform(0.9, 1.05)), "pcs_offset_w": 0.005 * made.power_w,
                    "pcs_quantum_w": float(chance.choice([0.0, 10.0, 100.0]))}  # fmt: skip
        case "full":
            return {"soc_start": 0.8, "pcs_full_soc": 0.8}
        case "taper":
            return {"bms_taper": 0.3, "soc_start": float(chance.choice([0.12, 0.9]))}
        case "percent":
            return {"bms_soc_step": 0.01, "soc_start": float(chance.uniform(0.1, 0.13))}
        case _:
            return {"bms_jump_s": float(chance.uniform(2.0, 20.0)), "bms_jump_lo": float(chance.uniform(0.1, 0.6))}


def units(first: int = 0, count: int = 60) -> list[plants.Draw]:
    """Quick meters, so that the figures are those of the converter and the battery."""
    made = []
    for seed in range(first, first + count):
        chance = np.random.Generator(np.random.PCG64(77_000_003 + seed))
        habit = UNIT_HABITS[seed % len(UNIT_HABITS)]
        plain = plants.draw(16 * seed)  # the plain stratum
        settings = {**plain.settings, "meter_update_ms": min(plain.setting("meter_update_ms"), 100.0),
                    "meter_resolution_w": 1.0, "meter_delay_ms": 0.0}  # fmt: skip
        settings |= _unit_habit(habit, plain, chance)
        probe = replace(plain, settings=settings)
        made.append(replace(probe, name=habit, quiet_s=float(round(max(30.0, 6.0 * probe.converter_s)))))
    return made


GROUPS: dict[str, Callable[[], list[plants.Draw]]] = {"broken": broken, "traces": traces, "units": units}


def verdict(found: list[judges.Found]) -> list[Any]:
    return [f"{each.stratum}, seed {each.seed}: {each.ratio:.2f} x floor (asked {RATIO_ASKED})"
            for each in found if each.ratio > RATIO_ASKED]  # fmt: skip
