"""Inside a guest whose power may go at any moment: what does the disk hold, and then write to it until it goes.

    python tests/vm/power_site.py EXPECTED

EXPECTED : JSON of what earlier guests were told to be on the disk (`power_cuts.py` keeps it). First everything is
looked at as the power left it, then `tidegate run` is started on the same state folder, as it would start by itself on
a cabinet, beside a plant whose meter has counted on, and does what writes: orders, job records, a latch that comes and
is acknowledged (the plant stands still for a moment), meter records; beside it the carbon account's own code books a
journal of its own into a second ledger.

Each line that begins with `+` is said after the product said that it is done, so that it must be found again; one with
`?` before an order that takes such a thing back. They go to standard output, and before that into a part of the disk
that belongs to no file, so that the disk's log holds each at its place between the writes that it speaks of.
"""

import json
import mmap
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.runtime.carbon.sidecar.test_service import Journal as Records
from tests.runtime.carbon.sidecar.test_service import journal, sidecar
from tests.vm import second_boot
from tests.vm.icount_site import read_in
from tidegate.ext.safety.diagnosis import FAULT_IDS
from tidegate.runtime.api.connection import ClientError
from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.carbon.ledger.signing import verify
from tidegate.runtime.carbon.sidecar import service
from tidegate.runtime.client import Client
from tidegate.runtime.state.held import held_in, ledger_in
from tidegate.runtime.state.journal import Journal
from tidegate.runtime.state.latches import LatchFile
from tidegate.runtime.state.stop_file import StopFile

DISK, DEVICE = Path("/disk"), Path("/dev/vda")
FILES_MIB, DISK_MIB = 192, 200  # of the disk, the file system has the first; then come two parts for what is said
SECTOR = 512
UNIT = "cabinet"
PLANT = Path("/tmp/plant")
BOUNDARY_S = 40.0  # of the guest, from the start of the site on
BOOKED_S = 12_000


class Said:
    """Writes what is said behind the file system, a sector a line, one process in each of the two parts."""

    def __init__(self, part: int) -> None:
        half = (DISK_MIB - FILES_MIB << 20) // 2
        self._at = (FILES_MIB << 20) + part * half
        self._fd = os.open(DEVICE, os.O_RDWR | os.O_DIRECT)  # past the kernel's cache: the log has it at once
        self._page = mmap.mmap(-1, mmap.PAGESIZE)

    def put(self, line: bytes) -> None:
        self._page[:SECTOR] = line.ljust(SECTOR, b"\0")
        os.pwritev(self._fd, [memoryview(self._page)[:SECTOR]], self._at)
        self._at += SECTOR


_said: Said | None = None


def said(mark: str, what: str, value: object) -> None:
    """One line by one write, since two processes say such lines."""
    line = f"{mark} {what} {value}\n".encode()
    if _said is not None and mark in "+?":
        _said.put(line)
    os.write(1, line)


# ---- what the power left ----


def look(disk: Path, expected: dict[str, Any]) -> list[str]:
    """What is wrong on the disk, and what was promised and is not there; [] = all whole."""
    wrong: list[str] = []
    state = disk / "state" / "simulated"
    if not state.is_dir():
        return ["the state folder is gone"] if expected else []
    wrong += _latches(state, expected.get("latched"))
    wrong += _stop(state, expected.get("stopped"))
    wrong += _journal(state / "journal", expected)
    ledger = ledger_in(state)
    if ledger.exists():
        found = [f"the site's ledger: {row}" for row in verify(Ledger(str(ledger), read_only=True))]
        wrong += found or second_boot.energy(state, second_boot.history(state))
    elif expected.get("ledger"):
        wrong.append(f"{ledger} is gone")
    for number, seq in expected.get("booked", {}).items():
        path = disk / "booked" / f"{number}.db"
        if not path.exists():
            wrong.append(f"ledger {number} is gone")
            continue
        book = Ledger(str(path), read_only=True)
        wrong += [f"ledger {number}: {row}" for row in verify(book)]
        if book.head[0] < seq:
            wrong.append(f"ledger {number}: ends at entry {book.head[0]}, {seq} were booked")
        book.close()
    return wrong


def _latches(state: Path, latched: bool | None) -> list[str]:
    rows, damage = LatchFile(held_in(state), [UNIT]).read()
    names = [name for row, name in enumerate(FAULT_IDS) if rows[0].bits >> row & 1]
    print(f"  latched: {', '.join(names) or 'nothing'}", flush=True)
    wrong = [f"latches: {damage}"] if damage else []
    if "latches_lost" in names:
        wrong.append("latches: latches_lost")
    if latched and not names:
        wrong.append("latches: one was told of, and the file has none")
    return wrong


def _stop(state: Path, stopped: bool | None) -> list[str]:
    stops, damage = StopFile(held_in(state), Path("/nonexistent")).read()
    print(f"  stopped: {stops.stopped}", flush=True)
    wrong = [f"stop: {damage}"] if damage else []
    if stopped is not None and stops.stopped != stopped:
        wrong.append(f"stop: the last order that was answered was {'stop' if stopped else 'run'}, the file is not")
    return wrong


def _journal(folder: Path, expected: dict[str, Any]) -> list[str]:
    """Looked at in a copy: opening one mends its end, and that is the gateway's to do."""
    if not folder.is_dir():
        return ["the journal is gone"] if expected.get("jobs") else []
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(folder, Path(copy) / "journal")
        return [line for stream in second_boot.STREAMS for line in _stream(Path(copy) / "journal", stream, expected)]


def _stream(folder: Path, stream: str, expected: dict[str, Any]) -> list[str]:
    opened = Journal(folder, stream)
    try:
        wrong = [f"journal {stream}: {damage}" for damage in opened.damages if not damage.repaired]
        wrong += [f"journal {stream}: {line}" for line in opened.verify()]
        count = sum(1 for segment in opened.segments for _ in opened.records(segment))
        print(f"  {stream}: {count} records, {[str(damage) for damage in opened.damages]}", flush=True)
        if stream == "job":
            held = b"".join(row.payload for segment in opened.segments for row in opened.records(segment))
            lost = [name for name in expected.get("jobs", []) if name.encode() not in held]
            wrong += [f"journal job: {', '.join(lost)} accepted and not there"] if lost else []
        return wrong
    finally:
        opened.close()


# ---- writing ----


def book(number: int) -> None:
    """Book into ledger after ledger; says the newest entry whenever some are committed. Never ends by itself."""
    global _said
    _said = Said(1)
    service.COMMIT_RECORDS = service.ASK = 64
    booked = DISK / "booked"
    booked.mkdir(exist_ok=True)
    records = Records(journal(BOOKED_S, boots=2))
    while True:
        path = booked / f"{number}.db"
        one = sidecar(str(path))
        service.catch_up(one, _Told(records, one, number))  # type: ignore[arg-type]
        one.commit()
        said("+", "booked", f"{number} {one.ledger.head[0]}")
        said("+", "complete", number)
        number += 1


class _Told:
    """The journal of the account's tests, which says what is booked whenever more is asked for."""

    def __init__(self, records: Records, one: Any, number: int) -> None:
        self.records, self.one, self.number = records, one, number

    def replay(self, *words: Any, **more: Any) -> Any:
        said("+", "booked", f"{self.number} {self.one.ledger.head[0]}")
        return self.records.replay(*words, **more)


def until(condition: Any, what: str, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            said("!", "gave-up", what)
            raise SystemExit(1)
        time.sleep(0.1)


def write(first_job: int, first_book: int) -> None:
    """Start the site on the disk, then the booking beside it, and write until the power goes."""
    global _said
    _said = Said(0)
    read_in()
    os.environ |= {"TIDEGATE_RUNTIME_DIR": "/run/tg", "TIDEGATE_STATE_DIR": str(DISK / "state")}
    before = second_boot.history(DISK / "state" / second_boot.NAME)
    PLANT.mkdir()
    plant = second_boot.plant_of(PLANT, before)
    begin_s = second_boot.near_boundary(time.time(), before.utc_ns / 1e9 + second_boot.OUTAGE_S, BOUNDARY_S)
    time.clock_settime(time.CLOCK_REALTIME, begin_s)  # so that a period of the account closes soon
    site = subprocess.Popen([*second_boot.TIDEGATE, "run", str(plant.site)], stdout=subprocess.PIPE, text=True)
    assert site.stdout is not None
    line = site.stdout.readline()
    if "runs; core pid" not in line:
        said("!", "does-not-start", repr(line))
        raise SystemExit(1)
    said("-", "runs", f"{time.monotonic():.1f}")
    if os.fork() == 0:
        book(first_book)
    number = first_job
    with Client(timeout_s=30.0) as client:
        if "latches_lost" in client.why()["latches"]:
            said("!", "latches-lost", "after the start")
            raise SystemExit(1)
        while True:
            name = f"job-{number:06d}"
            now = int(time.time())
            answer = client.ask("jobs", jobs=[{"job": name, "start_utc_s": now - 60, "end_utc_s": now, "owner": "o"}])
            if answer["accepted"] == 1:
                said("+", "job", name)
            number += 1
            for mode, stopped in (("stop", 1), ("run", 0)):
                said("?", "stop", stopped)
                try:
                    client.ask("mode", mode=mode)
                except ClientError as why:  # "unknown" or "not-applied": nothing was promised
                    said("-", mode, why)
                else:
                    said("+", "stop", stopped)
            if number % 3 == 0:
                os.kill(plant.process.pid, signal.SIGSTOP)
                until(lambda: client.why()["latches"], "nothing latched although the plant stood still")
                said("+", "latched", 1)
                os.kill(plant.process.pid, signal.SIGCONT)
                time.sleep(0.5)
                said("?", "latched", 0)
                client.ask("ack")


def uncut_book(folder: Path) -> list[tuple[int, str]]:
    """(seq, hash) of the periods of a ledger that was never cut off."""
    return _booked_to_the_end(folder / "uncut.db")


def _booked_to_the_end(path: Path) -> list[tuple[int, str]]:
    before = service.COMMIT_RECORDS, service.ASK
    service.COMMIT_RECORDS = service.ASK = 64
    try:
        one = sidecar(str(path))
        service.catch_up(one, Records(journal(BOOKED_S, boots=2)))
        one.commit()
        found = [(entry.seq, entry.hash) for entry in one.ledger.entries("period")]
        one.ledger.close()
        return found
    finally:
        service.COMMIT_RECORDS, service.ASK = before


def finish_book(path: Path, uncut: list[tuple[int, str]]) -> list[str]:
    """Finish a ledger that a cut broke off. -> how it differs from the one that was never cut off; [] = not at all."""
    found = _booked_to_the_end(path)
    return [] if found == uncut else [f"{path.name}: {len(found)} periods, not those of a ledger never cut off"]


def main() -> int:
    expected = json.loads(sys.argv[1])
    found = look(DISK, expected)
    for line in found:
        said("!", "wrong", line)
    if found:
        return 1
    said("-", "whole", f"{time.monotonic():.1f}")
    write(expected.get("next_job", 0), expected.get("books", 0))
    return 0


if __name__ == "__main__":
    sys.exit(main())
