"""A converter that measures its power more seldom than it is read: how old a grid reading is, is known all the same."""

from __future__ import annotations

import math

import pytest

from tidegate.ext.estimate.estimator import Estimate

POLL_S = 0.02


def told(estimate: Estimate, *, measure_s: float, delay_s: float, lag_s: float, seconds: float = 20.0) -> None:
    """Uneven pulses of 6 kW behind a meter that shows each reading delay_s late."""
    powers = [0.0]
    shown_w, next_s = 0.0, 0.0
    for n in range(round(seconds / POLL_S)):
        at_s = n * POLL_S
        turn = at_s % 5.3
        order_w = 6e3 if turn < 1.1 or 2.0 < turn < 2.7 or 3.9 < turn < 4.3 else 0.0
        share = POLL_S / lag_s if lag_s > 0.0 else 1.0
        powers.append(powers[-1] + share * (order_w - powers[-1]))
        if at_s >= next_s:
            shown_w, next_s = powers[-1], next_s + measure_s
        t_s = 10.0 + at_s
        estimate.reading("ess0_w", shown_w, t_s)
        estimate.reading(
            "grid_w", 30e3 - powers[max(len(powers) - 1 - round(delay_s / POLL_S), 0)] + 5.0 * math.sin(1.7 * n), t_s
        )
        estimate.step(t_s, setpoint_w=[order_w])


@pytest.mark.parametrize("measure_s", [0.02, 0.08, 0.16])
@pytest.mark.parametrize("delay_s", [0.0, 0.3])
def test_age_is_known_beside_a_converter_that_measures_more_seldom(measure_s: float, delay_s: float) -> None:
    """Read as if each answer were new, the battery's power looks later than it is, by half of that on the average."""
    estimate = Estimate()
    told(estimate, measure_s=measure_s, delay_s=delay_s, lag_s=0.3)
    low_s, high_s, known = estimate.latency_s
    assert known
    assert low_s - 0.02 <= delay_s <= high_s + 0.02
    assert high_s - low_s <= 0.08


def test_bounds_stay_wide_where_the_converter_does_not_show_how_often_it_measures() -> None:
    """One that jumps shows one value an edge: when it measured is known to no better than the pulses are long."""
    estimate = Estimate()
    told(estimate, measure_s=0.16, delay_s=0.0, lag_s=0.0)
    low_s, high_s, _ = estimate.latency_s
    assert low_s - 0.02 <= 0.0 <= high_s + 0.02
    assert high_s - low_s > 0.16
