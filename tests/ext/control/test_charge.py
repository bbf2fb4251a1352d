"""Who asks for charge besides the plan: the battery itself, a low state of charge, the reserve; and when each ends."""

import pytest

from tidegate.ext.control.corridor import Control

WIDE = {"lo_w": -30e3, "hi_w": 30e3}


def charges(control, socs, **given):
    """Request at each state of charge in turn."""
    return [control.step(soc=soc, **{"grid_w": 10e3, **WIDE, **given}).request_total_w for soc in socs]


def test_a_forced_charge_goes_on_when_its_target_is_lost_by_two_percent():
    control = Control(recharge_rate_w=0.0)
    seen = charges(
        control, [0.59, 0.60, 0.59, 0.60, 0.59, 0.585, 0.575, 0.59, 0.60], plan_w=-8e3, until_soc=0.6, forced=True
    )
    assert seen == [-8e3, 0.0, 0.0, 0.0, 0.0, 0.0, -8e3, -8e3, 0.0]


def test_a_forced_discharge_has_the_same_way_back():
    control = Control(recharge_rate_w=0.0)
    seen = charges(control, [0.41, 0.40, 0.41, 0.40, 0.425, 0.40], plan_w=8e3, until_soc=0.4, forced=True)
    assert seen == [8e3, 0.0, 0.0, 0.0, 8e3, 0.0]


def test_recharging_does_not_follow_a_last_whole_percent_that_flickers():
    control = Control(recharge_rate_w=5e3, target_soc=0.8)
    assert not any(charges(control, [0.80, 0.79] * 20, dt_s=0.5))
    assert charges(control, [0.78] * 20, dt_s=0.5)[-1] < 0.0


@pytest.mark.parametrize("other", [{}, {"lease_w": 5e3}, {"plan_w": 5e3}, {"plan_w": 5e3, "forced": True}])
def test_a_low_state_of_charge_is_charged_whoever_wishes_otherwise_until_two_percent_above(other):
    control = Control(recharge_rate_w=6e3, force_soc=0.1, target_soc=0.2)
    low = charges(control, [0.09, 0.10, 0.11, 0.119], **other)
    assert low == [-6e3] * 4
    assert control.step(grid_w=10e3, soc=0.12, **WIDE, **other).preference != "low charge"
    assert control.step(grid_w=10e3, soc=0.10, **WIDE, **other).preference != "low charge"


def test_no_limit_gives_way_to_a_charge_that_is_asked_for():
    for settings, given in (
        ({"force_soc": 0.2}, {}),
        ({"reserve_soc": 0.3, "restore_w": 9e3}, {}),
        ({}, {"forced_w": -9e3}),
    ):
        control = Control(peak_w_max=50e3, recharge_w_max=45e3, recharge_rate_w=9e3, target_soc=0.1, **settings)
        made = control.step(grid_w=42e3, soc=0.15, **WIDE, **given)
        assert -3.1e3 < made.request_total_w < -2.9e3, settings
        assert control.step(grid_w=47e3, soc=0.15, **WIDE, **given).request_total_w == 0.0
        if "reserve_soc" not in settings:
            assert control.step(grid_w=60e3, soc=0.15, **WIDE, **given).request_total_w == pytest.approx(10e3)


def test_the_reserve_comes_back_from_what_would_be_exported_and_then_from_the_grid():
    control = Control(reserve_soc=0.3, restore_w=4e3, recharge_rate_w=0.0)
    assert control.step(grid_w=-7e3, soc=0.25, **WIDE).request_total_w == -7e3
    assert control.step(grid_w=-1e3, soc=0.25, **WIDE).request_total_w == -4e3
    assert control.step(grid_w=9e3, soc=0.25, **WIDE).request_total_w == -4e3
    sun_only = Control(reserve_soc=0.3, recharge_rate_w=0.0)
    assert sun_only.step(grid_w=-7e3, soc=0.25, **WIDE).request_total_w == -7e3
    assert sun_only.step(grid_w=9e3, soc=0.25, lease_w=0.0, **WIDE).preference == "lease"


def test_restoring_ends_two_percent_above_the_reserve_and_does_not_begin_at_its_edge():
    control = Control(reserve_soc=0.3, restore_w=4e3, recharge_rate_w=0.0)
    assert charges(control, [0.30, 0.296, 0.29, 0.30, 0.31, 0.32, 0.31, 0.30]) == [0, 0, -4e3, -4e3, -4e3, 0, 0, 0]


def test_what_one_battery_asks_for_goes_to_that_battery():
    control = Control(units=2)
    made = control.step(grid_w=10e3, soc=[0.5, 0.5], forced_w=[0.0, -4e3], lo_w=[-10e3] * 2, hi_w=[10e3] * 2)
    assert made.preference == "battery's own request" and made.request_w == (0.0, -4e3)


def test_a_battery_that_must_be_discharged_is():
    made = Control().step(grid_w=20e3, forced_w=3e3, soc=0.99, lo_w=0.0, hi_w=30e3)
    assert made.request_total_w == 3e3
