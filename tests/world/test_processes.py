"""The whole chain of processes over the live plant: what a killed process may and may not change."""

import os
import signal
import sqlite3
import time

import pytest

from tests.demo_site import SLOW_DEMO as DEMO
from tidegate.ext.abi.image import REASONS_BY_NUMBER
from tidegate.runtime.supervisor.supervisor import Supervisor


def until(done, seconds=90.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if done():
            return True
        time.sleep(0.02)
    return bool(done())


def value_of(memory, point):
    """A point of the image; asked again while the core writes it."""
    while (image := memory.read_image()) is None:
        time.sleep(0.001)
    return image[point].value


@pytest.fixture
def site(tmp_path):
    with Supervisor(DEMO, runtime=tmp_path / "run", state=tmp_path / "state", out=lambda line: None) as one:
        with one.client() as client:
            assert until(lambda: client.why()["mode"] in ("run", "derated")), client.why()
        yield one


def test_killing_the_gateway_changes_no_setpoint_under_a_lease(site):
    memory = site.shared
    with site.client() as client:
        lease = client.ask("lease", action="acquire", period_ms=3300)
        client.ask("setpoint", lease=lease["lease"], seq=0, setpoint_w=-1500.0, for_ms=60_000)
    order = memory.order(1)
    pid = site.children["gateway"].pid
    os.kill(pid, signal.SIGKILL)
    assert until(lambda: site.children["gateway"].pid != pid and site.children["gateway"].ready.is_set())
    if time.monotonic_ns() < order.expires_t_ns:
        assert memory.order(1)[:3] == order[:3]
    # Nobody renews: the order ends by its own time, and the core by itself lets go of it.
    assert until(lambda: time.monotonic_ns() > order.expires_t_ns)
    assert memory.order(1).expires_t_ns in (0, order.expires_t_ns)
    assert site.children["core"].alive and not site.failure


def test_the_core_holds_its_course_while_the_gateway_is_dead(site):
    memory = site.shared
    names = site.description.point_names
    reason, proof = names.index("site.mode"), memory.proof
    os.kill(site.children["gateway"].pid, signal.SIGKILL)
    missed = memory.loop_counters()["cycles"]
    modes = set()
    for _ in range(50):
        modes.add(value_of(memory, reason))
        time.sleep(0.01)
    assert memory.proof > proof and memory.loop_counters()["cycles"] > missed
    assert modes <= {3.0, 4.0}, "the mode changed because a listener died"


def test_a_slot_of_the_plan_ends_by_itself_while_no_gateway_lives(site):
    memory = site.shared
    names = site.description.point_names
    chosen, plan = names.index("site.preference"), float(REASONS_BY_NUMBER.index("plan"))
    with site.client() as client:
        client.schedule([{"start_utc_s": int(time.time()) - 1, "setpoint_w": -1500.0}], int(time.time()) + 15)
    assert until(lambda: value_of(memory, chosen) == plan)
    held = killed = 0
    end = time.monotonic() + 45.0
    while value_of(memory, chosen) == plan and time.monotonic() < end:
        gateway = site.children["gateway"]
        if gateway.alive:
            os.kill(gateway.pid, signal.SIGKILL)  # each that the supervisor starts, before it can serve
            killed += 1
        held += killed > 0
        time.sleep(0.02)
    rows = memory.plan().rows
    assert killed and held > 10, "the slot went on without its gateway"
    assert value_of(memory, chosen) != plan
    assert rows and time.monotonic_ns() >= rows[0].end_t_ns, "its own time ended it"
    assert site.children["core"].alive and not site.failure


def test_killing_the_sidecar_loses_no_meter_record(site):
    pytest.importorskip("sqlalchemy")
    carbon = site.children["carbon"]
    assert until(lambda: carbon.alive and carbon.ready.is_set())
    for _ in range(2):
        pid = carbon.pid
        time.sleep(1.2)
        os.kill(pid, signal.SIGKILL)
        assert until(lambda before=pid: carbon.pid != before and carbon.alive and carbon.ready.is_set())
    time.sleep(1.0)
    boot, path = site.shared.boot_id.hex(), site.state
    head = site.shared.meter_head
    assert site.stop() == 0
    ended = [one for one in carbon.records() if one.get("carbon") == "ended"]
    assert ended, list(carbon.said)
    # Its cursor moved over every record, from the first to the last that the core made.
    assert ended[-1]["boot"] == boot and ended[-1]["seq"] >= head - 1
    ledgers = list(path.rglob("*.db"))
    assert ledgers
    with sqlite3.connect(ledgers[0]) as ledger:
        assert ledger.execute("select count(*) from sqlite_master").fetchone()[0] > 0
