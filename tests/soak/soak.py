"""Everything runs for hours beside a plant that knows the truth, disturbed at random: what leaks, drifts or gets lost?

    python tests/soak/soak.py [--hours H] [--seed N] [--period-us N] [--out DIR]

The plant is a process of its own. Beside it run the site (core, gateway, remote side, carbon sidecar, recorder), the
page and an exporter, each started again when it ends, as systemd does. A seed decides what happens to them, one fault
every few seconds: `kill -9` of each process, a gateway that stands still, a restart, a step of the wall clock, a full
disk (where a small file system can be mounted: root). An operator acknowledges and orders the site to run again. Every
second or so memory, descriptors, threads and the loop's times are written down; five times a second the site's grid
power is held beside every step of the true one (`true_values.py`).

Held at the end (exit code 1 if one is not): after each fault the site ran again and page and exporter answered; no
process was left over; no good value was another than the plant's; the ledger verifies and its energy is the meter's to
the milliwatt-hour and the plant's within the meter's class; no process that lived for an hour or more grew by 1 MiB an
hour.
"""

import argparse
import contextlib
import json
import math
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.soak.plant_side import Everything, Plant
from tests.soak.true_values import Seen, Watch, faults_about, judge_values, line_of
from tidegate.runtime.api.blocking_client import ClientError
from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.carbon.ledger.signing import verify
from tidegate.runtime.state.held import ledger_in

ROOT = Path(__file__).resolve().parents[2]
SAMPLE_S = 1.0
BACK_S = 180.0  # after a fault all must answer again within this, on a starved machine too
DISK_MIB = 48
CLOCK_STEP_S = 3600.0  # to either side
GROWTH_MIB_PER_H, GROWTH_LEAST_H = 1.0, 1.0
ENERGY_SHARE, ENERGY_WH = 0.01, 25.0  # the meter's class, and its last digit at both ends
EVERYONE = ("core", "gateway", "carbon", "recorder", "site", "web", "export")
FAULTS = [*(f"kill {one}" for one in EVERYONE), "freeze gateway", "restart", "clock", "disk"]


@dataclass
class Record:
    """What was seen."""

    samples: list[dict[str, Any]] = field(default_factory=list)
    faults: list[dict[str, Any]] = field(default_factory=list)
    orphans: set[str] = field(default_factory=set)
    values: int = 0
    lag_s: float = 0.0  # how much older than it said the oldest right value was
    wrong: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unjudged: list[Seen] = field(default_factory=list)


class Clock:
    """The wall clock of all that runs, by a library that is preloaded; the monotonic clock stays."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "clock"
        self.path.write_bytes(struct.pack("q", 0))
        library = folder / "stepping_clock.so"
        source = ROOT / "tests" / "world" / "stop" / "stepping_clock.c"
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
        self.environment = {"LD_PRELOAD": str(library), "TIDEGATE_TEST_CLOCK": str(self.path)}

    def step(self, by_s: float) -> None:
        with self.path.open("r+b") as file:
            (now,) = struct.unpack("q", file.read(8))
            file.seek(0)
            file.write(struct.pack("q", now + int(by_s * 1e9)))


class Disk:
    """A small file system for the state folder, where one can be mounted."""

    def __init__(self, path: Path, notes: list[str]) -> None:
        self.path = path
        path.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=0750", "tmpfs", str(path)],
            capture_output=True,
            text=True,
        )
        self.mounted = done.returncode == 0
        if not self.mounted:
            notes.append(
                f"no full disk in this run: a small file system cannot be mounted here ({done.stderr.strip()})"
            )

    def fill(self) -> None:
        with (self.path / "filler").open("wb", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1):  # to the last byte
                with contextlib.suppress(OSError):
                    while file.write(bytes(size)):
                        pass

    def free(self) -> None:
        (self.path / "filler").unlink(missing_ok=True)

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.path)], check=False)


def load_file(path: Path, seed: int, seconds: float) -> None:
    """A load that steps every few seconds: below and above the limit, so that the battery works."""
    rng, t_s = random.Random(seed), 0.0
    with path.open("w") as file:
        file.write("t_s,load_w\n")
        while t_s < seconds:
            file.write(f"{t_s:.1f},{rng.uniform(25e3, 50e3):.0f}\n")
            t_s += rng.uniform(5.0, 40.0)


def look(all_: Everything, record: Record, began: float) -> None:
    """One sample: every process's memory, descriptors and threads, the loop's times, one value beside the truth."""
    row: dict[str, Any] = {"t_s": round(time.monotonic() - began, 2), "processes": {}}
    for role, pid in all_.roles().items():
        try:
            status = dict(
                line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
            )
            fds = len(os.listdir(f"/proc/{pid}/fd"))
            row["processes"][role] = {
                "pid": pid,
                "rss_kib": int(status["VmRSS"].split()[0]),
                "fds": fds,
                "threads": int(status["Threads"]),
            }
        except (OSError, KeyError):
            continue  # it ended meanwhile
    try:
        with all_.client(1.5) as client:
            health = client.health()
            answer = client.ask("get", points=["site.grid_w"])
    except (ClientError, OSError):
        record.samples.append(row)
        return
    loop = health.get("loop") or {}
    row["loop"] = {name: loop.get(name) for name in ("cycles", "missed", "fifo", "locked")} | {
        f"{which}_{q}": (loop.get(f"{which}_ns") or {}).get(q) for which in ("lateness", "work") for q in ("p50", "p99")
    }
    row["grid_w"], row["quality"] = answer["points"]["site.grid_w"]
    record.samples.append(row)


def disturb(what: str, all_: Everything, clock: Clock, disk: Disk, rng: random.Random) -> tuple[str, tuple[str, int]]:
    """Do it; gives what was done, and which process (role, pid) must be another one afterwards (pid 0: none must)."""
    verb, _, who = what.partition(" ")
    roles = all_.roles()
    if verb == "kill":
        pid = roles.get(who, 0)
        if not pid:
            return f"{what}: does not run", ("", 0)
        os.kill(pid, signal.SIGKILL)
        return f"{what} ({pid})", (who, pid)
    if verb == "freeze":
        pid, seconds = roles.get(who, 0), rng.uniform(1.0, 14.0)
        if not pid:
            return f"{what}: does not run", ("", 0)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            return f"{what} ({pid}) for {seconds:.1f} s: it was replaced", (who, pid)
        return f"{what} ({pid}) for {seconds:.1f} s", ("", 0)
    if verb == "restart":
        if all_.site.pid:
            os.kill(all_.site.pid, signal.SIGUSR2)
        return what, ("core", roles.get("core", 0))
    if verb == "clock":
        by_s = rng.choice((-1, 1)) * math.exp(rng.uniform(math.log(0.5), math.log(CLOCK_STEP_S)))
        clock.step(by_s)
        return f"clock by {by_s:+.1f} s", ("", 0)
    if not disk.mounted:
        return "disk: no small file system here", ("", 0)
    seconds = rng.uniform(2.0, 8.0)
    disk.fill()
    time.sleep(seconds)
    disk.free()
    return f"disk full for {seconds:.1f} s", ("", 0)


def orphans(all_: Everything, seen: dict[int, float]) -> set[str]:
    """Processes without a living service above them for more than 15 s (they see the end and go)."""
    now = time.monotonic()
    left = {pid: role for role, pid in all_.roles().items() if role.startswith("orphan")}
    for pid in [pid for pid in seen if pid not in left]:
        del seen[pid]
    return {role for pid, role in left.items() if now - seen.setdefault(pid, now) > 15.0}


def back(
    all_: Everything, record: Record, began: float, seen: dict[int, float], replaced: tuple[str, int] = ("", 0)
) -> float | None:
    """Keep everything running until all of it answers; after how many seconds, None: not in time.

    replaced : (role, pid) that must be another process by then; pid 0: none must.
    """
    start = time.monotonic()
    while time.monotonic() - start < BACK_S:
        for service in all_.services:
            service.keep()
        mode = all_.operate()
        look(all_, record, began)
        record.orphans |= orphans(all_, seen)
        roles = all_.roles()
        whole = (
            all(role in roles for role in EVERYONE)
            and all_.started(roles["core"])
            and (not replaced[1] or roles.get(replaced[0]) != replaced[1])
        )
        if whole and mode in ("run", "derated") and all_.page_answers() and all_.exporter_answers():
            return time.monotonic() - start
        time.sleep(SAMPLE_S)
    return None


def account(all_: Everything, plant: Plant) -> dict[str, Any]:
    """The ledger beside the meter's register and beside the plant's true powers. mWh, Wh."""
    path = ledger_in(all_.state / "soak")
    ledger = Ledger(str(path), read_only=True)
    stored = ledger.state("booking")
    if stored is None:
        return {"error": f"{path}: nothing was booked"}
    booker = json.loads(stored)["booker"]
    counter = booker["counters"]["grid.import"]
    periods: dict[int, int] = {}
    for entry in ledger.entries("period"):
        flow = entry.body["flows"]["grid.import"]
        periods[entry.seq] = flow["energy_milliwh"]
        if "replaces" in entry.body:
            periods.pop(entry.body["replaces"], None)
    return {
        "problems": [str(row) for row in verify(ledger)],
        "periods": len(periods),
        "booked_milliwh": sum(periods.values()),
        "open_milliwh": counter["energy_milliwh"],
        "counter_booked_milliwh": counter["booked"],
        "register_milliwh": counter["truth"],
        "counter": {key: value for key, value in counter.items() if isinstance(value, (int, float, str))},
        "last_t_ns": booker["_t_ns"],
    }


def growth(samples: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """KiB an hour of each process, by least squares over the life of each, the first two minutes left out."""
    lives: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for row in samples:
        for role, one in row["processes"].items():
            lives[role, one["pid"]].append((row["t_s"], one["rss_kib"]))
    found: dict[str, dict[str, float]] = {}
    for (role, _), points in lives.items():
        points = [(t_s, kib) for t_s, kib in points if t_s >= points[0][0] + 120.0]
        if len(points) < 30:
            continue
        hours = (points[-1][0] - points[0][0]) / 3600.0
        mean_t, mean_kib = (sum(column) / len(points) for column in zip(*points, strict=True))
        slope = sum((t - mean_t) * (kib - mean_kib) for t, kib in points) / sum((t - mean_t) ** 2 for t, _ in points)
        if role not in found or hours > found[role]["hours"]:
            found[role] = {"hours": round(hours, 3), "kib_per_h": round(slope * 3600.0, 1)}
    return found


def verdict(
    record: Record, booked: dict[str, Any], true_wh: float, holes_s: float, ended: dict[str, Any]
) -> dict[str, list[str]]:
    """Promise -> what broke it; nothing is a kept promise."""
    broken: dict[str, list[str]] = {
        "after every fault all ran again": [
            f"{row['t_s']:.0f} s: {row['done']}: not within {BACK_S:.0f} s"
            for row in record.faults
            if row["back_s"] is None
        ],
        "no process was left over": [*sorted(record.orphans), *(f"after the end: {pid}" for pid in ended["left_over"])],
        "no good value was another than the plant's": [line_of(row) for row in record.wrong],
        "values were looked at": [] if record.values else ["none"],
    }
    energy = []
    if "error" in booked:
        energy.append(booked["error"])
    else:
        energy += booked["problems"]
        if booked["booked_milliwh"] + booked["open_milliwh"] != booked["counter_booked_milliwh"]:
            energy.append(
                f"closed periods and the open one hold {booked['booked_milliwh']} + {booked['open_milliwh']} mWh, "
                f"{booked['counter_booked_milliwh']} were booked"
            )
        register_wh = booked["register_milliwh"] / 1000.0
        if abs(register_wh - true_wh) > ENERGY_WH + ENERGY_SHARE * true_wh:
            energy.append(f"the account has {register_wh:.1f} Wh, the plant drew {true_wh:.1f} Wh")
        if true_wh <= 0.0 or holes_s > 5.0:
            energy.append(f"of the plant {true_wh:.1f} Wh are known, {holes_s:.1f} s of its powers are missing")
    broken["all energy is accounted for"] = energy
    long = {role: row for role, row in growth(record.samples).items() if row["hours"] >= GROWTH_LEAST_H}
    broken[f"no process grew by {GROWTH_MIB_PER_H:g} MiB an hour"] = [
        f"{role}: {row['kib_per_h']:.0f} KiB an hour over {row['hours']:.1f} h"
        for role, row in long.items()
        if row["kib_per_h"] >= 1024.0 * GROWTH_MIB_PER_H
    ]
    return broken


def run(
    hours: float, seed: int, period_us: int, folder: Path, ports: tuple[int, int], pause_s: tuple[float, float]
) -> dict[str, Any]:
    """One whole run."""
    rng, record = random.Random(seed), Record()
    load_file(folder / "load.csv", seed, hours * 3600.0 + 1200.0)
    clock, disk = Clock(folder), Disk(folder / "state", record.notes)
    plant = Plant(folder, folder / "load.csv", period_us)
    all_ = Everything(folder, plant, clock.environment, ports)
    began, seen = time.monotonic(), dict[int, float]()
    watch = Watch(all_)

    def judge() -> None:
        record.unjudged += watch.take()
        lags, wrong = judge_values(record.unjudged, plant.truth, began)
        record.values += len(lags) + len(wrong)
        record.lag_s = max(record.lag_s, *lags, 0.0)
        record.wrong += wrong
        for one in wrong:
            print(f"{one['t_s']:7.0f} s  WRONG VALUE {line_of(one)}", flush=True)

    try:
        started_s = back(all_, record, began, seen)
        if started_s is None:
            raise RuntimeError("soak: it did not start:\n" + (folder / "log").read_text(errors="replace")[-3000:])
        first_t_ns = time.monotonic_ns()
        end, round_ = time.monotonic() + hours * 3600.0, list[str]()
        while time.monotonic() < end:
            pause_end = min(end, time.monotonic() + rng.uniform(*pause_s))
            while time.monotonic() < pause_end:
                look(all_, record, began)
                record.orphans |= orphans(all_, seen)
                judge()
                time.sleep(SAMPLE_S)
            if time.monotonic() >= end:
                break
            if not round_:  # each kind once, in a new order, before any comes again
                round_ = rng.sample(FAULTS, len(FAULTS))
            t_s = time.monotonic() - began
            done, replaced = disturb(round_.pop(), all_, clock, disk, rng)
            took = back(all_, record, began, seen, replaced)
            record.faults.append(
                {"t_s": round(t_s, 1), "done": done, "back_s": None if took is None else round(took, 1)}
            )
            print(f"{t_s:7.0f} s  {done}: {'NOT BACK' if took is None else f'all back after {took:.1f} s'}", flush=True)
        time.sleep(12.0)  # the sidecar commits every ten seconds
        look(all_, record, began)
        ended = all_.close()
        booked = account(all_, plant)
        begin_ns = first_record_t_ns(all_.state / "soak" / "journal") or first_t_ns
        true_wh, holes_s = plant.truth.drawn_wh(begin_ns, booked.get("last_t_ns", 0))
    finally:
        all_.close()
        plant.close()
        record.unjudged += watch.close()
        judge()
        for one in record.wrong:
            one["faults"] = faults_about(record.faults, one["t_s"])
        if record.unjudged:
            record.notes.append(f"{len(record.unjudged)} values at the end without a truth beside them")
        disk.free()
        shutil.copytree(folder / "state", folder / "kept", ignore=shutil.ignore_patterns("filler"))
        disk.close()
    return {
        "seed": seed,
        "hours": round((time.monotonic() - began) / 3600.0, 3),
        "period_us": period_us,
        "notes": record.notes,
        "faults": record.faults,
        "values": record.values,
        "lag_s": round(record.lag_s, 3),
        "wrong": record.wrong,
        "booked": booked,
        "true_wh": round(true_wh, 1),
        "growth": growth(record.samples),
        "starts": {one.name: one.starts for one in all_.services},
        "ended": ended,
        "broken": verdict(record, booked, true_wh, holes_s, ended),
        "samples": record.samples,
    }


def first_record_t_ns(journal: Path) -> int:
    """CLOCK_MONOTONIC of the first meter record that the journal still holds, 0 if there is none."""
    import msgpack

    from tidegate.runtime.state.journal import Journal

    opened = Journal(journal, "meter")
    for segment in opened.segments:
        for row in opened.records(segment):
            return int(msgpack.unpackb(row.payload)["t_ns"])
    return 0


def free_ports(count: int) -> list[int]:
    """TCP ports of this machine that nobody listens at now."""
    with contextlib.ExitStack() as stack:
        listening = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in listening]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--period-us", type=int, default=1000)
    parser.add_argument(
        "--pause-s", type=float, nargs=2, default=(5.0, 40.0), help="between two faults, least and most"
    )
    parser.add_argument("--ports", type=int, nargs=2, help="of page and exporter; free ones without it")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "soak")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="tg-soak-"))
    try:
        found = run(
            args.hours, args.seed, args.period_us, folder, tuple(args.ports or free_ports(2)), tuple(args.pause_s)
        )
    finally:
        if (folder / "log").exists():
            shutil.copy(folder / "log", args.out / "soak.log")
        if (folder / "kept").exists():  # journal and ledger, for who wants to see what happened
            shutil.copytree(
                folder / "kept", args.out / "state", dirs_exist_ok=True, ignore=shutil.ignore_patterns("recordings")
            )
        shutil.rmtree(folder, ignore_errors=True)
    (args.out / "soak.json").write_text(json.dumps(found) + "\n")
    from tests.soak.soak_report import page

    (args.out / "soak.html").write_text(page(found))
    for promise, broken in found["broken"].items():
        print(f"{'kept  ' if not broken else 'BROKEN'} {promise}")
        for line in broken[:20]:
            print(f"         {line}")
    for line in found["notes"]:
        print(f"note: {line}")
    print(
        f"soak: {found['hours']} h, {len(found['faults'])} faults, {found['values']} values, of the right ones none "
        f"more than {found['lag_s']} s older than it said, seed {args.seed}; report {args.out}/soak.html"
    )
    return 1 if any(found["broken"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
