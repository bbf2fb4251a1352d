"""A site starts again on a disk that a loss of power left, and goes on: what it kept, and its energy to the mWh.

Used by `power_cuts.py`. The plant is a process of its own, whose meter keeps its register while the site is without
power, as a real one does: it has counted on by OUTAGE_WH meanwhile, which the account must take up exactly once.
"""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tests.soak.plant_side import Plant
from tidegate.runtime.api.blocking_client import Client, ClientError
from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.state.held import ledger_in
from tidegate.runtime.state.journal import Journal

NAME = "simulated"
STREAMS = ("event", "meter", "job")
TIDEGATE = [sys.executable, "-m", "tidegate.runtime.cli"]
PERIOD_US = 10_000  # machines that stand still for milliseconds
OUTAGE_WH = 37.5  # what the meter counts while nobody reads it
OUTAGE_S = 20  # of the wall clock, at least
INTERVAL_S = 300  # a period of the account
UNTIL_BOUNDARY_S = 25  # of the wall clock, from a start on: then a period closes; a starved machine takes 10 to be up
WAIT_S = 360.0  # longer than a period: who starts late waits for the next
CLOCK = Path(__file__).parents[1] / "world" / "stop" / "stepping_clock.c"


class History(NamedTuple):
    """What a state folder has of the past: (boot, seq, payload) of each stream, (seq, hash) of the site's ledger."""

    rows: dict[str, list[tuple[bytes, int, bytes]]]
    entries: list[tuple[int, str]]
    utc_ns: int  # of the newest record

    def readings(self) -> list[tuple[tuple[str, int], int | None]]:
        """(boot, seq) of the meter records, in order, and the register that each shows, mWh."""
        found: list[tuple[tuple[str, int], int | None]] = []
        for boot, seq, payload in self.rows["meter"]:
            value = msgspec.msgpack.decode(payload)["points"]["grid.import_wh"][0]
            found.append(((boot.hex(), seq), None if value is None else round(value * 1000.0)))
        return found

    def register_wh(self) -> float:
        """The register as it was read last; 0 = never."""
        return next((value for _, value in reversed(self.readings()) if value is not None), 0) / 1000.0


def history(state: Path) -> History:
    """Of a state folder; its journal is read in a copy, since opening one mends its end."""
    rows: dict[str, list[tuple[bytes, int, bytes]]] = {stream: [] for stream in STREAMS}
    utc_ns = 0
    if (state / "journal").is_dir():
        with tempfile.TemporaryDirectory() as copy:
            shutil.copytree(state / "journal", Path(copy) / "journal")
            for stream in STREAMS:
                opened = Journal(Path(copy) / "journal", stream)
                for segment in opened.segments:
                    for row in opened.records(segment):
                        rows[stream].append((row.boot, row.seq, row.payload))
                        utc_ns = max(utc_ns, row.utc_ns)
                opened.close()
    entries: list[tuple[int, str]] = []
    if ledger_in(state).exists():
        ledger = Ledger(str(ledger_in(state)), read_only=True)
        entries = [(entry.seq, entry.hash) for entry in ledger.entries()]
        ledger.close()
    return History(rows, entries, utc_ns)


def continued(before: History, now: History) -> list[str]:
    """What of the past is another now, or gone; [] = all of it is there, and only what came after is new."""
    wrong = []
    for stream, rows in before.rows.items():
        if now.rows[stream][: len(rows)] != rows:
            wrong.append(
                f"journal {stream}: the {len(rows)} records of before do not begin the {len(now.rows[stream])}"
            )
    if now.entries[: len(before.entries)] != before.entries:
        wrong.append(f"ledger: the {len(before.entries)} entries of before do not begin the {len(now.entries)}")
    return wrong


def energy(state: Path, now: History) -> list[str]:
    """What does not fit between the site's ledger and the register that its meter records show, to the mWh."""
    if not ledger_in(state).exists():
        return []
    ledger = Ledger(str(ledger_in(state)), read_only=True)
    try:
        stored = ledger.state("booking")
        if stored is None:
            return []  # it has begun, and nothing is booked
        booker = json.loads(stored)["booker"]
        periods: dict[int, int] = {}
        wrong: list[str] = []
        for entry in ledger.entries("period"):
            flow = entry.body["flows"]["grid.import"]
            periods[entry.seq] = flow["energy_milliwh"]
            wrong += [f"ledger entry {entry.seq}: {flag}" for flag in flow["flags"] if "EXCHANGED" in flag]
    finally:
        ledger.close()
    counter, place = booker["counters"]["grid.import"], (booker["_boot"], booker["_seq"])
    readings = now.readings()
    at = next((number for number, (found, _) in enumerate(readings) if found == place), None)
    if at is None:
        return [*wrong, f"the ledger has booked up to record {place[1]} of {place[0][:8]}, which the journal has not"]
    seen = [value for _, value in readings[: at + 1] if value is not None]
    counted = seen[-1] - seen[0] if seen else 0
    if counter["truth"] != counted:
        wrong.append(f"the register has counted {counted} mWh up to record {place[1]}, the account {counter['truth']}")
    if sum(periods.values()) + counter["energy_milliwh"] != counter["booked"]:
        wrong.append(
            f"periods {sum(periods.values())} mWh and the open one {counter['energy_milliwh']} mWh, "
            f"{counter['booked']} booked"
        )
    if counter["booked"] != counted:
        wrong.append(f"the register has counted {counted} mWh, {counter['booked']} are booked")
    return wrong


def near_boundary(now_s: float, at_least_s: float, before_s: float = UNTIL_BOUNDARY_S) -> float:
    """A time of the wall clock, not before both, from which on a period of the account closes in `before_s`."""
    first = max(now_s, at_least_s) + before_s
    return -(-first // INTERVAL_S) * INTERVAL_S - before_s


def plant_of(folder: Path, before: History) -> Plant:
    """The plant as the site finds it when its power is back; `plant.site` is the site file. folder : an empty one."""
    kept_wh = before.register_wh()
    return Plant(folder, None, PERIOD_US, NAME, kept_wh + OUTAGE_WH if kept_wh else 0.0)


def clock_library(folder: Path) -> Path:
    """What is preloaded where the wall clock is moved."""
    made = folder / "stepping_clock.so"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(made), str(CLOCK), "-ldl"], check=True)
    return made


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Raises TimeoutError that names what did not happen."""
    end = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {WAIT_S:.0f} s")
        time.sleep(0.2)


class SecondBoot:
    """One start on a disk's files. library : of the wall clock."""

    def __init__(self, files: Path, library: Path) -> None:
        self.files, self.state, self.library = files, files / "state" / NAME, library
        self.before = history(self.state)
        self.wrong: list[str] = []
        self.job = ""  # which was accepted

    def run(self, expected: dict[str, Any]) -> list[str]:
        """Start, go on, end in order. -> what is wrong; [] = nothing. expected : what had been promised."""
        with tempfile.TemporaryDirectory(prefix="tg-") as folder:
            (Path(folder) / "run").mkdir(mode=0o700)
            plant = plant_of(Path(folder), self.before)
            try:
                self._site(plant, Path(folder), expected)
            except (TimeoutError, ClientError, OSError) as why:
                self.wrong.append(f"going on: {type(why).__name__}: {why}")
            finally:
                plant.close()
        if self.wrong:
            return self.wrong
        now = history(self.state)
        self.wrong += continued(self.before, now) + energy(self.state, now)
        if len(now.rows["meter"]) <= len(self.before.rows["meter"]):
            self.wrong.append("going on: no meter record came")
        return self.wrong

    def _site(self, plant: Plant, folder: Path, expected: dict[str, Any]) -> None:
        began = near_boundary(time.time(), self.before.utc_ns / 1e9 + OUTAGE_S)
        clock = folder / "clock"
        clock.write_bytes(struct.pack("q", int((began - time.time()) * 1e9)))
        environment = {
            **os.environ,
            "TIDEGATE_RUNTIME_DIR": str(folder / "run"),
            "TIDEGATE_STATE_DIR": str(self.files / "state"),
            "LD_PRELOAD": str(self.library),
            "TIDEGATE_TEST_CLOCK": str(clock),
        }
        with (folder / "log").open("w") as log:
            site = subprocess.Popen(
                [*TIDEGATE, "run", str(plant.site)], env=environment, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert site.stdout is not None
        try:
            line = site.stdout.readline()
            if "runs; core pid" not in line:
                self.wrong.append(f"it does not start: {line!r} {(folder / 'log').read_text()[-500:]}")
                return
            with Client(f"ipc://{folder / 'run' / NAME}", timeout_s=30.0) as client:
                self._go_on(client, expected)
        finally:
            site.send_signal(signal.SIGTERM)
            try:
                ended = site.wait(120)
            except subprocess.TimeoutExpired:
                site.kill()
                ended = site.wait()
        if ended:
            self.wrong.append(f"it ended with {ended}: {(folder / 'log').read_text()[-500:]}")

    def _go_on(self, client: Client, expected: dict[str, Any]) -> None:
        why = client.why()
        if "latches_lost" in why["latches"]:
            self.wrong.append(f"started: latches {why['latches']}")
        if expected.get("latched") and not why["latches"]:
            self.wrong.append(f"started: a latch that was told of is gone: {why['latches']}")
        stopped = expected.get("stopped")
        if stopped is not None and why["stopped"] != stopped:
            self.wrong.append(f"started: stopped {stopped} was answered before the cut, now {why['stopped']}")
        if why["stopped"] and why["mode"] in ("run", "derated"):
            self.wrong.append(f"started: stopped, and in {why['mode']}")
        wait_for(lambda: self._operates(client), "to operate again after ack and run")
        self.job = f"job-{expected.get('next_job', 0) + 1_000_000}"
        now = int(time.time())
        told = client.ask("jobs", jobs=[{"job": self.job, "start_utc_s": now - 60, "end_utc_s": now, "owner": "o"}])
        if told["accepted"] != 1:
            self.wrong.append(f"going on: a new job was not accepted: {told}")
        wait_for(self._closes_a_period, "a period of the account closed")

    @staticmethod
    def _operates(client: Client) -> bool:
        for op, fields in (("ack", {}), ("mode", {"mode": "run"})):
            why = client.why()
            if why["mode"] in ("run", "derated") and not why["latches"] and not why["stopped"]:
                return True
            try:
                client.ask(op, **fields)
            except ClientError:
                continue  # refused as long as the cause is there
        return False

    def _closes_a_period(self) -> bool:
        """A period has closed that this start has taken part in."""
        if not ledger_in(self.state).exists():
            return False
        ledger = Ledger(str(ledger_in(self.state)), read_only=True)
        try:
            known = len(self.before.entries)
            return any(entry.seq >= known for entry in ledger.entries("period"))
        finally:
            ledger.close()
