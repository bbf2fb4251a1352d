"""Is the proof awake? Each planted fault must make it fail.

Run: make prove, or python tests/proof/planted.py [--only N]
A fault is planted in a copy of ext/safety/safety.c, and the function that it sits in is proved again. Exit code 1 if
any fault goes unnoticed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "ext" / "safety" / "safety.c"

FAULTS = [  # what it is, function proved, text in safety.c, text planted
    ("a limit that does not limit", "within", "        return low_end;", "        return x;"),
    ("power wraps around", "power_w", "return (int32_t)least((int64_t)mv * ma / 1000000, INT32_MAX);",
     "return (int32_t)((int64_t)mv * ma / 1000000);"),
    ("power at the very limit", "taper_w", "if (w <= 0 || room <= 0)", "if (w <= 0 || room < 0)"),
    ("the wider of two limits", "narrowed", "if (limit_w < side.w)", "if (limit_w > side.w)"),
    ("a lost converter overlooked", "known", "\n        || missing(input, VALID_ESS_W))", ")"),
    ("a forbidden direction", "narrowest", "narrowed_if(way.enabled == 0,", "narrowed_if(way.enabled == 2,"),
    ("a current limit left out", "narrowest", "power_w(input->pack_mv, way.ma), LIMIT_CURRENT",
     "power_w(input->pack_mv, way.own_ma), LIMIT_CURRENT"),
    ("a latch lost while active", "row_step", "if (ack && !memory.active && memory", "if (ack && memory"),
    ("a row that never acts", "filled",
     "if (!present || filled_us < debounce_us)",
     "if (!present || filled_us <= debounce_us)"),
    ("the lowest reaction wins", "joined", "graver = severe > demand", "graver = severe < demand"),
    ("armed with a latch", "trip_of", " && !demand.latches)", ")"),
    ("a change of side not from zero", "reach_mw",
     "above_zero(above_zero(last_mw) + up_mw", "above_zero(last_mw + up_mw"),
    ("a setpoint out of the envelope", "reach_mw", "least(least(above_zero(wanted_mw), most_mw),",
     "least(above_zero(wanted_mw),"),
    ("power while tripped", "decided", "sight.request_valid && !stays,", "sight.request_valid,"),
    ("a heartbeat on unknown inputs", "decided", "heartbeat_ok = sight.good && demand", "heartbeat_ok = demand"),
]  # fmt: skip


def noticed(function: str, before: str, after: str) -> bool:
    """Whether the proof of `function` fails once `before` is replaced by `after`."""
    text = SOURCE.read_text()
    if text.count(before) != 1:
        raise SystemExit(
            f"planted: {before!r} stands {text.count(before)} times in {SOURCE.name}; bring the list up to date"
        )
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "safety.c"
        copy.write_text(text.replace(before, after))
        env = {**os.environ, "FUNCTIONS": function, "Z3_STEPS": "2000000"}
        done = subprocess.run([HERE / "prove.sh", copy], env=env, capture_output=True, text=True)
    if done.returncode == 2:
        raise SystemExit(done.stderr or done.stdout)
    return done.returncode == 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", type=int, help="number of one fault, from 1")
    only = parser.parse_args().only
    missed = 0
    for number, (what, function, before, after) in enumerate(FAULTS, 1):
        if only in (None, number):
            seen = noticed(function, before, after)
            missed += not seen
            print(f"planted fault {number:2} in {function}: {what}: {'noticed' if seen else 'NOT NOTICED'}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
