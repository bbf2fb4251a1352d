"""Hunting: a meter that is older than assumed makes battery and meter chase each other; a load that swings does not."""

import math
from collections import deque

import pytest

from tidegate.ext.control.corridor import Control


def chase(load, delay_s, seconds=90.0, cycle_s=0.02, tau_s=0.1, paired=False, believed=False, **settings):
    """A battery behind a meter that is late by delay_s, under a control that takes its readings for fresh.

    Returns (request, level, grid) a cycle. paired: the control is given the load's true power instead.
    believed: the control is told that the age is known.
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
            grid_w=grid_w,
            ess_w=ess_w,
            net_w=load_w if paired else None,
            lo_w=-30e3,
            hi_w=30e3,
            dt_s=cycle_s,
            paired=believed,
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


# ---------------------------------------------------------------- an age that is taken for known


@pytest.mark.parametrize("delay_s", [0.3, 1.0, 3.0])
def test_a_chase_under_an_age_that_is_taken_for_known_is_proven_by_holding_the_battery(delay_s):
    rows = chase(lambda t: 60e3 if t > 2.0 else 40e3, delay_s, seconds=120.0, believed=True)
    levels = [row[1] for row in rows]
    assert max(levels) == 1, "told"
    told = levels.index(1)
    assert told * 0.02 < 2.0 + 30 * delay_s + 12.0, "after six half swings and two periods"
    held = rows[told - round(delay_s / 0.02) : told]
    assert turns([row[0] for row in held]) == 0, "the battery stands"
    assert max(row[2] for row in held) < 45.5e3, "and the limit is held meanwhile"


@pytest.mark.parametrize("hz", [0.1, 0.2, 0.3])
def test_a_load_that_swings_by_itself_is_tried_now_and_then_and_nothing_is_told(hz):
    load, cycle_s = (lambda t: 45e3 + 8e3 * math.sin(2.0 * math.pi * hz * t)), 0.02
    rows = chase(load, 0.5, seconds=600.0, paired=True, believed=True)
    needed = [max(load(i * cycle_s) - 45e3, 0.0) for i in range(len(rows))]
    assert max(row[1] for row in rows) == 0
    assert all(row[0] > need - 100.0 for row, need in zip(rows, needed, strict=True)), "no limit loses anything by it"
    held = [row[0] > need + 1e3 for row, need in zip(rows, needed, strict=True)]
    assert any(held), "tried it is"
    assert sum(held[len(held) // 2 :]) < 0.25 * len(held) / 2, "more and more seldom"


def test_a_trial_gives_way_to_a_limit_of_export():
    """Whenever the load goes: what is held beyond it would be exported."""
    for gone_s in [20.0 + 0.7 * i for i in range(30)]:
        load = lambda t: 2e3 if t > gone_s else 45e3 + 8e3 * math.sin(2.0 * math.pi * 0.3 * t)  # noqa: E731, B023
        rows = chase(load, 0.5, seconds=gone_s + 1.0, paired=True, believed=True, connection_export_w_max=0.0)
        assert max(row[0] for row in rows[round(gone_s / 0.02) + 2 :]) < 2.1e3


def test_an_order_that_changes_ends_a_trial():
    control = Control(peak_w_max=45e3, deadband_w=20.0)
    ess_w, held_s, was_w = 0.0, 0.0, None
    for i in range(6000):
        t = i * 0.02
        load_w = 45e3 + 8e3 * math.sin(2.0 * math.pi * 0.3 * t)
        lease_w = -500.0 if was_w else 0.0
        made = control.step(
            grid_w=load_w - ess_w, ess_w=ess_w, net_w=load_w, lo_w=-30e3, hi_w=30e3, dt_s=0.02, paired=True,
            lease_w=lease_w
        )  # fmt: skip
        more_w = made.request_total_w - max(load_w - 45e3, lease_w)
        if was_w:
            assert more_w < 100.0, "given is what is ordered, or what the limit needs"
            return
        held_s = held_s + 0.02 if more_w > 1e3 else 0.0
        was_w = held_s > 0.2
        ess_w += (made.request_total_w - ess_w) * (1.0 - math.exp(-0.02 / 0.1))
    raise AssertionError("it was never tried")
