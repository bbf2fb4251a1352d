"""`scan`, `read`, `sniff` and `replay-bus` on Pylontech packs: simulated ones, on a pty and behind a TCP port."""

import json
import os
import shutil
import socket
import subprocess
import threading
import time
import tomllib
import tty
from importlib.resources import files

import pytest
from click.testing import CliRunner

from tests.ext.bus.test_pylon import ALARMS, ANALOG, LIMITS, VERSION
from tidegate.ext.bus import pylon
from tidegate.hal.sim.modbus_tcp import Line
from tidegate.hal.sim.pylon_packs import PylonSide
from tidegate.runtime.cli.bus_commands import read, scan, sniff
from tidegate.runtime.cli.replay_bus_command import replay_bus
from tidegate.runtime.tools.captures import SerialBytes, read_capture
from tidegate.runtime.tools.pylon_bus import PylonSplitter, is_frame

WORDS = {
    0x42: [15, 3310, 3300, 5, 2981, 2960, 0xFFF0, 49_650, 0, 30_000, 0, 50_000, 6000, 7],
    0x44: [15, 0, 0, 6, 0, 0],
    0x92: [53_250, 47_000, 250, 65536 - 250, 0xC0],
}
SITE = files("tidegate.config").joinpath("sites/pylontech-packs.toml").read_text(encoding="utf-8")
LINE = '[[serial]]\nname = "packs"\ndevice = "sim"\nbaud = 115200\nprotocol = "pylontech"\n'


def site_with(bus):
    """The shipped site with its packs on another bus."""
    assert LINE in SITE
    return SITE.replace(LINE, bus)


class Packs(Line):
    """Two packs, at 2 and 3; others are silent. Measurements of the second may come in another shape."""

    def __init__(self, words=WORDS):
        self.words = words

    def ask(self, request):
        if request[0] not in (2, 3):
            return None
        found = self.words[request[2]]
        return bytes([request[0], 3, 2 * len(found)]) + b"".join(word.to_bytes(2) for word in found)


class LinePacks(PylonSide):
    """The same for the version question, which a simulated pack answers whatever its address."""

    def answer(self, question):
        return b"" if question[3:5] not in (b"02", b"03") else super().answer(question)


@pytest.fixture
def line():
    ours, theirs = os.openpty()
    tty.setraw(ours)
    tty.setraw(theirs)
    LinePacks(ours, Packs())
    yield os.ttyname(theirs)
    os.close(theirs)


@pytest.fixture
def gateway():
    listener = socket.create_server(("127.0.0.1", 0))
    kept = []

    def accept():
        while True:
            try:
                master, _ = listener.accept()
            except OSError:
                return
            kept.append(master)
            LinePacks(os.dup(master.fileno()), Packs())

    threading.Thread(target=accept, daemon=True).start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    listener.close()
    for one in kept:
        one.shutdown(socket.SHUT_RDWR)
        one.close()


# ---- scan and read ----


@pytest.mark.parametrize("over", ["line", "gateway"])
def test_scan_finds_the_packs_and_prints_them_for_a_site_file(over, request):
    where = request.getfixturevalue(over)
    option = "--serial" if over == "line" else "--tcp"
    words = [option, where, "--protocol", "pylontech", "--ids", "1-4", "--timeout-ms", "300", "--baud", "115200"]
    done = CliRunner().invoke(scan, words)
    assert done.exit_code == 0, done.output
    found = tomllib.loads(done.stdout)
    assert [(one["map"], one["unit_id"], one["role"]) for one in found["device"]] == [
        ("pylontech-rs485", 2, "bms"), ("pylontech-rs485", 3, "bms"),
    ]  # fmt: skip
    bus = found["serial" if over == "line" else "tcp"][0]
    assert bus["protocol" if over == "line" else "framing"] == "pylontech"
    assert "15 cells, 5 sensors" in done.stdout and "soc 0.6" in done.stdout


def test_scan_of_a_silent_line_says_what_to_check():
    ours, theirs = os.openpty()
    tty.setraw(ours)
    tty.setraw(theirs)
    words = ["--serial", os.ttyname(theirs), "--protocol", "pylontech", "--ids", "2", "--timeout-ms", "60"]
    done = CliRunner().invoke(scan, words)
    assert done.exit_code == 1 and "no pack answered" in done.output and "address switches" in done.output


def test_a_pack_of_another_shape_is_found_and_not_taken_for_one_of_the_map(monkeypatch, line):
    monkeypatch.setattr(LinePacks, "answer", lambda self, question: VERSION if question[7:9] == b"4F" else LIMITS)
    done = CliRunner().invoke(scan, ["--serial", line, "--protocol", "pylontech", "--ids", "2", "--timeout-ms", "300"])
    assert done.exit_code == 0 and "not laid out as" in done.stdout
    assert "device" not in tomllib.loads(done.stdout)


@pytest.mark.parametrize("over", ["line", "gateway"])
def test_read_shows_a_pack_by_its_map(over, request):
    where = request.getfixturevalue(over)
    done = CliRunner().invoke(
        read, ["pylontech-rs485", "--serial" if over == "line" else "--tcp", where, "--unit", "3", "--json"]
    )
    assert done.exit_code == 0, done.output
    found = {one["name"]: one["value"] for one in json.loads(done.stdout)}
    assert found["soc"] == 0.6 and found["pack_v"] == 49.65 and found["pack_a"] == 1.6  # + discharge
    assert found["charge_a_max"] == found["discharge_a_max"] == 25.0 and found["charge_ok"] == 1.0


@pytest.mark.parametrize("kind", ["serial", "tcp"])
def test_read_by_site_file_speaks_what_the_bus_speaks(kind, request, tmp_path):
    where = request.getfixturevalue("line" if kind == "serial" else "gateway")
    bus = LINE.replace("sim", where)
    if kind == "tcp":
        host, port = where.split(":")
        bus = f'[[tcp]]\nname = "packs"\nframing = "pylontech"\nhost = "{host}"\nport = {port}\nbaud = 115200\n'
    path = tmp_path / "site.toml"
    path.write_text(site_with(bus))
    done = CliRunner().invoke(read, ["b", "cell_v_max", "--site", str(path), "--json"])
    assert done.exit_code == 0, done.output
    assert [one["value"] for one in json.loads(done.stdout)] == [3.31]


def test_read_of_a_pack_that_is_not_there_says_what_to_check(line):
    done = CliRunner().invoke(read, ["pylontech-rs485", "--serial", line, "--unit", "9"])
    assert done.exit_code == 1 and "unit 9 does not answer" in done.output


def test_read_of_a_pack_needs_a_line():
    done = CliRunner().invoke(read, ["pylontech-rs485", "--can", "virtual:x"])
    assert done.exit_code == 2 and "serial line" in done.output


def test_a_gateway_that_another_master_holds_is_a_sentence():
    listener = socket.create_server(("127.0.0.1", 0))

    def refuse():
        while True:
            try:
                listener.accept()[0].close()
            except OSError:
                return

    threading.Thread(target=refuse, daemon=True).start()
    try:
        done = CliRunner().invoke(read, ["pylontech-rs485", "--tcp", f"127.0.0.1:{listener.getsockname()[1]}"])
    finally:
        listener.close()
    assert done.exit_code == 1 and "closed the connection" in done.output and "another master" in done.output


# ---- sniff and replay-bus ----

PASSED = [
    (0x42, 14, ANALOG), (0x44, 6, ALARMS), (0x92, 5, LIMITS), (0x4F, 4, VERSION),
]  # fmt: skip


def passed():
    """What goes over a line between somebody's master and its pack, as it was recorded."""
    return [(pylon.ask(bytes([2, 3, command, 0, 0, count])), answer) for command, count, answer in PASSED]


def sniffed(out, tmp_path, *words):
    ours, theirs = os.openpty()
    tty.setraw(ours)
    tty.setraw(theirs)

    def talk():
        while not out.exists():  # the line is ours by then
            time.sleep(0.01)
        os.write(ours, b"\x00\xff")
        for question, answer in passed():
            os.write(ours, question)
            os.write(ours, answer[:20])
            time.sleep(0.01)
            os.write(ours, answer[20:])
        os.write(ours, ANALOG[:-3] + b"0\r")

    threading.Thread(target=talk, daemon=True).start()
    try:
        return CliRunner().invoke(sniff, ["--serial", os.ttyname(theirs), "--seconds", "4", "--out", str(out), *words])
    finally:
        os.close(ours)
        os.close(theirs)


def test_sniff_shows_questions_and_decoded_answers_and_its_capture_is_replayed(tmp_path):
    out = tmp_path / "packs.pcap"
    done = sniffed(out, tmp_path, "--map", "2=pylontech-rs485")
    assert done.exit_code == 0, done.output
    assert done.stdout.count(" question ") == 4 and done.stdout.count(" answer ") == 4
    assert "soc 0.71" in done.stdout and "charge_v_max 53.25" in done.stdout and ANALOG.decode().strip() in done.stdout
    assert "8 frames" in done.stderr and f"{len(ANALOG) + 1} bytes" in done.stderr

    frames = [one.data for one in read_capture(out) if isinstance(one, SerialBytes)]
    assert frames == [one for pair in passed() for one in pair]

    site = tmp_path / "site.toml"
    site.write_text(SITE)
    told = CliRunner().invoke(replay_bus, [str(out), "--site", str(site), "--bus", "packs"])
    assert told.exit_code == 0, told.output
    assert told.output.count("a            asked: command") == 4 and "soc 0.71" in told.output
    assert "b (pylontech-rs485): nothing of it in this capture" in told.output


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed (Debian package tshark)")
def test_the_capture_is_shown_by_tshark_as_bytes(tmp_path):
    out = tmp_path / "packs.pcap"
    sniffed(out, tmp_path, "--protocol", "pylontech")
    done = subprocess.run(["tshark", "-r", str(out), "-T", "fields", "-e", "data.data"], capture_output=True, text=True)
    assert done.stdout.split() == [one.hex() for pair in passed() for one in pair], done.stderr


def test_what_the_maps_speak_and_what_was_said_must_agree(tmp_path):
    done = CliRunner().invoke(
        sniff, ["--serial", "/dev/null", "--protocol", "modbus", "--map", "2=pylontech-rs485", "--seconds", "0.1"]
    )
    assert done.exit_code == 2 and "the maps speak pylontech" in done.output
    done = CliRunner().invoke(
        sniff, ["--serial", "/dev/null", "--map", "1=eastron-sdm630", "--map", "2=pylontech-rs485", "--seconds", "0.1"]
    )
    assert done.exit_code == 2 and "a line speaks one of them" in done.output


def test_an_answer_without_its_question_is_shown_and_not_decoded():
    splitter = PylonSplitter({2: ("a", None)})
    (frame,) = splitter.feed(ANALOG, 0.0)
    assert (frame.kind, frame.command, frame.values) == ("answer", -1, {})


def test_an_answer_of_another_pack_or_another_shape_is_not_decoded():
    from tidegate.hal import maps

    shipped = maps.shipped("pylontech-rs485")
    splitter = PylonSplitter({2: ("a", shipped), 3: ("b", shipped)})
    found = list(splitter.feed(pylon.ask(bytes([3, 3, 0x42, 0, 0, 14])) + ANALOG, 0.0))
    assert [one.values for one in found] == [{}, {}]
    found = list(splitter.feed(pylon.ask(bytes([2, 3, 0x42, 0, 0, 14])) + LIMITS, 0.0))
    assert found[1].values == {} and found[1].kind == "answer that is none to this question"


@pytest.mark.parametrize("at", [1, 7, 40, len(ANALOG) - 3])
def test_a_frame_with_a_wrong_character_is_none(at):
    assert is_frame(ANALOG)
    damaged = bytearray(ANALOG)
    damaged[at] = ord("1") if damaged[at] != ord("1") else ord("2")
    assert not is_frame(bytes(damaged))
    assert list(PylonSplitter().feed(bytes(damaged), 0.0)) == []
