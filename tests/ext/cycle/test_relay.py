"""The grid operator's contacts in the whole core: they stand above every order, closed or not to be read."""

import pytest

from tests.ext.safety.mode_rig import CoreRig


@pytest.mark.parametrize("mode", ["charging", "discharging", "peak", "manual"])
def test_the_operators_stop_takes_all_power_within_a_second_and_gives_it_back(mode):
    with CoreRig(mode) as rig:
        before_w = rig.setpoint_w
        assert abs(before_w) > 5000.0
        rig.set({"relay": 1.0})
        rig.run(1000)
        assert rig.setpoint_w == 0.0
        assert rig.active() == [], "what the operator does is no fault"
        rig.set({})
        rig.run(20_000)
        assert rig.setpoint_w == pytest.approx(before_w, abs=200.0)


@pytest.mark.parametrize("said", ["stale", "invalid", "never"])
def test_an_operators_relay_that_nobody_can_read_counts_as_commanded(said):
    with CoreRig("discharging") as rig:
        rig.set({"relay": said})
        rig.cycle()
        rig.cycle()
        assert rig.setpoint_w < 20_000.0, "at once, and not when the row has waited"
        rig.run(1000)
        assert rig.setpoint_w == 0.0 and rig.active() == ["input_lost"]


def test_the_operators_step_limits_the_import_whatever_the_lease_asks():
    with CoreRig("charging") as rig:  # 10 kW of load and 20 kW into the battery
        rig.set({"dim": 1.0})
        rig.run(5000)
        assert rig.load_w - rig.setpoint_w <= 4200.0 + 50.0
        rig.set({})
        rig.run(20_000)
        assert rig.setpoint_w == -20_000.0


def test_a_closed_door_and_an_open_relay_change_nothing():
    with CoreRig("discharging") as rig:
        rig.set({"door": 0.0, "relay": 0.0, "dim": "held"})
        rig.run(2000)
        assert rig.setpoint_w == 20_000.0 and rig.active() == []
