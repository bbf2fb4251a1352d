"""Single registers of foreign devices: TCP and RTU against libmodbus, RTU against pymodbus's server too."""

import shutil
import subprocess
from pathlib import Path

import pytest
import serial

from tests.runtime.planner.foreign_process import free_port, running, until
from tests.runtime.rtu_peer import Slaves, Wire
from tidegate.runtime.tools.modbus_register import (
    Lines,
    Register,
    RegisterError,
    line_of_site,
    register_of,
)

SOURCES = Path(__file__).parents[2] / "ext" / "bus"
ASK_S = 5.0


@pytest.fixture(params=["tcp", "rtu"])
def foreign(request, tmp_path):
    """The line of a libmodbus server: register i holds i, coil i is i % 3 == 0, what is written stays."""
    if not shutil.which("cc") or not Path("/usr/include/modbus/modbus.h").exists():
        pytest.skip("libmodbus is not installed here (Debian package libmodbus-dev) or there is no C compiler")
    tcp = request.param == "tcp"
    source = SOURCES / ("libmodbus_tcp_server.c" if tcp else "libmodbus_server.c")
    subprocess.run(["cc", "-O1", "-o", tmp_path / "server", source, "-lmodbus"], check=True)
    wire, port = Wire(), free_port()
    line = {"host": "127.0.0.1", "port": port} if tcp else {"serial": wire.client, "baud": 115200}
    with running(str(tmp_path / "server"), str(port) if tcp else wire.server, cwd=tmp_path):
        until(lambda: read(Register(1, **line)) == 1, "the server does not answer", despite=(RegisterError,))
        yield line
    wire.close()


def read(at):
    with Lines(ASK_S) as lines:
        return lines.read(at)


def test_each_kind_and_type_is_read_and_what_is_written_stands_there(foreign):
    with Lines(ASK_S) as lines:
        assert lines.read(Register(7, **foreign, kind="input", scale=0.1)) == pytest.approx(0.7)
        assert lines.read(Register(2, **foreign, type="uint32")) == (2 << 16) + 3
        assert lines.read(Register(2, **foreign, type="uint32", words="little")) == (3 << 16) + 2
        assert [lines.read(Register(k, **foreign, kind="coil")) for k in range(4)] == [1, 0, 0, 1]
        assert [lines.read(Register(k, **foreign, kind="discrete")) for k in (3, 4)] == [1, 0]
        for at, value in (
            (Register(20, **foreign, kind="coil"), 1.0), (Register(21, **foreign, kind="coil"), 0.0),
            (Register(30, **foreign, scale=0.1), -12.3), (Register(32, **foreign, type="float32"), 0.25),
        ):  # fmt: skip
            lines.write(at, value)
            assert lines.read(at) == pytest.approx(value)
        lines.write_words(Register(40, **foreign), [35705, 29830])
        assert [lines.read(Register(40 + k, **foreign, type="uint16")) for k in range(2)] == [35705, 29830]


def test_what_a_device_refuses_or_a_type_cannot_hold_is_named_and_nothing_is_written(foreign):
    with pytest.raises(RegisterError, match=r"unit 1 holding register 5000"):
        read(Register(5000, **foreign))
    with Lines(ASK_S) as lines:
        with pytest.raises(RegisterError, match="was refused"):
            lines.write(Register(5000, **foreign), 1.0)
        for value in (70_000, -1, float("nan"), float("inf")):
            with pytest.raises(RegisterError, match=rf"register 50: {value}"):
                lines.write(Register(50, **foreign, type="uint16"), value)
        assert lines.read(Register(50, **foreign)) == 50


def test_a_line_that_is_the_site_s_own_is_named_also_by_another_name(tmp_path):
    port = {"name": "meters", "device": "/dev/null", "transport": "serial"}
    (tmp_path / "by-id").symlink_to("/dev/null")
    mine = Register(1, serial=str(tmp_path / "by-id"))
    assert "is the site's own bus meters" in line_of_site([Register(1, host="h"), mine], [port])
    assert line_of_site([mine], [{**port, "device": "/dev/zero"}, {**port, "transport": "tcp"}]) == ""
    assert line_of_site([Register(1, host="/dev/null")], [port]) == ""


def test_a_line_without_anybody_is_named_once_with_its_place():
    for at, named in (
        (Register(1, host="127.0.0.1", port=free_port()), "127.0.0.1"),
        (Register(1, serial="/dev/ttyNOBODY"), "/dev/ttyNOBODY"),
    ):
        with Lines(0.2) as lines:
            for _ in range(2):
                with pytest.raises(RegisterError, match=f"{named}.*no connection"):
                    lines.read(at)


def test_a_serial_line_is_opened_with_the_baud_parity_and_stop_bits_of_the_file(monkeypatch):
    """A pseudo terminal refuses parity, so what pyserial is asked is looked at."""
    asked = []

    def opens(port, **how):
        asked.append((port, how["baudrate"], how["parity"], how["stopbits"], how["exclusive"]))
        raise serial.SerialException("nobody")

    monkeypatch.setattr(serial, "serial_for_url", opens)
    with Lines(0.1) as lines, pytest.raises(RegisterError, match="no connection"):
        lines.read(Register(0, serial="/dev/ttyS9", baud=19200, parity="E", stop_bits=2))
    assert asked == [("/dev/ttyS9", 19200, "E", 2, True)]


def test_a_slave_that_is_silent_on_a_living_line_is_named():
    wire = Wire(units={1})
    slaves = Slaves(wire.server, {1: {3: {0: 41}}})
    try:
        assert read(Register(0, serial=wire.client)) == 41
        with Lines(0.3) as lines, pytest.raises(RegisterError, match="unit 2 holding register 0"):
            lines.read(Register(0, serial=wire.client, unit=2))
    finally:
        slaves.close()
        wire.close()


@pytest.mark.parametrize(("row", "default", "says"), [
    (None, {}, "is missing"), ({"register": 1}, {}, "no host and no serial"),
    ({"register": 1, "host": "a", "serial": "b"}, {}, "one of both"), ({"register": 1, "speed": 1}, {}, "no key of"),
    ({}, {"host": "a"}, "register"), ({"register": 1, "parity": "even"}, {"serial": "a"}, "write N, E, O"),
    ({"register": 1, "unit": 0}, {"serial": "a"}, "from 1 to 247"),
    ({"register": 1, "baud": 1}, {"serial": "a"}, "baud = 1"),
    ({"register": 1, "stop_bits": 3}, {"serial": "a"}, "write 1, 2"),
    ({"register": True}, {"host": "a"}, "whole number"),
    ({"register": 1, "kind": "coil"}, {"host": "a"}, "write holding, input"),
    ({"register": 1, "scale": 0}, {"host": "a"}, "write a number"),
])  # fmt: skip
def test_a_table_that_names_no_register_is_refused_with_the_remedy(row, default, says):
    with pytest.raises(RegisterError, match=says):
        register_of("unit.toml: [start]", row, default, Register)


def test_a_table_with_a_line_of_its_own_leaves_the_other_kind_of_line_of_the_file():
    serial = {"serial": "/dev/ttyS1", "baud": 19200, "unit": 3}
    assert register_of("", {"register": 1}, serial, Register) == Register(1, serial="/dev/ttyS1", baud=19200, unit=3)
    assert register_of("", {"register": 1, "host": "h"}, serial, Register) == Register(1, host="h", unit=3)
    other = register_of("", {"register": 1, "serial": "/dev/ttyS2"}, {"host": "h", "port": 503}, Register)
    assert other == Register(1, serial="/dev/ttyS2")
