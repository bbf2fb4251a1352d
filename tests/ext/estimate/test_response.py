"""A converter's power between its own readings, by the step responses that were seen: true, and closer than without."""

import math
import random

import pytest

from tidegate.ext.estimate.response import StepResponse

P = 30e3


class Rig:
    """A first-order converter behind a dead time, read now and then; its orders are late by up to jitter_s."""

    def __init__(self, seed, jitter_s=0.0):
        chance = random.Random(seed)
        self.chance, self.jitter_s = chance, jitter_s
        self.dead_s, self.lag_s = chance.uniform(0.0, 0.2), chance.uniform(0.01, 0.15)
        self.interval_s = chance.uniform(0.1, 0.25)
        self.cap_w = math.inf
        self.response = StepResponse(P, self.interval_s)
        self.ms, self.w, self.goal_w, self.setpoint_w = 0, 0.0, 0.0, 0.0
        self.line: list[tuple[float, float]] = []
        self.shown_s = 0.0

    def told(self, setpoint_w):
        self.setpoint_w = setpoint_w
        late_s = self.dead_s + self.chance.uniform(0.0, self.jitter_s)
        self.line.append((1e-3 * self.ms + late_s, setpoint_w))
        self.response.told(1.0 + 1e-3 * self.ms, setpoint_w)

    def step(self):
        """A millisecond; its time and its true power."""
        while self.line and 1e-3 * self.ms >= self.line[0][0]:
            self.goal_w = self.line.pop(0)[1]
        goal_w = min(max(self.goal_w, -self.cap_w), self.cap_w)
        self.w += (goal_w - self.w) * (1.0 - math.exp(-1e-3 / self.lag_s))
        self.ms += 1
        t_s = 1.0 + 1e-3 * self.ms
        if 1e-3 * self.ms >= self.shown_s:
            self.shown_s += self.interval_s
            self.response.reading(t_s, self.w)
        return t_s, self.w

    def arm(self, pulses=12):
        for _ in range(pulses):
            for w in (self.chance.uniform(0.1, 0.4) * P, 0.0):
                self.told(w)
                for _ in range(round(1e3 * self.chance.uniform(0.8, 1.6))):
                    self.step()


def followed(rig, moves, least_s, most_s):
    """(share of the milliseconds that are known, of those wrong by 1 % of P, mean width in W), told at random."""
    known = wrong = count = 0
    width_w = 0.0
    for _ in range(moves):
        rig.told(rig.chance.uniform(-0.8, 0.8) * P)
        for _ in range(round(1e3 * rig.chance.uniform(least_s, most_s))):
            t_s, w = rig.step()
            count += 1
            found = rig.response.bounds(t_s, t_s)
            if found is not None:
                known += 1
                width_w += found[1] - found[0]
                wrong += not found[0] - 0.01 * P <= w <= found[1] + 0.01 * P
    return known / count, wrong / max(known, 1), width_w / max(known, 1)


def test_it_is_known_and_close_in_a_population():
    """Of forty converters; without it a power is somewhere between two setpoints, 16 kW apart in the mean."""
    rows = []
    for seed in range(40):
        rig = Rig(seed)
        rig.arm()
        assert rig.response.answers > 8, seed
        rows.append((*followed(rig, 100, 0.2, 0.8), seed))
    assert sum(row[0] for row in rows) / len(rows) > 0.65
    assert max(row[0] * row[1] for row in rows) < 0.02, max(rows, key=lambda row: row[0] * row[1])
    assert sum(row[0] * row[1] for row in rows) / len(rows) < 0.005
    assert sorted(row[2] for row in rows)[20] < 0.1 * P


def test_answers_that_come_sooner_and_later_lie_between():
    rows = []
    for seed in range(100, 120):
        rig = Rig(seed, jitter_s=0.03)
        rig.arm()
        rows.append((*followed(rig, 60, 0.2, 0.8), seed))
    assert sum(row[0] for row in rows) / len(rows) > 0.6
    assert sum(row[1] for row in rows) / len(rows) < 0.03, rows


def test_a_converter_that_falls_short_is_not_believed():
    rig = Rig(7)
    rig.arm()
    rig.cap_w = 0.2 * P
    rig.told(0.7 * P)
    trusted_for = 0
    for _ in range(5000):
        t_s, _ = rig.step()
        trusted_for += rig.response.bounds(t_s, t_s) is not None
    assert trusted_for < 1e3 * (rig.dead_s + 6.0 * rig.lag_s + 2.0 * rig.interval_s)


def test_nothing_is_known_before_two_answers_and_of_more_steps_than_are_remembered():
    rig = Rig(3)
    for _ in range(1000):
        t_s, _ = rig.step()
        assert rig.response.bounds(t_s, t_s) is None
    rig.arm()
    assert rig.response.bounds(t_s, t_s) is not None
    for number in range(80):
        rig.told(100.0 * number)
        for _ in range(40):
            t_s, _ = rig.step()
    assert rig.response.bounds(t_s - 3.0, t_s - 3.0) is None
    for _ in range(1500):
        t_s, _ = rig.step()
    assert rig.response.bounds(t_s, t_s) is not None


@pytest.mark.parametrize("interval_s", [0.1, 0.2])
def test_the_readings_of_several_answers_close_in_on_the_response(interval_s):
    """To much less than the converter's own interval; and the true response lies between."""
    rig = Rig(11)
    rig.interval_s = interval_s
    rig.response = StepResponse(P, interval_s)
    open_s = []
    for pulses in (1, 15):
        rig.arm(pulses)
        open_s.append(sum((most - least) * 0.01 for at_s, least, most in rig.response.shares if at_s <= 0.32))
    assert open_s[1] < 0.5 * open_s[0] and open_s[1] < 0.4 * interval_s, open_s
    for at_s, least, most in rig.response.shares:
        true = 1.0 - math.exp(-max(at_s - rig.dead_s, 0.0) / rig.lag_s)
        assert least - 0.03 <= true <= most + 0.03, (at_s, least, true, most)
