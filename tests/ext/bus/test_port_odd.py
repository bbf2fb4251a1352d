"""Devices that answer oddly, through the thread of a real port on a pty: what is believed of them, and what is not."""

import copy
import os
import select
import struct
import threading
import time
import tomllib
import tty
from importlib.resources import files

import pytest

from tidegate.config.compile import compile_site
from tidegate.config.site import parse_site
from tidegate.ext.abi import program
from tidegate.ext.bus.port import Port
from tidegate.ext.bus.registers import decode
from tidegate.ext.bus.rtu_view import crc

MS = 1_000_000
GOOD, INVALID = 1, 4
SITE = tomllib.loads(files("tidegate.config").joinpath("sites/simulated.toml").read_text(encoding="utf-8"))


class Odd(threading.Thread):
    """A slave whose answers a test makes: `answer(request)` gives the bytes, checksum included."""

    def __init__(self, fd):
        super().__init__(daemon=True)
        self.fd, self.ended, self.asked, self.regs = fd, False, [], {}
        self.answer = self.honest

    def run(self):
        held = b""
        while not self.ended:
            if not select.select([self.fd], [], [], 0.02)[0]:
                continue
            held += os.read(self.fd, 512)
            while len(held) >= 8:
                frame, held = held[:8], held[8:]
                self.asked.append(frame)
                os.write(self.fd, self.answer(frame))

    def words(self, frame):
        address, count = struct.unpack(">HH", frame[2:6])
        return b"".join(struct.pack(">H", self.regs.get(address + i, 7)) for i in range(count))

    def honest(self, frame):
        data = self.words(frame)
        return sealed(frame[:2] + bytes([len(data)]) + data)


def sealed(body):
    return body + struct.pack("<H", crc(body))


@pytest.fixture
def odd():
    ours, theirs = os.openpty()
    tty.setraw(ours)
    tty.setraw(theirs)
    device = Odd(ours)
    device.start()
    yield theirs, device
    device.ended = True
    device.join()
    os.close(theirs)
    os.close(ours)


def one_block():
    block = {"function": 3, "address": 100, "count": 6, "fields": [], "period_ns": 10 * MS}
    slave = {"unit_id": 5, "timeout_ns": 100 * MS, "blocks": [block]}
    row = {"baud": 115200, "gap_rule": 1, "slaves": [slave]}
    return program.pack({"points": [{"name": "d.p0", "unit": "W"}], "units": [{"energy_wh": 1.0}], "ports": [row]})


def served(fd, blob, until, number=0, within_s=60.0):
    """(finished blocks, statistics) once `until` is content with the statistics."""
    port, found = Port(blob, number, fd), []
    port.start()
    over = time.monotonic() + within_s
    while time.monotonic() < over and not until(port.stats):
        found += port.take()
        time.sleep(0.01)
    port.stop(0.2)
    return found + port.take(), port.stats


NOT_THE_ANSWER = {
    "fewer registers than were asked for": lambda f, d: sealed(f[:2] + bytes([10]) + d[:10]),
    "more registers": lambda f, d: sealed(f[:2] + bytes([14]) + d + b"\0\7"),
    "a length that is not its own": lambda f, d: sealed(f[:2] + bytes([12]) + d[:10]),
    "an odd length": lambda f, d: sealed(f[:2] + bytes([11]) + d[:11]),
    "another unit id": lambda f, d: sealed(b"\6" + f[1:2] + bytes([12]) + d),
    "the unit id of all": lambda f, d: sealed(b"\0" + f[1:2] + bytes([12]) + d),
    "another function": lambda f, d: sealed(f[:1] + b"\4" + bytes([12]) + d),
    "the acknowledgement of a write": lambda f, d: sealed(f[:1] + b"\x10" + f[2:6]),
    "an exception of another function": lambda f, d: sealed(f[:1] + b"\x84\2"),
    "the checksum the other way round": lambda f, d: sealed(f[:2] + bytes([12]) + d)[:-2] + b"\x12\x34",
    "ascii": lambda f, d: b":0503" + d.hex().encode() + b"\r\n",
}


@pytest.mark.parametrize("kind", NOT_THE_ANSWER)
def test_what_is_no_answer_gives_no_registers_and_the_device_is_read_once_it_answers_well(odd, kind):
    fd, device = odd
    device.answer = lambda frame: NOT_THE_ANSWER[kind](frame, device.words(frame))
    found, stats = served(fd, one_block(), lambda s: s["transactions"] >= 6)
    assert stats["transactions"] >= 6
    assert stats["reads"] == 0
    assert all(row["status"] != "ok" and not row["regs"] for row in found)
    device.answer = device.honest
    found, stats = served(fd, one_block(), lambda s: s["reads"] >= 5)
    assert stats["reads"] >= 5
    assert all(row["regs"] == [7] * 6 for row in found if row["status"] == "ok")


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 5, 6, 8, 10, 11, 255])
def test_every_exception_code_is_counted_and_gives_no_registers(odd, code):
    fd, device = odd
    device.answer = lambda frame: sealed(frame[:1] + bytes([frame[1] | 0x80, code]))
    found, stats = served(fd, one_block(), lambda s: s["exceptions"] >= 2)
    assert stats["exceptions"] >= 2
    assert sum(stats["slaves"][0]["exception_codes"]) == stats["exceptions"]
    assert not any(row["regs"] for row in found)


def test_an_answer_that_comes_twice_is_read_once_and_the_line_is_watched(odd):
    fd, device = odd
    device.answer = lambda frame: 2 * device.honest(frame)
    _, stats = served(fd, one_block(), lambda s: s["reads"] >= 10)
    assert stats["reads"] >= 10
    assert stats["slaves"][0]["foreign_bytes"] + stats["foreign_bytes"] > 0


# ---------------------------------------------------------------- values


def meter_site(name, **device):
    raw = copy.deepcopy(SITE)
    raw["device"][0] |= {"map": name, **device}
    site, problems = parse_site(raw)
    assert problems == []
    return compile_site(site)


def read_through(odd, blob, fill):
    """Point -> (value, quality) of the grid meter, from what its port read and the decoder made of it."""
    fd, device = odd
    rows = program.rows(blob)
    number = rows["slaves"][next(i for i, s in enumerate(rows["slaves"]) if s["device"] == 0)]["port"]
    slave = next(s for s in rows["slaves"] if s["device"] == 0)
    blocks = range(slave["block_first"], slave["block_first"] + slave["block_count"])
    fill(rows, device.regs, [rows["blocks"][b] for b in blocks])
    wanted = set(blocks)
    seen = {}

    def all_read(_):
        return wanted <= set(seen)

    port = Port(blob, number, fd)
    port.start()
    over = time.monotonic() + 60
    while time.monotonic() < over and not all_read(None):
        for row in port.take():
            if row["status"] == "ok":
                seen[row["block"]] = row["regs"]
        time.sleep(0.01)
    port.stop(0.2)
    assert all_read(None), "not every block was read"
    found = {}
    for block, regs in seen.items():
        for point, (value, _, quality, _) in decode(blob, block, regs).items():
            found[rows["points"][point]["name"]] = (value, quality)
    return found


def everywhere(words_of):
    """Fills every field of the meter by its type."""
    names = {number: name for name, number in program.FIELD_TYPES.items()}

    def fill(rows, regs, blocks):
        for block in blocks:
            for row in rows["fields"][block["field_first"] : block["field_first"] + block["field_count"]]:
                # The words that tell which device it is stay right.
                known = row["min"] == row["max"]
                words = [int(row["min"])] if known else words_of(names[row["type"]])
                if row["flags"] & program.FIELD_FLAGS["low_word_first"]:
                    words = words[::-1]
                for i, word in enumerate(words):
                    regs[block["address"] + row["offset"] + i] = word
            if block["signature"]:
                regs[block["address"] + block["signature_offset"]] = block["signature_word"]

    return fill


NOT_IMPLEMENTED = {
    "u16": [0xFFFF], "s16": [0x8000], "u32": [0xFFFF] * 2, "s32": [0x8000, 0], "u64": [0xFFFF] * 4,
    "s64": [0x8000, 0, 0, 0], "f32": [0x7FC0, 0], "f64": [0x7FF8, 0, 0, 0], "sunssf": [0x8000], "bits": [0xFFFF],
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        "carlo-gavazzi-em24",
        "eastron-sdm630",
        "sunspec-203",
        "sunspec-213",
        "schneider-iem3155",
        "abb-b23",
        "siemens-pac3200",
    ],
)
def test_not_implemented_is_no_value_whatever_the_map(odd, name):
    found = read_through(odd, meter_site(name), everywhere(NOT_IMPLEMENTED.__getitem__))
    believed = {point: value for point, (value, quality) in found.items() if quality == GOOD and not math_word(point)}
    assert believed == {}


def math_word(point):
    """A word of the device's own that has no quantity: an identity, a state."""
    return point.endswith(("_word", "_sf", "_count", "_bits", "_state"))


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ([0x7FC0, 0x0000], "NaN"),
        ([0xFFC0, 0x0000], "NaN with a sign"),
        ([0x7FA0, 0x0001], "a signalling NaN"),
        ([0xFFFF, 0xFFFF], "all bits"),
        ([0x7F80, 0x0000], "infinity"),
        ([0xFF80, 0x0000], "infinity below"),
        ([0x7F7F, 0xFFFF], "the greatest float"),
    ],
)
def test_no_float_that_is_no_reading_is_one(odd, words, what):
    found = read_through(odd, meter_site("eastron-sdm630"), everywhere(lambda kind: words if kind == "f32" else [0]))
    assert {point for point, (_, quality) in found.items() if quality == GOOD and point.endswith("_w")} == set(), what


def test_a_scale_factor_that_the_device_lacks_leaves_its_values_without_a_number(odd):
    def fill(rows, regs, blocks):
        everywhere(lambda kind: {"sunssf": [0x8000]}.get(kind, [0] * (len(NOT_IMPLEMENTED[kind]) - 1) + [100]))(
            rows, regs, blocks
        )

    found = read_through(odd, meter_site("sunspec-203"), fill)
    assert found["grid.power_w"][1] == INVALID


@pytest.mark.parametrize("factor", [11, -11, 100, 0x7FFF])
def test_a_scale_factor_beyond_its_ends_is_none(odd, factor):
    found = read_through(
        odd,
        meter_site("sunspec-203"),
        everywhere(
            lambda kind: [factor & 0xFFFF] if kind == "sunssf" else [0] * (len(NOT_IMPLEMENTED[kind]) - 1) + [100]
        ),
    )
    assert found["grid.power_w"][1] == INVALID


@pytest.mark.parametrize(("order", "value"), [("high-first", 0x0001_0002), ("low-first", 0x0002_0001)])
def test_each_point_may_have_a_word_order_of_its_own(odd, tmp_path, order, value):
    own = tmp_path / "own.toml"
    own.write_text(
        f"""
schema = 1
[map]
name = "own"
protocol = "modbus"
kind = "meter"
title = "t"
source = "s"
[modbus]
word_order = "low-first"
[[point]]
name = "power_w"
register = "p"
address = 0
type = "s32"
scale = 0.1
unit = "W"
positive = "import"
range = [-1e6, 1e6]
poll = "fast"
[[point]]
name = "import_wh"
register = "e"
address = 2
type = "u64"
word_order = "{order}"
unit = "Wh"
poll = "slow"
[[vector]]
source = "computed"
point = "power_w"
regs = [10, 0]
value = 1.0
"""
    )
    raw = copy.deepcopy(SITE)
    raw["device"][0] |= {"map": str(own)}
    site, problems = parse_site(raw)
    assert problems == []

    def fill(rows, regs, blocks):
        regs.update({0: 10, 1: 0, 2: 0, 3: 0, 4: 1, 5: 2})
        if order == "low-first":
            regs.update({2: 1, 3: 2, 4: 0, 5: 0})

    found = read_through(odd, compile_site(site), fill)
    assert found["grid.power_w"] == (1.0, GOOD)
    assert found["grid.import_wh"] == (float(value), GOOD)


@pytest.mark.parametrize("kind", ["bcd16", "bcd32", "string", "u24"])
def test_a_type_that_no_decoder_has_is_refused_by_name(tmp_path, kind):
    from tidegate.hal.maps import MapError, load_map

    own = tmp_path / "own.toml"
    own.write_text(
        f"""
schema = 1
[map]
name = "own"
protocol = "modbus"
kind = "meter"
title = "t"
source = "s"
[[point]]
name = "power_w"
register = "p"
address = 0
type = "{kind}"
unit = "W"
positive = "import"
poll = "fast"
"""
    )
    with pytest.raises(MapError) as refused:
        load_map(str(own))
    assert any("type" in line and "u32" in line for line in refused.value.problems), refused.value.problems


def test_a_counter_of_64_bits_that_wraps_is_a_number_again(odd):
    """From the last count before the end to the first behind it: two numbers, and neither is taken for a half."""
    blob = meter_site("abb-b23")
    names = {number: name for name, number in program.FIELD_TYPES.items()}
    rows = program.rows(blob)
    counter = next(
        (b, f)
        for b in rows["blocks"]
        for f in rows["fields"][b["field_first"] : b["field_first"] + b["field_count"]]
        if names[f["type"]] == "u64" and rows["points"][f["point"]]["name"] == "grid.import_wh"
    )
    block, row = rows["blocks"].index(counter[0]), counter[1]
    regs = [0] * counter[0]["count"]
    regs[row["offset"] : row["offset"] + 4] = [0, 0, 0xFFFF, 0xFFFE]
    first = decode(blob, block, regs)[row["point"]]
    assert first[2] == GOOD
    regs[row["offset"] : row["offset"] + 4] = [0, 1, 0, 1]
    image = {row["point"]: first}
    again = decode(blob, block, regs, image)[row["point"]]
    assert again[2] == GOOD and again[0] > first[0]
