"""Raw SocketCAN for the core: how the socket is opened, and who looks after it while the loop runs.

Imports only the standard library: the core process loads this file.
"""

import contextlib
import errno
import importlib.util
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tidegate.hal import canlink, gpio_frames
from tidegate.hal.can_frame import CAN_EFF_FLAG, CAN_EFF_MASK, CAN_RTR_FLAG

# linux/can/raw.h and asm-generic/socket.h; not all of them have a name in Python's socket module.
SOL_CAN_RAW = 101
CAN_RAW_FILTER, CAN_RAW_ERR_FILTER, CAN_RAW_RECV_OWN_MSGS, CAN_RAW_FD_FRAMES = 1, 2, 4, 5
CAN_ERR_MASK = 0x1FFFFFFF
STAMP_IN_WORDS, STAMP_IN_64_BITS, SO_RXQ_OVFL = 35, 64, 40  # SO_TIMESTAMPNS_OLD, SO_TIMESTAMPNS_NEW
FILTERS_MAX = 512  # CAN_RAW_FILTER_MAX of the kernel

RESTARTS_PER_MINUTE = 3
LOOK_EVERY_S = 0.1
BRIDGE_READY_S = 30.0  # python-can loads, the adapter answers


def ask_for_stamps(bus: socket.socket) -> None:
    """Let the kernel stamp each frame; on a 32-bit machine in a form that outlives 2038, where its kernel has that.

    The core reads both (ext/bus/can_io.h). Raises OSError where the socket takes neither.
    """
    if struct.calcsize("l") == 4:
        with contextlib.suppress(OSError):  # a kernel from before 5.1 has only the old form
            return bus.setsockopt(socket.SOL_SOCKET, STAMP_IN_64_BITS, 1)
    bus.setsockopt(socket.SOL_SOCKET, STAMP_IN_WORDS, 1)
    return None


def kernel_filters(ids: Iterable[int]) -> bytes:
    """CAN_RAW_FILTER option that passes exactly these ids: number, 11 or 29 bit, no remote requests.

    ids : as in struct can_frame, CAN_EFF_FLAG set for 29 bit.
    """
    exact = CAN_EFF_FLAG | CAN_RTR_FLAG | CAN_EFF_MASK
    wanted = sorted(set(ids))
    if len(wanted) > FILTERS_MAX:
        raise ValueError(f"{len(wanted)} CAN ids on one bus: the kernel takes {FILTERS_MAX} filters")
    return b"".join(struct.pack("=II", can_id, exact) for can_id in wanted)


def is_bridged(interface: str) -> bool:
    """Whether the name is one for python-can (slcan:/dev/ttyACM0) and not for the kernel (can0)."""
    return ":" in interface


_bridges: dict[str, subprocess.Popen[str]] = {}  # by interface; they end by themselves when our end closes


def bridge_words(interface: str) -> str:
    """What the interface's bridge said when it ended; empty while it runs. Reaps it."""
    process = _bridges.get(interface)
    if process is None or process.poll() is None:
        return ""
    del _bridges[interface]
    with process.stdout or contextlib.nullcontext() as said:
        return " ".join(said.read().split()) if said else ""


def open_bridge(interface: str, bitrate: int = 500_000, *, wait: bool = True) -> socket.socket:
    """Start a bridge process for a python-can interface and return our end of the pair.

    interface : INTERFACE:CHANNEL as python-can knows them, options behind a question mark (slcan:/dev/ttyACM0?a=b&c=d).
    wait : until the interface is open. Raises OSError with the bridge's own words if it cannot be opened.
    """
    if is_gpio(interface):
        return open_lines(interface, wait=wait)
    if importlib.util.find_spec("can") is None:
        raise OSError(
            errno.EIO,
            f"CAN interface {interface} is opened with python-can, which is not installed; run: "
            "pip install 'tidegate[tools]'",
        )
    name, _, rest = interface.partition(":")
    channel, _, options = rest.partition("?")
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near.setblocking(False)
    words = ["--fd", str(far.fileno()), "--interface", name, "--channel", channel, "--bitrate", str(bitrate)]
    for option in filter(None, options.split("&")):
        words += ["--option", option]
    return _started(interface, near, far, ["tidegate.hal.bridge", *words], f"CAN interface {interface}", wait)


def is_gpio(interface: str) -> bool:
    """Whether the name is one of GPIO lines, which a process of their own puts on a bus."""
    return interface.startswith("gpio:")


def open_lines(interface: str, *, wait: bool = True) -> socket.socket:
    """Start the process of the GPIO lines; returns our end of the pair. Raises OSError with its own words."""
    chips = {line.chip for line in gpio_frames.lines(interface)}
    if chips != {gpio_frames.SIMULATED} and importlib.util.find_spec("gpiod") is None:
        raise OSError(
            errno.EIO, "GPIO lines are read with gpiod, which is not installed; run: pip install 'tidegate[gpio]'"
        )
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near.setblocking(False)
    words = ["tidegate.hal.gpio_lines", "--fd", str(far.fileno()), "--lines", interface.removeprefix("gpio:")]
    return _started(interface, near, far, words, "GPIO lines", wait)


def _started(
    interface: str, near: socket.socket, far: socket.socket, words: Sequence[str], what: str, wait: bool
) -> socket.socket:
    with far:
        process = subprocess.Popen(
            [sys.executable, "-m", *words],
            pass_fds=[far.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the core, which still has a last setpoint to send
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    bridge_words(interface)  # the one before
    _bridges[interface] = process
    if wait:
        said = process.stdout
        assert said is not None
        line = said.readline() if select.select([said], [], [], BRIDGE_READY_S)[0] else "no answer"
        if line != "ready\n":
            near.close()
            process.kill()
            process.wait()
            raise OSError(errno.EIO, f"{what}: {line.strip()} {bridge_words(interface)}".strip())
    return near


def open_bus(
    interface: str,
    received: Iterable[int],
    sent: Iterable[int] = (),
    *,
    fd_frames: bool = False,
    bitrate: int | None = None,
) -> socket.socket:
    """A raw CAN socket that gives the loop what it can use and nothing else; for a bridged interface, its socket pair.

    received, sent : ids as in struct can_frame. Own frames come back once they are on the wire, so that a bus on which
    nobody acknowledges is noticed; error frames, kernel stamps and the drop counter are on. bitrate : for a bridged
    interface; one of the kernel is set up already. Raises OSError naming the interface and the remedy.
    """
    if is_bridged(interface):
        return open_bridge(interface, bitrate or 500_000)
    if canlink.index(interface) is None:
        raise OSError(errno.ENODEV, f"CAN interface {interface}: there is none (see `ip link`; is its driver loaded?)")
    if not canlink.is_up(interface):
        raise OSError(
            errno.ENETDOWN,
            f"CAN interface {interface} is down: `ip link set {interface} up type can bitrate 500000`",
        )
    bus = socket.socket(socket.AF_CAN, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.CAN_RAW)
    try:
        bus.setsockopt(SOL_CAN_RAW, CAN_RAW_FILTER, kernel_filters([*received, *sent]))
        bus.setsockopt(SOL_CAN_RAW, CAN_RAW_ERR_FILTER, CAN_ERR_MASK)
        bus.setsockopt(SOL_CAN_RAW, CAN_RAW_RECV_OWN_MSGS, 1)
        if fd_frames:
            bus.setsockopt(SOL_CAN_RAW, CAN_RAW_FD_FRAMES, 1)
        bus.setsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL, 1)
        ask_for_stamps(bus)
        bus.bind((interface,))
    except OSError as error:
        bus.close()
        raise OSError(error.errno, f"CAN interface {interface}: {error.strerror}") from None
    return bus


class Handle(Protocol):
    """The part of ext.can_view.BusHandle that the keeper uses."""

    @property
    def state(self) -> str: ...
    @property
    def dead(self) -> bool: ...
    @property
    def waiting(self) -> bool: ...
    def hand_over(self, fd: int) -> bool: ...
    def retired(self) -> int | None: ...
    def set_clock(self, realtime_offset_ns: int) -> None: ...
    def set_echo(self, on: bool) -> None: ...


@dataclass
class Kept:
    """One bus that the keeper looks after.

    bitrate : given, the keeper may set an interface up that came back down; None leaves that to the system.
    """

    interface: str
    handle: Handle
    received: Sequence[int]
    sent: Sequence[int] = ()
    fd_frames: bool = False
    bitrate: int | None = None
    index: int | None = None
    restarts_s: list[float] = field(default_factory=list)
    reopened: int = 0
    refused: str = ""  # last word of the kernel, for people


class Keeper:
    """Does for each bus what the loop must not: opens, closes, sets up, restarts. Ten looks a second.

    now_s, opener, bridge and link are replaced by tests.
    """

    def __init__(
        self,
        buses: Sequence[Kept],
        *,
        now_s: Callable[[], float] = time.monotonic,
        opener: Callable[..., socket.socket] = open_bus,
        bridge: Callable[..., socket.socket] = open_bridge,
        link: Any = canlink,
    ) -> None:
        self.buses = list(buses)
        self._now_s, self._open, self._bridge = now_s, opener, bridge
        self._link = link
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        for bus in self.buses:
            bus.index = self._link.index(bus.interface)
            bus.handle.set_echo(not is_bridged(bus.interface))
        self.look()

    def look(self) -> None:
        """One round over all buses."""
        offset_ns = time.clock_gettime_ns(time.CLOCK_REALTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        for bus in self.buses:
            bus.handle.set_clock(offset_ns)
            self._close_retired(bus)
            try:
                self._look_after(bus)
            except OSError as error:
                bus.refused = str(error.strerror or error)

    def _close_retired(self, bus: Kept) -> None:
        fd = bus.handle.retired()
        if fd is not None:
            os.close(fd)

    def _look_after(self, bus: Kept) -> None:
        if bus.handle.waiting:
            return
        if is_bridged(bus.interface):
            bus.refused = bridge_words(bus.interface) or bus.refused
            if bus.handle.dead and self._may_restart(bus):
                self._give(bus, self._bridge(bus.interface, bus.bitrate or 500_000, wait=False))
            return
        now = self._link.index(bus.interface)
        if now is None:
            return
        if not self._link.is_up(bus.interface):
            if bus.bitrate is not None and self._may_restart(bus):
                self._link.bring_up(bus.interface, bus.bitrate)
            return
        if bus.handle.dead or now != bus.index:
            self._reopen(bus, now)
        elif bus.handle.state == "bus-off" and self._may_restart(bus):
            self._link.restart(bus.interface)

    def _reopen(self, bus: Kept, index: int) -> None:
        if self._give(bus, self._open(bus.interface, bus.received, bus.sent, fd_frames=bus.fd_frames)):
            bus.index = index

    def _give(self, bus: Kept, fresh: socket.socket) -> bool:
        if bus.handle.hand_over(fresh.fileno()):
            fresh.detach()  # the loop's now; it comes back through retired()
            bus.reopened += 1
            return True
        fresh.close()
        return False

    def _may_restart(self, bus: Kept) -> bool:
        """At most three a minute: a node that keeps falling off disturbs all others each time it comes back."""
        now_s = self._now_s()
        bus.restarts_s = [then for then in bus.restarts_s if now_s - then < 60.0]
        if len(bus.restarts_s) >= RESTARTS_PER_MINUTE:
            return False
        bus.restarts_s.append(now_s)
        return True

    def start(self) -> None:
        """Look in a thread of its own. Start it before the loop goes FIFO, or it inherits the priority."""
        self._thread = threading.Thread(target=self._run, name="can-keeper", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_EVERY_S):
            self.look()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        for bus in self.buses:
            with contextlib.suppress(OSError):
                self._close_retired(bus)
