"""Captures out, which Wireshark's own tshark decodes, and captures in, against a site's maps."""

import json
import os
import shutil
import socket
import struct
import subprocess
import threading
from pathlib import Path

import can
import pytest
from click.testing import CliRunner

from tests.ext.bus.test_tcp import Server, block, site, slave, started, until
from tidegate.ext.bus.rtu_view import crc
from tidegate.runtime.cli.replay_bus_command import replay_bus
from tidegate.runtime.tools.captures import CanFrame, CaptureError, SerialBytes, read_capture
from tidegate.runtime.tools.sniff import (
    LINKTYPE_CAN_SOCKETCAN,
    LINKTYPE_UPPER_PDU,
    PcapWriter,
    can_packet,
    rtu_packet,
)

TSHARK = shutil.which("tshark")
needs_tshark = pytest.mark.skipif(TSHARK is None, reason="tshark is not installed (Debian package tshark)")

SITE = """
schema = 1
[site]
name = "replayed"
[[serial]]
name = "meters"
device = "/dev/ttyS1"
[[tcp]]
name = "lan"
host = "127.0.0.1"
port = {port}
[[can]]
name = "bms"
interface = "can0"
[[device]]
name = "grid"
map = "eastron-sdm630"
bus = "meters"
unit_id = 1
role = "grid-meter"
[[device]]
name = "it"
map = "eastron-sdm630"
bus = "lan"
unit_id = 1
role = "it-meter"
[[device]]
name = "pcs1"
map = "sunspec-701"
bus = "meters"
unit_id = 2
role = "pcs"
[[device]]
name = "bms1"
map = "bms-35x-hv"
bus = "bms"
role = "bms"
[[storage]]
name = "cabinet"
bms = "bms1"
pcs = "pcs1"
energy_wh = 60000
charge_w_max = 30000
discharge_w_max = 30000
[limits]
connection_import_w_max = 60000
"""


def rtu(*body):
    return bytes(body) + struct.pack("<H", crc(bytes(body)))


ASK = rtu(1, 4, 0, 0, 0, 2)  # voltage of phase 1
TELL = rtu(1, 4, 4, 0x43, 0x66, 0, 0)  # 230 V
NO_VALUE = rtu(1, 4, 4, 0x7F, 0xC0, 0, 0)
REFUSED = rtu(1, 0x84, 2)
GATEWAY = rtu(1, 0x84, 11)
WRITE = rtu(1, 6, 0, 5, 0, 9)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "site.toml").write_text(SITE.format(port=502))
    return tmp_path


def replayed(folder, path, *words):
    """Rows of JSON for the frames, the summary's text, and the exit code."""
    words = [str(path), "--site", str(folder / "site.toml"), *words]
    done = CliRunner().invoke(replay_bus, [*words, "--json"])
    rows = [json.loads(line) for line in done.stdout.splitlines()] if done.exit_code in (0, 1) else []
    return rows, CliRunner().invoke(replay_bus, [*words, "--quiet"]).stdout, done


def rtu_pcap(path, *frames):
    with path.open("wb") as out:
        writer = PcapWriter(out, LINKTYPE_UPPER_PDU)
        for i, (frame, asks) in enumerate(frames):
            writer.write(1700000000.0 + i, rtu_packet(frame, asks))
    return path


def tshark(path, *words):
    done = subprocess.run([str(TSHARK), "-r", str(path), *words], capture_output=True, text=True, check=True)
    return [line.split("\t") for line in done.stdout.splitlines()]


# ---------------------------------------------------------------- out


@needs_tshark
def test_wireshark_decodes_a_sniffed_line_without_being_told_how(tmp_path):
    path = rtu_pcap(tmp_path / "line.pcap", (ASK, True), (TELL, False), (ASK, True), (REFUSED, False))
    names = ("mbrtu.unit_id", "modbus.func_code", "modbus.regnum16", "modbus.regval_uint16", "modbus.exception_code")
    rows = tshark(path, "-T", "fields", *[word for name in (*names, "_ws.malformed") for word in ("-e", name)])
    assert [row[:2] for row in rows] == [["1", "4"]] * 4
    assert rows[1][3] == "17254,0"
    assert rows[3][4] == "2"
    assert not any(row[5] for row in rows)


@needs_tshark
def test_wireshark_tells_a_write_from_its_acknowledgement_by_the_ports(tmp_path):
    path = rtu_pcap(tmp_path / "line.pcap", (WRITE, True), (WRITE, False))
    lines = [" ".join(row) for row in tshark(path, "-o", "mbrtu.tcp.port:502")]
    assert ["Query" in line for line in lines] == [True, False]
    assert ["Response" in line for line in lines] == [False, True]


@needs_tshark
def test_wireshark_decodes_sniffed_can_frames(tmp_path):
    path = tmp_path / "bus.pcap"
    with path.open("wb") as out:
        writer = PcapWriter(out, LINKTYPE_CAN_SOCKETCAN)
        for ident, extended in ((0x355, False), (0x18FF1234, True)):
            message = can.Message(arbitration_id=ident, is_extended_id=extended, data=[1, 2, 3, 4])
            writer.write(1.5, can_packet(message))
    rows = tshark(path, "-T", "fields", "-e", "can.id", "-e", "can.flags.xtd", "-e", "can.len", "-e", "data.data")
    assert [(int(row[0], 0), row[1] in ("1", "True"), row[2]) for row in rows] == [
        (0x355, False, "4"), (0x18FF1234, True, "4"),
    ]  # fmt: skip


# ---------------------------------------------------------------- in: serial


def test_each_frame_of_a_line_says_what_it_became(folder):
    order = (ASK, TELL, ASK, NO_VALUE, ASK, REFUSED, ASK, GATEWAY, ASK, ASK, TELL, TELL, WRITE)
    frames = [(frame, frame in (ASK, WRITE)) for frame in order]
    rows, said, done = replayed(folder, rtu_pcap(folder / "line.pcap", *frames), "--bus", "meters")
    assert done.exit_code == 0
    assert [row["what"].partition(":")[0] for row in rows] == [
        *("asked", "answered", "asked", "answered", "asked", "exception", "asked", "exception"),
        *("asked", "request without an answer", "asked", "answered", "refused", "written", "request without an answer"),
    ]
    assert rows[1]["values"] == {"voltage_l1_v": 230.0}
    assert rows[3]["values"] == {"voltage_l1_v": None}
    assert rows[5]["what"] == "exception: 2, unknown address"
    assert rows[7]["what"] == "exception: 11, gateway got no answer"
    assert "not believable: grid.voltage_l1_v 1 times" in said
    assert "nothing of it in this capture" in said and "never seen: " in said


def test_a_value_counts_only_beside_the_factor_of_the_same_reply(folder):
    from tidegate.hal import maps

    found = maps.load_map("sunspec-701", None, 40000, {701: 40070})
    power = next(point for point in found.point if point.name == "power_w")
    factor = next(point for point in found.point if point.name == power.sf)
    low, high = min(power.address, factor.address), max(power.address, factor.address)
    assert high - low < 124, "the map's own distance"
    text = SITE.format(port=502).replace(
        "unit_id = 2\n", "unit_id = 2\nsunspec_base = 40000\nsunspec_models = { 701 = 40070, 704 = 40225 }\n"
    )
    (folder / "site.toml").write_text(text)
    words = [0] * (high - low + 1)
    words[power.address - low], words[factor.address - low] = 450, 1

    def exchange(first, held):
        ask = rtu(2, 3, *first.to_bytes(2), *len(held).to_bytes(2))
        return [(ask, True), (rtu(2, 3, 2 * len(held), *b"".join(w.to_bytes(2) for w in held)), False)]

    both, alone = exchange(low, words), exchange(power.address, [450])
    rows, _, done = replayed(folder, rtu_pcap(folder / "line.pcap", *both, *alone), "--bus", "meters")
    assert done.exit_code == 0, done.output
    assert abs(rows[1]["values"]["power_w"]) == 4500.0
    assert "power_w" not in rows[3]["values"]


def test_bytes_as_text_are_read_however_they_were_written(folder):
    hexed = [ASK.hex(" "), " ".join(f"0x{b:02x}" for b in TELL), f"[12.5] TX: {ASK.hex(' ').upper()}",
             f"RX {TELL.hex()}", "# a remark", "", ASK.hex(":")]  # fmt: skip
    path = folder / "line.log"
    path.write_text("\n".join(hexed))
    assert [item.data for item in read_capture(path)] == [ASK, TELL, ASK, TELL, ASK]
    rows, _, _ = replayed(folder, path, "--bus", "meters")
    assert [row["values"] for row in rows if row["what"] == "answered"] == [{"voltage_l1_v": 230.0}] * 2


def test_damaged_bytes_are_no_frame(folder):
    broken = TELL[:-1] + bytes([TELL[-1] ^ 1])
    rows, said, _ = replayed(folder, rtu_pcap(folder / "line.pcap", (ASK, True), (broken, False)), "--bus", "meters")
    assert any("no frame" in row["what"] for row in rows)
    assert not any(row["values"] for row in rows)
    assert "nobody's" in said


# ---------------------------------------------------------------- in: CAN


CANDUMP = """\
(1700000000.000000) can0 355#64005F00
(1700000000.100000) can0 355#6400
  can0  356   [6]  A0 0F 64 00 FA 00
(1700000000.300000) can0 7FF#00
(1700000000.400000) can0 1F334455#0102030405060708
(1700000000.500000) can0 355#R
"""


def test_each_frame_of_a_candump_says_what_it_became(folder):
    path = folder / "bus.log"
    path.write_text(CANDUMP)
    rows, said, done = replayed(folder, path)
    assert done.exit_code == 0
    assert [row["who"] for row in rows] == ["bms1", "bms1", "bms1", "0x7FF", "0x1F334455", "0x355"]
    assert rows[0]["values"]["soc"] == pytest.approx(1.0)
    assert rows[1]["what"].startswith("refused: 0x355 with 2 bytes") and not rows[1]["values"]
    assert rows[2]["what"] == "taken: 0x356" and rows[2]["values"]
    assert rows[3]["what"] == "no device of the site has this id"
    assert rows[5]["what"] == "remote frame"
    assert "bms1 (bms-35x-hv): 2 taken, 1 refused" in said


# ---------------------------------------------------------------- in: TCP


def ethernet(t_s, source, target, seq, payload, flags=0x18, order="<"):
    """A pcap record of one TCP segment."""
    tcp = struct.pack(">HHIIBBHHH", source, target, seq, 0, 0x50, flags, 8192, 0, 0) + payload
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0, *[socket.inet_aton("127.0.0.1")] * 2)
    data = b"\0" * 12 + b"\x08\0" + ip + tcp
    return struct.pack("<IIII", int(t_s), 0, len(data), len(data)) + data


def mbap(tid, frame):
    return struct.pack(">HHH", tid, 0, len(frame) - 2) + frame[:-2]


PCAP_ETHERNET = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)


def test_modbus_tcp_is_put_together_from_segments(folder):
    asked, told = mbap(7, ASK), mbap(7, TELL)
    packets = [
        ethernet(1, 40000, 502, 99, b"", 2), ethernet(1, 502, 40000, 499, b"", 0x12),
        ethernet(2, 40000, 502, 100, asked),
        ethernet(3, 502, 40000, 500, told[:5]), ethernet(3, 502, 40000, 500, told[:5]),  # cut, and sent again
        ethernet(3, 502, 40000, 505, told[5:]),
        ethernet(4, 40000, 502, 100 + len(asked), mbap(8, ASK) + mbap(9, ASK)),
        ethernet(5, 502, 40000, 500 + len(told), mbap(9, REFUSED) + mbap(8, TELL)),
        ethernet(6, 502, 40000, 500 + 2 * len(told) + len(mbap(9, REFUSED)), mbap(77, TELL)),
        ethernet(7, 502, 40000, 5000, told),
    ]  # fmt: skip
    path = folder / "lan.pcap"
    path.write_bytes(PCAP_ETHERNET + b"".join(packets))
    rows, _, done = replayed(folder, path)
    assert done.exit_code == 0
    assert [row["what"].partition(":")[0] for row in rows] == [
        "asked", "answered", "asked", "asked", "exception", "answered", "refused", rows[7]["what"], "refused",
    ]  # fmt: skip
    assert "missing in the capture" in rows[7]["what"]
    assert rows[1]["values"] == rows[5]["values"] == {"voltage_l1_v": 230.0}


@needs_tshark
@pytest.mark.skipif(os.geteuid() != 0, reason="a capture of loopback needs root")
def test_a_capture_of_our_own_thread_by_others_becomes_the_same_readings(folder):
    """dumpcap writes pcapng of a live connection on loopback; what it holds is what the thread was told."""
    server = Server()
    server.regs.update({0: 0x4366, 1: 0})
    (folder / "site.toml").write_text(SITE.format(port=server.port))
    path = folder / "live.pcapng"
    capture = subprocess.Popen(
        [str(TSHARK), "-q", "-i", "lo", "-f", f"tcp port {server.port}", "-w", str(path)],
        stderr=subprocess.PIPE,
        text=True,
    )
    begun = threading.Event()

    def listen():
        for line in capture.stderr:
            if "Capturing on" in line or "Capture started" in line:
                begun.set()

    threading.Thread(target=listen, daemon=True).start()
    if not begun.wait(20) or capture.poll() is not None:
        pytest.skip("no capture of loopback here")
    ports = started(site(server.port, [slave(block(0, 2))]))
    until(lambda: ports.stats(0)["ok"] >= 60)
    ports.stop()
    server.close()
    until(lambda: path.exists() and path.stat().st_size > 4000)
    capture.terminate()
    capture.wait(20)
    rows, said, done = replayed(folder, path)
    assert done.exit_code == 0, done.output
    answers = [row for row in rows if row["what"] == "answered"]
    assert len(answers) >= 10 and all(row["who"] == "it" for row in answers), said


# ---------------------------------------------------------------- bad input


BAD = {
    "cut head": (b"\xd4\xc3\xb2\xa1\2\0", "breaks off in its first 24 bytes"),
    "cut packet": (PCAP_ETHERNET + b"\1\0\0\0\0\0\0\0\xff\0\0\0\xff\0\0\0abc", "breaks off at byte 24"),
    "huge packet": (PCAP_ETHERNET + struct.pack("<IIII", 1, 0, 0x7FFFFFFF, 0) + b"x" * 64, "breaks off at byte 24"),
    "foreign link": (PCAP_ETHERNET[:20] + struct.pack("<I", 105) + struct.pack("<IIII", 1, 0, 4, 4) + b"abcd",
                     "link type 105"),
    "cut pcapng": (b"\x0a\x0d\x0d\x0a\x1c\0\0\0\x4d\x3c\x2b\x1a", "breaks off at byte 0"),
    "no capture": (bytes(range(128, 256)), "no pcap and no text"),
    "no bytes": (b"01 02 zz\n??\n", "line 1"),
    "half a byte": (b"(1.0) can0 355#123\n", "line 1: half a byte"),
    "false length": (b"  can0  355   [4]  01 02\n", "line 1: says [4], has 2"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_capture_is_said_with_its_place(folder, kind):
    data, words = BAD[kind]
    path = folder / "file"
    path.write_bytes(data)
    with pytest.raises(CaptureError) as caught:
        list(read_capture(path))
    assert words in str(caught.value)
    _, _, done = replayed(folder, path, "--bus", "meters")
    assert done.exit_code == 65


def test_a_capture_without_a_bus_name_asks_which_one_it_is(folder):
    text = (folder / "site.toml").read_text()
    text = text.replace("[[tcp]]", '[[serial]]\nname = "pcs"\ndevice = "/dev/ttyS2"\n[[tcp]]')
    text = text.replace('bus = "meters"\nunit_id = 2', 'bus = "pcs"\nunit_id = 2')
    (folder / "site.toml").write_text(text)
    path = rtu_pcap(folder / "line.pcap", (ASK, True))
    done = CliRunner().invoke(replay_bus, [str(path), "--site", str(folder / "site.toml")])
    assert done.exit_code == 2 and "--bus" in done.output and "meters, pcs" in done.output
    done = CliRunner().invoke(replay_bus, [str(path), "--site", str(folder / "site.toml"), "--bus", "metres"])
    assert done.exit_code == 2 and "no bus 'metres'" in done.output


def test_no_frame_of_the_site_is_exit_code_1(folder):
    path = folder / "bus.log"
    path.write_text("(1.0) can0 7FF#00\n")
    assert replayed(folder, path)[2].exit_code == 1


def test_cut_captures_never_end_in_a_traceback(folder):
    whole = rtu_pcap(folder / "line.pcap", (ASK, True), (TELL, False)).read_bytes()
    path = Path(folder / "cut")
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        try:
            found = list(read_capture(path))
        except CaptureError:
            continue
        assert all(isinstance(item, (SerialBytes, CanFrame)) for item in found)
