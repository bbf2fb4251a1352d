"""Sources against agents: net-snmp's snmpd, a real Prometheus, a Redfish stub; and what wrong answers do."""

import asyncio
import contextlib
import json
import random
import socket
import threading
import time

import pytest

from tests.runtime.telemetry.agents import Web, apc, dcgm, eventually, free_port, prometheus, raritan, redfish, snmpd
from tidegate.runtime.telemetry.http_get import Access, HttpError, get
from tidegate.runtime.telemetry.pdu_models import MODELS
from tidegate.runtime.telemetry.prometheus_source import PrometheusServer
from tidegate.runtime.telemetry.redfish_source import RedfishHost
from tidegate.runtime.telemetry.snmp_codec import SnmpError, answer, bindings_of, request
from tidegate.runtime.telemetry.snmp_source import Community, SnmpPdu, SnmpSocket


@pytest.fixture
def web():
    one = Web()
    yield one
    one.close()


async def ask_pdu(host, model, community="rack"):
    wire = SnmpSocket()
    await wire.open()
    try:
        pdu = SnmpPdu(wire, host, MODELS[model], Community(community.encode()), "A01")
        return await pdu.hear(), await pdu.hear()
    finally:
        wire.close()


def heard_of(host, model):
    """Until the agent is up; it starts in its own time."""
    until = time.monotonic() + 60
    while True:
        try:
            return asyncio.run(ask_pdu(host, model))
        except (TimeoutError, SnmpError):
            if time.monotonic() > until:
                raise


@pytest.mark.parametrize(("model", "rows", "watts", "outlet_w", "context"), [
    ("apc-rpdu2", apc(outlets=42), 10_500.0, 250.0, {"temp_c": 23.9, "humidity": 0.41}),
    ("raritan-pdu2", raritan(), 1202.0, 300.5, {"temp_c": 24.3, "humidity": 0.38}),
    ("vertiv-geist", {"1.3.6.1.4.1.21239.5.2.3.1.1.9.1": ("gauge", 640), **{
        f"1.3.6.1.4.1.21239.5.2.3.6.1.12.{n}": ("gauge", 160) for n in range(1, 5)}}, 640.0, 160.0, {}),
])  # fmt: skip
def test_a_pdu_is_read_through_net_snmp(tmp_path, model, rows, watts, outlet_w, context):
    with snmpd(tmp_path, rows) as host:
        for heard in heard_of(host, model):
            (sample,) = heard.samples
            assert sample.watts == pytest.approx(watts) and sample.thing.rack == "A01" and not heard.problems
            outlets = [one.value for one in heard.readings if one.what == "outlet_w"]
            assert outlets and outlets == pytest.approx([outlet_w] * len(outlets))
            found = {one.what: one.value for one in heard.readings if one.what in ("temp_c", "humidity")}
            assert found == pytest.approx(context)


def test_another_model_and_another_community_are_named(tmp_path):
    with snmpd(tmp_path, apc()) as host:
        heard_of(host, "apc-rpdu2")
        with pytest.raises(SnmpError, match="is model the right one"):
            asyncio.run(ask_pdu(host, "raritan-pdu2"))
        with pytest.raises(TimeoutError):
            asyncio.run(ask_pdu(host, "apc-rpdu2", community="wrong"))


def test_a_power_that_is_not_supported_is_not_zero(tmp_path):
    rows = apc(outlets=2, total=-1) | {"1.3.6.1.4.1.318.1.1.26.9.4.3.1.7.2": ("integer", -1)}
    with snmpd(tmp_path, rows) as host:
        heard, _ = heard_of(host, "apc-rpdu2")
    assert [sample.watts for sample in heard.samples] == [250.0]
    assert any("2 of its power readings say nothing" in text for text in heard.problems)
    assert any("no total, and outlets are missing" in text for text in heard.problems)


def test_the_codec_survives_any_bytes_and_any_change_of_an_answer():
    rng = random.Random(7)
    number_oid = (1, 3, 6, 1, 4, 1, 318, 1, 1, 26, 9, 4, 3, 1, 7, 40)
    good = bytearray(request(b"public", 77, bindings_of([number_oid] * 3)))
    good[good.index(0xA0)] = 0xA2
    assert answer(bytes(good)) == (77, [(number_oid, None, False)] * 3)
    for turn in range(20_000):
        data = bytearray(good) if turn % 2 else bytearray(rng.randbytes(rng.randint(0, 80)))
        for _ in range(rng.randint(0, 4) if turn % 2 else 0):
            data[rng.randrange(len(data))] = rng.randrange(256)
        with contextlib.suppress(SnmpError):
            answer(bytes(data[: rng.randint(0, len(data))] if turn % 3 == 0 else data))


@pytest.mark.parametrize("value", [0, 1, -1, 127, 128, -128, -129, 2**31 - 1, -(2**31)])
def test_numbers_go_there_and_back(value):
    data = bytearray(request(b"c", value, bindings_of([(1, 3, 6)])))
    data[data.index(0xA0)] = 0xA2
    assert answer(bytes(data))[0] == value


async def stubborn(replies):
    """A PDU that answers what the test wants: bytes, or None for silence. -> (address, close)."""

    class Agent(asyncio.DatagramProtocol):
        def connection_made(self, transport):
            self.transport = transport

        def datagram_received(self, data, addr):
            reply = replies(data)
            if reply is not None:
                self.transport.sendto(reply, addr)

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Agent, local_addr=("127.0.0.1", 0))
    return f"127.0.0.1:{transport.get_extra_info('sockname')[1]}", transport.close


def mirrored(data):
    """The request as an answer without values, so that the table never advances."""
    found = bytearray(data)
    found[next(at for at, byte in enumerate(found) if byte in (0xA0, 0xA5))] = 0xA2
    return bytes(found)


@pytest.mark.parametrize(("replies", "words"), [
    (mirrored, "refuses|backwards"), (lambda data: b"\x30\x03\x04\x01a", "element"),
    (lambda data: b"\x30", "cut short"),
])  # fmt: skip
def test_an_agent_that_answers_nonsense_ends_with_its_name(replies, words):
    async def talk():
        host, close = await stubborn(replies)
        try:
            with pytest.raises(SnmpError, match=words):
                await ask_pdu(host, "apc-rpdu2")
        finally:
            close()

    asyncio.run(talk())


# ---- Redfish ----


def ask_redfish(web, **more):
    access = Access(None, more.pop("user", ""), more.pop("password", ""))
    return asyncio.run(RedfishHost(web.host, "http", access, "A01", 20.0).hear())


def test_a_server_is_read_over_redfish_in_the_old_shape_and_the_new(web):
    redfish(web)
    heard = ask_redfish(web)
    assert [sample.watts for sample in heard.samples] == [412.0], "the CPU's control is a part of the first"
    assert {(one.what, one.value) for one in heard.readings} == {("inlet_c", 24.0), ("temp_c", 61.5)}
    redfish(web, watts=333.5, new=True)
    heard = ask_redfish(web)
    assert [sample.watts for sample in heard.samples] == [333.5]
    assert {(one.what, round(one.value, 2)) for one in heard.readings} == {("temp_c", 25.5), ("humidity", 0.44)}


def test_redfish_asks_with_its_password_and_names_a_refusal_without_it(web):
    redfish(web)
    web.authorized = "Basic dGlkZTpzZWNyZXQ="
    assert ask_redfish(web, user="tide", password="secret").samples
    with pytest.raises(HttpError, match="401") as refused:
        ask_redfish(web, user="tide", password="other")
    assert "other" not in str(refused.value)


@pytest.mark.parametrize(("path", "body", "words"), [
    ("/redfish/v1/Chassis", b"<html>", "malformed"), ("/redfish/v1/Chassis", b"\xff\xfe", "/redfish/v1/Chassis: "),
    ("/redfish/v1/Chassis", b'{"Members": {"a": 1}}', "Expected `array`"),
    ("/redfish/v1/Chassis", b'{"Members": [{"@odata.id": "http://elsewhere/"}]}', "leads elsewhere"),
    ("/redfish/v1/Chassis", b"[" * 5000, "/redfish/v1/Chassis: "),
    ("/redfish/v1/Chassis/1U/Power", b'{"PowerControl": []}', "no chassis says"),
    ("/redfish/v1/Chassis/1U/Power", b'{"PowerControl": [{"PowerConsumedWatts": "many"}]}', "Expected"),
    ("/redfish/v1/Chassis/1U/Power", b'{"PowerControl": [{"PowerConsumedWatts": 1e12}]}', "no chassis says"),
])  # fmt: skip
def test_a_bmc_that_answers_otherwise_is_refused_by_name(web, path, body, words):
    redfish(web)
    web.pages[path] = body
    with pytest.raises(HttpError, match=words):
        ask_redfish(web)


# ---- Prometheus ----


def ask_prometheus(url, exporter, racks=()):
    return asyncio.run(PrometheusServer(url, exporter, Access(), dict(racks), 20.0).hear())


def test_cards_are_read_from_a_real_prometheus(tmp_path, web):
    web.pages["/metrics"] = dcgm()
    with prometheus(tmp_path, web) as url:
        heard = eventually(lambda: ask_prometheus(url, "dcgm", {"n1": "A01"}), lambda one: len(one.samples) == 4)
        with pytest.raises(HttpError, match="does it scrape the kepler exporter"):
            ask_prometheus(url, "kepler")
    by_job = {sample.thing.name: sample for sample in heard.samples}
    assert by_job["n1 GPU 0"].thing.job == "train-0" and by_job["n1 GPU 0"].thing.namespace == "ml"
    assert by_job["n1 GPU 0"].thing.rack == "A01" and by_job["n1 GPU 0"].busy == 0.97
    assert by_job["n1 GPU 3"].thing.job == "" and by_job["n1 GPU 3"].watts == 70.0


def vector(*rows, t=1000.0):
    result = [{"metric": labels, "value": [t, text]} for labels, text in rows]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()


def card(gpu, **labels):
    return {"gpu": str(gpu), "UUID": f"GPU-{gpu}", "Hostname": "n1", **labels}


def test_the_exporters_own_pod_is_no_work_and_numbers_that_are_none_are_named_and_not_counted(web):
    rows = [(card(0, pod="dcgm-exporter-x", namespace="gpu-operator"), "300"), (card(1, GPU_I_ID="3"), "250"),
            (card(2), "NaN"), (card(3, hpc_job="4711"), "200"), (card(4), "-5")]  # fmt: skip
    util = [(card(3), "0")]
    web.pages["/api/v1/query"] = lambda path: vector(*(rows if "POWER" in path else util))
    heard = ask_prometheus(f"http://{web.host}", "dcgm")
    assert [(s.thing.name, s.thing.job, s.busy) for s in heard.samples] == [
        ("n1 GPU 0", "", None), ("n1 GPU 1", "", None), ("n1 GPU 3", "4711", 0.0)]  # fmt: skip
    assert [text.split(": ")[1].split()[0:2] for text in heard.problems] == [["2", "cards"]]


def watts_of(web, *rows):
    web.pages["/api/v1/query"] = lambda path: vector(*(rows if "POWER" in path else ()))
    found = {}
    for one in ask_prometheus(f"http://{web.host}", "dcgm").samples:
        key = one.thing.namespace, one.thing.job
        found[key] = found.get(key, 0.0) + one.watts
    return {key: round(watts, 6) for key, watts in found.items()}


def cut(slice_, profile, pod="", **more):
    held = {"exported_pod": pod, "exported_namespace": "ml"} if pod else {}
    return card(0, GPU_I_ID=slice_, GPU_I_PROFILE=profile, **held, **more)


def test_a_cut_card_is_shared_by_the_size_of_its_slices_and_counted_once(web):
    """700 W: 3g of 7 to a, 2g of 7 to b, 1g held by nobody, one slice that nobody made; the whole card beside them."""
    rows = [(cut("1", "3g.40gb", "a"), "700"), (cut("2", "2g.20gb", "b"), "700"), (cut("3", "1g.10gb"), "700"),
            (card(0), "700")]  # fmt: skip
    assert watts_of(web, *rows) == {("ml", "a"): 300.0, ("ml", "b"): 200.0, ("", ""): 200.0}


def test_pods_that_hold_a_card_by_turns_have_it_evenly(web):
    rows = [(card(0, exported_pod=pod, exported_namespace="ml"), "600") for pod in "abc"]
    assert watts_of(web, *rows) == {("ml", pod): 200.0 for pod in "abc"}
    both = [(cut("1", "4g.40gb", "a"), "700"), (cut("1", "4g.40gb", "b"), "700"), (cut("2", "3g.40gb", "a"), "700")]
    assert watts_of(web, *both) == {("ml", "a"): 500.0, ("ml", "b"): 200.0}


def test_cards_of_several_hosts_with_one_number_are_several_cards(web):
    rows = [({"gpu": "0", "Hostname": host, "pod": host, "namespace": "ml"}, "300") for host in ("n1", "n2")]
    assert watts_of(web, *rows) == {("ml", "n1"): 300.0, ("ml", "n2"): 300.0}


def test_kepler_pods_are_counters_of_one_zone(web):
    pod = {"pod_name": "a", "pod_namespace": "ml", "node_name": "n1"}
    cpu, gpu = vector((pod, "500"), ({"pod_name": ""}, "9")), vector((pod, "120.5"))
    web.pages["/api/v1/query"] = lambda path: cpu if "cpu" in path else gpu
    heard = ask_prometheus(f"http://{web.host}", "kepler")
    assert [(one.thing.job, one.joules) for one in heard.counted] == [("a", 620.5)]
    assert any("zone%3D%22package%22" in path for path in web.asked) and "1 series of Kepler" in heard.problems[0]


@pytest.mark.parametrize(("body", "words"), [
    (b"{}", "not an answer"), (b'{"status": "error", "error": "bad query"}', "refuses: bad query"),
    (b'{"status": "success", "data": {"resultType": "matrix", "result": []}}', "a matrix came"),
    (b"\x00" * 100, "not an answer"),
])  # fmt: skip
def test_what_is_no_vector_is_refused(web, body, words):
    web.pages["/api/v1/query"] = body
    with pytest.raises(HttpError, match=words):
        ask_prometheus(f"http://{web.host}", "dcgm")


# ---- HTTP ----


def served(reply, hold_s=0.0):
    """A server that takes one connection and answers these bytes. -> URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run():
        with contextlib.suppress(OSError), listener, listener.accept()[0] as one:
            one.recv(4096)
            for part in reply if isinstance(reply, list) else [reply]:
                one.sendall(part)
                time.sleep(hold_s)

    threading.Thread(target=run, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}/x"


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(("reply", "words"), [
    (b"", "not HTTP"), (b"hello\r\n\r\n", "status"), (HEAD + b"Content-Length: 99999999999\r\n\r\n", "at most"),
    (HEAD + b"Content-Length: -5\r\n\r\n", "at most"), (HEAD + b"Content-Length: ten\r\n\r\n", "not HTTP"),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffff\r\n", "more than"), (HEAD + b"x" * 70_000, "not HTTP"),
    (HEAD + b"Content-Length: 10\r\n\r\nabc", "not HTTP"), (HEAD + b"\r\n" + b"y" * 3000, "more than"),
])  # fmt: skip
def test_an_answer_out_of_bounds_is_refused(reply, words):
    with pytest.raises(HttpError, match=words):
        asyncio.run(get(served(reply), Access(), 20.0, 2048))


@pytest.mark.parametrize("reply", [
    HEAD + b"Content-Length: 4\r\n\r\ngood", HEAD + b"\r\ngood",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\ngo\r\n2;x=y\r\nod\r\n0\r\n\r\n",
])  # fmt: skip
def test_the_three_ways_that_a_body_ends(reply):
    assert asyncio.run(get(served(reply), Access(), 20.0, 2048)) == b"good"


def test_a_server_that_drips_is_left_when_its_time_is_up():
    url = served([HEAD + b"\r\n", *[b"z"] * 500], hold_s=0.1)
    with pytest.raises(HttpError, match="no answer within 1 s"):
        asyncio.run(get(url, Access(), 1.0))


def test_nobody_there_is_named():
    with pytest.raises(HttpError):
        asyncio.run(get(f"http://127.0.0.1:{free_port()}/", Access(), 20.0))
