"""The two ends of a shared limit: what a hub answers and writes down, what a site does with it, over a real broker."""

import asyncio
import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.runtime.cabinet import TIDEGATE, eventually
from tidegate.runtime.api.blocking_client import Client
from tidegate.runtime.api.connection import ClientError, Point
from tidegate.runtime.fleet.hub.broker import Broker
from tidegate.runtime.fleet.hub.limit_coordinator import (
    JOURNAL_FILE,
    Coordinator,
    Feeder,
    LimitRequest,
    monotonic_ms,
    read_feeders,
    write_feeder,
)
from tidegate.runtime.fleet.invitation import HubError, Invitation
from tidegate.runtime.fleet.ledger_batch import subject_word
from tidegate.runtime.fleet.shared_limit import TERM_MS_MAX, hold_ms
from tidegate.runtime.fleet.unit.limit_holder import GUARD_MS, LimitHolder, Outstanding

SITE = Path(__file__).parents[3] / "config/sites/simulated.toml"
HALL, YARD = subject_word("hall"), subject_word("yard")


class Clock:
    def __init__(self):
        self.ms = 1_000_000

    def __call__(self):
        return self.ms


@pytest.fixture
def hub(tmp_path):
    write_feeder(tmp_path, Feeder("campus", 100_000, {"hall": 20_000, "yard": 20_000}))
    clock = Clock()
    made = Coordinator(tmp_path, clock)
    clock.ms += hold_ms(TERM_MS_MAX)
    yield made, clock, tmp_path
    asyncio.run(made.close())


def asked(hub, word, ask_w, floor_w=20_000, seq=1, run="r"):
    return hub.answer(word, LimitRequest(run, seq, floor_w, ask_w).packed())


def test_what_is_given_stands_in_the_journal_and_a_full_disk_gives_nothing(hub):
    made, clock, folder = hub
    assert asked(made, HALL, 50_000)["extra_w"] == 50_000
    row = json.loads((folder / JOURNAL_FILE).read_text().splitlines()[-1])
    assert (row["site"], row["extra_w"], row["t_ms"], row["term_ms"]) == ("hall", 50_000, clock.ms, 60_000)
    made._journal = os.open("/dev/full", os.O_WRONLY)
    assert asked(made, YARD, 5_000)["extra_w"] == 0
    assert "nothing is given" in made.said["yard"]


def test_a_hub_that_starts_again_waits_and_a_second_one_over_the_folder_is_refused(hub):
    made, clock, folder = hub
    assert asked(made, HALL, 60_000)["extra_w"] == 60_000
    with pytest.raises(HubError, match="another process"):
        Coordinator(folder, clock)
    asyncio.run(made.close())
    again = Coordinator(folder, clock)
    answer = asked(again, YARD, 60_000)
    assert answer["extra_w"] == 0 and "61 s" in str(answer["said"])
    clock.ms += hold_ms(TERM_MS_MAX)
    assert asked(again, YARD, 60_000)["extra_w"] == 60_000
    made._lock = again._lock  # the fixture closes one


def test_a_site_whose_file_is_wider_than_its_floor_is_named_and_counts_as_it_is(hub):
    made, _, _ = hub
    answer = asked(made, HALL, 0, floor_w=70_000)
    assert "may draw 70000 W without a lease" in str(answer["said"])
    assert asked(made, YARD, 60_000)["extra_w"] == 10_000
    assert asked(made, HALL, 0)["said"] == ""  # corrected


def test_two_processes_of_one_site_never_hold_two_leases(hub):
    """A process that was started again waits for its own old lease; a second unit with the same login is named."""
    made, clock, _ = hub
    assert asked(made, HALL, 50_000, run="a")["extra_w"] == 50_000
    answer = asked(made, HALL, 50_000, run="b")
    assert answer["extra_w"] == 0 and "may last 61 s" in str(answer["said"])
    answer = asked(made, HALL, 50_000, run="a")
    assert "extra_w" not in answer and "another process" in str(answer["said"])
    assert "two processes" in made.said["hall"]
    clock.ms += hold_ms(TERM_MS_MAX) - 1
    assert asked(made, HALL, 50_000, run="b")["extra_w"] == 0
    clock.ms += 1
    assert asked(made, HALL, 50_000, run="b")["extra_w"] == 50_000
    assert asked(made, YARD, 5_000, run="a")["extra_w"] == 5_000  # another site's is its own


def test_strangers_and_what_is_no_request_get_nothing(hub):
    made, _, folder = hub
    assert "in no feeder" in str(asked(made, subject_word("pier"), 5)["said"])
    good = {"v": 1, "run": "r", "seq": 1, "floor_w": 0, "ask_w": 5}
    for wrong in ({"v": 2}, {"ask_w": -1}, {"ask_w": 1e3}, {"ask_w": True}, {"ask_w": 10**10}, {"run": ""}, {"run": 5}):
        assert made.answer(HALL, json.dumps({**good, **wrong}).encode()) == {"said": "no request of this version"}
    for raw in (b"", b"[" * 900, b"5", b"x" * 5000):
        assert made.answer(HALL, raw) == {"said": "no request of this version"}
    assert not (folder / JOURNAL_FILE).exists()


@pytest.mark.parametrize(("row", "word"), [
    ({"floors_w": {}}, "no site"), ({"floors_w": {"a": 60_000, "b": 50_000}}, "floors are 110000 W"),
    ({"floors_w": {"a": -1}}, "floors"), ({"floors_w": {"a": 1}, "term_s": 61}, "term"),
])  # fmt: skip
def test_a_feeder_that_cannot_be_is_refused(row, word):
    with pytest.raises(HubError, match=word):
        Feeder("campus", 100_000, **row)


def test_a_site_is_in_one_feeder_and_a_refused_one_changes_nothing(tmp_path):
    write_feeder(tmp_path, Feeder("campus", 100_000, {"hall": 20_000}))
    with pytest.raises(HubError, match="hall is in the feeders campus and other"):
        write_feeder(tmp_path, Feeder("other", 100_000, {"hall": 20_000}))
    assert [one.name for one in read_feeders(tmp_path)] == ["campus"]
    (tmp_path / "feeders.json").write_text("{")
    with pytest.raises(HubError, match=r"feeders\.json"):
        read_feeders(tmp_path)


def answer_to(request, extra_w=30_000, term_ms=60_000, **more):
    return json.dumps({"run": request.run, "seq": request.seq, "extra_w": extra_w, "term_ms": term_ms, **more}).encode()


def test_a_lease_is_shorter_by_all_the_time_that_its_answer_took():
    out = Outstanding()
    first = out.ask(20_000, 30_000, 1_000)
    assert out.take(answer_to(first), 31_000) == (30_000, 30_000, "")
    late = out.ask(20_000, 30_000, 40_000)
    assert out.take(answer_to(late), 100_000) is None


def test_answers_that_came_before_are_old_or_another_process_asked_for_change_nothing():
    out = Outstanding()
    first, second = out.ask(0, 1, 0), out.ask(0, 1, 1)
    assert out.take(answer_to(second), 2) is not None
    assert out.take(answer_to(second), 3) is None and out.take(answer_to(first), 3) is None
    fresh = Outstanding().ask(0, 1, 4)
    third = out.ask(0, 1, 4)
    assert out.take(answer_to(fresh), 5) is None
    for wrong in ({"term_ms": TERM_MS_MAX + 1}, {"extra_w": -1}, {"extra_w": True}, {"extra_w": 1e4}):
        assert out.take(answer_to(third, **wrong), 5) is None
    assert out.take(b"[]", 5) is None and out.take(b"\xff", 5) is None


class Site:
    """A gateway that notes what it is asked."""

    def __init__(self, load_w=50_000.0, file_w=20_000.0):
        self.load_w, self.file_w, self.policies, self.asked = load_w, file_w, {}, []

    def why(self):
        return {"peak_w_max_of_file": self.file_w, "policies": self.policies}

    def get(self, *names):
        return {"site.load_w": Point(self.load_w, 1)}

    def ask(self, op, **fields):
        self.asked.append({"op": op, **fields})
        return {}


def holder(site, most_w=60_000):
    said = []
    return LimitHolder(site, Invitation("hall", "nats://127.0.0.1:1", "u", "w"), most_w, said.append), said


def test_a_site_asks_for_what_it_drew_lately_and_widens_for_less_than_what_is_left():
    site = Site()
    mine, _ = holder(site)
    request = mine.request(0)
    assert (request.floor_w, request.ask_w) == (20_000, 35_000)
    site.load_w = 5_000.0
    assert mine.request(10_000).ask_w == 35_000 and mine.request(400_000).ask_w == 0
    request = mine.request(400_000)
    assert mine.apply(answer_to(request, 30_000), 20_000, lambda: 410_000)
    (order,) = site.asked
    assert order["value"] == 50_000 and order["rank"] == "lease"
    assert order["for_ms"] == 50_000 - GUARD_MS and order["not_after_t_ns"] == (410_000 + GUARD_MS) * 10**6
    assert mine.apply(answer_to(mine.request(411_000), 0), 20_000, lambda: 411_000)
    assert site.asked[-1] == {"op": "policy", "name": "peak_w_max", "rank": "lease"}


def test_an_order_above_the_lease_counts_as_the_sites_floor_and_a_file_without_a_limit_asks_nothing():
    site = Site()
    mine, said = holder(site)
    site.policies = {"peak_w_max": 45_000.0}
    assert mine.request(0).floor_w == 45_000 and "order on site" in said[-1]
    site.file_w = None
    assert mine.request(0) is None and "no peak_w_max in the site's file" in said[-1]


@pytest.fixture
def live(tmp_path):
    """Two simulated sites that run, with a tight peak limit."""
    processes, clients = [], {}
    try:
        for name in ("hall", "yard"):
            folder = tmp_path / name
            text = (
                SITE.read_text().replace("peak_w_max = 40000", "peak_w_max = 20000").replace("period_us", "# period_us")
            )
            text = text.replace('name = "simulated"', f'name = "{name}"\nperiod_us = 10000')
            folder.mkdir()
            (folder / f"{name}.toml").write_text(text)
            places = {"TIDEGATE_RUNTIME_DIR": str(folder / "run"), "TIDEGATE_STATE_DIR": str(folder / "state")}
            with (folder / "said").open("wb") as said:
                processes.append(subprocess.Popen(
                    [*TIDEGATE, "run", str(folder / f"{name}.toml")], env={**os.environ, **places}, stdout=said,
                    stderr=said,
                ))  # fmt: skip
            clients[name] = Client(f"ipc://{folder}/run/{name}", timeout_s=10.0)

        def good():
            assert all(one.poll() is None for one in processes), [(tmp_path / n / "said").read_text() for n in clients]
            try:
                return all(one.get("site.load_w")["site.load_w"].quality == 1 for one in clients.values())
            except ClientError:
                return False

        assert eventually(good, 180.0), [(tmp_path / name / "said").read_text() for name in clients]
        yield clients
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(60)
        for client in clients.values():
            client.close()


def test_two_sites_share_a_limit_over_a_broker_and_fall_back_without_the_hub(broker_folder, port, live):
    folder = broker_folder
    broker = Broker(folder, port=port)
    write_feeder(folder, Feeder("campus", 60_000, {"hall": 20_000, "yard": 20_000}, term_s=10))
    broker.start()
    ahead = [0]
    room = {name: 0.0 for name in live}

    def in_force(name):
        why = live[name].why()
        return float(why["policies"].get("peak_w_max", why["peak_w_max_of_file"]))

    async def go():
        hub = Coordinator(folder, lambda: monotonic_ms() + ahead[0])
        await hub.open(broker.address, *broker.own_login())
        holders = [LimitHolder(live[name], broker.invite(name), 60_000, lambda _: None) for name in live]
        for one in holders:
            await one.open()
        assert await holders[0].step() and in_force("hall") == 20_000  # the hub has just started
        ahead[0] = hold_ms(TERM_MS_MAX)
        until = time.monotonic() + 120
        while time.monotonic() < until:
            for one in holders:
                await one.step()
            for name in live:
                room[name] = in_force(name)
                assert sum(in_force(one) for one in live) <= 60_000
            if min(room.values()) > 25_000:
                break
        assert min(room.values()) > 25_000, room  # 35 kW of load each, and both have a part of the room
        await hub.close()
        for one in holders:
            one.out.asked_ms.clear()
            await one.close()

    try:
        asyncio.run(go())
        assert eventually(lambda: all(in_force(name) == 20_000 for name in live), 60.0)
    finally:
        broker.stop()
