"""python-can interfaces behind the same kind of descriptor as SocketCAN."""

import contextlib
import os
import pty
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import tty
from collections.abc import Iterator

import can
import pytest

from tidegate.ext.bus.can_view import Bus
from tidegate.hal import bridge, canbus
from tidegate.hal.bridge import Bridge
from tidegate.hal.canbus import Keeper, Kept

ROW = {"id": 0x351, "fields": [{"point": 0, "start": 0, "length": 16}]}


@pytest.fixture
def bridged() -> Iterator[tuple[Bus, can.BusABC, Bridge]]:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    name = f"bridge-{os.getpid()}-{time.monotonic_ns()}"
    with can.Bus(interface="virtual", channel=name) as ours, can.Bus(interface="virtual", channel=name) as peer:
        copier = Bridge(ours, far)
        thread = threading.Thread(target=copier.run)
        thread.start()
        bus = Bus([ROW], [{"id": 0x305, "data": bytes(8), "period_ns": 10**9}], fd=near.fileno())
        yield bus, peer, copier
        copier.stop()
        thread.join()
        near.close()


def drained(bus: Bus, wanted: int) -> int:
    """Read phases until `wanted` frames came, or two seconds went by."""
    taken = 0
    end = time.monotonic() + 2.0
    while taken < wanted and time.monotonic() < end:
        taken += max(0, bus.drain(1))
        time.sleep(0.001)
    return taken


def test_frames_reach_the_loop_and_its_frames_reach_the_interface(bridged: tuple[Bus, can.BusABC, Bridge]) -> None:
    bus, peer, copier = bridged
    for word in range(50):
        peer.send(can.Message(arbitration_id=0x351, is_extended_id=False, data=word.to_bytes(8, "little")))
    assert drained(bus, 50) == 50
    assert bus.values() == [49.0]
    assert bus.send_due(5) == 1
    answer = peer.recv(2.0)
    assert answer is not None and (answer.arbitration_id, bytes(answer.data)) == (0x305, bytes(8))
    assert (copier.received, copier.sent, copier.dropped, copier.refused) == (50, 1, 0, 0)


@pytest.mark.parametrize(
    "message",
    [
        can.Message(arbitration_id=0x7FF, is_extended_id=False, data=b"\x01"),
        can.Message(arbitration_id=0x7FF, is_extended_id=True, data=b""),
        can.Message(arbitration_id=0x1FFFFFFF, is_extended_id=True, data=bytes(range(8))),
        can.Message(arbitration_id=0x123, is_extended_id=False, is_remote_frame=True, dlc=3),
        can.Message(arbitration_id=0x123, is_fd=True, is_extended_id=False, data=bytes(range(64)), bitrate_switch=True),
        can.Message(arbitration_id=0x40, is_error_frame=True, is_extended_id=False, data=bytes(8)),
    ],
)
def test_every_kind_of_frame_survives_the_way_there_and_back(message: can.Message) -> None:
    assert bridge.message_of(bridge.frame_of(message)).equals(message, timestamp_delta=None, check_channel=False)


@pytest.mark.parametrize("junk", [b"", b"x" * 15, b"x" * 73, struct.pack("=IB3x8s", 1, 9, bytes(8))])
def test_bytes_that_are_no_frame_are_refused(junk: bytes) -> None:
    with pytest.raises(ValueError):
        bridge.message_of(junk)


def test_junk_from_the_core_is_counted_and_stops_nothing(bridged: tuple[Bus, can.BusABC, Bridge]) -> None:
    bus, peer, copier = bridged
    fd = os.dup(bus.fd)
    os.write(fd, b"junk")
    os.close(fd)
    assert bus.send_due(1) == 1
    assert peer.recv(2.0) is not None
    assert copier.refused == 1


def test_the_process_bridges_slcan_on_a_serial_line() -> None:
    master, slave = pty.openpty()
    tty.setraw(master)
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    words = ["--fd", str(far.fileno()), "--interface", "slcan", "--channel", os.ttyname(slave)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tidegate.hal.bridge", *words, "--option", "sleep_after_open=0"],
        pass_fds=[far.fileno()],
    )
    far.close()
    bus = Bus([ROW], fd=near.fileno())
    try:
        heard = b""
        while b"O\r" not in heard:  # bit rate set, channel opened
            heard += os.read(master, 64)
            os.write(master, b"\r")
        os.write(master, b"t35182A00000000000000\r")
        assert drained(bus, 1) == 1
        assert bus.values() == [42.0]
        near.send(struct.pack("=IB3x8s", 0x123, 2, b"\xaa\xbb"))
        while b"t1232AABB\r" not in heard:
            heard += os.read(master, 64)
        near.close()
        assert process.wait(20) == 0
    finally:
        process.kill()
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize(
    "words",
    [
        ["--fd", "0", "--interface", "nosuch", "--channel", "0"],
        ["--fd", "999", "--interface", "virtual", "--channel", "x"],
        ["--fd", "{fd}", "--interface", "slcan", "--channel", "/dev/no-such-adapter"],
        ["--fd", "{fd}", "--interface", "virtual", "--channel", "x", "--option", "novalue"],
    ],
)
def test_an_interface_that_cannot_be_opened_is_named_and_nothing_started(words: list[str]) -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far:
        words = [word.format(fd=far.fileno()) for word in words]
        done = subprocess.run(
            [sys.executable, "-m", "tidegate.hal.bridge", *words],
            pass_fds=[far.fileno()],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "bridge:" in done.stderr or "usage:" in done.stderr


# ---- as the core starts it ----


def test_a_bridged_interface_opens_like_one_of_the_kernel() -> None:
    master, slave = pty.openpty()
    tty.setraw(master)
    adapter = threading.Thread(target=answer_slcan, args=(master,), daemon=True)
    adapter.start()
    name = f"slcan:{os.ttyname(slave)}?sleep_after_open=0"
    assert canbus.is_bridged(name) and not canbus.is_bridged("can0")
    near = canbus.open_bus(name, [0x351], bitrate=250_000)
    bus = Bus([ROW], fd=near.detach())
    keeper = Keeper([Kept(name, bus.handle(), [0x351])])
    try:
        os.write(master, b"t35182A00000000000000\r")
        assert drained(bus, 1) == 1

        # The bridge dies: the points are stale at once, and the keeper starts another.
        canbus._bridges[name].kill()
        while not bus.handle().dead:
            bus.drain(2)
            time.sleep(0.001)
        assert bus.point(0)[2] == 3
        for _ in range(3):
            keeper.look()
        assert bus.drain(3) == 0
        keeper.look()
        assert keeper.buses[0].reopened == 1
        end = time.monotonic() + 30.0
        taken = 0
        while not taken and time.monotonic() < end:
            os.write(master, b"t35182B00000000000000\r")
            taken = max(0, bus.drain(4))
            time.sleep(0.05)
        assert bus.values() == [43.0]
    finally:
        os.close(bus.fd)
        canbus._bridges[name].wait(30)
        canbus.bridge_words(name)
        keeper.stop()
        os.close(master)
        os.close(slave)


def answer_slcan(master: int) -> None:
    """Answer every command of the adapter's other side with a carriage return, until it closes."""
    with contextlib.suppress(OSError):
        while os.read(master, 64):
            os.write(master, b"\r")


@pytest.mark.parametrize("name", ["slcan:/dev/no-such-adapter", "nosuch:0", "virtual:x?novalue"])
def test_a_bridge_that_cannot_open_its_interface_says_why_in_one_message(name: str) -> None:
    with pytest.raises(OSError, match=f"CAN interface {re.escape(name)}: .+") as refused:
        canbus.open_bus(name, [0x351])
    assert "Traceback" not in str(refused.value)


def test_udp_multicast_is_bridged() -> None:
    port = 40_000 + os.getpid() % 20_000
    try:
        peer = can.Bus(interface="udp_multicast", channel="239.74.163.2", port=port)
    except (can.CanError, OSError) as error:
        pytest.skip(f"no multicast on this machine: {error}")
    with peer:
        near = canbus.open_bus(f"udp_multicast:239.74.163.2?port={port}", [0x351])
        bus = Bus([ROW], [{"id": 0x305, "data": b"\x07", "period_ns": 10**9}], fd=near.fileno())
        peer.send(can.Message(arbitration_id=0x351, is_extended_id=False, data=(4711).to_bytes(8, "little")))
        assert drained(bus, 1) == 1
        assert bus.values() == [4711.0]
        assert bus.send_due(1) == 1
        while (message := peer.recv(5.0)) is not None and message.arbitration_id != 0x305:
            pass
        assert message is not None and bytes(message.data) == b"\x07"
        near.close()


class Socketcand:
    """The daemon's side of one connection, by its published protocol: greeting, open, rawmode, then frames in text."""

    def __init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.opened = threading.Event()
        self.sent: list[str] = []
        self.link: socket.socket | None = None
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        with contextlib.suppress(OSError):
            self.link, _ = self.listening.accept()
            self.link.sendall(b"< hi >")
            held = ""
            while data := self.link.recv(1024).decode():
                held += data
                while ">" in held:
                    command, held = held.split(">", 1)
                    words = command.strip(" <").split()
                    if words[0] in ("open", "rawmode"):
                        self.link.sendall(b"< ok >")
                        if words[0] == "rawmode":
                            self.opened.set()
                    else:
                        self.sent.append(" ".join(words))

    def frame(self, can_id: int, data: bytes) -> None:
        assert self.link is not None
        self.link.sendall(f"< frame {can_id:03X} 23.424242 {data.hex().upper()} >".encode())

    def close(self) -> None:
        for end in (self.link, self.listening):
            if end is not None:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()


def test_socketcand_is_bridged_and_a_server_that_goes_away_is_noticed() -> None:
    server = Socketcand()
    name = f"socketcand:can0?host=127.0.0.1&port={server.port}"
    near = canbus.open_bus(name, [0x351])
    bus = Bus([ROW], [{"id": 0x305, "data": b"\x07\x08", "period_ns": 10**9}], fd=near.fileno())
    try:
        assert server.opened.wait(10)
        server.frame(0x351, (4711).to_bytes(8, "little"))
        assert drained(bus, 1) == 1 and bus.values() == [4711.0]
        assert bus.send_due(1) == 1
        end = time.monotonic() + 20
        while not server.sent and time.monotonic() < end:
            time.sleep(0.005)
        assert server.sent[0].split()[:3] == ["send", "305", "2"]
        server.close()
        while not bus.handle().dead and time.monotonic() < end:
            bus.drain(2)
            time.sleep(0.005)
        assert bus.handle().dead and bus.point(0)[2] == 3
        canbus._bridges[name].wait(30)
        assert "server closed the connection" in canbus.bridge_words(name)
    finally:
        server.close()
        near.close()


@pytest.mark.parametrize("name", ["pcan:PCAN_USBBUS1", "kvaser:0"])
def test_an_adapter_without_its_drivers_is_refused_in_one_message(name: str) -> None:
    with pytest.raises(OSError, match=f"CAN interface {re.escape(name)}: .+") as refused:
        canbus.open_bus(name, [0x351])
    assert "Traceback" not in str(refused.value)


def test_a_driver_that_raises_what_it_likes_is_one_line() -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far:
        words = ["--fd", str(far.fileno()), "--interface", "kvaser", "--channel", "0"]
        ended = subprocess.run(
            [sys.executable, "-m", "tidegate.hal.bridge", *words],
            pass_fds=[far.fileno()],
            capture_output=True,
            text=True,
        )
    assert ended.returncode == 2 and "bridge: kvaser 0: " in ended.stderr and "Traceback" not in ended.stderr
