"""Power against the meter's own energy registers: power that lies is found, whatever an honest meter does is not."""

from collections.abc import Callable

import numpy as np
import pytest

from tidegate.ext.estimate.energy_register import contradictions

LIE_S = 40.0
STEP_S = 0.1
T_S = np.arange(0.0, 90.0, STEP_S)
Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def loads() -> dict[str, Array]:
    chance = np.random.default_rng(5)
    walk_w = 30e3 + np.cumsum(chance.normal(0.0, 600.0, len(T_S)))
    return {
        "rests": np.full(len(T_S), 30e3) + chance.normal(0.0, 20.0, len(T_S)),
        "walks": np.maximum(walk_w, 5e3),
        "steps": np.where((T_S // 7.0) % 2 < 1.0, 35e3, 12e3) + chance.normal(0.0, 20.0, len(T_S)),
        "gives power": np.full(len(T_S), -20e3) + chance.normal(0.0, 20.0, len(T_S)),
    }


LOADS = loads()


def found(
    shown_w: Array, true_w: Array, digit_wh: float = 0.01, every: int = 10, interval_s: float = STEP_S,
    digit_w: float = 0.0,
) -> list[float]:  # fmt: skip
    """The registers are read each `every` rows and count the true power."""
    import_wh = np.cumsum(np.maximum(true_w, 0.0)) * STEP_S / 3600.0
    export_wh = np.cumsum(np.maximum(-true_w, 0.0)) * STEP_S / 3600.0
    held = (np.arange(len(T_S)) // every) * every
    rows = zip(T_S + 1.0, shown_w, np.floor(import_wh[held] / digit_wh) * digit_wh,
               np.floor(export_wh[held] / digit_wh) * digit_wh, strict=True)  # fmt: skip
    return contradictions([tuple(map(float, row)) for row in rows], interval_s, digit_w)


def averaged(w: Array, length_s: float) -> Array:
    kernel = np.ones(round(length_s / STEP_S)) / round(length_s / STEP_S)
    return np.convolve(np.concatenate((np.full(len(kernel) - 1, w[0]), w)), kernel, "valid")


def late(w: Array, by_s: float) -> Array:
    return np.concatenate((np.full(round(by_s / STEP_S), w[0]), w))[: len(w)]


HONEST: dict[str, Callable[[Array], Array]] = {
    "as it is": lambda w: w,
    "averages 10 s": lambda w: averaged(w, 10.0),
    "late by 4 s": lambda w: late(w, 4.0),
    "each second": lambda w: w[(np.arange(len(w)) // 10) * 10],
}


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("habit", HONEST)
@pytest.mark.parametrize("digit_wh", [0.01, 1.0, 10.0, 1000.0])
def test_no_honest_meter_contradicts_its_registers(load: str, habit: str, digit_wh: float) -> None:
    assert found(HONEST[habit](LOADS[load]), LOADS[load], digit_wh) == []


def swinging(seed: int) -> Array:
    """Power that goes up and down through zero, turning about every 1.4 s, W at T_S."""
    chance = np.random.default_rng(seed)
    at_s = np.cumsum(chance.exponential(1.4, 120))
    return np.interp(T_S, at_s, chance.uniform(-12e3, 14e3, len(at_s)))


@pytest.mark.parametrize("seeds", [range(0, 100), range(100, 200), range(200, 300)])
def test_an_honest_meter_that_looks_twice_a_second_does_not_contradict_power_that_swings_about_zero(
    seeds: range,
) -> None:
    every_half_second = (np.arange(len(T_S)) // 5) * 5
    told = [
        seed
        for seed in seeds
        if found(np.round(late(swinging(seed), 1.0)[every_half_second], -2), swinging(seed), 0.1, interval_s=0.5)
    ]
    assert told == []


@pytest.mark.parametrize("offset", range(5))
@pytest.mark.parametrize("power_w", [285e3, -285e3])
def test_a_short_spike_of_power_may_be_held_for_longer_than_it_lasts(power_w: float, offset: int) -> None:
    """0.2 s of it are shown as 0.5 s or not at all; the power around it is small (1404194 of the zoo)."""
    steady = np.full(len(T_S), 20e3)
    at = np.arange(len(T_S))
    true_w = np.where((at >= 600 + offset) & (at < 602 + offset), power_w, steady)
    shown_w = true_w[(at // 5) * 5]
    assert found(shown_w, true_w, interval_s=0.5) == []
    assert found(np.where(at < 400, shown_w, 0.1 * shown_w), true_w, interval_s=0.5)


@pytest.mark.parametrize("true_w", [49.0, -49.0])
def test_power_below_half_a_digit_of_a_meter_is_no_contradiction_of_its_registers(true_w: float) -> None:
    """A register that counts single watt-hours beside a power in steps of 100 W (601995 of the zoo)."""
    steady = np.full(len(T_S), true_w)
    coarse = np.where(T_S < 30.0, 2e3, np.round(steady, -2))
    assert found(coarse, np.where(T_S < 30.0, 2e3, steady), 0.001, digit_w=100.0) == []
    assert found(coarse, np.where(T_S < 30.0, 2e3, steady), 0.001)  # of a meter whose digits are fine


# Within so long of the lie, s: a value that stands looks late at first.
LIES: dict[str, tuple[Callable[[Array], Array], float]] = {
    "ten times": (lambda w: 10.0 * w, 5.0),
    "a tenth": (lambda w: 0.1 * w, 6.0),
    "turned": (lambda w: -w, 5.0),
}


@pytest.mark.parametrize("load", ["rests", "gives power", "walks"])
@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("digit_wh", [0.01, 1.0])
def test_power_that_its_registers_contradict_is_found(load: str, lie: str, digit_wh: float) -> None:
    shown, within_s = LIES[lie]
    times_s = found(np.where(T_S < LIE_S, LOADS[load], shown(LOADS[load])), LOADS[load], digit_wh)
    assert times_s and LIE_S + 1.0 < times_s[0] <= LIE_S + 1.0 + within_s, times_s[:3]
    assert times_s[-1] > T_S[-1]  # and stays found


def test_power_that_stands_while_the_load_has_gone_is_found() -> None:
    true_w = np.where(T_S < LIE_S, 30e3, 2e3) + np.random.default_rng(1).normal(0.0, 20.0, len(T_S))
    times_s = found(np.full(len(T_S), 30e3), true_w)
    assert times_s and LIE_S + 1.0 < times_s[0] < LIE_S + 21.0, times_s[:3]


def test_registers_that_stand_are_those_of_a_meter_that_reports_on_change() -> None:
    assert found(LOADS["rests"], np.where(T_S < LIE_S, LOADS["rests"], 0.0)) == []


def test_registers_that_were_reset_or_are_coarse_say_nothing() -> None:
    w = LOADS["rests"]
    wh = np.cumsum(w) * STEP_S / 3600.0
    wh = np.where(T_S < LIE_S, wh, wh - wh[T_S >= LIE_S][0])
    rows = [(float(t) + 1.0, float(p), float(e), 0.0) for t, p, e in zip(T_S, w, wh, strict=True)]
    assert contradictions(rows, STEP_S) == []
    assert found(np.where(T_S < LIE_S, w, 0.1 * w), w, digit_wh=1000.0) == []  # its last digit is an hour of that


def test_a_slow_meter_has_seen_too_little_of_the_load() -> None:
    w = LOADS["rests"]
    rows = [(float(t) + 1.0, 10.0 * float(p), float(t) * 8.3, 0.0) for t, p in zip(T_S, w, strict=True)]
    assert contradictions(rows, 0.1) and contradictions(rows, 5.0) == []
