"""The port thread on real descriptors: ptys, a slave that nobody here wrote, and a line that keeps its pace."""

import os
import select
import struct
import threading
import time
import tty

import pytest

from tidegate.ext.abi import program
from tidegate.ext.bus.port import Port
from tidegate.ext.bus.rtu_view import crc

MS = 1_000_000
SETPOINT = {"kind": 1, "function": 16, "address": 900, "unit": 0, "type": 1}


def site(slaves, baud=115200, **port):
    points = [{"name": f"d.p{i}", "unit": "W"} for i in range(4)]
    row = {"baud": baud, "gap_rule": 1, **port, "slaves": slaves}
    return program.pack({"points": points, "units": [{"energy_wh": 1.0}], "ports": [row]})


def slave(*blocks, commands=(), **row):
    return {"unit_id": 1, "timeout_ns": 300 * MS, "blocks": list(blocks), "commands": list(commands), **row}


def block(address, count, **row):
    return {"function": 3, "address": address, "count": count, "fields": [], **row}


class Slave(threading.Thread):
    """Answers functions 3 and 16 on one end of a pty, at once."""

    def __init__(self, fd):
        super().__init__(daemon=True)
        self.fd, self.regs, self.requests, self.silent, self.ended = fd, dict.fromkeys(range(2000), 7), [], False, False

    def run(self):
        held = b""
        while not self.ended:
            if not select.select([self.fd], [], [], 0.02)[0]:
                continue
            held += os.read(self.fd, 512)
            while len(held) >= 8 and (held[1] != 16 or len(held) >= 9 + held[6]):
                length = 8 if held[1] != 16 else 9 + held[6]
                frame, held = held[:length], held[length:]
                self.requests.append((time.monotonic_ns(), frame))
                if not self.silent:
                    os.write(self.fd, self.answer(frame))

    def answer(self, frame):
        address, count = struct.unpack(">HH", frame[2:6])
        if frame[1] == 3:
            body = frame[:2] + bytes([2 * count])
            body += b"".join(struct.pack(">H", self.regs[address + i]) for i in range(count))
        else:
            for i in range(count):
                self.regs[address + i] = struct.unpack(">H", frame[7 + 2 * i : 9 + 2 * i])[0]
            body = frame[:6]
        return body + struct.pack("<H", crc(body))


def on_a_line(kind):
    """(the master's descriptor, a slave of this kind at the other end), until the generator goes on."""
    ours, theirs = os.openpty()
    tty.setraw(ours)
    tty.setraw(theirs)
    device = kind(ours)
    device.start()
    yield theirs, device
    device.ended = True
    device.join()
    os.close(theirs)
    os.close(ours)


@pytest.fixture
def line():
    yield from on_a_line(Slave)


def wait(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def test_blocks_come_with_the_registers_of_the_slave(line):
    fd, device = line
    device.regs.update({10: 4660, 11: 22136})
    port = Port(site([slave(block(10, 2, period_ns=20 * MS))]), 0, fd)
    port.start()
    wait(lambda: port.stats["ok"] >= 3)
    port.stop()
    done = [row for row in port.take() if row["status"] == "ok"]
    assert done
    assert all(row["regs"] == [4660, 22136] for row in done)
    assert all(row["t_sample_ns"] <= row["t_done_ns"] for row in done)


def test_it_says_which_priority_it_got(line):
    port = Port(site([slave(block(10, 2))]), 0, line[0])
    port.start(priority=10)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        allowed = 10
    except PermissionError:
        allowed = 0
    assert port.fifo == allowed
    port.stop()


def test_a_command_wakes_a_port_that_has_nothing_to_do(line):
    fd, device = line
    port = Port(site([slave(block(10, 2, poll_class=2), commands=[SETPOINT])]), 0, fd)
    port.start()
    wait(lambda: port.stats["ok"] == 1)
    time.sleep(0.05)  # it sleeps now, for 200 ms at a time
    delays = []
    for value in range(1, 9):
        before = len(device.requests)
        t_put = time.monotonic_ns()
        port.put(0, [value], urgent=True)
        wait(lambda seen=before: len(device.requests) > seen)
        delays.append(device.requests[-1][0] - t_put)
        wait(lambda: port.stats["written_seq"][0] == 2 * value)  # noqa: B023
    assert sorted(delays)[len(delays) // 2] < 50 * MS, "without the bell this is 100 ms on average"
    port.stop()
    assert device.regs[900] == 8


def test_an_idle_port_sleeps(line):
    port = Port(site([slave(block(10, 2, period_ns=1000 * MS))]), 0, line[0])
    port.start()
    wait(lambda: port.stats["ok"] >= 1)
    time.sleep(0.1)
    before = port.sleeps
    time.sleep(0.6)
    assert port.sleeps - before < 20
    port.stop()


def test_stop_waits_for_the_newest_setpoint(line):
    fd, device = line
    port = Port(site([slave(block(10, 60), commands=[SETPOINT])]), 0, fd)
    port.start()
    wait(lambda: port.stats["ok"] >= 1)
    port.put(0, [1234], urgent=True)
    port.put(0, [0], urgent=True)
    assert port.stop(drain_s=5.0)
    assert device.regs[900] == 0
    last = device.requests[-1][1]
    assert last[1] == 16


def test_stop_gives_up_after_its_time_when_the_slave_is_silent(line):
    fd, device = line
    port = Port(site([slave(block(10, 2), commands=[SETPOINT])]), 0, fd)
    port.start()
    wait(lambda: port.stats["ok"] >= 1)
    device.silent = True
    port.put(0, [0], urgent=True)
    assert not port.stop(drain_s=0.2)


def test_a_thread_that_runs_is_not_started_twice_and_starts_again_after_a_stop(line):
    fd, _ = line
    port = Port(site([slave(block(10, 2))]), 0, fd)
    port.start()
    with pytest.raises(RuntimeError, match="runs already"):
        port.start()
    assert port.stop()
    assert port.stop()
    port.start()
    wait(lambda: port.stats["ok"] >= 1)
    port.stop()


def test_a_descriptor_that_is_none_is_refused():
    fd = os.open("/dev/null", os.O_RDWR)
    os.close(fd)
    with pytest.raises(OSError, match="did not start"):
        Port(site([slave(block(10, 2))]), 0, fd).start()


def test_a_port_that_is_not_in_the_program_is_refused():
    with pytest.raises(IndexError, match="the program has 1"):
        Port(site([slave(block(10, 2))]), 1, 0)


def test_a_line_that_hangs_up_is_reported_and_costs_no_cpu():
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    port = Port(site([slave(block(10, 2))]), 0, ours)
    port.start()
    os.close(theirs)
    wait(lambda: port.stats["thread_lost"] != 0)
    wait(lambda: port.stats["timeouts"] >= 1)
    before, t = port.cpu_ns, time.monotonic_ns()
    time.sleep(0.5)
    assert port.cpu_ns - before < 0.2 * (time.monotonic_ns() - t)
    assert not port.stats["ok"]
    port.stop(0.1)
    os.close(ours)


def test_garbage_before_a_request_is_flushed_and_counted(line):
    fd, device = line
    port = Port(site([slave(block(10, 2, period_ns=100 * MS))]), 0, fd)
    port.start()
    wait(lambda: port.stats["ok"] >= 1)
    os.write(device.fd, b"\x55" * 9)
    wait(lambda: port.stats["foreign_bytes"] >= 9)
    good = port.stats["ok"]
    wait(lambda: port.stats["ok"] > good + 1)
    assert port.stats["crc_errors"] == port.stats["mismatches"] == 0
    port.stop()


class TurnsRound(Slave):
    """Its line driver leaves bytes on the line before each reply, so much earlier."""

    stray, apart_s = b"\x00", 0.0

    def answer(self, frame):
        reply = super().answer(frame)
        if not self.apart_s:
            return self.stray + reply
        os.write(self.fd, self.stray)
        time.sleep(self.apart_s)
        return reply


@pytest.fixture
def turning():
    yield from on_a_line(TurnsRound)


def answered(theirs, blob, least=20, within_s=8.0):
    """Stats of a port once so many readings were good, or when the time is over."""
    port = Port(blob, 0, theirs)
    port.put(0, [5], urgent=True)
    port.start()
    until = time.monotonic() + within_s
    while time.monotonic() < until and port.stats["reads"] < least:
        time.sleep(0.02)
    port.stop(0.5)
    return port.stats


@pytest.mark.parametrize("stray", [b"\x00", b"\xff\x00", b"\x01", b"\x01\x03\x00"])
def test_a_stray_byte_that_a_silence_parts_from_the_reply_is_ignored(turning, stray):
    theirs, device = turning
    device.stray, device.apart_s = stray, 0.005
    stats = answered(theirs, site([slave(block(0, 10), commands=[SETPOINT])]))
    assert stats["reads"] >= 20
    assert device.regs[900] == 5
    assert stats["slaves"][0]["foreign_bytes"] >= 20 * len(stray)


@pytest.mark.parametrize("stray", [b"\x00", b"\xff\x00", b"\x01", b"\x00\x00\x00"])
def test_a_stray_byte_that_touches_the_reply_needs_the_option_of_the_bus(turning, stray):
    theirs, device = turning
    device.stray = stray
    without = answered(theirs, site([slave(block(0, 10), commands=[SETPOINT])]), within_s=1.0)
    assert without["reads"] == 0
    assert without["slaves"][0]["lead_ins"] > 0

    with_option = answered(theirs, site([slave(block(0, 10), commands=[SETPOINT])], lead_in=len(stray)))
    assert with_option["reads"] >= 20
    assert device.regs[900] == 5
    assert with_option["slaves"][0]["lead_ins"] == 0


def test_the_option_does_not_believe_another_reply_nor_a_longer_lead_in(turning):
    theirs, device = turning
    device.stray = b"\x00\x00"
    assert answered(theirs, site([slave(block(0, 10), commands=[SETPOINT])], lead_in=1), within_s=1.0)["reads"] == 0
    device.stray = b"\x00"
    device.answer = lambda frame: b"\x00" + Slave.answer(device, frame)[:-2] + b"\x12\x34"  # its checksum is wrong
    stats = answered(theirs, site([slave(block(0, 10), commands=[SETPOINT])], lead_in=1), within_s=1.0)
    assert stats["reads"] == 0
    assert stats["crc_errors"] > 0
