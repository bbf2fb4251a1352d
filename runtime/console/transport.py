"""The line to the technician: a serial port, or the terminal that `tidegate console` runs in."""

import contextlib
import errno
import fcntl
import os
import select
import signal
import struct
import sys
import termios
import time
import tty
from collections.abc import Callable

import serial

from tidegate.runtime.console.flow import Terminal

READ_BYTES = 4096
BACKLOG_MAX = 32_768  # more than a technician ever asks for at once; what is beyond it is dropped and said
AHEAD_BYTES = 128  # given to the driver at a time, so that Ctrl-C is not behind seconds of old text
TIOCOUTQ = 0x5411
CARRIER_LOST_S = 1.0


class TransportError(OSError):
    """A port that cannot be used now, with the reason and the remedy."""


class Transport:
    """Bytes in and out of two descriptors, without ever waiting for them."""

    def __init__(self, name: str, read_fd: int, write_fd: int, close: Callable[[], None]) -> None:
        self.name = name
        self.read_fd = read_fd
        self.write_fd = write_fd
        self._close = close
        self._backlog = bytearray()
        self._dropped = 0
        os.set_blocking(read_fd, False)
        os.set_blocking(write_fd, False)

    def write(self, data: bytes) -> None:
        """Put bytes on their way; a terminal that takes nothing loses the newest, never our memory."""
        if len(self._backlog) + len(data) > BACKLOG_MAX:
            self._dropped += len(data)
            return
        if self._dropped:
            self._backlog += b"\r\n(%d bytes were dropped: the line did not take them)\r\n" % self._dropped
            self._dropped = 0
        self._backlog += data

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait here."""
        return len(self._backlog)

    def flush(self) -> bool:
        """Give the driver what it may have; false when the line is gone."""
        while self._backlog:
            room = AHEAD_BYTES - self._queued()
            if room <= 0:
                return True
            try:
                sent = os.write(self.write_fd, self._backlog[:room])
            except BlockingIOError:
                return True
            except OSError:
                return False
            del self._backlog[:sent]
        return True

    def _queued(self) -> int:
        held = bytearray(4)
        try:
            fcntl.ioctl(self.write_fd, TIOCOUTQ, held)
        except OSError:
            return 0
        return int(struct.unpack("=i", held)[0])

    def read(self) -> bytes | None:
        """What came, b"" for nothing, None when the line is gone."""
        try:
            data = os.read(self.read_fd, READ_BYTES)
        except BlockingIOError:
            return b""
        except OSError:
            return None
        return data or None

    def wait(self, time_s: float) -> None:
        """Sleep until something comes, at most so long."""
        if self._backlog:
            time_s = min(time_s, 0.02)
        with contextlib.suppress(InterruptedError):
            select.select([self.read_fd], [], [], time_s)

    def carrier(self) -> bool | None:
        """Whether the other end is there; None where the line cannot tell."""
        return None

    def close(self) -> None:
        self._backlog.clear()
        self._close()


class SerialTransport(Transport):
    """A serial port. DCD or DSR counts as carrier once one of them was seen: a cable of three wires has neither."""

    def __init__(self, port: serial.Serial) -> None:
        super().__init__(str(port.port), port.fileno(), port.fileno(), port.close)
        self._has_carrier = False
        self._gone_s: float | None = None

    def read(self) -> bytes | None:
        # A serial line at rest gives nothing for ever; an empty read is no end of it.
        try:
            return os.read(self.read_fd, READ_BYTES)
        except BlockingIOError:
            return b""
        except OSError:
            return None

    def carrier(self) -> bool | None:
        held = bytearray(4)
        try:
            fcntl.ioctl(self.read_fd, termios.TIOCMGET, held)
        except OSError:
            return None  # a pty, or an adapter without modem lines
        seen = bool(struct.unpack("=i", held)[0] & (termios.TIOCM_CD | termios.TIOCM_DSR))
        self._has_carrier = self._has_carrier or seen
        if not self._has_carrier:
            return None
        if seen:
            self._gone_s = None
            return True
        now_s = time.monotonic()
        self._gone_s = self._gone_s if self._gone_s is not None else now_s
        return now_s - self._gone_s < CARRIER_LOST_S


def open_serial(path: str, baud: int) -> SerialTransport:
    """The port, raw, 8N1, ours alone. Raises LineError that says what to do."""
    try:
        port = serial.Serial(path, baud, timeout=0, write_timeout=0, exclusive=True)
    except (serial.SerialException, OSError, ValueError) as why:
        number = getattr(why, "errno", None)
        if number == errno.ENOENT or not os.path.exists(path):
            text = f"no such port {path}; is the adapter plugged in? ls /dev/tty*"
        elif number == errno.EACCES:
            text = f"{path}: no permission; add the user to the group of the port (dialout)"
        elif number in (errno.EBUSY, errno.EWOULDBLOCK) or "exclusively lock" in str(why):
            text = (
                f"{path} is in use by another program (a getty? systemctl stop serial-getty@{os.path.basename(path)})"
            )
        elif isinstance(why, ValueError):
            text = f"{path}: {why}"
        else:
            text = f"{path} cannot be opened as a serial port: {why}"
        raise TransportError(number or errno.EIO, text) from None
    return SerialTransport(port)


class TerminalTransport(Transport):
    """Our own standard input and output."""

    def __init__(self) -> None:
        self._tty = sys.stdin.isatty() and sys.stdout.isatty()
        self._before = termios.tcgetattr(0) if self._tty else None
        super().__init__("terminal", 0, 1, self._restore)
        if self._tty:
            tty.setraw(0)

    def _restore(self) -> None:
        os.set_blocking(0, True)
        os.set_blocking(1, True)
        if self._before is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, self._before)

    def carrier(self) -> bool | None:
        return True

    def _queued(self) -> int:
        return 0

    def terminal(self) -> Terminal:
        """What this terminal can do."""
        columns, rows = os.get_terminal_size(1) if self._tty else (80, 24)
        vt100 = self._tty and os.environ.get("TERM", "dumb") not in ("dumb", "")
        return Terminal(vt100, rows or 24, columns or 80, pager=self._tty, chosen=True)

    def on_resize(self, changed: Callable[[], None]) -> None:
        if self._tty:
            signal.signal(signal.SIGWINCH, lambda *_: changed())
