"""Floors and leases never exceed the feeder's limit; what a site gets is fair and is used."""

import numpy as np
import pytest

from tests.runtime.fleet import limit_world
from tidegate.runtime.fleet.shared_limit import TERM_MS_MAX, Feeders, hold_ms, left_ms


def feeder(limit_w=100_000, floors=(20_000, 20_000), begun_ms=0, term_ms=60_000):
    return Feeders(np.array([limit_w]), np.array([floors]), np.array([begun_ms]), term_ms)


def asks(feeders, site, ask_w, now_ms):
    return int(feeders.give(np.array([site]), np.array([ask_w]), np.array([now_ms]))[0])


READY = hold_ms(TERM_MS_MAX)


def test_nothing_is_given_before_every_old_lease_is_over():
    one = feeder()
    assert [asks(one, 0, 5_000, READY - 1), asks(one, 0, 5_000, READY)] == [0, 5_000]


def test_a_smaller_lease_frees_nothing_before_the_bigger_one_has_ended():
    one = feeder()
    assert asks(one, 0, 60_000, READY) == 60_000
    assert asks(one, 0, 1_000, READY + 1) == 1_000
    assert asks(one, 1, 60_000, READY + 2) == 0
    assert asks(one, 1, 60_000, READY + hold_ms(60_000) - 1) == 0
    assert asks(one, 1, 60_000, READY + 2 * hold_ms(60_000)) == 60_000


def test_who_asks_for_more_than_is_there_gets_as_much_as_the_others_who_do():
    one = feeder(160_000, (20_000,) * 4)
    for later in range(READY, READY + 120_000, 15_000):
        got = [asks(one, site, ask, later) for site, ask in enumerate((5_000, 200_000, 200_000, 20_000))]
    assert got == [5_000, 27_500, 27_500, 20_000]


def test_floors_above_the_limit_leave_nothing_to_give():
    one = feeder(30_000)
    assert asks(one, 0, 5_000, READY) == 0
    with pytest.raises(ValueError, match="at most"):
        feeder(term_ms=TERM_MS_MAX + 1)


@pytest.mark.parametrize("term_ms", [1, 1_000, 59_999, 60_000])
def test_a_lease_is_held_until_the_slowest_site_has_seen_its_term(term_ms):
    """Hub 1 % fast, site 1 % slow, both readings rounded down: the site's end comes no later than the hub's."""
    site_end_s = term_ms / 0.99  # of real time, in ms
    hub_end_s = (hold_ms(term_ms) - 1) / 1.01
    assert site_end_s <= hub_end_s < site_end_s + 3
    assert int(left_ms(np.int64(5), term_ms, np.int64(5 + term_ms))) == 0


def test_seeded_feeders_stay_below_their_limits():
    cycles, violations, worst_w, leases, used = limit_world.run(1_000_000, seed=7, n=250)
    assert cycles >= 1_000_000 and violations == 0 and worst_w <= 0, (violations, worst_w)
    assert leases > 10_000 and used > 0.4  # it is not kept safe by giving nothing


@pytest.mark.parametrize("plant", [one for one in limit_world.PLANTS if one != "equal clocks"])
def test_a_planted_fault_exceeds_the_limit(plant):
    assert limit_world.run(300_000, seed=7, plant=plant, n=250)[1] > 0
