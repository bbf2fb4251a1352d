"""How late does the loop wake, beside cyclictest and an asyncio loop, interleaved in one run?

Run: make bench, or python tests/bench/bench_loop.py [--rounds N] [--seconds S] [--cpu N] [--out DIR] [--smoke]
cyclictest comes from Debian's rt-tests; where it is missing the table says so. All three run at the same period, FIFO
priority and with locked memory, under one hold of /dev/cpu_dma_latency (cyclictest holds it by itself, so the others
must have it too), and on one processor: a thread of another program with the same priority can delay whoever shares
its processor, and left to itself each peer stays on the one that it began on. The event loop also runs as programs on
one usually do, without a priority. Only the ratios within one run count.
"""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import threading
import time

import harness

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


def run_cyclictest(seconds: float, cpu: int, given: harness.Conditions) -> dict[str, float] | None:
    """Wake-up latency of cyclictest at the same period, priority and locking; None where it cannot run."""
    if not shutil.which("cyclictest"):
        given.peer("cyclictest", "not installed (Debian: rt-tests): no peer to compare with")
        return None
    done = subprocess.run(
        [
            "cyclictest",
            "-q",
            "-m",
            f"-a{cpu}",
            f"-p{PRIORITY}",
            f"-i{PERIOD_US}",
            f"-l{int(seconds * 1e6 / PERIOD_US)}",
            "-h20000",
        ],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        given.peer("cyclictest", f"refused, exit {done.returncode}: {done.stderr.strip()}")
        return None
    given.peer("cyclictest", f"SCHED_FIFO {PRIORITY} on CPU {cpu}, memory locked; holds cpu_dma_latency itself as well")
    late: list[float] = []
    for line in done.stdout.splitlines():
        bucket = re.fullmatch(r"(\d+)\s+(\d+)", line.strip())
        if bucket:
            late += [float(bucket[1])] * int(bucket[2])
    overflow = re.search(r"Max Latencies: 0*(\d+)", done.stdout)
    if overflow:
        late.append(float(overflow[1]))
    return percentiles(late)


def priority(number: int, cpu: int) -> str:
    """Put the calling thread on a processor, ask for SCHED_FIFO, and say what it got."""
    os.sched_setaffinity(threading.get_native_id(), {cpu})
    error = realtime.set_fifo(number) if number else 0
    if realtime.is_fifo():
        return f"SCHED_FIFO {number} on CPU {cpu}"
    return f"ordinary priority on CPU {cpu}" + (f" (FIFO: {os.strerror(error)})" if error else "")


def locked() -> str:
    """Lock this process's memory, as cyclictest does with -m, and say whether it is."""
    error = realtime.lock_memory()
    return f"memory not locked: {os.strerror(error)}" if error else "memory locked"


def run_loop(seconds: float, cpu: int, given: harness.Conditions) -> tuple[dict[str, float], dict[str, float], float]:
    """Lateness and work of the real loop with one unit and no bus, us, and its share of one core."""
    blob = ext_program.pack({"period_ns": PERIOD_US * 1000, "units": [{}]})
    shared, fd = Shared.memfd("bench")
    core = Core(blob, shared)
    core.dry_cycle()
    spent_s = [0.0]
    memory = locked()

    def body() -> None:
        given.peer("loop", f"{priority(PRIORITY, cpu)}, {memory}")
        before = time.thread_time()
        core.run(0.1)
        spent_s[0] = time.thread_time() - before

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
    return out[0], out[1], spent_s[0] / seconds


def run_asyncio(seconds: float, cpu: int, number: int, given: harness.Conditions) -> dict[str, float]:
    """The same grid kept by asyncio.sleep: what an energy manager written on an event loop gets."""
    late: list[float] = []
    memory = locked()

    async def keep_grid() -> None:
        due = time.monotonic()
        end = due + seconds
        while due < end:
            due += PERIOD_US * 1e-6
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            late.append(max(0.0, (time.monotonic() - due) * 1e6))

    def body() -> None:
        given.peer(asyncio_name(number), f"{priority(number, cpu)}, {memory}")
        asyncio.run(keep_grid())

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    return percentiles(late)


def asyncio_name(number: int) -> str:
    return "asyncio" if number else "asyncio, no priority"


def main() -> int:
    parser = harness.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each peer in each round")
    parser.add_argument("--cpu", type=int, default=max(os.sched_getaffinity(0)), help="where all of them run")
    args = parser.parse_args()
    if args.smoke:
        args.rounds, args.seconds = 1, 0.3
    with harness.conditions(args) as given:
        result = measure(args.rounds, args.seconds, args.cpu, given)
    harness.write(args, "loop", result, given)
    return 0


def measure(rounds: int, seconds: float, cpu: int, given: harness.Conditions) -> dict[str, object]:
    """Take turns for so many rounds; print the medians and return them."""
    names = ["cyclictest", "loop", "loop work", *(asyncio_name(number) for number in (PRIORITY, 0))]
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    shares = []
    for _ in range(rounds):
        peer = run_cyclictest(seconds, cpu, given)
        if peer:
            rows["cyclictest"].append(peer)
        late, work, share = run_loop(seconds, cpu, given)
        rows["loop"].append(late)
        rows["loop work"].append(work)
        shares.append(share)
        for number in (PRIORITY, 0):
            rows[asyncio_name(number)].append(run_asyncio(seconds, cpu, number, given))

    def median(name: str, which: str) -> float | None:
        values = sorted(row[which] for row in rows[name])
        return values[len(values) // 2] if values else None

    table = {name: {which: median(name, which) for which in ("p50", "p99", "p99.9", "max")} for name in rows}
    print(f"lateness at {PERIOD_US} us, median of {rounds} rounds of {seconds:g} s on CPU {cpu}, us")
    for name, row in table.items():
        print(f"  {name:20}", "  ".join(f"{which} {value}" for which, value in row.items()))
    result: dict[str, object] = {"lateness_us": table, "cpu_share": round(max(shares), 4)}
    if rows["cyclictest"]:
        ratio = round(table["loop"]["p99"] / table["cyclictest"]["p99"], 2)
        result["p99_ratio_to_cyclictest"] = ratio
        print(f"  loop / cyclictest p99: {ratio} (asked: at most 1.2)")
    print(f"  share of one core: {max(shares):.1%} (asked: at most 3 %)")
    return result


if __name__ == "__main__":
    sys.exit(main())
