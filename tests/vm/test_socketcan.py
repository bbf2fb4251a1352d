"""The CAN code on a real kernel: vcan, and two emulated Kvaser controllers behind the kernel's own driver.

Functional statements only: this machine is emulated, so no latency measured in it means anything.
"""

import errno
import json
import os
import select
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import can
import pytest

from tidegate.ext.bus.can_view import Bus
from tidegate.hal import canbus, canlink
from tidegate.hal.canbus import Keeper, Kept

MS = 1_000_000
EFF = canbus.CAN_EFF_FLAG
GOOD = 1
ROWS = [
    {"id": 0x351, "fields": [{"point": 0, "start": 0, "length": 16}]},
    {"id": 0x18F128F4, "extended": True, "fields": [{"point": 1, "start": 7, "length": 16, "big_endian": True}]},
]
IDS = [0x351, 0x18F128F4 | EFF]
DRIVER = Path("/sys/bus/pci/drivers/kvaser_pci")


def now_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def message(word: int, can_id: int = 0x351, *, extended: bool = False) -> can.Message:
    return can.Message(arbitration_id=can_id, is_extended_id=extended, data=word.to_bytes(8, "little"))


def wait_readable(fd: int) -> None:
    assert select.select([fd], [], [], 5.0)[0], "no frame came"


def drain(bus: Bus, wanted: int) -> int:
    """Read phases until `wanted` frames came or five seconds went by."""
    taken, end = 0, time.monotonic() + 5.0
    while taken < wanted and time.monotonic() < end:
        taken += max(0, bus.drain(now_ns()))
        time.sleep(0.002)
    return taken


def peer(interface: str) -> can.BusABC:
    return can.Bus(interface="socketcan", channel=interface)


@pytest.fixture
def virtual() -> Iterator[tuple[Bus, can.BusABC]]:
    """The loop's end on vcan0, and python-can as the other node."""
    with canbus.open_bus("vcan0", IDS) as near, peer("vcan0") as far:
        yield Bus(ROWS, fd=near.fileno()), far


@pytest.fixture
def controllers() -> Iterator[None]:
    """can0 and can1 up at 500 kbit/s, before and after."""
    yield
    for name in ("can0", "can1"):
        canlink.bring_up(name, 500_000)


# ---- filters, kinds of frame ----


def test_the_kernel_passes_only_the_ids_of_the_site(virtual: tuple[Bus, can.BusABC]) -> None:
    bus, far = virtual
    for other in (0x350, 0x352, 0x7FF):
        far.send(message(1, other))
    far.send(message(2, 0x351, extended=True))
    far.send(can.Message(arbitration_id=0x351, is_extended_id=False, is_remote_frame=True, dlc=8))
    far.send(message(4711))
    far.send(message(0x3412, 0x18F128F4, extended=True))
    assert drain(bus, 2) == 2
    assert bus.drain(now_ns()) == 0
    assert bus.values() == [4711.0, float(0x1234)]
    assert bus.stats["unknown"] == 0


def test_fd_frames_arrive_whole() -> None:
    row = {"id": 0x100, "fd": True, "len_max": 64, "fields": [{"point": 0, "start": 496, "length": 16}]}
    with (
        canbus.open_bus("vcan0", [0x100], fd_frames=True) as near,
        can.Bus(interface="socketcan", channel="vcan0", fd=True) as far,
    ):
        bus = Bus([row], fd=near.fileno())
        far.send(can.Message(arbitration_id=0x100, is_extended_id=False, is_fd=True, data=bytes(62) + b"\x39\x30"))
        assert drain(bus, 1) == 1
        assert bus.values() == [12345.0]


def test_frames_cross_the_wire_between_two_controllers(controllers: None) -> None:
    with canbus.open_bus("can0", IDS) as near, peer("can1") as far:
        bus = Bus(ROWS, fd=near.fileno())
        for word in range(200):
            far.send(message(word))
        assert drain(bus, 200) == 200
        assert bus.values()[0] == 199.0
        assert bus.frame_stats(0)["count"] == 200


def test_our_cyclic_frame_reaches_the_peer_and_its_echo_confirms_it(controllers: None) -> None:
    tx = [{"id": 0x305, "data": bytes(range(8)), "period_ns": 10 * MS}]
    with canbus.open_bus("can0", IDS, [0x305]) as near, peer("can1") as far:
        bus = Bus(ROWS, tx, fd=near.fileno())
        bus.handle().set_echo(True)
        heard = []
        for cycle in range(1, 21):  # one at a time: this test is about the wire, not about a full queue
            assert bus.send_due(cycle * 10 * MS) == 1
            heard.append(far.recv(5.0))
        assert all(m is not None and m.arbitration_id == 0x305 and bytes(m.data) == bytes(range(8)) for m in heard)
        drain(bus, 20)
        stats = bus.stats
        assert (stats["sent"], stats["echoed"], stats["unconfirmed"]) == (20, 20, 0)
        assert bus.accounted() == stats["frames"]


# ---- stamps and the drop counter ----


def test_a_frame_is_as_old_as_the_kernel_says_not_as_the_read_was_late(virtual: tuple[Bus, can.BusABC]) -> None:
    bus, far = virtual
    bus.handle().set_clock(time.clock_gettime_ns(time.CLOCK_REALTIME) - now_ns())
    bus.drain(now_ns())
    before = now_ns()
    far.send(message(1))
    wait_readable(bus.fd)
    arrived = now_ns()
    time.sleep(0.3)
    assert bus.drain(now_ns()) == 1
    assert before - MS <= bus.point(0)[1] <= arrived + MS


def test_a_stepped_wall_clock_moves_no_stamp_out_of_its_cycle(virtual: tuple[Bus, can.BusABC]) -> None:
    bus, far = virtual
    wall = time.clock_gettime_ns(time.CLOCK_REALTIME)
    bus.handle().set_clock(wall - now_ns())
    try:
        for step_s in (-3600, 7200):
            bus.drain(now_ns())
            empty = now_ns()
            bus.drain(empty)
            time.clock_settime_ns(time.CLOCK_REALTIME, time.clock_gettime_ns(time.CLOCK_REALTIME) + step_s * 10**9)
            far.send(message(1))
            wait_readable(bus.fd)
            cycle = now_ns()
            assert bus.drain(cycle) == 1
            assert empty <= bus.point(0)[1] <= cycle
    finally:
        time.clock_settime_ns(time.CLOCK_REALTIME, wall + 10**9)


def test_frames_that_the_kernel_dropped_are_counted() -> None:
    with canbus.open_bus("vcan0", IDS) as near, peer("vcan0") as far:
        near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        bus = Bus(ROWS, fd=near.fileno())
        for word in range(500):
            far.send(message(word))
        kept = drain(bus, 500)
        assert 0 < kept < 500
        far.send(message(1))  # the count comes beside the next frame
        assert drain(bus, 1) == 1
        assert bus.stats["frames"] + bus.stats["dropped"] == 501


# ---- error frames ----


def test_an_error_frame_of_the_controller_moves_the_bus_state(virtual: tuple[Bus, can.BusABC]) -> None:
    bus, _ = virtual
    with socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW) as injector:
        injector.bind(("vcan0",))
        for data1, state in ((0x08, "warning"), (0x20, "passive"), (0x40, "active")):
            injector.send(struct.pack("=IB3x8s", 0x20000004, 8, bytes([0, data1])))
            assert drain(bus, 1) == 1
            assert bus.stats["state"] == state
        injector.send(struct.pack("=IB3x8s", 0x20000040, 8, b""))
        assert drain(bus, 1) == 1
        assert (bus.stats["state"], bus.stats["bus_off"]) == ("bus-off", 1)


def test_the_keeper_keeps_the_kernels_answer_when_a_restart_is_refused(virtual: tuple[Bus, can.BusABC]) -> None:
    bus, _ = virtual
    kept = Kept("vcan0", bus.handle(), IDS)
    keeper = Keeper([kept])
    with socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW) as injector:
        injector.bind(("vcan0",))
        injector.send(struct.pack("=IB3x8s", 0x20000040, 8, b""))
    assert drain(bus, 1) == 1
    for _ in range(10):
        keeper.look()
    assert "vcan0" in kept.refused
    assert len(kept.restarts_s) == canbus.RESTARTS_PER_MINUTE
    keeper.stop()


# ---- a full transmit queue ----


def test_a_full_transmit_queue_is_reported_and_tried_again(controllers: None) -> None:
    subprocess.run(["ip", "link", "set", "can0", "txqueuelen", "2"], check=True)
    with canbus.open_bus("can0", IDS) as near:
        bus = Bus(ROWS, [{"id": 0x305, "data": bytes(8), "period_ns": 1000}], fd=near.fileno())
        t_ns = result = 0
        for _ in range(20_000):
            t_ns += 1000
            result = bus.send_due(t_ns)
            if result < 0:
                break
        assert result == -errno.ENOBUFS
        assert bus.stats["tx_failed_run"] >= 1
        assert bus.stats["state"] == "active", "a full queue is not a lost bus"
        end = time.monotonic() + 5.0
        while bus.send_due(t_ns) < 0 and time.monotonic() < end:
            time.sleep(0.01)
        assert bus.stats["tx_failed_run"] == 0
    subprocess.run(["ip", "link", "set", "can0", "txqueuelen", "1000"], check=True)


# ---- an interface that goes down, a driver that goes away ----


def test_an_interface_that_went_down_and_up_needs_no_new_socket(controllers: None) -> None:
    with canbus.open_bus("can0", IDS) as near, peer("can1") as far:
        bus = Bus(ROWS, [{"id": 0x305, "data": bytes(8), "period_ns": MS}], fd=near.fileno())
        canlink.bring_down("can0")
        assert bus.drain(now_ns()) == -errno.ENETDOWN
        assert bus.stats["state"] == "down"
        assert bus.send_due(now_ns()) == -errno.ENETDOWN
        assert not bus.handle().dead
        canlink.bring_up("can0", 500_000)
        far.send(message(5))
        assert drain(bus, 1) >= 1
        assert bus.values()[0] == 5.0
        assert bus.stats["state"] == "active"


def test_a_driver_that_was_unbound_and_bound_is_opened_set_up_and_read_again(controllers: None) -> None:
    device = Path("/sys/class/net/can0/device").resolve().name
    first = canbus.open_bus("can0", IDS)
    bus = Bus(ROWS, [{"id": 0x305, "data": bytes(8), "period_ns": MS}], fd=first.detach())
    kept = Kept("can0", bus.handle(), IDS, bitrate=500_000)
    keeper = Keeper([kept])
    (DRIVER / "unbind").write_text(device)
    try:
        assert bus.drain(now_ns()) in (-errno.ENETDOWN, -errno.ENODEV)
        assert bus.send_due(now_ns()) < 0
        assert bus.handle().dead
        keeper.look()
        assert kept.reopened == 0, "there is nothing to open"
    finally:
        (DRIVER / "bind").write_text(device)
    end = time.monotonic() + 10.0
    while canlink.index("can0") is None and time.monotonic() < end:
        time.sleep(0.05)
    assert not canlink.is_up("can0"), "an interface comes back down"
    keeper.look()  # sets it up
    keeper.look()  # opens it
    bus.drain(now_ns())
    keeper.look()  # closes the old descriptor
    assert kept.reopened == 1
    with peer("can1") as far:
        far.send(message(99))
        assert drain(bus, 1) == 1
    assert bus.values()[0] == 99.0
    assert bus.stats["state"] == "active"
    keeper.stop()
    os.close(bus.fd)


def test_a_virtual_interface_that_is_deleted_is_a_dead_descriptor() -> None:
    subprocess.run(["ip", "link", "add", "vcan7", "type", "vcan"], check=True)
    canlink.bring_up("vcan7")
    with canbus.open_bus("vcan7", IDS) as near:
        bus = Bus(ROWS, [{"id": 0x305, "data": bytes(8), "period_ns": MS}], fd=near.fileno())
        subprocess.run(["ip", "link", "del", "vcan7"], check=True)
        bus.drain(now_ns())
        bus.send_due(now_ns())
        assert bus.handle().dead and bus.handle().state == "down"


# ---- setting interfaces up ----


@pytest.mark.parametrize("bitrate", [125_000, 250_000, 1_000_000])
def test_netlink_sets_what_iproute_reads(controllers: None, bitrate: int) -> None:
    canlink.bring_up("can1", bitrate, restart_ms=0)
    shown = subprocess.run(["ip", "-json", "-details", "link", "show", "can1"], check=True, capture_output=True)
    (link,) = json.loads(shown.stdout)
    data = link["linkinfo"]["info_data"]
    assert data["bittiming"]["bitrate"] == bitrate
    assert data.get("restart_ms", 0) == 0
    assert "UP" in link["flags"]
    canlink.bring_down("can1")
    assert not canlink.is_up("can1")


def test_an_interface_that_is_down_is_refused_with_the_remedy(controllers: None) -> None:
    canlink.bring_down("can1")
    with pytest.raises(OSError, match="can1 is down: `ip link set can1 up type can bitrate 500000`"):
        canbus.open_bus("can1", IDS)


def test_an_impossible_bitrate_is_refused_by_name(controllers: None) -> None:
    with pytest.raises(OSError, match="can1"):
        canlink.bring_up("can1", 7)


def test_a_controller_that_is_not_off_the_bus_refuses_a_restart(controllers: None) -> None:
    with pytest.raises(OSError, match="can0"):
        canlink.restart("can0")


# ---- the kernel itself ----


def test_this_is_the_real_time_kernel_and_it_grants_fifo_and_locked_memory() -> None:
    assert Path("/sys/kernel/realtime").read_text().strip() == "1"
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(80))
    try:
        assert os.sched_getscheduler(0) == os.SCHED_FIFO
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
