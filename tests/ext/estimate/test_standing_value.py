"""A value that stands though the battery's move should show has not been measured anew: it is answered once."""

from __future__ import annotations

import pytest

from tidegate.ext.estimate.estimator import Estimate

POLL_S = 0.02
LOAD_W = 50e3


def learnt(seconds: float = 20.0) -> tuple[Estimate, float]:
    """A meter of moments that shows something new every 20 ms, its age known by uneven pulses."""
    estimate, t_s = Estimate(), 10.0
    for n in range(round(seconds / POLL_S)):
        turn = n * POLL_S % 5.3
        ess_w = 6e3 if turn < 1.1 or 2.0 < turn < 2.7 or 3.9 < turn < 4.3 else 0.0
        t_s = 10.0 + n * POLL_S
        step(estimate, t_s, LOAD_W + n % 2 - ess_w, ess_w)
    assert estimate.latency_s[2]
    return estimate, t_s


def step(estimate: Estimate, t_s: float, grid_w: float, ess_w: float) -> None:
    estimate.reading("ess0_w", ess_w, t_s)
    estimate.reading("grid_w", grid_w, t_s)
    estimate.step(t_s, setpoint_w=[ess_w])


def test_a_value_that_stands_while_the_battery_moves_is_not_answered_again() -> None:
    estimate, t_s = learnt()
    for n in range(1, 101):  # from now on the meter shows something new every two seconds
        step(estimate, t_s + n * POLL_S, LOAD_W + 7.0, -200.0 * n)
        assert estimate.net_w == pytest.approx(LOAD_W, abs=1e3)  # 20 kW less, and the battery charges the more


def test_a_value_that_differs_is_answered_at_once() -> None:
    estimate, t_s = learnt()
    for n in range(1, 101):
        step(estimate, t_s + n * POLL_S, LOAD_W + 7.0, -200.0 * n)
    step(estimate, t_s + 2.02, LOAD_W + 20e3 + 5e3, -20e3)
    assert estimate.net_w == pytest.approx(LOAD_W + 5e3, abs=1e3)


def test_a_value_that_stands_while_the_battery_stands_is_a_new_sample() -> None:
    """By its digits, or because nothing moves: the load is what it was."""
    estimate, t_s = learnt()
    for n in range(1, 101):
        step(estimate, t_s + n * POLL_S, LOAD_W + 7.0, 3.0 * (n > 50))
    assert estimate.net_w == pytest.approx(LOAD_W + 7.0 + 3.0, abs=4.0)
