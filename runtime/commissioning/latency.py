"""A short latency test: the compiled loop on this machine, beside cyclictest where that is installed.

python -m tidegate.runtime.commissioning.latency --seconds 2 prints one JSON object. It is a process of its own
because it locks its memory.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from statistics import median
from typing import Any

from tidegate.ext.abi import program
from tidegate.ext.abi.shared import Shared
from tidegate.ext.cycle import realtime
from tidegate.ext.cycle.loop import Core

PERIOD_US = 1000
PRIORITY = 80
ROUNDS = 3

# Worst lateness in us up to which the words hold; the period is 1000 us.
BANDS = (
    (100.0, "ok", "good for 1 kHz with room to spare"),
    (300.0, "ok", "good for 1 kHz"),
    (1000.0, "costs", "good for most of 1 kHz: the worst cycles begin visibly late, none was lost"),
    (float("inf"), "costs", "the worst cycles were late by a whole period or more: setpoints are late, and under load "
     "the site derates; use a PREEMPT_RT kernel and an isolated CPU"),
)  # fmt: skip


def band(worst_us: float) -> tuple[str, str]:
    """(verdict, plain words) for the worst lateness seen."""
    return next((verdict, words) for limit, verdict, words in BANDS if worst_us < limit or limit == float("inf"))


def own_loop(seconds: float) -> dict[str, float]:
    """Lateness of the product's own loop with one unit and no bus, us."""
    shared, fd = Shared.memfd("doctor")
    core = Core(program.pack({"period_ns": PERIOD_US * 1000, "units": [{}]}), shared)
    core.dry_cycle()
    fifo = []

    def body() -> None:
        fifo.append(realtime.set_fifo(PRIORITY) == 0)
        core.run(0.1)

    thread = threading.Thread(target=body)
    thread.start()
    time.sleep(seconds)
    core.stop()
    thread.join()
    late = shared.histogram("lateness")
    os.close(fd)
    return {
        "p50_us": late.percentile(50) / 1000,
        "p99_us": late.percentile(99) / 1000,
        "max_us": late.max / 1000,
        "fifo": float(fifo[0]),
    }


def cyclictest(seconds: float) -> dict[str, float] | None:
    """The same of cyclictest; None where it is missing or refused."""
    tool = shutil.which("cyclictest")
    if tool is None:
        return None
    words = ["-q", "-m", f"-p{PRIORITY}", f"-i{PERIOD_US}", f"-l{int(seconds * 1e6 / PERIOD_US)}", "-h20000"]
    done = subprocess.run([tool, *words], capture_output=True, text=True)
    buckets = [(int(a), int(b)) for a, b in re.findall(r"^0*(\d+)\s+0*(\d+)\s*$", done.stdout, flags=re.M)]
    worst = re.search(r"Max Latencies: 0*(\d+)", done.stdout)
    total = sum(count for _, count in buckets)
    if done.returncode or not total or worst is None:
        return None
    return {
        "p50_us": float(quantile(buckets, total * 0.5)),
        "p99_us": float(quantile(buckets, total * 0.99)),
        "max_us": float(worst[1]),
    }


def quantile(buckets: list[tuple[int, int]], wanted: float) -> int:
    """The value below which `wanted` of the counts lie."""
    seen = 0
    for value, count in buckets:
        seen += count
        if seen >= wanted:
            return value
    return buckets[-1][0]


def measure(seconds: float) -> dict[str, Any]:
    """Both, turn by turn: {"loop": ..., "cyclictest": ... or None, "ratio_p99": ... or None}, medians, worst of all."""
    realtime.keep_heap()
    realtime.lock_memory()
    rows: dict[str, list[dict[str, float]]] = {"loop": [], "cyclictest": []}
    for _ in range(ROUNDS):
        rows["loop"].append(own_loop(seconds / ROUNDS))
        peer = cyclictest(seconds / ROUNDS)
        if peer is not None:
            rows["cyclictest"].append(peer)
    out: dict[str, Any] = {"period_us": PERIOD_US, "seconds": seconds}
    for name, found in rows.items():
        out[name] = (
            {
                "p50_us": median(row["p50_us"] for row in found),
                "p99_us": median(row["p99_us"] for row in found),
                "max_us": max(row["max_us"] for row in found),
            }
            if found
            else None
        )
    out["fifo"] = all(row["fifo"] for row in rows["loop"])
    peer = out["cyclictest"]
    out["ratio_p99"] = round(out["loop"]["p99_us"] / peer["p99_us"], 2) if peer and peer["p99_us"] else None
    return out


def main() -> int:
    """One JSON object on standard output."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    print(json.dumps(measure(parser.parse_args().seconds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
