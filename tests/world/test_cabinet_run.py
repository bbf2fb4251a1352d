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
FAULT_ON = EVENT_NAMES[4]
STEP_FAILED, SHORT = FAULT_IDS.index("pcs_step_failed"), FAULT_IDS.index("pcs_short")
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


@pytest.mark.parametrize(
    "plant_habit",
    [{"pcs_gain": 0.2}, {"pcs_gain": 0.35, "pcs_tau_ms": 800.0}, {"pcs_gain": 0.2, "pcs_dead_ms": 2000.0}],
    ids=str,
)
def test_a_converter_that_gives_less_in_the_right_direction_is_armed(plant_habit):
    with plant(load_w=60e3, **plant_habit) as site:
        found = site.run(40.0)
        assert modes(found)[-1] == "run"
        assert any(event["event"] == FAULT_ON and event["code"] == SHORT for event in found.events), "and it is told"


@pytest.mark.parametrize("gain", [0.02, 1.8, 2.4])
def test_a_converter_that_gives_next_to_nothing_or_far_too_much_is_not_armed(gain):
    with plant(load_w=60e3, pcs_gain=gain) as site:
        found = site.run(14.0)
        assert "run" not in modes(found) and "tripped" in modes(found)[1:]
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


UNMOVED, UNPROVEN = FAULT_IDS.index("grid_unmoved"), FAULT_IDS.index("grid_unproven")


def told(found, row):
    return any(event["event"] == FAULT_ON and event["code"] == row for event in found.events)


def restless(seconds, step_w, seed):
    """A load that jumps every second."""
    chance = np.random.default_rng(seed)
    return np.arange(seconds, dtype=float), 40e3 + np.round(chance.normal(0.0, step_w, seconds))


def sited(kind, load, seed=3, **overrides):
    faults = [{"kind": kind, "target": "grid", "value": 0.0, "on_s": 0.0, "off_s": 1e4}] if kind else []
    return VirtualPlant(
        program(), load, seed=seed, series_every=10, overrides={"soc_start": 0.6, "faults": faults, **overrides}
    )


@pytest.mark.parametrize("seed", range(3, 7))
@pytest.mark.parametrize("step_w", [0.0, 1e3, 2e3])
def test_a_grid_meter_that_does_not_see_the_battery_is_not_armed_or_told_as_unproven(step_w, seed):
    """Not armed at all where the load leaves no doubt."""
    with sited("meter.elsewhere", restless(160, step_w, seed), seed) as site:
        found = site.run(150.0)
        first = modes(found).index("arming")
        if step_w > 1e3 and told(found, UNPROVEN):
            return
        assert "ready" not in modes(found) and "run" not in modes(found)
        assert "tripped" in modes(found)[first:] and told(found, UNMOVED)


@pytest.mark.parametrize(
    "habit",
    [
        {"meter_update_ms": 15_000.0, "meter_jitter": 0.5, "meter_delay_ms": 3000.0},
        {"meter_update_ms": 8000.0, "meter_resolution_w": 100.0},
        {"meter_update_ms": 200.0, "meter_band_w": 300.0},
        {"meter_update_ms": 1000.0, "meter_average_ms": 10_000.0},
        {"pcs_dead_ms": 5000.0, "pcs_tau_ms": 3000.0},
        {"pcs_gain": 0.2},
    ],
    ids=str,
)
@pytest.mark.parametrize("step_w", [0.0, 2e3])
def test_honest_meters_of_every_kind_are_armed(habit, step_w):
    with sited(None, restless(200, step_w, 2), **habit) as site:
        found = site.run(190.0)
        assert not told(found, UNMOVED)
        assert {"run", "derated"} & set(modes(found))


def test_a_load_that_hides_the_battery_is_armed_and_told_as_unproven_where_it_is():
    told_at = []
    for seed in range(3, 9):
        with sited(None, restless(200, 60e3, seed), seed, meter_update_ms=8000.0) as site:
            found = site.run(190.0)
            assert not told(found, UNMOVED), seed
            assert {"run", "derated"} & set(modes(found)), seed
            told_at.append(bool(told(found, UNPROVEN)))
    assert any(told_at)


@pytest.mark.parametrize(("late_ms", "times"), [(100.0, 0), (4000.0, 1)])
def test_a_meter_that_changes_its_habits_is_told_once_with_the_age_before(late_ms, times):
    """From 60 s on it averages over so long: half of that is age, and found in steps, first with much doubt."""
    t_s = np.arange(0.0, 140.0, 2.0)
    load = t_s, np.where(np.arange(len(t_s)) % 3 == 0, 66e3, 52e3)
    habit = {"meter_update_ms": 100.0, "meter_then_s": 60.0, "meter_then_update_ms": 100.0}
    with sited(None, load, **habit, meter_then_average_ms=late_ms) as site:
        found = site.run(135.0)
        events = [one for one in found.events if one["event"] == "meter"]
        assert len(events) == times
        assert all(one["value"] > one["limit"] + 0.15 and one["t_ns"] > 61e9 for one in events)
