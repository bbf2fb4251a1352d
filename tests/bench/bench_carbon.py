"""How fast the carbon sidecar books, reports and verifies.

Run: make bench, or python tests/bench/bench_carbon.py [--quarters N] [--seconds S] [--out DIR] [--smoke]
A year of one site with 12 nodes and 200 jobs a day; a day of meter records at one a second into SQLite. One process, no
threads of ours.
"""

import os
import random
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

import harness
import msgpack

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.runtime.conftest import FakeCore
from tidegate.hal.description import described
from tidegate.runtime.api.blocking_client import Client
from tidegate.runtime.api.connection import unpack
from tidegate.runtime.carbon.engine.account import Accountant
from tidegate.runtime.carbon.engine.booking import BookedPeriod, FlowPeriod
from tidegate.runtime.carbon.engine.topology import nodes_of
from tidegate.runtime.carbon.factors.series import Factors, Series, Step
from tidegate.runtime.carbon.jobs.pushed import Pushed
from tidegate.runtime.carbon.jobs.settle import settle
from tidegate.runtime.carbon.jobs.work import Work
from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.carbon.ledger.signing import sign, verify
from tidegate.runtime.carbon.report.write import write
from tidegate.runtime.carbon.sidecar.service import Sidecar, catch_up
from tidegate.runtime.gateway.app import Gateway
from tidegate.runtime.state.device_key import DeviceKey
from tidegate.runtime.state.journal import Journal, Record

YEAR = 1_704_067_200  # 2024-01-01
LOADS = [f"rack{i}" for i in range(8)]


def describe(loads: list[str] = LOADS) -> dict:
    points = ["grid.import_wh", "grid.export_wh", "roof.import_wh", "cool.import_wh", "bms1.soc"]
    points += [f"site.{k}" for k in ("grid_in_ws", "grid_out_ws", "grid_covered_s")]
    points += [f"site.{k}" for k in ("ess_discharged_ws", "ess_charged_ws", "ess_covered_s")]
    nodes = [{"role": "grid", "device": "grid", "positive_wh": "grid.import_wh", "negative_wh": "grid.export_wh"},
             {"role": "pv", "device": "roof", "positive_wh": "roof.import_wh", "negative_wh": None},
             {"role": "cooling", "device": "cool", "positive_wh": "cool.import_wh", "negative_wh": None},
             {"role": "ess", "device": "pcs1", "positive_wh": None, "negative_wh": None}]  # fmt: skip
    for name in loads:
        points.append(f"{name}.import_wh")
        nodes.append({"role": "it", "device": name, "positive_wh": f"{name}.import_wh", "negative_wh": None})
    return {"site": {"name": "year"}, "points": [{"name": n} for n in points], "nodes": nodes,
            "units": [{"name": "cabinet", "energy_wh": 60_000.0}]}  # fmt: skip


def factors() -> Factors:
    rng = random.Random(1)
    steps = [Step(YEAR + 1800 * i, YEAR + 1800 * i + 1800, rng.randrange(40, 350) * 10**6) for i in range(366 * 48)]
    return Factors(Series("GB", "average", "half hours", steps=steps).finish(), 500_000_000, "fallback")


class Clock:
    """Wall and processor time since it was made."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self) -> str:
        return f"{time.perf_counter() - self.wall:.1f} s ({time.process_time() - self.cpu:.1f} s processor)"


def rss_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def year(folder: Path, quarters: int) -> None:
    site = describe()
    ledger = Ledger(folder / "year.db")
    ledger.begin("year")
    nodes = nodes_of(described(site))
    ledger.append([("method", 0, {"kinds": nodes.kinds, "storages": {"cabinet": [60_000_000, 970_000, 970_000]}})])
    accountant = Accountant("year", nodes, factors())
    key = DeviceKey.at(folder / "key.pem")
    rng = random.Random(2)
    clock = Clock()
    pending = []
    for i in range(quarters):
        milliwh = {flow.name: rng.randrange(10**6) for flow in nodes.flows}
        milliwh["grid.import"] += 9_000_000
        flows = {k: FlowPeriod(v, "good", "register", [], 0, v, v, 900.0) for k, v in milliwh.items()}
        booked = BookedPeriod(YEAR + 900 * i, 900, flows, [], 900, 0, 500_000, "S")
        pending.append(("period", booked.start_utc_s, accountant.book(booked)))
        if len(pending) == 96 or i == quarters - 1:  # a day a transaction, as in catching up
            ledger.append(pending)
            sign(ledger, key, "year")
            pending = []
    report("book a year", clock.read(), "at most 60 s")
    clock = Clock()
    works = []
    for number in range(quarters // 96 * 200):
        start = YEAR + rng.randrange(max(1, quarters * 900 - 86_400))
        node = rng.choice(LOADS)
        works.append(Work(f"job-{number}", start, start + rng.randrange(300, 40_000), f"team {number % 12}", node,
                          8, rng.randrange(10**9), None, {"job": 1000, "gpu_hour": 8000}, f"{number}"))  # fmt: skip
    aside = [f"log, line {number}: job x lasts 0 s; it is not counted" for number in range(1000)]
    days = settle(ledger, works, aside, YEAR, YEAR + quarters * 900)
    sign(ledger, key, "year")
    report(f"settle {len(works):,} jobs of {days} days", clock.read(), "")
    count = len(works)
    works.clear()
    clock = Clock()
    damages = verify(ledger)
    report("verify it", f"{clock.read()}, {len(damages)} damaged", "at most 10 s")
    clock = Clock()
    write(ledger, YEAR, YEAR + 366 * 86_400, folder / "report")
    report("annual report (JSON, CSV, HTML, PDF)", clock.read(), "at most 10 s")
    report(f"memory at most, with {count:,} jobs", f"{rss_mib():.0f} MiB", "under 200 MiB")
    report("ledger on the disk", f"{(folder / 'year.db').stat().st_size / 2**20:.0f} MiB", "")


def campus(folder: Path, days: int) -> None:
    """64 racks and 2,740 jobs a day, one in ten over several racks: a year of it has a million jobs."""
    racks = [f"rack{i:02d}" for i in range(64)]
    nodes = nodes_of(described(describe(racks)))
    ledger = Ledger(folder / "campus.db")
    ledger.begin("campus")
    ledger.append([("method", 0, {"kinds": nodes.kinds, "storages": {"cabinet": [60_000_000, 970_000, 970_000]}})])
    accountant = Accountant("campus", nodes, factors())
    rng = random.Random(3)
    for day_number in range(days):
        pending = []
        for i in range(day_number * 96, day_number * 96 + 96):
            milliwh = {flow.name: 8_000_000 + rng.randrange(10**6) for flow in nodes.flows}
            milliwh["grid.import"] = 600_000_000
            flows = {k: FlowPeriod(v, "good", "register", [], 0, v, v, 900.0) for k, v in milliwh.items()}
            booked = BookedPeriod(YEAR + 900 * i, 900, flows, [], 900, 0, 500_000, "S")
            pending.append(("period", booked.start_utc_s, accountant.book(booked)))
        ledger.append(pending)
    pushed = Pushed(ledger)
    scale = 366 / days
    for what, do, asked in (
        ("take in", lambda: pushed.pull(Pushes(racks, days, rng)), "(as they come, over the year)"),
        ("settle", lambda: pushed.settle(YEAR + days * 86_400 + 3600), "at most 300 s a year"),
        ("report", lambda: write(ledger, YEAR, YEAR + days * 86_400, folder / "campus"), "at most 20 s a year"),
    ):
        begun, cpu = time.perf_counter(), time.process_time()
        do()
        wall, cpu = time.perf_counter() - begun, time.process_time() - cpu
        value = f"{wall:.1f} s ({cpu:.1f} s processor); times {scale:.1f}: {wall * scale:.0f} s ({cpu * scale:.0f} s)"
        report(f"{what} {days} days, 64 racks, {days * 2740:,} jobs", value, asked)
        report("memory at most", f"{rss_mib():.0f} MiB", "under 400 MiB, at a million jobs")


class Pushes:
    """Answers a replay with the jobs of one day after the other, as integrators pushed them to the gateway."""

    def __init__(self, racks: list[str], days: int, rng: random.Random) -> None:
        self.racks, self.days, self.rng = racks, days, rng

    def replay(self, stream: str, boot: str | None, seq: int, count: int) -> tuple[list[dict], bool]:
        day, rows = seq + 1, []
        for number in range(2740):
            start = YEAR + day * 86_400 + self.rng.randrange(86_400)
            end = start + self.rng.randrange(300, 40_000)
            for node in self.rng.sample(self.racks, self.rng.choice((1, 1, 1, 1, 1, 1, 1, 1, 1, 4))):
                rows.append({"job": f"job-{day}-{number}", "start_utc_s": start, "end_utc_s": end, "node": node,
                             "owner": f"team {number % 12}", "slots": 8, "energy_j": float(self.rng.randrange(10**9)),
                             "units": {"gpu_hour": 8}})  # fmt: skip
        record = {"boot": "a" * 32, "seq": day, "peer": "scheduler", "utc_ns": 0, "jobs": rows}
        return [record], day + 1 >= self.days


class Packed:
    """Answers a replay with records that are unpacked like the gateway's."""

    def __init__(self, packed: list[bytes]) -> None:
        self.packed = packed

    def replay(self, stream: str, boot: str | None, seq: int, count: int) -> tuple[list[dict], bool]:
        found = [unpack(raw) for raw in self.packed[seq + 1 : seq + 1 + count]]
        return found, seq + 1 + count >= len(self.packed)


def meter_records(seconds: int) -> list[bytes]:
    """A day of meter records at one a second, packed as the gateway keeps them."""
    names = [p["name"] for p in describe()["points"]] + [f"filler{i}.power_w" for i in range(30)]
    packed = []
    for seq in range(seconds):
        points = {name: [1000.0 + seq * 9.0, 1] for name in names}
        points["bms1.soc"] = [0.5, 1]
        record = {"v": 1, "kind": "meter", "site": "year", "boot": "a" * 32, "seq": seq, "cycle": seq * 1000,
                  "t_ns": (seq + 1) * 10**9, "utc_ns": (YEAR + seq) * 10**9, "utc_sync": "S", "program": "0" * 64,
                  "points": points}  # fmt: skip
        packed.append(msgpack.packb(record))
    return packed


def day(folder: Path, seconds: int = 86_400) -> None:
    sidecar = Sidecar(describe(), Ledger(folder / "day.db"), factors())
    packed = Packed(meter_records(seconds))
    begun, cpu = time.perf_counter(), time.process_time()
    catch_up(sidecar, packed)
    sidecar.commit()
    wall, cpu = time.perf_counter() - begun, time.process_time() - cpu
    report("ingest", f"{seconds / wall:,.0f} records/s ({seconds / cpu:,.0f} a processor second)", "at least 20,000")


def day_over_the_gateway(folder: Path, seconds: int = 86_400) -> None:
    """A gateway process with a day in its journal, and a sidecar that was away for it, over ipc."""
    state, run = folder / "state", folder / "run"
    (state / "journal").mkdir(parents=True)
    run.mkdir()
    journal = Journal(state / "journal", "meter")
    for seq, raw in enumerate(meter_records(seconds)):
        journal.append(Record(b"\xaa" * 16, seq, (YEAR + seq) * 10**9, seq, raw))
        if seq % 512 == 511:
            journal.sync()
    journal.sync()
    journal.close()
    child = os.fork()
    if child == 0:
        core = FakeCore(folder)
        core.step()
        Gateway(described({**core.describe, "gateway": {"journal_days_max": 100_000}}), core.memory, run, state).run()
        os._exit(0)
    try:
        with Client(f"ipc://{run}", timeout_s=60) as client:
            client.describe()
            sidecar = Sidecar(describe(), Ledger(folder / "gateway.db"), factors())
            begun, cpu = time.perf_counter(), time.process_time()
            taken = catch_up(sidecar, client)
            sidecar.commit()
            wall, cpu = time.perf_counter() - begun, time.process_time() - cpu
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert taken == seconds, taken
    report("a day away, caught up over the gateway", f"{wall:.1f} s ({cpu:.1f} s processor)", "under 60 s")


FIGURES: list[dict[str, str]] = []


def report(what: str, value: str, asked: str) -> None:
    """Print one figure beside the one asked for, and keep it for --out."""
    FIGURES.append({"figure": what, "measured": value, "asked": asked})
    print(f"{what:40} {value:44} {asked}", flush=True)


def main() -> int:
    parser = harness.parser(__doc__)
    parser.add_argument("--quarters", type=int, default=35_040, help="quarter hours that are booked; a year has 35,040")
    parser.add_argument("--seconds", type=int, default=86_400, help="of meter records, one a second")
    parser.add_argument("--campus-days", type=int, default=14, help="of 64 racks; 366 have a million jobs")
    parser.add_argument("--campus-only", action="store_true", help="nothing but the 64 racks")
    args = parser.parse_args()
    if args.smoke:
        args.quarters, args.seconds, args.campus_days = 192, 3_600, 1
    with harness.conditions(args) as given, tempfile.TemporaryDirectory() as name:
        given.peer("sidecar and gateway", "ordinary priority, one process each")
        if args.campus_only:
            campus(Path(name), args.campus_days)
            harness.write(args, "carbon", FIGURES, given)
            return 0
        year(Path(name), args.quarters)
        campus(Path(name), args.campus_days)
        day(Path(name), args.seconds)
        day_over_the_gateway(Path(name), args.seconds)
    harness.write(args, "carbon", FIGURES, given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
