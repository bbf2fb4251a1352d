"""The simulated plant as a process: masters that we did not write read it, and it ends as it is told."""

import itertools
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from importlib.resources import files

import pytest
from pymodbus.client import ModbusSerialClient

from tidegate.config.compile import compile_site
from tidegate.config.site import load_site

SITE = files("tidegate.config").joinpath("demo/site.toml")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("sim") / "demo.program"
    path.write_bytes(compile_site(load_site(str(SITE))))
    return path


class Sim:
    """One sim process with its JSON lines."""

    def __init__(self, program, *words, pass_fds=()):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tidegate.hal.sim", "--program", str(program), "--site", str(SITE), *words],
            stdout=subprocess.PIPE, text=True, pass_fds=pass_fds,
        )  # fmt: skip
        self.ready = json.loads(self.process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(5)
        self.process.stdout.close()

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=10)
        return json.loads(out.splitlines()[-1])


@pytest.fixture
def sim(program):
    with Sim(program, "--serial", "meters=pty", "--serial", "pcs=pty", "--start-s", "300") as found:
        yield found


def master(path):
    found = ModbusSerialClient(path, baudrate=115200, timeout=2)
    assert found.connect()
    return found


def float_of(answer):
    return struct.unpack(">f", struct.pack(">HH", *answer.registers))[0]


def test_pymodbus_reads_the_meters(sim):
    client = master(sim.ready["ptys"]["meters"])
    grid_w = float_of(client.read_input_registers(0x34, count=2, device_id=1))
    cooling_w = float_of(client.read_input_registers(0x34, count=2, device_id=2))
    assert 15e3 < grid_w < 70e3 and 0.05 < cooling_w / (grid_w - cooling_w) < 0.2
    assert float_of(client.read_input_registers(0x46, count=2, device_id=1)) == 50.0
    client.close()


def test_pymodbus_gets_exceptions_for_what_does_not_exist(sim):
    client = master(sim.ready["ptys"]["meters"])
    assert client.read_input_registers(5000, count=2, device_id=1).exception_code == 2
    assert client.read_holding_registers(0, count=2, device_id=1).exception_code == 2
    assert client.write_register(0, 1, device_id=1).exception_code == 2
    client.close()


def test_pymodbus_walks_the_sunspec_chain_to_its_end(sim):
    client = master(sim.ready["ptys"]["pcs"])
    assert client.read_holding_registers(40000, count=2, device_id=1).registers == [0x5375, 0x6E53]
    at, models = 40002, []
    while True:
        number, length = client.read_holding_registers(at, count=2, device_id=1).registers
        if number == 0xFFFF:
            break
        models.append(number)
        at += 2 + length
    assert models[0] == 1 and {701, 704} <= set(models)
    client.close()


def test_pymodbus_commands_the_converter_and_sees_the_grid_follow(sim):
    pcs, meters = master(sim.ready["ptys"]["pcs"]), master(sim.ready["ptys"]["meters"])
    at, where = 40002, {}
    while (head := pcs.read_holding_registers(at, count=2, device_id=1).registers)[0] != 0xFFFF:
        where[head[0]] = at
        at += 2 + head[1]
    before_w = float_of(meters.read_input_registers(0x34, count=2, device_id=1))
    for model, offset, words in ((715, 8, [1]), (704, 23, [1]), (704, 22, [1]), (704, 24, [0, 10000])):
        assert not pcs.write_registers(where[model] + offset, words, device_id=1).isError()
    scale = pcs.read_holding_registers(where[704] + 55, count=1, device_id=1).registers[0]
    wanted_w = 10000 * 10.0 ** struct.unpack(">h", struct.pack(">H", scale))[0]
    time.sleep(0.3)
    after_w = float_of(meters.read_input_registers(0x34, count=2, device_id=1))
    assert before_w - after_w == pytest.approx(wanted_w, abs=200.0)
    pcs.close()
    meters.close()
    row = sim.end()["converters"][0]
    assert row["setpoint_w"] == wanted_w and row["writes"] >= 2


def test_replies_take_the_time_that_their_bytes_take(program):
    """At 115200 baud 72 registers and their request are 157 characters: no faster on a pty than on a wire."""
    with Sim(program, "--serial", "meters=pty") as sim:
        client = master(sim.ready["ptys"]["meters"])
        client.read_input_registers(0, count=72, device_id=1)
        started = time.monotonic()
        for _ in range(10):
            client.read_input_registers(0, count=72, device_id=1)
        assert time.monotonic() - started >= 10 * 157 * 10 / 115200
        client.close()


def test_the_true_spans_hold_a_peak_that_no_look_at_the_plant_meets(program, tmp_path):
    load = tmp_path / "load.csv"
    load.write_text("t_s,load_w\n0,30000\n2.0,55000\n2.02,30000\n")  # 20 ms
    with Sim(program, "--load", str(load), "--load-column", "load_w", "--true-hz", "2") as sim:
        rows = [json.loads(sim.process.stdout.readline())]
        while rows[-1]["t_s"] < 4.0:
            rows.append(json.loads(sim.process.stdout.readline()))
    spans = [span for row in rows for span in row["grid_spans"]]
    high = [most_w for _, _, most_w, _ in spans if most_w > spans[0][2] + 20e3]
    assert 1 <= len(high) <= 2 and high[0] == pytest.approx(spans[0][2] + 25e3, abs=5e3)
    began = 0
    for (before_ns, _, _, before_ws), (end_ns, least_w, most_w, drawn_ws) in itertools.pairwise(spans):
        seconds = (end_ns - before_ns) / 1e9
        assert seconds == pytest.approx(0.05, abs=1e-6)
        assert least_w * seconds - 1.0 <= drawn_ws - before_ws <= most_w * seconds + 1.0
        began += 1
    assert began >= 60


@pytest.mark.skipif(shutil.which("mbpoll") is None, reason="mbpoll is not installed")
def test_mbpoll_reads_the_meter(sim):
    found = subprocess.run(
        ["mbpoll", "-m", "rtu", "-a", "1", "-b", "115200", "-P", "none", "-t", "3:float", "-B", "-0", "-r", "70",
         "-c", "1", "-1", sim.ready["ptys"]["meters"]],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert found.returncode == 0 and "50" in found.stdout, found.stdout + found.stderr


def test_bms_frames_come_on_their_period_and_plain_decode_agrees(program):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with Sim(program, "--can", f"bms={theirs.fileno()}", pass_fds=[theirs.fileno()]):
        theirs.close()
        ours.settimeout(3)
        seen: dict[int, list[bytes]] = {}
        until = time.monotonic() + 1.2
        while time.monotonic() < until:
            ident, length, data = struct.unpack("=IB3x8s", ours.recv(16))
            seen.setdefault(ident, []).append(data[:length])
    assert {0x351, 0x355, 0x356} <= set(seen)
    assert 8 <= len(seen[0x351]) <= 14  # every 100 ms for 1.2 s
    soc, soh = struct.unpack_from("<HH", seen[0x355][-1])
    pack_v, pack_a, temp = struct.unpack_from("<Hhh", seen[0x356][-1])
    assert soc == 80 and soh == 100 and 700 < pack_v * 0.1 < 850 and abs(pack_a) < 20 and 0 < temp * 0.1 < 60
    ours.close()


def test_ends_when_its_control_descriptor_is_closed(program):
    ours, theirs = os.pipe()
    with Sim(program, "--control-fd", str(ours), pass_fds=[ours]) as sim:
        os.close(ours)
        os.close(theirs)
        out, _ = sim.process.communicate(timeout=10)
        assert sim.process.returncode == 0 and json.loads(out.splitlines()[-1])["kind"] == "result"


def test_bad_words_are_refused_by_name(program):
    for words, said in ((["--serial", "nowhere=pty"], "nowhere"), (["--load", "missing.csv"], "missing.csv")):
        found = subprocess.run(
            [sys.executable, "-m", "tidegate.hal.sim", "--program", str(program), "--site", str(SITE), *words],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
        assert found.returncode == 2 and said in found.stderr


INTERRUPTED = """
import signal
from tidegate.hal.sim.__main__ import End
end, times = End(), 0
def handler(*_):
    global times
    times += 1
    end.set()
    signal.setitimer(signal.ITIMER_REAL, 0.0002 if times < 2000 else 0)
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.0002)
while times < 2000:
    end.wait(0.0)
print(end.wait(None))
"""


def test_a_signal_may_interrupt_the_wait_for_the_end():
    """A threading.Event in this place waits for its own lock within the first few hundred signals."""
    found = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout == "True\n"
