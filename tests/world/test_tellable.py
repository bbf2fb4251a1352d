"""When physics can tell that a meter lies: not while the battery rests, at once when it moves before a still load."""

from dataclasses import replace

import numpy as np
import tellable
from test_liars import PLAIN, lying


def series_of(ess_w: tellable.Array, load_w: tellable.Array) -> dict[str, tellable.Array]:
    return {"t_s": np.arange(len(ess_w)) * 0.05, "ess_w": ess_w, "grid_w": load_w - ess_w}


def test_physics_tells_nothing_while_the_battery_rests_and_at_once_when_it_moves_before_a_load_that_rests() -> None:
    made = replace(lying("no_l3", 20.0), settings={**PLAIN.settings, "pcs_measure_ms": 0.0})
    chance = np.random.default_rng(1)
    walk_w = 40e3 + np.cumsum(chance.normal(0.0, 200.0, 1200))
    assert tellable.first_s(made, series_of(np.zeros(1200), walk_w), 20.0) is None
    moves_w = np.zeros(1200)
    moves_w[600:] = 5e3
    steady_w = np.full(1200, 40e3)
    steady_w[100:200] = 45e3
    first_s = tellable.first_s(made, series_of(moves_w, steady_w), 20.0)
    assert first_s is not None and 29.9 < first_s < 30.2
    restless_w = 40e3 + np.cumsum(chance.normal(0.0, 5e3, 1200))
    assert tellable.first_s(made, series_of(moves_w, restless_w), 20.0) is None


def test_an_absolute_value_is_told_by_what_the_battery_does_while_the_building_gives_power() -> None:
    made = replace(lying("absolute", 20.0), settings={**PLAIN.settings, "pcs_measure_ms": 0.0})
    moves_w = np.zeros(1200)
    moves_w[600:] = 5e3
    for load_w, tells in ((40e3, False), (-40e3, True)):
        first_s = tellable.first_s(made, series_of(moves_w, np.full(1200, load_w)), 20.0)
        assert (first_s is not None) == tells


def test_a_change_among_those_that_a_load_makes_is_not_seldom_for_being_new_to_the_watt() -> None:
    """A load that leaps, never twice as far: what the lie would mean is one more of its leaps, or beyond them."""
    chance = np.random.default_rng(5)
    leaps_w = np.where(chance.random(1200) < 0.5, chance.uniform(-3e3, 3e3, 1200), 0.0)
    leaps_w[620:640] = 0.0
    load_w = 200e3 + np.cumsum(leaps_w)
    for moved_w, tells in ((1.4e3, False), (20e3, True)):
        made = replace(lying("flipped", 31.2), settings={**PLAIN.settings, "pcs_measure_ms": 0.0})
        moves_w = np.where(np.arange(1200) >= 630, moved_w, 0.0)
        assert (tellable.first_s(made, series_of(moves_w, load_w), 31.2) is not None) == tells


def test_a_load_that_never_does_the_same_twice_tells_nothing_of_small_moves_of_the_battery() -> None:
    """Each change is the only one of its size: counted among those it knows, two of them would give away any lie."""
    made = replace(lying("flipped", 30.0), settings={**PLAIN.settings, "pcs_measure_ms": 0.0})
    changes_w = np.random.default_rng(2).permutation(np.arange(-22e3, 22e3, 37.0))
    moves_w = 7.0 * (np.arange(len(changes_w) + 1) % 2)
    own_w = 200e3 + np.concatenate([[0.0], np.cumsum(changes_w)])
    assert tellable.first_s(made, series_of(moves_w, own_w), 30.0) is None
    first_s = tellable.first_s(made, series_of(moves_w, np.full(len(moves_w), 200e3)), 30.0)
    assert first_s is not None and first_s < 31.0
