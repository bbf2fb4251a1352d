"""A grid meter that shows something new every few seconds: what is believed of its values."""

from collections.abc import Generator

import pytest

from tidegate.ext.estimate.estimator import Estimate

LOAD_W = 30e3
TICK_S = 0.02

# Gives (s since the pulses, load W), takes (battery W, load W) for the next tick.
Run = Generator[tuple[float, float], tuple[float, float] | None, None]


def pulses(seconds: float, interval_s: float, delay_s: float) -> tuple[Estimate, Run]:
    """An estimate that has seen a battery's uneven pulses behind such a meter, and what goes on with both."""
    estimate = Estimate(age_max_s=60.0)
    return estimate, shown(estimate, seconds, interval_s, delay_s)


def pulse_w(at_s: float) -> float:
    turn = at_s % 23.7
    return 12e3 if 2.1 < turn < 7.3 or 11.2 < turn < 19.9 else 0.0


def shown(estimate: Estimate, seconds: float, interval_s: float, delay_s: float) -> Run:
    powers: list[float] = []
    loads: list[float] = []
    late, every = round(delay_s / TICK_S), round(interval_s / TICK_S)
    shown_w, ess_w, load_w, n = LOAD_W, 0.0, LOAD_W, 0
    while True:
        t_s = 10.0 + n * TICK_S
        at_s = n * TICK_S
        if at_s < seconds:
            ess_w, load_w = pulse_w(at_s), LOAD_W + 40.0 * (n // every % 7)
        powers.append(ess_w)
        loads.append(load_w)
        if n % every == 0:
            shown_w = loads[max(n - late, 0)] - powers[max(n - late, 0)]
        estimate.reading("ess0_w", ess_w, t_s)
        estimate.reading("grid_w", shown_w, t_s)
        estimate.step(t_s, setpoint_w=[ess_w])
        n += 1
        if at_s >= seconds:
            asked = yield at_s - seconds, load_w
            ess_w, load_w = asked if asked is not None else (ess_w, load_w)


def after(
    interval_s: float, delay_s: float, ess_w: float, load_w: float, first_w: float = 0.0, rest_s: float = 30.0
) -> tuple[list[tuple[float, float]], Estimate]:
    """(upper, lower) net power at each tick after the battery and the load have moved at once, from a long rest."""
    estimate, run = pulses(180.0, interval_s, delay_s)
    next(run)
    for _ in range(round(rest_s / TICK_S)):
        run.send((first_w, LOAD_W))
    edges = []
    for _ in range(round(20.0 / TICK_S)):
        run.send((ess_w, load_w))
        edges.append((estimate.net_w, estimate.net_lo_w))
    return edges, estimate


@pytest.mark.parametrize("interval_s", [3.0, 6.0, 14.0])
@pytest.mark.parametrize("delay_s", [0.0, 2.0])
def test_the_same_value_shown_again_does_not_speak_for_an_older_age(interval_s: float, delay_s: float) -> None:
    """Before the interval is known the same sample is read hundreds of times while the battery moves."""
    estimate, run = pulses(8.0 * interval_s, interval_s, delay_s)
    next(run)
    scores = estimate.latency_scores
    best = min(scores, key=lambda row: row[1])
    true = min(scores, key=lambda row: abs(row[0] - delay_s))
    assert true[1] - best[1] < 0.5, f"{best[0]} s is believed, it is {delay_s} s"


@pytest.mark.parametrize(("interval_s", "delay_s"), [(2.4, 0.0), (3.4, 0.0), (3.4, 1.4)])
def test_a_rise_that_the_batterys_own_move_may_have_hidden_is_believed(interval_s: float, delay_s: float) -> None:
    """Discharge and load rise together, and the meter shows as much grid power as before: at the second value."""
    edges, estimate = after(interval_s, delay_s, ess_w=8e3, load_w=LOAD_W + 8e3)
    assert not estimate.paired
    first_s = next((n * TICK_S for n, (upper_w, _) in enumerate(edges) if upper_w > LOAD_W + 7.5e3), None)
    assert first_s is not None and first_s < delay_s + 2.0 * interval_s + 0.1


@pytest.mark.parametrize("interval_s", [1.4, 2.4, 3.4])
@pytest.mark.parametrize("delay_s", [0.0, 0.7, 1.4, 2.1, 2.8])
def test_taking_discharge_back_never_looks_like_a_rise(interval_s: float, delay_s: float) -> None:
    """Whatever age is the likeliest by then: else what was too much would be ordered again with each value."""
    edges, _ = after(interval_s, delay_s, ess_w=3e3, load_w=LOAD_W, first_w=9e3)
    assert max(upper_w for upper_w, _ in edges) < LOAD_W + 300.0


def test_a_battery_does_not_charge_to_end_an_export_that_may_be_its_own() -> None:
    """The load falls away beneath a discharge, and the likeliest age is older than the true one."""
    estimate, run = pulses(180.0, 2.4, 2.8)
    next(run)
    for _ in range(round(30.0 / TICK_S)):
        at_s, _ = run.send((-9e3, LOAD_W))
    least_w, began_s = estimate.net_lo_w, 190.0 + at_s + TICK_S
    for n in range(round(20.0 / TICK_S)):
        t_s = began_s + n * TICK_S
        ess_w = -9e3 if n < 100 else 34e3
        estimate.reading("ess0_w", ess_w, t_s)
        if n % 120 == 0:  # the meter shows at once by now
            estimate.reading("grid_w", (LOAD_W if n < 120 else 2e3) - ess_w, t_s)
        estimate.step(t_s, setpoint_w=[ess_w])
        least_w = min(least_w, estimate.net_lo_w)
    assert least_w == 0.0
    assert estimate.net_lo_w == pytest.approx(2e3, abs=100.0), "once the same value must have been measured anew"


def test_an_export_that_is_not_the_batterys_is_followed_at_once() -> None:
    estimate = Estimate(age_max_s=60.0)
    for n in range(round(12.0 / TICK_S)):
        at_s = n * TICK_S
        load_w = 40e3 if at_s < 8.0 else -20e3
        ess_w = 0.0 if at_s < 6.0 else 1e3
        if n % 120 == 0:
            estimate.reading("grid_w", load_w - ess_w, 10.0 + at_s)
        estimate.reading("ess0_w", ess_w, 10.0 + at_s)
        estimate.step(10.0 + at_s, setpoint_w=[ess_w])
    assert estimate.net_lo_w < -18e3
