"""The memory between core and gateway, seen from Python."""

import math
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tidegate.ext.abi import copies, shared
from tidegate.ext.abi.shared import ORDER_POLICY_FIRST, POLICY_NAMES_BY_NUMBER, Overwritten, Shared, Writer

POINTS = 5


@pytest.fixture
def core() -> Iterator[Writer]:
    writer, fd = Writer.memfd()
    writer.set_head(
        boot_id=bytes(range(16)),
        program_sha256=bytes(range(32)),
        t_start_ns=7,
        utc_offset_ns=-3,
        n_points=POINTS,
        n_units=1,
        core_pid=os.getpid(),
    )
    yield writer
    os.close(fd)


def rows(base: float) -> list[tuple[float, int, int, int]]:
    return [(base + i, int(base) * 10 + i, 1, int(base)) for i in range(POINTS)]


def test_a_second_mapping_sees_what_the_core_wrote(tmp_path: object) -> None:
    writer, fd = Writer.memfd()
    writer.set_head(
        boot_id=b"b" * 16,
        program_sha256=b"p" * 32,
        t_start_ns=1,
        utc_offset_ns=2,
        n_points=POINTS,
        n_units=1,
        core_pid=9,
    )
    gateway = Shared(fd)
    os.close(fd)
    writer.write_image(12, 3400, rows(2.0))
    writer.advance(running=True, proof=77)
    picture = gateway.read_image()
    assert picture is not None
    assert (picture.cycle, picture.t_ns) == (12, 3400)
    assert list(picture.values) == [2.0, 3.0, 4.0, 5.0, 6.0]
    assert list(picture.times_ns) == [20, 21, 22, 23, 24]
    assert list(picture.changes) == [2] * POINTS
    assert picture.qualities == bytes([1] * POINTS)
    assert picture[4] == copies.Point(6.0, 24, 1, 2)
    assert (gateway.boot_id, gateway.program_sha256) == (b"b" * 16, b"p" * 32)
    assert (gateway.running, gateway.proof, gateway.cycle, gateway.core_pid) == (True, 77, 12, 9)


def test_raw_rows_read_as_a_numpy_table(core: Writer) -> None:
    numpy = pytest.importorskip("numpy")
    from tidegate.ext.abi.image import POINT_FIELDS

    core.write_image(1, 2, rows(3.0))
    picture = core.read_image()
    assert picture is not None
    table = numpy.frombuffer(picture.raw, dtype=POINT_FIELDS)
    assert table["value"].tolist() == list(picture.values)
    assert table["t_ns"].tolist() == list(picture.times_ns)


def test_points_never_seen_are_not_numbers(core: Writer) -> None:
    picture = core.read_image()
    assert picture is not None
    assert all(math.isnan(value) for value in picture.values)
    assert picture.qualities == bytes(POINTS)


def test_an_image_left_half_written_reads_as_none(core: Writer) -> None:
    core.write_image(1, 2, rows(3.0))
    core.leave_image_half_written()
    assert core.read_image() is None


def test_a_snapshot_is_not_there_before_it_is_written(core: Writer) -> None:
    assert core.next_snapshot(0) is None
    core.push_snapshot(1, 2, rows(1.0))
    picture = core.next_snapshot(0)
    assert picture is not None
    assert (picture.number, picture.cycle, picture.t_ns) == (0, 1, 2)
    assert core.next_snapshot(1) is None
    assert core.snapshot_head == 1


@pytest.mark.parametrize("ring", ["snapshot", "meter", "event"])
def test_a_reader_that_stays_away_is_told_what_is_lost(core: Writer, ring: str) -> None:
    kept = {"snapshot": shared.SNAPSHOTS_KEPT, "meter": shared.METERS_KEPT, "event": shared.EVENTS_KEPT}[ring]
    for number in range(kept + 3):
        if ring == "event":
            core.push_event(number, number, 2)
        else:
            getattr(core, f"push_{ring}")(number, number, rows(1.0))
    read = getattr(core, f"next_{ring}")
    with pytest.raises(Overwritten) as lost:
        read(2)
    assert lost.value.oldest == 4  # slot 3 is the one that is written next
    for number in range(3, kept + 3):
        assert read(number).cycle == number
    assert read(kept + 3) is None


@pytest.mark.parametrize("ring", ["snapshot", "meter", "event"])
def test_what_is_being_overwritten_is_lost_and_what_comes_next_is_not_there_yet(core: Writer, ring: str) -> None:
    """The slot has no number for a moment: its old content is gone, and nobody may wait for it."""
    kept = {"snapshot": shared.SNAPSHOTS_KEPT, "meter": shared.METERS_KEPT, "event": shared.EVENTS_KEPT}[ring]
    for number in range(kept):
        if ring == "event":
            core.push_event(number, number, 2)
        else:
            getattr(core, f"push_{ring}")(number, number, rows(1.0))
    read = getattr(core, f"next_{ring}")
    assert read(0).cycle == 0
    core.leave_slot_half_written(ring)
    with pytest.raises(Overwritten):
        read(0)
    assert read(1).cycle == 1 and read(kept) is None


def test_an_event_carries_what_happened(core: Writer) -> None:
    core.push_event(5, 6, shared.EVENT_NAMES.index("fault_on"), unit=1, code=33, previous=2, value=1.5, limit=1.0,
                    changes=7, lasted_s=2.5)  # fmt: skip
    assert core.next_event(0) == shared.Event(0, 5, 6, 4, 1, 33, 2, 1.5, 1.0, 7, 2.5)


def test_the_newest_order_counts_and_applied_names_it(core: Writer) -> None:
    kind = shared.ORDER_NAMES.index("setpoint_w")
    assert core.applied(kind) == 0
    first = core.put_order(kind, 1000.0, 50, 1)
    second = core.put_order(kind, 2000.0, 60, 2)
    assert second > first
    assert core.apply(kind) == shared.Order(second, 2000.0, 60, 2)
    assert core.applied(kind) == second
    assert core.applied(shared.ORDER_NAMES.index("mode")) == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_order_that_is_no_number_is_refused(core: Writer, value: float) -> None:
    with pytest.raises(ValueError, match="setpoint_w"):
        core.put_order(1, value, 5, 1)


@pytest.mark.parametrize("kind", [-1, ORDER_POLICY_FIRST + len(POLICY_NAMES_BY_NUMBER), 64])
def test_an_unknown_kind_of_order_is_refused(core: Writer, kind: int) -> None:
    with pytest.raises(ValueError):
        core.put_order(kind, 0.0, 5, 1)
    with pytest.raises(ValueError):
        core.applied(kind)


def test_a_read_only_mapping_refuses_orders() -> None:
    _, fd = Writer.memfd()
    watcher = Shared(fd, writable=False)
    os.close(fd)
    with pytest.raises(PermissionError):
        watcher.put_order(0, 1.0, 5, 1)


def test_foreign_memory_is_refused() -> None:
    fd = os.memfd_create("foreign")
    try:
        with pytest.raises(ValueError, match="has 0 bytes"):
            Shared(fd)
        os.ftruncate(fd, shared.SHARED_SIZE)
        with pytest.raises(ValueError, match="magic is 0"):
            Shared(fd)
    finally:
        os.close(fd)


def test_memory_of_another_layout_is_refused() -> None:
    _, fd = Writer.memfd()
    try:
        os.pwrite(fd, b"\x63\x00\x00\x00", 4)
        with pytest.raises(ValueError, match="layout version is 99"):
            Shared(fd)
    finally:
        os.close(fd)


def test_percentiles_enclose_the_true_ones_within_a_bucket(core: Writer) -> None:
    durations = [7, 31, 32, 33, 1000, 1001, 50_000, 999_999, 10_000_000] * 50 + [123_456_789]
    for duration in durations:
        core.add("lateness", duration)
    histogram = core.histogram("lateness")
    ordered = sorted(durations)
    assert (histogram.count, histogram.min, histogram.max) == (len(ordered), 7, 123_456_789)
    assert histogram.sum == sum(ordered)
    for percent in (1, 25, 50, 75, 99, 99.9, 100):
        true = ordered[min(len(ordered) - 1, math.ceil(len(ordered) * percent / 100) - 1)]
        assert true <= histogram.percentile(percent) <= true * 1.04 + 1
    assert core.histogram("work").count == 0
    assert core.loop_stats()["lateness_ns"] == histogram.summary()


def test_bucket_edges_rise_and_bound_their_values(core: Writer) -> None:
    edges = [copies.histogram_bucket_edge(i) for i in range(1024)]
    assert edges == sorted(set(edges))
    for phase, ns in zip(shared.PHASE_NAMES, (0, 31, 32, 63, 64, 12345), strict=True):
        core.add(phase, ns)
        ((edge, count),) = core.histogram(phase).buckets
        assert count == 1 and edge <= ns < edges[edges.index(edge) + 1]


def test_a_histogram_since_an_earlier_copy_holds_only_what_came_between(core: Writer) -> None:
    core.add("work", 1_000_000)
    earlier = core.histogram("work")
    core.add("work", 500)
    between = core.histogram("work").since(earlier)
    assert (between.count, between.sum) == (1, 500)
    assert 500 <= between.percentile(100) < 520
    with pytest.raises(ValueError, match="another run"):
        earlier.since(core.histogram("work"))


READER = """
import sys
from tidegate.ext.abi.shared import Shared
shared = Shared(int(sys.argv[1]))
seen, torn, last = 0, 0, -1
while True:
    picture = shared.read_image()
    if picture is None:
        continue
    values = set(picture.values)
    torn += len(values) > 1
    seen += picture.cycle != last
    last = picture.cycle
    if not shared.running:
        break
print(seen, torn)
"""


def test_a_reader_in_another_process_never_sees_a_torn_image() -> None:
    writer, fd = Writer.memfd()
    writer.set_head(
        boot_id=bytes(16),
        program_sha256=bytes(32),
        t_start_ns=1,
        utc_offset_ns=0,
        n_points=POINTS,
        n_units=1,
        core_pid=1,
    )
    writer.write_image(0, 0, [(0.0, 0, 1, 0)] * POINTS)
    writer.advance(running=True)
    reader = subprocess.Popen([sys.executable, "-c", READER, str(fd)], pass_fds=[fd], stdout=subprocess.PIPE, text=True)
    try:
        for cycle in range(1, 60_000):
            writer.write_image(cycle, cycle, [(float(cycle), 0, 1, 0)] * POINTS)
            if cycle % 20_000 == 0:
                assert reader.poll() is None
        writer.advance(running=False)
        out, _ = reader.communicate(timeout=60)
    finally:
        reader.kill()
        os.close(fd)
    seen, torn = map(int, out.split())
    assert seen > 0
    assert torn == 0


def test_an_order_behind_one_that_was_never_finished_is_read_whole():
    memory, fd = shared.Writer.memfd()
    os.close(fd)
    memory.put_order(1, 100.0, 10, 1)
    memory.leave_order_half_written(1)
    assert memory.order(1) is None
    seq = memory.put_order(1, 200.0, 20, 2)
    assert seq % 2 == 0
    assert memory.order(1) == (seq, 200.0, 20, 2)


def test_the_newest_report_of_the_buses_is_read_whole(core: Writer) -> None:
    assert core.buses() is None
    for frames in (1, 22, 3):
        core.put_buses({"can": {"bms": {"frames": frames, "state": "active"}}})
        assert core.buses() == {"can": {"bms": {"frames": frames, "state": "active"}}}
    with pytest.raises(ValueError, match="at most 262144"):
        core.put_buses({"can": "x" * 270_000})
    assert core.buses() == {"can": {"bms": {"frames": 3, "state": "active"}}}
