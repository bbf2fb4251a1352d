"""Plants of the zoo on which the limit was missed for one cause each, and each cause by itself."""

from dataclasses import replace

import pytest
import zoo_judge as judges
import zoo_plants as plants

from tidegate.hal.sim.virtual import VirtualPlant

UNPROVEN, PROVEN = 3, 1  # site.grid_answer
SQUARE = {"kind": "square", "seed": 1, "scale_w": 400e3, "hz": 0.1, "phase_noise": 0.0, "duty": 0.5, "low": 0.5}
STANDS = plants.Draw(
    seed=7, stratum="converter", seconds=40.0, quiet_s=20.0, quiet_share=0.4, components=[SQUARE],
    limit_w=300e3, power_w=300e3, energy_wh=600e3, recharge_gap_w=20e3, recharge_rate_w=20e3, baud=115200,
    settings={"meter_update_ms": 20.0, "pcs_tau_ms": 30.0, "pcs_ramp_w_per_s": 15e6},
)  # fmt: skip


# 1604077: the value of a meter of 1.4 s that stood was no new one for 4 s. 1603937 and 1602669: a limit that rose
# during a rest between two pulses waited for its end. They stood at 2.4, 1.7 and 1.7 times the ideal.
@pytest.mark.parametrize("seed", [1604077, 1603937, 1602669])
def test_what_a_limit_needs_does_not_wait(seed):
    found = judges.judge(plants.draw(seed))
    assert found.recharging_ratio < 1.25 and not found.trips, found


@pytest.mark.parametrize(("gain", "offset_w"), [(0.97, 700.0), (0.97, -700.0), (1.03, -1000.0), (0.99, -900.0)])
def test_a_limit_is_held_once_all_stands(gain, offset_w):
    """A correction of gain and offset stayed where it was nearly gone, and the slow trim was off beside one."""
    over_w = []
    for seed in (7, 8, 9):
        load = {**SQUARE, "seed": seed, "phase_noise": 0.2}
        settings = {**STANDS.settings, "pcs_gain": gain, "pcs_offset_w": offset_w}
        made = replace(STANDS, seed=seed, components=[load], settings=settings)
        with VirtualPlant(
            plants.program(made), plants.load_of(made), seed=seed, overrides=plants.overrides(made), series_every=5
        ) as plant:
            plant.run(made.seconds + made.quiet_s)
            rows = plant.series()
        last = rows["t_s"] > made.seconds + 0.7 * made.quiet_s
        over_w.append(rows["grid_w"][last].max() - made.limit_w)
    assert max(over_w) < 50.0, over_w  # of 300 kW; before, in each case more than 100 W for one of the three


def test_an_average_that_is_known_leaves_no_standing_error():
    found = judges.judge(plants.draw(1400084))  # 2.5 Wh before
    assert found.outside_wh < 0.2, found


def test_a_slow_meter_that_is_bounded_as_unproven_is_proven_below_its_bound():
    """1.5 MW behind a meter of 6 s, and a need of more than its bound leaves: there was no room for a step above it."""
    made = replace(plants.draw(1601655), quiet_s=240.0)
    answers = []
    with VirtualPlant(
        plants.program(made), plants.load_of(made), seed=made.seed, overrides=plants.overrides(made)
    ) as plant:
        at = [point["name"] for point in plant.built.rows["points"]].index("site.grid_answer")
        plant.run(made.seconds)
        for _ in range(12):
            plant.run(20.0)
            answers.append(int(plant.picture().values[at]))
        grid_w = plant.world.now["grid_w"]
    assert answers[0] == UNPROVEN and answers[-1] == PROVEN, answers
    assert grid_w < made.limit_w + 200.0, "and the limit is held"
