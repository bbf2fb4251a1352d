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


def test_the_plan_gives_each_steps_mean_above_the_limit_and_takes_it_back_where_room_is():
    load_w = np.repeat([50e3, 35e3, 20e3, 39e3], 60)
    plan = peers.Plan(load_w, 1.0, 40e3, 30e3, 60.0)
    assert plan.orders_w == pytest.approx([10e3, 0.0, -10e3, 0.0])  # the lowest load has the most room
    assert [plan(0.0, 0.0) for _ in range(240)][::60] == pytest.approx([10e3, 0.0, -10e3, 0.0])
    whole = peers.Plan(load_w, 1.0, 40e3, 30e3, 1800.0)  # the mean is below the limit: nothing to do
    assert whole.orders_w == pytest.approx([0.0])
    bounded = peers.Plan(np.repeat([90e3, 39e3, 38e3], 60), 1.0, 40e3, 30e3, 60.0)
    assert bounded.orders_w == pytest.approx([30e3, -1e3, -2e3])  # of 30 kW only three find room below the limit


def test_a_plant_under_the_plan_leaves_what_varies_within_a_step():
    load_w = np.tile(np.repeat([30e3, 60e3], 5000), 6)  # 45 kW in the mean, 5 s each
    grid_w, _ = peers.under_law(EASY, load_w, 0.001, peers.Plan(load_w, 0.001, 40e3, 30e3, 60.0))
    assert grid_w[-10_000:].max() == pytest.approx(55e3, rel=0.01) and grid_w[-10_000:].mean() == pytest.approx(
        40e3, rel=0.01
    )


def test_two_plants_side_by_side():
    sides = [one for one in map(peers.side, range(40_000, 40_004)) if one is not None]
    assert len(sides) >= 2
    assert all(min(one.above_wh) >= 0 and one.bare_wh >= 0 and min(one.moved_wh) > 0 for one in sides)
    assert all(len(one.planned_wh) == len(peers.PLAN_STEPS_S) and min(one.planned_wh) >= 0 for one in sides)
    everyone = peers.summary(sides)["all"]
    assert len(everyone["planned_share_of_bare"]) == 2
    assert sum(everyone["wins"].values()) == everyone["plants"] == len(sides)


@pytest.mark.parametrize(
    ("above_wh", "who"), [((1.0, 2.0), "ours"), ((2.0, 1.0), "the law"), ((1.0, 1.05), "even"), ((0.0, 0.04), "even")]
)
def test_who_leaves_less_above_the_limit_wins(above_wh, who):
    assert peers.Side(1, "x", 0.1, 1.0, 0.0, 9.0, above_wh, (1.0, 1.0)).wins == who
