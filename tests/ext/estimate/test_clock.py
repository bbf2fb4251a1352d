"""Where demand windows begin: local clocks, clocks that are set, the utility's pulse, its register."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from tidegate.ext.estimate.estimator import Estimate

ZONES = ("Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns", "Europe/Berlin", "UTC")


class Site:
    """An estimation with a grid meter that is read once a second. t_s: monotonic; the wall clock is offset_s ahead."""

    def __init__(self, window_s=900.0, offset_s=0.0, t_s=100.0, **settings):
        self.made = Estimate(1, age_max_s=10.0, demand_w_max=1e5, demand_window_s=window_s, **settings)
        self.offset_s, self.t_s, self.more = offset_s, t_s, {}

    def run(self, seconds, grid_w):
        for _ in range(round(seconds)):
            self.t_s += 1.0
            self.made.reading("grid_w", grid_w(self.t_s) if callable(grid_w) else grid_w, self.t_s)
            self.made.reading("ess0_w", 0.0, self.t_s)
            for name, value in self.more.items():
                self.made.reading(name, value(self.t_s), self.t_s)
            self.made.step(self.t_s, utc_offset_s=self.offset_s)

    @property
    def used_wh(self):
        return self.made.demand[0] / 3600.0

    @property
    def elapsed_s(self):
        return 900.0 - self.made.demand[2]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("window_s", [600, 900, 1800, 3600])
@pytest.mark.parametrize("month", [1, 4, 7, 10])
def test_windows_begin_where_the_local_clock_has_a_whole_number_of_them(zone, window_s, month):
    here = datetime(2026, month, 3, 21, 47, 13, tzinfo=UTC).astimezone(ZoneInfo(zone))
    local_s = here.replace(tzinfo=UTC).timestamp()
    site = Site(window_s, local_s - 100.0)
    site.run(3, 1e3)
    minute_s = (here + timedelta(seconds=3)).minute * 60 + (here + timedelta(seconds=3)).second
    assert site.made.demand[2] == pytest.approx(window_s - minute_s % window_s, abs=0.1)


@pytest.mark.parametrize("window_s", [900, 1800, 3600])
@pytest.mark.parametrize("change_s", [3600, -3600, 1800, -1800])
def test_a_change_of_the_zone_by_whole_windows_moves_nothing_and_by_half_of_one_counts_anew(window_s, change_s):
    site = Site(window_s)
    site.run(2.3 * window_s, 20e3)
    left_s, used_wh = site.made.demand[2], site.used_wh
    site.offset_s += change_s
    site.run(1, 20e3)
    moved_s = change_s % window_s
    if moved_s == 0:
        assert site.made.demand[2] == pytest.approx(left_s - 1.0) and site.made.clock[0] == 0
        assert site.used_wh == pytest.approx(used_wh + 20e3 / 3600.0, rel=1e-6)
    else:
        assert site.made.demand[2] == pytest.approx((left_s - 1.0 - moved_s) % window_s)
        assert site.made.clock[:2] == (1, 1)
        # A steady load: as much as its time, and at most what one slice holds beyond it.
        elapsed_s = window_s - site.made.demand[2]
        assert 20e3 * elapsed_s / 3600.0 - 1.0 <= site.used_wh <= 20e3 * (elapsed_s + 15.0) / 3600.0


@pytest.mark.parametrize("step_s", [-700, -200, -61, -10, -2, 2, 10, 61, 200, 700])
@pytest.mark.parametrize("at_s", [5, 300, 890])
def test_after_a_clock_that_was_set_no_import_of_the_window_is_forgotten(step_s, at_s):
    """The load is 60 kW for the last 100 s before the clock is set, and 5 kW else."""
    site = Site(offset_s=-100.0)  # the first window begins at 0 s
    site.run(1800 + at_s - 100, 5e3)
    site.run(100, 60e3)
    set_s = site.t_s
    site.offset_s += step_s
    site.run(1, 5e3)
    began_s = site.t_s - site.elapsed_s
    true_wh = (max(site.t_s - max(began_s, set_s), 0.0) * 5e3 + max(set_s - max(began_s, set_s - 100), 0.0) * 60e3
               + max(set_s - 100 - began_s, 0.0) * 5e3) / 3600.0  # fmt: skip
    unknown_s = site.made.demand[1]
    assert unknown_s <= 1.0
    assert true_wh - 20.0 <= site.used_wh, "the trapezoid of one reading aside"
    assert site.used_wh <= true_wh + 15.0 * 60e3 / 3600.0 + 20.0, "at most a slice more"


def test_a_clock_that_is_disciplined_moves_windows_without_counting_anew():
    site = Site()
    site.run(1000, 10e3)
    moved = site.made.clock[0]
    for _ in range(50):
        site.offset_s += 0.0005
        site.run(1, 10e3)
    assert site.made.clock[0] == moved
    assert site.used_wh == pytest.approx(10e3 * site.elapsed_s / 3600.0, rel=0.01)


def test_what_was_not_measured_is_unknown_and_never_guessed_low():
    site = Site()
    site.run(10, 10e3)
    site.offset_s += 400.0  # the window has run for longer than the core
    site.run(1, 10e3)
    assert site.made.demand[1] == pytest.approx(site.elapsed_s - 10.0, abs=2.0)


def test_a_window_that_is_partly_guessed_pays_for_nothing():
    site = Site(demand_ratchet=1.0)
    site.run(1000, 5e3)
    site.run(300, 90e3)
    site.offset_s += 120.0
    site.run(900, 5e3)
    paid_w = site.made.demand[3]
    assert paid_w <= 6e3, "the window that was moved is no measure of what is paid for"
    site.run(2 * 900, 30e3)
    assert site.made.demand[3] == pytest.approx(30e3, rel=0.01)


def test_the_utilitys_pulse_decides_where_a_window_begins_and_our_clock_no_longer():
    site = Site(offset_s=-100.0)
    site.more = {"window_pulse_count": lambda t_s: float((t_s - 337.0) // 900.0)}
    site.run(1500, 10e3)  # pulses at 337 s and 1237 s; the first reading tells nothing
    assert site.made.clock[1] == 2 and site.elapsed_s == pytest.approx(site.t_s - 1237.0, abs=1.5)
    moved = site.made.clock[0]
    site.offset_s += 250.0
    site.run(1000, 10e3)
    assert site.made.clock[0] == moved and site.elapsed_s == pytest.approx(site.t_s - 2137.0, abs=1.5)
    site.more = {"window_pulse_count": lambda t_s: 1.0}  # no more of them
    site.run(2200, 10e3)
    assert site.made.clock[1] == 3, "by the clock again, told"
    assert site.elapsed_s == pytest.approx((site.t_s + site.offset_s) % 900.0, abs=0.1)


def test_a_pulse_that_bounces_or_comes_after_a_silence_moves_nothing():
    site = Site(offset_s=-100.0)
    site.run(1000, 10e3)
    site.made.pulse(site.t_s - 20.0, site.t_s)
    site.run(1, 10e3)
    assert site.elapsed_s == pytest.approx(21.0, abs=0.1)
    site.run(100, 10e3)
    site.made.pulse(site.t_s, site.t_s)
    site.run(1, 10e3)
    assert site.elapsed_s == pytest.approx(122.0, abs=0.1)
    quiet = Site(offset_s=-100.0)
    quiet.run(500, 10e3)
    for at_s, count in ((500.0, 1.0), (620.0, 2.0)):  # read twice, two minutes apart
        quiet.run(at_s + 100.0 - quiet.t_s, 10e3)
        quiet.made.reading("window_pulse_count", count, quiet.t_s)
        quiet.made.step(quiet.t_s + 0.01, utc_offset_s=quiet.offset_s)
    assert quiet.made.clock[0] == 0


def test_the_utilitys_register_of_the_running_window_stands_for_our_own_count():
    site = Site(offset_s=-100.0)
    site.more = {"demand_w": lambda t_s: 33e3}
    site.run(1000, 10e3)
    assert site.used_wh == pytest.approx(33e3 * site.elapsed_s / 3600.0, rel=0.02)
