"""Charging within a demand window leaves room for what the load did of late; where that is nothing it takes all."""

import pytest

from tidegate.ext.control.corridor import Control

LIMIT_W, PLAN_W, WINDOW_S, PART_S = 50e3, -30e3, 900, 10


def window(control, loads_w, *, give_w=30e3, plan_w=PLAN_W, limit_w=LIMIT_W, soc=0.5, energy_wh=0.0):
    """(mean grid W, charged Wh by thirds of the window) of one window whose parts have these loads."""
    used_ws, battery_w, thirds = 0.0, 0.0, [0.0, 0.0, 0.0]
    for k, load_w in enumerate(loads_w):
        at_s = k * PART_S
        so_far_w = used_ws / at_s if at_s else 0.0
        made = control.step(
            grid_w=load_w - battery_w, ess_w=battery_w, lo_w=-30e3, hi_w=give_w, soc=soc, energy_wh=energy_wh,
            dt_s=float(PART_S), plan_w=plan_w, demand_w_max=limit_w, paired=True,
            demand=(so_far_w, float(at_s), float(WINDOW_S - at_s)),
        )  # fmt: skip
        battery_w = made.request_total_w
        used_ws += max(0.0, load_w - battery_w) * PART_S
        thirds[3 * k // len(loads_w)] += max(0.0, -battery_w) * PART_S / 3600
    return used_ws / WINDOW_S, thirds


PARTS = WINDOW_S // PART_S
LOW = [20e3] * PARTS
LEAPS = [20e3] * (PARTS - 12) + [200e3] * 12  # two minutes at the end: 44 kW in the mean


def test_a_load_that_never_stood_above_the_limit_is_charged_beside_from_the_first_third_on() -> None:
    control = Control()
    window(control, LOW)
    mean_w, thirds = window(control, LOW)
    assert thirds == pytest.approx([2500, 2500, 2500]) and mean_w == pytest.approx(LIMIT_W)


def test_before_a_whole_window_was_watched_only_its_end_is_charged_in() -> None:
    mean_w, thirds = window(Control(), LOW)
    assert thirds[:2] == [0.0, 0.0] and 0 < thirds[2] <= 30e3 * 60 / 3600 and mean_w < LIMIT_W


@pytest.mark.parametrize("give_w", [30e3, 0.0])
def test_a_load_that_leapt_before_finds_room_when_it_leaps_again(give_w: float) -> None:
    """Without the battery the window has 44 kW: with it it stays below 50, though nothing can be given back."""
    control = Control()
    for _ in range(96):
        window(control, LEAPS, plan_w=0.0, give_w=0.0)
    assert window(control, LEAPS, give_w=give_w)[0] < LIMIT_W + 1
    # What leaps late was expected; where it does not come there is still time to charge some.
    mean_w, thirds = window(control, LOW, give_w=give_w)
    assert mean_w < LIMIT_W + 1 and sum(thirds) > 200


def test_the_memory_outlives_a_blind_meter_and_a_lower_limit_is_watched_anew() -> None:
    control = Control()
    for _ in range(96):
        window(control, LOW, plan_w=0.0)
    control.step(grid_w=None)
    assert window(control, LOW)[1][0] > 2000
    assert window(control, LOW, limit_w=0.8 * LIMIT_W)[1][0] == 0.0
    assert window(control, LOW, limit_w=0.8 * LIMIT_W)[1][0] > 1000
    # A higher limit for some hours (a plan's step ended) makes nothing unknown.
    for _ in range(8):
        window(control, LOW, plan_w=0.0)
    assert window(control, LOW, limit_w=0.8 * LIMIT_W)[1][0] > 1000


def test_a_battery_that_holds_enough_charges_where_an_empty_or_a_weak_one_waits() -> None:
    """A load of 80 kW for the last five minutes: 150 kW can undo then what was charged before, if they last so long."""
    leaps, charged = [20e3] * (PARTS - 30) + [80e3] * 30, []
    for give_w, soc in ((150e3, 0.8), (150e3, 0.1), (10e3, 0.8)):
        control = Control(soc_min=0.05)
        for _ in range(96):
            window(control, leaps, plan_w=0.0, give_w=0.0)
        mean_w, thirds = window(control, leaps, give_w=give_w, soc=soc, energy_wh=60e3)
        assert mean_w < LIMIT_W + 1
        charged.append(thirds[0])
    assert charged[0] > 1900 and max(charged[1:]) < 500
