"""The running loop on a real-time kernel, with a real CAN controller under it that goes away and comes back."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import can
import pytest

from tidegate.ext.abi import program
from tidegate.ext.abi.shared import Shared
from tidegate.ext.cycle import realtime
from tidegate.ext.cycle.loop import Core
from tidegate.hal import canbus, canlink
from tidegate.hal.canbus import Keeper, Kept

MS = 1_000_000
GOOD, STALE = 1, 3
DRIVER = Path("/sys/bus/pci/drivers/kvaser_pci")
BLOB = program.pack(
    {
        "period_ns": 10 * MS,  # an emulated machine is slow
        "units": [{}],
        "points": [{"name": "bms1.soc", "unit": "1", "age_max_ns": 2000 * MS}],
        "n_can_buses": 1,
        "can_frames": [
            {
                "id": 0x355,
                "len_min": 8,
                "len_max": 8,
                "fields": [{"point": "bms1.soc", "start": 0, "length": 16, "scale": 0.01, "min": 0.0, "max": 1.0}],
            }
        ],
        "can_tx": [{"id": 0x305, "len": 8, "data": bytes(8), "period_ns": 100 * MS, "unit": -1}],
    }
)


def wait(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


class Bms(threading.Thread):
    """A BMS that sends its state of charge ten times a second and counts the keep-alives that it hears."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bus = can.Bus(interface="socketcan", channel="can1")
        self.percent, self.heard, self.ended = 50, 0, threading.Event()

    def run(self) -> None:
        while not self.ended.is_set():
            self.bus.send(
                can.Message(arbitration_id=0x355, is_extended_id=False, data=[self.percent, 0, 0, 0, 0, 0, 0, 0])
            )
            end = time.monotonic() + 0.1
            while (left := end - time.monotonic()) > 0:
                message = self.bus.recv(left)
                self.heard += message is not None and message.arbitration_id == 0x305
        self.bus.shutdown()


class Cabinet:
    """Loop, keeper and BMS, running."""

    def __init__(self) -> None:
        self.shared, self.fd = Shared.memfd("vm")
        self.core = Core(BLOB, self.shared)
        rows = program.rows(BLOB)
        self.shared.set_head(
            boot_id=bytes(16),
            program_sha256=bytes(32),
            t_start_ns=1,
            utc_offset_ns=0,
            n_points=len(rows["points"]),
            n_units=1,
            core_pid=os.getpid(),
        )
        self.soc = [row["name"] for row in rows["points"]].index("bms1.soc")
        link = canbus.open_bus("can0", [0x355], [0x305])
        self.core.set_can_fd(0, link.detach())
        self.handle = self.core.can_handle(0)
        self.kept = Kept("can0", self.handle, [0x355], [0x305], bitrate=500_000)
        self.keeper = Keeper([self.kept])
        self.bms = Bms()
        self.core.dry_cycle()
        self.keeper.start()
        self.bms.start()
        self.fifo_error = -1
        self.loop = threading.Thread(target=self._run)
        self.loop.start()

    def _run(self) -> None:
        self.fifo_error = realtime.set_fifo(80)
        self.core.run(0.1)

    def point(self) -> tuple[float, int]:
        picture = self.shared.read_image()
        assert picture is not None
        return picture[self.soc].value, picture[self.soc].quality

    def stop(self) -> None:
        self.bms.ended.set()
        self.core.stop()
        self.loop.join()
        self.keeper.stop()
        self.bms.join()
        os.close(self.fd)


@pytest.fixture
def cabinet() -> Iterator[Cabinet]:
    made = Cabinet()
    yield made
    made.stop()
    for name in ("can0", "can1"):
        canlink.bring_up(name, 500_000)


def test_the_loop_gets_fifo_and_reads_and_feeds_the_bms(cabinet: Cabinet) -> None:
    wait(lambda: cabinet.point() == (0.5, GOOD), "the state of charge did not arrive")
    assert cabinet.fifo_error == 0
    cabinet.bms.percent = 51
    wait(lambda: cabinet.point() == (0.51, GOOD), "a new value did not arrive")
    wait(lambda: cabinet.bms.heard >= 10, "the keep-alive does not come")
    stats = cabinet.handle.stats
    assert stats["send_failed"] == 0 and stats["echoed"] > 0
    assert stats["unconfirmed"] <= 2


def test_the_loop_lives_through_an_interface_that_goes_down(cabinet: Cabinet) -> None:
    wait(lambda: cabinet.point()[1] == GOOD, "the state of charge did not arrive")
    cycle = cabinet.shared.cycle
    canlink.bring_down("can0")
    wait(lambda: cabinet.point()[1] == STALE, "a lost bus left a good value")
    # The keeper sets it up again by itself: the site gives the bitrate.
    wait(lambda: cabinet.point()[1] == GOOD, "the bus did not come back")
    assert cabinet.shared.cycle > cycle
    assert cabinet.kept.reopened == 0, "the socket is the same"


def test_the_loop_lives_through_a_driver_that_goes_away(cabinet: Cabinet) -> None:
    wait(lambda: cabinet.point()[1] == GOOD, "the state of charge did not arrive")
    device = Path("/sys/class/net/can0/device").resolve().name
    (DRIVER / "unbind").write_text(device)
    try:
        wait(lambda: cabinet.point()[1] == STALE, "a lost bus left a good value")
    finally:
        (DRIVER / "bind").write_text(device)
    wait(lambda: cabinet.point()[1] == GOOD, "the bus did not come back")
    heard = cabinet.bms.heard
    wait(lambda: cabinet.bms.heard > heard, "the keep-alive did not come back")
    assert cabinet.kept.reopened == 1
