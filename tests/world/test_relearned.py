"""A meter that has become another is asked by steps, where what is believed of it explains less than something else."""

import pytest
import zoo_hours
import zoo_judge as judges
import zoo_plants as plants

from tidegate.hal.sim.virtual import VirtualPlant

SUSPECT_AGE = 9  # ext/estimate/contradiction.pxd


# None of them was known again within 60 s before; the battery's own moves told too little. The last show it by what
# explains more since then.
@pytest.mark.parametrize("seed", [1500123, 1503771, 1700923, 1703083])
def test_a_meter_that_begins_to_average_is_known_again_within_a_minute(seed: int) -> None:
    found = judges.judge(plants.draw(seed))
    assert found.age_relearned
    assert not found.latched and not found.trips


def test_a_value_that_stands_for_seconds_by_now_is_answered_once() -> None:
    """Every 23 ms, then every 2.8 s: the battery answered one value again and again, and charged above the limit."""
    found = judges.judge(plants.draw(1701739))
    assert found.outside_wh < 20.0, found  # 315 Wh before
    assert found.recharging_ratio < 1.05 and not found.trips, found  # 2.5


@pytest.mark.parametrize("seed", [1400000, 1400003, 1400006])
def test_a_meter_that_stays_what_it_is_is_not_asked_for_that(seed: int) -> None:
    made = plants.draw(seed)
    with VirtualPlant(
        plants.program(made), plants.load_of(made), pv=plants.pv_of(made), seed=seed, overrides=plants.overrides(made)
    ) as plant:
        for _ in range(round(made.seconds + made.quiet_s)):
            plant.run(1.0)
            assert plant.world.meter_truth["suspicion"] != SUSPECT_AGE


@pytest.mark.parametrize("seed", [63004, 63012, 63014])
def test_a_load_that_moves_once_a_second_makes_no_other_meter(seed: int) -> None:
    """Its meter shows something new once a second by now; the battery was moved for that by a third of its power."""
    events, hours = zoo_hours.hour_of(plants.draw(seed), steady=True, seconds=300.0)
    assert hours > 0.05 and not events["reason"], events
