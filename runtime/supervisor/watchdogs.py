"""The watchdogs that restart what no longer works: systemd's for the site, /dev/watchdog's for the board.

Both only pass on the loop's own proof of life (`guard.py` decides when); nothing here runs by a timer.
"""

import contextlib
import errno
import fcntl
import os
import socket
import struct
from collections.abc import MutableMapping

WDIOC_SETTIMEOUT = 0xC0045706  # linux/watchdog.h: _IOWR('W', 6, int)
DISARM = b"V"  # the driver's magic close: without it, closing leaves it running
FEEDS_A_TIMEOUT = 4


class WatchdogError(OSError):
    """A watchdog device that cannot be used as the site file wants; says why and what to do."""


class Notify:
    """What systemd wants to hear of a service (sd_notify): ready, alive, stopping. Without systemd: silent.

    address : of the datagram socket, "@" first for an abstract one; None = nobody listens.
    timeout_s : within which systemd wants a sign of life; None = it wants none.
    """

    def __init__(self, address: str | None = None, timeout_s: float | None = None) -> None:
        self.timeout_s = timeout_s if address else None
        self.error = ""
        self._socket: socket.socket | None = None
        if not address:
            return
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str]) -> "Notify":
        """As systemd started us. Takes the variables out, so that no child speaks in our name."""
        address = environment.pop("NOTIFY_SOCKET", None)
        usec, pid = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        if address is not None and not address.startswith(("/", "@")):
            found = cls()
            found.error = (
                f"NOTIFY_SOCKET={address}: only a path or an abstract name is known; systemd hears nothing of us"
            )
            return found
        wanted = usec.isdigit() and int(usec) > 0 and pid in ("", str(os.getpid()))
        found = cls(address, int(usec) / 1e6 if wanted else None)
        if usec and not usec.isdigit():
            found.error = f"WATCHDOG_USEC={usec}: no whole number; systemd's watchdog is not fed"
        return found

    @property
    def feed_every_s(self) -> float | None:
        """How often a sign of life is due."""
        return None if self.timeout_s is None else self.timeout_s / FEEDS_A_TIMEOUT

    def ready(self, status: str) -> None:
        """The site runs; also takes back the patience that `patience` asked for."""
        again = f"\nWATCHDOG_USEC={int(self.timeout_s * 1e6)}" if self.timeout_s is not None else ""
        self.send(f"READY=1\nSTATUS={status}{again}")

    def alive(self) -> None:
        """Pass on one proof of life. Raises OSError if systemd does not take it."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """From here on systemd waits for our end only."""
        self.send("STOPPING=1")

    def patience(self, seconds: float) -> None:
        """Ask for so long without a sign of life: between two runs no loop can give one."""
        if self.timeout_s is not None:
            self.send(f"WATCHDOG_USEC={int(max(seconds, self.timeout_s) * 1e6)}")

    def send(self, text: str) -> None:
        """Say something; nobody listening is no error of ours, and is told by `error`."""
        try:
            self._send(text)
        except OSError as why:
            self.error = f"systemd's socket {self._address!r}: {why.strerror}"

    def _send(self, text: str) -> None:
        if self._socket is not None:
            self._socket.sendto(text.encode(), self._address)

    def close(self) -> None:
        """Close the socket, if there is one."""
        if self._socket is not None:
            self._socket.close()


class Board:
    """The board's watchdog device. Opening it starts it: from then on it wants to be fed, or it resets the board.

    path : /dev/watchdog, or a file or FIFO in its place for a test on the bench.
    Raises WatchdogError.
    """

    def __init__(self, path: str, timeout_s: int) -> None:
        self.path = path
        self.timeout_s = timeout_s
        self.note = ""
        try:
            # Without O_NONBLOCK a FIFO that nobody reads would hold the whole start.
            self._fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError as why:
            raise WatchdogError(why.errno, f"watchdog.device: {path}: {_cause(why)}") from None
        try:
            given = fcntl.ioctl(self._fd, WDIOC_SETTIMEOUT, struct.pack("i", timeout_s))
            self.timeout_s = struct.unpack("i", given)[0]
            if self.timeout_s != timeout_s:
                self.note = f"{path} took {self.timeout_s} s for the {timeout_s} s of the site file"
        except OSError as why:
            if why.errno == errno.EINVAL and _is_device(self._fd):
                self.close(disarm=True)
                raise WatchdogError(
                    why.errno, f"watchdog.timeout_s: {path} does not take {timeout_s} s; most take at most 60"
                ) from None
            self.note = f"{path} has no time-out to set ({why.strerror}): not a watchdog, or one of a fixed time"
        if self.timeout_s < 1:
            self.close(disarm=True)
            raise WatchdogError(errno.EINVAL, f"watchdog.timeout_s: {path} answered {self.timeout_s} s")

    @property
    def feed_every_s(self) -> float:
        """How often a sign of life is due."""
        return self.timeout_s / FEEDS_A_TIMEOUT

    def alive(self) -> None:
        """Pass on one proof of life. Raises OSError if the device does not take it."""
        os.write(self._fd, b"\0")

    def close(self, *, disarm: bool) -> None:
        """Leave it. disarm: it stops; otherwise it goes on, and resets the board unless somebody feeds it in time."""
        if disarm:
            with contextlib.suppress(OSError):
                os.write(self._fd, DISARM)
        os.close(self._fd)


def _is_device(fd: int) -> bool:
    return os.fstat(fd).st_rdev != 0


def _cause(why: OSError) -> str:
    hints = {
        errno.ENOENT: "no such device; load its driver (softdog, where the board has none) or leave [watchdog] out",
        errno.EBUSY: "another program has it (RuntimeWatchdogSec in systemd's system.conf?); only one can",
        errno.EACCES: "we may not write to it; give its group the right by a udev rule, or leave [watchdog] out",
        errno.ENXIO: "a FIFO that nobody reads, or a device without its driver",
    }
    return hints.get(why.errno or 0, why.strerror or str(why))
