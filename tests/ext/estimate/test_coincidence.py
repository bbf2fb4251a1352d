"""A slow meter's values against steps of the battery that nothing foretold: what is proven, and what must not be."""

import random

import pytest

from tidegate.ext.estimate.coincidence import Coincidence

INTERVAL_S = 5.0
POLL_S = 0.1
STEP_W = 10_000.0


def run(seed, *, share, age_s=0.0, values=20, follows=False, steps=True, far_w=8_000.0, often=0.3, age_then_s=None):
    """What is found value by value, and the ages at the end.

    share: of the battery that the meter shows, with its sign; follows: the battery takes back what the last value rose
    by.
    """
    chance = random.Random(seed)
    coincidence, found, powers = Coincidence(), [], []
    load_w, shown_w, before_w, step_w, answer_w, edge_s = 50_000.0, 0.0, None, 0.0, 0.0, 0.0
    coincidence.steps(0.0, 0.0)
    loads = []
    for number in range(int(values * INTERVAL_S / POLL_S)):
        t_s = 10.0 + number * POLL_S
        if number % 10 == 0 and chance.random() < often / INTERVAL_S:
            load_w = 50_000.0 + far_w * chance.choice((0.0, 1.0))
        if number % round(INTERVAL_S / POLL_S) == 0:
            late_s = age_s if age_then_s is None or number < values * INTERVAL_S / POLL_S / 2 else age_then_s
            then = max(number - 1 - round(late_s / POLL_S), 0)
            shown_w = loads[then] - share * powers[then] if loads else load_w
            if follows and before_w is not None:
                answer_w = max(answer_w + shown_w - before_w, 0.0)
            before_w = shown_w
            edge_s = t_s + chance.choice((0.5, 1.5, 2.5, 3.5))
        if steps and edge_s and t_s >= edge_s:
            step_w = 0.0 if step_w else STEP_W * (1.0 - 0.025 * chance.randrange(16))
            coincidence.steps(step_w, t_s)
            edge_s = 0.0
        coincidence.battery(step_w + answer_w, t_s)
        powers.append(step_w + answer_w)
        loads.append(load_w)
        found.append(coincidence.reading(shown_w, INTERVAL_S, t_s))
    return found, coincidence.age_s


@pytest.mark.parametrize("age_s", [0.0, 1.0, 2.0, 3.0])
def test_a_meter_that_shows_the_battery_is_proven_within_a_few_values_and_its_age_is_found(age_s):
    proven = 0
    for seed in range(30):
        found, (least_s, most_s) = run(seed, share=1.0, age_s=age_s)
        assert "turned" not in found
        assert least_s <= age_s <= most_s
        proven += "honest" in found
    assert proven >= 25


def test_a_turned_meter_is_found_and_never_proven():
    turned = 0
    for seed in range(60):
        found, _ = run(seed, share=-1.0, age_s=seed % 4)
        assert "honest" not in found
        turned += "turned" in found
    assert turned >= 55


def test_a_meter_that_shows_nothing_of_the_battery_is_never_proven():
    for seed in range(300):
        found, _ = run(seed, share=0.0, age_s=seed % 4, values=40)
        assert set(found) == {"open"}


def test_a_load_as_large_as_the_steps_and_as_often_seldom_looks_like_them():
    """By chance it does: of 600 such loads 4 were taken for an honest meter within 40 values, 1 for a turned one."""
    taken = 0
    for seed in range(200):
        found, _ = run(seed, share=0.0, age_s=seed % 4, values=40, far_w=STEP_W, often=1.0)
        taken += set(found) != {"open"}
    assert taken <= 5


def test_nothing_is_proven_by_a_battery_that_answers_the_load():
    """A load that comes and goes looks the same before a meter that shows nothing of a battery that follows it."""
    for seed in range(60):
        found, _ = run(seed, share=0.0, values=40, follows=True, steps=False, far_w=STEP_W, often=1.0)
        assert set(found) == {"open"}


def test_a_meter_that_becomes_later_is_followed():
    for seed in range(20):
        _, (least_s, most_s) = run(seed, share=1.0, age_s=0.5, age_then_s=3.0, values=60)
        assert least_s <= 3.0 <= most_s
        assert most_s - least_s < 3.0
