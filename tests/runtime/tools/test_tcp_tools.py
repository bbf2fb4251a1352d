"""`scan`, `read` and `doctor` over Modbus TCP, against pymodbus and against nobody."""

import json
import socket
import subprocess
import sys
import textwrap
import time
import tomllib

import pytest

from tests.ext.bus.test_tcp import Server, framed
from tests.runtime.cabinet import TIDEGATE
from tidegate.config.site import Tcp
from tidegate.runtime.commissioning import bus_checks, draft, survey
from tidegate.runtime.commissioning.machine import FIX, OK
from tidegate.runtime.commissioning.prompts import Answers, SetupError
from tidegate.runtime.tools.open_bus import ToolError, tcp_place

SERVER = """
    import asyncio, sys
    from pymodbus.server import StartAsyncTcpServer
    from pymodbus.datastore import ModbusDeviceContext, ModbusSequentialDataBlock, ModbusServerContext
    words = lambda: ModbusSequentialDataBlock(1, [0x4366, 0] * 300)
    context = ModbusServerContext(devices={7: ModbusDeviceContext(hr=words(), ir=words())}, single=False)
    asyncio.run(StartAsyncTcpServer(context=context, address=("127.0.0.1", int(sys.argv[1]))))
"""


@pytest.fixture
def where():
    pytest.importorskip("pymodbus")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(SERVER), str(port)], stderr=subprocess.DEVNULL)
    end = time.monotonic() + 20
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        assert time.monotonic() < end
        time.sleep(0.02)
    yield f"127.0.0.1:{port}"
    process.kill()
    process.wait()


def run(*words):
    return subprocess.run([*TIDEGATE, *words], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("code", [10, 11])
def test_scan_finds_the_unit_that_is_there_and_not_those_that_a_gateway_answers_for(code):
    def gateway(request, reply):
        return [(0, reply if request[6] == 7 else framed(request, bytes([request[7] | 0x80, code])))]

    server = Server(gateway)
    try:
        done = run("scan", "--tcp", f"127.0.0.1:{server.port}", "--ids", "5-8", "--timeout-ms", "1000", "--no-identify",
                   "--json")  # fmt: skip
    finally:
        server.close()
    assert [one["unit_id"] for one in json.loads(done.stdout)] == [7], done.stderr


def test_read_shows_a_device_by_its_map(where):
    done = run("read", "eastron-sdm630", "voltage_l1_v", "--tcp", where, "--unit", "7", "--json")
    assert [one["value"] for one in json.loads(done.stdout)] == [230.0], done.stderr


def test_nobody_there_is_a_sentence():
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    done = run("read", "eastron-sdm630", "--tcp", f"127.0.0.1:{number}")
    assert done.returncode == 1 and "takes no connection" in done.stderr
    (found,) = bus_checks.tcp(Tcp(name="lan", host="127.0.0.1", port=number))
    assert (found.topic, found.verdict) == ("tcp lan", FIX) and "refuses" in found.says


def test_the_doctor_connects_and_sends_nothing():
    with socket.create_server(("127.0.0.1", 0)) as there:
        (found,) = bus_checks.tcp(Tcp(name="lan", host="127.0.0.1", port=there.getsockname()[1]))
        assert found.verdict == OK
        accepted, _ = there.accept()
        with accepted:
            accepted.settimeout(5)
            assert accepted.recv(1) == b""


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("192.0.2.1", ("192.0.2.1", 502)), ("192.0.2.1:1502", ("192.0.2.1", 1502)),
        ("fd00::1", ("fd00::1", 502)), ("[fd00::1]:1502", ("fd00::1", 1502)),
    ],
)  # fmt: skip
def test_a_place_is_an_address_and_a_port(text, place):
    assert tcp_place(text) == place


@pytest.mark.parametrize("text", ["192.0.2.1:0", "192.0.2.1:x", "192.0.2.1:70000"])
def test_a_port_that_cannot_be_is_refused(text):
    with pytest.raises(ToolError, match="expected ADDRESS"):
        tcp_place(text)


def test_init_drafts_a_tcp_bus_with_what_answers_there(where):
    said = []
    answers = Answers(tcp=[where], ids="7", maps={f"{where}:7": "eastron-sdm630"})
    (part,) = survey.survey(answers, said.append)
    part.role, part.name = "grid-meter", "grid"
    told = tomllib.loads(draft.site_text(answers, [part], [], "drafted"))
    host, port = tcp_place(where)
    (bus,) = told["tcp"]
    assert (bus["host"], bus["port"]) == (host, port) and "serial" not in told
    assert told["device"] == [
        {"name": "grid", "map": "eastron-sdm630", "bus": bus["name"], "unit_id": 7, "role": "grid-meter"}
    ]


def test_init_says_where_nobody_answers_over_tcp():
    server = Server(lambda request, _: [(0, framed(request, bytes([request[7] | 0x80, 11])))])
    try:
        with pytest.raises(SetupError, match="takes the connection, and no unit id of 1 answers"):
            survey.survey(Answers(tcp=[f"127.0.0.1:{server.port}"], ids="1"), lambda _: None)
    finally:
        server.close()
