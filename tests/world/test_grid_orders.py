"""Orders of the grid's operator, a grid that comes back, local windows and slots, in a whole site in virtual time."""

import tomllib
from importlib.resources import files

import numpy as np
import pytest

from tidegate.config.compile import compile_site
from tidegate.config.site import load_site, parse_site
from tidegate.ext.abi.image import REASONS_BY_NUMBER
from tidegate.ext.abi.shared import CLOCK_NAMES, RECONNECT_NAMES, OrderKind, PlanRow, PlanSource
from tidegate.hal.sim.virtual import VirtualPlant

SITE = files("tidegate.config").joinpath("demo/site.toml")
S = 10**9


def plant(load_w, text=None, **overrides):
    text = text or SITE.read_text()
    site, problems = parse_site(tomllib.loads(text), text)
    assert site is not None and not problems, problems
    site._folder = load_site(str(SITE)).folder
    load = load_w if isinstance(load_w, tuple) else (np.array([0.0]), np.array([load_w]))
    settings = {"cooling_share": 0.0, "trace_phase_s": 0.0, "soc_start": 0.8, **overrides}
    return VirtualPlant(compile_site(site), load, seed=5, series_every=20, overrides=settings)


def told(world, kind):
    return [one for one in world.events if one["event"] == kind]


def test_a_dimming_is_held_while_it_lasts_above_a_lease_that_charges_and_ends_by_itself():
    with plant(20e3) as world:
        world.run(10.0)
        world.order(OrderKind.SETPOINT_W, -10e3, 60.0)
        world.run(8.0)
        world.order(OrderKind.OPERATOR_IMPORT_W_MAX, 4200.0, 10.0)
        world.run(20.0)
        series = world.series()
        t_s, grid_w = series["t_s"], series["grid_w"]
        assert np.median(grid_w[(t_s > 15) & (t_s < 18)]) > 28e3
        assert grid_w[(t_s > 20) & (t_s < 28)].max() < 4400.0
        assert np.median(grid_w[t_s > 34]) > 28e3
        reasons = {REASONS_BY_NUMBER[one["code"]] for one in told(world, "reason")}
        assert "grid operator" in reasons


def test_a_stop_of_the_grid_operator_stands_above_the_peak_limit_and_the_miss_is_told():
    with plant(52e3) as world:
        world.run(10.0)
        world.order(OrderKind.OPERATOR_STOP, 1.0, 5.0)
        world.run(15.0)
        series = world.series()
        t_s = series["t_s"]
        assert abs(series["ess_w"][(t_s > 11.5) & (t_s < 15)]).max() < 100.0
        assert np.median(series["ess_w"][t_s > 20]) == pytest.approx(4e3, abs=300.0)


def test_at_start_power_waits_and_rises_where_the_site_file_asks_for_it():
    text = SITE.read_text().replace("[limits]\n", "[limits]\nreconnect_wait_s = 12\nreconnect_ramp_pct_per_min = 60\n")
    with plant(54e3, text) as world:
        world.run(60.0)
        series = world.series()
        t_s, ess_w = series["t_s"], series["ess_w"]
        rate_w = 0.01 * 30e3
        assert abs(ess_w[t_s < 12.0]).max() < 50.0
        assert (abs(ess_w[t_s > 12.0]) <= (t_s[t_s > 12.0] - 11.0) * rate_w + 100.0).all()
        assert np.median(ess_w[t_s > 50.0]) == pytest.approx(6e3, abs=400.0)
        states = [RECONNECT_NAMES[one["code"]] for one in told(world, "reconnect")]
        assert states[:2] == ["lost", "waiting"] and "rising" in states


def test_windows_follow_the_clock_that_the_plan_tells_and_its_change_to_the_second():
    text = SITE.read_text().replace("[control]\n", "[control]\ndemand_w_max = 60000\ndemand_window_s = 1800\n")
    with plant(20e3, text) as world:
        offset_ns = 1_795_348_800 * S  # a whole number of hours
        world.put_plan([], clock=(offset_ns, world.world.t_ns + 15 * S, offset_ns + 900 * S))
        world.run(12.0)
        left = list(world.meter_records())[-1]["points"]["site.demand_left_s"][0]
        assert left == pytest.approx(1800.0 - (offset_ns + world.world.t_ns) / S % 1800.0, abs=1.1)
        world.run(6.0)
        left = list(world.meter_records())[-1]["points"]["site.demand_left_s"][0]
        assert left == pytest.approx(1800.0 - (offset_ns + 900 * S + world.world.t_ns) / S % 1800.0, abs=1.1)
        moves = [(CLOCK_NAMES[one["code"]], abs(one["value"])) for one in told(world, "clock")]
        assert moves[-1] == ("moved", pytest.approx(900.0))


def test_a_slot_without_discharge_keeps_the_battery_and_one_without_charge_does_not_recharge():
    with plant(52e3) as world:
        world.run(8.0)
        now_ns = world.world.t_ns
        rows = [
            PlanRow(now_ns, now_ns + 8 * S, PlanSource.CALENDAR, 5, False, {"discharge_w_max": 0.0}),
            PlanRow(now_ns + 8 * S, now_ns + 16 * S, PlanSource.CALENDAR, 6, False, {"charge_w_max": 0.0}),
        ]
        world.put_plan(rows)
        world.order(OrderKind.SETPOINT_W, -10e3, 1.0)
        world.run(16.0)
        series = world.series()
        t_s = series["t_s"]
        assert abs(series["ess_w"][(t_s > 10) & (t_s < 16)]).max() < 100.0
        assert np.median(series["ess_w"][(t_s > 18) & (t_s < 24)]) == pytest.approx(4e3, abs=300.0)


@pytest.mark.parametrize("outage_s", [3.0, 8.0])
def test_after_a_grid_loss_power_is_zero_for_the_wait_and_then_rises_no_faster_than_the_ramp(outage_s):
    text = SITE.read_text().replace(
        "[limits]", "[limits]\nreconnect_wait_s = 6\nreconnect_ramp_pct_per_min = 300\nreconnect_hz = [47.5, 50.1]\n"
        "reconnect_v = [195, 253]", 1
    )  # fmt: skip
    loss = {"kind": "island", "target": 0, "value": 0.0, "on_s": 40.0, "off_s": 40.0 + outage_s}
    with plant(60e3, text, faults=[loss]) as world:
        world.run(85.0)
        series, back_s = world.series(), 40.0 + outage_s
        t_s, ess_w = series["t_s"], np.abs(series["ess_w"])
        assert np.median(ess_w[(t_s > 35) & (t_s < 39.5)]) == pytest.approx(12e3, abs=500.0), "shaved before"
        assert ess_w[(t_s > 40.0 + 1.0) & (t_s < back_s + 5.9)].max() < 100.0, "nothing in the dark nor in the wait"
        rising = (t_s > back_s + 5.9) & (t_s < back_s + 20.0)
        least_s = t_s[rising][np.flatnonzero(ess_w[rising] > 100.0)[0]]
        ramp_w_per_s = 30e3 * 3.0 / 60.0
        assert (ess_w[rising] <= ramp_w_per_s * np.maximum(t_s[rising] - least_s, 0.0) + 600.0).all(), "no faster"
        assert np.median(ess_w[t_s > back_s + 25.0]) == pytest.approx(12e3, abs=500.0), "and all of it again"
        names = [RECONNECT_NAMES[one["code"]] for one in told(world, "reconnect")]
        assert names[-3:] == ["lost", "waiting", "rising"] or names[-4:] == ["lost", "waiting", "rising", "done"], names
