"""No events: the gate's own ramp after a step, one value of a slow meter above a limit. What lasts is one."""

import numpy as np
import pytest

from tests.world.test_unenforced import SITE, plant
from tidegate.ext.abi import shared
from tidegate.ext.abi.image import REASONS_BY_NUMBER

STEP_S = 15.0  # long after the arming
GATE = REASONS_BY_NUMBER.index("gate")


def told(go_w_per_s):
    """(reasons told after a step of 6 kW, rows of the series in which the gate bends the request)."""
    text = SITE.read_text().replace("ramp_go_w_per_s = 3000000 ", f"ramp_go_w_per_s = {go_w_per_s} ")
    assert text != SITE.read_text()
    load = np.array([0.0, STEP_S]), np.array([58e3, 64e3])
    with plant(text, load, soc_start=0.8) as world:
        world.run(STEP_S + 12.0)
        late = world.series()["t_s"] > STEP_S
        bent = int(np.count_nonzero(world.series()["reason"][late] == GATE))
        return [REASONS_BY_NUMBER[one["code"]] for one in world.events
                if one["event"] == "reason" and one["t_ns"] * 1e-9 - 1.0 > STEP_S], bent  # fmt: skip


@pytest.mark.parametrize(("go_w_per_s", "lasts"), [(60000, False), (2000, True)])
def test_a_ramp_of_the_gate_is_an_event_only_when_it_lasts(go_w_per_s, lasts):
    found, bent = told(go_w_per_s)
    assert bent >= 2, "the gate bends the request, and the image says so"
    assert ("gate" in found) == lasts, found
    if lasts:
        assert found[-1] == "peak limit", "and that it is over"


def exceeded(load, seconds):
    """When the peak limit was told as exceeded, s since the first cycle; the meter has a new value every 2 s."""
    with plant(SITE.read_text(), load, soc_start=0.8, meter_update_ms=2000.0) as world:
        world.run(seconds)
        return [one["t_ns"] * 1e-9 - 1.0 for one in world.events
                if one["event"] == "unenforced" and REASONS_BY_NUMBER[one["code"]] == "peak limit"
                and shared.UNENFORCED_NAMES[one["previous"]] == "exceeded"]  # fmt: skip


@pytest.mark.parametrize("lasts", [False, True])
def test_a_slow_meter_that_was_answered_by_its_next_value_says_nothing(lasts):
    """A step is above the limit until the meter shows it; a ramp is above it with each value that is shown."""
    at_s = np.arange(0.0, 90.0)
    more_w = 600.0 * np.clip(at_s - 60.0, 0.0, 16.0) if lasts else 5e3 * (at_s >= 60.0)
    load = at_s, 56e3 + 300.0 * (at_s % 3) + more_w  # the meter's interval is learnt from values that differ
    found = [t_s for t_s in exceeded(load, 85.0) if t_s > 57.0]
    assert bool(found) == lasts, found
    # The second value may be the first above the limit; three intervals later it is told.
    assert not lasts or 60.0 + 3 * 2.0 < found[0] < 60.0 + 6 * 2.0 + 1.0, found
