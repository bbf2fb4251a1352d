"""The buses of a simulated site, as descriptors: one end is the core's, the other the plant's."""

import os
import pty
import socket
import tty
from collections.abc import Iterator
from dataclasses import dataclass, field

from tidegate.hal.description import Description


@dataclass
class Ends:
    """One side of the buses: descriptors by kind of bus and name."""

    fds: dict[str, dict[str, int]] = field(default_factory=lambda: {"serial": {}, "can": {}, "tcp": {}})

    def __bool__(self) -> bool:
        return any(self.fds.values())

    def __iter__(self) -> Iterator[int]:
        return (fd for names in self.fds.values() for fd in names.values())

    @property
    def words(self) -> list[str]:
        """Arguments for the process that inherits them."""
        named = ((kind, name, fd) for kind, names in self.fds.items() for name, fd in names.items())
        return [word for kind, name, fd in named for word in (f"--{kind}", f"{name}={fd}")]


def simulated_buses(site: Description) -> tuple[Ends, Ends, list[str]]:
    """A pty pair for each simulated serial port, a packet pair for each CAN bus, a listening socket for TCP.

    Returns the core's ends, the plant's, and the words that tell the core where it finds a TCP bus. Raises OSError, and
    then nothing is left open.
    """
    ours, theirs, words = Ends(), Ends(), list[str]()
    try:
        for port in site.ports:
            if port.device == "sim" and port.over_tcp:
                if port.bus in theirs.fds["tcp"]:
                    continue  # another lane of it
                listener = socket.create_server(("127.0.0.1", 0))
                words += ["--tcp", "{}={}:{}".format(port.bus, *listener.getsockname())]
                theirs.fds["tcp"][port.bus] = listener.detach()
            elif port.device == "sim":
                theirs.fds["serial"][port.name], ours.fds["serial"][port.name] = pty.openpty()
                tty.setraw(ours.fds["serial"][port.name])
                tty.setraw(theirs.fds["serial"][port.name])
        for bus in site.can:
            if bus.interface == "sim":
                left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                ours.fds["can"][bus.name], theirs.fds["can"][bus.name] = left.detach(), right.detach()
    except OSError:
        for fd in (*ours, *theirs):
            os.close(fd)
        raise
    return ours, theirs, words
