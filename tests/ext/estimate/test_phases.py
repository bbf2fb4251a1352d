"""A meter's phases against total and battery: what is lost is found, and nothing that an honest meter does."""

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import pytest

from tidegate.ext.estimate.phases import phase_states
from tidegate.runtime.gateway.words import METER_PHASES

LIE_S = 60.0
STEP_S = 0.1
T_S = np.arange(0.0, 120.0, STEP_S)
NAMEPLATE_W = 30e3
SMALL_W = 10e3  # may have one phase: how much of it is on each is learnt
Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
NONE, WAITS, AGREES, APART, AGAINST, NO_L1, NO_L2, NO_L3 = range(len(METER_PHASES))


def three(total_w: Array, parts: tuple[float, float, float] = (1 / 3, 1 / 3, 1 / 3)) -> Array:
    return total_w[:, None] * np.array(parts)


def loads() -> dict[str, Array]:
    """(n, 3) W."""
    chance = np.random.default_rng(7)
    noise_w = chance.normal(0.0, 20.0, (len(T_S), 3))
    walk_w = 30e3 + np.cumsum(chance.normal(0.0, 300.0, len(T_S)))
    single = np.zeros((len(T_S), 3))
    single[:, 0] = np.where((T_S // 9.0) % 2 < 1.0, 6e3, 1e3) + noise_w[:, 0]
    now_and_then = three(np.full(len(T_S), 15e3)) + noise_w
    now_and_then[:, 2] = np.where(T_S < LIE_S, 3e3 + noise_w[:, 2], 0.0)
    return {
        "rests": three(np.full(len(T_S), 30e3)) + noise_w,
        "walks": three(np.maximum(walk_w, 5e3)) + noise_w,
        "steps": three(np.where((T_S // 7.0) % 2 < 1.0, 35e3, 12e3)) + noise_w,
        "unbalanced": three(np.full(len(T_S), 30e3), (0.7, 0.2, 0.1)) + noise_w,
        "one phase only": single,
        "third phase off": now_and_then,
    }


def moves() -> Array:
    """Pulses while it arms, then moves that follow nothing."""
    chance = np.random.default_rng(11)
    w = np.where((T_S // 1.5) % 2 < 1.0, 1500.0, 0.0)
    w[T_S > 20.0] = np.repeat(chance.uniform(-20e3, 20e3, len(T_S) // 25 + 1), 25)[: len(T_S)][T_S > 20.0]
    return w


LOADS, BATTERY_W = loads(), moves()


def rows(
    total_w: Array, phase_w: Array, amperes: Array, volts: Array, every: int, nameplate_w: float
) -> Iterator[tuple[float, ...]]:
    for i, t_s in enumerate(T_S):
        yield (
            t_s + 1.0,
            total_w[i],
            BATTERY_W[i] * nameplate_w / NAMEPLATE_W,
            *phase_w[i],
            *amperes[i],
            *volts[i],
            float(i % every == 5),
        )


def states(
    phase_w: Array,
    *,
    total_w: Array | None = None,
    amperes: Array | None = None,
    volts: Array | None = None,
    shares: tuple[float, float, float] | None = None,
    every: int = 10,
    nameplate_w: float = NAMEPLATE_W,
) -> Array:
    volts = np.full((len(T_S), 3), 230.0) if volts is None else volts
    amperes = np.abs(phase_w) / 230.0 if amperes is None else amperes
    total_w = phase_w.sum(axis=1) if total_w is None else total_w
    return np.array(phase_states(rows(total_w, phase_w, amperes, volts, every, nameplate_w), nameplate_w, shares, 21.0))


def found(shown: Array) -> tuple[int, float]:
    """The first contradiction, and when it was found, s since the lie."""
    at = np.flatnonzero(shown >= AGAINST)
    return (int(shown[at[0]]), float(T_S[at[0]] - LIE_S)) if len(at) else (NONE, 0.0)


def grid(load: Array, on_phases: tuple[float, float, float] = (1 / 3, 1 / 3, 1 / 3),
         nameplate_w: float = NAMEPLATE_W) -> Array:  # fmt: skip
    return load - three(BATTERY_W * nameplate_w / NAMEPLATE_W, on_phases)


def averaged(w: Array, count: int = 20) -> Array:
    return np.convolve(np.concatenate((np.full(count - 1, w[0]), w)), np.ones(count) / count, "valid")


# What an honest meter makes of phases and total.
HONEST: dict[str, Callable[[Array], tuple[Array, Array]]] = {
    "as it is": lambda w: (w, w.sum(axis=1)),
    "coarse": lambda w: (np.round(w / 100.0) * 100.0, np.round(w.sum(axis=1) / 100.0) * 100.0),
    "class 2": lambda w: (w * np.array([1.02, 0.98, 1.02]), w.sum(axis=1)),
    "total averaged": lambda w: (w, averaged(w.sum(axis=1))),
    "phases late": lambda w: (np.concatenate((np.repeat(w[:1], 5, axis=0), w[:-5])), w.sum(axis=1)),
    "each second": lambda w: (w[np.arange(len(w)) // 10 * 10], w.sum(axis=1)[np.arange(len(w)) // 10 * 10]),
    "three wires": lambda w: (w * np.array([1.0, 0.0, 0.4]), w.sum(axis=1)),
}  # fmt: skip


# Three wires have no neutral for a load on one phase.
@pytest.mark.parametrize(("load", "habit"), sorted({*product(LOADS, HONEST)} - {("one phase only", "three wires")}))
@pytest.mark.parametrize(
    ("nameplate_w", "on_phases"),
    [(NAMEPLATE_W, (1 / 3, 1 / 3, 1 / 3)), (SMALL_W, (1 / 3, 1 / 3, 1 / 3)), (SMALL_W, (1.0, 0.0, 0.0))],
)
@pytest.mark.parametrize("every", [5, 10, 25])
def test_no_honest_meter_contradicts_its_phases(
    load: str, habit: str, nameplate_w: float, on_phases: tuple[float, float, float], every: int
) -> None:
    phase_w, total_w = HONEST[habit](grid(LOADS[load], on_phases, nameplate_w))
    assert found(states(phase_w, total_w=total_w, every=every, nameplate_w=nameplate_w)) == (NONE, 0.0)


THIRDS = (1 / 3, 1 / 3, 1 / 3)
KNOWN = [*product([(NAMEPLATE_W, None), (SMALL_W, THIRDS)], ["rests", "walks", "steps", "unbalanced"])]
# A load on all three moves more than the pulses of arming, and next to nothing beside the mean of the phases.
LEARNT = [*product([(SMALL_W, None)], ["rests", "unbalanced", "walks", "steps"])]


@pytest.mark.parametrize("phase", [0, 1, 2])
@pytest.mark.parametrize("with_current", [True, False])
@pytest.mark.parametrize(("battery", "load"), [*KNOWN, *LEARNT])
def test_a_phase_whose_transformer_is_lost_is_found_and_named(
    battery: tuple[float, tuple[float, float, float] | None], load: str, phase: int, with_current: bool
) -> None:
    nameplate_w, shares = battery
    phase_w = grid(LOADS[load], nameplate_w=nameplate_w)
    phase_w[T_S >= LIE_S, phase] = 0.0
    amperes = None if with_current else np.full((len(T_S), 3), np.nan)
    state, within_s = found(states(phase_w, amperes=amperes, shares=shares, nameplate_w=nameplate_w))
    assert state == NO_L1 + phase and 2.0 < within_s <= 5.0, (METER_PHASES[state], within_s)


def test_a_phase_that_is_truly_off_has_no_voltage_and_is_no_lie() -> None:
    phase_w, volts = grid(LOADS["rests"]), np.full((len(T_S), 3), 230.0)
    phase_w[T_S >= LIE_S, 2] = 0.0
    volts[T_S >= LIE_S, 2] = 3.0
    assert found(states(phase_w, volts=volts)) == (NONE, 0.0)


def test_a_phase_that_the_battery_does_not_move_may_stand_at_zero() -> None:
    phase_w = grid(LOADS["third phase off"], (0.5, 0.5, 0.0), SMALL_W)
    assert (phase_w[T_S > LIE_S, 2] == 0.0).all()
    assert found(states(phase_w, nameplate_w=SMALL_W)) == (NONE, 0.0)
    phase_w = grid(LOADS["third phase off"], (0.5, 0.5, 0.0))
    assert found(states(phase_w, shares=(0.5, 0.5, 0.0))) == (NONE, 0.0)


@pytest.mark.parametrize("late", [3, 7, 12])
def test_moves_of_the_battery_that_are_paired_with_another_moment_are_not_taken_for_a_third_on_each_phase(
    late: int,
) -> None:
    """Beside the mean of the phases none of them is left, as little as of a battery on all three."""
    phase_w = LOADS["third phase off"] - three(np.roll(BATTERY_W, late) * SMALL_W / NAMEPLATE_W, (0.5, 0.5, 0.0))
    for every in (5, 10, 25):
        assert found(states(phase_w, nameplate_w=SMALL_W, every=every)) == (NONE, 0.0)


def test_a_phase_with_current_and_without_power_is_found() -> None:
    phase_w = grid(LOADS["rests"])
    amperes = np.abs(phase_w) / 230.0
    total_w = phase_w.sum(axis=1)
    phase_w[T_S >= LIE_S, 1] = 0.0
    state, within_s = found(states(phase_w, total_w=total_w, amperes=amperes))
    assert state in (NO_L2, AGAINST) and within_s <= 5.0


@pytest.mark.parametrize(
    "lie", [lambda w: 10.0 * w, lambda w: 0.1 * w, lambda w: -w, lambda w: np.full(len(w), w[0])],
    ids=["ten times", "a tenth", "turned", "stands"],
)  # fmt: skip
def test_a_total_that_leaves_its_phases_is_found(lie: Callable[[Array], Array]) -> None:
    phase_w = grid(LOADS["unbalanced"])
    total_w = phase_w.sum(axis=1)
    total_w[T_S >= LIE_S] = lie(total_w[T_S >= LIE_S])
    state, within_s = found(states(phase_w, total_w=total_w))
    assert state == AGAINST and 0.0 < within_s <= 12.0


def test_power_beyond_volts_times_amperes_is_found() -> None:
    phase_w = grid(LOADS["rests"])
    amperes = np.abs(phase_w) / 230.0
    amperes[T_S >= LIE_S] *= 0.1
    state, within_s = found(states(phase_w, amperes=amperes))
    assert state == AGAINST and 0.0 < within_s <= 12.0
    assert found(states(phase_w, amperes=10.0 * np.abs(phase_w) / 230.0)) == (NONE, 0.0)  # reactive power is none


def test_what_the_witness_is_worth_is_shown() -> None:
    phase_w = grid(LOADS["rests"])
    shown = states(phase_w)
    assert shown[0] == WAITS and shown[-1] == AGREES
    assert states(phase_w * np.array([1.0, 0.0, 0.4]), total_w=phase_w.sum(axis=1))[-1] == APART


@pytest.mark.parametrize(("gave_w", "state"), [(0.0, NO_L3), (-2e3, NONE)])
def test_a_phase_at_zero_while_the_battery_charges_is_lost_unless_the_building_gives_power(
    gave_w: float, state: int
) -> None:
    battery_w = np.where(T_S < LIE_S, np.where((T_S // 4.0) % 2 < 1.0, 1500.0, 0.0), -3e3)
    phase_w = LOADS["rests"] - three(battery_w)
    phase_w[(T_S > 30.0) & (T_S < 34.0), 1] += gave_w - 10e3
    phase_w[T_S >= LIE_S, 2] = 0.0
    total_w = phase_w.sum(axis=1)
    volts = np.full(3, 230.0)
    shown = phase_states(
        (
            (t_s + 1.0, total_w[i], battery_w[i], *phase_w[i], *(np.abs(phase_w[i]) / 230.0), *volts, i % 10 == 5)
            for i, t_s in enumerate(T_S)
        ),
        NAMEPLATE_W,
    )
    assert found(np.array(shown))[0] == state
