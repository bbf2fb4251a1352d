"""A battery lowers its limit at once, the converter answers seconds later: no fault. One that never answers is."""

from dataclasses import replace

import pytest
import zoo_cases
import zoo_plants as plants

from tidegate.config.faults import default_table
from tidegate.hal.sim.virtual import VirtualPlant

FALLS_S = 70.0
OUTSIDE = [row.id for row in default_table()].index("pcs_outside_long")


def latched_at(dead_s: float, ramp_w_per_s: float, deaf: bool) -> list[float]:
    """When `pcs_outside_long` latches, s after a limit of 24 kW has gone to nothing under 10 kW of discharge."""
    load = {"kind": "constant", "seed": 1, "scale_w": 30e3}
    case = zoo_cases._case("late", 1, [load], 110.0, 20e3, 24e3, 60e3)
    faults = [{"kind": "battery.limits_zero", "target": "", "on_s": FALLS_S, "lie": ""}]
    if deaf:
        faults += [{"kind": kind, "target": "", "on_s": FALLS_S, "lie": ""} for kind in ("pcs.deaf", "watchdog_off")]
    settings = {**case.settings, "pcs_dead_ms": 1e3 * dead_s, "pcs_ramp_w_per_s": ramp_w_per_s}
    made = replace(case, settings=settings, faults=faults)
    with VirtualPlant(plants.program(made), plants.load_of(made), seed=1, overrides=plants.overrides(made)) as plant:
        plant.run(110.0)
        rows = plant.series()
        assert rows["ess_w"][rows["t_s"] < FALLS_S][-1] > 8e3, "it shaves before"
        return [
            one["t_ns"] / 1e9 - 1.0 - FALLS_S
            for one in plant.events
            if one["event"] == "latch" and one["code"] == OUTSIDE and one["previous"]
        ]


@pytest.mark.parametrize(("dead_s", "ramp_w_per_s"), [(0.0, 1e6), (2.0, 1e6), (4.5, 1e6), (0.0, 2.5e3)])
def test_a_limit_that_falls_faster_than_the_converter_answers_trips_nothing(dead_s: float, ramp_w_per_s: float):
    assert latched_at(dead_s, ramp_w_per_s, deaf=False) == []


@pytest.mark.parametrize(("dead_s", "latest_s"), [(0.0, 4.0), (2.0, 9.0), (4.5, 15.0)])
def test_a_converter_that_does_not_answer_at_all_is_opened_when_its_dead_time_is_over(dead_s: float, latest_s: float):
    when_s = latched_at(dead_s, 1e6, deaf=True)
    assert when_s and when_s[0] <= latest_s
