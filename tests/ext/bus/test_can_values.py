"""The table decoder against cantools, and against recordings of real batteries: every frame, every value."""

import random
import re
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cantools
import pytest
from cantools.database import Database
from cantools.database.can import Message, Signal
from cantools.database.conversion import BaseConversion
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.ext.bus.can_view import Bus

DATA = Path(__file__).parents[2] / "data" / "can"
CAN_EFF_FLAG = 0x80000000
GOOD = 1


def field_of(point: int, message: Message, signal: Signal) -> dict[str, Any]:
    """Our row for a cantools signal."""
    field: dict[str, Any] = {
        "point": point,
        "start": signal.start,
        "length": signal.length,
        "big_endian": signal.byte_order == "big_endian",
        "signed": signal.is_signed,
        "float": signal.is_float,
        "scale": signal.scale,
        "offset": signal.offset,
    }
    if signal.multiplexer_ids:
        field["mux_value"] = signal.multiplexer_ids[0]
    return field


def row_of(message: Message, first: int = 0) -> dict[str, Any]:
    """Our row for a cantools message; its signals become the points from `first` on."""
    row: dict[str, Any] = {
        "id": message.frame_id,
        "extended": message.is_extended_frame,
        "fd": message.length > 8,
        "len_max": message.length,
        "fields": [field_of(first + i, message, signal) for i, signal in enumerate(message.signals)],
    }
    for signal in message.signals:
        if signal.is_multiplexer:
            row["mux"] = (signal.start, signal.length, signal.byte_order == "big_endian")
    return row


def decoded(message: Message, data: bytes) -> dict[str, float]:
    values = message.decode(data, decode_choices=False, scaling=True)
    return {name: float(value) for name, value in values.items()}  # type: ignore[arg-type, union-attr]


class Pair:
    """A bus behind a socket pair, so that CAN FD frames can be sent too."""

    def __init__(self, message: Message) -> None:
        self.near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.message = message
        self.bus = Bus([row_of(message)], fd=self.near.fileno())
        self.t_ns = 0

    def values(self, data: bytes) -> dict[str, float]:
        """What the frame changed, by signal name."""
        self.t_ns += 1_000_000
        can_id = self.message.frame_id | (CAN_EFF_FLAG if self.message.is_extended_frame else 0)
        kind = "=IBB2x64s" if self.message.length > 8 else "=IBB2x8s"
        self.far.send(struct.pack(kind, can_id, len(data), 0, data))
        assert self.bus.drain(self.t_ns) == 1
        changed = {}
        for i, signal in enumerate(self.message.signals):
            value, t_ns, quality, _ = self.bus.point(i)
            if t_ns == self.t_ns and quality == GOOD:
                changed[signal.name] = value
        return changed

    def close(self) -> None:
        self.near.close()
        self.far.close()


# ---- a whole published database ----

FOXBMS: Database = cantools.database.load_file(DATA / "foxbms.dbc")  # type: ignore[assignment]


@pytest.mark.parametrize("message", FOXBMS.messages, ids=lambda message: message.name)
def test_every_foxbms_message_decodes_as_cantools_does(message: Message) -> None:
    generator = random.Random(message.frame_id)
    pair = Pair(message)
    selectors = [signal for signal in message.signals if signal.is_multiplexer]
    compared = 0
    for _ in range(100):
        data = bytearray(generator.randbytes(message.length))
        known = [s.multiplexer_ids[0] for s in message.signals if s.multiplexer_ids] or [0]
        if selectors:  # random selectors would nearly never be defined ones
            data = bytearray(pack_selector(message, selectors[0], generator.choice(known), bytes(data)))
        expected = decoded(message, bytes(data))
        assert pair.values(bytes(data)) == expected
        compared += len(expected)
    pair.close()
    assert compared >= 100 or not message.signals


def pack_selector(message: Message, selector: Signal, value: int, data: bytes) -> bytes:
    """`data` with the multiplexer set to `value`, bit by bit, by the DBC's own counting."""
    bits = [data[i // 8] >> i % 8 & 1 for i in range(8 * len(data))]
    for i in range(selector.length):
        if selector.byte_order == "little_endian":
            bits[selector.start + i] = value >> i & 1
        else:
            from_top = selector.start // 8 * 8 + 7 - selector.start % 8 + i
            bits[from_top // 8 * 8 + 7 - from_top % 8] = value >> (selector.length - 1 - i) & 1
    return bytes(sum(bits[8 * n + i] << i for i in range(8)) for n in range(len(data)))


# ---- any database ----


@st.composite
def messages(draw: st.DrawFn) -> Message:
    length = draw(st.sampled_from([1, 2, 3, 5, 8, 12, 16, 24, 64]))
    signals = []
    for number in range(draw(st.integers(1, 6))):
        is_float = length >= 4 and draw(st.booleans())
        bits = draw(st.sampled_from([n for n in (32, 64) if n <= 8 * length])) if is_float else None
        bits = bits or draw(st.integers(1, min(64, 8 * length)))
        big = draw(st.booleans())
        first = draw(st.integers(0, 8 * length - bits))
        start = first // 8 * 8 + 7 - first % 8 if big else first
        scale = draw(st.sampled_from([1.0, 0.1, 0.01, -0.5, 0.25, 1e-3, 200.0]))
        offset = draw(st.sampled_from([0.0, -40.0, -400.0, 1e-2, -3000.0]))
        signals.append(
            Signal(
                f"s{number}",
                start,
                bits,
                byte_order="big_endian" if big else "little_endian",
                is_signed=draw(st.booleans()),
                conversion=BaseConversion.factory(scale=scale, offset=offset, is_float=is_float),
            )
        )
    extended = draw(st.booleans())
    frame_id = draw(st.integers(0, 0x1FFFFFFF if extended else 0x7FF))
    return Message(frame_id, "m", length, signals, is_extended_frame=extended, strict=False)


@settings(max_examples=300, deadline=None)
@given(message=messages(), data=st.data())
def test_any_database_decodes_as_cantools_does(message: Message, data: st.DataObject) -> None:
    pair = Pair(message)
    try:
        for _ in range(3):
            frame = data.draw(st.binary(min_size=message.length, max_size=message.length))
            ours = pair.values(frame)
            for signal in message.signals:
                # One at a time: cantools does not unpack signals that overlap.
                alone = Message(1, "alone", message.length, [signal], strict=False)
                name, value = signal.name, decoded(alone, frame)[signal.name]
                if value - value == 0.0:  # infinities and NaN are never good
                    # cantools keeps integers above 2**53 exact; a point of the image is a double.
                    exact = signal.is_float or (signal.length <= 53 and abs(value) <= 2**53)
                    assert ours[name] == (value if exact else pytest.approx(value, rel=4e-16))
                else:
                    assert name not in ours or ours[name] == value
    finally:
        pair.close()


# ---- recordings ----

# The Orion dialect of the 0x351 family, and the Pylontech one of BYD, written as DBC for cantools.
ORION_DBC = """
VERSION ""
BU_: BMS
BO_ 849 Limits: 8 BMS
 SG_ charge_v_max : 0|16@1+ (0.1,0) [0|0] "V" BMS
 SG_ charge_a_max : 16|16@1- (0.1,0) [0|0] "A" BMS
 SG_ discharge_a_max : 32|16@1- (0.1,0) [0|0] "A" BMS
 SG_ discharge_v_min : 48|16@1+ (0.1,0) [0|0] "V" BMS
BO_ 853 State: 8 BMS
 SG_ soc : 0|16@1+ (0.01,0) [0|0] "" BMS
 SG_ soh : 16|16@1+ (0.01,0) [0|0] "" BMS
BO_ 854 Pack: 6 BMS
 SG_ pack_v : 0|16@1- (VSCALE,0) [0|0] "V" BMS
 SG_ pack_a : 16|16@1- (-0.1,0) [0|0] "A" BMS
 SG_ temp_c : 32|16@1- (0.1,0) [0|0] "degC" BMS
"""


def candump_lines() -> Iterator[tuple[int, int, bytes]]:
    """(t_ns, id with kernel flags, data) of the Orion recording."""
    pattern = re.compile(r"\((\d+)\.(\d{6})\) \S+ ([0-9A-F]+)#([0-9A-F]*)")
    for line in (DATA / "orion2_ev_candump_20251122_a16s.log").read_text().splitlines():
        found = pattern.fullmatch(line)
        assert found, line
        seconds, micros, can_id, data = found.groups()
        t_ns = int(seconds) * 10**9 + int(micros) * 1000
        yield t_ns, int(can_id, 16) | (CAN_EFF_FLAG if len(can_id) == 8 else 0), bytes.fromhex(data)


def as_frame(can_id: int, data: bytes) -> bytes:
    return struct.pack("=IB3x8s", can_id, len(data), data)


def rows_of(database: Database) -> tuple[list[dict[str, Any]], list[tuple[Message, int]]]:
    rows, places, first = [], [], 0
    for message in database.messages:
        rows.append({**row_of(message, first), "len_min": 0, "len_max": 8})
        places.append((message, first))
        first += len(message.signals)
    return rows, places


def test_every_frame_of_the_orion_recording_is_accounted_for_and_right() -> None:
    database: Database = cantools.database.load_string(ORION_DBC.replace("VSCALE", "0.1"), "dbc")  # type: ignore[assignment]
    rows, places = rows_of(database)
    by_id = {message.frame_id: (message, first) for message, first in places}
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    bus = Bus(rows, fd=near.fileno())
    seen: Counter[int] = Counter()
    compared = 0
    for t_ns, can_id, data in candump_lines():
        seen[can_id] += 1
        far.send(as_frame(can_id, data))
        assert bus.drain(t_ns) == 1
        if can_id in by_id:
            message, first = by_id[can_id]
            expected = message.decode(data, allow_truncated=True)
            for i, signal in enumerate(message.signals):
                assert isinstance(expected, dict)
                if signal.name in expected:
                    assert bus.point(first + i)[:3] == (expected[signal.name], t_ns, GOOD)
                    compared += 1
    near.close()
    far.close()

    total = seen.total()
    assert total == 25_620
    assert bus.stats["frames"] == bus.accounted() == total
    assert bus.stats["unknown"] == sum(count for can_id, count in seen.items() if can_id not in by_id)
    for row, (message, _) in enumerate(places):
        assert bus.frame_stats(row)["count"] == seen[message.frame_id] > 100
        # Each 0.1 s: the learned period is within a tenth of it.
        assert abs(bus.frame_stats(row)["period_ns"] - 100_000_000) < 10_000_000
    assert compared > 1000
    # A 72-cell pack; 29.25 V would be the dialect mistaken.
    pack_v = bus.values()[places[2][1]]
    assert 72 * 2.5 < pack_v < 72 * 4.25


def test_in_bounded_batches_the_orion_recording_loses_nothing() -> None:
    bus = Bus([{"id": 0x356, "len_min": 6, "fields": [{"point": 0, "start": 0, "length": 16}]}])
    taken = backlog = 0
    for number, (t_ns, can_id, data) in enumerate(candump_lines(), 1):
        assert bus.inject(can_id & 0x1FFFFFFF, data, 0, extended=bool(can_id & CAN_EFF_FLAG))
        backlog += 1
        if number % 200 == 0:
            while backlog:
                step = bus.drain(t_ns)
                assert 0 < step <= 64
                taken += step
                backlog -= step
    taken += bus.drain(t_ns) + bus.drain(t_ns)
    assert taken == bus.accounted() == 25_620


def test_the_orions_own_frame_carries_the_checksum_of_its_documentation() -> None:
    row = {"id": 0x6B1, "crc": ("sum-orion", 7), "fields": [{"point": 0, "start": 0, "length": 8}]}
    bus = Bus([row])
    sent = 0
    for t_ns, can_id, data in candump_lines():
        if can_id == 0x6B1:
            sent += bus.inject(can_id, data, 0)
            bus.drain(t_ns)
    stats = bus.frame_stats(0)
    assert sent == 153
    assert (stats["count"], stats["crc_errors"]) == (sent, 0)


def test_the_byd_cycle_is_accounted_for_and_right() -> None:
    database: Database = cantools.database.load_string(ORION_DBC.replace("VSCALE", "0.01"), "dbc")  # type: ignore[assignment]
    rows, places = rows_of(database)
    bus = Bus(rows)
    frames = {}
    for line in (DATA / "byd_lvs_one_cycle.txt").read_text().splitlines():
        found = re.fullmatch(r"\s+can0\s+([0-9A-F]+)\s+\[8\]((?: +[0-9A-F]{2}){8})", line)
        if found:
            frames[int(found[1], 16)] = bytes.fromhex(found[2])
    for can_id, data in frames.items():
        assert bus.inject(can_id, data)
    assert bus.drain(1) == len(frames) == 20
    assert bus.stats["unknown"] == 17
    assert bus.accounted() == 20
    for message, first in places:
        expected = message.decode(frames[message.frame_id], allow_excess=True)
        assert isinstance(expected, dict)
        for i, signal in enumerate(message.signals):
            assert bus.values()[first + i] == expected[signal.name]
    assert bus.values()[places[2][1]] == pytest.approx(53.10)
