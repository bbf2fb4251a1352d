"""What battery power may be after the grid was lost, at start, and while readings are missing."""

import math

import pytest

from tidegate.ext.control.corridor import Control
from tidegate.ext.estimate.estimator import Estimate

ASKED = {"reconnect_wait_s": 60.0, "reconnect_w_per_s": 100.0, "reconnect_hz_min": 47.5, "reconnect_hz_max": 51.5,
         "reconnect_v_min": 196.0, "reconnect_v_max": 253.0}  # fmt: skip


class Site:
    def __init__(self, **settings):
        self.made, self.t_s = Estimate(1, age_max_s=3.0, **{**ASKED, **settings}), 10.0

    def run(self, seconds, hz=50.0, volt=230.0, grid_w=5e3, ess_w=0.0):
        """Bounds in W, one a second; a reading that is None does not come."""
        bounds = []
        for _ in range(round(seconds)):
            self.t_s += 1.0
            told = {"frequency_hz": hz, "voltage_l1_v": volt, "grid_w": grid_w, "ess0_w": ess_w}
            for name, value in told.items():
                if value is not None:
                    self.made.reading(name, value, self.t_s)
            self.made.step(self.t_s)
            bounds.append(self.made.reconnect_w)
        return bounds


def test_a_site_that_asks_for_nothing_has_no_bound():
    site = Site(reconnect_wait_s=0.0, reconnect_w_per_s=0.0)
    assert set(site.run(5) + site.run(5, hz=0.0)) == {math.inf}


def test_what_was_before_the_start_is_not_known_so_it_waits():
    bounds = Site(reconnect_w_per_s=0.0).run(70)
    assert bounds[:60] == [0.0] * 60 and bounds[61:] == [math.inf] * 9


@pytest.mark.parametrize("lost", [{"hz": 47.4}, {"hz": 51.6}, {"volt": 195.0}, {"volt": 254.0}])
def test_a_reading_out_of_its_band_is_a_loss_and_its_edge_is_none(lost):
    edge = {key: {47.4: 47.5, 51.6: 51.5, 195.0: 196.0, 254.0: 253.0}[value] for key, value in lost.items()}
    site = Site(reconnect_w_per_s=0.0)
    site.run(70)
    assert site.run(5, **edge) == [math.inf] * 5
    assert site.run(1, **lost) == [0.0]
    bounds = site.run(70)
    assert bounds[:60] == [0.0] * 60 and bounds[-1] == math.inf


def test_the_wait_begins_again_with_each_loss():
    site = Site(reconnect_w_per_s=0.0)
    site.run(59)
    site.run(1, hz=45.0)
    assert site.run(60) == [0.0] * 60


def test_meter_and_converter_silent_at_once_are_a_loss_and_the_meter_alone_is_none():
    site = Site(reconnect_w_per_s=0.0)
    site.run(70)
    assert site.run(10, hz=None, volt=None, grid_w=None)[-1] == math.inf
    site.run(5)
    assert site.run(10, hz=None, volt=None, grid_w=None, ess_w=None)[-1] == 0.0
    assert site.run(59) == [0.0] * 59 and site.run(3)[-1] == math.inf


def test_the_wait_does_not_begin_before_the_readings_have_come():
    site = Site(reconnect_w_per_s=0.0)
    site.run(100, hz=None)
    assert site.run(60) == [0.0] * 60 and site.run(2)[-1] == math.inf


@pytest.mark.parametrize("bound_w", [0.0, 2e3, 9e3])
@pytest.mark.parametrize("grid_w", [60e3, -30e3])
def test_a_grid_that_came_back_binds_both_ways_whatever_is_asked(bound_w, grid_w):
    control = Control(1, peak_w_max=20e3, connection_import_w_max=25e3, connection_export_w_max=0.0)
    made = control.step(grid_w=grid_w, lo_w=-50e3, hi_w=50e3, reconnect_w=bound_w)
    assert abs(made.request_total_w) == pytest.approx(bound_w)
    assert made.reason == "reconnection"
    made = control.step(grid_w=grid_w, lo_w=-50e3, hi_w=50e3, manual_w=40e3, reconnect_w=bound_w)
    assert abs(made.request_total_w) <= bound_w


@pytest.mark.parametrize(("grid_w", "ess_w", "expected_w"), [
    (-60e3, 0.0, -4e3),  # turned, it shows the import as export: more is charged for nothing
    (90e3, 0.0, 45e3),   # what is discharged is no more than half of the net power,
    (90e3, 40e3, 50e3),  # which is the load if the meter shows the battery, and no more than twice it if not,
    (25e3, 45e3, 25e3),  # nor than the grid shows: so it does not flow out
    (22e3, -20e3, 2e3),
])  # fmt: skip
def test_a_meter_whose_sign_is_not_known_is_followed_as_far_as_it_does_no_harm(grid_w, ess_w, expected_w):
    control = Control(1, peak_w_max=0.0, connection_import_w_max=5e3, connection_export_w_max=0.0)
    made = control.step(grid_w=grid_w, ess_w=ess_w, lo_w=-50e3, hi_w=50e3, unproven_w=4e3)
    assert made.request_total_w == pytest.approx(expected_w)
    if made.reason != "envelope" and expected_w != 2e3:
        assert made.reason == "unproven meter"
    assert (
        control.step(grid_w=grid_w, ess_w=ess_w, lo_w=-50e3, hi_w=50e3, manual_w=-40e3, unproven_w=4e3).request_total_w
        >= -4e3
    )
    assert abs(control.step(grid_w=-60e3, lo_w=-50e3, hi_w=50e3).request_total_w) == pytest.approx(50e3)


@pytest.mark.parametrize("order", [{"lease_w": 30e3}, {"plan_w": -30e3, "forced": True}, {"manual_w": 5e3}, {}])
def test_the_grid_operators_limit_stands_above_every_order_and_is_never_wider(order):
    control = Control(1, connection_import_w_max=25e3, deadband_w=0.0)
    made = control.step(grid_w=20e3, lo_w=-50e3, hi_w=50e3, operator_import_w_max=4200.0, **order)
    assert 20e3 - made.request_total_w <= 4200.0 + 1.0
    assert made.grid_limit_w == 4200.0
    wide = control.step(grid_w=40e3, lo_w=-50e3, hi_w=50e3, operator_import_w_max=1e6)
    assert wide.request_total_w == pytest.approx(15e3) and wide.grid_limit_w == 25e3
    made = control.step(grid_w=-20e3, lo_w=-50e3, hi_w=50e3, operator_export_w_max=3e3, **order)
    assert -(-20e3 - made.request_total_w) <= 3e3 + 1.0
    made = control.step(grid_w=60e3, lo_w=-50e3, hi_w=50e3, cease=True, **order)
    assert made.request_total_w == 0.0 and made.reason == "grid operator"


@pytest.mark.parametrize("way", ["charge", "discharge"])
@pytest.mark.parametrize("most_w", [0.0, 3e3])
def test_a_slot_bounds_one_direction_and_the_connection_is_stronger(way, most_w):
    control = Control(1, connection_import_w_max=30e3, peak_w_max=20e3, deadband_w=0.0)
    bound = {f"{way}_w_max": most_w}
    wished = {"lease_w": -10e3} if way == "charge" else {"lease_w": 10e3}
    made = control.step(grid_w=5e3, lo_w=-50e3, hi_w=50e3, **wished, **bound)
    assert abs(made.request_total_w) == pytest.approx(most_w) and made.reason == "direction limit"
    other = {key: -value for key, value in wished.items()}
    made = control.step(grid_w=5e3, lo_w=-50e3, hi_w=50e3, **other, **bound)
    assert abs(made.request_total_w) == pytest.approx(10e3)
    if way == "discharge":
        made = control.step(grid_w=29e3, lo_w=-50e3, hi_w=50e3, **bound)
        assert made.request_total_w == pytest.approx(most_w), "the peak is not shaved beyond it"
        made = control.step(grid_w=40e3, lo_w=-50e3, hi_w=50e3, **bound)
        assert made.request_total_w == pytest.approx(10e3), "the connection's limit is"
