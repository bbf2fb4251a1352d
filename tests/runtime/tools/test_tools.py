"""Scan, read and sniff against slaves of pymodbus and buses of python-can."""

import json
import struct
import threading
import time
import tomllib
from pathlib import Path

import can
import pytest
from click.testing import CliRunner

from tests.runtime.rtu_peer import Slaves, Wire, words_of_float, words_of_text
from tidegate.config.site import parse_site
from tidegate.hal import maps, sunspec
from tidegate.hal.decode import decode_frame, frame_of
from tidegate.runtime.cli.bus_commands import read, scan, sniff
from tidegate.runtime.cli.device_commands import devices
from tidegate.runtime.tools.open_bus import RegisterReader, ToolError, claim
from tidegate.runtime.tools.read_once import read_can, read_registers
from tidegate.runtime.tools.scan import fitting_bms, fitting_maps, scan_serial, sunspec_chain
from tidegate.runtime.tools.sniff import RtuSplitter

# ------------------------------------------------------------------------------------------------- the peers

SDM630 = {0x00: 230.1, 0x02: 231.2, 0x04: 229.3, 0x06: 10.0, 0x08: 11.0, 0x0A: 12.0, 0x0C: 2300.0, 0x0E: 2540.0,
          0x10: 2750.0, 0x34: 7590.0, 0x46: 50.02, 0x48: 123.45, 0x4A: 6.5}  # fmt: skip


def meter_words():
    words = dict.fromkeys(range(0x58), 0)
    for address, value in SDM630.items():
        words[address], words[address + 1] = words_of_float(value)
    return words


def sunspec_words():
    """Models 1, 701 and 715 one after the other, as a device would hold them; -12.3 kW, 50 Hz."""
    words = {40000: 0x5375, 40001: 0x6E53}
    at = 40002
    for number in (1, 701, 702, 704, 713, 715):
        length = sunspec.model(number).length
        words.update(dict.fromkeys(range(at, at + length), 0))
        words[at], words[at + 1] = number, length - 2
        fields = {name: at + point.offset for name, point in sunspec.model(number).points.items()}
        if number == 1:
            for name, text, size in (("Mn", "Tidal", 16), ("Md", "PCS30", 16), ("SN", "0815", 16)):
                for i, word in enumerate(words_of_text(text, size)):
                    words[fields[name] + i] = word
        if number == 701:
            words[fields["W"]], words[fields["W_SF"]] = (-1230) & 0xFFFF, 1
            words[fields["InvSt"]], words[fields["ConnSt"]] = 3, 1
            words[fields["Hz"]], words[fields["Hz"] + 1], words[fields["Hz_SF"]] = 0, 5000, (-2) & 0xFFFF
        at += length
    words[at], words[at + 1] = 0xFFFF, 0
    return words


@pytest.fixture
def wire():
    made = Wire(units={1, 3})
    yield made
    made.close()


@pytest.fixture
def slaves(wire):
    served = Slaves(wire.server, {1: {4: meter_words()}, 3: {3: sunspec_words()}})
    yield wire
    served.close()


# --------------------------------------------------------------------------------------------------------- scan


def test_scan_finds_who_answers_and_what_fits(slaves):
    tried = []
    with RegisterReader(slaves.client, timeout_s=0.15) as reader:
        found = {one.unit_id: one for one in scan_serial(reader, range(1, 5), True, tried.append)}
    assert sorted(found) == [1, 3] and tried == [1, 2, 3, 4]
    assert "eastron-sdm630" in [name for name, _, _ in found[1].fits]
    assert found[3].base == 40000 and [link[0] for link in found[3].chain] == [1, 701, 702, 704, 713, 715]
    assert found[3].identity["maker"] == "Tidal" and found[3].identity["serial"] == "0815"


def test_scan_only_reads(slaves):
    with RegisterReader(slaves.client, timeout_s=0.15) as reader:
        scan_serial(reader, [1, 3])
    asked = bytes(slaves.heard)
    assert len(asked) % 8 == 0 and {asked[i + 1] for i in range(0, len(asked), 8)} <= {3, 4}


def test_what_scan_prints_for_a_sunspec_device_fits_the_site_file(slaves):
    with RegisterReader(slaves.client, timeout_s=0.15) as reader:
        base, chain = sunspec_chain(reader, 3)
    found = maps.load_map("sunspec-701", None, base, {number: at for number, at, _ in chain})
    assert found.model_starts()[715] == chain[-1][1]  # this device has no 714, so the map's own guess would be wrong
    assert found.model_starts()[715] != maps.shipped("sunspec-701").model_starts()[715]


def test_a_map_does_not_fit_a_meter_of_another_make(slaves):
    with RegisterReader(slaves.client, timeout_s=0.15) as reader:
        names = [name for name, _, _ in fitting_maps(reader, 1)]
    assert "schneider-iem3155" not in names and "abb-b23" not in names


def test_scan_command_shows_a_line_for_the_site_file(slaves):
    result = CliRunner().invoke(scan, ["--serial", slaves.client, "--ids", "3", "--timeout-ms", "150"])
    assert result.exit_code == 0 and "sunspec_base = 40000" in result.output and "701 = 40070" in result.output
    assert tomllib.loads(result.stdout)["device"][0]["map"] == "sunspec-701"


def hybrid_words():
    """Models 1, 103, 124, 1 again, 203, 203 again: a converter with two meters behind its unit id."""
    words = {40000: 0x5375, 40001: 0x6E53}
    at = 40002
    for number in (1, 103, 124, 1, 203, 203):
        length = sunspec.model(number).length
        words.update(dict.fromkeys(range(at, at + length), 0))
        words[at], words[at + 1] = number, length - 2
        at += length
    words[at], words[at + 1] = 0xFFFF, 0
    return words


@pytest.fixture
def hybrid(wire):
    served = Slaves(wire.server, {1: {3: hybrid_words()}, 3: {3: {0: 0}}})
    yield wire
    served.close()


def test_what_scan_prints_of_a_hybrid_is_toml_with_a_row_for_each_role(hybrid):
    result = CliRunner().invoke(scan, ["--serial", hybrid.client, "--ids", "1", "--timeout-ms", "150"])
    assert result.exit_code == 0
    told = tomllib.loads(result.stdout)
    assert [(row["map"], row["role"]) for row in told["device"]] == [
        ("sunspec-103", "pcs"), ("sunspec-203", "other-meter"), ("sunspec-203", "other-meter"),
    ]  # fmt: skip
    meters = [row["sunspec_models"]["203"] for row in told["device"][1:]]
    assert len(set(meters)) == 2 and {row["unit_id"] for row in told["device"]} == {1}
    site = tomllib.loads((Path(__file__).parents[3] / "config/demo/site.toml").read_text())
    site["serial"] += told["serial"]
    site["device"] += told["device"][1:]
    made, problems = parse_site(site)
    assert made is not None and not problems
    assert '# options = { rated_w = "?" }  # needed. rated_w: charge and discharge rating' in result.stdout


def test_scan_prints_the_rating_that_a_converter_says_itself(wire):
    words = hybrid_words()
    at = next(address for address, word in words.items() if word == 124)
    fields = sunspec.model(124).points
    words[at + fields["WChaMax"].offset], words[at + fields["WChaMax_SF"].offset] = 500, 1
    served = Slaves(wire.server, {1: {3: words}})
    try:
        result = CliRunner().invoke(scan, ["--serial", wire.client, "--ids", "1", "--timeout-ms", "150"])
    finally:
        served.close()
    assert tomllib.loads(result.stdout)["device"][0]["options"] == {"rated_w": "5000"}


def test_scan_sees_a_stray_byte_before_each_reply_and_names_the_key(slaves):
    slaves.stray = b"\x00"
    result = CliRunner().invoke(scan, ["--serial", slaves.client, "--ids", "1,3", "--timeout-ms", "150"])
    assert result.exit_code == 0 and "looks like eastron-sdm630" in result.output and "unit 3" in result.output
    assert "lead_in_bytes = 1" in result.output
    slaves.stray = b""
    clean = CliRunner().invoke(scan, ["--serial", slaves.client, "--ids", "3", "--timeout-ms", "150"])
    assert "unit 3" in clean.output and "lead_in_bytes" not in clean.output


def test_scan_does_not_blame_the_wires_where_bytes_come(slaves):
    slaves.stray = b"\x00" * 9  # no reply any more, but no silence either
    result = CliRunner().invoke(scan, ["--serial", slaves.client, "--ids", "1", "--timeout-ms", "60"])
    assert result.exit_code == 1 and "bytes come, but no reply" in result.output and "A and B" not in result.output


def test_scan_of_an_empty_bus_says_what_to_check(wire):
    result = CliRunner().invoke(scan, ["--serial", wire.client, "--ids", "1-2", "--timeout-ms", "30"])
    assert result.exit_code == 1 and "A and B swapped" in result.output


@pytest.mark.parametrize("ids", ["0", "300", "1-x", ""])
def test_ids_that_cannot_be_are_refused(wire, ids):
    result = CliRunner().invoke(scan, ["--serial", wire.client, "--ids", ids])
    assert result.exit_code == 2


def test_a_busy_port_is_refused_with_the_holder(wire):
    held = claim(wire.client, 9600, "N", 1)
    try:
        with pytest.raises(ToolError, match="in use by") as caught:
            RegisterReader(wire.client)
        assert caught.value.exit_code == 75
        result = CliRunner().invoke(scan, ["--serial", wire.client, "--ids", "1"])
        assert result.exit_code == 75 and "two masters" in result.output
    finally:
        held.close()


def test_a_missing_port_and_a_file_are_refused(tmp_path):
    with pytest.raises(ToolError, match="no such device"):
        RegisterReader("/dev/ttyNOPE")
    plain = tmp_path / "file"
    plain.write_text("x")
    with pytest.raises(ToolError, match="not a serial port"):
        RegisterReader(str(plain))


# --------------------------------------------------------------------------------------------------------- read


def test_read_gives_all_points_of_a_meter(slaves):
    with RegisterReader(slaves.client) as reader:
        values = {one.name: one.value for one in read_registers(reader, maps.shipped("eastron-sdm630"), 1)}
    assert values["power_w"] == 7590.0 and values["import_wh"] == pytest.approx(123450, rel=1e-6)
    assert values["voltage_l2_v"] == pytest.approx(231.2, rel=1e-6)


def test_read_applies_scale_factors(slaves):
    with RegisterReader(slaves.client) as reader:
        base, chain = sunspec_chain(reader, 3)
        found = maps.load_map("sunspec-701", None, base, {number: at for number, at, _ in chain})
        values = {one.name: one.value for one in read_registers(reader, found, 3)}
    assert values["power_w"] == -12300.0 and values["frequency_hz"] == 50.0 and values["ready"] == 1.0


def test_read_by_a_sunspec_map_finds_its_model_where_the_device_has_it(slaves):
    result = CliRunner().invoke(read, ["sunspec-701", "--serial", slaves.client, "--unit", "3", "--json"])
    assert result.exit_code == 0, result.output
    assert {one["name"]: one["value"] for one in json.loads(result.output)}["power_w"] == -12300.0
    other = CliRunner().invoke(read, ["sunspec-203", "--serial", slaves.client, "--unit", "3"])
    assert other.exit_code == 1
    assert "has the SunSpec models 1, 701, 702, 704, 713, 715, and sunspec-203 reads 203" in other.output
    none = CliRunner().invoke(read, ["sunspec-203", "--serial", slaves.client, "--unit", "1"])
    assert none.exit_code == 1 and "is it a SunSpec device?" in none.output


def test_read_refuses_registers_that_are_another_models(slaves):
    with RegisterReader(slaves.client) as reader:
        base, chain = sunspec_chain(reader, 3)
        moved = {number: at + (2 if number == 701 else 0) for number, at, _ in chain}
        with pytest.raises(ToolError, match=r"model 701 should begin at \d+, and there stands"):
            read_registers(reader, maps.load_map("sunspec-701", None, base, moved), 3)


def test_read_command_reads_one_point_by_site_file(slaves, tmp_path):
    site = Path(maps.__file__).parents[1] / "config/sites/one-cabinet.toml"
    text = site.read_text().replace("/dev/ttyS1", slaves.client)
    path = tmp_path / "site.toml"
    path.write_text(text)
    result = CliRunner().invoke(read, ["grid", "power_w", "--site", str(path), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)[0]["value"] == 7590.0


def test_read_of_a_silent_unit_says_what_to_check(slaves):
    result = CliRunner().invoke(read, ["eastron-sdm630", "--serial", slaves.client, "--unit", "9"])
    assert result.exit_code == 1 and "does not answer" in result.output and "tidegate scan" in result.output


def test_read_of_an_unknown_point_lists_the_known(slaves):
    result = CliRunner().invoke(read, ["eastron-sdm630", "watts", "--serial", slaves.client])
    assert result.exit_code == 1 and "power_w" in result.output


def test_a_simulated_device_is_not_on_a_real_bus():
    site = Path(maps.__file__).parents[1] / "config/demo/site.toml"
    result = CliRunner().invoke(read, ["grid", "--site", str(site)])
    assert result.exit_code == 2 and "simulated" in result.output


# ---------------------------------------------------------------------------------------------------------- CAN

ORION = [(0x351, "AC0B640010040009"), (0x355, "5F006400B6030618"), (0x356, "6D0B0200A000"), (0x35A, "00000000")]
BYD = [(0x351, "480200050005AE01"), (0x355, "4300640000000000"), (0x356, "BE14F9FF8C000000"), (0x35A, "AA" * 8)]


def messages(rows):
    return [
        can.Message(arbitration_id=i, data=bytes.fromhex(d), is_extended_id=i > 0x7FF, timestamp=1.5) for i, d in rows
    ]


@pytest.fixture
def bus_name():
    return f"test-{time.monotonic_ns()}"


class Talker:
    """Repeats frames on a virtual python-can bus until closed."""

    def __init__(self, channel, rows):
        self._bus = can.Bus(interface="virtual", channel=channel)
        self._over = threading.Event()
        self._rows = rows
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._over.wait(0.02):
            for message in messages(self._rows):
                self._bus.send(message)

    def close(self):
        self._over.set()
        self._thread.join()
        self._bus.shutdown()


def test_scan_tells_the_voltage_dialects_apart():
    orion = {one.map: one for one in fitting_bms(messages(ORION))}
    byd = {one.map: one for one in fitting_bms(messages(BYD))}
    assert orion["bms-35x"].options == {"voltage_v": "0.1"} and orion["bms-35x"].values["pack_v"] == pytest.approx(
        292.5
    )
    assert byd["bms-35x"].options == {"voltage_v": "0.01"} and byd["bms-35x"].values["pack_v"] == pytest.approx(53.1)


def test_scan_of_can_finds_the_bms_by_its_frames(bus_name):
    rows = [
        (0x110, "10400D4800FA0190"),
        (0x150, "1D4C26AC00CD0100"),
        (0x1D0, "0FA0FF9C00FA0000"),
        (0x210, "0104FFF600000000"),
    ]
    talker = Talker(bus_name, rows)
    result = CliRunner().invoke(scan, ["--can", f"virtual:{bus_name}", "--seconds", "0.5", "--json"])
    talker.close()
    found = json.loads(result.output[result.output.index("[") :])
    assert found[0]["map"] == "byd-hvs" and found[0]["values"]["soc"] == pytest.approx(0.75)


def test_scan_of_a_silent_can_bus_says_what_to_check(bus_name):
    result = CliRunner().invoke(scan, ["--can", f"virtual:{bus_name}", "--seconds", "0.2"])
    assert result.exit_code == 1 and "termination" in result.output


def test_read_listens_to_a_bms(bus_name):
    talker = Talker(bus_name, BYD)
    with can.Bus(interface="virtual", channel=bus_name) as bus:
        values = {one.name: one.value for one in read_can(bus, maps.shipped("bms-35x"), 0.3)}
        one = read_can(bus, maps.shipped("bms-35x"), 1.0, point="soc")
    talker.close()
    assert values["soc"] == pytest.approx(0.67) and values["alarm"] == 0.0
    assert [r.name for r in one] == ["soc"]


def test_a_missing_can_interface_is_named_with_the_remedy():
    result = CliRunner().invoke(scan, ["--can", "can77", "--seconds", "0.1"])
    assert result.exit_code == 1 and "can77" in result.output and "ip link" in result.output


@pytest.mark.parametrize("suffix", [".pcap", ".log"])
def test_sniff_writes_what_it_heard(bus_name, tmp_path, suffix):
    out = tmp_path / f"heard{suffix}"
    talker = Talker(bus_name, ORION)
    words = ["--can", f"virtual:{bus_name}", "--map", "orion-bms2", "--seconds", "2", "--out", str(out)]
    result = CliRunner().invoke(sniff, words)
    talker.close()
    assert result.exit_code == 0 and "soc 0.95" in result.output
    if suffix == ".log":
        heard = list(can.CanutilsLogReader(str(out)))
        assert {m.arbitration_id for m in heard} == {row[0] for row in ORION}
        assert all(bytes(m.data) in [bytes.fromhex(row[1]) for row in ORION] for m in heard)
    else:
        raw = out.read_bytes()
        assert struct.unpack("<I", raw[:4])[0] == 0xA1B2C3D4 and struct.unpack("<I", raw[20:24])[0] == 227
        length = struct.unpack("<I", raw[32:36])[0]
        assert struct.unpack(">I", raw[40:44])[0] in [row[0] for row in ORION] and length == 8 + raw[44]


def test_the_orion_recording_decodes_frame_by_frame():
    found = maps.shipped("orion-bms2")
    for ident, data in ORION:
        values = decode_frame(frame_of(found, ident), bytes.fromhex(data))
        assert values and None not in values.values()


# --------------------------------------------------------------------------------------------------------- sniff


def framed(body):
    from tidegate.ext.bus.rtu_view import crc

    value = crc(body)
    return body + bytes((value & 0xFF, value >> 8))


ASK = framed(bytes.fromhex("010400340002"))
TELL = framed(bytes.fromhex("0104 04 45ED3000"))


def test_sniff_finds_frames_in_any_cutting_of_the_stream():
    stream = ASK + TELL + framed(bytes.fromhex("0184 02")) + framed(bytes.fromhex("031000100002040001FFFE"))
    for size in range(1, len(stream) + 1):
        splitter = RtuSplitter()
        found = [f for i in range(0, len(stream), size) for f in splitter.feed(stream[i : i + size], 0.0)]
        found += list(splitter.feed(b"", 0.0))
        assert b"".join(f.data for f in found) == stream and splitter.foreign == 0
        assert [f.kind for f in found] == ["request", "reply", "exception", "request"]


def test_sniff_counts_noise_and_goes_on():
    splitter = RtuSplitter({1: ("grid", maps.shipped("eastron-sdm630"))})
    stream = b"\x00\xff\x13" + ASK + b"\x55" + TELL
    found = list(splitter.feed(stream, 0.0)) + list(splitter.feed(b"", 0.0))
    assert [f.data for f in found] == [ASK, TELL] and splitter.foreign == 4
    assert found[1].values["power_w"] == pytest.approx(7590.0) and found[1].device == "grid"


def test_sniff_does_not_take_a_frame_with_a_wrong_crc():
    splitter = RtuSplitter()
    broken = bytearray(ASK)
    broken[4] ^= 1
    assert list(splitter.feed(bytes(broken), 0.0)) + list(splitter.feed(b"", 0.0)) == []
    assert splitter.foreign == len(ASK)


def test_sniff_command_shows_a_live_line(wire, tmp_path):
    import os

    out = tmp_path / "line.pcap"
    done = []

    def talk():
        fd = os.open(wire.server, os.O_RDWR | os.O_NOCTTY)
        for _ in range(20):
            os.write(fd, ASK + TELL)
            time.sleep(0.05)
        done.append(os.close(fd))

    talker = threading.Thread(target=talk)
    talker.start()
    words = ["--serial", wire.client, "--map", "1=eastron-sdm630", "--seconds", "0.8", "--out", str(out)]
    result = CliRunner().invoke(sniff, words)
    talker.join()
    assert result.exit_code == 0, result.output
    assert "power_w 7590" in result.output
    raw = out.read_bytes()
    assert struct.unpack("<I", raw[20:24])[0] == 252 and ASK in raw and TELL in raw


# ------------------------------------------------------------------------------------------------------- devices


def test_devices_lists_and_describes_every_map():
    listed = json.loads(CliRunner().invoke(devices, ["--json"]).output)
    assert [row["name"] for row in listed] == maps.map_names()
    for name in maps.map_names():
        result = CliRunner().invoke(devices, [name])
        assert result.exit_code == 0, name
        for signal in maps.shipped(name).signal_names():
            hidden = any(p.name == signal and p.hidden for p in maps.shipped(name).point)
            assert hidden or signal in result.output


def test_devices_names_an_unknown_map():
    result = CliRunner().invoke(devices, ["nothing"])
    assert result.exit_code == 65 and "eastron-sdm630" in result.output
