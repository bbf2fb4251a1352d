"""DBC files against cantools: several multiplexer numbers, nested ones, encodings, its own test files."""

import os
import random
import subprocess
import sys
import tarfile
from pathlib import Path

import cantools
import pytest

from tidegate.config.program_rows import can_fields
from tidegate.ext.abi import program
from tidegate.ext.bus.can_view import Bus
from tidegate.hal.dbc import dbc_text, fill_frame
from tidegate.hal.decode import decode_frame
from tidegate.hal.map_schema import Frame

GOOD = 1
NESTED = """VERSION ""
NS_ :
BS_:
BU_: BMS
BO_ 768 Status: 8 BMS
 SG_ Page M : 0|4@1+ (1,0) [0|15] "" BMS
 SG_ Part m1M : 8|4@1+ (1,0) [0|15] "" BMS
 SG_ Soc m0 : 16|16@1+ (0.01,0) [0|100] "%" BMS
 SG_ Current m2 : 16|16@1- (0.1,0) [0|0] "A" BMS
 SG_ Cell m0 : 32|16@1+ (0.001,0) [0|0] "V" BMS
 SG_ Both m0 : 48|8@1+ (1,0) [0|0] "" BMS
SG_MUL_VAL_ 768 Part Page 1-1;
SG_MUL_VAL_ 768 Soc Page 0-0;
SG_MUL_VAL_ 768 Current Part 2-2;
SG_MUL_VAL_ 768 Cell Part 0-1, 3-3;
SG_MUL_VAL_ 768 Both Page 0-0, 5-7;
"""


class OneMessage:
    """What fill_frame asks a database for."""

    def __init__(self, message):
        self.message = message

    def get_message_by_name(self, name):
        assert name == self.message.name
        return self.message


class Decoders:
    """One message in our two decoders, its rows in the order that is given."""

    def __init__(self, message, names=None):
        chosen = names or [one.name for one in message.signals]
        rows = [{"name": f"s{i}_v", "unit": "V", "dbc": name} for i, name in enumerate(chosen)]
        self.names = {row["name"]: row["dbc"] for row in rows}
        table = {"message": message.name, "signal": rows}
        self.problems = []
        fill_frame("test", table, OneMessage(message), self.problems)
        if self.problems:
            return
        self.frame, self.message, self.t_ns = Frame.model_validate(table), message, 1000
        row = {
            "id": message.frame_id | (0x80000000 if message.is_extended_frame else 0),
            "len_max": message.length,
            "flags": program.CAN_FRAME_FLAGS["mux"] if self.frame.mux_start is not None else 0,
            "mux_start": self.frame.mux_start or 0,
            "mux_length": self.frame.mux_length,
            "mux_big_endian": int(self.frame.mux_big_endian),
            "fields": [field for s in self.frame.signal for field in can_fields(s, f"d.{s.name}")],
        }
        points = [{"name": f"d.{s.name}", "unit": "V"} for s in self.frame.signal]
        self.base = len(program.standard_points(0))
        self.bus = Bus(program=program.pack({"points": points, "can_frames": [row]}))

    def values(self, data):
        """(compiled, plain): DBC name -> value of what this frame carries."""
        self.t_ns += 1000
        assert self.bus.inject(self.message.frame_id, data, self.t_ns, extended=self.message.is_extended_frame)
        self.bus.drain(self.t_ns)
        compiled = {}
        for i, signal in enumerate(self.frame.signal):
            value, t_ns, quality, _ = self.bus.point(self.base + i)
            if t_ns == self.t_ns and quality == GOOD:
                compiled[self.names[signal.name]] = value
        plain = {self.names[name]: value for name, value in decode_frame(self.frame, data).items() if value is not None}
        return compiled, plain


def nested():
    return cantools.database.load_string(NESTED, "dbc").messages[0]


@pytest.mark.parametrize("names", [["Page", "Soc", "Both"], ["Both", "Soc", "Page"], ["Soc", "Page", "Both"]])
def test_several_numbers_of_a_multiplexer_let_a_signal_through_in_any_order_of_rows(names):
    ours = Decoders(nested(), names)
    for page in range(16):
        compiled, plain = ours.values(bytes([page, 0, 0x7C, 0x15, 0x10, 0x0E, 7, 0]))
        assert compiled == plain
        assert set(compiled) == {"Page"} | ({"Soc"} if page == 0 else set()) | (
            {"Both"} if page in (0, 5, 6, 7) else set()
        )


@pytest.mark.parametrize(
    "names", [None, ["Current", "Soc"], ["Cell", "Page", "Part"], ["Soc", "Both", "Current", "Cell"]]
)
def test_nested_multiplexers_are_read_as_cantools_does_whatever_the_order_of_rows(names):
    message = nested()
    ours = Decoders(message, names)
    assert not ours.problems
    seen = set()
    for page in range(16):
        for part in range(16):
            data = bytes([page, part, 0x7C, 0x15, 0x10, 0x0E, 7, 0])
            compiled, plain = ours.values(data)
            try:
                there = message.decode(data, decode_choices=False)
            except (cantools.database.DecodeError, KeyError):  # a page that the file does not know
                there = None
            if there is not None:
                assert compiled == {name: there[name] for name in compiled}
                assert set(compiled) == set(there) & set(ours.names.values())
            else:  # nothing behind it
                assert set(compiled) <= {"Page", "Part", "Both"}
            assert compiled == plain
            seen |= set(compiled)
    assert seen == set(ours.names.values()), "every signal was there once"


THIRD = """ SG_ Deep m1M : 12|4@1+ (1,0) [0|15] "" BMS
 SG_ Far m4 : 56|8@1+ (1,0) [0|0] "" BMS
"""


def test_a_third_multiplexer_is_refused_by_name():
    text = NESTED.replace(
        "SG_MUL_VAL_ 768 Part", "SG_MUL_VAL_ 768 Deep Part 1-1;\nSG_MUL_VAL_ 768 Far Deep 4-4;\nSG_MUL_VAL_ 768 Part"
    )
    text = text.replace(" SG_ Soc m0", THIRD + " SG_ Soc m0")
    message = cantools.database.load_string(text, "dbc").messages[0]
    problems = Decoders(message, ["Soc", "Far"]).problems
    assert any("Far: behind the multiplexers Page, Part, Deep" in line for line in problems), problems
    assert not Decoders(message, ["Soc", "Current"]).problems


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8", "utf-8-sig"])
def test_a_dbc_in_any_usual_encoding_is_read(encoding):
    raw = NESTED.replace('"A" BMS', '"°C" BMS').encode(encoding)
    message = cantools.database.load_string(dbc_text(raw), "dbc").messages[0]
    assert message.get_signal_by_name("Current").unit == "°C"


def test_more_numbers_than_can_be_told_apart_are_refused():
    message = cantools.database.load_string(NESTED.replace("0-0, 5-7", "0-900"), "dbc").messages[0]
    problems = Decoders(message, ["Page", "Both"]).problems
    assert any("Both" in line and "at most 64" in line for line in problems), problems


@pytest.fixture(scope="module")
def peer_files(tmp_path_factory):
    """The DBC files of cantools' own tests: of the archive in TIDEGATE_CANTOOLS_SDIST, else of one that is fetched."""
    folder = tmp_path_factory.mktemp("cantools")
    had = os.environ.get("TIDEGATE_CANTOOLS_SDIST", "")
    if not had:
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "cantools", "-d", str(folder)]
        try:
            subprocess.run([*pip, "cantools"], capture_output=True, check=False, timeout=120)
        except subprocess.TimeoutExpired:
            pytest.skip("the source archive of cantools does not come in time")
    archives = sorted(Path(had or folder).glob("cantools-*.tar.gz"))
    if had:
        assert archives, f"no cantools-*.tar.gz in TIDEGATE_CANTOOLS_SDIST={had}"
    if not archives:
        pytest.skip("the source archive of cantools cannot be had here")
    with tarfile.open(archives[0]) as archive:
        names = [name for name in archive.getnames() if name.endswith(".dbc") and "/tests/files/" in name]
        archive.extractall(folder, members=[archive.getmember(name) for name in names], filter="data")
    return [folder / name for name in names]


def test_every_value_of_cantools_own_dbc_files_is_equal(peer_files):
    chance = random.Random(20240509)
    compared, frames, refused, unread = 0, 0, [], []
    for path in peer_files:
        try:
            database = cantools.database.load_string(dbc_text(path.read_bytes()), "dbc")
        except Exception:  # files that are broken on purpose
            unread.append(path.name)
            continue
        for message in database.messages:
            if not message.signals or message.length > 8:
                continue
            ours = Decoders(message)
            if ours.problems:
                assert all("multiplex" in line or "a float of 16" in line for line in ours.problems), ours.problems
                refused.append(f"{path.name}: {message.name}")
                continue
            frames += 1
            for _ in range(400 if message.is_multiplexed() else 12):
                data = chance.randbytes(message.length)
                try:
                    there = message.decode(data, decode_choices=False, scaling=True)
                except (cantools.database.DecodeError, KeyError):
                    continue
                compiled, plain = ours.values(data)
                finite = {name: float(value) for name, value in there.items() if abs(value) < float("inf")}
                assert compiled == pytest.approx(finite, rel=1e-12, abs=1e-300), (path.name, message.name, data.hex())
                assert plain == pytest.approx(compiled, rel=1e-12, abs=1e-300)
                compared += len(finite)
    print(f"{len(peer_files)} files, {frames} frames, {compared} values equal; refused {refused}; unread {unread}")
    assert len(peer_files) > 20 and frames > 100 and compared > 5_000
