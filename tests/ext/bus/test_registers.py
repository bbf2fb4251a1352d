"""Registers to values and back, against the vectors of manuals and of the standards."""

import math
import struct

import pytest

from tidegate.ext.abi import program
from tidegate.ext.bus.registers import decode, encode

T = program.FIELD_TYPES
NEVER, GOOD, INVALID = 0, 1, 4
LOW_FIRST, SWAP, SENTINEL, SF, ACC, ONE_OF = 2, 4, 1, 8, 16, 32


def built(fields=(), commands=(), function=3, count=20):
    points = [{"name": f"d.p{i}", "unit": "W"} for i in range(8)]
    block = {"function": function, "address": 0, "count": count, "fields": list(fields)}
    slave = {"unit_id": 1, "blocks": [block], "commands": list(commands)}
    port = {"baud": 9600, "slaves": [slave]}
    blob = program.pack({"points": points, "units": [{"energy_wh": 1.0}], "ports": [port]})
    first = len(program.standard_points(1))
    return blob, first


def read(regs, before=None, function=3, **field):
    blob, first = built([{"point": "d.p0", "offset": 0, **field}], function=function)
    return decode(blob, 0, regs, {first + i: row for i, row in (before or {}).items()}, t_ns=77)[first]


@pytest.mark.parametrize(
    ("type", "flags", "scale", "regs", "value"),
    [
        (6, 0, 1.0, [0x4366, 0x3333], struct.unpack(">f", bytes.fromhex("43663333"))[0]),  # Eastron: 230.2 V
        (3, LOW_FIRST, 0.1, [0x08FE, 0x0000], 230.2),  # Carlo Gavazzi
        (3, LOW_FIRST, 0.1, [0xFFFF, 0xFFFF], -0.1),
        (4, 0, 0.01, [0, 0, 0, 0x3039], 123.45),  # ABB energy
        (3, 0, 0.01, [0xFFFF, 0xD8F0], -100.0),  # ABB power
        (0, 0, 1.0, [0xFFFE], 65534.0),
        (1, 0, 10.0, [0xFFFE], -20.0),
        (2, 0, 1.0, [0x0001, 0x0000], 65536.0),
        (5, 0, 1.0, [0xFFFF, 0xFFFF, 0xFFFF, 0xFFFD], -3.0),
        (7, 0, 1.0, [0x4009, 0x21FB, 0x5444, 0x2D18], math.pi),
        (7, LOW_FIRST, 1.0, [0x2D18, 0x5444, 0x21FB, 0x4009], math.pi),
        (0, SWAP, 1.0, [0x3412], 0x1234),
        (2, SWAP | LOW_FIRST, 1.0, [0x7856, 0x3412], 0x12345678),
    ],
)
def test_each_type_and_word_order_gives_the_value_of_its_manual(type, flags, scale, regs, value):
    got, t_ns, quality, changes = read(regs + [0] * 16, type=type, flags=flags, scale=scale)
    assert got == pytest.approx(value, rel=1e-12)
    assert (t_ns, quality, changes) == (77, GOOD, 1)


def test_bits_are_cut_from_their_word():
    assert read([0b1011_0000] + [0] * 9, type=9, bit_first=4, bit_count=3)[0] == 0b011


def test_coils_are_read_by_bit_offset():
    blob, first = built([{"point": "d.p0", "offset": 17, "type": 9, "bit_count": 2}], function=1, count=40)
    assert decode(blob, 0, [0x0000, 0b0000_0110, 0])[first][0] == 0b11
    assert decode(blob, 0, [0xFFFF, 0b1111_1001, 0])[first][0] == 0


def test_one_of_turns_an_enumeration_into_yes_or_no():
    running = (1 << 3) | (1 << 5)
    assert [read([state] + [0] * 9, type=0, flags=ONE_OF, sentinel=running)[0] for state in (2, 3, 5, 70)] == [
        0,
        1,
        1,
        0,
    ]


@pytest.mark.parametrize(
    ("regs", "row"),
    [
        ([0x8000], {"type": 1, "flags": SENTINEL, "sentinel": 0x8000}),
        ([0xFFFF] * 4, {"type": 4, "flags": SENTINEL, "sentinel": 2**64 - 1}),
        ([0x7FC0, 0], {"type": 6}),  # NaN
        ([0x7F80, 0], {"type": 6}),  # infinity
        ([501], {"type": 0, "min": 0.0, "max": 500.0}),
        ([0, 0], {"type": 2, "flags": ACC}),
        ([0x8000], {"type": 8}),
        ([11], {"type": 8}),
    ],
)
def test_what_is_not_believable_keeps_value_time_and_count(regs, row):
    before = {0: (41.0, 5, GOOD, 9)}
    assert read(regs + [0] * 16, before, **row) == (41.0, 5, INVALID, 9)


@pytest.mark.parametrize(("value", "quality"), [(500, GOOD), (0, GOOD), (501, INVALID)])
def test_the_range_includes_its_ends(value, quality):
    assert read([value] + [0] * 9, type=0, min=0.0, max=500.0)[2] == quality


def test_a_failed_transaction_changes_no_point():
    blob, first = built([{"point": "d.p0", "offset": 0}])
    for status in range(1, 7):
        assert decode(blob, 0, [5] * 20, {first: (1.0, 2, GOOD, 3)}, t_ns=9, status=status)[first] == (1.0, 2, GOOD, 3)


def test_a_scale_factor_counts_in_the_same_block_wherever_it_stands():
    fields = [
        {"point": "d.p0", "offset": 0, "type": 1, "flags": SF, "sf_point": "d.p1"},
        {"point": "d.p1", "offset": 1, "type": 8},
    ]
    blob, first = built(fields)
    found = decode(blob, 0, [12345, 0xFFFE] + [0] * 8)
    assert found[first][0] == 123.45
    assert found[first + 1][0] == -2.0
    assert decode(blob, 0, [12, 3] + [0] * 8)[first][0] == 12000.0


@pytest.mark.parametrize("scale", [None, (float("nan"), 0, NEVER, 0), (2.0, 5, INVALID, 1)])
def test_a_value_without_its_scale_factor_is_invalid(scale):
    fields = [{"point": "d.p0", "offset": 0, "type": 1, "flags": SF, "sf_point": "d.p1"}]
    blob, first = built(fields)
    before = {} if scale is None else {first + 1: scale}
    assert decode(blob, 0, [5] * 10, before)[first][2] == INVALID


def command(value, points=None, **row):
    blob, first = built(commands=[{"kind": 1, "function": 16, "unit": 0, "address": 5, **row}])
    return encode(blob, 0, value, {first + i: point for i, point in (points or {}).items()})


@pytest.mark.parametrize(
    ("row", "value", "regs"),
    [
        ({"type": 1, "scale": 1.0}, -5.0, [0xFFFB]),
        ({"type": 1, "scale": -100.0}, 5000.0, [0xFFCE]),  # charge counted positive, 100 W a step
        ({"type": 3}, -70000.0, [0xFFFE, 0xEE90]),
        ({"type": 3, "flags": LOW_FIRST}, -70000.0, [0xEE90, 0xFFFE]),
        ({"type": 6}, 230.2, [0x4366, 0x3333]),
        ({"type": 7}, math.pi, [0x4009, 0x21FB, 0x5444, 0x2D18]),
        ({"type": 0, "flags": SWAP}, 0x1234, [0x3412]),
    ],
)
def test_a_value_is_written_as_its_row_says(row, value, regs):
    assert command(value, **row) == regs


@pytest.mark.parametrize(
    ("value", "raw"), [(149.0, 1), (199.9, 1), (-199.9, -1), (200.0, 2), (-0.4, 0), (99.9999999999, 1)]
)
def test_a_coarse_register_never_rounds_a_setpoint_up(value, raw):
    assert command(value, type=1, scale=100.0) == [raw & 0xFFFF]


@pytest.mark.parametrize(
    ("row", "value"),
    [
        ({"type": 1}, 32768.0),
        ({"type": 1}, -32769.0),
        ({"type": 0}, -1.0),
        ({"type": 0}, 65536.0),
        ({"type": 3}, 2.0**31),
        ({"type": 6}, 1e39),
        ({"type": 1}, float("nan")),
        ({"type": 1}, float("inf")),
        ({"type": 1, "flags": SF, "sf_point": "d.p3"}, 5.0),  # scale not read yet
    ],
)
def test_what_the_register_cannot_hold_is_not_written(row, value):
    assert command(value, **row) == []


def test_a_setpoint_follows_the_devices_scale_factor():
    row = {"type": 1, "flags": SF, "sf_point": "d.p3"}
    assert command(12340.0, {3: (1.0, 5, GOOD, 1)}, **row) == [1234]
    assert command(12.5, {3: (-2.0, 5, GOOD, 1)}, **row) == [1250]


def test_what_is_encoded_decodes_to_itself_within_one_step():
    for value in (-31000.0, -1.0, 0.0, 7.0, 29999.0):
        for type_number, scale in ((1, 1.0), (3, 0.1), (6, 1.0), (5, 0.01)):
            regs = command(value, type=type_number, scale=scale)
            assert read(regs + [0] * 16, type=type_number, scale=scale)[0] == pytest.approx(value, abs=abs(scale))


@pytest.mark.parametrize(("word", "quality"), [(4711, GOOD), (4710, INVALID), (0, INVALID)])
def test_a_range_of_one_value_is_a_range(word, quality):
    assert read([word] + [0] * 9, type=0, min=4711.0, max=4711.0)[2] == quality
