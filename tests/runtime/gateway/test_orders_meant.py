"""What an order means: done once, done when it is said to be, and never done when it is said not to be."""

import os
import time

import msgpack
import pytest
import zmq

from tidegate.ext.abi.image import MODES_BY_NUMBER
from tidegate.runtime.api import blocking_client as clients
from tidegate.runtime.api import connection
from tidegate.runtime.api.messages import TEXT_MAX
from tidegate.runtime.gateway.orders_held import ARM, MANUAL, MODE, SETPOINT
from tidegate.runtime.gateway.requests import STOPS

RUN_W, STOP_W = 1.0, 2.0  # values of the mode's order
FLOOD = 5000  # requests: also a slow machine answers them faster than a peer's bucket fills again


class Raw:
    """A client that chooses its ids itself."""

    def __init__(self, gateway):
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.connect(f"{gateway.endpoint}/api")

    def ask(self, ident, op, **fields):
        self.socket.send(msgpack.packb({"v": 2, "id": ident, "op": op, **fields}))
        assert self.socket.poll(5000), "no answer"
        return msgpack.unpackb(self.socket.recv())

    def close(self):
        self.context.destroy(0)


@pytest.fixture
def raw(gateway):
    one = Raw(gateway)
    yield one
    one.close()


def in_force(core, kind):
    order = core.memory.order(kind)
    return order.value if order is not None and order.expires_t_ns > time.monotonic_ns() else None


def test_an_id_that_stood_for_another_order_does_not_swallow_a_stop(core, raw):
    assert raw.ask("1", "limit", import_w_max=40_000.0, for_ms=60_000)["status"] == "applied"
    answer = raw.ask("1", "mode", mode="stop")
    assert (answer["op"], answer["status"]) == ("mode", "applied")
    assert in_force(core, MODE) == STOP_W


def test_every_stop_is_carried_out_also_one_with_the_bytes_of_the_last(core, raw):
    assert raw.ask("2", "mode", mode="stop")["status"] == "applied"
    assert raw.ask("3", "mode", mode="run")["status"] == "applied"
    assert raw.ask("2", "mode", mode="stop")["status"] == "applied"
    assert in_force(core, MODE) == STOP_W


def test_a_run_from_before_the_stop_neither_lifts_it_nor_says_so(core, raw):
    assert raw.ask("3", "mode", mode="run")["status"] == "applied"
    raw.ask("4", "mode", mode="stop")
    answer = raw.ask("3", "mode", mode="run")
    assert (answer["status"], answer["code"]) == ("refused", "replayed")
    assert in_force(core, MODE) == STOP_W
    assert raw.ask("5", "mode", mode="run")["status"] == "applied"


def test_a_renewal_with_the_bytes_of_the_last_renews(core, raw):
    lease = raw.ask("l", "lease", action="acquire", period_ms=200)["lease"]
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        answer = raw.ask("again", "lease", action="renew", lease=lease)
        assert answer["status"] == "applied" and answer["expires_ms"] > 400
        time.sleep(0.1)


def test_a_forked_user_of_the_client_has_ids_of_its_own():
    mine = connection.Request("get", {}).id
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, connection.Request("get", {}).id.encode())
        os._exit(0)
    os.waitpid(pid, 0)
    theirs = os.read(reader, 100).decode()
    assert theirs.rpartition("-")[0] != mine.rpartition("-")[0]


def test_a_stop_is_not_busy_however_much_its_peer_asked_before(core, gateway, raw):
    for number in range(FLOOD):
        raw.socket.send(msgpack.packb({"v": 2, "id": f"n{number}", "op": "limit", "import_w_max": 4e4, "for_ms": 1000}))
    raw.socket.send(msgpack.packb({"v": 2, "id": "stop", "op": "mode", "mode": "stop"}))
    until = time.monotonic() + 30
    while in_force(core, MODE) != STOP_W and time.monotonic() < until:
        time.sleep(0.01)
    assert in_force(core, MODE) == STOP_W
    assert gateway.gateway.server.counts["dropped"] > 0, "the flood was none"


def test_a_flood_that_only_looks_like_a_stop_is_dropped(core, gateway, raw):
    assert set(STOPS) == {msgpack.packb("stop"), msgpack.packb("lock")}
    for number in range(FLOOD):
        raw.socket.send(msgpack.packb({"v": 2, "id": f"n{number}", "op": "get", "stop": "stop"}))
    until = time.monotonic() + 30
    while gateway.gateway.server.counts["dropped"] == 0 and time.monotonic() < until:
        time.sleep(0.01)
    assert gateway.gateway.server.counts["dropped"] > 0 and in_force(core, MODE) is None


def test_a_core_that_was_halted_does_not_run_after_a_run_that_was_refused(core, start_gateway):
    core.step()
    halted = start_gateway()
    with halted.client() as site:
        with pytest.raises(clients.ClientError) as stop:
            site.stop()
        assert stop.value.code == "unknown" and "stands" in stop.value.text
        with pytest.raises(clients.ClientError) as run:
            site.run()
        assert run.value.code == "not-applied" and "taken back" in run.value.text
        core.step()  # it goes on
        assert in_force(core, MODE) == STOP_W and in_force(core, ARM) is None
        assert site.why()["stopped"]
    halted.close()
    core.memory.put_order(MODE, 0.0, 0, 1)
    start_gateway()
    assert in_force(core, MODE) == STOP_W, "the stop is kept as if nobody had said run"


def test_no_order_that_was_refused_comes_true_when_the_core_goes_on(core, start_gateway):
    core.values["site.mode"] = (float(MODES_BY_NUMBER.index("run")), 1)  # a cabinet that would take manual power
    core.step()
    halted = start_gateway()
    with halted.client() as site:
        lease = site.ask("lease", action="acquire", period_ms=3000)["lease"]
        asked = (
            ("setpoint", {"lease": lease, "seq": 0, "setpoint_w": 9e3, "for_ms": 60_000}),
            ("mode", {"mode": "manual", "power_w": 5e3, "for_ms": 60_000}),
            ("policy", {"name": "target_soc", "value": 0.3}),
            ("schedule", {"steps": [{"start_utc_s": 1, "setpoint_w": 7e3}], "end_utc_s": int(time.time()) + 3600}),
            ("ack", {}),
        )
        for op, fields in asked:
            with pytest.raises(clients.ClientError) as refused:
                site.ask(op, **fields)
            assert refused.value.code == "not-applied", op
        core.step()
        assert in_force(core, SETPOINT) is None and in_force(core, MANUAL) is None
        assert site.why()["policies"] == {} and not core.memory.plan().rows
        with pytest.raises(clients.ClientError) as limit:
            core.memory.put_order(2, 0.0, 0, 1)
            site.limit(import_w_max=30e3, for_s=60)
        assert limit.value.code == "unknown" and in_force(core, 2) == 30e3


def test_a_stop_while_no_core_runs_is_kept_for_the_next(core, start_gateway):
    core.step()
    core.memory.advance(running=False)
    first = start_gateway()
    with first.client() as site, pytest.raises(clients.ClientError) as refused:
        site.stop()
    assert refused.value.code == "core-down" and "kept" in refused.value.text
    first.close()
    core.memory.put_order(MODE, 0.0, 0, 1)
    start_gateway()
    assert in_force(core, MODE) == STOP_W


def test_a_plan_can_be_ended_while_one_holds_and_while_none_does(core, raw):
    far = int(time.time()) + 3600
    clear = {"steps": [], "end_utc_s": 0}
    assert raw.ask("a", "schedule", **clear)["status"] == "applied"
    raw.ask("b", "schedule", steps=[{"start_utc_s": 1, "setpoint_w": 7e3}], end_utc_s=far)
    assert core.memory.plan().rows
    assert raw.ask("c", "schedule", **clear)["status"] == "applied"
    assert not core.memory.plan().rows


@pytest.mark.parametrize("end_utc_s", [2**53, 2**53 - 1, 2**40, 10**10])
def test_a_plan_that_ends_beyond_a_year_is_refused_and_the_one_in_force_stays(core, raw, end_utc_s):
    far = int(time.time()) + 3600
    raw.ask("b", "schedule", steps=[{"start_utc_s": 1, "setpoint_w": 7e3}], end_utc_s=far)
    answer = raw.ask("c", "schedule", steps=[{"start_utc_s": 1, "setpoint_w": 1e3}], end_utc_s=end_utc_s)
    assert (answer["status"], answer["code"]) == ("refused", "invalid-field")
    assert [row.values["setpoint_w"] for row in core.memory.plan().rows] == [7e3]


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 2**60, "\x1b[2J", "x" * (TEXT_MAX + 1), [[[[[[[[1]]]]]]]]]
)
def test_a_request_that_cannot_be_is_answered_to_the_one_who_asked(core, raw, value):
    """Not left without an answer, which says "is the site running?" to a person."""
    answer = raw.ask("odd", "limit", import_w_max=value, for_ms=1000)
    assert (answer["id"], answer["op"], answer["status"]) == ("odd", "limit", "refused")


def events(site):
    boot, seq, found = None, -1, []
    while True:
        answer = site.ask("replay", stream="event", boot=boot, seq=seq, count=512)
        found += answer["records"]
        if answer["end"] or not answer["records"]:
            return found
        boot, seq = found[-1]["boot"], found[-1]["seq"]


@pytest.mark.parametrize("noise", ["notes", "unknown keys", "failures"])
def test_no_noise_costs_the_audit_an_order(core, gateway, noise):
    with gateway.client() as site:
        for number in range(90):
            if noise == "notes":
                site.ask("note", name="x", detail=str(number))
                time.sleep(0.002)
            elif noise == "unknown keys":
                gateway.gateway._emit("access", "refused", f"key {number}")
            else:
                gateway.gateway.desk.audit.append(("gateway", "internal", str(number)))
        for _ in range(6):
            site.run()
        time.sleep(1.3)
        told = events(site)
    assert sum((one["event"], one["name"]) == ("order", "run") for one in told) == 6
    assert any(one["name"] == "suppressed" for one in told), "what was left out is counted"
