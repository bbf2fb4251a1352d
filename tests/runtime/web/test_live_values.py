"""What viewers are sent: what changed, how old it is by the unit's own clock, and whether the site still speaks."""

import asyncio
import json

import pytest

pytest.importorskip("starlette", reason="the extra web is not installed")

from tidegate.runtime.web.live_values import LiveValues

SECOND = 10**9


class Clock:
    def __init__(self):
        self.t_ns = 100 * SECOND

    def __call__(self):
        return self.t_ns


def snapshot(clock, **points):
    shown = {name.replace("_of_", "."): value for name, value in points.items()}
    return {"points": shown, "t_ns": clock.t_ns, "utc_ns": 1, "utc_sync": "U", "boot": "ab" * 16}


@pytest.fixture
def live():
    async def make():
        clock = Clock()
        made = LiveValues(None, clock)
        made.describe({"site": {"snapshot_hz": 10.0}, "sha256": ""})
        return made, clock

    return asyncio.run(make())


def test_only_what_changed_is_sent_again(live):
    values, clock = live
    values.take(snapshot(clock, a=(1.0, 1), b=(2.0, 1)))
    first = json.loads(values.frame(0))
    assert first["full"] and first["points"] == {"a": [1.0, 1], "b": [2.0, 1]}
    values.take(snapshot(clock, a=(1.0, 1), b=(3.0, 1)))
    assert json.loads(values.frame(first["seq"]))["points"] == {"b": [3.0, 1]}
    values.take(snapshot(clock, a=(None, 3), b=(3.0, 1)))
    assert json.loads(values.frame(first["seq"]))["points"] == {"a": [None, 3], "b": [3.0, 1]}, (
        "who was slow misses none"
    )


def test_silence_is_named_however_fresh_the_last_number_looked(live):
    values, clock = live
    assert values.silent and json.loads(values.frame(0))["age_ms"] is None, "nothing was heard yet"
    values.take(snapshot(clock, a=(1.0, 1)))
    assert not values.silent
    for passed_s, silent in ((1.0, False), (1.4, False), (1.6, True)):
        clock.t_ns = 100 * SECOND + int(passed_s * SECOND)
        values._frames.clear()
        frame = json.loads(values.frame(0))
        assert (frame["silent"], frame["age_ms"]) == (silent, pytest.approx(passed_s * 1e3))


def test_the_state_grows_older_although_it_is_encoded_once(live):
    values, clock = live
    assert json.loads(values.state_frame())["asked_age_ms"] is None
    values.take_state({"mode": "run"}, {"alarms": [], "findings": []}, {"a": 5.0}, {}, None)
    assert json.loads(values.state_frame())["asked_age_ms"] == 0.0
    clock.t_ns += SECOND // 2
    later = json.loads(values.state_frame())
    assert later["asked_age_ms"] == 500.0 and later["ages_ms"] == {"a": 5.0} and later["events"] == []
    values.take_state({"mode": "off"}, {"alarms": [], "findings": []}, {}, {}, None)
    assert json.loads(values.state_frame())["why"] == {"mode": "off"}
