"""What was latched or stopped is not forgotten because a file, a name, a disk or a byte of the journal is gone."""

import errno
import json
import time
from pathlib import Path
from typing import Any

import msgpack
import pytest

from tidegate.ext.safety.diagnosis import FAULT_IDS
from tidegate.hal.description import Description, SerialPort
from tidegate.runtime.gateway.lease_file import Ordered, OrdersFile
from tidegate.runtime.state import atomic_file, former, latches, stop_file
from tidegate.runtime.state.journal import DiskFiles, Journal, Record
from tidegate.runtime.state.latches import Latched, LatchFile
from tidegate.runtime.state.stop_file import Stop, StopFile, Stops

BOOT = b"b" * 16
LOST = 1 << FAULT_IDS.index("latches_lost")
HELD = Latched(1 << FAULT_IDS.index("bms_alarm"), FAULT_IDS.index("bms_alarm"))
BUSES = ["/dev/ttyS1", "can0"]


class Site:
    """The folders of one site, and its records as supervisor and gateway keep them."""

    def __init__(self, root: Path, name: str) -> None:
        self.state, self.runtime = root / "state" / name, root / "run" / name
        for folder in (self.state, self.runtime):
            folder.mkdir(parents=True, exist_ok=True)
        self.latches = LatchFile(self.state, ["cabinet"], self.runtime, BUSES)
        self.stops = StopFile(self.state, self.runtime)

    def start(self) -> tuple[list[Latched], str]:
        return LatchFile(self.state, ["cabinet"], self.runtime, BUSES).start(
            lambda: former.former(self.state, self.runtime, BUSES)
        )

    def journal(self, *events: dict[str, Any]) -> None:
        (self.state / "journal").mkdir(exist_ok=True)
        journal = Journal(self.state / "journal", "event")
        for number, event in enumerate(events):
            journal.append(Record(BOOT, number, number, number, msgpack.packb(event)))
        journal.sync()
        journal.close()


def latch(on: bool) -> dict[str, Any]:
    return {"event": "latch", "unit": 0, "name": "bms_alarm", "previous": int(on)}


def refuse(monkeypatch: Any, folder: Path) -> None:
    real = atomic_file.replace

    def replace(path: Path, data: bytes, mode: int = 0o600) -> None:
        if path.parent == folder:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, data, mode)

    for module in (latches, stop_file):
        monkeypatch.setattr(module, "replace", replace)


def test_a_first_start_is_latched_by_nothing_and_leaves_its_record(tmp_path):
    site = Site(tmp_path, "a")
    assert site.start() == ([Latched(0, -1)], "")
    assert site.latches.path.exists() and site.start() == ([Latched(0, -1)], "")


def test_a_state_folder_that_cannot_be_written_starts_latched_and_says_why(tmp_path, monkeypatch):
    site = Site(tmp_path, "a")
    site.start()
    refuse(monkeypatch, site.state)
    found, said = site.start()
    assert found[0].bits == LOST and "No space left" in said


def test_a_latch_that_the_state_disk_refused_is_found_in_the_other_folder(tmp_path, monkeypatch):
    site = Site(tmp_path, "a")
    site.start()

    class Memory:
        latch_changes, latch_kept = 1, 0
        latches = (1, [HELD.bits], [HELD.first])

    with monkeypatch.context() as full:
        refuse(full, site.state)
        assert not site.latches.keep(Memory()) and "No space left" in site.latches.error
    assert site.start()[0] == [HELD]


@pytest.mark.parametrize(("events", "lost"), [
    ((), False), ((latch(True),), True), ((latch(True), latch(False)), False),
    ((latch(True), latch(False), latch(True)), True), (({"event": "order", "name": "stop"},), False),
])  # fmt: skip
def test_a_record_of_latches_that_was_deleted_is_missed_by_the_journal(tmp_path, events, lost):
    site = Site(tmp_path, "a")
    site.journal(*events)
    found, said = site.start()
    assert (found[0].bits == LOST) == lost and bool(said) == lost


@pytest.mark.parametrize(("names", "stopped"), [
    ((), False), (("stop",), True), (("stop", "run"), False), (("lock",), True), (("run", "stop"), True),
])  # fmt: skip
def test_a_record_of_stops_that_was_deleted_is_missed_by_the_journal(tmp_path, names, stopped):
    site = Site(tmp_path, "a")
    site.journal(*({"event": "order", "name": name} for name in names))
    found, said = site.stops.read(lambda: former.journal_says(site.state / "journal", "stop"))
    assert found.stopped == stopped and bool(said) == stopped


def test_a_journal_that_is_damaged_cannot_clear_anybody(tmp_path):
    site = Site(tmp_path, "a")
    site.journal(latch(True), latch(False), latch(False))
    (segment,) = (site.state / "journal").glob("event-*.seg")
    raw = bytearray(segment.read_bytes())
    raw[150] ^= 1
    segment.write_bytes(raw)
    assert site.start()[0][0].bits == LOST


@pytest.mark.parametrize("what", ["latch", "stop"])
def test_another_name_on_the_same_buses_takes_latches_and_stop_along(tmp_path, what):
    old = Site(tmp_path, "old")
    old.start()
    if what == "latch":
        old.latches.write([HELD])
    else:
        old.stops.write(Stops(stop=Stop("uid:0", "maintain", True)))
    found, said = Site(tmp_path, "new").start()
    assert found[0].bits == LOST and "old" in said and what in said
    assert Site(tmp_path, "new").start()[0][0].bits == LOST, "kept from there on under its own name"


@pytest.mark.parametrize("deed", ["a byte", "no record"])
def test_another_name_does_not_help_whoever_spoiled_or_deleted_the_old_record(tmp_path, deed):
    old = Site(tmp_path, "old")
    old.start()
    old.latches.write([HELD])
    old.journal(latch(True))
    if deed == "a byte":
        raw = bytearray(old.latches.path.read_bytes())
        raw[20] ^= 1
        old.latches.path.write_bytes(raw)
    else:
        old.latches.path.unlink()
    found, said = Site(tmp_path, "new").start()
    assert found[0].bits == LOST and "old" in said and "may have been on these buses" in said


def test_a_folder_beside_that_never_latched_or_is_no_site_s_is_no_former_self(tmp_path):
    old = Site(tmp_path, "old")
    old.journal(latch(True), latch(False), {"event": "order", "name": "run"})
    (tmp_path / "state" / "device.key").write_text("not a folder")
    assert Site(tmp_path, "new").start() == ([Latched(0, -1)], "")


def test_a_port_by_another_of_its_names_is_the_same_port(tmp_path):
    (tmp_path / "ttyUSB0").touch()
    (tmp_path / "by-id").symlink_to(tmp_path / "ttyUSB0")
    buses = [
        former.buses_of(Description(ports=(SerialPort(name="a", device=str(path)),)))
        for path in (tmp_path / "ttyUSB0", tmp_path / "by-id")
    ]
    assert set(buses[0]) & set(buses[1]) == {str(tmp_path / "ttyUSB0")}


def test_a_copy_that_is_not_what_was_written_is_said_although_the_other_is_whole(tmp_path):
    site = Site(tmp_path, "a")
    site.latches.write([HELD])
    raw = bytearray(site.latches.path.read_bytes())
    raw[20] ^= 1
    site.latches.path.write_bytes(raw)
    found, said = site.start()
    assert found == [HELD] and "latches.json" in said


def test_a_site_on_other_buses_or_without_a_latch_is_no_former_self(tmp_path):
    clean, other = Site(tmp_path, "clean"), Site(tmp_path, "other")
    clean.start()
    LatchFile(other.state, ["cabinet"], other.runtime, ["can7"]).write([HELD])
    assert Site(tmp_path, "new").start() == ([Latched(0, -1)], "")


def test_a_release_before_this_one_is_read(tmp_path):
    site = Site(tmp_path, "a")
    body = {"v": 1, "units": {"cabinet": {"latched": ["bms_alarm"], "first": "bms_alarm"}}}
    site.latches.path.write_text(json.dumps({**body, "sha256": latches._digest(body)}))
    assert site.start()[0] == [HELD]


# ---- the journal and the lease file ----


class Failing(DiskFiles):
    """A disk that gives EIO for some files, from an offset on."""

    def __init__(self, bad: dict[str, int]) -> None:
        self.bad = bad

    def read(self, path: Path, offset: int, count: int) -> bytes:
        at = self.bad.get(path.name)
        if at is not None and offset + count > at:
            raise OSError(errno.EIO, "Input/output error")
        return super().read(path, offset, count)


def fill(folder: Path, count: int = 60) -> list[Path]:
    journal = Journal(folder, "event", segment_bytes=2000)
    for seq in range(count):
        journal.append(Record(BOOT, seq, seq, seq, b"x" * 100))
        journal.sync()
    journal.close()
    return sorted(folder.glob("event-*.seg"))


@pytest.mark.parametrize("which", [0, 1, -1])
@pytest.mark.parametrize("offset", [0, 600])
def test_a_segment_that_the_disk_does_not_give_is_said_and_left_alone(tmp_path, which, offset):
    segments = fill(tmp_path)
    before = [path.read_bytes() for path in segments]
    journal = Journal(tmp_path, "event", files=Failing({segments[which].name: offset}))
    found, _ = journal.after(None, -1, 500)
    assert any("cannot be read" in str(damage) and segments[which].name in str(damage) for damage in journal.damages)
    assert [path.read_bytes() for path in segments] == before, "nothing was cut off"
    assert 0 < len(found) < 60
    first = max(found[-1].seq, journal.last[BOOT][0]) + 1 + journal.records_lost_max
    assert first >= 60, "no number is given twice"
    journal.append(Record(BOOT, first, 1, 1, b"new"))
    journal.sync()
    assert journal.after(BOOT, first - 1, 5)[0][0].payload == b"new"


def test_a_folder_that_cannot_be_read_starts_an_empty_journal_that_says_so(tmp_path):
    journal = Journal(tmp_path / "none", "event")
    assert journal.segments == [] and "cannot be read" in str(journal.damages[0])


@pytest.mark.parametrize("raw", [
    b"", b"\x01", b"\xc0", b"\x90", b"\x80", b"\xff" * 9, b"\x81\xa4boot\x01", b"\x91" * 5000,
    msgpack.packb({"boot": BOOT, "lease": 5}), msgpack.packb({"boot": BOOT, "limits": {"a": None}}),
])  # fmt: skip
def test_a_lease_file_of_any_bytes_starts_a_gateway_that_says_what_it_lost(tmp_path, raw):
    (tmp_path / "lease").write_bytes(raw)
    file = OrdersFile(tmp_path / "lease", BOOT)
    assert file.read() == Ordered(BOOT) and (file.lost != "" or raw == b"\x80")


def test_a_gateway_starts_over_a_dead_journal_and_a_bad_lease_and_says_so(core, start_gateway, tmp_path):
    core.step()
    core.beat()
    (tmp_path / "run" / "lease").write_bytes(b"\x01")
    folder = tmp_path / "state" / "journal"
    folder.mkdir()
    fill(folder)
    (folder / "event-0000000001.seg").unlink()
    (folder / "event-0000000001.seg").mkdir()  # EISDIR for who reads it
    gateway = start_gateway()
    with gateway.client() as site:
        assert site.stop()["status"] == "applied"
        assert any("cannot be read" in one for one in site.health()["journal"]["damages"])
        until = time.monotonic() + 30
        names: set[tuple[str, str]] = set()
        while not {("journal", "damaged"), ("lease", "lost")} <= names and time.monotonic() < until:
            records = site.ask("replay", stream="event", boot=gateway.gateway.records.boot, seq=-1, count=100)[
                "records"
            ]
            names = {(one["event"], one["name"]) for one in records}
            time.sleep(0.1)  # a client has twenty replays a second
        assert {("journal", "damaged"), ("lease", "lost")} <= names
