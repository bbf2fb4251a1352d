"""A meter that begins to average is asked by steps, where what is believed of it explains less than something else."""

import pytest
import zoo_judge as judges
import zoo_plants as plants

from tidegate.hal.sim.virtual import VirtualPlant

SUSPECT_AGE = 9  # ext/estimate/contradiction.pxd


# None of them was known again within 60 s before; the battery's own moves told too little.
@pytest.mark.parametrize("seed", [1500123, 1500699, 1503771])
def test_a_meter_that_begins_to_average_is_known_again_within_a_minute(seed: int) -> None:
    found = judges.judge(plants.draw(seed))
    assert found.age_relearned
    assert not found.latched and not found.trips


@pytest.mark.parametrize("seed", [1400000, 1400003, 1400006])
def test_a_meter_that_stays_what_it_is_is_not_asked_for_that(seed: int) -> None:
    made = plants.draw(seed)
    with VirtualPlant(
        plants.program(made), plants.load_of(made), pv=plants.pv_of(made), seed=seed, overrides=plants.overrides(made)
    ) as plant:
        for _ in range(round(made.seconds + made.quiet_s)):
            plant.run(1.0)
            assert plant.world.meter_truth["suspicion"] != SUSPECT_AGE
