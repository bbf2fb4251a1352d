"""What the gateway does when it is asked too much, or the disk fails."""

import time

import msgpack
import pytest
import zmq

from tidegate.runtime.api import blocking_client as clients
from tidegate.runtime.gateway.orders_held import LIMITS_MAX, LimitHeld
from tidegate.runtime.gateway.peers import Answers, Asked, Bucket, Peers
from tidegate.runtime.state.journal import Journal


def test_more_commands_than_the_bucket_holds_are_busy(core, gateway):
    codes = set()
    with gateway.client() as site:
        for _ in range(200):
            try:
                site.ask("limit", import_w_max=40_000.0, for_ms=1000)
            except clients.ClientError as why:
                codes.add(why.code)
                if why.code == "busy":
                    assert "a second" in why.text
                    break
            site.timeout_s = 5
        else:
            # One at a time waits for the core each time, and may stay below the rate: ask without waiting.
            api = site._socket(zmq.DEALER)
            api.connect(f"{gateway.endpoint}/api")
            for number in range(300):
                api.send(
                    msgpack.packb({"v": 1, "id": f"n{number}", "op": "limit", "import_w_max": 4e4, "for_ms": 1000})
                )
            while api.poll(500):
                answer = msgpack.unpackb(api.recv())
                codes.add(answer.get("code"))
    assert "busy" in codes


def test_a_flood_of_what_is_no_request_is_answered_a_little_and_then_not(core, gateway):
    with gateway.client() as site:
        api = site._socket(zmq.DEALER)
        api.connect(f"{gateway.endpoint}/api")
        answers = 0
        for _ in range(20):
            for _ in range(100):
                api.send(b"\xc1")
            while api.poll(20):
                answers += 1
                assert msgpack.unpackb(api.recv())["code"] == "malformed"
        assert 0 < answers < 500
        assert gateway.gateway.server.counts["dropped"] > 500


def test_a_replay_of_a_boot_that_nobody_knows_is_gone(gateway):
    with gateway.client() as site, pytest.raises(clients.ClientError) as refused:
        site.replay("meter", "f" * 32, 5)
    assert refused.value.code == "gone"


def test_more_than_three_frames_are_nobody_we_know(gateway):
    with gateway.client() as site:
        api = site._socket(zmq.DEALER)
        api.connect(f"{gateway.endpoint}/api")
        api.send_multipart([b"a", b"b", b"c"])
        assert not api.poll(300)
        assert site.health()["core"]["running"]


def test_req_sockets_are_served_too(gateway):
    with gateway.client() as site:
        api = site._socket(zmq.REQ)
        api.connect(f"{gateway.endpoint}/api")
        api.send(msgpack.packb({"v": 1, "id": "x", "op": "get", "points": ["site.mode"]}))
        assert api.poll(5000)
        assert msgpack.unpackb(api.recv())["points"] == {"site.mode": [3.0, 1]}


@pytest.mark.parametrize("error", [28, 30, 5])
def test_a_failing_disk_holds_records_back_says_so_and_recovers_without_restart(core, gateway, error, monkeypatch):
    boot = gateway.gateway.records.boot
    with gateway.client(timeout_s=10) as site:
        heard = site.subscribe("meter", "head", since={"meter": (boot, -1)})
        core.meter()
        kinds = {}
        until = time.monotonic() + 15
        while "meter" not in kinds and time.monotonic() < until:
            message = heard.receive(1.0)
            if message is not None:
                kinds[message["kind"]] = message
        assert kinds["meter"]["seq"] == 0

        def fail(self, batch):
            raise OSError(error, "the disk fails")

        with monkeypatch.context() as broken:
            broken.setattr(Journal, "_write", fail)
            for _ in range(5):
                core.meter()
            said = ""
            seen = []
            until = time.monotonic() + 15
            while not said and time.monotonic() < until:
                message = heard.receive(1.0)
                if message is not None and message["kind"] == "head":
                    said = message["journal_error"]
                elif message is not None:
                    seen.append(message)
            assert "the disk fails" in said and seen == []
            with site.lease() as lease:  # control does not care
                assert lease.setpoint(100.0, 1)["status"] == "applied"
            assert site.health()["journal"]["waiting"] >= 5
        seqs = []
        until = time.monotonic() + 15
        while len(seqs) < 5 and time.monotonic() < until:
            message = heard.receive(1.0)
            if message is not None and message["kind"] == "meter":
                seqs.append(message["seq"])
        assert seqs == [1, 2, 3, 4, 5]
        told = []
        until = time.monotonic() + 15
        while not {"failing", "recovered"} <= set(told) and time.monotonic() < until:
            told = [event["name"] for event in site.replay("event")[0]]
            time.sleep(0.1)
        assert {"failing", "recovered"} <= set(told)


def test_a_bucket_lets_so_many_at_once_and_so_many_a_second():
    bucket = Bucket(10.0, 5.0)
    assert [bucket.take(1) for _ in range(7)] == [True] * 5 + [False] * 2
    assert bucket.take(1 + 100_000_000) and not bucket.take(1 + 100_000_000)


def test_local_roles_come_from_the_kernels_credentials():
    peers = Peers(own_uid=1000, local_role="read")
    assert peers.local("localhost:0:0:7").role == "maintain"
    assert peers.local("localhost:1000:1000:7").role == "maintain"
    assert peers.local("localhost:1001:1001:7").role == "read"
    assert peers.local("nonsense").role == "read"
    assert peers.local("localhost:1000:1000:7") is peers.local("localhost:1000:1000:7")
    assert peers.local("localhost:1000:1000:8") is not peers.local("localhost:1000:1000:7")


def test_answers_are_kept_for_ten_minutes_and_never_without_bound():
    answers = Answers()
    one = Asked("a", "1", b"")
    answers.keep(one, 10, b"done")
    assert answers.find(one, 11) == (10, b"done")
    for other in (Asked("b", "1", b""), Asked("a", "2", b""), Asked("a", "1", b"other bytes")):
        assert answers.find(other, 11) is None
    assert answers.find(one, 10 + 601 * 10**9) is None
    for number in range(10_000):
        answers.keep(Asked("a", str(number), b""), 12, b"x")
    assert len(answers) == 4096


def test_more_replays_than_the_bucket_holds_are_busy(gateway):
    codes = set()
    with gateway.client() as site:
        for _ in range(200):
            try:
                site.ask("replay", stream="event")
            except clients.ClientError as why:
                codes.add(why.code)
                assert "replay a second" in why.text and why.answer["expires_ms"] > 0
                break
    assert codes == {"busy"}


def test_more_holders_of_limits_than_there_is_room_for_are_refused(gateway):
    desk = gateway.gateway.desk
    with gateway.client() as site:
        end_ns = time.monotonic_ns() + 3600 * 10**9
        for number in range(LIMITS_MAX):
            desk.limits[f"peer {number}"] = LimitHeld(50_000.0, 50_000.0, end_ns)
        with pytest.raises(clients.ClientError) as refused:
            site.limit(import_w_max=30_000.0, for_s=1)
    assert refused.value.code == "unavailable" and "64 peers" in refused.value.text


def test_a_request_that_the_gateway_cannot_serve_is_answered_and_ends_nothing(gateway, monkeypatch):
    with gateway.client() as site:
        with monkeypatch.context() as broken:
            broken.setattr(gateway.gateway.server.site, "why", lambda: {}["missing"])
            with pytest.raises(clients.ClientError) as refused:
                site.why()
        assert refused.value.code == "internal" and "KeyError" in refused.value.text
        assert site.why()["mode"] == "run" and site.health()["requests"]["failed"] == 1


def test_the_quarter_hours_of_samples_that_had_to_go_can_be_asked_for(core, gateway):
    retention = gateway.gateway.journal.retention
    boot = gateway.gateway.records.boot
    with gateway.client() as site:
        assert site.replay("total") == ([], True)
        retention.meter.segment_bytes = 1  # each group of records becomes a segment of its own
        for _ in range(3):
            core.meter()
            time.sleep(0.25)
        retention.samples_bytes = 1
        until = time.monotonic() + 10
        while len(retention.meter.segments) > 1 and time.monotonic() < until:
            core.event(code=0)
            time.sleep(0.12)
        records, end = site.replay("total")
    assert end and records and {record["kind"] for record in records} == {"total"}
    first = records[0]
    assert first["boot"] == boot and first["quarter_utc_s"] % 900 == 0 and first["count"] >= 1
    assert first["first"]["points"].keys() == first["last"]["points"].keys()
