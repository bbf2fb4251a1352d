"""Registers to values and back, against the vectors of manuals and of the standards."""

import math
import random
import struct

import pytest

from tidegate.ext.abi import program
from tidegate.ext.bus.registers import decode, encode

T = program.FIELD_TYPES
NEVER, GOOD, HELD, STALE, INVALID = 0, 1, 2, 3, 4
LOW_FIRST, SWAP, SENTINEL, SF, ACC, ONE_OF, LESS = 2, 4, 1, 8, 16, 32, 128


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


def test_a_value_takes_the_factor_of_its_own_reading_and_of_no_other():
    """SunSpec 203: 4500 with a factor that moved from 0 to 1 is 45 kW; with the factor of before it was 4.5 kW."""
    fields = [
        {"point": "d.p0", "offset": 0, "type": 1, "flags": SF, "sf_point": "d.p1"},
        {"point": "d.p1", "offset": 4, "type": 8},
    ]
    blob, first = built(fields)
    before = {first: (4500.0, 1, GOOD, 7), first + 1: (0.0, 1, GOOD, 7)}
    found = decode(blob, 0, [4500, 0, 0, 0, 1] + [0] * 5, before)
    assert found[first][:1] == (45000.0,)
    assert found[first + 1][0] == 1.0


@pytest.mark.parametrize("factor", [0x8000, 11, 0xFFF5])
def test_a_value_without_its_scale_factor_is_invalid_whatever_the_factor_was_before(factor):
    fields = [
        {"point": "d.p1", "offset": 1, "type": 8},
        {"point": "d.p0", "offset": 0, "type": 1, "flags": SF, "sf_point": "d.p1"},
    ]
    blob, first = built(fields)
    before = {first: (5.0, 1, GOOD, 1), first + 1: (0.0, 1, GOOD, 1)}
    found = decode(blob, 0, [5, factor] + [0] * 8, before)
    assert found[first][0] == 5.0 and found[first][2] == INVALID
    assert found[first + 1][2] == INVALID


def test_a_program_whose_value_and_factor_are_read_apart_is_refused():
    with pytest.raises(ValueError, match="field"):
        built([{"point": "d.p0", "offset": 0, "type": 1, "flags": SF, "sf_point": "d.p1"}])


# ---- a factor that is read in a request of its own ----

VALUES, FACTORS = 0, 1


def apart(poll=0, period_ns=0, **more):
    """A value that waits in block 0, its factor in block 1. Points: value, factor, the number that waits."""
    points = [{"name": f"d.p{i}", "unit": "W"} for i in range(3)]
    value = {"point": "d.p0", "offset": 0, "type": 1, "flags": SF, "sf_point": "d.p1", "held_point": "d.p2", **more}
    blocks = [
        {"address": 0, "count": 5, "fields": [value]},
        {"address": 100, "count": 1, "fields": [{"point": "d.p1", "offset": 0, "type": 8}], "factors": 1,
         "poll_class": poll, "period_ns": period_ns},
    ]  # fmt: skip
    blob = program.pack({
        "points": points, "units": [{"energy_wh": 1.0}],
        "ports": [{"baud": 9600, "slaves": [{"unit_id": 1, "blocks": blocks}]}],
    })  # fmt: skip
    return blob, len(program.standard_points(1))


def played(blob, first, readings):
    """The image's three points after each reading of (block, words); a reading a nanosecond from 1 on."""
    points: dict[int, tuple] = {}
    rows = []
    for t_ns, (block, regs) in enumerate(readings, 1):
        found = decode(blob, block, regs + [0] * 5, points, t_ns=t_ns)
        points.update(found)
        rows.append(points.get(first, (math.nan, 0, NEVER, 0)))
    return rows


def test_a_value_counts_when_its_factor_was_the_same_before_and_after_it():
    blob, first = apart()
    rows = played(blob, first, [(FACTORS, [1]), (VALUES, [4500]), (FACTORS, [1]), (FACTORS, [1]), (VALUES, [4400])])
    assert rows[1][2] == NEVER
    assert rows[2] == (45000.0, 2, GOOD, 1)  # by the time of its own reading
    assert rows[3] == rows[4] == rows[2]  # once, and the next one waits


def test_a_value_before_any_factor_never_counts():
    blob, first = apart()
    rows = played(blob, first, [(VALUES, [4500]), (FACTORS, [1]), (FACTORS, [1])])
    assert all(row[2] == NEVER for row in rows)


def test_a_value_beside_a_factor_that_moves_is_left_out():
    """The meter goes from W_SF 0 to 1: 4500 may be 4.5 kW or 45 kW."""
    blob, first = apart()
    begin = [(FACTORS, [0]), (VALUES, [4400]), (FACTORS, [0])]
    for moved in ([(VALUES, [4500]), (FACTORS, [1])], [(VALUES, [450]), (FACTORS, [1])]):
        rows = played(blob, first, begin + moved)
        assert rows[-1] == (4400.0, 2, HELD, 1)
        rows = played(blob, first, [*begin, *moved, (VALUES, [450]), (FACTORS, [1])])
        assert rows[-1] == (4500.0, 6, GOOD, 2)


@pytest.mark.parametrize("factor", [0x8000, 11, 0xFFF5])
def test_a_value_beside_what_is_no_factor_is_invalid(factor):
    blob, first = apart()
    rows = played(
        blob, first, [(FACTORS, [0]), (VALUES, [4400]), (FACTORS, [0]), (VALUES, [4500]), (FACTORS, [factor])]
    )
    assert rows[-1][0] == 4400.0 and rows[-1][2] == INVALID


def test_what_needs_no_factor_to_be_no_value_is_invalid_at_once():
    blob, first = apart(flags=SF | SENTINEL, sentinel=0x8000)
    rows = played(blob, first, [(FACTORS, [0]), (VALUES, [4400]), (FACTORS, [0]), (VALUES, [0x8000]), (FACTORS, [0])])
    assert rows[3][2] == INVALID and rows[4] == rows[3]
    blob, first = apart(max=5000.0)
    rows = played(blob, first, [(FACTORS, [1]), (VALUES, [501]), (FACTORS, [1])])
    assert rows[-1][2] == INVALID


def test_half_of_a_number_that_waits_is_not_taken_for_the_number():
    blob, first = apart(type=2)
    begin = [(FACTORS, [0]), (VALUES, [0x0001, 0xFFF0]), (FACTORS, [0])]
    rows = played(
        blob, first, [*begin, (VALUES, [0x0001, 0x0004]), (FACTORS, [0]), (VALUES, [0x0002, 0x0004]), (FACTORS, [0])]
    )
    assert rows[4][0] == 0x1FFF0 and rows[4][2] == HELD
    assert rows[6][0] == 0x20004 and rows[6][2] == GOOD


@pytest.mark.parametrize("seed", range(4))
def test_of_a_factor_that_moves_at_any_moment_no_value_is_wrong(seed):
    """5,000 readings beside a factor that moves between two requests, but not twice between two reads of it."""
    chance = random.Random(seed)
    blob, first = apart()
    points: dict[int, tuple] = {}
    watts, scale, moved, believed, read = 12_000, 1, 0, 0, {}
    for t_ns in range(1, 5_001):
        watts = max(-30_000, min(30_000, watts + chance.randrange(-4_000, 4_001, 100)))
        if t_ns - moved > 9 and chance.random() < 0.2:
            scale, moved = chance.choice([0, 1, 2]), t_ns
        if chance.random() < 0.1:
            continue  # no answer
        block = t_ns % 2
        words = [watts // 10**scale & 0xFFFF] if block == VALUES else [scale]
        read[t_ns] = watts // 10**scale * 10**scale
        points.update(decode(blob, block, words + [0] * 5, points, t_ns=t_ns))
        value, at_ns, quality, _ = points.get(first, (math.nan, 0, NEVER, 0))
        if quality == GOOD:
            assert value == read[at_ns], (t_ns, at_ns)
            believed += at_ns > t_ns - 3
    assert believed > 1_000


@pytest.mark.parametrize(
    "wrong", [{"poll": 1}, {"period_ns": 5}, {"flags": SF | LESS}, {"held_point": -1}, {"flags": 0}]
)
def test_a_factor_that_is_not_read_around_its_value_is_refused(wrong):
    with pytest.raises(ValueError, match="field"):
        apart(**wrong)


def words(value, count):
    raw = value & ((1 << 16 * count) - 1)
    return [raw >> 16 * (count - 1 - i) & 0xFFFF for i in range(count)] + [0] * (10 - count)


@pytest.mark.parametrize(
    ("type_number", "count", "before", "torn", "after"),
    [
        (3, 2, -5, 0xFFFF0005, 5),  # s32 over zero, the high word late
        (3, 2, -5, 0x0000FFFB, 5),  # the low word late
        (2, 2, 0x1FFF0, 0x10004, 0x20004),
        (2, 2, 0x20004, 0x2FFF0, 0x1FFF0),
        (4, 4, 0x1FFFFFFF0, 0x100000004, 0x200000004),
    ],
)
def test_half_of_a_number_is_not_taken_for_the_number(type_number, count, before, torn, after):
    blob, first = built([{"point": "d.p0", "offset": 0, "type": type_number}])
    held = decode(blob, 0, words(torn, count), {first: (float(before), 1, GOOD, 9)}, t_ns=5)[first]
    assert held == (float(before), 1, HELD, 9), "the value before, and its age"
    assert decode(blob, 0, words(after, count), {first: held}, t_ns=6)[first] == (float(after), 6, GOOD, 10)


def test_a_number_that_really_went_so_far_is_taken_at_the_second_reading():
    blob, first = built([{"point": "d.p0", "offset": 0, "type": 3}])
    held = decode(blob, 0, words(65540, 2), {first: (3.0, 1, GOOD, 9)}, t_ns=5)[first]
    assert held[2] == HELD
    assert decode(blob, 0, words(65540, 2), {first: held}, t_ns=6)[first][:3] == (65540.0, 6, GOOD)


@pytest.mark.parametrize("after", [30_000, 50_000, 65_536 + 20_000, 100_000, -40_000])
def test_other_steps_are_taken_at_once(after):
    blob, first = built([{"point": "d.p0", "offset": 0, "type": 3}])
    assert decode(blob, 0, words(after, 2), {first: (3.0, 1, GOOD, 9)})[first][2] == GOOD


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


@pytest.mark.parametrize("quality", [NEVER, STALE, INVALID])
def test_a_scale_that_is_not_known_now_is_not_written_by_but_zero_is_zero(quality):
    row = {"type": 1, "flags": SF, "sf_point": "d.p3"}
    assert command(12340.0, {3: (1.0, 5, quality, 1)}, **row) == []
    assert command(0.0, {3: (1.0, 5, quality, 1)}, **row) == [0]


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


OPTIONAL = {"point": "d.p0", "type": 0, "optional": 1}
ONE_OF = program.FIELD_FLAGS["one_of"]


@pytest.mark.parametrize(
    ("regs", "value", "quality"),
    [
        ([3, 0, 0], 1.0, GOOD),
        ([4, 1, 1], 0.0, GOOD),  # what is there counts, whatever the others say
        ([0xFFFF, 1, 0], 1.0, GOOD),
        ([0xFFFF, 0xFFFF, 1], 1.0, GOOD),
        ([0xFFFF, 0xFFFF, 0], 0.0, GOOD),
        ([0xFFFF, 0xFFFF, 0xFFFF], None, INVALID),
    ],
)
def test_the_first_of_several_rows_that_the_device_has_is_the_point(regs, value, quality):
    rows = [
        {**OPTIONAL, "offset": 0, "flags": ONE_OF, "sentinel": 1 << 3, "others": 2},
        {**OPTIONAL, "offset": 1, "flags": ONE_OF, "sentinel": 1 << 1},
        {**OPTIONAL, "offset": 2, "flags": ONE_OF, "sentinel": 1 << 1},
        {"point": "d.p1", "offset": 3},
    ]
    blob, first = built(rows)
    read_now = decode(blob, 0, [*regs, 77] + [0] * 16, {first: (0.5, 1, GOOD, 3)}, t_ns=9)
    assert read_now[first][2] == quality and read_now[first][0] == (0.5 if value is None else value)
    assert read_now[first + 1][0] == 77.0, "the row behind the last of them is another point"


@pytest.mark.parametrize(
    "wrong",
    [
        {"optional": 0},
        {"others": 2},  # past the block's last row
        {"others": 255},
        {"optional": 2},
    ],
)
def test_rows_in_the_place_of_another_are_checked(wrong):
    rows = [{**OPTIONAL, "offset": 0, "others": 1, **wrong}, {**OPTIONAL, "offset": 1}]
    with pytest.raises(ValueError, match="field"):
        built(rows)


def test_a_row_of_another_point_is_nobodys_other():
    with pytest.raises(ValueError, match="field"):
        built([{**OPTIONAL, "offset": 0, "others": 1}, {**OPTIONAL, "offset": 1, "point": "d.p1"}])
