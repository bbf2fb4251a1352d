"""A recorded line: an EPEVER inverter behind a gateway (mikaabra/pylontech-bms-mqtt, MIT, docs/sessions).

The capture has a reply that looks right and is not: function 4 to a function 3 request, too short, CRC wrong.
"""

import pytest

from tidegate.ext.abi import program
from tidegate.ext.bus.rtu_view import Engine, crc

MS = 1_000_000
# Session of 2026-01-17, in the order of the recording: the read, its answer, the write and its answer.
READ = bytes.fromhex("0A0396080001293B")
ANSWER = bytes.fromhex("0A03020001DC45")
WRITE = bytes.fromhex("0A10960800010200 01E3E1".replace(" ", ""))
WRITTEN = bytes.fromhex("0A1096080001ACF8")
WRONG = bytes.fromhex("0A040400000000")  # line 366, as a reply to the read


@pytest.fixture
def engine():
    command = {"kind": 1, "function": 16, "address": 0x9608, "unit": 0, "type": 0}
    block = {"function": 3, "address": 0x9608, "count": 1, "fields": []}
    slave = {"unit_id": 10, "timeout_ns": 100 * MS, "blocks": [block], "commands": [command]}
    port = {"baud": 9600, "gap_rule": 1, "slaves": [slave]}
    return Engine(program.pack({"points": [], "units": [{}], "ports": [port]}))


def exchange(engine, t, reply):
    """Let the engine send what it will and answer with `reply`; the request and the time after it."""
    for _ in range(50):
        what, at, more = engine.next(t)
        if what == "send":
            engine.sent(t + len(more) * engine.char_ns)
            t += len(more) * engine.char_ns + 5 * MS + len(reply) * engine.char_ns
            if reply:
                engine.receive(reply, t)
            return more, t
        t = max(at, t + 1)
    raise AssertionError("the engine sends nothing")


def test_the_recorded_frames_have_the_crc_that_we_compute():
    for frame in (READ, ANSWER, WRITE, WRITTEN):
        assert crc(frame[:-2]).to_bytes(2, "little") == frame[-2:]


def test_our_requests_are_the_recorded_ones_and_the_recorded_answers_are_believed(engine):
    request, t = exchange(engine, 0, ANSWER)
    assert request == READ
    assert engine.take()[0]["regs"] == [1]
    engine.put(0, [1], t)
    request, t = exchange(engine, t, WRITTEN)
    assert request == WRITE
    assert engine.stats["written_seq"] == [2]


def test_the_right_looking_wrong_reply_is_refused_counted_and_the_next_poll_is_good(engine):
    _, t = exchange(engine, 0, ANSWER)
    _, t = exchange(engine, t, WRONG)
    good, bad = engine.take()
    assert (good["status"], bad["status"], bad["count"]) == ("ok", "mismatch", 0)
    assert engine.stats["mismatches"] == engine.stats["slaves"][0]["mismatches"] == 1
    # Until the device is seen in step, a read of another length; then the poll again.
    request, t = exchange(engine, t, b"")
    assert request[:4] == READ[:4]
    assert request != READ
    separator = bytes([10, 3, 2 * request[5]]) + bytes(2 * request[5])
    engine.receive(separator + crc(separator).to_bytes(2, "little"), t)
    request, t = exchange(engine, t, ANSWER)
    assert request == READ
    assert engine.take()[-1]["regs"] == [1]
