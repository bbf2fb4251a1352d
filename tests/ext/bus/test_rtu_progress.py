"""No slave starves: a slice of tests/fuzz/rtu_progress.pyx (`make progress`: 10^5 mixes), and ways to starve one."""

from itertools import pairwise

import pytest

from tests.ext.bus.test_rtu import MS, SETPOINT, Device, Line, block, site, slave
from tests.ext.bus.test_rtu_storm import load
from tidegate.ext.bus.rtu_view import LIMITS


@pytest.fixture(scope="module")
def progress():
    return load("run_progress")


@pytest.mark.parametrize("first", range(0, 300, 50))
def test_every_slave_is_asked_within_its_bound(progress, first):
    found = {seed: progress.one(seed) for seed in range(first, first + 50)}
    assert not {seed: one["story"] for seed, one in found.items() if one["starved"]}
    assert sum(one["requests"] for one in found.values()) > 10_000, "a line on which nothing happens starves nobody"


def test_the_bound_is_no_cushion(progress):
    """A bound that is far off would hide a slave that waits for too long."""
    assert max(progress.one(seed)["ratio"] for seed in range(100)) > 0.5


@pytest.mark.parametrize("others", [2, 3, 5])
@pytest.mark.parametrize("silent_ms", [500, 2000])
def test_a_meter_that_was_silent_is_read_again_whatever_the_others_do(others, silent_ms):
    devices = [Device(unit) for unit in range(1, others + 2)]
    line = Line(site([slave(unit, block(0, 10)) for unit in range(1, others + 2)]), *devices).run(1000 * MS)
    devices[0].silent = True
    line.run(line.t + silent_ms * MS)
    devices[0].silent = False
    line.done.clear()
    line.run(line.t + LIMITS["backoff"] + 1000 * MS)
    read = [row["block"] for row in line.good()]
    assert read.count(0) > 0.5 * read.count(1) / (silent_ms / 500), "it was read again and has its share"


def test_a_slave_whose_writes_begin_a_pause_is_still_polled():
    slow = Device(1, turn_ns=90 * MS)
    line = Line(site([slave(1, block(0, 10), commands=[SETPOINT]), slave(2, block(0, 10))]), slow, Device(2))
    line.run(500 * MS)
    slow.mangle = lambda reply: reply[:-1] + b"\0" if reply[1] == 16 else reply
    slow.log.clear()
    for i in range(5000):
        line.engine.put(0, [i + 1], line.t, urgent=True)
        line.run(line.t + MS)
    asked = [function for function, _, _ in slow.log]
    assert asked.count(3) >= 5
    assert asked.count(16) >= 5


def test_zeros_that_change_all_the_time_leave_room_for_the_polls():
    line = Line(site([slave(1, block(0, 10), commands=[SETPOINT])]), Device(1)).run(20 * MS)
    for _ in range(500):
        line.engine.put(0, [0], line.t, urgent=True)
        line.run(line.t + MS)
    kinds = [frame[1] for frame in line.frames()][-40:]
    assert 18 <= kinds.count(16) <= 22


def test_constants_that_are_never_taken_leave_room_for_the_polls():
    broken, meter = Device(1), Device(2)
    broken.mangle = lambda reply: reply[:-1] + b"\0" if reply[1] == 16 else reply
    consts = [{"kind": 0, "function": 16, "address": 800 + i, "value": 5.0} for i in range(16)]
    line = Line(site([slave(1, block(0, 10), commands=consts), slave(2, block(0, 10))]), broken, meter)
    line.run(5000 * MS)
    assert len(meter.log) > 0.25 * len(broken.log)


def test_a_tool_that_asks_all_the_time_leaves_every_second_turn_to_the_polls():
    line = Line(site([slave(1, block(0, 10))]), Device(1)).run(100 * MS)
    before = len(line.sent)
    asked = 0
    while line.t < 500 * MS:
        if line.engine.answer() is not None or not asked:
            asked += line.engine.ask(bytes([1, 3, 0, 50, 0, 1]))
        line.run(line.t + 100_000)
    polls = sum(frame[3] == 0 for _, _, frame in line.sent[before:])
    assert polls >= 0.4 * len(line.sent[before:])


def test_one_value_that_changes_each_cycle_leaves_room_for_the_others():
    commands = [{**SETPOINT, "address": 900 + 10 * i} for i in range(4)]
    device = Device(1)
    line = Line(site([slave(1, block(0, 10, period_ns=2000 * MS), commands=commands)]), device).run(500 * MS)
    device.log.clear()
    for i in range(1500):
        line.engine.put(0, [i + 1], line.t, urgent=True)
        line.engine.put(1, [i + 1], line.t, urgent=True)
        line.engine.put(2, [i + 1], line.t)
        if i % 100 == 0:
            line.engine.put(3, [i + 1], line.t)
        line.run(line.t + MS)
    written = [address for function, address, _ in device.log if function == 16]
    assert min(written.count(900 + 10 * i) for i in range(3)) > 0
    assert written.count(930) >= 1


def test_what_is_read_once_is_looked_at_again():
    line = Line(site([slave(1, block(0, 10, period_ns=1000 * MS), block(50, 4, poll_class=2))]), Device(1))
    line.run(3 * LIMITS["once"])
    assert [address for _, address, _ in line.devices[1].log].count(50) in (3, 4)


def test_looking_at_the_identity_again_keeps_no_setpoint_back():
    fast, slow = block(0, 117, signature=1, signature_word=1000), block(300, 20, poll_class=1, period_ns=1000 * MS)
    once = [block(400 + 20 * i, 1 + i, poll_class=2) for i in range(3)]
    line = Line(site([slave(1, fast, slow, *once, commands=[SETPOINT])]), Device(1)).run(LIMITS["once"] - 1000 * MS)
    line.sent.clear()
    for i in range(3000):
        line.engine.put(0, [i + 1], line.t, urgent=True)
        line.run(line.t + MS)
    assert {frame[3] for _, _, frame in line.sent if frame[2] == 1} >= {400 - 256, 420 - 256, 440 - 256}
    written = [start for start, _, frame in line.sent if frame[1] == 16]
    usual = sorted(b - a for a, b in pairwise(written))[len(written) // 2]
    assert max(b - a for a, b in pairwise(written)) < 4 * usual


def test_many_dead_slaves_leave_half_of_the_line_to_the_living():
    slaves = [slave(unit, block(0, 10)) for unit in range(1, 21)]
    line = Line(site(slaves), Device(1)).run(60_000 * MS)
    living = [start for start, _, frame in line.sent if frame[0] == 1]
    gaps = [b - a for a, b in pairwise(living)]
    assert max(gaps[100:]) < 2 * 100 * MS, "at most one time-out in a row"
    assert {frame[0] for _, _, frame in line.sent[-400:]} >= {1}
    assert {frame[0] for _, _, frame in line.sent} == set(range(1, 21))
