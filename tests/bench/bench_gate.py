"""What one unit's safety costs a cycle: way in, diagnosis of all rows, envelope, gate.

Run: make bench, or python tests/bench/bench_gate.py [--count N] [--out DIR] [--smoke]
One unit with every signal that a map can have and the shipped fault table, armed and discharging; and the same with a
derating active, when the gate walks its rows.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import harness

from tests.ext.safety.fault_rig import Rig, running


def ns_each(count: int, call: Callable[[], object]) -> float:
    """Least of five runs, in ns of processor time a cycle."""
    best = float("inf")
    for _ in range(5):
        start = time.thread_time_ns()
        call()
        best = min(best, (time.thread_time_ns() - start) / count)
    return round(best, 1)


def measure(rig: Rig, count: int) -> dict[str, float]:
    image = bytes(rig.image)
    diagnosis = ns_each(count, lambda: rig.diagnosis.repeat(image, rig.t_ns, count))
    gate = ns_each(count, lambda: rig.gate.repeat(count, **rig.inputs))
    return {"diagnose_ns": diagnosis, "gate_ns": gate, "sum_ns": round(diagnosis + gate, 1)}


def main() -> int:
    parser = harness.parser(__doc__)
    parser.add_argument("--count", type=int, default=300_000)
    args = parser.parse_args()
    count = 1000 if args.smoke else args.count
    quiet = running()
    warned = running()
    warned.set(warning=1.0)
    warned.cycle()
    with harness.conditions(args) as given:
        found = {"quiet": measure(quiet, count), "derated": measure(warned, count)}
        print(json.dumps(found, indent=1))
    harness.write(args, "gate", found, given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
