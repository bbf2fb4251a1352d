"""A site's condition, events and minutes reach the hub past marks: each once, also after days away."""

import asyncio
import random
from types import SimpleNamespace

import pytest

from tidegate.ext.abi.shared import EVENT_NAMES
from tidegate.runtime.fleet.hub.broker import Broker
from tidegate.runtime.fleet.hub.hub_ingest import Ingest
from tidegate.runtime.fleet.hub.hub_store import HubStore
from tidegate.runtime.fleet.site_condition import (
    Condition,
    ConditionError,
    ConditionReader,
    MinuteSums,
    pack_condition,
    unpack_condition,
)
from tidegate.runtime.fleet.unit.condition_sender import ConditionSender
from tidegate.runtime.fleet.unit.site_sender import Sender

nats = pytest.importorskip("nats")
pytest.importorskip("nats.errors")
START_S = 1_790_812_800


class Journal:
    """A gateway that has been away from its hub for hours: events and meter records, given in pieces."""

    def __init__(self, hours):
        rng = random.Random(4)
        self.events = [
            {"boot": "a" * 32, "seq": n, "utc_ns": (START_S + 60 * n) * 10**9, "event": "fault_on", "name": f"f{n}"}
            for n in range(hours * 40)
        ]
        self.meters = [
            {"boot": "a" * 32, "seq": n, "utc_ns": (START_S + 10 * n) * 10**9,
             "points": {"site.grid_w": [rng.uniform(-5e3, 5e3), 1], "bms1.soc": [0.5, 1], "grid.import_wh": [1.0, 1],
                        "site.pv_w": [9.0, 2]}}
            for n in range(hours * 360)
        ]  # fmt: skip

    async def replay(self, stream, boot=None, seq=-1, count=256):
        rows = self.events if stream == "event" else self.meters
        found = [row for row in rows if boot is None or row["seq"] > seq][:count]
        return found, not found or found[-1] is rows[-1]

    async def ask(self, op):
        return {"alarms": [{"id": "bms_silent", "text": "the BMS is silent", "reaction": "zero", "unit": "cabinet",
                            "active": True, "latched": False, "since_s": 3.0, "cause": "x"}]}  # fmt: skip

    async def why(self):
        return {"mode": "run"}


@pytest.fixture
def store(shared_url):
    made = HubStore(shared_url)
    made.enrol("hall", "0" * 64)
    yield made
    made.close()


def count(store, table):
    with store.another() as connection:
        return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def test_hours_away_come_once_however_often_the_answer_is_lost(store):
    """The hub's marks alone say what was taken: half of its answers never arrive, and the reader starts anew."""
    journal, rng = Journal(4), random.Random(7)

    async def go():
        reader, marks, is_all = ConditionReader(journal, "hall"), (None, None), False
        for _ in range(100):
            made, is_all = await reader.read(*marks)
            after = store.take_condition(unpack_condition(pack_condition(made)))
            if rng.random() < 0.5:
                reader = ConditionReader(journal, "hall")  # ended before the answer
                marks = store.take_condition(Condition("hall", {}))
                assert marks == after
            else:
                marks = after
            if is_all:
                break
        assert is_all
        return marks

    marks = asyncio.run(go())
    assert marks[0] == ("a" * 32, len(journal.events) - 1)
    assert count(store, "fleet_events") == len(journal.events)
    assert count(store, "fleet_minutes") == 4 * 60 - 1  # the last minute is not over
    with store.another() as connection:
        (text,) = connection.execute(
            "SELECT body FROM fleet_minutes WHERE start_utc_s = %s", (START_S + 60,)
        ).fetchone()
        (now,) = connection.execute("SELECT now FROM fleet_conditions").fetchone()
    values = [row["points"]["site.grid_w"][0] for row in journal.meters[6:12]]
    import json

    found = json.loads(text)
    assert set(found) == {"site.grid_w", "bms1.soc"}
    mean, least, most, readings = found["site.grid_w"]
    assert (least, most, readings) == (min(values), max(values), 6) and abs(mean - sum(values) / 6) < 1e-6
    assert now == "{}" or json.loads(now)["alarms"][0]["id"] == "bms_silent"


def test_months_that_are_over_can_be_dropped(store):
    journal = Journal(1)

    async def go():
        made, _ = await ConditionReader(journal, "hall").read(None, None)
        store.take_condition(made)

    asyncio.run(go())
    assert store.forget_before(START_S + 3600) == []
    gone = store.forget_before(START_S + 40 * 86_400)
    assert gone == ["fleet_events_2026_10", "fleet_minutes_2026_10"]
    assert count(store, "fleet_events") == count(store, "fleet_minutes") == 0


def test_a_clock_that_was_never_set_is_kept_and_its_distance_is_known(store):
    made = Condition("hall", {"utc_s": 1000}, [{"boot": "b", "seq": 0, "utc_ns": 5 * 10**9, "event": "start"}])
    store.take_condition(unpack_condition(pack_condition(made)))
    with store.another() as connection:
        (off_s,) = connection.execute("SELECT clock_off_s FROM fleet_conditions").fetchone()
        kept = connection.execute("SELECT start_utc_s, body FROM fleet_events").fetchone()
    assert off_s < -1_700_000_000 and kept[0] == 946_684_800 and "5000000000" in kept[1]


def test_bytes_that_are_no_condition_are_refused_whatever_they_are():
    rng = random.Random(2)
    whole = pack_condition(Condition("hall", {"a": 1}, [{"boot": "b", "seq": 1, "utc_ns": 1, "event": "x"}], (),
                                     ("b", 1), None))  # fmt: skip
    assert unpack_condition(whole).event_mark == ("b", 1)
    for _ in range(2000):
        raw = bytearray(whole)
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        with pytest.raises(ConditionError):
            unpack_condition(bytes(raw[: rng.randint(0, len(raw) - 1)]))


def test_a_reading_that_is_none_is_in_no_minute():
    sums = MinuteSums()
    for n, value in enumerate([1.0, float("nan"), 3.0]):
        assert sums.take({"utc_ns": (60 + n) * 10**9, "points": {"site.grid_w": [value, 1]}}) is None
    done = sums.take({"utc_ns": 120 * 10**9, "points": {}})
    assert done is not None and done.values == {"site.grid_w": (2.0, 1.0, 3.0, 2)}


def test_events_of_a_running_gateway_travel_over_the_line(core, tmp_path, broker_folder, port, store):
    from tests.runtime.conftest import GatewayThread
    from tidegate.runtime.api.async_client import AsyncClient

    run, state = tmp_path / "run", tmp_path / "state"
    for folder in (run, state):
        folder.mkdir(mode=0o750)
    gateway, broker = GatewayThread(core, run, state), Broker(broker_folder, port=port)
    core.beat(0.01)
    broker.start()
    said: list[str] = []

    async def go():
        ingest = Ingest(store)
        await ingest.open(broker.address, *broker.own_login())
        sender = Sender(tmp_path / "no.db", broker.invite("hall"), report=said.append)
        await sender.open()
        async with AsyncClient(gateway.endpoint, timeout_s=30) as client:
            beside = ConditionSender(sender.client, ConditionReader(client, "hall"), "hall", said.append)
            for turn in range(3):
                core.event(EVENT_NAMES.index("fault_on"), unit=0, code=turn % 2)
                for _ in range(600):
                    await beside.step()
                    if count(store, "fleet_events WHERE kind = 'fault_on'") >= turn + 1:
                        break
                    await asyncio.sleep(0.1)
            foreign = ConditionSender(sender.client, ConditionReader(client, "yard"), "hall", said.append)
            assert not await foreign.step()
        await sender.close()
        await ingest.close()

    try:
        asyncio.run(go())
    finally:
        broker.stop()
        gateway.close()
    with store.another() as connection:
        rows = connection.execute("SELECT kind, seq FROM fleet_events ORDER BY seq").fetchall()
    assert [kind for kind, _ in rows].count("fault_on") == 3 and len({seq for _, seq in rows}) == len(rows)
    assert any("says it is of 'yard', but came as 'hall'" in text for text in said), said


class Line:
    """A connection to a hub that gives the answers in turn."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), 0

    async def request(self, subject, data, timeout):
        self.asked += 1
        one = self.answers.pop(0)
        if isinstance(one, Exception):
            raise one
        return SimpleNamespace(data=one)


MARKS = b'{"event": null, "meter": null}'


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (nats.errors.TimeoutError(), "the hub does not answer; the site's condition is sent again"),
        (nats.errors.NoRespondersError(), "the hub does not answer; the site's condition is sent again"),
        (b'{"said": "no unit of mine"}', "the hub says of this site's condition: no unit of mine"),
        (b"[]", "the hub's answer cannot be read: "),
        (b'{"event": 5, "meter": null}', "the hub's answer cannot be read: 5 is no position"),
    ],
)
@pytest.mark.parametrize("marked", [False, True])
def test_a_hub_that_does_not_take_a_condition_is_named_and_asked_for_its_marks_again(answer, sentence, marked):
    said, line = [], Line(*[MARKS] * marked, answer, MARKS, MARKS)
    sender = ConditionSender(line, ConditionReader(Journal(1), "hall"), "hall", said.append)

    async def go():
        assert not await sender.step()
        assert len(said) == 1 and said[0].startswith(sentence)
        asked = line.asked
        await sender.step()  # the marks first: what was sent may be there or not
        assert line.asked == asked + 2 and len(said) == 1

    asyncio.run(go())
