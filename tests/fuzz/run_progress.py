"""A hundred thousand seeded mixes of up to 32 slaves on one line: was each asked within the bound that `check` prints?

Run: make progress, or python tests/fuzz/run_progress.py [--mixes N] [--seed S] [--mix SEED]
Exit 1 if one slave waited longer than its bound; the seed of the mix is printed, --mix repeats it.
"""

import argparse
import importlib.util
import random
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

from tidegate.config.progress import Load, bounds_ns
from tidegate.ext.abi import program

MS = 1_000_000
BLOCKS_MAX = 192


@cache
def module() -> Any:
    spec = importlib.util.spec_from_file_location("fuzz_build", Path(__file__).with_name("build.py"))
    assert spec and spec.loader
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found.build("rtu_progress")


def mix(seed: int) -> dict[str, Any]:
    """A port and its slaves: the program, their tempers and the bound of each in ns."""
    rng = random.Random(seed)
    baud = rng.choice((2400, 9600, 19200, 38400, 115200))
    n = rng.choice((1, 2, 3, 3, 4, 5, 8, 16, rng.randint(1, 32)))
    # Every mix has a mood of its own: mostly good, mostly dead, all alike, or anything.
    alike = [("honest",), ("slow",), ("dead",), ("moody",)]
    mood = rng.choice((*alike, ("honest", "dead"), ("crc", "honest"), module().TEMPERS))
    slaves, loads, tempers = [], [], []
    for unit in range(1, n + 1):
        timeout_ns = rng.choice((30, 100, 300, 300, 1000)) * MS
        turnaround_ns = rng.choice((0, 0, 0, 5, 50)) * MS
        blocks = []
        equal = rng.random() < 0.5  # twins: replies that look alike
        for at in range(rng.randint(1, 4)):
            count = 10 if equal else rng.choice((1, 2, 10, 11, 40, 120))
            kind = rng.choice((0, 0, 1, 2)) if at else rng.choice((0, 1))
            period_ns = rng.choice((0, 100, 500, 1000, 5000)) * MS if kind != 2 else 0
            row = {"function": rng.choice((3, 3, 4)), "address": 200 * at, "count": count, "fields": []}
            blocks.append({**row, "poll_class": kind, "period_ns": period_ns})
        commands = []
        if rng.random() < 0.3:
            write = {"function": 16, "type": 1}
            commands = [{**write, "kind": 0, "address": 900 + i, "value": 7.0} for i in range(rng.randint(0, 3))]
            commands.append({**write, "kind": 1, "address": 950, "unit": 0})
        if sum(len(s["commands"]) for s in slaves) + len(commands) > 32:
            commands = []
        slaves.append({"unit_id": unit, "timeout_ns": timeout_ns, "turnaround_ns": turnaround_ns, "blocks": blocks,
                       "commands": commands})  # fmt: skip
        loads.append(
            Load(
                timeout_ns,
                turnaround_ns,
                tuple(
                    (5 + 2 * b["count"], b["period_ns"] or 1000 * MS * (b["poll_class"] == 1), b["poll_class"] == 2)
                    for b in blocks
                ),
                tuple((11, 8, c["kind"] == 1) for c in commands),
            )
        )
        tempers.append(rng.choice(mood))
    blob = program.pack({"units": [{}], "ports": [{"baud": baud, "gap_rule": 1, "slaves": slaves}]})
    char_ns = -(-10 * 10**9 // baud)
    bounds = bounds_ns(char_ns, -(-char_ns * 7 // 2), loads)
    return {"blob": blob, "tempers": tempers, "bounds": bounds, "put_every": rng.choice((0, MS, 20 * MS)), "baud": baud}


def one(seed: int, rounds: float = 1.5) -> dict[str, Any]:
    """Run one mix for `rounds` of its longest bound; `ratio`: the longest wait in parts of its bound."""
    made = mix(seed)
    run = module().Progress(made["blob"], made["tempers"], seed, made["put_every"])
    found = run.run(round(rounds * max(made["bounds"])))
    both = zip(found, made["bounds"], strict=True)
    waits = [(worst / bound, number) for number, ((worst, _, _), bound) in enumerate(both)]
    ratio, number = max(waits)
    return {
        "ratio": ratio,
        "starved": sum(part > 1.0 for part, _ in waits),
        "slaves": len(found),
        "requests": sum(requests for _, requests, _ in found),
        "story": f"{made['baud']} baud, slave {number + 1} of {len(found)} ({made['tempers'][number]}) waited "
        f"{found[number][0] / 1e9:.3g} s, bound {made['bounds'][number] / 1e9:.3g} s",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--mixes", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mix", type=int)
    args = parser.parse_args()
    seeds = [args.mix] if args.mix is not None else range(args.seed, args.seed + args.mixes)
    started, starved, slaves, requests, worst, story = time.monotonic(), 0, 0, 0, 0.0, ""
    for seed in seeds:
        found = one(seed)
        starved, slaves, requests = starved + found["starved"], slaves + found["slaves"], requests + found["requests"]
        if found["starved"]:
            print(f"mix {seed}: {found['story']}")
        if found["ratio"] > worst:
            worst, story = found["ratio"], f"mix {seed}: {found['story']}"
    print(f"{len(seeds)} mixes, {slaves} slaves, {requests} requests in {time.monotonic() - started:.0f} s")
    print(f"longest wait {worst:.0%} of its bound ({story})")
    print(f"starved: {starved} (asked: 0)")
    return 1 if starved else 0


if __name__ == "__main__":
    sys.exit(main())
