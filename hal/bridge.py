"""Bridge between a python-can interface and a descriptor that carries the kernel's CAN frames.

For interfaces without SocketCAN: slcan, PEAK, Kvaser, udp_multicast, socketcand and what else python-can knows. The
core sees one end of a socket pair and no difference.

    python -m tidegate.hal.bridge --fd 7 --interface slcan --channel /dev/ttyACM0 --bitrate 500000

Says "ready" once the interface is open. Ends when the core's end closes (exit code 0) or the interface fails (1); the
core then sees its own end closed, and the points of that bus are stale.
"""

import argparse
import contextlib
import select
import socket
import sys
import threading
from collections.abc import Iterable
from typing import Any

import can

from tidegate.hal.can_frame import CAN_EFF_FLAG, CAN_ERR_FLAG, CAN_RTR_FLAG, CANFD_BRS, CANFD_ESI, CLASSIC, FD

RECV_S = 0.2  # how soon the reader notices that it should end


def frame_of(message: can.Message) -> bytes:
    """The kernel's frame for a python-can message: 16 bytes, or 72 for CAN FD."""
    can_id = message.arbitration_id
    if message.is_error_frame:
        can_id |= CAN_ERR_FLAG
    else:
        can_id |= CAN_EFF_FLAG if message.is_extended_id else 0
        can_id |= CAN_RTR_FLAG if message.is_remote_frame else 0
    data = bytes(message.data)
    if message.is_fd:
        flags = (CANFD_BRS if message.bitrate_switch else 0) | (CANFD_ESI if message.error_state_indicator else 0)
        return FD.pack(can_id, len(data), flags, data)
    return CLASSIC.pack(can_id, message.dlc if message.is_remote_frame else len(data), data)


def message_of(frame: bytes) -> can.Message:
    """The python-can message for a frame of the kernel. Raises ValueError for bytes that are none."""
    if len(frame) == CLASSIC.size:
        can_id, length, data = CLASSIC.unpack(frame)
        flags, is_fd, longest = 0, False, 8
    elif len(frame) == FD.size:
        can_id, length, flags, data = FD.unpack(frame)
        is_fd, longest = True, 64
    else:
        raise ValueError(f"{len(frame)} bytes: a frame has {CLASSIC.size}, a CAN FD frame {FD.size}")
    if length > longest:
        raise ValueError(f"frame {can_id:#x} says {length} bytes of data, at most {longest}")
    remote = bool(can_id & CAN_RTR_FLAG)
    return can.Message(
        arbitration_id=can_id & (0x1FFFFFFF if can_id & (CAN_EFF_FLAG | CAN_ERR_FLAG) else 0x7FF),
        is_extended_id=bool(can_id & CAN_EFF_FLAG),
        is_remote_frame=remote,
        is_error_frame=bool(can_id & CAN_ERR_FLAG),
        is_fd=is_fd,
        bitrate_switch=bool(flags & CANFD_BRS),
        error_state_indicator=bool(flags & CANFD_ESI),
        dlc=length,
        data=None if remote else data[:length],
    )


def bus_options(words: Iterable[str]) -> dict[str, Any]:
    """KEY=VALUE words as python-can takes them, numbers as numbers. Raises ValueError naming the word."""
    options: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ValueError(f"{word!r}: expected KEY=VALUE")
        options[key] = can.util.cast_from_string(value)
    return options


def hung_up(bus: can.BusABC) -> bool:
    """Whether a socketcand server is gone: python-can reads on from the closed connection for ever and says nothing."""
    connection = getattr(bus, "_SocketCanDaemonBus__socket", None)
    if not isinstance(connection, socket.socket):
        return False
    watch = select.poll()
    watch.register(connection, select.POLLRDHUP)
    return bool(watch.poll(0))


class Bridge:
    """Two threads' worth of copying, and the counters that say what could not be copied."""

    def __init__(self, bus: can.BusABC, end: socket.socket) -> None:
        self.bus, self.end = bus, end
        self.received = self.sent = self.dropped = self.refused = 0
        self.failed: str | None = None
        self._over = threading.Event()

    def run(self) -> int:
        """Copy both ways until one side ends. Returns the exit code."""
        reader = threading.Thread(target=self._read, name="bridge-read", daemon=True)
        reader.start()
        try:
            self._write()
        finally:
            self._over.set()
            reader.join()
            with contextlib.suppress(OSError):
                self.end.shutdown(socket.SHUT_RDWR)
        return 1 if self.failed else 0

    def stop(self) -> None:
        """End `run` from another thread."""
        self._over.set()

    def _read(self) -> None:
        while not self._over.is_set():
            try:
                message = self.bus.recv(RECV_S)
            except can.CanError as error:
                self._fail(error)
                return
            if message is None:
                if hung_up(self.bus):
                    self._fail(ConnectionResetError("the server closed the connection"))
                    return
                continue
            try:
                self.end.send(frame_of(message), socket.MSG_DONTWAIT)
                self.received += 1
            except BlockingIOError:
                self.dropped += 1  # the core does not come; its points age
            except OSError:
                self._over.set()  # the core's end is closed

    def _write(self) -> None:
        while not self._over.is_set():
            if not select.select([self.end], [], [], RECV_S)[0]:
                continue
            try:
                frame = self.end.recv(FD.size + 1)
            except OSError:
                return
            if not frame:
                return
            try:
                self.bus.send(message_of(frame), timeout=RECV_S)
                self.sent += 1
            except ValueError:
                self.refused += 1
            except can.CanOperationError:
                self.refused += 1  # full or not acknowledged: this frame is lost, the next may go
            except can.CanError as error:
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.failed = str(error)
        self._over.set()


def main(words: list[str] | None = None) -> int:
    """Open the interface, then copy until it ends."""
    parser = argparse.ArgumentParser(prog="tidegate.hal.bridge", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--fd", type=int, required=True, help="this side's end of the socket pair")
    parser.add_argument("--interface", required=True, help="name that python-can knows it by: slcan, pcan, kvaser, ...")
    parser.add_argument("--channel", required=True, help="device, number or address of the interface")
    parser.add_argument("--bitrate", type=int, default=500_000, help="bit/s (default 500000)")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="further python-can options")
    args = parser.parse_args(words)
    try:
        options = bus_options(args.option)
    except ValueError as error:
        parser.error(f"--option {error}")
    try:
        end = socket.socket(fileno=args.fd)
    except OSError as error:
        print(f"bridge: descriptor {args.fd}: {error.strerror}", file=sys.stderr)
        return 2
    try:
        bus = can.Bus(interface=args.interface, channel=args.channel, bitrate=args.bitrate, **options)
    except Exception as error:  # a driver that is not installed raises what it likes: kvaser's a NameError
        print(f"bridge: {args.interface} {args.channel}: {error}", file=sys.stderr)
        return 2
    print("ready", flush=True)
    with bus, end:
        bridge = Bridge(bus, end)
        try:
            code = bridge.run()
        except KeyboardInterrupt:
            code = 0
    if bridge.failed:
        print(f"bridge: {args.interface} {args.channel}: {bridge.failed}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
