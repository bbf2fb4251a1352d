"""Four minutes on a feeder that OpenDSS solves; `make foreign-grid` has fifteen."""

import copy

import pytest

pytest.importorskip("opendssdirect", reason="the package opendssdirect.py is not installed")
from tests.world import foreign_grid

HOLDS = {
    "voltage_off_pu": 0.001, "input_off_kw": -0.2, "losses_off_kw": -0.6, "load_apart_w": 2.0, "power_off_w_max": 5.0,
    "energy_off_percent": 0.1, "limit_kw": 48.0, "above_limit_wh": {"without": 900.0, "with": 3.0},
    "minute_mean_kw_max": {"without": 60.0, "with": 47.9}, "seconds_of_discharge": 200, "source_less_per_ess": 1.06,
    "voltage_v_least_in_discharge": {"without": 266.0, "with": 267.0},
}  # fmt: skip


def test_control_and_account_hold_on_a_feeder_that_nobody_here_wrote():
    found = foreign_grid.judged(4.0, seed=1)
    assert foreign_grid.broken(found) == [], found
    assert found["rounds"] < foreign_grid.ROUNDS


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("voltage_off_pu",), 0.003), (("losses_off_kw",), 1.1), (("load_apart_w",), 30.0),
        (("power_off_w_max",), 60.0),        (("energy_off_percent",), -1.1), (("above_limit_wh", "with"), 50.0),
        (("above_limit_wh", "without"), 1.0),
        (("minute_mean_kw_max", "with"), 48.1), (("source_less_per_ess",), -1.06), (("source_less_per_ess",), 1.0),
        (("voltage_v_least_in_discharge", "with"), 265.0), (("seconds_of_discharge",), 0),
    ],
)  # fmt: skip
def test_each_thing_that_is_judged_can_fail(place, value):
    assert foreign_grid.broken(HOLDS) == []
    found = copy.deepcopy(HOLDS)
    at = found
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    assert foreign_grid.broken(found)


def test_a_site_whose_sign_is_turned_is_found(monkeypatch):
    """The battery's power the wrong way round into the feeder: what a wrong sign at the converter would do."""
    right = foreign_grid.Feeder.run
    monkeypatch.setattr(foreign_grid.Feeder, "run", lambda self, it_w, ess_w: right(self, it_w, -ess_w))
    assert foreign_grid.broken(foreign_grid.judged(2.0, seed=1))
