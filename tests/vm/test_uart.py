"""The Modbus engine on real 16550 UARTs and the kernel's own driver; the slave is pymodbus on the other UART.

The emulated UARTs carry bytes without wire time, so these are functional statements: right values, right refusals.
"""

import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import serial

from tidegate.ext.abi import program
from tidegate.ext.bus.port import Port
from tidegate.ext.bus.rtu_view import crc

MS = 1_000_000
OURS, THEIRS = "/dev/ttyS1", "/dev/ttyS2"
BAUD = 115200


def site(*slaves: dict[str, Any]) -> bytes:
    points = [{"name": f"d.p{i}", "unit": "W"} for i in range(4)]
    row = {"baud": BAUD, "parity": "E", "gap_rule": 1, "slaves": list(slaves)}
    return program.pack({"points": points, "units": [{"energy_wh": 1.0}], "ports": [row]})


def slave(unit_id: int, address: int, count: int, **row: Any) -> dict[str, Any]:
    block = {"function": 3, "address": address, "count": count, "fields": [], "period_ns": 20 * MS}
    return {"unit_id": unit_id, "timeout_ns": 400 * MS, "blocks": [block], "commands": [], **row}


def wait(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@pytest.fixture
def uart() -> Iterator[serial.Serial]:
    with serial.Serial(OURS, BAUD, parity="E", timeout=0, exclusive=True) as port:
        yield port


@pytest.fixture(scope="module")
def pymodbus_slave() -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "slave.py"), THEIRS, str(BAUD)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    yield
    process.kill()
    process.wait()


@pytest.fixture
def raw_slave() -> Iterator[serial.Serial]:
    with serial.Serial(THEIRS, BAUD, parity="E", timeout=10) as port:
        yield port


def test_this_is_a_16550(uart: serial.Serial) -> None:
    shown = Path("/proc/tty/driver/serial").read_text()
    assert any(line.startswith("1:") and "16550A" in line for line in shown.splitlines()), shown


# The raw slave comes first: pymodbus then holds the second UART until the end of the module.


def test_the_driver_keeps_parity_and_speed(uart: serial.Serial) -> None:
    flags = termios.tcgetattr(uart.fileno())
    assert flags[2] & termios.PARENB and not flags[2] & termios.PARODD
    assert flags[4] == flags[5] == termios.B115200


def reply_to(request: bytes, first_word: int) -> bytes:
    """A right reply to a read: as many words as were asked for, the first one given, the others 0x1234."""
    count = struct.unpack(">H", request[4:6])[0]
    body = bytes([request[0], 3, 2 * count]) + struct.pack(">H", first_word) + b"\x12\x34" * (count - 1)
    return body + struct.pack("<H", crc(body))


def test_a_reply_with_a_wrong_checksum_is_refused_and_the_next_one_taken(
    uart: serial.Serial, raw_slave: serial.Serial
) -> None:
    port = Port(site(slave(1, 10, 2)), 0, uart.fileno())
    port.start()
    for number in range(6):
        request = raw_slave.read(8)
        assert request[:4] == bytes.fromhex("0103000a")
        reply = bytearray(reply_to(request, number))
        reply[-1] ^= number == 2
        raw_slave.write(bytes(reply))
    wait(lambda: port.stats["ok"] + port.stats["crc_errors"] >= 6)
    port.stop()
    first_words = {row["regs"][0] for row in port.take() if row["status"] == "ok"}
    # The reply behind the refused one may be the engine's own short read, which keeps replies apart and is no block.
    assert first_words - {3} == {0, 1, 4, 5}
    assert port.stats["crc_errors"] == 1


def test_a_silent_unit_does_not_starve_its_neighbour(uart: serial.Serial, raw_slave: serial.Serial) -> None:
    port = Port(site(slave(9, 0, 3), slave(1, 0, 5)), 0, uart.fileno())
    port.start()
    answered = ignored = 0
    while answered < 20:
        request = raw_slave.read(8)
        assert len(request) == 8, "the engine stopped asking"
        if request[0] == 1:
            raw_slave.write(reply_to(request, 77))
            answered += 1
        else:
            ignored += 1
    wait(lambda: port.stats["ok"] >= 20)
    port.stop()
    assert 1 <= ignored < answered
    assert port.stats["timeouts"] >= 1
    assert {row["regs"][0] for row in port.take() if row["status"] == "ok"} == {77}


def test_reads_and_writes_agree_with_pymodbus(uart: serial.Serial, pymodbus_slave: None) -> None:
    setpoint = {"kind": 1, "function": 16, "address": 400, "unit": 0, "type": 1}
    port = Port(site(slave(1, 100, 20, commands=[setpoint])), 0, uart.fileno())
    port.start()
    wait(lambda: port.stats["ok"] >= 30)
    port.put(0, [4711])
    wait(lambda: port.stats["written_seq"][0] > 0)
    port.stop()
    done = [row for row in port.take() if row["status"] == "ok"]
    assert len(done) >= 20
    assert all(row["regs"] == [1100 + n for n in range(20)] for row in done)
    assert port.stats["crc_errors"] == port.stats["mismatches"] == 0

    again = Port(site(slave(1, 400, 1)), 0, uart.fileno())
    again.start()
    wait(lambda: again.stats["ok"] >= 1)
    again.stop()
    assert again.take()[0]["regs"] == [4711]
