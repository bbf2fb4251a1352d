"""The cabinet in the whole site: arming tests the converter, manual comes and goes with a ramp, stop is zero."""

from functools import cache
from importlib.resources import files

import numpy as np
import pytest

from tidegate.config.compile import compile_site
from tidegate.config.site import load_site
from tidegate.ext.abi.image import MODES_BY_NUMBER
from tidegate.ext.abi.shared import EVENT_NAMES
from tidegate.ext.safety.diagnosis import FAULT_IDS
from tidegate.hal.sim.virtual import VirtualPlant

ORDER_MODE, ORDER_MANUAL = 0, 6
FAULT_ON, STEP_FAILED = EVENT_NAMES[4], FAULT_IDS.index("pcs_step_failed")
STOP, RUN = 2.0, 1.0


@cache
def program():
    return compile_site(load_site(str(files("tidegate.config").joinpath("demo/site.toml"))))


def plant(load_w=20e3, **overrides):
    load = np.array([0.0]), np.array([load_w])
    return VirtualPlant(program(), load, seed=3, series_every=1, overrides={"soc_start": 0.8, **overrides})


def modes(found):
    """States in the order in which they came."""
    out = []
    for number in found.series()["mode"]:
        if not out or out[-1] != MODES_BY_NUMBER[int(number)]:
            out.append(MODES_BY_NUMBER[int(number)])
    return out


def test_the_cabinet_goes_from_tripped_through_arming_and_ready_to_run():
    with plant() as site:
        assert modes(site.run(3.0)) == ["tripped", "arming", "ready", "run"]
        series = site.series()
        arming = series["mode"] == MODES_BY_NUMBER.index("arming")
        setpoint_w = np.abs(series["setpoint_w"][arming])
        assert setpoint_w[setpoint_w > 0.0][0] == pytest.approx(600.0), "2 % of 30 kW until the converter has followed"
        assert setpoint_w.max() == pytest.approx(3000.0), "then pulses of a tenth, until the meter's age is known"


@pytest.mark.parametrize("kind", ["pcs.wrong_sign", "pcs.deaf", "pcs.frozen"])
def test_a_converter_that_does_not_follow_the_step_is_not_armed(kind):
    faults = [{"kind": kind, "target": 0, "value": 0.0, "on_s": 0.0, "off_s": 100.0}]
    with plant(load_w=60e3, faults=faults) as site:
        found = site.run(14.0)
        assert "run" not in modes(found) and "tripped" in modes(found)[1:]
        assert np.abs(found.series()["setpoint_w"]).max() <= 600.0
        assert any(event["event"] == FAULT_ON and event["code"] == STEP_FAILED for event in found.events), found.events


def test_manual_gives_its_power_and_goes_back_with_a_ramp():
    with plant() as site:
        site.run(3.0)
        site.world.order(ORDER_MANUAL, 9000.0, 2.0)
        found = site.run(6.0)
        series = found.series()
        manual = series["mode"] == MODES_BY_NUMBER.index("manual")
        assert 1.99 <= manual.sum() * 1e-3 <= 2.01 and series["setpoint_w"][manual][-1] == 9000.0
        back = series["setpoint_w"][np.flatnonzero(manual)[-1] :]
        assert np.abs(np.diff(back)).max() <= 30_000 / 2 * 1e-3 + 2.0  # the nameplate in two seconds, each millisecond
        assert abs(back[-1]) <= 100.0 and modes(found)[-2:] == ["manual", "run"]


def test_manual_stays_inside_the_gate_and_rests_the_policies():
    with plant(load_w=48e3) as site:  # with its cooling between peak and connection limit
        site.run(3.0)
        assert site.run(1.0).series()["setpoint_w"][-1] > 3e3
        site.world.order(ORDER_MANUAL, 1e6, 1.0)
        assert site.run(0.9).series()["setpoint_w"].max() <= 30e3
        site.world.order(ORDER_MANUAL, 500.0, 1.0)
        assert site.run(0.9).series()["setpoint_w"][-1] == pytest.approx(500.0)
        assert site.checks["outside_envelope"] == site.checks["outside_nameplate"] == 0


def test_a_stop_ends_manual_and_a_lifted_stop_arms_anew():
    with plant() as site:
        site.run(3.0)
        site.world.order(ORDER_MANUAL, 9000.0, 30.0)
        site.run(1.0)
        site.world.order(ORDER_MODE, STOP, 1e6)
        site.run(0.1)
        assert modes(site)[-1] == "off" and site.series()["setpoint_w"][-1] == 0.0
        site.world.order(ORDER_MANUAL, 0.0, 0.0)
        site.world.order(ORDER_MODE, RUN, 1e6)
        assert modes(site.run(2.0))[-3:] == ["arming", "ready", "run"]


def test_a_tripped_cabinet_takes_no_manual_power():
    with VirtualPlant(program(), (np.array([0.0]), np.array([20e3])), seed=3, arm=False) as site:
        site.world.order(ORDER_MANUAL, 9000.0, 30.0)
        found = site.run(2.0)
        assert modes(found) == ["tripped"] and np.abs(found.series()["setpoint_w"]).max() == 0.0
