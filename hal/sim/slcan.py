"""A simulated CAN adapter that speaks SLCAN on a pty, so that python-can opens the simulated bus like a bought one.

Lines end in a carriage return: `tIIILDD..` and `TIIIIIIIILDD..` are frames with 11 and 29 bit ids, `O`, `L` and `C`
open, listen and close. Frames pass only while it is open.
"""

import os
import select
import socket
import threading

from tidegate.hal.can_frame import CAN_EFF_FLAG, CAN_ERR_FLAG, CAN_RTR_FLAG, CLASSIC

LINE_BYTES_MAX = 64  # the longest line has 27; more without an end is no SLCAN
LOOK_S = 0.2


def line_of(frame: bytes) -> bytes:
    """The SLCAN line of a kernel frame; empty for what SLCAN cannot say (error frames)."""
    can_id, length, data = CLASSIC.unpack(frame)
    if can_id & CAN_ERR_FLAG:
        return b""
    extended, remote = bool(can_id & CAN_EFF_FLAG), bool(can_id & CAN_RTR_FLAG)
    letter = ("R" if remote else "T") if extended else ("r" if remote else "t")
    ident = f"{can_id & 0x1FFFFFFF:08X}" if extended else f"{can_id & 0x7FF:03X}"
    return f"{letter}{ident}{length}{'' if remote else data[:length].hex().upper()}\r".encode()


def frame_of(line: bytes) -> bytes | None:
    """The kernel frame of an SLCAN line without its end; None for anything else."""
    text = line.decode("ascii", "replace")
    letter, digits = text[:1], 8 if text[:1] in "TR" else 3
    if letter not in "tTrR" or len(text) < digits + 2:
        return None
    try:
        ident, length = int(text[1 : 1 + digits], 16), int(text[1 + digits])
        data = b"" if letter in "rR" else bytes.fromhex(text[2 + digits : 2 + digits + 2 * length])
    except ValueError:
        return None
    if length > 8 or (letter in "tT" and len(data) != length):
        return None
    flags = (CAN_EFF_FLAG if letter in "TR" else 0) | (CAN_RTR_FLAG if letter in "rR" else 0)
    return CLASSIC.pack(ident | flags, length, data.ljust(8, b"\0"))


class Adapter:
    """Copies between the plant's end of a bus and the master of a pty, in a thread of its own.

    master : descriptor of the pty, non-blocking. bus : our end of the socket pair.
    """

    def __init__(self, master: int, bus: socket.socket) -> None:
        self.is_open = False
        self.dropped = 0
        self._master, self._bus = master, bus
        self._held = b""
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="slcan", daemon=True)

    def start(self) -> None:
        """Begin to copy."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; the descriptors stay the caller's."""
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.is_set():
            ready = select.select([self._master, self._bus.fileno()], [], [], LOOK_S)[0]
            if self._bus.fileno() in ready:
                frame = self._bus.recv(CLASSIC.size)
                if len(frame) != CLASSIC.size:
                    return  # the plant is gone
                self._answer(line_of(frame) if self.is_open else b"")
            if self._master in ready:
                try:
                    self._take(os.read(self._master, 4096))
                except BlockingIOError:
                    continue

    def _answer(self, line: bytes) -> None:
        try:
            if line:
                os.write(self._master, line)
        except BlockingIOError:
            self.dropped += 1  # nobody reads the pty

    def _take(self, data: bytes) -> None:
        *lines, self._held = (self._held + data).split(b"\r")
        self._held = self._held[-LINE_BYTES_MAX:]
        for line in lines:
            if line[:1] in (b"O", b"L"):
                self.is_open = True
            elif line[:1] == b"C":
                self.is_open = False
            elif self.is_open and (frame := frame_of(line)) is not None:
                self._bus.send(frame)
            self._answer(b"\r")
