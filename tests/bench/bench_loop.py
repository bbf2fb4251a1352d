"""How late does the loop wake, beside cyclictest and an asyncio loop, interleaved in one run?

Run: make bench, or python tests/bench/bench_loop.py [--rounds N] [--seconds S] [--out DIR]
cyclictest comes from Debian's rt-tests; where it is missing the table says so. Only the ratios within one run count.
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

from tidegate.ext.abi import program as ext_program
from tidegate.ext.abi.shared import Shared
from tidegate.ext.cycle import realtime
from tidegate.ext.cycle.loop import Core

PERIOD_US = 1000
PRIORITY = 80


def percentiles(late_us: list[float]) -> dict[str, float]:
    rising = sorted(late_us)
    return {
        name: round(rising[min(len(rising) - 1, int(len(rising) * part))], 1)
        for name, part in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999))
    } | {"max": round(rising[-1], 1)}


def run_cyclictest(seconds: float) -> dict[str, float] | None:
    """Wake-up latency of cyclictest at the same period, priority and locking; None where it is not installed."""
    if not shutil.which("cyclictest"):
        return None
    done = subprocess.run(
        ["cyclictest", "-q", "-m", f"-p{PRIORITY}", f"-i{PERIOD_US}", f"-l{int(seconds * 1e6 / PERIOD_US)}", "-h20000"],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"cyclictest: exit {done.returncode}: {done.stderr.strip()}")
    late: list[float] = []
    for line in done.stdout.splitlines():
        bucket = re.fullmatch(r"(\d+)\s+(\d+)", line.strip())
        if bucket:
            late += [float(bucket[1])] * int(bucket[2])
    overflow = re.search(r"Max Latencies: 0*(\d+)", done.stdout)
    if overflow:
        late.append(float(overflow[1]))
    return percentiles(late)


def run_loop(seconds: float) -> tuple[dict[str, float], dict[str, float], float]:
    """Lateness and work of the real loop with one unit and no bus, us, and its share of one core."""
    blob = ext_program.pack({"period_ns": PERIOD_US * 1000, "units": [{}]})
    shared, fd = Shared.memfd("bench")
    core = Core(blob, shared)
    core.dry_cycle()
    cpu = [0.0]

    def body() -> None:
        realtime.set_fifo(PRIORITY)
        before = time.thread_time()
        core.run(0.1)
        cpu[0] = time.thread_time() - before

    thread = threading.Thread(target=body)
    thread.start()
    time.sleep(seconds)
    core.stop()
    thread.join()
    os.close(fd)
    out = []
    for histogram in (shared.histogram("lateness"), shared.histogram("work")):
        out.append(
            {name: round(histogram.percentile(float(name[1:])) / 1000, 1) for name in ("p50", "p99", "p99.9")}
            | {"max": round(histogram.max / 1000, 1)}
        )
    return out[0], out[1], cpu[0] / seconds


def run_asyncio(seconds: float) -> dict[str, float]:
    """The same grid kept by asyncio.sleep: what an energy manager written on an event loop gets."""
    late: list[float] = []

    async def body() -> None:
        due = time.monotonic()
        end = due + seconds
        while due < end:
            due += PERIOD_US * 1e-6
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            late.append(max(0.0, (time.monotonic() - due) * 1e6))

    asyncio.run(body())
    return percentiles(late)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each peer in each round")
    parser.add_argument("--out", type=Path, default=None, help="folder for loop.json")
    args = parser.parse_args()
    rows: dict[str, list[dict[str, float]]] = {"cyclictest": [], "loop": [], "loop work": [], "asyncio": []}
    shares = []
    for _ in range(args.rounds):
        peer = run_cyclictest(args.seconds)
        if peer:
            rows["cyclictest"].append(peer)
        late, work, share = run_loop(args.seconds)
        rows["loop"].append(late)
        rows["loop work"].append(work)
        shares.append(share)
        rows["asyncio"].append(run_asyncio(args.seconds))

    def median(name: str, which: str) -> float | None:
        values = sorted(row[which] for row in rows[name])
        return values[len(values) // 2] if values else None

    table = {name: {which: median(name, which) for which in ("p50", "p99", "p99.9", "max")} for name in rows}
    print(f"lateness at {PERIOD_US} us, median of {args.rounds} rounds of {args.seconds:g} s, us")
    for name, row in table.items():
        print(f"  {name:12}", "  ".join(f"{which} {value}" for which, value in row.items()))
    result = {"lateness_us": table, "cpu_share": round(max(shares), 4)}
    if rows["cyclictest"]:
        result["p99_ratio_to_cyclictest"] = round(table["loop"]["p99"] / table["cyclictest"]["p99"], 2)
        print(f"  loop / cyclictest p99: {result['p99_ratio_to_cyclictest']} (asked: at most 1.2)")
    else:
        print("  cyclictest is not installed (Debian: rt-tests): no peer to compare with")
    print(f"  share of one core: {result['cpu_share']:.1%} (asked: at most 3 %)")
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "loop.json").write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
