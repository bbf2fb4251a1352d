"""One port thread on a line, on any machine: does it sleep while nothing is due, wake when told, and end?

Prints `port SLEEPS OK WRITTEN`: how often it slept in two seconds in which nothing was due, readings that came, and
commands of eight that reached the device at the other end. A thread whose waits are over at once sleeps thousands of
times; one that hangs reads and writes nothing.
"""

import os
import select
import socket
import struct
import threading
import time

from tidegate.ext.abi import program
from tidegate.ext.bus.port import Port
from tidegate.ext.bus.rtu_view import crc

MS = 1_000_000
IDLE_S = 2.0
COMMANDS = 8
BLOCK = {"function": 3, "address": 10, "count": 2, "fields": [], "period_ns": 10_000 * MS}
SLAVE = {"unit_id": 1, "timeout_ns": 2000 * MS, "blocks": [BLOCK],
         "commands": [{"kind": 1, "function": 16, "address": 900, "unit": 0, "type": 1}]}  # fmt: skip
SITE = {"points": [{"name": "d.p0", "unit": "W"}], "units": [{"energy_wh": 1.0}],
        "ports": [{"baud": 115200, "gap_rule": 1, "slaves": [SLAVE]}]}  # fmt: skip


class Device(threading.Thread):
    """Answers reads and writes of registers until the other end is shut."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self.fd, self.written = fd, list[int]()

    def run(self) -> None:
        held = b""
        while piece := os.read(self.fd, 512):
            held += piece
            if len(held) < 8 or (held[1] == 16 and len(held) < 9 + held[6]):
                continue
            if held[1] == 16:
                self.written.append(struct.unpack(">H", held[7:9])[0])
                body = held[:6]
            else:
                body = held[:2] + bytes([4]) + bytes(4)
            held = b""
            os.write(self.fd, body + struct.pack("<H", crc(body)))


def until(condition, seconds: float = 20.0) -> bool:  # type: ignore[no-untyped-def]
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        select.select([], [], [], 0.01)
    return bool(condition())


def main() -> None:
    near, far = socket.socketpair()  # qemu-user gives no pty
    near.setblocking(False)
    device = Device(far.fileno())
    device.start()
    port = Port(program.pack(SITE), 0, near.fileno())
    port.start()
    until(lambda: port.stats["ok"] >= 1)
    time.sleep(0.2)
    before = port.sleeps
    time.sleep(IDLE_S)
    sleeps = port.sleeps - before
    for value in range(1, COMMANDS + 1):
        port.put(0, [value], urgent=True)
        until(lambda: value in device.written)  # noqa: B023
    ok = port.stats["ok"]
    port.stop()
    near.close()
    device.join()  # a thread that still runs while the interpreter ends may abort it
    print(f"port {sleeps} {ok} {len(set(device.written))}", flush=True)


if __name__ == "__main__":
    main()
