"""The RTU engine on a made-up line: what goes out, when, and what is believed. Time is a number that the test moves."""

import struct
from collections import deque
from itertools import pairwise

import pytest

from tidegate.ext.abi import program
from tidegate.ext.bus.rtu_view import Engine, crc

MS = 1_000_000
CHAR_NS = 86_806  # 10 bits at 115200
GAP_NS = 303_821  # 3.5 of them


def site(slaves, **port):
    points = [{"name": f"d.p{i}", "unit": "W"} for i in range(8)]
    row = {"baud": 115200, "gap_rule": 1, **port, "slaves": slaves}
    return program.pack({"points": points, "units": [{"energy_wh": 1.0}], "ports": [row]})


def slave(unit, *blocks, commands=(), **row):
    return {"unit_id": unit, "timeout_ns": 100 * MS, "blocks": list(blocks), "commands": list(commands), **row}


def block(address, count, **row):
    return {"function": 3, "address": address, "count": count, "fields": [], **row}


def sealed(*parts):
    frame = b"".join(bytes([part]) if isinstance(part, int) else part for part in parts)
    return frame + struct.pack("<H", crc(frame))


class Device:
    """Holds registers and answers as the standard says; `silent`, `turn_ns` and `mangle` make it worse."""

    def __init__(self, unit, turn_ns=MS):
        self.unit, self.turn_ns, self.silent, self.mangle = unit, turn_ns, False, lambda reply: reply
        self.regs = {i: (unit * 1000 + i) & 0xFFFF for i in range(65536)}
        self.log = []

    def answer(self, frame):
        unit, function = frame[0], frame[1]
        assert crc(frame[:-2]) == struct.unpack("<H", frame[-2:])[0], "the engine sent a wrong CRC"
        address, count = struct.unpack(">HH", frame[2:6])
        self.log.append((function, address, count))
        if self.silent:
            return b""
        if function in (3, 4):
            data = b"".join(struct.pack(">H", self.regs[address + i]) for i in range(count))
            return self.mangle(sealed(unit, function, len(data), data))
        if function == 6:
            self.regs[address] = count
            return self.mangle(frame)
        if function == 16:
            for i in range(count):
                self.regs[address + i] = struct.unpack(">H", frame[7 + 2 * i : 9 + 2 * i])[0]
            return self.mangle(sealed(frame[:6]))
        return sealed(unit, function | 0x80, 1)


class Line:
    """Engine and devices on one wire with true byte times. Every request is kept as (start, end, frame)."""

    def __init__(self, blob, *devices):
        self.engine = Engine(blob)
        self.devices = {device.unit: device for device in devices}
        self.t, self.sent, self.done, self.bytes, self.quiet_since = 0, [], [], deque(), 0
        self.echo = False

    def reply(self, frame, end):
        device = self.devices.get(frame[0])
        answer = device.answer(frame) if device else b""
        if self.echo:
            self.bytes.append((end, frame))
        if answer:
            self.bytes.append((end + device.turn_ns + len(answer) * self.engine.char_ns, answer))

    def run(self, until):
        while self.t < until:
            what, at, more = self.engine.next(self.t)
            self.done += self.engine.take()
            if what == "send":
                end = self.t + len(more) * self.engine.char_ns
                self.sent.append((self.t, end, more))
                self.engine.sent(end)
                self.reply(more, end)
                continue
            if self.bytes and self.bytes[0][0] <= min(at, until):
                self.t, data = self.bytes.popleft()
                self.engine.receive(data, self.t)
                self.done += self.engine.take()
                continue
            self.t = max(min(at, until), self.t + 1)
        return self

    def frames(self, function=None):
        return [frame for _, _, frame in self.sent if function in (None, frame[1])]

    def good(self):
        return [row for row in self.done if row["status"] == "ok"]


def test_crc_is_that_of_the_standard():
    assert crc(bytes.fromhex("010400000002")) == 0xCB71


def test_a_block_arrives_with_its_registers_and_the_time_of_its_first_byte():
    line = Line(site([slave(1, block(100, 10))]), Device(1)).run(20 * MS)
    first = line.good()[0]
    assert first["regs"] == list(range(1100, 1110))
    end = line.sent[0][1]
    assert first["t_sample_ns"] == end + MS
    assert first["t_done_ns"] == end + MS + 25 * CHAR_NS


def test_silence_before_each_request_is_the_rule_of_the_bus():
    for rule, gap in (({"gap_rule": 1}, GAP_NS), ({"gap_rule": 0}, 1_750_000), ({"gap_rule": 2, "gap_ns": 777}, 777)):
        line = Line(site([slave(1, block(0, 10))], **rule), Device(1)).run(100 * MS)
        ends = [end + MS + 25 * CHAR_NS for _, end, _ in line.sent]
        assert len(ends) > 10
        assert all(0 <= start - end - gap <= 1 for (start, _, _), end in zip(line.sent[1:], ends, strict=False))


def test_period_is_kept_and_fast_blocks_do_not_starve_slow_ones():
    fast, slow = block(0, 10), block(200, 30, period_ns=50 * MS, poll_class=1)
    line = Line(site([slave(1, fast, slow)]), Device(1)).run(1000 * MS)
    asked = [address for _, address, _ in line.devices[1].log]
    assert 19 <= asked.count(200) <= 21
    assert asked.count(0) > 150


def test_a_block_read_once_is_read_before_all_others_and_not_again():
    line = Line(site([slave(1, block(0, 10), block(50, 4, poll_class=2))]), Device(1)).run(200 * MS)
    asked = [address for _, address, _ in line.devices[1].log]
    assert asked[0] == 50
    assert asked.count(50) == 1


def test_a_block_read_once_that_came_as_nonsense_is_asked_again_until_it_is_believable():
    device = Device(1)
    device.regs[50] = 0x8000  # SunSpec: no scale factor
    scale = block(
        50,
        2,
        poll_class=2,
        fields=[{"point": "d.p7", "offset": 0, "type": program.FIELD_TYPES["sunssf"], "min": -10, "max": 10}],
    )
    line = Line(site([slave(1, block(0, 10), scale)]), device).run(2500 * MS)
    asked = [address for _, address, _ in device.log]
    assert asked.count(50) == 3
    device.regs[50] = 0
    line.run(8000 * MS)
    asked = [address for _, address, _ in device.log]
    assert asked.count(50) == 4


SETPOINT = {"kind": 1, "function": 16, "address": 900, "unit": 0, "type": 1}


def test_a_setpoint_goes_out_at_the_end_of_the_transaction_in_flight():
    line = Line(site([slave(1, block(0, 60), commands=[SETPOINT])]), Device(1)).run(50 * MS)
    line.run(line.sent[-1][1] + 2 * MS)  # in the middle of a reply
    line.engine.put(0, [123], line.t, urgent=True)
    before = len(line.sent)
    line.run(line.t + 30 * MS)
    assert line.sent[before][2] == sealed(bytes.fromhex("0110 0384 0001 02 007b".replace(" ", "")))
    assert line.engine.stats["written_seq"][0] == 2
    assert line.engine.stats["t_last_write_end_ns"] == line.sent[before][1]


def test_a_setpoint_that_changes_all_the_time_leaves_every_second_turn_to_the_polls():
    line = Line(site([slave(1, block(0, 10), commands=[SETPOINT])]), Device(1)).run(20 * MS)
    for i in range(300):
        line.engine.put(0, [i + 1], line.t, urgent=True)
        line.run(line.t + MS)
    kinds = [frame[1] for frame in line.frames()][-40:]
    assert 18 <= kinds.count(16) <= 22


def test_a_stop_value_does_not_yield_to_polls():
    line = Line(site([slave(1, block(0, 10), commands=[SETPOINT])]), Device(1)).run(20 * MS)
    line.engine.put(0, [500], line.t, urgent=True)
    line.run(line.t + 3 * MS)  # written or being written
    line.engine.put(0, [0], line.t, urgent=True)
    line.run(line.t + 30 * MS)
    kinds = [frame[1] for frame in line.frames()]
    first = kinds.index(16)
    assert kinds[first : first + 2] == [16, 16]


def test_the_engine_repeats_no_setpoint_by_itself():
    line = Line(site([slave(1, block(0, 10), commands=[{**SETPOINT, "resend_ns": 10 * MS}])]), Device(1)).run(20 * MS)
    line.engine.put(0, [7], line.t)
    line.run(line.t + 500 * MS)
    assert len(line.frames(16)) == 1
    line.engine.put(0, [7], line.t)  # the loop lives and wants it repeated
    line.run(line.t + 20 * MS)
    assert len(line.frames(16)) == 2


CONSTS = [
    {"kind": 0, "function": 16, "address": 800, "value": 5.0},
    {"kind": 0, "function": 6, "address": 801, "value": 6.0},
]


def test_constants_go_in_row_order_before_any_setpoint_and_again_after_a_silence():
    device = Device(1)
    line = Line(site([slave(1, block(0, 10), commands=[*CONSTS, SETPOINT])]), device)
    line.engine.put(2, [9], 0, urgent=True)
    line.run(100 * MS)
    writes = [(function, address) for function, address, _ in device.log if function > 4]
    assert writes == [(16, 800), (6, 801), (16, 900)]
    device.silent = True
    line.run(3000 * MS)
    assert line.engine.stats["slaves"][0]["alive"] == 0
    device.silent = False
    device.log.clear()
    line.engine.put(2, [10], line.t, urgent=True)
    line.run(line.t + 6000 * MS)
    writes = [(function, address) for function, address, _ in device.log if function > 4]
    assert len(writes) == 3
    assert writes[:3] == [(16, 800), (6, 801), (16, 900)]


def test_a_failed_write_is_repeated_until_it_is_acknowledged():
    device = Device(1)
    line = Line(site([slave(1, block(0, 10), commands=[SETPOINT])]), device).run(20 * MS)
    replies = iter([lambda r: r[:-1] + bytes([r[-1] ^ 1])])
    device.mangle = lambda r: next(replies, lambda r: r)(r) if r[1] == 16 else r
    line.engine.put(0, [77], line.t)
    line.run(line.t + 500 * MS)
    assert device.regs[900] == 77
    assert line.engine.stats["written_seq"][0] == 2
    assert line.engine.stats["refusals"][0] == 0


def test_a_refused_write_is_counted_and_slows_down():
    device = Device(1)
    device.mangle = lambda r: sealed(1, 0x90, 2) if r[1] == 16 else r
    line = Line(site([slave(1, block(0, 10), commands=[SETPOINT])]), device).run(20 * MS)
    line.engine.put(0, [77], line.t)
    line.run(line.t + 2000 * MS)
    assert 3 <= line.engine.stats["refusals"][0] <= 12
    assert line.engine.stats["slaves"][0]["exception_codes"][2] == line.engine.stats["refusals"][0]


def test_a_dead_slave_is_backed_off_and_the_others_do_not_feel_it():
    dead, living = Device(1), Device(2)
    dead.silent = True
    blob = site([slave(1, block(0, 10)), slave(2, block(0, 10))])
    Line(blob, dead, living).run(10_000 * MS)
    alone = Line(site([slave(2, block(0, 10))]), Device(2)).run(10_000 * MS)
    assert len(living.log) > 0.85 * len(alone.devices[2].log)
    assert len(dead.log) >= 4


def test_a_slow_slave_costs_only_its_own_slot():
    slow, fast = Device(1, turn_ns=900 * MS), Device(2)
    line = Line(site([slave(1, block(0, 10), timeout_ns=1500 * MS), slave(2, block(0, 10))]), slow, fast)
    line.run(30_000 * MS)
    by_block = [row["block"] for row in line.good()]
    assert by_block.count(0) >= 5
    share = sum(end - start + MS + 25 * CHAR_NS + GAP_NS for start, end, frame in line.sent if frame[0] == 2) / line.t
    assert share > 0.6


def test_time_out_follows_what_the_slave_needs():
    device = Device(1, turn_ns=2 * MS)
    line = Line(site([slave(1, block(0, 10), timeout_ns=500 * MS)]), device).run(500 * MS)
    assert line.engine.stats["slaves"][0]["timeout_ns"] < 30 * MS
    device.silent = True
    line.run(line.t + 50 * MS)
    assert line.engine.stats["timeouts"] >= 1


def test_equal_reply_lengths_are_never_adjacent_within_one_unit():
    line = Line(site([slave(1, block(0, 10), block(100, 10), block(200, 10))]), Device(1)).run(500 * MS)
    shapes = [(f[0], f[1], f[4:6]) for f in line.frames()]
    twins = [a for a, b in pairwise(shapes) if a == b]
    assert not twins
    assert line.engine.stats["separators"] > 10
    assert {row["block"] for row in line.good()} == {0, 1, 2}


def test_a_signature_makes_the_separator_unnecessary():
    signed = [block(a, 10, signature=1, signature_offset=0, signature_word=1000 + a) for a in (0, 100)]
    line = Line(site([slave(1, *signed)]), Device(1)).run(500 * MS)
    assert line.engine.stats["separators"] == 0
    assert len(line.good()) > 50
    line.devices[1].regs[0] = 4711
    line.run(line.t + 100 * MS)
    assert line.engine.stats["mismatches"] > 0


def test_a_late_answer_is_not_taken_for_the_next_one():
    device = Device(1)
    line = Line(site([slave(1, block(0, 10), block(100, 10), timeout_ns=20 * MS)]), device)
    late = iter([b""])

    def hold(reply):
        if line.t > 100 * MS and next(late, None) is not None:
            line.held = reply
            return b""
        return reply

    device.mangle = hold
    line.run(100 * MS)
    line.run(101 * MS)
    while not hasattr(line, "held"):
        line.run(line.t + MS)
    sent = len(line.sent)
    while len(line.sent) == sent:
        line.run(line.t + MS // 10)
    line.bytes.appendleft((line.t + CHAR_NS, line.held))  # right after the next request
    line.run(line.t + 500 * MS)
    for row in line.good():
        assert row["regs"][0] == 1000 + (0, 100)[row["block"]]
    assert line.engine.stats["mismatches"] == 1


@pytest.mark.parametrize(
    ("name", "mangle"),
    [
        ("crc", lambda r: r[:-1] + bytes([r[-1] ^ 0x40])),
        ("mismatch", lambda r: sealed(9, r[1:-2])),
        ("mismatch", lambda r: sealed(r[0], 4, r[2:-2])),
        ("mismatch", lambda r: sealed(r[:2], 18, r[3:-4])),
        ("short", lambda r: r[:-3]),
        ("exception", lambda r: sealed(r[0], r[1] | 0x80, 4)),
        ("timeout", lambda r: b""),
    ],
)
def test_a_wrong_reply_is_named_and_gives_no_registers(name, mangle):
    device = Device(1)
    device.mangle = mangle
    line = Line(site([slave(1, block(0, 10))]), device).run(60 * MS + 100 * MS * (name == "timeout"))
    assert line.done
    assert {row["status"] for row in line.done} == {name}
    assert all(row["count"] == 0 for row in line.done)
    device.mangle = lambda reply: reply
    line.done.clear()
    line.run(line.t + 3000 * MS)
    assert line.good(), "the next poll after the fault must be good"


def test_an_echo_is_refused_unless_the_port_is_told_to_strip_it():
    refused = Line(site([slave(1, block(0, 10))]), Device(1))
    refused.echo = True
    refused.run(1000 * MS)
    assert not refused.good()
    assert refused.engine.stats["echoes"] > 0

    stripped = Line(site([slave(1, block(0, 10), commands=[{**SETPOINT, "function": 6}])], flags=1), Device(1))
    stripped.echo = True
    stripped.engine.put(0, [5], 0)
    stripped.run(1000 * MS)
    assert len(stripped.good()) > 50
    assert stripped.devices[1].regs[900] == 5
    assert stripped.engine.stats["echoes"] == 0


def test_an_echo_alone_never_acknowledges_a_write():
    line = Line(site([slave(1, block(0, 10), commands=[{**SETPOINT, "function": 6}])]))  # nobody there but the echo
    line.echo = True
    line.engine.put(0, [5], 0, urgent=True)
    line.run(2000 * MS)
    assert line.engine.stats["writes"] == 0
    assert line.engine.stats["written_seq"][0] == 0


def test_readback_writes_again_what_the_device_forgot():
    seen = block(900, 2, fields=[{"point": "d.p0", "offset": 0, "type": 1}])
    line = Line(site([slave(1, seen, commands=[{**SETPOINT, "readback_point": "d.p0"}])]), Device(1)).run(20 * MS)
    line.engine.put(0, [50], line.t)
    line.run(line.t + 50 * MS)
    assert line.devices[1].regs[900] == 50
    line.devices[1].regs[900] = 51
    line.run(line.t + 100 * MS)
    assert line.devices[1].regs[900] == 50
    assert line.engine.stats["readback_mismatches"] == 2


def test_a_wearing_register_is_written_only_when_its_value_differs():
    wearing = {**CONSTS[0], "flags": 128}
    device = Device(1)
    line = Line(site([slave(1, block(0, 10), commands=[wearing])]), device).run(100 * MS)
    assert len(line.frames(16)) == 1
    device.silent = True
    line.run(2000 * MS)
    device.silent = False
    line.run(9000 * MS)
    assert line.engine.stats["slaves"][0]["alive"] == 1
    assert len(line.frames(16)) == 1


def test_a_slave_that_needs_a_longer_pause_gets_one():
    device = Device(1)
    line = Line(site([slave(1, block(0, 10), timeout_ns=50 * MS)]), device).run(100 * MS)
    need, answer = 2 * MS, device.answer

    def picky(frame):
        pause = line.sent[-1][0] - (line.sent[-2][1] + MS + 25 * CHAR_NS)
        return answer(frame) if pause >= need else b""

    device.answer = picky
    line.run(3000 * MS)
    assert line.engine.stats["slaves"][0]["gap_ns"] >= need
    before = len(line.good())
    failed = line.engine.stats["timeouts"]
    line.run(line.t + 5000 * MS)
    assert len(line.good()) - before > 500
    assert line.engine.stats["timeouts"] - failed <= 6


def test_draining_sends_commands_only_and_says_when_it_is_done():
    line = Line(site([slave(1, block(0, 10), commands=[SETPOINT])]), Device(1)).run(50 * MS)
    line.engine.put(0, [0], line.t, urgent=True)
    line.engine.drain()
    assert not line.engine.drained
    before = len(line.sent)
    line.run(line.t + 100 * MS)
    assert line.engine.drained
    assert [frame[1] for _, _, frame in line.sent[before:]] == [16]


def test_foreign_bytes_on_a_quiet_line_are_counted_and_waited_out():
    line = Line(site([slave(1, block(0, 10, period_ns=100 * MS))]), Device(1)).run(50 * MS)
    quiet = 100 * MS - 100 * MS // 64 - MS // 10  # just before the poll is due, which comes a sixty-fourth early
    line.bytes.append((quiet, b"\xff" * 7))
    before = len(line.sent)
    line.run(120 * MS)
    assert line.engine.stats["foreign_bytes"] == 7
    assert line.sent[before][0] == quiet + GAP_NS


def test_a_tool_can_ask_for_anything_while_the_polls_go_on():
    device = Device(1)
    line = Line(site([slave(1, block(0, 10))]), device)
    identity = sealed(1, 43, 14, 1, 1, 0, 0, 2, 0, 4, b"ACME", 1, 3, b"X-1")
    plain = device.answer
    device.answer = lambda frame: identity if frame[1] == 43 else plain(frame)
    assert line.engine.ask(bytes([1, 43, 14, 1, 0]))
    assert not line.engine.ask(bytes([1, 43, 14, 1, 0]))
    line.run(50 * MS)
    assert line.engine.answer() == ("ok", identity[:-2])
    assert line.good()
    with_mask = bytes([1, 22, 0, 5, 0, 0xFF, 0, 1])
    device.answer = lambda frame: frame if frame[1] == 22 else plain(frame)
    assert line.engine.ask(with_mask)
    line.run(line.t + 50 * MS)
    assert line.engine.answer() == ("ok", with_mask)


def test_nothing_in_the_engine_depends_on_anything_but_bytes_and_times():
    def run():
        device = Device(1)
        device.mangle = lambda r: r if r[-1] % 7 else r[:-1]
        line = Line(site([slave(1, block(0, 10), block(50, 12), commands=[*CONSTS, SETPOINT])]), device)
        line.engine.put(2, [3], 0)
        line.run(2000 * MS)
        return line.sent, line.done, line.engine.stats

    assert run() == run()


def test_a_reply_faster_than_the_wire_is_not_stamped_in_the_future():
    engine = Engine(site([slave(1, block(0, 2))]))
    what, at, _ = engine.next(0)
    what, at, frame = engine.next(at)
    assert what == "send"
    engine.sent(at + len(frame) * CHAR_NS)
    engine.receive(sealed(1, 3, 4, 0, 1, 0, 2), at + 50_000)  # a pty, or a gateway on a network
    row = engine.take()[0]
    assert row["status"] == "ok"
    assert row["t_sample_ns"] <= row["t_done_ns"] == at + 50_000


def identity(address, word, **row):
    """A block read once whose first word tells which device this is."""
    field = {"point": "d.p7", "offset": 0, "flags": program.FIELD_FLAGS["identity"], "min": word, "max": word}
    return block(address, 2, poll_class=2, fields=[field], **row)


def writes_of(device):
    return [(function, address) for function, address, _ in device.log if function > 4]


def test_nothing_is_written_before_the_identity_words_are_read():
    device = Device(1)
    device.regs[70] = 4711
    line = Line(site([slave(1, block(0, 10), identity(70, 4711), commands=[*CONSTS, SETPOINT])]), device)
    line.engine.put(2, [9], 0, urgent=True)
    line.run(100 * MS)
    first_write = next(i for i, row in enumerate(device.log) if row[0] > 4)
    assert (3, 70, 2) in device.log[:first_write]
    assert writes_of(device) == [(16, 800), (6, 801), (16, 900)]


def test_another_device_at_the_address_gets_no_write_at_all_until_it_is_the_right_one():
    device = Device(1)
    device.regs[70] = 1
    line = Line(site([slave(1, block(0, 10), identity(70, 4711), commands=[*CONSTS, SETPOINT])]), device)
    line.engine.put(2, [9], 0, urgent=True)
    line.run(5000 * MS)
    line.engine.put(2, [0], line.t, urgent=True)  # not even a stop: the register may mean something else there
    line.run(line.t + 1000 * MS)
    assert writes_of(device) == []
    assert line.engine.stats["slaves"][0]["identity_mismatch"] == 1 and len(line.good()) > 100
    device.regs[70] = 4711
    line.run(line.t + 2000 * MS)
    assert line.engine.stats["slaves"][0]["identity_mismatch"] == 0
    assert writes_of(device) == [(16, 800), (6, 801), (16, 900)]


def test_after_a_silence_the_identity_is_read_again_before_the_constants():
    device = Device(1)
    device.regs[70] = 4711
    line = Line(site([slave(1, block(0, 10), identity(70, 4711), commands=CONSTS)]), device).run(100 * MS)
    device.silent = True
    line.run(line.t + 3000 * MS)
    device.silent, device.regs[70] = False, 5
    device.log.clear()
    line.run(line.t + 8000 * MS)
    assert (3, 70, 2) in device.log and writes_of(device) == []


def test_a_port_that_drains_does_not_wait_for_a_device_that_was_never_known():
    device = Device(1)
    device.regs[70] = 1
    line = Line(site([slave(1, block(0, 10), identity(70, 4711), commands=[SETPOINT])]), device)
    line.engine.put(0, [0], 0, urgent=True)
    line.run(200 * MS)
    line.engine.drain()
    line.run(line.t + 20 * MS)
    assert line.engine.drained


def test_slow_polls_of_one_period_spread_over_it():
    slow = [block(200 + 100 * i, 30 + i, period_ns=1000 * MS, poll_class=1) for i in range(8)]
    line = Line(site([slave(1, block(0, 10), *slow)]), Device(1)).run(4500 * MS)
    starts = [start for start, _, frame in line.sent if frame[2:4] == bytes([0, 0]) and start > 1500 * MS]
    # Two rounds of the fast block hold at most one slow one: 8 + 81 characters, two silences, the answer's delay.
    one_slow = (8 + 5 + 2 * 38) * CHAR_NS + 2 * GAP_NS + MS
    one_fast = (8 + 5 + 20) * CHAR_NS + 2 * GAP_NS + MS
    assert max(b - a for a, b in pairwise(starts)) < one_fast + one_slow + MS // 10
    asked = [address for _, address, _ in line.devices[1].log]
    assert all(4 <= asked.count(200 + 100 * i) <= 5 for i in range(8))


def test_phases_stay_apart_after_an_outage():
    device = Device(1)
    slow = [block(200 + 100 * i, 30 + i, period_ns=1000 * MS, poll_class=1) for i in range(8)]
    line = Line(site([slave(1, block(0, 10), *slow)]), device).run(2500 * MS)
    device.silent = True
    line.run(line.t + 7300 * MS)
    device.silent = False
    line.run(line.t + 6000 * MS)
    seen = line.t
    line.run(line.t + 1000 * MS)
    starts = [start for start, _, frame in line.sent if frame[2:4] != bytes([0, 0]) and start > seen]
    assert len(starts) in (7, 8, 9) and min(b - a for a, b in pairwise(starts)) > 50 * MS


def test_each_slave_has_its_part_of_the_line_in_the_statistics():
    line = Line(site([slave(1, block(0, 10)), slave(2, block(0, 60))]), Device(1), Device(2)).run(1000 * MS)
    stats = line.engine.stats
    parts = [one["wire_busy_ns"] for one in stats["slaves"]]
    assert sum(parts) == stats["wire_busy_ns"]
    assert sum(one["transactions"] for one in stats["slaves"]) == stats["transactions"]
    assert parts[1] == pytest.approx(parts[0] * (8 + 125) / (8 + 25), rel=0.05)
    line.run(line.sent[-1][1] + MS // 2)
    while line.engine.next(line.t)[0] == "recv":
        line.run(line.t + MS // 10)
    line.engine.receive(sealed(2, 3, 2, 1, 1), line.t)
    assert line.engine.stats["slaves"][1]["foreign_bytes"] == 7


def test_half_of_the_replies_are_whole_at_the_wake_up():
    line = Line(site([slave(1, block(0, 10))]), Device(1, turn_ns=7 * MS)).run(2000 * MS)
    while line.bytes or line.engine.next(line.t)[0] == "recv":
        line.run(line.t + MS)
    early = sum(1 for what, at in wakes(line, 400) if what == "early")
    assert 120 <= early <= 280


def wakes(line, count):
    """(early or whole, when) of the next wake-ups that the engine asks for while a reply is under way."""
    found = []
    while len(found) < count:
        what, at, more = line.engine.next(line.t)
        if what == "send":
            end = line.t + len(more) * line.engine.char_ns
            line.engine.sent(end)
            line.reply(more, end)
            _, wake, _ = line.engine.next(end)
            arrives, data = line.bytes.popleft()
            found.append(("early" if wake < arrives else "whole", wake))
            if wake < arrives:
                line.engine.next(wake)  # what the thread does: nothing there yet, so it listens
            line.t = max(wake, arrives)
            line.engine.receive(data, line.t)
        else:
            line.t = max(at, line.t + 1)
        line.engine.take()
    return found


def test_a_constant_that_is_refused_keeps_those_behind_it_back():
    """An enable word before its mode is another order than the device's manual gives."""
    device = Device(1)
    device.mangle = lambda r: sealed(1, 0x90, 4) if r[1] == 16 else r
    line = Line(site([slave(1, block(0, 10), commands=[*CONSTS, SETPOINT])]), device).run(3000 * MS)
    tried = [address for function, address, _ in device.log if function > 4]
    assert set(tried) == {800} and len(tried) >= 2
    device.mangle = lambda r: r
    line.run(line.t + 3000 * MS)
    assert [address for function, address, _ in device.log if function > 4][-2:] == [800, 801]


def test_after_a_mode_word_the_device_gets_its_pause_and_a_stop_said_within_it_is_said_again():
    pause = 200 * MS
    rows = [*CONSTS[:1], {**CONSTS[1], "pause_ns": pause}, SETPOINT]
    line = Line(site([slave(1, block(0, 10), commands=rows)]), Device(1))
    line.engine.put(2, [500], 0, urgent=True)
    line.run(50 * MS)
    line.engine.put(2, [0], line.t, urgent=True)
    line.run(line.t + 600 * MS)
    writes = [(start, struct.unpack(">H", frame[2:4])[0], frame) for start, _, frame in line.sent if frame[1] > 4]
    assert [address for _, address, _ in writes] == [800, 801, 900, 900]
    mode, stop, again = (start for start, _, _ in writes[1:])
    assert stop < mode + pause <= again
    assert all(frame[7:9] == bytes(2) for _, address, frame in writes if address == 900)

    waits = Line(site([slave(1, block(0, 10), commands=rows)]), Device(1))
    waits.engine.put(2, [500], 0, urgent=True)
    waits.run(600 * MS)
    times = [start for start, _, frame in waits.sent if frame[1] > 4]
    assert len(times) == 3 and times[2] >= times[1] + pause


def test_of_two_registers_for_one_setpoint_the_one_that_goes_to_zero_goes_first():
    rows = [{**SETPOINT, "address": 900}, {**SETPOINT, "address": 910}]
    line = Line(site([slave(1, block(0, 10), commands=rows)]), Device(1)).run(20 * MS)
    line.engine.put(0, [500], line.t, urgent=True)
    line.engine.put(1, [0], line.t, urgent=True)
    line.run(line.t + 50 * MS)
    assert [struct.unpack(">H", frame[2:4])[0] for _, _, frame in line.sent if frame[1] == 16] == [910, 900]
