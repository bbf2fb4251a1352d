"""Which changes of a state are told, and that none is lost."""

import itertools
import random

import pytest

from tidegate.ext.cycle.episodes import Episodes


def begun():
    """A state that was told to be 0 long ago, with all its credit."""
    calm = Episodes()
    assert calm.step(0, 1e-3) == (0, -1, 1, 0.0)
    assert calm.end(1e-3) is None
    return calm


def play(states, calm=None, dt_s=0.1, t_s=1.0):
    """[(t_s, code, previous, changes, lasted_s)] of a row of states, one a step."""
    calm, told = calm or begun(), []
    for state in states:
        word = calm.step(state, t_s)
        if word:
            told.append((t_s, *word))
        t_s += dt_s
    return told, t_s


def changes_of(states, before=0):
    return sum(a != b for a, b in zip([before, *states], states, strict=False))


def test_a_first_change_that_stands_is_told_at_once_and_so_is_its_end():
    told, _ = play([0] * 10 + [3] * 50 + [0] * 50)
    assert [row[1:4] for row in told] == [(3, 0, 1), (0, 3, 1)]
    assert told[0][0] == pytest.approx(2.0) and told[1][0] == pytest.approx(7.0)


def test_a_state_that_flutters_is_told_twice_and_counted():
    states = [i % 2 for i in range(1, 401)] + [1] * 100
    told, _ = play(states)
    assert len(told) <= 3, told
    assert told[0][1:4] == (1, 0, 1)
    assert told[-1][1] == 1 and sum(row[3] for row in told) == changes_of(states)
    assert told[-1][4] == pytest.approx(39.8, abs=0.5), "the time from the first change to the last"


def test_a_trouble_that_is_over_is_told_when_it_stands_and_one_that_comes_and_goes_is_one():
    told, _ = play([0] * 10 + [1] * 50 + ([0] * 5 + [1] * 5) * 20 + [0] * 50, Episodes(0))
    assert [row[1] for row in told] == [1, 0] and told[1][0] == pytest.approx(28.0, abs=0.2)
    assert sum(row[3] for row in told) == 42


def test_each_new_value_of_an_episode_is_told_at_once():
    told, _ = play([1, 2, 1, 2, 3, 1, 2, 3, 4] + [4] * 30)
    assert [row[1] for row in told] == [1, 2, 3, 4] and [round(row[0], 1) for row in told] == [1.0, 1.1, 1.4, 1.8]
    assert sum(row[3] for row in told) == 9


def test_a_plant_that_never_rests_is_told_in_fewer_words_and_after_hours_of_rest_at_once_again():
    calm, by_hour, t_s = begun(), [], 1.0
    for hour in range(6):
        # A change every 20 or 40 s, so that the first quiet times are shorter than its rest.
        told, t_s = play([(second // 20) % 3 % 2 for second in range(hour * 3600, hour * 3600 + 3600)], calm, 1.0, t_s)
        by_hour.append(len(told))
    assert by_hour[0] <= 20 and max(by_hour[1:]) <= 2, by_hour
    told, t_s = play([0] * 4 * 3600, calm, 1.0, t_s)
    told, t_s = play([1] * 10 + [0] * 10, calm, 1.0, t_s)
    assert [row[1] for row in told] == [1, 0]


@pytest.mark.parametrize("period_s", [3, 30, 200, 700, 1500, 3000])
def test_whatever_its_pace_a_state_is_told_six_times_an_hour_at_most_in_the_long_run(period_s):
    calm, t_s = begun(), 1.0
    told, t_s = play([(second // period_s) % 2 for second in range(4 * 3600)], calm, 1.0, t_s)
    told, t_s = play([(second // period_s) % 2 for second in range(12 * 3600)], calm, 1.0, t_s)
    assert len(told) <= 6 * 12


def test_an_episode_that_goes_on_says_so_each_hour():
    told, _ = play([i % 2 for i in range(3 * 3600 + 60)], dt_s=1.0)
    hourly = [row for row in told if row[0] > 3000.0]
    assert len(hourly) == 3 and all(row[3] == pytest.approx(3600, abs=2) for row in hourly)


def test_an_urgent_change_is_told_whatever_came_before_it():
    calm = begun()
    told = [calm.step(i % 2, 1.0 + 0.01 * i, urgent=True) for i in range(1, 51)]
    assert all(word is not None and word[2] == 1 for word in told)


@pytest.mark.parametrize("seed", range(20))
def test_no_change_is_lost_and_the_last_word_is_the_last_state(seed):
    rng = random.Random(seed)
    states: list[int] = []
    while len(states) < 5000:
        states += [rng.randrange(rng.choice([2, 3, 20]))] * rng.choice([1, 1, 1, 3, 30, 300])
    calm = begun()
    told, t_s = play(states, calm)
    last = calm.end(t_s)
    if last:
        told.append((t_s, *last))
    assert sum(row[3] for row in told) == changes_of(states), f"seed {seed}"
    assert told[-1][1] == states[-1]
    assert all(word[2] == before[1] for before, word in itertools.pairwise(told)), "each says what was told before it"
