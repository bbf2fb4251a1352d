"""The port thread against slaves that nobody here wrote: pymodbus, and libmodbus where it is installed."""

import os
import shutil
import subprocess
import sys
import textwrap
import time
import tty
from pathlib import Path

import pytest

from tidegate.ext.abi import program
from tidegate.ext.bus.port import Port

MS = 1_000_000

PYMODBUS = """
    import asyncio, sys
    from pymodbus.server import StartAsyncSerialServer
    from pymodbus.datastore import ModbusSequentialDataBlock, ModbusServerContext
    try:
        from pymodbus.datastore import ModbusDeviceContext as Device
        named = "devices"
    except ImportError:
        from pymodbus.datastore import ModbusSlaveContext as Device
        named = "slaves"
    words = lambda: ModbusSequentialDataBlock(1, list(range(1000)))
    bits = lambda: ModbusSequentialDataBlock(1, [i % 3 == 0 for i in range(100)])
    context = ModbusServerContext(**{named: Device(di=bits(), co=bits(), hr=words(), ir=words())}, single=True)
    asyncio.run(StartAsyncSerialServer(context=context, port=sys.argv[1], baudrate=115200))
"""


def pymodbus_server(device, folder):
    pytest.importorskip("pymodbus")
    return [sys.executable, "-c", textwrap.dedent(PYMODBUS), device]


def libmodbus_server(device, folder):
    built = folder / "server"
    source = Path(__file__).with_name("libmodbus_server.c")
    if not shutil.which("cc") or not Path("/usr/include/modbus/modbus.h").exists():
        pytest.skip("libmodbus is not installed here (Debian package libmodbus-dev) or there is no C compiler")
    subprocess.run(["cc", "-O1", "-o", built, source, "-lmodbus"], check=True)
    return [str(built), device]


@pytest.fixture(params=[pymodbus_server, libmodbus_server], ids=["pymodbus", "libmodbus"])
def fd(request, tmp_path):
    """Our end of a line with a foreign slave, unit 1, on the other: register i holds i, coil i is i % 3 == 0."""
    ours, theirs = os.openpty()
    tty.setraw(ours)
    tty.setraw(theirs)
    server = subprocess.Popen(request.param(os.ttyname(theirs), tmp_path), stderr=subprocess.DEVNULL)
    yield ours
    server.kill()
    server.wait()
    os.close(ours)
    os.close(theirs)


def site(blocks, commands=()):
    slave = {"unit_id": 1, "timeout_ns": 500 * MS, "blocks": blocks, "commands": list(commands)}
    return program.pack({"points": [], "units": [{}], "ports": [{"baud": 115200, "gap_rule": 1, "slaves": [slave]}]})


def until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def block(function, address, count):
    return {"function": function, "address": address, "count": count, "fields": [], "period_ns": 20 * MS}


def newest(done, number):
    return [row for row in done if row["block"] == number and row["status"] == "ok"][-1]["regs"]


def test_functions_1_to_4_read_what_a_foreign_slave_holds(fd):
    port = Port(site([block(1, 0, 40), block(2, 5, 9), block(3, 10, 125), block(4, 700, 3)]), 0, fd)
    port.start()
    try:
        done = []
        until(
            lambda: done.extend(port.take()) or {row["block"] for row in done if row["status"] == "ok"} == set(range(4))
        )
    finally:
        port.stop()
    coils = [newest(done, 0)[i // 16] >> i % 16 & 1 for i in range(40)]
    assert coils == [int(i % 3 == 0) for i in range(40)]
    inputs = [newest(done, 1)[i // 16] >> i % 16 & 1 for i in range(9)]
    assert inputs == [int((i + 5) % 3 == 0) for i in range(9)]
    assert newest(done, 2) == list(range(10, 135))
    assert newest(done, 3) == [700, 701, 702]
    assert port.stats["crc_errors"] == port.stats["mismatches"] == port.stats["exceptions"] == 0


def test_functions_5_6_15_and_16_write_what_is_read_back(fd):
    commands = [
        {"kind": 1, "function": 5, "address": 3, "unit": 0},
        {"kind": 1, "function": 6, "address": 20, "unit": 0},
        {"kind": 1, "function": 15, "address": 30, "count": 4, "unit": 0},
        {"kind": 1, "function": 16, "address": 40, "unit": 0, "type": program.FIELD_TYPES["u32"]},
    ]
    port = Port(site([block(1, 0, 40), block(3, 10, 60)], commands), 0, fd)
    port.start()
    try:
        until(lambda: port.stats["ok"] >= 2)
        for slot, regs in enumerate(([0xFF00], [4711], [0b0101], [0xDEAD, 0xBEEF])):
            port.put(slot, regs)
        until(lambda: all(seq == 2 for seq in port.stats["written_seq"]))
        done = port.take() and []
        until(lambda: done.extend(port.take()) or {0, 1} <= {row["block"] for row in done if row["status"] == "ok"})
    finally:
        port.stop()
    coils = [newest(done, 0)[i // 16] >> i % 16 & 1 for i in range(40)]
    assert (coils[3], coils[30:34]) == (1, [1, 0, 1, 0])
    regs = newest(done, 1)
    assert (regs[10], regs[30:32]) == (4711, [0xDEAD, 0xBEEF])


def test_functions_22_and_23_mask_a_register_and_write_with_their_own_read_back(fd):
    u32 = program.FIELD_TYPES["u32"]
    commands = [
        {"kind": 0, "function": 22, "address": 42, "type": u32, "value": float(0xFF0F00A0)},
        {"kind": 1, "function": 23, "address": 44, "unit": 0, "type": u32},
    ]
    port = Port(site([block(3, 10, 60)], commands), 0, fd)
    port.start()
    try:
        until(lambda: port.stats["written_seq"][0] == 1)
        port.put(1, [0xDEAD, 0xBEEF])
        until(lambda: port.stats["written_seq"][1] == 2)
        done = port.take() and []
        until(lambda: done.extend(port.take()) or 0 in {row["block"] for row in done if row["status"] == "ok"})
    finally:
        port.stop()
    regs = newest(done, 0)
    assert regs[32] == (42 & 0xFF0F) | (0x00A0 & ~0xFF0F)
    assert regs[34:36] == [0xDEAD, 0xBEEF]
    assert port.stats["exceptions"] == port.stats["readback_mismatches"] == 0


def test_an_address_that_a_foreign_slave_does_not_have_is_an_exception_and_not_a_time_out(fd):
    port = Port(site([block(3, 5000, 2), block(3, 10, 5)]), 0, fd)
    port.start()
    try:
        until(lambda: port.stats["exceptions"] >= 1 and port.stats["ok"] >= 3)
    finally:
        port.stop()
    assert port.stats["slaves"][0]["exception_codes"][2] >= 1
    assert {row["exception"] for row in port.take() if row["status"] == "exception"} == {2}
