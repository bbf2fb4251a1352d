"""What the core's buses are opened with: all of them or none, every problem named at once; lost serial ports again.

The core process loads this file, so it imports no more than that one may.
"""

import contextlib
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import serial

from tidegate.ext.abi.program import CAN_FRAME_FLAGS
from tidegate.ext.bus.port import Port
from tidegate.ext.cycle.loop import Core
from tidegate.hal import canbus, description, serial_line

if TYPE_CHECKING:
    from tidegate.ext.abi import program


def pairs(words: list[str], what: str) -> dict[str, str]:
    """Turn NAME=VALUE words into a dict."""
    out = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name or not value:
            raise SystemExit(f"core: --{what} {word!r}: expected NAME=DEVICE or NAME=DESCRIPTOR")
        out[name] = value
    return out


@dataclass
class SerialPort:
    """An open serial port. owner: closes the descriptor; None: it came from the supervisor, who closes it."""

    row: description.SerialPort
    where: str
    fd: int
    owner: serial.Serial | None = None

    def close(self) -> None:
        """Close what was opened here."""
        if self.owner is not None:
            self.owner.close()


def open_serial(row: description.SerialPort, where: str) -> SerialPort:
    """A serial port in raw mode. where: a descriptor's number or a device.

    Raises OSError with what is wrong and the remedy.
    """
    if where.isdigit():
        return SerialPort(row, where, int(where))
    name = f"serial port {row.name} ({where})"
    try:
        port = serial.Serial(
            where,
            baudrate=row.baud,
            bytesize=8,
            parity=row.parity,
            stopbits=row.stop_bits,
            timeout=0,
            exclusive=True,
        )
    except (OSError, ValueError) as error:  # pyserial's own are OSErrors
        raise OSError(f"{name}: {_why(error, where)}") from None
    try:
        tuned = serial_line.tune(port.fileno(), where, rs485=row.rs485)
    except OSError as error:
        port.close()
        raise OSError(f"{name}: {error.strerror or error}") from None
    for words in tuned.words:
        print(f"core: {words}", file=sys.stderr, flush=True)
    return SerialPort(row, where, port.fileno(), port)


def _why(error: Exception, where: str) -> str:
    """The usual reasons in plain words, with the remedy."""
    text = str(error)
    if not os.path.exists(where):
        return "there is none (is the adapter plugged in? see /dev/serial/by-id)"
    if "exclusively lock" in text or "Resource temporarily unavailable" in text:
        return f"another program has it open (`fuser {where}` names it)"
    if "ermission denied" in text:
        return "no right to open it (add the user to the group dialout)"
    if "Could not configure port" in text or "Inappropriate ioctl" in text:
        return "not a serial port"
    return text


def open_all(
    core: Core,
    site: description.Description,
    rows: "program.Rows",
    serials: dict[str, str],
    cans: dict[str, str],
    stack: ExitStack,
) -> list[SerialPort]:
    """Open every serial port and CAN bus and start the CAN keeper. SystemExit names all that cannot be opened."""
    problems: list[str] = []
    lines: list[SerialPort] = []
    kept: list[canbus.Kept] = []
    for row in site.ports:
        if row.over_tcp:
            continue  # its thread makes the connection
        try:
            line = open_serial(row, serials.get(row.name, row.device))
        except OSError as error:
            problems.append(str(error))
            continue
        lines.append(line)
        stack.callback(line.close)
    for number, bus in enumerate(site.can):
        try:
            found = _open_can(core, number, bus, rows, cans.get(bus.name, bus.interface))
        except OSError as error:
            problems.append(f"CAN bus {bus.name}: {error.strerror or error}")
            continue
        if found is not None:
            kept.append(found)
    if problems:
        raise SystemExit("\n".join(f"core: {problem}" for problem in problems))
    if kept:
        keeper = canbus.Keeper(kept)
        keeper.start()
        stack.callback(keeper.stop)
    return lines


def _open_can(core: Core, bus: int, row: description.CanBus, rows: "program.Rows", where: str) -> canbus.Kept | None:
    if where.isdigit():
        os.set_blocking(int(where), False)
        core.set_can_fd(bus, int(where))
        return None
    frames = [frame for frame in rows["can_frames"] if frame["bus"] == bus]
    received = [frame["id"] for frame in frames]
    sent = [frame["id"] for frame in rows["can_tx"] if frame["bus"] == bus]
    fd_frames = any(frame["flags"] & CAN_FRAME_FLAGS["fd"] for frame in frames)
    link = canbus.open_bus(where, received, sent, fd_frames=fd_frames, bitrate=row.bitrate)
    core.set_can_fd(bus, link.detach())
    return canbus.Kept(where, core.can_handle(bus), received, sent, fd_frames=fd_frames, bitrate=row.bitrate)


class SerialKeeper:
    """Opens a serial port again whose adapter was pulled and plugged in; looked at once a second, beside the loop."""

    def __init__(self, lines: Sequence[SerialPort], ports: Sequence[Port]) -> None:
        self.lines, self.ports = list(lines), list(ports)
        self._old: list[SerialPort] = []

    def look(self) -> None:
        """One round over all ports."""
        for number, (line, port) in enumerate(zip(self.lines, self.ports, strict=True)):
            fd = port.retired()
            if fd is not None:
                self._close(fd)
            if line.owner is None or not port.lost or port.waiting:
                continue
            try:
                fresh = open_serial(line.row, line.where)
            except OSError:
                continue  # the event of the loss stands; the next look tries again
            if port.hand_over(fresh.fd):
                self._old.append(line)
                self.lines[number] = fresh
            else:
                fresh.close()

    def _close(self, fd: int) -> None:
        for line in self._old:
            if line.fd == fd:
                with contextlib.suppress(OSError):
                    line.close()
        self._old = [line for line in self._old if line.fd != fd]

    def close(self) -> None:
        """Close what is open; after the ports' threads have ended."""
        for line in [*self._old, *self.lines]:
            with contextlib.suppress(OSError):
                line.close()
