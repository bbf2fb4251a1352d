"""Who looks after a CAN socket while the loop runs; the real kernel's part is in tests/vm."""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tidegate.ext.bus.can_view import Bus
from tidegate.hal import canbus, canlink
from tidegate.hal.canbus import Keeper, Kept

LIMITS = {"id": 0x351, "fields": [{"point": 0, "start": 0, "length": 16}]}


class Bench:
    """A bus on a socket pair, with an interface that can vanish."""

    def __init__(self, bitrate: int | None = None) -> None:
        self.near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.bus = Bus([LIMITS], fd=self.near.detach())
        self.number: int | None = 3
        self.up = True
        self.now_s = 1000.0
        self.done: list[str] = []
        self.opened = 0
        link = SimpleNamespace(
            index=lambda name: self.number,
            is_up=lambda name: self.up,
            bring_up=lambda name, bitrate: self.done.append(f"up {bitrate}"),
            restart=lambda name: self.done.append("restart"),
        )
        self.kept = Kept("can0", self.bus.handle(), [0x351], bitrate=bitrate)
        self.keeper = Keeper([self.kept], now_s=lambda: self.now_s, opener=self.open, link=link)

    def open(self, *args: Any, **kwargs: Any) -> socket.socket:
        self.opened += 1
        self.far.close()
        near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return near

    def send(self, word: int) -> None:
        self.far.send(struct.pack("=IB3x8s", 0x351, 8, word.to_bytes(8, "little")))


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.keeper.stop()
    made.far.close()


def test_a_dead_socket_is_replaced_while_the_loop_runs(bench: Bench) -> None:
    bench.far.close()
    bench.bus.drain(1)
    assert bench.bus.handle().dead
    bench.keeper.look()
    bench.send(77)
    assert bench.bus.drain(2) == 1
    assert bench.bus.values() == [77.0]
    before = len(os.listdir("/proc/self/fd"))
    bench.keeper.look()
    assert len(os.listdir("/proc/self/fd")) == before - 1, "the old descriptor is closed"
    assert bench.kept.reopened == 1


def test_an_interface_that_came_back_under_a_new_number_is_opened_again(bench: Bench) -> None:
    bench.keeper.look()
    assert bench.kept.reopened == 0
    bench.number = None
    bench.keeper.look()
    bench.number = 9
    bench.keeper.look()
    assert bench.kept.reopened == 1
    bench.bus.drain(1)
    bench.keeper.look()
    assert bench.kept.reopened == 1


def test_a_second_descriptor_is_not_pushed_before_the_first_is_taken(bench: Bench) -> None:
    for number in (4, 5, 6):
        bench.number = number
        bench.keeper.look()
    assert bench.opened == bench.kept.reopened == 1
    bench.bus.drain(1)
    bench.keeper.look()
    assert (bench.kept.reopened, bench.kept.index) == (2, 6)


def test_bus_off_is_restarted_at_most_three_times_a_minute(bench: Bench) -> None:
    for _ in range(100):
        bench.far.send(struct.pack("=IB3x8s", 0x20000040, 8, bytes(8)))
        bench.bus.drain(1)
        bench.keeper.look()
        bench.now_s += 0.1
    assert bench.done == ["restart"] * 3
    bench.now_s += 60.0
    bench.keeper.look()
    assert bench.done == ["restart"] * 4


def test_an_interface_is_set_up_only_where_the_site_gives_its_bitrate() -> None:
    for bitrate, expected in ((None, []), (500_000, ["up 500000"] * 3)):
        bench = Bench(bitrate)
        bench.up = False
        for _ in range(10):
            bench.keeper.look()
        assert bench.done == expected
        bench.keeper.stop()


def test_a_refusal_of_the_kernel_is_kept_for_people_and_stops_nothing(bench: Bench) -> None:
    def refuse(*args: Any, **kwargs: Any) -> socket.socket:
        raise OSError(errno.EPERM, "CAN interface can0: not permitted")

    bench.keeper._open = refuse
    bench.number = 4
    bench.keeper.look()
    assert bench.kept.refused == "CAN interface can0: not permitted"


def test_filters_pass_exactly_the_wanted_ids() -> None:
    filters = canbus.kernel_filters([0x351, 0x356, 0x351, 0x18F128F4 | canbus.CAN_EFF_FLAG])
    rows = list(struct.iter_unpack("=II", filters))
    assert [can_id for can_id, _ in rows] == [0x351, 0x356, 0x98F128F4]
    for can_id, passes in (
        (0x351, True),
        (0x350, False),
        (0x351 | canbus.CAN_EFF_FLAG, False),
        (0x351 | canbus.CAN_RTR_FLAG, False),
        (0x98F128F4, True),
        (0x18F128F4, False),
    ):
        assert any(can_id & mask == wanted & mask for wanted, mask in rows) == passes


def test_more_ids_than_the_kernel_filters_are_refused() -> None:
    with pytest.raises(ValueError, match="513 CAN ids"):
        canbus.kernel_filters(range(513))


@pytest.mark.parametrize(("name", "word"), [("nosuchcan0", "there is none"), ("x" * 40, "there is none")])
def test_a_missing_interface_is_named(name: str, word: str) -> None:
    with pytest.raises(OSError, match=f"{name}: {word}"):
        canbus.open_bus(name, [0x351])
    assert not canlink.is_up(name)
    with pytest.raises(OSError, match=name):
        canlink.restart(name)


def test_the_keeper_thread_hands_over_by_itself(bench: Bench) -> None:
    bench.keeper.start()
    bench.far.close()
    bench.bus.drain(1)
    for _ in range(200):
        if bench.bus.drain(2) >= 0:
            break
        bench.keeper._stop.wait(0.01)
    assert bench.kept.reopened >= 1
