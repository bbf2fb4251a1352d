"""What the core opens its buses with: every problem at once, nothing half-started, and a lost port opened again."""

import os
import time
import tty
from contextlib import ExitStack

import pytest

from tidegate.ext.abi import program as ext_program
from tidegate.ext.abi.shared import Shared
from tidegate.ext.bus.port import Port
from tidegate.ext.cycle.loop import Core
from tidegate.hal.description import SerialPort, described
from tidegate.runtime.core.serial_ports import SerialKeeper, open_all, open_serial

PORT = {"baud": 9600}


@pytest.fixture
def core():
    blob = ext_program.pack({"units": [{}], "n_can_buses": 1, "ports": [{"name": "a"}, {"name": "b"}]})
    shared, fd = Shared.memfd("lines")
    yield Core(blob, shared)
    os.close(fd)


def pty():
    theirs, ours = os.openpty()
    tty.setraw(ours)
    return theirs, ours, os.ttyname(ours)


def test_all_that_cannot_be_opened_is_named_at_once_and_nothing_stays_open(core, tmp_path):
    theirs, ours, device = pty()
    plain = tmp_path / "file"
    plain.write_text("no tty")
    site = described({
        "ports": [
            {"name": "good", "device": device, **PORT},
            {"name": "file", "device": str(plain), **PORT},
            {"name": "gone", "device": str(tmp_path / "ttyUSB7"), **PORT},
        ],
        "can": [{"name": "bms", "interface": "can77", "bitrate": 500000}],
    })  # fmt: skip
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(SystemExit) as ended, ExitStack() as stack:
        open_all(core, site, {"can_frames": [], "can_tx": []}, {}, {}, stack)
    lines = str(ended.value).splitlines()
    assert len(lines) == 3
    assert "serial port file" in lines[0] and "not a serial port" in lines[0]
    assert "serial port gone" in lines[1] and "there is none" in lines[1] and "plugged in" in lines[1]
    assert "CAN bus bms" in lines[2] and "can77" in lines[2]
    assert set(os.listdir("/proc/self/fd")) <= before
    os.close(theirs)
    os.close(ours)


def test_a_port_that_another_program_holds_is_named_with_the_remedy():
    theirs, ours, device = pty()
    held = open_serial(SerialPort(name="meters", **PORT), device)
    try:
        with pytest.raises(OSError, match=r"serial port meters \(/dev/pts/\d+\): another program has it open \(`fuser"):
            open_serial(SerialPort(name="meters", **PORT), device)
    finally:
        held.close()
        os.close(theirs)
        os.close(ours)


def test_a_port_whose_adapter_came_back_is_opened_again(tmp_path):
    blob = ext_program.pack({"units": [{}], "ports": [{"baud": 115200, "slaves": [
        {"unit_id": 1, "timeout_ns": 50_000_000, "blocks": [{"function": 3, "address": 0, "count": 2, "fields": []}]}
    ]}]})  # fmt: skip
    theirs, ours, device = pty()
    name = tmp_path / "ttyUSB0"
    name.symlink_to(device)
    line = open_serial(SerialPort(name="meters", **PORT), str(name))
    os.close(ours)
    port = Port(blob, 0, line.fd)
    keeper = SerialKeeper([line], [port])
    port.start()
    try:
        keeper.look()
        assert not port.lost
        os.close(theirs)
        wait(lambda: port.lost)
        name.unlink()
        keeper.look()  # nothing there yet: no trouble
        assert port.lost
        theirs, ours, device = pty()
        name.symlink_to(device)
        wait(lambda: keeper.look() or not port.lost)
        wait(lambda: os.read(theirs, 8))  # it asks on the new one
        wait(lambda: keeper.look() or not keeper._old)
    finally:
        port.stop(0.0)
        keeper.close()
        os.close(theirs)
        os.close(ours)


def wait(holds):
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)
