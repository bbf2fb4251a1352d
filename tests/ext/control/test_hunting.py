"""Hunting: a meter that is older than assumed makes battery and meter chase each other; a load that swings does not."""

import math
from collections import deque

import pytest

from tidegate.ext.control.corridor import Control


def chase(load, delay_s, seconds=90.0, cycle_s=0.02, tau_s=0.1, paired=False, **settings):
    """A battery behind a meter that is late by delay_s, under a control that takes its readings for fresh.

    Returns (request, level, grid) a cycle. paired: the control is given the load's true power instead.
    """
    settings = {"peak_w_max": 45e3, "deadband_w": 20.0, **settings}
    control = Control(**settings)
    seen = deque([load(0.0)] * (round(delay_s / cycle_s) + 1))
    ess_w, rows = 0.0, []
    for i in range(round(seconds / cycle_s)):
        load_w = load(i * cycle_s)
        seen.append(load_w - ess_w)
        grid_w = seen.popleft()
        made = control.step(
            grid_w=grid_w, ess_w=ess_w, net_w=load_w if paired else None, lo_w=-30e3, hi_w=30e3, dt_s=cycle_s
        )
        ess_w += (made.request_total_w - ess_w) * (1.0 - math.exp(-cycle_s / tau_s))
        rows.append((made.request_total_w, made.hunting, load_w - ess_w))
    return rows


def turns(values, width=500.0):
    """Reversals of direction by more than the width."""
    count, last, way = 0, values[0], 0
    for value in values:
        if abs(value - last) > width:
            now = 1 if value > last else -1
            count += way not in (0, now)
            way, last = now, value
    return count


@pytest.mark.parametrize("delay_s", [0.3, 1.0, 3.0])
def test_a_chase_is_found_damped_and_ends(delay_s):
    rows = chase(lambda t: 60e3 if t > 2.0 else 40e3, delay_s, seconds=240.0)
    requests, levels = [row[0] for row in rows], [row[1] for row in rows]
    assert max(levels) >= 1, "found"
    first, last = requests[: len(rows) // 6], requests[-len(rows) // 6 :]
    assert turns(last) < turns(first) / 2 or turns(last) == 0
    found_s = levels.index(1) * 0.02
    assert found_s < 2.0 + 12 * delay_s + 6.0, "within six swings or so"


def test_after_a_chase_the_limit_is_held_again_and_the_damping_is_taken_back():
    rows = chase(lambda t: 60e3 if t > 2.0 else 40e3, 0.3, seconds=200.0)
    assert rows[-1][2] == pytest.approx(45e3, abs=300.0)
    assert rows[-1][1] < max(row[1] for row in rows)


SWINGS = {
    "square": lambda hz: lambda t: 60e3 if (t * hz) % 1.0 >= 0.5 else 20e3,
    "sine": lambda hz: lambda t: 40e3 + 15e3 * math.sin(2.0 * math.pi * hz * t),
}


@pytest.mark.parametrize("hz", [0.05, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("shape", SWINGS)
@pytest.mark.parametrize("settings", [{}, {"peak_w_max": math.inf, "ramp_up_w_per_s": 1e3, "ramp_down_w_per_s": 1e3}])
def test_a_load_that_swings_by_itself_is_not_taken_for_a_chase(shape, hz, settings):
    rows = chase(SWINGS[shape](hz), 0.02, seconds=max(20.0 / hz, 20.0), cycle_s=0.01, tau_s=0.05, **settings)
    assert max(row[1] for row in rows) == 0


@pytest.mark.parametrize("hz", [0.02, 0.05])
def test_a_slow_swing_about_the_limit_itself_is_no_chase(hz):
    """Above the limit the battery moves, below it the grid, by the same: only the time that it takes tells."""
    about = lambda hz: lambda t: 45e3 + 8e3 * math.sin(2.0 * math.pi * hz * t)  # noqa: E731
    rows = chase(about(hz), 0.02, seconds=12.0 / hz)
    assert max(row[1] for row in rows) == 0
    assert max(row[2] for row in rows[100:]) < 45.5e3
    assert max(row[1] for row in chase(about(0.1), 0.02, seconds=120.0)) == 1, "known: at ten seconds nothing tells"


def test_where_the_battery_is_known_at_the_readings_own_age_nothing_is_damped():
    rows = chase(lambda t: 60e3 if t > 2.0 else 40e3, 1.0, paired=True)
    assert max(row[1] for row in rows) == 0 and turns([row[0] for row in rows]) == 0
