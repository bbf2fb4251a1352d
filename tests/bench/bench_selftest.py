"""What the core's tests of itself cost a cycle: CRC of program and machine code, second copy of a gate's memory, marks.

Run: python tests/bench/bench_selftest.py [--count N] [--out DIR] [--smoke]
One unit with every signal that a map can have.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import harness

from tests.ext.safety.mode_rig import site
from tidegate.ext.abi.shared import Shared
from tidegate.ext.cycle import code
from tidegate.ext.cycle.loop import Core
from tidegate.ext.sim import disturb


def ns_each(count: int, call: Callable[[], object]) -> float:
    """Least of five runs, in ns of the processor a cycle."""
    best = float("inf")
    for _ in range(5):
        start = time.thread_time_ns()
        call()
        best = min(best, (time.thread_time_ns() - start) / count)
    return round(best, 1)


def main() -> int:
    parser = harness.parser(__doc__)
    parser.add_argument("--count", type=int, default=300_000)
    args = parser.parse_args()
    count = 1000 if args.smoke else args.count
    shared, fd = Shared.memfd("bench-selftest")
    core = Core(site(), shared)

    code_bytes = code.watch(core, str(Path(disturb.__file__).parents[1]))

    def least(program: bool, memory: bool, machine: bool) -> float:
        return ns_each(count, lambda: disturb.repeat(core, count, program, memory, machine))

    with harness.conditions(args) as given:
        flow, all_ns = least(False, False, False), least(True, True, True)
        found = {
            "all_ns": all_ns,
            "flow_ns": flow,
            "program_ns": round(least(True, False, False) - flow, 1),
            "memory_ns": round(least(False, True, False) - flow, 1),
            "code_ns": round(least(False, False, True) - flow, 1),
            "code_bytes": code_bytes,
        }
        print(json.dumps(found, indent=1))
    harness.write(args, "selftest", found, given)
    os.close(fd)
    return 0


if __name__ == "__main__":
    sys.exit(main())
