"""The same seeds on the boards' processors, under qemu-user: are they the same bytes as here?

    python tests/tools/arm.py --seeds 30 --kinds arm64                        # what CI runs
    python tests/tools/arm.py --seeds 1000 --kinds arm64 armhf armhf-time64   # every night

Each seed is a whole site for 47 s with its faults (tests/world/campaign.py); its sum is over every byte that core and
plant exchange, and over what the loop recorded. And a port thread runs there in real time: it may neither spin nor
hang (`idle_port.py`). Exit 1: they differ. 77: a program is missing, and it is named.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "packaging"))
import cross

SUMS = Path(__file__).with_name("seed_sums.py")
PORT = Path(__file__).with_name("idle_port.py")
PORT_COMMANDS = 8
SLEEPS_MOST = 100  # of a port thread in two seconds in which nothing is due; one that spins has thousands
WORD_BYTES = {"arm64": 8, "armhf": 4, "armhf-time64": 4}


def environment(extra: dict[str, str]) -> dict[str, str]:
    """Ours without what belongs to our Python."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return {**kept, **extra}


def started(words: list[str], first: int, behind: int, extra: dict[str, str]) -> subprocess.Popen[str]:
    """A run of some seeds."""
    return subprocess.Popen(
        [*words, str(SUMS), f"{first}:{behind}"], env=environment(extra), text=True, stdout=subprocess.PIPE
    )


def shares(seeds: range, jobs: int) -> Iterator[tuple[int, int]]:
    """The seeds in as many runs as there are jobs."""
    size = -(-len(seeds) // jobs)
    for first in range(seeds.start, seeds.stop, size):
        yield first, min(first + size, seeds.stop)


def sums(words: list[str], seeds: range, jobs: int, extra: dict[str, str], word_bytes: int) -> dict[int, str]:
    """Seed -> its sum and number of cycles. Raises SystemExit where a run ends badly or on another kind of machine."""
    found: dict[int, str] = {}
    for run in [started(words, first, behind, extra) for first, behind in shares(seeds, jobs)]:
        told, _ = run.communicate()
        if run.returncode:
            sys.exit(f"arm: {' '.join(words)}: exit {run.returncode}")
        if f"word {word_bytes}\n" not in told:
            sys.exit(f"arm: {' '.join(words)}: not the machine that was asked for: {told[:40]!r}")
        found |= {int(seed): rest for seed, rest in re.findall(r"^seed (\d+) (.*)$", told, re.M)}
    if sorted(found) != list(seeds):
        sys.exit(f"arm: {' '.join(words)}: {len(found)} of {len(seeds)} seeds came back")
    return found


def port_of(words: list[str], extra: dict[str, str]) -> dict[str, int]:
    """What a port thread did there (`idle_port.py`). Raises SystemExit where it did not end."""
    try:
        done = subprocess.run(
            [*words, str(PORT)], env=environment(extra), text=True, stdout=subprocess.PIPE, timeout=600, check=False
        )
    except subprocess.TimeoutExpired:
        sys.exit(f"arm: {PORT.name}: the port thread hangs")
    found = re.fullmatch(r"port (\d+) (\d+) (\d+)\n", done.stdout)
    if done.returncode or found is None:
        sys.exit(f"arm: {PORT.name}: exit {done.returncode}, said {done.stdout!r}")
    return {"sleeps": int(found[1]), "readings": int(found[2]), "commands": int(found[3])}


def port_wrong(port: dict[str, int]) -> list[str]:
    """What is wrong with a port thread; [] = it sleeps, reads and writes."""
    wrong = []
    if port["sleeps"] > SLEEPS_MOST:
        wrong.append(f"it slept {port['sleeps']} times while nothing was due: its waits are over at once")
    if port["readings"] < 1 or port["commands"] != PORT_COMMANDS:
        wrong.append(f"{port['readings']} readings, {port['commands']} of {PORT_COMMANDS} commands")
    return wrong


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=30, help="how many")
    parser.add_argument("--first", type=int, default=1, help="number of the first; a night in parts")
    parser.add_argument("--kinds", nargs="+", choices=cross.KINDS, default=list(cross.KINDS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    begun = time.monotonic()
    for name in options.kinds:
        cross.build(name)
    built_s = time.monotonic() - begun
    seeds = range(options.first, options.first + options.seeds)
    ours = sums([sys.executable], seeds, options.jobs, {}, 8)
    differing, table = 0, {"build_s": round(built_s, 1)}
    for name in options.kinds:
        begun = time.monotonic()
        words, extra = cross.python(name)
        port = port_of(words, extra)
        stuck = port_wrong(port)
        differing += len(stuck)
        print(f"{name}: a port thread slept {port['sleeps']} times in 2 s in which nothing was due, "
              f"{port['commands']} of {PORT_COMMANDS} commands", *stuck, sep="\n  ", flush=True)  # fmt: skip
        theirs = sums(words, seeds, options.jobs, extra, WORD_BYTES[name])
        wrong = [seed for seed in ours if theirs[seed] != ours[seed]]
        differing += len(wrong)
        table[name] = {"seeds": len(ours), "differ": wrong, "port": port, "wall_s": round(time.monotonic() - begun, 1)}
        cycles = sum(int(rest.split()[1]) for rest in theirs.values())
        print(f"{name}: {len(ours) - len(wrong)} of {len(ours)} seeds ({cycles:,} cycles) equal to this machine's, "
              f"{time.monotonic() - begun:.0f} s", flush=True)  # fmt: skip
        for seed in wrong[:5]:
            print(f"  seed {seed}: {ours[seed][:16]} here, {theirs[seed][:16]} there", file=sys.stderr)
    (cross.BUILD / "seeds.json").write_text(json.dumps(table, indent=2) + "\n")
    print(f"arm: built in {built_s:.0f} s; the table is in build/arm/seeds.json")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
