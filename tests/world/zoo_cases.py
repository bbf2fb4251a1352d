"""Named plants of the zoo: those that broke once, and every shipped trace at five limits and five seeds.

The devices are those of the demo: a 10 ms meter, a converter of 20 ms, 115200 baud. The site knows none of that.
"""

from __future__ import annotations

from collections.abc import Callable
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


GROUPS: dict[str, Callable[[], list[plants.Draw]]] = {"broken": broken, "traces": traces}


def verdict(found: list[judges.Found]) -> list[Any]:
    return [f"{each.stratum}, seed {each.seed}: {each.ratio:.2f} x floor (asked {RATIO_ASKED})"
            for each in found if each.ratio > RATIO_ASKED]  # fmt: skip
