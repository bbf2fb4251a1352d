"""CAN: what arrives goes into the image by table, or is counted; what is due goes out on its grid."""

import math
import os
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tidegate.ext.bus.can_view import CRC_NAMES, Bus

MS = 1_000_000
NEVER, GOOD, STALE, INVALID = 0, 1, 3, 4

# The 0x351 and 0x356 frames of the Pylontech family; fact sheet section 1.1.
LIMITS = {
    "id": 0x351,
    "len_min": 6,
    "len_max": 8,
    "period_ns": 1000 * MS,
    "fields": [
        {"point": 0, "start": 0, "length": 16, "scale": 0.1},
        {"point": 1, "start": 16, "length": 16, "signed": True, "scale": 0.1},
        {"point": 2, "start": 32, "length": 16, "signed": True, "scale": 0.1, "abs": True},
        {"point": 3, "start": 48, "length": 16, "scale": 0.1},
    ],
}
STATUS = {
    "id": 0x356,
    "len_min": 6,
    "len_max": 8,
    "fields": [
        {"point": 4, "start": 0, "length": 16, "signed": True, "scale": 0.01},
        {"point": 5, "start": 16, "length": 16, "signed": True, "scale": 0.1},
        {"point": 6, "start": 32, "length": 16, "signed": True, "scale": 0.1, "min": -60.0, "max": 120.0},
    ],
}
CAN_ERR_FLAG, CAN_RTR_FLAG, CAN_EFF_FLAG = 0x20000000, 0x40000000, 0x80000000


def frame_bytes(can_id: int, data: bytes) -> bytes:
    return struct.pack("=IB3x8s", can_id, len(data), data)


def one_frame(**row: Any) -> Bus:
    return Bus([{"id": 0x100, "len_min": 0, **row}])


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield ends
    for end in ends:
        end.close()


# ---- values ----


def test_published_frames_decode_to_their_published_values() -> None:
    bus = Bus([LIMITS, STATUS])
    bus.inject(0x351, bytes.fromhex("1402740E740ECC01"))
    bus.inject(0x356, bytes.fromhex("B914350124FA0200"))
    assert bus.drain(5 * MS) == 2
    assert bus.values()[:6] == pytest.approx([53.2, 370.0, 370.0, 46.0, 53.05, 30.9])
    # -150.0 degC is an absent sensor: never a number.
    assert bus.point(6)[2] == INVALID and math.isnan(bus.point(6)[0])
    assert bus.frame_stats(1)["invalid"] == 1


def test_a_value_out_of_range_keeps_the_last_good_one_and_its_age() -> None:
    bus = Bus([STATUS])
    bus.inject(0x356, struct.pack("<hhh", 0, 0, 250), 1 * MS)
    bus.drain(1 * MS)
    bus.inject(0x356, struct.pack("<hhh", 0, 0, 1201), 2 * MS)
    bus.drain(2 * MS)
    assert bus.point(6) == (25.0, 1 * MS, INVALID, 1)
    bus.inject(0x356, struct.pack("<hhh", 0, 0, 1200), 3 * MS)
    bus.drain(3 * MS)
    assert bus.point(6) == (120.0, 3 * MS, GOOD, 2)


@pytest.mark.parametrize(("raw", "value"), [(0, 0.0), (1, 1.0), (0x7F, 127.0), (0x80, -128.0), (0xFF, -1.0)])
def test_signed_fields_extend_their_sign(raw: int, value: float) -> None:
    bus = one_frame(fields=[{"point": 0, "start": 4, "length": 8, "signed": True}])
    bus.inject(0x100, (raw << 4 | 0xF00F).to_bytes(2, "little"))
    bus.drain(0)
    assert bus.values() == [value]


def test_big_endian_fields_follow_the_dbc_count_of_bits() -> None:
    # f_PackValuesP0 of foxBMS 2: BatteryVoltage 7|15@0-, Current 40|17@0-
    fields = [
        {"point": 0, "start": 7, "length": 15, "big_endian": True, "signed": True, "scale": 0.1},
        {"point": 1, "start": 40, "length": 17, "big_endian": True, "signed": True, "scale": 0.01},
    ]
    bus = one_frame(fields=fields)
    word = (7123 << 49) | ((-12345 & 0x1FFFF) << (64 - 47 - 17))
    bus.inject(0x100, word.to_bytes(8, "big"))
    bus.drain(0)
    assert bus.values() == pytest.approx([712.3, -123.45])


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("shift", range(8))
def test_fields_of_57_bits_and_more_may_straddle_nine_bytes(big_endian: bool, shift: int) -> None:
    raw = 0x1_23456789_ABCDEF01 & ((1 << 57) - 1)
    start = 7 - shift if big_endian else shift
    fields = [{"point": 0, "start": start, "length": 57, "big_endian": big_endian}]
    bus = Bus([{"id": 0x100, "fd": True, "len_min": 12, "len_max": 12, "fields": fields}], fd=-1)
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far:
        bus = Bus([{"id": 0x100, "fd": True, "len_min": 12, "len_max": 12, "fields": fields}], fd=near.fileno())
        bits = 96 - shift - 57
        data = (raw << bits).to_bytes(12, "big") if big_endian else (raw << shift).to_bytes(12, "little")
        far.send(struct.pack("=IBB2x64s", 0x100, 12, 0, data))
        assert bus.drain(0) == 1
    assert bus.values() == [float(raw)]


@pytest.mark.parametrize(("code", "raw"), [("<f", 1.5), ("<f", -2.25), ("<d", -1.25e300)])
def test_floating_point_fields_are_taken_bit_by_bit(code: str, raw: float) -> None:
    data = struct.pack(code, raw)
    bus = one_frame(fields=[{"point": 0, "start": 0, "length": 8 * len(data), "float": True}])
    bus.inject(0x100, data)
    bus.drain(0)
    assert struct.pack("<d", bus.values()[0]) == struct.pack("<d", raw)


@pytest.mark.parametrize("raw", [math.nan, math.inf, -math.inf])
def test_a_float_that_is_no_number_is_invalid(raw: float) -> None:
    bus = one_frame(fields=[{"point": 0, "start": 0, "length": 32, "float": True, "min": -1e9, "max": 1e9}])
    bus.inject(0x100, struct.pack("<f", raw))
    bus.drain(0)
    assert bus.point(0)[2] == INVALID


def test_a_sentinel_is_invalid_and_its_neighbours_are_numbers() -> None:
    bus = one_frame(fields=[{"point": 0, "start": 0, "length": 16, "sentinel": 0xFFFF}])
    for raw, quality in ((0xFFFE, GOOD), (0xFFFF, INVALID), (0x0000, GOOD)):
        bus.inject(0x100, raw.to_bytes(2, "little"))
        bus.drain(0)
        assert bus.point(0)[2] == quality


def test_a_mask_leaves_only_the_wanted_alarm_bits() -> None:
    # 0x35A of the Victron family: pairs of bits, the low one set = active, 10 = all is well.
    bus = one_frame(fields=[{"point": 0, "start": 0, "length": 32, "mask": 0x55555555}])
    for word, value in ((0xAAAAAAAA, 0), (0xAAAAAAA9, 1), (0x6AAAAAAA, 0x40000000)):
        bus.inject(0x100, word.to_bytes(4, "little"))
        bus.drain(0)
        assert bus.values() == [float(value)]


def test_an_enumeration_becomes_yes_or_no() -> None:
    bus = one_frame(fields=[{"point": 0, "start": 0, "length": 8, "signed": True, "one_of": [0, 7, 63]}])
    for word, value in ((0, 1), (1, 0), (7, 1), (63, 1), (64, 0), (255, 0)):
        bus.inject(0x100, bytes([word]))
        bus.drain(0)
        assert bus.values() == [float(value)]


def test_a_limit_sent_with_either_sign_is_a_magnitude() -> None:
    bus = Bus([LIMITS])
    for raw in (1500, -1500):
        bus.inject(0x351, struct.pack("<HhhH", 0, 0, raw, 0))
        bus.drain(0)
        assert bus.values()[2] == 150.0


def test_multiplexed_fields_are_taken_only_under_their_selector() -> None:
    fields = [
        {"point": 0, "start": 8, "length": 8, "mux_value": 0},
        {"point": 1, "start": 8, "length": 8, "mux_value": 1},
        {"point": 2, "start": 16, "length": 8},
    ]
    bus = one_frame(mux=(0, 4, False), fields=fields)
    bus.inject(0x100, bytes([0xF1, 7, 9]))
    bus.drain(0)
    assert bus.point(0)[2] == NEVER
    assert bus.values()[1:] == [7.0, 9.0]
    bus.inject(0x100, bytes([0xF2, 8, 10]))
    bus.drain(0)
    assert bus.values()[1:] == [7.0, 10.0]


# ---- which frames count ----


def test_a_short_dialect_leaves_the_missing_field_alone() -> None:
    bus = Bus([LIMITS])
    bus.inject(0x351, bytes.fromhex("1402740E740E"))
    bus.drain(0)
    assert bus.point(2)[2] == GOOD
    assert bus.point(3)[2] == NEVER


@pytest.mark.parametrize(("length", "taken"), [(5, False), (6, True), (8, True)])
def test_a_frame_of_another_length_is_dropped_and_counted(length: int, taken: bool) -> None:
    bus = Bus([LIMITS])
    bus.inject(0x351, bytes(length))
    bus.drain(0)
    assert (bus.frame_stats(0)["count"], bus.frame_stats(0)["bad_length"]) == ((1, 0) if taken else (0, 1))


@pytest.mark.parametrize("can_id", [0x351 | CAN_EFF_FLAG, 0x351 | CAN_RTR_FLAG, 0x350])
def test_other_kinds_of_frame_with_the_number_are_unknown(can_id: int) -> None:
    bus = Bus([LIMITS])
    bus.inject(can_id, bytes(8))
    bus.drain(0)
    assert bus.stats["unknown"] == 1
    assert bus.point(0)[2] == NEVER


def test_eleven_and_29_bit_ids_of_one_number_are_told_apart() -> None:
    rows = [
        {"id": 0x123, "fields": [{"point": 0, "start": 0, "length": 8}]},
        {"id": 0x123, "extended": True, "fields": [{"point": 1, "start": 0, "length": 8}]},
    ]
    bus = Bus(rows)
    bus.inject(0x123, bytes([5] * 8), extended=True)
    bus.drain(0)
    assert bus.point(0)[2] == NEVER
    assert bus.values()[1] == 5.0


def test_a_full_table_of_ids_is_told_apart() -> None:
    ids = [(0x180 + 37 * i) % 0x800 for i in range(128)]
    rows = [{"id": can_id, "fields": [{"point": i, "start": 0, "length": 16}]} for i, can_id in enumerate(ids)]
    bus = Bus(rows)
    for i, can_id in enumerate(ids):
        bus.inject(can_id, (i + 1).to_bytes(8, "little"))
    bus.inject(0x7FF, bytes(8))
    assert bus.drain(0) == 64
    assert bus.drain(0) == 64
    assert bus.drain(0) == 1
    assert bus.values() == [float(i + 1) for i in range(128)]
    assert bus.stats["unknown"] == 1


def test_only_its_own_frame_refreshes_a_point() -> None:
    bus = Bus([LIMITS, STATUS])
    bus.inject(0x351, bytes(8), 1 * MS)
    bus.inject(0x356, bytes(8), 1 * MS)
    bus.drain(1 * MS)
    bus.inject(0x356, bytes(8), 9 * MS)
    bus.drain(9 * MS)
    assert bus.point(0)[1] == 1 * MS
    assert bus.point(4)[1] == 9 * MS


def test_a_frame_is_not_seen_before_it_arrives() -> None:
    bus = Bus([LIMITS])
    bus.inject(0x351, bytes(8), 3 * MS)
    assert bus.drain(2 * MS) == 0
    assert bus.drain(4 * MS) == 1
    assert bus.point(0)[1] == 3 * MS


# ---- live counters and checksums ----

COUNTED = {"counter": (4, 4, False), "fields": [{"point": 0, "start": 8, "length": 8}]}


def test_a_counter_that_stands_still_refreshes_nothing() -> None:
    bus = one_frame(**COUNTED)
    for t in range(1, 8):
        bus.inject(0x100, bytes([0x30, t]), t * MS)
        bus.drain(t * MS)
    assert bus.point(0) == (1.0, 1 * MS, GOOD, 1)
    assert bus.frame_stats(0)["repeated"] == 6
    assert bus.frame_stats(0)["bucket"] >= 5


def test_a_counter_wraps_without_an_error() -> None:
    bus = one_frame(**COUNTED)
    for t in range(40):
        bus.inject(0x100, bytes([(t % 16) << 4, t]), t * MS)
        bus.drain(t * MS)
    assert bus.frame_stats(0)["count"] == 40
    assert bus.values() == [39.0]


def test_after_a_jump_of_the_counter_one_frame_is_ignored() -> None:
    bus = one_frame(**COUNTED)
    for t, counter in enumerate((1, 2, 7, 8, 9)):
        bus.inject(0x100, bytes([counter << 4, t]), t * MS)
    bus.drain(9 * MS)
    stats = bus.frame_stats(0)
    assert (stats["count"], stats["counter_errors"], stats["repeated"]) == (4, 1, 0)


def test_two_senders_of_one_counted_frame_are_a_fault() -> None:
    bus = one_frame(**COUNTED)
    for t in range(20):
        bus.inject(0x100, bytes([(t % 16) << 4, 1]), t * MS)
        bus.inject(0x100, bytes([((t + 8) % 16) << 4, 200]), t * MS)
        bus.drain(t * MS)
    assert bus.frame_stats(0)["bucket"] >= 5
    assert bus.point(0)[3] <= 2


# CRC-8 check values over "123456789": J1850 0x4B, AUTOSAR H2F 0xDF (catalogue of parametrised CRC algorithms).
@pytest.mark.parametrize(
    ("kind", "check"), [("crc8-j1850", 0x4B), ("crc8-autosar", 0xDF), ("sum8", 0xDD), ("xor8", 0x31)]
)
def test_checksums_have_their_published_check_value(kind: str, check: int) -> None:
    assert Bus().checksum(kind, 0x100, b"123456789", 99) == check


def test_the_orion_cell_frame_has_its_documented_checksum() -> None:
    data = bytes([3, 0x8F, 0x12, 0x40, 0, 0x90, 1])
    expected = (0x36 + 8 + sum(data)) & 0xFF
    bus = Bus([{"id": 0x036, "crc": ("sum-orion", 7), "fields": [{"point": 0, "start": 0, "length": 8}]}])
    bus.inject(0x036, data + bytes([expected]))
    bus.inject(0x036, data + bytes([expected ^ 1]))
    bus.drain(0)
    assert (bus.frame_stats(0)["count"], bus.frame_stats(0)["crc_errors"]) == (1, 1)


@pytest.mark.parametrize("kind", CRC_NAMES[1:])
def test_any_flipped_bit_is_refused(kind: str) -> None:
    row = {"id": 0x100, "crc": (kind, 3), "fields": [{"point": 0, "start": 0, "length": 8}]}
    data = bytearray(b"\x01\x22\x37\x00\x91\x5a\xff\x00")
    data[3] = Bus().checksum(kind, 0x100, bytes(data), 3)
    bus = Bus([row])
    for bit in range(64):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        bus.inject(0x100, bytes(flipped))
    bus.drain(0)
    assert bus.frame_stats(0)["crc_errors"] == 64
    assert bus.point(0)[2] == NEVER
    assert bus.frame_stats(0)["bucket"] == 10


# ---- periods ----


def test_the_period_of_an_id_is_learned_and_its_longest_gap_kept() -> None:
    bus = Bus([LIMITS])
    t = 0
    for gap in (100, 100, 101, 99, 100, 1500, 100, 100):
        t += gap * MS
        bus.inject(0x351, bytes(8), t)
        bus.drain(t)
    stats = bus.frame_stats(0)
    assert abs(stats["period_ns"] - 100 * MS) < 2 * MS
    assert stats["gap_max_ns"] == 1500 * MS


def test_frames_faster_than_twice_their_rate_are_counted() -> None:
    bus = one_frame(period_ns=100 * MS)
    for t in (0, 100, 149, 200, 300):
        bus.inject(0x100, b"", (t + 1) * MS)
    bus.drain(999 * MS)
    assert bus.frame_stats(0)["early"] == 1


# ---- error frames ----


@pytest.mark.parametrize(
    ("flags", "data1", "state"),
    [
        (0x4, 0x08, "warning"),
        (0x4, 0x20, "passive"),
        (0x4, 0x10, "passive"),
        (0x40, 0, "bus-off"),
        (0x4, 0x40, "active"),
    ],
)
def test_error_frames_move_the_bus_state(flags: int, data1: int, state: str) -> None:
    bus = Bus([LIMITS])
    bus.inject(CAN_ERR_FLAG | flags | 0x200, bytes([0, data1, 0, 0, 0, 0, 130, 12]))
    bus.drain(0)
    stats = bus.stats
    assert stats["state"] == state
    assert (stats["error_frames"], stats["tec"], stats["rec"]) == (1, 130, 12)


def test_bus_off_makes_the_points_stale_at_once_and_only_a_frame_makes_them_good() -> None:
    bus = Bus([LIMITS, STATUS])
    bus.inject(0x351, bytes(8), 1)
    bus.inject(0x356, struct.pack("<hhh", 0, 0, 9999), 1)
    bus.drain(1)
    bus.inject(CAN_ERR_FLAG | 0x40, bytes(8), 2)
    bus.drain(2)
    assert bus.point(0) == (0.0, 1, STALE, 1)
    assert bus.point(6)[2] == INVALID, "not believable stays what it was"
    bus.inject(CAN_ERR_FLAG | 0x100, bytes(8), 3)
    bus.drain(3)
    assert bus.point(0)[2] == STALE, "a restart is no reading"
    bus.inject(0x351, bytes(8), 4)
    bus.drain(4)
    assert bus.point(0)[2] == GOOD
    assert bus.point(4)[2] == STALE


def test_a_lost_descriptor_makes_the_points_stale_at_once(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    bus = Bus([LIMITS], fd=near.fileno())
    far.send(frame_bytes(0x351, bytes(8)))
    bus.drain(1)
    assert bus.point(0)[2] == GOOD
    far.close()
    bus.drain(2)
    assert bus.point(0)[2] == STALE


def test_a_restart_after_bus_off_makes_the_bus_active() -> None:
    bus = Bus([LIMITS])
    bus.inject(CAN_ERR_FLAG | 0x40, bytes(8))
    bus.drain(0)
    bus.inject(CAN_ERR_FLAG | 0x100, bytes(8))
    bus.drain(0)
    assert (bus.stats["state"], bus.stats["bus_off"], bus.stats["restarts"]) == ("active", 1, 1)


# ---- descriptors ----


def test_frames_come_through_a_descriptor_in_bounded_batches(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    bus = Bus([LIMITS], fd=near.fileno())
    for i in range(100):
        far.send(frame_bytes(0x351, struct.pack("<HhhH", i, i, i, i)))
    assert bus.drain(1 * MS) == 64
    assert bus.drain(2 * MS) == 36
    assert bus.drain(3 * MS) == 0
    assert bus.values()[0] == pytest.approx(9.9)
    assert bus.point(0)[1] == 2 * MS
    assert bus.accounted() == bus.stats["frames"] == 100


@pytest.mark.parametrize("junk", [b"x", b"x" * 15, b"x" * 17, b"x" * 71, struct.pack("=IB3x8s", 0x351, 9, bytes(8))])
def test_datagrams_that_are_no_frames_are_counted(pair: tuple[socket.socket, socket.socket], junk: bytes) -> None:
    near, far = pair
    bus = Bus([LIMITS], fd=near.fileno())
    far.send(junk)
    assert bus.drain(0) == 1
    assert bus.stats["malformed"] == bus.accounted() == 1


def test_an_fd_frame_for_a_classic_row_is_refused(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    bus = Bus([LIMITS], fd=near.fileno())
    far.send(struct.pack("=IBB2x64s", 0x351, 8, 0, bytes(8)))
    bus.drain(0)
    assert bus.frame_stats(0)["bad_length"] == 1


def test_a_far_end_that_closes_takes_the_bus_down_for_good(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    bus = Bus([LIMITS], [{"id": 0x305, "data": bytes(8), "period_ns": MS}], fd=near.fileno())
    far.send(frame_bytes(0x351, bytes(8)))
    far.close()
    assert bus.drain(1 * MS) >= 1
    assert bus.drain(2 * MS) < 0
    assert bus.stats["state"] == "down"
    assert bus.handle().dead
    assert bus.send_due(2 * MS) < 0
    assert bus.accounted() == bus.stats["frames"]


def test_a_fresh_descriptor_is_taken_by_the_next_read_and_the_old_one_given_back(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    near, far = pair
    bus = Bus([LIMITS], fd=near.fileno())
    keeper = bus.handle()
    far.close()
    bus.drain(1 * MS)
    fresh, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with fresh, peer:
        assert keeper.retired() is None
        assert keeper.hand_over(fresh.fileno())
        assert not keeper.hand_over(fresh.fileno()), "one at a time"
        peer.send(frame_bytes(0x351, bytes(8)))
        assert bus.drain(2 * MS) == 1
        assert keeper.retired() == near.fileno()
        assert not keeper.dead and keeper.state == "active"


# ---- transmit ----

ALIVE = {"id": 0x305, "data": bytes(8), "period_ns": 1000 * MS}


def test_cyclic_frames_stay_on_their_grid_however_late_the_cycles_are() -> None:
    bus = Bus(tx=[{"id": 0x210, "data": b"\x01", "period_ns": 100 * MS}])
    t0 = 5_000 * MS + 123
    t, late = t0, (0, 3, 1, 4, 0, 2, 4, 1)  # of a 5 ms cycle, each late by its own amount, never adding up
    for k in range(1, 1000):
        bus.send_due(t)
        t = t0 + k * 5 * MS + late[k % 8] * MS
    sent = [t for t, _, _ in bus.sent()]
    assert len(sent) == 50
    for k, t in enumerate(sent):
        assert 0 <= t - (t0 + k * 100 * MS) <= 4 * MS
    assert bus.stats["tx_late_max_ns"] <= 4 * MS
    assert bus.stats["tx_skipped"] == 0


def test_a_grid_begun_in_a_late_cycle_is_kept_by_cycles_in_time() -> None:
    bus = Bus(tx=[{"id": 0x210, "data": b"\x01", "period_ns": 10 * MS}], cycle_ns=MS)
    late = MS // 20
    bus.send_due(late)
    for cycle in range(1, 1000):
        bus.send_due(cycle * MS)
    sent = [t for t, _, _ in bus.sent()]
    assert sent == [late] + [k * 10 * MS for k in range(1, 100)]


@settings(max_examples=200, deadline=None)
@example(cycle_us=250, cycles=1, lates=[0.25, 0.0, 0.4375])
@given(
    cycle_us=st.sampled_from([250, 1000, 10_000]),
    cycles=st.integers(1, 400),
    lates=st.lists(st.floats(0, 0.45), min_size=1, max_size=20),
)
def test_every_frame_leaves_within_half_a_cycle_and_the_lateness_of_it(
    cycle_us: int, cycles: int, lates: list[float]
) -> None:
    cycle_ns = cycle_us * 1000
    period_ns = cycles * cycle_ns // 3 + cycle_ns  # no multiple of the cycle
    bus = Bus(tx=[{"id": 0x210, "data": b"\x01", "period_ns": period_ns}], cycle_ns=cycle_ns)
    sent: list[int] = []
    for k in range(2000):
        bus.send_due(10**9 + k * cycle_ns + int(lates[k % len(lates)] * cycle_ns))
        sent += [t for t, _, _ in bus.sent()]
    t0 = sent[0]
    for number, t_ns in enumerate(sent):
        assert abs(t_ns - (t0 + number * period_ns)) <= cycle_ns * 0.96
    assert bus.stats["tx_skipped"] == 0


def test_a_stall_is_not_followed_by_a_burst() -> None:
    bus = Bus(tx=[{**ALIVE, "period_ns": 10 * MS}])
    bus.send_due(1000 * MS)
    bus.sent()
    bus.send_due(1057 * MS)
    bus.send_due(1058 * MS)
    bus.send_due(1060 * MS)
    assert [t for t, _, _ in bus.sent()] == [1057 * MS, 1060 * MS]
    assert bus.stats["tx_skipped"] == 4


def test_a_heartbeat_waits_for_the_gate_and_keeps_its_grid() -> None:
    bus = Bus(tx=[{**ALIVE, "heartbeat": True, "unit": 1, "period_ns": 10 * MS}], n_units=2)
    for t, ok in ((0, False), (10, True), (20, False), (30, True)):
        bus.send_due(t * MS, [not ok, ok])
    assert [t for t, _, _ in bus.sent()] == [10 * MS, 30 * MS]


def test_a_heartbeat_for_all_units_needs_every_gate() -> None:
    bus = Bus(tx=[{**ALIVE, "heartbeat": True, "unit": -1, "period_ns": MS}], n_units=2)
    for t, oks in enumerate([(True, False), (False, True), (True, True), (False, False)]):
        bus.send_due(t * MS, oks)
    assert [t for t, _, _ in bus.sent()] == [2 * MS]


def test_a_running_counter_counts_frames_that_went_out() -> None:
    row = {"id": 0x18F, "extended": True, "data": b"\xff\xf0", "period_ns": MS, "counter": (8, 2)}
    bus = Bus(tx=[row])
    for t in range(5):
        bus.send_due(t * MS)
    frames = bus.sent()
    assert [data[1] & 3 for _, _, data in frames] == [0, 1, 2, 3, 0]
    assert all(data[0] == 0xFF and data[1] & 0xFC == 0xF0 for _, _, data in frames)
    assert frames[0][1] == 0x18F | CAN_EFF_FLAG


def test_a_full_queue_is_tried_again_in_the_next_cycle(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    near.setblocking(False)
    bus = Bus(tx=[ALIVE], fd=near.fileno())
    filler = frame_bytes(0x7FF, bytes(8))
    with pytest.raises(BlockingIOError):
        while True:
            near.send(filler)
    assert bus.send_due(1 * MS) < 0
    assert bus.stats["tx_failed_run"] == 1 and bus.stats["state"] == "active"
    far.recv(72)
    assert bus.send_due(2 * MS) == 1
    assert bus.stats["tx_failed_run"] == 0
    assert bus.send_due(999 * MS) == 0
    far.setblocking(False)
    rest = []
    with pytest.raises(BlockingIOError):
        while True:
            rest.append(far.recv(72))
    assert rest[-1] == frame_bytes(0x305, bytes(8))


def test_the_grid_counts_from_the_first_write_phase() -> None:
    bus = Bus(tx=[ALIVE])
    assert bus.send_due(777 * MS) == 1
    assert bus.send_due(1776 * MS) == 0
    assert bus.send_due(1777 * MS) == 1


# ---- rows that do not fit ----


@pytest.mark.parametrize(
    "field",
    [
        {"point": -1, "start": 0, "length": 8},
        {"point": 1024, "start": 0, "length": 8},
        {"point": 0, "start": 0, "length": 0},
        {"point": 0, "start": 0, "length": 65},
        {"point": 0, "start": 57, "length": 8},
        {"point": 0, "start": 56, "length": 9, "big_endian": True},
        {"point": 0, "start": 0, "length": 16, "float": True},
    ],
)
def test_a_field_that_does_not_fit_its_frame_is_refused(field: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        one_frame(fields=[field])


def test_a_program_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="program has 3 bytes"):
        Bus(program=b"abc")


def test_a_retired_descriptor_is_open_until_its_owner_closes_it(pair: tuple[socket.socket, socket.socket]) -> None:
    near, _ = pair
    spare = os.dup(near.fileno())
    bus = Bus([LIMITS], fd=spare)
    keeper = bus.handle()
    keeper.hand_over(near.fileno())
    bus.drain(0)
    given_back = keeper.retired()
    assert given_back == spare
    os.close(spare)


def test_counters_of_a_bus_are_listed_by_id_as_candump_writes_it() -> None:
    bus = Bus([LIMITS, {"id": 0x4210, "extended": True}])
    bus.inject(0x351, bytes(8))
    bus.inject(0x4210, bytes(8), extended=True)
    bus.inject(0x4210, bytes(7), extended=True)
    bus.drain(5)
    ids = bus.handle().ids
    assert {name: (row["count"], row["bad_length"]) for name, row in ids.items()} == {"351": (1, 0), "00004210": (1, 1)}
