"""The TCP thread on loopback connections: servers that nobody here wrote, and servers that misbehave."""

import os
import shutil
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from tidegate.ext.abi import program
from tidegate.ext.bus.rtu_view import crc
from tidegate.ext.bus.tcp import TcpPort, TcpPorts

MS = 1_000_000
SETPOINT = {"kind": 1, "function": 16, "address": 900, "unit": 0, "type": 1}


def block(address, count, function=3, **row):
    return {"function": function, "address": address, "count": count, "fields": [], "period_ns": 20 * MS, **row}


def slave(*blocks, unit_id=1, commands=(), **row):
    return {"unit_id": unit_id, "timeout_ns": 300 * MS, "blocks": list(blocks), "commands": list(commands), **row}


def site(tcp_port, *lanes, link=0, transport="tcp", **row):
    """A program with one TCP port for each list of slaves."""
    port = {
        "transport": program.TRANSPORTS[transport], "family": 4, "host": socket.inet_aton("127.0.0.1"),
        "tcp_port": tcp_port, "link": link, **row,
    }  # fmt: skip
    points = [{"name": f"d.p{i}", "unit": "W"} for i in range(4)]
    return program.pack({"points": points, "units": [{}], "ports": [{**port, "slaves": slaves} for slaves in lanes]})


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Server(threading.Thread):
    """Modbus TCP as it should be, until a test changes `spoil`: (request, reply) -> list of (pause_s, bytes or None).

    None closes the connection. Register i holds i; written ones hold what was written.
    """

    def __init__(self, spoil=None):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.regs = {i: i for i in range(2000)}
        self.spoil = spoil or (lambda request, reply: [(0, reply)])
        self.requests, self.connections, self.ended = [], [], False
        self.start()

    def run(self):
        while not self.ended:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        held = b""
        try:
            while True:
                got = connection.recv(4096)
                if not got:
                    return
                held += got
                while len(held) >= 6 and len(held) >= 6 + held[5]:
                    request, held = held[: 6 + held[5]], held[6 + held[5] :]
                    self.requests.append(request)
                    for pause_s, data in self.spoil(request, self.reply(request)):
                        time.sleep(pause_s)
                        if data is None:
                            return
                        connection.sendall(data)
        except OSError:
            return
        finally:
            connection.close()

    def reply(self, request):
        function = request[7]
        address, count = struct.unpack(">HH", request[8:12])
        if function not in (3, 16):
            return framed(request, bytes([function | 0x80, 1]))
        if function == 3:
            body = bytes([function, 2 * count]) + b"".join(
                struct.pack(">H", self.regs[address + i]) for i in range(count)
            )
        else:
            for i in range(count):
                self.regs[address + i] = struct.unpack(">H", request[13 + 2 * i : 15 + 2 * i])[0]
            body = request[7:12]
        return framed(request, body)

    def close(self):
        self.ended = True
        self.listener.close()
        for connection in self.connections:
            connection.close()


def framed(request, body):
    """A reply with the request's transaction and unit."""
    return request[:2] + struct.pack(">HH", 0, len(body) + 1) + request[6:7] + body


@pytest.fixture
def server():
    made = Server()
    yield made
    made.close()


def started(blob):
    ports = TcpPorts(blob)
    ports.start()
    return ports


def good(ports, index=0):
    return [row for row in ports.take(index) if row["status"] == "ok"]


# ---------------------------------------------------------------- foreign servers

PYMODBUS = """
    import asyncio, sys
    from pymodbus.server import StartAsyncTcpServer
    from pymodbus.datastore import ModbusSequentialDataBlock, ModbusServerContext
    from pymodbus.datastore import ModbusDeviceContext as Device
    words = lambda: ModbusSequentialDataBlock(1, list(range(1000)))
    bits = lambda: ModbusSequentialDataBlock(1, [i % 3 == 0 for i in range(100)])
    context = ModbusServerContext(devices=Device(di=bits(), co=bits(), hr=words(), ir=words()), single=True)
    asyncio.run(StartAsyncTcpServer(context=context, address=("127.0.0.1", int(sys.argv[1]))))
"""


def pymodbus_server(port, folder):
    pytest.importorskip("pymodbus")
    return [sys.executable, "-c", textwrap.dedent(PYMODBUS), str(port)]


def libmodbus_server(port, folder):
    if not shutil.which("cc") or not Path("/usr/include/modbus/modbus.h").exists():
        pytest.skip("libmodbus is not installed here (Debian package libmodbus-dev) or there is no C compiler")
    built = folder / "server"
    source = Path(__file__).with_name("libmodbus_tcp_server.c")
    subprocess.run(["cc", "-O1", "-o", built, source, "-lmodbus"], check=True)
    return [str(built), str(port)]


@pytest.fixture(params=[pymodbus_server, libmodbus_server], ids=["pymodbus", "libmodbus"])
def foreign(request, tmp_path):
    """TCP port of a foreign server: register i holds i, coil i is i % 3 == 0."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen(request.param(port, tmp_path), stderr=subprocess.DEVNULL)
    until(lambda: listens(port))
    yield port
    server.kill()
    server.wait()


def newest(done, number):
    return [row for row in done if row["block"] == number][-1]["regs"]


def test_functions_1_to_4_read_what_a_foreign_server_holds(foreign):
    ports = started(site(foreign, [slave(block(0, 40, 1), block(5, 9, 2), block(10, 125), block(700, 3, 4))]))
    done = []
    until(lambda: done.extend(good(ports)) or {row["block"] for row in done} == set(range(4)))
    ports.stop()
    assert [newest(done, 0)[i // 16] >> i % 16 & 1 for i in range(40)] == [int(i % 3 == 0) for i in range(40)]
    assert [newest(done, 1)[i // 16] >> i % 16 & 1 for i in range(9)] == [int((i + 5) % 3 == 0) for i in range(9)]
    assert newest(done, 2) == list(range(10, 135))
    assert newest(done, 3) == [700, 701, 702]
    stats = ports.stats(0)
    assert stats["mismatches"] == stats["strays"] == 0


def test_writes_come_back_from_a_foreign_server_and_its_refusals_are_no_silence(foreign):
    u32 = program.FIELD_TYPES["u32"]
    commands = [
        {"kind": 1, "function": 5, "address": 3, "unit": 0},
        {"kind": 1, "function": 6, "address": 20, "unit": 0},
        {"kind": 1, "function": 15, "address": 30, "count": 4, "unit": 0},
        {"kind": 1, "function": 16, "address": 40, "unit": 0, "type": u32},
    ]
    ports = started(site(foreign, [slave(block(0, 40, 1), block(10, 60), block(5000, 2), commands=commands)]))
    until(lambda: ports.stats(0)["ok"] >= 2)
    for slot, regs in enumerate(([0xFF00], [4711], [0b0101], [0xDEAD, 0xBEEF])):
        ports.put(0, slot, regs)
    until(lambda: all(seq == 2 for seq in ports.stats(0)["written_seq"]))
    ports.take(0)
    done = []
    until(lambda: done.extend(good(ports)) or {0, 1} <= {row["block"] for row in done})
    until(lambda: ports.stats(0)["slaves"][0]["exception_codes"][2] >= 1)
    assert ports.stop()
    coils = [newest(done, 0)[i // 16] >> i % 16 & 1 for i in range(40)]
    assert (coils[3], coils[30:34]) == (1, [1, 0, 1, 0])
    assert (newest(done, 1)[10], newest(done, 1)[30:32]) == (4711, [0xDEAD, 0xBEEF])
    assert ports.stats(0)["timeouts"] == 0
    assert ports.stats(0)["slaves"][0]["alive"] == 1


# ---------------------------------------------------------------- connections


def test_a_command_wakes_a_thread_that_has_nothing_to_do(server):
    ports = started(site(server.port, [slave(block(10, 2, poll_class=2), commands=[SETPOINT])]))
    until(lambda: ports.stats(0)["ok"] == 1)
    sleeps = []
    for value in range(1, 6):
        time.sleep(0.05)
        before = ports.sleeps
        ports.put(0, 0, [value], urgent=True)
        until(lambda value=value: server.regs[900] == value)
        sleeps.append(ports.sleeps - before)
    assert ports.stop()
    assert max(sleeps) <= 4, "it was woken, not waiting for its time"


def test_requests_of_several_lanes_are_in_flight_at_once_on_one_connection():
    def slow(request, reply):
        return [(0, reply)]

    served = Server(slow)
    held = []

    def answer_in_reverse(request, reply):
        held.append(reply)
        if len(held) < 3:
            return []
        replies, held[:] = held[::-1], []
        return [(0, one) for one in replies]

    served.spoil = answer_in_reverse
    lanes = [[slave(block(100 * unit, 2), unit_id=unit)] for unit in (1, 2, 3)]
    ports = started(site(served.port, *lanes))
    until(lambda: all(ports.stats(i)["ok"] >= 3 for i in range(3)))
    found = [good(ports, i)[0]["regs"] for i in range(3)]
    ports.stop()
    served.close()
    assert found == [[100, 101], [200, 201], [300, 301]]
    assert len(served.connections) == 1


def test_a_refused_connection_is_lost_with_its_reason_and_comes_back(server):
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    ports = started(site(number, [slave(block(10, 2))]))
    until(lambda: ports.lost(0) == 111)
    until(lambda: ports.stats(0)["slaves"][0]["silent_run"] >= 3)
    assert ports.stats(0)["slaves"][0]["alive"] == 0
    late = Server.__new__(Server)
    threading.Thread.__init__(late, daemon=True)
    late.listener = socket.create_server(("127.0.0.1", number))
    late.regs, late.spoil = {i: i for i in range(100)}, lambda request, reply: [(0, reply)]
    late.requests, late.connections, late.ended = [], [], False
    late.start()
    until(lambda: ports.stats(0)["ok"] >= 2)
    assert TcpPort(ports, 0).lost == 0
    ports.stop()
    late.close()


def test_a_server_that_closes_after_each_reply_is_no_silence(server):
    server.spoil = lambda request, reply: [(0, reply), (0, None)]
    ports = started(site(server.port, [slave(block(10, 4))]))
    until(lambda: ports.stats(0)["ok"] >= 50)
    stats = ports.stats(0)
    ports.stop()
    assert stats["slaves"][0]["alive"] == 1
    assert stats["hangups"] >= 45
    assert stats["timeouts"] <= 6, "until it is known that this server always closes"
    assert ports.lost(0) == 0


def test_a_server_that_closes_without_an_answer_is_asked_ever_more_seldom(server):
    server.spoil = lambda request, reply: [(0, None)]
    ports = started(site(server.port, [slave(block(10, 4))]))
    time.sleep(2.0)
    ports.stop()
    assert ports.stats(0)["ok"] == 0
    assert ports.stats(0)["slaves"][0]["alive"] == 0
    assert 2 <= len(server.connections) <= 12


# ---------------------------------------------------------------- replies that are none


def wrong_id(request, reply):
    return [(0, bytes([reply[0], reply[1] ^ 1]) + reply[2:])]


def far_id(request, reply):
    return [(0, bytes([reply[0] ^ 0x40, reply[1]]) + reply[2:])]


def wrong_unit(request, reply):
    return [(0, reply[:6] + bytes([reply[6] + 1]) + reply[7:])]


def wrong_function(request, reply):
    return [(0, reply[:7] + bytes([4]) + reply[8:])]


def wrong_protocol(request, reply):
    return [(0, reply[:3] + b"\1" + reply[4:])]


def too_short(request, reply):
    return [(0, framed(request, reply[7:-2]))]


def too_long(request, reply):
    return [(0, framed(request, reply[7:] + b"\0\0"))]


def false_count(request, reply):
    return [(0, framed(request, reply[7:8] + bytes([reply[8] - 2]) + reply[9:]))]


def cut(request, reply):
    return [(0, reply[:-3])]


def cut_then_again(request, reply):
    return [(0, reply[:-5] + reply)]


def cut_then_again_later(request, reply):
    return [(0, reply[:-5]), (0.03, reply)]


SPOILS = [
    wrong_id, far_id, wrong_unit, wrong_function, wrong_protocol, too_short, too_long, false_count, cut, cut_then_again,
    cut_then_again_later,
]  # fmt: skip


@pytest.mark.parametrize("spoil", SPOILS, ids=lambda spoil: spoil.__name__)
def test_nothing_is_believed_of_a_reply_that_is_not_the_one_asked_for(server, spoil):
    server.spoil = spoil
    ports = started(site(server.port, [slave(block(10, 4))]))
    until(lambda: ports.stats(0)["slaves"][0]["silent_run"] >= 3 or ports.stats(0)["mismatches"] >= 3)
    assert good(ports) == []
    server.spoil = lambda request, reply: [(0, reply)]
    until(lambda: ports.stats(0)["ok"] >= 3)
    found = good(ports)
    ports.stop()
    assert all(row["regs"] == [10, 11, 12, 13] for row in found)


def test_a_doubled_reply_is_a_stray_and_the_next_is_right(server):
    serial = iter(range(100000))

    def doubled(request, reply):
        number = next(serial)
        body = bytes([3, 4]) + struct.pack(">HH", number, number)
        return [(0, framed(request, body)), (0, framed(request, body))]

    server.spoil = doubled
    ports = started(site(server.port, [slave(block(10, 2))]))
    until(lambda: ports.stats(0)["ok"] >= 20)
    found = [row["regs"] for row in good(ports)]
    ports.stop()
    assert found == [[number, number] for number in range(found[0][0], found[0][0] + len(found))]
    assert ports.stats(0)["strays"] >= 19


def test_a_command_that_is_put_while_the_only_request_is_in_flight_goes_next(server):
    server.spoil = lambda request, reply: [(0.15 if request[7] == 3 else 0, reply)]  # longer than one sleep in the read
    ports = started(site(server.port, [slave(block(10, 2), commands=[SETPOINT])]))
    until(lambda: ports.stats(0)["ok"] >= 1)
    for value in range(1, 6):
        before = len(server.requests)
        until(lambda before=before: len(server.requests) > before)  # the next read is in flight
        asked = len(server.requests)
        ports.put(0, 0, [value])
        until(lambda value=value: server.regs[900] == value)
        reads = [one for one in server.requests[asked:] if one[7] == 3]
        written = next(i for i, one in enumerate(server.requests[asked:]) if one[7] == 16)
        assert written <= 1, (written, reads)
    assert ports.stop()


def test_a_reply_in_slow_pieces_is_waited_for_and_believed(server):
    server.spoil = lambda request, reply: [(0, reply[:7]), (0.07, reply[7:9]), (0.07, reply[9:])]
    ports = started(site(server.port, [slave(block(10, 2), timeout_ns=5000 * MS)]))
    until(lambda: ports.stats(0)["ok"] >= 5)
    stats, found = ports.stats(0), good(ports)
    ports.stop()
    assert found and all(row["regs"] == [10, 11] for row in found)
    assert stats["strays"] == stats["hangups"] == stats["slaves"][0]["timeouts"] == 0


def test_the_end_does_not_wait_for_a_reply_that_never_comes(server):
    server.spoil = lambda request, reply: []
    ports = started(site(server.port, [slave(block(10, 2), timeout_ns=600_000 * MS, commands=[SETPOINT])]))
    until(lambda: server.requests)
    ports.put(0, 0, [1])
    ended = threading.Thread(target=ports.stop, args=(0.2,))
    ended.start()
    ended.join(60.0)
    assert not ended.is_alive(), "it sleeps in the read for longer than its slice"


def test_a_late_reply_answers_no_later_request(server):
    serial = iter(range(100000))

    def late(request, reply):
        number = next(serial)
        body = bytes([3, 4]) + struct.pack(">HH", number, number)
        return [(0.4 if number % 5 == 4 else 0, framed(request, body))]

    server.spoil = late
    ports = started(site(server.port, [slave(block(10, 2))]))
    until(lambda: ports.stats(0)["ok"] >= 30)
    found = [row["regs"][0] for row in good(ports)]
    stats = ports.stats(0)
    ports.stop()
    assert found == sorted(set(found))
    assert not any(number % 5 == 4 for number in found)
    assert stats["strays"] >= 3
    assert stats["slaves"][0]["alive"] == 1


def test_a_gateway_that_answers_for_a_dead_device_leaves_it_silent_and_its_neighbour_alive(server):
    dead = {2}

    def gateway(request, reply):
        if request[6] in dead:
            return [(0, framed(request, bytes([request[7] | 0x80, 11])))]
        return [(0, reply)]

    server.spoil = gateway
    ports = started(site(server.port, [slave(block(10, 2)), slave(block(20, 3), unit_id=2)]))
    until(lambda: ports.stats(0)["slaves"][1]["silent_run"] >= 3 and ports.stats(0)["slaves"][0]["ok"] >= 20)
    first, second = ports.stats(0)["slaves"]
    assert (first["alive"], second["alive"]) == (1, 0)
    assert second["exception_codes"][11] >= 3
    dead.clear()
    until(lambda: ports.stats(0)["slaves"][1]["alive"] == 1)
    ports.stop()


def test_unit_255_is_the_device_itself(server):
    ports = started(site(server.port, [slave(block(10, 2), unit_id=255)], [slave(block(30, 2), unit_id=0)]))
    until(lambda: all(ports.stats(i)["ok"] >= 2 for i in range(2)))
    found = [good(ports, i)[0]["regs"] for i in range(2)]
    ports.stop()
    assert found == [[10, 11], [30, 31]]


def test_another_device_than_yesterday_is_read_and_not_written_to(server):
    """Identity words: what answers at the address has been exchanged while the connection was away."""
    field = {"point": "d.p0", "offset": 0, "type": 0, "min": 10, "max": 10, "flags": program.FIELD_FLAGS["identity"]}
    rows = slave(block(10, 2, fields=[field], poll_class=2), block(20, 2), commands=[SETPOINT])
    ports = started(site(server.port, [rows]))
    until(lambda: ports.stats(0)["ok"] >= 3)
    ports.put(0, 0, [5])
    until(lambda: server.regs[900] == 5)
    server.regs[10] = 77
    server.spoil = lambda request, reply: [(0, None)]
    until(lambda: ports.stats(0)["slaves"][0]["alive"] == 0)
    server.spoil = lambda request, reply: [(0, reply)]
    until(lambda: ports.stats(0)["slaves"][0]["identity_mismatch"] == 1)
    ports.put(0, 0, [6])
    time.sleep(0.3)
    assert server.regs[900] == 5
    server.regs[10] = 10
    until(lambda: server.regs[900] == 6)
    ports.stop()


# ---------------------------------------------------------------- RTU over TCP


class RtuServer(Server):
    """RTU frames over TCP, as a serial gateway passes them on."""

    def serve(self, connection):
        try:
            while True:
                request = connection.recv(4096)
                if not request:
                    return
                self.requests.append(request)
                inner = self.reply(b"\0\0\0\0\0\0" + request[:-2])[6:]
                for pause_s, data in self.spoil(request, inner + struct.pack("<H", crc(inner))):
                    time.sleep(pause_s)
                    if data is None:
                        return
                    connection.sendall(data)
        except OSError:
            return
        finally:
            connection.close()


def test_rtu_frames_over_tcp_go_through_the_engine_of_the_serial_ports():
    served = RtuServer()
    ports = started(site(served.port, [slave(block(10, 4), commands=[SETPOINT])], transport="rtu-tcp", baud=115200))
    until(lambda: ports.stats(0)["ok"] >= 5)
    ports.put(0, 0, [9])
    until(lambda: served.regs[900] == 9)
    served.spoil = lambda request, reply: [(0, reply[:-1] + bytes([reply[-1] ^ 1]))]
    until(lambda: ports.stats(0)["crc_errors"] >= 2)
    served.spoil = lambda request, reply: [(0, None)]
    until(lambda: ports.stats(0)["hangups"] >= 1)
    served.spoil = lambda request, reply: [(0, reply)]
    before = ports.stats(0)["ok"]
    until(lambda: ports.stats(0)["ok"] >= before + 5)
    found = good(ports)
    ports.stop()
    served.close()
    assert all(row["regs"] == [10, 11, 12, 13] for row in found)


# ---------------------------------------------------------------- an older kernel

SHIM = "#include <errno.h>\nint epoll_pwait2(void) { errno = ENOSYS; return -1; }\n"
BEFORE_5_11 = """
    import sys, time
    from tests.ext.bus.test_tcp import block, good, site, slave, started, until
    ports = started(site(int(sys.argv[1]), [slave(block(100, 4))]))
    until(lambda: ports.stats(0)["ok"] >= 5)
    before = ports.sleeps
    time.sleep(1.0)
    print(ports.stats(0)["timeouts"], ports.sleeps - before)
    ports.stop(0.0)
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_a_kernel_without_the_exact_wait_is_waited_on_and_not_asked_without_end(tmp_path):
    source, library = tmp_path / "shim.c", tmp_path / "shim.so"
    source.write_text(SHIM)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    server = Server()
    try:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(BEFORE_5_11), str(server.port)],
            env={**os.environ, "LD_PRELOAD": str(library)}, cwd=Path(__file__).parents[3],
            capture_output=True, text=True,
        )  # fmt: skip
    finally:
        server.close()
    assert done.returncode == 0, done.stderr
    timeouts, sleeps = map(int, done.stdout.split())
    assert timeouts == 0 and sleeps < 2000  # some two for each of 50 reads, and not one for each moment
