"""Meters that average: what was found of them stays while it is true, and a rise is answered as the likeliest says."""

from collections.abc import Callable

import pytest

from tidegate.ext.estimate.estimator import Estimate

STEP_S = 0.02
LIMIT_W = 30e3
LEARN_S = 40.0


class Site:
    """A battery that follows 0.1 s late, behind a meter that is a moving mean or a first-order filter of some age."""

    def __init__(self, *, mean_s: float = 0.0, lag_s: float = 0.0, delay_s: float = 0.0) -> None:
        self.estimate = Estimate()
        self.mean_s, self.lag_s, self.delay_s = mean_s, lag_s, delay_s
        self.rows: list[float] = []
        self.ess_w = self.grid_w = self.t_s = 0.0
        self.smooth_w: float | None = None

    def shown_w(self) -> float:
        late = round(self.delay_s / STEP_S)
        many = max(round(self.mean_s / STEP_S), 1)
        window = self.rows[max(len(self.rows) - late - many, 0) : max(len(self.rows) - late, 1)]
        mean_w = sum(window) / len(window)
        if self.smooth_w is None:
            self.smooth_w = mean_w
        self.smooth_w += (mean_w - self.smooth_w) * STEP_S / (self.lag_s + STEP_S)
        return self.smooth_w

    def step(self, load_w: float, wanted_w: float) -> None:
        self.t_s += STEP_S
        self.ess_w += (wanted_w - self.ess_w) * STEP_S / 0.1
        self.grid_w = load_w - self.ess_w
        self.rows.append(self.grid_w)
        self.estimate.reading("ess0_w", self.ess_w, 10.0 + self.t_s)
        self.estimate.reading("grid_w", round(self.shown_w()), 10.0 + self.t_s)
        self.estimate.step(10.0 + self.t_s, setpoint_w=[wanted_w])

    def pulses(self, seconds: float, load: Callable[[float], float] = lambda t_s: 25e3) -> None:
        for _ in range(round(seconds / STEP_S)):
            turn = self.t_s % 7.3
            self.step(load(self.t_s), 6e3 if turn < 1.9 or 3.1 < turn < 4.0 else 0.0)

    def hold(self, seconds: float, load: Callable[[float], float]) -> None:
        """Keep the grid at its limit, as the control does: with what is believed of the net power."""
        since_s = self.t_s
        for _ in range(round(seconds / STEP_S)):
            self.step(load(self.t_s - since_s), max(self.estimate.net_w - LIMIT_W, 0.0))


def sawtooth_w(t_s: float) -> float:
    return 28e3 + 6e3 * (t_s % 25.0) / 25.0


def test_an_average_that_was_found_stays_while_the_battery_tells_little() -> None:
    """Beside slow slopes the battery does what the load does, and any age explains that as well."""
    site = Site(lag_s=1.6)
    site.pulses(LEARN_S)
    site.hold(100.0, sawtooth_w)
    low_s, high_s, _ = site.estimate.latency_s
    assert 1.2 < low_s <= 1.64 and 1.56 <= high_s < 3.0
    site.hold(4.0, lambda t_s: 28e3)
    site.hold(8.0, lambda t_s: 50e3)
    # After five of its time constants the filter has shown all but 0.7 % of the step.
    assert site.grid_w < LIMIT_W + 0.05 * 22e3


def test_a_meter_that_has_ceased_to_average_is_found_out() -> None:
    site = Site(lag_s=1.6)
    site.pulses(LEARN_S)
    assert site.estimate.latency_s[0] > 1.2
    site.lag_s, site.delay_s = 0.0, 0.2
    site.pulses(30.0)
    low_s, high_s, _ = site.estimate.latency_s
    assert low_s <= 0.22 and high_s < 0.6


@pytest.mark.parametrize(("mean_s", "lag_s"), [(0.0, 1.9), (2.7, 0.0), (4.0, 0.0)])
def test_a_rise_behind_a_meter_that_averages_is_answered_as_the_likeliest_says(mean_s: float, lag_s: float) -> None:
    """Lengths between those that are tried: above the limit stands what the meter has yet to show, and little else."""
    site = Site(mean_s=mean_s, lag_s=lag_s)
    site.pulses(LEARN_S)
    site.hold(10.0, lambda t_s: 28e3)
    above_ws, least_w = 0.0, LIMIT_W
    for _ in range(750):
        site.hold(STEP_S, lambda t_s: 50e3)
        above_ws += max(site.grid_w - LIMIT_W, 0.0) * STEP_S
        least_w = min(least_w, site.grid_w)
    best_ws = 20e3 * (lag_s + 0.5 * mean_s + 0.1)
    assert above_ws < 1.25 * best_ws
    assert least_w > LIMIT_W - 0.1 * 20e3, "no more than the doubt in its length"
    assert abs(site.grid_w - LIMIT_W) < 200.0


@pytest.mark.parametrize(("mean_s", "lag_s"), [(0.0, 1.9), (2.7, 0.0), (4.0, 0.0)])
def test_what_the_battery_does_by_itself_is_no_rise_behind_a_meter_that_averages(mean_s: float, lag_s: float) -> None:
    site = Site(mean_s=mean_s, lag_s=lag_s)
    site.pulses(LEARN_S)
    most_w = 0.0
    for _ in range(600):
        site.pulses(STEP_S)
        most_w = max(most_w, site.estimate.net_w)
    assert most_w < 25e3 + 0.2 * 6e3


def slopes_w(t_s: float) -> float:
    return 30e3 + 17.4e3 * abs(t_s / 7.6 % 1.0 - 0.5)


def stairs_w(t_s: float) -> float:
    return 30e3 + 4.8e3 * (int(t_s / 5.35) % 3)


@pytest.mark.parametrize("load", [slopes_w, stairs_w], ids=["slopes", "stairs"])
def test_no_average_is_believed_that_is_as_long_and_as_late_as_any(load: Callable[[float], float]) -> None:
    """Beside a load that moves as often as the battery such a one explains all of it, whatever the meter is."""
    site = Site(mean_s=4.5, delay_s=0.1)
    oldest_s = 0.0
    for _ in range(45):
        site.pulses(1.0, load)
        if site.t_s > 8.0:
            oldest_s = max(oldest_s, site.estimate.likely_age_s[0])
    assert oldest_s < 4.5


def test_an_average_that_is_shown_late_is_found_where_the_battery_says_so() -> None:
    site = Site(mean_s=1.5, delay_s=2.3)
    site.pulses(LEARN_S)
    low_s, high_s, _ = site.estimate.latency_s
    assert low_s - 0.4 <= 3.05 <= high_s + 0.4 and high_s - low_s < 1.5
