"""A meter that shows at once what the battery does is not taken for one that averages, whatever the load does."""

from dataclasses import replace

import pytest
import zoo_judge as judges
import zoo_plants as plants

from tidegate.hal.sim.virtual import VirtualPlant

RAMPS = plants.Draw(
    seed=5, stratum="plain", seconds=60.0, quiet_s=10.0, quiet_share=0.3,
    components=[{"kind": "ramps", "seed": 11, "scale_w": 40e3, "every_s": 3.0}],
    limit_w=30e3, power_w=40e3, energy_wh=60e3, recharge_gap_w=2e3, recharge_rate_w=4e3, baud=115200,
    settings={"meter_update_ms": 25.0, "pcs_tau_ms": 30.0, "pcs_measure_ms": 50.0},
)  # fmt: skip


def models(made, *at_s):
    """What the core takes the meter for by these times."""
    found, before_s = [], 0.0
    with VirtualPlant(
        plants.program(made), plants.load_of(made), seed=made.seed, overrides=plants.overrides(made)
    ) as plant:
        for until_s in at_s:
            plant.run(until_s - before_s)
            before_s = until_s
            found.append(plant.world.meter_model)
    return found


# Quick meters under loads that the battery follows on slopes: an average, or an age, of three seconds left less
# unexplained over longer times, and the limit was missed by 8.4, 3.4 and 2.6 times the ideal.
@pytest.mark.parametrize("seed", [1602972, 1603852, 1603889])
def test_a_load_that_is_followed_on_its_slopes_makes_no_average_of_a_quick_meter(seed):
    found = judges.judge(plants.draw(seed))
    assert found.recharging_ratio < 1.25, found


@pytest.mark.parametrize(
    "settings", [{}, {"meter_resolution_w": 100.0}, {"pcs_tau_ms": 100.0}, {"meter_delay_ms": 500.0}], ids=str
)
def test_moments_are_seen_to_be_moments(settings):
    share, moves, _, shown = models(replace(RAMPS, settings={**RAMPS.settings, **settings}), 40.0)[0]["moments"]
    assert shown and moves > 3.0 and 0.5 < share < 1.5


@pytest.mark.parametrize(
    "settings", [{"meter_average_ms": 1000.0}, {"meter_average_ms": 5000.0}, {"meter_lag_ms": 900.0}], ids=str
)
def test_an_average_is_not_taken_for_moments(settings):
    for found in models(replace(RAMPS, settings={**RAMPS.settings, **settings}), 20.0, 40.0, 60.0):
        assert not found["moments"][3]


def test_averaging_that_is_switched_on_is_found_all_the_same():
    then = {"meter_then_s": 30.0, "meter_then_update_ms": 25.0, "meter_then_average_ms": 2000.0}
    before, after = models(replace(RAMPS, seconds=110.0, settings={**RAMPS.settings, **then}), 29.0, 90.0)
    assert before["moments"][3] and not before["averages"]
    assert not after["moments"][3] and after["averages"]
