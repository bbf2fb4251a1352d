"""The loop: what one cycle leaves behind, and how the run keeps its grid."""

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from tidegate.ext.abi import image
from tidegate.ext.abi import program as ext_program
from tidegate.ext.abi import shared as ext_shared
from tidegate.ext.abi.shared import Shared
from tidegate.ext.cycle import loop as ext_loop
from tidegate.ext.cycle.loop import Core

MS = 1_000_000
ORDERS = {name: number for number, name in enumerate(ext_shared.ORDER_NAMES)}
EVENTS = dict(enumerate(ext_shared.EVENT_NAMES))
MODES = image.MODES_BY_NUMBER


class Bench:
    """A core of one unit without a bus, driven by hand at made-up times."""

    def __init__(self) -> None:
        self.blob = ext_program.pack({"units": [{}], "snapshot_every": 10})
        self.shared, self.fd = Shared.memfd("loop")
        self.core = Core(self.blob, self.shared)
        self.number = 0

    def cycles(self, count: int, dt_ns: int = MS) -> None:
        for _ in range(count):
            self.core.cycle(10**9 + self.number * MS, dt_ns, self.number)
            self.number += 1

    @property
    def t_ns(self) -> int:
        return 10**9 + self.number * MS

    def point(self, name: str) -> float:
        picture = self.shared.read_image()
        assert picture is not None
        names = [row["name"] for row in ext_program.rows(self.blob)["points"]]
        return picture[names.index(name)].value

    def events(self) -> list[tuple[str, int, int]]:
        found = (self.shared.next_event(number) for number in range(self.shared.event_head))
        return [(EVENTS[event.kind], event.code, event.previous) for event in found if event is not None]


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    os.close(made.fd)


def test_core_starts_tripped_with_setpoint_zero_and_no_proof_of_life(bench: Bench) -> None:
    bench.cycles(1)
    assert MODES[int(bench.point("site.mode"))] == "tripped"
    assert bench.point("unit0.setpoint_w") == 0.0
    assert bench.point("unit0.heartbeat_ok") == 0.0
    assert math.isnan(bench.point("site.grid_w")), "no meter: a grid power must not be invented"


def test_one_meter_picture_a_second_and_a_snapshot_each_tenth_cycle(bench: Bench) -> None:
    bench.cycles(2001)
    assert bench.shared.meter_head == 3
    assert bench.shared.snapshot_head == 201
    pictures = [bench.shared.next_meter(number) for number in range(3)]
    assert [picture.t_ns for picture in pictures if picture] == [10**9, 2 * 10**9, 3 * 10**9]


def test_order_is_taken_in_the_next_cycle_and_stop_order_ends_at_rest(bench: Bench) -> None:
    seq = bench.shared.put_order(ORDERS["mode"], 2.0, bench.t_ns + 50 * MS, 7)
    assert bench.shared.applied(ORDERS["mode"]) != seq
    bench.cycles(1)
    assert bench.shared.applied(ORDERS["mode"]) == seq
    assert bench.core.at_rest


def test_mode_event_is_raised_on_the_edge_only(bench: Bench) -> None:
    bench.cycles(50)
    modes = [event for event in bench.events() if event[0] == "mode"]
    assert modes == [("mode", MODES.index("tripped"), -1)]


def test_program_of_another_layout_is_refused() -> None:
    blob = bytearray(ext_program.pack({"units": [{}]}))
    blob[4] ^= 0xFF
    shared, fd = Shared.memfd("loop")
    try:
        with pytest.raises(ValueError, match="program"):
            Core(bytes(blob), shared)
    finally:
        os.close(fd)


def test_every_module_was_built_with_the_same_layout() -> None:
    image.check_layouts((image, ext_loop, ext_shared))


def test_run_ends_when_asked_and_says_start_and_stop() -> None:
    bench = Bench()
    thread = threading.Thread(target=bench.core.run)
    thread.start()
    while bench.shared.cycle < 20:
        time.sleep(0.01)
    bench.core.stop()
    thread.join(30)
    assert not thread.is_alive()
    kinds = [event[0] for event in bench.events()]
    assert kinds[0] == "start" and kinds[-1] == "stop"
    assert not bench.shared.running
    os.close(bench.fd)


def test_halted_run_skips_to_the_grid_ahead_instead_of_bursting() -> None:
    shared, fd = Shared.memfd("loop")
    code = (
        "import sys; from tidegate.ext.abi import program; from tidegate.ext.cycle.loop import Core;"
        "from tidegate.ext.abi.shared import Shared;"
        "Core(program.pack({'units': [{}]}), Shared(int(sys.argv[1]))).run()"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(fd)], pass_fds=[fd])
    try:
        while shared.cycle < 10 and child.poll() is None:
            time.sleep(0.01)
        child.send_signal(signal.SIGSTOP)
        before = shared.cycle
        time.sleep(0.3)
        child.send_signal(signal.SIGCONT)
        while shared.cycle < before + 5 and child.poll() is None:
            time.sleep(0.01)
        counters = shared.loop_counters()
    finally:
        child.kill()
        child.wait()
        os.close(fd)
    assert counters["missed"] >= 1
    assert counters["longest_miss"] >= 200, "the halt of 300 periods is one long miss"
    assert counters["skipped"] >= counters["longest_miss"]


def test_every_point_of_the_core_counts_its_readings(bench: Bench) -> None:
    """One way to set a point: whoever sets one, its count goes on with it."""
    bench.cycles(5)
    rows = [row["name"] for row in ext_program.rows(bench.blob)["points"]]
    picture = bench.shared.read_image()
    assert picture is not None
    now_ns = bench.t_ns - MS
    fresh = {name: picture[i] for i, name in enumerate(rows) if picture[i].t_ns == now_ns}
    assert {"site.unenforced_bits", "site.request_w", "unit0.setpoint_w"} <= set(fresh)
    assert {name: point.changes for name, point in fresh.items()} == dict.fromkeys(fresh, 5)
