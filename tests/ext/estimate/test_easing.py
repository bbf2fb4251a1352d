"""Limits of a BMS that move: down at once, up slowly, without switching each other."""

import itertools

import pytest

from tidegate.ext.estimate.easing import Easing

SIZE_W = 20e3


def changes(levels: list[float]) -> int:
    """Turns by more than a twentieth of the unit's power."""
    turns, held, up = 0, levels[0], None
    for w in levels:
        if abs(w - held) > 0.05 * SIZE_W:
            turns += up is not None and (w > held) != up
            up, held = w > held, w
        elif up is not None and (w > held) == up:
            held = w
    return turns


def chatter(counted_on, seconds: float = 40.0) -> list[float]:
    """Power under a BMS that allows 30 A, and 5 A from 0.7 s of more than 10 A on until 1 s of less; 600 V."""
    above_s = below_s = 0.0
    low, used = False, []
    for _ in range(round(seconds * 100)):
        w = counted_on(3e3 if low else 18e3)
        used.append(w)
        above_s, below_s = (above_s + 0.01, 0.0) if w > 6e3 else (0.0, below_s + 0.01)
        low = True if above_s > 0.7 else (False if below_s > 1.0 else low)
    return used


def test_a_limit_that_falls_by_the_current_that_it_allowed_does_not_chatter():
    assert changes(chatter(lambda allowed_w: allowed_w)) >= 24, "the rig switches as the plant did"
    easing = Easing(SIZE_W)
    assert changes(chatter(lambda allowed_w: easing.step(allowed_w, 0.01))) <= 8


def test_a_fall_counts_at_once_and_a_rise_later_and_slowly():
    easing = Easing(SIZE_W)
    assert easing.step(18e3) == 18e3
    assert easing.step(3e3) == 3e3
    seen = [easing.step(18e3) for _ in range(4000)]
    assert max(seen[:900]) == 3e3 and seen[-1] == 18e3
    assert max(b - a for a, b in itertools.pairwise(seen)) <= SIZE_W * 1e-3


def test_a_battery_that_never_fell_short_is_counted_on_in_full():
    easing = Easing(SIZE_W)
    assert [easing.step(w) for w in (0.0, 5e3, 5.1e3, 18e3)] == [0.0, 5e3, 5.1e3, 18e3]


@pytest.mark.parametrize("low_w", [0.0, 600.0])
def test_a_limit_that_toggles_at_the_edge_is_taken_for_its_lower_value_most_of_the_time(low_w):
    """0 and 1 A in turn, a second each: an enable bit, or the last step of a taper."""
    easing = Easing(SIZE_W)
    seen = [easing.step(low_w if i // 100 % 2 else 1200.0, 0.01) for i in range(12_000)]
    late = seen[6000:]
    assert sum(b != a and a == low_w for a, b in itertools.pairwise(late)) <= 15


def test_an_honest_jump_is_followed_within_seconds_however_often_it_comes():
    """Limits that have nothing to do with what was asked: another value each time, ten seconds apart."""
    easing = Easing(SIZE_W)
    for n in range(30):
        allowed_w = 6e3 + 1.9e3 * (n * 7 % 11) * 0.5
        seen = [easing.step(allowed_w, 0.01) for _ in range(1000)]
        assert seen[400] == pytest.approx(allowed_w), n
