"""Sites behind meters that show something new every few seconds: proven where the meter is honest, never where not."""

from dataclasses import replace

import liars
import pytest
import zoo_plants as plants

from tidegate.ext.safety.diagnosis import FAULT_IDS

MODE_RUN = 2


def told(made):
    """When it ran first, was told as unproven, was so no longer, and its meter was called a liar; None = never."""
    with liars.plant_of(made) as plant:
        plant.run(made.seconds + made.quiet_s)
        events = plant.events
    ran_s = next(
        (one["t_ns"] * 1e-9 - 1.0 for one in events if one["event"] == "mode" and one["code"] == MODE_RUN), None
    )

    def first_s(kind, *ids):
        return next((one["t_ns"] * 1e-9 - 1.0 for one in events
                     if one["event"] == kind and FAULT_IDS[int(one["code"])] in ids), None)  # fmt: skip

    return (
        ran_s,
        first_s("fault_on", "grid_unproven"),
        first_s("fault_off", "grid_unproven"),
        first_s("fault_on", *liars.VERDICTS),
    )


# Before, they were armed as unproven, after 35 and 117 s.
@pytest.mark.parametrize(("seed", "within_s"), [(1400167, 40.0), (1400215, 100.0)])
def test_an_honest_slow_meter_is_armed_as_proven(seed, within_s):
    ran_s, unproven_s, _, liar_s = told(replace(plants.draw(seed), seconds=110.0, quiet_s=1.0))
    assert ran_s is not None
    assert ran_s < within_s
    assert unproven_s is None
    assert liar_s is None


# Before, it stayed so for as long as the plant ran.
def test_one_that_is_armed_as_unproven_is_proven_by_steps_beside_the_control():
    made = plants.draw(1502167)
    ran_s, unproven_s, ended_s, liar_s = told(made)
    assert ran_s is not None
    assert unproven_s is not None
    assert ended_s is not None
    assert ended_s < made.seconds + made.quiet_s
    assert liar_s is None


@pytest.mark.parametrize("lie", ["reversed", "elsewhere"])
@pytest.mark.parametrize("seed", [1400167, 1400083, 1400215, 1400183])
def test_a_slow_meter_that_is_turned_or_sees_nothing_is_never_proven(lie, seed):
    ran_s, unproven_s, ended_s, liar_s = told(replace(liars.liar(seed, lie, "slow"), seconds=150.0))
    assert ran_s is None or unproven_s is not None
    assert ended_s is None or (liar_s is not None and liar_s <= ended_s + 1.0)
