"""Whole plants whose converter or battery has a habit: never latched, and the limit held with what comes."""

import pytest
import zoo_cases
import zoo_judge as judges

PLANTS = zoo_cases.units(0, len(zoo_cases.UNIT_HABITS))


@pytest.mark.parametrize("made", PLANTS, ids=lambda made: made.name)
def test_a_habit_of_the_unit_trips_nothing_and_the_limit_holds(made):
    found = judges.judge(made)
    assert found.ready_s is not None and not found.trips and not found.latched
    assert found.ratio <= 3.0 and not found.chase_w, (
        found
    )  # a gain of 0.6 that nobody undid left 50; median over sixty: 1.0
    assert found.turns_per_minute <= 4.0
