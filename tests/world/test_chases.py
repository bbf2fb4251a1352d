"""Chases behind an age that is taken for known, and wrong: they are found by holding the battery."""

import pytest
import zoo_judge as judges
import zoo_plants as plants


# Meters that begin to average, or are read as an age that they have not; the first swung by 12 of 68 kW in silence.
# In the last one a value stands while the battery is held: asking that would end the trial.
@pytest.mark.parametrize("seed", [1500811, 1402779, 1401250])
def test_no_chase_under_a_wrong_age_is_silent(seed: int) -> None:
    found = judges.judge(plants.draw(seed))
    assert not found.chase_w or found.chase_told


@pytest.mark.parametrize("seed", [1400000, 1400004, 1400011])
def test_an_honest_plant_has_no_such_event(seed: int) -> None:
    found = judges.judge(plants.draw(seed))
    assert found.events.get("hunting", 0) == 0 and not found.chase_w
