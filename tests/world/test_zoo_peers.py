"""The peer's law of the zoo does what its documentation says; a few plants side by side."""

from dataclasses import replace

import numpy as np
import pytest
import zoo_peers as peers
import zoo_plants as plants

EASY = replace(
    plants.draw(40_000), limit_w=40e3, power_w=30e3, energy_wh=60e3, recharge_gap_w=5e3, pv=[], faults=[], settings={}
)


@pytest.mark.parametrize(
    ("load_w", "grid_w"),
    [(60e3, 40e3), (38e3, 38e3), (20e3, 35e3), (80e3, 50e3)],  # above, between, recharging, more than the battery has
)
def test_the_law_settles_where_it_is_written_to(load_w, grid_w):
    grid, ess = peers.under_law(EASY, np.full(60_000, load_w), 0.001)
    assert grid[-5000:] == pytest.approx(np.full(5000, grid_w), abs=0.02 * load_w)
    assert grid + ess == pytest.approx(np.full(60_000, load_w))


def test_an_empty_battery_gives_nothing():
    empty = replace(EASY, settings={"soc_start": 0.04})
    _, ess = peers.under_law(empty, np.full(20_000, 60e3), 0.001)
    assert not ess.any()


def test_two_plants_side_by_side():
    sides = [one for one in map(peers.side, range(40_000, 40_004)) if one is not None]
    assert len(sides) >= 2
    assert all(min(one.above_wh) >= 0 and one.bare_wh >= 0 and min(one.moved_wh) > 0 for one in sides)
    everyone = peers.summary(sides)["all"]
    assert sum(everyone["wins"].values()) == everyone["plants"] == len(sides)


@pytest.mark.parametrize(
    ("above_wh", "who"), [((1.0, 2.0), "ours"), ((2.0, 1.0), "the law"), ((1.0, 1.05), "even"), ((0.0, 0.04), "even")]
)
def test_who_leaves_less_above_the_limit_wins(above_wh, who):
    assert peers.Side(1, "x", 0.1, 1.0, 0.0, 9.0, above_wh, (1.0, 1.0)).wins == who
